/* Is this one JSON text? Total, without allocation, bounded: what comes from peers is asked here.
 */
#pragma once

#include <stdbool.h>

#include "base/slice.h"

/** Nesting that hf_json_object_ok() accepts. */
#define HF_JSON_DEPTH_MAX 16

/**
 * Is s exactly one JSON object (RFC 8259), in UTF-8, nested at most HF_JSON_DEPTH_MAX deep?
 * Reading and making JSON is jansson's work; this exists because decoders of the pure core must
 * refuse bad values before they enter the tree, and may not allocate.
 */
bool hf_json_object_ok(struct hf_slice s);
