/* holdfast-sip's configuration: the snapshot that /etc/holdfast/holdfast-sip.conf becomes. */
#pragma once

#include "base/attr.h"
#include "base/err.h"
#include "base/log.h"
#include "core/sip/element.h"
#include "os/conf.h"

#define HF_SIP_CONFIG_FILE "/etc/holdfast/holdfast-sip.conf"
#define HF_SIP_CONTROL_PATH "/run/holdfast-sip/control.sock"
#define HF_SIP_LISTENS_MAX 32
#define HF_SIP_EDGES_MAX 256

/** Where it listens: listen NAME { ... }. */
struct hf_sip_listen_config {
    struct hf_conf_title title;
    int64_t transport; /* enum hf_sip_transport: UDP, TCP, TLS */
    struct hf_addr address;
    char *host;     /* "": the address */
    int64_t policy; /* enum hf_sip_policy */
    bool external, elsewhere;
};

/** Never changed after it was loaded; all of it goes with hf_sip_config_destroy(). */
struct hf_sip_config {
    struct {
        char *name;   /* never "" after it was loaded */
        int64_t role; /* enum hf_sip_role */
        char *realm;  /* "": the first domain */
        struct hf_conf_list domains;
        char *database, *user, *key_file, *control;
        char *group; /* "": nobody leads here */
        int64_t workers, weight;
        struct hf_conf_list trusted_edges;
        struct hf_addr metrics_listen; /* len 0: none */
        char *service_route;
    } sip;
    struct {
        bool required;
        uint32_t algorithms; /* bits of enum hf_sip_algorithm */
        int64_t nonce_life_ms;
    } auth;
    struct {
        struct hf_conf_list allow;
    } watch;
    struct {
        int64_t default_ms, min_ms, max_ms;
    } expires;
    struct {
        int64_t bindings, transactions, requests, subscriptions, cache, source_rate;
        int64_t connections, idle_ms, idle_registered_ms, output;
    } limits;
    struct {
        char *cert_file, *key_file, *ca_file, *crl_file, *ciphers;
        bool clients, verify_servers;
    } tls;
    struct {
        int64_t group_commit_ms, queue, timeout_ms;
    } store;
    struct {
        int64_t dead_zone, target_zone, rate, rate_to, cpu_max, cpu_target;
        int64_t patience_ms, settle_ms;
    } rebalance;
    struct {
        struct hf_conf_addrs servers; /* none: those of resolv.conf */
        int64_t timeout_ms;
    } dns;
    struct {
        int64_t level;
        uint32_t trace;
    } log;
    struct hf_conf_items listen; /* struct hf_sip_listen_config */
};

extern const struct hf_conf_schema hf_sip_config_schema;

/** Load and check a file; errors as hf_conf_load(). */
HF_MUST int hf_sip_config_load(const char *path, struct hf_err *err,
                               struct hf_sip_config **ret_config);
HF_MUST int hf_sip_config_load_mem(const char *name, struct hf_slice text, struct hf_err *err,
                                   struct hf_sip_config **ret_config);
void hf_sip_config_destroy(struct hf_sip_config *c);

static inline const struct hf_sip_listen_config *hf_sip_config_listen(const struct hf_sip_config *c,
                                                                      size_t i)
{
    return &((const struct hf_sip_listen_config *)c->listen.item)[i];
}

/** log.level as the log knows it. */
enum hf_log_level hf_sip_config_level(const struct hf_sip_config *c);
/** sip.realm, or what stands for it. */
const char *hf_sip_config_realm(const struct hf_sip_config *c);
/** "192.0.2.0/24", "2001:db8::1"; false: it is not an address range. */
HF_MUST bool hf_sip_config_net(const char *text, struct hf_sip_net *ret_net);
