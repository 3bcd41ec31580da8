/* What must hold in simulations of pairs: I1, I4 and X1, and stores that are what they should be.
 */
#include <inttypes.h>

#include "sim/pair/world.h"

/* I1, I10: only the primary of the newest reign is heard by clients. */
void pw_check_output(struct pw_host *h, const char *what)
{
    const struct pw_group *g = &h->w->g;
    if (g->primary != h->i || g->epoch != h->epoch || g->stood_down) {
        pw_failed(h->w, "%c of epoch %" PRIu64 " %s, but the primary is %c of epoch %" PRIu64,
                  pw_name(h->i), h->epoch, what, pw_name(g->primary), g->epoch);
    }
}

/* I4, X1: whoever might be promoted has it. */
void pw_check_released(struct pw_host *h, uint64_t number, const char *what)
{
    const struct pw_group *g = &h->w->g;
    for (uint32_t i = 0; i < PW_HOSTS; i++) {
        struct pw_host *x = &h->w->host[i];
        if (i == h->i || g->epoch != h->epoch || !pw_promotable(h->w, i)) {
            continue; /* or what it had confirmed died with it */
        }
        struct hf_pair_backup_info info;
        if (x->backup) {
            hf_pair_backup_info(x->backup, &info);
        }
        if (!x->backup || !hf_pair_backup_usable(x->backup, h->epoch) || info.number < number) {
            pw_failed(h->w, "%c %s with batch %" PRIu64 ", which %c, in the set, does not have",
                      pw_name(h->i), what, number, pw_name(i));
        }
    }
}

/* takeover.md (h): who is recorded as in sync has everything that was let out before. */
void pw_check_recorded(struct pw_world *w, uint32_t host)
{
    const struct pw_host *p = &w->host[w->g.primary];
    struct hf_pair_backup_info info;
    hf_pair_backup_info(w->host[host].backup, &info);
    if (p->primary && p->epoch == w->g.epoch && info.number < p->released) {
        pw_failed(w, "%c is recorded with batch %" PRIu64 ", but %" PRIu64 " had effects",
                  pw_name(host), info.number, p->released);
    }
}

/* The backup's store is what the primary's sessions were at its last batch. */
void pw_check_store(struct pw_host *h)
{
    const struct hf_pair_backup_counters *c = hf_pair_backup_counters(h->backup);
    if (c->malformed || c->spoiled) {
        pw_failed(h->w, "%c got what makes no sense", pw_name(h->i));
    }
    const struct hf_pair_store *st = hf_pair_backup_store(h->backup);
    struct hf_pair_backup_info info;
    hf_pair_backup_info(h->backup, &info);
    if (!st || info.number >= PW_NUMBERS) {
        return;
    }
    for (uint32_t i = 0; i < h->w->n_reigns; i++) {
        const struct pw_reign *r = &h->w->reign[i];
        if (r->incarnation == info.incarnation && r->digest[info.number] != pw_digest_store(st)) {
            pw_failed(h->w, "%c's store is not what was there at batch %" PRIu64, pw_name(h->i),
                      info.number);
        }
    }
}
