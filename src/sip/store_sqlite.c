/* The SIP store in SQLite: one server, or several on one machine. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <sqlite3.h>

#include "base/mem.h"
#include "os/loop.h"
#include "sip/store_impl.h"

#define POLL HF_MS(50) /* for what others wrote */

/* What is stored of an AoR's row, in this order everywhere. */
#define ROW "aor, home, current, epoch, pinned, agent, agent_id"
#define INSERT_ROW                                                                                 \
    "INSERT INTO assignment (" ROW ", bucket, change) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0"
#define EPOCH_OF_GONE "coalesce((SELECT epoch FROM gone WHERE aor = ?1), 0)"

#define STATEMENTS(X)                                                                              \
    X(BEGIN, "BEGIN")                                                                              \
    X(WRITE, "BEGIN IMMEDIATE")                                                                    \
    X(COMMIT, "COMMIT")                                                                            \
    X(ROLLBACK, "ROLLBACK")                                                                        \
    X(ROW, "SELECT " ROW " FROM assignment WHERE aor = ?1")                                        \
    X(KNOWN, "SELECT 1 FROM users WHERE aor = ?1 LIMIT 1")                                         \
    X(ASSIGN,                                                                                      \
      "INSERT INTO assignment (" ROW ", bucket, change) VALUES (?1, ?2, ?3, " EPOCH_OF_GONE        \
      " + 1, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING")                                          \
    X(ASSERT,                                                                                      \
      INSERT_ROW " WHERE ?4 > " EPOCH_OF_GONE " ON CONFLICT DO UPDATE SET"                         \
                 " home = excluded.home, current = excluded.current, epoch = excluded.epoch,"      \
                 " pinned = excluded.pinned, agent = excluded.agent, agent_id = excluded.agent_id" \
                 " WHERE excluded.epoch > assignment.epoch")                                       \
    X(LEARN, "UPDATE assignment SET agent = ?2, agent_id = ?3 WHERE aor = ?1 AND current = ?4")    \
    X(SECRET, "SELECT aor, sha512_256, sha256, md5 FROM users WHERE username = ?1 AND realm = ?2") \
    X(BIND, "INSERT INTO binding VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, unixepoch() + ?9, ?10)"   \
            " ON CONFLICT DO UPDATE SET uri = excluded.uri, params = excluded.params,"             \
            " call_id = excluded.call_id, path = excluded.path, cseq = excluded.cseq,"             \
            " life = excluded.life, expires = excluded.expires, outbound = excluded.outbound")     \
    X(UNBIND, "DELETE FROM binding WHERE aor = ?1 AND id = ?2")                                    \
    X(BINDINGS, "SELECT uri, params, call_id, path, cseq, life, expires - unixepoch(), outbound"   \
                " FROM binding WHERE aor = ?1 AND expires > unixepoch()")                          \
    X(KEEP, "INSERT INTO kept VALUES (?1, ?2, ?3, ?4, ?5, unixepoch() + ?6)"                       \
            " ON CONFLICT DO UPDATE SET data = excluded.data, expires = excluded.expires")         \
    X(DROP, "DELETE FROM kept WHERE aor = ?1 AND what = ?2 AND id = ?3")                           \
    X(KEPT, "SELECT what, key, data, expires - unixepoch() FROM kept"                              \
            " WHERE aor = ?1 AND expires > unixepoch()")                                           \
    X(CHANGE, "SELECT change, version FROM leader")                                                \
    X(NEXT_CHANGE, "UPDATE leader SET change = change + 1")                                        \
    X(OURS, "SELECT " ROW " FROM assignment WHERE current = ?1")                                   \
    X(FEED, "SELECT " ROW " FROM assignment WHERE change > ?1 AND change > 0")                     \
    X(GONE, "SELECT aor FROM gone WHERE change > ?1")                                              \
    X(VERSION, "PRAGMA data_version")
enum statement {
#define STATEMENT_ENUM(id, sql) S_##id,
    STATEMENTS(STATEMENT_ENUM)
#undef STATEMENT_ENUM
        S_COUNT
};
static const char *const statements[] = {
#define STATEMENT_TEXT(id, sql) sql,
    STATEMENTS(STATEMENT_TEXT)
#undef STATEMENT_TEXT
};

