#include "holdfast/holdfast.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/name.h"
#include "codec/group_v1.h"
#include "lib/conn.h"

#define RETRY_MS_MIN 50
#define RETRY_MS_MAX 2000
#define HELLO_MS_MAX 5000 /* for holdfastd's HELLO after connecting */
#define LATER_MS 1000     /* until an entry that was refused for the moment is tried again */

/* What a request was for; its answer is looked up by seq. */
enum kind {
    KIND_PUBLISH, /* of a held entry */
    KIND_LEASE,
    KIND_WITHDRAW,
    KIND_OTHER, /* WATCH, FOLLOW, UNWATCH: nobody waits */
};

/* On h->requests until it is answered, or until settle() has told its end. */
struct request {
    struct hf_list link;
    enum kind kind;
    uint32_t seq; /* 0: not sent on this connection */
    bool settled; /* ended without holdfastd, with `code` */
    int code;
    uint32_t watch;      /* KIND_OTHER: of which watch or follow, or 0 */
    struct entry *entry; /* KIND_PUBLISH: borrowed; NULL: changed or withdrawn since */
    holdfast_result_fn *fn;
    void *arg;
};

/* A held entry, in h->held by name. */
struct entry {
    char *name;          /* owned */
    char *json;          /* owned: as wanted */
    char *accepted;      /* what holdfastd has: json, or owned: the one before; NULL: none */
    struct request *req; /* the latest one under way, or NULL */
    bool later;          /* refused for the moment: send again when the timer says so */
    holdfast_result_fn *fn;
    void *arg;
};

/* What a watch has told of an entry; in w->known by key. */
struct known {
    uint64_t hash; /* of the value */
    uint32_t round;
    size_t owner_len;
    size_t key_len;
    char key[]; /* owner, NUL, name, NUL */
};

struct watch {
    struct hf_list link; /* h->watches, unwatched ones until no callback runs */
    uint32_t id;         /* the user's */
    uint32_t seq;        /* of its WATCH on this connection; 0: none */
    uint32_t round;      /* grows with each connection */
    bool dead;
    char *prefix; /* owned */
    struct hf_map known;
    holdfast_watch_fn *fn;
    void *arg;
};

/* A group, and what was told of it. */
struct follow {
    struct hf_list link; /* h->follows, unfollowed ones until no callback runs */
    uint32_t id;         /* the user's */
    uint32_t seq;        /* of its FOLLOW on this connection; 0: none */
    bool dead;
    bool told; /* fn knows what is below */
    uint8_t flags, phase;
    uint64_t epoch;
    char name[HF_GROUP_NAME_MAX + 1];
    char resource[HF_GROUP_RESOURCE_NAME_MAX + 1];
    char host[HF_HOST_NAME_MAX + 1];
    char address[HF_GROUP_ADDRESS_MAX + 1];
    char fence_text[HF_GROUP_FENCE_TEXT_MAX + 1];
    char lost[HF_GROUP_LOST_MAX + 1];
    holdfast_group_fn *fn;
    void *arg;
};

struct holdfast {
    char *path, *program; /* owned */
    int ep, timer;        /* owned; the timer and the connection are in ep */
    struct hf_conn conn;
    bool writing; /* EPOLLOUT is asked for */
    int status;   /* 0: HELLO has come; otherwise why not */
    int retry_ms;
    int64_t due_ms; /* when on_timer() has something to do; negative: never */
    uint32_t seq;
    struct hf_map held;
    struct hf_list requests, watches, follows;
    unsigned n_watches;  /* and follows; not dead */
    struct hf_buf value; /* a value with NUL, for callbacks */
    void (*on_status)(void *arg, int code);
    void *on_status_arg;
    struct hf_err err;
};

/* ---- small things ---- */

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static char *copy_str(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = hf_alloc(n);
    return p ? memcpy(p, s, n) : NULL;
}

/* Make the descriptor readable in ms; negative: not by time. */
static void arm(struct holdfast *h, int64_t ms)
{
    struct itimerspec its = {0};
    if (ms >= 0) {
        its.it_value.tv_sec = ms / 1000;
        its.it_value.tv_nsec = ms % 1000 * 1000000 + 1; /* zero would unset */
    }
    timerfd_settime(h->timer, 0, &its, NULL);
}

/* Call on_timer() in ms; negative: not. */
static void set_timer(struct holdfast *h, int ms)
{
    h->due_ms = ms < 0 ? -1 : now_ms() + ms;
    arm(h, ms);
}

static void want_write(struct holdfast *h)
{
    bool want = h->conn.fd >= 0 && hf_conn_unsent(&h->conn);
    if (h->conn.fd >= 0 && want != h->writing) {
        struct epoll_event ev = {.events = EPOLLIN | (want ? EPOLLOUT : 0), .data.fd = h->conn.fd};
        epoll_ctl(h->ep, EPOLL_CTL_MOD, h->conn.fd, &ev);
        h->writing = want;
    }
}

