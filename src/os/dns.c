/*
 * DNS over UDP. (Not libevent's evdns server: 2.1.12 reads through a null pointer when a datagram
 * is shorter than a DNS header.)
 */
#include "os/dns.h"

#include <errno.h>

#include "base/mem.h"
#include "base/rd.h"
#include "base/wr.h"
#include "os/udp.h"

#define HEADER_LEN 12
#define RECORD_LEN 10 /* type, class, TTL and length (RFC 1035 4.1.3) */
#define SRV_LEN 6     /* priority, weight and port (RFC 2782) */
#define NAPTR_LEN 8   /* order, preference, flags "s", lengths of the others (RFC 3403) */
#define QUESTION_POINTER 0xc00cu /* the name asked for, right behind the header (4.1.4) */
#define CLASS_IN 1
#define CLASS_ANY 255
/* the header's second word (4.1.1) */
#define FLAG_RESPONSE 0x8000u
#define FLAG_AUTHORITATIVE 0x0400u
#define FLAG_RECURSION_DESIRED 0x0100u
#define OPCODE_MASK 0x7800u

enum { FORMERR = 1, NOTIMP = 4 };

struct hf_dns_server {
    struct hf_udp *udp; /* owned */
    hf_dns_handler *fn;
    void *arg;
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
    reply->left = used < HF_DNS_PACKET_MAX ? HF_DNS_PACKET_MAX - used : 0;
}

static bool same(const struct hf_dns_record *a, const struct hf_dns_record *b)
{
    return a->type == b->type && a->additional == b->additional && hf_endpoint_eq(&a->at, &b->at) &&
           a->priority == b->priority && a->weight == b->weight && a->port == b->port &&
           strcmp(a->name, b->name) == 0 && strcmp(a->target, b->target) == 0 &&
           strcmp(a->service, b->service) == 0;
}

bool hf_dns_reply_add(struct hf_dns_reply *reply, const struct hf_dns_record *record)
{
    for (uint32_t i = 0; i < reply->n; i++) {
        if (same(&reply->record[i], record)) {
            return true;
        }
    }
    /* the name asked for is a pointer to the question, others are written whole */
    size_t n = RECORD_LEN + (*record->name ? wire_len(record->name) : 2);
    n += record->type == HF_DNS_SRV ? SRV_LEN + wire_len(record->target)
         : record->type == HF_DNS_NAPTR
             ? NAPTR_LEN + strlen(record->service) + wire_len(record->target)
         : record->type == HF_DNS_A ? 4
                                    : 16;
    if (n > reply->left || reply->n >= HF_DNS_RECORDS_MAX) {
        return false;
    }
    reply->left -= n;
    reply->record[reply->n++] = *record;
    return true;
}

/* A name that is not from the wire as labels; a bad one is an error of w. */
static void put_name(struct hf_wr *w, const char *p)
{
    while (*p) {
        size_t n = strcspn(p, ".");
        if (n == 0 || n > 63) {
            w->err = w->err ? w->err : -HF_ENAME;
            return;
        }
        hf_wr_str8(w, hf_slice(p, n));
        p += n + (p[n] == '.');
    }
    hf_wr_u8(w, 0);
}

static void put_record(struct hf_wr *w, uint32_t ttl_s, const struct hf_dns_record *r)
{
    if (*r->name) {
        put_name(w, r->name);
    } else {
        hf_wr_u16(w, QUESTION_POINTER);
    }
    hf_wr_u16(w, r->type);
    hf_wr_u16(w, CLASS_IN);
    hf_wr_u32(w, ttl_s);
    size_t mark = hf_wr_len(w);
    hf_wr_u16(w, 0);
    if (r->type == HF_DNS_SRV) {
        hf_wr_u16(w, r->priority);
        hf_wr_u16(w, r->weight);
        hf_wr_u16(w, r->port);
        put_name(w, r->target); /* whole: RFC 2782 wants no pointer here */
    } else if (r->type == HF_DNS_NAPTR) {
        hf_wr_u16(w, r->priority);
        hf_wr_u16(w, r->weight);
        hf_wr_str8(w, hf_slice_str("s"));
        hf_wr_str8(w, hf_slice_str(r->service));
        hf_wr_u8(w, 0);
        put_name(w, r->target); /* whole: RFC 3403 */
    } else {
        hf_wr_bytes(w, hf_slice(r->at.addr, r->type == HF_DNS_A ? 4 : 16));
    }
    if (!w->err) {
        hf_wr_patch_u16(w, mark, (uint16_t)(hf_wr_len(w) - mark - 2));
    }
}

/* The records of one section that can be written; returns how many. */
static uint16_t put_section(struct hf_wr *w, const struct hf_dns_reply *reply, bool additional)
{
    uint16_t n = 0;
    for (uint32_t i = 0; i < reply->n; i++) {
        size_t mark = hf_wr_len(w);
        if (reply->record[i].additional == additional) {
            put_record(w, reply->ttl_s, &reply->record[i]);
            n = (uint16_t)(n + (w->err == 0));
        }
        if (w->err) {
            hf_wr_back(w, mark);
        }
    }
    return n;
}

/* ---- questions ---- */

