/* The primary manager's side of a pair: states, the gate, what is kept, what may be let out. */
#include "core/pair/primary.h"

#include <assert.h>
#include <errno.h>

#include "base/err.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/names.h"
#include "core/pair/pair_impl.h"

#define CTL_MAX 4096u    /* bytes of frames without a number unsent: then no heartbeats */
#define RTT_WINDOW 64u   /* heartbeats whose smallest round trip counts, and as many before */
#define VERSION_TURNS 50 /* times connect_again: until one of both is updated */
#define BATCH_HEAD (HF_PAIR_V1_HEAD_LEN + 8)

struct session {
    struct hf_list node; /* most recently active first; in p->sent or p->unsent */
    uint64_t id;
    bool unsent; /* its snapshot is still to come: operations are not sent */
};

/* A batch that is not confirmed: where its frames are, in bytes since the beginning. */
struct record {
    uint64_t number, start, end;
    hf_time sealed;
};

enum conn { CONN_NONE, CONN_OPENING, CONN_GREETING, CONN_UP };

enum ask { ASK_NONE, ASK_SOLO, ASK_RECORD };

struct hf_pair_primary {
    struct hf_pair_primary_conf conf;
    enum hf_pair_state state;
    hf_time now; /* of the last call that told it */
    hf_time since, unprotected_since;
    hf_time lease;
    bool lease_over; /* counted */
    bool lease_noted;

    /* the group */
    uint32_t backup; /* as named; 0: nobody */
    uint32_t owed;   /* whom the group may promote; 0: nobody, so this side is solo */
    bool recorded;   /* the group has said so of `owed`, and was not asked otherwise since */
    enum ask ask;    /* not answered yet */
    uint64_t ask_id; /* of the last one */
    hf_time ask_at;  /* when it is to be told (again) */
    hf_time solo_at; /* LOST: when to ask; HF_NEVER: asked */

    /* what may be let out */
    bool gate_open, told_open;    /* as it is, as the user was told */
    bool closing;                 /* CLOSE_GATE was told, and not answered yet */
    uint64_t sealed, acked, told; /* newest batch; confirmed by the backup; CONFIRMED said */
    bool complete;                /* what the backup has is a complete store of this reign */
    bool synced;                  /* and has what was let out before the gate closed */

    /* the connection */
    enum conn conn;
    bool close;         /* to be told */
    hf_time connect_at; /* HF_NEVER: not wanted */
    int code;
    hf_time heard, beat_at, up_since;
    struct hf_pair_reader in;
    struct hf_pair_bytes ctl; /* frames without a number, sent between others */
    bool offered_ctl;         /* by tosend() */

    /* batches: the queue holds the frames from record[first] on, then those of the open batch */
    bool live;    /* operations are kept for the backup */
    bool open;    /* the queue ends with an open batch */
    bool changed; /* operations since the last seal */
    struct hf_pair_bytes queue;
    uint64_t base;         /* where the queue begins, in bytes since the beginning */
    uint64_t frame_at;     /* of the open batch: where its open frame begins */
    uint64_t open_at;      /* where the open batch begins */
    uint64_t sent;         /* sent up to here on this connection */
    uint64_t boundary;     /* the first beginning of a frame at or after `sent` */
    struct record *record; /* owned; a ring of conf.batches_max */
    uint32_t first, n_records;

    /* sessions and their snapshot */
    struct hf_map map; /* of struct session, by id */
    struct hf_list sent_list, unsent_list;
    struct session *last; /* that an operation named: the first of its list; or NULL */
    size_t n_unsent;
    bool filling;    /* a snapshot is under way: the backup fills a new store */
    bool last_sent;  /* the batch that completes it is sealed */
    uint64_t gate_n; /* what was let out before is confirmed when this batch is */
    bool snapping;   /* SNAPSHOT was told: its operations come until next() */

    hf_time echoed; /* our clock that this backup has answered last */
    hf_time rtt[2];
    uint32_t n_rtts;
    struct hf_pair_primary_counters counters;
};

/* ---- names ---- */

HF_NAMES(hf_pair_state_name, enum hf_pair_state, HF_PAIR_STATE_LIST)
HF_NAMES(hf_pair_out_name, enum hf_pair_out_kind, HF_PAIR_OUT_LIST)

/* ---- states ---- */

#define BIT(id) (1u << HF_PAIR_STATE_##id)
static const uint8_t next_states[HF_PAIR_STATE_COUNT_] = {
    [HF_PAIR_STATE_NO_BACKUP] = BIT(CONNECTING),
    [HF_PAIR_STATE_CONNECTING] = BIT(NO_BACKUP) | BIT(SYNCING),
    [HF_PAIR_STATE_SYNCING] =
        BIT(NO_BACKUP) | BIT(CONNECTING) | BIT(RECORDING) | BIT(IN_SYNC) | BIT(LOST),
    [HF_PAIR_STATE_RECORDING] = BIT(IN_SYNC) | BIT(LOST),
    [HF_PAIR_STATE_IN_SYNC] = BIT(LOST),
    [HF_PAIR_STATE_LOST] =
        BIT(NO_BACKUP) | BIT(CONNECTING) | BIT(SYNCING) | BIT(RECORDING) | BIT(IN_SYNC),
};

