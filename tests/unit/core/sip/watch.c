/* core/sip/watch: each scenario as a story of what is sent, stored and erased. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/prng.h"
#include "core/sip/watch.h"
#include "support/test.h"

/* A driver: what it stores, and what it has heard. */
struct rig {
    struct hf_sip_watch *w;
    hf_time now;
    bool db_away, silent; /* silent: NOTIFYs are not answered yet */
    unsigned answer, retry_after;
    uint8_t dump[4096];
    size_t n_dump;
    uint32_t last_sub, last_cseq;
    unsigned n_notify, n_store, n_erase;
    char log[16384];
    size_t n_log;
};

static struct rig rig;

static void begin(const struct hf_sip_watch_conf *conf)
{
    hf_sip_watch_destroy(rig.w);
    memset(&rig, 0, sizeof(rig));
    rig.now = HF_S(1000);
    rig.answer = 200;
    assert_int_equal(hf_sip_watch_create(conf, rig.now, &rig.w), 0);
}

static void end(void)
{
    hf_sip_watch_destroy(rig.w);
    rig.w = NULL;
}

static void note(const struct hf_sip_watch_out *o)
{
    char line[200];
    int n = 0;
    if (o->kind == HF_SIP_WATCH_NOTIFY) {
        n = snprintf(line, sizeof(line), "%.*s %.*s %u/%u %s%s%s %u\n",
                     HF_SLICE_FMT(o->dialog.call_id), HF_SLICE_FMT(o->aor), o->cseq, o->version,
                     hf_sip_sub_state_name(o->state), o->reason ? " " : "",
                     hf_sip_sub_reason_name(o->reason), o->expires_s);
        assert_int_equal(o->version, o->cseq - 1);
    } else {
        n = snprintf(line, sizeof(line), "%.*s %s\n", HF_SLICE_FMT(o->dialog.call_id),
                     hf_sip_watch_out_name(o->kind));
        assert_true(o->aor.n > 0); /* what is stored is stored of an AoR */
        hf_assert_slice_str(o->dialog.watcher, "sip:watcher@x");
    }
    if (rig.n_log + (size_t)n < sizeof(rig.log)) {
        memcpy(rig.log + rig.n_log, line, (size_t)n + 1);
        rig.n_log += (size_t)n;
    }
}

/* All that is to be done now. */
static void run(void)
{
    struct hf_sip_watch_out o;
    while (hf_sip_watch_next(rig.w, rig.now, &o)) {
        note(&o);
        struct hf_wr wr;
        struct hf_slice s;
        switch (o.kind) {
        case HF_SIP_WATCH_STORE:
            rig.n_store++;
            hf_wr_init(&wr, rig.dump, sizeof(rig.dump));
            assert_true(hf_sip_watch_dump(rig.w, o.sub, &wr));
            assert_int_equal(hf_wr_end(&wr, &s), 0);
            rig.n_dump = s.n;
            hf_sip_watch_stored(rig.w, o.sub, !rig.db_away, rig.now);
            break;
        case HF_SIP_WATCH_ERASE:
            rig.n_erase++;
            break;
        case HF_SIP_WATCH_NOTIFY:
            rig.n_notify++;
            rig.last_sub = o.sub;
            rig.last_cseq = o.cseq;
            if (!rig.silent) {
                hf_sip_watch_answered(rig.w, o.sub, o.cseq, rig.answer, rig.retry_after, rig.now);
            }
            break;
        case HF_SIP_WATCH_OUT_COUNT_:
            fail();
        }
    }
    assert_true(hf_sip_watch_deadline(rig.w) > rig.now);
}

/* Time goes on, with whatever is due. */
static void pass(hf_time t)
{
    hf_time until = rig.now + t;
    run();
    for (hf_time d; (d = hf_sip_watch_deadline(rig.w)) <= until;) {
        rig.now = d > rig.now ? d : rig.now;
        run();
    }
    rig.now = until;
}

static void said(const char *what)
{
    assert_string_equal(rig.log, what);
    rig.log[0] = 0;
    rig.n_log = 0;
}