struct hf_sip_backend {
    struct hf_sip_store *store;
    sqlite3 *db;
    sqlite3_stmt *st[S_COUNT];
    struct stat file;
    int64_t version; /* of the data, as others wrote it */
    hf_time poll_at;
    bool failed;                           /* since the transaction began */
    struct hf_sip_stored_binding *binding; /* room for one op's */
    size_t binding_room;
    struct hf_sip_kept *kept;
    size_t kept_room;
    struct hf_buf text; /* of those */
};

static void disconnect(struct hf_sip_backend *b)
{
    for (unsigned i = 0; i < S_COUNT; i++) {
        sqlite3_finalize(b->st[i]);
        b->st[i] = NULL;
    }
    sqlite3_close(b->db);
    b->db = NULL;
}

static int create(struct hf_sip_store *s, struct hf_sip_backend **ret_backend)
{
    struct hf_sip_backend *b = hf_alloc(sizeof(*b));
    if (!b) {
        return -ENOMEM;
    }
    b->store = s;
    hf_buf_init(&b->text, 64u << 20);
    *ret_backend = b;
    return 0;
}

static void destroy(struct hf_sip_backend *b)
{
    disconnect(b);
    hf_free(b->binding);
    hf_free(b->kept);
    hf_buf_fini(&b->text);
    hf_free(b);
}

static void down(struct hf_sip_backend *b)
{
    char text[300];
    snprintf(text, sizeof(text), "SQLite: %s", b->db ? sqlite3_errmsg(b->db) : "not opened");
    disconnect(b);
    hf_sip_store_down(b->store, text);
}

/* ---- statements: bind by place, step, read by place ---- */

static void put_text(struct hf_sip_backend *b, enum statement id, int at, struct hf_slice s)
{
    sqlite3_bind_text(b->st[id], at, s.n ? (const char *)s.p : "", (int)s.n, SQLITE_STATIC);
}

static void put_bytes(struct hf_sip_backend *b, enum statement id, int at, struct hf_slice s)
{
    sqlite3_bind_blob(b->st[id], at, s.n ? s.p : (const uint8_t *)"", (int)s.n, SQLITE_STATIC);
}

static void put_int(struct hf_sip_backend *b, enum statement id, int at, int64_t v)
{
    sqlite3_bind_int64(b->st[id], at, v);
}

/* true: a row is there, to be read before reset(). */
static bool step(struct hf_sip_backend *b, enum statement id)
{
    int rc = sqlite3_step(b->st[id]);
    b->failed |= rc != SQLITE_ROW && rc != SQLITE_DONE;
    return rc == SQLITE_ROW;
}

static void reset(struct hf_sip_backend *b, enum statement id)
{
    sqlite3_reset(b->st[id]);
    sqlite3_clear_bindings(b->st[id]);
}

static void once(struct hf_sip_backend *b, enum statement id)
{
    (void)step(b, id);
    reset(b, id);
}

static struct hf_slice get_bytes(struct hf_sip_backend *b, enum statement id, int at)
{
    const void *p = sqlite3_column_blob(b->st[id], at);
    return hf_slice(p, (size_t)sqlite3_column_bytes(b->st[id], at));
}

static int64_t get_int(struct hf_sip_backend *b, enum statement id, int at)
{
    return sqlite3_column_int64(b->st[id], at);
}

static struct hf_sip_stored_row get_row(struct hf_sip_backend *b, enum statement id)
{
    return (struct hf_sip_stored_row){
        .aor = get_bytes(b, id, 0),
        .home = get_bytes(b, id, 1),
        .current = get_bytes(b, id, 2),
        .epoch = (uint64_t)get_int(b, id, 3),
        .pinned = get_int(b, id, 4) != 0,
        .agent = (uint8_t)get_int(b, id, 5),
        .agent_id = (int16_t)get_int(b, id, 6),
    };
}

/* ---- ops ---- */

