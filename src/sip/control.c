/* The control socket of holdfast-sip: JSON lines from operators. */
#include "sip/control.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/list.h"
#include "base/mem.h"
#include "os/file.h"
#include "sip/lead.h"
#include "sip/node.h"
#include "sip/tree.h"

#define CLIENTS_MAX 32
#define LINE_MAX_LEN (64u << 20) /* an import */
#define OUT_MAX (64u << 20)
#define READ_PIECE 65536
#define BACKLOG 16

struct client {
    struct hf_list node;
    struct hf_sip_control *all;
    int fd;
    struct hf_io *io;
    uint64_t id; /* of its question; 0: none is open */
    bool tracing;
    enum hf_sip_lead_command command; /* of the question */
    struct hf_buf in, out;
};

struct hf_sip_control {
    struct hf_sip *s; /* borrowed */
    int fd;
    struct hf_io *io;
    struct sockaddr_un un;
    ino_t inode;
    uid_t uid; /* who may, beside root */
    struct hf_list clients;
    unsigned n;
    uint64_t last_id;
    char traced[HF_SIP_AOR_MAX + 1]; /* "": nobody looks */
};

/* ---- clients ---- */

static void drop(struct client *c)
{
    struct hf_sip_control *all = c->all;
    bool traced = c->tracing;
    hf_list_unlink(&c->node);
    all->n--;
    hf_io_destroy(c->io);
    close(c->fd);
    hf_buf_fini(&c->in);
    hf_buf_fini(&c->out);
    hf_free(c);
    HF_LIST_FOREACH (node, &all->clients) {
        traced = traced && !HF_CONTAINER_OF(node, struct client, node)->tracing;
    }
    if (traced) { /* it was the last */
        all->traced[0] = '\0';
        hf_sip_nodes_trace(all->s, hf_slice(NULL, 0));
    }
}

/* false: it is gone. */
static bool flush(struct client *c)
{
    while (c->out.n) {
        ssize_t n = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            drop(c);
            return false;
        }
        if (n < 0) {
            break;
        }
        hf_buf_consume(&c->out, (size_t)n);
    }
    hf_io_set(c->io, HF_IO_READ | (c->out.n ? HF_IO_WRITE : 0));
    return true;
}

/* Takes v. */
static void answer(struct client *c, json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT);
    json_decref(v);
    hf_buf_str(&c->out, text ? text : "{\"ok\":false,\"error\":\"out of memory\"}");
    hf_buf_str(&c->out, "\n");
    free(text);
    c->id = 0;
}

static void refuse(struct client *c, const char *why)
{
    json_t *v = json_object();
    json_object_set_new(v, "ok", json_false());
    json_object_set_new(v, "error", json_string(why));
    answer(c, v);
}

static json_t *good(void)
{
    json_t *v = json_object();
    json_object_set_new(v, "ok", json_true());
    return v;
}

static struct client *find(struct hf_sip_control *all, uint64_t id)
{
    HF_LIST_FOREACH (node, &all->clients) {
        struct client *c = HF_CONTAINER_OF(node, struct client, node);
        if (c->id == id && id) {
            return c;
        }
    }
    return NULL;
}

/* ---- commands ---- */

/* The address of record that an operator means: "alice", "alice@example.org", "sip:...". false: it
 * is none. */
static bool control_aor(const struct hf_sip_config *c, const char *text, char *buf, size_t room)
{
    char full[1024];
    struct hf_sip_uri uri;
    struct hf_wr w;
    bool scheme = strncmp(text, "sip:", 4) == 0 || strncmp(text, "sips:", 5) == 0 ||
                  strncmp(text, "tel:", 4) == 0;
    int n = scheme ? snprintf(full, sizeof(full), "%s", text)
            : strchr(text, '@')
                ? snprintf(full, sizeof(full), "sip:%s", text)
                : snprintf(full, sizeof(full), "sip:%s@%s", text, c->sip.domains.item[0]);
    if (n < 0 || n >= (int)sizeof(full) || hf_sip_uri_parse(hf_slice_str(full), &uri)) {
        return false;
    }
    hf_wr_init(&w, buf, room - 1);
    if (hf_sip_aor(&uri, &w) || hf_wr_len(&w) == 0 || hf_wr_len(&w) >= room) {
        return false;
    }
    buf[hf_wr_len(&w)] = '\0';
    return true;
}

