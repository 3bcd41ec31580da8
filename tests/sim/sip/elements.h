/* Whole SIP servers (core/sip/element), one for each host, with clients, a lossy network and a
 * store: real messages, one seed. */
#pragma once

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/attr.h"
#include "core/sip/element.h"
#include "sim/runner.h"
#include "sim/sip/cast.h"
#include "support/sim_net.h"

enum {
    EW_SERVERS = 6,
    EW_CLIENTS = 12, /* client i registers AoR i */
    EW_BINDINGS = 8, /* stored of one AoR */
    EW_KEPT = 32,    /* likewise, subscriptions */
    EW_TEXT = 6000,
    EW_STORIES = 19,
};
#define EW_WALL 1800000000u

struct ew_stored { /* a binding in SQL */
    bool used;
    char key[300], uri[300], params[300], call_id[100], path[600];
    uint32_t cseq, life_s;
    hf_time until;
    bool outbound;
};
struct ew_kept { /* a subscription in SQL */
    bool used;
    char key[200];
    uint8_t data[2000];
    size_t n;
    hf_time until;
};
struct ew_row {
    bool used;
    uint16_t home, current;
    uint64_t epoch, change;
    uint8_t agent;
    uint16_t agent_id;
    struct ew_stored binding[EW_BINDINGS];
    struct ew_kept kept[EW_KEPT];
};
struct ew_server {
    bool up, cut; /* cut: from the database */
    enum hf_sip_role role;
    uint32_t boot;
    uint64_t change;  /* of the feed */
    bool away;        /* it was told so */
    hf_time store_at; /* its ops are done in order */
    struct hf_sip_element *e;
};
/* A client watches another one's presence: one subscription at a time, a new one when it is told
 * to, or hears nothing. */
struct ew_watch {
    bool wants;
    uint32_t whom, id, cseq; /* id: of its Call-ID */
    bool active, was_kept;   /* was_kept: in SQL, once: whoever has it tells us when it moves */
    char tag[80];            /* the server's; empty: not known */
    char target[100];        /* the server's Contact */
    uint32_t timer;          /* older ones are void */
    uint32_t status;         /* of the last SUBSCRIBE */
};
enum ew_habit { EW_FOLLOWS, EW_STRIPS, EW_IGNORES };
enum ew_place { EW_INTERNAL, EW_EDGE, EW_FOREIGN };
struct ew_client {
    enum ew_habit habit;
    enum ew_place place;
    bool tcp, forges;
    uint32_t call_id, cseq, nc;
    char nonce[60];     /* empty: not challenged yet */
    char uri[200];      /* the Request-URI of its REGISTERs */
    char backup[200];   /* of the 302; empty: none */
    uint16_t registrar; /* server that it goes to */
    uint32_t request;   /* older timers are void */
    uint32_t tries;     /* of this request */
    bool waits;
    uint32_t hops, seen; /* servers before this request; at most, with it */
    uint16_t last;       /* ... and which one that was */
    uint32_t redirects, challenges;
    char text[EW_TEXT]; /* the request under way */
    size_t n;
    hf_time registered;
    uint32_t registers, failures;
    /* a MESSAGE or an INVITE that it sends */
    uint32_t call, callee;
    unsigned call_status, refused; /* refused: how often an INVITE's final answer came */
    uint32_t heard;                /* the last call that came here, from whom */
    char invite[EW_TEXT];          /* that rings here; empty: none */
    struct hf_sip_flow ringing;
    uint32_t cancelled; /* CANCELs that ended it */
    struct ew_watch watch;
};

struct ew_world {
    struct sim_net net;
    bool db_there;
    uint64_t change;
    uint16_t n_servers, n_clients;
    struct ew_row row[EW_CLIENTS];
    struct ew_server server[EW_SERVERS];
    struct ew_client client[EW_CLIENTS];
    enum hf_sip_policy policy;
    bool must_authenticate, by_hand;
    hf_time feed_every, lead_every;
    FILE *trace;
    jmp_buf *fail;
    char why[300];
    uint64_t n_messages, n_registers, n_served, n_redirects, n_refused, n_challenged, n_calls,
        n_found, n_moves, hops_max, strip_hops_max, n_told, n_repeats, n_watching;
};

void ew_init(struct ew_world *w, uint64_t seed, uint16_t n_servers, uint16_t n_clients,
             uint16_t n_edges);
void ew_fini(struct ew_world *w);
void ew_failed(struct ew_world *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));
void ew_tell(struct ew_world *w, const char *fmt, ...) HF_PRINTF(2, 3);
uint64_t ew_below(struct ew_world *w, uint64_t n);
void ew_pass(struct ew_world *w, hf_time t);

void ew_crash(struct ew_world *w, uint16_t server);
void ew_boot(struct ew_world *w, uint16_t server);
void ew_database(struct ew_world *w, bool there);
void ew_look(struct ew_world *w, uint16_t server);
void ew_assign(struct ew_world *w, uint32_t client, uint16_t to);
/** The server has this row in its cache, whoever's it is. */
void ew_know(struct ew_world *w, uint16_t server, uint32_t client);
void ew_feed(struct ew_world *w, uint16_t server);
void ew_lead(struct ew_world *w);

void ew_register(struct ew_world *w, uint32_t client);
void ew_call(struct ew_world *w, uint32_t client, uint32_t callee, uint16_t server);
/** An INVITE, which rings there until it is cancelled. */
void ew_ring(struct ew_world *w, uint32_t client, uint32_t callee, uint16_t server);
void ew_cancel(struct ew_world *w, uint32_t client, uint16_t server);
/** A message reaches a client. */
void ew_client_hears(struct ew_world *w, uint32_t client, const struct hf_sip_flow *flow,
                     struct hf_slice text);
void ew_client_timer(struct ew_world *w, uint32_t client, uint32_t request);
/** It watches whom, by way of any server, from now on; timer: nothing was heard for a while. */
void ew_watch(struct ew_world *w, uint32_t client, uint32_t whom, uint16_t server);
void ew_watch_timer(struct ew_world *w, uint32_t client, uint32_t timer);
/** Is a subscription to whom stored under this tag? */
bool ew_is_kept(const struct ew_world *w, uint32_t whom, const char *tag);
/** A SUBSCRIBE in its dialog: watch.status becomes 200 if somebody has that. */
void ew_watch_refresh(struct ew_world *w, uint32_t client);
void ew_client_retransmits(struct ew_world *w, uint32_t client, uint32_t request);
/** A client sends this to a server; or back by the flow it came. */
void ew_client_sends(struct ew_world *w, uint32_t client, uint16_t server, struct hf_slice text);
void ew_set_timer(struct ew_world *w, uint32_t client, hf_time in, bool retransmit);
void ew_set_watch_timer(struct ew_world *w, uint32_t client, hf_time in);

/** The documented scenarios, for the runner. */
struct sim_story ew_story(size_t i);
void ew_story_tell(size_t i, FILE *out);
