/* Who plays in the simulations of SIP servers. */
#pragma once

#include <stdint.h>

/** "alpha", ...: the i-th server; "nobody" past the last. */
const char *cast_server(uint32_t i);
/** "ann", ...: the i-th client, likewise. */
const char *cast_client(uint32_t i);
