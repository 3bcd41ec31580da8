/* The leader's thread: loads in, moves out; operators' commands in between. */
#include "sip/lead.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/list.h"
#include "base/mem.h"
#include "base/names.h"

#define STEP HF_S(1)
#define PRUNE HF_S(3600)
#define ASKS_MAX 256
#define ASK_BYTES_MAX (64u << 20)
#define ANSWER_MAX (64u << 20)
#define FIGURES_LATE HF_S(7) /* servers tell how many clients they have every 5 s (tree.c) */
#define DEAD_LOOK HF_S(5)    /* between looks whether somebody is left at a server that is dead */

struct ask {
    struct hf_list node;
    struct hf_sip_lead_ask a; /* its texts are behind this */
};

/* A server as it was told last. */
struct server {
    char name[HF_HOST_NAME_MAX + 1];
    struct hf_sip_server now;
    struct hf_sip_load load;
    hf_time looked_at; /* DEAD, UNKNOWN: at its rows */
    hf_time moved_at;  /* clients came or went, and it may not have told yet: they are reckoned */
    uint16_t number;   /* in the fleet */
    bool emptied;
};

struct hf_sip_lead_thread {
    struct hf_sip *s; /* borrowed */
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* under the lock */
    bool stop, leads, soon;
    uint64_t reign_wanted, change;
    char primary[HF_HOST_NAME_MAX + 1]; /* host of the group's */
    struct server *server;              /* owned; HF_SIP_SERVERS_MAX */
    unsigned n_servers;
    struct hf_list asks;
    unsigned n_asks;
    struct hf_sip_lead_figures shown;
    /* the thread's */
    struct hf_sip_lead *sql;
    struct hf_sip_fleet *fleet;
    struct hf_sip_rebalance *rebalance;
    struct server *mine; /* as `server` was at the step's beginning */
    unsigned n_mine;
    struct hf_sip_astray *astray;
    size_t n_astray, room_astray;
    bool leading;    /* the reign was begun */
    hf_time lost_at; /* we do not lead; 0: we do, or were told longer ago */
    uint64_t reign;
    hf_time pruned_at;
    bool complained;
};

HF_NAMES(hf_sip_lead_command_name, enum hf_sip_lead_command, HF_SIP_LEAD_COMMAND_LIST)

/* ---- leading ---- */

static void complain(struct hf_sip_lead_thread *l, const char *what, const struct hf_err *err)
{
    if (!l->complained) {
        hf_log_warn("leader", "cannot %s: %s; trying again", what, err->text);
    }
    l->complained = true;
    pthread_mutex_lock(&l->lock);
    l->shown.failed++;
    pthread_mutex_unlock(&l->lock);
}

static void forget_reign(struct hf_sip_lead_thread *l)
{
    l->leading = false;
    l->lost_at = 0;
    hf_sip_rebalance_destroy(l->rebalance);
    hf_sip_fleet_destroy(l->fleet);
    l->rebalance = NULL;
    l->fleet = NULL;
}

static struct hf_sip_rebalance_conf conf_of(const struct hf_sip_config *c)
{
    return (struct hf_sip_rebalance_conf){
        .dead_zone = (unsigned)c->rebalance.dead_zone,
        .target_zone = (unsigned)c->rebalance.target_zone,
        .cpu_max = (unsigned)c->rebalance.cpu_max,
        .cpu_target = (unsigned)c->rebalance.cpu_target,
        .rate = (uint32_t)c->rebalance.rate,
        .rate_to = (uint32_t)c->rebalance.rate_to,
        .patience = HF_MS(c->rebalance.patience_ms),
        .settle = HF_MS(c->rebalance.settle_ms),
    };
}

/* With each change of the group's view its primary does not act for a round, some milliseconds, and
 * is the primary again, of the same epoch: nothing is moved meanwhile, but what is known stays. */
static void pause_reign(struct hf_sip_lead_thread *l, hf_time now)
{
    if (!l->leading) {
        return;
    }
    l->lost_at = l->lost_at ? l->lost_at : now;
    if (now - l->lost_at >= STEP / 2) {
        hf_log_info("leader", "this server leads no longer");
        forget_reign(l);
    }
}

