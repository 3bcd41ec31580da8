/* Stories of pairs, compared with their golden traces. */
#include "sim/pair/chaos.h"

int pwx_stories(const struct pwx_options *o)
{
    (void)o;
    return 0;
}