static struct hf_sip_subscribe request(const char *call_id, const char *aor)
{
    return (struct hf_sip_subscribe){
        .package = HF_SIP_PACKAGE_REG,
        .aor = hf_slice_str(aor),
        .dialog = {.call_id = hf_slice_str(call_id),
                   .local_tag = hf_slice_str("ours"),
                   .remote_tag = hf_slice_str("theirs"),
                   .local_uri = hf_slice_str("<sip:ann@x>"),
                   .remote_uri = hf_slice_str("<sip:watcher@x>"),
                   .target = hf_slice_str("sip:watcher@192.0.2.9"),
                   .route = hf_slice_str("<sip:edge;lr>"),
                   .watcher = hf_slice_str("sip:watcher@x")},
        .cseq = 1,
        .has_expires = true,
        .expires_s = 600,
        .authorised = true,
    };
}

static struct hf_sip_subscribed asks(const struct hf_sip_subscribe *in)
{
    struct hf_sip_subscribed a;
    hf_sip_watch_subscribe(rig.w, in, rig.now, &a);
    assert_int_equal(a.status == 200, a.sub != 0);
    return a;
}

static struct hf_sip_subscribed watches(const char *call_id, const char *aor)
{
    struct hf_sip_subscribe in = request(call_id, aor);
    return asks(&in);
}

static void changed(const char *aor)
{
    hf_sip_watch_changed(rig.w, HF_SIP_PACKAGE_REG, hf_slice_str(aor), rig.now);
}

static void test_life(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){0});
    struct hf_sip_subscribed a = watches("w1", "ann");
    assert_int_equal(a.status, 200);
    assert_int_equal(a.expires_s, 600);
    run();
    said("w1 store\nw1 ann 1/0 active 600\n");
    /* changes are told, but not more often than every 5 s */
    changed("ann");
    changed("ben");
    run();
    said("");
    pass(HF_S(4));
    changed("ann");
    said("");
    pass(HF_S(1));
    said("w1 ann 2/1 active 595\n");
    assert_int_equal(hf_sip_watch_counters(rig.w)->merged, 1);
    pass(HF_S(100));
    changed("ann"); /* at once, after so long */
    run();
    said("w1 ann 3/2 active 495\n");
    /* a refresh, with another Contact */
    struct hf_sip_subscribe in = request("w1", "ann");
    in.in_dialog = true;
    in.cseq = 2;
    in.dialog.target = hf_slice_str("sip:watcher@192.0.2.10");
    assert_int_equal(asks(&in).sub, a.sub);
    struct hf_sip_watch_out o;
    assert_true(hf_sip_watch_next(rig.w, rig.now, &o));
    hf_assert_slice_str(o.dialog.target, "sip:watcher@192.0.2.10");
    hf_assert_slice_str(o.dialog.route, "<sip:edge;lr>");
    hf_assert_slice_str(o.dialog.remote_uri, "<sip:watcher@x>");
    assert_int_equal(o.kind, HF_SIP_WATCH_STORE);
    hf_sip_watch_stored(rig.w, o.sub, true, rig.now);
    run();
    said("w1 ann 4/3 active 600\n");
    /* a retransmission gets the same, and no NOTIFY; an older one is out of order */
    assert_int_equal(asks(&in).expires_s, 600);
    in.cseq = 1;
    assert_int_equal(asks(&in).status, 500);
    run();
    said("");
    /* not refreshed */
    pass(HF_S(601));
    said("w1 ann 5/4 terminated timeout 0\nw1 erase\n");
    assert_int_equal(hf_sip_watch_count(rig.w), 0);
    assert_int_equal(hf_sip_watch_counters(rig.w)->expired, 1);
    in.cseq = 9;
    assert_int_equal(asks(&in).status, 481);
    assert_int_equal(hf_sip_watch_deadline(rig.w), HF_NEVER);
    end();
}

static void test_unsubscribe_and_fetch(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){0});
    (void)watches("w1", "ann");
    run();
    struct hf_sip_subscribe in = request("w1", "ann");
    in.in_dialog = true;
    in.cseq = 2;
    in.expires_s = 0;
    assert_int_equal(asks(&in).status, 200);
    assert_int_equal(asks(&in).status, 200); /* the same once more: its answer was lost */
    run();
    said("w1 store\nw1 ann 1/0 active 600\nw1 ann 2/1 terminated timeout 0\nw1 erase\n");
    in = request("w2", "ann");
    in.expires_s = 0;
    assert_int_equal(asks(&in).status, 200);
    run();
    said("w2 ann 1/0 terminated timeout 0\n"); /* nothing stored, nothing to erase */
    assert_int_equal(hf_sip_watch_count(rig.w), 0);
    end();
}

