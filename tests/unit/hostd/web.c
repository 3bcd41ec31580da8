/* hostd/web: every path, pieces of large answers, events, readers that stop reading. */
#include "hostd/web.h"

#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "hostd/timeline.h"
#include "support/hostd_rig.h"
#include "support/test.h"

#define BODY_ROOM (4u << 20)

struct world {
    struct hostd_rig rig;
    struct rig_peer beta;
    char body[BODY_ROOM]; /* of the last get() */
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct hf_err err = {0};
    rig_open(&w->rig);
    assert_int_equal(hf_timeline_open(&w->rig.h, &err, &w->rig.h.timeline), 0);
    int rc = hf_web_open(&w->rig.h, &err, &w->rig.h.web);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    rig_peer_open(&w->beta, "beta", "::1");
    rig_peer_publish(&w->beta, "/pg/main", "{\"port\":5432,\"role\":\"primary\"}");
    rig_publish(&w->rig, "/pg/main", "{\"port\":5433,\n\"a-b\":true,\"deep\":{\"x\":1},\"f\":1.5}");
    rig_publish(&w->rig, "/at", "{\"port\":80,\"address\":\"::2\"}");
    rig_publish(&w->rig, "/by-name", "{\"port\":80,\"address\":\"www.example.org\"}");
    rig_publish(&w->rig, "/nowhere", "{\"port\":80,\"address\":\"no host\"}");
    rig_publish(&w->rig, "/none", "{\"port\":\"80\"}");
    rig_publish(&w->rig, "/far", "{\"port\":65536}");
    rig_hear(&w->rig, &w->beta);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    hf_web_close(w->rig.h.web);
    hf_timeline_close(w->rig.h.timeline);
    w->rig.h.timeline = NULL;
    rig_close(&w->rig);
    rig_peer_close(&w->beta);
    free(w);
    return 0;
}

static int get(struct world *w, const char *target)
{
    return rig_get(&w->rig, hf_web_port(w->rig.h.web), target, w->body, sizeof(w->body));
}

static json_t *get_json(struct world *w, const char *target)
{
    assert_int_equal(get(w, target), 200);
    json_t *v = json_loads(w->body, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(v);
    return v;
}

static void assert_part(const char *text, const char *part)
{
    if (!strstr(text, part)) {
        fail_msg("no '%s' in: %s", part, text);
    }
}

static void tree(void **state)
{
    struct world *w = *state;
    assert_int_equal(get(w, "/v1/tree?prefix=/at"), 200);
    assert_string_equal(w->body, "[\n{\"name\":\"/at\",\"owner\":\"alpha\",\"value\":"
                                 "{\"port\":80,\"address\":\"::2\"}}\n]\n");
    json_t *all = get_json(w, "/v1/tree");
    assert_int_equal(json_array_size(all), 7);
    json_decref(all);
    all = get_json(w, "/v1/tree?prefix=%2Fpg");
    assert_int_equal(json_array_size(all), 2);
    json_decref(all);
    assert_int_equal(get(w, "/v1/tree?prefix=/no"), 200);
    assert_string_equal(w->body, "[]\n");
    assert_int_equal(get(w, "/v1/tree?prefix=pg"), 400);
    assert_part(w->body, "{\"error\": \"prefix must begin with '/'");
    char target[400] = "/v1/tree?prefix=/";
    memset(target + strlen(target), 'x', 256);
    assert_int_equal(get(w, target), 400);
}

static void a_large_tree_leaves_in_pieces(void **state)
{
    struct world *w = *state;
    char name[32], value[4096];
    snprintf(value, sizeof(value), "{\"port\":1,\"fill\":\"%03500d\"}", 0);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "/large/%03d", i);
        rig_publish(&w->rig, name, value);
    }
    json_t *all = get_json(w, "/v1/tree?prefix=/large");
    assert_int_equal(json_array_size(all), 500);
    json_decref(all);
    all = get_json(w, "/v1/sd?prefix=/large");
    assert_int_equal(json_array_size(all), 500);
    json_decref(all);
}

