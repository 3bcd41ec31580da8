/* Inside a SIP server's core: what it keeps, and a request on its way through. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "base/prng.h"
#include "core/sip/element.h"
#include "core/sip/mark.h"
#include "core/sip/notifier.h"
#include "core/sip/proxy.h"

#define HF_EL_LATELY HF_S(32)    /* S5 */
#define HF_EL_PATIENCE HF_S(32)  /* with the store; a client has given up by then */
#define HF_EL_AWAY_EXPIRES_S 60  /* S3 */
#define HF_EL_STAND_IN "hfc"     /* of a Path of ours: the Contact is a way, too */
#define HF_EL_TRYING HF_MS(150)  /* RFC 3261 17.2.1: a 100 within 200 ms, or another answer */
#define HF_EL_LOADS_MAX 256      /* LOADs under way */
#define HF_EL_ASSERTS_AT_ONCE 64 /* of one tick */
#define HF_EL_NOBODY 1           /* cookie of an op that no request waits for */

#define S(x) hf_slice((x), sizeof(x) - 1)

struct hf_el_listen {
    struct hf_sip_listen c;
    struct hf_sip_host host; /* c.host, parsed */
    uint16_t id;
    bool away;               /* elsewhere, as far as we know */
    struct hf_slice sent_by; /* host [":" port] */
};
struct hf_el_peer {
    struct hf_slice host; /* owned */
    struct hf_sip_host parsed;
    struct hf_endpoint at[3];
    uint64_t boot;
    hf_time forgets_until; /* it died; what it had to tell then it won't */
};

/* --- what requests wait for --- */

enum hf_el_for {
    HF_EL_FOR_ROW,
    HF_EL_FOR_SECRET,
    HF_EL_FOR_BIND,
    HF_EL_FOR_KEEP,
    HF_EL_FOR_LOAD,
    HF_EL_FOR_NAME, /* ops->resolve */
    HF_EL_FOR_OWN,  /* likewise, of a request of our own */
};
enum hf_el_auth {
    HF_EL_AUTH_UNCHECKED,
    HF_EL_AUTH_GOOD,
    HF_EL_AUTH_WRONG,
    HF_EL_AUTH_STALE, /* right, but the nonce is old, or was used so before */
    HF_EL_AUTH_AWAY,  /* can't be decided: the database is away */
    HF_EL_AUTH_MALFORMED,
    HF_EL_AUTH_HELD, /* it waits for the secret */
};
struct hf_el_answer { /* of a name */
    uint64_t uri;     /* hash */
    bool there, none;
    struct hf_sip_flow to;
};
/* What is known of a request so far, kept while it waits. */
struct hf_el_known {
    bool read, user_known, have_row, away, unloaded;
    uint8_t n_secrets; /* times that the store was asked for the secret */
    uint64_t assigned; /* the epoch that ASSIGN asked for, of an AoR that had no row */
    struct hf_sip_row row;
    uint8_t n_decided;
    uint8_t auth; /* enum hf_el_auth */
    struct hf_slice user;
    uint8_t user_text[HF_SIP_AOR_MAX]; /* AoR of who has authenticated */
    size_t n_answers;
    struct hf_el_answer answer[HF_SIP_CONTACTS_MAX];
};
struct hf_el_wait {
    struct hf_list age;    /* on element.waits */
    struct hf_list node;   /* on a load's */
    struct hf_list trying; /* on element.trying: an INVITE that has no 100 yet */
    hf_time came;          /* when its turn there began */
    bool tried;            /* it has a 100: its client does not repeat it any more */
    uint64_t cookie, key;
    uint8_t what; /* enum hf_el_for */
    bool keyed;
    hf_time until;
    struct hf_sip_flow from;
    struct hf_el_known known;
    uint64_t own;              /* OWN: the notifier's cookie; KEEP: its key */
    uint64_t keep;             /* KEEP: the op's cookie; 0: it has not been given yet */
    bool fresh;                /* ... as the notifier says */
    struct hf_sip_flow to;     /* BIND, KEEP: where the 200 goes */
    struct hf_slice text, aor; /* in bytes */
    struct hf_slice reply;     /* BIND, KEEP: the 200; owned apart */
    uint8_t bytes[];
};

