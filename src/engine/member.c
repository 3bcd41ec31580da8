/* A member of the embedded engine: receives, applies, delivers, and finds its way to a new
 * sequencer. */
#include "engine/member.h"

#include <assert.h>
#include <errno.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/name.h"

#define INBOX_MAX 1024u
#define ACK_EVERY (HF_ORDER_WINDOW / 4)

static struct hf_order_item *item(struct hf_list *l)
{
    return HF_CONTAINER_OF(l, struct hf_order_item, node);
}

static void forget(struct hf_member *m)
{
    hf_order_drop(&m->inbox);
    hf_order_drop(&m->history);
    hf_order_drop(&m->pend);
    m->unsent = &m->pend;
    memset(&m->st, 0, sizeof(m->st));
    m->since = m->seq = m->got = m->stable = 0;
    m->n_inbox = m->n_pend = m->n_unacked = m->n_groups = 0;
    m->doubt = m->announce = false;
    m->lost = 0;
}

void hf_member_init(struct hf_member *m, const struct hf_member_opt *opt)
{
    memset(m, 0, sizeof(*m));
    m->opt = *opt;
    hf_list_init(&m->inbox);
    hf_list_init(&m->history);
    hf_list_init(&m->pend);
    forget(m);
}

void hf_member_fini(struct hf_member *m)
{
    forget(m);
    m->state = HF_MEMBER_DOWN;
}

static int send_frame(struct hf_member *m, const struct hf_engine_v1_frame *f)
{
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, m->buf, sizeof(m->buf));
    hf_engine_v1_encode(&w, f);
    int rc = hf_wr_end(&w, &s);
    return rc ? rc : m->opt.send(m->opt.io_arg, s);
}

static int send_beat(struct hf_member *m)
{
    int rc = send_frame(m, &(struct hf_engine_v1_frame){.type = HF_ENGINE_V1_BEAT,
                                                        .ord = m->st.ord,
                                                        .seq = m->doubt ? m->probe : 0});
    if (rc == 0) {
        m->n_unacked = 0;
    }
    return rc;
}

/* What a survivor brings: the state it has reached and the events that others may lack. */
static int send_past(struct hf_member *m)
{
    struct hf_wr w;
    uint8_t data[HF_ENGINE_V1_FRAME_MAX - 1];
    struct hf_engine_v1_frame f = {.type = HF_ENGINE_V1_STATE};
    hf_wr_init(&w, data, sizeof(data));
    hf_engine_v1_state_encode(&w, &m->st);
    int rc = hf_wr_end(&w, &f.data);
    if (rc == 0) {
        rc = send_frame(m, &f);
    }
    for (struct hf_list *l = m->history.next; l != &m->history && rc == 0; l = l->next) {
        f = item(l)->f;
        f.stable = m->stable;
        rc = send_frame(m, &f);
    }
    return rc;
}

int hf_member_attach(struct hf_member *m, hf_time now)
{
    assert(m->state == HF_MEMBER_DOWN);
    hf_order_drop(&m->inbox);
    m->n_inbox = 0;
    m->state = HF_MEMBER_GREETED;
    m->got = m->st.ord;
    m->unsent = m->pend.next;
    m->heard = now;
    m->beat_at = now + m->opt.silence / 4;
    int rc = send_frame(m, &(struct hf_engine_v1_frame){.type = HF_ENGINE_V1_HELLO,
                                                        .version = HF_ENGINE_V1_VERSION,
                                                        .node = m->opt.node_id,
                                                        .since = m->since,
                                                        .ord = m->st.ord,
                                                        .host = hf_slice_str(m->opt.host)});
    if (rc == 0 && m->st.ord) {
        rc = send_past(m);
    }
    if (rc == 0) {
        rc = send_frame(m, &(struct hf_engine_v1_frame){.type = HF_ENGINE_V1_READY});
    }
    return rc;
}

void hf_member_detach(struct hf_member *m)
{
    m->state = HF_MEMBER_DOWN;
    if (m->st.ord && m->since == 0) { /* given a state, but never made a member */
        memset(&m->st, 0, sizeof(m->st));
    }
}

