/* core/sip/proxy: forking told as stories, lines "ms who: what"; then the rest of the contract. */
#include "core/sip/proxy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "support/told.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define N_PEERS 6 /* 0: the client "alice"; others: targets "t1" ... */

static struct hf_sip_proxy *p;
static hf_time now;
static struct hf_sip_msg m, sent;
static struct told told;
static struct {
    char request[4096], response[4096]; /* the last ones that we sent to it */
} peer[N_PEERS];

static struct hf_sip_flow flow(unsigned i)
{
    return (struct hf_sip_flow){
        .transport = i == 3 ? HF_SIP_TRANSPORT_TCP : HF_SIP_TRANSPORT_UDP,
        .local = {.family = HF_AF_INET, .addr = {192, 0, 2, 100}, .port = 5060},
        .peer = {.family = HF_AF_INET, .addr = {192, 0, 2, (uint8_t)i}, .port = 5060},
        .conn = i == 3 ? 33 : 0};
}

/* --- what happens is told --- */

static void tell(const char *who, const char *what)
{
    told_add(&told, now, "%s%s", who, what);
}

static const char *name(unsigned i)
{
    static const char *const names[N_PEERS] = {"alice: ", "t1: ", "t2: ", "t3: ", "t4: ", "t5: "};
    return names[i];
}

static void on_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    unsigned i = to->peer.addr[3];
    char line[64];
    (void)ctx;
    assert_true(i < N_PEERS && message.n < sizeof(peer[i].request));
    assert_int_equal(hf_sip_parse(message, true, &sent), 0);
    char *copy = sent.request ? peer[i].request : peer[i].response;
    if (sent.request) {
        snprintf(line, sizeof(line), "%.*s", HF_SLICE_FMT(sent.method_text));
    } else {
        snprintf(line, sizeof(line), "%u%s%.*s", sent.status,
                 sent.method == HF_SIP_CANCEL ? " " : "", sent.method == HF_SIP_CANCEL ? 6 : 0,
                 "CANCEL");
    }
    if (!sent.request || sent.method != HF_SIP_ACK) {
        memcpy(copy, message.p, message.n);
        copy[message.n] = 0;
    }
    tell(name(i), line);
}

static int own(const char *method, uint64_t cookie);

static void on_answered(void *ctx, uint64_t cookie, uint16_t status, const struct hf_sip_msg *r)
{
    char line[64];
    (void)ctx;
    snprintf(line, sizeof(line), "own %llu: %u%s", (unsigned long long)cookie, status,
             r ? "" : " (nothing came)");
    tell("", line);
    if (cookie > 90) { /* the next one at once */
        assert_int_equal(own("NOTIFY", cookie - 1), 0);
    }
}

static void on_failed(void *ctx, struct hf_slice aor, uint64_t cookie, uint16_t status)
{
    char line[64];
    (void)ctx;
    (void)aor;
    snprintf(line, sizeof(line), "t%llu failed: %u", (unsigned long long)cookie, status);
    tell("", line);
}

static const struct hf_sip_proxy_ops ops = {
    .send = on_send, .answered = on_answered, .failed = on_failed};

static void begin(void)
{
    const struct hf_sip_proxy_conf conf = {.worker = 3, .seed = 9, .transactions_max = 32};
    now = 0;
    told_clear(&told);
    memset(peer, 0, sizeof(peer));
    assert_int_equal(hf_sip_proxy_create(&conf, &ops, NULL, &p), 0);
}

static void until(int64_t ms)
{
    while (hf_sip_proxy_deadline(p) <= HF_MS(ms)) {
        if (hf_sip_proxy_deadline(p) > now) {
            now = hf_sip_proxy_deadline(p);
        }
        hf_sip_proxy_tick(p, now);
    }
    now = HF_MS(ms);
}

static void is_told(const char *want)
{
    told_is(&told, want);
}

static void end(void)
{
    until(now / HF_NS_PER_MS + 400000);
    assert_int_equal(hf_sip_proxy_count(p), 0);
    assert_int_equal(hf_sip_proxy_bytes(p), 0);
    hf_sip_proxy_destroy(p);
}

/* --- the client --- */

static const char *more = ""; /* header lines of the client's request */

static void parse_request(const char *method, unsigned branch)
{
    static char text[4096];
    const char *to_tag = strcmp(method, "ACK") == 0 ? ";tag=x" : "";
    int n = snprintf(text, sizeof(text),
                     "%s sip:bob@h SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.0;branch=z9hG4bKa%u\r\n"
                     "Max-Forwards: 70\r\n%sFrom: <sip:alice@h>;tag=a\r\nTo: <sip:bob@h>%s\r\n"
                     "Call-ID: c\r\nCSeq: 1 %s\r\nContact: <sip:alice@192.0.2.0>\r\n"
                     "Content-Type: text/plain\r\nContent-Length: 3\r\n\r\nhi!",
                     method, branch, more, to_tag, method);
    assert_int_equal(hf_sip_parse(hf_slice(text, (size_t)n), false, &m), 0);
}

static bool alice(const char *method)
{
    struct hf_sip_flow from = flow(0);
    char line[32];
    snprintf(line, sizeof(line), "alice %s", method);
    tell("  ", line);
    parse_request(method, 1);
    return hf_sip_proxy_absorb(p, &m, &from, now);
}

