/* A session in a form that can be sent to a peer, and made from it there (C5, X1). */
#include <assert.h>
#include <errno.h>

#include "base/hash.h"
#include "base/rd.h"
#include "codec/pair_v1.h"
#include "core/pg/session_impl.h"

/*
 * Saved is the session as it lives, not what a loss would make of it: whoever loads it loses the
 * server connection at once, by hf_pg_lost(), the one way there is. So nothing is decided twice.
 *
 * Not saved: connections, the spare, a move under way (it is given up), portals (a loss forgets
 * them), what can be told from what is saved (classes from their texts, counts of bytes).
 */

/* Numbers and their largest values; a read of one that is larger fails. */
#define NUMBERS(X)                                                                                 \
    X(state, HF_PG_ENDED - 1)                                                                      \
    X(seed, UINT64_MAX)                                                                            \
    X(cancel_pid, UINT32_MAX)                                                                      \
    X(sticky, UINT32_MAX)                                                                          \
    X(passing, UINT32_MAX)                                                                         \
    X(told, UINT32_MAX)                                                                            \
    X(tx, 'T')                                                                                     \
    X(block, BLOCK_UNSURE)                                                                         \
    X(copy_wait, 1)                                                                                \
    X(told_pid, UINT32_MAX)                                                                        \
    X(copying, 1)                                                                                  \
    X(skipping, 1)                                                                                 \
    X(client_stream, UINT32_MAX)                                                                   \
    X(client_stream_drop, 1)                                                                       \
    X(unit_no, UINT32_MAX)                                                                         \
    X(log_block, SIZE_MAX)                                                                         \
    X(log_full, 1)                                                                                 \
    X(writes, 1)                                                                                   \
    X(xid_asked, 1)                                                                                \
    X(savepoints, 1)                                                                               \
    X(xid, UINT64_MAX)                                                                             \
    X(hash.a, UINT64_MAX)                                                                          \
    X(hash.b, UINT64_MAX)                                                                          \
    X(hash.carry, UINT64_MAX)                                                                      \
    X(hash.n, UINT64_MAX)                                                                          \
    X(tickets, UINT32_MAX)                                                                         \
    X(tickets_before, UINT32_MAX)                                                                  \
    X(portal_ticket, UINT32_MAX)                                                                   \
    X(ids_off, 1)                                                                                  \
    X(commit, COMMIT_SENT)                                                                         \
    X(commit_kind, COMMIT_EXECUTE)                                                                 \
    X(commit_xid, UINT64_MAX)                                                                      \
    X(commit_more, 1)                                                                              \
    X(commit_chain, 1)                                                                             \
    X(commit_prepare, 1)                                                                           \
    X(commit_deferred, 1)                                                                          \
    X(unreplicated, 1)                                                                             \
    X(server_stream, UINT32_MAX)                                                                   \
    X(server_stream_hide, 1)                                                                       \
    X(incarnation, UINT64_MAX)                                                                     \
    X(pid, UINT32_MAX)                                                                             \
    X(refeed_at, SIZE_MAX)                                                                         \
    X(replay_left, UINT64_MAX)                                                                     \
    X(replay_total, UINT64_MAX)                                                                    \
    X(replay_hash[0], UINT64_MAX)                                                                  \
    X(replay_hash[1], UINT64_MAX)                                                                  \
    X(replay_units, UINT64_MAX)                                                                    \
    X(given_due, 1)                                                                                \
    X(failing, 1)                                                                                  \
    X(doubt, 1)                                                                                    \
    X(committed, 1)                                                                                \
    X(chain_block, 1)                                                                              \
    X(rolled_back, 1)                                                                              \
    X(gap_due, 1)                                                                                  \
    X(aside_due, 1)                                                                                \
    X(error_told, 1)                                                                               \
    X(rolled_told, 1)                                                                              \
    X(commit_waiting, 1)                                                                           \
    X(mid_message, 1)                                                                              \
    X(impatient, 1)                                                                                \
    X(tx_before, 'T')                                                                              \
    X(lost_pid, UINT32_MAX)                                                                        \
    X(verdict.set, 1)                                                                              \
    X(n_waiting, UNITS_MAX)                                                                        \
    X(n_open, 1)                                                                                   \
    X(block_hard, 1)                                                                               \
    X(unreadable, 1)                                                                               \
    X(look, 1)                                                                                     \
    X(block_look, 1)                                                                               \
    X(look_hard, 1)                                                                                \
    X(settling, 1)                                                                                 \
    X(peeking, 1)                                                                                  \
    X(peeked, 1)                                                                                   \
    X(block_change, 1)                                                                             \
    X(seen_known, 1)                                                                               \
    X(seen[0], UINT64_MAX)                                                                         \
    X(seen[1], UINT64_MAX)                                                                         \
    X(looking, 1)                                                                                  \
    X(looking_hard, 1)                                                                             \
    X(since_mark, SIZE_MAX)                                                                        \
    X(sync_commit, 2)                                                                              \
    X(n_settings, UINT32_MAX)                                                                      \
    X(n_listens, UINT32_MAX)                                                                       \
    X(log_unit, UINT32_MAX)                                                                        \
    X(unnamed_lost, 1)                                                                             \
    X(n_requests, UINT64_MAX)                                                                      \
    X(n_transactions, UINT64_MAX)                                                                  \
    X(n_moves, UINT64_MAX)                                                                         \
    X(n_recoveries, UINT64_MAX)                                                                    \
    X(n_replays, UINT64_MAX)

