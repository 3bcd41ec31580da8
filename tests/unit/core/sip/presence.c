/* core/sip/presence: each scenario as a story of what is kept, dropped and told. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/prng.h"
#include "core/sip/presence.h"
#include "support/test.h"

#define DOC(x) "<presence xmlns='urn:ietf:params:xml:ns:pidf'>" x "</presence>"

static struct {
    struct hf_sip_presence *p;
    hf_time now;
    bool db_away;
    char etag[HF_SIP_ETAG_MAX]; /* of the last 200 */
    uint8_t key[16], data[4096];
    size_t n_data;
    char log[8192];
    size_t n_log;
} rig;

static void begin(const struct hf_sip_presence_conf *conf)
{
    hf_sip_presence_destroy(rig.p);
    memset(&rig, 0, sizeof(rig));
    rig.now = HF_S(1000);
    assert_int_equal(hf_sip_presence_create(conf, rig.now, &rig.p), 0);
}

static void finish(void)
{
    hf_sip_presence_destroy(rig.p);
    rig.p = NULL;
}

static void run(void)
{
    struct hf_sip_presence_out o;
    while (hf_sip_presence_next(rig.p, rig.now, &o)) {
        int n = 0;
        char *at = rig.log + rig.n_log;
        size_t room = sizeof(rig.log) - rig.n_log;
        switch (o.kind) {
        case HF_SIP_PRESENCE_KEEP:
            n = snprintf(at, room, "keep %.*s %u\n", HF_SLICE_FMT(o.aor), o.left_s);
            assert_int_equal(o.key.n, sizeof(rig.key));
            memcpy(rig.key, o.key.p, o.key.n);
            assert_true(o.data.n < sizeof(rig.data));
            memcpy(rig.data, o.data.p, o.data.n);
            rig.n_data = o.data.n;
            hf_sip_presence_stored(rig.p, o.aor, o.number, !rig.db_away, rig.now);
            break;
        case HF_SIP_PRESENCE_DROP:
            n = snprintf(at, room, "drop %.*s\n", HF_SLICE_FMT(o.aor));
            assert_int_equal(o.key.n, sizeof(rig.key));
            break;
        case HF_SIP_PRESENCE_CHANGED:
            n = snprintf(at, room, "changed %.*s\n", HF_SLICE_FMT(o.aor));
        }
        assert_true((size_t)n < room);
        rig.n_log += (size_t)n;
    }
    assert_true(hf_sip_presence_deadline(rig.p) > rig.now);
}

static void pass(hf_time t)
{
    hf_time until = rig.now + t;
    run();
    for (hf_time d; (d = hf_sip_presence_deadline(rig.p)) <= until;) {
        rig.now = d > rig.now ? d : rig.now;
        run();
    }
    rig.now = until;
}

static void said(const char *what)
{
    run();
    assert_string_equal(rig.log, what);
    rig.log[0] = 0;
    rig.n_log = 0;
}

/* -1: no Expires. */
static struct hf_sip_published publish(const char *aor, const char *etag, int expires,
                                       const char *body)
{
    static uint32_t count;
    struct hf_sip_publish in = {
        .aor = hf_slice_str(aor),
        .transaction = hf_slice(&count, sizeof(count)),
        .etag = hf_slice_str(etag),
        .has_expires = expires >= 0,
        .expires_s = (uint32_t)expires,
        .body = hf_slice_str(body),
    };
    struct hf_sip_published a, again;
    count++;
    hf_sip_presence_publish(rig.p, &in, rig.now, &a);
    if (a.status == 200) {
        memcpy(rig.etag, a.etag, sizeof(rig.etag));
        if (a.expires_s > 0) { /* retransmitted, it gets the same answer */
            hf_sip_presence_publish(rig.p, &in, rig.now, &again);
            assert_int_equal(again.status, 200);
            assert_int_equal(again.expires_s, a.expires_s);
            assert_string_equal(again.etag, a.etag);
        }
    }
    return a;
}

static void shows(const char *aor, bool reachable, const char *what)
{
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    hf_sip_presence_write(rig.p, hf_slice_str(aor), reachable, &b);
    assert_int_equal(b.err, 0);
    hf_buf_add(&b, hf_slice("", 1));
    assert_non_null(strstr((const char *)b.p, what));
    hf_buf_fini(&b);
}