/* Targets 1 to n with these q. */
static int fork_to(const char *method, size_t n, const uint16_t *q)
{
    static const char *const uris[] = {"sip:b@192.0.2.1", "sip:b@192.0.2.2", "sip:b@192.0.2.3",
                                       "sip:b@192.0.2.4", "sip:b@192.0.2.5"};
    struct hf_sip_target target[N_PEERS];
    struct hf_sip_flow from = flow(0);
    struct hf_sip_forward how = {.sent_by = S("192.0.2.100")};
    assert_false(alice(method));
    for (size_t i = 0; i < n; i++) {
        target[i] = (struct hf_sip_target){
            .uri = hf_slice_str(uris[i]), .q = q[i], .to = flow((unsigned)i + 1), .cookie = i + 1};
    }
    return hf_sip_proxy_fork(p, &m, &from, &how, target, n, now);
}
#define FORK(method, ...)                                                                          \
    assert_int_equal(                                                                              \
        fork_to(method, sizeof((uint16_t[]){__VA_ARGS__}) / 2, (uint16_t[]){__VA_ARGS__}), 0)

/* --- a target answers the last request it had --- */

static void answer_with(unsigned i, unsigned status, const char *lines)
{
    static struct hf_sip_msg of;
    static char text[8192];
    struct hf_wr w;
    struct hf_slice message;
    struct hf_sip_flow from = flow(i);
    char line[64];
    assert_int_equal(hf_sip_parse(hf_slice_str(peer[i].request), false, &of), 0);
    snprintf(line, sizeof(line), "t%u %u%s", i, status,
             of.method == HF_SIP_CANCEL ? " CANCEL" : "");
    tell("  ", line);
    hf_wr_init(&w, text, sizeof(text));
    assert_int_equal(hf_sip_begin_response(&w, &of, (uint16_t)status, S(""),
                                           status > 100 ? hf_slice(name(i), 2) : S(""), NULL),
                     0);
    hf_sip_put_str(&w, lines);
    assert_int_equal(hf_sip_end(&w, S("text/plain"), S("body"), &message), 0);
    assert_int_equal(hf_sip_parse(message, false, &of), 0);
    if (!hf_sip_proxy_response(p, &of, &from, now)) {
        tell("    ", "stray");
    }
}

static void answer(unsigned i, unsigned status)
{
    answer_with(i, status, "");
}

/* To the CANCEL it had, 200; then 487 to the INVITE. */
static void is_cancelled(unsigned i, char invite[4096])
{
    answer(i, 200);
    memcpy(peer[i].request, invite, sizeof(peer[i].request));
    answer(i, 487);
}

static char invite[N_PEERS][4096];
static void keep_invites(void)
{
    for (size_t i = 0; i < N_PEERS; i++) {
        memcpy(invite[i], peer[i].request, sizeof(invite[i]));
    }
}
static void to_invite(unsigned i) /* the next answer is to its INVITE again */
{
    memcpy(peer[i].request, invite[i], sizeof(invite[i]));
}

/* --- stories --- */

static void parallel(void **state)
{
    (void)state;
    begin();
    FORK("INVITE", 1000, 1000, 1000);
    keep_invites();
    answer(1, 100);
    answer(1, 180);
    answer(2, 183);
    assert_true(alice("INVITE"));
    until(400);
    answer(2, 200);
    answer(2, 200); /* again: passes, too */
    answer(1, 200); /* the CANCEL */
    to_invite(1);
    answer(1, 487);
    answer(1, 487);
    answer(3, 180); /* only now: the CANCEL that waited */
    answer(3, 200);
    to_invite(3);
    answer(3, 200); /* it was faster: a second 2xx is not lost */
    assert_true(alice("INVITE"));
    assert_false(alice("ACK")); /* of a 2xx: the caller's */
    is_told("0   alice INVITE\n0 alice: 100\n0 t1: INVITE\n0 t2: INVITE\n0 t3: INVITE\n"
            "0   t1 100\n0   t1 180\n0 alice: 180\n0   t2 183\n0 alice: 183\n"
            "0   alice INVITE\n0 alice: 183\n"
            "400   t2 200\n400 alice: 200\n400 t1: CANCEL\n400   t2 200\n400 alice: 200\n"
            "400   t1 200 CANCEL\n400   t1 487\n400 t1: ACK\n400   t1 487\n400 t1: ACK\n"
            "400   t3 180\n400 t3: CANCEL\n400   t3 200 CANCEL\n400   t3 200\n400 alice: 200\n"
            "400   alice INVITE\n400   alice ACK\n");
    assert_int_equal(hf_sip_proxy_counters(p)->branches, 3);
    assert_int_equal(hf_sip_proxy_counters(p)->proxied, 1);
    assert_int_equal(hf_sip_proxy_counters(p)->absorbed, 2);
    end();
}

