#include "sim/sim.h"
int sim_stories(const struct sim_options *o)
{
    (void)o;
    return 2;
}
