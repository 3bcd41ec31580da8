/* `holdfast restore`: check a backup as a whole, then put it back as a whole. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <jansson.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/mem.h"
#include "ctl/backup.h"
#include "holdfast/holdfast.h"
#include "hostd/config.h"
#include "lib/conn.h"
#include "os/file.h"
#include "os/key.h"
#include "sip/config.h"

#define SIP_CONFIG HF_BACKUP_ETC "/holdfast-sip.conf"
#define FRESH ".restore" /* until all are there */
#define TEXT_MAX (16u << 20)
#define NAMED 3 /* of the files that are in the way */

/* What the backup has of the host. */
struct entry {
    struct hf_list node;
    mode_t mode;
    int64_t mtime;
    char *user, *group, *to; /* owned; may be NULL; to: of a link */
    char hash[HF_BACKUP_HASH_LEN];
    bool kept;    /* what is on disk stays */
    bool written; /* its FRESH is there */
    bool is_store;
    char path[]; /* absolute, without root */
};

struct restore {
    const struct hf_restore_opt *opt;
    struct hf_buf *said;
    struct hf_err *err;
    int fd;
    struct archive *a;
    json_t *manifest;
    struct hf_buf sums, seen; /* as the backup says, and as it is */
    struct hf_list entries;
    bool whole; /* the sums have come */
};

static const char *text_of(const struct restore *r, const char *key)
{
    const char *s = json_string_value(json_object_get(r->manifest, key));
    return s ? s : "";
}

/* ---- reading ---- */

static int damaged(struct restore *r, const char *why)
{
    return hf_err_set(r->err, -HF_EMALF,
                      "%.120s: got %.60s, expected a whole backup: take another copy of it",
                      r->opt->file, why ? why : "something else");
}

static int open_archive(struct restore *r)
{
    archive_read_free(r->a);
    r->a = archive_read_new();
    if (!r->a || lseek(r->fd, 0, SEEK_SET) < 0) {
        return -ENOMEM;
    }
    if (archive_read_support_filter_all(r->a) < ARCHIVE_WARN ||
        archive_read_support_format_tar(r->a) < ARCHIVE_WARN ||
        archive_read_open_fd(r->a, r->fd, 64 << 10) < ARCHIVE_WARN) {
        return hf_err_set(r->err, -HF_EMALF,
                          "%.120s is not a backup: got something else, expected a tar file that "
                          "\"holdfast backup\" wrote",
                          r->opt->file);
    }
    return 0;
}

static bool path_ok(const char *name)
{
    for (const char *at = name;; at++) {
        size_t n = strcspn(at, "/");
        if (n == 0 || (n == 1 && at[0] == '.') || (n == 2 && at[0] == '.' && at[1] == '.')) {
            return false;
        }
        at += n;
        if (!*at) {
            return strlen(name) < PATH_MAX - 64;
        }
    }
}

static int take_manifest(struct restore *r, struct hf_slice text)
{
    r->manifest = json_loadb((const char *)text.p, text.n, 0, NULL);
    json_int_t format = json_integer_value(json_object_get(r->manifest, "format"));
    if (format > HF_BACKUP_FORMAT) {
        return hf_err_set(
            r->err, -HF_EVERSION,
            "%.120s: got format %lld, written by holdfast %.20s, expected %d: restore "
            "it with that version",
            r->opt->file, (long long)format, text_of(r, "version"), HF_BACKUP_FORMAT);
    }
    return format < 1 || !*text_of(r, "host") || text_of(r, "state_dir")[0] != '/'
               ? damaged(r, "no manifest")
               : 0;
}

struct data {
    struct restore *r;
    struct hf_buf *keep; /* NULL: only its hash is wanted */
};

static ssize_t get_data(void *arg, void *p, size_t n)
{
    const struct data *d = arg;
    la_ssize_t got = archive_read_data(d->r->a, p, n);
    if (got < 0) {
        return damaged(d->r, archive_error_string(d->r->a));
    }
    if (d->keep) {
        hf_buf_add(d->keep, hf_slice(p, (size_t)got));
    }
    return d->keep && d->keep->err ? d->keep->err : got;
}

