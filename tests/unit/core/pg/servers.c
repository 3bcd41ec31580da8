/* core/pg/servers: each scenario as a story: what servers do, and what the driver is told. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "core/pg/servers.h"
#include "support/test.h"

enum { N_SERVERS = 4, N_SEATS = 256 };

/* A server as it is; its monitor is played by run(). */
struct fake {
    bool refused, silent;
    const char *sqlstate; /* of a login error, or NULL */
    struct hf_pg_server_facts facts;
};

struct rig {
    struct hf_pg_servers *s;
    hf_time now;
    struct fake server[N_SERVERS];
    struct hf_pg_seat seat[N_SEATS];
    bool login_later, break_logins;
    unsigned n_probes;
    char log[16384];
    size_t n_log;
};

static const char *const names[] = {"alpha", "beta", "gamma", "delta"};

static void say(struct rig *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct rig *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    r->n_log += (size_t)vsnprintf(r->log + r->n_log, sizeof(r->log) - r->n_log, fmt, ap);
    va_end(ap);
    assert_true(r->n_log < sizeof(r->log));
}

static struct hf_pg_server_facts facts(bool in_recovery, uint32_t timeline, uint64_t xmax,
                                       uint32_t aux)
{
    return (struct hf_pg_server_facts){
        .in_recovery = in_recovery,
        .sysid = 4711,
        .timeline = timeline,
        .started = 1000,
        .xmax = xmax,
        .lsn = 0x1000,
        .n_aux = 2,
        .aux = {aux, aux + 1},
    };
}

static void rig_init(struct rig *r, const struct hf_pg_servers_conf *conf, size_t n)
{
    memset(r, 0, sizeof(*r));
    r->now = HF_S(100);
    assert_int_equal(hf_pg_servers_create(conf, r->now, &r->s), 0);
    struct hf_pg_server_conf list[N_SERVERS];
    static const char *const address[] = {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"};
    for (size_t i = 0; i < n; i++) {
        list[i] = (struct hf_pg_server_conf){.name = names[i], .address = address[i]};
        r->server[i].facts = facts(i != 0, 1, 700, 10 * (uint32_t)i + 10);
    }
    assert_int_equal(hf_pg_servers_set(r->s, list, n, r->now), 0);
}

static void rig_fini(struct rig *r)
{
    hf_pg_servers_destroy(r->s);
}

static unsigned number_of(const struct rig *r, const struct hf_pg_seat *seat)
{
    return (unsigned)(seat - r->seat);
}

static void lose(struct rig *r, unsigned i)
{
    struct hf_pg_seat *seat = &r->seat[i];
    enum hf_pg_endpoint endpoint = seat->endpoint;
    uint64_t lost = hf_pg_servers_leave(r->s, seat, r->now);
    hf_pg_servers_need(r->s, seat, endpoint, false, lost, r->now);
}

static void want(struct rig *r, unsigned i, enum hf_pg_endpoint endpoint)
{
    hf_pg_servers_need(r->s, &r->seat[i], endpoint, false, 0, r->now);
}

static void probe(struct rig *r, uint32_t i)
{
    struct fake *v = &r->server[i];
    r->n_probes++;
    if (v->silent) {
        return;
    }
    if (v->refused) {
        hf_pg_servers_failed(r->s, i, "", "connection refused", r->now);
    } else if (v->sqlstate) {
        hf_pg_servers_failed(r->s, i, v->sqlstate, "an error of the server", r->now);
    } else {
        hf_pg_servers_answered(r->s, i, &v->facts, r->now);
    }
}

static void told(struct rig *r, const struct hf_pg_servers_out *o)
{
    struct hf_pg_backend b;
    switch (o->kind) {
    case HF_PG_SERVERS_LOGIN:
        say(r, "login %u at %s\n", number_of(r, o->seat), names[o->server]);
        if (r->break_logins) {
            hf_pg_servers_login_failed(r->s, o->seat, r->now);
        } else if (!r->login_later) {
            hf_pg_servers_seated(r->s, o->seat, r->now);
        }
        break;
    case HF_PG_SERVERS_ATTACH:
        hf_pg_servers_backend(r->s, o->seat, &b);
        if (b.fenced) {
            say(r, "attach %u, fence %llu%s\n", number_of(r, o->seat), (unsigned long long)b.fence,
                b.exclusive ? ", exclusive" : "");
        } else {
            say(r, "attach %u%s\n", number_of(r, o->seat), b.same ? ", same" : "");
        }
        break;
    case HF_PG_SERVERS_REFUSE:
        say(r, "refuse %u: %s\n", number_of(r, o->seat), o->text);
        break;
    case HF_PG_SERVERS_GONE:
        say(r, "gone %u: %s\n", number_of(r, o->seat), o->text);
        if (o->seat->state == HF_PG_SEAT_TAKEN) {
            lose(r, number_of(r, o->seat));
        } else {
            hf_pg_servers_login_failed(r->s, o->seat, r->now);
        }
        break;
    case HF_PG_SERVERS_MOVE:
        say(r, "move %u from %s: %s\n", number_of(r, o->seat), names[o->server], o->text);
        break;
    case HF_PG_SERVERS_FREEZE:
        say(r, "freeze\n");
        break;
    case HF_PG_SERVERS_THAW:
        say(r, "thaw\n");
        break;
    case HF_PG_SERVERS_PROBE:
        probe(r, o->server);
        break;
    case HF_PG_SERVERS_PROMOTE:
        say(r, "promote %s\n", names[o->server]);
        break;
    case HF_PG_SERVERS_RESET:
        say(r, "reset %s\n", names[o->server]);
        break;
    case HF_PG_SERVERS_EVENT:
        say(r, "%s%s\n", o->warn ? "! " : "- ", o->text);
        break;
    }
}

/* Let time pass; each deadline is met. */
static void run(struct rig *r, hf_time span)
{
    hf_time end = r->now + span;
    unsigned n = 0;
    for (;;) {
        hf_pg_servers_step(r->s, r->now);
        struct hf_pg_servers_out o;
        while (hf_pg_servers_next(r->s, r->now, &o)) {
            assert_true(++n < 100000);
            told(r, &o);
        }
        hf_time t = hf_pg_servers_deadline(r->s);
        assert_true(t > r->now); /* no busy loop */
        if (t > end) {
            r->now = end;
            return;
        }
        r->now = t;
    }
}

#define story(r, text)                                                                             \
    do {                                                                                           \
        assert_string_equal((r)->log, (text));                                                     \
        (r)->n_log = 0;                                                                            \
        (r)->log[0] = 0;                                                                           \
    } while (0)

static void forget(struct rig *r)
{
    r->n_log = 0;
    r->log[0] = 0;
}

static const struct hf_pg_servers_conf exclusive = {.exclusive = true};

/* alpha is primary, beta a standby, so many read-write sessions are there. */
static void begin(struct rig *r, const struct hf_pg_servers_conf *conf, size_t n, unsigned n_seats)
{
    rig_init(r, conf, n);
    for (unsigned i = 0; i < n_seats; i++) {
        want(r, i, HF_PG_READ_WRITE);
    }
    run(r, HF_S(2));
    assert_int_equal(hf_pg_servers_primary(r->s), 0);
    forget(r);
}

static void a_primary_is_opened_when_its_fence_is_read(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, &exclusive, 2);
    want(&r, 0, HF_PG_READ_WRITE);
    run(&r, HF_MS(1));
    story(&r, "- alpha: unknown -> closed: not all servers were heard yet\n"
              "- beta: unknown -> standby\n"
              "- alpha is the primary: timeline 1, fence 700\n"
              "- alpha: closed -> primary\n"
              "login 0 at alpha\n"
              "attach 0\n");
    rig_fini(&r);
}

static void a_connection_lost_on_the_same_start(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 2, 1);
    unsigned before = r.n_probes;
    lose(&r, 0);
    run(&r, 0);
    story(&r, "login 0 at alpha\n"
              "attach 0, same\n");
    /* one before the login (X6), one after it, both on the monitor's connection */
    assert_int_equal(r.n_probes, before + 2);
    rig_fini(&r);
}

