/* Output commit: slots, confirms and what is sent late; the hooks are in egress_bpf.c,
 * egress_nfq.c. */
#include "os/egress.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/names.h"
#include "os/egress_impl.h"

#define COPY_TRIES 100 /* of headers that the filter is just writing */

HF_NAMES(hf_egress_how_name, enum hf_egress_how, HF_EGRESS_HOW_LIST)

enum hf_egress_how hf_egress_probe(struct hf_err *why)
{
    struct hf_err bpf = {0}, nfq = {0};
    if (egress_bpf_probe(&bpf) == 0) {
        hf_err_set(why, 0, "%s", "");
        return HF_EGRESS_BPF;
    }
    if (egress_nfq_probe(&nfq) == 0) {
        hf_err_set(why, bpf.code, "%s", bpf.text);
        return HF_EGRESS_NFQUEUE;
    }
    hf_err_set(why, bpf.code, "%.120s; %.120s", bpf.text, nfq.text);
    return HF_EGRESS_NONE;
}

hf_time hf_egress_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return ts.tv_sec * HF_NS_PER_S + ts.tv_nsec;
}

void egress_addr_key(const struct hf_endpoint *ep, uint8_t ret_addr[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (ep->family == HF_AF_INET) {
        memcpy(ret_addr, mapped, sizeof(mapped));
        memcpy(ret_addr + sizeof(mapped), ep->addr, 4);
    } else {
        memcpy(ret_addr, ep->addr, 16);
    }
}

uint32_t hf_egress_number(const struct hf_endpoint *address)
{
    uint32_t number = 0;
    for (size_t i = 0; i < (address->family == HF_AF_INET ? 4 : 16); i++) {
        number ^= (uint32_t)address->addr[i] << (8 * (3 - i % 4));
    }
    return number ? number : 1;
}

static struct hf_endpoint endpoint_of(const uint8_t addr[16], uint16_t port)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct hf_endpoint ep = {.family = HF_AF_INET6, .port = port};
    if (memcmp(addr, mapped, sizeof(mapped)) == 0) {
        ep.family = HF_AF_INET;
        memcpy(ep.addr, addr + sizeof(mapped), 4);
    } else {
        memcpy(ep.addr, addr, 16);
    }
    return ep;
}

static int check(const struct hf_egress_options *o, struct hf_err *err)
{
    if (o->interfaces_len < 1 || o->interfaces_len > HF_EGRESS_INTERFACES_MAX ||
        o->addresses_len < 1 || o->addresses_len > HF_EGRESS_ADDRESSES_MAX || o->slots_max < 1 ||
        o->slots_max > HF_EGRESS_SLOTS_MAX) {
        return hf_err_set(err, -HF_EVALUE,
                          "output commit: 1 to %d interfaces, 1 to %d addresses, 1 to %d slots",
                          HF_EGRESS_INTERFACES_MAX, HF_EGRESS_ADDRESSES_MAX, HF_EGRESS_SLOTS_MAX);
    }
    for (unsigned i = 0; i < o->addresses_len; i++) {
        uint8_t a[16], b[16];
        egress_addr_key(&o->addresses[i], a);
        bool bad = o->addresses[i].family == HF_AF_NONE || o->addresses[i].port == 0;
        for (unsigned j = 0; j < i && !bad; j++) {
            egress_addr_key(&o->addresses[j], b);
            bad = memcmp(a, b, sizeof(a)) == 0;
        }
        if (bad) {
            return hf_err_set(err, -HF_EVALUE,
                              "output commit: address %u has no port, or is there twice", i);
        }
    }
    return 0;
}