static void test_refusals(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){.subs_max = 3, .per_aor_max = 2});
    struct hf_sip_subscribe in = request("w1", "ann");
    in.package = hf_sip_package_of(hf_slice_str("dialog"));
    assert_int_equal(in.package, HF_SIP_PACKAGE_COUNT_);
    assert_int_equal(asks(&in).status, 489);
    in.has_expires = false; /* it has no default either */
    assert_int_equal(asks(&in).status, 489);
    in.has_expires = true;
    in.package = hf_sip_package_of(hf_slice_str("presence"));
    assert_int_equal(in.package, HF_SIP_PACKAGE_PRESENCE);
    in.expires_s = 59;
    struct hf_sip_subscribed a = asks(&in);
    assert_int_equal(a.status, 423);
    assert_int_equal(a.expires_s, 60);
    in.has_expires = false;
    assert_int_equal(asks(&in).expires_s, 3600);
    assert_int_equal(asks(&in).status, 503); /* that dialog is there */
    in = request("w2", "ann");
    in.expires_s = UINT32_MAX;
    assert_int_equal(asks(&in).expires_s, 7200);
    assert_int_equal(watches("w3", "ann").status, 503);
    in = request("w4", "ben");
    in.has_expires = false;
    assert_int_equal(asks(&in).expires_s, 3761);
    assert_int_equal(watches("w5", "cat").status, 503);
    in = request("w6", "");
    assert_int_equal(asks(&in).status, 503);
    assert_int_equal(hf_sip_watch_counters(rig.w)->full, 4);
    /* the package is part of what it is known by (RFC 6665 4.5.2) */
    in = request("w1", "ann");
    in.in_dialog = true;
    in.cseq = 2;
    assert_int_equal(asks(&in).status, 481);
    end();
}

static void test_pending(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){0});
    struct hf_sip_subscribe in = request("w1", "ann");
    in.authorised = false;
    uint32_t first = asks(&in).sub;
    run();
    changed("ann"); /* not for him */
    pass(HF_S(10));
    said("w1 store\nw1 ann 1/0 pending 600\n");
    hf_sip_watch_authorise(rig.w, first, true, rig.now);
    run();
    said("w1 store\nw1 ann 2/1 active 590\n");
    hf_sip_watch_authorise(rig.w, first, false, rig.now); /* too late */
    hf_sip_watch_authorise(rig.w, 4711, true, rig.now);
    in = request("w2", "ann");
    in.authorised = false;
    hf_sip_watch_authorise(rig.w, asks(&in).sub, false, rig.now);
    run();
    said("w2 store\nw2 ann 1/0 terminated rejected 0\nw2 erase\n");
    end();
}

static void test_answers(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){0});
    (void)watches("w1", "ann");
    rig.silent = true;
    run();
    said("w1 store\nw1 ann 1/0 active 600\n");
    changed("ann"); /* one at a time */
    pass(HF_S(20));
    said("");
    hf_sip_watch_answered(rig.w, rig.last_sub, 1, 100, 0, rig.now);
    hf_sip_watch_answered(rig.w, rig.last_sub, 7, 200, 0, rig.now);
    hf_sip_watch_answered(rig.w, 4711, 1, 200, 0, rig.now);
    run();
    said("");
    hf_sip_watch_answered(rig.w, rig.last_sub, 1, 200, 0, rig.now);
    run();
    said("w1 ann 2/1 active 580\n");
    hf_sip_watch_answered(rig.w, rig.last_sub, 2, 503, 30, rig.now); /* later */
    pass(HF_S(29));
    said("");
    pass(HF_S(1));
    said("w1 ann 3/2 active 550\n");
    hf_sip_watch_answered(rig.w, rig.last_sub, 3, 481, 0, rig.now); /* knows nothing of it */
    run();
    said("w1 erase\n");
    assert_int_equal(hf_sip_watch_count(rig.w), 0);
    assert_int_equal(hf_sip_watch_counters(rig.w)->failed, 1);
    /* it ends while its NOTIFY is under way: the last one follows */
    (void)watches("w2", "ann");
    run();
    hf_sip_watch_gone(rig.w, hf_slice_str("ann"), rig.now);
    run();
    said("w2 store\nw2 ann 1/0 active 600\n");
    hf_sip_watch_answered(rig.w, rig.last_sub, 1, 200, 0, rig.now);
    run();
    said("w2 ann 2/1 terminated noresource 0\n");
    hf_sip_watch_answered(rig.w, rig.last_sub, 2, 408, 0, rig.now);
    run();
    said("w2 erase\n");
    end();
}

