/* `holdfast backup`: find what is Holdfast's own, and write it. */
#include "ctl/backup.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/hex.h"
#include "base/list.h"
#include "base/mem.h"
#include "codec/group_v1.h"
#include "hostd/config.h"
#include "hostd/group_def.h"
#include "hostd/group_store.h"
#include "os/key.h"
#include "sip/config.h"
#include "sip/store_sql.h"

#define COROSYNC_ETC "/etc/corosync"
#define SIP_CONFIG HF_BACKUP_ETC "/holdfast-sip.conf"
#define SQLITE "sqlite:"
#define TEXT_MAX (16u << 20) /* sums and definitions */
#define PIECE (64u << 10)

/* A directory, file or link of the host. */
struct item {
    struct hf_list node;
    struct stat st;
    bool is_store; /* SQLite's file: a copy of it is taken */
    char path[];   /* absolute, without root */
};

struct backup {
    const struct hf_backup_opt *opt;
    struct hf_err *err;
    struct hf_hostd_config *config;
    char host_state[PATH_MAX]; /* state.dir with root */
    char fresh[PATH_MAX];      /* what becomes opt->file */
    char copy[PATH_MAX];       /* of the SIP store */
    struct hf_list items;
    size_t n_files;
    json_t *manifest, *left_out, *groups; /* the latter two borrowed from the first */
    struct archive *a;
    struct hf_buf sums;
};

/* ---- shared ---- */

int hf_backup_path(const char *root, const char *path, char ret_path[static PATH_MAX],
                   struct hf_err *err)
{
    int n = snprintf(ret_path, PATH_MAX, "%s%s", root, path);
    return n < PATH_MAX ? 0
                        : hf_err_set(err, -ENAMETOOLONG, "%.100s...: the path is too long", path);
}

int hf_backup_hash(hf_backup_get *get, void *arg, char ret_hex[static HF_BACKUP_HASH_LEN])
{
    uint8_t *piece = hf_alloc(PIECE), sum[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int rc = piece && ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
    ssize_t n = 0;
    while (rc == 0 && (n = get(arg, piece, PIECE)) > 0) {
        rc = EVP_DigestUpdate(ctx, piece, (size_t)n) == 1 ? 0 : -ENOMEM;
    }
    rc = rc == 0 && n < 0 ? (int)n : rc;
    if (rc == 0 && EVP_DigestFinal_ex(ctx, sum, NULL) != 1) {
        rc = -ENOMEM;
    }
    if (rc == 0) {
        hf_hex_put(sum, HF_BACKUP_HASH_LEN / 2, ret_hex);
    }
    ret_hex[HF_BACKUP_HASH_LEN - 1] = '\0';
    EVP_MD_CTX_free(ctx);
    hf_free(piece);
    return rc;
}

ssize_t hf_backup_get_file(void *file, void *p, size_t n)
{
    struct hf_backup_file *f = file;
    ssize_t got;
    do {
        got = read(f->fd, p, n < f->left ? n : f->left);
    } while (got < 0 && errno == EINTR);
    if (got < 0 || (got == 0 && f->left > 0)) {
        return got < 0 ? -errno : -HF_ETRUNC;
    }
    f->left -= (size_t)got;
    return got;
}

/* ---- what there is ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

static bool is_output(const struct backup *b, const struct stat *st)
{
    struct stat out;
    return stat(b->opt->file, &out) == 0 && out.st_dev == st->st_dev && out.st_ino == st->st_ino;
}

static int add_item(struct backup *b, const char *path, const struct stat *st, bool is_store)
{
    if (b->opt->no_secrets && S_ISREG(st->st_mode) && !(st->st_mode & S_IROTH)) {
        return json_array_append_new(b->left_out, json_string(path)) ? -ENOMEM : 0;
    }
    HF_LIST_FOREACH (node, &b->items) { /* once, whoever names it */
        if (strcmp(HF_CONTAINER_OF(node, struct item, node)->path, path) == 0) {
            return 0;
        }
    }
    for (const char *c = path; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == '\\') {
            return hf_err_set(b->err, -HF_ENAME,
                              "%.100s: control characters and \\ are not possible in the name of a "
                              "file here; rename it",
                              path);
        }
    }
    struct item *i = hf_alloc(sizeof(*i) + strlen(path) + 1);
    if (!i) {
        return -ENOMEM;
    }
    memcpy(i->path, path, strlen(path) + 1);
    i->st = *st;
    i->is_store = is_store;
    hf_list_insert(&b->items, &i->node);
    b->n_files += !S_ISDIR(st->st_mode);
    return 0;
}

