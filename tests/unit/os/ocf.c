/* os/ocf: finding agents, their meta-data, actions that succeed, fail, hang, flood, lie, leave
 * daemons; and agents of Debian's resource-agents. */
#include "os/ocf.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "os/file.h"
#include "support/test.h"

static struct hf_loop *loop;
static char dir[64]; /* the test's own OCF root */

static void write_file(const char *rest, const char *text, unsigned mode)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, rest);
    assert_int_equal(hf_file_replace(path, hf_slice_str(text), mode, NULL), 0);
}

static int create(void **state)
{
    (void)state;
    char agents[128];
    snprintf(dir, sizeof(dir), "/tmp/hf-ocf-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(agents, sizeof(agents), "%s/resource.d/test", dir);
    assert_int_equal(hf_file_make_dir(agents, 0755, NULL), 0);
    return hf_loop_create(&loop);
}

static int destroy(void **state)
{
    (void)state;
    char command[128];
    hf_loop_destroy(loop);
    snprintf(command, sizeof(command), "exec rm -r %s", dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing left behind */
    assert_int_equal(errno, ECHILD);
    return 0;
}

/* An agent ocf:test:a with this script. */
static struct hf_ocf_agent agent(const char *script)
{
    char text[4096];
    struct hf_ocf_agent a;
    snprintf(text, sizeof(text), "#!/bin/sh\n%s\n", script);
    write_file("resource.d/test/a", text, 0755);
    assert_int_equal(hf_ocf_find(dir, "ocf:test:a", &a, NULL), 0);
    return a;
}

struct seen {
    int calls;
    struct hf_ocf_result res;
    char out[8192], reason[HF_OCF_REASON_MAX];
};

static void on_done(void *arg, const struct hf_ocf_result *res)
{
    struct seen *s = arg;
    s->calls++;
    s->res = *res;
    snprintf(s->out, sizeof(s->out), "%.*s", HF_SLICE_FMT(res->out));
    snprintf(s->reason, sizeof(s->reason), "%s", res->reason);
    hf_loop_stop(loop);
}

static struct seen run_opt(const struct hf_ocf_opt *o)
{
    struct seen s = {0};
    struct hf_ocf_run *r;
    assert_int_equal(hf_ocf_start(loop, o, on_done, &s, NULL, &r), 0);
    assert_int_equal(s.calls, 0);
    assert_int_equal(hf_loop_run(loop), 0);
    assert_int_equal(s.calls, 1);
    return s;
}

static struct seen run(const char *script, hf_time timeout)
{
    struct hf_ocf_agent a = agent(script);
    struct hf_ocf_opt o = {.agent = &a, .instance = "x", .action = "monitor", .timeout = timeout};
    return run_opt(&o);
}

/* Wait until a process that may not be our child is dead. */
static void wait_dead(pid_t pid)
{
    int fd = pidfd_open(pid, 0);
    if (fd >= 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, -1), 1);
        close(fd);
    }
}

static void end(pid_t pid)
{
    assert_true(pid > 1);
    assert_int_equal(kill(pid, 0), 0); /* it lives */
    assert_int_equal(kill(pid, SIGKILL), 0);
    wait_dead(pid);
}

/* ---- find ---- */

static void finds(void **state)
{
    (void)state;
    struct hf_ocf_agent a = agent("exit 0");
    struct hf_err err;
    char roots[160], path[160];
    snprintf(path, sizeof(path), "%s/resource.d/test/a", dir);
    assert_string_equal(a.provider, "test");
    assert_string_equal(a.type, "a");
    assert_string_equal(a.path, path);
    assert_string_equal(a.root, HF_OCF_ROOT); /* no shell library in dir */
    snprintf(path, sizeof(path), "%s/lib/heartbeat", dir);
    assert_int_equal(hf_file_make_dir(path, 0755, NULL), 0);
    write_file("lib/heartbeat/ocf-shellfuncs", "", 0644);
    snprintf(roots, sizeof(roots), "/nosuch::%s:/usr/lib/ocf", dir);
    assert_int_equal(hf_ocf_find(roots, "ocf:test:a", &a, NULL), 0);
    assert_string_equal(a.root, dir);
    assert_int_equal(hf_ocf_find(roots, "ocf:heartbeat:Dummy", &a, NULL), 0);
    assert_string_equal(a.path, "/usr/lib/ocf/resource.d/heartbeat/Dummy");
    assert_string_equal(a.root, "/usr/lib/ocf");
    assert_int_equal(hf_ocf_find(NULL, "ocf:heartbeat:Dummy", &a, NULL), 0);
    assert_int_equal(hf_ocf_find("", "ocf:heartbeat:Dummy", &a, NULL), 0);
    assert_int_equal(hf_ocf_find(dir, "ocf:heartbeat:Dummy", &a, &err), -HF_ENOTFOUND);
    snprintf(path, sizeof(path), "ocf:heartbeat:Dummy is not in %s", dir);
    assert_string_equal(err.text, path);
}