static void enter_state(struct hf_pair_primary *p, enum hf_pair_state s)
{
    assert(next_states[p->state] >> s & 1);
    if (s == HF_PAIR_STATE_IN_SYNC) {
        p->unprotected_since = HF_NEVER;
    } else if (p->unprotected_since == HF_NEVER) {
        p->unprotected_since = p->now;
    }
    p->state = s;
    p->since = p->now;
}

/* ---- what may be let out ---- */

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool leased(const struct hf_pair_primary *p, hf_time now)
{
    return now < p->lease;
}

/* The newest batch that may take effect. While nobody is owed, what the backup has got is only
 * waited for so that it lags behind nothing when the group is asked to count on it. */
static uint64_t releasable(const struct hf_pair_primary *p)
{
    if (p->gate_open) {
        return p->sealed;
    }
    bool counts = p->owed == 0 || (p->owed == p->backup && p->complete);
    return counts ? max_u64(p->acked, p->told) : p->told;
}

bool hf_pair_primary_may(const struct hf_pair_primary *p, uint64_t number, hf_time now)
{
    return leased(p, now) && number <= releasable(p);
}

/* ---- batches that are kept ---- */

static struct record *record(const struct hf_pair_primary *p, uint32_t i)
{
    return &p->record[(p->first + i) % p->conf.batches_max];
}

/* Keep nothing (more) for the backup. */
static void drop_queue(struct hf_pair_primary *p)
{
    hf_pair_bytes_clear(&p->queue);
    p->live = p->open = false;
    p->base = p->sent = p->boundary = 0;
    p->first = p->n_records = 0;
}

static uint64_t queue_end(const struct hf_pair_primary *p)
{
    return p->base + p->queue.n;
}

/* The end of what may be sent. */
static uint64_t sealed_end(const struct hf_pair_primary *p)
{
    return p->open ? p->open_at : queue_end(p);
}

static void drop_connection(struct hf_pair_primary *p, int code);

/* What can't be kept: the backup is not told less than there is, it is lost. */
static void overflow(struct hf_pair_primary *p)
{
    p->counters.overflows++;
    p->complete = p->synced = false;
    drop_queue(p);
    drop_connection(p, -HF_EFULL);
}

static void patch_frame(struct hf_pair_primary *p, bool more, bool complete)
{
    uint64_t n = queue_end(p) - p->frame_at;
    struct hf_wr w;
    uint8_t *at = p->queue.p + p->queue.head + (p->frame_at - p->base);
    struct hf_pair_v1_frame f = {.type = HF_PAIR_V1_BATCH,
                                 .epoch = p->conf.epoch,
                                 .number = p->sealed + 1,
                                 .more = more,
                                 .complete = complete};
    hf_wr_init(&w, at, BATCH_HEAD);
    hf_pair_v1_encode(&w, &f);
    hf_wr_patch_u32(&w, 0, (uint32_t)(n - 4));
    assert(!w.err);
}

/* Begin a frame of the open batch. */
static int begin_frame(struct hf_pair_primary *p)
{
    if (!hf_pair_bytes_reserve(&p->queue, BATCH_HEAD)) {
        return -ENOMEM;
    }
    p->frame_at = queue_end(p);
    if (!p->open) {
        p->open = true;
        p->open_at = p->frame_at;
    }
    p->queue.n += BATCH_HEAD;
    return 0;
}

/* One operation, which must fit into what is left of the frame, or into a new one. */
static int put_piece(struct hf_pair_primary *p, const struct hf_pair_op *op)
{
    uint8_t *at = hf_pair_bytes_reserve(&p->queue, HF_PAIR_OP_HEAD_MAX + op->bytes.n);
    struct hf_wr w;
    struct hf_slice head;
    if (!at) {
        return -ENOMEM;
    }
    hf_wr_init(&w, at, HF_PAIR_OP_HEAD_MAX + op->bytes.n);
    hf_pair_op_encode_head(&w, op);
    hf_wr_bytes(&w, op->bytes);
    int rc = hf_wr_end(&w, &head);
    assert(rc == 0);
    p->queue.n += head.n;
    return 0;
}

/* An operation, in as many pieces and frames as it takes. */
static int put_op(struct hf_pair_primary *p, struct hf_pair_op op)
{
    struct hf_slice rest = op.bytes;
    int rc = p->open ? 0 : begin_frame(p);
    while (rc == 0) {
        size_t used = queue_end(p) - p->frame_at;
        if (used + HF_PAIR_OP_HEAD_MAX + (rest.n ? 1 : 0) > HF_PAIR_V1_FRAME_MAX) {
            patch_frame(p, true, false);
            rc = begin_frame(p);
            continue;
        }
        size_t room = HF_PAIR_V1_FRAME_MAX - used - HF_PAIR_OP_HEAD_MAX;
        op.bytes = hf_slice(rest.p, rest.n < room ? rest.n : room);
        rc = put_piece(p, &op);
        if (rc || op.bytes.n == rest.n) {
            break;
        }
        rest = hf_slice(rest.p + op.bytes.n, rest.n - op.bytes.n);
        op.kind = op.kind == HF_PAIR_PUT   ? HF_PAIR_APPEND
                  : op.kind == HF_PAIR_SET ? HF_PAIR_EXTEND
                                           : op.kind;
    }
    return rc;
}

