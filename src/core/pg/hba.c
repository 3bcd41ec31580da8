#include "core/pg/hba.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rd.h"

#define FILE_MAX (4u << 20) /* bytes of a file, and of a list in a file of its own */
#define LINES_MAX 65536
#define TOKENS_MAX 512  /* words of a line */
#define WORDS_MAX 65536 /* bytes of a line's words */
#define NAMES_MAX (1u << 20)
#define S(x) hf_slice((x), sizeof(x) - 1)

static const char *const auth_names[] = {
#define HF_PG_AUTH_NAME(id, name) name,
    HF_PG_AUTH_LIST(HF_PG_AUTH_NAME)
#undef HF_PG_AUTH_NAME
};

const char *hf_pg_auth_name(enum hf_pg_auth method)
{
    return (size_t)method < HF_PG_AUTH_COUNT_ ? auth_names[method] : "?";
}

int hf_pg_auth_parse(struct hf_slice name, enum hf_pg_auth *ret_method)
{
    for (size_t i = 0; i < HF_PG_AUTH_COUNT_; i++) {
        if (hf_slice_eq(name, hf_slice_str(auth_names[i]))) {
            *ret_method = (enum hf_pg_auth)i;
            return 0;
        }
    }
    return -HF_EVALUE;
}

/* --- words of a line, as PostgreSQL's next_field_expand() --- */

struct word {
    size_t at;   /* in reader.text, NUL-terminated */
    bool quoted; /* begins with a quote: no keyword */
    bool first;  /* of its field; others follow a comma */
};
struct reader {
    struct hf_rd rd;
    const char *file;
    struct hf_err *err;
    unsigned line, next_line; /* of the words; of what comes next */
    struct hf_buf text;
    struct word word[TOKENS_MAX];
    size_t n;
};

static int fail(const struct reader *r, const char *what, const char *word, const char *expected)
{
    hf_err_set(r->err, -HF_ECONFIG, "%s:%u: %s%s%s%s%s", r->file, r->line, what, word ? " \"" : "",
               word ? word : "", word ? "\": " : ": ", expected);
    return -HF_ECONFIG;
}

static const char *text_of(const struct reader *r, size_t i)
{
    return (const char *)r->text.p + r->word[i].at;
}

/* Is it this keyword? */
static bool is(const struct reader *r, size_t i, const char *keyword)
{
    return !r->word[i].quoted && strcmp(text_of(r, i), keyword) == 0;
}

/* The byte after the next, 0 at the end: without taking it. */
static uint8_t peek(const struct reader *r)
{
    return hf_rd_left(&r->rd) ? *r->rd.p : 0;
}

static int begin_word(struct reader *r, bool quoted, bool first)
{
    if (r->n == TOKENS_MAX) {
        return fail(r, "too many words", NULL, "write a list as \"@FILE\"");
    }
    r->word[r->n++] = (struct word){.at = r->text.n, .quoted = quoted, .first = first};
    return 0;
}

static void add(struct reader *r, uint8_t c)
{
    hf_buf_add(&r->text, hf_slice(&c, 1));
}

/* A word that begins with c: up to a blank, a comma or a comment outside quotes. */
static int read_word(struct reader *r, uint8_t c, bool first, bool *ret_comma)
{
    bool in_quote = false;
    int rc = begin_word(r, c == '"', first);
    for (; rc == 0; c = hf_rd_u8(&r->rd)) {
        if (c == 0 || c == '\n') {
            rc = fail(r, "unterminated quoted string", NULL, "a second \"");
            break;
        }
        if (c == '"' && in_quote && peek(r) == '"') {
            add(r, hf_rd_u8(&r->rd));
        } else if (c == '"') {
            in_quote = !in_quote;
        } else {
            add(r, c);
        }
        uint8_t next = peek(r);
        if (!in_quote && (next == 0 || strchr(" \t\r\n,#", next))) {
            break;
        }
    }
    *ret_comma = peek(r) == ',';
    if (*ret_comma) {
        hf_rd_u8(&r->rd);
    }
    add(r, 0);
    return rc                         ? rc
           : r->text.err == -HF_EFULL ? fail(r, "line too long", NULL, "at most 64 KiB")
                                      : r->text.err;
}

