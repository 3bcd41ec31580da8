/* The commands of `holdfast`: one function each, and what all of them get. */
#pragma once

#include "ctl/ask.h"

struct hf_cmd_opt {
    const char *socket; /* borrowed; NULL: the default */
    int timeout_ms;
    bool json, watch, check;
    uint32_t detach_ms; /* 0: not given */
};

/** arg: what stands after the command's name, n of them. Returns an enum hf_exit. */
typedef int hf_cmd_fn(const struct hf_cmd_opt *opt, int n, char **arg);

hf_cmd_fn hf_cmd_status, hf_cmd_members, hf_cmd_tree, hf_cmd_publish, hf_cmd_withdraw, hf_cmd_watch,
    hf_cmd_trace, hf_cmd_recorder, hf_cmd_keygen, hf_cmd_config, hf_cmd_reload, hf_cmd_metrics,
    hf_cmd_version;

/** "holdfast: " and the text to stderr; returns code. */
int hf_cmd_fail(int code, const char *fmt, ...) HF_PRINTF(2, 3);
