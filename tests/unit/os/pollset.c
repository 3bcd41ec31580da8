/* Tests of os/pollset: readiness, what is removed in a batch, hang-ups, timers in order, tasks. */
#include "os/pollset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct rig {
    struct hf_loop *loop;
    struct hf_poll *poll;
    struct hf_poll_io io[2];
    int fd[2][2]; /* [i][0] is watched */
    struct hf_poll_timer timer[4];
    struct hf_poll_task task;
    char story[64];
    int n_after;
};
static struct rig rig;

static void tell(char c)
{
    size_t n = strlen(rig.story);
    assert_true(n + 1 < sizeof(rig.story));
    rig.story[n] = c;
}

static void after(void *arg)
{
    ((struct rig *)arg)->n_after++;
}

static int setup(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof(rig));
    hf_list_init(&rig.task.node);
    assert_int_equal(hf_loop_create(&rig.loop), 0);
    assert_int_equal(hf_poll_create(rig.loop, after, &rig, &rig.poll), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, rig.fd[i]), 0);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        hf_poll_remove(rig.poll, &rig.io[i]);
        close(rig.fd[i][0]);
        close(rig.fd[i][1]);
    }
    hf_poll_destroy(rig.poll);
    hf_loop_destroy(rig.loop);
    return 0;
}

static void on_stop(struct hf_poll_timer *t, hf_time now)
{
    (void)t;
    (void)now;
    hf_loop_stop(rig.loop);
}

/* Run for a moment: whatever is ready has been told by then. */
static void run(void)
{
    struct hf_poll_timer stop = {.fn = on_stop};
    assert_int_equal(hf_poll_reserve(rig.poll, 1), 0);
    hf_poll_timer_set(rig.poll, &stop, hf_now() + HF_MS(30));
    hf_poll_kick(rig.poll);
    assert_int_equal(hf_loop_run(rig.loop), 0);
    assert_int_equal(hf_poll_reserve(rig.poll, -1), 0);
}

static void on_io(struct hf_poll_io *io, unsigned ready)
{
    char buf[16];
    tell(io == &rig.io[0] ? 'a' : 'b');
    if (ready & HF_POLL_HUP) {
        tell('!');
    }
    if (ready & HF_POLL_READ) {
        assert_true(read(io->fd, buf, sizeof(buf)) >= 0);
    }
}

/* The first of both removes the other. */
static void on_io_remove(struct hf_poll_io *io, unsigned ready)
{
    on_io(io, ready);
    hf_poll_remove(rig.poll, &rig.io[io == &rig.io[0]]);
}

static void watch(int i, unsigned want, void (*fn)(struct hf_poll_io *io, unsigned ready))
{
    assert_int_equal(hf_poll_add(rig.poll, &rig.io[i], rig.fd[i][0], want, fn), 0);
}

static void what_is_ready_is_told(void **state)
{
    (void)state;
    watch(0, HF_POLL_READ, on_io);
    watch(1, 0, on_io);
    assert_int_equal(write(rig.fd[0][1], "x", 1), 1);
    assert_int_equal(write(rig.fd[1][1], "x", 1), 1);
    run();
    assert_string_equal(rig.story, "a");
    assert_true(rig.n_after > 0);
    hf_poll_want(rig.poll, &rig.io[1], HF_POLL_READ);
    run();
    assert_string_equal(rig.story, "ab");
}

/* Reads one byte of what there is. */
static void on_io_slow(struct hf_poll_io *io, unsigned ready)
{
    char c;
    assert_true(ready & HF_POLL_READ);
    tell(read(io->fd, &c, 1) == 1 ? c : '.');
}

static void an_edge_is_told_once(void **state)
{
    (void)state;
    assert_int_equal(write(rig.fd[0][1], "xyz", 3), 3);
    watch(0, HF_POLL_READ | HF_POLL_EDGE, on_io_slow);
    run();
    run();
    assert_string_equal(rig.story, "x");
    hf_poll_again(rig.poll, &rig.io[0]);
    run();
    assert_string_equal(rig.story, "xy");
    hf_poll_want(rig.poll, &rig.io[0], 0);
    hf_poll_want(rig.poll, &rig.io[0], HF_POLL_READ);
    run();
    assert_string_equal(rig.story, "xyz");
    assert_int_equal(write(rig.fd[0][1], "w", 1), 1);
    run();
    assert_string_equal(rig.story, "xyzw");
    hf_poll_remove(rig.poll, &rig.io[0]);
    hf_poll_again(rig.poll, &rig.io[0]);
}

