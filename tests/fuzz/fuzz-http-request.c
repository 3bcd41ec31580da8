/* Any line parses as an HTTP request, within its bounds, or is refused; what it says can be said
 * again. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/http_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *line = malloc(size + 1); /* exact size: the sanitizer sees any step beyond */
    struct hf_http_request r;
    if (size) {
        memcpy(line, data, size);
    }
    line[size] = '\0';
    if (hf_http_request_parse(line, size, &r) == 0) {
        assert(r.path[0] == '/');
        for (const char *p = r.path; *p; p++) {
            assert((unsigned char)*p >= 0x20 && *p != 0x7f);
        }
        assert(!r.query || (r.query > r.path && r.query_end <= line + size));
        for (const char *p = r.query; p < r.query_end;) {
            const char *value = hf_http_request_query(&r, p);
            assert(value && value + strlen(value) < r.query_end);
            p += strlen(p) + 1;
            p += strlen(p) + 1;
        }
    }
    free(line);
    return 0;
}
