/* Clients of real messages: those that follow a 302, those that drop its parameters, those that
 * ignore it; directly, behind an edge, behind somebody else's proxy. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/sip/digest.h"
#include "core/sip/fields.h"
#include "sim/sip/elements.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define PATIENCE HF_S(4)
#define GIVE_UP HF_S(30)

static struct hf_sip_msg msg;

static uint16_t any_server(struct ew_world *w, bool edge)
{
    for (unsigned i = 0; i < 100; i++) {
        uint16_t s = (uint16_t)ew_below(w, w->n_servers);
        if ((w->server[s].role == HF_SIP_ROLE_EDGE) == edge) {
            return s;
        }
    }
    return 0;
}

static void put_credentials(struct ew_client *c, uint32_t client, char *buf, size_t room)
{
    char password[40], hex[2 * HF_SIP_HASH_MAX];
    uint8_t secret[HF_SIP_HASH_MAX];
    buf[0] = 0;
    if (!c->nonce[0]) {
        return;
    }
    snprintf(password, sizeof(password), "pw-%s", cast_client(client));
    struct hf_sip_credentials d = {.username = hf_slice_str(cast_client(client)),
                                   .realm = S("example.com"),
                                   .nonce = hf_slice_str(c->nonce),
                                   .uri = hf_slice_str(c->uri),
                                   .cnonce = S("cc"),
                                   .algorithm = HF_SIP_SHA256,
                                   .nc = ++c->nc};
    if (hf_sip_secret(d.algorithm, d.username, d.realm, hf_slice_str(password), secret) ||
        hf_sip_digest_response(&d, S("REGISTER"), secret, hex)) {
        exit(2);
    }
    snprintf(buf, room,
             "Authorization: Digest username=\"%s\", realm=\"example.com\", nonce=\"%s\", "
             "uri=\"%s\", response=\"%.64s\", algorithm=SHA-256, cnonce=\"cc\", qop=auth, "
             "nc=%08x\r\n",
             cast_client(client), c->nonce, c->uri, hex, c->nc);
}

/* Forged marks and epochs (I8). */
static const char *forgery(struct ew_world *w, const struct ew_client *c)
{
    static char line[120];
    line[0] = 0;
    if (c->forges) {
        snprintf(line, sizeof(line),
                 "Holdfast-Hop: %u;epoch=%" PRIu64 ";offer;tag=%016" PRIx64 "%016" PRIx64 "\r\n",
                 (unsigned)ew_below(w, 3), ew_below(w, 100), ew_below(w, UINT64_MAX),
                 ew_below(w, UINT64_MAX));
    }
    return line;
}

static void send_register(struct ew_world *w, uint32_t client)
{
    struct ew_client *c = &w->client[client];
    const char *name = cast_client(client);
    char credentials[600], foreign[120] = "", text[EW_TEXT];
    put_credentials(c, client, credentials, sizeof(credentials));
    c->cseq++;
    c->seen = 0;
    c->tries = 0;
    c->waits = true;
    if (c->place == EW_FOREIGN) {
        snprintf(foreign, sizeof(foreign), "Via: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKx%u\r\n",
                 c->cseq);
    }
    int n = snprintf(text, sizeof(text),
                     "REGISTER %s SIP/2.0\r\n"
                     "Via: SIP/2.0/%s 192.0.2.%u;branch=z9hG4bK%s%u;rport\r\n"
                     "%s"
                     "Max-Forwards: 70\r\n"
                     "From: <sip:%s@example.com>;tag=%s\r\n"
                     "To: <sip:%s@example.com>\r\n"
                     "Call-ID: %s-%u\r\n"
                     "CSeq: %u REGISTER\r\n"
                     "Contact: <sip:%s@192.0.2.%u%s>\r\n"
                     "User-Agent: %s\r\n"
                     "%s%s"
                     "Content-Length: 0\r\n\r\n",
                     c->uri, c->tcp ? "TCP" : "UDP", client + 1, name, c->cseq, foreign, name, name,
                     name, name, c->call_id, c->cseq, name, client + 1,
                     c->tcp ? ";transport=tcp" : "", name, credentials, forgery(w, c));
    c->n = (size_t)n;
    memcpy(c->text, text, c->n);
    ew_client_sends(w, client, c->registrar, hf_slice(c->text, c->n));
    if (!w->by_hand) {
        ew_set_timer(w, client, PATIENCE, false);
        ew_set_timer(w, client, HF_MS(500), true);
    }
}

