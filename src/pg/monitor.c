/* Monitors of PostgreSQL servers: connect, ask, read the one row. */
#include "pg/monitor.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "pg/rules.h"

#define ANSWER_MAX (64u << 10) /* bytes of one message */

struct monitor {
    struct hf_pg_monitors *all;
    uint32_t server;
    struct hf_pg_sconn *conn; /* owned; NULL: none */
    bool ready;               /* logged in */
    bool asking;              /* a probe is under way */
    bool answered;            /* its row has come */
    bool promoting;           /* it is to be promoted, after the probe under way */
    bool promote_sent;
    struct hf_buf errand; /* a message to be sent when nothing else is under way; empty: none */
    bool errand_sent;
    void (*errand_done)(void *arg, const char *why);
    void *errand_arg;
    struct hf_pg_server_facts facts;
    char sqlstate[6];
    char text[200];
};

struct hf_pg_monitors {
    struct hf_pg *pg;
    struct hf_pg_servers *servers;
    void (*fn)(void *arg);
    void *arg;
    struct hf_poll_task task; /* calls fn */
    struct hf_buf query;
    struct monitor one[HF_PG_SERVERS_MAX];
};

static void tell(struct hf_pg_monitors *all)
{
    hf_poll_task_add(all->pg->wire->poll, &all->task);
}

static void on_task(struct hf_poll_task *t)
{
    struct hf_pg_monitors *all = HF_CONTAINER_OF(t, struct hf_pg_monitors, task);
    all->fn(all->arg);
}

static void nobody(void *arg, const char *why)
{
    (void)arg;
    (void)why;
}

/* why NULL: done. */
static void errand_over(struct monitor *m, const char *why)
{
    if (m->errand.n) {
        hf_buf_fini(&m->errand);
        m->errand_sent = false;
        m->errand_done(m->errand_arg, why);
    }
}

static void close_conn(struct monitor *m)
{
    hf_pg_sconn_close(m->conn);
    m->conn = NULL;
    m->ready = m->asking = m->promoting = m->promote_sent = false;
    errand_over(m, "the monitor's connection was closed");
}

static void probe_failed(struct monitor *m, const char *sqlstate, const char *text)
{
    m->asking = false;
    hf_pg_servers_failed(m->all->servers, m->server, sqlstate, text, hf_pg_now(m->all->pg));
    tell(m->all);
}

static void send_sql(struct monitor *m, struct hf_slice query)
{
    m->answered = false;
    m->sqlstate[0] = 0;
    hf_pg_link_send(&m->conn->link, query);
    hf_pg_wire_flush(m->all->pg->wire);
}

static void send_query(struct monitor *m)
{
    send_sql(m, hf_buf_slice(&m->all->query));
}

static void send_promote(struct monitor *m)
{
    static const char query[] = "Q\0\0\0\0" HF_PG_PROMOTE_QUERY;
    uint8_t message[sizeof(query)];
    memcpy(message, query, sizeof(query));
    message[4] = sizeof(query) - 1;
    m->promote_sent = true;
    send_sql(m, hf_slice(message, sizeof(message)));
}

/* What waits for the end of another statement. */
static void send_next(struct monitor *m)
{
    if (m->promoting) {
        send_promote(m);
    } else if (m->asking) {
        send_query(m);
    } else if (m->errand.n) {
        m->errand_sent = true;
        send_sql(m, hf_buf_slice(&m->errand));
    }
}

/* The answer to a promotion: only a refusal is of interest, the server's state tells the rest. */
static void promote_done(struct monitor *m)
{
    m->promoting = m->promote_sent = false;
    if (m->sqlstate[0] != 0) {
        hf_pg_servers_promote_failed(m->all->servers, m->server, m->text, hf_pg_now(m->all->pg));
        tell(m->all);
    }
    send_next(m);
}

/* ReadyForQuery. */
static void probe_done(struct monitor *m)
{
    if (m->promote_sent) {
        promote_done(m);
        return;
    }
    if (m->errand_sent) {
        errand_over(m, m->sqlstate[0] != 0 ? m->text : NULL);
        send_next(m);
        return;
    }
    if (!m->asking) {
        return;
    }
    if (!m->answered) {
        probe_failed(m, m->sqlstate[0] != 0 ? m->sqlstate : "08P01",
                     m->sqlstate[0] != 0 ? m->text : "no answer to the monitor's statement");
        return;
    }
    m->asking = false;
    hf_pg_servers_answered(m->all->servers, m->server, &m->facts, hf_pg_now(m->all->pg));
    tell(m->all);
    send_next(m);
}

