#include "hostd/config.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/name.h"

#define AT(member) offsetof(struct hf_hostd_config, member)
#define PATH_LEN_MAX 4095
#define SOCKET_PATH_LEN_MAX 107 /* sun_path of unix(7), with its NUL 108 */
#define ONE_HOUR_MS 3600000

static const char *const transports[] = {"multicast", "unicast", NULL};
static const char *const syncs[] = {"pull", "dump", NULL};
static const char *const engines[] = {"embedded", "corosync", NULL};

static const char *check_label(const char *s)
{
    return hf_host_name_ok(hf_slice_str(s))
               ? NULL
               : "a DNS label: 1 to 63 lower case letters, digits and hyphens (not first or last)";
}

static const char *check_domain(const char *s)
{
    while (*s) {
        size_t n = strcspn(s, ".");
        if (!hf_host_name_ok(hf_slice(s, n)) || (s[n] == '.' && s[n + 1] == '\0')) {
            return "a domain of lower case labels without a dot at the end, as holdfast.internal";
        }
        s += n + (s[n] == '.');
    }
    return NULL;
}

/* HOST, HOST:PLUG or *. */
static const char *check_fenced(const char *s)
{
    size_t n = strcspn(s, ":");
    bool every = n == 1 && *s == '*';
    bool plug = s[n] == '\0' || s[n + 1] != '\0';
    return (every || hf_host_name_ok(hf_slice(s, n))) && plug ? NULL : "HOST, HOST:PLUG or \"*\"";
}

static const char *check_option_name(const char *s)
{
    bool ours = strcmp(s, "action") == 0 || strcmp(s, "plug") == 0;
    return ours ? "an option of the agent; Holdfast itself gives action and plug" : NULL;
}

#define FENCE(member) offsetof(struct hf_hostd_fence, member)
static const struct hf_conf_opt fence_options[] = {
    {"", "agent", HF_CONF_STRING, FENCE(agent), .min = 1, .max = PATH_LEN_MAX, .def = "",
     .required = true, .doc = "Agent of fence-agents, as fence_ipmilan, or the path of one"},
    {"", "hosts", HF_CONF_LIST, FENCE(hosts), .check = check_fenced, .def = "",
     .doc =
         "Hosts that it can fence, each as HOST or as HOST:PLUG if the device knows it by another "
         "name; \"*\": all"},
    {"", "options", HF_CONF_PAIRS, FENCE(options), .check = check_option_name, .def = "",
     .doc = "Options of the agent, as its manual page calls them"},
    {"", "level", HF_CONF_INT, FENCE(level), .min = 1, .max = 9, .def = "1",
     .doc =
         "The lowest level is tried first; all devices of a level that know a host must succeed"},
    {"", "timeout", HF_CONF_DURATION, FENCE(timeout_ms), .min = 1000, .max = ONE_HOUR_MS,
     .def = "60s", .doc = "Longest time of one action of it"},
};

static const struct hf_conf_titled titled[] = {
    {"fence", AT(fence), sizeof(struct hf_hostd_fence), fence_options, HF_ARRAY_LEN(fence_options),
     HF_FENCE_STEPS_MAX, NULL,
     "A device that fences hosts: makes sure that they are off before others take over", true},
};

