#include "core/sip/message.h"

#include <assert.h>
#include <stddef.h>

#include "base/err.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

/* --- names --- */

static const char *const methods[] = {
#define NAME(id) #id,
    HF_SIP_METHOD_LIST(NAME)
#undef NAME
};

const char *hf_sip_method_name(enum hf_sip_method method)
{
    return method < HF_SIP_METHOD_OTHER ? methods[method] : "?";
}

/* Methods are told apart by case (RFC 3261 7.1). */
static enum hf_sip_method find_method(struct hf_slice s)
{
    for (size_t i = 0; i < HF_ARRAY_LEN(methods); i++) {
        if (s.n && s.p[0] == (uint8_t)methods[i][0] && hf_slice_eq(s, hf_slice_str(methods[i]))) {
            return (enum hf_sip_method)i;
        }
    }
    return HF_SIP_METHOD_OTHER;
}

static const struct {
    const char *name;
    uint8_t n;
    uint8_t compact;
} fields[] = {
#define ROW(id, name, compact, n, first, last) {name, n, compact},
    HF_SIP_FIELD_LIST(ROW)
#undef ROW
};
_Static_assert(HF_SIP_H_COUNT_ <= 64, "one bit each in hf_sip_msg.has");

const char *hf_sip_field_name(enum hf_sip_field_id id)
{
    return id < HF_SIP_H_OTHER ? fields[id].name : "?";
}

#define KEY(n, first, last) ((n) << 16 | (first) << 8 | (last))

enum hf_sip_field_id hf_sip_field_find(struct hf_slice name)
{
    if (name.n == 0 || name.n > 255) {
        return HF_SIP_H_OTHER;
    }
    enum hf_sip_field_id id = HF_SIP_H_OTHER;
    uint8_t first = hf_sip_lower(name.p[0]);
    if (name.n == 1) {
        for (int i = 0; i < HF_SIP_H_OTHER; i++) {
            if (fields[i].compact == first) {
                return (enum hf_sip_field_id)i;
            }
        }
        return HF_SIP_H_OTHER;
    }
    switch (KEY((int)name.n, first, hf_sip_lower(name.p[name.n - 1]))) {
#define CASE(id_, name, compact, n, first, last)                                                   \
    case KEY(n, first, last):                                                                      \
        id = HF_SIP_H_##id_;                                                                       \
        break;
        HF_SIP_FIELD_LIST(CASE)
#undef CASE
    default:
        return HF_SIP_H_OTHER;
    }
    return hf_sip_eq(name, hf_slice(fields[id].name, fields[id].n)) ? id : HF_SIP_H_OTHER;
}

static const struct {
    uint16_t status;
    const char *text;
} faults[] = {{0, "OK"},
#define ROW(id, status, text) {status, text},
              HF_SIP_FAULT_LIST(ROW)
#undef ROW
};

uint16_t hf_sip_fault_status(enum hf_sip_fault f)
{
    return faults[f].status;
}

const char *hf_sip_fault_text(enum hf_sip_fault f)
{
    return faults[f].text;
}

/* --- start line --- */

static void fail(struct hf_sip_msg *m, enum hf_sip_fault f)
{
    if (m->fault == HF_SIP_OK) {
        m->fault = f;
    }
}

/* "SIP/" 1*DIGIT "." 1*DIGIT: of SIP at all? *ret_ours: it is 2.0. */
static bool is_version(struct hf_slice s, bool *ret_ours)
{
    struct hf_sip_cur c = hf_sip_cur(s);
    struct hf_slice name = hf_sip_span(&c, HF_SIP_C_TOKEN);
    if (!hf_sip_eq(name, S("SIP")) || !hf_sip_eat(&c, '/')) {
        return false;
    }
    struct hf_slice major = hf_sip_span(&c, HF_SIP_C_DIGIT);
    if (major.n == 0 || !hf_sip_eat(&c, '.')) {
        return false;
    }
    struct hf_slice minor = hf_sip_span(&c, HF_SIP_C_DIGIT);
    *ret_ours = hf_slice_eq(major, S("2")) && hf_slice_eq(minor, S("0"));
    return minor.n && hf_sip_done(&c);
}

