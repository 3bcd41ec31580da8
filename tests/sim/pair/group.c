/* A toy group: one mind that knows what a quorum would, late, and decides who leads and who may. */
#include <string.h>

#include "sim/pair/world.h"

void pw_say(struct pw_queue *q, struct pw_msg m)
{
    if (q->n < PW_MSGS) {
        q->m[q->n++] = m;
    }
}

static bool pop(struct pw_queue *q, struct pw_msg *ret_m)
{
    if (q->n == 0) {
        return false;
    }
    *ret_m = q->m[0];
    memmove(q->m, q->m + 1, --q->n * sizeof(*ret_m));
    return true;
}

/* ---- what hosts ask ---- */

void pw_asked(struct pw_host *h, const struct hf_pair_out *ask)
{
    bool solo = ask->kind == HF_PAIR_OUT_ASK_SOLO;
    pw_say(&h->from, (struct pw_msg){.kind = solo ? PW_ASK_SOLO : PW_ASK_RECORD,
                                     .epoch = h->epoch,
                                     .id = ask->id,
                                     .host = ask->host});
}

bool pw_answered(struct pw_host *h)
{
    (void)h;
    return false; /* answers are messages */
}

/* Ask for the lease again in time. */
void pw_lease(struct pw_host *h)
{
    if (h->lease != HF_NEVER && h->lease_asked + HF_MS(20) <= h->w->now) {
        h->lease_asked = h->w->now;
        pw_say(&h->from, (struct pw_msg){.kind = PW_ASK_LEASE, .epoch = h->epoch, .at = h->w->now});
    }
}

uint32_t pw_place(struct pw_host *h, uint32_t id)
{
    (void)h;
    return id;
}

bool pw_linked(const struct pw_world *w, uint32_t a, uint32_t b)
{
    (void)a;
    (void)b;
    return !w->pair_cut;
}

bool pw_promotable(const struct pw_world *w, uint32_t host)
{
    const struct pw_host *x = &w->host[host];
    return w->g.in_set[host] && x->up && x->boots == w->g.set_boots[host];
}

/* ---- what hosts hear ---- */

static void on_primary(struct pw_host *h, const struct pw_msg *m)
{
    hf_time now = pw_local(h);
    if (m->kind == PW_BACKUP) {
        hf_pair_primary_backup(h->primary, m->host, now);
    } else if (m->kind == PW_ANSWER) {
        hf_pair_primary_answer(h->primary, m->id, m->done, now);
    } else if (m->kind == PW_LEASE) {
        h->lease = m->at;
        hf_pair_primary_lease(h->primary, m->at == HF_NEVER ? m->at : m->at + h->offset, now);
    } else if (m->kind == PW_STAND_DOWN) {
        hf_pair_primary_lease(h->primary, 0, now);
        pw_say(&h->from, (struct pw_msg){.kind = PW_STOOD_DOWN, .epoch = h->epoch});
    }
}

bool pw_host_hears(struct pw_host *h)
{
    struct pw_msg m;
    if (!pw_runs(h) || h->cut || !pop(&h->to, &m)) {
        return false;
    }
    if (m.kind == PW_LEAD) {
        pw_lead(h, &m);
    } else if (m.kind == PW_FOLLOW) {
        pw_follow(h, m.epoch);
    } else if (h->primary && m.epoch == h->epoch) {
        on_primary(h, &m);
    }
    return true;
}

/* ---- what the group hears ---- */

static bool usable(struct pw_world *w, uint32_t host)
{
    const struct pw_host *x = &w->host[host];
    return x->up && !x->cut && x->backup && hf_pair_backup_usable(x->backup, w->g.epoch);
}

static void on_ask(struct pw_world *w, const struct pw_msg *m)
{
    struct pw_group *g = &w->g;
    if (m->id < g->last_ask) {
        return;
    }
    g->last_ask = m->id;
    bool done = true;
    if (m->kind == PW_ASK_SOLO) {
        pw_tell(w, "group: %c alone may go on", pw_name(g->primary));
        memset(g->in_set, 0, sizeof(g->in_set));
        g->in_set[g->primary] = true;
        w->n_solos++;
    } else {
        uint32_t x = m->host - 1;
        done = g->known[x] && usable(w, x) && !w->host[x].frozen;
        if (done) {
            pw_tell(w, "group: %c may be promoted", pw_name(x));
            g->in_set[x] = true;
            g->set_boots[x] = w->host[x].boots;
            pw_check_recorded(w, x);
        }
    }
    pw_say(&w->host[g->primary].to,
           (struct pw_msg){.kind = PW_ANSWER, .epoch = g->epoch, .id = m->id, .done = done});
}

static void give_lease(struct pw_world *w, hf_time from)
{
    struct pw_group *g = &w->g;
    hf_time until = g->fences ? HF_NEVER : from + w->lease;
    g->lease_given = until > g->lease_given && !g->fences ? until : g->lease_given;
    pw_say(&w->host[g->primary].to,
           (struct pw_msg){.kind = PW_LEASE, .epoch = g->epoch, .at = until});
}

bool pw_group_hears(struct pw_world *w, uint32_t host)
{
    struct pw_group *g = &w->g;
    struct pw_host *h = &w->host[host];
    struct pw_msg m;
    if (!h->up || h->cut || !pop(&h->from, &m)) {
        return false;
    }
    if (host != g->primary || m.epoch != g->epoch || h->boots != g->primary_boots) {
        return true;
    }
    if (m.kind == PW_ASK_LEASE && !g->standing_down && g->known[host]) {
        give_lease(w, m.at);
    } else if (m.kind == PW_STOOD_DOWN) {
        g->stood_down = g->standing_down;
    } else if (m.kind == PW_ASK_SOLO || m.kind == PW_ASK_RECORD) {
        on_ask(w, &m);
    }
    return true;
}

