/* hostd/group: daemons with groups, on the embedded engine, with agents that are small scripts. */
#include "hostd/group.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "hostd/group_impl.h"
#include "os/file.h"
#include "support/test.h"

#define HOSTS 3
#define PATIENCE HF_S(60)

static const char *const names[HOSTS] = {"alpha", "beta", "gamma"};

/* One "disk" and "power switch" in a directory: HOST.NAME exists: it runs; its content: its role.
 */
static const char agent[] =
    "#!/bin/sh\n"
    "m() { echo \"<action name=\\\"$1\\\" timeout=\\\"20s\\\" interval=\\\"1s\\\"/>\"; }\n"
    "if [ \"$1\" = meta-data ]; then\n"
    "  echo '<?xml version=\"1.0\"?><resource-agent name=\"x\" "
    "version=\"1\"><version>1</version>'\n"
    "  echo '<parameters><parameter name=\"dir\" required=\"1\"/><parameter name=\"password\"/>'\n"
    "  echo '</parameters><actions>'\n"
    "  for a in start stop monitor access; do m $a; done\n"
    "  case $0 in *mirror) for a in promote demote open mirror-source mirror-target mirror-state "
    "\\\n"
    "    prepare-promote prepare-demote; do m $a; done;; esac\n"
    "  echo '</actions></resource-agent>'; exit 0\n"
    "fi\n"
    "d=$OCF_RESKEY_dir; f=$d/$HOLDFAST_HOST.$HOLDFAST_RESOURCE\n"
    "[ $1 = monitor ] || [ $1 = mirror-state ] ||\n"
    "  echo \"$HOLDFAST_HOST $1 $HOLDFAST_RESOURCE $HOLDFAST_MIRRORS$HOLDFAST_SOURCE\" >>$d/log\n"
    "if [ -e $d/$HOLDFAST_HOST.fail-$1 ]; then\n"
    "  echo \"ocf-exit-reason:told to fail, $OCF_RESKEY_password\" >&2; exit 1\n"
    "fi\n"
    "case $1 in\n"
    "prepare-*) echo holdfast-armed; while read -r word; do\n"
    "    echo \"$HOLDFAST_HOST told $word\" >>$d/log\n"
    "    [ ! -e $d/$HOLDFAST_HOST.fail-word ] || exit 1\n"
    "    case $word in\n"
    "    promote) echo promoted >$f; echo 'holdfast-fence: lsn 8';;\n"
    "    demote) echo unpromoted >$f;;\n"
    "    esac; echo holdfast-done; done;;\n"
    "start|demote|mirror-target) echo unpromoted >$f;;\n"
    "stop) rm -f $f;;\n"
    "promote) echo promoted >$f; echo 'holdfast-fence: lsn 7';;\n"
    "monitor) [ -e $f ] || exit 7\n"
    "  [ ! -e $d/$HOLDFAST_HOST.process ] || echo holdfast-process: $(cat "
    "$d/$HOLDFAST_HOST.process)\n"
    "  [ $(cat $f) = promoted ] && exit 8; exit 0;;\n"
    "mirror-state) for m in $HOLDFAST_MIRRORS; do\n"
    "    [ ${m##*=} = sync ] && echo ${m%%=*} in-sync || echo ${m%%=*} caught-up; done;;\n"
    "access) [ ! -e $d/$HOLDFAST_HOST.no-$HOLDFAST_RESOURCE ] || exit 1;;\n"
    "esac\n";

static const char fence_agent[] = "#!/bin/sh\n"
                                  "while read -r l; do case $l in\n"
                                  "plug=*) plug=${l#plug=};; dir=*) dir=${l#dir=};; esac; done\n"
                                  "rm -f $dir/$plug.*; echo \"fence $plug\" >>$dir/log\n";

struct host {
    struct hf_hostd h;
    bool up;
};

struct world {
    struct hf_loop *loop;
    char dir[64], disk[80];
    struct host host[HOSTS];
    uint16_t port;
    bool done; /* the last command */
    int rc;
    char text[512];
    bool stopped;
    unsigned events;
    char *log;
};

/* ---- the loop ---- */

static void on_wait(void *arg)
{
    (void)arg;
}

static void turn(struct world *w)
{
    struct hf_timer *t;
    assert_int_equal(hf_timer_create(w->loop, on_wait, NULL, &t), 0);
    hf_timer_set(t, hf_now() + HF_MS(20));
    event_base_loop(hf_loop_base(w->loop), EVLOOP_ONCE);
    hf_timer_destroy(t);
}