static void serial(void **state)
{
    (void)state;
    begin();
    FORK("INVITE", 200, 900, 500, 500); /* t2; t3 and t4; t1 */
    answer(2, 486);
    answer(3, 180);
    answer(4, 404);
    answer(3, 480);
    answer(1, 180);
    answer(1, 200);
    is_told("0   alice INVITE\n0 alice: 100\n0 t2: INVITE\n0   t2 486\n0 t2: ACK\n"
            "0 t3: INVITE\n0 t4: INVITE\n0   t3 180\n0 alice: 180\n0   t4 404\n0 t4: ACK\n"
            "0   t3 480\n0 t3: ACK\n0 t1: INVITE\n0   t1 180\n0 alice: 180\n"
            "0   t1 200\n0 alice: 200\n");
    end();
    begin(); /* nobody: the first of equals; sent again until the ACK */
    FORK("INVITE", 200, 900);
    answer(2, 486);
    answer(1, 404);
    until(600);
    assert_true(alice("ACK"));
    until(5000);
    is_told("0   alice INVITE\n0 alice: 100\n0 t2: INVITE\n0   t2 486\n0 t2: ACK\n0 t1: INVITE\n"
            "0   t1 404\n0 t1: ACK\n0 alice: 486\n500 alice: 486\n600   alice ACK\n");
    assert_non_null(strstr(peer[0].response, "To: <sip:bob@h>;tag=t2\r\n"));
    assert_non_null(strstr(peer[0].response, "\r\n\r\nbody"));
    end();
}

static void cancelled(void **state)
{
    (void)state;
    begin();
    FORK("INVITE", 500, 500, 100);
    keep_invites();
    answer(1, 180);
    until(300);
    assert_true(alice("CANCEL"));
    assert_true(alice("CANCEL"));
    assert_non_null(strstr(peer[0].response, "CSeq: 1 CANCEL\r\n"));
    answer(2, 180);
    is_cancelled(1, invite[1]);
    is_cancelled(2, invite[2]);
    assert_true(alice("CANCEL")); /* no effect any more */
    is_told("0   alice INVITE\n0 alice: 100\n0 t1: INVITE\n0 t2: INVITE\n0   t1 180\n"
            "0 alice: 180\n300   alice CANCEL\n300 alice: 200 CANCEL\n300 t1: CANCEL\n"
            "300   alice CANCEL\n300 alice: 200 CANCEL\n"
            "300   t2 180\n300 alice: 180\n300 t2: CANCEL\n300   t1 200 CANCEL\n300   t1 487\n"
            "300 t1: ACK\n300   t2 200 CANCEL\n300   t2 487\n300 t2: ACK\n300 alice: 487\n"
            "300   alice CANCEL\n300 alice: 200 CANCEL\n");
    assert_int_equal(hf_sip_proxy_counters(p)->cancelled, 1);
    end();
    begin(); /* the 200 was faster */
    FORK("INVITE", 500);
    keep_invites();
    answer(1, 180);
    assert_true(alice("CANCEL"));
    to_invite(1);
    answer(1, 200);
    is_told("0   alice INVITE\n0 alice: 100\n0 t1: INVITE\n0   t1 180\n0 alice: 180\n"
            "0   alice CANCEL\n0 alice: 200 CANCEL\n0 t1: CANCEL\n0   t1 200\n0 alice: 200\n");
    end();
    begin(); /* nobody says a word: 487 by us, nothing to cancel */
    FORK("INVITE", 500);
    assert_true(alice("CANCEL"));
    told_clear(&told);
    until(31900);
    told_clear(&told);
    until(32100);
    is_told("32000 t1 failed: 408\n32000 alice: 487\n");
    assert_true(alice("ACK"));
    end();
    begin(); /* of nothing; of a non-INVITE */
    assert_false(alice("CANCEL"));
    FORK("MESSAGE", 500);
    assert_false(alice("CANCEL"));
    answer(1, 200);
    end();
}

static void busy_everywhere(void **state)
{
    (void)state;
    begin(); /* 16.7 step 5: pending ones are cancelled, then it passes; t4 is not tried */
    FORK("INVITE", 500, 500, 500, 100);
    keep_invites();
    answer(1, 180);
    answer(2, 486);
    answer(3, 603);
    is_cancelled(1, invite[1]);
    is_told("0   alice INVITE\n0 alice: 100\n0 t1: INVITE\n0 t2: INVITE\n0 t3: INVITE\n"
            "0   t1 180\n0 alice: 180\n0   t2 486\n0 t2: ACK\n"
            "0   t3 603\n0 t3: ACK\n0 t1: CANCEL\n0   t1 200 CANCEL\n0   t1 487\n0 t1: ACK\n"
            "0 alice: 603\n");
    end();
    begin(); /* a 2xx that crosses it wins */
    FORK("INVITE", 500, 500);
    keep_invites();
    answer(1, 180);
    answer(2, 600);
    to_invite(1);
    answer(1, 200);
    is_told("0   alice INVITE\n0 alice: 100\n0 t1: INVITE\n0 t2: INVITE\n0   t1 180\n"
            "0 alice: 180\n0   t2 600\n0 t2: ACK\n0 t1: CANCEL\n0   t1 200\n0 alice: 200\n");
    end();
}

