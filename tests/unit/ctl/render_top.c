/* ctl/render_top: an overview fits every size of terminal, and says what is wrong first. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "ctl/render.h"
#include "ctl/table.h"
#include "support/test.h"

static const char overview[] =
    "{\"host\":\"alpha\",\"state\":\"run\",\"version\":\"0\",\"members\":3,\"problems\":["
    "{\"severity\":\"error\",\"what\":\"delta fell silent 7 s ago: its services have left the "
    "tree\",\"remedy\":\"see whether the host is up and its network works; it returns by itself\"},"
    "{\"severity\":\"warning\",\"what\":\"group orders: copy3 is syncing\",\"remedy\":\"wait\"}],"
    "\"hosts\":["
    "{\"host\":\"alpha\",\"state\":\"self\",\"services\":5,\"draining\":\"\"},"
    "{\"host\":\"beta\",\"state\":\"alive\",\"services\":3,\"draining\":\"SIP server s2\"},"
    "{\"host\":\"delta\",\"state\":\"dead\",\"services\":0,\"silent_ms\":7000,\"draining\":\"\"}],"
    "\"hosts_more\":2,"
    "\"groups\":[{\"name\":\"orders\",\"quorate\":true,\"phase\":\"running\",\"epoch\":7,"
    "\"primary\":{\"resource\":\"copy1\",\"host\":\"alpha\",\"address\":\"10.0.0.1\"},"
    "\"resources\":["
    "{\"name\":\"copy1\",\"kind\":\"copy\",\"mirror_capable\":true,\"host\":\"alpha\","
    "\"mirror\":\"in-sync\"},"
    "{\"name\":\"copy2\",\"kind\":\"copy\",\"mirror_capable\":true,\"host\":\"beta\","
    "\"mirror\":\"syncing\",\"seen\":{\"state\":\"syncing\",\"percent\":47}},"
    "{\"name\":\"copy3\",\"kind\":\"copy\",\"mirror_capable\":true,\"host\":\"\","
    "\"mirror\":\"none\",\"seen\":{\"state\":\"\",\"percent\":null}},"
    "{\"name\":\"vip\",\"kind\":\"attached\",\"host\":\"alpha\"}]},"
    "{\"name\":\"other\",\"quorate\":false}],"
    "\"managers\":["
    "{\"name\":\"/manager/pgvip\",\"owner\":\"alpha\",\"serves\":true,\"value\":{\"group\":"
    "\"pgvip\",\"role\":\"primary\",\"peer\":\"beta\",\"sessions\":120,\"protected\":118,"
    "\"unprotected\":{\"TLS\":2}}},"
    "{\"name\":\"/manager/pgvip\",\"owner\":\"beta\",\"value\":{\"group\":\"pgvip\",\"role\":"
    "\"backup\",\"stored\":118}},"
    "{\"name\":\"/manager/bare\",\"owner\":\"beta\",\"serves\":true,\"unprotected_ms\":200000,"
    "\"value\":{\"group\":\"bare\",\"role\":\"primary\",\"sessions\":3,\"why\":\"no backup\"}}],"
    "\"sip\":["
    "{\"name\":\"s1\",\"owner\":\"alpha\",\"value\":{\"state\":\"live\",\"leads\":true,"
    "\"rows\":300,\"requests_s\":12,\"cpu\":125}},"
    "{\"name\":\"s2\",\"owner\":\"beta\",\"value\":{\"state\":\"draining\",\"busy\":true,"
    "\"rows\":7,\"requests_s\":0,\"cpu\":0}}],"
    "\"events\":["
    "{\"at\":1700000000000,\"about\":\"host\",\"name\":\"beta\",\"text\":\"alive\"},"
    "{\"at\":1700000005000,\"about\":\"sip\",\"name\":\"s2\",\"text\":\"server on beta: "
    "draining\"}],"
    "\"samples\":["
    "{\"at\":1,\"about\":\"manager\",\"name\":\"pgvip\",\"p99_ms\":1.02,\"slowest_ms\":2,"
    "\"lag_ms\":0.5},"
    "{\"at\":2,\"about\":\"manager\",\"name\":\"pgvip\",\"p99_ms\":1.02,\"slowest_ms\":524,"
    "\"lag_ms\":0},"
    "{\"at\":2,\"about\":\"manager\",\"name\":\"another\",\"p99_ms\":99},"
    "{\"at\":3,\"about\":\"manager\",\"name\":\"pgvip\",\"p99_ms\":0.51,\"slowest_ms\":262,"
    "\"lag_ms\":0}]}";

static json_t *parse(const char *text)
{
    json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(j);
    return j;
}

/* What is shown, with NUL; owned. */
static char *top(const char *text, const struct hf_top_view *view)
{
    struct hf_buf out;
    json_t *o = text ? parse(text) : NULL;
    hf_buf_init(&out, 1u << 20);
    assert_int_equal(hf_render_top(&out, o, view), 0);
    hf_buf_add(&out, hf_slice("", 1));
    json_decref(o);
    char *copy = strdup((char *)out.p);
    hf_buf_fini(&out);
    return copy;
}

