/* What a server does with a SIP request: serve it, redirect it, proxy it, or refuse it (D3-D6,
 * D12). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/hftime.h"
#include "base/slice.h"
#include "core/sip/assign.h"
#include "core/sip/fleet.h"

/*
 * One pure function from facts to a verdict. The AoR that counts is To's in a REGISTER and the
 * Request-URI's in everything else. The first line that fits decides:
 *
 *   ROUTE           in a dialog, ACK, CANCEL                              PASS
 *   NO_VIA          no Via: not a request                                 REFUSE 400
 *   OVERLOADED      this server sheds, and this one's turn it is          REFUSE 503
 *                   (500 to a trusted edge, unless all are shed: it would send nobody here)
 *
 *   the row is not cached
 *     ASK_FIRST       credentials are wanted, and none good are there     CHALLENGE  S6
 *     NO_TABLE        the database is away                                REFUSE 503
 *     LOOK_UP         SQL was not asked yet                               READ       D3
 *     NO_USER         neither REGISTER nor a known user                   REFUSE 480
 *     NO_SERVER       nobody lives to be given a client                   REFUSE 503
 *     EDGE_PASSES     this is an edge                                     PROXY      D5  hop + 1
 *     GIVE_HOME                                                           ASSIGN     D2
 *
 *   the row says: here
 *     MINE_ASK        as ASK_FIRST                                        CHALLENGE  S6
 *     MINE_OLD        a peer knows a later epoch; SQL was not asked yet   READ       S5
 *     MINE_OFFER      auto; an unknown agent refreshes by way of one peer, REDIRECT  S6  to us
 *                     and its binding has half its life before it
 *     MINE                                                                SERVE      D3
 *
 *   the row says: another server
 *     AWAY_ASK        as ASK_FIRST, unless it is AWAY_PROXY's anyway      CHALLENGE  S6
 *     DOUBT           from a peer; or was redirected before, and not by   READ       S5
 *                     an older row; or that server is not alive, or is
 *                     this one, which homes nobody; SQL was not asked yet
 *     MINE_BY_PEER    the database is away; a peer with a later epoch     SERVE      I7
 *                     says that it is here
 *     GONE            that server is not alive, or is this one            REFUSE 503 D8
 *     LAST_HOP        second time from a peer                             REFUSE 503 I7
 *     NOT_NOW         REGISTER, and that server is busy                   REFUSE 503 D10
 *     (NO_HOPS        to be proxied, with Max-Forwards 0                  REFUSE 483 RFC 3261 16.3)
 *     SECOND          first time from a peer, or redirected lately        PROXY      S5  hop 2
 *     AWAY_REDIRECT   internal, and policy and agent allow it             REDIRECT   D4
 *     AWAY_PROXY      the rest                                            PROXY      D5  hop 1
 *
 * Internal: exactly one Via value, not from the trusted-edge list, not from a peer, and this is no
 * edge. redirect: all that is internal; proxy: nothing; auto: a REGISTER of an agent that FOLLOWS.
 *
 * READ and ASSIGN are not the end: the driver does it and asks again with `read` set and the row,
 * at most three times in all.
 *
 * Why nothing loops (I7). Peers mark what they proxy with (hop, epoch), authenticated (I8): hop 1
 * is served, or goes on once more as hop 2, or ends; hop 2 is served or ends. A redirect carries
 * epoch and time in its Contact, which clients keep in the Request-URI (RFC 3261 8.1.3.4): within
 * 32 s what comes of it is served, goes on as hop 2, or ends. So three servers at most handle it;
 * of a client that drops URI parameters each server remembers its own redirect (Call-ID and AoR,
 * 32 s), which makes as many as there are servers with a wrong row, and two more.
 *
 * Authentication (S6): the server that acts asks for it, a proxied REGISTER passes without. Nothing
 * tells an unknown user from a known one: both are challenged before anything is looked up or
 * refused, and 480 is the answer for both.
 */
#define HF_SIP_ROLE_LIST(X)                                                                        \
    X(HOME, "home")                                                                                \
    X(DISTRIBUTION, "distribution")                                                                \
    X(EDGE, "edge")
