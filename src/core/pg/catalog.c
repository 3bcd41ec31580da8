/* What is safe to repeat in a database, and how that is asked of its catalog. */
#include "core/pg/catalog.h"

#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "core/pg/classify.h"

#define CHUNK 65536
#define KEY_MAX 256 /* kind and name */

struct hf_pg_catalog_chunk {
    struct hf_pg_catalog_chunk *next;
    size_t n;
    uint8_t bytes[CHUNK];
};

void hf_pg_catalog_init(struct hf_pg_catalog *l, uint64_t seed)
{
    *l = (struct hf_pg_catalog){.chunks = NULL};
    hf_map_init(&l->map, seed);
}

void hf_pg_catalog_fini(struct hf_pg_catalog *l)
{
    while (l->chunks) {
        struct hf_pg_catalog_chunk *c = l->chunks;
        l->chunks = c->next;
        hf_free(c);
    }
    hf_map_fini(&l->map);
    hf_pg_catalog_init(l, l->map.seed);
}

static bool is_ascii(struct hf_slice s)
{
    uint8_t all = 0;
    for (size_t i = 0; i < s.n; i++) {
        all |= s.p[i];
    }
    return all < 128;
}

static struct hf_slice key_of(uint8_t key[KEY_MAX], char kind, struct hf_slice name)
{
    size_t n = name.n < KEY_MAX - 1 ? name.n : KEY_MAX - 1; /* a name has up to 63 bytes */
    key[0] = (uint8_t)kind;
    if (n) {
        memcpy(key + 1, name.p, n);
    }
    return hf_slice(key, n + 1);
}

int hf_pg_catalog_add(struct hf_pg_catalog *l, char kind, struct hf_slice name)
{
    if (name.n == 0 || !kind || !strchr("fFotras", kind)) {
        return -HF_EVALUE;
    }
    uint8_t bytes[KEY_MAX];
    struct hf_slice row = key_of(bytes, kind, name), key = row;
    if (kind == 's') { /* its table */
        const uint8_t *end = memchr(row.p, '\n', row.n);
        key.n = end ? (size_t)(end - row.p) : row.n;
    }
    if (hf_map_get(&l->map, key)) {
        return 0;
    }
    if (!l->chunks || l->chunks->n + row.n + 1 > CHUNK) {
        struct hf_pg_catalog_chunk *c = hf_alloc(sizeof(*c));
        if (!c) {
            return -ENOMEM;
        }
        c->next = l->chunks;
        l->chunks = c;
    }
    uint8_t *p = l->chunks->bytes + l->chunks->n;
    memcpy(p, row.p, row.n);
    p[row.n] = 0;
    int rc = hf_map_put(&l->map, hf_slice(p, key.n), p);
    if (rc) {
        return rc;
    }
    l->chunks->n += row.n + 1;
    l->sum[0] += hf_hash(row, l->map.seed);
    l->sum[1] += hf_hash(row, ~l->map.seed);
    l->foreign_attributes |= kind == 'a' && !is_ascii(name);
    return 0;
}

static bool catalog_has(const struct hf_pg_catalog *l, char kind, struct hf_slice name)
{
    uint8_t bytes[KEY_MAX];
    return hf_map_get(&l->map, key_of(bytes, kind, name));
}

bool hf_pg_catalog_serial(const struct hf_pg_catalog *l, struct hf_slice table,
                          struct hf_slice *ret_column, uint16_t *ret_index)
{
    uint8_t bytes[KEY_MAX];
    struct hf_slice key = key_of(bytes, 's', table);
    const char *row = is_ascii(table) ? hf_map_get(&l->map, key) : NULL;
    const char *column = row ? strchr(row, '\n') : NULL;
    const char *position = column ? strchr(column + 1, '\n') : NULL;
    if (!position) {
        return false;
    }
    *ret_column = hf_slice(column + 1, (size_t)(position - column - 1));
    *ret_index = (uint16_t)(strtoul(position + 1, NULL, 10) - 1);
    return is_ascii(*ret_column);
}

bool hf_pg_catalog_safe(const struct hf_pg_catalog *l, char kind, struct hf_slice name)
{
    /* The client's encoding needs not be the one that the list is in: the same bytes may be another
     * name. Names of columns are seldom functions. */
    if (!is_ascii(name)) {
        return kind == 'a' && !l->foreign_attributes;
    }
    return catalog_has(l, kind, name) == (kind != 'a');
}

