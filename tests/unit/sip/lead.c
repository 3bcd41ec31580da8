/* Tests of sip/lead: reigns that begin, pause and end. */
#include "sip/lead.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test.h"

#define LIMIT HF_S(60)

static char dir[64];
static struct hf_sip s;

static struct hf_sip_lead_figures figures(void)
{
    struct hf_sip_lead_figures f;
    hf_sip_lead_figures(s.lead, &f);
    return f;
}

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        for (hf_time end_ = hf_now() + LIMIT; !(condition) && hf_now() < end_;) {                  \
            usleep(2000);                                                                          \
        }                                                                                          \
        assert_true(condition);                                                                    \
    } while (0)

static int setup(void **state)
{
    char text[300], uri[100];
    struct hf_err err = {0};
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/holdfast-lead-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(uri, sizeof(uri), "sqlite:%s/sip.db", dir);
    snprintf(text, sizeof(text),
             "sip { name = alpha\n domains = { example.org }\n database = \"%s\" }\n"
             "listen lan { address = 192.0.2.1 }\n",
             uri);
    s = (struct hf_sip){.seed = 1};
    assert_int_equal(hf_sip_config_load_mem("f", hf_slice_str(text), &err, &s.config), 0);
    assert_int_equal(hf_sip_store_init(uri, &err), 0);
    assert_int_equal(hf_mailbox_create(1 << 20, &s.mailbox), 0);
    assert_int_equal(hf_sip_lead_start(&s, &err), 0);
    return 0;
}

static int teardown(void **state)
{
    char command[100];
    (void)state;
    hf_sip_lead_stop(s.lead);
    hf_mailbox_destroy(s.mailbox);
    hf_sip_config_destroy(s.config);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static void reigns(void **state)
{
    (void)state;
    assert_int_equal(figures().reigns, 0);
    hf_sip_lead_set(s.lead, true, 5, "");
    WAIT_FOR(figures().leads && figures().reigns == 1 && figures().reign == 5);
    /* a change of the group's view: for a moment nobody leads */
    hf_sip_lead_set(s.lead, false, 5, "");
    WAIT_FOR(!figures().leads);
    hf_sip_lead_set(s.lead, true, 5, "");
    WAIT_FOR(figures().leads);
    assert_int_equal(figures().reigns, 1);
    /* another epoch is another reign */
    hf_sip_lead_set(s.lead, true, 6, "");
    WAIT_FOR(figures().leads && figures().reigns == 2 && figures().reign == 6);
    /* an older one is not begun any more */
    hf_sip_lead_set(s.lead, false, 5, "");
    WAIT_FOR(!figures().leads);
    hf_sip_lead_set(s.lead, true, 5, "");
    usleep(100000);
    assert_false(figures().leads);
    assert_int_equal(figures().reigns, 2);
}

/* Who was not the leader for longer begins anew. */
static void ends(void **state)
{
    (void)state;
    hf_sip_lead_set(s.lead, true, 0, "");
    WAIT_FOR(figures().leads && figures().reigns == 1);
    hf_sip_lead_set(s.lead, false, 0, "");
    WAIT_FOR(!figures().leads);
    usleep(2500000); /* two steps */
    hf_sip_lead_set(s.lead, true, 0, "");
    WAIT_FOR(figures().leads && figures().reigns == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(reigns, setup, teardown),
                                       cmocka_unit_test_setup_teardown(ends, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
