/* holdfast: what an operator asks of holdfastd; see holdfast(1). */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/commands.h"

#define TIMEOUT_MS_DEFAULT 5000
#define TIMEOUT_MS_SLOW 120000 /* for what waits for agents */
#define SECONDS_MAX 86400.0

/* Options that only some commands take. */
#define TAKES_JSON 1u
#define TAKES_WATCH 2u
#define TAKES_CHECK 4u
#define TAKES_DETACH 8u
#define TAKES_BRING 16u
#define TAKES_HOST 32u
#define TAKES_TO 64u
#define TAKES_YES 128u
#define TAKES_ROUNDS 512u
#define SLOW 256u /* not an option: its time limit is TIMEOUT_MS_SLOW */

static const struct command {
    const char *name;
    hf_cmd_fn *fn;
    int n_min, n_max; /* arguments */
    unsigned takes;
    const char *usage, *text;
} commands[] = {
    {"status", hf_cmd_status, 0, 0, TAKES_JSON | TAKES_WATCH, "[--watch] [--json]",
     "how this host is, what is wrong and what to do"},
    {"top", hf_cmd_top, 0, 0, TAKES_ROUNDS, "[-b] [-n ROUNDS] [-d SECONDS]",
     "the cluster in this terminal, live"},
    {"doctor", hf_cmd_doctor, 0, 1, TAKES_JSON, "[FILE] [--json]",
     "check this host, before and after it joins"},
    {"members", hf_cmd_members, 0, 0, TAKES_JSON, "[--json]", "the hosts of the cluster"},
    {"tree", hf_cmd_tree, 0, 1, TAKES_JSON, "[PREFIX] [--json]", "the services of all hosts"},
    {"publish", hf_cmd_publish, 2, 2, TAKES_DETACH, "NAME JSON [--detach SECONDS]",
     "publish a service while this runs, or for some time"},
    {"withdraw", hf_cmd_withdraw, 1, 1, 0, "NAME", "take a detached service out of the tree"},
    {"watch", hf_cmd_watch, 0, 1, TAKES_JSON, "[PREFIX] [--json]", "follow what changes"},
    {"group show", hf_cmd_group_show, 0, 1, TAKES_JSON, "[GROUP] [--json]",
     "this host's groups: who runs what, and why not"},
    {"group history", hf_cmd_group_history, 1, 1, TAKES_JSON, "GROUP [--json]",
     "what happened to a group"},
    {"group create", hf_cmd_group_create, 2, 2, SLOW, "GROUP FILE",
     "make a group with this host as its first member"},
    {"group join", hf_cmd_group_join, 1, 1, TAKES_BRING | SLOW, "GROUP [--bring FILE]",
     "make this host a member, with a copy of its own"},
    {"group leave", hf_cmd_group_leave, 1, 1, TAKES_HOST | SLOW, "GROUP [--host HOST]",
     "take this or another host out of the group"},
    {"group switch", hf_cmd_group_switch, 1, 1, TAKES_TO | SLOW, "GROUP [--to HOST|RESOURCE]",
     "move the primary in order"},
    {"group force", hf_cmd_group_force, 2, 2, TAKES_YES | SLOW, "GROUP RESOURCE --yes",
     "make a copy primary whatever its state: may lose data"},
    {"group pause", hf_cmd_group_pause, 1, 1, SLOW, "GROUP", "nothing is done by itself any more"},
    {"group resume", hf_cmd_group_resume, 1, 2, SLOW, "GROUP [RESOURCE]",
     "go on; with RESOURCE: it may be overwritten"},
    {"group confirm", hf_cmd_group_confirm, 2, 2, SLOW, "GROUP HOST",
     "I have seen that the host is off"},
    {"clients", hf_cmd_clients, 0, 0, TAKES_JSON, "[--json]",
     "holdfast-pg's clients, and which are protected"},
    {"drain", hf_cmd_drain, 0, 1, TAKES_JSON, "[SERVER] [--json]",
     "holdfast-pg's servers; with SERVER: move its sessions away"},
    {"undrain", hf_cmd_undrain, 1, 1, TAKES_JSON, "SERVER [--json]", "it takes sessions again"},
    {"sip status", hf_cmd_sip_status, 0, 0, TAKES_JSON, "[--json]",
     "the local holdfast-sip and its workers"},
    {"sip servers", hf_cmd_sip_servers, 0, 0, TAKES_JSON, "[--json]", "the cluster's SIP servers"},
    {"sip show", hf_cmd_sip_show, 1, 1, 0, "USER",
     "where a user belongs, bindings and subscriptions, as this server knows"},
    {"sip trace", hf_cmd_sip_trace, 1, 1, TAKES_JSON, "USER [--json]",
     "the messages of a user as they come and go"},
    {"sip plan", hf_cmd_sip_plan, 0, 0, 0, "", "what the leader would move, and why"},
    {"sip rebalance", hf_cmd_sip_rebalance, 0, 0, 0, "", "the leader is to do so now"},
    {"sip assign", hf_cmd_sip_assign, 2, 2, 0, "USER SERVER", "give a user another home"},
    {"sip pin", hf_cmd_sip_pin, 1, 1, 0, "USER", "leave a user where he is"},
    {"sip unpin", hf_cmd_sip_unpin, 1, 1, 0, "USER", "... no longer"},
    {"sip drain", hf_cmd_sip_drain, 0, 0, 0, "", "move this server's users to others"},
    {"sip undrain", hf_cmd_sip_undrain, 0, 0, 0, "", "it takes users again"},
    {"sip user", hf_cmd_sip_user, 2, 2, 0, "add|delete USER",
     "make a user (password on stdin), or delete one"},
    {"sip import", hf_cmd_sip_import, 1, 1, SLOW, "FILE", "read assignments from CSV"},
    {"sip export", hf_cmd_sip_export, 0, 0, SLOW, "", "write assignments as CSV"},
    {"trace", hf_cmd_trace, 0, 16, 0, "[SUBSYSTEM... | off]", "show what holdfastd does"},
    {"recorder", hf_cmd_recorder, 0, 0, 0, "", "the last log lines, of all levels"},
    {"keygen", hf_cmd_keygen, 0, 1, 0, "[FILE]", "make a cluster key"},
    {"config", hf_cmd_config, 0, 1, TAKES_CHECK, "[FILE] [--check]",
     "the configuration in force, or of a file; or check it"},
    {"reload", hf_cmd_reload, 0, 0, 0, "", "let holdfastd read its configuration again"},
    {"metrics", hf_cmd_metrics, 0, 0, 0, "", "counters, as Prometheus reads them"},
    {"version", hf_cmd_version, 0, 0, 0, "", "the version of this command"},
};