static void finds_only_programs(void **state)
{
    (void)state;
    struct hf_ocf_agent a;
    struct hf_err err;
    char path[160];
    write_file("resource.d/test/plain", "", 0644);
    assert_int_equal(hf_ocf_find(dir, "ocf:test:plain", &a, &err), -EACCES);
    snprintf(path, sizeof(path), "%s/resource.d/test/folder", dir);
    assert_int_equal(hf_file_make_dir(path, 0755, NULL), 0);
    assert_int_equal(hf_ocf_find(dir, "ocf:test:folder", &a, &err), -HF_ENOTFOUND);
}

static void bad_names(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "ocf",
        "ocf:",
        "ocf:test",
        "ocf:test:",
        "ocf::a",
        "lsb:test:a",
        "ocf:test:..",
        "ocf:..:a",
        "ocf:test:.a",
        "ocf:te/st:a",
        "ocf:test:a/b",
        "ocf:test:a b",
        "ocf:test:a:b",
        "OCF:test:a",
        "ocf:test:a\n",
        "ocf:test:\xc3\xa4",
        "ocf:test:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    struct hf_ocf_agent a = agent("exit 0");
    struct hf_err err;
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        assert_int_equal(hf_ocf_find(dir, bad[i], &a, &err), -HF_ENAME);
    }
}

/* ---- meta-data ---- */

static const char sample[] =
    "<?xml version='1.0'?><!DOCTYPE resource-agent SYSTEM 'ra-api-1.dtd'>\n"
    "<resource-agent name='pg' version='1.5'><version>1.1</version>\n"
    "<longdesc lang='en'><parameter name='no'/><action name='no'/>&lt;</longdesc>\n"
    "<parameters><parameter name='pgdata' required='1' unique='1'>\n"
    "<longdesc><content default='no'/></longdesc><content type='string'/></parameter>\n"
    "<parameter name='port'><content type='integer' default='5432'/></parameter></parameters>\n"
    "<actions><action name='start' timeout='2min'/><action name='stop' timeout='20'/>\n"
    "<action name='monitor' timeout='500ms' interval='10s' depth='10'/>\n"
    "<action name='monitor' timeout='1h' interval='9' role='Master'/>\n"
    "<action name='promote' timeout='-1'/><action name='demote' timeout='5 parsecs'/>\n"
    "<action name='mirror-source'/><action name='mirror-target'/><action name='mirror-state'/>\n"
    "<action name='access'/><action name='notify' timeout='99999999999999999999999h'/>\n"
    "</actions><special tag='holdfast-lease'/></resource-agent>\n";

