/* Fuzz target: SUBSCRIBEs and PUBLISHs, whole or made of pieces, what is stored, answers and time.
 * Whatever comes, what goes out is well-formed. */
#include <assert.h>
#include <stdio.h>

#include "base/err.h"
#include "base/rd.h"
#include "core/sip/fields.h"
#include "core/sip/notifier.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const aors[] = {"sip:a@h", "sip:b@h", "tel:+1555"};
static struct hf_sip_notifier *notifier;
static struct hf_sip_registrar *registrar;
static hf_time now;
static bool foreign;         /* something was loaded that we did not write */
static uint64_t cookies[16]; /* of the last NOTIFYs */
static unsigned n_cookies;
static uint8_t kept[1 << 17]; /* the last KEEP */
static struct hf_sip_kept last;
static struct hf_sip_result results[64];
static unsigned n_results;
static uint64_t unasked; /* the key of an answer that waits */
static char etag[HF_SIP_ETAG_MAX], to_tag[32];
static struct hf_sip_msg m;

static void on_reply(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    static struct hf_sip_msg r;
    struct hf_slice tag;
    (void)ctx, (void)to;
    int rc = hf_sip_parse(message, true, &r);
    assert(rc == 0 && !r.request && r.status >= 200 && r.status != 202);
    if (hf_sip_etag(&r, HF_SIP_H_SIP_ETAG, &tag) == 1) {
        snprintf(etag, sizeof(etag), "%.*s", HF_SLICE_FMT(tag));
    }
    tag = hf_sip_address_tag(&r.to);
    if (r.status == 200 && tag.n < sizeof(to_tag)) {
        snprintf(to_tag, sizeof(to_tag), "%.*s", HF_SLICE_FMT(tag));
    }
}

static void on_hold(void *ctx, uint64_t key, bool fresh, const struct hf_sip_flow *to,
                    struct hf_slice message)
{
    assert(key != 0 && HF_SIP_KEEP_KEY(key) == key);
    unasked = fresh ? key : unasked;
    on_reply(ctx, to, message);
}

static void on_notify(void *ctx, uint64_t cookie, struct hf_slice next_hop,
                      const struct hf_sip_request *request, struct hf_slice more,
                      struct hf_slice type, struct hf_slice body)
{
    static uint8_t out[HF_SIP_MESSAGE_MAX];
    static struct hf_sip_msg r;
    struct hf_sip_request q = *request;
    struct hf_slice message;
    struct hf_wr w;
    (void)ctx;
    q.sent_by = hf_slice_str("h");
    q.branch = hf_slice_str(HF_SIP_COOKIE "1");
    hf_wr_init(&w, out, sizeof(out));
    int rc = hf_sip_begin_request(&w, &q);
    assert(rc == 0 || rc == -HF_EFULL);
    hf_wr_bytes(&w, more);
    rc = hf_sip_end(&w, type, body, &message);
    assert(foreign || next_hop.n > 0);
    if (rc == 0 && !foreign) {
        rc = hf_sip_parse(message, true, &r);
        assert(rc == 0 && r.method == HF_SIP_NOTIFY && hf_sip_has(&r, HF_SIP_H_EVENT) &&
               hf_sip_has(&r, HF_SIP_H_SUBSCRIPTION_STATE));
    }
    cookies[n_cookies++ % 16] = cookie;
}

static void on_store(void *ctx, const struct hf_sip_op *op)
{
    (void)ctx;
    assert(op->aor.n > 0 && (op->kind == HF_SIP_OP_KEEP || op->kind == HF_SIP_OP_DROP));
    if (op->kind == HF_SIP_OP_KEEP && op->kept.data.n + op->kept.key.n <= sizeof(kept)) {
        last = op->kept;
        memcpy(kept, op->kept.data.p, op->kept.data.n);
        memcpy(kept + op->kept.data.n, op->kept.key.p, op->kept.key.n);
        last.data = hf_slice(kept, op->kept.data.n);
        last.key = hf_slice(kept + op->kept.data.n, op->kept.key.n);
    }
    if (op->kind == HF_SIP_OP_KEEP && n_results < 64) {
        results[n_results++] = (struct hf_sip_result){
            .kind = HF_SIP_OP_KEEP, .cookie = op->cookie, .aor = hf_slice_str(aors[0])};
    }
}

