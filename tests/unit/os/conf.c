/* os/conf: every type, defaults, the errors that people read, and that a listing loads again. */
#include "os/conf.h"

#include <errno.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "support/test.h"

struct sample {
    bool flag;
    int64_t count, wait_ms, room, colour;
    char *title, *deep;
    uint32_t parts;
    struct hf_addr at;
    struct hf_conf_addrs more;
    struct hf_conf_items machines;
};

struct machine {
    struct hf_conf_title title;
    char *maker;
    struct hf_conf_list owners;
    struct hf_conf_pairs options;
    int64_t wait_ms;
};

static const char *const colours[] = {"red", "green", NULL};
static const char *const parts[] = {"head", "body", "tail", NULL};

static const char *check_title(const char *s)
{
    return *s >= 'A' && *s <= 'Z' ? NULL : "a capital first";
}

#define AT(m) offsetof(struct sample, m)
static const struct hf_conf_opt options[] = {
    {"", "flag", HF_CONF_BOOL, AT(flag), .def = "true", .doc = "A flag"},
    {"one", "count", HF_CONF_INT, AT(count), .min = -5, .max = 9, .def = "3", .doc = "A count"},
    {"one", "wait", HF_CONF_DURATION, AT(wait_ms), .max = 7200000, .def = "1500ms",
     .doc = "A wait"},
    {"one", "room", HF_CONF_SIZE, AT(room), .min = 1, .max = 1 << 30, .def = "64KiB",
     .remedy = "make room", .doc = "A size"},
    {"one.deep", "text", HF_CONF_STRING, AT(deep), .max = 20, .def = "", .doc = "Free text"},
    {"two", "title", HF_CONF_STRING, AT(title), .min = 1, .max = 5, .check = check_title,
     .def = "Abc", .doc = "A title"},
    {"two", "colour", HF_CONF_ENUM, AT(colour), .names = colours, .def = "green", .doc = "Colour"},
    {"two", "parts", HF_CONF_SET, AT(parts), .names = parts, .def = "head tail", .doc = "Parts"},
    {"two", "at", HF_CONF_ADDR, AT(at), .port = 80, .none = "none", .def = "none",
     .doc = "An address"},
    {"two", "more", HF_CONF_ADDR_LIST, AT(more), .port = 81, .def = "192.0.2.1 192.0.2.2:9",
     .doc = "Addresses"},
};

static const char *check_word(const char *s)
{
    return strchr(s, ' ') ? "a word" : NULL;
}

#define IN(m) offsetof(struct machine, m)
static const struct hf_conf_opt machine_options[] = {
    {"", "maker", HF_CONF_STRING, IN(maker), .min = 2, .max = 8, .def = "", .required = true,
     .doc = "Who made it"},
    {"", "owners", HF_CONF_LIST, IN(owners), .def = "", .check = check_word, .doc = "Owners"},
    {"", "options", HF_CONF_PAIRS, IN(options), .def = "", .doc = "Whatever"},
    {"", "wait", HF_CONF_DURATION, IN(wait_ms), .max = 9000, .def = "2s", .doc = "A wait"},
};
static const struct hf_conf_titled titled[] = {
    {"machine", AT(machines), sizeof(struct machine), machine_options,
     HF_ARRAY_LEN(machine_options), 3, check_word, "A machine", false},
};

static int finish(struct hf_conf_load *load, void *snapshot)
{
    struct sample *s = snapshot;
    for (size_t i = 0; i < s->machines.n; i++) {
        const struct machine *m = (struct machine *)s->machines.item + i;
        if (m->wait_ms == 7000) {
            char key[64];
            snprintf(key, sizeof(key), "machine %s.wait", m->title.name);
            return hf_conf_refuse(load, key, "seven is refused");
        }
        if (strcmp(m->title.name, "bad") == 0) {
            return hf_conf_refuse(load, "machine bad", "is refused");
        }
    }
    return s->count == 7 ? hf_conf_refuse(load, "one.count", "seven is refused") : 0;
}

static const struct hf_conf_schema schema = {
    options, HF_ARRAY_LEN(options), sizeof(struct sample), finish, titled, HF_ARRAY_LEN(titled),
    NULL};

static struct sample *load_ok(const char *text)
{
    struct hf_err err = {0};
    void *s = NULL;
    int rc = hf_conf_load_mem(&schema, "f", hf_slice_str(text), &err, &s);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return s;
}

static void assert_refused(const char *text, const char *expected)
{
    struct hf_err err = {0};
    void *s = NULL;
    assert_int_equal(hf_conf_load_mem(&schema, "f", hf_slice_str(text), &err, &s), -HF_ECONFIG);
    assert_null(s);
    assert_string_equal(err.text, expected);
}

