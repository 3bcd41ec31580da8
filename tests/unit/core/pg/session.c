/* core/pg/session: its surface: life, refusal, reload, notes. What it does to bytes is in sim-pg
 * and in the stories of tests/sim/golden/pg-*.txt. */
#include "core/pg/session.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "codec/pg_v3.h"
#include "support/test.h"

struct rig {
    struct hf_pg_session *s;
    struct hf_pg_session_conf conf;
    struct hf_pg_memory memory;
    struct hf_pg_classifier *classifier;
    struct hf_buf to[3];
    bool needed[3], dropped[3], ended;
    uint32_t reasons;
};

static void op_send(void *arg, enum hf_pg_side to, struct hf_slice bytes)
{
    struct rig *r = arg;
    hf_buf_add(&r->to[to], bytes);
}

static void op_need(void *arg, enum hf_pg_side side)
{
    struct rig *r = arg;
    r->needed[side] = true;
}

static void op_drop(void *arg, enum hf_pg_side side)
{
    struct rig *r = arg;
    r->dropped[side] = true;
}

static void op_swap(void *arg)
{
    (void)arg;
}

static void op_end(void *arg)
{
    struct rig *r = arg;
    r->ended = true;
}

static void op_note(void *arg, enum hf_pg_note note, uint64_t a, uint64_t b, const char *text)
{
    struct rig *r = arg;
    (void)b;
    (void)text;
    if (note == HF_PG_NOTE_UNPROTECTED)
        r->reasons = (uint32_t)a;
}

static void rig_init(struct rig *r)
{
    static const struct hf_pg_session_ops ops = {.send = op_send,
                                                 .need = op_need,
                                                 .drop = op_drop,
                                                 .swap = op_swap,
                                                 .end = op_end,
                                                 .note = op_note};
    *r = (struct rig){.conf = {.protect_writes = true,
                               .log_max = 1000,
                               .prepared_max = 1000,
                               .hold_timeout = HF_S(30),
                               .replay_timeout = HF_S(30),
                               .move_timeout = HF_S(60)},
                      .memory = {.max = 1 << 20}};
    for (size_t i = 0; i < HF_ARRAY_LEN(r->to); i++)
        hf_buf_init(&r->to[i], 1 << 20);
    assert_int_equal(hf_pg_classifier_create(10, 42, &r->classifier), 0);
    struct hf_pg_session_args args = {.conf = &r->conf,
                                      .memory = &r->memory,
                                      .classifier = r->classifier,
                                      .user = hf_slice_str("mary"),
                                      .login_again = true,
                                      .cancel_key = hf_slice_str("key!"),
                                      .seed = 7};
    assert_int_equal(hf_pg_session_create(&args, &ops, r, 0, &r->s), 0);
    assert_true(r->needed[HF_PG_SERVER]);
}

static void rig_fini(struct rig *r)
{
    hf_pg_session_destroy(r->s);
    assert_int_equal(r->memory.used, 0);
    hf_pg_classifier_destroy(r->classifier);
    for (size_t i = 0; i < HF_ARRAY_LEN(r->to); i++)
        hf_buf_fini(&r->to[i]);
}

static void attach(struct rig *r)
{
    static const char params[] = "server_version\0"
                                 "15\0";
    struct hf_pg_backend b = {
        .incarnation = 1, .pid = 99, .params = hf_slice(params, sizeof(params) - 1)};
    hf_pg_session_attach(r->s, HF_PG_SERVER, &b, 0);
}

static bool holds(const struct hf_buf *b, const char *text)
{
    return b->n && memmem(b->p, b->n, text, strlen(text));
}

static void query(struct rig *r, const char *sql)
{
    struct hf_buf b;
    hf_buf_init(&b, 10000);
    hf_pg_put_query(&b, hf_slice_str(sql));
    assert_int_equal(hf_pg_session_from_client(r->s, hf_buf_slice(&b), 0), b.n);
    hf_buf_fini(&b);
}

