/* Documented scenarios of groups as short readable stories, compared with their golden traces. */
#include <string.h>

#include "sim/group/chaos.h"
#include "sim/group/world.h"

#define SEED 7
#define MIRRORED (HF_RESOURCE_PROMOTABLE | HF_RESOURCE_MIRROR | HF_RESOURCE_OPEN)

enum { ALPHA, BETA, GAMMA, DELTA, EPSILON };

static struct gs_world world;

struct story {
    struct gs_world *w;
    FILE *out;
};

/* ---- what is given ---- */

/* Hosts that reach these copies (bits), copies that are mirrored, and an address. */
static void hosts(struct story *s, uint32_t n, uint32_t copies, const uint16_t *reach)
{
    static const char *const names[] = {"copy1", "copy2", "copy3"};
    struct gs_world *w = s->w;
    gs_world_init(w, n, n % 2 == 0, SEED, true);
    for (uint32_t c = 0; c < copies; c++) {
        (void)gs_define(w, names[c], HF_RESOURCE_COPY, MIRRORED);
    }
    (void)gs_define(w, "address", HF_RESOURCE_ATTACHED, 0);
    w->n_created = w->n_defs;
    for (uint32_t i = 0; i < n; i++) {
        w->host[i].reach = reach[i];
        for (uint32_t k = 0; k < i; k++) {
            w->shared |= reach[i] & reach[k];
        }
    }
    w->began = w->net.now;
    fprintf(s->out, "%u hosts; ", n);
    for (uint32_t i = 0; i < n; i++) {
        fprintf(s->out, "%s%s:", i ? ", " : "", w->host[i].name);
        for (uint32_t c = 0; c < copies; c++) {
            fprintf(s->out, "%s%s", reach[i] >> c & 1 ? " " : "",
                    reach[i] >> c & 1 ? names[c] : "");
        }
        fprintf(s->out, "%s", reach[i] ? "" : " nothing");
    }
    fprintf(s->out, "%s\n\n", n % 2 ? "" : "; a witness votes");
}

static void run_ms(struct story *s, uint32_t ms)
{
    gs_run(s->w, s->w->net.now + HF_MS(ms));
}

/* The story begins here. */
static void begin(struct story *s)
{
    const struct gs_host *h = &s->w->host[ALPHA];
    if (h->g && hf_group_state(h->g)) { /* what is known already */
        s->w->told = *hf_group_state(h->g);
        s->w->told_version = s->w->told.version;
    }
    s->w->began = s->w->net.now;
    s->w->story = s->out;
}

/* The first n hosts are members and all copies in sync; then the story begins. */
static void given(struct story *s, uint32_t members)
{
    for (uint32_t i = 0; i < s->w->n; i++) {
        gs_power_on(s->w, i);
    }
    run_ms(s, 1000);
    (void)gs_create(s->w, 0);
    run_ms(s, 4000);
    for (uint32_t i = 1; i < members; i++) {
        gs_join(s->w, i, -1);
        run_ms(s, 2000);
    }
    run_ms(s, 15000);
    begin(s);
}

/* ---- joining (B6-B10) ---- */

static void create(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    gs_power_on(s->w, ALPHA);
    gs_power_on(s->w, BETA);
    run_ms(s, 1000);
    begin(s);
    (void)gs_create(s->w, ALPHA);
    run_ms(s, 3000);
}

static void join_primary(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 2);
    gs_join(s->w, GAMMA, -1);
    run_ms(s, 3000);
}

static void join_backup_host(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 1);
    gs_join(s->w, BETA, -1);
    run_ms(s, 8000);
}

static void join_backup(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 2});
    given(s, 2);
    gs_join(s->w, GAMMA, -1);
    run_ms(s, 3000);
}

static void join_several(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 3});
    given(s, 2);
    gs_join(s->w, GAMMA, -1);
    run_ms(s, 3000);
}

static void join_none(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 0});
    given(s, 2);
    gs_join(s->w, GAMMA, -1);
    run_ms(s, 3000);
    GS_TELL(s->w, "-- gamma gets access to copy2");
    s->w->host[GAMMA].reach = 2;
    run_ms(s, 20000);
}

static void join_brings(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 0});
    uint32_t d = gs_define(s->w, "copy3", HF_RESOURCE_COPY, MIRRORED);
    s->w->host[GAMMA].reach = (uint16_t)(1u << d);
    given(s, 2);
    gs_join(s->w, GAMMA, (int)d);
    run_ms(s, 8000);
}