void ew_register(struct ew_world *w, uint32_t client)
{
    struct ew_client *c = &w->client[client];
    c->request++;
    c->registers++;
    c->hops = c->redirects = c->challenges = 0;
    c->backup[0] = 0;
    w->n_registers++;
    if (!c->uri[0]) {
        snprintf(c->uri, sizeof(c->uri), "sip:example.com");
    }
    if (c->place == EW_FOREIGN && !w->by_hand) {
        c->registrar = any_server(w, false);
    }
    send_register(w, client);
}

void ew_client_retransmits(struct ew_world *w, uint32_t client, uint32_t request)
{
    struct ew_client *c = &w->client[client];
    if (request != c->request || !c->waits || c->tcp) {
        return;
    }
    ew_client_sends(w, client, c->registrar, hf_slice(c->text, c->n));
    ew_set_timer(w, client, HF_MS(500) << (++c->tries < 3 ? c->tries : 3), true);
}

static void begin_again(struct ew_world *w, uint32_t client, hf_time in)
{
    struct ew_client *c = &w->client[client];
    c->waits = false;
    c->failures++;
    c->request++;
    if (!w->by_hand) {
        c->registrar = any_server(w, c->place == EW_EDGE);
        snprintf(c->uri, sizeof(c->uri), "sip:example.com");
        ew_set_timer(w, client, in, false);
    }
}

void ew_client_timer(struct ew_world *w, uint32_t client, uint32_t request)
{
    struct ew_client *c = &w->client[client];
    if (request != c->request) {
        return;
    }
    if (!c->waits) {
        ew_register(w, client);
        return;
    }
    if (c->backup[0]) { /* the second Contact of the 302 */
        memcpy(c->uri, c->backup, sizeof(c->uri));
        c->backup[0] = 0;
        c->registrar = (uint16_t)(atoi(strrchr(c->uri, '@') ? strrchr(c->uri, '.') + 1
                                                            : strstr(c->uri, "10.0.0.") + 7) -
                                  1);
        c->request++;
        send_register(w, client);
        return;
    }
    begin_again(w, client, HF_MS(100));
}

/* --- answers --- */

static bool contact(unsigned i, char *ret_uri, size_t room)
{
    struct hf_sip_walk walk;
    struct hf_sip_address a;
    hf_sip_walk_begin(&walk, &msg, HF_SIP_H_CONTACT);
    for (unsigned k = 0; hf_sip_walk_address(&walk, &a) == 1; k++) {
        if (k == i) {
            snprintf(ret_uri, room, "%.*s", HF_SLICE_FMT(a.uri.text));
            return true;
        }
    }
    return false;
}

static void redirected(struct ew_world *w, uint32_t client)
{
    struct ew_client *c = &w->client[client];
    w->n_redirects++;
    if (c->place != EW_INTERNAL) {
        ew_failed(w, "%s is redirected, and is not internal", cast_client(client));
    }
    if (c->habit == EW_IGNORES) {
        ew_tell(w, "%s takes the 302 for a failure", cast_client(client));
        begin_again(w, client, GIVE_UP);
        return;
    }
    if (++c->redirects > 8) {
        ew_failed(w, "%s is redirected without an end", cast_client(client));
    }
    if (!contact(0, c->uri, sizeof(c->uri)) || strncmp(c->uri, "sip:10.0.0.", 11) != 0) {
        ew_failed(w, "%s is redirected nowhere: %s", cast_client(client), c->uri);
    }
    c->backup[0] = 0;
    (void)contact(1, c->backup, sizeof(c->backup));
    c->registrar = (uint16_t)(atoi(c->uri + 11) - 1);
    if (c->habit == EW_STRIPS) {
        snprintf(c->uri, sizeof(c->uri), "sip:10.0.0.%u", c->registrar + 1u);
    }
    c->hops = c->seen - (c->registrar == c->last); /* offered itself: no other one */
    c->request++;
    send_register(w, client);
}

