/* holdfast doctor: from facts to findings; no input, no output, no clock. */
#include <errno.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "ctl/doctor.h"
#include "ctl/render.h"
#include "ctl/table.h"

#define FILES_LEAST 65536     /* LimitNOFILE of our units */
#define OFFSET_WARNING_MS 500 /* what people see: histories that do not fit together */
#define OFFSET_FAULT_MS 10000 /* what is stored with a time, as bindings of SIP users, is wrong */
#define PERIODS_HEARD 2       /* after so many without a word a host is not heard well */
#define NEEDS_ROOT "run it as root"

static const char *const verdicts[] = {
#define VERDICT(name, text) [name] = (text),
    HF_DOCTOR_VERDICT_LIST(VERDICT)
#undef VERDICT
};

/* As a terminal and JSON may have it: parts of it come from elsewhere. */
static json_t *safe_string(const char *s)
{
    struct hf_buf safe;
    hf_buf_init(&safe, (size_t)8 * HF_DOCTOR_TEXT);
    hf_render_safe(&safe, hf_slice_str(s));
    json_t *json = json_stringn(safe.p ? (const char *)safe.p : "", safe.n);
    hf_buf_fini(&safe);
    return json;
}

void hf_doctor_add(json_t *findings, enum hf_doctor_verdict verdict, const char *check,
                   const char *object, const char *expected, const char *remedy, const char *found,
                   ...)
{
    char text[2 * HF_DOCTOR_TEXT];
    va_list ap;
    va_start(ap, found);
    vsnprintf(text, sizeof(text), found, ap);
    va_end(ap);
    json_array_append_new(findings,
                          json_pack("{s:s, s:s, s:o, s:o, s:s, s:s}", "verdict", verdicts[verdict],
                                    "check", check, "object", safe_string(object), "found",
                                    safe_string(text), "expected", expected, "remedy", remedy));
}

void hf_doctor_fini(struct hf_doctor_facts *f)
{
    json_decref(f->status);
    json_decref(f->members);
    for (size_t i = 0; i < f->n_peers; i++) {
        json_decref(f->peer[i].members);
    }
    for (size_t i = 0; i < f->n_fences; i++) {
        json_decref(f->fence[i].hosts);
    }
    free(f->corosync.map_text);
    free(f->corosync.stats_text);
    free(f->corosync.quorum_text);
}

/* Does this host look after a service address? */
static bool serves(const struct hf_doctor_facts *f)
{
    const json_t *m;
    size_t i;
    json_array_foreach(json_object_get(f->status, "managers"), i, m)
    {
        if (strcmp(hf_json_text(m, "owner"), f->host) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_groups(const struct hf_doctor_facts *f)
{
    return f->n_resources > 0 || json_array_size(json_object_get(f->status, "groups")) > 0;
}

/* ---- files ---- */

static void check_file(const struct hf_doctor_file *file, bool needed, json_t *out)
{
    const char *check = "configuration";
    switch (file->state) {
    case HF_DOCTOR_FILE_UNKNOWN:
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, check, file->path, "", NEEDS_ROOT, "%s",
                      file->check.text);
        return;
    case HF_DOCTOR_FILE_ABSENT:
        if (needed) {
            hf_doctor_add(out, HF_DOCTOR_FAULT, check, file->path, "the file",
                          "write it, see holdfast.conf(5), or name another: holdfast doctor FILE",
                          "there is none");
        } else {
            hf_doctor_add(out, HF_DOCTOR_OK, check, file->path, "", "",
                          "there is none: that program is not used here");
        }
        return;
    case HF_DOCTOR_FILE_THERE:
        break;
    }
    if (!file->check.tried) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, check, file->path, "", "", "%s", file->check.text);
    } else if (file->check.rc) {
        hf_doctor_add(out, HF_DOCTOR_FAULT, check, file->path, "a valid file",
                      "mend what it says, then holdfast doctor again", "%s", file->check.text);
    } else {
        hf_doctor_add(out, HF_DOCTOR_OK, check, file->path, "", "", "valid");
    }
}

static void check_files(const struct hf_doctor_facts *f, json_t *out)
{
    check_file(&f->hostd, true, out);
    check_file(&f->pg, false, out);
    check_file(&f->sip, false, out);
}

