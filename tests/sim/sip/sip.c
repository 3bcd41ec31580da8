/* sim-sip: the real cores of homes between simulated clients, servers and a database. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sip/world.h"

static const char more[] =
    "sim-sip --balance [--servers N] [--clients N] [--seed N] [--json FILE]\n"
    "    the rebalancer with many clients: failures, additions, skewed load\n"
    "sim-sip --bench [--servers N] [--clients N]\n"
    "    what the cores cost\n";

static const struct option options[] = {
    {"balance", no_argument, NULL, 'b'},
    {"bench", no_argument, NULL, 'B'},
    {"servers", required_argument, NULL, 'n'},
    {"clients", required_argument, NULL, 'c'},
    {"seed", required_argument, NULL, 's'},
    {"json", required_argument, NULL, 'j'},
    {0},
};

static uint64_t number(uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(optarg, &end, 10);
    if (errno || end == optarg || *end || n > max) {
        fputs(more, stderr);
        exit(2);
    }
    return n;
}

/* --balance, --bench */
static int many(int argc, char **argv)
{
    struct swx_options o = {.seed = 1, .servers = 200, .clients = 10000000};
    bool bench = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'b':
            break;
        case 'B':
            bench = true;
            break;
        case 'n':
            o.servers = (uint32_t)number(UINT32_MAX);
            break;
        case 'c':
            o.clients = (uint32_t)number(UINT32_MAX);
            break;
        case 's':
            o.seed = number(UINT64_MAX);
            break;
        case 'j':
            o.json = optarg;
            break;
        default:
            fputs(more, stderr);
            return 2;
        }
    }
    return bench ? swx_bench(&o) : swx_balance(&o);
}

int main(int argc, char **argv)
{
    const struct sim_runner r = {
        .program = "sim-sip",
        .what = "many small worlds with all faults, one seed each",
        .runs = 1000,
        .figures = swx_figures,
        .highest = swx_highest,
        .run = swx_run,
        .prefix = "sip",
        .n_stories = swx_n_stories(),
        .story = swx_story,
        .tell = swx_tell,
        .more = more,
    };
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--balance") == 0 || strcmp(argv[i], "--bench") == 0) {
            return many(argc, argv);
        }
    }
    return sim_main(argc, argv, &r);
}