static void challenged(struct ew_world *w, uint32_t client)
{
    struct ew_client *c = &w->client[client];
    struct hf_slice v;
    w->n_challenged++;
    if (hf_sip_has(&msg, HF_SIP_H_WWW_AUTHENTICATE)) {
        v = hf_sip_field_value(&msg, msg.first[HF_SIP_H_WWW_AUTHENTICATE]);
        const char *at = memmem(v.p, v.n, "nonce=\"", 7);
        snprintf(c->nonce, sizeof(c->nonce), "%.56s", at ? at + 7 : "");
        c->nc = 0;
    }
    if (++c->challenges > 8) {
        ew_failed(w, "%s is challenged without an end", cast_client(client));
    }
    c->request++;
    send_register(w, client);
}

static void registered(struct ew_world *w, uint32_t client)
{
    struct ew_client *c = &w->client[client];
    struct hf_sip_walk walk;
    struct hf_sip_address a;
    uint32_t s = 0;
    char own[60];
    snprintf(own, sizeof(own), "sip:%s@192.0.2.%u%s", cast_client(client), client + 1,
             c->tcp ? ";transport=tcp" : "");
    hf_sip_walk_begin(&walk, &msg, HF_SIP_H_CONTACT);
    while (hf_sip_walk_address(&walk, &a) == 1) {
        if (hf_slice_eq(a.uri.text, hf_slice_str(own))) {
            (void)hf_sip_address_expires(&a, &s);
        }
    }
    if (s == 0) {
        ew_failed(w, "%s gets 200 without its contact", cast_client(client));
    }
    w->n_served++;
    c->waits = false;
    c->request++;
    c->registered = w->net.now + HF_S((hf_time)s);
    ew_tell(w, "%s is registered for %u s", cast_client(client), s);
    if (!w->by_hand) {
        ew_set_timer(w, client, HF_S((hf_time)s) / 2 - (hf_time)ew_below(w, HF_S(s) / 4), false);
    }
}

/* --- watching --- */

static void watch_id(const struct ew_world *w, uint32_t client, char ret_id[40])
{
    snprintf(ret_id, 40, "w-%s-%u", cast_client(client), w->client[client].watch.id);
}

static bool is_watch(const struct ew_world *w, uint32_t client)
{
    char id[40];
    watch_id(w, client, id);
    return hf_slice_eq(msg.call_id, hf_slice_str(id));
}

static void send_subscribe(struct ew_world *w, uint32_t client, const char *uri, uint16_t server)
{
    struct ew_client *c = &w->client[client];
    struct ew_watch *x = &c->watch;
    char text[1500], id[40];
    bool tcp = c->tcp;
    watch_id(w, client, id);
    x->status = 0;
    x->cseq++;
    int n = snprintf(text, sizeof(text),
                     "SUBSCRIBE %s SIP/2.0\r\n"
                     "Via: SIP/2.0/UDP 192.0.2.%u;branch=z9hG4bKw%s%u-%u;rport\r\n"
                     "Via: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKv%u-%u\r\n"
                     "Max-Forwards: 69\r\n"
                     "From: <sip:%s@example.com>;tag=%s\r\n"
                     "To: <sip:%s@example.com>%s%s\r\n"
                     "Call-ID: %s\r\n"
                     "CSeq: %u SUBSCRIBE\r\n"
                     "Contact: <sip:%s@192.0.2.%u>\r\n"
                     "Event: presence\r\n"
                     "Expires: 7000\r\n"
                     "Content-Length: 0\r\n\r\n",
                     uri, client + 1, cast_client(client), x->id, x->cseq, x->id, x->cseq,
                     cast_client(client), id, cast_client(x->whom), x->tag[0] ? ";tag=" : "",
                     x->tag, id, x->cseq, cast_client(client), client + 1);
    c->tcp = false;
    ew_client_sends(w, client, server, hf_slice(text, (size_t)n));
    c->tcp = tcp;
}

void ew_watch(struct ew_world *w, uint32_t client, uint32_t whom, uint16_t server)
{
    struct ew_watch *x = &w->client[client].watch;
    char uri[60];
    *x = (struct ew_watch){.wants = true, .whom = whom, .id = x->id + 1, .timer = x->timer};
    snprintf(uri, sizeof(uri), "sip:%s@example.com", cast_client(whom));
    send_subscribe(w, client, uri, server);
    if (!w->by_hand) {
        ew_set_watch_timer(w, client, HF_S(32)); /* timer N (RFC 6665 4.1.2.4) */
    }
}

