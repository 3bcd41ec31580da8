/* Socket addresses: parse, print, convert from and to endpoints. */
#pragma once

#include <sys/socket.h>

#include "base/attr.h"
#include "base/endpoint.h"
#include "base/err.h"

/** Enough for "[address%interface]:port" and its NUL. */
#define HF_ADDR_STR_LEN 80

struct hf_addr {
    struct sockaddr_storage ss;
    socklen_t len; /* 0: no address */
};

/**
 * Parse "1.2.3.4", "1.2.3.4:80", "::1", "[fe80::1%eth0]:80"; no names are looked up. `port` is
 * taken when the text has none. Returns 0 or -HF_ECONFIG with the reason in err (may be NULL).
 */
HF_MUST int hf_addr_parse(const char *text, uint16_t port, struct hf_err *err,
                          struct hf_addr *ret_addr);

/** Print with the port into buf; returns buf. */
const char *hf_addr_str(const struct hf_addr *a, char buf[HF_ADDR_STR_LEN]);

struct hf_endpoint hf_addr_to_endpoint(const struct hf_addr *a);
/** The address of an endpoint; len 0 for HF_AF_NONE. */
struct hf_addr hf_addr_from_endpoint(const struct hf_endpoint *e);

/** The port that a socket is bound to; 0: none (a Unix socket), or getsockname() fails, see errno.
 */
uint16_t hf_addr_port_of(int fd);
