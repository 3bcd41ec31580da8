/* core/sip/transaction: every state and timer of RFC 3261's figures 5 to 8 as RFC 6026 and RFC 4320
 * have them, told as lines "ms what". */
#include "core/sip/transaction.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "support/told.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static struct hf_sip_txns *t;
static struct hf_sip_proxy_counters count;
static struct hf_sip_txn *x;
static hf_time now;
static struct hf_sip_msg m;
static char branch[HF_SIP_OWN_BRANCH_LEN + 1];
static struct told told;
static char last[4096]; /* message sent */

static const struct hf_sip_flow udp = {
    .transport = HF_SIP_TRANSPORT_UDP,
    .peer = {.family = HF_AF_INET, .addr = {192, 0, 2, 1}, .port = 5062}};
static const struct hf_sip_flow tcp = {
    .transport = HF_SIP_TRANSPORT_TCP,
    .peer = {.family = HF_AF_INET, .addr = {192, 0, 2, 1}, .port = 5062},
    .conn = 7};

/* --- what happens is told --- */

static void tell(const char *what, struct hf_slice s)
{
    told_add(&told, now, "%s%.*s", what, HF_SLICE_FMT(s));
}

static void on_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    struct hf_slice line = message;
    (void)ctx;
    assert_int_equal(to->peer.addr[0], 192);
    for (line.n = 0; message.p[line.n] != '\r';) {
        line.n++;
    }
    line.n -= line.n > 8 && memcmp(line.p + line.n - 8, " SIP/2.0", 8) == 0 ? 8 : 0;
    tell("send ", line);
    assert_true(message.n < sizeof(last));
    memcpy(last, message.p, message.n);
    last[message.n] = 0;
}

static void on_response(void *ctx, struct hf_sip_txn *of, const struct hf_sip_msg *r, hf_time at)
{
    char text[16];
    (void)ctx;
    assert_true(at == now && of);
    snprintf(text, sizeof(text), "%u", r->status);
    tell("response ", hf_slice_str(text));
}

static void on_failed(void *ctx, struct hf_sip_txn *of, uint16_t status, hf_time at)
{
    (void)ctx;
    assert_true(at == now && of->state == HF_SIP_TXN_TERMINATED);
    tell("failed ", status == 408 ? S("408") : S("503"));
}

static void on_trying(void *ctx, struct hf_sip_txn *of, hf_time at)
{
    (void)ctx;
    tell("trying", S(""));
    assert_true(hf_sip_txn_respond(t, of, 100, S("SIP/2.0 100 Trying\r\n\r\n"), at));
}

static void on_gone(void *ctx, struct hf_sip_txn *of, hf_time at)
{
    (void)ctx;
    assert_true(at == now);
    tell("gone", S(""));
    if (of == x) {
        x = NULL;
    }
}

static void on_entered(void *ctx, const struct hf_sip_txn *of, enum hf_sip_txn_state old)
{
    (void)ctx;
    assert_true(old != of->state);
    tell("", hf_slice_str(hf_sip_txn_state_name((enum hf_sip_txn_state)of->state)));
}

static const struct hf_sip_txn_ops ops = {.send = on_send,
                                          .response = on_response,
                                          .failed = on_failed,
                                          .trying = on_trying,
                                          .gone = on_gone,
                                          .entered = on_entered};

static void begin(void)
{
    const struct hf_sip_proxy_conf conf = {.worker = 0x2a, .seed = 5, .transactions_max = 8};
    now = 0;
    told_clear(&told);
    x = NULL;
    memset(&count, 0, sizeof(count));
    assert_int_equal(hf_sip_txns_create(&conf, &ops, NULL, &count, &t), 0);
    assert_true(hf_sip_txns_deadline(t) == HF_NEVER);
}

/* Time passes, timer by timer. */
static void until(int64_t ms)
{
    while (hf_sip_txns_deadline(t) <= HF_MS(ms)) {
        if (hf_sip_txns_deadline(t) > now) {
            now = hf_sip_txns_deadline(t);
        }
        hf_sip_txns_tick(t, now);
    }
    now = HF_MS(ms);
}

static void is_told(const char *want)
{
    told_is(&told, want);
}

