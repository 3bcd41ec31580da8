/* The registrar under any sequence of REGISTERs, time and moves: four bytes a step. Bindings are
 * where changes say, in order, not too many; at another home they are the same. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "core/sip/registrar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct hf_sip_registrar_limits limits = {.bindings_max = 24,
                                                      .expires_default_s = 600,
                                                      .expires_min_s = 30,
                                                      .expires_max_s = 9000,
                                                      .seed = 3};
static const char *const aors[] = {"sip:a@h", "sip:b@h", "sip:c@h", "tel:+1555"};
static const char *const contacts[] = {
    "",
    "Contact: <sip:p@one>;q=0.5\r\n",
    "Contact: sip:p@ONE;expires=40, <sip:q@two;transport=tcp>\r\n",
    "Contact: *\r\nExpires: 0\r\n",
    "m: <sip:p@one;x=1>, <sip:p@one;x=2>;q=0.9, <sip:p@one;y>\r\n",
    "Contact: <sip:r@x>;+sip.instance=\"<i>\";reg-id=1\r\nSupported: outbound\r\n",
    "Contact: <sip:s@y>;+sip.instance=\"<i>\";reg-id=1;q=0.1\r\nk: outbound\r\nPath: "
    "<sip:e;lr>\r\n",
    "Contact: <sip:s@y>;expires=0;+sip.instance=\"<i>\";reg-id=1\r\nk: outbound\r\n",
    "Contact: <sip:p@one>;expires=0, <sip:new@z>;expires=9999\r\nPath: <sip:f;lr>\r\n",
    "Contact: <sip:1>\r\n",
    "Contact: <sip:p@one>;expires=20\r\n",
    "Require: path\r\nContact: <tel:+1>, <mailto:a@b>;q=0.2\r\n",
    "Contact: <sip:h0>,<sip:h1>,<sip:h2>,<sip:h3>,<sip:h4>,<sip:h5>,<sip:h6>,<sip:h7>,<sip:h8>,"
    "<sip:h9>\r\n",
};
static struct hf_sip_msg m;
static struct hf_sip_registered got;

static bool is_there(const struct hf_sip_registrar *r, const struct hf_sip_binding *b)
{
    const struct hf_sip_binding *x = hf_sip_registrar_find(r, hf_sip_binding_aor(b));
    while (x && x != b) {
        x = x->next;
    }
    return x;
}

static void check(const struct hf_sip_registrar *r)
{
    size_t pos = 0, n = 0, users = 0;
    for (const struct hf_sip_binding *b; (b = hf_sip_registrar_next(r, &pos)); users++) {
        size_t of_user = 0;
        assert(b == hf_sip_registrar_find(r, hf_sip_binding_aor(b)));
        for (; b; b = b->next, of_user++) {
            assert(!b->next || b->q >= b->next->q);
            assert(hf_sip_binding_uri(b).n && hf_sip_binding_call_id(b).n);
            assert(!b->outbound || (b->reg_id && hf_sip_binding_instance(b).n));
        }
        assert(of_user > 0 && of_user <= HF_SIP_CONTACTS_MAX);
        n += of_user;
    }
    assert(n == hf_sip_registrar_bindings(r) && n <= limits.bindings_max);
    assert(users == hf_sip_registrar_aors(r));
    assert((hf_sip_registrar_deadline(r) == HF_NEVER) == (n == 0));
}

static void reg(struct hf_sip_registrar *r, uint8_t who, uint8_t what, uint8_t seq, hf_time now)
{
    static char text[2048], out[8192];
    size_t before = hf_sip_registrar_bindings(r), made = 0, ended = 0;
    int n = snprintf(text, sizeof(text),
                     "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP c\r\nFrom: <sip:a@h>;tag=1\r\n"
                     "To: <sip:a@h>\r\nCall-ID: c%u\r\nCSeq: %u REGISTER\r\n%s\r\n",
                     seq & 1u, seq >> 1u, contacts[what % HF_ARRAY_LEN(contacts)]);
    int rc = hf_sip_parse(hf_slice(text, (size_t)n), false, &m);
    assert(rc == 0);
    hf_sip_registrar_register(r, &m, hf_slice_str(aors[who % HF_ARRAY_LEN(aors)]),
                              who & 0x80 ? 60 : 0, now, &got);
    assert(got.status == 200 || got.n_changes == 0);
    for (size_t i = 0; i < got.n_changes; i++) {
        const struct hf_sip_change *c = &got.change[i];
        bool gone = c->kind == HF_SIP_CHANGE_UNREGISTERED;
        assert(is_there(r, c->binding) == !gone);
        assert(!c->replaced || !is_there(r, c->replaced));
        assert(gone || c->binding->expires > now);
        made += c->kind == HF_SIP_CHANGE_REGISTERED;
        ended += gone;
    }
    assert(hf_sip_registrar_bindings(r) == before + made - ended);
    struct hf_wr w;
    hf_wr_init(&w, out, sizeof(out));
    hf_sip_registrar_put(r, &got, &m, now, &w);
    assert(w.err == 0);
}

static void tick(struct hf_sip_registrar *r, hf_time now)
{
    struct hf_sip_change ended[HF_SIP_EXPIRED_AT_ONCE_MAX];
    size_t n;
    bool more;
    do {
        more = hf_sip_registrar_tick(r, now, ended, &n);
        for (size_t i = 0; i < n; i++) {
            assert(ended[i].binding->expires <= now && !is_there(r, ended[i].binding));
        }
    } while (more);
    size_t pos = 0;
    for (const struct hf_sip_binding *b; (b = hf_sip_registrar_next(r, &pos));) {
        for (; b; b = b->next) { /* a second late at most */
            assert(b->expires > now - HF_NS_PER_S);
        }
    }
}

