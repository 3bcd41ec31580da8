/* The sequencer of an embedded engine: collects survivors, forms a ring, orders and fans out. */
#include "engine/sequencer.h"

#include <assert.h>
#include <errno.h>

#include "base/err.h"
#include "base/mem.h"

#define HISTORY_MAX 1024u

/* What a survivor brings from the generation before. */
struct hf_sequencer_past {
    struct hf_engine_v1_state st;
    struct hf_list history;
    unsigned n_history;
    uint64_t from; /* the history holds all that is after this */
};

static struct hf_order_item *item(struct hf_list *l)
{
    return HF_CONTAINER_OF(l, struct hf_order_item, node);
}

static void past_destroy(struct hf_sequencer_past *p)
{
    if (p) {
        hf_order_drop(&p->history);
        hf_free(p);
    }
}

void hf_sequencer_init(struct hf_sequencer *s, const struct hf_sequencer_opt *opt, hf_time now)
{
    memset(s, 0, sizeof(*s));
    s->opt = *opt;
    s->collect_end = opt->collect ? now + opt->silence / 2 : now;
    s->beat_at = now;
    hf_list_init(&s->pending);
}

void hf_sequencer_fini(struct hf_sequencer *s)
{
    hf_order_drop(&s->pending);
    past_destroy(s->best);
    s->best = NULL;
    for (unsigned i = 0; i < HF_SEQUENCER_LINKS_MAX; i++) {
        past_destroy(s->link[i].past);
        memset(&s->link[i], 0, sizeof(s->link[i]));
    }
}

int hf_sequencer_open(struct hf_sequencer *s, hf_time now, unsigned *ret_link)
{
    for (unsigned i = 0; i < HF_SEQUENCER_LINKS_MAX; i++) {
        if (s->link[i].state == HF_LINK_FREE) {
            s->link[i] = (struct hf_link){.state = HF_LINK_NEW, .heard = now};
            *ret_link = i;
            return 0;
        }
    }
    return -HF_EFULL;
}

static void send_frame(struct hf_sequencer *s, struct hf_link *k,
                       const struct hf_engine_v1_frame *f)
{
    struct hf_wr w;
    struct hf_slice out;
    hf_wr_init(&w, s->buf, sizeof(s->buf));
    hf_engine_v1_encode(&w, f);
    if (!k->broken &&
        (hf_wr_end(&w, &out) != 0 || s->opt.send(s->opt.arg, (unsigned)(k - s->link), out) != 0)) {
        k->broken = k->silent = true; /* does not read: as good as stopped */
    }
}

static void refuse(struct hf_sequencer *s, struct hf_link *k, int code)
{
    send_frame(s, k, &(struct hf_engine_v1_frame){.type = HF_ENGINE_V1_REFUSE, .code = code});
    k->broken = true;
}

/* Up to where every node has applied. */
static uint64_t stable(const struct hf_sequencer *s)
{
    uint64_t min = s->st.ord;
    for (unsigned i = 0; i < HF_SEQUENCER_LINKS_MAX; i++) {
        if (s->link[i].state == HF_LINK_UP && s->link[i].ack < min) {
            min = s->link[i].ack;
        }
    }
    return min;
}

/* Give ev its place, apply it, and send it to all nodes. */
static void emit(struct hf_sequencer *s, struct hf_engine_v1_frame *ev)
{
    ev->type = HF_ENGINE_V1_EVENT;
    ev->stable = stable(s);
    ev->ord = s->st.ord + 1;
    uint64_t first = s->opt.generation << HF_ENGINE_V1_GEN_SHIFT;
    if (ev->ord < first) {
        ev->ord = first;
    }
    int rc = hf_order_apply(&s->st, ev);
    assert(rc == 0); /* only what can follow is ordered */
    for (unsigned i = 0; i < HF_SEQUENCER_LINKS_MAX; i++) {
        if (s->link[i].state == HF_LINK_UP) {
            send_frame(s, &s->link[i], ev);
        }
    }
}

