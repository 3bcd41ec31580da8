/* A holdfast-pg follows a group of holdfastd: where the primary is, in which reign, with which
 * fence. */
#pragma once

#include "base/attr.h"
#include "base/err.h"
#include "core/pg/servers.h"
#include "os/loop.h"

struct hf_pg_group;

/** host: of the primary, "" none. Borrowed for the call. */
typedef void hf_pg_group_fn(void *arg, const struct hf_pg_group_view *view, const char *host);

/** Follow the group; socket: holdfastd's, NULL: the default one. While there is no holdfastd fn is
 * told the last that was known, without member and quorate. */
HF_MUST int hf_pg_group_create(struct hf_loop *loop, const char *name, const char *socket,
                               hf_pg_group_fn *fn, void *arg, struct hf_err *err,
                               struct hf_pg_group **ret_group);
void hf_pg_group_destroy(struct hf_pg_group *g);
