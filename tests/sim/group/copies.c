/* Copies with data: histories, what was acknowledged, and what mirroring does to them. */
#include <assert.h>
#include <string.h>

#include "sim/group/world.h"

#define UNACKED_MAX 4
#define LAG_MAX 8

bool gs_mirrors(const struct gs_world *w, uint32_t d)
{
    return w->def[d].kind == HF_RESOURCE_COPY && w->def[d].flags & HF_RESOURCE_MIRROR;
}

bool gs_has_data(const struct gs_world *w, uint32_t d)
{
    uint32_t copies = 0;
    for (uint32_t i = 0; i < w->n_defs; i++) {
        copies += w->def[i].kind == HF_RESOURCE_COPY;
    }
    return w->def[d].kind == HF_RESOURCE_COPY && (gs_mirrors(w, d) || copies == 1);
}

/* ---- histories ---- */

static bool is_root(const struct gs_world *w, uint32_t line)
{
    return w->line[line].parent == line;
}

/* Is what line `line` has up to pos the beginning of b's content? */
static bool has_point(const struct gs_world *w, uint32_t line, uint32_t pos,
                      const struct gs_copy *b)
{
    while (!is_root(w, line) && pos <= w->line[line].fork) {
        line = w->line[line].parent;
    }
    uint32_t l = b->line, p = b->pos;
    while (l != line) {
        if (is_root(w, l)) {
            return pos == 0;
        }
        p = p < w->line[l].fork ? p : w->line[l].fork;
        l = w->line[l].parent;
    }
    return pos <= p;
}

bool gs_is_prefix(const struct gs_world *w, const struct gs_copy *a, const struct gs_copy *b)
{
    return has_point(w, a->line, a->pos, b);
}

bool gs_has_acked(const struct gs_world *w, const struct gs_copy *c)
{
    for (uint32_t l = 0; l < w->n_lines; l++) {
        if (w->line[l].acked && !has_point(w, l, w->line[l].acked, c)) {
            return false;
        }
    }
    return true;
}

/* Something was acknowledged, and a copy still has it. */
static bool somebody_has_acked(const struct gs_world *w)
{
    for (uint32_t d = 0; d < w->n_defs; d++) {
        for (uint32_t l = 0; l < w->n_lines && !w->copy[d].empty; l++) {
            if (w->line[l].acked && has_point(w, l, w->line[l].acked, &w->copy[d])) {
                return true;
            }
        }
    }
    return false;
}

/* b has everything acknowledged that a has. */
static bool covers(const struct gs_world *w, const struct gs_copy *a, const struct gs_copy *b)
{
    for (uint32_t l = 0; l < w->n_lines; l++) {
        uint32_t acked = w->line[l].acked;
        if (acked && has_point(w, l, acked, a) && !has_point(w, l, acked, b)) {
            return false;
        }
    }
    return true;
}

/* The end of what c has of line l. */
static uint32_t part_of(const struct gs_world *w, uint32_t l, const struct gs_copy *c)
{
    uint32_t at = c->line, p = c->pos;
    while (at != l) {
        if (is_root(w, at)) {
            return 0;
        }
        p = p < w->line[at].fork ? p : w->line[at].fork;
        at = w->line[at].parent;
    }
    return p;
}

void gs_data_forgive(struct gs_world *w, const struct gs_copy *c)
{
    for (uint32_t l = w->n_lines; l-- > 0;) { /* children come after their parents */
        struct gs_line *line = &w->line[l];
        uint32_t keep = part_of(w, l, c), was = line->acked;
        line->acked = was < keep ? was : keep;
        if (!is_root(w, l) && was > line->acked) {
            uint32_t before = was < line->fork ? was : line->fork;
            struct gs_line *up = &w->line[line->parent];
            up->acked = up->acked > before ? up->acked : before;
        }
    }
}

static uint16_t new_line(struct gs_world *w, uint32_t parent, uint32_t fork)
{
    assert(w->n_lines < GS_LINES_MAX);
    uint32_t l = w->n_lines++;
    w->line[l] = (struct gs_line){.parent = (uint16_t)parent, .fork = fork};
    return (uint16_t)l;
}

/* ---- who runs what ---- */

static bool works(const struct gs_host *h, uint32_t d)
{
    return h->power && !h->frozen && !h->res[d].broken;
}

