/* holdfast-sip: start, run, reload, stop. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/mem.h"
#include "os/daemon.h"
#include "os/file.h"
#include "os/program.h"
#include "sip/control.h"
#include "sip/lead.h"
#include "sip/node.h"
#include "sip/server.h"
#include "sip/tree.h"
#include "sip/web.h"

#define OTHER_FILES 256 /* descriptors beside those of connections */

/* ---- what the configuration names ---- */

static int load_key(struct hf_sip *s, struct hf_err *err)
{
    struct hf_key key;
    int rc;
    if (!*s->config->sip.key_file) {
        return getrandom(s->nonce_key, sizeof(s->nonce_key), 0) < 0
                   ? hf_err_set(err, -errno, "no random numbers")
                   : 0;
    }
    rc = hf_key_load(s->config->sip.key_file, err, &key);
    rc = rc ? rc : hf_key_derive(&key, hf_slice_str("sip"), s->nonce_key, sizeof(s->nonce_key));
    hf_key_wipe(&key);
    return rc;
}

static int load(struct hf_sip *s, const char *path, struct hf_err *err)
{
    int rc = hf_sip_config_load(path, err, &s->config);
    s->config_path = path;
    return rc;
}

static int check(struct hf_sip *s, const char *path)
{
    struct hf_err err = {0};
    int rc = load(s, path, &err);
    rc = rc ? rc : hf_sip_tls_load(s->config, &err, &s->tls);
    rc = rc ? rc : load_key(s, &err);
    if (rc) {
        fprintf(stderr, "holdfast-sip: %s\n", err.text);
    } else {
        printf("%s is valid\n", path);
    }
    return rc ? 1 : 0;
}

static bool is_sqlite(const struct hf_sip *s)
{
    return strncmp(s->config->sip.database, "sqlite:", 7) == 0;
}

/* The tables; of SQLite its directory, too. As the user who is to use them. */
static int init_database(struct hf_sip *s, struct hf_err *err)
{
    return hf_sip_store_init(s->config->sip.database, err);
}

static int init(struct hf_sip *s, const char *path)
{
    struct hf_err err = {0};
    int rc = load(s, path, &err);
    rc = rc ? rc : hf_program_drop(s->config->sip.user, 0, &err);
    rc = rc ? rc : init_database(s, &err);
    if (rc) {
        fprintf(stderr, "holdfast-sip: %s\n", err.text);
    }
    return rc ? 1 : 0;
}

/* ---- parts ---- */

static int make_listen(struct hf_sip *s, struct hf_sip_place *bind, struct hf_err *err)
{
    const struct hf_sip_config *c = s->config;
    s->n_listen = c->listen.n;
    s->listen = hf_alloc_array(s->n_listen, sizeof(s->listen[0]));
    s->listen_host = hf_alloc_array(s->n_listen, sizeof(s->listen_host[0]));
    if (!s->listen || !s->listen_host) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < s->n_listen; i++) {
        const struct hf_sip_listen_config *l = hf_sip_config_listen(c, i);
        struct hf_endpoint at = hf_addr_to_endpoint(&l->address);
        char text[HF_ADDR_STR_LEN];
        if (*l->host) {
            snprintf(s->listen_host[i], sizeof(s->listen_host[i]), "%s", l->host);
        } else { /* the address without its port: "192.0.2.1", "[2001:db8::1]" */
            hf_addr_str(&l->address, text);
            *strrchr(text, ':') = '\0';
            snprintf(s->listen_host[i], sizeof(s->listen_host[i]), "%s", text);
        }
        bind[i] = (struct hf_sip_place){
            .transport = (uint8_t)l->transport, .at = at, .elsewhere = l->elsewhere};
        s->listen[i] = (struct hf_sip_listen){.transport = (uint8_t)l->transport,
                                              .at = at,
                                              .host = hf_slice_str(s->listen_host[i]),
                                              .policy = (uint8_t)l->policy,
                                              .external = l->external,
                                              .elsewhere = l->elsewhere};
    }
    return 0;
}

static unsigned n_workers(const struct hf_sip_config *c)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    long n = c->sip.workers ? (long)c->sip.workers : cpus;
    return n < 1 ? 1 : n > HF_SIP_WORKERS_MAX ? HF_SIP_WORKERS_MAX : (unsigned)n;
}

static int open_workers(struct hf_sip *s, struct hf_err *err)
{
    const struct hf_sip_config *c = s->config;
    struct hf_sip_place bind[HF_SIP_LISTENS_MAX];
    int rc = make_listen(s, bind, err);
    if (rc) {
        return rc;
    }
    struct hf_sip_workers_conf conf = {
        .n = n_workers(c),
        .wire = {.bind = bind,
                 .n_binds = s->n_listen,
                 .tls_server = s->tls ? s->tls->server : NULL,
                 .tls_client = s->tls ? s->tls->client : NULL,
                 .conns_max = (size_t)c->limits.connections,
                 .out_max = (size_t)c->limits.output,
                 .idle = HF_MS(c->limits.idle_ms),
                 .idle_kept = HF_MS(c->limits.idle_registered_ms)},
        .steer = true,
    };
    rc = hf_sip_workers_open(&conf, err, &s->workers);
    for (size_t i = 0; rc == 0 && i < s->n_listen; i++) {
        s->listen[i].at.port = hf_sip_workers_at(s->workers, i).port;
    }
    return rc;
}

