/* The numbers of servers, the same for all workers and the store. */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/slice.h"
#include "core/sip/element.h"
#include "sip/worker.h"

/*
 * A worker's fleet gives numbers in the order in which it is told of servers; so all are told of
 * all in one order, under one lock, and before any row that names one. The first is ourselves.
 * Any thread.
 */
struct hf_sip_names;

#define HF_SIP_MAIL_PEER (HF_SIP_MAIL_USER + 0) /* hf_sip_pack_peer() */

/** ws: borrowed, not started yet. self has the number 0. 0, -ENOMEM, -HF_ENAME. */
HF_MUST int hf_sip_names_create(struct hf_sip_workers *ws, struct hf_slice self,
                                struct hf_sip_names **ret_names);
void hf_sip_names_destroy(struct hf_sip_names *n);

/** The number of a server; a new one is told to the workers as UNKNOWN. HF_SIP_NONE: no name of a
 * host, or too many. */
uint16_t hf_sip_names_number(struct hf_sip_names *n, struct hf_slice name);
/** Its name into buf (HF_HOST_NAME_MAX + 1 bytes are enough); "?": no such number. */
void hf_sip_names_name(struct hf_sip_names *n, uint16_t number, char *buf, size_t room);
/** How many there are. */
uint16_t hf_sip_names_count(struct hf_sip_names *n);
/** Tell the workers of a server as the tree has it; its number, or HF_SIP_NONE. */
uint16_t hf_sip_names_tell(struct hf_sip_names *n, const struct hf_sip_peer *peer);
