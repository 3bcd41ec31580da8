/* The rebalancer with many clients: to be written. */
#include "sim/sip/world.h"

int swx_balance(const struct swx_options *o)
{
    (void)o;
    return 0;
}