/* Make a newcomer a node: the others see UP, it gets the state that follows from it. */
static void welcome(struct hf_sequencer *s, struct hf_link *k)
{
    bool full = ~hf_order_nodes(&s->st) == 0;
    if (full || hf_order_slot(&s->st, k->node) >= 0) {
        refuse(s, k, full ? -HF_EFULL : -HF_EHELD);
        return;
    }
    emit(s, &(struct hf_engine_v1_frame){
                .kind = HF_ENGINE_V1_UP, .node = k->node, .host = hf_slice_str(k->host)});
    struct hf_wr w;
    uint8_t data[HF_ENGINE_V1_FRAME_MAX - 1];
    struct hf_engine_v1_frame f = {.type = HF_ENGINE_V1_STATE};
    hf_wr_init(&w, data, sizeof(data));
    hf_engine_v1_state_encode(&w, &s->st);
    int rc = hf_wr_end(&w, &f.data);
    assert(rc == 0); /* FRAME_MAX has room for a full state */
    send_frame(s, k, &f);
    send_frame(s, k,
               &(struct hf_engine_v1_frame){.type = HF_ENGINE_V1_READY, .ord = s->opt.generation});
    k->state = HF_LINK_UP;
    k->ack = s->st.ord;
    k->seq = 0;
}

static struct hf_link *link_of(struct hf_sequencer *s, uint32_t node)
{
    for (unsigned i = 0; i < HF_SEQUENCER_LINKS_MAX; i++) {
        if (s->link[i].state == HF_LINK_UP && s->link[i].node == node) {
            return &s->link[i];
        }
    }
    return NULL;
}

/* Bring a survivor to where the most advanced one is; false if it can't be one. */
static bool resume(struct hf_sequencer *s, struct hf_link *k)
{
    int slot = hf_order_slot(&s->st, k->node);
    if (!s->best || slot < 0 || link_of(s, k->node) || s->st.slot[slot].since != k->since ||
        k->ack < s->best->from) {
        return false;
    }
    for (struct hf_list *l = s->best->history.next; l != &s->best->history; l = l->next) {
        if (item(l)->f.ord > k->ack) {
            send_frame(s, k, &item(l)->f);
        }
    }
    send_frame(s, k,
               &(struct hf_engine_v1_frame){.type = HF_ENGINE_V1_READY, .ord = s->opt.generation});
    k->state = HF_LINK_UP;
    k->seq = s->st.slot[slot].seq;
    return true;
}

static void form(struct hf_sequencer *s)
{
    s->formed = true;
    if (s->best) {
        s->st = s->best->st;
    }
    uint64_t gone = hf_order_nodes(&s->st), silent = UINT64_MAX;
    for (unsigned i = 0; i < HF_SEQUENCER_LINKS_MAX; i++) {
        struct hf_link *k = &s->link[i];
        if (k->state == HF_LINK_WAIT && !k->broken && k->since) {
            if (resume(s, k)) {
                gone &= ~(1ULL << hf_order_slot(&s->st, k->node));
            } else {
                refuse(s, k, -HF_ELEFT);
            }
        }
    }
    int old = hf_order_slot(&s->st, s->st.node);
    if (old >= 0 && !s->opt.stopped) {
        silent &= ~(1ULL << old); /* its lock was free: that process is dead */
    }
    emit(s, &(struct hf_engine_v1_frame){.kind = HF_ENGINE_V1_RING,
                                         .node = s->opt.node_id,
                                         .gone = gone,
                                         .silent = gone & silent});
    past_destroy(s->best);
    s->best = NULL;
    for (unsigned i = 0; i < HF_SEQUENCER_LINKS_MAX; i++) {
        if (s->link[i].state == HF_LINK_WAIT && !s->link[i].broken) {
            welcome(s, &s->link[i]);
        }
    }
}

/* Is everyone here that the most advanced survivor knew, but for the sequencer of that time? */
static bool complete(const struct hf_sequencer *s)
{
    for (unsigned i = 0; s->best && i < HF_ENGINE_V1_NODES_MAX; i++) {
        const struct hf_engine_v1_node *n = &s->best->st.slot[i];
        bool here = n->id == 0 || n->id == s->best->st.node;
        for (unsigned j = 0; j < HF_SEQUENCER_LINKS_MAX && !here; j++) {
            here = s->link[j].state == HF_LINK_WAIT && s->link[j].node == n->id &&
                   s->link[j].since == n->since;
        }
        if (!here) {
            return false;
        }
    }
    return s->best;
}

static bool anyone_waits(const struct hf_sequencer *s)
{
    for (unsigned i = 0; i < HF_SEQUENCER_LINKS_MAX; i++) {
        if (s->link[i].state == HF_LINK_WAIT) {
            return true;
        }
    }
    return false;
}

static void drop_pending(struct hf_sequencer *s, uint32_t node)
{
    HF_LIST_FOREACH (l, &s->pending) {
        if (item(l)->f.node == node) {
            hf_list_unlink(l);
            hf_free(item(l));
        }
    }
}

