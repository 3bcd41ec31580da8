/* core/sip/registrar: RFC 3261 10.3, RFC 3327, RFC 5626, and what is told to be stored (S3, S4). */
#include "core/sip/registrar.h"

#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/mem.h"
#include "support/test.h"

#define S(x) hf_slice((x), sizeof(x) - 1)

static struct hf_sip_registrar *r;
static struct hf_sip_registered got;
static struct hf_sip_msg m;
static hf_time now = HF_S(1000);

static void begin(void)
{
    struct hf_sip_registrar_limits limits = {.bindings_max = 40,
                                             .expires_default_s = 3600,
                                             .expires_min_s = 60,
                                             .expires_max_s = 7200,
                                             .service_route = S("<sip:h1;lr>"),
                                             .seed = 1};
    now = HF_S(1000);
    assert_int_equal(hf_sip_registrar_create(&limits, now, &r), 0);
}

static void end(void)
{
    hf_sip_registrar_destroy(r);
    r = NULL;
}

/* One REGISTER of sip:a@h; the status. */
static int reg(const char *call_id, unsigned cseq, const char *lines)
{
    static char text[8192];
    int n = snprintf(text, sizeof(text),
                     "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK%u\r\n"
                     "From: <sip:a@h>;tag=1\r\nTo: <sip:a@h>\r\nCall-ID: %s\r\n"
                     "CSeq: %u REGISTER\r\n%s\r\n",
                     cseq, call_id, cseq, lines);
    assert_int_equal(hf_sip_parse(hf_slice(text, (size_t)n), false, &m), 0);
    hf_sip_registrar_register(r, &m, S("sip:a@h"), 0, now, &got);
    return got.status;
}

/* The fields of the response. */
static const char *fields(void)
{
    static char text[4096];
    struct hf_wr w;
    hf_wr_init(&w, text, sizeof(text) - 1);
    hf_sip_registrar_put(r, &got, &m, now, &w);
    assert_int_equal(w.err, 0);
    text[hf_wr_len(&w)] = 0;
    return text;
}
#define TAIL "Service-Route: <sip:h1;lr>\r\nSupported: path, outbound\r\n"

/* The changes as one line. */
static const char *changes(void)
{
    static char text[1024];
    size_t n = 0;
    text[0] = 0;
    for (size_t i = 0; i < got.n_changes; i++) {
        const struct hf_sip_change *c = &got.change[i];
        n += (size_t)snprintf(
            text + n, sizeof(text) - n, "%s%s %.*s%s", i ? ", " : "", hf_sip_change_event(c->kind),
            HF_SLICE_FMT(hf_sip_binding_uri(c->binding)), c->store ? " store" : "");
        if (c->replaced) {
            n += (size_t)snprintf(text + n, sizeof(text) - n, " for %.*s",
                                  HF_SLICE_FMT(hf_sip_binding_uri(c->replaced)));
        }
    }
    snprintf(text + n, sizeof(text) - n, "%s", got.wait ? " wait" : "");
    return text;
}

