/* The cache of the assignment table: rows in slabs, an index of shards, epochs, assertions. */
#include "core/sip/assign.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/names.h"

#define SHARDS 256u       /* of the index: each grows by itself, so that no growth takes long */
#define SHARD_SLOTS 16u   /* at first */
#define CHUNK (64u << 10) /* bytes of a slab; its rows are of one size */
#define UNIT 8u           /* sizes of rows are multiples of this */
#define REF_BITS 13       /* of a reference: which unit of its slab */
#define CHUNKS_MAX (1u << (32 - REF_BITS))
#define HEAD 20u /* of a row, before its AoR */
#define CLASSES ((HEAD + HF_SIP_AOR_MAX + UNIT - 1) / UNIT + 1)
#define LOOK_MAX 4096  /* slots that are looked at for something to drop */
#define PICKY_MAX 2048 /* ... after so many also for what was used lately */
#define BYTES_MAX ((size_t)1 << 30)
#define ASSERT_INTERVAL HF_S(600)

#define PINNED 1u
#define AGENT_SHIFT 1
#define AGENT_MASK (3u << AGENT_SHIFT)
#define USED 8u /* since the hand came by */

/* As it is kept. Where it is free, its first bytes are the next free one's reference. */
struct row {
    uint64_t epoch;
    uint32_t hash;
    uint16_t home, current;
    uint16_t agent_id;
    uint8_t bits;
    uint8_t n;
    uint8_t aor[];
};
_Static_assert(offsetof(struct row, aor) == HEAD, "a row has no holes");

struct shard {
    uint32_t *slot; /* owned; references, 0: empty */
    uint32_t n_slots, n;
};

struct hf_sip_assign {
    struct hf_sip_assign_conf conf;
    enum hf_sip_table table;
    uint64_t change;
    struct shard shard[SHARDS];
    uint8_t **chunk;   /* owned, with what they point to; [0] is not used */
    uint8_t *class_of; /* owned; by chunk */
    uint32_t n_chunks, chunk_room;
    uint32_t free_row[CLASSES]; /* first of the free ones of each size */
    uint32_t fresh[CLASSES];    /* a slab of that size with room at its end; 0: none */
    uint32_t fresh_at[CLASSES]; /* ... from this byte on */
    size_t bytes;
    uint64_t n_rows, n_ours, n_pinned;  /* pinned: of ours */
    uint32_t hand_shard, hand_slot;     /* where to look next for something to drop */
    hf_time round_at;                   /* when this round of assertions began */
    uint32_t assert_shard, assert_slot; /* how far it is */
    struct hf_sip_assign_counters count;
};

HF_NAMES(hf_sip_agent_name, enum hf_sip_agent, HF_SIP_AGENT_LIST)
HF_NAMES(hf_sip_table_name, enum hf_sip_table, HF_SIP_TABLE_LIST)
HF_NAMES(hf_sip_apply_name, enum hf_sip_apply, HF_SIP_APPLY_LIST)

/* ---- slabs ---- */

static uint32_t class_for(size_t n_aor)
{
    return (uint32_t)((HEAD + n_aor + UNIT - 1) / UNIT);
}

static struct row *row_of(const struct hf_sip_assign *a, uint32_t ref)
{
    uint8_t *p = a->chunk[ref >> REF_BITS] + (size_t)(ref & ((1u << REF_BITS) - 1)) * UNIT;
    return (struct row *)(void *)p;
}

static bool chunk_table_grows(struct hf_sip_assign *a)
{
    uint32_t room = a->chunk_room == 0 ? 64 : a->chunk_room * 2;
    uint8_t **chunk = hf_realloc(a->chunk, room * sizeof(*chunk));
    if (chunk == NULL) {
        return false;
    }
    a->chunk = chunk;
    uint8_t *class_of = hf_realloc(a->class_of, room);
    if (class_of == NULL) {
        return false;
    }
    a->class_of = class_of;
    a->chunk_room = room;
    return true;
}

/* A new slab for rows of this class; false: bytes_max is reached, or memory is out. */
static bool add_chunk(struct hf_sip_assign *a, uint32_t class)
{
    if (a->bytes + CHUNK > a->conf.bytes_max || a->n_chunks == CHUNKS_MAX ||
        (a->n_chunks == a->chunk_room && !chunk_table_grows(a))) {
        return false;
    }
    uint8_t *p = hf_alloc(CHUNK);
    if (p == NULL) {
        return false;
    }
    a->bytes += CHUNK;
    a->chunk[a->n_chunks] = p;
    a->class_of[a->n_chunks] = (uint8_t) class;
    a->fresh[class] = a->n_chunks++;
    a->fresh_at[class] = 0;
    return true;
}

