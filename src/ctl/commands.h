/* The commands of `holdfast`: one function each, and what all of them get. */
#pragma once

#include <jansson.h>

#include "ctl/ask.h"

struct hf_cmd_opt {
    const char *socket; /* borrowed; NULL: the default */
    int timeout_ms;
    bool json, watch, check, yes, batch;
    uint32_t rounds;               /* 0: not given */
    uint32_t delay_ms;             /* 0: not given */
    uint32_t detach_ms;            /* 0: not given */
    const char *bring, *host, *to; /* borrowed; NULL: not given */
};

/** arg: what stands after the command's name, n of them. Returns an enum hf_exit. */
typedef int hf_cmd_fn(const struct hf_cmd_opt *opt, int n, char **arg);

hf_cmd_fn hf_cmd_status, hf_cmd_members, hf_cmd_tree, hf_cmd_publish, hf_cmd_withdraw, hf_cmd_watch,
    hf_cmd_trace, hf_cmd_recorder, hf_cmd_keygen, hf_cmd_config, hf_cmd_reload, hf_cmd_metrics,
    hf_cmd_version, hf_cmd_group_show, hf_cmd_group_history, hf_cmd_group_create, hf_cmd_group_join,
    hf_cmd_group_leave, hf_cmd_group_switch, hf_cmd_group_force, hf_cmd_group_pause,
    hf_cmd_group_resume, hf_cmd_group_confirm, hf_cmd_clients, hf_cmd_drain, hf_cmd_undrain,
    hf_cmd_sip_status, hf_cmd_sip_servers, hf_cmd_sip_show, hf_cmd_sip_trace, hf_cmd_sip_plan,
    hf_cmd_sip_export, hf_cmd_sip_import, hf_cmd_sip_assign, hf_cmd_sip_pin, hf_cmd_sip_unpin,
    hf_cmd_sip_drain, hf_cmd_sip_rebalance, hf_cmd_sip_undrain, hf_cmd_sip_user, hf_cmd_top,
    hf_cmd_doctor;

/** "holdfast: " and the text to stderr; returns code. */
int hf_cmd_fail(int code, const char *fmt, ...) HF_PRINTF(2, 3);

/** Write to stdout at once: an enum hf_exit, with the reason on stderr. */
int hf_cmd_put(struct hf_slice s);

/** Let signals become readable, so that none is missed between two looks: a descriptor, or -errno.
 */
HF_MUST int hf_cmd_signals(const int *signos, size_t n);

/** Are colours wanted on stdout? Only where somebody looks at them, and wants them (no-color.org).
 */
bool hf_cmd_colours(void);

/** Ask, and print the JSON answer through render, or with --json as it came (one line if compact).
 */
int hf_cmd_ask_json(const struct hf_cmd_opt *opt, const char *what, const char *argument,
                    int (*render)(struct hf_buf *out, const json_t *answer), bool compact);