static void meta_data(void **state)
{
    (void)state;
    struct hf_ocf_meta *m;
    assert_int_equal(hf_ocf_meta_parse(hf_slice_str(sample), NULL, &m), 0);
    assert_string_equal(m->name, "pg");
    assert_string_equal(m->version, "1.5");
    assert_int_equal(m->n_params, 2);
    assert_true(hf_ocf_meta_param(m, "pgdata")->required);
    assert_null(hf_ocf_meta_param(m, "pgdata")->dflt);
    assert_false(hf_ocf_meta_param(m, "port")->required);
    assert_string_equal(hf_ocf_meta_param(m, "port")->dflt, "5432");
    assert_null(hf_ocf_meta_param(m, "no"));
    assert_int_equal(m->n_actions, 11);
    assert_int_equal(hf_ocf_meta_action(m, "start", NULL)->timeout, HF_S(120));
    assert_int_equal(hf_ocf_meta_action(m, "stop", NULL)->timeout, HF_S(20));
    const struct hf_ocf_action *a = hf_ocf_meta_action(m, "monitor", NULL);
    assert_int_equal(a->timeout, HF_MS(500));
    assert_int_equal(a->interval, HF_S(10));
    assert_int_equal(a->depth, 10);
    assert_string_equal(a->role, "");
    assert_ptr_equal(hf_ocf_meta_action(m, "monitor", "Unpromoted"), a); /* meant for each */
    a = hf_ocf_meta_action(m, "monitor", "Promoted");
    assert_string_equal(a->role, "Promoted");
    assert_int_equal(a->timeout, HF_S(3600));
    assert_int_equal(a->interval, HF_S(9));
    assert_int_equal(hf_ocf_meta_action(m, "promote", "")->timeout, 0);
    assert_int_equal(hf_ocf_meta_action(m, "demote", "")->timeout, 0);
    assert_true(hf_ocf_meta_action(m, "notify", "")->timeout == HF_NEVER);
    assert_null(hf_ocf_meta_action(m, "no", NULL));
    assert_int_equal(m->flags, HF_OCF_PROMOTABLE | HF_OCF_MIRRORS | HF_OCF_MIRROR_STATE |
                                   HF_OCF_ACCESS | HF_OCF_NOTIFY | HF_OCF_LEASE);
    hf_ocf_meta_destroy(m);
    hf_ocf_meta_destroy(NULL);
}

static void meta_refused(const char *xml, const char *why)
{
    struct hf_err err;
    struct hf_ocf_meta *m;
    assert_int_equal(hf_ocf_meta_parse(hf_slice_str(xml), &err, &m), -HF_EMALF);
    if (!strstr(err.text, why)) {
        fail_msg("%s: '%s'", xml, err.text);
    }
}

static void meta_data_refused(void **state)
{
    (void)state;
    meta_refused("", "no element found");
    meta_refused("usage: agent start|stop", "line 1: ");
    meta_refused("<html></html>", "not a <resource-agent>");
    meta_refused("<resource-agent><actions>\n<action/></actions></resource-agent>",
                 "line 2: an action");
    meta_refused("<resource-agent><parameters><parameter name=''/></parameters></resource-agent>",
                 "a parameter without a name");
    meta_refused("<!DOCTYPE resource-agent [<!ENTITY a 'b'>]><resource-agent/>", "an entity");
    meta_refused("<!DOCTYPE resource-agent [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"
                 "<resource-agent>&a;</resource-agent>",
                 "an entity");
    meta_refused("<resource-agent>&a;</resource-agent>", "undefined entity");
}

static void meta_data_bounds(void **state)
{
    (void)state;
    struct hf_buf b;
    struct hf_err err;
    struct hf_ocf_meta *m;
    hf_buf_init(&b, HF_OCF_META_MAX + 1);
    hf_buf_str(&b, "<resource-agent><actions>");
    for (int i = 0; i <= HF_OCF_META_ITEMS_MAX; i++) {
        hf_buf_str(&b, "<action name='a'/>");
    }
    hf_buf_str(&b, "</actions></resource-agent>");
    assert_int_equal(hf_ocf_meta_parse(hf_buf_slice(&b), &err, &m), -HF_EFULL);
    while (b.n <= HF_OCF_META_MAX) {
        hf_buf_str(&b, "\n");
    }
    assert_int_equal(hf_ocf_meta_parse(hf_buf_slice(&b), &err, &m), -HF_EFULL);
    hf_buf_fini(&b);
    for (size_t n = 0; n < strlen(sample) - 1; n++) { /* truncated at each length */
        uint8_t *exact = hf_alloc(n);
        memcpy(exact, sample, n);
        assert_int_equal(hf_ocf_meta_parse(hf_slice(exact, n), NULL, &m), -HF_EMALF);
        hf_free(exact);
    }
    int rc = -ENOMEM;
    for (int64_t i = 0; rc; i++) { /* each allocation failing */
        hf_mem_fail_after(i);
        rc = hf_ocf_meta_parse(hf_slice_str(sample), NULL, &m);
        assert_true(rc == 0 || rc == -ENOMEM);
    }
    hf_mem_fail_after(-1);
    hf_ocf_meta_destroy(m);
}

struct meta_seen {
    int rc;
    struct hf_err err;
    struct hf_ocf_meta *m;
};