static int collect(struct backup *b, const char *path);

static int collect_dir(struct backup *b, const char *full, const char *path)
{
    struct dirent **name = NULL;
    int n = scandir(full, &name, NULL, alphasort);
    int rc = n < 0 && errno != ENOENT
                 ? hf_err_set(b->err, -errno, "cannot read %s: %s", full, hf_strerror(-errno))
                 : 0;
    for (int i = 0; i < n; i++) {
        char below[PATH_MAX];
        const char *s = name[i]->d_name;
        if (rc == 0 && strcmp(s, ".") != 0 && strcmp(s, "..") != 0 && !ends_with(s, ".new")) {
            int len = snprintf(below, sizeof(below), "%s/%s", path, s);
            rc = len < PATH_MAX ? collect(b, below) : -ENAMETOOLONG;
        }
        free(name[i]);
    }
    free(name);
    return rc;
}

/* A file, link or directory with all that is in it; one that is not there, or goes meanwhile, is
 * none. */
static int collect(struct backup *b, const char *path)
{
    char full[PATH_MAX];
    struct stat st;
    int rc = hf_backup_path(b->opt->root, path, full, b->err);
    if (rc) {
        return rc;
    }
    if (lstat(full, &st) < 0) {
        return errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : hf_err_set(b->err, -errno, "cannot look at %s: %s", full, hf_strerror(-errno));
    }
    if (is_output(b, &st) || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode))) {
        return 0;
    }
    rc = add_item(b, path, &st, false);
    return rc == 0 && S_ISDIR(st.st_mode) ? collect_dir(b, full, path) : rc;
}

/* A directory, not what is in it. */
static int collect_bare(struct backup *b, const char *path)
{
    char full[PATH_MAX];
    struct stat st;
    int rc = hf_backup_path(b->opt->root, path, full, b->err);
    return rc || stat(full, &st) < 0 ? rc : add_item(b, path, &st, false);
}

/* ---- groups ---- */

static int collect_group(struct backup *b, const char *name)
{
    static const char *const kept[] = {"config", "history.old", "history"};
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%.2000s/groups/%s", b->config->state.dir, name);
    int rc = collect_bare(b, path);
    for (size_t i = 0; i < HF_ARRAY_LEN(kept) && rc == 0; i++) {
        snprintf(path, sizeof(path), "%.2000s/groups/%s/%s", b->config->state.dir, name, kept[i]);
        rc = collect(b, path);
    }
    return rc ? rc : json_array_append_new(b->groups, json_string(name)) ? -ENOMEM : 0;
}

static int collect_state(struct backup *b)
{
    hf_group_name name[HF_GROUPS_MAX];
    char path[PATH_MAX];
    size_t n;
    int rc = hf_group_store_list(b->host_state, b->err, name, &n);
    rc = rc ? rc : collect_bare(b, b->config->state.dir);
    snprintf(path, sizeof(path), "%.2000s/incarnation", b->config->state.dir);
    rc = rc ? rc : collect(b, path);
    snprintf(path, sizeof(path), "%.2000s/groups", b->config->state.dir);
    rc = rc ? rc : collect_bare(b, path);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = collect_group(b, name[i]);
    }
    return rc;
}

static void describe(const struct backup *b, const struct hf_gstate *s, struct hf_buf *out)
{
    hf_buf_printf(out, "# Group %s as %s knew it in epoch %llu: %s", s->name, b->config->host.name,
                  (unsigned long long)s->epoch, hf_phase_name(s->phase));
    if (s->primary != HF_GROUP_NONE && s->primary_host != HF_GROUP_NONE) {
        hf_buf_printf(out, ", primary %s at %s", s->resource[s->primary].name,
                      s->member[s->primary_host].host);
    }
    hf_buf_str(out, ".\n# In sync:");
    for (uint8_t i = 0; i < s->n_resources; i++) {
        hf_buf_printf(out, s->in_sync >> i & 1 ? " %s" : "", s->resource[i].name);
    }
    hf_buf_str(out, ". Members:");
    for (uint8_t i = 0; i < s->n_members; i++) {
        hf_buf_printf(out, " %s", s->member[i].host);
    }
    hf_buf_str(out, ".\n# For \"holdfast group create\", should no host have a record of the group "
                    "any more.\n");
}

