/* The service address and this host's part in it: what the group's agent asks for is done here. */
#pragma once

#include "core/pair/backup.h"
#include "core/pair/primary.h"
#include "pg/pg.h"

/*
 *             start                 promote         open, sockets settled
 *   STOPPED ----------> BACKUP ------------> TAKING ----------------------> PRIMARY
 *      ^                  | ^                  |                              |
 *      +------- stop -----+ +------------------+------ demote ----------------+
 *
 * STOPPED: nothing of the service is here but, since the first start, the guard, which lets nothing
 * out. BACKUP: the guard, and what the primary streams. TAKING: a reign of the pair core, and
 * nothing is let out before `open`. PRIMARY: the address, sessions, the listener.
 * doc/design/takeover.md has the whole.
 */
#define HF_PG_ROLE_LIST(X)                                                                         \
    X(STOPPED, "stopped")                                                                          \
    X(BACKUP, "backup")                                                                            \
    X(TAKING, "taking over")                                                                       \
    X(PRIMARY, "primary")
enum hf_pg_role {
#define HF_PG_ROLE_ENUM(id, name) HF_PG_ROLE_##id,
    HF_PG_ROLE_LIST(HF_PG_ROLE_ENUM)
#undef HF_PG_ROLE_ENUM
};
const char *hf_pg_role_name(enum hf_pg_role r);

struct hf_pg_service;

/** *ret_service = NULL, 0: no service address is configured. */
HF_MUST int hf_pg_service_open(struct hf_pg *pg, struct hf_err *err,
                               struct hf_pg_service **ret_service);
/** NULL is fine. What the clients of the address have is left as after the death of the process. */
void hf_pg_service_close(struct hf_pg_service *s);

/** This host's name in the cluster. */
const char *hf_pg_service_host(const struct hf_pg_service *s);

/** For console and metrics; names are "" where there is none, borrowed until the next turn. */
struct hf_pg_service_info {
    enum hf_pg_role role;
    uint64_t epoch;
    const char *peer; /* the backup's name, or the primary's */
    bool leading;     /* primary is valid, otherwise backup */
    struct hf_pair_primary_info primary;
    struct hf_pair_backup_info backup;
    hf_time lease_until; /* HF_NEVER: none */
};
void hf_pg_service_info(const struct hf_pg_service *s, struct hf_pg_service_info *ret_info);
