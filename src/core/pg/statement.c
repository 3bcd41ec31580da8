/* Walks libpg_query's tree, as jansson reads it. By shape, so that what may hide anywhere is found.
 */
#include "core/pg/statement.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <pg_query.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "core/pg/classify.h"
#include "core/pg/insert.h"

#define NAMES_MAX 16384 /* bytes of names of one text */

/* Functions that are more than their catalog entry tells. A star: all that begin so. */
static const struct special {
    const char *name;
    uint32_t does;
} special_functions[] = {
    {"nextval", HF_PG_DOES_NEXTVAL},
    {"setval", HF_PG_DOES_NEXTVAL}, /* currval() knows it, and it is not undone */
    {"currval", HF_PG_DOES_SEQUENCE_STATE},
    {"currtid2", HF_PG_DOES_OUTSIDE},
    {"lastval", HF_PG_DOES_SEQUENCE_STATE},
    {"setseed", HF_PG_DOES_SETSEED},
    {"pg_notify", HF_PG_DOES_NOTIFY},
    {"pg_advisory_xact_lock*", HF_PG_DOES_WRITE},
    {"pg_try_advisory_xact_lock*", HF_PG_DOES_WRITE},
    {"pg_advisory_*", HF_PG_DOES_LOCK},
    {"pg_try_advisory_*", HF_PG_DOES_LOCK},
    /* show this transaction, this statement, or statements that are not the client's */
    {"current_query", HF_PG_DOES_SELF},
    {"txid_*", HF_PG_DOES_SELF},
    {"pg_current_xact_id*", HF_PG_DOES_SELF},
    {"pg_current_snapshot", HF_PG_DOES_SELF},
    {"pg_export_snapshot", HF_PG_DOES_SELF},
    {"pg_xact_status", HF_PG_DOES_SELF},
    {"pg_last_committed_xact", HF_PG_DOES_SELF},
    {"pg_lock_status", HF_PG_DOES_SELF},
    {"pg_prepared_statement", HF_PG_DOES_SELF},
    {"pg_cursor", HF_PG_DOES_SELF},
    {"pg_blocking_pids", HF_PG_DOES_SELF},
    {"pg_safe_snapshot_blocking_pids", HF_PG_DOES_SELF},
    {"pg_get_backend_memory_contexts", HF_PG_DOES_SELF},
    {"pg_stat_get_activity", HF_PG_DOES_SELF},
    {"pg_stat_get_backend_*", HF_PG_DOES_SELF},
    {"pg_stat_get_xact_*", HF_PG_DOES_SELF},
    {"pg_stat_get_snapshot_timestamp", HF_PG_DOES_SELF},
    {"pg_stat_statements*", HF_PG_DOES_SELF},
    /* not undone by ROLLBACK, or seen beyond the database */
    {"dblink_connect*", HF_PG_DOES_OUTSIDE | HF_PG_DOES_FUNCTION | HF_PG_DOES_LOAD},
    {"dblink*", HF_PG_DOES_OUTSIDE | HF_PG_DOES_FUNCTION},
    {"postgres_fdw_*", HF_PG_DOES_OUTSIDE},
    {"lo_import", HF_PG_DOES_OUTSIDE | HF_PG_DOES_WRITE},
    {"lo_export", HF_PG_DOES_OUTSIDE},
    {"lo_*", HF_PG_DOES_WRITE},
    {"lowrite", HF_PG_DOES_WRITE},
    {"loread", HF_PG_DOES_WRITE}, /* moves its position */
    {"pg_file_*", HF_PG_DOES_OUTSIDE},
    {"pg_logdir_*", HF_PG_DOES_OUTSIDE},
    {"pg_cancel_backend", HF_PG_DOES_OUTSIDE},
    {"pg_terminate_backend", HF_PG_DOES_OUTSIDE},
    {"pg_reload_conf", HF_PG_DOES_OUTSIDE},
    {"pg_rotate_logfile*", HF_PG_DOES_OUTSIDE},
    {"pg_log_backend_memory_contexts", HF_PG_DOES_OUTSIDE},
    {"pg_promote", HF_PG_DOES_OUTSIDE},
    {"pg_wal_replay_*", HF_PG_DOES_OUTSIDE},
    {"pg_switch_wal", HF_PG_DOES_OUTSIDE},
    {"pg_create_restore_point", HF_PG_DOES_OUTSIDE},
    {"pg_start_backup", HF_PG_DOES_OUTSIDE | HF_PG_DOES_LOAD}, /* is the session's until it ends */
    {"pg_stop_backup", HF_PG_DOES_OUTSIDE},
    {"pg_backup_start", HF_PG_DOES_OUTSIDE | HF_PG_DOES_LOAD},
    {"pg_backup_stop", HF_PG_DOES_OUTSIDE},
    {"pg_create_physical_replication_slot", HF_PG_DOES_OUTSIDE},
    {"pg_create_logical_replication_slot", HF_PG_DOES_OUTSIDE},
    {"pg_copy_physical_replication_slot", HF_PG_DOES_OUTSIDE},
    {"pg_copy_logical_replication_slot", HF_PG_DOES_OUTSIDE},
    {"pg_drop_replication_slot", HF_PG_DOES_OUTSIDE},
    {"pg_replication_slot_advance", HF_PG_DOES_OUTSIDE},
    {"pg_sync_replication_slots", HF_PG_DOES_OUTSIDE},
    {"pg_logical_slot_*", HF_PG_DOES_OUTSIDE},
    {"pg_logical_emit_message", HF_PG_DOES_OUTSIDE | HF_PG_DOES_WRITE},
    {"pg_replication_origin_session_*", HF_PG_DOES_OUTSIDE | HF_PG_DOES_LOAD},
    {"pg_replication_origin_*", HF_PG_DOES_OUTSIDE},
    {"pg_stat_reset*", HF_PG_DOES_OUTSIDE},
    {"pg_stat_clear_snapshot", HF_PG_DOES_SELF},
    {"pg_stat_force_next_flush", HF_PG_DOES_SELF},
    {"pg_import_system_collations", HF_PG_DOES_WRITE | HF_PG_DOES_DDL},
    {"binary_upgrade_*", HF_PG_DOES_OUTSIDE | HF_PG_DOES_FUNCTION},
    {"brin_*", HF_PG_DOES_WRITE},
    {"gin_clean_pending_list", HF_PG_DOES_WRITE},
    /* run SQL that is a value, or read a relation that is one */
    {"query_to_xml*", HF_PG_DOES_FUNCTION},
    {"cursor_to_xml*", HF_PG_DOES_FUNCTION},
    {"table_to_xml*", HF_PG_DOES_FUNCTION},
    {"schema_to_xml*", HF_PG_DOES_FUNCTION},
    {"database_to_xml*", HF_PG_DOES_FUNCTION},
    {"ts_stat", HF_PG_DOES_FUNCTION},
    {"ts_rewrite", HF_PG_DOES_FUNCTION},
    {"crosstab*", HF_PG_DOES_FUNCTION},
    {"connectby", HF_PG_DOES_FUNCTION},
    {"xpath_table", HF_PG_DOES_FUNCTION},
};

