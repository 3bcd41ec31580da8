/* DNS for the tree: A, AAAA, SRV and NAPTR under a configured domain (D1). */
#include "hostd/dns.h"

#include <errno.h>
#include <strings.h>

#include "base/mem.h"
#include "base/name.h"
#include "hostd/dns_sip.h"
#include "hostd/service.h"

#define LABELS_MAX (HF_SERVICE_DEPTH_MAX + 2)

struct hf_dns {
    struct hf_hostd *h; /* borrowed */
    struct hf_dns_server *server;
    struct hf_prng prng;
};

/* ---- names ---- */

/* Split a name without its domain; 0: too many labels, or an empty one. */
static size_t split(const char *name, size_t n, struct hf_slice label[LABELS_MAX])
{
    size_t n_labels = 0, from = 0;
    for (size_t i = 0; i <= n; i++) {
        if (i < n && name[i] != '.') {
            continue;
        }
        if (i == from || n_labels == LABELS_MAX) {
            return 0;
        }
        label[n_labels++] = hf_slice(name + from, i - from);
        from = i + 1;
    }
    return n_labels;
}

/* The path of labels, the last first; false: no service can have it. */
static bool to_path(const struct hf_slice *label, size_t n_labels,
                    char ret_path[HF_SERVICE_NAME_MAX + 1])
{
    size_t n = 0;
    while (n_labels-- > 0) {
        if (n + 1 + label[n_labels].n > HF_SERVICE_NAME_MAX) {
            return false;
        }
        ret_path[n++] = '/';
        memcpy(ret_path + n, label[n_labels].p, label[n_labels].n);
        n += label[n_labels].n;
    }
    ret_path[n] = '\0';
    return hf_service_name_ok(hf_slice(ret_path, n));
}

static bool to_owner(struct hf_slice label, char ret_owner[HF_HOST_NAME_MAX + 1])
{
    if (!hf_host_name_ok(label)) {
        return false;
    }
    memcpy(ret_owner, label.p, label.n);
    ret_owner[label.n] = '\0';
    return true;
}

static bool is(struct hf_slice label, const char *text)
{
    return hf_slice_eq(label, hf_slice_str(text));
}

/* What the labels before the domain mean; p->name is the whole name. */
static enum hf_dns_name_kind kind_of(struct hf_slice *label, size_t n, bool drop,
                                     struct hf_dns_name *p)
{
    if (is(label[n - 1], "host") && n <= 2) {
        return n == 1                         ? HF_DNS_NAME_INNER
               : to_owner(label[0], p->owner) ? HF_DNS_NAME_HOST
                                              : HF_DNS_NAME_BAD;
    }
    enum hf_dns_name_kind kind = HF_DNS_NAME_SERVICE;
    size_t skip = 0;
    if (n > 2 && is(label[1], "_at")) {
        kind = to_owner(label[0], p->owner) ? HF_DNS_NAME_AT : HF_DNS_NAME_BAD;
        skip = 2;
    } else if (n > 2 && label[0].p[0] == '_' && label[1].p[0] == '_' && label[1].n <= 63) {
        memcpy(p->proto, label[1].p + 1, label[1].n - 1);
        skip = drop ? 2 : 0;
    }
    if (!to_path(label + skip, n - skip, p->path)) {
        return HF_DNS_NAME_BAD;
    }
    size_t at = (size_t)((const char *)label[skip].p - p->name);
    memmove(p->name, p->name + at, strlen(p->name + at) + 1);
    return kind;
}

void hf_dns_name_parse(const char *name, const char *domain, bool drop,
                       struct hf_dns_name *ret_name)
{
    struct hf_dns_name *p = ret_name;
    size_t n = strlen(name), n_domain = strlen(domain);
    *p = (struct hf_dns_name){.kind = HF_DNS_NAME_FOREIGN};
    if (n > HF_DNS_NAME_MAX || n < n_domain || strcasecmp(name + n - n_domain, domain) != 0) {
        return;
    }
    for (size_t i = 0; i <= n; i++) {
        p->name[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] - 'A' + 'a' : name[i]);
    }
    if (n == n_domain) {
        p->kind = HF_DNS_NAME_INNER;
        return;
    }
    size_t n_own = n - n_domain;
    if (name[--n_own] != '.') {
        return;
    }
    struct hf_slice label[LABELS_MAX];
    size_t n_labels = split(p->name, n_own, label);
    p->kind = n_labels ? kind_of(label, n_labels, drop, p) : HF_DNS_NAME_BAD;
}

/* ---- answers ---- */

struct question {
    const struct hf_hostd *h;
    const struct hf_dns_name *name;
    uint16_t type;
    struct hf_prng *prng;
    struct hf_dns_reply *reply;
};

/* A service of one owner that answers a question. */
struct candidate {
    uint32_t owner;
    enum hf_service_at where;
    struct hf_endpoint at;
    uint16_t port, priority, weight;
    char target[HF_DNS_NAME_MAX + 1]; /* where NAME */
};