static void end(void)
{
    assert_int_equal(hf_sip_txns_count(t), 0);
    assert_int_equal(hf_sip_txns_bytes(t), 0);
    hf_sip_txns_destroy(t);
}

/* --- messages --- */

static struct hf_slice request(const char *method, const char *via_branch)
{
    static char text[2048];
    int n = snprintf(text, sizeof(text),
                     "%s sip:b@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP a.example:5070;branch=%s\r\n"
                     "Route: <sip:r1;lr>\r\nRoute: <sip:r2;lr>\r\nMax-Forwards: 69\r\n"
                     "From: A\r\n <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\n"
                     "CSeq: 7 %s\r\nRequire: x\r\nContent-Length: 4\r\n\r\nbody",
                     method, via_branch, method);
    return hf_slice(text, (size_t)n);
}

static void call(const char *method, const struct hf_sip_flow *to)
{
    struct hf_slice s;
    hf_sip_txns_branch(t, branch);
    s = request(method, branch);
    assert_int_equal(hf_sip_parse(s, false, &m), 0);
    assert_int_equal(hf_sip_txn_call(t, hf_slice_str(branch), m.method, s, to, now, &x), 0);
}

/* A response to it; of `method`. */
static void answer(unsigned status, const char *method)
{
    char text[1024];
    int n = snprintf(text, sizeof(text),
                     "SIP/2.0 %u X\r\nVia: SIP/2.0/UDP a.example:5070;branch=%s\r\n"
                     "From: A <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=t%u\r\nCall-ID: c\r\n"
                     "CSeq: 7 %s\r\n\r\n",
                     status, branch, status, method);
    assert_int_equal(hf_sip_parse(hf_slice(text, (size_t)n), false, &m), 0);
    struct hf_sip_txn *of = hf_sip_txns_client(t, &m);
    assert_true(of == x);
    if (of) {
        hf_sip_txn_answer(t, of, &m, now);
    }
}

static void serve(const char *method, const struct hf_sip_flow *from)
{
    assert_int_equal(hf_sip_parse(request(method, "z9hG4bKclient"), false, &m), 0);
    assert_null(hf_sip_txns_server(t, &m));
    assert_int_equal(hf_sip_txn_serve(t, &m, from, now, &x), 0);
}

static bool again(const char *method)
{
    assert_int_equal(hf_sip_parse(request(method, "z9hG4bKclient"), false, &m), 0);
    assert_true(hf_sip_txns_server(t, &m) == x);
    return hf_sip_txn_again(t, x, &m, now);
}

static bool respond(unsigned status)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "SIP/2.0 %u X\r\n\r\n", status);
    return hf_sip_txn_respond(t, x, (uint16_t)status, hf_slice(text, (size_t)n), now);
}

/* --- figure 5: client INVITE --- */

static void client_invite(void **state)
{
    (void)state;
    begin(); /* timers A and B */
    call("INVITE", &udp);
    until(40000);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n500 send INVITE sip:b@192.0.2.1\n"
            "1500 send INVITE sip:b@192.0.2.1\n3500 send INVITE sip:b@192.0.2.1\n"
            "7500 send INVITE sip:b@192.0.2.1\n15500 send INVITE sip:b@192.0.2.1\n"
            "31500 send INVITE sip:b@192.0.2.1\n"
            "32000 TERMINATED\n32000 failed 408\n32000 gone\n");
    assert_int_equal(count.retransmitted, 6);
    assert_int_equal(count.timeouts, 1);
    end();
    begin();
    call("INVITE", &tcp); /* B only */
    until(40000);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n"
            "32000 TERMINATED\n32000 failed 408\n32000 gone\n");
    end();
    begin(); /* 1xx: no more A; 2xx: M; each 2xx passes, nothing else */
    call("INVITE", &udp);
    until(600);
    answer(100, "INVITE");
    until(20000);
    answer(180, "INVITE");
    answer(200, "INVITE");
    assert_int_equal(hf_sip_txns_bytes(t), sizeof(*x));
    until(21000);
    answer(200, "INVITE");
    answer(180, "INVITE");
    answer(486, "INVITE");
    until(60000);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n500 send INVITE sip:b@192.0.2.1\n"
            "600 PROCEEDING\n600 response 100\n20000 response 180\n20000 ACCEPTED\n"
            "20000 response 200\n21000 response 200\n52000 TERMINATED\n52000 gone\n");
    answer(200, "INVITE"); /* to nobody */
    end();
    begin(); /* from CALLING at once */
    call("INVITE", &udp);
    answer(200, "INVITE");
    until(40000);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n0 ACCEPTED\n0 response 200\n"
            "32000 TERMINATED\n32000 gone\n");
    end();
}

