/* What a batch costs both sides, without a network: 16 sessions, 200 bytes each. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/pair/backup.h"
#include "core/pair/primary.h"
#include "sim/pair/chaos.h"

#define SESSIONS 16u
#define BYTES 200u
#define BATCHES 200000u

static struct hf_pair_primary *p;
static struct hf_pair_backup *b;
static uint64_t ns_primary, ns_backup;
static bool gate_due, record_due;
static uint64_t ask_id, confirmed;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* One turn of both: what is sealed goes over and is confirmed. */
static void turn(hf_time now)
{
    struct hf_pair_out o;
    uint64_t t0 = now_ns();
    while (hf_pair_primary_next(p, now, &o)) {
        gate_due |= o.kind == HF_PAIR_OUT_CLOSE_GATE;
        record_due |= o.kind == HF_PAIR_OUT_ASK_RECORD;
        ask_id = o.id ? o.id : ask_id;
        confirmed = o.kind == HF_PAIR_OUT_CONFIRMED ? o.number : confirmed;
        if (o.kind == HF_PAIR_OUT_CONNECT) {
            hf_pair_primary_connected(p, now);
            hf_pair_backup_connected(b, now);
        }
    }
    struct hf_slice s = hf_pair_primary_tosend(p);
    uint64_t t1 = now_ns();
    hf_pair_backup_received(b, s, now);
    struct hf_slice back = hf_pair_backup_tosend(b);
    uint64_t t2 = now_ns();
    hf_pair_primary_sent(p, s.n);
    hf_pair_primary_received(p, back, now);
    uint64_t t3 = now_ns();
    hf_pair_backup_sent(b, back.n);
    ns_primary += t1 - t0 + t3 - t2;
    ns_backup += t2 - t1;
}

int pwx_bench(void)
{
    static uint8_t bytes[BYTES];
    hf_time now = HF_S(1);
    struct hf_pair_primary_conf pc = {.epoch = 1, .incarnation = 1};
    struct hf_pair_backup_conf bc = {.epoch = 1};
    if (hf_pair_primary_create(&pc, now, &p) != 0 || hf_pair_backup_create(&bc, now, &b) != 0) {
        return 1;
    }
    hf_pair_primary_backup(p, 1, now);
    for (int i = 0; i < 10; i++) {
        turn(now);
        if (gate_due) {
            hf_pair_primary_gated(p, now);
        }
        if (record_due) {
            hf_pair_primary_answer(p, ask_id, true, now);
        }
        gate_due = record_due = false;
    }
    for (uint64_t i = 1; i <= SESSIONS; i++) {
        if (hf_pair_primary_begin(p, i) != 0) {
            return 1;
        }
        hf_pair_primary_append(p, i, 0, hf_slice(bytes, BYTES));
    }
    ns_primary = ns_backup = 0;
    for (uint32_t k = 0; k < BATCHES; k++) {
        uint64_t t0 = now_ns();
        for (uint64_t i = 1; i <= SESSIONS; i++) {
            hf_pair_primary_cut(p, i, 0, BYTES);
            hf_pair_primary_append(p, i, 0, hf_slice(bytes, BYTES));
        }
        hf_pair_primary_seal(p, now);
        ns_primary += now_ns() - t0;
        turn(now);
    }
    turn(now);
    struct hf_pair_backup_info info;
    hf_pair_backup_info(b, &info);
    printf("%u batches of %u sessions, %u bytes received and %u cut each: primary %" PRIu64
           " ns, backup %" PRIu64 " ns per batch; confirmed %" PRIu64 " of %" PRIu64 "\n",
           BATCHES, SESSIONS, BYTES, BYTES, ns_primary / BATCHES, ns_backup / BATCHES, confirmed,
           info.number);
    hf_pair_primary_destroy(p);
    hf_pair_backup_destroy(b);
    return confirmed != info.number;
}
