/* The backup manager's side of a pair: greet, fill, follow, confirm, be taken over from. */
#include "core/pair/backup.h"

#include <assert.h>
#include <errno.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/names.h"
#include "core/pair/pair_impl.h"

#define OUT_MAX 4096u     /* bytes unsent beyond which a confirm waits and heartbeats are dropped */
#define CLOCK_WINDOW 256u /* heartbeats whose smallest difference counts, and as many before */

struct hf_pair_backup {
    struct hf_pair_backup_conf conf;
    enum hf_pair_backup_state state;
    bool connected, closing;
    int code; /* why the last connection ended */

    struct hf_pair_store *store;  /* owned; complete, of conf.epoch; NULL: none */
    struct hf_pair_store *filled; /* owned; FILLING: what comes of the snapshot */
    uint64_t store_incarnation, store_number;
    uint64_t incarnation, number; /* of the connection's primary; last batch applied */
    struct hf_pair_bytes staged;  /* operations of a batch whose last frame has not come */
    bool staging;

    struct hf_pair_reader in;
    struct hf_pair_bytes out;
    bool confirm_due;
    hf_time heard;

    hf_time diff[2]; /* smallest our clock - primary's: of this window, of the one before */
    uint32_t n_diffs;

    struct hf_pair_backup_counters counters;
};

/* The table of the figure: which states may come after which. */
#define BIT(id) (1u << HF_PAIR_BACKUP_##id)
static const uint8_t next_states[HF_PAIR_BACKUP_STATE_COUNT_] = {
    [HF_PAIR_BACKUP_WAITING] = BIT(GREETED) | BIT(TAKEN),
    [HF_PAIR_BACKUP_GREETED] = BIT(WAITING) | BIT(FILLING) | BIT(FOLLOWING) | BIT(TAKEN),
    [HF_PAIR_BACKUP_FILLING] = BIT(WAITING) | BIT(FOLLOWING) | BIT(TAKEN),
    [HF_PAIR_BACKUP_FOLLOWING] = BIT(WAITING) | BIT(TAKEN),
    [HF_PAIR_BACKUP_TAKEN] = 0,
};

HF_NAMES(hf_pair_backup_state_name, enum hf_pair_backup_state, HF_PAIR_BACKUP_STATE_LIST)

static void enter_state(struct hf_pair_backup *b, enum hf_pair_backup_state s)
{
    assert(next_states[b->state] >> s & 1);
    b->state = s;
}

int hf_pair_backup_create(const struct hf_pair_backup_conf *conf, hf_time now,
                          struct hf_pair_backup **ret_backup)
{
    struct hf_pair_backup *b = hf_alloc(sizeof(*b));
    if (!b) {
        return -ENOMEM;
    }
    b->conf = *conf;
    b->conf.bytes_max = conf->bytes_max ? conf->bytes_max : (size_t)1 << 30;
    b->conf.silence = conf->silence ? conf->silence : HF_MS(100);
    b->heard = now;
    *ret_backup = b;
    return 0;
}

static void drop_filled(struct hf_pair_backup *b)
{
    hf_pair_store_destroy(b->filled);
    b->filled = NULL;
}

static void drop_store(struct hf_pair_backup *b)
{
    hf_pair_store_destroy(b->store);
    b->store = NULL;
    b->store_incarnation = b->store_number = 0;
}

void hf_pair_backup_destroy(struct hf_pair_backup *b)
{
    if (!b) {
        return;
    }
    drop_filled(b);
    drop_store(b);
    hf_pair_bytes_fini(&b->staged);
    hf_pair_reader_fini(&b->in);
    hf_pair_bytes_fini(&b->out);
    hf_free(b);
}

/* The connection is no more, or as good as that: what was complete stays. */
static void lose(struct hf_pair_backup *b, int code)
{
    if (!b->connected) {
        return;
    }
    b->connected = false;
    b->code = code;
    b->counters.losses++;
    b->confirm_due = b->staging = false;
    drop_filled(b);
    hf_pair_bytes_clear(&b->staged);
    hf_pair_reader_clear(&b->in);
    if (b->state != HF_PAIR_BACKUP_TAKEN && b->state != HF_PAIR_BACKUP_WAITING) {
        enter_state(b, HF_PAIR_BACKUP_WAITING);
    }
}

