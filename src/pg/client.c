/* Client connections: accepting, TLS, login; and their end. */
#include "pg/client.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "os/tcpmove.h"
#include "pg/cancel.h"
#include "pg/console.h"
#include "pg/protect.h"
#include "pg/rules.h"
#include "pg/secrets.h"

#define CLOSE_TIME HF_S(5) /* for what was sent to leave */

const char *hf_pg_client_name(const struct hf_pg_client *c, char *buf, size_t n)
{
    snprintf(buf, n, "C-%llu %s/%s@%s", (unsigned long long)c->id,
             c->database ? c->database->name : "(nodb)", c->user ? c->user->name : "(nouser)",
             c->from);
    return buf;
}

void hf_pg_client_destroy(struct hf_pg_client *c)
{
    struct hf_poll *poll = c->pg->wire->poll;
    hf_pg_client_release(c);
    hf_pg_secrets_forget(c);
    hf_poll_timer_set(poll, &c->timer, HF_NEVER);
    (void)!hf_poll_reserve(poll, -1);
    hf_list_unlink(&c->task.node);
    hf_list_unlink(&c->node);
    c->pg->n_clients--;
    hf_pg_console_destroy(c->console);
    hf_pg_login_destroy(c->login);
    hf_pg_rules_unref(c->rules);
    hf_pg_protect_end(c);
    hf_pg_link_fini(&c->link);
    if (c->secret) {
        hf_pg_secret_wipe(c->secret);
        hf_free(c->secret);
    }
    hf_free(c->params);
    hf_buf_fini(&c->repeat);
    hf_free(c);
}

void hf_pg_client_abandon(struct hf_pg_client *c)
{
    hf_poll_remove(c->pg->wire->poll, &c->link.io);
    hf_tcpmove_discard(c->link.fd);
    c->link.fd = -1;
    c->link.broken = true;
    hf_pg_client_destroy(c);
}

void hf_pg_client_close(struct hf_pg_client *c, const char *why)
{
    if (c->phase == HF_PG_PHASE_CLOSING) {
        return;
    }
    char name[HF_PG_CLIENT_NAME_LEN];
    hf_log_info(hf_pg_client_name(c, name, sizeof(name)), "closing because: %s (age=%llds)", why,
                (long long)((hf_pg_now(c->pg) - c->connected_at) / HF_NS_PER_S));
    c->phase = HF_PG_PHASE_CLOSING;
    hf_pg_link_pause(&c->link, true);
    hf_pg_protect_touch(c);
    hf_poll_timer_set(c->pg->wire->poll, &c->timer, hf_pg_now(c->pg) + CLOSE_TIME);
    hf_poll_task_add(c->pg->wire->poll, &c->task);
}

void hf_pg_client_fatal(struct hf_pg_client *c, const char *sqlstate, const char *message)
{
    struct hf_buf b;
    hf_buf_init(&b, 4096);
    hf_pg_put_error(
        &b, HF_PG_ERROR,
        &(struct hf_pg_error){.severity = "FATAL", .sqlstate = sqlstate, .message = message});
    hf_pg_link_send(&c->link, hf_buf_slice(&b));
    hf_buf_fini(&b);
    hf_pg_client_close(c, message);
}

static void on_task(struct hf_poll_task *t)
{
    struct hf_pg_client *c = HF_CONTAINER_OF(t, struct hf_pg_client, task);
    if (c->phase == HF_PG_PHASE_LOGIN) {
        hf_pg_link_again(&c->link);
        return;
    }
    if (c->phase != HF_PG_PHASE_CLOSING) {
        hf_pg_client_serve(c);
        return;
    }
    hf_pg_client_release(c);
    hf_pg_wire_flush(c->pg->wire);
    if (hf_pg_link_waiting(&c->link) == 0 || c->link.broken) {
        hf_pg_client_destroy(c);
    }
}

/* ---- login ---- */

static void login_step(struct hf_pg_client *c, const struct hf_pg_login_in *in,
                       size_t *ret_consumed);

