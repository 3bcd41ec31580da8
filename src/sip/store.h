/* The SIP store: assignments, users, bindings, subscriptions in SQL (SQLite or PostgreSQL). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "core/sip/fleet.h"
#include "core/sip/ops.h"
#include "core/sip/rebalance.h"

/*
 * One for the process, with a thread of its own: workers submit from any thread, results and the
 * feed come in the store's thread through the callbacks, which hand them on. Ops that wait in the
 * queue are taken together: reads as one statement with arrays, BINDs as one transaction (group
 * commit: at most `group_commit` after the first).
 *
 *   connecting --schema is there, LISTEN set up--> there --connection lost, no answer in time-->
 * away
 *        ^---------------------------- after 0.1 to 5 s
 * -------------------------------------------+
 *
 * PostgreSQL: libpq in pipeline mode, one connection for all that writes in order, one for reads
 * and LISTEN; reached by its service address. SQLite: WAL, synchronous=FULL; only for one server,
 * or several on one machine (the feed polls data_version). Values are always parameters.
 */
struct hf_sip_store;

struct hf_sip_store_events {
    void (*result)(void *arg, unsigned worker, const struct hf_sip_result *r);
    void (*feed)(void *arg, const struct hf_sip_feed *f);
    /** A server of this name is in the table: its number; the same for all workers. */
    uint16_t (*server)(void *arg, struct hf_slice name);
    /** ... and back; copied into room bytes at buf (HF_NAME_MAX + 1). */
    void (*server_name)(void *arg, uint16_t server, char *buf, size_t room);
};
struct hf_sip_store_conf {
    const char *uri;  /* "sqlite:/path" or "postgresql://..." / "host=... dbname=..." */
    const char *self; /* this server's name */
    const char *realm;
    uint32_t group_commit_us; /* 0: 5000; at most 10000 */
    size_t queue_max;         /* ops that wait; more get AWAY at once. 0: 100000 */
    unsigned timeout_ms;      /* without an answer for so long, it is away. 0: 5000 */
};
/** Opens nothing yet; the thread does. -HF_EVALUE with text, -ENOMEM. */
HF_MUST int hf_sip_store_open(const struct hf_sip_store_conf *conf,
                              const struct hf_sip_store_events *events, void *arg,
                              struct hf_err *err, struct hf_sip_store **ret_store);
/** Writes what waits (at most timeout_ms), ends the thread. */
void hf_sip_store_close(struct hf_sip_store *s);
/** Any thread. Copied. */
void hf_sip_store_submit(struct hf_sip_store *s, unsigned worker, const struct hf_sip_op *op);
/** Read all that is ours, and the feed, again: at a start and after a pause of the process (I10).
 * Ours come as feed rows. */
void hf_sip_store_reread(struct hf_sip_store *s);

/** Create or bring up to date the tables: `holdfast-sip --init`, and at a start with sqlite.
 * Blocking. */
HF_MUST int hf_sip_store_init(const char *uri, struct hf_err *err);

/* --- the leader's and the operator's (blocking, on a connection of their own) --- */
struct hf_sip_lead;
HF_MUST int hf_sip_lead_open(const char *uri, struct hf_err *err, struct hf_sip_lead **ret_lead);
void hf_sip_lead_close(struct hf_sip_lead *l);
/** Begin a reign: no former leader changes anything any more. */
HF_MUST int hf_sip_lead_reign(struct hf_sip_lead *l, uint64_t reign, struct hf_err *err);
/** Carry out a move (rebalance.h): one transaction, one NOTIFY. -HF_ECLOSED: a later leader is
 * there. ret_n: rows changed. */
HF_MUST int hf_sip_lead_move(struct hf_sip_lead *l, const struct hf_sip_fleet *f,
                             const struct hf_sip_move *m, struct hf_err *err, uint64_t *ret_n);
/** Rows by (current, home, pinned) of a server, for the rebalancer. */
HF_MUST int hf_sip_lead_counts(struct hf_sip_lead *l, const char *server, uint64_t *ret_rows,
                               uint64_t *ret_pinned, struct hf_err *err);
/** Operator: assign (create or change), pin, unpin one AoR; server NULL: leave it. */
HF_MUST int hf_sip_lead_assign(struct hf_sip_lead *l, struct hf_slice aor, const char *server,
                               int pin /* 1, 0, -1: as it is */, struct hf_err *err);
/** CSV (assign_csv.h): rows in one transaction; and out, in order of AoR. */
HF_MUST int hf_sip_lead_import(struct hf_sip_lead *l, struct hf_slice csv, struct hf_err *err,
                               uint64_t *ret_n);
HF_MUST int hf_sip_lead_export(struct hf_sip_lead *l, struct hf_buf *csv, struct hf_err *err);
/** Users: `holdfast sip user add NAME` (password: secrets of all algorithms are stored, never it),
 * `user delete` (with the row; servers are told). */
HF_MUST int hf_sip_lead_user(struct hf_sip_lead *l, const char *user, const char *realm,
                             struct hf_slice aor, const char *password, struct hf_err *err);
HF_MUST int hf_sip_lead_user_delete(struct hf_sip_lead *l, const char *user, const char *realm,
                                    struct hf_err *err);
