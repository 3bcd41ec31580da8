/* Groups that a test makes by hand, in place of the driver and of what reads a core: what hostd
 * shows, publishes and answers of them can be looked at without agents or other hosts. */
#pragma once

#include "hostd/group.h"

/* What hf_group_*() say of a core. */
struct hf_group {
    enum hf_group_standing standing;
    bool no_state, quorate;
    struct hf_gstate s;
    uint8_t self;
    uint16_t present, lost, able, sync, async;
    uint8_t role[HF_GROUP_MEMBERS_MAX][HF_GROUP_RESOURCES_MAX];
    const char *why;
    const char *resource_why[HF_GROUP_RESOURCES_MAX];
    struct hf_group_counters count;
};

#define FAKE_LISTENERS_MAX 4

struct hf_groups {
    struct hf_group_info info; /* of the only group; name NULL: there is none */
    struct hf_group core;
    struct {
        hf_group_changed *fn;
        void *arg;
    } listener[FAKE_LISTENERS_MAX];
    /* the last command, its strings copied, and who waits for it */
    struct hf_group_command cmd;
    char group[64], host[64], resource[64], definition[64];
    hf_group_done *done;
    void *done_arg; /* NULL: nobody */
    bool at_once;   /* commands are done before they return */
    unsigned n_commands;
};

/** The group "orders" of alpha (this host, primary), beta (backup) and gamma (absent), with two
 * copies and an address, running in epoch 7. */
void fake_groups_init(struct hf_groups *gs);
/** Tell the listeners. */
void fake_groups_changed(struct hf_groups *gs, const char *text);
/** The command is done. */
void fake_groups_done(struct hf_groups *gs, int rc, const char *text);
