/* core/sip/decide: every line of the table, and what stands in its way. */
#include <stdio.h>
#include <string.h>

#include "core/sip/decide.h"
#include "support/test.h"

enum { ALPHA, BETA, GAMMA, N_SERVERS }; /* ALPHA decides */

static struct hf_sip_fleet *fleet;

static void server(uint16_t i, enum hf_sip_server_state s, bool busy)
{
    hf_sip_fleet_set(
        fleet, i,
        &(struct hf_sip_server){.state = (uint8_t)s, .homes = true, .busy = busy, .weight = 1});
}

static int set_up(void **state)
{
    (void)state;
    static const char *const names[] = {"alpha", "beta", "gamma"};
    int r = hf_sip_fleet_create(&fleet);
    for (uint16_t i = 0; r == 0 && i < N_SERVERS; i++) {
        uint16_t no;
        r = hf_sip_fleet_add(fleet, hf_slice_str(names[i]), &no);
        server(i, HF_SIP_SERVER_LIVE, false);
    }
    return r;
}

static int tear_down(void **state)
{
    (void)state;
    hf_sip_fleet_destroy(fleet);
    return 0;
}

/* An internal REGISTER with good credentials, whose AoR has no row in the cache. */
static struct hf_sip_facts request(void)
{
    return (struct hf_sip_facts){
        .role = HF_SIP_ROLE_HOME,
        .self = ALPHA,
        .fleet = fleet,
        .kind = HF_SIP_KIND_REGISTER,
        .aor = hf_slice_str("sip:ann@example.org"),
        .n_via = 1,
        .max_forwards = 70,
        .credentials = true,
        .authenticated = true,
        .must_authenticate = true,
        .policy = HF_SIP_POLICY_REDIRECT,
        .agent_id = 5,
        .random = 1u << 31,
    };
}

static struct hf_sip_facts homed(uint16_t at, uint64_t epoch)
{
    struct hf_sip_facts f = request();
    f.have_row = true;
    f.row = (struct hf_sip_row){.aor = f.aor, .home = at, .current = at, .epoch = epoch};
    return f;
}

static struct hf_sip_facts unknown_caller(struct hf_sip_facts f)
{
    f.credentials = f.authenticated = false;
    return f;
}

static struct hf_sip_facts by_peer(struct hf_sip_facts f, uint8_t hop, uint64_t epoch)
{
    f.from_peer = true;
    f.n_via = 2;
    f.mark = (struct hf_sip_mark){.hop = hop, .epoch = epoch};
    return f;
}

static struct hf_sip_verdict is(const struct hf_sip_facts *f, enum hf_sip_rule want)
{
    struct hf_sip_verdict v;
    hf_sip_decide(f, &v);
    if (v.rule != want) {
        print_error("%s instead of %s\n", hf_sip_rule_name(v.rule), hf_sip_rule_name(want));
    }
    assert_int_equal(v.rule, want);
    if (v.action == HF_SIP_REDIRECT || v.action == HF_SIP_PROXY || v.action == HF_SIP_ASSIGN) {
        assert_int_not_equal(v.target, HF_SIP_NONE);
    } else {
        assert_int_equal(v.target, HF_SIP_NONE);
    }
    assert_int_equal(v.retry_after > 0, v.status == 503 || v.status == 500);
    return v;
}
#define IS(f, rule) is(&(f), HF_SIP_RULE_##rule)

static void test_not_the_tables_business(void **state)
{
    (void)state;
    struct hf_sip_facts f = homed(BETA, 3);
    f.kind = HF_SIP_KIND_DIALOG;
    f.shed = HF_SIP_SHED_ALL;
    assert_int_equal(IS(f, ROUTE).action, HF_SIP_PASS);
    f = homed(ALPHA, 3);
    f.n_via = 0;
    assert_int_equal(IS(f, NO_VIA).status, 400);
}

