/* The admin console: nobody is let in yet. */
#include "pg/console.h"

bool hf_pg_console_is(struct hf_slice database)
{
    return hf_slice_eq(database, hf_slice_str("holdfast")) ||
           hf_slice_eq(database, hf_slice_str("pgbouncer"));
}

void hf_pg_console_begin(struct hf_pg_client *c)
{
    hf_pg_client_fatal(c, "42501", "not allowed");
}

size_t hf_pg_console_bytes(struct hf_pg_console *k, struct hf_slice bytes)
{
    (void)k;
    return bytes.n;
}

void hf_pg_console_destroy(struct hf_pg_console *k)
{
    (void)k;
}