static void assert_top(const char *text, const struct hf_top_view *view, const char *expected)
{
    char *shown = top(text, view);
    assert_string_equal(shown, expected);
    free(shown);
}

static void all_of_it(void **state)
{
    (void)state;
    assert_top(overview, &(struct hf_top_view){.columns = 80},
               "holdfast top - alpha: running, 2 problems, 3 hosts\n"
               "PROBLEMS\n"
               "ERROR    delta fell silent 7 s ago: its services have left the tree\n"
               "  what to do: see whether the host is up and its network works; it returns by\n"
               "              itself\n"
               "WARNING  group orders: copy3 is syncing\n"
               "  what to do: wait\n"
               "GROUPS\n"
               "  orders: running, epoch 7, alpha is primary host\n"
               "    copy1@alpha primary, copy2@beta syncing [####......] 47%, copy3@- not\n"
               "    mirrored; with vip\n"
               "  other: nothing is known yet, epoch 0, not quorate\n"
               "SESSIONS\n"
               "  pgvip: 120 sessions at alpha, 118 protected by beta, 2 not: 2 TLS\n"
               "    99 % within       ##- 0.51, at most 1.02 ms\n"
               "    slowest (stalls)  _#- 262, at most 524 ms\n"
               "    backup is behind  #__ 0, at most 0.5 ms\n"
               "  bare: 3 sessions at beta, none protected for 3 m 20 s: no backup\n"
               "HOSTS\n"
               "  alpha        alive      120 sessions   300 SIP users\n"
               "  beta         alive        3 sessions     7 SIP users  draining: SIP server s2\n"
               "  delta        dead         0 sessions     0 SIP users\n"
               "  and 2 more\n"
               "SIP\n"
               "  s1           live       300 users     12 requests/s, CPU 12%, leads\n"
               "  s2           draining     7 users      0 requests/s, CPU 0%, overloaded\n"
               "EVENTS\n"
               "  22:13:25 SIP s2: server on beta: draining\n"
               "  22:13:20 beta: alive\n");
}

static void on_a_small_terminal(void **state)
{
    (void)state;
    assert_top(overview, &(struct hf_top_view){.columns = 80, .rows = 24},
               "holdfast top - alpha: running, 2 problems, 3 hosts\n"
               "PROBLEMS\n"
               "ERROR    delta fell silent 7 s ago: its services have left the tree\n"
               "  what to do: see whether the host is up and its network works; it returns by\n"
               "              itself\n"
               "  ... 2 more lines\n"
               "GROUPS\n"
               "  orders: running, epoch 7, alpha is primary host\n"
               "    copy1@alpha primary, copy2@beta syncing [####......] 47%, copy3@- not\n"
               "  ... 2 more lines\n"
               "SESSIONS\n"
               "  pgvip: 120 sessions at alpha, 118 protected by beta, 2 not: 2 TLS\n"
               "    99 % within       ##- 0.51, at most 1.02 ms\n"
               "  ... 3 more lines\n"
               "HOSTS\n"
               "  alpha        alive      120 sessions   300 SIP users\n"
               "  beta         alive        3 sessions     7 SIP users  draining: SIP server s2\n"
               "  ... 2 more lines\n"
               "SIP\n"
               "  s1           live       300 users     12 requests/s, CPU 12%, leads\n"
               "  s2           draining     7 users      0 requests/s, CPU 0%, overloaded\n"
               "EVENTS\n"
               "  22:13:25 SIP s2: server on beta: draining\n"
               "  22:13:20 beta: alive\n");
}

