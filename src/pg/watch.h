/* The managers of a service address watch each other (C3): what this one tells of its host, its
 * databases and its sessions, and what the others tell of theirs, through the directory. */
#pragma once

#include <jansson.h>

#include "pg/pg.h"

/*
 * Each manager holds the entry /manager/GROUP of its host in the tree: changes of role, backup and
 * protection at once, figures every WATCH_FIGURES. doc/design/takeover.md has its members. GROUP is
 * known from the first word of the group's agent on. Without a holdfastd nothing is told, and
 * nobody is heard.
 */
struct hf_pg_watch;

/** *ret_watch = NULL, 0: no service address is configured. The service is open already. */
HF_MUST int hf_pg_watch_open(struct hf_pg *pg, struct hf_err *err, struct hf_pg_watch **ret_watch);
/** NULL is fine. The entry leaves the tree. */
void hf_pg_watch_close(struct hf_pg_watch *w);

/** The group that serves the address. w: NULL is fine, below too. */
void hf_pg_watch_named(struct hf_pg_watch *w, const char *group);
/** Role, backup or protection has changed. */
void hf_pg_watch_touch(struct hf_pg_watch *w);

/** What this manager tells now: a new reference. NULL: out of memory. */
json_t *hf_pg_watch_self(struct hf_pg_watch *w);
/** Another manager, as it told last. Walk: start with *pos = 0; false at the end. Borrowed until
 * the next turn. */
struct hf_pg_manager {
    const char *host;
    const json_t *value;
    hf_time heard;
};
bool hf_pg_watch_next(const struct hf_pg_watch *w, size_t *pos, struct hf_pg_manager *ret);