static void need_secret(struct hf_pg_client *c)
{
    struct hf_slice user = hf_pg_login_result(c->login)->user;
    const struct hf_pg_secret *s =
        c->rules->users ? hf_pg_userlist_get(c->rules->users, user, c->rules->login.key) : NULL;
    if (s || !*c->pg->config->auth.query) {
        login_step(c, &(struct hf_pg_login_in){.kind = HF_PG_LOGIN_IN_SECRET, .secret = s}, NULL);
    } else if (!hf_pg_secrets_ask(c)) {
        login_step(c, &(struct hf_pg_login_in){.kind = HF_PG_LOGIN_IN_NO_ANSWER}, NULL);
    }
}

void hf_pg_client_secret(struct hf_pg_client *c, const struct hf_pg_secret *secret, const char *why)
{
    struct hf_pg_login_in in = {.kind = why ? HF_PG_LOGIN_IN_NO_ANSWER : HF_PG_LOGIN_IN_SECRET,
                                .secret = secret,
                                .why = why};
    login_step(c, &in, NULL);
    hf_pg_wire_flush(c->pg->wire);
}

static void start_tls(struct hf_pg_client *c, bool injected)
{
    /* CVE-2021-23214: what came in the clear behind SSLRequest is not taken for what came by TLS */
    if (injected) {
        hf_pg_client_close(c, "unencrypted data after SSLRequest");
    } else if (hf_pg_link_start_tls(&c->link, c->rules->client_tls, NULL, (struct hf_slice){0})) {
        hf_pg_client_close(c, "out of memory");
    }
}

static void log_login(struct hf_pg_client *c)
{
    const struct hf_pg_login_result *r = hf_pg_login_result(c->login);
    char name[HF_PG_CLIENT_NAME_LEN], tls[64];
    hf_log_info(hf_pg_client_name(c, name, sizeof(name)),
                "login attempt: db=%.*s user=%.*s tls=%s%s", HF_SLICE_FMT(r->database),
                HF_SLICE_FMT(r->user),
                c->link.tls ? hf_tls_stream_text(c->link.tls, tls, sizeof(tls)) : "no",
                r->replication ? " replication=yes" : "");
}

static void refused(struct hf_pg_client *c, const struct hf_pg_login_out *out)
{
    char why[200];
    const struct hf_pg_login_result *r = hf_pg_login_result(c->login);
    c->pg->counters.logins_failed++;
    if (r && r->user.n) {
        log_login(c);
    }
    snprintf(why, sizeof(why), "login failed: %s",
             out->text && *out->text ? out->text : "no login");
    hf_pg_client_close(c, why);
}

/* What a login has to say; one that is done again has said some of it. */
static void login_says(struct hf_pg_client *c, struct hf_slice bytes)
{
    size_t again = bytes.n < c->repeat.n ? bytes.n : c->repeat.n;
    if (again && memcmp(bytes.p, c->repeat.p, again) != 0) {
        hf_buf_clear(&c->repeat);
        hf_pg_client_close(c, "its login can't be done again as it was at the host that was lost");
        return;
    }
    hf_buf_consume(&c->repeat, again);
    if (bytes.n > again) {
        hf_pg_link_send(&c->link, hf_slice(bytes.p + again, bytes.n - again));
    }
}

static void login_step(struct hf_pg_client *c, const struct hf_pg_login_in *in,
                       size_t *ret_consumed)
{
    struct hf_pg_login_out out;
    hf_pg_login_step(c->login, in, hf_pg_now(c->pg), &out);
    hf_pg_protect_touch(c);
    if (in->kind == HF_PG_LOGIN_IN_BYTES) {
        hf_pg_protect_said(c, hf_slice(in->bytes.p, out.consumed));
    }
    if (out.act == HF_PG_LOGIN_START_TLS) {
        hf_pg_protect_leave(c);
    }
    if (out.send.n) {
        login_says(c, out.send);
    }
    if (ret_consumed) {
        *ret_consumed = out.consumed;
    }
    switch (out.act) {
    case HF_PG_LOGIN_WAIT:
        break;
    case HF_PG_LOGIN_START_TLS:
        start_tls(c, in->kind == HF_PG_LOGIN_IN_BYTES && out.consumed < in->bytes.n);
        break;
    case HF_PG_LOGIN_NEED_SECRET:
        need_secret(c);
        break;
    case HF_PG_LOGIN_CANCEL:
        hf_pg_cancel_request(c->pg, out.pid, out.key);
        hf_pg_client_close(c, "cancel request");
        break;
    case HF_PG_LOGIN_DONE:
        log_login(c);
        hf_pg_client_begin(c);
        break;
    case HF_PG_LOGIN_REFUSED:
        refused(c, &out);
        break;
    }
}

