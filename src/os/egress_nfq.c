/* Output commit by NFQUEUE, where BPF is not allowed. */
#include <errno.h>

#include "os/egress_impl.h"

int egress_nfq_probe(struct hf_err *err)
{
    return hf_err_set(err, -ENOTSUP, "NFQUEUE is not built yet");
}

int egress_nfq_open(struct hf_egress *e, const struct hf_egress_options *options,
                    struct hf_err *err)
{
    (void)e;
    (void)options;
    return egress_nfq_probe(err);
}

int egress_nfq_remove(const struct hf_egress_options *options, struct hf_err *err)
{
    (void)options;
    return egress_nfq_probe(err);
}