static void one_phone(void **state)
{
    (void)state;
    begin();
    assert_int_equal(reg("c", 1, "Contact: <sip:a@1.1.1.1> ; q=0.5 ; x = \"y\";expires=600\r\n"),
                     200);
    assert_string_equal(changes(), "registered sip:a@1.1.1.1 store wait");
    assert_string_equal(fields(), "Contact: <sip:a@1.1.1.1>;q=0.5;x=\"y\";expires=600\r\n" TAIL);
    assert_int_equal(hf_sip_registrar_bindings(r), 1);
    const struct hf_sip_binding *b = hf_sip_registrar_find(r, S("sip:a@h"));
    hf_assert_slice_str(hf_sip_binding_uri(b), "sip:a@1.1.1.1");
    hf_assert_slice_str(hf_sip_binding_params(b), ";q=0.5;x=\"y\"");
    hf_assert_slice_str(hf_sip_binding_call_id(b), "c");
    hf_assert_slice_str(hf_sip_binding_aor(b), "sip:a@h");
    assert_int_equal(hf_sip_binding_path(b).n, 0);
    assert_int_equal(hf_sip_binding_instance(b).n, 0);
    assert_int_equal(b->q, 500);
    assert_null(hf_sip_registrar_find(r, S("sip:b@h")));
    /* asked for */
    now += HF_S(100) + 1;
    assert_int_equal(reg("c", 2, ""), 200);
    assert_string_equal(changes(), "");
    assert_string_equal(fields(), "Contact: <sip:a@1.1.1.1>;q=0.5;x=\"y\";expires=500\r\n" TAIL);
    /* a refresh: another instant, the same binding; stored when a quarter of its life has passed */
    assert_int_equal(reg("c", 3, "Contact: <sip:a@1.1.1.1>;q=0.5;x=\"y\";expires=600\r\n"), 200);
    assert_string_equal(changes(), "refreshed sip:a@1.1.1.1");
    now += HF_S(60);
    assert_int_equal(reg("c", 4, "Contact: <sip:a@1.1.1.1>;q=0.5;x=\"y\";expires=600\r\n"), 200);
    assert_string_equal(changes(), "refreshed sip:a@1.1.1.1 store");
    /* a much shorter life is told, too */
    assert_int_equal(reg("c", 5, "Contact: <sip:a@1.1.1.1>;q=0.5;x=\"y\";expires=60\r\n"), 200);
    assert_string_equal(changes(), "refreshed sip:a@1.1.1.1 store");
    /* other parameters, an equal URI: changed */
    assert_int_equal(reg("c", 6, "Contact: sip:a@1.1.1.1\r\nExpires: 9999\r\n"), 200);
    assert_string_equal(changes(), "registered sip:a@1.1.1.1 store for sip:a@1.1.1.1 wait");
    assert_string_equal(fields(), "Contact: <sip:a@1.1.1.1>;expires=7200\r\n" TAIL);
    /* the phone began anew */
    assert_int_equal(reg("d", 1, "Contact: sip:a@1.1.1.1\r\n"), 200);
    assert_string_equal(changes(), "refreshed sip:a@1.1.1.1 store for sip:a@1.1.1.1");
    /* gone */
    assert_int_equal(reg("d", 2, "Contact: sip:a@1.1.1.1;expires=0\r\n"), 200);
    assert_string_equal(changes(), "unregistered sip:a@1.1.1.1 store wait");
    assert_string_equal(fields(), TAIL);
    assert_int_equal(hf_sip_registrar_aors(r), 0);
    assert_int_equal(reg("d", 3, "Contact: sip:a@1.1.1.1;expires=0\r\n"), 200);
    assert_string_equal(changes(), "");
    end();
}

