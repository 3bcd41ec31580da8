/* Sessions as a peer has them: saved by the core, encoded, in a real store. */
#pragma once

#include "core/pair/store.h"
#include "core/pg/session.h"

/** One session's. */
struct pg_saved {
    struct hf_pair_store *store; /* borrowed */
    uint64_t id;
};

/** Save what has changed, in one batch. 0, or what the store says to it. */
HF_MUST int pg_saved_save(struct pg_saved *p, struct hf_pg_session *s);
/** To hf_pg_session_load(); p has saved. */
struct hf_pg_saved pg_saved_load(struct pg_saved *p);
/** The session has ended. */
void pg_saved_end(struct pg_saved *p);
