/* The Corosync engine: handles, descriptors and quorum around cpg_view.c. */
#include "engine/corosync.h"

#include <corosync/cpg.h>
#include <corosync/quorum.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/name.h"
#include "engine/cpg_view.h"

#define PREFIX "holdfast/" /* of our groups' names among all CPG groups */
#define RETRY HF_MS(5)     /* what corosync was too busy for */
#define EVENTS_PER_DISPATCH 256

_Static_assert((int)HF_CPG_JOIN == CPG_REASON_JOIN && (int)HF_CPG_LEAVE == CPG_REASON_LEAVE &&
                   (int)HF_CPG_NODEDOWN == CPG_REASON_NODEDOWN &&
                   (int)HF_CPG_NODEUP == CPG_REASON_NODEUP &&
                   (int)HF_CPG_PROCDOWN == CPG_REASON_PROCDOWN,
               "our reasons are CPG's");

struct corosync;

struct group {
    struct corosync *e; /* borrowed */
    char name[HF_ENGINE_GROUP_NAME_MAX + 1];
    cpg_handle_t h;
    bool open;    /* h is valid */
    bool joined;  /* cpg_join succeeded */
    bool leaving; /* leave() was called */
    bool left;    /* cpg_leave succeeded */
    bool rejoin;  /* join() was called after leave() */
    struct hf_cpg_view v;
};

struct corosync {
    struct hf_engine engine;
    struct corosync *self; /* the quorum handle's context is const */
    char host[HF_HOST_NAME_MAX + 1];
    hf_time silence;
    struct hf_engine_callbacks cb;
    void *arg;
    struct group *group[HF_ENGINE_COROSYNC_GROUPS_MAX]; /* owned */
    unsigned n_groups;
    int ep, kick; /* kick: something was asked for outside dispatch() */
    hf_time now, last;
    int lost; /* the lost callback is due */

    quorum_handle_t q;
    bool q_open, q_known, q_due; /* due: held back until the ring is settled */
    bool quorate;
    uint64_t q_ring, q_told; /* totem's ring; the number given to the last callback */
};

static struct corosync *of(struct hf_engine *e)
{
    return HF_CONTAINER_OF(e, struct corosync, engine);
}

static void kick(struct corosync *e)
{
    ssize_t n = write(e->kick, &(uint64_t){1}, sizeof(uint64_t));
    (void)n;
}

static void set_lost(struct corosync *e, int rc)
{
    if (!e->lost) {
        e->lost = rc;
        kick(e);
    }
}

static int rc_of(cs_error_t cs)
{
    switch ((int)cs) {
    case CS_OK:
        return 0;
    case CS_ERR_TRY_AGAIN:
    case CS_ERR_QUEUE_FULL:
    case CS_ERR_NO_RESOURCES:
        return -HF_EFULL;
    case CS_ERR_LIBRARY:
    case CS_ERR_BAD_HANDLE:
        return -HF_ECLOSED;
    case CS_ERR_NO_MEMORY:
        return -ENOMEM;
    case CS_ERR_ACCESS:
    case CS_ERR_SECURITY:
        return -EACCES;
    case CS_ERR_EXIST:
        return -HF_EHELD;
    default:
        return -EIO;
    }
}

/* --- quorum -------------------------------------------------------------------------------------
 */

/*
 * May one act on this quorum with the views that were told? Not while we look whether we were
 * paused, nor before each group's view is the ring's: a host that was cut off is in a ring with
 * quorum again before its view has those who went on without it.
 */
static bool is_settled_ring(const struct corosync *e)
{
    for (unsigned i = 0; i < e->n_groups; i++) {
        const struct hf_cpg_view *v = &e->group[i]->v;
        bool member = v->state == HF_CPG_IN || v->state == HF_CPG_APART;
        if (v->doubt || (member && v->ring != e->q_ring) || hf_cpg_view_is_merging(v, e->now)) {
            return false;
        }
    }
    return true;
}

/* What the service told holds for its ring and for all views in rings up to it. */
static void announce_quorum(struct corosync *e)
{
    uint64_t number = e->q_ring << HF_CPG_COUNT_SHIFT;
    e->q_due = e->quorate && !is_settled_ring(e); /* bad news is never early */
    if (e->q_due) {
        return;
    }
    for (unsigned i = 0; i < e->n_groups; i++) {
        const struct hf_cpg_view *v = &e->group[i]->v;
        if (v->ring <= e->q_ring && v->number > number) {
            number = v->number;
        }
    }
    if (number > e->q_told) {
        e->q_told = number;
    }
    if (e->cb.quorum) {
        e->cb.quorum(e->arg, e->quorate, e->q_told);
    }
}

