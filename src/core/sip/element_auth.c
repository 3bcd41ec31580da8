/* Who somebody is: challenges, secrets as the store has them, and that no answer serves twice (S6).
 *
 * Nothing tells an unknown user from a known one: whatever name is given, the store is asked, what
 * it says is kept for the same time, and an answer is checked against a secret, be it one of
 * chance. */
#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "core/sip/element_impl.h"

#define SECRETS_MAX 100000u
#define SECRET_LIFE HF_S(300)
#define SECRET_FRESH HF_S(5) /* wrong by one that is older: it may have been changed */
#define WAYS 4u

/* --- secrets --- */

static struct hf_el_secret *find(const struct hf_sip_element *e, struct hf_slice user, hf_time now)
{
    struct hf_el_secret *s = hf_map_get(&e->secrets, user);
    return s && now - s->read_at < SECRET_LIFE ? s : NULL;
}

static void forget(struct hf_sip_element *e, struct hf_el_secret *s)
{
    (void)hf_map_remove(&e->secrets, s->user);
    hf_list_unlink(&s->node);
    memset(s->secret, 0, sizeof(s->secret));
    hf_free(s);
}

/* What stands in for a secret that there is not. */
static void dummy(const struct hf_sip_element *e, struct hf_slice user,
                  uint8_t ret_secret[HF_SIP_HASH_MAX])
{
    uint64_t h = hf_hash(user, e->keys.tag);
    for (size_t i = 0; i < HF_SIP_HASH_MAX; i++) {
        h = h * 6364136223846793005u + 1442695040888963407u;
        ret_secret[i] = (uint8_t)(h >> 56);
    }
}

void hf_el_secret(struct hf_sip_element *e, struct hf_slice user, const struct hf_sip_result *res,
                  hf_time now)
{
    struct hf_el_secret *s = hf_map_get(&e->secrets, user);
    bool known = res->done == HF_SIP_OP_DONE && res->algorithms;
    struct hf_slice aor = known ? res->aor : hf_slice(NULL, 0);
    if (s) {
        forget(e, s);
    } else if (e->secrets.n >= SECRETS_MAX) {
        forget(e, HF_CONTAINER_OF(e->secrets_age.next, struct hf_el_secret, node));
    }
    s = aor.n > HF_SIP_AOR_MAX ? NULL : hf_alloc(sizeof(*s) + user.n + aor.n);
    if (!s) {
        return;
    }
    if (user.n) {
        memcpy(s->bytes, user.p, user.n);
    }
    if (aor.n) {
        memcpy(s->bytes + user.n, aor.p, aor.n);
    }
    s->user = hf_slice(s->bytes, user.n);
    s->aor = hf_slice(s->bytes + user.n, aor.n);
    s->known = known;
    s->read_at = now;
    s->algorithms = known ? res->algorithms : 0;
    for (size_t i = 0; i < HF_SIP_ALGORITHM_COUNT_; i++) {
        if (s->algorithms >> i & 1) {
            memcpy(s->secret[i], res->secret[i], sizeof(s->secret[i]));
        } else {
            dummy(e, user, s->secret[i]);
        }
    }
    hf_list_init(&s->node);
    if (hf_map_put(&e->secrets, s->user, s)) {
        hf_free(s);
        return;
    }
    hf_list_insert(&e->secrets_age, &s->node);
}

void hf_el_secret_forget(struct hf_sip_element *e, struct hf_slice aor)
{
    HF_LIST_FOREACH (it, &e->secrets_age) {
        struct hf_el_secret *s = HF_CONTAINER_OF(it, struct hf_el_secret, node);
        if (hf_slice_eq(s->aor, aor)) {
            forget(e, s);
        }
    }
}

void hf_el_secrets_fini(struct hf_sip_element *e)
{
    while (!hf_list_empty(&e->secrets_age)) {
        forget(e, HF_CONTAINER_OF(e->secrets_age.next, struct hf_el_secret, node));
    }
    hf_map_fini(&e->secrets);
}

/* --- nonces that were used --- */

