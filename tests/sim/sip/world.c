/* Servers that decide with the real cores, the database, and the network between them. */
#include "sim/sip/world.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/slice.h"

enum {
    EV_ARRIVE,   /* a request at a server */
    EV_READ,     /* SQL has answered, at a server */
    EV_ASSIGN,   /* ... to an INSERT */
    EV_COMMIT,   /* ... to a binding */
    EV_RESPONSE, /* at the client */
    EV_TIMER,    /* a client's; data: the number of its request */
    EV_FEED,     /* a server reads what has changed */
    EV_TREE,     /* a server learns who lives */
    EV_LEAD,     /* the leader thinks */
};

uint64_t sw_below(struct sw_world *w, uint64_t n)
{
    return hf_prng_below(&w->net.prng, n);
}

void sw_tell(struct sw_world *w, const char *fmt, ...)
{
    if (w->trace == NULL) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    vfprintf(w->trace, fmt, ap);
    va_end(ap);
    fputc('\n', w->trace);
}

void sw_failed(struct sw_world *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->why, sizeof(w->why), fmt, ap);
    va_end(ap);
    sw_tell(w, "FAILED: %s", w->why);
    longjmp(*w->fail, 1);
}

/* AoRs of very different lengths, so that a full cache has something to think about. */
static struct hf_slice aor_of(uint32_t client)
{
    static char s[SW_CLIENTS][160];
    if (s[client][0] == 0) {
        snprintf(s[client], sizeof(s[client]), "sip:%s@%.*sexample.org", cast_client(client),
                 (int)(client * 5),
                 "a.rather.long.and.winding.road.of.labels.that.leads.to.the."
                 "house.of.nobody.in.particular.");
    }
    return hf_slice_str(s[client]);
}

/* ---- events ---- */

static void at(struct sw_world *w, hf_time when, uint32_t kind, uint16_t server,
               const struct sw_msg *m)
{
    struct sw_msg *copy = NULL;
    if (m != NULL) {
        copy = sim_alloc(sizeof(*copy));
        *copy = *m;
    }
    sim_net_at(&w->net, when, kind, server, server < SW_SERVERS ? w->server[server].boot : 0, copy);
}

static hf_time latency(struct sw_world *w)
{
    return sim_net_latency(&w->net);
}

void sw_send(struct sw_world *w, uint16_t server, const struct sw_msg *m)
{
    at(w, w->net.now + latency(w), EV_ARRIVE, server, m);
}

void sw_set_timer(struct sw_world *w, uint32_t client, hf_time in)
{
    sim_net_at(&w->net, w->net.now + in, EV_TIMER, client, w->client[client].request, NULL);
}

/* ---- the database ---- */

static bool reaches(const struct sw_world *w, uint16_t server)
{
    return w->db.there && !w->server[server].cut;
}

static struct hf_sip_row row_of(uint32_t client, const struct sw_row *r)
{
    return (struct hf_sip_row){
        .aor = aor_of(client),
        .home = r->home,
        .current = r->current,
        .epoch = r->epoch,
        .pinned = r->pinned,
        .agent = r->agent,
        .agent_id = r->agent_id,
    };
}

static void took(struct sw_world *w, uint16_t server, uint32_t client, const struct hf_sip_row *row,
                 enum hf_sip_apply what)
{
    struct sw_server *s = &w->server[server];
    if (what == HF_SIP_APPLY_GAINED) {
        s->has[client] = w->db.binding[client]; /* D11: at once */
    } else if (what == HF_SIP_APPLY_LOST) {
        s->has[client].used = false;
    }
    if (what >= HF_SIP_APPLY_NEWER) {
        sw_tell(w, "  %s: %s is %s's now, epoch %" PRIu64 "%s", cast_server(server),
                cast_client(client), cast_server(row->current), row->epoch,
                what == HF_SIP_APPLY_GAINED ? ": mine"
                : what == HF_SIP_APPLY_LOST ? ": not mine any more"
                                            : "");
    }
}

static void read_row(struct sw_world *w, uint16_t server, uint32_t client, const struct sw_row *r)
{
    if (r->used) {
        struct hf_sip_row row = row_of(client, r);
        took(w, server, client, &row, hf_sip_assign_read(w->server[server].assign, &row));
    }
}