/* The open batch (an empty one if need be) is whole: it gets its number. */
static int seal_queue(struct hf_pair_primary *p, bool complete)
{
    int rc = p->open ? 0 : begin_frame(p);
    if (rc) {
        return rc;
    }
    if (queue_end(p) - p->open_at > HF_PAIR_BATCH_MAX) {
        return -HF_EFULL; /* no backup would take it */
    }
    patch_frame(p, false, complete);
    p->open = false;
    if (p->n_records == p->conf.batches_max) { /* confirmed together with the one before */
        struct record *r = record(p, p->n_records - 1);
        r->number = p->sealed + 1;
        r->end = queue_end(p);
    } else {
        *record(p, p->n_records++) = (struct record){
            .number = p->sealed + 1, .start = p->open_at, .end = queue_end(p), .sealed = p->now};
    }
    p->counters.batches_sent++;
    return 0;
}

static void seal(struct hf_pair_primary *p, bool complete)
{
    if (p->live && seal_queue(p, complete) != 0) {
        overflow(p);
    }
    p->sealed++;
    p->changed = false;
    p->counters.batches++;
}

uint64_t hf_pair_primary_seal(struct hf_pair_primary *p, hf_time now)
{
    p->now = now;
    if (p->changed) {
        seal(p, false);
    }
    return p->sealed;
}

/* ---- sessions and operations ---- */

static struct hf_slice id_key(const uint64_t *id)
{
    return hf_slice(id, sizeof(*id));
}

int hf_pair_primary_begin(struct hf_pair_primary *p, uint64_t session)
{
    assert(session != 0 && !hf_map_get(&p->map, id_key(&session)));
    if (p->map.n >= HF_PAIR_SESSIONS_MAX) {
        return -HF_EFULL;
    }
    struct session *s = hf_alloc(sizeof(*s));
    if (!s) {
        return -ENOMEM;
    }
    s->id = session;
    int rc = hf_map_put(&p->map, id_key(&s->id), s);
    if (rc) {
        hf_free(s);
        return rc;
    }
    hf_list_init(&s->node);
    hf_list_insert(p->sent_list.next, &s->node);
    return 0;
}

static struct session *touch(struct hf_pair_primary *p, uint64_t id)
{
    if (p->last && p->last->id == id) {
        return p->last;
    }
    struct session *s = hf_map_get(&p->map, id_key(&id));
    assert(s); /* hf_pair_primary_begin() first */
    p->last = s;
    hf_list_unlink(&s->node);
    hf_list_insert((s->unsent ? &p->unsent_list : &p->sent_list)->next, &s->node);
    return s;
}

static void operate(struct hf_pair_primary *p, const struct hf_pair_op *op)
{
    assert(op->section < HF_PAIR_SECTIONS_MAX);
    struct session *s = touch(p, op->session);
    p->changed = true;
    if (!p->live || s->unsent) {
        return;
    }
    if (p->queue.n + op->bytes.n > p->conf.retained_max || put_op(p, *op) != 0) {
        overflow(p);
    }
}

void hf_pair_primary_put(struct hf_pair_primary *p, uint64_t session, uint8_t section,
                         struct hf_slice bytes)
{
    operate(p, &(struct hf_pair_op){
                   .kind = HF_PAIR_PUT, .section = section, .session = session, .bytes = bytes});
}

void hf_pair_primary_append(struct hf_pair_primary *p, uint64_t session, uint8_t section,
                            struct hf_slice bytes)
{
    operate(p, &(struct hf_pair_op){
                   .kind = HF_PAIR_APPEND, .section = section, .session = session, .bytes = bytes});
}

void hf_pair_primary_cut(struct hf_pair_primary *p, uint64_t session, uint8_t section, uint32_t n)
{
    operate(p, &(struct hf_pair_op){
                   .kind = HF_PAIR_CUT, .section = section, .session = session, .n = n});
}

void hf_pair_primary_clear(struct hf_pair_primary *p, uint64_t session, uint8_t section)
{
    operate(p, &(struct hf_pair_op){.kind = HF_PAIR_CLEAR, .section = section, .session = session});
}

void hf_pair_primary_set(struct hf_pair_primary *p, uint64_t session, uint8_t section,
                         struct hf_slice name, struct hf_slice bytes)
{
    assert(name.n <= HF_PAIR_NAME_MAX);
    operate(p, &(struct hf_pair_op){.kind = HF_PAIR_SET,
                                    .section = section,
                                    .session = session,
                                    .name = name,
                                    .bytes = bytes});
}

