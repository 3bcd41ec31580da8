#include "support/sip_element_rig.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sip/digest.h"
#include "core/sip/mark.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static const uint8_t key[HF_SIP_NONCE_KEY_LEN] = "the key of the cluster";
static struct hf_sip_msg msg;

static struct hf_endpoint at(uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint16_t port)
{
    return (struct hf_endpoint){.family = HF_AF_INET, .addr = {a, b, c, d}, .port = port};
}

/* --- what the element says --- */

static void on_send(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    struct rig *r = ctx;
    if (r->n_sent == RIG_SENT) {
        return;
    }
    struct rig_sent *s = &r->sent[r->n_sent++];
    s->to = *to;
    s->n = message.n < sizeof(s->text) ? message.n : sizeof(s->text) - 1;
    memcpy(s->text, message.p, s->n);
    s->text[s->n] = 0;
    if (to->conn && to->conn == r->breaks) {
        hf_sip_element_unreachable(r->e, to, r->now);
    }
}

static struct hf_slice keep(struct rig_op *o, size_t *n, struct hf_slice s)
{
    if (*n + s.n > sizeof(o->text)) {
        return hf_slice(NULL, 0);
    }
    struct hf_slice kept = hf_slice(o->text + *n, s.n);
    if (s.n) {
        memcpy(o->text + *n, s.p, s.n);
    }
    *n += s.n;
    return kept;
}

static void on_store(void *ctx, const struct hf_sip_op *op)
{
    struct rig *r = ctx;
    size_t n = 0;
    assert(r->n_ops < RIG_OPS);
    struct rig_op *o = &r->op[r->n_ops++];
    o->op = *op;
    o->op.aor = keep(o, &n, op->aor);
    o->op.user = keep(o, &n, op->user);
    o->op.realm = keep(o, &n, op->realm);
    o->op.row.aor = o->op.aor;
    o->op.kept.key = keep(o, &n, op->kept.key);
    o->op.kept.data = keep(o, &n, op->kept.data);
    for (size_t i = 0; i < op->n_binds; i++) {
        o->bind[i] = op->bind[i];
        o->bind[i].key = keep(o, &n, op->bind[i].key);
        o->bind[i].b.uri = keep(o, &n, op->bind[i].b.uri);
        o->bind[i].b.path = keep(o, &n, op->bind[i].b.path);
    }
    o->op.bind = o->bind;
}

static void on_resolve(void *ctx, uint64_t cookie, const struct hf_sip_uri *uri)
{
    struct rig *r = ctx;
    r->resolve = cookie;
    snprintf(r->name, sizeof(r->name), "%.*s", HF_SLICE_FMT(uri->host.text));
}

static void on_trace(void *ctx, struct hf_slice aor, const char *what,
                     const struct hf_sip_flow *flow, struct hf_slice text)
{
    struct rig *r = ctx;
    size_t n = strlen(r->traced);
    (void)aor;
    (void)flow;
    if (strcmp(what, "recv") != 0 && strcmp(what, "send") != 0) {
        size_t at = strlen(r->rules);
        snprintf(r->rules + at, sizeof(r->rules) - at, "%s%s: %.*s", at ? "; " : "", what,
                 HF_SLICE_FMT(text));
    }
    snprintf(r->traced + n, sizeof(r->traced) - n, "%s ", what);
}

static bool on_here(void *ctx, size_t i)
{
    (void)i;
    return !((const struct rig *)ctx)->gone;
}

/* --- life --- */

struct hf_sip_element_conf rig_conf(void)
{
    static struct hf_sip_listen listen[3];
    static struct hf_slice domain[1];
    static const uint8_t t[3] = {HF_SIP_TRANSPORT_UDP, HF_SIP_TRANSPORT_TCP, HF_SIP_TRANSPORT_TLS};
    for (size_t i = 0; i < 3; i++) {
        listen[i] = (struct hf_sip_listen){.transport = t[i],
                                           .at = at(10, 0, 0, 1, i == 2 ? 5061 : 5060),
                                           .host = S("10.0.0.1"),
                                           .policy = HF_SIP_POLICY_REDIRECT};
    }
    domain[0] = S("example.com");
    return (struct hf_sip_element_conf){.role = HF_SIP_ROLE_HOME,
                                        .name = S("alpha"),
                                        .realm = S("example.com"),
                                        .domain = domain,
                                        .n_domains = 1,
                                        .listen = listen,
                                        .n_listen = 3,
                                        .key = key,
                                        .seed = 7,
                                        .bindings_max = 1000,
                                        .cache_max = 1 << 22,
                                        .source_rate = 100000};
}

