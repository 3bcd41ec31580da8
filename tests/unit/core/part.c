/* core/directory/part: against a plain sorted array; sharing, differences, limits, no memory. */
#include "core/directory/part.h"

#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/prng.h"
#include "support/test.h"

#define NAMES 300 /* several chunks */
#define KEPT 6    /* versions kept alive beside the newest */

static const uint8_t salt[HF_SALT_LEN] = "salt";

/* What a part must hold: value[i] of name i; 0: not there. Names sort like their numbers. */
struct model {
    uint32_t value[NAMES];
};

static struct hf_slice name_of(uint32_t i)
{
    static char buf[2][16];
    static int turn;
    char *b = buf[turn ^= 1];
    return hf_slice(b, (size_t)snprintf(b, sizeof(buf[0]), "/n%05u", i));
}

static struct hf_slice value_of(uint32_t v)
{
    static char buf[2][80];
    static int turn;
    char *b = buf[turn ^= 1];
    return hf_slice(b, (size_t)snprintf(b, sizeof(buf[0]), "{\"v\":%u%*s}", v, (int)(v % 50), ""));
}

static struct hf_dir_store *new_store(void)
{
    struct hf_dir_store *s;
    assert_int_equal(hf_dir_store_create(8, 1, &s), 0);
    return s;
}

static void check(const struct hf_part *p, const struct model *m)
{
    struct hf_part_pos pos = {0};
    uint32_t n = 0, bytes = 0;
    uint64_t hash = 0;
    for (uint32_t i = 0; i < NAMES; i++) {
        struct hf_entry *found = hf_part_find(p, name_of(i));
        if (m->value[i] == 0) {
            assert_null(found);
            continue;
        }
        struct hf_entry *e = hf_part_next(p, &pos);
        assert_non_null(e);
        assert_ptr_equal(e, found);
        assert_true(hf_slice_eq(hf_entry_name(e), name_of(i)));
        assert_true(hf_slice_eq(hf_entry_value(e), value_of(m->value[i])));
        n++;
        bytes += (uint32_t)(hf_entry_name(e).n + hf_entry_value(e).n);
        hash += e->hash;
    }
    assert_null(hf_part_next(p, &pos));
    assert_int_equal(p->n_entries, n);
    assert_int_equal(p->bytes, bytes);
    assert_true(p->key.hash == hash);
    for (uint32_t c = 0; c < p->n_chunks; c++) {
        assert_in_range(p->chunk[c]->n, 1, HF_CHUNK_MAX);
    }
}

struct seen {
    const struct model *before, *after;
    uint32_t next, n;
};

static uint32_t number_of(struct hf_entry *e)
{
    return (uint32_t)strtoul((const char *)hf_entry_name(e).p + 2, NULL, 10);
}

/* Each name that differs once, in order, with what it was and is. */
static void on_diff(void *arg, struct hf_entry *before, struct hf_entry *after)
{
    struct seen *s = arg;
    uint32_t i = number_of(before ? before : after);
    assert_true(i < NAMES && i >= s->next);
    s->next = i + 1;
    s->n++;
    assert_int_not_equal(s->before->value[i], s->after->value[i]);
    assert_int_equal(before != NULL, s->before->value[i] != 0);
    assert_int_equal(after != NULL, s->after->value[i] != 0);
    if (before) {
        assert_true(hf_slice_eq(hf_entry_value(before), value_of(s->before->value[i])));
    }
    if (after) {
        assert_true(hf_slice_eq(hf_entry_value(after), value_of(s->after->value[i])));
    }
}

static void check_diff(const struct hf_part *a, const struct model *ma, const struct hf_part *b,
                       const struct model *mb)
{
    struct seen s = {.before = ma, .after = mb};
    struct hf_part_diff it = {0};
    struct hf_entry *before, *after;
    while (hf_part_diff_next(a, b, &it, &before, &after)) {
        on_diff(&s, before, after);
    }
    uint32_t want = 0;
    for (uint32_t i = 0; i < NAMES; i++) {
        want += ma->value[i] != mb->value[i];
    }
    assert_int_equal(s.n, want);
}

static void change(struct hf_part *p, struct model *m, struct hf_prng *g)
{
    uint32_t i = (uint32_t)hf_prng_below(g, NAMES);
    if (hf_prng_below(g, 5) < 3) {
        m->value[i] = 1 + (uint32_t)hf_prng_below(g, 1000);
        assert_int_equal(hf_part_put_value(p, name_of(i), value_of(m->value[i])), 0);
    } else {
        assert_int_equal(hf_part_remove(p, name_of(i)), m->value[i] ? 0 : -HF_ENOTFOUND);
        m->value[i] = 0;
    }
}