/* Our address has just moved on, or the cable is out: nobody is forgotten for that. */
static void test_unsent(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){0});
    (void)watches("w1", "ann");
    run();
    rig.silent = true;
    hf_sip_watch_left(rig.w, hf_slice_str("ann"), rig.now);
    run();
    said("w1 store\nw1 ann 1/0 active 600\nw1 ann 2/1 terminated deactivated 0\n");
    hf_sip_watch_unsent(rig.w, rig.last_sub, 1, rig.now); /* an old one's */
    hf_sip_watch_unsent(rig.w, 4711, 2, rig.now);
    hf_sip_watch_unsent(rig.w, rig.last_sub, 2, rig.now);
    pass(HF_MS(1999));
    said("");
    pass(HF_MS(1));
    said("w1 ann 3/2 terminated deactivated 0\n");
    hf_sip_watch_answered(rig.w, rig.last_sub, 3, 200, 0, rig.now);
    run();
    said("w1 erase\n");
    assert_int_equal(hf_sip_watch_counters(rig.w)->unsent, 1);
    assert_int_equal(hf_sip_watch_counters(rig.w)->failed, 0);
    /* for ever: as if nobody had answered */
    (void)watches("w2", "bob");
    run();
    for (unsigned i = 0; hf_sip_watch_count(rig.w) > 0; i++) {
        assert_true(i < 20);
        hf_sip_watch_unsent(rig.w, rig.last_sub, rig.last_cseq, rig.now);
        pass(HF_S(2));
    }
    assert_int_equal(hf_sip_watch_counters(rig.w)->unsent, 17);
    assert_int_equal(hf_sip_watch_counters(rig.w)->failed, 1);
    end();
}

/* D9, D10: table first, then all are told, at the rate, each once. */
static void test_deactivated_and_paced(void **state)
{
    (void)state;
    enum { N = 1000 };
    begin(&(struct hf_sip_watch_conf){.rate = 100, .per_aor_max = 2000});
    char call_id[N][16];
    for (unsigned i = 0; i < N; i++) {
        snprintf(call_id[i], sizeof(call_id[i]), "w%u", i);
        (void)watches(call_id[i], i % 2 ? "ann" : "ben");
    }
    run(); /* what answers a SUBSCRIBE is not paced */
    assert_int_equal(rig.n_notify, N);
    pass(HF_S(60));
    rig.n_notify = 0;
    hf_sip_watch_left(rig.w, hf_slice_str("ann"), rig.now);
    hf_sip_watch_left(rig.w, hf_slice_str("ann"), rig.now);
    hf_sip_watch_left(rig.w, hf_slice_str("ben"), rig.now);
    for (unsigned s = 1; s < 10; s++) {
        pass(HF_S(1));
        assert_in_range(rig.n_notify, s * 100 - 2, s * 100 + 11);
    }
    pass(HF_S(2));
    assert_int_equal(rig.n_notify, N);
    assert_int_equal(rig.n_erase, N);
    assert_int_equal(hf_sip_watch_count(rig.w), 0);
    assert_int_equal(hf_sip_watch_counters(rig.w)->deactivated, N);
    end();
}

/* S2, D11: another one goes on with what is stored, after the block. */
static void test_in_stead(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){0});
    (void)watches("w1", "ann");
    run();
    changed("ann");
    pass(HF_S(5));
    said("w1 store\nw1 ann 1/0 active 600\nw1 ann 2/1 active 595\n");
    uint8_t dump[4096];
    size_t n = rig.n_dump;
    memcpy(dump, rig.dump, n);
    begin(&(struct hf_sip_watch_conf){0}); /* at the new home */
    assert_int_equal(hf_sip_watch_load(rig.w, hf_slice(dump, n), HF_S(500), true, rig.now), 0);
    run();
    said("w1 store\nw1 ann 129/128 terminated deactivated 0\nw1 erase\n");
    assert_int_equal(hf_sip_watch_counters(rig.w)->in_stead, 1);
    /* or the same one, after a crash: it goes on */
    begin(&(struct hf_sip_watch_conf){0});
    assert_int_equal(hf_sip_watch_load(rig.w, hf_slice(dump, n), HF_S(500), false, rig.now), 0);
    assert_int_equal(hf_sip_watch_load(rig.w, hf_slice(dump, n), HF_S(500), false, rig.now),
                     -EEXIST);
    run();
    said("w1 store\nw1 ann 129/128 active 500\n");
    struct hf_sip_subscribe in = request("w1", "ann");
    in.in_dialog = true;
    in.cseq = 2;
    assert_int_equal(asks(&in).status, 200);
    run();
    said("w1 store\nw1 ann 130/129 active 600\n");
    /* and once more: a block further on */
    memcpy(dump, rig.dump, rig.n_dump);
    n = rig.n_dump;
    begin(&(struct hf_sip_watch_conf){0});
    assert_int_equal(hf_sip_watch_load(rig.w, hf_slice(dump, n), 0, false, rig.now), 0);
    run();
    said("w1 store\nw1 ann 257/256 terminated timeout 0\nw1 erase\n");
    end();
}