static void test_shedding(void **state)
{
    (void)state;
    struct hf_sip_facts f = homed(ALPHA, 3);
    f.shed = HF_SIP_SHED_NEW;
    (void)IS(f, MINE); /* who was challenged comes first */
    f = unknown_caller(f);
    assert_int_equal(IS(f, OVERLOADED).status, 503);
    f.from_edge = true; /* all that it has would go elsewhere */
    assert_int_equal(IS(f, OVERLOADED).status, 500);
    assert_int_not_equal(IS(f, OVERLOADED).retry_after, 0);
    f.role = HF_SIP_ROLE_EDGE; /* our own client, who may try another edge */
    assert_int_equal(IS(f, OVERLOADED).status, 503);
    f = homed(ALPHA, 3);
    f.shed = HF_SIP_SHED_ALL;
    (void)IS(f, OVERLOADED);
    f.from_edge = true;
    assert_int_equal(IS(f, OVERLOADED).status, 503);
}

static void test_without_a_row(void **state)
{
    (void)state;
    struct hf_sip_facts f = unknown_caller(request());
    assert_int_equal(IS(f, ASK_FIRST).action, HF_SIP_CHALLENGE);
    f.away = true; /* nothing is told to him, not even that */
    (void)IS(f, ASK_FIRST);
    f = request();
    assert_int_equal(IS(f, LOOK_UP).action, HF_SIP_READ);
    f.away = true;
    assert_int_equal(IS(f, NO_TABLE).status, 503);
    f.read = true; /* it went away when the row was to be inserted */
    (void)IS(f, NO_TABLE);
    f.read = false;
    f.away = false;
    f.read = true;
    struct hf_sip_verdict v = IS(f, GIVE_HOME);
    assert_int_equal(v.target, hf_sip_fleet_choose(fleet, f.aor));
    assert_int_equal(v.epoch, 1);
    f = by_peer(f, 1, 7); /* who remembers more of it than SQL does */
    assert_int_equal(IS(f, GIVE_HOME).epoch, 8);
    f.mark.epoch = UINT64_MAX; /* nonsense */
    assert_int_equal(IS(f, GIVE_HOME).epoch, 1);
    for (uint16_t i = 0; i < N_SERVERS; i++) {
        server(i, HF_SIP_SERVER_DRAINING, false);
    }
    assert_int_equal(IS(f, NO_SERVER).status, 503);
}

static void test_a_call_gives_no_home(void **state)
{
    (void)state;
    struct hf_sip_facts f = request();
    f.kind = HF_SIP_KIND_CALL;
    f.read = true;
    assert_int_equal(IS(f, NO_USER).status, 480);
    f.user_known = true;
    (void)IS(f, NO_USER);
    f.kind = HF_SIP_KIND_STATE; /* who is watched needs a home, if he is a user */
    (void)IS(f, GIVE_HOME);
    f.user_known = false;
    (void)IS(f, NO_USER);
}

static void test_edge_without_a_row(void **state)
{
    (void)state;
    struct hf_sip_facts f = request();
    f.role = HF_SIP_ROLE_EDGE;
    f.read = true;
    struct hf_sip_verdict v = IS(f, EDGE_PASSES);
    assert_int_equal(v.mark.hop, 1);
    assert_int_equal(v.mark.epoch, 0);
    f = by_peer(f, 2, 3);
    (void)IS(f, LAST_HOP);
    f.mark.hop = 1;
    f.max_forwards = 0;
    assert_int_equal(IS(f, NO_HOPS).status, 483);
}

/* D3 */
static void test_mine(void **state)
{
    (void)state;
    struct hf_sip_facts f = homed(ALPHA, 3);
    struct hf_sip_verdict v = IS(f, MINE);
    assert_int_equal(v.action, HF_SIP_SERVE);
    assert_int_equal(v.epoch, 3);
    f.away = true;
    (void)IS(f, MINE);
    f = unknown_caller(f);
    (void)IS(f, MINE_ASK);
    f.must_authenticate = false;
    (void)IS(f, MINE);
    f = by_peer(homed(ALPHA, 3), 1, 3);
    (void)IS(f, MINE);
    f.mark.hop = 2;
    (void)IS(f, MINE);
    server(ALPHA, HF_SIP_SERVER_DRAINING, false);
    (void)IS(f, MINE);
}