/* Relations that show this session's statements or locks. */
static const struct special special_relations[] = {
    {"pg_stat_activity", HF_PG_DOES_SELF},
    {"pg_locks", HF_PG_DOES_SELF},
    {"pg_prepared_statements", HF_PG_DOES_SELF},
    {"pg_cursors", HF_PG_DOES_SELF},
    {"pg_stat_xact_*", HF_PG_DOES_SELF},
    {"pg_stat_statements*", HF_PG_DOES_SELF},
    {"pg_backend_memory_contexts", HF_PG_DOES_SELF},
};

/* Node types that a statement that is wrapped or repeated may have. */
static const char *const known_nodes[] = {"A_ArrayExpr",
                                          "A_Const",
                                          "A_Expr",
                                          "A_Indices",
                                          "A_Indirection",
                                          "A_Star",
                                          "Alias",
                                          "BitString",
                                          "BoolExpr",
                                          "Boolean",
                                          "BooleanTest",
                                          "CTECycleClause",
                                          "CTESearchClause",
                                          "CaseExpr",
                                          "CaseWhen",
                                          "CoalesceExpr",
                                          "CollateClause",
                                          "ColumnDef",
                                          "ColumnRef",
                                          "CommonTableExpr",
                                          "CurrentOfExpr",
                                          "DefElem",
                                          "DeleteStmt",
                                          "Float",
                                          "FuncCall",
                                          "GroupingFunc",
                                          "GroupingSet",
                                          "IndexElem",
                                          "InferClause",
                                          "InsertStmt",
                                          "Integer",
                                          "IntoClause",
                                          "JoinExpr",
                                          "List",
                                          "LockingClause",
                                          "MergeStmt",
                                          "MergeWhenClause",
                                          "MinMaxExpr",
                                          "MultiAssignRef",
                                          "NamedArgExpr",
                                          "NullTest",
                                          "OnConflictClause",
                                          "ParamRef",
                                          "RangeFunction",
                                          "RangeSubselect",
                                          "RangeTableFunc",
                                          "RangeTableFuncCol",
                                          "RangeTableSample",
                                          "RangeVar",
                                          "ResTarget",
                                          "RowExpr",
                                          "SQLValueFunction",
                                          "SelectStmt",
                                          "SetToDefault",
                                          "SortBy",
                                          "String",
                                          "SubLink",
                                          "TypeCast",
                                          "TypeName",
                                          "UpdateStmt",
                                          "WindowDef",
                                          "WithClause",
                                          "XmlExpr",
                                          "XmlSerialize"};