static void several(void **state)
{
    (void)state;
    begin();
    assert_int_equal(
        reg("c", 1, "Contact: <sip:h1>;q=0.1, <sip:h2>;q=0.9\r\nm: <sip:h3>;q=0.5\r\n"), 200);
    assert_string_equal(fields(), "Contact: <sip:h2>;q=0.9;expires=3600\r\n"
                                  "Contact: <sip:h3>;q=0.5;expires=3600\r\n"
                                  "Contact: <sip:h1>;q=0.1;expires=3600\r\n" TAIL);
    /* all or nothing */
    assert_int_equal(reg("c", 2, "Contact: <sip:h1>;expires=0, <sip:h4>;q=7\r\n"), 400);
    assert_int_equal(hf_sip_registrar_bindings(r), 3);
    assert_int_equal(reg("e", 2, "Contact: <sip:h4>\r\n"), 200);
    assert_int_equal(reg("c", 2, "Contact: <sip:h5>, <sip:h1>;expires=0\r\n"), 200);
    assert_int_equal(reg("c", 1, "Contact: <sip:h6>, <sip:h2>\r\n"),
                     200); /* sip:h2's retransmission */
    assert_int_equal(reg("c", 3, "Contact: <sip:h2>\r\n"), 200);
    assert_int_equal(reg("c", 2, "Contact: <sip:h7>, <sip:h2>\r\n"), 500);
    assert_string_equal(got.reason, "CSeq Out of Order");
    assert_int_equal(got.n_changes, 0);
    assert_int_equal(hf_sip_registrar_bindings(r), 5);
    /* the last of equal ones counts, also when they are equal only to what is there */
    assert_int_equal(
        reg("c", 9, "Contact: <sip:h2;x=1>, <sip:h2;x=2>, <sip:h8>, <sip:h8>;q=0.2\r\n"), 200);
    assert_string_equal(changes(),
                        "registered sip:h2;x=2 store for sip:h2, registered sip:h8 store wait");
    /* "*" */
    assert_int_equal(reg("c", 10, "Contact: *\r\n"), 400);
    assert_int_equal(reg("c", 10, "Contact: *\r\nExpires: 1\r\n"), 400);
    assert_int_equal(reg("c", 10, "Contact: *, <sip:h2>\r\nExpires: 0\r\n"), 400);
    assert_int_equal(reg("c", 10, "Contact: *, *\r\nExpires: 0\r\n"), 400);
    assert_int_equal(reg("c", 8, "Contact: *\r\nExpires: 0\r\n"), 500);
    size_t n = hf_sip_registrar_bindings(r);
    assert_int_equal(reg("c", 10, "Contact: *\r\nExpires: 0\r\n"), 200);
    assert_int_equal(got.n_changes, n);
    assert_true(got.wait);
    assert_int_equal(hf_sip_registrar_bindings(r), 0);
    end();
}

static void refusals(void **state)
{
    (void)state;
    begin();
    assert_int_equal(reg("c", 1, "Contact: <sip:h1>;expires=59\r\n"), 423);
    assert_string_equal(fields(), "Min-Expires: 60\r\n");
    assert_int_equal(reg("c", 1, "Require: path, gruu\r\nContact: <sip:h1>\r\n"), 420);
    assert_string_equal(fields(), "Unsupported: gruu\r\n");
    assert_int_equal(reg("c", 1, "Require: a b\r\n"), 400);
    assert_int_equal(reg("c", 1, "Path: x\r\nContact: <sip:h1>\r\n"), 400);
    assert_int_equal(reg("c", 1, "Contact: <sip:h1\r\n"), 400);
    assert_int_equal(reg("c", 1, "Contact: <sip:h1>;reg-id=0\r\n"), 400);
    assert_int_equal(reg("c", 1, "Contact: <sip:h1>;x=\"\\\x01\"\r\n"), 400);
    assert_int_equal(reg("c", 1, "Expires: 60\r\nExpires: 61\r\nContact: <sip:h1>\r\n"), 400);
    char many[1024] = "Contact: <sip:h0>";
    for (int i = 1; i < HF_SIP_CONTACTS_MAX; i++) {
        snprintf(many + strlen(many), sizeof(many) - strlen(many), ",<sip:h%d>", i);
    }
    size_t n = strlen(many);
    snprintf(many + n, sizeof(many) - n, ",<sip:more>\r\n");
    assert_int_equal(reg("c", 1, many), 403);
    snprintf(many + n, sizeof(many) - n, "\r\n");
    assert_int_equal(reg("c", 1, many), 200);
    assert_int_equal(reg("d", 2, "Contact: <sip:more>\r\n"), 403);
    assert_int_equal(reg("c", 2, "Contact: <sip:h3>\r\n"), 200);
    /* the same phone, with another Contact: what it has not refreshed for longest makes room */
    for (int i = 0; i < HF_SIP_CONTACTS_MAX; i++) {
        if (i != 3) {
            snprintf(many, sizeof(many), "Contact: <sip:h%d>\r\n", i);
            assert_int_equal(reg("c", (uint32_t)(i == 5 ? 3 : 10 + i), many), 200);
        }
    }
    assert_int_equal(reg("c", 40, "Contact: <sip:more>\r\n"), 200);
    assert_string_equal(changes(), "unregistered sip:h3 store, registered sip:more store wait");
    assert_int_equal(reg("c", 41, "Contact: <sip:more>, <sip:h5>, <sip:still>\r\n"), 200);
    assert_string_equal(changes(),
                        "unregistered sip:h0 store, refreshed sip:more, refreshed sip:h5, "
                        "registered sip:still store wait");
    assert_int_equal(hf_sip_registrar_bindings(r), HF_SIP_CONTACTS_MAX);
    assert_int_equal(reg("c", 42, "Contact: <sip:h5>\r\n"), 200);
    for (int i = 0; i < 24; i++) { /* up to bindings_max */
        char aor[32];
        int len = snprintf(aor, sizeof(aor), "sip:u%d@h", i);
        hf_sip_registrar_register(r, &m, hf_slice(aor, (size_t)len), 0, now, &got);
        assert_int_equal(got.status, 200);
    }
    hf_sip_registrar_register(r, &m, S("sip:u24@h"), 0, now, &got);
    assert_int_equal(got.status, 503);
    static char text[3000];
    memset(text, 'x', sizeof(text));
    memcpy(text, "Contact: <sip:", 14);
    memcpy(text + sizeof(text) - 4, ">\r\n", 4);
    assert_int_equal(reg("c", 3, text), 400);
    end();
}

