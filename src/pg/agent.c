/* holdfast-pg-agent: has an action done by the holdfast-pg that runs here, for its OCF agent. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pg/control.h"

/* A program of its own, as it is started for each action, also while clients wait: what holdfast-pg
 * is linked with takes longer to load than all that is done here. */
int main(int argc, char **argv)
{
    const char *control = getenv("OCF_RESKEY_control");
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts("holdfast-pg-agent " HF_VERSION);
        return 0;
    }
    if (argc != 2) {
        fputs("usage: holdfast-pg-agent ACTION | --version\n"
              "The control socket: OCF_RESKEY_control, or " HF_PG_CONTROL_PATH "\n",
              stderr);
        return 2;
    }
    return hf_pg_control_agent(control && *control ? control : HF_PG_CONTROL_PATH, argv[1]);
}