/* ---- what it sees and decides ---- */

bool pw_group_looks(struct pw_world *w, uint32_t host)
{
    struct pw_group *g = &w->g;
    const struct pw_host *h = &w->host[host];
    bool there = h->up && !h->cut && !h->frozen;
    if (there == g->known[host] && (!there || g->known_boots[host] == h->boots)) {
        return false;
    }
    if (!w->story) {
        pw_tell(w, "group: %c is %s", pw_name(host), there ? "there" : "gone");
    }
    g->known[host] = there;
    if (there) {
        bool same = g->known_boots[host] == h->boots;
        g->known_boots[host] = h->boots;
        g->in_set[host] = g->in_set[host] && same; /* it says that it has no copy */
        if (g->epoch && (host != g->primary || h->boots != g->primary_boots)) {
            pw_say(&w->host[host].to, (struct pw_msg){.kind = PW_FOLLOW, .epoch = g->epoch});
        }
    }
    return true;
}

static void promote(struct pw_world *w, uint32_t x, bool keep)
{
    struct pw_group *g = &w->g;
    g->epoch++;
    g->primary = x;
    g->primary_boots = w->host[x].boots;
    memset(g->in_set, 0, sizeof(g->in_set));
    g->in_set[x] = true;
    g->last_ask = 0;
    g->backup = 0;
    g->standing_down = g->stood_down = false;
    g->lease_given = w->now + w->lease;
    w->n_takeovers += g->epoch > 1;
    w->n_kept += keep;
    pw_tell(w, "group: epoch %u, %c is the primary", (unsigned)g->epoch, pw_name(x));
    pw_say(&w->host[x].to, (struct pw_msg){.kind = PW_LEAD,
                                           .epoch = g->epoch,
                                           .done = keep,
                                           .at = g->fences ? HF_NEVER : g->lease_given});
    for (uint32_t i = 0; i < PW_HOSTS; i++) {
        if (i != x && g->known[i]) {
            pw_say(&w->host[i].to, (struct pw_msg){.kind = PW_FOLLOW, .epoch = g->epoch});
        }
    }
}

/* Who has everything? HOSTS: nobody that is there; *ret_wait: somebody who may come back has. */
static uint32_t candidate(struct pw_world *w, bool *ret_wait)
{
    struct pw_group *g = &w->g;
    uint32_t found = PW_HOSTS;
    *ret_wait = false;
    for (uint32_t i = 0; i < PW_HOSTS; i++) {
        const struct pw_host *x = &w->host[i];
        if (i == g->primary || !g->in_set[i] || !x->up || x->boots != g->set_boots[i]) {
            continue;
        }
        if (!g->known[i] || x->cut) {
            *ret_wait = true;
        } else if (!usable(w, i)) {
            pw_failed(w, "%c is in the set without a store", pw_name(i));
        } else {
            found = i;
        }
    }
    return found;
}

static bool fail_over(struct pw_world *w)
{
    struct pw_group *g = &w->g;
    struct pw_host *old = &w->host[g->primary];
    if (g->fences && old->boots == g->primary_boots) {
        pw_crash(old, true);
    }
    if (!g->fences && w->now < g->lease_given) {
        return false;
    }
    bool wait;
    uint32_t x = candidate(w, &wait);
    bool keep = x < PW_HOSTS;
    if (!keep && wait) {
        return false;
    }
    for (uint32_t i = 0; i < PW_HOSTS && !keep; i++) {
        x = g->known[i] && w->host[i].up && w->host[i].boots == g->known_boots[i] ? i : x;
    }
    if (x == PW_HOSTS) {
        return false;
    }
    promote(w, x, keep);
    return true;
}

bool pw_group_switches(struct pw_world *w)
{
    struct pw_group *g = &w->g;
    bool wait;
    if (g->standing_down || !g->epoch || candidate(w, &wait) == PW_HOSTS) {
        return false;
    }
    pw_tell(w, "-- the operator wants a switch");
    g->standing_down = true;
    pw_say(&w->host[g->primary].to, (struct pw_msg){.kind = PW_STAND_DOWN, .epoch = g->epoch});
    return true;
}

bool pw_group_acts(struct pw_world *w)
{
    struct pw_group *g = &w->g;
    if (g->epoch == 0) {
        promote(w, 0, false);
        return true;
    }
    if (!g->known[g->primary] || g->known_boots[g->primary] != g->primary_boots) {
        return fail_over(w);
    }
    if (g->stood_down) {
        bool wait;
        uint32_t x = candidate(w, &wait);
        g->standing_down = g->stood_down = false;
        if (x < PW_HOSTS) {
            promote(w, x, true);
        } else {
            give_lease(w, w->now);
        }
        return true;
    }
    uint32_t want = 0;
    for (uint32_t i = 0; i < PW_HOSTS; i++) {
        if (i != g->primary && g->known[i] &&
            (want == 0 || g->in_set[i] || (g->backup == i + 1 && !g->in_set[want - 1]))) {
            want = i + 1;
        }
    }
    if (want == g->backup) {
        return false;
    }
    g->backup = want;
    pw_say(&w->host[g->primary].to,
           (struct pw_msg){.kind = PW_BACKUP, .epoch = g->epoch, .host = want});
    return true;
}
