#include "sim/sip/elements.h"

int ew_stories(const char *directory, bool write)
{
    (void)directory;
    (void)write;
    return 0;
}