/* RFC 3903 4 and 6, table 1. */
static void test_life(void **state)
{
    (void)state;
    char first[HF_SIP_ETAG_MAX];
    begin(&(struct hf_sip_presence_conf){.seed = 3});
    shows("ann", false, "<basic>closed</basic>");
    shows("ann", true, "<basic>open</basic>");
    assert_int_equal(publish("ann", "", 600, DOC("<tuple id='a'/>")).expires_s, 600);
    memcpy(first, rig.etag, sizeof(first));
    said("keep ann 600\nchanged ann\n");
    shows("ann", true, DOC("<tuple id='a'/>"));
    assert_int_equal(publish("ann", first, 700, "").expires_s, 700); /* refreshed */
    assert_string_not_equal(rig.etag, first);
    said("keep ann 700\n");
    assert_int_equal(publish("ann", first, 700, "").status, 412); /* of the past */
    assert_int_equal(publish("ben", rig.etag, 700, "").status, 412);
    assert_int_equal(publish("ann", "nonsense", 0, "").status, 412);
    said("");
    assert_int_equal(publish("ann", rig.etag, -1, DOC("<tuple id='b'/>")).expires_s, 3600);
    said("keep ann 3600\nchanged ann\n");
    shows("ann", false, "id='b'");
    assert_int_equal(publish("ann", "", 90, DOC("<tuple id='c'/>")).status, 200);
    said("keep ann 90\nchanged ann\n");
    shows("ann", false, " id='c'/>\n");
    shows("ann", false, " id='b'/>\n");
    assert_int_equal(hf_sip_presence_of(rig.p, hf_slice_str("ann")), 2);
    pass(HF_S(89));
    said("");
    pass(HF_S(1));
    said("drop ann\nchanged ann\n");
    assert_int_equal(publish("ann", rig.etag, 600, "").status, 412); /* over */
    begin(&(struct hf_sip_presence_conf){.seed = 3});
    (void)publish("ann", "", 600, DOC(""));
    struct hf_sip_published a = publish("ann", rig.etag, 0, "");
    assert_int_equal(a.status, 200);
    assert_int_equal(a.expires_s, 0);
    said("drop ann\nchanged ann\n"); /* it was not even kept */
    assert_int_equal(hf_sip_presence_count(rig.p), 0);
    assert_int_equal(hf_sip_presence_deadline(rig.p), HF_NEVER);
    assert_int_equal(hf_sip_presence_counters(rig.p)->removed, 1);
    finish();
}

static void test_refusals(void **state)
{
    (void)state;
    begin(&(struct hf_sip_presence_conf){.publications_max = 3, .per_aor_max = 2});
    assert_int_equal(publish("ann", "", 600, "").status, 400);
    assert_int_equal(publish("ann", "", 600, "hello").status, 400);
    assert_int_equal(publish("", "", 600, DOC("")).status, 400);
    struct hf_sip_published a = publish("ann", "", 59, DOC(""));
    assert_int_equal(a.status, 423);
    assert_int_equal(a.expires_s, 60);
    assert_int_equal(publish("ann", "", 0, DOC("")).status, 200); /* for a moment */
    said("");
    assert_int_equal(publish("ann", "", 100000, DOC("<note>1</note>")).expires_s, 3600);
    assert_int_equal(publish("ann", rig.etag, 600, "<bad>").status, 400);
    (void)publish("ann", "", 600, DOC("<note>2</note>"));
    said("keep ann 3600\nkeep ann 600\nchanged ann\n");
    (void)publish("ann", "", 600, DOC("<note>3</note>")); /* the first one goes */
    said("keep ann 600\ndrop ann\nchanged ann\n");
    shows("ann", false, ">2</note>");
    (void)publish("ben", "", 600, DOC(""));
    assert_int_equal(publish("cat", "", 600, DOC("")).status, 503);
    assert_int_equal(hf_sip_presence_count(rig.p), 3);
    assert_int_equal(hf_sip_presence_counters(rig.p)->refused, 6);
    assert_int_equal(hf_sip_presence_counters(rig.p)->replaced, 1);
    finish();
}

