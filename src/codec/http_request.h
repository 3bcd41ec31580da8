/* The request line of HTTP/1.x, for servers that answer GET and HEAD only. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/attr.h"

/* What a request line says. Its strings lie in the line that was parsed. */
struct hf_http_request {
    bool head;                     /* HEAD; otherwise GET */
    bool chunked;                  /* HTTP/1.1: it understands chunks */
    const char *path;              /* begins with "/"; percent-decoded, no control characters */
    const char *query, *query_end; /* NAME NUL VALUE NUL ..., decoded */
};

/**
 * Parse the line of n bytes, without its CRLF and with a NUL behind it, in place (RFC 9112 3,
 * RFC 3986 2.1, 3.3; in the query "+" is a space, as browsers send forms, and each parameter has
 * its "="). Header fields say nothing that such a server needs. 0; -HF_EPROTO: not an HTTP/1.0 or
 * 1.1 request; -ENOTSUP: another method; -HF_EVALUE: the target is not valid. The line is spoilt in
 * any case; what was understood is told: head and chunked, so that an error can be answered, too.
 */
HF_MUST int hf_http_request_parse(char *line, size_t n, struct hf_http_request *ret_request);

/** The value of a parameter of the query, the first one of that name; NULL: there is none. */
const char *hf_http_request_query(const struct hf_http_request *r, const char *name);