static void on_meta(void *arg, int rc, const struct hf_err *err, struct hf_ocf_meta *m)
{
    struct meta_seen *s = arg;
    *s = (struct meta_seen){.rc = rc, .err = *err, .m = m};
    hf_loop_stop(loop);
}

static struct meta_seen read_meta(const struct hf_ocf_agent *a, hf_time timeout)
{
    struct meta_seen s = {0};
    struct hf_ocf_run *r;
    assert_int_equal(hf_ocf_meta_start(loop, a, timeout, on_meta, &s, &r), 0);
    assert_int_equal(hf_loop_run(loop), 0);
    return s;
}

static void meta_data_of_agents(void **state)
{
    (void)state;
    struct hf_ocf_agent a;
    assert_int_equal(hf_ocf_find(NULL, "ocf:heartbeat:Stateful", &a, NULL), 0);
    struct meta_seen s = read_meta(&a, HF_S(60));
    assert_int_equal(s.rc, 0);
    assert_string_equal(s.m->name, "Stateful");
    assert_int_equal(s.m->flags, HF_OCF_PROMOTABLE | HF_OCF_VALIDATE_ALL);
    hf_ocf_meta_destroy(s.m);
    a = agent("echo nonsense");
    s = read_meta(&a, HF_S(60));
    assert_int_equal(s.rc, -HF_EMALF);
    assert_non_null(strstr(s.err.text, "/resource.d/test/a: the meta-data is not valid: line 1: "));
    assert_null(s.m);
    a = agent("echo 'ocf-exit-reason:no python' >&2; exit 5");
    s = read_meta(&a, HF_S(60));
    assert_int_equal(s.rc, -HF_EPROTO);
    assert_non_null(strstr(s.err.text, "/resource.d/test/a: no python"));
    a = agent("exit 5");
    s = read_meta(&a, HF_S(60));
    assert_non_null(strstr(s.err.text, "/resource.d/test/a: what it needs is not installed"));
    a = agent("sleep 1000");
    s = read_meta(&a, HF_MS(50));
    assert_int_equal(s.rc, -HF_ETIMEOUT);
    a = agent("yes '<resource-agent>'");
    s = read_meta(&a, HF_MS(500));
    assert_int_equal(s.rc, -HF_ETIMEOUT);
    a = agent("yes '<resource-agent>' | head -c 1000000");
    s = read_meta(&a, HF_S(60));
    assert_int_equal(s.rc, -HF_EFULL);
    unlink(a.path);
    s = read_meta(&a, HF_S(60));
    assert_int_equal(s.rc, -ENOENT);
}

/* ---- actions ---- */

static void environment(void **state)
{
    (void)state;
    struct hf_ocf_agent a = agent("unset PWD; echo $1; env | sort; umask; wc -c");
    static const struct hf_ocf_pair params[] = {{"ip", "10.0.0.1"}, {"words", "a b\nc=$d"}};
    static const struct hf_ocf_pair env[] = {{"HOLDFAST_GROUP", "orders"},
                                             {"PATH", "/bin:/usr/bin"}};
    struct hf_ocf_opt o = {
        .agent = &a,
        .instance = "vip",
        .action = "mirror-state",
        .params = params,
        .n_params = 2,
        .env = env,
        .n_env = 2,
        .timeout = HF_S(20),
        .interval = HF_MS(1500),
        .on_node = "alpha",
        .check_level = 10,
    };
    setenv("SECRET_OF_OURS", "1", 1);
    umask(077);
    struct seen s = run_opt(&o);
    umask(022);
    unsetenv("SECRET_OF_OURS");
    assert_string_equal(s.reason, "");
    assert_string_equal(s.out, "mirror-state\n"
                               "HA_LOGD=no\n"
                               "HA_LOGFACILITY=none\n"
                               "HA_debug=0\n"
                               "HOLDFAST_GROUP=orders\n"
                               "LC_ALL=C\n"
                               "OCF_CHECK_LEVEL=10\n"
                               "OCF_EXIT_REASON_PREFIX=ocf-exit-reason:\n"
                               "OCF_RA_VERSION_MAJOR=1\n"
                               "OCF_RA_VERSION_MINOR=1\n"
                               "OCF_RESKEY_CRM_meta_interval=1500\n"
                               "OCF_RESKEY_CRM_meta_on_node=alpha\n"
                               "OCF_RESKEY_CRM_meta_timeout=20000\n"
                               "OCF_RESKEY_crm_feature_set=3.16.2\n"
                               "OCF_RESKEY_ip=10.0.0.1\n"
                               "OCF_RESKEY_words=a b\n"
                               "OCF_RESOURCE_INSTANCE=vip\n"
                               "OCF_RESOURCE_PROVIDER=test\n"
                               "OCF_RESOURCE_TYPE=a\n"
                               "OCF_ROOT=/usr/lib/ocf\n"
                               "PATH=/bin:/usr/bin\n"
                               "c=$d\n"
                               "0022\n0\n");
    o = (struct hf_ocf_opt){.agent = &a, .instance = "x", .action = "start", .promotable = true};
    s = run_opt(&o);
    assert_non_null(strstr(s.out, "\nOCF_RESKEY_CRM_meta_promotable=true\n"));
    assert_non_null(strstr(s.out, "\nOCF_RESKEY_CRM_meta_promoted_max=1\n"));
    assert_non_null(strstr(s.out, "\nOCF_RESKEY_CRM_meta_interval=0\n"));
    assert_null(strstr(s.out, "CRM_meta_timeout"));
}