static uint32_t take_free(struct hf_sip_assign *a, uint32_t class)
{
    uint32_t ref = a->free_row[class];
    if (ref != 0) {
        memcpy(&a->free_row[class], row_of(a, ref), sizeof(ref));
        return ref;
    }
    if (a->fresh[class] == 0) {
        return 0;
    }
    ref = a->fresh[class] << REF_BITS | a->fresh_at[class] / UNIT;
    a->fresh_at[class] += class * UNIT;
    if (a->fresh_at[class] + class * UNIT > CHUNK) {
        a->fresh[class] = 0;
    }
    return ref;
}

static void give_back(struct hf_sip_assign *a, uint32_t ref)
{
    uint32_t class = a->class_of[ref >> REF_BITS];
    memcpy(row_of(a, ref), &a->free_row[class], sizeof(ref));
    a->free_row[class] = ref;
}

/* ---- index ---- */

static uint32_t hash_of(const struct hf_sip_assign *a, struct hf_slice aor)
{
    return (uint32_t)hf_hash(aor, a->conf.seed);
}

static uint32_t shard_of(uint32_t hash)
{
    return hash >> 24;
}

/* The slot of this AoR, or the empty one where it would be. The shard has slots, one of them empty.
 */
static uint32_t find(const struct hf_sip_assign *a, const struct shard *s, uint32_t hash,
                     struct hf_slice aor)
{
    for (uint32_t i = hash & (s->n_slots - 1);; i = (i + 1) & (s->n_slots - 1)) {
        if (s->slot[i] == 0) {
            return i;
        }
        const struct row *r = row_of(a, s->slot[i]);
        if (r->hash == hash && hf_slice_eq(hf_slice(r->aor, r->n), aor)) {
            return i;
        }
    }
}

static struct row *lookup(const struct hf_sip_assign *a, struct hf_slice aor)
{
    uint32_t hash = hash_of(a, aor);
    const struct shard *s = &a->shard[shard_of(hash)];
    if (s->n_slots == 0) {
        return NULL;
    }
    uint32_t ref = s->slot[find(a, s, hash, aor)];
    return ref != 0 ? row_of(a, ref) : NULL;
}

/* Room for one more, at most three quarters full; false: there is none. */
static bool shard_grows(struct hf_sip_assign *a, struct shard *s)
{
    if ((uint64_t)(s->n + 1) * 4 <= (uint64_t)s->n_slots * 3) {
        return true;
    }
    uint32_t n_slots = s->n_slots == 0 ? SHARD_SLOTS : s->n_slots * 2;
    size_t more = (size_t)(n_slots - s->n_slots) * sizeof(uint32_t);
    if (a->bytes + more > a->conf.bytes_max) {
        return false;
    }
    uint32_t *slot = hf_alloc_array(n_slots, sizeof(*slot));
    if (slot == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < s->n_slots; i++) {
        if (s->slot[i] != 0) {
            uint32_t at = row_of(a, s->slot[i])->hash & (n_slots - 1);
            while (slot[at] != 0) {
                at = (at + 1) & (n_slots - 1);
            }
            slot[at] = s->slot[i];
        }
    }
    hf_free(s->slot);
    s->slot = slot;
    s->n_slots = n_slots;
    a->bytes += more;
    return true;
}

/* Empty a slot and close the gap, so that a search that begins before it does not end there. */
static void unlink_slot(struct hf_sip_assign *a, struct shard *s, uint32_t gap)
{
    uint32_t mask = s->n_slots - 1;
    for (uint32_t i = (gap + 1) & mask; s->slot[i] != 0; i = (i + 1) & mask) {
        uint32_t wants = row_of(a, s->slot[i])->hash & mask;
        if (((i - wants) & mask) >= ((i - gap) & mask)) {
            s->slot[gap] = s->slot[i];
            gap = i;
        }
    }
    s->slot[gap] = 0;
    s->n--;
}

static bool ours(const struct hf_sip_assign *a, const struct row *r)
{
    return r->current == a->conf.self && a->conf.self != HF_SIP_NONE;
}

static bool ours_pinned(const struct hf_sip_assign *a, const struct row *r)
{
    return ours(a, r) && (r->bits & PINNED);
}

