/* core/pg/classify: a corpus with what each statement does; texts that are the same but for their
 * literals; memory; the catalog. */
#include "core/pg/classify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/prng.h"
#include "support/test.h"

#define D(name) ((uint32_t)HF_PG_DOES_##name)
#define R D(READ)
#define W D(WRITE)
#define U D(UTILITY)
#define UD (U | D(DDL))
#define FN (D(FUNCTION) | D(SYNC_COMMIT))

/* What a small database has: kind and name. */
static const char *const list[] = {
    "f now",
    "f count",
    "f sum",
    "f lower",
    "f coalesce",
    "f upper",
    "f length",
    "f to_char",
    "f jsonb_agg",
    "f generate_series",
    "f date_trunc",
    "f extract",
    "f txid_current",
    "f pg_backend_pid",
    "f substring",
    "f row_number",
    "f current_setting",
    "f table_to_xml",
    "f float8",
    "F random",
    "F nextval",
    "F currval",
    "F lastval",
    "F setval",
    "F pg_notify",
    "F set_config",
    "F setseed",
    "F clock_timestamp",
    "F gen_random_uuid",
    "F pg_sleep",
    "F pg_advisory_lock",
    "F pg_advisory_xact_lock",
    "F pg_try_advisory_lock_shared",
    "F pg_advisory_unlock_all",
    "F current_query",
    "F lo_export",
    "F lo_create",
    "F query_to_xml",
    "F pg_terminate_backend",
    "F bernoulli",
    "F pg_logical_emit_message",
    "o =",
    "o <>",
    "o <",
    "o <=",
    "o >",
    "o >=",
    "o +",
    "o -",
    "o *",
    "o ||",
    "o ~~",
    "o ->>",
    "o @>",
    "o ?",
    "o ~<~",
    "o !~",
    "o %",
    "t int4",
    "t int8",
    "t text",
    "t timestamptz",
    "t numeric",
    "t jsonb",
    "t date",
    "t regclass",
    "t interval",
    "t mood",
    "t varchar",
    "t bool",
    "t bpchar",
    "r t",
    "r u",
    "r orders",
    "r pgbench_accounts",
    "r pg_class",
    "r pg_type",
    "r pg_attribute",
    "r Mixed",
    "a fullname",
};

static struct hf_pg_classifier *make(size_t n_max)
{
    struct hf_pg_classifier *c;
    assert_int_equal(hf_pg_classifier_create(n_max, 42, &c), 0);
    return c;
}

static void give_list(struct hf_pg_classifier *c, const char *extra)
{
    hf_pg_catalog_begin(c);
    for (size_t i = 0; i < HF_ARRAY_LEN(list); i++) {
        assert_int_equal(hf_pg_catalog_row(c, list[i][0], hf_slice_str(list[i] + 2)), 0);
    }
    if (extra) {
        assert_int_equal(hf_pg_catalog_row(c, extra[0], hf_slice_str(extra + 2)), 0);
    }
    hf_pg_catalog_end(c);
}

static uint32_t does(struct hf_pg_classifier *c, const char *sql)
{
    const struct hf_pg_class *k = hf_pg_classify(c, hf_slice_str(sql));
    uint32_t d = k->does;
    assert_int_equal(d, hf_pg_class_does(c, k));
    hf_pg_class_unref(k);
    return d;
}

static bool repeatable(struct hf_pg_classifier *c, const char *sql)
{
    const struct hf_pg_class *k = hf_pg_classify(c, hf_slice_str(sql));
    bool r = hf_pg_class_repeatable(c, k);
    assert_int_equal(r, hf_pg_class_repeatable(c, k));
    hf_pg_class_unref(k);
    return r;
}

