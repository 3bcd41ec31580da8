/* holdfast doctor: asks the other hosts, agents, Corosync's tools and the programs that check their
 * configuration, all at once. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "ctl/doctor.h"
#include "ctl/table.h"
#include "hostd/config.h"
#include "hostd/group_def.h"
#include "hostd/group_store.h"
#include "os/fence.h"
#include "os/http.h"
#include "os/key.h"
#include "os/ocf.h"
#include "os/proc.h"

#define PROGRAM_TIME HF_S(10)
#define PEER_TIME HF_S(5)
#define RESOURCE_TIME HF_S(30)
#define VIEW_MAX (16u << 20)
#define FENCE_PARAMS_MAX 64
#define PARAMS_MAX 128
#define PATHS "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct asking {
    struct hf_doctor_facts *f;
    const struct hf_hostd_config *c; /* borrowed; NULL: there is no valid one */
    struct hf_loop *loop;
    struct hf_tls *tls;
    char dirs[4096];  /* where programs are looked for */
    size_t n_pending; /* answers that are still to come */
};

/* A program, with where its answer goes. */
struct job {
    struct asking *a;
    struct hf_doctor_try *to;
    char **text; /* its output, or NULL */
    struct hf_proc *proc;
};

struct peer_job {
    struct asking *a;
    struct hf_doctor_peer *peer;
    struct hf_http_get *get;
    hf_time began;
};

struct agent_job {
    struct asking *a;
    struct hf_doctor_agent *agent;
    struct hf_group_def *def; /* owned; of a resource */
};

static void fail(struct hf_doctor_try *t, int rc, const char *text)
{
    t->tried = true;
    t->rc = rc;
    snprintf(t->text, sizeof(t->text), "%s", text);
}

static void answered(struct asking *a)
{
    if (--a->n_pending == 0) {
        hf_loop_stop(a->loop);
    }
}

/* ---- programs ---- */

static void on_program(void *arg, const struct hf_proc_result *res)
{
    struct job *j = arg;
    bool well = res->status == 0 && !res->timed_out;
    j->to->tried = true;
    j->to->rc = well ? 0 : -HF_EPROTO;
    if (!well) {
        struct hf_slice line = hf_proc_last_line(res->err.n ? res->err : res->out, "");
        hf_proc_end_text(res, PROGRAM_TIME, j->to->text, sizeof(j->to->text));
        if (line.n) {
            j->to->text[0] = '\0';
            hf_proc_add_printable(j->to->text, sizeof(j->to->text), line);
        }
    }
    /* corosync-quorumtool ends with 2 where there is no quorum, and has said so */
    if (j->text && res->out.n && !res->timed_out) {
        *j->text = strndup((const char *)res->out.p, res->out.n);
    }
    struct asking *a = j->a;
    hf_free(j);
    answered(a);
}

static void run_program(struct asking *a, const char *program, const char *const *args,
                        struct hf_doctor_try *to, char **text)
{
    static const char *const env[] = {"PATH=" PATHS, "LC_ALL=C", NULL};
    char path[PATH_MAX];
    const char *argv[8] = {path};
    struct job *j = hf_alloc(sizeof(*j));
    if (!j || hf_proc_find(a->dirs, program, path)) {
        snprintf(to->text, sizeof(to->text), "%s is not installed here", program);
        hf_free(j);
        return;
    }
    for (size_t i = 0; args[i]; i++) {
        argv[i + 1] = args[i];
    }
    struct hf_proc_opt opt = {
        .argv = argv, .env = env, .output_max = HF_DOCTOR_OUTPUT_MAX, .timeout = PROGRAM_TIME};
    *j = (struct job){.a = a, .to = to, .text = text};
    int rc = hf_proc_start(a->loop, &opt, on_program, j, &j->proc);
    if (rc) {
        snprintf(to->text, sizeof(to->text), "cannot start %s: %s", program, hf_strerror(rc));
        hf_free(j);
        return;
    }
    a->n_pending++;
}

static void ask_programs(struct asking *a)
{
    struct hf_doctor_facts *f = a->f;
    if (f->pg.state == HF_DOCTOR_FILE_THERE) {
        run_program(a, "holdfast-pg", (const char *[]){"-c", f->pg.path, "--check", NULL},
                    &f->pg.check, NULL);
    }
    if (f->sip.state == HF_DOCTOR_FILE_THERE) {
        run_program(a, "holdfast-sip", (const char *[]){"-c", f->sip.path, "--check", NULL},
                    &f->sip.check, NULL);
    }
    if (f->corosync_engine) {
        run_program(a, "corosync-cmapctl", (const char *[]){NULL}, &f->corosync.map,
                    &f->corosync.map_text);
        run_program(a, "corosync-cmapctl", (const char *[]){"-m", "stats", NULL},
                    &f->corosync.stats, &f->corosync.stats_text);
        run_program(a, "corosync-quorumtool", (const char *[]){"-s", NULL}, &f->corosync.quorum,
                    &f->corosync.quorum_text);
    }
}

