/* core/sip/element: challenges, secrets, nonces that are used once, and that nobody can tell who
 * is a user (S6). */
#include <stdio.h>
#include <string.h>

#include "support/sip_element_rig.h"
#include "support/test.h"

#define ANN "sip:ann@example.com"
#define CONTACT "Contact: <sip:ann@192.0.2.1:5060>\r\n"

static struct rig r;
static char text[4096], line[1024], challenge[8192];
static unsigned cseq;

static void open_rig(void)
{
    struct hf_sip_element_conf c = rig_conf();
    c.must_authenticate = true;
    c.algorithms = 1u << HF_SIP_SHA256;
    rig_open(&r, &c);
    rig_row(&r, ANN, "alpha", 1);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    cseq = 0;
}

static void send(const char *method, const char *to, const char *more)
{
    char all[2048];
    snprintf(all, sizeof(all), "%s%s", strcmp(method, "REGISTER") == 0 ? CONTACT : "", more);
    rig_request(text, sizeof(text), method,
                strcmp(method, "REGISTER") == 0 ? "sip:example.com" : to, to, all, ++cseq);
    rig_in(&r, text);
}

static void challenged(const char *method, const char *to)
{
    send(method, to, "");
    assert_int_equal(rig_status(&r, 0), strcmp(method, "REGISTER") == 0 ? 401 : 407);
    snprintf(challenge, sizeof(challenge), "%s", rig_out(&r, 0));
    assert_null(strstr(challenge, "stale"));
}

static void with(const char *user, const char *password, const char *to, unsigned nc)
{
    rig_credentials(line, sizeof(line), challenge, user, password, "REGISTER", "sip:example.com",
                    nc);
    send("REGISTER", to, line);
}

static void good(void **state)
{
    (void)state;
    open_rig();
    challenged("REGISTER", ANN);
    with("ann", "secret", ANN, 1);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_SECRET);
    assert_non_null(op);
    hf_assert_slice_str(op->user, "ann");
    hf_assert_slice_str(op->realm, "example.com");
    rig_answer_secret(&r, "ann", "secret", ANN);
    assert_non_null(rig_asked(&r, HF_SIP_OP_BIND));
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
    /* the secret is known now */
    with("ann", "secret", ANN, 2);
    assert_int_equal(rig_status(&r, 0), 200);
    assert_int_equal(r.n_ops, 0);
    /* that very message again is a retransmission; its credentials in another are a replay */
    rig_in(&r, text);
    assert_int_equal(rig_status(&r, 0), 200);
    with("ann", "secret", ANN, 2);
    assert_int_equal(rig_status(&r, 0), 401);
    assert_non_null(strstr(rig_out(&r, 0), "stale=true"));
    /* numbers may overtake each other, each once */
    with("ann", "secret", ANN, 9);
    assert_int_equal(rig_status(&r, 0), 200);
    with("ann", "secret", ANN, 5);
    assert_int_equal(rig_status(&r, 0), 200);
    with("ann", "secret", ANN, 5);
    assert_int_equal(rig_status(&r, 0), 401);
    with("ann", "secret", ANN, 100);
    assert_int_equal(rig_status(&r, 0), 200);
    with("ann", "secret", ANN, 60);
    assert_int_equal(rig_status(&r, 0), 401);
    /* somebody else's AoR, whether there is one or not: nothing is looked up */
    with("ann", "secret", "sip:ben@example.com", 101);
    assert_int_equal(r.n_ops, 0);
    assert_int_equal(rig_status(&r, 0), 403);
    /* an old nonce */
    r.now += HF_S(301);
    r.wall_s += 301;
    with("ann", "secret", ANN, 102);
    rig_answer_secret(&r, "ann", "secret", ANN);
    assert_int_equal(rig_status(&r, 0), 401);
    assert_non_null(strstr(rig_out(&r, 0), "stale=true"));
    rig_close(&r);
}

