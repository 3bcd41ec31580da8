/*
 * Works on one host at a time: where the primary of a group is. With a group whose resource has no
 * agent that is all the group does (holdfast-group(5)).
 *
 *     cc -o lead lead.c $(pkg-config --cflags --libs libholdfast)
 *     ./lead jobs
 */
#include <holdfast/holdfast.h>
#include <poll.h>
#include <stdio.h>

struct leader {
    int leading;
    unsigned long long epoch; /* give it to those that you work on: they refuse an earlier one */
};

static void on_group(void *arg, const struct holdfast_group *g)
{
    struct leader *l = arg;
    if (l->leading && (!g->is_here || g->epoch != l->epoch)) {
        printf("stop working: epoch %llu is over\n", l->epoch); /* before this returns */
        l->leading = 0;
    }
    if (g->is_here && !l->leading) {
        l->leading = 1;
        l->epoch = g->epoch;
        printf("begin to work in epoch %llu\n", l->epoch);
    } else if (!g->is_here) {
        printf("%s: %s works\n", g->name, *g->host ? g->host : "nobody");
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct leader l = {0};
    struct holdfast *h;
    uint32_t follow;
    if (argc != 2) {
        fprintf(stderr, "usage: %s GROUP\n", argv[0]);
        return 2;
    }
    int rc = holdfast_create(NULL, "lead-example", &h);
    if (rc < 0) {
        fprintf(stderr, "%s\n", holdfast_strerror(rc));
        return 1;
    }
    if (holdfast_group_follow(h, argv[1], on_group, &l, &follow) < 0) {
        fprintf(stderr, "%s\n", holdfast_error(h));
        holdfast_destroy(h);
        return 1;
    }
    for (;;) {
        struct pollfd p[] = {
            {.fd = holdfast_fd(h), .events = POLLIN},
            {.fd = 0, .events = POLLIN}, /* your own descriptors; here: end of input ends us */
        };
        if (poll(p, 2, -1) < 0 || p[1].revents) {
            break;
        }
        holdfast_dispatch(h, 0);
    }
    holdfast_destroy(h);
    return 0;
}
