/* What must hold at every instant (I1, I2, I3, G1), and once all is mended. */
#include <string.h>

#include "base/hash.h"
#include "sim/group/world.h"

/* ---- at every instant ---- */

static bool fenced_kind(const struct gs_world *w, uint32_t d)
{
    return !(w->def[d].flags & HF_RESOURCE_FENCE_NONE) && w->def[d].agent[0];
}

/* Does this action, once it takes effect, make the resource run as primary (or run at all)? */
static bool makes_primary(const struct gs_world *w, const struct gs_job *j)
{
    bool promotable = w->def[j->resource].flags & HF_RESOURCE_PROMOTABLE;
    return j->act.op == HF_OP_PROMOTE || j->act.op == HF_OP_OPEN ||
           (j->act.op == HF_OP_START && !promotable);
}

/* What runs, or is being started, on a host: definitions as primary, and at all. */
static void running(const struct gs_world *w, const struct gs_host *h, uint16_t *primary,
                    uint16_t *any)
{
    *primary = *any = 0;
    for (uint32_t d = 0; d < w->n_defs; d++) {
        *primary |= (uint16_t)((h->res[d].truth >= GS_PROMOTED) << d);
        *any |= (uint16_t)((h->res[d].truth != GS_STOPPED) << d);
    }
    for (uint32_t k = 0; h->daemon && k < GS_JOBS_MAX; k++) {
        const struct gs_job *j = &h->job[k];
        if (j->used && j->kind == GS_AGENT && !j->effect_done) {
            bool starts = makes_primary(w, j);
            *primary |= (uint16_t)(starts << j->resource);
            *any |=
                (uint16_t)((starts || j->act.op == HF_OP_START || j->act.op == HF_OP_MIRROR_TARGET)
                           << j->resource);
        }
    }
}

void gs_check_instant(struct gs_world *w)
{
    uint16_t copies = 0, attached = 0, primary_seen = 0, any_seen = 0;
    int first = -1;
    for (uint32_t d = 0; d < w->n_defs; d++) {
        if (fenced_kind(w, d)) {
            *(w->def[d].kind == HF_RESOURCE_COPY ? &copies : &attached) |= (uint16_t)(1u << d);
        }
    }
    for (uint32_t i = 0; i < w->n; i++) {
        const struct gs_host *h = &w->host[i];
        uint16_t primary, any;
        if (!h->power) {
            continue;
        }
        running(w, h, &primary, &any);
        if (primary & copies) {
            if (first >= 0) {
                gs_fail(w, "I1", "%s and %s are both primary hosts", w->host[first].name, h->name);
            }
            first = (int)i;
        }
        if (primary & attached & primary_seen) {
            gs_fail(w, "I1", "%s runs what another host runs: %x", h->name,
                    primary & attached & primary_seen);
        }
        if (any & w->shared & copies & any_seen) {
            gs_fail(w, "G1", "%s uses a copy that another host uses: %x", h->name,
                    any & w->shared & any_seen);
        }
        primary_seen |= primary;
        any_seen |= any;
    }
}

void gs_check_act(struct gs_world *w, struct gs_host *h, const struct gs_job *j)
{
    uint32_t d = j->resource;
    if (!makes_primary(w, j)) {
        return;
    }
    if (!h->quorate && fenced_kind(w, d)) {
        gs_fail(w, "I1", "%s: %s of %s without quorum", h->name, hf_op_name(j->act.op),
                w->def[d].name);
    }
    const struct hf_gstate *s = hf_group_state(h->g);
    bool reigns = j->act.op == HF_OP_PROMOTE || w->def[d].kind == HF_RESOURCE_COPY;
    if (reigns && j->act.op != HF_OP_OPEN && s->phase != HF_PHASE_PROMOTING) {
        gs_fail(w, "I1", "%s: %s of %s in phase %s", h->name, hf_op_name(j->act.op), w->def[d].name,
                hf_phase_name(s->phase));
    }
    if (j->act.op != HF_OP_PROMOTE) {
        return;
    }
    bool forced = w->forced_res >> d & 1 || w->knowledge_lost;
    if (gs_mirrors(w, d) && !(s->in_sync >> j->index & 1) && !forced) {
        gs_fail(w, "I2", "%s promotes %s, which is not in S", h->name, w->def[d].name);
    }
}

/* ---- members agree ---- */

