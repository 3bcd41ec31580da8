/* A daemon for unit tests: all of it but main(), on loopback, and peers that are cores of their
 * own.
 */
#include "support/hostd_rig.h"

#include <dirent.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "support/test.h"

#define PERIOD_MS 300000 /* nobody falls silent during a test */

static void on_wait(void *arg)
{
    (void)arg;
}

void rig_turn(struct hostd_rig *rig)
{
    struct hf_timer *t;
    assert_int_equal(hf_timer_create(rig->h.loop, on_wait, NULL, &t), 0);
    hf_timer_set(t, hf_now() + HF_MS(20));
    event_base_loop(hf_loop_base(rig->h.loop), EVLOOP_ONCE);
    hf_timer_destroy(t);
}

void rig_open(struct hostd_rig *rig)
{
    struct hf_hostd *h = &rig->h;
    struct hf_err err = {0};
    void *config;
    memset(rig, 0, sizeof(*rig));
    const char *tmp = getenv("TMPDIR");
    snprintf(rig->dir, sizeof(rig->dir), "%.40s/hf-rig-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(rig->dir));
    char text[512];
    snprintf(text, sizeof(text),
             "host { name = alpha address = 127.0.0.9 }\n"
             "cluster { key_file = \"%s/key\" }\n"
             "state { dir = \"%s\" }\n"
             "directory { transport = unicast peers = { 127.0.0.1 } listen = 127.0.0.1 }\n"
             "http { listen = 127.0.0.1:1 } dns { listen = 127.0.0.1:2 domain = hf.test ttl = 7s }",
             rig->dir, rig->dir);
    int rc = hf_conf_load_mem(&hf_hostd_config_schema, "test", hf_slice_str(text), &err, &config);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    h->config = config;
    struct hf_addr any_port;
    assert_int_equal(hf_addr_parse("127.0.0.1:0", 0, &err, &any_port), 0);
    h->config->directory.listen = h->config->http.listen = h->config->dns.listen = any_port;
    h->config->directory.peers.n = 0; /* what it sends goes nowhere */
    h->config->directory.listen_wait_ms = 1;
    assert_int_equal(hf_loop_create(&h->loop), 0);
    assert_int_equal(hf_key_generate(h->config->cluster.key_file, &err), 0);
    rc = hf_drive_open(h, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    while (hf_dir_state(h->dir) != HF_DIR_RUN) {
        rig_turn(rig);
    }
}

void rig_close(struct hostd_rig *rig)
{
    hf_drive_close(&rig->h);
    hf_loop_destroy(rig->h.loop);
    hf_hostd_config_destroy(rig->h.config);
    DIR *d = opendir(rig->dir);
    assert_non_null(d);
    struct dirent *e;
    while ((e = readdir(d))) {
        if (e->d_name[0] != '.') {
            assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
        }
    }
    closedir(d);
    assert_int_equal(rmdir(rig->dir), 0);
}

static struct hf_dir_in change(const char *name, const char *value)
{
    return (struct hf_dir_in){.kind = value ? HF_DIR_IN_PUBLISH : HF_DIR_IN_WITHDRAW,
                              .publisher = 1,
                              .name = hf_slice_str(name),
                              .value = hf_slice_str(value ? value : "")};
}

void rig_publish(struct hostd_rig *rig, const char *name, const char *value)
{
    struct hf_dir_in in = change(name, value);
    assert_int_equal(hf_drive_local(&rig->h, &in), 0);
}

/* ---- peers ---- */

static void peer_step(struct rig_peer *p, const struct hf_dir_in *in)
{
    hf_dir_step(p->dir, in, p->now, &p->out);
}

static void peer_timer(struct rig_peer *p)
{
    p->now = hf_dir_deadline(p->dir);
    peer_step(p, &(struct hf_dir_in){.kind = HF_DIR_IN_TIMER});
}

void rig_peer_open(struct rig_peer *p, const char *name, const char *from)
{
    memset(p, 0, sizeof(*p));
    struct hf_dir_conf conf = {.host = hf_slice_str(name),
                               .heartbeat_ms = PERIOD_MS,
                               .listen_ms = 1,
                               .sync_ms = 1,
                               .incarnation = 1,
                               .seed = 1};
    struct hf_addr a;
    assert_int_equal(hf_addr_parse(from, 1, NULL, &a), 0);
    p->from = hf_addr_to_endpoint(&a);
    p->now = HF_S(1);
    hf_dir_out_init(&p->out);
    assert_int_equal(hf_dir_store_create(16, 1, &p->store), 0);
    assert_int_equal(hf_dir_create(&conf, p->store, p->now, &p->dir), 0);
    while (hf_dir_state(p->dir) != HF_DIR_PERSIST) {
        peer_timer(p);
    }
    peer_step(p, &(struct hf_dir_in){.kind = HF_DIR_IN_PERSISTED, .salt = {1}});
    assert_int_equal(hf_dir_state(p->dir), HF_DIR_RUN);
}

void rig_peer_close(struct rig_peer *p)
{
    hf_dir_out_fini(&p->out);
    hf_dir_destroy(p->dir);
    hf_dir_store_destroy(p->store);
}

void rig_peer_publish(struct rig_peer *p, const char *name, const char *value)
{
    struct hf_dir_in in = change(name, value);
    peer_step(p, &in);
}

/* The advert in p->out reaches the daemon. */
static void deliver(struct hostd_rig *rig, struct rig_peer *p)
{
    struct hf_advert advert;
    assert_int_equal(hf_advert_decode(hf_slice(p->out.body, p->out.body_len), &advert), 0);
    struct hf_slice name = hf_dir_store_name(p->store, hf_dir_self(p->dir));
    struct hf_datagram_head head = {.kind = HF_DATAGRAM_ADVERT,
                                    .incarnation = hf_dir_incarnation(p->dir),
                                    .salt = {1},
                                    .counter = ++p->counter,
                                    .host = name};
    uint32_t owner = hf_dir_store_owner(rig->h.store, name);
    hf_drive_step(&rig->h, &(struct hf_dir_in){.kind = HF_DIR_IN_ADVERT,
                                               .owner = owner,
                                               .head = &head,
                                               .advert = &advert,
                                               .from = p->from});
}

void rig_hear(struct hostd_rig *rig, struct rig_peer *p)
{
    do {
        peer_timer(p);
    } while (p->out.n == 0 || p->out.act[p->out.n - 1].kind != HF_DIR_ACT_MULTICAST);
    deliver(rig, p);
    struct hf_slice name = hf_dir_store_name(p->store, hf_dir_self(p->dir));
    uint32_t owner = hf_dir_store_find_owner(rig->h.store, name);
    if (!hf_dir_peer_info(rig->h.dir, owner, hf_now()).pulling) {
        return;
    }
    struct hf_buf buf;
    struct hf_pull pull;
    hf_buf_init(&buf, HF_PULL_BODY_MAX);
    assert_int_equal(hf_dir_encode_pull(p->dir, hf_slice_str("alpha"), 0, 0, p->counter, &buf), 0);
    assert_int_equal(hf_pull_decode(hf_buf_slice(&buf), &pull), 0);
    hf_drive_step(&rig->h,
                  &(struct hf_dir_in){.kind = HF_DIR_IN_PULLED, .owner = owner, .pull = &pull});
    hf_buf_fini(&buf);
    assert_non_null(hf_dir_part(rig->h.dir, owner));
}

void rig_bye(struct hostd_rig *rig, struct rig_peer *p)
{
    peer_step(p, &(struct hf_dir_in){.kind = HF_DIR_IN_STOP});
    deliver(rig, p);
}

/* ---- HTTP ---- */

struct answer {
    bool done;
    int rc, status;
    char *body;
    size_t room;
};

static void on_answer(void *arg, int rc, int status, struct hf_slice body)
{
    struct answer *a = arg;
    a->done = true;
    a->rc = rc;
    a->status = status;
    size_t n = body.n < a->room ? body.n : a->room - 1;
    if (n > 0) {
        memcpy(a->body, body.p, n);
    }
    a->body[n] = '\0';
}

int rig_get(struct hostd_rig *rig, uint16_t port, const char *target, char *body, size_t room)
{
    struct hf_http_get *get;
    struct answer a = {.body = body, .room = room};
    struct hf_http_get_opt opt = {.server = "alpha",
                                  .target = target,
                                  .body_max = 64u << 20,
                                  .deadline = hf_now() + HF_S(60)};
    assert_int_equal(hf_addr_parse("127.0.0.1", port, NULL, &opt.to), 0);
    assert_int_equal(hf_http_get_start(rig->h.loop, &opt, on_answer, &a, &get), 0);
    while (!a.done) {
        rig_turn(rig);
    }
    assert_int_equal(a.rc, 0);
    return a.status;
}
