/* SQL texts: the normal form, as SQL again, says the same to the parser as the text itself; and
 * what is classified twice is of one class. */
#include <assert.h>
#include <stdlib.h>

#include "core/pg/classify.h"
#include "core/pg/fingerprint.h"
#include "core/pg/statement.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static uint8_t normal[HF_PG_NORMAL_MAX];
static char expanded[HF_PG_NORMAL_MAX * HF_PG_EXPAND_MAX + 1];

/* What the parser says of a text as it is and of its normal form, if it takes both. */
static void compare(const char *sql, size_t n)
{
    struct hf_pg_statement *a = NULL, *b = NULL;
    size_t n_normal;
    if (hf_pg_normalize(hf_slice(sql, n), normal, &n_normal) != HF_PG_NORMAL_OK) {
        return;
    }
    hf_pg_normal_expand(hf_slice(normal, n_normal), expanded);
    if (hf_pg_statement_parse(sql, true, &a) == 0 &&
        hf_pg_statement_parse(expanded, true, &b) == 0) {
        assert(a->literals_matter == b->literals_matter);
        assert(a->n_statements == b->n_statements && a->wrappable == b->wrappable);
        if (!a->literals_matter) {
            assert(a->does == b->does && a->n_settings == b->n_settings);
            assert(hf_slice_eq(a->names, b->names) && hf_slice_eq(a->name, b->name));
        }
    }
    hf_pg_statement_unref(a);
    hf_pg_statement_unref(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hf_pg_classifier *c;
    char *sql = calloc(1, n + 1);
    if (!sql || hf_pg_classifier_create(4, 1, &c) != 0) {
        abort();
    }
    if (n) {
        memcpy(sql, data, n);
    }
    struct hf_slice text = hf_slice(data, n);
    const struct hf_pg_class *first = hf_pg_classify(c, text), *again = hf_pg_classify(c, text);
    assert(first->does == again->does && first->wrappable == again->wrappable);
    assert(!first->wrappable || !(first->does & HF_PG_DOES_UNKNOWN));
    assert(!hf_pg_class_repeatable(c, first));
    hf_pg_class_unref(first);
    hf_pg_class_unref(again);
    hf_pg_classifier_destroy(c);
    if (strlen(sql) == n) {
        compare(sql, n);
    }
    free(sql);
    return 0;
}
