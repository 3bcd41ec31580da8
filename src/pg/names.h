/* What a database's names mean: the classifier and its list, read by the manager's own login. */
#pragma once

#include "pg/pg.h"

/** A session of this database begins: it has a classifier then, whose list is being read if it is
 * not there. 0 or -ENOMEM. */
HF_MUST int hf_pg_names_use(struct hf_pg *pg, struct hf_pg_database *d);
void hf_pg_names_destroy(struct hf_pg_names *c);
