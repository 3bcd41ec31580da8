/* os/file and os/key: bounded reads, replacing, locks; what a key file must be; RFC 5869. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "os/file.h"
#include "os/key.h"
#include "support/test.h"

static char dir[64];

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/hf-file-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(path_of("f"));
    rmdir(path_of("a/b"));
    rmdir(path_of("a"));
    return rmdir(dir);
}

static void replaces_and_reads(void **state)
{
    (void)state;
    struct hf_buf b;
    struct hf_err err;
    struct stat st;
    hf_buf_init(&b, 8);
    assert_int_equal(hf_file_read(path_of("f"), &b), -ENOENT);
    assert_int_equal(hf_file_replace(path_of("f"), hf_slice_str("old"), 0640, &err), 0);
    assert_int_equal(hf_file_replace(path_of("f"), hf_slice_str("12345678"), 0600, &err), 0);
    assert_int_equal(stat(path_of("f"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(hf_file_read(path_of("f"), &b), 0);
    hf_assert_slice_str(hf_buf_slice(&b), "12345678");
    hf_buf_clear(&b);
    assert_int_equal(hf_file_replace(path_of("f"), hf_slice_str("123456789"), 0600, &err), 0);
    assert_int_equal(hf_file_read(path_of("f"), &b), -HF_EFULL);
    assert_int_equal(b.n, 0);
    assert_int_equal(hf_file_read(dir, &b), -EISDIR);
    assert_int_not_equal(stat(path_of("f.new"), &st), 0);
    assert_int_equal(hf_file_replace("/proc/nosuch/f", hf_slice_str("x"), 0600, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/proc/nosuch/f"));
    hf_buf_fini(&b);
}

static void directories(void **state)
{
    (void)state;
    struct hf_err err;
    assert_int_equal(hf_file_make_dir(path_of("a/b"), 0700, &err), 0);
    assert_int_equal(hf_file_make_dir(path_of("a/b"), 0700, &err), 0);
    assert_int_equal(hf_file_replace(path_of("f"), hf_slice_str("x"), 0600, &err), 0);
    assert_int_equal(hf_file_make_dir(path_of("f/c"), 0700, &err), -ENOTDIR);
    assert_int_equal(hf_file_make_dir("", 0700, &err), -ENOENT);
}

static void directory_of_a_path(void **state)
{
    (void)state;
    struct hf_err err;
    struct stat st;
    rmdir(path_of("a/b"));
    assert_int_equal(hf_file_make_dir_of(path_of("a/b/socket"), 0700, &err), 0);
    assert_int_equal(stat(path_of("a/b"), &st), 0);
    assert_int_not_equal(stat(path_of("a/b/socket"), &st), 0);
    assert_int_equal(hf_file_make_dir_of("socket", 0700, &err), 0);
}

static void stale_sockets(void **state)
{
    (void)state;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct hf_err err;
    snprintf(un.sun_path, sizeof(un.sun_path), "%s/f", dir);
    assert_int_equal(hf_file_replace(path_of("f"), hf_slice_str("x"), 0600, &err), 0);
    assert_false(hf_file_is_stale_socket(&un)); /* somebody's file */
    unlink(un.sun_path);
    assert_false(hf_file_is_stale_socket(&un));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_false(hf_file_is_stale_socket(&un));
    close(fd);
    assert_true(hf_file_is_stale_socket(&un));
    unlink(un.sun_path);
}

static void key_file(void **state)
{
    (void)state;
    struct hf_err err;
    struct hf_key a, b, other;
    unlink(path_of("f"));
    assert_int_equal(hf_key_load(path_of("f"), &err, &a), -ENOENT);
    assert_int_equal(hf_key_generate(path_of("f"), &err), 0);
    assert_int_equal(hf_key_generate(path_of("f"), &err), -EEXIST);
    assert_int_equal(hf_key_load(path_of("f"), &err, &a), 0);
    assert_int_equal(hf_key_load(path_of("f"), &err, &b), 0);
    assert_memory_equal(&a, &b, sizeof(a));
    assert_int_equal(hf_key_id(&a), hf_key_id(&b));
    other = a;
    other.b[31] ^= 1;
    assert_int_not_equal(hf_key_id(&a), hf_key_id(&other));
    for (unsigned bit = 1; bit <= 040; bit <<= 1) { /* any right of group or others */
        assert_int_equal(chmod(path_of("f"), 0600 | bit), 0);
        assert_int_equal(hf_key_load(path_of("f"), &err, &b), -HF_EKEY);
    }
    hf_key_wipe(&a);
    static const struct hf_key zero;
    assert_memory_equal(&a, &zero, sizeof(a));
}

static void key_text(void **state)
{
    (void)state;
    char good[80];
    memset(good, 'a', 64);
    good[63] = 'F';
    strcpy(good + 64, "\n");
    struct {
        size_t n;
        char c; /* at position 10 */
        int rc;
    } rows[] = {{64, 'a', 0},         {65, 'B', 0},        {63, 'a', -HF_EKEY},
                {0, 'a', -HF_EKEY},   {66, 'a', -HF_EKEY}, {64, 'g', -HF_EKEY},
                {64, ' ', -HF_EKEY},  {64, '/', -HF_EKEY}, {64, ':', -HF_EKEY},
                {64, '\0', -HF_EKEY}, {64, '@', -HF_EKEY}, {64, '`', -HF_EKEY}};
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        struct hf_key key;
        good[10] = rows[i].c;
        good[65] = '\n';
        assert_int_equal(hf_file_replace(path_of("f"), hf_slice(good, rows[i].n), 0600, NULL), 0);
        assert_int_equal(hf_key_load(path_of("f"), NULL, &key), rows[i].rc);
    }
}

/* Computed apart from this code: HMAC-SHA256 twice, as RFC 5869 says, with Python's hmac. */
static void derives(void **state)
{
    (void)state;
    struct hf_key key;
    uint8_t out[42];
    memset(&key, 0x0b, sizeof(key));
    static const uint8_t want[42] = {
        0xcf, 0x99, 0x41, 0x09, 0x2b, 0x80, 0xe1, 0xdb, 0xe6, 0x41, 0xbe, 0x21, 0x1b, 0xe3,
        0x9d, 0x3d, 0xb1, 0x99, 0xc0, 0xa1, 0x21, 0xe8, 0x07, 0xdb, 0xfa, 0x8e, 0xd7, 0x94,
        0xfe, 0xa6, 0x95, 0xe3, 0xcd, 0xc5, 0x0e, 0x29, 0x7f, 0xe1, 0x92, 0xd4, 0x20, 0x5a,
    };
    assert_int_equal(hf_key_derive(&key, hf_slice_str("info"), out, sizeof(out)), 0);
    assert_memory_equal(out, want, sizeof(out));
    uint8_t other[42];
    assert_int_equal(hf_key_derive(&key, hf_slice_str("infp"), other, sizeof(other)), 0);
    assert_memory_not_equal(out, other, sizeof(out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(replaces_and_reads),
        HF_TEST(directories),
        HF_TEST(directory_of_a_path),
        HF_TEST(stale_sockets),
        HF_TEST(key_file),
        HF_TEST(key_text),
        HF_TEST(derives),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