static void name_flags(uint32_t d, char *out)
{
    *out = '\0';
#define NAME(name, bit, text)                                                                      \
    if (d & (1u << (bit))) {                                                                       \
        strcat(out, " " #name);                                                                    \
    }
    HF_PG_DOES_LIST(NAME)
#undef NAME
}

/* p: repeatable, w: wrappable */
static const struct {
    uint32_t does;
    const char *can, *sql;
} corpus[] = {
#include "corpus.h"
};

static void does_what_it_does(void **state)
{
    (void)state;
    struct hf_pg_classifier *c = make(1000);
    give_list(c, NULL);
    int failed = 0;
    for (int round = 0; round < 2; round++) { /* parsed, and remembered */
        for (size_t i = 0; i < HF_ARRAY_LEN(corpus); i++) {
            const char *sql = corpus[i].sql;
            const struct hf_pg_class *k = hf_pg_classify(c, hf_slice_str(sql));
            bool p = strchr(corpus[i].can, 'p'), w = strchr(corpus[i].can, 'w');
            if (k->does != corpus[i].does || hf_pg_class_repeatable(c, k) != p ||
                k->wrappable != w) {
                char want[600], have[600];
                name_flags(corpus[i].does, want);
                name_flags(k->does, have);
                print_error("%s\n  want%s, %s\n  have%s, %s%s\n", sql, want, corpus[i].can, have,
                            hf_pg_class_repeatable(c, k) ? "p" : "", k->wrappable ? "w" : "");
                failed++;
            }
            hf_pg_class_unref(k);
        }
    }
    assert_int_equal(failed, 0);
    hf_pg_classifier_destroy(c);
}

/* Every flag is in the corpus. */
static void corpus_has_all(void **state)
{
    (void)state;
    uint32_t all = 0;
    for (size_t i = 0; i < HF_ARRAY_LEN(corpus); i++) {
        all |= corpus[i].does;
    }
    assert_int_equal(all, UINT32_MAX);
}

static void names_and_counts(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *name, *settings;
        int n, ends;
        bool begin, end;
    } t[] = {
        {"", "", "", 0, 0, false, false},
        {" ; -- nothing", "", "", 0, 0, false, false},
        {"BEGIN", "", "", 1, 0, true, false},
        {"BEGIN; SELECT 1; COMMIT", "", "", 3, 1, true, true},
        {"SELECT 1; COMMIT; BEGIN; SELECT 2; ROLLBACK; SELECT 3", "", "", 6, 2, false, false},
        {"ROLLBACK TO a", "", "", 1, 0, false, false},
        {"END AND CHAIN", "", "", 1, 1, false, true},
        {"PREPARE TRANSACTION 'Two''s'", "Two's", "", 1, 1, false, true},
        {"PREPARE Foo AS SELECT 1", "foo", "", 1, 0, false, false},
        {"PREPARE \"Foo\"(int) AS SELECT $1", "Foo", "", 1, 0, false, false},
        {"PREPARE a AS SELECT 1; PREPARE b AS SELECT 2", "", "", 2, 0, false, false},
        {"EXECUTE foo(1, 'x')", "foo", "", 1, 0, false, false},
        {"EXPLAIN ANALYZE EXECUTE foo", "foo", "", 1, 0, false, false},
        {"CREATE TABLE x AS EXECUTE foo(1)", "foo", "", 1, 0, false, false},
        {"DEALLOCATE PREPARE FOO", "foo", "", 1, 0, false, false},
        {"DEALLOCATE ALL", "", "", 1, 0, false, false},
        {"DECLARE c CURSOR FOR SELECT 1", "c", "", 1, 0, false, false},
        {"LISTEN Chan", "chan", "", 1, 0, false, false},
        {"UNLISTEN *", "", "", 1, 0, false, false},
        {"DISCARD PLANS", "PLANS", "", 1, 0, false, false},
        {"SET Work_Mem = '1MB'", "", "work_mem ", 1, 0, false, false},
        {"SET app.\"User\" = '1'; RESET datestyle", "", "app.user datestyle ", 2, 0, false, false},
        {"SET TIME ZONE 'UTC'", "", "timezone ", 1, 0, false, false},
        {"RESET ALL", "", "* ", 1, 0, false, false},
        {"DISCARD ALL", "ALL", "* ", 1, 0, false, false},
        {"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "",
         "default_transaction_read_only ", 1, 0, false, false},
        {"SET ROLE x", "", "role ", 1, 0, false, false},
        {"SELECT set_config('App.x', '1', false)", "", "app.x ", 1, 0, false, false},
        {"SELECT set_config('App.y', '1', false)", "", "app.y ", 1, 0, false, false},
        {"SELECT set_config($1, '1', false)", "", "* ", 1, 0, false, false},
        {"SELECT set_config('a'||'b', '1', false)", "", "* ", 1, 0, false, false},
    };
    struct hf_pg_classifier *c = make(100);
    for (size_t i = 0; i < HF_ARRAY_LEN(t); i++) {
        const struct hf_pg_class *k = hf_pg_classify(c, hf_slice_str(t[i].sql));
        assert_int_equal(k->n_statements, t[i].n);
        assert_int_equal(k->n_ends, t[i].ends);
        assert_int_equal(k->first_is_begin, t[i].begin);
        assert_int_equal(k->last_is_end, t[i].end);
        assert_true(hf_slice_eq(k->name, hf_slice_str(t[i].name)));
        char settings[200] = "";
        for (size_t j = 0; j < k->n_settings; j++) {
            strcat(strcat(settings, k->settings[j]), " ");
        }
        assert_string_equal(settings, t[i].settings);
        assert_true(k->n_statements > 0 || (!k->does && !k->wrappable));
        hf_pg_class_unref(k);
    }
    hf_pg_classifier_destroy(c);
}

