/* Remembers what texts do, and asks a database's list whether they may be repeated. */
#include "core/pg/classify.h"

#include <assert.h>
#include <errno.h>

#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "core/pg/catalog.h"
#include "core/pg/fingerprint.h"
#include "core/pg/statement.h"

#define TEXT_MAX (1u << 20)     /* bytes that are looked at */
#define EXACT_MAX (64u << 10)   /* ... of a text that is parsed as it is */
#define REMEMBERED_MAX 8192     /* bytes of one remembered text with its facts */
#define REMEMBERED_AVERAGE 2048 /* ... of all of them, on average */
#define UNKNOWN_REFS (UINT32_MAX / 2)

/* A class as it is given out. */
struct klass {
    struct hf_pg_class pub;        /* first */
    struct hf_pg_statement *facts; /* ref; the static one has none */
    uint64_t asked;                /* the generation that what follows is of; 0: none */
    uint32_t does;
    bool safe, repeatable;
};

/* A normal form and its class. */
struct memo {
    struct hf_list node; /* all, in the order of the clock */
    struct hf_slice normal;
    struct klass *k; /* ref: of `generation` */
    uint64_t generation;
    size_t size;
    bool used; /* since the clock's hand passed */
};

struct hf_pg_classifier {
    struct hf_map memos; /* by normal form */
    struct hf_list clock;
    size_t n_max, bytes, bytes_max;
    struct hf_pg_catalog list, next;
    uint64_t generation;  /* of the list, counted up when it changes */
    bool in_force;        /* the list is */
    bool reading, spoilt; /* `next` is being read; and is of no use */
    uint8_t normal[HF_PG_NORMAL_MAX];
};

static struct klass unknown = {
    .pub = {.does = HF_PG_DOES_UNKNOWN | HF_PG_DOES_FUNCTION | HF_PG_DOES_SYNC_COMMIT,
            .n_statements = 1,
            .n_refs = UNKNOWN_REFS},
    .does = HF_PG_DOES_UNKNOWN | HF_PG_DOES_FUNCTION | HF_PG_DOES_SYNC_COMMIT,
};

static struct klass *klass_of(const struct hf_pg_class *k)
{
    return (struct klass *)(uintptr_t)k; /* pub is first; only what is remembered is written */
}

static uint64_t generation(const struct hf_pg_classifier *c)
{
    return c->in_force ? c->generation : 0;
}

/* What the catalog says of the names: may they do anything, and are all safe? */
static bool ask(const struct hf_pg_classifier *c, const struct hf_pg_statement *f,
                bool *ret_anything)
{
    bool safe = c->in_force && hf_pg_catalog_complete(&c->list) && !f->too_many;
    bool anything = f->too_many;
    size_t pos = 0;
    char kind;
    struct hf_slice name;
    while (hf_pg_statement_name(f, &pos, &kind, &name)) {
        bool ok = c->in_force && hf_pg_catalog_safe(&c->list, kind, name);
        safe &= ok;
        if (kind == 'f') {
            anything |= !ok && !(c->in_force && hf_pg_catalog_safe(&c->list, 'F', name));
        } else if (kind == 'o' || kind == 'a') {
            anything |= !ok && c->in_force;
        }
    }
    *ret_anything = anything;
    return safe;
}

/* Bring up to date what depends on the catalog. */
static void refresh(struct hf_pg_classifier *c, struct klass *k)
{
    if (!k->facts || (k->asked == generation(c) && k->asked)) {
        return;
    }
    bool anything;
    k->safe = ask(c, k->facts, &anything);
    k->does = k->facts->does;
    k->does |= anything ? HF_PG_DOES_FUNCTION | HF_PG_DOES_SYNC_COMMIT : 0;
    k->repeatable = k->safe && !(k->does & ~(uint32_t)HF_PG_DOES_READ);
    k->asked = generation(c);
}

/* A class of these facts as of now; takes the reference. */
static struct klass *klass_create(struct hf_pg_classifier *c, struct hf_pg_statement *f)
{
    struct klass *k = hf_alloc(sizeof(*k)), *inner = NULL;
    if (k && f->inner) {
        inner = klass_create(c, hf_pg_statement_ref(f->inner));
    }
    if (!k || (f->inner && !inner)) {
        hf_pg_statement_unref(f);
        hf_free(k);
        return NULL;
    }
    *k = (struct klass){.facts = f};
    refresh(c, k);
    k->pub = (struct hf_pg_class){
        .does = k->does,
        .n_statements = f->n_statements,
        .n_ends = f->n_ends,
        .wrappable = f->wrappable,
        .first_is_begin = f->first_is_begin,
        .last_is_end = f->last_is_end,
        .name = f->name,
        .inner = inner ? &inner->pub : NULL,
        .settings = f->settings,
        .n_settings = f->n_settings,
        .inserts = f->insert.n != 0,
        .n_refs = 1,
    };
    return k;
}

const struct hf_pg_class *hf_pg_class_ref(const struct hf_pg_class *k)
{
    klass_of(k)->pub.n_refs += k != &unknown.pub;
    return k;
}

