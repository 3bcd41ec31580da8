/* What outlives the process for a moment: its connections to servers, and what its clients still
 * send here. */
#pragma once

#include "pg/sconn.h"

/*
 * A process that dies takes its sockets along. Of a primary with a backup that costs its clients
 * twice, though the backup goes on with their connections some 50 ms later:
 *
 * - hundreds of server processes see their connection end and end, all at once: CPU time of the
 *   server that the sessions, which go on, wait for;
 * - what clients send until the address has moved finds no socket, and they send it again only
 *   after their retransmission timeout, at least 200 ms.
 *
 * So a second process, begun with this one, holds each server connection a second time, and does
 * nothing. When this one dies while a backup is in sync, it forwards segments for the address to
 * the host that announces it (os/forward.h), and ends the server connections one
 * after the other (those whose sessions the backup has to end first it ends itself, X6). In any
 * other case it ends at once. An orderly end takes it along.
 *
 * Without it (it was killed) everything is as it would be without this file.
 */
struct hf_pg_linger;

/* Server connections of sessions that have gone on elsewhere are closed so long after that, one
 * after the other: as many as may be within HF_PG_PART_WITHIN, but if there are very many, so fast
 * that their places are soon free. */
#define HF_PG_PART_AFTER HF_MS(300)
#define HF_PG_PART_WITHIN HF_S(1)
#define HF_PG_PART_EVERY HF_MS(2)
/** From one of n to the next. */
static inline hf_time hf_pg_part_every(size_t n)
{
    hf_time every = HF_PG_PART_WITHIN / (hf_time)(n + 1);
    return every > HF_PG_PART_EVERY ? every : HF_PG_PART_EVERY;
}

/** Where the service address is configured; later NULL does no harm anywhere. After privileges were
 * dropped: it has the same. 0 or -errno with a text. */
HF_MUST int hf_pg_linger_open(const struct hf_pg_config *config, struct hf_err *err,
                              struct hf_pg_linger **ret_linger);
/** Ends it, at once. */
void hf_pg_linger_close(struct hf_pg_linger *l);

/** The guard's hf_egress_slow_fd(), instead of the one before: it is not closed with this process,
 * whose end is known sooner then. */
void hf_pg_linger_guard(struct hf_pg_linger *l, int fd);
/** A server connection of a session that the backup knows of. Once for each. */
void hf_pg_linger_keep(struct hf_pg_linger *l, struct hf_pg_sconn *conn);
/** Is there a backup in sync, to which clients go on if this process dies? */
void hf_pg_linger_protected(struct hf_pg_linger *l, bool on);
