/* ctl/backup, ctl/restore: what is written comes back as it was; what is not safe is refused. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "codec/group_v1.h"
#include "ctl/backup.h"
#include "hostd/group_store.h"
#include "os/file.h"
#include "os/key.h"
#include "sip/store.h"
#include "sip/store_sql.h"
#include "support/test.h"

#define CONF "/etc/holdfast/holdfast.conf"
#define KEY "/etc/holdfast/cluster.key"
#define SIP_CONF "/etc/holdfast/holdfast-sip.conf"
#define SIP_LISTEN "listen own { address = 127.0.0.1 }\n"
#define SIP_DB "/var/lib/holdfast-sip/sip.db"
#define STATE "/var/lib/holdfast"
#define COPY1 STATE "/groups/orders/config/copy1"

static struct {
    char dir[64], old[96], fresh[96], file[96]; /* two roots, and the backup */
    struct hf_buf said;
    struct hf_err err;
} t;

static const char *at(const char *root, const char *path)
{
    static char full[4][PATH_MAX];
    static unsigned k;
    char *p = full[k++ % 4];
    snprintf(p, PATH_MAX, "%s%s", root, path);
    return p;
}

static void put(const char *root, const char *path, const char *text, mode_t mode)
{
    assert_int_equal(hf_file_make_dir_of(at(root, path), 0755, &t.err), 0);
    assert_int_equal(hf_file_replace(at(root, path), hf_slice_str(text), mode, &t.err), 0);
}

static const char *get(const char *root, const char *path)
{
    static struct hf_buf b;
    hf_buf_fini(&b);
    hf_buf_init(&b, 1u << 20);
    int rc = hf_file_read(at(root, path), &b);
    hf_buf_add(&b, hf_slice("", 1));
    return rc ? NULL : (const char *)b.p;
}

static mode_t mode_of(const char *root, const char *path)
{
    struct stat st;
    assert_int_equal(stat(at(root, path), &st), 0);
    return st.st_mode & 07777;
}

static bool said(const char *text)
{
    hf_buf_add(&t.said, hf_slice("", 1));
    bool found = strstr((const char *)t.said.p, text) != NULL;
    t.said.n--;
    return found;
}

static int backup(bool no_secrets)
{
    struct hf_backup_opt o = {.root = t.old, .file = t.file, .no_secrets = no_secrets};
    hf_buf_clear(&t.said);
    return hf_backup(&o, &t.said, &t.err);
}

static int restore(struct hf_restore_opt o)
{
    o.root = o.root ? o.root : t.fresh;
    o.file = t.file;
    hf_buf_clear(&t.said);
    return hf_restore(&o, &t.said, &t.err);
}

static void record(const char *root, uint64_t epoch)
{
    static struct hf_gstate s;
    static uint8_t bytes[HF_GSTATE_LEN_MAX];
    struct hf_group_store store;
    struct hf_slice record;
    memset(&s, 0, sizeof(s));
    snprintf(s.name, sizeof(s.name), "orders");
    s.id = 7;
    s.version = 5;
    s.epoch = epoch;
    s.phase = HF_PHASE_NONE;
    s.primary = s.primary_host = s.last_primary = s.next = s.next_host = HF_GROUP_NONE;
    s.join.subgroup = HF_GROUP_NONE;
    s.degraded_refuse = true;
    s.in_sync = 1;
    s.n_members = 1;
    snprintf(s.member[0].host, sizeof(s.member[0].host), "alpha");
    s.member[0].subgroup = 0;
    s.n_resources = 2;
    for (int i = 0; i < 2; i++) {
        struct hf_gresource *r = &s.resource[i];
        snprintf(r->name, sizeof(r->name), "copy%d", i + 1);
        snprintf(r->agent, sizeof(r->agent), "ocf:heartbeat:Dummy");
        r->kind = HF_RESOURCE_COPY;
        r->host = HF_GROUP_NONE;
        r->config_hash = 99;
    }
    assert_int_equal(hf_gstate_encode(&s, bytes, sizeof(bytes), &record), 0);
    assert_int_equal(hf_group_store_init(&store, at(root, STATE), "orders", &t.err), 0);
    assert_int_equal(hf_group_store_make(&store, &t.err), 0);
    assert_int_equal(hf_group_store_write_record(&store, record, &t.err), 0);
}

