/* The documented scenarios of homes as short readable stories, compared with their golden traces.
 */
#include <string.h>

#include "sim/sip/world.h"

#define SEED 7

static struct sw_world world;

enum { ALPHA, BETA, GAMMA, DELTA };
enum { ANN, BEN, CAT, DAN };

/* ---- what is given, and what happens ---- */

static void soon(struct sw_world *w)
{
    sw_pass(w, HF_MS(300));
}

/* alpha, beta, gamma are up and agree; nobody is registered. */
static void given(struct sw_world *w, uint16_t n_servers)
{
    w->by_hand = true;
    sw_init(w, SEED, n_servers, 8);
    for (uint16_t i = 0; i < n_servers; i++) {
        sw_feed(w, i);
    }
}

static void all_look(struct sw_world *w)
{
    for (uint16_t i = 0; i < w->n_servers; i++) {
        if (w->server[i].up) {
            sw_look(w, i);
        }
    }
    sw_tell(w, "-- all see who lives");
}

static void all_feed(struct sw_world *w)
{
    for (uint16_t i = 0; i < w->n_servers; i++) {
        if (w->server[i].up) {
            sw_feed(w, i);
        }
    }
}

static void registers(struct sw_world *w, uint32_t client, uint16_t at)
{
    w->client[client].registrar = at;
    sw_register(w, client);
    soon(w);
}

/* Registered, without a word of it. */
static void given_registered(struct sw_world *w, uint32_t client, uint16_t at)
{
    FILE *trace = w->trace;
    w->trace = NULL;
    sw_assign(w, client, at, at);
    all_feed(w);
    registers(w, client, at);
    w->trace = trace;
    w->client[client].carried = 0;
}

static void given_row(struct sw_world *w, uint32_t client, uint16_t at)
{
    FILE *trace = w->trace;
    w->trace = NULL;
    sw_assign(w, client, at, at);
    all_feed(w);
    for (uint16_t i = 0; i < w->n_servers; i++) {
        sw_read(w, i, client);
    }
    w->trace = trace;
}

/* ---- the stories ---- */

static void own_client(struct sw_world *w)
{
    given(w, 3);
    given_row(w, ANN, ALPHA);
    registers(w, ANN, ALPHA);
}

static void internal_redirect(struct sw_world *w)
{
    given(w, 3);
    given_row(w, ANN, BETA);
    registers(w, ANN, ALPHA);
}

static void external_proxy(struct sw_world *w)
{
    given(w, 3);
    given_row(w, ANN, BETA);
    w->client[ANN].place = SW_FOREIGN;
    registers(w, ANN, ALPHA);
}

static void unassigned(struct sw_world *w)
{
    given(w, 3);
    registers(w, ANN, ALPHA);
    registers(w, BEN, ALPHA);
}

static void edge(struct sw_world *w)
{
    given(w, 4);
    w->server[DELTA].role = HF_SIP_ROLE_EDGE;
    all_look(w);
    w->client[ANN].place = SW_EDGE;
    registers(w, ANN, DELTA);
    sw_tell(w, "-- and again");
    registers(w, ANN, DELTA);
}

static void home_dead_before(struct sw_world *w)
{
    given(w, 3);
    given_registered(w, ANN, BETA);
    sw_lead(w);
    sw_read(w, ALPHA, ANN);
    sw_crash(w, BETA);
    all_look(w);
    registers(w, ANN, ALPHA);
    sw_lead(w);
    all_feed(w);
    sw_call(w, BEN, ANN, ALPHA);
    soon(w);
    registers(w, ANN, ALPHA);
}

static void home_dead_after(struct sw_world *w)
{
    given(w, 3);
    given_row(w, ANN, BETA);
    sw_lead(w);
    w->client[ANN].registrar = ALPHA;
    sw_register(w, ANN);
    while (w->client[ANN].redirects == 0 && sw_next(w, HF_NEVER)) {
    }
    sw_crash(w, BETA);
    soon(w);
    all_look(w);
    sw_lead(w);
    sw_tell(w, "-- ann has waited long enough, and tries the second Contact");
    sw_client_timer(w, ANN, w->client[ANN].request);
    soon(w);
}

/* alpha takes ann for beta's, beta for alpha's; she is gamma's. */
static void given_stale(struct sw_world *w)
{
    given(w, 3);
    sw_assign(w, ANN, BETA, BETA);
    sw_read(w, ALPHA, ANN);
    sw_assign(w, ANN, ALPHA, ALPHA);
    sw_read(w, BETA, ANN);
    sw_assign(w, ANN, GAMMA, GAMMA);
}

