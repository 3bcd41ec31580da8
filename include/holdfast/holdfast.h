/*
 * libholdfast: publish services in a Holdfast cluster's directory, follow those of others, and
 * follow groups: where their primary runs, and whether that is here.
 *
 * A handle speaks to the local holdfastd. It has one file descriptor to wait for, never changing,
 * no threads, and no event loop of its own: wait until holdfast_fd() is readable, then call
 * holdfast_dispatch(). When holdfastd restarts, the handle connects again by itself, publishes
 * again what it holds, and tells watchers exactly what has changed meanwhile.
 *
 * Threads: a handle may be used by one thread at a time. Callbacks run only inside
 * holdfast_dispatch() and the functions with a time limit, in the thread that called them. They may
 * publish, withdraw, watch, unwatch, follow and unfollow; they must not call holdfast_dispatch(), a
 * function with a time limit, or holdfast_destroy().
 *
 * Results: 0, or negative: -errno, or one of enum holdfast_error.
 */
#ifndef HOLDFAST_HOLDFAST_H
#define HOLDFAST_HOLDFAST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Used when neither the caller nor the environment ($HOLDFAST_SOCKET) names a socket. */
#define HOLDFAST_SOCKET_DEFAULT "/run/holdfast/control.sock"

enum holdfast_error {
    HOLDFAST_EVERSION = -1003,  /* holdfastd speaks another version of the protocol */
    HOLDFAST_EFULL = -1007,     /* a limit is reached */
    HOLDFAST_ERATE = -1008,     /* too many changes in a short time */
    HOLDFAST_ENAME = -1009,     /* not a valid name: a path like /pg/orders/primary */
    HOLDFAST_EVALUE = -1010,    /* not one JSON object of at most 16384 bytes */
    HOLDFAST_EHELD = -1011,     /* another program holds an entry of this name */
    HOLDFAST_ENOTFOUND = -1012, /* no such entry, watch or follow */
    HOLDFAST_ETIMEOUT = -1013,  /* no answer in time */
    HOLDFAST_ECLOSED = -1014,   /* the connection was lost before the answer came */
    HOLDFAST_EPROTO = -1019,    /* what answers does not follow the protocol */
};

/** What happened to an entry under a watched prefix. */
enum holdfast_event {
    HOLDFAST_ADDED = 1,
    HOLDFAST_CHANGED = 2,
    HOLDFAST_REMOVED = 3,
    /* All that was there has been told; the tree is up to date. Comes again after a reconnect. */
    HOLDFAST_SYNCED = 4,
};

struct holdfast;

/**
 * A new handle, not connected yet. path: holdfastd's control socket, NULL for $HOLDFAST_SOCKET or
 * HOLDFAST_SOCKET_DEFAULT. program: how holdfastd calls us in its logs. Both are copied. Connecting
 * begins at the first dispatch. Returns 0 with *ret_handle for holdfast_destroy(), -ENAMETOOLONG
 * (path), -ENOMEM, -EMFILE, -ENFILE.
 */
int holdfast_create(const char *path, const char *program, struct holdfast **ret_handle);

/** Close; what the handle holds leaves the tree. No callback is called. NULL is fine. */
void holdfast_destroy(struct holdfast *h);

/**
 * Wait until connected, at most timeout_ms (-1: for ever). It need not be called; it is for
 * programs that want to know at their start. Returns 0, or what stands in the way: -ENOENT (no
 * socket), -EACCES, -ECONNREFUSED, HOLDFAST_EVERSION, HOLDFAST_ETIMEOUT; the handle goes on trying
 * at each dispatch.
 */
int holdfast_connect(struct holdfast *h, int timeout_ms);

/** 0 if connected now, otherwise why not (negative). */
int holdfast_status(const struct holdfast *h);

/**
 * Tell fn whenever the connection is there (code 0) or lost (negative code). arg is borrowed until
 * destroy. While it is lost, watchers know the tree as it was.
 */
void holdfast_on_status(struct holdfast *h, void (*fn)(void *arg, int code), void *arg);

/** Readable (POLLIN) when holdfast_dispatch() has something to do; the same for ever; not to be
 * read from, written to or closed. */
int holdfast_fd(const struct holdfast *h);

/**
 * Wait up to timeout_ms (0: not at all, -1: for ever) for something to do and do it: read, write,
 * connect again, call callbacks. Returns 0 (also when nothing happened, and without a connection),
 * -EINTR when a signal ended the wait, or -ENOMEM.
 */
int holdfast_dispatch(struct holdfast *h, int timeout_ms);

/**
 * Result of a request: code 0 or negative, and a sentence for people, borrowed for the call. It is
 * called once; and for a held entry again, with a negative code, if a restarted holdfastd refuses
 * it: then it is not held any more. -ECANCELED: withdrawn, or published anew, before it was sent.
 */
typedef void holdfast_result_fn(void *arg, int code, const char *text);

/**
 * Publish, or change, the entry `name`: a path of lower case labels (/pg/orders/primary). json: one
 * JSON object (UTF-8); "port" and "address" have a meaning for DNS, see holdfastd(8). lease_ms 0:
 * held by this handle, published again after a reconnect, gone when the handle is destroyed or the
 * program ends. Otherwise the entry stays that long, also without us, unless published again.
 * Everything is copied; fn may be NULL, arg is borrowed until fn was called for the last time (for
 * held entries: until it is withdrawn). Returns 0 (the answer comes through fn), HOLDFAST_ENAME,
 * HOLDFAST_EVALUE, HOLDFAST_EFULL (too much is unsent), -ENOMEM, and with a lease, while there is
 * no connection, the reason for that.
 */
