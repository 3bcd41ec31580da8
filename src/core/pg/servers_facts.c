/* What a monitor asks a PostgreSQL server, in one statement, and reads from its answer. */
#include <string.h>

#include "base/err.h"
#include "base/hex.h"
#include "base/rd.h"
#include "base/wr.h"
#include "core/pg/servers_impl.h"

#define IDENTITY_VERSION 1

/*
 * Every column may be read by any role. A checkpoint of this timeline, seen on a server that is not
 * in recovery, ended its recovery or came later: its next transaction id is no less than the first
 * that was not assigned when the server took over, and no more than what is assigned now.
 * Auxiliary processes have neither database nor user; who they are only pg_read_all_stats may know.
 */
const char *hf_pg_servers_query(void)
{
    return "SELECT pg_catalog.concat_ws(' ', r, pg_catalog.current_setting('autovacuum'),"
           " (SELECT system_identifier FROM pg_catalog.pg_control_system()),"
           " CASE WHEN r THEN c.timeline_id ELSE ('x' || pg_catalog.left("
           "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))::bit(32)::int END,"
           " c.timeline_id, c.next_xid,"
           " (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) * 1000000)"
           "::bigint,"
           " pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()),"
           " CASE WHEN r THEN coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')"
           " ELSE pg_catalog.pg_current_wal_lsn() END,"
           " coalesce(pg_catalog.pg_last_wal_receive_lsn(), '0/0'),"
           " coalesce((SELECT pg_catalog.string_agg(pid::text, ',')"
           " FROM pg_catalog.pg_stat_get_activity(NULL)"
           " WHERE datid IS NULL AND usesysid IS NULL), '0'))"
           " FROM pg_catalog.pg_is_in_recovery() r, pg_catalog.pg_control_checkpoint() c";
}

/* A cursor over text: what can't be read makes it bad for good. */
struct text {
    const uint8_t *p, *end;
    bool bad;
};

static bool accept(struct text *t, char c)
{
    if (t->p < t->end && *t->p == (uint8_t)c) {
        t->p++;
        return true;
    }
    return false;
}

static void expect(struct text *t, const char *s)
{
    for (; *s != 0; s++) {
        if (!accept(t, *s)) {
            t->bad = true;
        }
    }
}

static uint64_t number(struct text *t, unsigned base, uint64_t max)
{
    uint64_t n = 0;
    const uint8_t *begin = t->p;
    for (; t->p < t->end; t->p++) {
        unsigned d = (unsigned)hf_hex_value(*t->p); /* none: more than any base */
        if (d >= base) {
            break;
        }
        if (n > (max - d) / base) {
            t->bad = true;
            return 0;
        }
        n = n * base + d;
    }
    t->bad |= t->p == begin;
    return n;
}

/* Eight bytes that SQL shows as a signed number. */
static uint64_t signed_number(struct text *t)
{
    return accept(t, '-') ? -number(t, 10, 1ULL << 63) : number(t, 10, INT64_MAX);
}

static uint64_t lsn(struct text *t)
{
    uint64_t high = number(t, 16, UINT32_MAX);
    expect(t, "/");
    return high << 32 | number(t, 16, UINT32_MAX);
}

static bool word(struct text *t, const char *yes, const char *no)
{
    bool is = t->end - t->p >= (ptrdiff_t)strlen(yes) && memcmp(t->p, yes, strlen(yes)) == 0;
    expect(t, is ? yes : no);
    expect(t, " ");
    return is;
}

int hf_pg_server_facts_parse(struct hf_slice in, struct hf_pg_server_facts *ret_facts)
{
    struct hf_pg_server_facts f = {0};
    struct text t = {.p = in.p, .end = in.n > 0 ? in.p + in.n : in.p};
    f.in_recovery = word(&t, "t", "f");
    f.autovacuum = word(&t, "on", "off");
    f.sysid = signed_number(&t);
    expect(&t, " ");
    f.timeline = (uint32_t)number(&t, 10, UINT32_MAX);
    expect(&t, " ");
    uint64_t checkpoint_timeline = number(&t, 10, UINT32_MAX);
    expect(&t, " ");
    uint64_t next = number(&t, 10, UINT32_MAX) << 32;
    expect(&t, ":");
    next |= number(&t, 10, UINT32_MAX);
    expect(&t, " ");
    f.started = (int64_t)number(&t, 10, INT64_MAX);
    expect(&t, " ");
    f.xmax = number(&t, 10, UINT64_MAX);
    expect(&t, " ");
    f.lsn = lsn(&t);
    expect(&t, " ");
    f.received = lsn(&t);
    expect(&t, " ");
    do {
        uint32_t pid = (uint32_t)number(&t, 10, UINT32_MAX);
        if (pid != 0 && f.n_aux < HF_PG_AUX_MAX) {
            f.aux[f.n_aux++] = pid;
        }
    } while (!t.bad && accept(&t, ','));
    if (t.bad || t.p != t.end) {
        return -HF_EMALF;
    }
    if (!f.in_recovery && checkpoint_timeline == f.timeline && next < f.xmax) {
        f.xmax = next;
    }
    *ret_facts = f;
    return 0;
}