int hf_egress_open(const struct hf_egress_options *options, struct hf_err *err,
                   struct hf_egress **ret_egress)
{
    int rc = check(options, err);
    if (rc) {
        return rc;
    }
    uint32_t n = options->slots_max;
    struct hf_egress *e = hf_alloc(sizeof(*e));
    if (!e || !(e->known = hf_alloc_array(n, sizeof(*e->known))) ||
        !(e->free_slots = hf_alloc_array(n, sizeof(*e->free_slots)))) {
        hf_egress_close(e);
        return hf_err_set(err, -ENOMEM, "output commit: no memory for %u slots", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        e->free_slots[i] = i;
    }
    e->slots_max = e->free_len = n;
    e->addresses_len = options->addresses_len;
    memcpy(e->address, options->addresses, e->addresses_len * sizeof(*e->address));
    rc = options->how == HF_EGRESS_BPF       ? egress_bpf_open(e, options, err)
         : options->how == HF_EGRESS_NFQUEUE ? egress_nfq_open(e, options, err)
                                             : hf_err_set(err, -HF_EVALUE, "output commit: how?");
    if (rc) {
        hf_egress_close(e);
        return rc;
    }
    *ret_egress = e;
    return 0;
}

int hf_egress_slow_fd(const struct hf_egress *e)
{
    return e->ops->slow_fd ? e->ops->slow_fd(e) : -1;
}

void hf_egress_close(struct hf_egress *e)
{
    if (e) {
        if (e->ops) {
            e->ops->close(e);
        }
        hf_free(e->known);
        hf_free(e->free_slots);
        hf_free(e);
    }
}

int hf_egress_remove(const struct hf_egress_options *options, struct hf_err *err)
{
    int rc = check(options, err);
    rc = rc ? rc : egress_bpf_remove(options, err);
    return rc ? rc : egress_nfq_remove(options, err);
}

void hf_egress_set_lease(struct hf_egress *e, unsigned address, hf_time until)
{
    assert(address < e->addresses_len);
    __atomic_store_n(&e->addresses[address].lease_until, until > 0 ? (uint64_t)until : 0,
                     __ATOMIC_SEQ_CST);
}

bool hf_egress_lease_counts(const struct hf_egress *e)
{
    return e->ops->lease_counts;
}

void hf_egress_set_flags(struct hf_egress *e, unsigned address, uint32_t flags)
{
    assert(address < e->addresses_len);
    __atomic_store_n(&e->addresses[address].flags, flags, __ATOMIC_SEQ_CST);
}

static struct hf_egress_slot *used(const struct hf_egress *e, uint32_t slot)
{
    assert(slot < e->slots_max && e->known[slot].used);
    return &e->slots[slot];
}

int hf_egress_register(struct hf_egress *e, const struct hf_egress_conn *conn, uint32_t *ret_slot)
{
    assert(conn->address < e->addresses_len);
    if (e->free_len == 0) {
        return -HF_EFULL;
    }
    uint32_t i = e->free_slots[e->free_at];
    struct egress_known *k = &e->known[i];
    k->key = (struct hf_egress_conn_key){.peer_port = conn->peer.port, .address = conn->address};
    egress_addr_key(&conn->peer, k->key.peer);
    e->slots[i] = (struct hf_egress_slot){
        .rx_conf = conn->rx_conf,
        .tx_conf = conn->tx_conf,
        .state = conn->state | HF_EGRESS_SLOT_USED,
        .wscale = conn->wscale,
        .syn_seq = conn->syn_seq,
        .syn_ack = conn->syn_ack,
        /* before anything that can have been sent */
        .snd_nxt = conn->tx_conf - (1u << 30),
        .ack_sent = conn->rx_conf - (1u << 30),
    };
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    int rc = e->ops->add(e, &k->key, i);
    if (rc) {
        e->slots[i].state = 0;
        return rc;
    }
    k->used = true;
    e->free_at = (e->free_at + 1) % e->slots_max;
    e->free_len--;
    *ret_slot = i;
    return 0;
}

void hf_egress_unregister(struct hf_egress *e, uint32_t slot)
{
    struct hf_egress_slot *s = used(e, slot);
    __atomic_store_n(&s->state, 0, __ATOMIC_SEQ_CST);
    e->ops->del(e, &e->known[slot].key);
    e->known[slot].used = false;
    e->free_slots[(e->free_at + e->free_len++) % e->slots_max] = slot;
}

static void raise(uint32_t *conf, uint32_t to)
{
    if ((int32_t)(to - *conf) > 0) {
        __atomic_store_n(conf, to, __ATOMIC_RELAXED);
    }
}

bool hf_egress_confirm(struct hf_egress *e, uint32_t slot, uint32_t rx_conf, uint32_t tx_conf)
{
    struct hf_egress_slot *s = used(e, slot);
    raise(&s->tx_conf, tx_conf);
    raise(&s->rx_conf, rx_conf);
    /* the filter sets pending and then looks at rx_conf again: see hold() in src/bpf/egress.c */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(&s->pending, __ATOMIC_RELAXED) &&
           (int32_t)(s->rx_conf - __atomic_load_n(&s->ack_sent, __ATOMIC_RELAXED)) > 0;
}

/* The saved headers as the filter wrote them at one time. */
static bool copy_saved(const struct hf_egress_slot *s, struct hf_egress_saved *ret_saved)
{
    for (int i = 0; i < COPY_TRIES; i++) {
        uint32_t version = __atomic_load_n(&s->version, __ATOMIC_ACQUIRE);
        *ret_saved = s->saved;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(version & 1) && version == __atomic_load_n(&s->version, __ATOMIC_RELAXED)) {
            return true;
        }
    }
    return false;
}