void hf_pg_class_unref(const struct hf_pg_class *pub)
{
    if (!pub || pub == &unknown.pub) {
        return;
    }
    struct klass *k = klass_of(pub);
    assert(k->pub.n_refs > 0);
    if (--k->pub.n_refs == 0) {
        hf_pg_class_unref(k->pub.inner);
        hf_pg_statement_unref(k->facts);
        hf_free(k);
    }
}

static void memo_destroy(struct hf_pg_classifier *c, struct memo *m)
{
    hf_list_unlink(&m->node);
    (void)hf_map_remove(&c->memos, m->normal);
    c->bytes -= m->size;
    hf_pg_class_unref(&m->k->pub);
    hf_free(m);
}

/* Forget what was not used since the hand passed, until n more bytes have room. */
static void make_room(struct hf_pg_classifier *c, size_t n)
{
    while (c->memos.n >= c->n_max || (c->memos.n && c->bytes + n > c->bytes_max)) {
        struct memo *m = HF_CONTAINER_OF(c->clock.next, struct memo, node);
        if (m->used) {
            m->used = false;
            hf_list_unlink(&m->node);
            hf_list_insert(&c->clock, &m->node);
        } else {
            memo_destroy(c, m);
        }
    }
}

/* Without memory it is just not remembered. */
static void remember(struct hf_pg_classifier *c, struct hf_slice normal, struct klass *k)
{
    size_t size = sizeof(struct memo) + normal.n + sizeof(*k) + k->facts->size;
    if (size > REMEMBERED_MAX || c->n_max == 0) {
        return;
    }
    make_room(c, size);
    struct memo *m = hf_alloc(sizeof(*m) + normal.n);
    if (!m) {
        return;
    }
    if (normal.n) {
        memcpy(m + 1, normal.p, normal.n);
    }
    *m = (struct memo){.normal = hf_slice(m + 1, normal.n), .size = size};
    if (hf_map_put(&c->memos, m->normal, m) != 0) {
        hf_free(m);
        return;
    }
    m->k = klass_of(hf_pg_class_ref(&k->pub));
    m->generation = generation(c);
    hf_list_insert(&c->clock, &m->node);
    c->bytes += size;
}

/* The catalog is not what it was: the same facts, seen with it. */
static const struct hf_pg_class *renew(struct hf_pg_classifier *c, struct memo *m)
{
    struct klass *k = klass_create(c, hf_pg_statement_ref(m->k->facts));
    if (!k) {
        return &unknown.pub;
    }
    hf_pg_class_unref(&m->k->pub);
    m->k = k;
    m->generation = generation(c);
    return hf_pg_class_ref(&k->pub);
}

/* Parse a text as it is, or a normal form. NULL: it can't be. */
static struct hf_pg_statement *parse(struct hf_slice sql, bool exact)
{
    if (sql.n > (exact ? EXACT_MAX : HF_PG_NORMAL_MAX) || (sql.n && memchr(sql.p, 0, sql.n))) {
        return NULL;
    }
    char *text = hf_alloc(sql.n * (exact ? 1 : HF_PG_EXPAND_MAX) + 1);
    struct hf_pg_statement *f = NULL;
    if (text && exact && sql.n) {
        memcpy(text, sql.p, sql.n);
    } else if (text && !exact) {
        hf_pg_normal_expand(sql, text);
    }
    if (!text || hf_pg_statement_parse(text, exact, &f) != 0) {
        f = NULL;
    }
    hf_free(text);
    return f;
}

const struct hf_pg_class *hf_pg_classify(struct hf_pg_classifier *c, struct hf_slice sql)
{
    size_t n = 0;
    enum hf_pg_normal normal =
        sql.n > TEXT_MAX ? HF_PG_NORMAL_BAD : hf_pg_normalize(sql, c->normal, &n);
    struct hf_slice form = hf_slice(c->normal, n);
    struct hf_pg_statement *f = NULL;
    if (normal == HF_PG_NORMAL_OK) {
        struct memo *m = hf_map_get(&c->memos, form);
        if (m) {
            m->used = true;
            return m->generation == generation(c) ? hf_pg_class_ref(&m->k->pub) : renew(c, m);
        }
        f = parse(form, false);
    }
    if (normal == HF_PG_NORMAL_EXACT || (f && f->literals_matter)) {
        hf_pg_statement_unref(f);
        normal = HF_PG_NORMAL_EXACT;
        f = parse(sql, true);
    }
    struct klass *k = f ? klass_create(c, f) : NULL;
    if (!k) {
        return &unknown.pub;
    }
    if (normal == HF_PG_NORMAL_OK) {
        remember(c, form, k);
    }
    return &k->pub;
}

static struct hf_slice next_name(struct hf_slice *rest)
{
    struct hf_slice name = hf_slice_str((const char *)rest->p);
    *rest = hf_slice(rest->p + name.n + 1, rest->n - name.n - 1);
    return name;
}

