/* Inside the output commit: what its two ways, BPF and NFQUEUE, have in common. */
#pragma once

#include "os/egress.h"

/* Which slot belongs to which connection. */
struct egress_known {
    struct hf_egress_conn_key key;
    bool used;
};

struct egress_ops {
    bool lease_counts; /* ARP obeys it, too */
    /* Make the slot findable by its key, which stays valid until del; -errno. */
    int (*add)(struct hf_egress *e, const struct hf_egress_conn_key *key, uint32_t slot);
    void (*del)(struct hf_egress *e, const struct hf_egress_conn_key *key);
    /* Send what was built from saved; -errno. */
    int (*send)(struct hf_egress *e, const struct hf_egress_saved *saved, const uint8_t *packet,
                size_t n);
    int (*fd)(const struct hf_egress *e);
    int (*slow_fd)(const struct hf_egress *e); /* NULL: none */
    int (*dispatch)(struct hf_egress *e);
    void (*close)(struct hf_egress *e);
};

struct hf_egress {
    const struct egress_ops *ops;
    void *way;                           /* owned by ops */
    struct hf_egress_address *addresses; /* owned by ops, as slots are */
    struct hf_egress_slot *slots;
    uint32_t slots_max;
    unsigned addresses_len;
    struct hf_endpoint address[HF_EGRESS_ADDRESSES_MAX];
    /* per slot, owned; free ones in a ring, so that one rests as long as possible: the filter may
     * just be at work on it on another CPU */
    struct egress_known *known;
    uint32_t *free_slots, free_at, free_len;
    hf_egress_event_fn *fn; /* during dispatch */
    void *arg;
};

/* Install or take over. On failure they have undone what they did. */
int egress_bpf_open(struct hf_egress *e, const struct hf_egress_options *options,
                    struct hf_err *err);
int egress_nfq_open(struct hf_egress *e, const struct hf_egress_options *options,
                    struct hf_err *err);
/* Could it be? -errno, err tells why not. */
int egress_bpf_probe(struct hf_err *err);
int egress_nfq_probe(struct hf_err *err);
/* Take off what is there. */
int egress_bpf_remove(const struct hf_egress_options *options, struct hf_err *err);
int egress_nfq_remove(const struct hf_egress_options *options, struct hf_err *err);

/* The key of an address: IPv4 mapped. */
void egress_addr_key(const struct hf_endpoint *ep, uint8_t ret_addr[16]);
/* Tell the owner of a SYN or a held SYN-ACK. */
void egress_tell(struct hf_egress *e, bool syn_ack, unsigned address,
                 const struct hf_egress_saved *saved);
