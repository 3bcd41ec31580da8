/* A notifier that says yes to everything and tells nobody: for the tests of the element alone. */
#include "core/sip/notifier.h"

#include <errno.h>

#include "base/mem.h"

struct hf_sip_notifier {
    struct hf_sip_notifier_ops ops;
    void *ctx;
    struct hf_sip_watch_counters count;
};

int hf_sip_notifier_create(const struct hf_sip_notifier_conf *conf,
                           const struct hf_sip_notifier_ops *ops, void *ctx, hf_time now,
                           struct hf_sip_notifier **ret_notifier)
{
    struct hf_sip_notifier *n = hf_alloc(sizeof(*n));
    (void)conf;
    (void)now;
    if (!n) {
        return -ENOMEM;
    }
    n->ops = *ops;
    n->ctx = ctx;
    *ret_notifier = n;
    return 0;
}

void hf_sip_notifier_destroy(struct hf_sip_notifier *n)
{
    hf_free(n);
}

void hf_sip_notifier_request(struct hf_sip_notifier *n, const struct hf_sip_msg *m,
                             const struct hf_sip_flow *from, struct hf_slice aor, uint64_t epoch,
                             struct hf_slice user, hf_time now)
{
    char text[2048];
    struct hf_slice s;
    struct hf_wr w;
    (void)aor;
    (void)epoch;
    (void)user;
    (void)now;
    hf_wr_init(&w, text, sizeof(text));
    if (hf_sip_begin_response(&w, m, 200, hf_slice(NULL, 0), hf_slice("ours", 4), &from->peer) ==
            0 &&
        hf_sip_end(&w, hf_slice(NULL, 0), hf_slice(NULL, 0), &s) == 0) {
        n->ops.reply(n->ctx, from, s);
    }
}

bool hf_sip_notifier_has_dialog(const struct hf_sip_notifier *n, const struct hf_sip_msg *m)
{
    (void)n;
    return hf_slice_eq(hf_sip_address_tag(&m->to), hf_slice("ours", 4));
}

void hf_sip_notifier_answered(struct hf_sip_notifier *n, uint64_t cookie, uint16_t status,
                              const struct hf_sip_msg *response, hf_time now)
{
    (void)n;
    (void)cookie;
    (void)status;
    (void)response;
    (void)now;
}

void hf_sip_notifier_changed(struct hf_sip_notifier *n, struct hf_slice aor,
                             const struct hf_sip_change *change, size_t n_changes, hf_time now)
{
    (void)aor;
    (void)change;
    (void)now;
    n->count.merged += n_changes;
}

void hf_sip_notifier_left(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now)
{
    (void)aor;
    (void)now;
    n->count.deactivated++;
}

void hf_sip_notifier_gone(struct hf_sip_notifier *n, struct hf_slice aor, hf_time now)
{
    (void)aor;
    (void)now;
    n->count.expired++;
}

void hf_sip_notifier_load(struct hf_sip_notifier *n, struct hf_slice aor,
                          const struct hf_sip_kept *kept, size_t n_kept, bool in_stead, hf_time now)
{
    (void)aor;
    (void)kept;
    (void)now;
    n->count.loaded += n_kept;
    n->count.in_stead += in_stead ? n_kept : 0;
}

void hf_sip_notifier_stored(struct hf_sip_notifier *n, const struct hf_sip_result *r, hf_time now)
{
    (void)r;
    (void)now;
    n->count.refreshed++;
}

void hf_sip_notifier_tick(struct hf_sip_notifier *n, hf_time now)
{
    (void)n;
    (void)now;
}

hf_time hf_sip_notifier_deadline(const struct hf_sip_notifier *n)
{
    (void)n;
    return HF_NEVER;
}

size_t hf_sip_notifier_count(const struct hf_sip_notifier *n)
{
    (void)n;
    return 0;
}

const struct hf_sip_watch_counters *hf_sip_notifier_counters(const struct hf_sip_notifier *n)
{
    return &n->count;
}