static void join_undone(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 2);
    s->w->faults.config_fails = 1000;
    GS_TELL(s->w, "-- nobody can give configurations");
    gs_join(s->w, GAMMA, -1);
    run_ms(s, 90000);
}

static void joiner_dies(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 2);
    gs_join(s->w, GAMMA, -1);
    run_ms(s, 10);
    gs_power_off(s->w, GAMMA);
    run_ms(s, 5000);
}

static void config_host_dies(struct story *s)
{
    hosts(s, 5, 2, (uint16_t[]){1, 2, 1, 2, 0});
    given(s, 3);
    gs_join(s->w, DELTA, -1);
    while (!s->w->host[DELTA].job[0].used || s->w->host[DELTA].job[0].kind != GS_CONFIG) {
        run_ms(s, 1);
    }
    gs_power_off(s->w, BETA);
    run_ms(s, 70000);
}

static void primary_dies_in_join(struct story *s)
{
    hosts(s, 5, 2, (uint16_t[]){1, 2, 1, 2, 0});
    given(s, 3);
    gs_join(s->w, DELTA, -1);
    run_ms(s, 10);
    gs_power_off(s->w, ALPHA);
    run_ms(s, 10000);
}

/* ---- failover (B12-B14) ---- */

static void failover_peer(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    gs_power_off(s->w, ALPHA);
    run_ms(s, 8000);
}

static void failover_backup(struct story *s)
{
    hosts(s, 3, 3, (uint16_t[]){1, 2, 4});
    given(s, 3);
    gs_power_off(s->w, ALPHA);
    run_ms(s, 10000);
}

static void resource_fails(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    s->w->restart_always = true;
    given(s, 3);
    gs_break_resource(s->w, ALPHA, 0);
    run_ms(s, 4000);
    gs_break_resource(s->w, ALPHA, 0);
    run_ms(s, 30000);
}

static void mirror_goes_on(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    gs_break_resource(s->w, ALPHA, 0);
    run_ms(s, 4000);
    gs_break_resource(s->w, BETA, 1);
    run_ms(s, 4000);
}

static void backup_fails_peer(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 2});
    given(s, 3);
    gs_power_off(s->w, BETA);
    run_ms(s, 8000);
}

static void backup_fails_alone(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    gs_power_off(s->w, BETA);
    run_ms(s, 5000);
    gs_power_on(s->w, BETA);
    run_ms(s, 8000);
}

static void two_die(struct story *s)
{
    hosts(s, 5, 2, (uint16_t[]){1, 2, 1, 2, 0});
    given(s, 5);
    gs_power_off(s->w, ALPHA);
    gs_power_off(s->w, BETA);
    run_ms(s, 12000);
}

static void daemon_dies(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    gs_daemon_kill(s->w, ALPHA);
    run_ms(s, 1000);
    gs_daemon_start(s->w, ALPHA);
    run_ms(s, 5000);
}

static void daemon_stays_away(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    gs_daemon_kill(s->w, ALPHA);
    run_ms(s, 12000);
}

static void fence_fails(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    GS_TELL(s->w, "-- the fence device of alpha does not work");
    s->w->fence_broken[ALPHA] = true;
    s->w->side[ALPHA] = 1;
    GS_TELL(s->w, "-- alpha is cut off");
    gs_sides(s->w);
    run_ms(s, 6000);
    GS_TELL(s->w, "-- the operator switches alpha off by hand");
    gs_power_off(s->w, ALPHA);
    gs_request(s->w, BETA, HF_GREQUEST_CONFIRM, "alpha", NULL);
    run_ms(s, 8000);
}

/* ---- operators (B15, B16) ---- */

static void switchover(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    gs_request(s->w, ALPHA, HF_GREQUEST_SWITCH, NULL, "copy2");
    run_ms(s, 8000);
}

static void switch_target_dies(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    gs_request(s->w, ALPHA, HF_GREQUEST_SWITCH, NULL, "copy2");
    run_ms(s, 50);
    gs_power_off(s->w, BETA);
    run_ms(s, 8000);
}

static void switch_primary_dies(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 4});
    given(s, 3);
    gs_request(s->w, BETA, HF_GREQUEST_SWITCH, NULL, "copy2");
    run_ms(s, 50);
    gs_power_off(s->w, ALPHA);
    run_ms(s, 8000);
}

