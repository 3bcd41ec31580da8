/* Who is connected, in a file that outlives this process: when nobody else has the sessions either,
 * the next process here can at least tell the clients. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "os/file.h"
#include "pg/protect_impl.h"

#define PATH_LEN 128

/* By the number of the guard's slot; a family of 0: nobody. In the host's own byte order: it is
 * read on this host, by this version or another with the same size of a record. */
struct hf_pg_left_record {
    uint8_t addr[16];
    uint16_t port;
    uint16_t family; /* HF_AF_*, written last */
};

/* What a process that is gone left: at most as many as there are slots. */
static void read_file(struct hf_pg_protect *p, const char *path, size_t n_max)
{
    struct hf_buf b;
    hf_buf_init(&b, n_max * sizeof(struct hf_pg_left_record));
    p->left = hf_file_read(path, &b) == 0 ? hf_alloc_array(n_max, sizeof(p->left[0])) : NULL;
    for (size_t at = 0; p->left && at + sizeof(struct hf_pg_left_record) <= b.n;
         at += sizeof(struct hf_pg_left_record)) {
        struct hf_pg_left_record r;
        memcpy(&r, b.p + at, sizeof(r));
        if ((r.family == HF_AF_INET || r.family == HF_AF_INET6) && r.port && p->n_left < n_max) {
            struct hf_endpoint *e = &p->left[p->n_left++];
            e->family = (uint8_t)r.family;
            e->port = r.port;
            memcpy(e->addr, r.addr, sizeof(e->addr));
        }
    }
    hf_buf_fini(&b);
}

void hf_pg_left_open(struct hf_pg_protect *p, const char *control, size_t n_slots)
{
    char path[PATH_LEN];
    size_t len = n_slots * sizeof(struct hf_pg_left_record);
    (void)snprintf(path, sizeof(path), "%s.clients", control);
    read_file(p, path, n_slots);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    void *at = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)len) == 0) {
        at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (at == MAP_FAILED) {
        hf_log_warn("",
                    "%s: %s: clients that only wait learn of nothing when this host's manager "
                    "dies and nobody has their sessions",
                    path, hf_strerror(-errno));
    } else {
        p->left_record = at;
        p->left_len = len;
    }
    if (fd >= 0) {
        close(fd);
    }
}

void hf_pg_left_close(struct hf_pg_protect *p)
{
    if (p->left_record) {
        (void)munmap(p->left_record, p->left_len);
        p->left_record = NULL;
    }
    hf_pg_left_forget(p);
}

void hf_pg_left_forget(struct hf_pg_protect *p)
{
    hf_free(p->left);
    p->left = NULL;
    p->n_left = 0;
}

void hf_pg_left_note(struct hf_pg_protect *p, const struct hf_pg_slot *e, bool connected)
{
    const struct hf_endpoint *peer = &e->facts.peer;
    if (!p->left_record || (e->slot + 1) * sizeof(*p->left_record) > p->left_len) {
        return;
    }
    struct hf_pg_left_record *r = &p->left_record[e->slot];
    r->family = 0;
    if (connected) {
        memcpy(r->addr, peer->addr, sizeof(r->addr));
        r->port = peer->port;
        r->family = peer->family;
    }
}