static void put(const struct world *w, const char *name, const char *text, mode_t mode)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static bool exists(const struct world *w, const char *name)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    return access(path, F_OK) == 0;
}

/* What agents and fence agents did, a line each. */
static const char *log_of(struct world *w)
{
    struct hf_buf b;
    char path[160];
    snprintf(path, sizeof(path), "%s/log", w->disk);
    hf_buf_init(&b, 1 << 20);
    (void)!hf_file_read(path, &b);
    hf_buf_add(&b, hf_slice("", 1));
    free(w->log);
    w->log = strdup((char *)b.p);
    hf_buf_fini(&b);
    return w->log;
}

static unsigned count(struct world *w, const char *part)
{
    unsigned n = 0;
    for (const char *s = log_of(w); (s = strstr(s, part)); s++) {
        n++;
    }
    return n;
}

/* ---- hosts ---- */

static void boot_with(struct world *w, unsigned i, const char *more)
{
    struct hf_hostd *h = &w->host[i].h;
    struct hf_err err = {0};
    void *config;
    char text[2048];
    snprintf(
        text, sizeof(text),
        "host { name = %s address = 127.0.0.%u }\n"
        "cluster { key_file = \"%s/key\" }\n"
        "state { dir = \"%s/%s\" }\n"
        "directory { transport = unicast peers = { 127.0.0.1 } listen = 127.0.0.%u }\n"
        "engine { run_dir = \"%s/run\" }\n"
        "agents { root = \"%s/ocf\" }\n"
        "fence power { agent = \"%s/fence\" hosts = { alpha, beta } options { dir = \"%s\" } }\n"
        "%s",
        names[i], i + 1, w->dir, w->dir, names[i], i + 1, w->dir, w->dir, w->dir, w->disk, more);
    int rc = hf_conf_load_mem(&hf_hostd_config_schema, "test", hf_slice_str(text), &err, &config);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    memset(h, 0, sizeof(*h));
    h->loop = w->loop;
    h->config = config;
    char at[32];
    snprintf(at, sizeof(at), "127.0.0.%u:%u", i + 1, w->port);
    assert_int_equal(hf_addr_parse(at, 0, &err, &h->config->directory.listen), 0);
    h->config->directory.peers.n = 0;
    rc = hf_drive_open(h, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    w->port = w->port ? w->port : hf_http_server_port(h->pull_server);
    h->config->directory.port = w->port;
    rc = hf_groups_open(h, &err, &h->groups);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    w->host[i].up = true;
}

static void boot(struct world *w, unsigned i)
{
    boot_with(w, i, "");
}

/* The daemon dies; what it runs goes on. */
static void crash(struct world *w, unsigned i)
{
    struct hf_hostd *h = &w->host[i].h;
    hf_groups_close(h->groups);
    hf_drive_close(h);
    hf_hostd_config_destroy(h->config);
    w->host[i].up = false;
}

static void on_stopped(void *arg)
{
    struct world *w = arg;
    w->stopped = true;
}

static void stop(struct world *w, unsigned i)
{
    w->stopped = false;
    hf_groups_stop(w->host[i].h.groups, PATIENCE, on_stopped, w);
    while (!w->stopped) {
        turn(w);
    }
    crash(w, i);
}

static const struct hf_group *core(struct world *w, unsigned i)
{
    const struct hf_group_info *info = hf_groups_find(w->host[i].h.groups, "orders");
    return info ? info->core : NULL;
}

static uint8_t role(struct world *w, unsigned i, uint8_t r)
{
    const struct hf_group *g = core(w, i);
    uint8_t self = g ? hf_group_self(g) : HF_GROUP_NONE;
    return self == HF_GROUP_NONE ? HF_ROLE_UNKNOWN : hf_group_role(g, self, r);
}

#define UNTIL(w, condition)                                                                        \
    do {                                                                                           \
        hf_time end_ = hf_now() + PATIENCE;                                                        \
        while (!(condition)) {                                                                     \
            if (hf_now() > end_) {                                                                 \
                tell(w);                                                                           \
                fail_msg("not in time: %s", #condition);                                           \
            }                                                                                      \
            turn(w);                                                                               \
        }                                                                                          \
    } while (0)

static void tell(struct world *w)
{
    for (unsigned i = 0; i < HOSTS; i++) {
        const struct hf_group *g = w->host[i].up ? core(w, i) : NULL;
        const struct hf_gstate *s = g ? hf_group_state(g) : NULL;
        printf("# %s: %s %s, %s\n", names[i],
               g ? hf_group_standing_name(hf_group_standing(g)) : "no group",
               s ? hf_phase_name(s->phase) : "", g ? hf_group_why(g) : "");
    }
    printf("# log:\n%s", log_of(w));
}

/* ---- operators ---- */

static void on_result(void *arg, int rc, const char *text)
{
    struct world *w = arg;
    assert_false(w->done);
    w->done = true;
    w->rc = rc;
    snprintf(w->text, sizeof(w->text), "%s", text);
}

static void command(struct world *w, unsigned i, const struct hf_group_command *cmd)
{
    w->done = false;
    hf_groups_command(w->host[i].h.groups, cmd, on_result, w);
    UNTIL(w, w->done);
}

static void create(struct world *w, unsigned i, const char *definition)
{
    char text[1024];
    snprintf(text, sizeof(text), definition, w->disk);
    command(w, i,
            &(struct hf_group_command){
                .kind = HF_GROUP_CREATE, .group = "orders", .definition = hf_slice_str(text)});
}

static void join(struct world *w, unsigned i, const char *definition)
{
    char text[1024];
    snprintf(text, sizeof(text), definition, w->disk);
    command(w, i,
            &(struct hf_group_command){
                .kind = HF_GROUP_JOIN, .group = "orders", .definition = hf_slice_str(text)});
}

static void request(struct world *w, unsigned i, uint8_t what, const char *host)
{
    command(w, i,
            &(struct hf_group_command){
                .kind = HF_GROUP_REQUEST, .group = "orders", .request = what, .host = host});
}

static void assert_done(struct world *w)
{
    if (w->rc) {
        tell(w);
        fail_msg("%s", w->text);
    }
}

static void assert_refused(struct world *w, int rc, const char *part)
{
    assert_int_equal(w->rc, rc);
    if (!strstr(w->text, part)) {
        fail_msg("got: %s", w->text);
    }
}

/* ---- worlds ---- */

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct hf_err err = {0};
    char path[160];
    const char *tmp = getenv("TMPDIR");
    snprintf(w->dir, sizeof(w->dir), "%.30s/hf-grp-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->disk, sizeof(w->disk), "%s/disk", w->dir);
    static const char *const dirs[] = {"disk", "run", "ocf/resource.d/test"};
    for (size_t i = 0; i < HF_ARRAY_LEN(dirs); i++) {
        snprintf(path, sizeof(path), "%s/%s", w->dir, dirs[i]);
        assert_int_equal(hf_file_make_dir(path, 0700, &err), 0);
    }
    put(w, "ocf/resource.d/test/plain", agent, 0755);
    put(w, "ocf/resource.d/test/mirror", agent, 0755);
    put(w, "fence", fence_agent, 0755);
    assert_int_equal(hf_loop_create(&w->loop), 0);
    snprintf(path, sizeof(path), "%s/key", w->dir);
    assert_int_equal(hf_key_generate(path, &err), 0);
    *state = w;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int teardown(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < HOSTS; i++) {
        if (w->host[i].up) {
            crash(w, i);
        }
    }
    hf_loop_destroy(w->loop);
    assert_int_equal(nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(w->log);
    free(w);
    return 0;
}

static const char shared[] = "resource web {\n"
                             "  agent = \"ocf:test:plain\"\n"
                             "  params { dir = \"%s\" password = pssst }\n"
                             "  probe = { dir }\n"
                             "}\n";
static const char with_address[] = "resource web {\n"
                                   "  agent = \"ocf:test:plain\"\n"
                                   "  params { dir = \"%1$s\" }\n"
                                   "  probe = { dir }\n"
                                   "}\n"
                                   "resource address {\n"
                                   "  agent = \"ocf:test:plain\" kind = attached\n"
                                   "  params { dir = \"%1$s\" }\n"
                                   "}\n";
static const char copy1[] = "resource copy1 {\n"
                            "  agent = \"ocf:test:mirror\"\n"
                            "  params { dir = \"%s\" }\n"
                            "}\n";
static const char copy2[] = "resource copy2 {\n"
                            "  agent = \"ocf:test:mirror\"\n"
                            "  params { dir = \"%s\" }\n"
                            "}\n";

/* ---- tests ---- */

static void created_and_run(void **state)
{
    struct world *w = *state;
    boot(w, 0);
    create(w, 0, with_address);
    assert_done(w);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN && role(w, 0, 1) == HF_ROLE_OPEN);
    assert_true(exists(w, "disk/alpha.web") && exists(w, "disk/alpha.address"));
    struct hf_buf history;
    hf_buf_init(&history, 1 << 20);
    assert_int_equal(hf_groups_history(w->host[0].h.groups, "orders", &history), 0);
    assert_true(history.n > 10);
    hf_buf_fini(&history);
    create(w, 0, shared);
    assert_refused(w, -HF_EHELD, "orders is a group of this host already");
    stop(w, 0);
    assert_false(exists(w, "disk/alpha.web") || exists(w, "disk/alpha.address"));
}

static void a_crashed_daemon_finds_what_it_ran(void **state)
{
    struct world *w = *state;
    boot(w, 0);
    create(w, 0, with_address);
    assert_done(w);
    UNTIL(w, role(w, 0, 1) == HF_ROLE_OPEN);
    uint64_t epoch = hf_group_state(core(w, 0))->epoch;
    crash(w, 0);
    assert_true(exists(w, "disk/alpha.web"));
    boot(w, 0);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN && role(w, 0, 1) == HF_ROLE_OPEN);
    assert_int_equal(count(w, "alpha start web"), 1);
    assert_int_equal(count(w, "alpha start address"), 1);
    assert_int_equal(count(w, "stop"), 0);
    assert_int_equal(hf_group_state(core(w, 0))->epoch, epoch);
}

static void definitions_are_checked(void **state)
{
    struct world *w = *state;
    boot(w, 0);
    create(w, 0, "resource a {\n agent = \"ocf:test:none\" }");
    assert_refused(w, -HF_ENOTFOUND, "definition:2: resource a.agent: ");
    create(w, 0, "resource a { agent = \"ocf:test:plain\" }");
    assert_refused(w, -HF_ECONFIG, "resource a.params: dir: not given");
    create(w, 0, "resource a { kind = attached }");
    assert_refused(w, -HF_ECONFIG, "got no resource of kind copy");
    create(w, 0, "resource a { agent = \"ocf:test:mirror\" params { dir = x } fence = none }");
    assert_refused(w, -HF_ECONFIG, "resource a.fence: got none");
    join(w, 0, "resource a { } resource b { }");
    assert_refused(w, -HF_ECONFIG, "got 2 resources, expected one");
    command(w, 0, &(struct hf_group_command){.kind = HF_GROUP_CREATE, .group = "No"});
    assert_refused(w, -HF_ENAME, "the name of a group");
    request(w, 0, HF_GREQUEST_PAUSE, NULL);
    assert_refused(w, -HF_ENOTFOUND, "this host has no group orders");
    assert_null(hf_groups_info(w->host[0].h.groups, 0));
    assert_false(exists(w, "alpha/groups/orders"));
}

static void groups_need_root(void **state)
{
    struct world *w = *state;
    boot_with(w, 0, "user = nobody");
    create(w, 0, shared);
    assert_refused(w, -EPERM, "remove \"user\"");
}

static void a_record_that_cannot_be_read(void **state)
{
    struct world *w = *state;
    boot(w, 0);
    create(w, 0, shared);
    assert_done(w);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN);
    crash(w, 0);
    put(w, "alpha/groups/orders/record", "\1\2\3", 0600);
    boot(w, 0);
    const struct hf_group_info *info = hf_groups_find(w->host[0].h.groups, "orders");
    assert_non_null(info);
    assert_null(info->core);
    assert_non_null(strstr(info->problem, "can't be read"));
    request(w, 0, HF_GREQUEST_PAUSE, NULL);
    assert_refused(w, -HF_ENOTREADY, "can't be read");
    create(w, 0, shared);
    assert_refused(w, -HF_EHELD, "already");
}

