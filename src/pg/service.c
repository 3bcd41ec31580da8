/* Roles of the service address: the agent's actions, the pair's cores and their connection. */
#include "pg/service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "os/netaddr.h"
#include "os/ocf.h"
#include "os/tcpmove.h"
#include "pg/client.h"
#include "pg/control.h"
#include "pg/listener.h"
#include "pg/peer.h"
#include "pg/protect.h"
#include "pg/route.h"
#include "pg/takeover.h"

#define MIRRORS_MAX 16
#define COPY_LEN 64
#define GROW_TIME HF_S(5)
#define WATCH_TIME HF_MS(1500)
/* A dead process closes its connection, a dead host is the engine's to find: what is left is a cut
 * cable between the two, and a host too busy to be taken for dead at once. */
#define SILENCE HF_S(1)

/* A copy of the group as mirror-source names it. */
struct mirror {
    char copy[COPY_LEN], host[HF_HOST_NAME_MAX + 1], address[64];
    bool in_set; /* sync or grow */
    bool sync;
};

struct hf_pg_service {
    struct hf_pg *pg;
    enum hf_pg_role role;
    uint64_t epoch;
    char host[HF_HOST_NAME_MAX + 1];
    struct hf_key key;
    struct hf_pg_controls *controls;
    struct hf_pg_peers *peers;
    struct hf_poll_timer timer;

    /* backup */
    struct hf_pair_backup *backup;
    struct hf_pg_peer *source; /* accepted: the primary's connection */
    char source_name[HF_HOST_NAME_MAX + 1];
    hf_time heard; /* of the primary, last; 0: never */

    /* primary */
    struct hf_pair_primary *primary;
    struct hf_pg_peer *target; /* to the backup */
    bool target_open;
    struct mirror mirror[MIRRORS_MAX];
    size_t n_mirrors;
    size_t chosen; /* the backup, in mirror[]; n_mirrors: none */
    char chosen_copy[COPY_LEN];
    uint32_t chosen_id;                /* for the core: another number for each choice */
    uint64_t asked_solo, asked_record; /* ids; 0: not asked */
    hf_time lease_until;
    struct hf_pg_takeover *takeover;
    struct hf_pg_listeners *listeners;
    struct hf_pg_control *promoting, *growing; /* to be answered */
    hf_time grow_until;
    struct hf_pg_control *watching; /* mirror-state: answered when it changes */
    hf_time watch_until;
    struct hf_buf state_told; /* the last answer */
};

static hf_time now_of(const struct hf_pg_service *s)
{
    return hf_pg_now(s->pg);
}

const char *hf_pg_role_name(enum hf_pg_role r)
{
    static const char *const name[] = {
#define NAME(id, text) [HF_PG_ROLE_##id] = text,
        HF_PG_ROLE_LIST(NAME)
#undef NAME
    };
    return name[r];
}

static void rearm(struct hf_pg_service *s)
{
    hf_time at = s->growing ? s->grow_until : HF_NEVER;
    at = s->watching ? hf_time_min(at, s->watch_until) : at;
    if (s->primary) {
        at = hf_time_min(at, hf_pair_primary_deadline(s->primary));
    } else if (s->backup) {
        at = hf_time_min(at, hf_pair_backup_deadline(s->backup));
    }
    hf_poll_timer_set(s->pg->wire->poll, &s->timer, at);
}

/* ---- primary: what the core says ---- */

static bool chosen_is(const struct hf_pg_service *s, bool in_set)
{
    return s->chosen < s->n_mirrors && s->mirror[s->chosen].in_set == in_set;
}

/* The group's answers are the lists it puts in force. */
static bool answer_asks(struct hf_pg_service *s)
{
    bool answered = false;
    if (s->asked_solo && !chosen_is(s, true)) {
        uint64_t id = s->asked_solo;
        s->asked_solo = 0;
        hf_pair_primary_answer(s->primary, id, true, now_of(s));
        answered = true;
    }
    if (s->asked_record && chosen_is(s, true) && s->mirror[s->chosen].sync) {
        uint64_t id = s->asked_record;
        s->asked_record = 0;
        hf_pair_primary_answer(s->primary, id, true, now_of(s));
        answered = true;
    }
    return answered;
}

static enum hf_pair_state state_of(const struct hf_pg_service *s,
                                   struct hf_pair_primary_info *ret_info)
{
    hf_pair_primary_info(s->primary, now_of(s), ret_info);
    return ret_info->state;
}