static void sd(void **state)
{
    struct world *w = *state;
    json_decref(get_json(w, "/v1/sd"));
    assert_string_equal(
        w->body,
        "[\n{\"targets\":[\"[::2]:80\"],\"labels\":{\"__meta_holdfast_name\":\"/at\","
        "\"__meta_holdfast_owner\":\"alpha\",\"__meta_holdfast_value_port\":\"80\","
        "\"__meta_holdfast_value_address\":\"::2\"}},\n"
        "{\"targets\":[\"www.example.org:80\"],\"labels\":{\"__meta_holdfast_name\":\"/by-name\","
        "\"__meta_holdfast_owner\":\"alpha\",\"__meta_holdfast_value_port\":\"80\","
        "\"__meta_holdfast_value_address\":\"www.example.org\"}},\n"
        "{\"targets\":[\"127.0.0.9:5433\"],\"labels\":{\"__meta_holdfast_name\":\"/pg/main\","
        "\"__meta_holdfast_owner\":\"alpha\",\"__meta_holdfast_value_port\":\"5433\","
        "\"__meta_holdfast_value_a_b\":\"true\",\"__meta_holdfast_value_f\":\"1.5\"}},\n"
        "{\"targets\":[\"[::1]:5432\"],\"labels\":{\"__meta_holdfast_name\":\"/pg/main\","
        "\"__meta_holdfast_owner\":\"beta\",\"__meta_holdfast_value_port\":\"5432\","
        "\"__meta_holdfast_value_role\":\"primary\"}}\n]\n");
    assert_int_equal(get(w, "/v1/sd?prefix=/none"), 200);
    assert_string_equal(w->body, "[]\n");
    assert_int_equal(get(w, "/v1/sd?prefix=x"), 400);
}

static void reports(void **state)
{
    struct world *w = *state;
    json_t *members = get_json(w, "/v1/members");
    assert_int_equal(json_array_size(members), 2);
    json_decref(members);
    assert_int_equal(get(w, "/metrics"), 200);
    assert_part(w->body, "\nholdfast_members 2\n");
    assert_int_equal(get(w, "/healthz"), 200);
    assert_string_equal(w->body, "{\"state\":\"run\"}\n");
    assert_int_equal(get(w, "/v1"), 200);
    assert_part(w->body, "/v1/events");
    assert_int_equal(get(w, "/v2"), 404);
    assert_part(w->body, "{\"error\": ");
    hf_drive_step(&w->rig.h, &(struct hf_dir_in){.kind = HF_DIR_IN_STOP});
    assert_int_equal(get(w, "/healthz"), 503);
    assert_string_equal(w->body, "{\"state\":\"left\"}\n");
}

/* ---- events ---- */

static int follow(struct world *w, const char *target)
{
    struct hf_addr to;
    char request[300];
    assert_int_equal(hf_addr_parse("127.0.0.1", hf_web_port(w->rig.h.web), NULL, &to), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to.ss, to.len), 0);
    int n = snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\n\r\n", target);
    assert_int_equal(send(fd, request, (size_t)n, 0), n);
    return fd;
}

/* Read until `end` is in what came; w->body is all of it. */
static void read_until(struct world *w, int fd, const char *end)
{
    size_t n = 0;
    do {
        ssize_t got = recv(fd, w->body + n, BODY_ROOM - 1 - n, MSG_DONTWAIT);
        assert_int_not_equal(got, 0);
        if (got < 0) {
            rig_turn(&w->rig);
        } else {
            n += (size_t)got;
        }
        w->body[n] = '\0';
    } while (!strstr(w->body, end));
}

