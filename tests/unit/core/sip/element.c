/* core/sip/element: what is dispatched where; rows, the feed, time, and what is shown. */
#include "core/sip/element.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "support/sip_element_rig.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define ANN "sip:ann@example.com"
#define CONTACT "Contact: <sip:ann@192.0.2.1:5060>\r\n"

static struct rig r;
static char text[4096];

static void send(const char *method, const char *uri, const char *to, const char *more,
                 unsigned cseq)
{
    rig_request(text, sizeof(text), method, uri, to, more, cseq);
    rig_in(&r, text);
}

static void registered(void)
{
    rig_row(&r, ANN, "alpha", 1);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0); /* LOAD: nothing */
    send("REGISTER", "sip:example.com", ANN, CONTACT, 1);
    assert_non_null(rig_asked(&r, HF_SIP_OP_BIND));
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
}

static void owners(void **state)
{
    (void)state;
    static struct hf_sip_msg m;
    unsigned by = hf_sip_element_owner_aor(S(ANN), 7);
    assert_true(by < 7);
    assert_int_equal(hf_sip_element_owner_aor(S(ANN), 1), 0);
    /* REGISTER by To; what a redirect made of the URI is the same user's */
    rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN, "", 1);
    assert_int_equal(hf_sip_parse(hf_slice_str(text), false, &m), 0);
    assert_int_equal(hf_sip_element_owner(&m, 7), by);
    assert_int_equal(hf_sip_element_owner(&m, 1), 0);
    rig_request(text, sizeof(text), "INVITE", "sip:%61nn@10.0.0.2:5070;hf=4.5", "sip:x@h", "", 1);
    assert_int_equal(hf_sip_parse(hf_slice_str(text), false, &m), 0);
    assert_int_equal(hf_sip_element_owner(&m, 7), by);
    /* dialogs of a worker's own */
    rig_request(text, sizeof(text), "SUBSCRIBE", "sip:10.0.0.1;hfw=6", ANN, "", 1);
    assert_int_equal(hf_sip_parse(hf_slice_str(text), false, &m), 0);
    assert_int_equal(hf_sip_element_owner(&m, 7), 6);
    assert_true(hf_sip_element_owner(&m, 3) < 3);
    /* responses by their branch */
    assert_int_equal(
        hf_sip_parse(S("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: "
                       "<sip:a@h>;tag=1\r\nTo: <sip:a@h>\r\nCall-ID: c\r\nCSeq: 1 BYE\r\n\r\n"),
                     false, &m),
        0);
    assert_int_equal(hf_sip_element_owner(&m, 3), 3); /* a stateless one's: whoever has it */
    assert_int_equal(hf_sip_element_owner(&m, 1), 0);
    /* and of rubbish somebody's, too */
    assert_int_not_equal(hf_sip_parse(S("HELLO\r\n\r\n"), false, &m), 0);
    assert_true(hf_sip_element_owner(&m, 3) < 3);
}

static void creates(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    static const struct hf_sip_element_ops ops;
    struct hf_sip_element *e = NULL;
    struct hf_sip_listen listen[3];
    memcpy(listen, c.listen, sizeof(listen));
    c.n_listen = 0;
    assert_int_equal(hf_sip_element_create(&c, &ops, NULL, 0, 0, &e), -HF_EVALUE);
    c.n_listen = 1;
    c.listen = listen;
    listen[0].host = S("no host");
    assert_int_equal(hf_sip_element_create(&c, &ops, NULL, 0, 0, &e), -HF_EVALUE);
    listen[0].host = S("10.0.0.1:5060");
    assert_int_equal(hf_sip_element_create(&c, &ops, NULL, 0, 0, &e), -HF_EVALUE);
    c = rig_conf();
    c.name = S("");
    assert_int_not_equal(hf_sip_element_create(&c, &ops, NULL, 0, 0, &e), 0);
    c = rig_conf();
    int rc = -1;
    for (int64_t i = 0; i < 100 && rc; i++) { /* the nth allocation fails */
        hf_mem_fail_after(i);
        rc = hf_sip_element_create(&c, &ops, NULL, 0, 0, &e);
        hf_mem_fail_after(-1);
    }
    assert_int_equal(rc, 0);
    hf_sip_element_destroy(e);
    hf_sip_element_destroy(NULL);
}