void hf_pair_primary_unset(struct hf_pair_primary *p, uint64_t session, uint8_t section,
                           struct hf_slice name)
{
    assert(name.n <= HF_PAIR_NAME_MAX);
    operate(p, &(struct hf_pair_op){
                   .kind = HF_PAIR_UNSET, .section = section, .session = session, .name = name});
}

void hf_pair_primary_end(struct hf_pair_primary *p, uint64_t session)
{
    operate(p, &(struct hf_pair_op){.kind = HF_PAIR_END, .session = session});
    struct session *s = touch(p, session);
    p->last = NULL;
    p->n_unsent -= s->unsent;
    hf_map_remove(&p->map, id_key(&s->id));
    hf_list_unlink(&s->node);
    hf_free(s);
}

/* All sessions are with the backup, or none of them is. */
static void mark_all(struct hf_pair_primary *p, bool unsent)
{
    struct hf_list *from = unsent ? &p->sent_list : &p->unsent_list;
    struct hf_list *to = unsent ? &p->unsent_list : &p->sent_list;
    HF_LIST_FOREACH (n, from) {
        HF_CONTAINER_OF(n, struct session, node)->unsent = unsent;
        hf_list_unlink(n);
        hf_list_insert(to, n);
    }
    p->n_unsent = unsent ? p->map.n : 0;
}

/* ---- the group ---- */

static void ask(struct hf_pair_primary *p, enum ask what)
{
    p->ask = what;
    p->ask_id++;
    p->ask_at = p->now;
    p->recorded = false;
    p->counters.asks++;
    if (what == ASK_SOLO) {
        p->solo_at = HF_NEVER;
    } else {
        p->owed = p->backup; /* from now on the group may count on it */
    }
}

/* The backup is lost, and it is no use to wait for it. */
static void ask_at_once(struct hf_pair_primary *p)
{
    if (p->state == HF_PAIR_STATE_LOST && p->ask != ASK_SOLO) {
        ask(p, ASK_SOLO);
    }
}

/* The backup has all that was ever let out. Does the group know? */
static void go_in_sync(struct hf_pair_primary *p)
{
    if (p->owed != 0 && p->owed != p->backup) {
        /* the group would promote another one: it was asked not to */
        p->last_sent = true;
        if (p->state == HF_PAIR_STATE_LOST) {
            enter_state(p, HF_PAIR_STATE_SYNCING);
        }
        return;
    }
    if (p->owed && p->recorded) {
        enter_state(p, HF_PAIR_STATE_IN_SYNC);
        return;
    }
    ask(p, ASK_RECORD);
    enter_state(p, HF_PAIR_STATE_RECORDING);
}

/* Nobody else may be promoted: nobody needs to wait, unless the backup is about to be in sync. */
static void granted(struct hf_pair_primary *p)
{
    p->owed = 0;
    p->counters.solos++;
    if (p->state == HF_PAIR_STATE_LOST) {
        drop_queue(p);
        p->complete = p->synced = false;
        p->gate_open = true;
        enter_state(p, p->backup ? HF_PAIR_STATE_CONNECTING : HF_PAIR_STATE_NO_BACKUP);
    } else if (p->synced) {
        go_in_sync(p);
    } else if (!p->last_sent) {
        p->gate_open = true;
    }
}

void hf_pair_primary_answer(struct hf_pair_primary *p, uint64_t id, bool done, hf_time now)
{
    p->now = now;
    if (p->ask == ASK_NONE || id != p->ask_id) {
        return; /* of an ask that was overtaken by another one */
    }
    if (!done) {
        p->ask_at = now + p->conf.ask_again;
        return;
    }
    enum ask what = p->ask;
    p->ask = ASK_NONE;
    if (what == ASK_SOLO) {
        granted(p);
        return;
    }
    p->recorded = true;
    p->counters.recorded++;
    if (p->state == HF_PAIR_STATE_RECORDING) {
        enter_state(p, HF_PAIR_STATE_IN_SYNC);
    }
}

void hf_pair_primary_lease(struct hf_pair_primary *p, hf_time until, hf_time now)
{
    p->now = now;
    p->lease = until;
    p->lease_over = false;
}

void hf_pair_primary_backup(struct hf_pair_primary *p, uint32_t host, hf_time now)
{
    p->now = now;
    if (host == p->backup) {
        return;
    }
    p->complete = p->synced = false; /* of that one; so nothing is kept for it either */
    drop_connection(p, 0);
    drop_queue(p);
    p->acked = 0;
    p->echoed = 0;
    p->backup = host;
    p->connect_at = host ? now : HF_NEVER;
    if (p->state == HF_PAIR_STATE_LOST) {
        ask_at_once(p);
    } else if (host == 0 || p->state == HF_PAIR_STATE_NO_BACKUP) {
        enter_state(p, host ? HF_PAIR_STATE_CONNECTING : HF_PAIR_STATE_NO_BACKUP);
    }
}

