/* Shared by the files of os/tcpmove: one socket, read or restored. */
#pragma once

#include <linux/tcp.h>

#include "os/tcpmove.h"

/* How a connection is restored. */
struct hf_tcpmove_plan {
    const struct hf_tcp_facts *f;
    uint64_t rx_total, tx_una, tx_total;
    uint32_t snd_wnd;   /* of the peer; 0: closed, or not known */
    struct hf_slice tx; /* from tx_una on */
    uint64_t tx_sent;   /* not exact: the peer can have so much, not more */
    bool exact;         /* tx_una is where the peer stands */
    bool no_sack;       /* restore without: three duplicate acknowledgements then mean a loss */
    uint32_t tsval;
};

/** Make the socket, out of repair mode. 0, or -errno with the call's name (static) in *ret_what. */
int hf_tcpmove_restore(const struct hf_tcpmove_plan *p, const char **ret_what, int *ret_fd,
                       uint64_t *ret_tx_written);
/** What TCP has sent on this socket since it was restored or connected, and what was queued as sent
 * then, in bytes; other threads may write to it meanwhile. -EAGAIN: it changes all the time;
 * -errno.
 */
HF_MUST int hf_tcpmove_sent(int fd, uint64_t *ret_n);