int hf_pg_fence_parse(const char *s, struct hf_pg_fence *ret_fence)
{
    struct text t = {.p = (const uint8_t *)s, .end = (const uint8_t *)s + strlen(s)};
    struct hf_pg_fence f = {0};
    expect(&t, "sysid=");
    f.sysid = signed_number(&t);
    expect(&t, " timeline=");
    f.timeline = (uint32_t)number(&t, 10, UINT32_MAX);
    expect(&t, " xmax=");
    f.xmax = number(&t, 10, UINT64_MAX);
    if (t.bad || (t.p != t.end && *t.p != ' ')) { /* later fields are ignored */
        return -HF_EMALF;
    }
    const char *after = strstr((const char *)t.p, " " HF_GROUP_AFTER);
    if (after != NULL) {
        t.p = (const uint8_t *)after + 1 + strlen(HF_GROUP_AFTER);
        f.after = number(&t, 10, UINT64_MAX);
        f.after = t.bad ? 0 : f.after;
    }
    *ret_fence = f;
    return 0;
}

/* ---- one start ---- */

unsigned hf_pg_server_likeness(const struct hf_pg_server_facts *a,
                               const struct hf_pg_server_facts *b)
{
    unsigned n = 0;
    if (a->sysid != b->sysid || a->started != b->started || a->in_recovery != b->in_recovery ||
        (!b->in_recovery && a->timeline != b->timeline)) {
        return 0;
    }
    for (size_t i = 0; i < a->n_aux; i++) {
        for (size_t j = 0; j < b->n_aux; j++) {
            n += a->aux[i] == b->aux[j];
        }
    }
    return n;
}

bool hf_pg_server_same_start(const struct hf_pg_server_facts *a, const struct hf_pg_server_facts *b)
{
    return hf_pg_server_likeness(a, b) > 0;
}

size_t hf_pg_identity_encode(const struct hf_pg_server_facts *f, uint8_t *buf)
{
    struct hf_wr w;
    struct hf_slice out;
    hf_wr_init(&w, buf, HF_PG_IDENTITY_MAX);
    hf_wr_u8(&w, IDENTITY_VERSION);
    hf_wr_u64(&w, f->sysid);
    hf_wr_u32(&w, f->timeline);
    hf_wr_u8(&w, f->in_recovery);
    hf_wr_u64(&w, (uint64_t)f->started);
    hf_wr_u8(&w, f->n_aux);
    for (size_t i = 0; i < f->n_aux; i++) {
        hf_wr_u32(&w, f->aux[i]);
    }
    return hf_wr_end(&w, &out) == 0 ? out.n : 0;
}

int hf_pg_identity_decode(struct hf_slice in, struct hf_pg_server_facts *ret_facts)
{
    struct hf_pg_server_facts f = {0};
    struct hf_rd r;
    hf_rd_init(&r, in);
    uint8_t version = hf_rd_u8(&r);
    f.sysid = hf_rd_u64(&r);
    f.timeline = hf_rd_u32(&r);
    uint8_t in_recovery = hf_rd_u8(&r);
    f.in_recovery = in_recovery == 1;
    f.started = (int64_t)hf_rd_u64(&r);
    f.n_aux = hf_rd_u8(&r);
    if (version != IDENTITY_VERSION || in_recovery > 1 || f.n_aux > HF_PG_AUX_MAX) {
        return -HF_EMALF;
    }
    for (size_t i = 0; i < f.n_aux; i++) {
        f.aux[i] = hf_rd_u32(&r);
    }
    int rc = hf_rd_end(&r);
    if (rc == 0) {
        *ret_facts = f;
    }
    return rc;
}
