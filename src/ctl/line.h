/* A Unix socket of holdfast-pg or holdfast-sip, with time limits, and tables of what they answer.
 */
#pragma once

#include "ctl/commands.h"
#include "ctl/table.h"

/** Which program's, where it is, and what the manual calls the option that names it. */
struct hf_line_place {
    const char *program, *env, *path, *option;
};

struct hf_line {
    int fd;
    const char *program, *path; /* borrowed */
    struct hf_buf in;
};

/** Connect, to -s, else to $env, else to the default. An enum hf_exit; hf_line_close() in any case.
 */
HF_MUST int hf_line_open(struct hf_line *l, const struct hf_cmd_opt *opt,
                         const struct hf_line_place *place);
void hf_line_close(struct hf_line *l);

/** All of s. An enum hf_exit. */
HF_MUST int hf_line_send(struct hf_line *l, struct hf_slice s);
/** More bytes into l->in. An enum hf_exit. */
HF_MUST int hf_line_receive(struct hf_line *l);

/** An array of objects as a table: their members `key` under `head`, which ends with NULL; "-" for
 * what is missing, but in the last column. */
HF_MUST int hf_line_print(const json_t *rows, const char *const *key, const char *const *head);
/** ... or anything as JSON. */
int hf_line_print_json(const json_t *v);