void rig_peer(struct rig *r, const char *name, enum hf_sip_server_state state, bool busy)
{
    uint8_t last = (uint8_t)(name[0] - 'a' == 6 ? 3 : name[0] - 'a' + 1);
    char host[16];
    uint16_t no;
    snprintf(host, sizeof(host), "10.0.0.%u", last);
    struct hf_sip_peer p = {
        .name = hf_slice_str(name),
        .host = hf_slice_str(host),
        .now = {.state = (uint8_t)state, .homes = true, .busy = busy, .weight = 10},
        .at = {at(10, 0, 0, last, 5060), at(10, 0, 0, last, 5060), at(10, 0, 0, last, 5061)}};
    int rc = hf_sip_element_peer(r->e, &p, &no);
    assert(rc == 0);
}

uint16_t rig_number(struct rig *r, const char *name)
{
    (void)r;
    return strcmp(name, "alpha") == 0 ? 0 : strcmp(name, "beta") == 0 ? 1 : 2;
}

void rig_open(struct rig *r, const struct hf_sip_element_conf *conf)
{
    static const struct hf_sip_element_ops ops = {.send = on_send,
                                                  .store = on_store,
                                                  .resolve = on_resolve,
                                                  .trace = on_trace,
                                                  .here = on_here};
    memset(r, 0, sizeof(*r));
    r->now = HF_S(1000);
    r->wall_s = 1800000000;
    int rc = hf_sip_element_create(conf, &ops, r, r->now, r->wall_s, &r->e);
    assert(rc == 0);
    rig_peer(r, "alpha", HF_SIP_SERVER_LIVE, false);
    rig_peer(r, "beta", HF_SIP_SERVER_LIVE, false);
    rig_peer(r, "gamma", HF_SIP_SERVER_LIVE, false);
    rig_feed(r, true, 1);
    rig_from(r, 1, HF_SIP_TRANSPORT_UDP, 0);
}

void rig_close(struct rig *r)
{
    hf_sip_element_destroy(r->e);
    r->e = NULL;
}

/* --- messages --- */

void rig_from(struct rig *r, uint8_t last, unsigned transport, uint64_t conn)
{
    r->from = (struct hf_sip_flow){
        .transport = (uint8_t)transport,
        .local = at(10, 0, 0, 1, transport == HF_SIP_TRANSPORT_TLS ? 5061 : 5060),
        .peer = last > 100 ? at(10, 0, 0, (uint8_t)(last - 100), 5060) : at(192, 0, 2, last, 5060),
        .conn = conn};
}

void rig_in_n(struct rig *r, const char *text, size_t n)
{
    r->n_sent = r->n_ops = 0;
    r->rules[0] = 0;
    (void)!hf_sip_parse(hf_slice(text, n), false, &msg);
    hf_sip_element_message(r->e, &msg, &r->from, r->now, r->wall_s);
}

void rig_in(struct rig *r, const char *text)
{
    static char crlf[16384];
    size_t n = 0;
    for (; *text; text++) {
        assert(n + 2 < sizeof(crlf));
        if (*text == '\n' && (n == 0 || crlf[n - 1] != '\r')) {
            crlf[n++] = '\r';
        }
        crlf[n++] = *text;
    }
    rig_in_n(r, crlf, n);
}