/* ---- the connection ---- */

static void put_ctl(struct hf_pair_primary *p, struct hf_pair_v1_frame f)
{
    f.epoch = p->conf.epoch;
    if (hf_pair_bytes_frame(&p->ctl, &f) != 0) {
        drop_connection(p, -ENOMEM);
    }
}

/* The next connection begins with what was not confirmed on this one. */
static void rewind_queue(struct hf_pair_primary *p)
{
    p->sent = p->boundary = p->base;
}

static void lost(struct hf_pair_primary *p, int code)
{
    /* at once, unless it did not last: a backup that refuses is not to be kept busy with that */
    bool lasted = p->conn == CONN_UP && p->now - p->up_since >= p->conf.connect_again;
    p->counters.losses += p->conn == CONN_UP;
    p->conn = CONN_NONE;
    p->code = code;
    hf_time again = p->conf.connect_again * (code == -HF_EVERSION ? VERSION_TURNS : 1);
    p->connect_at = !p->backup ? HF_NEVER : lasted ? p->now : p->now + again;
    p->closing = p->filling = p->last_sent = p->snapping = false;
    hf_pair_reader_clear(&p->in);
    hf_pair_bytes_clear(&p->ctl);
    bool had = p->state == HF_PAIR_STATE_SYNCING || p->state == HF_PAIR_STATE_RECORDING ||
               p->state == HF_PAIR_STATE_IN_SYNC;
    if (had && (p->owed == 0 || !p->synced)) {
        drop_queue(p);
        p->complete = p->synced = false;
    }
    rewind_queue(p);
    if (had && p->owed == 0) {
        p->gate_open = true;
        enter_state(p, HF_PAIR_STATE_CONNECTING);
    } else if (had) {
        p->solo_at = p->ask == ASK_SOLO ? HF_NEVER : p->now + p->conf.solo_after;
        enter_state(p, HF_PAIR_STATE_LOST);
    }
}

static void drop_connection(struct hf_pair_primary *p, int code)
{
    if (p->conn != CONN_NONE) {
        p->close = true;
        lost(p, code);
    }
}

static void malformed(struct hf_pair_primary *p, int code)
{
    p->counters.malformed++;
    drop_connection(p, code);
}

void hf_pair_primary_connected(struct hf_pair_primary *p, hf_time now)
{
    p->now = now;
    if (p->conn != CONN_OPENING) {
        return;
    }
    p->conn = CONN_GREETING;
    p->heard = now;
    put_ctl(p, (struct hf_pair_v1_frame){.type = HF_PAIR_V1_HELLO,
                                         .version_min = HF_PAIR_V1_VERSION,
                                         .version = HF_PAIR_V1_VERSION,
                                         .incarnation = p->conf.incarnation});
}

void hf_pair_primary_disconnected(struct hf_pair_primary *p, hf_time now)
{
    p->now = now;
    if (p->conn != CONN_NONE) {
        lost(p, -HF_ECLOSED);
    }
}

/* Batches up to `number` are confirmed: they need not be kept. false: some were never sent. */
static bool forget_up_to(struct hf_pair_primary *p, uint64_t number)
{
    while (p->n_records && record(p, 0)->number <= number) {
        struct record *r = record(p, 0);
        if (r->end > p->sent) {
            return false;
        }
        hf_pair_bytes_cut(&p->queue, r->end - p->base);
        p->base = r->end;
        p->first = (p->first + 1) % p->conf.batches_max;
        p->n_records--;
    }
    return true;
}

/* A snapshot of everything, beside what goes on. */
static void begin_sync(struct hf_pair_primary *p)
{
    p->counters.syncs++;
    drop_queue(p);
    mark_all(p, true);
    p->complete = p->synced = p->last_sent = false;
    p->live = p->filling = true;
    p->acked = 0;
    ask_at_once(p); /* whom the group would promote has nothing to be promoted with */
    enter_state(p, HF_PAIR_STATE_SYNCING);
    put_ctl(p, (struct hf_pair_v1_frame){.type = HF_PAIR_V1_SYNC, .number = p->sealed + 1});
}

static void on_welcome(struct hf_pair_primary *p, const struct hf_pair_v1_frame *f)
{
    if (p->conn != CONN_GREETING || f->version != HF_PAIR_V1_VERSION) {
        malformed(p, p->conn == CONN_GREETING ? -HF_EVERSION : -HF_EPROTO);
        return;
    }
    p->conn = CONN_UP;
    p->beat_at = p->up_since = p->now;
    p->n_rtts = 0;
    bool ours = f->complete && f->incarnation == p->conf.incarnation && f->number <= p->sealed;
    if (ours && p->live && p->synced && f->number >= p->acked) {
        p->counters.resumes++;
        p->acked = f->number;
        p->sent = sealed_end(p); /* what it has was sent, on another connection */
        forget_up_to(p, f->number);
        rewind_queue(p);
        go_in_sync(p);
    } else if (ours && p->state == HF_PAIR_STATE_CONNECTING && f->number == p->sealed &&
               !p->changed) {
        p->counters.resumes++; /* nothing has happened since */
        mark_all(p, false);
        p->live = p->complete = true;
        p->acked = f->number;
        enter_state(p, HF_PAIR_STATE_SYNCING);
    } else {
        begin_sync(p);
    }
}