/* S4: the same request again; S3: the database is away. */
static void again_and_away(void **state)
{
    (void)state;
    begin();
    assert_int_equal(reg("c", 7, "Contact: <sip:h1>\r\n"), 200);
    now += HF_S(10);
    assert_int_equal(reg("c", 7, "Contact: <sip:h1>\r\n"), 200);
    assert_string_equal(changes(), "");
    assert_string_equal(fields(), "Contact: <sip:h1>;expires=3590\r\n" TAIL);
    assert_int_equal(reg("c", 8, "Contact: <sip:h1>\r\n"), 200);
    hf_sip_registrar_register(r, &m, S("sip:z@h"), 60, now, &got);
    assert_string_equal(fields(), "Contact: <sip:h1>;expires=60\r\n" TAIL);
    end();
}

static void paths_and_flows(void **state)
{
    (void)state;
    begin();
#define FLOW                                                                                       \
    "Supported: path, outbound\r\nContact: "                                                       \
    "<sip:a@%s>;+sip.instance=\"<urn:uuid:1>\";reg-id=%d\r\n"
    char text[512];
    assert_int_equal(
        reg("c", 1, "Path: <sip:e1;lr>,<sip:e2;lr>;x\r\nPath: <sip:e3>\r\nContact: <sip:h1>\r\n"),
        200);
    const struct hf_sip_binding *b = hf_sip_registrar_find(r, S("sip:a@h"));
    hf_assert_slice_str(hf_sip_binding_path(b), "<sip:e1;lr>, <sip:e2;lr>;x, <sip:e3>");
    assert_string_equal(fields(), "Contact: <sip:h1>;expires=3600\r\n"
                                  "Path: <sip:e1;lr>,<sip:e2;lr>;x\r\nPath: <sip:e3>\r\n" TAIL);
    assert_int_equal(reg("c", 2, "Path: <sip:e9;lr>\r\nContact: <sip:h1>\r\n"), 200);
    assert_string_equal(changes(),
                        "registered sip:h1 store for sip:h1 wait"); /* another way to it */
    assert_int_equal(reg("c", 3, "Contact: *\r\nExpires: 0\r\n"), 200);
    /* flows are told by instance and reg-id, not by their URI */
    snprintf(text, sizeof(text), FLOW, "one", 1);
    assert_int_equal(reg("f", 1, text), 200);
    assert_true(got.outbound);
    assert_true(strstr(fields(), "Require: outbound\r\n") != NULL);
    snprintf(text, sizeof(text), FLOW, "two", 1);
    assert_int_equal(reg("f", 2, text), 200);
    assert_string_equal(changes(), "registered sip:a@two store for sip:a@one wait");
    snprintf(text, sizeof(text), FLOW, "two", 2);
    assert_int_equal(reg("f", 3, text), 200);
    assert_int_equal(hf_sip_registrar_bindings(r), 2);
    hf_assert_slice_str(hf_sip_binding_instance(hf_sip_registrar_find(r, S("sip:a@h"))),
                        "\"<urn:uuid:1>\"");
    /* more hops: somebody must keep the flow */
    char hops[700];
    snprintf(hops, sizeof(hops), "Via: SIP/2.0/TLS d\r\n%s", text);
    assert_int_equal(reg("f", 4, hops), 439);
    snprintf(hops, sizeof(hops), "Via: SIP/2.0/TLS d\r\nPath: <sip:e;lr>\r\n%s", text);
    assert_int_equal(reg("f", 4, hops), 439);
    snprintf(hops, sizeof(hops), "Via: SIP/2.0/TLS d\r\nPath: <sip:e;lr;ob>\r\n%s", text);
    assert_int_equal(reg("f", 4, hops), 200);
    snprintf(hops, sizeof(hops), "%s%s", text, "m: <sip:q>;+sip.instance=\"<i>\";reg-id=9\r\n");
    assert_int_equal(reg("f", 5, hops), 400);
    /* without outbound it is a contact as any */
    assert_int_equal(
        reg("g", 1, "Contact: <sip:a@two>;+sip.instance=\"<urn:uuid:1>\";reg-id=2\r\n"), 200);
    assert_string_equal(changes(), "registered sip:a@two store wait");
    assert_int_equal(hf_sip_registrar_bindings(r), 3);
    end();
}

