/* pg/control: requests as they should be and as they should not, and the agent's side of it. */
#include "pg/control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "pg/pg.h"
#include "support/test.h"

#define AWAIT HF_S(60)

struct rig {
    char dir[64], path[80];
    struct hf_pg pg;
    struct hf_pg_controls *all;
    struct hf_poll_timer stop;
    char story[1024];             /* what was told */
    struct hf_pg_control *c;      /* of the last request */
    struct hf_pg_control_ask ask; /* its words */
    int code;                     /* >= 0: answer at once */
};
static struct rig rig;
static struct hf_err err;

/* ---- holdfast-pg's side ---- */

static void story(const char *what, const char *action)
{
    size_t n = strlen(rig.story);
    snprintf(rig.story + n, sizeof(rig.story) - n, "%s%s%s", n ? " " : "", what, action);
}

static void on_ask(void *arg, struct hf_pg_control *c, const struct hf_pg_control_ask *ask)
{
    assert_ptr_equal(arg, &rig);
    story("", ask->action);
    rig.c = c;
    rig.ask = *ask;
    if (rig.code >= 0) {
        hf_pg_control_line(c, "line of %s", ask->action);
        hf_pg_control_done(c, rig.code, "at once");
    }
}

static void on_closed(void *arg, struct hf_pg_control *c)
{
    assert_ptr_equal(arg, &rig);
    assert_ptr_equal(c, rig.c);
    story("closed", "");
    hf_pg_control_line(c, "to nobody");
    hf_pg_control_done(c, 0, "to nobody");
}

static int open_at(const char *path, struct hf_pg_controls **ret_all)
{
    return hf_pg_controls_open(&rig.pg, path, on_ask, on_closed, &rig, &err, ret_all);
}

static void on_stop(struct hf_poll_timer *t, hf_time now)
{
    (void)t;
    (void)now;
    hf_loop_stop(rig.pg.loop);
}

/* Whatever is ready is done. */
static void turn(void)
{
    hf_poll_timer_set(rig.pg.wire->poll, &rig.stop, hf_now() + HF_MS(1));
    hf_poll_kick(rig.pg.wire->poll);
    assert_int_equal(hf_loop_run(rig.pg.loop), 0);
}

#define UNTIL(condition)                                                                           \
    for (hf_time end_ = hf_now() + AWAIT; !(condition); turn()) {                                  \
        assert_true(hf_now() < end_);                                                              \
    }

static int setup(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof(rig));
    rig.code = -1;
    rig.stop.fn = on_stop;
    snprintf(rig.dir, sizeof(rig.dir), "/tmp/hf-control-XXXXXX");
    assert_non_null(mkdtemp(rig.dir));
    snprintf(rig.path, sizeof(rig.path), "%s/run/control", rig.dir);
    assert_int_equal(hf_loop_create(&rig.pg.loop), 0);
    assert_int_equal(hf_pg_wire_create(rig.pg.loop, &rig.pg.memory, &rig.pg.wire), 0);
    assert_int_equal(hf_poll_reserve(rig.pg.wire->poll, 1), 0);
    assert_int_equal(open_at(rig.path, &rig.all), 0);
    return 0;
}

static int teardown(void **state)
{
    char run[80];
    (void)state;
    hf_mem_fail_after(-1);
    hf_pg_controls_close(rig.all);
    hf_pg_wire_destroy(rig.pg.wire);
    hf_loop_destroy(rig.pg.loop);
    assert_int_equal(access(rig.path, F_OK), -1);
    snprintf(run, sizeof(run), "%s/run", rig.dir);
    rmdir(run);
    assert_int_equal(rmdir(rig.dir), 0);
    return 0;
}

/* ---- a client that knows no manners ---- */

static int client(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(un.sun_path, sizeof(un.sun_path), "%s", rig.path);
    assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    return fd;
}

static void put_n(int fd, const char *text, size_t n)
{
    for (hf_time end = hf_now() + AWAIT; n;) {
        ssize_t sent = send(fd, text, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            assert_int_equal(errno, EAGAIN);
            assert_true(hf_now() < end);
            turn();
            continue;
        }
        text += sent;
        n -= (size_t)sent;
    }
}

static void put(int fd, const char *text)
{
    put_n(fd, text, strlen(text));
}

