/* Connections of the service address: their slots of the guard, and what the pair is told of them
 * whether or not they are protected. */
#include <string.h>

#include "base/mem.h"
#include "base/wr.h"
#include "os/tcpmove.h"
#include "pg/linger.h"
#include "pg/protect_impl.h"
#include "pg/route.h"

#define LINGER HF_S(60)      /* of a slot whose socket was closed: its FIN may be repeated */
#define EMBRYO_TIME HF_S(70) /* tcp_synack_retries */

/* ---- what the pair is told ---- */

static void put(struct hf_pg_protect *p, const struct hf_pg_slot *e, uint8_t section,
                struct hf_wr *w)
{
    struct hf_slice bytes;
    if (p->primary && e->id && hf_wr_end(w, &bytes) == 0) {
        hf_pair_primary_put(p->primary, e->id, section, bytes);
    }
}

void hf_pg_slot_save_facts(struct hf_pg_protect *p, struct hf_pg_slot *e)
{
    uint8_t room[HF_TCP_FACTS_LEN_MAX];
    struct hf_wr w;
    hf_wr_init(&w, room, sizeof(room));
    hf_tcp_facts_encode(&w, &e->facts);
    put(p, e, HF_PG_SECTION_FACTS, &w);
}

void hf_pg_slot_save_position(struct hf_pg_protect *p, const struct hf_pg_slot *e,
                              uint64_t rx_total, uint64_t tx_una)
{
    uint8_t room[16];
    struct hf_wr w;
    hf_wr_init(&w, room, sizeof(room));
    hf_wr_u64(&w, rx_total);
    hf_wr_u64(&w, tx_una);
    put(p, e, HF_PG_SECTION_POSITION, &w);
}

int hf_pg_shield_position_read(struct hf_slice in, uint64_t *ret_rx_total, uint64_t *ret_tx_una)
{
    struct hf_rd r;
    hf_rd_init(&r, in);
    *ret_rx_total = hf_rd_u64(&r);
    *ret_tx_una = hf_rd_u64(&r);
    return hf_rd_end(&r);
}

void hf_pg_slot_save_place(struct hf_pg_protect *p, const struct hf_pg_slot *e,
                           const struct hf_pg_seating *seat)
{
    struct hf_pg_sconn *conn = seat->conn;
    uint8_t identity[HF_PG_IDENTITY_MAX], room[HF_PG_IDENTITY_MAX];
    struct hf_wr w;
    hf_wr_init(&w, room, sizeof(room));
    hf_wr_bytes(&w, hf_slice(identity, hf_pg_route_identity(seat, identity)));
    put(p, e, HF_PG_SECTION_PLACE, &w);
    hf_wr_init(&w, room, sizeof(room));
    hf_wr_u32(&w, conn->pid);
    hf_wr_u64(&w, (uint64_t)conn->opened_at);
    hf_wr_u64(&w, (uint64_t)hf_pg_now(p->pg));
    put(p, e, HF_PG_SECTION_BACKEND, &w);
    hf_wr_init(&w, room, sizeof(room));
    hf_wr_u16(&w, conn->port);
    put(p, e, HF_PG_SECTION_BACKEND_PORT, &w);
    hf_pg_linger_keep(p->pg->linger, conn);
}

int hf_pg_backend_told_read(struct hf_slice in, struct hf_slice port,
                            struct hf_pg_backend_told *ret_told)
{
    struct hf_rd r;
    hf_rd_init(&r, port);
    ret_told->port = port.n ? hf_rd_u16(&r) : 0;
    int rc = hf_rd_end(&r);
    if (rc) {
        return rc;
    }
    hf_rd_init(&r, in);
    ret_told->pid = hf_rd_u32(&r);
    ret_told->from = (hf_time)hf_rd_u64(&r);
    ret_told->to = (hf_time)hf_rd_u64(&r);
    return hf_rd_end(&r);
}

void hf_pg_slot_save(struct hf_pg_protect *p, struct hf_pg_slot *e)
{
    if (e->fd >= 0 && e->shielded) {
        hf_pg_slot_save_closing(p, e);
        return;
    }
    hf_pg_slot_save_facts(p, e);
    for (size_t i = 0; e->client && i < HF_ARRAY_LEN(e->client->seat); i++) {
        const struct hf_pg_seating *seat = &e->client->seat[i];
        if (seat->side == HF_PG_SERVER && seat->attached && seat->conn) {
            hf_pg_slot_save_place(p, e, seat);
        }
    }
}

/* From now on a backup can end it. Where there is no room for that it goes on all the same. */
static void record(struct hf_pg_protect *p, struct hf_pg_slot *e)
{
    if (!p->primary) {
        return;
    }
    e->id = ++p->pg->last_id;
    if (hf_map_put(&p->records, hf_slice(&e->id, sizeof(e->id)), e)) {
        e->id = 0;
    } else if (hf_pair_primary_begin(p->primary, e->id)) {
        hf_map_remove(&p->records, hf_slice(&e->id, sizeof(e->id)));
        e->id = 0;
    }
    hf_pg_slot_save_facts(p, e);
    hf_poll_task_add(p->pg->wire->poll, &p->task);
}