static bool is_open(const struct gs_world *w, const struct gs_host *h, uint32_t d)
{
    enum gs_truth open = w->def[d].flags & HF_RESOURCE_OPEN ? GS_OPEN : GS_PROMOTED;
    return works(h, d) && h->res[d].truth >= open;
}

/* The host on which a copy is primary now, and can be reached from h. */
static struct gs_host *source_of(struct gs_world *w, const struct gs_host *h, uint32_t d)
{
    for (uint32_t i = 0; i < w->n; i++) {
        struct gs_host *o = &w->host[i];
        if (works(o, d) && o->res[d].truth >= GS_PROMOTED && gs_linked(w, h->i, i)) {
            return o;
        }
    }
    return NULL;
}

static struct gs_host *backup_of(struct gs_world *w, uint32_t d)
{
    for (uint32_t i = 0; i < w->n; i++) {
        struct gs_host *o = &w->host[i];
        if (works(o, d) && o->res[d].truth == GS_UNPROMOTED) {
            return o;
        }
    }
    return NULL;
}

/* ---- time passes ---- */

static void follow(struct gs_world *w, uint32_t m)
{
    struct gs_copy *c = &w->copy[m];
    struct gs_host *hm = c->follows >= 0 ? backup_of(w, m) : NULL;
    struct gs_host *hs = hm ? source_of(w, hm, (uint32_t)c->follows) : NULL;
    if (!hs) {
        c->copy_until += c->copy_until ? GS_TICK : 0;
        return;
    }
    struct gs_copy *s = &w->copy[c->follows];
    if (c->copy_until && w->net.now >= c->copy_until) {
        c->copy_until = 0;
        c->copy_from = -1;
        c->line = s->line;
        c->pos = s->pos;
        c->invalid = c->empty = false;
    }
    if (c->copy_until || c->invalid || c->empty || !gs_is_prefix(w, c, s)) {
        return;
    }
    if (gs_below(w, 10) < 7) {
        c->line = s->line;
        c->pos += (uint32_t)(gs_below(w, 3) ? s->pos - c->pos : gs_below(w, s->pos - c->pos + 1));
        hs->res[c->follows].confirmed[m] = c->pos;
    }
}

static void write_some(struct gs_world *w, struct gs_host *h, uint32_t d)
{
    struct gs_copy *c = &w->copy[d];
    struct gs_res *r = &h->res[d];
    struct gs_line *l = &w->line[c->line];
    uint32_t lo = c->pos;
    for (uint32_t m = 0; m < w->n_defs; m++) {
        if (r->sync >> m & 1 && m != d) {
            lo = r->confirmed[m] < lo ? r->confirmed[m] : lo;
        }
    }
    bool alone = w->degraded_refuse && gs_mirrors(w, d) && !(r->sync & ~(1u << d));
    l->acked = lo > l->acked && !alone ? lo : l->acked; /* HOLDFAST_DEGRADED=refuse */
    uint32_t base = l->acked > l->fork ? l->acked : l->fork;
    if (c->pos < base + UNACKED_MAX) {
        c->pos += 1 + (uint32_t)gs_below(w, 2);
    }
}

void gs_data_tick(struct gs_world *w)
{
    for (uint32_t d = 0; d < w->n_defs; d++) {
        if (gs_has_data(w, d)) {
            follow(w, d);
            for (uint32_t i = 0; i < w->n; i++) {
                if (is_open(w, &w->host[i], d)) {
                    write_some(w, &w->host[i], d);
                }
            }
        }
    }
}

/* ---- actions ---- */

int gs_data_promote(struct gs_world *w, struct gs_host *h, uint32_t d, const struct gs_job *j)
{
    struct gs_res *r = &h->res[d];
    struct gs_copy *c = &w->copy[d];
    if (r->truth == GS_STOPPED || r->broken) {
        return 1;
    }
    if (gs_has_data(w, d)) {
        if (c->empty && j->act.init) {
            if (somebody_has_acked(w) && !w->knowledge_lost) {
                gs_fail(w, "I3", "%s makes %s anew, but there are acknowledged writes", h->name,
                        w->def[d].name);
            }
            for (uint32_t l = 0; l < w->n_lines; l++) {
                w->line[l].acked = 0; /* all went with the disks before the group knew of any */
            }
            *c = (struct gs_copy){.follows = -1, .copy_from = -1};
            c->line = new_line(w, w->n_lines, 0);
        }
        if (c->empty || c->invalid) {
            return 1;
        }
        if (w->forced_res >> d & 1 || w->knowledge_lost) {
            gs_data_forgive(w, c);
        } else if (!gs_has_acked(w, c)) {
            gs_fail(w, "I3", "%s promotes %s, which lacks acknowledged writes", h->name,
                    w->def[d].name);
        }
        if (r->truth == GS_UNPROMOTED) {
            c->line = new_line(w, c->line, c->pos);
        }
        c->follows = -1;
    }
    memset(r->confirmed, 0, sizeof(r->confirmed));
    memset(r->told_seen, 0, sizeof(r->told_seen));
    r->sync = j->sync;
    r->async = j->async;
    enum gs_truth now = w->def[d].flags & HF_RESOURCE_OPEN ? GS_PROMOTED : GS_OPEN;
    r->truth = r->truth > now ? r->truth : now;
    return 0;
}

