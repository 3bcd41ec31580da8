/* The SIP store's tables: created, and brought up to date. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "sip/store_impl.h"
#include "sip/store_sql.h"

/*
 * One text for both databases but for words: TEXT is compared by bytes; tables of SQLite are their
 * primary keys' trees; PostgreSQL leaves room in pages, so that what is updated stays in its page.
 */
#define TABLES(TEXT, BYTES, END)                                                                   \
    "CREATE TABLE assignment (aor " TEXT " PRIMARY KEY, bucket smallint NOT NULL,"                 \
    " home " TEXT " NOT NULL, current " TEXT " NOT NULL, epoch bigint NOT NULL,"                   \
    " pinned boolean NOT NULL, agent smallint NOT NULL, agent_id smallint NOT NULL,"               \
    " change bigint NOT NULL)" END ";"                                                             \
    "CREATE INDEX assignment_current ON assignment (current, bucket);"                             \
    "CREATE INDEX assignment_change ON assignment (change) WHERE change > 0;"                      \
    "CREATE INDEX assignment_astray ON assignment (current, home, pinned)"                         \
    " WHERE current <> home;"                                                                      \
    "CREATE INDEX assignment_pinned ON assignment (current) WHERE pinned;"                         \
    "CREATE TABLE gone (aor " TEXT " PRIMARY KEY, epoch bigint NOT NULL, change bigint NOT NULL,"  \
    " at bigint NOT NULL)" END ";"                                                                 \
    "CREATE INDEX gone_change ON gone (change);"                                                   \
    "CREATE TABLE users (username " TEXT " NOT NULL, realm " TEXT " NOT NULL, aor " TEXT           \
    " NOT NULL, sha512_256 " BYTES ", sha256 " BYTES ", md5 " BYTES                                \
    ", PRIMARY KEY (username, realm))" END ";"                                                     \
    "CREATE INDEX users_aor ON users (aor);"                                                       \
    "CREATE TABLE binding (aor " TEXT " NOT NULL, id " BYTES " NOT NULL, uri " BYTES               \
    " NOT NULL, params " BYTES " NOT NULL, call_id " BYTES " NOT NULL, path " BYTES " NOT NULL,"   \
    " cseq bigint NOT NULL, life bigint NOT NULL, expires bigint NOT NULL,"                        \
    " outbound boolean NOT NULL, PRIMARY KEY (aor, id))" END ";"                                   \
    "CREATE TABLE kept (aor " TEXT " NOT NULL, what smallint NOT NULL, id " BYTES " NOT NULL,"     \
    " key " BYTES " NOT NULL, data " BYTES " NOT NULL, expires bigint NOT NULL,"                   \
    " PRIMARY KEY (aor, what, id))" END ";"                                                        \
    "INSERT INTO leader VALUES (1, 0, 1);"

static const char *const tables_lite[] = {TABLES("text", "blob", " WITHOUT ROWID")};
static const char *const tables_pg[] = {
    TABLES("text COLLATE \"C\"", "bytea", " WITH (fillfactor = 80)")};
_Static_assert(HF_ARRAY_LEN(tables_pg) == HF_SIP_STORE_SCHEMA, "a step for each version");

static int read_version(void *arg, const struct hf_slice *column, size_t n)
{
    (void)n;
    char text[24];
    snprintf(text, sizeof(text), "%.*s", HF_SLICE_FMT(column[0]));
    *(uint64_t *)arg = strtoull(text, NULL, 10);
    return 0;
}

static int bring_up(struct hf_sip_sql *q, struct hf_err *err)
{
    bool pg = hf_sip_sql_is_pg(q);
    if (pg) { /* one at a time */
        int rc = hf_sip_sql_script(q, "SELECT pg_advisory_xact_lock(" HF_SIP_STORE_LOCK ")", err);
        if (rc) {
            return rc;
        }
    }
    int rc = hf_sip_sql_script(q,
                               "CREATE TABLE IF NOT EXISTS leader (version integer NOT NULL,"
                               " reign bigint NOT NULL, change bigint NOT NULL)",
                               err);
    if (rc) {
        return rc;
    }
    uint64_t version = 0;
    int64_t rows =
        hf_sip_sql_run(q, "SELECT version FROM leader", NULL, 0, read_version, &version, err);
    if (rows < 0) {
        return (int)rows;
    }
    if (version > HF_SIP_STORE_SCHEMA) {
        return hf_err_set(err, -HF_EVERSION,
                          "the database's tables are of version %" PRIu64
                          ", this program knows %d: a newer one was here",
                          version, HF_SIP_STORE_SCHEMA);
    }
    for (; version < HF_SIP_STORE_SCHEMA; version++) {
        rc = hf_sip_sql_script(q, pg ? tables_pg[version] : tables_lite[version], err);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

int hf_sip_store_init(const char *uri, struct hf_err *err)
{
    struct hf_sip_sql *q;
    int rc = hf_sip_sql_open(uri, err, &q);
    if (rc) {
        return rc;
    }
    rc = hf_sip_sql_script(q, hf_sip_sql_is_pg(q) ? "BEGIN" : "BEGIN IMMEDIATE", err);
    if (!rc) {
        rc = bring_up(q, err);
        int end = hf_sip_sql_script(q, rc ? "ROLLBACK" : "COMMIT", rc ? NULL : err);
        rc = rc ? rc : end;
    }
    hf_sip_sql_close(q);
    return rc;
}