/* The row of an AoR, into r; r->row.aor is the op's. */
static void read_row(struct hf_sip_backend *b, const struct hf_sip_op *op, struct hf_sip_result *r)
{
    put_text(b, S_ROW, 1, op->aor);
    r->have_row = step(b, S_ROW);
    if (r->have_row) {
        struct hf_sip_stored_row row = get_row(b, S_ROW);
        r->row = hf_sip_store_row(b->store, &row);
        r->row.aor = op->aor;
    }
    reset(b, S_ROW);
    r->done = r->have_row ? HF_SIP_OP_DONE : HF_SIP_OP_NONE;
}

static int64_t read_int(struct hf_sip_backend *b, enum statement id)
{
    int64_t v = step(b, id) ? get_int(b, id, 0) : 0;
    reset(b, id);
    return v;
}

/* What is inserted for another server has a `change`, by which that one's feed finds it. */
static void do_insert(struct hf_sip_backend *b, const struct hf_sip_op *op, struct hf_sip_result *r)
{
    enum statement id = op->kind == HF_SIP_OP_ASSIGN ? S_ASSIGN : S_ASSERT;
    char home[HF_HOST_NAME_MAX + 1], current[HF_HOST_NAME_MAX + 1];
    struct hf_slice to = hf_sip_store_name(b->store, op->row.current, current);
    bool others =
        id == S_ASSIGN && !hf_slice_eq(to, hf_slice_str(hf_sip_store_conf(b->store)->self));
    put_text(b, id, 1, op->aor);
    put_text(b, id, 2, hf_sip_store_name(b->store, op->row.home, home));
    put_text(b, id, 3, to);
    put_int(b, id, 4, (int64_t)op->row.epoch);
    put_int(b, id, 5, op->row.pinned);
    put_int(b, id, 6, op->row.agent);
    put_int(b, id, 7, hf_sip_store_i16(op->row.agent_id));
    put_int(b, id, 8, hf_sip_store_i16(hf_sip_bucket(op->aor)));
    if (id == S_ASSIGN) {
        put_int(b, id, 9, others ? read_int(b, S_CHANGE) + 1 : 0);
    }
    once(b, id);
    if (others && !b->failed && sqlite3_changes(b->db) > 0) {
        once(b, S_NEXT_CHANGE);
    }
    read_row(b, op, r);
}

static void do_learn(struct hf_sip_backend *b, const struct hf_sip_op *op)
{
    put_text(b, S_LEARN, 1, op->aor);
    put_int(b, S_LEARN, 2, op->row.agent);
    put_int(b, S_LEARN, 3, hf_sip_store_i16(op->row.agent_id));
    put_text(b, S_LEARN, 4, hf_slice_str(hf_sip_store_conf(b->store)->self));
    once(b, S_LEARN);
}

static void do_secret(struct hf_sip_backend *b, const struct hf_sip_op *op, struct hf_sip_result *r,
                      uint8_t aor[HF_SIP_AOR_MAX])
{
    put_text(b, S_SECRET, 1, op->user);
    put_text(b, S_SECRET, 2, op->realm);
    r->done = HF_SIP_OP_NONE;
    if (step(b, S_SECRET)) {
        struct hf_slice s = get_bytes(b, S_SECRET, 0);
        r->done = HF_SIP_OP_DONE;
        s.n = s.n < HF_SIP_AOR_MAX ? s.n : HF_SIP_AOR_MAX;
        if (s.n) {
            memcpy(aor, s.p, s.n);
        }
        r->aor = hf_slice(aor, s.n);
        for (int i = 0; i < HF_SIP_ALGORITHM_COUNT_; i++) {
            s = get_bytes(b, S_SECRET, 1 + i);
            if (s.n == hf_sip_algorithm_len((enum hf_sip_algorithm)i)) {
                memcpy(r->secret[i], s.p, s.n);
                r->algorithms |= 1u << i;
            }
        }
    }
    reset(b, S_SECRET);
}

/* Is the AoR's row still that by which it was decided? */
static bool epoch_is(struct hf_sip_backend *b, const struct hf_sip_op *op, struct hf_sip_result *r)
{
    read_row(b, op, r);
    if (r->have_row && r->row.epoch != op->epoch) {
        r->done = HF_SIP_OP_STALE;
    }
    return r->done == HF_SIP_OP_DONE;
}