static void a_restart_in_place_is_another_incarnation(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 1, 2);
    r.server[0].facts.aux[0] = 90; /* pg_postmaster_start_time() stays */
    r.server[0].facts.aux[1] = 91;
    r.server[0].facts.xmax = 740;
    lose(&r, 0);
    want(&r, 2, HF_PG_READ_WRITE);
    run(&r, 0);
    story(&r, "! alpha: primary -> closed: its fence is being read\n"
              "- alpha is the primary: timeline 1, fence 740\n"
              "- alpha: closed -> primary\n"
              "gone 1: the server was started anew, or promoted\n"
              "login 0 at alpha\n"
              "attach 0, fence 740, exclusive\n"
              "login 1 at alpha\n"
              "attach 1, fence 740, exclusive\n");
    /* the window: a new session waits until both have recovered */
    hf_pg_servers_recovered(r.s, &r.seat[0], r.now);
    run(&r, HF_MS(100));
    story(&r, "");
    hf_pg_servers_recovered(r.s, &r.seat[1], r.now);
    run(&r, 0);
    story(&r, "login 2 at alpha\n"
              "attach 2\n");
    rig_fini(&r);
}

static void the_window_ends_by_itself(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 1, 1);
    r.server[0].facts.aux[0] = 90;
    r.server[0].facts.aux[1] = 91;
    lose(&r, 0);
    want(&r, 1, HF_PG_READ_WRITE);
    run(&r, HF_S(4));
    forget(&r);
    run(&r, HF_S(2));
    story(&r, "login 1 at alpha\n"
              "attach 1\n");
    rig_fini(&r);
}

static void a_login_that_lands_on_a_later_start_is_not_attached(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 1, 1);
    r.login_later = true;
    lose(&r, 0);
    run(&r, 0);
    story(&r, "login 0 at alpha\n");
    r.server[0].facts.aux[0] = 90; /* restarts while the driver logs in */
    r.server[0].facts.aux[1] = 91;
    r.server[0].facts.xmax = 750;
    r.login_later = false;
    hf_pg_servers_seated(r.s, &r.seat[0], r.now);
    run(&r, HF_MS(200));
    story(&r, "! alpha: primary -> closed: its fence is being read\n"
              "- alpha is the primary: timeline 1, fence 750\n"
              "- alpha: closed -> primary\n"
              "gone 0: the server was started anew, or promoted\n"
              "login 0 at alpha\n"
              "attach 0, fence 750, exclusive\n");
    rig_fini(&r);
}

static void a_new_connection_waits_until_it_is_known_on_which_start_it_is(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 1, 0);
    r.login_later = true;
    want(&r, 0, HF_PG_READ_WRITE);
    run(&r, 0);
    story(&r, "login 0 at alpha\n");
    r.server[0].facts.aux[0] = 90; /* restarts while the driver logs in */
    r.server[0].facts.aux[1] = 91;
    r.login_later = false;
    hf_pg_servers_seated(r.s, &r.seat[0], r.now);
    assert_int_equal(r.seat[0].state, HF_PG_SEAT_CHECK);
    run(&r, HF_MS(200));
    story(&r, "! alpha: primary -> closed: its fence is being read\n"
              "- alpha is the primary: timeline 1, fence 700\n"
              "- alpha: closed -> primary\n"
              "gone 0: the server was started anew, or promoted\n"
              "login 0 at alpha\n"
              "attach 0\n");
    assert_int_equal(hf_pg_servers_leave(r.s, &r.seat[0], r.now), 2);
    rig_fini(&r);
}

static void a_connection_that_was_there_before_needs_no_probe_of_its_own(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 1, 1);
    r.login_later = true;
    lose(&r, 0);
    run(&r, 0);
    story(&r, "login 0 at alpha\n"); /* after a probe, as it had lost one */
    unsigned n = r.n_probes;
    hf_pg_servers_seated_before(r.s, &r.seat[0], r.now);
    run(&r, 0);
    story(&r, "attach 0, same\n");
    assert_int_equal(r.n_probes, n);
    want(&r, 1, HF_PG_READ_WRITE);
    run(&r, 0);
    story(&r, "login 1 at alpha\n");
    r.server[0].facts.aux[0] = 90; /* restarts: it was of the start before */
    r.server[0].facts.aux[1] = 91;
    r.login_later = false;
    hf_pg_servers_seated_before(r.s, &r.seat[1], r.now);
    assert_int_equal(r.seat[1].state, HF_PG_SEAT_CHECK);
    run(&r, HF_MS(200));
    assert_non_null(strstr(r.log, "gone 1: the server was started anew, or promoted\n"));
    rig_fini(&r);
}

static void a_standby_is_promoted(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 2, 2);
    r.server[0].refused = true;
    lose(&r, 0);
    run(&r, HF_MS(50));
    story(&r, "! alpha: primary -> down: connection refused\n");
    r.server[1].facts = facts(false, 2, 720, 20);
    run(&r, HF_MS(50));
    story(&r, "! beta: standby -> closed: its fence is being read\n"
              "- beta is the primary: timeline 2, fence 720\n"
              "- beta: closed -> primary\n"
              "gone 1: another server is the primary now\n"
              "login 0 at beta\n"
              "attach 0, fence 720, exclusive\n"
              "login 1 at beta\n"
              "attach 1, fence 720, exclusive\n");
    /* the old one comes back and does not know */
    r.server[0].refused = false;
    run(&r, HF_S(2));
    story(&r, "! alpha: down -> closed: an older timeline: another server was promoted\n");
    rig_fini(&r);
}

static void an_old_primary_is_not_taken_even_alone(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, &exclusive, 2);
    r.server[1].facts = facts(true, 2, 1, 20); /* a standby that follows timeline 2 */
    want(&r, 0, HF_PG_READ_WRITE);
    run(&r, HF_S(1));
    story(&r, "- alpha: unknown -> closed: not all servers were heard yet\n"
              "- beta: unknown -> standby\n");
    assert_string_equal(hf_pg_servers_why(r.s), "an older timeline: another server was promoted");
    rig_fini(&r);
}

static void two_primaries_are_none(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 2, 1);
    r.server[1].facts = facts(false, 1, 720, 20);
    run(&r, HF_S(2));
    assert_int_equal(hf_pg_servers_primary(r.s), HF_PG_SERVER_NONE);
    assert_int_equal(hf_pg_servers_counters(r.s)->conflicts, 1);
    want(&r, 1, HF_PG_READ_WRITE);
    forget(&r);
    run(&r, HF_S(31));
    story(&r, "refuse 1: two servers are writable on one timeline\n");
    r.server[1].facts = facts(false, 2, 720, 20); /* that one was promoted */
    run(&r, HF_S(2));
    assert_int_equal(hf_pg_servers_primary(r.s), 1);
    rig_fini(&r);
}

static void another_database_is_no_primary(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 2, 1);
    r.server[1].facts = facts(false, 9, 720, 20);
    r.server[1].facts.sysid = 12;
    run(&r, HF_S(1));
    story(&r, "! beta: standby -> closed: another database: its system identifier differs\n");
    rig_fini(&r);
}

static void without_exclusive_there_is_no_fence(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &(struct hf_pg_servers_conf){0}, 1, 1);
    r.server[0].facts.started = 2000;
    r.server[0].facts.aux[0] = 90;
    lose(&r, 0);
    run(&r, 0);
    story(&r, "! alpha is the primary: timeline 1, no fence: commits in doubt stay so\n"
              "login 0 at alpha\n"
              "attach 0\n");
    rig_fini(&r);
}

