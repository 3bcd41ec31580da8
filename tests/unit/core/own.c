/* core/directory/own: a publisher's changes with the nth allocation failing. */
#include <errno.h>
#include <stdio.h>

#include "base/mem.h"
#include "core/directory/directory.h"
#include "support/test.h"

struct rig {
    struct hf_dir_store *store;
    struct hf_dir *d;
    struct hf_dir_out out;
};

static void rig_init(struct rig *r)
{
    struct hf_dir_conf conf = {
        .host = hf_slice_str("me"), .heartbeat_ms = 100, .sync_ms = 100, .incarnation = 1};
    assert_int_equal(hf_dir_store_create(4, 1, &r->store), 0);
    assert_int_equal(hf_dir_create(&conf, r->store, HF_S(1), &r->d), 0);
    hf_dir_out_init(&r->out);
}

static void rig_fini(struct rig *r)
{
    hf_dir_out_fini(&r->out);
    hf_dir_destroy(r->d);
    hf_dir_store_destroy(r->store);
}

static int publish(struct rig *r, uint32_t name, uint32_t value)
{
    char n[16], v[32];
    struct hf_dir_in in = {.kind = HF_DIR_IN_PUBLISH};
    in.publisher = 1;
    in.name = hf_slice(n, (size_t)snprintf(n, sizeof(n), "/n%u", name));
    in.value = hf_slice(v, (size_t)snprintf(v, sizeof(v), "{\"v\":%u}", value));
    hf_dir_step(r->d, &in, HF_S(1), &r->out);
    assert_true(r->out.n > 0 && r->out.act[r->out.n - 1].kind == HF_DIR_ACT_RESULT);
    return r->out.act[r->out.n - 1].rc;
}

/* New names and new values of old ones, whatever the table's fill: refused, never a failed assert.
 */
static void without_memory_it_is_refused(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    uint32_t value = 0;
    for (uint32_t names = 1; names <= 70; names++) {
        for (uint32_t name = names; name < names + 2; name++) {
            int rc = -ENOMEM;
            for (int64_t n = 0; rc; n++) {
                hf_mem_fail_after(n);
                rc = publish(&r, name % names, ++value);
                hf_mem_fail_after(-1);
                assert_true(rc == 0 || rc == -ENOMEM);
                if (rc == 0) {
                    struct hf_dir_local_info info;
                    char text[16];
                    snprintf(text, sizeof(text), "/n%u", name % names);
                    assert_true(hf_dir_local_info(r.d, hf_slice_str(text), &info));
                    assert_int_equal(info.publisher, 1);
                }
            }
        }
        assert_int_equal(publish(&r, names, ++value), 0);
    }
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(without_memory_it_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
