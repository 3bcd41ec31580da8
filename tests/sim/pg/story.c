/* The moments of failure as short readable stories, compared with their golden traces. */
#include "sim/pg/chaos.h"

int pgx_stories(const struct pgx_options *o)
{
    (void)o;
    return 0;
}