static uint32_t next_seq(struct holdfast *h)
{
    h->seq += h->seq == UINT32_MAX ? 2 : 1;
    return h->seq;
}

static int send_msg(struct holdfast *h, const struct hf_ctl_msg *m)
{
    int rc = hf_conn_send(&h->conn, m);
    if (rc) {
        return hf_err_set(&h->err, rc, "cannot send to holdfastd: %s", hf_strerror(rc));
    }
    want_write(h);
    return 0;
}

/* ---- entries, requests, watches ---- */

static struct request *request_new(struct holdfast *h, enum kind kind, holdfast_result_fn *fn,
                                   void *arg)
{
    struct request *r = hf_alloc(sizeof(*r));
    if (r) {
        r->kind = kind;
        r->fn = fn;
        r->arg = arg;
        hf_list_insert(&h->requests, &r->link);
    }
    return r;
}

static void request_free(struct request *r)
{
    if (r) {
        if (r->entry && r->entry->req == r) {
            r->entry->req = NULL;
        }
        hf_list_unlink(&r->link);
        hf_free(r);
    }
}

/* Tell the result and forget the request. */
static void request_done(struct request *r, int code, const char *text)
{
    holdfast_result_fn *fn = r->fn;
    void *arg = r->arg;
    request_free(r);
    if (fn) {
        fn(arg, code, text);
    }
}

static void entry_free(struct holdfast *h, struct entry *e)
{
    hf_map_remove(&h->held, hf_slice_str(e->name));
    HF_LIST_FOREACH (it, &h->requests) {
        struct request *r = HF_CONTAINER_OF(it, struct request, link);
        if (r->entry == e) {
            r->entry = NULL;
        }
    }
    if (e->accepted != e->json) {
        hf_free(e->accepted);
    }
    hf_free(e->json);
    hf_free(e->name);
    hf_free(e);
}

static struct entry *entry_get(struct holdfast *h, const char *name)
{
    struct entry *e = hf_map_get(&h->held, hf_slice_str(name));
    if (e) {
        return e;
    }
    e = hf_alloc(sizeof(*e));
    if (e && (!(e->name = copy_str(name)) || hf_map_put(&h->held, hf_slice_str(e->name), e) != 0)) {
        hf_free(e->name);
        hf_free(e);
        return NULL;
    }
    return e;
}

static struct hf_ctl_msg publish_msg(uint32_t seq, const char *name, const char *json,
                                     uint32_t lease_ms)
{
    return (struct hf_ctl_msg){.type = HF_CTL_PUBLISH,
                               .seq = seq,
                               .lease_ms = lease_ms,
                               .name = hf_slice_str(name),
                               .value = hf_slice_str(json)};
}

/* Send an entry as it is wanted, on behalf of its request, or of a new one that nobody waits for.
 */
static int entry_send(struct holdfast *h, struct entry *e)
{
    if (!e->req) {
        e->req = request_new(h, KIND_PUBLISH, NULL, NULL);
        if (!e->req) {
            return -ENOMEM;
        }
        e->req->entry = e;
    }
    e->later = false;
    e->req->seq = next_seq(h);
    struct hf_ctl_msg m = publish_msg(e->req->seq, e->name, e->json, 0);
    return send_msg(h, &m);
}

static void watch_free(struct watch *w)
{
    size_t pos = 0;
    for (struct known *k = hf_map_next(&w->known, &pos); k; k = hf_map_next(&w->known, &pos)) {
        hf_free(k);
    }
    hf_map_fini(&w->known);
    hf_list_unlink(&w->link);
    hf_free(w->prefix);
    hf_free(w);
}

static int watch_send(struct holdfast *h, struct watch *w)
{
    struct request *r = request_new(h, KIND_OTHER, NULL, NULL);
    if (!r) {
        return -ENOMEM;
    }
    w->seq = r->seq = next_seq(h);
    w->round++;
    r->watch = w->id;
    return send_msg(h, &(struct hf_ctl_msg){
                           .type = HF_CTL_WATCH, .seq = w->seq, .name = hf_slice_str(w->prefix)});
}

static int follow_send(struct holdfast *h, struct follow *f)
{
    struct request *r = request_new(h, KIND_OTHER, NULL, NULL);
    if (!r) {
        return -ENOMEM;
    }
    f->seq = r->seq = next_seq(h);
    r->watch = f->id;
    return send_msg(h, &(struct hf_ctl_msg){
                           .type = HF_CTL_FOLLOW, .seq = f->seq, .name = hf_slice_str(f->name)});
}

static void follow_tell(struct follow *f)
{
    struct holdfast_group g = {.name = f->name,
                               .member = (f->flags & HF_CTL_GROUP_MEMBER) != 0,
                               .quorate = (f->flags & HF_CTL_GROUP_QUORATE) != 0,
                               .is_here = (f->flags & HF_CTL_GROUP_HERE) != 0,
                               .phase = f->phase,
                               .epoch = f->epoch,
                               .resource = f->resource,
                               .host = f->host,
                               .address = f->address,
                               .fence_text = f->fence_text,
                               .lost = f->lost};
    f->told = true;
    if (!f->dead) {
        f->fn(f->arg, &g);
    }
}

