/* Where clients connect: TCP and a Unix socket. */
#pragma once

#include "os/addr.h"
#include "pg/pg.h"

struct hf_pg_listeners;

/** Open all of the configuration. Errors name the address and what to do. */
HF_MUST int hf_pg_listeners_open(struct hf_pg *pg, struct hf_err *err,
                                 struct hf_pg_listeners **ret_listeners);
/** The service address alone, which is on this host by now; its clients are protected. */
HF_MUST int hf_pg_listeners_service(struct hf_pg *pg, const struct hf_addr *address,
                                    struct hf_err *err, struct hf_pg_listeners **ret_listeners);
/** Close; nobody connects any more. */
void hf_pg_listeners_close(struct hf_pg_listeners *l);
