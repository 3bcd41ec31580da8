/* Tests of sip/overload: up at once, down when it is calm. */
#include "sip/overload.h"

#include "test.h"

static void test_levels(void **state)
{
    (void)state;
    struct hf_sip_overload o = {0};
    hf_time t = HF_S(1000);
    assert_int_equal(hf_sip_overload_step(&o, 100, 0, t), HF_SIP_SHED_NOTHING);
    assert_int_equal(hf_sip_overload_step(&o, 950, 0, t), HF_SIP_SHED_NOTHING); /* a moment */
    assert_int_equal(hf_sip_overload_step(&o, 500, 0, t), HF_SIP_SHED_NOTHING);
    assert_int_equal(hf_sip_overload_step(&o, 950, 0, t), HF_SIP_SHED_NOTHING);
    assert_int_equal(hf_sip_overload_step(&o, 950, 0, t), HF_SIP_SHED_NEW);
    for (int i = 0; i < 100; i++) { /* CPU alone never sheds all */
        assert_int_equal(hf_sip_overload_step(&o, 1000, 0, t), HF_SIP_SHED_NEW);
    }
    assert_int_equal(hf_sip_overload_step(&o, 1000, 600, t), HF_SIP_SHED_ALL);
    assert_int_equal(hf_sip_overload_step(&o, 1000, 400, t), HF_SIP_SHED_ALL);
    assert_int_equal(hf_sip_overload_step(&o, 1000, 299, t), HF_SIP_SHED_NEW);
    assert_int_equal(hf_sip_overload_step(&o, 100, 0, t), HF_SIP_SHED_NEW);
    assert_int_equal(hf_sip_overload_step(&o, 850, 0, t + HF_S(1)), HF_SIP_SHED_NEW); /* not calm */
    assert_int_equal(hf_sip_overload_step(&o, 100, 0, t + HF_S(2)), HF_SIP_SHED_NEW);
    assert_int_equal(hf_sip_overload_step(&o, 100, 0, t + HF_S(3)), HF_SIP_SHED_NEW);
    assert_int_equal(hf_sip_overload_step(&o, 100, 0, t + HF_S(4)), HF_SIP_SHED_NOTHING);
    assert_int_equal(hf_sip_overload_step(&o, 0, 250, t + HF_S(5)), HF_SIP_SHED_NEW);
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(test_levels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
