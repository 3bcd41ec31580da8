/* core/sip/element: requests that wait: once each, bounded, cancelled, forgotten; and rates. */
#include <stdio.h>
#include <string.h>

#include "support/sip_element_rig.h"
#include "support/test.h"

#define ANN "sip:ann@example.com"
#define CONTACT "Contact: <sip:ann@192.0.2.1:5060>\r\n"

static struct rig r;
static char text[4096];

static void send(const char *method, const char *to, const char *more, unsigned cseq)
{
    rig_request(text, sizeof(text), method,
                strcmp(method, "REGISTER") == 0 ? "sip:example.com" : to, to, more, cseq);
    rig_in(&r, text);
}

static void once_and_bounded(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    struct hf_sip_element_info info;
    c.requests_max = 2;
    rig_open(&r, &c);
    send("REGISTER", ANN, CONTACT, 1);
    assert_int_equal(r.n_ops, 1);
    rig_in(&r, text); /* retransmitted */
    assert_int_equal(r.n_ops, 0);
    assert_int_equal(r.n_sent, 0);
    send("REGISTER", ANN, CONTACT, 2);
    assert_int_equal(r.n_ops, 1);
    send("REGISTER", ANN, CONTACT, 3);
    assert_int_equal(rig_status(&r, 0), 503);
    assert_non_null(strstr(rig_out(&r, 0), "\r\nRetry-After: "));
    assert_int_equal(hf_sip_element_counters(r.e)->waiting_full, 1);
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.waiting, 2);
    /* the store never answers: they are forgotten */
    rig_pass(&r, HF_S(40));
    hf_sip_element_info(r.e, &info);
    assert_int_equal(info.waiting, 0);
    rig_close(&r);
}

static void cancelled(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    rig_row(&r, ANN, "alpha", 1); /* being loaded */
    rig_request(text, sizeof(text), "INVITE", ANN, ANN, "", 5);
    char *at = strstr(text, "z9hG4bKINVITE5"), *method;
    memcpy(at, "z9hG4bKthecall", 14);
    rig_in(&r, text);
    assert_int_equal(r.n_sent, 0);
    rig_request(text, sizeof(text), "CANCEL", ANN, ANN, "", 5);
    at = strstr(text, "z9hG4bKCANCEL5");
    method = strstr(text, "CSeq: 5");
    assert_non_null(method);
    memcpy(at, "z9hG4bKthecall", 14);
    rig_in(&r, text);
    assert_int_equal(r.n_sent, 2);
    assert_int_equal(rig_status(&r, 0), 200);
    assert_int_equal(rig_status(&r, 1), 487);
    rig_close(&r);
}

static void set_branch(const char *message, const char *branch, char *ret, size_t room)
{
    const char *at = strstr(message, ";branch=") + 8;
    snprintf(ret, room, "%.*s%s%s", (int)(at - message), message, branch, at + strcspn(at, ";\r"));
}

/* An INVITE that waits for longer: 100, and from then on it is ours to repeat (RFC 3261 17.2.1). */
static void trying(void **state)
{
    (void)state;
    static char invite[4096], ack[8192];
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    rig_row(&r, ANN, "alpha", 1); /* being loaded */
    struct rig_op load = r.op[0];
    rig_request(invite, sizeof(invite), "INVITE", ANN, ANN, "", 5);
    rig_in(&r, invite);
    rig_pass(&r, HF_MS(100));
    assert_int_equal(r.n_sent, 0);
    rig_in(&r, invite); /* repeated: absorbed */
    assert_int_equal(r.n_sent, 0);
    rig_pass(&r, HF_MS(100));
    assert_int_equal(r.n_sent, 1);
    assert_int_equal(rig_status(&r, 0), 100);
    assert_non_null(strstr(rig_out(&r, 0), "\r\nTo: <" ANN ">\r\n"));
    rig_in(&r, invite); /* and repeated: the latest answer */
    assert_int_equal(r.n_sent, 1);
    assert_int_equal(rig_status(&r, 0), 100);
    rig_pass(&r, HF_S(1));
    assert_int_equal(r.n_sent, 0);
    r.op[0] = load;
    r.n_ops = 1;
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0); /* no bindings */
    assert_int_equal(rig_status(&r, 0), 480);
    rig_pass(&r, HF_MS(600)); /* its ACK is missing */
    assert_int_equal(rig_status(&r, 0), 480);
    rig_request(text, sizeof(text), "ACK", ANN, ANN, "", 5);
    set_branch(text, "z9hG4bKINVITE5", ack, sizeof(ack));
    rig_in(&r, ack);
    assert_int_equal(r.n_sent, 0);
    rig_pass(&r, HF_S(40));
    assert_int_equal(r.n_sent, 0);
    /* one that is answered soon has no other answer than that */
    rig_in(&r, invite);
    assert_int_equal(rig_status(&r, 0), 480);
    rig_close(&r);
}