static int open_resolver(struct hf_sip *s, struct hf_err *err)
{
    const struct hf_sip_config *c = s->config;
    struct hf_sip_resolver_conf conf = {.server = c->dns.servers.addr,
                                        .n_servers = c->dns.servers.n,
                                        .timeout_ms = (int)c->dns.timeout_ms,
                                        .tls = s->tls != NULL,
                                        .seed = s->seed};
    for (size_t i = 0; i < s->n_listen; i++) { /* TCP is opened without listening at it */
        conf.udp = conf.udp || s->listen[i].transport == HF_SIP_TRANSPORT_UDP;
        conf.v4 = conf.v4 || s->listen[i].at.family == HF_AF_INET;
        conf.v6 = conf.v6 || s->listen[i].at.family == HF_AF_INET6;
    }
    conf.tcp = true;
    return hf_sip_resolver_create(s->loop, &conf, err, &s->resolver);
}

static int open_store(struct hf_sip *s, struct hf_err *err)
{
    const struct hf_sip_config *c = s->config;
    struct hf_sip_store_conf conf = {
        .uri = c->sip.database,
        .self = c->sip.name,
        .realm = hf_sip_config_realm(c),
        .group_commit_us = (uint32_t)(c->store.group_commit_ms * 1000),
        .queue_max = (size_t)c->store.queue,
        .timeout_ms = (unsigned)c->store.timeout_ms,
    };
    int rc = is_sqlite(s) ? init_database(s, err) : 0;
    return rc ? rc : hf_sip_store_open(&conf, &hf_sip_node_events, s, err, &s->store);
}

/* ---- mails to the main thread ---- */

/* A question on its way: what the resolver gives back with its answer. */
struct lookup {
    struct hf_sip *s;
    uint32_t worker;
    uint64_t cookie;
    size_t host_n;
    char host[];
};

static void on_resolved(void *arg, uint64_t cookie, const struct hf_sip_flow *to, size_t n)
{
    struct lookup *l = arg;
    hf_sip_nodes_resolved(l->s, l->worker, cookie, hf_slice(l->host, l->host_n), to, n);
    hf_free(l);
}

static void resolve(struct hf_sip *s, struct hf_slice data)
{
    struct hf_sip_ask_resolve ask;
    memcpy(&ask, data.p, sizeof(ask));
    struct hf_slice host = hf_slice(data.p + sizeof(ask), data.n - sizeof(ask));
    struct lookup *l = hf_alloc(sizeof(*l) + host.n);
    if (!l) {
        hf_sip_nodes_resolved(s, ask.worker, ask.cookie, host, NULL, 0);
        return;
    }
    *l = (struct lookup){.s = s, .worker = ask.worker, .host_n = host.n};
    memcpy(l->host, host.p, host.n);
    struct hf_sip_lookup what = {
        .host = host, .port = ask.port, .transport = ask.transport, .sips = ask.sips};
    hf_sip_resolve(s->resolver, &what, ask.cookie, on_resolved, l);
}

static void take_mail(struct hf_sip *s, const struct hf_mail *m)
{
    struct hf_sip_lead_answer answer;
    uint64_t id;
    switch (m->kind) {
    case HF_SIP_ASK_RESOLVE:
        resolve(s, m->data);
        break;
    case HF_SIP_ASK_REREAD:
        hf_sip_store_reread(s->store);
        break;
    case HF_SIP_TOLD_TRACE:
        hf_sip_control_trace(s->control, m->data);
        break;
    case HF_SIP_TOLD_SHOW:
        memcpy(&id, m->data.p, sizeof(id));
        hf_sip_control_shown(s->control, id,
                             hf_slice(m->data.p + sizeof(id), m->data.n - sizeof(id)));
        break;
    case HF_SIP_TOLD_ANSWER:
        memcpy(&answer, m->data.p, sizeof(answer));
        hf_sip_control_answer(s->control, &answer,
                              hf_slice(m->data.p + sizeof(answer), m->data.n - sizeof(answer)));
        break;
    default:
        break;
    }
}

static void on_mailbox(void *arg, unsigned events)
{
    struct hf_sip *s = arg;
    struct hf_slice mails = hf_mailbox_take(s->mailbox);
    struct hf_mail mail;
    (void)events;
    while (hf_mail_next(&mails, &mail)) {
        take_mail(s, &mail);
    }
}

/* ---- run ---- */

static int open_nodes(struct hf_sip *s, struct hf_err *err)
{
    int rc = hf_sip_names_create(s->workers, hf_slice_str(s->config->sip.name), &s->names);
    if (rc) {
        return hf_err_set(err, rc, "%s", hf_strerror(rc));
    }
    for (unsigned i = 0; rc == 0 && i < hf_sip_workers_n(s->workers); i++) {
        rc = hf_sip_node_create(s, i, err, &s->node[i]);
    }
    return rc;
}

