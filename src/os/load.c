#include "os/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* MemAvailable of proc(5), in kB. */
static uint64_t memory_available(void)
{
    char line[128];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) {
        return 0;
    }
    while (fgets(line, sizeof(line), f) && sscanf(line, "MemAvailable: %llu kB", &kb) != 1) {
    }
    fclose(f);
    return kb * 1024;
}

void hf_load_read(struct hf_load *ret_load)
{
    double running;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    *ret_load = (struct hf_load){.running = getloadavg(&running, 1) == 1 ? running : 0,
                                 .cpus = cpus > 0 ? (unsigned)cpus : 0,
                                 .memory_available = memory_available()};
}