/* The data of an entry; its hash also into seen. */
static int read_data(struct restore *r, const char *name, struct hf_buf *keep,
                     char ret_hex[static HF_BACKUP_HASH_LEN])
{
    struct data d = {.r = r, .keep = keep};
    int rc = hf_backup_hash(get_data, &d, ret_hex);
    if (rc == 0) {
        hf_buf_printf(&r->seen, "%s  %s\n", ret_hex, name);
    }
    return rc ? rc : r->seen.err;
}

static char *copy_of(const char *s)
{
    char *p = s ? hf_alloc(strlen(s) + 1) : NULL;
    return p ? memcpy(p, s, strlen(s) + 1) : NULL;
}

static int take_entry(struct restore *r, struct archive_entry *e, const char *name,
                      struct entry **ret_entry)
{
    struct entry *n = hf_alloc(sizeof(*n) + strlen(name) + 2);
    if (!n) {
        return -ENOMEM;
    }
    n->path[0] = '/';
    memcpy(n->path + 1, name, strlen(name) + 1);
    n->mode = archive_entry_mode(e);
    n->mtime = archive_entry_mtime(e);
    n->user = copy_of(archive_entry_uname(e));
    n->group = copy_of(archive_entry_gname(e));
    n->to = copy_of(archive_entry_symlink(e));
    n->is_store = strcmp(n->path, text_of(r, "sip_store")) == 0;
    hf_list_insert(&r->entries, &n->node);
    *ret_entry = n;
    return 0;
}

static int take(struct restore *r, struct archive_entry *e)
{
    char name[PATH_MAX], hex[HF_BACKUP_HASH_LEN];
    const char *raw = archive_entry_pathname(e);
    mode_t type = archive_entry_filetype(e);
    struct entry *n = NULL;
    if (!raw || r->whole || archive_entry_hardlink(e)) {
        return damaged(r, "an entry that no backup has");
    }
    int len = snprintf(name, sizeof(name), "%s", raw);
    if (len > 0 && len < PATH_MAX && name[len - 1] == '/') {
        name[len - 1] = '\0'; /* of a directory */
    }
    if (len >= PATH_MAX || !path_ok(name) ||
        (type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK)) {
        return damaged(r, "an entry that no backup has");
    }
    if (!r->manifest) {
        struct hf_buf text;
        hf_buf_init(&text, TEXT_MAX);
        int rc = strcmp(name, HF_BACKUP_MANIFEST) != 0 ? damaged(r, "no manifest at its beginning")
                                                       : read_data(r, name, &text, hex);
        rc = rc ? rc : take_manifest(r, hf_buf_slice(&text));
        hf_buf_fini(&text);
        return rc;
    }
    if (strcmp(name, HF_BACKUP_SUMS) == 0) {
        struct data d = {.r = r, .keep = &r->sums};
        r->whole = true;
        return hf_backup_hash(get_data, &d, hex);
    }
    int rc = 0;
    if (strncmp(name, HF_BACKUP_DIR, sizeof(HF_BACKUP_DIR) - 1) != 0) {
        rc = take_entry(r, e, name, &n);
    }
    if (rc == 0 && type == AE_IFREG) {
        rc = read_data(r, name, NULL, n ? n->hash : hex);
    }
    return rc;
}

static int read_all(struct restore *r)
{
    struct archive_entry *e;
    int got, rc = open_archive(r);
    while (rc == 0 && (got = archive_read_next_header(r->a, &e)) != ARCHIVE_EOF) {
        rc = got < ARCHIVE_WARN
                 ? damaged(r, r->manifest ? "no end" : "no manifest at its beginning")
                 : take(r, e);
    }
    if (rc == 0 && !r->whole) {
        rc = damaged(r, "no end");
    }
    return rc || hf_slice_eq(hf_buf_slice(&r->sums), hf_buf_slice(&r->seen))
               ? rc
               : damaged(r, "files that do not have their sums");
}