static int open_mailbox(struct hf_sip *s, struct hf_err *err)
{
    int rc = hf_mailbox_create(SIZE_MAX / 4, &s->mailbox);
    rc = rc ? rc
            : hf_io_create(s->loop, hf_mailbox_fd(s->mailbox), HF_IO_READ, on_mailbox, s, &s->io);
    return rc ? hf_err_set(err, rc, "cannot start: %s", hf_strerror(rc)) : 0;
}

/* What needs privileges comes first; threads after they are given up, as they have their own. */
static int open_all(void *arg, struct hf_err *err)
{
    struct hf_sip *s = arg;
    int rc = hf_sip_tls_load(s->config, err, &s->tls);
    rc = rc ? rc : load_key(s, err);
    rc = rc ? rc : open_mailbox(s, err);
    rc = rc ? rc : open_workers(s, err);
    rc = rc ? rc : hf_sip_control_open(s, err);
    rc = rc ? rc : hf_sip_web_open(s, err);
    rc = rc ? rc : hf_program_drop(s->config->sip.user, 0, err);
    rc = rc ? rc : open_resolver(s, err);
    rc = rc ? rc : open_nodes(s, err);
    rc = rc ? rc : hf_sip_lead_start(s, err);
    rc = rc ? rc : open_store(s, err); /* tells the leader of changes */
    return rc ? rc : hf_sip_tree_open(s, err);
}

static void close_all(void *arg)
{
    struct hf_sip *s = arg;
    hf_sip_tree_close(s->tree);
    hf_sip_web_close(s->web);
    if (s->workers) {
        hf_sip_workers_stop(s->workers);
    }
    if (s->store) { /* what the workers gave it is written; its results go nowhere */
        hf_sip_store_close(s->store);
    }
    hf_sip_lead_stop(s->lead);
    hf_sip_control_close(s->control);
    hf_sip_resolver_destroy(s->resolver);
    for (size_t i = 0; i < HF_SIP_WORKERS_MAX; i++) {
        hf_sip_node_destroy(s->node[i]);
    }
    hf_sip_names_destroy(s->names);
    hf_sip_workers_close(s->workers);
    hf_io_destroy(s->io);
    hf_mailbox_destroy(s->mailbox);
    hf_sip_tls_unref(s->tls);
    hf_free(s->listen);
    hf_free(s->listen_host);
}

static void on_signal(void *arg, int signo)
{
    struct hf_sip *s = arg;
    struct hf_err err;
    if (signo == SIGHUP) {
        (void)!hf_sip_server_reload(s, &err); /* logged there */
        return;
    }
    hf_log_info("", "signal %d: ending", signo);
    hf_program_notify("STOPPING=1");
    hf_loop_stop(s->loop);
}

static const struct hf_daemon daemon_ops = {.name = "holdfast-sip",
                                            .config = HF_SIP_CONFIG_FILE,
                                            .task = "init",
                                            .task_help = "create the database's tables, or "
                                                         "bring them up to date",
                                            .ready_later = true, /* when the store is read */
                                            .open = open_all,
                                            .close = close_all,
                                            .on_signal = on_signal};

static int start(struct hf_sip *s, const char *path)
{
    struct hf_err err = {0};
    uint64_t random[2] = {0};
    if (load(s, path, &err)) {
        fprintf(stderr, "holdfast-sip: %s\n", err.text);
        return 1;
    }
    hf_program_log_open("holdfast-sip", hf_sip_config_level(s->config));
    hf_program_harden("holdfast-sip", NULL);
    hf_trace_set_mask(s->config->log.trace);
    hf_daemon_files(n_workers(s->config) * (uint64_t)s->config->limits.connections + OTHER_FILES,
                    "limits.connections");
    (void)!getrandom(random, sizeof(random), 0);
    s->seed = random[0];
    s->boot = random[1];
    s->started_at = hf_now();
    int rc = hf_loop_create(&s->loop);
    rc = rc ? rc : hf_daemon_run(&daemon_ops, s->loop, s);
    hf_loop_destroy(s->loop);
    return rc ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct hf_daemon_args args;
    int code;
    if (!hf_daemon_args(&daemon_ops, argc, argv, &args, &code)) {
        return code;
    }
    struct hf_sip *s = hf_alloc(sizeof(*s));
    if (!s) {
        return 1;
    }
    pthread_mutex_init(&s->tls_lock, NULL);
    code = args.what == HF_DAEMON_CHECK  ? check(s, args.config)
           : args.what == HF_DAEMON_TASK ? init(s, args.config)
                                         : start(s, args.config);
    if (args.what == HF_DAEMON_CHECK) {
        hf_sip_tls_unref(s->tls);
    }
    hf_sip_config_destroy(s->config);
    pthread_mutex_destroy(&s->tls_lock);
    hf_free(s);
    return code;
}