static void test_mine_but_older_than_a_peers(void **state)
{
    (void)state;
    struct hf_sip_facts f = by_peer(homed(ALPHA, 3), 1, 4);
    assert_int_equal(IS(f, MINE_OLD).action, HF_SIP_READ);
    f.read = true;
    (void)IS(f, MINE);
    f.read = false;
    f.away = true;
    (void)IS(f, MINE);
    f.away = false;
    f.from_peer = false; /* anybody could say so (I8) */
    (void)IS(f, MINE);
}

/* D4 */
static void test_internal_redirect(void **state)
{
    (void)state;
    struct hf_sip_facts f = homed(BETA, 3);
    struct hf_sip_verdict v = IS(f, AWAY_REDIRECT);
    assert_int_equal(v.action, HF_SIP_REDIRECT);
    assert_int_equal(v.target, BETA);
    assert_int_equal(v.epoch, 3);
    assert_int_not_equal(v.backup, BETA);
    assert_int_not_equal(v.backup, HF_SIP_NONE);
    f.role = HF_SIP_ROLE_DISTRIBUTION;
    (void)IS(f, AWAY_REDIRECT);
    f = unknown_caller(f);
    (void)IS(f, AWAY_ASK);
    f.must_authenticate = false;
    (void)IS(f, AWAY_REDIRECT);
    f.max_forwards = 0; /* nothing is forwarded */
    (void)IS(f, AWAY_REDIRECT);
    f.kind = HF_SIP_KIND_CALL; /* D6 */
    (void)IS(f, AWAY_REDIRECT);
}

/* D5, D6 */
static void test_external_proxy(void **state)
{
    (void)state;
    struct hf_sip_facts f = homed(BETA, 3);
    f.n_via = 2;
    struct hf_sip_verdict v = IS(f, AWAY_PROXY);
    assert_int_equal(v.target, BETA);
    assert_int_equal(v.mark.hop, 1);
    assert_int_equal(v.mark.epoch, 3);
    f.n_via = 1;
    f.from_edge = true; /* a B2BUA has one Via only */
    (void)IS(f, AWAY_PROXY);
    f.from_edge = false;
    f.policy = HF_SIP_POLICY_PROXY;
    (void)IS(f, AWAY_PROXY);
    f = unknown_caller(f); /* S6: the home asks */
    (void)IS(f, AWAY_PROXY);
    f.policy = HF_SIP_POLICY_REDIRECT;
    f.role = HF_SIP_ROLE_EDGE;
    (void)IS(f, AWAY_PROXY);
    f.max_forwards = 0;
    (void)IS(f, NO_HOPS);
}

static void test_auto(void **state)
{
    (void)state;
    struct hf_sip_facts f = homed(BETA, 3);
    f.policy = HF_SIP_POLICY_AUTO;
    f.row.agent_id = f.agent_id;
    assert_true(IS(f, AWAY_PROXY).mark.offer); /* unknown */
    f.row.agent = HF_SIP_AGENT_IGNORES;
    (void)IS(f, AWAY_PROXY);
    f.row.agent = HF_SIP_AGENT_OFFERED;
    (void)IS(f, AWAY_PROXY);
    f.row.agent = HF_SIP_AGENT_FOLLOWS;
    (void)IS(f, AWAY_REDIRECT);
    f.agent_id = 6; /* that was another device */
    (void)IS(f, AWAY_PROXY);
    f.agent_id = 5;
    f.kind = HF_SIP_KIND_CALL;
    assert_false(IS(f, AWAY_PROXY).mark.offer);
}