static void the_smallest_fence_since_counts(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 1, 2);
    uint64_t first = r.seat[1].incarnation;
    for (uint32_t i = 0; i < 3; i++) {
        r.server[0].facts.aux[0] = 100 + 2 * i;
        r.server[0].facts.aux[1] = 101 + 2 * i;
        r.server[0].facts.xmax = 800 - 10 * i;
        run(&r, HF_S(2));
    }
    run(&r, HF_S(6)); /* the window is over */
    hf_pg_servers_leave(r.s, &r.seat[0], r.now);
    hf_pg_servers_need(r.s, &r.seat[0], HF_PG_READ_WRITE, false, first, r.now);
    forget(&r);
    run(&r, 0);
    story(&r, "login 0 at alpha\n"
              "attach 0, fence 780\n");
    /* further back than is remembered: not known */
    for (uint32_t i = 0; i < 70; i++) {
        r.server[0].facts.aux[0] = 200 + 2 * i;
        r.server[0].facts.aux[1] = 201 + 2 * i;
        run(&r, HF_S(2));
        forget(&r);
    }
    hf_pg_servers_leave(r.s, &r.seat[0], r.now);
    hf_pg_servers_need(r.s, &r.seat[0], HF_PG_READ_WRITE, false, first, r.now);
    forget(&r);
    run(&r, 0);
    story(&r, "login 0 at alpha\n"
              "attach 0\n");
    rig_fini(&r);
}

static void they_wait_in_order_and_not_for_ever(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 1, 0);
    r.server[0].refused = true;
    run(&r, HF_S(2));
    forget(&r);
    want(&r, 0, HF_PG_READ_WRITE);
    run(&r, HF_S(20));
    want(&r, 1, HF_PG_READ_WRITE);
    want(&r, 2, HF_PG_READ_WRITE);
    run(&r, HF_S(15));
    story(&r, "refuse 0: no server is the primary\n");
    hf_time since;
    assert_int_equal(hf_pg_servers_waiting(r.s, &since), 2);
    r.server[0].refused = false;
    run(&r, HF_S(1));
    story(&r, "- alpha: down -> primary\n"
              "login 1 at alpha\n"
              "attach 1\n"
              "login 2 at alpha\n"
              "attach 2\n");
    rig_fini(&r);
}

static void the_gate_is_opened_without_a_stampede(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, &exclusive, 1);
    r.login_later = true;
    for (unsigned i = 0; i < 200; i++) {
        want(&r, i, HF_PG_READ_WRITE);
    }
    run(&r, HF_MS(100));
    uint32_t pos = 0, server;
    struct hf_pg_server_info info;
    assert_true(hf_pg_servers_info(r.s, &pos, &server, &info));
    assert_int_equal(info.n_logins, 64);
    hf_pg_servers_seated(r.s, &r.seat[0], r.now);
    run(&r, 0);
    assert_int_equal(r.seat[64].state, HF_PG_SEAT_LOGIN);
    assert_int_equal(r.seat[65].state, HF_PG_SEAT_WAITING);
    /* who fails comes back to its place */
    hf_pg_servers_login_failed(r.s, &r.seat[1], r.now);
    run(&r, HF_MS(99));
    assert_int_equal(r.seat[65].state, HF_PG_SEAT_LOGIN);
    assert_int_equal(r.seat[1].state, HF_PG_SEAT_WAITING);
    hf_pg_servers_leave(r.s, &r.seat[2], r.now);
    run(&r, HF_MS(1));
    assert_int_equal(r.seat[66].state, HF_PG_SEAT_LOGIN);
    hf_pg_servers_leave(r.s, &r.seat[3], r.now);
    run(&r, HF_MS(10));
    assert_int_equal(r.seat[1].state, HF_PG_SEAT_LOGIN);
    for (unsigned i = 0; i < 200; i++) {
        hf_pg_servers_leave(r.s, &r.seat[i], r.now);
    }
    run(&r, 0);
    assert_int_equal(r.n_log > 0, 1);
    rig_fini(&r);
}

static void logins_that_fail_are_not_tried_in_a_loop(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 1, 0);
    r.break_logins = true;
    want(&r, 0, HF_PG_READ_WRITE);
    run(&r, HF_S(1));
    assert_in_range(hf_pg_servers_counters(r.s)->logins_failed, 5, 11);
    rig_fini(&r);
}

static void a_dead_host_does_not_answer(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 2, 1);
    r.server[0].silent = true;
    run(&r, HF_S(5));
    story(&r, "! alpha: primary -> down: no answer in 3000 ms\n"
              "reset alpha\n");
    rig_fini(&r);
}

static void nobody_waits_for_ever_on_a_dead_primary(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 1, 1);
    r.server[0].refused = true;
    run(&r, HF_S(29));
    story(&r, "! alpha: primary -> down: connection refused\n");
    run(&r, HF_S(3));
    story(&r, "gone 0: the server is down\n");
    run(&r, HF_S(30));
    story(&r, "refuse 0: no server is the primary\n");
    rig_fini(&r);
}

static void nobody_is_attached_to_a_primary_that_was_demoted(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 1, 0);
    r.login_later = true;
    want(&r, 0, HF_PG_READ_WRITE);
    run(&r, 0);
    story(&r, "login 0 at alpha\n");
    r.server[0].facts.in_recovery = true; /* it comes back as a standby while the driver logs in */
    r.server[0].facts.aux[0] = 90;
    r.login_later = false;
    hf_pg_servers_seated(r.s, &r.seat[0], r.now);
    run(&r, HF_MS(200));
    story(&r, "- alpha: primary -> standby\n"
              "gone 0: the server was started anew, or promoted\n");
    rig_fini(&r);
}

static void a_server_that_starts_is_asked_often(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, &exclusive, 1);
    r.server[0].sqlstate = "57P03";
    run(&r, HF_S(1));
    assert_in_range(r.n_probes, 15, 25);
    story(&r, "- alpha: unknown -> starting: an error of the server\n");
    /* full: it lives */
    r.server[0].sqlstate = NULL;
    run(&r, HF_S(1));
    r.server[0].sqlstate = "53300";
    run(&r, HF_S(5));
    assert_int_equal(hf_pg_servers_primary(r.s), 0);
    rig_fini(&r);
}

/* ---- groups ---- */

static void group_says(struct rig *r, uint8_t phase, uint64_t epoch, const char *address,
                       const char *fence)
{
    struct hf_pg_group_view view = {.member = true,
                                    .quorate = true,
                                    .phase = phase,
                                    .epoch = epoch,
                                    .address = address,
                                    .fence_text = fence};
    hf_pg_servers_group(r->s, &view, r->now);
}

static const struct hf_pg_servers_conf in_group = {.group = true};

static void a_group_names_the_primary_and_its_fence(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, &in_group, 2);
    r.server[1].sqlstate = "28000"; /* standbys let nobody in */
    want(&r, 0, HF_PG_READ_WRITE);
    run(&r, HF_S(1));
    story(&r, "- alpha: unknown -> closed: not the group's primary\n"
              "- beta: unknown -> closed: an error of the server\n");
    group_says(&r, 2, 7, "10.0.0.1", "");
    run(&r, HF_S(1));
    story(&r, "- group: this host acts in it\n");
    group_says(&r, 3, 7, "10.0.0.1", "sysid=4711 timeline=1 xmax=733 lsn=0/1");
    run(&r, HF_MS(1));
    story(&r, "- alpha is the primary: timeline 1, fence 733\n"
              "- alpha: closed -> primary\n"
              "login 0 at alpha\n"
              "attach 0\n");
    run(&r, HF_S(2));

    /* alpha's host dies; beta is promoted, and opened a little later */
    r.server[0].silent = true;
    group_says(&r, 1, 7, "10.0.0.2", "sysid=4711 timeline=1 xmax=733 lsn=0/1");
    run(&r, HF_MS(1));
    story(&r, "! alpha: primary -> closed: not the group's primary\n");
    group_says(&r, 3, 8, "10.0.0.2", "sysid=4711 timeline=2 xmax=790 lsn=0/5");
    run(&r, HF_MS(25));
    story(&r, "");
    r.server[1].sqlstate = NULL;
    r.server[1].facts = facts(false, 2, 800, 20);
    run(&r, HF_MS(10));
    story(&r, "- beta is the primary: timeline 2, fence 790\n"
              "- beta: closed -> primary\n"
              "gone 0: another server is the primary now\n"
              "login 0 at beta\n"
              "attach 0, fence 790\n");
    rig_fini(&r);
}

