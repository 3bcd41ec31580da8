/* Where clients connect: TCP and a Unix socket. */
#pragma once

#include "pg/pg.h"

struct hf_pg_listeners;

/** Open all of the configuration. Errors name the address and what to do. */
HF_MUST int hf_pg_listeners_open(struct hf_pg *pg, struct hf_err *err,
                                 struct hf_pg_listeners **ret_listeners);
/** Close; nobody connects any more. */
void hf_pg_listeners_close(struct hf_pg_listeners *l);
