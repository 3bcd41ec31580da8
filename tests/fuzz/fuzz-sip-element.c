/* A SIP server's core under anything: messages good and broken, results of its store in any order
 * or never, names, broken connections, peers, the feed, time. What it sends must be messages again,
 * it waits for no more than it may, and strangers' marks leave it with nobody. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "core/sip/element.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define S(x) hf_slice((x), sizeof(x) - 1)
#define OPS 32

static struct hf_sip_msg m, sent;
static struct {
    uint8_t kind;
    uint64_t cookie;
    char aor[HF_SIP_AOR_MAX];
    size_t n;
} ops[OPS];
static size_t n_ops;
static uint64_t names[8];
static size_t n_names;
static struct hf_sip_flow last; /* the last flow that something went to */

static void on_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice s)
{
    (void)ctx;
    int rc = hf_sip_parse(s, false, &sent);
    /* what was broken is answered as far as it can be */
    assert(rc == 0 || !sent.request);
    assert(s.n <= HF_SIP_MESSAGE_MAX);
    last = *to;
}

static void on_store(void *ctx, const struct hf_sip_op *op)
{
    (void)ctx;
    size_t i = n_ops++ % OPS;
    ops[i].kind = op->kind;
    ops[i].cookie = op->cookie;
    ops[i].n = op->aor.n <= HF_SIP_AOR_MAX ? op->aor.n : 0;
    if (ops[i].n) {
        memcpy(ops[i].aor, op->aor.p, ops[i].n);
    }
    for (size_t k = 0; k < op->n_binds; k++) {
        assert(op->bind[k].key.n > 0);
        assert(op->bind[k].erase || op->bind[k].b.uri.n > 0);
    }
}

static void on_resolve(void *ctx, uint64_t cookie, const struct hf_sip_uri *uri)
{
    (void)ctx;
    assert(uri->host.text.n > 0);
    names[n_names++ % 8] = cookie;
}

static void on_trace(void *ctx, struct hf_slice aor, const char *what,
                     const struct hf_sip_flow *flow, struct hf_slice text)
{
    (void)ctx;
    (void)flow;
    (void)text;
    assert(aor.n && what[0]);
}

static const struct hf_sip_element_ops element_ops = {
    .send = on_send, .store = on_store, .resolve = on_resolve, .trace = on_trace};

static struct hf_endpoint at(uint8_t a, uint8_t d)
{
    return (struct hf_endpoint){.family = HF_AF_INET, .addr = {a, 0, 0, d}, .port = 5060};
}

static struct hf_sip_element *make(uint8_t how, hf_time now)
{
    static const uint8_t key[HF_SIP_NONCE_KEY_LEN] = "k";
    struct hf_sip_listen listen[3] = {
        {.transport = HF_SIP_TRANSPORT_UDP, .at = at(10, 1), .host = S("10.0.0.1")},
        {.transport = HF_SIP_TRANSPORT_TCP, .at = at(10, 1), .host = S("10.0.0.1")},
        {.transport = HF_SIP_TRANSPORT_UDP,
         .at = at(11, 1),
         .host = S("h.example"),
         .external = true}};
    struct hf_slice domain[2] = {S("h"), S("example.com")};
    struct hf_sip_element_conf c = {.role = how % HF_SIP_ROLE_COUNT_,
                                    .name = S("alpha"),
                                    .realm = S("h"),
                                    .domain = domain,
                                    .n_domains = 2,
                                    .listen = listen,
                                    .n_listen = 3,
                                    .must_authenticate = how & 8,
                                    .key = key,
                                    .seed = how,
                                    .bindings_max = 8,
                                    .transactions_max = 8,
                                    .requests_max = 4,
                                    .cache_max = 1 << 20,
                                    .source_rate = 1000};
    struct hf_sip_element *e;
    uint16_t no;
    for (size_t i = 0; i < 3; i++) {
        listen[i].policy = (uint8_t)(how >> 4) % HF_SIP_POLICY_COUNT_;
    }
    int rc = hf_sip_element_create(&c, &element_ops, NULL, now, 1000, &e);
    assert(rc == 0);
    struct hf_sip_peer p = {.name = S("beta"),
                            .host = S("10.0.0.2"),
                            .now = {.state = HF_SIP_SERVER_LIVE, .homes = true, .weight = 1},
                            .at = {at(10, 2)}};
    rc = hf_sip_element_peer(e, &p, &no);
    assert(rc == 0);
    p.name = S("alpha");
    rc = hf_sip_element_peer(e, &p, &no);
    assert(rc == 0);
    hf_sip_element_feed(e, &(struct hf_sip_feed){.there = true, .change = 1}, now);
    hf_sip_element_trace(e, S("sip:a@h"));
    return e;
}