/* alpha is fine when this is the first that is heard of a switch to beta: clients are to be held.
 * How many probes there were before. */
static unsigned hold_at(struct rig *r, uint8_t phase)
{
    rig_init(r, &in_group, 2);
    r->server[1].sqlstate = "28000";
    want(r, 0, HF_PG_READ_WRITE);
    group_says(r, 4, 7, "10.0.0.1", "sysid=4711 timeline=1 xmax=733");
    run(r, HF_S(2));
    forget(r);
    unsigned probes = r->n_probes;
    group_says(r, phase, 8, "10.0.0.2", "");
    run(r, HF_MS(1));
    story(r, "- switchover: none -> freezing\n"
             "! alpha: primary -> closed: not the group's primary\n"
             "freeze\n");
    return probes;
}

static void beta_opens(struct rig *r)
{
    r->server[1].sqlstate = NULL;
    r->server[1].facts = facts(false, 2, 800, 20);
    group_says(r, 3, 8, "10.0.0.2", "sysid=4711 timeline=2 xmax=790");
    run(r, HF_MS(5));
}

/* The group begins to switch while its primary is fine: clients are held until the other one is
 * open. */
static void a_group_that_switches_is_followed(void **state)
{
    (void)state;
    struct rig r;
    unsigned probes = hold_at(&r, 1);
    hf_pg_servers_at_rest(r.s, 0, r.now);
    run(&r, HF_MS(50));
    story(&r, "- switchover: freezing -> frozen\n");
    assert_int_equal(r.n_probes, probes); /* it has other things to do */
    beta_opens(&r);
    story(&r, "- beta is the primary: timeline 2, fence 790\n"
              "- beta: closed -> primary\n"
              "- switchover: frozen -> attaching\n"
              "gone 0: another server is the primary now\n"
              "login 0 at beta\n"
              "attach 0, fence 790\n");
    hf_pg_servers_recovered(r.s, &r.seat[0], r.now);
    run(&r, HF_MS(1));
    story(&r, "thaw\n"
              "- switchover: attaching -> none\n");
    /* another one, which the group gives up before anything has happened */
    group_says(&r, 4, 8, "10.0.0.2", "sysid=4711 timeline=2 xmax=790");
    group_says(&r, 1, 8, "10.0.0.1", "");
    run(&r, HF_MS(1));
    assert_int_equal(hf_pg_servers_switch_state(r.s), HF_PG_SWITCH_FREEZING);
    group_says(&r, 4, 8, "10.0.0.2", "sysid=4711 timeline=2 xmax=790");
    run(&r, HF_MS(5));
    assert_int_equal(hf_pg_servers_switch_state(r.s), HF_PG_SWITCH_NONE);
    rig_fini(&r);
}

/* A busy machine hears of the promotion at once, not that all others stop before it. */
static void clients_are_held_though_the_first_step_was_missed(void **state)
{
    (void)state;
    struct rig r;
    (void)hold_at(&r, 2);
    hf_pg_servers_at_rest(r.s, 0, r.now);
    beta_opens(&r);
    hf_pg_servers_recovered(r.s, &r.seat[0], r.now);
    run(&r, HF_MS(1));
    assert_int_equal(hf_pg_servers_switch_state(r.s), HF_PG_SWITCH_NONE);
    rig_fini(&r);
}

static void a_group_restarts_its_primary_in_place(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, &in_group, 1);
    want(&r, 0, HF_PG_READ_WRITE);
    group_says(&r, 4, 1, "10.0.0.1", "sysid=4711 timeline=1 xmax=733");
    run(&r, HF_S(2));
    forget(&r);
    /* it is told before the monitor has noticed: what it knows of the server is too old */
    r.server[0].facts.started = 2000;
    r.server[0].facts.aux[0] = 90;
    r.server[0].facts.aux[1] = 91;
    group_says(&r, 3, 2, "10.0.0.1", "sysid=4711 timeline=1 xmax=760");
    run(&r, HF_MS(1));
    story(&r, "! alpha: primary -> closed: not seen yet since the group has opened it\n"
              "- alpha is the primary: timeline 1, fence 760\n"
              "- alpha: closed -> primary\n"
              "gone 0: the server was started anew, or promoted\n"
              "login 0 at alpha\n"
              "attach 0, fence 760\n");
    /* a reign of which nothing was heard may have used any transaction id */
    run(&r, HF_S(1));
    forget(&r);
    r.server[0].facts.started = 3000;
    group_says(&r, 4, 4, "10.0.0.1", "sysid=4711 timeline=1 xmax=790");
    run(&r, HF_MS(1));
    story(&r, "! alpha: primary -> closed: not seen yet since the group has opened it\n"
              "! alpha is the primary: timeline 1, no fence: commits in doubt stay so\n"
              "- alpha: closed -> primary\n"
              "gone 0: the server was started anew, or promoted\n"
              "login 0 at alpha\n"
              "attach 0\n");
    /* one that was never opened has used none: the group says so */
    run(&r, HF_S(1));
    forget(&r);
    r.server[0].facts.started = 4000;
    group_says(&r, 4, 6, "10.0.0.1", "sysid=4711 timeline=1 xmax=795 after=4");
    run(&r, HF_MS(1));
    story(&r, "! alpha: primary -> closed: not seen yet since the group has opened it\n"
              "- alpha is the primary: timeline 1, fence 795\n"
              "- alpha: closed -> primary\n"
              "gone 0: the server was started anew, or promoted\n"
              "login 0 at alpha\n"
              "attach 0, fence 795\n");
    run(&r, HF_S(1));
    forget(&r);
    r.server[0].facts.started = 5000;
    group_says(&r, 4, 9, "10.0.0.1", "sysid=4711 timeline=1 xmax=799 after=7");
    run(&r, HF_MS(1));
    story(&r, "! alpha: primary -> closed: not seen yet since the group has opened it\n"
              "! alpha is the primary: timeline 1, no fence: commits in doubt stay so\n"
              "- alpha: closed -> primary\n"
              "gone 0: the server was started anew, or promoted\n"
              "login 0 at alpha\n"
              "attach 0\n");
    rig_fini(&r);
}

static void without_quorum_nobody_is_let_in(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, &in_group, 1);
    want(&r, 0, HF_PG_READ_WRITE);
    group_says(&r, 4, 1, "10.0.0.1", "");
    run(&r, HF_S(2));
    forget(&r);
    struct hf_pg_group_view view = {
        .phase = 4, .epoch = 1, .address = "10.0.0.1", .fence_text = ""};
    hf_pg_servers_group(r.s, &view, r.now);
    want(&r, 1, HF_PG_READ_WRITE);
    run(&r, HF_S(10)); /* who is in stays */
    story(&r, "! group: this host does not act in it: nobody is let in\n");
    assert_string_equal(hf_pg_servers_why(r.s),
                        "this host does not act in the group: no quorum, or no holdfastd");
    group_says(&r, 4, 1, "10.0.0.1", "");
    run(&r, HF_MS(1));
    story(&r, "- group: this host acts in it\n"
              "login 1 at alpha\n"
              "attach 1\n");
    rig_fini(&r);
}

/* ---- readers ---- */

static uint32_t sessions_at(struct rig *r, uint32_t which)
{
    uint32_t pos = 0, server;
    struct hf_pg_server_info info;
    while (hf_pg_servers_info(r->s, &pos, &server, &info)) {
        if (server == which) {
            return info.n_sessions;
        }
    }
    return UINT32_MAX;
}

static void readers_go_where_there_are_fewest(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &(struct hf_pg_servers_conf){.lag_max = 1000}, 3, 0);
    for (unsigned i = 0; i < 10; i++) {
        want(&r, i, HF_PG_READ_ONLY);
    }
    run(&r, 0);
    assert_int_equal(sessions_at(&r, 1), 5);
    assert_int_equal(sessions_at(&r, 2), 5);
    r.server[0].facts.lsn = 0x9000;
    r.server[2].facts.lsn = 0x9000; /* beta is behind */
    run(&r, HF_S(2));
    for (unsigned i = 10; i < 15; i++) {
        want(&r, i, HF_PG_READ_ONLY);
    }
    run(&r, 0);
    assert_int_equal(sessions_at(&r, 1), 5);
    assert_int_equal(sessions_at(&r, 2), 10);
    r.server[2].refused = true; /* gamma dies: the primary is what is left */
    run(&r, HF_S(2));
    assert_int_equal(sessions_at(&r, 0), 10);
    rig_fini(&r);
}

