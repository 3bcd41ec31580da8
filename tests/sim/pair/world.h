/* Simulated pairs: real pair cores between toy sessions, clients, a database and a group. */
#pragma once

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/hftime.h"
#include "base/prng.h"
#include "core/pair/backup.h"
#include "core/pair/primary.h"

#define PW_HOSTS 3
#define PW_CLIENTS 4
#define PW_LINKS 8
#define PW_MARKS 512
#define PW_ITEMS 4
#define PW_MSGS 256
#define PW_TXNS 4096
#define PW_REIGNS 64
#define PW_NUMBERS 8192

/* Sections of a session. */
enum { PW_RX, PW_TX, PW_FACTS, PW_LOG, PW_PREPARED };

/* A client: asks for one more in the database, again and again, and counts. What it has sent and
 * what it has got are streams of 8-byte numbers, so that a byte's place tells what it must be. */
struct pw_client {
    bool connected;
    uint64_t id;               /* of its session */
    uint64_t base;             /* what the database had when it connected */
    uint64_t asks_max;         /* on this connection */
    uint64_t sent, acked, got; /* bytes: sent; acknowledged by TCP; of answers */
    uint64_t n_answers, n_resets;
    uint8_t part[8];
};

/* What waits for a batch. */
struct pw_mark {
    uint64_t number;
    uint64_t rcv, tx; /* may be acknowledged, may be written up to here */
    uint64_t token;   /* may be committed; 0: nothing */
};

/* A session as the primary manager has it. */
struct pw_session {
    bool used, dirty;
    uint64_t id;
    uint32_t client;
    /* replicated */
    struct hf_buf rx, tx, log;
    uint64_t consumed;      /* place of the first byte of rx in the client's stream */
    uint64_t tx_base;       /* place of the first byte of tx */
    uint64_t n_done;        /* requests answered */
    uint64_t token;         /* of the request under way; 0: none */
    uint8_t item[PW_ITEMS]; /* 0: not there */
    /* here only */
    uint64_t kernel; /* acknowledged by the kernel while the gate was open; perhaps not read yet */
    uint64_t may_tx;
    bool wants_commit; /* the token is new: commit it when its batch may take effect */
    struct pw_mark mark[PW_MARKS];
    uint32_t n_marks;
};

/* Between host and group; in order. */
enum pw_msg_kind {
    PW_LEAD,
    PW_FOLLOW,
    PW_BACKUP,
    PW_ANSWER,
    PW_LEASE,
    PW_STAND_DOWN,
    PW_ASK_SOLO,
    PW_ASK_RECORD,
    PW_ASK_LEASE,
    PW_STOOD_DOWN,
};
struct pw_msg {
    enum pw_msg_kind kind;
    uint64_t epoch, id;
    uint32_t host;
    bool done;
    hf_time at;
};
struct pw_queue {
    struct pw_msg m[PW_MSGS];
    uint32_t n;
};

struct pw_host {
    struct pw_world *w;
    uint32_t i;
    bool up, frozen, cut; /* cut: from the group */
    uint32_t boots;
    hf_time offset;                  /* of its clock */
    struct hf_pair_primary *primary; /* owned */
    struct hf_pair_backup *backup;   /* owned */
    uint64_t epoch, incarnation;
    int plink, blink;    /* index of link, or -1 */
    uint32_t connecting; /* to host - 1; 0: not */
    bool gate_open, gated_due;
    bool listens; /* new clients come to it */
    hf_time lease, lease_asked;
    hf_time heard;                /* anything of a primary, by the world's clock; 0: never */
    uint64_t confirmed, recorded; /* as told; last batch whose digest is noted */
    uint64_t released;            /* the newest batch that had an effect */
    struct pw_session session[PW_CLIENTS];
    struct pw_queue to, from; /* the group's messages to it, its to the group */
    enum hf_pair_state told;  /* last traced */
};

/* A connection of a primary (a) to a backup (b). */
struct pw_link {
    bool used, dead; /* dead: the network takes nothing any more */
    uint32_t a, b;
    bool a_open, b_open, b_pending;
    struct hf_buf ab, ba; /* on its way */
};

enum pw_txn_state { PW_OPEN, PW_COMMITTED, PW_ABORTED };
struct pw_txn {
    uint32_t client;
    uint64_t epoch, value;
    enum pw_txn_state state;
};
struct pw_commit { /* or its answer */
    uint32_t host;
    uint64_t epoch, token;
};
struct pw_db {
    uint64_t value[PW_CLIENTS];
    struct pw_txn txn[PW_TXNS]; /* by token; 0 unused */
    uint64_t n_txns;
    uint64_t min_epoch; /* backends of older ones were terminated (X6) */
    struct pw_commit commit[64], answer[64];
    uint32_t n_commits, n_answers;
};

struct pw_group {
    uint64_t epoch;
    uint32_t primary, primary_boots;
    bool fences; /* else leases */
    hf_time lease_given;
    bool known[PW_HOSTS];
    uint32_t known_boots[PW_HOSTS];
    bool in_set[PW_HOSTS]; /* may be promoted */
    uint32_t set_boots[PW_HOSTS];
    uint64_t last_ask;
    uint32_t backup; /* named: host + 1; 0: none */
    bool standing_down, stood_down;
};

/* What the sessions of a reign were, batch by batch. */
struct pw_reign {
    uint64_t incarnation;
    uint32_t host;
    uint64_t digest[PW_NUMBERS];
};