static const struct hf_sip_binding *on_bindings(void *ctx, struct hf_slice aor)
{
    (void)ctx;
    return hf_sip_registrar_find(registrar, aor);
}

static uint64_t on_epoch(void *ctx, struct hf_slice aor)
{
    (void)ctx;
    return aor.n;
}

static int on_may_watch(void *ctx, struct hf_slice watcher, enum hf_sip_package p,
                        struct hf_slice aor)
{
    (void)ctx, (void)p, (void)aor;
    return watcher.n > 0 ? watcher.p[watcher.n - 1] % 3 - 1 : 0;
}

static const struct hf_sip_notifier_ops ops = {
    .reply = on_reply,
    .hold = on_hold,
    .notify = on_notify,
    .store = on_store,
    .bindings = on_bindings,
    .epoch = on_epoch,
    .may_watch = on_may_watch,
};

static void request(struct hf_slice text, uint8_t who)
{
    static const struct hf_sip_flow from = {.peer = {.family = HF_AF_INET, .port = 5060}};
    if (hf_sip_parse(text, false, &m) == 0 && m.request) {
        struct hf_slice aor = hf_slice_str(aors[who % 3]);
        (void)hf_sip_notifier_has_dialog(notifier, &m);
        hf_sip_notifier_request(notifier, &m, &from, aor, who & 4 ? aor : hf_slice_str(""), now);
    }
}

/* One that comes far, with what the input has for a field and a body. */
static void likely(struct hf_rd *r)
{
    static const char *const events[] = {"reg", "presence", "presence;id=1", "dialog"};
    static const char *const expires[] = {"Expires: 0\r\n", "", "Expires: 60\r\n",
                                          "Expires: 9999\r\nAccept: */*\r\n"};
    static char text[70000];
    uint8_t what = hf_rd_u8(r), who = hf_rd_u8(r), seq = hf_rd_u8(r);
    struct hf_slice field = hf_rd_str8(r, 255), body = hf_rd_str16(r, 20000);
    bool publish = what & 1, tagged = what & 2;
    const char *method = publish ? "PUBLISH" : "SUBSCRIBE";
    int n = snprintf(text, sizeof(text),
                     "%s %s SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK%u\r\nFrom: <%s>;tag=%u\r\n"
                     "To: <sip:a@h>%s%s\r\nCall-ID: %u\r\nCSeq: %u %s\r\nEvent: %s\r\n%s",
                     method, aors[who % 3], seq, aors[who >> 3 & 1], seq & 3u,
                     tagged && !publish ? ";tag=" : "", tagged && !publish ? to_tag : "", seq & 3u,
                     seq, method, events[what >> 4 & 3], expires[what >> 6]);
    char *p = text + n;
    size_t room = sizeof(text) - (size_t)n;
    if (publish) {
        n = snprintf(p, room, "%s%s%sContent-Type: application/pidf+xml\r\n%.*s\r\n\r\n%.*s",
                     tagged ? "SIP-If-Match: " : "", tagged ? etag : "", tagged ? "\r\n" : "",
                     HF_SLICE_FMT(field), HF_SLICE_FMT(body));
    } else {
        n = snprintf(p, room, "Contact: <sip:c>\r\n%.*s\r\n\r\n%.*s", HF_SLICE_FMT(field),
                     HF_SLICE_FMT(body));
    }
    assert((size_t)n < room);
    request(hf_slice(text, (size_t)(p - text) + (size_t)n), who);
}

static void registers(uint8_t who, uint8_t what)
{
    static struct hf_sip_registered got;
    char text[500];
    int n = snprintf(text, sizeof(text),
                     "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP c\r\nFrom: <sip:a@h>;tag=1\r\n"
                     "To: <sip:a@h>\r\nCall-ID: c%u\r\nCSeq: %u REGISTER\r\n"
                     "Contact: <sip:%u@c>;q=0.%u;expires=%u\r\n\r\n",
                     what, what, what & 7u, what & 3u, what & 8 ? 600 : 0);
    int rc = hf_sip_parse(hf_slice(text, (size_t)n), false, &m);
    assert(rc == 0);
    struct hf_slice aor = hf_slice_str(aors[who % 3]);
    hf_sip_registrar_register(registrar, &m, aor, 0, now, &got);
    hf_sip_notifier_changed(notifier, aor, got.change, got.n_changes, now);
}