static void a_configuration_that_is_gone(void **state)
{
    struct world *w = *state;
    char path[160];
    boot(w, 0);
    create(w, 0, shared);
    assert_done(w);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN);
    crash(w, 0);
    snprintf(path, sizeof(path), "%s/alpha/groups/orders/config/web", w->dir);
    assert_int_equal(unlink(path), 0);
    boot(w, 0); /* what runs must not be taken for stopped */
    const struct hf_group_info *info = hf_groups_find(w->host[0].h.groups, "orders");
    assert_null(info->core);
    assert_non_null(strstr(info->problem, "/config/web is not there or was changed"));
    assert_true(exists(w, "disk/alpha.web"));
}

static void a_member_joins_and_takes_over(void **state)
{
    struct world *w = *state;
    boot(w, 0);
    boot(w, 1);
    create(w, 0, shared);
    assert_done(w);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN);
    join(w, 1, "");
    assert_done(w);
    assert_true(exists(w, "beta/groups/orders/config/web")); /* over TLS, from alpha */
    UNTIL(w, hf_group_able(core(w, 0), 0) == 3);
    request(w, 0, HF_GREQUEST_SWITCH, "beta");
    assert_done(w);
    UNTIL(w, role(w, 1, 0) == HF_ROLE_OPEN && role(w, 0, 0) == HF_ROLE_STOPPED);
    assert_true(exists(w, "disk/beta.web") && !exists(w, "disk/alpha.web"));
    stop(w, 1);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN);
    assert_int_equal(count(w, "fence"), 0);
}