/* Of this connection, not of one that had the slot before? */
static bool is_ours(const struct egress_known *k, const struct hf_egress_saved *saved)
{
    struct hf_egress_facts f;
    return hf_egress_parse_saved(saved, &f) == 0 && f.peer_port == k->key.peer_port &&
           memcmp(f.peer, k->key.peer, sizeof(f.peer)) == 0;
}

static int send_built(struct hf_egress *e, unsigned address, const struct hf_egress_saved *saved,
                      const uint8_t *packet, int n)
{
    int rc = n < 0 ? n : e->ops->send(e, saved, packet, (size_t)n);
    if (rc == 0) {
        __atomic_add_fetch(&e->addresses[address].counters[HF_EGRESS_N_SENT], 1, __ATOMIC_RELAXED);
    }
    return rc;
}

int hf_egress_flush(struct hf_egress *e, uint32_t slot)
{
    struct hf_egress_slot *s = used(e, slot);
    struct hf_egress_saved saved;
    uint8_t packet[HF_EGRESS_BUILT_MAX];
    /* before the copy: what the filter saves from now on sets it again */
    if (!__atomic_exchange_n(&s->pending, 0, __ATOMIC_SEQ_CST)) {
        return 0;
    }
    if (!copy_saved(s, &saved)) {
        __atomic_store_n(&s->pending, 1, __ATOMIC_SEQ_CST);
        return -EAGAIN;
    }
    if (!is_ours(&e->known[slot], &saved)) {
        return 0;
    }
    uint32_t ack = saved.ack, sent = __atomic_load_n(&s->ack_sent, __ATOMIC_RELAXED);
    bool all = (int32_t)(ack - s->rx_conf) <= 0;
    if (!all) {
        ack = s->rx_conf;
        __atomic_store_n(&s->pending, 1, __ATOMIC_SEQ_CST);
    }
    /* as high as one that has gone: only a whole one may still tell a window */
    if ((int32_t)(ack - sent) < (all ? 0 : 1)) {
        return 0;
    }
    uint32_t seq = __atomic_load_n(&s->snd_nxt, __ATOMIC_RELAXED);
    seq = (int32_t)(seq - saved.end) > 0 ? seq : saved.end;
    int n = hf_egress_build_ack(&saved, seq, ack, (uint8_t)s->wscale, packet);
    int rc = send_built(e, e->known[slot].key.address, &saved, packet, n);
    if (rc) {
        __atomic_store_n(&s->pending, 1, __ATOMIC_SEQ_CST);
    }
    return rc;
}

void hf_egress_set_state(struct hf_egress *e, uint32_t slot, uint32_t set, uint32_t clear)
{
    struct hf_egress_slot *s = used(e, slot);
    __atomic_store_n(&s->state, (s->state & ~clear) | set | HF_EGRESS_SLOT_USED, __ATOMIC_SEQ_CST);
}

void egress_tell(struct hf_egress *e, bool syn_ack, unsigned address,
                 const struct hf_egress_saved *saved)
{
    struct hf_egress_facts f;
    if (address >= e->addresses_len || hf_egress_parse_saved(saved, &f)) {
        return;
    }
    struct hf_egress_event event = {
        .syn_ack = syn_ack,
        .address = address,
        .peer = endpoint_of(syn_ack ? f.peer : f.source, syn_ack ? f.peer_port : f.source_port),
        .packet = hf_slice(saved->header + f.l3, (size_t)(f.header_len - f.l3)),
        .saved = saved,
    };
    e->fn(e->arg, &event);
}

int hf_egress_fd(const struct hf_egress *e)
{
    return e->ops->fd(e);
}

int hf_egress_dispatch(struct hf_egress *e, hf_egress_event_fn *fn, void *arg)
{
    e->fn = fn;
    e->arg = arg;
    return e->ops->dispatch(e);
}

int hf_egress_send_syn_ack(struct hf_egress *e, const struct hf_egress_saved *saved)
{
    uint8_t packet[HF_EGRESS_BUILT_MAX];
    struct hf_egress_facts f;
    int rc = hf_egress_parse_saved(saved, &f);
    unsigned address = 0;
    for (uint8_t key[16]; address < e->addresses_len; address++) {
        egress_addr_key(&e->address[address], key);
        if (memcmp(key, f.source, sizeof(key)) == 0) {
            break;
        }
    }
    if (rc || address == e->addresses_len) {
        return -HF_EMALF;
    }
    return send_built(e, address, saved, packet, hf_egress_build_syn_ack(saved, packet));
}

void hf_egress_counters(const struct hf_egress *e, unsigned address,
                        uint64_t ret_counters[HF_EGRESS_COUNTERS])
{
    assert(address < e->addresses_len);
    for (int i = 0; i < HF_EGRESS_COUNTERS; i++) {
        ret_counters[i] = __atomic_load_n(&e->addresses[address].counters[i], __ATOMIC_RELAXED);
    }
}