static void on_quorum(quorum_handle_t h, uint32_t quorate, uint64_t ring, uint32_t n,
                      uint32_t *list)
{
    const void *ctx = NULL;
    (void)n;
    (void)list;
    if (quorum_context_get(h, &ctx) != CS_OK || !ctx) {
        return;
    }
    struct corosync *e = *(struct corosync *const *)ctx;
    e->q_known = true;
    e->quorate = quorate != 0;
    e->q_ring = ring;
    announce_quorum(e);
}

static int watch(struct corosync *e, int fd)
{
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN};
    return epoll_ctl(e->ep, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : -errno;
}

static void close_quorum(struct corosync *e)
{
    int fd;
    if (e->q_open) {
        if (quorum_fd_get(e->q, &fd) == CS_OK) {
            (void)epoll_ctl(e->ep, EPOLL_CTL_DEL, fd, NULL);
        }
        (void)quorum_finalize(e->q);
    }
    e->q_open = e->q_known = e->q_due = false;
    e->q_ring = e->q_told = 0;
}

static int open_quorum(struct corosync *e)
{
    quorum_callbacks_t cb = {.quorum_notify_fn = on_quorum};
    uint32_t type = QUORUM_FREE;
    int fd = -1;
    if (e->q_open) {
        return 0;
    }
    int rc = rc_of(quorum_initialize(&e->q, &cb, &type));
    if (rc) {
        return rc;
    }
    e->q_open = true;
    if (type != QUORUM_SET) {
        rc = -HF_ECONFIG;
    } else {
        rc = rc_of(quorum_context_set(e->q, &e->self));
    }
    if (rc == 0) {
        rc = rc_of(quorum_fd_get(e->q, &fd));
    }
    if (rc == 0) {
        rc = watch(e, fd);
    }
    if (rc == 0) {
        rc = rc_of(quorum_trackstart(e->q, CS_TRACK_CURRENT | CS_TRACK_CHANGES));
    }
    if (rc) {
        close_quorum(e);
    }
    return rc;
}

/* --- groups --------------------------------------------------------------------------------------
 */

static struct group *find_group(const struct corosync *e, const char *name)
{
    for (unsigned i = 0; i < e->n_groups; i++) {
        if (strcmp(e->group[i]->name, name) == 0) {
            return e->group[i];
        }
    }
    return NULL;
}

static void cpg_name_of(const struct group *g, struct cpg_name *to)
{
    memset(to, 0, sizeof(*to));
    to->length = (uint32_t)snprintf(to->value, sizeof(to->value), PREFIX "%s", g->name);
}

static int group_send(void *arg, struct hf_slice frame)
{
    struct group *g = arg;
    uint8_t copy[HF_CPG_V1_FRAME_MAX]; /* iovec wants no const */
    memcpy(copy, frame.p, frame.n);
    struct iovec io = {.iov_base = copy, .iov_len = frame.n};
    return rc_of(cpg_mcast_joined(g->h, CPG_TYPE_AGREED, &io, 1));
}

static void group_message(void *arg, uint32_t from, struct hf_slice msg)
{
    struct group *g = arg;
    if (g->e->cb.message) {
        g->e->cb.message(g->e->arg, g->name, from, msg);
    }
}

static void group_view(void *arg, const struct hf_engine_view *view, uint64_t ring)
{
    struct group *g = arg;
    struct corosync *e = g->e;
    if (e->cb.view) {
        e->cb.view(e->arg, g->name, view);
    }
    if (e->q_known && e->q_ring == ring) {
        announce_quorum(e);
    }
}

static struct group *group_of(cpg_handle_t h)
{
    void *ctx = NULL;
    return cpg_context_get(h, &ctx) == CS_OK ? ctx : NULL;
}

static void on_deliver(cpg_handle_t h, const struct cpg_name *name, uint32_t node, uint32_t pid,
                       void *msg, size_t n)
{
    struct group *g = group_of(h);
    (void)name;
    if (g) {
        struct hf_cpg_event ev = {
            .what = HF_CPG_MESSAGE, .node = node, .pid = pid, .msg = hf_slice(msg, n)};
        hf_cpg_view_step(&g->v, &ev, g->e->now);
    }
}

