/* Tests of sip/steer: the program is loaded with the capability that the service has, CAP_BPF. */
#include "sip/steer.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

/* In a process of its own, with no capability but CAP_BPF. */
static bool loads_with_cap_bpf(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2] = {0};
    struct hf_err err;
    int program = -1, status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        caps[CAP_BPF / 32].effective = 1u << CAP_BPF % 32;
        caps[CAP_BPF / 32].permitted = caps[CAP_BPF / 32].effective;
        _exit(syscall(SYS_capset, &head, caps) == 0 && hf_sip_steer_load(2, &err, &program) == 0
                  ? 0
                  : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void loads(void **state)
{
    (void)state;
    struct hf_err err = {0};
    int program = -1, rc = hf_sip_steer_load(2, &err, &program);
    if (rc) { /* who may not is told so, and why */
        assert_non_null(strstr(err.text, "steering program"));
        assert_int_equal(program, -1);
        return;
    }
    assert_true(fcntl(program, F_GETFD) & FD_CLOEXEC);
    close(program);
    assert_true(loads_with_cap_bpf());
}

int main(void)
{
    const struct CMUnitTest tests[] = {HF_TEST(loads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
