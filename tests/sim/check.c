#include "sim/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"

/* Steps that one host may take at one instant. */
#define STEPS_MAX 1000
/* What one step may add to a counter. */
#define COUNT_MAX HF_ENTRIES_PER_HOST_MAX
/* Rounding: periods to 10 ms, times to 1 ms. */
#define LATE_MAX HF_MS(50)

static void fail(struct check *c, const struct sim_host *h, const char *what)
{
    fprintf(stderr, "FAILED at %" PRId64 " us, host %u (%s): %s\n  again: %s\n",
            c->w->net.now / 1000, h->index, h->name, what, c->again);
    exit(1);
}

#define CHECK(cond, what)                                                                          \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fail(c, h, what);                                                                      \
        }                                                                                          \
    } while (0)

static struct hf_slice name_text(uint32_t k, char buf[16])
{
    return hf_slice(buf, (size_t)snprintf(buf, 16, "/s/%u", k));
}

/* Every seventh value is larger than an advert. */
static struct hf_slice value_text(uint32_t v, char buf[2048])
{
    int pad = v % 7 ? (int)(v % 90) : 1500;
    return hf_slice(buf, (size_t)snprintf(buf, 2048, "{\"v\":%u%*s}", v, pad, ""));
}

/* "h12" is 12; names that no host has: n. */
static uint32_t name_index(const struct check *c, struct hf_slice name)
{
    uint32_t i = 0;
    for (size_t k = 1; k < name.n && k < 4; k++) {
        i = i * 10 + (uint32_t)(name.p[k] - '0');
    }
    return name.p[0] == 'h' && i < c->w->n ? i : c->w->n;
}

static struct check_pair *pair_of(struct check *c, const struct sim_host *h, uint32_t name)
{
    return &c->pair[(size_t)h->index * c->w->n + name];
}

static uint64_t mix(uint64_t d, struct hf_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        d = (d ^ s.p[i]) * 0x100000001b3ULL;
    }
    return (d ^ 0xff) * 0x100000001b3ULL;
}

/* A digest of our own of names and values; never 0. */
static uint64_t digest(const struct hf_part *p)
{
    uint64_t d = 0xcbf29ce484222325ULL;
    struct hf_part_pos pos = {0};
    for (struct hf_entry *e; (e = hf_part_next(p, &pos));) {
        d = mix(mix(d, hf_entry_name(e)), hf_entry_value(e));
    }
    return d | 1;
}

static struct check_process *process_of(struct check *c, const uint8_t salt[HF_SALT_LEN])
{
    uint32_t i;
    memcpy(&i, salt + 8, sizeof(i));
    return i < c->n_processes ? &c->process[i] : NULL;
}

/* ---- before a step ---- */

static void note_counter(struct check *c, const struct sim_host *h, uint32_t process,
                         uint64_t counter)
{
    uint64_t *max = &c->counter[(size_t)process * c->w->n + h->index];
    *max = counter > *max ? counter : *max;
}

/* Is this datagram one that h has taken in from the living process before? (I8) */
static void before_datagram(struct check *c, struct sim_host *h, const struct hf_dir_in *in)
{
    uint32_t name = name_index(c, in->head->host);
    struct check_process *process = process_of(c, in->head->salt);
    struct hf_part *part = hf_dir_part(h->dir, in->owner);
    uint32_t i = (uint32_t)(process - c->process);
    c->owner = in->owner;
    c->info = hf_dir_peer_info(h->dir, in->owner, c->w->net.now);
    c->stale = part && in->owner != hf_dir_self(h->dir) &&
               (in->head->incarnation < part->key.incarnation ||
                (memcmp(part->salt, in->head->salt, HF_SALT_LEN) == 0 &&
                 in->head->counter <= c->counter[(size_t)i * c->w->n + h->index]));
    c->n_stale += c->stale;
    if (!c->stale) {
        pair_of(c, h, name)->heard = c->w->net.now;
        if (part) {
            note_counter(c, h, i, in->head->counter);
        }
    }
    if (in->kind == HF_DIR_IN_ADVERT && in->advert->period_ms > c->period_ms[name]) {
        c->period_ms[name] = in->advert->period_ms;
    }
}