static void put_frame(struct hf_pair_backup *b, struct hf_pair_v1_frame f)
{
    f.epoch = b->conf.epoch;
    if (hf_pair_bytes_frame(&b->out, &f) != 0) { /* what is not said is not confirmed */
        b->closing = true;
        lose(b, -ENOMEM);
    }
}

/* Tell why, then close. */
static void refuse(struct hf_pair_backup *b, int code)
{
    if (b->connected) {
        put_frame(b, (struct hf_pair_v1_frame){.type = HF_PAIR_V1_BYE, .code = code});
    }
    b->closing = b->closing || b->connected;
    lose(b, code);
}

/* No memory or over a limit in the middle of a batch: what was applied to is worth nothing. */
static void spoil(struct hf_pair_backup *b, int code)
{
    b->counters.spoiled++;
    if (!b->filled) {
        drop_store(b);
    }
    refuse(b, code);
}

static void malformed(struct hf_pair_backup *b, int code)
{
    b->counters.malformed++;
    refuse(b, code);
}

static void on_hello(struct hf_pair_backup *b, const struct hf_pair_v1_frame *f)
{
    if (b->state != HF_PAIR_BACKUP_WAITING) {
        malformed(b, -HF_EPROTO);
        return;
    }
    if (f->version_min > HF_PAIR_V1_VERSION) {
        refuse(b, -HF_EVERSION);
        return;
    }
    bool same = b->store && b->store_incarnation == f->incarnation;
    b->incarnation = f->incarnation;
    b->number = same ? b->store_number : 0;
    enter_state(b, HF_PAIR_BACKUP_GREETED);
    put_frame(b, (struct hf_pair_v1_frame){.type = HF_PAIR_V1_WELCOME,
                                           .version = HF_PAIR_V1_VERSION,
                                           .complete = same,
                                           .incarnation = same ? f->incarnation : 0,
                                           .number = b->number});
}

static void on_sync(struct hf_pair_backup *b, const struct hf_pair_v1_frame *f)
{
    if (b->state != HF_PAIR_BACKUP_GREETED) {
        malformed(b, -HF_EPROTO);
        return;
    }
    int rc = hf_pair_store_create(b->conf.bytes_max, b->conf.seed, &b->filled);
    if (rc) {
        refuse(b, rc);
        return;
    }
    b->counters.syncs++;
    b->number = f->number - 1;
    enter_state(b, HF_PAIR_BACKUP_FILLING);
}

/* The snapshot is whole: from now on this is what would be taken over. */
static void complete(struct hf_pair_backup *b)
{
    drop_store(b);
    b->store = b->filled;
    b->filled = NULL;
    b->store_incarnation = b->incarnation;
    b->counters.synced++;
    enter_state(b, HF_PAIR_BACKUP_FOLLOWING);
}

/* Operations of a batch that comes in several frames are kept until its last one: it is applied
 * whole or not at all. */
static int stage(struct hf_pair_backup *b, const struct hf_pair_v1_frame *f)
{
    if (f->ops.n > HF_PAIR_BATCH_MAX - b->staged.n) {
        return -HF_EFULL;
    }
    b->staging = true;
    return hf_pair_bytes_add(&b->staged, f->ops);
}

/* No SYNC came first: the primary goes on with what this store has. */
static void goes_on(struct hf_pair_backup *b)
{
    if (b->state == HF_PAIR_BACKUP_GREETED && b->store && b->incarnation == b->store_incarnation) {
        b->counters.resumes++;
        enter_state(b, HF_PAIR_BACKUP_FOLLOWING);
    }
}