static void a_refused_client_is_told_why(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    hf_pg_session_refuse(r.s, "57P03", "cannot connect now", "No primary.", 0);
    assert_true(r.ended);
    assert_true(r.dropped[HF_PG_SERVER]);
    assert_true(holds(&r.to[HF_PG_CLIENT], "FATAL"));
    assert_true(holds(&r.to[HF_PG_CLIENT], "57P03"));
    assert_true(holds(&r.to[HF_PG_CLIENT], "No primary."));
    rig_fini(&r);
}

static void a_login_ends_with_the_first_backend(void **state)
{
    (void)state;
    struct rig r;
    struct hf_pg_session_info info;
    rig_init(&r);
    hf_pg_session_info(r.s, &info);
    assert_string_equal(hf_pg_state_name(info.state), "starting");
    attach(&r);
    assert_true(holds(&r.to[HF_PG_CLIENT], "server_version"));
    assert_true(holds(&r.to[HF_PG_CLIENT], "key!"));
    hf_pg_session_info(r.s, &info);
    assert_string_equal(hf_pg_state_name(info.state), "running");
    assert_true(info.at_rest);
    assert_true(hf_pg_session_wants_client(r.s));
    hf_pg_session_kill(r.s, "57P01", "terminating connection due to administrator command", 0);
    assert_true(r.ended);
    rig_fini(&r);
}

static void a_reload_is_in_force_at_once(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    attach(&r);
    query(&r, "insert into t values (1)");
    assert_true(holds(&r.to[HF_PG_SERVER], "BEGIN;insert"));
    rig_fini(&r);

    rig_init(&r);
    attach(&r);
    r.conf.protect_writes = false;
    query(&r, "insert into t values (1)");
    assert_false(holds(&r.to[HF_PG_SERVER], "BEGIN;insert"));
    struct hf_pg_session_info info;
    hf_pg_session_info(r.s, &info);
    assert_true(info.reasons & HF_PG_REASON_DISABLED);
    assert_string_equal(hf_pg_reason_text(HF_PG_REASON_DISABLED), "protect_writes is off");
    rig_fini(&r);

    rig_init(&r);
    attach(&r);
    r.conf.log_max = 20;
    query(&r, "begin");
    query(&r, "insert into t values (1)");
    hf_pg_session_info(r.s, &info);
    assert_true(info.reasons & HF_PG_REASON_LOG_FULL);
    rig_fini(&r);
}

static void a_frozen_session_begins_nothing(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    attach(&r);
    assert_true(hf_pg_session_freeze(r.s, 0));
    assert_false(hf_pg_session_wants_client(r.s));
    hf_pg_session_thaw(r.s, 0);
    assert_true(hf_pg_session_wants_client(r.s));
    query(&r, "begin");
    assert_false(hf_pg_session_freeze(r.s, 0)); /* something is under way */
    rig_fini(&r);
}

/* The answer to the first of two Queries that were sent at once must not end what the second has
 * begun. */
static void a_request_before_a_wrapped_one(void **state)
{
    (void)state;
    static const uint8_t empty[] = {HF_PG_EMPTY_QUERY, 0, 0, 0, 4, HF_PG_READY, 0, 0, 0, 5, 'I'};
    struct rig r;
    rig_init(&r);
    attach(&r);
    query(&r, "");
    query(&r, "insert into t values (1)");
    assert_false(hf_pg_session_wants_client(r.s)); /* until it is known to be committed */
    assert_int_equal(
        hf_pg_session_from_server(r.s, HF_PG_SERVER, hf_slice(empty, sizeof(empty)), 0),
        sizeof(empty));
    assert_false(hf_pg_session_wants_client(r.s));
    rig_fini(&r);
}

/* The server's answer to one request: an error or not, then its status. */
static void answer(struct rig *r, const char *tag, const char *sqlstate, uint8_t status)
{
    struct hf_buf b;
    hf_buf_init(&b, 1000);
    if (tag)
        hf_pg_put_command_complete(&b, tag);
    if (sqlstate)
        hf_pg_put_error(
            &b, HF_PG_ERROR,
            &(struct hf_pg_error){.severity = "ERROR", .sqlstate = sqlstate, .message = "it says"});
    hf_pg_put_ready(&b, status);
    assert_int_equal(hf_pg_session_from_server(r->s, HF_PG_SERVER, hf_buf_slice(&b), 0), b.n);
    hf_buf_fini(&b);
    hf_buf_clear(&r->to[HF_PG_SERVER]);
}

