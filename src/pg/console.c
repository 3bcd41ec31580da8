/* The admin console: simple queries, answered as PgBouncer's console would; its commands. */
#include "pg/console.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/protect.h"
#include "pg/route.h"

#define MESSAGE_MAX 4096
#define ANSWER_MAX (64u << 20)
#define WORDS_MAX 4

struct hf_pg_console {
    struct hf_pg_client *client;
    struct hf_pg *pg;
    bool admin;
    struct hf_buf out;
};

bool hf_pg_console_is(struct hf_slice database)
{
    return hf_slice_eq(database, hf_slice_str("holdfast")) ||
           hf_slice_eq(database, hf_slice_str("pgbouncer"));
}

static bool listed(const struct hf_conf_list *l, struct hf_slice user)
{
    for (size_t i = 0; i < l->n; i++) {
        if (hf_slice_eq(hf_slice_str(l->item[i]), user)) {
            return true;
        }
    }
    return false;
}

static void error(struct hf_pg_console *k, const char *sqlstate, const char *fmt, ...)
    HF_PRINTF(3, 4);
static void error(struct hf_pg_console *k, const char *sqlstate, const char *fmt, ...)
{
    char buf[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    hf_pg_put_error(
        &k->out, HF_PG_ERROR,
        &(struct hf_pg_error){.severity = "ERROR", .sqlstate = sqlstate, .message = buf});
}

/* ---- commands ---- */

static struct hf_pg_client *client_of(struct hf_pg_console *k, const char *id)
{
    char *end;
    unsigned long long n = strtoull(id, &end, 10);
    HF_LIST_FOREACH (node, &k->pg->clients) {
        struct hf_pg_client *c = HF_CONTAINER_OF(node, struct hf_pg_client, node);
        if (!*end && c->id == n && c->phase == HF_PG_PHASE_SESSION && c->session) {
            return c;
        }
    }
    error(k, "42704", "no session has the id %s: see SHOW CLIENTS", id);
    return NULL;
}

static const char *do_move(struct hf_pg_console *k, const char *arg)
{
    struct hf_pg_client *c = client_of(k, arg);
    if (!c) {
        return NULL;
    }
    hf_pg_session_move(c->session, hf_pg_now(k->pg));
    hf_pg_client_touched(c, false);
    return "MOVE";
}

static const char *do_kill(struct hf_pg_console *k, const char *arg)
{
    struct hf_pg_client *c = client_of(k, arg);
    if (!c) {
        return NULL;
    }
    hf_pg_session_kill(c->session, "57P01", "terminating connection due to administrator command",
                       hf_pg_now(k->pg));
    return "KILL";
}

static const char *drain(struct hf_pg_console *k, const char *arg, bool on)
{
    if (hf_pg_route_drain(k->pg->route, arg, on)) {
        error(k, "42704", "no server has the name %s: see SHOW SERVERS", arg);
        return NULL;
    }
    return on ? "DRAIN" : "UNDRAIN";
}

static const char *do_drain(struct hf_pg_console *k, const char *arg)
{
    return drain(k, arg, true);
}

static const char *do_undrain(struct hf_pg_console *k, const char *arg)
{
    return drain(k, arg, false);
}

static const char *paused(struct hf_pg *pg, bool on)
{
    pg->paused = on;
    hf_pg_clients_hold(pg);
    return on ? "PAUSE" : "RESUME";
}

static const char *do_pause(struct hf_pg_console *k, const char *arg)
{
    (void)arg;
    return paused(k->pg, true);
}

static const char *do_resume(struct hf_pg_console *k, const char *arg)
{
    (void)arg;
    return paused(k->pg, false);
}

static const char *do_reload(struct hf_pg_console *k, const char *arg)
{
    (void)arg;
    struct hf_err err;
    if (hf_pg_reload(k->pg, &err)) {
        error(k, "F0000", "%s", err.text);
        return NULL;
    }
    return "RELOAD";
}

#define SWITCHOVER_LIMIT HF_S(10) /* transactions that run longer make it be given up */

static const char *do_switchover(struct hf_pg_console *k, const char *arg)
{
    const char *name = *arg != 0 ? arg : NULL;
    int rc = hf_pg_route_switchover(k->pg->route, name, SWITCHOVER_LIMIT);
    if (rc == -HF_ENOTFOUND) {
        error(k, "42704", "no server has the name %s: see SHOW SERVERS", arg);
    } else if (rc == -EBUSY) {
        error(k, "55006", "%s", "a switchover is under way");
    } else if (rc == -EPERM) {
        error(k, "55000", "%s",
              "holdfast-pg promotes only where it alone writes (servers.exclusive)");
    } else if (rc != 0) {
        error(k, "55000", "%s is no standby of a primary: see SHOW SERVERS", arg);
    }
    return rc == 0 ? "SWITCHOVER" : NULL;
}

static const char *do_shutdown(struct hf_pg_console *k, const char *arg)
{
    hf_pg_stop(k->pg, strcasecmp(arg, "WAIT") == 0);
    return "SHUTDOWN";
}

static const struct {
    const char *name, *arg, *text;
    bool optional;
    const char *(*fn)(struct hf_pg_console *k, const char *arg); /* its tag; NULL: told the error */
} commands[] = {
    {"MOVE", "ID", "this client's session to another server connection, when that can be done",
     false, do_move},
    {"KILL", "ID", "this client's connection", false, do_kill},
    {"DRAIN", "SERVER", "move all sessions away, let no new ones in", false, do_drain},
    {"UNDRAIN", "SERVER", "take sessions again", false, do_undrain},
    {"SWITCHOVER", "[SERVER]",
     "hold the clients until there is another primary: SERVER, promoted now, or whom you promote",
     true, do_switchover},
    {"PAUSE", NULL, "begin no more transactions", false, do_pause},
    {"RESUME", NULL, "begin them again", false, do_resume},
    {"RELOAD", NULL, "read the configuration again", false, do_reload},
    {"SHUTDOWN", "[WAIT]", "end the program; WAIT: when all transactions have ended", true,
     do_shutdown},
};

/* ---- queries ---- */

bool hf_pg_console_command(size_t i, const char **ret_name, const char **ret_arg,
                           const char **ret_text)
{
    if (i >= HF_ARRAY_LEN(commands)) {
        return false;
    }
    *ret_name = commands[i].name;
    *ret_arg = commands[i].arg ? commands[i].arg : "";
    *ret_text = commands[i].text;
    return true;
}

static void run_show(struct hf_pg_console *k, const char *what)
{
    if (hf_pg_console_show(k->pg, what, &k->out)) {
        hf_pg_put_command_complete(&k->out, "SHOW");
    } else {
        error(k, "42601", "nothing to show is called \"%s\": see SHOW HELP", what);
    }
}

static void run_command(struct hf_pg_console *k, char *const *word, size_t n)
{
    for (size_t i = 0; i < HF_ARRAY_LEN(commands); i++) {
        if (strcasecmp(commands[i].name, word[0]) != 0) {
            continue;
        }
        if (!k->admin) {
            error(k, "42501", "admin access needed: pg.admin_users");
        } else if (n > 2 || (n == 2 && !commands[i].arg) ||
                   (n == 1 && commands[i].arg && !commands[i].optional)) {
            error(k, "42601", "syntax: %s %s", commands[i].name,
                  commands[i].arg ? commands[i].arg : "");
        } else {
            char name[HF_PG_CLIENT_NAME_LEN];
            hf_log_info(hf_pg_client_name(k->client, name, sizeof(name)), "console: %s %s",
                        commands[i].name, n > 1 ? word[1] : "");
            const char *tag = commands[i].fn(k, n > 1 ? word[1] : "");
            if (tag) {
                hf_pg_put_command_complete(&k->out, tag);
            }
        }
        return;
    }
    error(k, "42601", "unknown command \"%s\": see SHOW HELP", word[0]);
}

static void run_query(struct hf_pg_console *k, struct hf_slice sql)
{
    char text[MESSAGE_MAX], *word[WORDS_MAX], *rest = NULL;
    size_t n = 0;
    snprintf(text, sizeof(text), "%.*s", HF_SLICE_FMT(sql));
    for (char *w = strtok_r(text, " \t\r\n;\"", &rest); w && n < WORDS_MAX;
         w = strtok_r(NULL, " \t\r\n;\"", &rest)) {
        word[n++] = w;
    }
    if (n == 0) {
        hf_pg_put_message(&k->out, HF_PG_EMPTY_QUERY, (struct hf_slice){0});
    } else if (strcasecmp(word[0], "SHOW") == 0) {
        run_show(k, n > 1 ? word[1] : "HELP");
    } else {
        run_command(k, word, n);
    }
    hf_pg_put_ready(&k->out, 'I');
}

static void send_out(struct hf_pg_console *k)
{
    if (k->out.err) {
        hf_pg_client_close(k->client, "answer too large");
        return;
    }
    hf_pg_link_send(&k->client->link, hf_buf_slice(&k->out));
    hf_buf_fini(&k->out);
    if (hf_pg_link_waiting(&k->client->link) > HF_PG_PRESSURE) {
        hf_pg_link_pause(&k->client->link, true);
    }
}

static void on_message(struct hf_pg_console *k, uint8_t type, struct hf_slice body)
{
    struct hf_rd r;
    switch (type) {
    case HF_PG_QUERY:
        hf_rd_init(&r, body);
        run_query(k, hf_pg_rd_cstr(&r));
        break;
    case HF_PG_SYNC:
        hf_pg_put_ready(&k->out, 'I');
        break;
    case HF_PG_TERMINATE:
        hf_pg_client_close(k->client, "client close request");
        return;
    default:
        error(k, "08P01", "the console takes simple queries only");
        break;
    }
    send_out(k);
}

size_t hf_pg_console_bytes(struct hf_pg_console *k, struct hf_slice bytes)
{
    size_t used = 0;
    struct hf_pg_head head;
    while (k->client->phase == HF_PG_PHASE_CONSOLE) {
        struct hf_slice rest = hf_slice(bytes.p + used, bytes.n - used);
        int rc = hf_pg_message_read(rest, MESSAGE_MAX, &head);
        if (rc == -HF_ETRUNC) {
            return used;
        }
        if (rc) {
            hf_pg_client_fatal(k->client, "08P01", "invalid message length");
            return bytes.n;
        }
        used += HF_PG_HEAD_LEN + head.body_len;
        on_message(k, head.type, hf_slice(rest.p + HF_PG_HEAD_LEN, head.body_len));
    }
    return bytes.n;
}

void hf_pg_console_begin(struct hf_pg_client *c)
{
    static const char *const status[][2] = {{"server_version", "15.0/holdfast-pg " HF_VERSION},
                                            {"client_encoding", "UTF8"},
                                            {"server_encoding", "UTF8"},
                                            {"DateStyle", "ISO"},
                                            {"TimeZone", "GMT"},
                                            {"standard_conforming_strings", "on"}};
    const struct hf_pg_config *conf = c->pg->config;
    struct hf_slice user = hf_pg_login_result(c->login)->user;
    hf_pg_protect_leave(c);
    bool admin = listed(&conf->pg.admin_users, user);
    if (!admin && !listed(&conf->pg.stats_users, user)) {
        hf_pg_client_fatal(c, "42501", "not allowed: see pg.admin_users and pg.stats_users");
        return;
    }
    struct hf_pg_console *k = hf_alloc(sizeof(*k));
    if (!k) {
        hf_pg_client_fatal(c, "53200", "out of memory");
        return;
    }
    *k = (struct hf_pg_console){.client = c, .pg = c->pg, .admin = admin};
    hf_buf_init(&k->out, ANSWER_MAX);
    c->console = k;
    c->phase = HF_PG_PHASE_CONSOLE;
    hf_poll_timer_set(c->pg->wire->poll, &c->timer, HF_NEVER);
    for (size_t i = 0; i < HF_ARRAY_LEN(status); i++) {
        hf_pg_put_parameter_status(&k->out, hf_slice_str(status[i][0]), hf_slice_str(status[i][1]));
    }
    hf_pg_put_ready(&k->out, 'I');
    send_out(k);
}

void hf_pg_console_destroy(struct hf_pg_console *k)
{
    if (k) {
        hf_buf_fini(&k->out);
        hf_free(k);
    }
}
