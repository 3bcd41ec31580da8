/* core/sip/element: each line of decide.h's table, by a message that brings it about. (NO_VIA's is
 * refused by the parser: without a Via there is nobody to answer.) */
#include <stdio.h>
#include <string.h>

#include "support/sip_element_rig.h"
#include "support/test.h"

#define ANN "sip:ann@example.com"
#define CONTACT "Contact: <sip:ann@192.0.2.1:5060>\r\n"

static struct rig r;
static struct hf_sip_element_conf conf;
static struct hf_sip_listen listen[3];
static char text[4096];
static unsigned cseq;

static void begin(void)
{
    conf = rig_conf();
    memcpy(listen, conf.listen, sizeof(listen));
    conf.listen = listen;
    cseq = 0;
}

static void open_rig(void)
{
    rig_open(&r, &conf);
    hf_sip_element_trace(r.e, hf_slice_str(ANN));
}

static void row(const char *home, uint64_t epoch)
{
    if (strcmp(home, "alpha") == 0) {
        rig_row(&r, ANN, home, epoch);
        rig_answer(&r, HF_SIP_OP_DONE, NULL, 0); /* LOAD */
        return;
    }
    struct hf_sip_result res = {.kind = HF_SIP_OP_ASSERT,
                                .cookie = 1,
                                .have_row = true,
                                .row = {.aor = hf_slice_str(ANN),
                                        .home = rig_number(&r, home),
                                        .current = rig_number(&r, home),
                                        .epoch = epoch}};
    hf_sip_element_done(r.e, &res, r.now);
}

static void send(const char *method, const char *more)
{
    bool reg = strcmp(method, "REGISTER") == 0;
    rig_request(text, sizeof(text), method, reg ? "sip:example.com" : ANN, ANN, more, ++cseq);
    rig_in(&r, text);
}

/* From beta, marked. */
static void from_peer(const char *method, const char *more, unsigned hop, uint64_t epoch,
                      bool offer)
{
    char lines[1024];
    int n = snprintf(lines, sizeof(lines), "%s", more);
    rig_mark(lines + n, sizeof(lines) - (size_t)n, method, cseq + 1, hop, epoch, offer);
    rig_from(&r, 102, HF_SIP_TRANSPORT_UDP, 0);
    send(method, lines);
}

#define assert_rules(want) assert_string_equal(r.rules, want)

static void without_row(void **state)
{
    (void)state;
    begin();
    open_rig();
    rig_request(text, sizeof(text), "BYE", ANN, ANN, "", 1);
    char tagged[4096];
    char *to = strstr(text, "To: <" ANN ">");
    snprintf(tagged, sizeof(tagged), "%.*sTo: <" ANN ">;tag=t%s", (int)(to - text), text,
             to + strlen("To: <" ANN ">"));
    rig_in(&r, tagged);
    assert_rules("pass: goes by its route");
    assert_int_equal(rig_status(&r, 0), 481);
    cseq = 10;
    hf_sip_element_shed(r.e, HF_SIP_SHED_ALL);
    send("REGISTER", CONTACT);
    assert_rules("refuse: this server is overloaded");
    assert_int_equal(rig_status(&r, 0), 503);
    hf_sip_element_shed(r.e, HF_SIP_SHED_NOTHING);
    send("MESSAGE", "");
    rig_answer(&r, HF_SIP_OP_NONE, NULL, 0);
    assert_rules("read: not cached; refuse: has no home, and this gives it none");
    assert_int_equal(rig_status(&r, 0), 480);
    rig_peer(&r, "alpha", HF_SIP_SERVER_DRAINING, false);
    rig_peer(&r, "beta", HF_SIP_SERVER_DEAD, false);
    rig_peer(&r, "gamma", HF_SIP_SERVER_DEAD, false);
    send("REGISTER", CONTACT);
    rig_answer(&r, HF_SIP_OP_NONE, NULL, 0);
    assert_rules("read: not cached; refuse: nobody lives to be given a client");
    assert_int_equal(rig_status(&r, 0), 503);
    rig_peer(&r, "beta", HF_SIP_SERVER_LIVE, false);
    send("REGISTER", CONTACT);
    rig_answer(&r, HF_SIP_OP_NONE, NULL, 0);
    assert_rules("read: not cached; assign: seen for the first time");
    rig_answer(&r, HF_SIP_OP_DONE, "beta", 1);
    assert_rules("read: not cached; assign: seen for the first time; "
                 "redirect: another server's, internal");
    rig_close(&r);
    open_rig();
    rig_feed(&r, false, 0);
    send("REGISTER", CONTACT);
    assert_rules("refuse: not cached, and the database is away");
    assert_int_equal(rig_status(&r, 0), 503);
    rig_close(&r);
    conf.must_authenticate = true;
    open_rig();
    send("REGISTER", CONTACT);
    assert_rules("challenge: nothing is looked up for somebody unknown");
    assert_int_equal(rig_status(&r, 0), 401);
    rig_close(&r);
    conf.role = HF_SIP_ROLE_EDGE;
    open_rig();
    rig_peer(&r, "alpha", HF_SIP_SERVER_DEAD, false);
    send("REGISTER", CONTACT);
    rig_answer(&r, HF_SIP_OP_NONE, NULL, 0);
    assert_rules("read: not cached; proxy: has no home; an edge lets another server give it one");
    assert_int_equal(strncmp(rig_out(&r, 0), "REGISTER ", 9), 0);
    rig_close(&r);
}

