/* Configuration files: one table of options makes the parser, its errors, its listing and its
 * manual. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/slice.h"
#include "os/addr.h"

/** A longer file is refused. */
#define HF_CONF_FILE_MAX (256u << 10)
/** More elements of one list are refused. */
#define HF_CONF_LIST_MAX 1024

/* Type of an option; in braces what it is in the snapshot, and how it is written. */
enum hf_conf_type {
    HF_CONF_BOOL = 1,  /* bool: true, false (yes, no, on, off) */
    HF_CONF_INT,       /* int64_t */
    HF_CONF_DURATION,  /* int64_t, milliseconds: 500ms, 2s, 1m, 1h */
    HF_CONF_SIZE,      /* int64_t, bytes: 512, 64KiB, 1MiB, 1GiB */
    HF_CONF_STRING,    /* char *, owned by the snapshot, never NULL */
    HF_CONF_ENUM,      /* int64_t, index in names */
    HF_CONF_SET,       /* uint32_t, bit 1 << index in names: { a, b } */
    HF_CONF_ADDR,      /* struct hf_addr: 192.0.2.1, 192.0.2.1:80, [2001:db8::1]:80 */
    HF_CONF_ADDR_LIST, /* struct hf_conf_addrs: { 192.0.2.1, [2001:db8::1]:80 } */
    HF_CONF_LIST,      /* struct hf_conf_list: { alpha, "beta:3" } */
    HF_CONF_PAIRS, /* struct hf_conf_pairs; a section of free names: options { ip = 10.0.0.1 } */
};

struct hf_conf_addrs {
    struct hf_addr *addr; /* owned by the snapshot */
    size_t n;
};

struct hf_conf_list {
    char **item; /* owned by the snapshot, each one, too */
    size_t n;
};

struct hf_conf_pair {
    char *name, *value;
};

struct hf_conf_pairs {
    struct hf_conf_pair *pair; /* owned by the snapshot */
    size_t n;
};

/** One option: a row of the table. Everything in it is static. */
struct hf_conf_opt {
    const char *section; /* "directory", nested "a.b", or "" for the top level */
    const char *name;
    enum hf_conf_type type;
    size_t offset;            /* of the field in the snapshot */
    int64_t min;              /* INT, DURATION (ms), SIZE (bytes), STRING (length): least ... */
    int64_t max;              /* ... and greatest value */
    const char *def;          /* default, as in a file; lists: elements separated by spaces */
    uint16_t port;            /* ADDR, ADDR_LIST: taken when the text has none */
    const char *none;         /* ADDR: the word that means no address; NULL: one is needed */
    const char *const *names; /* ENUM, SET: the words, NULL after the last */
    /* STRING, each of a LIST, each name of PAIRS: NULL if the value is fine, otherwise what would
     * have been ("a DNS label"). */
    const char *(*check)(const char *value);
    const char *remedy; /* what to do about a wrong value, or NULL */
    const char *doc;    /* one line for people: what it is for */
    bool live;          /* a reload may change it; the others want a restart */
    bool required;      /* STRING in a titled section: has no default, def is "" */
};

struct hf_conf_title {
    char *name; /* owned by the snapshot */
    int line;   /* where it was given */
};

/* A section that may be given many times, each time with a title: fence ipmi1 { ... }. */
struct hf_conf_titled {
    const char *name;              /* at the top level */
    size_t offset;                 /* of a struct hf_conf_items in the snapshot */
    size_t size;                   /* of an item, which begins with a struct hf_conf_title */
    const struct hf_conf_opt *opt; /* their section is "", their offsets are in the item */
    size_t n_opts;
    size_t n_max; /* items */
    const char *(*check)(const char *title);
    const char *doc;
    bool live;
};

struct hf_conf_items {
    void *item; /* array, owned by the snapshot, in the order of the file */
    size_t n;
};

/** State of a load, for `finish`. */
struct hf_conf_load;

struct hf_conf_schema {
    const struct hf_conf_opt *opt;
    size_t n_opts;
    size_t size; /* of the snapshot's struct */
    /* After all options: cross checks (hf_conf_refuse()) and computed defaults. May be NULL. */
    int (*finish)(struct hf_conf_load *load, void *snapshot);
    const struct hf_conf_titled *titled;
    size_t n_titled;
    const char *page; /* of the manual, for errors; NULL: holdfast.conf(5) */
};

/**
 * Read a file. On 0 *ret_snapshot is a new struct of schema->size bytes, not changed any more,
 * for hf_conf_destroy(). Otherwise -HF_ECONFIG or -errno and in err
 * "FILE:LINE: SECTION.NAME: got X, expected Y; remedy" for the first thing that is wrong. One call
 * at a time in a process (libconfuse's scanner has global state).
 */
HF_MUST int hf_conf_load(const struct hf_conf_schema *schema, const char *path, struct hf_err *err,
                         void **ret_snapshot);

/** The same from memory; `name` stands for the file's in errors. */
HF_MUST int hf_conf_load_mem(const struct hf_conf_schema *schema, const char *name,
                             struct hf_slice text, struct hf_err *err, void **ret_snapshot);

void hf_conf_destroy(const struct hf_conf_schema *schema, void *snapshot);

/**
 * For `finish`: refuse the option `key` ("directory.peers", "fence ipmi1.hosts", "fence ipmi1")
 * with the text; returns -HF_ECONFIG. The place where it was given, if it was, comes first.
 */
int hf_conf_refuse(struct hf_conf_load *load, const char *key, const char *fmt, ...)
    HF_PRINTF(3, 4);

/** For `finish`: replace a STRING field by a copy of value. Returns 0 or -ENOMEM. */
HF_MUST int hf_conf_set_string(char **field, const char *value);

/** For `finish`: the machine's host name up to its first dot, in lower case; "" if it has none. */
void hf_conf_machine_name(char buf[HF_HOST_NAME_MAX + 1]);

/** The first option that differs between two snapshots and is not `live`, into buf; false: none. */
bool hf_conf_fixed_change(const struct hf_conf_schema *schema, const void *a, const void *b,
                          char *buf, size_t n);

/* What the tables of all programs have. */
/** For `check`: NULL, or "an absolute path". */
const char *hf_conf_check_path(const char *s);
/** Names of log.level and log.trace, and what the former means. */
extern const char *const hf_conf_levels[];
extern const char *const hf_conf_traces[];
enum hf_log_level hf_conf_level(int64_t level);

/** A duration as in a file; false: it is none. */
HF_MUST bool hf_conf_duration(const char *s, int64_t *ret_ms);

/** Does the name of a parameter tell of a secret (passw, secret, token, key)? Its value is not for
 * logs and listings. */
bool hf_conf_is_secret(const char *name);

/** Append in double quotes, so that it is read as the same again. */
void hf_conf_quote(struct hf_buf *out, const char *s);

/** All options with their values and what they are for: a file that loads to the same snapshot, but
 * for secrets among PAIRS, which are shown as ***. */
void hf_conf_print(const struct hf_conf_schema *schema, const void *snapshot, struct hf_buf *out);

/** The options as the list of a manual page (mdoc(7)). */
void hf_conf_print_mdoc(const struct hf_conf_schema *schema, struct hf_buf *out);