int holdfast_publish(struct holdfast *h, const char *name, const char *json, uint32_t lease_ms,
                     holdfast_result_fn *fn, void *arg);

/** The same, waiting at most timeout_ms (-1: for ever) for the answer; returns its code. On
 * HOLDFAST_ETIMEOUT a held entry stays held: it is published as soon as holdfastd is there. */
int holdfast_publish_wait(struct holdfast *h, const char *name, const char *json, uint32_t lease_ms,
                          int timeout_ms);

/** Take an entry, held or leased, out of the tree. As holdfast_publish(). */
int holdfast_withdraw(struct holdfast *h, const char *name, holdfast_result_fn *fn, void *arg);
int holdfast_withdraw_wait(struct holdfast *h, const char *name, int timeout_ms);

/**
 * An event: owner is the host whose entry it is, value its JSON object ("" for HOLDFAST_REMOVED).
 * All three are "" for HOLDFAST_SYNCED. Borrowed for the call.
 */
typedef void holdfast_watch_fn(void *arg, enum holdfast_event event, const char *owner,
                               const char *name, const char *value);

/**
 * Follow all entries under `prefix` ("" or "/": all; "/pg" covers /pg and /pg/orders, not /pgx).
 * First those that there are come as HOLDFAST_ADDED, then HOLDFAST_SYNCED, then what happens. After
 * a reconnect only differences are told. arg is borrowed until holdfast_unwatch() or destroy.
 * Returns 0 with *ret_watch (never 0), HOLDFAST_ENAME, HOLDFAST_EFULL (64 watches), -ENOMEM.
 */
int holdfast_watch(struct holdfast *h, const char *prefix, holdfast_watch_fn *fn, void *arg,
                   uint32_t *ret_watch);

/** End a watch: its fn is not called any more. Returns 0 or HOLDFAST_ENOTFOUND. */
int holdfast_unwatch(struct holdfast *h, uint32_t watch);

/** What a group does now; its figure is in holdfastd(8). */
enum holdfast_phase {
    HOLDFAST_NO_PRIMARY = 0, /* and none can be chosen now */
    HOLDFAST_CLEARING = 1,   /* others stop, or are fenced, before the chosen one starts */
    HOLDFAST_PROMOTING = 2,
    HOLDFAST_OPENING = 3,
    HOLDFAST_RUNNING = 4,
};

/** A group as this host knows it. Later versions may append members. */
struct holdfast_group {
    const char *name;
    int member;  /* this host is one, and the connection to its holdfastd is there */
    int quorate; /* this host acts in it: there is a quorum, and all hosts in sight were heard */
    /* The primary runs here: this host leads. Only true while member and quorate are. */
    int is_here;
    enum holdfast_phase phase;
    uint64_t epoch;       /* grows with each new primary, also on the same host */
    const char *resource; /* the primary resource, its host and that one's address; "": none */
    const char *host;
    const char *address;
    /* What the primary's agent printed as holdfast-fence when it was promoted for this epoch (X3 of
     * doc/design/rules.md), for who must know which transactions are of earlier ones; "": none. */
    const char *fence_text;
    /* Members' hosts that the group takes for dead while quorate is set, with a space between two;
     * "": none. One that is there, but without its holdfastd, is none within 5 s. */
    const char *lost;
};

/** A group is, or has become, so. Borrowed for the call. */
typedef void holdfast_group_fn(void *arg, const struct holdfast_group *group);

/**
 * Follow a group of this host, also one that it has not joined yet. fn is told how the group is,
 * and again whenever that changes; what changed several times meanwhile is told once, so look at
 * epoch to know whether a leadership has ended in between. When the connection to holdfastd is
 * lost, fn is told once, with the last known content but member, quorate and is_here 0; after a
 * reconnect, how it is then.
 *
 * A program that is to run once in the cluster follows a group whose resource has no agent, and
 * works while is_here is set. It must stop by itself what it does when is_here goes, and should
 * give epoch to those that it works on, so that they can refuse what comes from an earlier one: a
 * process that was stopped for a while (a frozen machine) still believes that it leads until it has
 * dispatched.
 *
 * arg is borrowed until holdfast_group_unfollow() or destroy. Returns 0 with *ret_follow (never 0),
 * HOLDFAST_ENAME, HOLDFAST_EFULL (64 watches and follows), -ENOMEM.
 */
int holdfast_group_follow(struct holdfast *h, const char *name, holdfast_group_fn *fn, void *arg,
                          uint32_t *ret_follow);

/** Follow no longer: its fn is not called any more. Returns 0 or HOLDFAST_ENOTFOUND. */
int holdfast_group_unfollow(struct holdfast *h, uint32_t follow);

/** Text of a code, static. */
const char *holdfast_strerror(int code);

/** What went wrong last, in a sentence with names; "" if nothing did. Borrowed until the next call
 * with this handle. */
const char *holdfast_error(const struct holdfast *h);

/** Version of the library, "0.1.0". */
const char *holdfast_version(void);

#ifdef __cplusplus
}
#endif
#endif
