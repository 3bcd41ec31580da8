/* What core/pg/classify says of statements, for tests with a real server.
 *
 * pg-classify query: prints the query for the catalog. pg-classify: reads records that end in NUL:
 * "+kname" a row of the list, all others statements; prints "FLAGS can" for each, where can has p
 * (repeatable) and w (wrappable). Without rows there is no list. */
#include "core/pg/classify.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const flags[] = {
#define NAME(name, bit, text) [bit] = #name,
    HF_PG_DOES_LIST(NAME)
#undef NAME
};

static void print(struct hf_pg_classifier *c, const char *sql)
{
    const struct hf_pg_class *k = hf_pg_classify(c, hf_slice_str(sql));
    for (unsigned bit = 0; bit < 32; bit++) {
        if (k->does & (1u << bit)) {
            printf("%s ", flags[bit]);
        }
    }
    printf("%s%s\n", hf_pg_class_repeatable(c, k) ? "p" : "", k->wrappable ? "w" : "");
    hf_pg_class_unref(k);
}

int main(int argc, char **argv)
{
    struct hf_pg_classifier *c;
    char *record = NULL;
    size_t room = 0;
    bool reading = false;
    if (argc == 2 && strcmp(argv[1], "query") == 0) {
        puts(hf_pg_catalog_query());
        return 0;
    }
    if (hf_pg_classifier_create(1000, 1, &c) != 0) {
        return 1;
    }
    while (getdelim(&record, &room, '\0', stdin) > 0) {
        if (record[0] != '+') {
            if (reading) {
                hf_pg_catalog_end(c);
            }
            reading = false;
            print(c, record);
            continue;
        }
        if (!reading) {
            hf_pg_catalog_begin(c);
        }
        reading = true;
        if (hf_pg_catalog_row(c, record[1], hf_slice_str(record + 2)) != 0) {
            return 1;
        }
    }
    free(record);
    hf_pg_classifier_destroy(c);
    return 0;
}