static void answer(uint8_t which, uint8_t what)
{
    static const uint16_t statuses[] = {200, 481, 503, 500, 408, 100, 302, 202};
    static const char text[] = "SIP/2.0 503 X\r\nVia: SIP/2.0/UDP a\r\nFrom: <sip:a>;tag=1\r\n"
                               "To: <sip:b>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 NOTIFY\r\n"
                               "Retry-After: 7\r\n\r\n";
    int rc = hf_sip_parse(hf_slice(text, sizeof(text) - 1), false, &m);
    assert(rc == 0);
    hf_sip_notifier_answered(notifier, cookies[which % 16] + (which >> 7), statuses[what % 8],
                             what & 8 ? &m : NULL, now);
}

/* what: 0, 1: whether there is a database; 2: rows have changed, and are still ours; 3: they are
 * not
 */
static void store_answers(uint8_t what)
{
    static const uint8_t done[] = {HF_SIP_OP_DONE, HF_SIP_OP_AWAY, HF_SIP_OP_STALE,
                                   HF_SIP_OP_STALE};
    static struct hf_sip_result r[64];
    unsigned n = n_results;
    memcpy(r, results, n * sizeof(r[0]));
    n_results = 0;
    for (unsigned i = 0; i < n; i++) {
        r[i].done = done[what % 4];
        r[i].have_row = what % 4 == 2;
        r[i].row.epoch = r[i].aor.n;
        if (what % 4 == 3 && HF_SIP_KEEP_KEY(r[i].cookie) == unasked) {
            hf_sip_notifier_unask(notifier, unasked);
        }
        bool again = hf_sip_notifier_stored(notifier, &r[i], now);
        assert(!again || what % 4 == 2);
    }
}

static void load(struct hf_rd *r, struct hf_slice aor, uint8_t what)
{
    struct hf_sip_kept k = last;
    if (what & 4) { /* as it was kept, or anything */
        k.what = what & 8 ? 's' : 'p';
        k.key = hf_rd_str8(r, 255);
        k.data = hf_rd_str16(r, UINT16_MAX);
        k.left_s = hf_rd_u16(r);
        foreign = true;
    }
    if (k.what != 0) {
        hf_sip_notifier_load(notifier, aor, &k, 1, (enum hf_sip_former)(what % 3), now);
    }
}

static void happen(struct hf_rd *r)
{
    uint8_t op = hf_rd_u8(r), who = hf_rd_u8(r), what = hf_rd_u8(r);
    struct hf_slice aor = hf_slice_str(aors[who % 3]);
    switch (op % 10) {
    case 0:
        request(hf_rd_str16(r, UINT16_MAX), who);
        break;
    case 1:
    case 2:
        likely(r);
        break;
    case 3:
        registers(who, what);
        break;
    case 4:
        answer(who, what);
        break;
    case 5:
        hf_sip_notifier_left(notifier, aor, now);
        (void)hf_sip_registrar_forget(registrar, aor);
        break;
    case 6:
        hf_sip_notifier_gone(notifier, aor, now);
        break;
    case 7:
        load(r, aor, what);
        break;
    case 8:
        hf_sip_notifier_decided(notifier, aor, now);
        store_answers(what);
        break;
    default:
        now += HF_MS(what) * who;
        hf_sip_notifier_tick(notifier, now);
        break;
    }
    assert(hf_sip_notifier_deadline(notifier) > now);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct hf_sip_registrar_limits limits = {
        .bindings_max = 20, .expires_default_s = 600, .expires_min_s = 60, .expires_max_s = 3600};
    const struct hf_sip_notifier_conf conf = {.watch = {.subs_max = 50, .rate = 20},
                                              .contact = hf_slice_str("<sip:h>"),
                                              .publications_max = 20};
    struct hf_rd r;
    now = HF_S(1000);
    foreign = false;
    n_cookies = n_results = 0;
    etag[0] = to_tag[0] = 0;
    last = (struct hf_sip_kept){.what = 0};
    int rc = hf_sip_registrar_create(&limits, now, &registrar);
    assert(rc == 0);
    rc = hf_sip_notifier_create(&conf, &ops, NULL, now, &notifier);
    assert(rc == 0);
    hf_rd_init(&r, hf_slice(data, n));
    while (hf_rd_left(&r) > 0) {
        happen(&r);
    }
    hf_sip_notifier_destroy(notifier);
    hf_sip_registrar_destroy(registrar);
    return 0;
}
