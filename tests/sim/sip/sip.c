/* sim-sip: the real cores of homes between simulated clients, servers and a database. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/sip/world.h"

static const struct option options[] = {
    {"seed", required_argument, NULL, 's'},    {"runs", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 't'}, {"seeds", required_argument, NULL, 'k'},
    {"trace", no_argument, NULL, 'T'},         {"keep-going", no_argument, NULL, 'K'},
    {"golden", required_argument, NULL, 'g'},  {"write", no_argument, NULL, 'w'},
    {"balance", no_argument, NULL, 'b'},       {"servers", required_argument, NULL, 'n'},
    {"clients", required_argument, NULL, 'c'}, {"json", required_argument, NULL, 'j'},
    {"bench", no_argument, NULL, 'B'},         {0},
};

static void usage(void)
{
    fprintf(stderr, "sim-sip [--seed N] [--runs N | --seconds N] [--seeds FILE] [--keep-going]\n"
                    "    many small worlds with all faults, one seed each; first those of FILE\n"
                    "sim-sip --seed N --runs 1 --trace\n"
                    "    one of them, told line by line\n"
                    "sim-sip --golden DIRECTORY [--write]\n"
                    "    documented scenarios, compared with (or written as) golden traces\n"
                    "sim-sip --balance [--servers N] [--clients N] [--seed N] [--json FILE]\n"
                    "    the rebalancer with many clients: failures, additions, skewed load\n"
                    "sim-sip --bench [--servers N] [--clients N]\n"
                    "    what the cores cost\n");
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
    struct swx_options o = {.seed = 1, .runs = 1000, .servers = 200, .clients = 10000000};
    bool balance = false, bench = false;
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
        case 'b':
            balance = true;
            break;
        case 'B':
            bench = true;
            break;
        case 'n':
            o.servers = (uint32_t)number();
            break;
        case 'c':
            o.clients = (uint32_t)number();
            break;
        case 'j':
            o.json = optarg;
            break;
        default:
            usage();
        }
    }
    if (optind != argc) {
        usage();
    }
    if (bench) {
        return swx_bench(&o);
    }
    return balance ? swx_balance(&o) : o.golden ? swx_stories(&o) : swx_chaos(&o);
}
