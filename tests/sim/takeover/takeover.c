/* sim-takeover: the real group cores and the real pair cores on three hosts. */
#include "sim/takeover/chaos.h"

int main(int argc, char **argv)
{
    const struct sim_runner r = {
        .program = "sim-takeover",
        .what = "many groups of managers with all faults, one seed each",
        .runs = 1000,
        .figures = twx_figures,
        .run = twx_run,
        .prefix = "takeover",
        .n_stories = twx_n_stories(),
        .story = twx_story,
        .tell = twx_tell,
    };
    return sim_main(argc, argv, &r);
}
