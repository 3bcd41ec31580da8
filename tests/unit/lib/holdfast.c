/* lib/holdfast: the public functions against a scripted holdfastd in the same thread. */
#include "holdfast/holdfast.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "lib/conn.h"
#include "support/test.h"

/* The daemon's side, stepped by the test. */
struct fixture {
    char dir[32], path[64];
    int listener;
    struct hf_conn conn; /* fd -1: none accepted */
    struct holdfast *h;
    struct hf_buf story; /* what callbacks were told */
};

static void start(struct fixture *f)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    memcpy(un.sun_path, f->path, strlen(f->path) + 1);
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(listen(f->listener, 1), 0);
}

static void stop(struct fixture *f)
{
    hf_conn_fini(&f->conn);
    if (f->listener >= 0) {
        close(f->listener);
        unlink(f->path);
    }
    f->listener = -1;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->dir, sizeof(f->dir), "/tmp/hf-lib-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/sock", f->dir);
    hf_conn_init(&f->conn, -1);
    hf_buf_init(&f->story, 65536);
    start(f);
    assert_int_equal(holdfast_create(f->path, "test", &f->h), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    holdfast_destroy(f->h);
    stop(f);
    hf_buf_fini(&f->story);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

/* Dispatch the client until the daemon's side has a message; accepts, too. */
static struct hf_ctl_msg receive(struct fixture *f)
{
    struct hf_ctl_msg m;
    while (f->conn.fd < 0 || hf_conn_next(&f->conn, &m) == 0) {
        struct pollfd p[2] = {{.fd = holdfast_fd(f->h), .events = POLLIN},
                              {.fd = f->conn.fd < 0 ? f->listener : f->conn.fd, .events = POLLIN}};
        assert_true(poll(p, 2, 10000) > 0);
        if (p[0].revents) {
            assert_int_equal(holdfast_dispatch(f->h, 0), 0);
        }
        if (p[1].revents && f->conn.fd < 0) {
            hf_conn_init(&f->conn, accept4(f->listener, NULL, NULL, SOCK_NONBLOCK));
        } else if (p[1].revents) {
            assert_int_equal(hf_conn_fill(&f->conn), 0);
        }
    }
    return m;
}

static void reply(struct fixture *f, struct hf_ctl_msg m)
{
    assert_int_equal(hf_conn_send(&f->conn, &m), 0);
    assert_int_equal(hf_conn_flush(&f->conn), 0);
}

static void hello(struct fixture *f)
{
    struct hf_ctl_msg m = receive(f);
    assert_int_equal(m.type, HF_CTL_HELLO);
    hf_assert_slice_str(m.text, "test");
    reply(f, (struct hf_ctl_msg){
                 .type = HF_CTL_HELLO, .version = HF_CTL_VERSION, .text = hf_slice_str("alpha")});
}

static void result(struct fixture *f, uint32_t seq, int code, const char *text)
{
    reply(f, (struct hf_ctl_msg){
                 .type = HF_CTL_RESULT, .seq = seq, .code = code, .text = hf_slice_str(text)});
}

static void event(struct fixture *f, uint32_t seq, int ev, const char *name, const char *value)
{
    reply(f, (struct hf_ctl_msg){.type = HF_CTL_EVENT,
                                 .seq = seq,
                                 .event = (uint8_t)ev,
                                 .owner = hf_slice_str(ev == HF_CTL_SYNCED ? "" : "beta"),
                                 .name = hf_slice_str(name),
                                 .value = hf_slice_str(value)});
}

/* Dispatch until the callbacks have told this, and forget it. */
static void expect(struct fixture *f, const char *story)
{
    while (f->story.n < strlen(story)) {
        assert_int_equal(holdfast_dispatch(f->h, 10000), 0);
    }
    hf_assert_slice_str(hf_buf_slice(&f->story), story);
    hf_buf_clear(&f->story);
}

static void on_result(void *arg, int code, const char *text)
{
    struct fixture *f = arg;
    hf_buf_printf(&f->story, "result %d %s\n", code, text);
}

static void on_status(void *arg, int code)
{
    struct fixture *f = arg;
    hf_buf_printf(&f->story, "status %s\n", code ? "lost" : "connected");
}

static void on_watch(void *arg, enum holdfast_event ev, const char *owner, const char *name,
                     const char *value)
{
    static const char *const names[] = {"", "added", "changed", "removed", "synced"};
    struct fixture *f = arg;
    hf_buf_printf(&f->story, "%s %s %s %s\n", names[ev], owner, name, value);
}

/* A request with this content; returns its seq. */
static uint32_t expect_request(struct fixture *f, int type, const char *name, const char *value)
{
    struct hf_ctl_msg m = receive(f);
    assert_int_equal(m.type, type);
    hf_assert_slice_str(m.name, name);
    hf_assert_slice_str(m.value, value);
    return m.seq;
}

static void publish_and_withdraw(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(holdfast_publish(f->h, "/a/b", "{\"x\":1}", 0, on_result, f), 0);
    hello(f);
    result(f, expect_request(f, HF_CTL_PUBLISH, "/a/b", "{\"x\":1}"), 0, "published");
    expect(f, "result 0 published\n");
    assert_int_equal(holdfast_status(f->h), 0);
    assert_int_equal(holdfast_publish(f->h, "/l", "{}", 5000, on_result, f), 0);
    struct hf_ctl_msg m = receive(f);
    assert_int_equal(m.lease_ms, 5000);
    result(f, m.seq, -HF_EFULL, "no room");
    expect(f, "result -1007 no room\n");
    assert_string_equal(holdfast_error(f->h), "no room");
    assert_int_equal(holdfast_withdraw(f->h, "/a/b", on_result, f), 0);
    result(f, expect_request(f, HF_CTL_WITHDRAW, "/a/b", ""), 0, "withdrawn");
    expect(f, "result 0 withdrawn\n");
}

static void values_are_checked_before_they_are_sent(void **state)
{
    struct fixture *f = *state;
    static char big[HF_VALUE_LEN_MAX + 8];
    snprintf(big, sizeof(big), "{%*s}", HF_VALUE_LEN_MAX, "");
    assert_int_equal(holdfast_publish(f->h, "a", "{}", 0, NULL, NULL), HOLDFAST_ENAME);
    assert_int_equal(holdfast_publish(f->h, "/a", "[]", 0, NULL, NULL), HOLDFAST_EVALUE);
    assert_int_equal(holdfast_publish(f->h, "/a", big, 0, NULL, NULL), HOLDFAST_EVALUE);
    assert_int_equal(holdfast_withdraw(f->h, "", NULL, NULL), HOLDFAST_ENAME);
    assert_int_equal(holdfast_withdraw(f->h, "/a", NULL, NULL), -ENOTCONN);
    assert_int_equal(holdfast_publish(f->h, "/a", "{}", 9, NULL, NULL), -ENOTCONN);
    uint32_t w;
    assert_int_equal(holdfast_watch(f->h, "x", on_watch, f, &w), HOLDFAST_ENAME);
    assert_int_equal(holdfast_unwatch(f->h, 77), HOLDFAST_ENOTFOUND);
    for (int i = 0; i < HF_CTL_WATCHES_MAX; i++) {
        assert_int_equal(holdfast_watch(f->h, "/x/", on_watch, f, &w), 0);
    }
    assert_int_equal(holdfast_watch(f->h, "", on_watch, f, &w), HOLDFAST_EFULL);
}

static void watchers_learn_only_differences_after_a_restart(void **state)
{
    struct fixture *f = *state;
    uint32_t w;
    holdfast_on_status(f->h, on_status, f);
    assert_int_equal(holdfast_watch(f->h, "/p", on_watch, f, &w), 0);
    hello(f);
    uint32_t seq = expect_request(f, HF_CTL_WATCH, "/p", "");
    result(f, seq, 0, "");
    event(f, seq, HF_CTL_ADDED, "/p/same", "{}");
    event(f, seq, HF_CTL_ADDED, "/p/other", "{}");
    event(f, seq, HF_CTL_ADDED, "/p/gone", "{}");
    event(f, seq, HF_CTL_SYNCED, "", "");
    event(f, seq, HF_CTL_CHANGED, "/p/same", "{\"n\":2}");
    event(f, seq, HF_CTL_REMOVED, "/p/never", "");
    expect(f, "status connected\nadded beta /p/same {}\nadded beta /p/other {}\n"
              "added beta /p/gone {}\nsynced   \nchanged beta /p/same {\"n\":2}\n");
    stop(f);
    expect(f, "status lost\n");
    start(f);
    hello(f);
    seq = expect_request(f, HF_CTL_WATCH, "/p", "");
    result(f, seq, 0, "");
    event(f, seq, HF_CTL_ADDED, "/p/same", "{\"n\":2}");
    event(f, seq, HF_CTL_ADDED, "/p/other", "{\"n\":3}");
    event(f, seq, HF_CTL_ADDED, "/p/new", "{}");
    event(f, seq, HF_CTL_SYNCED, "", "");
    expect(f, "status connected\nchanged beta /p/other {\"n\":3}\nadded beta /p/new {}\n"
              "removed beta /p/gone \nsynced   \n");
    assert_int_equal(holdfast_unwatch(f->h, w), 0);
    event(f, seq, HF_CTL_ADDED, "/p/late", "{}");
    struct hf_ctl_msg m = receive(f);
    assert_int_equal(m.type, HF_CTL_UNWATCH);
    assert_int_equal(m.watch, seq);
    assert_int_equal(f->story.n, 0);
}

static void held_entries_come_back_after_a_restart(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(holdfast_publish(f->h, "/a", "{}", 0, on_result, f), 0);
    hello(f);
    result(f, expect_request(f, HF_CTL_PUBLISH, "/a", "{}"), 0, "ok");
    expect(f, "result 0 ok\n");
    /* a change that is refused leaves what was */
    assert_int_equal(holdfast_publish(f->h, "/a", "{\"v\":2}", 0, on_result, f), 0);
    result(f, expect_request(f, HF_CTL_PUBLISH, "/a", "{\"v\":2}"), -HF_ERATE, "slow down");
    expect(f, "result -1008 slow down\n");
    /* under way when the daemon goes: answered by the next one */
    assert_int_equal(holdfast_publish(f->h, "/b", "{}", 0, on_result, f), 0);
    (void)expect_request(f, HF_CTL_PUBLISH, "/b", "{}");
    stop(f);
    start(f);
    hello(f);
    for (int i = 0; i < 2; i++) {
        struct hf_ctl_msg m = receive(f);
        assert_int_equal(m.type, HF_CTL_PUBLISH);
        hf_assert_slice_str(m.value, "{}");
        bool a = hf_slice_eq(m.name, hf_slice_str("/a"));
        result(f, m.seq, a ? -HF_EHELD : 0, a ? "held by another" : "ok b");
    }
    while (!memmem(f->story.p, f->story.n, "another", 7) ||
           !memmem(f->story.p, f->story.n, "ok b", 4)) {
        assert_int_equal(holdfast_dispatch(f->h, 10000), 0);
    }
    hf_buf_clear(&f->story);
    stop(f);
    start(f);
    hello(f);
    result(f, expect_request(f, HF_CTL_PUBLISH, "/b", "{}"), -HF_ENOTREADY, "starting");
    result(f, expect_request(f, HF_CTL_PUBLISH, "/b", "{}"), 0, "ok"); /* /a is not held now */
}

static void without_a_daemon(void **state)
{
    struct fixture *f = *state;
    stop(f);
    assert_int_equal(holdfast_connect(f->h, 100), -ENOENT);
    assert_non_null(strstr(holdfast_error(f->h), f->path));
    assert_int_equal(holdfast_publish(f->h, "/a", "{}", 0, on_result, f), 0);
    assert_int_equal(holdfast_publish(f->h, "/a", "{\"v\":2}", 0, on_result, f), 0);
    expect(f, "result -125 Operation canceled\n");
    assert_int_equal(holdfast_publish(f->h, "/b", "{}", 0, NULL, NULL), 0);
    assert_int_equal(holdfast_withdraw(f->h, "/b", on_result, f), 0);
    expect(f, "result 0 success\n");
    assert_int_equal(holdfast_publish_wait(f->h, "/c", "{}", 0, 50), HOLDFAST_ETIMEOUT);
    assert_int_equal(holdfast_publish_wait(f->h, "/d", "{}", 1000, 50), -ENOENT);
    assert_int_equal(holdfast_withdraw_wait(f->h, "/c", 50), 0);
    start(f);
    hello(f);
    result(f, expect_request(f, HF_CTL_PUBLISH, "/a", "{\"v\":2}"), 0, "ok");
    expect(f, "result 0 ok\n");
    assert_int_equal(holdfast_connect(f->h, 0), 0);
}

static void on_group(void *arg, const struct holdfast_group *g)
{
    struct fixture *f = arg;
    hf_buf_printf(&f->story, "%s%s%s%s %d %llu %s %s %s%s%s\n", g->name, g->member ? " member" : "",
                  g->quorate ? " quorate" : "", g->is_here ? " here" : "", (int)g->phase,
                  (unsigned long long)g->epoch, g->resource, g->host, g->address, g->fence_text,
                  g->lost);
}

static void group_state(struct fixture *f, uint32_t seq, uint8_t flags, uint64_t epoch)
{
    reply(f, (struct hf_ctl_msg){.type = HF_CTL_GROUP_STATE,
                                 .seq = seq,
                                 .flags = flags,
                                 .phase = HOLDFAST_RUNNING,
                                 .epoch = epoch,
                                 .resource = hf_slice_str("lead"),
                                 .owner = hf_slice_str("alpha"),
                                 .address = hf_slice_str("192.0.2.1"),
                                 .fence_text = hf_slice_str(epoch == 4 ? " x=4" : ""),
                                 .lost = hf_slice_str(epoch == 5 ? "beta" : "")});
}

static void followers_know_when_they_lead(void **state)
{
    struct fixture *f = *state;
    uint32_t id;
    holdfast_on_status(f->h, on_status, f);
    assert_int_equal(holdfast_group_follow(f->h, "jobs", on_group, f, &id), 0);
    hello(f);
    uint32_t seq = expect_request(f, HF_CTL_FOLLOW, "jobs", "");
    result(f, seq, 0, "");
    reply(f, (struct hf_ctl_msg){.type = HF_CTL_GROUP_STATE, .seq = seq});
    expect(f, "status connected\njobs 0 0   \n");
    group_state(f, seq, 7, 3);
    group_state(f, seq, 7, 3); /* nothing new */
    group_state(f, seq, 7, 4);
    group_state(f, seq, 1, 4);
    expect(f, "jobs member quorate here 4 3 lead alpha 192.0.2.1\n"
              "jobs member quorate here 4 4 lead alpha 192.0.2.1 x=4\n"
              "jobs member 4 4 lead alpha 192.0.2.1 x=4\n");
    group_state(f, seq, 7, 4);
    group_state(f, seq, 7, 5);
    group_state(f, seq, 7, 4);
    expect(f, "jobs member quorate here 4 4 lead alpha 192.0.2.1 x=4\n"
              "jobs member quorate here 4 5 lead alpha 192.0.2.1beta\n"
              "jobs member quorate here 4 4 lead alpha 192.0.2.1 x=4\n");
    /* without holdfastd nobody knows that we lead */
    stop(f);
    expect(f, "status lost\njobs 4 4 lead alpha 192.0.2.1 x=4\n");
    start(f);
    hello(f);
    seq = expect_request(f, HF_CTL_FOLLOW, "jobs", "");
    result(f, seq, 0, "");
    group_state(f, seq, 7, 4);
    expect(f, "status connected\njobs member quorate here 4 4 lead alpha 192.0.2.1 x=4\n");
    assert_int_equal(holdfast_group_unfollow(f->h, id), 0);
    assert_int_equal(holdfast_group_unfollow(f->h, id), HOLDFAST_ENOTFOUND);
    group_state(f, seq, 0, 5); /* on its way */
    struct hf_ctl_msg m = receive(f);
    assert_int_equal(m.type, HF_CTL_UNWATCH);
    assert_int_equal(m.watch, seq);
    result(f, m.seq, 0, "");
    assert_int_equal(holdfast_dispatch(f->h, 1000), 0);
    assert_int_equal(f->story.n, 0);
}

static void follows_have_limits(void **state)
{
    struct fixture *f = *state;
    uint32_t id;
    assert_int_equal(holdfast_group_follow(f->h, "", on_group, f, &id), HOLDFAST_ENAME);
    assert_int_equal(holdfast_group_follow(f->h, "a/b", on_group, f, &id), HOLDFAST_ENAME);
    assert_int_equal(
        holdfast_group_follow(f->h, "a1234567890123456789012345678901", on_group, f, &id),
        HOLDFAST_ENAME);
    assert_int_equal(holdfast_watch(f->h, "", on_watch, f, &id), 0);
    for (int i = 1; i < HF_CTL_WATCHES_MAX; i++) {
        assert_int_equal(holdfast_group_follow(f->h, "g", on_group, f, &id), 0);
    }
    assert_int_equal(holdfast_group_follow(f->h, "g", on_group, f, &id), HOLDFAST_EFULL);
    assert_int_equal(holdfast_group_unfollow(f->h, id), 0);
    assert_int_equal(holdfast_watch(f->h, "", on_watch, f, &id), 0);
}

static void foreign_daemons(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {
        "\0\0\0\4\1\2\0\0",                 /* HELLO of version 2 */
        "\0\0\0\5\10\0\0\0\1",              /* a request before HELLO */
        "\377\377\377\377\0\0\0",           /* no frame */
        "\0\0\0\4\1\1\0\0\0\0\0\4\1\1\0\0", /* HELLO twice */
    };
    static const size_t n[] = {8, 9, 7, 16};
    static const int code[] = {HOLDFAST_EVERSION, HOLDFAST_EPROTO, -HF_EMALF, HOLDFAST_EPROTO};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        (void)receive(f);
        assert_int_equal(send(f->conn.fd, bad[i], n[i], 0), n[i]);
        while (holdfast_status(f->h) != code[i]) {
            assert_int_equal(holdfast_dispatch(f->h, 10000), 0);
        }
        hf_conn_fini(&f->conn);
    }
}

static void texts(void **state)
{
    struct fixture *f = *state;
    assert_string_equal(holdfast_strerror(HOLDFAST_EHELD), "held by another publisher");
    assert_true(strlen(holdfast_version()) > 0);
    assert_string_equal(holdfast_error(f->h), "");
    struct holdfast *h;
    char too_long[200];
    memset(too_long, 'x', sizeof(too_long) - 1);
    too_long[sizeof(too_long) - 1] = '\0';
    assert_int_equal(holdfast_create(too_long, "test", &h), -ENAMETOOLONG);
    holdfast_destroy(NULL);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(publish_and_withdraw),
        TEST(values_are_checked_before_they_are_sent),
        TEST(watchers_learn_only_differences_after_a_restart),
        TEST(held_entries_come_back_after_a_restart),
        TEST(without_a_daemon),
        TEST(followers_know_when_they_lead),
        TEST(follows_have_limits),
        TEST(foreign_daemons),
        TEST(texts),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
