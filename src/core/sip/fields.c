#include "core/sip/fields.h"

#include "base/err.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

/* --- numbers --- */

int hf_sip_expires(const struct hf_sip_msg *m, enum hf_sip_field_id id, uint32_t *ret_s)
{
    struct hf_slice s;
    int rc = hf_sip_one(m, id, &s);
    if (rc == 1 && hf_sip_seconds(s, ret_s)) {
        *ret_s = 3600;
    }
    return rc;
}

int hf_sip_contact_expires(const struct hf_sip_msg *m, const struct hf_sip_address *contact,
                           uint32_t otherwise, uint32_t *ret_s)
{
    uint32_t s = otherwise;
    int rc = hf_sip_expires(m, HF_SIP_H_EXPIRES, &s);
    if (rc < 0) {
        return rc;
    }
    if (!contact->star) {
        hf_sip_address_expires(contact, &s);
    } else if (rc == 0 || s != 0) {
        return -HF_EMALF; /* 10.2.2: "*" only with Expires: 0 */
    }
    *ret_s = s;
    return 0;
}

int hf_sip_retry_after_s(const struct hf_sip_msg *m, uint32_t *ret_s)
{
    struct hf_slice s;
    uint64_t v;
    int rc = hf_sip_one(m, HF_SIP_H_RETRY_AFTER, &s);
    if (rc != 1) {
        return rc;
    }
    struct hf_sip_cur c = hf_sip_cur(s);
    if (hf_sip_number(&c, UINT32_MAX, &v)) {
        return -HF_EMALF;
    }
    hf_sip_ws(&c);
    if (!hf_sip_done(&c) && hf_sip_peek(&c) != '(' && hf_sip_peek(&c) != ';') {
        return -HF_EMALF;
    }
    *ret_s = (uint32_t)v;
    return 1;
}

/* --- lists of tokens --- */

static struct hf_slice first_token(struct hf_slice s)
{
    struct hf_sip_cur c = hf_sip_cur(s);
    return hf_sip_span(&c, HF_SIP_C_TOKEN);
}

bool hf_sip_lists(const struct hf_sip_msg *m, enum hf_sip_field_id id, const char *token)
{
    struct hf_sip_walk w;
    struct hf_slice v;
    hf_sip_walk_begin(&w, m, id);
    while (hf_sip_walk_text(&w, &v) == 1) {
        if (hf_sip_eq_str(first_token(v), token)) {
            return true;
        }
    }
    return false;
}

int hf_sip_unknown_token(const struct hf_sip_msg *m, enum hf_sip_field_id id,
                         const char *const *known, struct hf_slice *ret_token)
{
    struct hf_sip_walk w;
    struct hf_slice v;
    int rc;
    hf_sip_walk_begin(&w, m, id);
    while ((rc = hf_sip_walk_text(&w, &v)) == 1) {
        bool found = false;
        for (const char *const *k = known; *k && !found; k++) {
            found = hf_sip_eq_str(v, *k);
        }
        if (!hf_sip_all(v, HF_SIP_C_TOKEN)) {
            return -HF_EMALF;
        }
        if (!found) {
            *ret_token = v;
            return 1;
        }
    }
    return rc;
}

/* --- a token (or more) and parameters --- */

/* ";..." to the end at c; *ret_params is all of it. */
static int take_params(struct hf_sip_cur *c, struct hf_slice *ret_params)
{
    struct hf_slice all = hf_sip_left(c);
    struct hf_sip_param p;
    int rc;
    while ((rc = hf_sip_param_next(c, &p)) == 1) {
    }
    hf_sip_ws(c);
    *ret_params = all;
    return rc == 0 && hf_sip_done(c) ? 0 : -HF_EMALF;
}

int hf_sip_event(const struct hf_sip_msg *m, struct hf_sip_event *ret_event)
{
    struct hf_slice s;
    struct hf_sip_event e;
    struct hf_sip_param p = {.value = {NULL, 0}};
    int rc = hf_sip_one(m, HF_SIP_H_EVENT, &s);
    if (rc != 1) {
        return rc;
    }
    struct hf_sip_cur c = hf_sip_cur(s);
    e.package = hf_sip_span(&c, HF_SIP_C_TOKEN);
    if (e.package.n == 0 || take_params(&c, &e.params)) {
        return -HF_EMALF;
    }
    hf_sip_param_get(e.params, "id", &p);
    e.id = p.value;
    *ret_event = e;
    return 1;
}

