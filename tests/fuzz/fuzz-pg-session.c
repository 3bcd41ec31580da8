/* Fuzz: a session core. The input is a schedule: bytes of the client, of the server and of the
 * spare, attaches, losses, moves, cancels, time, deaths of the host, which may damage what was
 * saved. */
#include <assert.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/rd.h"
#include "codec/pg_v3.h"
#include "core/pg/session.h"
#include "support/pg_saved.h"

#define COMMANDS_MAX 400
#define KEPT_MAX (1u << 18)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Bytes of one side that were not consumed yet. */
struct side {
    struct hf_buf in;
    bool attached;
};

static struct world {
    struct hf_pg_session *s;
    struct side side[3];
    bool need[3];
    bool ended;
    hf_time now;
    uint64_t incarnation;
    struct hf_pg_memory memory;
    struct hf_pg_session_args args;
} world;

static void op_send(void *arg, enum hf_pg_side to, struct hf_slice bytes)
{
    struct world *w = arg;
    assert(!w->ended);
    assert(bytes.n == 0 || bytes.p);
    volatile uint8_t sum = 0; /* a sanitizer looks whether they are there */
    for (size_t i = 0; i < bytes.n; i++) {
        sum = (uint8_t)(sum ^ bytes.p[i]);
    }
    (void)to;
}

static void op_need(void *arg, enum hf_pg_side side)
{
    struct world *w = arg;
    assert(!w->need[side] && side != HF_PG_CLIENT);
    w->need[side] = true;
}

static void op_drop(void *arg, enum hf_pg_side side)
{
    struct world *w = arg;
    w->need[side] = w->side[side].attached = false;
    hf_buf_clear(&w->side[side].in);
}

static void op_swap(void *arg)
{
    struct world *w = arg;
    struct side old = w->side[HF_PG_SERVER];
    assert(w->side[HF_PG_SPARE].attached && !old.attached);
    w->side[HF_PG_SERVER] = w->side[HF_PG_SPARE];
    w->side[HF_PG_SPARE] = old;
}

static void op_end(void *arg)
{
    struct world *w = arg;
    assert(!w->ended);
    w->ended = true;
}

static void op_note(void *arg, enum hf_pg_note note, uint64_t a, uint64_t b, const char *text)
{
    (void)arg;
    (void)note;
    (void)a;
    (void)b;
    assert(text);
}

static const struct hf_pg_session_ops ops = {op_send, op_need, op_drop, op_swap, op_end, op_note};

/* Offer what there is, from an exact-size copy; what is not consumed is kept. */
static void offer(struct world *w, int side)
{
    struct hf_buf in = w->side[side].in; /* the core may swap or drop it meanwhile */
    hf_buf_init(&w->side[side].in, KEPT_MAX);
    bool spare = side == HF_PG_SPARE;
    size_t n = side == HF_PG_CLIENT ? hf_pg_session_from_client(w->s, hf_buf_slice(&in), w->now)
                                    : hf_pg_session_from_server(w->s, (enum hf_pg_side)side,
                                                                hf_buf_slice(&in), w->now);
    assert(n <= in.n);
    hf_buf_consume(&in, n);
    if (spare && !w->side[HF_PG_SPARE].attached && w->side[HF_PG_SERVER].attached) {
        side = HF_PG_SERVER; /* swapped */
    }
    if (side == HF_PG_CLIENT || w->side[side].attached) {
        hf_buf_add(&w->side[side].in, hf_buf_slice(&in));
    }
    hf_buf_fini(&in);
}

static void bytes(struct world *w, int side, struct hf_slice b)
{
    if (side != HF_PG_CLIENT && !w->side[side].attached) {
        return;
    }
    if (w->side[side].in.n + b.n > KEPT_MAX) {
        return;
    }
    hf_buf_add(&w->side[side].in, b);
    if (side != HF_PG_CLIENT || hf_pg_session_wants_client(w->s)) {
        offer(w, side);
    }
}

static void attach(struct world *w, int side, uint8_t how)
{
    static const char params[] = "TimeZone\0UTC\0client_encoding\0UTF8";
    if (!w->need[side]) {
        return;
    }
    w->incarnation += how & 1;
    struct hf_pg_backend b = {.incarnation = w->incarnation,
                              .pid = 1000u + how,
                              .params = hf_slice(params, sizeof(params)),
                              .same = !(how & 1),
                              .fenced = how & 1 && how & 2,
                              .fence = how};
    w->need[side] = false;
    w->side[side].attached = true;
    hf_pg_session_attach(w->s, (enum hf_pg_side)side, &b, w->now);
}

static void gone(struct world *w, int side)
{
    if (w->side[side].attached) {
        w->side[side].attached = false;
        hf_buf_clear(&w->side[side].in);
        hf_pg_session_server_gone(w->s, (enum hf_pg_side)side, "lost", w->now);
    }
}

/* What was saved, with one byte of it changed. */
struct damaged {
    struct hf_pg_saved good;
    uint8_t section, with;
    size_t at;
    uint8_t *copy; /* owned */
};

static struct hf_slice damage(struct damaged *d, uint8_t section, struct hf_slice bytes)
{
    if (section != d->section || bytes.n == 0 || d->copy) {
        return bytes;
    }
    d->copy = malloc(bytes.n);
    if (!d->copy) {
        abort();
    }
    memcpy(d->copy, bytes.p, bytes.n);
    d->copy[d->at % bytes.n] ^= d->with;
    return hf_slice(d->copy, bytes.n);
}

