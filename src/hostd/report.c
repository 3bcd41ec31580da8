/* What people and programs ask of the daemon: status with its problems, members, metrics. */
#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"
#include "hostd/control.h"
#include "hostd/group_report.h"
#include "hostd/hostd.h"
#include "hostd/programs.h"

#define CONFLICT_SHOWN HF_S(60)

/* ---- problems: what is wrong, and what to do ---- */

struct problems {
    struct hf_buf *out;
    uint32_t n;
};

static void problem(void *arg, const char *severity, const char *what, const char *remedy)
{
    struct problems *p = arg;
    hf_buf_str(p->out, p->n++ ? ",\n  {\"severity\":" : "\n  {\"severity\":");
    hf_buf_json_str(p->out, hf_slice_str(severity));
    hf_buf_str(p->out, ",\"what\":");
    hf_buf_json_str(p->out, hf_slice_str(what));
    hf_buf_str(p->out, ",\"remedy\":");
    hf_buf_json_str(p->out, hf_slice_str(remedy));
    hf_buf_str(p->out, "}");
}

static void problems_of_peers(const struct hf_hostd *h, struct problems *p)
{
    char what[256];
    for (size_t i = 0; i < HF_HOSTD_LOST_MAX; i++) {
        const struct hf_hostd_lost *l = &h->lost[i];
        long long ago = (long long)((hf_now() - l->at) / HF_NS_PER_S);
        if (*l->host && hf_now() - l->at < HF_HOSTD_LOST_SHOWN) {
            snprintf(what, sizeof(what),
                     "%s fell silent %lld s ago: its services have left the tree", l->host, ago);
            problem(p, "error", what,
                    "see whether the host is up and its network works; it returns by itself");
        }
    }
    for (uint32_t id = 0; id < h->store->n_owners; id++) {
        struct hf_dir_peer_info i = hf_dir_peer_info(h->dir, id, hf_now());
        int rc = hf_drive_pull_error(h, id);
        if (i.state == HF_DIR_PEER_PROBING) {
            snprintf(what, sizeof(what), "%s has been silent for %u ms", h->store->owner[id].name,
                     i.heard_ms);
            problem(p, "warning", what, "see whether the host is up and its network works");
        } else if (i.failures >= 2) {
            snprintf(what, sizeof(what), "%s is heard, but its services cannot be pulled: %s",
                     h->store->owner[id].name, hf_strerror(rc));
            problem(p, "error", what,
                    "see whether TCP to its directory.port is open from here, and whether both "
                    "hosts have the same cluster key");
        }
    }
}

static void problems_of_network(const struct hf_hostd *h, struct problems *p)
{
    char what[256];
    const struct hf_hostd_counters *c = &h->count;
    if (c->datagrams_other_cluster + c->datagrams_forged > 0) {
        snprintf(what, sizeof(what),
                 "%llu datagrams were sealed with another cluster's key, %llu were forged",
                 (unsigned long long)c->datagrams_other_cluster,
                 (unsigned long long)c->datagrams_forged);
        problem(p, "warning", what,
                "a host with a wrong key file, or another cluster on the same group and port: "
                "compare cluster.key_file, or choose another directory.group");
    }
    if (c->datagrams_future > 0) {
        problem(p, "warning", "hosts of a newer version speak a protocol that is not known here",
                "update this host");
    }
    const struct hf_udp_counters *u = hf_udp_counters(h->udp);
    if (u->send_errors > 0 && u->send_errors * 10 > u->sent) {
        problem(p, "error", "many datagrams cannot be sent",
                "see whether directory.interface is up and has a route to directory.group");
    }
}

static void problems_of_own(const struct hf_hostd *h, struct problems *p)
{
    char what[256];
    if (h->persist_rc) {
        snprintf(what, sizeof(what), "cannot write to %s: %s", h->config->state.dir,
                 hf_strerror(h->persist_rc));
        problem(p, "error", what, "mend the file system: until then this host stays unseen");
    }
    if (h->conflict_at != 0 && hf_now() - h->conflict_at < CONFLICT_SHOWN) {
        snprintf(what, sizeof(what), "another host at %s uses our name %s", h->conflict_from,
                 h->config->host.name);
        problem(p, "error", what, "give one of the two another host.name and restart it");
    }
    if (h->refused_at != 0 && hf_now() - h->refused_at < CONFLICT_SHOWN) {
        problem(p, "warning", h->refused,
                "restart that program if its package was updated since it began; otherwise it is "
                "of another version than holdfastd " HF_VERSION ": update the older one");
    }
    if (h->reload_rc) {
        problem(p, "warning",
                "the last reload was refused: the configuration before it is in force",
                "holdfast config --check tells what is wrong with the file");
    }
    enum hf_dir_state s = hf_dir_state(h->dir);
    if (s == HF_DIR_RUN && hf_dir_members(h->dir) == 1 && hf_now() - h->started_at > HF_S(10)) {
        problem(
            p, "warning", "no other host is heard of",
            "alone by intention, or: same directory.group and port everywhere, does the network "
            "carry multicast (otherwise directory.transport = unicast), same cluster key?");
    }
}