void gs_check_state(struct gs_world *w, struct gs_host *h)
{
    static uint8_t buf[HF_GSTATE_LEN_MAX];
    const struct hf_gstate *s = hf_group_state(h->g);
    if (w->n_steps % 64 == 0) { /* what people may read at any time */
        (void)hf_group_why(h->g);
        for (uint8_t i = 0; s && i < s->n_resources; i++) {
            (void)hf_group_resource_why(h->g, i);
        }
    }
    if (hf_group_standing(h->g) != HF_GROUP_IN || !s ||
        (s->version == h->checked && h->ring == h->checked_ring)) {
        return;
    }
    h->checked = s->version;
    h->checked_ring = h->ring;
    struct hf_slice enc;
    int rc = hf_gstate_encode(s, buf, sizeof(buf), &enc);
    if (rc) {
        gs_fail(w, "I9", "%s's state can't be encoded: %d", h->name, rc);
    }
    uint64_t hash = hf_hash(enc, 0);
    for (uint32_t i = 0; i < GS_VERSIONS; i++) {
        if (w->seen[i].version == s->version && w->seen[i].ring == h->ring) {
            if (w->seen[i].hash != hash) {
                gs_fail(w, "equal", "%s and %s have different states %" PRIu64 ".%u", h->name,
                        w->host[w->seen[i].host].name, s->version >> 32, (uint32_t)s->version);
            }
            return;
        }
    }
    uint32_t k = w->n_seen++ % GS_VERSIONS;
    w->seen[k].ring = h->ring;
    w->seen[k].version = s->version;
    w->seen[k].hash = hash;
    w->seen[k].host = h->i;
    if (w->story || w->trace) {
        gs_tell_state(w, h);
    }
}

void gs_check_lost(struct gs_world *w, const struct gs_host *h)
{
    const struct hf_gstate *s = hf_group_state(h->g);
    uint16_t lost = hf_group_lost(h->g);
    if (lost & hf_group_present(h->g) || (lost && !hf_group_quorate(h->g))) {
        gs_fail(w, "lost", "%s takes %x for dead, sees %x", h->name, lost, hf_group_present(h->g));
    }
    if (!s || !hf_group_quorate(h->g) || h->ring < w->lost_ring || !(w->story || w->trace)) {
        return;
    }
    w->lost_ring = h->ring;
    for (uint8_t m = 0; m < s->n_members; m++) {
        int host = gs_host_of(w, s->member[m].host);
        if (host >= 0 && (lost >> m & 1) != (w->lost >> host & 1)) {
            w->lost ^= 1u << host;
            GS_TELL(w, "= %s is %s", s->member[m].host,
                    lost >> m & 1 ? "taken for dead" : "not taken for dead any more");
        }
    }
}

/* ---- telling ---- */

static const char *member_name(const struct hf_gstate *s, uint8_t m)
{
    return m < s->n_members ? s->member[m].host : "nobody";
}

static const char *resource_name(const struct hf_gstate *s, uint8_t r)
{
    return r < s->n_resources ? s->resource[r].name : "nothing";
}

static const char *copies_text(const struct hf_gstate *s, uint16_t mask, char *buf, size_t n)
{
    size_t at = 0;
    snprintf(buf, n, "none");
    for (uint8_t i = 0; i < s->n_resources; i++) {
        if (mask >> i & 1 && at < n) {
            at += (size_t)snprintf(buf + at, n - at, "%s%s", at ? " " : "", s->resource[i].name);
        }
    }
    return buf;
}

static const char *members_text(const struct hf_gstate *s, uint16_t mask, char *buf, size_t n)
{
    size_t at = 0;
    snprintf(buf, n, "none");
    for (uint8_t i = 0; i < s->n_members; i++) {
        if (mask >> i & 1 && at < n) {
            at += (size_t)snprintf(buf + at, n - at, "%s%s", at ? " " : "", s->member[i].host);
        }
    }
    return buf;
}