/* A time limit, or somebody who cancels what the backend does: the client must not take the
 * ROLLBACK that its COMMIT would be answered for a commit. */
static void a_hidden_request_that_fails_is_told(void **state)
{
    (void)state;
    struct rig r;
    struct hf_buf commit;
    rig_init(&r);
    attach(&r);
    query(&r, "begin");
    answer(&r, "BEGIN", NULL, 'T');
    query(&r, "update t set a = 1");
    answer(&r, "UPDATE 1", NULL, 'T'); /* the transaction's id is asked for */
    answer(&r, NULL, "57014", 'E');
    hf_buf_clear(&r.to[HF_PG_CLIENT]);
    query(&r, "commit");
    assert_false(holds(&r.to[HF_PG_SERVER], "commit"));
    assert_true(holds(&r.to[HF_PG_CLIENT], "57014"));
    assert_true(holds(&r.to[HF_PG_CLIENT], "it says"));
    struct hf_pg_session_info info;
    hf_pg_session_info(r.s, &info);
    assert_int_equal(info.tx, 'E');
    query(&r, "rollback");
    assert_true(holds(&r.to[HF_PG_SERVER], "rollback"));
    rig_fini(&r);
    /* the same when the COMMIT waits for the id */
    hf_buf_init(&commit, 100);
    hf_pg_put_query(&commit, hf_slice_str("commit"));
    rig_init(&r);
    attach(&r);
    query(&r, "begin");
    answer(&r, "BEGIN", NULL, 'T');
    query(&r, "update t set a = 1");
    answer(&r, "UPDATE 1", NULL, 'T');
    assert_int_equal(hf_pg_session_from_client(r.s, hf_buf_slice(&commit), 0), 0);
    answer(&r, NULL, "57014", 'E');
    hf_buf_clear(&r.to[HF_PG_CLIENT]);
    query(&r, "commit");
    assert_true(holds(&r.to[HF_PG_CLIENT], "57014"));
    assert_false(holds(&r.to[HF_PG_SERVER], "commit"));
    hf_buf_fini(&commit);
    rig_fini(&r);
}

static bool ahead(const struct rig *r)
{
    bool asked;
    return hf_pg_session_ahead(r->s, &asked);
}

/* Sent to the server before a peer has it: only what takes no effect by itself (X1). */
static void what_may_run_ahead_of_a_peer(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        bool in_block, ahead;
    } cases[] = {
        {"begin", false, true},
        {"set a.b = 1", false, true},
        {"listen x", false, true},
        {"", false, true},
        {"update t set a = 1", false, true}, /* wrapped: its COMMIT follows */
        {"begin; update t set a = 1; commit", false, false},
        {"begin; update t set a = 1", false, false},
        {"vacuum", false, false},
        {"create table t (a int)", false, false},
        {"call p()", false, false},
        {"select dblink('a', 'b')", false, false},
        {"copy t from stdin", false, false},
        {"commit", false, false},
        {"not sql", false, false},
        {"update t set a = 1", true, true},
        {"insert into t values (1) returning a", true, true},
        {"savepoint a", true, true},
        {"rollback", true, true},
        {"commit", true, false},
        {"commit and chain", true, false},
        {"update t set a = 1; commit", true, false},
        {"rollback; update t set a = 1", true, false},
        {"prepare transaction 'a'", true, false},
        {"select dblink('a', 'b')", true, false},
        {"copy t to '/tmp/t'", true, false},
        {"copy t from stdin", true, false},
        {"select lo_export(1, 'a')", true, false},
        {"do $$ begin end $$", true, false},
        {"create table t (a int)", true, false},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(cases); i++) {
        struct rig r;
        bool asked = true;
        rig_init(&r);
        assert_false(hf_pg_session_ahead(r.s, &asked)); /* not attached */
        assert_false(asked);
        attach(&r);
        if (cases[i].in_block) {
            query(&r, "begin");
            answer(&r, "BEGIN", NULL, 'T');
        }
        struct hf_buf b;
        hf_buf_init(&b, 1000);
        hf_pg_put_query(&b, hf_slice_str(cases[i].sql));
        /* it may wait for a token, or for a look at the settings */
        (void)!hf_pg_session_from_client(r.s, hf_buf_slice(&b), 0);
        hf_buf_fini(&b);
        bool sent = holds(&r.to[HF_PG_SERVER], cases[i].sql);
        if (sent ? ahead(&r) != cases[i].ahead : cases[i].ahead)
            fail_msg("%s%s", cases[i].in_block ? "begin; " : "", cases[i].sql);
        rig_fini(&r);
    }
}