enum hf_sip_role {
#define HF_SIP_ROLE_ENUM(id, name) HF_SIP_ROLE_##id,
    HF_SIP_ROLE_LIST(HF_SIP_ROLE_ENUM)
#undef HF_SIP_ROLE_ENUM
        HF_SIP_ROLE_COUNT_
};
const char *hf_sip_role_name(enum hf_sip_role r);

#define HF_SIP_POLICY_LIST(X)                                                                      \
    X(REDIRECT, "redirect")                                                                        \
    X(PROXY, "proxy")                                                                              \
    X(AUTO, "auto")
enum hf_sip_policy {
#define HF_SIP_POLICY_ENUM(id, name) HF_SIP_POLICY_##id,
    HF_SIP_POLICY_LIST(HF_SIP_POLICY_ENUM)
#undef HF_SIP_POLICY_ENUM
        HF_SIP_POLICY_COUNT_
};
const char *hf_sip_policy_name(enum hf_sip_policy p);

/* Kinds of requests, as far as they differ here. */
enum hf_sip_kind {
    HF_SIP_KIND_REGISTER, /* of the AoR in To */
    HF_SIP_KIND_STATE,    /* SUBSCRIBE or PUBLISH outside a dialog: kept at the home */
    HF_SIP_KIND_CALL,     /* INVITE, MESSAGE, OPTIONS, ... outside a dialog: to the bindings */
    HF_SIP_KIND_DIALOG,   /* with a To tag; ACK; CANCEL */
};

/* How much this server sheds. */
enum hf_sip_shed {
    HF_SIP_SHED_NOTHING,
    HF_SIP_SHED_NEW, /* what comes without credentials: who is half way goes first */
    HF_SIP_SHED_ALL,
};

/** What a peer says of a request that it proxies; zeroed: nothing. Taken from authenticated peers
 * only (I8): of anybody else's the driver leaves it zeroed. */
struct hf_sip_mark {
    uint8_t hop;    /* 1, 2; 0: none */
    uint64_t epoch; /* of the row by which it went to us; 0: it had none */
    bool offer;     /* a REGISTER from the client itself, under auto: what it makes of a redirect
                     * is to be learnt */
    bool fresh; /* the credentials were good at who sends it, and their nonce fresh by his clock:
                 * ours may be another one's */
};

/** What is known when a request is there. Borrowed for the call. */
struct hf_sip_facts {
    uint8_t role; /* enum hf_sip_role; also at an address that was taken over (S1) */
    uint16_t self;
    const struct hf_sip_fleet *fleet;
    enum hf_sip_shed shed;

    enum hf_sip_kind kind;
    struct hf_slice aor;   /* canonical */
    unsigned n_via;        /* Via values (not header lines), ours not counted (D12) */
    unsigned max_forwards; /* as received; 70 if it has none */
    bool from_edge;        /* the previous hop is on the trusted-edge list */
    bool from_peer;        /* ... is a server of this cluster, authenticated */
    struct hf_sip_mark mark;
    uint64_t carried;   /* epoch in the Request-URI: a redirect brought it here; 0: none */
    bool redirected;    /* ... within 32 s, or this server itself redirected it then */
    bool credentials;   /* there are some, good or not */
    bool authenticated; /* and they are good */
    bool must_authenticate;
    bool user_known;      /* the AoR is a user's: it may be given a home without a REGISTER */
    uint8_t policy;       /* enum hf_sip_policy, of the network that it came from */
    uint16_t agent_id;    /* hash of the User-Agent header */
    hf_time binding_left; /* of the binding that this REGISTER refreshes here, 0: there is none */
    hf_time binding_life; /* what it was granted for */

    bool have_row;
    struct hf_sip_row row; /* as cached, or just read */
    bool read;             /* SQL was asked for this request; without have_row: it has none */
    bool away;             /* the database is */

    uint32_t random; /* for the jitter */
};

#define HF_SIP_ACTION_LIST(X)                                                                      \
    X(PASS, "pass")                                                                                \
    X(SERVE, "serve")                                                                              \
    X(REDIRECT, "redirect")                                                                        \
    X(PROXY, "proxy")                                                                              \
    X(CHALLENGE, "challenge")                                                                      \
    X(READ, "read")                                                                                \
    X(ASSIGN, "assign")                                                                            \
    X(REFUSE, "refuse")