static void tell_members(struct gs_world *w, const struct hf_gstate *s, const struct hf_gstate *o)
{
    char text[100];
    for (uint8_t i = 0; i < s->n_members; i++) {
        const struct hf_gmember *m = &s->member[i], *was = NULL;
        for (uint8_t k = 0; k < o->n_members; k++) {
            was = strcmp(o->member[k].host, m->host) == 0 ? &o->member[k] : was;
        }
        if (!was) {
            GS_TELL(w, "= member %s, subgroup of %s, reaches %s", m->host,
                    resource_name(s, m->subgroup), copies_text(s, m->access, text, sizeof(text)));
            continue;
        }
        if (m->subgroup != was->subgroup || m->access != was->access) {
            GS_TELL(w, "= member %s is now in the subgroup of %s, reaches %s", m->host,
                    resource_name(s, m->subgroup), copies_text(s, m->access, text, sizeof(text)));
        }
        if (m->fenced != was->fenced) {
            GS_TELL(w, "= member %s is %s", m->host, m->fenced ? "off for certain" : "back");
        }
        if (m->leaving && !was->leaving) {
            GS_TELL(w, "= member %s is to leave", m->host);
        }
    }
    for (uint8_t k = 0; k < o->n_members; k++) {
        bool there = false;
        for (uint8_t i = 0; i < s->n_members; i++) {
            there = there || strcmp(s->member[i].host, o->member[k].host) == 0;
        }
        if (!there) {
            GS_TELL(w, "= %s is not a member any more", o->member[k].host);
        }
    }
}

static void tell_resources(struct gs_world *w, const struct hf_gstate *s, const struct hf_gstate *o)
{
    char text[100];
    for (uint8_t i = 0; i < s->n_resources; i++) {
        const struct hf_gresource *r = &s->resource[i], *was = &o->resource[i];
        if (i >= o->n_resources) {
            GS_TELL(w, "= resource %s", r->name);
            continue;
        }
        if (r->host != was->host || s->n_members != o->n_members) {
            if (strcmp(member_name(s, r->host), member_name(o, was->host)) != 0) {
                GS_TELL(w, "= host of %s: %s", r->name, member_name(s, r->host));
            }
        }
        if (r->mirror != was->mirror) {
            GS_TELL(w, "= %s: %s", r->name, hf_mirror_name(r->mirror));
        }
        if (r->failed_on != was->failed_on) {
            GS_TELL(w, "= %s has failed on: %s", r->name,
                    members_text(s, r->failed_on, text, sizeof(text)));
        }
        if (r->restarts != was->restarts) {
            GS_TELL(w, "= %s: %u restarts", r->name, r->restarts);
        }
    }
}

void gs_tell_state(struct gs_world *w, const struct gs_host *h)
{
    const struct hf_gstate *s = hf_group_state(h->g), *o = &w->told;
    char text[100];
    if (s->version <= w->told_version) {
        return;
    }
    GS_TRACE(w, "= version %" PRIu64 ".%u at %s", s->version >> 32, (uint32_t)s->version, h->name);
    tell_members(w, s, o);
    tell_resources(w, s, o);
    if (s->phase != o->phase || s->epoch != o->epoch ||
        strcmp(resource_name(s, s->primary), resource_name(o, o->primary)) != 0 ||
        strcmp(member_name(s, s->primary_host), member_name(o, o->primary_host)) != 0) {
        GS_TELL(w, "= epoch %" PRIu64 " %s: %s on %s", s->epoch, hf_phase_name(s->phase),
                resource_name(s, s->primary), member_name(s, s->primary_host));
    }
    if (s->in_sync != o->in_sync) {
        GS_TELL(w, "= in sync: %s", copies_text(s, s->in_sync, text, sizeof(text)));
    }
    if (s->paused != o->paused) {
        GS_TELL(w, "= %s", s->paused ? "paused" : "not paused any more");
    }
    if (s->join.step != o->join.step) {
        GS_TELL(w, "= join: %s",
                s->join.step == 0   ? "nobody"
                : s->join.step == 1 ? "probing"
                                    : "getting its configuration");
    }
    w->told_version = s->version;
    w->told = *s;
}

