/* core/sip/element: a REGISTER's way into the store, and what becomes of it there (S3). */
#include <stdio.h>
#include <string.h>

#include "support/sip_element_rig.h"
#include "support/test.h"

#define ANN "sip:ann@example.com"
#define CONTACT "Contact: <sip:ann@192.0.2.1:5060>\r\n"

static struct rig r;
static char text[4096];

static void send(const char *more, unsigned cseq)
{
    rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN, more, cseq);
    rig_in(&r, text);
}

static void open_rig(void)
{
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    rig_row(&r, ANN, "alpha", 3);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
}

static void held_until_stored(void **state)
{
    (void)state;
    open_rig();
    send(CONTACT, 1);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_non_null(op);
    assert_true(op->wait && op->epoch == 3 && op->n_binds == 1 && !op->bind[0].erase);
    hf_assert_slice_str(op->bind[0].key, "sip:ann@192.0.2.1:5060");
    struct rig_op first = r.op[0];
    assert_int_equal(r.n_sent, 0);
    /* the same binding by another transaction meanwhile: it is no sooner told */
    rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN, CONTACT, 1);
    memcpy(strstr(text, "z9hG4bK"), "z9hG4bk", 7);
    rig_in(&r, text);
    assert_int_equal(r.n_sent, 0);
    op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_non_null(op);
    assert_int_equal(op->n_binds, 0);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
    r.op[0] = first;
    r.n_ops = 1;
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
    /* a refresh is not held, and not stored before a quarter of its life */
    send(CONTACT, 2);
    assert_int_equal(rig_status(&r, 0), 200);
    assert_int_equal(r.n_ops, 0);
    r.now += HF_S(1000);
    send(CONTACT, 3);
    assert_int_equal(rig_status(&r, 0), 200);
    op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_non_null(op);
    assert_false(op->wait);
    /* gone; and what is refused stores nothing */
    send("Contact: *\r\nExpires: 0\r\n", 4);
    op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_true(op->wait && op->bind[0].erase);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
    send("Contact: <sip:ann@192.0.2.1>;expires=5\r\n", 5);
    assert_int_equal(rig_status(&r, 0), 423);
    assert_non_null(strstr(rig_out(&r, 0), "Min-Expires: 60\r\n"));
    assert_int_equal(r.n_ops, 0);
    send("", 6); /* what is there? */
    assert_int_equal(rig_status(&r, 0), 200);
    rig_close(&r);
}

/* The contact is written anew: the old key goes. */
static void keys(void **state)
{
    (void)state;
    open_rig();
    send("Contact: <sip:ann@HOST.example;x=1>\r\n", 1);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    send("Contact: <sip:ann@host.example;x=1>\r\n", 2);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_int_equal(op->n_binds, 2);
    assert_true(op->bind[0].erase);
    hf_assert_slice_str(op->bind[0].key, "sip:ann@HOST.example;x=1");
    hf_assert_slice_str(op->bind[1].key, "sip:ann@host.example;x=1");
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    /* flows by instance and reg-id */
    send("Supported: outbound\r\nContact: <sip:ann@1.1.1.1>;reg-id=2;+sip.instance=\"<i>\"\r\n", 3);
    op = rig_asked(&r, HF_SIP_OP_BIND);
    hf_assert_slice_str(op->bind[0].key, "\"<i>\";reg-id=2");
    rig_close(&r);
}

static void row_changes_meanwhile(void **state)
{
    (void)state;
    struct hf_sip_element_info info;
    open_rig();
    send(CONTACT, 1);
    rig_answer(&r, HF_SIP_OP_STALE, "beta", 4); /* not ours any more: sent on */
    assert_int_equal(rig_status(&r, 0), 302);
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.bindings, 0);
    assert_int_equal(info.waiting, 0);
    rig_row(&r, ANN, "alpha", 5);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    send(CONTACT, 2);
    rig_answer(&r, HF_SIP_OP_STALE, "alpha", 6); /* ours anew: what is stored counts */
    assert_non_null(rig_asked(&r, HF_SIP_OP_LOAD));
    assert_int_equal(r.n_sent, 0);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_non_null(op);
    assert_int_equal(op->epoch, 6);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
    send(CONTACT "Contact: <sip:ann@192.0.2.9>\r\n", 3);
    rig_answer(&r, HF_SIP_OP_STALE, NULL, 0); /* the row is gone */
    assert_non_null(rig_asked(&r, HF_SIP_OP_ASSIGN));
    rig_close(&r);
}

