/* The SIP servers of a cluster as one of them sees them: who lives, who takes clients, how many. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/limits.h"
#include "base/slice.h"

/*
 * The driver fills it from the directory's tree. Servers have small numbers, which are this
 * process's own: on the wire and in SQL they go by their names. A number is never given away
 * again, since cached assignments hold it.
 *
 *   UNKNOWN    named by an assignment, never seen in the tree: as good as dead
 *   LIVE       in the tree
 *   DRAINING   in the tree; keeps what it has until it is moved, gets nobody new
 *   DEAD       left the tree
 */
#define HF_SIP_SERVER_STATE_LIST(X)                                                                \
    X(UNKNOWN, "unknown")                                                                          \
    X(LIVE, "live")                                                                                \
    X(DRAINING, "draining")                                                                        \
    X(DEAD, "dead")
enum hf_sip_server_state {
#define HF_SIP_SERVER_STATE_ENUM(id, name) HF_SIP_SERVER_##id,
    HF_SIP_SERVER_STATE_LIST(HF_SIP_SERVER_STATE_ENUM)
#undef HF_SIP_SERVER_STATE_ENUM
        HF_SIP_SERVER_STATE_COUNT_
};
const char *hf_sip_server_state_name(enum hf_sip_server_state s);

#define HF_SIP_NONE UINT16_MAX /* no server */

/** What is known of one. Zeroed: unknown. */
struct hf_sip_server {
    uint8_t state;   /* enum hf_sip_server_state */
    bool homes;      /* a home server (D7): may be given clients */
    bool busy;       /* says of itself that it is overloaded: no new REGISTER is sent there now */
    uint16_t weight; /* its capacity against others'; 0 gets nobody new */
};

/** Opaque; readers may share it while nobody calls add() or set(). */
struct hf_sip_fleet;

/** No servers yet. 0 or -ENOMEM. */
HF_MUST int hf_sip_fleet_create(struct hf_sip_fleet **ret_fleet);
void hf_sip_fleet_destroy(struct hf_sip_fleet *f);

/** The number of the server of this name, which is added as UNKNOWN if it is new. 0; -HF_ENAME: not
 * a host name; -HF_EFULL: HF_SIP_SERVERS_MAX are known. */
HF_MUST int hf_sip_fleet_add(struct hf_sip_fleet *f, struct hf_slice name, uint16_t *ret_server);
/** The number of a server that is known, or HF_SIP_NONE. */
uint16_t hf_sip_fleet_find(const struct hf_sip_fleet *f, struct hf_slice name);
/** How many are known: their numbers are 0 to n - 1. */
uint16_t hf_sip_fleet_count(const struct hf_sip_fleet *f);
/** What has become known of a server. */
void hf_sip_fleet_set(struct hf_sip_fleet *f, uint16_t server, const struct hf_sip_server *now);
/** What is known of it; of a number that was never given: UNKNOWN. */
const struct hf_sip_server *hf_sip_fleet_get(const struct hf_sip_fleet *f, uint16_t server);
/** Its name ("?" of a number that was never given); borrowed as long as the fleet lives. */
const char *hf_sip_fleet_name(const struct hf_sip_fleet *f, uint16_t server);

/** Can a request be sent there: LIVE or DRAINING? */
bool hf_sip_fleet_alive(const struct hf_sip_fleet *f, uint16_t server);

/**
 * The server that an AoR without an assignment is given to (D2): weighted rendezvous (highest
 * random weight; Thaler and Ravishankar 1998) over the home servers that are LIVE and have a
 * weight. The same on every server that sees the same fleet; a server that comes or goes changes
 * nothing but its own share. HF_SIP_NONE: there is nobody.
 */
uint16_t hf_sip_fleet_choose(const struct hf_sip_fleet *f, struct hf_slice aor);

/** A second address for a redirect: a LIVE home server other than `not_this`, spread by AoR and
 * weight; cheap, not stable. HF_SIP_NONE: there is none. */
uint16_t hf_sip_fleet_backup(const struct hf_sip_fleet *f, struct hf_slice aor, uint16_t not_this);

/** -log2(h / 2^64) as a fixed-point number with 32 bits after the point; h = 0 counts as 1. For
 * tests: the weights' distribution stands on it. */
uint64_t hf_sip_neg_log2(uint64_t h);

/** In which of HF_SIP_BUCKETS an AoR is: stored beside its row, so that one statement can move a
 * part of a server's clients (S7). */
uint16_t hf_sip_bucket(struct hf_slice aor);
#define HF_SIP_BUCKETS 65536u
