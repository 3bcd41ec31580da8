/* Documented scenarios of groups as short readable stories, compared with their golden traces. */
#include "sim/group/world.h"

int gs_stories(const struct gs_options *o)
{
    (void)o;
    return 0;
}
