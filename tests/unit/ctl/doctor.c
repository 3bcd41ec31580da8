/* ctl/doctor: of a healthy host no fault; each bad case is found, with what to do. */
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "ctl/doctor.h"
#include "ctl/table.h"
#include "support/test.h"

static const char map[] = "nodelist.node.0.name (str) = alpha\n"
                          "nodelist.node.0.nodeid (u32) = 1\n"
                          "nodelist.node.1.nodeid (u32) = 2\n"
                          "nodelist.node.2.nodeid (u32) = 3\n"
                          "quorum.expected_votes (u32) = 3\n"
                          "runtime.config.totem.consensus (u32) = 1200\n"
                          "runtime.config.totem.token (u32) = 1000\n"
                          "runtime.config.totem.token_retransmit (u32) = 238\n"
                          "runtime.votequorum.two_node (u8) = 0\n"
                          "totem.token (u32) = 1000\n";
static const char two_nodes[] = "nodelist.node.0.nodeid (u32) = 1\n"
                                "nodelist.node.1.nodeid (u32) = 2\n"
                                "runtime.config.totem.consensus (u32) = 1200\n"
                                "runtime.config.totem.token (u32) = 1000\n";
static const char stats[] = "stats.knet.node1.link0.latency_ave (u32) = 139\n"
                            "stats.knet.node1.link0.latency_max (u32) = 99999999\n"
                            "stats.knet.node3.link0.latency_ave (u32) = 1500\n";
static const char quorate[] = "Quorum information\n------------------\n"
                              "Quorate:          Yes\n\n"
                              "Expected votes:   3\nHighest expected: 3\nTotal votes:      3\n";
static const char no_quorum[] = "Quorate:          No\nExpected votes:   3\nTotal votes:      1\n";

static const char status[] =
    "{\"host\":\"alpha\",\"state\":\"run\",\"cluster_key_id\":\"0000abcd\",\"transport\":"
    "\"multicast\",\"problems\":[],\"groups\":[{\"name\":\"orders\",\"resources\":[]}],"
    "\"managers\":[{\"name\":\"/manager/pgvip\",\"owner\":\"alpha\"}]}";
#define HEARD(host, state, ms)                                                                     \
    "{\"host\":\"" host "\",\"state\":\"" state "\",\"heard_ms\":" ms ",\"period_ms\":1000}"
static const char of_alpha[] = "[" HEARD("alpha", "self", "0") "," HEARD(
    "beta", "alive", "20") "," HEARD("gamma", "alive", "900") "]";
static const char of_beta[] = "[" HEARD("alpha", "alive", "5") "," HEARD(
    "beta", "self", "0") "," HEARD("gamma", "alive", "5") "]";
static const char of_gamma[] = "[" HEARD("alpha", "alive", "5") "," HEARD(
    "beta", "alive", "5") "," HEARD("gamma", "self", "0") "]";

static json_t *parse(const char *text)
{
    json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(j);
    return j;
}

static void set(struct hf_doctor_try *t, bool tried, int rc, const char *text)
{
    t->tried = tried;
    t->rc = rc;
    snprintf(t->text, sizeof(t->text), "%s", text);
}

static void replace(char **text, const char *by)
{
    free(*text);
    *text = by ? strdup(by) : NULL;
}

static void replace_json(json_t **json, const char *by)
{
    json_decref(*json);
    *json = by ? parse(by) : NULL;
}

static void file(struct hf_doctor_file *f, const char *path)
{
    snprintf(f->path, sizeof(f->path), "%s", path);
    f->state = HF_DOCTOR_FILE_THERE;
    set(&f->check, true, 0, "");
}

static void peer(struct hf_doctor_facts *f, const char *host, const char *members)
{
    struct hf_doctor_peer *p = &f->peer[f->n_peers++];
    snprintf(p->host, sizeof(p->host), "%s", host);
    set(&p->ask, true, 0, "");
    p->round_trip_ms = 4;
    p->members = parse(members);
}

static void agent(struct hf_doctor_agent *a, const char *name, const char *what, const char *hosts)
{
    snprintf(a->name, sizeof(a->name), "%s", name);
    snprintf(a->agent, sizeof(a->agent), "%s", what);
    set(&a->action, true, 0, "");
    a->hosts = hosts ? parse(hosts) : NULL;
}