static void do_moves(struct rig *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (r->seat[i].moving) {
            hf_pg_servers_move_done(r->s, &r->seat[i], true, r->now);
            hf_pg_servers_leave(r->s, &r->seat[i], r->now);
            want(r, i, HF_PG_READ_ONLY);
        }
    }
}

static void a_server_is_drained(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &(struct hf_pg_servers_conf){0}, 3, 0);
    for (unsigned i = 0; i < 6; i++) {
        want(&r, i, HF_PG_READ_ONLY);
    }
    run(&r, 0);
    forget(&r);
    r.seat[2].reasons = HF_PG_REASON_TEMP;
    hf_pg_servers_drain(r.s, 1, true, r.now);
    run(&r, 0);
    story(&r, "- beta: drained: its sessions are to be moved\n"
              "move 0 from beta: drain\n"
              "move 4 from beta: drain\n");
    hf_pg_servers_move_done(r.s, &r.seat[4], false, r.now); /* tried again later */
    do_moves(&r, 6);
    run(&r, HF_S(1));
    story(&r, "login 0 at gamma\n"
              "attach 0\n");
    run(&r, HF_S(5));
    story(&r, "move 4 from beta: drain\n");
    do_moves(&r, 6);
    run(&r, HF_S(1));
    uint32_t pos = 1, server;
    struct hf_pg_server_info info;
    assert_true(hf_pg_servers_info(r.s, &pos, &server, &info));
    assert_int_equal(info.n_sessions, 1);
    assert_int_equal(info.n_stuck, 1);
    assert_int_equal(info.stuck, HF_PG_REASON_TEMP);
    r.seat[2].reasons = 0;
    forget(&r);
    run(&r, HF_S(10));
    do_moves(&r, 6);
    run(&r, HF_S(1));
    assert_int_equal(sessions_at(&r, 1), 0);
    rig_fini(&r);
}

static void readers_are_balanced_without_swinging(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &(struct hf_pg_servers_conf){.balance = true}, 3, 0);
    r.server[2].refused = true;
    run(&r, HF_S(2));
    for (unsigned i = 0; i < 100; i++) {
        want(&r, i, HF_PG_READ_ONLY);
    }
    run(&r, HF_S(1));
    assert_int_equal(sessions_at(&r, 1), 100);
    r.server[2].refused = false;
    run(&r, HF_S(2));
    uint32_t before[4] = {100};
    for (unsigned tick = 0; tick < 20; tick++) {
        run(&r, HF_S(30));
        do_moves(&r, 100);
        run(&r, HF_S(1));
        if (tick == 0) {
            assert_int_equal(sessions_at(&r, 1), 75); /* half of the excess */
        }
        before[tick % 4] = sessions_at(&r, 1);
    }
    assert_in_range(before[0], 50, 58); /* within the dead zone, and there it stays */
    assert_int_equal(before[0], before[1]);
    assert_int_equal(before[0], before[3]);
    rig_fini(&r);
}

static void readers_leave_the_primary_for_a_standby(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &(struct hf_pg_servers_conf){.balance = true}, 2, 3);
    r.server[1].refused = true;
    run(&r, HF_S(2));
    for (unsigned i = 3; i < 13; i++) {
        want(&r, i, HF_PG_READ_ONLY);
    }
    run(&r, HF_S(1));
    assert_int_equal(sessions_at(&r, 0), 13);
    r.server[1].refused = false;
    for (unsigned tick = 0; tick < 6; tick++) {
        run(&r, HF_S(31));
        do_moves(&r, 13);
    }
    run(&r, HF_S(1));
    assert_int_equal(sessions_at(&r, 0), 3);
    assert_int_equal(sessions_at(&r, 1), 10);
    rig_fini(&r);
}

/* ---- switchover ---- */

static void a_planned_switchover(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 2, 2);
    assert_int_equal(hf_pg_servers_switchover(r.s, HF_PG_SERVER_NONE, HF_S(5), r.now), 0);
    assert_int_equal(hf_pg_servers_switchover(r.s, HF_PG_SERVER_NONE, HF_S(5), r.now), -EBUSY);
    run(&r, HF_MS(1));
    hf_pg_servers_at_rest(r.s, 1, r.now);
    run(&r, HF_MS(1));
    story(&r, "- switchover: none -> freezing\n"
              "freeze\n");
    hf_pg_servers_at_rest(r.s, 0, r.now);
    run(&r, HF_MS(10));
    story(&r, "- switchover: freezing -> frozen\n");
    r.server[0].refused = true;
    r.server[1].facts = facts(false, 2, 720, 20);
    run(&r, HF_MS(10)); /* probed every 5 ms */
    story(&r, "! alpha: primary -> down: connection refused\n"
              "! beta: standby -> closed: its fence is being read\n"
              "- beta is the primary: timeline 2, fence 720\n"
              "- beta: closed -> primary\n"
              "- switchover: frozen -> attaching\n"
              "gone 0: another server is the primary now\n"
              "gone 1: another server is the primary now\n"
              "login 0 at beta\n"
              "attach 0, fence 720, exclusive\n"
              "login 1 at beta\n"
              "attach 1, fence 720, exclusive\n");
    hf_pg_servers_recovered(r.s, &r.seat[0], r.now);
    hf_pg_servers_recovered(r.s, &r.seat[1], r.now);
    run(&r, HF_MS(10));
    story(&r, "thaw\n"
              "- switchover: attaching -> none\n");
    rig_fini(&r);
}

static void the_manager_promotes_the_target(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &(struct hf_pg_servers_conf){0}, 2, 1);
    assert_int_equal(hf_pg_servers_switchover(r.s, 1, HF_S(5), r.now), -EPERM);
    rig_fini(&r);
    begin(&r, &exclusive, 2, 1);
    assert_int_equal(hf_pg_servers_switchover(r.s, 0, HF_S(5), r.now), -HF_ENOTREADY);
    r.server[0].facts.lsn = 0x2000; /* the standby lags */
    assert_int_equal(hf_pg_servers_switchover(r.s, 1, HF_S(5), r.now), 0);
    run(&r, 0);
    hf_pg_servers_at_rest(r.s, 0, r.now);
    run(&r, HF_MS(10));
    story(&r, "- switchover: none -> freezing\n"
              "freeze\n"
              "- switchover: freezing -> frozen\n");
    r.server[1].facts.lsn = 0x2000;
    run(&r, HF_MS(4));
    story(&r, "promote beta\n"
              "! alpha: primary -> closed: an older timeline: another server was promoted\n"
              "gone 0: another server is being promoted\n");
    r.server[1].facts = facts(false, 2, 720, 20);
    run(&r, HF_MS(4));
    story(&r, "! beta: standby -> closed: its fence is being read\n"
              "- beta is the primary: timeline 2, fence 720\n"
              "- beta: closed -> primary\n"
              "- switchover: frozen -> attaching\n"
              "login 0 at beta\n"
              "attach 0, fence 720, exclusive\n");
    rig_fini(&r);

    /* refused: the old one goes on */
    begin(&r, &exclusive, 2, 1);
    assert_int_equal(hf_pg_servers_switchover(r.s, 1, HF_S(5), r.now), 0);
    run(&r, 0);
    hf_pg_servers_at_rest(r.s, 0, r.now);
    run(&r, HF_MS(4));
    forget(&r);
    hf_pg_servers_promote_failed(r.s, 1, "permission denied", r.now);
    run(&r, HF_MS(4));
    story(&r, "! beta can't be promoted: permission denied\n"
              "! switchover: given up\n"
              "- switchover: frozen -> none\n"
              "- alpha: closed -> primary\n"
              "thaw\n"
              "login 0 at alpha\n"
              "attach 0, same\n");
    rig_fini(&r);

    /* no answer: nobody writes to the old one any more */
    begin(&r, &exclusive, 2, 1);
    assert_int_equal(hf_pg_servers_switchover(r.s, 1, HF_S(5), r.now), 0);
    run(&r, 0);
    hf_pg_servers_at_rest(r.s, 0, r.now);
    run(&r, HF_S(10));
    assert_int_equal(hf_pg_servers_switch_state(r.s), HF_PG_SWITCH_NONE);
    assert_int_equal(hf_pg_servers_primary(r.s), HF_PG_SERVER_NONE);
    rig_fini(&r);
}

