/* holdfastd's configuration: the snapshot that /etc/holdfast/holdfast.conf becomes. */
#pragma once

#include "base/attr.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "os/conf.h"

#define HF_HOSTD_CONFIG_FILE "/etc/holdfast/holdfast.conf"

enum hf_hostd_transport {
    HF_HOSTD_MULTICAST,
    HF_HOSTD_UNICAST,
};

enum hf_hostd_sync {
    HF_HOSTD_SYNC_PULL, /* from each owner (A4) */
    HF_HOSTD_SYNC_DUMP, /* one state dump, then repair (A5) */
};

enum hf_hostd_engine {
    HF_HOSTD_ENGINE_EMBEDDED,
    HF_HOSTD_ENGINE_COROSYNC,
};

/* A device that fences hosts. */
struct hf_hostd_fence {
    struct hf_conf_title title;
    char *agent; /* fence_ipmilan, or an absolute path */
    int64_t level;
    struct hf_conf_list hosts; /* HOST or HOST:PLUG; "*": every host */
    struct hf_conf_pairs options;
    int64_t timeout_ms;
};

/** Never changed after it was loaded; all of it goes with hf_hostd_config_destroy(). */
struct hf_hostd_config {
    char *user; /* to run as after start; "": stay */
    struct {
        char *key_file;
    } cluster;
    struct {
        char *name;             /* a DNS label */
        struct hf_addr address; /* to advertise, port directory.port; len 0: none */
    } host;
    struct {
        int64_t transport;    /* enum hf_hostd_transport */
        struct hf_addr group; /* with port */
        char *interface;      /* "": the kernel's choice */
        int64_t ttl;
        int64_t port;
        struct hf_addr listen; /* with port */
        struct hf_conf_addrs peers;
        int64_t heartbeat_ms;
        int64_t sync; /* enum hf_hostd_sync */
        int64_t sync_wait_ms;
        int64_t listen_wait_ms;
    } directory;
    struct {
        struct hf_addr listen; /* len 0: none */
    } http;
    struct {
        struct hf_addr listen; /* len 0: none */
        char *domain;
        int64_t ttl_ms;
    } dns;
    struct {
        char *socket;
        char *group; /* "": root's */
    } control;
    struct {
        char *dir;
    } state;
    struct {
        int64_t level;  /* index in err, warn, info, debug: hf_hostd_config_level() */
        uint32_t trace; /* bits 1 << enum hf_trace */
    } log;
    struct {
        int64_t type;           /* enum hf_hostd_engine */
        char *run_dir;          /* embedded: "": in process only */
        int64_t expected_votes; /* embedded; 0: always quorate */
        int64_t silence_ms;     /* 0: the engine's default */
    } engine;
    struct {
        int64_t boot_wait_ms;
    } group;
    struct {
        char *device; /* "": none */
        int64_t timeout_ms;
    } watchdog;
    struct {
        char *root; /* path list */
    } agents;
    struct hf_conf_items fence; /* struct hf_hostd_fence */
};

/** The table of options. */
extern const struct hf_conf_schema hf_hostd_config_schema;

/** Load and check a file; errors as hf_conf_load(). */
HF_MUST int hf_hostd_config_load(const char *path, struct hf_err *err,
                                 struct hf_hostd_config **ret_config);
void hf_hostd_config_destroy(struct hf_hostd_config *c);

/** The effective values with their explanations, as a file. */
void hf_hostd_config_print(const struct hf_hostd_config *c, struct hf_buf *out);

/** log.level as the log knows it. */
enum hf_log_level hf_hostd_config_level(const struct hf_hostd_config *c);
