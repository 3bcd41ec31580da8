/* The table of holdfast-sip's options. */
#include "sip/config.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"

#define AT(member) offsetof(struct hf_sip_config, member)
#define LISTEN(member) offsetof(struct hf_sip_listen_config, member)
#define PATH_LEN_MAX 4095
#define DAY_MS (24 * 3600000LL)
#define YEAR_MS (365 * DAY_MS)
#define COUNT_MAX 1000000000LL

static const char *const roles[] = {
#define ROLE_NAME(id, name) name,
    HF_SIP_ROLE_LIST(ROLE_NAME)
#undef ROLE_NAME
        NULL};
static const char *const policies[] = {
#define POLICY_NAME(id, name) name,
    HF_SIP_POLICY_LIST(POLICY_NAME)
#undef POLICY_NAME
        NULL};
static const char *const algorithms[] = {
#define ALGORITHM_NAME(id, name, n) name,
    HF_SIP_ALGORITHM_LIST(ALGORITHM_NAME)
#undef ALGORITHM_NAME
        NULL};
static const char *const transports[] = {"udp", "tcp", "tls", NULL}; /* enum hf_sip_transport */

/* A name or an address as in a URI: it goes into Via, Contact and Path. */
static const char *check_host(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-[]:");
    return n > 0 && !s[n] ? NULL : "a host name or address";
}

static const char *check_domain(const char *s)
{
    for (; *s; s++) {
        if (isupper((unsigned char)*s)) {
            return "a host name in lower case";
        }
        if (!isalnum((unsigned char)*s) && !strchr(".-[]:", *s)) {
            return "a host name";
        }
    }
    return NULL;
}

static const char *check_quotable(const char *s)
{
    return strpbrk(s, "\"\\\r\n") ? "text without quotes and backslashes" : NULL;
}

static const char *check_database(const char *s)
{
    return strncmp(s, "sqlite:/", 8) == 0 || strncmp(s, "postgresql://", 13) == 0 ||
                   strncmp(s, "postgres://", 11) == 0 || strchr(s, '=')
               ? NULL
               : "sqlite:/PATH, postgresql://..., or host=... dbname=...";
}

bool hf_sip_config_net(const char *text, struct hf_sip_net *ret_net)
{
    char address[HF_ADDR_STR_LEN];
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    struct hf_addr a;
    if (n >= sizeof(address)) {
        return false;
    }
    memcpy(address, text, n);
    address[n] = '\0';
    if (strchr(address, ']') || hf_addr_parse(address, 0, NULL, &a)) {
        return false;
    }
    struct hf_endpoint at = hf_addr_to_endpoint(&a);
    unsigned long most = at.family == HF_AF_INET ? 32 : 128, bits = most;
    if (slash) {
        char *rest;
        bits = strtoul(slash + 1, &rest, 10);
        if (!isdigit((unsigned char)slash[1]) || *rest || bits > most) {
            return false;
        }
    }
    *ret_net = (struct hf_sip_net){.at = at, .bits = (uint8_t)bits};
    return at.port == 0;
}

static const char *check_net(const char *s)
{
    struct hf_sip_net net;
    return hf_sip_config_net(s, &net) ? NULL : "an address or ADDRESS/BITS";
}

static const char *check_watcher(const char *s)
{
    bool word = strcmp(s, "domain") == 0 || strcmp(s, "none") == 0;
    const char *at = strchr(s, '@');
    bool who = at && at[1] && !check_domain(at + 1) && (at == s || strncmp(s, "sip:", 4) == 0);
    return word || who ? NULL : "domain, none, @DOMAIN, or sip:USER@DOMAIN";
}

static const struct hf_conf_opt listen_options[] = {
    {"", "transport", HF_CONF_ENUM, LISTEN(transport), .names = transports, .def = "udp",
     .doc = "What is spoken there"},
    {"", "address", HF_CONF_ADDR, LISTEN(address), .def = "0.0.0.0",
     .doc = "Where to listen; without a port 5060, or 5061 for tls"},
    {"", "host", HF_CONF_STRING, LISTEN(host), .max = 255, .check = check_host, .def = "",
     .doc = "Name or address that others reach it by, for Via, Contact and Path; empty: the "
            "address, which must not be 0.0.0.0 or [::] then"},
    {"", "policy", HF_CONF_ENUM, LISTEN(policy), .names = policies, .def = "redirect",
     .doc = "What becomes of a client that belongs to another server: it is redirected there, or "
            "proxied, or redirected if its kind has shown that it follows"},
    {"", "external", HF_CONF_BOOL, LISTEN(external), .def = "false",
     .doc = "Role edge: this is the side of its clients"},
    {"", "elsewhere", HF_CONF_BOOL, LISTEN(elsewhere), .def = "false",
     .doc = "The address may be on another host now: a service address that a group brings here "
            "when that host dies"},
};