/* Everything is there, or it will not be. */
static void answer_grow(struct hf_pg_service *s)
{
    struct hf_pair_primary_info info;
    if (!s->growing) {
        return;
    }
    enum hf_pair_state state = state_of(s, &info);
    struct hf_pg_control *c = s->growing;
    if (state == HF_PAIR_STATE_RECORDING || state == HF_PAIR_STATE_IN_SYNC) {
        s->growing = NULL;
        hf_pg_control_done(c, HF_OCF_SUCCESS, "");
    } else if (now_of(s) >= s->grow_until) {
        s->growing = NULL;
        hf_pg_control_done(c, HF_OCF_ERR_GENERIC, "the backup does not have everything yet");
    }
}

/* Nothing leaves later than so long after the heartbeat that the backup answered last. */
static void renew_lease(struct hf_pg_service *s)
{
    struct hf_pair_primary_info info;
    (void)state_of(s, &info);
    hf_time lease = HF_MS(s->pg->config->service.lease_ms);
    hf_time until = info.solo || lease == 0 ? HF_NEVER : info.echoed + lease;
    if (until == s->lease_until) {
        return;
    }
    s->lease_until = until;
    hf_pair_primary_lease(s->primary, until, now_of(s));
    hf_egress_set_lease(hf_pg_protect_egress(s->pg->protect), 0,
                        until == HF_NEVER ? HF_NEVER : hf_egress_now() + (until - hf_now()));
}

static void send_primary(struct hf_pg_service *s)
{
    while (s->target && s->target_open) {
        struct hf_slice out = hf_pair_primary_tosend(s->primary);
        size_t n = out.n ? hf_pg_peer_send(s->target, out) : 0;
        if (n == 0) {
            break;
        }
        hf_pair_primary_sent(s->primary, n);
    }
}

static void connect_backup(struct hf_pg_service *s)
{
    struct hf_addr to;
    struct hf_err err;
    const struct mirror *m = s->chosen < s->n_mirrors ? &s->mirror[s->chosen] : NULL;
    uint16_t port = hf_addr_to_endpoint(&s->pg->config->service.peer_listen).port;
    int rc = m ? hf_addr_parse(m->address, port, &err, &to) : -ENOENT;
    rc = rc ? rc : hf_pg_peer_connect(s->peers, m->host, &to, &s->target);
    s->target_open = false;
    if (rc) {
        s->target = NULL;
        hf_pair_primary_disconnected(s->primary, now_of(s));
    }
}

static void close_target(struct hf_pg_service *s)
{
    if (s->target) {
        hf_pg_peer_close(s->target, false);
    }
    s->target = NULL;
    s->target_open = false;
}

static void obey(struct hf_pg_service *s, const struct hf_pair_out *out)
{
    struct hf_pg_protect *p = s->pg->protect;
    switch (out->kind) {
    case HF_PAIR_OUT_CLOSE:
        close_target(s);
        break;
    case HF_PAIR_OUT_CONNECT:
        connect_backup(s);
        break;
    case HF_PAIR_OUT_CLOSE_GATE:
        hf_pg_protect_gate(p, false);
        break;
    case HF_PAIR_OUT_OPEN_GATE:
        hf_pg_protect_gate(p, true);
        break;
    case HF_PAIR_OUT_ASK_SOLO:
        s->asked_solo = out->id;
        s->asked_record = 0;
        break;
    case HF_PAIR_OUT_ASK_RECORD:
        s->asked_record = out->id;
        break;
    case HF_PAIR_OUT_CONFIRMED:
        hf_pg_protect_confirmed(p, out->number);
        break;
    case HF_PAIR_OUT_SNAPSHOT:
        hf_pg_protect_snapshot(p, out->session);
        break;
    case HF_PAIR_OUT_COUNT_:
        break;
    }
}

static void answer_state(struct hf_pg_service *s);

/* What consoles and metrics tell of this reign. */
static void note_reign(struct hf_pg_service *s)
{
    struct hf_pair_primary_info info;
    if (s->primary) {
        (void)state_of(s, &info);
    }
    hf_pg_reign_note(s->pg, s->epoch, s->primary ? &info : NULL,
                     s->chosen < s->n_mirrors ? s->mirror[s->chosen].host : "", now_of(s));
}