static void who_does_not_come_back_is_fenced(void **state)
{
    struct world *w = *state;
    boot(w, 0);
    boot(w, 1);
    create(w, 0, shared);
    join(w, 1, "");
    assert_done(w);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN);
    crash(w, 0);
    UNTIL(w, role(w, 1, 0) == HF_ROLE_OPEN);
    assert_int_equal(count(w, "fence alpha"), 1);
    assert_true(strstr(log_of(w), "fence alpha") < strstr(log_of(w), "beta start web"));
    boot(w, 0); /* as after its power is back */
    UNTIL(w, role(w, 0, 0) == HF_ROLE_STOPPED && hf_group_present(core(w, 1)) == 3);
    assert_true(exists(w, "disk/beta.web") && !exists(w, "disk/alpha.web"));
}

static void without_a_fence_device_nothing_is_taken_over(void **state)
{
    struct world *w = *state;
    boot(w, 1);
    boot(w, 2);
    create(w, 2, shared);
    join(w, 1, "");
    assert_done(w);
    UNTIL(w, role(w, 2, 0) == HF_ROLE_OPEN);
    crash(w, 2);
    UNTIL(w, strstr(hf_group_why(core(w, 1)), "no fence device"));
    assert_int_equal(role(w, 1, 0), HF_ROLE_STOPPED);
    request(w, 1, HF_GREQUEST_CONFIRM, "gamma");
    assert_done(w);
    UNTIL(w, role(w, 1, 0) == HF_ROLE_OPEN);
}