/* No line is wider, none is too many, whatever the size; escape sequences are not counted. */
static void fits_every_size(void **state)
{
    (void)state;
    for (size_t rows = 1; rows < 60; rows++) {
        for (size_t columns = 1; columns < 130; columns += 7) {
            struct hf_top_view view = {.columns = columns, .rows = rows, .utf8 = true};
            char *shown = top(overview, &view);
            size_t n = 0;
            for (char *line = shown, *end; (end = strchr(line, '\n')); line = end + 1, n++) {
                *end = '\0';
                assert_true(hf_render_width(line) <= columns);
            }
            assert_in_range(n, 1, rows);
            free(shown);
        }
    }
}

static void colours(void **state)
{
    (void)state;
    struct hf_top_view view = {.columns = 80, .colour = true};
    char *shown = top(overview, &view);
    assert_non_null(strstr(shown, HF_RED "ERROR    delta fell silent"));
    assert_non_null(strstr(shown, HF_GREEN "  alpha "));
    assert_non_null(strstr(shown, HF_YELLOW "  beta "));
    assert_non_null(strstr(shown, HF_RED "  delta "));
    assert_non_null(strstr(shown, HF_BOLD "PROBLEMS" HF_PLAIN "\n"));
    free(shown);
    view.colour = false;
    shown = top(overview, &view);
    assert_null(strchr(shown, '\033'));
    free(shown);
}

static void figures_as_bars(void **state)
{
    (void)state;
    struct hf_top_view view = {.columns = 80, .utf8 = true};
    char *shown = top(overview, &view);
    assert_non_null(strstr(shown, "slowest (stalls)  \u2581\u2588\u2584 262, at most 524 ms\n"));
    assert_non_null(strstr(shown, "backup is behind  \u2588\u2581\u2581 0, at most 0.5 ms\n"));
    free(shown);
}

static void nothing_answers(void **state)
{
    (void)state;
    struct hf_top_view view = {.columns = 30, .rows = 24, .lost = "cannot reach holdfastd at /x"};
    assert_top(NULL, &view, "holdfast top\nOLD: cannot reach holdfastd at\n     /x\n");
    char *shown = top(overview, &view);
    assert_non_null(strstr(shown, "\nOLD: cannot reach holdfastd at\n     /x\n"));
    free(shown);
}

static void an_empty_cluster(void **state)
{
    (void)state;
    struct hf_top_view view = {.columns = 80, .rows = 24};
    assert_top("{\"host\":\"a\",\"state\":\"sync\",\"members\":1,\"problems\":[],\"hosts\":[{"
               "\"host\":\"a\",\"state\":\"self\",\"draining\":\"\"}],\"hosts_more\":0}",
               &view,
               "holdfast top - a: sync, no problems, 1 host\n"
               "HOSTS\n"
               "  a            alive        0 sessions     0 SIP users\n");
}

/* Names and texts of other programs: nothing controls the terminal, a line stays a line. */
static void values_that_others_made_up(void **state)
{
    (void)state;
    struct hf_top_view view = {.columns = 60};
    char *shown = top("{\"host\":\"a\",\"problems\":[{\"what\":\"x\\u001b[2J\\ny\",\"remedy\":7}],"
                      "\"hosts\":[{\"host\":7}],\"groups\":[7,{}],\"managers\":[{\"serves\":true}],"
                      "\"sip\":[{\"value\":{\"state\":\"\\u0007\"}}],"
                      "\"events\":[{\"text\":\"\\u009b1m\\r\"}],\"samples\":[[]]}",
                      &view);
    assert_null(strchr(shown, '\033'));
    assert_null(strchr(shown, '\a'));
    assert_null(strchr(shown, '\r'));
    assert_non_null(strstr(shown, "WARNING  x?[2J y\n"));
    free(shown);
}

int main(void)
{
    setenv("TZ", "UTC", 1);
    tzset();
    const struct CMUnitTest tests[] = {
        HF_TEST(all_of_it),        HF_TEST(on_a_small_terminal),
        HF_TEST(fits_every_size),  HF_TEST(colours),
        HF_TEST(figures_as_bars),  HF_TEST(nothing_answers),
        HF_TEST(an_empty_cluster), HF_TEST(values_that_others_made_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
