/* What this host tells of its groups in the tree: /group/NAME, /group/NAME/primary and
 * /group/NAME/RESOURCE (doc/wire/http.md). */
#pragma once

#include "base/attr.h"
#include "base/err.h"

struct hf_hostd;
struct hf_group_tree;

/** Publish what is to be published, and keep it so. After the directory and the groups. */
HF_MUST int hf_group_tree_open(struct hf_hostd *h, struct hf_err *err,
                               struct hf_group_tree **ret_tree);
/** Before the groups are closed; the entries leave the tree. */
void hf_group_tree_close(struct hf_group_tree *t);