static void do_bind(struct hf_sip_backend *b, const struct hf_sip_op *op, struct hf_sip_result *r)
{
    if (!epoch_is(b, op, r)) {
        return;
    }
    for (size_t i = 0; i < op->n_binds; i++) {
        const struct hf_sip_bind *x = &op->bind[i];
        enum statement id = x->erase ? S_UNBIND : S_BIND;
        uint8_t key[HF_SIP_STORE_ID_LEN];
        hf_sip_store_id(x->key, key);
        put_text(b, id, 1, op->aor);
        put_bytes(b, id, 2, hf_slice(key, sizeof(key)));
        if (!x->erase) {
            put_bytes(b, id, 3, x->b.uri);
            put_bytes(b, id, 4, x->b.params);
            put_bytes(b, id, 5, x->b.call_id);
            put_bytes(b, id, 6, x->b.path);
            put_int(b, id, 7, x->b.cseq);
            put_int(b, id, 8, x->b.life_s);
            put_int(b, id, 9, x->b.left_s);
            put_int(b, id, 10, x->b.outbound);
        }
        once(b, id);
    }
}

static void do_keep(struct hf_sip_backend *b, const struct hf_sip_op *op, struct hf_sip_result *r)
{
    enum statement id = op->kind == HF_SIP_OP_KEEP ? S_KEEP : S_DROP;
    uint8_t key[HF_SIP_STORE_ID_LEN];
    r->done = HF_SIP_OP_DONE;
    if (id == S_KEEP && !epoch_is(b, op, r)) {
        return;
    }
    hf_sip_store_id(op->kept.key, key);
    put_text(b, id, 1, op->aor);
    put_int(b, id, 2, op->kept.what);
    put_bytes(b, id, 3, hf_slice(key, sizeof(key)));
    if (id == S_KEEP) {
        put_bytes(b, id, 4, op->kept.key);
        put_bytes(b, id, 5, op->kept.data);
        put_int(b, id, 6, op->kept.left_s);
    }
    once(b, id);
}

/* Makes room for one more element in an array. */
static bool grow(void **array, size_t *room, size_t n, size_t size)
{
    if (n < *room) {
        return true;
    }
    size_t more = *room ? *room * 2 : 16;
    void *p = hf_realloc(*array, more * size);
    if (p) {
        *array = p;
        *room = more;
    }
    return p != NULL;
}

/* Copied to b->text; as it moves while it grows, only the place is kept until all is there. */
static struct hf_slice keep_text(struct hf_sip_backend *b, enum statement id, int at)
{
    struct hf_slice s = get_bytes(b, id, at);
    hf_buf_add(&b->text, s);
    return hf_slice(NULL, s.n);
}

static void place(struct hf_slice *s, const uint8_t **at)
{
    s->p = *at;
    *at += s->n;
}

static void load_bindings(struct hf_sip_backend *b, const struct hf_sip_op *op, size_t *n)
{
    put_text(b, S_BINDINGS, 1, op->aor);
    while (step(b, S_BINDINGS) &&
           grow((void **)&b->binding, &b->binding_room, *n, sizeof(b->binding[0]))) {
        b->binding[(*n)++] = (struct hf_sip_stored_binding){
            .aor = op->aor,
            .uri = keep_text(b, S_BINDINGS, 0),
            .params = keep_text(b, S_BINDINGS, 1),
            .call_id = keep_text(b, S_BINDINGS, 2),
            .path = keep_text(b, S_BINDINGS, 3),
            .cseq = (uint32_t)get_int(b, S_BINDINGS, 4),
            .life_s = (uint32_t)get_int(b, S_BINDINGS, 5),
            .left_s = (uint32_t)get_int(b, S_BINDINGS, 6),
            .outbound = get_int(b, S_BINDINGS, 7) != 0,
        };
    }
    reset(b, S_BINDINGS);
}