static json_t *worker_of(struct hf_sip *s, unsigned i)
{
    static const char *const shed[] = {"nothing", "new", "all"};
    struct hf_sip_node_figures f;
    struct hf_sip_worker_figures w;
    hf_sip_node_figures(s->node[i], &f);
    hf_sip_worker_figures(hf_sip_worker(s->workers, i), &w);
    json_t *v = json_object();
    json_object_set_new(v, "worker", json_integer(i));
    json_object_set_new(v, "rows", json_integer((json_int_t)f.info.rows));
    json_object_set_new(v, "bindings", json_integer((json_int_t)f.info.bindings));
    json_object_set_new(v, "aors", json_integer((json_int_t)f.info.aors));
    json_object_set_new(v, "subscriptions", json_integer((json_int_t)f.info.subs));
    json_object_set_new(v, "transactions", json_integer((json_int_t)f.info.transactions));
    json_object_set_new(v, "waiting", json_integer((json_int_t)f.info.waiting));
    json_object_set_new(v, "cached", json_integer((json_int_t)f.info.cached));
    json_object_set_new(v, "bytes", json_integer((json_int_t)f.info.bytes));
    json_object_set_new(v, "table", json_string(hf_sip_table_name(f.info.table)));
    json_object_set_new(v, "connections", json_integer((json_int_t)w.wire.connections));
    json_object_set_new(v, "messages_s", json_integer(w.messages_s));
    json_object_set_new(v, "cpu", json_integer(w.cpu));
    json_object_set_new(v, "queue", json_integer(w.queue));
    json_object_set_new(v, "sheds", json_string(shed[w.shed]));
    return v;
}

static void status(struct client *c)
{
    struct hf_sip *s = c->all->s;
    struct hf_sip_lead_figures l;
    json_t *v = good(), *workers = json_array(), *lead = json_object();
    hf_sip_lead_figures(s->lead, &l);
    json_object_set_new(lead, "leads", json_boolean(l.leads));
    json_object_set_new(lead, "reign", json_integer((json_int_t)l.reign));
    json_object_set_new(lead, "state", json_string(hf_sip_balance_name(l.state)));
    json_object_set_new(lead, "moved", json_integer((json_int_t)l.moved));
    json_object_set_new(lead, "failed", json_integer((json_int_t)l.failed));
    for (unsigned i = 0; i < hf_sip_workers_n(s->workers); i++) {
        json_array_append_new(workers, worker_of(s, i));
    }
    json_object_set_new(v, "version", json_string(HF_VERSION));
    json_object_set_new(v, "name", json_string(s->config->sip.name));
    json_object_set_new(v, "uptime_s",
                        json_integer((json_int_t)((hf_now() - s->started_at) / HF_NS_PER_S)));
    json_object_set_new(v, "server", hf_sip_tree_self(s->tree));
    json_object_set_new(v, "leader", lead);
    json_object_set_new(v, "workers", workers);
    answer(c, v);
}

static void servers(struct client *c)
{
    json_t *v = good();
    json_object_set_new(v, "servers", hf_sip_tree_servers(c->all->s->tree));
    answer(c, v);
}

static void show(struct client *c, const char *aor)
{
    c->id = ++c->all->last_id;
    if (!hf_sip_nodes_show(c->all->s, hf_slice_str(aor), c->id)) {
        refuse(c, "out of memory");
    }
}

static void trace(struct client *c, const char *aor)
{
    struct hf_sip_control *all = c->all;
    if (*all->traced && strcmp(all->traced, aor) != 0) {
        refuse(c, "another address is traced: one at a time");
        return;
    }
    snprintf(all->traced, sizeof(all->traced), "%s", aor);
    c->tracing = true;
    hf_sip_nodes_trace(all->s, hf_slice_str(aor));
    answer(c, good());
}

