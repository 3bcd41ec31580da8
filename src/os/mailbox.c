/* Messages between threads: two buffers that change places under a lock, and an eventfd. */
#include "os/mailbox.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"

#define KEEP_MAX (1u << 20) /* bytes of an empty buffer that are kept */

struct head {
    uint32_t n, kind;
};

struct hf_mailbox {
    pthread_mutex_t lock;
    struct hf_buf in;  /* under the lock */
    struct hf_buf out; /* the taker's */
    size_t bytes_max;
    int fd;
};

static size_t padded(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

int hf_mailbox_create(size_t bytes_max, struct hf_mailbox **ret_mailbox)
{
    struct hf_mailbox *m = hf_alloc(sizeof(*m));
    if (!m) {
        return -ENOMEM;
    }
    m->bytes_max = bytes_max;
    m->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (m->fd < 0) {
        int rc = -errno;
        hf_free(m);
        return rc;
    }
    hf_buf_init(&m->in, SIZE_MAX / 2);
    hf_buf_init(&m->out, SIZE_MAX / 2);
    pthread_mutex_init(&m->lock, NULL);
    *ret_mailbox = m;
    return 0;
}

void hf_mailbox_destroy(struct hf_mailbox *m)
{
    if (m) {
        pthread_mutex_destroy(&m->lock);
        hf_buf_fini(&m->in);
        hf_buf_fini(&m->out);
        close(m->fd);
        hf_free(m);
    }
}

void hf_mail_batch_init(struct hf_mail_batch *b, size_t n_max)
{
    hf_buf_init(&b->buf, n_max);
}

void hf_mail_batch_fini(struct hf_mail_batch *b)
{
    hf_buf_fini(&b->buf);
}

/* All of it or nothing. */
static int append(struct hf_buf *b, uint32_t kind, const struct hf_slice *part, size_t n_parts)
{
    size_t n = 0;
    for (size_t i = 0; i < n_parts; i++) {
        n += part[i].n;
    }
    if (n > UINT32_MAX) {
        return -HF_EFULL;
    }
    size_t room = sizeof(struct head) + padded(n);
    uint8_t *p = hf_buf_reserve(b, room);
    if (!p) {
        int rc = b->err;
        b->err = 0; /* a smaller one may fit */
        return rc;
    }
    struct head h = {.n = (uint32_t)n, .kind = kind};
    memcpy(p, &h, sizeof(h));
    p += sizeof(h);
    for (size_t i = 0; i < n_parts; i++) {
        if (part[i].n) {
            memcpy(p, part[i].p, part[i].n);
            p += part[i].n;
        }
    }
    memset(p, 0, padded(n) - n);
    hf_buf_commit(b, room);
    return 0;
}

int hf_mail_batch_add(struct hf_mail_batch *b, uint32_t kind, const struct hf_slice *part,
                      size_t n_parts)
{
    return append(&b->buf, kind, part, n_parts);
}

static void wake(struct hf_mailbox *m)
{
    uint64_t one = 1;
    ssize_t n = write(m->fd, &one, sizeof(one));
    (void)n; /* full: it is readable */
}

int hf_mailbox_put(struct hf_mailbox *m, struct hf_mail_batch *b)
{
    int rc = 0;
    if (b->buf.n == 0) {
        return 0;
    }
    pthread_mutex_lock(&m->lock);
    bool was_empty = m->in.n == 0;
    if (m->in.n > m->bytes_max || b->buf.n > m->bytes_max - m->in.n) {
        rc = -HF_EFULL;
    } else {
        hf_buf_add(&m->in, hf_buf_slice(&b->buf));
        rc = m->in.err;
        m->in.err = 0;
    }
    pthread_mutex_unlock(&m->lock);
    hf_buf_clear(&b->buf);
    if (rc == 0 && was_empty) {
        wake(m);
    }
    return rc;
}

int hf_mailbox_send(struct hf_mailbox *m, uint32_t kind, const struct hf_slice *part,
                    size_t n_parts)
{
    pthread_mutex_lock(&m->lock);
    bool was_empty = m->in.n == 0;
    int rc = append(&m->in, kind, part, n_parts);
    pthread_mutex_unlock(&m->lock);
    if (rc == 0 && was_empty) {
        wake(m);
    }
    return rc;
}

int hf_mailbox_fd(const struct hf_mailbox *m)
{
    return m->fd;
}

struct hf_slice hf_mailbox_take(struct hf_mailbox *m)
{
    uint64_t count;
    ssize_t n = read(m->fd, &count, sizeof(count)); /* before the lock: no wake is lost */
    (void)n;
    if (m->out.room > KEEP_MAX) {
        hf_buf_fini(&m->out);
    }
    hf_buf_clear(&m->out);
    pthread_mutex_lock(&m->lock);
    struct hf_buf full = m->in;
    m->in = m->out;
    m->out = full;
    pthread_mutex_unlock(&m->lock);
    return hf_buf_slice(&m->out);
}

bool hf_mail_next(struct hf_slice *mails, struct hf_mail *ret_mail)
{
    struct head h;
    if (mails->n == 0) {
        return false;
    }
    assert(mails->n >= sizeof(h));
    memcpy(&h, mails->p, sizeof(h));
    size_t n = sizeof(h) + padded(h.n);
    assert(mails->n >= n);
    *ret_mail = (struct hf_mail){.kind = h.kind, .data = hf_slice(mails->p + sizeof(h), h.n)};
    *mails = hf_slice(mails->p + n, mails->n - n);
    return true;
}
