/* Connections that are done with: kept until the client has the last bytes and our FIN, so that the
 * backup can send them again. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "os/tcpmove.h"
#include "pg/protect_impl.h"

#define LOOK HF_MS(25)    /* nothing tells when a FIN is acknowledged (pitfall 9) */
#define PATIENCE HF_S(60) /* as the kernel's with sockets that nobody has */

static int state_of(int fd)
{
    struct tcp_info i = {0};
    socklen_t n = sizeof(i);
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &n) < 0 ? TCP_CLOSE : i.tcpi_state;
}

static void set_linger(int fd, bool at_once)
{
    const struct linger l = {.l_onoff = at_once};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

void hf_pg_slot_save_closing(struct hf_pg_protect *p, struct hf_pg_slot *e)
{
    hf_pg_slot_save_facts(p, e);
    hf_pg_slot_save_position(p, e, e->rx_total, e->tx_una);
    hf_pair_primary_put(p->primary, e->id, HF_PG_SECTION_TX, hf_buf_slice(&e->tx));
}

/* What has not been written yet (of a connection that was taken over), then the FIN. */
static void write_rest(struct hf_pg_slot *e)
{
    struct hf_slice all = hf_buf_slice(&e->tx);
    size_t done = (size_t)(e->tx_written - e->tx_una);
    if (!e->shut && done < all.n) {
        ssize_t n = send(e->fd, all.p + done, all.n - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        e->tx_written += n > 0 ? (uint64_t)n : 0;
        done += n > 0 ? (size_t)n : 0;
    }
    if (!e->shut && done >= all.n) {
        e->shut = true;
        (void)shutdown(e->fd, SHUT_WR);
    }
}

/* The client has everything, or is gone. */
static bool over(const struct hf_pg_slot *e, hf_time now)
{
    switch (state_of(e->fd)) {
    case TCP_CLOSE:
    case TCP_TIME_WAIT:
    case TCP_FIN_WAIT2:
        return true;
    default:
        return now >= e->until;
    }
}

static void finish(struct hf_pg_protect *p, struct hf_pg_slot *e, hf_time now)
{
    int fd = e->fd;
    e->fd = -1;
    set_linger(fd, false);
    if (e->registered) { /* the kernel's from now on */
        hf_egress_set_state(p->egress, e->slot, HF_EGRESS_SLOT_CLOSING, 0);
    }
    close(fd);
    hf_buf_fini(&e->tx);
    hf_pg_slot_leave(p, e, now);
}

static void look(struct hf_pg_protect *p, hf_time now)
{
    HF_LIST_FOREACH (node, &p->closing) {
        struct hf_pg_slot *e = HF_CONTAINER_OF(node, struct hf_pg_slot, node);
        write_rest(e);
        if (over(e, now)) {
            finish(p, e, now);
        }
    }
    hf_poll_timer_set(p->pg->wire->poll, &p->closing_timer,
                      hf_list_empty(&p->closing) ? HF_NEVER : now + LOOK);
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    look(HF_CONTAINER_OF(t, struct hf_pg_protect, closing_timer), now);
}

/* The FIN may go; a RST may not: when this process dies, another one goes on. */
static void begin(struct hf_pg_protect *p, struct hf_pg_slot *e, int fd)
{
    hf_time now = hf_pg_now(p->pg);
    hf_egress_set_state(p->egress, e->slot, HF_EGRESS_SLOT_FIN | HF_EGRESS_SLOT_SOLO, 0);
    e->fd = fd;
    e->until = now + PATIENCE;
    hf_list_unlink(&e->node);
    bool first = hf_list_empty(&p->closing);
    hf_list_insert(&p->closing, &e->node);
    set_linger(fd, true);
    if (first) {
        p->closing_timer.fn = on_timer;
        hf_poll_timer_set(p->pg->wire->poll, &p->closing_timer, now + LOOK);
    }
    write_rest(e);
}

void hf_pg_slot_close(struct hf_pg_protect *p, struct hf_pg_slot *e, int fd)
{
    int state = state_of(fd);
    begin(p, e, fd);
    if (e->shielded) { /* what is to be sent the backup has */
        e->facts.flags |= HF_TCP_FACT_CLOSING;
        e->facts.flags |= state == TCP_CLOSE_WAIT ? HF_TCP_FACT_EOF : 0;
        hf_pg_slot_save_facts(p, e);
        hf_pg_slot_save_position(p, e, e->rx_total, e->tx_una);
        hf_poll_task_add(p->pg->wire->poll, &p->task);
    }
}

void hf_pg_protect_close(struct hf_pg_protect *p, struct hf_pg_slot *slot, int fd,
                         const struct hf_tcp_facts *facts, uint64_t rx_total, uint64_t tx_una,
                         uint64_t tx_written, struct hf_slice tx)
{
    slot->facts = *facts;
    slot->shielded = true;
    slot->rx_total = rx_total;
    slot->tx_una = tx_una;
    slot->tx_written = tx_written;
    hf_buf_add(&slot->tx, tx);
    if (p->primary && slot->id) {
        hf_pg_slot_save_closing(p, slot);
        hf_poll_task_add(p->pg->wire->poll, &p->task);
    }
    begin(p, slot, fd);
}

void hf_pg_slots_discard(struct hf_pg_protect *p)
{
    HF_LIST_FOREACH (node, &p->closing) {
        struct hf_pg_slot *e = HF_CONTAINER_OF(node, struct hf_pg_slot, node);
        hf_tcpmove_discard(e->fd);
        e->fd = -1;
        hf_pg_slot_leave(p, e, hf_pg_now(p->pg));
    }
    hf_poll_timer_set(p->pg->wire->poll, &p->closing_timer, HF_NEVER);
}