/* Names that a WITH gives; the innermost first. */
struct cte {
    const char *name;
    const struct cte *outer;
};

struct walk {
    struct hf_buf names, settings, insert;
    uint32_t does; /* of the statement that is looked at */
    uint16_t n_settings;
    bool exact, literals_matter, too_many, strange, into;
    const char *name; /* borrowed from the tree */
    struct hf_pg_statement *inner;
    int rc;
};

static void walk(struct walk *w, const json_t *v, const struct cte *scope);
static void statement(struct walk *w, const char *type, const json_t *v);
static int facts_of(const json_t *stmts, bool exact, struct hf_pg_statement **ret_facts);

static const char *text(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static bool flag(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* A node is an object of one member that is named after its type. */
static const char *node(const json_t *v, const json_t **ret_content)
{
    void *it = json_object_iter((json_t *)(uintptr_t)v);
    *ret_content = it ? json_object_iter_value(it) : NULL;
    return it ? json_object_iter_key(it) : "";
}

/* The last String of a list of them: a name without its schema. */
static const char *last_string(const json_t *list)
{
    size_t n = json_array_size(list);
    return n ? text(json_object_get(json_array_get(list, n - 1), "String"), "sval") : "";
}

static bool matches(const char *pattern, const char *name)
{
    size_t n = strlen(pattern);
    return pattern[n - 1] == '*' ? strncmp(pattern, name, n - 1) == 0 : strcmp(pattern, name) == 0;
}

static uint32_t special_does(const struct special *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (matches(list[i].name, name)) {
            return list[i].does;
        }
    }
    return 0;
}

bool hf_pg_statement_name(const struct hf_pg_statement *f, size_t *pos, char *ret_kind,
                          struct hf_slice *ret_name)
{
    if (*pos >= f->names.n) {
        return false;
    }
    const uint8_t *p = f->names.p + *pos;
    *ret_kind = (char)p[0];
    *ret_name = hf_slice(p + 2, p[1]);
    *pos += 2 + (size_t)p[1];
    return true;
}

static void add_name(struct walk *w, char kind, const char *name)
{
    size_t n = strlen(name), pos = 0;
    if (n == 0 || n > 255) { /* identifiers have up to 63 bytes */
        w->too_many |= n > 0;
        return;
    }
    struct hf_pg_statement so_far = {.names = hf_buf_slice(&w->names)};
    struct hf_slice other;
    for (char k; hf_pg_statement_name(&so_far, &pos, &k, &other);) {
        if (k == kind && hf_slice_eq(other, hf_slice(name, n))) {
            return;
        }
    }
    uint8_t head[2] = {(uint8_t)kind, (uint8_t)n};
    if (w->names.n + 2 + n > NAMES_MAX) {
        w->too_many = true;
        return;
    }
    hf_buf_add(&w->names, hf_slice(head, 2));
    hf_buf_str(&w->names, name);
}

/* "*" is any setting. */
static void add_setting(struct walk *w, const char *name)
{
    if (strcasecmp(name, "synchronous_commit") == 0 || strcmp(name, "*") == 0) {
        w->does |= HF_PG_DOES_SYNC_COMMIT;
    }
    if (w->n_settings == UINT16_MAX) {
        w->rc = -HF_EFULL;
        return;
    }
    for (size_t i = 0; i <= strlen(name); i++) {
        uint8_t c = (uint8_t)name[i];
        c = c >= 'A' && c <= 'Z' ? c + 32 : c;
        hf_buf_add(&w->settings, hf_slice(&c, 1));
    }
    w->n_settings++;
}

static void set_config(struct walk *w, const json_t *args)
{
    const json_t *name = json_object_get(json_array_get(args, 0), "A_Const");
    const json_t *local = json_object_get(json_array_get(args, 2), "A_Const");
    w->literals_matter = true;
    bool known = w->exact && json_is_object(json_object_get(name, "sval"));
    add_setting(w, known ? text(json_object_get(name, "sval"), "sval") : "*");
    local = json_object_get(local, "boolval");
    bool is_local = flag(local, "boolval");
    w->does |= is_local ? HF_PG_DOES_ISOLATION : HF_PG_DOES_SET;
    w->does |= local ? 0 : HF_PG_DOES_ISOLATION;
}

static void function(struct walk *w, const json_t *v)
{
    const char *name = last_string(json_object_get(v, "funcname"));
    add_name(w, 'f', name);
    w->does |= special_does(special_functions, HF_ARRAY_LEN(special_functions), name);
    if (strcmp(name, "set_config") == 0) {
        set_config(w, json_object_get(v, "args"));
    }
}

static void relation(struct walk *w, const json_t *v, const struct cte *scope)
{
    const char *name = text(v, "relname");
    if (!json_object_get(v, "schemaname")) {
        for (; scope; scope = scope->outer) {
            if (strcmp(scope->name, name) == 0) {
                return;
            }
        }
    }
    add_name(w, 'r', name);
    w->does |= special_does(special_relations, HF_ARRAY_LEN(special_relations), name);
}

/* x.name and (x).name are name(x) if there is no such column. */
static void selection(struct walk *w, const json_t *list, size_t from)
{
    for (size_t i = from; i < json_array_size(list); i++) {
        const json_t *s = json_object_get(json_array_get(list, i), "String");
        if (s) {
            add_name(w, 'a', text(s, "sval"));
        }
    }
}

static bool known_node(const char *type)
{
    for (size_t i = 0; i < HF_ARRAY_LEN(known_nodes); i++) {
        if (strcmp(known_nodes[i], type) == 0) {
            return true;
        }
    }
    return false;
}

/* What a node's type means, beyond its members. */
static void look_at_node(struct walk *w, const char *type, const json_t *v)
{
    w->strange |= !known_node(type);
    if (strcmp(type, "A_Expr") == 0) {
        if (!strstr(text(v, "kind"), "BETWEEN")) { /* that is < <= > >=, which all need */
            add_name(w, 'o', last_string(json_object_get(v, "name")));
        }
    } else if (strcmp(type, "SubLink") == 0) {
        const json_t *name = json_object_get(v, "operName"); /* IN has none */
        add_name(w, 'o', name ? last_string(name) : "=");
    } else if (strcmp(type, "SortBy") == 0) {
        add_name(w, 'o', last_string(json_object_get(v, "useOp")));
    } else if (strcmp(type, "RangeTableSample") == 0) {
        add_name(w, 'f', last_string(json_object_get(v, "method")));
    } else if (strcmp(type, "ColumnRef") == 0) {
        selection(w, json_object_get(v, "fields"), 1);
    } else if (strcmp(type, "A_Indirection") == 0) {
        selection(w, json_object_get(v, "indirection"), 0);
    } else if (strcmp(type, "InsertStmt") == 0 || strcmp(type, "UpdateStmt") == 0 ||
               strcmp(type, "DeleteStmt") == 0 || strcmp(type, "MergeStmt") == 0) {
        w->does |= HF_PG_DOES_WRITE;
    }
}

/* Members of an object: those whose name begins with a capital are nodes. */
static void walk_members(struct walk *w, const json_t *v, const struct cte *scope)
{
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)v, key, member)
    {
        if (key[0] >= 'A' && key[0] <= 'Z') {
            look_at_node(w, key, member);
        }
        if (strcmp(key, "withClause") != 0) {
            walk(w, member, scope);
        }
    }
}

