/* hostd/group_control: operators' commands, their time limits, queries and followers, through the
 * control socket. */
#include "hostd/group_control.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "hostd/control.h"
#include "lib/conn.h"
#include "support/fake_groups.h"
#include "support/hostd_rig.h"
#include "support/test.h"

struct world {
    struct hostd_rig rig;
    struct hf_groups groups;
    char path[100], *configured;
    struct hf_conn conn;
    uint32_t seq;
};

/* The next message for the client, as the daemon is driven. */
static struct hf_ctl_msg receive(struct world *w)
{
    struct hf_ctl_msg m;
    assert_int_equal(hf_conn_flush(&w->conn), 0);
    while (hf_conn_next(&w->conn, &m) == 0) {
        rig_turn(&w->rig);
        assert_int_equal(hf_conn_fill(&w->conn), 0);
    }
    return m;
}

static void greet(struct world *w, int fd)
{
    hf_conn_init(&w->conn, fd);
    assert_int_equal(hf_conn_send(&w->conn, &(struct hf_ctl_msg){.type = HF_CTL_HELLO,
                                                                 .version = HF_CTL_VERSION,
                                                                 .text = hf_slice_str("test")}),
                     0);
    assert_int_equal(receive(w).type, HF_CTL_HELLO);
}

static void dial(struct world *w)
{
    int fd;
    assert_int_equal(hf_conn_dial(w->path, &fd), 0);
    greet(w, fd);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct hf_err err = {0};
    rig_open(&w->rig);
    fake_groups_init(&w->groups);
    w->rig.h.groups = &w->groups;
    snprintf(w->path, sizeof(w->path), "%s/control.sock", w->rig.dir);
    w->configured = w->rig.h.config->control.socket;
    w->rig.h.config->control.socket = w->path;
    assert_int_equal(hf_control_open(&w->rig.h, &err, &w->rig.h.control), 0);
    dial(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    hf_conn_fini(&w->conn);
    hf_control_close(w->rig.h.control);
    w->rig.h.config->control.socket = w->configured;
    assert_null(w->groups.done_arg);
    assert_null(w->groups.listener[0].fn);
    rig_close(&w->rig);
    free(w);
    return 0;
}

static struct hf_ctl_msg group(uint8_t action, const char *host, const char *resource,
                               const char *definition)
{
    return (struct hf_ctl_msg){.type = HF_CTL_GROUP,
                               .action = action,
                               .wait_ms = 60000,
                               .name = hf_slice_str("orders"),
                               .owner = hf_slice_str(host),
                               .resource = hf_slice_str(resource),
                               .value = hf_slice_str(definition)};
}

static void send_msg(struct world *w, struct hf_ctl_msg m)
{
    m.seq = ++w->seq;
    assert_int_equal(hf_conn_send(&w->conn, &m), 0);
}

static void expect_result(struct world *w, uint32_t seq, int code, const char *text)
{
    struct hf_ctl_msg m = receive(w);
    assert_int_equal(m.type, HF_CTL_RESULT);
    assert_int_equal(m.seq, seq);
    hf_assert_slice_str(m.text, text);
    assert_int_equal(m.code, code);
}

static void every_action(void **state)
{
    struct world *w = *state;
    static const struct {
        uint8_t action;
        const char *host, *resource, *definition;
        enum hf_group_command_kind kind;
        uint8_t request;
        const char *got_host, *got_resource;
    } rows[] = {
        {HF_CTL_GROUP_CREATE, "", "", "resource x {}", HF_GROUP_CREATE, 0, "", ""},
        {HF_CTL_GROUP_JOIN, "", "", "", HF_GROUP_JOIN, 0, "", ""},
        {HF_CTL_GROUP_JOIN, "", "", "resource y {}", HF_GROUP_JOIN, 0, "", ""},
        {HF_CTL_GROUP_LEAVE, "", "", "", HF_GROUP_REQUEST, HF_GREQUEST_LEAVE, "alpha", ""},
        {HF_CTL_GROUP_LEAVE, "gamma", "", "", HF_GROUP_REQUEST, HF_GREQUEST_LEAVE, "gamma", ""},
        {HF_CTL_GROUP_SWITCH, "", "", "", HF_GROUP_REQUEST, HF_GREQUEST_SWITCH, "", ""},
        {HF_CTL_GROUP_SWITCH, "beta", "", "", HF_GROUP_REQUEST, HF_GREQUEST_SWITCH, "beta", ""},
        {HF_CTL_GROUP_SWITCH, "copy2", "", "", HF_GROUP_REQUEST, HF_GREQUEST_SWITCH, "", "copy2"},
        {HF_CTL_GROUP_FORCE, "", "copy2", "", HF_GROUP_REQUEST, HF_GREQUEST_FORCE, "", "copy2"},
        {HF_CTL_GROUP_PAUSE, "", "", "", HF_GROUP_REQUEST, HF_GREQUEST_PAUSE, "", ""},
        {HF_CTL_GROUP_RESUME, "", "copy1", "", HF_GROUP_REQUEST, HF_GREQUEST_RESUME, "", "copy1"},
        {HF_CTL_GROUP_CONFIRM, "gamma", "", "", HF_GROUP_REQUEST, HF_GREQUEST_CONFIRM, "gamma", ""},
    };
    w->groups.at_once = true;
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        send_msg(w, group(rows[i].action, rows[i].host, rows[i].resource, rows[i].definition));
        expect_result(w, w->seq, 0, "at once");
        assert_int_equal(w->groups.cmd.kind, rows[i].kind);
        assert_int_equal(w->groups.cmd.request, rows[i].request);
        assert_string_equal(w->groups.group, "orders");
        assert_string_equal(w->groups.host, rows[i].got_host);
        assert_string_equal(w->groups.resource, rows[i].got_resource);
        assert_string_equal(w->groups.definition, rows[i].definition);
        assert_true((w->groups.cmd.host != NULL) == (*rows[i].got_host != '\0'));
    }
}

