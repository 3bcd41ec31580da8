/* Fuzz: the pair protocol's decoder, and both sides of a pair. The input is a schedule: frames from
 * outside to either side, what each says to the other one, operations, the group's words, time. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/pair/backup.h"
#include "core/pair/primary.h"

#define COMMANDS_MAX 300
#define BUF_LEN 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct world {
    struct hf_pair_primary *p;
    struct hf_pair_backup *b;
    hf_time now;
    bool session[8];
    uint64_t confirmed, ask_id;
    uint8_t held[BUF_LEN]; /* of the primary: others overtake it */
    size_t n_held;
} world;

/* Frames and operations that decode are encoded as they came. */
static void round_trip(struct hf_slice in)
{
    static uint8_t buf[HF_PAIR_V1_FRAME_MAX];
    struct hf_pair_v1_frame f;
    struct hf_wr w;
    struct hf_slice out;
    if (in.n > sizeof(buf) || hf_pair_v1_decode(in, &f) != 0) {
        return;
    }
    hf_wr_init(&w, buf, sizeof(buf));
    hf_pair_v1_encode(&w, &f);
    int rc = hf_wr_end(&w, &out);
    assert(rc == 0 && hf_slice_eq(in, out));
    struct hf_rd r;
    struct hf_pair_op op;
    hf_rd_init(&r, f.ops);
    hf_wr_init(&w, buf, sizeof(buf));
    while (hf_rd_left(&r)) {
        hf_pair_op_decode(&r, &op);
        hf_pair_op_encode_head(&w, &op);
        hf_wr_bytes(&w, op.bytes);
    }
    rc = hf_wr_end(&w, &out);
    assert(rc == 0 && hf_rd_end(&r) == 0 && hf_slice_eq(f.ops, out));
}

/* Everything in a store can be looked at, and sums up. */
static void look(const struct hf_pair_store *st)
{
    size_t n = 0, bytes = 0;
    for (const struct hf_pair_session *s = NULL; st && (s = hf_pair_store_next(st, s)); n++) {
        assert(hf_pair_store_find(st, hf_pair_session_id(s)) == s);
        for (uint8_t i = 0; i < HF_PAIR_SECTIONS_MAX; i++) {
            struct hf_pair_item it;
            bytes += hf_pair_session_section(s, i).n;
            for (const void *pos = NULL; hf_pair_session_item(s, i, &pos, &it);) {
                bytes += it.name.n + it.bytes.n;
            }
        }
    }
    assert(!st || (hf_pair_store_sessions(st) == n && hf_pair_store_bytes(st) >= bytes));
}

static void outs(struct world *w)
{
    struct hf_pair_out o;
    for (int i = 0; i < 50 && hf_pair_primary_next(w->p, w->now, &o); i++) {
        if (o.kind == HF_PAIR_OUT_CONFIRMED) {
            assert(o.number > w->confirmed && hf_pair_primary_may(w->p, o.number, w->now));
            w->confirmed = o.number;
        } else if (o.kind == HF_PAIR_OUT_SNAPSHOT) {
            assert(o.session < 8 && w->session[o.session]);
            hf_pair_primary_put(w->p, o.session, 1, hf_slice("snapshot", 8));
        } else if (o.kind == HF_PAIR_OUT_ASK_SOLO || o.kind == HF_PAIR_OUT_ASK_RECORD) {
            w->ask_id = o.id;
        }
    }
}

/* Bytes get there: as they are (how 0), damaged (1), twice (2), or later than those that follow. */
static void to_backup(struct world *w, uint8_t *p, size_t n, uint8_t how)
{
    if (how & 4 && !w->n_held) {
        memcpy(w->held, p, n);
        w->n_held = n;
        return;
    }
    if (how & 1 && n) {
        p[how % n] ^= how;
    }
    for (int i = 0; i < (how & 2 ? 2 : 1); i++) {
        hf_pair_backup_received(w->b, hf_slice(p, n), w->now);
    }
    if (w->n_held) {
        hf_pair_backup_received(w->b, hf_slice(w->held, w->n_held), w->now);
        w->n_held = 0;
    }
}