static void check_key(const struct hf_doctor_facts *f, json_t *out)
{
    const char *check = "cluster key", *running = hf_json_text(f->status, "cluster_key_id");
    char id[16];
    snprintf(id, sizeof(id), "%08x", (unsigned)f->key.id);
    if (!f->key.load.tried) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, check, f->key.path, "", "", "%s", f->key.load.text);
    } else if (f->key.load.rc == -EACCES && !f->root) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, check, f->key.path, "", NEEDS_ROOT, "%s",
                      f->key.load.text);
    } else if (f->key.load.rc) {
        hf_doctor_add(out, HF_DOCTOR_FAULT, check, f->key.path,
                      "a file of root's with mode 0600 and one line of 64 hex digits",
                      "chmod 600 and chown root it, or copy it again from another host", "%s",
                      f->key.load.text);
    } else if (*running && strcmp(running, id) != 0) {
        hf_doctor_add(out, HF_DOCTOR_FAULT, check, f->key.path, "the key that holdfastd has",
                      "put the cluster's key back, or restart holdfastd if the new one is right",
                      "its id is %s, holdfastd runs with %s", id, running);
    } else {
        hf_doctor_add(out, HF_DOCTOR_OK, check, f->key.path, "", "",
                      "owner, mode and length are right, id %s", id);
    }
}

/* ---- the cluster ---- */

static void check_daemon(const struct hf_doctor_facts *f, json_t *out)
{
    const json_t *p;
    size_t i;
    if (!f->status) {
        hf_doctor_add(out, HF_DOCTOR_WARNING, "holdfastd", "holdfastd", "a holdfastd that answers",
                      "start it (systemctl start holdfastd) and run holdfast doctor again: what "
                      "concerns the others can be checked only then",
                      "%s", f->daemon.text);
        return;
    }
    const char *state = hf_json_text(f->status, "state");
    if (strcmp(state, "run") != 0) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "holdfastd", "the cluster", "",
                      "run holdfast doctor again in some seconds",
                      "state %s: this host does not take part yet", state);
    }
    const json_t *problems = json_object_get(f->status, "problems");
    if (json_array_size(problems) == 0) {
        hf_doctor_add(out, HF_DOCTOR_OK, "holdfastd", "holdfast status", "", "",
                      "state %s, no problems", hf_json_text(f->status, "state"));
    }
    json_array_foreach(problems, i, p)
    {
        bool error = strcmp(hf_json_text(p, "severity"), "error") == 0;
        hf_doctor_add(out, error ? HF_DOCTOR_FAULT : HF_DOCTOR_WARNING, "holdfastd",
                      "holdfast status", "", hf_json_text(p, "remedy"), "%s",
                      hf_json_text(p, "what"));
    }
}

static void check_clock(const struct hf_doctor_facts *f, json_t *out)
{
    const char *remedy = "run an NTP client on all hosts (chrony, systemd-timesyncd)";
    if (!f->clock.known) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "clock", "NTP", "", "",
                      "the kernel does not tell whether the clock is synchronised");
    } else if (!f->clock.synchronised) {
        hf_doctor_add(out, HF_DOCTOR_WARNING, "clock", "NTP", "a synchronised clock", remedy,
                      "the clock is not synchronised");
    } else {
        hf_doctor_add(out, HF_DOCTOR_OK, "clock", "NTP", "", "", "synchronised");
    }
    for (size_t i = 0; i < f->n_peers; i++) {
        const struct hf_doctor_peer *p = &f->peer[i];
        if (!p->ask.tried || p->ask.rc) {
            continue; /* check_peers() says so */
        }
        int64_t off = p->offset_ms < 0 ? -p->offset_ms : p->offset_ms;
        off = off > p->round_trip_ms / 2 ? off - p->round_trip_ms / 2 : 0; /* at least so much */
        enum hf_doctor_verdict v = off >= OFFSET_FAULT_MS     ? HF_DOCTOR_FAULT
                                   : off >= OFFSET_WARNING_MS ? HF_DOCTOR_WARNING
                                                              : HF_DOCTOR_OK;
        hf_doctor_add(out, v, "clock", p->host, v == HF_DOCTOR_OK ? "" : "less than 500 ms",
                      v == HF_DOCTOR_OK ? "" : remedy, "its clock is %lld ms %s ours, +-%lld ms",
                      (long long)(p->offset_ms < 0 ? -p->offset_ms : p->offset_ms),
                      p->offset_ms < 0 ? "behind" : "ahead of",
                      (long long)p->round_trip_ms / 2 + 1);
    }
}