static void load_kept(struct hf_sip_backend *b, const struct hf_sip_op *op, size_t *n)
{
    put_text(b, S_KEPT, 1, op->aor);
    while (step(b, S_KEPT) && grow((void **)&b->kept, &b->kept_room, *n, sizeof(b->kept[0]))) {
        b->kept[(*n)++] = (struct hf_sip_kept){
            .what = (uint8_t)get_int(b, S_KEPT, 0),
            .key = keep_text(b, S_KEPT, 1),
            .data = keep_text(b, S_KEPT, 2),
            .left_s = (uint32_t)get_int(b, S_KEPT, 3),
        };
    }
    reset(b, S_KEPT);
}

static void do_load(struct hf_sip_backend *b, const struct hf_sip_op *op, struct hf_sip_result *r)
{
    hf_buf_clear(&b->text);
    load_bindings(b, op, &r->n_bindings);
    load_kept(b, op, &r->n_kept);
    if (b->text.err) {
        r->n_bindings = r->n_kept = 0;
        r->done = HF_SIP_OP_AWAY; /* not known */
        return;
    }
    const uint8_t *at = b->text.p;
    for (size_t i = 0; i < r->n_bindings; i++) {
        place(&b->binding[i].uri, &at);
        place(&b->binding[i].params, &at);
        place(&b->binding[i].call_id, &at);
        place(&b->binding[i].path, &at);
    }
    for (size_t i = 0; i < r->n_kept; i++) {
        place(&b->kept[i].key, &at);
        place(&b->kept[i].data, &at);
    }
    r->binding = b->binding;
    r->kept = b->kept;
    r->done = HF_SIP_OP_DONE;
}

static void do_op(struct hf_sip_backend *b, const struct hf_sip_op *op, struct hf_sip_result *r,
                  uint8_t aor[HF_SIP_AOR_MAX])
{
    switch ((enum hf_sip_op_kind)op->kind) {
    case HF_SIP_OP_READ:
        read_row(b, op, r);
        put_text(b, S_KNOWN, 1, op->aor);
        r->user_known = step(b, S_KNOWN);
        reset(b, S_KNOWN);
        break;
    case HF_SIP_OP_ASSIGN:
    case HF_SIP_OP_ASSERT:
        do_insert(b, op, r);
        break;
    case HF_SIP_OP_LEARN:
        do_learn(b, op);
        break;
    case HF_SIP_OP_SECRET:
        do_secret(b, op, r, aor);
        break;
    case HF_SIP_OP_BIND:
        do_bind(b, op, r);
        break;
    case HF_SIP_OP_LOAD:
        do_load(b, op, r);
        break;
    case HF_SIP_OP_KEEP:
    case HF_SIP_OP_DROP:
        do_keep(b, op, r);
        break;
    case HF_SIP_OP_COUNT_:
        break;
    }
}

/* ---- batches ---- */

static bool room(const struct hf_sip_backend *b, enum hf_sip_lane lane)
{
    (void)lane;
    return b->db != NULL;
}

static void run_reads(struct hf_sip_backend *b, struct hf_sip_batch *batch)
{
    once(b, S_BEGIN);
    for (size_t i = 0; i < batch->n && !b->failed; i++) {
        uint8_t aor[HF_SIP_AOR_MAX];
        struct hf_sip_result r = {0};
        do_op(b, &batch->op[i]->op, &r, aor);
        if (!b->failed) {
            hf_sip_store_answer(b->store, batch->op[i], &r);
        }
    }
    once(b, S_COMMIT);
}

/* Results are kept until the commit: they have no pointers but the op's own. */
static void run_writes(struct hf_sip_backend *b, struct hf_sip_batch *batch)
{
    struct hf_sip_result *r = hf_alloc_array(batch->n, sizeof(*r));
    uint8_t unused[HF_SIP_AOR_MAX]; /* by writes */
    b->failed = r == NULL;
    if (r) {
        once(b, S_WRITE);
    }
    for (size_t i = 0; i < batch->n && !b->failed; i++) {
        do_op(b, &batch->op[i]->op, &r[i], unused);
    }
    if (!b->failed) {
        once(b, S_COMMIT);
    }
    for (size_t i = 0; i < batch->n && !b->failed; i++) {
        hf_sip_store_answer(b->store, batch->op[i], &r[i]);
    }
    hf_free(r);
}