static void usage(FILE *to)
{
    fputs("usage: holdfast [-s SOCKET] [-t SECONDS] COMMAND ...\n\n", to);
    for (size_t i = 0; i < HF_ARRAY_LEN(commands); i++) {
        char head[64];
        snprintf(head, sizeof(head), "%s %s", commands[i].name, commands[i].usage);
        fprintf(to, "  %-42s %s\n", head, commands[i].text);
    }
    fputs(
        "\n  -s SOCKET   of holdfastd (default $HOLDFAST_SOCKET, or /run/holdfast/control.sock);\n"
        "              for clients, drain and undrain holdfast-pg's (default $HOLDFAST_PG_SOCKET,\n"
        "              or /run/holdfast-pg/.s.PGSQL.6432); for sip holdfast-sip's (default\n"
        "              $HOLDFAST_SIP_SOCKET, or /run/holdfast-sip/control.sock)\n"
        "  -t SECONDS  longest wait for an answer (default 5; for group 120)\n"
        "Exit codes: 0 done, 1 refused or failed, 2 usage, 3 nothing answers. See holdfast(1).\n",
        to);
}

/* Seconds with an optional fraction as ms, more than 0 and at most a day. */
static bool parse_seconds(const char *s, uint32_t *ret_ms)
{
    char *end;
    double v = strtod(s, &end);
    if (end == s || *end || !isfinite(v) || v < 0.001 || v > SECONDS_MAX) {
        return false;
    }
    *ret_ms = (uint32_t)(v * 1000);
    return true;
}

static bool parse_rounds(const char *s, uint32_t *ret_n)
{
    char *end;
    long v = strtol(s, &end, 10);
    if (end == s || *end || v < 1 || v > 1000000000) {
        return false;
    }
    *ret_n = (uint32_t)v;
    return true;
}

static int usage_error(const char *fmt, const char *what)
{
    (void)hf_cmd_fail(0, fmt, what);
    fputs("try: holdfast --help\n", stderr);
    return HF_EXIT_USAGE;
}