/* An AoR whose bindings are being loaded. */
struct hf_el_load {
    struct hf_list node; /* on element.to_load until it is asked for */
    struct hf_list waits;
    uint64_t cookie; /* of the op; 0: not asked yet */
    uint8_t former;  /* enum hf_sip_former: whose its watchers were */
    uint16_t from;   /* ... that server, if it lives; HF_SIP_NONE: nobody knows */
    struct hf_slice aor;
    uint8_t bytes[];
};

/* --- credentials --- */

struct hf_el_secret {
    struct hf_list node; /* element.secrets_age: the latest asked for last */
    struct hf_slice user, aor;
    bool known;
    hf_time read_at;
    unsigned algorithms;
    uint8_t secret[HF_SIP_ALGORITHM_COUNT_][HF_SIP_HASH_MAX];
    uint8_t bytes[];
};
struct hf_el_nonce {
    uint64_t nonce, message; /* hashes; message: the last one that was accepted */
    uint32_t nc, seen;       /* the highest; bit i: nc - i was seen */
    uint32_t used_s;
};
struct hf_el_rate {
    uint64_t source;
    hf_time at;
    uint32_t milli; /* tokens */
};
struct hf_el_redirected {
    uint32_t key, at_ms;
};

/* An AoR that another server has lost: calls that went there ring on there. */
struct hf_el_moved {
    uint64_t aor, epoch; /* aor: a hash; epoch: while it was there */
    hf_time at;
    uint16_t from;
};
#define HF_EL_MOVED 4096

/* A flow that a binding was registered by: it is the way back as long as it stands. */
struct hf_el_flow {
    struct hf_list node; /* of the same connection */
    struct hf_sip_flow flow;
    struct hf_slice key; /* AoR, NUL, what tells the binding from its others */
    uint8_t bytes[];
};
struct hf_el_conn {
    uint64_t conn;
    struct hf_list flows;
};
/* An AoR whose bindings could not be stored. */
struct hf_el_dirty {
    struct hf_list node;
    struct hf_slice aor;
    struct hf_slice erased; /* keys with 16-bit lengths; owned */
    uint8_t bytes[];
};
/* A request that was sent without state: over a connection, in case that it is broken; or, as it
 * came by one, to a peer, in case that it dies. */
struct hf_el_sent {
    uint64_t conn;   /* 0: none */
    uint16_t server; /* 0: none */
    hf_time at;
    struct hf_sip_flow from;
    uint16_t n;
    uint8_t text[2048];
};
#define HF_EL_SENT 512

/* A binding whose flow is no more, to be ended when the proxy has returned. */
struct hf_el_lost {
    struct hf_list node;
    uint64_t binding; /* hf_el_binding_hash() */
    struct hf_slice aor;
    uint8_t bytes[];
};

/* What the proxy and the notifier said in a callback, to be told when they have returned. */
struct hf_el_said {
    uint64_t cookie;
    uint16_t status;
    bool has_msg; /* the response that is being handled */
};

struct hf_sip_element {
    struct hf_sip_element_conf conf; /* its texts: in `texts` */
    struct hf_sip_element_ops ops;
    void *ctx;
    uint8_t *texts; /* owned */
    struct hf_el_listen *listen;
    struct hf_slice *domain, *watchers;
    struct hf_sip_net *edge;
    struct hf_sip_keys keys;
    struct hf_sip_fleet *fleet;
    struct hf_sip_assign *assign;
    struct hf_sip_registrar *registrar;
    struct hf_sip_proxy *proxy;
    struct hf_sip_notifier *notifier;
    uint16_t self;
    struct hf_el_peer *peer[HF_SIP_SERVERS_MAX]; /* owned */
    struct hf_prng prng;
    hf_time now, wall_at;
    uint32_t wall_s;
    enum hf_sip_shed shed;
    bool was_fresh;    /* the table has been caught up with once */
    char contact[128]; /* of our dialogs */