static void check_peers(const struct hf_doctor_facts *f, json_t *out)
{
    const char *check = "other hosts";
    for (size_t i = 0; i < f->n_peers; i++) {
        const struct hf_doctor_peer *p = &f->peer[i];
        if (!p->ask.tried || p->ask.rc == -HF_ENOTFOUND) {
            hf_doctor_add(out, HF_DOCTOR_UNCHECKED, check, p->host, "", "", "%s", p->ask.text);
        } else if (p->ask.rc == -HF_EAUTH) {
            hf_doctor_add(out, HF_DOCTOR_FAULT, check, p->host, "the same cluster key",
                          "compare the key files' ids: holdfast doctor on both hosts", "%s",
                          p->ask.text);
        } else if (p->ask.rc) {
            hf_doctor_add(out, HF_DOCTOR_FAULT, check, p->host, "an answer by TCP",
                          "open TCP to its directory.port from here; without it neither its "
                          "services nor its copies' configuration can be fetched",
                          "%s", p->ask.text);
        } else {
            hf_doctor_add(out, HF_DOCTOR_OK, check, p->host, "", "",
                          "answers by TCP with the same key, after %lld ms",
                          (long long)p->round_trip_ms);
        }
    }
    if (f->n_more) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, check, "the rest", "", "",
                      "%zu more hosts were not asked", f->n_more);
    }
}

/* ---- who hears whom ---- */

static const json_t *member_of(const json_t *members, const char *host)
{
    const json_t *m;
    size_t i;
    json_array_foreach(members, i, m)
    {
        if (strcmp(hf_json_text(m, "host"), host) == 0) {
            return m;
        }
    }
    return NULL;
}

/* Whether the host that has these members hears `host`; why not in text. */
static bool hears(const json_t *members, const char *host, char *text, size_t n)
{
    const json_t *m = member_of(members, host);
    int64_t heard = hf_json_number(m, "heard_ms"), period = hf_json_number(m, "period_ms");
    if (!m) {
        snprintf(text, n, "does not know of it");
        return false;
    }
    if (strcmp(hf_json_text(m, "state"), "alive") == 0 && heard <= PERIODS_HEARD * period) {
        return true;
    }
    snprintf(text, n, "%s, last heard %lld ms ago, a word each %lld ms is due",
             hf_json_text(m, "state"), (long long)heard, (long long)period);
    return false;
}

struct pairs {
    json_t *out;
    unsigned good, bad;
};

static void check_pair(struct pairs *p, const char *listener, const json_t *members,
                       const char *talker)
{
    char object[2 * HF_HOST_NAME_MAX + 16], why[256];
    if (strcmp(listener, talker) == 0) {
        return;
    }
    if (hears(members, talker, why, sizeof(why))) {
        p->good++;
        return;
    }
    p->bad++;
    snprintf(object, sizeof(object), "%s hears %s", listener, talker);
    hf_doctor_add(p->out, HF_DOCTOR_FAULT, "multicast", object, "each host hears each other one",
                  "let the network carry directory.group between the two (IGMP snooping needs a "
                  "querier; firewalls: UDP to directory.port), or set directory.transport = "
                  "unicast on all hosts",
                  "it does not: %s", why);
}

static void check_reach(const struct hf_doctor_facts *f, json_t *out)
{
    struct pairs p = {.out = out};
    const char *transport = hf_json_text(f->status, "transport");
    if (!f->members) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "multicast", "all hosts", "", "",
                      "without a running holdfastd it is not known who hears whom");
        return;
    }
    if (f->n_peers == 0) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "multicast", "all hosts", "", "",
                      "no other host is known: nobody can be asked");
        return;
    }
    unsigned asked = 1;
    for (size_t i = 0; i < f->n_peers; i++) {
        const struct hf_doctor_peer *peer = &f->peer[i];
        check_pair(&p, f->host, f->members, peer->host);
        if (!peer->members) {
            hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "multicast", peer->host, "", "",
                          "whom it hears is not known: it was not asked, or gave no answer");
            continue;
        }
        asked++;
        check_pair(&p, peer->host, peer->members, f->host);
        for (size_t k = 0; k < f->n_peers; k++) {
            check_pair(&p, peer->host, peer->members, f->peer[k].host);
        }
    }
    if (p.bad == 0) {
        hf_doctor_add(out, HF_DOCTOR_OK, "multicast", "all hosts", "", "",
                      "%u of %zu hosts asked: in all %u pairs the one hears the other (%s)", asked,
                      f->n_peers + 1, p.good, transport);
    }
}

/* ---- fencing, watchdog, resources ---- */