/* End a request without holdfastd: its fn is called by the next dispatch. */
static void request_settle(struct holdfast *h, struct request *r, int code)
{
    if (r->entry && r->entry->req == r) {
        r->entry->req = NULL;
    }
    r->entry = NULL;
    r->settled = true;
    r->code = code;
    r->seq = 0;
    arm(h, 0);
}

/* ---- the connection ---- */

static void tell_status(struct holdfast *h, int code)
{
    bool changed = (h->status == 0) != (code == 0);
    h->status = code;
    if (changed && h->on_status) {
        h->on_status(h->on_status_arg, code);
    }
}

/* The connection is gone: settle what depended on it, and try again later. */
static void lose(struct holdfast *h, int code)
{
    hf_conn_fini(&h->conn); /* closing takes it out of ep */
    h->writing = false;
    set_timer(h, h->retry_ms);
    h->retry_ms = h->retry_ms * 2 > RETRY_MS_MAX ? RETRY_MS_MAX : h->retry_ms * 2;
    hf_err_set(&h->err, code, "no connection to holdfastd on %s: %s", h->path, hf_strerror(code));
    size_t pos = 0;
    for (struct entry *e = hf_map_next(&h->held, &pos); e; e = hf_map_next(&h->held, &pos)) {
        if (e->accepted != e->json) {
            hf_free(e->accepted);
        }
        e->accepted = NULL;
        e->later = false;
    }
    HF_LIST_FOREACH (it, &h->requests) {
        struct request *r = HF_CONTAINER_OF(it, struct request, link);
        r->seq = 0;
        bool goes_on = r->kind == KIND_PUBLISH && r->entry && r->entry->req == r;
        if (!goes_on && !r->settled) { /* what was held is withdrawn by the loss itself */
            request_settle(h, r, r->kind == KIND_WITHDRAW ? 0 : -HF_ECLOSED);
        }
    }
    tell_status(h, code);
    HF_LIST_FOREACH (it, &h->follows) { /* who leads is not known any more */
        struct follow *f = HF_CONTAINER_OF(it, struct follow, link);
        bool news = f->told && f->flags;
        f->seq = 0;
        f->flags = 0;
        if (news) {
            follow_tell(f);
        }
    }
}

/* Start a connection; what comes of it shows in dispatch. */
static void dial(struct holdfast *h)
{
    int fd;
    int rc = hf_conn_dial(h->path, &fd);
    if (rc) {
        lose(h, rc);
        return;
    }
    hf_conn_init(&h->conn, fd);
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
    struct hf_ctl_msg hello = {
        .type = HF_CTL_HELLO, .version = HF_CTL_VERSION, .text = hf_slice_str(h->program)};
    rc = epoll_ctl(h->ep, EPOLL_CTL_ADD, fd, &ev) ? -errno : send_msg(h, &hello);
    if (rc) {
        lose(h, rc);
        return;
    }
    set_timer(h, HELLO_MS_MAX);
}

/* HELLO has come: say again all that this connection must know. */
static int connected(struct holdfast *h)
{
    int rc = 0;
    size_t pos = 0;
    h->retry_ms = RETRY_MS_MIN;
    h->err = (struct hf_err){0};
    set_timer(h, -1);
    for (struct entry *e = hf_map_next(&h->held, &pos); e && !rc; e = hf_map_next(&h->held, &pos)) {
        rc = entry_send(h, e);
    }
    HF_LIST_FOREACH (it, &h->watches) {
        struct watch *w = HF_CONTAINER_OF(it, struct watch, link);
        rc = rc || w->dead ? rc : watch_send(h, w);
    }
    HF_LIST_FOREACH (it, &h->follows) {
        struct follow *f = HF_CONTAINER_OF(it, struct follow, link);
        rc = rc || f->dead ? rc : follow_send(h, f);
    }
    if (rc == 0) {
        tell_status(h, 0);
    }
    return rc;
}

/* The timer: connect (again), give up waiting for HELLO, or send again what was refused. */
static void on_timer(struct holdfast *h)
{
    uint64_t n;
    if (read(h->timer, &n, sizeof(n)) < 0) {
        return; /* it was set anew meanwhile */
    }
    int64_t left = h->due_ms - now_ms();
    if (h->due_ms < 0 || left > 0) { /* only settle() was called for */
        arm(h, h->due_ms < 0 ? -1 : left);
        return;
    }
    h->due_ms = -1;
    if (h->conn.fd < 0) {
        dial(h);
    } else if (h->status != 0) {
        lose(h, -HF_ETIMEOUT);
    } else {
        size_t pos = 0;
        int rc = 0;
        for (struct entry *e = hf_map_next(&h->held, &pos); e && rc == 0;
             e = hf_map_next(&h->held, &pos)) {
            rc = e->later ? entry_send(h, e) : 0;
        }
        if (rc) {
            lose(h, rc);
        }
    }
}