void rig_reply(struct rig *r, unsigned status)
{
    static const char *const copied[] = {"Via:", "From:", "To:", "Call-ID:", "CSeq:"};
    static char request[8192], response[8192];
    snprintf(request, sizeof(request), "%s", rig_out(r, r->n_sent - 1));
    int n = snprintf(response, sizeof(response), "SIP/2.0 %u So\r\n", status);
    char *line = strstr(request, "\r\n") + 2;
    for (char *end; (end = strstr(line, "\r\n")) != NULL && end != line; line = end + 2) {
        for (size_t i = 0; i < HF_ARRAY_LEN(copied); i++) {
            if (strncmp(line, copied[i], strlen(copied[i])) == 0) {
                bool tag = i == 2 && !memmem(line, (size_t)(end - line), ";tag=", 5);
                n += snprintf(response + n, sizeof(response) - (size_t)n, "%.*s%s\r\n",
                              (int)(end - line), line, tag ? ";tag=reply" : "");
            }
        }
    }
    snprintf(response + n, sizeof(response) - (size_t)n, "Content-Length: 0\r\n\r\n");
    rig_in(r, response);
}

void rig_pass(struct rig *r, hf_time t)
{
    hf_time end = r->now + t;
    uint32_t wall = r->wall_s;
    hf_time begin = r->now;
    r->n_sent = r->n_ops = 0;
    for (unsigned i = 0; i < 100000; i++) {
        hf_time next = hf_sip_element_deadline(r->e);
        r->now = next > r->now ? next : r->now;
        if (r->now >= end || i > 50000) {
            break;
        }
        r->wall_s = wall + (uint32_t)((r->now - begin) / HF_NS_PER_S);
        hf_sip_element_tick(r->e, r->now, r->wall_s);
    }
    r->now = end;
    r->wall_s = wall + (uint32_t)(t / HF_NS_PER_S);
    hf_sip_element_tick(r->e, r->now, r->wall_s);
}

const char *rig_out(const struct rig *r, size_t i)
{
    return i < r->n_sent ? r->sent[i].text : "";
}

unsigned rig_status(const struct rig *r, size_t i)
{
    const char *s = rig_out(r, i);
    return strncmp(s, "SIP/2.0 ", 8) == 0 ? (unsigned)atoi(s + 8) : 0;
}

/* --- the store --- */

const struct hf_sip_op *rig_asked(const struct rig *r, enum hf_sip_op_kind kind)
{
    return r->n_ops && r->op[r->n_ops - 1].op.kind == kind ? &r->op[r->n_ops - 1].op : NULL;
}

static struct hf_sip_result result_of(struct rig *r, struct rig_op *copy, enum hf_sip_done done)
{
    assert(r->n_ops);
    const struct rig_op *op = &r->op[r->n_ops - 1];
    *copy = *op;
    for (size_t i = 0; i < copy->op.n_binds; i++) {
        copy->bind[i].key.p =
            (const uint8_t *)copy->text + (op->bind[i].key.p - (const uint8_t *)op->text);
    }
    r->n_sent = r->n_ops = 0;
    return (struct hf_sip_result){.kind = copy->op.kind,
                                  .done = (uint8_t)done,
                                  .cookie = copy->op.cookie,
                                  .aor = hf_slice(copy->text, copy->op.aor.n),
                                  .bind = copy->bind,
                                  .n_binds = copy->op.n_binds};
}

void rig_answer(struct rig *r, enum hf_sip_done done, const char *home, uint64_t epoch)
{
    static struct rig_op o;
    struct hf_sip_result res = result_of(r, &o, done);
    if (home) {
        res.have_row = true;
        res.row = (struct hf_sip_row){.aor = res.aor,
                                      .home = rig_number(r, home),
                                      .current = rig_number(r, home),
                                      .epoch = epoch};
    }
    hf_sip_element_done(r->e, &res, r->now);
}

void rig_loaded(struct rig *r, const struct hf_sip_kept *kept)
{
    static struct rig_op o;
    assert(rig_asked(r, HF_SIP_OP_LOAD));
    struct hf_sip_result res = result_of(r, &o, HF_SIP_OP_DONE);
    res.kept = kept;
    res.n_kept = kept != NULL;
    hf_sip_element_done(r->e, &res, r->now);
}

void rig_answer_secret(struct rig *r, const char *user, const char *password, const char *aor)
{
    static struct rig_op o;
    struct hf_sip_result res = result_of(r, &o, user ? HF_SIP_OP_DONE : HF_SIP_OP_NONE);
    res.aor = user ? hf_slice_str(aor) : hf_slice(NULL, 0);
    for (int a = 0; user && a < HF_SIP_ALGORITHM_COUNT_; a++) {
        res.algorithms |= 1u << a;
        int rc = hf_sip_secret((enum hf_sip_algorithm)a, hf_slice_str(user), S("example.com"),
                               hf_slice_str(password), res.secret[a]);
        assert(rc == 0);
    }
    hf_sip_element_done(r->e, &res, r->now);
}

