/* core/pg/insert: an INSERT's text with the values that a sequence gave. */
#include "core/pg/insert.h"

#include "base/err.h"
#include "base/mem.h"
#include "support/test.h"

static int again(const char *sql, const char *column, size_t n, struct hf_buf *out)
{
    static const int64_t ids[] = {5, 6, 3000000000};
    hf_buf_init(out, 1u << 20);
    return hf_pg_insert_with_ids(hf_slice_str(sql), hf_slice_str(column), ids, n, out);
}

static void texts(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        const char *sql, *made; /* NULL: refused */
    } t[] = {
        {1, "INSERT INTO t (a) VALUES (1) RETURNING id",
         "INSERT INTO t (\"id\", a) OVERRIDING SYSTEM VALUE VALUES (5, 1) RETURNING id"},
        {3, "insert into s.t(a,b)values($1,$2),($3,(1+(2))) , ( f(')'), '' )returning *;",
         "insert into s.t(\"id\", a,b) OVERRIDING SYSTEM VALUE values(5, $1,$2),(6, $3,(1+(2))) , "
         "(3000000000,  f(')'), '' )returning *;"},
        {2, "INSERT INTO t (a, id) VALUES (1, DEFAULT), ('DEFAULT', default) RETURNING id",
         "INSERT INTO t (a, id) OVERRIDING SYSTEM VALUE VALUES (1, 5), ('DEFAULT', 6) RETURNING "
         "id"},
        {1,
         "INSERT INTO \"a (b\" AS x (\"c)\"\"\", \"VALUES\") VALUES ('(''', E'\\'(') RETURNING id",
         "INSERT INTO \"a (b\" AS x (\"id\", \"c)\"\"\", \"VALUES\") OVERRIDING SYSTEM VALUE "
         "VALUES "
         "(5, '(''', E'\\'(') RETURNING id"},
        {2,
         "INSERT INTO t /* (a /* ) */ */ (a -- )\n, b) /* ( */ VALUES -- (\n($$)($$, 1), "
         "($q$ $$) $q$, 2) RETURNING id",
         "INSERT INTO t /* (a /* ) */ */ (\"id\", a -- )\n, b) OVERRIDING SYSTEM VALUE /* ( */ "
         "VALUES "
         "-- (\n(5, $$)($$, 1), (6, $q$ $$) $q$, 2) RETURNING id"},
        {1, "INSERT INTO t (a[1], b.c) VALUES (1, ARRAY[(2)]) RETURNING id",
         "INSERT INTO t (\"id\", a[1], b.c) OVERRIDING SYSTEM VALUE VALUES (5, 1, ARRAY[(2)]) "
         "RETURNING id"},
        {1,
         "WITH x AS (INSERT INTO u (a) VALUES (DEFAULT)) INSERT INTO t (a) VALUES (1) RETURNING id",
         "WITH x AS (INSERT INTO u (a) VALUES (DEFAULT)) INSERT INTO t (\"id\", a) OVERRIDING "
         "SYSTEM "
         "VALUE VALUES (5, 1) RETURNING id"},
        {1, "INSERT INTO t (a) VALUES (1), (2) RETURNING id", NULL}, /* one row was seen */
        {2, "INSERT INTO t (a) VALUES (1) RETURNING id", NULL},
        {1, "INSERT INTO t (a, id) VALUES (1, 7) RETURNING id", NULL},
        {2, "INSERT INTO t (a, id) VALUES (1, DEFAULT), (2, 8) RETURNING id", NULL},
        {1, "INSERT INTO t (a) VALUES (1)", NULL},
        {1, "INSERT INTO t VALUES (1) RETURNING id", NULL},
        {1, "INSERT INTO t DEFAULT VALUES RETURNING id", NULL},
        {1, "INSERT INTO t (a) SELECT 1 RETURNING id", NULL},
        {1, "INSERT INTO t (a) VALUES (1) ON CONFLICT DO NOTHING RETURNING id", NULL},
        {1, "INSERT INTO t (a) OVERRIDING USER VALUE VALUES (1) RETURNING id", NULL},
        {1, "INSERT INTO t (a) VALUES (1) RETURNING id; SELECT 1", NULL},
        {1, "SELECT 1", NULL},
        {1, "SELECT '", NULL},
        {1, "", NULL},
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(t); i++) {
        struct hf_buf out;
        int rc = again(t[i].sql, "id", t[i].n, &out);
        if (rc != (t[i].made ? 0 : -HF_EVALUE)) {
            fail_msg("%s: %d", t[i].sql, rc);
        }
        if (t[i].made) {
            assert_string_equal((const char *)out.p, t[i].made);
        }
        hf_buf_fini(&out);
    }
}

static void the_column_is_quoted(void **state)
{
    (void)state;
    struct hf_buf out;
    assert_int_equal(again("INSERT INTO t (a) VALUES (1) RETURNING *", "I\"d", 1, &out), 0);
    assert_string_equal((const char *)out.p,
                        "INSERT INTO t (\"I\"\"d\", a) OVERRIDING SYSTEM VALUE "
                        "VALUES (5, 1) RETURNING *");
    hf_buf_fini(&out);
}

static void values_that_no_sequence_gives_upwards(void **state)
{
    (void)state;
    static const int64_t bad[] = {0, -1, INT64_MIN};
    struct hf_buf out;
    hf_buf_init(&out, 4096);
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        assert_int_equal(
            hf_pg_insert_with_ids(hf_slice_str("INSERT INTO t (a) VALUES (1) RETURNING id"),
                                  hf_slice_str("id"), &bad[i], 1, &out),
            -HF_EVALUE);
    }
    hf_buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts),
        cmocka_unit_test(the_column_is_quoted),
        cmocka_unit_test(values_that_no_sequence_gives_upwards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
