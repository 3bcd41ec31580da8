/* Parts: what one owner has in the tree, immutable and shared by version (A-r4). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/endpoint.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/map.h"
#include "codec/advert_v1.h"

/*
 *   part (owner, incarnation, version) --> chunk --> entry
 *                                      \-> chunk --> entry      sorted by name, each counted by
 *   next version --------------------- same chunk    reference, shared between versions
 *
 * A part is built by fork, put, remove and sealed by hf_part_seal(); from then on nobody changes
 * it. A change copies one chunk and the list of chunks, whatever the part's size.
 */

/* One service: name and value in one block. shared (ref). */
struct hf_entry {
    uint32_t refs;
    uint16_t value_len;
    uint8_t name_len;
    uint64_t hash; /* of name and value */
    uint8_t bytes[];
};

HF_MUST struct hf_entry *hf_entry_create(struct hf_slice name, struct hf_slice value);
struct hf_entry *hf_entry_ref(struct hf_entry *e);
void hf_entry_unref(struct hf_entry *e);

static inline struct hf_slice hf_entry_name(const struct hf_entry *e)
{
    return hf_slice(e->bytes, e->name_len);
}

static inline struct hf_slice hf_entry_value(const struct hf_entry *e)
{
    return hf_slice(e->bytes + e->name_len, e->value_len);
}

#define HF_CHUNK_MAX 64

struct hf_chunk {
    uint32_t refs;
    uint16_t n, room;
    struct hf_entry *entry[];
};

/* What makes two parts the same: cores that share a store share such parts. */
struct hf_part_key {
    uint64_t incarnation, version, hash;
    uint32_t owner, zero;
};

/* shared (ref) */
struct hf_part {
    struct hf_part_key key; /* key.hash: sum of the entries' hashes */
    uint32_t refs;
    uint32_t n_entries;
    uint32_t bytes; /* names and values in all */
    uint32_t n_chunks, chunks_room;
    bool sealed;
    uint8_t salt[HF_SALT_LEN]; /* of the owner's process (A-r1) */
    struct hf_chunk **chunk;
    struct hf_dir_store *store; /* where it is found by key; NULL before it is sealed */
};

/** An empty part of version 0, not sealed. NULL: out of memory. */
HF_MUST struct hf_part *hf_part_create(uint32_t owner, uint64_t incarnation,
                                       const uint8_t salt[HF_SALT_LEN]);
/** An unsealed part with the content of p, sharing its chunks. NULL: out of memory. */
HF_MUST struct hf_part *hf_part_fork(const struct hf_part *p);
struct hf_part *hf_part_ref(struct hf_part *p);
void hf_part_unref(struct hf_part *p);

/**
 * Put an entry (referenced, not taken), replacing one of its name. 0, -ENOMEM, or -HF_EFULL at the
 * limits of one owner; then the part is as it was.
 */
HF_MUST int hf_part_put(struct hf_part *p, struct hf_entry *e);
/** Put name and value; an equal entry that is there already stays (and stays shared). */
HF_MUST int hf_part_put_value(struct hf_part *p, struct hf_slice name, struct hf_slice value);
/** Take the entry of that name out. 0, -HF_ENOTFOUND or -ENOMEM. */
HF_MUST int hf_part_remove(struct hf_part *p, struct hf_slice name);

/** The entry of that name (borrowed), or NULL. */
struct hf_entry *hf_part_find(const struct hf_part *p, struct hf_slice name);

/* A place in a part's order of names. */
struct hf_part_pos {
    uint32_t chunk, i;
};

/** The first place whose name is not below `name`. */
struct hf_part_pos hf_part_seek(const struct hf_part *p, struct hf_slice name);
/** The entry there (borrowed), stepping on; NULL at the end. */
struct hf_entry *hf_part_next(const struct hf_part *p, struct hf_part_pos *pos);

/* A walk over what differs between two parts; stays valid as long as both are referenced. */
struct hf_part_diff {
    struct hf_part_pos before, after;
};

/**
 * The next name that differs (start with *it all zero): *ret_before or *ret_after is NULL where it
 * is missing; both borrowed. Either part may be NULL. False at the end.
 */
bool hf_part_diff_next(const struct hf_part *before, const struct hf_part *after,
                       struct hf_part_diff *it, struct hf_entry **ret_before,
                       struct hf_entry **ret_after);

/* ---- the store: names of owners, and sealed parts by key ---- */

#define HF_OWNER_NONE UINT32_MAX

struct hf_dir_owner {
    char name[HF_HOST_NAME_MAX + 1];
    uint8_t name_len; /* 0: the slot is free */
    uint32_t users;   /* cores to which this owner means something */
    struct hf_endpoint endpoint;
};

/*
 * One per process. The daemon has one core on it; the simulator's 10,000 cores share one, so that
 * the same part of the same owner is in memory once.
 */
struct hf_dir_store {
    struct hf_map owners; /* name -> struct hf_dir_owner */
    struct hf_map parts;  /* struct hf_part_key -> struct hf_part, not counted as a reference */
    struct hf_dir_owner *owner; /* owned; the index is the owner's id */
    uint32_t n_owners, owners_max;
};

HF_MUST int hf_dir_store_create(uint32_t owners_max, uint64_t seed,
                                struct hf_dir_store **ret_store);
void hf_dir_store_destroy(struct hf_dir_store *s);

/**
 * The id of an owner, made if need be. At the limit the slot of one that no core uses is taken
 * anew; HF_OWNER_NONE if there is none.
 */
uint32_t hf_dir_store_owner(struct hf_dir_store *s, struct hf_slice name);
/** The id of a known owner, or HF_OWNER_NONE. */
uint32_t hf_dir_store_find_owner(const struct hf_dir_store *s, struct hf_slice name);
struct hf_slice hf_dir_store_name(const struct hf_dir_store *s, uint32_t owner);

/** The sealed part with this key and salt (a new reference), or NULL. */
struct hf_part *hf_dir_store_part(struct hf_dir_store *s, const struct hf_part_key *key,
                                  const uint8_t salt[HF_SALT_LEN]);
/**
 * Seal p as `version`: from now on immutable and found by hf_dir_store_part(). Takes the reference
 * and returns p, or an equal part that was there before. Never fails: without memory it is just not
 * found.
 */
struct hf_part *hf_part_seal(struct hf_part *p, uint64_t version, struct hf_dir_store *s);

/**
 * The sealed part with this key and salt (a new reference): found in the store, or made of `from`
 * (NULL: of nothing) by the changes. -HF_EMALF when these do not lead to key->hash, -HF_EFULL,
 * -ENOMEM.
 */
HF_MUST int hf_part_lead(struct hf_dir_store *s, const struct hf_part_key *key,
                         const uint8_t salt[HF_SALT_LEN], const struct hf_part *from,
                         struct hf_changes changes, struct hf_part **ret_part);
