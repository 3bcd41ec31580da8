/* base/json: what RFC 8259 allows, and nothing else. */
#include "base/json.h"

#include "support/test.h"

static const char *const good[] = {
    "{}",
    " { } ",
    "{\"a\":1}",
    "{\"a\":-0.5e+10,\"b\":[],\"c\":[1,\"x\",null,true,false,{\"d\":{}}]}",
    "{\"\\u00e9\\n\":\"\xc3\xa9\"}",
    "{\"a\" : [ 1 , 2 ] , \"b\" : \"\\\"\" }",
    "{\"a\":[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}",
};

static const char *const bad[] = {
    "",
    " ",
    "[]",
    "1",
    "null",
    "{",
    "}",
    "{}}",
    "{}{}",
    "{a:1}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "{,}",
    "{\"a\":01}",
    "{\"a\":+1}",
    "{\"a\":1.}",
    "{\"a\":.5}",
    "{\"a\":1e}",
    "{\"a\":-}",
    "{\"a\":tru}",
    "{\"a\":\"}",
    "{\"a\":\"\\x\"}",
    "{\"a\":\"\\u12g4\"}",
    "{\"a\":[1,]}",
    "{\"a\":[}",
    "{\"a\":{]}",
    "{\"a\" 1}",
    "{\"a\":\"\xff\"}",
    "{\"a\":\"\xc0\x80\"}",
    "{\"a\":\"\xed\xa0\x80\"}",
    "{\"a\":\"\n\"}",
    "{\"a\":1}x",
    "{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}",
    "{\"",
    "{\"a\\",
    "{\"a\":\"\\\"",
};

static void accepts_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < HF_ARRAY_LEN(good); i++) {
        if (!hf_json_object_ok(hf_slice_str(good[i]))) {
            fail_msg("refused: %s", good[i]);
        }
    }
}

static void refuses_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        if (hf_json_object_ok(hf_slice_str(bad[i]))) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
}

static void refuses_every_truncation(void **state)
{
    (void)state;
    for (size_t i = 0; i < HF_ARRAY_LEN(good); i++) {
        size_t last = strlen(good[i]);
        while (good[i][last - 1] == ' ') {
            last--;
        }
        for (size_t n = 0; n < last; n++) {
            char *exact = malloc(n ? n : 1);
            memcpy(exact, good[i], n);
            assert_false(hf_json_object_ok(hf_slice(exact, n)));
            free(exact);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(accepts_good),
        HF_TEST(refuses_bad),
        HF_TEST(refuses_every_truncation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
