/* The lists of options in the manual pages of section 5: prints one, or says whether a page has
 * exactly it. */
#include <stdio.h>
#include <string.h>

#include "hostd/config.h"
#include "hostd/group_def.h"
#include "os/file.h"
#include "pg/config.h"
#include "sip/config.h"

int main(int argc, char **argv)
{
    struct hf_buf list, page;
    int rc = 0;
    hf_buf_init(&list, 1 << 20);
    hf_buf_init(&page, 1 << 20);
    if (argc > 1 && strcmp(argv[1], "group") == 0) {
        hf_group_def_print_mdoc(&list);
    } else if (argc > 1 && strcmp(argv[1], "pg") == 0) {
        hf_conf_print_mdoc(&hf_pg_config_schema, &list);
    } else if (argc > 1 && strcmp(argv[1], "sip") == 0) {
        hf_conf_print_mdoc(&hf_sip_config_schema, &list);
    } else {
        hf_conf_print_mdoc(&hf_hostd_config_schema, &list);
    }
    if (argc < 3) {
        printf("%.*s", HF_SLICE_FMT(hf_buf_slice(&list)));
    } else if (hf_file_read(argv[2], &page) || !memmem(page.p, page.n, list.p, list.n)) {
        fprintf(stderr,
                "%s: its options are not those of the program; put there what this prints "
                "with the argument %s only\n",
                argv[2], argv[1]);
        rc = 1;
    }
    hf_buf_fini(&list);
    hf_buf_fini(&page);
    return rc;
}
