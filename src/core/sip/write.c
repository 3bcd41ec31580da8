#include "core/sip/write.h"

#include <assert.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/hex.h"

#define S(x) hf_slice((x), sizeof(x) - 1)
#define EOL S("\r\n")

static const struct {
    uint16_t status;
    const char *text;
} reasons[] = {
    {100, "Trying"},
    {180, "Ringing"},
    {181, "Call Is Being Forwarded"},
    {182, "Queued"},
    {183, "Session Progress"},
    {199, "Early Dialog Terminated"},
    {200, "OK"},
    {202, "Accepted"},
    {204, "No Notification"},
    {300, "Multiple Choices"},
    {301, "Moved Permanently"},
    {302, "Moved Temporarily"},
    {305, "Use Proxy"},
    {380, "Alternative Service"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {407, "Proxy Authentication Required"},
    {408, "Request Timeout"},
    {410, "Gone"},
    {412, "Conditional Request Failed"},
    {413, "Request Entity Too Large"},
    {414, "Request-URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Unsupported URI Scheme"},
    {417, "Unknown Resource-Priority"},
    {420, "Bad Extension"},
    {421, "Extension Required"},
    {422, "Session Interval Too Small"},
    {423, "Interval Too Brief"},
    {424, "Bad Location Information"},
    {428, "Use Identity Header"},
    {429, "Provide Referrer Identity"},
    {430, "Flow Failed"},
    {433, "Anonymity Disallowed"},
    {436, "Bad Identity Info"},
    {437, "Unsupported Credential"},
    {438, "Invalid Identity Header"},
    {439, "First Hop Lacks Outbound Support"},
    {440, "Max-Breadth Exceeded"},
    {469, "Bad Info Package"},
    {470, "Consent Needed"},
    {480, "Temporarily Unavailable"},
    {481, "Call/Transaction Does Not Exist"},
    {482, "Loop Detected"},
    {483, "Too Many Hops"},
    {484, "Address Incomplete"},
    {485, "Ambiguous"},
    {486, "Busy Here"},
    {487, "Request Terminated"},
    {488, "Not Acceptable Here"},
    {489, "Bad Event"},
    {491, "Request Pending"},
    {493, "Undecipherable"},
    {494, "Security Agreement Required"},
    {500, "Server Internal Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Server Time-out"},
    {505, "Version Not Supported"},
    {513, "Message Too Large"},
    {555, "Push Notification Service Not Supported"},
    {580, "Precondition Failure"},
    {600, "Busy Everywhere"},
    {603, "Decline"},
    {604, "Does Not Exist Anywhere"},
    {606, "Not Acceptable"},
    {607, "Unwanted"},
};

const char *hf_sip_reason(uint16_t status)
{
    size_t low = 0, high = HF_ARRAY_LEN(reasons);
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (reasons[mid].status == status) {
            return reasons[mid].text;
        }
        if (reasons[mid].status < status) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return "Unknown";
}

/* --- pieces --- */

void hf_sip_put_str(struct hf_wr *w, const char *s)
{
    hf_wr_bytes(w, hf_slice_str(s));
}

void hf_sip_put_u64(struct hf_wr *w, uint64_t v)
{
    char text[20];
    size_t n = 0;
    do {
        text[sizeof(text) - ++n] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    hf_wr_bytes(w, hf_slice(text + sizeof(text) - n, n));
}

void hf_sip_put_param(struct hf_wr *w, const struct hf_sip_param *p)
{
    hf_wr_u8(w, ';');
    hf_wr_bytes(w, p->name);
    if (p->value.p) {
        hf_wr_u8(w, '=');
        hf_wr_bytes(w, p->value);
    }
}

/* A value of the caller's: with a line end in it, it would be more than one field. */
static void put_value(struct hf_wr *w, struct hf_slice s)
{
    if (s.n && (memchr(s.p, '\r', s.n) || memchr(s.p, '\n', s.n)) && !w->err) {
        w->err = -HF_EVALUE;
    }
    hf_wr_bytes(w, s);
}

/* Bytes of a message, as they are; of a faulty one without what may have been its fault. */
static void put_copy(struct hf_wr *w, const struct hf_sip_msg *m, struct hf_slice s)
{
    if (m->fault == HF_SIP_OK) {
        hf_wr_bytes(w, s);
        return;
    }
    for (size_t i = 0; i < s.n; i++) {
        hf_wr_u8(w, hf_sip_class[s.p[i]] & HF_SIP_C_CONTROL ? ' ' : s.p[i]);
    }
}

void hf_sip_put_quoted(struct hf_wr *w, struct hf_slice s)
{
    hf_wr_u8(w, '"');
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"' || s.p[i] == '\\') {
            hf_wr_u8(w, '\\');
        }
        if (!(hf_sip_class[s.p[i]] & HF_SIP_C_CONTROL)) {
            hf_wr_u8(w, s.p[i]);
        }
    }
    hf_wr_u8(w, '"');
}