/* After anything that the core was told. */
static void pump(void *arg)
{
    struct hf_pg_service *s = arg;
    struct hf_pair_out out;
    if (!s->primary) {
        return;
    }
    do {
        renew_lease(s);
        while (hf_pair_primary_next(s->primary, now_of(s), &out)) {
            obey(s, &out);
        }
    } while (answer_asks(s));
    send_primary(s);
    note_reign(s);
    answer_grow(s);
    answer_state(s);
    rearm(s);
}

/* ---- backup ---- */

static void send_backup(struct hf_pg_service *s)
{
    while (s->source) {
        struct hf_slice out = hf_pair_backup_tosend(s->backup);
        size_t n = out.n ? hf_pg_peer_send(s->source, out) : 0;
        if (n == 0) {
            break;
        }
        hf_pair_backup_sent(s->backup, n);
    }
    if (hf_pair_backup_closes(s->backup) && s->source) {
        hf_pg_peer_close(s->source, true);
        s->source = NULL;
    }
    rearm(s);
}

/* ---- the connection ---- */

static void peer_opened(void *arg, struct hf_pg_peer *p, const char *name)
{
    struct hf_pg_service *s = arg;
    if (hf_pg_peer_is_ours(p)) {
        s->target_open = true;
        hf_pair_primary_connected(s->primary, now_of(s));
        pump(s);
        return;
    }
    if (!s->backup || s->primary) { /* a primary that does not know yet */
        hf_pg_peer_close(p, false);
        return;
    }
    if (s->source) {
        hf_pg_peer_close(s->source, false);
    }
    s->source = p;
    snprintf(s->source_name, sizeof(s->source_name), "%s", name);
    hf_pair_backup_connected(s->backup, now_of(s));
    send_backup(s);
}

static void peer_bytes(void *arg, struct hf_pg_peer *p, struct hf_slice bytes)
{
    struct hf_pg_service *s = arg;
    if (p == s->target) {
        hf_pair_primary_received(s->primary, bytes, now_of(s));
        pump(s);
    } else if (p == s->source) {
        s->heard = now_of(s);
        hf_pair_backup_received(s->backup, bytes, now_of(s));
        send_backup(s);
    }
}

static void peer_room(void *arg, struct hf_pg_peer *p)
{
    struct hf_pg_service *s = arg;
    if (p == s->target) {
        send_primary(s);
    } else if (p == s->source) {
        send_backup(s);
    }
}

static void peer_closed(void *arg, struct hf_pg_peer *p, const char *why)
{
    struct hf_pg_service *s = arg;
    if (p == s->target) {
        if (s->target_open) {
            hf_log_info("", "connection to backup %s lost: %s", s->mirror[s->chosen].host, why);
        }
        s->target = NULL;
        s->target_open = false;
        hf_pair_primary_disconnected(s->primary, now_of(s));
        pump(s);
    } else if (p == s->source) {
        hf_log_info("", "connection from %s lost: %s", s->source_name, why);
        s->source = NULL;
        hf_pair_backup_disconnected(s->backup, now_of(s));
        send_backup(s);
    }
}

static const struct hf_pg_peer_ops peer_ops = {
    .opened = peer_opened,
    .bytes = peer_bytes,
    .room = peer_room,
    .closed = peer_closed,
};

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    struct hf_pg_service *s = HF_CONTAINER_OF(t, struct hf_pg_service, timer);
    if (s->primary) {
        hf_pair_primary_step(s->primary, now);
        pump(s);
    } else if (s->backup) {
        hf_pair_backup_step(s->backup, now);
        send_backup(s);
    }
}

/* ---- roles ---- */

static void enter(struct hf_pg_service *s, enum hf_pg_role role)
{
    if (s->role != role) {
        hf_log_info("", "service address: %s", hf_pg_role_name(role));
        s->role = role;
    }
}

static int backup_new(struct hf_pg_service *s, uint64_t epoch)
{
    const struct hf_pair_backup_conf conf = {
        .epoch = epoch, .seed = s->pg->seed, .silence = SILENCE};
    s->heard = 0;
    return hf_pair_backup_create(&conf, now_of(s), &s->backup);
}

