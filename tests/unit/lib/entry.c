/* Tests of lib/entry: what is published when; the publishing itself is played here. */
#include "lib/entry.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "holdfast/holdfast.h"
#include "support/test.h"

static struct {
    unsigned n;
    char name[16], value[16];
    holdfast_result_fn *done;
    void *arg;
} last;

int holdfast_publish(struct holdfast *h, const char *name, const char *value, uint32_t lease_ms,
                     holdfast_result_fn *done, void *arg)
{
    (void)h;
    assert_int_equal(lease_ms, 0);
    last.n++;
    snprintf(last.name, sizeof(last.name), "%s", name);
    snprintf(last.value, sizeof(last.value), "%s", value);
    last.done = done;
    last.arg = arg;
    return 0;
}

static bool tell(struct hf_entry *e, const char *state, const char *value, hf_time now)
{
    return hf_entry_tell(e, strdup(state), value ? strdup(value) : NULL, now);
}

static void told_when_it_changes(void **state)
{
    (void)state;
    struct hf_entry e = {.name = "/x", .unseen = "nobody sees it", .figures = HF_S(10)};
    hf_time now = HF_S(100);
    assert_true(hf_entry_due(&e, "on", now));
    assert_true(tell(&e, "on", "on 1", now));
    assert_string_equal(last.name, "/x");
    assert_string_equal(last.value, "on 1");
    /* figures alone, when it is time for them */
    assert_false(hf_entry_due(&e, "on", now + HF_S(10) - 1));
    assert_false(tell(&e, "on", NULL, now + HF_S(9)));
    assert_true(hf_entry_due(&e, "on", now + HF_S(10)));
    assert_false(tell(&e, "on", "on 1", now + HF_S(10)));
    assert_true(tell(&e, "on", "on 2", now + HF_S(10)));
    /* the state at once, also back */
    assert_true(hf_entry_due(&e, "off", now + HF_S(11)));
    assert_true(tell(&e, "off", "off 2", now + HF_S(11)));
    assert_true(tell(&e, "on", "on 2", now + HF_S(11)));
    /* another connection: whatever it is */
    hf_entry_forget(&e);
    assert_true(hf_entry_due(&e, "on", now + HF_S(11)));
    assert_true(tell(&e, "on", "on 2", now + HF_S(11)));
    assert_int_equal(last.n, 5);
    /* without memory nothing is lost but this time */
    assert_true(hf_entry_due(&e, NULL, now + HF_S(11)));
    assert_false(hf_entry_tell(&e, NULL, strdup("on 3"), now + HF_S(30)));
    assert_true(tell(&e, "on", "on 3", now + HF_S(31)));
    hf_entry_fini(&e);
}

static void a_refusal_is_logged_once(void **state)
{
    (void)state;
    struct hf_entry e = {.name = "/x", .unseen = "nobody sees it"};
    assert_true(tell(&e, "on", "on", 0));
    last.done(last.arg, 0, "");
    last.done(last.arg, -ECANCELED, "");
    assert_false(e.refused);
    last.done(last.arg, -HF_EHELD, "held by another program");
    assert_true(e.refused);
    last.done(last.arg, -HF_EHELD, "held by another program");
    hf_entry_fini(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(told_when_it_changes),
                                       HF_TEST(a_refusal_is_logged_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
