#include "hostd/control.h"

#include <assert.h>
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/mem.h"
#include "codec/ctl_v1.h"
#include "hostd/group_control.h"
#include "hostd/overview.h"

#define READ_PIECE 65536
#define OUT_ENOUGH 65536u    /* bytes waiting for the reader beyond which no more is made */
#define TELL_AT_ONCE 256     /* events between two looks at the reader */
#define REQUESTS_AT_ONCE 512 /* requests of one client between two looks at the others */

struct watch {
    struct hf_list node;
    struct client *client;
    uint32_t seq;
    struct hf_follow *follow; /* owned */
    bool dirty;
};

struct client {
    struct hf_list node;
    struct hf_control *control;
    int fd;
    struct hf_io *io;
    uint32_t id; /* as publisher; unique in this life of the daemon */
    pid_t pid;
    uid_t uid;
    char name[64]; /* "program[pid]", for the log */
    bool greeted;
    bool closing;
    struct hf_buf in, out;
    struct hf_list watches;
    uint32_t n_watches;        /* and follows */
    struct hf_tree_walk *walk; /* owned; the tree is being sent, later requests wait; or NULL */
    uint32_t walk_seq;
    bool tracing;
    uint32_t trace_seq;
};

struct hf_control {
    struct hf_hostd *h;
    int fd;
    struct hf_io *io;
    struct hf_timer *later; /* to go on with what waits, outside of steps */
    struct hf_list clients;
    uint32_t n_clients, next_id;
    uint32_t n_tracing;
    struct hf_group_control *groups;
};

uint32_t hf_control_clients(const struct hf_control *c)
{
    return c->n_clients;
}

/* ---- sending ---- */

static void send_msg(struct client *c, const struct hf_ctl_msg *m)
{
    size_t room = hf_ctl_room(m);
    if (c->out.n > HF_CTL_BACKLOG_MAX - room) {
        c->closing = true; /* does not read what it asked for */
        return;
    }
    uint8_t *p = hf_buf_reserve(&c->out, room);
    if (!p) {
        c->closing = true;
        return;
    }
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, p, room);
    hf_ctl_encode(&w, m);
    int rc = hf_wr_end(&w, &s);
    assert(rc == 0);
    hf_buf_commit(&c->out, s.n);
}

static void send_result(struct client *c, uint32_t seq, int code, const char *text)
{
    send_msg(c, &(struct hf_ctl_msg){.type = HF_CTL_RESULT,
                                     .seq = seq,
                                     .code = code,
                                     .text = hf_slice_str(text ? text : hf_strerror(code))});
}

/* Text in pieces that fit frames. */
static void send_text(struct client *c, uint32_t seq, struct hf_slice text)
{
    const size_t piece = HF_CTL_FRAME_MAX / 4;
    for (size_t at = 0; at < text.n; at += piece) {
        size_t n = text.n - at < piece ? text.n - at : piece;
        send_msg(c, &(struct hf_ctl_msg){
                        .type = HF_CTL_TEXT, .seq = seq, .value = hf_slice(text.p + at, n)});
    }
}

static void later(struct hf_control *k)
{
    hf_timer_set(k->later, 0);
}

/* ---- life of a client ---- */

static void drop_watch(struct watch *w)
{
    hf_list_unlink(&w->node);
    w->client->n_watches--;
    hf_follow_destroy(w->follow);
    hf_free(w);
}

static void set_tracing(struct client *c, bool on, uint32_t seq);

/* Close; what it held is withdrawn (A1). */
static void drop_client(struct client *c)
{
    struct hf_control *k = c->control;
    struct hf_hostd *h = k->h;
    uint32_t id = c->id;
    hf_tracef(HF_TRACE_CTL, c->name, "closed");
    set_tracing(c, false, 0);
    HF_LIST_FOREACH (node, &c->watches) {
        drop_watch(HF_CONTAINER_OF(node, struct watch, node));
    }
    hf_group_control_gone(k->groups, c);
    hf_tree_walk_destroy(c->walk);
    hf_list_unlink(&c->node);
    k->n_clients--;
    hf_io_destroy(c->io);
    close(c->fd);
    hf_buf_fini(&c->in);
    hf_buf_fini(&c->out);
    hf_free(c);
    struct hf_dir_in in = {.kind = HF_DIR_IN_PUBLISHER_GONE};
    in.publisher = id;
    hf_drive_step(h, &in);
}

