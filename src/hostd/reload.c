/* Reload: the configuration is swapped whole, or nothing changes. */
#include "base/log.h"
#include "hostd/hostd.h"
#include "os/program.h"

int hf_hostd_reload(struct hf_hostd *h, struct hf_err *err)
{
    struct hf_hostd_config *next;
    char key[64];
    hf_program_notify("RELOADING=1");
    int rc = hf_hostd_config_load(h->config_path, err, &next);
    if (rc == 0 &&
        hf_conf_fixed_change(&hf_hostd_config_schema, h->config, next, key, sizeof(key))) {
        rc =
            hf_err_set(err, -HF_ECONFIG,
                       "%s: %s cannot change while holdfastd runs: restart it; nothing was changed",
                       h->config_path, key);
        hf_hostd_config_destroy(next);
    }
    h->reload_rc = rc;
    if (rc) {
        hf_log_err("", "reload refused: %s", err->text);
    } else {
        hf_hostd_config_destroy(h->config);
        h->config = next;
        hf_program_log_open("holdfastd", hf_hostd_config_level(next));
        hf_trace_set_mask(next->log.trace);
        hf_log_info("", "configuration reloaded from %s", h->config_path);
    }
    hf_program_notify("READY=1");
    return rc;
}