/* All that comes until it is closed, and close. */
static const char *answer(int fd)
{
    static char text[65536];
    size_t n = 0;
    for (hf_time end = hf_now() + AWAIT;;) {
        ssize_t got = recv(fd, text + n, sizeof(text) - 1 - n, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno == ECONNRESET)) { /* reset: it was not read to its end */
            break;
        }
        assert_true(got > 0 || errno == EAGAIN);
        assert_true(hf_now() < end);
        if (got > 0) {
            n += (size_t)got;
        } else {
            turn();
        }
    }
    text[n] = '\0';
    close(fd);
    return text;
}

#define assert_begins(text, with) assert_memory_equal(text, with, strlen(with))

/* ---- requests ---- */

static const char whole[] = "promote\nepoch 18446744073709551615\n"
                            "mirrors copy2=gamma@10.0.0.3=sync copy3==sync\nfuture 1 2\n"
                            "source copy1=alpha@10.0.0.1\nresource copy1\ngroup pgvip\n\n";

static void a_request_is_told(void **state)
{
    (void)state;
    int fd = client();
    for (size_t i = 0; i < strlen(whole); i++) { /* one byte at a time */
        assert_string_equal(rig.story, "");
        put_n(fd, whole + i, 1);
        turn();
    }
    UNTIL(*rig.story);
    assert_string_equal(rig.story, "promote");
    assert_true(rig.ask.epoch == UINT64_MAX);
    assert_string_equal(rig.ask.mirrors, "copy2=gamma@10.0.0.3=sync copy3==sync");
    assert_string_equal(rig.ask.source, "copy1=alpha@10.0.0.1");
    assert_string_equal(rig.ask.resource, "copy1");
    assert_string_equal(rig.ask.group, "pgvip");
    hf_pg_control_done(rig.c, 9, "");
    assert_string_equal(answer(fd), "= 9 \n");
    turn();
    assert_string_equal(rig.story, "promote");
}

static void what_is_not_set_is_empty(void **state)
{
    (void)state;
    rig.code = 8;
    int fd = client();
    put(fd, "monitor\nmirrors \n\n");
    assert_string_equal(answer(fd), "line of monitor\n= 8 at once\n");
    assert_string_equal(rig.story, "monitor");
    assert_true(rig.ask.epoch == 0);
}

static void lines_are_sent_at_once(void **state)
{
    (void)state;
    char got[64];
    int fd = client();
    put(fd, "mirror-state\n\nand what nobody asked for");
    UNTIL(rig.c);
    assert_string_equal(rig.ask.mirrors, "");
    assert_string_equal(rig.ask.source, "");
    assert_string_equal(rig.ask.resource, "");
    assert_string_equal(rig.ask.group, "");
    hf_pg_control_line(rig.c, "%s in-sync", "copy2");
    assert_int_equal(recv(fd, got, sizeof(got), 0), strlen("copy2 in-sync\n"));
    hf_pg_control_line(rig.c, "= 0\nlies\x7f");
    hf_pg_control_done(rig.c, 1, "one\nline");
    assert_string_equal(answer(fd), "  0 lies \n= 1 one line\n");
    assert_string_equal(rig.story, "mirror-state");
}

static void long_lines_are_cut(void **state)
{
    (void)state;
    static char text[5000];
    memset(text, 'x', sizeof(text) - 1);
    int fd = client();
    put(fd, "open\n\n");
    UNTIL(rig.c);
    hf_pg_control_line(rig.c, "%s", text);
    hf_pg_control_done(rig.c, 1, text);
    const char *got = answer(fd), *second = strchr(got, '\n');
    assert_int_equal(second - got, 1023);
    assert_begins(second + 1, "= 1 xxx");
    assert_int_equal(strlen(second + 1), 1024);
}

static void two_requests_at_once(void **state)
{
    (void)state;
    int a = client(), b = client();
    put(a, "promote\n\n");
    UNTIL(rig.c);
    struct hf_pg_control *first = rig.c;
    put(b, "monitor\n\n");
    UNTIL(rig.c != first);
    hf_pg_control_done(rig.c, 0, "b");
    hf_pg_control_done(first, 0, "a");
    assert_string_equal(answer(a), "= 0 a\n");
    assert_string_equal(answer(b), "= 0 b\n");
}

