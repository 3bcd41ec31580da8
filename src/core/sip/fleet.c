/* The SIP servers as one of them sees them, and the two ways to choose one by AoR. */
#include "core/sip/fleet.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/name.h"
#include "base/names.h"

/* The same on all servers and in all versions: choices and buckets are stored. */
#define SEED_AOR 0x686f6c6466617374u
#define SEED_NAME 0x7365727665723031u

struct entry {
    struct hf_sip_server is;
    uint64_t hash;
    uint64_t upto; /* weights of those that take clients, up to and with this one */
    char name[HF_HOST_NAME_MAX + 1];
};

struct hf_sip_fleet {
    struct hf_map by_name;
    uint16_t n;
    struct entry *server[HF_SIP_SERVERS_MAX]; /* owned */
};

HF_NAMES(hf_sip_server_state_name, enum hf_sip_server_state, HF_SIP_SERVER_STATE_LIST)

int hf_sip_fleet_create(struct hf_sip_fleet **ret_fleet)
{
    struct hf_sip_fleet *f = hf_alloc(sizeof(*f));
    if (f == NULL) {
        return -ENOMEM;
    }
    hf_map_init(&f->by_name, SEED_NAME);
    *ret_fleet = f;
    return 0;
}

void hf_sip_fleet_destroy(struct hf_sip_fleet *f)
{
    if (f == NULL) {
        return;
    }
    for (uint16_t i = 0; i < f->n; i++) {
        hf_free(f->server[i]);
    }
    hf_map_fini(&f->by_name);
    hf_free(f);
}

uint16_t hf_sip_fleet_find(const struct hf_sip_fleet *f, struct hf_slice name)
{
    struct entry *const *at = hf_map_get(&f->by_name, name);
    return at != NULL ? (uint16_t)(at - f->server) : HF_SIP_NONE;
}

int hf_sip_fleet_add(struct hf_sip_fleet *f, struct hf_slice name, uint16_t *ret_server)
{
    uint16_t found = hf_sip_fleet_find(f, name);
    if (found != HF_SIP_NONE) {
        *ret_server = found;
        return 0;
    }
    if (!hf_host_name_ok(name)) {
        return -HF_ENAME;
    }
    if (f->n == HF_SIP_SERVERS_MAX) {
        return -HF_EFULL;
    }
    struct entry *e = hf_alloc(sizeof(*e));
    if (e == NULL) {
        return -ENOMEM;
    }
    memcpy(e->name, name.p, name.n);
    e->hash = hf_hash(name, SEED_NAME);
    e->upto = f->n > 0 ? f->server[f->n - 1]->upto : 0;
    int r = hf_map_put(&f->by_name, hf_slice_str(e->name), &f->server[f->n]);
    if (r < 0) {
        hf_free(e);
        return r;
    }
    f->server[f->n] = e;
    *ret_server = f->n++;
    return 0;
}

uint16_t hf_sip_fleet_count(const struct hf_sip_fleet *f)
{
    return f->n;
}

static bool takes(const struct hf_sip_server *s)
{
    return s->state == HF_SIP_SERVER_LIVE && s->homes && s->weight > 0;
}

void hf_sip_fleet_set(struct hf_sip_fleet *f, uint16_t server, const struct hf_sip_server *now)
{
    assert(server < f->n && now->state < HF_SIP_SERVER_STATE_COUNT_);
    f->server[server]->is = *now;
    uint64_t sum = server > 0 ? f->server[server - 1]->upto : 0;
    for (uint16_t i = server; i < f->n; i++) {
        sum += takes(&f->server[i]->is) ? f->server[i]->is.weight : 0;
        f->server[i]->upto = sum;
    }
}

const struct hf_sip_server *hf_sip_fleet_get(const struct hf_sip_fleet *f, uint16_t server)
{
    static const struct hf_sip_server unknown;
    return server < f->n ? &f->server[server]->is : &unknown;
}

const char *hf_sip_fleet_name(const struct hf_sip_fleet *f, uint16_t server)
{
    return server < f->n ? f->server[server]->name : "?";
}

bool hf_sip_fleet_alive(const struct hf_sip_fleet *f, uint16_t server)
{
    enum hf_sip_server_state s = hf_sip_fleet_get(f, server)->state;
    return s == HF_SIP_SERVER_LIVE || s == HF_SIP_SERVER_DRAINING;
}

uint64_t hf_sip_neg_log2(uint64_t h)
{
    h = h == 0 ? 1 : h;
    unsigned whole = (unsigned)__builtin_clzll(h);
    uint64_t m = h << whole; /* the mantissa, 1.63: each squaring gives one more bit of log2(m) */
    uint64_t bits = 0;
    for (unsigned i = 0; i < 32; i++) {
        __uint128_t sq = (__uint128_t)m * m;
        bool carry = (uint64_t)(sq >> 127) != 0;
        m = (uint64_t)(sq >> (carry ? 64 : 63));
        bits = bits << 1 | carry;
    }
    return ((uint64_t)(whole + 1) << 32) - bits;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t z = a ^ (b * 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* With u even in (0, 1], -log(u) / weight is smallest with a chance in proportion to weight. */
uint16_t hf_sip_fleet_choose(const struct hf_sip_fleet *f, struct hf_slice aor)
{
    uint64_t h = hf_hash(aor, SEED_AOR);
    uint16_t best = HF_SIP_NONE;
    uint64_t best_log = 0;
    for (uint16_t i = 0; i < f->n; i++) {
        const struct entry *e = f->server[i];
        if (!takes(&e->is)) {
            continue;
        }
        uint64_t l = hf_sip_neg_log2(mix(h, e->hash));
        /* l / weight < best_log / its weight; of equals the lesser name, as numbers differ from
         * server to server */
        __uint128_t mine = 0, other = 0;
        if (best != HF_SIP_NONE) {
            mine = (__uint128_t)l * f->server[best]->is.weight;
            other = (__uint128_t)best_log * e->is.weight;
        }
        if (best == HF_SIP_NONE || mine < other ||
            (mine == other && strcmp(e->name, f->server[best]->name) < 0)) {
            best = i;
            best_log = l;
        }
    }
    return best;
}

/* The server whose weight covers this point. */
static uint16_t at_weight(const struct hf_sip_fleet *f, uint64_t point)
{
    uint16_t lo = 0, hi = (uint16_t)(f->n - 1);
    while (lo < hi) {
        uint16_t mid = (uint16_t)((lo + hi) / 2);
        if (f->server[mid]->upto > point) {
            hi = mid;
        } else {
            lo = (uint16_t)(mid + 1);
        }
    }
    return lo;
}

uint16_t hf_sip_fleet_backup(const struct hf_sip_fleet *f, struct hf_slice aor, uint16_t not_this)
{
    uint64_t all = f->n > 0 ? f->server[f->n - 1]->upto : 0, out = 0;
    bool within = not_this < f->n && takes(&f->server[not_this]->is);
    if (within) {
        out = f->server[not_this]->is.weight;
    }
    if (all == out) {
        return HF_SIP_NONE;
    }
    uint64_t h = hf_hash(aor, SEED_AOR);
    uint64_t point = (uint64_t)(((__uint128_t)h * (all - out)) >> 64);
    if (within && point >= f->server[not_this]->upto - out) {
        point += out; /* step over it */
    }
    return at_weight(f, point);
}

uint16_t hf_sip_bucket(struct hf_slice aor)
{
    return (uint16_t)(hf_hash(aor, SEED_AOR) >> 48);
}