static void prepared_has_an_inner_class(void **state)
{
    (void)state;
    struct hf_pg_classifier *c = make(100);
    give_list(c, NULL);
    const struct hf_pg_class *k =
        hf_pg_classify(c, hf_slice_str("PREPARE p AS INSERT INTO t VALUES ($1)"));
    assert_int_equal(k->does, D(PREPARE));
    assert_non_null(k->inner);
    assert_int_equal(k->inner->does, W);
    assert_true(k->inner->wrappable);
    const struct hf_pg_class *inner = hf_pg_class_ref(k->inner);
    hf_pg_class_unref(k);
    k = hf_pg_classify(c, hf_slice_str("PREPARE p AS SELECT * FROM t"));
    assert_true(hf_pg_class_repeatable(c, k->inner));
    hf_pg_class_unref(k);
    k = hf_pg_classify(c, hf_slice_str("DEALLOCATE p"));
    assert_null(k->inner);
    hf_pg_class_unref(k);
    hf_pg_classifier_destroy(c); /* classes outlive it */
    assert_int_equal(inner->does, W);
    hf_pg_class_unref(inner);
}

static void execute_has_names_of_its_own(void **state)
{
    (void)state;
    struct hf_pg_classifier *c = make(100);
    give_list(c, NULL);
    static const struct {
        const char *sql;
        bool safe;
    } t[] = {{"EXECUTE p(1, now())", true},
             {"EXECUTE p(nextval('s'))", false},
             {"EXPLAIN EXECUTE p(1)", true},
             {"EXECUTE p((SELECT a FROM a_view))", false}};
    for (size_t i = 0; i < HF_ARRAY_LEN(t); i++) {
        const struct hf_pg_class *k = hf_pg_classify(c, hf_slice_str(t[i].sql));
        assert_int_equal(hf_pg_class_names_safe(c, k), t[i].safe);
        assert_false(hf_pg_class_repeatable(c, k));
        hf_pg_class_unref(k);
    }
    const struct hf_pg_class *k = hf_pg_classify(c, hf_slice_str("SELEKT"));
    assert_false(hf_pg_class_names_safe(c, k));
    hf_pg_class_unref(k);
    hf_pg_classifier_destroy(c);
}

static bool same(const char *a, const char *b)
{
    uint64_t x[2], y[2];
    assert_true(hf_pg_fingerprint(hf_slice_str(a), 1, x));
    assert_true(hf_pg_fingerprint(hf_slice_str(b), 1, y));
    return x[0] == y[0] && x[1] == y[1];
}