/* ---- other hosts ---- */

static void on_view(void *arg, int rc, int status, struct hf_slice body)
{
    struct peer_job *j = arg;
    struct asking *a = j->a;
    struct hf_doctor_peer *p = j->peer;
    hf_time took = hf_now() - j->began;
    json_error_t bad;
    json_t *view = rc == 0 && status == 200
                       ? json_loadb((const char *)body.p, body.n, JSON_REJECT_DUPLICATES, &bad)
                       : NULL;
    json_t *members = json_object_get(view, "members");
    if (rc) {
        fail(&p->ask, rc, hf_strerror(rc));
    } else if (status == 404) {
        fail(&p->ask, -HF_ENOTFOUND, "an older holdfastd, which does not tell whom it hears");
    } else if (!json_is_array(members)) {
        fail(&p->ask, -HF_EPROTO, "its answer is not understood");
    } else {
        p->ask.tried = true;
        p->round_trip_ms = took / HF_NS_PER_MS;
        p->offset_ms = hf_json_number(view, "now_ms") -
                       (hf_wall_now() / HF_NS_PER_MS - took / HF_NS_PER_MS / 2);
        p->members = json_incref(members);
    }
    json_decref(view);
    hf_free(j);
    answered(a);
}

static void ask_peer(struct asking *a, struct hf_doctor_peer *p, const char *address)
{
    struct hf_addr to;
    struct hf_err err = {0};
    int rc = hf_addr_parse(address, (uint16_t)a->c->directory.port, &err, &to);
    struct peer_job *j = hf_alloc(sizeof(*j));
    if (rc || !j) {
        snprintf(p->ask.text, sizeof(p->ask.text), "its address is not known");
        hf_free(j);
        return;
    }
    *j = (struct peer_job){.a = a, .peer = p, .began = hf_now()};
    struct hf_http_get_opt opt = {.to = to,
                                  .tls = a->tls,
                                  .server = p->host,
                                  .target = "/v1/view",
                                  .body_max = VIEW_MAX,
                                  .deadline = hf_now() + PEER_TIME};
    rc = hf_http_get_start(a->loop, &opt, on_view, j, &j->get);
    if (rc) {
        fail(&p->ask, rc, hf_strerror(rc));
        hf_free(j);
        return;
    }
    a->n_pending++;
}

static void ask_peers(struct asking *a)
{
    struct hf_key key;
    struct hf_err err = {0};
    const json_t *m;
    size_t i;
    int rc = a->c ? hf_key_load(a->c->cluster.key_file, &err, &key) : -HF_ENOTFOUND;
    if (rc == 0) {
        rc = hf_tls_create(&key, a->c->host.name, "pull", &a->tls);
        hf_key_wipe(&key);
    }
    json_array_foreach(a->f->members, i, m)
    {
        if (strcmp(hf_json_text(m, "state"), "self") == 0) {
            continue;
        }
        if (a->f->n_peers == HF_DOCTOR_PEERS_MAX) {
            a->f->n_more++;
            continue;
        }
        struct hf_doctor_peer *p = &a->f->peer[a->f->n_peers++];
        snprintf(p->host, sizeof(p->host), "%s", hf_json_text(m, "host"));
        if (rc) {
            snprintf(p->ask.text, sizeof(p->ask.text),
                     "it can be asked only with the cluster key, which is not usable here");
        } else {
            ask_peer(a, p, hf_json_text(m, "address"));
        }
    }
}

/* ---- fence devices ---- */

static void on_fence(void *arg, const struct hf_fence_result *res)
{
    struct agent_job *j = arg;
    struct asking *a = j->a;
    fail(&j->agent->action, res->rc, res->rc ? res->text : "");
    hf_free(j);
    answered(a);
}

