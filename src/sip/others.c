/* The other servers: entries of the tree, and hosts that a group has lost. */
#include "sip/others.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/name.h"
#include "os/addr.h"
#include "sip/config.h"

#define WEIGHT_MAX 1000

struct other {
    struct hf_list node;
    char name[HF_HOST_NAME_MAX + 1];
    char owner[HF_HOST_NAME_MAX + 1];
    json_t *value; /* owned; NULL: left the tree */
    bool lost;     /* its host by the group, and it was not heard of since */
};

struct hf_sip_others {
    hf_sip_others_fn *fn;
    void *arg;
    struct hf_list all;
    char lost[HF_GROUP_LOST_MAX + 1]; /* as the group told last */
};

const char *const hf_sip_others_address[3] = {
    [HF_SIP_TRANSPORT_UDP] = "udp", [HF_SIP_TRANSPORT_TCP] = "tcp", [HF_SIP_TRANSPORT_TLS] = "tls"};

/* ---- an entry ---- */

static void parse_addresses(const json_t *value, struct hf_endpoint at[3])
{
    for (size_t i = 0; i < HF_ARRAY_LEN(hf_sip_others_address); i++) {
        struct hf_addr a;
        const char *text = json_string_value(json_object_get(value, hf_sip_others_address[i]));
        if (text && hf_addr_parse(text, 0, NULL, &a) == 0) {
            at[i] = hf_addr_to_endpoint(&a);
            at[i].port = at[i].port ? at[i].port : hf_sip_transport_port((enum hf_sip_transport)i);
        }
    }
}

static uint32_t number_of(const json_t *value, const char *key, uint32_t most)
{
    json_int_t n = json_integer_value(json_object_get(value, key));
    return n < 0 ? 0 : n > (json_int_t)most ? most : (uint32_t)n;
}

static uint64_t boot_of(const json_t *value)
{
    const char *s = json_string_value(json_object_get(value, "boot"));
    return s ? strtoull(s, NULL, 16) : 0;
}

static const char *text_of(const json_t *value, const char *key)
{
    const char *s = json_string_value(json_object_get(value, key));
    return s ? s : "";
}

int hf_sip_others_parse(const char *name, const json_t *value, struct hf_sip_peer *ret_peer,
                        struct hf_sip_load *ret_load)
{
    const char *state = text_of(value, "state"), *role = text_of(value, "role");
    bool draining = strcmp(state, "draining") == 0;
    if (!hf_host_name_ok(hf_slice_str(name)) || !json_is_object(value) ||
        (!draining && strcmp(state, "live") != 0)) {
        return -HF_EVALUE;
    }
    *ret_peer = (struct hf_sip_peer){
        .name = hf_slice_str(name),
        .host = hf_slice_str(text_of(value, "host")),
        .now = {.state = draining ? HF_SIP_SERVER_DRAINING : HF_SIP_SERVER_LIVE,
                .homes = strcmp(role, hf_sip_role_name(HF_SIP_ROLE_HOME)) == 0,
                .busy = json_is_true(json_object_get(value, "busy")),
                .weight = (uint16_t)number_of(value, "weight", WEIGHT_MAX)},
        .boot = boot_of(value),
    };
    parse_addresses(value, ret_peer->at);
    *ret_load = (struct hf_sip_load){.clients = number_of(value, "rows", UINT32_MAX),
                                     .pinned = number_of(value, "pinned", UINT32_MAX),
                                     .requests_s = number_of(value, "requests_s", UINT32_MAX),
                                     .cpu = number_of(value, "cpu", 1000)};
    return 0;
}

/* ---- what is told ---- */

static bool alive(const struct other *x)
{
    return x->value && !x->lost;
}

static void tell(const struct hf_sip_others *o, const struct other *x)
{
    struct hf_sip_load load = {0};
    struct hf_sip_peer peer = {.name = hf_slice_str(x->name), .now.state = HF_SIP_SERVER_DEAD};
    if (alive(x) && hf_sip_others_parse(x->name, x->value, &peer, &load)) {
        return; /* it was read before */
    }
    o->fn(o->arg, &peer, &load);
}