static void nobody_wants_the_answer(void **state)
{
    (void)state;
    int fd = client();
    put(fd, "promote\n\n");
    UNTIL(rig.c);
    close(fd);
    UNTIL(strcmp(rig.story, "promote closed") == 0);
    fd = client(); /* answered in the same turn in which it goes */
    rig.code = 0;
    put(fd, "open\n\n");
    close(fd);
    turn();
    rig.code = -1;
    fd = client();
    put(fd, "stop\n\n");
    UNTIL(rig.story[strlen(rig.story) - 1] == 'p');
    hf_pg_control_done(rig.c, 0, "");
    close(fd);
    turn();
    assert_null(strstr(rig.story, "stop closed"));
}

static void half_closed_it_is_answered(void **state)
{
    (void)state;
    static const char *const actions[] = {"monitor\n\n", "prepare-demote\n\n"};
    for (size_t i = 0; i < HF_ARRAY_LEN(actions); i++) {
        rig.c = NULL;
        int fd = client();
        put(fd, actions[i]);
        shutdown(fd, SHUT_WR);
        UNTIL(rig.c);
        turn();
        hf_pg_control_done(rig.c, 0, "");
        assert_string_equal(answer(fd), "= 0 \n");
    }
    assert_string_equal(rig.story, "monitor prepare-demote");
}

/* prepare-*: further lines are told as actions of the same request. */
static void further_lines(void **state)
{
    (void)state;
    int fd = client();
    put(fd, "prepare-promote\nepoch 3\nmirrors m\n\n");
    UNTIL(rig.c);
    struct hf_pg_control *c = rig.c;
    hf_pg_control_line(c, "holdfast-armed");
    put(fd, "prom");
    turn();
    put(fd, "ote\nopen\n");
    UNTIL(strcmp(rig.story, "prepare-promote promote open") == 0);
    assert_ptr_equal(rig.c, c);
    assert_true(rig.ask.epoch == 3);
    assert_string_equal(rig.ask.mirrors, "m");
    hf_pg_control_done(c, 0, "");
    assert_string_equal(answer(fd), "holdfast-armed\n= 0 \n");
    fd = client(); /* with the first line answered, the others are not told */
    rig.story[0] = '\0';
    rig.code = 0;
    put(fd, "prepare-demote\n\ndemote\n");
    assert_string_equal(answer(fd), "line of prepare-demote\n= 0 at once\n");
    assert_string_equal(rig.story, "prepare-demote");
}

/* What came of a request, which is answered then. */
static struct hf_pg_control_ask asked(const char *request)
{
    put(client(), request);
    UNTIL(rig.c);
    struct hf_pg_control_ask ask = rig.ask;
    hf_pg_control_done(rig.c, 0, "");
    rig.c = NULL;
    return ask;
}

static void whether_the_group_fences(void **state)
{
    (void)state;
    assert_true(asked("start\nfence none\n\n").unfenced);
    assert_false(asked("start\nfence required\n\n").unfenced);
}

static void whether_the_former_primary_is_silent(void **state)
{
    (void)state;
    assert_true(asked("promote\nepoch 3\nsilent yes\n\n").silent);
    assert_false(asked("promote\nepoch 3\nsilent no\n\n").silent);
}

/* A process that died can't take its address away: its agent's stop does, as a note tells. */
static void the_address_of_a_dead_process(void **state)
{
    (void)state;
    char path[128], note[160];
    struct hf_addr address;
    struct hf_err why;
    snprintf(path, sizeof(path), "%s/run/dead", rig.dir);
    snprintf(note, sizeof(note), "%s.address", path);
    assert_int_equal(hf_addr_parse("[2001:db8::5]:6432", 0, &why, &address), 0);
    assert_int_equal(hf_pg_control_note(path, "hf-nowhere", &address), 0);
    assert_int_equal(access(note, F_OK), 0);
    assert_int_equal(hf_pg_control_agent(path, "monitor"), 7);
    assert_int_equal(hf_pg_control_agent(path, "mirror-state"), 7);
    assert_int_equal(access(note, F_OK), 0);
    assert_int_equal(hf_pg_control_agent(path, "stop"), 0);
    assert_int_equal(access(note, F_OK), -1);
    assert_int_equal(hf_pg_control_note(path, NULL, NULL), 0); /* none is there */
    FILE *f = fopen(note, "w");
    assert_non_null(f);
    fputs("nonsense", f);
    fclose(f);
    assert_int_equal(hf_pg_control_agent(path, "stop"), 1); /* it may still be here */
    assert_int_equal(hf_pg_control_note(path, NULL, NULL), 0);
    assert_int_equal(access(note, F_OK), -1);
}