static void not_valid(void **state)
{
    (void)state;
    struct hf_ocf_agent a = agent("exit 0");
    static const char *const actions[] = {"", "Start", "-x", "a b", "a/b"};
    static const char *const names[] = {"", "a-b", "a=b", "\xc3\xa4"};
    struct hf_ocf_run *r;
    struct hf_err err;
    struct hf_ocf_opt o = {.agent = &a, .instance = "x"};
    for (size_t i = 0; i < HF_ARRAY_LEN(actions); i++) {
        o.action = actions[i];
        assert_int_equal(hf_ocf_start(loop, &o, on_done, NULL, &err, &r), -HF_EVALUE);
    }
    o.action = "start";
    o.n_params = 1;
    struct hf_ocf_pair p = {.value = ""};
    o.params = &p;
    for (size_t i = 0; i < HF_ARRAY_LEN(names); i++) {
        p.name = names[i];
        assert_int_equal(hf_ocf_start(loop, &o, on_done, NULL, &err, &r), -HF_EVALUE);
    }
    char *big = hf_alloc(HF_OCF_ENV_MAX);
    memset(big, 'x', HF_OCF_ENV_MAX - 1);
    p = (struct hf_ocf_pair){"name", big};
    assert_int_equal(hf_ocf_start(loop, &o, on_done, NULL, &err, &r), -HF_EVALUE);
    assert_string_equal(err.text, "cannot run start of x: its parameters are too long");
    hf_free(big);
    o.n_params = 0;
    o.instance = "";
    assert_int_equal(hf_ocf_start(loop, &o, on_done, NULL, &err, &r), -HF_EVALUE);
    o.instance = "x";
    for (int64_t i = 0; i < 3; i++) {
        hf_mem_fail_after(i);
        assert_int_equal(hf_ocf_start(loop, &o, on_done, NULL, &err, &r), -ENOMEM);
    }
    hf_mem_fail_after(-1);
}

static void exit_codes(void **state)
{
    (void)state;
    char script[32];
    int known = 0;
    for (int rc = 0; rc < 256; rc++) {
        assert_int_equal(hf_ocf_rc_name(rc) != NULL, hf_ocf_rc_text(rc) != NULL);
        if (!hf_ocf_rc_name(rc) && rc != 10 && rc != 255) { /* those lie */
            continue;
        }
        snprintf(script, sizeof(script), "exit %d", rc);
        struct seen s = run(script, 0);
        known += hf_ocf_rc_name(rc) != NULL;
        assert_int_equal(s.res.end, HF_OCF_EXITED);
        assert_int_equal(s.res.status, rc);
        assert_int_equal(s.res.rc, hf_ocf_rc_name(rc) ? rc : HF_OCF_ERR_GENERIC);
    }
    assert_int_equal(known, 12);
    assert_string_equal(hf_ocf_rc_name(HF_OCF_DEGRADED_PROMOTED), "OCF_DEGRADED_PROMOTED");
    assert_string_equal(hf_ocf_rc_text(HF_OCF_NOT_RUNNING), "not running");
    assert_null(hf_ocf_rc_name(-1));
}