static bool can_fence(const struct hf_doctor_agent *d, const char *host)
{
    const json_t *h;
    size_t i;
    json_array_foreach(d->hosts, i, h)
    {
        const char *s = json_string_value(h);
        if (s && (strcmp(s, "*") == 0 || strcmp(s, host) == 0)) {
            return true;
        }
    }
    return false;
}

static void check_coverage(const struct hf_doctor_facts *f, json_t *out)
{
    for (size_t i = 0; i < f->n_peers; i++) {
        bool can = false;
        for (size_t k = 0; k < f->n_fences && !can; k++) {
            can = can_fence(&f->fence[k], f->peer[i].host);
        }
        if (!can) {
            hf_doctor_add(out, has_groups(f) ? HF_DOCTOR_FAULT : HF_DOCTOR_WARNING, "fencing",
                          f->peer[i].host, "a device that fences it",
                          "add it to the hosts of a fence { } section in holdfast.conf",
                          "no fence device of this host's configuration has it");
        }
    }
}

/* An agent's action: ok, or what it says. */
static void check_action(const struct hf_doctor_agent *a, const char *check, const char *action,
                         const char *remedy, json_t *out)
{
    if (!a->action.tried) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, check, a->name, "", "", "%s", a->action.text);
    } else if (a->action.rc) {
        hf_doctor_add(out, HF_DOCTOR_FAULT, check, a->name, "success", remedy, "%s of %s: %s",
                      action, a->agent, a->action.text);
    } else {
        hf_doctor_add(out, HF_DOCTOR_OK, check, a->name, "", "", "%s of %s succeeds", action,
                      a->agent);
    }
}

static void check_fencing(const struct hf_doctor_facts *f, json_t *out)
{
    if (!f->configured) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "fencing", "devices", "", "",
                      "not known without a valid configuration");
        return;
    }
    if (f->n_fences == 0) {
        hf_doctor_add(out,
                      f->corosync_engine && has_groups(f) ? HF_DOCTOR_FAULT : HF_DOCTOR_WARNING,
                      "fencing", "devices", "a device that makes sure that a host is off",
                      "add a fence NAME { } section to holdfast.conf: without one nothing is taken "
                      "over from a host that is gone until somebody confirms it (holdfast group "
                      "confirm)",
                      "none is configured");
        return;
    }
    for (size_t i = 0; i < f->n_fences; i++) {
        check_action(&f->fence[i], "fencing", "monitor",
                     "try the agent by hand with the same options (see its manual page): is the "
                     "device reached, are user and password right?",
                     out);
    }
    check_coverage(f, out);
}

static void check_watchdog(const struct hf_doctor_facts *f, json_t *out)
{
    if (!f->configured) {
        return; /* said of fencing */
    }
    if (!f->watchdog.configured) {
        hf_doctor_add(out, HF_DOCTOR_WARNING, "watchdog", "watchdog.device",
                      "a watchdog, so that a host that hangs is reset",
                      "set watchdog.device = \"/dev/watchdog\" (modprobe softdog where the machine "
                      "has none)",
                      "none is configured");
    } else if (!f->watchdog.look.tried) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "watchdog", f->watchdog.path, "", "", "%s",
                      f->watchdog.look.text);
    } else if (f->watchdog.look.rc) {
        hf_doctor_add(out, HF_DOCTOR_FAULT, "watchdog", f->watchdog.path, "a watchdog device",
                      "load the driver of the machine's watchdog, or softdog (modprobe), or name "
                      "another watchdog.device",
                      "%s", f->watchdog.look.text);
    } else {
        hf_doctor_add(out, HF_DOCTOR_OK, "watchdog", f->watchdog.path, "", "", "%s",
                      f->watchdog.look.text);
    }
}

static void check_resources(const struct hf_doctor_facts *f, json_t *out)
{
    if (!f->resources.tried || f->resources.rc) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "resource", "all", "", f->root ? "" : NEEDS_ROOT,
                      "%s", f->resources.text);
        return;
    }
    if (f->n_resources == 0) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "resource", "all", "", "",
                      "this host has no resource: what PostgreSQL and other agents need cannot be "
                      "checked before it joins a group");
    }
    for (size_t i = 0; i < f->n_resources; i++) {
        check_action(&f->resource[i], "resource", "validate-all",
                     "mend what the agent says; its manual page tells what it needs", out);
    }
}

/* ---- kernel and processes ---- */