static int begin_reign(struct hf_sip_lead_thread *l, uint64_t wanted, struct hf_err *err)
{
    struct hf_sip_rebalance_conf conf = conf_of(l->s->config);
    uint64_t reign = wanted, change;
    int rc = 0;
    if (reign == 0) {
        rc = hf_sip_lead_read(l->sql, &reign, &change, err);
        reign++;
    }
    rc = rc ? rc : hf_sip_lead_reign(l->sql, reign, err);
    if (rc) {
        return rc;
    }
    forget_reign(l);
    rc = hf_sip_fleet_create(&l->fleet);
    rc = rc ? rc : hf_sip_rebalance_create(&conf, l->fleet, hf_now(), &l->rebalance);
    if (rc) {
        return hf_err_set(err, rc, "%s", hf_strerror(rc));
    }
    l->leading = true;
    l->reign = reign;
    pthread_mutex_lock(&l->lock);
    l->shown.reigns++;
    pthread_mutex_unlock(&l->lock);
    hf_log_info("leader", "this server moves clients between servers from now on (reign %llu)",
                (unsigned long long)reign);
    return 0;
}

/* Of who is dead the rows count that are left. */
static int count_dead(struct hf_sip_lead_thread *l, struct server *s, hf_time now,
                      struct hf_err *err)
{
    uint64_t rows, pinned;
    if (s->emptied && now - s->looked_at < DEAD_LOOK) {
        return 0;
    }
    int rc = hf_sip_lead_counts(l->sql, s->name, &rows, &pinned, err);
    if (rc == 0) {
        s->looked_at = now;
        s->emptied = rows == 0;
        s->load = (struct hf_sip_load){.clients = (uint32_t)rows, .pinned = (uint32_t)pinned};
    }
    return rc;
}

static void on_astray(void *arg, struct hf_slice current, struct hf_slice home, uint64_t loose,
                      uint64_t pinned)
{
    struct hf_sip_lead_thread *l = arg;
    struct hf_sip_astray a = {.clients = (uint32_t)loose, .pinned = (uint32_t)pinned};
    if (hf_sip_fleet_add(l->fleet, current, &a.current) ||
        hf_sip_fleet_add(l->fleet, home, &a.home)) {
        return;
    }
    if (l->n_astray == l->room_astray) {
        size_t room = l->room_astray ? 2 * l->room_astray : 64;
        void *more = hf_realloc(l->astray, room * sizeof(l->astray[0]));
        if (!more) {
            return;
        }
        l->astray = more;
        l->room_astray = room;
    }
    l->astray[l->n_astray++] = a;
}

static bool is_dead(const struct server *s)
{
    return s->now.state == HF_SIP_SERVER_DEAD || s->now.state == HF_SIP_SERVER_UNKNOWN;
}

/* What is known goes to the core. */
static int gather(struct hf_sip_lead_thread *l, hf_time now, struct hf_err *err)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < l->n_mine; i++) {
        struct server *s = &l->mine[i];
        rc = hf_sip_fleet_add(l->fleet, hf_slice_str(s->name), &s->number);
        if (rc) {
            return hf_err_set(err, rc, "%s", hf_strerror(rc));
        }
        if (is_dead(s)) {
            rc = count_dead(l, s, now, err);
        }
        hf_sip_fleet_set(l->fleet, s->number, &s->now);
        hf_sip_rebalance_load(l->rebalance, s->number, &s->load);
    }
    l->n_astray = 0;
    rc = rc ? rc : hf_sip_lead_astray(l->sql, on_astray, l, err);
    if (rc == 0) {
        hf_sip_rebalance_astray(l->rebalance, l->astray, l->n_astray);
    }
    return rc;
}

static void tell_moves(const struct hf_sip_lead_thread *l, const struct hf_sip_move *m, size_t n,
                       uint64_t rows)
{
    char why[200];
    for (size_t i = 0; i < n; i++) {
        hf_sip_rebalance_why(l->rebalance, &m[i], why, sizeof(why));
        hf_log_info("leader", "%u clients of %s to %s: %s", m[i].n,
                    hf_sip_fleet_name(l->fleet, m[i].from), hf_sip_fleet_name(l->fleet, m[i].to),
                    why);
    }
    hf_log_info("leader", "%llu clients moved", (unsigned long long)rows);
}

/* As if they had told already: by older figures the same clients would be moved again. */
static void reckon(struct hf_sip_lead_thread *l, const struct hf_sip_move *m, size_t n, hf_time now)
{
    for (unsigned i = 0; i < l->n_mine; i++) {
        struct server *s = &l->mine[i];
        s->emptied = false;
        for (size_t k = 0; k < n && !is_dead(s); k++) {
            if (m[k].to == s->number) {
                s->load.clients += m[k].n;
                s->moved_at = now;
            } else if (m[k].from == s->number) {
                s->load.clients -= m[k].n < s->load.clients ? m[k].n : s->load.clients;
                s->moved_at = now;
            }
        }
    }
}