/* ---- status ---- */

static void counters(const struct hf_hostd *h, struct hf_buf *out)
{
    const struct hf_dir_counters *d = hf_dir_counters(h->dir);
    const struct hf_udp_counters *u = hf_udp_counters(h->udp);
    hf_buf_str(out, "{");
#define ROW(name, text) hf_buf_printf(out, "\"" #name "\":%llu,", (unsigned long long)d->name);
    HF_DIR_COUNTER_LIST(ROW)
#undef ROW
#define ROW(name, text)                                                                            \
    hf_buf_printf(out, "\"" #name "\":%llu,", (unsigned long long)h->count.name);
    HF_HOSTD_COUNTER_LIST(ROW)
#undef ROW
    hf_buf_printf(out,
                  "\"udp_sent\":%llu,\"udp_sent_bytes\":%llu,\"udp_send_errors\":%llu,"
                  "\"udp_received\":%llu,\"udp_received_bytes\":%llu}",
                  (unsigned long long)u->sent, (unsigned long long)u->sent_bytes,
                  (unsigned long long)u->send_errors, (unsigned long long)u->received,
                  (unsigned long long)u->received_bytes);
}

struct totals {
    uint32_t services, local, behind, pulling;
};

static struct totals totals_of(const struct hf_hostd *h)
{
    struct totals t = {0};
    for (uint32_t id = 0; id < h->store->n_owners; id++) {
        const struct hf_part *part = hf_dir_part(h->dir, id);
        struct hf_dir_peer_info i = hf_dir_peer_info(h->dir, id, hf_now());
        t.services += part ? part->n_entries : 0;
        t.behind += i.behind || i.state == HF_DIR_PEER_WANTED;
        t.pulling += i.pulling;
        t.local += part && id == hf_dir_self(h->dir) ? part->n_entries : 0;
    }
    return t;
}

void hf_report_problems(const struct hf_hostd *h, const json_t *managers, const json_t *sip,
                        struct hf_buf *out)
{
    struct problems p = {.out = out};
    hf_buf_str(out, "[");
    problems_of_own(h, &p);
    hf_report_group_problems(h, problem, &p);
    problems_of_peers(h, &p);
    problems_of_network(h, &p);
    hf_programs_problems(managers, sip, problem, &p);
    hf_buf_str(out, "]");
}

void hf_report_status(struct hf_hostd *h, struct hf_buf *out)
{
    struct totals t = totals_of(h);
    json_t *managers = hf_programs_managers(h), *sip = hf_programs_sip(h);
    hf_buf_str(out, "{\"host\":");
    hf_buf_json_str(out, hf_slice_str(h->config->host.name));
    hf_buf_printf(
        out,
        ",\"state\":\"%s\",\"version\":\"%s\",\"incarnation\":%llu,\"uptime_s\":%lld,"
        "\"pid\":%d,\"cluster_key_id\":\"%08x\",\"transport\":\"%s\",\"heartbeat_ms\":%u,",
        hf_dir_state_name(hf_dir_state(h->dir)), HF_VERSION,
        (unsigned long long)hf_dir_incarnation(h->dir),
        (long long)((hf_now() - h->started_at) / HF_NS_PER_S), (int)getpid(), hf_key_id(&h->key),
        h->config->directory.transport == HF_HOSTD_UNICAST ? "unicast" : "multicast",
        hf_dir_period_ms(h->dir));
    hf_buf_printf(out,
                  "\"members\":%u,\"services\":%u,\"local_services\":%u,\"pulls_active\":%u,"
                  "\"peers_behind\":%u,\"clients\":%u,\"problems\":",
                  hf_dir_members(h->dir), t.services, t.local, t.pulling, t.behind,
                  h->control ? hf_control_clients(h->control) : 0);
    hf_report_problems(h, managers, sip, out);
    hf_buf_str(out, ",\"groups\":");
    (void)!hf_report_groups(h, hf_slice(NULL, 0), out, NULL); /* out has its error */
    hf_buf_str(out, ",\"counters\":");
    counters(h, out);
    if (json_array_size(managers)) {
        hf_buf_str(out, ",\"managers\":");
        hf_programs_put(json_incref(managers), out);
    }
    hf_buf_str(out, "}\n");
    json_decref(managers);
    json_decref(sip);
}

/* ---- members ---- */

const char *hf_report_member_state(const struct hf_hostd *h, uint32_t id)
{
    struct hf_dir_peer_info i = hf_dir_peer_info(h->dir, id, hf_now());
    if (id == hf_dir_self(h->dir)) {
        return "self";
    }
    return i.state == HF_DIR_PEER_WANTED && i.failures > 0 && !i.pulling
               ? "waiting"
               : hf_dir_peer_state_name(i.state);
}

void hf_report_member_address(const struct hf_hostd *h, uint32_t id, char ret_text[HF_ADDR_STR_LEN])
{
    struct hf_endpoint own = hf_addr_to_endpoint(&h->config->host.address);
    bool self = id == hf_dir_self(h->dir);
    struct hf_addr a = hf_addr_from_endpoint(self ? &own : &h->store->owner[id].endpoint);
    ret_text[0] = '\0';
    if (a.len > 0) {
        hf_addr_str(&a, ret_text);
    }
}

static void member(const struct hf_hostd *h, uint32_t id, struct hf_buf *out)
{
    char addr[HF_ADDR_STR_LEN];
    bool self = id == hf_dir_self(h->dir);
    const struct hf_part *part = hf_dir_part(h->dir, id);
    struct hf_dir_peer_info i = hf_dir_peer_info(h->dir, id, hf_now());
    hf_report_member_address(h, id, addr);
    int rc = hf_drive_pull_error(h, id);
    hf_buf_str(out, "{\"host\":");
    hf_buf_json_str(out, hf_slice_str(h->store->owner[id].name));
    hf_buf_printf(out, ",\"address\":\"%s\",\"state\":\"%s\"", addr, hf_report_member_state(h, id));
    hf_buf_printf(out,
                  ",\"incarnation\":%llu,\"version\":%llu,\"services\":%u,\"heard_ms\":%u,"
                  "\"period_ms\":%u,\"behind\":%s,\"pulling\":%s,\"pull_failures\":%u,"
                  "\"last_error\":\"%s\"}",
                  part ? (unsigned long long)part->key.incarnation : 0,
                  part ? (unsigned long long)part->key.version : 0, part ? part->n_entries : 0,
                  self ? 0 : i.heard_ms, self ? hf_dir_period_ms(h->dir) : i.period_ms,
                  i.behind ? "true" : "false", i.pulling ? "true" : "false", i.failures,
                  rc ? hf_strerror(rc) : "");
}

void hf_report_members(struct hf_hostd *h, struct hf_buf *out)
{
    bool first = true;
    hf_buf_str(out, "[\n");
    for (uint32_t id = 0; id < h->store->n_owners; id++) {
        struct hf_dir_peer_info i = hf_dir_peer_info(h->dir, id, hf_now());
        if (i.state != HF_DIR_PEER_ABSENT || id == hf_dir_self(h->dir)) {
            hf_buf_str(out, first ? "" : ",\n");
            member(h, id, out);
            first = false;
        }
    }
    hf_buf_str(out, "\n]\n");
}

void hf_report_view(struct hf_hostd *h, struct hf_buf *out)
{
    hf_buf_printf(out, "{\"now_ms\":%lld,\"members\":", (long long)(hf_wall_now() / HF_NS_PER_MS));
    hf_report_members(h, out);
    hf_buf_str(out, "}\n");
}

/* ---- metrics ---- */

static void metric(struct hf_buf *out, const char *name, const char *type, const char *help,
                   uint64_t value)
{
    hf_buf_printf(out, "# HELP holdfast_%s %s\n# TYPE holdfast_%s %s\nholdfast_%s %llu\n", name,
                  help, name, type, name, (unsigned long long)value);
}

void hf_report_metrics(struct hf_hostd *h, struct hf_buf *out)
{
    const struct hf_dir_counters *d = hf_dir_counters(h->dir);
    const struct hf_udp_counters *u = hf_udp_counters(h->udp);
    struct totals t = totals_of(h);
    metric(out, "up", "gauge", "1 once this host is part of the cluster",
           hf_dir_state(h->dir) == HF_DIR_RUN);
    metric(out, "members", "gauge", "hosts in the tree, this one included", hf_dir_members(h->dir));
    metric(out, "services", "gauge", "entries of the tree", t.services);
    metric(out, "local_services", "gauge", "entries that this host advertises", t.local);
    metric(out, "peers_behind", "gauge", "hosts known to have more than we have", t.behind);
    metric(out, "incarnation", "gauge", "our life", hf_dir_incarnation(h->dir));
#define ROW(name, text) metric(out, "directory_" #name "_total", "counter", text, d->name);
    HF_DIR_COUNTER_LIST(ROW)
#undef ROW
#define ROW(name, text) metric(out, #name "_total", "counter", text, h->count.name);
    HF_HOSTD_COUNTER_LIST(ROW)
#undef ROW
    metric(out, "udp_sent_total", "counter", "datagrams sent", u->sent);
    metric(out, "udp_sent_bytes_total", "counter", "bytes of datagrams sent", u->sent_bytes);
    metric(out, "udp_send_errors_total", "counter", "datagrams that could not be sent",
           u->send_errors);
    metric(out, "udp_received_total", "counter", "datagrams received", u->received);
    metric(out, "udp_received_bytes_total", "counter", "bytes of datagrams received",
           u->received_bytes);
    hf_report_group_metrics(h, out);
}