static void outcomes_come_later(void **state)
{
    struct world *w = *state;
    send_msg(w, group(HF_CTL_GROUP_PAUSE, "", "", ""));
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_WITHDRAW, .name = hf_slice_str("/x")});
    assert_int_equal(receive(w).seq, 2); /* others are not held up */
    fake_groups_done(&w->groups, -HF_EQUORUM, "no quorum: 1 of 3 is here");
    expect_result(w, 1, -HF_EQUORUM, "no quorum: 1 of 3 is here");
    send_msg(w, group(HF_CTL_GROUP_PAUSE, "", "", ""));
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_WITHDRAW, .name = hf_slice_str("/x")});
    assert_int_equal(receive(w).seq, 4);
    char text[2000];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    fake_groups_done(&w->groups, -HF_EQUORUM, text);
    assert_int_equal(receive(w).text.n, 1024); /* what fits */
}

static void refused_at_once(void **state)
{
    struct world *w = *state;
    send_msg(w, group(HF_CTL_GROUP_SWITCH, "delta", "", ""));
    expect_result(w, 1, -HF_ENOTFOUND,
                  "orders has no host or resource delta; it has: alpha beta gamma");
    send_msg(w, group(HF_CTL_GROUP_CONFIRM, "copy2", "", ""));
    expect_result(w, 2, -HF_ENOTFOUND, "orders has no host copy2; it has: alpha beta gamma");
    send_msg(w, group(HF_CTL_GROUP_FORCE, "", "beta", ""));
    expect_result(w, 3, -HF_ENOTFOUND, "orders has no resource beta; it has: copy1 copy2 address");
    struct hf_ctl_msg m = group(HF_CTL_GROUP_PAUSE, "", "", "");
    m.name = hf_slice_str("lead");
    send_msg(w, m);
    expect_result(w, 4, -HF_ENOTFOUND, "this host is in no group lead; ask on one of its hosts");
    m.name = hf_slice_str("A/B");
    m.action = HF_CTL_GROUP_CREATE;
    send_msg(w, m);
    assert_int_equal(receive(w).code, -HF_ENAME);
    w->groups.core.no_state = true;
    w->groups.core.why = "waiting for beta";
    send_msg(w, group(HF_CTL_GROUP_PAUSE, "", "", ""));
    expect_result(w, 6, -HF_ENOTREADY, "nothing is known of group orders yet: waiting for beta");
    w->rig.h.groups = NULL;
    send_msg(w, group(HF_CTL_GROUP_PAUSE, "", "", ""));
    expect_result(w, 7, -HF_ENOTREADY, "this holdfastd takes no part in groups");
    w->rig.h.groups = &w->groups;
    assert_int_equal(w->groups.n_commands, 0);
}