static struct hf_el_nonce *nonce_slot(struct hf_sip_element *e, uint64_t hash)
{
    struct hf_el_nonce *set = &e->nonce[(hash >> 20) % e->nonce_sets * WAYS];
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].nonce == hash) {
            return &set[i];
        }
    }
    return NULL;
}

static uint64_t nonce_hash(const struct hf_sip_element *e, struct hf_slice nonce)
{
    return hf_hash(nonce, e->conf.seed) | 1;
}

/* Is this nc new? Numbers may overtake each other by 31; the same message again is the same
 * request, retransmitted. */
static bool nc_fits(struct hf_el_nonce *n, uint32_t nc, uint64_t message)
{
    if (nc > n->nc) {
        uint32_t by = nc - n->nc;
        n->seen = by < 32 ? n->seen << by | 1u : 1u;
        n->nc = nc;
    } else {
        uint32_t back = n->nc - nc;
        if (back >= 32 || n->seen >> back & 1u) {
            return n->message == message;
        }
        n->seen |= 1u << back;
    }
    n->message = message;
    return true;
}

static bool use_nonce(struct hf_sip_element *e, uint64_t hash, uint32_t nc, uint64_t message,
                      uint32_t now_s)
{
    struct hf_el_nonce *n = nonce_slot(e, hash);
    if (n) {
        n->used_s = now_s;
        return nc_fits(n, nc, message);
    }
    struct hf_el_nonce *set = &e->nonce[(hash >> 20) % e->nonce_sets * WAYS];
    n = set;
    for (size_t i = 1; i < WAYS; i++) {
        n = set[i].used_s < n->used_s ? &set[i] : n;
    }
    *n = (struct hf_el_nonce){
        .nonce = hash, .message = message, .nc = nc, .seen = 1, .used_s = now_s};
    return true;
}

/* --- checking --- */

/* The client itself signs its Request-URI (RFC 7616 3.4.6); proxies between may have changed it. */
static bool uri_fits(const struct hf_el_req *r, const struct hf_sip_credentials *c)
{
    struct hf_sip_uri u;
    return r->m->n_vias > 1 || hf_slice_eq(c->uri, r->m->uri_text) ||
           r->f.kind == HF_SIP_KIND_REGISTER ||
           (hf_sip_uri_parse(c->uri, &u) == 0 && hf_sip_uri_equal(&u, &r->m->uri));
}

static enum hf_el_auth ask_store(struct hf_el_req *r, struct hf_slice user)
{
    struct hf_sip_element *e = r->e;
    if (r->f.away || r->known->n_secrets == 3) {
        return HF_EL_AUTH_AWAY;
    }
    r->known->n_secrets++;
    struct hf_el_wait *w = hf_el_hold(r, HF_EL_FOR_SECRET);
    if (w) {
        struct hf_sip_op op = {
            .kind = HF_SIP_OP_SECRET, .cookie = w->cookie, .user = user, .realm = e->conf.realm};
        e->ops.store(e->ctx, &op);
    }
    return HF_EL_AUTH_HELD;
}

static enum hf_el_auth accept(struct hf_el_req *r, const struct hf_sip_credentials *c,
                              struct hf_el_secret *s, bool old)
{
    struct hf_sip_element *e = r->e;
    uint64_t message = hf_hash(hf_slice(r->m->text.p, r->m->used_n), e->conf.seed);
    if (old || !use_nonce(e, nonce_hash(e, c->nonce), c->nc, message, hf_el_wall_s(e, r->now))) {
        return HF_EL_AUTH_STALE;
    }
    hf_list_unlink(&s->node);
    hf_list_insert(&e->secrets_age, &s->node);
    memcpy(r->known->user_text, s->aor.p, s->aor.n);
    r->known->user = hf_slice(r->known->user_text, s->aor.n);
    hf_el_trusted(e, r->m, &r->from->peer);
    return HF_EL_AUTH_GOOD;
}

static enum hf_sip_field_id field_of(const struct hf_sip_msg *m)
{
    return m->method == HF_SIP_REGISTER ? HF_SIP_H_AUTHORIZATION : HF_SIP_H_PROXY_AUTHORIZATION;
}

