/* SUBSCRIBEs and PUBLISHes that are answered when what they ask for is stored.
 *
 *   held --KEEP done, or the database is away--> 200
 *     +--KEEP stale----------------------------> taken back, and decided anew: off to its home, or
 *                                                held again
 *
 * So who has his 200 is known to whoever has the AoR next. A refresh is not taken back, nor a
 * publication while the AoR is still ours: they are stored once more. If it is not, the watcher
 * who refreshed is told to subscribe again, as any other.
 */
#include "core/sip/element_impl.h"

static struct hf_slice key_of(const uint64_t *key)
{
    return hf_slice(key, sizeof(*key));
}

static struct hf_el_wait *waits_for(const struct hf_sip_element *e, uint64_t key)
{
    return e->keeping.n ? hf_map_get(&e->keeping, key_of(&key)) : NULL;
}

void hf_el_keeps_no_more(struct hf_sip_element *e, struct hf_el_wait *w)
{
    if (w->what == HF_EL_FOR_KEEP && waits_for(e, w->own) == w) {
        (void)hf_map_remove(&e->keeping, key_of(&w->own));
    }
}

void hf_el_state(struct hf_el_req *r)
{
    struct hf_sip_flow to = hf_sip_flow_back(r->m, r->from);
    r->e->asking = r;
    hf_sip_notifier_request(r->e->notifier, r->m, &to, r->aor, r->known->user, r->now);
    r->e->asking = NULL;
}

void hf_el_hold_kept(void *ctx, uint64_t key, bool fresh, const struct hf_sip_flow *to,
                     struct hf_slice message)
{
    struct hf_sip_element *e = ctx;
    struct hf_el_wait *before = waits_for(e, key);
    if (before) { /* it refreshes what is not stored yet: that one is answered a little early */
        hf_el_reply(e, before);
    }
    struct hf_el_wait *w = hf_el_hold(e->asking, HF_EL_FOR_KEEP);
    if (!w) {
        return; /* refused, though it is there: as if its answer were lost */
    }
    w->own = key;
    w->keep = 0;
    w->fresh = fresh;
    if (!hf_el_hold_reply(w, to, message) || hf_map_put(&e->keeping, key_of(&w->own), w)) {
        hf_el_send(e, to, message); /* without memory a little early, too */
        hf_el_wait_free(e, w);
    }
}

void hf_el_store_kept(void *ctx, const struct hf_sip_op *op)
{
    struct hf_sip_element *e = ctx;
    struct hf_el_wait *w =
        op->kind == HF_SIP_OP_KEEP ? waits_for(e, HF_SIP_KEEP_KEY(op->cookie)) : NULL;
    if (w && !w->keep) {
        w->keep = op->cookie;
    }
    e->ops.store(e->ctx, op);
}

void hf_el_kept(struct hf_sip_element *e, const struct hf_sip_result *res, hf_time now)
{
    bool stale = res->kind == HF_SIP_OP_KEEP && res->done != HF_SIP_OP_DONE &&
                 res->done != HF_SIP_OP_AWAY; /* or there is no row any more */
    struct hf_el_wait *w = waits_for(e, HF_SIP_KEEP_KEY(res->cookie));
    if (!w || w->keep != res->cookie) {
        w = NULL;
    } else if (!stale) {
        hf_el_reply(e, w);
        w = NULL;
    } else {
        w->keep = 0;
        if (w->fresh) {
            hf_sip_notifier_unask(e->notifier, w->own);
        }
    }
    if (stale) {
        hf_el_row_now(e, res->aor, res, now);
    }
    if (hf_sip_notifier_stored(e->notifier, res, now) || !w) {
        return;
    }
    if (!w->fresh) {
        hf_el_reply(e, w);
        return;
    }
    hf_el_keeps_no_more(e, w);
    hf_el_knows(w, res);
    w->known.n_decided = 0;
    hf_el_resume(e, w, now);
}