static void a_switchover_that_takes_too_long_is_given_up(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 2, 1);
    assert_int_equal(hf_pg_servers_switchover(r.s, HF_PG_SERVER_NONE, HF_S(5), r.now), 0);
    run(&r, 0);
    forget(&r);
    run(&r, HF_S(6));
    story(&r, "! switchover: given up\n"
              "- switchover: freezing -> none\n"
              "thaw\n");
    assert_int_equal(hf_pg_servers_counters(r.s)->switchovers_failed, 1);
    assert_int_equal(hf_pg_servers_switch_state(r.s), HF_PG_SWITCH_NONE);
    rig_fini(&r);
}

static void a_switchover_is_cancelled(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 2, 1);
    hf_pg_servers_switchover_cancel(r.s, r.now); /* none is under way */
    assert_int_equal(hf_pg_servers_switchover(r.s, HF_PG_SERVER_NONE, HF_S(5), r.now), 0);
    run(&r, 0);
    forget(&r);
    hf_pg_servers_switchover_cancel(r.s, r.now);
    run(&r, 0);
    assert_non_null(strstr(r.log, "thaw\n"));
    assert_int_equal(hf_pg_servers_switch_state(r.s), HF_PG_SWITCH_NONE);
    rig_fini(&r);
}

static void a_reload_of_the_limits(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 2, 1);
    struct hf_pg_servers_conf other = exclusive;
    other.health_interval = HF_S(100);
    other.health_timeout = HF_S(300);
    hf_pg_servers_reconf(r.s, &other, r.now);
    run(&r, HF_S(10)); /* what was due before */
    unsigned before = r.n_probes;
    run(&r, HF_S(50));
    assert_true(r.n_probes - before <= 2);
    rig_fini(&r);
}

/* ---- the list ---- */

static void a_reload_keeps_what_stays(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 2, 1);
    struct hf_pg_server_conf list[HF_PG_SERVERS_MAX + 1];
    memset(list, 0, sizeof(list));
    char name[HF_PG_SERVERS_MAX + 1][8];
    for (unsigned i = 0; i <= HF_PG_SERVERS_MAX; i++) {
        (void)snprintf(name[i], sizeof(name[i]), "s%u", i);
        list[i] = (struct hf_pg_server_conf){.name = name[i], .address = ""};
    }
    assert_int_equal(hf_pg_servers_set(r.s, list, HF_PG_SERVERS_MAX + 1, r.now), -HF_EFULL);
    assert_int_equal(hf_pg_servers_find(r.s, "beta"), 1);
    list[0] = (struct hf_pg_server_conf){.name = "beta", .address = "10.0.0.2"};
    assert_int_equal(hf_pg_servers_set(r.s, list, 1, r.now), 0);
    run(&r, HF_S(1));
    story(&r, "! alpha: primary -> down: not in the list any more\n"
              "reset alpha\n"
              "gone 0: the server is not in the list any more\n");
    assert_int_equal(hf_pg_servers_find(r.s, "alpha"), HF_PG_SERVER_NONE);
    r.server[1].facts = facts(false, 2, 720, 20);
    run(&r, HF_S(1));
    assert_int_equal(r.seat[0].server, 1);
    rig_fini(&r);
}

/* Renamed while somebody commits: a fence read now would be that of no start at all. */
static void a_server_that_is_listed_anew_is_on_the_same_start(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, &exclusive, 1, 1);
    struct hf_pg_server_conf list = {.name = "alpha2", .address = "10.0.0.1"};
    assert_int_equal(hf_pg_servers_set(r.s, &list, 1, r.now), 0);
    r.server[1].facts = r.server[0].facts; /* it has this number in the list now */
    run(&r, HF_S(1));
    story(&r, "! alpha: primary -> down: not in the list any more\n"
              "reset alpha\n"
              "- alpha2: unknown -> primary\n"
              "gone 0: the server is not in the list any more\n"
              "login 0 at beta\n"
              "attach 0, same\n");
    rig_fini(&r);
}

static void without_memory_there_are_none(void **state)
{
    (void)state;
    struct hf_pg_servers *s;
    hf_mem_fail_after(0);
    assert_int_equal(hf_pg_servers_create(&exclusive, 0, &s), -ENOMEM);
    hf_mem_fail_after(-1);
    hf_pg_servers_destroy(NULL);
}

/* ---- what servers say ---- */

#define ANSWER "f on 7710567604546397841 3 3 0:725 1795256418907928 726 1/1512660 0/0 12,13"

static void facts_are_read(void **state)
{
    (void)state;
    struct hf_pg_server_facts f;
    assert_int_equal(hf_pg_server_facts_parse(hf_slice_str(ANSWER), &f), 0);
    assert_false(f.in_recovery);
    assert_true(f.autovacuum);
    assert_int_equal(f.sysid, 7710567604546397841);
    assert_int_equal(f.timeline, 3);
    assert_int_equal(f.started, 1795256418907928);
    assert_int_equal(f.xmax, 725); /* the checkpoint's, as it is of this timeline */
    assert_int_equal(f.lsn, 0x101512660);
    assert_int_equal(f.n_aux, 2);
    assert_int_equal(f.aux[1], 13);
    assert_int_equal(
        hf_pg_server_facts_parse(hf_slice_str("t off -5 3 2 1:725 17 4294968021 0/0 A/FF 0"), &f),
        0);
    assert_true(f.in_recovery);
    assert_int_equal(f.sysid, (uint64_t)-5);
    assert_int_equal(f.xmax, (1ULL << 32) + 725);
    assert_int_equal(f.received, 0xA000000ffULL);
    assert_int_equal(f.n_aux, 0);
    for (size_t n = 0; n < sizeof(ANSWER) - 5; n++) {
        char *copy = test_malloc(n + 1);
        memcpy(copy, ANSWER, n);
        assert_int_equal(hf_pg_server_facts_parse(hf_slice(copy, n), &f), -HF_EMALF);
        test_free(copy);
    }
    assert_int_equal(hf_pg_server_facts_parse(hf_slice_str(ANSWER " "), &f), -HF_EMALF);
    assert_int_equal(
        hf_pg_server_facts_parse(hf_slice_str("f on 99999999999999999999 3 3 0:7 1 7 0/0 "
                                              "0/0 1"),
                                 &f),
        -HF_EMALF);
    assert_true(strlen(hf_pg_servers_query()) > 100);
}

static void fences_are_read(void **state)
{
    (void)state;
    struct hf_pg_fence f;
    assert_int_equal(hf_pg_fence_parse("sysid=77 timeline=2 xmax=900 lsn=0/5", &f), 0);
    assert_int_equal(f.sysid, 77);
    assert_int_equal(f.timeline, 2);
    assert_int_equal(f.xmax, 900);
    assert_int_equal(f.after, 0);
    assert_int_equal(hf_pg_fence_parse("sysid=77 timeline=2 xmax=900 after=6", &f), 0);
    assert_int_equal(f.after, 6);
    assert_int_equal(hf_pg_fence_parse("sysid=77 timeline=2 xmax=900 after=x", &f), 0);
    assert_int_equal(f.after, 0);
    static const char *const bad[] = {"",
                                      "sysid=",
                                      "sysid=7 timeline=2",
                                      "sysid=7 timeline=2 xmax=",
                                      "sysid=7 timeline=2 xmax=9x",
                                      "xmax=9",
                                      "after=6"};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        assert_int_equal(hf_pg_fence_parse(bad[i], &f), -HF_EMALF);
    }
    assert_string_equal(hf_pg_server_state_name(HF_PG_SERVER_STANDBY), "standby");
    assert_string_equal(hf_pg_switch_state_name(HF_PG_SWITCH_FROZEN), "frozen");
}

