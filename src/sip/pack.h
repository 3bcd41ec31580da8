/* What the store, the tree and the resolver tell workers, as mails: one piece of memory each. */
#pragma once

#include "base/buf.h"
#include "core/sip/element.h"
#include "core/sip/ops.h"

/*
 * Within this process only: structs as they are, with slices and pointers as distances from the
 * beginning. Packing appends to an empty buffer (see its err). Unpacking writes the pointers into
 * the mail itself, which must be aligned to 8 bytes; what it returns is borrowed as long as that.
 */
void hf_sip_pack_result(struct hf_buf *b, const struct hf_sip_result *r);
const struct hf_sip_result *hf_sip_unpack_result(struct hf_slice mail);

void hf_sip_pack_feed(struct hf_buf *b, const struct hf_sip_feed *f);
const struct hf_sip_feed *hf_sip_unpack_feed(struct hf_slice mail);

void hf_sip_pack_peer(struct hf_buf *b, const struct hf_sip_peer *p);
const struct hf_sip_peer *hf_sip_unpack_peer(struct hf_slice mail);