void sw_read(struct sw_world *w, uint16_t server, uint32_t client)
{
    read_row(w, server, client, &w->db.row[client]);
}

/* Only its home says what an agent does; others are told, and read the row anew when they need it.
 */
static void learn(struct sw_world *w, uint16_t server, uint32_t client, uint8_t agent,
                  uint16_t agent_id)
{
    struct sw_row *r = &w->db.row[client];
    if (!hf_sip_assign_learn(w->server[server].assign, aor_of(client), agent, agent_id) ||
        !reaches(w, server) || !r->used || r->current != server) {
        return;
    }
    r->agent = agent;
    r->agent_id = agent_id;
    for (uint16_t i = 0; i < w->n_servers; i++) {
        struct hf_sip_row row;
        if (i != server && w->server[i].up && reaches(w, i) &&
            hf_sip_assign_get(w->server[i].assign, aor_of(client), &row) && row.current != i) {
            (void)hf_sip_assign_forget(w->server[i].assign, aor_of(client));
        }
    }
}

/* Who has not come back may have changed its ways: it is proxied until that is known again. */
static void expire(struct sw_world *w, uint16_t server)
{
    for (uint32_t i = 0; i < w->n_clients; i++) {
        struct sw_binding *b = &w->server[server].has[i];
        struct hf_sip_row row;
        if (b->used && b->until <= w->net.now) {
            b->used = false;
            if (hf_sip_assign_get(w->server[server].assign, aor_of(i), &row) &&
                row.agent == HF_SIP_AGENT_FOLLOWS) {
                sw_tell(w, "  %s: %s's binding has expired; its agent unknown", cast_server(server),
                        cast_client(i));
                learn(w, server, i, HF_SIP_AGENT_UNKNOWN, 0);
            }
        }
    }
}

void sw_feed(struct sw_world *w, uint16_t server)
{
    struct sw_server *s = &w->server[server];
    bool there = reaches(w, server), knew = hf_sip_assign_table(s->assign) != HF_SIP_TABLE_AWAY;
    hf_sip_assign_database(s->assign, there);
    expire(w, server);
    if (!there) {
        return;
    }
    if (!knew) {
        sw_tell(w, "  %s: the database is there again", cast_server(server));
    }
    for (uint32_t i = 0; i < w->n_clients; i++) {
        const struct sw_row *r = &w->db.row[i];
        if (r->used && r->change > hf_sip_assign_change(s->assign)) {
            struct hf_sip_row row = row_of(i, r);
            took(w, server, i, &row, hf_sip_assign_changed(s->assign, &row));
        }
    }
    hf_sip_assign_caught_up(s->assign, w->db.change, w->net.now);
    struct hf_sip_row row;
    while (hf_sip_assign_next_assert(s->assign, w->net.now, &row)) {
        for (uint32_t i = 0; i < w->n_clients; i++) {
            struct sw_row *r = &w->db.row[i];
            if (hf_slice_eq(aor_of(i), row.aor)) {
                if (!r->used || row.epoch > r->epoch) {
                    *r = (struct sw_row){.used = true,
                                         .home = row.home,
                                         .current = row.current,
                                         .epoch = row.epoch,
                                         .change = r->change,
                                         .pinned = row.pinned,
                                         .agent = row.agent,
                                         .agent_id = row.agent_id};
                }
                sw_read(w, server, i);
            }
        }
    }
}

void sw_assign(struct sw_world *w, uint32_t client, uint16_t home, uint16_t current)
{
    struct sw_row *r = &w->db.row[client];
    r->used = true;
    r->home = home;
    r->current = current;
    r->epoch++;
    r->change = ++w->db.change;
    sw_tell(w, "table: %s is %s's, epoch %" PRIu64, cast_client(client), cast_server(current),
            r->epoch);
}

void sw_database(struct sw_world *w, bool there)
{
    if (w->db.there != there) {
        sw_tell(w, "-- the database is %s", there ? "back" : "away");
        w->db.there = there;
    }
}

/* ---- servers ---- */

void sw_look(struct sw_world *w, uint16_t server)
{
    for (uint16_t i = 0; i < w->n_servers; i++) {
        const struct sw_server *o = &w->server[i];
        struct hf_sip_server is = {
            .state = !o->up        ? HF_SIP_SERVER_DEAD
                     : o->draining ? HF_SIP_SERVER_DRAINING
                                   : HF_SIP_SERVER_LIVE,
            .homes = o->role == HF_SIP_ROLE_HOME,
            .weight = o->weight,
        };
        hf_sip_fleet_set(w->server[server].fleet, i, &is);
    }
}

