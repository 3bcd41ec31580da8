/* The daemon: the directory core, connected to sockets, files and readers. */
#pragma once

#include <jansson.h>

#include "core/directory/directory.h"
#include "hostd/config.h"
#include "hostd/tree.h"
#include "os/http.h"
#include "os/key.h"
#include "os/loop.h"
#include "os/seal.h"
#include "os/tls.h"
#include "os/udp.h"

struct hf_buf;
struct hf_control;    /* control.h */
struct hf_web;        /* web.h */
struct hf_dns;        /* dns.h */
struct hf_groups;     /* group.h */
struct hf_group_tree; /* group_tree.h */
struct hf_timeline;   /* timeline.h */

/* What the daemon itself counts, beside the core's counters: name, text. */
#define HF_HOSTD_COUNTER_LIST(X)                                                                   \
    X(datagrams_malformed, "datagrams refused: malformed or truncated")                            \
    X(datagrams_future, "datagrams refused: of a newer protocol version")                          \
    X(datagrams_other_cluster, "datagrams refused: sealed with another cluster's key")             \
    X(datagrams_forged, "datagrams refused: not authentic")                                        \
    X(bodies_malformed, "authentic adverts and answers refused: malformed content")                \
    X(pull_bytes_received, "bytes of answers to our pulls")                                        \
    X(pull_bytes_served, "bytes of answers to pulls of others")                                    \
    X(pulls_refused, "pulls of others refused: not for us, or not ready")                          \
    X(sync_ms, "milliseconds from start until the first sync was done")

struct hf_hostd_counters {
#define HF_HOSTD_COUNTER_FIELD(name, text) uint64_t name;
    HF_HOSTD_COUNTER_LIST(HF_HOSTD_COUNTER_FIELD)
#undef HF_HOSTD_COUNTER_FIELD
};

/* A host that fell silent and has not come back: for `holdfast status`. */
struct hf_hostd_lost {
    char host[HF_HOST_NAME_MAX + 1]; /* "": none */
    hf_time at;
};
#define HF_HOSTD_LOST_MAX 8            /* the last so many are remembered */
#define HF_HOSTD_LOST_SHOWN HF_S(3600) /* by then it is not coming back by itself */

struct hf_hostd {
    struct hf_loop *loop;
    const char *config_path;
    struct hf_hostd_config *config; /* owned; swapped whole on reload */
    struct hf_key key;
    hf_time started_at;
    bool stopping;

    struct hf_dir_store *store;
    struct hf_dir *dir;
    struct hf_dir_out *out; /* of the last step */
    struct hf_timer *timer; /* the core's deadline */
    struct hf_follows *follows;

    struct hf_udp *udp;
    struct hf_sealer *sealer; /* once our incarnation is on disk */
    struct hf_opener *opener;
    struct hf_tls *tls;
    struct hf_http_server *pull_server;
    struct hf_hostd_pulls *pulls; /* drive.c */
    hf_time conflict_at;          /* another host with our name was heard; 0: never */
    char conflict_from[HF_ADDR_STR_LEN];
    struct hf_hostd_lost lost[HF_HOSTD_LOST_MAX];
    hf_time refused_at; /* a local program's connection was closed; 0: never */
    char refused[192];  /* whose, and why */
    int persist_rc;     /* of the last try to write our incarnation */
    int reload_rc;      /* of the last reload */

    struct hf_control *control;
    struct hf_web *web;
    struct hf_dns *dns;
    struct hf_groups *groups; /* NULL: not open */
    struct hf_group_tree *group_tree;
    struct hf_timeline *timeline;
    struct hf_hostd_counters count;
};

/* ---- drive.c: the core and the network ---- */

/** Sockets, keys, the core. Errors have a text. */
HF_MUST int hf_drive_open(struct hf_hostd *h, struct hf_err *err);
void hf_drive_close(struct hf_hostd *h);
/** One step of the core, its acts done. */
void hf_drive_step(struct hf_hostd *h, const struct hf_dir_in *in);
/** PUBLISH or WITHDRAW: the result of the step. */
HF_MUST int hf_drive_local(struct hf_hostd *h, const struct hf_dir_in *in);
/** The last failure of a pull from this owner: 0 or -HF_E*, -errno. */
int hf_drive_pull_error(const struct hf_hostd *h, uint32_t owner);

/* ---- report.c: what people and programs ask ---- */

/** JSON objects and arrays as `holdfast status --json` and `holdfast members --json` print them. */
void hf_report_status(struct hf_hostd *h, struct hf_buf *out);
void hf_report_members(struct hf_hostd *h, struct hf_buf *out);
/** For another host's `holdfast doctor`: {"now_ms", "members"}, whom this host hears and what time
 * it has (wall clock, ms since 1970). */
void hf_report_view(struct hf_hostd *h, struct hf_buf *out);
/** The problems of a status, what is wrong and what to do, as a JSON array; managers and sip as
 * hf_programs_managers() and hf_programs_sip() give them. */
void hf_report_problems(const struct hf_hostd *h, const json_t *managers, const json_t *sip,
                        struct hf_buf *out);
/** How a host is: "self", "alive", "probing", "syncing", "waiting". Static. */
const char *hf_report_member_state(const struct hf_hostd *h, uint32_t id);
/** Where it is reached, "" if that is not known. */
void hf_report_member_address(const struct hf_hostd *h, uint32_t id,
                              char ret_text[HF_ADDR_STR_LEN]);
/** Counters and gauges in Prometheus' text format. */
void hf_report_metrics(struct hf_hostd *h, struct hf_buf *out);

/* ---- reload.c ---- */

/** Read the configuration file again; nothing changes if it is not valid. 0 or the error with text.
 */
HF_MUST int hf_hostd_reload(struct hf_hostd *h, struct hf_err *err);