/* ---- may it be restored here? ---- */

static int check_socket(struct restore *r, const char *path, const char *unit)
{
    char full[PATH_MAX];
    int fd, rc = hf_backup_path(r->opt->root, path, full, r->err);
    rc = rc ? rc : hf_conn_dial(full, &fd);
    if (rc == 0) {
        close(fd);
    }
    return rc == 0 || rc == -EAGAIN
               ? hf_err_set(r->err, -EBUSY,
                            "%s runs: it answers at %.100s; stop it (systemctl stop %s), restore, "
                            "and start it",
                            unit, full, unit)
               : 0;
}

/* The configuration that is here; NULL: none that can be read. */
static struct hf_hostd_config *own_config(const struct restore *r)
{
    char full[PATH_MAX];
    struct hf_hostd_config *c = NULL;
    return hf_backup_path(r->opt->root, HF_HOSTD_CONFIG_FILE, full, NULL) ||
                   hf_hostd_config_load(full, NULL, &c)
               ? NULL
               : c;
}

static int check_running(struct restore *r, const struct hf_hostd_config *c)
{
    char full[PATH_MAX];
    struct hf_sip_config *sip = NULL;
    int rc = check_socket(r, c ? c->control.socket : HOLDFAST_SOCKET_DEFAULT, "holdfastd");
    if (rc == 0 && *text_of(r, "sip_store") &&
        hf_backup_path(r->opt->root, SIP_CONFIG, full, NULL) == 0 &&
        hf_sip_config_load(full, NULL, &sip) == 0) {
        rc = check_socket(r, sip->sip.control, "holdfast-sip");
        hf_sip_config_destroy(sip);
    }
    return rc;
}

static int check_host(struct restore *r, const struct hf_hostd_config *c)
{
    char machine[HF_HOST_NAME_MAX + 1];
    const char *of = text_of(r, "host"), *here = r->opt->host;
    hf_conf_machine_name(machine);
    here = here ? here : c ? c->host.name : machine;
    return strcmp(of, here) == 0
               ? 0
               : hf_err_set(
                     r->err, -HF_EOWNER,
                     "%.100s: got a backup of the host %.63s, expected one of %.63s; if this "
                     "host is to become the other one: --host %.63s",
                     r->opt->file, of, here, of);
}

static int check_cluster(struct restore *r, const struct hf_hostd_config *c)
{
    char full[PATH_MAX], id[16];
    struct hf_key key;
    const char *file = c ? c->cluster.key_file : HF_BACKUP_ETC "/cluster.key";
    int rc = hf_backup_path(r->opt->root, file, full, r->err);
    if (rc || !*text_of(r, "cluster_key_id") || hf_key_load(full, NULL, &key)) {
        return rc; /* no key here, or none in the backup */
    }
    snprintf(id, sizeof(id), "%08x", hf_key_id(&key));
    hf_key_wipe(&key);
    return strcmp(id, text_of(r, "cluster_key_id")) == 0
               ? 0
               : hf_err_set(r->err, -HF_EKEY,
                            "%.80s: got a backup of another cluster (key %.8s), expected that of "
                            "%.80s (key %s); if that key is not wanted any more, move it away",
                            r->opt->file, text_of(r, "cluster_key_id"), full, id);
}

/* ---- what stays as it is ---- */

/* The group whose file this is; false: it is none of a group. */
static bool group_of(const struct restore *r, const char *path, char name[static NAME_MAX + 1])
{
    char dir[PATH_MAX];
    int n = snprintf(dir, sizeof(dir), "%s/groups/", text_of(r, "state_dir"));
    if (n >= PATH_MAX || strncmp(path, dir, (size_t)n) != 0) {
        return false;
    }
    size_t len = strcspn(path + n, "/");
    snprintf(name, NAME_MAX + 1, "%.*s", (int)len, path + n);
    return true;
}

