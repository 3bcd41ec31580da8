/* holdfastd's configuration: any text is a configuration or a clear error; a listing loads again.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>

#include "hostd/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hf_err err = {0};
    void *snapshot;
    if (hf_conf_load_mem(&hf_hostd_config_schema, "fuzz", hf_slice(data, n), &err, &snapshot)) {
        assert(err.text[0]);
        return 0;
    }
    struct hf_buf text;
    hf_buf_init(&text, 4 * HF_CONF_FILE_MAX);
    hf_hostd_config_print(snapshot, &text);
    hf_conf_destroy(&hf_hostd_config_schema, snapshot);
    if (text.n <= HF_CONF_FILE_MAX) {
        int rc = hf_conf_load_mem(&hf_hostd_config_schema, "listing", hf_buf_slice(&text), &err,
                                  &snapshot);
        if (rc) {
            fprintf(stderr, "%s\n%.*s", err.text, HF_SLICE_FMT(hf_buf_slice(&text)));
        }
        assert(rc == 0);
        hf_conf_destroy(&hf_hostd_config_schema, snapshot);
    }
    hf_buf_fini(&text);
    return 0;
}