static size_t login_bytes(struct hf_pg_client *c, struct hf_slice bytes)
{
    size_t consumed = 0;
    hf_pg_protect_touch(c);
    if (c->ask) { /* for a secret: nothing is expected before the answer */
        return 0;
    }
    if (!c->link.tls && bytes.p[0] == 0x16 && c->rules->client_tls && !c->direct_tls) {
        c->direct_tls = true;
        hf_pg_protect_leave(c);
        if (hf_pg_link_start_tls(&c->link, c->rules->client_tls, NULL, bytes)) {
            hf_pg_client_close(c, "out of memory");
        }
        return bytes.n;
    }
    login_step(c, &(struct hf_pg_login_in){.kind = HF_PG_LOGIN_IN_BYTES, .bytes = bytes},
               &consumed);
    return consumed;
}

/* ---- the link ---- */

static size_t link_bytes(struct hf_pg_link *l, struct hf_slice bytes)
{
    struct hf_pg_client *c = HF_CONTAINER_OF(l, struct hf_pg_client, link);
    switch (c->phase) {
    case HF_PG_PHASE_LOGIN:
        return login_bytes(c, bytes);
    case HF_PG_PHASE_SESSION:
        return hf_pg_client_session_bytes(c, bytes);
    case HF_PG_PHASE_CONSOLE:
        return hf_pg_console_bytes(c->console, bytes);
    case HF_PG_PHASE_CLOSING:
        break;
    }
    return bytes.n;
}

static void link_after(struct hf_pg_link *l)
{
    struct hf_pg_client *c = HF_CONTAINER_OF(l, struct hf_pg_client, link);
    if (c->phase == HF_PG_PHASE_SESSION) {
        hf_pg_client_touched(c, true);
    }
}

static void link_tls(struct hf_pg_link *l, int rc, const char *why)
{
    struct hf_pg_client *c = HF_CONTAINER_OF(l, struct hf_pg_client, link);
    char cn[256], dn[1024], text[200];
    uint8_t hash[64];
    rc ? c->pg->counters.tls_failures++ : c->pg->counters.tls_handshakes++;
    if (c->phase != HF_PG_PHASE_LOGIN) {
        return;
    }
    if (rc || (c->direct_tls && !hf_tls_stream_alpn(l->tls))) {
        c->pg->counters.logins_failed++;
        snprintf(text, sizeof(text), "TLS handshake failed: %s",
                 rc ? why : "direct TLS without ALPN \"postgresql\"");
        hf_pg_client_close(c, text);
        return;
    }
    struct hf_pg_login_in in = {.kind = HF_PG_LOGIN_IN_TLS};
    in.certificate_hash = hf_slice(hash, hf_tls_stream_binding(l->tls, hash));
    if (hf_tls_stream_peer(l->tls, cn, sizeof(cn), dn, sizeof(dn))) {
        in.cn = hf_slice_str(cn);
        in.dn = hf_slice_str(dn);
    }
    login_step(c, &in, NULL);
    hf_pg_wire_flush(c->pg->wire);
}

static void link_room(struct hf_pg_link *l)
{
    struct hf_pg_client *c = HF_CONTAINER_OF(l, struct hf_pg_client, link);
    if (c->phase == HF_PG_PHASE_CLOSING) {
        hf_poll_task_add(c->pg->wire->poll, &c->task);
    } else if (c->phase == HF_PG_PHASE_SESSION) {
        hf_pg_client_touched(c, false);
    } else if (c->phase == HF_PG_PHASE_CONSOLE) {
        hf_pg_link_pause(l, false);
    }
}

