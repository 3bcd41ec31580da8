/* hostd/programs: managers and SIP servers as the tree has them; what status says of them. */
#include "hostd/programs.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "support/hostd_rig.h"
#include "support/test.h"

struct world {
    struct hostd_rig rig;
    struct rig_peer beta;
    char said[4096]; /* by problem() */
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    rig_open(&w->rig);
    w->rig.h.started_at = hf_now(); /* no host is missed yet */
    rig_peer_open(&w->beta, "beta", "::1");
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    rig_close(&w->rig);
    rig_peer_close(&w->beta);
    free(w);
    return 0;
}

static void problem(void *arg, const char *severity, const char *what, const char *remedy)
{
    struct world *w = arg;
    size_t n = strlen(w->said);
    snprintf(w->said + n, sizeof(w->said) - n, "%s: %s (%s)\n", severity, what, remedy);
}

static json_t *managers(struct world *w)
{
    json_t *m = hf_programs_managers(&w->rig.h);
    assert_non_null(m);
    w->said[0] = '\0';
    hf_programs_problems(m, NULL, problem, w);
    return m;
}

static const char *text(json_t *array, size_t i, const char *key)
{
    return json_string_value(json_object_get(json_array_get(array, i), key));
}

static bool serves(json_t *array, size_t i)
{
    return json_is_true(json_object_get(json_array_get(array, i), "serves"));
}

static void who_serves_an_address(void **state)
{
    struct world *w = *state;
    rig_publish(&w->rig, "/manager/vip", "{\"group\":\"vip\",\"role\":\"primary\",\"epoch\":6}");
    rig_publish(&w->rig, "/manager/vip/deeper", "{\"role\":\"primary\",\"epoch\":60}");
    rig_publish(&w->rig, "/manager/other", "{\"epoch\":1}");
    rig_publish(&w->rig, "/manager/vip2", "{\"group\":\"vip2\",\"role\":\"backup\"}");
    rig_publish(&w->rig, "/managers", "{\"role\":\"primary\"}");
    rig_peer_publish(&w->beta, "/manager/vip",
                     "{\"group\":\"vip\",\"role\":\"taking over\",\"epoch\":7}");
    rig_hear(&w->rig, &w->beta);
    json_t *m = managers(w);
    assert_int_equal(json_array_size(m), 3);
    assert_string_equal(text(m, 0, "owner"), "alpha");
    assert_string_equal(text(m, 1, "owner"), "beta");
    assert_string_equal(text(m, 2, "name"), "/manager/vip2");
    assert_false(serves(m, 0)); /* it has not heard yet that its reign is over */
    assert_true(serves(m, 1));
    assert_false(serves(m, 2));
    assert_string_equal(w->said, "");
    json_decref(m);
}

static void sessions_without_a_backup(void **state)
{
    struct world *w = *state;
    char value[300];
    snprintf(value, sizeof(value),
             "{\"group\":\"vip\",\"role\":\"primary\",\"epoch\":6,\"sessions\":120,"
             "\"why\":\"no backup\",\"unprotected_since\":%lld}",
             (long long)(hf_wall_now() / HF_NS_PER_S - 7200));
    rig_publish(&w->rig, "/manager/vip", value);
    json_t *m = managers(w);
    json_int_t ms = json_integer_value(json_object_get(json_array_get(m, 0), "unprotected_ms"));
    assert_true(ms >= 7200000);
    assert_non_null(strstr(w->said, "warning: vip: its 120 sessions would not outlive the loss of "
                                    "alpha, since 2 h 0 m: no backup (see that holdfast-pg runs "
                                    "on another host of the group"));
    json_decref(m);
    /* the clock of the other host is ahead */
    rig_publish(&w->rig, "/manager/vip",
                "{\"group\":\"vip\",\"role\":\"primary\",\"unprotected_since\":99999999999}");
    m = managers(w);
    ms = json_integer_value(json_object_get(json_array_get(m, 0), "unprotected_ms"));
    assert_int_equal(ms, 0);
    json_decref(m);
}

