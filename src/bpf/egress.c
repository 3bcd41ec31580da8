/* The egress filter (tc, BPF): output commit by core/tcp/egress_inline.h's rules. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#define HF_EGRESS_PACKET struct __sk_buff

static __always_inline int hf_egress_load(HF_EGRESS_PACKET *p, __u32 off, void *to, __u32 n)
{
    return (int)bpf_skb_load_bytes(p, off, to, n);
}

#include "core/tcp/egress_inline.h"

/* slots and conns get their number of entries from src/os/egress_bpf.c. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, HF_EGRESS_ADDRESSES_MAX);
    __type(key, __u32);
    __type(value, struct hf_egress_address);
    __uint(map_flags, BPF_F_MMAPABLE);
} addresses SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, HF_EGRESS_ADDRESSES_MAX);
    __type(key, struct hf_egress_addr_key);
    __type(value, __u32);
} numbers SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct hf_egress_slot);
    __uint(map_flags, BPF_F_MMAPABLE);
} slots SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct hf_egress_conn_key);
    __type(value, __u32);
} conns SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} notes SEC(".maps");

/* Each by its own constant offset: a computed one would need CAP_PERFMON. The asm keeps the
 * compiler from computing it after all. */
static __always_inline void count(struct hf_egress_address *a, enum hf_egress_counter counter)
{
#define COUNT(name, key, text)                                                                     \
    if (counter == name) {                                                                         \
        __sync_fetch_and_add(&a->counters[name], 1);                                               \
        asm volatile("" ::"i"(name));                                                              \
    }
    HF_EGRESS_COUNTER_LIST(COUNT)
#undef COUNT
}

static __always_inline struct hf_egress_address *find_address(const __u8 *addr, __u32 *ret_number)
{
    struct hf_egress_addr_key key;
    __builtin_memcpy(key.addr, addr, sizeof(key.addr));
    __u32 *number = bpf_map_lookup_elem(&numbers, &key);
    if (!number) {
        return NULL;
    }
    *ret_number = *number;
    return bpf_map_lookup_elem(&addresses, number);
}

static __always_inline struct hf_egress_slot *find_slot(const struct hf_egress_facts *f,
                                                        __u32 address)
{
    struct hf_egress_conn_key key = {.peer_port = f->peer_port, .address = address};
    __builtin_memcpy(key.peer, f->peer, sizeof(key.peer));
    __u32 *number = bpf_map_lookup_elem(&conns, &key);
    struct hf_egress_slot *slot = number ? bpf_map_lookup_elem(&slots, number) : NULL;
    return slot && (slot->state & HF_EGRESS_SLOT_USED) ? slot : NULL;
}

static __always_inline bool save(struct __sk_buff *skb, const struct hf_egress_facts *f,
                                 struct hf_egress_saved *saved)
{
    __u32 n = f->header_len;
    asm volatile("" : "+r"(n)); /* so that the verifier sees the check of what is used below */
    if (n == 0 || n > sizeof(saved->header) || bpf_skb_load_bytes(skb, 0, saved->header, n)) {
        return false;
    }
    saved->len = (__u16)n;
    saved->l3 = f->l3;
    saved->ack = f->ack;
    saved->end = hf_egress_end_of(f);
    saved->ifindex = skb->ifindex;
    /* vlan_proto is in network order */
    saved->vlan = skb->vlan_present
                      ? (__u32)hf_egress_swap16((__u16)skb->vlan_proto) << 16 | (__u16)skb->vlan_tci
                      : 0;
    return true;
}

/* A SYN or SYN-ACK for the owner. */
static __always_inline void tell(struct __sk_buff *skb, const struct hf_egress_facts *f,
                                 struct hf_egress_address *a, __u32 address, bool syn_ack)
{
    struct hf_egress_note *note = bpf_ringbuf_reserve(&notes, sizeof(*note), 0);
    if (!note) {
        count(a, HF_EGRESS_N_LOST);
        return;
    }
    note->syn_ack = syn_ack;
    note->address = address;
    if (save(skb, f, &note->saved)) {
        bpf_ringbuf_submit(note, 0);
    } else {
        bpf_ringbuf_discard(note, 0);
        count(a, HF_EGRESS_N_BAD);
    }
}

/*
 * Save the segment's headers for the owner, who may raise rx_conf meanwhile: it stores rx_conf and
 * then looks at pending, we set pending and then look at rx_conf, so one of us sees the other's. Is
 * the acknowledgement still too high? One socket sends on one CPU at a time; if another one is here
 * all the same, the segment goes unsaved.
 */
