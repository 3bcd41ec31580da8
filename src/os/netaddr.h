/* Put an address on an interface of this host, take it off, and tell the neighbours. */
#pragma once

#include "base/endpoint.h"
#include "base/err.h"

/*
 * By rtnetlink and packet sockets, in this process and at once: a take-over can't wait for ip(8)
 * and holdfast-announce. The port of the endpoints is not used. IPv6 addresses are put there
 * without duplicate address detection (IFA_F_NODAD): it would take a second, and the old host is
 * silent by then. CAP_NET_ADMIN; to announce CAP_NET_RAW.
 */

/** 0, also if it is there already; -ENODEV, -EPERM, other -errno with a text. */
HF_MUST int hf_netaddr_add(const char *interface, const struct hf_endpoint *address,
                           unsigned prefix_len, struct hf_err *err);
/** 0, also if it is not there, or there is no such interface; whatever its prefix length. */
HF_MUST int hf_netaddr_remove(const char *interface, const struct hf_endpoint *address,
                              struct hf_err *err);
/** Is it on any interface? Also false if that can't be known. */
bool hf_netaddr_has(const struct hf_endpoint *address);
/** The same for one interface. */
bool hf_netaddr_is_on(const char *interface, const struct hf_endpoint *address);

/**
 * Does this host take packets for it? An IPv6 address is on its interface some time before: the
 * kernel makes its route later, in a work queue, and until then drops even the answers of
 * neighbours that were asked from there; it asks again after a second. Also false if that can't be
 * known.
 */
bool hf_netaddr_is_ready(const struct hf_endpoint *address);

/**
 * The packet socket of announcements, kept for the life of the process: to close one takes an RCU
 * grace period, some 15 ms, for which a take-over would stand still. So does the end of the
 * process, unless another one holds it, too. Borrowed; < 0: it can't be opened.
 */
int hf_netaddr_slow_fd(void);

/** Tell the neighbours once: gratuitous ARP as request and as reply (RFC 5227 3), or an unsolicited
 * neighbour advertisement with override (RFC 4861 7.2.6). An IPv6 address must be there. 0 and
 * nothing sent where there is no Ethernet to know addresses of: loopback, tunnels. From one thread
 * only. */
HF_MUST int hf_netaddr_announce(const char *interface, const struct hf_endpoint *address,
                                struct hf_err *err);
