/* codec/http_request: lines that are requests, and lines that are not. */
#include "codec/http_request.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "support/test.h"

static char line[512];

static int parse_n(const char *text, size_t n, struct hf_http_request *ret_r)
{
    memcpy(line, text, n);
    line[n] = '\0';
    return hf_http_request_parse(line, n, ret_r);
}

static int parse(const char *text, struct hf_http_request *ret_r)
{
    return parse_n(text, strlen(text), ret_r);
}

static void what_a_line_says(void **state)
{
    (void)state;
    struct hf_http_request r;
    assert_int_equal(parse("GET /v1/tree?prefix=%2Fpg%2fmain&x=a+b%2B&empty= HTTP/1.1", &r), 0);
    assert_false(r.head);
    assert_true(r.chunked);
    assert_string_equal(r.path, "/v1/tree");
    assert_string_equal(hf_http_request_query(&r, "prefix"), "/pg/main");
    assert_string_equal(hf_http_request_query(&r, "x"), "a b+");
    assert_string_equal(hf_http_request_query(&r, "empty"), "");
    assert_null(hf_http_request_query(&r, "y"));
    assert_null(hf_http_request_query(&r, "/pg/main")); /* a value is no name */

    assert_int_equal(parse("HEAD /a%20+b%C3%A4 HTTP/1.0", &r), 0);
    assert_true(r.head);
    assert_false(r.chunked);
    assert_string_equal(r.path, "/a +b\xc3\xa4");
    assert_null(hf_http_request_query(&r, "prefix"));
    assert_int_equal(parse("GET /? HTTP/1.1", &r), 0);
    assert_null(hf_http_request_query(&r, ""));
    assert_int_equal(parse("GET /?a=1&a=2&b=c=d HTTP/1.1", &r), 0);
    assert_string_equal(hf_http_request_query(&r, "a"), "1");
    assert_string_equal(hf_http_request_query(&r, "b"), "c=d");
}

static void what_is_no_request(void **state)
{
    (void)state;
    struct hf_http_request r;
    const char *other[] = {"",
                           " ",
                           "GET",
                           "GET /",
                           "GET / HTTP/2",
                           "GET / HTTP/1.1 ",
                           "GET  / HTTP/1.1",
                           "GET / x HTTP/1.1",
                           "GET\t/\tHTTP/1.1",
                           "GET / http/1.1"};
    for (size_t i = 0; i < HF_ARRAY_LEN(other); i++) {
        assert_int_equal(parse(other[i], &r), -HF_EPROTO);
    }
    assert_int_equal(parse_n("GET /\0 HTTP/1.1", 15, &r), -HF_EPROTO);
    assert_int_equal(parse("HEAD * HTTP/1.0", &r), -HF_EVALUE);
    assert_true(r.head && !r.chunked && !r.path);
    const char *method[] = {"POST / HTTP/1.1", "get / HTTP/1.1", " / HTTP/1.1", "HEADS / HTTP/1.1"};
    for (size_t i = 0; i < HF_ARRAY_LEN(method); i++) {
        assert_int_equal(parse(method[i], &r), -ENOTSUP);
    }
    const char *target[] = {"v1",      "*",       "http://a/", "/%",      "/%4",   "/%4g", "/%00",
                            "/%0a",    "/%7f",    "/\x80",     "/\x01",   "/?a",   "/?=b", "/?&",
                            "/?a=b&&", "/?a&b=c", "/?a=%",     "/?a=%00", "/?%0=1"};
    for (size_t i = 0; i < HF_ARRAY_LEN(target); i++) {
        char text[64];
        snprintf(text, sizeof(text), "GET %s HTTP/1.1", target[i]);
        assert_int_equal(parse(text, &r), -HF_EVALUE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_line_says),
        cmocka_unit_test(what_is_no_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