/* S6: the offer comes from the home, at a refresh, while the binding has half its life. */
static void test_offer(void **state)
{
    (void)state;
    struct hf_sip_facts f = by_peer(homed(ALPHA, 3), 1, 3);
    f.mark.offer = true;
    f.row.agent_id = 5;
    (void)IS(f, MINE); /* its first REGISTER: nothing to lose it from */
    f.binding_life = HF_S(3600);
    f.binding_left = HF_S(1799);
    (void)IS(f, MINE);
    f.binding_left = HF_S(1800);
    struct hf_sip_verdict v = IS(f, MINE_OFFER);
    assert_int_equal(v.target, ALPHA);
    assert_true(v.learn);
    assert_int_equal(v.agent, HF_SIP_AGENT_OFFERED);
    struct hf_sip_facts g = unknown_caller(f);
    (void)IS(g, MINE_ASK);
    g = f;
    g.mark.hop = 2; /* to follow from here would be one server too many */
    (void)IS(g, MINE);
    g = f;
    g.mark.offer = false;
    assert_false(IS(g, MINE).learn);
    /* it comes the old way again */
    f.row.agent = HF_SIP_AGENT_OFFERED;
    v = IS(f, MINE);
    assert_true(v.learn);
    assert_int_equal(v.agent, HF_SIP_AGENT_IGNORES);
    f.row.agent = HF_SIP_AGENT_IGNORES;
    assert_false(IS(f, MINE).learn);
    /* or it follows */
    g = homed(ALPHA, 3);
    g.policy = HF_SIP_POLICY_AUTO;
    g.carried = 3;
    g.redirected = true;
    v = IS(g, MINE);
    assert_true(v.learn);
    assert_int_equal(v.agent, HF_SIP_AGENT_FOLLOWS);
    g.row.agent_id = g.agent_id;
    g.row.agent = HF_SIP_AGENT_FOLLOWS;
    assert_false(IS(g, MINE).learn);
}

/* S5, I7 */
static void test_doubt(void **state)
{
    (void)state;
    struct hf_sip_facts f = by_peer(homed(BETA, 3), 1, 3);
    assert_int_equal(IS(f, DOUBT).action, HF_SIP_READ);
    f.read = true;
    struct hf_sip_verdict v = IS(f, SECOND);
    assert_int_equal(v.target, BETA);
    assert_int_equal(v.mark.hop, 2);
    f.mark.hop = 2;
    assert_int_equal(IS(f, LAST_HOP).status, 503);
    f.mark.hop = 200;
    (void)IS(f, LAST_HOP);

    f = homed(BETA, 3);
    f.redirected = true;
    f.carried = 2;
    (void)IS(f, DOUBT);
    f.read = true;
    v = IS(f, SECOND);
    assert_int_equal(v.mark.hop, 2);
    f.redirected = false; /* long ago: it refreshes at its old home */
    (void)IS(f, AWAY_REDIRECT);
    f.read = false;
    (void)IS(f, AWAY_REDIRECT);
    f.carried = 3; /* the row that brought it here says: not here */
    (void)IS(f, DOUBT);
    f.read = true;
    (void)IS(f, AWAY_REDIRECT);
    f = homed(BETA, 3);
    f.mark = (struct hf_sip_mark){.hop = 2, .epoch = 9}; /* forged */
    (void)IS(f, AWAY_REDIRECT);
}

static void test_home_dead(void **state)
{
    (void)state;
    struct hf_sip_facts f = homed(BETA, 3);
    server(BETA, HF_SIP_SERVER_DEAD, false);
    struct hf_sip_facts g = unknown_caller(f);
    (void)IS(g, AWAY_ASK);
    (void)IS(f, DOUBT);
    f.read = true;
    assert_in_range(IS(f, GONE).retry_after, 1, 4);
    f.read = false;
    f.away = true;
    (void)IS(f, GONE);
    server(BETA, HF_SIP_SERVER_UNKNOWN, false);
    (void)IS(f, GONE);
    f.row.current = 77;
    (void)IS(f, GONE);
    f = homed(ALPHA, 3); /* homed at a server that homes nobody */
    f.role = HF_SIP_ROLE_DISTRIBUTION;
    (void)IS(f, DOUBT);
    f.read = true;
    (void)IS(f, GONE);
}