/* ---- what holdfastd says ---- */

/* The latest request of a held entry is answered. Is the caller's fn to be told? */
static void entry_answered(struct holdfast *h, struct request *r, int code, const char *text)
{
    struct entry *e = r->entry;
    bool waited = r->fn != NULL;
    if (code == 0) {
        if (e->accepted != e->json) {
            hf_free(e->accepted);
        }
        e->accepted = e->json;
        request_done(r, 0, text);
        return;
    }
    if (code == -HF_ENOTREADY || (code == -HF_ERATE && !waited)) {
        e->later = true;
        r->seq = 0;
        set_timer(h, LATER_MS);
        return;
    }
    holdfast_result_fn *fn = e->fn;
    void *arg = e->arg;
    request_free(r);
    if (e->accepted) { /* the change was refused, the entry stays as it was */
        hf_free(e->json);
        e->json = e->accepted;
    } else {
        entry_free(h, e);
    }
    if (fn) {
        fn(arg, code, text);
    }
}

static int on_result(struct holdfast *h, const struct hf_ctl_msg *m)
{
    char text[256];
    snprintf(text, sizeof(text), "%.*s", HF_SLICE_FMT(m->text));
    HF_LIST_FOREACH (it, &h->requests) {
        struct request *r = HF_CONTAINER_OF(it, struct request, link);
        if (r->settled || r->seq == 0 || r->seq != m->seq) {
            continue;
        }
        if (m->code) {
            hf_err_set(&h->err, m->code, "%s", *text ? text : hf_strerror(m->code));
        }
        if (r->watch && m->code) {
            return m->code; /* a watch that is refused cannot be told to anybody */
        }
        if (r->kind == KIND_PUBLISH && r->entry && r->entry->req == r) {
            entry_answered(h, r, m->code, *text ? text : hf_strerror(m->code));
        } else {
            request_done(r, m->code, *text ? text : hf_strerror(m->code));
        }
        return 0;
    }
    return -HF_EPROTO;
}

static struct hf_slice known_key(const struct known *k)
{
    return hf_slice(k->key, k->key_len);
}

static struct known *known_new(struct hf_slice owner, struct hf_slice name)
{
    struct known *k = hf_alloc(sizeof(*k) + owner.n + name.n + 2);
    if (k) {
        k->owner_len = owner.n;
        k->key_len = owner.n + name.n + 2;
        memcpy(k->key, owner.p, owner.n);
        memcpy(k->key + owner.n + 1, name.p, name.n);
    }
    return k;
}

static void tell(struct watch *w, enum holdfast_event event, const struct known *k,
                 const char *value)
{
    if (!w->dead) {
        w->fn(w->arg, event, k ? k->key : "", k ? k->key + k->owner_len + 1 : "", value);
    }
}

/* Everything is told: what was known and was not told again is gone. */
static void on_synced(struct watch *w)
{
    size_t pos = 0;
    for (struct known *k = hf_map_next(&w->known, &pos); k; k = hf_map_next(&w->known, &pos)) {
        if (k->round != w->round) {
            hf_map_remove(&w->known, known_key(k));
            tell(w, HOLDFAST_REMOVED, k, "");
            hf_free(k);
        }
    }
    tell(w, HOLDFAST_SYNCED, NULL, "");
}

/* An entry is there: new, changed, or told again after a reconnect. */
static int on_present(struct holdfast *h, struct watch *w, struct known *fresh,
                      struct hf_slice value)
{
    uint64_t hash = hf_hash(value, 0);
    struct known *k = hf_map_get(&w->known, known_key(fresh));
    enum holdfast_event event = k ? HOLDFAST_CHANGED : HOLDFAST_ADDED;
    bool same = k && k->hash == hash;
    if (!k) {
        int rc = hf_map_put(&w->known, known_key(fresh), fresh);
        if (rc) {
            hf_free(fresh);
            return rc;
        }
        k = fresh;
    } else {
        hf_free(fresh);
    }
    k->hash = hash;
    k->round = w->round;
    if (same) {
        return 0;
    }
    hf_buf_clear(&h->value);
    hf_buf_add(&h->value, value);
    hf_buf_add(&h->value, hf_slice("", 1));
    if (h->value.err) {
        return h->value.err;
    }
    tell(w, event, k, (const char *)h->value.p);
    return 0;
}