    uint64_t cookie;
    size_t n_waits;
    struct hf_list waits, trying; /* the oldest first */
    struct hf_map by_cookie, by_key;
    struct hf_map binding;    /* by AoR: the last that waits for its BIND */
    struct hf_map keeping;    /* by key: who waits for its KEEP */
    struct hf_el_req *asking; /* the notifier, just now */
    struct hf_map loads;
    struct hf_list to_load;
    size_t n_loading;
    hf_time load_again; /* after the store had no answer */
    struct hf_map secrets;
    struct hf_list secrets_age;
    struct hf_el_nonce *nonce; /* sets of 4 */
    uint32_t nonce_sets, rate_sets, redirected_sets;
    struct hf_el_rate *rate;             /* sets of 4 */
    struct hf_el_redirected *redirected; /* sets of 4 */
    struct hf_el_moved *moved;           /* HF_EL_MOVED in sets of 4, made when first needed */
    struct hf_map flows, conns;
    struct hf_map dirty;
    struct hf_list dirties;
    struct hf_map known_peers;   /* addresses that are not limited: key and value are hf_el_addr */
    size_t n_away;               /* listening addresses that are elsewhere now */
    struct hf_map untold_by_aor; /* of hf_el_untold, with these: */
    struct hf_list untold, to_tell;
    size_t n_telling;
    hf_time tell_again;
    struct hf_el_sent *sent; /* HF_EL_SENT of them, made when first needed */
    uint32_t n_sent;
    const struct hf_sip_msg *response; /* that is being handled */
    uint16_t status;                   /* of the one that is being written */
    struct hf_el_said *said;           /* owned */
    size_t n_said, said_room;
    struct hf_list lost; /* of hf_el_lost */
    bool sending;
    struct hf_sip_flow broken[16]; /* ... as sending found out: told afterwards, likewise */
    size_t n_broken;
    uint8_t traced[HF_SIP_AOR_MAX];
    size_t n_traced;
    struct hf_sip_element_counters count;
    struct hf_sip_msg again; /* a request that has waited, parsed anew */
    uint8_t out[HF_SIP_MESSAGE_MAX + 1];
};

/* Routes of a request (RFC 3261 16.4). */
struct hf_el_route {
    uint8_t pop;
    bool pop_last;
    bool strict;   /* uri: what a strict router's last Route says */
    bool has_flow; /* a token of ours on top named one: */
    struct hf_sip_flow flow;
    bool broken;    /* ... did, in a former life of ours, or is somebody's guess */
    bool from_flow; /* ... it is the one by which this came: outwards */
    bool more;      /* Routes are left: */
    struct hf_sip_address next;
    struct hf_sip_uri uri; /* the Request-URI that counts */
};

struct hf_el_req {
    struct hf_sip_element *e;
    const struct hf_sip_msg *m;
    const struct hf_sip_flow *from;
    hf_time now;
    struct hf_sip_facts f;
    struct hf_sip_verdict v;
    struct hf_el_route route;
    struct hf_el_known *known;
    struct hf_slice aor;
    bool at_server;       /* the Request-URI names a server, no user */
    bool foreign;         /* ... is not of our domains */
    struct hf_el_wait *w; /* it has waited; NULL: it is new */
    bool held;            /* it waits (again) */
    uint8_t aor_text[HF_SIP_AOR_MAX];
};

/* --- element.c --- */
uint32_t hf_el_wall_s(const struct hf_sip_element *e, hf_time now);
void hf_el_send(struct hf_sip_element *e, const struct hf_sip_flow *to, struct hf_slice message);
/** Routes, facts, decision: all that is done with a request; again when it has waited. */
void hf_el_handle(struct hf_el_req *r);
/** A row that became known; feed: as hf_sip_assign_changed(). */
void hf_el_row(struct hf_sip_element *e, const struct hf_sip_row *row, bool feed, bool inserted,
               hf_time now);

/* --- element_facts.c --- */
const struct hf_el_listen *hf_el_listen_at(const struct hf_sip_element *e,
                                           const struct hf_sip_flow *flow);