/* Those whose configuration is here; a leadership has none. */
static void define(const struct hf_group_store *store, const struct hf_gresource *r,
                   struct hf_buf *out)
{
    struct hf_buf text;
    hf_buf_init(&text, HF_CONF_FILE_MAX);
    if (hf_group_store_read_config(store, r->name, &text) == 0) {
        hf_buf_add(out, hf_buf_slice(&text));
    } else if (r->config_hash == 0) {
        char name[sizeof(r->name)], none[] = "";
        memcpy(name, r->name, sizeof(name));
        struct hf_group_def_resource def = {
            .title.name = name,
            .agent = none,
            .kind = r->kind == HF_RESOURCE_COPY ? HF_GROUP_DEF_COPY : HF_GROUP_DEF_ATTACHED,
            .fence = r->flags & HF_RESOURCE_FENCE_NONE ? HF_GROUP_DEF_FENCE_NONE
                                                       : HF_GROUP_DEF_FENCE_REQUIRED};
        hf_group_def_text(&def, out);
    } else {
        hf_buf_printf(out, "# resource \"%s\": its configuration is on other hosts only\n",
                      r->name);
    }
    hf_buf_fini(&text);
}

static int definition(struct backup *b, const char *name, struct hf_buf *out)
{
    struct hf_group_store store;
    struct hf_buf record;
    struct hf_gstate *s = hf_alloc(sizeof(*s));
    hf_buf_init(&record, HF_GSTATE_LEN_MAX);
    int rc = s ? hf_group_store_init(&store, b->host_state, name, b->err) : -ENOMEM;
    if (rc == 0) {
        rc = hf_group_store_read_record(&store, &record);
        rc = rc ? rc : hf_gstate_decode(hf_buf_slice(&record), s);
        if (rc && rc != -ENOENT) {
            hf_buf_printf(out, "# Group %s: its record on %s could not be read: %s\n", name,
                          b->config->host.name, hf_strerror(rc));
        }
    }
    if (rc == 0) {
        describe(b, s, out);
        hf_buf_str(out, s->degraded_refuse ? "degraded = refuse\n" : "");
        hf_buf_str(out, s->restart_always ? "restart = always\n" : "");
        for (uint8_t i = 0; i < s->n_resources; i++) {
            define(&store, &s->resource[i], out);
        }
    }
    hf_buf_fini(&record);
    hf_free(s);
    return rc == -ENOMEM ? rc : out->err;
}

/* ---- the SIP store ---- */

static int copy_store(struct backup *b, const char *path)
{
    char full[PATH_MAX], uri[PATH_MAX + sizeof(SQLITE)];
    struct hf_sip_sql *q;
    struct stat st;
    struct hf_sip_sql_value to = HF_SIP_SQL_Z(b->copy);
    int rc = hf_backup_path(b->opt->root, path, full, b->err);
    if (rc || stat(full, &st) < 0) {
        return rc; /* holdfast-sip was never started */
    }
    rc = add_item(b, path, &st, true);
    if (rc || hf_list_empty(&b->items) ||
        !HF_CONTAINER_OF(b->items.prev, struct item, node)->is_store) {
        return rc; /* left out */
    }
    unlink(b->copy);
    snprintf(uri, sizeof(uri), SQLITE "%s", full);
    rc = hf_sip_sql_open(uri, b->err, &q);
    if (rc == 0) {
        mode_t mask = umask(0077);
        int64_t n = hf_sip_sql_run(q, "VACUUM INTO $1", &to, 1, NULL, NULL, b->err);
        umask(mask);
        rc = n < 0 ? (int)n : 0;
        hf_sip_sql_close(q);
    }
    return rc;
}