#define TIMES(X) X(since) X(tx_since) X(attached_at) X(lost_attached_at) X(lost_at)

#define UNIT_NUMBERS(X)                                                                            \
    X(kind, UNIT_HIDDEN)                                                                           \
    X(hidden, HID_STEP)                                                                            \
    X(ended, 1)                                                                                    \
    X(failed, 1)                                                                                   \
    X(wrapped, 1)                                                                                  \
    X(split, 1)                                                                                    \
    X(repeatable, 1)                                                                               \
    X(held, 1)                                                                                     \
    X(bare_again, 1)                                                                               \
    X(flushed, 1)                                                                                  \
    X(committed, 1)                                                                                \
    X(tail, UINT8_MAX)                                                                             \
    X(does, UINT32_MAX)                                                                            \
    X(reasons, UINT32_MAX)                                                                         \
    X(n_sent, UINT32_MAX)                                                                          \
    X(n_done, UINT32_MAX)                                                                          \
    X(n_client, UINT32_MAX)                                                                        \
    X(ticket, UINT32_MAX)                                                                          \
    X(tickets, UINT32_MAX)                                                                         \
    X(log_len, SIZE_MAX)

/* Buffers, one to a section from TEXTS on. STRINGS: each text in it ends with a NUL. */
#define BYTES(X) X(refeed) X(held) X(fatal) X(snapshot) X(status) X(new_status)
#define STRINGS(X) X(prepares) X(since_snapshot) X(block_since) X(custom) X(listens)

/* A backup of another version would misread a list that is not its own: with each change of these
 * the version of the pair protocol grows (doc/wire/versions.md), and then what stands here. */
#define NAME(name, ...) #name " "
static_assert(HF_PAIR_V1_VERSION == 1 && sizeof(NUMBERS(NAME) TIMES(NAME) UNIT_NUMBERS(NAME)
                                                    BYTES(NAME) STRINGS(NAME)) == 1219,
              "raise HF_PAIR_V1_VERSION");
#undef NAME

enum {
#define SECTION(name) SECTION_##name,
    SECTION_BEFORE = HF_PG_SECTION_TEXTS - 1,
    BYTES(SECTION) STRINGS(SECTION)
#undef SECTION
        SECTION_END
};
static_assert((int)SECTION_END <= (int)HF_PG_SECTION_MAX, "sections");

/* Seven bits a byte, the lowest first: most numbers are small. */
#define NUMBER_MAX 10
#define COUNT(...) +1
#define STATE_MAX                                                                                  \
    (NUMBER_MAX * (0 NUMBERS(COUNT) TIMES(COUNT) + UNITS_MAX * (2 UNIT_NUMBERS(COUNT)) + 8) + 512)

static void put(struct hf_wr *w, uint64_t v)
{
    for (; v >= 128; v >>= 7)
        hf_wr_u8(w, (uint8_t)(v | 128));
    hf_wr_u8(w, (uint8_t)v);
}