const struct hf_el_listen *hf_el_listen_by_id(const struct hf_sip_element *e, uint16_t id);
/** Where something leaves: of this transport and family; not of the side of clients, if possible.
 */
const struct hf_el_listen *hf_el_listen_for(const struct hf_sip_element *e, unsigned transport,
                                            unsigned family);
bool hf_el_is_domain(const struct hf_sip_element *e, const struct hf_sip_host *host);
/** ... this one, at an address that is not elsewhere now. */
bool hf_el_is_here(const struct hf_sip_element *e, const struct hf_sip_host *host);
/** The same, and looked at now: what was said of it may be a second old (S1). */
bool hf_el_is_still_here(struct hf_sip_element *e, const struct hf_sip_host *host);
/** The AoR by which a URI is known here; empty: none. foreign: it is of no domain of ours. */
struct hf_slice hf_el_aor(const struct hf_sip_element *e, const struct hf_sip_uri *uri,
                          uint8_t room[HF_SIP_AOR_MAX], bool *ret_foreign);
/** 0, or the status to answer. */
uint16_t hf_el_routes(struct hf_el_req *r);
/** 0, or the status to answer. */
uint16_t hf_el_facts(struct hf_el_req *r);
uint32_t hf_el_loop(const struct hf_el_req *r);
/** 482, of a CANCEL 481: it has been here before, as it is. */
bool hf_el_loops(const struct hf_el_req *r);
bool hf_el_from_edge(const struct hf_sip_element *e, const struct hf_endpoint *peer);

/* --- element_auth.c --- */
enum hf_el_auth hf_el_authenticate(struct hf_el_req *r);
/** The user whose secret a request waits for. */
struct hf_slice hf_el_user(const struct hf_sip_element *e, const struct hf_sip_msg *m,
                           char room[HF_SIP_USERNAME_MAX + 1]);
void hf_el_challenge(struct hf_el_req *r);
void hf_el_secret(struct hf_sip_element *e, struct hf_slice user, const struct hf_sip_result *res,
                  hf_time now);
void hf_el_secret_forget(struct hf_sip_element *e, struct hf_slice aor);
void hf_el_secrets_fini(struct hf_sip_element *e);

/* --- element_register.c --- */
void hf_el_register(struct hf_el_req *r);
void hf_el_bound(struct hf_sip_element *e, struct hf_el_wait *w, const struct hf_sip_result *res,
                 hf_time now);
/** The row as an op that was STALE has found it. */
void hf_el_row_now(struct hf_sip_element *e, struct hf_slice aor, const struct hf_sip_result *res,
                   hf_time now);
void hf_el_expire(struct hf_sip_element *e, hf_time now);
void hf_el_learn(struct hf_sip_element *e, struct hf_slice aor, uint8_t agent, uint16_t agent_id);
/** Bindings and watchers are to be loaded. from: whose they were, if that lives. */
void hf_el_load(struct hf_sip_element *e, struct hf_slice aor, enum hf_sip_former former,
                uint16_t from);
struct hf_el_load *hf_el_loading(const struct hf_sip_element *e, struct hf_slice aor);
void hf_el_load_next(struct hf_sip_element *e);
void hf_el_loaded(struct hf_sip_element *e, const struct hf_sip_result *res, hf_time now);
/** The AoR is not ours any more; gone: its user is no more. */
void hf_el_left(struct hf_sip_element *e, struct hf_slice aor, bool gone, hf_time now);
/** The AoR is ours, but was another server's in between, unseen: its watchers here are told as if
 * they had heard of it (they subscribe again, and so hear what changed meanwhile), and it is
 * loaded. */
void hf_el_was_away(struct hf_sip_element *e, struct hf_slice aor, enum hf_sip_former former,
                    hf_time now);
/** The database is there again. */
void hf_el_store_dirty(struct hf_sip_element *e, hf_time now);
/** The connection that it was registered by, as long as it stands; NULL: none. */
const struct hf_sip_flow *hf_el_flow_of(const struct hf_sip_element *e,
                                        const struct hf_sip_binding *b);