static bool wants(uint16_t type, const struct hf_endpoint *at)
{
    return (at->family == HF_AF_INET && (type == HF_DNS_A || type == HF_DNS_ANY)) ||
           (at->family == HF_AF_INET6 && (type == HF_DNS_AAAA || type == HF_DNS_ANY));
}

/* "": the name asked for. */
static bool add_address(struct hf_dns_reply *reply, const char *name, const struct hf_endpoint *at,
                        bool additional)
{
    struct hf_dns_record r = {.type = at->family == HF_AF_INET ? HF_DNS_A : HF_DNS_AAAA,
                              .additional = additional,
                              .at = *at};
    snprintf(r.name, sizeof(r.name), "%s", name);
    return hf_dns_reply_add(reply, &r);
}

/* Does the entry answer the question, and with what? */
static bool judge(const struct question *q, uint32_t owner, const struct hf_entry *e,
                  struct candidate *ret_c)
{
    json_t *value = hf_service_load(hf_entry_value(e));
    const char *proto = json_string_value(json_object_get(value, "proto")), *target = "";
    struct candidate c = {.owner = owner};
    c.where = hf_service_address(q->h, value, owner, &c.at, &target);
    c.port = hf_service_port(value);
    c.priority = hf_service_int(value, "priority", UINT16_MAX, 0);
    c.weight = hf_service_int(value, "weight", UINT16_MAX, 0);
    snprintf(c.target, sizeof(c.target), "%s", target);
    bool ok = value && c.where != HF_SERVICE_AT_NOWHERE;
    if (q->type == HF_DNS_SRV) {
        ok = ok && c.port > 0 &&
             !(proto && *q->name->proto && strcasecmp(proto, q->name->proto) != 0);
    } else {
        ok = ok && wants(q->type, &c.at);
    }
    json_decref(value);
    if (ok) {
        *ret_c = c;
    }
    return ok;
}

/* Is there anything below path in the part? Then the path's name exists, too (RFC 8020). */
static bool has_below(const struct hf_part *part, const char *path)
{
    char below[HF_SERVICE_NAME_MAX + 2];
    int n = snprintf(below, sizeof(below), "%s/", path);
    struct hf_slice prefix = hf_slice(below, (size_t)n);
    struct hf_part_pos pos = hf_part_seek(part, prefix);
    struct hf_entry *e = hf_part_next(part, &pos);
    return e && hf_slice_starts(hf_entry_name(e), prefix);
}

/*
 * Look at all owners. Of more candidates than an answer can have, each has the same chance to be in
 * ret_c. Returns their number.
 */
static uint32_t gather(const struct question *q, struct candidate ret_c[HF_DNS_RECORDS_MAX],
                       bool *ret_is_service, bool *ret_exists)
{
    struct hf_slice path = hf_slice_str(q->name->path);
    uint64_t seen = 0;
    for (uint32_t id = 0; id < q->h->store->n_owners; id++) {
        const struct hf_part *part = hf_dir_part(q->h->dir, id);
        const struct hf_entry *e = part ? hf_part_find(part, path) : NULL;
        struct candidate c;
        *ret_is_service = *ret_is_service || e;
        *ret_exists = *ret_exists || e || (part && has_below(part, q->name->path));
        if (e && judge(q, id, e, &c)) {
            uint64_t at = seen < HF_DNS_RECORDS_MAX ? seen : hf_prng_below(q->prng, seen + 1);
            seen++;
            if (at < HF_DNS_RECORDS_MAX) {
                ret_c[at] = c;
            }
        }
    }
    return seen < HF_DNS_RECORDS_MAX ? (uint32_t)seen : HF_DNS_RECORDS_MAX;
}

/* The target of a candidate's SRV record; false: there is none that fits a name. */
static bool target_of(const struct question *q, const struct candidate *c,
                      char ret_target[HF_DNS_NAME_MAX + 1])
{
    const char *owner = q->h->store->owner[c->owner].name, *domain = q->h->config->dns.domain;
    size_t room = HF_DNS_NAME_MAX + 1;
    int n;
    if (c->where == HF_SERVICE_AT_NAME) {
        n = snprintf(ret_target, room, "%s", c->target);
    } else if (c->where == HF_SERVICE_AT_LITERAL) {
        n = snprintf(ret_target, room, "%s._at.%s", owner, q->name->name);
    } else {
        n = snprintf(ret_target, room, "%s.host.%s", owner, domain);
    }
    return n > 0 && (size_t)n < room;
}

static void add_services(const struct question *q, const struct candidate *c, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct hf_dns_record r = {.type = HF_DNS_SRV,
                                  .priority = c[i].priority,
                                  .weight = c[i].weight,
                                  .port = c[i].port};
        if (target_of(q, &c[i], r.target)) {
            (void)hf_dns_reply_add(q->reply, &r); /* a smaller one may still fit */
        }
    }
    char target[HF_DNS_NAME_MAX + 1];
    for (uint32_t i = 0; i < n; i++) { /* addresses only in what the answers left */
        if (c[i].where != HF_SERVICE_AT_NAME && c[i].at.family != HF_AF_NONE &&
            target_of(q, &c[i], target)) {
            (void)add_address(q->reply, target, &c[i].at, true);
        }
    }
}