static void fingerprints(void **state)
{
    (void)state;
    static const char *const equal[][2] = {
        {"SELECT 1", "SELECT\t42"},
        {"SELECT a FROM t WHERE b = 1", "  SELECT a /* x /* y */ */ FROM t -- z\nWHERE b=  1e-5 "},
        {"SELECT 'a'", "SELECT 'b''c'"},
        {"SELECT 'a'", "SELECT E'b\\'c'"},
        {"SELECT 'a'", "SELECT $$ ' $a$ \" $$"},
        {"SELECT 'a'", "SELECT $x$ $$ $x"
                       "y$ $x$"},
        {"SELECT 'a'", "SELECT 'b'\n  -- more\n 'c'"},
        {"SELECT 'a'", "SELECT E'b' \r\n '\\''"},
        {"SELECT 'a'", "SELECT 'C:\\x\\\\y'"},
        {"SELECT B'1'", "SELECT x'1F'"},
        {"INSERT INTO t VALUES (1,2)", "INSERT INTO t VALUES (1,2,3), (4,5,-6),\n(7,8,9)"},
        {"INSERT INTO t VALUES (1,'a')", "INSERT INTO t VALUES (NULL, DEFAULT), (true,'x')"},
        {"INSERT INTO t VALUES ($1,$2)", "INSERT INTO t VALUES ($1,$2,$3),($4,$5,$6)"},
        {"INSERT INTO t VALUES (now(), 1)",
         "INSERT INTO t VALUES (now(), 5), (now(),7), (now(),8)"},
        {"INSERT INTO t VALUES ('1'::date, 1, (2))",
         "INSERT INTO t VALUES ('2'::date, 1, (2)), ('3'::date, 1, (2))"},
        {"SELECT 1 WHERE a IN (1,2)", "SELECT 2 WHERE a IN (1 , 2,3 , 4)"},
        {"SELECT ARRAY[1,2]", "SELECT ARRAY[1,2,3]"},
    };
    static const char *const different[][2] = {
        {"SELECT a", "SELECT A"}, /* as written */
        {"SELECT a", "SELECT \"a\""},
        {"SELECT \"A\"", "SELECT \"a\""},
        {"SELECT NULL", "SELECT TRUE"},
        {"SELECT 1", "SELECT '1'"},
        {"SELECT a b", "SELECT ab"},
        {"SELECT a - -1", "SELECT a --1"},
        {"SELECT a < -1", "SELECT a <-1"},
        {"SELECT a.5", "SELECT a. 5"},
        {"SELECT f(1)", "SELECT g(1)"},
        {"SELECT (a),(b)", "SELECT (a),(c)"},
        {"SELECT (a),(a)", "SELECT (a) (a)"},
        {"SELECT 'a', b", "SELECT 'a, b'"},
        {"SELECT e 'a'", "SELECT e'a'"},
        {"SELECT a", "SELECT a;"},
        {"SELECT x: :y", "SELECT x::y"},
        {"VALUES (1, 2)", "VALUES (1, +2)"}, /* an operator */
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(equal); i++) {
        if (!same(equal[i][0], equal[i][1])) {
            fail_msg("not the same: %s", equal[i][1]);
        }
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(different); i++) {
        if (same(different[i][0], different[i][1])) {
            fail_msg("the same: %s", different[i][1]);
        }
    }
    static const char *const none[] = {
        "SELECT 'a",       "SELECT E'a\\'", "SELECT \"a",       "SELECT /* /* */",
        "SELECT $a$ $b$",  "SELECT $",      "SELECT 'a\\'",     "SELECT 'a\\'' FROM t",
        "SELECT N'\\''",   "SELECT 1a",     "SELECT 1_000",     "SELECT 0x1F",
        "SELECT $1a",      "SELECT 1)",     "SELECT \\",        "SELECT {",
        "SELECT \x01",     "SELECT \v1",    "SELECT U&\"a\"",   "SELECT U&'\\0061'",
        "SELECT \"a\nb\"", "SELECT N'a'",   "SELECT (1, N'a')",
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(none); i++) {
        uint64_t h[2];
        if (hf_pg_fingerprint(hf_slice_str(none[i]), 1, h)) {
            fail_msg("has a fingerprint: %s", none[i]);
        }
    }
}