static void tree_changed(struct sw_world *w)
{
    for (uint16_t i = 0; i < w->n_servers && !w->by_hand; i++) {
        at(w, w->net.now + (hf_time)sw_below(w, (uint64_t)w->tree_delay), EV_TREE, i, NULL);
    }
}

static void be_up(struct sw_world *w, uint16_t i)
{
    struct sw_server *s = &w->server[i];
    s->up = true;
    s->boot++;
    memset(s->has, 0, sizeof(s->has));
    memset(s->redirected, 0, sizeof(s->redirected));
    int r = hf_sip_fleet_create(&s->fleet);
    for (uint16_t k = 0; r == 0 && k < w->n_servers; k++) {
        uint16_t no;
        r = hf_sip_fleet_add(s->fleet, hf_slice_str(cast_server(k)), &no);
        assert(r < 0 || no == k);
    }
    if (r == 0) {
        r = hf_sip_assign_create(&(struct hf_sip_assign_conf){.self = i,
                                                              .seed = sw_below(w, UINT64_MAX),
                                                              .bytes_max = w->bytes_max,
                                                              .assert_interval = HF_S(60)},
                                 w->net.now, &s->assign);
    }
    if (r < 0) {
        exit(2);
    }
    sw_look(w, i);
    for (uint32_t k = 0; k < w->n_clients && reaches(w, i); k++) { /* its own rows at start-up */
        if (w->db.row[k].used && w->db.row[k].current == i) {
            sw_read(w, i, k);
        }
    }
    if (!w->by_hand) {
        at(w, w->net.now + 1 + (hf_time)sw_below(w, (uint64_t)w->feed_every), EV_FEED, i, NULL);
    }
}

static void be_down(struct sw_world *w, uint16_t i)
{
    struct sw_server *s = &w->server[i];
    s->up = false;
    s->boot++;
    if (w->leads == i) {
        hf_sip_rebalance_destroy(w->leader);
        w->leader = NULL;
        w->leads = HF_SIP_NONE;
    }
    hf_sip_assign_destroy(s->assign);
    hf_sip_fleet_destroy(s->fleet);
    s->assign = NULL;
    s->fleet = NULL;
}

void sw_crash(struct sw_world *w, uint16_t server)
{
    if (w->server[server].up) {
        sw_tell(w, "-- %s loses power", cast_server(server));
        be_down(w, server);
        tree_changed(w);
    }
}

void sw_boot(struct sw_world *w, uint16_t server)
{
    if (!w->server[server].up) {
        sw_tell(w, "-- %s boots", cast_server(server));
        be_up(w, server);
        tree_changed(w);
    }
}

void sw_drain(struct sw_world *w, uint16_t server, bool on)
{
    if (w->server[server].draining != on) {
        sw_tell(w, "-- %s %s", cast_server(server), on ? "is drained" : "takes clients again");
        w->server[server].draining = on;
        tree_changed(w);
    }
}

/* ---- a request at a server ---- */

static void respond(struct sw_world *w, struct sw_msg *m, unsigned status)
{
    m->status = status;
    /* back the way it came: who is gone meanwhile takes it along */
    hf_time t = w->net.now;
    for (uint8_t i = 0; i + 1 < m->n_path; i++) {
        if (!w->server[m->path[i]].up) {
            return;
        }
        t += latency(w);
    }
    sim_net_at(&w->net, t + latency(w), EV_RESPONSE, m->client, 0,
               memcpy(sim_alloc(sizeof(*m)), m, sizeof(*m)));
}

static void remember(struct sw_world *w, struct sw_server *s, const struct sw_msg *m)
{
    uint32_t i = s->n_redirected++ % SW_MEMORY;
    s->redirected[i].client = m->client;
    s->redirected[i].call_id = w->client[m->client].call_id;
    s->redirected[i].at = w->net.now;
}

static bool lately(const struct sw_world *w, const struct sw_server *s, const struct sw_msg *m)
{
    if (m->carried > 0 && w->net.now - m->stamp <= SW_LATELY) {
        return true;
    }
    for (uint32_t i = 0; i < SW_MEMORY; i++) {
        if (s->redirected[i].at != 0 && s->redirected[i].client == m->client &&
            s->redirected[i].call_id == w->client[m->client].call_id &&
            w->net.now - s->redirected[i].at <= SW_LATELY) {
            return true;
        }
    }
    return false;
}