static void before(void *arg, struct sim_host *h, const struct hf_dir_in *in,
                   const struct sim_packet *packet)
{
    struct check *c = arg;
    hf_time now = c->w->net.now;
    c->stale = false;
    if (packet) {
        before_datagram(c, h, in);
    } else if (in->kind == HF_DIR_IN_PULLED) {
        uint32_t name = name_index(c, in->pull->head.owner);
        if (name < c->w->n) {
            pair_of(c, h, name)->heard = now;
        }
    } else if (in->kind == HF_DIR_IN_STATE_MEMBER) {
        uint32_t name = name_index(c, in->member->head.owner);
        hf_time heard = now - HF_MS(in->member->age_ms);
        if (name < c->w->n && heard > pair_of(c, h, name)->heard) {
            pair_of(c, h, name)->heard = heard;
        }
    }
}

/* ---- after a step ---- */

static void own_part_changed(struct check *c, struct sim_host *h, const struct hf_part *part)
{
    struct check_process *p = &c->process[h->process];
    uint64_t version = part->key.version;
    CHECK(part->key.incarnation == p->incarnation, "own part of another incarnation");
    CHECK(version < 1000000, "versions run away");
    if (version >= p->n) {
        size_t n = (size_t)version * 2 + 16;
        p->digest = sim_realloc(p->digest, n * sizeof(*p->digest));
        memset(p->digest + p->n, 0, (n - p->n) * sizeof(*p->digest));
        p->n = n;
    }
    CHECK(p->digest[version] == 0, "a version was published twice");
    p->digest[version] = digest(part);
}

/* I6: X's part is what X published in that incarnation as that version. */
static void peer_part_changed(struct check *c, struct sim_host *h, uint32_t name,
                              const struct hf_part *part)
{
    struct check_process *p = process_of(c, part->salt);
    CHECK(p, "I6: part of a process that never was");
    CHECK(p->name == name, "I6: part under another owner's name");
    CHECK(p->incarnation == part->key.incarnation, "I6: part of another incarnation");
    CHECK(part->key.version < p->n && p->digest[part->key.version],
          "I6: part of a version that its owner never published");
    CHECK(p->digest[part->key.version] == digest(part), "I6: part is not what its owner published");
}

static void part_changed(struct check *c, struct sim_host *h, const struct hf_dir_act *a)
{
    uint32_t name = name_index(c, hf_dir_store_name(h->store, a->owner));
    CHECK(name < c->w->n, "I6: part of an owner that never was");
    struct check_pair *pair = pair_of(c, h, name);
    CHECK(pair->part == a->before, "I6: a part changed without an act");
    pair->part = a->after;
    if (a->after && a->owner == hf_dir_self(h->dir)) {
        own_part_changed(c, h, a->after);
    } else if (a->after) {
        peer_part_changed(c, h, name, a->after);
    }
}

/* I8: a datagram taken in before changes nothing, not even the time it was heard of. */
static void check_stale(struct check *c, struct sim_host *h)
{
    struct hf_dir_peer_info i = hf_dir_peer_info(h->dir, c->owner, c->w->net.now);
    CHECK(i.state == c->info.state, "I8: a replay changed a peer's state");
    CHECK(i.heard_ms == c->info.heard_ms, "I8: a replay counted as life");
    CHECK(i.period_ms == c->info.period_ms, "I8: a replay changed a peer's period");
    CHECK(i.behind == c->info.behind, "I8: a replay made a peer behind");
    for (uint32_t k = 0; k < h->out->n; k++) {
        CHECK(h->out->act[k].kind != HF_DIR_ACT_PART || h->out->act[k].owner != c->owner,
              "I8: a replay changed the tree");
    }
}