/* Answer from the services at q->name->path; false: that is no service. */
static bool answer_service(const struct question *q)
{
    struct candidate c[HF_DNS_RECORDS_MAX];
    bool is_service = false, exists = false;
    uint32_t n = gather(q, c, &is_service, &exists);
    for (uint32_t i = n; i > 1; i--) {
        uint32_t k = (uint32_t)hf_prng_below(q->prng, i);
        struct candidate t = c[k];
        c[k] = c[i - 1];
        c[i - 1] = t;
    }
    if (q->type == HF_DNS_SRV) {
        add_services(q, c, n);
    } else {
        for (uint32_t i = 0; i < n && add_address(q->reply, "", &c[i].at, false); i++) {
        }
    }
    q->reply->rcode = exists ? HF_DNS_NOERROR : HF_DNS_NXDOMAIN;
    return is_service;
}

/* OWNER.host.DOMAIN and OWNER._at.PATH.DOMAIN */
static void answer_of_owner(const struct question *q)
{
    uint32_t owner = hf_dir_store_find_owner(q->h->store, hf_slice_str(q->name->owner));
    const struct hf_part *part = owner == HF_OWNER_NONE ? NULL : hf_dir_part(q->h->dir, owner);
    struct candidate c;
    q->reply->rcode = part ? HF_DNS_NOERROR : HF_DNS_NXDOMAIN;
    if (part && q->name->kind == HF_DNS_NAME_HOST) {
        struct hf_endpoint at = hf_service_owner_endpoint(q->h, owner);
        if (wants(q->type, &at)) {
            (void)add_address(q->reply, "", &at, false);
        }
    } else if (part) {
        const struct hf_entry *e = hf_part_find(part, hf_slice_str(q->name->path));
        if (!e) {
            q->reply->rcode = HF_DNS_NXDOMAIN;
        } else if (q->type != HF_DNS_SRV && judge(q, owner, e, &c)) {
            (void)add_address(q->reply, "", &c.at, false);
        }
    }
}

void hf_dns_answer(const struct hf_hostd *h, struct hf_prng *prng, const char *name, uint16_t type,
                   struct hf_dns_reply *reply)
{
    struct hf_dns_name parsed;
    struct question q = {.h = h, .name = &parsed, .type = type, .prng = prng, .reply = reply};
    const char *domain = h->config->dns.domain;
    reply->ttl_s = (uint32_t)((h->config->dns.ttl_ms + 999) / 1000);
    hf_dns_name_parse(name, domain, false, &parsed);
    switch (parsed.kind) {
    case HF_DNS_NAME_FOREIGN:
        reply->rcode = HF_DNS_REFUSED;
        break;
    case HF_DNS_NAME_BAD:
        reply->rcode = HF_DNS_NXDOMAIN;
        break;
    case HF_DNS_NAME_INNER:
        reply->rcode = HF_DNS_NOERROR;
        (void)hf_dns_sip_answer(h, prng, &parsed, type, reply);
        break;
    case HF_DNS_NAME_HOST:
    case HF_DNS_NAME_AT:
        answer_of_owner(&q);
        break;
    case HF_DNS_NAME_SERVICE:
        if (hf_dns_sip_answer(h, prng, &parsed, type, reply)) {
            break;
        }
        if (!answer_service(&q) && *parsed.proto) {
            hf_dns_name_parse(name, domain, true, &parsed);
            (void)answer_service(&q);
        }
        break;
    }
    hf_tracef(HF_TRACE_DNS, "dns", "%s, type %u: code %d, %u records", name, type, reply->rcode,
              reply->n);
}

static void on_question(void *arg, const char *name, uint16_t type, struct hf_dns_reply *reply)
{
    struct hf_dns *d = arg;
    hf_dns_answer(d->h, &d->prng, name, type, reply);
}

int hf_dns_open(struct hf_hostd *h, struct hf_err *err, struct hf_dns **ret_dns)
{
    if (h->config->dns.listen.len == 0) {
        *ret_dns = NULL;
        return 0;
    }
    struct hf_dns *d = hf_alloc(sizeof(*d));
    if (!d) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    d->h = h;
    hf_prng_init(&d->prng, (uint64_t)hf_now());
    int rc = hf_dns_server_open(h->loop, &h->config->dns.listen, on_question, d, err, &d->server);
    if (rc) {
        hf_free(d);
        return rc;
    }
    *ret_dns = d;
    return 0;
}

void hf_dns_close(struct hf_dns *d)
{
    if (d) {
        hf_dns_server_close(d->server);
        hf_free(d);
    }
}

uint16_t hf_dns_port(const struct hf_dns *d)
{
    return hf_dns_server_port(d->server);
}