static struct hf_sip_facts facts(struct sw_world *w, uint16_t server, const struct sw_msg *m)
{
    struct sw_server *s = &w->server[server];
    const struct sw_binding *b = &s->has[m->callee];
    bool same = b->used && b->call_id == w->client[m->client].call_id && b->until > w->net.now;
    struct hf_sip_facts f = {
        .role = (uint8_t)s->role,
        .self = server,
        .fleet = s->fleet,
        .kind = m->kind,
        .aor = aor_of(m->callee),
        .n_via = m->n_via,
        .max_forwards = 70u - m->n_path,
        .from_edge = m->from_edge,
        .from_peer = m->from_peer,
        .mark = m->mark,
        .carried = m->carried,
        .redirected = lately(w, s, m),
        .credentials = m->credentials,
        .authenticated = m->credentials,
        .must_authenticate = w->must_authenticate && s->role != HF_SIP_ROLE_EDGE,
        .user_known = true,
        .policy = (uint8_t)w->policy,
        .agent_id = w->client[m->client].agent_id,
        .binding_left = same ? b->until - w->net.now : 0,
        .binding_life = same ? b->life : 0,
        .read = m->read,
        .away = hf_sip_assign_table(s->assign) == HF_SIP_TABLE_AWAY,
        .random = (uint32_t)hf_prng_u64(&w->net.prng),
    };
    f.have_row = hf_sip_assign_get(s->assign, f.aor, &f.row);
    if (!f.have_row && m->have_row) { /* it did not fit in the cache */
        f.have_row = true;
        f.row = row_of(m->callee, &m->row);
    }
    return f;
}

static void tell_verdict(struct sw_world *w, uint16_t server, const struct hf_sip_verdict *v)
{
    char more[120] = "";
    switch (v->action) {
    case HF_SIP_REDIRECT:
        snprintf(more, sizeof(more), ": 302 to %s, epoch %" PRIu64 ", or %s",
                 cast_server(v->target), v->epoch, cast_server(v->backup));
        break;
    case HF_SIP_PROXY:
        snprintf(more, sizeof(more), ": to %s, hop %u, epoch %" PRIu64, cast_server(v->target),
                 v->mark.hop, v->mark.epoch);
        break;
    case HF_SIP_ASSIGN:
        snprintf(more, sizeof(more), ": %s, epoch %" PRIu64, cast_server(v->target), v->epoch);
        break;
    case HF_SIP_REFUSE:
        snprintf(more, sizeof(more), ": %u", v->status);
        break;
    case HF_SIP_SERVE:
        snprintf(more, sizeof(more), ", epoch %" PRIu64, v->epoch);
        break;
    case HF_SIP_PASS:
    case HF_SIP_CHALLENGE:
    case HF_SIP_READ:
    case HF_SIP_ACTION_COUNT_:
        break;
    }
    sw_tell(w, "  %s: %s: %s%s%s%s", cast_server(server), hf_sip_action_name(v->action),
            hf_sip_rule_text(v->rule), more, v->learn ? "; its agent " : "",
            v->learn ? hf_sip_agent_name(v->agent) : "");
}

static void serve_register(struct sw_world *w, uint16_t server, struct sw_msg *m)
{
    struct sw_server *s = &w->server[server];
    struct sw_binding *b = &s->has[m->client];
    bool refresh = b->used && b->call_id == w->client[m->client].call_id && b->until > w->net.now;
    bool away = hf_sip_assign_table(s->assign) == HF_SIP_TABLE_AWAY;
    if (away || refresh) { /* S3 */
        m->expires = away ? SW_EXPIRES_AWAY : SW_EXPIRES;
        *b = (struct sw_binding){.used = true,
                                 .call_id = w->client[m->client].call_id,
                                 .until = w->net.now + m->expires,
                                 .life = m->expires};
        const struct sw_row *r = &w->db.row[m->client];
        if (reaches(w, server) && r->used && r->current == server && r->epoch == m->serve_epoch) {
            w->db.binding[m->client] = *b; /* write-behind, by epoch */
        }
        respond(w, m, 200);
        return;
    }
    at(w, w->net.now + HF_MS(1) + (hf_time)sw_below(w, (uint64_t)HF_MS(10)), EV_COMMIT, server, m);
}