static int collect_sip(struct backup *b, struct hf_buf *said)
{
    char full[PATH_MAX];
    struct hf_sip_config *c;
    int rc = hf_backup_path(b->opt->root, SIP_CONFIG, full, b->err);
    if (rc || access(full, F_OK) < 0) {
        return rc;
    }
    rc = hf_sip_config_load(full, b->err, &c);
    if (rc) {
        return rc;
    }
    if (strncmp(c->sip.database, SQLITE, sizeof(SQLITE) - 1) == 0) {
        const char *path = c->sip.database + sizeof(SQLITE) - 1;
        rc = copy_store(b, path);
        rc = rc                                                                 ? rc
             : json_object_set_new(b->manifest, "sip_store", json_string(path)) ? -ENOMEM
                                                                                : 0;
    } else {
        hf_buf_str(said, "not in it: what holdfast-sip stores: it is in its PostgreSQL database, "
                         "and is backed up there\n");
    }
    hf_sip_config_destroy(c);
    return rc;
}

static int collect_all(struct backup *b, struct hf_buf *said)
{
    int rc = collect(b, HF_BACKUP_ETC);
    rc = rc ? rc : collect(b, b->config->cluster.key_file);
    if (rc == 0 && b->config->engine.type == HF_HOSTD_ENGINE_COROSYNC) {
        rc = collect(b, COROSYNC_ETC);
    }
    rc = rc ? rc : collect_state(b);
    rc = rc ? rc : collect_sip(b, said);
    for (size_t i = 0; i < b->opt->n_more && rc == 0; i++) {
        char full[PATH_MAX];
        const char *path = b->opt->more[i];
        if (path[0] != '/' || strstr(path, "/../") || ends_with(path, "/..")) {
            return hf_err_set(b->err, -HF_EVALUE, "%.150s: got this, expected an absolute path",
                              path);
        }
        rc = hf_backup_path(b->opt->root, path, full, b->err);
        if (rc == 0 && access(full, R_OK) < 0) {
            rc = hf_err_set(b->err, -errno, "cannot read %.150s: %s", path, hf_strerror(-errno));
        }
        rc = rc ? rc : collect(b, path);
    }
    return rc;
}

/* ---- writing ---- */

static int archive_failed(struct backup *b, const char *name)
{
    int e = archive_errno(b->a);
    return hf_err_set(b->err, e > 0 ? -e : -EIO, "cannot write %s to %s: %s", name, b->fresh,
                      archive_error_string(b->a) ? archive_error_string(b->a) : "no reason known");
}

struct copied {
    struct hf_backup_file from;
    struct backup *b;
    bool failed; /* to write */
};

static ssize_t copy_piece(void *arg, void *p, size_t n)
{
    struct copied *c = arg;
    ssize_t got = hf_backup_get_file(&c->from, p, n);
    c->failed = got > 0 && archive_write_data(c->b->a, p, (size_t)got) != got;
    return c->failed ? -EIO : got;
}

static int put_head(struct backup *b, const char *name, const struct stat *st, const char *to)
{
    struct archive_entry *e = archive_entry_new();
    if (!e) {
        return -ENOMEM;
    }
    archive_entry_copy_stat(e, st);
    archive_entry_set_pathname(e, name);
    archive_entry_set_symlink(e, to);
    archive_entry_set_nlink(e, 1);
    const struct passwd *pw = getpwuid(st->st_uid);
    archive_entry_set_uname(e, pw ? pw->pw_name : NULL);
    const struct group *gr = getgrgid(st->st_gid);
    archive_entry_set_gname(e, gr ? gr->gr_name : NULL);
    int rc = archive_write_header(b->a, e) < ARCHIVE_WARN ? archive_failed(b, name) : 0;
    archive_entry_free(e);
    return rc;
}

static int put_fd(struct backup *b, const char *name, const struct stat *st, int fd)
{
    char hex[HF_BACKUP_HASH_LEN];
    struct copied c = {.from = {.fd = fd, .left = (size_t)st->st_size}, .b = b};
    int rc = put_head(b, name, st, NULL);
    if (rc) {
        return rc;
    }
    rc = hf_backup_hash(copy_piece, &c, hex);
    if (c.failed) {
        return archive_failed(b, name);
    }
    if (rc) {
        return hf_err_set(b->err, rc, "cannot read /%.150s: %s; try again", name,
                          rc == -HF_ETRUNC ? "it became shorter meanwhile" : hf_strerror(rc));
    }
    hf_buf_printf(&b->sums, "%s  %s\n", hex, name);
    return b->sums.err;
}

