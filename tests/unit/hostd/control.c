/* hostd/control: one connection that sends far more than fits, at once, loses nothing and is not
 * closed. */
#include "hostd/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "codec/ctl_v1.h"
#include "support/hostd_rig.h"
#include "support/test.h"

#define REQUESTS 60000

static int connect_to(const char path[100])
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

static void add(struct hf_buf *b, const struct hf_ctl_msg *m)
{
    uint8_t frame[512];
    struct hf_wr w;
    struct hf_slice s;
    hf_wr_init(&w, frame, sizeof(frame));
    hf_ctl_encode(&w, m);
    assert_int_equal(hf_wr_end(&w, &s), 0);
    hf_buf_add(b, s);
}

/* What a client sends and gets, driven with the daemon until `want` RESULTs have come. */
static uint32_t exchange(struct hostd_rig *rig, int fd, const struct hf_buf *send_all,
                         uint32_t want)
{
    struct hf_buf in;
    size_t sent = 0;
    uint32_t results = 0, last_seq = 0;
    hf_buf_init(&in, 4u << 20);
    while (results < want) {
        ssize_t n = send(fd, send_all->p + sent, send_all->n - sent, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        rig_turn(rig);
        uint8_t *p = hf_buf_reserve(&in, 65536);
        assert_non_null(p);
        n = recv(fd, p, 65536, 0);
        assert_true(n > 0 || (n < 0 && errno == EAGAIN)); /* 0: it closed the connection */
        hf_buf_commit(&in, n > 0 ? (size_t)n : 0);
        struct hf_ctl_msg m;
        size_t at = 0;
        for (int used; (used = hf_ctl_decode(hf_slice(in.p + at, in.n - at), &m)) > 0;) {
            at += (size_t)used;
            if (m.type == HF_CTL_RESULT) {
                assert_int_equal(m.seq, last_seq + 1); /* answers come in order */
                last_seq = m.seq;
                results++;
            }
        }
        hf_buf_consume(&in, at);
    }
    hf_buf_fini(&in);
    return results;
}

/* A daemon whose control socket is open. */
struct open_rig {
    struct hostd_rig rig;
    char path[100];
    char *configured;
};

static void open_control(struct open_rig *o)
{
    struct hf_err err;
    rig_open(&o->rig);
    snprintf(o->path, sizeof(o->path), "%s/control.sock", o->rig.dir);
    o->configured = o->rig.h.config->control.socket;
    o->rig.h.config->control.socket = o->path;
    assert_int_equal(hf_control_open(&o->rig.h, &err, &o->rig.h.control), 0);
}

static void close_control(struct open_rig *o)
{
    hf_control_close(o->rig.h.control);
    o->rig.h.control = NULL;
    o->rig.h.config->control.socket = o->configured;
    rig_close(&o->rig);
}

static void pipelined(uint8_t type, const char *name, uint32_t requests)
{
    static struct open_rig o;
    open_control(&o);
    struct hf_buf all;
    hf_buf_init(&all, 16u << 20);
    add(&all, &(struct hf_ctl_msg){
                  .type = HF_CTL_HELLO, .version = HF_CTL_VERSION, .text = hf_slice_str("test")});
    for (uint32_t i = 1; i <= requests; i++) {
        add(&all, &(struct hf_ctl_msg){.type = type, .seq = i, .name = hf_slice_str(name)});
    }
    assert_int_equal(all.err, 0);
    int fd = connect_to(o.path);
    assert_int_equal(exchange(&o.rig, fd, &all, requests), requests);
    close(fd);
    hf_buf_fini(&all);
    close_control(&o);
}

static void small_requests(void **state)
{
    (void)state;
    pipelined(HF_CTL_WITHDRAW, "/n", REQUESTS);
}

static void trees(void **state)
{
    (void)state;
    pipelined(HF_CTL_QUERY, "tree", REQUESTS / 10);
}

/* What the daemon says to these bytes: its first message, then whether it goes on (1) or closes. */
static int answer(struct open_rig *o, int fd, const void *bytes, size_t n, struct hf_ctl_msg *ret_m)
{
    static uint8_t in[4096];
    size_t got = 0;
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), n);
    for (int turns = 0; turns < 1000; turns++) {
        rig_turn(&o->rig);
        ssize_t r = recv(fd, in + got, sizeof(in) - got, MSG_DONTWAIT);
        got += r > 0 ? (size_t)r : 0;
        int used = hf_ctl_decode(hf_slice(in, got), ret_m);
        if (used > 0 && (r == 0 || turns > 5)) {
            return r != 0;
        }
    }
    fail();
    return 0;
}

static bool status_says(struct open_rig *o, const char *text)
{
    struct hf_buf out;
    hf_buf_init(&out, 1u << 20);
    hf_report_status(&o->rig.h, &out);
    hf_buf_add(&out, hf_slice("", 1));
    assert_int_equal(out.err, 0);
    bool found = strstr((const char *)out.p, text) != NULL;
    hf_buf_fini(&out);
    return found;
}

/* The lower of both is spoken; who speaks too old a one is told, closed, and seen in the status. */
static void programs_of_other_versions(void **state)
{
    (void)state;
    static struct open_rig o;
    struct hf_ctl_msg m;
    open_control(&o);
    int newer = connect_to(o.path), older = connect_to(o.path), odd = connect_to(o.path);
    assert_int_equal(answer(&o, newer, "\0\0\0\7\1\2\0\1nxy", 11, &m), 1);
    assert_int_equal(m.type, HF_CTL_HELLO);
    assert_int_equal(m.version, HF_CTL_VERSION);
    assert_int_equal(answer(&o, newer, "\0\0\0\5\12\0\0\0\7", 9, &m), 0); /* FOLLOW, cut off */
    assert_true(status_says(&o, "n["));
    assert_true(status_says(&o, "sends what is not understood here"));
    assert_int_equal(answer(&o, older, "\0\0\0\5\1\0\0\1o", 9, &m), 0);
    assert_int_equal(m.version, HF_CTL_VERSION);
    assert_true(status_says(&o, "o["));
    assert_true(status_says(&o, "speaks version 0 of the control protocol, expected 1 to 1"));
    assert_int_equal(answer(&o, odd, "\377\377\377\377", 4, &m), 0);
    assert_int_equal(m.version, HF_CTL_VERSION);
    close(newer);
    close(older);
    close(odd);
    close_control(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(small_requests),
        HF_TEST(trees),
        HF_TEST(programs_of_other_versions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