static void client_invite_failure(void **state)
{
    (void)state;
    begin(); /* 300-699: ACK, each time; D */
    call("INVITE", &udp);
    answer(486, "INVITE");
    char ack[1024];
    snprintf(ack, sizeof(ack),
             "ACK sip:b@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP a.example:5070;branch=%s\r\n"
             "Route: <sip:r1;lr>\r\nRoute: <sip:r2;lr>\r\nMax-Forwards: 70\r\n"
             "From: A\r\n <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=t486\r\nCall-ID: c\r\n"
             "CSeq: 7 ACK\r\nContent-Length: 0\r\n\r\n",
             branch);
    assert_string_equal(last, ack);
    until(1000);
    answer(486, "INVITE");
    assert_string_equal(last, ack);
    answer(200, "INVITE");
    answer(180, "INVITE");
    until(40000);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n0 COMPLETED\n0 send ACK sip:b@192.0.2.1\n"
            "0 response 486\n1000 send ACK sip:b@192.0.2.1\n32000 TERMINATED\n32000 gone\n");
    end();
    begin(); /* reliable: D is 0 */
    call("INVITE", &tcp);
    until(100);
    answer(183, "INVITE");
    answer(603, "INVITE");
    until(200);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n100 PROCEEDING\n100 response 183\n"
            "100 COMPLETED\n100 send ACK sip:b@192.0.2.1\n100 response 603\n"
            "100 TERMINATED\n100 gone\n");
    assert_non_null(strstr(last, "To: <sip:b@h>;tag=t603\r\n"));
    end();
    begin(); /* transport error */
    call("INVITE", &tcp);
    hf_sip_txns_unreachable(t, &udp, now);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n");
    hf_sip_txns_unreachable(t, &tcp, now);
    hf_sip_txns_unreachable(t, &tcp, now);
    answer(200, "INVITE"); /* too late */
    until(1);
    is_told("0 TERMINATED\n0 failed 503\n0 gone\n");
    call("INVITE", &udp);
    answer(180, "INVITE");
    hf_sip_txns_unreachable(t, &udp, now); /* was delivered */
    hf_sip_txn_cancel(t, x, now);
    hf_sip_txns_unreachable(t, &udp, now); /* the CANCEL was not */
    until(2);
    is_told("1 CALLING\n1 send INVITE sip:b@192.0.2.1\n1 PROCEEDING\n1 response 180\n"
            "1 send CANCEL sip:b@192.0.2.1\n1 TERMINATED\n1 failed 503\n1 gone\n");
    end();
}