/* Another text of the same words: other literals, spaces, comments and rows. */
static void reliteral(struct hf_prng *g, const char *sql, char *out)
{
    static const char *const strings[] = {"'x'",          "''",     "'it''s'",
                                          "E'\\\\ \\' '", "$$;'$$", "$q$ ' $q$",
                                          "'a' \n 'b'",   "'--'",   "'/*'"};
    static const char *const spaces[] = {" ", "\n", " /* ' */ ", " -- \"\n", "\t", "  "};
    for (const char *p = sql; *p;) {
        if (*p == '\'') {
            for (p++; *p != '\'' || p[1] == '\''; p++) {
                p += *p == '\'';
            }
            p++;
            out += sprintf(out, "%s", strings[hf_prng_below(g, HF_ARRAY_LEN(strings))]);
        } else if (*p == ' ') {
            p++;
            out += sprintf(out, "%s", spaces[hf_prng_below(g, HF_ARRAY_LEN(spaces))]);
        } else if (*p >= '1' && *p <= '9' && strchr(" (,=", p[-1])) {
            strtoul(p, (char **)(uintptr_t)&p, 10);
            out += sprintf(out, "%u", 1 + (unsigned)hf_prng_below(g, 1000));
        } else {
            *out++ = *p++;
        }
    }
    *out = '\0';
}

static void other_literals_same_class(void **state)
{
    (void)state;
    struct hf_prng g;
    hf_prng_init(&g, 7);
    struct hf_pg_classifier *c = make(2000);
    give_list(c, NULL);
    int n = 0;
    for (size_t i = 0; i < HF_ARRAY_LEN(corpus); i++) {
        const char *sql = corpus[i].sql;
        uint64_t h[2];
        if (strpbrk(sql, "$\\\"") || strchr(corpus[i].can, 'x') ||
            !hf_pg_fingerprint(hf_slice_str(sql), 1, h)) {
            continue;
        }
        for (int k = 0; k < 20; k++, n++) {
            char other[4096];
            reliteral(&g, sql, other);
            struct hf_pg_classifier *fresh = make(1); /* one that has not seen it */
            give_list(fresh, NULL);
            bool ok = same(sql, other) && does(c, other) == corpus[i].does &&
                      does(fresh, other) == corpus[i].does &&
                      repeatable(c, other) == repeatable(c, sql);
            hf_pg_classifier_destroy(fresh);
            if (!ok) {
                fail_msg("%s\nis not the same as\n%s", other, sql);
            }
        }
    }
    assert_true(n > 2000);
    hf_pg_classifier_destroy(c);
}

static void catalog_decides(void **state)
{
    (void)state;
    const char *sql = "SELECT mine(t.x) FROM t", *plain = "SELECT x FROM t";
    struct hf_pg_classifier *c = make(100);
    assert_false(repeatable(c, plain)); /* no list yet */
    assert_int_equal(does(c, sql), R | FN);
    assert_int_equal(does(c, plain), R);
    give_list(c, NULL);
    assert_true(repeatable(c, plain));
    assert_int_equal(does(c, sql), R | FN);
    const struct hf_pg_class *kept = hf_pg_classify(c, hf_slice_str(sql));
    give_list(c, "f mine");
    assert_int_equal(does(c, sql), R);
    assert_int_equal(kept->does, R | FN);           /* as it was then ... */
    assert_int_equal(hf_pg_class_does(c, kept), R); /* ... and now */
    assert_true(hf_pg_class_repeatable(c, kept));
    hf_pg_catalog_forget(c);
    assert_false(hf_pg_class_repeatable(c, kept));
    assert_int_equal(hf_pg_class_does(c, kept), R | FN);
    assert_false(repeatable(c, plain));
    give_list(c, "f mine"); /* the same as before */
    assert_true(hf_pg_class_repeatable(c, kept));
    give_list(c, "a x");
    assert_false(repeatable(c, "SELECT t.x FROM t"));
    assert_true(repeatable(c, plain));
    assert_int_equal(does(c, "SELECT t.x FROM t"), R | FN);

    hf_pg_catalog_begin(c); /* changes while it is read */
    assert_true(repeatable(c, plain));
    assert_int_equal(hf_pg_catalog_row(c, 'r', hf_slice_str("t")), 0);
    hf_pg_catalog_forget(c);
    hf_pg_catalog_end(c);
    assert_false(repeatable(c, plain));
    give_list(c, NULL);
    assert_true(repeatable(c, plain));

    hf_pg_catalog_begin(c); /* without the operators that need not be named */
    assert_int_equal(hf_pg_catalog_row(c, 'r', hf_slice_str("t")), 0);
    hf_pg_catalog_end(c);
    assert_false(repeatable(c, plain));
    hf_pg_class_unref(kept);
    hf_pg_classifier_destroy(c);
}