static int on_event(struct holdfast *h, const struct hf_ctl_msg *m)
{
    struct watch *w = NULL;
    HF_LIST_FOREACH (it, &h->watches) {
        struct watch *c = HF_CONTAINER_OF(it, struct watch, link);
        w = c->seq == m->seq && !c->dead ? c : w;
    }
    if (!w) {
        return 0; /* unwatched while it was on its way */
    }
    if (m->event == HF_CTL_SYNCED) {
        on_synced(w);
        return 0;
    }
    if (!hf_host_name_ok(m->owner) || !hf_service_name_ok(m->name)) {
        return -HF_EPROTO;
    }
    struct known *fresh = known_new(m->owner, m->name);
    if (!fresh) {
        return -ENOMEM;
    }
    if (m->event != HF_CTL_REMOVED) {
        if (!hf_json_object_ok(m->value)) {
            hf_free(fresh);
            return -HF_EPROTO;
        }
        return on_present(h, w, fresh, m->value);
    }
    struct known *k = hf_map_remove(&w->known, known_key(fresh));
    if (k) {
        tell(w, HOLDFAST_REMOVED, k, "");
    }
    hf_free(k);
    hf_free(fresh);
    return 0;
}

/* Copy; true: it was another one. */
static bool take_str(char *to, struct hf_slice s)
{
    bool same = hf_slice_eq(hf_slice_str(to), s);
    if (s.n) {
        memcpy(to, s.p, s.n); /* the codec has bounded it */
    }
    to[s.n] = '\0';
    return !same;
}

static int on_group_state(struct holdfast *h, const struct hf_ctl_msg *m)
{
    HF_LIST_FOREACH (it, &h->follows) {
        struct follow *f = HF_CONTAINER_OF(it, struct follow, link);
        if (f->seq == 0 || f->seq != m->seq) {
            continue;
        }
        bool news = !f->told || f->flags != m->flags || f->phase != m->phase;
        news = news || f->epoch != m->epoch;
        f->flags = m->flags;
        f->phase = m->phase;
        f->epoch = m->epoch;
        news = take_str(f->resource, m->resource) || news;
        news = take_str(f->host, m->owner) || news;
        news = take_str(f->address, m->address) || news;
        news = take_str(f->fence_text, m->fence_text) || news;
        news = take_str(f->lost, m->lost) || news;
        if (news) {
            follow_tell(f);
        }
        return 0;
    }
    return 0; /* unfollowed meanwhile */
}

static int on_msg(struct holdfast *h, const struct hf_ctl_msg *m)
{
    if ((h->status != 0) != (m->type == HF_CTL_HELLO)) {
        return -HF_EPROTO; /* HELLO comes first, and once */
    }
    switch ((enum hf_ctl_type)m->type) {
    case HF_CTL_HELLO:
        return connected(h);
    case HF_CTL_RESULT:
        return on_result(h, m);
    case HF_CTL_EVENT:
        return on_event(h, m);
    case HF_CTL_GROUP_STATE:
        return on_group_state(h, m);
    case HF_CTL_PUBLISH:
    case HF_CTL_WITHDRAW:
    case HF_CTL_WATCH:
    case HF_CTL_UNWATCH:
    case HF_CTL_QUERY:
    case HF_CTL_TRACE:
    case HF_CTL_RELOAD:
    case HF_CTL_TEXT:
    case HF_CTL_LINE:
    case HF_CTL_GROUP:
    case HF_CTL_FOLLOW:
        break;
    }
    return -HF_EPROTO;
}

static void on_socket(struct holdfast *h)
{
    struct hf_ctl_msg m;
    int rc = hf_conn_flush(&h->conn);
    int end = hf_conn_fill(&h->conn); /* what came before the end counts */
    int n = 0;
    while ((rc == 0 || rc == -EPIPE) && (n = hf_conn_next(&h->conn, &m)) > 0) {
        int bad = on_msg(h, &m);
        rc = bad ? bad : rc;
    }
    rc = rc && rc != -EPIPE ? rc : n < 0 ? n : rc ? -HF_ECLOSED : end;
    if (rc) {
        lose(h, rc);
    } else {
        want_write(h);
    }
}

/* Once per dispatch: what could not be settled while callbacks ran. */
static void settle(struct holdfast *h)
{
    for (struct hf_list *it = h->requests.next; it != &h->requests;) {
        struct request *r = HF_CONTAINER_OF(it, struct request, link);
        it = it->next;
        if (r->settled) {
            request_done(r, r->code, hf_strerror(r->code));
            it = h->requests.next; /* the callback may have changed the list */
        }
    }
    HF_LIST_FOREACH (it, &h->watches) {
        struct watch *w = HF_CONTAINER_OF(it, struct watch, link);
        if (w->dead) {
            watch_free(w);
        }
    }
    HF_LIST_FOREACH (it, &h->follows) {
        struct follow *f = HF_CONTAINER_OF(it, struct follow, link);
        if (f->dead) {
            hf_list_unlink(&f->link);
            hf_free(f);
        }
    }
}

/* ---- the public functions ---- */