static void assert_addr(const struct hf_addr *a, const char *expected)
{
    char str[HF_ADDR_STR_LEN];
    assert_string_equal(hf_addr_str(a, str), expected);
}

static void defaults(void **state)
{
    (void)state;
    struct sample *s = load_ok("");
    assert_true(s->flag);
    assert_int_equal(s->count, 3);
    assert_int_equal(s->wait_ms, 1500);
    assert_int_equal(s->room, 65536);
    assert_string_equal(s->deep, "");
    assert_string_equal(s->title, "Abc");
    assert_int_equal(s->colour, 1);
    assert_int_equal(s->parts, 5);
    assert_int_equal(s->at.len, 0);
    assert_int_equal(s->more.n, 2);
    assert_addr(&s->more.addr[0], "192.0.2.1:81");
    assert_addr(&s->more.addr[1], "192.0.2.2:9");
    hf_conf_destroy(&schema, s);
    hf_conf_destroy(&schema, NULL);
}

static const char full[] = "flag = no # comment\n"
                           "one { count = -5\n wait = 2h room = \"1GiB\" deep { text = 'a b' } }\n"
                           "two { title = Xyz colour = red parts = {body} // more\n"
                           " at = 127.0.0.1:7 more = {\"[2001:db8::1]:5\", 10.0.0.1} }\n"
                           "machine a { maker = us owners = { x, \"y:z\" } wait = 1s\n"
                           " options { ip = 10.0.0.1 # why\n passwd = \"p $x\" } }\n"
                           "machine 'b' { maker = them }\n";

static void every_type(void **state)
{
    (void)state;
    struct sample *s = load_ok(full);
    assert_false(s->flag);
    assert_int_equal(s->count, -5);
    assert_int_equal(s->wait_ms, 7200000);
    assert_int_equal(s->room, 1 << 30);
    assert_string_equal(s->deep, "a b");
    assert_string_equal(s->title, "Xyz");
    assert_int_equal(s->colour, 0);
    assert_int_equal(s->parts, 2);
    assert_addr(&s->at, "127.0.0.1:7");
    assert_int_equal(s->more.n, 2);
    assert_addr(&s->more.addr[0], "[2001:db8::1]:5");
    assert_addr(&s->more.addr[1], "10.0.0.1:81");
    hf_conf_destroy(&schema, s);
    s = load_ok("two { parts = {} more = {} }");
    assert_int_equal(s->parts, 0);
    assert_int_equal(s->more.n, 0);
    hf_conf_destroy(&schema, s);
}

static void titled_sections(void **state)
{
    (void)state;
    struct sample *s = load_ok(full);
    assert_int_equal(s->machines.n, 2);
    const struct machine *m = s->machines.item;
    assert_string_equal(m[0].title.name, "a");
    assert_string_equal(m[0].maker, "us");
    assert_int_equal(m[0].owners.n, 2);
    assert_string_equal(m[0].owners.item[1], "y:z");
    assert_int_equal(m[0].options.n, 2);
    assert_string_equal(m[0].options.pair[0].name, "ip");
    assert_string_equal(m[0].options.pair[0].value, "10.0.0.1");
    assert_string_equal(m[0].options.pair[1].value, "p $x");
    assert_int_equal(m[0].wait_ms, 1000);
    assert_string_equal(m[1].title.name, "b");
    assert_int_equal(m[1].owners.n, 0);
    assert_int_equal(m[1].options.n, 0);
    assert_int_equal(m[1].wait_ms, 2000);
    hf_conf_destroy(&schema, s);
}

static void errors_of_titled_sections(void **state)
{
    (void)state;
    assert_refused("\nmachine a { }", "f:2: machine a: has no maker: Who made it");
    assert_refused("machine a { maker = x }",
                   "f:1: machine a.maker: got \"x\", expected text of 2 to 8 bytes");
    assert_refused("machine 'a b' { maker = us }", "f:1: machine: got \"a b\", expected a word");
    assert_refused("machine a { maker = us\nowners = { x, 'y z' } }",
                   "f:2: machine a.owners: got \"y z\", expected a word");
    assert_refused("machine a { maker = us wait = 1s\nwait = 2s }",
                   "f:2: wait: given twice, first on line 1; keep one");
    assert_refused("machine a { maker = us options { a = 1 }\noptions { b = 1 } }",
                   "f:2: options: given twice, first on line 1; keep one");
    assert_refused("machine a { maker = us\nwait = 7s }\n",
                   "f:2: machine a.wait: seven is refused");
    assert_refused("machine b { maker = us }\nmachine bad { maker = us }\n",
                   "f:2: machine bad: is refused");
    assert_refused("machine a { maker = us }\nmachine a { maker = us }",
                   "f:2: found duplicate title 'a'");
    assert_refused("machine a { maker = us } machine b { maker = us } machine c { maker = us }\n"
                   "machine d { maker = us }",
                   "f:2: machine: got \"d\", expected at most 3 of them");
    assert_refused("machine a { makre = us }",
                   "f:1: no option or section \"makre\" in section \"machine\"; did you mean "
                   "\"maker\"?");
}

