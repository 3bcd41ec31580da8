/* Small files: read bounded, replace atomically and durably, lock. */
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"

#define READ_CHUNK 16384u

int hf_file_read(const char *path, struct hf_buf *buf)
{
    if (buf->err) {
        return buf->err;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return -errno;
    }
    size_t before = buf->n;
    int rc = 0;
    for (;;) {
        size_t room = buf->n_max - buf->n;
        size_t n = room < READ_CHUNK ? room : READ_CHUNK;
        uint8_t over = 0, *p = n ? hf_buf_reserve(buf, n) : &over;
        if (!p) {
            rc = buf->err;
            break;
        }
        ssize_t got = read(fd, p, n ? n : 1);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0 || n == 0) {
            rc = got < 0 ? -errno : got > 0 ? -HF_EFULL : 0;
            break;
        }
        hf_buf_commit(buf, (size_t)got);
    }
    if (rc) {
        buf->n = before;
    }
    close(fd);
    return rc;
}

static int write_all(int fd, struct hf_slice data)
{
    while (data.n) {
        ssize_t n = write(fd, data.p, data.n);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        data = hf_slice(data.p + n, data.n - (size_t)n);
    }
    return 0;
}

static int sync_dir_of(const char *path)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int n = slash ? snprintf(dir, sizeof(dir), "%.*s/", (int)(slash - path), path)
                  : snprintf(dir, sizeof(dir), ".");
    if (n >= (int)sizeof(dir)) {
        return -ENAMETOOLONG;
    }
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    int rc = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

int hf_file_replace(const char *path, struct hf_slice data, unsigned mode, struct hf_err *err)
{
    /* one fixed name, so that what a crash leaves behind is used up by the next replacement */
    char tmp[PATH_MAX];
    if (snprintf(tmp, sizeof(tmp), "%s.new", path) >= (int)sizeof(tmp)) {
        return hf_err_set(err, -ENAMETOOLONG, "cannot write %.100s...: the path is too long", path);
    }
    unlink(tmp);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0) {
        int e = errno;
        return hf_err_set(err, -e, "cannot create %s: %s", tmp, hf_strerror(-e));
    }
    int rc = fchmod(fd, mode) < 0 ? -errno : 0;
    rc = rc ? rc : write_all(fd, data);
    rc = rc ? rc : fsync(fd) < 0 ? -errno : 0;
    rc = close(fd) < 0 && !rc ? -errno : rc;
    rc = rc ? rc : rename(tmp, path) < 0 ? -errno : 0;
    if (rc) {
        unlink(tmp);
        return hf_err_set(err, rc, "cannot write %s: %s; the old content stays", path,
                          hf_strerror(rc));
    }
    rc = sync_dir_of(path);
    return rc ? hf_err_set(err, rc, "cannot sync the directory of %s: %s", path, hf_strerror(rc))
              : 0;
}

int hf_file_make_dir(const char *path, unsigned mode, struct hf_err *err)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof(part)) {
        int rc = n ? -ENAMETOOLONG : -ENOENT;
        return hf_err_set(err, rc, "cannot create the directory '%.100s': %s", path,
                          hf_strerror(rc));
    }
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0') {
            continue;
        }
        memcpy(part, path, i);
        part[i] = '\0';
        struct stat st;
        int rc = 0;
        if (mkdir(part, i == n ? mode : 0755) < 0 && errno != EEXIST) {
            rc = -errno;
        } else if (stat(part, &st) < 0) {
            rc = -errno;
        } else if (!S_ISDIR(st.st_mode)) {
            rc = -ENOTDIR;
        }
        if (rc) {
            return hf_err_set(err, rc, "cannot create the directory %s: %s", part, hf_strerror(rc));
        }
    }
    return 0;
}

int hf_file_make_dir_of(const char *path, unsigned mode, struct hf_err *err)
{
    char dir[PATH_MAX];
    if (snprintf(dir, sizeof(dir), "%s", path) >= (int)sizeof(dir)) {
        return hf_err_set(err, -ENAMETOOLONG, "cannot create the directory of %.100s...: %s", path,
                          hf_strerror(-ENAMETOOLONG));
    }
    char *slash = strrchr(dir, '/');
    if (!slash || slash == dir) {
        return 0;
    }
    *slash = '\0';
    return hf_file_make_dir(dir, mode, err);
}

bool hf_file_is_stale_socket(const struct sockaddr_un *un)
{
    struct stat st;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool stale = fd >= 0 && lstat(un->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
                 connect(fd, (const struct sockaddr *)un, sizeof(*un)) < 0 && errno == ECONNREFUSED;
    if (fd >= 0) {
        close(fd);
    }
    return stale;
}