/* No number is used before its block is stored. */
static void test_blocks(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){0});
    (void)watches("w1", "ann");
    for (unsigned i = 0; i < 300; i++) {
        changed("ann");
        pass(HF_S(5));
        struct hf_sip_subscribe in = request("w1", "ann");
        if (i % 50 == 0) {
            in.in_dialog = true;
            in.cseq = 2 + i;
            (void)asks(&in);
        }
    }
    assert_true(rig.last_cseq > 290);
    uint32_t reserved = (uint32_t)rig.dump[3] << 24 | (uint32_t)rig.dump[4] << 16 |
                        (uint32_t)rig.dump[5] << 8 | rig.dump[6];
    assert_in_range(reserved, rig.last_cseq, rig.last_cseq + 128 + 32);
    end();
    /* STORE is not answered: after its block it waits */
    begin(&(struct hf_sip_watch_conf){.interval = 1});
    uint32_t sub = watches("w1", "ann").sub;
    struct hf_sip_watch_out o;
    assert_true(hf_sip_watch_next(rig.w, rig.now, &o));
    assert_false(hf_sip_watch_next(rig.w, rig.now, &o));
    hf_sip_watch_stored(rig.w, sub, true, rig.now);
    for (unsigned i = 0; i < 1000; i++) {
        rig.now += HF_S(1) / 10;
        changed("ann");
        while (hf_sip_watch_next(rig.w, rig.now, &o)) {
            if (o.kind == HF_SIP_WATCH_NOTIFY) {
                rig.n_notify++;
                hf_sip_watch_answered(rig.w, o.sub, o.cseq, 200, 0, rig.now);
            }
        }
    }
    assert_int_equal(rig.n_notify, 128);
    hf_sip_watch_stored(rig.w, sub, false, rig.now); /* the database is away: it goes on */
    assert_true(hf_sip_watch_next(rig.w, rig.now, &o));
    assert_int_equal(o.cseq, 129);
    assert_int_equal(hf_sip_watch_counters(rig.w)->unstored, 1);
    end();
}

/* Stored in vain, it is said once more, and the watcher is told nothing before; or it is taken back
 * without a word. */
static void test_stored_in_vain(void **state)
{
    (void)state;
    struct hf_sip_watch_out o;
    begin(&(struct hf_sip_watch_conf){0});
    struct hf_sip_subscribed a = watches("w1", "ann");
    assert_true(a.stores);
    for (int i = 0; i < 2; i++) {
        assert_true(hf_sip_watch_next(rig.w, rig.now, &o));
        assert_int_equal(o.kind, HF_SIP_WATCH_STORE);
        assert_false(hf_sip_watch_next(rig.w, rig.now, &o));
        assert_true(hf_sip_watch_store(rig.w, a.sub));
    }
    hf_sip_watch_forget(rig.w, a.sub);
    assert_false(hf_sip_watch_store(rig.w, a.sub));
    assert_int_equal(hf_sip_watch_count(rig.w), 0);
    run();
    assert_int_equal(rig.n_notify, 0);
    assert_int_equal(rig.n_erase, 1);
    hf_sip_watch_forget(rig.w, a.sub); /* there is none any more */
    end();
}