struct hf_slice hf_el_user(const struct hf_sip_element *e, const struct hf_sip_msg *m,
                           char room[HF_SIP_USERNAME_MAX + 1])
{
    struct hf_sip_credentials c;
    struct hf_slice user = {NULL, 0};
    if (hf_sip_credentials_find(m, field_of(m), e->conf.realm, &c) != 1 ||
        hf_sip_credentials_user(&c, room, HF_SIP_USERNAME_MAX + 1, &user)) {
        return hf_slice(NULL, 0);
    }
    return user;
}

static enum hf_el_auth check(struct hf_el_req *r)
{
    struct hf_sip_element *e = r->e;
    enum hf_sip_field_id id = field_of(r->m);
    struct hf_sip_credentials c;
    char room[HF_SIP_USERNAME_MAX + 1];
    struct hf_slice user;
    int rc = hf_sip_credentials_find(r->m, id, e->conf.realm, &c);
    if (rc == -HF_EMALF || (rc == 1 && hf_sip_credentials_user(&c, room, sizeof(room), &user))) {
        return HF_EL_AUTH_MALFORMED;
    }
    if (rc != 1 || !(e->conf.algorithms >> c.algorithm & 1)) {
        return HF_EL_AUTH_WRONG;
    }
    rc = nonce_slot(e, nonce_hash(e, c.nonce)) /* its seal was looked at before; its age: */
             ? 0
             : hf_sip_nonce_check(e->conf.key, e->conf.realm, c.nonce, hf_el_wall_s(e, r->now),
                                  UINT32_MAX);
    if (rc == -HF_EAUTH) {
        return HF_EL_AUTH_WRONG;
    }
    struct hf_el_secret *s = find(e, user, r->now);
    if (!s) {
        return ask_store(r, user);
    }
    bool good = hf_sip_digest_check(&c, r->m->method_text, s->secret[c.algorithm]) == 0;
    good = good && s->known && (s->algorithms >> c.algorithm & 1) && uri_fits(r, &c);
    if (!good && r->known->n_secrets == 0 && r->now - s->read_at > SECRET_FRESH) {
        return ask_store(r, user);
    }
    if (!good) {
        return r->f.away ? HF_EL_AUTH_AWAY : HF_EL_AUTH_WRONG;
    }
    int64_t age = (int64_t)hf_el_wall_s(e, r->now) - hf_sip_nonce_time(c.nonce);
    bool old = rc != 0 || age > (int64_t)e->conf.nonce_life_s;
    return accept(r, &c, s, old && !(r->f.from_peer && r->f.mark.fresh));
}

enum hf_el_auth hf_el_authenticate(struct hf_el_req *r)
{
    enum hf_el_auth a = check(r);
    r->e->count.auth_failed += a == HF_EL_AUTH_WRONG;
    if (a == HF_EL_AUTH_GOOD) {
        r->known->auth = (uint8_t)a;
        r->f.authenticated = true;
    }
    return a;
}

/* --- challenging --- */

void hf_el_challenge(struct hf_el_req *r)
{
    struct hf_sip_element *e = r->e;
    bool reg = r->f.kind == HF_SIP_KIND_REGISTER;
    char nonce[HF_SIP_NONCE_LEN];
    struct hf_wr w;
    e->count.challenged++;
    if (!hf_el_begin(e, r->m, r->from, reg ? 401 : 407, NULL, &w)) {
        return;
    }
    hf_sip_nonce_make(e->conf.key, e->conf.realm, hf_el_wall_s(e, r->now), hf_prng_u64(&e->prng),
                      nonce);
    hf_sip_put_challenge(&w, reg ? HF_SIP_H_WWW_AUTHENTICATE : HF_SIP_H_PROXY_AUTHENTICATE,
                         e->conf.realm, hf_slice(nonce, sizeof(nonce)), e->conf.algorithms,
                         r->known->auth == HF_EL_AUTH_STALE);
    hf_el_end(e, r->m, r->from, &w);
}
