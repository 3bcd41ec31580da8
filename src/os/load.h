/* How busy this host is. */
#pragma once

#include <stdint.h>

struct hf_load {
    double running;            /* processes that ran or wanted to, mean of the last minute */
    unsigned cpus;             /* that are online */
    uint64_t memory_available; /* bytes that programs could have without swapping */
};
/** What can't be known is 0. */
void hf_load_read(struct hf_load *ret_load);