/* From STOPPED. */
static int start(struct hf_pg_service *s, struct hf_err *err)
{
    struct hf_pg *pg = s->pg;
    struct hf_endpoint address = hf_addr_to_endpoint(&pg->config->service.address);
    const struct hf_pg_peers_options options = {.poll = pg->wire->poll,
                                                .key = &s->key,
                                                .host = s->host,
                                                .listen = &pg->config->service.peer_listen,
                                                .ops = &peer_ops,
                                                .arg = s};
    int rc = hf_pg_protect_create(pg, &address, pg->config->service.interface, err, &pg->protect);
    if (rc) {
        return rc;
    }
    /* left by a process that died here */
    rc = hf_netaddr_remove(pg->config->service.interface, &address, err);
    rc = rc ? rc : hf_pg_peers_open(&options, err, &s->peers);
    if (rc == 0) {
        rc = backup_new(s, 0);
        rc = rc ? hf_err_set(err, rc, "out of memory") : 0;
    }
    if (rc) {
        hf_pg_peers_close(s->peers);
        s->peers = NULL;
        hf_pg_protect_destroy(pg->protect);
        pg->protect = NULL;
        return rc;
    }
    enter(s, HF_PG_ROLE_BACKUP);
    return 0;
}

/* Clients of the address are not ours any more: no word to them. */
static void let_go(struct hf_pg_service *s)
{
    HF_LIST_FOREACH (node, &s->pg->clients) {
        struct hf_pg_client *c = HF_CONTAINER_OF(node, struct hf_pg_client, node);
        if (c->slot) {
            hf_pg_client_abandon(c);
        }
    }
}

/* To BACKUP. */
static void demote(struct hf_pg_service *s)
{
    struct hf_pg *pg = s->pg;
    struct hf_err err;
    struct hf_endpoint address = hf_addr_to_endpoint(&pg->config->service.address);
    if (!s->primary) {
        return;
    }
    hf_egress_set_lease(hf_pg_protect_egress(pg->protect), 0, 0); /* silent from now on */
    hf_pg_listeners_close(s->listeners);
    s->listeners = NULL;
    hf_pg_takeover_destroy(s->takeover);
    s->takeover = NULL;
    if (s->promoting) {
        hf_pg_control_done(s->promoting, HF_OCF_ERR_GENERIC, "demoted meanwhile");
        s->promoting = NULL;
    }
    if (s->growing) {
        hf_pg_control_done(s->growing, HF_OCF_ERR_GENERIC, "demoted meanwhile");
        s->growing = NULL;
    }
    if (hf_netaddr_remove(pg->config->service.interface, &address, &err)) {
        hf_log_err("", "the service address stays here: %s", err.text);
    }
    hf_pg_protect_lead(pg->protect, NULL, NULL, NULL);
    hf_pg_route_others_write(pg->route, true);
    let_go(s);
    if (s->target_open) { /* so that the next one knows that it was handed over, not lost */
        hf_pair_primary_bye(s->primary, 0, now_of(s));
        send_primary(s);
        hf_pg_peer_close(s->target, true);
        s->target = NULL;
    }
    close_target(s);
    hf_pair_primary_destroy(s->primary);
    s->primary = NULL;
    note_reign(s);
    answer_state(s);
    s->asked_solo = s->asked_record = 0;
    s->n_mirrors = s->chosen = 0;
    s->chosen_copy[0] = '\0';
    enter(s, HF_PG_ROLE_BACKUP);
    if (backup_new(s, s->epoch)) {
        hf_log_err("", "out of memory: this host is no backup");
    }
    rearm(s);
}

static void stop(struct hf_pg_service *s)
{
    if (s->role == HF_PG_ROLE_STOPPED) {
        return;
    }
    demote(s);
    if (s->source) {
        hf_pg_peer_close(s->source, false);
        s->source = NULL;
    }
    hf_pair_backup_destroy(s->backup);
    s->backup = NULL;
    hf_pg_peers_close(s->peers);
    s->peers = NULL;
    hf_pg_protect_destroy(s->pg->protect);
    s->pg->protect = NULL;
    enter(s, HF_PG_ROLE_STOPPED);
    rearm(s);
}

static void on_taken(void *arg, int rc, const struct hf_err *err)
{
    struct hf_pg_service *s = arg;
    struct hf_pg_control *c = s->promoting;
    s->promoting = NULL;
    if (rc) {
        hf_log_err("", "cannot take over the service address: %s", err->text);
    } else {
        enter(s, HF_PG_ROLE_PRIMARY);
    }
    if (c) {
        hf_pg_control_done(c, rc ? HF_OCF_ERR_GENERIC : HF_OCF_SUCCESS, rc ? err->text : "");
    }
}