/* 0: in force; -1: not yet, mirrors are waited for. */
int gs_data_source(struct gs_world *w, struct gs_host *h, struct gs_job *j)
{
    uint32_t d = j->resource;
    struct gs_res *r = &h->res[d];
    if (!gs_mirrors(w, d)) {
        return 3;
    }
    if (r->truth < GS_PROMOTED || r->broken) {
        return 1;
    }
    r->async = j->async;
    for (uint32_t m = 0; m < w->n_defs; m++) {
        if (j->grow >> m & 1 && m != d) {
            struct gs_host *hm = backup_of(w, m);
            bool there = hm && gs_linked(w, h->i, hm->i) && w->copy[m].follows == (int)d;
            if (!there || r->confirmed[m] < w->line[w->copy[d].line].acked ||
                !gs_is_prefix(w, &w->copy[m], &w->copy[d]) || w->copy[m].invalid) {
                r->sync |= j->sync; /* grow first, then wait (X5) */
                return w->net.now < j->deadline ? -1 : 1;
            }
        }
    }
    r->sync = j->sync;
    return 0;
}

int gs_data_target(struct gs_world *w, struct gs_host *h, struct gs_job *j)
{
    uint32_t d = j->resource;
    struct gs_copy *c = &w->copy[d];
    struct gs_res *r = &h->res[d];
    if (j->source < 0 || !gs_mirrors(w, d)) {
        return 2;
    }
    if (!(h->reach >> d & 1)) {
        return 5;
    }
    struct gs_host *hs = source_of(w, h, (uint32_t)j->source);
    if (!hs || r->truth >= GS_PROMOTED || r->broken) {
        return 1;
    }
    const struct gs_copy *s = &w->copy[j->source];
    bool history = !c->empty && !c->invalid;
    if (history && gs_is_prefix(w, c, s) && (!j->act.overwrite || gs_below(w, 2))) {
        c->follows = j->source;
        r->truth = GS_UNPROMOTED;
        return 0;
    }
    if (history && !j->act.overwrite) {
        return 1;
    }
    if (history && !covers(w, c, s)) {
        gs_fail(w, "I2", "%s overwrites %s, which has acknowledged writes that %s lacks", h->name,
                w->def[d].name, w->def[j->source].name);
    }
    c->invalid = true;
    c->follows = c->copy_from = j->source;
    c->copy_until = w->net.now + HF_MS(200 + (hf_time)gs_below(w, 3000));
    r->truth = GS_UNPROMOTED;
    return 0;
}

uint8_t gs_data_seen(struct gs_world *w, struct gs_host *h, uint32_t d, uint32_t m)
{
    struct gs_host *hm = backup_of(w, m);
    const struct gs_copy *c = &w->copy[m], *s = &w->copy[d];
    if (!hm || hm->frozen || !gs_linked(w, h->i, hm->i)) {
        return HF_SEEN_SUSPENDED;
    }
    if (c->copy_until && c->follows == (int)d) {
        return HF_SEEN_SYNCING;
    }
    if (c->invalid || c->empty || c->follows != (int)d || !gs_is_prefix(w, c, s)) {
        return HF_SEEN_FAILED;
    }
    if (h->res[d].confirmed[m] + LAG_MAX < s->pos) {
        return HF_SEEN_SYNCING;
    }
    return h->res[d].sync >> m & 1 ? HF_SEEN_IN_SYNC : HF_SEEN_CAUGHT_UP;
}

void gs_data_interrupt(struct gs_world *w, uint32_t d)
{
    w->copy[d].copy_until = 0;
    w->copy[d].copy_from = -1;
}