/* The words of the next line that has any. 1; 0: there is none; or an error. */
static int read_line(struct reader *r)
{
    bool comma = false;
    r->n = 0;
    hf_buf_clear(&r->text);
    r->line = ++r->next_line;
    while (hf_rd_left(&r->rd)) {
        uint8_t c = hf_rd_u8(&r->rd);
        if (c == '#') {
            while (hf_rd_left(&r->rd) && peek(r) != '\n') {
                hf_rd_u8(&r->rd);
            }
        } else if (c == '\n') {
            if (r->n) {
                return 1;
            }
            r->line = ++r->next_line;
        } else if (c == '\\' && (peek(r) == '\n' || peek(r) == '\r')) { /* goes on in the next */
            while (hf_rd_u8(&r->rd) == '\r') {
            }
            r->next_line++;
        } else if (c == 0) {
            return fail(r, "a zero byte", NULL, "a text file");
        } else if (!strchr(" \t\r,", c)) {
            int rc = read_word(r, c, !comma, &comma);
            if (rc) {
                return rc;
            }
        }
    }
    return r->n ? 1 : 0;
}

static int reader_begin(struct hf_slice text, const char *file, struct hf_err *err,
                        struct reader **ret_r)
{
    struct reader *r = hf_alloc(sizeof(*r));
    if (!r) {
        hf_err_set(err, -ENOMEM, "%s: out of memory", file);
        return -ENOMEM;
    }
    r->file = file;
    r->err = err;
    hf_rd_init(&r->rd, text);
    hf_buf_init(&r->text, WORDS_MAX);
    *ret_r = r;
    return text.n > FILE_MAX ? fail(r, "file too long", NULL, "at most 4 MiB") : 0;
}

static void reader_end(struct reader *r)
{
    if (r) {
        hf_buf_fini(&r->text);
        hf_free(r);
    }
}

/* --- what a line becomes --- */

enum conn { LOCAL = 1, HOST, HOSTSSL, HOSTNOSSL };
enum where { ANY, NET, SAMEHOST, SAMENET };
struct rule {
    struct hf_pg_hba_line pub;
    enum conn conn;
    enum where where;
    uint8_t family, address[16], mask[16];
    struct hf_buf databases, users; /* each: kind ('n': a name), text, NUL */
    char *map;
};
struct mapping {
    char *name, *system, *user;
    bool all; /* any user */
};
struct hf_pg_hba {
    struct rule *rule; /* owned */
    size_t n, room;
    struct mapping *mapping; /* owned */
    size_t n_mappings, mappings_room;
};

static char *dup_text(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = hf_alloc(n);
    if (p) {
        memcpy(p, s, n);
    }
    return p;
}

/* One more element of an array, zeroed. */
static void *grow(void **array, size_t *n, size_t *room, size_t size)
{
    if (*n == *room) {
        size_t want = *room ? *room * 2 : 8;
        void *p = hf_realloc(*array, want * size);
        if (!p) {
            return NULL;
        }
        *array = p;
        *room = want;
    }
    void *e = (char *)*array + (*n)++ * size;
    memset(e, 0, size);
    return e;
}

static struct rule *add_rule(struct hf_pg_hba *h)
{
    void *array = h->rule;
    struct rule *k = grow(&array, &h->n, &h->room, sizeof(*k));
    h->rule = array;
    if (k) {
        hf_buf_init(&k->databases, NAMES_MAX);
        hf_buf_init(&k->users, NAMES_MAX);
    }
    return k;
}

static void free_mapping(struct mapping *m)
{
    hf_free(m->name);
    hf_free(m->system);
    hf_free(m->user);
}

void hf_pg_hba_destroy(struct hf_pg_hba *h)
{
    for (size_t i = 0; h && i < h->n; i++) {
        hf_buf_fini(&h->rule[i].databases);
        hf_buf_fini(&h->rule[i].users);
        hf_free(h->rule[i].map);
    }
    for (size_t i = 0; h && i < h->n_mappings; i++) {
        free_mapping(&h->mapping[i]);
    }
    if (h) {
        hf_free(h->rule);
        hf_free(h->mapping);
        hf_free(h);
    }
}

