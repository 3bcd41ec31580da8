/* holdfast-announce: tells the neighbours, again and again, that an address is here now.
 *
 * Before each announcement it looks whether the address still is on the interface: a host that no
 * longer has it must not call it to itself. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "os/netaddr.h"

enum {
    EXIT_OK = 0,
    EXIT_SYSTEM = 1,
    EXIT_USAGE = 2,
    EXIT_GONE = 3,
};

static int run(const char *nic, const struct hf_endpoint *address, long count, long interval_ms)
{
    const struct timespec pause = {.tv_sec = interval_ms / 1000,
                                   .tv_nsec = interval_ms % 1000 * 1000000};
    struct hf_err err = {0};
    int rc = 0;

    if (!hf_netaddr_is_on(nic, address)) {
        fprintf(stderr, "holdfast-announce: %s does not have that address\n", nic);
        return EXIT_GONE;
    }
    for (long i = 0; i < count; i++) {
        if (i > 0) {
            nanosleep(&pause, NULL);
            if (!hf_netaddr_is_on(nic, address)) {
                return EXIT_GONE; /* moved on: whoever has it now says so */
            }
        }
        /* a link that is down may come up: the next one counts */
        rc = hf_netaddr_announce(nic, address, &err);
    }
    if (rc) {
        fprintf(stderr, "holdfast-announce: %s\n", err.text);
    }
    return rc ? EXIT_SYSTEM : EXIT_OK;
}

static long number(const char *text, long max)
{
    char *end = NULL;
    long n = strtol(text, &end, 10);

    return end == text || *end || n < 1 || n > max ? -1 : n;
}

int main(int argc, char **argv)
{
    struct hf_endpoint address = {.family = HF_AF_NONE};
    long count = 5;
    long interval_ms = 200;

    for (int opt; (opt = getopt(argc, argv, "c:i:")) != -1;) {
        if (opt == 'c') {
            count = number(optarg, 1000);
        } else if (opt == 'i') {
            interval_ms = number(optarg, 60000);
        } else {
            count = -1;
        }
    }
    if (argc - optind != 2 || count < 0 || interval_ms < 0) {
        fprintf(stderr,
                "usage: holdfast-announce [-c count] [-i milliseconds] interface address\n");
        return EXIT_USAGE;
    }
    const char *nic = argv[optind];
    const char *text = argv[optind + 1];

    if (inet_pton(AF_INET, text, address.addr) == 1) {
        address.family = HF_AF_INET;
    } else if (inet_pton(AF_INET6, text, address.addr) == 1) {
        address.family = HF_AF_INET6;
    } else {
        fprintf(stderr, "holdfast-announce: not an address: %s\n", text);
        return EXIT_USAGE;
    }
    if (if_nametoindex(nic) == 0) {
        fprintf(stderr, "holdfast-announce: %s: %s\n", nic, hf_strerror(-errno));
        return EXIT_SYSTEM;
    }
    return run(nic, &address, count, interval_ms);
}