static void test_database_away(void **state)
{
    (void)state;
    struct hf_sip_facts f = homed(BETA, 3);
    f.away = true;
    (void)IS(f, AWAY_REDIRECT);
    f = by_peer(f, 1, 3);
    (void)IS(f, SECOND);
    f.mark.epoch = 2;
    (void)IS(f, SECOND);
    f.mark.epoch = 4; /* the newest that anybody knows says: here */
    struct hf_sip_verdict v = IS(f, MINE_BY_PEER);
    assert_int_equal(v.action, HF_SIP_SERVE);
    assert_int_equal(v.epoch, 4);
    f.mark.hop = 2;
    (void)IS(f, MINE_BY_PEER);
    struct hf_sip_facts g = unknown_caller(f);
    (void)IS(g, AWAY_ASK);
    f.role = HF_SIP_ROLE_DISTRIBUTION;
    (void)IS(f, LAST_HOP);
}

static void test_busy(void **state)
{
    (void)state;
    struct hf_sip_facts f = homed(BETA, 3);
    server(BETA, HF_SIP_SERVER_LIVE, true);
    assert_int_equal(IS(f, NOT_NOW).status, 503);
    struct hf_sip_facts g = unknown_caller(f);
    (void)IS(g, AWAY_ASK); /* not 503: that would tell that there is such a user */
    f.kind = HF_SIP_KIND_CALL;
    (void)IS(f, AWAY_REDIRECT);
}

static void test_retry_after(void **state)
{
    (void)state;
    assert_int_equal(hf_sip_retry_after(0, 5, 20), 5);
    assert_int_equal(hf_sip_retry_after(UINT32_MAX, 5, 20), 20);
    assert_int_equal(hf_sip_retry_after(1u << 31, 5, 20), 13);
    assert_int_equal(hf_sip_retry_after(UINT32_MAX, 3, 3), 3);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(hf_sip_rule_name(HF_SIP_RULE_AWAY_PROXY), "AWAY_PROXY");
    assert_string_equal(hf_sip_rule_name(HF_SIP_RULE_COUNT_), "?");
    assert_string_equal(hf_sip_rule_text(HF_SIP_RULE_LOOK_UP), "not cached");
    assert_string_equal(hf_sip_rule_text(HF_SIP_RULE_COUNT_), "?");
    assert_string_equal(hf_sip_action_name(HF_SIP_CHALLENGE), "challenge");
    assert_string_equal(hf_sip_action_name(HF_SIP_ACTION_COUNT_), "?");
    assert_string_equal(hf_sip_role_name(HF_SIP_ROLE_EDGE), "edge");
    assert_string_equal(hf_sip_role_name(HF_SIP_ROLE_COUNT_), "?");
    assert_string_equal(hf_sip_policy_name(HF_SIP_POLICY_AUTO), "auto");
    assert_string_equal(hf_sip_policy_name(HF_SIP_POLICY_COUNT_), "?");
}

/*
 * All combinations of what matters: whatever the facts, after READ and ASSIGN as the driver does
 * them the request ends or goes on, a marked one never further than hop 2, and READ is asked for
 * once, ASSIGN once, and neither of a database that is away.
 */
