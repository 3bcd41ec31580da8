/* A SIP message where it lies: start line, table of header fields, what every element needs of
 * them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/limits.h"
#include "base/slice.h"
#include "core/sip/address.h"
#include "core/sip/via.h"

/*
 * hf_sip_parse() makes one pass over the header, allocates nothing, and copies nothing: a table of
 * (name, value) positions, each known name as an enum, all instances linked in order. What any
 * element must understand (RFC 3261 8.2, 16.3) is parsed with it: Request-URI, all Via values,
 * From, To, Call-ID, CSeq, Max-Forwards, Content-Length. Everything else is left for who needs it:
 * core/sip/fields.h. That is also what the RFC wants of a proxy: what it does not need, it does not
 * judge.
 *
 * A request that is malformed still gives all that could be read, so that it can be answered: see
 * hf_sip_answerable().
 *
 * Control characters but HTAB are refused in the header unless a backslash escapes them, CR and LF
 * alone always, as those behind us differ about what they mean. In a stream, close after a fault
 * CONTROL: where this message ends is a guess.
 */

#define HF_SIP_METHOD_LIST(X)                                                                      \
    X(INVITE)                                                                                      \
    X(ACK)                                                                                         \
    X(BYE)                                                                                         \
    X(CANCEL)                                                                                      \
    X(OPTIONS)                                                                                     \
    X(REGISTER)                                                                                    \
    X(SUBSCRIBE)                                                                                   \
    X(NOTIFY)                                                                                      \
    X(PUBLISH)                                                                                     \
    X(MESSAGE)                                                                                     \
    X(INFO)                                                                                        \
    X(PRACK)                                                                                       \
    X(UPDATE)                                                                                      \
    X(REFER)
enum hf_sip_method {
#define HF_SIP_METHOD_ENUM(id) HF_SIP_##id,
    HF_SIP_METHOD_LIST(HF_SIP_METHOD_ENUM)
#undef HF_SIP_METHOD_ENUM
        HF_SIP_METHOD_OTHER /* unknown, kept as text */
};
/** "INVITE", ...; OTHER: "?". */
const char *hf_sip_method_name(enum hf_sip_method method);

/*
 * Known header fields: name, compact form (0: none), length and first and last letter of the name:
 * the key of the perfect switch that finds it (two rows of one key do not compile).
 */
#define HF_SIP_FIELD_LIST(X)                                                                       \
    X(VIA, "Via", 'v', 3, 'v', 'a')                                                                \
    X(FROM, "From", 'f', 4, 'f', 'm')                                                              \
    X(TO, "To", 't', 2, 't', 'o')                                                                  \
    X(CALL_ID, "Call-ID", 'i', 7, 'c', 'd')                                                        \
    X(CSEQ, "CSeq", 0, 4, 'c', 'q')                                                                \
    X(MAX_FORWARDS, "Max-Forwards", 0, 12, 'm', 's')                                               \
    X(MAX_BREADTH, "Max-Breadth", 0, 11, 'm', 'h')                                                 \
    X(CONTENT_LENGTH, "Content-Length", 'l', 14, 'c', 'h')                                         \
    X(CONTACT, "Contact", 'm', 7, 'c', 't')                                                        \
    X(EXPIRES, "Expires", 0, 7, 'e', 's')                                                          \
    X(MIN_EXPIRES, "Min-Expires", 0, 11, 'm', 's')                                                 \
    X(ROUTE, "Route", 0, 5, 'r', 'e')                                                              \
    X(RECORD_ROUTE, "Record-Route", 0, 12, 'r', 'e')                                               \
    X(PATH, "Path", 0, 4, 'p', 'h')                                                                \
    X(SERVICE_ROUTE, "Service-Route", 0, 13, 's', 'e')                                             \
    X(AUTHORIZATION, "Authorization", 0, 13, 'a', 'n')                                             \
    X(WWW_AUTHENTICATE, "WWW-Authenticate", 0, 16, 'w', 'e')                                       \
    X(PROXY_AUTHORIZATION, "Proxy-Authorization", 0, 19, 'p', 'n')                                 \
    X(PROXY_AUTHENTICATE, "Proxy-Authenticate", 0, 18, 'p', 'e')                                   \
    X(AUTHENTICATION_INFO, "Authentication-Info", 0, 19, 'a', 'o')                                 \
    X(REQUIRE, "Require", 0, 7, 'r', 'e')                                                          \
    X(PROXY_REQUIRE, "Proxy-Require", 0, 13, 'p', 'e')                                             \
    X(SUPPORTED, "Supported", 'k', 9, 's', 'd')                                                    \
    X(UNSUPPORTED, "Unsupported", 0, 11, 'u', 'd')                                                 \
    X(ALLOW, "Allow", 0, 5, 'a', 'w')                                                              \
    X(ACCEPT, "Accept", 0, 6, 'a', 't')                                                            \
    X(ACCEPT_ENCODING, "Accept-Encoding", 0, 15, 'a', 'g')                                         \
    X(ACCEPT_LANGUAGE, "Accept-Language", 0, 15, 'a', 'e')                                         \
    X(CONTENT_TYPE, "Content-Type", 'c', 12, 'c', 'e')                                             \
    X(CONTENT_ENCODING, "Content-Encoding", 'e', 16, 'c', 'g')                                     \
    X(CONTENT_DISPOSITION, "Content-Disposition", 0, 19, 'c', 'n')                                 \
    X(EVENT, "Event", 'o', 5, 'e', 't')                                                            \
    X(ALLOW_EVENTS, "Allow-Events", 'u', 12, 'a', 's')                                             \
    X(SUBSCRIPTION_STATE, "Subscription-State", 0, 18, 's', 'e')                                   \
    X(SIP_ETAG, "SIP-ETag", 0, 8, 's', 'g')                                                        \
    X(SIP_IF_MATCH, "SIP-If-Match", 0, 12, 's', 'h')                                               \
    X(RETRY_AFTER, "Retry-After", 0, 11, 'r', 'r')                                                 \
    X(DATE, "Date", 0, 4, 'd', 'e')                                                                \
    X(WARNING, "Warning", 0, 7, 'w', 'g')                                                          \
    X(USER_AGENT, "User-Agent", 0, 10, 'u', 't')                                                   \
    X(SERVER, "Server", 0, 6, 's', 'r')                                                            \
    X(SUBJECT, "Subject", 's', 7, 's', 't')                                                        \
    X(REFER_TO, "Refer-To", 'r', 8, 'r', 'o')                                                      \
    X(REFERRED_BY, "Referred-By", 'b', 11, 'r', 'y')                                               \
    X(HISTORY_INFO, "History-Info", 0, 12, 'h', 'o')                                               \
    X(P_ASSERTED_IDENTITY, "P-Asserted-Identity", 0, 19, 'p', 'y')                                 \
    X(P_PREFERRED_IDENTITY, "P-Preferred-Identity", 0, 20, 'p', 'y')                               \
    X(HOLDFAST_HOP, "Holdfast-Hop", 0, 12, 'h', 'p') /* of our own: core/sip/mark.h */
