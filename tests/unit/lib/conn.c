/* lib/conn: frames in and out of a socket pair, in pieces, and its limits. */
#include "lib/conn.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "support/test.h"

static void pair(struct hf_conn *a, struct hf_conn *b)
{
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    hf_conn_init(a, fd[0]);
    hf_conn_init(b, fd[1]);
}

static void both_ways_in_pieces(void **state)
{
    (void)state;
    struct hf_conn a, b;
    pair(&a, &b);
    static uint8_t big[HF_VALUE_LEN_MAX];
    struct hf_ctl_msg m = {
        .type = HF_CTL_PUBLISH, .name = hf_slice_str("/a"), .value = hf_slice(big, sizeof(big))};
    uint32_t got = 0;
    for (m.seq = 1; m.seq <= 100; m.seq++) { /* more than the socket takes at once */
        assert_int_equal(hf_conn_send(&a, &m), 0);
    }
    while (got < 100) {
        struct hf_ctl_msg in;
        assert_int_equal(hf_conn_flush(&a), 0);
        assert_int_equal(hf_conn_fill(&b), 0);
        while (hf_conn_next(&b, &in) == 1) {
            assert_int_equal(in.seq, ++got);
            assert_int_equal(in.value.n, sizeof(big));
        }
    }
    assert_false(hf_conn_unsent(&a));
    hf_conn_fini(&a);
    assert_int_equal(hf_conn_fill(&b), -HF_ECLOSED);
    hf_conn_fini(&b);
    hf_conn_fini(&b);
}

static void limits(void **state)
{
    (void)state;
    struct hf_conn a, b;
    pair(&a, &b);
    static uint8_t big[HF_CTL_FRAME_MAX / 2];
    struct hf_ctl_msg m = {.type = HF_CTL_TEXT, .value = hf_slice(big, sizeof(big))};
    int rc = 0;
    for (size_t n = 0; rc == 0; n += sizeof(big)) {
        assert_true(n <= HF_CTL_BACKLOG_MAX);
        rc = hf_conn_send(&a, &m);
    }
    assert_int_equal(rc, -HF_EFULL);
    assert_int_equal(send(a.fd, "\377\377\377\377", 4, 0), 4);
    assert_int_equal(hf_conn_fill(&b), 0);
    assert_int_equal(hf_conn_next(&b, &m), -HF_EMALF);
    hf_conn_fini(&a);
    hf_conn_fini(&b);
}

static void dialling(void **state)
{
    (void)state;
    int fd;
    char too_long[200];
    memset(too_long, 'x', sizeof(too_long) - 1);
    too_long[sizeof(too_long) - 1] = '\0';
    assert_int_equal(hf_conn_dial(too_long, &fd), -ENAMETOOLONG);
    assert_int_equal(hf_conn_dial("/nonexistent/socket", &fd), -ENOENT);
    assert_string_equal(hf_conn_path("/x"), "/x");
    assert_int_equal(setenv("HOLDFAST_SOCKET", "/y", 1), 0);
    assert_string_equal(hf_conn_path(NULL), "/y");
    assert_int_equal(unsetenv("HOLDFAST_SOCKET"), 0);
    assert_string_equal(hf_conn_path(NULL), "/run/holdfast/control.sock");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(both_ways_in_pieces),
        HF_TEST(limits),
        HF_TEST(dialling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