static int setup(void **state)
{
    (void)state;
    memset(&t, 0, sizeof(t));
    snprintf(t.dir, sizeof(t.dir), "/tmp/hf-backup-XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    snprintf(t.old, sizeof(t.old), "%s/old", t.dir);
    snprintf(t.fresh, sizeof(t.fresh), "%s/fresh", t.dir);
    snprintf(t.file, sizeof(t.file), "%s/backup.tar.gz", t.dir);
    hf_buf_init(&t.said, 1u << 20);
    put(t.old, CONF, "host { name = alpha address = 192.0.2.1 }\n", 0644);
    put(t.old, "/etc/holdfast/users", "\"app\" \"secret\"\n", 0600);
    put(t.old, "/etc/holdfast/tls/server.pem", "certificate\n", 0644);
    put(t.old, "/etc/holdfast/left.new", "of a crash\n", 0644);
    put(t.old, STATE "/incarnation", "41\n", 0644);
    assert_int_equal(hf_key_generate(at(t.old, KEY), &t.err), 0);
    assert_int_equal(symlink("tls/server.pem", at(t.old, "/etc/holdfast/link.pem")), 0);
    record(t.old, 3);
    put(t.old, COPY1, "resource \"copy1\" {\n}\n", 0600);
    put(t.old, STATE "/groups/orders/history", "{\"at\":1,\"epoch\":1,\"text\":\"a\"}\n", 0600);
    assert_int_equal(chmod(at(t.old, STATE "/groups"), 0700), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", t.dir);
    hf_buf_fini(&t.said);
    return system(command);
}

static void comes_back_as_it_was(void **state)
{
    (void)state;
    struct stat st;
    char to[64] = "";
    assert_int_equal(backup(false), 0);
    assert_int_equal(stat(t.file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(restore((struct hf_restore_opt){.host = "alpha"}), 0);
    static const char *const same[] = {CONF,
                                       KEY,
                                       "/etc/holdfast/users",
                                       "/etc/holdfast/tls/server.pem",
                                       COPY1,
                                       STATE "/incarnation",
                                       STATE "/groups/orders/history"};
    for (size_t i = 0; i < HF_ARRAY_LEN(same); i++) {
        char *was = strdup(get(t.old, same[i]));
        assert_string_equal(get(t.fresh, same[i]), was);
        assert_int_equal(mode_of(t.fresh, same[i]), mode_of(t.old, same[i]));
        free(was);
    }
    assert_int_equal(mode_of(t.fresh, STATE "/groups"), 0700);
    assert_true(readlink(at(t.fresh, "/etc/holdfast/link.pem"), to, sizeof(to) - 1) > 0);
    assert_string_equal(to, "tls/server.pem");
    assert_null(get(t.fresh, "/etc/holdfast/left.new"));
    assert_true(said("next: holdfast group join orders"));
    /* again: nothing to do, nothing in the way */
    assert_int_equal(restore((struct hf_restore_opt){.host = "alpha"}), 0);
    assert_true(said("restored 0 files"));
}

/* G3 to G5: what this host promised long ago is not its word of today. */
static void never_a_record(void **state)
{
    (void)state;
    assert_int_equal(backup(false), 0);
    assert_int_equal(restore((struct hf_restore_opt){.host = "alpha"}), 0);
    assert_null(get(t.fresh, STATE "/groups/orders/record"));
    /* a host that has one keeps all of that group, and its newer number of lives */
    record(t.fresh, 9);
    put(t.fresh, COPY1, "newer\n", 0600);
    put(t.fresh, STATE "/incarnation", "50\n", 0644);
    assert_int_equal(restore((struct hf_restore_opt){.host = "alpha"}), 0);
    assert_true(said("group orders: this host has a record of it, which stays"));
    assert_string_equal(get(t.fresh, COPY1), "newer\n");
    assert_string_equal(get(t.fresh, STATE "/incarnation"), "50\n");
}

/* ... nor if somebody has put one into it by hand. */
static void never_a_record_that_was_smuggled_in(void **state)
{
    (void)state;
    char command[1024];
    assert_int_equal(backup(false), 0);
    snprintf(command, sizeof(command),
             "cd '%s' && mkdir x && cd x && tar xf '%s' && cp '%s" STATE "/groups/orders/record' "
             "var/lib/holdfast/groups/orders/ && f=var/lib/holdfast/groups/orders/record && "
             "sha256sum $f >>holdfast-backup/SHA256SUMS && tar tf '%s' | grep -v '/$' | "
             "grep -v SUMS >list && echo $f >>list && echo holdfast-backup/SHA256SUMS >>list && "
             "tar czf '%s' --no-recursion -T list",
             t.dir, t.file, t.old, t.file, t.file);
    assert_int_equal(system(command), 0);
    assert_int_equal(restore((struct hf_restore_opt){.host = "alpha"}), 0);
    assert_null(get(t.fresh, STATE "/groups/orders/record"));
    assert_non_null(get(t.fresh, COPY1));
}

static void definitions(void **state)
{
    (void)state;
    char command[512];
    assert_int_equal(backup(false), 0);
    snprintf(command, sizeof(command), "cd '%s' && tar xf '%s' holdfast-backup", t.dir, t.file);
    assert_int_equal(system(command), 0);
    const char *text = get(t.dir, "/holdfast-backup/definitions/orders.conf");
    assert_non_null(text);
    assert_non_null(strstr(text, "# Group orders as alpha knew it in epoch 3: none"));
    assert_non_null(strstr(text, "# In sync: copy1. Members: alpha."));
    assert_non_null(strstr(text, "degraded = refuse\nresource \"copy1\" {\n}\n"));
    assert_non_null(strstr(text, "# resource \"copy2\": its configuration is on other hosts only"));
    snprintf(command, sizeof(command),
             "cd '%s' && mkdir all && cd all && tar xf '%s' && "
             "sha256sum --quiet --strict -c holdfast-backup/SHA256SUMS",
             t.dir, t.file);
    assert_int_equal(system(command), 0);
}

static void without_secrets(void **state)
{
    (void)state;
    assert_int_equal(backup(true), 0);
    assert_true(said("not in it: " KEY ", which not everybody may read"));
    assert_int_equal(restore((struct hf_restore_opt){.host = "alpha"}), 0);
    assert_null(get(t.fresh, KEY));
    assert_null(get(t.fresh, COPY1));
    assert_non_null(get(t.fresh, CONF));
    assert_true(said("was left out of the backup: " KEY));
    char command[512];
    snprintf(command, sizeof(command), "tar tf '%s' | grep definitions/.", t.file);
    assert_int_not_equal(system(command), 0);
}

static void refused(struct hf_restore_opt o, int code, const char *text)
{
    assert_int_equal(restore(o), code);
    if (!strstr(t.err.text, text)) {
        fail_msg("%s: does not say \"%s\"", t.err.text, text);
    }
    assert_null(get(t.fresh, "/etc/holdfast/users"));
    assert_int_not_equal(access(at(t.fresh, "/etc/holdfast/users.restore"), F_OK), 0);
}

static void another_host_or_cluster(void **state)
{
    (void)state;
    assert_int_equal(backup(false), 0);
    put(t.fresh, CONF, "host { name = beta address = 192.0.2.1 }\n", 0644);
    refused((struct hf_restore_opt){.overwrite = true}, -HF_EOWNER,
            "got a backup of the host alpha, expected one of beta");
    refused((struct hf_restore_opt){.host = "gamma"}, -HF_EOWNER, "expected one of gamma");
    assert_int_equal(hf_key_generate(at(t.fresh, KEY), &t.err), 0);
    refused((struct hf_restore_opt){.host = "alpha", .overwrite = true}, -HF_EKEY,
            "a backup of another cluster");
    assert_int_equal(unlink(at(t.fresh, KEY)), 0);
    refused((struct hf_restore_opt){.host = "alpha"}, -EEXIST,
            "1 files are there with other content (" CONF "); --yes replaces them");
    assert_int_equal(restore((struct hf_restore_opt){.host = "alpha", .check = true}), 0);
    assert_true(said("is there with other content: " CONF));
    assert_true(said("would restore"));
    assert_null(get(t.fresh, "/etc/holdfast/users"));
    assert_int_equal(restore((struct hf_restore_opt){.host = "alpha", .overwrite = true}), 0);
    assert_non_null(get(t.fresh, "/etc/holdfast/users"));
}

static void a_daemon_that_runs(void **state)
{
    (void)state;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    assert_int_equal(backup(false), 0);
    put(t.fresh, "/run/holdfast/x", "", 0644);
    snprintf(un.sun_path, sizeof(un.sun_path), "%.60s/run/holdfast/control.sock", t.fresh);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(listen(fd, 1), 0);
    refused((struct hf_restore_opt){.host = "alpha"}, -EBUSY, "stop it (systemctl stop holdfastd)");
    close(fd); /* dead, its socket left behind */
    assert_int_equal(restore((struct hf_restore_opt){.host = "alpha"}), 0);
}

/* Each byte counts: cut off anywhere, or with one turned, it is refused and nothing is written. */
static void damaged(void **state)
{
    (void)state;
    struct hf_buf whole;
    hf_buf_init(&whole, 1u << 20);
    assert_int_equal(backup(false), 0);
    assert_int_equal(hf_file_read(t.file, &whole), 0);
    for (size_t n = 0; n < whole.n; n += 1 + n / 8) {
        assert_int_equal(hf_file_replace(t.file, hf_slice(whole.p, n), 0600, &t.err), 0);
        refused((struct hf_restore_opt){.host = "alpha"}, -HF_EMALF, "backup");
    }
    char command[512];
    static const char *const spoil[] = {"echo x >>etc/holdfast/users", "echo x >etc/holdfast/more",
                                        "rm etc/holdfast/users",
                                        "sed -i s/alpha/gamma/ holdfast-backup/manifest.json"};
    for (size_t i = 0; i < HF_ARRAY_LEN(spoil); i++) {
        assert_int_equal(hf_file_replace(t.file, hf_buf_slice(&whole), 0600, &t.err), 0);
        snprintf(command, sizeof(command),
                 "cd '%s' && rm -rf x && mkdir x && cd x && tar xf '%s' && %s && "
                 "tar czf '%s' holdfast-backup/manifest.json etc var holdfast-backup/SHA256SUMS",
                 t.dir, t.file, spoil[i], t.file);
        assert_int_equal(system(command), 0);
        refused((struct hf_restore_opt){.host = i == 3 ? "gamma" : "alpha"}, -HF_EMALF,
                "files that do not have their sums");
    }
    hf_buf_fini(&whole);
}

static void a_newer_format(void **state)
{
    (void)state;
    char command[512];
    assert_int_equal(backup(false), 0);
    snprintf(command, sizeof(command),
             "cd '%s' && tar xf '%s' holdfast-backup/manifest.json && "
             "sed -i 's/\"format\": 1/\"format\": 2/' holdfast-backup/manifest.json && "
             "tar czf '%s' holdfast-backup/manifest.json",
             t.dir, t.file, t.file);
    assert_int_equal(system(command), 0);
    refused((struct hf_restore_opt){.host = "alpha"}, -HF_EVERSION, "got format 2, written by");
}

static void paths_that_lead_elsewhere(void **state)
{
    (void)state;
    char command[512];
    static const char *const names[] = {"../out", "etc/../../out", "/out"};
    for (size_t i = 0; i < HF_ARRAY_LEN(names); i++) {
        assert_int_equal(backup(false), 0);
        snprintf(command, sizeof(command),
                 "cd '%s' && rm -rf x && mkdir -p x && cd x && tar xf '%s' && echo >out && "
                 "tar czPf '%s' --transform 's,^out$,%s,' holdfast-backup/manifest.json out",
                 t.dir, t.file, t.file, names[i]);
        assert_int_equal(system(command), 0);
        refused((struct hf_restore_opt){.host = "alpha"}, -HF_EMALF, "an entry that no backup has");
    }
}

/* A consistent copy of it while a writer is in a transaction; PostgreSQL's is named, not copied. */
static void the_sip_store(void **state)
{
    (void)state;
    char uri[160], text[160];
    struct hf_sip_sql *q;
    snprintf(uri, sizeof(uri), "sqlite:%s" SIP_DB, t.old);
    put(t.old, SIP_CONF, "sip { domains = { example.org } }\n" SIP_LISTEN, 0644);
    assert_int_equal(hf_file_make_dir_of(at(t.old, SIP_DB), 0755, &t.err), 0);
    int fd = open(at(t.old, SIP_DB), O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(hf_sip_store_init(uri, &t.err), 0);
    assert_int_equal(hf_sip_sql_open(uri, &t.err, &q), 0);
    assert_int_equal(hf_sip_sql_script(
                         q, "INSERT INTO users VALUES ('a', 'r', 'a@r', NULL, NULL, NULL)", &t.err),
                     0);
    assert_int_equal(hf_sip_sql_script(q, "BEGIN IMMEDIATE; DELETE FROM users", &t.err), 0);
    if (backup(false)) {
        fail_msg("%s", t.err.text);
    }
    assert_int_equal(hf_sip_sql_script(q, "ROLLBACK", &t.err), 0);
    hf_sip_sql_close(q);
    put(t.fresh, SIP_DB "-wal", "of another database", 0600);
    if (restore((struct hf_restore_opt){.host = "alpha"})) {
        fail_msg("%s", t.err.text);
    }
    assert_int_equal(mode_of(t.fresh, SIP_DB), 0600);
    snprintf(uri, sizeof(uri), "sqlite:%s" SIP_DB, t.fresh);
    assert_int_equal(hf_sip_store_init(uri, &t.err), 0);
    assert_int_equal(hf_sip_sql_open(uri, &t.err, &q), 0);
    assert_int_equal(hf_sip_sql_run(q, "SELECT * FROM users", NULL, 0, NULL, NULL, &t.err), 1);
    hf_sip_sql_close(q);
    snprintf(text, sizeof(text),
             "sip { domains = { example.org } database = \"dbname=sip\" }\n" SIP_LISTEN);
    put(t.old, SIP_CONF, text, 0644);
    assert_int_equal(backup(false), 0);
    assert_true(said("it is in its PostgreSQL database, and is backed up there"));
}

static void what_else_is_named(void **state)
{
    (void)state;
    char path[] = "/etc/ssl/x.pem", none[] = "/etc/ssl/none", relative[] = "x.pem";
    char *more[] = {path};
    struct hf_backup_opt o = {.root = t.old, .file = t.file, .more = more, .n_more = 1};
    put(t.old, path, "x\n", 0644);
    assert_int_equal(hf_backup(&o, &t.said, &t.err), 0);
    assert_int_equal(restore((struct hf_restore_opt){.host = "alpha"}), 0);
    assert_string_equal(get(t.fresh, path), "x\n");
    more[0] = none;
    assert_int_equal(hf_backup(&o, &t.said, &t.err), -ENOENT);
    more[0] = relative;
    assert_int_equal(hf_backup(&o, &t.said, &t.err), -HF_EVALUE);
    assert_int_equal(restore((struct hf_restore_opt){.host = "alpha"}),
                     0); /* the old one is whole */
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(comes_back_as_it_was),
        TEST(never_a_record),
        TEST(never_a_record_that_was_smuggled_in),
        TEST(definitions),
        TEST(without_secrets),
        TEST(another_host_or_cluster),
        TEST(a_daemon_that_runs),
        TEST(damaged),
        TEST(a_newer_format),
        TEST(paths_that_lead_elsewhere),
        TEST(the_sip_store),
        TEST(what_else_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
