/* What a Query or Parse text does to the session and the transaction: exact by PostgreSQL's own
 * parser, cheap by remembering statements. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"

/*
 * A text is first reduced to its fingerprint (literals become ?, white space and comments go,
 * lists of literals collapse); texts with the same fingerprint do the same things, but for the
 * few whose literals matter (set_config, PREPARE TRANSACTION), which are parsed each time.
 * The parse tree is libpg_query's. What can't be parsed, or is too long, is HF_PG_DOES_UNKNOWN:
 * never wrapped, never repeated.
 *
 * Texts are bytes in the client's encoding, of which all ASCII bytes must be ASCII: with SJIS,
 * BIG5, GBK, UHC, JOHAB, GB18030 or SHIFT_JIS_2004 (hf_pg_encoding_is_readable()) nothing may be
 * classified.
 *
 * Whether a SELECT can be repeated (X9) depends on the database's catalog: each function, operator,
 * type and relation that it names must be on the positive list of struct hf_pg_catalog.
 */
#define HF_PG_DOES_LIST(X)                                                                         \
    X(READ, 0, "SELECT, VALUES, SHOW, EXPLAIN without ANALYZE: repeatable if all names are safe")  \
    X(WRITE, 1, "INSERT, UPDATE, DELETE, MERGE, a SELECT with one of these, or FOR UPDATE/SHARE")  \
    X(UTILITY, 2, "anything else: DDL, VACUUM, CALL, DO, LOCK, ...; never wrapped")                \
    X(BEGIN, 3, "BEGIN, START TRANSACTION")                                                        \
    X(COMMIT, 4, "COMMIT, END")                                                                    \
    X(ROLLBACK, 5, "ROLLBACK, ABORT: of the whole transaction")                                    \
    X(CHAIN, 6, "... AND CHAIN")                                                                   \
    X(PREPARE_XACT, 7, "PREPARE TRANSACTION")                                                      \
    X(SAVEPOINT, 8, "SAVEPOINT, RELEASE, ROLLBACK TO")                                             \
    X(COPY_IN, 9, "COPY FROM STDIN")                                                               \
    X(COPY_OUT, 10, "COPY TO STDOUT")                                                              \
    X(SET, 11, "SET, RESET, SET ROLE, SET SESSION AUTHORIZATION, set_config(): look at settings")  \
    X(LISTEN, 12, "LISTEN, UNLISTEN")                                                              \
    X(NOTIFY, 13, "NOTIFY, pg_notify()")                                                           \
    X(PREPARE, 14, "SQL PREPARE, DEALLOCATE")                                                      \
    X(EXECUTE, 15, "SQL EXECUTE: what it does depends on the prepared statement")                  \
    X(CURSOR, 16, "DECLARE, FETCH, MOVE, CLOSE")                                                   \
    X(HOLD, 17, "DECLARE ... WITH HOLD")                                                           \
    X(TEMP, 18, "makes a temporary object")                                                        \
    X(LOAD, 19,                                                                                    \
      "LOAD, and functions that leave such state in the backend: dblink_connect(), "               \
      "pg_backup_start(), pg_replication_origin_session_setup()")                                  \
    X(DISCARD, 20, "DISCARD ALL, TEMP, PLANS, SEQUENCES")                                          \
    X(FUNCTION, 21, "calls functions that may do anything: volatile and not built in; DO, CALL")   \
    X(SELF, 22,                                                                                    \
      "looks at itself: current_query(), pg_stat_activity, pg_prepared_statements, "               \
      "pg_locks, txid_current() and the like: never wrapped")                                      \
    X(LOCK, 23, "session-level advisory locks")                                                    \
    X(NEXTVAL, 24, "nextval() by name")                                                            \
    X(SEQUENCE_STATE, 25, "currval(), lastval()")                                                  \
    X(SETSEED, 26, "setseed()")                                                                    \
    X(OUTSIDE, 27,                                                                                 \
      "has effects outside the database: dblink, COPY TO PROGRAM or a file, "                      \
      "lo_export, pg_file_write, ...")                                                             \
    X(DDL, 28, "may change what names mean: the catalog is read again")                            \
    X(ISOLATION, 29, "SET TRANSACTION, SET LOCAL, SET CONSTRAINTS: belongs to the transaction")    \
    X(UNKNOWN, 30, "not parsed: a syntax error, too long, newer than the parser")                  \
    X(SYNC_COMMIT, 31,                                                                             \
      "may change synchronous_commit (SET, set_config of it or of an unknown "                     \
      "name, functions)")
enum hf_pg_does {
#define HF_PG_DOES_ENUM(name, bit, text) HF_PG_DOES_##name = (int)(1u << (bit)),
    HF_PG_DOES_LIST(HF_PG_DOES_ENUM)
#undef HF_PG_DOES_ENUM
};