static void refusals(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    send("OPTIONS", "sip:example.com", "sip:example.com", "", 1);
    assert_int_equal(rig_status(&r, 0), 200);
    assert_non_null(strstr(rig_out(&r, 0), "\r\nAllow: OPTIONS"));
    send("INVITE", "sip:10.0.0.1", "sip:10.0.0.1", "", 2);
    assert_int_equal(rig_status(&r, 0), 405);
    assert_non_null(strstr(rig_out(&r, 0), "\r\nAllow: "));
    send("INVITE", "mailto:a@b", ANN, "", 3);
    assert_int_equal(rig_status(&r, 0), 416);
    send("MESSAGE", ANN, ANN, "Proxy-Require: magic\r\n", 4);
    assert_int_equal(rig_status(&r, 0), 420);
    assert_non_null(strstr(rig_out(&r, 0), "\r\nUnsupported: magic\r\n"));
    send("REGISTER", "sip:example.com", "sip:ann@elsewhere.org", CONTACT, 5);
    assert_int_equal(rig_status(&r, 0), 404);
    send("REGISTER", "sip:example.com", "sip:example.com", CONTACT, 6);
    assert_int_equal(rig_status(&r, 0), 404);
    send("BYE", "sip:nobody@example.com", ANN ">;tag=x <", "", 7);
    assert_int_equal(rig_status(&r, 0), 400);
    send("BYE", "sip:nobody@example.com", "sip:nobody@example.com>;tag=1;x=<", "", 8);
    send("CANCEL", ANN, ANN, "", 9);
    assert_int_equal(rig_status(&r, 0), 481);
    send("ACK", ANN, ANN, "", 10);
    assert_int_equal(r.n_sent, 0);
    rig_in(&r, "GARBAGE\n\n");
    assert_int_equal(r.n_sent, 0);
    rig_in(&r, "SIP/2.0 200 OK\n\n");
    assert_int_equal(r.n_sent, 0);
    const struct hf_sip_element_counters *n = hf_sip_element_counters(r.e);
    assert_int_equal(n->requests, 11);
    assert_int_equal(n->responses, 1);
    assert_true(n->malformed >= 3);
    hf_sip_element_shed(r.e, HF_SIP_SHED_NEW);
    send("MESSAGE", ANN, ANN, "", 12);
    assert_int_equal(rig_status(&r, 0), 503);
    assert_non_null(strstr(rig_out(&r, 0), "\r\nRetry-After: "));
    rig_close(&r);
}

/* First sight: read, assigned, bound. */
static void first_sight(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    rig_peer(&r, "beta", HF_SIP_SERVER_DEAD, false);
    rig_peer(&r, "gamma", HF_SIP_SERVER_DEAD, false);
    send("REGISTER", "sip:example.com", ANN, CONTACT, 1);
    assert_non_null(rig_asked(&r, HF_SIP_OP_READ));
    assert_int_equal(r.n_sent, 0);
    rig_answer(&r, HF_SIP_OP_NONE, NULL, 0);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_ASSIGN);
    assert_non_null(op);
    assert_int_equal(op->row.epoch, 1);
    assert_int_equal(op->row.current, 0);
    rig_answer(&r, HF_SIP_OP_DONE, "alpha", 1);
    op = rig_asked(&r, HF_SIP_OP_BIND); /* nothing to load of who is new */
    assert_non_null(op);
    assert_true(op->wait);
    assert_int_equal(op->epoch, 1);
    assert_int_equal(op->n_binds, 1);
    assert_int_equal(r.n_sent, 0);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
    assert_non_null(
        strstr(rig_out(&r, 0), "\r\nContact: <sip:ann@192.0.2.1:5060>;expires=3600\r\n"));
    struct hf_sip_element_info info;
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.rows, 1);
    assert_int_equal(info.bindings, 1);
    assert_int_equal(info.waiting, 0);
    rig_close(&r);
}