enum hf_sip_field_id {
#define HF_SIP_FIELD_ENUM(id, name, compact, n, first, last) HF_SIP_H_##id,
    HF_SIP_FIELD_LIST(HF_SIP_FIELD_ENUM)
#undef HF_SIP_FIELD_ENUM
        HF_SIP_H_OTHER, /* unknown, kept */
    HF_SIP_H_COUNT_
};
/** "Call-ID", ...; OTHER: "?". */
const char *hf_sip_field_name(enum hf_sip_field_id id);
/** By name or compact form, in any case. */
enum hf_sip_field_id hf_sip_field_find(struct hf_slice name);

/* What can be wrong with a message, the status to answer (RFC 3261 21.4), and the reason phrase
 * that names it. Responses that have any of these are dropped. */
#define HF_SIP_FAULT_LIST(X)                                                                       \
    X(START_LINE, 400, "Malformed Start Line")                                                     \
    X(VERSION, 505, "Version Not Supported")                                                       \
    X(REQUEST_URI, 400, "Malformed Request-URI")                                                   \
    X(SCHEME, 416, "Unsupported URI Scheme")                                                       \
    X(STATUS, 400, "Malformed Status Code")                                                        \
    X(TOO_LARGE, 513, "Message Too Large")                                                         \
    X(TOO_MANY_FIELDS, 513, "Too Many Header Fields")                                              \
    X(FIELD, 400, "Malformed Header Field")                                                        \
    X(CONTROL, 400, "Control Character in Header")                                                 \
    X(NO_END, 400, "Header Without End")                                                           \
    X(NO_VIA, 400, "Missing Via")                                                                  \
    X(VIA, 400, "Malformed Via")                                                                   \
    X(TOO_MANY_VIAS, 483, "Too Many Hops")                                                         \
    X(NO_FROM, 400, "Missing From")                                                                \
    X(FROM, 400, "Malformed From")                                                                 \
    X(NO_TO, 400, "Missing To")                                                                    \
    X(TO, 400, "Malformed To")                                                                     \
    X(NO_CALL_ID, 400, "Missing Call-ID")                                                          \
    X(CALL_ID, 400, "Malformed Call-ID")                                                           \
    X(NO_CSEQ, 400, "Missing CSeq")                                                                \
    X(CSEQ, 400, "Malformed CSeq")                                                                 \
    X(CSEQ_METHOD, 400, "CSeq Method Mismatch")                                                    \
    X(MAX_FORWARDS, 400, "Malformed Max-Forwards")                                                 \
    X(NO_CONTENT_LENGTH, 400, "Missing Content-Length")                                            \
    X(CONTENT_LENGTH, 400, "Malformed Content-Length")                                             \
    X(BODY, 400, "Body Shorter Than Content-Length")                                               \
    X(REPEATED, 400, "Header Field Repeated")