static void ask_fence(struct asking *a, const struct hf_hostd_fence *fence)
{
    struct hf_doctor_agent *d = &a->f->fence[a->f->n_fences++];
    struct hf_fence_pair pair[FENCE_PARAMS_MAX];
    char path[PATH_MAX];
    struct hf_err err = {0};
    struct hf_fence_run *run;
    snprintf(d->name, sizeof(d->name), "%s", fence->title.name);
    snprintf(d->agent, sizeof(d->agent), "%s", fence->agent);
    d->hosts = json_array();
    for (size_t i = 0; i < fence->hosts.n; i++) {
        const char *h = fence->hosts.item[i];
        json_array_append_new(d->hosts, json_stringn(h, strcspn(h, ":")));
    }
    int rc = hf_fence_find(NULL, fence->agent, path, &err);
    size_t n = 0;
    for (; n < fence->options.n && n < HF_ARRAY_LEN(pair); n++) {
        pair[n] = (struct hf_fence_pair){fence->options.pair[n].name, fence->options.pair[n].value};
    }
    struct hf_fence_opt opt = {.path = path,
                               .action = HF_FENCE_MONITOR,
                               .options = pair,
                               .n_options = n,
                               .timeout = HF_MS(fence->timeout_ms)};
    struct agent_job *j = rc ? NULL : hf_alloc(sizeof(*j));
    if (j) {
        *j = (struct agent_job){.a = a, .agent = d};
        rc = hf_fence_start(a->loop, &opt, on_fence, j, &err, &run);
    }
    if (!j || rc) {
        fail(&d->action, rc ? rc : -ENOMEM, err.text);
        hf_free(j);
        return;
    }
    a->n_pending++;
}

static void ask_fences(struct asking *a)
{
    const struct hf_hostd_fence *fence = a->c ? a->c->fence.item : NULL;
    for (size_t i = 0; a->c && i < a->c->fence.n && i < HF_ARRAY_LEN(a->f->fence); i++) {
        if (a->f->root) {
            ask_fence(a, &fence[i]);
            continue;
        }
        struct hf_doctor_agent *d = &a->f->fence[a->f->n_fences++];
        snprintf(d->name, sizeof(d->name), "%s", fence[i].title.name);
        snprintf(d->action.text, sizeof(d->action.text), "only root asks fence devices");
    }
}

/* ---- resources ---- */

static void on_resource(void *arg, const struct hf_ocf_result *res)
{
    struct agent_job *j = arg;
    struct asking *a = j->a;
    const char *text = *res->reason ? res->reason : hf_ocf_rc_text(res->rc);
    if (res->rc == HF_OCF_ERR_UNIMPLEMENTED) {
        snprintf(j->agent->action.text, sizeof(j->agent->action.text),
                 "%s has no validate-all: its settings show when it is started", j->agent->agent);
    } else {
        j->agent->action.tried = true;
        j->agent->action.rc = res->rc ? -HF_EPROTO : 0;
        hf_group_def_hide(hf_group_def_at(j->def, 0), text ? text : "failed", j->agent->action.text,
                          sizeof(j->agent->action.text));
    }
    hf_group_def_destroy(j->def);
    hf_free(j);
    answered(a);
}

/* Takes def, in which it is the only resource. */
static void start_resource(struct asking *a, struct hf_doctor_agent *d, const char *group,
                           struct hf_group_def *def)
{
    const struct hf_group_def_resource *r = hf_group_def_at(def, 0);
    struct hf_ocf_agent at;
    struct hf_ocf_pair param[PARAMS_MAX];
    struct hf_err err = {0};
    struct hf_ocf_run *run;
    char instance[HF_DOCTOR_TEXT];
    size_t n = 0;
    for (; n < r->params.n && n < HF_ARRAY_LEN(param); n++) {
        param[n] = (struct hf_ocf_pair){r->params.pair[n].name, r->params.pair[n].value};
    }
    const struct hf_ocf_pair env[] = {{"HOLDFAST_GROUP", group},
                                      {"HOLDFAST_HOST", a->c->host.name},
                                      {"HOLDFAST_RESOURCE", r->title.name}};
    snprintf(instance, sizeof(instance), "%s.%s", group, r->title.name);
    struct hf_ocf_opt opt = {.agent = &at,
                             .instance = instance,
                             .action = "validate-all",
                             .params = param,
                             .n_params = n,
                             .env = env,
                             .n_env = HF_ARRAY_LEN(env),
                             .timeout = RESOURCE_TIME,
                             .on_node = a->c->host.name,
                             .promotable = r->kind == HF_GROUP_DEF_COPY};
    snprintf(d->agent, sizeof(d->agent), "%s", r->agent);
    int rc = hf_ocf_find(a->c->agents.root, r->agent, &at, &err);
    struct agent_job *j = rc ? NULL : hf_alloc(sizeof(*j));
    if (j) {
        *j = (struct agent_job){.a = a, .agent = d, .def = def};
        rc = hf_ocf_start(a->loop, &opt, on_resource, j, &err, &run);
    }
    if (!j || rc) {
        fail(&d->action, rc ? rc : -ENOMEM, err.text);
        hf_group_def_destroy(def);
        hf_free(j);
        return;
    }
    a->n_pending++;
}

