/*
 * Publishes a service and follows all others, with its own loop around poll(2):
 *
 *     cc -o watch watch.c $(pkg-config --cflags --libs libholdfast)
 *     ./watch /example/$$ '{"port": 8080}' /example
 */
#include <holdfast/holdfast.h>
#include <poll.h>
#include <stdio.h>

static void on_published(void *arg, int code, const char *text)
{
    if (code < 0) {
        fprintf(stderr, "%s is not published: %s\n", (const char *)arg, text);
    } else {
        printf("published %s\n", (const char *)arg);
    }
}

static void on_event(void *arg, enum holdfast_event event, const char *owner, const char *name,
                     const char *value)
{
    static const char *const words[] = {
        [HOLDFAST_ADDED] = "added",
        [HOLDFAST_CHANGED] = "changed",
        [HOLDFAST_REMOVED] = "removed",
        [HOLDFAST_SYNCED] = "that is all for now",
    };
    (void)arg;
    printf("%s %s %s %s\n", words[event], owner, name, value);
    fflush(stdout);
}

static void on_status(void *arg, int code)
{
    (void)arg;
    fprintf(stderr, "holdfastd: %s\n", code ? holdfast_strerror(code) : "connected");
}

int main(int argc, char **argv)
{
    struct holdfast *h;
    uint32_t watch;
    if (argc != 4) {
        fprintf(stderr, "usage: %s NAME JSON PREFIX\n", argv[0]);
        return 2;
    }
    int rc = holdfast_create(NULL, "watch-example", &h);
    if (rc < 0) {
        fprintf(stderr, "%s\n", holdfast_strerror(rc));
        return 1;
    }
    holdfast_on_status(h, on_status, NULL);
    if (holdfast_publish(h, argv[1], argv[2], 0, on_published, argv[1]) < 0 ||
        holdfast_watch(h, argv[3], on_event, NULL, &watch) < 0) {
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
    holdfast_destroy(h); /* what we hold leaves the tree */
    return 0;
}