/* 9.1, 16.8 */
static void cancel(void **state)
{
    (void)state;
    begin(); /* waits for a 1xx; by timer E until it is answered */
    call("INVITE", &udp);
    hf_sip_txn_cancel(t, x, now);
    until(600);
    answer(100, "INVITE");
    char text[1024];
    snprintf(text, sizeof(text),
             "CANCEL sip:b@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP a.example:5070;branch=%s\r\n"
             "Route: <sip:r1;lr>\r\nRoute: <sip:r2;lr>\r\nMax-Forwards: 70\r\n"
             "From: A\r\n <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\n"
             "CSeq: 7 CANCEL\r\nContent-Length: 0\r\n\r\n",
             branch);
    assert_string_equal(last, text);
    hf_sip_txn_cancel(t, x, now);
    until(12000);
    assert_string_equal(last, text);
    answer(100, "CANCEL");
    until(16500);
    answer(200, "CANCEL");
    answer(200, "CANCEL");
    until(25000);
    answer(180, "INVITE"); /* does not make it wait longer */
    answer(487, "INVITE");
    until(60000);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n500 send INVITE sip:b@192.0.2.1\n"
            "600 PROCEEDING\n600 response 100\n600 send CANCEL sip:b@192.0.2.1\n"
            "1100 send CANCEL sip:b@192.0.2.1\n2100 send CANCEL sip:b@192.0.2.1\n"
            "4100 send CANCEL sip:b@192.0.2.1\n8100 send CANCEL sip:b@192.0.2.1\n"
            "12100 send CANCEL sip:b@192.0.2.1\n16100 send CANCEL sip:b@192.0.2.1\n"
            "25000 response 180\n25000 COMPLETED\n25000 send ACK sip:b@192.0.2.1\n"
            "25000 response 487\n57000 TERMINATED\n57000 gone\n");
    end();
    begin(); /* answered with 2xx all the same */
    call("INVITE", &tcp);
    answer(180, "INVITE");
    hf_sip_txn_cancel(t, x, now);
    answer(200, "CANCEL");
    until(31000);
    answer(200, "INVITE");
    hf_sip_txn_cancel(t, x, now);
    until(70000);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n0 PROCEEDING\n0 response 180\n"
            "0 send CANCEL sip:b@192.0.2.1\n31000 ACCEPTED\n31000 response 200\n"
            "63000 TERMINATED\n63000 gone\n");
    end();
    begin(); /* 64 T1 after the CANCEL it is over */
    call("INVITE", &tcp);
    answer(180, "INVITE");
    until(1000);
    hf_sip_txn_cancel(t, x, now);
    until(70000);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n0 PROCEEDING\n0 response 180\n"
            "1000 send CANCEL sip:b@192.0.2.1\n33000 TERMINATED\n33000 failed 408\n33000 gone\n");
    end();
    begin(); /* no 1xx ever: no CANCEL; of a non-INVITE there is none */
    call("INVITE", &tcp);
    hf_sip_txn_cancel(t, x, now);
    answer(200, "CANCEL"); /* nobody asked */
    until(70000);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n"
            "32000 TERMINATED\n32000 failed 408\n32000 gone\n");
    call("MESSAGE", &tcp);
    hf_sip_txn_cancel(t, x, now);
    answer(100, "MESSAGE");
    answer(200, "MESSAGE");
    until(70001);
    is_told("70000 TRYING\n70000 send MESSAGE sip:b@192.0.2.1\n70000 PROCEEDING\n"
            "70000 response 100\n70000 COMPLETED\n70000 response 200\n"
            "70000 TERMINATED\n70000 gone\n");
    end();
}

/* 16.6 step 11, 16.7 step 2, 16.8 */
static void timer_c(void **state)
{
    (void)state;
    begin();
    call("INVITE", &tcp);
    until(10000);
    answer(100, "INVITE"); /* does not count */
    until(300000);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n10000 PROCEEDING\n10000 response 100\n"
            "180000 send CANCEL sip:b@192.0.2.1\n"
            "212000 TERMINATED\n212000 failed 408\n212000 gone\n");
    end();
    begin();
    call("INVITE", &tcp);
    until(10000);
    answer(180, "INVITE");
    until(100000);
    answer(180, "INVITE");
    until(290000);
    answer(487, "INVITE");
    until(300000);
    is_told("0 CALLING\n0 send INVITE sip:b@192.0.2.1\n10000 PROCEEDING\n10000 response 180\n"
            "100000 response 180\n280000 send CANCEL sip:b@192.0.2.1\n290000 COMPLETED\n"
            "290000 send ACK sip:b@192.0.2.1\n290000 response 487\n"
            "290000 TERMINATED\n290000 gone\n");
    end();
}

/* --- figure 6: client non-INVITE --- */

