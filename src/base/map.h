/* Hash map from byte strings to pointers: open addressing, grows by doubling, keys stay the
 * caller's. */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"

struct hf_map_slot {
    struct hf_slice key; /* borrowed from the value while it is in the map */
    void *value;         /* borrowed; NULL: empty or deleted */
    uint64_t hash;
};

struct hf_map {
    struct hf_map_slot *slot; /* owned; a power of two of them */
    size_t n_slots, n, n_dead;
    uint64_t seed;
};

/** Empty; seed keeps outsiders from choosing keys that collide. */
void hf_map_init(struct hf_map *m, uint64_t seed);

/** Free the table (not the values). */
void hf_map_fini(struct hf_map *m);

/** The value under key, or NULL. */
void *hf_map_get(const struct hf_map *m, struct hf_slice key);

/**
 * Put value (not NULL) under key, replacing; key must live as long as the value is in the map.
 * Returns 0 or -ENOMEM (then nothing changed).
 */
HF_MUST int hf_map_put(struct hf_map *m, struct hf_slice key, void *value);

/** Take the value under key out; returns it, or NULL. */
void *hf_map_remove(struct hf_map *m, struct hf_slice key);

/** Walk: start with *pos = 0; NULL at the end. Removing the current one is allowed. */
void *hf_map_next(const struct hf_map *m, size_t *pos);
