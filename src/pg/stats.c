/* Names and tables of what holdfast-pg counts. */
#include "pg/stats.h"

#include <string.h>

const char *hf_pg_takeover_kind_name(enum hf_pg_takeover_kind k)
{
    static const char *const name[] = {
#define NAME(id, text) [HF_PG_TAKEOVER_##id] = text,
        HF_PG_TAKEOVER_KIND_LIST(NAME)
#undef NAME
    };
    return name[k];
}

void hf_pg_takeover_lost(struct hf_pg_takeover_stats *s, const char *why)
{
    size_t i = 0;
    while (i + 1 < HF_PG_LOST_REASONS && s->lost[i].why && strcmp(s->lost[i].why, why) != 0) {
        i++;
    }
    s->lost[i].why = i + 1 < HF_PG_LOST_REASONS ? why : "other";
    s->lost[i].n++;
}
