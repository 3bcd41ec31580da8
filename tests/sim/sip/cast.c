#include "sim/sip/cast.h"

#include "base/attr.h"

static const char *const servers[] = {"alpha", "beta", "gamma", "delta",
                                      "eps",   "zeta", "eta",   "theta"};
static const char *const clients[] = {"ann",  "ben", "cat", "dan", "eve", "fay", "gus", "hal",
                                      "ida",  "jon", "kim", "leo", "mia", "ned", "ola", "pam",
                                      "quin", "ray", "sue", "tom", "uma", "vic", "wes", "zoe"};

const char *cast_server(uint32_t i)
{
    return i < HF_ARRAY_LEN(servers) ? servers[i] : "nobody";
}

const char *cast_client(uint32_t i)
{
    return i < HF_ARRAY_LEN(clients) ? clients[i] : "nobody";
}
