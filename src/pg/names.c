/* Classifiers of databases; their lists are not read yet. */
#include "pg/names.h"

#define TEXTS_MAX 4096

int hf_pg_names_use(struct hf_pg *pg, struct hf_pg_database *d)
{
    return d->classifier ? 0 : hf_pg_classifier_create(TEXTS_MAX, pg->seed, &d->classifier);
}

void hf_pg_names_destroy(struct hf_pg_names *c)
{
    (void)c;
}
