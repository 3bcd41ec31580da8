/* The other servers, as the directory's tree and a group of ours tell of them. */
#pragma once

#include <jansson.h>

#include "base/attr.h"
#include "core/sip/element.h"
#include "core/sip/rebalance.h"

/*
 *            hear()                     lost(): its host is one of those, and was none before
 *   DEAD ------------> LIVE, DRAINING ----------------------------------------------------> DEAD
 *    ^                  |     ^                                                              |
 *    +------ gone() ----+     +---------- hear(); lost(): its host is none any more ---------+
 *
 * The tree tells of a death when a host was silent for four heartbeats; a group with this host and
 * that one in it when the engine has lost it and a quorum goes on without. Neither is a proof, and
 * none is needed: what a dead server still does is refused by the epochs of its rows. The group's
 * word counts once: a host that is heard of afterwards lives, whatever keeps it out of the group.
 */
struct hf_sip_others;

/** What a server is now; a dead one has neither addresses nor load. Borrowed for the call. */
typedef void hf_sip_others_fn(void *arg, const struct hf_sip_peer *peer,
                              const struct hf_sip_load *load);

/** Nobody yet. arg is borrowed as long as it lives. NULL: no memory. */
struct hf_sip_others *hf_sip_others_create(hf_sip_others_fn *fn, void *arg);
/** NULL is fine. */
void hf_sip_others_destroy(struct hf_sip_others *o);

/** The entry of a server was added or has changed; text that is no such entry is left out, and
 * logged. owner: the host whose entry it is. */
void hf_sip_others_hear(struct hf_sip_others *o, const char *owner, const char *name,
                        const char *text);
/** The entry has left the tree. */
void hf_sip_others_gone(struct hf_sip_others *o, const char *owner, const char *name);
/** Hosts that a group takes for dead, with a space between two: all of them, each time. */
void hf_sip_others_lost(struct hf_sip_others *o, const char *hosts);

/** Was it ever heard of? */
bool hf_sip_others_known(const struct hf_sip_others *o, const char *name);
/** Append all that were heard of to an array. */
void hf_sip_others_list(const struct hf_sip_others *o, json_t *all);

/** Names of an entry's members that are addresses, by HF_SIP_TRANSPORT_UDP, TCP, TLS. */
extern const char *const hf_sip_others_address[3];
/** Read an entry. -HF_EVALUE: it is none. peer's slices are borrowed from name and value. */
HF_MUST int hf_sip_others_parse(const char *name, const json_t *value, struct hf_sip_peer *ret_peer,
                                struct hf_sip_load *ret_load);