static void like_a_sorted_array(void **state)
{
    (void)state;
    static const struct model nothing;
    struct hf_dir_store *s = new_store();
    struct hf_part *kept[KEPT] = {NULL};
    struct model model[KEPT] = {{{0}}}, m = {{0}};
    struct hf_prng g;
    hf_prng_init(&g, 7);
    struct hf_part *p = hf_part_create(0, 1, salt);
    assert_non_null(p);
    for (uint64_t version = 1; version < 400; version++) {
        for (uint64_t n = hf_prng_below(&g, 30); n > 0; n--) {
            change(p, &m, &g);
        }
        check(p, &m);
        p = hf_part_seal(p, version, s);
        size_t k = hf_prng_below(&g, KEPT), other = hf_prng_below(&g, KEPT);
        hf_part_unref(kept[k]);
        kept[k] = p;
        model[k] = m;
        check_diff(kept[other], &model[other], p, &m);
        check_diff(p, &m, kept[other], &model[other]);
        check_diff(NULL, &nothing, p, &m);
        check_diff(p, &m, NULL, &nothing);
        if (kept[other]) {
            check(kept[other], &model[other]); /* later versions left it alone */
        }
        p = hf_part_fork(p);
        assert_non_null(p);
    }
    hf_part_unref(p);
    for (size_t k = 0; k < KEPT; k++) {
        hf_part_unref(kept[k]);
    }
    hf_dir_store_destroy(s);
}

static struct hf_part *filled(struct model *m)
{
    struct hf_part *p = hf_part_create(0, 1, salt);
    assert_non_null(p);
    for (uint32_t i = 0; i < NAMES; i++) {
        m->value[i] = i + 1;
        assert_int_equal(hf_part_put_value(p, name_of(i), value_of(i + 1)), 0);
    }
    return p;
}

static void a_version_copies_one_chunk(void **state)
{
    (void)state;
    struct hf_dir_store *s = new_store();
    struct model m;
    struct hf_part *p = hf_part_seal(filled(&m), 1, s);
    struct hf_part *f = hf_part_fork(p);
    assert_non_null(f);
    assert_int_equal(hf_part_put_value(f, name_of(100), value_of(7)), 0);
    struct hf_entry *same = hf_part_find(p, name_of(200));
    assert_int_equal(hf_part_put_value(f, name_of(200), hf_entry_value(same)), 0);
    f = hf_part_seal(f, 2, s);
    assert_ptr_equal(hf_part_find(f, name_of(200)), same);
    assert_true(p->n_chunks >= 4 && f->n_chunks == p->n_chunks);
    uint32_t own = 0;
    for (uint32_t c = 0; c < p->n_chunks; c++) {
        own += p->chunk[c] != f->chunk[c];
    }
    assert_int_equal(own, 1);
    hf_part_unref(p);
    hf_part_unref(f);
    hf_dir_store_destroy(s);
}

static void equal_parts_are_one(void **state)
{
    (void)state;
    static const uint8_t other[HF_SALT_LEN] = "other";
    struct hf_dir_store *s = new_store();
    struct model m;
    struct hf_part *a = hf_part_seal(filled(&m), 5, s);
    struct hf_part *b = hf_part_seal(filled(&m), 5, s);
    assert_ptr_equal(a, b);
    struct hf_part *c = hf_dir_store_part(s, &a->key, salt);
    assert_ptr_equal(c, a);
    assert_null(hf_dir_store_part(s, &a->key, other));
    struct hf_part_key key = a->key;
    key.version = 6;
    assert_null(hf_dir_store_part(s, &key, salt));
    key = a->key;
    hf_part_unref(a);
    hf_part_unref(b);
    hf_part_unref(c);
    assert_null(hf_dir_store_part(s, &key, salt));
    hf_dir_store_destroy(s);
}

/* Two processes of one name and incarnation (a lost disk): the newer hides the older. */
static void same_key_other_salt(void **state)
{
    (void)state;
    static const uint8_t other[HF_SALT_LEN] = "other";
    struct hf_dir_store *s = new_store();
    struct hf_part *a = hf_part_create(0, 1, salt), *b = hf_part_create(0, 1, other);
    assert_true(a && b);
    a = hf_part_seal(a, 1, s);
    b = hf_part_seal(b, 1, s);
    assert_ptr_not_equal(a, b);
    hf_part_unref(a);
    struct hf_part *found = hf_dir_store_part(s, &b->key, other);
    assert_ptr_equal(found, b);
    hf_part_unref(found);
    hf_part_unref(b);
    hf_dir_store_destroy(s);
}

static void limits_refuse(void **state)
{
    (void)state;
    struct hf_part *p = hf_part_create(0, 1, salt);
    assert_non_null(p);
    for (uint32_t i = 0; i < HF_ENTRIES_PER_HOST_MAX; i++) {
        assert_int_equal(hf_part_put_value(p, name_of(i), hf_slice_str("{}")), 0);
    }
    assert_int_equal(hf_part_put_value(p, hf_slice_str("/over"), hf_slice_str("{}")), -HF_EFULL);
    assert_int_equal(hf_part_put_value(p, name_of(5), hf_slice_str("{ }")), 0);
    assert_int_equal(p->n_entries, HF_ENTRIES_PER_HOST_MAX);
    hf_part_unref(p);

    static char big[HF_VALUE_LEN_MAX];
    memset(big, ' ', sizeof(big));
    big[0] = '{';
    big[sizeof(big) - 1] = '}';
    p = hf_part_create(0, 1, salt);
    assert_non_null(p);
    uint32_t n = 0;
    int rc = 0;
    while (rc == 0 && n < 2000) {
        rc = hf_part_put_value(p, name_of(n++), hf_slice(big, sizeof(big)));
    }
    assert_int_equal(rc, -HF_EFULL);
    assert_true(p->bytes <= HF_PART_BYTES_MAX);
    big[1] = '\t'; /* replacing needs no more room */
    assert_int_equal(hf_part_put_value(p, name_of(0), hf_slice(big, sizeof(big))), 0);
    hf_part_unref(p);
}