/* What local programs hold is in the own part, and nothing else. */
static void check_own(struct check *c, struct sim_host *h)
{
    struct hf_part *part = hf_dir_part(h->dir, hf_dir_self(h->dir));
    char name[16], value[2048];
    uint32_t n = 0;
    for (uint32_t k = 0; part && k < CHECK_NAMES; k++) {
        struct check_local *l = &c->local[h->index][k];
        struct hf_entry *e = hf_part_find(part, name_text(k, name));
        if (!e && l->value && l->expires <= c->w->net.now) {
            l->value = 0;
        }
        CHECK(!e == !l->value, "own part: not what was published");
        CHECK(!e || hf_slice_eq(hf_entry_value(e), value_text(l->value, value)),
              "own part: another value than published");
        CHECK(!e || h->paused || l->expires == HF_NEVER ||
                  l->expires + HF_S(1) > (h->resumed_at > c->w->net.now - HF_MS(20)
                                              ? h->resumed_at - HF_S(60)
                                              : c->w->net.now),
              "own part: a lease ran out and the entry stays");
        n += e != NULL;
    }
    CHECK(!part || part->n_entries == n, "own part: more than was published");
}

static void check_counters(struct check *c, struct sim_host *h)
{
    const struct hf_dir_counters *now = hf_dir_counters(h->dir);
    struct hf_dir_counters *old = &c->old[h->index];
#define ROW(name, text) CHECK(now->name - old->name <= COUNT_MAX, "I9: counter " #name " jumped");
    HF_DIR_COUNTER_LIST(ROW)
#undef ROW
    *old = *now;
}

static void check_livelock(struct check *c, struct sim_host *h)
{
    if (h->steps_at != c->w->net.now) {
        h->steps_at = c->w->net.now;
        h->steps_now = 0;
    }
    CHECK(++h->steps_now <= STEPS_MAX + h->n_inbox, "I9: too many steps at one instant");
}

/* I6: who is silent is gone within 4 periods. */
static void check_silence(struct check *c, struct sim_host *h)
{
    hf_time now = c->w->net.now;
    for (uint32_t name = 0; name < c->w->n; name++) {
        struct check_pair *p = pair_of(c, h, name);
        hf_time last = p->heard > h->resumed_at ? p->heard : h->resumed_at;
        hf_time max = 4 * HF_MS(c->period_ms[name]) + LATE_MAX;
        uint32_t owner = p->part ? p->part->key.owner : hf_dir_self(h->dir);
        if (owner != hf_dir_self(h->dir)) {
            CHECK(now - last <= max, "I6: a silent owner stays in the tree");
        }
    }
}

static void check_all(struct check *c)
{
    if (c->w->net.now - c->looked_at < HF_MS(1)) {
        return;
    }
    c->looked_at = c->w->net.now;
    for (uint32_t i = 0; i < c->w->n; i++) {
        struct sim_host *h = &c->w->host[i];
        if (sim_is_up(h) && !h->paused && h->resumed_at + HF_MS(20) < c->w->net.now) {
            check_silence(c, h);
        }
    }
}

static void after(void *arg, struct sim_host *h, const struct hf_dir_in *in,
                  const struct sim_packet *packet)
{
    struct check *c = arg;
    (void)packet;
    if (h->leaving && in->kind != HF_DIR_IN_STOP) {
        CHECK(h->out->n == 0, "a host that left acts");
        return;
    }
    for (uint32_t i = 0; i < h->out->n; i++) {
        if (h->out->act[i].kind == HF_DIR_ACT_PART) {
            part_changed(c, h, &h->out->act[i]);
        }
    }
    for (uint32_t o = 0; o < h->store->n_owners && !h->leaving; o++) {
        struct hf_part *part = hf_dir_part(h->dir, o);
        uint32_t name = name_index(c, hf_dir_store_name(h->store, o));
        CHECK(name < c->w->n ? pair_of(c, h, name)->part == part : !part,
              "I6: the tree is not what the acts told");
    }
    if (c->stale) {
        check_stale(c, h);
    }
    if (in->kind == HF_DIR_IN_PULLED && hf_dir_part(h->dir, in->owner) &&
        hf_dir_peer_info(h->dir, in->owner, c->w->net.now).failures == 0) {
        struct hf_part *part = hf_dir_part(h->dir, in->owner);
        struct check_process *p = process_of(c, part->salt);
        if (memcmp(part->salt, in->pull->head.salt, HF_SALT_LEN) == 0) {
            note_counter(c, h, (uint32_t)(p - c->process), in->pull->head.counter);
        }
    }
    if (in->kind != HF_DIR_IN_PUBLISH && in->kind != HF_DIR_IN_WITHDRAW &&
        in->kind != HF_DIR_IN_PUBLISHER_GONE) {
        check_own(c, h);
    }
    check_counters(c, h);
    check_livelock(c, h);
    check_all(c);
}