static void reasons(void **state)
{
    (void)state;
    struct seen s =
        run("echo 'ocf-exit-reason:first' >&2; echo 'ocf-exit-reason: the disk is full ' >&2;"
            "echo 'ocf-exit-reason:' >&2; echo 'log line' >&2; echo text; exit 1",
            0);
    assert_string_equal(s.reason, "the disk is full");
    assert_string_equal(s.out, "text\n");
    s = run("echo one >&2; printf 'two\\033[1m\\303\\244\\377\\n  \\n' >&2; exit 1", 0);
    assert_string_equal(s.reason, "two?[1m\xc3\xa4?");
    s = run("yes | head -n 10000 | tr -d '\\n' >&2; exit 1", 0);
    assert_int_equal(strlen(s.reason), HF_OCF_REASON_MAX - 1);
}

static void killed_by_a_signal(void **state)
{
    (void)state;
    struct seen s = run("echo 'ocf-exit-reason:about to crash' >&2; kill -SEGV $$", 0);
    assert_int_equal(s.res.end, HF_OCF_KILLED);
    assert_int_equal(s.res.rc, HF_OCF_ERR_GENERIC);
    assert_int_equal(s.res.signo, SIGSEGV);
    assert_string_equal(s.reason, "killed by SIGSEGV: about to crash");
}

static void not_startable(void **state)
{
    (void)state;
    struct hf_ocf_agent a = agent("exit 0");
    struct hf_ocf_opt o = {.agent = &a, .instance = "x", .action = "start"};
    char reason[HF_OCF_REASON_MAX];
    write_file("resource.d/test/a", "\x7f nonsense", 0755);
    struct seen s = run_opt(&o);
    assert_int_equal(s.res.end, HF_OCF_NOT_STARTED);
    assert_int_equal(s.res.rc, HF_OCF_ERR_INSTALLED);
    assert_int_equal(s.res.error, -ENOEXEC);
    write_file("resource.d/test/a", "#!/bin/sh\n", 0644);
    s = run_opt(&o);
    assert_int_equal(s.res.rc, HF_OCF_ERR_PERM);
    unlink(a.path);
    s = run_opt(&o);
    assert_int_equal(s.res.rc, HF_OCF_ERR_INSTALLED);
    snprintf(reason, sizeof(reason), "cannot start %.200s: No such file or directory", a.path);
    assert_string_equal(s.reason, reason);
    struct hf_ocf_run *r; /* ended before it could be told */
    assert_int_equal(hf_ocf_start(loop, &o, on_done, NULL, NULL, &r), 0);
    hf_ocf_kill(r);
}

static void hangs(void **state)
{
    (void)state;
    struct seen s = run("echo 'ocf-exit-reason:waiting for the disk' >&2; sleep 1000", HF_S(1));
    assert_int_equal(s.res.end, HF_OCF_TIMED_OUT);
    assert_int_equal(s.res.rc, HF_OCF_ERR_GENERIC);
    assert_string_equal(s.reason, "timed out after 1 s: waiting for the disk");
    assert_true(s.res.duration >= HF_S(1));
    s = run("trap 'exit 0' TERM; while :; do sleep 0.01; done", HF_MS(50)); /* no excuse */
    assert_int_equal(s.res.end, HF_OCF_TIMED_OUT);
    assert_int_equal(s.res.rc, HF_OCF_ERR_GENERIC);
    s = run("trap '' TERM; while :; do sleep 1000; done", HF_S(1));
    assert_int_equal(s.res.end, HF_OCF_TIMED_OUT);
    assert_int_equal(s.res.signo, SIGKILL);
}

/* Its helper ignores SIGTERM and holds the output. */
static void hangs_with_a_helper(void **state)
{
    (void)state;
    struct seen s =
        run("(trap '' TERM; echo ready; while :; do sleep 1000; done) & echo $!; wait", HF_S(2));
    assert_int_equal(s.res.end, HF_OCF_TIMED_OUT);
    char *digits = strpbrk(s.out, "0123456789");
    assert_non_null(digits);
    wait_dead(atoi(digits));
}

