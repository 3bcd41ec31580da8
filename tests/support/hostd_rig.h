/* A daemon for unit tests: all of it but main(), on loopback, and peers that are cores of their
 * own.
 */
#pragma once

#include "hostd/hostd.h"

struct hostd_rig {
    struct hf_hostd h;
    char dir[64]; /* key and state */
};

/* A host that the daemon hears of. */
struct rig_peer {
    struct hf_dir_store *store;
    struct hf_dir *dir;
    struct hf_dir_out out;
    hf_time now;
    uint64_t counter;
    struct hf_endpoint from; /* loopback; nothing listens there */
};

/** The daemon "alpha", driven until it runs; web and DNS are not open, their ports are 0. */
void rig_open(struct hostd_rig *rig);
void rig_close(struct hostd_rig *rig);
/** One turn of its loop, waiting at most 20 ms. */
void rig_turn(struct hostd_rig *rig);
/** Publish on the daemon itself; withdraw with a NULL value. */
void rig_publish(struct hostd_rig *rig, const char *name, const char *value);

/** A peer that runs, reached from `from`. The daemon has not heard of it yet. */
void rig_peer_open(struct rig_peer *p, const char *name, const char *from);
void rig_peer_close(struct rig_peer *p);
void rig_peer_publish(struct rig_peer *p, const char *name, const char *value);
/** The daemon hears the peer, and pulls from it if it wants to. */
void rig_hear(struct hostd_rig *rig, struct rig_peer *p);
/** The peer leaves, and the daemon hears that. */
void rig_bye(struct hostd_rig *rig, struct rig_peer *p);

/** GET from the port on loopback: the status and the body as text (at most room - 1 bytes). */
int rig_get(struct hostd_rig *rig, uint16_t port, const char *target, char *body, size_t room);