/* Status-Line = SIP-Version SP Status-Code SP Reason-Phrase */
static void parse_status_line(struct hf_sip_msg *m, struct hf_slice line)
{
    struct hf_sip_cur c = hf_sip_cur(line);
    bool ours = false;
    if (!is_version(hf_sip_span(&c, HF_SIP_C_VALUE), &ours) || !hf_sip_eat(&c, ' ')) {
        fail(m, HF_SIP_FAULT_START_LINE);
        return;
    }
    if (!ours) {
        fail(m, HF_SIP_FAULT_VERSION);
    }
    struct hf_slice digits = hf_sip_span(&c, HF_SIP_C_DIGIT);
    if (digits.n == 3) {
        m->status =
            (uint16_t)((digits.p[0] - '0') * 100 + (digits.p[1] - '0') * 10 + (digits.p[2] - '0'));
    }
    if (m->status < 100 || m->status > 699) {
        fail(m, HF_SIP_FAULT_STATUS);
    }
    if (!hf_sip_eat(&c, ' ') && !hf_sip_done(&c)) {
        fail(m, HF_SIP_FAULT_START_LINE);
    }
    m->reason = hf_sip_left(&c);
}

static void parse_request_uri(struct hf_sip_msg *m)
{
    switch (hf_sip_uri_parse(m->uri_text, &m->uri)) {
    case 0:
        if (m->uri.headers.p) { /* 19.1.1: not allowed there */
            fail(m, HF_SIP_FAULT_REQUEST_URI);
        }
        break;
    case -HF_EVALUE:
        fail(m, HF_SIP_FAULT_SCHEME);
        break;
    default:
        fail(m, HF_SIP_FAULT_REQUEST_URI);
    }
}

/* Request-Line = Method SP Request-URI SP SIP-Version; single spaces, or it can't be told what is
 * the URI. */
static void parse_start_line(struct hf_sip_msg *m, struct hf_slice line)
{
    struct hf_sip_cur c = hf_sip_cur(line);
    bool ours = false;
    m->request = line.n < 4 || !hf_sip_eq(hf_slice(line.p, 4), S("SIP/")); /* no method has a '/' */
    if (!m->request) {
        parse_status_line(m, line);
        return;
    }
    m->method_text = hf_sip_span(&c, HF_SIP_C_TOKEN);
    m->method = find_method(m->method_text);
    bool ok = m->method_text.n && hf_sip_eat(&c, ' ');
    struct hf_slice rest = hf_sip_left(&c);
    const uint8_t *space = rest.n ? memrchr(rest.p, ' ', rest.n) : NULL;
    if (!ok || !space) {
        fail(m, HF_SIP_FAULT_START_LINE);
        return;
    }
    m->uri_text = hf_slice(rest.p, (size_t)(space - rest.p));
    struct hf_slice version = hf_slice(space + 1, rest.n - m->uri_text.n - 1);
    if (!is_version(version, &ours) ||
        (m->uri_text.n && memchr(m->uri_text.p, ' ', m->uri_text.n))) {
        fail(m, HF_SIP_FAULT_START_LINE);
        return;
    }
    if (!ours) {
        fail(m, HF_SIP_FAULT_VERSION);
    }
    parse_request_uri(m);
}

/* --- header lines --- */

/* Is the byte at p the second one of a quoted-pair? Any but CR and LF may be (25.1). */
static bool is_escaped(const uint8_t *begin, const uint8_t *p)
{
    size_t n = 0;
    while (p - begin > (ptrdiff_t)n && p[-1 - (ptrdiff_t)n] == '\\') {
        n++;
    }
    return n & 1 && *p != '\r' && *p != '\n';
}

/* The line at c without its CRLF, stepped over; false: it does not end. */
static bool next_line(struct hf_sip_msg *m, struct hf_sip_cur *c, struct hf_slice *ret_line)
{
    const uint8_t *begin = c->p;
    for (;;) {
        hf_sip_to_control(c);
        if (hf_sip_done(c)) {
            fail(m, HF_SIP_FAULT_NO_END);
            return false;
        }
        *ret_line = hf_sip_since(c, begin);
        if (*c->p == '\r' && c->end - c->p > 1 && c->p[1] == '\n') {
            c->p += 2;
            return true;
        }
        if (!is_escaped(begin, c->p)) {
            fail(m, HF_SIP_FAULT_CONTROL);
            if (hf_sip_eat(c, '\n')) { /* for who answers: most likely it was meant so */
                return true;
            }
        }
        c->p++;
    }
}