static void serve_call(struct sw_world *w, uint16_t server, struct sw_msg *m)
{
    struct sw_binding *b = &w->server[server].has[m->callee];
    if (!b->used && reaches(w, server)) {
        *b = w->db.binding[m->callee];
    }
    respond(w, m, b->used && b->until > w->net.now ? 180 : 480);
}

static void act(struct sw_world *w, uint16_t server, struct sw_msg *m)
{
    struct sw_server *s = &w->server[server];
    struct hf_sip_facts f = facts(w, server, m);
    struct hf_sip_verdict v;
    if (++m->n_decided > 3) {
        sw_failed(w, "%s decides the same request %u times", cast_server(server), m->n_decided);
    }
    hf_sip_decide(&f, &v);
    tell_verdict(w, server, &v);
    m->target = v.target;
    m->backup = v.backup;
    m->epoch = v.epoch;
    m->retry_after = v.retry_after;
    switch (v.action) {
    case HF_SIP_SERVE:
        w->n_served++;
        m->serve_epoch = v.epoch;
        if (v.learn) {
            learn(w, server, m->client, v.agent, f.agent_id);
        }
        if (m->kind == HF_SIP_KIND_REGISTER) {
            serve_register(w, server, m);
        } else {
            serve_call(w, server, m);
        }
        break;
    case HF_SIP_REDIRECT:
        w->n_redirects++;
        if (w->client[m->client].place != SW_INTERNAL) {
            sw_failed(w, "%s redirects %s, which is external", cast_server(server),
                      cast_client(m->client));
        }
        if (v.learn) {
            learn(w, server, m->client, v.agent, f.agent_id);
        }
        remember(w, s, m);
        respond(w, m, 302);
        break;
    case HF_SIP_PROXY: {
        w->n_proxied++;
        struct sw_msg on = *m;
        on.from_peer = true;
        on.from_edge = s->role == HF_SIP_ROLE_EDGE;
        on.mark = v.mark;
        on.n_via++;
        on.read = on.have_row = false;
        on.n_decided = 0;
        sw_send(w, v.target, &on);
        break;
    }
    case HF_SIP_CHALLENGE:
        respond(w, m, 401);
        break;
    case HF_SIP_READ:
    case HF_SIP_ASSIGN:
        w->n_reads++;
        m->row = w->db.row[m->callee]; /* as it was when SQL looked; the answer takes its time */
        at(w, w->net.now + HF_MS(1) + (hf_time)sw_below(w, (uint64_t)HF_MS(20)),
           v.action == HF_SIP_READ ? EV_READ : EV_ASSIGN, server, m);
        break;
    case HF_SIP_REFUSE:
        w->n_refused++;
        respond(w, m, v.status);
        break;
    case HF_SIP_PASS:
    case HF_SIP_ACTION_COUNT_:
        sw_failed(w, "%s passes it", cast_server(server));
    }
}

static void arrive(struct sw_world *w, uint16_t server, struct sw_msg *m)
{
    struct sw_client *c = &w->client[m->client];
    m->hops++;
    m->path[m->n_path++] = server;
    assert(m->n_path < SW_PATH);
    c->hops = m->hops > c->hops ? m->hops : c->hops;
    if (c->habit == SW_STRIPS) {
        w->strip_hops_max = m->hops > w->strip_hops_max ? m->hops : w->strip_hops_max;
        if (m->hops > w->n_servers + 2u) {
            sw_failed(w, "I7: %s has gone round %u servers", cast_client(m->client), m->hops);
        }
    } else {
        w->hops_max = m->hops > w->hops_max ? m->hops : w->hops_max;
        if (m->hops > 3) {
            sw_failed(w, "I7: %s is at its %uth server", cast_client(m->client), m->hops);
        }
    }
    act(w, server, m);
}

static void read_done(struct sw_world *w, uint16_t server, struct sw_msg *m)
{
    if (!reaches(w, server)) {
        hf_sip_assign_database(w->server[server].assign, false);
    } else {
        m->read = true;
        m->have_row = m->row.used;
        read_row(w, server, m->callee, &m->row);
    }
    act(w, server, m);
}