static __always_inline bool hold(struct __sk_buff *skb, const struct hf_egress_facts *f,
                                 struct hf_egress_slot *slot)
{
    __u32 version = slot->version;
    if (!(version & 1) &&
        __sync_val_compare_and_swap(&slot->version, version, version + 1) == version) {
        if (save(skb, f, &slot->saved)) {
            slot->pending = 1;
        }
        __sync_fetch_and_add(&slot->version, 1);
    }
    return hf_egress_after(f->ack, *(volatile __u32 *)&slot->rx_conf);
}

static __always_inline __u32 lower(struct __sk_buff *skb, const struct hf_egress_facts *f,
                                   struct hf_egress_slot *slot)
{
    __u32 ack = *(volatile __u32 *)&slot->rx_conf;
    __u16 window = hf_egress_raise_window(f->window, f->ack - ack, slot->wscale);
    __u32 old_be = hf_egress_swap32(f->ack), new_be = hf_egress_swap32(ack);
    __u16 old_w = hf_egress_swap16(f->window), new_w = hf_egress_swap16(window);
    bpf_l4_csum_replace(skb, f->l4 + 16, old_be, new_be, 4);
    bpf_l4_csum_replace(skb, f->l4 + 16, old_w, new_w, 2);
    bpf_skb_store_bytes(skb, f->l4 + 8, &new_be, 4, 0);
    bpf_skb_store_bytes(skb, f->l4 + 14, &new_w, 2, 0);
    return ack;
}

/* What passes goes on to other filters (TC_ACT_UNSPEC), if there are any. */
SEC("tc")
int hf_egress(struct __sk_buff *skb)
{
    struct hf_egress_facts f;
    __u32 number = 0;
    hf_egress_parse_inline(skb, skb->len, 0, &f);
    if (f.kind == HF_EGRESS_KIND_OTHER) {
        return TC_ACT_UNSPEC;
    }
    struct hf_egress_address *a = find_address(f.source, &number);
    if (!a && f.kind == HF_EGRESS_KIND_CLAIM) {
        a = find_address(f.claimed, &number);
    }
    if (!a) {
        return TC_ACT_UNSPEC;
    }
    struct hf_egress_slot *slot = f.kind == HF_EGRESS_KIND_TCP ? find_slot(&f, number) : NULL;
    enum hf_egress_counter counter = HF_EGRESS_COUNTERS;
    enum hf_egress_verdict verdict =
        hf_egress_judge_inline(&f, slot, a, bpf_ktime_get_boot_ns(), &counter);
    __u32 ack = f.ack;
    if (verdict == HF_EGRESS_DROP || verdict == HF_EGRESS_SWALLOW) {
        count(a, counter);
        return verdict == HF_EGRESS_SWALLOW ? TC_ACT_STOLEN : TC_ACT_SHOT;
    }
    if (verdict == HF_EGRESS_HOLD_SYN_ACK) {
        count(a, counter);
        tell(skb, &f, a, number, true);
        return TC_ACT_STOLEN; /* the kernel forgets a handshake whose SYN-ACK it can't repeat */
    }
    if (verdict != HF_EGRESS_PASS && slot && hold(skb, &f, slot)) {
        count(a, counter);
        if (verdict == HF_EGRESS_HOLD_ACK) {
            return TC_ACT_SHOT;
        }
        ack = lower(skb, &f, slot);
    }
    if (slot) {
        hf_egress_note_passed_inline(slot, &f, ack);
    }
    return TC_ACT_UNSPEC;
}

/* What comes in is only looked at: a SYN tells the owner the client's options. */
SEC("tc")
int hf_ingress(struct __sk_buff *skb)
{
    struct hf_egress_facts f;
    __u32 number = 0;
    hf_egress_parse_inline(skb, skb->len, 0, &f);
    if (f.kind != HF_EGRESS_KIND_TCP || (f.tcp_flags & (HF_TCP_SYN | HF_TCP_ACK)) != HF_TCP_SYN) {
        return TC_ACT_UNSPEC;
    }
    struct hf_egress_address *a = find_address(f.peer, &number);
    if (a && f.peer_port == a->port) {
        tell(skb, &f, a, number, false);
    }
    return TC_ACT_UNSPEC;
}

/* All helpers used are open to every license. */
char _license[] SEC("license") = "Apache-2.0";