/* ---- requests ---- */

/* For the log, and for `holdfast status`: it will come again, and be refused again. */
static void refuse(struct client *c, const char *why)
{
    struct hf_hostd *h = c->control->h;
    h->refused_at = hf_now();
    snprintf(h->refused, sizeof(h->refused), "%s %s", c->name, why);
    hf_log_info(c->name, "%s: connection closed", why);
    c->closing = true;
}

static const char *publish_text(int rc, const struct hf_ctl_msg *m, char *text, size_t n)
{
    switch (-rc) {
    case HF_ENAME:
        snprintf(text, n,
                 "not a service name: expected /label/label with letters, digits, '-', '_', '.'");
        return text;
    case HF_EVALUE:
        snprintf(text, n, "the value is not a JSON object of at most %d bytes", HF_VALUE_LEN_MAX);
        return text;
    case HF_EHELD:
        snprintf(text, n, "%.*s is held by another program on this host", HF_SLICE_FMT(m->name));
        return text;
    case HF_EFULL:
        snprintf(text, n,
                 "this host advertises as much as it may: %d services, %u MiB; withdraw some",
                 HF_ENTRIES_PER_HOST_MAX, HF_PART_BYTES_MAX >> 20);
        return text;
    case HF_ERATE:
        snprintf(text, n, "more than %d changes a second: slow down", HF_PUBLISH_PER_S);
        return text;
    case HF_ENOTFOUND:
        snprintf(text, n, "this host does not advertise %.*s", HF_SLICE_FMT(m->name));
        return text;
    default:
        return NULL;
    }
}

static void on_publish(struct client *c, const struct hf_ctl_msg *m)
{
    struct hf_dir_in in = {.kind =
                               m->type == HF_CTL_PUBLISH ? HF_DIR_IN_PUBLISH : HF_DIR_IN_WITHDRAW};
    in.publisher = c->id;
    in.lease_ms = m->lease_ms;
    in.name = m->name;
    in.value = m->value;
    int rc = hf_drive_local(c->control->h, &in);
    char text[320];
    send_result(c, m->seq, rc, publish_text(rc, m, text, sizeof(text)));
    hf_tracef(HF_TRACE_CTL, c->name, "%s %.*s: %s", hf_ctl_type_name(m->type),
              HF_SLICE_FMT(m->name), hf_strerror(rc));
}

static void wake_watch(void *arg)
{
    struct watch *w = arg;
    if (!w->dirty) {
        w->dirty = true;
        later(w->client->control); /* we may be inside a step */
    }
}

static void on_watch(struct client *c, const struct hf_ctl_msg *m)
{
    if (c->n_watches >= HF_CTL_WATCHES_MAX) {
        send_result(c, m->seq, -HF_EFULL, "too many watches on one connection");
        return;
    }
    struct watch *w = hf_alloc(sizeof(*w));
    if (w) {
        hf_list_init(&w->node);
        w->client = c;
        w->seq = m->seq;
        w->dirty = true;
        w->follow = hf_follow_create(c->control->h->follows, m->name, wake_watch, w);
    }
    if (!w || !w->follow) {
        hf_free(w);
        send_result(c, m->seq, -ENOMEM, NULL);
        return;
    }
    hf_list_insert(&c->watches, &w->node);
    c->n_watches++;
    send_result(c, m->seq, 0, "");
    later(c->control);
}

static void on_unwatch(struct client *c, const struct hf_ctl_msg *m)
{
    HF_LIST_FOREACH (node, &c->watches) {
        struct watch *w = HF_CONTAINER_OF(node, struct watch, node);
        if (w->seq == m->watch) {
            drop_watch(w);
            send_result(c, m->seq, 0, "");
            return;
        }
    }
    if (hf_group_control_unfollow(c->control->groups, c, m->watch)) {
        c->n_watches--;
        send_result(c, m->seq, 0, "");
        return;
    }
    send_result(c, m->seq, -HF_ENOTFOUND, "no such watch on this connection");
}

static void query_tree(struct client *c, const struct hf_ctl_msg *m)
{
    if (m->value.n > 0 && m->value.p[0] != '/') {
        send_result(c, m->seq, -HF_ENAME, "a prefix begins with /");
        return;
    }
    c->walk_seq = m->seq;
    c->walk = hf_tree_walk_create(c->control->h->dir, c->control->h->store, m->value);
    if (!c->walk) {
        send_result(c, m->seq, -ENOMEM, NULL);
    }
}

