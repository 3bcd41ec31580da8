#include "base/map.h"

#include <assert.h>
#include <errno.h>

#include "base/hash.h"
#include "base/mem.h"

static const char dead_mark; /* a deleted slot's key points here, so that probing goes on past it */

static bool is_dead(const struct hf_map_slot *s)
{
    return !s->value && s->key.p == (const uint8_t *)&dead_mark;
}

void hf_map_init(struct hf_map *m, uint64_t seed)
{
    *m = (struct hf_map){.seed = seed};
}

void hf_map_fini(struct hf_map *m)
{
    hf_free(m->slot);
    hf_map_init(m, m->seed);
}

static struct hf_map_slot *find(const struct hf_map *m, struct hf_slice key, uint64_t hash)
{
    for (size_t i = hash & (m->n_slots - 1);; i = (i + 1) & (m->n_slots - 1)) {
        struct hf_map_slot *s = &m->slot[i];
        if (s->value ? s->hash == hash && hf_slice_eq(s->key, key) : !is_dead(s)) {
            return s;
        }
    }
}

void *hf_map_get(const struct hf_map *m, struct hf_slice key)
{
    return m->n_slots ? find(m, key, hf_hash(key, m->seed))->value : NULL;
}

/* A table at most half full of live and dead slots, so that find() always ends. */
static int make_room(struct hf_map *m)
{
    if ((m->n + m->n_dead + 1) * 2 <= m->n_slots) {
        return 0;
    }
    struct hf_map bigger = *m;
    bigger.n_slots = 16;
    while (bigger.n_slots < (m->n + 1) * 4) {
        bigger.n_slots *= 2;
    }
    bigger.slot = hf_alloc_array(bigger.n_slots, sizeof(*bigger.slot));
    if (!bigger.slot) {
        return -ENOMEM;
    }
    bigger.n_dead = 0;
    for (size_t i = 0; i < m->n_slots; i++) {
        if (m->slot[i].value) {
            *find(&bigger, m->slot[i].key, m->slot[i].hash) = m->slot[i];
        }
    }
    hf_free(m->slot);
    *m = bigger;
    return 0;
}

int hf_map_put(struct hf_map *m, struct hf_slice key, void *value)
{
    assert(value);
    int rc = make_room(m);
    if (rc) {
        return rc;
    }
    uint64_t hash = hf_hash(key, m->seed);
    struct hf_map_slot *s = find(m, key, hash);
    m->n += s->value == NULL;
    *s = (struct hf_map_slot){.key = key, .value = value, .hash = hash};
    return 0;
}

void *hf_map_remove(struct hf_map *m, struct hf_slice key)
{
    if (!m->n_slots) {
        return NULL;
    }
    struct hf_map_slot *s = find(m, key, hf_hash(key, m->seed));
    void *value = s->value;
    if (value) {
        *s = (struct hf_map_slot){.key = {.p = (const uint8_t *)&dead_mark}};
        m->n--;
        m->n_dead++;
    }
    return value;
}

void *hf_map_next(const struct hf_map *m, size_t *pos)
{
    while (*pos < m->n_slots) {
        void *v = m->slot[(*pos)++].value;
        if (v) {
            return v;
        }
    }
    return NULL;
}
