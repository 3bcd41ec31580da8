/* Fuzz target: a stored subscription, and then whatever happens to it and to others. */
#include <assert.h>

#include "base/rd.h"
#include "core/sip/watch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static hf_time now;
static uint32_t sub, cseq; /* the last that was notified */

static void run(struct hf_sip_watch *w, bool answers)
{
    struct hf_sip_watch_out o;
    static uint8_t buf[1 << 20];
    for (unsigned i = 0; hf_sip_watch_next(w, now, &o); i++) {
        assert(i < 100000);
        if (o.kind == HF_SIP_WATCH_STORE) {
            struct hf_wr wr;
            struct hf_slice dump;
            hf_wr_init(&wr, buf, sizeof(buf));
            assert(hf_sip_watch_dump(w, o.sub, &wr) && hf_wr_end(&wr, &dump) == 0);
            hf_sip_watch_stored(w, o.sub, answers, now);
        } else if (o.kind == HF_SIP_WATCH_NOTIFY) {
            assert(o.version == o.cseq - 1 && o.aor.n > 0);
            assert((o.state == HF_SIP_SUB_ENDING) == (o.reason != HF_SIP_SUB_REASON_NONE));
            sub = o.sub;
            cseq = o.cseq;
            if (answers) {
                hf_sip_watch_answered(w, o.sub, o.cseq, 200, 0, now);
            }
        }
    }
    assert(hf_sip_watch_deadline(w) > now);
}

static void happen(struct hf_sip_watch *w, struct hf_rd *r)
{
    uint8_t what = hf_rd_u8(r), who = hf_rd_u8(r), arg = hf_rd_u8(r);
    const char aor[] = {(char)('a' + who % 3), 0};
    const char call_id[] = {(char)('a' + who % 16), 0};
    struct hf_sip_subscribe in = {
        .package = (enum hf_sip_package)(arg % 3),
        .aor = hf_slice(aor, 1),
        .dialog = {.call_id = hf_slice(call_id, 1), .target = hf_slice(&arg, 1)},
        .in_dialog = arg & 4,
        .cseq = arg,
        .has_expires = arg & 8,
        .expires_s = arg & 16 ? 0 : 60u + arg,
        .authorised = arg & 32,
    };
    struct hf_sip_subscribed a;
    switch (what % 8) {
    case 0:
        hf_sip_watch_subscribe(w, &in, now, &a);
        assert((a.status == 200) == (a.sub != 0));
        break;
    case 1:
        hf_sip_watch_changed(w, in.package, in.aor, now);
        break;
    case 2:
        hf_sip_watch_left(w, in.aor, now);
        break;
    case 3:
        hf_sip_watch_gone(w, in.aor, now);
        break;
    case 4:
        hf_sip_watch_authorise(w, who, arg & 1, now);
        break;
    case 5:
        hf_sip_watch_answered(w, sub, cseq, 200u + arg * 2u, who, now);
        break;
    case 6:
        hf_sip_watch_stored(w, who, arg & 1, now);
        break;
    default:
        now += HF_MS(arg) * who;
        break;
    }
    run(w, arg & 64);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hf_sip_watch *w;
    struct hf_rd r;
    now = HF_S(1000);
    sub = cseq = 0;
    if (hf_sip_watch_create(&(struct hf_sip_watch_conf){.subs_max = 50}, now, &w) < 0) {
        return 0;
    }
    hf_rd_init(&r, hf_slice(data, n));
    bool in_stead = hf_rd_u8(&r) & 1;
    struct hf_slice dump = hf_rd_str16(&r, UINT16_MAX);
    (void)!hf_sip_watch_load(w, dump, HF_S(100), in_stead, now);
    run(w, false);
    while (hf_rd_left(&r) > 0) {
        happen(w, &r);
    }
    hf_sip_watch_destroy(w);
    return 0;
}