static void processes(struct hf_doctor_facts *f)
{
    static const char *const names[] = {[HF_DOCTOR_HOSTD] = "holdfastd",
                                        [HF_DOCTOR_PG] = "holdfast-pg",
                                        [HF_DOCTOR_SIP] = "holdfast-sip",
                                        [HF_DOCTOR_COROSYNC] = "corosync"};
    for (int i = 0; i < HF_DOCTOR_PROGRAMS; i++) {
        f->process[i] = (struct hf_doctor_process){.program = names[i],
                                                   .pid = 100 + i,
                                                   .files_max = 65536,
                                                   .caps_known = true,
                                                   .caps = 1ull << CAP_NET_ADMIN |
                                                           1ull << CAP_NET_RAW | 1ull << CAP_BPF,
                                                   .policy = SCHED_RR};
    }
}

/* A host where all is well, in a cluster of three; hf_doctor_fini() and free(). */
static struct hf_doctor_facts *healthy(void)
{
    struct hf_doctor_facts *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    snprintf(f->host, sizeof(f->host), "alpha");
    f->root = f->configured = f->corosync_engine = true;
    file(&f->hostd, "/etc/holdfast/holdfast.conf");
    file(&f->pg, "/etc/holdfast/holdfast-pg.conf");
    file(&f->sip, "/etc/holdfast/holdfast-sip.conf");
    snprintf(f->key.path, sizeof(f->key.path), "/key");
    set(&f->key.load, true, 0, "");
    f->key.id = 0xabcd;
    f->watchdog.configured = true;
    snprintf(f->watchdog.path, sizeof(f->watchdog.path), "/dev/watchdog");
    set(&f->watchdog.look, true, 0, "a device");
    set(&f->daemon, true, 0, "");
    f->status = parse(status);
    f->members = parse(of_alpha);
    peer(f, "beta", of_beta);
    peer(f, "gamma", of_gamma);
    f->clock.known = f->clock.synchronised = true;
    set(&f->corosync.map, true, 0, "");
    set(&f->corosync.stats, true, 0, "");
    set(&f->corosync.quorum, true, 0, "");
    replace(&f->corosync.map_text, map);
    replace(&f->corosync.stats_text, stats);
    replace(&f->corosync.quorum_text, quorate);
    f->late_us = 3000;
    agent(&f->fence[f->n_fences++], "ipmi", "fence_ipmilan", "[\"beta\",\"gamma\"]");
    set(&f->resources, true, 0, "");
    agent(&f->resource[f->n_resources++], "orders/copy1", "ocf:holdfast:postgresql", NULL);
    set(&f->egress, true, 0, "");
    set(&f->repair, true, 0, "");
    processes(f);
    for (size_t i = 0; i < HF_DOCTOR_SYSCTLS; i++) {
        f->sysctl[i] = 1;
    }
    return f;
}

static void release(struct hf_doctor_facts *f)
{
    hf_doctor_fini(f);
    free(f);
}

/* Judge; the facts are released. The finding about this object is so, says what was found, and,
 * unless it is well or cannot be known, what to do. */
static void judged(struct hf_doctor_facts *f, const char *verdict, const char *check,
                   const char *object, const char *found)
{
    json_t *findings = hf_doctor_judge(f);
    const json_t *e;
    size_t i, n = 0;
    assert_non_null(findings);
    json_array_foreach(findings, i, e)
    {
        if (strcmp(hf_json_text(e, "check"), check) == 0 &&
            strcmp(hf_json_text(e, "object"), object) == 0 &&
            strcmp(hf_json_text(e, "verdict"), verdict) == 0 &&
            strstr(hf_json_text(e, "found"), found)) {
            bool bad = strcmp(verdict, "fault") == 0 || strcmp(verdict, "warning") == 0;
            assert_true(!bad || *hf_json_text(e, "remedy"));
            n++;
        }
    }
    if (n != 1) {
        json_dumpf(findings, stderr, JSON_INDENT(1));
    }
    assert_int_equal(n, 1);
    bool good = strcmp(verdict, "fault") != 0;
    assert_true(good == (hf_doctor_count(findings, "fault") == 0));
    json_decref(findings);
    release(f);
}

