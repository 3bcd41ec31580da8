/* A store of what a primary's sessions are now, on its own host. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hftime.h"

struct hf_pair_primary;
struct hf_pair_store;

/**
 * Who is demoted may be promoted again before anybody else was: the group counts on its copy until
 * the next primary opens (X5). So what its sessions were must be there, though they have ended
 * here. A pair of cores that talk to each other makes a store of them as a backup would.
 *
 * tell: begins one more session with `to` (hf_pair_primary_begin()) and puts all of it, in a batch
 * that is sealed for it; false: there is no other one.
 * seed: of the store's tables.
 * 0 and the store, owned by the caller; -ENOMEM, or -HF_EFULL: more than a backup would take.
 */
HF_MUST int hf_pair_copy(bool (*tell)(void *arg, struct hf_pair_primary *to), void *arg,
                         uint64_t seed, hf_time now, struct hf_pair_store **ret_store);