static void bad_rows_spoil_a_list(void **state)
{
    (void)state;
    struct hf_pg_classifier *c = make(100);
    assert_true(hf_pg_catalog_wanted(c));
    give_list(c, NULL);
    assert_false(hf_pg_catalog_wanted(c));
    hf_pg_catalog_begin(c);
    assert_true(hf_pg_catalog_row(c, 'z', hf_slice_str("t")) < 0);
    assert_true(hf_pg_catalog_row(c, 'r', hf_slice_str("")) < 0);
    hf_pg_catalog_end(c);
    assert_true(repeatable(c, "SELECT 1 FROM t")); /* the old one is in force */
    hf_pg_catalog_end(c);
    assert_true(hf_pg_catalog_row(c, 'r', hf_slice_str("v")) < 0); /* not begun */
    assert_false(repeatable(c, "SELECT 1 FROM v"));
    hf_pg_catalog_begin(c);
    hf_mem_fail_after(0);
    assert_int_equal(hf_pg_catalog_row(c, 'a', hf_slice_str("x")), -ENOMEM);
    hf_mem_fail_after(-1);
    assert_int_equal(hf_pg_catalog_row(c, 'r', hf_slice_str("v")), 0);
    hf_pg_catalog_end(c);
    assert_false(repeatable(c, "SELECT 1 FROM v"));
    hf_pg_classifier_destroy(c);
}

static void names_that_are_not_ascii(void **state)
{
    (void)state;
    struct hf_pg_classifier *c = make(100);
    give_list(c, "r gr\xc3\xb6\xc3\x9f"
                 "e");
    assert_false(repeatable(c, "SELECT 1 FROM gr\xc3\xb6\xc3\x9f"
                               "e")); /* whose encoding? */
    assert_true(repeatable(c, "SELECT t.gr\xc3\xb6\xc3\x9f"
                              "e FROM t"));
    assert_true(repeatable(c, "SELECT 'gr\xf6\xdf"
                              "e' FROM t"));
    give_list(c, "a gr\xc3\xb6\xc3\x9f"
                 "e");
    assert_false(repeatable(c, "SELECT t.h\xc3\xb6he FROM t"));
    assert_true(hf_pg_encoding_is_readable(hf_slice_str("UTF8")));
    assert_true(hf_pg_encoding_is_readable(hf_slice_str("LATIN1")));
    assert_true(hf_pg_encoding_is_readable(hf_slice_str("EUC_JP")));
    assert_false(hf_pg_encoding_is_readable(hf_slice_str("SJIS")));
    assert_false(hf_pg_encoding_is_readable(hf_slice_str("Shift_JIS_2004")));
    assert_false(hf_pg_encoding_is_readable(hf_slice_str("gb-18030")));
    hf_pg_classifier_destroy(c);
}

static void memory_is_bounded(void **state)
{
    (void)state;
    struct hf_pg_classifier *c = make(10);
    give_list(c, NULL);
    const struct hf_pg_class *kept[100];
    for (int i = 0; i < 100; i++) {
        char sql[100];
        snprintf(sql, sizeof(sql), "SELECT c%d FROM t", i);
        kept[i] = hf_pg_classify(c, hf_slice_str(sql));
        assert_int_equal(does(c, "SELECT hot FROM t"), R);
    }
    const struct hf_pg_class *again = hf_pg_classify(c, hf_slice_str("SELECT c99 FROM t"));
    assert_ptr_equal(again, kept[99]); /* remembered */
    hf_pg_class_unref(again);
    again = hf_pg_classify(c, hf_slice_str("SELECT c0 FROM t"));
    assert_ptr_not_equal(again, kept[0]); /* not any more, but still good */
    hf_pg_class_unref(again);
    for (int i = 0; i < 100; i++) {
        assert_true(hf_pg_class_repeatable(c, kept[i]));
        hf_pg_class_unref(kept[i]);
    }
    hf_pg_classifier_destroy(c);
    c = make(0);
    assert_int_equal(does(c, "SELECT 1"), R);
    assert_int_equal(does(c, "SELECT 1"), R);
    hf_pg_classifier_destroy(c);
}

