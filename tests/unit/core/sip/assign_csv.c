/* core/sip/assign_csv: what a file may look like, and what is said of one that may not. */
#include <string.h>

#include "core/sip/assign_csv.h"
#include "support/test.h"

/* Reads lines until one has a row or fails. */
static int read_lines(const char *text, struct hf_sip_csv_row *row, struct hf_err *err)
{
    struct hf_sip_csv c = {0};
    int r = 0;
    while (r == 0 && *text != 0) {
        size_t n = strcspn(text, "\n");
        char *exact = malloc(n + 1); /* so that sanitizers see what is read beyond it */
        memcpy(exact, text, n);
        char *fit = realloc(exact, n ? n : 1);
        r = hf_sip_csv_read(&c, hf_slice(fit, n), row, err);
        free(fit);
        text += n + (text[n] == '\n');
    }
    return r;
}

static void refused(const char *text, int code, const char *words)
{
    struct hf_sip_csv_row row;
    struct hf_err err = {0};
    assert_int_equal(read_lines(text, &row, &err), code);
    assert_int_equal(err.code, code);
    assert_string_equal(err.text, words);
}

static void test_rows(void **state)
{
    (void)state;
    struct hf_sip_csv_row row;
    struct hf_err err;
    assert_int_equal(read_lines("aor,home,current,epoch,pinned\n"
                                "sip:ann@example.org,alpha,beta,3,yes\n",
                                &row, &err),
                     1);
    assert_string_equal(row.aor, "sip:ann@example.org");
    assert_string_equal(row.home, "alpha");
    assert_string_equal(row.current, "beta");
    assert_int_equal(row.epoch, 3);
    assert_true(row.pinned);
    assert_int_equal(read_lines("home,aor\r\n\r\nalpha,\"sip:a,\"\"b\"\"@x\"\r\n", &row, &err), 1);
    assert_string_equal(row.aor, "sip:a,\"b\"@x");
    assert_string_equal(row.current, "alpha");
    assert_int_equal(row.epoch, 0);
    assert_false(row.pinned);
    assert_int_equal(
        read_lines("aor,pinned,home,epoch,current\nx,no,h,9223372036854775807,\n", &row, &err), 1);
    assert_int_equal(row.epoch, INT64_MAX);
    assert_string_equal(row.current, "h");
}

static void test_refusals(void **state)
{
    (void)state;
    refused("aor,server\n", -HF_EMALF,
            "line 1: there is no field \"server\" (aor, home, current, epoch, pinned)");
    refused("aor,aor\n", -HF_EMALF, "line 1, field aor: named twice");
    refused("aor,epoch\n", -HF_EMALF, "line 1: aor and home are needed among the names");
    refused("aor,\"home\n", -HF_EMALF, "line 1: its closing quote is missing");
    refused("\naor,home\nx\n", -HF_EMALF, "line 3, field home: is missing");
    refused("aor,home\nx,h,3\n", -HF_EMALF, "line 2: more fields than the first line names");
    refused("aor,home\nx,A B\n", -HF_ENAME, "line 2, field home: \"A B\" is not a host name");
    refused("aor,home\n,h\n", -HF_EVALUE, "line 2, field aor: is empty");
    refused("aor,home\nx\"y,h\n", -HF_EMALF,
            "line 2, field aor: a quote inside a field that does not begin with one");
    refused("aor,home\n\"x\"y,h\n", -HF_EMALF, "line 2, field aor: text after the closing quote");
    refused("aor,home\nx\ty,h\n", -HF_EMALF, "line 2, field aor: a control character");
    refused("aor,home,epoch\nx,h,9223372036854775808\n", -HF_EVALUE,
            "line 2, field epoch: a number of at most 63 bits was expected");
    refused("aor,home,epoch\nx,h,-1\n", -HF_EVALUE,
            "line 2, field epoch: a number of at most 63 bits was expected");
    refused("aor,home,pinned\nx,h,true\n", -HF_EVALUE,
            "line 2, field pinned: yes or no was expected");
    refused("aor,home,current\nx,h,-\n", -HF_ENAME,
            "line 2, field current: \"-\" is not a host name");
    char text[1024] = "aor,home\n";
    memset(text + 9, 'a', HF_SIP_AOR_MAX + 1);
    strcpy(text + 9 + HF_SIP_AOR_MAX + 1, ",h\n");
    refused(text, -HF_EVALUE, "line 2, field aor: too long");
    memset(text + 9, 'a', 600);
    strcpy(text + 609, ",h\n");
    refused(text, -HF_EMALF, "line 2, field aor: too long");
}

/* A line that is wrong does not keep the next one from being read. */
static void test_goes_on(void **state)
{
    (void)state;
    struct hf_sip_csv c = {0};
    struct hf_sip_csv_row row;
    struct hf_err err;
    assert_int_equal(hf_sip_csv_read(&c, hf_slice_str("aor,home"), &row, &err), 0);
    assert_int_equal(hf_sip_csv_read(&c, hf_slice_str("x,?"), &row, &err), -HF_ENAME);
    assert_int_equal(hf_sip_csv_read(&c, hf_slice_str("y,alpha"), &row, &err), 1);
    assert_string_equal(row.aor, "y");
    assert_int_equal(hf_sip_csv_read(&c, hf_slice_str("z"), &row, NULL), -HF_EMALF);
}

/* What is written is read again as it was. */
static void test_round_trip(void **state)
{
    (void)state;
    const struct hf_sip_csv_row rows[] = {
        {.aor = "sip:ann@example.org", .home = "a", .current = "b", .epoch = 7},
        {.aor = "sip:\"o,k\"@x;y=\"", .home = "a", .current = "a", .epoch = 1, .pinned = true},
        {.aor = "\"", .home = "a", .current = "a", .epoch = INT64_MAX},
    };
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        struct hf_sip_csv_row back;
        struct hf_err err;
        hf_buf_clear(&b);
        hf_sip_csv_write_head(&b);
        hf_sip_csv_write(&b, &rows[i]);
        hf_buf_str(&b, "");
        assert_int_equal(b.err, 0);
        hf_buf_add(&b, hf_slice("", 1));
        assert_int_equal(read_lines((const char *)b.p, &back, &err), 1);
        assert_string_equal(back.aor, rows[i].aor);
        assert_string_equal(back.home, rows[i].home);
        assert_string_equal(back.current, rows[i].current);
        assert_int_equal(back.epoch, rows[i].epoch);
        assert_int_equal(back.pinned, rows[i].pinned);
    }
    hf_buf_fini(&b);
    hf_buf_init(&b, 12); /* no half lines */
    hf_sip_csv_write(&b, &rows[0]);
    assert_int_not_equal(b.err, 0);
    assert_int_equal(b.n, 0);
    hf_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(test_rows),
        HF_TEST(test_refusals),
        HF_TEST(test_goes_on),
        HF_TEST(test_round_trip),
    };
    return cmocka_run_group_tests_name("sip/assign_csv", tests, NULL, NULL);
}