void gs_tell_all(struct gs_world *w)
{
    char text[100];
    for (uint32_t i = 0; i < w->n; i++) {
        const struct gs_host *h = &w->host[i];
        const struct hf_gstate *s = h->g ? hf_group_state(h->g) : NULL;
        if (!s) {
            continue;
        }
        GS_TELL(w, "* %s has the configuration of %x, reaches %x", h->name, h->config, h->reach);
        GS_TELL(w, "* %s is %s, version %" PRIu64 ".%u, sees %s, quorate %d, phase %s: %s", h->name,
                hf_group_standing_name(hf_group_standing(h->g)), s->version >> 32,
                (uint32_t)s->version, members_text(s, hf_group_present(h->g), text, sizeof(text)),
                hf_group_quorate(h->g), hf_phase_name(s->phase), hf_group_why(h->g));
        for (uint8_t r = 0; r < s->n_resources; r++) {
            GS_TELL(w, "*   %s on %s: %s, here %s, failed on %s: %s", s->resource[r].name,
                    member_name(s, s->resource[r].host), hf_mirror_name(s->resource[r].mirror),
                    hf_role_name(hf_group_role(h->g, hf_group_self(h->g), r)),
                    members_text(s, s->resource[r].failed_on, text, sizeof(text)),
                    hf_group_resource_why(h->g, r));
            GS_TELL(w, "*   can have it: %s",
                    members_text(s, hf_group_able(h->g, r), text, sizeof(text)));
        }
    }
    for (uint32_t d = 0; d < w->n_defs; d++) {
        const struct gs_copy *c = &w->copy[d];
        GS_TELL(w, "* %s is at %u:%u, follows %d%s%s", w->def[d].name, c->line, c->pos, c->follows,
                c->empty ? ", empty" : "", c->invalid ? ", invalid" : "");
    }
}

/* ---- once all is mended ---- */

static int settled_members(const struct gs_world *w, char *buf, size_t n)
{
    const struct gs_host *first = NULL;
    for (uint32_t i = 0; i < w->n; i++) {
        const struct gs_host *h = &w->host[i];
        if (!h->wanted || h->left) {
            continue;
        }
        if (!h->g || hf_group_standing(h->g) != HF_GROUP_IN) {
            snprintf(buf, n, "%s is %s", h->name,
                     h->g ? hf_group_standing_name(hf_group_standing(h->g)) : "not a member");
            return -1;
        }
        if (hf_group_self(h->g) == HF_GROUP_NONE) {
            snprintf(buf, n, "%s is not a member", h->name);
            return -1;
        }
        if (first && hf_group_state(first->g)->version != hf_group_state(h->g)->version) {
            snprintf(buf, n, "%s and %s have not the same version", first->name, h->name);
            return -1;
        }
        if (h->record_version != hf_group_state(h->g)->version) {
            snprintf(buf, n, "%s does not have the newest state on disk", h->name);
            return -1;
        }
        first = first ? first : h;
    }
    if (first && hf_group_state(first->g)->join.step) {
        snprintf(buf, n, "somebody is still joining");
        return -1;
    }
    return first ? (int)first->i : -2;
}

/* A copy that could be primary: in S, its content there, and a member reaches it. */
static bool could_run(const struct gs_world *w, const struct hf_gstate *s)
{
    for (uint8_t i = 0; i < s->n_resources; i++) {
        int d = gs_def_of(w, s->resource[i].name);
        bool good = d >= 0 && s->resource[i].kind == HF_RESOURCE_COPY && s->in_sync >> i & 1;
        good = good && (!gs_has_data(w, (uint32_t)d) || (s->init && i == 0) ||
                        (!w->copy[d].empty && !w->copy[d].invalid));
        for (uint8_t m = 0; good && m < s->n_members; m++) {
            int h = gs_host_of(w, s->member[m].host);
            if (h >= 0 && w->host[h].power && w->host[h].reach >> d & 1) {
                return true;
            }
        }
    }
    return false;
}

/* A member may have died between its admission and its first record. */
static bool too_few_records(const struct gs_world *w, const struct hf_gstate *s)
{
    uint32_t n = 0;
    for (uint8_t m = 0; m < s->n_members; m++) {
        int h = gs_host_of(w, s->member[m].host);
        n += h >= 0 && w->host[h].has_record;
    }
    return n * 2 <= s->n_members;
}

/* Commits can't be acknowledged without a copy that can't follow: so it stays closed. */
static bool refuses(const struct hf_gstate *s)
{
    for (uint8_t i = 0; i < s->n_resources; i++) {
        if (s->degraded_refuse && s->phase == HF_PHASE_OPENING && s->in_sync >> i & 1 &&
            i != s->primary && s->resource[i].mirror != HF_MIRROR_IN_SYNC) {
            return true;
        }
    }
    return false;
}