static void client_other(void **state)
{
    (void)state;
    begin(); /* E, F */
    call("NOTIFY", &udp);
    until(40000);
    is_told("0 TRYING\n0 send NOTIFY sip:b@192.0.2.1\n500 send NOTIFY sip:b@192.0.2.1\n"
            "1500 send NOTIFY sip:b@192.0.2.1\n3500 send NOTIFY sip:b@192.0.2.1\n"
            "7500 send NOTIFY sip:b@192.0.2.1\n11500 send NOTIFY sip:b@192.0.2.1\n"
            "15500 send NOTIFY sip:b@192.0.2.1\n19500 send NOTIFY sip:b@192.0.2.1\n"
            "23500 send NOTIFY sip:b@192.0.2.1\n27500 send NOTIFY sip:b@192.0.2.1\n"
            "31500 send NOTIFY sip:b@192.0.2.1\n"
            "32000 TERMINATED\n32000 failed 408\n32000 gone\n");
    end();
    begin(); /* 1xx: E is T2; K */
    call("NOTIFY", &udp);
    until(700);
    answer(100, "NOTIFY");
    until(8000);
    answer(200, "NOTIFY");
    answer(200, "NOTIFY");
    answer(100, "NOTIFY");
    until(40000);
    is_told("0 TRYING\n0 send NOTIFY sip:b@192.0.2.1\n500 send NOTIFY sip:b@192.0.2.1\n"
            "700 PROCEEDING\n700 response 100\n1500 send NOTIFY sip:b@192.0.2.1\n"
            "5500 send NOTIFY sip:b@192.0.2.1\n8000 COMPLETED\n8000 response 200\n"
            "13000 TERMINATED\n13000 gone\n");
    end();
    begin(); /* F in PROCEEDING */
    call("NOTIFY", &tcp);
    assert_int_equal(hf_sip_txns_bytes(t), sizeof(*x));
    answer(100, "NOTIFY");
    until(40000);
    is_told("0 TRYING\n0 send NOTIFY sip:b@192.0.2.1\n0 PROCEEDING\n0 response 100\n"
            "32000 TERMINATED\n32000 failed 408\n32000 gone\n");
    end();
    begin(); /* from TRYING; reliable: K is 0 */
    call("NOTIFY", &tcp);
    answer(481, "NOTIFY");
    until(0);
    is_told("0 TRYING\n0 send NOTIFY sip:b@192.0.2.1\n0 COMPLETED\n0 response 481\n"
            "0 TERMINATED\n0 gone\n");
    end();
    begin(); /* the user has enough */
    call("NOTIFY", &udp);
    hf_sip_txn_drop(t, x, now);
    hf_sip_txn_drop(t, x, now);
    answer(200, "NOTIFY");
    until(0);
    is_told("0 TRYING\n0 send NOTIFY sip:b@192.0.2.1\n0 TERMINATED\n0 gone\n");
    end();
}

/* --- figure 7: server INVITE --- */

static void server_invite(void **state)
{
    (void)state;
    begin(); /* 1xx again; 2xx: L, and nothing again (RFC 6026 7.1) */
    serve("INVITE", &udp);
    assert_true(again("INVITE")); /* nothing to say yet */
    assert_true(respond(100));
    assert_true(again("INVITE"));
    assert_true(respond(180));
    assert_true(again("INVITE"));
    assert_true(again("ACK")); /* of what? */
    until(1000);
    assert_true(respond(200));
    assert_int_equal(hf_sip_txns_bytes(t), sizeof(*x));
    assert_true(again("INVITE"));
    assert_false(again("ACK"));
    assert_false(respond(180));
    assert_false(respond(486));
    until(20000);
    assert_true(respond(200)); /* another branch's: as long again */
    until(60000);
    is_told("0 PROCEEDING\n0 send SIP/2.0 100 X\n0 send SIP/2.0 100 X\n0 send SIP/2.0 180 X\n"
            "0 send SIP/2.0 180 X\n1000 ACCEPTED\n1000 send SIP/2.0 200 X\n"
            "20000 send SIP/2.0 200 X\n52000 TERMINATED\n52000 gone\n");
    assert_int_equal(count.absorbed, 4);
    end();
    begin(); /* G, H */
    serve("INVITE", &udp);
    assert_true(respond(486));
    assert_false(respond(200));
    until(100);
    assert_true(again("INVITE"));
    until(40000);
    is_told("0 PROCEEDING\n0 COMPLETED\n0 send SIP/2.0 486 X\n100 send SIP/2.0 486 X\n"
            "500 send SIP/2.0 486 X\n1500 send SIP/2.0 486 X\n3500 send SIP/2.0 486 X\n"
            "7500 send SIP/2.0 486 X\n11500 send SIP/2.0 486 X\n15500 send SIP/2.0 486 X\n"
            "19500 send SIP/2.0 486 X\n23500 send SIP/2.0 486 X\n27500 send SIP/2.0 486 X\n"
            "31500 send SIP/2.0 486 X\n32000 TERMINATED\n32000 gone\n");
    end();
    begin(); /* ACK: I */
    serve("INVITE", &udp);
    assert_true(respond(486));
    until(1000);
    assert_true(again("ACK"));
    assert_true(again("ACK"));
    assert_true(again("INVITE"));
    until(10000);
    is_told("0 PROCEEDING\n0 COMPLETED\n0 send SIP/2.0 486 X\n500 send SIP/2.0 486 X\n"
            "1000 CONFIRMED\n6000 TERMINATED\n6000 gone\n");
    end();
    begin(); /* reliable: no G, I is 0 */
    serve("INVITE", &tcp);
    assert_true(respond(302));
    until(5000);
    assert_true(again("ACK"));
    until(5000);
    is_told("0 PROCEEDING\n0 COMPLETED\n0 send SIP/2.0 302 X\n5000 CONFIRMED\n5000 TERMINATED\n"
            "5000 gone\n");
    serve("INVITE", &tcp); /* H all the same */
    assert_true(respond(302));
    until(40000);
    is_told("5000 PROCEEDING\n5000 COMPLETED\n5000 send SIP/2.0 302 X\n37000 TERMINATED\n"
            "37000 gone\n");
    end();
}