static void check_kernel(const struct hf_doctor_facts *f, json_t *out)
{
    enum hf_doctor_verdict bad = serves(f) ? HF_DOCTOR_FAULT : HF_DOCTOR_WARNING;
    if (!f->egress.tried) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "kernel", "output guard", "", NEEDS_ROOT, "%s",
                      f->egress.text);
    } else if (f->egress.rc < 0) {
        hf_doctor_add(out, bad, "kernel", "output guard", "BPF at tc, or NFQUEUE",
                      "a kernel with CONFIG_NET_CLS_BPF and CONFIG_BPF_SYSCALL, or nfnetlink_queue "
                      "and iptables; without one holdfast-pg cannot protect sessions",
                      "none: %s", f->egress.text);
    } else if (f->egress.rc > 0) {
        hf_doctor_add(out, HF_DOCTOR_WARNING, "kernel", "output guard", "BPF at tc",
                      "a kernel with CONFIG_NET_CLS_BPF and CONFIG_BPF_SYSCALL, and CAP_BPF",
                      "NFQUEUE only, which costs more and keeps no lease: %s", f->egress.text);
    } else {
        hf_doctor_add(out, HF_DOCTOR_OK, "kernel", "output guard", "", "", "BPF");
    }
    if (!f->repair.tried) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "kernel", "TCP_REPAIR", "", NEEDS_ROOT, "%s",
                      f->repair.text);
    } else if (f->repair.rc) {
        hf_doctor_add(out, bad, "kernel", "TCP_REPAIR", "connections can be restored",
                      "a kernel with CONFIG_CHECKPOINT_RESTORE, and CAP_NET_ADMIN: without it "
                      "connections cannot be taken over",
                      "%s", f->repair.text);
    } else {
        hf_doctor_add(out, HF_DOCTOR_OK, "kernel", "TCP_REPAIR", "", "", "works");
    }
}

static void check_sysctls(const struct hf_doctor_facts *f, json_t *out)
{
    static const struct {
        const char *name, *why;
        int64_t least;
    } sysctl[] = {
#define SYSCTL(name, least, why) {name, why, least},
        HF_DOCTOR_SYSCTL_LIST(SYSCTL)
#undef SYSCTL
    };
    for (size_t i = 0; i < HF_ARRAY_LEN(sysctl); i++) {
        char expected[64], remedy[128];
        snprintf(expected, sizeof(expected), "%lld", (long long)sysctl[i].least);
        snprintf(remedy, sizeof(remedy), "sysctl -w %s=%s, and into /etc/sysctl.d", sysctl[i].name,
                 expected);
        if (f->sysctl[i] < 0) {
            hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "sysctl", sysctl[i].name, "", "",
                          "cannot be read here");
        } else if (f->sysctl[i] < sysctl[i].least) {
            hf_doctor_add(out, HF_DOCTOR_WARNING, "sysctl", sysctl[i].name, expected, remedy,
                          "%lld: %s", (long long)f->sysctl[i], sysctl[i].why);
        } else {
            hf_doctor_add(out, HF_DOCTOR_OK, "sysctl", sysctl[i].name, "", "", "%lld",
                          (long long)f->sysctl[i]);
        }
    }
}

/* What holdfast-pg needs for a service address (docs: design/egress.md, takeover.md). */
static void check_caps(const struct hf_doctor_process *p, json_t *out)
{
    static const struct {
        const char *name;
        int number;
    } caps[] = {
        {"CAP_NET_ADMIN", CAP_NET_ADMIN}, {"CAP_NET_RAW", CAP_NET_RAW}, {"CAP_BPF", CAP_BPF}};
    char missing[128] = "";
    for (size_t i = 0; p->caps_known && i < HF_ARRAY_LEN(caps); i++) {
        if (!(p->caps >> caps[i].number & 1)) {
            size_t n = strlen(missing);
            snprintf(missing + n, sizeof(missing) - n, "%s%s", n ? ", " : "", caps[i].name);
        }
    }
    if (!p->caps_known) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "capabilities", p->program, "", NEEDS_ROOT,
                      "those of process %ld cannot be read", p->pid);
    } else if (*missing) {
        hf_doctor_add(out, HF_DOCTOR_FAULT, "capabilities", p->program,
                      "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF",
                      "give them to its unit: AmbientCapabilities= and CapabilityBoundingSet=, see "
                      "holdfast-pg(8)",
                      "process %ld lacks %s", p->pid, missing);
    } else {
        hf_doctor_add(out, HF_DOCTOR_OK, "capabilities", p->program, "", "",
                      "process %ld has what take-over needs", p->pid);
    }
}