static const char *settled_primary(struct gs_world *w, const struct gs_host *at,
                                   const struct hf_gstate *s, char *buf, size_t n)
{
    if (s->phase != HF_PHASE_RUNNING) {
        snprintf(buf, n, "phase is %s, not running: %s", hf_phase_name(s->phase),
                 hf_group_why(at->g));
        return buf;
    }
    int d = gs_def_of(w, resource_name(s, s->primary));
    int h = gs_host_of(w, member_name(s, s->primary_host));
    if (d < 0 || h < 0) {
        return "running, but without a primary";
    }
    enum gs_truth want = w->def[d].flags & HF_RESOURCE_PROMOTABLE ? GS_OPEN : GS_PROMOTED;
    if (w->def[d].agent[0] && (w->host[h].res[d].truth < want || w->host[h].res[d].broken)) {
        snprintf(buf, n, "%s does not run on %s", w->def[d].name, w->host[h].name);
        return buf;
    }
    for (uint8_t i = 0; i < s->n_resources; i++) {
        int k = gs_def_of(w, s->resource[i].name);
        if (k >= 0 && s->resource[i].kind == HF_RESOURCE_ATTACHED &&
            (w->host[h].res[k].truth != GS_PROMOTED || w->host[h].res[k].broken)) {
            snprintf(buf, n, "%s does not run on %s", w->def[k].name, w->host[h].name);
            return buf;
        }
    }
    return NULL;
}

/* All other copies that a member reaches follow, and are in S. */
static const char *settled_mirrors(const struct gs_world *w, const struct hf_gstate *s, char *buf,
                                   size_t n)
{
    for (uint8_t i = 0; i < s->n_resources; i++) {
        const struct hf_gresource *r = &s->resource[i];
        int d = gs_def_of(w, r->name);
        bool reached = false;
        for (uint8_t m = 0; m < s->n_members; m++) {
            int h = gs_host_of(w, s->member[m].host);
            reached = reached || (s->member[m].subgroup == i && m != s->primary_host && h >= 0 &&
                                  !w->host[h].left); /* by a state that force has brought back */
        }
        if (d < 0 || !gs_mirrors(w, (uint32_t)d) || i == s->primary || !reached ||
            r->mirror == HF_MIRROR_DIVERGED) {
            continue;
        }
        if (r->mirror != HF_MIRROR_IN_SYNC || !(s->in_sync >> i & 1)) {
            snprintf(buf, n, "%s is %s", r->name, hf_mirror_name(r->mirror));
            return buf;
        }
        if (!gs_has_acked(w, &w->copy[d]) || w->copy[d].invalid || w->copy[d].empty) {
            snprintf(buf, n, "%s is in sync, but lacks data", r->name);
            return buf;
        }
    }
    return NULL;
}

const char *gs_check_settled(struct gs_world *w, char *buf, size_t n)
{
    bool ended = true; /* its last member has left */
    for (uint32_t i = 0; i < w->n; i++) {
        const struct gs_host *h = &w->host[i];
        ended = ended && !h->has_record && !(h->g && hf_group_self(h->g) != HF_GROUP_NONE);
    }
    if (ended) {
        return NULL;
    }
    for (uint32_t i = 0; i < w->n; i++) {
        const struct gs_host *h = &w->host[i];
        if (h->has_record && h->g && hf_group_state(h->g) &&
            too_few_records(w, hf_group_state(h->g))) {
            return NULL; /* nobody can know the newest state; the operator would begin anew */
        }
    }
    int first = settled_members(w, buf, n);
    if (first < 0) {
        return first == -2 ? NULL : buf;
    }
    const struct gs_host *at = &w->host[first];
    const struct hf_gstate *s = hf_group_state(at->g);
    for (uint32_t i = 0; i < w->n; i++) {
        const struct gs_host *h = &w->host[i];
        for (uint32_t k = 0; k < GS_JOBS_MAX; k++) {
            if (h->job[k].used && h->job[k].kind != GS_AGENT) {
                snprintf(buf, n, "%s fences, or gets configuration", h->name);
                return buf;
            }
        }
    }
    if (s->paused) {
        return "paused";
    }
    for (uint8_t m = 0; m < s->n_members; m++) {
        int h = gs_host_of(w, s->member[m].host);
        if (hf_group_lost(at->g) >> m & 1 && h >= 0 && w->host[h].wanted && !w->host[h].left) {
            snprintf(buf, n, "%s is taken for dead", s->member[m].host);
            return buf;
        }
    }
    if (s->phase != HF_PHASE_RUNNING && !could_run(w, s)) {
        return NULL; /* nothing to be had without force */
    }
    if (refuses(s)) {
        return NULL;
    }
    const char *why = settled_primary(w, at, s, buf, n);
    return why ? why : settled_mirrors(w, s, buf, n);
}