static int step(struct hf_sip_lead_thread *l, struct hf_err *err)
{
    const struct hf_sip_move *m;
    uint64_t rows = 0;
    hf_time now = hf_now();
    int rc = gather(l, now, err);
    if (rc) {
        return rc;
    }
    size_t n = hf_sip_rebalance_step(l->rebalance, now, &m);
    if (n) {
        rc = hf_sip_lead_moves(l->sql, l->fleet, m, n, err, &rows);
        if (rc == 0) {
            tell_moves(l, m, n, rows);
            reckon(l, m, n, now);
        }
    }
    if (rc == 0 && now - l->pruned_at > PRUNE) {
        uint64_t pruned;
        l->pruned_at = now;
        rc = hf_sip_lead_prune(l->sql, err, &pruned);
    }
    pthread_mutex_lock(&l->lock);
    l->shown.leads = true;
    l->shown.reign = l->reign;
    l->shown.state = hf_sip_rebalance_state(l->rebalance);
    l->shown.counters = *hf_sip_rebalance_counters(l->rebalance);
    l->shown.moved += rows;
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static void lead(struct hf_sip_lead_thread *l)
{
    struct hf_err err = {0};
    hf_time now = hf_now();
    pthread_mutex_lock(&l->lock);
    bool leads = l->leads;
    uint64_t wanted = l->reign_wanted, change = l->change;
    for (unsigned i = 0; i < l->n_servers; i++) {
        struct server *m = &l->mine[i];
        bool same = i < l->n_mine && m->now.state == l->server[i].now.state;
        struct server before = *m;
        *m = l->server[i];
        if (same && is_dead(m)) {
            m->load = before.load;
            m->looked_at = before.looked_at;
            m->emptied = before.emptied;
        } else if (i < l->n_mine && !is_dead(m) && !is_dead(&before) && before.moved_at &&
                   now - before.moved_at < FIGURES_LATE) { /* drained, say, and back */
            m->load.clients = before.load.clients;
            m->moved_at = before.moved_at;
        }
    }
    l->n_mine = l->n_servers;
    l->shown.leads = leads && l->leading && (!wanted || wanted == l->reign);
    pthread_mutex_unlock(&l->lock);
    if (!leads) {
        pause_reign(l, now);
        return;
    }
    l->lost_at = 0;
    hf_sip_lead_seen(l->sql, change);
    int rc = 0;
    if (!l->leading || (wanted && wanted != l->reign)) {
        rc = begin_reign(l, wanted, &err);
    }
    rc = rc ? rc : step(l, &err);
    if (rc == -HF_ECLOSED) {
        hf_log_warn("leader", "a later leader is there: this server leads no longer");
        forget_reign(l);
        pthread_mutex_lock(&l->lock);
        l->leads = false;
        pthread_mutex_unlock(&l->lock);
    } else if (rc) {
        complain(l, "move clients", &err);
    } else {
        l->complained = false;
    }
}

/* ---- what operators ask ---- */

static const char *copy_text(char **at, const char *s)
{
    size_t n = s ? strlen(s) + 1 : 0;
    char *to = *at;
    if (!s) {
        return NULL;
    }
    memcpy(to, s, n);
    *at += n;
    return to;
}

static struct hf_slice copy_slice(char **at, struct hf_slice s)
{
    char *to = *at;
    if (s.n) {
        memcpy(to, s.p, s.n);
    }
    *at += s.n;
    return hf_slice(to, s.n);
}

static size_t text_n(const char *s)
{
    return s ? strlen(s) + 1 : 0;
}

int hf_sip_lead_ask(struct hf_sip_lead_thread *l, const struct hf_sip_lead_ask *a)
{
    size_t n = text_n(a->server) + text_n(a->user) + text_n(a->password) + a->aor.n + a->csv.n;
    struct ask *q = n < ASK_BYTES_MAX ? hf_alloc(sizeof(*q) + n) : NULL;
    if (!q) {
        return -ENOMEM;
    }
    char *at = (char *)(q + 1);
    q->a = *a;
    q->a.server = copy_text(&at, a->server);
    q->a.user = copy_text(&at, a->user);
    q->a.password = copy_text(&at, a->password);
    q->a.aor = copy_slice(&at, a->aor);
    q->a.csv = copy_slice(&at, a->csv);
    hf_list_init(&q->node);
    pthread_mutex_lock(&l->lock);
    int rc = l->n_asks < ASKS_MAX ? 0 : -HF_EFULL;
    if (rc == 0) {
        hf_list_insert(&l->asks, &q->node);
        l->n_asks++;
        pthread_cond_signal(&l->wake);
    }
    pthread_mutex_unlock(&l->lock);
    if (rc) {
        hf_free(q);
    }
    return rc;
}

/* It alone knows the balance, and changes rows, so that its reckoning holds. */
static int must_lead(struct hf_sip_lead_thread *l, struct hf_err *err)
{
    const char *group = l->s->config->sip.group;
    if (l->leading) {
        return 0;
    }
    if (!*group) {
        return hf_err_set(err, -HF_ENOTREADY, "this server never leads: it has no sip.group");
    }
    char primary[sizeof(l->primary)];
    pthread_mutex_lock(&l->lock);
    memcpy(primary, l->primary, sizeof(primary));
    pthread_mutex_unlock(&l->lock);
    if (!*primary) {
        return hf_err_set(err, -HF_ENOTREADY,
                          "nobody leads now: \"holdfast group show %s\" says why", group);
    }
    return hf_err_set(err, -HF_ENOTREADY,
                      "this server does not lead: ask on %s, the primary host of the group %s",
                      primary, group);
}

static int answer_ask(struct hf_sip_lead_thread *l, const struct hf_sip_lead_ask *a,
                      struct hf_buf *text, uint64_t *n, struct hf_err *err)
{
    const char *realm = hf_sip_config_realm(l->s->config);
    bool anybody = a->command == HF_SIP_LEAD_EXPORT || a->command == HF_SIP_LEAD_USER_ADD ||
                   a->command == HF_SIP_LEAD_USER_DELETE;
    int rc = anybody ? 0 : must_lead(l, err);
    if (rc) {
        return rc;
    }
    switch (a->command) {
    case HF_SIP_LEAD_PLAN:
        hf_sip_rebalance_text(l->rebalance, hf_now(), text);
        return 0;
    case HF_SIP_LEAD_REBALANCE:
        hf_sip_rebalance_now(l->rebalance);
        return 0;
    case HF_SIP_LEAD_ASSIGN:
        return hf_sip_lead_assign(l->sql, a->aor, a->server, -1, err);
    case HF_SIP_LEAD_PIN:
    case HF_SIP_LEAD_UNPIN:
        return hf_sip_lead_assign(l->sql, a->aor, NULL, a->command == HF_SIP_LEAD_PIN, err);
    case HF_SIP_LEAD_IMPORT:
        return hf_sip_lead_import(l->sql, a->csv, err, n);
    case HF_SIP_LEAD_EXPORT:
        return hf_sip_lead_export(l->sql, text, err);
    case HF_SIP_LEAD_USER_ADD:
        return hf_sip_lead_user(l->sql, a->user, realm, a->aor, a->password, err);
    case HF_SIP_LEAD_USER_DELETE:
        return hf_sip_lead_user_delete(l->sql, a->user, realm, err);
    case HF_SIP_LEAD_COMMAND_COUNT_:
        break;
    }
    return hf_err_set(err, -EINVAL, "no such command");
}

static void answer_one(struct hf_sip_lead_thread *l, struct ask *q)
{
    struct hf_err err = {0};
    struct hf_buf text;
    struct hf_sip_lead_answer answer = {.id = q->a.id};
    hf_buf_init(&text, ANSWER_MAX);
    answer.rc = answer_ask(l, &q->a, &text, &answer.n, &err);
    if (answer.rc == 0 && text.err) {
        answer.rc = hf_err_set(&err, text.err, "%s", hf_strerror(text.err));
    }
    struct hf_slice part[] = {hf_slice(&answer, sizeof(answer)),
                              answer.rc ? hf_slice_str(err.text) : hf_buf_slice(&text)};
    (void)!hf_mailbox_send(l->s->mailbox, HF_SIP_TOLD_ANSWER, part, 2); /* who asked times out */
    hf_buf_fini(&text);
    if (q->a.password) {
        explicit_bzero((char *)(uintptr_t)q->a.password, strlen(q->a.password));
    }
    hf_free(q);
}

/* ---- the thread ---- */

static struct ask *next_ask(struct hf_sip_lead_thread *l)
{
    if (hf_list_empty(&l->asks)) {
        return NULL;
    }
    struct ask *q = HF_CONTAINER_OF(l->asks.next, struct ask, node);
    hf_list_unlink(&q->node);
    l->n_asks--;
    return q;
}

static void *run(void *arg)
{
    struct hf_sip_lead_thread *l = arg;
    hf_time next = hf_now();
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        struct ask *q = next_ask(l);
        hf_time now = hf_now();
        if (q || now >= next || l->soon) {
            l->soon = l->soon && q;
            pthread_mutex_unlock(&l->lock);
            if (q) {
                answer_one(l, q);
            } else {
                lead(l);
                next = now + STEP;
            }
            pthread_mutex_lock(&l->lock);
            continue;
        }
        struct timespec until = {.tv_sec = (time_t)(next / HF_NS_PER_S),
                                 .tv_nsec = (long)(next % HF_NS_PER_S)};
        pthread_cond_timedwait(&l->wake, &l->lock, &until);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

void hf_sip_lead_set(struct hf_sip_lead_thread *l, bool leads, uint64_t reign, const char *primary)
{
    pthread_mutex_lock(&l->lock);
    (void)snprintf(l->primary, sizeof(l->primary), "%s", primary);
    l->leads = leads;
    l->reign_wanted = reign;
    l->soon = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

void hf_sip_lead_peer(struct hf_sip_lead_thread *l, struct hf_slice name,
                      const struct hf_sip_server *now, const struct hf_sip_load *load)
{
    struct server *s = NULL;
    if (name.n == 0 || name.n > HF_HOST_NAME_MAX) {
        return;
    }
    pthread_mutex_lock(&l->lock);
    for (unsigned i = 0; i < l->n_servers && !s; i++) {
        s = hf_slice_eq(hf_slice_str(l->server[i].name), name) ? &l->server[i] : NULL;
    }
    if (!s && l->n_servers < HF_SIP_SERVERS_MAX) {
        s = &l->server[l->n_servers++];
        snprintf(s->name, sizeof(s->name), "%.*s", HF_SLICE_FMT(name));
    }
    if (s) {
        bool died = s->now.state != now->state && now->state == HF_SIP_SERVER_DEAD;
        s->now = *now;
        s->load = *load;
        if (died) {
            l->soon = true;
            pthread_cond_signal(&l->wake);
        }
    }
    pthread_mutex_unlock(&l->lock);
}

void hf_sip_lead_change(struct hf_sip_lead_thread *l, uint64_t change)
{
    pthread_mutex_lock(&l->lock);
    l->change = change;
    pthread_mutex_unlock(&l->lock);
}

void hf_sip_lead_figures(struct hf_sip_lead_thread *l, struct hf_sip_lead_figures *ret_figures)
{
    pthread_mutex_lock(&l->lock);
    *ret_figures = l->shown;
    pthread_mutex_unlock(&l->lock);
}

int hf_sip_lead_start(struct hf_sip *s, struct hf_err *err)
{
    struct hf_sip_lead_thread *l = hf_alloc(sizeof(*l));
    pthread_condattr_t attr;
    if (!l) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    l->s = s;
    hf_list_init(&l->asks);
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->wake, &attr);
    pthread_condattr_destroy(&attr);
    l->server = hf_alloc_array(HF_SIP_SERVERS_MAX, sizeof(l->server[0]));
    l->mine = hf_alloc_array(HF_SIP_SERVERS_MAX, sizeof(l->mine[0]));
    int rc = l->server && l->mine ? hf_sip_lead_open(s->config->sip.database, err, &l->sql)
                                  : hf_err_set(err, -ENOMEM, "out of memory");
    if (rc == 0) {
        rc = hf_sip_thread_start(&l->thread, "sip-lead", run, l);
        l->running = rc == 0;
        rc = rc ? hf_err_set(err, rc, "cannot start a thread: %s", hf_strerror(rc)) : 0;
    }
    if (rc) {
        hf_sip_lead_stop(l);
        return rc;
    }
    s->lead = l;
    return 0;
}

void hf_sip_lead_stop(struct hf_sip_lead_thread *l)
{
    if (!l) {
        return;
    }
    if (l->running) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_signal(&l->wake);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    for (struct ask *q; (q = next_ask(l));) {
        hf_free(q);
    }
    forget_reign(l);
    hf_sip_lead_close(l->sql);
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->lock);
    hf_free(l->server);
    hf_free(l->mine);
    hf_free(l->astray);
    hf_free(l);
}