void rig_row(struct rig *r, const char *aor, const char *home, uint64_t epoch)
{
    struct hf_sip_row row = {.aor = hf_slice_str(aor),
                             .home = rig_number(r, home),
                             .current = rig_number(r, home),
                             .epoch = epoch};
    r->n_sent = r->n_ops = 0;
    hf_sip_element_feed(r->e, &(struct hf_sip_feed){.there = true, .row = &row, .n = 1}, r->now);
}

void rig_feed(struct rig *r, bool there, uint64_t change)
{
    r->n_sent = r->n_ops = 0;
    hf_sip_element_feed(r->e, &(struct hf_sip_feed){.there = there, .change = change}, r->now);
}

/* --- texts --- */

void rig_request(char *buf, size_t room, const char *method, const char *uri, const char *to,
                 const char *more, unsigned cseq)
{
    int n = snprintf(buf, room,
                     "%s %s SIP/2.0\r\n"
                     "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK%s%u;rport\r\n"
                     "Max-Forwards: 70\r\n"
                     "From: <sip:ann@example.com>;tag=f1\r\n"
                     "To: <%s>\r\n"
                     "Call-ID: c1@192.0.2.1\r\n"
                     "CSeq: %u %s\r\n"
                     "%s"
                     "Content-Length: 0\r\n\r\n",
                     method, uri, method, cseq, to, cseq, method, more);
    assert(n > 0 && (size_t)n < room);
}

void rig_credentials(char *buf, size_t room, const char *challenge, const char *user,
                     const char *password, const char *method, const char *uri, unsigned nc)
{
    const char *nonce = strstr(challenge, "nonce=\"");
    uint8_t secret[HF_SIP_HASH_MAX];
    char hex[2 * HF_SIP_HASH_MAX];
    assert(nonce);
    struct hf_sip_credentials c = {.username = hf_slice_str(user),
                                   .realm = S("example.com"),
                                   .nonce = hf_slice(nonce + 7, HF_SIP_NONCE_LEN),
                                   .uri = hf_slice_str(uri),
                                   .cnonce = S("abc"),
                                   .algorithm = HF_SIP_SHA256,
                                   .nc = nc};
    int rc = hf_sip_secret(c.algorithm, c.username, c.realm, hf_slice_str(password), secret);
    rc = rc ? rc : hf_sip_digest_response(&c, hf_slice_str(method), secret, hex);
    assert(rc == 0);
    int n =
        snprintf(buf, room,
                 "%sAuthorization: Digest username=\"%s\", realm=\"example.com\", "
                 "nonce=\"%.56s\", uri=\"%s\", response=\"%.64s\", algorithm=SHA-256, "
                 "cnonce=\"abc\", qop=auth, nc=%08x\r\n",
                 strcmp(method, "REGISTER") == 0 ? "" : "Proxy-", user, nonce + 7, uri, hex, nc);
    assert(n > 0 && (size_t)n < room);
}

void rig_mark(char *buf, size_t room, const char *method, unsigned cseq, unsigned hop,
              uint64_t epoch, bool offer)
{
    char text[2048], branch[64];
    struct hf_sip_keys keys;
    struct hf_slice s = {NULL, 0};
    struct hf_wr w;
    rig_request(text, sizeof(text), method, "sip:x@example.com", "sip:x@example.com", "", cseq);
    snprintf(branch, sizeof(branch), "z9hG4bK%s%u", method, cseq);
    int rc = hf_sip_keys_make(key, &keys);
    rc = rc ? rc : hf_sip_parse(hf_slice_str(text), false, &msg);
    assert(rc == 0);
    hf_wr_init(&w, buf, room - 1);
    hf_sip_mark_put(&w, &keys, &msg, hf_slice_str(branch),
                    &(struct hf_sip_mark){.hop = (uint8_t)hop, .epoch = epoch, .offer = offer});
    rc = hf_wr_end(&w, &s);
    assert(rc == 0);
    buf[s.n] = 0;
}