static size_t copy_list(const struct cpg_address *from, size_t n, struct hf_cpg_addr *to)
{
    n = n < HF_CPG_PEERS_MAX ? n : HF_CPG_PEERS_MAX;
    for (size_t i = 0; i < n; i++) {
        to[i] = (struct hf_cpg_addr){from[i].nodeid, from[i].pid, from[i].reason};
    }
    return n;
}

static void on_confchg(cpg_handle_t h, const struct cpg_name *name,
                       const struct cpg_address *member, size_t n_members,
                       const struct cpg_address *left, size_t n_left,
                       const struct cpg_address *joined, size_t n_joined)
{
    struct group *g = group_of(h);
    struct hf_cpg_addr m[HF_CPG_PEERS_MAX], l[HF_CPG_PEERS_MAX];
    (void)name;
    (void)joined;
    (void)n_joined;
    if (g) {
        struct hf_cpg_event ev = {.what = HF_CPG_CONFCHG, .member = m, .left = l};
        ev.n_members = copy_list(member, n_members, m);
        ev.n_left = copy_list(left, n_left, l);
        hf_cpg_view_step(&g->v, &ev, g->e->now);
    }
}

static void on_totem(cpg_handle_t h, struct cpg_ring_id ring, uint32_t n, const uint32_t *nodes)
{
    struct group *g = group_of(h);
    if (g) {
        struct hf_cpg_event ev = {.what = HF_CPG_TOTEM,
                                  .rep = ring.nodeid,
                                  .ring = ring.seq,
                                  .nodes = nodes,
                                  .n_nodes = n};
        hf_cpg_view_step(&g->v, &ev, g->e->now);
    }
}

static void close_group(struct group *g)
{
    int fd;
    if (g->open) {
        if (cpg_fd_get(g->h, &fd) == CS_OK) {
            (void)epoll_ctl(g->e->ep, EPOLL_CTL_DEL, fd, NULL);
        }
        (void)cpg_finalize(g->h);
    }
    hf_cpg_view_fini(&g->v);
    g->open = g->joined = g->leaving = g->left = false;
}

static void remove_group(struct corosync *e, struct group *g)
{
    for (unsigned i = 0; i < e->n_groups; i++) {
        if (e->group[i] == g) {
            e->group[i] = e->group[--e->n_groups];
            break;
        }
    }
    close_group(g);
    hf_free(g);
}

static int open_group(struct group *g)
{
    static cpg_model_v1_data_t model = {.model = CPG_MODEL_V1,
                                        .cpg_deliver_fn = on_deliver,
                                        .cpg_confchg_fn = on_confchg,
                                        .cpg_totem_confchg_fn = on_totem,
                                        .flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF};
    struct hf_cpg_view_opt opt = {.pid = (uint32_t)getpid(),
                                  .patience = g->e->silence / 4,
                                  .send = group_send,
                                  .view = group_view,
                                  .message = group_message,
                                  .arg = g};
    int fd = -1;
    int rc = rc_of(cpg_model_initialize(&g->h, CPG_MODEL_V1, (cpg_model_data_t *)&model, g));
    if (rc) {
        return rc;
    }
    g->open = true;
    rc = rc_of(cpg_local_get(g->h, &opt.node));
    if (rc == 0) {
        rc = rc_of(cpg_fd_get(g->h, &fd));
    }
    if (rc == 0) {
        rc = watch(g->e, fd);
    }
    if (rc) {
        close_group(g);
        return rc;
    }
    memcpy(opt.host, g->e->host, sizeof(opt.host));
    hf_cpg_view_init(&g->v, &opt);
    return 0;
}

/* Is another process of our node in the group? Two that ask at once are told apart by CPG's order.
 */
static int check_alone(const struct group *g, struct cpg_name *name)
{
    struct cpg_address list[CPG_MEMBERS_MAX];
    int n = 0;
    int rc = rc_of(cpg_membership_get(g->h, name, list, &n));
    for (int i = 0; i < n && rc == 0; i++) {
        if (list[i].nodeid == g->v.opt.node && list[i].pid != g->v.opt.pid) {
            rc = -HF_EHELD;
        }
    }
    return rc;
}