static void run(struct hf_sip_backend *b, struct hf_sip_batch *batch)
{
    b->failed = false;
    if (batch->lane == HF_SIP_READS) {
        run_reads(b, batch);
    } else {
        run_writes(b, batch);
    }
    if (b->failed) {
        down(b); /* which rolls back what is open */
    } else {
        hf_sip_store_batch_done(b->store, batch);
    }
}

static void feed(struct hf_sip_backend *b, bool ours, uint64_t change)
{
    b->failed = false;
    once(b, S_BEGIN); /* all of one moment */
    uint64_t now = (uint64_t)read_int(b, S_CHANGE);
    enum statement id = ours ? S_OURS : S_FEED;
    if (ours) {
        put_text(b, id, 1, hf_slice_str(hf_sip_store_conf(b->store)->self));
    } else {
        put_int(b, id, 1, (int64_t)change);
    }
    while (step(b, id)) {
        struct hf_sip_stored_row row = get_row(b, id);
        hf_sip_store_feed_row(b->store, &row);
    }
    reset(b, id);
    put_int(b, S_GONE, 1, (int64_t)change);
    while (!ours && step(b, S_GONE)) {
        hf_sip_store_feed_gone(b->store, get_bytes(b, S_GONE, 0));
    }
    reset(b, S_GONE);
    once(b, S_COMMIT);
    if (b->failed) {
        down(b);
    } else {
        hf_sip_store_feed_end(b->store, ours, now);
    }
}

/* ---- connecting, and what others wrote ---- */

static void connect_file(struct hf_sip_backend *b)
{
    const struct hf_sip_store_conf *conf = hf_sip_store_conf(b->store);
    const char *file = hf_sip_store_file(conf->uri);
    struct hf_err err;
    if (hf_sip_store_init(conf->uri, &err)) {
        hf_sip_store_down(b->store, err.text);
        return;
    }
    b->failed = sqlite3_open_v2(file, &b->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) !=
                    SQLITE_OK ||
                sqlite3_busy_timeout(b->db, (int)conf->timeout_ms) != SQLITE_OK ||
                sqlite3_exec(b->db, "PRAGMA synchronous = FULL", NULL, NULL, NULL) != SQLITE_OK ||
                stat(file, &b->file) != 0;
    for (unsigned i = 0; i < S_COUNT && !b->failed; i++) {
        b->failed = sqlite3_prepare_v3(b->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT,
                                       &b->st[i], NULL) != SQLITE_OK;
    }
    uint64_t change = b->failed ? 0 : (uint64_t)read_int(b, S_CHANGE);
    b->version = b->failed ? 0 : read_int(b, S_VERSION);
    if (b->failed) {
        down(b);
        return;
    }
    b->poll_at = hf_now() + POLL;
    hf_sip_store_up(b->store, change);
}

static unsigned fds(const struct hf_sip_backend *b, struct pollfd fd[2])
{
    (void)b;
    (void)fd;
    return 0;
}

static void io(struct hf_sip_backend *b, const struct pollfd *fd, unsigned n, hf_time now)
{
    (void)fd;
    (void)n;
    if (!b->db || now < b->poll_at) {
        return;
    }
    b->poll_at = now + POLL;
    struct stat st;
    const char *file = hf_sip_store_file(hf_sip_store_conf(b->store)->uri);
    if (stat(file, &st) != 0 || st.st_ino != b->file.st_ino || st.st_dev != b->file.st_dev) {
        disconnect(b);
        hf_sip_store_down(b->store, "SQLite: another file is in the place of the database's");
        return;
    }
    b->failed = false;
    int64_t version = read_int(b, S_VERSION);
    if (b->failed) {
        down(b);
    } else if (version != b->version) {
        b->version = version;
        hf_sip_store_notified(b->store);
    }
}

static hf_time deadline(const struct hf_sip_backend *b)
{
    return b->poll_at;
}

const struct hf_sip_backend_type hf_sip_backend_sqlite = {
    .create = create,
    .destroy = destroy,
    .connect = connect_file,
    .room = room,
    .run = run,
    .feed = feed,
    .fds = fds,
    .io = io,
    .deadline = deadline,
};