static void away(void **state)
{
    (void)state;
    open_rig();
    send(CONTACT, 1);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    /* the store goes while it is asked: 60 s at most, and it is made good later */
    send("Contact: *\r\nExpires: 0\r\n", 2);
    rig_answer(&r, HF_SIP_OP_AWAY, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
    send("Contact: <sip:ann@192.0.2.5>\r\n", 3);
    rig_answer(&r, HF_SIP_OP_AWAY, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
    assert_non_null(strstr(rig_out(&r, 0), "<sip:ann@192.0.2.5>;expires=60\r\n"));
    rig_feed(&r, false, 0);
    send("Contact: <sip:ann@192.0.2.5>\r\n", 4);
    assert_non_null(strstr(rig_out(&r, 0), ";expires=60\r\n"));
    rig_feed(&r, true, 2);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_non_null(op);
    assert_false(op->wait);
    assert_int_equal(op->n_binds, 2);
    assert_true(op->bind[0].erase);
    hf_assert_slice_str(op->bind[0].key, "sip:ann@192.0.2.1:5060");
    hf_assert_slice_str(op->bind[1].key, "sip:ann@192.0.2.5");
    rig_feed(&r, true, 3);
    assert_null(rig_asked(&r, HF_SIP_OP_BIND));
    rig_close(&r);
}

/* Or he would be called where he is not any more, by the next home. */
static void unregisters_while_away(void **state)
{
    (void)state;
    open_rig();
    send(CONTACT, 1);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    rig_feed(&r, false, 0);
    send("Contact: *\r\nExpires: 0\r\n", 2);
    assert_int_equal(rig_status(&r, 0), 200);
    rig_answer(&r, HF_SIP_OP_AWAY, NULL, 0);
    rig_feed(&r, true, 2);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_non_null(op);
    assert_int_equal(op->n_binds, 1);
    assert_true(op->bind[0].erase);
    hf_assert_slice_str(op->bind[0].key, "sip:ann@192.0.2.1:5060");
    /* and that fails, too, as often as it likes */
    for (uint64_t i = 0; i < 3; i++) {
        rig_answer(&r, HF_SIP_OP_AWAY, NULL, 0);
        rig_feed(&r, false, 0);
        rig_feed(&r, true, 3 + i);
        op = rig_asked(&r, HF_SIP_OP_BIND);
        assert_true(op && op->n_binds == 1 && op->bind[0].erase);
        hf_assert_slice_str(op->bind[0].key, "sip:ann@192.0.2.1:5060");
    }
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    rig_feed(&r, true, 9);
    assert_int_equal(r.n_ops, 0);
    rig_close(&r);
}

/* What comes and goes while the store is away is deleted whole when it is there again. */
static void many_while_away(void **state)
{
    (void)state;
    static bool seen[40];
    char contact[64];
    open_rig();
    rig_feed(&r, false, 0);
    for (unsigned i = 0; i < 80; i++) { /* each twice */
        snprintf(contact, sizeof(contact), "Contact: <sip:ann@192.0.2.%u>\r\n", i % 40);
        send(contact, 1 + 2 * i);
        rig_answer(&r, HF_SIP_OP_AWAY, NULL, 0);
        snprintf(contact, sizeof(contact), "Contact: <sip:ann@192.0.2.%u>;expires=0\r\n", i % 40);
        send(contact, 2 + 2 * i);
        rig_answer(&r, HF_SIP_OP_AWAY, NULL, 0);
    }
    rig_feed(&r, true, 2);
    unsigned n = 0;
    for (size_t i = 0; i < r.n_ops; i++) {
        const struct hf_sip_op *op = &r.op[i].op;
        assert_int_equal(op->kind, HF_SIP_OP_BIND);
        for (size_t k = 0; k < op->n_binds; k++) {
            snprintf(contact, sizeof(contact), "%.*s", HF_SLICE_FMT(op->bind[k].key));
            unsigned last = (unsigned)atoi(strrchr(contact, '.') + 1);
            assert_true(op->bind[k].erase && last < 40 && !seen[last]);
            seen[last] = true;
            n++;
        }
    }
    assert_int_equal(n, 40);
    rig_close(&r);
}

/* Who registers over a connection is called by it, as long as it stands. */
static void connections(void **state)
{
    (void)state;
    open_rig();
    rig_from(&r, 1, HF_SIP_TRANSPORT_TCP, 7);
    send("Contact: <sip:ann@192.0.2.1;transport=tcp>\r\n", 1);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_true(r.sent[0].to.conn == 7);
    rig_from(&r, 2, HF_SIP_TRANSPORT_UDP, 0);
    rig_request(text, sizeof(text), "MESSAGE", ANN, ANN, "", 2);
    rig_in(&r, text);
    assert_int_equal(r.n_sent, 1);
    assert_true(r.sent[0].to.conn == 7);
    /* another connection takes its place */
    rig_from(&r, 1, HF_SIP_TRANSPORT_TCP, 8);
    send("Contact: <sip:ann@192.0.2.1;transport=tcp>\r\n", 3);
    struct hf_sip_flow old = r.from;
    old.conn = 7;
    hf_sip_element_unreachable(r.e, &old, r.now);
    rig_from(&r, 2, HF_SIP_TRANSPORT_UDP, 0);
    rig_request(text, sizeof(text), "MESSAGE", ANN, ANN, "", 4);
    rig_in(&r, text);
    assert_true(r.sent[0].to.conn == 8);
    old.conn = 8;
    r.n_sent = 0;
    hf_sip_element_unreachable(r.e, &old, r.now);
    assert_int_equal(rig_status(&r, 0), 500); /* 503 of the only target (16.7) */
    /* none is left: by its Contact */
    rig_request(text, sizeof(text), "MESSAGE", ANN, ANN, "", 5);
    rig_in(&r, text);
    assert_true(r.sent[0].to.conn == 0);
    assert_int_equal(r.sent[0].to.transport, HF_SIP_TRANSPORT_TCP);
    /* one that turns out to be closed as it is written to */
    rig_from(&r, 1, HF_SIP_TRANSPORT_TCP, 9);
    send("Contact: <sip:ann@192.0.2.1;transport=tcp>\r\n", 6);
    rig_from(&r, 2, HF_SIP_TRANSPORT_UDP, 0);
    r.breaks = 9;
    rig_request(text, sizeof(text), "MESSAGE", ANN, ANN, "", 7);
    rig_in(&r, text);
    unsigned failed = 0;
    for (size_t i = 0; i < r.n_sent; i++) {
        failed += rig_status(&r, i) == 500 && strstr(rig_out(&r, i), "CSeq: 7 MESSAGE");
    }
    assert_int_equal(failed, 1);
    rig_close(&r);
}

static size_t bindings(void)
{
    struct hf_sip_element_info info;
    hf_sip_element_info(r.e, &info);
    return info.bindings;
}

static void closed(uint64_t conn)
{
    struct hf_sip_flow flow = {.transport = HF_SIP_TRANSPORT_TCP, .conn = conn};
    r.n_sent = r.n_ops = 0;
    hf_sip_element_unreachable(r.e, &flow, r.now);
}

static void call(unsigned cseq)
{
    rig_from(&r, 2, HF_SIP_TRANSPORT_UDP, 0);
    rig_request(text, sizeof(text), "MESSAGE", ANN, ANN, "", cseq);
    rig_in(&r, text);
}

#define FLOW(id)                                                                                   \
    "Supported: outbound\r\nContact: <sip:ann@192.0.2.1;transport=tcp>;reg-id=" id                 \
    ";+sip.instance=\"<urn:uuid:0>\"\r\n"

/* What was registered as a flow ends with its connection (RFC 5626), and only that. */
static void flows_end(void **state)
{
    (void)state;
    open_rig();
    rig_from(&r, 1, HF_SIP_TRANSPORT_TCP, 7);
    send("Contact: <sip:ann@192.0.2.1:7000;transport=tcp>\r\n", 1);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    send(FLOW("1"), 2);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    rig_from(&r, 1, HF_SIP_TRANSPORT_TCP, 8);
    send(FLOW("2"), 3);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(bindings(), 3);
    closed(8);
    assert_int_equal(bindings(), 2);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_non_null(op);
    assert_true(op->n_binds == 1 && op->bind[0].erase && !op->wait && op->epoch == 3);
    hf_assert_slice_str(op->bind[0].key, "\"<urn:uuid:0>\";reg-id=2");
    closed(8); /* and no other */
    closed(9);
    assert_int_equal(bindings(), 2);
    assert_int_equal(r.n_ops, 0);
    /* a new connection takes the flow over: the old one's end is nobody's */
    rig_from(&r, 1, HF_SIP_TRANSPORT_TCP, 10);
    send(FLOW("1"), 4);
    closed(7);
    assert_int_equal(bindings(), 2);
    closed(10);
    assert_int_equal(bindings(), 1);
    assert_int_equal(hf_sip_element_counters(r.e)->flows_lost, 2);
    rig_close(&r);
}

/* ... also while the store is away. */
static void ends_while_away(void **state)
{
    (void)state;
    open_rig();
    rig_from(&r, 1, HF_SIP_TRANSPORT_TCP, 8);
    send(FLOW("2"), 3);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    closed(8);
    rig_answer(&r, HF_SIP_OP_AWAY, NULL, 0);
    rig_feed(&r, false, 0);
    rig_feed(&r, true, 2);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_true(op && op->n_binds == 1 && op->bind[0].erase);
    hf_assert_slice_str(op->bind[0].key, "\"<urn:uuid:0>\";reg-id=2");
    rig_close(&r);
}

/* An edge says that the flow is no more: 430. Everything else says nothing of the next call. */
static void flow_failed(void **state)
{
    (void)state;
    static const char edge[] = "Path: <sip:token@192.0.2.50;lr;ob>\r\n" CONTACT;
    static const unsigned stays[] = {408, 503, 480, 404, 500, 603};
    open_rig();
    send(edge, 1);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    for (unsigned i = 0; i < HF_ARRAY_LEN(stays); i++) {
        call(10 + i);
        assert_non_null(strstr(rig_out(&r, 0), "Route: <sip:token@192.0.2.50;lr;ob>\r\n"));
        rig_reply(&r, stays[i]);
        assert_int_equal(bindings(), 1);
        assert_int_equal(r.n_ops, 0);
    }
    /* registered anew while the call is under way: by another flow */
    call(20);
    static struct rig_sent sent;
    sent = r.sent[0];
    rig_from(&r, 1, HF_SIP_TRANSPORT_UDP, 0);
    send(edge, 2);
    assert_int_equal(rig_status(&r, 0), 200);
    r.sent[0] = sent;
    r.n_sent = 1;
    rig_reply(&r, 430);
    assert_int_equal(rig_status(&r, 0), 480);
    assert_int_equal(bindings(), 1);
    call(21);
    rig_reply(&r, 430);
    assert_int_equal(rig_status(&r, 0), 480);
    assert_int_equal(bindings(), 0);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_non_null(op);
    assert_true(op->n_binds == 1 && op->bind[0].erase);
    assert_int_equal(hf_sip_element_counters(r.e)->flows_lost, 1);
    /* one that can be found by its Contact does not end by what its agent says */
    rig_from(&r, 1, HF_SIP_TRANSPORT_UDP, 0);
    send(CONTACT, 3);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    call(22);
    rig_reply(&r, 430);
    assert_int_equal(bindings(), 1);
    rig_close(&r);
}

#define BY_TCP "Contact: <sip:ann@192.0.2.1;transport=tcp>\r\n"

/* Ann is alpha's from now on, and this is what is stored of her. */
static void load(const char *path, uint64_t epoch)
{
    struct hf_sip_stored_binding b = {.aor = hf_slice_str(ANN),
                                      .uri = hf_slice_str("sip:ann@192.0.2.1;transport=tcp"),
                                      .call_id = hf_slice_str("c1@192.0.2.1"),
                                      .path = hf_slice_str(path),
                                      .cseq = 1,
                                      .life_s = 3600,
                                      .left_s = 3600};
    rig_row(&r, ANN, "beta", epoch);
    rig_row(&r, ANN, "alpha", epoch + 1);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_LOAD);
    assert_non_null(op);
    struct hf_sip_result res = {.kind = HF_SIP_OP_LOAD,
                                .cookie = op->cookie,
                                .aor = hf_slice_str(ANN),
                                .binding = &b,
                                .n_bindings = 1};
    hf_sip_element_done(r.e, &res, r.now);
}

static const struct hf_sip_flow *called(unsigned cseq)
{
    rig_from(&r, 2, HF_SIP_TRANSPORT_UDP, 0);
    rig_request(text, sizeof(text), "MESSAGE", ANN, ANN, "", cseq);
    rig_in(&r, text);
    assert_int_equal(r.n_sent, 1);
    return &r.sent[0].to;
}

/* Who registers over a connection, and is another server's afterwards, is found by way of whoever
 * has the connection; or, when that is gone, where his Contact says. */
static void connections_of_others(void **state)
{
    (void)state;
    char way[300], again[300];
    open_rig();
    rig_from(&r, 1, HF_SIP_TRANSPORT_TCP, 7);
    send(BY_TCP, 1);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    snprintf(way, sizeof(way), "%.*s", HF_SLICE_FMT(op->bind[0].b.path));
    assert_int_equal(strncmp(way, "<sip:", 5), 0);
    assert_non_null(strstr(way, "@10.0.0.1;lr;hfc>"));
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    /* a refresh over another one changes nothing but that */
    rig_from(&r, 1, HF_SIP_TRANSPORT_TCP, 8);
    send(BY_TCP, 2);
    assert_int_equal(rig_status(&r, 0), 200);
    op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_non_null(op);
    snprintf(again, sizeof(again), "%.*s", HF_SLICE_FMT(op->bind[0].b.path));
    assert_string_not_equal(again, way);
    send(BY_TCP, 3);
    assert_null(rig_asked(&r, HF_SIP_OP_BIND));
    /* she was beta's for a while */
    load(again, 4);
    assert_true(called(4)->conn == 8);
    /* she came to beta by a connection: that has it */
    load("<sip:0123@10.0.0.2;lr;hfc>", 6);
    assert_int_equal(called(5)->peer.addr[3], 2);
    assert_non_null(strstr(rig_out(&r, 0), "Route: <sip:0123@10.0.0.2;lr;hfc>\r\n"));
    rig_reply(&r, 430); /* it has it no more: the Contact may be a way, so this is no end */
    assert_int_equal(bindings(), 1);
    rig_peer(&r, "beta", HF_SIP_SERVER_DEAD, false);
    assert_int_equal(called(6)->transport, HF_SIP_TRANSPORT_TCP);
    assert_int_equal(r.sent[0].to.peer.addr[0], 192);
    assert_null(strstr(rig_out(&r, 0), "Route:"));
    /* a flow of UDP is good for whoever has beta's address by now (S1) */
    load("<sip:0123@10.0.0.2;lr>", 8);
    assert_int_equal(called(7)->peer.addr[3], 2);
    /* our own, of a former life */
    rig_close(&r);
    struct hf_sip_element_conf c = rig_conf();
    c.boot = 99;
    rig_open(&r, &c);
    load(again, 4);
    assert_int_equal(called(8)->transport, HF_SIP_TRANSPORT_TCP);
    assert_int_equal(r.sent[0].to.conn, 0);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(held_until_stored),
        HF_TEST(keys),
        HF_TEST(row_changes_meanwhile),
        HF_TEST(away),
        HF_TEST(unregisters_while_away),
        HF_TEST(many_while_away),
        HF_TEST(ends_while_away),
        HF_TEST(connections),
        HF_TEST(flows_end),
        HF_TEST(flow_failed),
        HF_TEST(connections_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