static void healthy_host(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    json_t *findings = hf_doctor_judge(f);
    assert_int_equal(hf_doctor_count(findings, "ok"), json_array_size(findings));
    assert_true(json_array_size(findings) > 20);
    json_decref(findings);
    release(f);
    judged(healthy(), "ok", "multicast", "all hosts",
           "3 of 3 hosts asked: in all 6 pairs the one hears the other (multicast)");
    judged(healthy(), "ok", "corosync", "consensus", "after 2200 ms");
}

/* Nothing is known: that is said, and nothing is passed but what is not there. */
static void nothing_known(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    for (size_t i = 0; i < HF_DOCTOR_SYSCTLS; i++) {
        f->sysctl[i] = -1;
    }
    json_t *findings = hf_doctor_judge(f);
    assert_int_equal(hf_doctor_count(findings, "ok"), 0);
    assert_int_equal(hf_doctor_count(findings, "fault"), 0);
    assert_int_equal(hf_doctor_count(findings, "warning"), 1); /* no holdfastd */
    assert_true(hf_doctor_count(findings, "unchecked") >= 12);
    json_decref(findings);
    release(f);
}

static void files(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    f->hostd.state = HF_DOCTOR_FILE_ABSENT;
    judged(f, "fault", "configuration", "/etc/holdfast/holdfast.conf", "there is none");
    f = healthy();
    f->pg.state = HF_DOCTOR_FILE_ABSENT;
    judged(f, "ok", "configuration", "/etc/holdfast/holdfast-pg.conf", "not used here");
    f = healthy();
    set(&f->sip.check, true, -HF_EPROTO, "line 3: got x");
    judged(f, "fault", "configuration", "/etc/holdfast/holdfast-sip.conf", "line 3: got x");
    f = healthy();
    set(&f->sip.check, false, 0, "holdfast-sip is not installed here");
    judged(f, "unchecked", "configuration", "/etc/holdfast/holdfast-sip.conf", "not installed");
    f = healthy();
    f->pg.state = HF_DOCTOR_FILE_UNKNOWN;
    judged(f, "unchecked", "configuration", "/etc/holdfast/holdfast-pg.conf", "");
}

static void keys(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    set(&f->key.load, true, -HF_EKEY, "group or others may access it");
    judged(f, "fault", "cluster key", "/key", "group or others");
    f = healthy();
    f->key.id++;
    judged(f, "fault", "cluster key", "/key", "holdfastd runs with 0000abcd");
    f = healthy();
    f->root = false;
    set(&f->key.load, true, -EACCES, "permission denied");
    judged(f, "unchecked", "cluster key", "/key", "permission");
    f = healthy();
    set(&f->key.load, true, -EACCES, "permission denied");
    judged(f, "fault", "cluster key", "/key", "permission");
}

static void daemons(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    replace_json(&f->status, NULL);
    replace_json(&f->members, NULL);
    set(&f->daemon, true, -ENOENT, "no socket");
    judged(f, "warning", "holdfastd", "holdfastd", "no socket");
    f = healthy();
    replace_json(&f->status, "{\"state\":\"run\",\"problems\":[{\"severity\":\"error\",\"what\":"
                             "\"beta fell silent\",\"remedy\":\"see\"}]}");
    judged(f, "fault", "holdfastd", "holdfast status", "beta fell silent");
    f = healthy();
    replace_json(&f->status, "{\"state\":\"sync\",\"problems\":[{\"severity\":\"warning\","
                             "\"what\":\"unprotected for 9 s\",\"remedy\":\"see\"}]}");
    judged(f, "warning", "holdfastd", "holdfast status", "unprotected for 9 s");
    f = healthy();
    replace_json(&f->status, "{\"state\":\"sync\",\"problems\":[]}");
    judged(f, "unchecked", "holdfastd", "the cluster", "state sync");
}

