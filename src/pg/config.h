/* holdfast-pg's configuration: the snapshot that /etc/holdfast/holdfast-pg.conf becomes. */
#pragma once

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "core/pg/servers.h"
#include "os/conf.h"

#define HF_PG_CONFIG_FILE "/etc/holdfast/holdfast-pg.conf"
#define HF_PG_PORT 6432
#define HF_PG_PEER_PORT 6434

struct hf_pg_tls_config {
    int64_t sslmode;                                 /* enum hf_pg_sslmode */
    char *cert_file, *key_file, *ca_file, *crl_file; /* "": none */
    char *ciphers;                                   /* "": OpenSSL's */
    int64_t min_protocol;                            /* 0: TLS 1.2, 1: 1.3 */
};

struct hf_pg_server_config {
    struct hf_conf_title title;
    char *host; /* an address, or the directory of a Unix socket */
    int64_t port;
    int64_t weight;
};

/** Never changed after it was loaded; all of it goes with hf_pg_config_destroy(). */
struct hf_pg_config {
    struct {
        struct hf_conf_addrs listen, listen_read_only;
        char *unix_socket_dir; /* "": none */
        char *unix_socket_mode;
        char *user;
        int64_t max_clients, max_clients_per_user, max_clients_per_database;
        int64_t max_memory;
        int64_t login_timeout_ms, idle_timeout_ms, idle_in_transaction_timeout_ms;
        int64_t tcp_user_timeout_ms;
        struct hf_conf_list admin_users, stats_users;
        struct hf_addr metrics_listen; /* len 0: none */
    } pg;
    struct {
        char *hba_file, *ident_file;
        int64_t type; /* enum hf_pg_auth */
        char *file;
        char *query, *user, *password, *database;
    } auth;
    struct hf_pg_tls_config client_tls, server_tls;
    struct {
        bool protect_writes;
        int64_t transaction_log_max;
        int64_t hold_timeout_ms, replay_timeout_ms, move_timeout_ms;
        int64_t listen_gap; /* 0: notify, 1: close */
        int64_t rehearse_moves;
    } session;
    struct {
        char *group; /* "": the static list */
        int64_t port;
        bool exclusive;
        int64_t health_interval_ms, health_timeout_ms;
        bool balance;
        int64_t balance_tick_ms, balance_dead_zone, balance_rate;
    } servers;
    struct {
        struct hf_addr address; /* len 0: no service address */
        char *interface;
        int64_t prefix_length; /* 0: the address alone */
        struct hf_addr peer_listen;
        char *key_file, *host, *control;
        int64_t lease_ms, warm;
    } service;
    struct {
        int64_t level;
        uint32_t trace;
    } log;
    struct hf_conf_items server; /* struct hf_pg_server_config */
};

extern const struct hf_conf_schema hf_pg_config_schema;

/** Load and check a file; errors as hf_conf_load(). */
HF_MUST int hf_pg_config_load(const char *path, struct hf_err *err,
                              struct hf_pg_config **ret_config);
void hf_pg_config_destroy(struct hf_pg_config *c);

static inline const struct hf_pg_server_config *hf_pg_config_server(const struct hf_pg_config *c,
                                                                    size_t i)
{
    return &((const struct hf_pg_server_config *)c->server.item)[i];
}

/** log.level as the log knows it. */
enum hf_log_level hf_pg_config_level(const struct hf_pg_config *c);
/** pg.unix_socket_mode as a number. */
unsigned hf_pg_config_socket_mode(const struct hf_pg_config *c);