/* What is sent at once with what begins or ends a block may run outside it. */
static void only_in_a_block_that_was_open(void **state)
{
    (void)state;
    static const uint8_t ready[] = {HF_PG_SYNC, 0, 0, 0, 4};
    struct rig r;
    bool asked;
    rig_init(&r);
    attach(&r);
    query(&r, "begin");
    query(&r, "update t set a = 1"); /* if BEGIN fails, a transaction by itself */
    assert_false(ahead(&r));
    answer(&r, "BEGIN", NULL, 'T');
    assert_true(ahead(&r));
    answer(&r, "UPDATE 1", NULL, 'T');
    assert_true(ahead(&r)); /* the transaction's id */
    query(&r, "rollback");
    query(&r, "begin");
    query(&r, "update t set a = 1");
    assert_false(ahead(&r));
    rig_fini(&r);
    /* an answer is waited for once all of the request is there */
    rig_init(&r);
    attach(&r);
    struct hf_buf b;
    hf_buf_init(&b, 1000);
    size_t mark = hf_pg_put_begin(&b, HF_PG_PARSE);
    hf_pg_put_cstr(&b, hf_slice_str("a"));
    hf_pg_put_cstr(&b, hf_slice_str("begin"));
    hf_pg_put_u16(&b, 0);
    hf_pg_put_end(&b, mark);
    assert_int_equal(hf_pg_session_from_client(r.s, hf_buf_slice(&b), 0), b.n);
    assert_true(hf_pg_session_ahead(r.s, &asked));
    assert_false(asked);
    assert_int_equal(hf_pg_session_from_client(r.s, hf_slice(ready, sizeof(ready)), 0),
                     sizeof(ready));
    assert_true(hf_pg_session_ahead(r.s, &asked));
    assert_true(asked);
    hf_buf_fini(&b);
    rig_fini(&r);
}

/* Asked and said good-bye at once: the answer is given. */
static void it_ends_after_the_answer(void **state)
{
    (void)state;
    static const uint8_t terminate[] = {HF_PG_TERMINATE, 0, 0, 0, 4};
    const struct hf_slice bye = hf_slice(terminate, sizeof(terminate));
    struct rig r;
    rig_init(&r);
    attach(&r);
    query(&r, "begin");
    assert_int_equal(hf_pg_session_from_client(r.s, bye, 0), 0);
    assert_false(r.ended);
    answer(&r, "BEGIN", NULL, 'T');
    assert_true(holds(&r.to[HF_PG_CLIENT], "BEGIN"));
    assert_int_equal(hf_pg_session_from_client(r.s, bye, 0), bye.n);
    assert_true(r.ended);
    rig_fini(&r);
}

/* Parse, Bind and Execute of the unnamed statement, or parts of them */
static void put_parse_bind(struct hf_buf *b, const char *sql)
{
    size_t mark = hf_pg_put_begin(b, HF_PG_PARSE);
    hf_pg_put_cstr(b, hf_slice_str(""));
    hf_pg_put_cstr(b, hf_slice_str(sql));
    hf_pg_put_u16(b, 0);
    hf_pg_put_end(b, mark);
    mark = hf_pg_put_begin(b, HF_PG_BIND);
    hf_pg_put_cstr(b, hf_slice_str(""));
    hf_pg_put_cstr(b, hf_slice_str(""));
    for (int i = 0; i < 3; i++)
        hf_pg_put_u16(b, 0);
    hf_pg_put_end(b, mark);
}

static void put_execute(struct hf_buf *b)
{
    size_t mark = hf_pg_put_begin(b, HF_PG_EXECUTE);
    hf_pg_put_cstr(b, hf_slice_str(""));
    hf_pg_put_u32(b, 0);
    hf_pg_put_end(b, mark);
}