static void drop(struct hf_sip_assign *a, struct shard *s, uint32_t slot)
{
    uint32_t ref = s->slot[slot];
    a->n_ours -= ours(a, row_of(a, ref));
    a->n_pinned -= ours_pinned(a, row_of(a, ref));
    a->n_rows--;
    unlink_slot(a, s, slot);
    give_back(a, ref);
}

/* ---- a row that comes and goes ---- */

/* Drop rows that nobody asked for since the hand came by last, until one of this class is free. */
static uint32_t make_room(struct hf_sip_assign *a, uint32_t class)
{
    for (uint32_t looked = 0; looked < LOOK_MAX; looked++) {
        struct shard *s = &a->shard[a->hand_shard];
        if (a->hand_slot >= s->n_slots) {
            a->hand_shard = (a->hand_shard + 1) % SHARDS;
            a->hand_slot = 0;
            continue;
        }
        uint32_t ref = s->slot[a->hand_slot];
        struct row *r = ref != 0 ? row_of(a, ref) : NULL;
        if (r == NULL || ours(a, r)) {
            a->hand_slot++;
        } else if ((r->bits & USED) && looked < PICKY_MAX) {
            r->bits &= (uint8_t)~USED;
            a->hand_slot++;
        } else {
            drop(a, s, a->hand_slot); /* another one may be in its slot now */
            a->count.evicted++;
            if (a->free_row[class] != 0) {
                return take_free(a, class);
            }
        }
    }
    return 0;
}

/* The same for a shard that can't grow: one of its own rows, from about this slot on. */
static bool make_room_in(struct hf_sip_assign *a, struct shard *s, uint32_t from)
{
    for (uint32_t looked = 0; s->n_slots > 0 && looked < LOOK_MAX; looked++) {
        uint32_t slot = (from + looked) & (s->n_slots - 1);
        struct row *r = s->slot[slot] != 0 ? row_of(a, s->slot[slot]) : NULL;
        if (r == NULL || ours(a, r)) {
            continue;
        }
        if ((r->bits & USED) && looked < PICKY_MAX && looked < s->n_slots) {
            r->bits &= (uint8_t)~USED;
            continue;
        }
        drop(a, s, slot);
        a->count.evicted++;
        return true;
    }
    return false;
}

static uint32_t new_ref(struct hf_sip_assign *a, uint32_t class)
{
    uint32_t ref = take_free(a, class);
    if (ref == 0 && add_chunk(a, class)) {
        ref = take_free(a, class);
    }
    /* a longer one's place will do */
    for (uint32_t c = class + 1; ref == 0 && c < CLASSES && c <= class + 4; c++) {
        ref = take_free(a, c);
    }
    return ref != 0 ? ref : make_room(a, class);
}

static void set(struct row *r, const struct hf_sip_row *from)
{
    r->epoch = from->epoch;
    r->home = from->home;
    r->current = from->current;
    r->agent_id = from->agent_id;
    r->bits = (uint8_t)((r->bits & USED) | (from->pinned ? PINNED : 0) |
                        (unsigned)from->agent << AGENT_SHIFT);
}

static enum hf_sip_apply insert(struct hf_sip_assign *a, const struct hf_sip_row *row)
{
    uint32_t hash = hash_of(a, row->aor);
    struct shard *s = &a->shard[shard_of(hash)];
    bool room = shard_grows(a, s) || make_room_in(a, s, hash);
    uint32_t ref = room ? new_ref(a, class_for(row->aor.n)) : 0;
    if (ref == 0) {
        a->count.full++;
        return HF_SIP_APPLY_FULL;
    }
    struct row *r = row_of(a, ref);
    memset(r, 0, sizeof(*r));
    set(r, row);
    r->hash = hash;
    r->n = (uint8_t)row->aor.n;
    r->bits |= USED;
    memcpy(r->aor, row->aor.p, row->aor.n);
    s->slot[find(a, s, hash, row->aor)] = ref; /* looked up last, as dropping moves others */
    s->n++;
    a->n_rows++;
    a->n_ours += ours(a, r);
    a->n_pinned += ours_pinned(a, r);
    a->count.rows_new++;
    return ours(a, r) ? HF_SIP_APPLY_GAINED : HF_SIP_APPLY_NEW;
}

static bool same(const struct row *r, const struct hf_sip_row *row)
{
    return r->home == row->home && r->current == row->current &&
           ((r->bits & PINNED) != 0) == row->pinned;
}