/** The connection is no more: what was registered by it as a flow ends (RFC 5626), what was not may
 * still be found by its Contact. */
void hf_el_conn_closed(struct hf_sip_element *e, uint64_t conn, hf_time now);
/** Which registration of a binding this is: a later one over another flow is another one. */
uint64_t hf_el_binding_hash(const struct hf_sip_binding *b);
/** The flow of that registration is no more: it ends, with the next hf_el_end_lost(). */
void hf_el_lost(struct hf_sip_element *e, struct hf_slice aor, uint64_t binding);
void hf_el_end_lost(struct hf_sip_element *e, hf_time now);
void hf_el_registers_fini(struct hf_sip_element *e);

/* --- element_untold.c --- */
/** Watchers of this AoR are stored that are `from`'s to tell. -ENOMEM: they must be told now. */
HF_MUST int hf_el_untold_add(struct hf_sip_element *e, struct hf_slice aor, uint16_t from,
                             hf_time now);
void hf_el_untold_drop(struct hf_sip_element *e, struct hf_slice aor);
/** That server is dead: who is still stored is told in its stead (S2). */
void hf_el_died(struct hf_sip_element *e, uint16_t server);
/** Does it live, and has so for as long as telling takes? What it had to tell it tells then. */
bool hf_el_tells(const struct hf_sip_element *e, uint16_t server);
void hf_el_untold_next(struct hf_sip_element *e);
/** What is stored of one, when it is our turn. */
void hf_el_untold_found(struct hf_sip_element *e, const struct hf_sip_result *res, hf_time now);
void hf_el_untold_tick(struct hf_sip_element *e, hf_time now);
hf_time hf_el_untold_deadline(const struct hf_sip_element *e);
void hf_el_untold_fini(struct hf_sip_element *e);

/* --- element_forward.c --- */
/** A response is begun in e->out; false: there can be none. It goes without state, but for a final
 * one to an INVITE that has had a 100: that is repeated until its ACK. */
bool hf_el_begin(struct hf_sip_element *e, const struct hf_sip_msg *m,
                 const struct hf_sip_flow *from, uint16_t status, const char *reason,
                 struct hf_wr *w);
void hf_el_end(struct hf_sip_element *e, const struct hf_sip_msg *m, const struct hf_sip_flow *from,
               struct hf_wr *w);
void hf_el_respond(struct hf_el_req *r, uint16_t status, const char *reason);
void hf_el_refuse(struct hf_el_req *r, uint16_t status, unsigned retry_after);
void hf_el_redirect(struct hf_el_req *r);
/** "<sip:NAME@...>": a flow's name, for Path and Record-Route, at the address that the flow came to
 * if that is a service address, by `at`'s transport; else at `at`. params: of the URI, with ";lr".
 */
void hf_el_put_flow(const struct hf_sip_element *e, struct hf_wr *w, const struct hf_sip_flow *flow,
                    const struct hf_el_listen *at, const char *params);
bool hf_el_was_redirected(const struct hf_sip_element *e, const struct hf_sip_msg *m,
                          struct hf_slice aor, hf_time now);
/** An AoR was another server's, by this row; if it is so still, then by another one. */
void hf_el_moved(struct hf_sip_element *e, struct hf_slice aor, const struct hf_sip_row *before,
                 hf_time now);
void hf_el_to_peer(struct hf_el_req *r, uint16_t server, const struct hf_sip_mark *mark,
                   uint64_t epoch);
void hf_el_pass(struct hf_el_req *r);
void hf_el_relay(struct hf_sip_element *e, const struct hf_sip_msg *m,
                 const struct hf_sip_flow *from);
void hf_el_broken(struct hf_sip_element *e, const struct hf_sip_flow *to, hf_time now);
/** A peer has died: who has sent it something over a connection is told. */
void hf_el_unanswered(struct hf_sip_element *e, uint16_t server, hf_time now);
/** Where a URI is. 1: *ret_to; 0: a name that must be resolved; -HF_ENOTFOUND: nowhere. */
HF_MUST int hf_el_where(const struct hf_sip_element *e, const struct hf_sip_uri *uri,
                        struct hf_sip_flow *ret_to);