static void on_row(struct monitor *m, struct hf_slice body)
{
    struct hf_rd r;
    uint16_t n;
    struct hf_slice value;
    if (hf_pg_values_begin(body, &r, &n) == 0 && n == 1 && hf_pg_value_next(&r, &value) == 0) {
        m->answered = hf_pg_server_facts_parse(value, &m->facts) == 0;
    }
}

static void on_error(struct monitor *m, struct hf_slice body)
{
    struct hf_slice state = hf_pg_error_field(body, 'C'), text = hf_pg_error_field(body, 'M');
    (void)snprintf(m->sqlstate, sizeof(m->sqlstate), "%.*s", HF_SLICE_FMT(state));
    (void)snprintf(m->text, sizeof(m->text), "%.*s", HF_SLICE_FMT(text));
}

static size_t conn_bytes(struct hf_pg_sconn *conn, struct hf_slice bytes)
{
    struct monitor *m = conn->owner;
    size_t used = 0;
    struct hf_pg_head head;
    while (m->conn == conn) {
        struct hf_slice rest = hf_slice(bytes.p + used, bytes.n - used);
        int rc = hf_pg_head_read(rest, &head);
        if (rc == -HF_ETRUNC) {
            break;
        }
        if (rc != 0 || head.body_len > ANSWER_MAX) {
            hf_pg_link_break(&conn->link, "not understood");
            break;
        }
        if (rest.n < HF_PG_HEAD_LEN + head.body_len) {
            break;
        }
        struct hf_slice body = hf_slice(rest.p + HF_PG_HEAD_LEN, head.body_len);
        used += HF_PG_HEAD_LEN + head.body_len;
        if (head.type == HF_PG_DATA_ROW) {
            on_row(m, body);
        } else if (head.type == HF_PG_ERROR) {
            on_error(m, body);
        } else if (head.type == HF_PG_READY) {
            probe_done(m);
        }
    }
    return m->conn == conn ? used : bytes.n;
}

static void conn_ready(struct hf_pg_sconn *conn)
{
    struct monitor *m = conn->owner;
    m->ready = true;
    hf_pg_sconn_settle(conn);
    if (m->asking) {
        send_query(m);
    }
}

static void conn_failed(struct hf_pg_sconn *conn, const char *why)
{
    struct monitor *m = conn->owner;
    const struct hf_pg_connect_error *e =
        conn->connect != NULL ? hf_pg_connect_error(conn->connect) : NULL;
    m->conn = NULL;
    m->ready = false;
    probe_failed(m, e != NULL && e->from_server ? e->sqlstate : "", why);
}

/* Also of use when nothing was asked: the server may have died. */
static void conn_gone(struct hf_pg_sconn *conn, const char *why)
{
    struct monitor *m = conn->owner;
    m->conn = NULL;
    m->ready = m->promoting = m->promote_sent = false;
    errand_over(m, why);
    /* what it said at last: 57P01 and the like */
    probe_failed(m, "", m->sqlstate[0] != 0 ? m->text : why);
}

static const struct hf_pg_sconn_ops ops = {
    .ready = conn_ready,
    .failed = conn_failed,
    .bytes = conn_bytes,
    .gone = conn_gone,
};

static int open_conn(struct monitor *m, struct hf_pg_target *target)
{
    static const char params[] = "application_name\0holdfast-pg monitor";
    struct hf_pg *pg = m->all->pg;
    const struct hf_pg_config *c = pg->config;
    struct hf_pg_connect_args args = {
        .user = hf_slice_str(*c->auth.user != 0 ? c->auth.user : "postgres"),
        .database = hf_slice_str(*c->auth.database != 0 ? c->auth.database : "postgres"),
        .params = hf_slice(params, sizeof(params)),
        .secret = &pg->rules->manager,
        .cleartext = *target->host == '/',
        .deadline = hf_pg_now(pg) + HF_MS(c->servers.health_timeout_ms),
    };
    m->sqlstate[0] = 0;
    return hf_pg_sconn_open(pg, target, &args, &ops, m, &m->conn);
}