static void test_bad_dumps(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){.subs_max = 1});
    (void)watches("w1", "ann");
    run();
    size_t n = rig.n_dump;
    uint8_t dump[4096];
    memcpy(dump, rig.dump, n);
    struct hf_wr wr;
    assert_false(hf_sip_watch_dump(rig.w, 4711, &wr));
    begin(&(struct hf_sip_watch_conf){.subs_max = 1});
    for (size_t i = 0; i < n; i++) { /* cut off anywhere */
        uint8_t *exact = malloc(i ? i : 1);
        memcpy(exact, dump, i);
        assert_true(hf_sip_watch_load(rig.w, hf_slice(exact, i), HF_S(9), false, rig.now) < 0);
        free(exact);
    }
    dump[n] = 0;
    assert_int_equal(hf_sip_watch_load(rig.w, hf_slice(dump, n + 1), HF_S(9), false, rig.now),
                     -HF_ETRAIL);
    const struct {
        size_t at;
        uint8_t value;
        int rc;
    } bad[] = {{0, 2, -HF_EVERSION}, {1, 9, -HF_EMALF}, {2, 9, -HF_EMALF}, {3, 0x80, -HF_EMALF}};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        uint8_t was = dump[bad[i].at];
        dump[bad[i].at] = bad[i].value;
        assert_int_equal(hf_sip_watch_load(rig.w, hf_slice(dump, n), HF_S(9), false, rig.now),
                         bad[i].rc);
        dump[bad[i].at] = was;
    }
    assert_int_equal(hf_sip_watch_counters(rig.w)->malformed, n + 1 + HF_ARRAY_LEN(bad));
    assert_int_equal(hf_sip_watch_load(rig.w, hf_slice(dump, n), HF_S(9), false, rig.now), 0);
    dump[18] ^= 1; /* another Call-ID */
    assert_int_equal(hf_sip_watch_load(rig.w, hf_slice(dump, n), HF_S(9), false, rig.now),
                     -HF_EFULL);
    end();
}

/* Many come and go at random: nothing is forgotten, nobody is told twice at once. */
static void test_many(void **state)
{
    (void)state;
    enum { N = 300 };
    struct hf_prng g;
    bool there[N] = {false};
    uint32_t cseq[N] = {0};
    hf_prng_init(&g, 11);
    begin(&(struct hf_sip_watch_conf){.rate = 1000});
    for (unsigned i = 0; i < 20000; i++) {
        unsigned k = (unsigned)hf_prng_below(&g, N);
        char call_id[16], aor[16];
        snprintf(call_id, sizeof(call_id), "w%u", k);
        snprintf(aor, sizeof(aor), "aor%u", k % 20);
        struct hf_sip_subscribe in = request(call_id, aor);
        rig.answer = hf_prng_below(&g, 50) ? 200 : 481;
        rig.retry_after = 0;
        switch (hf_prng_below(&g, 6)) {
        case 0:
        case 1:
            in.in_dialog = there[k];
            in.cseq = ++cseq[k];
            in.expires_s = 60 + (uint32_t)hf_prng_below(&g, 600);
            there[k] = asks(&in).status == 200;
            break;
        case 2:
            hf_sip_watch_left(rig.w, in.aor, rig.now);
            break;
        default:
            changed(aor);
            break;
        }
        pass((hf_time)hf_prng_below(&g, (uint64_t)HF_S(2)));
        rig.n_log = 0;
    }
    rig.answer = 200;
    pass(HF_S(8000));
    assert_int_equal(hf_sip_watch_count(rig.w), 0);
    assert_int_equal(hf_sip_watch_deadline(rig.w), HF_NEVER);
    end();
}

static void test_no_memory(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){0});
    (void)watches("w0", "ann");
    run();
    size_t n = rig.n_dump;
    for (int64_t k = 0;; k++) {
        struct hf_sip_watch *w = NULL;
        hf_mem_fail_after(k);
        int rc = hf_sip_watch_create(&(struct hf_sip_watch_conf){0}, rig.now, &w);
        rc = rc < 0 ? rc : hf_sip_watch_load(w, hf_slice(rig.dump, n), HF_S(9), false, rig.now);
        struct hf_sip_subscribed a = {.status = 0};
        if (rc == 0) {
            struct hf_sip_subscribe in = request("w1", "ann");
            hf_sip_watch_subscribe(w, &in, rig.now, &a);
            assert_true(a.status == 200 || a.status == 503);
        }
        hf_mem_fail_after(-1);
        assert_true(rc == 0 || rc == -ENOMEM);
        hf_sip_watch_destroy(w);
        if (a.status == 200) {
            break;
        }
    }
    end();
}