static void challenges(void **state)
{
    (void)state;
    begin(); /* 16.7 step 7 */
    FORK("INVITE", 500, 500, 500, 500);
    answer(1, 404);
    answer_with(2, 401, "WWW-Authenticate: Digest realm=\"two\"\r\n");
    answer_with(3, 407,
                "Proxy-Authenticate: Digest realm=\"3a\"\r\n"
                "Proxy-Authenticate: Digest realm=\"3b\"\r\n");
    answer_with(4, 401, "WWW-Authenticate: Digest realm=\"four\"\r\n");
    told_clear(&told);
    hf_assert_slice_str(hf_slice(peer[0].response, 24), "SIP/2.0 401 Unauthorized");
    assert_non_null(strstr(peer[0].response, "tag=t2\r\n"));
    assert_non_null(strstr(peer[0].response, "WWW-Authenticate: Digest realm=\"two\"\r\n"));
    assert_non_null(strstr(peer[0].response, "Proxy-Authenticate: Digest realm=\"3a\"\r\n"
                                             "Proxy-Authenticate: Digest realm=\"3b\"\r\n"
                                             "WWW-Authenticate: Digest realm=\"four\"\r\n"
                                             "Content-Length: 4\r\n\r\nbody"));
    end();
}

static void rings_for_ever(void **state)
{
    (void)state;
    begin(); /* timer C, then the next one */
    FORK("INVITE", 500, 400);
    keep_invites();
    until(1);
    answer(1, 180);
    until(180001);
    is_cancelled(1, invite[1]);
    answer(2, 200);
    is_told("0   alice INVITE\n0 alice: 100\n0 t1: INVITE\n1   t1 180\n1 alice: 180\n"
            "180001 t1: CANCEL\n180001   t1 200 CANCEL\n180001   t1 487\n180001 t1: ACK\n"
            "180001 t2: INVITE\n180001   t2 200\n180001 alice: 200\n");
    end();
    begin(); /* it does not even say 487 */
    FORK("INVITE", 500);
    answer(1, 180);
    until(211999);
    told_clear(&told);
    until(212000);
    is_told("212000 t1 failed: 408\n212000 alice: 408\n");
    assert_true(alice("ACK"));
    end();
}

static void unreachable(void **state)
{
    struct hf_sip_flow to;
    (void)state;
    begin();
    FORK("INVITE", 500, 500, 900);
    to = flow(2);
    hf_sip_proxy_unreachable(p, &to, now); /* not tried yet */
    to = flow(3);
    hf_sip_proxy_unreachable(p, &to, now);
    answer(2, 180);
    to = flow(1);
    hf_sip_proxy_unreachable(p, &to, now);
    to = flow(2);
    hf_sip_proxy_unreachable(p, &to, now); /* rings: its answer may yet come */
    answer(3, 200);                        /* too late */
    answer(2, 430);
    assert_true(alice("ACK"));
    is_told("0   alice INVITE\n0 alice: 100\n0 t3: INVITE\n0 t3 failed: 430\n0 t1: INVITE\n"
            "0 t2: INVITE\n0   t2 180\n0 alice: 180\n0 t1 failed: 503\n0   t3 200\n"
            "0   t2 430\n0 t2: ACK\n0 t2 failed: 430\n0 alice: 480\n0   alice ACK\n");
    end();
    begin(); /* 503 goes back as 500 */
    FORK("MESSAGE", 500, 500);
    to = flow(1);
    hf_sip_proxy_unreachable(p, &to, now);
    answer_with(2, 503, "Retry-After: 100\r\n");
    is_told("0   alice MESSAGE\n0 t1: MESSAGE\n0 t2: MESSAGE\n0 t1 failed: 503\n0   t2 503\n"
            "0 t2 failed: 503\n0 alice: 500\n");
    assert_null(strstr(peer[0].response, "Retry-After"));
    end();
}

static void messages(void **state)
{
    (void)state;
    begin(); /* the first 2xx, others are absorbed */
    FORK("MESSAGE", 500, 500, 100);
    until(600);
    assert_true(alice("MESSAGE"));
    answer(1, 183); /* not for non-INVITE (RFC 4320 4.1) */
    until(4000);
    answer(2, 200);
    answer(1, 202);
    assert_true(alice("MESSAGE"));
    answer(2, 200);
    is_told("0   alice MESSAGE\n0 t1: MESSAGE\n0 t2: MESSAGE\n500 t1: MESSAGE\n500 t2: MESSAGE\n"
            "600   alice MESSAGE\n600   t1 183\n1500 t2: MESSAGE\n1500 t1: MESSAGE\n"
            "3500 alice: 100\n3500 t2: MESSAGE\n4000   t2 200\n4000 alice: 200\n4000   t1 202\n"
            "4000   alice MESSAGE\n4000 alice: 200\n4000   t2 200\n");
    end();
    begin(); /* no 408 (RFC 4320 4.2), nor anybody else when the client has given up */
    FORK("MESSAGE", 500, 400);
    until(31999);
    told_clear(&told);
    until(100000);
    is_told("32000 t1 failed: 408\n");
    end();
    begin(); /* likewise when the second one is still at it */
    FORK("MESSAGE", 500, 400);
    answer(1, 408);
    until(31999);
    told_clear(&told);
    until(100000);
    answer(2, 200);
    is_told("32000 t2 failed: 408\n100000   t2 200\n100000     stray\n");
    assert_int_equal(hf_sip_proxy_counters(p)->stray, 1);
    end();
    begin(); /* each flow that says nothing is told, though the client's time ends at once */
    FORK("MESSAGE", 500, 500, 500, 500);
    until(31999);
    told_clear(&told);
    until(32000);
    for (unsigned i = 1; i <= 4; i++) {
        char line[32];
        snprintf(line, sizeof(line), "32000 t%u failed: 408\n", i);
        assert_non_null(strstr(told.text, line));
    }
    assert_null(strstr(told.text, "alice"));
    end();
    begin(); /* but what another one says is better than nothing */
    FORK("MESSAGE", 500, 500);
    answer(1, 408);
    answer(2, 500);
    is_told("0   alice MESSAGE\n0 t1: MESSAGE\n0 t2: MESSAGE\n0   t1 408\n0 t1 failed: 408\n"
            "0   t2 500\n0 alice: 500\n");
    end();
}