static void link_gone(struct hf_pg_link *l, const char *why)
{
    struct hf_pg_client *c = HF_CONTAINER_OF(l, struct hf_pg_client, link);
    if (c->phase != HF_PG_PHASE_CLOSING) {
        bool login = c->phase == HF_PG_PHASE_LOGIN;
        if (c->phase == HF_PG_PHASE_SESSION && c->session && !c->ended) {
            hf_pg_session_client_gone(c->session, hf_pg_now(c->pg));
            if (!c->ended) {
                hf_pg_wire_flush(c->pg->wire);
                return; /* its last statement is committed first; then end() comes */
            }
        }
        if (!login || c->user) {
            hf_pg_client_close(c, why);
        }
    }
    hf_pg_wire_flush(c->pg->wire);
    hf_pg_client_destroy(c);
}

static const struct hf_pg_link_ops link_ops = {
    .bytes = link_bytes,
    .after = link_after,
    .tls = link_tls,
    .room = link_room,
    .gone = link_gone,
};

/* ---- begin ---- */

static void on_timer(struct hf_poll_timer *t, hf_time now)
{
    struct hf_pg_client *c = HF_CONTAINER_OF(t, struct hf_pg_client, timer);
    switch (c->phase) {
    case HF_PG_PHASE_LOGIN:
        login_step(c, &(struct hf_pg_login_in){.kind = HF_PG_LOGIN_IN_TIMER}, NULL);
        if (c->phase == HF_PG_PHASE_LOGIN) { /* whatever the core thinks, as in the handshake */
            c->pg->counters.logins_failed++;
            hf_pg_client_close(c, "login timeout");
        }
        break;
    case HF_PG_PHASE_SESSION:
        hf_pg_client_due(c, now);
        break;
    case HF_PG_PHASE_CONSOLE:
        break;
    case HF_PG_PHASE_CLOSING: /* it does not read: what waits is lost */
        hf_pg_link_break(&c->link, "closing");
        break;
    }
}

/* The system's name of who is at the other end of a Unix socket. */
static const char *peer_name(int fd, char *buf, size_t n)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    struct passwd pw, *found;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
        getpwuid_r(cred.uid, &pw, buf, n, &found) != 0 || !found) {
        return NULL;
    }
    return found->pw_name;
}

static int login_create(struct hf_pg_client *c, const struct hf_addr *from)
{
    char pw[1024];
    struct hf_pg_login_args args = {
        .conf = &c->rules->login,
        .local = c->local,
        .peer = hf_addr_to_endpoint(from),
        .host = c->from,
        .peer_user = c->local ? peer_name(c->link.fd, pw, sizeof(pw)) : NULL,
        .deadline = c->connected_at + HF_MS(c->pg->config->pg.login_timeout_ms),
    };
    char host[HF_ADDR_STR_LEN]; /* without the port */
    snprintf(host, sizeof(host), "%s", c->from);
    char *colon = strrchr(host, ':');
    if (colon && !c->local) {
        *colon = '\0';
        size_t n = strlen(host);
        args.host = host;
        if (*host == '[' && n > 1) {
            host[n - 1] = '\0';
            args.host = host + 1;
        }
    }
    memcpy(args.nonce, c->seed.nonce, sizeof(args.nonce));
    memcpy(args.salt, c->seed.salt, sizeof(args.salt));
    return hf_pg_login_create(&args, &c->login);
}