void ew_watch_timer(struct ew_world *w, uint32_t client, uint32_t timer)
{
    struct ew_watch *x = &w->client[client].watch;
    if (timer == x->timer && !x->active) {
        ew_watch(w, client, x->whom, any_server(w, false));
    }
}

void ew_watch_refresh(struct ew_world *w, uint32_t client)
{
    const struct ew_watch *x = &w->client[client].watch;
    send_subscribe(w, client, x->target, (uint16_t)(atoi(x->target + 11) - 1));
}

static void subscribed(struct ew_world *w, uint32_t client)
{
    struct ew_watch *x = &w->client[client].watch;
    if (!is_watch(w, client) || msg.cseq != x->cseq || msg.status < 200) {
        return;
    }
    x->status = msg.status;
    if (msg.status >= 300 && !x->active && !w->by_hand) {
        ew_set_watch_timer(w, client, HF_S(5));
    }
}

/* What is answered. */
static uint16_t notified(struct ew_world *w, uint32_t client)
{
    struct ew_watch *x = &w->client[client].watch;
    struct hf_slice tag = hf_sip_address_tag(&msg.from), state;
    bool ends = hf_sip_one(&msg, HF_SIP_H_SUBSCRIPTION_STATE, &state) == 1 &&
                hf_slice_starts(state, S("terminated"));
    if (!is_watch(w, client) || (x->tag[0] && !hf_slice_eq(tag, hf_slice_str(x->tag)))) {
        w->n_repeats += ends;
        return 481; /* over, or never ours */
    }
    snprintf(x->tag, sizeof(x->tag), "%.*s", HF_SLICE_FMT(tag));
    (void)contact(0, x->target, sizeof(x->target));
    x->active = !ends;
    x->was_kept = x->was_kept || ew_is_kept(w, x->whom, x->tag);
    if (ends) {
        w->n_told++;
        ew_tell(w, "%s is to subscribe again", cast_client(client));
        x->id++; /* that dialog is over */
        if (!w->by_hand) {
            ew_set_watch_timer(w, client, HF_MS(100));
        }
    }
    return 200;
}

/* By way of somebody's proxy, so that it is not redirected. */
static void send_call(struct ew_world *w, uint32_t client, uint32_t callee, uint16_t server,
                      const char *method, const char *tag)
{
    struct ew_client *c = &w->client[client];
    char text[1000];
    bool tcp = c->tcp, message = strcmp(method, "MESSAGE") == 0;
    int n = snprintf(text, sizeof(text),
                     "%s sip:%s@example.com SIP/2.0\r\n"
                     "Via: SIP/2.0/UDP 192.0.2.%u;branch=z9hG4bKm%s%u;rport\r\n"
                     "Via: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKy%u\r\n"
                     "Max-Forwards: 69\r\n"
                     "From: <sip:%s@example.com>;tag=m%s\r\n"
                     "To: <sip:%s@example.com>%s\r\n"
                     "Call-ID: m-%s-%u\r\n"
                     "CSeq: %u %s\r\n"
                     "%s",
                     method, cast_client(callee), client + 1, cast_client(client), c->call, c->call,
                     cast_client(client), cast_client(client), cast_client(callee), tag,
                     cast_client(client), c->call, c->call, method,
                     message ? "Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
                             : "Content-Length: 0\r\n\r\n");
    c->tcp = false;
    ew_client_sends(w, client, server, hf_slice(text, (size_t)n));
    c->tcp = tcp;
}

/* Of a MESSAGE or an INVITE. */
static void hears_answer(struct ew_world *w, uint32_t client, const struct hf_sip_flow *flow)
{
    struct ew_client *c = &w->client[client];
    struct hf_slice tag = hf_sip_address_tag(&msg.to);
    char to_tag[100];
    if (msg.cseq != c->call || msg.status < 180) {
        return;
    }
    c->call_status = msg.status;
    if (msg.method == HF_SIP_INVITE && msg.status >= 300) {
        c->refused++;
        snprintf(to_tag, sizeof(to_tag), ";tag=%.*s", HF_SLICE_FMT(tag));
        send_call(w, client, c->callee, (uint16_t)(flow->peer.addr[3] - 1), "ACK", to_tag);
    }
}