static void time_is_up(void **state)
{
    struct world *w = *state;
    struct hf_ctl_msg m = group(HF_CTL_GROUP_PAUSE, "", "", "");
    w->groups.core.why = "no quorum: beta and gamma are not here";
    m.wait_ms = 1;
    send_msg(w, m);
    expect_result(w, 1, -HF_ETIMEOUT,
                  "not done within 0.001 s, but it may still be: no quorum: beta and gamma are not "
                  "here");
    assert_null(w->groups.done_arg);
    w->groups.core.why = NULL;
    send_msg(w, m);
    expect_result(w, 2, -HF_ETIMEOUT,
                  "not done within 0.001 s, but it may still be: see holdfast group show orders");
}

static void too_many(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < HF_GROUP_COMMANDS_MAX + 1; i++) {
        send_msg(w, group(HF_CTL_GROUP_PAUSE, "", "", ""));
    }
    struct hf_ctl_msg m = receive(w);
    assert_int_equal(m.seq, HF_GROUP_COMMANDS_MAX + 1);
    assert_int_equal(m.code, -HF_EFULL);
    assert_int_equal(w->groups.n_commands, HF_GROUP_COMMANDS_MAX);
    /* a client that goes makes room */
    hf_conn_fini(&w->conn);
    while (hf_control_clients(w->rig.h.control) > 0) {
        rig_turn(&w->rig);
    }
    assert_null(w->groups.done_arg);
    dial(w);
    w->groups.at_once = true;
    send_msg(w, group(HF_CTL_GROUP_PAUSE, "", "", ""));
    expect_result(w, w->seq, 0, "at once");
}

static void the_daemon_ends(void **state)
{
    struct world *w = *state;
    send_msg(w, group(HF_CTL_GROUP_PAUSE, "", "", ""));
    assert_int_equal(hf_conn_flush(&w->conn), 0);
    while (w->groups.n_commands == 0) {
        rig_turn(&w->rig);
    }
    assert_non_null(w->groups.done_arg); /* teardown finds it forgotten */
}

/* Who may only publish may not say what agents do as root. */
static void others_may_look_only(void **state)
{
    struct world *w = *state;
    if (geteuid() != 0) {
        return; /* nobody else to be */
    }
    hf_conn_fini(&w->conn);
    assert_int_equal(chmod(w->rig.dir, 0755), 0);
    assert_int_equal(chmod(w->path, 0666), 0);
    assert_int_equal(seteuid(65534), 0);
    int fd;
    int rc = hf_conn_dial(w->path, &fd);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(rc, 0);
    greet(w, fd);
    send_msg(w, group(HF_CTL_GROUP_CREATE, "", "", "resource x {}"));
    expect_result(w, 1, -EPERM, "only root may change groups");
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_FOLLOW, .name = hf_slice_str("orders")});
    expect_result(w, 2, 0, "success");
    assert_int_equal(w->groups.n_commands, 0);
}