static void query_config(struct hf_hostd *h, struct hf_buf *out)
{
    hf_hostd_config_print(h->config, out);
}

static void put_line(void *arg, const char *line)
{
    hf_buf_printf(arg, "%s\n", line);
}

static void query_recorder(struct hf_hostd *h, struct hf_buf *out)
{
    (void)h;
    hf_log_recorder_dump(put_line, out);
}

static const struct {
    const char *name;
    void (*fn)(struct hf_hostd *h, struct hf_buf *out);
} queries[] = {
    {"status", hf_report_status},   {"members", hf_report_members},
    {"metrics", hf_report_metrics}, {"config", query_config},
    {"recorder", query_recorder},   {"overview", hf_overview_json_all},
};

static void query_groups(struct client *c, const struct hf_ctl_msg *m)
{
    struct hf_buf out;
    struct hf_err err = {0};
    hf_buf_init(&out, HF_CTL_BACKLOG_MAX / 2);
    int rc = hf_group_control_query(c->control->h, m->name, m->value, &out, &err);
    if (rc == 0) {
        send_text(c, m->seq, hf_buf_slice(&out));
    }
    send_result(c, m->seq, rc, *err.text ? err.text : NULL);
    hf_buf_fini(&out);
}

/* ---- groups ---- */

/* What agents do they do as root: whoever may define a group could do anything. */
static bool may_change_groups(const struct client *c)
{
    return c->uid == 0 || c->uid == geteuid();
}

static void on_group(struct client *c, const struct hf_ctl_msg *m)
{
    if (may_change_groups(c)) {
        hf_group_control_command(c->control->groups, c, m);
    } else {
        send_result(c, m->seq, -EPERM, "only root may change groups");
    }
}

static void on_follow(struct client *c, const struct hf_ctl_msg *m)
{
    int rc = c->n_watches >= HF_CTL_WATCHES_MAX ? -HF_EFULL : 0;
    rc = rc ? rc : hf_group_control_follow(c->control->groups, c, m->seq, m->name);
    c->n_watches += rc == 0;
    send_result(c, m->seq, rc, rc == -HF_EFULL ? "too many watches on one connection" : NULL);
}

static void group_send(void *client, const struct hf_ctl_msg *m)
{
    struct client *c = client;
    send_msg(c, m);
    later(c->control); /* we may be inside a step of a group */
}

static void group_wake(void *arg)
{
    later(arg);
}

/* ---- what else is asked ---- */

static void on_query(struct client *c, const struct hf_ctl_msg *m)
{
    if (hf_slice_eq(m->name, hf_slice_str("groups")) ||
        hf_slice_eq(m->name, hf_slice_str("group-history"))) {
        query_groups(c, m);
        return;
    }
    if (hf_slice_eq(m->name, hf_slice_str("tree"))) {
        query_tree(c, m);
        return;
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(queries); i++) {
        if (hf_slice_eq(m->name, hf_slice_str(queries[i].name))) {
            struct hf_buf out;
            hf_buf_init(&out, HF_CTL_BACKLOG_MAX / 2);
            queries[i].fn(c->control->h, &out);
            if (!out.err) {
                send_text(c, m->seq, hf_buf_slice(&out));
            }
            send_result(c, m->seq, out.err, NULL);
            hf_buf_fini(&out);
            return;
        }
    }
    send_result(c, m->seq, -HF_ENOTFOUND, "no such query");
}

/* Every line of the log goes to those who trace. */
static void tap(void *arg, enum hf_log_level level, const char *prefix, const char *text)
{
    struct hf_control *k = arg;
    (void)level;
    char line[1024];
    snprintf(line, sizeof(line), "%s%s%s", prefix, *prefix ? ": " : "", text);
    HF_LIST_FOREACH (node, &k->clients) {
        struct client *c = HF_CONTAINER_OF(node, struct client, node);
        if (c->tracing && c->out.n / 4 < OUT_ENOUGH) { /* a slow reader misses lines */
            send_msg(c, &(struct hf_ctl_msg){
                            .type = HF_CTL_LINE, .seq = c->trace_seq, .text = hf_slice_str(line)});
        }
    }
    later(k);
}