static void trim(struct hf_member *m, uint64_t stable)
{
    if (stable > m->stable && stable <= m->st.ord) {
        m->stable = stable;
    }
    HF_LIST_FOREACH (l, &m->history) {
        if (item(l)->f.ord > m->stable) {
            break;
        }
        hf_list_unlink(l);
        hf_free(item(l));
    }
}

static int input_state(struct hf_member *m, struct hf_slice data)
{
    struct hf_engine_v1_state *st = &m->before;
    int rc = hf_engine_v1_state_decode(data, st);
    if (rc) {
        return rc;
    }
    if (m->st.ord || m->state != HF_MEMBER_GREETED || hf_order_slot(st, m->opt.node_id) < 0) {
        return -HF_EPROTO;
    }
    m->st = *st;
    m->got = m->stable = st->ord;
    return 0;
}

static int input_event(struct hf_member *m, const struct hf_engine_v1_frame *f)
{
    if (f->ord <= m->got || m->st.ord == 0 || m->n_inbox >= INBOX_MAX) {
        return -HF_EPROTO;
    }
    struct hf_order_item *it = hf_order_keep(f);
    if (!it) {
        return -ENOMEM;
    }
    hf_list_insert(&m->inbox, &it->node);
    m->n_inbox++;
    m->got = f->ord;
    return 0;
}

static int input_ready(struct hf_member *m)
{
    if (m->state != HF_MEMBER_GREETED || m->st.ord == 0) {
        return -HF_EPROTO;
    }
    if (m->since == 0) {
        m->since = m->st.slot[hf_order_slot(&m->st, m->opt.node_id)].since;
        m->announce = true;
    }
    m->state = HF_MEMBER_UP;
    m->doubt = false;
    return 0;
}

int hf_member_input(struct hf_member *m, struct hf_slice in, hf_time now)
{
    struct hf_engine_v1_frame f;
    int rc = hf_engine_v1_decode(in, &f);
    if (rc) {
        return rc;
    }
    if (m->state == HF_MEMBER_DOWN) {
        return -HF_EPROTO;
    }
    m->heard = now;
    switch ((enum hf_engine_v1_type)f.type) {
    case HF_ENGINE_V1_STATE:
        return input_state(m, f.data);
    case HF_ENGINE_V1_EVENT:
        return input_event(m, &f);
    case HF_ENGINE_V1_READY:
        return input_ready(m);
    case HF_ENGINE_V1_BEAT:
        trim(m, f.ord);
        if (m->doubt && f.seq == m->probe) {
            m->doubt = false;
        }
        return 0;
    case HF_ENGINE_V1_REFUSE:
        if (m->since) { /* the others went on without us */
            m->lost = -HF_ELEFT;
        }
        return f.code < 0 ? f.code : -HF_EPROTO;
    case HF_ENGINE_V1_HELLO:
    case HF_ENGINE_V1_SEND:
        break;
    }
    return -HF_EPROTO;
}

static bool quorate(const struct hf_member *m)
{
    unsigned n = (unsigned)__builtin_popcountll(hf_order_nodes(&m->st));
    return n >= m->opt.expected_votes / 2 + 1 || m->opt.expected_votes <= 1;
}

static void call_quorum(struct hf_member *m)
{
    if (m->opt.cb.quorum) {
        m->opt.cb.quorum(m->opt.cb_arg, quorate(m), m->st.ord);
    }
}

/* The nodes of mask by id, ascending. */
static size_t list_members(const struct hf_engine_v1_state *st, uint64_t mask,
                           struct hf_engine_member *to)
{
    size_t n = 0;
    for (unsigned i = 0; i < HF_ENGINE_V1_NODES_MAX; i++) {
        if (!(mask >> i & 1)) {
            continue;
        }
        size_t at = n++;
        while (at > 0 && to[at - 1].node_id > st->slot[i].id) {
            to[at] = to[at - 1];
            at--;
        }
        to[at] = (struct hf_engine_member){.node_id = st->slot[i].id};
        memcpy(to[at].host, st->slot[i].host, sizeof(to[at].host));
    }
    return n;
}

