/* What holdfast-sip's main thread does for its workers, and reloading. */
#include "sip/server.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "os/program.h"
#include "sip/control.h"
#include "sip/lead.h"
#include "sip/node.h"
#include "sip/tree.h"

void hf_sip_server_start(struct hf_sip *s)
{
    struct hf_err err;
    if (s->started) {
        return;
    }
    s->started = true;
    if (hf_sip_workers_start(s->workers, &err)) {
        hf_log_err("", "%s", err.text);
        hf_loop_stop(s->loop);
        return;
    }
    hf_log_info("", "holdfast-sip %s serves with %u workers", HF_VERSION,
                hf_sip_workers_n(s->workers));
    hf_program_notify("READY=1");
    hf_sip_tree_touch(s->tree);
}

void hf_sip_server_drain(struct hf_sip *s, bool drain)
{
    if (s->draining != drain) {
        hf_log_info("", drain ? "this server is drained: its clients are moved to others"
                              : "this server takes clients again");
    }
    s->draining = drain;
    hf_sip_tree_touch(s->tree);
}

/* Certificates of connections to come; those that stand keep theirs. */
static void use_tls(struct hf_sip *s, struct hf_sip_tls *next)
{
    pthread_mutex_lock(&s->tls_lock);
    struct hf_sip_tls *former = s->tls;
    s->tls = next;
    pthread_mutex_unlock(&s->tls_lock);
    hf_sip_nodes_tls(s);
    hf_sip_tls_unref(former);
}

int hf_sip_server_reload(struct hf_sip *s, struct hf_err *err)
{
    struct hf_sip_config *next = NULL;
    struct hf_sip_tls *tls = NULL;
    char key[64];
    hf_program_notify("RELOADING=1");
    int rc = hf_sip_config_load(s->config_path, err, &next);
    if (rc == 0 && hf_conf_fixed_change(&hf_sip_config_schema, s->config, next, key, sizeof(key))) {
        rc = hf_err_set(err, -HF_ECONFIG,
                        "%s: %s cannot change while holdfast-sip runs: restart it; nothing was "
                        "changed",
                        s->config_path, key);
    } else if (rc == 0) {
        rc = hf_sip_tls_load(next, err, &tls);
    }
    if (rc) {
        hf_log_err("", "reload refused: %s", err->text);
    } else {
        use_tls(s, tls);
        /* texts of the former one are in use everywhere: only what may change is taken */
        s->config->sip.weight = next->sip.weight;
        s->config->log.level = next->log.level;
        s->config->log.trace = next->log.trace;
        hf_program_log_open("holdfast-sip", hf_sip_config_level(s->config));
        hf_trace_set_mask(s->config->log.trace);
        hf_sip_tree_touch(s->tree);
        hf_log_info("",
                    tls ? "configuration reloaded, and certificates" : "configuration reloaded");
    }
    hf_sip_config_destroy(next);
    hf_program_notify("READY=1");
    return rc;
}