static void add_field(struct hf_sip_msg *m, struct hf_slice line, uint8_t *last)
{
    struct hf_sip_cur c = hf_sip_cur(line);
    struct hf_slice name = hf_sip_span(&c, HF_SIP_C_TOKEN);
    if (name.n == 0 || !hf_sip_separator(&c, ':')) {
        fail(m, HF_SIP_FAULT_FIELD);
        return;
    }
    if (m->n_fields == HF_SIP_FIELDS_MAX) {
        fail(m, HF_SIP_FAULT_TOO_MANY_FIELDS);
        return;
    }
    struct hf_slice value = hf_sip_trim(hf_sip_left(&c));
    enum hf_sip_field_id id = hf_sip_field_find(name);
    uint8_t i = m->n_fields++;
    m->field[i] = (struct hf_sip_field){
        .line = (uint16_t)(line.p - m->text.p),
        .name_n = (uint16_t)name.n,
        .value = (uint16_t)(value.p - m->text.p),
        .n = (uint16_t)value.n,
        .id = (uint8_t)id,
        .next = HF_SIP_NO_FIELD,
    };
    if (id != HF_SIP_H_OTHER) {
        if (hf_sip_has(m, id)) {
            m->field[last[id]].next = i;
        } else {
            m->first[id] = i;
        }
        last[id] = i;
    }
    m->has |= (uint64_t)1 << id;
}

static void parse_header(struct hf_sip_msg *m, struct hf_sip_cur *c)
{
    uint8_t last[HF_SIP_H_COUNT_] = {0};
    struct hf_slice line, more;
    while (c->end - c->p >= 2 && c->p[0] == '\r' && c->p[1] == '\n') { /* 7.5 */
        c->p += 2;
    }
    if (!next_line(m, c, &line)) {
        fail(m, HF_SIP_FAULT_START_LINE);
        return;
    }
    parse_start_line(m, line);
    while (next_line(m, c, &line) && line.n) {
        while (hf_sip_peek(c) == ' ' || hf_sip_peek(c) == '\t') { /* folded (7.3.1) */
            if (!next_line(m, c, &more)) {
                return;
            }
            line.n = (size_t)(more.p + more.n - line.p);
        }
        add_field(m, line, last);
    }
}

/* --- what everybody needs --- */

int hf_sip_one(const struct hf_sip_msg *m, enum hf_sip_field_id id, struct hf_slice *ret_value)
{
    if (!hf_sip_has(m, id)) {
        return 0;
    }
    size_t i = m->first[id];
    *ret_value = hf_sip_field_value(m, i);
    return m->field[i].next == HF_SIP_NO_FIELD ? 1 : -HF_EMALF;
}

/* As hf_sip_one(), with the fault noted; `missing`: HF_SIP_OK if it may be. */
static bool take_one(struct hf_sip_msg *m, enum hf_sip_field_id id, enum hf_sip_fault missing,
                     struct hf_slice *ret_value)
{
    int rc = hf_sip_one(m, id, ret_value);
    if (rc < 0) {
        fail(m, HF_SIP_FAULT_REPEATED);
    } else if (rc == 0 && missing != HF_SIP_OK) {
        fail(m, missing);
    }
    return rc != 0;
}

static void take_vias(struct hf_sip_msg *m)
{
    struct hf_sip_walk w;
    struct hf_sip_via v = {.has_rport = false};
    int rc;
    hf_sip_walk_begin(&w, m, HF_SIP_H_VIA);
    while ((rc = hf_sip_walk_via(&w, &v)) == 1) {
        if (m->n_vias == 0) {
            m->via = v;
        }
        if (++m->n_vias > HF_SIP_VIAS_MAX) {
            fail(m, HF_SIP_FAULT_TOO_MANY_VIAS);
            return;
        }
    }
    if (rc && m->n_vias == 0) {
        m->via = v; /* its sent-by, if that could be read: for the answer */
    }
    if (rc || m->n_vias == 0) {
        fail(m, rc ? HF_SIP_FAULT_VIA : HF_SIP_FAULT_NO_VIA);
    }
}