struct query {
    uint16_t id, flags, type, class;
    struct hf_slice question;       /* as it came; empty if it could not be read */
    char name[HF_DNS_NAME_MAX + 2]; /* room for a last dot */
};

/* Write the answer; returns its length, 0 if it does not fit. */
static size_t answer(uint8_t buf[HF_DNS_PACKET_MAX], const struct query *q, unsigned rcode,
                     unsigned flags, const struct hf_dns_reply *reply)
{
    struct hf_wr w;
    struct hf_slice packet;
    hf_wr_init(&w, buf, HF_DNS_PACKET_MAX);
    hf_wr_u16(&w, q->id);
    hf_wr_u16(&w, (uint16_t)(FLAG_RESPONSE | flags | rcode |
                             (q->flags & (OPCODE_MASK | FLAG_RECURSION_DESIRED))));
    hf_wr_u16(&w, q->question.n > 0);
    size_t counts = hf_wr_len(&w);
    hf_wr_u16(&w, 0);
    hf_wr_u32(&w, 0); /* no authority, no additional records so far */
    hf_wr_bytes(&w, q->question);
    if (reply) {
        hf_wr_patch_u16(&w, counts, put_section(&w, reply, false));
        hf_wr_patch_u16(&w, counts + 4, put_section(&w, reply, true));
    }
    return hf_wr_end(&w, &packet) ? 0 : packet.n;
}

/* Read a name into text; bytes that no name of ours has become '?'. */
static void read_name(struct hf_rd *r, char *text, size_t room)
{
    size_t n = 0;
    uint8_t len;
    while ((len = hf_rd_u8(r)) > 0) {
        if (len > 63 || n + len + 1 >= room) { /* a pointer, or too long */
            hf_rd_fail(r, -HF_EMALF);
            return;
        }
        struct hf_slice label = hf_rd_bytes(r, len);
        for (size_t i = 0; i < label.n; i++) {
            uint8_t c = label.p[i];
            text[n++] = c > ' ' && c < 0x7f && c != '.' ? (char)c : '?';
        }
        text[n++] = '.';
    }
    text[n > 0 ? n - 1 : 0] = '\0';
}

/* The question behind the header; false: malformed. */
static bool read_question(struct hf_rd *r, struct hf_slice datagram, struct query *q)
{
    read_name(r, q->name, sizeof(q->name));
    q->type = hf_rd_u16(r);
    q->class = hf_rd_u16(r);
    if (r->err) {
        return false;
    }
    q->question = hf_slice(datagram.p + HEADER_LEN, datagram.n - HEADER_LEN - hf_rd_left(r));
    return true;
}

size_t hf_dns_respond(struct hf_slice datagram, hf_dns_handler *fn, void *arg,
                      uint8_t buf[HF_DNS_PACKET_MAX])
{
    struct query q = {0};
    struct hf_rd r;
    hf_rd_init(&r, datagram);
    q.id = hf_rd_u16(&r);
    q.flags = hf_rd_u16(&r);
    uint16_t n_questions = hf_rd_u16(&r);
    (void)hf_rd_bytes(&r,
                      6); /* answers do not belong here, additional ones (EDNS) may be ignored */
    if (r.err || q.flags & FLAG_RESPONSE) {
        return 0; /* answering an answer could go on for ever */
    }
    if (q.flags & OPCODE_MASK) {
        return answer(buf, &q, NOTIMP, 0, NULL);
    }
    if (n_questions != 1 || !read_question(&r, datagram, &q)) {
        return answer(buf, &q, FORMERR, 0, NULL);
    }
    struct hf_dns_reply reply;
    hf_dns_reply_init(&reply, q.name);
    if (q.class == CLASS_IN || q.class == CLASS_ANY) {
        fn(arg, q.name, q.type, &reply);
    } else {
        reply.rcode = HF_DNS_REFUSED;
    }
    return answer(buf, &q, reply.rcode, reply.rcode == HF_DNS_REFUSED ? 0 : FLAG_AUTHORITATIVE,
                  &reply);
}

static void on_datagram(void *arg, const struct hf_addr *from, struct hf_slice data)
{
    struct hf_dns_server *s = arg;
    uint8_t buf[HF_DNS_PACKET_MAX];
    size_t n = hf_dns_respond(data, s->fn, s->arg, buf);
    if (n > 0) {
        (void)!hf_udp_send(s->udp, from,
                           hf_slice(buf, n)); /* lost like any other datagram may be */
    }
}

int hf_dns_server_open(struct hf_loop *loop, const struct hf_addr *bind, hf_dns_handler *fn,
                       void *arg, struct hf_err *err, struct hf_dns_server **ret_server)
{
    struct hf_dns_server *s = hf_alloc(sizeof(*s));
    if (!s) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    *s = (struct hf_dns_server){.fn = fn, .arg = arg};
    struct hf_udp_opt opt = {.bind = *bind};
    int rc = hf_udp_open(loop, &opt, on_datagram, s, err, &s->udp);
    if (rc) {
        hf_free(s);
        return rc;
    }
    *ret_server = s;
    return 0;
}

void hf_dns_server_close(struct hf_dns_server *s)
{
    if (s) {
        hf_udp_close(s->udp);
        hf_free(s);
    }
}

uint16_t hf_dns_server_port(const struct hf_dns_server *s)
{
    return hf_udp_port(s->udp);
}
