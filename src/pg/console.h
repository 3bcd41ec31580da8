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
