/* holdfast doctor: Corosync's state, votes and times, from what its own programs print. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/doctor.h"

#define CHECK "corosync"
#define KNET_LATENCY ".latency_ave"
/* The token must outlast what already happens here without any fault: as many times. */
#define TOKEN_LEAST 2
#define TOKEN_COMFORT 5
#define TOKEN_NEEDS_REALTIME_MS 1000

/* ---- what the programs print ---- */

/* The number of a line "KEY (u32) = VALUE" of corosync-cmapctl; -1: there is none. */
static int64_t map_number(const char *text, const char *key)
{
    size_t n = strlen(key);
    for (const char *s = text; s && *s; s = strchr(s, '\n'), s = s ? s + 1 : NULL) {
        const char *value;
        if (strncmp(s, key, n) == 0 && strncmp(s + n, " (", 2) == 0 &&
            (value = strstr(s, ") = ")) != NULL && value < s + strcspn(s, "\n")) {
            return strtoll(value + 4, NULL, 10);
        }
    }
    return -1;
}

/* How many nodes the list has. */
static unsigned nodes(const char *text)
{
    unsigned n = 0;
    for (const char *s = text; (s = strstr(s, "nodelist.node.")) != NULL; s++) {
        const char *key = s + strcspn(s, " \n");
        n += key - s > 7 && strncmp(key - 7, ".nodeid", 7) == 0;
    }
    return n;
}

/* The largest mean latency of a link that is up, in microseconds; -1: none is known. */
static int64_t latency_us(const char *text)
{
    int64_t most = -1;
    for (const char *s = text; s && (s = strstr(s, KNET_LATENCY " (")) != NULL; s++) {
        const char *value = strstr(s, ") = ");
        int64_t v = value && value < s + strcspn(s, "\n") ? strtoll(value + 4, NULL, 10) : -1;
        most = v > most ? v : most;
    }
    return most;
}

/* The value of a line "Name:    VALUE" of corosync-quorumtool; empty: there is none. */
static struct hf_slice quorum_value(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *s = text; s && *s; s = strchr(s, '\n'), s = s ? s + 1 : NULL) {
        if (strncmp(s, name, n) == 0 && s[n] == ':') {
            const char *v = s + n + 1 + strspn(s + n + 1, " \t");
            return hf_slice(v, strcspn(v, "\n"));
        }
    }
    return hf_slice(NULL, 0);
}

/* ---- checks ---- */

static void check_quorum(const struct hf_doctor_facts *f, json_t *out)
{
    if (!f->corosync.quorum_text) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, CHECK, "quorum", "", "", "%s",
                      f->corosync.quorum.text);
        return;
    }
    struct hf_slice quorate = quorum_value(f->corosync.quorum_text, "Quorate");
    struct hf_slice total = quorum_value(f->corosync.quorum_text, "Total votes");
    struct hf_slice expected = quorum_value(f->corosync.quorum_text, "Expected votes");
    if (hf_slice_eq(quorate, hf_slice_str("Yes"))) {
        hf_doctor_add(out, HF_DOCTOR_OK, CHECK, "quorum", "", "", "%.*s of %.*s votes, quorate",
                      HF_SLICE_FMT(total), HF_SLICE_FMT(expected));
    } else if (quorate.n == 0) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, CHECK, "quorum", "", "",
                      "corosync-quorumtool does not say whether there is a quorum");
    } else {
        hf_doctor_add(out, HF_DOCTOR_FAULT, CHECK, "quorum", "more than half of the votes",
                      "bring the other hosts back, or see why Corosync does not reach them: "
                      "corosync-cfgtool -s",
                      "%.*s of %.*s votes: no quorum, no group runs here", HF_SLICE_FMT(total),
                      HF_SLICE_FMT(expected));
    }
}

static void check_votes(const struct hf_doctor_facts *f, json_t *out)
{
    const char *map = f->corosync.map_text;
    unsigned n = nodes(map);
    bool two_node = map_number(map, "quorum.two_node") == 1;
    bool device = strstr(map, "quorum.device.model ") != NULL;
    int64_t votes = map_number(map, "quorum.expected_votes");
    if (two_node && n != 2) {
        hf_doctor_add(out, HF_DOCTOR_FAULT, CHECK, "votes", "two_node only with two nodes",
                      "remove two_node from quorum { } of corosync.conf on all hosts",
                      "two_node: 1 with %u nodes: a part of the cluster may go on by itself", n);
    } else if (n > 0 && votes >= 0 && votes < n && !device) {
        hf_doctor_add(out, HF_DOCTOR_FAULT, CHECK, "votes", "a vote of each node is expected",
                      "remove expected_votes from corosync.conf: the nodelist tells it",
                      "expected_votes: %lld with %u nodes: two halves could both be quorate",
                      (long long)votes, n);
    } else if (n == 2 && !two_node && !device) {
        hf_doctor_add(out, HF_DOCTOR_WARNING, CHECK, "votes", "two_node, or a third vote",
                      "set two_node: 1 in quorum { } (it needs fencing), or add a quorum device "
                      "(corosync-qdevice) or a third host",
                      "two nodes: when one is lost the other has no quorum");
    } else {
        hf_doctor_add(out, HF_DOCTOR_OK, CHECK, "votes", "", "", "%u nodes%s%s", n,
                      two_node ? ", two_node" : "", device ? ", with a quorum device" : "");
    }
}