static void record_end(struct hf_pg_protect *p, struct hf_pg_slot *e)
{
    if (!e->id) {
        return;
    }
    hf_map_remove(&p->records, hf_slice(&e->id, sizeof(e->id)));
    if (p->primary) {
        hf_pair_primary_end(p->primary, e->id);
        hf_poll_task_add(p->pg->wire->poll, &p->task);
    }
    e->id = 0;
}

/* ---- slots ---- */

static void key_of(const struct hf_endpoint *peer, uint8_t key[HF_PG_PEER_KEY_LEN])
{
    memcpy(key, peer->addr, sizeof(peer->addr));
    memcpy(key + sizeof(peer->addr), &peer->port, sizeof(peer->port));
}

struct hf_pg_slot *hf_pg_slot_find(struct hf_pg_protect *p, const struct hf_endpoint *peer)
{
    uint8_t key[HF_PG_PEER_KEY_LEN];
    key_of(peer, key);
    return hf_map_get(&p->peers, hf_slice(key, sizeof(key)));
}

/* Nothing more of it leaves, and another connection may have its place. */
static void slot_detach(struct hf_pg_protect *p, struct hf_pg_slot *e)
{
    if (hf_map_get(&p->peers, hf_slice(e->key, sizeof(e->key))) == e) {
        hf_map_remove(&p->peers, hf_slice(e->key, sizeof(e->key)));
    }
    if (e->registered) {
        hf_pg_left_note(p, e, false);
        hf_egress_unregister(p->egress, e->slot);
        e->registered = false;
    }
}

static void slot_free(struct hf_pg_protect *p, struct hf_pg_slot *e)
{
    slot_detach(p, e);
    record_end(p, e);
    hf_list_unlink(&e->node);
    hf_list_unlink(&e->waiting);
    if (e->fd >= 0) {
        hf_tcpmove_discard(e->fd);
    }
    hf_buf_fini(&e->tx);
    hf_free(e->syn_ack);
    hf_free(e);
}

/* Those that nobody has any more, or never had. The list is in order of time. */
static void slots_expire(struct hf_pg_protect *p, hf_time now)
{
    HF_LIST_FOREACH (node, &p->expiring) {
        struct hf_pg_slot *e = HF_CONTAINER_OF(node, struct hf_pg_slot, node);
        if (e->until > now) {
            break;
        }
        slot_free(p, e);
    }
}

void hf_pg_slots_forget(struct hf_pg_protect *p)
{
    HF_LIST_FOREACH (node, &p->expiring) {
        slot_free(p, HF_CONTAINER_OF(node, struct hf_pg_slot, node));
    }
}

/* The same client's port again: the connection before it is over, whether or not we know. */
static void make_place(struct hf_pg_protect *p, struct hf_pg_slot *e)
{
    if (e && e->client) {
        slot_detach(p, e);
        hf_pg_link_break(&e->client->link, "connection reset by the other side");
    } else if (e) {
        slot_free(p, e);
    }
}

/* Not registered with the guard yet. */
static struct hf_pg_slot *slot_new(struct hf_pg_protect *p, const struct hf_tcp_facts *facts)
{
    slots_expire(p, hf_pg_now(p->pg));
    make_place(p, hf_pg_slot_find(p, &facts->peer));
    struct hf_pg_slot *e = hf_alloc(sizeof(*e));
    if (!e) {
        return NULL;
    }
    key_of(&facts->peer, e->key);
    e->facts = *facts;
    e->fd = -1;
    hf_list_init(&e->node);
    hf_list_init(&e->waiting);
    hf_buf_init(&e->tx, SIZE_MAX / 2);
    if (hf_map_put(&p->peers, hf_slice(e->key, sizeof(e->key)), e)) {
        hf_free(e);
        return NULL;
    }
    return e;
}

struct hf_pg_slot *hf_pg_slot_of_facts(struct hf_pg_protect *p, const struct hf_tcp_facts *f,
                                       uint64_t rx_total, uint64_t tx_total)
{
    const struct hf_egress_conn conn = {.peer = f->peer,
                                        .rx_conf = hf_tcp_rcv_nxt(f, rx_total),
                                        .tx_conf = hf_tcp_snd_seq(f, tx_total),
                                        .wscale = f->rcv_wscale};
    struct hf_pg_slot *e = slot_new(p, f);
    if (!e) {
        return NULL;
    }
    if (hf_egress_register(p->egress, &conn, &e->slot)) {
        slot_free(p, e);
        return NULL;
    }
    e->registered = true;
    hf_pg_left_note(p, e, true);
    record(p, e);
    return e;
}

static void linger(struct hf_pg_protect *p, struct hf_pg_slot *e, hf_time now)
{
    hf_list_unlink(&e->node);
    if (!e->registered) { /* another one has its place */
        slot_free(p, e);
        return;
    }
    e->until = now + LINGER;
    hf_list_insert(&p->expiring, &e->node);
}

