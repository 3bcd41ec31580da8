/* A backup's look ahead: is a take-over likely, and what is to be ready then? */
#include "pg/control.h"
#include "pg/service_impl.h"
#include "pg/warm.h"

#define EVERY HF_S(1)
#define SILENT HF_MS(200) /* without a lease */
#define LOOK_AGAIN HF_MS(10)
#define PREPARE_TIME HF_S(2)
#define ALARM HF_S(10) /* not longer: it has been decided otherwise */

/* By then a primary that lives has let nothing out for want of our word. */
static hf_time silent_at(const struct hf_pg_service *s)
{
    hf_time lease = HF_MS(s->pg->config->service.lease_ms);
    return s->heard + (lease ? lease : SILENT);
}

/* A process that had no CPU time has not heard anything either: it looks twice. */
static bool is_silent(struct hf_pg_service *s)
{
    bool silent = hf_pg_service_now(s) >= silent_at(s);
    bool twice = silent && s->suspected;
    s->suspected = silent;
    return twice;
}

static bool is_likely(struct hf_pg_service *s)
{
    return !s->source || is_silent(s) || s->prepared;
}

void hf_pg_service_warm(struct hf_pg_service *s)
{
    hf_time now = hf_pg_service_now(s);
    const struct hf_pair_store *store = s->backup ? hf_pair_backup_store(s->backup) : NULL;
    if (!s->warm || !s->backup) {
        return;
    }
    bool likely = store && is_likely(s);
    if (likely != (s->alarm_at != 0)) {
        s->alarm_at = likely ? now : 0;
        s->warm_at = 0;
    }
    if (now < s->warm_at) {
        return;
    }
    s->warm_at = now + EVERY;
    if (likely && now - s->alarm_at >= PREPARE_TIME) {
        hf_pg_service_warmed(s); /* the rest at the switch */
    }
    bool all = likely && (s->prepared || now - s->alarm_at < ALARM);
    hf_pg_warm_for(s->warm, store, all ? HF_PG_WARM_MAX : (size_t)s->pg->config->service.warm, all);
}

hf_time hf_pg_service_warm_deadline(const struct hf_pg_service *s)
{
    if (!s->warm || !s->backup) {
        return HF_NEVER;
    }
    bool watches = s->source && !s->alarm_at;
    hf_time look = s->suspected ? hf_pg_service_now(s) + LOOK_AGAIN : silent_at(s);
    return watches ? hf_time_min(s->warm_at, look) : s->warm_at;
}

void hf_pg_service_warmed(void *arg)
{
    struct hf_pg_service *s = arg;
    if (s->prepared && !s->armed && s->backup) {
        s->armed = true;
        hf_pg_control_line(s->prepared, "holdfast-armed");
    }
}