static uint64_t get(struct hf_rd *r, uint64_t max)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 7 * NUMBER_MAX; shift += 7) {
        uint8_t b = hf_rd_u8(r);
        v |= (uint64_t)(b & 127) << shift;
        if (!(b & 128)) {
            if (v > max)
                hf_rd_fail(r, -HF_EVALUE);
            return v <= max ? v : 0;
        }
    }
    hf_rd_fail(r, -HF_EVALUE);
    return 0;
}

static void put_str(struct hf_wr *w, const char *str)
{
    hf_wr_str8(w, hf_slice_str(str));
}

static void get_str(struct hf_rd *r, char *out, size_t room)
{
    struct hf_slice v = hf_rd_str8(r, room - 1);
    memcpy(out, v.n ? v.p : (const uint8_t *)"", v.n);
    out[v.n] = '\0';
}

/* --- saving --- */

struct saver {
    struct hf_pg_session *s;
    const struct hf_pg_save_ops *ops;
    void *arg;
};

void hf_pg_saved_log_cut(struct hf_pg_session *s, size_t n)
{
    size_t had = n < s->saved.log ? n : s->saved.log;
    s->saved.log -= had;
    s->saved.log_cut += had;
}

/* mark: a number that is another one when the bytes are; 0: there are none. */
static void put_section(const struct saver *v, unsigned section, uint64_t mark,
                        struct hf_slice bytes)
{
    uint64_t *had = &v->s->saved.hash[section];
    if (*had == mark)
        return;
    *had = mark;
    v->ops->put(v->arg, (uint8_t)section, bytes);
}

static void put_bytes(const struct saver *v, unsigned section, struct hf_slice bytes)
{
    put_section(v, section, bytes.n ? hf_hash(bytes, 0) | 1 : 0, bytes);
}

static void put_unit(struct hf_wr *w, const struct unit *u)
{
#define PUT(name, max) put(w, (uint64_t)u->name);
    UNIT_NUMBERS(PUT)
#undef PUT
    put(w, (uint64_t)u->since);
}

static void save_state(const struct saver *v)
{
    struct hf_pg_session *s = v->s;
    uint8_t room[STATE_MAX];
    struct hf_wr w;
    struct hf_slice bytes = {0};
    hf_wr_init(&w, room, sizeof(room));
#define PUT(name, max) put(&w, (uint64_t)s->name);
    NUMBERS(PUT)
#undef PUT
#define PUT(name) put(&w, (uint64_t)s->name);
    TIMES(PUT)
#undef PUT
    hf_wr_u8(&w, (uint8_t)s->held_status);
    put_str(&w, s->fatal_state);
    put_str(&w, s->verdict.sqlstate);
    put_str(&w, s->verdict.message);
    put_str(&w, s->verdict.detail);
    put(&w, s->n_units);
    for (uint32_t i = 0; i < s->n_units; i++)
        put_unit(&w, hf_pg_unit_at(s, i));
    int rc = hf_wr_end(&w, &bytes);
    assert(rc == 0);
    (void)rc;
    put_bytes(v, HF_PG_SECTION_STATE, bytes);
}

static void save_log(const struct saver *v)
{
    struct hf_pg_session *s = v->s;
    if (s->saved.log_cut)
        v->ops->cut(v->arg, HF_PG_SECTION_LOG, s->saved.log_cut);
    s->saved.log_cut = 0;
    if (s->log.n > s->saved.log)
        v->ops->append(v->arg, HF_PG_SECTION_LOG,
                       hf_slice(s->log.p + s->saved.log, s->log.n - s->saved.log));
    s->saved.log = s->log.n;
}

static void save_ops(const struct saver *v)
{
    struct hf_pg_session *s = v->s;
    size_t n = s->n_ops - s->op_head;
    if (n == 0) {
        put_bytes(v, HF_PG_SECTION_OPS, hf_slice(NULL, 0));
        return;
    }
    struct hf_buf b;
    hf_buf_init(&b, SIZE_MAX);
    uint8_t *room = hf_buf_reserve(&b, n * 7 * NUMBER_MAX);
    if (room) {
        struct hf_wr w;
        hf_wr_init(&w, room, n * 7 * NUMBER_MAX);
        for (size_t i = s->op_head; i < s->n_ops; i++) {
            const struct op *op = &s->op[i];
            put(&w, op->kind);
            put(&w, op->unit - s->unit_no);
            put(&w, op->ordinal);
            put(&w, op->ticket);
            put(&w, op->p ? op->p->id : 0);
            put(&w, op->before ? op->before->id : 0);
            put(&w, op->before_lost);
        }
        hf_buf_commit(&b, hf_wr_len(&w));
        put_bytes(v, HF_PG_SECTION_OPS, hf_buf_slice(&b));
    }
    hf_buf_fini(&b);
}