int holdfast_create(const char *path, const char *program, struct holdfast **ret_handle)
{
    struct holdfast *h = hf_alloc(sizeof(*h));
    if (!h) {
        return -ENOMEM;
    }
    hf_conn_init(&h->conn, -1);
    hf_map_init(&h->held, (uint64_t)now_ms());
    hf_list_init(&h->requests);
    hf_list_init(&h->watches);
    hf_list_init(&h->follows);
    hf_buf_init(&h->value, HF_VALUE_LEN_MAX + 1);
    h->status = -ENOTCONN;
    h->retry_ms = RETRY_MS_MIN;
    h->timer = -1;
    h->path = copy_str(hf_conn_path(path));
    h->program = copy_str(program);
    h->ep = epoll_create1(EPOLL_CLOEXEC);
    int rc = h->ep < 0 ? -errno : h->path && h->program ? 0 : -ENOMEM;
    if (rc == 0) {
        h->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        struct epoll_event ev = {.events = EPOLLIN, .data.fd = h->timer};
        rc = h->timer < 0 || epoll_ctl(h->ep, EPOLL_CTL_ADD, h->timer, &ev) ? -errno : 0;
    }
    if (rc == 0 && strlen(h->path) > 107) { /* unix(7) */
        rc = -ENAMETOOLONG;
    }
    if (rc) {
        holdfast_destroy(h);
        return rc;
    }
    set_timer(h, 0);
    *ret_handle = h;
    return 0;
}

void holdfast_destroy(struct holdfast *h)
{
    if (!h) {
        return;
    }
    HF_LIST_FOREACH (it, &h->requests) {
        request_free(HF_CONTAINER_OF(it, struct request, link));
    }
    HF_LIST_FOREACH (it, &h->watches) {
        watch_free(HF_CONTAINER_OF(it, struct watch, link));
    }
    HF_LIST_FOREACH (it, &h->follows) {
        hf_free(HF_CONTAINER_OF(it, struct follow, link));
    }
    size_t pos = 0;
    for (struct entry *e = hf_map_next(&h->held, &pos); e; e = hf_map_next(&h->held, &pos)) {
        entry_free(h, e);
    }
    hf_map_fini(&h->held);
    hf_conn_fini(&h->conn);
    hf_buf_fini(&h->value);
    if (h->timer >= 0) {
        close(h->timer);
    }
    if (h->ep >= 0) {
        close(h->ep);
    }
    hf_free(h->path);
    hf_free(h->program);
    hf_free(h);
}

int holdfast_fd(const struct holdfast *h)
{
    return h->ep;
}

int holdfast_status(const struct holdfast *h)
{
    return h->status;
}

void holdfast_on_status(struct holdfast *h, void (*fn)(void *arg, int code), void *arg)
{
    h->on_status = fn;
    h->on_status_arg = arg;
}

int holdfast_dispatch(struct holdfast *h, int timeout_ms)
{
    struct epoll_event ev[2];
    int n = epoll_wait(h->ep, ev, HF_ARRAY_LEN(ev), timeout_ms);
    if (n < 0) {
        return -errno;
    }
    bool timer = false, sock = false;
    for (int i = 0; i < n; i++) {
        timer |= ev[i].data.fd == h->timer;
        sock |= ev[i].data.fd != h->timer;
    }
    if (sock) { /* first: HELLO may have come just in time */
        on_socket(h);
    }
    if (timer) {
        on_timer(h);
    }
    settle(h);
    return 0;
}