/* Which are there, and who may see what. */
static void test_looked_up(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){0});
    struct hf_sip_subscribe in = request("w1", "ann");
    uint32_t sub = asks(&in).sub, of_ann[2];
    struct hf_sip_watch_out o;
    assert_int_equal(hf_sip_watch_find(rig.w, &in.dialog), sub);
    assert_true(hf_sip_watch_get(rig.w, sub, rig.now, &o));
    hf_assert_slice_str(o.aor, "ann");
    hf_assert_slice_str(o.dialog.target, "sip:watcher@192.0.2.9");
    assert_int_equal(o.expires_s, 600);
    assert_true(o.shown);
    in.dialog.event_id = hf_slice_str("2");
    assert_int_equal(hf_sip_watch_find(rig.w, &in.dialog), 0);
    assert_false(hf_sip_watch_get(rig.w, sub + 1, rig.now, &o));
    in.authorised = false;
    assert_int_not_equal(asks(&in).sub, 0);
    assert_int_equal(hf_sip_watch_subs(rig.w, in.aor, of_ann, 2), 2);
    assert_int_equal(of_ann[0], sub);
    assert_int_equal(hf_sip_watch_subs(rig.w, in.aor, NULL, 0), 2);
    assert_int_equal(hf_sip_watch_subs(rig.w, hf_slice_str("ben"), of_ann, 2), 0);
    /* one that was never authorised ends unseen, wherever it is loaded */
    assert_true(hf_sip_watch_get(rig.w, of_ann[1], rig.now, &o));
    assert_false(o.shown);
    run();
    hf_sip_watch_authorise(rig.w, of_ann[1], false, rig.now);
    struct hf_wr wr;
    struct hf_slice dump;
    hf_wr_init(&wr, rig.dump, sizeof(rig.dump));
    assert_true(hf_sip_watch_dump(rig.w, of_ann[1], &wr));
    assert_int_equal(hf_wr_end(&wr, &dump), 0);
    uint8_t text[4096];
    memcpy(text, dump.p, dump.n);
    for (int in_stead = 0; in_stead < 2; in_stead++) {
        begin(&(struct hf_sip_watch_conf){0});
        assert_int_equal(
            hf_sip_watch_load(rig.w, hf_slice(text, dump.n), HF_S(9), in_stead, rig.now), 0);
        while (hf_sip_watch_next(rig.w, rig.now, &o) && o.kind != HF_SIP_WATCH_NOTIFY) {
            hf_sip_watch_stored(rig.w, o.sub, true, rig.now);
        }
        assert_int_equal(o.state, HF_SIP_SUB_ENDING);
        assert_false(o.shown);
    }
    end();
}

/* The database is away when it begins: stored when that is back. */
static void test_stored_later(void **state)
{
    (void)state;
    begin(&(struct hf_sip_watch_conf){0});
    rig.db_away = true;
    (void)watches("w1", "ann");
    run();
    said("w1 store\nw1 ann 1/0 active 600\n");
    pass(HF_S(25));
    said("w1 store\nw1 store\n");
    rig.db_away = false;
    pass(HF_S(100));
    said("w1 store\n");
    assert_int_equal(hf_sip_watch_counters(rig.w)->unstored, 3);
    end();
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(hf_sip_package_name(HF_SIP_PACKAGE_REG), "reg");
    assert_string_equal(hf_sip_package_name(HF_SIP_PACKAGE_COUNT_), "?");
    assert_string_equal(hf_sip_sub_state_name(HF_SIP_SUB_ENDING), "terminated");
    assert_string_equal(hf_sip_sub_state_name(HF_SIP_SUB_STATE_COUNT_), "?");
    assert_string_equal(hf_sip_sub_reason_name(HF_SIP_SUB_REASON_COUNT_), "?");
    assert_string_equal(hf_sip_watch_out_name(HF_SIP_WATCH_OUT_COUNT_), "?");
    hf_sip_watch_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(test_life),
        HF_TEST(test_unsubscribe_and_fetch),
        HF_TEST(test_refusals),
        HF_TEST(test_pending),
        HF_TEST(test_unsent),
        HF_TEST(test_answers),
        HF_TEST(test_deactivated_and_paced),
        HF_TEST(test_in_stead),
        HF_TEST(test_blocks),
        HF_TEST(test_bad_dumps),
        HF_TEST(test_many),
        HF_TEST(test_no_memory),
        HF_TEST(test_looked_up),
        HF_TEST(test_names),
        HF_TEST(test_stored_later),
        HF_TEST(test_stored_in_vain),
    };
    return cmocka_run_group_tests_name("sip/watch", tests, NULL, NULL);
}
