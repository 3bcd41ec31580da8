/* A DNS server for one zone of addresses and services: UDP, answers of at most 512 bytes (RFC
 * 1035).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"
#include "os/addr.h"
#include "os/loop.h"

#define HF_DNS_NAME_MAX 253 /* characters of a name without the dot at its end */
#define HF_DNS_RECORDS_MAX 32
#define HF_DNS_PACKET_MAX 512 /* RFC 1035 4.2.1 */

enum hf_dns_type {
    HF_DNS_A = 1,
    HF_DNS_AAAA = 28,
    HF_DNS_SRV = 33,
    HF_DNS_NAPTR = 35,
    HF_DNS_ANY = 255, /* only asked */
};

enum hf_dns_rcode {
    HF_DNS_NOERROR = 0,
    HF_DNS_NXDOMAIN = 3,
    HF_DNS_REFUSED = 5,
};

struct hf_dns_record {
    char name[HF_DNS_NAME_MAX + 1]; /* "": the name asked for */
    uint16_t type;                  /* enum hf_dns_type */
    bool additional;                /* in the additional section, not an answer */
    struct hf_endpoint at;          /* A, AAAA */
    uint16_t priority, weight, port;
    char target[HF_DNS_NAME_MAX + 1]; /* SRV */
    /* NAPTR (RFC 3403 4.1) of flag "s", so for an SRV record: order and preference are priority and
     * weight, target is the replacement; there is no regexp */
    char service[16];
};

struct hf_dns_reply {
    enum hf_dns_rcode rcode;
    uint32_t ttl_s; /* of all records */
    size_t left;    /* bytes that still fit */
    uint32_t n;
    struct hf_dns_record record[HF_DNS_RECORDS_MAX];
};

/** An empty reply to a question for `name`. */
void hf_dns_reply_init(struct hf_dns_reply *reply, const char *name);

/** Add a record (copied) unless the reply has it; false: it does not fit. */
bool hf_dns_reply_add(struct hf_dns_reply *reply, const struct hf_dns_record *record);

/** Called for every question for a name of class IN; fills reply. name is borrowed for the call. */
typedef void hf_dns_handler(void *arg, const char *name, uint16_t type, struct hf_dns_reply *reply);

/** The answer to one datagram, by fn, into buf; returns its length, 0: none is due. No I/O. */
size_t hf_dns_respond(struct hf_slice datagram, hf_dns_handler *fn, void *arg,
                      uint8_t buf[HF_DNS_PACKET_MAX]);

struct hf_dns_server;

/** Errors (-errno) have a text that names the address. */
HF_MUST int hf_dns_server_open(struct hf_loop *loop, const struct hf_addr *bind, hf_dns_handler *fn,
                               void *arg, struct hf_err *err, struct hf_dns_server **ret_server);
void hf_dns_server_close(struct hf_dns_server *s);

/** The port bound to (bind may have said 0). */
uint16_t hf_dns_server_port(const struct hf_dns_server *s);