void hf_sip_put_name(struct hf_wr *w, enum hf_sip_field_id id)
{
    hf_sip_put_str(w, hf_sip_field_name(id));
    hf_wr_bytes(w, S(": "));
}

void hf_sip_put_eol(struct hf_wr *w)
{
    hf_wr_bytes(w, EOL);
}

void hf_sip_put_field(struct hf_wr *w, enum hf_sip_field_id id, struct hf_slice value)
{
    hf_sip_put_name(w, id);
    put_value(w, value);
    hf_sip_put_eol(w);
}

void hf_sip_put_number(struct hf_wr *w, enum hf_sip_field_id id, uint64_t v)
{
    hf_sip_put_name(w, id);
    hf_sip_put_u64(w, v);
    hf_sip_put_eol(w);
}

/* A header line without its end. */
static void put_line(struct hf_wr *w, const struct hf_sip_msg *m, size_t i)
{
    struct hf_slice name = hf_sip_field_text(m, i), value = hf_sip_field_value(m, i);
    put_copy(w, m, hf_slice(name.p, (size_t)(value.p + value.n - name.p)));
}

void hf_sip_put_copies(struct hf_wr *w, const struct hf_sip_msg *m, enum hf_sip_field_id id)
{
    for (uint8_t i = hf_sip_has(m, id) ? m->first[id] : HF_SIP_NO_FIELD; i != HF_SIP_NO_FIELD;
         i = m->field[i].next) {
        put_line(w, m, i);
        hf_sip_put_eol(w);
    }
}

int hf_sip_end(struct hf_wr *w, struct hf_slice type, struct hf_slice body,
               struct hf_slice *ret_message)
{
    if (type.n) {
        hf_sip_put_field(w, HF_SIP_H_CONTENT_TYPE, type);
    }
    hf_sip_put_number(w, HF_SIP_H_CONTENT_LENGTH, body.n);
    hf_sip_put_eol(w);
    hf_wr_bytes(w, body);
    return hf_wr_end(w, ret_message);
}

/* --- Via --- */

static bool came_from_sent_by(const struct hf_sip_via *v, const struct hf_endpoint *source)
{
    return (v->sent_by.kind == HF_SIP_HOST_IPV4 && source->family == HF_AF_INET &&
            memcmp(v->sent_by.addr, source->addr, 4) == 0) ||
           (v->sent_by.kind == HF_SIP_HOST_IPV6 && source->family == HF_AF_INET6 &&
            memcmp(v->sent_by.addr, source->addr, 16) == 0);
}

/* A Via value with received and rport as the source wants them (18.2.1; RFC 3581 4; RFC 5118 4.5:
 * received without brackets). */