/* Its flow is broken: one ends, the others stay. */
static void failed(void **state)
{
    (void)state;
    struct hf_sip_change c;
    begin();
    assert_int_equal(reg("c", 1, "Contact: <sip:h1>,<sip:h2>;q=0.5\r\n"), 200);
    const struct hf_sip_binding *b = hf_sip_registrar_find(r, S("sip:a@h"));
    hf_sip_registrar_fail(r, b, &c);
    assert_ptr_equal(c.binding, b);
    assert_true(c.kind == HF_SIP_CHANGE_FAILED && c.store && !c.replaced);
    assert_string_equal(hf_sip_change_event(c.kind), "deactivated");
    hf_assert_slice_str(hf_sip_binding_uri(c.binding), "sip:h1");
    assert_true(hf_sip_change_ends(c.kind) && hf_sip_change_ends(HF_SIP_CHANGE_EXPIRED) &&
                hf_sip_change_ends(HF_SIP_CHANGE_UNREGISTERED));
    assert_false(hf_sip_change_ends(HF_SIP_CHANGE_CHANGED) ||
                 hf_sip_change_ends(HF_SIP_CHANGE_REFRESHED) ||
                 hf_sip_change_ends(HF_SIP_CHANGE_REGISTERED));
    b = hf_sip_registrar_find(r, S("sip:a@h"));
    hf_assert_slice_str(hf_sip_binding_uri(b), "sip:h2");
    hf_sip_registrar_fail(r, b, &c);
    assert_null(hf_sip_registrar_find(r, S("sip:a@h")));
    assert_int_equal(hf_sip_registrar_aors(r), 0);
    end();
}