static void a_copy_is_brought_mirrored_and_promoted(void **state)
{
    struct world *w = *state;
    boot(w, 0);
    boot(w, 1);
    create(w, 0, copy1);
    assert_done(w);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN);
    assert_string_equal(hf_group_state(core(w, 0))->fence_text, "lsn 7");
    put(w, "disk/beta.no-copy1", "", 0600);
    join(w, 1, copy2);
    assert_done(w);
    UNTIL(w, hf_group_state(core(w, 1))->in_sync == 3);
    assert_true(count(w, "alpha mirror-source copy1 copy2=beta@127.0.0.2=grow") >= 1);
    assert_true(count(w, "beta mirror-target copy2 copy1=alpha@127.0.0.1") >= 1);
    const struct hf_group_info *info = hf_groups_find(w->host[0].h.groups, "orders");
    UNTIL(w, info->mirror[1].seen == HF_SEEN_IN_SYNC);
    stop(w, 0);
    UNTIL(w, role(w, 1, 1) == HF_ROLE_OPEN);
}

static void mirrored(struct world *w)
{
    boot(w, 0);
    boot(w, 1);
    create(w, 0, copy1);
    assert_done(w);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN);
    put(w, "disk/beta.no-copy1", "", 0600);
    join(w, 1, copy2);
    assert_done(w);
    UNTIL(w, hf_group_state(core(w, 1))->in_sync == 3);
}

static void a_switch_is_prepared(void **state)
{
    struct world *w = *state;
    mirrored(w);
    unsigned promoted = count(w, " promote "), opened = count(w, " open ");
    request(w, 0, HF_GREQUEST_SWITCH, "beta");
    assert_done(w);
    assert_string_equal(hf_group_state(core(w, 0))->fence_text, "lsn 8 after=1");
    assert_int_equal(count(w, "alpha prepare-demote copy1"), 1);
    assert_int_equal(count(w, "beta prepare-promote copy2"), 1);
    assert_int_equal(count(w, "alpha told demote"), 1);
    assert_int_equal(count(w, "beta told promote"), 1);
    assert_int_equal(count(w, "beta told open"), 1);
    assert_int_equal(count(w, " demote "), 0);
    assert_int_equal(count(w, " promote "), promoted);
    assert_int_equal(count(w, " open "), opened);
}