/* ---- sessions from another manager ---- */

/* A server as both managers see it, restarted in place: pg_postmaster_start_time() stays. */
static void restart_in_place(struct rig *r, uint32_t aux)
{
    r->server[0].facts.aux[0] = aux;
    r->server[0].facts.aux[1] = aux + 1;
}

/* What `to` calls the start that is `incarnation` for `from`. */
static uint64_t brought(const struct rig *from, uint64_t incarnation, const struct rig *to)
{
    uint8_t buf[HF_PG_IDENTITY_MAX];
    size_t n = hf_pg_servers_identity(from->s, incarnation, buf);
    assert_true(n > 0);
    return hf_pg_servers_known(to->s, hf_slice(buf, n));
}

/* A session that lost this one is served. */
static void load(struct rig *r, unsigned i, uint64_t lost)
{
    forget(r);
    hf_pg_servers_need(r->s, &r->seat[i], HF_PG_READ_WRITE, false, lost, r->now);
    run(r, HF_MS(1));
}

static void the_same_start_has_another_number_there(void **state)
{
    (void)state;
    struct rig a, b;
    uint8_t buf[HF_PG_IDENTITY_MAX];
    begin(&b, &(struct hf_pg_servers_conf){0}, 2, 0);
    restart_in_place(&b, 40);
    run(&b, HF_S(2));
    begin(&a, &exclusive, 2, 1);
    a.server[0].facts = b.server[0].facts;
    a.server[0].facts.n_aux = b.server[0].facts.n_aux = 3;
    a.server[0].facts.aux[2] = 70;
    b.server[0].facts.aux[2] = 80; /* autovacuum's launcher, between two probes */
    b.server[0].facts.xmax = 9000;
    run(&a, HF_S(2));
    run(&b, HF_S(2));
    assert_int_equal(a.seat[0].incarnation, 3);
    restart_in_place(&b, 50);
    assert_int_equal(brought(&a, a.seat[0].incarnation, &b), 3);
    b.server[0].facts.aux[0] = 40; /* no: it is still that one */
    load(&b, 0, brought(&a, a.seat[0].incarnation, &b));
    story(&b, "login 0 at alpha\n"
              "attach 0, same\n");
    assert_int_equal(hf_pg_servers_identity(a.s, 99, buf), 0);
    assert_int_equal(hf_pg_servers_identity(a.s, HF_PG_INCARNATION_UNKNOWN, buf), 0);
    rig_fini(&a);
    rig_fini(&b);
}

static void a_start_that_ended_is_found_in_the_history(void **state)
{
    (void)state;
    struct rig a, b;
    rig_init(&a, &in_group, 1);
    rig_init(&b, &in_group, 1);
    b.server[0].facts.n_aux = 3;
    b.server[0].facts.aux[2] = 12;
    a.server[0].facts = b.server[0].facts;
    group_says(&a, 4, 1, "10.0.0.1", "sysid=4711 timeline=1 xmax=733");
    group_says(&b, 4, 1, "10.0.0.1", "sysid=4711 timeline=1 xmax=733");
    run(&a, HF_S(2));
    run(&b, HF_S(2));
    restart_in_place(&b, 90);
    b.server[0].facts.aux[2] = 92;
    group_says(&b, 4, 2, "10.0.0.1", "sysid=4711 timeline=1 xmax=760");
    run(&b, HF_S(2));
    restart_in_place(&b, 94);
    b.server[0].facts.aux[2] = 12; /* a number of the first start's */
    group_says(&b, 4, 3, "10.0.0.1", "sysid=4711 timeline=1 xmax=780");
    run(&b, HF_S(2));
    assert_int_equal(brought(&a, 1, &b), 1);
    load(&b, 0, brought(&a, 1, &b));
    story(&b, "login 0 at alpha\n"
              "attach 0, fence 760\n");
    rig_fini(&a);
    rig_fini(&b);
}

static void a_promotion_was_seen_before_the_session_came(void **state)
{
    (void)state;
    struct rig a, b;
    rig_init(&a, &in_group, 2);
    rig_init(&b, &in_group, 2);
    a.server[1].sqlstate = b.server[1].sqlstate = "28000";
    group_says(&a, 4, 7, "10.0.0.1", "sysid=4711 timeline=1 xmax=733");
    group_says(&b, 4, 7, "10.0.0.1", "sysid=4711 timeline=1 xmax=733");
    run(&a, HF_S(2));
    run(&b, HF_S(2));
    b.server[0].silent = true;
    b.server[1].sqlstate = NULL;
    b.server[1].facts = facts(false, 2, 800, 20);
    group_says(&b, 4, 8, "10.0.0.2", "sysid=4711 timeline=2 xmax=790");
    run(&b, HF_S(5));
    load(&b, 0, brought(&a, 1, &b));
    story(&b, "login 0 at beta\n"
              "attach 0, fence 790\n");
    /* known as what it is now, and lost a moment later */
    assert_int_equal(brought(&b, hf_pg_servers_primary(b.s) + 1, &a), HF_PG_INCARNATION_UNKNOWN);
    uint64_t lost = b.seat[0].incarnation;
    b.server[1].facts.started = 3000;
    group_says(&b, 4, 9, "10.0.0.2", "sysid=4711 timeline=2 xmax=810");
    load(&b, 1, lost);
    assert_non_null(strstr(b.log, "attach 1, fence 810\n"));
    rig_fini(&a);
    rig_fini(&b);
}

static void what_was_not_seen_here_is_not_known(void **state)
{
    (void)state;
    struct rig a, b;
    rig_init(&a, &in_group, 1);
    group_says(&a, 4, 7, "10.0.0.1", "sysid=4711 timeline=1 xmax=733");
    run(&a, HF_S(2));
    /* it began after that start had ended */
    rig_init(&b, &in_group, 1);
    restart_in_place(&b, 90);
    group_says(&b, 4, 8, "10.0.0.1", "sysid=4711 timeline=1 xmax=760");
    run(&b, HF_S(2));
    assert_true(brought(&a, 1, &b) == HF_PG_INCARNATION_UNKNOWN);
    load(&b, 0, HF_PG_INCARNATION_UNKNOWN);
    story(&b, "login 0 at alpha\n"
              "attach 0\n");
    rig_fini(&b);
    /* it has seen that start, but not as the primary: nobody knows what came before the next one */
    rig_init(&b, &in_group, 1);
    run(&b, HF_S(2));
    uint64_t lost = brought(&a, 1, &b);
    assert_int_equal(lost, 1);
    restart_in_place(&b, 90);
    group_says(&b, 4, 9, "10.0.0.1", "sysid=4711 timeline=1 xmax=790");
    run(&b, HF_S(2));
    load(&b, 0, lost);
    story(&b, "login 0 at alpha\n"
              "attach 0\n");
    rig_fini(&a);
    rig_fini(&b);
}

static void a_standby_is_another_start_when_it_is_promoted(void **state)
{
    (void)state;
    struct rig a, b;
    begin(&a, &exclusive, 2, 0);
    begin(&b, &exclusive, 2, 0);
    want(&a, 0, HF_PG_READ_ONLY);
    run(&a, HF_S(1));
    uint64_t there = a.seat[0].incarnation;
    assert_int_equal(brought(&a, there, &b), 2);
    b.server[0].refused = true;
    b.server[1].facts.in_recovery = false; /* the processes stay */
    b.server[1].facts.timeline = 2;
    run(&b, HF_S(2));
    assert_int_equal(hf_pg_servers_primary(b.s), 1);
    assert_true(brought(&a, there, &b) == HF_PG_INCARNATION_UNKNOWN);
    rig_fini(&a);
    rig_fini(&b);
}