static void add_name(struct hf_buf *b, char kind, const char *text)
{
    hf_buf_add(b, hf_slice(&kind, 1));
    hf_buf_add(b, hf_slice(text, strlen(text) + 1));
}

static int add_database(struct reader *r, size_t i, struct hf_buf *b)
{
    const char *t = text_of(r, i);
    if (is(r, i, "samerole") || is(r, i, "samegroup")) {
        return fail(r, "not supported:", t,
                    "memberships are in the database; write sameuser or the databases");
    }
    if (!r->word[i].quoted && t[0] == '/') {
        return fail(r, "regular expression", t, "names of databases");
    }
    char kind = is(r, i, "all")           ? 'a'
                : is(r, i, "sameuser")    ? 'u'
                : is(r, i, "replication") ? 'r'
                                          : 'n';
    add_name(b, kind, t);
    return b->err;
}

static int add_user(struct reader *r, size_t i, struct hf_buf *b)
{
    const char *t = text_of(r, i);
    if (!r->word[i].quoted && t[0] == '+') {
        return fail(r, "group", t, "names of users: memberships are in the database");
    }
    if (!r->word[i].quoted && t[0] == '/') {
        return fail(r, "regular expression", t, "names of users");
    }
    add_name(b, is(r, i, "all") ? 'a' : 'n', t);
    return b->err;
}

typedef int add_fn(struct reader *r, size_t i, struct hf_buf *b);

/* The names in a file of their own. */
static int add_file(struct reader *r, const char *path, const struct hf_pg_hba_files *files,
                    add_fn *add_one, struct hf_buf *b)
{
    if (!files) {
        return fail(r, "not supported here:", path, "names");
    }
    struct hf_buf text;
    hf_buf_init(&text, FILE_MAX);
    int rc = files->read(files->arg, path, &text, r->err);
    struct reader *in = NULL;
    rc = rc ? rc : reader_begin(hf_buf_slice(&text), path, r->err, &in);
    while (rc == 0 && (rc = read_line(in)) > 0) {
        rc = 0;
        for (size_t i = 0; rc == 0 && i < in->n; i++) {
            rc = !in->word[i].quoted && text_of(in, i)[0] == '@'
                     ? fail(in, "list in a list:", text_of(in, i), "names")
                     : add_one(in, i, b);
        }
    }
    reader_end(in);
    hf_buf_fini(&text);
    return rc;
}

/* The words of the field that begins at *i. */
static int read_names(struct reader *r, size_t *i, const char *what,
                      const struct hf_pg_hba_files *files, add_fn *add_one, struct hf_buf *b)
{
    if (*i == r->n) {
        return fail(r, "line ends too early", NULL, what);
    }
    int rc = 0;
    do {
        const char *t = text_of(r, *i);
        rc = !r->word[*i].quoted && t[0] == '@' && t[1] ? add_file(r, t + 1, files, add_one, b)
                                                        : add_one(r, *i, b);
        ++*i;
    } while (rc == 0 && *i < r->n && !r->word[*i].first);
    return rc == -HF_EFULL ? fail(r, "too many names", NULL, "at most 1 MiB of them") : rc;
}

/* The one word of the field that begins at *i, or NULL and err. */
static const char *read_one(struct reader *r, size_t *i, const char *what)
{
    if (*i == r->n) {
        fail(r, "line ends too early", NULL, what);
        return NULL;
    }
    if (*i + 1 < r->n && !r->word[*i + 1].first) {
        fail(r, "a list", text_of(r, *i), what);
        return NULL;
    }
    return text_of(r, (*i)++);
}