static struct hf_pg_client *client_new(struct hf_pg *pg, int fd, bool read_only,
                                       const struct hf_addr *from)
{
    struct hf_pg_client *c = hf_alloc(sizeof(*c));
    if (!c || hf_poll_reserve(pg->wire->poll, 1)) {
        hf_free(c);
        close(fd);
        return NULL;
    }
    c->pg = pg;
    c->id = ++pg->last_id;
    c->read_only = read_only;
    c->connected_at = c->active_at = hf_pg_now(pg);
    c->local = from->len == 0;
    c->timer.fn = on_timer;
    c->task.fn = on_task;
    c->seat[0] = (struct hf_pg_seating){.client = c, .side = HF_PG_SERVER};
    c->seat[1] = (struct hf_pg_seating){.client = c, .side = HF_PG_SPARE};
    hf_list_init(&c->task.node);
    hf_list_insert(&pg->clients, &c->node);
    pg->n_clients++;
    pg->counters.clients++;
    if (c->local) {
        snprintf(c->from, sizeof(c->from), "[local]");
    } else {
        hf_addr_str(from, c->from);
        hf_pg_socket_options(fd, pg->config->pg.tcp_user_timeout_ms);
    }
    int rc = hf_pg_link_init(&c->link, pg->wire, fd, false, &link_ops);
    if (rc) {
        hf_log_warn("", "%s: cannot take this client: %s; its connection is closed", c->from,
                    hf_strerror(rc));
        hf_pg_client_destroy(c);
        return NULL;
    }
    return c;
}

static int begin_login(struct hf_pg_client *c, const struct hf_addr *from)
{
    c->rules = hf_pg_rules_ref(c->pg->rules);
    hf_poll_timer_set(c->pg->wire->poll, &c->timer,
                      c->connected_at + HF_MS(c->pg->config->pg.login_timeout_ms));
    return login_create(c, from);
}

void hf_pg_client_accept(struct hf_pg *pg, int fd, bool read_only, bool service,
                         const struct hf_addr *from)
{
    struct hf_pg_client *c = client_new(pg, fd, read_only, from);
    if (!c) {
        return;
    }
    if (service && !hf_pg_protect_accepted(c)) {
        hf_pg_client_destroy(c);
        return;
    }
    int rc = getrandom(&c->seed, sizeof(c->seed), 0) < 0 ? -errno : begin_login(c, from);
    if (rc) {
        hf_log_warn("", "%s: cannot take this client: %s; its connection is closed", c->from,
                    hf_strerror(rc));
        hf_pg_client_destroy(c);
    }
}

struct hf_pg_client *hf_pg_client_restore_login(struct hf_pg *pg, int fd, bool read_only,
                                                const struct hf_addr *from,
                                                const struct hf_pg_seed *seed, struct hf_slice said)
{
    struct hf_pg_client *c = client_new(pg, fd, read_only, from);
    if (!c) {
        return NULL;
    }
    c->seed = *seed;
    hf_buf_init(&c->repeat, said.n);
    hf_buf_add(&c->repeat, said);
    if (c->repeat.err || begin_login(c, from)) {
        hf_pg_client_destroy(c);
        return NULL;
    }
    return c;
}

void hf_pg_client_relogin(struct hf_pg_client *c)
{
    hf_poll_task_add(c->pg->wire->poll, &c->task);
}

struct hf_pg_client *hf_pg_client_restore(struct hf_pg *pg, int fd, const struct hf_addr *from,
                                          const struct hf_pg_shield_login *login)
{
    struct hf_pg_client *c = client_new(pg, fd, login->read_only, from);
    if (!c) {
        return NULL;
    }
    c->params = hf_alloc(login->params.n + 1);
    c->secret = login->has_secret ? hf_alloc(sizeof(*c->secret)) : NULL;
    struct hf_pg_user *user = hf_pg_user(pg, login->user);
    struct hf_pg_database *database = hf_pg_database(pg, login->database);
    if (!c->params || (login->has_secret && !c->secret) || !user || !database) {
        hf_pg_client_destroy(c);
        return NULL;
    }
    c->user = user;
    c->database = database;
    user->n_clients++;
    database->n_clients++;
    if (login->params.n) {
        memcpy(c->params, login->params.p, login->params.n);
    }
    c->n_params = login->params.n;
    if (c->secret) {
        *c->secret = login->secret;
    }
    c->version = login->version;
    c->n_cancel_key = (uint8_t)login->cancel_key.n;
    memcpy(c->cancel_key, login->cancel_key.n ? login->cancel_key.p : (const uint8_t *)"",
           login->cancel_key.n);
    if (login->cancel_pid) {
        hf_pg_cancel_remember(c, login->cancel_pid);
    }
    c->phase = HF_PG_PHASE_SESSION;
    return c;
}