static enum hf_sip_apply replace(struct hf_sip_assign *a, struct row *r,
                                 const struct hf_sip_row *row)
{
    bool was = ours(a, r);
    a->n_pinned -= ours_pinned(a, r);
    set(r, row);
    a->n_pinned += ours_pinned(a, r);
    bool is = ours(a, r);
    a->n_ours += is;
    a->n_ours -= was;
    return is == was ? HF_SIP_APPLY_NEWER : is ? HF_SIP_APPLY_GAINED : HF_SIP_APPLY_LOST;
}

static enum hf_sip_apply apply(struct hf_sip_assign *a, const struct hf_sip_row *row, bool feed)
{
    if (row->aor.n == 0 || row->aor.n > HF_SIP_AOR_MAX || row->epoch == 0 ||
        row->epoch > INT64_MAX || row->home == HF_SIP_NONE || row->current == HF_SIP_NONE ||
        row->agent >= HF_SIP_AGENT_COUNT_) {
        a->count.rows_bad++;
        return HF_SIP_APPLY_BAD;
    }
    struct row *r = lookup(a, row->aor);
    if (r == NULL && feed && row->current != a->conf.self) {
        a->count.passed_over++;
        return HF_SIP_APPLY_PASSED_OVER;
    }
    if (r == NULL) {
        return insert(a, row);
    }
    if (row->epoch < r->epoch) {
        a->count.rows_older++;
        return HF_SIP_APPLY_OLDER;
    }
    if (row->epoch == r->epoch && same(r, row)) {
        set(r, row);
        return HF_SIP_APPLY_SAME;
    }
    if (row->epoch == r->epoch) {
        a->count.conflicts++;
    } else {
        a->count.rows_newer++;
    }
    return replace(a, r, row);
}

enum hf_sip_apply hf_sip_assign_read(struct hf_sip_assign *a, const struct hf_sip_row *row)
{
    return apply(a, row, false);
}

enum hf_sip_apply hf_sip_assign_changed(struct hf_sip_assign *a, const struct hf_sip_row *row)
{
    return apply(a, row, true);
}

bool hf_sip_assign_forget(struct hf_sip_assign *a, struct hf_slice aor)
{
    uint32_t hash = hash_of(a, aor);
    struct shard *s = &a->shard[shard_of(hash)];
    if (s->n_slots == 0) {
        return false;
    }
    uint32_t slot = find(a, s, hash, aor);
    if (s->slot[slot] == 0) {
        return false;
    }
    bool was = ours(a, row_of(a, s->slot[slot]));
    drop(a, s, slot);
    return was;
}

bool hf_sip_assign_learn(struct hf_sip_assign *a, struct hf_slice aor, enum hf_sip_agent agent,
                         uint16_t agent_id)
{
    assert((unsigned)agent < HF_SIP_AGENT_COUNT_);
    struct row *r = lookup(a, aor);
    if (r == NULL || !ours(a, r)) {
        return false;
    }
    r->bits = (uint8_t)((r->bits & ~AGENT_MASK) | (unsigned)agent << AGENT_SHIFT);
    r->agent_id = agent_id;
    return true;
}

/* ---- reading ---- */

static void get(const struct row *r, struct hf_sip_row *ret_row)
{
    *ret_row = (struct hf_sip_row){
        .aor = hf_slice(r->aor, r->n),
        .home = r->home,
        .current = r->current,
        .epoch = r->epoch,
        .pinned = (r->bits & PINNED) != 0,
        .agent = (uint8_t)((r->bits & AGENT_MASK) >> AGENT_SHIFT),
        .agent_id = r->agent_id,
    };
}

bool hf_sip_assign_get(const struct hf_sip_assign *a, struct hf_slice aor,
                       struct hf_sip_row *ret_row)
{
    struct row *r = lookup(a, aor);
    if (r == NULL) {
        return false;
    }
    if (!(__atomic_load_n(&r->bits, __ATOMIC_RELAXED) & USED)) {
        __atomic_fetch_or(&r->bits, USED, __ATOMIC_RELAXED); /* other readers may be at it */
    }
    get(r, ret_row);
    return true;
}

bool hf_sip_assign_next(const struct hf_sip_assign *a, uint64_t *pos, struct hf_sip_row *ret_row)
{
    uint32_t shard = (uint32_t)(*pos >> 32), slot = (uint32_t)*pos;
    for (; shard < SHARDS; shard++, slot = 0) {
        const struct shard *s = &a->shard[shard];
        for (; slot < s->n_slots; slot++) {
            if (s->slot[slot] != 0) {
                get(row_of(a, s->slot[slot]), ret_row);
                *pos = (uint64_t)shard << 32 | (slot + 1);
                return true;
            }
        }
    }
    *pos = (uint64_t)SHARDS << 32;
    return false;
}