static int promote(struct hf_pg_service *s, uint64_t epoch, struct hf_err *err)
{
    struct hf_pg *pg = s->pg;
    struct hf_pair_backup_info info;
    struct hf_pair_primary_conf conf = {.epoch = epoch, .silence = SILENCE};
    hf_pair_backup_info(s->backup, &info);
    if (getrandom(&conf.incarnation, sizeof(conf.incarnation), 0) < 0) {
        return hf_err_set(err, -errno, "no random numbers");
    }
    conf.incarnation |= 1;
    int rc = hf_pair_primary_create(&conf, now_of(s), &s->primary);
    if (rc) {
        return hf_err_set(err, rc, "out of memory");
    }
    hf_time lease = HF_MS(pg->config->service.lease_ms);
    struct hf_pg_takeover_options options = {
        .address = pg->config->service.address,
        .interface = pg->config->service.interface,
        .prefix_length = (unsigned)pg->config->service.prefix_length,
        .store = hf_pair_backup_take(s->backup),
        .clock_offset = info.clocked ? info.clock_offset : 0,
        .not_before = s->heard ? s->heard + lease : 0,
        .kind = !s->heard                  ? HF_PG_TAKEOVER_FIRST
                : !s->source && !info.code ? HF_PG_TAKEOVER_PLANNED
                                           : HF_PG_TAKEOVER_FAILURE,
    };
    if (options.prefix_length == 0) {
        options.prefix_length = options.address.ss.ss_family == AF_INET ? 32 : 128;
    }
    if (s->source) {
        hf_pg_peer_close(s->source, false);
        s->source = NULL;
    }
    hf_pair_backup_destroy(s->backup);
    s->backup = NULL;
    s->epoch = epoch;
    s->lease_until = 0;
    hf_pg_route_others_write(pg->route, false);
    hf_pg_protect_lead(pg->protect, s->primary, pump, s);
    enter(s, HF_PG_ROLE_TAKING);
    renew_lease(s);
    rc = hf_pg_takeover_start(pg, &options, on_taken, s, &s->takeover);
    if (rc) {
        demote(s);
        return hf_err_set(err, rc, "out of memory");
    }
    pump(s);
    return 0;
}

static int open_service(struct hf_pg_service *s, struct hf_err *err)
{
    if (s->role != HF_PG_ROLE_PRIMARY) {
        return hf_err_set(err, -EINVAL, "not promoted");
    }
    if (s->listeners) {
        return 0;
    }
    int rc = hf_pg_listeners_service(s->pg, &s->pg->config->service.address, err, &s->listeners);
    if (rc == 0) {
        hf_pg_protect_serves(s->pg->protect);
        hf_pg_takeover_listening(s->takeover);
    }
    return rc;
}

/* ---- mirrors ---- */

/* copy2=gamma@10.0.0.3=sync copy3==sync ... (agents.md) */
static size_t parse_mirrors(const char *text, struct mirror *out)
{
    size_t n = 0;
    while (*text && n < MIRRORS_MAX) {
        char word[256], mode[16];
        size_t len = strcspn(text, " ");
        struct mirror *m = &out[n];
        snprintf(word, sizeof(word), "%.*s", (int)len, text);
        text += len + strspn(text + len, " ");
        *m = (struct mirror){0};
        char *equal = strchr(word, '='), *last = strrchr(word, '=');
        if (!equal || equal == last) {
            continue;
        }
        *equal = *last = '\0';
        snprintf(mode, sizeof(mode), "%s", last + 1);
        char *at = strchr(equal + 1, '@');
        if (at) {
            *at = '\0';
            snprintf(m->address, sizeof(m->address), "%s", at + 1);
        }
        snprintf(m->copy, sizeof(m->copy), "%.*s", COPY_LEN - 1, word);
        snprintf(m->host, sizeof(m->host), "%.*s", HF_HOST_NAME_MAX, equal + 1);
        m->sync = strcmp(mode, "sync") == 0;
        m->in_set = m->sync || strcmp(mode, "grow") == 0;
        n++;
    }
    return n;
}