static void sip_servers(void **state)
{
    struct world *w = *state;
    rig_publish(&w->rig, "/sip/servers/s1", "{\"state\":\"live\",\"busy\":true,\"rows\":3}");
    rig_publish(&w->rig, "/sip/servers/s2", "{\"rows\":3}");
    rig_peer_publish(&w->beta, "/sip/servers/s3", "{\"state\":\"draining\",\"busy\":false}");
    rig_hear(&w->rig, &w->beta);
    json_t *s = hf_programs_sip(&w->rig.h);
    assert_int_equal(json_array_size(s), 2);
    assert_string_equal(text(s, 0, "name"), "s1");
    assert_string_equal(text(s, 1, "owner"), "beta");
    hf_programs_problems(NULL, s, problem, w);
    assert_non_null(strstr(w->said, "warning: SIP server s1 is overloaded"));
    assert_null(strstr(w->said, "s3"));
    struct hf_buf out;
    hf_buf_init(&out, 4096);
    hf_programs_put(s, &out);
    hf_buf_add(&out, hf_slice("", 1));
    assert_int_equal(out.err, 0);
    assert_non_null(strstr((char *)out.p, "[{\"name\":\"s1\",\"owner\":\"alpha\",\"value\":{"));
    hf_buf_clear(&out);
    hf_programs_put(NULL, &out);
    assert_int_not_equal(out.err, 0);
    hf_buf_fini(&out);
}

/* What `holdfast status` reads: both in one answer, with the problems of all. */
static void status_has_both(void **state)
{
    struct world *w = *state;
    struct hf_buf out;
    rig_publish(&w->rig, "/manager/vip",
                "{\"group\":\"vip\",\"role\":\"primary\",\"unprotected_since\":1}");
    hf_buf_init(&out, 1u << 20);
    hf_report_status(&w->rig.h, &out);
    assert_int_equal(out.err, 0);
    json_t *status = json_loadb((char *)out.p, out.n, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(status);
    assert_int_equal(json_array_size(json_object_get(status, "managers")), 1);
    json_t *problems = json_object_get(status, "problems");
    assert_int_equal(json_array_size(problems), 1);
    assert_string_equal(text(problems, 0, "severity"), "warning");
    json_decref(status);
    rig_publish(&w->rig, "/manager/vip", NULL);
    hf_buf_clear(&out);
    hf_report_status(&w->rig.h, &out);
    status = json_loadb((char *)out.p, out.n, JSON_REJECT_DUPLICATES, NULL);
    assert_null(json_object_get(status, "managers"));
    json_decref(status);
    hf_buf_fini(&out);
}

/* Programs of other hosts may fill the tree; what one answer shows of them has an end. */
static void too_many(void **state)
{
    struct world *w = *state;
    char name[40];
    for (int i = 0; i < HF_PROGRAMS_SHOWN_MAX + 2; i++) {
        snprintf(name, sizeof(name), "/sip/servers/s%d", i);
        rig_publish(&w->rig, name, "{\"state\":\"live\"}");
    }
    json_t *s = hf_programs_sip(&w->rig.h);
    assert_int_equal(json_array_size(s), HF_PROGRAMS_SHOWN_MAX);
    json_decref(s);
    static char value[15000];
    snprintf(value, sizeof(value), "{\"role\":\"backup\",\"fill\":\"%014900d\"}", 0);
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof(name), "/manager/m%d", i);
        rig_publish(&w->rig, name, value);
    }
    json_t *m = hf_programs_managers(&w->rig.h);
    assert_in_range(json_array_size(m), HF_PROGRAMS_BYTES_MAX / sizeof(value),
                    HF_PROGRAMS_BYTES_MAX / sizeof(value) + 1);
    json_decref(m);
}

#define ROW(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(who_serves_an_address),
        ROW(sessions_without_a_backup),
        ROW(sip_servers),
        ROW(status_has_both),
        ROW(too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