static void floods(void **state)
{
    (void)state;
    struct seen s = run("yes out | head -c 3000000; yes err | head -c 3000000 >&2;"
                        "echo; echo 'ocf-exit-reason:the end' >&2; exit 1",
                        0);
    assert_int_equal(s.res.rc, HF_OCF_ERR_GENERIC);
    assert_int_equal(s.res.out.n, HF_OCF_OUTPUT_MAX);
    assert_int_equal(s.res.dropped,
                     6000000 + 1 + strlen("ocf-exit-reason:the end\n") - 2 * HF_OCF_OUTPUT_MAX);
    assert_string_equal(s.reason, "the end");
    s = run("yes err >&2", HF_S(1)); /* without end */
    assert_int_equal(s.res.end, HF_OCF_TIMED_OUT);
    assert_string_equal(s.reason, "timed out after 1 s: err");
}

static void kill_it(void **state)
{
    (void)state;
    struct hf_ocf_agent a = agent("sleep 1000");
    struct hf_ocf_opt o = {.agent = &a, .instance = "x", .action = "start"};
    struct hf_ocf_run *r;
    assert_int_equal(hf_ocf_start(loop, &o, on_done, NULL, NULL, &r), 0);
    hf_ocf_kill(r);
    hf_ocf_kill(NULL);
}

/* ---- daemons ---- */

/* A daemon that holds the agent's output, and stays in its process group or not. */
static void leaves_a_daemon(void **state)
{
    (void)state;
    struct seen s = run("sleep 1000 & echo $!; exit 0", HF_S(60));
    assert_int_equal(s.res.rc, HF_OCF_SUCCESS);
    end(atoi(s.out));
    s = run("setsid sh -c 'echo $$; exec sleep 1000' & read x; exit 0", HF_S(60));
    assert_int_equal(s.res.rc, HF_OCF_SUCCESS);
    end(atoi(s.out));
    s = run("sleep 1000 >/dev/null 2>&1 & echo $!; exit 1", HF_S(60)); /* failed, still its own */
    assert_int_equal(s.res.rc, HF_OCF_ERR_GENERIC);
    end(atoi(s.out));
}

/* As holdfastd: run an action in the loop until killed. */
static _Noreturn void be_holdfastd(const struct hf_ocf_agent *a)
{
    struct hf_loop *own;
    struct hf_ocf_opt o = {.agent = a, .instance = "x", .action = "start"};
    struct hf_ocf_run *r;
    if (hf_loop_create(&own) || hf_ocf_start(own, &o, on_done, NULL, NULL, &r) ||
        hf_loop_run(own)) {
        _exit(1);
    }
    _exit(2);
}

static void daemon_outlives_holdfastd(void **state)
{
    (void)state;
    char fifo[128], script[256], line[64] = "";
    snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    snprintf(script, sizeof(script), "sleep 1000 & echo $$ $! >%s; sleep 1000", fifo);
    struct hf_ocf_agent a = agent(script);
    pid_t holdfastd = fork();
    assert_true(holdfastd >= 0);
    if (holdfastd == 0) {
        be_holdfastd(&a);
    }
    FILE *f = fopen(fifo, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    fclose(f);
    int agent_pid = 0, daemon_pid = 0;
    assert_int_equal(sscanf(line, "%d %d", &agent_pid, &daemon_pid), 2);
    kill(holdfastd, SIGKILL);
    assert_int_equal(waitpid(holdfastd, NULL, 0), holdfastd);
    wait_dead(agent_pid); /* what it was doing nobody would hear of */
    pid_t group = getpgid(daemon_pid);
    end(daemon_pid);
    kill(-group, SIGKILL); /* the agent's other sleep */
}

/* ---- Debian's agents ---- */

static struct seen run_debian(const char *name, const char *action,
                              const struct hf_ocf_pair *params, size_t n)
{
    struct hf_ocf_agent a;
    const struct hf_ocf_pair env[] = {{"HA_RSCTMP", dir}};
    assert_int_equal(hf_ocf_find(NULL, name, &a, NULL), 0);
    struct hf_ocf_opt o = {
        .agent = &a,
        .instance = "x",
        .action = action,
        .params = params,
        .n_params = n,
        .env = env,
        .n_env = 1,
        .timeout = HF_S(60),
        .promotable = strstr(name, "Stateful") != NULL,
    };
    return run_opt(&o);
}

struct row {
    const char *action;
    int rc;
};

static void story(const char *name, const struct row *rows, size_t n_rows,
                  const struct hf_ocf_pair *params, size_t n)
{
    for (size_t i = 0; i < n_rows; i++) {
        struct seen s = run_debian(name, rows[i].action, params, n);
        if (s.res.rc != rows[i].rc || s.res.end != HF_OCF_EXITED) {
            fail_msg("%s %s: %s, %s", name, rows[i].action, hf_ocf_rc_name(s.res.rc), s.reason);
        }
    }
}

static void dummy(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"validate-all", 0}, {"monitor", 7}, {"start", 0},   {"start", 0},         {"monitor", 0},
        {"stop", 0},         {"stop", 0},    {"monitor", 7}, {"mirror-source", 3},
    };
    story("ocf:heartbeat:Dummy", rows, HF_ARRAY_LEN(rows), NULL, 0);
    struct hf_ocf_agent a;
    const struct hf_ocf_pair env[] = {{"HA_RSCTMP", dir}};
    assert_int_equal(hf_ocf_find(NULL, "ocf:heartbeat:Dummy", &a, NULL), 0);
    struct hf_ocf_opt o = {.agent = &a,
                           .instance = "x",
                           .action = "monitor",
                           .env = env,
                           .n_env = 1,
                           .interval = HF_S(10)};
    struct seen s = run_opt(&o); /* not a probe: it says why */
    assert_int_equal(s.res.rc, HF_OCF_NOT_RUNNING);
    assert_string_equal(s.reason, "No process state file found");
}