static void clocks(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    f->clock.synchronised = false;
    judged(f, "warning", "clock", "NTP", "not synchronised");
    f = healthy();
    f->clock.known = false;
    judged(f, "unchecked", "clock", "NTP", "");
    f = healthy();
    f->peer[0].offset_ms = -600;
    judged(f, "warning", "clock", "beta", "600 ms behind ours, +-3 ms");
    f = healthy();
    f->peer[0].offset_ms = 600;
    f->peer[0].round_trip_ms = 1000; /* may be but 100 ms */
    judged(f, "ok", "clock", "beta", "600 ms ahead of ours");
    f = healthy();
    f->peer[1].offset_ms = 3600000;
    judged(f, "fault", "clock", "gamma", "3600000 ms ahead");
}

static void peers(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    set(&f->peer[0].ask, true, -HF_EAUTH, "wrong key");
    judged(f, "fault", "other hosts", "beta", "wrong key");
    f = healthy();
    set(&f->peer[0].ask, true, -ECONNREFUSED, "refused");
    judged(f, "fault", "other hosts", "beta", "refused");
    f = healthy();
    set(&f->peer[0].ask, true, -HF_ENOTFOUND, "older");
    judged(f, "unchecked", "other hosts", "beta", "older");
    f = healthy();
    set(&f->peer[0].ask, false, 0, "no key");
    judged(f, "unchecked", "other hosts", "beta", "no key");
    f = healthy();
    f->n_more = 7;
    judged(f, "unchecked", "other hosts", "the rest", "7 more hosts");
}

static void reach(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    replace_json(&f->peer[1].members,
                 "[" HEARD("alpha", "alive", "5") "," HEARD("beta", "probing", "2500") "]");
    judged(f, "fault", "multicast", "gamma hears beta", "probing, last heard 2500 ms ago");
    f = healthy();
    replace_json(&f->peer[1].members, "[" HEARD("alpha", "alive", "5") "]");
    judged(f, "fault", "multicast", "gamma hears beta", "does not know of it");
    f = healthy();
    replace_json(&f->members,
                 "[" HEARD("beta", "alive", "2001") "," HEARD("gamma", "alive", "5") "]");
    judged(f, "fault", "multicast", "alpha hears beta", "2001 ms");
    f = healthy();
    replace_json(&f->peer[0].members, NULL);
    judged(f, "unchecked", "multicast", "beta", "whom it hears is not known");
    f = healthy();
    f->n_peers = 0; /* theirs are released first */
    json_decref(f->peer[0].members);
    json_decref(f->peer[1].members);
    judged(f, "unchecked", "multicast", "all hosts", "no other host is known");
}

static void corosync_engine(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    set(&f->corosync.map, true, -HF_EPROTO, "CS_ERR_LIBRARY");
    replace(&f->corosync.map_text, NULL);
    judged(f, "fault", "corosync", "corosync", "CS_ERR_LIBRARY");
    f = healthy();
    set(&f->corosync.map, false, 0, "corosync-cmapctl is not installed here");
    judged(f, "unchecked", "corosync", "corosync", "not installed");
    f = healthy();
    f->corosync_engine = false;
    judged(f, "ok", "corosync", "engine", "embedded");
    f = healthy();
    replace(&f->corosync.quorum_text, no_quorum);
    judged(f, "fault", "corosync", "quorum", "1 of 3 votes");
    f = healthy();
    replace(&f->corosync.quorum_text, NULL);
    judged(f, "unchecked", "corosync", "quorum", "");
    f = healthy();
    replace(&f->corosync.quorum_text, "what?");
    judged(f, "unchecked", "corosync", "quorum", "does not say");
}

static void corosync_votes(void **state)
{
    (void)state;
    char text[2048];
    struct hf_doctor_facts *f = healthy();
    snprintf(text, sizeof(text), "%squorum.two_node (u8) = 1\n", map);
    replace(&f->corosync.map_text, text);
    judged(f, "fault", "corosync", "votes", "two_node: 1 with 3 nodes");
    f = healthy();
    snprintf(text, sizeof(text), "%snodelist.node.3.nodeid (u32) = 4\n", map);
    replace(&f->corosync.map_text, text);
    judged(f, "fault", "corosync", "votes", "expected_votes: 3 with 4 nodes");
    f = healthy();
    replace(&f->corosync.map_text, two_nodes);
    judged(f, "warning", "corosync", "votes", "no quorum");
    f = healthy();
    snprintf(text, sizeof(text), "%squorum.two_node (u8) = 1\n", two_nodes);
    replace(&f->corosync.map_text, text);
    judged(f, "ok", "corosync", "votes", "2 nodes, two_node");
    f = healthy();
    snprintf(text, sizeof(text), "%squorum.device.model (str) = net\n", two_nodes);
    replace(&f->corosync.map_text, text);
    judged(f, "ok", "corosync", "votes", "with a quorum device");
}