static bool has_record(const struct restore *r, const char *group)
{
    char path[PATH_MAX], full[PATH_MAX];
    snprintf(path, sizeof(path), "%.2000s/groups/%s/record", text_of(r, "state_dir"), group);
    return hf_backup_path(r->opt->root, path, full, NULL) == 0 && access(full, F_OK) == 0;
}

/* Is it as in the backup? 1 yes, 0 no, -ENOENT: nothing is there. */
static int is_same(const struct restore *r, const struct entry *e)
{
    char full[PATH_MAX], hex[HF_BACKUP_HASH_LEN], to[PATH_MAX];
    struct stat st;
    if (hf_backup_path(r->opt->root, e->path, full, NULL) ||
        (S_ISDIR(e->mode) ? stat(full, &st) : lstat(full, &st)) < 0) {
        return errno == ENOENT || errno == ENOTDIR ? -ENOENT : 0;
    }
    if (S_ISDIR(e->mode) || (st.st_mode & S_IFMT) != (e->mode & S_IFMT)) {
        return S_ISDIR(e->mode) && S_ISDIR(st.st_mode);
    }
    if (S_ISLNK(e->mode)) {
        ssize_t n = readlink(full, to, sizeof(to) - 1);
        return e->to && n == (ssize_t)strlen(e->to) && memcmp(to, e->to, (size_t)n) == 0;
    }
    struct hf_backup_file f = {.fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK),
                               .left = (size_t)st.st_size};
    int rc = f.fd < 0 ? -errno : hf_backup_hash(hf_backup_get_file, &f, hex);
    if (f.fd >= 0) {
        close(f.fd);
    }
    return rc == 0 && strcmp(hex, e->hash) == 0;
}

static bool stays(const struct restore *r, const struct entry *e)
{
    char group[NAME_MAX + 1], path[PATH_MAX];
    if (group_of(r, e->path, group)) {
        const char *file = strrchr(e->path, '/') + 1;
        return *group && (has_record(r, group) || strcmp(file, "record") == 0);
    }
    snprintf(path, sizeof(path), "%.2000s/incarnation", text_of(r, "state_dir"));
    return strcmp(e->path, path) == 0 && is_same(r, e) != -ENOENT; /* what is here is newer */
}

/* What is not to be touched, and whether something is in the way. */
static int compare(struct restore *r)
{
    char named[160] = "";
    size_t n = 0;
    HF_LIST_FOREACH (node, &r->entries) {
        struct entry *e = HF_CONTAINER_OF(node, struct entry, node);
        int same = is_same(r, e);
        e->kept = same > 0 || stays(r, e);
        if (e->kept || same == -ENOENT) {
            continue;
        }
        if (S_ISDIR(e->mode)) {
            return hf_err_set(r->err, -ENOTDIR, "%.150s is there and not a directory: move it away",
                              e->path);
        }
        if (n++ < NAMED) {
            size_t at = strlen(named);
            snprintf(named + at, sizeof(named) - at, "%s%.44s", at ? ", " : "", e->path);
        }
        if (r->opt->check) {
            hf_buf_printf(r->said, "is there with other content: %s\n", e->path);
        }
    }
    return n == 0 || r->opt->overwrite || r->opt->check
               ? 0
               : hf_err_set(r->err, -EEXIST,
                            "%zu files are there with other content (%s%s); --yes replaces them", n,
                            named, n > NAMED ? ", ..." : "");
}

/* ---- writing ---- */

static int cannot(struct restore *r, const char *what, const char *path)
{
    int rc = -errno;
    return hf_err_set(r->err, rc, "cannot %s %.150s: %s; nothing was restored", what, path,
                      hf_strerror(rc));
}