static void check_processes(const struct hf_doctor_facts *f, json_t *out)
{
    for (size_t i = 0; i < HF_DOCTOR_PROGRAMS; i++) {
        const struct hf_doctor_process *p = &f->process[i];
        if (i == HF_DOCTOR_COROSYNC || p->pid == 0) {
            continue;
        }
        if (p->files_max < 0) {
            hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "limits", p->program, "", NEEDS_ROOT,
                          "those of process %ld cannot be read", p->pid);
        } else if (p->files_max < FILES_LEAST) {
            hf_doctor_add(out, HF_DOCTOR_WARNING, "limits", p->program, "65536 open files",
                          "LimitNOFILE=65536 in its unit: each client is an open file",
                          "process %ld may have %lld open files", p->pid, (long long)p->files_max);
        } else {
            hf_doctor_add(out, HF_DOCTOR_OK, "limits", p->program, "", "", "%lld open files",
                          (long long)p->files_max);
        }
        if (i == HF_DOCTOR_PG && serves(f)) {
            check_caps(p, out);
        }
    }
    if (serves(f) && f->process[HF_DOCTOR_PG].pid == 0) {
        hf_doctor_add(out, HF_DOCTOR_UNCHECKED, "capabilities", "holdfast-pg", "", NEEDS_ROOT,
                      "its process is not seen from here");
    }
}

/* ---- all ---- */

json_t *hf_doctor_judge(const struct hf_doctor_facts *f)
{
    static void (*const checks[])(const struct hf_doctor_facts *, json_t *) = {
        check_files,
        check_key,
        check_daemon,
        check_clock,
        check_peers,
        check_reach,
        hf_doctor_check_corosync,
        check_fencing,
        check_watchdog,
        check_resources,
        check_kernel,
        check_sysctls,
        check_processes,
    };
    json_t *out = json_array();
    for (size_t i = 0; out && i < HF_ARRAY_LEN(checks); i++) {
        checks[i](f, out);
    }
    return out;
}

size_t hf_doctor_count(const json_t *findings, const char *verdict)
{
    const json_t *e;
    size_t i, n = 0;
    json_array_foreach(findings, i, e)
    {
        n += strcmp(hf_json_text(e, "verdict"), verdict) == 0;
    }
    return n;
}

/* ---- for people ---- */

static void render_one(struct hf_buf *out, const json_t *e, const char *word, const char *colour)
{
    hf_buf_printf(out, "%s%-9s%s ", colour ? colour : "", word, colour ? HF_PLAIN : "");
    hf_render_text(out, hf_json_text(e, "check"));
    hf_buf_str(out, ", ");
    hf_render_text(out, hf_json_text(e, "object"));
    hf_buf_str(out, ": ");
    hf_render_text(out, hf_json_text(e, "found"));
    hf_buf_str(out, "\n");
    if (*hf_json_text(e, "expected")) {
        hf_buf_str(out, "    expected: ");
        hf_render_wrap(out, hf_json_text(e, "expected"), 14, 16);
        hf_buf_str(out, "\n");
    }
    if (*hf_json_text(e, "remedy")) {
        hf_buf_str(out, "    what to do: ");
        hf_render_wrap(out, hf_json_text(e, "remedy"), 16, 16);
        hf_buf_str(out, "\n");
    }
}

int hf_doctor_render(struct hf_buf *out, const char *host, const json_t *findings, bool colour)
{
    static const struct {
        const char *verdict, *word, *colour;
    } order[] = {{"fault", "FAULT", HF_RED},
                 {"warning", "WARNING", HF_YELLOW},
                 {"unchecked", "UNCHECKED", HF_BOLD},
                 {"ok", "ok", HF_GREEN}};
    const json_t *e;
    size_t k;
    for (size_t i = 0; i < HF_ARRAY_LEN(order); i++) {
        json_array_foreach(findings, k, e)
        {
            if (strcmp(hf_json_text(e, "verdict"), order[i].verdict) == 0) {
                render_one(out, e, order[i].word, colour ? order[i].colour : NULL);
            }
        }
    }
    hf_buf_str(out, "\n");
    hf_render_text(out, *host ? host : "this host");
    hf_buf_printf(out, ": %zu faults, %zu warnings, %zu ok, %zu could not be checked\n",
                  hf_doctor_count(findings, "fault"), hf_doctor_count(findings, "warning"),
                  hf_doctor_count(findings, "ok"), hf_doctor_count(findings, "unchecked"));
    return out->err;
}
