/* The proxy core under any sequence of messages and time: what it sends can be read, each request
 * has one final answer (2xx of an INVITE may be several), and at the end nothing is left. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "core/sip/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define S(x) hf_slice((x), sizeof(x) - 1)
#define N_CALLS 8
#define N_TARGETS 4

static const char *const methods[] = {"INVITE", "INVITE", "MESSAGE", "ACK", "CANCEL", "BYE"};
static const uint16_t statuses[] = {100, 180, 183, 200, 202, 302, 401, 404, 407, 408, 415,
                                    430, 480, 486, 487, 500, 503, 600, 603, 199, 299, 699};
static struct hf_sip_proxy *p;
static struct hf_sip_msg m, sent;
static hf_time now;
static uint16_t final[N_CALLS * 2]; /* by Call-ID; CANCELs and what is odd is not counted */
static bool bent; /* a target has answered nonsense: who is answered can't be told any more */
static uint32_t own_open, own_n;
static char last[N_TARGETS][4096]; /* the last request to each target */
static size_t last_n[N_TARGETS];

static struct hf_sip_flow flow(unsigned i)
{
    return (struct hf_sip_flow){
        .transport = i & 1 ? HF_SIP_TRANSPORT_TCP : HF_SIP_TRANSPORT_UDP,
        .peer = {.family = HF_AF_INET, .addr = {10, 0, 0, (uint8_t)i}, .port = 5060},
        .conn = i & 1 ? i : 0};
}

/* Of a request as request() makes it, with a branch by which it is known; NULL: another one. */
static uint16_t *final_of(const struct hf_sip_msg *of)
{
    if (bent || of->method == HF_SIP_CANCEL || of->call_id.n != 2 || of->call_id.p[0] != 'c' ||
        !((of->call_id.p[1] - 'a') & 1)) {
        return NULL;
    }
    return &final[(unsigned)(of->call_id.p[1] - 'a') % N_CALLS * 2 + (of->method != HF_SIP_INVITE)];
}

static void check_final(void)
{
    uint16_t *had = final_of(&sent);
    if (!had) {
        return;
    }
    if (sent.status < 200) {
        assert(sent.method == HF_SIP_INVITE || sent.status == 100);
        assert(*had == 0);
        return;
    }
    assert(sent.method == HF_SIP_INVITE || sent.status != 408);
    assert(*had == 0 || *had == sent.status ||
           (*had < 300 && sent.status < 300 && sent.method == HF_SIP_INVITE));
    *had = *had ? *had : sent.status;
}

static void on_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    unsigned i = to->peer.addr[3];
    (void)ctx;
    int rc = hf_sip_parse(message, true, &sent);
    assert(rc == 0 || sent.fault == HF_SIP_FAULT_SCHEME);
    if (!sent.request) {
        check_final();
    } else if (i >= 100 && message.n <= sizeof(last[0]) && sent.method != HF_SIP_ACK) {
        memcpy(last[i - 100], message.p, message.n);
        last_n[i - 100] = message.n;
    }
}

static void on_answered(void *ctx, uint64_t cookie, uint16_t status, const struct hf_sip_msg *r)
{
    (void)ctx;
    assert(cookie < 32 && (own_open >> cookie & 1) && status >= 200 && (!r || r->status == status));
    own_open &= ~(1u << cookie);
}

static void on_failed(void *ctx, struct hf_slice aor, uint64_t cookie, uint16_t status)
{
    (void)ctx;
    (void)aor;
    assert(cookie < N_TARGETS && (status == 408 || status == 430 || status == 503));
}