static void secrets_are_not_listed(void **state)
{
    (void)state;
    struct sample *s = load_ok(full);
    struct hf_buf out;
    hf_buf_init(&out, 8192);
    hf_conf_print(&schema, s, &out);
    hf_buf_add(&out, hf_slice("", 1));
    assert_non_null(strstr((char *)out.p, "passwd = \"***\""));
    assert_null(strstr((char *)out.p, "p $x"));
    assert_non_null(strstr((char *)out.p, "ip = \"10.0.0.1\""));
    hf_buf_fini(&out);
    hf_conf_destroy(&schema, s);
}

static void titled_sections_change_only_at_a_restart(void **state)
{
    (void)state;
    char key[64];
    struct sample *a = load_ok(full), *b = load_ok(full);
    assert_false(hf_conf_fixed_change(&schema, a, b, key, sizeof(key)));
    ((struct machine *)b->machines.item)[1].wait_ms = 1;
    assert_true(hf_conf_fixed_change(&schema, a, b, key, sizeof(key)));
    assert_string_equal(key, "machine");
    hf_conf_destroy(&schema, a);
    hf_conf_destroy(&schema, b);
}

static void errors_name_place_and_remedy(void **state)
{
    (void)state;
    assert_refused("one {\n count = 10\n}",
                   "f:2: one.count: got \"10\", expected a number, -5 to 9");
    assert_refused("one { wait = 5 }",
                   "f:1: one.wait: got \"5\", expected a duration (ms, s, m, h), 0 to 2h");
    assert_refused("\n\none { room = 0 }",
                   "f:3: one.room: got \"0\", expected a size (B, KiB, MiB, GiB), 1 to 1GiB; "
                   "make room");
    assert_refused("one { room = 99999999999999999999 }",
                   "f:1: one.room: got \"99999999999999999999\", expected a size (B, KiB, MiB, "
                   "GiB), 1 to 1GiB; make room");
    assert_refused("two { title = abc }", "f:1: two.title: got \"abc\", expected a capital first");
    assert_refused("two { title = Abcdef }",
                   "f:1: two.title: got \"Abcdef\", expected text of 1 to 5 bytes");
    assert_refused("two { colour = blue }", "f:1: two.colour: got \"blue\", expected red or green");
    assert_refused("two { parts = { head,\n foot } }",
                   "f:2: two.parts: got \"foot\", expected a list of head, body or tail");
    assert_refused("flag = maybe", "f:1: flag: got \"maybe\", expected true or false");
    assert_refused("flag = no\nflag = yes", "f:2: flag: given twice, first on line 1; keep one");
    assert_refused("one { deep { text = 'more than twenty bytes' } }",
                   "f:1: one.deep.text: got \"more than twenty bytes\", expected text of 0 to 20 "
                   "bytes");
    assert_refused("# one\nflag = no // two\n/* three\n */ two { # '\n title = 'a#\\'\"' }",
                   "f:5: two.title: got \"a#'\"\", expected a capital first");
    assert_refused("two { parts = { head }\n parts += { body } }",
                   "f:2: parts: given twice, first on line 1; keep one");
    assert_refused("one {\n count = 7 }", "f:2: one.count: seven is refused");
}

static void unknown_names_get_a_suggestion(void **state)
{
    (void)state;
    assert_refused("one {\n cuont = 1 }",
                   "f:2: no option or section \"cuont\" in section \"one\"; did you mean "
                   "\"count\"?");
    assert_refused("too { }", "f:1: no option or section \"too\"; did you mean \"two\"?");
    assert_refused("one { title = X }",
                   "f:1: no option or section \"title\" in section \"one\"; did you mean "
                   "\"title\" in section \"two\"?");
    assert_refused("completely = 1",
                   "f:1: no option or section \"completely\"; see holdfast.conf(5) for the "
                   "options of this section");
}