/* The feed: gained rows are loaded; calls wait for it; lost ones are forgotten. */
static void gained_and_lost(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    struct hf_sip_stored_binding b = {.aor = S(ANN),
                                      .uri = S("sip:ann@192.0.2.1:5060"),
                                      .call_id = S("c"),
                                      .cseq = 1,
                                      .life_s = 600,
                                      .left_s = 300};
    rig_open(&r, &c);
    rig_row(&r, ANN, "alpha", 3); /* given to us by another server: ours before anybody asks */
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_LOAD);
    assert_non_null(op);
    uint64_t cookie = op->cookie;
    struct hf_sip_element_info info;
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.rows, 1);
    send("MESSAGE", ANN, ANN, "", 1);
    assert_int_equal(r.n_sent, 0);
    struct hf_sip_result res = {.kind = HF_SIP_OP_LOAD,
                                .done = HF_SIP_OP_DONE,
                                .cookie = cookie,
                                .aor = S(ANN),
                                .binding = &b,
                                .n_bindings = 1};
    hf_sip_element_done(r.e, &res, r.now);
    assert_int_equal(strncmp(rig_out(&r, 0), "MESSAGE sip:ann@192.0.2.1:5060", 30), 0);
    assert_int_equal(hf_sip_element_counters(r.e)->loaded, 1);
    assert_int_equal(hf_sip_element_counters(r.e)->forked, 1);
    rig_row(&r, ANN, "beta", 4);
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.bindings, 0);
    assert_int_equal(hf_sip_element_counters(r.e)->left, 1);
    /* gained, and lost while it is being loaded: who waits is sent on */
    rig_row(&r, ANN, "alpha", 5);
    send("MESSAGE", ANN, ANN, "", 2);
    assert_int_equal(r.n_sent, 0);
    rig_row(&r, ANN, "beta", 6);
    assert_int_equal(rig_status(&r, 0), 302);
    hf_sip_element_done(r.e, &res, r.now); /* late, and nobody's */
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.bindings, 0);
    /* it was another one's while we heard nothing: what that stored is ours to know */
    rig_row(&r, ANN, "alpha", 7);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    rig_row(&r, ANN, "alpha", 8); /* this was not */
    assert_int_equal(r.n_ops, 0);
    rig_row(&r, ANN, "alpha", 10);
    assert_non_null(rig_asked(&r, HF_SIP_OP_LOAD));
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    /* so its watchers must hear, and what was unregistered there is none any more */
    rig_pass(&r, HF_S(1));
    r.n_ops = r.n_sent = 0;
    send("REGISTER", "sip:example.com", ANN, CONTACT, 3);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    send("SUBSCRIBE", ANN, ANN, "Event: presence\r\nContact: <sip:ben@192.0.2.2>\r\n", 4);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    rig_reply(&r, 200); /* to its first NOTIFY */
    rig_pass(&r, HF_S(10));
    r.n_ops = r.n_sent = 0;
    rig_row(&r, ANN, "alpha", 12);
    assert_non_null(strstr(rig_out(&r, 0), "Subscription-State: terminated;reason=deactivated"));
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.bindings, 0);
    res.cookie = rig_asked(&r, HF_SIP_OP_LOAD)->cookie;
    r.n_ops = 0;
    rig_row(&r, ANN, "alpha", 14); /* and again: what was being loaded may be older */
    cookie = rig_asked(&r, HF_SIP_OP_LOAD)->cookie;
    send("MESSAGE", ANN, ANN, "", 5);
    hf_sip_element_done(r.e, &res, r.now);
    assert_int_equal(r.n_sent, 0);
    res.cookie = cookie;
    hf_sip_element_done(r.e, &res, r.now);
    assert_int_equal(strncmp(rig_out(&r, 0), "MESSAGE sip:ann@192.0.2.1:5060", 30), 0);
    /* a user who is deleted */
    rig_row(&r, ANN, "alpha", 15);
    struct hf_slice gone = S(ANN);
    hf_sip_element_feed(r.e, &(struct hf_sip_feed){.there = true, .deleted = &gone, .n_deleted = 1},
                        r.now);
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.rows, 0);
    rig_close(&r);
}