/* The one place that says what can be configured. Rows of one section stand together. */
static const struct hf_conf_opt options[] = {
    {"", "user", HF_CONF_STRING, AT(user), .max = 32, .def = "",
     .doc = "User to become after start; empty: stay as started"},
    {"cluster", "key_file", HF_CONF_STRING, AT(cluster.key_file), .min = 1, .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "/etc/holdfast/cluster.key",
     .doc = "File with the cluster key, the same on all hosts; \"holdfast keygen\" makes one"},
    {"host", "name", HF_CONF_STRING, AT(host.name), .max = HF_HOST_NAME_MAX, .check = check_label,
     .def = "",
     .doc = "Name of this host, unique in the cluster; empty: the machine's host name "
            "up to the first dot"},
    {"host", "address", HF_CONF_ADDR, AT(host.address), .none = "none", .def = "none",
     .doc = "Address at which the others reach this host; none: the source address of its "
            "advertisements"},
    {"directory", "transport", HF_CONF_ENUM, AT(directory.transport), .names = transports,
     .def = "multicast",
     .doc = "How advertisements travel: to a multicast group, or to each of "
            "directory.peers where there is no multicast (clouds)"},
    {"directory", "group", HF_CONF_ADDR, AT(directory.group), .def = "239.192.74.80",
     .doc = "Multicast group, IPv4 or IPv6 (as ff15::4a50), the same on all hosts"},
    {"directory", "interface", HF_CONF_STRING, AT(directory.interface), .max = 15, .def = "",
     .doc = "Network interface for the group; empty: the kernel's choice by its routes"},
    {"directory", "ttl", HF_CONF_INT, AT(directory.ttl), .min = 1, .max = 255, .def = "1",
     .doc = "Multicast hops: 1 stays in the local network"},
    {"directory", "port", HF_CONF_INT, AT(directory.port), .min = 1, .max = 65535, .def = "7480",
     .doc = "Port for advertisements (UDP) and pulls (TCP), the same on all hosts"},
    {"directory", "listen", HF_CONF_ADDR, AT(directory.listen), .none = "auto", .def = "auto",
     .doc = "Local address for advertisements and pulls; auto: all of the group's family"},
    {"directory", "peers", HF_CONF_ADDR_LIST, AT(directory.peers), .def = "",
     .doc = "Other hosts, for transport unicast; its own address in the list does no harm",
     .live = true},
    {"directory", "heartbeat", HF_CONF_DURATION, AT(directory.heartbeat_ms), .min = 100,
     .max = 60000, .def = "1s",
     .doc = "Period of heartbeats; grows by itself where there are more than 500 hosts; a host's "
            "services leave the tree 4 periods after it fell silent"},
    {"directory", "sync", HF_CONF_ENUM, AT(directory.sync), .names = syncs, .def = "pull",
     .doc = "How a newcomer gets the tree: pull from each owner, or one state dump and repair"},
    {"directory", "sync_wait", HF_CONF_DURATION, AT(directory.sync_wait_ms), .min = 0,
     .max = ONE_HOUR_MS, .def = "10s",
     .doc = "Longest wait for the tree at start before this host announces itself"},
    {"directory", "listen_wait", HF_CONF_DURATION, AT(directory.listen_wait_ms), .min = 0,
     .max = ONE_HOUR_MS, .def = "0",
     .doc = "How long to listen for others at start; 0: two heartbeats"},
    {"http", "listen", HF_CONF_ADDR, AT(http.listen), .port = 7481, .none = "none",
     .def = "127.0.0.1:7481",
     .doc = "Address of the read-only HTTP interface (dashboard, tree, events, metrics)"},
    {"dns", "listen", HF_CONF_ADDR, AT(dns.listen), .port = 53, .none = "none", .def = "none",
     .doc = "Address of the DNS server"},
    {"dns", "domain", HF_CONF_STRING, AT(dns.domain), .min = 1, .max = 200, .check = check_domain,
     .def = "holdfast.internal", .doc = "Domain under which DNS answers"},
    {"dns", "ttl", HF_CONF_DURATION, AT(dns.ttl_ms), .min = 0, .max = ONE_HOUR_MS, .def = "5s",
     .doc = "How long resolvers may keep an answer, in whole seconds", .live = true},
    {"control", "socket", HF_CONF_STRING, AT(control.socket), .min = 1, .max = SOCKET_PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "/run/holdfast/control.sock",
     .doc = "Socket for local programs and the holdfast command"},
    {"control", "group", HF_CONF_STRING, AT(control.group), .max = 32, .def = "",
     .doc = "Group whose members may use the socket; empty: only its owner"},
    {"state", "dir", HF_CONF_STRING, AT(state.dir), .min = 1, .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "/var/lib/holdfast",
     .doc = "Directory for what must outlive a restart"},
    {"log", "level", HF_CONF_ENUM, AT(log.level), .names = hf_conf_levels, .def = "info",
     .doc = "Least important level that is written", .live = true},
    {"log", "trace", HF_CONF_SET, AT(log.trace), .names = hf_conf_traces, .def = "",
     .doc = "Subsystems to trace from the start, as \"holdfast trace\" does at run time",
     .live = true},
    {"engine", "type", HF_CONF_ENUM, AT(engine.type), .names = engines, .def = "embedded",
     .doc = "Engine for groups: embedded in holdfastd, for one machine; corosync, for several"},
    {"engine", "run_dir", HF_CONF_STRING, AT(engine.run_dir), .max = 60,
     .check = hf_conf_check_path, .def = "",
     .doc = "embedded: directory that the daemons of one machine share; empty: this daemon alone"},
    {"engine", "expected_votes", HF_CONF_INT, AT(engine.expected_votes), .min = 0,
     .max = HF_GROUP_MEMBERS_MAX, .def = "0",
     .doc = "embedded: daemons in all, of which a majority is the quorum; 0: no quorum is needed"},
    {"engine", "silence", HF_CONF_DURATION, AT(engine.silence_ms), .min = 0, .max = 60000,
     .def = "1s",
     .doc =
         "A pause of this process longer than this may have excluded it; embedded: who is silent "
         "for so long is passed over"},
    {"group", "boot_wait", HF_CONF_DURATION, AT(group.boot_wait_ms), .min = 1, .max = 3600000,
     .def = "20s",
     .doc = "When all hosts of a group were down: how long those that are back wait for its former "
            "primary host before they fence it"},
    {"agents", "root", HF_CONF_STRING, AT(agents.root), .min = 1, .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "/usr/lib/ocf",
     .doc = "Directories (DIR:DIR) in which resource.d/PROVIDER/TYPE are OCF agents"},
    {"watchdog", "device", HF_CONF_STRING, AT(watchdog.device), .max = PATH_LEN_MAX,
     .check = hf_conf_check_path, .def = "",
     .doc = "The kernel's watchdog, as /dev/watchdog, used while this host hosts a resource that "
            "needs fencing; empty: none"},
    {"watchdog", "timeout", HF_CONF_DURATION, AT(watchdog.timeout_ms), .min = 2000, .max = 600000,
     .def = "10s",
     .doc = "It restarts this host when holdfastd has not run for so long, or has not stopped what "
            "needs fencing so long after the quorum was lost"},
};