/* Owner and mode; a user who is not (yet) there is told of. */
static int dress(struct restore *r, const struct entry *e, int fd)
{
    const struct passwd *pw = e->user ? getpwnam(e->user) : NULL;
    const struct group *gr = e->group ? getgrnam(e->group) : NULL;
    if (geteuid() == 0 && ((e->user && !pw) || (e->group && !gr))) {
        hf_buf_printf(r->said,
                      "there is no user or group %s:%s here: %s is root's; install the package "
                      "that makes them, then chown it\n",
                      e->user ? e->user : "", e->group ? e->group : "", e->path);
    }
    if (geteuid() == 0 && fchown(fd, pw ? pw->pw_uid : 0, gr ? gr->gr_gid : 0) < 0) {
        return cannot(r, "give its owner to", e->path);
    }
    return fchmod(fd, e->mode & 07777) < 0 ? cannot(r, "set the mode of", e->path) : 0;
}

static int make_dir(struct restore *r, const struct entry *e, const char *full)
{
    int rc = hf_file_make_dir_of(full, 0755, r->err);
    if (rc) {
        return rc;
    }
    int fd = mkdir(full, 0700) < 0 && errno != EEXIST
                 ? -1
                 : open(full, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    rc = fd < 0 ? cannot(r, "make the directory", full) : dress(r, e, fd);
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

static int make_file(struct restore *r, struct entry *e, const char *full, const char *fresh)
{
    struct stat st;
    int rc = hf_file_make_dir_of(full, 0755, r->err);
    if (rc) {
        return rc;
    }
    unlink(fresh);
    e->written = true;
    if (S_ISLNK(e->mode)) {
        return symlink(e->to ? e->to : "", fresh) < 0 ? cannot(r, "make the link", fresh) : 0;
    }
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return cannot(r, "create", fresh);
    }
    if (archive_read_data_into_fd(r->a, fd) < ARCHIVE_WARN || fstat(fd, &st) < 0) {
        errno = archive_errno(r->a) > 0 ? archive_errno(r->a) : EIO;
        rc = cannot(r, "write", fresh);
    }
    rc = rc ? rc : dress(r, e, fd);
    struct timespec at[2] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = e->mtime}};
    if (rc == 0 && (futimens(fd, at) < 0 || fsync(fd) < 0)) {
        rc = cannot(r, "write", fresh);
    }
    return close(fd) < 0 && rc == 0 ? cannot(r, "write", fresh) : rc;
}

static int paths(struct restore *r, const struct entry *e, char full[static PATH_MAX],
                 char fresh[static PATH_MAX])
{
    int rc = hf_backup_path(r->opt->root, e->path, full, r->err);
    rc = rc ? rc : hf_backup_path(full, FRESH, fresh, r->err);
    return rc;
}

/* All beside where they belong, in the order of the archive. */
static int write_all(struct restore *r)
{
    char full[PATH_MAX], fresh[PATH_MAX];
    struct archive_entry *a;
    struct hf_list *at = r->entries.next;
    int rc = open_archive(r);
    while (rc == 0 && at != &r->entries && archive_read_next_header(r->a, &a) >= ARCHIVE_WARN) {
        struct entry *e = HF_CONTAINER_OF(at, struct entry, node);
        const char *name = archive_entry_pathname(a);
        if (strncmp(name, HF_BACKUP_DIR, sizeof(HF_BACKUP_DIR) - 1) == 0) {
            continue;
        }
        at = at->next;
        rc = hf_slice_starts(hf_slice_str(name), hf_slice_str(e->path + 1))
                 ? 0
                 : damaged(r, "another file than before");
        rc = rc || e->kept ? rc : paths(r, e, full, fresh);
        if (rc == 0 && !e->kept) {
            rc = S_ISDIR(e->mode) ? make_dir(r, e, full) : make_file(r, e, full, fresh);
        }
    }
    return rc == 0 && at != &r->entries ? damaged(r, "another file than before") : rc;
}

static int rename_all(struct restore *r, size_t *ret_n)
{
    char full[PATH_MAX], fresh[PATH_MAX], beside[PATH_MAX + 8];
    size_t n = 0;
    HF_LIST_FOREACH (node, &r->entries) {
        struct entry *e = HF_CONTAINER_OF(node, struct entry, node);
        if (!e->written || paths(r, e, full, fresh)) {
            continue;
        }
        if (e->is_store) { /* of the database that was there */
            snprintf(beside, sizeof(beside), "%s-wal", full);
            unlink(beside);
            snprintf(beside, sizeof(beside), "%s-shm", full);
            unlink(beside);
        }
        if (rename(fresh, full) < 0) {
            int rc = -errno;
            return hf_err_set(r->err, rc,
                              "cannot replace %.120s: %s; %zu files were restored: mend it, and "
                              "restore again with --yes",
                              full, hf_strerror(rc), n);
        }
        e->written = false;
        n++;
    }
    sync();
    *ret_n = n;
    return 0;
}