static void all_ends(struct hf_sip_facts f, uint16_t truth)
{
    bool had_row = f.have_row;
    for (unsigned n = 0;; n++) {
        struct hf_sip_verdict v;
        assert_true(n < 3);
        hf_sip_decide(&f, &v);
        if (v.action == HF_SIP_READ) {
            assert_false(f.read || f.away);
            f.read = true;
            f.have_row = had_row || truth != HF_SIP_NONE;
            if (f.have_row && truth != HF_SIP_NONE) {
                f.row.current = truth;
                f.row.epoch = 9;
            }
            continue;
        }
        if (v.action == HF_SIP_ASSIGN) {
            assert_true(f.read && !f.away && !f.have_row);
            f.have_row = true;
            f.row = (struct hf_sip_row){.current = v.target, .epoch = v.epoch};
            continue;
        }
        if (v.action == HF_SIP_PROXY) {
            assert_true(v.mark.hop == 1 || v.mark.hop == 2);
            assert_true(v.mark.hop > (f.from_peer ? f.mark.hop : 0));
            assert_true(v.target != f.self && hf_sip_fleet_alive(fleet, v.target));
        }
        if (v.action == HF_SIP_REDIRECT) {
            assert_false(f.must_authenticate && !f.authenticated);
            assert_false(f.redirected && v.rule == HF_SIP_RULE_AWAY_REDIRECT);
            assert_int_not_equal(v.backup, v.target);
        }
        if (v.action == HF_SIP_SERVE) {
            assert_int_equal(f.role, HF_SIP_ROLE_HOME);
            assert_false(f.must_authenticate && !f.authenticated);
            assert_int_not_equal(v.epoch, 0);
        }
        return;
    }
}

static void test_every_combination_ends(void **state)
{
    (void)state;
    server(GAMMA, HF_SIP_SERVER_DEAD, false);
    for (uint32_t bits = 0; bits < 1u << 21; bits++) {
        struct hf_sip_facts f = request();
        uint32_t b = bits;
#define TAKE(n)                                                                                    \
    (b & ((1u << (n)) - 1));                                                                       \
    b >>= (n)
        uint32_t role = TAKE(2);
        uint32_t row = TAKE(2);
        uint32_t truth = TAKE(2);
        uint32_t hop = TAKE(2);
        uint32_t mark_epoch = TAKE(2);
        f.kind = (enum hf_sip_kind)TAKE(1);
        f.kind = f.kind ? HF_SIP_KIND_CALL : HF_SIP_KIND_REGISTER;
        f.n_via = 1 + TAKE(1);
        f.from_edge = TAKE(1);
        f.redirected = TAKE(1);
        f.carried = TAKE(2);
        f.authenticated = TAKE(1);
        f.policy = (uint8_t)TAKE(2);
        f.away = TAKE(1);
        f.row.agent = (uint8_t)TAKE(1);
#undef TAKE
        if (role == 3 || f.policy == 3) {
            continue;
        }
        f.role = (uint8_t)role;
        hf_sip_fleet_set(fleet, ALPHA,
                         &(struct hf_sip_server){.state = HF_SIP_SERVER_LIVE,
                                                 .homes = role == HF_SIP_ROLE_HOME,
                                                 .weight = 1});
        f.from_peer = hop > 0;
        f.mark = (struct hf_sip_mark){.hop = (uint8_t)hop, .epoch = mark_epoch, .offer = true};
        f.have_row = row < N_SERVERS;
        f.row.current = (uint16_t)row;
        f.row.epoch = 2;
        f.row.agent_id = f.agent_id;
        f.row.agent = f.row.agent ? HF_SIP_AGENT_FOLLOWS : HF_SIP_AGENT_UNKNOWN;
        f.binding_left = f.binding_life = HF_S(60);
        all_ends(f, truth < N_SERVERS ? (uint16_t)truth : HF_SIP_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
        ROW(test_not_the_tables_business),
        ROW(test_shedding),
        ROW(test_without_a_row),
        ROW(test_a_call_gives_no_home),
        ROW(test_edge_without_a_row),
        ROW(test_mine),
        ROW(test_mine_but_older_than_a_peers),
        ROW(test_internal_redirect),
        ROW(test_external_proxy),
        ROW(test_auto),
        ROW(test_offer),
        ROW(test_doubt),
        ROW(test_home_dead),
        ROW(test_database_away),
        ROW(test_busy),
        ROW(test_retry_after),
        ROW(test_names),
        ROW(test_every_combination_ends),
    };
    return cmocka_run_group_tests_name("sip/decide", tests, NULL, NULL);
}