/* Call view for one group, if we are concerned and its members changed by ev. */
static void call_view(struct hf_member *m, const char *name, const struct hf_engine_v1_frame *ev)
{
    const struct hf_engine_v1_group *old = hf_order_group(&m->before, hf_slice_str(name));
    const struct hf_engine_v1_group *new = hf_order_group(&m->st, hf_slice_str(name));
    uint64_t was = old ? old->members : 0, is = new ? new->members : 0;
    int me = hf_order_slot(&m->st, m->opt.node_id);
    if (was == is || me < 0 || !((was | is) >> me & 1) || !m->opt.cb.view) {
        return;
    }
    struct hf_engine_member member[HF_ENGINE_MEMBERS_MAX], left[HF_ENGINE_MEMBERS_MAX];
    struct hf_engine_view v = {.ring = m->st.ord, .member = member, .left = left};
    v.n_members = list_members(&m->st, is, member);
    v.n_left = list_members(&m->before, was & ~is, left);
    for (size_t i = 0; i < v.n_left; i++) {
        uint64_t bit = 1ULL << hf_order_slot(&m->before, left[i].node_id);
        left[i].left = ev->kind != HF_ENGINE_V1_RING ? HF_ENGINE_LEFT
                       : ev->silent & bit            ? HF_ENGINE_NODEDOWN
                                                     : HF_ENGINE_PROCDOWN;
    }
    m->opt.cb.view(m->opt.cb_arg, name, &v);
}

static void call_change(struct hf_member *m, const struct hf_engine_v1_frame *ev)
{
    call_quorum(m);
    for (unsigned i = 0; i < m->before.n_groups; i++) {
        call_view(m, m->before.group[i].name, ev);
    }
    for (unsigned i = 0; i < m->st.n_groups; i++) {
        if (!hf_order_group(&m->before, hf_slice_str(m->st.group[i].name))) {
            call_view(m, m->st.group[i].name, ev);
        }
    }
}

/* Our own request came back in order: it need not be sent again. */
static void settle(struct hf_member *m, uint64_t seq)
{
    struct hf_list *l = m->pend.next;
    if (l != &m->pend && item(l)->f.seq == seq) {
        if (m->unsent == l) {
            m->unsent = l->next;
        }
        hf_list_unlink(l);
        hf_free(item(l));
        m->n_pend--;
    }
}

/* Apply and deliver one event; it becomes history. */
static int deliver(struct hf_member *m, struct hf_order_item *it)
{
    const struct hf_engine_v1_frame *ev = &it->f;
    bool sent = ev->kind <= HF_ENGINE_V1_LEAVE, mine = ev->node == m->opt.node_id;
    if (ev->kind != HF_ENGINE_V1_MSG) {
        m->before = m->st;
    }
    int rc = hf_order_apply(&m->st, ev);
    if (rc) {
        hf_free(it);
        return rc;
    }
    hf_list_insert(&m->history, &it->node);
    m->n_unacked += ev->kind == HF_ENGINE_V1_MSG ? 1 : ACK_EVERY;
    if (sent && mine) {
        settle(m, ev->seq);
    }
    int me = hf_order_slot(&m->st, m->opt.node_id);
    if (me < 0) {
        return -HF_ELEFT;
    }
    if (ev->kind != HF_ENGINE_V1_MSG) {
        call_change(m, ev);
        return ev->kind == HF_ENGINE_V1_JOIN && mine && !hf_order_is_member(&m->st, me, ev->group)
                   ? -HF_EFULL
                   : 0;
    }
    const struct hf_engine_v1_group *g = hf_order_group(&m->st, ev->group);
    if (g && g->members >> me & 1 &&
        hf_order_is_member(&m->st, hf_order_slot(&m->st, ev->node), ev->group) &&
        m->opt.cb.message) {
        m->opt.cb.message(m->opt.cb_arg, g->name, ev->node, ev->data);
    }
    return 0;
}

static int flush(struct hf_member *m)
{
    int rc = 0;
    while (m->state == HF_MEMBER_UP && m->unsent != &m->pend && rc == 0) {
        struct hf_engine_v1_frame f = item(m->unsent)->f;
        f.ord = m->st.ord;
        rc = send_frame(m, &f);
        if (rc == 0) {
            m->unsent = m->unsent->next;
        }
    }
    return rc == -EAGAIN ? 0 : rc;
}

bool hf_member_ready(const struct hf_member *m)
{
    return m->lost || (!m->doubt && (m->announce || m->n_inbox));
}