/* Who is in S, else who was chosen before, else the first that has a host. */
static size_t choose(const struct hf_pg_service *s)
{
    size_t best = s->n_mirrors;
    for (size_t i = s->n_mirrors; i-- > 0;) {
        const struct mirror *m = &s->mirror[i];
        bool old = strcmp(m->copy, s->chosen_copy) == 0;
        const struct mirror *b = best < s->n_mirrors ? &s->mirror[best] : NULL;
        if (!m->in_set && !*m->host) {
            continue;
        }
        if (!b || m->in_set > b->in_set ||
            (m->in_set == b->in_set && (old || strcmp(b->copy, s->chosen_copy) != 0))) {
            best = i;
        }
    }
    return best;
}

static void mirror_source(struct hf_pg_service *s, struct hf_pg_control *c, const char *mirrors)
{
    s->n_mirrors = parse_mirrors(mirrors, s->mirror);
    s->chosen = choose(s);
    const char *copy = s->chosen < s->n_mirrors ? s->mirror[s->chosen].copy : "";
    (void)answer_asks(s);
    if (strcmp(copy, s->chosen_copy) != 0) {
        snprintf(s->chosen_copy, sizeof(s->chosen_copy), "%s", copy);
        hf_pair_primary_backup(s->primary, *copy ? ++s->chosen_id : 0, now_of(s));
    }
    bool grow = chosen_is(s, true);
    if (s->growing) {
        hf_pg_control_done(s->growing, HF_OCF_ERR_GENERIC, "another list came");
        s->growing = NULL;
    }
    if (grow && !s->mirror[s->chosen].sync) {
        s->growing = c;
        s->grow_until = now_of(s) + GROW_TIME;
    } else {
        hf_pg_control_done(c, HF_OCF_SUCCESS, "");
    }
    pump(s);
}

static void state_of_mirror(struct hf_pg_service *s, struct hf_buf *out, size_t i)
{
    struct hf_pair_primary_info info;
    const char *copy = s->mirror[i].copy;
    if (i != s->chosen) {
        hf_buf_printf(out, "%s suspended another host is the backup\n", copy);
        return;
    }
    switch (state_of(s, &info)) {
    case HF_PAIR_STATE_RECORDING:
    case HF_PAIR_STATE_IN_SYNC:
        hf_buf_printf(out, "%s %s\n", copy, s->mirror[i].in_set ? "in-sync" : "caught-up");
        break;
    case HF_PAIR_STATE_SYNCING:
        hf_buf_printf(
            out, "%s syncing %u\n", copy,
            info.sessions ? (unsigned)(100 * (info.sessions - info.unsent) / info.sessions) : 0);
        break;
    case HF_PAIR_STATE_CONNECTING:
    case HF_PAIR_STATE_NO_BACKUP:
    case HF_PAIR_STATE_LOST:
    case HF_PAIR_STATE_COUNT_: {
        const char *now = s->asked_solo         ? "suspended no word from it"
                          : s->mirror[i].in_set ? "in-sync"
                                                : "syncing 0";
        hf_buf_printf(out, "%s %s\n", copy, now);
        break;
    }
    }
}

/* The group asks, and asks again: it is answered when there is something new. */
static void answer_state(struct hf_pg_service *s)
{
    struct hf_buf now;
    struct hf_pg_control *c = s->watching;
    if (!c) {
        return;
    }
    hf_buf_init(&now, 4096);
    for (size_t i = 0; s->primary && i < s->n_mirrors; i++) {
        state_of_mirror(s, &now, i);
    }
    bool same = hf_slice_eq(hf_buf_slice(&now), hf_buf_slice(&s->state_told));
    if (!same || !s->primary || now_of(s) >= s->watch_until) {
        s->watching = NULL;
        hf_pg_control_line(c, "%.*sholdfast-again", (int)now.n, now.n ? (const char *)now.p : "");
        hf_pg_control_done(c, HF_OCF_SUCCESS, "");
        hf_buf_clear(&s->state_told);
        hf_buf_add(&s->state_told, hf_buf_slice(&now));
    }
    hf_buf_fini(&now);
}

/* With the question come the lists as they are now: who was to grow is in S. */
static void note_grown(struct hf_pg_service *s, const char *mirrors)
{
    struct mirror now[MIRRORS_MAX];
    size_t n = parse_mirrors(mirrors, now);
    for (size_t i = 0; i < n; i++) {
        struct mirror *m = s->chosen < s->n_mirrors ? &s->mirror[s->chosen] : NULL;
        if (m && m->in_set && now[i].sync && strcmp(m->copy, now[i].copy) == 0) {
            m->sync = true;
        }
    }
}

