/* sim-pair: the real pair cores between toy sessions, clients, a database and a group. */
#include "sim/pair/chaos.h"

int main(int argc, char **argv)
{
    const struct sim_runner r = {
        .program = "sim-pair",
        .what = "many small worlds with all faults, one seed each",
        .runs = 1000,
        .figures = pwx_figures,
        .run = pwx_run,
        .prefix = "pair",
        .n_stories = pwx_n_stories(),
        .story = pwx_story,
        .tell = pwx_tell,
        .bench = pwx_bench,
        .measure = "what a batch costs both sides",
    };
    return sim_main(argc, argv, &r);
}