static int read_conn(struct reader *r, size_t *i, enum conn *ret_conn)
{
    static const struct {
        const char *name;
        enum conn conn;
    } kinds[] = {{"local", LOCAL},
                 {"host", HOST},
                 {"hostssl", HOSTSSL},
                 {"hostnossl", HOSTNOSSL},
                 {"hostnogssenc", HOST}}; /* nobody has GSS encryption here */
    const char *t = read_one(r, i, "local, host, hostssl or hostnossl");
    for (size_t k = 0; t && k < HF_ARRAY_LEN(kinds); k++) {
        if (strcmp(t, kinds[k].name) == 0) {
            *ret_conn = kinds[k].conn;
            return 0;
        }
    }
    return t ? fail(r, "connection type", t, "expected local, host, hostssl or hostnossl")
             : -HF_ECONFIG;
}

/* 0 and its family, or 0 for no address. */
static uint8_t read_ip(const char *t, uint8_t ret[16])
{
    if (inet_pton(AF_INET, t, ret) == 1) {
        return HF_AF_INET;
    }
    return inet_pton(AF_INET6, t, ret) == 1 ? HF_AF_INET6 : HF_AF_NONE;
}

static void prefix_mask(uint8_t mask[16], unsigned bits)
{
    for (unsigned k = 0; k < 16; k++) {
        unsigned n = bits > 8 * k ? bits - 8 * k : 0;
        mask[k] = (uint8_t)(n >= 8 ? 0xffu : 0xff00u >> n);
    }
}

static int read_mask(struct reader *r, size_t *i, const char *bits, struct rule *k)
{
    unsigned max = k->family == HF_AF_INET ? 32 : 128;
    if (bits) {
        unsigned v = 0;
        size_t n = strlen(bits);
        for (size_t j = 0; j < n && n <= 3; j++) {
            v = bits[j] >= '0' && bits[j] <= '9' ? v * 10 + (unsigned)(bits[j] - '0') : 1000;
        }
        if (n == 0 || n > 3 || v > max) {
            return fail(r, "CIDR mask", bits, "a number of bits");
        }
        prefix_mask(k->mask, v);
        return 0;
    }
    const char *t = read_one(r, i, "ADDRESS/BITS, or ADDRESS MASK");
    if (!t) {
        return -HF_ECONFIG;
    }
    return read_ip(t, k->mask) == k->family
               ? 0
               : fail(r, "mask", t, "ADDRESS/BITS, or ADDRESS MASK of the same family");
}

static int read_address(struct reader *r, size_t *i, struct rule *k)
{
    const char *t = read_one(r, i, "an address");
    if (!t) {
        return -HF_ECONFIG;
    }
    k->where = is(r, *i - 1, "all")        ? ANY
               : is(r, *i - 1, "samehost") ? SAMEHOST
               : is(r, *i - 1, "samenet")  ? SAMENET
                                           : NET;
    if (k->where != NET) {
        return 0;
    }
    char ip[64];
    const char *slash = strchr(t, '/');
    size_t n = slash ? (size_t)(slash - t) : strlen(t);
    snprintf(ip, sizeof(ip), "%.*s", (int)(n < sizeof(ip) ? n : 0), t);
    k->family = read_ip(ip, k->address);
    if (k->family == HF_AF_NONE) {
        return fail(r, "address", t,
                    "an IP address with its mask, all, samehost or samenet (names of hosts are not "
                    "looked up)");
    }
    return read_mask(r, i, slash ? slash + 1 : NULL, k);
}

static int read_method(struct reader *r, size_t *i, struct rule *k)
{
    const char *t = read_one(r, i, "a method");
    if (!t) {
        return -HF_ECONFIG;
    }
    if (hf_pg_auth_parse(hf_slice_str(t), &k->pub.method)) {
        return fail(r, "method", t,
                    "expected trust, reject, scram-sha-256, md5, password, cert or peer");
    }
    if (k->pub.method == HF_PG_AUTH_PEER && k->conn != LOCAL) {
        return fail(r, "method", t, "only in local lines");
    }
    if (k->pub.method == HF_PG_AUTH_CERT) {
        k->pub.clientcert = HF_PG_CLIENTCERT_VERIFY_FULL;
        if (k->conn != HOSTSSL) {
            return fail(r, "method", t, "only in hostssl lines");
        }
    }
    return 0;
}