/* --- protocol-level statements --- */

enum place { PLACE_LISTED = 1, PLACE_CLOSED, PLACE_UNNAMED, PLACE_OP };

static void save_prepared(const struct saver *v, struct prepared *p, enum place place)
{
    uint8_t head[6 * NUMBER_MAX];
    struct hf_wr w;
    struct hf_slice bytes = {0};
    hf_wr_init(&w, head, sizeof(head));
    put(&w, place);
    put(&w, p->described);
    put(&w, p->shape[0]);
    put(&w, p->shape[1]);
    put(&w, p->unit);
    if (hf_wr_end(&w, &bytes))
        return;
    uint64_t now = hf_hash(bytes, 0) | 1;
    if (p->told == now)
        return;
    if (p->id == 0)
        p->id = ++v->s->saved.last_id;
    struct hf_buf item;
    hf_buf_init(&item, SIZE_MAX);
    hf_buf_add(&item, bytes);
    hf_buf_add(&item, hf_slice(p->body, p->body_len));
    if (!item.err) {
        p->told = now;
        v->ops->set(v->arg, HF_PG_SECTION_PREPARED, hf_slice(&p->id, sizeof(p->id)),
                    hf_buf_slice(&item));
    }
    hf_buf_fini(&item);
}

static void save_all_prepared(const struct saver *v)
{
    struct hf_pg_session *s = v->s;
    struct hf_slice gone = hf_buf_slice(&s->saved.gone);
    for (size_t i = 0; i < gone.n; i += sizeof(uint32_t))
        v->ops->unset(v->arg, HF_PG_SECTION_PREPARED, hf_slice(gone.p + i, sizeof(uint32_t)));
    hf_buf_fini(&s->saved.gone);
    if (!s->saved.prepared_changed)
        return;
    s->saved.prepared_changed = false;
    HF_LIST_FOREACH (l, &s->prepared_list) {
        save_prepared(v, HF_CONTAINER_OF(l, struct prepared, link), PLACE_LISTED);
    }
    HF_LIST_FOREACH (l, &s->closed_list) {
        save_prepared(v, HF_CONTAINER_OF(l, struct prepared, link), PLACE_CLOSED);
    }
    if (s->unnamed)
        save_prepared(v, s->unnamed, PLACE_UNNAMED);
    for (size_t i = s->op_head; i < s->n_ops; i++) {
        if (s->op[i].kind == OP_CLOSE && s->op[i].p)
            save_prepared(v, s->op[i].p, PLACE_OP);
        if (s->op[i].before)
            save_prepared(v, s->op[i].before, PLACE_OP);
    }
}

/* --- all --- */

static void save_ids(const struct saver *v, unsigned section, const struct ids *ids)
{
    struct hf_buf b;
    hf_buf_init(&b, SIZE_MAX);
    if (ids->sources.n)
        hf_pg_ids_save(v->s, ids, &b);
    put_bytes(v, section, hf_buf_slice(&b));
    hf_buf_fini(&b);
}

/* Beside the numbers, so that a peer that knows of no ports reads those as it did. */
static void save_ports(const struct saver *v)
{
    uint8_t room[4];
    struct hf_wr w;
    hf_wr_init(&w, room, sizeof(room));
    hf_wr_u16(&w, v->s->port);
    hf_wr_u16(&w, v->s->lost_port);
    put_section(v, HF_PG_SECTION_PORTS, (uint64_t)v->s->port << 16 | v->s->lost_port,
                hf_slice(room, sizeof(room)));
}

