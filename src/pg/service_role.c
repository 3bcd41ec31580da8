/* Roles of the service address: what makes a host its backup, its primary, and neither. */
#include <errno.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/names.h"
#include "os/netaddr.h"
#include "os/ocf.h"
#include "pg/behind.h"
#include "pg/client.h"
#include "pg/control.h"
#include "pg/linger.h"
#include "pg/listener.h"
#include "pg/protect.h"
#include "pg/route.h"
#include "pg/service_impl.h"
#include "pg/takeover.h"
#include "pg/warm.h"
#include "pg/watch.h"

/* A dead process closes its connection, a dead host is the engine's to find: what is left is a cut
 * cable between the two, and a host too busy to be taken for dead at once. */
#define SILENCE HF_S(1)
#define RESTORE_TIME HF_S(5) /* for the group to let go of the mirrors, where it kept them in S */

HF_NAMES(hf_pg_role_name, enum hf_pg_role, HF_PG_ROLE_LIST)

static void enter(struct hf_pg_service *s, enum hf_pg_role role)
{
    if (s->role != role) {
        hf_log_info("", "service address: %s", hf_pg_role_name(role));
        s->role = role;
        hf_pg_watch_touch(s->pg->watch);
    }
}

static int backup_new(struct hf_pg_service *s, uint64_t epoch)
{
    const struct hf_pair_backup_conf conf = {
        .epoch = epoch, .seed = s->pg->seed, .silence = SILENCE};
    s->heard = 0;
    return hf_pair_backup_create(&conf, hf_pg_service_now(s), &s->backup);
}

/* From STOPPED. */
int hf_pg_service_start(struct hf_pg_service *s, struct hf_err *err)
{
    struct hf_pg *pg = s->pg;
    struct hf_endpoint address = hf_addr_to_endpoint(&pg->config->service.address);
    const struct hf_pg_peers_options options = {.poll = pg->wire->poll,
                                                .key = &s->key,
                                                .host = s->host,
                                                .listen = &pg->config->service.peer_listen,
                                                .ops = &hf_pg_service_peer_ops,
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
        rc = rc ? rc : hf_pg_warm_create(pg, hf_pg_service_warmed, s, &s->warm);
        rc = rc ? rc : hf_pg_behind_create(pg, &pg->behind);
        rc = rc ? hf_err_set(err, rc, "out of memory") : 0;
    }
    if (rc) {
        hf_pair_backup_destroy(s->backup);
        s->backup = NULL;
        hf_pg_warm_destroy(s->warm);
        s->warm = NULL;
        hf_pg_peers_close(s->peers);
        s->peers = NULL;
        hf_pg_protect_destroy(pg->protect);
        pg->protect = NULL;
        return rc;
    }
    pg->warm = s->warm;
    enter(s, HF_PG_ROLE_BACKUP);
    hf_pg_service_rearm(s);
    return 0;
}

/* Clients of the address are not ours any more: no word to them. */
void hf_pg_service_let_go(struct hf_pg_service *s)
{
    hf_time at = hf_pg_service_now(s) + HF_PG_PART_AFTER;
    hf_time every = hf_pg_part_every(s->pg->n_clients);
    HF_LIST_FOREACH (node, &s->pg->clients) {
        struct hf_pg_client *c = HF_CONTAINER_OF(node, struct hf_pg_client, node);
        if (c->slot) {
            if (s->pg->leaving) {
                hf_pg_client_part(c, at);
                at += every;
            }
            hf_pg_client_abandon(c);
        }
    }
}

void hf_pg_service_disown(struct hf_pg_service *s)
{
    hf_pair_store_destroy(s->own);
    s->own = NULL;
}

/* Of a reign that ends: nothing is let out any more. */
static void keep_own(struct hf_pg_service *s)
{
    if (s->own) {
        return; /* it was not opened */
    }
    s->own_offset = 0;
    int rc = hf_pg_protect_copy(s->pg->protect, &s->own);
    if (rc) {
        hf_log_warn("",
                    "this host's sessions are not kept: %s; should it be promoted again before "
                    "another host has opened, they are lost",
                    hf_strerror(rc));
    }
}