static void fork_or_absorb(const struct hf_sip_msg *of, uint8_t mask, uint8_t qs)
{
    static const char *const uris[] = {"sip:b@t0", "sip:b@t1;transport=tcp", "tel:+15550100",
                                       "mailto:b@t3"};
    struct hf_sip_target target[N_TARGETS];
    struct hf_sip_flow from = flow(mask >> 4 & 1);
    struct hf_sip_forward how = {.sent_by = S("p:5060"), .via_params = S(";v")};
    size_t n = 0;
    for (unsigned i = 0; i < N_TARGETS; i++) {
        if (mask >> i & 1) {
            target[n++] = (struct hf_sip_target){.uri = hf_slice_str(uris[i]),
                                                 .route = qs & 128 ? S("<sip:r;lr>") : S(""),
                                                 .q = (uint16_t)(qs >> i & 1),
                                                 .to = flow(100 + i),
                                                 .cookie = i,
                                                 .agent = qs >> 5 & 3 & i};
        }
    }
    if (!hf_sip_proxy_absorb(p, of, &from, now) && n) {
        uint16_t *had = final_of(of);
        if (had) {
            *had = 0; /* its transaction is over: this is another request */
        }
        int rc = hf_sip_proxy_fork(p, of, &from, &how, target, n, now);
        assert(rc == 0 || rc == -HF_EFULL || rc == -HF_EVALUE);
    }
}

/* A request of call x, by method; an INVITE and what belongs to it have one branch. */
static void request(uint8_t what, uint8_t mask, uint8_t qs)
{
    static const char *const odd[] = {"", "Max-Breadth: 1\r\n", "Max-Forwards: 0\r\n",
                                      "Max-Breadth: 3\r\nSupported: x\r\n"};
    char text[1024];
    unsigned x = what % N_CALLS;
    const char *method = methods[(what / N_CALLS) % HF_ARRAY_LEN(methods)];
    bool other = strcmp(method, "MESSAGE") == 0 || strcmp(method, "BYE") == 0;
    int n = snprintf(text, sizeof(text),
                     "%s sip:u@h SIP/2.0\r\nVia: SIP/2.0/UDP c%s%u%s%s\r\n%s"
                     "From: <sip:f@h>;tag=1\r\nTo: <sip:u@h>\r\nCall-ID: c%c\r\nCSeq: 1 %s\r\n"
                     "Content-Length: 0\r\n\r\n",
                     method, x & 1 ? ";branch=z9hG4bK" : ";old=", x, other ? method : "",
                     mask & 32 ? ";rport" : "", odd[mask >> 6], (char)('a' + x), method);
    int rc = hf_sip_parse(hf_slice(text, (size_t)n), false, &m);
    assert(rc == 0);
    if (strcmp(method, "BYE") == 0 && !hf_sip_proxy_absorb(p, &m, &(struct hf_sip_flow){0}, now)) {
        struct hf_sip_flow from = flow(0);
        static const char reply[] = "SIP/2.0 481 X\r\nVia: SIP/2.0/UDP c\r\nFrom: <sip:f>;tag=1\r\n"
                                    "To: <sip:u>;tag=2\r\nCall-ID: y\r\nCSeq: 1 BYE\r\n"
                                    "Content-Length: 0\r\n\r\n";
        rc = hf_sip_proxy_reply(p, &m, &from, 481, S(reply), now);
        assert(rc == 0 || rc == -HF_EFULL);
        return;
    }
    fork_or_absorb(&m, mask, qs);
}

/* A response to the last request that a target had, or one like it. */
static void response(uint8_t who, uint8_t status, uint8_t bend)
{
    static struct hf_sip_msg of;
    char text[8192], tag[] = "t0";
    struct hf_wr w;
    struct hf_slice message;
    unsigned i = who % N_TARGETS;
    struct hf_sip_flow from = flow(100 + i);
    if (last_n[i] == 0) {
        return;
    }
    int rc = hf_sip_parse(hf_slice(last[i], last_n[i]), true, &of);
    assert(rc == 0 || of.fault == HF_SIP_FAULT_SCHEME);
    tag[1] = (char)('0' + i + (bend & 4));
    hf_wr_init(&w, text, sizeof(text));
    rc = hf_sip_begin_response(&w, &of, statuses[status % HF_ARRAY_LEN(statuses)], S(""),
                               hf_slice_str(tag), NULL);
    assert(rc == 0);
    hf_sip_put_str(&w, "WWW-Authenticate: Digest realm=\"r\"\r\n");
    rc = hf_sip_end(&w, S(""), S("x"), &message);
    assert(rc == 0);
    if (bend & 128) { /* any byte of it */
        bent = true;
        text[(size_t)who * status % message.n] ^= (char)(bend & 127);
    }
    if (hf_sip_parse(message, true, &of) == 0 && !of.request) {
        (void)hf_sip_proxy_response(p, &of, &from, now);
    }
}