/* The queries i.. of a WITH, each in the scope of those before (RECURSIVE: of all), then the
 * statement that it belongs to. */
static void walk_with(struct walk *w, const json_t *v, const json_t *ctes, size_t i,
                      const struct cte *scope)
{
    bool recursive = flag(json_object_get(v, "withClause"), "recursive");
    if (i == json_array_size(ctes)) {
        for (size_t k = 0; recursive && k < i; k++) {
            walk(w, json_array_get(ctes, k), scope);
        }
        walk_members(w, v, scope);
        return;
    }
    const json_t *cte = json_array_get(ctes, i);
    if (!recursive) {
        walk(w, cte, scope);
    }
    const struct cte inner = {.name = text(json_object_get(cte, "CommonTableExpr"), "ctename"),
                              .outer = scope};
    walk_with(w, v, ctes, i + 1, &inner);
}

static void walk_object(struct walk *w, const json_t *v, const struct cte *scope)
{
    if (json_object_get(v, "relname")) {
        relation(w, v, scope);
    }
    if (json_object_get(v, "funcname")) {
        function(w, v);
    }
    if (json_is_array(json_object_get(v, "names"))) { /* a type's */
        add_name(w, 't', last_string(json_object_get(v, "names")));
        w->strange |= flag(v, "pct_type");
    }
    if (json_object_get(v, "lockingClause")) {
        w->does |= HF_PG_DOES_WRITE;
    }
    w->into |= json_object_get(v, "intoClause") != NULL;
    const json_t *ctes = json_object_get(json_object_get(v, "withClause"), "ctes");
    if (ctes) {
        walk_with(w, v, ctes, 0, scope);
    } else {
        walk_members(w, v, scope);
    }
}