bool hf_pg_catalog_complete(const struct hf_pg_catalog *l)
{
    static const char *const needed[] = {"=", "<>", "<", "<=", ">", ">="};
    for (size_t i = 0; i < HF_ARRAY_LEN(needed); i++) {
        if (!hf_pg_catalog_safe(l, 'o', hf_slice_str(needed[i]))) {
            return false;
        }
    }
    return true;
}

/*
 * Safe is what its entry says is immutable or stable, whatever the schema; what a caller's own
 * search path finds is among these. Beside that:
 *   - an aggregate is always "immutable": its functions count; a default of an argument may call
 *     anything, so user functions with defaults are out;
 *   - a cast may be implicit: with a volatile one, no operator is listed, and nothing is repeatable
 *     (hf_pg_catalog_complete());
 *   - a table is out with row security (policies call functions), rules, an access method that is
 *     not heap, or a child that is out or foreign; a temporary one of some session gives no name,
 * but takes one;
 *   - PostgreSQL's own views are listed that read only tables of the catalog through functions that
 *     are stable (the system test proves it of each).
 * A serial column is one whose default is nextval() of the sequence that it owns, or an identity,
 * if it is unique by itself: so that a value given by hand (X8) can't be there twice.
 */
const char *hf_pg_catalog_query(void)
{
    return
        /* functions that are volatile, or a call of which may be */
        "WITH RECURSIVE odd AS ( "
        "SELECT p.oid FROM pg_catalog.pg_proc p "
        "WHERE p.provolatile = 'v' "
        "OR (p.pronargdefaults > 0 AND p.oid >= 16384) "
        "UNION SELECT a.aggfnoid::oid FROM pg_catalog.pg_aggregate a "
        "JOIN pg_catalog.pg_proc p ON p.provolatile = 'v' AND p.oid = ANY (ARRAY[ "
        "a.aggtransfn::oid, a.aggfinalfn::oid, a.aggcombinefn::oid, a.aggserialfn::oid, "
        "a.aggdeserialfn::oid, a.aggmtransfn::oid, a.aggminvtransfn::oid, a.aggmfinalfn::oid]) "
        /* types whose input functions are known */
        "), base AS ( "
        "SELECT t.oid FROM pg_catalog.pg_type t "
        "WHERE t.typtype = 'e' "
        "OR (t.typtype IN ('r', 'm') AND t.oid < 16384) "
        "OR (t.typtype = 'b' AND NOT EXISTS (SELECT FROM odd WHERE odd.oid IN ( "
        "t.typinput::oid, t.typoutput::oid, t.typmodin::oid, t.typmodout::oid))) "
        /* domains without checks, too; arrays only of these */
        "), plain AS ( "
        "SELECT t.oid, t.typname FROM pg_catalog.pg_type t "
        "LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid "
        "WHERE CASE WHEN e.oid IS NOT NULL THEN e.oid IN (SELECT oid FROM base) "
        "WHEN t.typtype = 'd' THEN t.typbasetype IN (SELECT oid FROM base) "
        "AND NOT EXISTS (SELECT FROM pg_catalog.pg_type b JOIN pg_catalog.pg_type be "
        "ON be.oid = b.typelem WHERE b.oid = t.typbasetype AND be.oid NOT IN (SELECT oid FROM "
        "base)) "
        "AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.contypid = t.oid) "
        "ELSE t.oid IN (SELECT oid FROM base) END "
        /* relations that are not just heaps of rows, and what they are children of */
        "), other AS ( "
        "SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind NOT IN ('i', 'I', 'c', 't') AND "
        "NOT ( "
        "(c.relkind IN ('r', 'p', 'm') AND NOT c.relrowsecurity AND (c.relkind = 'm' OR NOT "
        "c.relhasrules) "
        "AND (c.relkind = 'p' OR c.relam = 2)) "
        "OR (c.relkind = 'v' AND c.oid < 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite r "
        "WHERE r.ev_class = c.oid AND r.oid >= 16384) AND c.relname::text IN ( "
        "'pg_group', 'pg_indexes', 'pg_matviews', 'pg_policies', 'pg_roles', 'pg_rules', "
        "'pg_settings', "
        "'pg_tables', 'pg_user', 'pg_views', 'columns', 'constraint_column_usage', "
        "'key_column_usage', 'referential_constraints', 'routines', 'schemata', 'sequences', "
        "'table_constraints', 'tables', 'views'))) "
        "UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN other ON other.oid = "
        "i.inhrelid "
        ") "
        "SELECT 'f', p.proname FROM pg_catalog.pg_proc p GROUP BY p.proname "
        "HAVING pg_catalog.bool_and(p.oid NOT IN (SELECT oid FROM odd)) "
        "UNION ALL SELECT 'F', p.proname FROM pg_catalog.pg_proc p WHERE p.oid IN (SELECT oid FROM "
        "odd) "
        "GROUP BY p.proname HAVING pg_catalog.bool_and(p.oid < 16384 AND p.prolang = 12) "
        "UNION ALL SELECT 'a', p.proname FROM pg_catalog.pg_proc p "
        "JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0] "
        "WHERE p.oid IN (SELECT oid FROM odd) AND p.prokind <> 'p' "
        "AND p.pronargs - p.pronargdefaults - (p.provariadic <> 0)::int4 <= 1 "
        "AND (t.typtype IN ('c', 'd') OR t.typname::text IN ('record', 'any', 'anyelement', "
        "'anynonarray', 'anycompatible', 'anycompatiblenonarray')) GROUP BY p.proname "
        "UNION ALL SELECT 'o', o.oprname FROM pg_catalog.pg_operator o "
        "WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_cast c JOIN odd ON odd.oid = c.castfunc) "
        "GROUP BY o.oprname HAVING pg_catalog.bool_and(o.oprcode::oid NOT IN (SELECT oid FROM "
        "odd)) "
        "UNION ALL SELECT 't', t.typname FROM pg_catalog.pg_type t GROUP BY t.typname "
        "HAVING pg_catalog.bool_and(t.oid IN (SELECT oid FROM plain)) "
        "UNION ALL SELECT 'r', c.relname FROM pg_catalog.pg_class c "
        "WHERE c.relkind NOT IN ('i', 'I', 'c', 't') GROUP BY c.relname "
        "HAVING pg_catalog.bool_and(c.oid NOT IN (SELECT oid FROM other)) "
        "AND pg_catalog.bool_or(c.relpersistence <> 't') "
        "UNION ALL SELECT 's', c.relname::text || E'\\n' || pg_catalog.min(s.attname::text) || "
        "E'\\n' || pg_catalog.min(s.position) FROM pg_catalog.pg_class c "
        "LEFT JOIN (SELECT a.attrelid, a.attname, (SELECT pg_catalog.count(*) "
        "FROM pg_catalog.pg_attribute b WHERE b.attrelid = a.attrelid "
        "AND b.attnum BETWEEN 1 AND a.attnum AND NOT b.attisdropped) AS position "
        "FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_depend d "
        "ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = a.attrelid "
        "AND d.refobjsubid = a.attnum AND d.classid = 'pg_catalog.pg_class'::regclass "
        "AND d.deptype IN ('a', 'i') JOIN pg_catalog.pg_sequence q ON q.seqrelid = d.objid "
        "AND q.seqincrement > 0 AND NOT q.seqcycle WHERE NOT a.attisdropped "
        "AND (a.attidentity <> '' OR EXISTS (SELECT FROM pg_catalog.pg_attrdef f "
        "WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum "
        "AND pg_catalog.pg_get_expr(f.adbin, f.adrelid) = pg_catalog.format("
        "'nextval(%L::regclass)', q.seqrelid::regclass::text))) "
        "AND EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid "
        "AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum "
        "AND i.indpred IS NULL)) s ON s.attrelid = c.oid "
        "WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_catalog.strpos(c.relname, E'\\n') = 0 "
        "GROUP BY c.relname HAVING pg_catalog.count(s.attname) = pg_catalog.count(*) "
        "AND pg_catalog.min(s.attname::text) = pg_catalog.max(s.attname::text) "
        "AND pg_catalog.min(s.position) = pg_catalog.max(s.position) "
        "AND pg_catalog.strpos(pg_catalog.min(s.attname::text), E'\\n') = 0";
}