/* A10: once it runs, a host asks the owner concerned and nobody else. */
static void asked(void *arg, struct sim_host *h, const struct sim_pull *p)
{
    struct check *c = arg;
    if (hf_dir_state(h->dir) != HF_DIR_RUN) {
        return;
    }
    CHECK(!p->state, "A10: a host that runs asked for the state of all");
    struct hf_dir_peer_info i = hf_dir_peer_info(h->dir, p->owner, c->w->net.now);
    CHECK(i.state == HF_DIR_PEER_WANTED || i.behind, "A10: pulled from one who has nothing new");
    c->n_repairs++;
    if (p->target < c->w->n) {
        const struct sim_host *t = &c->w->host[p->target];
        c->n_bystanders +=
            !hf_slice_eq(hf_slice(t->name, t->name_len), hf_dir_store_name(h->store, p->owner));
        CHECK(c->n_bystanders == 0, "A10: asked another host than the owner");
    }
}

static void started(void *arg, struct sim_host *h)
{
    struct check *c = arg;
    h->process = c->n_processes++;
    c->process = sim_realloc(c->process, c->n_processes * sizeof(*c->process));
    c->process[h->process] = (struct check_process){
        .name = name_index(c, hf_slice(h->name, h->name_len)), .incarnation = h->incarnation};
    c->counter = sim_realloc(c->counter, (size_t)c->n_processes * c->w->n * sizeof(*c->counter));
    memset(c->counter + (size_t)h->process * c->w->n, 0, c->w->n * sizeof(*c->counter));
}

/* ---- life ---- */

void check_init(struct check *c, struct sim_world *w, const char *again)
{
    *c = (struct check){.w = w, .again = again};
    c->local = sim_alloc(w->n * sizeof(*c->local));
    c->pair = sim_alloc((size_t)w->n * w->n * sizeof(*c->pair));
    c->period_ms = sim_alloc(w->n * sizeof(*c->period_ms));
    c->old = sim_alloc(w->n * sizeof(*c->old));
    w->hooks = (struct sim_hooks){
        .arg = c, .before = before, .after = after, .asked = asked, .started = started};
}

void check_fini(struct check *c)
{
    for (uint32_t i = 0; i < c->n_processes; i++) {
        free(c->process[i].digest);
    }
    free(c->process);
    free(c->counter);
    free(c->local);
    free(c->pair);
    free(c->period_ms);
    free(c->old);
}

void check_booted(struct check *c, uint32_t host)
{
    memset(c->local[host], 0, sizeof(c->local[host]));
    memset(&c->old[host], 0, sizeof(c->old[host]));
    memset(&c->pair[(size_t)host * c->w->n], 0, c->w->n * sizeof(*c->pair));
    for (uint32_t i = 0; i < c->n_processes; i++) {
        c->counter[(size_t)i * c->w->n + host] = 0;
    }
}

/* ---- local programs ---- */

static void check_result(struct check *c, uint32_t host, int rc, int want)
{
    const struct sim_host *h = &c->w->host[host];
    c->n_refused += want != 0;
    if (rc != want && !(rc == -ENOMEM && c->w->faults.no_memory)) {
        fprintf(stderr, "got %s, expected %s\n", hf_strerror(rc), hf_strerror(want));
        fail(c, h, "local program: not the result that it should get");
    }
}