static void take_address(struct hf_sip_msg *m, enum hf_sip_field_id id, enum hf_sip_fault missing,
                         enum hf_sip_fault malformed, struct hf_sip_address *ret_address)
{
    struct hf_slice s;
    if (take_one(m, id, missing, &s)) {
        struct hf_sip_cur c = hf_sip_cur(s);
        if (hf_sip_address_parse(&c, false, ret_address) || !hf_sip_done(&c)) {
            fail(m, malformed);
        }
    }
}

/* callid = word [ "@" word ] */
static void take_call_id(struct hf_sip_msg *m)
{
    if (!take_one(m, HF_SIP_H_CALL_ID, HF_SIP_FAULT_NO_CALL_ID, &m->call_id)) {
        return;
    }
    struct hf_sip_cur c = hf_sip_cur(m->call_id);
    bool ok = hf_sip_span(&c, HF_SIP_C_WORD).n > 0;
    if (hf_sip_eat(&c, '@')) {
        ok = ok && hf_sip_span(&c, HF_SIP_C_WORD).n > 0;
    }
    if (!ok || !hf_sip_done(&c)) {
        fail(m, HF_SIP_FAULT_CALL_ID);
    }
}

/* CSeq = 1*DIGIT LWS Method; below 2^31 (8.1.1.5) */
static void take_cseq(struct hf_sip_msg *m)
{
    struct hf_slice s;
    uint64_t v;
    if (!take_one(m, HF_SIP_H_CSEQ, HF_SIP_FAULT_NO_CSEQ, &s)) {
        return;
    }
    struct hf_sip_cur c = hf_sip_cur(s);
    int rc = hf_sip_number(&c, INT32_MAX, &v);
    const uint8_t *gap = c.p;
    hf_sip_ws(&c);
    bool apart = c.p != gap;
    struct hf_slice method = hf_sip_span(&c, HF_SIP_C_TOKEN);
    if (rc || !apart || method.n == 0 || !hf_sip_done(&c)) {
        fail(m, HF_SIP_FAULT_CSEQ);
        return;
    }
    m->cseq = (uint32_t)v;
    if (!m->request) {
        m->method_text = method;
        m->method = find_method(method);
    } else if (!hf_slice_eq(method, m->method_text)) {
        fail(m, HF_SIP_FAULT_CSEQ_METHOD);
    }
}

static void take_max_forwards(struct hf_sip_msg *m)
{
    struct hf_slice s;
    uint64_t v;
    m->max_forwards = -1;
    if (take_one(m, HF_SIP_H_MAX_FORWARDS, HF_SIP_OK, &s)) {
        struct hf_sip_cur c = hf_sip_cur(s);
        if (hf_sip_number(&c, 255, &v) || !hf_sip_done(&c)) {
            fail(m, HF_SIP_FAULT_MAX_FORWARDS);
        } else {
            m->max_forwards = (int16_t)v;
        }
    }
}

/* 18.3: a datagram may have bytes behind the body, but never too few for it. */
static void take_body(struct hf_sip_msg *m, struct hf_slice left, bool stream)
{
    struct hf_slice s;
    uint64_t n = left.n;
    if (take_one(m, HF_SIP_H_CONTENT_LENGTH, stream ? HF_SIP_FAULT_NO_CONTENT_LENGTH : HF_SIP_OK,
                 &s)) {
        struct hf_sip_cur c = hf_sip_cur(s);
        int rc = hf_sip_number(&c, UINT32_MAX, &n);
        if (rc == -HF_EMALF || !hf_sip_done(&c)) {
            fail(m, HF_SIP_FAULT_CONTENT_LENGTH);
            n = 0;
        } else if (rc || n > left.n) {
            fail(m, HF_SIP_FAULT_BODY);
            n = left.n;
        }
    }
    m->body = hf_slice(left.p, (size_t)n);
    m->used_n = (uint32_t)(m->header_n + n);
}

