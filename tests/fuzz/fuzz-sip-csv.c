/* Fuzz target: a file of assignments; what is read is written, and read again the same. */
#include <assert.h>
#include <string.h>

#include "core/sip/assign_csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void again(const struct hf_sip_csv_row *row)
{
    struct hf_buf b;
    struct hf_sip_csv c = {0};
    struct hf_sip_csv_row back;
    hf_buf_init(&b, 4096);
    hf_sip_csv_write(&b, row);
    assert(b.err == 0 && b.n > 0 && b.p[b.n - 1] == '\n');
    assert(hf_sip_csv_read(&c, hf_slice_str("aor,home,current,epoch,pinned"), &back, NULL) == 0);
    assert(hf_sip_csv_read(&c, hf_slice(b.p, b.n - 1), &back, NULL) == 1);
    assert(strcmp(back.aor, row->aor) == 0 && strcmp(back.home, row->home) == 0);
    assert(strcmp(back.current, row->current) == 0);
    assert(back.epoch == row->epoch && back.pinned == row->pinned);
    hf_buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hf_sip_csv c = {0};
    while (n > 0) {
        struct hf_sip_csv_row row;
        struct hf_err err = {0};
        const uint8_t *end = memchr(data, '\n', n);
        size_t line = end != NULL ? (size_t)(end - data) : n;
        int r = hf_sip_csv_read(&c, hf_slice(data, line), &row, &err);
        assert(r <= 1 && (r >= 0 || (err.code == r && strncmp(err.text, "line ", 5) == 0)));
        if (r == 1) {
            again(&row);
        }
        line += end != NULL;
        data += line;
        n -= line;
    }
    return 0;
}