static void mine(void **state)
{
    (void)state;
    begin();
    open_rig();
    row("alpha", 5);
    from_peer("REGISTER", CONTACT, 1, 9, false);
    assert_rules("read: mine, but a peer knows a later epoch");
    rig_answer(&r, HF_SIP_OP_DONE, "alpha", 5);
    assert_rules("read: mine, but a peer knows a later epoch; serve: mine");
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0); /* BIND */
    assert_int_equal(rig_status(&r, 0), 200);
    /* the binding has more than half its life: the agent is tried */
    from_peer("REGISTER", CONTACT, 1, 5, true);
    assert_rules("redirect: mine; is its agent able to follow?");
    assert_int_equal(rig_status(&r, 0), 302);
    assert_non_null(strstr(rig_out(&r, 0), "Contact: <sip:10.0.0.1;hf=5."));
    /* it comes the old way again: never more */
    from_peer("REGISTER", CONTACT, 1, 5, true);
    assert_rules("serve: mine");
    rig_close(&r);
    conf.must_authenticate = true;
    open_rig();
    row("alpha", 5);
    send("REGISTER", CONTACT);
    assert_rules("challenge: mine");
    rig_close(&r);
}

/* OFFERED, and it follows. */
static void offered(void **state)
{
    (void)state;
    begin();
    for (size_t i = 0; i < 3; i++) {
        listen[i].policy = HF_SIP_POLICY_AUTO;
    }
    open_rig();
    row("alpha", 5);
    from_peer("REGISTER", CONTACT, 1, 5, true);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    from_peer("REGISTER", CONTACT, 1, 5, true);
    assert_int_equal(rig_status(&r, 0), 302);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_LEARN);
    assert_non_null(op);
    assert_int_equal(op->row.agent, HF_SIP_AGENT_OFFERED);
    char uri[200];
    const char *at = strstr(rig_out(&r, 0), "Contact: <") + 10;
    snprintf(uri, sizeof(uri), "%.*s", (int)strcspn(at, ">"), at);
    rig_from(&r, 1, HF_SIP_TRANSPORT_UDP, 0);
    rig_request(text, sizeof(text), "REGISTER", uri, ANN, CONTACT, ++cseq);
    rig_in(&r, text);
    assert_int_equal(rig_status(&r, 0), 200);
    assert_int_equal(r.op[0].op.kind, HF_SIP_OP_LEARN);
    assert_int_equal(r.op[0].op.row.agent, HF_SIP_AGENT_FOLLOWS);
    /* its binding expires: who knows what it does now */
    rig_pass(&r, HF_S(7300));
    bool unknown = false;
    for (size_t i = 0; i < r.n_ops; i++) {
        unknown = unknown || (r.op[i].op.kind == HF_SIP_OP_LEARN &&
                              r.op[i].op.row.agent == HF_SIP_AGENT_UNKNOWN);
    }
    assert_true(unknown);
    rig_close(&r);
}

