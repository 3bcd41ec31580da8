/* hostd/group_store: records, configurations and history; what is there, missing or torn. */
#include "hostd/group_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "support/test.h"

struct world {
    char dir[64];
    struct hf_group_store s;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct hf_err err = {0};
    const char *tmp = getenv("TMPDIR");
    snprintf(w->dir, sizeof(w->dir), "%.40s/hf-store-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(hf_group_store_init(&w->s, w->dir, "orders", &err), 0);
    assert_int_equal(hf_group_store_make(&w->s, &err), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    struct hf_err err = {0};
    char path[128];
    assert_int_equal(hf_group_store_remove(&w->s, &err), 0);
    assert_int_equal(hf_group_store_remove(&w->s, &err), 0); /* nothing there is fine */
    snprintf(path, sizeof(path), "%s/groups", w->dir);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(w->dir), 0);
    free(w);
    return 0;
}

static void groups_are_those_with_a_record(void **state)
{
    struct world *w = *state;
    hf_group_name name[HF_GROUPS_MAX];
    struct hf_err err = {0};
    size_t n = 9;
    assert_int_equal(hf_group_store_list("/nonexistent", &err, name, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(hf_group_store_list(w->dir, &err, name, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(hf_group_store_write_record(&w->s, hf_slice_str("r1"), &err), 0);
    assert_int_equal(hf_group_store_list(w->dir, &err, name, &n), 0);
    assert_int_equal(n, 1);
    assert_string_equal(name[0], "orders");
    struct stat st;
    assert_int_equal(stat(w->s.dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void records(void **state)
{
    struct world *w = *state;
    struct hf_err err = {0};
    struct hf_buf b;
    hf_buf_init(&b, 64);
    assert_int_equal(hf_group_store_read_record(&w->s, &b), -ENOENT);
    assert_int_equal(hf_group_store_write_record(&w->s, hf_slice_str("one"), &err), 0);
    assert_int_equal(hf_group_store_write_record(&w->s, hf_slice_str("two"), &err), 0);
    assert_int_equal(hf_group_store_read_record(&w->s, &b), 0);
    hf_assert_slice_str(hf_buf_slice(&b), "two");
    hf_buf_fini(&b);
}

static void configurations(void **state)
{
    struct world *w = *state;
    struct hf_err err = {0};
    struct hf_buf b;
    hf_buf_init(&b, 64);
    assert_int_equal(hf_group_store_read_config(&w->s, "copy1", &b), -ENOENT);
    assert_int_equal(hf_group_store_read_config(&w->s, "../record", &b), -HF_ENAME);
    assert_int_equal(hf_group_store_write_config(&w->s, "a/b", hf_slice_str("x"), &err), -HF_ENAME);
    assert_int_equal(hf_group_store_write_config(&w->s, "copy1", hf_slice_str("x"), &err), 0);
    assert_int_equal(hf_group_store_read_config(&w->s, "copy1", &b), 0);
    hf_assert_slice_str(hf_buf_slice(&b), "x");
    hf_buf_fini(&b);
}

static void assert_history(struct world *w, const char *expected)
{
    struct hf_buf b;
    hf_buf_init(&b, 1 << 20);
    assert_int_equal(hf_group_store_history(&w->s, &b), 0);
    hf_assert_slice_str(hf_buf_slice(&b), expected);
    hf_buf_fini(&b);
}

static void history(void **state)
{
    struct world *w = *state;
    assert_history(w, "[]\n");
    assert_int_equal(hf_group_store_note(&w->s, 1000, 1, "copy1 on alpha is \"primary\""), 0);
    assert_int_equal(hf_group_store_note(&w->s, 2000, 2, "over"), 0);
    assert_history(w, "[{\"at\":1000,\"epoch\":1,\"text\":\"copy1 on alpha is \\\"primary\\\"\"},\n"
                      "{\"at\":2000,\"epoch\":2,\"text\":\"over\"}]\n");
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/history", w->s.dir);
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    static const char torn[] = "{\"at\":1,\"epoch\":1,\"text\":\"a\"}\n{\"at\":2,\"ep";
    assert_int_equal(write(fd, torn, sizeof(torn) - 1), sizeof(torn) - 1);
    close(fd);
    assert_history(w, "[{\"at\":1,\"epoch\":1,\"text\":\"a\"}]\n");
}

static void a_long_history_loses_its_oldest(void **state)
{
    struct world *w = *state;
    char text[512];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(hf_group_store_note(&w->s, i, 1, text), 0);
    }
    struct hf_buf b;
    hf_buf_init(&b, 1 << 20);
    assert_int_equal(hf_group_store_history(&w->s, &b), 0);
    hf_buf_add(&b, hf_slice("", 1));
    assert_true(b.n < 300 << 10);
    assert_null(strstr((char *)b.p, "{\"at\":1,"));
    assert_non_null(strstr((char *)b.p, "{\"at\":999,"));
    hf_buf_fini(&b);
}

static void a_disk_error_is_told(void **state)
{
    struct world *w = *state;
    struct hf_err err = {0};
    struct hf_group_store nowhere = w->s;
    strcat(nowhere.dir, "-not");
    assert_int_equal(hf_group_store_write_record(&nowhere, hf_slice_str("x"), &err), -ENOENT);
    assert_non_null(strstr(err.text, nowhere.dir));
    assert_int_equal(hf_group_store_note(&nowhere, 1, 1, "x"), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        TEST(groups_are_those_with_a_record),
        TEST(records),
        TEST(configurations),
        TEST(history),
        TEST(a_long_history_loses_its_oldest),
        TEST(a_disk_error_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
