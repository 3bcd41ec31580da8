/* Definitions of groups and their resources: doc/man/holdfast-group.5. */
#pragma once

#include "codec/group_v1.h"
#include "os/conf.h"
#include "os/ocf.h"

enum hf_group_def_kind { HF_GROUP_DEF_COPY, HF_GROUP_DEF_ATTACHED };
enum hf_group_def_fence { HF_GROUP_DEF_FENCE_REQUIRED, HF_GROUP_DEF_FENCE_NONE };

struct hf_group_def_resource {
    struct hf_conf_title title;
    char *agent;                   /* "ocf:PROVIDER:TYPE"; "": leadership */
    int64_t kind;                  /* enum hf_group_def_kind */
    int64_t fence;                 /* enum hf_group_def_fence */
    struct hf_conf_pairs params;   /* of the agent; may hold secrets */
    struct hf_conf_list probe;     /* names of those that the access probe needs */
    struct hf_conf_pairs timeouts; /* action = duration */
    int64_t monitor_ms;            /* 0: what the agent advises */
};

struct hf_group_def {
    int64_t degraded;              /* 0 allow, 1 refuse */
    int64_t restart;               /* 0 auto, 1 always */
    struct hf_conf_items resource; /* struct hf_group_def_resource, in their order */
};

/** Read one: `file` stands before errors "FILE:LINE: ...". -HF_ECONFIG, -ENOMEM. */
HF_MUST int hf_group_def_load(const char *file, struct hf_slice text, struct hf_err *err,
                              struct hf_group_def **ret_def);
void hf_group_def_destroy(struct hf_group_def *def);

/** The i-th resource. */
const struct hf_group_def_resource *hf_group_def_at(const struct hf_group_def *def, size_t i);

/**
 * What the group is told of a resource: name, agent, probe, kind, flags, config_hash; the rest as
 * for a new one. meta: of its agent; NULL: leadership. -HF_ECONFIG with "FILE:LINE: ..." where the
 * definition does not fit the agent.
 */
HF_MUST int hf_group_def_resolve(const char *file, const struct hf_group_def_resource *r,
                                 const struct hf_ocf_meta *meta, struct hf_err *err,
                                 struct hf_gresource *ret_resource);

/** The configuration of one resource, which only its subgroup has (B4): a definition of its own,
 * always with the same bytes. */
void hf_group_def_text(const struct hf_group_def_resource *r, struct hf_buf *out);
uint64_t hf_group_def_hash(struct hf_slice text);

/** Copy text of the resource's agent for people, as much as fits, with "***" for the values of its
 * secret parameters. r may be NULL: nothing is known of its parameters. */
void hf_group_def_hide(const struct hf_group_def_resource *r, const char *text, char *ret_text,
                       size_t n);

/** Milliseconds given for an action; 0: none. */
int64_t hf_group_def_timeout(const struct hf_group_def_resource *r, const char *action);

/** The options as the list of a manual page. */
void hf_group_def_print_mdoc(struct hf_buf *out);
