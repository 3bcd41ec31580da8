/* sim-pair: the real pair cores between toy sessions, clients, a database and a group. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/pair/chaos.h"

static const struct option options[] = {
    {"seed", required_argument, NULL, 's'},
    {"runs", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 't'},
    {"seeds", required_argument, NULL, 'k'},
    {"trace", no_argument, NULL, 'T'},
    {"keep-going", no_argument, NULL, 'K'},
    {"golden", required_argument, NULL, 'g'},
    {"write", no_argument, NULL, 'w'},
    {0},
};

static void usage(void)
{
    fprintf(stderr, "sim-pair [--seed N] [--runs N | --seconds N] [--seeds FILE] [--keep-going]\n"
                    "    many small worlds with all faults, one seed each; first those of FILE\n"
                    "sim-pair --seed N --runs 1 --trace\n"
                    "    one of them, told line by line\n"
                    "sim-pair --golden DIRECTORY [--write]\n"
                    "    documented moments, compared with (or written as) golden traces\n");
    exit(2);
}

static uint64_t number(void)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(optarg, &end, 10);
    if (errno || end == optarg || *end) {
        usage();
    }
    return n;
}

int main(int argc, char **argv)
{
    struct pwx_options o = {.seed = 1, .runs = 1000};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            o.seed = number();
            break;
        case 'r':
            o.runs = number();
            break;
        case 't':
            o.seconds = (uint32_t)number();
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
    return o.golden ? pwx_stories(&o) : pwx_chaos(&o);
}
