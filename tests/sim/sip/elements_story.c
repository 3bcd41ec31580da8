/* The documented scenarios of SIP servers as whole messages, compared with their golden traces. */
#include <stdlib.h>
#include <string.h>

#include "sim/sip/elements.h"

#define SEED 11

enum { ALPHA, BETA, GAMMA, DELTA };
enum { ANN, BEN };

/* ---- what is given, and what happens ---- */

static void soon(struct ew_world *w)
{
    ew_pass(w, HF_MS(300));
}

/* n servers, the last n_edges of them edges; ann is at home; nobody is registered. */
static void given(struct ew_world *w, uint16_t n, uint16_t n_edges, bool authenticate)
{
    w->by_hand = true;
    w->must_authenticate = authenticate;
    FILE *trace = w->trace;
    w->trace = NULL;
    ew_init(w, SEED, n, 2, n_edges);
    w->trace = trace;
    for (uint32_t i = 0; i < 2; i++) {
        w->client[i].call_id = i + 1;
    }
    for (uint16_t i = 0; i < n; i++) {
        hf_sip_element_trace(w->server[i].e, hf_slice_str("sip:ann@example.com"));
    }
}

static void quietly(struct ew_world *w, void (*fn)(struct ew_world *w))
{
    FILE *trace = w->trace;
    w->trace = NULL;
    fn(w);
    w->trace = trace;
}

static void all_feed(struct ew_world *w)
{
    for (uint16_t i = 0; i < w->n_servers; i++) {
        if (w->server[i].up) {
            ew_feed(w, i);
        }
    }
    soon(w);
}

static void all_look(struct ew_world *w)
{
    for (uint16_t i = 0; i < w->n_servers; i++) {
        if (w->server[i].up) {
            ew_look(w, i);
        }
    }
    ew_tell(w, "-- all see who lives");
}

static void registers(struct ew_world *w, uint32_t client, uint16_t at)
{
    w->client[client].registrar = at;
    ew_register(w, client);
    soon(w);
}

static void ann_at_alpha(struct ew_world *w)
{
    ew_assign(w, ANN, ALPHA);
    all_feed(w);
    for (uint16_t i = 0; i < w->n_servers; i++) {
        ew_know(w, i, ANN);
    }
    soon(w);
}

static void ann_at_beta(struct ew_world *w)
{
    ew_assign(w, ANN, BETA);
    all_feed(w);
    for (uint16_t i = 0; i < w->n_servers; i++) {
        ew_know(w, i, ANN);
    }
    soon(w);
}

static void ann_registered_at_alpha(struct ew_world *w)
{
    ann_at_alpha(w);
    registers(w, ANN, ALPHA);
}

/* ---- the stories ---- */

static void own_client(struct ew_world *w)
{
    given(w, 2, 0, true);
    quietly(w, ann_at_alpha);
    registers(w, ANN, ALPHA);
    ew_tell(w, "-- a refresh");
    ew_pass(w, HF_S(10));
    registers(w, ANN, ALPHA);
}

static void internal_redirect(struct ew_world *w)
{
    given(w, 3, 0, true);
    quietly(w, ann_at_beta);
    registers(w, ANN, ALPHA);
}

static void external_proxy(struct ew_world *w)
{
    given(w, 3, 0, false);
    quietly(w, ann_at_beta);
    w->client[ANN].place = EW_FOREIGN;
    registers(w, ANN, ALPHA);
    ew_tell(w, "-- and is called, by way of another server");
    ew_call(w, BEN, ANN, GAMMA);
    soon(w);
}

static void unassigned(struct ew_world *w)
{
    given(w, 3, 0, false);
    registers(w, ANN, ALPHA);
}

static void home_dead_before(struct ew_world *w)
{
    given(w, 3, 0, false);
    quietly(w, ann_at_beta);
    ew_crash(w, BETA);
    all_look(w);
    registers(w, ANN, ALPHA);
    ew_tell(w, "-- the leader has moved its clients");
    ew_assign(w, ANN, GAMMA);
    all_feed(w);
    registers(w, ANN, ALPHA);
}

static void home_dead_after(struct ew_world *w)
{
    given(w, 3, 0, false);
    quietly(w, ann_at_beta);
    ew_crash(w, BETA); /* alpha has not seen it yet */
    registers(w, ANN, ALPHA);
    ew_tell(w, "-- nothing answers: the second Contact");
    all_look(w);
    ew_assign(w, ANN, GAMMA);
    all_feed(w);
    ew_client_timer(w, ANN, w->client[ANN].request);
    soon(w);
}