static void assign_done(struct sw_world *w, uint16_t server, struct sw_msg *m)
{
    struct sw_row *r = &w->db.row[m->callee];
    if (reaches(w, server) && !r->used) { /* ON CONFLICT DO NOTHING */
        *r = (struct sw_row){
            .used = true, .home = m->target, .current = m->target, .epoch = m->epoch};
        sw_tell(w, "table: %s is %s's, epoch %" PRIu64, cast_client(m->callee),
                cast_server(m->target), m->epoch);
    }
    m->row = *r;
    read_done(w, server, m);
}

/* A binding is stored if the row is as it was when it was decided (I7). */
static void commit(struct sw_world *w, uint16_t server, struct sw_msg *m)
{
    const struct sw_row *r = &w->db.row[m->client];
    struct sw_server *s = &w->server[server];
    m->n_decided =
        0; /* what was decided holds no more if the table, or the database, has changed */
    if (!reaches(w, server)) {
        hf_sip_assign_database(s->assign, false);
        act(w, server, m);
        return;
    }
    if (!r->used || r->current != server || r->epoch != m->serve_epoch) {
        sw_tell(w, "  %s: the row has changed meanwhile: nothing is stored", cast_server(server));
        m->row = *r;
        read_done(w, server, m);
        return;
    }
    m->expires = SW_EXPIRES;
    s->has[m->client] = w->db.binding[m->client] =
        (struct sw_binding){.used = true,
                            .call_id = w->client[m->client].call_id,
                            .until = w->net.now + SW_EXPIRES,
                            .life = SW_EXPIRES};
    respond(w, m, 200);
}

/* ---- the leader ---- */

static void follow_plan(struct sw_world *w, const struct hf_sip_move *m)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_clients && n < m->n + (m->who == HF_SIP_WHO_ALL) * 1000u; i++) {
        struct sw_row *r = &w->db.row[i];
        uint16_t bucket = hf_sip_bucket(aor_of(i));
        if (!r->used || r->current != m->from ||
            (m->who == HF_SIP_WHO_ALL && (bucket < m->bucket_first || bucket > m->bucket_last)) ||
            ((m->who == HF_SIP_WHO_LOOSE || m->who == HF_SIP_WHO_HOMING) && r->pinned) ||
            (m->who == HF_SIP_WHO_HOMING && r->home != m->to) ||
            (m->who == HF_SIP_WHO_PINNED && (!r->pinned || r->home != m->to))) {
            continue;
        }
        bool stays = m->reason == HF_SIP_MOVE_BALANCE && m->who == HF_SIP_WHO_LOOSE;
        sw_assign(w, i, stays ? m->to : r->home, m->to);
        w->n_moves++;
        n++;
    }
}

static void tell_leader(struct sw_world *w)
{
    static struct hf_sip_astray astray[SW_SERVERS * SW_SERVERS];
    size_t n = 0;
    for (uint16_t i = 0; i < w->n_servers; i++) {
        struct hf_sip_load l = {0};
        struct hf_sip_astray of[SW_SERVERS];
        memset(of, 0, sizeof(of));
        for (uint32_t k = 0; k < w->n_clients; k++) {
            const struct sw_row *r = &w->db.row[k];
            if (r->used && r->current == i) {
                l.clients++;
                l.pinned += r->pinned && r->home == i;
                of[r->home].clients += !r->pinned;
                of[r->home].pinned += r->pinned;
            }
        }
        for (uint16_t k = 0; k < w->n_servers; k++) {
            if (k != i && of[k].clients + of[k].pinned > 0) {
                of[k].current = i;
                of[k].home = k;
                astray[n++] = of[k];
            }
        }
        hf_sip_rebalance_load(w->leader, i, &l);
    }
    hf_sip_rebalance_astray(w->leader, astray, n);
}