void check_publish(struct check *c, uint32_t host, uint32_t name, uint32_t value,
                   uint32_t publisher, uint32_t lease_ms)
{
    struct check_local *l = &c->local[host][name];
    char n[16], v[2048];
    bool held = l->value && l->publisher != 0 && l->publisher != publisher;
    (void)name_text(name, n);
    (void)value_text(value, v);
    int rc = sim_publish(c->w, host, n, v, publisher, lease_ms);
    check_result(c, host, rc, held ? -HF_EHELD : 0);
    if (rc == 0) {
        *l = (struct check_local){.value = value,
                                  .publisher = lease_ms ? 0 : publisher,
                                  .expires = lease_ms ? c->w->net.now + HF_MS(lease_ms) : HF_NEVER};
    }
    check_own(c, &c->w->host[host]);
}

void check_withdraw(struct check *c, uint32_t host, uint32_t name, uint32_t publisher)
{
    struct check_local *l = &c->local[host][name];
    if (l->value && l->expires <= c->w->net.now) {
        return; /* its timer may have come or not */
    }
    char n[16];
    (void)name_text(name, n);
    bool held = l->value && l->publisher != 0 && l->publisher != publisher;
    int rc = sim_withdraw(c->w, host, n, publisher);
    check_result(c, host, rc, !l->value ? -HF_ENOTFOUND : held ? -HF_EHELD : 0);
    l->value = rc ? l->value : 0;
    check_own(c, &c->w->host[host]);
}

void check_gone(struct check *c, uint32_t host, uint32_t publisher)
{
    struct hf_dir_in in = {.kind = HF_DIR_IN_PUBLISHER_GONE};
    in.publisher = publisher;
    sim_step(c->w, &c->w->host[host], &in, NULL);
    for (uint32_t k = 0; k < CHECK_NAMES; k++) {
        struct check_local *l = &c->local[host][k];
        if (l->value && l->publisher == publisher) {
            l->publisher = 0;
            l->expires = c->w->net.now;
        }
    }
    check_own(c, &c->w->host[host]);
}

/* ---- at the end ---- */

static void check_sums(struct check *c, struct sim_host *h)
{
    const struct hf_dir_counters *n = hf_dir_counters(h->dir);
    CHECK(n->members_up - n->members_down + 1 == hf_dir_members(h->dir),
          "counters: members up and down do not add up");
    CHECK(n->pulls_started >= n->pulls_delta + n->pulls_full + n->pulls_failed,
          "counters: more pulls ended than started");
    CHECK(n->adverts_received + n->adverts_held >= n->adverts_ignored + n->adverts_applied,
          "counters: more adverts judged than received");
}

void check_same_tree(struct check *c)
{
    uint32_t up = 0;
    for (uint32_t i = 0; i < c->w->n; i++) {
        up += c->w->host[i].on;
    }
    for (uint32_t i = 0; i < c->w->n; i++) {
        struct sim_host *h = &c->w->host[i];
        if (!h->on) {
            continue;
        }
        CHECK(hf_dir_state(h->dir) == HF_DIR_RUN, "end: it does not run");
        CHECK(hf_dir_members(h->dir) == up, "end: not the hosts that run are members");
        check_sums(c, h);
        for (uint32_t k = 0; k < c->w->n; k++) {
            const struct sim_host *o = &c->w->host[k];
            uint32_t owner = hf_dir_store_find_owner(h->store, hf_slice(o->name, o->name_len));
            struct hf_part *has = hf_dir_part(h->dir, owner);
            struct hf_part *is = o->on ? hf_dir_part(o->dir, hf_dir_self(o->dir)) : NULL;
            if (o->on) {
                CHECK(has && is, "end: a host that runs is missing");
                CHECK(has->key.incarnation == is->key.incarnation &&
                          has->key.version == is->key.version && has->key.hash == is->key.hash &&
                          digest(has) == digest(is),
                      "end: a part is not as its owner has it");
            }
        }
    }
}
