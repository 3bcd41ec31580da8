/* Simulated hosts: real directory cores with a driver that does what the daemon does. */
#pragma once

#include "base/buf.h"
#include "core/directory/directory.h"
#include "support/sim_net.h"

/* ---- what it would have cost on a wire ---- */

/* Datagram: tag of the seal, UDP and IPv4 headers. */
#define SIM_UDP_COST (HF_SEAL_TAG_LEN + 28)
/* Pull: HTTP headers both ways, TLS 1.3 handshake with PSK, then each TCP segment's headers. */
#define SIM_HTTP_COST 250
#define SIM_TLS_COST 900
#define SIM_TCP_COST 52
#define SIM_TCP_SEGMENT 1400

struct sim_traffic {
    uint64_t packets, bytes;
};

enum sim_channel { SIM_SENT, SIM_RECEIVED, SIM_PULLS, SIM_STATES, SIM_CHANNEL_COUNT_ };

/* ---- hosts ---- */

#define SIM_INBOX_MAX 4096

struct sim_host {
    uint32_t index;
    uint8_t name_len;
    char name[16];
    uint32_t boot; /* lives so far, ended ones included */
    bool on, paused, leaving;
    bool dump, anonymous; /* anonymous: gives no endpoint, others take the datagram's source */
    uint64_t disk;        /* incarnation on disk; 0: an empty disk */
    struct hf_dir *dir;
    struct hf_dir_store *store;
    struct hf_dir_out *out;
    /* its sealer */
    bool sealing;
    uint64_t incarnation, counter;
    uint8_t salt[HF_SALT_LEN];
    uint32_t process; /* index of its present life in the checks */

    hf_time timer_at;   /* when a timer event comes; HF_NEVER: none */
    hf_time busy_until; /* answering pulls */
    struct sim_event *inbox;
    uint32_t n_inbox;
    hf_time resumed_at;
    uint32_t steps_now; /* steps at this instant: a livelock is a bug (I9) */
    hf_time steps_at;
};

struct sim_packet {
    uint32_t refs, from; /* from: host index */
    bool replayed;
    uint32_t len, head_len;
    uint8_t bytes[HF_ADVERT_LEN_MAX];
};

struct sim_pull {
    uint32_t asker, asker_boot, owner, target;
    bool state, parts;
    bool direct; /* large clusters: asked and answered in one event */
    uint64_t incarnation, since;
    hf_time deadline;
    int rc;
    struct hf_buf body;
};

struct sim_world;

/* What the world tells its user. Any may be NULL. */
struct sim_hooks {
    void *arg;
    /* before and after a step of h; packet: that it takes in, or NULL */
    void (*before)(void *arg, struct sim_host *h, const struct hf_dir_in *in,
                   const struct sim_packet *packet);
    void (*after)(void *arg, struct sim_host *h, const struct hf_dir_in *in,
                  const struct sim_packet *packet);
    void (*asked)(void *arg, struct sim_host *h, const struct sim_pull *p);
    void (*started)(void *arg, struct sim_host *h); /* a new sealer: a process that others know */
    void (*sent)(void *arg, struct sim_host *h, struct sim_packet *p);
    /* an event kind of the user's own */
    void (*event)(void *arg, const struct sim_event *e);
};

/* Faults beyond the network's. Chances are out of 10,000. */
struct sim_faults {
    uint32_t pull_fails, pull_lies, pull_slow, disk_fails, no_memory;
};

struct sim_world {
    struct sim_net net;
    struct sim_host *host; /* owned, n of them */
    uint32_t n;
    struct hf_dir_store *shared; /* or NULL: every host its own */
    struct hf_dir_out *out;      /* with `shared`: one for all */
    struct sim_hooks hooks;
    struct sim_faults faults;
    uint32_t heartbeat_ms, sync_ms;
    uint64_t seed;
    hf_time serve; /* what answering a pull takes a host */
    hf_time pull_deadline;
    struct sim_traffic traffic[SIM_CHANNEL_COUNT_];
    uint64_t n_pulls, n_steps, n_unsealed_probes;
    struct hf_buf spare; /* room of the last body, used again */
    bool echo;           /* multicast comes back to its sender */
};

/* User's events begin here. */
#define SIM_EVENT_USER 16

/** n hosts, all off, named h0, h1, ... */
void sim_world_init(struct sim_world *w, uint32_t n, bool shared, uint64_t seed);
void sim_world_fini(struct sim_world *w);
void sim_host_rename(struct sim_host *h, const char *name);

void sim_boot(struct sim_world *w, uint32_t host);
/** Silent death; `lose_disk`: and the next life knows nothing of this one. */
void sim_crash(struct sim_world *w, uint32_t host, bool lose_disk);
/** Says bye, and is off a moment later. */
void sim_stop(struct sim_world *w, uint32_t host);
void sim_pause(struct sim_world *w, uint32_t host);
void sim_resume(struct sim_world *w, uint32_t host);

/** One input into a host's core, now, and what comes out of it. */
void sim_step(struct sim_world *w, struct sim_host *h, const struct hf_dir_in *in,
              const struct sim_packet *packet);
/** Returns the result. */
int sim_publish(struct sim_world *w, uint32_t host, const char *name, const char *value,
                uint32_t publisher, uint32_t lease_ms);
int sim_withdraw(struct sim_world *w, uint32_t host, const char *name, uint32_t publisher);

/** Hand an old packet to one host again, after `delay`. */
void sim_replay(struct sim_world *w, struct sim_packet *p, uint32_t to, hf_time delay);
struct sim_packet *sim_packet_ref(struct sim_packet *p);
void sim_packet_unref(struct sim_packet *p);

/** Run all events up to `until`. */
void sim_run(struct sim_world *w, hf_time until);

/** Does it run and is it not on its way out? */
bool sim_is_up(const struct sim_host *h);