static void walk(struct walk *w, const json_t *v, const struct cte *scope)
{
    if (json_is_object(v)) {
        walk_object(w, v, scope);
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        walk(w, json_array_get(v, i), scope);
    }
}

/* Does it name pg_temp, or have a relation that is made temporary? */
static bool makes_temporary(const json_t *v)
{
    const char *s = json_string_value(v);
    if (s) {
        return strncmp(s, "pg_temp", 7) == 0;
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (makes_temporary(json_array_get(v, i))) {
            return true;
        }
    }
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)v, key, member)
    {
        if (makes_temporary(member) ||
            (strcmp(key, "relpersistence") == 0 && strcmp(json_string_value(member), "t") == 0)) {
            return true;
        }
    }
    return false;
}

static void utility(struct walk *w, const char *type, const json_t *v)
{
    /* These change no name's meaning ... */
    static const char *const no_ddl[] = {"AlterRoleSetStmt",   "AlterDatabaseSetStmt",
                                         "AlterSystemStmt",    "CheckPointStmt",
                                         "ClusterStmt",        "CommentStmt",
                                         "GrantStmt",          "LockStmt",
                                         "RefreshMatViewStmt", "ReindexStmt",
                                         "TruncateStmt",       "VacuumStmt",
                                         "CallStmt",           "DoStmt",
                                         "GrantRoleStmt",      "AlterDefaultPrivilegesStmt"};
    /* ... these run what is in them now ... */
    static const char *const runs[] = {"AlterTableStmt", "IndexStmt", "CallStmt",
                                       "CreateTableAsStmt", "AlterDomainStmt"};
    /* ... and a temporary one of these hides only what is no more than it. */
    static const char *const plain[] = {"CreateStmt", "CreateTableAsStmt", "CreateSeqStmt",
                                        "SelectStmt"};
    bool ddl = true, temporary = makes_temporary(v);
    w->does |= HF_PG_DOES_UTILITY | (temporary ? HF_PG_DOES_TEMP : 0);
    for (size_t i = 0; i < HF_ARRAY_LEN(no_ddl); i++) {
        ddl &= strcmp(no_ddl[i], type) != 0;
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(plain); i++) {
        ddl &= !temporary || strcmp(plain[i], type) != 0;
    }
    w->does |= ddl ? HF_PG_DOES_DDL : 0;
    for (size_t i = 0; i < HF_ARRAY_LEN(runs); i++) {
        if (strcmp(runs[i], type) == 0) {
            walk(w, v, NULL);
        }
    }
    w->strange = false; /* neither wrapped nor repeated anyhow */
    if (strcmp(type, "CallStmt") == 0 || strcmp(type, "DoStmt") == 0) {
        w->does |= HF_PG_DOES_FUNCTION | HF_PG_DOES_SYNC_COMMIT;
    } else if (strcmp(type, "AlterSystemStmt") == 0 || strstr(type, "SubscriptionStmt")) {
        w->does |= HF_PG_DOES_OUTSIDE;
    } else if (strcmp(type, "CreateTableAsStmt") == 0) {
        const json_t *execute = json_object_get(json_object_get(v, "query"), "ExecuteStmt");
        if (execute) {
            w->does |= HF_PG_DOES_EXECUTE;
            w->name = text(execute, "name");
        }
    }
}

static void data(struct walk *w, const char *type, const json_t *v)
{
    w->into = false;
    look_at_node(w, type, v);
    walk(w, v, NULL);
    if (w->into) {
        w->does &= ~(uint32_t)HF_PG_DOES_WRITE;
        utility(w, type, v);
    } else if (!(w->does & HF_PG_DOES_WRITE)) {
        w->does |= HF_PG_DOES_READ;
    }
    w->does |= w->strange ? HF_PG_DOES_UNKNOWN : 0;
}