static void hears_response(struct ew_world *w, uint32_t client, const struct hf_sip_flow *flow)
{
    struct ew_client *c = &w->client[client];
    uint32_t retry;
    if (msg.status == 482) {
        ew_failed(w, "%s gets 482, and nothing loops here", cast_client(client));
    }
    if (msg.method == HF_SIP_MESSAGE || msg.method == HF_SIP_INVITE) {
        hears_answer(w, client, flow);
        return;
    }
    if (msg.method == HF_SIP_SUBSCRIBE) {
        subscribed(w, client);
        return;
    }
    if (msg.method != HF_SIP_REGISTER || !c->waits || msg.cseq != c->cseq) {
        return;
    }
    switch (msg.status) {
    case 200:
        registered(w, client);
        break;
    case 401:
        challenged(w, client);
        break;
    case 302:
        redirected(w, client);
        break;
    case 503:
        w->n_refused++;
        if (hf_sip_retry_after_s(&msg, &retry) != 1 || retry < 1 || retry > 30) {
            ew_failed(w, "503 without Retry-After");
        }
        begin_again(w, client, HF_S((hf_time)retry));
        break;
    case 500: /* CSeq is out of order: an answer got lost, and another has come before */
        begin_again(w, client, HF_S(1));
        break;
    default:
        ew_failed(w, "%s gets %u for a REGISTER: %.*s", cast_client(client), msg.status,
                  HF_SLICE_FMT(msg.text));
    }
}

/* To the request that was just parsed. */
static void respond(struct ew_world *w, uint32_t client, const struct hf_sip_flow *flow,
                    uint16_t status)
{
    struct hf_slice s;
    struct hf_wr wr;
    char out[EW_TEXT];
    hf_wr_init(&wr, out, sizeof(out));
    if (hf_sip_begin_response(&wr, &msg, status, hf_slice(NULL, 0), S("callee"), &flow->peer) ==
            0 &&
        hf_sip_end(&wr, hf_slice(NULL, 0), hf_slice(NULL, 0), &s) == 0) {
        ew_client_sends(w, client, (uint16_t)(flow->peer.addr[3] - 1), s);
    }
}

void ew_client_hears(struct ew_world *w, uint32_t client, const struct hf_sip_flow *flow,
                     struct hf_slice text)
{
    if (hf_sip_parse(text, false, &msg)) {
        ew_failed(w, "%s gets what is malformed (%s): %.*s", cast_client(client),
                  hf_sip_fault_text(msg.fault), HF_SLICE_FMT(text));
    }
    if (hf_sip_has(&msg, HF_SIP_H_HOLDFAST_HOP)) {
        ew_failed(w, "%s sees a mark", cast_client(client));
    }
    if (!msg.request) {
        hears_response(w, client, flow);
        return;
    }
    struct ew_client *c = &w->client[client];
    if (msg.method == HF_SIP_NOTIFY) {
        respond(w, client, flow, notified(w, client));
    } else if (msg.method == HF_SIP_MESSAGE) {
        c->heard++;
        respond(w, client, flow, 200);
    } else if (msg.method == HF_SIP_INVITE) {
        snprintf(c->invite, sizeof(c->invite), "%.*s", HF_SLICE_FMT(text));
        c->ringing = *flow;
        respond(w, client, flow, 180);
    } else if (msg.method == HF_SIP_CANCEL) {
        respond(w, client, flow, 200);
        if (c->invite[0] && hf_sip_parse(hf_slice_str(c->invite), false, &msg) == 0) {
            respond(w, client, &c->ringing, 487);
            c->invite[0] = 0;
            c->cancelled++;
        }
    }
}

static void begin_call(struct ew_world *w, uint32_t client, uint32_t callee, uint16_t server,
                       const char *method)
{
    struct ew_client *c = &w->client[client];
    c->call = ++c->cseq;
    c->call_status = c->refused = 0;
    c->callee = callee;
    c->waits = false;
    c->request++;
    w->n_calls++;
    send_call(w, client, callee, server, method, "");
}

void ew_call(struct ew_world *w, uint32_t client, uint32_t callee, uint16_t server)
{
    begin_call(w, client, callee, server, "MESSAGE");
}

void ew_ring(struct ew_world *w, uint32_t client, uint32_t callee, uint16_t server)
{
    w->client[callee].invite[0] = 0;
    begin_call(w, client, callee, server, "INVITE");
}

void ew_cancel(struct ew_world *w, uint32_t client, uint16_t server)
{
    send_call(w, client, w->client[client].callee, server, "CANCEL", "");
}
