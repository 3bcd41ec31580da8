/* Socket addresses: parse, print, convert from and to endpoints. */
#include "os/addr.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

/* The same bytes seen as one family; memcpy keeps the aliasing rules. */
static struct sockaddr_in as_in(const struct hf_addr *a)
{
    struct sockaddr_in in;
    memcpy(&in, &a->ss, sizeof(in));
    return in;
}

static struct sockaddr_in6 as_in6(const struct hf_addr *a)
{
    struct sockaddr_in6 in6;
    memcpy(&in6, &a->ss, sizeof(in6));
    return in6;
}

/* Decimal, at most max, nothing else; false if not. */
static bool parse_u32(const char *s, uint32_t max, uint32_t *ret_n)
{
    uint64_t n = 0;
    if (!*s) {
        return false;
    }
    for (; *s; s++) {
        if (*s < '0' || *s > '9') {
            return false;
        }
        n = n * 10 + (uint64_t)(*s - '0');
        if (n > max) {
            return false;
        }
    }
    *ret_n = (uint32_t)n;
    return true;
}

/* Split "host", "host:port", "[host]:port", "[host]" in place. */
static bool split(char *text, char **ret_host, char **ret_port)
{
    char *port = NULL;
    if (*text == '[') {
        char *end = strchr(++text, ']');
        if (!end || (end[1] != '\0' && end[1] != ':')) {
            return false;
        }
        port = end[1] ? end + 2 : NULL;
        *end = '\0';
        if (!strchr(text, ':')) {
            return false; /* brackets are for IPv6 */
        }
    } else {
        char *colon = strchr(text, ':');
        if (colon && !strchr(colon + 1, ':')) { /* two colons: IPv6 without a port */
            *colon = '\0';
            port = colon + 1;
        }
    }
    *ret_host = text;
    *ret_port = port;
    return true;
}

int hf_addr_parse(const char *text, uint16_t port, struct hf_err *err, struct hf_addr *ret_addr)
{
    char copy[HF_ADDR_STR_LEN], *host, *port_text;
    uint32_t n = port, scope = 0;
    if (strlen(text) >= sizeof(copy) ||
        !split(memcpy(copy, text, strlen(text) + 1), &host, &port_text)) {
        return hf_err_set(err, -HF_ECONFIG,
                          "'%.80s' is not an address; expected 192.0.2.1, 192.0.2.1:80, "
                          "2001:db8::1 or [2001:db8::1]:80",
                          text);
    }
    if (port_text && !parse_u32(port_text, 65535, &n)) {
        return hf_err_set(err, -HF_ECONFIG, "'%s': the port is not a number from 0 to 65535", text);
    }
    char *zone = strchr(host, '%');
    if (zone) {
        *zone++ = '\0';
        scope = if_nametoindex(zone);
        if (scope == 0 && (!parse_u32(zone, UINT32_MAX, &scope) || scope == 0)) {
            return hf_err_set(err, -HF_ECONFIG, "'%s': no interface is called '%s'", text, zone);
        }
    }
    struct hf_addr a = {0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)n)};
    struct sockaddr_in6 in6 = {
        .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)n), .sin6_scope_id = scope};
    if (!zone && inet_pton(AF_INET, host, &in.sin_addr) == 1) {
        memcpy(&a.ss, &in, a.len = sizeof(in));
    } else if (inet_pton(AF_INET6, host, &in6.sin6_addr) == 1) {
        memcpy(&a.ss, &in6, a.len = sizeof(in6));
    } else {
        return hf_err_set(err, -HF_ECONFIG,
                          "'%s' is not an IPv4 or IPv6 address (names are not looked up)", text);
    }
    *ret_addr = a;
    return 0;
}

const char *hf_addr_str(const struct hf_addr *a, char buf[HF_ADDR_STR_LEN])
{
    char host[INET6_ADDRSTRLEN] = "";
    if (a->len && a->ss.ss_family == AF_INET) {
        struct sockaddr_in in = as_in(a);
        inet_ntop(AF_INET, &in.sin_addr, host, sizeof(host));
        snprintf(buf, HF_ADDR_STR_LEN, "%s:%u", host, ntohs(in.sin_port));
    } else if (a->len && a->ss.ss_family == AF_INET6) {
        struct sockaddr_in6 in6 = as_in6(a);
        char zone[IF_NAMESIZE + 1] = "";
        if (in6.sin6_scope_id) {
            zone[0] = '%';
            if (!if_indextoname(in6.sin6_scope_id, zone + 1)) {
                snprintf(zone, sizeof(zone), "%%%u", in6.sin6_scope_id);
            }
        }
        inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof(host));
        snprintf(buf, HF_ADDR_STR_LEN, "[%s%s]:%u", host, zone, ntohs(in6.sin6_port));
    } else {
        snprintf(buf, HF_ADDR_STR_LEN, "(none)");
    }
    return buf;
}

struct hf_endpoint hf_addr_to_endpoint(const struct hf_addr *a)
{
    struct hf_endpoint e = {0};
    if (a->len && a->ss.ss_family == AF_INET) {
        struct sockaddr_in in = as_in(a);
        e.family = HF_AF_INET;
        e.port = ntohs(in.sin_port);
        memcpy(e.addr, &in.sin_addr, sizeof(in.sin_addr));
    } else if (a->len && a->ss.ss_family == AF_INET6) {
        struct sockaddr_in6 in6 = as_in6(a);
        e.family = HF_AF_INET6;
        e.port = ntohs(in6.sin6_port);
        e.scope = in6.sin6_scope_id;
        memcpy(e.addr, &in6.sin6_addr, sizeof(in6.sin6_addr));
    }
    return e;
}

struct hf_addr hf_addr_from_endpoint(const struct hf_endpoint *e)
{
    struct hf_addr a = {0};
    if (e->family == HF_AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(e->port)};
        memcpy(&in.sin_addr, e->addr, sizeof(in.sin_addr));
        memcpy(&a.ss, &in, a.len = sizeof(in));
    } else if (e->family == HF_AF_INET6) {
        struct sockaddr_in6 in6 = {
            .sin6_family = AF_INET6, .sin6_port = htons(e->port), .sin6_scope_id = e->scope};
        memcpy(&in6.sin6_addr, e->addr, sizeof(in6.sin6_addr));
        memcpy(&a.ss, &in6, a.len = sizeof(in6));
    }
    return a;
}

uint16_t hf_addr_port_of(int fd)
{
    struct hf_addr a = {.len = sizeof(a.ss)};
    if (getsockname(fd, (struct sockaddr *)&a.ss, &a.len) < 0) {
        return 0;
    }
    return hf_addr_to_endpoint(&a).port;
}