static void on_batch(struct hf_pair_backup *b, const struct hf_pair_v1_frame *f)
{
    goes_on(b);
    struct hf_pair_store *to = b->state == HF_PAIR_BACKUP_FOLLOWING ? b->store : b->filled;
    if (to && f->number <= b->number) {
        return; /* had it: a connection that goes on repeats what it is not sure of */
    }
    if (!to || f->number != b->number + 1 || (f->complete && !b->filled)) {
        malformed(b, -HF_EPROTO);
        return;
    }
    struct hf_slice ops = f->ops;
    int rc = 0;
    if (f->more || b->staging) {
        rc = stage(b, f);
        ops = hf_pair_bytes_slice(&b->staged);
    }
    if (rc) {
        refuse(b, rc); /* nothing of it was applied */
        return;
    }
    if (f->more) {
        return;
    }
    rc = hf_pair_store_apply(to, ops);
    b->staging = false;
    hf_pair_bytes_clear(&b->staged);
    if (rc) {
        spoil(b, rc);
        return;
    }
    b->number = f->number;
    b->counters.batches++;
    b->confirm_due = true;
    if (f->complete) {
        complete(b);
    }
    if (!b->filled) {
        b->store_number = b->number;
    }
}

/* The smallest difference of clocks is the one whose message was under way for the shortest time.
 * Two windows, as clocks drift. */
static void learn_clock(struct hf_pair_backup *b, uint64_t clock, hf_time now)
{
    if (clock > INT64_MAX) {
        return;
    }
    hf_time d = now - (hf_time)clock;
    if (b->n_diffs % CLOCK_WINDOW == 0) {
        b->diff[1] = b->n_diffs ? b->diff[0] : d;
        b->diff[0] = d;
    }
    b->n_diffs++;
    b->diff[0] = hf_time_min(b->diff[0], d);
}

static void on_beat(struct hf_pair_backup *b, const struct hf_pair_v1_frame *f, hf_time now)
{
    if (b->state == HF_PAIR_BACKUP_WAITING) {
        malformed(b, -HF_EPROTO);
        return;
    }
    goes_on(b);
    learn_clock(b, f->clock, now);
    if (b->out.n < OUT_MAX) {
        put_frame(b, (struct hf_pair_v1_frame){
                         .type = HF_PAIR_V1_BEAT, .clock = (uint64_t)now, .echo = f->clock});
    }
}

static void on_frame(struct hf_pair_backup *b, const struct hf_pair_v1_frame *f, hf_time now)
{
    if (f->epoch != b->conf.epoch || b->state == HF_PAIR_BACKUP_TAKEN) {
        b->counters.other_epoch++;
        if (f->type == HF_PAIR_V1_HELLO) {
            refuse(b, -HF_EREPLAY);
        }
        return;
    }
    switch ((enum hf_pair_v1_type)f->type) {
    case HF_PAIR_V1_HELLO:
        on_hello(b, f);
        break;
    case HF_PAIR_V1_SYNC:
        on_sync(b, f);
        break;
    case HF_PAIR_V1_BATCH:
        on_batch(b, f);
        break;
    case HF_PAIR_V1_BEAT:
        on_beat(b, f, now);
        break;
    case HF_PAIR_V1_BYE:
        b->closing = true;
        lose(b, f->code);
        break;
    case HF_PAIR_V1_WELCOME:
    case HF_PAIR_V1_CONFIRM:
        malformed(b, -HF_EPROTO);
        break;
    }
}

static void confirm(struct hf_pair_backup *b)
{
    if (!b->connected || !b->confirm_due || b->out.n >= OUT_MAX ||
        b->state == HF_PAIR_BACKUP_TAKEN) {
        return;
    }
    b->confirm_due = false;
    b->counters.confirms++;
    put_frame(b, (struct hf_pair_v1_frame){
                     .type = HF_PAIR_V1_CONFIRM, .number = b->number, .complete = !b->filled});
}

void hf_pair_backup_connected(struct hf_pair_backup *b, hf_time now)
{
    lose(b, -HF_ECLOSED);
    b->closing = false;
    hf_pair_bytes_clear(&b->out);
    b->connected = true;
    b->heard = now;
}