static int set_clientcert(struct reader *r, struct rule *k, const char *v)
{
    if (k->conn != HOSTSSL) {
        return fail(r, "option", "clientcert", "only in hostssl lines");
    }
    if (strcmp(v, "verify-full") == 0) {
        k->pub.clientcert = HF_PG_CLIENTCERT_VERIFY_FULL;
    } else if (strcmp(v, "verify-ca") == 0 && k->pub.method != HF_PG_AUTH_CERT) {
        k->pub.clientcert = HF_PG_CLIENTCERT_VERIFY_CA;
    } else {
        return fail(r, "clientcert", v, "expected verify-ca (not with cert) or verify-full");
    }
    return 0;
}

static int read_option(struct reader *r, size_t *i, struct rule *k)
{
    const char *t = read_one(r, i, "an option");
    const char *v = t ? strchr(t, '=') : NULL;
    if (!t) {
        return -HF_ECONFIG;
    }
    if (v && hf_slice_eq(hf_slice(t, (size_t)(v - t)), S("map"))) {
        if (k->pub.method != HF_PG_AUTH_CERT && k->pub.method != HF_PG_AUTH_PEER) {
            return fail(r, "option", "map", "only with cert or peer");
        }
        hf_free(k->map);
        k->pub.map = k->map = dup_text(v + 1);
        return k->map ? 0 : -ENOMEM;
    }
    if (v && hf_slice_eq(hf_slice(t, (size_t)(v - t)), S("clientcert"))) {
        return set_clientcert(r, k, v + 1);
    }
    if (v && hf_slice_eq(hf_slice(t, (size_t)(v - t)), S("clientname"))) {
        k->pub.clientname_dn = strcmp(v + 1, "DN") == 0;
        return k->pub.clientname_dn || strcmp(v + 1, "CN") == 0
                   ? 0
                   : fail(r, "clientname", v + 1, "expected CN or DN");
    }
    return fail(r, "option", t, "expected map=, clientcert= or clientname=");
}

static int read_rule(struct reader *r, const struct hf_pg_hba_files *files, struct rule *k)
{
    size_t i = 0;
    k->pub.line = r->line;
    if (!r->word[0].quoted && strncmp(text_of(r, 0), "include", 7) == 0) {
        return fail(r, "not supported:", text_of(r, 0), "the lines themselves");
    }
    int rc = read_conn(r, &i, &k->conn);
    rc = rc ? rc : read_names(r, &i, "a database", files, add_database, &k->databases);
    rc = rc ? rc : read_names(r, &i, "a user", files, add_user, &k->users);
    if (rc == 0 && k->conn != LOCAL) {
        rc = read_address(r, &i, k);
    }
    rc = rc ? rc : read_method(r, &i, k);
    while (rc == 0 && i < r->n) {
        rc = read_option(r, &i, k);
    }
    return rc;
}

int hf_pg_hba_parse(struct hf_slice text, const char *file, const struct hf_pg_hba_files *files,
                    struct hf_err *err, struct hf_pg_hba **ret_hba)
{
    struct reader *r = NULL;
    struct hf_pg_hba *h = hf_alloc(sizeof(*h));
    int rc = h ? reader_begin(text, file, err, &r) : -ENOMEM;
    while (rc == 0 && (rc = read_line(r)) > 0) {
        struct rule *k = h->n < LINES_MAX ? add_rule(h) : NULL;
        rc = k ? read_rule(r, files, k) : -ENOMEM;
    }
    reader_end(r);
    if (rc) {
        hf_pg_hba_destroy(h);
        return rc == -HF_ECONFIG ? rc : hf_err_set(err, rc, "%s: %s", file, hf_strerror(rc));
    }
    *ret_hba = h;
    return 0;
}