/* 0: go on. Otherwise the program ends: with HF_EXIT_USAGE, or, after --help, with -1. */
static int parse_options(int argc, char **argv, struct hf_cmd_opt *opt, unsigned *ret_given)
{
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'}, {"timeout", required_argument, NULL, 't'},
        {"json", no_argument, NULL, 'j'},         {"watch", no_argument, NULL, 'w'},
        {"check", no_argument, NULL, 'k'},        {"detach", required_argument, NULL, 'D'},
        {"bring", required_argument, NULL, 'B'},  {"host", required_argument, NULL, 'H'},
        {"to", required_argument, NULL, 'T'},     {"yes", no_argument, NULL, 'y'},
        {"batch", no_argument, NULL, 'b'},        {"rounds", required_argument, NULL, 'n'},
        {"delay", required_argument, NULL, 'd'},  {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},      {NULL, 0, NULL, 0}};
    uint32_t timeout_ms = 0;
    for (int c; (c = getopt_long(argc, argv, "s:t:bn:d:h", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            opt->socket = optarg;
            break;
        case 't':
            if (!parse_seconds(optarg, &timeout_ms)) {
                return usage_error("-t: got %s, expected seconds, 0.001 to 86400", optarg);
            }
            break;
        case 'j':
            opt->json = true;
            *ret_given |= TAKES_JSON;
            break;
        case 'w':
            opt->watch = true;
            *ret_given |= TAKES_WATCH;
            break;
        case 'k':
            opt->check = true;
            *ret_given |= TAKES_CHECK;
            break;
        case 'D':
            *ret_given |= TAKES_DETACH;
            if (!parse_seconds(optarg, &opt->detach_ms)) {
                return usage_error("--detach: got %s, expected seconds, 0.001 to 86400", optarg);
            }
            break;
        case 'B':
            opt->bring = optarg;
            *ret_given |= TAKES_BRING;
            break;
        case 'H':
            opt->host = optarg;
            *ret_given |= TAKES_HOST;
            break;
        case 'T':
            opt->to = optarg;
            *ret_given |= TAKES_TO;
            break;
        case 'y':
            opt->yes = true;
            *ret_given |= TAKES_YES;
            break;
        case 'b':
            opt->batch = true;
            *ret_given |= TAKES_ROUNDS;
            break;
        case 'n':
            *ret_given |= TAKES_ROUNDS;
            if (!parse_rounds(optarg, &opt->rounds)) {
                return usage_error("-n: got %s, expected 1 to 1000000000", optarg);
            }
            break;
        case 'd':
            *ret_given |= TAKES_ROUNDS;
            if (!parse_seconds(optarg, &opt->delay_ms)) {
                return usage_error("-d: got %s, expected seconds, 0.001 to 86400", optarg);
            }
            break;
        case 'h':
            usage(stdout);
            return -1;
        case 'V':
            (void)hf_cmd_version(opt, 0, NULL);
            return -1;
        default:
            fputs("try: holdfast --help\n", stderr);
            return HF_EXIT_USAGE;
        }
    }
    opt->timeout_ms = (int)timeout_ms;
    return 0;
}

static int run(const struct command *c, struct hf_cmd_opt *opt, unsigned given, int n, char **arg)
{
    if (n < c->n_min || n > c->n_max || (given & ~c->takes)) {
        fprintf(stderr, "usage: holdfast %s%s%s\n", c->name, *c->usage ? " " : "", c->usage);
        return HF_EXIT_USAGE;
    }
    if (opt->timeout_ms == 0) {
        opt->timeout_ms = c->takes & SLOW ? TIMEOUT_MS_SLOW : TIMEOUT_MS_DEFAULT;
    }
    return c->fn(opt, n, arg);
}

int main(int argc, char **argv)
{
    struct hf_cmd_opt opt = {0};
    unsigned given = 0;
    int rc = parse_options(argc, argv, &opt, &given);
    if (rc) {
        return rc < 0 ? HF_EXIT_OK : rc;
    }
    if (optind == argc) {
        usage(stderr);
        return HF_EXIT_USAGE;
    }
    const char *name = argv[optind++];
    char words[64];
    if ((strcmp(name, "group") == 0 || strcmp(name, "sip") == 0) && optind < argc) {
        snprintf(words, sizeof(words), "%s %s", name, argv[optind++]);
        name = words;
    }
    for (size_t i = 0; i < HF_ARRAY_LEN(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return run(&commands[i], &opt, given, argc - optind, argv + optind);
        }
    }
    return usage_error("no command \"%s\"", name);
}