/* What a prepared process does not do, the action does. */
static void a_prepared_process_that_fails(void **state)
{
    struct world *w = *state;
    mirrored(w);
    put(w, "disk/alpha.fail-word", "", 0600);
    put(w, "disk/beta.fail-word", "", 0600);
    request(w, 0, HF_GREQUEST_SWITCH, "beta");
    assert_done(w);
    assert_string_equal(hf_group_state(core(w, 0))->fence_text, "lsn 7 after=1");
    assert_int_equal(count(w, "alpha demote copy1"), 1);
    assert_int_equal(count(w, "beta promote copy2"), 1);
    assert_int_equal(count(w, "beta open copy2"), 1);
}

/* It is looked at once, not at the next monitor, and a mirror goes on. */
static void a_process_that_ends_is_noticed(void **state)
{
    struct world *w = *state;
    char number[16];
    mirrored(w);
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    snprintf(number, sizeof(number), "%d", (int)pid);
    put(w, "disk/alpha.process", number, 0600);
    struct hf_hgroup *g = hf_groups_get(w->host[0].h.groups, "orders");
    UNTIL(w, g->run[0].watched == pid);
    g->run[0].monitor_at = hf_now() + 2 * PATIENCE;
    put(w, "disk/alpha.copy1", "dead", 0600); /* a primary that is none any more */
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    UNTIL(w, role(w, 1, 1) == HF_ROLE_OPEN);
    assert_int_equal(g->run[0].watched, 0);
}

static void secrets_stay_out_of_texts(void **state)
{
    struct world *w = *state;
    boot(w, 0);
    put(w, "disk/alpha.fail-start", "", 0600);
    create(w, 0, shared);
    assert_done(w);
    const struct hf_group_info *info = hf_groups_find(w->host[0].h.groups, "orders");
    UNTIL(w, *info->error[0]);
    assert_string_equal(info->error[0], "start: told to fail, ***");
}

static void a_disk_that_fails(void **state)
{
    struct world *w = *state;
    char good[160], away[160];
    boot(w, 0);
    boot(w, 1);
    boot(w, 2);
    create(w, 0, shared);
    join(w, 1, "");
    join(w, 2, "");
    assert_done(w);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN && hf_group_able(core(w, 1), 0) == 7);
    snprintf(good, sizeof(good), "%s/alpha/groups/orders", w->dir);
    snprintf(away, sizeof(away), "%s/alpha/groups/away", w->dir);
    assert_int_equal(rename(good, away), 0);
    request(w, 1, HF_GREQUEST_PAUSE, NULL); /* something to write */
    request(w, 1, HF_GREQUEST_RESUME, NULL);
    assert_done(w);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_STOPPED);
    UNTIL(w, role(w, 1, 0) == HF_ROLE_OPEN || role(w, 2, 0) == HF_ROLE_OPEN);
    assert_int_equal(count(w, "fence"), 0);
    assert_true(hf_group_counters(core(w, 0))->persist_errors > 0);
    assert_int_equal(rename(away, good), 0);
    UNTIL(w, hf_group_able(core(w, 1), 0) == 7);
}

static void a_pause_is_noticed(void **state)
{
    struct world *w = *state;
    boot(w, 0);
    create(w, 0, shared);
    assert_done(w);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN);
    assert_int_equal(hf_group_counters(core(w, 0))->gaps, 0);
    usleep(1200000);
    UNTIL(w, hf_group_counters(core(w, 0))->gaps == 1);
    UNTIL(w, hf_group_quorate(core(w, 0)) && role(w, 0, 0) == HF_ROLE_OPEN);
}

static void on_change(void *arg, const struct hf_group_info *info, const char *text)
{
    struct world *w = arg;
    assert_string_equal(info->name, "orders");
    w->events += text != NULL;
}

