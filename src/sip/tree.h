/* The servers of the cluster: what this one tells of itself in the directory's tree, what the
 * others tell, and whether it leads. */
#pragma once

#include <jansson.h>

#include "sip/server.h"

/*
 * Each server holds the entry /sip/servers/NAME: addresses by transport, role, weight, state, rows,
 * requests/s, CPU, busy. State at once, figures each five seconds. doc/design/sip.md has its
 * members. Others are heard of in the same way (others.h). Without a holdfastd nothing is told and
 * nobody is heard: the server is alone.
 *
 * The group sip.group says who leads; not before the tree has been known for TREE_SETTLE, as who is
 * not in it is taken for dead. It also says which members' hosts are dead, before the tree does.
 */

/** Owned by s->tree; starts the workers (hf_sip_server_start()) when the tree was read, or can't
 * be. Errors with text. */
HF_MUST int hf_sip_tree_open(struct hf_sip *s, struct hf_err *err);
/** The entry leaves the tree. NULL is fine. */
void hf_sip_tree_close(struct hf_sip_tree *t);
/** State, role or weight has changed. */
void hf_sip_tree_touch(struct hf_sip_tree *t);

/** What this server tells now: a new reference. NULL: no memory. */
json_t *hf_sip_tree_self(struct hf_sip_tree *t);
/** All servers that were heard of: an array, a new reference. */
json_t *hf_sip_tree_servers(struct hf_sip_tree *t);