static in_port_t *port_of(struct hf_addr *a)
{
    struct sockaddr *sa = (struct sockaddr *)(void *)&a->ss;
    return sa->sa_family == AF_INET6 ? &((struct sockaddr_in6 *)(void *)sa)->sin6_port
                                     : &((struct sockaddr_in *)(void *)sa)->sin_port;
}

/* Addresses that go with directory.port get it, and may not say another one. */
static int join_port(struct hf_conf_load *load, const char *key, struct hf_addr *a, int64_t port)
{
    if (a->len == 0) {
        return 0;
    }
    in_port_t given = ntohs(*port_of(a));
    if (given && given != port) {
        return hf_conf_refuse(load, key, "got port %u, expected none or %lld (directory.port)",
                              given, (long long)port);
    }
    *port_of(a) = htons((in_port_t)port);
    return 0;
}

static int finish_group(struct hf_conf_load *load, struct hf_hostd_config *c)
{
    const struct sockaddr_in *v4 = (const void *)&c->directory.group.ss;
    const struct sockaddr_in6 *v6 = (const void *)&c->directory.group.ss;
    bool is_v6 = c->directory.group.ss.ss_family == AF_INET6;
    if (is_v6 ? !IN6_IS_ADDR_MULTICAST(&v6->sin6_addr)
              : !IN_MULTICAST(ntohl(v4->sin_addr.s_addr))) {
        return hf_conf_refuse(load, "directory.group",
                              "expected a multicast address: 224.0.0.0/4 or ff00::/8; for hosts "
                              "without multicast set transport = unicast and peers");
    }
    if (is_v6 && IN6_IS_ADDR_MC_LINKLOCAL(&v6->sin6_addr) && *c->directory.interface == '\0') {
        return hf_conf_refuse(load, "directory.interface",
                              "got none, expected an interface: the group is link-local");
    }
    return 0;
}

/* What is wanted by default, of the family that advertisements use. */
static int finish_listen(struct hf_conf_load *load, struct hf_hostd_config *c)
{
    bool unicast = c->directory.transport == HF_HOSTD_UNICAST;
    const struct hf_addr *like = unicast ? &c->directory.peers.addr[0] : &c->directory.group;
    struct hf_addr *listen = &c->directory.listen;
    if (listen->len == 0) {
        *listen = (struct hf_addr){.len = like->len};
        listen->ss.ss_family = like->ss.ss_family; /* all zero: the wildcard */
    }
    if (listen->ss.ss_family != like->ss.ss_family) {
        return hf_conf_refuse(load, "directory.listen",
                              "is not of the family (IPv4 or IPv6) of %s; use auto or one that is",
                              unicast ? "directory.peers" : "directory.group");
    }
    return 0;
}