/* 16.7 step 6 */
static void best(void **state)
{
    static const struct {
        unsigned first, second;
        const char *best;
    } cases[] = {
        {486, 302, "302"}, {302, 486, "302"}, {500, 486, "486"}, {486, 500, "486"},
        {486, 404, "486"}, {486, 407, "407"}, {415, 401, "401"}, {486, 420, "420"},
        {404, 484, "484"}, {487, 404, "404"}, {408, 480, "480"}, {408, 500, "408"},
        {503, 504, "504"}, {503, 503, "500"}, {302, 600, "600"}, {430, 487, "487"},
        {430, 500, "500"}, {503, 430, "480"}, {600, 603, "600"}, {401, 302, "302"},
        {513, 502, "513"},
    };
    (void)state;
    for (size_t i = 0; i < HF_ARRAY_LEN(cases); i++) {
        begin();
        FORK("INVITE", 500, 500);
        answer(1, cases[i].first);
        if (cases[i].first < 600) {
            assert_null(strstr(told.text, "alice: 4"));
        }
        answer(2, cases[i].second);
        char want[32];
        snprintf(want, sizeof(want), "0 alice: %s\n", cases[i].best);
        if (strlen(told.text) < strlen(want) ||
            strcmp(told.text + strlen(told.text) - strlen(want), want) != 0) {
            fail_msg("%u, %u: %s", cases[i].first, cases[i].second, told);
        }
        end();
    }
}

/* What a branch is given. */
static void forwarded(void **state)
{
    struct hf_sip_flow from = flow(0);
    struct hf_sip_forward how = {.sent_by = S("h.example:5070"),
                                 .via_params = S(";x=1"),
                                 .record_route = S("<sip:h.example;lr>"),
                                 .drop = 1ULL << HF_SIP_H_CONTACT};
    const struct hf_sip_target target[] = {
        {.uri = S("sip:b@one"), .to = flow(1), .q = 5},
        {.uri = S("sip:b@two;transport=tcp"),
         .route = S("<sip:edge;lr>"),
         .sent_by = S("192.0.2.100"),
         .to = flow(3),
         .q = 7},
    };
    (void)state;
    begin();
    parse_request("INVITE", 1);
    assert_int_equal(hf_sip_proxy_fork(p, &m, &from, &how, target, 2, now), 0);
    assert_int_equal(hf_sip_parse(hf_slice_str(peer[3].request), false, &m), 0);
    assert_int_equal(hf_sip_branch_worker(m.via.branch), 3);
    hf_assert_slice_str(m.uri_text, "sip:b@two;transport=tcp");
    assert_int_equal(m.via.transport, HF_SIP_TRANSPORT_TCP);
    hf_assert_slice_str(m.via.sent_by.text, "192.0.2.100");
    assert_int_equal(m.max_forwards, 69);
    assert_false(hf_sip_has(&m, HF_SIP_H_CONTACT));
    assert_non_null(strstr(peer[3].request, "\r\nRecord-Route: <sip:h.example;lr>\r\n"
                                            "Route: <sip:edge;lr>\r\n"));
    assert_non_null(strstr(peer[3].request, "Max-Breadth: 60\r\n"));
    assert_non_null(strstr(peer[3].request, ";x=1;hfl="));
    hf_assert_slice_str(m.body, "hi!");
    answer(3, 486);
    assert_int_equal(hf_sip_parse(hf_slice_str(peer[1].request), false, &m), 0);
    hf_assert_slice_str(m.via.sent_by.text, "h.example");
    assert_non_null(strstr(peer[1].request, ";x=1;hfl="));
    assert_null(strstr(peer[1].request, "\r\nRoute:"));
    answer(1, 486);
    assert_true(alice("ACK"));
    end();
}

