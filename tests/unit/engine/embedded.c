/* The embedded engine over sockets: killed and stopped processes, pauses, refused options. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/engine_rig.h"
#include "support/test.h"

/* A member in a process of its own: joins g, and joins again whenever it was lost. */
static pid_t spawn(struct rig *r, unsigned i)
{
    pid_t parent = getpid(), pid = fork();
    if (pid != 0) {
        return pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(1);
    }
    for (unsigned k = 0; k < RIG_MAX; k++) {
        r->m[k].e = NULL; /* the parent's, whose descriptors we hold until exit */
    }
    rig_start(r, i);
    int rc = r->m[i].e->ops->join(r->m[i].e, "g");
    while (rc == 0) {
        rig_run(r, 5);
        if (r->m[i].lost) {
            r->m[i].lost = false;
            rc = r->m[i].e->ops->join(r->m[i].e, "g");
        }
    }
    _exit(1);
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Wait until a sequencer listens. */
static void wait_for_socket(const struct rig *r)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/g1.sock", r->dir);
    for (int n = 0; access(path, F_OK) != 0; n++) {
        assert_true(n < 20000);
        poll(NULL, 0, 1);
    }
}

static void sequencer_killed_and_stopped(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, RIG_SOCKETS, 1);
    pid_t a = spawn(&r, 0);
    wait_for_socket(&r);
    rig_start(&r, 1);
    assert_int_equal(r.m[1].e->ops->join(r.m[1].e, "g"), 0);
    assert_true(rig_wait(&r, 1, "g v 1,2", 1));
    end(a); /* we take over */
    assert_true(rig_wait(&r, 1, "g v 2 -1:proc", 1));
    a = spawn(&r, 0);
    assert_true(rig_wait(&r, 1, "g v 1,2", 2));
    rig_stop(&r, 1); /* and now the child does: start again as its member */
    rig_start(&r, 1);
    assert_int_equal(r.m[1].e->ops->join(r.m[1].e, "g"), 0);
    assert_true(rig_wait(&r, 1, "g v 1,2", 3));
    kill(a, SIGSTOP);
    assert_int_equal(r.m[1].e->ops->multicast(r.m[1].e, "g", hf_slice_str("on")), 0);
    assert_true(rig_wait(&r, 1, "g v 2 -1:node", 1));
    assert_true(rig_wait(&r, 1, "g m 2 on", 1));
    kill(a, SIGCONT); /* it finds that it lost, and comes back as a newcomer */
    assert_true(rig_wait(&r, 1, "g v 1,2", 4));
    assert_int_equal(rig_count(&r, 1, "g m 2 on"), 1);
    assert_false(r.m[1].lost);
    end(a);
    rig_fini(&r);
}

static void member_killed_and_stopped(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, RIG_SOCKETS, 2);
    rig_start(&r, 0);
    assert_int_equal(r.m[0].e->ops->join(r.m[0].e, "g"), 0);
    assert_true(rig_wait(&r, 0, "g v 1", 1));
    assert_false(r.m[0].quorate);
    pid_t b = spawn(&r, 1);
    assert_true(rig_wait(&r, 0, "g v 1,2", 1));
    assert_true(r.m[0].quorate);
    kill(b, SIGSTOP);
    assert_true(rig_wait(&r, 0, "g v 1 -2:node", 1));
    assert_false(r.m[0].quorate);
    kill(b, SIGCONT);
    assert_true(rig_wait(&r, 0, "g v 1,2", 2));
    end(b);
    assert_true(rig_wait(&r, 0, "g v 1 -2:proc", 1));
    rig_fini(&r);
}