/* Whoever takes his leave, or asks what there is, is offered nothing: he might not follow. */
static void not_offered(void **state)
{
    (void)state;
    begin();
    for (size_t i = 0; i < 3; i++) {
        listen[i].policy = HF_SIP_POLICY_AUTO;
    }
    open_rig();
    row("alpha", 5);
    from_peer("REGISTER", CONTACT, 1, 5, true);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    from_peer("REGISTER", "", 1, 5, true);
    assert_int_equal(rig_status(&r, 0), 200);
    assert_non_null(strstr(rig_out(&r, 0), "Contact: "));
    from_peer("REGISTER", CONTACT "Expires: 0\r\n", 1, 5, true);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
    assert_null(strstr(rig_out(&r, 0), "Contact: "));
    assert_null(rig_asked(&r, HF_SIP_OP_LEARN));
    rig_close(&r);
}

static void anothers(void **state)
{
    (void)state;
    begin();
    open_rig();
    row("gamma", 5);
    send("REGISTER", CONTACT);
    assert_rules("redirect: another server's, internal");
    send("REGISTER", CONTACT); /* redirected lately, and here again */
    rig_answer(&r, HF_SIP_OP_DONE, "gamma", 5);
    assert_rules("read: is this row still right?; "
                 "proxy: another server's, and not for the first time");
    assert_non_null(strstr(rig_out(&r, 0), "Holdfast-Hop: 2;epoch=5;tag="));
    from_peer("REGISTER", CONTACT, 2, 5, false);
    rig_answer(&r, HF_SIP_OP_DONE, "gamma", 5);
    assert_rules("read: is this row still right?; refuse: has come round too often");
    assert_int_equal(rig_status(&r, 0), 503);
    rig_from(&r, 1, HF_SIP_TRANSPORT_UDP, 0);
    rig_peer(&r, "gamma", HF_SIP_SERVER_LIVE, true);
    send("REGISTER", CONTACT "X: y\r\n");
    rig_answer(&r, HF_SIP_OP_DONE, "gamma", 5);
    assert_rules("read: is this row still right?; refuse: its server is busy");
    rig_peer(&r, "gamma", HF_SIP_SERVER_DEAD, false);
    send("REGISTER", CONTACT);
    rig_answer(&r, HF_SIP_OP_DONE, "gamma", 5);
    assert_rules("read: is this row still right?; "
                 "refuse: its server is not alive, and not replaced yet");
    rig_feed(&r, false, 0);
    from_peer("REGISTER", CONTACT, 1, 9, false);
    assert_rules("serve: mine by what a peer knows; the database is away");
    assert_int_equal(rig_status(&r, 0), 200);
    rig_close(&r);
    for (size_t i = 0; i < 3; i++) {
        listen[i].policy = HF_SIP_POLICY_PROXY;
    }
    conf.must_authenticate = true;
    open_rig();
    row("beta", 5);
    send("REGISTER", CONTACT); /* passes without credentials */
    assert_rules("proxy: another server's");
    assert_non_null(strstr(rig_out(&r, 0), "Holdfast-Hop: 1;epoch=5;tag="));
    rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN, CONTACT, ++cseq);
    memcpy(strstr(text, "Max-Forwards: 70"), "Max-Forwards: 00", 16);
    rig_in(&r, text);
    assert_rules("refuse: Max-Forwards is used up");
    assert_int_equal(rig_status(&r, 0), 483);
    rig_peer(&r, "beta", HF_SIP_SERVER_DEAD, false);
    send("REGISTER", CONTACT);
    assert_rules("challenge: another server's");
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(without_row), HF_TEST(mine),     HF_TEST(offered),
        HF_TEST(not_offered), HF_TEST(anothers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