/* --- figure 8: server non-INVITE --- */

static void server_other(void **state)
{
    (void)state;
    begin(); /* J */
    serve("MESSAGE", &udp);
    assert_true(again("MESSAGE"));
    until(1000);
    assert_true(respond(200));
    assert_true(again("MESSAGE"));
    assert_false(respond(200));
    assert_false(respond(486));
    until(40000);
    is_told("0 TRYING\n1000 COMPLETED\n1000 send SIP/2.0 200 X\n1000 send SIP/2.0 200 X\n"
            "33000 TERMINATED\n33000 gone\n");
    end();
    begin(); /* RFC 4320: 100 when the client's E has come to T2; nothing after 64 T1 */
    serve("MESSAGE", &udp);
    until(4000);
    assert_true(again("MESSAGE"));
    until(40000);
    is_told("0 TRYING\n3500 trying\n3500 PROCEEDING\n3500 send SIP/2.0 100 Trying\n"
            "4000 send SIP/2.0 100 Trying\n32000 TERMINATED\n32000 gone\n");
    end();
    begin(); /* from PROCEEDING; reliable: J is 0 */
    serve("MESSAGE", &tcp);
    until(5000);
    assert_true(respond(100));
    assert_true(respond(404));
    assert_true(again("MESSAGE"));
    until(5000);
    is_told("0 TRYING\n3500 trying\n3500 PROCEEDING\n3500 send SIP/2.0 100 Trying\n"
            "5000 send SIP/2.0 100 X\n5000 COMPLETED\n5000 send SIP/2.0 404 X\n"
            "5000 TERMINATED\n5000 gone\n");
    end();
    begin(); /* nobody has an answer */
    serve("MESSAGE", &udp);
    hf_sip_txn_drop(t, x, now);
    assert_true(again("MESSAGE"));
    until(0);
    is_told("0 TRYING\n0 TERMINATED\n0 gone\n");
    end();
}

/* --- matching (17.1.3, 17.2.3) --- */

static struct hf_sip_txn *find(const char *text)
{
    assert_int_equal(hf_sip_parse(hf_slice_str(text), false, &m), 0);
    return hf_sip_txns_server(t, &m);
}

#define REST "From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 7 "