/* Bring a group as far as corosync lets us: 0, -HF_EFULL (later), or an error. */
static int advance(struct group *g)
{
    struct cpg_name name;
    cpg_name_of(g, &name);
    int rc = open_quorum(g->e);
    if (rc == 0 && !g->open) {
        rc = open_group(g);
    }
    if (rc == 0 && !g->joined) {
        rc = check_alone(g, &name);
        if (rc == 0) {
            rc = rc_of(cpg_join(g->h, &name));
        }
        g->joined = rc == 0;
    }
    if (rc == 0 && g->leaving && !g->left) {
        rc = rc_of(cpg_leave(g->h, &name));
        g->left = rc == 0;
    }
    return rc;
}

static bool is_settled(const struct group *g)
{
    return g->joined && g->leaving == g->left;
}

/* --- dispatch ------------------------------------------------------------------------------------
 */

static void lose(struct corosync *e)
{
    int rc = e->lost;
    hf_tracef(HF_TRACE_ENGINE, e->host, "corosync is lost: %s", hf_strerror(rc));
    while (e->n_groups) {
        remove_group(e, e->group[0]);
    }
    close_quorum(e);
    e->lost = 0;
    if (e->cb.lost) {
        e->cb.lost(e->arg, rc);
    }
}

static void read_quorum(struct corosync *e)
{
    for (int i = 0; e->q_open && !e->lost && i < EVENTS_PER_DISPATCH; i++) {
        cs_error_t cs = quorum_dispatch(e->q, CS_DISPATCH_ONE_NONBLOCKING);
        if (cs == CS_ERR_TRY_AGAIN) {
            return;
        }
        if (cs != CS_OK) {
            set_lost(e, rc_of(cs));
        }
    }
}

static void read_group(struct corosync *e, struct group *g)
{
    for (int i = 0; g->open && !e->lost && i < EVENTS_PER_DISPATCH; i++) {
        cs_error_t cs = cpg_dispatch(g->h, CS_DISPATCH_ONE_NONBLOCKING);
        if (cs == CS_ERR_TRY_AGAIN) {
            break;
        }
        if (cs != CS_OK) {
            set_lost(e, rc_of(cs));
        }
    }
    if (!e->lost) {
        hf_cpg_view_flush(&g->v, e->now);
    }
}

/* A group's end, wanted or not. */
static void finish(struct corosync *e, struct group *g)
{
    if (g->v.failed || !g->left) {
        set_lost(e, g->v.failed ? g->v.failed : -HF_ELEFT);
    } else if (g->rejoin) {
        close_group(g);
        g->rejoin = false;
    } else {
        remove_group(e, g);
    }
}

static void run_groups(struct corosync *e)
{
    for (unsigned i = e->n_groups; i-- > 0 && !e->lost;) {
        struct group *g = e->group[i];
        read_group(e, g);
        if (g->open && g->v.state == HF_CPG_GONE) {
            finish(e, g);
        } else if (!is_settled(g)) {
            int rc = advance(g);
            if (rc && rc != -HF_EFULL) {
                set_lost(e, rc);
            }
        }
    }
}

static hf_time next_time(const struct corosync *e)
{
    hf_time next = e->n_groups ? e->now + e->silence / 2 : HF_NEVER;
    if (e->q_due) {
        next = e->now + e->silence / 8;
    }
    for (unsigned i = 0; i < e->n_groups; i++) {
        const struct group *g = e->group[i];
        hf_time t = is_settled(g) ? hf_cpg_view_deadline(&g->v) : 0;
        next = hf_time_min(next, t > e->now + RETRY ? t : e->now + RETRY);
    }
    return next;
}

static int co_dispatch(struct hf_engine *engine, hf_time now, hf_time *ret_next)
{
    struct corosync *e = of(engine);
    uint64_t count;
    ssize_t n = read(e->kick, &count, sizeof(count));
    (void)n;
    bool gap = e->n_groups && e->last && now - e->last > e->silence;
    e->last = e->now = now;
    for (unsigned i = 0; gap && i < e->n_groups; i++) {
        hf_tracef(HF_TRACE_ENGINE, e->host, "paused: asking whether %s went on without us",
                  e->group[i]->name);
        hf_cpg_view_doubt(&e->group[i]->v);
        hf_cpg_view_flush(&e->group[i]->v, now);
    }
    read_quorum(e);
    run_groups(e);
    if (e->q_due && !e->lost) {
        announce_quorum(e);
    }
    if (e->lost) {
        lose(e);
    }
    *ret_next = next_time(e);
    return 0;
}