/* The answer without its nonce and tags. */
static void blank(char *s)
{
    static const char *const marks[] = {"nonce=\"", ";tag=", "branch=", "CSeq: "};
    for (size_t i = 0; i < HF_ARRAY_LEN(marks); i++) {
        for (char *p = strstr(s, marks[i]); p; p = strstr(p + 1, marks[i])) {
            for (char *q = p + strlen(marks[i]); *q && !strchr("\";\r\n ", *q); q++) {
                *q = '_';
            }
        }
    }
}

static void unknown_is_wrong(void **state)
{
    (void)state;
    static char answers[2][8192];
    static const char *const users[2] = {"ann", "ghost"};
    size_t ops[2];
    open_rig();
    for (int i = 0; i < 2; i++) {
        char to[64];
        snprintf(to, sizeof(to), "sip:%s@example.com", i == 0 ? "ann" : "eve");
        challenged("REGISTER", to);
        with(users[i], "guess", to, 1);
        ops[i] = r.n_ops;
        assert_non_null(rig_asked(&r, HF_SIP_OP_SECRET));
        rig_answer_secret(&r, i == 0 ? "ann" : NULL, "secret", ANN);
        snprintf(answers[i], sizeof(answers[i]), "%s", rig_out(&r, 0));
        assert_int_equal(rig_status(&r, 0), 401);
        assert_int_equal(r.n_ops, 0);
        blank(answers[i]);
        char *name; /* the name that was given is in the answer, of course */
        while ((name = strstr(answers[i], "eve"))) {
            memcpy(name, "ann", 3);
        }
        /* and again: neither asks the store */
        with(users[i], "guess", to, 2);
        assert_int_equal(rig_status(&r, 0), 401);
        assert_int_equal(r.n_ops, 0);
        /* a while later both do, once: it may have been changed */
        r.now += HF_S(6);
        with(users[i], "guess", to, 3);
        assert_non_null(rig_asked(&r, HF_SIP_OP_SECRET));
        rig_answer_secret(&r, i == 0 ? "ann" : NULL, "secret", ANN);
        assert_int_equal(rig_status(&r, 0), 401);
    }
    assert_int_equal(ops[0], ops[1]);
    assert_string_equal(answers[0], answers[1]);
    assert_int_equal(hf_sip_element_counters(r.e)->auth_failed, 6);
    rig_close(&r);
}

static void changed_password(void **state)
{
    (void)state;
    open_rig();
    challenged("REGISTER", ANN);
    with("ann", "old", ANN, 1);
    rig_answer_secret(&r, "ann", "old", ANN);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);
    r.now += HF_S(10);
    with("ann", "new", ANN, 2);
    rig_answer_secret(&r, "ann", "new", ANN);
    assert_int_equal(rig_status(&r, 0), 200);
    /* a deleted user's secret is forgotten at once */
    struct hf_slice gone = hf_slice_str(ANN);
    hf_sip_element_feed(r.e, &(struct hf_sip_feed){.there = true, .deleted = &gone, .n_deleted = 1},
                        r.now);
    with("ann", "new", ANN, 3);
    assert_non_null(rig_asked(&r, HF_SIP_OP_SECRET));
    rig_close(&r);
}

static void away(void **state)
{
    (void)state;
    open_rig();
    challenged("REGISTER", ANN);
    with("ann", "secret", ANN, 1);
    rig_answer_secret(&r, "ann", "secret", ANN);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    rig_feed(&r, false, 0);
    with("ann", "secret", ANN, 2); /* by the cache */
    assert_int_equal(rig_status(&r, 0), 200);
    assert_non_null(strstr(rig_out(&r, 0), ";expires=60\r\n"));
    /* what can't be asked is not decided: for a wrong password and an unknown user alike */
    with("ann", "guess", ANN, 3);
    r.now += HF_S(6);
    with("ann", "guess", ANN, 4);
    assert_int_equal(rig_status(&r, 0), 503);
    with("ghost", "guess", ANN, 5);
    assert_int_equal(rig_status(&r, 0), 503);
    /* the store goes away while it is asked */
    rig_feed(&r, true, 2);
    with("ghost", "guess", ANN, 6);
    rig_answer(&r, HF_SIP_OP_AWAY, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 503);
    rig_close(&r);
}

