/* holdfast-sip: the program's parts, and what its main thread does for the workers. */
#pragma once

#include "base/log.h"
#include "os/key.h"
#include "os/loop.h"
#include "os/mailbox.h"
#include "sip/config.h"
#include "sip/names.h"
#include "sip/resolve.h"
#include "sip/store.h"
#include "sip/tls.h"
#include "sip/worker.h"

/*
 *   workers (threads): sockets, element     <--mails-->  main thread: tree, control, resolver, web
 *        |  ops, any thread                                  |
 *        v                                                   v
 *   store (thread): SQL; results, feed --mails--> workers    lead (thread): moves, operators' SQL
 */
struct hf_sip_node;
struct hf_sip_tree;
struct hf_sip_lead_thread;
struct hf_sip_control;
struct hf_sip_web;

struct hf_sip {
    const char *config_path; /* borrowed */
    struct hf_sip_config *config;
    struct hf_loop *loop;
    uint64_t seed, boot;
    hf_time started_at;
    uint8_t nonce_key[HF_SIP_NONCE_KEY_LEN];
    pthread_mutex_t tls_lock;
    struct hf_sip_tls *tls;       /* under the lock once workers run; NULL: none */
    struct hf_sip_listen *listen; /* as the element has them; hosts are borrowed from text */
    char (*listen_host)[256];
    size_t n_listen;
    struct hf_sip_workers *workers;
    struct hf_sip_node *node[HF_SIP_WORKERS_MAX];
    struct hf_sip_names *names;
    struct hf_sip_resolver *resolver;
    struct hf_sip_store *store;
    struct hf_mailbox *mailbox; /* what workers ask of the main thread */
    struct hf_io *io;
    struct hf_sip_tree *tree;
    struct hf_sip_lead_thread *lead;
    struct hf_sip_control *control;
    struct hf_sip_web *web;
    bool draining, started, rereading;
};

/* Mails to the main thread. */
enum {
    HF_SIP_ASK_RESOLVE = 1, /* struct hf_sip_ask_resolve, host */
    HF_SIP_ASK_REREAD,
    HF_SIP_TOLD_TRACE,  /* one JSON line */
    HF_SIP_TOLD_SHOW,   /* uint64_t id, JSON */
    HF_SIP_TOLD_ANSWER, /* struct hf_sip_lead_answer, text */
};
struct hf_sip_ask_resolve {
    uint64_t cookie;
    uint32_t worker;
    uint16_t port;
    uint8_t transport;
    bool sips;
};

/** Start the workers, once; the tree has been read, or there is none. */
void hf_sip_server_start(struct hf_sip *s);
/** SIGHUP. Errors with text, logged. */
HF_MUST int hf_sip_server_reload(struct hf_sip *s, struct hf_err *err);
/** What the tree is told: this server is to be emptied, or is to take clients again. */
void hf_sip_server_drain(struct hf_sip *s, bool drain);
