/* Which sessions would outlive this host, and for how long none would have: for whoever looks. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/hftime.h"
#include "core/pair/primary.h"
#include "core/pg/session.h"

struct hf_pg;
struct hf_pg_client;

/**
 * The reign of this host over the service address. *Without protection* is the time in which its
 * backup is not in sync, from the reign's first instant on (C11).
 */
struct hf_pg_reign {
    uint64_t epoch; /* 0: none now */
    hf_time began;
    hf_time unprotected_since;  /* HF_NEVER: protected, or no reign */
    hf_time unprotected_before; /* of this reign (or the last one), what has ended */
    hf_time unprotected_ever;   /* of all reigns of this process, what has ended */
};
/** No reign yet. */
void hf_pg_reign_init(struct hf_pg_reign *r);
/** How the pair is (NULL: no reign here), and with whom. To be called whenever that may have
 * changed: what it means for the sessions is logged and counted. */
void hf_pg_reign_note(struct hf_pg *pg, uint64_t epoch, const struct hf_pair_primary_info *info,
                      const char *backup, hf_time now);
/** Time without protection, the present one included: of this reign, of all. */
hf_time hf_pg_reign_unprotected(const struct hf_pg_reign *r, hf_time now);
hf_time hf_pg_reign_unprotected_ever(const struct hf_pg_reign *r, hf_time now);

/** Why a pair in this state protects nobody; "" if it does. Static. */
const char *hf_pg_protection_state_why(enum hf_pair_state state, int code);

/** Why a session would not outlive this host, in a few words; "" if it would. The first reason that
 * there is; static. Without a service address: the same for the server it is on. */
const char *hf_pg_protection_why(const struct hf_pg_client *c,
                                 const struct hf_pg_session_info *info);

/** All sessions by that. The last reason stands for all that did not find room. */
#define HF_PG_PROTECTION_REASONS 40
struct hf_pg_protection_counts {
    size_t sessions, n_protected;
    struct {
        const char *why; /* static */
        size_t n;
    } reason[HF_PG_PROTECTION_REASONS];
    size_t n_reasons;
    uint64_t held; /* bytes that wait for the backup's confirm, to clients and servers */
};
void hf_pg_protection_count(const struct hf_pg *pg, struct hf_pg_protection_counts *ret_counts);