static void transaction(struct walk *w, const json_t *v)
{
    static const struct special kinds[] = {
        {"TRANS_STMT_BEGIN", HF_PG_DOES_BEGIN},
        {"TRANS_STMT_START", HF_PG_DOES_BEGIN},
        {"TRANS_STMT_COMMIT", HF_PG_DOES_COMMIT},
        {"TRANS_STMT_ROLLBACK", HF_PG_DOES_ROLLBACK},
        {"TRANS_STMT_SAVEPOINT", HF_PG_DOES_SAVEPOINT},
        {"TRANS_STMT_RELEASE", HF_PG_DOES_SAVEPOINT},
        {"TRANS_STMT_ROLLBACK_TO", HF_PG_DOES_SAVEPOINT},
        {"TRANS_STMT_PREPARE", HF_PG_DOES_PREPARE_XACT},
    };
    uint32_t does = special_does(kinds, HF_ARRAY_LEN(kinds), text(v, "kind"));
    w->does |= does ? does : HF_PG_DOES_UTILITY; /* COMMIT PREPARED, ROLLBACK PREPARED */
    w->does |= flag(v, "chain") ? HF_PG_DOES_CHAIN : 0;
    if (does == HF_PG_DOES_PREPARE_XACT) {
        w->literals_matter = true;
        w->name = text(v, "gid");
    }
}

static void copy(struct walk *w, const json_t *v)
{
    bool outside = json_object_get(v, "filename") || flag(v, "is_program");
    const json_t *query = json_object_get(v, "query"), *content;
    if (query) {
        const char *type = node(query, &content);
        data(w, type, content);
    } else {
        walk(w, v, NULL);
        w->does |= flag(v, "is_from") ? HF_PG_DOES_WRITE : HF_PG_DOES_READ;
        w->does |= w->strange ? HF_PG_DOES_UNKNOWN : 0;
    }
    w->does |= outside              ? HF_PG_DOES_OUTSIDE
               : flag(v, "is_from") ? HF_PG_DOES_COPY_IN
                                    : HF_PG_DOES_COPY_OUT;
}

static void set_many(struct walk *w, const json_t *v)
{
    if (strcmp(text(v, "name"), "SESSION CHARACTERISTICS") != 0) {
        w->does |= HF_PG_DOES_ISOLATION; /* SET TRANSACTION */
        return;
    }
    w->does |= HF_PG_DOES_SET;
    const json_t *args = json_object_get(v, "args");
    for (size_t i = 0; i < json_array_size(args); i++) {
        char name[80];
        const json_t *option = json_object_get(json_array_get(args, i), "DefElem");
        snprintf(name, sizeof(name), "default_%s", text(option, "defname"));
        add_setting(w, name);
    }
}

static void set(struct walk *w, const json_t *v)
{
    const char *name = text(v, "name"), *kind = text(v, "kind");
    if (strcmp(kind, "VAR_SET_MULTI") == 0) {
        set_many(w, v);
        return;
    }
    bool of_transaction = flag(v, "is_local") || strcasecmp(name, "transaction_isolation") == 0 ||
                          strcasecmp(name, "transaction_read_only") == 0 ||
                          strcasecmp(name, "transaction_deferrable") == 0;
    w->does |= of_transaction ? HF_PG_DOES_ISOLATION : HF_PG_DOES_SET;
    add_setting(w, strcmp(kind, "VAR_RESET_ALL") == 0 ? "*" : name);
}

static void explain(struct walk *w, const json_t *v)
{
    bool analyze = false;
    const json_t *options = json_object_get(v, "options"), *content;
    for (size_t i = 0; i < json_array_size(options); i++) {
        const json_t *option = json_object_get(json_array_get(options, i), "DefElem");
        if (strcmp(text(option, "defname"), "analyze") == 0) {
            const json_t *arg = json_object_get(option, "arg");
            const char *s = text(json_object_get(arg, "String"), "sval");
            analyze |= strcasecmp(s, "off") != 0 && strcasecmp(s, "false") != 0;
            w->literals_matter |= arg != NULL; /* off and 'off' are the same */
        }
    }
    const char *type = node(json_object_get(v, "query"), &content);
    statement(w, type, content);
    if (!analyze) {
        w->does &= HF_PG_DOES_EXECUTE | HF_PG_DOES_SELF | HF_PG_DOES_UNKNOWN;
        w->does |= HF_PG_DOES_READ;
    }
}