/* A LOAD that fails is tried again; what waited is told to come again. */
static void load_fails(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    rig_row(&r, ANN, "alpha", 3);
    struct hf_sip_result res = {.kind = HF_SIP_OP_LOAD,
                                .done = HF_SIP_OP_AWAY,
                                .cookie = rig_asked(&r, HF_SIP_OP_LOAD)->cookie,
                                .aor = S(ANN)};
    send("MESSAGE", ANN, ANN, "", 1);
    hf_sip_element_done(r.e, &res, r.now);
    assert_int_equal(rig_status(&r, 0), 503);
    rig_pass(&r, HF_S(2));
    assert_non_null(rig_asked(&r, HF_SIP_OP_LOAD));
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    send("MESSAGE", ANN, ANN, "", 2);
    assert_int_equal(rig_status(&r, 0), 480);
    assert_int_equal(hf_sip_element_counters(r.e)->not_found, 2);
    rig_close(&r);
}

/* Many rows at once: a bounded number of LOADs is under way. */
static void mass(void **state)
{
    (void)state;
    static struct hf_sip_row rows[1000];
    static char names[1000][40];
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    for (int i = 0; i < 1000; i++) {
        snprintf(names[i], sizeof(names[i]), "sip:u%d@example.com", i);
        rows[i] = (struct hf_sip_row){.aor = hf_slice_str(names[i]), .epoch = 2};
    }
    r.n_ops = 0;
    hf_sip_element_feed(r.e, &(struct hf_sip_feed){.there = true, .row = rows, .n = 1000}, r.now);
    assert_int_equal(r.n_ops, 256);
    static struct rig_op op[256];
    memcpy(op, r.op, sizeof(op));
    for (int i = 0; i < 256; i++) { /* as each is done, the next one is asked for */
        r.op[0] = op[i];
        r.n_ops = 1;
        rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
        assert_int_equal(r.n_ops, 1);
    }
    assert_int_equal(hf_sip_element_counters(r.e)->loaded, 256);
    rig_close(&r);
}

/* A watcher at the home: told at once, told of changes, told to come again when the AoR has moved.
 */
static void watchers(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    registered();
    rig_from(&r, 2, HF_SIP_TRANSPORT_UDP, 0);
    send("SUBSCRIBE", ANN, ANN, "Event: presence\r\nContact: <sip:ben@192.0.2.2>\r\n", 7);
    assert_int_equal(r.n_sent, 0);
    assert_non_null(rig_asked(&r, HF_SIP_OP_KEEP)); /* first it is kept, then granted and told */
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
    static char notify[8192];
    snprintf(notify, sizeof(notify), "%s", rig_out(&r, 1));
    assert_int_equal(strncmp(notify, "NOTIFY sip:ben@192.0.2.2 SIP/2.0\r\n", 34), 0);
    assert_non_null(strstr(notify, "Subscription-State: active"));
    assert_non_null(strstr(notify, "Contact: <sip:10.0.0.1;hfw=0>"));
    struct hf_sip_element_info info;
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.subs, 1);
    /* its answer finds its transaction */
    rig_reply(&r, 200);
    rig_row(&r, ANN, "beta", 9);
    if (r.n_sent == 0) {
        rig_pass(&r, HF_S(1));
    }
    assert_non_null(strstr(rig_out(&r, 0), "Subscription-State: terminated;reason=deactivated"));
    rig_close(&r);
}

/* What is granted is stored: the 200 waits for it, and may turn out to be another server's to give.
 */