static void events(void **state)
{
    struct world *w = *state;
    int fd = follow(w, "/v1/events?prefix=/pg");
    read_until(w, fd, "event: synced\ndata: {}\n\n");
    assert_part(w->body, "HTTP/1.1 200 OK\r\n");
    assert_part(w->body, "Content-Type: text/event-stream\r\n");
    assert_part(w->body, "\r\n\r\nevent: added\ndata: {\"name\":\"/pg/main\",\"owner\":\"alpha\","
                         "\"value\":{\"port\":5433, \"a-b\":true,");
    rig_publish(&w->rig, "/pg/main", "{}");
    read_until(w, fd, "\n\n");
    assert_string_equal(w->body, "event: changed\ndata: {\"name\":\"/pg/main\",\"owner\":\"alpha\","
                                 "\"value\":{}}\n\n");
    rig_publish(&w->rig, "/elsewhere", "{}");
    rig_bye(&w->rig, &w->beta);
    read_until(w, fd, "\n\n");
    assert_string_equal(w->body, "event: removed\ndata: {\"name\":\"/pg/main\",\"owner\":\"beta\","
                                 "\"value\":{\"port\":5432,\"role\":\"primary\"}}\n\n");
    rig_publish(&w->rig, "/pg/new", "{}");
    read_until(w, fd, "\n\n");
    assert_string_equal(w->body, "event: added\ndata: {\"name\":\"/pg/new\",\"owner\":\"alpha\","
                                 "\"value\":{}}\n\n");
    close(fd);
    assert_int_equal(get(w, "/v1/events?prefix=pg"), 400);
}

static void followers_are_bounded(void **state)
{
    struct world *w = *state;
    int fd[HF_SSE_CLIENTS_MAX];
    for (size_t i = 0; i < HF_ARRAY_LEN(fd); i++) {
        fd[i] = follow(w, "/v1/events?prefix=/at");
        read_until(w, fd[i], "event: synced\ndata: {}\n\n");
    }
    assert_int_equal(get(w, "/v1/events"), 503);
    assert_int_equal(get(w, "/v1/overview/events"), 503); /* the limit is for all of them */
    close(fd[0]);
    int again;
    do { /* until the place of the one that left is free */
        rig_turn(&w->rig);
        again = follow(w, "/v1/events?prefix=/at");
        read_until(w, again, "}\n");
        if (strstr(w->body, " 503 ")) {
            close(again);
            again = -1;
        }
    } while (again < 0);
    for (size_t i = 1; i < HF_ARRAY_LEN(fd); i++) { /* half of them leave, half are ended by us */
        if (i % 2) {
            close(fd[i]);
        }
    }
    rig_publish(&w->rig, "/at", "{}");
    rig_turn(&w->rig);
    hf_web_close(w->rig.h.web);
    w->rig.h.web = NULL;
    for (size_t i = 2; i < HF_ARRAY_LEN(fd); i += 2) {
        close(fd[i]);
    }
    close(again);
}

/* It costs one piece, and when it reads again it is told how things are, not all that was. */
static void a_reader_that_stops_reading(void **state)
{
    struct world *w = *state;
    char name[32], value[16000];
    int fd = follow(w, "/v1/events?prefix=/slow");
    read_until(w, fd, "event: synced\ndata: {}\n\n");
    for (int round = 0; round < 5; round++) {
        snprintf(value, sizeof(value), "{\"round\":%d,\"fill\":\"%015000d\"}", round, 0);
        for (int i = 0; i < 200; i++) {
            snprintf(name, sizeof(name), "/slow/%03d", i);
            rig_publish(&w->rig, name, value);
        }
        rig_turn(&w->rig);
    }
    rig_publish(&w->rig, "/slow/last", "{}");
    size_t n = 0, all = 0;
    do {
        ssize_t got = recv(fd, w->body + n, BODY_ROOM - 1 - n, MSG_DONTWAIT);
        assert_int_not_equal(got, 0);
        if (got < 0) {
            rig_turn(&w->rig);
        } else {
            all += (size_t)got;
            n += (size_t)got;
        }
        w->body[n] = '\0';
        if (n > BODY_ROOM / 2) { /* only the end counts */
            memmove(w->body, w->body + n - 100, 101);
            n = 100;
        }
    } while (!strstr(w->body, "/slow/last"));
    assert_true(all < 5 * 200 * 15000); /* not all rounds were told in full */
    close(fd);
}

/* ---- the dashboard and what it shows ---- */