static void on_confirm(struct hf_pair_primary *p, const struct hf_pair_v1_frame *f)
{
    if (p->conn != CONN_UP || f->number > p->sealed || !forget_up_to(p, f->number) ||
        (f->complete && p->filling && !(p->last_sent && f->number >= p->gate_n)) ||
        (!f->complete && p->complete)) {
        malformed(p, -HF_EPROTO);
        return;
    }
    p->counters.confirms++;
    p->acked = max_u64(p->acked, f->number);
    if (f->complete) {
        p->complete = true;
        p->filling = false;
    }
    if (p->state == HF_PAIR_STATE_SYNCING && !p->synced && p->complete && p->last_sent &&
        p->acked >= p->gate_n) {
        p->synced = true;
        go_in_sync(p);
    }
}

static void on_beat(struct hf_pair_primary *p, const struct hf_pair_v1_frame *f)
{
    if (f->echo == 0 || f->echo > (uint64_t)p->now) {
        return;
    }
    hf_time d = p->now - (hf_time)f->echo;
    p->echoed = (hf_time)f->echo > p->echoed ? (hf_time)f->echo : p->echoed;
    if (p->n_rtts % RTT_WINDOW == 0) {
        p->rtt[1] = p->n_rtts ? p->rtt[0] : d;
        p->rtt[0] = d;
    }
    p->n_rtts++;
    p->rtt[0] = hf_time_min(p->rtt[0], d);
}

static void on_frame(struct hf_pair_primary *p, const struct hf_pair_v1_frame *f)
{
    if (f->epoch != p->conf.epoch) {
        p->counters.other_epoch++;
        return;
    }
    switch ((enum hf_pair_v1_type)f->type) {
    case HF_PAIR_V1_WELCOME:
        on_welcome(p, f);
        break;
    case HF_PAIR_V1_CONFIRM:
        on_confirm(p, f);
        break;
    case HF_PAIR_V1_BEAT:
        on_beat(p, f);
        break;
    case HF_PAIR_V1_BYE:
        drop_connection(p, f->code);
        ask_at_once(p);
        break;
    case HF_PAIR_V1_HELLO:
    case HF_PAIR_V1_SYNC:
    case HF_PAIR_V1_BATCH:
        malformed(p, -HF_EPROTO);
        break;
    }
}

void hf_pair_primary_received(struct hf_pair_primary *p, struct hf_slice bytes, hf_time now)
{
    p->now = now;
    if (p->conn != CONN_GREETING && p->conn != CONN_UP) {
        return;
    }
    p->heard = now;
    hf_pair_reader_feed(&p->in, bytes);
    while (p->conn != CONN_NONE) {
        struct hf_pair_v1_frame f;
        int rc = hf_pair_reader_next(&p->in, &f);
        if (rc < 0) {
            malformed(p, rc);
        }
        if (rc != 1) {
            break;
        }
        on_frame(p, &f);
    }
}

struct hf_slice hf_pair_primary_tosend(struct hf_pair_primary *p)
{
    p->offered_ctl = p->ctl.n && p->sent == p->boundary;
    if (p->offered_ctl) {
        return hf_pair_bytes_slice(&p->ctl);
    }
    uint64_t end = p->ctl.n ? p->boundary : sealed_end(p); /* of this frame, then those between */
    if (p->conn != CONN_UP || end == p->sent) {
        return hf_slice(NULL, 0);
    }
    return hf_slice(p->queue.p + p->queue.head + (p->sent - p->base), end - p->sent);
}

void hf_pair_primary_sent(struct hf_pair_primary *p, size_t n)
{
    p->counters.bytes_sent += n;
    if (p->offered_ctl) {
        hf_pair_bytes_cut(&p->ctl, n);
        return;
    }
    p->sent += n;
    assert(p->sent <= sealed_end(p));
    while (p->boundary < p->sent) {
        struct hf_rd r;
        hf_rd_init(&r, hf_slice(p->queue.p + p->queue.head + (p->boundary - p->base), 4));
        p->boundary += (uint64_t)hf_rd_u32(&r) + 4;
    }
}

void hf_pair_primary_bye(struct hf_pair_primary *p, int code, hf_time now)
{
    p->now = now;
    if (p->conn == CONN_UP) {
        put_ctl(p, (struct hf_pair_v1_frame){.type = HF_PAIR_V1_BYE, .code = code});
    }
}

/* ---- the gate, and the end of a snapshot ---- */

/* Everything is said: the batch that makes the backup's store complete. */
static void finish_sync(struct hf_pair_primary *p)
{
    seal(p, p->filling);
    if (p->state == HF_PAIR_STATE_SYNCING) { /* not overflown */
        p->gate_n = p->sealed;
        p->last_sent = true;
    }
}

