/* Watchers whom a former home has to tell that their AoR has moved, should it die before it has
 * (S2, D10, D11).
 *
 * Table first: who had the AoR tells its watchers when the row has changed, and drops each from the
 * store when it has answered. So what is stored at the new home's LOAD is who has not been told
 * yet; nobody can be added, as the former home's epoch is over. What of that is still stored when
 * the former home dies, or after a time in any case (it may have been started anew, or have had
 * them of another one, which died), is told here. Who was being told just then is told twice.
 */
#include <errno.h>

#include "base/err.h"
#include "base/mem.h"
#include "core/sip/element_impl.h"

#define UNTOLD_MAX 1000000u
#define AT_ONCE 64u      /* LOADs under way */
#define AGAIN HF_S(2)    /* after the store had no answer */
#define TELLING HF_S(64) /* a NOTIFY that nobody answers takes 32 s */

struct hf_el_untold {
    struct hf_list node; /* on element.untold, the oldest first; on to_tell when it is our turn */
    hf_time at;          /* when it is, at last */
    uint16_t from;       /* HF_SIP_NONE: it is not known */
    bool asked;          /* its LOAD is under way */
    struct hf_slice aor;
    uint8_t bytes[];
};

static struct hf_el_untold *find(const struct hf_sip_element *e, struct hf_slice aor)
{
    return e->untold_by_aor.n ? hf_map_get(&e->untold_by_aor, aor) : NULL;
}

static void drop(struct hf_sip_element *e, struct hf_el_untold *u)
{
    e->n_telling -= u->asked;
    (void)hf_map_remove(&e->untold_by_aor, u->aor);
    hf_list_unlink(&u->node);
    hf_free(u);
}

void hf_el_untold_drop(struct hf_sip_element *e, struct hf_slice aor)
{
    struct hf_el_untold *u = find(e, aor);
    if (u) {
        drop(e, u);
    }
}

int hf_el_untold_add(struct hf_sip_element *e, struct hf_slice aor, uint16_t from, hf_time now)
{
    hf_el_untold_drop(e, aor);
    struct hf_el_untold *u = e->untold_by_aor.n < UNTOLD_MAX ? hf_alloc(sizeof(*u) + aor.n) : NULL;
    if (!u) {
        return -ENOMEM;
    }
    memcpy(u->bytes, aor.p, aor.n);
    u->aor = hf_slice(u->bytes, aor.n);
    u->from = from;
    u->at = now + TELLING;
    int rc = hf_map_put(&e->untold_by_aor, u->aor, u);
    if (rc) {
        hf_free(u);
        return rc;
    }
    hf_list_insert(&e->untold, &u->node);
    return 0;
}

static void our_turn(struct hf_sip_element *e, struct hf_el_untold *u)
{
    hf_list_unlink(&u->node);
    hf_list_insert(&e->to_tell, &u->node);
}

void hf_el_untold_next(struct hf_sip_element *e)
{
    while (e->n_telling < AT_ONCE && !hf_list_empty(&e->to_tell) && e->now >= e->tell_again &&
           hf_sip_assign_table(e->assign) != HF_SIP_TABLE_AWAY) {
        struct hf_el_untold *u = HF_CONTAINER_OF(e->to_tell.next, struct hf_el_untold, node);
        struct hf_sip_op op = {.kind = HF_SIP_OP_LOAD, .aor = u->aor, .cookie = HF_EL_NOBODY};
        hf_list_unlink(&u->node);
        u->asked = true;
        e->n_telling++;
        e->ops.store(e->ctx, &op);
    }
}

/* May it be this server's? */
static bool is_of(uint16_t from, uint16_t server)
{
    return from == server || from == HF_SIP_NONE;
}

bool hf_el_tells(const struct hf_sip_element *e, uint16_t server)
{
    const struct hf_el_peer *p = e->peer[server];
    return hf_sip_fleet_alive(e->fleet, server) && !(p && e->now < p->forgets_until);
}

void hf_el_died(struct hf_sip_element *e, uint16_t server)
{
    size_t pos = 0;
    if (e->peer[server]) {
        e->peer[server]->forgets_until = e->now + TELLING;
    }
    for (struct hf_el_load *l; (l = hf_map_next(&e->loads, &pos));) {
        if (l->former == HF_SIP_FORMER_ALIVE && is_of(l->from, server)) {
            l->former = HF_SIP_FORMER_DEAD;
        }
    }
    HF_LIST_FOREACH (it, &e->untold) {
        struct hf_el_untold *u = HF_CONTAINER_OF(it, struct hf_el_untold, node);
        if (is_of(u->from, server)) {
            our_turn(e, u);
        }
    }
    hf_el_untold_next(e);
}

void hf_el_untold_found(struct hf_sip_element *e, const struct hf_sip_result *res, hf_time now)
{
    struct hf_el_untold *u = find(e, res->aor);
    if (!u || !u->asked) {
        hf_el_untold_next(e);
        return; /* it is not ours any more */
    }
    if (res->done == HF_SIP_OP_AWAY) {
        u->asked = false;
        e->n_telling--;
        e->tell_again = now + AGAIN;
        our_turn(e, u);
        return;
    }
    drop(e, u);
    for (size_t i = 0; i < res->n_kept; i++) { /* who has come here already stays */
        if (res->kept[i].what == 's') {
            hf_sip_notifier_load(e->notifier, res->aor, &res->kept[i], 1, HF_SIP_FORMER_DEAD, now);
        }
    }
    hf_el_untold_next(e);
}

static struct hf_el_untold *oldest(const struct hf_sip_element *e)
{
    return hf_list_empty(&e->untold) ? NULL
                                     : HF_CONTAINER_OF(e->untold.next, struct hf_el_untold, node);
}

void hf_el_untold_tick(struct hf_sip_element *e, hf_time now)
{
    for (struct hf_el_untold *u; (u = oldest(e)) && u->at <= now;) {
        our_turn(e, u);
    }
    hf_el_untold_next(e);
}

hf_time hf_el_untold_deadline(const struct hf_sip_element *e)
{
    const struct hf_el_untold *u = oldest(e);
    hf_time t = u ? u->at : HF_NEVER;
    bool waits = !hf_list_empty(&e->to_tell) && e->tell_again > e->now &&
                 hf_sip_assign_table(e->assign) != HF_SIP_TABLE_AWAY;
    return waits ? hf_time_min(t, e->tell_again) : t;
}

void hf_el_untold_fini(struct hf_sip_element *e)
{
    size_t pos = 0;
    for (struct hf_el_untold *u; (u = hf_map_next(&e->untold_by_aor, &pos));) {
        hf_free(u);
    }
    hf_map_fini(&e->untold_by_aor);
}