static void corosync_times(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    f->late_us = 600000; /* and 2 x 1.5 ms of the network */
    judged(f, "fault", "corosync", "token", "1000 ms; measured: knet 1.5 ms one way");
    f = healthy();
    f->late_us = 300000;
    judged(f, "warning", "corosync", "token", "up to 300.0 ms");
    f = healthy();
    replace(&f->corosync.stats_text, "stats.knet.node1.link0.latency_ave (u32) = 260000\n");
    judged(f, "fault", "corosync", "token", "knet 260.0 ms");
    f = healthy();
    replace(&f->corosync.stats_text, NULL);
    judged(f, "unchecked", "corosync", "token", "has not measured");
    f = healthy();
    f->late_us = -1;
    judged(f, "unchecked", "corosync", "token", "no delay was measured");
    f = healthy();
    replace(&f->corosync.map_text, "nodelist.node.0.nodeid (u32) = 1\n");
    judged(f, "unchecked", "corosync", "token", "does not tell");
    f = healthy();
    replace(&f->corosync.map_text, "runtime.config.totem.consensus (u32) = 300\n"
                                   "runtime.config.totem.token (u32) = 300\n");
    judged(f, "warning", "corosync", "consensus", "300 ms, token 300 ms");
    f = healthy();
    replace(&f->corosync.map_text, "runtime.config.totem.consensus (u32) = 360\n"
                                   "runtime.config.totem.token (u32) = 300\n");
    f->process[HF_DOCTOR_COROSYNC].policy = SCHED_OTHER;
    judged(f, "warning", "corosync", "scheduling", "not real-time, with a token of 300 ms");
    f = healthy();
    f->process[HF_DOCTOR_COROSYNC].policy = SCHED_OTHER;
    judged(f, "ok", "corosync", "scheduling", "the token allows it");
    f = healthy();
    f->process[HF_DOCTOR_COROSYNC].pid = 0;
    judged(f, "unchecked", "corosync", "scheduling", "not seen");
}

static void fencing(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    set(&f->fence[0].action, true, -HF_EPROTO, "Unable to connect");
    judged(f, "fault", "fencing", "ipmi", "monitor of fence_ipmilan: Unable to connect");
    f = healthy();
    replace_json(&f->fence[0].hosts, "[\"beta\"]");
    judged(f, "fault", "fencing", "gamma", "no fence device");
    f = healthy();
    replace_json(&f->fence[0].hosts, "[\"*\"]");
    judged(f, "ok", "fencing", "ipmi", "succeeds");
    f = healthy();
    json_decref(f->fence[0].hosts);
    f->n_fences = 0;
    judged(f, "fault", "fencing", "devices", "none is configured");
    f = healthy();
    f->corosync_engine = false;
    json_decref(f->fence[0].hosts);
    f->n_fences = 0;
    judged(f, "warning", "fencing", "devices", "none is configured");
    f = healthy();
    set(&f->fence[0].action, false, 0, "only root");
    judged(f, "unchecked", "fencing", "ipmi", "only root");
}

static void watchdogs(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    f->watchdog.configured = false;
    judged(f, "warning", "watchdog", "watchdog.device", "none is configured");
    f = healthy();
    set(&f->watchdog.look, true, -ENOENT, "cannot be found");
    judged(f, "fault", "watchdog", "/dev/watchdog", "cannot be found");
}

static void resources(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    set(&f->resource[0].action, true, -HF_EPROTO, "wal_level is minimal");
    judged(f, "fault", "resource", "orders/copy1",
           "validate-all of ocf:holdfast:postgresql: wal_level is minimal");
    f = healthy();
    f->n_resources = 0;
    judged(f, "unchecked", "resource", "all", "before it joins a group");
    f = healthy();
    set(&f->resources, false, 0, "only root");
    judged(f, "unchecked", "resource", "all", "only root");
}