static void ask_resource(struct asking *a, const char *group, const char *resource)
{
    struct hf_doctor_facts *f = a->f;
    struct hf_group_store store;
    struct hf_group_def *def = NULL;
    struct hf_err err = {0};
    struct hf_buf text;
    if (f->n_resources == HF_ARRAY_LEN(f->resource)) {
        return;
    }
    hf_buf_init(&text, HF_CONF_FILE_MAX);
    int rc = hf_group_store_init(&store, a->c->state.dir, group, &err);
    rc = rc ? rc : hf_group_store_read_config(&store, resource, &text);
    if (rc == -ENOENT) { /* a resource of others: they have its configuration */
        hf_buf_fini(&text);
        return;
    }
    struct hf_doctor_agent *d = &f->resource[f->n_resources++];
    snprintf(d->name, sizeof(d->name), "%s/%s", group, resource);
    rc = rc ? rc : hf_group_def_load(resource, hf_buf_slice(&text), &err, &def);
    hf_buf_fini(&text);
    if (rc || def->resource.n == 0) {
        snprintf(d->action.text, sizeof(d->action.text), "its configuration cannot be read: %s",
                 *err.text ? err.text : hf_strerror(rc));
    } else if (*hf_group_def_at(def, 0)->agent == '\0') {
        f->n_resources--; /* leadership: there is no agent */
    } else {
        start_resource(a, d, group, def);
        return;
    }
    hf_group_def_destroy(def);
}

/* Is it one that this host is to run? Who made the group has the configurations of others' copies,
 * too. A host that reaches no copy is asked about all: its agents say why. */
static bool is_ours(const json_t *group, const json_t *resource)
{
    const json_t *host, *reached;
    const char *name = hf_json_text(resource, "name");
    size_t i, k;
    json_array_foreach(json_object_get(group, "hosts"), i, host)
    {
        const char *subgroup = hf_json_text(host, "subgroup");
        if (!json_is_true(json_object_get(host, "here")) || !*subgroup ||
            strcmp(hf_json_text(resource, "kind"), "copy") != 0) {
            continue;
        }
        json_array_foreach(json_object_get(host, "reaches"), k, reached)
        {
            if (json_is_string(reached) && strcmp(json_string_value(reached), name) == 0) {
                return true;
            }
        }
        return strcmp(subgroup, name) == 0;
    }
    return true;
}

static void ask_resources(struct asking *a)
{
    struct hf_doctor_facts *f = a->f;
    const json_t *g, *r;
    size_t i, k;
    if (!a->c || !f->status) {
        snprintf(f->resources.text, sizeof(f->resources.text),
                 "without a valid configuration and a running holdfastd this host's groups are not "
                 "known");
        return;
    }
    if (!f->root) {
        snprintf(f->resources.text, sizeof(f->resources.text),
                 "only root may read the groups' configuration");
        return;
    }
    f->resources.tried = true;
    json_array_foreach(json_object_get(f->status, "groups"), i, g)
    {
        json_array_foreach(json_object_get(g, "resources"), k, r)
        {
            if (is_ours(g, r)) {
                ask_resource(a, hf_json_text(g, "name"), hf_json_text(r, "name"));
            }
        }
    }
}

/* ---- all ---- */

/* $PATH, then where programs usually are. */
static void find_dirs(struct asking *a)
{
    const char *path = getenv("PATH");
    snprintf(a->dirs, sizeof(a->dirs), "%s%s" PATHS, path ? path : "", path ? ":" : "");
}

int hf_doctor_ask(struct hf_doctor_facts *f, const struct hf_hostd_config *config)
{
    struct asking a = {.f = f, .c = config};
    int rc = hf_loop_create(&a.loop);
    if (rc) {
        return rc;
    }
    find_dirs(&a);
    ask_peers(&a);
    ask_programs(&a);
    ask_fences(&a);
    ask_resources(&a);
    rc = a.n_pending ? hf_loop_run(a.loop) : 0; /* each answer has its time limit */
    hf_tls_destroy(a.tls);
    hf_loop_destroy(a.loop);
    return rc;
}