static void out_of_memory_is_unknown(void **state)
{
    (void)state;
    struct hf_pg_classifier *c;
    hf_mem_fail_after(0);
    assert_int_equal(hf_pg_classifier_create(10, 1, &c), -ENOMEM);
    hf_mem_fail_after(-1);
    const char *sql[] = {"SELECT a.b FROM t", "PREPARE p AS SELECT a FROM t", "SET x = 1",
                         "SELECT set_config('a', 'b', false)"};
    for (size_t i = 0; i < HF_ARRAY_LEN(sql); i++) {
        c = make(10);
        uint32_t good = does(c, sql[i]);
        hf_pg_classifier_destroy(c);
        uint32_t d = 0;
        for (int n = 0; d != good; n++) {
            assert_true(n < 50);
            c = make(10);
            hf_mem_fail_after(n);
            const struct hf_pg_class *k = hf_pg_classify(c, hf_slice_str(sql[i]));
            hf_mem_fail_after(-1);
            d = k->does;
            assert_true(d == good || d & D(UNKNOWN));
            assert_true(d == good || (!k->wrappable && !hf_pg_class_repeatable(c, k)));
            hf_pg_class_unref(k);
            assert_int_equal(does(c, sql[i]), good);
            hf_pg_classifier_destroy(c);
        }
    }
}

static char *repeat(const char *head, const char *a, size_t n, const char *mid, const char *b)
{
    char *s = malloc(strlen(head) + n * (strlen(a) + strlen(b)) + strlen(mid) + 1), *p = s;
    assert_non_null(s);
    p = stpcpy(p, head);
    for (size_t i = 0; i < n; i++) {
        p = stpcpy(p, a);
    }
    p = stpcpy(p, mid);
    for (size_t i = 0; i < n; i++) {
        p = stpcpy(p, b);
    }
    return s;
}

static void deep_and_long(void **state)
{
    (void)state;
    static const struct {
        const char *head, *a, *mid, *b;
        size_t n;
        bool known;
    } t[] = {
        {"SELECT ", "(", "1", ")", 100, true},
        {"SELECT ", "(", "1", ")", 100000, false},
        {"SELECT 1 WHERE a", " OR a", "", "", 1000, true},
        {"SELECT 1 WHERE a", " OR a", "", "", 100000, false},
        {"SELECT 1", "+1", "", "", 300, true},
        {"SELECT 1", "+1", "", "", 4000, false},
        {"SELECT 1", "+1", "", "", 100000, false},
        {"SELECT ", "NOT ", "a", "", 100000, false},
        {"SELECT ", "- ", "a", "", 100000, false},
        {"SELECT ", "(SELECT ", "1", ")", 150, true},
        {"SELECT ", "(SELECT ", "1", ")", 5000, false},
        {"SELECT ", "CASE WHEN ", "a", " THEN b END", 5000, false},
        {"SELECT a", " UNION SELECT a", "", "", 4000, false},
        {"SELECT 1 FROM a", " NATURAL JOIN a", "", "", 100000, false},
        {"SELECT a", "::int", "", "", 100000, false},
        {"SELECT ", "/*", "", "*/", 100000, true},
        {"SELECT 1", "; SELECT 1", "", "", 5000, true},
        {"INSERT INTO t VALUES (1)", ", (1)", "", "", 100000, true},
        {"INSERT INTO t VALUES (1, 'x')", ", (1, 'y')", "", "", 100000, true},
        {"SELECT 1 WHERE a IN (1", ", 1", ")", "", 100000, true},
        {"SELECT a", ", a", "", "", 9000, true},
        {"SELECT 'x", "y", "'", "", 1000000, true},
        {"SELECT 'x", "y", "'", "", 1048576, false},
    };
    struct hf_pg_classifier *c = make(100);
    for (size_t i = 0; i < HF_ARRAY_LEN(t); i++) {
        char *sql = repeat(t[i].head, t[i].a, t[i].n, t[i].mid, t[i].b);
        if (!(does(c, sql) & D(UNKNOWN)) != t[i].known) {
            fail_msg("%s%s...", t[i].head, t[i].a);
        }
        free(sql);
    }
    hf_pg_classifier_destroy(c);
}

