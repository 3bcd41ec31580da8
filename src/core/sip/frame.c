#include "core/sip/frame.h"

#include "base/err.h"

static bool begins(struct hf_slice s, const char *with)
{
    return hf_slice_starts(s, hf_slice_str(with));
}

/* Bytes up to and with the empty line, or 0; from `seen` on nothing was looked at. */
static size_t header_end(struct hf_slice s, size_t seen)
{
    size_t from = seen > 3 ? seen - 3 : 0;
    const uint8_t *at = s.n > from ? memmem(s.p + from, s.n - from, "\r\n\r\n", 4) : NULL;
    return at ? (size_t)(at - s.p) + 4 : 0;
}

/* The only Content-Length of a header. */
static enum hf_sip_fault content_length(struct hf_slice header, uint64_t *ret_n)
{
    bool found = false;
    struct hf_sip_cur c = hf_sip_cur(header);
    while (!hf_sip_done(&c)) {
        const uint8_t *begin = c.p;
        const uint8_t *end = memmem(c.p, (size_t)(c.end - c.p), "\r\n", 2);
        while (end && c.end - end > 2 && (end[2] == ' ' || end[2] == '\t')) { /* folded */
            end = memmem(end + 2, (size_t)(c.end - end - 2), "\r\n", 2);
        }
        if (!end) {
            break;
        }
        struct hf_sip_cur line = {.p = begin, .end = end};
        c.p = end + 2;
        struct hf_slice name = hf_sip_span(&line, HF_SIP_C_TOKEN);
        if (hf_sip_field_find(name) != HF_SIP_H_CONTENT_LENGTH || !hf_sip_separator(&line, ':')) {
            continue;
        }
        int rc = hf_sip_number(&line, UINT32_MAX, ret_n);
        hf_sip_ws(&line);
        if (rc == -HF_EMALF || !hf_sip_done(&line)) {
            return HF_SIP_FAULT_CONTENT_LENGTH;
        }
        if (rc || found) {
            return rc ? HF_SIP_FAULT_TOO_LARGE : HF_SIP_FAULT_REPEATED;
        }
        found = true;
    }
    return found ? HF_SIP_OK : HF_SIP_FAULT_NO_CONTENT_LENGTH;
}

static struct hf_sip_frame refused(enum hf_sip_fault fault, size_t n)
{
    return (struct hf_sip_frame){.kind = HF_SIP_FRAME_REFUSED, .n = n, .fault = fault};
}

static struct hf_sip_frame more(struct hf_sip_framer *f, struct hf_slice s, size_t len_max)
{
    f->seen = s.n;
    return s.n > len_max ? refused(HF_SIP_FAULT_TOO_LARGE, 0)
                         : (struct hf_sip_frame){.kind = HF_SIP_FRAME_MORE};
}

static struct hf_sip_frame message(struct hf_sip_framer *f, struct hf_slice s)
{
    size_t len_max = f->len_max ? f->len_max : HF_SIP_MESSAGE_MAX;
    if (f->whole == 0) {
        size_t header_n = header_end(s, f->seen);
        uint64_t body_n = 0;
        if (header_n == 0) {
            return more(f, s, len_max);
        }
        if (header_n > len_max) {
            return refused(HF_SIP_FAULT_TOO_LARGE, 0);
        }
        enum hf_sip_fault fault = content_length(hf_slice(s.p, header_n), &body_n);
        if (fault == HF_SIP_OK && body_n > len_max - header_n) {
            fault = HF_SIP_FAULT_TOO_LARGE;
        }
        if (fault != HF_SIP_OK) {
            return refused(fault, header_n);
        }
        f->whole = header_n + (size_t)body_n;
    }
    if (s.n < f->whole) {
        return (struct hf_sip_frame){.kind = HF_SIP_FRAME_MORE};
    }
    struct hf_sip_frame whole = {.kind = HF_SIP_FRAME_MESSAGE, .n = f->whole};
    f->whole = f->seen = 0;
    return whole;
}

void hf_sip_frame(struct hf_sip_framer *f, struct hf_slice s, struct hf_sip_frame *ret_frame)
{
    if (s.n == 0 || f->whole || s.p[0] != '\r') {
        *ret_frame = message(f, s);
    } else if (f->pings && begins(s, "\r\n")) {
        *ret_frame = (struct hf_sip_frame){.kind = HF_SIP_FRAME_PONG, .n = 2};
    } else if (begins(s, "\r\n\r\n")) {
        *ret_frame = (struct hf_sip_frame){.kind = HF_SIP_FRAME_PING, .n = 4};
    } else if (hf_slice_starts(hf_slice_str("\r\n\r"), s)) { /* maybe half a ping */
        *ret_frame = (struct hf_sip_frame){.kind = HF_SIP_FRAME_MORE};
    } else if (begins(s, "\r\n")) {
        *ret_frame = (struct hf_sip_frame){.kind = HF_SIP_FRAME_SKIP, .n = 2};
    } else {
        *ret_frame = message(f, s);
    }
}