int hf_pg_hba_create(enum hf_pg_auth method, struct hf_pg_hba **ret_hba)
{
    static const enum conn conns[] = {LOCAL, HOST};
    struct hf_pg_hba *h = hf_alloc(sizeof(*h));
    for (size_t i = 0; h && i < HF_ARRAY_LEN(conns); i++) {
        struct rule *k = add_rule(h);
        if (k) {
            k->conn = method == HF_PG_AUTH_CERT && conns[i] == HOST ? HOSTSSL : conns[i];
            k->pub.method = method;
            k->pub.clientcert =
                method == HF_PG_AUTH_CERT ? HF_PG_CLIENTCERT_VERIFY_FULL : HF_PG_CLIENTCERT_NO;
            add_name(&k->databases, 'a', "");
            add_name(&k->databases, 'r', "");
            add_name(&k->users, 'a', "");
        }
        if (!k || k->databases.err || k->users.err) {
            hf_pg_hba_destroy(h);
            return -ENOMEM;
        }
    }
    if (!h) {
        return -ENOMEM;
    }
    *ret_hba = h;
    return 0;
}

/* --- pg_ident.conf --- */

static int read_mapping(struct reader *r, struct mapping *m)
{
    size_t i = 0;
    const char *name = read_one(r, &i, "MAP SYSTEM-USER USER");
    const char *system = name ? read_one(r, &i, "MAP SYSTEM-USER USER") : NULL;
    const char *user = system ? read_one(r, &i, "MAP SYSTEM-USER USER") : NULL;
    if (!user) {
        return -HF_ECONFIG;
    }
    if (i < r->n) {
        return fail(r, "left over:", text_of(r, i), "MAP SYSTEM-USER USER");
    }
    for (size_t k = 1; k < 3; k++) {
        const char *t = text_of(r, k);
        if (!r->word[k].quoted && (t[0] == '/' || (k == 2 && t[0] == '+'))) {
            return fail(r, "regular expression or group", t, "a name");
        }
    }
    m->all = is(r, 2, "all");
    m->name = dup_text(name);
    m->system = dup_text(system);
    m->user = dup_text(user);
    return m->name && m->system && m->user ? 0 : -ENOMEM;
}

int hf_pg_hba_add_ident(struct hf_pg_hba *h, struct hf_slice text, const char *file,
                        struct hf_err *err)
{
    struct reader *r = NULL;
    size_t n_before = h->n_mappings;
    int rc = reader_begin(text, file, err, &r);
    while (rc == 0 && (rc = read_line(r)) > 0) {
        void *array = h->mapping;
        struct mapping *m = grow(&array, &h->n_mappings, &h->mappings_room, sizeof(*m));
        h->mapping = array;
        rc = m ? read_mapping(r, m) : -ENOMEM;
    }
    reader_end(r);
    while (rc && h->n_mappings > n_before) {
        free_mapping(&h->mapping[--h->n_mappings]);
    }
    return rc == 0 || rc == -HF_ECONFIG ? rc : hf_err_set(err, rc, "%s: %s", file, hf_strerror(rc));
}

const struct hf_pg_hba_line *hf_pg_hba_missing_map(const struct hf_pg_hba *h)
{
    for (size_t i = 0; i < h->n; i++) {
        bool found = h->rule[i].map == NULL;
        for (size_t k = 0; !found && k < h->n_mappings; k++) {
            found = strcmp(h->mapping[k].name, h->rule[i].map) == 0;
        }
        if (!found) {
            return &h->rule[i].pub;
        }
    }
    return NULL;
}

bool hf_pg_hba_may_be(const struct hf_pg_hba *h, const char *map, struct hf_slice system,
                      struct hf_slice user)
{
    if (!map) {
        return hf_slice_eq(system, user);
    }
    for (size_t i = 0; i < h->n_mappings; i++) {
        const struct mapping *m = &h->mapping[i];
        if (strcmp(m->name, map) == 0 && hf_slice_eq(system, hf_slice_str(m->system)) &&
            (m->all || hf_slice_eq(user, hf_slice_str(m->user)))) {
            return true;
        }
    }
    return false;
}

/* --- matching --- */