enum hf_sip_action {
#define HF_SIP_ACTION_ENUM(id, name) HF_SIP_##id,
    HF_SIP_ACTION_LIST(HF_SIP_ACTION_ENUM)
#undef HF_SIP_ACTION_ENUM
        HF_SIP_ACTION_COUNT_
};
const char *hf_sip_action_name(enum hf_sip_action a);

/* The lines of the table above: what each does, and what a trace says of it. */
#define HF_SIP_RULE_LIST(X)                                                                        \
    X(ROUTE, PASS, 0, "goes by its route")                                                         \
    X(NO_VIA, REFUSE, 400, "it has no Via")                                                        \
    X(OVERLOADED, REFUSE, 503, "this server is overloaded")                                        \
    X(ASK_FIRST, CHALLENGE, 0, "nothing is looked up for somebody unknown")                        \
    X(NO_TABLE, REFUSE, 503, "not cached, and the database is away")                               \
    X(LOOK_UP, READ, 0, "not cached")                                                              \
    X(NO_USER, REFUSE, 480, "has no home, and this gives it none")                                 \
    X(NO_SERVER, REFUSE, 503, "nobody lives to be given a client")                                 \
    X(EDGE_PASSES, PROXY, 0, "has no home; an edge lets another server give it one")               \
    X(GIVE_HOME, ASSIGN, 0, "seen for the first time")                                             \
    X(MINE_OLD, READ, 0, "mine, but a peer knows a later epoch")                                   \
    X(MINE_ASK, CHALLENGE, 0, "mine")                                                              \
    X(MINE_OFFER, REDIRECT, 0, "mine; is its agent able to follow?")                               \
    X(MINE, SERVE, 0, "mine")                                                                      \
    X(DOUBT, READ, 0, "is this row still right?")                                                  \
    X(MINE_BY_PEER, SERVE, 0, "mine by what a peer knows; the database is away")                   \
    X(GONE, REFUSE, 503, "its server is not alive, and not replaced yet")                          \
    X(LAST_HOP, REFUSE, 503, "has come round too often")                                           \
    X(NO_HOPS, REFUSE, 483, "Max-Forwards is used up")                                             \
    X(NOT_NOW, REFUSE, 503, "its server is busy")                                                  \
    X(SECOND, PROXY, 0, "another server's, and not for the first time")                            \
    X(AWAY_ASK, CHALLENGE, 0, "another server's")                                                  \
    X(AWAY_REDIRECT, REDIRECT, 0, "another server's, internal")                                    \
    X(AWAY_PROXY, PROXY, 0, "another server's")
enum hf_sip_rule {
#define HF_SIP_RULE_ENUM(id, action, status, text) HF_SIP_RULE_##id,
    HF_SIP_RULE_LIST(HF_SIP_RULE_ENUM)
#undef HF_SIP_RULE_ENUM
        HF_SIP_RULE_COUNT_
};
/** A rule's name ("AWAY_PROXY"), and what a trace says of it; "?" past the last. */
const char *hf_sip_rule_name(enum hf_sip_rule r);
const char *hf_sip_rule_text(enum hf_sip_rule r);

/** What to do. */
struct hf_sip_verdict {
    enum hf_sip_action action;
    enum hf_sip_rule rule;
    uint16_t target;         /* REDIRECT, PROXY, ASSIGN: the server; else HF_SIP_NONE */
    uint16_t backup;         /* REDIRECT: for a second Contact with a lower q; or HF_SIP_NONE */
    uint64_t epoch;          /* SERVE: store nothing unless the row has this one still; if it has
                              * not, decide again with `read`. REDIRECT: goes into the Contact.
                              * ASSIGN: of the new row */
    struct hf_sip_mark mark; /* PROXY: to be sent along */
    unsigned status;         /* REFUSE: of the response */
    unsigned retry_after;    /* REFUSE 503: seconds */
    bool learn;              /* SERVE, REDIRECT: remember this of the agent (S6): */
    uint8_t agent;           /* enum hf_sip_agent */
};
void hf_sip_decide(const struct hf_sip_facts *f, struct hf_sip_verdict *ret_verdict);

/** Seconds for Retry-After, even in [min, max], so that who was refused at once does not come back
 * at once. */
unsigned hf_sip_retry_after(uint32_t random, unsigned min, unsigned max);
