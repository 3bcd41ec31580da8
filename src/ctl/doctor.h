/* `holdfast doctor`: facts about this host and what it knows of the others, and the findings made
 * of them. The judging is pure: doctor_host.c and doctor_ask.c collect, doctor_check.c and
 * doctor_corosync.c judge. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/limits.h"

#define HF_DOCTOR_TEXT 512
#define HF_DOCTOR_PEERS_MAX 64 /* more hosts are not asked, which is said */
#define HF_DOCTOR_RESOURCES_MAX 64
#define HF_DOCTOR_OUTPUT_MAX (256u << 10) /* of a program that is run */

/* "unchecked": it cannot be found out from here, and why. */
#define HF_DOCTOR_VERDICT_LIST(X)                                                                  \
    X(HF_DOCTOR_OK, "ok")                                                                          \
    X(HF_DOCTOR_WARNING, "warning")                                                                \
    X(HF_DOCTOR_FAULT, "fault")                                                                    \
    X(HF_DOCTOR_UNCHECKED, "unchecked")

enum hf_doctor_verdict {
#define HF_DOCTOR_VERDICT_ENUM(name, text) name,
    HF_DOCTOR_VERDICT_LIST(HF_DOCTOR_VERDICT_ENUM)
#undef HF_DOCTOR_VERDICT_ENUM
};

enum hf_doctor_file_state { HF_DOCTOR_FILE_UNKNOWN, HF_DOCTOR_FILE_ABSENT, HF_DOCTOR_FILE_THERE };

/* How something that was tried ended. */
struct hf_doctor_try {
    bool tried;
    int rc; /* 0: well; otherwise it failed, and text says how; not tried: text says why not */
    char text[HF_DOCTOR_TEXT];
};

struct hf_doctor_file {
    char path[HF_DOCTOR_TEXT];
    enum hf_doctor_file_state state;
    struct hf_doctor_try check; /* by the program that reads it */
};

struct hf_doctor_peer {
    char host[HF_HOST_NAME_MAX + 1];
    struct hf_doctor_try ask; /* GET /v1/view, over TLS with the cluster key */
    int64_t offset_ms;        /* its wall clock is ahead of ours by so much ... */
    int64_t round_trip_ms;    /* ... known to half of this */
    json_t *members;          /* owned; what it hears, as of `holdfast members` */
};

/* An action of an agent: `monitor` of a fence device, `validate-all` of a resource. */
struct hf_doctor_agent {
    char name[160]; /* "ipmi1", "orders/copy1" */
    char agent[160];
    struct hf_doctor_try action;
    json_t *hosts; /* owned; fence devices: those that it can fence, without plugs */
};

/* A program that runs here. */
struct hf_doctor_process {
    const char *program; /* static */
    long pid;            /* 0: none */
    int64_t files_max;   /* soft limit of RLIMIT_NOFILE; -1: not known */
    bool caps_known;
    uint64_t caps; /* effective, 1 << CAP_* */
    int policy;    /* scheduling policy, SCHED_*; -1: not known */
};

enum { HF_DOCTOR_HOSTD, HF_DOCTOR_PG, HF_DOCTOR_SIP, HF_DOCTOR_COROSYNC, HF_DOCTOR_PROGRAMS };

/* Kernel settings that matter, with the value that is wanted at least. */
#define HF_DOCTOR_SYSCTL_LIST(X)                                                                   \
    X("net.ipv4.tcp_sack", 1,                                                                      \
      "without it a client's long answer stalls for seconds when its connection is taken over")    \
    X("net.core.bpf_jit_enable", 1, "without it the output guard's program is interpreted: slow")

#define HF_DOCTOR_SYSCTL_COUNT(name, least, why) +1
enum { HF_DOCTOR_SYSCTLS = 0 HF_DOCTOR_SYSCTL_LIST(HF_DOCTOR_SYSCTL_COUNT) };
#undef HF_DOCTOR_SYSCTL_COUNT

/* Everything that is judged. All zero: nothing is known. */
struct hf_doctor_facts {
    char host[HF_HOST_NAME_MAX + 1]; /* host.name; "": not known */
    bool root;                       /* run as root: otherwise much cannot be seen */

    struct hf_doctor_file hostd, pg, sip; /* configuration files */
    bool configured;                      /* hostd's could be read: what follows is of it */
    bool corosync_engine;
    struct {
        char path[HF_DOCTOR_TEXT];
        struct hf_doctor_try load; /* file, owner, mode, length */
        uint32_t id;
    } key;
    struct {
        bool configured;
        char path[HF_DOCTOR_TEXT];
        struct hf_doctor_try look; /* is it there, is it a device? It is never opened. */
    } watchdog;

    struct hf_doctor_try daemon; /* did holdfastd answer? */
    json_t *status, *members;    /* owned; its answers */
    struct hf_doctor_peer peer[HF_DOCTOR_PEERS_MAX];
    size_t n_peers, n_more;

    struct {
        bool known, synchronised;
    } clock;
    struct {
        struct hf_doctor_try map, stats, quorum;   /* programs that were run ... */
        char *map_text, *stats_text, *quorum_text; /* ... and their output; owned, NULL: none */
    } corosync;
    int64_t late_us; /* longest delay of a process that wanted to run; -1: not measured */

    struct hf_doctor_agent fence[HF_FENCE_STEPS_MAX];
    size_t n_fences;
    struct hf_doctor_agent resource[HF_DOCTOR_RESOURCES_MAX];
    size_t n_resources;
    struct hf_doctor_try resources; /* could the groups' definitions be read? */

    struct hf_doctor_try egress; /* rc 0: BPF; 1: NFQUEUE, text: what is missing for BPF */
    struct hf_doctor_try repair; /* TCP_REPAIR */
    struct hf_doctor_process process[HF_DOCTOR_PROGRAMS];
    int64_t sysctl[HF_DOCTOR_SYSCTLS]; /* -1: not known */
};

/** Free what is owned. */
void hf_doctor_fini(struct hf_doctor_facts *f);

/**
 * A new array of findings {"verdict", "check", "object", "found", "expected", "remedy"}: `check` is
 * the name of what was looked at, the last two are "" where there is nothing to do. NULL: out of
 * memory.
 */
HF_MUST json_t *hf_doctor_judge(const struct hf_doctor_facts *f);
/** How many of them have this verdict ("fault"). */
size_t hf_doctor_count(const json_t *findings, const char *verdict);
/** For people: faults first, then warnings, what could not be checked, and what is well. */
HF_MUST int hf_doctor_render(struct hf_buf *out, const char *host, const json_t *findings,
                             bool colour);

/* ---- for the checks ---- */

/** Append a finding; found: a format. */
void hf_doctor_add(json_t *findings, enum hf_doctor_verdict verdict, const char *check,
                   const char *object, const char *expected, const char *remedy, const char *found,
                   ...) HF_PRINTF(7, 8);
/** Corosync: running, quorate, votes, its times against what this host measured. */
void hf_doctor_check_corosync(const struct hf_doctor_facts *f, json_t *findings);

/* ---- gathering ---- */

struct hf_cmd_opt;
struct hf_hostd_config;
/** What this host's files and kernel tell. */
void hf_doctor_look(struct hf_doctor_facts *f, const struct hf_hostd_config *config);
/** What must be asked: other hosts (members as of holdfastd), agents, Corosync, programs that check
 * their configuration. -errno: no event loop. */
HF_MUST int hf_doctor_ask(struct hf_doctor_facts *f, const struct hf_hostd_config *config);
