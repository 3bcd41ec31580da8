/* The table of holdfast-pg's options. */
#include "pg/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/pg/hba.h"
#include "pg/control.h"
#include "pg/warm.h"

#define AT(member) offsetof(struct hf_pg_config, member)
#define SERVER(member) offsetof(struct hf_pg_server_config, member)
#define PATH_LEN_MAX 4095
#define DAY_MS (24 * 3600000LL)
#define COUNT_MAX 1000000

static const char *const auth_types[] = {
#define AUTH_NAME(id, name) name,
    HF_PG_AUTH_LIST(AUTH_NAME)
#undef AUTH_NAME
        NULL};
static const char *const sslmodes[] = {"disable",   "allow",       "prefer", "require",
                                       "verify-ca", "verify-full", NULL};
static const char *const protocols[] = {"TLSv1.2", "TLSv1.3", NULL};
static const char *const gaps[] = {"notify", "close", NULL};

static const char *check_mode(const char *s)
{
    size_t n = strspn(s, "01234567");
    return n >= 3 && n <= 4 && !s[n] ? NULL : "an octal mode as 0777";
}

static const char *check_host(const char *s)
{
    struct hf_addr a;
    return *s == '/' || hf_addr_parse(s, 0, NULL, &a) == 0
               ? NULL
               : "an address, or the directory of a Unix socket";
}

static const struct hf_conf_opt server_options[] = {
    {"", "host", HF_CONF_STRING, SERVER(host), .min = 1, .max = 100, .def = "", .required = true,
     .check = check_host, .doc = "Address, or the directory of its Unix socket"},
    {"", "port", HF_CONF_INT, SERVER(port), .min = 1, .max = 65535, .def = "5432",
     .doc = "Port; also names the Unix socket"},
    {"", "weight", HF_CONF_INT, SERVER(weight), .min = 1, .max = 1000, .def = "100",
     .doc = "Share of read-only sessions, and of all sessions when they are balanced"},
};

static const struct hf_conf_titled titled[] = {
    {"server", AT(server), sizeof(struct hf_pg_server_config), server_options,
     HF_ARRAY_LEN(server_options), HF_PG_SERVERS_MAX, NULL, "A PostgreSQL server", true},
};

