/* The control socket: local programs publish, watch and ask (codec/ctl_v1, doc/wire/control.md). */
#pragma once

#include "hostd/hostd.h"

/** Listen on control.socket. Errors have a text with the remedy. */
HF_MUST int hf_control_open(struct hf_hostd *h, struct hf_err *err,
                            struct hf_control **ret_control);
/** Closes all connections: what they held is withdrawn. */
void hf_control_close(struct hf_control *c);

/** Connections now, and requests ever. */
uint32_t hf_control_clients(const struct hf_control *c);
