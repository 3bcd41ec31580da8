/* Clients: those that follow a 3xx, those that drop its parameters, those that ignore it. */
#include <inttypes.h>

#include "sim/sip/world.h"

#define PATIENCE HF_S(4) /* with a request, before the next address is tried */
#define GIVE_UP HF_S(30) /* before a failed registration is tried again */

static uint16_t any_server(struct sw_world *w, enum hf_sip_role role)
{
    for (unsigned i = 0; i < 100; i++) {
        uint16_t s = (uint16_t)sw_below(w, w->n_servers);
        if ((w->server[s].role == HF_SIP_ROLE_EDGE) == (role == HF_SIP_ROLE_EDGE)) {
            return s;
        }
    }
    return 0;
}

/* Where it begins if it knows nothing better: what DNS says (D1), dead ones among it. */
static uint16_t from_dns(struct sw_world *w, const struct sw_client *c)
{
    return any_server(w, c->place == SW_EDGE ? HF_SIP_ROLE_EDGE : HF_SIP_ROLE_HOME);
}

static void send_register(struct sw_world *w, uint32_t client, uint16_t to)
{
    struct sw_client *c = &w->client[client];
    struct sw_msg m = {
        .client = client,
        .request = c->request,
        .kind = HF_SIP_KIND_REGISTER,
        .callee = client,
        .n_via = c->place == SW_FOREIGN ? 2 : 1,
        .carried = c->carried,
        .stamp = c->stamp,
        .credentials = c->credentials,
        .hops = c->hops,
    };
    if (c->forges) {
        m.mark = (struct hf_sip_mark){
            .hop = (uint8_t)sw_below(w, 256), .epoch = sw_below(w, UINT64_MAX), .offer = true};
        m.carried = sw_below(w, 2) ? sw_below(w, UINT64_MAX) : m.carried;
        m.stamp = w->net.now;
    }
    c->waits = true;
    sw_tell(w, "%s > %s: REGISTER%s%s", cast_client(client), cast_server(to),
            m.carried > 0 ? ", redirected" : "", m.credentials ? ", with credentials" : "");
    if (c->place == SW_FOREIGN || c->place == SW_INTERNAL || c->place == SW_EDGE) {
        sw_send(w, to, &m);
    }
    if (!w->by_hand) {
        sw_set_timer(w, client, PATIENCE);
    }
}

void sw_register(struct sw_world *w, uint32_t client)
{
    struct sw_client *c = &w->client[client];
    if (c->place == SW_FOREIGN && !w->by_hand) {
        c->registrar = from_dns(w, c); /* the proxy's choice each time */
    }
    c->request++;
    c->registers++;
    c->hops = c->redirects = 0;
    c->credentials = false;
    c->since = w->net.now;
    c->backup = HF_SIP_NONE;
    w->n_requests++;
    send_register(w, client, c->registrar);
}

void sw_call(struct sw_world *w, uint32_t client, uint32_t callee, uint16_t server)
{
    struct sw_msg m = {
        .client = client,
        .request = UINT32_MAX,
        .kind = HF_SIP_KIND_CALL,
        .callee = callee,
        .n_via = 2, /* calls of internal clients are redirected, too, but phones differ there */
        .credentials = true,
    };
    w->n_calls++;
    sw_tell(w, "%s > %s: INVITE %s", cast_client(client), cast_server(server), cast_client(callee));
    sw_send(w, server, &m);
}

static void begin_again(struct sw_world *w, uint32_t client, hf_time in)
{
    struct sw_client *c = &w->client[client];
    c->waits = false;
    c->failures++;
    c->request++; /* what is under way is void */
    if (!w->by_hand) {
        c->registrar = from_dns(w, c);
        c->carried = 0;
        sw_set_timer(w, client, in);
    }
}

static void follow(struct sw_world *w, const struct sw_msg *m)
{
    struct sw_client *c = &w->client[m->client];
    if (c->habit == SW_IGNORES) {
        sw_tell(w, "%s: takes the 302 for a failure", cast_client(m->client));
        begin_again(w, m->client, GIVE_UP);
        return;
    }
    if (++c->redirects > 8) {
        sw_failed(w, "%s is redirected without an end", cast_client(m->client));
    }
    c->registrar = m->target;
    c->backup = m->backup;
    c->carried = c->habit == SW_FOLLOWS ? m->epoch : 0;
    c->stamp = w->net.now;
    c->credentials = true; /* the nonce is good everywhere (S6) */
    send_register(w, m->client, m->target);
}

void sw_client_hears(struct sw_world *w, const struct sw_msg *m)
{
    struct sw_client *c = &w->client[m->client];
    if (m->kind == HF_SIP_KIND_CALL) {
        w->n_found += m->status == 180;
        sw_tell(w, "%s: %u for the call to %s", cast_client(m->client), m->status,
                cast_client(m->callee));
        return;
    }
    if (m->request != c->request || !c->waits) {
        return; /* it has given up meanwhile */
    }
    switch (m->status) {
    case 200:
        c->waits = false;
        c->registered = w->net.now + m->expires;
        c->request++;
        sw_tell(w, "%s: registered for %d s, after %u server%s", cast_client(m->client),
                (int)(m->expires / HF_NS_PER_S), m->hops, m->hops == 1 ? "" : "s");
        if (!w->by_hand) {
            sw_set_timer(w, m->client,
                         m->expires / 2 - (hf_time)sw_below(w, (uint64_t)m->expires / 4));
        }
        break;
    case 401:
        if (c->credentials) {
            sw_failed(w, "%s is challenged though its credentials are good",
                      cast_client(m->client));
        }
        c->credentials = true;
        c->hops = m->hops - m->n_path; /* the same way again */
        send_register(w, m->client, m->path[0]);
        break;
    case 302:
        c->hops =
            m->hops - (m->target == m->path[m->n_path - 1]); /* offered itself: no other one */
        follow(w, m);
        break;
    case 503:
        if (m->retry_after < 1 || m->retry_after > 30) {
            sw_failed(w, "503 with Retry-After %u", m->retry_after);
        }
        sw_tell(w, "%s: 503", cast_client(m->client));
        begin_again(w, m->client, HF_S(m->retry_after));
        break;
    default:
        sw_failed(w, "%s gets %u for a REGISTER", cast_client(m->client), m->status);
    }
}

void sw_client_timer(struct sw_world *w, uint32_t client, uint32_t request)
{
    struct sw_client *c = &w->client[client];
    if (request != c->request) {
        return;
    }
    if (!c->waits) {
        sw_register(w, client);
        return;
    }
    if (c->backup != HF_SIP_NONE) { /* the second Contact of the 302 */
        uint16_t to = c->backup;
        c->backup = HF_SIP_NONE;
        c->registrar = to;
        c->request++;
        send_register(w, client, to);
        return;
    }
    begin_again(w, client, HF_MS(100));
}