void hf_pg_monitor_probe(struct hf_pg_monitors *all, uint32_t server, struct hf_pg_target *target)
{
    struct monitor *m = &all->one[server];
    m->asking = true;
    if (m->conn == NULL) {
        int rc = open_conn(m, target);
        if (rc != 0) {
            probe_failed(m, "", hf_strerror(rc));
        }
    } else if (m->ready && !m->promoting && !m->errand_sent) {
        send_query(m);
    }
}

int hf_pg_monitor_errand(struct hf_pg_monitors *all, uint32_t server, struct hf_slice sql,
                         void (*fn)(void *arg, const char *why), void *arg)
{
    struct monitor *m = &all->one[server];
    const uint32_t len = (uint32_t)sql.n + 5;
    const uint8_t head[] = {'Q', (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                            (uint8_t)len};
    if (m->conn == NULL || !m->ready) {
        return -HF_ENOTREADY;
    }
    if (m->errand.n) {
        return -EBUSY;
    }
    hf_buf_init(&m->errand, sql.n + 64);
    hf_buf_add(&m->errand, hf_slice(head, sizeof(head)));
    hf_buf_add(&m->errand, sql);
    hf_buf_add(&m->errand, hf_slice((const uint8_t *)"", 1));
    if (m->errand.err) {
        hf_buf_fini(&m->errand);
        return -ENOMEM;
    }
    m->errand_done = fn;
    m->errand_arg = arg;
    if (!m->asking && !m->promoting) {
        send_next(m);
    }
    return 0;
}

void hf_pg_monitor_errand_forget(struct hf_pg_monitors *all, const void *arg)
{
    for (uint32_t i = 0; i < HF_PG_SERVERS_MAX; i++) {
        if (all->one[i].errand.n && all->one[i].errand_arg == arg) {
            all->one[i].errand_done = nobody;
        }
    }
}

void hf_pg_monitor_promote(struct hf_pg_monitors *all, uint32_t server)
{
    struct monitor *m = &all->one[server];
    if (m->conn == NULL || !m->ready) {
        hf_pg_servers_promote_failed(all->servers, server, "no connection to it",
                                     hf_pg_now(all->pg));
        tell(all);
        return;
    }
    m->promoting = true;
    if (!m->asking && !m->errand_sent) {
        send_promote(m);
    }
}

void hf_pg_monitor_reset(struct hf_pg_monitors *all, uint32_t server)
{
    close_conn(&all->one[server]);
}

int hf_pg_monitors_create(struct hf_pg *pg, struct hf_pg_servers *servers, void (*fn)(void *arg),
                          void *arg, struct hf_pg_monitors **ret_monitors)
{
    struct hf_pg_monitors *all = hf_alloc(sizeof(*all));
    if (all == NULL) {
        return -ENOMEM;
    }
    all->pg = pg;
    all->servers = servers;
    all->fn = fn;
    all->arg = arg;
    all->task.fn = on_task;
    hf_list_init(&all->task.node);
    hf_buf_init(&all->query, 4096);
    const char *sql = hf_pg_servers_query();
    uint32_t len = (uint32_t)strlen(sql) + 5;
    uint8_t head[] = {'Q', (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                      (uint8_t)len};
    hf_buf_add(&all->query, hf_slice(head, sizeof(head)));
    hf_buf_add(&all->query, hf_slice(sql, strlen(sql) + 1));
    for (uint32_t i = 0; i < HF_PG_SERVERS_MAX; i++) {
        all->one[i].all = all;
        all->one[i].server = i;
    }
    if (all->query.err != 0) {
        hf_pg_monitors_destroy(all);
        return -ENOMEM;
    }
    *ret_monitors = all;
    return 0;
}

void hf_pg_monitors_destroy(struct hf_pg_monitors *all)
{
    if (all != NULL) {
        for (uint32_t i = 0; i < HF_PG_SERVERS_MAX; i++) {
            close_conn(&all->one[i]);
        }
        hf_list_unlink(&all->task.node);
        hf_buf_fini(&all->query);
        hf_free(all);
    }
}