/* To BACKUP. */
void hf_pg_service_demote(struct hf_pg_service *s)
{
    struct hf_pg *pg = s->pg;
    struct hf_err err;
    struct hf_endpoint address = hf_addr_to_endpoint(&pg->config->service.address);
    if (!s->primary) {
        return;
    }
    s->leave_until = 0;
    hf_egress_set_lease(hf_pg_protect_egress(pg->protect), 0, 0); /* silent from now on */
    hf_pg_listeners_close(s->listeners);
    s->listeners = NULL;
    hf_pg_service_disown(s);
    s->own = s->takeover ? hf_pg_takeover_give_back(s->takeover, &s->own_offset) : NULL;
    hf_pg_takeover_destroy(s->takeover);
    s->takeover = NULL;
    if (s->opening) {
        struct hf_pg_control *c = s->opening;
        s->opening = NULL;
        hf_pg_service_answer(s, c, HF_OCF_ERR_GENERIC, "demoted meanwhile", true);
    }
    if (s->growing) {
        hf_pg_control_done(s->growing, HF_OCF_ERR_GENERIC, "demoted meanwhile");
        s->growing = NULL;
    }
    if (hf_netaddr_remove(pg->config->service.interface, &address, &err)) {
        hf_log_err("", "the service address stays here: %s", err.text);
    }
    (void)!hf_pg_control_note(pg->config->service.control, NULL, NULL); /* stop would do no harm */
    hf_pg_service_hand_over(s);
    keep_own(s);
    hf_pg_protect_lead(pg->protect, NULL, NULL, NULL);
    hf_pg_route_others_write(pg->route, true);
    hf_pg_service_let_go(s);
    pg->leaving = false;
    hf_pair_primary_destroy(s->primary);
    s->primary = NULL;
    hf_pg_service_note_reign(s);
    hf_pg_service_answer_state(s);
    hf_pair_lists_reset(&s->lists);
    enter(s, HF_PG_ROLE_BACKUP);
    if (backup_new(s, s->epoch)) {
        hf_log_err("", "out of memory: this host is no backup");
    }
    s->heard = s->own ? hf_pg_service_now(s) : 0; /* of itself: its lease may still be waited for */
    hf_pg_service_rearm(s);
}

/* ---- a prepared demotion ---- */

#define LEAVE_TIME HF_MS(20)
#define LEAVE_LOOK HF_MS(1)

/* Requests under way, and what the backup has not confirmed. */
static bool at_rest(const struct hf_pg_service *s)
{
    struct hf_pair_primary_info info;
    hf_pair_primary_info(s->primary, hf_pg_service_now(s), &info);
    HF_LIST_FOREACH (node, &s->pg->clients) {
        const struct hf_pg_client *c = HF_CONTAINER_OF(node, struct hf_pg_client, node);
        struct hf_pg_session_info session;
        if (c->slot && c->session && !c->ended) {
            hf_pg_session_info(c->session, &session);
            if (session.active) {
                return false;
            }
        }
    }
    return hf_pg_protect_settled(s->pg->protect) && info.lag_batches == 0;
}

void hf_pg_service_left(struct hf_pg_service *s)
{
    hf_time now = hf_pg_service_now(s);
    if (!s->leave_until) {
        return;
    }
    if (now < s->leave_until && !at_rest(s)) {
        s->leave_look = now + LEAVE_LOOK;
        return;
    }
    struct hf_pg_control *c = s->prepared;
    hf_pg_service_demote(s);
    if (c) {
        hf_pg_service_answer(s, c, HF_OCF_SUCCESS, "", true);
    }
}

void hf_pg_service_leave(struct hf_pg_service *s)
{
    s->pg->leaving = true;
    s->leave_until = hf_pg_service_now(s) + LEAVE_TIME;
    hf_pg_service_forward(s);
    hf_pg_clients_hold(s->pg);
    hf_pg_service_left(s);
    hf_pg_service_rearm(s);
}

void hf_pg_service_stop(struct hf_pg_service *s)
{
    if (s->role == HF_PG_ROLE_STOPPED) {
        return;
    }
    hf_pg_service_demote(s);
    hf_pg_service_disown(s);
    hf_pg_service_forward_end(s);
    if (s->source) {
        hf_pg_peer_close(s->source, false);
        s->source = NULL;
    }
    hf_pair_backup_destroy(s->backup);
    s->backup = NULL;
    hf_pg_warm_destroy(s->warm);
    s->warm = s->pg->warm = NULL;
    hf_pg_behind_destroy(s->pg->behind);
    s->pg->behind = NULL;
    hf_pg_peers_close(s->peers);
    s->peers = NULL;
    hf_pg_protect_destroy(s->pg->protect);
    s->pg->protect = NULL;
    enter(s, HF_PG_ROLE_STOPPED);
    hf_pg_service_rearm(s);
}