static void stateful(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"monitor", 7}, {"start", 0},   {"monitor", 0}, {"promote", 0}, {"monitor", 8},
        {"demote", 0},  {"monitor", 0}, {"stop", 0},    {"monitor", 7},
    };
    story("ocf:heartbeat:Stateful", rows, HF_ARRAY_LEN(rows), NULL, 0);
}

/* A network namespace of our own, in which we are root and stay. */
static void enter_namespace(void)
{
    unsigned uid = geteuid();
    assert_int_equal(unshare(CLONE_NEWNET | (uid ? CLONE_NEWUSER : 0)), 0);
    if (uid) {
        FILE *f = fopen("/proc/self/uid_map", "w");
        assert_non_null(f);
        assert_true(fprintf(f, "0 %u 1", uid) > 0);
        assert_int_equal(fclose(f), 0);
    }
}

/* The last test: see enter_namespace(). */
static void ipaddr2(void **state)
{
    (void)state;
    static const struct hf_ocf_pair params[] = {
        {"ip", "192.0.2.7"}, {"cidr_netmask", "32"}, {"nic", "lo"}};
    static const struct row rows[] = {
        {"monitor", 7}, {"start", 0}, {"monitor", 0}, {"stop", 0}, {"monitor", 7},
    };
    enter_namespace();
    story("ocf:heartbeat:IPaddr2", rows, HF_ARRAY_LEN(rows), params, HF_ARRAY_LEN(params));
    struct seen s = run_debian("ocf:heartbeat:IPaddr2", "start", params + 1, 2);
    assert_int_equal(s.res.rc, HF_OCF_ERR_CONFIGURED);
    assert_string_not_equal(s.reason, "");
}

#define OCF_TEST(fn) cmocka_unit_test_setup_teardown(fn, create, destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        OCF_TEST(finds),
        OCF_TEST(finds_only_programs),
        OCF_TEST(bad_names),
        OCF_TEST(meta_data),
        OCF_TEST(meta_data_refused),
        OCF_TEST(meta_data_bounds),
        OCF_TEST(meta_data_of_agents),
        OCF_TEST(environment),
        OCF_TEST(not_valid),
        OCF_TEST(exit_codes),
        OCF_TEST(reasons),
        OCF_TEST(killed_by_a_signal),
        OCF_TEST(not_startable),
        OCF_TEST(hangs),
        OCF_TEST(hangs_with_a_helper),
        OCF_TEST(floods),
        OCF_TEST(kill_it),
        OCF_TEST(leaves_a_daemon),
        OCF_TEST(daemon_outlives_holdfastd),
        OCF_TEST(dummy),
        OCF_TEST(stateful),
        OCF_TEST(ipaddr2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