static void kernels(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    set(&f->egress, true, 1, "no BPF");
    judged(f, "warning", "kernel", "output guard", "NFQUEUE only");
    f = healthy();
    set(&f->egress, true, -HF_ENOTFOUND, "no BPF, no NFQUEUE");
    judged(f, "fault", "kernel", "output guard", "none: no BPF");
    f = healthy();
    json_object_del(f->status, "managers"); /* it serves no address: it could not */
    set(&f->egress, true, -HF_ENOTFOUND, "no BPF, no NFQUEUE");
    judged(f, "warning", "kernel", "output guard", "none: no BPF");
    f = healthy();
    set(&f->egress, false, 0, "only root");
    judged(f, "unchecked", "kernel", "output guard", "only root");
    f = healthy();
    set(&f->repair, true, -EPERM, "not permitted");
    judged(f, "fault", "kernel", "TCP_REPAIR", "not permitted");
    f = healthy();
    f->sysctl[0] = 0;
    judged(f, "warning", "sysctl", "net.ipv4.tcp_sack", "0: without it");
    f = healthy();
    f->sysctl[1] = -1;
    judged(f, "unchecked", "sysctl", "net.core.bpf_jit_enable", "cannot be read");
}

static void programs(void **state)
{
    (void)state;
    struct hf_doctor_facts *f = healthy();
    f->process[HF_DOCTOR_PG].caps = 1ull << CAP_NET_ADMIN;
    judged(f, "fault", "capabilities", "holdfast-pg", "lacks CAP_NET_RAW, CAP_BPF");
    f = healthy();
    f->process[HF_DOCTOR_PG].caps_known = false;
    judged(f, "unchecked", "capabilities", "holdfast-pg", "cannot be read");
    f = healthy();
    f->process[HF_DOCTOR_PG].pid = 0;
    judged(f, "unchecked", "capabilities", "holdfast-pg", "not seen");
    f = healthy();
    f->process[HF_DOCTOR_HOSTD].files_max = 1024;
    judged(f, "warning", "limits", "holdfastd", "1024 open files");
    f = healthy();
    f->process[HF_DOCTOR_SIP].files_max = -1;
    judged(f, "unchecked", "limits", "holdfast-sip", "cannot be read");
}

static void for_people(void **state)
{
    (void)state;
    struct hf_buf out;
    json_t *findings = json_array();
    hf_doctor_add(findings, HF_DOCTOR_OK, "key", "/key", "", "", "fine");
    hf_doctor_add(findings, HF_DOCTOR_UNCHECKED, "clock", "NTP", "", "", "not %s", "told");
    hf_doctor_add(findings, HF_DOCTOR_FAULT, "fence", "ipmi", "an answer", "plug it in",
                  "said \033[2J\xff");
    hf_buf_init(&out, 1u << 16);
    assert_int_equal(hf_doctor_render(&out, "alpha", findings, false), 0);
    hf_assert_slice_str(hf_buf_slice(&out),
                        "FAULT     fence, ipmi: said ?[2J?\n"
                        "    expected: an answer\n"
                        "    what to do: plug it in\n"
                        "UNCHECKED clock, NTP: not told\n"
                        "ok        key, /key: fine\n"
                        "\n"
                        "alpha: 1 faults, 0 warnings, 1 ok, 1 could not be checked\n");
    hf_buf_fini(&out);
    json_decref(findings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(healthy_host),   HF_TEST(nothing_known),  HF_TEST(files),
        HF_TEST(keys),           HF_TEST(daemons),        HF_TEST(clocks),
        HF_TEST(peers),          HF_TEST(reach),          HF_TEST(corosync_engine),
        HF_TEST(corosync_votes), HF_TEST(corosync_times), HF_TEST(fencing),
        HF_TEST(watchdogs),      HF_TEST(resources),      HF_TEST(kernels),
        HF_TEST(programs),       HF_TEST(for_people),
    };
    return cmocka_run_group_tests_name("ctl/doctor", tests, NULL, NULL);
}
