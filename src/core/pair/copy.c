/* A copy of a reign's sessions: a primary and a backup core in one process, without a connection.
 */
#include "core/pair/copy.h"

#include "base/err.h"
#include "core/pair/backup.h"
#include "core/pair/primary.h"

#define REIGN 1 /* of these two; no other core ever hears of it */

struct pair {
    struct hf_pair_primary *primary;
    struct hf_pair_backup *backup;
    hf_time now;
    bool closed; /* the backup has given up, or the primary has */
};

static void obey(struct pair *c, const struct hf_pair_out *out)
{
    switch (out->kind) {
    case HF_PAIR_OUT_CONNECT:
        hf_pair_primary_connected(c->primary, c->now);
        hf_pair_backup_connected(c->backup, c->now);
        break;
    case HF_PAIR_OUT_CLOSE:
        c->closed = true;
        break;
    case HF_PAIR_OUT_CLOSE_GATE:
        hf_pair_primary_gated(c->primary, c->now);
        break;
    case HF_PAIR_OUT_ASK_SOLO:
    case HF_PAIR_OUT_ASK_RECORD:
        hf_pair_primary_answer(c->primary, out->id, true, c->now);
        break;
    case HF_PAIR_OUT_OPEN_GATE:
    case HF_PAIR_OUT_CONFIRMED:
    case HF_PAIR_OUT_SNAPSHOT: /* there was no session when it was asked for */
    case HF_PAIR_OUT_COUNT_:
        break;
    }
}

/* Until neither of them has anything to say. */
static void talk(struct pair *c)
{
    for (bool said = true; said && !c->closed;) {
        struct hf_pair_out out;
        struct hf_slice bytes;
        said = false;
        while (hf_pair_primary_next(c->primary, c->now, &out)) {
            obey(c, &out);
        }
        while (!c->closed && (bytes = hf_pair_primary_tosend(c->primary)).n) {
            said = true;
            hf_pair_backup_received(c->backup, bytes, c->now);
            hf_pair_primary_sent(c->primary, bytes.n);
        }
        while (!c->closed && (bytes = hf_pair_backup_tosend(c->backup)).n) {
            said = true;
            hf_pair_primary_received(c->primary, bytes, c->now);
            hf_pair_backup_sent(c->backup, bytes.n);
        }
        c->closed = hf_pair_backup_closes(c->backup) || c->closed;
    }
}

static int fill(struct pair *c, bool (*tell)(void *arg, struct hf_pair_primary *to), void *arg,
                struct hf_pair_store **ret_store)
{
    struct hf_pair_primary_info info;
    hf_pair_primary_backup(c->primary, 1, c->now);
    talk(c);
    while (!c->closed && tell(arg, c->primary)) {
        (void)hf_pair_primary_seal(c->primary, c->now);
        talk(c);
    }
    hf_pair_primary_info(c->primary, c->now, &info);
    if (c->closed || info.state != HF_PAIR_STATE_IN_SYNC || info.lag_batches) {
        return -HF_EFULL;
    }
    *ret_store = hf_pair_backup_take(c->backup);
    return *ret_store ? 0 : -HF_EFULL;
}

int hf_pair_copy(bool (*tell)(void *arg, struct hf_pair_primary *to), void *arg, uint64_t seed,
                 hf_time now, struct hf_pair_store **ret_store)
{
    const struct hf_pair_primary_conf primary = {.epoch = REIGN, .incarnation = 1};
    const struct hf_pair_backup_conf backup = {.epoch = REIGN, .seed = seed};
    struct pair c = {.now = now};
    *ret_store = NULL;
    int rc = hf_pair_primary_create(&primary, now, &c.primary);
    rc = rc ? rc : hf_pair_backup_create(&backup, now, &c.backup);
    rc = rc ? rc : fill(&c, tell, arg, ret_store);
    hf_pair_backup_destroy(c.backup);
    hf_pair_primary_destroy(c.primary);
    return rc;
}