static struct hf_sip_flow flow(uint8_t how)
{
    return (struct hf_sip_flow){.transport = how & 1 ? HF_SIP_TRANSPORT_TCP : HF_SIP_TRANSPORT_UDP,
                                .local = at(how & 2 ? 11 : 10, 1),
                                .peer = at(192, how),
                                .conn = how & 1 ? how : 0};
}

static void result(struct hf_sip_element *e, uint8_t which, uint8_t how, hf_time now)
{
    static const char *const stored[] = {"sip:x@9.9.9.9", "sip:y@9.9.9.9;transport=tcp", "x",
                                         "sip:z@name.example"};
    size_t i = which % OPS;
    struct hf_sip_stored_binding b = {.aor = hf_slice(ops[i].aor, ops[i].n),
                                      .uri = hf_slice_str(stored[how & 3]),
                                      .call_id = S("c"),
                                      .path = how & 4 ? S("<sip:10.0.0.2;lr>") : S(""),
                                      .cseq = 1,
                                      .life_s = 600,
                                      .left_s = 300};
    struct hf_sip_result r = {.kind = ops[i].kind,
                              .done = how & 3,
                              .cookie = ops[i].cookie,
                              .aor = hf_slice(ops[i].aor, ops[i].n),
                              .have_row = how & 4,
                              .row = {.aor = hf_slice(ops[i].aor, ops[i].n),
                                      .home = how >> 3 & 1,
                                      .current = how >> 3 & 1,
                                      .epoch = 1u + (how >> 4)},
                              .user_known = how & 8,
                              .algorithms = how & 16 ? 2 : 0,
                              .binding = &b,
                              .n_bindings = 1};
    if (i < n_ops && ops[i].n) {
        hf_sip_element_done(e, &r, now);
    }
}

static void row(struct hf_sip_element *e, uint8_t how, hf_time now)
{
    static const char *const aors[] = {"sip:a@h", "sip:b@h", "sip:ann@example.com", "tel:+1"};
    struct hf_slice aor = hf_slice_str(aors[how & 3]);
    struct hf_sip_row r = {
        .aor = aor, .home = how >> 2 & 1, .current = how >> 2 & 1, .epoch = 1u + (how >> 3)};
    bool gone = how >= 0xf8;
    hf_sip_element_feed(e,
                        &(struct hf_sip_feed){.there = (how & 0x3c) != 0x3c,
                                              .row = &r,
                                              .n = !gone,
                                              .deleted = &aor,
                                              .n_deleted = gone,
                                              .change = how & 1},
                        now);
}

static void check(struct hf_sip_element *e, hf_time now)
{
    struct hf_sip_element_info info;
    struct hf_buf b;
    hf_sip_element_info(e, &info);
    assert(info.waiting <= 4 && info.bindings <= 8 && info.rows <= info.cached);
    hf_buf_init(&b, 1 << 20);
    hf_sip_element_show(e, S("sip:a@h"), now, &b);
    assert(b.err == 0 && b.n > 2 && b.p[b.n - 1] == '}');
    hf_buf_fini(&b);
}

/* Steps: what, a byte of how, and for messages two bytes of length and the text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    hf_time now = HF_S(10);
    uint32_t wall = 1000;
    if (n < 1) {
        return 0;
    }
    n_ops = n_names = 0;
    memset(ops, 0, sizeof(ops));
    struct hf_sip_element *e = make(data[0], now);
    for (size_t i = 1; i + 2 <= n;) {
        uint8_t what = data[i], how = data[i + 1];
        struct hf_sip_flow f = flow(how);
        i += 2;
        switch (what % 8) {
        case 0:
        case 1:
            if (i + 2 <= n) {
                size_t want = (size_t)data[i] << 8 | data[i + 1];
                i += 2;
                want = want < n - i ? want : n - i;
                (void)!hf_sip_parse(hf_slice(data + i, want), f.conn != 0, &m);
                assert(hf_sip_element_owner(&m, 3) <= 3);
                hf_sip_element_message(e, &m, &f, now, wall);
                i += want;
            }
            break;
        case 2:
            result(e, what >> 3, how, now);
            break;
        case 3:
            row(e, how, now);
            break;
        case 4:
            now += HF_MS(1) << (how & 15);
            wall += (uint32_t)((HF_MS(1) << (how & 15)) / HF_NS_PER_S);
            hf_sip_element_tick(e, now, wall);
            break;
        case 5:
            hf_sip_element_unreachable(e, how & 128 ? &last : &f, now);
            break;
        case 6:
            hf_sip_element_resolved(e, names[how & 7], &f, how >> 4 & 1, now);
            break;
        default: {
            /* the last op's result, as it should be: so that fuzzing gets somewhere */
            uint8_t at_last = (uint8_t)((n_ops + OPS - 1) % OPS);
            result(e, at_last, how, now);
        }
        }
    }
    check(e, now);
    hf_sip_element_destroy(e);
    return 0;
}
