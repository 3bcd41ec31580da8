/* The admin console: SHOW and commands over the same protocol, for database "holdfast" or
 * "pgbouncer". */
#pragma once

#include "pg/client.h"

struct hf_pg_console;

bool hf_pg_console_is(struct hf_slice database);
/** Logged in to it: only admin_users and stats_users may. */
void hf_pg_console_begin(struct hf_pg_client *c);
size_t hf_pg_console_bytes(struct hf_pg_console *k, struct hf_slice bytes);
void hf_pg_console_destroy(struct hf_pg_console *k);

/** console_show.c: the answer to SHOW what, columns and rows; false: there is nothing so called. */
HF_MUST bool hf_pg_console_show(struct hf_pg *pg, const char *what, struct hf_buf *out);
/** The commands, for SHOW HELP: false at the end. Static texts. */
HF_MUST bool hf_pg_console_command(size_t i, const char **ret_name, const char **ret_arg,
                                   const char **ret_text);