static void stale_internal(struct sw_world *w)
{
    given_stale(w);
    registers(w, ANN, ALPHA);
}

static void stale_external(struct sw_world *w)
{
    given_stale(w);
    w->client[ANN].place = SW_FOREIGN;
    registers(w, ANN, ALPHA);
}

/* Nobody can read: what they remember has to do. */
static void stale_away(struct sw_world *w)
{
    given_stale(w);
    sw_database(w, false);
    all_feed(w);
    registers(w, ANN, ALPHA);
    sw_tell(w, "-- and by way of a proxy");
    w->client[BEN].place = SW_FOREIGN;
    sw_database(w, true);
    all_feed(w);
    sw_assign(w, BEN, BETA, BETA);
    sw_read(w, BETA, BEN);
    sw_read(w, ALPHA, BEN);
    sw_assign(w, BEN, ALPHA, ALPHA);
    sw_read(w, BETA, BEN);
    sw_database(w, false);
    all_feed(w);
    registers(w, BEN, ALPHA);
}

static void stale_strips(struct sw_world *w)
{
    given_stale(w);
    w->client[ANN].habit = SW_STRIPS;
    registers(w, ANN, ALPHA);
}

static void in_flight(struct sw_world *w)
{
    given(w, 3);
    given_row(w, ANN, ALPHA);
    w->client[ANN].credentials = true;
    w->client[ANN].registrar = ALPHA;
    sw_register(w, ANN);
    while (w->n_served == 0 && sw_next(w, HF_NEVER)) {
    }
    sw_tell(w, "-- before it is stored");
    sw_assign(w, ANN, BETA, BETA);
    soon(w);
}

static void refresh_at_old_home(struct sw_world *w)
{
    given(w, 3);
    given_row(w, ANN, BETA);
    registers(w, ANN, ALPHA); /* is redirected: her registrar is beta, with its epoch */
    sw_tell(w, "-- a minute later");
    sw_pass(w, HF_S(60));
    sw_assign(w, ANN, GAMMA, GAMMA);
    all_feed(w);
    registers(w, ANN, BETA);
}

static void mass_move(struct sw_world *w)
{
    given(w, 3);
    for (uint32_t i = 0; i < 6; i++) {
        given_registered(w, i, BETA);
    }
    sw_lead(w);
    sw_drain(w, BETA, true);
    all_look(w);
    for (unsigned i = 0; i < 3; i++) {
        sw_pass(w, HF_S(1));
        sw_lead(w);
    }
    all_feed(w);
    for (uint32_t i = 0; i < 3; i++) {
        registers(w, i, BETA);
    }
}

static void database_away(struct sw_world *w)
{
    given(w, 3);
    given_registered(w, ANN, BETA);
    sw_read(w, ALPHA, ANN);
    sw_database(w, false);
    all_feed(w);
    registers(w, ANN, ALPHA);
    sw_tell(w, "-- ben has no home yet");
    registers(w, BEN, ALPHA);
    sw_call(w, CAT, ANN, ALPHA);
    soon(w);
    sw_database(w, true);
    all_feed(w);
    registers(w, BEN, ALPHA);
}

static void restored(struct sw_world *w)
{
    given(w, 3);
    given_row(w, BEN, GAMMA);
    struct sw_row before = w->db.row[BEN];
    uint64_t change = w->db.change;
    given_registered(w, ANN, BETA);
    given_registered(w, BEN, BETA);
    sw_tell(w, "-- the database is restored from a backup: ann is not in it, ben is gamma's");
    w->db.row[ANN] = (struct sw_row){0};
    w->db.row[BEN] = before;
    w->db.change = change;
    all_feed(w);
    for (uint32_t i = ANN; i <= BEN; i++) {
        sw_tell(w, "table: %s is %s's, epoch %u", cast_client(i), cast_server(w->db.row[i].current),
                (unsigned)w->db.row[i].epoch);
    }
    registers(w, BEN, GAMMA);
}