static void prepare(struct walk *w, const json_t *v)
{
    w->does |= HF_PG_DOES_PREPARE;
    w->name = text(v, "name");
    json_t *one = json_pack("[{sO}]", "stmt", json_object_get(v, "query"));
    int rc = one ? facts_of(one, w->exact, &w->inner) : -ENOMEM;
    json_decref(one);
    w->rc = rc ? rc : w->rc;
    w->literals_matter |= w->inner && w->inner->literals_matter;
}

static void declare(struct walk *w, const json_t *v)
{
    const json_t *content, *options = json_object_get(v, "options");
    const char *type = node(json_object_get(v, "query"), &content);
    data(w, type, content);
    w->does &= ~(uint32_t)HF_PG_DOES_READ;
    w->does |= HF_PG_DOES_CURSOR;
    if (json_integer_value(options) & 0x20) { /* CURSOR_OPT_HOLD */
        w->does |= HF_PG_DOES_HOLD;
    }
    w->name = text(v, "portalname");
}

static void discard(struct walk *w, const json_t *v)
{
    w->does |= HF_PG_DOES_DISCARD;
    w->name = text(v, "target") + strlen("DISCARD_");
    if (strcmp(w->name, "ALL") == 0) {
        add_setting(w, "*");
    }
}

/* Statements that do one thing; `name` is the member that names what. */
static const struct simple {
    const char *type;
    uint32_t does;
    const char *name;
} simple_statements[] = {
    {"VariableShowStmt", HF_PG_DOES_READ, NULL},
    {"ListenStmt", HF_PG_DOES_LISTEN, "conditionname"},
    {"UnlistenStmt", HF_PG_DOES_LISTEN, "conditionname"},
    {"NotifyStmt", HF_PG_DOES_NOTIFY, "conditionname"},
    {"DeallocateStmt", HF_PG_DOES_PREPARE, "name"},
    {"FetchStmt", HF_PG_DOES_CURSOR, "portalname"},
    {"ClosePortalStmt", HF_PG_DOES_CURSOR, "portalname"},
    {"LoadStmt", HF_PG_DOES_LOAD, NULL},
    {"ConstraintsSetStmt", HF_PG_DOES_ISOLATION, NULL},
    {"ExecuteStmt", HF_PG_DOES_EXECUTE, "name"},
};

/* Statements with an own function. */
static const struct other {
    const char *type;
    void (*look)(struct walk *w, const json_t *v);
} other_statements[] = {
    {"TransactionStmt", transaction}, {"CopyStmt", copy},       {"VariableSetStmt", set},
    {"ExplainStmt", explain},         {"PrepareStmt", prepare}, {"DeclareCursorStmt", declare},
    {"DiscardStmt", discard},
};

static bool is_data(const char *type)
{
    return strcmp(type, "SelectStmt") == 0 || strcmp(type, "InsertStmt") == 0 ||
           strcmp(type, "UpdateStmt") == 0 || strcmp(type, "DeleteStmt") == 0 ||
           strcmp(type, "MergeStmt") == 0;
}

static void statement(struct walk *w, const char *type, const json_t *v)
{
    if (is_data(type)) {
        data(w, type, v);
        return;
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(simple_statements); i++) {
        const struct simple *s = &simple_statements[i];
        if (strcmp(s->type, type) == 0) {
            w->does |= s->does;
            w->name = s->name ? text(v, s->name) : NULL;
            walk(w, json_object_get(v, "params"), NULL); /* EXECUTE's */
            w->does |= w->strange ? HF_PG_DOES_UNKNOWN : 0;
            return;
        }
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(other_statements); i++) {
        if (strcmp(other_statements[i].type, type) == 0) {
            other_statements[i].look(w, v);
            return;
        }
    }
    utility(w, type, v);
}

