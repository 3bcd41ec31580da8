/* The numbers of servers: a fleet under a lock, whose news all workers get in one order. */
#include "sip/names.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "sip/pack.h"

#define PEER_MAX 4096

struct hf_sip_names {
    pthread_mutex_t lock;
    struct hf_sip_fleet *fleet;
    struct hf_sip_workers *ws; /* borrowed */
};

int hf_sip_names_create(struct hf_sip_workers *ws, struct hf_slice self,
                        struct hf_sip_names **ret_names)
{
    struct hf_sip_names *n = hf_alloc(sizeof(*n));
    uint16_t number;
    if (!n) {
        return -ENOMEM;
    }
    n->ws = ws;
    pthread_mutex_init(&n->lock, NULL);
    int rc = hf_sip_fleet_create(&n->fleet);
    rc = rc ? rc : hf_sip_fleet_add(n->fleet, self, &number);
    if (rc) {
        hf_sip_names_destroy(n);
        return rc;
    }
    *ret_names = n;
    return 0;
}

void hf_sip_names_destroy(struct hf_sip_names *n)
{
    if (n) {
        hf_sip_fleet_destroy(n->fleet);
        pthread_mutex_destroy(&n->lock);
        hf_free(n);
    }
}

/* Under the lock. */
static void tell(struct hf_sip_names *n, const struct hf_sip_peer *peer)
{
    struct hf_buf b;
    hf_buf_init(&b, PEER_MAX);
    hf_sip_pack_peer(&b, peer);
    struct hf_slice part = hf_buf_slice(&b);
    bool ok = b.err == 0;
    for (unsigned i = 0; ok && i < hf_sip_workers_n(n->ws); i++) {
        ok = hf_sip_worker_post(hf_sip_worker(n->ws, i), HF_SIP_MAIL_PEER, &part, 1) == 0;
    }
    hf_buf_fini(&b);
    if (!ok) { /* a worker without it would count differently from then on */
        hf_log_err("", "out of memory: cannot tell workers of a server; ends");
        abort();
    }
}

uint16_t hf_sip_names_number(struct hf_sip_names *n, struct hf_slice name)
{
    pthread_mutex_lock(&n->lock);
    uint16_t number = hf_sip_fleet_find(n->fleet, name);
    if (number == HF_SIP_NONE && hf_sip_fleet_add(n->fleet, name, &number) == 0) {
        tell(n, &(struct hf_sip_peer){.name = name});
    }
    pthread_mutex_unlock(&n->lock);
    return number;
}

void hf_sip_names_name(struct hf_sip_names *n, uint16_t number, char *buf, size_t room)
{
    pthread_mutex_lock(&n->lock);
    snprintf(buf, room, "%s", hf_sip_fleet_name(n->fleet, number));
    pthread_mutex_unlock(&n->lock);
}

uint16_t hf_sip_names_count(struct hf_sip_names *n)
{
    pthread_mutex_lock(&n->lock);
    uint16_t count = hf_sip_fleet_count(n->fleet);
    pthread_mutex_unlock(&n->lock);
    return count;
}

uint16_t hf_sip_names_tell(struct hf_sip_names *n, const struct hf_sip_peer *peer)
{
    uint16_t number = HF_SIP_NONE;
    pthread_mutex_lock(&n->lock);
    if (hf_sip_fleet_add(n->fleet, peer->name, &number) == 0) {
        tell(n, peer);
    } else {
        number = HF_SIP_NONE;
    }
    pthread_mutex_unlock(&n->lock);
    return number;
}