/* --- the other calls -----------------------------------------------------------------------------
 */

static int co_join(struct hf_engine *engine, const char *name)
{
    struct corosync *e = of(engine);
    struct group *g = find_group(e, name);
    if (!name || !hf_word_ok(hf_slice_str(name), HF_ENGINE_GROUP_NAME_MAX)) {
        return -HF_ENAME;
    }
    if (g) {
        int rc = g->leaving && !g->rejoin ? 0 : -EALREADY;
        g->rejoin = true;
        return rc;
    }
    if (e->lost) {
        return -HF_ENOTREADY;
    }
    if (e->n_groups == HF_ENGINE_COROSYNC_GROUPS_MAX) {
        return -HF_EFULL;
    }
    g = hf_alloc(sizeof(*g));
    if (!g) {
        return -ENOMEM;
    }
    g->e = e;
    memcpy(g->name, name, strlen(name) + 1);
    hf_cpg_view_init(&g->v, &(struct hf_cpg_view_opt){0});
    if (e->n_groups == 0) {
        e->last = 0; /* nothing was missed so far */
    }
    e->group[e->n_groups++] = g;
    int rc = advance(g);
    if (rc && rc != -HF_EFULL) {
        remove_group(e, g);
        return rc == -HF_ECLOSED ? -HF_ENOTREADY : rc;
    }
    kick(e);
    return 0;
}

static int co_leave(struct hf_engine *engine, const char *name)
{
    struct corosync *e = of(engine);
    struct group *g = find_group(e, name);
    if (!g || (g->leaving && !g->rejoin)) {
        return -HF_ELEFT;
    }
    g->rejoin = false;
    g->leaving = true;
    kick(e);
    return 0;
}

static int co_multicast(struct hf_engine *engine, const char *name, struct hf_slice msg)
{
    struct corosync *e = of(engine);
    struct group *g = find_group(e, name);
    if (!g || g->leaving) {
        return -HF_ELEFT;
    }
    if (!g->joined) {
        return msg.n > HF_ENGINE_MSG_MAX ? -EMSGSIZE : -HF_EFULL;
    }
    int rc = hf_cpg_view_multicast(&g->v, msg);
    if (rc && rc != -HF_EFULL && rc != -EMSGSIZE) {
        set_lost(e, rc);
    }
    return rc;
}

static int co_fd(struct hf_engine *e)
{
    return of(e)->ep;
}

static void co_destroy(struct hf_engine *engine)
{
    if (!engine) {
        return;
    }
    struct corosync *e = of(engine);
    while (e->n_groups) {
        remove_group(e, e->group[0]);
    }
    close_quorum(e);
    if (e->kick >= 0) {
        close(e->kick);
    }
    if (e->ep >= 0) {
        close(e->ep);
    }
    hf_free(e);
}

int hf_engine_corosync_create(const struct hf_engine_corosync_opt *opt, struct hf_err *err,
                              struct hf_engine **ret_engine)
{
    static const struct hf_engine_ops ops = {.join = co_join,
                                             .leave = co_leave,
                                             .multicast = co_multicast,
                                             .fd = co_fd,
                                             .dispatch = co_dispatch,
                                             .destroy = co_destroy};
    if (!opt->host || !hf_word_ok(hf_slice_str(opt->host), HF_HOST_NAME_MAX) || opt->silence < 0) {
        return hf_err_set(err, -HF_EVALUE, "engine: host name or silence is not valid");
    }
    struct corosync *e = hf_alloc(sizeof(*e));
    if (!e) {
        return hf_err_set(err, -ENOMEM, "engine: %s", hf_strerror(-ENOMEM));
    }
    e->engine.ops = &ops;
    e->self = e;
    memcpy(e->host, opt->host, strlen(opt->host) + 1);
    e->silence = opt->silence ? opt->silence : HF_S(1);
    e->cb = opt->callbacks;
    e->arg = opt->arg;
    e->kick = -1;
    e->ep = epoll_create1(EPOLL_CLOEXEC);
    int rc = e->ep < 0 ? -errno : 0;
    if (rc == 0) {
        e->kick = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        rc = e->kick < 0 ? -errno : watch(e, e->kick);
    }
    if (rc) {
        co_destroy(&e->engine);
        return hf_err_set(err, rc, "engine: %s", hf_strerror(rc));
    }
    *ret_engine = &e->engine;
    return 0;
}