static void queries(void **state)
{
    struct world *w = *state;
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_QUERY,
                                    .name = hf_slice_str("group-history"),
                                    .value = hf_slice_str("orders")});
    struct hf_ctl_msg m = receive(w);
    hf_assert_slice_str(m.value, "[{\"at\":1700000000000,\"epoch\":1,\"text\":\"created\"}]");
    expect_result(w, 1, 0, "success");
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_QUERY,
                                    .name = hf_slice_str("group-history"),
                                    .value = hf_slice_str("lead")});
    expect_result(w, 2, -HF_ENOTFOUND, "this host is in no group lead");
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_QUERY, .name = hf_slice_str("groups")});
    m = receive(w);
    assert_non_null(memmem(m.value.p, m.value.n, "{\"name\":\"orders\"", 16));
    expect_result(w, 3, 0, "success");
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_QUERY,
                                    .name = hf_slice_str("groups"),
                                    .value = hf_slice_str("lead")});
    expect_result(w, 4, -HF_ENOTFOUND,
                  "this host is in no group lead; holdfast group show lists its groups");
}

static void expect_state(struct world *w, uint32_t seq, uint8_t flags, uint64_t epoch,
                         const char *host)
{
    struct hf_ctl_msg m = receive(w);
    assert_int_equal(m.type, HF_CTL_GROUP_STATE);
    assert_int_equal(m.seq, seq);
    assert_int_equal(m.flags, flags);
    assert_int_equal(m.epoch, epoch);
    hf_assert_slice_str(m.owner, host);
}

static void followers(void **state)
{
    struct world *w = *state;
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_FOLLOW, .name = hf_slice_str("orders")});
    expect_result(w, 1, 0, "success");
    expect_state(w, 1, 7, 7, "alpha");
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_FOLLOW, .name = hf_slice_str("lead")});
    expect_result(w, 2, 0, "success");
    expect_state(w, 2, 0, 0, "");
    fake_groups_changed(&w->groups, "nothing new");
    w->groups.core.s.epoch = 8;
    w->groups.core.s.primary_host = 1;
    (void)snprintf(w->groups.core.s.fence_text, HF_GROUP_FENCE_TEXT_MAX, "xmax=8");
    fake_groups_changed(&w->groups, NULL);
    w->groups.core.quorate = false;
    fake_groups_changed(&w->groups, NULL);
    expect_state(w, 1, 1, 8, "beta"); /* told once */
    fake_groups_changed(&w->groups, NULL);
    w->groups.core.s.fence_text[5] = '9';
    fake_groups_changed(&w->groups, NULL);
    struct hf_ctl_msg fenced = receive(w);
    hf_assert_slice_str(fenced.fence_text, "xmax=9");
    w->groups.core.quorate = true;
    w->groups.core.lost = 6;
    fake_groups_changed(&w->groups, NULL);
    struct hf_ctl_msg lost = receive(w);
    hf_assert_slice_str(lost.lost, "beta gamma");
    w->groups.core.lost = 4;
    fake_groups_changed(&w->groups, NULL);
    lost = receive(w);
    hf_assert_slice_str(lost.lost, "gamma");
    w->groups.info.name = NULL;
    fake_groups_changed(&w->groups, NULL);
    expect_state(w, 1, 0, 0, "");
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_UNWATCH, .watch = 1});
    expect_result(w, 3, 0, "");
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_UNWATCH, .watch = 1});
    expect_result(w, 4, -HF_ENOTFOUND, "no such watch on this connection");
    for (int i = 1; i < HF_CTL_WATCHES_MAX; i++) {
        send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_FOLLOW, .name = hf_slice_str("orders")});
    }
    send_msg(w, (struct hf_ctl_msg){.type = HF_CTL_FOLLOW, .name = hf_slice_str("orders")});
    struct hf_ctl_msg m;
    do {
        m = receive(w);
    } while (m.type != HF_CTL_RESULT || m.seq != w->seq);
    assert_int_equal(m.code, -HF_EFULL);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_action), TEST(outcomes_come_later), TEST(refused_at_once),      TEST(time_is_up),
        TEST(too_many),     TEST(the_daemon_ends),     TEST(others_may_look_only), TEST(queries),
        TEST(followers),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
