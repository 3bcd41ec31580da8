/* Messages between threads: any thread puts, one takes; one lock and at most one wake per batch. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/buf.h"

/*
 * A mail is a kind and bytes. Who sends many collects them in a batch of its own, without a lock,
 * and puts that at the end of its turn. The taker waits until the descriptor is readable, and then
 * takes all there are: the descriptor is written only when the mailbox was empty. Mails of one
 * thread come in its order. No allocation once the buffers have grown.
 */
struct hf_mailbox;

struct hf_mail {
    uint32_t kind;
    struct hf_slice data; /* aligned to 8 bytes; borrowed until the next take */
};

/** Mails of one thread for one mailbox. */
struct hf_mail_batch {
    struct hf_buf buf;
};

/** bytes_max: what may wait in it, but for hf_mailbox_send(). 0, -ENOMEM, -errno. */
HF_MUST int hf_mailbox_create(size_t bytes_max, struct hf_mailbox **ret_mailbox);
/** Nobody may put any more. NULL is fine. */
void hf_mailbox_destroy(struct hf_mailbox *m);

/** At most n_max bytes at once. */
void hf_mail_batch_init(struct hf_mail_batch *b, size_t n_max);
void hf_mail_batch_fini(struct hf_mail_batch *b);
/** Add a mail of these parts, one behind the other; -HF_EFULL, -ENOMEM: it is not in the batch. */
HF_MUST int hf_mail_batch_add(struct hf_mail_batch *b, uint32_t kind, const struct hf_slice *part,
                              size_t n_parts);

/** Any thread. The batch is empty afterwards in every case. -HF_EFULL: the taker is too slow, all
 * of it is lost; -ENOMEM likewise. */
HF_MUST int hf_mailbox_put(struct hf_mailbox *m, struct hf_mail_batch *b);
/** Any thread: one mail, whatever waits already: for what must not be lost, and whose number the
 * caller bounds. -ENOMEM. */
HF_MUST int hf_mailbox_send(struct hf_mailbox *m, uint32_t kind, const struct hf_slice *part,
                            size_t n_parts);

/** Readable when there is something to take. */
int hf_mailbox_fd(const struct hf_mailbox *m);
/** All that wait, for hf_mail_next(); borrowed until the next take. The taker's thread only. */
struct hf_slice hf_mailbox_take(struct hf_mailbox *m);
/** The first mail, which is taken off *mails; false: there is none. */
bool hf_mail_next(struct hf_slice *mails, struct hf_mail *ret_mail);