/* The last one to stop switches traces back to what the configuration says. */
static void set_tracing(struct client *c, bool on, uint32_t seq)
{
    struct hf_control *k = c->control;
    k->n_tracing += (uint32_t)on - (uint32_t)c->tracing;
    c->tracing = on;
    c->trace_seq = seq;
    hf_log_set_tap(k->n_tracing ? tap : NULL, k);
    if (k->n_tracing == 0) {
        hf_trace_set_mask(k->h->config->log.trace);
    }
}

static void on_request(struct client *c, const struct hf_ctl_msg *m)
{
    struct hf_err err = {0};
    int rc;
    switch ((enum hf_ctl_type)m->type) {
    case HF_CTL_PUBLISH:
    case HF_CTL_WITHDRAW:
        on_publish(c, m);
        return;
    case HF_CTL_WATCH:
        on_watch(c, m);
        return;
    case HF_CTL_UNWATCH:
        on_unwatch(c, m);
        return;
    case HF_CTL_QUERY:
        on_query(c, m);
        return;
    case HF_CTL_TRACE:
        set_tracing(c, m->mask != 0, m->seq);
        if (m->mask) {
            hf_trace_set_mask(m->mask);
        }
        send_result(c, m->seq, 0, "");
        return;
    case HF_CTL_RELOAD:
        rc = hf_hostd_reload(c->control->h, &err);
        send_result(c, m->seq, rc, err.text);
        return;
    case HF_CTL_GROUP:
        on_group(c, m);
        return;
    case HF_CTL_FOLLOW:
        on_follow(c, m);
        return;
    case HF_CTL_HELLO:
    case HF_CTL_RESULT:
    case HF_CTL_TEXT:
    case HF_CTL_EVENT:
    case HF_CTL_LINE:
    case HF_CTL_GROUP_STATE:
        break;
    }
    refuse(c, "sends what is not for a program to send");
}

static void on_hello(struct client *c, const struct hf_ctl_msg *m)
{
    uint8_t version = hf_ctl_agree(m->version);
    char why[96];
    c->greeted = true;
    snprintf(c->name, sizeof(c->name), "%.*s[%d]", (int)(m->text.n < 32 ? m->text.n : 32),
             (const char *)(m->text.n ? m->text.p : (const uint8_t *)""), (int)c->pid);
    for (char *s = c->name; *s; s++) {
        *s = *s < 0x20 || *s > 0x7e ? '?' : *s;
    }
    send_msg(c, &(struct hf_ctl_msg){.type = HF_CTL_HELLO,
                                     .version = version ? version : HF_CTL_VERSION,
                                     .text = hf_slice_str(c->control->h->config->host.name)});
    if (!version) {
        snprintf(why, sizeof(why), "speaks version %u of the control protocol, expected %d to %d",
                 m->version, HF_CTL_VERSION_MIN, HF_CTL_VERSION);
        refuse(c, why);
    }
}

static void on_message(struct client *c, const struct hf_ctl_msg *m)
{
    if (c->greeted) {
        on_request(c, m);
    } else if (m->type == HF_CTL_HELLO) {
        on_hello(c, m);
    } else {
        c->closing = true;
    }
}

/* ---- reading and writing ---- */

/* Returns whether it stopped with requests perhaps left: others' turn, or the answers are read
 * first. */
static bool take_messages(struct client *c)
{
    size_t at = 0;
    for (int i = 0; i < REQUESTS_AT_ONCE && !c->closing && !c->walk && c->out.n <= OUT_ENOUGH;
         i++) {
        struct hf_ctl_msg m;
        int n = hf_ctl_decode(hf_slice(c->in.p + at, c->in.n - at), &m);
        if (n == 0) {
            hf_buf_consume(&c->in, at);
            return false;
        }
        if (n < 0) {
            char why[128];
            snprintf(why, sizeof(why), "sends what is not understood here (%.60s)", hf_strerror(n));
            refuse(c, why);
            /* a person with another version of the command wants to know */
            send_msg(c, &(struct hf_ctl_msg){.type = HF_CTL_HELLO, .version = HF_CTL_VERSION});
            return false;
        }
        at += (size_t)n;
        on_message(c, &m);
    }
    hf_buf_consume(&c->in, at);
    return c->in.n > 0;
}