static bool in_names(const struct hf_buf *b, const struct hf_pg_hba_ask *ask, struct hf_slice name,
                     bool replication)
{
    struct hf_rd r;
    hf_rd_init(&r, hf_buf_slice(b));
    while (hf_rd_left(&r)) {
        uint8_t kind = hf_rd_u8(&r);
        struct hf_slice t = hf_slice_str((const char *)r.p);
        hf_rd_bytes(&r, t.n + 1);
        bool yes = replication   ? kind == 'r'
                   : kind == 'n' ? hf_slice_eq(t, name)
                   : kind == 'u' ? hf_slice_eq(ask->user, name)
                                 : kind == 'a';
        if (yes) {
            return true;
        }
    }
    return false;
}

/* An IPv4 address that came to an IPv6 socket is one. */
static struct hf_endpoint plain(struct hf_endpoint e)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (e.family == HF_AF_INET6 && memcmp(e.addr, mapped, sizeof(mapped)) == 0) {
        e.family = HF_AF_INET;
        memmove(e.addr, e.addr + 12, 4);
        memset(e.addr + 4, 0, 12);
    }
    return e;
}

static bool in_net(const struct hf_endpoint *e, uint8_t family, const uint8_t address[16],
                   const uint8_t mask[16])
{
    if (e->family != family) {
        return false;
    }
    for (size_t i = 0; i < (family == HF_AF_INET ? 4u : 16u); i++) {
        if ((e->addr[i] ^ address[i]) & mask[i]) {
            return false;
        }
    }
    return true;
}

static bool from_there(const struct rule *k, const struct hf_pg_hba_ask *ask)
{
    struct hf_endpoint peer = plain(ask->peer);
    if (k->where == ANY) {
        return true;
    }
    if (k->where == NET) {
        return in_net(&peer, k->family, k->address, k->mask);
    }
    for (size_t i = 0; i < ask->n_own; i++) {
        uint8_t mask[16];
        prefix_mask(mask, k->where == SAMENET ? ask->own[i].prefix : 128);
        if (in_net(&peer, ask->own[i].address.family, ask->own[i].address.addr, mask)) {
            return true;
        }
    }
    return false;
}

const struct hf_pg_hba_line *hf_pg_hba_match(const struct hf_pg_hba *h,
                                             const struct hf_pg_hba_ask *ask)
{
    for (size_t i = 0; i < h->n; i++) {
        const struct rule *k = &h->rule[i];
        if ((k->conn == LOCAL) != ask->local || (k->conn == HOSTSSL && !ask->tls) ||
            (k->conn == HOSTNOSSL && ask->tls)) {
            continue;
        }
        if ((ask->local || from_there(k, ask)) &&
            in_names(&k->databases, ask, ask->database, ask->replication) &&
            in_names(&k->users, ask, ask->user, false)) {
            return &k->pub;
        }
    }
    return NULL;
}

/* --- the auth file --- */

struct entry {
    struct hf_pg_secret secret;
    size_t n;
    char user[HF_PG_NAME_MAX + 1];
};
struct hf_pg_userlist {
    struct hf_map users; /* struct entry, owned */
};

void hf_pg_userlist_destroy(struct hf_pg_userlist *l)
{
    if (!l) {
        return;
    }
    struct entry *e;
    for (size_t pos = 0; (e = hf_map_next(&l->users, &pos)) != NULL;) {
        hf_pg_secret_wipe(&e->secret);
        hf_free(e);
    }
    hf_map_fini(&l->users);
    hf_free(l);
}

/* "text", a doubled quote in it is one; taken off *line. */
static bool read_quoted(struct hf_rd *line, struct hf_buf *b)
{
    hf_buf_clear(b);
    while (hf_rd_left(line) && (*line->p == ' ' || *line->p == '\t')) {
        hf_rd_u8(line);
    }
    if (hf_rd_u8(line) != '"') {
        return false;
    }
    while (hf_rd_left(line)) {
        uint8_t c = hf_rd_u8(line);
        if (c == '"' && !(hf_rd_left(line) && *line->p == '"')) {
            return b->err == 0;
        }
        if (c == '"') {
            hf_rd_u8(line);
        }
        hf_buf_add(b, hf_slice(&c, 1));
    }
    return false;
}