/* Each operation with the nth allocation failing, until one does not: unchanged, then done. */
static void without_memory_nothing_changes(void **state)
{
    (void)state;
    struct hf_dir_store *s = new_store();
    struct model m = {{0}};
    struct hf_prng g;
    hf_prng_init(&g, 3);
    struct hf_part *p = hf_part_create(0, 1, salt);
    assert_non_null(p);
    for (uint64_t version = 1; version <= 600; version++) {
        uint32_t i = (uint32_t)hf_prng_below(&g, NAMES), v = (uint32_t)version;
        bool put = m.value[i] == 0 || hf_prng_below(&g, 4);
        int rc = -ENOMEM;
        for (int64_t n = 0; rc; n++) {
            hf_mem_fail_after(n);
            rc =
                put ? hf_part_put_value(p, name_of(i), value_of(v)) : hf_part_remove(p, name_of(i));
            hf_mem_fail_after(-1);
            assert_true(rc == 0 || rc == -ENOMEM);
            m.value[i] = rc ? m.value[i] : put ? v : 0;
            check(p, &m);
        }
        if (version % 3 == 0) {
            hf_mem_fail_after(0);
            p = hf_part_seal(p, version, s);
            assert_null(hf_part_fork(p));
            hf_mem_fail_after(1);
            assert_null(hf_part_fork(p));
            hf_mem_fail_after(-1);
            struct hf_part *f = hf_part_fork(p);
            assert_non_null(f);
            hf_part_unref(p);
            p = f;
        }
    }
    hf_part_unref(p);
    hf_dir_store_destroy(s);
}

static void owners_keep_their_ids(void **state)
{
    (void)state;
    struct hf_dir_store *s;
    assert_int_equal(hf_dir_store_create(2, 1, &s), 0);
    uint32_t a = hf_dir_store_owner(s, hf_slice_str("alpha"));
    uint32_t b = hf_dir_store_owner(s, hf_slice_str("beta"));
    assert_true(a != b && a < 2 && b < 2);
    assert_int_equal(hf_dir_store_owner(s, hf_slice_str("alpha")), a);
    assert_int_equal(hf_dir_store_find_owner(s, hf_slice_str("beta")), b);
    assert_int_equal(hf_dir_store_find_owner(s, hf_slice_str("gamma")), HF_OWNER_NONE);
    hf_assert_slice_str(hf_dir_store_name(s, a), "alpha");
    s->owner[a].users = s->owner[b].users = 1;
    assert_int_equal(hf_dir_store_owner(s, hf_slice_str("gamma")), HF_OWNER_NONE);
    s->owner[b].users = 0;
    assert_int_equal(hf_dir_store_owner(s, hf_slice_str("gamma")), b);
    assert_int_equal(hf_dir_store_find_owner(s, hf_slice_str("beta")), HF_OWNER_NONE);
    hf_dir_store_destroy(s);
}

/* A slot that could not be named must not take its name from another when it is used again. */
static void a_failed_owner_leaves_no_trace(void **state)
{
    (void)state;
    struct hf_dir_store *s;
    assert_int_equal(hf_dir_store_create(2, 1, &s), 0);
    hf_mem_fail_after(0);
    assert_int_equal(hf_dir_store_owner(s, hf_slice_str("alpha")), HF_OWNER_NONE);
    hf_mem_fail_after(-1);
    uint32_t a = hf_dir_store_owner(s, hf_slice_str("alpha"));
    assert_int_not_equal(a, HF_OWNER_NONE);
    s->owner[a].users = 1;
    uint32_t b = hf_dir_store_owner(s, hf_slice_str("beta"));
    assert_true(b != HF_OWNER_NONE && b != a);
    assert_int_equal(hf_dir_store_find_owner(s, hf_slice_str("alpha")), a);
    hf_dir_store_destroy(s);

    for (int64_t n = 0; n < 2; n++) {
        hf_mem_fail_after(n);
        assert_int_equal(hf_dir_store_create(2, 1, &s), -ENOMEM);
    }
    hf_mem_fail_after(-1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(like_a_sorted_array),   HF_TEST(a_version_copies_one_chunk),
        HF_TEST(equal_parts_are_one),   HF_TEST(same_key_other_salt),
        HF_TEST(limits_refuse),         HF_TEST(without_memory_nothing_changes),
        HF_TEST(owners_keep_their_ids), HF_TEST(a_failed_owner_leaves_no_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
