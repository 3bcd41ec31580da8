/* Definitions of groups: any text is one or a clear error; a resource's own text loads again. */
#include <assert.h>
#include <stdint.h>

#include "hostd/group_def.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_text(const struct hf_group_def_resource *r)
{
    struct hf_err err;
    struct hf_buf first, second;
    struct hf_group_def *again;
    hf_buf_init(&first, HF_CONF_FILE_MAX);
    hf_buf_init(&second, HF_CONF_FILE_MAX);
    hf_group_def_text(r, &first);
    if (!first.err) {
        int rc = hf_group_def_load("again", hf_buf_slice(&first), &err, &again);
        assert(rc == 0 && again->resource.n == 1);
        hf_group_def_text(hf_group_def_at(again, 0), &second);
        assert(hf_slice_eq(hf_buf_slice(&first), hf_buf_slice(&second)));
        hf_group_def_destroy(again);
    }
    hf_buf_fini(&first);
    hf_buf_fini(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hf_err err = {0};
    struct hf_group_def *def;
    if (hf_group_def_load("fuzz", hf_slice(data, n), &err, &def)) {
        assert(err.text[0]);
        return 0;
    }
    for (size_t i = 0; i < def->resource.n; i++) {
        struct hf_gresource g;
        const struct hf_group_def_resource *r = hf_group_def_at(def, i);
        check_text(r);
        if (hf_group_def_resolve("fuzz", r, NULL, &err, &g)) {
            assert(err.text[0]);
        }
    }
    hf_group_def_destroy(def);
    return 0;
}
