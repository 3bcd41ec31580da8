/* sim-group: the group's real cores in a simulated cluster. */
#include "sim/group/chaos.h"

int main(int argc, char **argv)
{
    const struct sim_runner r = {
        .program = "sim-group",
        .what = "many small groups with all faults, one seed each",
        .runs = 1000,
        .figures = gs_figures,
        .run = gs_random,
        .prefix = "group",
        .n_stories = gs_n_stories(),
        .story = gs_story,
        .tell = gs_tell,
    };
    return sim_main(argc, argv, &r);
}
