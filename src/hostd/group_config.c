/* Configurations of resources: those that are here, and those that other members have (B4). */
#include <errno.h>
#include <stdio.h>

#include "hostd/group_impl.h"

#define GET_TIME HF_S(10)

void hf_group_run_forget_config(struct hf_group_run *r)
{
    if (r->get) {
        hf_http_get_cancel(r->get);
        r->get = NULL;
    }
    hf_group_def_destroy(r->def);
    r->def = NULL;
    r->def_hash = r->looked_hash = 0;
    r->told = false;
}

static const struct hf_gresource *resource_of(const struct hf_group_run *r)
{
    const struct hf_gstate *s = r->g->core ? hf_group_state(r->g->core) : NULL;
    return s && r->i < s->n_resources ? &s->resource[r->i] : NULL;
}

/* One that is not what the group means is not used; the one who asks for it gets no text. */
static int take(struct hf_group_run *r, const struct hf_gresource *res, struct hf_slice text)
{
    struct hf_group_def *def;
    struct hf_err err;
    if (hf_group_def_hash(text) != res->config_hash) {
        return -HF_EPROTO;
    }
    int rc = hf_group_def_load(res->name, text, &err, &def);
    if (rc) {
        hf_log_err(r->g->name, "configuration of %s: %s", res->name, err.text);
        return rc;
    }
    if (def->resource.n != 1 || strcmp(hf_group_def_at(def, 0)->title.name, res->name) != 0) {
        hf_group_def_destroy(def);
        return -HF_EPROTO;
    }
    hf_group_def_destroy(r->def);
    r->def = def;
    r->def_hash = res->config_hash;
    return 0;
}

/* What is on disk, once for each that the group means. */
static void look(struct hf_group_run *r, const struct hf_gresource *res)
{
    struct hf_buf text;
    if (r->looked_hash == res->config_hash) {
        return;
    }
    r->looked_hash = res->config_hash;
    hf_buf_init(&text, HF_CONF_FILE_MAX);
    int rc = hf_group_store_read_config(&r->g->store, res->name, &text);
    rc = rc ? rc : take(r, res, hf_buf_slice(&text));
    if (rc && rc != -ENOENT) {
        hf_log_warn(r->g->name, "the configuration of %s on this host is not usable: %s", res->name,
                    hf_strerror(rc));
    }
    hf_buf_fini(&text);
}

const struct hf_group_def_resource *hf_group_run_def(struct hf_group_run *r)
{
    const struct hf_gresource *res = resource_of(r);
    if (!res || res->config_hash == 0) {
        return NULL;
    }
    look(r, res);
    return r->def && r->def_hash == res->config_hash ? hf_group_def_at(r->def, 0) : NULL;
}

static void tell(struct hf_group_run *r, int rc, uint64_t hash)
{
    struct hf_group_in in = {.kind = HF_GROUP_IN_CONFIG, .rc = rc};
    in.resource = r->i;
    in.config_hash = hash;
    hf_hgroup_in(r->g, &in);
}

bool hf_hgroup_configs_tell(struct hf_hgroup *g)
{
    bool any = false;
    for (uint8_t i = 0; g->core && i < HF_GROUP_RESOURCES_MAX; i++) {
        struct hf_group_run *r = &g->run[i];
        if (r->get_ended) {
            r->get_ended = false;
            tell(r, r->get_rc, r->def_hash);
            any = true;
        }
        if (!r->told && hf_group_run_def(r)) {
            r->told = true;
            tell(r, 0, r->def_hash);
            any = true;
        }
    }
    return any;
}

/* ---- from others ---- */

static void on_got(void *arg, int rc, int status, struct hf_slice body)
{
    struct hf_group_run *r = arg;
    const struct hf_gresource *res = resource_of(r);
    struct hf_groups *gs = r->g->gs;
    struct hf_err err = {0};
    hf_groups_enter(gs);
    r->get = NULL;
    rc = rc ? rc : status == 200 ? 0 : status == 404 ? -HF_ENOTFOUND : -HF_EHTTP;
    rc = rc ? rc : res ? take(r, res, body) : -HF_ENOTFOUND;
    if (rc == 0) {
        rc = hf_group_store_make(&r->g->store, &err);
        rc = rc ? rc : hf_group_store_write_config(&r->g->store, res->name, body, &err);
    }
    if (rc) {
        hf_log_warn(r->g->name, "cannot get the configuration of %s: %s",
                    res ? res->name : "a resource", *err.text ? err.text : hf_strerror(rc));
    }
    r->told = r->told || rc == 0;
    r->get_rc = rc;
    r->get_ended = true;
    hf_groups_leave(gs);
}

static int get(struct hf_group_run *r, const struct hf_gresource *res, const char *host,
               const char *address)
{
    const struct hf_hostd *h = r->g->gs->h;
    char target[160];
    struct hf_http_get_opt opt = {.tls = h->tls,
                                  .server = host,
                                  .target = target,
                                  .body_max = HF_CONF_FILE_MAX,
                                  .deadline = hf_now() + GET_TIME};
    snprintf(target, sizeof(target), "/v1/group/%s/config/%s", r->g->name, res->name);
    int rc = hf_addr_parse(address, (uint16_t)h->config->directory.port, NULL, &opt.to);
    return rc ? rc : hf_http_get_start(h->loop, &opt, on_got, r, &r->get);
}

void hf_hgroup_config_get(struct hf_hgroup *g, uint8_t i, const char *host, const char *address)
{
    struct hf_group_run *r = &g->run[i];
    const struct hf_gresource *res = resource_of(r);
    if (r->get) {
        return; /* it is on its way */
    }
    if (hf_group_run_def(r)) {
        r->get_rc = 0;
        r->get_ended = r->told = true;
        return;
    }
    r->get_rc = res ? get(r, res, host, address) : -HF_ENOTFOUND;
    r->get_ended = r->get_rc != 0;
}

/* /v1/group/NAME/config/RESOURCE */
int hf_groups_config(const struct hf_groups *gs, const char *path, struct hf_buf *out)
{
    char group[HF_GROUP_NAME_MAX + 1], resource[HF_GROUP_RESOURCE_NAME_MAX + 1];
    int end = 0;
    if (sscanf(path, "/v1/group/%31[^/]/config/%31[^/]%n", group, resource, &end) != 2 ||
        path[end]) {
        return -HF_ENOTFOUND;
    }
    const struct hf_hgroup *g = gs ? hf_groups_get(gs, group) : NULL;
    if (!g || !g->core || hf_group_self(g->core) == HF_GROUP_NONE) {
        return -HF_ENOTFOUND;
    }
    int rc = hf_group_store_read_config(&g->store, resource, out);
    return rc == -ENOENT || rc == -HF_ENAME ? -HF_ENOTFOUND : rc;
}