/* Close broken links; those that were nodes leave the ring, all in one event. */
static bool sweep(struct hf_sequencer *s)
{
    uint64_t gone = 0, silent = 0;
    for (unsigned i = 0; i < HF_SEQUENCER_LINKS_MAX; i++) {
        struct hf_link *k = &s->link[i];
        if (k->state == HF_LINK_FREE || !k->broken) {
            continue;
        }
        if (k->state == HF_LINK_UP) {
            uint64_t bit = 1ULL << hf_order_slot(&s->st, k->node);
            gone |= bit;
            silent |= k->silent ? bit : 0;
            drop_pending(s, k->node);
        }
        past_destroy(k->past);
        memset(k, 0, sizeof(*k));
        s->opt.close(s->opt.arg, i);
    }
    if (gone) {
        emit(s, &(struct hf_engine_v1_frame){.kind = HF_ENGINE_V1_RING,
                                             .node = s->opt.node_id,
                                             .gone = gone,
                                             .silent = silent});
    }
    return gone != 0;
}

/* After every input: form if it is time, order what the window allows, close what broke. */
static void settle(struct hf_sequencer *s, hf_time now)
{
    if (!s->formed && (complete(s) || (now >= s->collect_end && anyone_waits(s)))) {
        form(s);
    }
    while (sweep(s)) {
    }
    while (!hf_list_empty(&s->pending) && s->st.ord - stable(s) < HF_ORDER_WINDOW) {
        struct hf_order_item *it = item(s->pending.next);
        struct hf_link *k = link_of(s, it->f.node);
        hf_list_unlink(&it->node);
        if (k) {
            k->n_pending--;
            emit(s, &it->f);
        }
        hf_free(it);
        while (sweep(s)) {
        }
    }
}

static int input_hello(struct hf_sequencer *s, struct hf_link *k,
                       const struct hf_engine_v1_frame *f)
{
    k->node = f->node;
    k->since = f->since;
    k->ack = f->ord;
    memcpy(k->host, f->host.p, f->host.n);
    k->host[f->host.n] = '\0';
    k->state = HF_LINK_GREETED;
    return s->formed && k->since ? -HF_ELEFT : 0; /* the ring was formed without it */
}

/* A survivor tells its past: first the state, then the events before it. */
static int input_past(struct hf_sequencer *s, struct hf_link *k, const struct hf_engine_v1_frame *f)
{
    if (s->formed || k->since == 0) {
        return -HF_EPROTO;
    }
    if (f->type == HF_ENGINE_V1_STATE) {
        struct hf_sequencer_past *p = k->past ? NULL : hf_alloc(sizeof(*p));
        if (!p) {
            return k->past ? -HF_EPROTO : -ENOMEM;
        }
        k->past = p;
        hf_list_init(&p->history);
        int rc = hf_engine_v1_state_decode(f->data, &p->st);
        p->from = p->st.ord;
        return rc || p->st.ord == k->ack ? rc : -HF_EPROTO;
    }
    struct hf_sequencer_past *p = k->past;
    uint64_t last = !p                           ? UINT64_MAX
                    : hf_list_empty(&p->history) ? f->stable
                                                 : item(p->history.prev)->f.ord;
    if (f->ord <= last || f->ord > k->ack || p->n_history >= HISTORY_MAX) {
        return -HF_EPROTO;
    }
    struct hf_order_item *it = hf_order_keep(f);
    if (!it) {
        return -ENOMEM;
    }
    if (p->n_history++ == 0) {
        p->from = f->stable;
    }
    hf_list_insert(&p->history, &it->node);
    return 0;
}

static int input_ready(struct hf_sequencer *s, struct hf_link *k)
{
    if (k->since) {
        /* its generation must be older than ours, or our own events would not follow it */
        if (s->formed || !k->past || k->ack >> HF_ENGINE_V1_GEN_SHIFT >= s->opt.generation) {
            return s->formed ? -HF_ELEFT : -HF_EPROTO;
        }
        if (!s->best || k->past->st.ord > s->best->st.ord) {
            past_destroy(s->best);
            s->best = k->past;
        } else {
            past_destroy(k->past);
        }
        k->past = NULL;
    }
    k->state = HF_LINK_WAIT;
    if (s->formed) {
        welcome(s, k);
    }
    return 0;
}

static int input_ack(struct hf_sequencer *s, struct hf_link *k, uint64_t ord)
{
    if (ord > s->st.ord || ord < k->ack) {
        return -HF_EPROTO;
    }
    k->ack = ord;
    return 0;
}

