/* What a server does with a SIP request; the table is in the header. */
#include "core/sip/decide.h"

#include <assert.h>
#include <string.h>

#include "base/names.h"

#define HOPS_MAX 2 /* of a mark: so a third server is the last one (I7) */

HF_NAMES(hf_sip_role_name, enum hf_sip_role, HF_SIP_ROLE_LIST)
HF_NAMES(hf_sip_policy_name, enum hf_sip_policy, HF_SIP_POLICY_LIST)
HF_NAMES(hf_sip_action_name, enum hf_sip_action, HF_SIP_ACTION_LIST)

/* ---- the rules ---- */

/* Seconds of Retry-After: short where something is about to change, longer where load is. */
struct patience {
    uint8_t min, max;
};

struct rule {
    const char *name, *text;
    enum hf_sip_action action;
    uint16_t status;
};

static const struct rule rules[] = {
#define RULE(id, action, status, text) {#id, text, HF_SIP_##action, status},
    HF_SIP_RULE_LIST(RULE)
#undef RULE
};

static const struct patience patience[HF_SIP_RULE_COUNT_] = {
    [HF_SIP_RULE_OVERLOADED] = {5, 30}, [HF_SIP_RULE_NO_TABLE] = {5, 20},
    [HF_SIP_RULE_NO_SERVER] = {5, 20},  [HF_SIP_RULE_GONE] = {1, 4},
    [HF_SIP_RULE_LAST_HOP] = {1, 4},    [HF_SIP_RULE_NOT_NOW] = {5, 30},
};

const char *hf_sip_rule_name(enum hf_sip_rule r)
{
    return (unsigned)r < HF_SIP_RULE_COUNT_ ? rules[r].name : "?";
}

const char *hf_sip_rule_text(enum hf_sip_rule r)
{
    return (unsigned)r < HF_SIP_RULE_COUNT_ ? rules[r].text : "?";
}

unsigned hf_sip_retry_after(uint32_t random, unsigned min, unsigned max)
{
    return min + (unsigned)(((uint64_t)random * (max - min + 1)) >> 32);
}

static void give(const struct hf_sip_facts *f, enum hf_sip_rule r, struct hf_sip_verdict *v)
{
    *v = (struct hf_sip_verdict){
        .action = rules[r].action,
        .rule = r,
        .status = rules[r].status,
        .target = HF_SIP_NONE,
        .backup = HF_SIP_NONE,
        .epoch = f->have_row ? f->row.epoch : 0,
    };
    if (v->status == 503) {
        v->retry_after = hf_sip_retry_after(f->random, patience[r].min, patience[r].max);
    }
}

/* ---- what the conditions of the table mean ---- */

/* Of an authenticated peer only (I8). */
static unsigned hop(const struct hf_sip_facts *f)
{
    return f->from_peer ? f->mark.hop : 0;
}

static uint64_t peer_epoch(const struct hf_sip_facts *f)
{
    return hop(f) > 0 && f->mark.epoch < INT64_MAX ? f->mark.epoch : 0;
}

/* Came from the client itself (D4), not through an edge (D5). */
static bool internal(const struct hf_sip_facts *f)
{
    return f->role != HF_SIP_ROLE_EDGE && !f->from_edge && !f->from_peer && f->n_via == 1;
}

static bool must_ask(const struct hf_sip_facts *f)
{
    return f->must_authenticate && !f->authenticated;
}

static bool may_read(const struct hf_sip_facts *f)
{
    return !f->read && !f->away;
}

static enum hf_sip_agent agent(const struct hf_sip_facts *f)
{
    return f->have_row && f->row.agent_id == f->agent_id ? f->row.agent : HF_SIP_AGENT_UNKNOWN;
}

/* Is this what a redirect, or its refusal, has taught us to wait for? */
static bool offers_apply(const struct hf_sip_facts *f)
{
    return f->kind == HF_SIP_KIND_REGISTER &&
           (hop(f) > 0 ? f->mark.offer : internal(f) && f->policy == HF_SIP_POLICY_AUTO);
}

static bool redirects(const struct hf_sip_facts *f)
{
    return internal(f) && (f->policy == HF_SIP_POLICY_REDIRECT ||
                           (offers_apply(f) && agent(f) == HF_SIP_AGENT_FOLLOWS));
}

static bool target_alive(const struct hf_sip_facts *f)
{
    return f->row.current != f->self && hf_sip_fleet_alive(f->fleet, f->row.current);
}

static bool in_doubt(const struct hf_sip_facts *f)
{
    bool stale = f->carried > 0 && f->carried >= f->row.epoch;
    return hop(f) > 0 || f->redirected || stale || !target_alive(f);
}

static bool sheds(const struct hf_sip_facts *f)
{
    return f->shed == HF_SIP_SHED_ALL || (f->shed == HF_SIP_SHED_NEW && !f->credentials);
}

/* ---- the three parts of the table ---- */

static void proxy(const struct hf_sip_facts *f, enum hf_sip_rule r, uint16_t target, uint8_t to_hop,
                  struct hf_sip_verdict *v)
{
    if (f->max_forwards == 0) {
        give(f, HF_SIP_RULE_NO_HOPS, v);
        return;
    }
    give(f, r, v);
    v->target = target;
    v->mark = (struct hf_sip_mark){.hop = to_hop,
                                   .epoch = v->epoch,
                                   .offer = offers_apply(f),
                                   .fresh = f->authenticated || (hop(f) > 0 && f->mark.fresh)};
}

static void redirect(const struct hf_sip_facts *f, enum hf_sip_rule r, uint16_t target,
                     struct hf_sip_verdict *v)
{
    give(f, r, v);
    v->target = target;
    v->backup = hf_sip_fleet_backup(f->fleet, f->aor, target);
}

