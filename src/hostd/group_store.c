/* What of a group is on this host's disk. */
#include "hostd/group_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/name.h"
#include "os/file.h"
#include "os/slots.h"

#define HISTORY_LEN_MAX (128u << 10) /* then it becomes history.old */

static void path_of(const struct hf_group_store *s, const char *name, char path[static PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s", s->dir, name);
}

static void config_path(const struct hf_group_store *s, const char *resource,
                        char path[static PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/config/%s", s->dir, resource);
}

static bool name_ok(const char *name)
{
    struct hf_slice s = hf_slice_str(name);
    return s.n <= HF_GROUP_NAME_MAX && hf_host_name_ok(s);
}

int hf_group_store_list(const char *state_dir, struct hf_err *err,
                        hf_group_name ret_name[static HF_GROUPS_MAX], size_t *ret_n)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/groups", state_dir);
    *ret_n = 0;
    DIR *d = opendir(path);
    if (!d) {
        int rc = -errno;
        return rc == -ENOENT ? 0 : hf_err_set(err, rc, "cannot read %s: %s", path, hf_strerror(rc));
    }
    int rc = 0;
    for (const struct dirent *e; rc == 0 && (e = readdir(d)) != NULL;) {
        char record[HF_GROUP_NAME_MAX + 16];
        struct stat st;
        if (!name_ok(e->d_name)) {
            continue;
        }
        snprintf(record, sizeof(record), "%s/record", e->d_name);
        if (fstatat(dirfd(d), record, &st, 0) < 0 && errno == ENOENT) {
            continue;
        }
        if (*ret_n == HF_GROUPS_MAX) {
            rc = hf_err_set(err, -HF_EFULL, "%s: more than %d groups", path, HF_GROUPS_MAX);
        } else {
            snprintf(ret_name[(*ret_n)++], sizeof(*ret_name), "%s", e->d_name);
        }
    }
    closedir(d);
    return rc;
}

int hf_group_store_init(struct hf_group_store *s, const char *state_dir, const char *group,
                        struct hf_err *err)
{
    int n = snprintf(s->dir, sizeof(s->dir), "%s/groups/%s", state_dir, group);
    return n < (int)sizeof(s->dir)
               ? 0
               : hf_err_set(err, -ENAMETOOLONG, "state.dir is too long for the files of groups");
}

int hf_group_store_make(const struct hf_group_store *s, struct hf_err *err)
{
    char path[PATH_MAX];
    path_of(s, "config", path);
    int rc = hf_file_make_dir(path, 0700, err);
    if (rc == 0 && chmod(s->dir, 0700) < 0) {
        rc = hf_err_set(err, -errno, "cannot protect %s: %s", s->dir, hf_strerror(-errno));
    }
    return rc;
}

static int remove_file(const char *path)
{
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int remove_files_in(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d) {
        return errno == ENOENT ? 0 : -errno;
    }
    int rc = 0;
    for (const struct dirent *e; rc == 0 && (e = readdir(d)) != NULL;) {
        struct stat st;
        bool file =
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
        rc = file && unlinkat(dirfd(d), e->d_name, 0) < 0 ? -errno : 0;
    }
    closedir(d);
    return rc;
}

int hf_group_store_remove(const struct hf_group_store *s, struct hf_err *err)
{
    char record[PATH_MAX], config[PATH_MAX];
    path_of(s, "record", record);
    path_of(s, "config", config);
    int rc = remove_file(record);
    rc = rc ? rc : remove_files_in(config);
    rc = rc ? rc : rmdir(config) < 0 && errno != ENOENT ? -errno : 0;
    rc = rc ? rc : remove_files_in(s->dir);
    rc = rc ? rc : rmdir(s->dir) < 0 && errno != ENOENT ? -errno : 0;
    return rc ? hf_err_set(err, rc, "cannot remove %s: %s", s->dir, hf_strerror(rc)) : 0;
}

int hf_group_store_read_record(const struct hf_group_store *s, struct hf_buf *buf)
{
    char path[PATH_MAX];
    path_of(s, "record", path);
    return hf_slots_read(path, HF_GSTATE_LEN_MAX, buf);
}

int hf_group_store_write_record(const struct hf_group_store *s, struct hf_slice record,
                                struct hf_err *err)
{
    char path[PATH_MAX];
    path_of(s, "record", path);
    return hf_slots_write(path, HF_GSTATE_LEN_MAX, record, 0600, err);
}

int hf_group_store_read_config(const struct hf_group_store *s, const char *resource,
                               struct hf_buf *buf)
{
    char path[PATH_MAX];
    if (!name_ok(resource)) {
        return -HF_ENAME;
    }
    config_path(s, resource, path);
    return hf_file_read(path, buf);
}

int hf_group_store_write_config(const struct hf_group_store *s, const char *resource,
                                struct hf_slice text, struct hf_err *err)
{
    char path[PATH_MAX];
    if (!name_ok(resource)) {
        return hf_err_set(err, -HF_ENAME, "not the name of a resource: %.64s", resource);
    }
    config_path(s, resource, path);
    return hf_file_replace(path, text, 0600, err);
}

/* ---- history ---- */

/* One line, one write: what a crash leaves of a line has no end. */
int hf_group_store_note(const struct hf_group_store *s, int64_t at_ms, uint64_t epoch,
                        const char *text)
{
    char path[PATH_MAX], old[PATH_MAX];
    struct hf_buf line;
    path_of(s, "history", path);
    path_of(s, "history.old", old);
    hf_buf_init(&line, 4096);
    hf_buf_printf(&line, "{\"at\":%lld,\"epoch\":%llu,\"text\":", (long long)at_ms,
                  (unsigned long long)epoch);
    hf_buf_json_str(&line, hf_slice_str(text));
    hf_buf_str(&line, "}\n");
    int rc = line.err;
    int fd = rc ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (rc == 0 && (fd < 0 || write(fd, line.p, line.n) != (ssize_t)line.n)) {
        rc = fd < 0 || errno ? -errno : -EIO;
    }
    struct stat st;
    if (rc == 0 && fstat(fd, &st) == 0 && st.st_size > HISTORY_LEN_MAX) {
        rc = rename(path, old) < 0 ? -errno : 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    hf_buf_fini(&line);
    return rc;
}

static void add_lines(struct hf_slice text, struct hf_buf *out, const char **sep)
{
    while (text.n) {
        const uint8_t *end = memchr(text.p, '\n', text.n);
        size_t n = end ? (size_t)(end - text.p) : text.n;
        if (hf_json_object_ok(hf_slice(text.p, n))) {
            hf_buf_str(out, *sep);
            hf_buf_add(out, hf_slice(text.p, n));
            *sep = ",\n";
        }
        n += end ? 1 : 0;
        text = hf_slice(text.p + n, text.n - n);
    }
}

int hf_group_store_history(const struct hf_group_store *s, struct hf_buf *out)
{
    static const char *const files[] = {"history.old", "history"};
    const char *sep = "";
    int rc = 0;
    hf_buf_str(out, "[");
    for (size_t i = 0; i < HF_ARRAY_LEN(files) && rc == 0; i++) {
        char path[PATH_MAX];
        struct hf_buf text;
        path_of(s, files[i], path);
        hf_buf_init(&text, HISTORY_LEN_MAX + 8192);
        rc = hf_file_read(path, &text);
        rc = rc == -ENOENT ? 0 : rc;
        add_lines(hf_buf_slice(&text), out, &sep);
        hf_buf_fini(&text);
    }
    hf_buf_str(out, "]\n");
    return rc ? rc : out->err;
}