/* All to a new home, which then is the one. */
static struct hf_sip_registrar *move(struct hf_sip_registrar *old, hf_time now)
{
    struct hf_sip_registrar *r;
    size_t pos = 0, alive = 0;
    int rc = hf_sip_registrar_create(&limits, now, &r);
    assert(rc == 0);
    for (const struct hf_sip_binding *b; (b = hf_sip_registrar_next(old, &pos));) {
        for (; b; b = b->next) {
            struct hf_sip_stored_binding s, again;
            hf_sip_binding_dump(b, now, &s);
            rc = hf_sip_registrar_load(r, &s, now);
            assert(rc == 0);
            if (s.left_s == 0) {
                continue;
            }
            alive++;
            const struct hf_sip_binding *x = hf_sip_registrar_find(r, s.aor);
            while (x && (!hf_slice_eq(hf_sip_binding_uri(x), s.uri) || x->outbound != s.outbound)) {
                x = x->next;
            }
            assert(x && x->q == b->q && x->reg_id == b->reg_id && x->cseq == b->cseq);
            hf_sip_binding_dump(x, now, &again);
            assert(hf_slice_eq(s.params, again.params) && hf_slice_eq(s.path, again.path));
            assert(s.left_s == again.left_s && s.life_s == again.life_s);
        }
    }
    assert(alive >= hf_sip_registrar_bindings(r));
    for (size_t i = 0; i < HF_ARRAY_LEN(aors); i++) {
        hf_sip_registrar_forget(old, hf_slice_str(aors[i]));
    }
    assert(hf_sip_registrar_bindings(old) == 0 && hf_sip_registrar_aors(old) == 0);
    hf_sip_registrar_destroy(old);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hf_sip_registrar *r;
    hf_time now = HF_S(5);
    int rc = hf_sip_registrar_create(&limits, now, &r);
    assert(rc == 0);
    for (size_t i = 0; i + 4 <= n && i < 4096; i += 4) {
        const uint8_t *p = data + i;
        switch (p[0] % 4) {
        case 0:
        case 1:
            reg(r, p[1], p[2], p[3], now);
            break;
        case 2:
            now += (hf_time)p[1] * p[2] * HF_NS_PER_S / 8 + p[3];
            tick(r, now);
            break;
        default:
            r = move(r, now);
        }
        check(r);
    }
    hf_sip_registrar_destroy(r);
    return 0;
}