/* I10: who was paused hears nothing but "lost" when it wakes, whatever its socket holds. */
static void paused(unsigned who)
{
    struct rig r;
    const char *left[] = {"g v 2,3 -1:node", "g v 1,3 -2:node"};
    rig_init(&r, RIG_SOCKETS, 3);
    for (unsigned i = 0; i < 3; i++) {
        rig_start(&r, i);
        assert_int_equal(r.m[i].e->ops->join(r.m[i].e, "g"), 0);
        assert_true(rig_wait(&r, i, i == 0 ? "g v 1" : i == 1 ? "g v 1,2" : "g v 1,2,3", 1));
    }
    assert_true(rig_wait(&r, who, "g v 1,2,3", 1));
    rig_run(&r, 5);
    r.m[who].deaf = true;
    assert_int_equal(r.m[2].e->ops->multicast(r.m[2].e, "g", hf_slice_str("while away")), 0);
    assert_true(rig_wait(&r, 2, left[who], 1));
    assert_true(rig_wait(&r, 2, "g m 3 while away", 1));
    assert_true(rig_wait(&r, 1 - who, "g m 3 while away", 1));
    unsigned n = r.m[who].n;
    r.m[who].deaf = false;
    assert_true(rig_wait(&r, who, "lost", 1));
    assert_string_equal(r.m[who].line[n], "lost");
    assert_int_equal(r.m[who].e->ops->join(r.m[who].e, "g"), 0);
    assert_true(rig_wait(&r, 2, "g v 1,2,3", 2));
    assert_false(r.m[2].lost);
    rig_fini(&r);
}

static void paused_sequencer_is_lost(void **state)
{
    (void)state;
    paused(0);
}

static void paused_member_is_lost(void **state)
{
    (void)state;
    paused(1);
}

static void same_node_id_waits(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, RIG_SOCKETS, 1);
    rig_start(&r, 0);
    assert_int_equal(r.m[0].e->ops->join(r.m[0].e, "g"), 0);
    assert_true(rig_wait(&r, 0, "g v 1", 1));
    struct hf_engine *first = r.m[0].e;
    pid_t b = spawn(&r, 0); /* the same id again: refused as long as the first lives */
    rig_run(&r, 150);
    assert_int_equal(rig_count(&r, 0, "g v 1"), 1);
    end(b);
    assert_ptr_equal(r.m[0].e, first);
    rig_fini(&r);
}

static int try_create(const struct hf_engine_embedded_opt *opt)
{
    struct hf_err err = {0};
    struct hf_engine *e = NULL;
    int rc = hf_engine_embedded_create(opt, &err, &e);
    assert_null(e);
    assert_true(err.text[0] != '\0');
    return rc;
}

static void bad_options(void **state)
{
    (void)state;
    char dir[] = "/tmp/hf-engine-XXXXXX", deep[200];
    struct hf_engine_embedded_opt opt = {.host = "a"};
    assert_non_null(mkdtemp(dir));
    assert_int_equal(try_create(&opt), -HF_EVALUE);
    opt.node_id = 1;
    opt.host = "";
    assert_int_equal(try_create(&opt), -HF_EVALUE);
    opt.host = "a b";
    assert_int_equal(try_create(&opt), -HF_EVALUE);
    opt.host = "a";
    opt.run_dir = "/nonexistent/dir";
    assert_int_equal(try_create(&opt), -ENOENT);
    opt.run_dir = "/dev/null";
    assert_int_equal(try_create(&opt), -HF_ECONFIG);
    memset(deep, 'x', sizeof(deep) - 1);
    deep[0] = '/';
    deep[sizeof(deep) - 1] = '\0';
    opt.run_dir = deep;
    assert_int_equal(try_create(&opt), -ENAMETOOLONG);
    opt.run_dir = dir;
    assert_int_equal(chmod(dir, 0777), 0);
    assert_int_equal(try_create(&opt), -HF_ECONFIG);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(sequencer_killed_and_stopped), HF_TEST(member_killed_and_stopped),
        HF_TEST(paused_sequencer_is_lost),     HF_TEST(paused_member_is_lost),
        HF_TEST(same_node_id_waits),           HF_TEST(bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