static void own(uint8_t who)
{
    char branch[HF_SIP_OWN_BRANCH_LEN], text[512];
    struct hf_sip_flow to = flow(100 + who % N_TARGETS);
    if (own_n == 32) {
        return;
    }
    hf_sip_proxy_branch(p, branch);
    int n = snprintf(text, sizeof(text),
                     "NOTIFY sip:w SIP/2.0\r\nVia: SIP/2.0/UDP p;branch=%.*s\r\n"
                     "From: <sip:h>;tag=1\r\nTo: <sip:w>;tag=2\r\nCall-ID: n\r\nCSeq: 5 NOTIFY\r\n"
                     "Content-Length: 0\r\n\r\n",
                     (int)sizeof(branch), branch);
    int rc = hf_sip_proxy_own(p, hf_slice(text, (size_t)n), &to, own_n, now);
    assert(rc == 0 || rc == -HF_EFULL);
    own_open |= rc == 0 ? 1u << own_n : 0;
    own_n++;
}

static void pass(hf_time span)
{
    for (hf_time end = now + span; now < end;) {
        hf_time next = hf_sip_proxy_deadline(p);
        now = next > end ? end : next > now ? next : now;
        hf_sip_proxy_tick(p, now);
        assert(hf_sip_proxy_deadline(p) > now);
    }
}

/* What is read from here is a message; how long it is. */
static size_t raw(const uint8_t *data, size_t n)
{
    static struct hf_sip_msg any;
    size_t len = n < 2 ? n : 2 + ((size_t)data[0] << 8 | data[1]) % 1024;
    struct hf_slice s = hf_slice(data + (n < 2 ? n : 2), len > n || n < 2 ? 0 : len - 2);
    struct hf_sip_flow from = flow(0);
    if (hf_sip_parse(s, false, &any) == 0) {
        if (!any.request) {
            (void)hf_sip_proxy_response(p, &any, &from, now);
        } else if (any.call_id.n != 2) {
            fork_or_absorb(&any, 0x0f, 0x05);
        }
    }
    return len < n ? len : n;
}

static size_t step(const uint8_t *d, size_t n)
{
    struct hf_sip_flow to = flow(100 + d[1] % N_TARGETS);
    switch (d[0] % 8) {
    case 0:
    case 1:
        request(d[1], d[2], d[3]);
        break;
    case 2:
    case 3:
        response(d[1], d[2], d[3]);
        break;
    case 4:
        pass((hf_time)d[1] * d[1] * HF_MS(5) + d[2]);
        break;
    case 5:
        hf_sip_proxy_unreachable(p, &to, now);
        break;
    case 6:
        own(d[1]);
        break;
    default:
        return 1 + raw(d + 1, n - 1);
    }
    return 4;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct hf_sip_proxy_ops ops = {
        .send = on_send, .answered = on_answered, .failed = on_failed};
    const struct hf_sip_proxy_conf conf = {.seed = 1, .transactions_max = 24, .bytes_max = 40000};
    now = HF_S(1);
    bent = false;
    own_open = own_n = 0;
    memset(final, 0, sizeof(final));
    memset(last_n, 0, sizeof(last_n));
    int rc = hf_sip_proxy_create(&conf, &ops, NULL, &p);
    assert(rc == 0);
    for (size_t at = 0; at + 4 <= n && at < 4096;) {
        at += step(data + at, n - at);
        assert(hf_sip_proxy_count(p) <= conf.transactions_max);
        assert(hf_sip_proxy_bytes(p) <= conf.bytes_max);
    }
    pass(HF_S(4000));
    assert(hf_sip_proxy_count(p) == 0 && hf_sip_proxy_bytes(p) == 0 && own_open == 0);
    assert(hf_sip_proxy_deadline(p) == HF_NEVER);
    hf_sip_proxy_destroy(p);
    return 0;
}
