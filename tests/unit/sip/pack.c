/* Tests of sip/pack: what comes out is what went in, wherever the memory is; without memory err. */
#include "sip/pack.h"

#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "test.h"

#define S(text) hf_slice_str(text)

static _Alignas(8) uint8_t elsewhere[65536];

/* As a mailbox would. */
static struct hf_slice moved(struct hf_buf *b)
{
    assert_int_equal(b->err, 0);
    assert_true(b->n <= sizeof(elsewhere));
    memcpy(elsewhere, b->p, b->n);
    size_t n = b->n;
    hf_buf_fini(b);
    return hf_slice(elsewhere, n);
}

static void test_result(void **state)
{
    (void)state;
    struct hf_sip_stored_binding bindings[] = {
        {.aor = S("sip:a@x"),
         .uri = S("sip:a@192.0.2.1"),
         .call_id = S("c1"),
         .cseq = 3,
         .life_s = 60,
         .left_s = 50},
        {.aor = S("sip:a@x"),
         .uri = S("sip:a@192.0.2.2"),
         .params = S("q=0.5"),
         .path = S("<p>"),
         .outbound = true},
    };
    struct hf_sip_kept kept[] = {{.what = 's', .key = S("k"), .data = hf_slice("\0\1\2", 3)}};
    struct hf_sip_result r = {.kind = HF_SIP_OP_LOAD,
                              .done = HF_SIP_OP_DONE,
                              .cookie = 77,
                              .aor = S("sip:a@x"),
                              .have_row = true,
                              .row = {.aor = S("sip:a@x"), .home = 1, .current = 2, .epoch = 9},
                              .binding = bindings,
                              .n_bindings = 2,
                              .kept = kept,
                              .n_kept = 1};
    struct hf_buf b;
    hf_buf_init(&b, 1 << 20);
    hf_sip_pack_result(&b, &r);
    const struct hf_sip_result *g = hf_sip_unpack_result(moved(&b));
    assert_int_equal(g->kind, HF_SIP_OP_LOAD);
    assert_int_equal(g->cookie, 77);
    assert_int_equal(g->row.epoch, 9);
    hf_assert_slice_str(g->row.aor, "sip:a@x");
    assert_int_equal(g->n_bindings, 2);
    hf_assert_slice_str(g->binding[0].uri, "sip:a@192.0.2.1");
    assert_int_equal(g->binding[0].left_s, 50);
    assert_int_equal(g->binding[0].path.n, 0);
    hf_assert_slice_str(g->binding[1].params, "q=0.5");
    assert_true(g->binding[1].outbound);
    assert_int_equal(g->n_kept, 1);
    assert_true(hf_slice_eq(g->kept[0].data, kept[0].data));

    r = (struct hf_sip_result){.kind = HF_SIP_OP_READ, .done = HF_SIP_OP_NONE, .aor = S("b")};
    hf_buf_init(&b, 1 << 20);
    hf_sip_pack_result(&b, &r);
    g = hf_sip_unpack_result(moved(&b));
    hf_assert_slice_str(g->aor, "b");
    assert_int_equal(g->n_bindings + g->n_kept + g->n_binds, 0);

    struct hf_sip_bind binds[] = {
        {.key = S("new")}, {.erase = true, .key = S("k1")}, {.erase = true, .key = S("k22")}};
    r = (struct hf_sip_result){
        .kind = HF_SIP_OP_BIND, .done = HF_SIP_OP_AWAY, .aor = S("b"), .bind = binds, .n_binds = 3};
    hf_buf_init(&b, 1 << 20);
    hf_sip_pack_result(&b, &r);
    g = hf_sip_unpack_result(moved(&b));
    assert_int_equal(g->n_binds, 2); /* what was to be written its home has */
    assert_true(g->bind[0].erase && g->bind[1].erase);
    hf_assert_slice_str(g->bind[0].key, "k1");
    hf_assert_slice_str(g->bind[1].key, "k22");

    hf_buf_init(&b, 1 << 20);
    hf_mem_fail_after(0);
    hf_sip_pack_result(&b, &r);
    hf_mem_fail_after(-1);
    assert_int_equal(b.err, -ENOMEM);
    hf_buf_fini(&b);
}

static void test_feed(void **state)
{
    (void)state;
    struct hf_sip_row rows[] = {{.aor = S("sip:a@x"), .current = 1, .epoch = 2},
                                {.aor = S("sip:bb@x"), .current = 3, .epoch = 4}};
    struct hf_slice deleted[] = {S("sip:c@x")};
    struct hf_sip_feed f = {
        .there = true, .row = rows, .n = 2, .deleted = deleted, .n_deleted = 1, .change = 5};
    struct hf_buf b;
    hf_buf_init(&b, 1 << 20);
    hf_sip_pack_feed(&b, &f);
    const struct hf_sip_feed *g = hf_sip_unpack_feed(moved(&b));
    assert_true(g->there);
    assert_int_equal(g->change, 5);
    hf_assert_slice_str(g->row[1].aor, "sip:bb@x");
    assert_int_equal(g->row[1].epoch, 4);
    hf_assert_slice_str(g->deleted[0], "sip:c@x");
    f = (struct hf_sip_feed){0};
    hf_buf_init(&b, 1 << 20);
    hf_sip_pack_feed(&b, &f);
    assert_int_equal(hf_sip_unpack_feed(moved(&b))->n, 0);
}

static void test_peer(void **state)
{
    (void)state;
    struct hf_sip_peer p = {.name = S("beta"),
                            .host = S("beta.example.org"),
                            .now = {.state = HF_SIP_SERVER_LIVE, .weight = 7},
                            .boot = 9,
                            .at[1] = {.family = HF_AF_INET, .port = 5060}};
    struct hf_buf b;
    hf_buf_init(&b, 1 << 20);
    hf_sip_pack_peer(&b, &p);
    const struct hf_sip_peer *g = hf_sip_unpack_peer(moved(&b));
    hf_assert_slice_str(g->name, "beta");
    hf_assert_slice_str(g->host, "beta.example.org");
    assert_int_equal(g->now.weight, 7);
    assert_int_equal(g->boot, 9);
    assert_int_equal(g->at[1].port, 5060);
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(test_result), HF_TEST(test_feed),
                                       HF_TEST(test_peer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
