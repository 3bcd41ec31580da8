/* Fuzz target: any fleet with any loads; every plan can be carried out, and leads somewhere. */
#include <assert.h>

#include "base/rd.h"
#include "core/sip/rebalance.h"

enum { N_MAX = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct hf_sip_load load[N_MAX];

static void set(struct hf_sip_fleet *f, uint16_t i, uint8_t bits)
{
    hf_sip_fleet_set(f, i,
                     &(struct hf_sip_server){.state = bits % HF_SIP_SERVER_STATE_COUNT_,
                                             .homes = (bits & 12) != 0,
                                             .weight = (uint16_t)(bits >> 4)});
}

static void check(const struct hf_sip_fleet *f, struct hf_sip_rebalance *r,
                  const struct hf_sip_move *m, size_t n_moves, uint16_t n)
{
    for (size_t i = 0; i < n_moves; i++) {
        char why[200];
        const struct hf_sip_server *to = hf_sip_fleet_get(f, m[i].to);
        assert(m[i].from < n && m[i].to < n && m[i].from != m[i].to);
        assert(to->state == HF_SIP_SERVER_LIVE && to->homes && to->weight > 0);
        assert(m[i].n > 0 || m[i].who == HF_SIP_WHO_ALL);
        assert(m[i].bucket_first <= m[i].bucket_last);
        hf_sip_rebalance_why(r, &m[i], why, sizeof(why));
        assert(why[0] != 0);
    }
}

static void carry_out(const struct hf_sip_move *m, size_t n_moves)
{
    for (size_t i = 0; i < n_moves; i++) {
        uint32_t k = m[i].n < load[m[i].from].clients ? m[i].n : load[m[i].from].clients;
        load[m[i].from].clients -= k;
        load[m[i].to].clients += k;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct hf_rd rd;
    struct hf_sip_fleet *f = NULL;
    struct hf_sip_rebalance *r = NULL;
    const struct hf_sip_move *m;
    hf_rd_init(&rd, hf_slice(data, n));
    struct hf_sip_rebalance_conf conf = {.dead_zone = hf_rd_u8(&rd) % 60u,
                                         .target_zone = hf_rd_u8(&rd) % 60u,
                                         .part_clients = hf_rd_u8(&rd),
                                         .part_cpu = hf_rd_u8(&rd),
                                         .rate = hf_rd_u16(&rd),
                                         .rate_to = hf_rd_u16(&rd)};
    uint16_t servers = (uint16_t)(1 + hf_rd_u8(&rd) % N_MAX);
    hf_time now = HF_S(1000);
    if (hf_sip_fleet_create(&f) < 0 || hf_sip_rebalance_create(&conf, f, now, &r) < 0) {
        hf_sip_fleet_destroy(f);
        return 0;
    }
    for (uint16_t i = 0; i < servers; i++) {
        const char name[] = {(char)('a' + i), 0};
        uint16_t no;
        assert(hf_sip_fleet_add(f, hf_slice(name, 1), &no) == 0);
        set(f, no, 0x15);
        load[i] = (struct hf_sip_load){.clients = 100};
    }
    while (hf_rd_left(&rd) > 0) {
        uint16_t i = (uint16_t)(hf_rd_u8(&rd) % servers);
        struct hf_sip_astray astray = {.current = hf_rd_u8(&rd) % N_MAX,
                                       .home = hf_rd_u8(&rd) % N_MAX,
                                       .clients = hf_rd_u8(&rd),
                                       .pinned = hf_rd_u8(&rd)};
        set(f, i, hf_rd_u8(&rd));
        load[i] = (struct hf_sip_load){.clients = hf_rd_u32(&rd) >> 4,
                                       .pinned = hf_rd_u16(&rd),
                                       .requests_s = hf_rd_u32(&rd),
                                       .cpu = hf_rd_u16(&rd)};
        now += HF_MS(hf_rd_u16(&rd));
        for (uint16_t k = 0; k < servers; k++) {
            hf_sip_rebalance_load(r, k, &load[k]);
        }
        hf_sip_rebalance_astray(r, &astray, 1);
        size_t n_moves = hf_sip_rebalance_plan(r, now, &m);
        check(f, r, m, n_moves, servers);
        n_moves = hf_sip_rebalance_step(r, now, &m);
        check(f, r, m, n_moves, servers);
        carry_out(m, n_moves);
    }
    hf_sip_rebalance_destroy(r);
    hf_sip_fleet_destroy(f);
    return 0;
}