/* Dispatch until *done or the time is up. */
static int wait_for(struct holdfast *h, const bool *done, int timeout_ms)
{
    int64_t end = now_ms() + timeout_ms;
    while (!*done) {
        int64_t left = timeout_ms < 0 ? -1 : end - now_ms();
        if (timeout_ms >= 0 && left <= 0) {
            return -HF_ETIMEOUT;
        }
        int rc = holdfast_dispatch(h, left > INT_MAX ? INT_MAX : (int)left);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

int holdfast_connect(struct holdfast *h, int timeout_ms)
{
    int64_t end = now_ms() + timeout_ms;
    int rc = 0;
    while (h->status != 0 && rc == 0) {
        int64_t left = timeout_ms < 0 ? -1 : end - now_ms();
        if (timeout_ms >= 0 && left <= 0) {
            rc = h->conn.fd >= 0 || h->status == -ENOTCONN ? -HF_ETIMEOUT : h->status;
            return hf_err_set(&h->err, rc, "no connection to holdfastd on %s: %s", h->path,
                              hf_strerror(rc));
        }
        rc = holdfast_dispatch(h, left > INT_MAX ? INT_MAX : (int)left);
    }
    return rc;
}

/* Why this may not be published, or 0. */
static int check_entry(struct holdfast *h, const char *name, const char *json)
{
    if (!hf_service_name_ok(hf_slice_str(name))) {
        return hf_err_set(&h->err, -HF_ENAME, "\"%.100s\" is not a name like /pg/orders/primary",
                          name);
    }
    if (!json) {
        return 0;
    }
    size_t n = strlen(json);
    if (n > HF_VALUE_LEN_MAX) {
        return hf_err_set(&h->err, -HF_EVALUE, "%s: value of %zu bytes, at most %d are allowed",
                          name, n, HF_VALUE_LEN_MAX);
    }
    if (!hf_json_object_ok(hf_slice(json, n))) {
        return hf_err_set(&h->err, -HF_EVALUE, "%s: value is not one JSON object", name);
    }
    return 0;
}

static int no_connection(struct holdfast *h)
{
    return hf_err_set(&h->err, h->status, "no connection to holdfastd on %s: %s", h->path,
                      hf_strerror(h->status));
}

/* Send on behalf of a new request; on failure it is as if nothing had been. */
static int send_request(struct holdfast *h, enum kind kind, struct hf_ctl_msg m,
                        holdfast_result_fn *fn, void *arg)
{
    struct request *r = request_new(h, kind, fn, arg);
    if (!r) {
        return -ENOMEM;
    }
    m.seq = r->seq = next_seq(h);
    int rc = send_msg(h, &m);
    if (rc) {
        request_free(r);
    }
    return rc;
}

static int publish_held(struct holdfast *h, const char *name, const char *json,
                        holdfast_result_fn *fn, void *arg)
{
    char *copy = copy_str(json);
    struct entry *e = copy ? entry_get(h, name) : NULL;
    struct request *r = e ? request_new(h, KIND_PUBLISH, fn, arg) : NULL;
    if (r && h->status == 0) {
        r->seq = next_seq(h);
        struct hf_ctl_msg m = publish_msg(r->seq, name, copy, 0);
        int rc = send_msg(h, &m);
        if (rc) {
            request_free(r);
            hf_free(copy);
            if (!e->json) {
                entry_free(h, e);
            }
            return rc;
        }
    }
    if (!r) {
        hf_free(copy);
        if (e && !e->json) {
            entry_free(h, e);
        }
        return -ENOMEM;
    }
    if (e->accepted != e->json) {
        hf_free(e->json); /* wanted, but overtaken */
    }
    if (e->req && e->req->seq == 0) { /* never sent, and overtaken */
        request_settle(h, e->req, -ECANCELED);
    }
    e->json = copy;
    e->req = r;
    e->later = false;
    e->fn = fn;
    e->arg = arg;
    r->entry = e;
    return 0;
}

int holdfast_publish(struct holdfast *h, const char *name, const char *json, uint32_t lease_ms,
                     holdfast_result_fn *fn, void *arg)
{
    int rc = check_entry(h, name, json);
    if (rc) {
        return rc;
    }
    if (lease_ms == 0) {
        return publish_held(h, name, json, fn, arg);
    }
    return h->status ? no_connection(h)
                     : send_request(h, KIND_LEASE, publish_msg(0, name, json, lease_ms), fn, arg);
}

int holdfast_withdraw(struct holdfast *h, const char *name, holdfast_result_fn *fn, void *arg)
{
    int rc = check_entry(h, name, NULL);
    if (rc) {
        return rc;
    }
    struct entry *e = hf_map_get(&h->held, hf_slice_str(name));
    if (h->status == 0) {
        rc = send_request(h, KIND_WITHDRAW,
                          (struct hf_ctl_msg){.type = HF_CTL_WITHDRAW, .name = hf_slice_str(name)},
                          fn, arg);
    } else if (!e) {
        rc = no_connection(h);
    } else {
        struct request *r = request_new(h, KIND_WITHDRAW, fn, arg);
        rc = r ? 0 : -ENOMEM;
        if (r) {
            request_settle(h, r, 0);
        }
    }
    if (e && rc == 0) {
        if (e->req && e->req->seq == 0) { /* never sent, and needs not be */
            request_settle(h, e->req, -ECANCELED);
        }
        entry_free(h, e);
    }
    return rc;
}

/* For the variants with a time limit. */
struct outcome {
    bool done;
    int code;
};

static void on_outcome(void *arg, int code, const char *text)
{
    struct outcome *o = arg;
    (void)text;
    o->done = true;
    o->code = code;
}

/* Wait for o; whatever comes of it, nothing points to it afterwards. */
static int await(struct holdfast *h, const char *name, struct outcome *o, int timeout_ms)
{
    int rc = wait_for(h, &o->done, timeout_ms);
    struct entry *e = hf_map_get(&h->held, hf_slice_str(name));
    if (e && e->arg == o) {
        e->fn = NULL;
        e->arg = NULL;
    }
    HF_LIST_FOREACH (it, &h->requests) {
        struct request *r = HF_CONTAINER_OF(it, struct request, link);
        if (r->arg == o) {
            r->fn = NULL;
            r->arg = NULL;
        }
    }
    if (rc == -HF_ETIMEOUT) {
        hf_err_set(&h->err, rc, "%s: no answer from holdfastd on %s within %d ms", name, h->path,
                   timeout_ms);
    }
    return rc ? rc : o->code;
}

int holdfast_publish_wait(struct holdfast *h, const char *name, const char *json, uint32_t lease_ms,
                          int timeout_ms)
{
    struct outcome o = {0};
    int64_t start = now_ms();
    int rc = lease_ms ? holdfast_connect(h, timeout_ms) : 0;
    rc = rc ? rc : holdfast_publish(h, name, json, lease_ms, on_outcome, &o);
    if (rc) {
        return rc;
    }
    int64_t left = timeout_ms - (now_ms() - start);
    return await(h, name, &o, timeout_ms < 0 ? -1 : left > 0 ? (int)left : 0);
}

int holdfast_withdraw_wait(struct holdfast *h, const char *name, int timeout_ms)
{
    struct outcome o = {0};
    int rc = holdfast_withdraw(h, name, on_outcome, &o);
    return rc ? rc : await(h, name, &o, timeout_ms);
}

int holdfast_watch(struct holdfast *h, const char *prefix, holdfast_watch_fn *fn, void *arg,
                   uint32_t *ret_watch)
{
    struct hf_slice p = hf_slice_str(prefix);
    struct hf_slice bare = hf_slice(p.p, p.n && p.p[p.n - 1] == '/' ? p.n - 1 : p.n);
    if (bare.n && !hf_service_name_ok(bare)) {
        return hf_err_set(&h->err, -HF_ENAME, "\"%.100s\" is not a prefix like /pg/orders", prefix);
    }
    if (h->n_watches >= HF_CTL_WATCHES_MAX) {
        return hf_err_set(&h->err, -HF_EFULL, "at most %d watches and follows", HF_CTL_WATCHES_MAX);
    }
    struct watch *w = hf_alloc(sizeof(*w));
    if (!w || !(w->prefix = copy_str(prefix))) {
        hf_free(w);
        return -ENOMEM;
    }
    hf_map_init(&w->known, (uint64_t)now_ms());
    w->fn = fn;
    w->arg = arg;
    w->id = next_seq(h);
    hf_list_insert(&h->watches, &w->link);
    int rc = h->status == 0 ? watch_send(h, w) : 0;
    if (rc) {
        watch_free(w);
        return rc;
    }
    h->n_watches++;
    *ret_watch = w->id;
    return 0;
}

static int unwatch_send(struct holdfast *h, uint32_t seq)
{
    return h->status ? 0
                     : send_request(h, KIND_OTHER,
                                    (struct hf_ctl_msg){.type = HF_CTL_UNWATCH, .watch = seq}, NULL,
                                    NULL);
}

int holdfast_unwatch(struct holdfast *h, uint32_t watch)
{
    HF_LIST_FOREACH (it, &h->watches) {
        struct watch *w = HF_CONTAINER_OF(it, struct watch, link);
        if (w->id != watch || w->dead) {
            continue;
        }
        w->dead = true; /* freed by the next dispatch: a callback of it may be running */
        h->n_watches--;
        arm(h, 0);
        return unwatch_send(h, w->seq);
    }
    return hf_err_set(&h->err, -HF_ENOTFOUND, "no watch %u", watch);
}

int holdfast_group_follow(struct holdfast *h, const char *name, holdfast_group_fn *fn, void *arg,
                          uint32_t *ret_follow)
{
    struct hf_slice s = hf_slice_str(name);
    if (s.n > HF_GROUP_NAME_MAX || !hf_host_name_ok(s)) { /* both are DNS labels */
        return hf_err_set(&h->err, -HF_ENAME, "\"%.100s\" is not the name of a group", name);
    }
    if (h->n_watches >= HF_CTL_WATCHES_MAX) {
        return hf_err_set(&h->err, -HF_EFULL, "at most %d watches and follows", HF_CTL_WATCHES_MAX);
    }
    struct follow *f = hf_alloc(sizeof(*f));
    if (!f) {
        return -ENOMEM;
    }
    memcpy(f->name, name, s.n);
    f->fn = fn;
    f->arg = arg;
    f->id = next_seq(h);
    hf_list_insert(&h->follows, &f->link);
    int rc = h->status == 0 ? follow_send(h, f) : 0;
    if (rc) {
        hf_list_unlink(&f->link);
        hf_free(f);
        return rc;
    }
    h->n_watches++;
    *ret_follow = f->id;
    return 0;
}

int holdfast_group_unfollow(struct holdfast *h, uint32_t follow)
{
    HF_LIST_FOREACH (it, &h->follows) {
        struct follow *f = HF_CONTAINER_OF(it, struct follow, link);
        if (f->id == follow && !f->dead) {
            f->dead = true; /* freed by the next dispatch: a callback of it may be running */
            h->n_watches--;
            arm(h, 0);
            return unwatch_send(h, f->seq);
        }
    }
    return hf_err_set(&h->err, -HF_ENOTFOUND, "no follow %u", follow);
}

const char *holdfast_strerror(int code)
{
    return hf_strerror(code);
}

const char *holdfast_error(const struct holdfast *h)
{
    return h->err.text;
}

const char *holdfast_version(void)
{
    return HF_VERSION;
}
