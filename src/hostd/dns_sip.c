/* Where SIP's servers are, for DNS: NAPTR and SRV from what holdfast-sip publishes. */
#include "hostd/dns_sip.h"

#include <strings.h>

#include "hostd/service.h"

#define PREFIX "/sip/servers/"
#define SERVERS_MAX 128 /* that are considered; of more each has the same chance */
#define WEIGHT_MAX 1000 /* as holdfast-sip.conf(5) has it */
#define IDLE 1000u      /* 1/1000 of a machine */
#define PRIORITY 10     /* of SRV; of those that shed load twice this */
#define ORDER 10        /* of NAPTR: the client chooses among those that it knows */

/* In the order of preference, which is that of RFC 3263's example. */
static const struct {
    const char *member;  /* of a server's value: its address for this transport */
    const char *service; /* RFC 3263 4.1 */
    const char *labels, *path;
} transports[] = {
    {"tls", "SIPS+D2T", "_sips._tcp", "/_tcp/_sips"},
    {"tcp", "SIP+D2T", "_sip._tcp", "/_tcp/_sip"},
    {"udp", "SIP+D2U", "_sip._udp", "/_udp/_sip"},
};

struct server {
    const struct hf_entry *entry; /* borrowed */
    uint32_t owner;
    uint16_t port, priority, weight;
};

struct question {
    const struct hf_hostd *h;
    const struct hf_dns_name *name;
    struct hf_prng *prng;
    struct hf_dns_reply *reply;
};

/* ---- servers ---- */

static bool is(const json_t *value, const char *key, const char *text)
{
    const char *s = json_string_value(json_object_get(value, key));
    return s && strcmp(s, text) == 0;
}

/* Does it answer whoever comes by this transport? */
static bool judge(const struct hf_entry *e, size_t transport, struct server *ret_server)
{
    struct hf_addr a;
    json_t *value = hf_service_load(hf_entry_value(e));
    const char *at = json_string_value(json_object_get(value, transports[transport].member));
    bool ok = value && at && hf_addr_parse(at, 0, NULL, &a) == 0 && is(value, "state", "live") &&
              (is(value, "role", "home") || is(value, "role", "distribution"));
    if (ok) {
        uint32_t weight = hf_service_int(value, "weight", WEIGHT_MAX, 0);
        uint32_t idle = IDLE - hf_service_int(value, "cpu", IDLE, 0);
        bool busy = json_is_true(json_object_get(value, "busy"));
        uint32_t share = weight * idle / 100;
        *ret_server = (struct server){
            .entry = e,
            .port = hf_addr_to_endpoint(&a).port,
            .priority = busy ? 2 * PRIORITY : PRIORITY,
            .weight = (uint16_t)(share || !weight ? share : 1),
        };
    }
    json_decref(value);
    return ok && ret_server->port > 0;
}

/* Of an owner; *seen: how many there were. */
static void gather_of(const struct question *q, uint32_t owner, size_t transport,
                      struct server server[SERVERS_MAX], uint64_t *seen)
{
    const struct hf_part *part = hf_dir_part(q->h->dir, owner);
    struct hf_slice prefix = hf_slice_str(PREFIX);
    if (!part) {
        return;
    }
    struct hf_part_pos pos = hf_part_seek(part, prefix);
    const struct hf_entry *e;
    while ((e = hf_part_next(part, &pos)) && hf_slice_starts(hf_entry_name(e), prefix)) {
        struct server s;
        if (!judge(e, transport, &s)) {
            continue;
        }
        uint64_t at = *seen < SERVERS_MAX ? *seen : hf_prng_below(q->prng, *seen + 1);
        ++*seen;
        s.owner = owner;
        if (at < SERVERS_MAX) {
            server[at] = s;
        }
    }
}

static size_t gather(const struct question *q, size_t transport, struct server server[SERVERS_MAX])
{
    uint64_t seen = 0;
    for (uint32_t id = 0; id < q->h->store->n_owners; id++) {
        gather_of(q, id, transport, server, &seen);
    }
    return seen < SERVERS_MAX ? (size_t)seen : SERVERS_MAX;
}