/** What a text does: the union over its statements. Shared (ref); never changes. */
struct hf_pg_class {
    uint32_t does;         /* HF_PG_DOES_* */
    uint16_t n_statements; /* 0: empty query */
    uint8_t n_ends;        /* of transactions: commit points and rollbacks, capped at 255 */
    bool wrappable; /* simple protocol: BEGIN; text; COMMIT is the same as the bare text: only
                     * INSERT, UPDATE, DELETE, MERGE, SELECT, COPY, and not SELF or UNKNOWN */
    bool first_is_begin, last_is_end; /* of the statements in the text */
    struct hf_slice name; /* of a single PREPARE, EXECUTE, DEALLOCATE (empty: ALL), and the gid of
                           * PREPARE TRANSACTION; as the server folds it. Also of a cursor, of
                           * LISTEN, UNLISTEN (empty: *), NOTIFY; DISCARD: ALL, TEMP, ... */
    const struct hf_pg_class *inner; /* PREPARE: what the prepared statement does; else NULL */
    const char *const *settings;     /* names given to SET, set_config(), in lower case: custom ones
                                      * have a dot; "*": any (RESET ALL, DISCARD ALL, computed) */
    uint16_t n_settings;
    bool inserts;    /* one INSERT INTO t (...) VALUES ... RETURNING: see hf_pg_class_insert() */
    uint32_t n_refs; /* private */
};

struct hf_pg_classifier;

/** One per database. n_max: remembered texts (least recently used go). 0 or -ENOMEM. */
HF_MUST int hf_pg_classifier_create(size_t n_max, uint64_t seed,
                                    struct hf_pg_classifier **ret_classifier);
void hf_pg_classifier_destroy(struct hf_pg_classifier *c);

/** Classify a text; never NULL (out of memory: a static class with UNKNOWN). The caller owns a
 * reference and gives it back with hf_pg_class_unref(). */
const struct hf_pg_class *hf_pg_classify(struct hf_pg_classifier *c, struct hf_slice sql);
/** Can texts in this client_encoding be classified? Names as PostgreSQL reports or takes them. */
bool hf_pg_encoding_is_readable(struct hf_slice name);
const struct hf_pg_class *hf_pg_class_ref(const struct hf_pg_class *k);
void hf_pg_class_unref(const struct hf_pg_class *k);

/**
 * Is it only READ, and are all names it uses on the catalog's list now? Cheap: remembered per
 * generation of the catalog. false while no catalog has been given.
 */
bool hf_pg_class_repeatable(struct hf_pg_classifier *c, const struct hf_pg_class *k);

/** Are all names it uses on the list, whatever it does? For EXECUTE, which is to be repeated only
 * if this holds for it (its parameters are expressions), it does nothing else but READ (EXPLAIN),
 * and what it executes is repeatable. */
bool hf_pg_class_names_safe(struct hf_pg_classifier *c, const struct hf_pg_class *k);

/** Where an INSERT's RETURNING has the value that a sequence gave (X8). */
struct hf_pg_insert {
    struct hf_slice schema, table; /* schema: empty if the text has none */
    struct hf_slice column;        /* as the catalog names it */
    uint16_t index;                /* in the rows that come */
};
/** false: it has none, or the catalog's list isn't in force. What it gives is good until the next
 * call that changes the list. */
bool hf_pg_class_insert(struct hf_pg_classifier *c, const struct hf_pg_class *k,
                        struct hf_pg_insert *ret_insert);

/** does as of now: the catalog may have changed since k was given out, and with it
 * HF_PG_DOES_FUNCTION and HF_PG_DOES_SYNC_COMMIT. For classes that are kept: prepared statements.
 */
uint32_t hf_pg_class_does(struct hf_pg_classifier *c, const struct hf_pg_class *k);

/** The query that reads the catalog list: rows (kind, name): 'f' a function name of which every
 * overload is immutable or stable, 'o' an operator likewise, 't' a type of pg_catalog or an enum or
 * without input function of its own, 'r' a table or materialized view name of which all are plain,
 * without row security and rules; 'F' a volatile function name that is built in, harmless to
 * repeat in settings (no HF_PG_DOES_FUNCTION), such as random(); 'a' a name that `row.name` may
 * call though it is not under 'f'; 's' a table with its serial column and that column's position,
 * with newlines between. Run by the manager's own login, search_path = pg_catalog. */
const char *hf_pg_catalog_query(void);
/** Take a new list: begin, each row, end: it is in force from then on, the old one until then; all
 * remembered answers of hf_pg_class_repeatable() go, unless the list is the same. A list is not
 * taken if a row failed (-ENOMEM, -HF_EVALUE), or if hf_pg_catalog_forget() was called since it
 * began. */
void hf_pg_catalog_begin(struct hf_pg_classifier *c);
HF_MUST int hf_pg_catalog_row(struct hf_pg_classifier *c, char kind, struct hf_slice name);
void hf_pg_catalog_end(struct hf_pg_classifier *c);
/** DDL went by: nothing is repeatable until a list read afterwards is given, and any function may
 * do anything. To be called when HF_PG_DOES_DDL is sent and when its transaction ends: other
 * sessions see the change from then on. */
void hf_pg_catalog_forget(struct hf_pg_classifier *c);

/** Is no list in force? Then it is time to read one. */
bool hf_pg_catalog_wanted(const struct hf_pg_classifier *c);

/** Fingerprint of a text (exposed for tests and statistics): hash of its normal form
 * (core/pg/fingerprint.h), and false if it has none: an unterminated literal or comment, too long
 * or too deep. A backslash before a quote in a plain literal makes it false, too: where that
 * literal ends depends on standard_conforming_strings. Such a text is HF_PG_DOES_UNKNOWN. */
bool hf_pg_fingerprint(struct hf_slice sql, uint64_t seed, uint64_t ret_hash[2]);