/* Is the host one of these? */
static bool is_one(const char *hosts, const char *host)
{
    size_t n = strlen(host);
    for (const char *at = hosts; n > 0 && (at = strstr(at, host)); at += n) {
        if ((at == hosts || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0')) {
            return true;
        }
    }
    return false;
}

static struct other *find(const struct hf_sip_others *o, const char *name)
{
    HF_LIST_FOREACH (node, &o->all) {
        struct other *x = HF_CONTAINER_OF(node, struct other, node);
        if (strcmp(x->name, name) == 0) {
            return x;
        }
    }
    return NULL;
}

void hf_sip_others_hear(struct hf_sip_others *o, const char *owner, const char *name,
                        const char *text)
{
    struct hf_sip_peer peer;
    struct hf_sip_load load;
    json_t *value = json_loads(text, 0, NULL);
    struct other *x = find(o, name);
    if (hf_sip_others_parse(name, value, &peer, &load) || (!x && !(x = hf_alloc(sizeof(*x))))) {
        hf_log_warn("", "the entry of server %s in the tree is not understood: it is left out",
                    name);
        json_decref(value);
        return;
    }
    if (!*x->name) {
        snprintf(x->name, sizeof(x->name), "%s", name);
        hf_list_insert(&o->all, &x->node);
    }
    if (!alive(x)) {
        hf_log_info("", "server %s is there", name);
    }
    snprintf(x->owner, sizeof(x->owner), "%s", owner);
    json_decref(x->value);
    x->value = value;
    x->lost = false;
    tell(o, x);
}

void hf_sip_others_gone(struct hf_sip_others *o, const char *owner, const char *name)
{
    struct other *x = find(o, name);
    if (!x || !x->value || strcmp(x->owner, owner) != 0) {
        return; /* or it runs on another host by now */
    }
    bool news = alive(x);
    json_decref(x->value);
    x->value = NULL;
    x->lost = false;
    if (news) {
        hf_log_info("", "server %s is gone", name);
        tell(o, x);
    }
}

void hf_sip_others_lost(struct hf_sip_others *o, const char *hosts)
{
    HF_LIST_FOREACH (node, &o->all) {
        struct other *x = HF_CONTAINER_OF(node, struct other, node);
        bool is = is_one(hosts, x->owner), was = is_one(o->lost, x->owner);
        if (!x->value || (is ? was : !x->lost)) {
            continue;
        }
        x->lost = is;
        if (is) {
            hf_log_info("", "server %s is gone: the group has lost its host %s", x->name, x->owner);
        } else {
            hf_log_info("", "server %s is there: the group has its host %s again", x->name,
                        x->owner);
        }
        tell(o, x);
    }
    snprintf(o->lost, sizeof(o->lost), "%s", hosts);
}

/* ---- reading ---- */

bool hf_sip_others_known(const struct hf_sip_others *o, const char *name)
{
    return find(o, name) != NULL;
}

void hf_sip_others_list(const struct hf_sip_others *o, json_t *all)
{
    HF_LIST_FOREACH (node, &o->all) {
        const struct other *x = HF_CONTAINER_OF(node, struct other, node);
        json_t *v = alive(x) ? json_copy(x->value) : json_pack("{s:s}", "state", "dead");
        json_object_set_new(v, "name", json_string(x->name));
        json_array_append_new(all, v);
    }
}

/* ---- life ---- */

struct hf_sip_others *hf_sip_others_create(hf_sip_others_fn *fn, void *arg)
{
    struct hf_sip_others *o = hf_alloc(sizeof(*o));
    if (o) {
        o->fn = fn;
        o->arg = arg;
        hf_list_init(&o->all);
    }
    return o;
}

void hf_sip_others_destroy(struct hf_sip_others *o)
{
    if (!o) {
        return;
    }
    HF_LIST_FOREACH (node, &o->all) {
        struct other *x = HF_CONTAINER_OF(node, struct other, node);
        json_decref(x->value);
        hf_list_unlink(&x->node);
        hf_free(x);
    }
    hf_free(o);
}