void hf_pg_slot_leave(struct hf_pg_protect *p, struct hf_pg_slot *e, hf_time now)
{
    record_end(p, e);
    if (e->registered) {
        hf_pg_left_note(p, e, false);
    }
    linger(p, e, now);
}

void hf_pg_slot_abandon(struct hf_pg_protect *p, struct hf_pg_slot *e, hf_time now)
{
    e->abandoned = true;
    if (e->registered) {
        hf_egress_set_state(p->egress, e->slot, HF_EGRESS_SLOT_CLOSING | HF_EGRESS_SLOT_SOLO, 0);
    }
    linger(p, e, now);
}

void hf_pg_slot_told(struct hf_pg_protect *p, const struct hf_endpoint *peer)
{
    struct hf_pg_slot *e = hf_pg_slot_find(p, peer);
    if (e && e->abandoned) { /* not another connection in its place */
        record_end(p, e);
    }
}

/* ---- handshakes ---- */

/* Enough to end the connection by; the rest is read when it is accepted. */
static struct hf_tcp_facts facts_of(const struct hf_tcp_segment *syn_ack, hf_time now)
{
    struct hf_tcp_facts f = {
        .local = syn_ack->src,
        .peer = syn_ack->dst,
        .snd_isn = syn_ack->seq,
        .rcv_isn = syn_ack->ack - 1,
        .mss = HF_TCP_MSS_DEFAULT,
        .flags = HF_TCP_FACT_EMBRYO,
        .ts_at = now,
        .snd_wnd = UINT16_MAX,
        .rcv_wnd = syn_ack->window,
    };
    if (syn_ack->has_ts) {
        f.flags |= HF_TCP_FACT_TS;
        f.tsval = syn_ack->tsval;
    }
    return f;
}

/* The backup knows of it. */
static void let_go_on(struct hf_pg_protect *p, struct hf_pg_slot *e)
{
    struct hf_tcp_segment seg;
    const struct hf_egress_saved *saved = e->syn_ack;
    hf_list_unlink(&e->waiting);
    if (hf_tcp_segment_parse(hf_slice(saved->header + saved->l3, (size_t)(saved->len - saved->l3)),
                             &seg)) {
        slot_free(p, e);
        return;
    }
    const struct hf_egress_conn conn = {
        .peer = e->facts.peer,
        .rx_conf = seg.ack,
        .tx_conf = seg.seq + 1,
        .wscale = seg.has_wscale ? seg.wscale : 0,
        .state = HF_EGRESS_SLOT_SYN_ACK | HF_EGRESS_SLOT_SOLO,
        .syn_seq = seg.seq,
        .syn_ack = seg.ack,
    };
    if (hf_egress_register(p->egress, &conn, &e->slot)) {
        slot_free(p, e); /* it comes again */
        return;
    }
    e->registered = true;
    hf_pg_left_note(p, e, true);
    (void)!hf_egress_send_syn_ack(p->egress, saved);
    hf_free(e->syn_ack);
    e->syn_ack = NULL;
}

void hf_pg_slot_handshake(void *arg, const struct hf_egress_event *event)
{
    struct hf_pg_protect *p = arg;
    struct hf_tcp_segment seg;
    if (!event->syn_ack || !p->primary || hf_tcp_segment_parse(event->packet, &seg)) {
        return;
    }
    struct hf_pg_slot *e = hf_pg_slot_find(p, &event->peer);
    if (e && e->embryo && e->syn_seq == seg.seq) {
        if (e->registered) { /* it came before the filter knew */
            (void)!hf_egress_send_syn_ack(p->egress, event->saved);
        }
        return;
    }
    hf_time now = hf_pg_now(p->pg);
    struct hf_tcp_facts facts = facts_of(&seg, now);
    e = slot_new(p, &facts);
    struct hf_egress_saved *copy = e ? hf_alloc(sizeof(*copy)) : NULL;
    if (!copy) {
        if (e) {
            slot_free(p, e);
        }
        return; /* it comes again */
    }
    *copy = *event->saved;
    e->syn_ack = copy;
    e->embryo = true;
    e->syn_seq = seg.seq;
    e->until = now + EMBRYO_TIME;
    hf_list_insert(&p->expiring, &e->node);
    hf_list_insert(&p->handshakes, &e->waiting);
    record(p, e);
    hf_poll_task_add(p->pg->wire->poll, &p->task);
}

void hf_pg_slots_sealed(struct hf_pg_protect *p, uint64_t number)
{
    HF_LIST_FOREACH (node, &p->handshakes) {
        struct hf_pg_slot *e = HF_CONTAINER_OF(node, struct hf_pg_slot, waiting);
        e->number = e->number ? e->number : number;
    }
}

void hf_pg_slots_confirmed(struct hf_pg_protect *p, uint64_t number)
{
    HF_LIST_FOREACH (node, &p->handshakes) {
        struct hf_pg_slot *e = HF_CONTAINER_OF(node, struct hf_pg_slot, waiting);
        if (e->number && e->number <= number) {
            let_go_on(p, e);
        }
    }
}
