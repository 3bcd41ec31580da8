#include "pg/protection.h"

#include <string.h>

#include "base/log.h"
#include "pg/protect.h"
#include "pg/watch.h"

/* ---- time ---- */

void hf_pg_reign_init(struct hf_pg_reign *r)
{
    *r = (struct hf_pg_reign){.unprotected_since = HF_NEVER};
}

/* Protected from now on, or nobody's. */
static hf_time end_span(struct hf_pg_reign *r, hf_time now)
{
    hf_time span = r->unprotected_since == HF_NEVER ? 0 : now - r->unprotected_since;
    r->unprotected_before += span;
    r->unprotected_ever += span;
    r->unprotected_since = HF_NEVER;
    return span;
}

void hf_pg_reign_note(struct hf_pg *pg, uint64_t epoch, const struct hf_pair_primary_info *info,
                      const char *backup, hf_time now)
{
    struct hf_pg_reign *r = &pg->reign;
    if (r->epoch != 0 && (!info || r->epoch != epoch)) {
        end_span(r, now);
        r->epoch = 0;
    }
    if (!info) {
        return;
    }
    if (r->epoch == 0) {
        r->epoch = epoch;
        r->began = r->unprotected_since = now;
        r->unprotected_before = 0;
    }
    bool is = info->state == HF_PAIR_STATE_IN_SYNC;
    if (is && r->unprotected_since != HF_NEVER) {
        hf_time span = end_span(r, now);
        hf_log_info("", "sessions are protected by %s, after %.3f s without protection", backup,
                    (double)span / HF_NS_PER_S);
        hf_pg_watch_touch(pg->watch);
    } else if (!is && r->unprotected_since == HF_NEVER) {
        r->unprotected_since = now;
        pg->counters.protection_losses++;
        hf_log_warn("",
                    "sessions are not protected any more: %s; they go on, and are protected "
                    "again when there is a backup in sync",
                    hf_pg_protection_state_why(info->state, info->code));
        hf_pg_watch_touch(pg->watch);
    }
}

static hf_time present(const struct hf_pg_reign *r, hf_time now)
{
    return r->unprotected_since == HF_NEVER ? 0 : now - r->unprotected_since;
}

hf_time hf_pg_reign_unprotected(const struct hf_pg_reign *r, hf_time now)
{
    return r->unprotected_before + present(r, now);
}

hf_time hf_pg_reign_unprotected_ever(const struct hf_pg_reign *r, hf_time now)
{
    return r->unprotected_ever + present(r, now);
}

/* ---- sessions ---- */

const char *hf_pg_protection_state_why(enum hf_pair_state state, int code)
{
    if (code == -HF_EVERSION &&
        (state == HF_PAIR_STATE_CONNECTING || state == HF_PAIR_STATE_LOST)) {
        return "holdfast-pg of the backup is of another version: update the older one";
    }
    static const char *const why[HF_PAIR_STATE_COUNT_] = {
        [HF_PAIR_STATE_NO_BACKUP] = "no backup",
        [HF_PAIR_STATE_CONNECTING] = "the backup is not connected",
        [HF_PAIR_STATE_SYNCING] = "the backup is being filled",
        [HF_PAIR_STATE_RECORDING] = "the group has not recorded the backup yet",
        [HF_PAIR_STATE_IN_SYNC] = "",
        [HF_PAIR_STATE_LOST] = "the backup was lost",
    };
    return why[state];
}

const char *hf_pg_protection_why(const struct hf_pg_client *c,
                                 const struct hf_pg_session_info *info)
{
    if (info->reasons) {
        return hf_pg_reason_text(info->reasons & -info->reasons);
    }
    return c->pg->service ? hf_pg_protect_why(c) : "";
}

static void count_reason(struct hf_pg_protection_counts *n, const char *why)
{
    size_t i = 0;
    while (i < n->n_reasons && strcmp(n->reason[i].why, why) != 0) {
        i++;
    }
    if (i == HF_PG_PROTECTION_REASONS) {
        n->reason[--i].why = "other";
    } else if (i == n->n_reasons) {
        n->reason[n->n_reasons++].why = why;
    }
    n->reason[i].n++;
}

void hf_pg_protection_count(const struct hf_pg *pg, struct hf_pg_protection_counts *ret_counts)
{
    struct hf_pg_protection_counts n = {0};
    HF_LIST_FOREACH (node, &pg->clients) {
        const struct hf_pg_client *c = HF_CONTAINER_OF(node, struct hf_pg_client, node);
        struct hf_pg_session_info info;
        struct hf_pg_lag lag;
        if (c->phase != HF_PG_PHASE_SESSION || !c->session) {
            continue;
        }
        hf_pg_session_info(c->session, &info);
        hf_pg_protect_lag(c, &lag);
        const char *why = hf_pg_protection_why(c, &info);
        n.sessions++;
        n.held += lag.held;
        if (*why) {
            count_reason(&n, why);
        } else {
            n.n_protected++;
        }
    }
    *ret_counts = n;
}