static int finish_directory(struct hf_conf_load *load, struct hf_hostd_config *c)
{
    int64_t port = c->directory.port;
    if (c->directory.transport == HF_HOSTD_UNICAST && c->directory.peers.n == 0) {
        return hf_conf_refuse(load, "directory.peers",
                              "got none, expected the other hosts' addresses, because "
                              "directory.transport is unicast");
    }
    for (size_t i = 0; i < c->directory.peers.n; i++) {
        in_port_t *p = port_of(&c->directory.peers.addr[i]);
        *p = *p ? *p : htons((in_port_t)port);
    }
    int rc = finish_group(load, c);
    rc = rc ? rc : finish_listen(load, c);
    rc = rc ? rc : join_port(load, "directory.group", &c->directory.group, port);
    rc = rc ? rc : join_port(load, "directory.listen", &c->directory.listen, port);
    rc = rc ? rc : join_port(load, "host.address", &c->host.address, port);
    if (rc == 0 && c->directory.listen_wait_ms == 0) {
        c->directory.listen_wait_ms = 2 * c->directory.heartbeat_ms;
    }
    return rc;
}

static bool is_wildcard(const struct hf_addr *a)
{
    const struct sockaddr_in *v4 = (const void *)&a->ss;
    const struct sockaddr_in6 *v6 = (const void *)&a->ss;
    return a->ss.ss_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr)
                                       : v4->sin_addr.s_addr == INADDR_ANY;
}

/* Would two TCP listeners be in each other's way? */
static bool collide(struct hf_addr a, struct hf_addr b)
{
    if (a.len == 0 || b.len == 0 || *port_of(&a) != *port_of(&b)) {
        return false;
    }
    struct hf_endpoint ea = hf_addr_to_endpoint(&a);
    struct hf_endpoint eb = hf_addr_to_endpoint(&b);
    return is_wildcard(&a) || is_wildcard(&b) || hf_endpoint_eq(&ea, &eb);
}

static int finish_fence(struct hf_conf_load *load, const struct hf_hostd_config *c)
{
    const struct hf_hostd_fence *f = c->fence.item;
    for (size_t i = 0; i < c->fence.n; i++) {
        if (f[i].hosts.n == 0) {
            char key[192];
            snprintf(key, sizeof(key), "fence %.64s", f[i].title.name);
            return hf_conf_refuse(load, key, "has no hosts: list those that it can fence");
        }
    }
    return 0;
}

static int finish(struct hf_conf_load *load, void *snapshot)
{
    struct hf_hostd_config *c = snapshot;
    if (*c->host.name == '\0') {
        char name[HF_HOST_NAME_MAX + 1];
        hf_conf_machine_name(name);
        if (check_label(name)) {
            return hf_conf_refuse(load, "host.name",
                                  "the machine's host name \"%s\" is not a DNS label; set one here",
                                  name);
        }
        int rc = hf_conf_set_string(&c->host.name, name);
        if (rc) {
            return rc;
        }
    }
    int rc = finish_directory(load, c);
    rc = rc ? rc : finish_fence(load, c);
    if (rc) {
        return rc;
    }
    if (collide(c->http.listen, c->directory.listen)) {
        return hf_conf_refuse(load, "http.listen",
                              "has the address and port of directory.listen; choose another port");
    }
    if (collide(c->dns.listen, c->directory.listen) || collide(c->dns.listen, c->http.listen)) {
        return hf_conf_refuse(load, "dns.listen",
                              "has the address and port of another listener; choose another port");
    }
    return 0;
}

const struct hf_conf_schema hf_hostd_config_schema = {
    .opt = options,
    .n_opts = HF_ARRAY_LEN(options),
    .size = sizeof(struct hf_hostd_config),
    .finish = finish,
    .titled = titled,
    .n_titled = HF_ARRAY_LEN(titled),
};

int hf_hostd_config_load(const char *path, struct hf_err *err, struct hf_hostd_config **ret_config)
{
    void *snapshot;
    int rc = hf_conf_load(&hf_hostd_config_schema, path, err, &snapshot);
    if (rc == 0) {
        *ret_config = snapshot;
    }
    return rc;
}

void hf_hostd_config_destroy(struct hf_hostd_config *c)
{
    hf_conf_destroy(&hf_hostd_config_schema, c);
}

void hf_hostd_config_print(const struct hf_hostd_config *c, struct hf_buf *out)
{
    hf_conf_print(&hf_hostd_config_schema, c, out);
}

enum hf_log_level hf_hostd_config_level(const struct hf_hostd_config *c)
{
    return hf_conf_level(c->log.level);
}
