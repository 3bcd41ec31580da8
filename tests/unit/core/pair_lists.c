/* core/pair/lists: who is the backup, what the group's lists answer, what is told of mirrors. */
#include <string.h>

#include "core/pair/lists.h"
#include "support/test.h"

static struct hf_pair_lists l;

static int setup(void **state)
{
    (void)state;
    memset(&l, 0, sizeof(l));
    return 0;
}

static void backup_is(const char *copy, uint32_t id)
{
    const struct hf_pair_mirror *m;
    assert_int_equal(hf_pair_lists_backup(&l, &m), id);
    if (copy) {
        assert_string_equal(m->copy, copy);
    } else {
        assert_null(m);
    }
}

static void who_is_chosen(void **state)
{
    (void)state;
    backup_is(NULL, 0);
    assert_true(hf_pair_lists_take(&l, "copy2=beta@10.0.0.2=async copy3=gamma@10.0.0.3=async"));
    backup_is("copy2", 1); /* the first that has a host */
    assert_string_equal(l.mirror[0].host, "beta");
    assert_string_equal(l.mirror[0].address, "10.0.0.2");
    assert_true(hf_pair_lists_take(&l, "copy2=beta@10.0.0.2=async copy3=gamma@10.0.0.3=sync"));
    backup_is("copy3", 2); /* who may be promoted */
    assert_false(hf_pair_lists_take(&l, "copy2=beta@10.0.0.2=async copy3=gamma@10.0.0.3=async"));
    backup_is("copy3", 2); /* who it was */
    assert_false(hf_pair_lists_take(&l, "copy3==sync copy2=beta@10.0.0.2=async"));
    backup_is("copy3", 2);
    assert_string_equal(l.mirror[0].host, "");
    assert_true(hf_pair_lists_take(&l, "copy3==async"));
    backup_is(NULL, 0); /* without a host, and nobody counts on it */
    assert_false(hf_pair_lists_take(&l, "nonsense copy2=beta"));
    backup_is(NULL, 0);
    hf_pair_lists_reset(&l);
    assert_true(hf_pair_lists_take(&l, "copy3=gamma@10.0.0.3=sync"));
    backup_is("copy3", 4); /* ids go on */
}

static void asked(enum hf_pair_out_kind kind, uint64_t id)
{
    hf_pair_lists_ask(&l, &(struct hf_pair_out){.kind = kind, .id = id});
}

static void answers(void **state)
{
    (void)state;
    assert_true(hf_pair_lists_take(&l, "copy2=beta@10.0.0.2=sync"));
    assert_int_equal(hf_pair_lists_answer(&l), 0);
    asked(HF_PAIR_OUT_ASK_SOLO, 1);
    assert_int_equal(hf_pair_lists_answer(&l), 0);
    assert_false(hf_pair_lists_take(&l, "copy2=beta@10.0.0.2=async"));
    assert_int_equal(hf_pair_lists_answer(&l), 1);
    assert_int_equal(hf_pair_lists_answer(&l), 0); /* once */
    asked(HF_PAIR_OUT_ASK_RECORD, 2);
    assert_int_equal(hf_pair_lists_answer(&l), 0);
    assert_false(hf_pair_lists_growing(&l));
    assert_false(hf_pair_lists_take(&l, "copy2=beta@10.0.0.2=grow"));
    assert_true(hf_pair_lists_growing(&l));
    assert_int_equal(hf_pair_lists_answer(&l), 0); /* not in S yet */
    hf_pair_lists_note(&l, "copy3=gamma@10.0.0.3=sync");
    assert_int_equal(hf_pair_lists_answer(&l), 0);
    hf_pair_lists_note(&l, "copy2=beta@10.0.0.2=sync");
    assert_false(hf_pair_lists_growing(&l));
    assert_int_equal(hf_pair_lists_answer(&l), 2);
    /* only the last ask counts */
    asked(HF_PAIR_OUT_ASK_SOLO, 3);
    asked(HF_PAIR_OUT_ASK_RECORD, 4);
    assert_int_equal(hf_pair_lists_answer(&l), 4);
    asked(HF_PAIR_OUT_ASK_RECORD, 5);
    asked(HF_PAIR_OUT_ASK_SOLO, 6);
    assert_int_equal(hf_pair_lists_answer(&l), 0);
    hf_pair_lists_note(&l, "copy2=beta@10.0.0.2=async"); /* a question puts nothing in force */
    assert_int_equal(hf_pair_lists_answer(&l), 0);
    assert_false(hf_pair_lists_take(&l, "copy2=beta@10.0.0.2=async"));
    assert_int_equal(hf_pair_lists_answer(&l), 6);
}

static void told(enum hf_pair_state state, const char *text)
{
    char buf[160];
    const struct hf_pair_primary_info info = {.state = state, .sessions = 10, .unsent = 6};
    hf_pair_lists_state(&l, 0, &info, buf, sizeof(buf));
    assert_string_equal(buf, text);
    hf_pair_lists_state(&l, 1, &info, buf, sizeof(buf));
    assert_string_equal(buf,
                        "suspended beta is the backup; this one takes its place if beta leaves "
                        "the group, or its holdfast-pg stops");
    bool has_all = state == HF_PAIR_STATE_RECORDING || state == HF_PAIR_STATE_IN_SYNC;
    assert_int_equal(hf_pair_lists_has_all(&info), has_all);
}

static void what_is_told(void **state)
{
    (void)state;
    static const char suspended[] = "suspended no word from it, or it has nothing";
    assert_true(hf_pair_lists_take(&l, "copy2=beta@10.0.0.2=async copy3=gamma@10.0.0.3=async"));
    told(HF_PAIR_STATE_CONNECTING, "syncing 0");
    told(HF_PAIR_STATE_SYNCING, "syncing 40");
    told(HF_PAIR_STATE_RECORDING, "caught-up");
    assert_false(hf_pair_lists_take(&l, "copy2=beta@10.0.0.2=sync copy3=gamma@10.0.0.3=async"));
    told(HF_PAIR_STATE_IN_SYNC, "in-sync");
    told(HF_PAIR_STATE_LOST, "in-sync"); /* for a moment: it may be back */
    asked(HF_PAIR_OUT_ASK_SOLO, 1);
    told(HF_PAIR_STATE_LOST, suspended);
    told(HF_PAIR_STATE_SYNCING, suspended); /* it came back empty: the group may let go of it */
    asked(HF_PAIR_OUT_ASK_RECORD, 2);
    told(HF_PAIR_STATE_RECORDING, "in-sync");
}

static void leases(void **state)
{
    (void)state;
    struct hf_pair_primary_info info = {.solo = true, .echoed = HF_S(3)};
    assert_true(hf_pair_lease_until(&info, HF_MS(200)) == HF_NEVER);
    info.solo = false;
    assert_true(hf_pair_lease_until(&info, HF_MS(200)) == HF_S(3) + HF_MS(200));
    assert_true(hf_pair_lease_until(&info, 0) == HF_NEVER);
}

int main(void)
{
#define WITH_LISTS(fn) cmocka_unit_test_setup(fn, setup)
    const struct CMUnitTest tests[] = {
        WITH_LISTS(who_is_chosen),
        WITH_LISTS(answers),
        WITH_LISTS(what_is_told),
        WITH_LISTS(leases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