static const uint8_t sync_message[] = {HF_PG_SYNC, 0, 0, 0, 4};

static void say(struct rig *r, struct hf_buf *b)
{
    assert_int_equal(hf_pg_session_from_client(r->s, hf_buf_slice(b), 0), b->n);
    hf_buf_clear(b);
}

static void fails(struct rig *r, const char *sqlstate)
{
    struct hf_buf b;
    hf_buf_init(&b, 1000);
    hf_pg_put_error(
        &b, HF_PG_ERROR,
        &(struct hf_pg_error){.severity = "ERROR", .sqlstate = sqlstate, .message = "it says"});
    assert_int_equal(hf_pg_session_from_server(r->s, HF_PG_SERVER, hf_buf_slice(&b), 0), b.n);
    hf_buf_fini(&b);
}

/* The error of its Parse comes before its Execute is read: the server skips that one, and says
 * nothing of a COPY. */
static void a_copy_that_has_failed_is_not_waited_for(void **state)
{
    (void)state;
    struct rig r;
    struct hf_buf b;
    rig_init(&r);
    hf_buf_init(&b, 1000);
    attach(&r);
    query(&r, "begin");
    answer(&r, "BEGIN", NULL, 'T');
    put_parse_bind(&b, "copy t from stdin");
    say(&r, &b);
    fails(&r, "25P02");
    hf_buf_clear(&r.to[HF_PG_SERVER]);
    put_execute(&b);
    say(&r, &b);
    hf_buf_add(&b, hf_slice(sync_message, sizeof(sync_message)));
    say(&r, &b);
    assert_int_equal(r.to[HF_PG_SERVER].p[r.to[HF_PG_SERVER].n - sizeof(sync_message)], HF_PG_SYNC);
    hf_buf_fini(&b);
    rig_fini(&r);
}

/* What an earlier request of a pipeline comes to says nothing of the COPY behind it. */
static void a_copy_behind_another_request(void **state)
{
    (void)state;
    static const uint8_t begins[] = {HF_PG_COPY_IN, 0, 0, 0, 7, 0, 0, 0};
    const struct hf_slice sync = hf_slice(sync_message, sizeof(sync_message));
    for (int failed = 0; failed < 2; failed++) {
        struct rig r;
        struct hf_buf b;
        rig_init(&r);
        r.conf.protect_writes = false; /* otherwise its Sync would wait for its transaction's id */
        hf_buf_init(&b, 1000);
        attach(&r);
        put_parse_bind(&b, "select 1");
        put_execute(&b);
        hf_buf_add(&b, sync);
        put_parse_bind(&b, "copy t from stdin");
        put_execute(&b);
        say(&r, &b);
        assert_int_equal(hf_pg_session_from_client(r.s, sync, 0), 0);
        answer(&r, NULL, failed ? "22012" : NULL, 'I');
        assert_int_equal(hf_pg_session_from_client(r.s, sync, 0), 0);
        assert_int_equal(
            hf_pg_session_from_server(r.s, HF_PG_SERVER, hf_slice(begins, sizeof(begins)), 0),
            sizeof(begins));
        assert_int_equal(hf_pg_session_from_client(r.s, sync, 0), sync.n);
        hf_buf_fini(&b);
        rig_fini(&r);
    }
}

/* Each server process says goodbye with a notice when another one has crashed: that is the end of a
 * connection which the client is not to hear of. Other notices are his. */
static void a_crash_is_not_told(void **state)
{
    (void)state;
    static const char *const code[] = {"57P02", "57P01", "01000"};
    for (size_t i = 0; i < HF_ARRAY_LEN(code); i++) {
        struct rig r;
        struct hf_buf b;
        rig_init(&r);
        hf_buf_init(&b, 1000);
        attach(&r);
        query(&r, "begin");
        answer(&r, "BEGIN", NULL, 'T');
        hf_pg_put_error(&b, HF_PG_NOTICE,
                        &(struct hf_pg_error){
                            .severity = "WARNING", .sqlstate = code[i], .message = "it says"});
        assert_int_equal(hf_pg_session_from_server(r.s, HF_PG_SERVER, hf_buf_slice(&b), 0), b.n);
        assert_int_equal(holds(&r.to[HF_PG_CLIENT], "it says"), i == 2);
        hf_buf_fini(&b);
        rig_fini(&r);
    }
}

