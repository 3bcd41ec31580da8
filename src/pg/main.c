/* holdfast-pg: start, run, reload, stop. */
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "os/daemon.h"
#include "os/egress.h"
#include "os/file.h"
#include "os/program.h"
#include "pg/cancel.h"
#include "pg/client.h"
#include "pg/linger.h"
#include "pg/listener.h"
#include "pg/names.h"
#include "pg/query.h"
#include "pg/route.h"
#include "pg/rules.h"
#include "pg/service.h"
#include "pg/watch.h"
#include "pg/web.h"

#define OTHER_FILES 256 /* descriptors beside those of clients and servers */

static int load(const char *path, struct hf_err *err, struct hf_pg_config **ret_config,
                struct hf_pg_rules **ret_rules)
{
    uint8_t key[HF_PG_KEY_LEN];
    int rc = hf_pg_config_load(path, err, ret_config);
    if (rc) {
        return rc;
    }
    rc = getrandom(key, sizeof(key), 0) < 0 ? hf_err_set(err, -errno, "no random numbers") : 0;
    rc = rc ? rc : hf_pg_rules_load(*ret_config, key, err, ret_rules);
    explicit_bzero(key, sizeof(key));
    if (rc) {
        hf_pg_config_destroy(*ret_config);
    }
    return rc;
}

static int check(const char *path)
{
    struct hf_err err;
    struct hf_pg_config *config;
    struct hf_pg_rules *rules;
    if (load(path, &err, &config, &rules)) {
        fprintf(stderr, "holdfast-pg: %s\n", err.text);
        return 1;
    }
    hf_pg_rules_unref(rules);
    hf_pg_config_destroy(config);
    printf("%s is valid\n", path);
    return 0;
}

static void on_signal(void *arg, int signo)
{
    struct hf_pg *pg = arg;
    struct hf_err err;
    if (signo == SIGHUP) {
        (void)!hf_pg_reload(pg, &err); /* logged there */
        return;
    }
    hf_log_info("", "signal %d: %s", signo,
                signo == SIGINT ? "ending when all transactions have ended" : "ending");
    hf_pg_stop(pg, signo == SIGINT);
}

/* ---- capabilities: of a service address; without one none at all is needed ---- */