/* Make one allocation of what was found. */
static int build(struct walk *w, const struct hf_pg_statement *found,
                 struct hf_pg_statement **ret_facts)
{
    size_t n_name = found->n_statements == 1 && w->name ? strlen(w->name) : 0;
    size_t n_insert = found->n_statements == 1 ? w->insert.n : 0;
    size_t size = sizeof(struct hf_pg_statement) + w->n_settings * sizeof(char *) + w->settings.n +
                  w->names.n + n_name + n_insert;
    struct hf_pg_statement *f = hf_alloc(size);
    if (!f) {
        return -ENOMEM;
    }
    *f = *found;
    f->n_refs = 1;
    f->size = size + (w->inner ? w->inner->size : 0);
    f->literals_matter = w->literals_matter;
    f->too_many = w->too_many;
    f->inner = found->n_statements == 1 ? w->inner : NULL;
    if (w->inner && !f->inner) {
        hf_pg_statement_unref(w->inner);
    }
    w->inner = NULL;
    const char **settings = (const char **)(f + 1);
    char *at = (char *)(settings + w->n_settings);
    f->settings = settings;
    f->n_settings = w->n_settings;
    const char *end = at + w->settings.n;
    if (w->settings.n) {
        memcpy(at, w->settings.p, w->settings.n);
    }
    for (; at < end; at += strlen(at) + 1) {
        *settings++ = at;
    }
    if (w->names.n) {
        memcpy(at, w->names.p, w->names.n);
    }
    f->names = hf_slice(at, w->names.n);
    at += w->names.n;
    if (n_name) {
        memcpy(at, w->name, n_name);
    }
    f->name = hf_slice(at, n_name);
    at += n_name;
    if (n_insert) {
        memcpy(at, w->insert.p, n_insert);
    }
    f->insert = hf_slice(at, n_insert);
    *ret_facts = f;
    return 0;
}

static void add_statement(struct walk *w, const json_t *stmt, struct hf_pg_statement *found)
{
    const uint32_t ends = HF_PG_DOES_COMMIT | HF_PG_DOES_ROLLBACK | HF_PG_DOES_PREPARE_XACT;
    const json_t *content;
    const char *type = node(stmt, &content);
    w->does = 0;
    w->name = NULL;
    w->strange = false;
    hf_pg_statement_unref(w->inner);
    w->inner = NULL;
    statement(w, type, content);
    if (found->n_statements == 0 && strcmp(type, "InsertStmt") == 0) {
        hf_pg_insert_look(content, &w->insert);
    }
    bool end = w->does & ends;
    found->first_is_begin |= found->n_statements == 0 && w->does & HF_PG_DOES_BEGIN;
    found->last_is_end = end;
    found->n_ends = (uint8_t)(found->n_ends + (end && found->n_ends < UINT8_MAX));
    found->n_statements = (uint16_t)(found->n_statements + (found->n_statements < UINT16_MAX));
    found->wrappable &= (is_data(type) || strcmp(type, "CopyStmt") == 0) &&
                        !(w->does & (HF_PG_DOES_UTILITY | HF_PG_DOES_SELF | HF_PG_DOES_UNKNOWN));
    found->does |= w->does;
    if (w->does & HF_PG_DOES_FUNCTION) {
        found->does |= HF_PG_DOES_SYNC_COMMIT;
    }
}

static int facts_of(const json_t *stmts, bool exact, struct hf_pg_statement **ret_facts)
{
    struct walk w = {.exact = exact};
    struct hf_pg_statement found = {.wrappable = json_array_size(stmts) > 0};
    hf_buf_init(&w.names, NAMES_MAX);
    hf_buf_init(&w.settings, 65536);
    hf_buf_init(&w.insert, NAMES_MAX);
    for (size_t i = 0; i < json_array_size(stmts); i++) {
        add_statement(&w, json_object_get(json_array_get(stmts, i), "stmt"), &found);
    }
    int rc = w.rc ? w.rc : w.names.err ? w.names.err : w.settings.err;
    rc = rc ? rc : build(&w, &found, ret_facts);
    hf_pg_statement_unref(w.inner);
    hf_buf_fini(&w.names);
    hf_buf_fini(&w.settings);
    hf_buf_fini(&w.insert);
    return rc;
}

int hf_pg_statement_parse(const char *sql, bool exact, struct hf_pg_statement **ret_facts)
{
    PgQueryParseResult parsed = pg_query_parse(sql);
    json_t *tree = parsed.error ? NULL : json_loads(parsed.parse_tree, JSON_ALLOW_NUL, NULL);
    pg_query_free_parse_result(parsed);
    int rc = tree ? facts_of(json_object_get(tree, "stmts"), exact, ret_facts) : -HF_EVALUE;
    json_decref(tree);
    return rc;
}

struct hf_pg_statement *hf_pg_statement_ref(struct hf_pg_statement *f)
{
    f->n_refs++;
    return f;
}

void hf_pg_statement_unref(struct hf_pg_statement *f)
{
    if (f && --f->n_refs == 0) {
        hf_pg_statement_unref(f->inner);
        hf_free(f);
    }
}