static void put_field(struct hf_buf *b, char type, const char *text)
{
    hf_pg_put_u8(b, (uint8_t)type);
    hf_pg_put_cstr(b, hf_slice_str(text));
}

static bool worker_told(struct rig *r, const char *sqlstate, const char *file)
{
    struct hf_buf b;
    hf_buf_init(&b, 1000);
    hf_buf_clear(&r->to[HF_PG_CLIENT]);
    r->needed[HF_PG_SERVER] = r->dropped[HF_PG_SERVER] = false;
    size_t mark = hf_pg_put_begin(&b, HF_PG_ERROR);
    put_field(&b, 'S', "ERROR");
    put_field(&b, 'V', "ERROR");
    put_field(&b, 'C', sqlstate);
    put_field(&b, 'M', "it says");
    put_field(&b, 'F', file);
    hf_pg_put_u8(&b, 0);
    hf_pg_put_end(&b, mark);
    assert_int_equal(hf_pg_session_from_server(r->s, HF_PG_SERVER, hf_buf_slice(&b), 0), b.n);
    hf_buf_fini(&b);
    assert_int_equal(r->needed[HF_PG_SERVER], r->dropped[HF_PG_SERVER]);
    assert_int_equal(holds(&r->to[HF_PG_CLIENT], "it says"), !r->needed[HF_PG_SERVER]);
    return !r->needed[HF_PG_SERVER];
}

/* At a fast shutdown a parallel worker may be gone before its leader hears of it: its error is the
 * connection's end. Not what a function raises, nor what another server said; nor is it where the
 * request can't be done again. */
static void a_workers_end_is_not_told(void **state)
{
    (void)state;
    static const struct {
        const char *sqlstate, *file;
        bool told;
    } want[] = {
        {"57P01", "postgres.c", false},  {"57P01", "bgworker.c", false},
        {"55000", "parallel.c", false},  {"57P01", "pl_exec.c", true},
        {"57P01", "connection.c", true}, {"55000", "sequence.c", true},
        {"22012", "postgres.c", true},
    };
    struct rig r;
    for (size_t i = 0; i < HF_ARRAY_LEN(want); i++) {
        rig_init(&r);
        attach(&r);
        query(&r, "select 1");
        assert_int_equal(worker_told(&r, want[i].sqlstate, want[i].file), want[i].told);
        rig_fini(&r);
    }
    rig_init(&r);
    attach(&r);
    query(&r, "vacuum");
    assert_true(worker_told(&r, "57P01", "postgres.c"));
    rig_fini(&r);
}

static void put_notification(struct hf_buf *b, const char *channel)
{
    size_t mark = hf_pg_put_begin(b, HF_PG_NOTIFICATION);
    hf_pg_put_u32(b, 5);
    hf_pg_put_cstr(b, hf_slice_str(channel));
    hf_pg_put_cstr(b, hf_slice_str("said"));
    hf_pg_put_end(b, mark);
}

/* All at once, as the driver gives it: again, until nothing is left. */
static void gives(struct rig *r, enum hf_pg_side side, struct hf_buf *b)
{
    hf_buf_clear(&r->to[HF_PG_SERVER]);
    hf_buf_clear(&r->to[HF_PG_SPARE]);
    for (size_t n; b->n; hf_buf_consume(b, n)) {
        side = r->dropped[HF_PG_SERVER] ? HF_PG_SERVER : side;
        n = hf_pg_session_from_server(r->s, side, hf_buf_slice(b), 0);
        assert_true(n > 0);
    }
}

/* It listens to "news", and nothing else is to be known of it. */
static void put_observed(struct hf_buf *b)
{
    static const char *const names[] = {"kind", "name", "value"};
    const struct hf_slice row[] = {hf_slice_str("l"), hf_slice_str("news"), hf_slice("", 0)};
    hf_pg_put_text_columns(b, names, 3);
    hf_pg_put_text_row(b, row, 3);
    hf_pg_put_command_complete(b, "SELECT 1");
    hf_pg_put_ready(b, 'I');
}

