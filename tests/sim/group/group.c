/* sim-group: the group's real cores in a simulated cluster. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>

#include "sim/group/world.h"

static const struct option options[] = {
    {"seed", required_argument, NULL, 's'},    {"runs", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 't'}, {"jobs", required_argument, NULL, 'j'},
    {"seeds", required_argument, NULL, 'k'},   {"trace", no_argument, NULL, 'T'},
    {"keep-going", no_argument, NULL, 'K'},    {"golden", required_argument, NULL, 'g'},
    {"write", no_argument, NULL, 'w'},         {0},
};

static void usage(void)
{
    fprintf(stderr, "sim-group [--seed N] [--runs N | --seconds N] [--jobs N] [--seeds FILE]\n"
                    "          [--keep-going]\n"
                    "    many small groups with all faults, one seed each; first those of FILE\n"
                    "sim-group --seed N --runs 1 --trace\n"
                    "    one of them, told line by line\n"
                    "sim-group --golden DIRECTORY [--write]\n"
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
    struct gs_options o = {.seed = 1, .runs = 1000, .jobs = 1};
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
        case 'j':
            o.jobs = (uint32_t)number(64);
            break;
        case 'k':
            o.seeds = optarg;
            break;
        case 'T':
            o.trace = true;
            break;
        case 'K':
            o.keep_going = true;
            break;
        case 'g':
            o.golden = optarg;
            break;
        case 'w':
            o.write_golden = true;
            break;
        default:
            usage();
        }
    }
    if (optind != argc) {
        usage();
    }
    return o.golden ? gs_stories(&o) : gs_chaos(&o);
}