void hf_pg_session_save(struct hf_pg_session *s, const struct hf_pg_save_ops *ops, void *arg)
{
    const struct saver v = {.s = s, .ops = ops, .arg = arg};
    save_all_prepared(&v); /* which gives the numbers */
    save_ops(&v);
    save_log(&v);
    save_ids(&v, HF_PG_SECTION_IDS, &s->ids);
    save_ids(&v, HF_PG_SECTION_GIVEN, &s->given);
    put_section(&v, SECTION_refeed, s->refeed.n ? s->saved.refeeds + 1 : 0,
                hf_buf_slice(&s->refeed));
#define SAVE(name)                                                                                 \
    if (SECTION_##name != SECTION_refeed)                                                          \
        put_bytes(&v, SECTION_##name, hf_buf_slice(&s->name));
    BYTES(SAVE)
    STRINGS(SAVE)
#undef SAVE
    save_ports(&v);
    save_state(&v);
}

void hf_pg_session_save_all(struct hf_pg_session *s)
{
    struct hf_list *lists[] = {&s->prepared_list, &s->closed_list};
    for (size_t i = 0; i < HF_ARRAY_LEN(lists); i++) {
        HF_LIST_FOREACH (l, lists[i]) {
            HF_CONTAINER_OF(l, struct prepared, link)->told = 0;
        }
    }
    if (s->unnamed)
        s->unnamed->told = 0;
    for (size_t i = s->op_head; i < s->n_ops; i++) {
        if (s->op[i].p)
            s->op[i].p->told = 0;
        if (s->op[i].before)
            s->op[i].before->told = 0;
    }
    hf_buf_fini(&s->saved.gone);
    memset(s->saved.hash, 0, sizeof(s->saved.hash));
    s->saved.log = s->saved.log_cut = 0;
    s->saved.prepared_changed = true;
}

/* --- what need not wait for it --- */

/* What these do in a transaction takes effect with its end, or for the session alone. */
#define DOES_INSIDE                                                                                \
    ((DOES_AGAIN & ~(uint32_t)(HF_PG_DOES_BEGIN | HF_PG_DOES_ROLLBACK)) | HF_PG_DOES_WRITE |       \
     HF_PG_DOES_SAVEPOINT | HF_PG_DOES_COPY_OUT | HF_PG_DOES_EXECUTE | HF_PG_DOES_CURSOR |         \
     HF_PG_DOES_NEXTVAL)

/* in_block: all that is under way runs in a transaction that was open before. */
static bool unit_ahead(const struct hf_pg_session *s, const struct unit *u, bool in_block)
{
    if (u->kind == UNIT_HIDDEN)
        return u->hidden == HID_XID || u->hidden == HID_SYNC_COMMIT || u->hidden == HID_PEEK ||
               u->hidden == HID_OBSERVE;
    if (u->kind == UNIT_CALL || u->reasons || u->bare_again)
        return false;
    if (u->repeatable)
        return true;
    bool inside = u->wrapped ? !u->split && s->commit == COMMIT_ASKED
                             : in_block || (u->kind == UNIT_EXTENDED && !u->ended);
    return inside && !(u->does & ~(uint32_t)DOES_INSIDE);
}

bool hf_pg_session_ahead(const struct hf_pg_session *s, bool *ret_asked)
{
    uint32_t does = 0;
    bool ahead = true;
    *ret_asked = false;
    if (s->state != HF_PG_RUNNING || s->n_units == 0 || s->commit > COMMIT_ASKED || s->passing ||
        s->cancelling || s->copying || s->copy_wait || s->client_stream || s->replication ||
        s->orphan)
        return false;
    for (uint32_t i = 0; i < s->n_units; i++)
        does |= s->unit[(s->unit_head + i) % UNITS_MAX].does;
    /* if what begins a block fails, or one was ended, what follows runs by itself */
    bool in_block = s->tx == 'T' && s->block == BLOCK_YES &&
                    !(does & (HF_PG_DOES_BEGIN | HF_PG_DOES_COMMIT | HF_PG_DOES_ROLLBACK |
                              HF_PG_DOES_PREPARE_XACT));
    for (uint32_t i = 0; i < s->n_units && ahead; i++)
        ahead = unit_ahead(s, &s->unit[(s->unit_head + i) % UNITS_MAX], in_block);
    *ret_asked = s->n_waiting && !s->n_open;
    return ahead;
}

/* --- loading --- */

static struct hf_slice section(const struct hf_pg_saved *saved, unsigned n)
{
    return saved->section(saved->arg, (uint8_t)n);
}

static hf_time shifted(const struct hf_pg_saved *saved, uint64_t t)
{
    return t == 0 || t >= (uint64_t)HF_NEVER ? (hf_time)t : (hf_time)t + saved->clock_offset;
}

static void get_unit(struct hf_pg_session *s, const struct hf_pg_saved *saved, struct hf_rd *r)
{
    struct unit *u = hf_pg_unit_push(s, UNIT_QUERY);
#define GET(name, max) u->name = (__typeof__(u->name))get(r, max);
    UNIT_NUMBERS(GET)
#undef GET
    u->since = shifted(saved, get(r, (uint64_t)HF_NEVER));
    if (u->kind == 0)
        hf_rd_fail(r, -HF_EVALUE);
}

static int load_state(struct hf_pg_session *s, const struct hf_pg_saved *saved)
{
    struct hf_rd r;
    hf_rd_init(&r, section(saved, HF_PG_SECTION_STATE));
#define GET(name, max) s->name = (__typeof__(s->name))get(&r, max);
    NUMBERS(GET)
#undef GET
#define GET(name) s->name = shifted(saved, get(&r, (uint64_t)HF_NEVER));
    TIMES(GET)
#undef GET
    s->held_status = (char)hf_rd_u8(&r);
    get_str(&r, s->fatal_state, sizeof(s->fatal_state));
    get_str(&r, s->verdict.sqlstate, sizeof(s->verdict.sqlstate));
    get_str(&r, s->verdict.message, sizeof(s->verdict.message));
    get_str(&r, s->verdict.detail, sizeof(s->verdict.detail));
    uint64_t n = get(&r, UNITS_MAX);
    while (n-- && !r.err)
        get_unit(s, saved, &r);
    return hf_rd_end(&r);
}

static int load_ports(struct hf_pg_session *s, const struct hf_pg_saved *saved)
{
    struct hf_rd r;
    struct hf_slice ports = section(saved, HF_PG_SECTION_PORTS);
    if (!ports.n)
        return 0;
    hf_rd_init(&r, ports);
    s->port = hf_rd_u16(&r);
    s->lost_port = hf_rd_u16(&r);
    return hf_rd_end(&r);
}

static int load_bytes(struct hf_buf *b, struct hf_slice bytes)
{
    hf_buf_add(b, bytes);
    return b->err;
}

static int load_strings(struct hf_buf *b, struct hf_slice bytes)
{
    return bytes.n && bytes.p[bytes.n - 1] ? -HF_EVALUE : load_bytes(b, bytes);
}

static int load_texts(struct hf_pg_session *s, const struct hf_pg_saved *saved)
{
    hf_buf_init(&s->refeed, SIZE_MAX);
    int rc = load_bytes(&s->log, section(saved, HF_PG_SECTION_LOG));
#define LOAD(name) rc = rc ? rc : load_bytes(&s->name, section(saved, SECTION_##name));
    BYTES(LOAD)
#undef LOAD
#define LOAD(name) rc = rc ? rc : load_strings(&s->name, section(saved, SECTION_##name));
    STRINGS(LOAD)
#undef LOAD
    return rc;
}

/* What EXECUTE does: from the texts that PREPAREd it. Before statements of the protocol are there,
 * which a DEALLOCATE in these texts has closed already. */
static void load_sql_prepared(struct hf_pg_session *s)
{
    const struct hf_buf *texts[] = {&s->prepares, &s->since_snapshot, &s->block_since};
    for (size_t i = 0; i < HF_ARRAY_LEN(texts); i++) {
        for (size_t at = 0; at < texts[i]->n;) {
            struct hf_slice sql = hf_slice_str((const char *)texts[i]->p + at);
            at += sql.n + 1;
            hf_pg_settle_sql_prepared(s, hf_slice(sql.p, sql.n + 1));
        }
    }
}

/* A statement that was loaded. */
struct item {
    struct prepared *p;
    uint32_t id;
    enum place place;
    bool owned; /* PLACE_OP: by an operation */
};

static struct item *by_id(const struct hf_buf *items, uint64_t id)
{
    struct item *all = (struct item *)(void *)items->p;
    for (size_t i = 0; id && i < items->n / sizeof(struct item); i++) {
        if (all[i].id == id)
            return &all[i];
    }
    return NULL;
}

/* Put it where it was; only an operation's is not owned then. */
static int place_prepared(struct hf_pg_session *s, struct prepared *p, enum place place)
{
    switch (place) {
    case PLACE_LISTED:
        if (hf_map_get(&s->prepared, p->name))
            return -HF_EVALUE;
        hf_list_insert(&s->prepared_list, &p->link);
        s->prepared_bytes += p->body_len;
        return hf_map_put(&s->prepared, p->name, p);
    case PLACE_CLOSED:
        hf_list_insert(&s->closed_list, &p->link);
        return 0;
    case PLACE_UNNAMED:
        if (s->unnamed)
            return -HF_EVALUE;
        s->unnamed = p;
        return 0;
    case PLACE_OP:
        return 0;
    }
    return -HF_EVALUE;
}

static int load_prepared(struct hf_pg_session *s, struct hf_slice name, struct hf_slice bytes,
                         struct hf_buf *items)
{
    struct hf_rd r;
    struct hf_pg_parse parse;
    struct item item = {0};
    hf_rd_init(&r, bytes);
    item.place = (enum place)get(&r, PLACE_OP);
    bool described = get(&r, 1);
    uint64_t shape[2];
    shape[0] = get(&r, UINT64_MAX);
    shape[1] = get(&r, UINT64_MAX);
    uint32_t unit = (uint32_t)get(&r, UINT32_MAX);
    struct hf_slice body = hf_rd_bytes(&r, hf_rd_left(&r));
    int rc = r.err ? r.err : hf_pg_parse_read(body, &parse);
    if (rc || name.n != sizeof(item.id))
        return rc ? rc : -HF_EVALUE;
    memcpy(&item.id, name.p, sizeof(item.id));
    const struct hf_pg_class *k = hf_pg_text_class(s, parse.sql);
    item.p = hf_pg_prepared_create(s, body, parse.name, k);
    hf_pg_class_unref(k);
    if (!item.p)
        return -ENOMEM;
    item.p->described = described;
    item.p->shape[0] = shape[0];
    item.p->shape[1] = shape[1];
    item.p->unit = unit;
    rc = place_prepared(s, item.p, item.place);
    if (rc) {
        if (item.place == PLACE_LISTED && !hf_list_empty(&item.p->link))
            s->prepared_bytes -= item.p->body_len;
        hf_pg_prepared_destroy(item.p);
        return rc;
    }
    hf_buf_add(items, hf_slice(&item, sizeof(item)));
    if (items->err && item.place == PLACE_OP)
        hf_pg_prepared_destroy(item.p);
    return items->err;
}

/* Take the statement with this number as an operation's own. */
static int own(const struct hf_buf *items, uint64_t id, struct prepared **ret_p)
{
    struct item *item = by_id(items, id);
    *ret_p = NULL;
    if (id == 0)
        return 0;
    if (!item || item->place != PLACE_OP || item->owned)
        return -HF_EVALUE;
    item->owned = true;
    *ret_p = item->p;
    return 0;
}

static int load_op(struct hf_pg_session *s, struct hf_rd *r, const struct hf_buf *items)
{
    struct op op = {.kind = (enum op_kind)get(r, OP_INSERT)};
    uint64_t unit = get(r, UNITS_MAX - 1);
    op.unit = s->unit_no + (uint32_t)unit;
    op.ordinal = (uint32_t)get(r, UINT32_MAX);
    op.ticket = (uint32_t)get(r, UINT32_MAX);
    uint64_t p = get(r, UINT32_MAX), before = get(r, UINT32_MAX);
    op.before_lost = get(r, 1);
    if (r->err)
        return r->err;
    bool order = s->n_ops && unit < s->op[s->n_ops - 1].unit - s->unit_no;
    if (op.kind == 0 || unit >= s->n_units || order)
        return -HF_EVALUE;
    int rc = hf_pg_op_push(s, op.kind, NULL);
    if (rc)
        return rc;
    struct op *at = &s->op[s->n_ops - 1];
    *at = op;
    if (op.kind == OP_CLOSE)
        rc = own(items, p, &at->p);
    else if (by_id(items, p))
        at->p = by_id(items, p)->p;
    return rc ? rc : own(items, before, &at->before);
}

/* Statements, and the operations that hold some of them. */
static int load_statements(struct hf_pg_session *s, const struct hf_pg_saved *saved)
{
    struct hf_buf items;
    struct hf_slice name, bytes;
    const void *pos = NULL;
    struct hf_rd r;
    int rc = 0;
    hf_buf_init(&items, SIZE_MAX);
    while (!rc && saved->item(saved->arg, HF_PG_SECTION_PREPARED, &pos, &name, &bytes))
        rc = load_prepared(s, name, bytes, &items);
    hf_rd_init(&r, section(saved, HF_PG_SECTION_OPS));
    while (!rc && hf_rd_left(&r) && s->n_ops < OPS_MAX)
        rc = load_op(s, &r, &items);
    rc = rc ? rc : hf_rd_end(&r);
    for (size_t at = 0; at < items.n; at += sizeof(struct item)) {
        struct item *item = (struct item *)(void *)(items.p + at);
        if (item->place != PLACE_OP || item->owned)
            continue;
        rc = rc ? rc : -HF_EVALUE;
        hf_pg_prepared_destroy(item->p);
    }
    hf_buf_fini(&items);
    return rc;
}

/* What the core takes for granted. */
static bool makes_sense(const struct hf_pg_session *s)
{
    bool status = strchr("ITE", s->tx) && s->tx && strchr("ITE", s->tx_before) && s->tx_before;
    bool fed = s->state == HF_PG_RUNNING || s->state == HF_PG_REPLAYING;
    return status && s->refeed_at <= s->refeed.n && s->since_mark <= s->since_snapshot.n &&
           (!s->settling || (s->n_units && fed)) && (s->state != HF_PG_LOST || !s->n_units) &&
           (s->state != HF_PG_STARTING || !s->n_units);
}

/* The connection that it had is lost. */
static void lose(struct hf_pg_session *s)
{
    if (s->state == HF_PG_STARTING || s->state == HF_PG_LOST) {
        s->deadline = s->state == HF_PG_LOST ? s->now + s->conf->hold_timeout : HF_NEVER;
        s->needed[HF_PG_SERVER] = true;
        s->ops.need(s->arg, HF_PG_SERVER);
        return;
    }
    hf_pg_lost(s, "the host of the session was lost");
    if (s->state != HF_PG_ENDED)
        hf_pg_pump(s);
}

int hf_pg_session_load(const struct hf_pg_session_args *args, const struct hf_pg_session_ops *ops,
                       void *arg, const struct hf_pg_saved *saved, hf_time now,
                       struct hf_pg_session **ret_session)
{
    struct hf_pg_session *s;
    int rc = hf_pg_session_alloc(args, ops, arg, now, &s);
    if (rc)
        return rc;
    rc = load_texts(s, saved);
    if (!rc) {
        s->unit_no = 0;
        load_sql_prepared(s);
        rc = load_state(s, saved);
    }
    rc = rc ? rc : load_ports(s, saved);
    rc = rc ? rc : load_statements(s, saved);
    rc = rc ? rc : hf_pg_ids_load(s, &s->ids, section(saved, HF_PG_SECTION_IDS));
    rc = rc ? rc : hf_pg_ids_load(s, &s->given, section(saved, HF_PG_SECTION_GIVEN));
    if (!rc && !makes_sense(s))
        rc = -HF_EVALUE;
    if (rc) {
        hf_pg_session_destroy(s);
        return rc;
    }
    if (!args->login_again)
        s->sticky |= HF_PG_REASON_LOGIN;
    s->leave_idle = args->leave_idle;
    *ret_session = s;
    lose(s);
    return 0;
}

bool hf_pg_session_former(const struct hf_pg_session *s, struct hf_pg_backend *ret_backend)
{
    *ret_backend = (struct hf_pg_backend){
        .pid = s->lost_pid, .port = s->lost_port, .since = s->lost_attached_at};
    return s->state == HF_PG_LOST && s->lost_pid != 0;
}