static const json_t *host_of(const json_t *overview, const char *name)
{
    const json_t *h;
    size_t i;
    json_array_foreach(json_object_get(overview, "hosts"), i, h)
    {
        if (strcmp(json_string_value(json_object_get(h, "host")), name) == 0) {
            return h;
        }
    }
    fail_msg("no host %s", name);
    return NULL;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void overview(void **state)
{
    struct world *w = *state;
    snprintf(w->rig.h.lost[2].host, sizeof(w->rig.h.lost[2].host), "gamma");
    w->rig.h.lost[2].at = hf_now() - HF_S(7);
    snprintf(w->rig.h.lost[3].host, sizeof(w->rig.h.lost[3].host), "longago");
    w->rig.h.lost[3].at = hf_now() - HF_HOSTD_LOST_SHOWN;
    rig_publish(&w->rig, "/sip/servers/s1", "{\"state\":\"draining\",\"rows\":5}");
    rig_publish(&w->rig, "/manager/vip",
                "{\"group\":\"vip\",\"role\":\"primary\",\"unprotected_since\":1}");
    rig_turn(&w->rig);
    json_t *o = get_json(w, "/v1/overview");
    assert_string_equal(text_of(o, "host"), "alpha");
    assert_string_equal(text_of(o, "state"), "run");
    assert_int_equal(json_integer_value(json_object_get(o, "members")), 2);
    assert_int_equal(json_array_size(json_object_get(o, "hosts")), 3);
    assert_int_equal(json_integer_value(json_object_get(o, "hosts_more")), 0);
    assert_string_equal(text_of(host_of(o, "alpha"), "state"), "self");
    assert_string_equal(text_of(host_of(o, "alpha"), "draining"), "SIP server s1");
    assert_string_equal(text_of(host_of(o, "beta"), "state"), "alive");
    assert_string_equal(text_of(host_of(o, "gamma"), "state"), "dead");
    assert_true(json_integer_value(json_object_get(host_of(o, "gamma"), "silent_ms")) >= 7000);
    assert_int_equal(json_array_size(json_object_get(o, "managers")), 1);
    assert_int_equal(json_array_size(json_object_get(o, "sip")), 1);
    assert_int_equal(json_array_size(json_object_get(o, "groups")), 0);
    assert_true(json_is_array(json_object_get(o, "events")));
    assert_int_equal(json_array_size(json_object_get(o, "samples")), 2);
    /* one judgement for all: what `holdfast status` says */
    struct hf_buf status;
    hf_buf_init(&status, 1u << 20);
    hf_report_status(&w->rig.h, &status);
    json_t *s = json_loadb((char *)status.p, status.n, 0, NULL);
    assert_true(json_array_size(json_object_get(s, "problems")) >= 2);
    assert_true(json_equal(json_object_get(o, "problems"), json_object_get(s, "problems")));
    hf_buf_fini(&status);
    json_decref(s);
    json_decref(o);
}

/* More hosts than are shown: those that are not well are, the others are counted. */
static void overview_of_many_hosts(void **state)
{
    struct world *w = *state;
    struct rig_peer *peer = calloc(HF_OVERVIEW_HOSTS_MAX, sizeof(*peer));
    char name[16];
    for (int i = 0; i < HF_OVERVIEW_HOSTS_MAX; i++) {
        snprintf(name, sizeof(name), "a%03d", i);
        rig_peer_open(&peer[i], name, "::1");
        rig_hear(&w->rig, &peer[i]);
        rig_turn(&w->rig); /* nobody listens there: soon its own pull has ended */
    }
    snprintf(w->rig.h.lost[0].host, sizeof(w->rig.h.lost[0].host), "zulu");
    w->rig.h.lost[0].at = hf_now();
    json_t *o = get_json(w, "/v1/overview");
    assert_int_equal(json_array_size(json_object_get(o, "hosts")), HF_OVERVIEW_HOSTS_MAX);
    assert_string_equal(text_of(host_of(o, "zulu"), "state"), "dead");
    assert_string_equal(text_of(host_of(o, "alpha"), "state"), "self");
    /* alpha, beta and the others, of which 255 are shown beside zulu */
    assert_int_equal(json_integer_value(json_object_get(o, "hosts_more")), 3);
    json_decref(o);
    for (int i = 0; i < HF_OVERVIEW_HOSTS_MAX; i++) {
        rig_peer_close(&peer[i]);
    }
    free(peer);
}

static void overview_live(void **state)
{
    struct world *w = *state;
    hf_timeline_note(w->rig.h.timeline, HF_ABOUT_HOST, "alpha", 0, "before");
    int fd = follow(w, "/v1/overview/events");
    read_until(w, fd, "\"sip\":[]}");
    assert_part(w->body, "Content-Type: text/event-stream\r\n");
    assert_part(w->body, "event: note\ndata: {\"at\":");
    assert_true(strstr(w->body, "\"text\":\"before\"}") <
                strstr(w->body, "event: overview\ndata: {"));
    rig_publish(&w->rig, "/sip/servers/s1", "{\"state\":\"live\",\"rows\":5}");
    read_until(w, fd, "\"sip\":[{\"name\":\"s1\",\"owner\":\"alpha\",\"value\":{");
    assert_part(w->body, "server on alpha: live");
    assert_part(w->body, "event: sample\ndata: {\"at\":");
    rig_bye(&w->rig, &w->beta);
    read_until(w, fd, "\"name\":\"beta\",\"text\":\"left: its services leave the tree\"}");
    read_until(w, fd, "\"members\":1,");
    int second = follow(w, "/v1/overview/events"); /* is told all, too */
    read_until(w, second, "\"sip\":[{\"name\":\"s1\"");
    assert_part(w->body, "\"text\":\"before\"}");
    close(second);
    close(fd);
}

/* One that does not read holds up nobody; when it reads again it is told how things are. */
static void a_viewer_that_stops_reading(void **state)
{
    struct world *w = *state;
    static char value[HF_VALUE_LEN_MAX];
    char name[40], last[40] = "";
    int slow = follow(w, "/v1/overview/events"), other = follow(w, "/v1/overview/events");
    read_until(w, slow, "event: overview");
    read_until(w, other, "event: overview");
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 10; i++) {
            snprintf(value, sizeof(value),
                     "{\"state\":\"live\",\"round\":%d,\"fill\":\"%015000d\"}", round, 0);
            snprintf(name, sizeof(name), "/sip/servers/s%d", i);
            rig_publish(&w->rig, name, value);
        }
        snprintf(last, sizeof(last), "\"round\":%d,", round);
        read_until(w, other, last);
    }
    read_until(w, slow, last);
    close(slow);
    close(other);
}