static int listen_there(struct hf_pg_service *s, struct hf_err *err)
{
    int rc = hf_pg_listeners_service(s->pg, &s->pg->config->service.address, err, &s->listeners);
    if (rc == 0) {
        hf_pg_protect_serves(s->pg->protect);
        hf_pg_takeover_listening(s->takeover);
    }
    return rc;
}

static void on_taken(void *arg, int rc, const struct hf_err *why)
{
    struct hf_pg_service *s = arg;
    struct hf_pg_control *c = s->opening;
    struct hf_err err = {0};
    s->opening = NULL;
    if (rc) {
        err = *why;
        hf_log_err("", "cannot take over the service address: %s", err.text);
    } else {
        enter(s, HF_PG_ROLE_PRIMARY);
        rc = listen_there(s, &err);
    }
    if (c) {
        hf_pg_service_answer(s, c, rc ? HF_OCF_ERR_GENERIC : HF_OCF_SUCCESS, rc ? err.text : "",
                             true);
    }
}

int hf_pg_service_promote(struct hf_pg_service *s, uint64_t epoch, bool silent, const char *mirrors,
                          struct hf_err *err)
{
    struct hf_pg *pg = s->pg;
    struct hf_pair_backup_info info;
    struct hf_pair_primary_conf conf = {.epoch = epoch, .silence = SILENCE};
    hf_pair_backup_info(s->backup, &info);
    if (getrandom(&conf.incarnation, sizeof(conf.incarnation), 0) < 0) {
        return hf_err_set(err, -errno, "no random numbers");
    }
    conf.incarnation |= 1;
    const struct hf_pair_mirror *owed;
    (void)!hf_pair_lists_take(&s->lists, mirrors);
    conf.owed = hf_pair_lists_backup(&s->lists, &owed);
    int rc = hf_pair_primary_create(&conf, hf_pg_service_now(s), &s->primary);
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
        .not_before = s->heard && !silent ? s->heard + lease : 0,
        .kind = !s->heard                  ? HF_PG_TAKEOVER_FIRST
                : !s->source && !info.code ? HF_PG_TAKEOVER_PLANNED
                                           : HF_PG_TAKEOVER_FAILURE,
    };
    if (!options.store && s->own) {
        options.store = s->own;
        options.clock_offset = s->own_offset;
        s->own = NULL;
    }
    hf_pg_service_disown(s);
    s->restore_until = options.store ? hf_pg_service_now(s) + RESTORE_TIME : 0;
    if (options.prefix_length == 0) {
        options.prefix_length = options.address.ss.ss_family == AF_INET ? 32 : 128;
    }
    if (s->source) {
        hf_pg_peer_close(s->source, false);
        s->source = NULL;
    }
    hf_pair_backup_destroy(s->backup);
    s->backup = NULL;
    hf_pg_service_forward_end(s);
    hf_pg_warm_keep(s->warm);
    s->alarm_at = s->warm_at = 0;
    s->suspected = false;
    s->epoch = epoch;
    s->lease_until = 0;
    hf_pg_route_others_write(pg->route, false);
    hf_pg_protect_lead(pg->protect, s->primary, hf_pg_service_pump, s);
    enter(s, HF_PG_ROLE_TAKING);
    hf_pg_service_renew_lease(s);
    rc = hf_pg_control_note(pg->config->service.control, pg->config->service.interface,
                            &pg->config->service.address);
    if (rc) {
        hf_log_warn("", "%s.address: %s; if this process dies its address stays until the next one",
                    pg->config->service.control, hf_strerror(rc));
    }
    rc = hf_pg_takeover_start(pg, &options, on_taken, s, &s->takeover);
    if (rc) {
        hf_pg_service_demote(s);
        return hf_err_set(err, rc, "out of memory");
    }
    hf_pg_service_pump(s);
    return 0;
}

/* Before the group asks for it S may have another copy, to which it would turn if this host were
 * cut off or frozen now: so nothing is let out, and the address is not here, before. */
void hf_pg_service_serve(struct hf_pg_service *s, struct hf_pg_control *c)
{
    struct hf_err err = {0};
    if (!s->primary || s->opening) {
        hf_pg_service_answer(s, c, HF_OCF_ERR_GENERIC,
                             s->primary ? "asked once more" : "not promoted", true);
    } else if (s->role == HF_PG_ROLE_TAKING) {
        s->opening = c;
        hf_pg_takeover_go(s->takeover);
    } else {
        int rc = s->listeners ? 0 : listen_there(s, &err);
        hf_pg_service_answer(s, c, rc ? HF_OCF_ERR_GENERIC : HF_OCF_SUCCESS, rc ? err.text : "",
                             true);
    }
}