static void granted_when_stored(void **state)
{
    (void)state;
    static const char *const more = "Event: presence\r\nContact: <sip:ben@192.0.2.2>\r\n";
    struct hf_sip_element_conf c = rig_conf();
    struct hf_sip_element_info info;
    rig_open(&r, &c);
    registered();
    send("SUBSCRIBE", ANN, ANN, more, 7);
    assert_int_equal(r.n_sent, 0);
    rig_answer(&r, HF_SIP_OP_STALE, "alpha", 2); /* it has changed, and is still ours */
    assert_int_equal(r.n_sent, 0);
    assert_non_null(rig_asked(&r, HF_SIP_OP_KEEP));
    assert_int_equal(rig_asked(&r, HF_SIP_OP_KEEP)->epoch, 2);
    rig_answer(&r, HF_SIP_OP_STALE, "beta", 3);
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.subs, 0);
    assert_int_equal(r.n_sent, 1);
    assert_int_equal(rig_status(&r, 0), 302); /* off to beta */
    rig_close(&r);

    rig_open(&r, &c);
    registered();
    send("SUBSCRIBE", ANN, ANN, more, 8);
    rig_answer(&r, HF_SIP_OP_AWAY, NULL, 0); /* nobody can say when: at once */
    assert_int_equal(rig_status(&r, 0), 200);
    rig_close(&r);
}

static struct hf_sip_kept watcher; /* one of ann's, as it is stored */

/* Ann goes from beta, which lives, to us: with a watcher in the store, or without. */
static void comes_from_beta(bool watched, uint64_t epoch)
{
    struct hf_sip_result known = {.kind = HF_SIP_OP_ASSERT,
                                  .cookie = 1,
                                  .have_row = true,
                                  .row = {.aor = S(ANN), .home = 1, .current = 1, .epoch = epoch}};
    hf_sip_element_done(r.e, &known, r.now);
    rig_row(&r, ANN, "alpha", epoch + 1);
    rig_loaded(&r, watched ? &watcher : NULL);
}

/* Ann comes, and we do not know from whom: the row was not cached, or has changed since. Some
 * server that lives tells her watchers, as long as nobody is dead. */
static void comes_from_somebody(void)
{
    struct hf_sip_element_conf c = rig_conf();
    for (int k = 0; k < 4; k++) {
        bool cached = k == 1;
        rig_open(&r, &c);
        if (cached) { /* beta's once, but that is long ago */
            struct hf_sip_result known = {
                .kind = HF_SIP_OP_ASSERT,
                .cookie = 1,
                .have_row = true,
                .row = {.aor = S(ANN), .home = 1, .current = 1, .epoch = 2}};
            hf_sip_element_done(r.e, &known, r.now);
        }
        if (k == 2) { /* it may have been his, and he has told nobody */
            rig_peer(&r, "gamma", HF_SIP_SERVER_DEAD, false);
        }
        rig_row(&r, ANN, "alpha", 9);
        rig_loaded(&r, &watcher);
        if (k == 2) {
            assert_non_null(rig_asked(&r, HF_SIP_OP_KEEP));
            rig_close(&r);
            continue;
        }
        assert_int_equal(r.n_ops, 0);
        assert_int_equal(r.n_sent, 0);
        if (k == 3) {
            rig_pass(&r, HF_S(70)); /* whoever it was, he has forgotten */
        } else {
            rig_peer(&r, "gamma", HF_SIP_SERVER_DEAD, false);
        }
        rig_loaded(&r, &watcher);
        assert_non_null(rig_asked(&r, HF_SIP_OP_KEEP));
        rig_close(&r);
    }
}