static int put_user(struct hf_pg_userlist *l, struct hf_slice user,
                    const struct hf_pg_secret *secret)
{
    struct entry *e = hf_map_get(&l->users, user);
    if (e) {
        e->secret = *secret;
        return 0;
    }
    e = hf_alloc(sizeof(*e));
    if (!e) {
        return -ENOMEM;
    }
    e->secret = *secret;
    e->n = user.n;
    memcpy(e->user, user.p, user.n);
    int rc = hf_map_put(&l->users, hf_slice(e->user, e->n), e);
    if (rc) {
        hf_free(e);
    }
    return rc;
}

static int read_user(struct hf_pg_userlist *l, struct hf_slice text, struct hf_buf *user,
                     struct hf_buf *word, const char **ret_why)
{
    struct hf_rd line;
    hf_rd_init(&line, text);
    *ret_why = "expected \"USER\" \"SECRET\"";
    if (!read_quoted(&line, user) || !read_quoted(&line, word)) {
        return -HF_ECONFIG;
    }
    if (user->n == 0 || user->n > HF_PG_NAME_MAX || memchr(user->p, 0, user->n)) {
        *ret_why = "user: expected 1 to 63 bytes";
        return -HF_ECONFIG;
    }
    struct hf_pg_secret secret;
    if (hf_pg_secret_parse(hf_buf_slice(word), &secret)) {
        *ret_why = "secret: expected a password of at most 1023 bytes, md5..., or "
                   "SCRAM-SHA-256$...";
        return -HF_ECONFIG;
    }
    int rc = put_user(l, hf_buf_slice(user), &secret);
    hf_pg_secret_wipe(&secret);
    return rc;
}

/* Nothing but blanks, or a comment? */
static bool is_blank(struct hf_slice line)
{
    for (size_t i = 0; i < line.n; i++) {
        if (!strchr(" \t\r", line.p[i]) || line.p[i] == 0) {
            return line.p[i] == ';' || line.p[i] == '#';
        }
    }
    return true;
}

int hf_pg_userlist_parse(struct hf_slice text, const char *file, struct hf_err *err,
                         struct hf_pg_userlist **ret_list)
{
    struct hf_pg_userlist *l = hf_alloc(sizeof(*l));
    if (!l) {
        return hf_err_set(err, -ENOMEM, "%s: out of memory", file);
    }
    hf_map_init(&l->users, 0);
    struct hf_buf user, word;
    hf_buf_init(&user, 4096);
    hf_buf_init(&word, 4096);
    struct hf_rd r;
    hf_rd_init(&r, text);
    int rc = 0;
    for (unsigned n = 1; rc == 0 && hf_rd_left(&r); n++) {
        const char *why = NULL;
        const uint8_t *end = memchr(r.p, '\n', hf_rd_left(&r));
        struct hf_slice line = hf_rd_bytes(&r, end ? (size_t)(end - r.p) : hf_rd_left(&r));
        hf_rd_bytes(&r, end ? 1 : 0);
        rc = is_blank(line) ? 0 : read_user(l, line, &user, &word, &why);
        if (rc) {
            hf_err_set(err, rc, "%s:%u: %s", file, n, rc == -HF_ECONFIG ? why : hf_strerror(rc));
        }
    }
    hf_buf_fini(&user);
    hf_buf_fini(&word);
    if (rc) {
        hf_pg_userlist_destroy(l);
        return rc;
    }
    *ret_list = l;
    return 0;
}

const struct hf_pg_secret *hf_pg_userlist_get(struct hf_pg_userlist *l, struct hf_slice user,
                                              const uint8_t key[HF_PG_KEY_LEN])
{
    struct entry *e = hf_map_get(&l->users, user);
    if (e && e->secret.kind == HF_PG_SECRET_PASSWORD && !e->secret.verifier.iterations) {
        uint8_t salt[16];
        hf_pg_salt(key, user, salt);
        if (hf_pg_verifier_make(hf_slice_str(e->secret.password), hf_slice(salt, sizeof(salt)),
                                HF_PG_ITERATIONS, &e->secret.verifier)) {
            e->secret.verifier.iterations = 0;
        }
    }
    return e ? &e->secret : NULL;
}