static void without_row(const struct hf_sip_facts *f, struct hf_sip_verdict *v)
{
    if (must_ask(f)) {
        give(f, HF_SIP_RULE_ASK_FIRST, v);
        return;
    }
    if (f->away || !f->read) {
        give(f, f->away ? HF_SIP_RULE_NO_TABLE : HF_SIP_RULE_LOOK_UP, v);
        return;
    }
    if (f->kind != HF_SIP_KIND_REGISTER && !(f->kind == HF_SIP_KIND_STATE && f->user_known)) {
        give(f, HF_SIP_RULE_NO_USER, v);
        return;
    }
    uint16_t to = hf_sip_fleet_choose(f->fleet, f->aor);
    if (to == HF_SIP_NONE) {
        give(f, HF_SIP_RULE_NO_SERVER, v);
    } else if (f->role == HF_SIP_ROLE_EDGE && hop(f) >= HOPS_MAX) {
        give(f, HF_SIP_RULE_LAST_HOP, v);
    } else if (f->role == HF_SIP_ROLE_EDGE) {
        proxy(f, HF_SIP_RULE_EDGE_PASSES, to, (uint8_t)(hop(f) + 1), v);
    } else {
        give(f, HF_SIP_RULE_GIVE_HOME, v);
        v->target = to;
        v->epoch =
            peer_epoch(f) + 1; /* not older than what a peer remembers of a row that is gone */
    }
}

/* What a client did with an offer: it came here by itself, or the old way again. */
static void learn(const struct hf_sip_facts *f, struct hf_sip_verdict *v)
{
    if (!offers_apply(f)) {
        return;
    }
    if (hop(f) == 0 && f->carried > 0 && agent(f) != HF_SIP_AGENT_FOLLOWS) {
        v->learn = true;
        v->agent = HF_SIP_AGENT_FOLLOWS;
    } else if (hop(f) > 0 && agent(f) == HF_SIP_AGENT_OFFERED) {
        v->learn = true;
        v->agent = HF_SIP_AGENT_IGNORES;
    }
}

static void mine(const struct hf_sip_facts *f, struct hf_sip_verdict *v)
{
    if (must_ask(f)) {
        give(f, HF_SIP_RULE_MINE_ASK, v);
    } else if (peer_epoch(f) > f->row.epoch && may_read(f)) {
        give(f, HF_SIP_RULE_MINE_OLD, v);
    } else if (hop(f) == 1 && offers_apply(f) && agent(f) == HF_SIP_AGENT_UNKNOWN &&
               f->binding_left > 0 && f->binding_left >= f->binding_life - f->binding_left) {
        redirect(f, HF_SIP_RULE_MINE_OFFER, f->self, v);
        v->learn = true;
        v->agent = HF_SIP_AGENT_OFFERED;
    } else {
        give(f, HF_SIP_RULE_MINE, v);
        learn(f, v);
    }
}

/* A REGISTER for a server that wants none now. */
static bool unwelcome(const struct hf_sip_facts *f)
{
    return f->kind == HF_SIP_KIND_REGISTER && hf_sip_fleet_get(f->fleet, f->row.current)->busy;
}

static void anothers(const struct hf_sip_facts *f, struct hf_sip_verdict *v)
{
    bool plain = !in_doubt(f) && !unwelcome(f) && !redirects(f);
    if (!plain && must_ask(f)) {
        give(f, HF_SIP_RULE_AWAY_ASK, v);
    } else if (in_doubt(f) && may_read(f)) {
        give(f, HF_SIP_RULE_DOUBT, v);
    } else if (f->role == HF_SIP_ROLE_HOME && f->away && peer_epoch(f) > f->row.epoch) {
        give(f, HF_SIP_RULE_MINE_BY_PEER, v);
        v->epoch = peer_epoch(f);
    } else if (!target_alive(f)) {
        give(f, HF_SIP_RULE_GONE, v);
    } else if (hop(f) >= HOPS_MAX) {
        give(f, HF_SIP_RULE_LAST_HOP, v);
    } else if (unwelcome(f)) {
        give(f, HF_SIP_RULE_NOT_NOW, v);
    } else if (hop(f) > 0 || f->redirected) {
        proxy(f, HF_SIP_RULE_SECOND, f->row.current, HOPS_MAX, v);
    } else if (redirects(f)) {
        redirect(f, HF_SIP_RULE_AWAY_REDIRECT, f->row.current, v);
    } else {
        proxy(f, HF_SIP_RULE_AWAY_PROXY, f->row.current, 1, v);
    }
}

void hf_sip_decide(const struct hf_sip_facts *f, struct hf_sip_verdict *ret_verdict)
{
    assert(f->role < HF_SIP_ROLE_COUNT_ && f->fleet != NULL);
    if (f->kind == HF_SIP_KIND_DIALOG) {
        give(f, HF_SIP_RULE_ROUTE, ret_verdict);
    } else if (f->n_via == 0) {
        give(f, HF_SIP_RULE_NO_VIA, ret_verdict);
    } else if (sheds(f)) {
        give(f, HF_SIP_RULE_OVERLOADED, ret_verdict);
        if (f->from_edge && f->role != HF_SIP_ROLE_EDGE && f->shed != HF_SIP_SHED_ALL) {
            ret_verdict->status = 500; /* this one; 503 is for all that the edge has (21.5.4) */
        }
    } else if (!f->have_row) {
        without_row(f, ret_verdict);
    } else if (f->role == HF_SIP_ROLE_HOME && f->row.current == f->self) {
        mine(f, ret_verdict);
    } else {
        anothers(f, ret_verdict);
    }
}