static void mirror_state(struct hf_pg_service *s, struct hf_pg_control *c,
                         const struct hf_pg_control_ask *ask)
{
    const char *own = ask->resource;
    if (s->primary) {
        note_grown(s, ask->mirrors);
        if (s->watching) {
            hf_pg_control_done(s->watching, HF_OCF_ERR_GENERIC, "asked once more");
        }
        s->watching = c;
        s->watch_until = now_of(s) + WATCH_TIME;
        pump(s);
        return;
    }
    if (s->backup) {
        struct hf_pair_backup_info info;
        hf_pair_backup_info(s->backup, &info);
        bool follows = info.complete && info.state == HF_PAIR_BACKUP_FOLLOWING;
        hf_pg_control_line(c, follows ? "%s in-sync" : "%s syncing 0", own);
    }
    hf_pg_control_done(c, HF_OCF_SUCCESS, "");
}

/* ---- the agent ---- */

static void finish(struct hf_pg_control *c, int rc, const struct hf_err *err)
{
    hf_pg_control_done(c, rc ? HF_OCF_ERR_GENERIC : HF_OCF_SUCCESS, rc ? err->text : "");
}

static void ask_promote(struct hf_pg_service *s, struct hf_pg_control *c, uint64_t epoch)
{
    struct hf_err err = {0};
    if (s->primary && s->epoch == epoch && s->role == HF_PG_ROLE_PRIMARY) {
        hf_pg_control_done(c, HF_OCF_SUCCESS, "");
        return;
    }
    if (s->role == HF_PG_ROLE_STOPPED) {
        hf_pg_control_done(c, HF_OCF_ERR_GENERIC, "not started");
        return;
    }
    if (s->primary) {
        hf_pg_control_done(c, HF_OCF_ERR_GENERIC, "it has another reign: demote it first");
        return;
    }
    int rc = s->backup ? promote(s, epoch, &err) : hf_err_set(&err, -ENOMEM, "out of memory");
    if (rc) {
        finish(c, rc, &err);
    } else {
        s->promoting = c;
    }
}

/* Follow the primary of this reign; the group does not start a copy before that. */
static void mirror_target(struct hf_pg_service *s, struct hf_pg_control *c, uint64_t epoch)
{
    struct hf_err err = {0};
    int rc = s->role == HF_PG_ROLE_STOPPED ? start(s, &err) : 0;
    if (rc == 0) {
        s->epoch = epoch;
        hf_pair_backup_epoch(s->backup, epoch, now_of(s));
        send_backup(s);
        hf_pg_control_line(c, "holdfast-process: %ld", (long)getpid());
    }
    finish(c, rc, &err);
}

static void on_ask(void *arg, struct hf_pg_control *c, const struct hf_pg_control_ask *ask)
{
    struct hf_pg_service *s = arg;
    struct hf_err err = {0};
    const char *a = ask->action;
    if (strcmp(a, "monitor") == 0) {
        static const int code[] = {[HF_PG_ROLE_STOPPED] = HF_OCF_NOT_RUNNING,
                                   [HF_PG_ROLE_BACKUP] = HF_OCF_SUCCESS,
                                   [HF_PG_ROLE_TAKING] = HF_OCF_SUCCESS,
                                   [HF_PG_ROLE_PRIMARY] = HF_OCF_RUNNING_PROMOTED};
        hf_pg_control_done(c, code[s->role], "");
    } else if (strcmp(a, "start") == 0) {
        int rc = s->role == HF_PG_ROLE_STOPPED ? start(s, &err) : 0;
        hf_pg_control_line(c, "holdfast-process: %ld", (long)getpid());
        finish(c, rc, &err);
    } else if (strcmp(a, "stop") == 0) {
        stop(s);
        hf_pg_control_done(c, HF_OCF_SUCCESS, "");
    } else if (strcmp(a, "promote") == 0) {
        ask_promote(s, c, ask->epoch);
    } else if (strcmp(a, "open") == 0) {
        finish(c, open_service(s, &err), &err);
    } else if (strcmp(a, "demote") == 0) {
        demote(s);
        hf_pg_control_done(c, s->role == HF_PG_ROLE_STOPPED ? HF_OCF_NOT_RUNNING : HF_OCF_SUCCESS,
                           "");
    } else if (strcmp(a, "mirror-source") == 0 && s->primary) {
        mirror_source(s, c, ask->mirrors);
    } else if (strcmp(a, "mirror-target") == 0 && !s->primary) {
        mirror_target(s, c, ask->epoch);
    } else if (strcmp(a, "mirror-state") == 0) {
        mirror_state(s, c, ask);
    } else if (strcmp(a, "access") == 0 || strcmp(a, "validate-all") == 0 ||
               strcmp(a, "notify") == 0) {
        hf_pg_control_done(c, HF_OCF_SUCCESS, "");
    } else if (strncmp(a, "mirror-", 7) == 0) {
        hf_pg_control_done(c, HF_OCF_ERR_GENERIC, "not in the role for that");
    } else {
        hf_pg_control_done(c, HF_OCF_ERR_UNIMPLEMENTED, "no such action");
    }
}

