/* sim-directory: the directory's real cores in a simulated cluster. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/sim.h"

static const struct option options[] = {
    {"seed", required_argument, NULL, 's'},
    {"runs", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 't'},
    {"hosts", required_argument, NULL, 'n'},
    {"services", required_argument, NULL, 'e'},
    {"loss", required_argument, NULL, 'l'},
    {"shared", no_argument, NULL, 'S'},
    {"dump", no_argument, NULL, 'd'},
    {"json", required_argument, NULL, 'j'},
    {"golden", required_argument, NULL, 'g'},
    {"write", no_argument, NULL, 'w'},
    {"verbose", no_argument, NULL, 'v'},
    {0},
};

static void usage(void)
{
    fprintf(
        stderr,
        "sim-directory [--seed N] [--runs N | --seconds N] [--verbose]\n"
        "    many small clusters with all faults, one seed each\n"
        "sim-directory --hosts N --shared [--services N] [--loss PERCENT] [--dump] [--json FILE]\n"
        "    one large cluster\n"
        "sim-directory --golden DIRECTORY [--write]\n"
        "    documented scenarios, compared with (or written as) golden traces\n");
    exit(2);
}

static uint64_t number(uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(optarg, &end, 10);
    if (errno || end == optarg || *end || n > max) {
        usage();
    }
    return n;
}

int main(int argc, char **argv)
{
    struct sim_options o = {.seed = 1, .runs = 100, .services = 5, .loss_percent = 5};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            o.seed = number(UINT64_MAX / 4);
            break;
        case 'r':
            o.runs = number(UINT32_MAX);
            break;
        case 't':
            o.seconds = (uint32_t)number(1000000);
            break;
        case 'n':
            o.hosts = (uint32_t)number(16384);
            break;
        case 'e':
            o.services = (uint32_t)number(100);
            break;
        case 'l':
            o.loss_percent = (uint32_t)number(90);
            break;
        case 'S':
            o.shared = true;
            break;
        case 'd':
            o.dump = true;
            break;
        case 'j':
            o.json = optarg;
            break;
        case 'g':
            o.golden = optarg;
            break;
        case 'w':
            o.write_golden = true;
            break;
        case 'v':
            o.verbose = true;
            break;
        default:
            usage();
        }
    }
    if (optind != argc || (o.hosts > 0 && (o.hosts < 10 || !o.shared))) {
        usage();
    }
    return o.golden ? sim_stories(&o) : o.hosts ? sim_scale(&o) : sim_chaos(&o);
}