static void the_history_has_an_end(void **state)
{
    (void)state;
    struct rig a, b;
    uint8_t buf[HF_PG_IDENTITY_MAX];
    begin(&a, &exclusive, 1, 0);
    begin(&b, &exclusive, 1, 0);
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(brought(&a, 1, &b), 1);
        restart_in_place(&b, 200 + 2 * i);
        run(&b, HF_S(2));
        forget(&b);
    }
    assert_true(brought(&a, 1, &b) == HF_PG_INCARNATION_UNKNOWN);
    assert_int_equal(hf_pg_servers_identity(b.s, 1, buf), 0);
    assert_true(hf_pg_servers_identity(b.s, 2, buf) > 0);
    rig_fini(&a);
    rig_fini(&b);
}

static void an_identity_is_read_whole_or_not(void **state)
{
    (void)state;
    struct rig r;
    uint8_t buf[HF_PG_IDENTITY_MAX + 1];
    rig_init(&r, &exclusive, 1);
    r.server[0].facts.sysid = 0xf123456789abcdef;
    r.server[0].facts.n_aux = HF_PG_AUX_MAX;
    run(&r, HF_S(2));
    size_t n = hf_pg_servers_identity(r.s, 1, buf);
    assert_int_equal(n, HF_PG_IDENTITY_MAX);
    assert_int_equal(hf_pg_servers_known(r.s, hf_slice(buf, n)), 1);
    for (size_t i = 0; i <= n + 1; i++) {
        uint8_t *copy = test_malloc(i + 1);
        memcpy(copy, buf, i);
        assert_true((hf_pg_servers_known(r.s, hf_slice(copy, i)) == 1) == (i == n));
        test_free(copy);
    }
    static const struct {
        size_t at;
        uint8_t value;
    } bad[] = {{0, 2}, {1, 0}, {13, 1}, {13, 2}, {22, 15}, {22, 17}, {22, 255}};
    for (size_t i = 0; i < HF_ARRAY_LEN(bad); i++) {
        uint8_t before = buf[bad[i].at];
        buf[bad[i].at] = bad[i].value;
        assert_true(hf_pg_servers_known(r.s, hf_slice(buf, n)) == HF_PG_INCARNATION_UNKNOWN);
        buf[bad[i].at] = before;
    }
    rig_fini(&r);
}

/* While another manager writes this one's fences would come too late. */
static void a_backup_takes_no_fences(void **state)
{
    (void)state;
    for (int seen = 0; seen < 2; seen++) {
        struct rig r;
        begin(&r, &(struct hf_pg_servers_conf){0}, 1, 0);
        restart_in_place(&r, 90);
        run(&r, HF_S(2));
        forget(&r);
        hf_pg_servers_reconf(r.s, &exclusive, r.now); /* it takes over */
        assert_int_equal(hf_pg_servers_primary(r.s), 0);
        run(&r, 0);
        story(&r, "");
        run(&r, seen ? HF_S(2) : 0);
        uint64_t lost = hf_pg_servers_known(r.s, (struct hf_slice){0});
        assert_true(lost == HF_PG_INCARNATION_UNKNOWN);
        /* it had restarted already, and the other one had written: who did not look can't know */
        restart_in_place(&r, 94);
        r.server[0].facts.xmax = 800;
        load(&r, 0, 2);
        story(&r, seen ? "! alpha: primary -> closed: its fence is being read\n"
                         "- alpha is the primary: timeline 1, fence 800\n"
                         "- alpha: closed -> primary\n"
                         "login 0 at alpha\n"
                         "attach 0, fence 800, exclusive\n"
                       : "! alpha: primary -> closed: its fence is being read\n"
                         "! alpha is the primary: timeline 1, no fence: commits in doubt stay so\n"
                         "- alpha: closed -> primary\n"
                         "login 0 at alpha\n"
                         "attach 0\n");
        /* further back there is one that was not fenced */
        hf_pg_servers_recovered(r.s, &r.seat[0], r.now);
        load(&r, 1, 1);
        story(&r, "login 1 at alpha\n"
                  "attach 1\n");
        rig_fini(&r);
    }
}

/* The word of the new reign comes after the server itself: the fence is of the former start, and
 * all that it committed is beyond that. */
static void a_fence_is_of_one_start_only(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r, &in_group, 1);
    want(&r, 0, HF_PG_READ_WRITE);
    group_says(&r, 4, 1, "10.0.0.1", "sysid=4711 timeline=1 xmax=733");
    run(&r, HF_S(2));
    forget(&r);
    restart_in_place(&r, 90);
    lose(&r, 0);
    run(&r, HF_MS(1));
    story(&r, "! alpha is the primary: timeline 1, no fence: commits in doubt stay so\n"
              "login 0 at alpha\n"
              "attach 0\n");
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_primary_is_opened_when_its_fence_is_read),
        cmocka_unit_test(a_connection_lost_on_the_same_start),
        cmocka_unit_test(a_restart_in_place_is_another_incarnation),
        cmocka_unit_test(the_window_ends_by_itself),
        cmocka_unit_test(a_login_that_lands_on_a_later_start_is_not_attached),
        cmocka_unit_test(a_new_connection_waits_until_it_is_known_on_which_start_it_is),
        cmocka_unit_test(a_connection_that_was_there_before_needs_no_probe_of_its_own),
        cmocka_unit_test(a_standby_is_promoted),
        cmocka_unit_test(an_old_primary_is_not_taken_even_alone),
        cmocka_unit_test(two_primaries_are_none),
        cmocka_unit_test(another_database_is_no_primary),
        cmocka_unit_test(without_exclusive_there_is_no_fence),
        cmocka_unit_test(the_smallest_fence_since_counts),
        cmocka_unit_test(they_wait_in_order_and_not_for_ever),
        cmocka_unit_test(the_gate_is_opened_without_a_stampede),
        cmocka_unit_test(logins_that_fail_are_not_tried_in_a_loop),
        cmocka_unit_test(a_dead_host_does_not_answer),
        cmocka_unit_test(nobody_waits_for_ever_on_a_dead_primary),
        cmocka_unit_test(nobody_is_attached_to_a_primary_that_was_demoted),
        cmocka_unit_test(a_server_that_starts_is_asked_often),
        cmocka_unit_test(a_group_names_the_primary_and_its_fence),
        cmocka_unit_test(a_group_that_switches_is_followed),
        cmocka_unit_test(clients_are_held_though_the_first_step_was_missed),
        cmocka_unit_test(a_group_restarts_its_primary_in_place),
        cmocka_unit_test(without_quorum_nobody_is_let_in),
        cmocka_unit_test(readers_go_where_there_are_fewest),
        cmocka_unit_test(a_server_is_drained),
        cmocka_unit_test(readers_are_balanced_without_swinging),
        cmocka_unit_test(readers_leave_the_primary_for_a_standby),
        cmocka_unit_test(a_planned_switchover),
        cmocka_unit_test(the_manager_promotes_the_target),
        cmocka_unit_test(a_switchover_that_takes_too_long_is_given_up),
        cmocka_unit_test(a_switchover_is_cancelled),
        cmocka_unit_test(a_reload_of_the_limits),
        cmocka_unit_test(a_reload_keeps_what_stays),
        cmocka_unit_test(a_server_that_is_listed_anew_is_on_the_same_start),
        cmocka_unit_test(without_memory_there_are_none),
        cmocka_unit_test(the_same_start_has_another_number_there),
        cmocka_unit_test(a_start_that_ended_is_found_in_the_history),
        cmocka_unit_test(a_promotion_was_seen_before_the_session_came),
        cmocka_unit_test(what_was_not_seen_here_is_not_known),
        cmocka_unit_test(a_standby_is_another_start_when_it_is_promoted),
        cmocka_unit_test(the_history_has_an_end),
        cmocka_unit_test(an_identity_is_read_whole_or_not),
        cmocka_unit_test(a_backup_takes_no_fences),
        cmocka_unit_test(a_fence_is_of_one_start_only),
        cmocka_unit_test(facts_are_read),
        cmocka_unit_test(fences_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