static void further_lines_that_are_none(void **state)
{
    (void)state;
    static const char *const bad[] = {"\n", "Promote\n", "promote 1\n", "promote\r\n"};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        rig.story[0] = '\0';
        int fd = client();
        put(fd, "prepare-promote\n\n");
        UNTIL(*rig.story);
        put(fd, bad[i]);
        assert_begins(answer(fd), "= 2 ");
        assert_string_equal(rig.story, "prepare-promote closed");
    }
    static char x[HF_PG_CONTROL_MAX];
    memset(x, 'x', sizeof(x));
    rig.story[0] = '\0';
    int fd = client();
    put(fd, "prepare-promote\n\n");
    UNTIL(*rig.story);
    put_n(fd, x, sizeof(x) - strlen("prepare-promote\n\n"));
    assert_begins(answer(fd), "= 2 it is too long");
    assert_string_equal(rig.story, "prepare-promote closed");
}

/* ---- what is no request ---- */

static void garbage(void **state)
{
    (void)state;
    static const struct hf_slice bad[] = {
#define BAD(text) {(const uint8_t *)(text), sizeof(text) - 1}
        BAD("\n\n"),
        BAD("\nmonitor\n\n"),
        BAD("Monitor\n\n"),
        BAD("monitor now\n\n"),
        BAD("monitor\r\n\r\n"),
        BAD("abcdefghijklmnopqrstuvwxyz-abcdefghijk\n\n"),
        BAD("../../bin/sh\n\n"),
        BAD("monitor\nepoch\n\n"),
        BAD("monitor\nepoch \n\n"),
        BAD("monitor\nepoch x\n\n"),
        BAD("monitor\nepoch -1\n\n"),
        BAD("monitor\nepoch  1\n\n"),
        BAD("monitor\nepoch 1 \n\n"),
        BAD("monitor\nepoch 18446744073709551616\n\n"),
        BAD("monitor\n text\n\n"),
        BAD("monitor\nmirrors\n\n"),
        BAD("monitor\nmirrors a\tb\n\n"),
        BAD("monitor\nmirrors a\0b\n\n"),
        BAD("\0\0\0\0"),
        BAD("GET / HTTP/1.1\r\n\r\n"),
        BAD("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
#undef BAD
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        int fd = client();
        put_n(fd, (const char *)bad[i].p, bad[i].n);
        shutdown(fd, SHUT_WR);
        const char *got = answer(fd);
        assert_begins(got, "= 2 ");
        assert_int_equal(got[strlen(got) - 1], '\n');
        assert_string_equal(rig.story, "");
    }
}

/* Cut at each length, by one that still reads and by one that is gone. */
static void half_requests(void **state)
{
    (void)state;
    for (size_t n = 0; n < strlen(whole); n++) {
        int fd = client();
        put_n(fd, whole, n);
        shutdown(fd, SHUT_WR);
        const char *got = answer(fd);
        if (n) {
            assert_begins(got, "= 2 ");
        } else {
            assert_string_equal(got, "");
        }
        fd = client();
        put_n(fd, whole, n);
        if (n % 2) {
            turn();
        }
        close(fd);
    }
    turn();
    assert_string_equal(rig.story, "");
}

static void too_long(void **state)
{
    (void)state;
    static char text[HF_PG_CONTROL_MAX];
    static const char begin[] = "monitor\nmirrors ";
    memset(text, 'x', sizeof(text));
    memcpy(text, begin, strlen(begin));
    int fd = client();
    put_n(fd, text, sizeof(text));
    put(fd, "\n\n");
    assert_begins(answer(fd), "= 2 it is too long");
    assert_string_equal(rig.story, "");
    memcpy(text + sizeof(text) - 2, "\n\n", 2); /* exactly as long as it may be */
    fd = client();
    rig.code = 0;
    put_n(fd, text, sizeof(text));
    assert_string_equal(answer(fd), "line of monitor\n= 0 at once\n");
}

static void too_many(void **state)
{
    (void)state;
    int fd[HF_PG_CONTROLS_MAX];
    rig.code = 0;
    for (int i = 0; i < HF_PG_CONTROLS_MAX; i++) {
        fd[i] = client();
        put(fd[i], "mon");
    }
    turn();
    int more = client();
    assert_begins(answer(more), "= 1 ");
    for (int i = 0; i < HF_PG_CONTROLS_MAX; i++) { /* those that were there first are served */
        put(fd[i], "itor\n\n");
        assert_string_equal(answer(fd[i]), "line of monitor\n= 0 at once\n");
    }
    more = client();
    put(more, "monitor\n\n");
    assert_string_equal(answer(more), "line of monitor\n= 0 at once\n");
}

/* One that says nothing does not keep its place for ever; one that waits for its answer does. */
static void too_late(void **state)
{
    (void)state;
    int patient = client(), silent = client(), slow = client();
    put(patient, "promote\n\n");
    put(slow, "promote\nepoch 1\n");
    assert_begins(answer(silent), "= 2 it did not come in time");
    assert_begins(answer(slow), "= 2 it did not come in time");
    assert_string_equal(rig.story, "promote");
    hf_pg_control_done(rig.c, 0, "");
    assert_string_equal(answer(patient), "= 0 \n");
}

static void one_that_does_not_read(void **state)
{
    (void)state;
    int fd = client();
    put(fd, "mirror-state\n\n");
    UNTIL(rig.c);
    for (int i = 0; i < 10000; i++) {
        hf_pg_control_line(rig.c, "%01000d", i);
    }
    UNTIL(strcmp(rig.story, "mirror-state closed") == 0);
    close(fd);
}

static void closed_with_requests(void **state)
{
    (void)state;
    int asked = client(), half = client(), done = client();
    put(half, "promote\n");
    put(done, "monitor\n\n");
    UNTIL(rig.c);
    hf_pg_control_done(rig.c, 0, "");
    rig.c = NULL;
    put(asked, "promote\n\n");
    UNTIL(rig.c);
    hf_pg_controls_close(rig.all);
    rig.all = NULL;
    assert_string_equal(answer(asked), "");
    assert_string_equal(answer(half), "");
    assert_string_equal(answer(done), "= 0 \n");
    turn();
    assert_string_equal(rig.story, "monitor promote");
}

static void out_of_memory(void **state)
{
    (void)state;
    struct hf_pg_controls *second;
    char path[96];
    snprintf(path, sizeof(path), "%s.2", rig.path);
    hf_mem_fail_after(0);
    assert_int_equal(open_at(path, &second), -ENOMEM);
    int fd = client();
    assert_begins(answer(fd), "= 1 ");
    hf_mem_fail_after(-1);
    rig.code = 0;
    fd = client();
    put(fd, "monitor\n\n");
    assert_string_equal(answer(fd), "line of monitor\n= 0 at once\n");
}

/* ---- the socket's file ---- */

static void the_file_is_ours_alone(void **state)
{
    (void)state;
    struct stat st;
    struct hf_pg_controls *second;
    assert_int_equal(stat(rig.path, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0600);
    assert_int_equal(open_at(rig.path, &second), -EADDRINUSE);
    assert_non_null(strstr(err.text, rig.path));
    int fd = client(); /* and the first goes on */
    rig.code = 0;
    put(fd, "monitor\n\n");
    assert_string_equal(answer(fd), "line of monitor\n= 0 at once\n");
}

static void a_stale_file_is_replaced(void **state)
{
    (void)state;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct hf_pg_controls *second;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(un.sun_path, sizeof(un.sun_path), "%s/stale", rig.dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    close(fd);
    assert_int_equal(open_at(un.sun_path, &second), 0);
    assert_int_equal(unlink(un.sun_path), 0); /* somebody else's is there now */
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    hf_pg_controls_close(second);
    assert_int_equal(unlink(un.sun_path), 0);
    close(fd);
}

static void what_is_no_socket_stays(void **state)
{
    (void)state;
    char path[256];
    struct hf_pg_controls *second;
    snprintf(path, sizeof(path), "%s/file", rig.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(open_at(path, &second), -EADDRINUSE);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof(path), "/tmp/%0200d", 1);
    assert_int_equal(open_at(path, &second), -ENAMETOOLONG);
    hf_pg_controls_close(NULL);
}

/* ---- the agent's side ---- */

struct agent {
    pid_t pid;
    int in, out, err;
};

/* Runs as a process of its own, as it waits without a loop. */
static struct agent start_agent(const char *path, const char *action)
{
    struct agent a;
    int in[2], out[2], errors[2];
    assert_int_equal(pipe(in) | pipe(out) | pipe(errors), 0);
    fflush(NULL);
    a.pid = fork();
    if (a.pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(errors[1], 2);
        close(in[1]);
        int code = hf_pg_control_agent(path, action);
        fflush(NULL);
        _exit(code);
    }
    assert_true(a.pid > 0);
    close(in[0]);
    close(out[1]);
    close(errors[1]);
    a.in = in[1];
    a.out = out[0];
    a.err = errors[0];
    return a;
}

static void expect(int fd, const char *want)
{
    char got[1024];
    ssize_t n = read(fd, got, sizeof(got) - 1);
    got[n < 0 ? 0 : n] = '\0';
    assert_string_equal(got, want);
}

static void end_agent(struct agent a, int code, const char *out, const char *reason)
{
    int status = 0;
    UNTIL(waitpid(a.pid, &status, WNOHANG) == a.pid);
    assert_true(WIFEXITED(status));
    expect(a.out, out);
    expect(a.err, reason);
    assert_int_equal(WEXITSTATUS(status), code);
    close(a.in);
    close(a.out);
    close(a.err);
}

static void an_agent_asks(void **state)
{
    (void)state;
    setenv("HOLDFAST_EPOCH", "7", 1);
    setenv("HOLDFAST_MIRRORS", "copy2=gamma@10.0.0.3=sync", 1);
    setenv("HOLDFAST_SOURCE", "copy1=alpha@10.0.0.1", 1);
    setenv("HOLDFAST_RESOURCE", "copy2", 1);
    setenv("HOLDFAST_GROUP", "pgvip", 1);
    struct agent a = start_agent(rig.path, "mirror-state");
    UNTIL(rig.c);
    assert_true(rig.ask.epoch == 7);
    assert_string_equal(rig.ask.mirrors, "copy2=gamma@10.0.0.3=sync");
    assert_string_equal(rig.ask.source, "copy1=alpha@10.0.0.1");
    assert_string_equal(rig.ask.resource, "copy2");
    assert_string_equal(rig.ask.group, "pgvip");
    hf_pg_control_line(rig.c, "copy2 in-sync");
    expect(a.out, "copy2 in-sync\n");
    hf_pg_control_line(rig.c, "more");
    hf_pg_control_done(rig.c, 0, "");
    end_agent(a, 0, "more\n", "");
    static const char *const names[] = {"HOLDFAST_EPOCH", "HOLDFAST_MIRRORS", "HOLDFAST_SOURCE",
                                        "HOLDFAST_RESOURCE"};
    for (size_t i = 0; i < HF_ARRAY_LEN(names); i++) {
        unsetenv(names[i]);
    }
    rig.code = 8;
    a = start_agent(rig.path, "monitor");
    end_agent(a, 8, "line of monitor\n", "ocf-exit-reason:at once\n");
    assert_string_equal(rig.ask.mirrors, "");
}

static void an_agent_asks_wrongly(void **state)
{
    (void)state;
    static char text[HF_PG_CONTROL_MAX + 1];
    setenv("HOLDFAST_MIRRORS", "two\nlines", 1);
    end_agent(start_agent(rig.path, "promote"), 2, "",
              "ocf-exit-reason:HOLDFAST_MIRRORS has several lines\n");
    memset(text, 'x', sizeof(text) - 1);
    setenv("HOLDFAST_MIRRORS", text, 1);
    end_agent(start_agent(rig.path, "promote"), 2, "",
              "ocf-exit-reason:the environment's variables are too long\n");
    unsetenv("HOLDFAST_MIRRORS");
    end_agent(start_agent(rig.path, "x y"), 3, "", "ocf-exit-reason:'x y' is not an action\n");
    setenv("HOLDFAST_EPOCH", "seven", 1);
    end_agent(start_agent(rig.path, "promote"), 2, "",
              "ocf-exit-reason:a line is not a name that is known with its value\n");
    unsetenv("HOLDFAST_EPOCH");
    assert_string_equal(rig.story, "");
}

static void is_somebody_there(void **state)
{
    (void)state;
    end_agent(start_agent(rig.path, "access"), 0, "", "");
    turn();
    assert_string_equal(rig.story, "");
}

static void nobody_is_there(void **state)
{
    (void)state;
    char path[256], reason[1024];
    snprintf(path, sizeof(path), "%s.not", rig.path);
    snprintf(
        reason, sizeof(reason),
        "ocf-exit-reason:no holdfast-pg answers at %s: No such file or directory; run it there "
        "(systemctl start holdfast-pg), with service.address in its configuration\n",
        path);
    end_agent(start_agent(path, "monitor"), 7, "", "");
    end_agent(start_agent(path, "stop"), 0, "", "");
    end_agent(start_agent(path, "start"), 1, "", reason);
    end_agent(start_agent(path, "access"), 1, "", reason);
    snprintf(path, sizeof(path), "/tmp/%0200d", 1);
    snprintf(reason, sizeof(reason), "ocf-exit-reason:control: the path is too long: %s\n", path);
    end_agent(start_agent(path, "monitor"), 6, "", reason);
}

/* It dies while it works on an answer. */
static void nobody_is_there_any_more(void **state)
{
    (void)state;
    static const struct {
        const char *action;
        int code;
    } row[] = {{"monitor", 7}, {"stop", 0}, {"promote", 1}};
    for (size_t i = 0; i < HF_ARRAY_LEN(row); i++) {
        rig.c = NULL;
        struct agent a = start_agent(rig.path, row[i].action);
        char reason[1024] = "";
        UNTIL(rig.c);
        hf_pg_controls_close(rig.all);
        if (row[i].code == 1) {
            snprintf(reason, sizeof(reason),
                     "ocf-exit-reason:no holdfast-pg answers at %s: the other side closed the "
                     "connection; run it there (systemctl start holdfast-pg), with service.address "
                     "in its configuration\n",
                     rig.path);
        }
        end_agent(a, row[i].code, "", reason);
        assert_int_equal(open_at(rig.path, &rig.all), 0);
    }
}

static void an_agent_is_talked_with(void **state)
{
    (void)state;
    struct agent a = start_agent(rig.path, "prepare-promote");
    UNTIL(rig.c);
    hf_pg_control_line(rig.c, "holdfast-armed");
    expect(a.out, "holdfast-armed\n");
    assert_int_equal(write(a.in, "promote\n", 8), 8);
    UNTIL(strcmp(rig.story, "prepare-promote promote") == 0);
    hf_pg_control_line(rig.c, "holdfast-done");
    expect(a.out, "holdfast-done\n");
    assert_int_equal(write(a.in, "open\n", 5), 5);
    UNTIL(strcmp(rig.story, "prepare-promote promote open") == 0);
    hf_pg_control_done(rig.c, 0, "");
    end_agent(a, 0, "", "");
    a = start_agent(rig.path, "prepare-demote"); /* without a word it is of no effect */
    rig.c = NULL;
    UNTIL(rig.c);
    close(a.in);
    UNTIL(strstr(rig.story, "prepare-demote closed"));
    a.in = dup(2);
    end_agent(a, 0, "", "");
}

static void an_agent_is_killed(void **state)
{
    (void)state;
    int status;
    struct agent a = start_agent(rig.path, "promote");
    UNTIL(rig.c);
    kill(a.pid, SIGKILL);
    UNTIL(strcmp(rig.story, "promote closed") == 0);
    assert_int_equal(waitpid(a.pid, &status, 0), a.pid);
    close(a.in);
    close(a.out);
    close(a.err);
}

#define ROW(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(a_request_is_told),
        ROW(what_is_not_set_is_empty),
        ROW(lines_are_sent_at_once),
        ROW(long_lines_are_cut),
        ROW(two_requests_at_once),
        ROW(nobody_wants_the_answer),
        ROW(half_closed_it_is_answered),
        ROW(further_lines),
        ROW(whether_the_former_primary_is_silent),
        ROW(whether_the_group_fences),
        ROW(the_address_of_a_dead_process),
        ROW(further_lines_that_are_none),
        ROW(garbage),
        ROW(half_requests),
        ROW(too_long),
        ROW(too_many),
        ROW(too_late),
        ROW(one_that_does_not_read),
        ROW(closed_with_requests),
        ROW(out_of_memory),
        ROW(the_file_is_ours_alone),
        ROW(a_stale_file_is_replaced),
        ROW(what_is_no_socket_stays),
        ROW(an_agent_asks),
        ROW(an_agent_asks_wrongly),
        ROW(is_somebody_there),
        ROW(nobody_is_there),
        ROW(nobody_is_there_any_more),
        ROW(an_agent_is_talked_with),
        ROW(an_agent_is_killed),
    };
    return cmocka_run_group_tests_name("pg/control", tests, NULL, NULL);
}