static void trying_elsewhere(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    c.role = HF_SIP_ROLE_HOME;
    rig_open(&r, &c);
    send("INVITE", ANN, "Via: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKy\r\n", 5);
    assert_non_null(rig_asked(&r, HF_SIP_OP_READ));
    struct rig_op read = r.op[0];
    rig_pass(&r, HF_MS(200));
    assert_int_equal(rig_status(&r, 0), 100);
    r.op[0] = read;
    r.n_ops = 1;
    rig_answer(&r, HF_SIP_OP_DONE, "beta", 2);
    size_t last = r.n_sent - 1; /* after another 100 */
    assert_int_equal(strncmp(rig_out(&r, last), "INVITE " ANN " ", 7 + sizeof(ANN)), 0);
    assert_non_null(strstr(rig_out(&r, last), "\r\nHoldfast-Hop: 1;epoch=2;"));
    assert_int_equal(r.sent[last].to.peer.addr[3], 2);
    rig_pass(&r, HF_MS(600)); /* it is lost, and comes again */
    assert_int_equal(r.n_sent, 1);
    assert_int_equal(strncmp(rig_out(&r, 0), "INVITE ", 7), 0);
    rig_reply(&r, 486);
    assert_int_equal(strncmp(rig_out(&r, 0), "ACK ", 4), 0);
    assert_int_equal(rig_status(&r, 1), 486);
    rig_close(&r);
}

/* After a 100 there is an end: by its CANCEL, or by us when the store says nothing. */
static void trying_ends(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    rig_row(&r, ANN, "alpha", 1);
    rig_request(text, sizeof(text), "INVITE", ANN, ANN, "", 5);
    memcpy(strstr(text, "z9hG4bKINVITE5"), "z9hG4bKthecall", 14);
    rig_in(&r, text);
    send("INVITE", ANN, "", 6);
    rig_pass(&r, HF_MS(200));
    assert_int_equal(r.n_sent, 2);
    rig_request(text, sizeof(text), "CANCEL", ANN, ANN, "", 5);
    memcpy(strstr(text, "z9hG4bKCANCEL5"), "z9hG4bKthecall", 14);
    rig_in(&r, text);
    assert_int_equal(r.n_sent, 2);
    assert_int_equal(rig_status(&r, 0), 200);
    assert_int_equal(rig_status(&r, 1), 487);
    rig_pass(&r, HF_MS(600));
    assert_int_equal(rig_status(&r, 0), 487); /* until its ACK */
    rig_pass(&r, HF_S(40));
    unsigned refused = 0;
    for (size_t i = 0; i < r.n_sent; i++) {
        refused += rig_status(&r, i) == 503 && strstr(rig_out(&r, i), "\r\nRetry-After: ");
    }
    assert_true(refused > 0);
    rig_close(&r);
}