static void listeners_and_leaving(void **state)
{
    struct world *w = *state;
    boot(w, 0);
    boot(w, 1);
    assert_int_equal(hf_groups_listen(w->host[1].h.groups, on_change, w), 0);
    create(w, 0, shared);
    join(w, 1, "");
    assert_done(w);
    assert_true(w->events > 0);
    hf_groups_unlisten(w->host[1].h.groups, w);
    request(w, 0, HF_GREQUEST_LEAVE, "beta");
    assert_done(w);
    UNTIL(w, !hf_groups_find(w->host[1].h.groups, "orders"));
    assert_false(exists(w, "beta/groups/orders"));
    UNTIL(w, hf_group_state(core(w, 0))->n_members == 1);
}

static void the_watchdog_is_armed_while_needed(void **state)
{
    struct world *w = *state;
    char more[200], path[160];
    struct hf_buf b;
    put(w, "dog", "", 0600);
    snprintf(path, sizeof(path), "%s/dog", w->dir);
    snprintf(more, sizeof(more), "watchdog { device = \"%s\" timeout = 2s }", path);
    boot_with(w, 0, more);
    hf_buf_init(&b, 4096);
    assert_int_equal(hf_file_read(path, &b), 0);
    assert_int_equal(b.n, 0);
    create(w, 0, shared);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN);
    UNTIL(w, !hf_file_read(path, &b) && b.n > 1); /* and is petted */
    stop(w, 0);
    hf_buf_clear(&b);
    assert_int_equal(hf_file_read(path, &b), 0);
    assert_int_equal(b.p[b.n - 1], 'V');
    hf_buf_fini(&b);
}

static void the_watchdog_outlives_a_crash(void **state)
{
    struct world *w = *state;
    char more[200], path[160];
    struct hf_buf b;
    put(w, "dog", "", 0600);
    snprintf(path, sizeof(path), "%s/dog", w->dir);
    snprintf(more, sizeof(more), "watchdog { device = \"%s\" timeout = 2s }", path);
    boot_with(w, 0, more);
    hf_buf_init(&b, 4096);
    create(w, 0, shared);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN);
    UNTIL(w, !hf_file_read(path, &b) && b.n > 0);
    crash(w, 0);
    hf_buf_clear(&b);
    assert_int_equal(hf_file_read(path, &b), 0);
    assert_int_not_equal(b.p[b.n - 1], 'V');
    hf_buf_fini(&b);
}

static void leadership_needs_no_agent(void **state)
{
    struct world *w = *state;
    boot(w, 0);
    boot(w, 1);
    create(w, 0, "resource leader { fence = none }");
    join(w, 1, "");
    assert_done(w);
    UNTIL(w, role(w, 0, 0) == HF_ROLE_OPEN && hf_group_able(core(w, 1), 0) == 3);
    request(w, 1, HF_GREQUEST_SWITCH, "beta");
    assert_done(w);
    UNTIL(w, role(w, 1, 0) == HF_ROLE_OPEN && role(w, 0, 0) == HF_ROLE_STOPPED);
}

static void to_stderr(void *arg, enum hf_log_level level, const char *prefix, const char *text)
{
    (void)arg;
    fprintf(stderr, "# %lld.%03lld %d %s: %s\n", (long long)(hf_now() / HF_NS_PER_S),
            (long long)(hf_now() / HF_NS_PER_MS % 1000), level, prefix, text);
}

int main(void)
{
    if (getenv("VERBOSE")) {
        hf_log_setup(to_stderr, NULL, hf_now, HF_LOG_DEBUG);
        hf_trace_set_mask(1u << HF_TRACE_PROC | 1u << HF_TRACE_ENGINE);
    }

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(created_and_run),
        TEST(a_crashed_daemon_finds_what_it_ran),
        TEST(definitions_are_checked),
        TEST(groups_need_root),
        TEST(a_record_that_cannot_be_read),
        TEST(a_configuration_that_is_gone),
        TEST(a_member_joins_and_takes_over),
        TEST(who_does_not_come_back_is_fenced),
        TEST(without_a_fence_device_nothing_is_taken_over),
        TEST(a_copy_is_brought_mirrored_and_promoted),
        TEST(a_switch_is_prepared),
        TEST(a_prepared_process_that_fails),
        TEST(a_process_that_ends_is_noticed),
        TEST(secrets_stay_out_of_texts),
        TEST(a_disk_that_fails),
        TEST(a_pause_is_noticed),
        TEST(listeners_and_leaving),
        TEST(the_watchdog_is_armed_while_needed),
        TEST(the_watchdog_outlives_a_crash),
        TEST(leadership_needs_no_agent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