/* D11: another server goes on with what is stored, under the same entity tag. */
static void test_moves(void **state)
{
    (void)state;
    begin(&(struct hf_sip_presence_conf){.seed = 5});
    (void)publish("ann", "", 600, DOC("<note>x</note>"));
    said("keep ann 600\nchanged ann\n");
    uint8_t data[4096], key[16];
    char etag[HF_SIP_ETAG_MAX];
    size_t n = rig.n_data;
    memcpy(data, rig.data, n);
    memcpy(key, rig.key, sizeof(key));
    memcpy(etag, rig.etag, sizeof(etag));
    hf_sip_presence_forget(rig.p, hf_slice_str("ann"));
    hf_sip_presence_forget(rig.p, hf_slice_str("ben"));
    said("");
    assert_int_equal(hf_sip_presence_count(rig.p), 0);
    begin(&(struct hf_sip_presence_conf){.seed = 6});
    const struct hf_slice ann = hf_slice_str("ann"), k = hf_slice(key, sizeof(key));
    assert_int_equal(hf_sip_presence_load(rig.p, ann, k, hf_slice(data, n), 500, rig.now), 0);
    assert_int_equal(hf_sip_presence_load(rig.p, ann, k, hf_slice(data, n), 500, rig.now), 0);
    assert_int_equal(hf_sip_presence_count(rig.p), 1);
    said("changed ann\n");
    shows("ann", false, "<note>x</note>");
    assert_int_equal(publish("ann", etag, 600, "").status, 200);
    assert_true(memcmp(rig.key, key, 16) != 0);
    said("keep ann 600\n");
    assert_memory_equal(rig.key, key, 16);
    /* what is not one */
    begin(&(struct hf_sip_presence_conf){.seed = 6});
    for (size_t i = 0; i < n; i++) {
        uint8_t *exact = malloc(i ? i : 1);
        memcpy(exact, data, i);
        assert_true(hf_sip_presence_load(rig.p, ann, k, hf_slice(exact, i), 9, rig.now) < 0);
        free(exact);
    }
    data[0]++;
    assert_int_equal(hf_sip_presence_load(rig.p, ann, k, hf_slice(data, n), 9, rig.now),
                     -HF_EVERSION);
    data[0]--;
    assert_int_equal(
        hf_sip_presence_load(rig.p, ann, hf_slice(key, 15), hf_slice(data, n), 9, rig.now),
        -HF_EMALF);
    assert_int_equal(hf_sip_presence_load(rig.p, ann, k, hf_slice(data, n), 4096, rig.now),
                     -HF_EMALF);
    data[10] = 'x'; /* no document */
    assert_int_equal(hf_sip_presence_load(rig.p, ann, k, hf_slice(data, n), 9, rig.now), -HF_EMALF);
    assert_int_equal(hf_sip_presence_counters(rig.p)->malformed, n + 4);
    /* of a user who is no more */
    (void)publish("ann", "", 600, DOC(""));
    said("keep ann 600\nchanged ann\n");
    hf_sip_presence_gone(rig.p, ann);
    said("drop ann\n");
    finish();
}

static void test_database_away(void **state)
{
    (void)state;
    begin(&(struct hf_sip_presence_conf){0});
    rig.db_away = true;
    (void)publish("ann", "", 600, DOC(""));
    said("keep ann 600\nchanged ann\n");
    pass(HF_S(11));
    said("keep ann 590\n");
    rig.db_away = false;
    pass(HF_S(60));
    said("keep ann 580\n");
    assert_int_equal(hf_sip_presence_counters(rig.p)->unstored, 2);
    finish();
}

/* Stored in vain, it is given once more at once. */
static void test_stored_in_vain(void **state)
{
    (void)state;
    begin(&(struct hf_sip_presence_conf){0});
    (void)publish("ann", "", 600, DOC(""));
    said("keep ann 600\nchanged ann\n");
    assert_true(hf_sip_presence_store(rig.p, hf_slice_str("ann"), 1));
    pass(0);
    said("keep ann 600\n");
    assert_false(hf_sip_presence_store(rig.p, hf_slice_str("ann"), 2));
    assert_false(hf_sip_presence_store(rig.p, hf_slice_str("ben"), 1));
    finish();
}

