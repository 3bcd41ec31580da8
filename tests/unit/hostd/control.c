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

static void pipelined(uint8_t type, const char *name, uint32_t requests)
{
    static struct hostd_rig rig;
    struct hf_err err;
    char path[100];
    rig_open(&rig);
    snprintf(path, sizeof(path), "%s/control.sock", rig.dir);
    char *configured = rig.h.config->control.socket;
    rig.h.config->control.socket = path;
    assert_int_equal(hf_control_open(&rig.h, &err, &rig.h.control), 0);
    struct hf_buf all;
    hf_buf_init(&all, 16u << 20);
    add(&all, &(struct hf_ctl_msg){
                  .type = HF_CTL_HELLO, .version = HF_CTL_VERSION, .text = hf_slice_str("test")});
    for (uint32_t i = 1; i <= requests; i++) {
        add(&all, &(struct hf_ctl_msg){.type = type, .seq = i, .name = hf_slice_str(name)});
    }
    assert_int_equal(all.err, 0);
    int fd = connect_to(path);
    assert_int_equal(exchange(&rig, fd, &all, requests), requests);
    close(fd);
    hf_buf_fini(&all);
    hf_control_close(rig.h.control);
    rig.h.control = NULL;
    rig.h.config->control.socket = configured;
    rig_close(&rig);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(small_requests),
        HF_TEST(trees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
