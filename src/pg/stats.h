/* What holdfast-pg counts: one list makes the fields, the console's columns and /metrics. */
#pragma once

#include <stdint.h>

#include "base/hftime.h"

/* Of the program: name, help. */
#define HF_PG_COUNTER_LIST(X)                                                                      \
    X(clients, "client connections accepted")                                                      \
    X(logins, "client logins that succeeded")                                                      \
    X(logins_failed, "client logins that failed")                                                  \
    X(clients_refused, "clients refused by a limit")                                               \
    X(server_connects, "server connections begun")                                                 \
    X(server_logins, "server logins that succeeded")                                               \
    X(server_logins_failed, "server logins that failed")                                           \
    X(server_losses, "server connections lost")                                                    \
    X(tls_handshakes, "TLS handshakes done, both sides")                                           \
    X(tls_failures, "TLS handshakes that failed, both sides")                                      \
    X(cancels, "cancel requests")                                                                  \
    X(cancels_forwarded, "cancel requests forwarded to a server")                                  \
    X(moves, "planned moves done")                                                                 \
    X(moves_failed, "planned moves given up")                                                      \
    X(recoveries, "sessions that went on after the loss of their server connection")               \
    X(replays, "open transactions replayed")                                                       \
    X(replays_failed, "open transactions that could not be replayed (40001)")                      \
    X(in_doubt, "commits interrupted")                                                             \
    X(in_doubt_committed, "interrupted commits that had been done")                                \
    X(in_doubt_aborted, "interrupted commits that had not been done, and were replayed")           \
    X(in_doubt_unresolved, "interrupted commits whose outcome is not known (08007)")               \
    X(lost_unprotected, "sessions or statements ended because they were not protected")            \
    X(notification_gaps, "times that notifications may have been missed")                          \
    X(protection_losses, "times that the service address's sessions lost their backup")            \
    X(reloads, "configurations taken")

struct hf_pg_counters {
#define HF_PG_COUNTER_FIELD(name, text) uint64_t name;
    HF_PG_COUNTER_LIST(HF_PG_COUNTER_FIELD)
#undef HF_PG_COUNTER_FIELD
};

/* Of a database or a user; times in ns, bytes from and to clients. As PgBouncer's SHOW STATS. */
#define HF_PG_STAT_LIST(X)                                                                         \
    X(xact_count, "transactions")                                                                  \
    X(query_count, "requests")                                                                     \
    X(received, "bytes from clients")                                                              \
    X(sent, "bytes to clients")                                                                    \
    X(xact_time, "time in transactions")                                                           \
    X(query_time, "time in requests")                                                              \
    X(wait_time, "time that clients waited for a server")

/* Bucket i counts what took less than 2^(i+4) us (16 us, 32 us, ...), the last one all the rest. */
#define HF_PG_HISTOGRAM_LEN 22
struct hf_pg_histogram {
    uint64_t n[HF_PG_HISTOGRAM_LEN];
    uint64_t sum_ns, count;
};

/** Append what is in b. */
void hf_pg_histogram_join(struct hf_pg_histogram *h, const struct hf_pg_histogram *b);
/** What the share q (0 to 1) of what was added between `then` and h took at most, to a power of
 * two, ms; of the last bucket at least. Negative: nothing was added. */
double hf_pg_histogram_quantile_ms(const struct hf_pg_histogram *h,
                                   const struct hf_pg_histogram *then, double q);

struct hf_pg_stats {
#define HF_PG_STAT_FIELD(name, text) uint64_t name;
    HF_PG_STAT_LIST(HF_PG_STAT_FIELD)
#undef HF_PG_STAT_FIELD
    struct hf_pg_histogram query, xact;
};

static inline void hf_pg_histogram_add(struct hf_pg_histogram *h, uint64_t ns)
{
    uint64_t us16 = ns / 16000;
    unsigned i = us16 ? 64 - (unsigned)__builtin_clzll(us16) : 0;
    h->n[i < HF_PG_HISTOGRAM_LEN ? i : HF_PG_HISTOGRAM_LEN - 1]++;
    h->sum_ns += ns;
    h->count++;
}

/* How a reign of the service address began. */
#define HF_PG_TAKEOVER_KIND_LIST(X)                                                                \
    X(FIRST, "first")     /* nothing was known of another one */                                   \
    X(PLANNED, "planned") /* the former primary handed it over */                                  \
    X(FAILURE, "failure") /* it was lost */
enum hf_pg_takeover_kind {
#define HF_PG_TAKEOVER_KIND_ENUM(id, name) HF_PG_TAKEOVER_##id,
    HF_PG_TAKEOVER_KIND_LIST(HF_PG_TAKEOVER_KIND_ENUM)
#undef HF_PG_TAKEOVER_KIND_ENUM
        HF_PG_TAKEOVER_KINDS
};
const char *hf_pg_takeover_kind_name(enum hf_pg_takeover_kind k);

/* Take-overs that this process has done: by kind, from promotion to the last session; sessions by
 * what became of them. */
#define HF_PG_LOST_REASONS 16
struct hf_pg_takeover_stats {
    struct hf_pg_histogram time[HF_PG_TAKEOVER_KINDS];
    uint64_t restored, gone; /* sessions; those whose client was gone */
    struct {
        uint64_t epoch;
        enum hf_pg_takeover_kind kind; /* FIRST, as before any: nothing was taken over */
        hf_time took;
        uint64_t sessions, restored;
    } last;
    struct {
        const char *why; /* static */
        uint64_t n;
    } lost[HF_PG_LOST_REASONS]; /* the last one: all further reasons */
};
/** One more session that could not be restored; why is static. */
void hf_pg_takeover_lost(struct hf_pg_takeover_stats *s, const char *why);
