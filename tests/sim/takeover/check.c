/* What must hold after every step: I1, I3, I4, and that S is what managers go by. */
#include <string.h>

#include "sim/takeover/world.h"

/* Definitions in S, as a state has it. */
static uint16_t set_of(const struct tw_world *w, const struct hf_gstate *s)
{
    uint16_t defs = 0;
    for (uint8_t r = 0; r < s->n_resources; r++) {
        int d = gs_def_of(&w->g, s->resource[r].name);
        defs |= (uint16_t)(d >= 0 && s->in_sync >> r & 1 ? 1u << d : 0);
    }
    return defs;
}

struct record {
    bool there;
    uint64_t version;
    uint16_t set;
};

static void read_record(const struct tw_world *w, uint32_t i, struct record *r)
{
    static struct hf_gstate s;
    const struct gs_host *h = &w->g.host[i];
    *r = (struct record){0};
    if (h->has_record && !h->damaged &&
        hf_gstate_decode(hf_slice(h->record, h->record_n), &s) == 0) {
        *r = (struct record){.there = true, .version = s.version, .set = set_of(w, &s)};
    }
}

bool tw_in_set(const struct tw_world *w, uint32_t host)
{
    struct record r[TW_HOSTS];
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        read_record(w, i, &r[i]);
    }
    for (uint32_t a = 0; a < TW_HOSTS; a++) { /* any two are a majority, and the newer counts */
        for (uint32_t b = 0; b < a; b++) {
            const struct record *newer = r[a].version > r[b].version ? &r[a] : &r[b];
            if (r[a].there && r[b].there && newer->set >> host & 1) {
                return true;
            }
        }
    }
    return w->seen_set >> host & 1;
}

/* For the pair's checks: with what it has now. Who has nothing makes nobody go on wrongly. */
bool pw_promotable(const struct pw_world *p, uint32_t host)
{
    const struct tw_world *w = tw_of_pair(p);
    const struct pw_host *x = &p->host[host];
    bool has = w->m[host].own || (x->backup && hf_pair_backup_store(x->backup));
    return x->up && has && tw_in_set(w, host);
}

/* Somebody else has all that was let out, and the group could have had it promoted. */
static int better(const struct tw_world *w, uint32_t host)
{
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        const struct pw_host *x = &w->p.host[i];
        const struct gs_host *gh = &w->g.host[i];
        struct hf_pair_backup_info info;
        if (i == host || !pw_runs(x) || !x->backup || !gs_runs(gh) || !gh->g ||
            hf_group_standing(gh->g) != HF_GROUP_IN || !hf_group_quorate(gh->g) ||
            !(w->seen_set >> i & 1)) {
            continue;
        }
        hf_pair_backup_info(x->backup, &info);
        if (info.complete && info.incarnation == w->incarnation) {
            return (int)i;
        }
    }
    return -1;
}

void tw_check_taking(struct tw_world *w, uint32_t host)
{
    const struct pw_host *h = &w->p.host[host];
    /* after a demote for want of quorum a reign that was never open may be begun once more */
    if (w->p.g.epoch > h->epoch || (w->p.g.epoch == h->epoch && w->p.g.primary != host)) {
        pw_failed(&w->p, "I1: %c takes the address for epoch %" PRIu64 " after epoch %" PRIu64,
                  pw_name(host), h->epoch, w->p.g.epoch);
    }
    int other = w->m[host].had_store ? -1 : better(w, host);
    if (other >= 0) {
        w->n_needless++;
        pw_tell(&w->p, "%c takes the address without its sessions, which %c has", pw_name(host),
                pw_name((uint32_t)other));
    }
}

/* The newest state that a deciding member has in memory. */
static void look(struct tw_world *w)
{
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        const struct gs_host *h = &w->g.host[i];
        const struct hf_gstate *s = h->g ? hf_group_state(h->g) : NULL;
        if (!s || s->version <= w->seen_version || hf_group_standing(h->g) != HF_GROUP_IN) {
            continue;
        }
        uint16_t set = set_of(w, s);
        w->seen_version = s->version;
        w->seen_set = set;
    }
}

/* Solo, without a lease: then nobody else may be promoted (X5, G2). */
static void check_solo(struct tw_world *w, uint32_t i)
{
    struct pw_host *h = &w->p.host[i];
    struct hf_pair_primary_info info;
    if (!w->lease || !h->primary || w->m[i].role != TW_PRIMARY || !h->listens ||
        w->p.g.epoch != h->epoch) {
        return;
    }
    hf_pair_primary_info(h->primary, pw_local(h), &info);
    for (uint32_t x = 0; info.solo && x < TW_HOSTS; x++) {
        if (x != i && tw_in_set(w, x)) {
            pw_failed(&w->p, "G2: %c goes on alone without a lease, and %c may be promoted",
                      pw_name(i), pw_name(x));
        }
    }
}

void tw_check(struct tw_world *w)
{
    look(w);
    for (uint32_t i = 0; i < TW_HOSTS; i++) {
        check_solo(w, i);
    }
}