static void on_io_to_the_end(struct hf_poll_io *io, unsigned ready)
{
    on_io_slow(io, ready);
    if (rig.story[strlen(rig.story) - 1] == '.') {
        hf_poll_remove(rig.poll, io);
    }
}

/* The last byte and the end come together: both are told. */
static void the_end_is_told_after_the_last_byte(void **state)
{
    (void)state;
    watch(0, HF_POLL_READ | HF_POLL_EDGE, on_io_to_the_end);
    assert_int_equal(write(rig.fd[0][1], "x", 1), 1);
    assert_int_equal(shutdown(rig.fd[0][1], SHUT_WR), 0);
    run();
    assert_string_equal(rig.story, "x.");
}

static void what_is_removed_is_not_told(void **state)
{
    (void)state;
    watch(0, HF_POLL_READ, on_io_remove);
    watch(1, HF_POLL_READ, on_io_remove);
    assert_int_equal(write(rig.fd[0][1], "x", 1), 1);
    assert_int_equal(write(rig.fd[1][1], "x", 1), 1);
    run();
    assert_int_equal(strlen(rig.story), 1);
}

static void a_hangup_is_told_once_to_who_wants_nothing(void **state)
{
    (void)state;
    watch(0, 0, on_io);
    close(rig.fd[0][1]);
    rig.fd[0][1] = dup(0);
    run();
    assert_string_equal(rig.story, "a!");
    hf_poll_want(rig.poll, &rig.io[0], HF_POLL_READ); /* back in the set: what is left to read */
    hf_poll_want(rig.poll, &rig.io[0], 0);
    run();
    assert_string_equal(rig.story, "a!a!");
}

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    assert_true(now >= t->at);
    tell((char)('0' + (t - rig.timer)));
}

static void timers_run_in_order(void **state)
{
    (void)state;
    static const int order[] = {3, 1, 4, 2};
    hf_time now = hf_now();
    assert_int_equal(hf_poll_reserve(rig.poll, 4), 0);
    for (int i = 0; i < 4; i++) {
        rig.timer[i].fn = on_timer;
        hf_poll_timer_set(rig.poll, &rig.timer[i], now + HF_MS(order[i]));
    }
    hf_poll_timer_set(rig.poll, &rig.timer[2], HF_NEVER);
    hf_poll_timer_set(rig.poll, &rig.timer[0], now); /* earlier than it was */
    run();
    assert_string_equal(rig.story, "013");
}

static void on_task(struct hf_poll_task *t)
{
    (void)t;
    tell('t');
}

static void a_task_runs_once(void **state)
{
    (void)state;
    rig.task.fn = on_task;
    hf_poll_task_add(rig.poll, &rig.task);
    hf_poll_task_add(rig.poll, &rig.task);
    run();
    assert_string_equal(rig.story, "t");
}

static hf_time began[1000];
static size_t n_began;

/* There is always something to read. */
static void on_io_again(struct hf_poll_io *io, unsigned ready)
{
    char c;
    (void)ready;
    assert_int_equal(read(io->fd, &c, 1), 1);
    assert_int_equal(write(rig.fd[0][1], &c, 1), 1);
    hf_poll_pace(rig.poll, HF_MS(2));
    if (n_began < sizeof(began) / sizeof(began[0])) {
        began[n_began++] = hf_poll_now(rig.poll);
    }
}

/* Turns are apart, however much comes. */
static void turns_keep_their_pace(void **state)
{
    (void)state;
    n_began = 0;
    watch(0, HF_POLL_READ, on_io_again);
    assert_int_equal(write(rig.fd[0][1], "x", 1), 1);
    run();
    assert_true(n_began > 1);
    for (size_t i = 1; i < n_began; i++) {
        assert_true(began[i] - began[i - 1] >= HF_MS(2));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_ready_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(an_edge_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(the_end_is_told_after_the_last_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_removed_is_not_told, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hangup_is_told_once_to_who_wants_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(timers_run_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_task_runs_once, setup, teardown),
        cmocka_unit_test_setup_teardown(turns_keep_their_pace, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