void hf_pair_primary_gated(struct hf_pair_primary *p, hf_time now)
{
    p->now = now;
    if (p->closing) {
        p->closing = p->gate_open = false;
        finish_sync(p);
    }
}

bool hf_pair_primary_full(const struct hf_pair_primary *p)
{
    if (!p->live) {
        return !p->gate_open;
    }
    return p->queue.n >= p->conf.unconfirmed_max || p->n_records >= p->conf.batches_max;
}

/* ---- what to do ---- */

static bool next_gate(struct hf_pair_primary *p, struct hf_pair_out *out)
{
    bool close = p->state == HF_PAIR_STATE_SYNCING && p->gate_open && p->n_unsent == 0;
    if (close && !p->closing) {
        p->closing = true;
        p->told_open = false;
        out->kind = HF_PAIR_OUT_CLOSE_GATE;
        return true;
    }
    if (p->gate_open && !p->told_open && !p->closing) {
        p->told_open = true;
        out->kind = HF_PAIR_OUT_OPEN_GATE;
        return true;
    }
    if (!p->gate_open && p->told_open) { /* from the beginning: conf.owed */
        p->told_open = false;
        out->kind = HF_PAIR_OUT_CLOSE_GATE;
        return true;
    }
    return false;
}

static bool next_ask(struct hf_pair_primary *p, struct hf_pair_out *out)
{
    if (p->ask == ASK_NONE || p->ask_at > p->now) {
        return false;
    }
    p->ask_at = p->now + p->conf.ask_again;
    out->kind = p->ask == ASK_SOLO ? HF_PAIR_OUT_ASK_SOLO : HF_PAIR_OUT_ASK_RECORD;
    out->id = p->ask_id;
    out->host = p->ask == ASK_RECORD ? p->owed : 0;
    return true;
}

static bool next_snapshot(struct hf_pair_primary *p, struct hf_pair_out *out)
{
    if (p->state != HF_PAIR_STATE_SYNCING || p->changed) {
        return false;
    }
    if (p->n_unsent == 0) {
        if (!p->gate_open && !p->last_sent) {
            finish_sync(p);
        }
        return false;
    }
    if (p->queue.n >= p->conf.snapshot_window) {
        return false;
    }
    struct session *s = HF_CONTAINER_OF(p->unsent_list.next, struct session, node);
    s->unsent = false;
    p->last = s;
    p->n_unsent--;
    hf_list_unlink(&s->node);
    hf_list_insert(p->sent_list.next, &s->node);
    p->snapping = true;
    p->counters.snapshots++;
    out->kind = HF_PAIR_OUT_SNAPSHOT;
    out->session = s->id;
    return true;
}

bool hf_pair_primary_next(struct hf_pair_primary *p, hf_time now, struct hf_pair_out *ret_out)
{
    struct hf_pair_out out = {0};
    p->now = now;
    if (p->snapping) {
        p->snapping = false;
        hf_pair_primary_seal(p, now);
    }
    if (p->close) {
        p->close = false;
        out.kind = HF_PAIR_OUT_CLOSE;
    } else if (next_gate(p, &out) || next_ask(p, &out)) {
    } else if (leased(p, now) && releasable(p) > p->told) {
        p->told = out.number = releasable(p);
        out.kind = HF_PAIR_OUT_CONFIRMED;
    } else if (p->conn == CONN_NONE && p->connect_at <= now) {
        p->conn = CONN_OPENING;
        p->heard = now;
        out.kind = HF_PAIR_OUT_CONNECT;
        out.host = p->backup;
    } else if (!next_snapshot(p, &out)) {
        return false;
    }
    *ret_out = out;
    return true;
}

/* ---- time ---- */

/* When the connection is given up, if nothing comes. */
static hf_time silent_at(const struct hf_pair_primary *p)
{
    switch (p->conn) {
    case CONN_OPENING:
    case CONN_GREETING:
        return p->heard + 10 * p->conf.silence; /* TLS takes its time on a busy host */
    case CONN_UP:
        return p->heard + p->conf.silence;
    case CONN_NONE:
        break;
    }
    return HF_NEVER;
}

static hf_time slow_at(const struct hf_pair_primary *p)
{
    if (p->conn != CONN_UP || p->n_records == 0) {
        return HF_NEVER;
    }
    hf_time since = record(p, 0)->sealed;
    return (since > p->up_since ? since : p->up_since) + p->conf.confirm_timeout;
}

void hf_pair_primary_step(struct hf_pair_primary *p, hf_time now)
{
    p->now = now;
    if (!leased(p, now) && !p->lease_over) {
        p->lease_over = true;
        p->counters.leases_expired++;
    }
    if (silent_at(p) <= now) {
        p->counters.silences += p->conn == CONN_UP;
        drop_connection(p, -HF_ETIMEOUT);
    } else if (slow_at(p) <= now) {
        p->counters.slow++;
        drop_connection(p, -HF_ETIMEOUT);
    } else if (p->conn == CONN_UP && p->beat_at <= now) {
        p->beat_at = now + p->conf.heartbeat;
        if (p->ctl.n < CTL_MAX) {
            put_ctl(p, (struct hf_pair_v1_frame){.type = HF_PAIR_V1_BEAT, .clock = (uint64_t)now});
        }
    }
    if (p->state == HF_PAIR_STATE_LOST && p->solo_at <= now) {
        ask(p, ASK_SOLO);
    }
}