/* ---- the whole ---- */

static void tell_next(struct restore *r)
{
    size_t k;
    json_t *item;
    json_array_foreach(json_object_get(r->manifest, "left_out"), k, item)
    {
        hf_buf_printf(r->said, "was left out of the backup: %s\n", json_string_value(item));
    }
    hf_buf_str(r->said, "next: start corosync, if it is the engine, and holdfastd\n");
    json_array_foreach(json_object_get(r->manifest, "groups"), k, item)
    {
        const char *name = json_string_value(item) ? json_string_value(item) : "";
        hf_buf_printf(r->said,
                      has_record(r, name)
                          ? "group %s: this host has a record of it, which stays\n"
                          : "next: holdfast group join %s: the others have its state\n",
                      name);
    }
}

static int put_back(struct restore *r)
{
    size_t n = 0, kept = 0;
    HF_LIST_FOREACH (node, &r->entries) {
        const struct entry *e = HF_CONTAINER_OF(node, struct entry, node);
        kept += e->kept && !S_ISDIR(e->mode);
        n += !e->kept && !S_ISDIR(e->mode);
    }
    int rc = r->opt->check ? 0 : write_all(r);
    rc = rc || r->opt->check ? rc : rename_all(r, &n);
    if (rc == 0) {
        hf_buf_printf(r->said, "%s %zu files of %s as it was at %s; %zu stay as they are\n",
                      r->opt->check ? "would restore" : "restored", n, text_of(r, "host"),
                      text_of(r, "made_at"), kept);
    }
    return rc;
}

static void end(struct restore *r)
{
    char full[PATH_MAX], fresh[PATH_MAX];
    HF_LIST_FOREACH (node, &r->entries) {
        struct entry *e = HF_CONTAINER_OF(node, struct entry, node);
        if (e->written && paths(r, e, full, fresh) == 0) {
            unlink(fresh);
        }
        hf_free(e->user);
        hf_free(e->group);
        hf_free(e->to);
        hf_free(e);
    }
    archive_read_free(r->a);
    json_decref(r->manifest);
    hf_buf_fini(&r->sums);
    hf_buf_fini(&r->seen);
    if (r->fd >= 0) {
        close(r->fd);
    }
}

int hf_restore(const struct hf_restore_opt *opt, struct hf_buf *said, struct hf_err *err)
{
    struct restore r = {.opt = opt, .said = said, .err = err};
    *err = (struct hf_err){0};
    hf_list_init(&r.entries);
    hf_buf_init(&r.sums, TEXT_MAX);
    hf_buf_init(&r.seen, TEXT_MAX);
    r.fd = open(opt->file, O_RDONLY | O_CLOEXEC);
    int rc = r.fd < 0
                 ? hf_err_set(err, -errno, "cannot read %.150s: %s", opt->file, hf_strerror(-errno))
                 : read_all(&r);
    struct hf_hostd_config *c = rc ? NULL : own_config(&r);
    rc = rc ? rc : check_host(&r, c);
    rc = rc ? rc : check_cluster(&r, c);
    rc = rc || opt->check ? rc : check_running(&r, c);
    hf_hostd_config_destroy(c);
    rc = rc ? rc : compare(&r);
    rc = rc ? rc : put_back(&r);
    if (rc == 0) {
        tell_next(&r);
        rc = said->err;
    }
    if (rc && !*err->text) {
        hf_err_set(err, rc, "cannot restore %.150s: %s", opt->file, hf_strerror(rc));
    }
    end(&r);
    return rc;
}