/* alpha believes that it is beta's, beta that it is alpha's; the table says gamma. */
static void stale(struct ew_world *w)
{
    w->row[ANN] = (struct ew_row){.used = true, .home = BETA, .current = BETA, .epoch = 2};
    ew_know(w, ALPHA, ANN);
    w->row[ANN].home = w->row[ANN].current = ALPHA;
    ew_know(w, BETA, ANN);
    w->row[ANN].home = w->row[ANN].current = GAMMA;
    w->row[ANN].epoch = 3;
    w->row[ANN].change = ++w->change;
    ew_feed(w, GAMMA);
    soon(w);
}

static void stale_internal(struct ew_world *w)
{
    given(w, 3, 0, false);
    quietly(w, stale);
    registers(w, ANN, ALPHA);
}

static void stale_external(struct ew_world *w)
{
    given(w, 3, 0, false);
    quietly(w, stale);
    w->client[ANN].place = EW_FOREIGN;
    registers(w, ANN, ALPHA);
}

/* alpha does not know yet that ann has come back to it: beta does. */
static void stale_call(struct ew_world *w)
{
    given(w, 2, 0, false);
    quietly(w, ann_registered_at_alpha);
    w->row[ANN].home = w->row[ANN].current = BETA;
    w->row[ANN].epoch++;
    ew_know(w, ALPHA, ANN);
    w->row[ANN].home = w->row[ANN].current = ALPHA;
    w->row[ANN].epoch++;
    ew_know(w, BETA, ANN);
    ew_call(w, BEN, ANN, ALPHA);
    soon(w);
}

static void moves_while_it_rings(struct ew_world *w)
{
    given(w, 3, 0, false);
    quietly(w, ann_registered_at_alpha);
    ew_ring(w, BEN, ANN, BETA);
    soon(w);
    ew_assign(w, ANN, GAMMA);
    all_feed(w);
    ew_cancel(w, BEN, BETA);
    soon(w);
}

static void in_flight(struct ew_world *w)
{
    given(w, 2, 0, false);
    quietly(w, ann_at_alpha);
    w->client[ANN].place = EW_FOREIGN;
    w->client[ANN].registrar = ALPHA;
    ew_register(w, ANN);
    ew_pass(w, HF_MS(1) + 2); /* it is decided, and not yet stored */
    ew_assign(w, ANN, BETA);
    soon(w);
}

static void refresh_at_old_home(struct ew_world *w)
{
    given(w, 2, 0, false);
    quietly(w, ann_registered_at_alpha);
    ew_assign(w, ANN, BETA);
    all_feed(w);
    registers(w, ANN, ALPHA);
}

static void mass_move(struct ew_world *w)
{
    given(w, 3, 0, false);
    quietly(w, ann_registered_at_alpha);
    ew_crash(w, ALPHA);
    all_look(w);
    ew_assign(w, ANN, BETA);
    ew_tell(w, "-- beta loads what alpha had stored; calls find the user before it registers");
    all_feed(w);
    ew_call(w, BEN, ANN, GAMMA);
    soon(w);
}

static void database_away(struct ew_world *w)
{
    given(w, 2, 0, false);
    quietly(w, ann_registered_at_alpha);
    ew_database(w, false);
    all_feed(w);
    ew_tell(w, "-- ann refreshes; ben is not cached");
    registers(w, ANN, ALPHA);
    registers(w, BEN, ALPHA);
    ew_database(w, true);
    all_feed(w);
    registers(w, ANN, ALPHA);
    registers(w, BEN, ALPHA);
}

static void forged_mark(struct ew_world *w)
{
    given(w, 2, 0, false);
    quietly(w, ann_at_beta);
    w->client[ANN].forges = true;
    registers(w, ANN, ALPHA);
}

static void edge_tcp(struct ew_world *w)
{
    given(w, 3, 1, false);
    quietly(w, ann_at_beta);
    w->client[ANN].place = EW_EDGE;
    w->client[ANN].tcp = true;
    registers(w, ANN, GAMMA);
    ew_tell(w, "-- a call comes by the edge and the connection");
    ew_call(w, BEN, ANN, ALPHA);
    soon(w);
    ew_tell(w, "-- the edge boots: the connection is no more, and says so");
    ew_crash(w, GAMMA);
    ew_boot(w, GAMMA);
    ew_call(w, BEN, ANN, ALPHA);
    ew_pass(w, HF_S(1));
}