/* RFC 5393 */
static void max_breadth(void **state)
{
    (void)state;
    begin(); /* shared; what it does not allow comes later */
    more = "Max-Breadth: 2\r\n";
    FORK("INVITE", 5, 5, 5);
    assert_non_null(strstr(peer[1].request, "Max-Breadth: 1\r\n"));
    answer(1, 486);
    answer(2, 486);
    assert_non_null(strstr(peer[3].request, "Max-Breadth: 2\r\n"));
    answer(3, 200);
    is_told("0   alice INVITE\n0 alice: 100\n0 t1: INVITE\n0 t2: INVITE\n0   t1 486\n0 t1: ACK\n"
            "0   t2 486\n0 t2: ACK\n0 t3: INVITE\n0   t3 200\n0 alice: 200\n");
    end();
    static const char *const none[] = {"Max-Breadth: 0\r\n", "Max-Breadth: x\r\n",
                                       "Max-Breadth: 7\r\nMax-Breadth: 7\r\n"};
    for (size_t i = 0; i < HF_ARRAY_LEN(none); i++) {
        begin();
        more = none[i];
        FORK("MESSAGE", 5, 5);
        if (i == 0) {
            is_told("0   alice MESSAGE\n0 alice: 440\n");
        } else { /* can't be read: one after the other */
            is_told("0   alice MESSAGE\n0 t1: MESSAGE\n");
        }
        end();
    }
    more = "";
}

/* RFC 5626: flows of one agent. */
static void flows(void **state)
{
    struct hf_sip_flow from = flow(0), to = flow(3);
    struct hf_sip_forward how = {.sent_by = S("192.0.2.100")};
    struct hf_sip_target target[5];
    static const uint32_t agent[] = {7, 0, 7, 9, 7};
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        target[i] = (struct hf_sip_target){.uri = S("sip:b@one"),
                                           .q = i == 4 ? 100 : 500,
                                           .to = flow((unsigned)i + 1),
                                           .cookie = i + 1,
                                           .agent = agent[i]};
    }
    begin(); /* one at a time; the last one has a lower q, which does not matter */
    parse_request("INVITE", 1);
    assert_int_equal(hf_sip_proxy_fork(p, &m, &from, &how, target, 5, now), 0);
    answer(1, 430);
    answer(2, 486);
    answer(4, 480);
    hf_sip_proxy_unreachable(p, &to, now);
    answer(5, 200);
    is_told("0 alice: 100\n0 t1: INVITE\n0 t2: INVITE\n0 t4: INVITE\n0   t1 430\n0 t1: ACK\n"
            "0 t1 failed: 430\n0 t3: INVITE\n0   t2 486\n0 t2: ACK\n0   t4 480\n0 t4: ACK\n"
            "0 t3 failed: 430\n0 t5: INVITE\n0   t5 200\n0 alice: 200\n");
    assert_non_null(strstr(peer[5].request, "Max-Breadth: 20\r\n"));
    end();
    begin(); /* an answer is an answer */
    parse_request("INVITE", 1);
    assert_int_equal(hf_sip_proxy_fork(p, &m, &from, &how, target, 3, now), 0);
    answer(1, 486);
    answer(2, 408);
    is_told("0 alice: 100\n0 t1: INVITE\n0 t2: INVITE\n0   t1 486\n0 t1: ACK\n0   t2 408\n"
            "0 t2: ACK\n0 t2 failed: 408\n0 alice: 486\n");
    assert_true(alice("ACK"));
    end();
    begin(); /* cancelled: no other one */
    parse_request("INVITE", 1);
    target[1].agent = 7;
    assert_int_equal(hf_sip_proxy_fork(p, &m, &from, &how, target, 2, now), 0);
    assert_true(alice("CANCEL"));
    answer(1, 430);
    assert_true(alice("ACK"));
    is_told("0 alice: 100\n0 t1: INVITE\n0   alice CANCEL\n0 alice: 200 CANCEL\n0   t1 430\n"
            "0 t1: ACK\n0 t1 failed: 430\n0 alice: 480\n0   alice ACK\n");
    end();
}

/* RFC 5393: a binding that points back here. */
static void loop(void **state)
{
    static char round[4096];
    struct hf_sip_flow from = flow(1);
    struct hf_sip_forward how = {.sent_by = S("192.0.2.100")};
    struct hf_sip_target target = {.uri = S("sip:bob@h"), .to = flow(1), .cookie = 1};
    (void)state;
    begin();
    FORK("INVITE", 5); /* to sip:b@192.0.2.1, which knows it as sip:bob@h, or as sip:carol@h */
    for (int i = 0; i < 3; i++) {
        const char *uri = strchr(peer[1].request, ' '), *rest = strstr(uri, " SIP/2.0");
        snprintf(round, sizeof(round), "INVITE %s%s", i == 0 ? "sip:carol@h" : "sip:bob@h", rest);
        assert_int_equal(hf_sip_parse(hf_slice_str(round), true, &m), 0);
        if (i == 2) { /* marks of other people's mean nothing */
            char *branch = strstr(round, HF_SIP_COOKIE);
            branch[7] = 'x';
            branch = strstr(branch + 7, HF_SIP_COOKIE);
            branch[7] = 'x';
            assert_int_equal(hf_sip_parse(hf_slice_str(round), true, &m), 0);
        }
        assert_int_equal(hf_sip_proxy_fork(p, &m, &from, &how, &target, 1, now), 0);
    }
    is_told("0   alice INVITE\n0 alice: 100\n0 t1: INVITE\n" /* t1 is the client, too */
            "0 t1: 100\n0 t1: INVITE\n0 t1: 482\n0 t1: 100\n0 t1: INVITE\n");
    assert_int_equal(hf_sip_proxy_counters(p)->looped, 1);
    told_clear(&told);
    until(60000);
    told_clear(&told);
    end();
}