static void switch_witness_dies(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 4});
    given(s, 3);
    gs_request(s->w, ALPHA, HF_GREQUEST_SWITCH, NULL, "copy2");
    run_ms(s, 150);
    gs_power_off(s->w, GAMMA);
    run_ms(s, 8000);
}

static void force(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 0});
    given(s, 3);
    gs_power_off(s->w, BETA);
    run_ms(s, 4000);
    gs_power_off(s->w, ALPHA);
    run_ms(s, 500);
    gs_power_on(s->w, BETA);
    run_ms(s, 30000);
    gs_request(s->w, BETA, HF_GREQUEST_FORCE, NULL, "copy2");
    run_ms(s, 8000);
}

static void diverged(struct story *s)
{
    force(s);
    gs_power_on(s->w, ALPHA);
    run_ms(s, 8000);
    gs_request(s->w, BETA, HF_GREQUEST_RESUME, NULL, "copy1");
    run_ms(s, 8000);
}

static void leave(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    gs_request(s->w, BETA, HF_GREQUEST_LEAVE, "alpha", NULL);
    run_ms(s, 8000);
}

static void stop(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    gs_daemon_stop(s->w, ALPHA);
    run_ms(s, 8000);
}

/* ---- rejoining (B17, B18) ---- */

static void rejoin_member(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 0});
    given(s, 3);
    gs_power_off(s->w, ALPHA);
    run_ms(s, 8000);
    gs_power_on(s->w, ALPHA);
    run_ms(s, 10000);
}

static void rejoin_group(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 0});
    given(s, 3);
    gs_power_off(s->w, BETA);
    run_ms(s, 4000);
    gs_power_off(s->w, ALPHA);
    run_ms(s, 500);
    gs_power_on(s->w, BETA);
    run_ms(s, 10000);
    gs_power_on(s->w, ALPHA);
    run_ms(s, 10000);
}

static void return_after_two(struct story *s)
{
    hosts(s, 5, 3, (uint16_t[]){1, 2, 4, 0, 0});
    given(s, 5);
    gs_power_off(s->w, ALPHA);
    run_ms(s, 12000);
    gs_power_off(s->w, BETA);
    run_ms(s, 12000);
    gs_power_on(s->w, ALPHA);
    run_ms(s, 12000);
}

static void partition(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    GS_TELL(s->w, "-- alpha is cut off; so is its fence device");
    s->w->side[ALPHA] = 1;
    s->w->fence_broken[ALPHA] = true;
    gs_sides(s->w);
    run_ms(s, 4000);
    GS_TELL(s->w, "-- the cable is plugged in again");
    s->w->side[ALPHA] = 0;
    gs_sides(s->w);
    run_ms(s, 10000);
}

static void staggered_return(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    GS_TELL(s->w, "-- nobody hears anybody");
    for (uint32_t i = 0; i < 3; i++) {
        s->w->side[i] = (uint8_t)i;
    }
    gs_sides(s->w);
    run_ms(s, 2000);
    GS_TELL(s->w, "-- alpha and gamma hear each other");
    s->w->side[GAMMA] = s->w->side[ALPHA];
    gs_sides(s->w);
    run_ms(s, 2000);
    GS_TELL(s->w, "-- beta, too, which has what alpha had to let go of");
    s->w->side[BETA] = s->w->side[ALPHA];
    gs_sides(s->w);
    run_ms(s, 6000);
}

static void frozen(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    gs_pause(s->w, ALPHA, GS_FREEZE);
    run_ms(s, 8000);
}

static void paused_shortly(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    s->w->fence_broken[ALPHA] = true;
    GS_TELL(s->w, "-- the fence device of alpha does not work");
    gs_pause(s->w, ALPHA, GS_PAUSE);
    run_ms(s, 1500);
    gs_resume(s->w, ALPHA);
    run_ms(s, 8000);
}

static void cold_start(struct story *s)
{
    hosts(s, 3, 2, (uint16_t[]){1, 2, 1});
    given(s, 3);
    for (uint32_t i = 0; i < 3; i++) {
        gs_power_off(s->w, i);
    }
    run_ms(s, 1000);
    gs_power_on(s->w, GAMMA);
    run_ms(s, 2000);
    gs_power_on(s->w, BETA);
    run_ms(s, 2000);
    gs_power_on(s->w, ALPHA);
    run_ms(s, 10000);
}

