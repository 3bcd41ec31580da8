/* os/slots: replaced in turn, whatever is torn; what can't be read; what fails. */
#include "os/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "support/test.h"

#define ROOM 5000u
#define SLOT 8192

static char dir[64], path[96];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/hf-slots-XXXXXX");
    if (!mkdtemp(dir)) {
        return -1;
    }
    snprintf(path, sizeof(path), "%s/f", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static void holds(const char *want)
{
    struct hf_buf b;
    hf_buf_init(&b, ROOM);
    assert_int_equal(hf_slots_read(path, ROOM, &b), 0);
    hf_assert_slice_str(hf_buf_slice(&b), want);
    hf_buf_fini(&b);
}

static int reads(void)
{
    struct hf_buf b;
    hf_buf_init(&b, ROOM);
    int rc = hf_slots_read(path, ROOM, &b);
    assert_true(rc || b.n);
    hf_buf_fini(&b);
    return rc;
}

static void writes(const char *text)
{
    struct hf_err err;
    assert_int_equal(hf_slots_write(path, ROOM, hf_slice_str(text), 0600, &err), 0);
}

static void flip(off_t at)
{
    int fd = open(path, O_RDWR);
    uint8_t c;
    assert_true(fd >= 0 && pread(fd, &c, 1, at) == 1);
    c ^= 0x40;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static ino_t inode(void)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, 2 * SLOT);
    return st.st_ino;
}

static void in_turn(void **state)
{
    (void)state;
    unlink(path);
    assert_int_equal(reads(), -ENOENT);
    writes("one");
    holds("one");
    ino_t first = inode();
    writes("two");
    holds("two");
    writes("three");
    holds("three");
    writes("");
    struct hf_buf b;
    hf_buf_init(&b, ROOM);
    assert_int_equal(hf_slots_read(path, ROOM, &b), 0);
    assert_int_equal(b.n, 0);
    hf_buf_fini(&b);
    assert_int_equal(inode(), first); /* in place */
}

/* A power cut anywhere in the second write: the first is there; and the next write mends it. */
static void torn(void **state)
{
    (void)state;
    for (off_t at = 0; at < 32 + 3; at++) {
        unlink(path);
        writes("one");
        writes("two");
        flip(SLOT + at);
        holds("one");
        writes("new");
        holds("new");
        flip(SLOT + at); /* that went over the torn one */
        holds("one");
    }
}

static void unreadable(void **state)
{
    (void)state;
    struct hf_err err;
    unlink(path);
    writes("one");
    flip(33);
    assert_int_equal(reads(), -HF_EMALF);
    writes("two"); /* made anew */
    holds("two");
    assert_int_equal(truncate(path, SLOT), 0);
    assert_int_equal(reads(), -HF_EMALF);
    assert_int_equal(truncate(path, 3 * SLOT), 0);
    assert_int_equal(reads(), -HF_EMALF);
    writes("three");
    holds("three");
    static const uint8_t much[ROOM + 1];
    assert_int_equal(hf_slots_write(path, ROOM, hf_slice(much, ROOM + 1), 0600, &err), -HF_EFULL);
    assert_non_null(strstr(err.text, path));
    holds("three");
    assert_int_equal(hf_slots_write(path, ROOM, hf_slice(much, ROOM), 0600, &err), 0);
    assert_int_equal(hf_slots_write("/proc/nosuch/f", ROOM, hf_slice_str("x"), 0600, &err),
                     -ENOENT);
    assert_non_null(strstr(err.text, "/proc/nosuch/f"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(in_turn), HF_TEST(torn), HF_TEST(unreadable)};
    return cmocka_run_group_tests_name("os/slots", tests, make_dir, remove_dir);
}