bool hf_pg_class_repeatable(struct hf_pg_classifier *c, const struct hf_pg_class *k)
{
    refresh(c, klass_of(k));
    return c->in_force && klass_of(k)->repeatable;
}

bool hf_pg_class_names_safe(struct hf_pg_classifier *c, const struct hf_pg_class *k)
{
    refresh(c, klass_of(k));
    return c->in_force && klass_of(k)->safe;
}

bool hf_pg_class_insert(struct hf_pg_classifier *c, const struct hf_pg_class *k,
                        struct hf_pg_insert *ret_insert)
{
    if (!k->inserts || !c->in_force) {
        return false;
    }
    struct hf_slice rest = klass_of(k)->facts->insert;
    ret_insert->schema = next_name(&rest);
    ret_insert->table = next_name(&rest);
    uint16_t position;
    if (!hf_pg_catalog_serial(&c->list, ret_insert->table, &ret_insert->column, &position)) {
        return false;
    }
    for (uint16_t i = 0; rest.n; i++) {
        struct hf_slice name = next_name(&rest);
        bool star = hf_slice_eq(name, hf_slice_str("*"));
        if (star || hf_slice_eq(name, ret_insert->column)) {
            ret_insert->index = star ? (uint16_t)(i + position) : i;
            return true;
        }
    }
    return false;
}

uint32_t hf_pg_class_does(struct hf_pg_classifier *c, const struct hf_pg_class *k)
{
    refresh(c, klass_of(k));
    return klass_of(k)->does;
}

int hf_pg_classifier_create(size_t n_max, uint64_t seed, struct hf_pg_classifier **ret_classifier)
{
    struct hf_pg_classifier *c = hf_alloc(sizeof(*c));
    if (!c) {
        return -ENOMEM;
    }
    hf_map_init(&c->memos, seed);
    hf_list_init(&c->clock);
    c->n_max = n_max;
    c->bytes_max = n_max > SIZE_MAX / REMEMBERED_AVERAGE ? SIZE_MAX : n_max * REMEMBERED_AVERAGE;
    c->bytes_max = c->bytes_max < REMEMBERED_MAX ? REMEMBERED_MAX : c->bytes_max;
    hf_pg_catalog_init(&c->list, seed);
    hf_pg_catalog_init(&c->next, seed);
    *ret_classifier = c;
    return 0;
}

void hf_pg_classifier_destroy(struct hf_pg_classifier *c)
{
    if (!c) {
        return;
    }
    HF_LIST_FOREACH (it, &c->clock) {
        memo_destroy(c, HF_CONTAINER_OF(it, struct memo, node));
    }
    hf_map_fini(&c->memos);
    hf_pg_catalog_fini(&c->list);
    hf_pg_catalog_fini(&c->next);
    hf_free(c);
}

void hf_pg_catalog_begin(struct hf_pg_classifier *c)
{
    hf_pg_catalog_fini(&c->next);
    c->reading = true;
    c->spoilt = false;
}

int hf_pg_catalog_row(struct hf_pg_classifier *c, char kind, struct hf_slice name)
{
    int rc = c->reading ? hf_pg_catalog_add(&c->next, kind, name) : -EINVAL;
    c->spoilt |= rc != 0; /* an 'a' may be missing */
    return rc;
}

void hf_pg_catalog_end(struct hf_pg_classifier *c)
{
    if (!c->reading || c->spoilt) {
        hf_pg_catalog_fini(&c->next);
        c->reading = false;
        return;
    }
    bool same = c->generation && memcmp(c->list.sum, c->next.sum, sizeof(c->list.sum)) == 0;
    hf_pg_catalog_fini(&c->list);
    c->list = c->next;
    hf_pg_catalog_init(&c->next, c->list.map.seed);
    c->generation += !same;
    c->in_force = true;
    c->reading = false;
}

void hf_pg_catalog_forget(struct hf_pg_classifier *c)
{
    c->in_force = false;
    c->spoilt = true; /* what is being read was read too early */
}

bool hf_pg_catalog_wanted(const struct hf_pg_classifier *c)
{
    return !c->in_force;
}

/* Those in which a byte of a character can be an ASCII character, such as the backslash. */
bool hf_pg_encoding_is_readable(struct hf_slice name)
{
    static const char *const not [] = {
        "sjis",       "mskanji", "shiftjis", "shiftjis2004", "big5",      "win950",
        "windows950", "gbk",     "win936",   "windows936",   "uhc",       "win949",
        "windows949", "johab",   "gb18030",  "win932",       "windows932"};
    char folded[32];
    size_t n = 0;
    for (size_t i = 0; i < name.n; i++) { /* as pg_char_to_encoding(): letters and digits count */
        uint8_t c = name.p[i];
        c = c >= 'A' && c <= 'Z' ? c + 32 : c;
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
            if (n + 1 == sizeof(folded)) {
                return false;
            }
            folded[n++] = (char)c;
        }
    }
    folded[n] = '\0';
    for (size_t i = 0; i < HF_ARRAY_LEN(not ); i++) {
        if (strcmp(folded, not [i]) == 0) {
            return false;
        }
    }
    return true;
}