int hf_sip_subscription_state(const struct hf_sip_msg *m, struct hf_sip_substate *ret_state)
{
    struct hf_slice s, params;
    struct hf_sip_substate st = {.has_expires = false};
    struct hf_sip_param p;
    int rc = hf_sip_one(m, HF_SIP_H_SUBSCRIPTION_STATE, &s);
    if (rc != 1) {
        return rc;
    }
    struct hf_sip_cur c = hf_sip_cur(s);
    st.state = hf_sip_span(&c, HF_SIP_C_TOKEN);
    if (st.state.n == 0 || take_params(&c, &params)) {
        return -HF_EMALF;
    }
    if (hf_sip_param_get(params, "reason", &p)) {
        st.reason = p.value;
    }
    st.has_expires = hf_sip_param_get(params, "expires", &p);
    if (st.has_expires && hf_sip_seconds(p.value, &st.expires_s)) {
        return -HF_EMALF;
    }
    st.has_retry_after = hf_sip_param_get(params, "retry-after", &p);
    if (st.has_retry_after && hf_sip_seconds(p.value, &st.retry_after_s)) {
        return -HF_EMALF;
    }
    *ret_state = st;
    return 1;
}

int hf_sip_content_type(const struct hf_sip_msg *m, struct hf_sip_type *ret_type)
{
    struct hf_slice s;
    struct hf_sip_type t;
    int rc = hf_sip_one(m, HF_SIP_H_CONTENT_TYPE, &s);
    if (rc != 1) {
        return rc;
    }
    struct hf_sip_cur c = hf_sip_cur(s);
    t.type = hf_sip_span(&c, HF_SIP_C_TOKEN);
    bool slash = hf_sip_separator(&c, '/');
    t.subtype = hf_sip_span(&c, HF_SIP_C_TOKEN);
    if (!slash || t.type.n == 0 || t.subtype.n == 0 || take_params(&c, &t.params)) {
        return -HF_EMALF;
    }
    *ret_type = t;
    return 1;
}

int hf_sip_etag(const struct hf_sip_msg *m, enum hf_sip_field_id id, struct hf_slice *ret_tag)
{
    int rc = hf_sip_one(m, id, ret_tag);
    return rc == 1 && (ret_tag->n == 0 || !hf_sip_all(*ret_tag, HF_SIP_C_TOKEN)) ? -HF_EMALF : rc;
}

/* --- dates --- */

/* Days from 1970-01-01 to this day of the Gregorian calendar; month from 1. */
static int64_t days_from_civil(int64_t year, unsigned month, unsigned day)
{
    static const uint16_t before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int64_t y = year - (month < 3); /* leap days up to the last February that is over */
    return 365 * (year - 1970) + y / 4 - y / 100 + y / 400 - 477 + before[month - 1] + day - 1;
}

static bool one_of(struct hf_slice s, const char *names, unsigned *ret_i)
{
    for (size_t i = 0; names[3 * i]; i++) {
        if (hf_sip_eq(s, hf_slice(names + 3 * i, 3))) {
            *ret_i = (unsigned)i;
            return true;
        }
    }
    return false;
}

/* n digits, then `after` (0: nothing). */
static bool digits(struct hf_sip_cur *c, size_t n, uint8_t after, unsigned max, unsigned *ret_v)
{
    const uint8_t *begin = c->p;
    uint64_t v;
    if (hf_sip_number(c, max, &v) || hf_sip_since(c, begin).n != n ||
        (after && !hf_sip_eat(c, after))) {
        return false;
    }
    *ret_v = (unsigned)v;
    return true;
}

static bool parse_date(struct hf_slice s, int64_t *ret_s)
{
    struct hf_sip_cur c = hf_sip_cur(s);
    unsigned weekday, day, month, year, hour, minute, second;
    if (!one_of(hf_sip_span(&c, HF_SIP_C_TOKEN), "SunMonTueWedThuFriSat", &weekday) ||
        !hf_sip_eat(&c, ',') || !hf_sip_eat(&c, ' ') || !digits(&c, 2, ' ', 31, &day) || day == 0 ||
        !one_of(hf_sip_span(&c, HF_SIP_C_TOKEN), "JanFebMarAprMayJunJulAugSepOctNovDec", &month) ||
        !hf_sip_eat(&c, ' ') || !digits(&c, 4, ' ', 9999, &year) ||
        !digits(&c, 2, ':', 23, &hour) || !digits(&c, 2, ':', 59, &minute) ||
        !digits(&c, 2, ' ', 60, &second) || !hf_sip_eq(hf_sip_left(&c), S("GMT"))) {
        return false;
    }
    *ret_s = days_from_civil(year, month + 1, day) * 86400 + hour * 3600L + minute * 60L + second;
    return true;
}

int hf_sip_date(const struct hf_sip_msg *m, int64_t *ret_s)
{
    struct hf_slice s;
    int rc = hf_sip_one(m, HF_SIP_H_DATE, &s);
    return rc == 1 && !parse_date(s, ret_s) ? -HF_EMALF : rc;
}