/** Likewise of a request, whose answers count; it is held if one is to come (0). */
HF_MUST int hf_el_where_for(struct hf_el_req *r, const struct hf_sip_uri *uri,
                            struct hf_sip_flow *ret_to);

/* --- element_calls.c --- */
void hf_el_call(struct hf_el_req *r);
void hf_el_here(struct hf_el_req *r); /* a request for the server itself */
/** May this one watch that one? 1, 0: see notifier.h. */
int hf_el_may_watch(const struct hf_sip_element *e, struct hf_slice watcher, enum hf_sip_package p,
                    struct hf_slice aor);
/** Is it refused to who asks, whether the user exists or not? To be known before anything is looked
 * up, so that the answers are the same. */
bool hf_el_forbidden(const struct hf_el_req *r);
void hf_el_notify(void *ctx, uint64_t cookie, struct hf_slice next_hop_uri,
                  const struct hf_sip_request *request, struct hf_slice more_fields,
                  struct hf_slice content_type, struct hf_slice body);
void hf_el_say(struct hf_sip_element *e, uint64_t cookie, uint16_t status, bool has_msg);

/* --- element_kept.c --- */
/** A SUBSCRIBE or PUBLISH of ours. */
void hf_el_state(struct hf_el_req *r);
/** The notifier's ops->hold and ops->store. */
void hf_el_hold_kept(void *ctx, uint64_t key, bool fresh, const struct hf_sip_flow *to,
                     struct hf_slice message);
void hf_el_store_kept(void *ctx, const struct hf_sip_op *op);
/** KEEP or DROP was done. */
void hf_el_kept(struct hf_sip_element *e, const struct hf_sip_result *res, hf_time now);
/** It ends, or waits for something else. */
void hf_el_keeps_no_more(struct hf_sip_element *e, struct hf_el_wait *w);

/* --- element_wait.c --- */
uint64_t hf_el_key(const struct hf_sip_msg *m, bool invite);
/** Keep the request until hf_el_resume(); NULL: there is no room, and it was refused. */
struct hf_el_wait *hf_el_hold(struct hf_el_req *r, enum hf_el_for what);
struct hf_el_wait *hf_el_waiting(const struct hf_sip_element *e, uint64_t cookie);
struct hf_el_wait *hf_el_waiting_key(const struct hf_sip_element *e, uint64_t key);
/** What READ, or an op that was STALE, has found. */
void hf_el_knows(struct hf_el_wait *w, const struct hf_sip_result *res);
/** The answer that goes when it has waited, and where; copied. false: no memory. */
bool hf_el_hold_reply(struct hf_el_wait *w, const struct hf_sip_flow *to, struct hf_slice reply);
/** It goes. */
void hf_el_reply(struct hf_sip_element *e, struct hf_el_wait *w);
void hf_el_resume(struct hf_sip_element *e, struct hf_el_wait *w, hf_time now);
/** The same request has come again. */
void hf_el_again(struct hf_sip_element *e, struct hf_el_wait *w, hf_time now);
hf_time hf_el_waits_deadline(const struct hf_sip_element *e);
void hf_el_wait_free(struct hf_sip_element *e, struct hf_el_wait *w);
struct hf_el_wait *hf_el_hold_own(struct hf_sip_element *e, struct hf_slice message,
                                  uint64_t cookie);
void hf_el_waits_tick(struct hf_sip_element *e, hf_time now);
void hf_el_waits_fini(struct hf_sip_element *e);
/** May who sent this, directly or by way of a trusted edge, send another request? */
bool hf_el_may(struct hf_sip_element *e, const struct hf_sip_msg *m,
               const struct hf_endpoint *source, hf_time now);
/** Its credentials were good: it does not count. */
void hf_el_trusted(struct hf_sip_element *e, const struct hf_sip_msg *m,
                   const struct hf_endpoint *source);