static const struct hf_conf_titled titled[] = {
    {"listen", AT(listen), sizeof(struct hf_sip_listen_config), listen_options,
     HF_ARRAY_LEN(listen_options), HF_SIP_LISTENS_MAX, NULL, "An address to listen at", false},
};

static const struct hf_conf_opt options[] = {
    {"sip", "name", HF_CONF_STRING, AT(sip.name), .max = HF_HOST_NAME_MAX, .def = "",
     .doc = "This server's name in the assignment table and in the tree; empty: the host's"},
    {"sip", "role", HF_CONF_ENUM, AT(sip.role), .names = roles, .def = "home",
     .doc = "home: has clients of its own; distribution: redirects and proxies only; edge: stands "
            "between clients outside and the homes"},
    {"sip", "realm", HF_CONF_STRING, AT(sip.realm), .max = 255, .check = check_quotable, .def = "",
     .doc = "Realm of digest authentication; the same on all servers; empty: the first domain"},
    {"sip", "domains", HF_CONF_LIST, AT(sip.domains), .check = check_domain, .def = "",
     .doc = "Host names in the addresses of this cluster's users"},
    {"sip", "database", HF_CONF_STRING, AT(sip.database), .min = 1, .max = 4000,
     .check = check_database, .def = "sqlite:/var/lib/holdfast-sip/sip.db",
     .doc = "Assignments, users and bindings: sqlite:/PATH (one server, or several on one host), "
            "or PostgreSQL by a URI or keywords as libpq takes them"},
    {"sip", "user", HF_CONF_STRING, AT(sip.user), .max = 32, .def = "",
     .doc =
         "User to become after start; empty: stay as started; SQLite's file and its directory must "
         "be his"},
    {"sip", "key_file", HF_CONF_STRING, AT(sip.key_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "/etc/holdfast/cluster.key",
     .doc = "The cluster's key (holdfast keygen): nonces and the marks of servers stand on it; "
            "empty: a key of its own, for a server that is alone"},
    {"sip", "control", HF_CONF_STRING, AT(sip.control), .min = 1, .max = 100,
     .check = hf_conf_check_path, .def = HF_SIP_CONTROL_PATH,
     .doc = "Socket of the command holdfast sip"},
    {"sip", "group", HF_CONF_STRING, AT(sip.group), .max = HF_GROUP_NAME_MAX, .def = "",
     .doc = "Group of holdfastd whose primary moves clients between servers; empty: this server "
            "never does, or, with an sqlite database, always; hosts that it loses are dead"},
    {"sip", "workers", HF_CONF_INT, AT(sip.workers), .min = 0, .max = 64, .def = "0",
     .doc = "Threads; 0: one for each CPU"},
    {"sip", "weight", HF_CONF_INT, AT(sip.weight), .min = 0, .max = 1000, .def = "100",
     .doc = "This server's share of clients against the others'; 0: it is given nobody",
     .live = true},
    {"sip", "trusted_edges", HF_CONF_LIST, AT(sip.trusted_edges), .check = check_net, .def = "",
     .doc = "Addresses of edges and border controllers: their requests are proxied, never "
            "redirected, and it is who is behind them that limits are for"},
    {"sip", "metrics_listen", HF_CONF_ADDR, AT(sip.metrics_listen), .port = 9660, .none = "none",
     .def = "none", .doc = "Address of the HTTP server with /metrics for Prometheus, and /status"},
    {"sip", "service_route", HF_CONF_STRING, AT(sip.service_route), .max = 255, .def = "",
     .doc = "Service-Route in the answer to a REGISTER (RFC 3608); empty: none"},
    {"auth", "required", HF_CONF_BOOL, AT(auth.required), .def = "true",
     .doc = "Clients must authenticate; false: for tests, anybody is anybody"},
    {"auth", "algorithms", HF_CONF_SET, AT(auth.algorithms), .names = algorithms,
     .def = "SHA-512-256 SHA-256", .doc = "Digest algorithms that are offered (RFC 8760)"},
    {"auth", "nonce_life", HF_CONF_DURATION, AT(auth.nonce_life_ms), .min = 10000, .max = DAY_MS,
     .def = "300s", .doc = "How long a nonce may be used"},
    {"watch", "allow", HF_CONF_LIST, AT(watch.allow), .check = check_watcher, .def = "domain",
     .doc = "Who may watch a user's presence, beside himself: domain (all users of his domain), "
            "@DOMAIN (all of that one), sip:USER@DOMAIN; none: nobody; others get 403, whether "
            "there is such a user or not"},
    {"expires", "default", HF_CONF_DURATION, AT(expires.default_ms), .min = 1000, .max = YEAR_MS,
     .def = "1h", .doc = "Life of a binding for which the client names none"},
    {"expires", "min", HF_CONF_DURATION, AT(expires.min_ms), .min = 1000, .max = YEAR_MS,
     .def = "60s", .doc = "Shorter ones are refused with 423"},
    {"expires", "max", HF_CONF_DURATION, AT(expires.max_ms), .min = 1000, .max = YEAR_MS,
     .def = "2h", .doc = "Longer ones are cut to this"},
    {"limits", "bindings", HF_CONF_INT, AT(limits.bindings), .min = 0, .max = COUNT_MAX, .def = "0",
     .doc = "Bindings of one worker; 0: as many as it is made for"},
    {"limits", "transactions", HF_CONF_INT, AT(limits.transactions), .min = 0, .max = COUNT_MAX,
     .def = "0", .doc = "Transactions of one worker; 0: as many as it is made for"},
    {"limits", "requests", HF_CONF_INT, AT(limits.requests), .min = 0, .max = COUNT_MAX, .def = "0",
     .doc = "Requests of one worker that wait for the database; 0: as many as it is made for"},
    {"limits", "subscriptions", HF_CONF_INT, AT(limits.subscriptions), .min = 0, .max = COUNT_MAX,
     .def = "0", .doc = "Subscriptions of one worker; 0: as many as it is made for"},
    {"limits", "cache", HF_CONF_SIZE, AT(limits.cache), .min = 0, .max = 1LL << 40, .def = "0",
     .doc = "Cached assignments of one worker; 0: 1 GiB"},
    {"limits", "source_rate", HF_CONF_INT, AT(limits.source_rate), .min = 1, .max = COUNT_MAX,
     .def = "200",
     .doc = "Requests per second of one address without good credentials; behind a trusted edge, "
            "of one flow to it"},
    {"limits", "connections", HF_CONF_INT, AT(limits.connections), .min = 1, .max = 1000000,
     .def = "20000",
     .doc = "TCP and TLS connections of one worker; who has said nothing, then who "
            "is idle longest, makes room for others"},
    {"limits", "idle", HF_CONF_DURATION, AT(limits.idle_ms), .min = 1000, .max = YEAR_MS,
     .def = "15m", .doc = "A connection silent for so long is closed"},
    {"limits", "idle_registered", HF_CONF_DURATION, AT(limits.idle_registered_ms), .min = 1000,
     .max = YEAR_MS, .def = "125m",
     .doc = "One over which somebody is registered is closed after so long"},
    {"limits", "output", HF_CONF_SIZE, AT(limits.output), .min = 65536, .max = 1 << 30,
     .def = "256KiB", .doc = "What one connection may leave unread before it is closed"},
    {"tls", "cert_file", HF_CONF_STRING, AT(tls.cert_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Certificate and its chain, PEM"},
    {"tls", "key_file", HF_CONF_STRING, AT(tls.key_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Its key, PEM"},
    {"tls", "ca_file", HF_CONF_STRING, AT(tls.ca_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "",
     .doc = "Who signs certificates of servers, and of clients that have one, PEM"},
    {"tls", "crl_file", HF_CONF_STRING, AT(tls.crl_file), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "", .doc = "Which of them are revoked, PEM"},
    {"tls", "ciphers", HF_CONF_STRING, AT(tls.ciphers), .max = 1000, .def = "",
     .doc = "Ciphers of TLS 1.2, as openssl-ciphers(1); empty: OpenSSL's"},
    {"tls", "clients", HF_CONF_BOOL, AT(tls.clients), .def = "false",
     .doc = "Who connects must show a certificate signed by tls.ca_file"},
    {"tls", "verify_servers", HF_CONF_BOOL, AT(tls.verify_servers), .def = "true",
     .doc = "Servers that are connected to must show one with their name; needs tls.ca_file"},
    {"store", "group_commit", HF_CONF_DURATION, AT(store.group_commit_ms), .min = 1, .max = 10,
     .def = "5ms", .doc = "How long changed bindings wait for others to be committed with them"},
    {"store", "queue", HF_CONF_INT, AT(store.queue), .min = 100, .max = COUNT_MAX, .def = "100000",
     .doc = "What may wait for the database; more is refused"},
    {"store", "timeout", HF_CONF_DURATION, AT(store.timeout_ms), .min = 100, .max = 3600000,
     .def = "5s", .doc = "A database silent for so long is taken for away"},
    {"rebalance", "dead_zone", HF_CONF_INT, AT(rebalance.dead_zone), .min = 1, .max = 100,
     .def = "10", .doc = "Per cent around its share in which a server is left as it is"},
    {"rebalance", "target_zone", HF_CONF_INT, AT(rebalance.target_zone), .min = 1, .max = 100,
     .def = "7", .doc = "Per cent to which it is brought otherwise"},
    {"rebalance", "rate", HF_CONF_INT, AT(rebalance.rate), .min = 1, .max = COUNT_MAX,
     .def = "2000", .doc = "Clients moved per second in all; those of a dead server are not paced"},
    {"rebalance", "rate_to", HF_CONF_INT, AT(rebalance.rate_to), .min = 1, .max = COUNT_MAX,
     .def = "200", .doc = "Those moved per second to one server"},
    {"rebalance", "cpu_max", HF_CONF_INT, AT(rebalance.cpu_max), .min = 1, .max = 100, .def = "90",
     .doc = "Per cent of CPU above which a server counts for less"},
    {"rebalance", "cpu_target", HF_CONF_INT, AT(rebalance.cpu_target), .min = 1, .max = 100,
     .def = "75", .doc = "Per cent to which such a server is to come down"},
    {"rebalance", "patience", HF_CONF_DURATION, AT(rebalance.patience_ms), .min = 1000,
     .max = DAY_MS, .def = "30s",
     .doc = "How long a server is outside the dead zone before clients are moved"},
    {"rebalance", "settle", HF_CONF_DURATION, AT(rebalance.settle_ms), .min = 1000, .max = DAY_MS,
     .def = "60s", .doc = "How long a server has been there before it is given clients"},
    {"dns", "servers", HF_CONF_ADDR_LIST, AT(dns.servers), .port = 53, .def = "",
     .doc = "Name servers; empty: those of the system"},
    {"dns", "timeout", HF_CONF_DURATION, AT(dns.timeout_ms), .min = 100, .max = 60000, .def = "2s",
     .doc = "How long one is waited for; it is asked three times"},
    {"log", "level", HF_CONF_ENUM, AT(log.level), .names = hf_conf_levels, .def = "info",
     .doc = "Least important level that is written", .live = true},
    {"log", "trace", HF_CONF_SET, AT(log.trace), .names = hf_conf_traces, .def = "",
     .doc = "Subsystems to trace", .live = true},
};

/* ---- what belongs together ---- */

static bool is_any(const struct hf_addr *a)
{
    static const uint8_t none[16];
    struct hf_endpoint e = hf_addr_to_endpoint(a);
    return memcmp(e.addr, none, sizeof(none)) == 0;
}

static int finish_listen(struct hf_conf_load *load, const struct hf_sip_config *c,
                         struct hf_sip_listen_config *l)
{
    char key[128];
    struct hf_endpoint e = hf_addr_to_endpoint(&l->address);
    if (e.port == 0) {
        e.port = hf_sip_transport_port((enum hf_sip_transport)l->transport);
        l->address = hf_addr_from_endpoint(&e);
    }
    if (!*l->host && is_any(&l->address)) {
        snprintf(key, sizeof(key), "listen %.80s.host", l->title.name);
        return hf_conf_refuse(load, key,
                              "it listens at all addresses: say by which name or address others "
                              "reach it");
    }
    if (l->transport == HF_SIP_TRANSPORT_TLS && (!*c->tls.cert_file || !*c->tls.key_file)) {
        snprintf(key, sizeof(key), "listen %.80s.transport", l->title.name);
        return hf_conf_refuse(load, key, "TLS needs tls.cert_file and tls.key_file");
    }
    if (l->external && c->sip.role != HF_SIP_ROLE_EDGE) {
        snprintf(key, sizeof(key), "listen %.80s.external", l->title.name);
        return hf_conf_refuse(load, key,
                              "only an edge has an outside: leave it out, or say "
                              "sip.role = edge");
    }
    return 0;
}

static int finish_tls(struct hf_conf_load *load, const struct hf_sip_config *c)
{
    if (!*c->tls.cert_file != !*c->tls.key_file) {
        return hf_conf_refuse(load, "tls.cert_file", "needs tls.key_file, too, and it this");
    }
    if (c->tls.clients && !*c->tls.ca_file) {
        return hf_conf_refuse(load, "tls.clients", "to verify clients needs tls.ca_file");
    }
    return 0;
}

static int finish_numbers(struct hf_conf_load *load, const struct hf_sip_config *c)
{
    if (c->expires.min_ms > c->expires.default_ms || c->expires.default_ms > c->expires.max_ms) {
        return hf_conf_refuse(load, "expires.default",
                              "must be between expires.min and "
                              "expires.max");
    }
    if (c->rebalance.target_zone >= c->rebalance.dead_zone) {
        return hf_conf_refuse(load, "rebalance.target_zone",
                              "must be less than rebalance.dead_zone");
    }
    if (c->rebalance.cpu_target >= c->rebalance.cpu_max) {
        return hf_conf_refuse(load, "rebalance.cpu_target", "must be less than rebalance.cpu_max");
    }
    if (c->auth.required && c->auth.algorithms == 0) {
        return hf_conf_refuse(load, "auth.algorithms",
                              "none: name one, or say auth.required = "
                              "false");
    }
    return 0;
}

static int finish_watch(struct hf_conf_load *load, const struct hf_sip_config *c)
{
    for (size_t i = 0; i < c->watch.allow.n && c->watch.allow.n > 1; i++) {
        if (strcmp(c->watch.allow.item[i], "none") == 0) {
            return hf_conf_refuse(load, "watch.allow", "none, and somebody: leave one out");
        }
    }
    return c->watch.allow.n ? 0 : hf_conf_refuse(load, "watch.allow", "empty: say none for nobody");
}

static int finish(struct hf_conf_load *load, void *snapshot)
{
    struct hf_sip_config *c = snapshot;
    char machine[HF_HOST_NAME_MAX + 1];
    int rc = 0;
    if (!*c->sip.name) {
        hf_conf_machine_name(machine);
        rc = hf_conf_set_string(&c->sip.name, machine);
    }
    if (rc == 0 && !hf_host_name_ok(hf_slice_str(c->sip.name))) {
        return hf_conf_refuse(load, "sip.name",
                              "'%s' is not a host's name (a DNS label in lower "
                              "case): give one",
                              c->sip.name);
    }
    if (rc == 0 && c->listen.n == 0) {
        return hf_conf_refuse(load, "sip.name",
                              "nowhere to listen: give a section listen NAME { "
                              "address = ... }");
    }
    if (rc == 0 && c->sip.domains.n == 0) {
        return hf_conf_refuse(load, "sip.domains", "none: name those of your users' addresses");
    }
    if (rc == 0 && c->sip.trusted_edges.n > HF_SIP_EDGES_MAX) {
        return hf_conf_refuse(load, "sip.trusted_edges", "at most %d", HF_SIP_EDGES_MAX);
    }
    for (size_t i = 0; rc == 0 && i < c->listen.n; i++) {
        rc = finish_listen(load, c, &((struct hf_sip_listen_config *)c->listen.item)[i]);
    }
    rc = rc ? rc : finish_tls(load, c);
    rc = rc ? rc : finish_watch(load, c);
    return rc ? rc : finish_numbers(load, c);
}

const struct hf_conf_schema hf_sip_config_schema = {
    .opt = options,
    .n_opts = HF_ARRAY_LEN(options),
    .size = sizeof(struct hf_sip_config),
    .finish = finish,
    .titled = titled,
    .n_titled = HF_ARRAY_LEN(titled),
    .page = "holdfast-sip.conf(5)",
};

int hf_sip_config_load(const char *path, struct hf_err *err, struct hf_sip_config **ret_config)
{
    void *snapshot;
    int rc = hf_conf_load(&hf_sip_config_schema, path, err, &snapshot);
    if (rc == 0) {
        *ret_config = snapshot;
    }
    return rc;
}

int hf_sip_config_load_mem(const char *name, struct hf_slice text, struct hf_err *err,
                           struct hf_sip_config **ret_config)
{
    void *snapshot;
    int rc = hf_conf_load_mem(&hf_sip_config_schema, name, text, err, &snapshot);
    if (rc == 0) {
        *ret_config = snapshot;
    }
    return rc;
}

void hf_sip_config_destroy(struct hf_sip_config *c)
{
    hf_conf_destroy(&hf_sip_config_schema, c);
}

enum hf_log_level hf_sip_config_level(const struct hf_sip_config *c)
{
    return hf_conf_level(c->log.level);
}

const char *hf_sip_config_realm(const struct hf_sip_config *c)
{
    return *c->sip.realm ? c->sip.realm : c->sip.domains.item[0];
}