static void ask_lead(struct client *c, const json_t *q, enum hf_sip_lead_command command,
                     const char *aor)
{
    struct hf_sip_lead_ask a = {
        .command = command,
        .id = ++c->all->last_id,
        .aor = hf_slice_str(aor),
        .server = json_string_value(json_object_get(q, "server")),
        .user = json_string_value(json_object_get(q, "user")),
        .password = json_string_value(json_object_get(q, "password")),
        .csv = hf_slice(json_string_value(json_object_get(q, "csv")),
                        json_string_length(json_object_get(q, "csv"))),
    };
    bool user = command == HF_SIP_LEAD_USER_ADD || command == HF_SIP_LEAD_USER_DELETE;
    if ((command == HF_SIP_LEAD_ASSIGN && !a.server) || (user && (!a.user || !*a.user)) ||
        (command == HF_SIP_LEAD_USER_ADD && !a.password) ||
        (command == HF_SIP_LEAD_IMPORT && !a.csv.p)) {
        refuse(c, "the request lacks something");
        return;
    }
    c->id = a.id;
    c->command = command;
    int rc = hf_sip_lead_ask(c->all->s->lead, &a);
    if (rc) {
        refuse(c, hf_strerror(rc));
    }
}

/* Those that name an address. */
static bool wants_aor(const char *name)
{
    static const char *const names[] = {"show", "trace", "assign", "pin", "unpin", "user-add"};
    for (size_t i = 0; i < HF_ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void command(struct client *c, const json_t *q)
{
    struct hf_sip *s = c->all->s;
    const char *name = json_string_value(json_object_get(q, "command"));
    const char *text = json_string_value(json_object_get(q, "aor"));
    char aor[HF_SIP_AOR_MAX + 1] = "";
    if (!name) {
        refuse(c, "not a command");
        return;
    }
    text = text ? text : json_string_value(json_object_get(q, "user"));
    if (wants_aor(name) && (!text || !control_aor(s->config, text, aor, sizeof(aor)))) {
        refuse(c, "not an address of record: give USER, USER@DOMAIN or a URI");
    } else if (strcmp(name, "status") == 0) {
        status(c);
    } else if (strcmp(name, "servers") == 0) {
        servers(c);
    } else if (strcmp(name, "show") == 0) {
        show(c, aor);
    } else if (strcmp(name, "trace") == 0) {
        trace(c, aor);
    } else if (strcmp(name, "drain") == 0 || strcmp(name, "undrain") == 0) {
        hf_sip_server_drain(s, *name == 'd');
        answer(c, good());
    } else {
        for (unsigned i = 0; i < HF_SIP_LEAD_COMMAND_COUNT_; i++) {
            if (strcmp(name, hf_sip_lead_command_name((enum hf_sip_lead_command)i)) == 0) {
                ask_lead(c, q, (enum hf_sip_lead_command)i, aor);
                return;
            }
        }
        refuse(c, "no such command");
    }
}

void hf_sip_control_trace(struct hf_sip_control *all, struct hf_slice line)
{
    HF_LIST_FOREACH (node, &all->clients) {
        struct client *c = HF_CONTAINER_OF(node, struct client, node);
        if (c->tracing && c->out.n + line.n < OUT_MAX / 8) { /* who does not read misses some */
            hf_buf_add(&c->out, line);
            (void)flush(c);
        }
    }
}

void hf_sip_control_shown(struct hf_sip_control *all, uint64_t id, struct hf_slice json)
{
    struct client *c = find(all, id);
    json_t *known = json_loadb((const char *)json.p, json.n, 0, NULL), *v = good();
    if (!c) {
        json_decref(known);
        json_decref(v);
        return;
    }
    json_object_set_new(v, "known", known ? known : json_null());
    answer(c, v);
    (void)flush(c);
}

void hf_sip_control_answer(struct hf_sip_control *all, const struct hf_sip_lead_answer *a,
                           struct hf_slice text)
{
    struct client *c = find(all, a->id);
    if (!c) {
        return;
    }
    json_t *v = a->rc ? json_object() : good();
    if (a->rc) {
        json_object_set_new(v, "ok", json_false());
    }
    json_object_set_new(v, a->rc ? "error" : "text", json_stringn((const char *)text.p, text.n));
    json_object_set_new(v, "rows", json_integer((json_int_t)a->n));
    answer(c, v);
    (void)flush(c);
}

/* ---- the socket ---- */

static void take_lines(struct client *c)
{
    uint8_t *end;
    while (c->id == 0 && c->in.n && (end = memchr(c->in.p, '\n', c->in.n))) {
        size_t n = (size_t)(end - c->in.p);
        json_t *q = json_loadb((const char *)c->in.p, n, 0, NULL);
        explicit_bzero(c->in.p, n); /* maybe a password */
        hf_buf_consume(&c->in, n + 1);
        if (json_is_object(q)) {
            command(c, q);
        } else {
            refuse(c, "not a JSON object");
        }
        json_decref(q);
    }
}

static void on_client(void *arg, unsigned events)
{
    struct client *c = arg;
    if (events & HF_IO_READ) {
        uint8_t *p = hf_buf_reserve(&c->in, READ_PIECE);
        ssize_t n = p ? recv(c->fd, p, READ_PIECE, MSG_DONTWAIT) : 0;
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            drop(c);
            return;
        }
        if (n > 0) {
            hf_buf_commit(&c->in, (size_t)n);
            take_lines(c);
        }
    }
    (void)flush(c);
}

static bool may(const struct hf_sip_control *all, int fd)
{
    struct ucred who;
    socklen_t n = sizeof(who);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 &&
           (who.uid == 0 || who.uid == geteuid() || who.uid == all->uid);
}

static void on_accept(void *arg, unsigned events)
{
    struct hf_sip_control *all = arg;
    (void)events;
    int fd = accept4(all->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct client *c =
        fd >= 0 && all->n < CLIENTS_MAX && may(all, fd) ? hf_alloc(sizeof(*c)) : NULL;
    if (!c || hf_io_create(all->s->loop, fd, HF_IO_READ, on_client, c, &c->io)) {
        if (fd >= 0) {
            close(fd);
        }
        hf_free(c);
        return;
    }
    c->all = all;
    c->fd = fd;
    hf_buf_init(&c->in, LINE_MAX_LEN);
    hf_buf_init(&c->out, OUT_MAX);
    hf_list_insert(&all->clients, &c->node);
    all->n++;
}

static int listen_at(struct hf_sip_control *all, const char *path, struct hf_err *err)
{
    struct stat st;
    int rc = hf_file_make_dir_of(path, 0755, err);
    if (rc) {
        return rc;
    }
    all->un.sun_family = AF_UNIX;
    snprintf(all->un.sun_path, sizeof(all->un.sun_path), "%s", path);
    if (hf_file_is_stale_socket(&all->un)) {
        unlink(path);
    }
    all->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (all->fd < 0 || fchmod(all->fd, 0600) < 0 ||
        bind(all->fd, (const struct sockaddr *)&all->un, sizeof(all->un)) < 0 ||
        listen(all->fd, BACKLOG) < 0) {
        rc = -errno;
        return hf_err_set(err, rc, "cannot listen at %s: %s%s", path, hf_strerror(rc),
                          rc == -EADDRINUSE
                              ? "; end what is there, or give one of both another sip.control"
                              : "");
    }
    all->inode = stat(path, &st) == 0 ? st.st_ino : 0;
    return 0;
}

int hf_sip_control_open(struct hf_sip *s, struct hf_err *err)
{
    struct hf_sip_control *all = hf_alloc(sizeof(*all));
    if (!all) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    all->s = s;
    all->fd = -1;
    all->uid = geteuid();
    hf_list_init(&all->clients);
    int rc = listen_at(all, s->config->sip.control, err);
    if (rc == 0) {
        rc = hf_io_create(s->loop, all->fd, HF_IO_READ, on_accept, all, &all->io);
        rc = rc ? hf_err_set(err, rc, "cannot listen: %s", hf_strerror(rc)) : 0;
    }
    if (rc) {
        hf_sip_control_close(all);
        return rc;
    }
    s->control = all;
    return 0;
}

void hf_sip_control_close(struct hf_sip_control *all)
{
    struct stat st;
    if (!all) {
        return;
    }
    HF_LIST_FOREACH (node, &all->clients) {
        struct client *c = HF_CONTAINER_OF(node, struct client, node);
        c->tracing = false; /* the workers have ended */
        drop(c);
    }
    hf_io_destroy(all->io);
    if (all->inode && stat(all->un.sun_path, &st) == 0 && st.st_ino == all->inode) {
        unlink(all->un.sun_path);
    }
    if (all->fd >= 0) {
        close(all->fd);
    }
    hf_free(all);
}