enum hf_sip_fault {
    HF_SIP_OK = 0,
#define HF_SIP_FAULT_ENUM(id, status, text) HF_SIP_FAULT_##id,
    HF_SIP_FAULT_LIST(HF_SIP_FAULT_ENUM)
#undef HF_SIP_FAULT_ENUM
        HF_SIP_FAULT_COUNT_
};
/** The status code to answer; 0 for HF_SIP_OK. */
uint16_t hf_sip_fault_status(enum hf_sip_fault f);
/** The reason phrase; "OK" for HF_SIP_OK. */
const char *hf_sip_fault_text(enum hf_sip_fault f);

/** One header line; positions in msg->text. */
struct hf_sip_field {
    uint16_t line;     /* where it begins */
    uint16_t name_n;   /* the name begins there */
    uint16_t value, n; /* without white space around; folded lines within */
    uint8_t id;        /* enum hf_sip_field_id */
    uint8_t next;      /* the next one of this id (not of OTHER); HF_SIP_NO_FIELD: none */
};
#define HF_SIP_NO_FIELD 0xff

struct hf_sip_msg {
    struct hf_slice text; /* the message, borrowed as long as this is used */
    enum hf_sip_fault fault;
    bool request;

    enum hf_sip_method method; /* of a response: its CSeq's */
    struct hf_slice method_text;
    struct hf_slice uri_text; /* request: the Request-URI */
    struct hf_sip_uri uri;    /* request */
    uint16_t status;          /* response: 100 to 699 */
    struct hf_slice reason;   /* response; maybe empty */

    struct hf_sip_via via; /* the topmost */
    uint16_t n_vias;       /* values, over all lines and commas */
    struct hf_sip_address from, to;
    struct hf_slice call_id;
    uint32_t cseq;        /* below 2^31 */
    int16_t max_forwards; /* -1: none */
    struct hf_slice body;

    uint32_t header_n; /* bytes of start line and header, with the empty line */
    uint32_t used_n;   /* bytes of the message with its body; what is behind it is not of it */
    uint64_t has;      /* bit enum hf_sip_field_id: there is such a line */
    uint8_t n_fields;
    uint8_t first[HF_SIP_H_COUNT_]; /* valid where `has` says so */
    struct hf_sip_field field[HF_SIP_FIELDS_MAX];
};

/**
 * Parse one message: a datagram, or what hf_sip_frame() cut off a stream. s is borrowed by ret_msg.
 * `stream`: Content-Length is required. 0, or -HF_EMALF: ret_msg->fault says what is wrong first,
 * ret_msg has all that could be read.
 */
HF_MUST int hf_sip_parse(struct hf_slice s, bool stream, struct hf_sip_msg *ret_msg);
/** May and can a response be sent: a request, not ACK, whose topmost Via can be read, up to its
 * parameters at least? */
bool hf_sip_answerable(const struct hf_sip_msg *m);

/** Is there such a header field? Also of OTHER. */
static inline bool hf_sip_has(const struct hf_sip_msg *m, enum hf_sip_field_id id)
{
    return m->has >> id & 1;
}
static inline struct hf_slice hf_sip_field_value(const struct hf_sip_msg *m, size_t i)
{
    return hf_slice(m->text.p + m->field[i].value, m->field[i].n);
}
static inline struct hf_slice hf_sip_field_text(const struct hf_sip_msg *m, size_t i)
{
    return hf_slice(m->text.p + m->field[i].line, m->field[i].name_n);
}
/** The value of a field that may be there once. 1: *ret_value; 0: there is none; -HF_EMALF: more
 * than one. */
HF_MUST int hf_sip_one(const struct hf_sip_msg *m, enum hf_sip_field_id id,
                       struct hf_slice *ret_value);

/** Walks all values of one field, over lines and commas, in order. */
struct hf_sip_walk {
    const struct hf_sip_msg *m; /* borrowed */
    struct hf_sip_cur cur;      /* in the present line */
    uint8_t id;
    uint8_t field; /* the next line; HF_SIP_NO_FIELD: none */
    bool open;     /* in a line */
    bool comma;    /* the present value is behind one: it may not be empty */
};
void hf_sip_walk_begin(struct hf_sip_walk *w, const struct hf_sip_msg *m, enum hf_sip_field_id id);
/** The next value as text, without white space around: it ends at a comma that is neither in quotes
 * nor in <>. 1: *ret_value; 0: no more; -HF_EMALF: an empty one, or quotes without end. */
HF_MUST int hf_sip_walk_text(struct hf_sip_walk *w, struct hf_slice *ret_value);
/** Likewise as an address; "*" is one in Contact only. */
HF_MUST int hf_sip_walk_address(struct hf_sip_walk *w, struct hf_sip_address *ret_address);
/** Likewise as a Via. */
HF_MUST int hf_sip_walk_via(struct hf_sip_walk *w, struct hf_sip_via *ret_via);