static void put_stamped(struct hf_wr *w, const struct hf_sip_via *v,
                        const struct hf_endpoint *source)
{
    struct hf_sip_cur c = hf_sip_cur(v->params);
    struct hf_sip_param p;
    hf_wr_bytes(w, hf_slice(v->text.p, v->text.n - v->params.n));
    while (hf_sip_param_next(&c, &p) == 1) {
        if (!hf_sip_eq(p.name, S("received")) && !hf_sip_eq(p.name, S("rport"))) {
            hf_sip_put_param(w, &p);
        }
    }
    if (v->has_rport) {
        hf_wr_bytes(w, S(";rport="));
        hf_sip_put_u64(w, source->port);
    }
    if (v->has_rport || !came_from_sent_by(v, source)) {
        char text[HF_SIP_IPV6_TEXT_MAX];
        size_t n = source->family == HF_AF_INET6 ? hf_sip_ipv6_text(source->addr, text)
                                                 : hf_sip_ipv4_text(source->addr, text);
        hf_wr_bytes(w, S(";received="));
        hf_wr_bytes(w, hf_slice(text, n));
    }
}

/* The first Via line, its first value stamped; source may be NULL. */
static void put_top_via(struct hf_wr *w, const struct hf_sip_msg *m,
                        const struct hf_endpoint *source)
{
    size_t i = m->first[HF_SIP_H_VIA];
    if (!source || m->via.text.n == 0) {
        put_line(w, m, i);
    } else {
        struct hf_slice value = hf_sip_field_value(m, i);
        size_t before = (size_t)(m->via.text.p + m->via.text.n - value.p);
        hf_sip_put_name(w, HF_SIP_H_VIA);
        put_stamped(w, &m->via, source);
        put_copy(w, m, hf_slice(value.p + before, value.n - before));
    }
    hf_sip_put_eol(w);
}

static void put_vias(struct hf_wr *w, const struct hf_sip_msg *m, const struct hf_endpoint *source)
{
    put_top_via(w, m, source);
    for (uint8_t i = m->field[m->first[HF_SIP_H_VIA]].next; i != HF_SIP_NO_FIELD;
         i = m->field[i].next) {
        put_line(w, m, i);
        hf_sip_put_eol(w);
    }
}

static void put_own_via(struct hf_wr *w, enum hf_sip_transport transport, struct hf_slice sent_by,
                        struct hf_slice branch, struct hf_slice params, bool rport)
{
    assert(sent_by.n && branch.n && transport < HF_SIP_TRANSPORT_OTHER);
    hf_wr_bytes(w, S("Via: SIP/2.0/"));
    hf_sip_put_str(w, hf_sip_transport_name(transport));
    hf_wr_u8(w, ' ');
    put_value(w, sent_by);
    hf_wr_bytes(w, S(";branch="));
    put_value(w, branch);
    put_value(w, params);
    if (rport) {
        hf_wr_bytes(w, S(";rport"));
    }
    hf_sip_put_eol(w);
}

/* --- responses --- */

/* The first line of a field that should be there once. */
static void put_first(struct hf_wr *w, const struct hf_sip_msg *m, enum hf_sip_field_id id)
{
    if (hf_sip_has(m, id)) {
        put_line(w, m, m->first[id]);
        hf_sip_put_eol(w);
    }
}

static void put_to(struct hf_wr *w, const struct hf_sip_msg *m, struct hf_slice tag)
{
    if (!hf_sip_has(m, HF_SIP_H_TO)) {
        return;
    }
    put_line(w, m, m->first[HF_SIP_H_TO]);
    if (tag.n && m->to.text.n && hf_sip_address_tag(&m->to).n == 0) {
        hf_wr_bytes(w, S(";tag="));
        put_value(w, tag);
    }
    hf_sip_put_eol(w);
}

static void put_status_line(struct hf_wr *w, uint16_t status, struct hf_slice reason)
{
    hf_wr_bytes(w, S("SIP/2.0 "));
    hf_sip_put_u64(w, status);
    hf_wr_u8(w, ' ');
    put_value(w, reason);
    hf_sip_put_eol(w);
}

int hf_sip_begin_response(struct hf_wr *w, const struct hf_sip_msg *request, uint16_t status,
                          struct hf_slice reason, struct hf_slice to_tag,
                          const struct hf_endpoint *source)
{
    if (!hf_sip_answerable(request)) {
        return -HF_EMALF;
    }
    put_status_line(w, status, reason.n ? reason : hf_slice_str(hf_sip_reason(status)));
    put_vias(w, request, source);
    put_first(w, request, HF_SIP_H_FROM);
    put_to(w, request, to_tag);
    put_first(w, request, HF_SIP_H_CALL_ID);
    put_first(w, request, HF_SIP_H_CSEQ);
    return w->err;
}

