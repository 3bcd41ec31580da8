/* Tests of base/list: in which order nodes come, and whose they are. */
#include "base/list.h"

#include "support/test.h"

static void check(struct hf_list *head, struct hf_list *const *want, size_t n)
{
    size_t i = 0;
    HF_LIST_FOREACH (it, head) {
        assert_true(i < n);
        assert_ptr_equal(it, want[i]);
        assert_ptr_equal(it->next->prev, it);
        i++;
    }
    assert_int_equal(i, n);
    assert_int_equal(hf_list_empty(head), n == 0);
}

static void order(void **state)
{
    (void)state;
    struct hf_list head, a, b, c;
    hf_list_init(&head);
    hf_list_init(&b);
    check(&head, NULL, 0);
    hf_list_unlink(&b); /* it is on none */
    hf_list_insert(&head, &a);
    hf_list_insert(&head, &c);
    hf_list_insert(&c, &b);
    check(&head, (struct hf_list *const[]){&a, &b, &c}, 3);
    hf_list_unlink(&b);
    assert_true(hf_list_empty(&b));
    check(&head, (struct hf_list *const[]){&a, &c}, 2);
    HF_LIST_FOREACH (it, &head) {
        hf_list_unlink(it);
    }
    check(&head, NULL, 0);
}

static void taken(void **state)
{
    (void)state;
    struct hf_list from, to, again, a, b;
    hf_list_init(&from);
    hf_list_take(&to, &from);
    check(&to, NULL, 0);
    check(&from, NULL, 0);
    hf_list_insert(&from, &a);
    hf_list_take(&to, &from);
    check(&to, (struct hf_list *const[]){&a}, 1);
    hf_list_insert(&to, &b);
    hf_list_take(&again, &to);
    check(&again, (struct hf_list *const[]){&a, &b}, 2);
    check(&to, NULL, 0);
    check(&from, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(order), HF_TEST(taken)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
