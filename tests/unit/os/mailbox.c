/* Tests of os/mailbox: order, batches, one wake for many, bounds, several threads. */
#include "os/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "test.h"

static bool readable(const struct hf_mailbox *m)
{
    struct pollfd p = {.fd = hf_mailbox_fd(m), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void test_order(void **state)
{
    (void)state;
    struct hf_mailbox *m;
    struct hf_mail_batch b;
    struct hf_mail mail;
    struct hf_slice part[2] = {hf_slice_str("al"), hf_slice_str("pha")};
    assert_int_equal(hf_mailbox_create(1000, &m), 0);
    hf_mail_batch_init(&b, 1000);
    assert_false(readable(m));
    assert_int_equal(hf_mailbox_put(m, &b), 0); /* nothing in it */
    assert_false(readable(m));
    assert_int_equal(hf_mail_batch_add(&b, 1, part, 2), 0);
    assert_int_equal(hf_mail_batch_add(&b, 2, NULL, 0), 0);
    assert_int_equal(hf_mailbox_put(m, &b), 0);
    assert_int_equal(hf_mailbox_send(m, 3, &part[1], 1), 0);
    assert_true(readable(m));

    struct hf_slice all = hf_mailbox_take(m);
    assert_false(readable(m));
    assert_true(hf_mail_next(&all, &mail));
    assert_int_equal(mail.kind, 1);
    assert_int_equal((uintptr_t)mail.data.p % 8, 0);
    hf_assert_slice_str(mail.data, "alpha");
    assert_true(hf_mail_next(&all, &mail));
    assert_int_equal(mail.kind, 2);
    assert_int_equal(mail.data.n, 0);
    assert_true(hf_mail_next(&all, &mail));
    assert_int_equal((uintptr_t)mail.data.p % 8, 0);
    hf_assert_slice_str(mail.data, "pha");
    assert_false(hf_mail_next(&all, &mail));
    assert_int_equal(hf_mailbox_take(m).n, 0);
    hf_mail_batch_fini(&b);
    hf_mailbox_destroy(m);
    hf_mailbox_destroy(NULL);
}

static void test_bounds(void **state)
{
    (void)state;
    static const char big[200];
    struct hf_mailbox *m;
    struct hf_mail_batch b;
    struct hf_mail mail;
    struct hf_slice part = hf_slice(big, sizeof(big));
    assert_int_equal(hf_mailbox_create(300, &m), 0);
    hf_mail_batch_init(&b, 500);
    assert_int_equal(hf_mail_batch_add(&b, 1, &part, 1), 0);
    assert_int_equal(hf_mail_batch_add(&b, 2, &part, 1), 0);
    assert_int_equal(hf_mail_batch_add(&b, 3, &part, 1), -HF_EFULL);
    assert_int_equal(hf_mailbox_put(m, &b), -HF_EFULL); /* 416 bytes are more than 300 */
    assert_false(readable(m));
    assert_int_equal(hf_mail_batch_add(&b, 4, &part, 1), 0);
    assert_int_equal(hf_mailbox_put(m, &b), 0);
    assert_int_equal(hf_mail_batch_add(&b, 5, &part, 1), 0);
    assert_int_equal(hf_mailbox_put(m, &b), -HF_EFULL);
    assert_int_equal(hf_mailbox_send(m, 6, &part, 1), 0); /* not bounded */
    struct hf_slice all = hf_mailbox_take(m);
    assert_true(hf_mail_next(&all, &mail) && mail.kind == 4);
    assert_true(hf_mail_next(&all, &mail) && mail.kind == 6);
    assert_false(hf_mail_next(&all, &mail));
    hf_mem_fail_after(0);
    assert_int_equal(hf_mailbox_send(m, 7, &part, 1), -ENOMEM);
    hf_mem_fail_after(-1);
    assert_int_equal(hf_mailbox_send(m, 8, &part, 1), 0);
    hf_mail_batch_fini(&b);
    hf_mailbox_destroy(m);
}

#define THREADS 3
#define MAILS 20000

struct sender {
    struct hf_mailbox *m;
    uint32_t kind;
};

static void *run_sender(void *arg)
{
    const struct sender *s = arg;
    struct hf_mail_batch b;
    hf_mail_batch_init(&b, 1 << 20);
    for (uint32_t i = 0; i < MAILS; i++) {
        struct hf_slice part = hf_slice(&i, sizeof(i));
        if (i % 7 == 0) {
            if (hf_mailbox_put(s->m, &b) || hf_mailbox_send(s->m, s->kind, &part, 1)) {
                return (void *)(uintptr_t) "cannot send";
            }
        } else if (hf_mail_batch_add(&b, s->kind, &part, 1)) {
            return (void *)(uintptr_t) "cannot add";
        }
    }
    const char *why = hf_mailbox_put(s->m, &b) ? "cannot put" : NULL;
    hf_mail_batch_fini(&b);
    return (void *)(uintptr_t)why;
}

/* All mails of all threads, each thread's in its order, by waiting for the descriptor only. */
static void test_threads(void **state)
{
    (void)state;
    struct hf_mailbox *m;
    pthread_t thread[THREADS];
    struct sender s[THREADS];
    uint32_t next[THREADS] = {0};
    size_t left = THREADS * MAILS, wakes = 0;
    assert_int_equal(hf_mailbox_create(SIZE_MAX / 4, &m), 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        s[i] = (struct sender){.m = m, .kind = i};
        assert_int_equal(pthread_create(&thread[i], NULL, run_sender, &s[i]), 0);
    }
    while (left) {
        struct pollfd p = {.fd = hf_mailbox_fd(m), .events = POLLIN};
        struct hf_mail mail;
        assert_int_equal(poll(&p, 1, 30000), 1);
        wakes++;
        struct hf_slice all = hf_mailbox_take(m);
        while (hf_mail_next(&all, &mail)) {
            uint32_t i;
            assert_int_equal(mail.data.n, sizeof(i));
            memcpy(&i, mail.data.p, sizeof(i));
            assert_in_range(mail.kind, 0, THREADS - 1);
            assert_int_equal(i, next[mail.kind]++);
            left--;
        }
    }
    for (int i = 0; i < THREADS; i++) {
        void *why;
        assert_int_equal(pthread_join(thread[i], &why), 0);
        assert_null(why);
    }
    assert_true(wakes <= THREADS * MAILS);
    hf_mailbox_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(test_order), HF_TEST(test_bounds),
                                       HF_TEST(test_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