static void tell(void *arg, enum hf_follow_event event, struct hf_slice owner,
                 struct hf_entry *entry)
{
    struct watch *w = arg;
    struct hf_slice value =
        entry && event != HF_FOLLOW_REMOVED ? hf_entry_value(entry) : hf_slice(NULL, 0);
    send_msg(w->client, &(struct hf_ctl_msg){.type = HF_CTL_EVENT,
                                             .seq = w->seq,
                                             .event = (uint8_t)event, /* same numbers */
                                             .owner = owner,
                                             .name = entry ? hf_entry_name(entry) : owner,
                                             .value = value});
}

/* Make more for the reader, as long as it keeps up. */
static void produce(struct client *c)
{
    HF_LIST_FOREACH (node, &c->watches) {
        struct watch *w = HF_CONTAINER_OF(node, struct watch, node);
        while (w->dirty && !c->closing && c->out.n <= OUT_ENOUGH) {
            w->dirty = hf_follow_tell(w->follow, TELL_AT_ONCE, tell, w);
        }
    }
    if (!c->closing && c->out.n <= OUT_ENOUGH) {
        hf_group_control_tell(c->control->groups, c);
    }
    while (c->walk && !c->closing && c->out.n <= OUT_ENOUGH) {
        struct hf_buf piece;
        hf_buf_init(&piece, HF_CTL_FRAME_MAX);
        bool more = hf_tree_walk_json(c->walk, &piece, OUT_ENOUGH);
        send_text(c, c->walk_seq, hf_buf_slice(&piece));
        hf_buf_fini(&piece);
        if (!more) {
            send_result(c, c->walk_seq, 0, "");
            hf_tree_walk_destroy(c->walk);
            c->walk = NULL;
        }
    }
}

/* Write what the socket takes. False: the connection is over. */
static bool flush(struct client *c)
{
    size_t at = 0;
    while (at < c->out.n) {
        ssize_t n = send(c->fd, c->out.p + at, c->out.n - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return false;
        }
        if (n <= 0) {
            break;
        }
        at += (size_t)n;
    }
    hf_buf_consume(&c->out, at);
    if (c->out.n == 0) {
        hf_buf_fini(&c->out); /* an idle connection holds no memory */
    }
    return !c->closing;
}

/* Is there more to make for a reader that has taken all we had? */
static bool wants_more(struct client *c)
{
    bool more = c->walk != NULL;
    HF_LIST_FOREACH (node, &c->watches) {
        more = more || HF_CONTAINER_OF(node, struct watch, node)->dirty;
    }
    return more && c->out.n == 0;
}

/* One turn for a client: requests, answers, events. */
static void serve(struct client *c)
{
    bool waiting = c->in.n > 0 && take_messages(c);
    produce(c);
    if (!flush(c)) {
        drop_client(c);
        return;
    }
    if (wants_more(c) || (waiting && !c->walk && c->out.n <= OUT_ENOUGH)) {
        later(c->control);
    }
    /* no new requests from one that does not read the answers, or while there is no room for them
     */
    bool hear = c->out.n <= OUT_ENOUGH && c->in.n <= c->in.n_max - READ_PIECE;
    hf_io_set(c->io, (hear ? HF_IO_READ : 0) | (c->out.n ? HF_IO_WRITE : 0));
}

static void on_later(void *arg)
{
    struct hf_control *k = arg;
    HF_LIST_FOREACH (node, &k->clients) {
        serve(HF_CONTAINER_OF(node, struct client, node));
    }
}

static void on_client(void *arg, unsigned events)
{
    struct client *c = arg;
    if (events & HF_IO_READ) {
        uint8_t *p = hf_buf_reserve(&c->in, READ_PIECE);
        ssize_t n = p ? recv(c->fd, p, READ_PIECE, MSG_DONTWAIT) : -1;
        if (n == 0 || (n < 0 && (!p || (errno != EAGAIN && errno != EINTR)))) {
            drop_client(c);
            return;
        }
        hf_buf_commit(&c->in, n > 0 ? (size_t)n : 0);
    }
    serve(c);
}