/* Moves one of those of the best priority to the end, as RFC 2782 would have it drawn. */
static const struct server *draw(const struct question *q, struct server *server, size_t n)
{
    uint16_t best = UINT16_MAX;
    uint64_t all = 0;
    for (size_t i = 0; i < n; i++) {
        best = server[i].priority < best ? server[i].priority : best;
    }
    for (size_t i = 0; i < n; i++) {
        all += server[i].priority == best ? server[i].weight + 1u : 0;
    }
    uint64_t point = hf_prng_below(q->prng, all);
    size_t at = 0;
    for (;; at++) {
        uint64_t width = server[at].priority == best ? server[at].weight + 1u : 0;
        if (point < width) {
            break;
        }
        point -= width;
    }
    struct server s = server[at];
    server[at] = server[n - 1];
    server[n - 1] = s;
    return &server[n - 1];
}

/* ---- answers ---- */

/* The name of the server's path, as a service's, or the name that it has itself. */
static bool add_server(const struct question *q, const struct server *s)
{
    struct hf_dns_record r = {
        .type = HF_DNS_SRV, .priority = s->priority, .weight = s->weight, .port = s->port};
    struct hf_endpoint at = {.family = HF_AF_NONE};
    const char *name = "";
    struct hf_slice path = hf_entry_name(s->entry);
    size_t skip = strlen(PREFIX);
    json_t *value = hf_service_load(hf_entry_value(s->entry));
    enum hf_service_at where = hf_service_address(q->h, value, s->owner, &at, &name);
    int n = where == HF_SERVICE_AT_NAME
                ? snprintf(r.target, sizeof(r.target), "%s", name)
                : snprintf(r.target, sizeof(r.target), "%.*s.servers.sip.%s", (int)(path.n - skip),
                           (const char *)path.p + skip, q->h->config->dns.domain);
    json_decref(value);
    if (where == HF_SERVICE_AT_NOWHERE || n >= (int)sizeof(r.target) ||
        !hf_dns_reply_add(q->reply, &r)) {
        return false;
    }
    struct hf_dns_record a = {
        .type = at.family == HF_AF_INET ? HF_DNS_A : HF_DNS_AAAA, .additional = true, .at = at};
    if (where != HF_SERVICE_AT_NAME && at.family != HF_AF_NONE) {
        memcpy(a.name, r.target, sizeof(a.name));
        (void)hf_dns_reply_add(q->reply, &a); /* where there is room */
    }
    return true;
}

static bool answer_srv(const struct question *q, size_t transport)
{
    struct server server[SERVERS_MAX];
    bool any = false;
    for (size_t n = gather(q, transport, server); n > 0; n--) {
        any = add_server(q, draw(q, server, n)) || any;
    }
    return any;
}

static bool answer_naptr(const struct question *q)
{
    struct server server[SERVERS_MAX];
    bool any = false;
    for (size_t i = 0; i < HF_ARRAY_LEN(transports); i++) {
        struct hf_dns_record r = {
            .type = HF_DNS_NAPTR, .priority = ORDER, .weight = (uint16_t)(ORDER * (i + 1))};
        snprintf(r.service, sizeof(r.service), "%s", transports[i].service);
        int n = snprintf(r.target, sizeof(r.target), "%s.%s", transports[i].labels, q->name->name);
        if (n < (int)sizeof(r.target) && gather(q, i, server) > 0) {
            any = hf_dns_reply_add(q->reply, &r) || any;
        }
    }
    return any;
}

/* The path behind "/sip", or of DOMAIN itself; NULL: it is neither. */
static const char *asked(const struct hf_hostd *h, const struct hf_dns_name *name)
{
    if (name->kind == HF_DNS_NAME_INNER) {
        return strcasecmp(name->name, h->config->dns.domain) == 0 ? "" : NULL;
    }
    return name->kind != HF_DNS_NAME_SERVICE      ? NULL
           : strncmp(name->path, "/sip/", 5) == 0 ? name->path + 4
           : strcmp(name->path, "/sip") == 0      ? ""
                                                  : name->path;
}

bool hf_dns_sip_answer(const struct hf_hostd *h, struct hf_prng *prng,
                       const struct hf_dns_name *name, uint16_t type, struct hf_dns_reply *reply)
{
    struct question q = {.h = h, .name = name, .prng = prng, .reply = reply};
    const char *path = asked(h, name);
    if (!path) {
        return false;
    }
    if (!*path) {
        return type == HF_DNS_NAPTR && answer_naptr(&q);
    }
    for (size_t i = 0; type == HF_DNS_SRV && i < HF_ARRAY_LEN(transports); i++) {
        if (strcmp(path, transports[i].path) == 0) {
            return answer_srv(&q, i);
        }
    }
    return false;
}