/* --- requests and replies of our own --- */

static int own(const char *method, uint64_t cookie)
{
    char branch[HF_SIP_OWN_BRANCH_LEN + 1] = {0}, text[1024];
    struct hf_sip_flow to = flow(1);
    hf_sip_proxy_branch(p, branch);
    int n = snprintf(text, sizeof(text),
                     "%s sip:w SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=%s\r\nFrom: <sip:h>;tag=1\r\n"
                     "To: <sip:w>;tag=2\r\nCall-ID: n\r\nCSeq: 5 %s\r\n"
                     "Content-Length: 0\r\n\r\n",
                     method, branch, method);
    return hf_sip_proxy_own(p, hf_slice(text, (size_t)n), &to, cookie, now);
}

static void own_requests(void **state)
{
    struct hf_sip_flow to = flow(1);
    (void)state;
    begin();
    assert_int_equal(own("NOTIFY", 7), 0);
    until(600);
    answer(1, 100);
    answer(1, 200);
    answer(1, 200);
    assert_int_equal(own("NOTIFY", 8), 0);
    hf_sip_proxy_unreachable(p, &to, now);
    is_told("0 t1: NOTIFY\n500 t1: NOTIFY\n600   t1 100\n600   t1 200\n600 own 7: 200\n"
            "600   t1 200\n600 t1: NOTIFY\n600 own 8: 503 (nothing came)\n");
    assert_int_equal(own("NOTIFY", 92), 0);
    answer(1, 200);
    hf_sip_proxy_unreachable(p, &to, now); /* the one that follows tries again */
    answer(1, 200);
    is_told("600 t1: NOTIFY\n600   t1 200\n600 own 92: 200\n600 t1: NOTIFY\n"
            "600 own 91: 503 (nothing came)\n600 t1: NOTIFY\n600   t1 200\n600 own 90: 200\n");
    assert_int_equal(own("NOTIFY", 9), 0);
    until(32599);
    told_clear(&told);
    until(32600);
    is_told("32600 own 9: 408 (nothing came)\n");
    assert_int_equal(own("INVITE", 1), -HF_EMALF);
    assert_int_equal(own("ACK", 1), -HF_EMALF);
    assert_int_equal(hf_sip_proxy_own(p, S("NOTIFY"), &to, 1, now), -HF_EMALF);
    assert_int_equal(hf_sip_proxy_own(p,
                                      S("NOTIFY sip:w SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx"
                                        "\r\nFrom: <sip:h>;tag=1\r\nTo: <sip:w>\r\nCall-ID: n\r\n"
                                        "CSeq: 5 NOTIFY\r\n\r\n"),
                                      &to, 1, now),
                     -HF_EMALF);
    assert_int_equal(hf_sip_proxy_counters(p)->own, 6);
    end();
}

static void replies(void **state)
{
    struct hf_sip_flow from = flow(0);
    const struct hf_slice busy =
        S("SIP/2.0 480 Temporarily Unavailable\r\nVia: SIP/2.0/UDP 192.0.2.0;branch=z9hG4bKa1\r\n"
          "From: <sip:alice@h>;tag=a\r\nTo: <sip:bob@h>;tag=x\r\nCall-ID: c\r\n"
          "CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n");
    (void)state;
    begin();
    parse_request("INVITE", 1);
    assert_int_equal(hf_sip_proxy_reply(p, &m, &from, 480, busy, now), 0);
    assert_int_equal(hf_sip_proxy_reply(p, &m, &from, 480, busy, now), 0); /* absorbed */
    until(600);
    assert_true(alice("CANCEL"));
    assert_true(alice("INVITE"));
    assert_true(alice("ACK"));
    until(10000);
    is_told("0 alice: 480\n0 alice: 480\n500 alice: 480\n600   alice CANCEL\n"
            "600 alice: 200 CANCEL\n600   alice INVITE\n600 alice: 480\n600   alice ACK\n");
    parse_request("ACK", 1);
    assert_int_equal(hf_sip_proxy_reply(p, &m, &from, 480, busy, now), -HF_EVALUE);
    end();
}

static void where_answers_go(void **state)
{
    struct hf_sip_flow from = flow(2), to;
    static const char rest[] =
        "From: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: c\r\nCSeq: 1 BYE\r\n";
    static const struct {
        const char *via;
        uint16_t port;
    } cases[] = {
        {"SIP/2.0/UDP h;branch=z9hG4bK1", 5060},
        {"SIP/2.0/UDP h:5080;branch=z9hG4bK1;maddr=192.0.2.9", 5080},
        {"SIP/2.0/UDP h:5080;branch=z9hG4bK1;rport", 40000},
    };
    (void)state;
    from.peer.port = 40000;
    for (size_t i = 0; i < HF_ARRAY_LEN(cases); i++) {
        char text[512];
        int n = snprintf(text, sizeof(text), "BYE sip:b SIP/2.0\r\nVia: %s\r\n%s\r\n", cases[i].via,
                         rest);
        assert_int_equal(hf_sip_parse(hf_slice(text, (size_t)n), false, &m), 0);
        to = hf_sip_flow_back(&m, &from);
        assert_int_equal(to.peer.port, cases[i].port);
        assert_int_equal(to.peer.addr[3], 2);
        from.transport = HF_SIP_TRANSPORT_TCP;
        to = hf_sip_flow_back(&m, &from);
        assert_int_equal(to.peer.port, 40000);
        from.transport = HF_SIP_TRANSPORT_UDP;
    }
}

