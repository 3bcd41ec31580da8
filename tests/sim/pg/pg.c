/* sim-pg: the real session cores between made-up clients and a toy PostgreSQL. */
#include "sim/pg/chaos.h"

int main(int argc, char **argv)
{
    const struct sim_runner r = {
        .program = "sim-pg",
        .what = "many small worlds with all faults, one seed each",
        .runs = 1000,
        .figures = pgx_figures,
        .run = pgx_run,
        .prefix = "pg",
        .n_stories = pgx_n_stories(),
        .story = pgx_story,
        .tell = pgx_tell,
    };
    return sim_main(argc, argv, &r);
}