/* RFC 4475 3.3.10: a Via that would have us shout. */
static bool is_broadcast(const struct hf_sip_msg *m)
{
    struct hf_sip_walk w;
    struct hf_sip_via v;
    hf_sip_walk_begin(&w, m, HF_SIP_H_VIA);
    for (int i = 0; i < 2; i++) {
        if (hf_sip_walk_via(&w, &v) != 1) {
            return false;
        }
    }
    uint8_t addr[4] = {0};
    if (v.received.n) {
        hf_sip_ipv4(v.received, addr);
    } else if (v.sent_by.kind == HF_SIP_HOST_IPV4) {
        memcpy(addr, v.sent_by.addr, 4);
    }
    return addr[0] >= 224; /* multicast, reserved, broadcast */
}

int hf_sip_begin_relay(struct hf_wr *w, const struct hf_sip_msg *response)
{
    const struct hf_sip_msg *m = response;
    if (m->fault != HF_SIP_OK || m->request || m->n_vias < 2) {
        return -HF_EMALF;
    }
    if (is_broadcast(m)) {
        return -HF_EVALUE;
    }
    put_status_line(w, m->status, m->reason);
    for (uint8_t i = 0; i < m->n_fields; i++) {
        enum hf_sip_field_id id = m->field[i].id;
        if (id == HF_SIP_H_VIA && i == m->first[id]) {
            struct hf_slice value = hf_sip_field_value(m, i);
            size_t n = (size_t)(m->via.text.p + m->via.text.n - value.p);
            struct hf_sip_cur c = hf_sip_cur(hf_slice(value.p + n, value.n - n));
            if (hf_sip_separator(&c, ',')) {
                hf_sip_put_name(w, id);
                hf_wr_bytes(w, hf_sip_left(&c));
                hf_sip_put_eol(w);
            }
        } else if (id != HF_SIP_H_CONTENT_LENGTH) {
            put_line(w, m, i);
            hf_sip_put_eol(w);
        }
    }
    return w->err;
}

/* --- requests --- */

static void put_request_line(struct hf_wr *w, struct hf_slice method, struct hf_slice uri)
{
    put_value(w, method);
    hf_wr_u8(w, ' ');
    put_value(w, uri);
    hf_wr_bytes(w, S(" SIP/2.0\r\n"));
}

static void put_if(struct hf_wr *w, enum hf_sip_field_id id, struct hf_slice value)
{
    if (value.n) {
        hf_sip_put_field(w, id, value);
    }
}

/* Values of Route; -HF_EMALF. */
static int count_routes(const struct hf_sip_msg *m, size_t *ret_n)
{
    struct hf_sip_walk w;
    struct hf_sip_address a;
    int rc;
    *ret_n = 0;
    hf_sip_walk_begin(&w, m, HF_SIP_H_ROUTE);
    while ((rc = hf_sip_walk_address(&w, &a)) == 1) {
        ++*ret_n;
    }
    return rc;
}

/* The Routes from `from` to before `to`, a line each. */
static void put_routes(struct hf_wr *w, const struct hf_sip_msg *m, size_t from, size_t to)
{
    struct hf_sip_walk walk;
    struct hf_sip_address a;
    hf_sip_walk_begin(&walk, m, HF_SIP_H_ROUTE);
    for (size_t i = 0; i < to && hf_sip_walk_address(&walk, &a) == 1; i++) {
        if (i >= from) {
            hf_sip_put_name(w, HF_SIP_H_ROUTE);
            hf_wr_bytes(w, a.text);
            hf_sip_put_eol(w);
        }
    }
}