static void inserts_tell_where_the_id_is(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        int index; /* -1: none */
    } t[] = {
        {"INSERT INTO orders (a) VALUES (1) RETURNING id", 0},
        {"INSERT INTO orders (a, b) VALUES ($1, 'x'), ($2, 'y') RETURNING b, orders.id AS x", 1},
        {"INSERT INTO s.orders (a) VALUES (1) RETURNING *", 2},
        {"INSERT INTO orders (a) VALUES (1) RETURNING now(), orders.*", 3},
        {"INSERT INTO orders (id, a) VALUES (DEFAULT, 1) RETURNING \"id\"", 0},
        {"INSERT INTO orders (a) VALUES (1) RETURNING a", -1},
        {"INSERT INTO orders (a) VALUES (1) RETURNING id + 1", -1},
        {"INSERT INTO orders (a) VALUES (1)", -1},
        {"INSERT INTO orders VALUES (1) RETURNING id", -1},
        {"INSERT INTO orders (a) SELECT 1 RETURNING id", -1},
        {"INSERT INTO orders (a) VALUES (1) ON CONFLICT DO NOTHING RETURNING id", -1},
        {"INSERT INTO orders (a) OVERRIDING USER VALUE VALUES (1) RETURNING id", -1},
        {"WITH x AS (SELECT 1) INSERT INTO orders (a) VALUES (1) RETURNING id", 0},
        {"INSERT INTO orders (a) VALUES (1) RETURNING id; SELECT 1", -1},
        {"SELECT 1; INSERT INTO orders (a) VALUES (1) RETURNING id", -1},
        {"INSERT INTO t (a) VALUES (1) RETURNING id", -1},
        {"UPDATE orders SET a = 1 RETURNING id", -1},
    };
    struct hf_pg_classifier *c = make(100);
    struct hf_pg_insert insert;
    give_list(c, "s orders\nid\n3");
    for (size_t i = 0; i < HF_ARRAY_LEN(t); i++) {
        const struct hf_pg_class *k = hf_pg_classify(c, hf_slice_str(t[i].sql));
        bool found = hf_pg_class_insert(c, k, &insert);
        if (found != (t[i].index >= 0) || (found && insert.index != t[i].index)) {
            fail_msg("%s: %d", t[i].sql, found ? insert.index : -1);
        }
        assert_true(!found || hf_slice_eq(insert.table, hf_slice_str("orders")));
        assert_true(!found || hf_slice_eq(insert.column, hf_slice_str("id")));
        assert_true(!found || insert.schema.n == (i == 2));
        hf_pg_class_unref(k);
    }
    const struct hf_pg_class *k = hf_pg_classify(c, hf_slice_str(t[0].sql));
    hf_pg_catalog_forget(c);
    assert_false(hf_pg_class_insert(c, k, &insert));
    hf_pg_class_unref(k);
    hf_pg_classifier_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(does_what_it_does),
        cmocka_unit_test(corpus_has_all),
        cmocka_unit_test(names_and_counts),
        cmocka_unit_test(prepared_has_an_inner_class),
        cmocka_unit_test(execute_has_names_of_its_own),
        cmocka_unit_test(fingerprints),
        cmocka_unit_test(other_literals_same_class),
        cmocka_unit_test(catalog_decides),
        cmocka_unit_test(bad_rows_spoil_a_list),
        cmocka_unit_test(names_that_are_not_ascii),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(out_of_memory_is_unknown),
        cmocka_unit_test(deep_and_long),
        cmocka_unit_test(inserts_tell_where_the_id_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