static void ben_watches_ann(struct ew_world *w)
{
    ann_registered_at_alpha(w);
    ew_watch(w, BEN, ANN, ALPHA);
    soon(w);
}

/* beta is told that ann is its own now; alpha is not, and dies. */
static void former_dies(struct ew_world *w)
{
    given(w, 3, 0, false);
    quietly(w, ben_watches_ann);
    ew_assign(w, ANN, BETA);
    ew_feed(w, BETA);
    soon(w);
    ew_tell(w, "-- alpha is alive: ann's watchers are alpha's to tell");
    ew_crash(w, ALPHA);
    all_look(w);
    soon(w);
    ew_tell(w, "-- ben does as he was told, by way of another server");
    all_feed(w);
    ew_watch(w, BEN, ANN, GAMMA);
    soon(w);
}

/* As above, but alpha is started anew before anybody has seen that it was gone. */
static void former_starts_anew(struct ew_world *w)
{
    given(w, 3, 0, false);
    quietly(w, ben_watches_ann);
    ew_assign(w, ANN, BETA);
    ew_feed(w, BETA);
    soon(w);
    ew_crash(w, ALPHA);
    ew_boot(w, ALPHA);
    ew_tell(w, "-- nobody has seen that alpha was gone, and it has forgotten its watchers");
    all_look(w);
    soon(w);
}

/* beta has seen it, but hears late that ann is its own now. */
static void former_is_back(struct ew_world *w)
{
    given(w, 3, 0, false);
    quietly(w, ben_watches_ann);
    ew_crash(w, ALPHA);
    all_look(w);
    ew_assign(w, ANN, BETA);
    ew_boot(w, ALPHA);
    all_look(w);
    ew_feed(w, BETA);
    ew_pass(w, HF_S(5));
}

static const struct {
    const char *name, *title;
    void (*tell)(struct ew_world *w);
} stories[] = {
    {"own-client", "A server's own client registers, and refreshes (D3).", own_client},
    {"internal-redirect", "An internal client of another server: 401, 302, 200 (D4).",
     internal_redirect},
    {"external-proxy", "An external client of another server, and a call to it (D5).",
     external_proxy},
    {"unassigned", "A client that is seen for the first time (D2).", unassigned},
    {"home-dead-before", "The home is dead before anybody is redirected there (D8).",
     home_dead_before},
    {"home-dead-after", "The home dies after the redirect: the second Contact (D8).",
     home_dead_after},
    {"stale-internal", "Two stale tables against each other, an internal client (I7).",
     stale_internal},
    {"stale-external", "Two stale tables against each other, an external client (I7).",
     stale_external},
    {"stale-call", "A call goes out by an old row, and comes back by the new one (I7, D12).",
     stale_call},
    {"moves-while-it-rings", "A call is cancelled when its callee has another home (S4).",
     moves_while_it_rings},
    {"in-flight", "The assignment changes while a REGISTER is being stored (I7, S3).", in_flight},
    {"refresh-at-old-home", "A client refreshes at its old home (D10).", refresh_at_old_home},
    {"mass-move", "A dead server's clients move; calls find them at once (D11, S3).", mass_move},
    {"database-away", "The database is away, and back (S3).", database_away},
    {"forged-mark", "A client claims to be a peer (I8).", forged_mark},
    {"edge-tcp", "A client behind our edge, over TCP (D5, D7, S4, RFC 5626).", edge_tcp},
    {"former-dies", "A former home dies before it has told a watcher (S2, D10, D11).", former_dies},
    {"former-starts-anew", "... or has forgotten him (S2).", former_starts_anew},
    {"former-is-back", "... or was back before the new home heard of the move (S2).",
     former_is_back},
};

_Static_assert(sizeof(stories) / sizeof(stories[0]) == EW_STORIES, "EW_STORIES");

struct sim_story ew_story(size_t i)
{
    return (struct sim_story){.name = stories[i].name, .title = stories[i].title};
}

void ew_story_tell(size_t i, FILE *out)
{
    static struct ew_world world;
    jmp_buf fail;
    struct ew_world *w = &world;
    memset(w, 0, sizeof(*w));
    w->fail = &fail;
    w->trace = out;
    fprintf(out, "\n");
    if (setjmp(fail) == 0) {
        stories[i].tell(w);
    }
    w->trace = NULL;
    ew_fini(w);
}
