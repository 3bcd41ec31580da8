/* A small file that is replaced in place, in two slots. */
#include "os/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rd.h"
#include "base/wr.h"
#include "os/file.h"

#define MAGIC "HFSLOTS1"
#define HEAD_LEN 32u
#define ALIGN 4096u /* no block of a disk has bytes of both */

struct slot {
    uint64_t generation; /* 0: not valid */
    struct hf_slice data;
};

static size_t slot_size(size_t room)
{
    return (HEAD_LEN + room + ALIGN - 1) / ALIGN * ALIGN;
}

static uint64_t hash_of(uint64_t generation, struct hf_slice data)
{
    return hf_hash(data, generation * 0x9e3779b97f4a7c15u + data.n);
}

static struct slot slot_parse(struct hf_slice s)
{
    struct hf_rd r;
    hf_rd_init(&r, s);
    bool magic = hf_slice_eq(hf_rd_bytes(&r, sizeof(MAGIC) - 1), hf_slice_str(MAGIC));
    uint64_t generation = hf_rd_u64(&r), n = hf_rd_u64(&r), hash = hf_rd_u64(&r);
    struct hf_slice data = hf_rd_bytes(&r, n <= s.n ? (size_t)n : s.n);
    bool ok = r.err == 0 && magic && data.n == n && hash == hash_of(generation, data);
    return ok ? (struct slot){generation, data} : (struct slot){0};
}

static void slot_build(struct hf_wr *w, uint64_t generation, struct hf_slice data)
{
    hf_wr_bytes(w, hf_slice_str(MAGIC));
    hf_wr_u64(w, generation);
    hf_wr_u64(w, data.n);
    hf_wr_u64(w, hash_of(generation, data));
    hf_wr_bytes(w, data);
}

/* Both slots of an image; an image of another size has none. */
static void parse(struct hf_slice image, size_t room, struct slot ret_slot[2])
{
    size_t size = slot_size(room);
    memset(ret_slot, 0, 2 * sizeof(*ret_slot));
    for (size_t i = 0; i < 2 && image.n == 2 * size; i++) {
        ret_slot[i] = slot_parse(hf_slice(image.p + i * size, size));
    }
}

static int read_image(const char *path, size_t room, struct hf_buf *image)
{
    hf_buf_init(image, 2 * slot_size(room) + 1);
    int rc = hf_file_read(path, image);
    return rc == -HF_EFULL ? 0 : rc; /* another size */
}

int hf_slots_read(const char *path, size_t room, struct hf_buf *buf)
{
    struct hf_buf image;
    struct slot slot[2];
    int rc = read_image(path, room, &image);
    parse(hf_buf_slice(&image), room, slot);
    const struct slot *newest = &slot[slot[1].generation > slot[0].generation];
    if (rc == 0 && newest->generation == 0) {
        rc = -HF_EMALF;
    }
    if (rc == 0) {
        hf_buf_add(buf, newest->data);
        rc = buf->err;
    }
    hf_buf_fini(&image);
    return rc;
}

/* From nothing, or from what can't be written in place. */
static int make(const char *path, size_t room, struct hf_slice data, unsigned mode,
                struct hf_err *err)
{
    size_t n = 2 * slot_size(room);
    uint8_t *image = hf_alloc(n);
    struct hf_wr w;
    if (!image) {
        return hf_err_set(err, -ENOMEM, "cannot write %s: out of memory", path);
    }
    hf_wr_init(&w, image, n);
    slot_build(&w, 1, data);
    int rc = hf_file_replace(path, hf_slice(image, n), mode, err);
    hf_free(image);
    return rc;
}

/* What a failed write left in the kernel's cache may never reach the disk: it must not be taken for
 * the newest, or the next write would go over the slot that is there. */
static void spoil(int fd, size_t at)
{
    static const uint8_t none[HEAD_LEN];
    (void)!pwrite(fd, none, sizeof(none), (off_t)at);
}

static int write_slot(const char *path, size_t at, struct hf_slice bytes)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    ssize_t n = pwrite(fd, bytes.p, bytes.n, (off_t)at);
    int rc = n < 0 ? -errno : (size_t)n < bytes.n ? -EIO : 0;
    rc = rc ? rc : fdatasync(fd) < 0 ? -errno : 0;
    if (rc) {
        spoil(fd, at);
    }
    close(fd);
    return rc;
}

int hf_slots_write(const char *path, size_t room, struct hf_slice data, unsigned mode,
                   struct hf_err *err)
{
    struct hf_buf image;
    struct slot slot[2];
    if (data.n > room) {
        return hf_err_set(err, -HF_EFULL, "cannot write %s: %zu bytes, more than %zu", path, data.n,
                          room);
    }
    int rc = read_image(path, room, &image);
    parse(hf_buf_slice(&image), room, slot);
    hf_buf_fini(&image);
    if (rc || (slot[0].generation == 0 && slot[1].generation == 0)) {
        return make(path, room, data, mode, err);
    }
    size_t to = slot[0].generation > slot[1].generation; /* the other one is the newest */
    uint64_t generation = slot[1 - to].generation + 1;
    uint8_t *bytes = hf_alloc(HEAD_LEN + data.n);
    if (!bytes) {
        return hf_err_set(err, -ENOMEM, "cannot write %s: out of memory", path);
    }
    struct hf_wr w;
    hf_wr_init(&w, bytes, HEAD_LEN + data.n);
    slot_build(&w, generation, data);
    rc = write_slot(path, to * slot_size(room), hf_slice(bytes, HEAD_LEN + data.n));
    hf_free(bytes);
    return rc ? hf_err_set(err, rc, "cannot write %s: %s; the old content stays", path,
                           hf_strerror(rc))
              : 0;
}
