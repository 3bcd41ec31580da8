/* os/load: this host has a CPU and some memory. */
#include "os/load.h"

#include <unistd.h>

#include "support/test.h"

static void this_host(void **state)
{
    (void)state;
    struct hf_load l;
    hf_load_read(&l);
    assert_true(l.cpus >= 1);
    assert_true(l.running >= 0);
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    assert_in_range(l.memory_available, page, (uint64_t)sysconf(_SC_PHYS_PAGES) * page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(this_host)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