/* A session that listens to "news", and is known to. */
static void that_listens(struct rig *r, struct hf_buf *b)
{
    rig_init(r);
    hf_buf_init(b, 10000);
    attach(r);
    query(r, "LISTEN news");
    answer(r, "LISTEN", NULL, 'I');
    put_observed(b);
    gives(r, HF_PG_SERVER, b);
}

/* X12: what is told on the new connection just behind its last step has come by nothing else, and
 * perhaps nothing comes behind it. */
static void a_notification_behind_the_move(void **state)
{
    (void)state;
    struct rig r;
    struct hf_buf b;
    struct hf_pg_backend spare = {.incarnation = 1, .pid = 100};
    that_listens(&r, &b);
    hf_pg_session_move(r.s, 0);
    put_observed(&b);
    gives(&r, HF_PG_SERVER, &b);
    assert_true(r.needed[HF_PG_SPARE]);
    hf_pg_session_attach(r.s, HF_PG_SPARE, &spare, 0);
    assert_true(holds(&r.to[HF_PG_SPARE], "LISTEN \"news\""));
    hf_pg_put_command_complete(&b, "LISTEN");
    hf_pg_put_ready(&b, 'I');
    gives(&r, HF_PG_SPARE, &b);
    assert_true(holds(&r.to[HF_PG_SERVER], "LISTEN \"holdfast move 7\""));
    hf_pg_put_command_complete(&b, "LISTEN");
    hf_pg_put_ready(&b, 'I');
    gives(&r, HF_PG_SERVER, &b);
    assert_true(holds(&r.to[HF_PG_SPARE], "NOTIFY \"holdfast move 7\""));
    hf_pg_put_command_complete(&b, "LISTEN");
    hf_pg_put_command_complete(&b, "NOTIFY");
    put_notification(&b, "holdfast move 7");
    hf_pg_put_ready(&b, 'I');
    gives(&r, HF_PG_SPARE, &b);
    put_notification(&b, "holdfast move 7");
    gives(&r, HF_PG_SERVER, &b);
    assert_true(holds(&r.to[HF_PG_SPARE], "UNLISTEN"));
    hf_buf_clear(&r.to[HF_PG_CLIENT]);
    hf_pg_put_command_complete(&b, "UNLISTEN");
    hf_pg_put_ready(&b, 'I');
    put_notification(&b, "news");
    gives(&r, HF_PG_SPARE, &b);
    assert_true(r.dropped[HF_PG_SERVER]);
    assert_true(holds(&r.to[HF_PG_CLIENT], "said"));
    hf_buf_fini(&b);
    rig_fini(&r);
}

static void put_value(struct hf_buf *b)
{
    const struct hf_slice row[] = {hf_slice_str("1234567890")};
    hf_pg_put_text_row(b, row, 1);
    hf_pg_put_command_complete(b, "SELECT 1");
    hf_pg_put_ready(b, 'T');
}

/* A block begins; its server is lost when the client has half a row of the second answer, and there
 * is another one. What that one is asked first is in r->to[HF_PG_SERVER]. */
static void loses_within_a_row(struct rig *r, struct hf_buf *b)
{
    struct hf_pg_backend other = {.incarnation = 2, .pid = 100, .fenced = true};
    query(r, "begin");
    answer(r, "BEGIN", NULL, 'T');
    query(r, "values (1)");
    put_value(b);
    assert_int_equal(hf_pg_session_from_server(r->s, HF_PG_SERVER, hf_slice(b->p, 9), 0), 9);
    hf_buf_clear(b);
    hf_pg_session_server_gone(r->s, HF_PG_SERVER, "it crashed", 0);
    hf_buf_clear(&r->to[HF_PG_CLIENT]);
    hf_buf_clear(&r->to[HF_PG_SERVER]);
    hf_pg_session_attach(r->s, HF_PG_SERVER, &other, 0);
}