static const struct {
    int number;
    const char *name, *what;
} caps[] = {
    {CAP_NET_ADMIN, "CAP_NET_ADMIN",
     "to put the address on its interface, to guard it, and to restore connections (TCP_REPAIR)"},
    {CAP_NET_RAW, "CAP_NET_RAW",
     "to probe clients, to send what the guard held, and to tell neighbours where the address is"},
    {CAP_BPF, "CAP_BPF", "for a guard that is a BPF program"},
    {CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE", "to listen at a port below 1024"},
};

static bool is_low(const struct hf_addr *a)
{
    return a->len && hf_addr_to_endpoint(a).port < 1024;
}

static uint64_t needed(const struct hf_pg_config *c)
{
    uint64_t need = 1ull << CAP_NET_ADMIN | 1ull << CAP_NET_RAW | 1ull << CAP_BPF;
    if (is_low(&c->service.address) || is_low(&c->service.peer_listen)) {
        need |= 1ull << CAP_NET_BIND_SERVICE;
    }
    return c->service.address.len ? need : 0;
}

/* Better now than when this host is to take over. */
static int check_capabilities(const struct hf_pg_config *c, struct hf_err *err)
{
    uint64_t lacks = hf_program_lacks(needed(c));
    for (size_t i = 0; i < HF_ARRAY_LEN(caps); i++) {
        if (!(lacks & 1ull << caps[i].number)) {
            continue;
        }
        if (caps[i].number != CAP_BPF) {
            return hf_err_set(err, -EPERM,
                              "the service address needs %s, %s: start as root, or give it "
                              "(AmbientCapabilities= of systemd.exec(5))",
                              caps[i].name, caps[i].what);
        }
        hf_log_warn("",
                    "%s is missing, %s: the guard is made by NFQUEUE, which is slower, and the "
                    "former host must be fenced before this one takes over",
                    caps[i].name, caps[i].what);
    }
    return 0;
}

static int open_all(void *arg, struct hf_err *err)
{
    struct hf_pg *pg = arg;
    int rc = check_capabilities(pg->config, err);
    if (rc) {
        return rc;
    }
    rc = hf_pg_wire_create(pg->loop, &pg->memory, &pg->wire);
    rc = rc ? rc : hf_poll_reserve(pg->wire->poll, 1);
    if (rc) {
        return hf_err_set(err, rc, "cannot start: %s", hf_strerror(rc));
    }
    rc = hf_pg_query_pool_create(pg, &pg->queries);
    rc = rc ? hf_err_set(err, rc, "out of memory") : hf_pg_route_create(pg, err, &pg->route);
    rc = rc ? rc : hf_pg_listeners_open(pg, err, &pg->listeners);
    rc = rc ? rc : hf_pg_service_open(pg, err, &pg->service);
    rc = rc ? rc : hf_pg_watch_open(pg, err, &pg->watch);
    rc = rc ? rc : hf_pg_web_open(pg, err, &pg->web);
    rc = rc ? rc : hf_program_drop(pg->config->pg.user, needed(pg->config), err);
    rc = rc ? rc : hf_pg_linger_open(pg->config, err, &pg->linger);
    return rc;
}

static void close_all(void *arg)
{
    struct hf_pg *pg = arg;
    size_t pos = 0;
    if (!pg->wire) {
        return;
    }
    hf_pg_web_close(pg->web);
    hf_pg_listeners_close(pg->listeners);
    hf_pg_watch_close(pg->watch);
    pg->watch = NULL;
    hf_pg_service_close(pg->service);
    HF_LIST_FOREACH (client, &pg->clients) {
        hf_pg_client_destroy(HF_CONTAINER_OF(client, struct hf_pg_client, node));
    }
    hf_pg_cancel_close_all(pg);
    hf_pg_route_destroy(pg->route);
    for (struct hf_pg_database *d; (d = hf_map_next(&pg->databases, &pos));) {
        hf_pg_names_destroy(d->names);
        hf_pg_classifier_destroy(d->classifier);
        hf_free(d->name);
        hf_free(d);
    }
    pos = 0;
    for (struct hf_pg_user *u; (u = hf_map_next(&pg->users, &pos));) {
        hf_free(u->name);
        hf_free(u);
    }
    hf_pg_query_pool_destroy(pg->queries);
    hf_pg_sconn_close_all(pg);
    hf_map_fini(&pg->databases);
    hf_map_fini(&pg->users);
    hf_map_fini(&pg->cancels);
    hf_pg_linger_close(pg->linger);
    hf_pg_wire_destroy(pg->wire);
}

static void init(struct hf_pg *pg)
{
    pg->started_at = hf_now();
    (void)!getrandom(&pg->seed, sizeof(pg->seed), 0);
    hf_list_init(&pg->clients);
    hf_list_init(&pg->sconns);
    hf_list_init(&pg->cancelling);
    hf_map_init(&pg->databases, pg->seed);
    hf_map_init(&pg->users, pg->seed);
    hf_map_init(&pg->cancels, pg->seed);
    hf_pg_reign_init(&pg->reign);
    hf_pg_use_config(pg);
}

static bool somebody_listens(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    (void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
    return access(path, F_OK) == 0 && !hf_file_is_stale_socket(&un);
}

/* This host gives the service address up for good. The guard would outlive the configuration: who
 * had the address here later would wonder why nothing of it comes out. */
static int remove_guard(const struct hf_pg_config *c, const char *path, struct hf_err *err)
{
    if (!c->service.address.len) {
        return hf_err_set(err, -HF_EVALUE,
                          "%s has no service.address: which one is to be given up?", path);
    }
    if (somebody_listens(c->service.control)) {
        return hf_err_set(err, -EBUSY,
                          "a holdfast-pg runs with this service address: stop it first");
    }
    const char *interface = c->service.interface;
    struct hf_endpoint address = hf_addr_to_endpoint(&c->service.address);
    return hf_egress_remove(&(struct hf_egress_options){.interfaces = &interface,
                                                        .interfaces_len = 1,
                                                        .addresses = &address,
                                                        .addresses_len = 1,
                                                        .slots_max = 1},
                            err);
}

static int unguard(const char *path)
{
    struct hf_err err = {0};
    struct hf_pg_config *c;
    struct hf_pg_rules *rules;
    int rc = load(path, &err, &c, &rules);
    if (rc == 0) {
        rc = remove_guard(c, path, &err);
        hf_pg_rules_unref(rules);
        hf_pg_config_destroy(c);
    }
    if (rc) {
        fprintf(stderr, "holdfast-pg: %s\n", err.text);
    }
    return rc ? 1 : 0;
}

static const struct hf_daemon daemon_ops = {.name = "holdfast-pg",
                                            .config = HF_PG_CONFIG_FILE,
                                            .task = "unguard",
                                            .task_help =
                                                "take the guard off the service address, which "
                                                "this host gives up for good",
                                            .open = open_all,
                                            .close = close_all,
                                            .on_signal = on_signal};

int main(int argc, char **argv)
{
    struct hf_daemon_args args;
    int code;
    if (!hf_daemon_args(&daemon_ops, argc, argv, &args, &code)) {
        return code;
    }
    if (args.what == HF_DAEMON_CHECK) {
        return check(args.config);
    }
    if (args.what == HF_DAEMON_TASK) {
        return unguard(args.config);
    }
    struct hf_pg *pg = hf_alloc(sizeof(*pg));
    struct hf_err err;
    if (!pg || load(args.config, &err, &pg->config, &pg->rules)) {
        fprintf(stderr, "holdfast-pg: %s\n", pg ? err.text : hf_strerror(-ENOMEM));
        hf_free(pg);
        return 1;
    }
    pg->config_path = args.config;
    hf_program_log_open("holdfast-pg", hf_pg_config_level(pg->config));
    hf_program_harden("holdfast-pg", NULL);
    hf_trace_set_mask(pg->config->log.trace);
    hf_daemon_files(2 * (uint64_t)pg->config->pg.max_clients + OTHER_FILES, "pg.max_clients");
    init(pg);
    int rc = hf_loop_create(&pg->loop);
    rc = rc ? rc : hf_daemon_run(&daemon_ops, pg->loop, pg);
    hf_loop_destroy(pg->loop);
    hf_pg_rules_unref(pg->rules);
    hf_pg_config_destroy(pg->config);
    hf_free(pg);
    return rc ? 1 : 0;
}
