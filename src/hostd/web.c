/* The public HTTP port: what is known, for reading only, without ever building large answers. */
#include "hostd/web.h"

#include <errno.h>

#include "base/mem.h"
#include "hostd/group_report.h"
#include "hostd/overview.h"
#include "hostd/service.h"
#include "hostd/web_impl.h"

#define JSON_TYPE "application/json"
#define IDLE_TIMEOUT_S 60
#define REPORT_LEN_MAX (32u << 20)
#define SD_LOOKED_AT_MAX 1024 /* entries for one piece, with a port or without */
#define TELL_EVENTS 8         /* between looks at the piece's length */
#define TARGET_ROOM 300       /* a host name and a port */

/* What a browser may do with our pages: run our own script, nothing else. Other origins may
 * neither show nor read them. */
static const char fields[] =
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'\r\nReferrer-Policy: no-referrer\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n";

/* ---- streams ---- */

/* NULL is fine; the request is not ended. */
static void stream_destroy(struct hf_web_stream *s)
{
    if (s) {
        hf_list_unlink(&s->node);
        s->web->n_followers -= s->tell != NULL;
        hf_follow_destroy(s->follow);
        hf_timer_destroy(s->timer);
        hf_tree_walk_destroy(s->walk);
        hf_buf_fini(&s->buf);
        hf_free(s);
    }
}

static void on_close(void *arg)
{
    stream_destroy(arg);
}

static void stream_end(struct hf_web_stream *s)
{
    hf_http_stream_end(s->req);
    stream_destroy(s);
}

/* Send what is in buf. False: s is not to be touched any more, on_close() does the rest. */
static bool stream_send(struct hf_web_stream *s)
{
    s->unsent = true;
    hf_timer_set(s->timer, hf_now() + HF_WEB_STALL);
    return hf_http_stream_send(s->req, hf_buf_slice(&s->buf)) == 0;
}

/* On a failure the stream is to be destroyed, and the request answered. */
static struct hf_web_stream *stream_create(struct hf_web *web, struct hf_http_req *req,
                                           void (*on_timer)(void *arg))
{
    struct hf_web_stream *s = hf_alloc(sizeof(*s));
    if (!s) {
        return NULL;
    }
    s->web = web;
    s->req = req;
    hf_buf_init(&s->buf, HF_WEB_PIECE_LEN_MAX);
    hf_list_insert(&web->streams, &s->node);
    if (hf_timer_create(web->h->loop, on_timer, s, &s->timer)) {
        stream_destroy(s);
        return NULL;
    }
    return s;
}

/* The prefix asked for; false: it was not one, and that has been answered. */
static bool prefix_of(struct hf_http_req *req, struct hf_slice *ret_prefix)
{
    const char *text = hf_http_req_query(req, "prefix");
    struct hf_slice prefix = hf_slice_str(text ? text : "");
    if (prefix.n > HF_SERVICE_NAME_MAX || (prefix.n > 0 && prefix.p[0] != '/')) {
        hf_http_reply_error(req, 400, "prefix must begin with '/' and have at most %d bytes",
                            HF_SERVICE_NAME_MAX);
        return false;
    }
    *ret_prefix = prefix;
    return true;
}

/* ---- /v1/tree, /v1/sd: a walk in pieces ---- */

static void walk_on_room(void *arg)
{
    struct hf_web_stream *s = arg;
    hf_buf_clear(&s->buf);
    bool more = s->fill(s);
    if (s->buf.err) { /* out of memory: what the client has is not JSON, and so it sees it */
        hf_log_debug("http", "%s: %s, ends the answer", hf_http_req_from(s->req),
                     hf_strerror(s->buf.err));
        stream_end(s);
    } else if (stream_send(s) && !more) {
        stream_end(s);
    }
}

static void walk_on_timer(void *arg)
{
    stream_end(arg);
}