static void on_accept(void *arg, unsigned events)
{
    struct hf_control *k = arg;
    (void)events;
    int fd = accept4(k->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    struct client *c = k->n_clients < HF_CTL_CLIENTS_MAX ? hf_alloc(sizeof(*c)) : NULL;
    if (!c || hf_io_create(k->h->loop, fd, HF_IO_READ, on_client, c, &c->io)) {
        hf_log_warn("", "a local program was refused: %u are connected", k->n_clients);
        hf_free(c);
        close(fd);
        return;
    }
    struct ucred cred = {0};
    socklen_t len = sizeof(cred);
    (void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
    c->control = k;
    c->fd = fd;
    c->pid = cred.pid;
    c->uid = cred.uid;
    c->id = ++k->next_id;
    snprintf(c->name, sizeof(c->name), "client[%d]", (int)cred.pid);
    hf_buf_init(&c->in, HF_CTL_FRAME_MAX + 4 + READ_PIECE);
    hf_buf_init(&c->out, HF_CTL_BACKLOG_MAX);
    hf_list_init(&c->watches);
    hf_list_init(&c->node);
    hf_list_insert(&k->clients, &c->node);
    k->n_clients++;
    hf_tracef(HF_TRACE_CTL, c->name, "connected, uid %d", (int)c->uid);
}

/* ---- life ---- */

/* Owner and group of the socket decide who may connect. */
static int set_rights(const char *path, const char *group, struct hf_err *err)
{
    gid_t gid = (gid_t)-1;
    if (*group) {
        const struct group *g = getgrnam(group);
        if (!g) {
            return hf_err_set(err, -HF_ECONFIG, "control.group: there is no group %s", group);
        }
        gid = g->gr_gid;
    }
    if (chmod(path, *group ? 0660 : 0600) || (*group && chown(path, (uid_t)-1, gid))) {
        return hf_err_set(err, -errno, "%s: cannot set rights: %s", path, hf_strerror(-errno));
    }
    return 0;
}

static int listen_at(const char *path, const char *group, struct hf_err *err, int *ret_fd)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(sa.sun_path)) {
        return hf_err_set(err, -ENAMETOOLONG, "control.socket: %s is longer than %zu bytes", path,
                          sizeof(sa.sun_path) - 1);
    }
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return hf_err_set(err, -errno, "control socket: %s", hf_strerror(-errno));
    }
    /* somebody answering there is another holdfastd; a left-over file is not */
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0) {
        close(fd);
        return hf_err_set(err, -EADDRINUSE, "%s: another holdfastd is running", path);
    }
    (void)unlink(path);
    mode_t mask = umask(0177);
    int rc = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(fd, 64) ? -errno : 0;
    umask(mask);
    if (rc) {
        hf_err_set(err, rc, "control.socket: cannot listen at %s: %s", path, hf_strerror(rc));
    } else {
        rc = set_rights(path, group, err);
    }
    if (rc) {
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

int hf_control_open(struct hf_hostd *h, struct hf_err *err, struct hf_control **ret_control)
{
    struct hf_control *k = hf_alloc(sizeof(*k));
    if (!k) {
        return hf_err_set(err, -ENOMEM, "control socket: %s", hf_strerror(-ENOMEM));
    }
    k->h = h;
    hf_list_init(&k->clients);
    int rc = listen_at(h->config->control.socket, h->config->control.group, err, &k->fd);
    if (rc) {
        hf_free(k);
        return rc;
    }
    struct hf_group_control_ops ops = {.send = group_send, .wake = group_wake, .arg = k};
    rc = hf_timer_create(h->loop, on_later, k, &k->later);
    rc = rc ? rc : hf_group_control_create(h, &ops, &k->groups);
    rc = rc ? rc : hf_io_create(h->loop, k->fd, HF_IO_READ, on_accept, k, &k->io);
    if (rc) {
        hf_control_close(k);
        return hf_err_set(err, rc, "control socket: %s", hf_strerror(rc));
    }
    *ret_control = k;
    return 0;
}

void hf_control_close(struct hf_control *k)
{
    if (!k) {
        return;
    }
    HF_LIST_FOREACH (node, &k->clients) {
        drop_client(HF_CONTAINER_OF(node, struct client, node));
    }
    hf_log_set_tap(NULL, NULL);
    hf_group_control_destroy(k->groups);
    hf_io_destroy(k->io);
    hf_timer_destroy(k->later);
    close(k->fd);
    (void)unlink(k->h->config->control.socket);
    hf_free(k);
}