struct pw_world {
    struct hf_prng prng;
    hf_time now;
    struct hf_pair_primary_conf conf;
    struct pw_host host[PW_HOSTS];
    struct pw_client client[PW_CLIENTS];
    uint32_t n_clients;
    struct pw_link link[PW_LINKS];
    bool pair_cut; /* no connection between managers */
    size_t link_room;
    hf_time lease; /* how long one is good */
    struct pw_db db;
    struct pw_group g;
    struct pw_reign reign[PW_REIGNS];
    uint32_t n_reigns;
    uint64_t next_id;
    bool story;
    uint64_t n_steps, n_answers, n_takeovers, n_kept, n_resets, n_solos, n_syncs, n_resumes,
        n_crashes;
    FILE *trace;
    jmp_buf *fail;
    char why[400];
};

void pw_init(struct pw_world *w, uint64_t seed, uint32_t n_clients, bool fences);
void pw_fini(struct pw_world *w);
void pw_failed(struct pw_world *w, const char *fmt, ...) HF_PRINTF(2, 3);
void pw_tell(struct pw_world *w, const char *fmt, ...) HF_PRINTF(2, 3);
uint64_t pw_below(struct pw_world *w, uint64_t n);
hf_time pw_local(const struct pw_host *h);
bool pw_runs(const struct pw_host *h);
char pw_name(uint32_t host);

/* One thing that can happen next; false: it can't now. n: at most so many bytes. */
bool pw_link_ab(struct pw_world *w, uint32_t link, size_t n);
bool pw_link_ba(struct pw_world *w, uint32_t link, size_t n);
bool pw_notice(struct pw_world *w, uint32_t link, bool a);
bool pw_connects(struct pw_host *h);
bool pw_turn(struct pw_host *h);
void pw_time(struct pw_world *w, hf_time most);
/** When a core wants its next step; HF_NEVER: none. */
hf_time pw_deadline(const struct pw_world *w);
/** It is `now`: cores step. */
void pw_tick(struct pw_world *w, hf_time now);
/** Everything that can happen without faults and time, until nothing can. */
void pw_settle(struct pw_world *w);

/* Faults and their ends. */
void pw_crash(struct pw_host *h, bool silently);
void pw_boot(struct pw_host *h);
void pw_break(struct pw_world *w, uint32_t link, size_t ab, size_t ba);
/** A reign begins, without sessions yet; the store that was here, or NULL: the caller's. owed: who
 * may be promoted already. */
struct hf_pair_store *pw_reign(struct pw_host *h, uint64_t epoch, uint32_t owed);
/** The reign is over, as far as this host is concerned. */
void pw_retire(struct pw_host *h);
/** Become the primary of a reign, with the store or without; become a backup. */
void pw_lead(struct pw_host *h, const struct pw_msg *m);
void pw_follow(struct pw_host *h, uint64_t epoch);
/** No backup any more, either. */
void pw_unfollow(struct pw_host *h);

/* --- manager.c: toy sessions --- */
bool pw_asks(struct pw_world *w, uint32_t client, size_t n);
bool pw_accept(struct pw_host *h, uint32_t client);
bool pw_read(struct pw_host *h, uint32_t client, size_t n);
bool pw_parse(struct pw_host *h, uint32_t client);
bool pw_release(struct pw_host *h, uint32_t client);
bool pw_write(struct pw_host *h, uint32_t client, size_t n);
bool pw_acked(struct pw_host *h, uint32_t client);
bool pw_kernel(struct pw_host *h, uint32_t client);
bool pw_gated(struct pw_host *h);
bool pw_leaves(struct pw_host *h, uint32_t client);
bool pw_db_commit(struct pw_world *w);
bool pw_db_answer(struct pw_world *w);
void pw_note_sealed(struct pw_host *h);
void pw_snapshot(struct pw_host *h, uint64_t id);
/** What its sessions are, in a store of its own; owned by the caller. */
struct hf_pair_store *pw_copy(struct pw_host *h);
uint64_t pw_digest(const struct pw_host *h);
uint64_t pw_digest_store(const struct hf_pair_store *st);
/** Sessions as the store has them (NULL: none). */
void pw_restore(struct pw_host *h, const struct hf_pair_store *st);
void pw_forget(struct pw_host *h);
bool pw_client_done(const struct pw_client *c);

/* --- group.c: decides, by magic; in tests/sim/takeover the real group does --- */
/** ASK_SOLO, ASK_RECORD. */
void pw_asked(struct pw_host *h, const struct hf_pair_out *ask);
/** Something was answered just now. */
bool pw_answered(struct pw_host *h);
/** Before anything is let out: until when it may be. */
void pw_lease(struct pw_host *h);
/** The host (+ 1) of the backup with this id; 0: it has none. */
uint32_t pw_place(struct pw_host *h, uint32_t id);
/** Do connections between these come about? */
bool pw_linked(const struct pw_world *w, uint32_t a, uint32_t b);
/** May this host be promoted after the reign of g.epoch, with what it has now? */
bool pw_promotable(const struct pw_world *w, uint32_t host);
void pw_say(struct pw_queue *q, struct pw_msg m);
bool pw_group_hears(struct pw_world *w, uint32_t host);
bool pw_host_hears(struct pw_host *h);
bool pw_group_looks(struct pw_world *w, uint32_t host);
bool pw_group_acts(struct pw_world *w);
bool pw_group_switches(struct pw_world *w);

/* --- check.c --- */
void pw_check_output(struct pw_host *h, const char *what);
void pw_check_released(struct pw_host *h, uint64_t number, const char *what);
void pw_check_store(struct pw_host *h);
void pw_check_recorded(struct pw_world *w, uint32_t host);