static void matching(void **state)
{
    (void)state;
    begin();
    serve("INVITE", &udp);
    struct hf_sip_txn *invite = x;
    static const char begins[] = "Via: SIP/2.0/UDP A.example:5070 ;branch=z9hG4bKclient\r\n";
    char text[512];
    snprintf(text, sizeof(text), "ACK sip:b SIP/2.0\r\n%s" REST "ACK\r\n\r\n", begins);
    assert_ptr_equal(find(text), invite);
    snprintf(text, sizeof(text), "CANCEL sip:b SIP/2.0\r\n%s" REST "CANCEL\r\n\r\n", begins);
    assert_ptr_equal(find(text), invite);
    snprintf(text, sizeof(text), "BYE sip:b SIP/2.0\r\n%s" REST "BYE\r\n\r\n", begins);
    assert_null(find(text));
    assert_null(
        find("INVITE sip:b SIP/2.0\r\nVia: SIP/2.0/UDP a.example;branch=z9hG4bKclient\r\n" REST
             "INVITE\r\n\r\n"));
    assert_null(find("INVITE sip:b SIP/2.0\r\nVia: SIP/2.0/UDP b.example:5070"
                     ";branch=z9hG4bKclient\r\n" REST "INVITE\r\n\r\n"));
    assert_null(find("INVITE sip:b SIP/2.0\r\nVia: SIP/2.0/UDP a.example:5070"
                     ";branch=z9hG4bKClient\r\n" REST "INVITE\r\n\r\n"));
    hf_sip_txn_drop(t, invite, now);
    /* RFC 2543's: all there is, but To */
    assert_null(find("INVITE sip:b SIP/2.0\r\nVia: SIP/2.0/UDP old\r\n" REST "INVITE\r\n\r\n"));
    assert_int_equal(hf_sip_txn_serve(t, &m, &udp, now, &x), 0);
    assert_ptr_equal(find("ACK sip:b SIP/2.0\r\nVia: SIP/2.0/UDP old\r\n"
                          "From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=9\r\nCall-ID: c\r\n"
                          "CSeq: 7 ACK\r\n\r\n"),
                     x);
    assert_null(find("ACK sip:b SIP/2.0\r\nVia: SIP/2.0/UDP old\r\n"
                     "From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=9\r\nCall-ID: c\r\n"
                     "CSeq: 8 ACK\r\n\r\n"));
    hf_sip_txn_drop(t, x, now);
    /* clients: branch and method */
    call("MESSAGE", &udp);
    assert_int_equal(hf_sip_branch_worker(hf_slice_str(branch)), 0x2a);
    struct hf_sip_txn *mine = x;
    x = NULL;
    answer(200, "INVITE");
    answer(200, "CANCEL");
    branch[20] ^= 1;
    answer(200, "MESSAGE");
    branch[20] ^= 1;
    branch[7] ^= 1; /* another worker's */
    answer(200, "MESSAGE");
    branch[7] ^= 1;
    x = mine;
    assert_null(hf_sip_txns_server(t, &m));
    assert_int_equal(
        hf_sip_txn_call(t, hf_slice_str(branch), HF_SIP_MESSAGE, S("x"), &udp, now, &mine),
        -HF_EMALF);
    answer(200, "MESSAGE");
    until(50000);
    end();
}

static void branches(void **state)
{
    char one[HF_SIP_OWN_BRANCH_LEN], other[HF_SIP_OWN_BRANCH_LEN];
    (void)state;
    begin();
    hf_sip_txns_branch(t, one);
    hf_sip_txns_branch(t, other);
    assert_memory_equal(one, "z9hG4bK2a", 9);
    assert_memory_not_equal(one + 9, other + 9, 16);
    assert_int_equal(hf_sip_branch_worker(hf_slice(one, sizeof(one))), 0x2a);
    assert_int_equal(hf_sip_branch_worker(S("z9hG4bK2a0123456789abcdef0")), -1);
    assert_int_equal(hf_sip_branch_worker(S("z9hG4bKff0123456789abcdef00")), 0xff - 0);
    assert_int_equal(hf_sip_branch_worker(S("z9hG4bKff0123456789abcdeF00")), -1);
    assert_int_equal(hf_sip_branch_worker(S("z9hG4bk000123456789abcdef00")), -1);
    assert_int_equal(hf_sip_branch_worker(S("z9hG4bK0123456789abcdef")), -1); /* stateless */
    assert_int_equal(hf_sip_branch_worker(S("")), -1);
    assert_string_equal(hf_sip_txn_kind_name(HF_SIP_TXN_CLIENT_INVITE), "client INVITE");
    assert_string_equal(hf_sip_txn_state_name(HF_SIP_TXN_NEW), "new");
    end();
}

/* --- room --- */

