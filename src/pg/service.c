/* The service address: what the group's agent asks, and who does it. */
#include "pg/service.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "os/ocf.h"
#include "pg/behind.h"
#include "pg/control.h"
#include "pg/listener.h"
#include "pg/protect.h"
#include "pg/route.h"
#include "pg/rules.h"
#include "pg/service_impl.h"
#include "pg/takeover.h"
#include "pg/warm.h"
#include "pg/watch.h"

/* ---- the agent ---- */

void hf_pg_service_answer(struct hf_pg_service *s, struct hf_pg_control *c, int code,
                          const char *why, bool last)
{
    if (c == s->prepared) {
        if (code == HF_OCF_SUCCESS) {
            hf_pg_control_line(c, "holdfast-done");
            if (!last) {
                return;
            }
        }
        s->prepared = NULL;
    }
    hf_pg_control_done(c, code, why);
}

static void finish(struct hf_pg_service *s, struct hf_pg_control *c, int rc,
                   const struct hf_err *err)
{
    hf_pg_service_answer(s, c, rc ? HF_OCF_ERR_GENERIC : HF_OCF_SUCCESS, rc ? err->text : "", true);
}

/* Where the group does not fence, a host that is cut off must fall silent by itself (G2). */
static int must_fall_silent(const struct hf_pg_service *s, const struct hf_pg_control_ask *ask,
                            struct hf_err *err)
{
    if (!ask->unfenced) {
        return 0;
    }
    if (s->pg->config->service.lease_ms == 0) {
        return hf_err_set(err, -EPERM,
                          "the group has fence = none and service.lease is 0: nothing would "
                          "silence this host; set a lease, or let the group fence");
    }
    if (!hf_egress_lease_counts(hf_pg_protect_egress(s->pg->protect))) {
        return hf_err_set(err, -EPERM,
                          "the group has fence = none and the guard is by NFQUEUE, whose lease "
                          "lets ARP pass: give holdfast-pg CAP_BPF, or let the group fence");
    }
    return 0;
}

static int ask_start(struct hf_pg_service *s, const struct hf_pg_control_ask *ask,
                     struct hf_err *err)
{
    int rc = s->role == HF_PG_ROLE_STOPPED ? hf_pg_service_start(s, err) : 0;
    if (rc == 0 && !s->primary) {
        rc = must_fall_silent(s, ask, err);
        if (rc) {
            hf_pg_service_stop(s);
        }
    }
    return rc;
}

static void ask_promote(struct hf_pg_service *s, struct hf_pg_control *c,
                        const struct hf_pg_control_ask *ask)
{
    uint64_t epoch = ask->epoch;
    bool prepared = c == s->prepared; /* only if the former primary lets go, and without mirrors */
    struct hf_err err = {0};
    if (s->primary && s->epoch == epoch) {
        hf_pg_service_answer(s, c, HF_OCF_SUCCESS, "", false);
        return;
    }
    if (s->role == HF_PG_ROLE_STOPPED) {
        hf_pg_service_answer(s, c, HF_OCF_ERR_GENERIC, "not started", true);
        return;
    }
    if (s->primary) {
        hf_pg_service_answer(s, c, HF_OCF_ERR_GENERIC, "it has another reign: demote it first",
                             true);
        return;
    }
    int rc = must_fall_silent(s, ask, &err);
    rc = rc          ? rc
         : s->backup ? hf_pg_service_promote(s, epoch, ask->silent || prepared,
                                             prepared ? "" : ask->mirrors, &err)
                     : hf_err_set(&err, -ENOMEM, "out of memory");
    if (rc) {
        finish(s, c, rc, &err);
    } else {
        hf_pg_service_answer(s, c, HF_OCF_SUCCESS, "", false);
    }
}

/* Follow the primary of this reign; the group does not start a copy before that. */
static void mirror_target(struct hf_pg_service *s, struct hf_pg_control *c,
                          const struct hf_pg_control_ask *ask)
{
    struct hf_err err = {0};
    int rc = ask_start(s, ask, &err);
    if (rc == 0) {
        hf_pg_service_disown(s); /* that primary has this host in S again when it follows */
        s->epoch = ask->epoch;
        hf_pair_backup_epoch(s->backup, ask->epoch, hf_pg_service_now(s));
        hf_pg_service_send_backup(s);
        hf_pg_control_line(c, "holdfast-process: %ld", (long)getpid());
    }
    finish(s, c, rc, &err);
}

/* A switch is coming (agents.md): the word for it follows. */
static void prepare(struct hf_pg_service *s, struct hf_pg_control *c, bool promote)
{
    if (promote ? !s->backup || s->prepared : s->role != HF_PG_ROLE_PRIMARY || s->prepared) {
        hf_pg_control_done(c, HF_OCF_ERR_GENERIC, "not in the role for that");
        return;
    }
    s->prepared = c;
    s->armed = !promote;
    if (!promote) {
        hf_pg_control_line(c, "holdfast-armed");
        return;
    }
    s->warm_at = 0;
    hf_pg_service_warm(s);
    if (hf_pg_warm_settled(s->warm)) {
        hf_pg_service_warmed(s);
    }
    hf_pg_service_rearm(s);
}