static int input_send(struct hf_sequencer *s, struct hf_link *k, struct hf_engine_v1_frame *f)
{
    int rc = input_ack(s, k, f->ord);
    if (rc || f->seq <= k->seq) {
        return rc; /* ordered by the sequencer before us: the sender will find that */
    }
    if (f->seq != k->seq + 1 || k->n_pending >= HF_ORDER_SENDS_MAX) {
        return -HF_EPROTO;
    }
    f->node = k->node;
    struct hf_order_item *it = hf_order_keep(f);
    if (!it) {
        return -ENOMEM;
    }
    k->seq++;
    k->n_pending++;
    hf_list_insert(&s->pending, &it->node);
    return 0;
}

static int input(struct hf_sequencer *s, struct hf_link *k, struct hf_engine_v1_frame *f)
{
    static const enum hf_sequencer_link wants[] = {
        [HF_ENGINE_V1_HELLO] = HF_LINK_NEW,     [HF_ENGINE_V1_STATE] = HF_LINK_GREETED,
        [HF_ENGINE_V1_EVENT] = HF_LINK_GREETED, [HF_ENGINE_V1_READY] = HF_LINK_GREETED,
        [HF_ENGINE_V1_SEND] = HF_LINK_UP,
    };
    if (f->type < HF_ARRAY_LEN(wants) && wants[f->type] != k->state) {
        return -HF_EPROTO;
    }
    switch ((enum hf_engine_v1_type)f->type) {
    case HF_ENGINE_V1_HELLO:
        return input_hello(s, k, f);
    case HF_ENGINE_V1_STATE:
    case HF_ENGINE_V1_EVENT:
        return input_past(s, k, f);
    case HF_ENGINE_V1_READY:
        return input_ready(s, k);
    case HF_ENGINE_V1_SEND:
        return input_send(s, k, f);
    case HF_ENGINE_V1_BEAT:
        if (k->state != HF_LINK_UP) {
            return k->state == HF_LINK_WAIT ? 0 : -HF_EPROTO;
        }
        int rc = input_ack(s, k, f->ord);
        if (rc == 0 && f->seq) {
            f->ord = stable(s);
            send_frame(s, k, f);
        }
        return rc;
    case HF_ENGINE_V1_REFUSE:
        break;
    }
    return -HF_EPROTO;
}

void hf_sequencer_input(struct hf_sequencer *s, unsigned link, struct hf_slice in, hf_time now)
{
    struct hf_link *k = &s->link[link];
    struct hf_engine_v1_frame f;
    assert(k->state != HF_LINK_FREE);
    k->heard = now;
    int rc = hf_engine_v1_decode(in, &f);
    if (rc == 0) {
        rc = input(s, k, &f);
    }
    if (rc) {
        refuse(s, k, rc);
    }
    settle(s, now);
}

void hf_sequencer_closed(struct hf_sequencer *s, unsigned link, hf_time now)
{
    s->link[link].broken = true;
    settle(s, now);
}

void hf_sequencer_tick(struct hf_sequencer *s, hf_time now)
{
    if (s->opt.silence == 0) {
        settle(s, now);
        return;
    }
    bool beat = now >= s->beat_at;
    if (beat) {
        s->beat_at = now + s->opt.silence / 4;
    }
    for (unsigned i = 0; i < HF_SEQUENCER_LINKS_MAX; i++) {
        struct hf_link *k = &s->link[i];
        if (k->state != HF_LINK_FREE && now - k->heard > s->opt.silence) {
            refuse(s, k, -HF_ELEFT);
            k->silent = true;
        } else if (beat && k->state >= HF_LINK_WAIT) {
            send_frame(s, k,
                       &(struct hf_engine_v1_frame){.type = HF_ENGINE_V1_BEAT,
                                                    .ord = s->formed ? stable(s) : 0});
        }
    }
    settle(s, now);
}

hf_time hf_sequencer_deadline(const struct hf_sequencer *s)
{
    if (s->opt.silence == 0) {
        return HF_NEVER;
    }
    return s->formed ? s->beat_at : hf_time_min(s->beat_at, s->collect_end);
}

void hf_sequencer_gap(struct hf_sequencer *s, hf_time now)
{
    for (unsigned i = 0; i < HF_SEQUENCER_LINKS_MAX; i++) {
        s->link[i].heard = now;
    }
    if (!s->formed && s->collect_end < now + s->opt.silence / 2 && s->opt.collect) {
        s->collect_end = now + s->opt.silence / 2;
    }
}