static int put_text(struct backup *b, const char *name, struct hf_slice text)
{
    struct stat st = {.st_mode = S_IFREG | 0600, .st_size = (off_t)text.n, .st_mtime = time(NULL)};
    int fd = memfd_create("holdfast-backup", MFD_CLOEXEC);
    if (fd < 0 || write(fd, text.p, text.n) != (ssize_t)text.n || lseek(fd, 0, SEEK_SET) < 0) {
        int rc = -errno;
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    int rc = put_fd(b, name, &st, fd);
    close(fd);
    return rc;
}

static int put_link(struct backup *b, const struct item *i, const char *full)
{
    char to[PATH_MAX];
    ssize_t n = readlink(full, to, sizeof(to) - 1);
    if (n < 0) {
        return errno == ENOENT || errno == EINVAL ? 0 : -errno;
    }
    to[n] = '\0';
    return put_head(b, i->path + 1, &i->st, to);
}

/* As it is now: one that has gone is not in it, one that was replaced is so whole. */
static int put_item(struct backup *b, const struct item *i)
{
    char full[PATH_MAX];
    struct stat st;
    int rc = hf_backup_path(b->opt->root, i->path, full, b->err);
    if (rc || S_ISDIR(i->st.st_mode)) {
        return rc ? rc : put_head(b, i->path + 1, &i->st, NULL);
    }
    if (S_ISLNK(i->st.st_mode)) {
        return put_link(b, i, full);
    }
    int fd = open(i->is_store ? b->copy : full, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = errno == ENOENT
                 ? 0
                 : hf_err_set(b->err, -errno, "cannot read %s: %s", full, hf_strerror(-errno));
    } else {
        st.st_mode = i->is_store ? i->st.st_mode : st.st_mode;
        st.st_uid = i->is_store ? i->st.st_uid : st.st_uid;
        st.st_gid = i->is_store ? i->st.st_gid : st.st_gid;
        rc = put_fd(b, i->path + 1, &st, fd);
    }
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

static int put_manifest(struct backup *b)
{
    char *text = json_dumps(b->manifest, JSON_INDENT(2));
    int rc = text ? put_text(b, HF_BACKUP_MANIFEST, hf_slice_str(text)) : -ENOMEM;
    free(text);
    return rc;
}

static int put_definitions(struct backup *b)
{
    size_t k;
    json_t *name;
    int rc = 0;
    json_array_foreach(b->groups, k, name)
    {
        struct hf_buf text;
        char path[128];
        if (rc || b->opt->no_secrets) {
            continue;
        }
        hf_buf_init(&text, TEXT_MAX);
        snprintf(path, sizeof(path), HF_BACKUP_DEFINITIONS "%s.conf", json_string_value(name));
        rc = definition(b, json_string_value(name), &text);
        rc = rc ? rc : put_text(b, path, hf_buf_slice(&text));
        hf_buf_fini(&text);
    }
    return rc;
}

static int put_all(struct backup *b)
{
    int rc = put_manifest(b);
    rc = rc ? rc : put_definitions(b);
    HF_LIST_FOREACH (node, &b->items) {
        rc = rc ? rc : put_item(b, HF_CONTAINER_OF(node, struct item, node));
    }
    return rc ? rc : put_text(b, HF_BACKUP_SUMS, hf_buf_slice(&b->sums));
}

/* Under another name, then renamed: at opt->file there is the old backup or the new one. */
static int write_file(struct backup *b)
{
    unlink(b->fresh);
    int fd = open(b->fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return hf_err_set(b->err, -errno, "cannot create %s: %s", b->fresh, hf_strerror(-errno));
    }
    b->a = archive_write_new();
    int rc = b->a ? 0 : -ENOMEM;
    if (rc == 0 && (archive_write_add_filter_gzip(b->a) < ARCHIVE_WARN ||
                    archive_write_set_format_pax_restricted(b->a) < ARCHIVE_WARN ||
                    archive_write_open_fd(b->a, fd) < ARCHIVE_WARN)) {
        rc = archive_failed(b, "a tar file");
    }
    rc = rc ? rc : put_all(b);
    rc = rc || archive_write_close(b->a) >= ARCHIVE_WARN ? rc : archive_failed(b, "the end");
    archive_write_free(b->a);
    if (rc == 0 && (fsync(fd) < 0 || rename(b->fresh, b->opt->file) < 0)) {
        rc = hf_err_set(b->err, -errno, "cannot write %s: %s", b->opt->file, hf_strerror(-errno));
    }
    close(fd);
    if (rc) {
        unlink(b->fresh);
    }
    return rc;
}

/* ---- the whole ---- */

static int begin(struct backup *b)
{
    char full[PATH_MAX], at[32], id[16];
    struct hf_key key;
    int rc = hf_backup_path(b->opt->root, HF_HOSTD_CONFIG_FILE, full, b->err);
    rc = rc ? rc : hf_hostd_config_load(full, b->err, &b->config);
    rc = rc ? rc : hf_backup_path(b->opt->root, b->config->state.dir, b->host_state, b->err);
    rc = rc ? rc : hf_backup_path("", b->opt->file, b->fresh, b->err);
    rc = rc ? rc : hf_backup_path(b->opt->root, b->config->cluster.key_file, full, b->err);
    size_t n = rc ? 0 : strlen(b->fresh);
    if (rc || n + sizeof(".store") > PATH_MAX) {
        return rc ? rc : -ENAMETOOLONG;
    }
    memcpy(b->copy, b->fresh, n);
    memcpy(b->copy + n, ".store", sizeof(".store"));
    memcpy(b->fresh + n, ".new", sizeof(".new"));
    bool known = hf_key_load(full, NULL, &key) == 0;
    snprintf(id, sizeof(id), "%08x", known ? hf_key_id(&key) : 0);
    hf_key_wipe(&key);
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(at, sizeof(at), "%Y-%m-%d %H:%M:%S UTC", &tm);
    b->manifest =
        json_pack("{s:i, s:s, s:s, s:s, s:s?, s:s, s:b, s:[], s:[]}", "format", HF_BACKUP_FORMAT,
                  "version", HF_VERSION, "host", b->config->host.name, "made_at", at,
                  "cluster_key_id", known ? id : NULL, "state_dir", b->config->state.dir, "secrets",
                  !b->opt->no_secrets, "groups", "left_out");
    b->groups = json_object_get(b->manifest, "groups");
    b->left_out = json_object_get(b->manifest, "left_out");
    return b->left_out ? 0 : -ENOMEM;
}

static void tell(const struct backup *b, struct hf_buf *said)
{
    size_t k;
    json_t *path;
    hf_buf_printf(said, "wrote %s: %zu files of %s%s\n", b->opt->file, b->n_files,
                  b->config->host.name,
                  b->opt->no_secrets ? ""
                                     : ", keys and passwords among them: keep it as you keep "
                                       "a root password");
    json_array_foreach(b->left_out, k, path)
    {
        hf_buf_printf(said, "not in it: %s, which not everybody may read\n",
                      json_string_value(path));
    }
    hf_buf_str(said, "not in it: what the databases have, and groups' records: a host that comes "
                     "back gets those from the others\n");
}

static void end(struct backup *b)
{
    HF_LIST_FOREACH (node, &b->items) {
        hf_free(HF_CONTAINER_OF(node, struct item, node));
    }
    if (*b->copy) {
        unlink(b->copy);
    }
    json_decref(b->manifest);
    hf_hostd_config_destroy(b->config);
    hf_buf_fini(&b->sums);
    hf_free(b);
}

int hf_backup(const struct hf_backup_opt *opt, struct hf_buf *said, struct hf_err *err)
{
    struct backup *b = hf_alloc(sizeof(*b));
    if (!b) {
        return hf_err_set(err, -ENOMEM, "out of memory");
    }
    b->opt = opt;
    b->err = err;
    hf_list_init(&b->items);
    hf_buf_init(&b->sums, TEXT_MAX);
    *err = (struct hf_err){0};
    int rc = begin(b);
    rc = rc ? rc : collect_all(b, said);
    rc = rc ? rc : write_file(b);
    if (rc == 0) {
        tell(b, said);
        rc = said->err;
    }
    if (rc && !*err->text) {
        hf_err_set(err, rc, "cannot write %.150s: %s", opt->file, hf_strerror(rc));
    }
    end(b);
    return rc;
}