void hf_pair_backup_disconnected(struct hf_pair_backup *b, hf_time now)
{
    (void)now;
    lose(b, -HF_ECLOSED);
    b->closing = false;
    hf_pair_bytes_clear(&b->out);
}

void hf_pair_backup_received(struct hf_pair_backup *b, struct hf_slice bytes, hf_time now)
{
    if (!b->connected) {
        return;
    }
    b->heard = now;
    b->counters.bytes += bytes.n;
    hf_pair_reader_feed(&b->in, bytes);
    while (b->connected) {
        struct hf_pair_v1_frame f;
        int rc = hf_pair_reader_next(&b->in, &f);
        if (rc < 0) {
            malformed(b, rc);
        }
        if (rc != 1) {
            break;
        }
        on_frame(b, &f, now);
    }
    confirm(b);
}

struct hf_slice hf_pair_backup_tosend(struct hf_pair_backup *b)
{
    confirm(b);
    return hf_pair_bytes_slice(&b->out);
}

void hf_pair_backup_sent(struct hf_pair_backup *b, size_t n)
{
    hf_pair_bytes_cut(&b->out, n);
}

bool hf_pair_backup_closes(struct hf_pair_backup *b)
{
    bool closes = b->closing;
    b->closing = false;
    return closes;
}

void hf_pair_backup_epoch(struct hf_pair_backup *b, uint64_t epoch, hf_time now)
{
    (void)now;
    if (epoch <= b->conf.epoch || b->state == HF_PAIR_BACKUP_TAKEN) {
        return;
    }
    b->closing = b->closing || b->connected;
    lose(b, -HF_EREPLAY);
    drop_store(b);
    b->conf.epoch = epoch;
    b->n_diffs = 0; /* of another host's clock */
}

void hf_pair_backup_step(struct hf_pair_backup *b, hf_time now)
{
    if (b->connected && now - b->heard >= b->conf.silence) {
        b->counters.silences++;
        b->closing = true;
        lose(b, -HF_ETIMEOUT);
    }
}

hf_time hf_pair_backup_deadline(const struct hf_pair_backup *b)
{
    return b->connected ? b->heard + b->conf.silence : HF_NEVER;
}

bool hf_pair_backup_usable(const struct hf_pair_backup *b, uint64_t epoch)
{
    return b->store && b->conf.epoch == epoch;
}

struct hf_pair_store *hf_pair_backup_take(struct hf_pair_backup *b)
{
    struct hf_pair_store *st = b->store;
    b->closing = b->closing || b->connected;
    lose(b, -HF_EREPLAY);
    hf_pair_bytes_clear(&b->out); /* no confirm leaves any more */
    if (b->state != HF_PAIR_BACKUP_TAKEN) {
        enter_state(b, HF_PAIR_BACKUP_TAKEN);
    }
    b->store = NULL;
    return st;
}

void hf_pair_backup_info(const struct hf_pair_backup *b, struct hf_pair_backup_info *ret_info)
{
    const struct hf_pair_store *st = b->store ? b->store : b->filled;
    *ret_info = (struct hf_pair_backup_info){
        .state = b->state,
        .complete = b->store != NULL,
        .epoch = b->conf.epoch,
        .incarnation = b->store_incarnation,
        .number = b->store_number,
        .sessions = st ? hf_pair_store_sessions(st) : 0,
        .bytes = st ? hf_pair_store_bytes(st) : 0,
        .heard = b->connected ? b->heard : HF_NEVER,
        .clocked = b->n_diffs > 0,
        .clock_offset = b->n_diffs ? hf_time_min(b->diff[0], b->diff[1]) : 0,
        .code = b->code,
    };
}

const struct hf_pair_store *hf_pair_backup_store(const struct hf_pair_backup *b)
{
    return b->store;
}

const struct hf_pair_backup_counters *hf_pair_backup_counters(const struct hf_pair_backup *b)
{
    return &b->counters;
}