static const struct {
    const char *name, *title;
    void (*tell)(struct story *s);
} stories[] = {
    {"create", "A group is made: its first copy may be initialised.", create},
    {"join-primary", "A joiner reaches the primary copy: into its subgroup (B6).", join_primary},
    {"join-backup-host",
     "The first at a backup copy becomes its host, and mirroring starts (B5, B7).",
     join_backup_host},
    {"join-backup", "A later one at a backup copy disturbs nothing (B7).", join_backup},
    {"join-several", "A joiner reaches several copies: the first in priority order (B8).",
     join_several},
    {"join-none", "A joiner reaches nothing: ineligible, until its access comes (B8).", join_none},
    {"join-brings", "A joiner brings a copy of its own: at the end of the order (B9).",
     join_brings},
    {"join-undone", "An error during a join undoes it whole, and the joiner is told (B10).",
     join_undone},
    {"joiner-dies", "A joiner dies half-way (B10).", joiner_dies},
    {"config-host-dies", "The host that gives the configuration dies during a join.",
     config_host_dies},
    {"primary-dies-in-join", "The primary host dies during a join.", primary_dies_in_join},
    {"failover-peer", "The primary host dies: a peer takes over the same copy (B12).",
     failover_peer},
    {"failover-backup", "The primary host dies without a peer: the next copy in order (B12).",
     failover_backup},
    {"resource-fails",
     "The primary resource fails twice, its host is healthy, restart = always: the next copy "
     "(B13).",
     resource_fails},
    {"mirror-goes-on",
     "The primary resource fails: its mirror goes on, and back when that fails, too.",
     mirror_goes_on},
    {"backup-fails-peer", "A backup host dies: a peer takes over, mirroring is re-aimed (B14).",
     backup_fails_peer},
    {"backup-fails-alone", "A backup host dies without a peer: out of sync, and back (B14).",
     backup_fails_alone},
    {"two-die", "Primary host and backup host die at once.", two_die},
    {"daemon-dies", "The daemon of the primary host dies and comes back: nothing moves (G6).",
     daemon_dies},
    {"daemon-stays-away", "The daemon of the primary host does not come back (G6).",
     daemon_stays_away},
    {"fence-fails", "Nothing starts before the old primary host is off for certain (B20, G1).",
     fence_fails},
    {"switchover", "Planned: the old primary copy becomes the last backup (B15).", switchover},
    {"switch-target-dies", "The host of a planned switch dies while it prepares: nothing moves.",
     switch_target_dies},
    {"switch-primary-dies", "The primary host dies while a switch is prepared.",
     switch_primary_dies},
    {"switch-witness-dies", "A third member dies while the old primary lets go: the epoch stays.",
     switch_witness_dies},
    {"force", "A copy that is out of sync is promoted only by an operator who names it (B16).",
     force},
    {"diverged", "What has data that the forced primary lacks waits for the operator (B18).",
     diverged},
    {"leave", "The primary host leaves the group.", leave},
    {"stop", "The daemon of the primary host is stopped in order.", stop},
    {"rejoin-member", "The old primary returns after a failover: member overwrite (B17, B18).",
     rejoin_member},
    {"rejoin-group",
     "The members' copy is not valid, the one that returns is: group overwrite (B17).",
     rejoin_group},
    {"return-after-two", "The old primary returns after two failovers (B18).", return_after_two},
    {"partition", "The primary host is cut off, can't be fenced, and comes back.", partition},
    {"staggered-return",
     "All are cut from each other; the mirror's host is heard last, and goes on.",
     staggered_return},
    {"frozen", "A frozen primary host is fenced, and never thawed (G6, I10).", frozen},
    {"paused", "A primary host that was paused finds out whether it was left behind (I10).",
     paused_shortly},
    {"cold-start", "All lose power, and come back in another order (G5).", cold_start},
};

size_t gs_n_stories(void)
{
    return HF_ARRAY_LEN(stories);
}

struct sim_story gs_story(size_t i)
{
    return (struct sim_story){stories[i].name, stories[i].title};
}

void gs_tell(size_t i, FILE *out)
{
    struct story s = {.w = &world, .out = out};
    jmp_buf fail;
    if (setjmp(fail) == 0) {
        world.fail = &fail; /* cleared by init: a failure before it would be a bug of the story */
        stories[i].tell(&s);
    }
    gs_world_fini(s.w);
}
