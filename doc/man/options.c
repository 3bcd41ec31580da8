/* The list of options in holdfast.conf(5): prints it, or says whether a page has exactly this one.
 */
#include <stdio.h>

#include "hostd/config.h"
#include "os/file.h"

int main(int argc, char **argv)
{
    struct hf_buf list, page;
    int rc = 0;
    hf_buf_init(&list, 1 << 20);
    hf_buf_init(&page, 1 << 20);
    hf_conf_print_mdoc(&hf_hostd_config_schema, &list);
    if (argc < 2) {
        printf("%.*s", HF_SLICE_FMT(hf_buf_slice(&list)));
    } else if (hf_file_read(argv[1], &page) || !memmem(page.p, page.n, list.p, list.n)) {
        fprintf(stderr,
                "%s: its options are not those of the program; put there what this prints "
                "without an argument\n",
                argv[1]);
        rc = 1;
    }
    hf_buf_fini(&list);
    hf_buf_fini(&page);
    return rc;
}