static void foreign_bytes_are_refused(void **state)
{
    (void)state;
    struct hf_err err;
    void *s = NULL;
    assert_int_equal(hf_conf_load_mem(&schema, "f", hf_slice("flag\0", 5), &err, &s), -HF_ECONFIG);
    static char big[HF_CONF_FILE_MAX + 1];
    memset(big, '\n', sizeof(big));
    assert_int_equal(hf_conf_load_mem(&schema, "f", hf_slice(big, sizeof(big)), &err, &s),
                     -HF_ECONFIG);
    for (size_t n = 0; n < sizeof(full); n++) { /* ends anywhere */
        if (hf_conf_load_mem(&schema, "f", hf_slice(full, n), &err, &s) == 0) {
            hf_conf_destroy(&schema, s);
        }
    }
}

static void a_listing_loads_to_the_same(void **state)
{
    (void)state;
    struct sample *s = load_ok(full);
    assert_int_equal(hf_conf_set_string(&s->deep, "q\"\\ ${HOME} \x01\n'#"), 0);
    struct hf_buf first, second;
    hf_buf_init(&first, 8192);
    hf_buf_init(&second, 8192);
    hf_conf_print(&schema, s, &first);
    hf_buf_add(&first, hf_slice("", 1));
    assert_int_equal(first.err, 0);
    struct sample *again = load_ok((const char *)first.p);
    assert_string_equal(again->deep, s->deep);
    hf_conf_print(&schema, again, &second);
    hf_buf_add(&second, hf_slice("", 1));
    assert_string_equal((char *)first.p, (char *)second.p);
    hf_buf_fini(&first);
    hf_buf_fini(&second);
    hf_conf_destroy(&schema, s);
    hf_conf_destroy(&schema, again);
}

static void the_manual_lists_every_option(void **state)
{
    (void)state;
    struct hf_buf out;
    hf_buf_init(&out, 8192);
    hf_conf_print_mdoc(&schema, &out);
    hf_buf_add(&out, hf_slice("", 1));
    assert_int_equal(out.err, 0);
    for (size_t i = 0; i < HF_ARRAY_LEN(options); i++) {
        char item[64];
        snprintf(item, sizeof(item), ".It Cm %s\n", options[i].name);
        assert_non_null(strstr((char *)out.p, item));
    }
    hf_buf_fini(&out);
}

static void files(void **state)
{
    (void)state;
    struct hf_err err;
    void *s = NULL;
    assert_int_equal(hf_conf_load(&schema, "/nonexistent/file", &err, &s), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/file"));
    char path[] = "/tmp/hf-conf-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, full, sizeof(full) - 1), sizeof(full) - 1);
    close(fd);
    assert_int_equal(hf_conf_load(&schema, path, &err, &s), 0);
    unlink(path);
    hf_conf_destroy(&schema, s);
}

static void each_failing_allocation(void **state)
{
    (void)state;
    int rc = -1;
    for (int n = 0; rc != 0; n++) {
        struct hf_err err;
        void *s = NULL;
        hf_mem_fail_after(n);
        rc = hf_conf_load_mem(&schema, "f", hf_slice_str(full), &err, &s);
        hf_mem_fail_after(-1);
        if (rc == 0) {
            hf_conf_destroy(&schema, s);
        } else {
            assert_null(s);
        }
        assert_true(n < 1000);
    }
}

static void durations(void **state)
{
    (void)state;
    int64_t ms;
    assert_true(hf_conf_duration("90s", &ms));
    assert_int_equal(ms, 90000);
    assert_false(hf_conf_duration("90", &ms));
    assert_false(hf_conf_duration("", &ms));
}

/* What the programs' tables share. */
static void shared(void **state)
{
    (void)state;
    assert_null(hf_conf_check_path("/x"));
    assert_string_equal(hf_conf_check_path("x"), "an absolute path");
    assert_string_equal(hf_conf_levels[2], "info");
    assert_int_equal(hf_conf_level(2), HF_LOG_INFO);
    assert_int_equal(hf_conf_level(0), HF_LOG_ERR);
    assert_non_null(hf_conf_traces[0]);
}

static void machine_name(void **state)
{
    (void)state;
    char name[HF_HOST_NAME_MAX + 1];
    hf_conf_machine_name(name);
    assert_null(strchr(name, '.'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(defaults),
        HF_TEST(every_type),
        HF_TEST(titled_sections),
        HF_TEST(errors_of_titled_sections),
        HF_TEST(secrets_are_not_listed),
        HF_TEST(titled_sections_change_only_at_a_restart),
        HF_TEST(errors_name_place_and_remedy),
        HF_TEST(unknown_names_get_a_suggestion),
        HF_TEST(foreign_bytes_are_refused),
        HF_TEST(a_listing_loads_to_the_same),
        HF_TEST(the_manual_lists_every_option),
        HF_TEST(files),
        HF_TEST(each_failing_allocation),
        HF_TEST(durations),
        HF_TEST(machine_name),
        HF_TEST(shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
