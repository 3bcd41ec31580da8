/* Presence documents (PIDF, RFC 3863): made, checked, and several of one user as one. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/limits.h"
#include "base/slice.h"

/*
 * What a user publishes is passed on as it came wherever possible: one publication is sent byte by
 * byte. Only where there are several is XML read, by expat: without document types, so that there
 * are no entities to expand; in UTF-8 only; names and namespaces are not interpreted but for the
 * root's. What stands below the roots is copied as it was, with the namespaces that its root
 * declared.
 */
#define HF_SIP_PIDF_TYPE "application/pidf+xml"

/** Is this a presence document: well-formed, and its root PIDF's <presence>? salt: against keys
 * that collide, any number. 0; -HF_EMALF: no; -HF_EVALUE: it has a document type; -ENOMEM. */
HF_MUST int hf_sip_pidf_check(struct hf_slice doc, uint64_t salt);

/** Append a document of our own: one tuple, open or closed. */
void hf_sip_pidf_basic(struct hf_buf *b, struct hf_slice entity, bool open);

/**
 * Append one document made of n, the latest first. Of two elements with the same name and id the
 * latest is taken, so a device that begins again replaces what it left. Tuples come first, then
 * notes, then all else (RFC 3863 4.4). Documents that can't be read, and elements for which b has
 * no room, are left out. b->err: not even the frame fits, or memory.
 */
void hf_sip_pidf_merge(struct hf_buf *b, struct hf_slice entity, const struct hf_slice *doc,
                       size_t n, uint64_t salt);