static void names(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    rig_open(&r, &c);
    rig_row(&r, ANN, "alpha", 1);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    send("REGISTER", ANN, "Contact: <sip:ann@one.example>, <sip:ann@two.example>;q=0.5\r\n", 1);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    send("MESSAGE", ANN, "", 2);
    assert_string_equal(r.name, "one.example");
    assert_int_equal(r.n_sent, 0);
    struct hf_sip_flow to = r.from;
    to.peer.addr[3] = 77;
    hf_sip_element_resolved(r.e, r.resolve, &to, 1, r.now);
    assert_string_equal(r.name, "two.example");
    assert_int_equal(r.n_sent, 0);
    hf_sip_element_resolved(r.e, r.resolve, NULL, 0, r.now); /* there is no such name */
    assert_int_equal(r.n_sent, 1);
    assert_int_equal(r.sent[0].to.peer.addr[3], 77);
    assert_int_equal(strncmp(rig_out(&r, 0), "MESSAGE sip:ann@one.example ", 28), 0);
    hf_sip_element_resolved(r.e, r.resolve, &to, 1, r.now); /* once too often */
    rig_close(&r);
}

static void rates(void **state)
{
    (void)state;
    struct hf_sip_element_conf c = rig_conf();
    static const struct hf_sip_net edge = {.at = {.family = HF_AF_INET, .addr = {192, 0, 2, 8}},
                                           .bits = 30};
    c.source_rate = 10;
    c.edge = &edge;
    c.n_edges = 1;
    rig_open(&r, &c);
    unsigned answered = 0;
    for (unsigned i = 0; i < 30; i++) {
        send("OPTIONS", "sip:example.com", "", i + 1);
        answered += r.n_sent == 1;
    }
    assert_int_equal(answered, 10);
    assert_int_equal(hf_sip_element_counters(r.e)->limited, 20);
    rig_from(&r, 2, HF_SIP_TRANSPORT_UDP, 0); /* another source has its own */
    send("OPTIONS", "sip:example.com", "", 50);
    assert_int_equal(r.n_sent, 1);
    rig_from(&r, 9, HF_SIP_TRANSPORT_UDP, 0); /* an edge has many behind it, each with its own */
    unsigned by_flow[3] = {0};
    for (unsigned i = 0; i < 60; i++) {
        static const char *const flows[] = {"198.51.100.7;received=203.0.113.9;rport=1024",
                                            "198.51.100.7;received=203.0.113.9;rport=1025",
                                            "198.51.100.7"};
        char via[200];
        snprintf(via, sizeof(via), "Via: SIP/2.0/UDP %s;branch=z9hG4bKb%u\r\n", flows[i % 3], i);
        send("OPTIONS", "sip:example.com", via, 100 + i);
        by_flow[i % 3] += r.n_sent == 1;
    }
    assert_true(by_flow[0] == 10 && by_flow[1] == 10 && by_flow[2] == 10);
    answered = 0;
    for (unsigned i = 0; i < 30; i++) { /* one that shows no flow: who it says to be */
        send("OPTIONS", "sip:example.com", "", 400 + i);
        answered += r.n_sent == 1;
    }
    assert_int_equal(answered, 10);
    send("HELLO WORLD", "sip:example.com", "", 430); /* malformed: the edge's own */
    assert_int_equal(r.n_sent, 1);
    rig_from(&r, 102, HF_SIP_TRANSPORT_UDP, 0); /* so has a peer: 10.0.0.2 */
    for (unsigned i = 0; i < 30; i++) {
        send("OPTIONS", "sip:example.com", "", 200 + i);
        assert_int_equal(r.n_sent, 1);
    }
    rig_from(&r, 1, HF_SIP_TRANSPORT_UDP, 0);
    r.now += HF_S(1) / 2;
    answered = 0;
    for (unsigned i = 0; i < 30; i++) {
        send("OPTIONS", "sip:example.com", "", 300 + i);
        answered += r.n_sent == 1;
    }
    assert_int_equal(answered, 5);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(once_and_bounded), HF_TEST(cancelled), HF_TEST(trying), HF_TEST(trying_elsewhere),
        HF_TEST(trying_ends),      HF_TEST(names),     HF_TEST(rates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