static void check_token(const struct hf_doctor_facts *f, int64_t token, json_t *out)
{
    char expected[128];
    int64_t knet = f->corosync.stats_text ? latency_us(f->corosync.stats_text) : -1;
    if (knet < 0 || f->late_us < 0) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, CHECK, "token", "", "",
                      "%lld ms; %s, so nothing to compare it with", (long long)token,
                      knet < 0 ? "Corosync has not measured a link" : "no delay was measured");
        return;
    }
    int64_t needs_us = 2 * knet + f->late_us; /* there and back, and until it gets to run */
    bool fault = token * 1000 < TOKEN_LEAST * needs_us;
    bool tight = token * 1000 < TOKEN_COMFORT * needs_us;
    snprintf(expected, sizeof(expected), "at least %lld ms here, rather %lld",
             (long long)(TOKEN_LEAST * needs_us / 1000 + 1),
             (long long)(TOKEN_COMFORT * needs_us / 1000 + 1));
    hf_doctor_add(out,
                  fault   ? HF_DOCTOR_FAULT
                  : tight ? HF_DOCTOR_WARNING
                          : HF_DOCTOR_OK,
                  CHECK, "token", fault || tight ? expected : "",
                  fault || tight
                      ? "raise totem.token in corosync.conf on all hosts, or find what delays "
                        "processes here: otherwise hosts are taken for dead that are not"
                      : "",
                  "%lld ms; measured: knet %.1f ms one way, a process waits up to %.1f ms",
                  (long long)token, (double)knet / 1000, (double)f->late_us / 1000);
}

static void check_times(const struct hf_doctor_facts *f, json_t *out)
{
    const char *map = f->corosync.map_text;
    int64_t token = map_number(map, "runtime.config.totem.token");
    int64_t consensus = map_number(map, "runtime.config.totem.consensus");
    if (token < 0 || consensus < 0) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, CHECK, "token", "", "",
                      "corosync-cmapctl does not tell token and consensus");
        return;
    }
    check_token(f, token, out);
    if (consensus * 10 < token * 12) {
        hf_doctor_add(out, HF_DOCTOR_WARNING, CHECK, "consensus", "1.2 times the token",
                      "remove totem.consensus from corosync.conf: its default is right",
                      "%lld ms, token %lld ms: views may change more often than they must",
                      (long long)consensus, (long long)token);
    } else {
        hf_doctor_add(out, HF_DOCTOR_OK, CHECK, "consensus", "", "",
                      "%lld ms: a dead host is gone from the view after %lld ms",
                      (long long)consensus, (long long)token + (long long)consensus);
    }
    const struct hf_doctor_process *p = &f->process[HF_DOCTOR_COROSYNC];
    if (p->pid == 0 || p->policy < 0) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, CHECK, "scheduling", "", "",
                      "its process is not seen from here");
    } else if (p->policy != SCHED_RR && p->policy != SCHED_FIFO &&
               token < TOKEN_NEEDS_REALTIME_MS) {
        hf_doctor_add(out, HF_DOCTOR_WARNING, CHECK, "scheduling", "real-time (SCHED_RR)",
                      "let it have real-time priority (system.sched_rr, rights of its unit or "
                      "container), or raise totem.token to 1000",
                      "not real-time, with a token of %lld ms", (long long)token);
    } else {
        hf_doctor_add(out, HF_DOCTOR_OK, CHECK, "scheduling", "", "", "%s",
                      p->policy == SCHED_RR || p->policy == SCHED_FIFO
                          ? "real-time"
                          : "not real-time; the token allows it");
    }
}

void hf_doctor_check_corosync(const struct hf_doctor_facts *f, json_t *out)
{
    if (!f->configured) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, CHECK, "engine", "", "",
                      "which engine is used is not known without a valid configuration");
        return;
    }
    if (!f->corosync_engine) {
        hf_doctor_add(out, HF_DOCTOR_OK, CHECK, "engine", "", "",
                      "embedded: Corosync is not used, groups are of this machine only");
        return;
    }
    if (!f->corosync.map.tried) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, CHECK, "corosync", "", "", "%s",
                      f->corosync.map.text);
        return;
    }
    if (f->corosync.map.rc || !f->corosync.map_text) {
        hf_doctor_add(out, HF_DOCTOR_FAULT, CHECK, "corosync", "a running Corosync",
                      "systemctl start corosync; if it ends again: journalctl -u corosync",
                      "does not answer: %s", f->corosync.map.text);
        return;
    }
    hf_doctor_add(out, HF_DOCTOR_OK, CHECK, "corosync", "", "", "running");
    check_quorum(f, out);
    check_votes(f, out);
    check_times(f, out);
}
