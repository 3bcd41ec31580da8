/* A planned move: what clients send here until they know the new host is sent on to it. */
#include "base/log.h"
#include "os/forward.h"
#include "pg/service_impl.h"

static void on_ready(struct hf_poll_io *io, unsigned ready)
{
    (void)ready;
    struct hf_pg_service *s = HF_CONTAINER_OF(io, struct hf_pg_service, forward_io);
    hf_forward_dispatch(s->forward);
}

void hf_pg_service_forward(struct hf_pg_service *s)
{
    const struct hf_pg_config *conf = s->pg->config;
    struct hf_endpoint address = hf_addr_to_endpoint(&conf->service.address);
    struct hf_err err;
    hf_pg_service_forward_end(s);
    int rc = hf_forward_open(conf->service.interface, &address, &err, &s->forward);
    rc = rc ? rc
            : hf_poll_add(s->pg->wire->poll, &s->forward_io, hf_forward_fd(s->forward),
                          HF_POLL_READ, on_ready);
    if (rc) { /* they send it again */
        hf_log_debug("", "what still comes is not forwarded: %s", hf_strerror(rc));
        hf_forward_close(s->forward);
        s->forward = NULL;
        return;
    }
    s->forward_until = hf_pg_service_now(s) + HF_FORWARD_TIME;
}

void hf_pg_service_forward_end(struct hf_pg_service *s)
{
    if (s->forward) {
        hf_log_debug("", "%u segments forwarded", hf_forward_count(s->forward));
        hf_poll_remove(s->pg->wire->poll, &s->forward_io);
        hf_forward_close(s->forward);
        s->forward = NULL;
    }
}
