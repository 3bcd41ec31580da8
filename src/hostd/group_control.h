/* Groups on the control socket: operators' commands with their time limits, queries, followers. */
#pragma once

#include "base/attr.h"
#include "base/err.h"
#include "codec/ctl_v1.h"

struct hf_hostd;
struct hf_buf;
struct hf_group_control;

/* Towards control.c; client is what it gave. May be called while a request is being taken. */
struct hf_group_control_ops {
    void (*send)(void *client, const struct hf_ctl_msg *m); /* and see that it leaves */
    void (*wake)(void *arg); /* there are states to tell: hf_group_control_tell() */
    void *arg;
};

/** ops is copied. -ENOMEM. */
HF_MUST int hf_group_control_create(struct hf_hostd *h, const struct hf_group_control_ops *ops,
                                    struct hf_group_control **ret_control);
void hf_group_control_destroy(struct hf_group_control *gc);

/** GROUP: its RESULT is sent when it is done, refused, or m->wait_ms are over. */
void hf_group_control_command(struct hf_group_control *gc, void *client,
                              const struct hf_ctl_msg *m);

/** FOLLOW: -HF_EFULL is the caller's to check; -ENOMEM. */
HF_MUST int hf_group_control_follow(struct hf_group_control *gc, void *client, uint32_t seq,
                                    struct hf_slice group);
/** The client follows no more by the FOLLOW with this seq; false: there is none. */
bool hf_group_control_unfollow(struct hf_group_control *gc, void *client, uint32_t seq);
/** Send the client what has changed of the groups that it follows. */
void hf_group_control_tell(struct hf_group_control *gc, void *client);

/** The client is gone: what it wanted goes on, nobody is told. */
void hf_group_control_gone(struct hf_group_control *gc, void *client);

/** "groups" and "group-history": 0, or an error with its text. */
HF_MUST int hf_group_control_query(struct hf_hostd *h, struct hf_slice what,
                                   struct hf_slice argument, struct hf_buf *out,
                                   struct hf_err *err);