/* --- all --- */

static int check_addresses(const struct hf_sip_msg *m, enum hf_sip_field_id id)
{
    struct hf_sip_walk w;
    struct hf_sip_address a;
    uint16_t q;
    size_t n = 0, stars = 0;
    int rc;
    hf_sip_walk_begin(&w, m, id);
    while ((rc = hf_sip_walk_address(&w, &a)) == 1) {
        n++;
        stars += a.star;
        if (hf_sip_address_q(&a, &q)) {
            return -HF_EMALF;
        }
    }
    return rc || (stars && n > 1) ? -HF_EMALF : 0;
}

static int check_tokens(const struct hf_sip_msg *m, enum hf_sip_field_id id)
{
    struct hf_sip_walk w;
    struct hf_slice v;
    int rc;
    hf_sip_walk_begin(&w, m, id);
    while ((rc = hf_sip_walk_text(&w, &v)) == 1) {
        if (!hf_sip_all(v, HF_SIP_C_TOKEN)) {
            return -HF_EMALF;
        }
    }
    return rc;
}

/* auth-scheme LWS something */
static int check_auth(const struct hf_sip_msg *m, enum hf_sip_field_id id)
{
    for (uint8_t i = hf_sip_has(m, id) ? m->first[id] : HF_SIP_NO_FIELD; i != HF_SIP_NO_FIELD;
         i = m->field[i].next) {
        struct hf_sip_cur c = hf_sip_cur(hf_sip_field_value(m, i));
        if (hf_sip_span(&c, HF_SIP_C_TOKEN).n == 0 || hf_sip_left(&c).n < 2) {
            return -HF_EMALF;
        }
    }
    return 0;
}

static int check(const struct hf_sip_msg *m, enum hf_sip_field_id id)
{
    struct hf_slice s;
    struct hf_sip_event event;
    struct hf_sip_substate state;
    struct hf_sip_type type;
    uint32_t v;
    int64_t when;
    switch ((int)id) {
    case HF_SIP_H_CONTACT:
    case HF_SIP_H_ROUTE:
    case HF_SIP_H_RECORD_ROUTE:
    case HF_SIP_H_PATH:
    case HF_SIP_H_SERVICE_ROUTE:
    case HF_SIP_H_REFER_TO:
    case HF_SIP_H_REFERRED_BY:
    case HF_SIP_H_HISTORY_INFO:
    case HF_SIP_H_P_ASSERTED_IDENTITY:
    case HF_SIP_H_P_PREFERRED_IDENTITY:
        return check_addresses(m, id);
    case HF_SIP_H_REQUIRE:
    case HF_SIP_H_PROXY_REQUIRE:
    case HF_SIP_H_SUPPORTED:
    case HF_SIP_H_UNSUPPORTED:
    case HF_SIP_H_ALLOW:
    case HF_SIP_H_ALLOW_EVENTS:
    case HF_SIP_H_CONTENT_ENCODING:
        return check_tokens(m, id);
    case HF_SIP_H_EXPIRES:
    case HF_SIP_H_MIN_EXPIRES:
        return hf_sip_one(m, id, &s) == 1 && hf_sip_seconds(s, &v) == 0 ? 0 : -HF_EMALF;
    case HF_SIP_H_AUTHORIZATION:
    case HF_SIP_H_PROXY_AUTHORIZATION:
    case HF_SIP_H_WWW_AUTHENTICATE:
    case HF_SIP_H_PROXY_AUTHENTICATE:
        return check_auth(m, id);
    case HF_SIP_H_EVENT:
        return hf_sip_event(m, &event);
    case HF_SIP_H_SUBSCRIPTION_STATE:
        return hf_sip_subscription_state(m, &state);
    case HF_SIP_H_CONTENT_TYPE:
        return hf_sip_content_type(m, &type);
    case HF_SIP_H_RETRY_AFTER:
        return hf_sip_retry_after_s(m, &v);
    case HF_SIP_H_DATE:
        return hf_sip_date(m, &when);
    case HF_SIP_H_SIP_ETAG:
    case HF_SIP_H_SIP_IF_MATCH:
        return hf_sip_etag(m, id, &s);
    default:
        return 0;
    }
}

enum hf_sip_field_id hf_sip_scrutinise(const struct hf_sip_msg *m)
{
    for (int id = 0; id < HF_SIP_H_OTHER; id++) {
        if (hf_sip_has(m, (enum hf_sip_field_id)id) && check(m, (enum hf_sip_field_id)id) < 0) {
            return (enum hf_sip_field_id)id;
        }
    }
    return HF_SIP_H_OTHER;
}