static void on_closed(void *arg, struct hf_pg_control *c)
{
    struct hf_pg_service *s = arg;
    s->promoting = s->promoting == c ? NULL : s->promoting;
    s->growing = s->growing == c ? NULL : s->growing;
    s->watching = s->watching == c ? NULL : s->watching;
}

/* ---- life ---- */

int hf_pg_service_open(struct hf_pg *pg, struct hf_err *err, struct hf_pg_service **ret_service)
{
    *ret_service = NULL;
    if (!pg->config->service.address.len) {
        return 0;
    }
    struct hf_pg_service *s = hf_alloc(sizeof(*s));
    if (!s || hf_poll_reserve(pg->wire->poll, 1)) {
        hf_free(s);
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    s->pg = pg;
    s->timer.fn = on_timer;
    hf_buf_init(&s->state_told, 4096);
    if (*pg->config->service.host) {
        snprintf(s->host, sizeof(s->host), "%s", pg->config->service.host);
    } else if (gethostname(s->host, sizeof(s->host) - 1) < 0) {
        s->host[0] = '\0';
    }
    int rc = hf_key_load(pg->config->service.key_file, err, &s->key);
    rc = rc ? rc
            : hf_pg_controls_open(pg, pg->config->service.control, on_ask, on_closed, s, err,
                                  &s->controls);
    if (rc) {
        hf_pg_service_close(s);
        return rc;
    }
    hf_pg_route_others_write(pg->route, true); /* until this host is the primary */
    *ret_service = s;
    return 0;
}

void hf_pg_service_close(struct hf_pg_service *s)
{
    if (!s) {
        return;
    }
    hf_pg_listeners_close(s->listeners);
    hf_pg_takeover_destroy(s->takeover);
    if (s->pg->protect) {
        hf_egress_set_lease(hf_pg_protect_egress(s->pg->protect), 0, 0);
        hf_pg_protect_lead(s->pg->protect, NULL, NULL, NULL);
        let_go(s);
    }
    hf_pg_controls_close(s->controls);
    hf_pg_peers_close(s->peers);
    hf_pair_primary_destroy(s->primary);
    hf_pair_backup_destroy(s->backup);
    hf_buf_fini(&s->state_told);
    hf_pg_protect_destroy(s->pg->protect);
    s->pg->protect = NULL;
    hf_poll_timer_set(s->pg->wire->poll, &s->timer, HF_NEVER);
    (void)!hf_poll_reserve(s->pg->wire->poll, -1);
    hf_key_wipe(&s->key);
    hf_free(s);
}

void hf_pg_service_info(const struct hf_pg_service *s, struct hf_pg_service_info *ret_info)
{
    *ret_info = (struct hf_pg_service_info){.role = s->role,
                                            .epoch = s->epoch,
                                            .peer = "",
                                            .leading = s->primary != NULL,
                                            .lease_until = HF_NEVER};
    if (s->primary) {
        hf_pair_primary_info(s->primary, now_of(s), &ret_info->primary);
        ret_info->peer = s->chosen < s->n_mirrors ? s->mirror[s->chosen].host : "";
        ret_info->lease_until = s->lease_until;
    } else if (s->backup) {
        hf_pair_backup_info(s->backup, &ret_info->backup);
        ret_info->peer = s->source_name;
    }
}