static void room(void **state)
{
    struct hf_sip_txn *other;
    (void)state;
    begin(); /* in number */
    for (int i = 0; i < 8; i++) {
        assert_true(hf_sip_txns_room(t, 1));
        call("MESSAGE", &udp);
    }
    assert_false(hf_sip_txns_room(t, 1));
    assert_int_equal(hf_sip_txns_count(t), 8);
    hf_sip_txns_branch(t, branch);
    assert_int_equal(
        hf_sip_txn_call(t, hf_slice_str(branch), HF_SIP_MESSAGE, S("x"), &udp, now, &other),
        -HF_EFULL);
    assert_int_equal(hf_sip_parse(request("INVITE", "z9hG4bKn"), false, &m), 0);
    assert_int_equal(hf_sip_txn_serve(t, &m, &udp, now, &other), -HF_EFULL);
    until(32000);
    end();
    begin(); /* in bytes: what is only nice to have is left out */
    serve("INVITE", &udp);
    size_t most = ((size_t)256 << 20) - sizeof(*x);
    assert_int_equal(hf_sip_txns_take(t, most + 1), -HF_EFULL);
    assert_int_equal(hf_sip_txns_take(t, most), 0);
    assert_int_equal(hf_sip_txns_take(t, 1), -HF_EFULL);
    assert_int_equal(hf_sip_txn_serve(t, &m, &udp, now, &other), -HF_EFULL);
    assert_true(respond(100));
    assert_true(again("INVITE"));
    assert_true(respond(486));
    hf_sip_txns_give(t, most);
    until(32000);
    is_told("0 PROCEEDING\n0 send SIP/2.0 100 X\n0 COMPLETED\n0 send SIP/2.0 486 X\n"
            "32000 TERMINATED\n32000 gone\n");
    call("INVITE", &udp);
    most = ((size_t)256 << 20) - hf_sip_txns_bytes(t);
    assert_int_equal(hf_sip_txns_take(t, most), 0);
    answer(180, "INVITE");
    hf_sip_txn_cancel(t, x, now); /* once */
    answer(487, "INVITE");
    hf_sip_txns_give(t, most);
    until(80000);
    is_told("32000 CALLING\n32000 send INVITE sip:b@192.0.2.1\n32000 PROCEEDING\n"
            "32000 response 180\n32000 send CANCEL sip:b@192.0.2.1\n32000 COMPLETED\n"
            "32000 send ACK sip:b@192.0.2.1\n32000 response 487\n64000 TERMINATED\n64000 gone\n");
    end();
}

static void no_memory(void **state)
{
    const struct hf_sip_proxy_conf conf = {.transactions_max = 8};
    int rc = -ENOMEM;
    (void)state;
    for (int64_t n = 0; rc; n++) {
        hf_mem_fail_after(n);
        rc = hf_sip_txns_create(&conf, &ops, NULL, &count, &t);
        hf_mem_fail_after(-1);
        assert_true(rc == 0 || rc == -ENOMEM);
    }
    now = 0;
    for (int64_t n = 0; n < 3; n++) {
        struct hf_sip_txn *made = NULL;
        hf_sip_txns_branch(t, branch);
        struct hf_slice s = request("INVITE", branch);
        hf_mem_fail_after(n);
        rc = hf_sip_txn_call(t, hf_slice_str(branch), HF_SIP_INVITE, s, &udp, now, &made);
        hf_mem_fail_after(-1);
        assert_int_equal(rc, n < 2 ? -ENOMEM : 0);
        assert_int_equal(hf_sip_txns_count(t), n < 2 ? 0 : 1);
        if (made) {
            hf_sip_txn_drop(t, made, now);
        }
    }
    until(1);
    assert_int_equal(hf_sip_parse(request("INVITE", "z9hG4bKn"), false, &m), 0);
    hf_mem_fail_after(0);
    rc = hf_sip_txn_serve(t, &m, &udp, now, &x);
    hf_mem_fail_after(-1);
    assert_int_equal(rc, -ENOMEM);
    end();
    hf_sip_txns_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(client_invite), HF_TEST(client_invite_failure),
        HF_TEST(cancel),        HF_TEST(timer_c),
        HF_TEST(client_other),  HF_TEST(server_invite),
        HF_TEST(server_other),  HF_TEST(matching),
        HF_TEST(branches),      HF_TEST(room),
        HF_TEST(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