/* --- limits --- */

static void full(void **state)
{
    struct hf_sip_flow from = flow(0), to = flow(1);
    struct hf_sip_forward how = {.sent_by = S("h")};
    struct hf_sip_target target = {.uri = S("sip:b@one"), .to = to};
    const struct hf_sip_proxy_conf small = {.bytes_max = 4000};
    (void)state;
    begin();
    for (unsigned i = 0; i < 16; i++) {
        parse_request("INVITE", i);
        assert_int_equal(hf_sip_proxy_fork(p, &m, &from, &how, &target, 1, now), 0);
    }
    parse_request("INVITE", 99);
    assert_int_equal(hf_sip_proxy_fork(p, &m, &from, &how, &target, 1, now), -HF_EFULL);
    assert_int_equal(hf_sip_proxy_reply(p, &m, &from, 480, S("x"), now), -HF_EFULL);
    assert_int_equal(own("NOTIFY", 1), -HF_EFULL);
    assert_int_equal(hf_sip_proxy_counters(p)->full, 3);
    assert_int_equal(hf_sip_proxy_count(p), 32);
    for (unsigned i = 0; i < 16; i++) { /* a retransmission is none */
        parse_request("INVITE", i);
        assert_int_equal(hf_sip_proxy_fork(p, &m, &from, &how, &target, 1, now), 0);
    }
    told_clear(&told);
    until(33000);
    told_clear(&told);
    end();
    begin(); /* what may not begin */
    parse_request("ACK", 1);
    assert_int_equal(hf_sip_proxy_fork(p, &m, &from, &how, &target, 1, now), -HF_EVALUE);
    parse_request("CANCEL", 1);
    assert_int_equal(hf_sip_proxy_fork(p, &m, &from, &how, &target, 1, now), -HF_EVALUE);
    parse_request("INVITE", 1);
    m.max_forwards = 0;
    assert_int_equal(hf_sip_proxy_fork(p, &m, &from, &how, &target, 1, now), -HF_EVALUE);
    end();
    told_clear(&told); /* in bytes */
    assert_int_equal(hf_sip_proxy_create(&small, &ops, NULL, &p), 0);
    size_t n = 0;
    do {
        parse_request("INVITE", (unsigned)n++);
    } while (hf_sip_proxy_fork(p, &m, &from, &how, &target, 1, now) == 0);
    assert_true(n > 1 && n < 6);
    assert_true(hf_sip_proxy_bytes(p) <= 4000);
    told_clear(&told);
    until(now / HF_NS_PER_MS + 33000);
    told_clear(&told);
    end();
}

/* Whichever allocation fails: the client is answered, and nothing stays. */
static void no_memory(void **state)
{
    static const uint16_t q[] = {5, 5, 1};
    int rc = 1;
    (void)state;
    for (int64_t n = 0; n < 24; n++) {
        begin();
        hf_mem_fail_after(n);
        rc = fork_to("INVITE", 3, q);
        if (rc == 0 && peer[1].request[0]) {
            answer(1, 180);
            answer(1, 486);
        }
        if (rc == 0 && peer[2].request[0]) {
            answer_with(2, 401, "WWW-Authenticate: Digest realm=\"r\"\r\n");
        }
        hf_mem_fail_after(-1);
        if (rc == 0 && peer[3].request[0]) {
            answer_with(3, 407, "Proxy-Authenticate: Digest realm=\"r\"\r\n");
        }
        if (rc) {
            assert_int_equal(rc, -ENOMEM);
            assert_int_equal(hf_sip_proxy_count(p), 0);
        } else {
            assert_non_null(strstr(told.text, "alice: 100\n"));
            assert_true(strstr(told.text, "alice: 4") || strstr(told.text, "alice: 5"));
        }
        end();
    }
    assert_int_equal(rc, 0);
    const struct hf_sip_proxy_conf conf = {.transactions_max = 1};
    rc = -ENOMEM;
    for (int64_t n = 0; rc; n++) {
        hf_mem_fail_after(n);
        rc = hf_sip_proxy_create(&conf, &ops, NULL, &p);
        hf_mem_fail_after(-1);
    }
    hf_sip_proxy_destroy(p);
    hf_sip_proxy_destroy(NULL);
    begin(); /* in the middle of everything */
    assert_int_equal(fork_to("INVITE", 3, q), 0);
    answer(1, 180);
    answer(2, 200);
    hf_sip_proxy_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(parallel),    HF_TEST(serial),
        HF_TEST(cancelled),   HF_TEST(busy_everywhere),
        HF_TEST(challenges),  HF_TEST(rings_for_ever),
        HF_TEST(unreachable), HF_TEST(messages),
        HF_TEST(best),        HF_TEST(forwarded),
        HF_TEST(max_breadth), HF_TEST(flows),
        HF_TEST(loop),        HF_TEST(own_requests),
        HF_TEST(replies),     HF_TEST(where_answers_go),
        HF_TEST(full),        HF_TEST(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