static void auto_ignores(struct sw_world *w)
{
    given(w, 3);
    given_row(w, ANN, BETA);
    w->policy = HF_SIP_POLICY_AUTO;
    w->client[ANN].habit = SW_IGNORES;
    registers(w, ANN, ALPHA);
    sw_tell(w, "-- the first refresh");
    sw_pass(w, HF_S(50));
    registers(w, ANN, ALPHA);
    sw_tell(w, "-- she is registered still; some time later");
    sw_pass(w, HF_S(30));
    sw_call(w, BEN, ANN, GAMMA);
    soon(w);
    registers(w, ANN, ALPHA);
    sw_tell(w, "-- from now on");
    sw_pass(w, HF_S(50));
    sw_read(w, ALPHA, ANN);
    registers(w, ANN, ALPHA);
}

static void auto_follows(struct sw_world *w)
{
    given(w, 3);
    given_row(w, ANN, BETA);
    w->policy = HF_SIP_POLICY_AUTO;
    registers(w, ANN, ALPHA);
    sw_tell(w, "-- the first refresh");
    sw_pass(w, HF_S(50));
    registers(w, ANN, ALPHA);
    sw_tell(w, "-- and should she come to alpha again");
    sw_pass(w, HF_S(50));
    sw_read(w, ALPHA, ANN);
    w->client[ANN].carried = 0;
    registers(w, ANN, ALPHA);
}

static void auto_stops(struct sw_world *w)
{
    given(w, 3);
    given_row(w, ANN, BETA);
    w->policy = HF_SIP_POLICY_AUTO;
    FILE *trace = w->trace;
    w->trace = NULL;
    registers(w, ANN, ALPHA);
    sw_pass(w, HF_S(50));
    registers(w, ANN, ALPHA);
    sw_read(w, ALPHA, ANN);
    w->trace = trace;
    w->client[ANN].habit = SW_IGNORES;
    w->client[ANN].carried = 0;
    sw_pass(w, HF_S(60));
    registers(w, ANN, ALPHA);
    sw_pass(w, HF_S(61));
    all_feed(w);
    registers(w, ANN, ALPHA);
}

static void forged(struct sw_world *w)
{
    given(w, 3);
    given_row(w, ANN, BETA);
    w->client[ANN].forges = true;
    w->client[ANN].credentials = true;
    registers(w, ANN, ALPHA);
}

static const struct {
    const char *name, *title;
    void (*tell)(struct sw_world *w);
} stories[] = {
    {"own-client", "A server's own client registers (D3).", own_client},
    {"internal-redirect", "An internal client of another server: redirected (D4).",
     internal_redirect},
    {"external-proxy", "An external client of another server: proxied (D5).", external_proxy},
    {"unassigned", "Clients that are seen for the first time (D2).", unassigned},
    {"edge", "A client behind our edge server, first without a home (D5, D7).", edge},
    {"home-dead-before", "The home is dead before anybody is redirected there (D8, D11).",
     home_dead_before},
    {"home-dead-after", "The home dies after the redirect: the second Contact (D8).",
     home_dead_after},
    {"stale-internal", "Two stale tables against each other, an internal client (D12, I7).",
     stale_internal},
    {"stale-external", "Two stale tables against each other, an external client (D12, I7).",
     stale_external},
    {"stale-away", "Two stale tables against each other, and no database to ask (I7).", stale_away},
    {"stale-strips", "The same with a client that drops the URI's parameters (I7).", stale_strips},
    {"in-flight", "The assignment changes while a REGISTER is on its way (I7).", in_flight},
    {"refresh-at-old-home", "A client refreshes at its old home (D10).", refresh_at_old_home},
    {"mass-move", "A server is drained: table first, then its clients as they refresh (D10).",
     mass_move},
    {"database-away", "The database is away, and back.", database_away},
    {"restored", "The database is restored from a backup: the home asserts what it knows.",
     restored},
    {"auto-ignores", "Policy auto, an agent that does not follow: nothing is lost by it (S6).",
     auto_ignores},
    {"auto-follows", "Policy auto, an agent that follows (S6).", auto_follows},
    {"auto-stops", "Policy auto, an agent that followed, and does so no more (S6).", auto_stops},
    {"forged", "A client claims to be a peer, and an epoch (I8).", forged},
};

size_t swx_n_stories(void)
{
    return HF_ARRAY_LEN(stories);
}

struct sim_story swx_story(size_t i)
{
    return (struct sim_story){stories[i].name, stories[i].title};
}

void swx_tell(size_t i, FILE *out)
{
    struct sw_world *w = &world;
    jmp_buf fail;
    memset(w, 0, sizeof(*w));
    fputs("\n", out);
    w->trace = out;
    w->fail = &fail;
    if (setjmp(fail) == 0) {
        stories[i].tell(w);
    }
    w->trace = NULL;
    sw_fini(w);
}