static void ask_demote(struct hf_pg_service *s, struct hf_pg_control *c)
{
    if (c == s->prepared && s->role == HF_PG_ROLE_PRIMARY) {
        hf_pg_service_leave(s);
        return;
    }
    hf_pg_service_demote(s);
    int code = s->role == HF_PG_ROLE_STOPPED ? HF_OCF_NOT_RUNNING : HF_OCF_SUCCESS;
    hf_pg_service_answer(s, c, code, "", true);
}

static void on_ask(void *arg, struct hf_pg_control *c, const struct hf_pg_control_ask *ask)
{
    struct hf_pg_service *s = arg;
    struct hf_err err = {0};
    const char *a = ask->action;
    hf_pg_watch_named(s->pg->watch, ask->group);
    if (strcmp(a, "monitor") == 0) {
        static const int code[] = {[HF_PG_ROLE_STOPPED] = HF_OCF_NOT_RUNNING,
                                   [HF_PG_ROLE_BACKUP] = HF_OCF_SUCCESS,
                                   [HF_PG_ROLE_TAKING] = HF_OCF_RUNNING_PROMOTED,
                                   [HF_PG_ROLE_PRIMARY] = HF_OCF_RUNNING_PROMOTED};
        hf_pg_control_done(c, code[s->role], "");
    } else if (strcmp(a, "start") == 0) {
        int rc = ask_start(s, ask, &err);
        hf_pg_control_line(c, "holdfast-process: %ld", (long)getpid());
        finish(s, c, rc, &err);
    } else if (strcmp(a, "stop") == 0) {
        hf_pg_service_stop(s);
        hf_pg_control_done(c, HF_OCF_SUCCESS, "");
    } else if (strcmp(a, "promote") == 0) {
        ask_promote(s, c, ask);
    } else if (strcmp(a, "open") == 0) {
        hf_pg_service_serve(s, c);
    } else if (strcmp(a, "demote") == 0) {
        ask_demote(s, c);
    } else if (strcmp(a, "prepare-promote") == 0 || strcmp(a, "prepare-demote") == 0) {
        prepare(s, c, strcmp(a, "prepare-promote") == 0);
    } else if (strcmp(a, "mirror-source") == 0 && s->primary) {
        hf_pg_service_mirror_source(s, c, ask->mirrors);
    } else if (strcmp(a, "mirror-target") == 0 && !s->primary) {
        mirror_target(s, c, ask);
    } else if (strcmp(a, "mirror-state") == 0) {
        hf_pg_service_mirror_state(s, c, ask);
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
    s->opening = s->opening == c ? NULL : s->opening;
    s->growing = s->growing == c ? NULL : s->growing;
    s->watching = s->watching == c ? NULL : s->watching;
    s->prepared = s->prepared == c ? NULL : s->prepared;
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
    s->timer.fn = hf_pg_service_on_timer;
    hf_buf_init(&s->state_told, 4096);
    if (*pg->config->service.host) {
        snprintf(s->host, sizeof(s->host), "%s", pg->config->service.host);
    } else if (gethostname(s->host, sizeof(s->host) - 1) < 0) {
        s->host[0] = '\0';
    }
    int rc = hf_key_load(pg->config->service.key_file, err, &s->key);
    /* the same salts at all hosts: a login may go on at another one */
    rc = rc ? rc
            : hf_key_derive(&s->key, hf_slice_str("holdfast-pg salts"), pg->rules->login.key,
                            HF_PG_KEY_LEN);
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
        hf_pg_service_let_go(s);
    }
    hf_pg_controls_close(s->controls);
    hf_pg_warm_destroy(s->warm);
    s->pg->warm = NULL;
    hf_pg_behind_destroy(s->pg->behind);
    s->pg->behind = NULL;
    hf_pg_peers_close(s->peers);
    hf_pair_primary_destroy(s->primary);
    hf_pair_backup_destroy(s->backup);
    hf_pair_store_destroy(s->own);
    hf_buf_fini(&s->state_told);
    hf_pg_protect_destroy(s->pg->protect);
    s->pg->protect = NULL;
    hf_poll_timer_set(s->pg->wire->poll, &s->timer, HF_NEVER);
    (void)!hf_poll_reserve(s->pg->wire->poll, -1);
    hf_key_wipe(&s->key);
    hf_free(s);
}

const char *hf_pg_service_host(const struct hf_pg_service *s)
{
    return s->host;
}

void hf_pg_service_info(const struct hf_pg_service *s, struct hf_pg_service_info *ret_info)
{
    *ret_info = (struct hf_pg_service_info){.role = s->role,
                                            .epoch = s->epoch,
                                            .peer = "",
                                            .leading = s->primary != NULL,
                                            .lease_until = HF_NEVER};
    if (s->primary) {
        hf_pair_primary_info(s->primary, hf_pg_service_now(s), &ret_info->primary);
        ret_info->peer = hf_pg_service_peer(s);
        ret_info->lease_until = s->lease_until;
    } else if (s->backup) {
        hf_pair_backup_info(s->backup, &ret_info->backup);
        ret_info->peer = s->source_name;
    }
}