/* The same, and it has been restored there: the replay has begun. */
static void lost_within_a_row(struct rig *r, struct hf_buf *b)
{
    rig_init(r);
    hf_buf_init(b, 10000);
    attach(r);
    loses_within_a_row(r, b);
    assert_true(holds(&r->to[HF_PG_SERVER], "values (1)")); /* both at once */
    hf_pg_put_command_complete(b, "BEGIN");
    hf_pg_put_ready(b, 'T');
    gives(r, HF_PG_SERVER, b);
    assert_int_equal(r->to[HF_PG_CLIENT].n, 0);
}

/* Nothing is told within a message, but everything behind it, also if the rest of the message came
 * with the bytes that end the replay. */
static void a_row_that_was_cut_is_whole_again(void **state)
{
    (void)state;
    for (size_t rest = 0; rest < 3; rest++) {
        struct rig r;
        struct hf_buf b;
        lost_within_a_row(&r, &b);
        put_value(&b);
        size_t n = rest == 0 ? b.n : rest == 1 ? 21 : 20; /* all, the row, not quite the row */
        assert_int_equal(hf_pg_session_from_server(r.s, HF_PG_SERVER, hf_slice(b.p, n), 0), n);
        assert_int_equal(r.to[HF_PG_CLIENT].n, n - 9);
        assert_memory_equal(r.to[HF_PG_CLIENT].p, b.p + 9, n - 9);
        hf_pg_session_kill(r.s, "57P05", "it has been idle", 0);
        assert_true(r.ended);
        assert_int_equal(holds(&r.to[HF_PG_CLIENT], "it has been idle"), rest < 2);
        hf_buf_fini(&b);
        rig_fini(&r);
    }
}

/* X12: what comes between the LISTEN on the new server and the end of the replay is one of those
 * that may be missing; and nothing is told within the row that was cut. */
static void a_notification_while_it_is_restored(void **state)
{
    (void)state;
    struct rig r;
    struct hf_buf b;
    that_listens(&r, &b);
    loses_within_a_row(&r, &b);
    assert_true(holds(&r.to[HF_PG_SERVER], "LISTEN \"news\""));
    put_notification(&b, "news");
    gives(&r, HF_PG_SERVER, &b);
    assert_int_equal(r.to[HF_PG_CLIENT].n, 0);
    hf_pg_put_command_complete(&b, "LISTEN");
    hf_pg_put_ready(&b, 'I');
    gives(&r, HF_PG_SERVER, &b);
    assert_true(holds(&r.to[HF_PG_SERVER], "values (1)"));
    put_notification(&b, "news");
    gives(&r, HF_PG_SERVER, &b);
    assert_int_equal(r.to[HF_PG_CLIENT].n, 0);
    hf_pg_put_command_complete(&b, "BEGIN");
    hf_pg_put_ready(&b, 'T');
    gives(&r, HF_PG_SERVER, &b);
    put_value(&b);
    size_t n = b.n;
    gives(&r, HF_PG_SERVER, &b);
    assert_false(holds(&r.to[HF_PG_CLIENT], "said"));
    hf_buf_consume(&r.to[HF_PG_CLIENT], n - 9); /* what was missing of the answer */
    assert_int_equal(r.to[HF_PG_CLIENT].p[0], HF_PG_NOTIFICATION);
    assert_true(holds(&r.to[HF_PG_CLIENT], "news"));
    hf_buf_fini(&b);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_notification_behind_the_move),
        cmocka_unit_test(a_row_that_was_cut_is_whole_again),
        cmocka_unit_test(a_notification_while_it_is_restored),
        cmocka_unit_test(a_refused_client_is_told_why),
        cmocka_unit_test(a_login_ends_with_the_first_backend),
        cmocka_unit_test(a_reload_is_in_force_at_once),
        cmocka_unit_test(a_frozen_session_begins_nothing),
        cmocka_unit_test(a_request_before_a_wrapped_one),
        cmocka_unit_test(a_hidden_request_that_fails_is_told),
        cmocka_unit_test(what_may_run_ahead_of_a_peer),
        cmocka_unit_test(it_ends_after_the_answer),
        cmocka_unit_test(only_in_a_block_that_was_open),
        cmocka_unit_test(a_copy_that_has_failed_is_not_waited_for),
        cmocka_unit_test(a_copy_behind_another_request),
        cmocka_unit_test(a_crash_is_not_told),
        cmocka_unit_test(a_workers_end_is_not_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