static void the_page(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *path, *type, *part;
    } files[] = {
        {"/", "text/html; charset=utf-8", "<script src=\"dashboard.js\" defer></script>"},
        {"/dashboard.js", "text/javascript; charset=utf-8", "new EventSource("},
        {"/dashboard.css", "text/css; charset=utf-8", "prefers-color-scheme: dark"},
        {"/icon.svg", "image/svg+xml", "<svg "},
    };
    char type[100];
    for (size_t i = 0; i < HF_ARRAY_LEN(files); i++) {
        int fd = follow(w, files[i].path);
        read_until(w, fd, files[i].part);
        snprintf(type, sizeof(type), "\r\nContent-Type: %s\r\n", files[i].type);
        assert_part(w->body, type);
        assert_part(w->body, "\r\nContent-Security-Policy: default-src 'none'; script-src 'self';");
        assert_part(w->body, "\r\nX-Content-Type-Options: nosniff\r\n");
        close(fd);
        assert_int_equal(get(w, files[i].path), 200);
        /* nothing from elsewhere; names of namespaces are no addresses */
        for (const char *at = w->body; (at = strstr(at, "://")); at++) {
            assert_memory_equal(at, "://www.w3.org/", 14);
        }
    }
    assert_int_equal(get(w, "/dashboard"), 404);
}

static void none_configured(void **state)
{
    struct world *w = *state;
    struct hf_web *web;
    struct hf_err err;
    w->rig.h.config->http.listen.len = 0;
    assert_int_equal(hf_web_open(&w->rig.h, &err, &web), 0);
    assert_null(web);
    hf_web_close(web);
}

#define ROW(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(tree),
        ROW(a_large_tree_leaves_in_pieces),
        ROW(sd),
        ROW(reports),
        ROW(events),
        ROW(followers_are_bounded),
        ROW(a_reader_that_stops_reading),
        ROW(overview),
        ROW(overview_of_many_hosts),
        ROW(overview_live),
        ROW(a_viewer_that_stops_reading),
        ROW(the_page),
        ROW(none_configured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