int hf_sip_begin_forward(struct hf_wr *w, const struct hf_sip_msg *request,
                         const struct hf_sip_forward *how)
{
    const struct hf_sip_msg *m = request;
    size_t n_routes;
    if (m->fault != HF_SIP_OK || !m->request || count_routes(m, &n_routes)) {
        return -HF_EMALF;
    }
    if (m->max_forwards == 0) {
        return -HF_EVALUE;
    }
    size_t to = n_routes - (how->pop_last_route && n_routes > 0);
    put_request_line(w, m->method_text, how->uri.n ? how->uri : m->uri_text);
    put_own_via(w, how->transport, how->sent_by, how->branch, how->via_params, how->rport);
    put_if(w, HF_SIP_H_RECORD_ROUTE, how->record_route);
    put_if(w, HF_SIP_H_PATH, how->path);
    put_if(w, HF_SIP_H_ROUTE, how->route);
    put_routes(w, m, how->pop_routes, to);
    if (m->max_forwards < 0) {
        hf_sip_put_number(w, HF_SIP_H_MAX_FORWARDS, 70);
    }
    uint64_t drop = how->drop | 1ULL << HF_SIP_H_CONTENT_LENGTH | 1ULL << HF_SIP_H_ROUTE;
    for (uint8_t i = 0; i < m->n_fields; i++) {
        enum hf_sip_field_id id = m->field[i].id;
        if (id == HF_SIP_H_MAX_FORWARDS) {
            hf_sip_put_number(w, id, (uint64_t)m->max_forwards - 1);
        } else if (id == HF_SIP_H_VIA && i == m->first[id]) {
            put_top_via(w, m, how->source);
        } else if (!(drop >> id & 1)) {
            put_line(w, m, i);
            hf_sip_put_eol(w);
        }
    }
    return w->err;
}

int hf_sip_begin_request(struct hf_wr *w, const struct hf_sip_request *r)
{
    put_request_line(w, r->method, r->uri);
    put_own_via(w, r->transport, r->sent_by, r->branch, r->via_params, r->rport);
    put_if(w, HF_SIP_H_ROUTE, r->route);
    hf_sip_put_number(w, HF_SIP_H_MAX_FORWARDS, r->max_forwards);
    hf_sip_put_field(w, HF_SIP_H_FROM, r->from);
    hf_sip_put_field(w, HF_SIP_H_TO, r->to);
    hf_sip_put_field(w, HF_SIP_H_CALL_ID, r->call_id);
    hf_sip_put_name(w, HF_SIP_H_CSEQ);
    hf_sip_put_u64(w, r->cseq);
    hf_wr_u8(w, ' ');
    put_value(w, r->method);
    hf_sip_put_eol(w);
    put_if(w, HF_SIP_H_CONTACT, r->contact);
    return w->err;
}

/* --- stateless names --- */

/* What all messages of one transaction have in common (17.2.3): the topmost Via's branch and
 * sent-by; of RFC 2543 what else there is. */
static uint64_t transaction_hash(const struct hf_sip_msg *m, uint64_t seed)
{
    uint64_t h = hf_hash(m->via.sent_by.text, seed + m->via.sent_by.port);
    h = hf_hash(m->via.branch, h);
    if (hf_sip_via_is_3261(&m->via)) {
        return h;
    }
    h = hf_hash(m->uri_text, h);
    h = hf_hash(hf_sip_address_tag(&m->from), h);
    return hf_hash(m->call_id, h + m->cseq);
}

void hf_sip_stateless_tag(const struct hf_sip_msg *request, uint64_t seed, char ret_tag[16])
{
    uint64_t h = transaction_hash(request, seed);
    hf_hex_put_u64(hf_hash(request->call_id, h + request->cseq), 16, ret_tag);
}

void hf_sip_stateless_branch(const struct hf_sip_msg *request, struct hf_slice salt, uint64_t seed,
                             char ret_branch[HF_SIP_BRANCH_LEN])
{
    memcpy(ret_branch, HF_SIP_COOKIE, sizeof(HF_SIP_COOKIE) - 1);
    hf_hex_put_u64(hf_hash(salt, transaction_hash(request, ~seed)), 16,
                   ret_branch + sizeof(HF_SIP_COOKIE) - 1);
}