void hf_sip_assign_info(const struct hf_sip_assign *a, struct hf_sip_assign_info *ret_info)
{
    *ret_info = (struct hf_sip_assign_info){
        .n_rows = a->n_rows,
        .n_ours = a->n_ours,
        .n_pinned = a->n_pinned,
        .bytes = a->bytes + sizeof(*a) + a->chunk_room * (sizeof(*a->chunk) + 1),
    };
}

const struct hf_sip_assign_counters *hf_sip_assign_counters(const struct hf_sip_assign *a)
{
    return &a->count;
}

/* ---- the database, and assertions ---- */

void hf_sip_assign_database(struct hf_sip_assign *a, bool there)
{
    if (!there && a->table != HF_SIP_TABLE_AWAY) {
        a->table = HF_SIP_TABLE_AWAY;
        a->count.away++;
    } else if (there && a->table == HF_SIP_TABLE_AWAY) {
        a->table = HF_SIP_TABLE_CATCHING_UP;
    }
}

void hf_sip_assign_caught_up(struct hf_sip_assign *a, uint64_t change, hf_time now)
{
    if (a->table == HF_SIP_TABLE_AWAY) {
        return; /* an answer from before it went */
    }
    if (change < a->change) {
        a->count.gone_back++;
        a->round_at = now - a->conf.assert_interval; /* all of it is due */
        a->assert_shard = a->assert_slot = 0;
    }
    a->change = change;
    a->table = HF_SIP_TABLE_FRESH;
}

uint64_t hf_sip_assign_change(const struct hf_sip_assign *a)
{
    return a->change;
}

enum hf_sip_table hf_sip_assign_table(const struct hf_sip_assign *a)
{
    return a->table;
}

/* When this shard's turn is in the round. */
static hf_time turn(const struct hf_sip_assign *a, uint32_t shard)
{
    return a->round_at + a->conf.assert_interval / SHARDS * (shard + 1);
}

bool hf_sip_assign_next_assert(struct hf_sip_assign *a, hf_time now, struct hf_sip_row *ret_row)
{
    while (a->table == HF_SIP_TABLE_FRESH && now >= turn(a, a->assert_shard)) {
        const struct shard *s = &a->shard[a->assert_shard];
        while (a->assert_slot < s->n_slots) {
            uint32_t ref = s->slot[a->assert_slot++];
            if (ref != 0 && ours(a, row_of(a, ref))) {
                get(row_of(a, ref), ret_row);
                a->count.asserted++;
                return true;
            }
        }
        a->assert_slot = 0;
        if (++a->assert_shard == SHARDS) {
            a->assert_shard = 0;
            a->round_at = now;
        }
    }
    return false;
}

hf_time hf_sip_assign_deadline(const struct hf_sip_assign *a)
{
    return a->table == HF_SIP_TABLE_FRESH ? turn(a, a->assert_shard) : HF_NEVER;
}

/* ---- its life ---- */

int hf_sip_assign_create(const struct hf_sip_assign_conf *conf, hf_time now,
                         struct hf_sip_assign **ret_assign)
{
    struct hf_sip_assign *a = hf_alloc(sizeof(*a));
    if (a == NULL) {
        return -ENOMEM;
    }
    a->conf = *conf;
    a->conf.bytes_max = conf->bytes_max != 0 ? conf->bytes_max : BYTES_MAX;
    a->conf.assert_interval = conf->assert_interval != 0 ? conf->assert_interval : ASSERT_INTERVAL;
    a->n_chunks = 1; /* so that no reference is 0 */
    a->round_at = now;
    if (!chunk_table_grows(a)) {
        hf_sip_assign_destroy(a);
        return -ENOMEM;
    }
    a->chunk[0] = NULL;
    *ret_assign = a;
    return 0;
}

void hf_sip_assign_destroy(struct hf_sip_assign *a)
{
    if (a == NULL) {
        return;
    }
    for (uint32_t i = 1; i < a->n_chunks; i++) {
        hf_free(a->chunk[i]);
    }
    for (uint32_t i = 0; i < SHARDS; i++) {
        hf_free(a->shard[i].slot);
    }
    hf_free(a->chunk);
    hf_free(a->class_of);
    hf_free(a);
}
