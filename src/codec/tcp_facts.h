/* What a TCP connection is, enough for another host to go on with it (doc/wire/tcp-facts.md). */
#pragma once

#include "base/hftime.h"
#include "base/rd.h"
#include "codec/tcp_segment.h"

#define HF_TCP_FACTS_VERSION 1
#define HF_TCP_FACTS_LEN_MAX 72 /* encoded, IPv6; IPv4 has 24 less */

/* name, bit, means */
#define HF_TCP_FLAG_LIST(X)                                                                        \
    X(SACK, 0x01, "selective acknowledgements may be used")                                        \
    X(TS, 0x02, "each segment has timestamps")                                                     \
    X(WSCALE, 0x04, "windows are scaled")                                                          \
    X(ECN, 0x08, "ECN was negotiated; the kernel cannot restore it")                               \
    X(TS_USEC, 0x10, "our timestamps count microseconds, not milliseconds")                        \
    X(EMBRYO, 0x20, "our SYN-ACK is not known to have been answered")                              \
    X(EOF, 0x40, "the peer's FIN was received behind rx_total")                                    \
    X(CLOSING, 0x80, "our FIN was, or may have been, sent behind tx_total")

enum hf_tcp_facts_flag {
#define HF_TCP_FLAG_ENUM(name, bit, text) HF_TCP_FACT_##name = (bit),
    HF_TCP_FLAG_LIST(HF_TCP_FLAG_ENUM)
#undef HF_TCP_FLAG_ENUM
};

/*
 * Positions in the two streams are 64-bit counts of bytes from the first one on: rx_total came from
 * the peer, tx_una of tx_total bytes to it are acknowledged. They live with the session, not here:
 * these facts change only with flags, and when they are refreshed.
 */
struct hf_tcp_facts {
    struct hf_endpoint local, peer; /* scope is not sent: a link-local address stays on its link */
    uint32_t snd_isn, rcv_isn;      /* of our SYN(-ACK), of the peer's; the streams begin behind */
    uint16_t mss;                   /* largest segment that the peer takes, options included */
    uint8_t snd_wscale, rcv_wscale; /* of windows that the peer, that we advertise; else 0 */
    uint8_t flags;                  /* HF_TCP_FACT_* */
    uint32_t tsval;                 /* our timestamp clock ... */
    hf_time ts_at;                  /* ... when the host's monotonic clock showed this */
    uint32_t snd_wnd, rcv_wnd;      /* bytes; last windows known, the peer's and ours */
};

/** Encode f, which must be valid as hf_tcp_facts_decode() says. */
void hf_tcp_facts_encode(struct hf_wr *w, const struct hf_tcp_facts *f);

/**
 * Read facts from r, which has them and perhaps more behind. Refused by r's sticky error: another
 * version (-HF_EVERSION), no or two families, a port of 0, flags that do not exist, window scales
 * over 14 or without WSCALE, an mss below 48, a negative time (-HF_EMALF).
 */
void hf_tcp_facts_decode(struct hf_rd *r, struct hf_tcp_facts *ret_f);

/**
 * Facts of a connection from its SYN and our SYN-ACK, without touching its socket: `EMBRYO` is set.
 * now: monotonic clock when the SYN-ACK was sent. -HF_EVALUE if the two do not belong together.
 */
HF_MUST int hf_tcp_facts_handshake(const struct hf_tcp_segment *syn,
                                   const struct hf_tcp_segment *syn_ack, hf_time now,
                                   struct hf_tcp_facts *ret_f);

/** Sequence number of the byte at that place of the stream to the peer. */
uint32_t hf_tcp_snd_seq(const struct hf_tcp_facts *f, uint64_t tx);

/** Next sequence number that is expected from the peer, its FIN counted. */
uint32_t hf_tcp_rcv_nxt(const struct hf_tcp_facts *f, uint64_t rx_total);

/**
 * The place in the stream that an acknowledgement means: *ret_tx within [una, total], or total + 1
 * when our FIN (CLOSING) is acknowledged. False: it cannot be one of this connection now.
 */
bool hf_tcp_acked(const struct hf_tcp_facts *f, uint32_t ack, uint64_t una, uint64_t total,
                  uint64_t *ret_tx);

/**
 * Our timestamp clock at `now`, in the clock of ts_at, and HF_TCP_TS_MARGIN beyond: it must never
 * be behind what the peer has seen, or PAWS (RFC 7323 5) drops all we send, while ahead is
 * harmless.
 */
uint32_t hf_tcp_tsval(const struct hf_tcp_facts *f, hf_time now);
#define HF_TCP_TS_MARGIN HF_MS(10)

/** The window field for a segment without SYN: rcv_wnd, scaled. */
uint16_t hf_tcp_window_field(const struct hf_tcp_facts *f);

/* --- raw segments of a take-over --- */

/**
 * Build the probe: one byte that the peer has long had, in front of tx_una. Any TCP answers it at
 * once with where it stands, not rate-limited because there is data in it; with SACK the answer
 * names that byte (D-SACK, RFC 2883) and so cannot be mistaken for an older one.
 */
void hf_tcp_build_probe(struct hf_wr *w, const struct hf_tcp_facts *f, uint64_t tx_una,
                        uint64_t rx_total, hf_time now);

/** Build a segment with data that the peer may have or not have: who stands at tx takes it. */
void hf_tcp_build_data(struct hf_wr *w, const struct hf_tcp_facts *f, uint64_t tx,
                       struct hf_slice data, uint64_t rx_total, hf_time now);

/** Build the in-sequence acknowledgement without data that tells the peer where we stand; una must
 * be exact, or the peer ignores the rest (pitfall 2). */
void hf_tcp_build_ack(struct hf_wr *w, const struct hf_tcp_facts *f, uint64_t tx_una,
                      uint64_t rx_total, hf_time now);

/**
 * Build the challenge: an acknowledgement from before the first byte, which any TCP that has the
 * connection answers with where it stands (RFC 9293 3.10.7.4). A host without the connection
 * answers that with a RST that counts (3.10.7.1, RFC 5961 3.2), and so the peer learns at once that
 * it is over, though it waits for something without sending.
 */
void hf_tcp_build_challenge(struct hf_wr *w, const struct hf_tcp_facts *f, hf_time now);

enum hf_tcp_answer {
    HF_TCP_ANSWER_NONE,   /* not of this connection, or says nothing */
    HF_TCP_ANSWER_OLDER,  /* acknowledges up to *ret_tx, perhaps sent before the probe came */
    HF_TCP_ANSWER_EXACT,  /* answers the probe: the peer stands at *ret_tx */
    HF_TCP_ANSWER_BEYOND, /* answers the probe, but has bytes that nobody confirmed: I4 was broken
                           */
    HF_TCP_ANSWER_GONE,   /* the peer knows no such connection (a RST that it may send) */
};

/**
 * What a segment from the peer means after a probe at tx_una of tx_total. ret_tx as in
 * hf_tcp_acked(); both are written for OLDER and EXACT only; ret_wnd: the peer's window in bytes.
 */
enum hf_tcp_answer hf_tcp_read_answer(const struct hf_tcp_facts *f,
                                      const struct hf_tcp_segment *seg, uint64_t tx_una,
                                      uint64_t tx_total, uint64_t rx_total, uint64_t *ret_tx,
                                      uint32_t *ret_wnd);