static void calls(void **state)
{
    (void)state;
    open_rig();
    challenged("MESSAGE", ANN);
    rig_credentials(line, sizeof(line), challenge, "ben", "b", "MESSAGE", ANN, 1);
    send("MESSAGE", ANN, line);
    rig_answer_secret(&r, "ben", "b", "sip:ben@example.com");
    assert_int_equal(rig_status(&r, 0), 480);
    /* credentials for another Request-URI */
    rig_credentials(line, sizeof(line), challenge, "ben", "b", "MESSAGE", "sip:x@example.com", 2);
    send("MESSAGE", ANN, line);
    assert_int_equal(rig_status(&r, 0), 407);
    /* to somewhere else: only for our users */
    send("MESSAGE", "sip:zoe@203.0.113.9", "");
    assert_int_equal(rig_status(&r, 0), 407);
    rig_credentials(line, sizeof(line), challenge, "ben", "b", "MESSAGE", "sip:zoe@203.0.113.9", 3);
    send("MESSAGE", "sip:zoe@203.0.113.9", line);
    assert_int_equal(strncmp(rig_out(&r, 0), "MESSAGE sip:zoe@203.0.113.9 ", 28), 0);
    send("MESSAGE", ANN, "Proxy-Authorization: Digest username=\"a\r\n");
    assert_int_equal(rig_status(&r, 0), 400);
    send("MESSAGE", ANN, "Proxy-Authorization: Basic abc\r\n");
    assert_int_equal(rig_status(&r, 0), 407);
    rig_close(&r);
}

/* `user` (of the password "pw") sends this to `to`, with good credentials; then the rig has what
 * came of it. */
static unsigned asks(const char *user, const char *method, const char *to, const char *event)
{
    char more[1200], aor[80];
    challenged(method, to);
    rig_credentials(line, sizeof(line), challenge, user, "pw", method, to, 1);
    snprintf(more, sizeof(more), "%s%sContact: <sip:c@192.0.2.1>\r\n", line, event);
    send(method, to, more);
    if (rig_asked(&r, HF_SIP_OP_SECRET)) {
        snprintf(aor, sizeof(aor), "sip:%s@%s", user,
                 strcmp(user, "out") == 0 ? "partner.example" : "example.com");
        rig_answer_secret(&r, user, "pw", aor);
    }
    if (rig_asked(&r, HF_SIP_OP_KEEP)) {
        rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    }
    return rig_status(&r, 0);
}

static void open_with(const char *const *watchers, size_t n)
{
    static struct hf_slice list[4];
    struct hf_sip_element_conf c = rig_conf();
    for (size_t i = 0; i < n; i++) {
        list[i] = hf_slice_str(watchers[i]);
    }
    c.must_authenticate = true;
    c.algorithms = 1u << HF_SIP_SHA256;
    c.watchers = list;
    c.n_watchers = n;
    rig_open(&r, &c);
    rig_row(&r, ANN, "alpha", 1);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    cseq = 0;
}

