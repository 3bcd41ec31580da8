/* holdfast: what an operator asks of holdfastd; see holdfast(1). */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/commands.h"

#define TIMEOUT_MS_DEFAULT 5000
#define SECONDS_MAX 86400.0

/* Options that only some commands take. */
#define TAKES_JSON 1u
#define TAKES_WATCH 2u
#define TAKES_CHECK 4u
#define TAKES_DETACH 8u

static const struct command {
    const char *name;
    hf_cmd_fn *fn;
    int n_min, n_max; /* arguments */
    unsigned takes;
    const char *usage, *text;
} commands[] = {
    {"status", hf_cmd_status, 0, 0, TAKES_JSON | TAKES_WATCH, "[--watch] [--json]",
     "how this host is, what is wrong and what to do"},
    {"members", hf_cmd_members, 0, 0, TAKES_JSON, "[--json]", "the hosts of the cluster"},
    {"tree", hf_cmd_tree, 0, 1, TAKES_JSON, "[PREFIX] [--json]", "the services of all hosts"},
    {"publish", hf_cmd_publish, 2, 2, TAKES_DETACH, "NAME JSON [--detach SECONDS]",
     "publish a service while this runs, or for some time"},
    {"withdraw", hf_cmd_withdraw, 1, 1, 0, "NAME", "take a detached service out of the tree"},
    {"watch", hf_cmd_watch, 0, 1, TAKES_JSON, "[PREFIX] [--json]", "follow what changes"},
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
        fprintf(to, "  %-38s %s\n", head, commands[i].text);
    }
    fputs("\n  -s SOCKET   of holdfastd (default $HOLDFAST_SOCKET, or /run/holdfast/control.sock)\n"
          "  -t SECONDS  longest wait for an answer (default 5)\n"
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

static int usage_error(const char *fmt, const char *what)
{
    (void)hf_cmd_fail(0, fmt, what);
    fputs("try: holdfast --help\n", stderr);
    return HF_EXIT_USAGE;
}

/* 0: go on. Otherwise the program ends: with HF_EXIT_USAGE, or, after --help, with -1. */
static int parse_options(int argc, char **argv, struct hf_cmd_opt *opt, unsigned *ret_given)
{
    static const struct option options[] = {{"socket", required_argument, NULL, 's'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"watch", no_argument, NULL, 'w'},
                                            {"check", no_argument, NULL, 'k'},
                                            {"detach", required_argument, NULL, 'd'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'V'},
                                            {NULL, 0, NULL, 0}};
    uint32_t timeout_ms = TIMEOUT_MS_DEFAULT;
    for (int c; (c = getopt_long(argc, argv, "s:t:h", options, NULL)) != -1;) {
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
        case 'd':
            *ret_given |= TAKES_DETACH;
            if (!parse_seconds(optarg, &opt->detach_ms)) {
                return usage_error("--detach: got %s, expected seconds, 0.001 to 86400", optarg);
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
    for (size_t i = 0; i < HF_ARRAY_LEN(commands); i++) {
        const struct command *c = &commands[i];
        int n = argc - optind;
        if (strcmp(c->name, name) != 0) {
            continue;
        }
        if (n < c->n_min || n > c->n_max || (given & ~c->takes)) {
            fprintf(stderr, "usage: holdfast %s%s%s\n", c->name, *c->usage ? " " : "", c->usage);
            return HF_EXIT_USAGE;
        }
        return c->fn(&opt, n, argv + optind);
    }
    return usage_error("no command \"%s\"", name);
}