int hf_member_pump(struct hf_member *m)
{
    if (m->announce && !m->doubt && !m->lost) {
        m->announce = false;
        call_quorum(m);
    }
    while (m->n_inbox && !m->doubt && !m->lost) {
        struct hf_list *l = m->inbox.next;
        hf_list_unlink(l);
        m->n_inbox--;
        uint64_t stable = item(l)->f.stable;
        m->lost = deliver(m, item(l));
        if (!m->lost) {
            trim(m, stable);
        }
    }
    if (m->lost) {
        int rc = m->lost;
        forget(m);
        m->state = HF_MEMBER_DOWN;
        if (m->opt.cb.lost) {
            m->opt.cb.lost(m->opt.cb_arg, rc);
        }
        return rc;
    }
    int rc = flush(m);
    if (rc == 0 && m->state == HF_MEMBER_UP && m->n_unacked >= ACK_EVERY) {
        rc = send_beat(m);
    }
    return rc == -EAGAIN ? 0 : rc;
}

int hf_member_tick(struct hf_member *m, hf_time now)
{
    if (m->state == HF_MEMBER_DOWN || m->opt.silence == 0) {
        return 0;
    }
    if (now - m->heard > m->opt.silence) {
        return -HF_ETIMEOUT;
    }
    if (now >= m->beat_at) {
        m->beat_at = now + m->opt.silence / 4;
        int rc = send_beat(m);
        return rc == -EAGAIN ? 0 : rc;
    }
    return 0;
}

hf_time hf_member_deadline(const struct hf_member *m)
{
    if (m->state == HF_MEMBER_DOWN || m->opt.silence == 0) {
        return HF_NEVER;
    }
    return hf_time_min(m->beat_at, m->heard + m->opt.silence + 1);
}

void hf_member_gap(struct hf_member *m, hf_time now)
{
    m->heard = m->beat_at = now;
    if (m->since) {
        m->doubt = true;
        m->probe++;
    }
}

static int find_joined(const struct hf_member *m, const char *group)
{
    for (unsigned i = 0; i < m->n_groups; i++) {
        if (strcmp(m->group[i], group) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static int request(struct hf_member *m, uint8_t kind, const char *group, struct hf_slice data)
{
    if (m->n_pend >= HF_ORDER_SENDS_MAX) {
        return -HF_EFULL;
    }
    struct hf_engine_v1_frame f = {.type = HF_ENGINE_V1_SEND,
                                   .kind = kind,
                                   .node = m->opt.node_id,
                                   .seq = m->seq + 1,
                                   .group = hf_slice_str(group),
                                   .data = data};
    struct hf_order_item *it = hf_order_keep(&f);
    if (!it) {
        return -ENOMEM;
    }
    m->seq++;
    m->n_pend++;
    hf_list_insert(&m->pend, &it->node);
    if (m->unsent == &m->pend) {
        m->unsent = &it->node;
    }
    (void)flush(m); /* a dead link is found by its owner; the request is sent again after that */
    return 0;
}

int hf_member_join(struct hf_member *m, const char *group)
{
    if (!hf_word_ok(hf_slice_str(group), HF_ENGINE_GROUP_NAME_MAX)) {
        return -HF_ENAME;
    }
    if (find_joined(m, group) >= 0) {
        return -EALREADY;
    }
    if (m->n_groups == HF_ENGINE_V1_GROUPS_MAX) {
        return -HF_EFULL;
    }
    int rc = request(m, HF_ENGINE_V1_JOIN, group, hf_slice(NULL, 0));
    if (rc == 0) {
        memcpy(m->group[m->n_groups++], group, strlen(group) + 1);
    }
    return rc;
}

int hf_member_leave(struct hf_member *m, const char *group)
{
    int i = find_joined(m, group);
    if (i < 0) {
        return -HF_ELEFT;
    }
    int rc = request(m, HF_ENGINE_V1_LEAVE, group, hf_slice(NULL, 0));
    if (rc == 0) {
        memcpy(m->group[i], m->group[--m->n_groups], sizeof(m->group[0]));
    }
    return rc;
}

int hf_member_multicast(struct hf_member *m, const char *group, struct hf_slice msg)
{
    if (find_joined(m, group) < 0) {
        return -HF_ELEFT;
    }
    if (msg.n > HF_ENGINE_MSG_MAX) {
        return -EMSGSIZE;
    }
    return request(m, HF_ENGINE_V1_MSG, group, msg);
}
