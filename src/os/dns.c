/* DNS over UDP, on libevent's evdns: parsing and writing of packets is its work. */
#include "os/dns.h"

#include <errno.h>
#include <event2/dns.h>
#include <event2/dns_struct.h>
#include <netinet/in.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/wr.h"

#define PACKET_MAX 512 /* RFC 1035 4.2.1; evdns sets TC beyond */
#define HEADER_LEN 12
#define RECORD_LEN 10 /* type, class, TTL and length (RFC 1035 4.1.3) */
#define SRV_LEN 6     /* priority, weight and port (RFC 2782) */

struct hf_dns_server {
    struct evdns_server_port *port; /* owned, with its socket */
    hf_dns_handler *fn;
    void *arg;
    uint16_t port_no;
};

/* ---- replies ---- */

/* A name as labels, uncompressed: each dot and the end become a length. */
static size_t wire_len(const char *name)
{
    return strlen(name) + 2;
}

void hf_dns_reply_init(struct hf_dns_reply *reply, const char *name)
{
    size_t used = HEADER_LEN + wire_len(name) + 4;
    memset(reply, 0, sizeof(*reply));
    reply->left = used < PACKET_MAX ? PACKET_MAX - used : 0;
}

static bool same(const struct hf_dns_record *a, const struct hf_dns_record *b)
{
    return a->type == b->type && a->additional == b->additional && hf_endpoint_eq(&a->at, &b->at) &&
           a->priority == b->priority && a->weight == b->weight && a->port == b->port &&
           strcmp(a->name, b->name) == 0 && strcmp(a->target, b->target) == 0;
}

bool hf_dns_reply_add(struct hf_dns_reply *reply, const struct hf_dns_record *record)
{
    for (uint32_t i = 0; i < reply->n; i++) {
        if (same(&reply->record[i], record)) {
            return true;
        }
    }
    /* evdns points to a name that is there already; counting other names whole is never too little
     */
    size_t n = RECORD_LEN + (*record->name ? wire_len(record->name) : 2);
    n += record->type == HF_DNS_SRV ? SRV_LEN + wire_len(record->target)
         : record->type == HF_DNS_A ? 4
                                    : 16;
    if (n > reply->left || reply->n >= HF_DNS_RECORDS_MAX) {
        return false;
    }
    reply->left -= n;
    reply->record[reply->n++] = *record;
    return true;
}

/* The data of an SRV record; its target is not compressed (RFC 2782). */
static int encode_srv(const struct hf_dns_record *r, struct hf_wr *w, struct hf_slice *ret_data)
{
    hf_wr_u16(w, r->priority);
    hf_wr_u16(w, r->weight);
    hf_wr_u16(w, r->port);
    const char *p = r->target;
    while (*p) {
        size_t n = strcspn(p, ".");
        if (n == 0 || n > 63) {
            return -HF_ENAME;
        }
        hf_wr_str8(w, hf_slice(p, n));
        p += n + (p[n] == '.');
    }
    hf_wr_u8(w, 0);
    return hf_wr_end(w, ret_data);
}

static void put_record(struct evdns_server_request *req, const char *asked, uint32_t ttl_s,
                       const struct hf_dns_record *r)
{
    uint8_t buf[SRV_LEN + HF_DNS_NAME_MAX + 2];
    struct hf_slice data = hf_slice(r->at.addr, r->type == HF_DNS_A ? 4 : 16);
    struct hf_wr w;
    hf_wr_init(&w, buf, sizeof(buf));
    if (r->type == HF_DNS_SRV && encode_srv(r, &w, &data)) {
        return;
    }
    /* without memory the record is just not there */
    (void)evdns_server_request_add_reply(
        req, r->additional ? EVDNS_ADDITIONAL_SECTION : EVDNS_ANSWER_SECTION,
        *r->name ? r->name : asked, r->type, EVDNS_CLASS_INET, (int)ttl_s, (int)data.n, 0,
        (const char *)data.p);
}

/* ---- questions ---- */

static void on_request(struct evdns_server_request *req, void *arg)
{
    struct hf_dns_server *s = arg;
    if (req->nquestions != 1) {
        (void)evdns_server_request_respond(req, DNS_ERR_FORMAT);
        return;
    }
    const struct evdns_server_question *q = req->questions[0];
    struct hf_dns_reply reply;
    hf_dns_reply_init(&reply, q->name);
    if (q->dns_question_class == EVDNS_CLASS_INET || q->dns_question_class == 255) {
        s->fn(s->arg, q->name, (uint16_t)q->type, &reply);
    } else {
        reply.rcode = HF_DNS_REFUSED;
    }
    for (uint32_t i = 0; i < reply.n; i++) {
        put_record(req, q->name, reply.ttl_s, &reply.record[i]);
    }
    if (reply.rcode != HF_DNS_REFUSED) {
        evdns_server_request_set_flags(req, EVDNS_FLAGS_AA);
    }
    if (evdns_server_request_respond(req, (int)reply.rcode) < 0) {
        (void)evdns_server_request_drop(req);
    }
}

int hf_dns_server_open(struct hf_loop *loop, const struct hf_addr *bind_to, hf_dns_handler *fn,
                       void *arg, struct hf_err *err, struct hf_dns_server **ret_server)
{
    struct hf_dns_server *s = hf_alloc(sizeof(*s));
    int fd = socket(bind_to->ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct hf_addr me = {.len = sizeof(me.ss)};
    int one = 1, rc = !s ? -ENOMEM : fd < 0 ? -errno : 0;
    if (rc == 0 && bind_to->ss.ss_family == AF_INET6) {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    }
    if (rc == 0 && (bind(fd, (const struct sockaddr *)&bind_to->ss, bind_to->len) < 0 ||
                    getsockname(fd, (struct sockaddr *)&me.ss, &me.len) < 0)) {
        rc = -errno;
    }
    if (rc == 0) {
        *s = (struct hf_dns_server){.fn = fn, .arg = arg};
        s->port_no = hf_addr_to_endpoint(&me).port;
        s->port = evdns_add_server_port_with_base(hf_loop_base(loop), fd, 0, on_request, s);
        rc = s->port ? 0 : -ENOMEM;
    }
    if (rc) {
        char text[HF_ADDR_STR_LEN];
        if (fd >= 0) {
            close(fd);
        }
        hf_free(s);
        return hf_err_set(err, rc, "cannot answer DNS on %s: %s%s", hf_addr_str(bind_to, text),
                          hf_strerror(rc),
                          rc == -EADDRINUSE ? "; another program has this port"
                          : rc == -EACCES   ? "; ports below 1024 need CAP_NET_BIND_SERVICE"
                                            : "");
    }
    *ret_server = s;
    return 0;
}

void hf_dns_server_close(struct hf_dns_server *s)
{
    if (s) {
        evdns_close_server_port(s->port);
        hf_free(s);
    }
}

uint16_t hf_dns_server_port(const struct hf_dns_server *s)
{
    return s->port_no;
}
