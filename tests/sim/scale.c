#include "sim/sim.h"
int sim_scale(const struct sim_options *o)
{
    (void)o;
    return 2;
}