/* What one side has to say gets to the other one. */
static void talk(struct world *w, uint8_t how)
{
    static uint8_t buf[BUF_LEN];
    struct hf_slice s = hf_pair_primary_tosend(w->p);
    size_t n = s.n < BUF_LEN ? s.n : BUF_LEN;
    memcpy(buf, n ? s.p : buf, n);
    hf_pair_primary_sent(w->p, n);
    to_backup(w, buf, n, how);
    s = hf_pair_backup_tosend(w->b);
    n = s.n < BUF_LEN ? s.n : BUF_LEN;
    memcpy(buf, n ? s.p : buf, n);
    hf_pair_backup_sent(w->b, n);
    if (how & 8 && n) {
        buf[how % n] ^= how;
    }
    for (int i = 0; i < (how & 16 ? 2 : 1); i++) {
        hf_pair_primary_received(w->p, hf_slice(buf, n), w->now);
    }
    if (hf_pair_backup_closes(w->b)) {
        hf_pair_primary_disconnected(w->p, w->now);
    }
}

static void operation(struct world *w, uint8_t what, struct hf_slice bytes)
{
    uint64_t id = 1 + what % 7u;
    uint8_t section = bytes.n ? bytes.p[0] % HF_PAIR_SECTIONS_MAX : 0;
    if (!w->session[id]) {
        w->session[id] = hf_pair_primary_begin(w->p, id) == 0;
        return;
    }
    switch (what / 7 % 6) {
    case 0:
        hf_pair_primary_put(w->p, id, section, bytes);
        break;
    case 1:
        hf_pair_primary_append(w->p, id, section, bytes);
        break;
    case 2:
        hf_pair_primary_clear(w->p, id, section);
        break;
    case 3:
        hf_pair_primary_set(w->p, id, section, bytes.n < 200 ? bytes : hf_slice("n", 1), bytes);
        break;
    case 4:
        hf_pair_primary_unset(w->p, id, section, bytes.n < 200 ? bytes : hf_slice("n", 1));
        break;
    default:
        hf_pair_primary_end(w->p, id);
        w->session[id] = false;
    }
}

static void command(struct world *w, struct hf_rd *r)
{
    uint8_t c = hf_rd_u8(r), arg = hf_rd_u8(r);
    switch (c % 12) {
    case 0:
        hf_pair_backup_received(w->b, hf_rd_str16(r, BUF_LEN), w->now);
        break;
    case 1:
        hf_pair_primary_received(w->p, hf_rd_str16(r, BUF_LEN), w->now);
        break;
    case 2:
        operation(w, arg, hf_rd_str16(r, BUF_LEN));
        break;
    case 3:
        hf_pair_primary_seal(w->p, w->now);
        break;
    case 4:
        outs(w);
        break;
    case 5:
        talk(w, arg);
        break;
    case 6:
        w->now += (hf_time)arg * HF_MS(1);
        hf_pair_primary_step(w->p, w->now);
        hf_pair_backup_step(w->b, w->now);
        break;
    case 7:
        hf_pair_primary_connected(w->p, w->now);
        hf_pair_backup_connected(w->b, w->now);
        break;
    case 8:
        hf_pair_primary_answer(w->p, w->ask_id, arg & 1, w->now);
        break;
    case 9:
        hf_pair_primary_gated(w->p, w->now);
        if (arg > 250) { /* a reign that is not the primary's */
            hf_pair_backup_epoch(w->b, arg, w->now);
        }
        break;
    case 10:
        hf_pair_primary_backup(w->p, arg % 3, w->now);
        break;
    default:
        hf_pair_primary_lease(w->p, arg ? w->now + arg * HF_MS(1) : HF_NEVER, w->now);
    }
    look(hf_pair_backup_store(w->b));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world *w = &world;
    struct hf_rd r;
    struct hf_pair_primary_conf pc = {.epoch = 1, .incarnation = 2, .retained_max = 20000};
    pc.owed = size % 4 == 3; /* the group has kept its set */
    struct hf_pair_backup_conf bc = {.epoch = 1, .bytes_max = 100000};
    round_trip(hf_slice(data, size));
    memset(w, 0, sizeof(*w));
    w->now = HF_S(1);
    if (hf_pair_primary_create(&pc, w->now, &w->p) != 0 ||
        hf_pair_backup_create(&bc, w->now, &w->b) != 0) {
        abort();
    }
    hf_rd_init(&r, hf_slice(data, size));
    for (int i = 0; i < COMMANDS_MAX && hf_rd_left(&r); i++) {
        command(w, &r);
    }
    hf_pair_store_destroy(hf_pair_backup_take(w->b));
    hf_pair_primary_destroy(w->p);
    hf_pair_backup_destroy(w->b);
    return 0;
}