int hf_sip_parse(struct hf_slice s, bool stream, struct hf_sip_msg *ret_msg)
{
    struct hf_sip_msg *m = ret_msg;
    memset(m, 0, offsetof(struct hf_sip_msg, first));
    m->max_forwards = -1;
    m->request = true;
    m->text = s;
    if (s.n > HF_SIP_MESSAGE_MAX) {
        fail(m, HF_SIP_FAULT_TOO_LARGE);
        m->text.n = HF_SIP_MESSAGE_MAX;
    }
    struct hf_sip_cur c = hf_sip_cur(m->text);
    m->text.p = c.p; /* also of nothing there is a beginning */
    parse_header(m, &c);
    m->header_n = (uint32_t)hf_sip_since(&c, m->text.p).n;
    take_vias(m);
    take_address(m, HF_SIP_H_FROM, HF_SIP_FAULT_NO_FROM, HF_SIP_FAULT_FROM, &m->from);
    take_address(m, HF_SIP_H_TO, HF_SIP_FAULT_NO_TO, HF_SIP_FAULT_TO, &m->to);
    take_call_id(m);
    take_cseq(m);
    take_max_forwards(m);
    take_body(m, hf_sip_left(&c), stream);
    return m->fault == HF_SIP_OK ? 0 : -HF_EMALF;
}

bool hf_sip_answerable(const struct hf_sip_msg *m)
{
    return m->request && m->method != HF_SIP_ACK && m->via.sent_by.text.n > 0;
}

/* --- walks --- */

void hf_sip_walk_begin(struct hf_sip_walk *w, const struct hf_sip_msg *m, enum hf_sip_field_id id)
{
    *w = (struct hf_sip_walk){
        .m = m,
        .id = (uint8_t)id,
        .field = hf_sip_has(m, id) ? m->first[id] : HF_SIP_NO_FIELD,
    };
}

/* To the next value: 1: w->cur stands before it; 0: no more; -HF_EMALF: something else is there. */
static int next_value(struct hf_sip_walk *w)
{
    if (w->open) {
        hf_sip_ws(&w->cur);
        w->comma = hf_sip_eat(&w->cur, ',');
        if (w->comma) {
            return 1;
        }
        if (!hf_sip_done(&w->cur)) {
            return -HF_EMALF;
        }
        w->open = false;
    }
    if (w->field == HF_SIP_NO_FIELD) {
        return 0;
    }
    w->cur = hf_sip_cur(hf_sip_field_value(w->m, w->field));
    w->field = w->m->field[w->field].next;
    w->open = true;
    return 1;
}

int hf_sip_walk_text(struct hf_sip_walk *w, struct hf_slice *ret_value)
{
    int rc;
    while ((rc = next_value(w)) == 1) {
        hf_sip_ws(&w->cur);
        const uint8_t *begin = w->cur.p;
        bool angle = false;
        for (int b; (b = hf_sip_peek(&w->cur)) >= 0 && (angle || b != ',');) {
            struct hf_slice quoted;
            if (b == '"') {
                if (hf_sip_quoted(&w->cur, &quoted)) {
                    return -HF_EMALF;
                }
                continue;
            }
            angle = b == '<' || (angle && b != '>');
            hf_sip_eat(&w->cur, (uint8_t)b);
        }
        struct hf_slice v = hf_sip_trim(hf_sip_since(&w->cur, begin));
        if (v.n) {
            *ret_value = v;
            return 1;
        }
        if (w->comma || !hf_sip_done(&w->cur)) {
            return -HF_EMALF; /* only a whole line may be empty */
        }
    }
    return rc;
}

int hf_sip_walk_address(struct hf_sip_walk *w, struct hf_sip_address *ret_address)
{
    int rc = next_value(w);
    if (rc != 1) {
        return rc;
    }
    bool star = w->id == HF_SIP_H_CONTACT;
    return hf_sip_address_parse(&w->cur, star, ret_address) ? -HF_EMALF : 1;
}

int hf_sip_walk_via(struct hf_sip_walk *w, struct hf_sip_via *ret_via)
{
    int rc = next_value(w);
    if (rc != 1) {
        return rc;
    }
    return hf_sip_via_parse(&w->cur, ret_via) ? -HF_EMALF : 1;
}