void sw_lead(struct sw_world *w)
{
    uint16_t first = 0;
    while (first < w->n_servers && !(w->server[first].up && w->server[first].role == 0)) {
        first++;
    }
    if (first == w->n_servers || !reaches(w, first)) {
        return;
    }
    if (w->leads != first) {
        hf_sip_rebalance_destroy(w->leader);
        if (hf_sip_rebalance_create(
                &(struct hf_sip_rebalance_conf){
                    .patience = HF_S(5), .settle = HF_S(5), .rate = 5, .rate_to = 3},
                w->server[first].fleet, w->net.now, &w->leader) < 0) {
            exit(2);
        }
        w->leads = first;
    }
    tell_leader(w);
    const struct hf_sip_move *m;
    size_t n = hf_sip_rebalance_step(w->leader, w->net.now, &m);
    for (size_t i = 0; i < n; i++) {
        char why[200];
        hf_sip_rebalance_why(w->leader, &m[i], why, sizeof(why));
        sw_tell(w, "leader %s: %u from %s to %s: %s", cast_server(first), m[i].n,
                cast_server(m[i].from), cast_server(m[i].to), why);
        follow_plan(w, &m[i]);
    }
}

/* ---- the world ---- */

static void happen(struct sw_world *w, struct sim_event *e)
{
    struct sw_msg *m = e->data;
    if (e->kind == EV_RESPONSE) {
        sw_client_hears(w, m);
        return;
    }
    if (e->kind == EV_TIMER) {
        sw_client_timer(w, e->host, e->boot);
        return;
    }
    if (e->kind == EV_LEAD) {
        sw_lead(w);
        at(w, w->net.now + w->leader_every, EV_LEAD, SW_SERVERS, NULL);
        return;
    }
    struct sw_server *s = &w->server[e->host];
    uint16_t i = (uint16_t)e->host;
    if (!s->up || (e->kind != EV_ARRIVE && e->kind != EV_TREE && e->boot != s->boot)) {
        return; /* lost with the server */
    }
    switch (e->kind) {
    case EV_ARRIVE:
        arrive(w, i, m);
        break;
    case EV_READ:
        read_done(w, i, m);
        break;
    case EV_ASSIGN:
        assign_done(w, i, m);
        break;
    case EV_COMMIT:
        commit(w, i, m);
        break;
    case EV_FEED:
        sw_feed(w, i);
        at(w, w->net.now + w->feed_every, EV_FEED, i, NULL);
        break;
    case EV_TREE:
        sw_look(w, i);
        break;
    default:
        assert(false);
    }
}

bool sw_next(struct sw_world *w, hf_time until)
{
    struct sim_event e;
    if (!sim_net_next(&w->net, until, &e)) {
        return false;
    }
    happen(w, &e);
    free(e.data);
    return true;
}

void sw_pass(struct sw_world *w, hf_time t)
{
    hf_time until = w->net.now + t;
    while (sw_next(w, until)) {
    }
    w->net.now = until;
}

void sw_init(struct sw_world *w, uint64_t seed, uint16_t n_servers, uint16_t n_clients)
{
    FILE *trace = w->trace;
    jmp_buf *fail = w->fail;
    bool by_hand = w->by_hand;
    memset(w, 0, sizeof(*w));
    w->trace = trace;
    w->fail = fail;
    w->by_hand = by_hand;
    sim_net_init(&w->net, SW_SERVERS, false, seed);
    w->net.weather = (struct sim_weather){.latency = HF_MS(1), .spread = HF_MS(1)};
    w->n_servers = n_servers;
    w->n_clients = n_clients;
    w->db.there = true;
    w->must_authenticate = true;
    w->feed_every = HF_MS(50);
    w->leader_every = HF_MS(500);
    w->tree_delay = HF_MS(200);
    w->leads = HF_SIP_NONE;
    for (uint16_t i = 0; i < n_servers; i++) {
        w->server[i].weight = 10;
        w->server[i].up = true;
    }
    for (uint16_t i = 0; i < n_servers; i++) {
        be_up(w, i);
    }
    for (uint32_t i = 0; i < n_clients; i++) {
        w->client[i] = (struct sw_client){
            .used = true, .agent_id = (uint16_t)(i % 5), .call_id = i + 1, .backup = HF_SIP_NONE};
    }
    if (!by_hand) {
        at(w, w->net.now + w->leader_every, EV_LEAD, SW_SERVERS, NULL);
    }
}

void sw_fini(struct sw_world *w)
{
    struct sim_event e;
    while (sim_net_next(&w->net, HF_NEVER, &e)) {
        free(e.data);
    }
    for (uint16_t i = 0; i < w->n_servers; i++) {
        if (w->server[i].up) {
            be_down(w, i);
        }
    }
    hf_sip_rebalance_destroy(w->leader);
    w->leader = NULL;
    sim_net_fini(&w->net);
}