static void endings(void **state)
{
    (void)state;
    struct hf_sip_change ended[HF_SIP_EXPIRED_AT_ONCE_MAX];
    size_t n;
    begin();
    assert_true(hf_sip_registrar_deadline(r) == HF_NEVER);
    assert_int_equal(reg("c", 1,
                         "Contact: <sip:h1>;expires=60,<sip:h2>;expires=61,<sip:h3>;"
                         "expires=5000\r\n"),
                     200);
    now += HF_S(60) - 1;
    assert_false(hf_sip_registrar_tick(r, now, ended, &n));
    assert_int_equal(n, 0);
    assert_true(hf_sip_registrar_deadline(r) <= now + 1);
    now += 1;
    assert_false(hf_sip_registrar_tick(r, now, ended, &n));
    assert_int_equal(n, 1);
    assert_int_equal(ended[0].kind, HF_SIP_CHANGE_EXPIRED);
    assert_true(ended[0].store);
    hf_assert_slice_str(hf_sip_binding_uri(ended[0].binding), "sip:h1");
    hf_assert_slice_str(hf_sip_binding_aor(ended[0].binding), "sip:a@h");
    now += HF_S(4200); /* once round the wheel; what ends in another turn stays */
    assert_false(hf_sip_registrar_tick(r, now, ended, &n));
    assert_int_equal(n, 1);
    now = HF_S(1000 + 4999);
    assert_false(hf_sip_registrar_tick(r, now, ended, &n));
    assert_int_equal(n, 0);
    now += HF_S(100000);
    /* over, and not yet gone: not told */
    assert_int_equal(hf_sip_binding_left_s(hf_sip_registrar_find(r, S("sip:a@h")), now), 0);
    assert_int_equal(reg("c", 2, ""), 200);
    assert_string_equal(fields(), TAIL);
    assert_false(hf_sip_registrar_tick(r, now, ended, &n));
    assert_int_equal(n, 1);
    assert_int_equal(hf_sip_registrar_bindings(r), 0);
    assert_int_equal(hf_sip_registrar_aors(r), 0);
    end();
    /* more at once than one tick tells */
    struct hf_sip_registrar_limits limits = {
        .bindings_max = 1000, .expires_default_s = 60, .expires_max_s = 60};
    assert_int_equal(hf_sip_registrar_create(&limits, now, &r), 0);
    reg("c", 1, "Contact: <sip:h1>\r\n");
    for (int i = 0; i < 150; i++) {
        char aor[32];
        int len = snprintf(aor, sizeof(aor), "sip:u%d@h", i);
        hf_sip_registrar_register(r, &m, hf_slice(aor, (size_t)len), 0, now, &got);
    }
    now += HF_S(60);
    assert_true(hf_sip_registrar_tick(r, now, ended, &n));
    assert_int_equal(n, 64);
    assert_true(hf_sip_registrar_tick(r, now, ended, &n));
    assert_int_equal(n, 64);
    assert_false(hf_sip_registrar_tick(r, now, ended, &n));
    assert_int_equal(n, 151 - 128);
    end();
}