static void walk_begin(struct hf_web *web, struct hf_http_req *req,
                       bool (*fill)(struct hf_web_stream *s))
{
    struct hf_slice prefix;
    if (!prefix_of(req, &prefix)) {
        return;
    }
    struct hf_web_stream *s = stream_create(web, req, walk_on_timer);
    if (s) {
        s->fill = fill;
        s->walk = hf_tree_walk_create(web->h->dir, web->h->store, prefix);
    }
    if (!s || !s->walk) {
        stream_destroy(s);
        hf_http_reply_error(req, 503, "out of memory");
        return;
    }
    hf_http_stream_begin(req, 200, JSON_TYPE, walk_on_room, on_close, s);
    walk_on_room(s);
}

static bool fill_tree(struct hf_web_stream *s)
{
    return hf_tree_walk_json(s->walk, &s->buf, HF_WEB_PIECE_LEN);
}

static void get_tree(struct hf_web *web, struct hf_http_req *req)
{
    walk_begin(web, req, fill_tree);
}

/* A label of its own for each scalar member; others have no text that Prometheus could match. */
static void add_value_labels(json_t *labels, json_t *value)
{
    const char *key;
    json_t *v;
    json_object_foreach(value, key, v)
    {
        char label[128];
        int n = snprintf(label, sizeof(label), "__meta_holdfast_value_%s", key);
        if (n < 0 || (size_t)n >= sizeof(label) || json_is_object(v) || json_is_array(v) ||
            json_is_null(v)) {
            continue;
        }
        for (char *c = label; *c; c++) {
            bool ok =
                (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9');
            *c = ok ? *c : '_';
        }
        if (json_is_string(v)) {
            json_object_set(labels, label, v);
        } else {
            char *text = json_dumps(v, JSON_ENCODE_ANY);
            json_object_set_new(labels, label, json_string(text ? text : ""));
            free(text);
        }
    }
}

/* "ADDRESS:PORT" of an entry, with brackets where they are needed; false: it has none. */
static bool target_of(const struct hf_hostd *h, const json_t *value, uint32_t owner,
                      char ret_target[TARGET_ROOM])
{
    struct hf_endpoint at = {0};
    const char *name = NULL;
    uint16_t port = hf_service_port(value);
    enum hf_service_at kind = hf_service_address(h, value, owner, &at, &name);
    if (port == 0 || kind == HF_SERVICE_AT_NOWHERE) {
        return false;
    }
    if (kind == HF_SERVICE_AT_NAME) {
        snprintf(ret_target, TARGET_ROOM, "%s:%u", name, port);
        return true;
    }
    at.port = port;
    struct hf_addr addr = hf_addr_from_endpoint(&at);
    char text[HF_ADDR_STR_LEN];
    snprintf(ret_target, TARGET_ROOM, "%s", hf_addr_str(&addr, text));
    return addr.len > 0;
}

static int dump_to_buf(const char *p, size_t n, void *arg)
{
    struct hf_buf *buf = arg;
    hf_buf_add(buf, hf_slice(p, n));
    return buf->err;
}

static void add_target(struct hf_web_stream *s, struct hf_slice owner, const struct hf_entry *e)
{
    const struct hf_hostd *h = s->web->h;
    uint32_t id = hf_dir_store_find_owner(h->store, owner);
    json_t *value = hf_service_load(hf_entry_value(e));
    char target[TARGET_ROOM];
    if (value && id != HF_OWNER_NONE && target_of(h, value, id, target)) {
        struct hf_slice name = hf_entry_name(e);
        json_t *group = json_pack("{s:[s], s:{s:s%, s:s%}}", "targets", target, "labels",
                                  "__meta_holdfast_name", (const char *)name.p, name.n,
                                  "__meta_holdfast_owner", (const char *)owner.p, owner.n);
        add_value_labels(json_object_get(group, "labels"), value);
        hf_buf_str(&s->buf, s->begun ? ",\n" : "[\n");
        s->begun = true;
        if (!group || json_dump_callback(group, dump_to_buf, &s->buf, JSON_COMPACT)) {
            s->buf.err = s->buf.err ? s->buf.err : -ENOMEM;
        }
        json_decref(group);
    }
    json_decref(value);
}

static bool fill_sd(struct hf_web_stream *s)
{
    struct hf_slice owner;
    struct hf_entry *e;
    for (int i = 0; i < SD_LOOKED_AT_MAX && s->buf.n < HF_WEB_PIECE_LEN && !s->buf.err; i++) {
        if (!hf_tree_walk_next(s->walk, &owner, &e)) {
            hf_buf_str(&s->buf, s->begun ? "\n]\n" : "[]\n");
            return false;
        }
        add_target(s, owner, e);
    }
    if (s->buf.n == 0) {
        hf_buf_str(&s->buf, "\n"); /* nothing in this piece, but others go on meanwhile */
    }
    return true;
}

static void get_sd(struct hf_web *web, struct hf_http_req *req)
{
    walk_begin(web, req, fill_sd);
}

/* ---- followers ---- */

/* Send what there is to tell; s may be gone afterwards. */
static void follower_tell(struct hf_web_stream *s)
{
    hf_buf_clear(&s->buf);
    s->tell(s);
    hf_time now = hf_now();
    if (s->buf.n == 0 && now >= s->keep_at) {
        hf_buf_str(&s->buf, ":\n\n");
    }
    if (s->buf.err) {
        stream_end(s); /* a reader that comes again is told all */
    } else if (s->buf.n == 0) {
        hf_timer_set(s->timer, s->keep_at);
    } else {
        s->keep_at = now + HF_WEB_KEEP_ALIVE;
        (void)stream_send(s);
    }
}

static void follower_on_room(void *arg)
{
    struct hf_web_stream *s = arg;
    s->unsent = false;
    follower_tell(s);
}

static void follower_on_timer(void *arg)
{
    struct hf_web_stream *s = arg;
    if (s->unsent) {
        stream_end(s);
    } else {
        follower_tell(s);
    }
}

/* Telling waits for the loop's next turn. */
void hf_web_follower_wake(void *stream)
{
    struct hf_web_stream *s = stream;
    if (!s->unsent) {
        hf_timer_set(s->timer, 0);
    }
}

struct hf_web_stream *hf_web_follower_create(struct hf_web *web, struct hf_http_req *req,
                                             void (*tell)(struct hf_web_stream *s))
{
    if (web->n_followers >= HF_SSE_CLIENTS_MAX) {
        hf_http_reply_error(req, 503, "%d clients follow events already, try again later",
                            HF_SSE_CLIENTS_MAX);
        return NULL;
    }
    struct hf_web_stream *s = stream_create(web, req, follower_on_timer);
    if (!s) {
        hf_http_reply_error(req, 503, "out of memory");
        return NULL;
    }
    s->tell = tell;
    web->n_followers++;
    return s;
}

void hf_web_follower_begin(struct hf_web_stream *s)
{
    hf_http_stream_begin(s->req, 200, "text/event-stream", follower_on_room, on_close, s);
    follower_tell(s);
}

void hf_web_add_line(struct hf_buf *buf, struct hf_slice text)
{
    uint8_t *to = hf_buf_reserve(buf, text.n);
    if (to) {
        for (size_t i = 0; i < text.n; i++) {
            to[i] = text.p[i] == '\n' || text.p[i] == '\r' ? ' ' : text.p[i];
        }
        hf_buf_commit(buf, text.n);
    }
}

/* ---- /v1/events ---- */

static void on_event(void *arg, enum hf_follow_event event, struct hf_slice owner,
                     struct hf_entry *entry)
{
    static const char *const names[] = {[HF_FOLLOW_ADDED] = "added",
                                        [HF_FOLLOW_CHANGED] = "changed",
                                        [HF_FOLLOW_REMOVED] = "removed"};
    struct hf_buf *buf = arg;
    if (event == HF_FOLLOW_SYNCED) {
        hf_buf_str(buf, "event: synced\ndata: {}\n\n");
        return;
    }
    hf_buf_printf(buf, "event: %s\ndata: {\"name\":", names[event]);
    hf_buf_json_str(buf, hf_entry_name(entry));
    hf_buf_str(buf, ",\"owner\":");
    hf_buf_json_str(buf, owner);
    hf_buf_str(buf, ",\"value\":");
    hf_web_add_line(buf, hf_entry_value(entry));
    hf_buf_str(buf, "}\n\n");
}

static void events_tell(struct hf_web_stream *s)
{
    while (s->buf.n < HF_WEB_PIECE_LEN && !s->buf.err &&
           hf_follow_tell(s->follow, TELL_EVENTS, on_event, &s->buf)) {
    }
    if (s->buf.n < HF_WEB_PIECE_LEN) {
        hf_group_events_tell(s->web->groups, &s->groups, &s->buf, HF_WEB_PIECE_LEN);
    }
}

/* A group has changed. */
static void groups_wake(void *arg)
{
    struct hf_web *web = arg;
    HF_LIST_FOREACH (node, &web->streams) {
        struct hf_web_stream *s = HF_CONTAINER_OF(node, struct hf_web_stream, node);
        if (s->follow) {
            hf_web_follower_wake(s);
        }
    }
    hf_web_overview_touch(web);
}

static void get_events(struct hf_web *web, struct hf_http_req *req)
{
    struct hf_slice prefix;
    if (!prefix_of(req, &prefix)) {
        return;
    }
    struct hf_web_stream *s = hf_web_follower_create(web, req, events_tell);
    if (!s) {
        return;
    }
    hf_group_teller_init(web->groups, prefix, &s->groups);
    s->follow = hf_follow_create(web->h->follows, prefix, hf_web_follower_wake, s);
    if (!s->follow) {
        stream_destroy(s);
        hf_http_reply_error(req, 503, "out of memory");
        return;
    }
    hf_web_follower_begin(s);
}

/* ---- what is answered whole ---- */

static void reply_report(struct hf_web *web, struct hf_http_req *req, const char *type,
                         void (*report)(struct hf_hostd *h, struct hf_buf *out))
{
    struct hf_buf buf;
    hf_buf_init(&buf, REPORT_LEN_MAX);
    report(web->h, &buf);
    if (buf.err) {
        hf_http_reply_error(req, 503, "%s", hf_strerror(buf.err));
    } else {
        hf_http_reply(req, 200, type, hf_buf_slice(&buf));
    }
    hf_buf_fini(&buf);
}

static void get_members(struct hf_web *web, struct hf_http_req *req)
{
    reply_report(web, req, JSON_TYPE, hf_report_members);
}

static void report_groups(struct hf_hostd *h, struct hf_buf *out)
{
    (void)!hf_report_groups(h, hf_slice(NULL, 0), out, NULL); /* out has its error */
}

static void get_groups(struct hf_web *web, struct hf_http_req *req)
{
    reply_report(web, req, JSON_TYPE, report_groups);
}

static void get_overview(struct hf_web *web, struct hf_http_req *req)
{
    reply_report(web, req, JSON_TYPE, hf_overview_json_all);
}

static void get_metrics(struct hf_web *web, struct hf_http_req *req)
{
    reply_report(web, req, "text/plain; version=0.0.4; charset=utf-8", hf_report_metrics);
}

static void get_health(struct hf_web *web, struct hf_http_req *req)
{
    enum hf_dir_state state = hf_dir_state(web->h->dir);
    char body[64];
    int n = snprintf(body, sizeof(body), "{\"state\":\"%s\"}\n", hf_dir_state_name(state));
    hf_http_reply(req, state == HF_DIR_RUN ? 200 : 503, JSON_TYPE, hf_slice(body, (size_t)n));
}

static void get_paths(struct hf_web *web, struct hf_http_req *req);

static const struct {
    const char *path, *text;
    void (*fn)(struct hf_web *web, struct hf_http_req *req);
} handlers[] = {
    {"/v1", "this list", get_paths},
    {"/v1/overview", "all that the dashboard shows as JSON", get_overview},
    {"/v1/overview/events", "the same, live, as Server-Sent Events", hf_web_overview_follow},
    {"/v1/tree", "?prefix=/...: services as JSON", get_tree},
    {"/v1/members", "hosts as JSON", get_members},
    {"/v1/events", "?prefix=/...: services and their changes as Server-Sent Events", get_events},
    {"/v1/groups", "this host's groups as JSON", get_groups},
    {"/v1/sd", "?prefix=/...: services with a port, for Prometheus' HTTP service discovery",
     get_sd},
    {"/metrics", "counters in Prometheus' text format", get_metrics},
    {"/healthz", "200 when this host takes part in the directory, otherwise 503", get_health},
};

static void get_paths(struct hf_web *web, struct hf_http_req *req)
{
    struct hf_buf buf;
    hf_buf_init(&buf, HF_WEB_PIECE_LEN);
    hf_buf_printf(&buf, "Holdfast on %s\n\n%-20s %s\n", web->h->config->host.name, "/",
                  "the dashboard, for a browser");
    for (size_t i = 0; i < HF_ARRAY_LEN(handlers); i++) {
        hf_buf_printf(&buf, "%-20s %s\n", handlers[i].path, handlers[i].text);
    }
    hf_http_reply(req, 200, "text/plain; charset=utf-8", hf_buf_slice(&buf));
    hf_buf_fini(&buf);
}

static void on_request(void *arg, struct hf_http_req *req)
{
    const char *path = hf_http_req_path(req);
    hf_tracef(HF_TRACE_HTTP, "http", "%s asks for %s", hf_http_req_from(req), path);
    for (size_t i = 0; i < HF_ARRAY_LEN(handlers); i++) {
        if (strcmp(path, handlers[i].path) == 0) {
            handlers[i].fn(arg, req);
            return;
        }
    }
    if (!hf_web_file_get(req, path)) {
        hf_http_reply_error(req, 404, "no such path; /v1 lists those that there are");
    }
}

int hf_web_open(struct hf_hostd *h, struct hf_err *err, struct hf_web **ret_web)
{
    if (h->config->http.listen.len == 0) {
        *ret_web = NULL;
        return 0;
    }
    struct hf_web *web = hf_alloc(sizeof(*web));
    if (!web) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    web->h = h;
    hf_list_init(&web->streams);
    struct hf_http_server_opt opt = {.bind = h->config->http.listen,
                                     .clients_max = HF_HTTP_CLIENTS_MAX,
                                     .idle_timeout_s = IDLE_TIMEOUT_S,
                                     .backlog_max = HF_SSE_BACKLOG_MAX,
                                     .fields = fields};
    int rc = hf_group_events_create(h, groups_wake, web, &web->groups);
    rc = rc ? rc : hf_web_overview_open(web);
    rc = rc ? hf_err_set(err, rc, "out of memory")
            : hf_http_server_open(h->loop, &opt, on_request, web, err, &web->server);
    if (rc) {
        hf_web_overview_close(web);
        hf_group_events_destroy(web->groups);
        hf_free(web);
        return rc;
    }
    *ret_web = web;
    return 0;
}

void hf_web_close(struct hf_web *web)
{
    if (web) {
        hf_http_server_close(web->server);
        HF_LIST_FOREACH (node, &web->streams) {
            stream_destroy(HF_CONTAINER_OF(node, struct hf_web_stream, node));
        }
        hf_web_overview_close(web);
        hf_group_events_destroy(web->groups);
        hf_free(web);
    }
}

uint16_t hf_web_port(const struct hf_web *web)
{
    return hf_http_server_port(web->server);
}
