/* Stands in for the driver of groups until it is there: no group, and nobody who could make one. It
 * goes when hostd/group.c comes. */
#include "base/err.h"
#include "hostd/group.h"

void hf_groups_command(struct hf_groups *gs, const struct hf_group_command *cmd, hf_group_done *fn,
                       void *arg)
{
    (void)gs;
    (void)cmd;
    fn(arg, -HF_ENOTREADY, "this holdfastd takes no part in groups");
}

void hf_groups_forget(struct hf_groups *gs, void *arg)
{
    (void)gs;
    (void)arg;
}

const struct hf_group_info *hf_groups_info(const struct hf_groups *gs, size_t i)
{
    (void)gs;
    (void)i;
    return NULL;
}

const struct hf_group_info *hf_groups_find(const struct hf_groups *gs, const char *name)
{
    (void)gs;
    (void)name;
    return NULL;
}

int hf_groups_history(const struct hf_groups *gs, const char *name, struct hf_buf *out)
{
    (void)gs;
    (void)name;
    (void)out;
    return -HF_ENOTFOUND;
}

int hf_groups_listen(struct hf_groups *gs, hf_group_changed *fn, void *arg)
{
    (void)gs;
    (void)fn;
    (void)arg;
    return 0;
}

void hf_groups_unlisten(struct hf_groups *gs, void *arg)
{
    (void)gs;
    (void)arg;
}
