/* Control protocol, version 1: frames between holdfastd and local programs (doc/wire/control.md).
 */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/limits.h"
#include "base/slice.h"
#include "base/wr.h"

/*
 * A frame: u32 length of what follows (1 ... HF_CTL_FRAME_MAX), u8 type, then fields in the order
 * of the struct below. Both sides begin with HELLO. Every request carries a sequence number that
 * its answers repeat; exactly one RESULT ends a request. Both sides treat each other as untrusted.
 */
#define HF_CTL_VERSION 1

/* name, number, which fields of struct hf_ctl_msg it carries */
#define HF_CTL_LIST(X)                                                                             \
    X(HELLO, 1, "version, text (program or host name)")                                            \
    X(PUBLISH, 2, "seq, lease_ms (0: held by this connection), name, value")                       \
    X(WITHDRAW, 3, "seq, name")                                                                    \
    X(WATCH, 4, "seq, name (prefix)")                                                              \
    X(UNWATCH, 5, "seq, watch (seq of the WATCH or FOLLOW)")                                       \
    X(QUERY, 6, "seq, name (what: doc/wire/control.md lists them), value (argument)")              \
    X(TRACE, 7, "seq, mask")                                                                       \
    X(RELOAD, 8, "seq")                                                                            \
    X(GROUP, 9, "seq, action, wait_ms, name (group), owner (host), resource, value (definition)")  \
    X(FOLLOW, 10, "seq, name (group)")                                                             \
    X(RESULT, 16, "seq, code (0 or -HF_E*/-errno), text (for a person)")                           \
    X(TEXT, 17, "seq, value (a piece of the answer to a QUERY; JSON unless said otherwise)")       \
    X(EVENT, 18, "seq (of the WATCH), event, owner, name, value")                                  \
    X(LINE, 19, "seq (of the TRACE), text (a log line)")                                           \
    X(GROUP_STATE, 20,                                                                             \
      "seq (of the FOLLOW), flags, phase, epoch, resource, owner (host), address, "                \
      "fence_text")

enum hf_ctl_type {
#define HF_CTL_ENUM(name, num, text) HF_CTL_##name = (num),
    HF_CTL_LIST(HF_CTL_ENUM)
#undef HF_CTL_ENUM
};

/** Name of a type ("PUBLISH"), or NULL. */
const char *hf_ctl_type_name(int type);

/* What happened to an entry under a watched prefix. */
enum hf_ctl_event {
    HF_CTL_ADDED = 1,
    HF_CTL_CHANGED = 2,
    HF_CTL_REMOVED = 3,
    HF_CTL_SYNCED =
        4, /* everything that was there at the WATCH has been told (owner, name empty) */
};

/* What an operator wants of a group: number, name on the command line. */
#define HF_CTL_GROUP_LIST(X)                                                                       \
    X(CREATE, 1, "create")                                                                         \
    X(JOIN, 2, "join")                                                                             \
    X(LEAVE, 3, "leave")                                                                           \
    X(SWITCH, 4, "switch")                                                                         \
    X(FORCE, 5, "force")                                                                           \
    X(PAUSE, 6, "pause")                                                                           \
    X(RESUME, 7, "resume")                                                                         \
    X(CONFIRM, 8, "confirm")

enum hf_ctl_group {
#define HF_CTL_GROUP_ENUM(name, num, text) HF_CTL_GROUP_##name = (num),
    HF_CTL_GROUP_LIST(HF_CTL_GROUP_ENUM)
#undef HF_CTL_GROUP_ENUM
        HF_CTL_GROUP_END_
};
/** "create", ..., or NULL. */
const char *hf_ctl_group_name(int action);

enum hf_ctl_group_flags { /* GROUP_STATE */
                          HF_CTL_GROUP_MEMBER = 1,
                          HF_CTL_GROUP_QUORATE = 2,
                          HF_CTL_GROUP_HERE = 4, /* its primary runs on this host now */
                          HF_CTL_GROUP_FLAGS_ALL_ = 7,
};

/* One message; fields that its type does not carry are zero. Slices are borrowed from the input. */
struct hf_ctl_msg {
    uint8_t type;     /* enum hf_ctl_type */
    uint8_t version;  /* HELLO */
    uint8_t event;    /* EVENT: enum hf_ctl_event */
    uint8_t action;   /* GROUP: enum hf_ctl_group */
    uint8_t flags;    /* GROUP_STATE: enum hf_ctl_group_flags */
    uint8_t phase;    /* GROUP_STATE: enum hf_phase */
    uint32_t seq;     /* chosen by the client */
    uint32_t watch;   /* UNWATCH */
    uint32_t wait_ms; /* GROUP: how long the client waits for the RESULT */
    uint32_t mask;    /* TRACE */
    uint64_t epoch;
    uint32_t lease_ms;
    int32_t code;
    struct hf_slice owner;      /* <= HF_HOST_NAME_MAX */
    struct hf_slice name;       /* <= HF_SERVICE_NAME_MAX */
    struct hf_slice value;      /* PUBLISH, EVENT: <= HF_VALUE_LEN_MAX; TEXT, QUERY: the rest of the
                                   frame; GROUP: <= HF_GROUP_DEFINITION_MAX */
    struct hf_slice text;       /* <= 1024 */
    struct hf_slice resource;   /* <= HF_GROUP_RESOURCE_NAME_MAX */
    struct hf_slice address;    /* <= HF_GROUP_ADDRESS_MAX */
    struct hf_slice fence_text; /* <= HF_GROUP_FENCE_TEXT_MAX */
    struct hf_slice lost;       /* GROUP_STATE: names of hosts; <= HF_GROUP_LOST_MAX */
};

/** Bytes that are enough for m's frame. */
size_t hf_ctl_room(const struct hf_ctl_msg *m);
/** Encode m with its length into w; -HF_EFULL is w's sticky error. */
void hf_ctl_encode(struct hf_wr *w, const struct hf_ctl_msg *m);

/**
 * The first whole frame in `in`. Returns its length (> 0, *ret_msg filled), 0 if more bytes are
 * needed, or -HF_EMALF, -HF_ETRUNC, -HF_ETRAIL, -HF_EVERSION (HELLO of another version): then
 * close.
 */
HF_MUST int hf_ctl_decode(struct hf_slice in, struct hf_ctl_msg *ret_msg);