/* Whose server lives is told by that; if it dies before it has told all, by us (S2). */
static void in_stead(void **state)
{
    (void)state;
    static struct rig_op kept;
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    registered();
    rig_from(&r, 2, HF_SIP_TRANSPORT_UDP, 0);
    send("SUBSCRIBE", ANN, ANN, "Event: presence\r\nContact: <sip:ben@192.0.2.2>\r\n", 7);
    assert_non_null(rig_asked(&r, HF_SIP_OP_KEEP));
    const struct rig_op *op = &r.op[r.n_ops - 1];
    kept = *op;
    watcher = (struct hf_sip_kept){
        .what = op->op.kept.what, .key = op->op.kept.key, .data = op->op.kept.data, .left_s = 3000};
    assert_true(watcher.key.n && watcher.data.n);
    watcher.key.p = (const uint8_t *)kept.text + ((const char *)watcher.key.p - op->text);
    watcher.data.p = (const uint8_t *)kept.text + ((const char *)watcher.data.p - op->text);
    rig_close(&r);
    /* nobody watches: there is nothing to tell */
    rig_open(&r, &c);
    comes_from_beta(false, 2);
    assert_int_equal(r.n_ops, 0);
    rig_peer(&r, "beta", HF_SIP_SERVER_DEAD, false);
    assert_int_equal(r.n_ops, 0);
    rig_peer(&r, "beta", HF_SIP_SERVER_LIVE, false);
    /* what it had to tell when it died it has forgotten, also if we hear of the move only now */
    comes_from_beta(true, 4);
    assert_non_null(rig_asked(&r, HF_SIP_OP_KEEP));
    rig_close(&r);
    /* one who has not been told yet; the database is away at first */
    rig_open(&r, &c);
    comes_from_beta(true, 4);
    assert_int_equal(r.n_ops, 0);
    assert_int_equal(r.n_sent, 0);
    rig_peer(&r, "gamma", HF_SIP_SERVER_DEAD, false);
    assert_int_equal(r.n_ops, 0);
    rig_peer(&r, "beta", HF_SIP_SERVER_DEAD, false);
    assert_non_null(rig_asked(&r, HF_SIP_OP_LOAD));
    rig_answer(&r, HF_SIP_OP_AWAY, NULL, 0);
    assert_int_equal(r.n_ops, 0);
    send("MESSAGE", ANN, ANN, "", 8); /* is served meanwhile */
    assert_int_equal(rig_status(&r, 0), 480);
    rig_pass(&r, HF_S(3));
    rig_loaded(&r, &watcher);
    assert_non_null(rig_asked(&r, HF_SIP_OP_KEEP));
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    if (r.n_sent == 0) {
        rig_pass(&r, HF_S(1));
    }
    assert_non_null(strstr(rig_out(&r, 0), "Subscription-State: terminated;reason=deactivated"));
    rig_peer(&r, "beta", HF_SIP_SERVER_LIVE, false);
    r.n_ops = 0;
    rig_peer(&r, "beta", HF_SIP_SERVER_DEAD, false); /* once is enough */
    assert_int_equal(r.n_ops, 0);
    rig_close(&r);
    /* it dies while we load; and lives, but has forgotten: after a while we look again */
    rig_open(&r, &c);
    struct hf_sip_result known = {.kind = HF_SIP_OP_ASSERT,
                                  .cookie = 1,
                                  .have_row = true,
                                  .row = {.aor = S(ANN), .home = 1, .current = 1, .epoch = 2}};
    hf_sip_element_done(r.e, &known, r.now);
    rig_row(&r, ANN, "alpha", 3);
    rig_peer(&r, "beta", HF_SIP_SERVER_DEAD, false);
    rig_loaded(&r, &watcher);
    assert_non_null(rig_asked(&r, HF_SIP_OP_KEEP));
    rig_close(&r);
    rig_open(&r, &c);
    comes_from_beta(true, 2);
    rig_pass(&r, HF_S(60));
    assert_int_equal(r.n_ops, 0);
    rig_pass(&r, HF_S(10));
    rig_loaded(&r, &watcher);
    assert_non_null(rig_asked(&r, HF_SIP_OP_KEEP));
    /* gone before its turn */
    comes_from_beta(true, 5);
    rig_row(&r, ANN, "gamma", 7);
    rig_pass(&r, HF_S(100));
    for (size_t i = 0; i < r.n_ops; i++) {
        assert_int_not_equal(r.op[i].op.kind, HF_SIP_OP_LOAD);
    }
    rig_close(&r);
    comes_from_somebody();
}

