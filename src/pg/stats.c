/* Names and tables of what holdfast-pg counts. */
#include "pg/stats.h"

#include <string.h>

#include "base/names.h"

HF_NAMES(hf_pg_takeover_kind_name, enum hf_pg_takeover_kind, HF_PG_TAKEOVER_KIND_LIST)

void hf_pg_takeover_lost(struct hf_pg_takeover_stats *s, const char *why)
{
    size_t i = 0;
    while (i + 1 < HF_PG_LOST_REASONS && s->lost[i].why && strcmp(s->lost[i].why, why) != 0) {
        i++;
    }
    s->lost[i].why = i + 1 < HF_PG_LOST_REASONS ? why : "other";
    s->lost[i].n++;
}

void hf_pg_histogram_join(struct hf_pg_histogram *h, const struct hf_pg_histogram *b)
{
    for (size_t i = 0; i < HF_PG_HISTOGRAM_LEN; i++) {
        h->n[i] += b->n[i];
    }
    h->sum_ns += b->sum_ns;
    h->count += b->count;
}

double hf_pg_histogram_quantile_ms(const struct hf_pg_histogram *h,
                                   const struct hf_pg_histogram *then, double q)
{
    uint64_t all = h->count - then->count, sum = 0;
    double wanted = q * (double)all;
    if (all == 0) {
        return -1;
    }
    size_t i = 0;
    for (; i + 1 < HF_PG_HISTOGRAM_LEN; i++) {
        sum += h->n[i] - then->n[i];
        if (sum > 0 && (double)sum >= wanted) {
            break;
        }
    }
    return 0.016 * (double)(1u << (i + 1 < HF_PG_HISTOGRAM_LEN ? i : i - 1));
}
