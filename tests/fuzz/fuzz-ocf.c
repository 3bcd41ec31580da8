/* The meta-data of an OCF agent: any document is refused with a text, or is what can be looked up.
 */
#include <assert.h>
#include <stdint.h>

#include "base/limits.h"
#include "os/ocf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hf_err err = {0};
    struct hf_ocf_meta *m;
    if (hf_ocf_meta_parse(hf_slice(data, n), &err, &m)) {
        assert(err.text[0]);
        return 0;
    }
    assert(m->name && m->version);
    assert(m->n_actions <= HF_OCF_META_ITEMS_MAX && m->n_params <= HF_OCF_META_ITEMS_MAX);
    for (size_t i = 0; i < m->n_actions; i++) {
        const struct hf_ocf_action *a = &m->actions[i];
        assert(a->name[0] && a->role && a->timeout >= 0 && a->interval >= 0);
        assert(hf_ocf_meta_action(m, a->name, NULL));
        assert(hf_ocf_meta_action(m, a->name, a->role));
    }
    for (size_t i = 0; i < m->n_params; i++) {
        assert(m->params[i].name[0] && hf_ocf_meta_param(m, m->params[i].name));
    }
    assert(!(m->flags & HF_OCF_PROMOTABLE) || hf_ocf_meta_action(m, "promote", NULL));
    hf_ocf_meta_destroy(m);
    return 0;
}
