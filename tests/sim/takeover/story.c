/* Documented moments of take-overs. */
#include "sim/takeover/chaos.h"
#include "sim/takeover/world.h"

static const struct sim_story stories[] = {{"none", "none"}};

size_t twx_n_stories(void)
{
    return 0;
}

struct sim_story twx_story(size_t i)
{
    return stories[i];
}

void twx_tell(size_t i, FILE *out)
{
    (void)i;
    (void)out;
}
