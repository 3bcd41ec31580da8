/* The pair's cores and the connection between two hosts: what they say is done. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "pg/linger.h"
#include "pg/protect.h"
#include "pg/service_impl.h"
#include "pg/takeover.h"

void hf_pg_service_rearm(struct hf_pg_service *s)
{
    hf_time at = s->growing ? s->grow_until : HF_NEVER;
    at = s->watching ? hf_time_min(at, s->watch_until) : at;
    at = s->leave_until ? hf_time_min(at, s->leave_look) : at;
    at = s->forward ? hf_time_min(at, s->forward_until) : at;
    at = hf_time_min(at, hf_pg_service_warm_deadline(s));
    if (s->primary) {
        at = hf_time_min(at, hf_pair_primary_deadline(s->primary));
    } else if (s->backup) {
        at = hf_time_min(at, hf_pair_backup_deadline(s->backup));
    }
    hf_poll_timer_set(s->pg->wire->poll, &s->timer, at);
}

/* ---- primary: what the core says ---- */

/* Nothing leaves later than so long after the heartbeat that the backup answered last. */
void hf_pg_service_renew_lease(struct hf_pg_service *s)
{
    struct hf_pair_primary_info info;
    hf_pair_primary_info(s->primary, hf_pg_service_now(s), &info);
    hf_time until = hf_pair_lease_until(&info, HF_MS(s->pg->config->service.lease_ms));
    if (until == s->lease_until) {
        return;
    }
    s->lease_until = until;
    hf_pair_primary_lease(s->primary, until, hf_pg_service_now(s));
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

/* Who is promoted once more with S as it was restores its sessions first: a backup that was filled
 * before would be in sync without them. So the group is asked to let go of it; where it does not
 * (degraded = refuse), they are given up. */
static bool restores_first(struct hf_pg_service *s)
{
    if (s->role != HF_PG_ROLE_TAKING || !s->restore_until) {
        return false;
    }
    if (hf_pg_service_now(s) < s->restore_until) {
        return true;
    }
    hf_time offset;
    struct hf_pair_store *store = hf_pg_takeover_give_back(s->takeover, &offset);
    if (store) {
        hf_log_warn("", "%zu sessions are given up: the group does not serve without a backup",
                    hf_pair_store_sessions(store));
        hf_pair_store_destroy(store);
        s->restore_until = 0;
    }
    return !store;
}

static void connect_backup(struct hf_pg_service *s)
{
    struct hf_addr to;
    struct hf_err err;
    const struct hf_pair_mirror *m;
    (void)hf_pair_lists_backup(&s->lists, &m);
    uint16_t port = hf_addr_to_endpoint(&s->pg->config->service.peer_listen).port;
    int rc = m && !restores_first(s) ? hf_addr_parse(m->address, port, &err, &to) : -ENOENT;
    rc = rc ? rc : hf_pg_peer_connect(s->peers, m->host, &to, &s->target);
    s->target_open = false;
    if (rc) {
        s->target = NULL;
        hf_pair_primary_disconnected(s->primary, hf_pg_service_now(s));
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

void hf_pg_service_hand_over(struct hf_pg_service *s)
{
    if (s->target_open) {
        hf_pair_primary_bye(s->primary, 0, hf_pg_service_now(s));
        send_primary(s);
        hf_pg_peer_close(s->target, true);
        s->target = NULL;
    }
    close_target(s);
}

void hf_pg_service_note_reign(struct hf_pg_service *s)
{
    struct hf_pair_primary_info info = {0};
    if (s->primary) {
        hf_pair_primary_info(s->primary, hf_pg_service_now(s), &info);
    }
    hf_pg_linger_protected(s->pg->linger, s->primary && info.state == HF_PAIR_STATE_IN_SYNC);
    hf_pg_reign_note(s->pg, s->epoch, s->primary ? &info : NULL, hf_pg_service_peer(s),
                     hf_pg_service_now(s));
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
    case HF_PAIR_OUT_ASK_RECORD:
        hf_pair_lists_ask(&s->lists, out);
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

/* After anything that the core was told. */
void hf_pg_service_pump(void *arg)
{
    struct hf_pg_service *s = arg;
    struct hf_pair_out out;
    if (!s->primary) {
        return;
    }
    do {
        hf_pg_service_renew_lease(s);
        while (hf_pair_primary_next(s->primary, hf_pg_service_now(s), &out)) {
            obey(s, &out);
        }
    } while (hf_pg_service_answer_asks(s));
    send_primary(s);
    hf_pg_service_note_reign(s);
    hf_pg_service_answer_grow(s);
    hf_pg_service_answer_state(s);
    hf_pg_service_rearm(s);
}

/* ---- backup ---- */

void hf_pg_service_send_backup(struct hf_pg_service *s)
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
    hf_pg_service_rearm(s);
}

/* ---- the connection ---- */

static void peer_opened(void *arg, struct hf_pg_peer *p, const char *name)
{
    struct hf_pg_service *s = arg;
    if (hf_pg_peer_is_ours(p)) {
        s->target_open = true;
        hf_pair_primary_connected(s->primary, hf_pg_service_now(s));
        hf_pg_service_pump(s);
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
    s->heard = hf_pg_service_now(s);
    snprintf(s->source_name, sizeof(s->source_name), "%s", name);
    hf_pair_backup_connected(s->backup, hf_pg_service_now(s));
    hf_pg_service_send_backup(s);
}

static void peer_bytes(void *arg, struct hf_pg_peer *p, struct hf_slice bytes)
{
    struct hf_pg_service *s = arg;
    if (p == s->target) {
        hf_pair_primary_received(s->primary, bytes, hf_pg_service_now(s));
        hf_pg_service_pump(s);
    } else if (p == s->source) {
        s->heard = hf_pg_service_now(s);
        hf_pair_backup_received(s->backup, bytes, hf_pg_service_now(s));
        hf_pg_service_send_backup(s);
    }
}

static void peer_room(void *arg, struct hf_pg_peer *p)
{
    struct hf_pg_service *s = arg;
    if (p == s->target) {
        send_primary(s);
    } else if (p == s->source) {
        hf_pg_service_send_backup(s);
    }
}

static void peer_closed(void *arg, struct hf_pg_peer *p, const char *why)
{
    struct hf_pg_service *s = arg;
    if (p == s->target) {
        if (s->target_open) {
            hf_log_info("", "connection to backup %s lost: %s", hf_pg_service_peer(s), why);
        }
        s->target = NULL;
        s->target_open = false;
        hf_pair_primary_disconnected(s->primary, hf_pg_service_now(s));
        hf_pg_service_pump(s);
    } else if (p == s->source) {
        hf_log_info("", "connection from %s lost: %s", s->source_name, why);
        s->source = NULL;
        hf_pair_backup_disconnected(s->backup, hf_pg_service_now(s));
        hf_pg_service_warm(s);
        hf_pg_service_send_backup(s);
    }
}

const struct hf_pg_peer_ops hf_pg_service_peer_ops = {
    .opened = peer_opened,
    .bytes = peer_bytes,
    .room = peer_room,
    .closed = peer_closed,
};

void hf_pg_service_on_timer(struct hf_poll_timer *t, hf_time now)
{
    struct hf_pg_service *s = HF_CONTAINER_OF(t, struct hf_pg_service, timer);
    if (s->forward && now >= s->forward_until) {
        hf_pg_service_forward_end(s);
    }
    if (s->primary) {
        hf_pair_primary_step(s->primary, now);
        hf_pg_service_pump(s);
        hf_pg_service_left(s);
        hf_pg_service_rearm(s);
    } else if (s->backup) {
        hf_pair_backup_step(s->backup, now);
        hf_pg_service_warm(s);
        hf_pg_service_send_backup(s);
    }
}