/* Against a plain list: who publishes what, until when. */
static void test_random(void **state)
{
    (void)state;
    enum { N = 40 };
    struct {
        char etag[HF_SIP_ETAG_MAX], text[32];
        hf_time until;
    } model[N] = {0};
    struct hf_prng g;
    hf_prng_init(&g, 7);
    begin(&(struct hf_sip_presence_conf){.seed = 9});
    for (unsigned i = 0; i < 5000; i++) {
        unsigned k = (unsigned)hf_prng_below(&g, N);
        char aor[16], body[200];
        snprintf(aor, sizeof(aor), "aor%u", k % 8);
        bool there = model[k].until > rig.now;
        int expires = hf_prng_below(&g, 4) ? 60 + (int)hf_prng_below(&g, 3000) : 0;
        snprintf(body, sizeof(body), DOC("<note>%u-%u</note>"), k, i);
        bool has_body = !there || hf_prng_below(&g, 2);
        struct hf_sip_published a = publish(aor, model[k].etag, expires, has_body ? body : "");
        if (model[k].etag[0] && !there) {
            assert_int_equal(a.status, 412);
            model[k].etag[0] = 0;
        } else {
            assert_int_equal(a.status, 200);
            memcpy(model[k].etag, a.etag, sizeof(a.etag));
            model[k].until = rig.now + HF_S(expires);
            if (has_body) {
                snprintf(model[k].text, sizeof(model[k].text), ">%u-%u<", k, i);
            }
            if (expires == 0) {
                model[k].etag[0] = 0;
            }
        }
        pass((hf_time)hf_prng_below(&g, 20) * HF_S(1));
        rig.n_log = 0;
        size_t n = 0;
        for (unsigned j = 0; j < N; j++) {
            n += model[j].until > rig.now;
            if (model[j].until > rig.now) {
                snprintf(aor, sizeof(aor), "aor%u", j % 8);
                shows(aor, false, model[j].text);
            }
        }
        assert_int_equal(hf_sip_presence_count(rig.p), n);
    }
    pass(HF_S(10000));
    assert_int_equal(hf_sip_presence_count(rig.p), 0);
    assert_int_equal(hf_sip_presence_deadline(rig.p), HF_NEVER);
    finish();
}

static void test_no_memory(void **state)
{
    (void)state;
    for (int64_t k = 0;; k++) {
        struct hf_sip_presence *p = NULL;
        struct hf_sip_published a = {.status = 0};
        struct hf_sip_presence_out o;
        hf_mem_fail_after(k);
        int rc = hf_sip_presence_create(&(struct hf_sip_presence_conf){0}, HF_S(9), &p);
        assert_true(rc == 0 || rc == -ENOMEM);
        for (unsigned i = 0; rc == 0 && i < 2; i++) {
            const struct hf_sip_published before = a;
            const struct hf_sip_publish in = {.aor = hf_slice_str("ann"),
                                              .etag = hf_slice_str(before.etag),
                                              .body = hf_slice_str(DOC(""))};
            hf_sip_presence_publish(p, &in, HF_S(9), &a);
            assert_true(a.status == 200 || a.status == 503);
        }
        hf_mem_fail_after(-1);
        while (p != NULL && hf_sip_presence_next(p, HF_S(9), &o)) {
            assert_true(o.kind == HF_SIP_PRESENCE_KEEP || o.kind == HF_SIP_PRESENCE_CHANGED);
        }
        hf_sip_presence_destroy(p);
        if (a.status == 200) {
            break;
        }
    }
    /* destroyed in the midst of it */
    begin(&(struct hf_sip_presence_conf){0});
    (void)publish("ann", "", 600, DOC(""));
    (void)publish("ann", rig.etag, 0, "");
    (void)publish("ann", "", 600, DOC(""));
    (void)publish("ben", "", 600, DOC(""));
    hf_sip_presence_gone(rig.p, hf_slice_str("ben"));
    finish();
    hf_sip_presence_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(test_life),          HF_TEST(test_refusals),       HF_TEST(test_moves),
        HF_TEST(test_database_away), HF_TEST(test_stored_in_vain), HF_TEST(test_random),
        HF_TEST(test_no_memory),
    };
    return cmocka_run_group_tests_name("sip/presence", tests, NULL, NULL);
}