static struct hf_slice bad_section(void *arg, uint8_t n)
{
    struct damaged *d = arg;
    return damage(d, n, d->good.section(d->good.arg, n));
}

static bool bad_item(void *arg, uint8_t n, const void **pos, struct hf_slice *ret_name,
                     struct hf_slice *ret_bytes)
{
    struct damaged *d = arg;
    if (!d->good.item(d->good.arg, n, pos, ret_name, ret_bytes)) {
        return false;
    }
    *ret_bytes = damage(d, n, *ret_bytes);
    return true;
}

/* The session goes on at another host. with: 0, or what damages the saved bytes. */
static void host_dies(struct world *w, uint8_t section, uint16_t at, uint8_t with)
{
    struct pg_saved p = {.id = 1};
    if (hf_pair_store_create(64u << 20, 1, &p.store) || pg_saved_save(&p, w->s)) {
        abort();
    }
    hf_pg_session_destroy(w->s);
    assert(w->memory.used == 0);
    for (int i = 0; i < 3; i++) {
        w->need[i] = w->side[i].attached = false;
        if (i != HF_PG_CLIENT) {
            hf_buf_clear(&w->side[i].in);
        }
    }
    struct damaged d = {.good = pg_saved_load(&p), .section = section, .at = at, .with = with};
    struct hf_pg_saved bad = {.section = bad_section, .item = bad_item, .arg = &d};
    w->s = NULL;
    int rc = hf_pg_session_load(&w->args, &ops, w, with ? &bad : &d.good, w->now, &w->s);
    assert(rc == 0 || with);
    w->ended |= rc != 0;
    free(d.copy);
    hf_pair_store_destroy(p.store);
}

static void command(struct world *w, struct hf_rd *r)
{
    uint8_t c = hf_rd_u8(r), arg = hf_rd_u8(r);
    int side = arg & 1 ? HF_PG_SPARE : HF_PG_SERVER;
    w->now += HF_MS(1);
    if (c >= 250) {
        uint16_t at = hf_rd_u16(r);
        host_dies(w, arg, at, hf_rd_u8(r));
        return;
    }
    switch (c % 12) {
    case 0:
    case 1:
        bytes(w, HF_PG_CLIENT, hf_rd_bytes(r, arg < hf_rd_left(r) ? arg : hf_rd_left(r)));
        break;
    case 2:
    case 3:
        bytes(w, HF_PG_SERVER, hf_rd_bytes(r, arg < hf_rd_left(r) ? arg : hf_rd_left(r)));
        break;
    case 4:
        bytes(w, HF_PG_SPARE, hf_rd_bytes(r, arg < hf_rd_left(r) ? arg : hf_rd_left(r)));
        break;
    case 5:
        attach(w, side, arg >> 1);
        break;
    case 6:
        gone(w, side);
        break;
    case 7:
        hf_pg_session_move(w->s, w->now);
        break;
    case 8:
        if (hf_pg_session_cancel(w->s, w->now) && arg & 1) {
            hf_pg_session_cancelled(w->s, w->now);
        }
        break;
    case 9:
        hf_pg_session_cancelled(w->s, w->now);
        break;
    case 10:
        w->now += HF_MS(100) * arg;
        hf_pg_session_step(w->s, w->now);
        break;
    default:
        if (w->need[HF_PG_SPARE]) {
            hf_pg_session_no_spare(w->s, "none", w->now);
            w->need[HF_PG_SPARE] = false;
        } else if (arg == 255) {
            hf_pg_session_kill(w->s, "57P01", "killed", w->now);
        } else {
            (void)hf_pg_session_freeze(w->s, w->now);
            hf_pg_session_thaw(w->s, w->now);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world *w = &world;
    struct hf_rd r;
    struct hf_pg_classifier *classifier;
    struct hf_pg_session_conf conf = {.protect_writes = true,
                                      .log_max = 4096,
                                      .prepared_max = 4096,
                                      .hold_timeout = HF_S(30),
                                      .replay_timeout = HF_S(30),
                                      .move_timeout = HF_S(60)};
    *w = (struct world){.now = HF_S(100), .memory = {.max = 1u << 20}};
    for (int i = 0; i < 3; i++) {
        hf_buf_init(&w->side[i].in, KEPT_MAX);
    }
    hf_rd_init(&r, hf_slice(data, size));
    conf.rehearse_moves = hf_rd_u8(&r) & 3;
    if (hf_pg_classifier_create(16, 1, &classifier)) {
        abort();
    }
    w->args = (struct hf_pg_session_args){.conf = &conf,
                                          .memory = &w->memory,
                                          .classifier = classifier,
                                          .user = hf_slice_str("app"),
                                          .login_again = true,
                                          .cancel_key = hf_slice_str("key!"),
                                          .seed = 1};
    if (hf_pg_session_create(&w->args, &ops, w, w->now, &w->s)) {
        abort();
    }
    for (int i = 0; i < COMMANDS_MAX && hf_rd_left(&r) && !w->ended; i++) {
        command(w, &r);
    }
    if (!w->ended) {
        struct hf_pg_session_info info;
        hf_pg_session_info(w->s, &info);
        hf_pg_session_client_gone(w->s, w->now);
        if (!w->ended) { /* a write of its is being committed first */
            hf_pg_session_kill(w->s, "57P01", "killed", w->now);
        }
        assert(w->ended);
    }
    hf_pg_session_destroy(w->s);
    assert(w->memory.used == 0);
    hf_pg_classifier_destroy(classifier);
    for (int i = 0; i < 3; i++) {
        hf_buf_fini(&w->side[i].in);
    }
    return 0;
}