/* S3: what one home stored, another one loads, and goes on as if nothing had been. */
static void rehomed(void **state)
{
    (void)state;
    begin();
    assert_int_equal(reg("c", 5,
                         "Path: <sip:e;lr;ob>\r\nSupported: outbound\r\nVia: SIP/2.0/UDP x\r\n"
                         "Contact: <sip:h1?a=b>;q=0.3;+sip.instance=\"<i>\";reg-id=4;"
                         "expires=600\r\n"),
                     200);
    assert_int_equal(reg("c", 6, "Contact: <sip:h2>\r\n"), 200);
    struct hf_sip_registrar *old = r;
    size_t pos = 0, n = 0;
    begin(); /* r is the new home */
    for (const struct hf_sip_binding *b; (b = hf_sip_registrar_next(old, &pos));) {
        for (; b; b = b->next, n++) {
            struct hf_sip_stored_binding s;
            hf_sip_binding_dump(b, now, &s);
            assert_int_equal(hf_sip_registrar_load(r, &s, now), 0);
            assert_int_equal(hf_sip_registrar_load(r, &s, now), 0); /* twice does no harm */
        }
    }
    assert_int_equal(n, 2);
    assert_int_equal(hf_sip_registrar_bindings(r), 2);
    assert_int_equal(reg("c", 6, "Contact: <sip:h2>\r\n"), 200); /* a retransmission, here too */
    assert_string_equal(changes(), "");
    assert_string_equal(fields(), "Contact: <sip:h2>;expires=3600\r\n"
                                  "Contact: <sip:h1?a=b>;q=0.3;+sip.instance=\"<i>\";reg-id=4;"
                                  "expires=600\r\n" TAIL);
    const struct hf_sip_binding *b = hf_sip_registrar_find(r, S("sip:a@h"))->next;
    assert_true(b->outbound);
    assert_int_equal(b->reg_id, 4);
    assert_int_equal(b->life_s, 600);
    hf_assert_slice_str(hf_sip_binding_path(b), "<sip:e;lr;ob>");
    /* a newer one of the same Call-ID replaces, an older one does not */
    struct hf_sip_stored_binding s;
    hf_sip_binding_dump(b, now, &s);
    s.cseq = 9;
    s.left_s = 300;
    assert_int_equal(hf_sip_registrar_load(r, &s, now), 0);
    b = hf_sip_registrar_find(r, S("sip:a@h"))->next;
    assert_int_equal(b->cseq, 9);
    assert_int_equal(hf_sip_binding_left_s(b, now), 300);
    s = (struct hf_sip_stored_binding){.aor = S("sip:a@h"),
                                       .uri = S("sip:h1"),
                                       .call_id = S("c"),
                                       .cseq = 1,
                                       .left_s = 5,
                                       .life_s = 60};
    assert_int_equal(hf_sip_registrar_load(r, &s, now), 0);
    s.uri = S("sip");
    assert_int_equal(hf_sip_registrar_load(r, &s, now), -HF_EVALUE);
    s.uri = S("sip:h1");
    s.params = S("q=1");
    assert_int_equal(hf_sip_registrar_load(r, &s, now), -HF_EVALUE);
    s.params = S(";q=0.5;expires=3");
    assert_int_equal(hf_sip_registrar_load(r, &s, now), -HF_EVALUE);
    s.params = S("");
    s.path = S("<sip:x>\r\nEvil: yes");
    assert_int_equal(hf_sip_registrar_load(r, &s, now), -HF_EVALUE);
    s.path = S("");
    s.left_s = 0; /* over */
    s.uri = S("sip:over");
    assert_int_equal(hf_sip_registrar_load(r, &s, now), 0);
    assert_int_equal(hf_sip_registrar_bindings(r), 3);
    assert_int_equal(hf_sip_registrar_forget(r, S("sip:a@h")), 3);
    assert_int_equal(hf_sip_registrar_forget(r, S("sip:a@h")), 0);
    assert_int_equal(hf_sip_registrar_aors(r), 0);
    hf_sip_registrar_destroy(old);
    hf_sip_registrar_destroy(NULL);
    end();
}

/* Whichever allocation fails, nothing is half done, and all is given back. */
static void no_memory(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        hf_mem_fail_after(i);
        struct hf_sip_registrar_limits limits = {
            .bindings_max = 40, .expires_default_s = 3600, .expires_max_s = 7200};
        int rc = hf_sip_registrar_create(&limits, now, &r);
        if (rc) {
            hf_mem_fail_after(-1);
            assert_int_equal(rc, -ENOMEM);
            continue;
        }
        size_t before = hf_sip_registrar_bytes(r);
        int status = reg("c", 1, "Contact: <sip:h1>,<sip:h2>\r\n");
        hf_mem_fail_after(-1);
        assert_true(status == 200 || status == 500);
        assert_int_equal(hf_sip_registrar_bindings(r), status == 200 ? 2 : 0);
        if (status == 500) {
            assert_int_equal(got.n_changes, 0);
            assert_int_equal(reg("c", 1, "Contact: <sip:h1>,<sip:h2>\r\n"), 200);
        }
        reg("c", 2, "Contact: *\r\nExpires: 0\r\n");
        reg("c", 3, "");
        assert_in_range(hf_sip_registrar_bytes(r) - before, 0, 1024); /* the map's slots */
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(one_phone),      HF_TEST(several),         HF_TEST(refusals),
        HF_TEST(again_and_away), HF_TEST(paths_and_flows), HF_TEST(endings),
        HF_TEST(failed),         HF_TEST(rehomed),         HF_TEST(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