/* Who may watch is decided before anything is looked up: 403 for ann as for nobody. */
static void watchers(void **state)
{
    (void)state;
    static const char *const lists[][2] = {{"domain", NULL},
                                           {"none", NULL},
                                           {"@partner.example", NULL},
                                           {"sip:desk@example.com", "@elsewhere.example"}};
    static const char *const users[] = {"ann", "ben", "desk", "out"};
    static const unsigned may[][4] = {
        {200, 200, 200, 403}, {200, 403, 403, 403}, {200, 403, 403, 200}, {200, 403, 200, 403}};
    static const char presence[] = "Event: presence\r\n";
    for (size_t i = 0; i < HF_ARRAY_LEN(lists); i++) {
        open_with(lists[i], lists[i][1] ? 2 : 1);
        for (size_t k = 0; k < HF_ARRAY_LEN(users); k++) {
            assert_int_equal(asks(users[k], "SUBSCRIBE", ANN, presence), may[i][k]);
            if (may[i][k] == 403) { /* the same for who is not there, and not known what to */
                assert_int_equal(r.n_ops, 0);
                assert_int_equal(asks(users[k], "SUBSCRIBE", "sip:eve@example.com", presence), 403);
                assert_int_equal(r.n_ops, 0);
                assert_int_equal(asks(users[k], "SUBSCRIBE", ANN, "Event: x\r\n"), 403);
                assert_int_equal(asks(users[k], "SUBSCRIBE", "sip:eve@example.com", "Event: x\r\n"),
                                 403);
            }
        }
        /* registrations, and publishing: the user's own */
        assert_int_equal(asks("ben", "SUBSCRIBE", ANN, "Event: reg\r\n"), 403);
        assert_int_equal(asks("ben", "SUBSCRIBE", "sip:eve@example.com", "Event: reg\r\n"), 403);
        assert_int_equal(asks("ann", "SUBSCRIBE", ANN, "Event: reg\r\n"), 200);
        assert_int_equal(asks("ben", "PUBLISH", ANN, presence), 403);
        assert_int_equal(asks("ben", "PUBLISH", "sip:eve@example.com", presence), 403);
        assert_int_equal(r.n_ops, 0);
        rig_close(&r);
    }
}

/* Two servers whose clocks are apart by more than a nonce lives: who has satisfied the first is not
 * asked again by the one that it proxies to; else each would find the other's nonces stale. */
static void clocks_apart(void **state)
{
    (void)state;
    static struct rig beta;
    static struct hf_sip_listen listen[3];
    static char forwarded[8192];
    struct hf_sip_element_conf c = rig_conf();
    open_rig();
    r.wall_s += 394;
    rig_row(&r, ANN, "beta", 2);
    challenged("REGISTER", ANN);
    with("ann", "secret", ANN, 1);
    rig_answer_secret(&r, "ann", "secret", ANN);
    assert_int_equal(rig_status(&r, 0), 302);
    with("ann", "secret", ANN, 2); /* does not follow */
    rig_answer(&r, HF_SIP_OP_DONE, "beta", 2);
    snprintf(forwarded, sizeof(forwarded), "%s", rig_out(&r, 0));
    assert_non_null(strstr(forwarded, "Holdfast-Hop: 2;epoch=2;fresh;tag="));
    rig_close(&r);

    memcpy(listen, c.listen, sizeof(listen));
    for (size_t i = 0; i < 3; i++) {
        listen[i].at.addr[3] = 2;
        listen[i].host = hf_slice_str("10.0.0.2");
    }
    c.name = hf_slice_str("beta");
    c.listen = listen;
    c.must_authenticate = true;
    c.algorithms = 1u << HF_SIP_SHA256;
    for (int marked = 1; marked >= 0; marked--) {
        rig_open(&beta, &c);
        rig_from(&beta, 101, HF_SIP_TRANSPORT_UDP, 0);
        beta.from.local.addr[3] = 2;
        rig_row(&beta, ANN, "alpha", 2); /* number 0: this server */
        rig_loaded(&beta, NULL);
        if (!marked) {
            memcpy(strstr(forwarded, "Holdfast-Hop"), "Holdfast-Hip", 12);
        }
        rig_in(&beta, forwarded);
        rig_answer_secret(&beta, "ann", "secret", ANN);
        if (marked) {
            assert_non_null(rig_asked(&beta, HF_SIP_OP_BIND));
            rig_answer(&beta, HF_SIP_OP_DONE, NULL, 0);
        }
        assert_int_equal(rig_status(&beta, 0), marked ? 200 : 401);
        rig_close(&beta);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(good),  HF_TEST(unknown_is_wrong), HF_TEST(changed_password), HF_TEST(away),
        HF_TEST(calls), HF_TEST(watchers),         HF_TEST(clocks_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
