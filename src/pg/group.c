/* Following a group through libholdfast, in the program's loop. */
#include "pg/group.h"

#include <errno.h>

#include "base/log.h"
#include "base/mem.h"
#include "holdfast/holdfast.h"

struct hf_pg_group {
    struct holdfast *h; /* owned */
    struct hf_io *io;   /* owned */
    hf_pg_group_fn *fn;
    void *arg;
};

static void on_group(void *arg, const struct holdfast_group *group)
{
    struct hf_pg_group *g = arg;
    struct hf_pg_group_view view = {
        .member = group->member != 0,
        .quorate = group->quorate != 0,
        .phase = (uint8_t)group->phase,
        .epoch = group->epoch,
        .address = group->address,
        .fence_text = group->fence_text,
    };
    g->fn(g->arg, &view, group->host);
}

static void on_status(void *arg, int code)
{
    (void)arg;
    if (code < 0) {
        hf_log_warn("group", "no connection to holdfastd: %s; trying again",
                    holdfast_strerror(code));
    } else {
        hf_log_info("group", "connected to holdfastd");
    }
}

static void on_io(void *arg, unsigned events)
{
    struct hf_pg_group *g = arg;
    (void)events;
    (void)!holdfast_dispatch(g->h, 0); /* out of memory: it is readable again */
}

int hf_pg_group_create(struct hf_loop *loop, const char *name, const char *socket,
                       hf_pg_group_fn *fn, void *arg, struct hf_err *err,
                       struct hf_pg_group **ret_group)
{
    struct hf_pg_group *g = hf_alloc(sizeof(*g));
    uint32_t follow;
    if (g == NULL) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    g->fn = fn;
    g->arg = arg;
    int rc = holdfast_create(socket, "holdfast-pg", &g->h);
    if (rc == 0) {
        holdfast_on_status(g->h, on_status, g);
        rc = holdfast_group_follow(g->h, name, on_group, g, &follow);
    }
    if (rc == 0) {
        rc = hf_io_create(loop, holdfast_fd(g->h), HF_IO_READ, on_io, g, &g->io);
    }
    if (rc != 0) {
        hf_err_set(err, rc, "cannot follow group %s: %s", name, holdfast_strerror(rc));
        hf_pg_group_destroy(g);
        return rc;
    }
    (void)!holdfast_dispatch(g->h, 0); /* begins to connect */
    *ret_group = g;
    return 0;
}

void hf_pg_group_destroy(struct hf_pg_group *g)
{
    if (g != NULL) {
        hf_io_destroy(g->io);
        holdfast_destroy(g->h);
        hf_free(g);
    }
}