/* What is decided by what is cached asks nobody for memory. */
static void no_memory(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    registered();
    hf_mem_fail_after(0);
    send("REGISTER", "sip:example.com", ANN, CONTACT, 2);
    assert_int_equal(rig_status(&r, 0), 200);
    hf_mem_fail_after(-1);
    rig_row(&r, ANN, "beta", 2);
    hf_mem_fail_after(0);
    send("REGISTER", "sip:example.com", ANN, CONTACT, 3);
    assert_int_equal(rig_status(&r, 0), 302);
    rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN,
                "Via: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKx\r\n" CONTACT, 4);
    memcpy(strstr(text, "c1@"), "c4@", 3);
    rig_in(&r, text);
    assert_int_equal(strncmp(rig_out(&r, 0), "REGISTER ", 9), 0);
    /* and what does is refused, or answered without */
    send("REGISTER", "sip:example.com", "sip:ben@example.com", CONTACT, 5);
    assert_int_equal(rig_status(&r, 0), 503);
    hf_mem_fail_after(-1);
    rig_close(&r);
}

static void expiry_and_time(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    c.expires_default_s = 60;
    rig_open(&r, &c);
    registered();
    assert_true(hf_sip_element_deadline(r.e) < HF_NEVER);
    rig_pass(&r, HF_S(62));
    struct hf_sip_element_info info;
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.bindings, 0);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_non_null(op);
    assert_false(op->wait);
    assert_true(op->bind[0].erase);
    /* our rows are asserted from time to time */
    bool asserted = false;
    for (int i = 0; i < 700 && !asserted; i++) {
        rig_pass(&r, HF_S(1));
        asserted = rig_asked(&r, HF_SIP_OP_ASSERT);
    }
    assert_true(asserted);
    rig_answer(&r, HF_SIP_OP_DONE, "beta", 9);
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.rows, 0);
    assert_int_equal(info.table, HF_SIP_TABLE_FRESH);
    rig_close(&r);
}

static void shows_and_traces(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    struct hf_buf b;
    rig_open(&r, &c);
    hf_sip_element_trace(r.e, S(ANN));
    registered();
    assert_non_null(strstr(r.traced, "recv"));
    assert_non_null(strstr(r.traced, "serve"));
    assert_non_null(strstr(r.traced, "send"));
    hf_sip_element_trace(r.e, S(""));
    hf_buf_init(&b, 65536);
    hf_sip_element_show(r.e, S(ANN), r.now, &b);
    hf_buf_add(&b, hf_slice("", 1));
    assert_int_equal(b.err, 0);
    assert_string_equal((const char *)b.p,
                        "{\"aor\":\"" ANN "\",\"home\":\"alpha\",\"current\":\"alpha\",\"epoch\":1,"
                        "\"pinned\":false,\"agent\":\"unknown\",\"table\":\"fresh\",\"loading\":"
                        "false,\"bindings\":[{\"contact\":\"sip:ann@192.0.2.1:5060\",\"params\":"
                        "\"\",\"path\":\"\",\"call_id\":\"c1@192.0.2.1\",\"cseq\":1,\"q\":1.000,"
                        "\"left_s\":3600,\"life_s\":3600}]}");
    hf_buf_fini(&b);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owners),
        cmocka_unit_test(creates),
        cmocka_unit_test(refusals),
        cmocka_unit_test(first_sight),
        cmocka_unit_test(gained_and_lost),
        cmocka_unit_test(load_fails),
        cmocka_unit_test(mass),
        cmocka_unit_test(expiry_and_time),
        cmocka_unit_test(watchers),
        cmocka_unit_test(granted_when_stored),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(in_stead),
        cmocka_unit_test(shows_and_traces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