hf_time hf_pair_primary_deadline(const struct hf_pair_primary *p)
{
    hf_time t = hf_time_min(silent_at(p), slow_at(p));
    t = hf_time_min(t, p->lease_over ? HF_NEVER : p->lease);
    t = hf_time_min(t, p->conn == CONN_UP ? p->beat_at : HF_NEVER);
    t = hf_time_min(t, p->conn == CONN_NONE ? p->connect_at : HF_NEVER);
    t = hf_time_min(t, p->ask != ASK_NONE ? p->ask_at : HF_NEVER);
    return hf_time_min(t, p->state == HF_PAIR_STATE_LOST ? p->solo_at : HF_NEVER);
}

/* ---- life ---- */

int hf_pair_primary_create(const struct hf_pair_primary_conf *conf, hf_time now,
                           struct hf_pair_primary **ret_primary)
{
    assert(conf->epoch && conf->incarnation);
    struct hf_pair_primary *p = hf_alloc(sizeof(*p));
    if (!p) {
        return -ENOMEM;
    }
    struct hf_pair_primary_conf c = *conf;
    c.heartbeat = c.heartbeat ? c.heartbeat : HF_MS(10);
    c.silence = c.silence ? c.silence : HF_MS(100);
    c.confirm_timeout = c.confirm_timeout ? c.confirm_timeout : HF_S(2);
    c.solo_after = c.solo_after ? c.solo_after : HF_MS(20);
    c.ask_again = c.ask_again ? c.ask_again : HF_MS(500);
    c.connect_again = c.connect_again ? c.connect_again : HF_MS(100);
    c.unconfirmed_max = c.unconfirmed_max ? c.unconfirmed_max : 4u << 20;
    c.batches_max = c.batches_max ? c.batches_max : 4096;
    c.retained_max = c.retained_max ? c.retained_max : (size_t)256 << 20;
    c.snapshot_window = c.snapshot_window ? c.snapshot_window : 256u << 10;
    p->conf = c;
    p->record = hf_alloc_array(c.batches_max, sizeof(*p->record));
    if (!p->record) {
        hf_free(p);
        return -ENOMEM;
    }
    p->queue.keep = 1u << 20;
    hf_map_init(&p->map, c.incarnation);
    hf_list_init(&p->sent_list);
    hf_list_init(&p->unsent_list);
    p->now = p->since = p->unprotected_since = now;
    p->lease = p->connect_at = p->solo_at = HF_NEVER;
    p->gate_open = p->told_open = true;
    if (c.owed) {
        p->owed = p->backup = c.owed;
        p->gate_open = false;
        p->connect_at = p->solo_at = now;
        p->state = HF_PAIR_STATE_LOST;
    }
    *ret_primary = p;
    return 0;
}

void hf_pair_primary_destroy(struct hf_pair_primary *p)
{
    if (!p) {
        return;
    }
    mark_all(p, true);
    HF_LIST_FOREACH (n, &p->unsent_list) {
        hf_list_unlink(n);
        hf_free(HF_CONTAINER_OF(n, struct session, node));
    }
    hf_map_fini(&p->map);
    hf_pair_bytes_fini(&p->queue);
    hf_pair_bytes_fini(&p->ctl);
    hf_pair_reader_fini(&p->in);
    hf_free(p->record);
    hf_free(p);
}

void hf_pair_primary_info(const struct hf_pair_primary *p, hf_time now,
                          struct hf_pair_primary_info *ret_info)
{
    bool alone = p->gate_open && !p->live;
    *ret_info = (struct hf_pair_primary_info){
        .state = p->state,
        .solo = p->owed == 0,
        .gate_open = p->gate_open,
        .leased = leased(p, now),
        .code = p->code,
        .backup = p->backup,
        .sealed = p->sealed,
        .confirmed = p->told,
        .lag_bytes = p->queue.n,
        .lag_batches = alone ? 0 : p->sealed - max_u64(p->acked, p->live ? 0 : p->told),
        .lag_age = p->n_records ? now - record(p, 0)->sealed : 0,
        .echoed = p->echoed,
        .rtt = p->conn == CONN_UP && p->n_rtts ? hf_time_min(p->rtt[0], p->rtt[1]) : HF_NEVER,
        .sessions = p->map.n,
        .unsent = p->n_unsent,
        .since = p->since,
        .unprotected_since = p->unprotected_since,
    };
}

const struct hf_pair_primary_counters *hf_pair_primary_counters(const struct hf_pair_primary *p)
{
    return &p->counters;
}