static const struct hf_conf_opt options[] = {
    {"pg", "listen", HF_CONF_ADDR_LIST, AT(pg.listen), .port = HF_PG_PORT, .def = "127.0.0.1 [::1]",
     .doc = "Where clients connect: sessions that read and write"},
    {"pg", "listen_read_only", HF_CONF_ADDR_LIST, AT(pg.listen_read_only), .port = HF_PG_PORT + 1,
     .def = "", .doc = "Where clients connect for sessions on standbys"},
    {"pg", "unix_socket_dir", HF_CONF_STRING, AT(pg.unix_socket_dir), .max = 90,
     .check = hf_conf_check_path, .def = "",
     .doc = "Directory for .s.PGSQL.PORT, PORT being that of the first of pg.listen; empty: none"},
    {"pg", "unix_socket_mode", HF_CONF_STRING, AT(pg.unix_socket_mode), .min = 3, .max = 4,
     .check = check_mode, .def = "0777", .doc = "Mode of the Unix socket"},
    {"pg", "user", HF_CONF_STRING, AT(pg.user), .max = 32, .def = "",
     .doc = "User to become after start; empty: stay as started"},
    {"pg", "max_clients", HF_CONF_INT, AT(pg.max_clients), .min = 1, .max = COUNT_MAX,
     .def = "10000", .doc = "Client connections; more are refused with 53300", .live = true},
    {"pg", "max_clients_per_user", HF_CONF_INT, AT(pg.max_clients_per_user), .min = 0,
     .max = COUNT_MAX, .def = "0", .doc = "The same for each user; 0: no limit", .live = true},
    {"pg", "max_clients_per_database", HF_CONF_INT, AT(pg.max_clients_per_database), .min = 0,
     .max = COUNT_MAX, .def = "0", .doc = "The same for each database; 0: no limit", .live = true},
    {"pg", "max_memory", HF_CONF_SIZE, AT(pg.max_memory), .min = 1 << 20, .max = 1LL << 46,
     .def = "1GiB",
     .doc = "Buffers, transaction logs and prepared statements of all sessions together; beyond it "
            "transactions become unprotected, and new clients are refused",
     .live = true},
    {"pg", "login_timeout", HF_CONF_DURATION, AT(pg.login_timeout_ms), .min = 100, .max = DAY_MS,
     .def = "60s", .doc = "Longest time of a client's login", .live = true},
    {"pg", "idle_timeout", HF_CONF_DURATION, AT(pg.idle_timeout_ms), .min = 0, .max = 365 * DAY_MS,
     .def = "0", .doc = "A client idle for longer is ended with 57P05; 0: never", .live = true},
    {"pg", "idle_in_transaction_timeout", HF_CONF_DURATION, AT(pg.idle_in_transaction_timeout_ms),
     .min = 0, .max = 365 * DAY_MS, .def = "0",
     .doc = "A client idle in a transaction for longer is ended with 25P03; 0: never",
     .live = true},
    {"pg", "tcp_user_timeout", HF_CONF_DURATION, AT(pg.tcp_user_timeout_ms), .min = 0,
     .max = DAY_MS, .def = "0",
     .doc = "How long sent data may stay unacknowledged before a connection is taken for lost, on "
            "both sides; 0: the kernel's choice",
     .live = true},
    {"pg", "admin_users", HF_CONF_LIST, AT(pg.admin_users), .def = "",
     .doc = "Users who may do everything on the console (database holdfast or pgbouncer)",
     .live = true},
    {"pg", "stats_users", HF_CONF_LIST, AT(pg.stats_users), .def = "",
     .doc = "Users who may only SHOW there", .live = true},
    {"pg", "metrics_listen", HF_CONF_ADDR, AT(pg.metrics_listen), .port = 9632, .none = "none",
     .def = "none", .doc = "Address of the HTTP server with /metrics for Prometheus"},
    {"auth", "hba_file", HF_CONF_STRING, AT(auth.hba_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "",
     .doc = "Who may log in and how, in the format of pg_hba.conf; empty: everybody by auth.type",
     .live = true},
    {"auth", "ident_file", HF_CONF_STRING, AT(auth.ident_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Maps of names, in the format of pg_ident.conf",
     .live = true},
    {"auth", "type", HF_CONF_ENUM, AT(auth.type), .names = auth_types, .def = "scram-sha-256",
     .doc = "How clients log in where there is no auth.hba_file", .live = true},
    {"auth", "file", HF_CONF_STRING, AT(auth.file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "",
     .doc = "Users and their secrets, in the format of PgBouncer's userlist.txt: plain, md5... or "
            "SCRAM-SHA-256$...",
     .live = true},
    {"auth", "query", HF_CONF_STRING, AT(auth.query), .max = 4000, .def = "",
     .doc = "Query for the secret of a user who is not in auth.file: $1 is the name; it gives name "
            "and secret, as SELECT usename, passwd FROM pg_shadow WHERE usename = $1",
     .live = true},
    {"auth", "user", HF_CONF_STRING, AT(auth.user), .max = 63, .def = "",
     .doc = "User that holdfast-pg itself logs in as: for auth.query, for the catalog and for "
            "health; empty: health as postgres without a password, and none of the others",
     .live = true},
    {"auth", "password", HF_CONF_STRING, AT(auth.password), .max = 1023, .def = "",
     .doc = "Its password; empty: that of auth.file", .live = true},
    {"auth", "database", HF_CONF_STRING, AT(auth.database), .max = 63, .def = "",
     .doc = "Database for auth.query and for health; empty: auth.query in the client's, health in "
            "postgres",
     .live = true},
    {"client_tls", "sslmode", HF_CONF_ENUM, AT(client_tls.sslmode), .names = sslmodes,
     .def = "disable",
     .doc = "TLS with clients: disable, allow or prefer (if they ask), require (they must), "
            "verify-ca and verify-full (with a certificate of theirs)",
     .live = true},
    {"client_tls", "cert_file", HF_CONF_STRING, AT(client_tls.cert_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Certificate and its chain, PEM", .live = true},
    {"client_tls", "key_file", HF_CONF_STRING, AT(client_tls.key_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Its key, PEM", .live = true},
    {"client_tls", "ca_file", HF_CONF_STRING, AT(client_tls.ca_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Who signs the clients' certificates, PEM",
     .live = true},
    {"client_tls", "crl_file", HF_CONF_STRING, AT(client_tls.crl_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Which of them are revoked, PEM", .live = true},
    {"client_tls", "ciphers", HF_CONF_STRING, AT(client_tls.ciphers), .max = 1000, .def = "",
     .doc = "Ciphers of TLS 1.2, as openssl-ciphers(1); empty: OpenSSL's", .live = true},
    {"client_tls", "min_protocol", HF_CONF_ENUM, AT(client_tls.min_protocol), .names = protocols,
     .def = "TLSv1.2", .doc = "Oldest version of TLS", .live = true},
    {"server_tls", "sslmode", HF_CONF_ENUM, AT(server_tls.sslmode), .names = sslmodes,
     .def = "prefer", .doc = "TLS with servers, as libpq", .live = true},
    {"server_tls", "cert_file", HF_CONF_STRING, AT(server_tls.cert_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Certificate to show to servers, PEM",
     .live = true},
    {"server_tls", "key_file", HF_CONF_STRING, AT(server_tls.key_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Its key, PEM", .live = true},
    {"server_tls", "ca_file", HF_CONF_STRING, AT(server_tls.ca_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Who signs the servers' certificates, PEM",
     .live = true},
    {"server_tls", "crl_file", HF_CONF_STRING, AT(server_tls.crl_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Which of them are revoked, PEM", .live = true},
    {"server_tls", "ciphers", HF_CONF_STRING, AT(server_tls.ciphers), .max = 1000, .def = "",
     .doc = "Ciphers of TLS 1.2, as openssl-ciphers(1); empty: OpenSSL's", .live = true},
    {"server_tls", "min_protocol", HF_CONF_ENUM, AT(server_tls.min_protocol), .names = protocols,
     .def = "TLSv1.2", .doc = "Oldest version of TLS", .live = true},
    {"session", "protect_writes", HF_CONF_BOOL, AT(session.protect_writes), .def = "true",
     .doc = "Protect also writes outside transactions; costs them a commit token", .live = true},
    {"session", "transaction_log_max", HF_CONF_SIZE, AT(session.transaction_log_max), .min = 1024,
     .max = 1 << 30, .def = "1MiB",
     .doc = "What is kept of a transaction to replay it; a longer one is unprotected to its end",
     .live = true},
    {"session", "hold_timeout", HF_CONF_DURATION, AT(session.hold_timeout_ms), .min = 0,
     .max = DAY_MS, .def = "30s",
     .doc = "How long sessions are held while there is no primary; then 57P03", .live = true},
    {"session", "replay_timeout", HF_CONF_DURATION, AT(session.replay_timeout_ms), .min = 100,
     .max = DAY_MS, .def = "30s", .doc = "Longest replay of a transaction; then 40001",
     .live = true},
    {"session", "move_timeout", HF_CONF_DURATION, AT(session.move_timeout_ms), .min = 100,
     .max = DAY_MS, .def = "60s",
     .doc = "How long a planned move waits for a point at which it can be done", .live = true},
    {"session", "listen_gap", HF_CONF_ENUM, AT(session.listen_gap), .names = gaps, .def = "notify",
     .doc = "What tells a listening session that notifications may be lost after a failover: an "
            "empty one per channel, or its end by 57P01",
     .live = true},
    {"session", "rehearse_moves", HF_CONF_INT, AT(session.rehearse_moves), .min = 0,
     .max = COUNT_MAX, .def = "0",
     .doc = "Move each session to a new server connection every so many statements, for practice; "
            "0: never",
     .live = true},
    {"servers", "group", HF_CONF_STRING, AT(servers.group), .max = 63, .def = "",
     .doc = "Group of holdfastd whose databases are the servers; empty: the server sections"},
    {"servers", "port", HF_CONF_INT, AT(servers.port), .min = 1, .max = 65535, .def = "5432",
     .doc = "Where the group's servers listen that have no server section", .live = true},
    {"servers", "exclusive", HF_CONF_BOOL, AT(servers.exclusive), .def = "false",
     .doc = "Only this holdfast-pg writes to the servers of the list, so that it may decide itself "
            "what an interrupted COMMIT became; false: such a COMMIT is answered 08007",
     .live = true},
    {"servers", "health_interval", HF_CONF_DURATION, AT(servers.health_interval_ms), .min = 50,
     .max = 3600000, .def = "1s", .doc = "Between looks at a server", .live = true},
    {"servers", "health_timeout", HF_CONF_DURATION, AT(servers.health_timeout_ms), .min = 50,
     .max = 3600000, .def = "3s", .doc = "A server silent for so long is taken for dead",
     .live = true},
    {"servers", "balance", HF_CONF_BOOL, AT(servers.balance), .def = "false",
     .doc = "Move sessions from busy servers to others", .live = true},
    {"servers", "balance_tick", HF_CONF_DURATION, AT(servers.balance_tick_ms), .min = 1000,
     .max = DAY_MS, .def = "30s", .doc = "Between looks at the balance", .live = true},
    {"servers", "balance_dead_zone", HF_CONF_INT, AT(servers.balance_dead_zone), .min = 1,
     .max = 100, .def = "15", .doc = "Per cent around the mean in which nothing is moved",
     .live = true},
    {"servers", "balance_rate", HF_CONF_INT, AT(servers.balance_rate), .min = 1, .max = 100,
     .def = "50", .doc = "Per cent of what is over that are moved in a tick", .live = true},
    {"service", "address", HF_CONF_ADDR, AT(service.address), .port = HF_PG_PORT, .none = "none",
     .def = "none",
     .doc = "Address whose clients keep their connections when this host dies; a group with the "
            "agent ocf:holdfast:pg decides which host has it"},
    {"service", "interface", HF_CONF_STRING, AT(service.interface), .max = 15, .def = "",
     .doc = "Interface that the service address is put on"},
    {"service", "prefix_length", HF_CONF_INT, AT(service.prefix_length), .min = 0, .max = 128,
     .def = "0", .doc = "Length of its network part; 0: the address alone (32, 128)"},
    {"service", "peer_listen", HF_CONF_ADDR, AT(service.peer_listen), .port = HF_PG_PEER_PORT,
     .def = "0.0.0.0",
     .doc = "Where the holdfast-pg that serves connects when this one is backup; all hosts' have "
            "the same port"},
    {"service", "key_file", HF_CONF_STRING, AT(service.key_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "/etc/holdfast/cluster.key",
     .doc = "The cluster's key (holdfast keygen): managers know each other by it"},
    {"service", "host", HF_CONF_STRING, AT(service.host), .max = 63, .def = "",
     .doc = "This host's name in the cluster; empty: the system's"},
    {"service", "control", HF_CONF_STRING, AT(service.control), .max = 100,
     .check = hf_conf_check_path, .def = HF_PG_CONTROL_PATH, .doc = "Socket that the agent asks"},
    {"service", "lease", HF_CONF_DURATION, AT(service.lease_ms), .min = 0, .max = 60000,
     .def = "200ms",
     .doc = "How long the host that serves may go on without word from its backup, which waits as "
            "long before it takes over; 0: for ever, only where the group fences"},
    {"service", "warm", HF_CONF_INT, AT(service.warm), .min = 0, .max = HF_PG_WARM_MAX, .def = "0",
     .doc = "Server connections that a backup keeps logged in, for the most recently active of the "
            "sessions it may have to go on with; for all of them (at most 1000) it logs in when it "
            "loses its primary or a switch is prepared",
     .live = true},
    {"log", "level", HF_CONF_ENUM, AT(log.level), .names = hf_conf_levels, .def = "info",
     .doc = "Least important level that is written", .live = true},
    {"log", "trace", HF_CONF_SET, AT(log.trace), .names = hf_conf_traces, .def = "",
     .doc = "Subsystems to trace", .live = true},
};

static int finish_tls(struct hf_conf_load *load, const struct hf_pg_config *c)
{
    const struct hf_pg_tls_config *t = &c->client_tls;
    if (t->sslmode > 0 && (!*t->cert_file || !*t->key_file)) {
        return hf_conf_refuse(load, "client_tls.sslmode",
                              "TLS with clients needs client_tls.cert_file and key_file");
    }
    if (t->sslmode >= 4 && !*t->ca_file) {
        return hf_conf_refuse(load, "client_tls.sslmode",
                              "to verify clients needs client_tls.ca_file");
    }
    if (c->server_tls.sslmode >= 4 && !*c->server_tls.ca_file) {
        return hf_conf_refuse(load, "server_tls.sslmode",
                              "to verify servers needs server_tls.ca_file");
    }
    if (!*c->server_tls.cert_file != !*c->server_tls.key_file) {
        return hf_conf_refuse(load, "server_tls.cert_file", "needs server_tls.key_file, too");
    }
    return 0;
}

static int finish(struct hf_conf_load *load, void *snapshot)
{
    const struct hf_pg_config *c = snapshot;
    if (*c->servers.group && c->server.n > 0) {
        return hf_conf_refuse(load, "servers.group",
                              "the servers come from the group: leave the server sections out");
    }
    if (!*c->servers.group && c->server.n == 0) {
        return hf_conf_refuse(load, "servers.group",
                              "no servers: name a group here, or give server sections");
    }
    if (c->pg.listen.n == 0 && c->pg.listen_read_only.n == 0) {
        return hf_conf_refuse(load, "pg.listen", "nowhere to listen: give an address");
    }
    if (c->service.address.len && !*c->service.interface) {
        return hf_conf_refuse(load, "service.interface", "the service address needs an interface");
    }
    if (*c->auth.query && !*c->auth.user) {
        return hf_conf_refuse(load, "auth.query", "needs auth.user to ask it");
    }
    return finish_tls(load, c);
}

const struct hf_conf_schema hf_pg_config_schema = {
    .opt = options,
    .n_opts = HF_ARRAY_LEN(options),
    .size = sizeof(struct hf_pg_config),
    .finish = finish,
    .titled = titled,
    .n_titled = HF_ARRAY_LEN(titled),
    .page = "holdfast-pg.conf(5)",
};

int hf_pg_config_load(const char *path, struct hf_err *err, struct hf_pg_config **ret_config)
{
    void *snapshot;
    int rc = hf_conf_load(&hf_pg_config_schema, path, err, &snapshot);
    if (rc == 0) {
        *ret_config = snapshot;
    }
    return rc;
}

void hf_pg_config_destroy(struct hf_pg_config *c)
{
    hf_conf_destroy(&hf_pg_config_schema, c);
}

enum hf_log_level hf_pg_config_level(const struct hf_pg_config *c)
{
    return hf_conf_level(c->log.level);
}

unsigned hf_pg_config_socket_mode(const struct hf_pg_config *c)
{
    return (unsigned)strtoul(c->pg.unix_socket_mode, NULL, 8);
}
