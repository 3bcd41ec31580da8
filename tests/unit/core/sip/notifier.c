/* core/sip/notifier: whole messages as golden traces (tests/data/sip/notifier; with HF_GOLDEN_WRITE
 * set they are written), moves of many, and a random world of homes, clients and watchers. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/prng.h"
#include "core/sip/fields.h"
#include "core/sip/notifier.h"
#include "support/test.h"

#define ROWS_MAX 25000
#define PENDING_MAX 25000
#define ANN "sip:ann@example.org"
#define BEN "sip:ben@example.org"
#define DOC(x)                                                                                     \
    "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:ann@example.org'>" x "</presence>"

/* What is stored, as SQL would have it. */
struct row {
    bool there;
    uint8_t what;
    char aor[64], key[64];
    uint8_t *data; /* owned */
    size_t n;
    hf_time expires;
};

/* A NOTIFY that is not answered yet, a KEEP whose result is not told. */
struct pending {
    uint8_t server;
    uint64_t cookie;
    uint16_t status;
    uint32_t retry_after;
    char aor[64];
};

/* An answer that waits for its KEEP. */
struct held {
    uint8_t server;
    uint64_t key, cookie;
    struct hf_sip_flow to;
    char text[65536];
    size_t n;
};

struct server {
    const char *name;
    char contact[64];
    struct hf_sip_notifier *n;
    struct hf_sip_registrar *reg;
};

static struct {
    hf_time now;
    struct server server[4];
    bool db_away;
    int may;         /* what may_watch says */
    uint16_t status; /* with which NOTIFYs are answered; 0: not at all */
    uint32_t retry_after;
    struct row row[ROWS_MAX];
    size_t n_rows;
    struct pending answer[PENDING_MAX], kept[PENDING_MAX];
    size_t n_answers, n_kept;
    struct held held[4];
    size_t n_held;
    unsigned n_notify, n_keep, n_drop, branch;
    uint16_t last_status; /* of a response */
    char to_tag[40], etag[HF_SIP_ETAG_MAX];
    char reply[65536], last[65536]; /* the last response, the last NOTIFY */
    bool telling;
    char *log; /* of all messages */
    size_t n_log;
    void (*seen)(unsigned server, const char *message, size_t n); /* of NOTIFYs */
} rig;

/* ---- the trace ---- */

static void tell(const char *what, const char *text, size_t n)
{
    if (!rig.telling) {
        return;
    }
    rig.log = realloc(rig.log, rig.n_log + strlen(what) + n + 3);
    assert_non_null(rig.log);
    rig.n_log += (size_t)sprintf(rig.log + rig.n_log, "%s\n", what);
    for (size_t i = 0; i < n; i++) {
        if (text[i] != '\r') {
            rig.log[rig.n_log++] = text[i];
        }
    }
    if (n > 0) {
        rig.log[rig.n_log++] = '\n';
    }
    rig.log[rig.n_log] = 0;
}

#define TELL(...)                                                                                  \
    do {                                                                                           \
        char tell_line[400];                                                                       \
        snprintf(tell_line, sizeof(tell_line), __VA_ARGS__);                                       \
        tell(tell_line, "", 0);                                                                    \
    } while (0)

static void golden(const char *name)
{
    static char was[1 << 20];
    char path[1024];
    snprintf(path, sizeof(path), "%s/sip/notifier/%s.txt", HF_TEST_DATA, name);
    if (getenv("HF_GOLDEN_WRITE") != NULL) {
        FILE *out = fopen(path, "w");
        assert_non_null(out);
        fputs(rig.log, out);
        fclose(out);
    }
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    was[fread(was, 1, sizeof(was) - 1, f)] = 0;
    fclose(f);
    assert_string_equal(rig.log, was);
}

/* ---- what the element does ---- */

static struct row *row_of(uint8_t what, struct hf_slice aor, struct hf_slice key)
{
    for (size_t i = rig.n_rows; i-- > 0;) {
        struct row *r = &rig.row[i];
        if (r->there && r->what == what && hf_slice_eq(aor, hf_slice_str(r->aor)) &&
            hf_slice_eq(key, hf_slice_str(r->key))) {
            return r;
        }
    }
    return NULL;
}

static void row_erase(struct row *r)
{
    free(r->data);
    memset(r, 0, sizeof(*r));
}

static void on_store(void *ctx, const struct hf_sip_op *op)
{
    struct server *s = ctx;
    const struct hf_sip_kept *k = &op->kept;
    struct row *r = row_of(k->what, op->aor, k->key);
    bool keep = op->kind == HF_SIP_OP_KEEP;
    rig.n_keep += keep;
    rig.n_drop += !keep;
    if (rig.telling) {
        TELL("--- %s %s %c %.*s of %.*s%s", s->name, keep ? "keeps" : "drops", k->what,
             HF_SLICE_FMT(k->key), HF_SLICE_FMT(op->aor),
             rig.db_away ? " (the database is away)" : "");
    }
    for (size_t i = 0; keep && i < rig.n_held; i++) {
        struct held *h = &rig.held[i];
        if (s == &rig.server[h->server] && h->key == HF_SIP_KEEP_KEY(op->cookie) && !h->cookie) {
            h->cookie = op->cookie;
        }
    }
    if (keep) {
        assert_int_equal(op->epoch, 7);
        assert_int_not_equal(op->cookie, 0);
        assert_true(rig.n_kept < PENDING_MAX);
        struct pending *p = &rig.kept[rig.n_kept++];
        *p = (struct pending){
            .server = (uint8_t)(s - rig.server), .cookie = op->cookie, .status = rig.db_away};
        snprintf(p->aor, sizeof(p->aor), "%.*s", HF_SLICE_FMT(op->aor));
    }
    if (rig.db_away) {
        return;
    }
    if (r != NULL) {
        row_erase(r);
    }
    if (keep) {
        for (size_t i = 0; r == NULL && i < rig.n_rows && rig.n_rows > 1000; i++) {
            r = rig.row[i].there ? NULL : &rig.row[i];
        }
        r = r != NULL ? r : &rig.row[rig.n_rows++];
        assert_true(rig.n_rows < ROWS_MAX);
        r->there = true;
        r->what = k->what;
        snprintf(r->aor, sizeof(r->aor), "%.*s", HF_SLICE_FMT(op->aor));
        snprintf(r->key, sizeof(r->key), "%.*s", HF_SLICE_FMT(k->key));
        r->data = malloc(k->data.n);
        memcpy(r->data, k->data.p, k->data.n);
        r->n = k->data.n;
        r->expires = rig.now + HF_S(k->left_s);
    }
}

static void on_reply(void *ctx, const struct hf_sip_flow *to, struct hf_slice message)
{
    struct server *s = ctx;
    struct hf_sip_msg m;
    char what[80];
    assert_int_equal(to->conn, 99);
    assert_int_equal(hf_sip_parse(message, false, &m), 0);
    rig.last_status = m.status;
    memcpy(rig.reply, message.p, message.n);
    rig.reply[message.n] = 0;
    snprintf(rig.to_tag, sizeof(rig.to_tag), "%.*s", HF_SLICE_FMT(hf_sip_address_tag(&m.to)));
    struct hf_slice etag;
    if (hf_sip_etag(&m, HF_SIP_H_SIP_ETAG, &etag) == 1) {
        snprintf(rig.etag, sizeof(rig.etag), "%.*s", HF_SLICE_FMT(etag));
    }
    snprintf(what, sizeof(what), "--- %s answers", s->name);
    tell(what, (const char *)message.p, message.n);
}

static void on_hold(void *ctx, uint64_t key, bool fresh, const struct hf_sip_flow *to,
                    struct hf_slice message)
{
    (void)fresh;
    assert_true(rig.n_held < HF_ARRAY_LEN(rig.held) && message.n < sizeof(rig.held[0].text));
    struct held *h = &rig.held[rig.n_held++];
    *h = (struct held){
        .server = (uint8_t)((struct server *)ctx - rig.server), .key = key, .to = *to};
    memcpy(h->text, message.p, message.n);
    h->n = message.n;
}

/* Its KEEP has been done. */
static void answer_held(uint8_t server, uint64_t cookie)
{
    for (size_t i = 0; i < rig.n_held; i++) {
        struct held *h = &rig.held[i];
        if (h->server == server && h->cookie == cookie) {
            on_reply(&rig.server[server], &h->to, hf_slice(h->text, h->n));
            memmove(h, h + 1, (--rig.n_held - i) * sizeof(*h));
            return;
        }
    }
}

static void on_notify(void *ctx, uint64_t cookie, struct hf_slice next_hop,
                      const struct hf_sip_request *request, struct hf_slice more,
                      struct hf_slice type, struct hf_slice body)
{
    struct server *s = ctx;
    struct hf_sip_request r = *request;
    struct hf_sip_msg m;
    struct hf_slice message;
    struct hf_wr w;
    char branch[40], what[200];
    snprintf(branch, sizeof(branch), HF_SIP_COOKIE "%u", ++rig.branch);
    r.transport = HF_SIP_TRANSPORT_UDP;
    r.sent_by = hf_slice_str(s->name);
    r.branch = hf_slice_str(branch);
    hf_wr_init(&w, rig.last, sizeof(rig.last));
    assert_int_equal(hf_sip_begin_request(&w, &r), 0);
    hf_wr_bytes(&w, more);
    assert_int_equal(hf_sip_end(&w, type, body, &message), 0);
    rig.last[message.n] = 0;
    assert_int_equal(hf_sip_parse(message, true, &m), 0);
    assert_int_equal(hf_sip_scrutinise(&m), HF_SIP_H_OTHER);
    assert_true(next_hop.n > 0);
    rig.n_notify++;
    snprintf(what, sizeof(what), "--- %s sends to %.*s", s->name, HF_SLICE_FMT(next_hop));
    tell(what, rig.last, message.n);
    if (rig.seen != NULL) {
        rig.seen((unsigned)(s - rig.server), rig.last, message.n);
    }
    assert_true(rig.n_answers < PENDING_MAX);
    rig.answer[rig.n_answers++] = (struct pending){.server = (uint8_t)(s - rig.server),
                                                   .cookie = cookie,
                                                   .status = rig.status,
                                                   .retry_after = rig.retry_after};
}

static const struct hf_sip_binding *on_bindings(void *ctx, struct hf_slice aor)
{
    return hf_sip_registrar_find(((struct server *)ctx)->reg, aor);
}

static uint64_t on_epoch(void *ctx, struct hf_slice aor)
{
    (void)ctx;
    assert_true(aor.n > 0);
    return 7;
}

static int on_may_watch(void *ctx, struct hf_slice watcher, enum hf_sip_package p,
                        struct hf_slice aor)
{
    (void)ctx, (void)p, (void)aor;
    assert_true(watcher.n > 0);
    return rig.may;
}

static const struct hf_sip_notifier_ops ops = {
    .reply = on_reply,
    .hold = on_hold,
    .notify = on_notify,
    .store = on_store,
    .bindings = on_bindings,
    .epoch = on_epoch,
    .may_watch = on_may_watch,
};

/* ---- the world ---- */

static void boot(unsigned k, const struct hf_sip_watch_conf *watch)
{
    static const char *const names[] = {"alpha", "beta", "gamma", "delta"};
    const struct hf_sip_registrar_limits limits = {.bindings_max = 10000,
                                                   .expires_default_s = 3600,
                                                   .expires_min_s = 60,
                                                   .expires_max_s = 7200};
    struct server *s = &rig.server[k];
    s->name = names[k];
    snprintf(s->contact, sizeof(s->contact), "<sip:%s.example.org>", s->name);
    const struct hf_sip_notifier_conf conf = {
        .watch = *watch, .contact = hf_slice_str(s->contact), .seed = 100 + k + rig.branch};
    assert_int_equal(hf_sip_notifier_create(&conf, &ops, s, rig.now, &s->n), 0);
    assert_int_equal(hf_sip_registrar_create(&limits, rig.now, &s->reg), 0);
}

static void power_off(unsigned k)
{
    hf_sip_notifier_destroy(rig.server[k].n);
    hf_sip_registrar_destroy(rig.server[k].reg);
    rig.server[k].n = NULL;
    rig.server[k].reg = NULL;
    for (size_t i = 0; i < rig.n_answers; i++) {
        rig.answer[i].status = rig.answer[i].server == k ? 0 : rig.answer[i].status;
    }
    for (size_t i = 0; i < rig.n_kept; i++) {
        rig.kept[i].cookie = rig.kept[i].server == k ? 0 : rig.kept[i].cookie;
    }
}

static void fini(void)
{
    for (unsigned k = 0; k < HF_ARRAY_LEN(rig.server); k++) {
        power_off(k);
    }
    for (size_t i = 0; i < rig.n_rows; i++) {
        free(rig.row[i].data);
    }
    free(rig.log);
    memset(&rig, 0, sizeof(rig));
}

static void init(unsigned n_servers, const struct hf_sip_watch_conf *watch)
{
    fini();
    rig.now = HF_S(1000);
    rig.status = 200;
    rig.may = 1;
    for (unsigned k = 0; k < n_servers; k++) {
        boot(k, watch);
    }
}

/* The store's results and the watchers' answers come, until there are none. */
static void settle(void)
{
    while (rig.n_kept + rig.n_answers > 0) {
        if (rig.n_kept > 0) {
            struct pending p = rig.kept[0];
            memmove(rig.kept, rig.kept + 1, --rig.n_kept * sizeof(p));
            const struct hf_sip_result r = {
                .kind = HF_SIP_OP_KEEP,
                .done = p.status ? HF_SIP_OP_AWAY : HF_SIP_OP_DONE,
                .cookie = p.cookie,
                .aor = hf_slice_str(p.aor),
            };
            if (p.cookie != 0 && rig.server[p.server].n != NULL) {
                answer_held(p.server, p.cookie);
                (void)hf_sip_notifier_stored(rig.server[p.server].n, &r, rig.now);
            }
            continue;
        }
        struct pending p = rig.answer[--rig.n_answers];
        char text[300];
        struct hf_sip_msg m;
        int n = snprintf(text, sizeof(text),
                         "SIP/2.0 %u X\r\nVia: SIP/2.0/UDP a\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>;"
                         "tag=2\r\nCall-ID: 1\r\nCSeq: 1 NOTIFY\r\nRetry-After: %u\r\n\r\n",
                         p.status, p.retry_after);
        if (p.status != 0 && rig.server[p.server].n != NULL) {
            assert_int_equal(hf_sip_parse(hf_slice(text, (size_t)n), false, &m), 0);
            hf_sip_notifier_answered(rig.server[p.server].n, p.cookie, p.status,
                                     p.status == 408 ? NULL : &m, rig.now);
        }
    }
}

static hf_time next_deadline(void)
{
    hf_time t = HF_NEVER;
    for (unsigned k = 0; k < HF_ARRAY_LEN(rig.server); k++) {
        if (rig.server[k].n != NULL) {
            t = hf_time_min(t, hf_sip_notifier_deadline(rig.server[k].n));
        }
    }
    return t;
}

static void tick(void)
{
    for (unsigned k = 0; k < HF_ARRAY_LEN(rig.server); k++) {
        if (rig.server[k].n != NULL) {
            hf_sip_notifier_tick(rig.server[k].n, rig.now);
        }
    }
    settle();
}

static void pass(hf_time t)
{
    hf_time until = rig.now + t;
    settle();
    for (hf_time d; (d = next_deadline()) <= until;) {
        rig.now = d > rig.now ? d : rig.now;
        tick();
    }
    rig.now = until;
    tick();
}

/* ---- requests ---- */

/* A request from these lines; "\n" ends one. */
static void receives(unsigned k, const char *aor, const char *user, const char *head,
                     const char *body)
{
    static char text[65536];
    struct hf_sip_msg m;
    char what[80];
    size_t n = 0;
    for (const char *p = head; *p; p++) {
        if (*p == '\n') {
            text[n++] = '\r';
        }
        text[n++] = *p;
    }
    n += (size_t)sprintf(text + n, "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    assert_int_equal(hf_sip_parse(hf_slice(text, n), false, &m), 0);
    snprintf(what, sizeof(what), "--- %s receives", rig.server[k].name);
    tell(what, text, n);
    const struct hf_sip_flow from = {
        .peer = {.family = HF_AF_INET, .addr = {192, 0, 2, 9}, .port = 5060}, .conn = 99};
    hf_sip_notifier_request(rig.server[k].n, &m, &from, hf_slice_str(aor), hf_slice_str(user),
                            rig.now);
    settle();
}

struct dialog {
    const char *from, *aor, *call_id, *event;
    char to_tag[40];
    unsigned cseq;
};

/* more: lines of its own. */
static unsigned subscribes(unsigned k, struct dialog *d, const char *contact, const char *more)
{
    static char head[65536];
    d->cseq++;
    snprintf(head, sizeof(head),
             "SUBSCRIBE %s SIP/2.0\n"
             "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK%s%u;rport\n"
             "From: \"W\" <%s>;tag=%sw\n"
             "To: <%s>%s%s\n"
             "Call-ID: %s\n"
             "CSeq: %u SUBSCRIBE\n"
             "Event: %s\n"
             "%s%s%s",
             d->aor, d->call_id, d->cseq, d->from, d->call_id, d->aor, d->to_tag[0] ? ";tag=" : "",
             d->to_tag, d->call_id, d->cseq, d->event, contact[0] ? "Contact: " : "", contact,
             contact[0] ? "\n" : "");
    strcat(head, more);
    receives(k, d->aor, d->from, head, "");
    if (rig.last_status == 200) {
        memcpy(d->to_tag, rig.to_tag, sizeof(d->to_tag));
    }
    return rig.last_status;
}

static unsigned publishes_for(unsigned k, const char *aor, const char *branch, const char *more,
                              const char *body)
{
    char head[1000];
    snprintf(head, sizeof(head),
             "PUBLISH %s SIP/2.0\n"
             "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK%s\n"
             "From: <%s>;tag=p\n"
             "To: <%s>\n"
             "Call-ID: %s\n"
             "CSeq: 1 PUBLISH\n"
             "Event: presence\n"
             "%s",
             aor, branch, aor, aor, branch, more);
    receives(k, aor, aor, head, body);
    return rig.last_status;
}

static unsigned publishes(unsigned k, const char *branch, const char *more, const char *body)
{
    return publishes_for(k, ANN, branch, more, body);
}

static void registers(unsigned k, const char *aor, const char *call_id, unsigned cseq,
                      const char *contact, unsigned expires)
{
    static struct hf_sip_registered r;
    char text[1000];
    struct hf_sip_msg m;
    int n =
        snprintf(text, sizeof(text),
                 "REGISTER sip:example.org SIP/2.0\r\nVia: SIP/2.0/UDP c\r\nFrom: <%s>;tag=1\r\n"
                 "To: <%s>\r\nCall-ID: %s\r\nCSeq: %u REGISTER\r\nContact: %s\r\n"
                 "Expires: %u\r\n\r\n",
                 aor, aor, call_id, cseq, contact, expires);
    assert_int_equal(hf_sip_parse(hf_slice(text, (size_t)n), false, &m), 0);
    hf_sip_registrar_register(rig.server[k].reg, &m, hf_slice_str(aor), 0, rig.now, &r);
    assert_int_equal(r.status, 200);
    if (rig.telling) {
        TELL("--- %s registers %s for %u s with %s", aor, contact, expires, rig.server[k].name);
    }
    hf_sip_notifier_changed(rig.server[k].n, hf_slice_str(aor), r.change, r.n_changes, rig.now);
    settle();
}

/* The table says that an AoR is another server's: what both do. from: alive or not. */
static void moves(unsigned from, unsigned to, const char *aor, enum hf_sip_former former)
{
    struct hf_slice a = hf_slice_str(aor);
    static struct hf_sip_kept kept[ROWS_MAX];
    size_t n = 0;
    const struct hf_sip_binding *b =
        rig.server[from].reg != NULL ? hf_sip_registrar_find(rig.server[from].reg, a) : NULL;
    for (; b != NULL && from != to; b = b->next) {
        struct hf_sip_stored_binding s;
        hf_sip_binding_dump(b, rig.now, &s);
        assert_int_equal(hf_sip_registrar_load(rig.server[to].reg, &s, rig.now), 0);
    }
    for (size_t i = 0; i < rig.n_rows; i++) {
        const struct row *r = &rig.row[i];
        if (r->there && strcmp(r->aor, aor) == 0) {
            hf_time left = r->expires > rig.now ? r->expires - rig.now : 0;
            kept[n++] = (struct hf_sip_kept){.what = r->what,
                                             .key = hf_slice_str(r->key),
                                             .data = hf_slice(r->data, r->n),
                                             .left_s = (uint32_t)(left / HF_NS_PER_S)};
        }
    }
    if (rig.telling) {
        TELL("--- %s of %s is now %s's (%zu things are stored)", aor, rig.server[from].name,
             rig.server[to].name, n);
    }
    if (rig.server[from].n != NULL && from != to) {
        hf_sip_notifier_left(rig.server[from].n, a, rig.now);
    }
    if (rig.server[from].reg != NULL && from != to) {
        hf_sip_registrar_forget(rig.server[from].reg, a);
    }
    hf_sip_notifier_load(rig.server[to].n, a, kept, n, former, rig.now);
    settle();
}

/* ---- golden traces ---- */

static struct dialog ann_reg(void)
{
    return (struct dialog){.from = ANN, .aor = ANN, .call_id = "reg1", .event = "reg"};
}

static struct dialog ben_presence(void)
{
    return (struct dialog){.from = BEN, .aor = ANN, .call_id = "pres1", .event = "presence;id=7"};
}

#define ROUTES "Record-Route: <sip:edge1.example.org;lr>, <sip:edge2.example.org;lr>\n"

static void test_subscribe(void **state)
{
    (void)state;
    init(1, &(struct hf_sip_watch_conf){0});
    rig.telling = true;
    registers(0, ANN, "r1", 1, "<sip:ann@192.0.2.1>;q=0.5", 3600);
    struct dialog d = ann_reg();
    subscribes(0, &d, "<sip:w@192.0.2.9>",
               ROUTES "Accept: application/reginfo+xml\nExpires: 600\n");
    char first[40];
    memcpy(first, d.to_tag, sizeof(first));
    d.cseq = 0; /* the answer was lost: the same once more, and no second subscription */
    d.to_tag[0] = 0;
    subscribes(0, &d, "<sip:w@192.0.2.9>",
               ROUTES "Accept: application/reginfo+xml\nExpires: 600\n");
    assert_string_equal(d.to_tag, first);
    pass(HF_S(5));
    TELL("--- after 5 s");
    registers(0, ANN, "r2", 1, "<sip:ann@192.0.2.2>", 3600);
    pass(HF_S(5));
    TELL("--- after 5 s");
    registers(0, ANN, "r1", 2, "<sip:ann@192.0.2.1>", 0);
    pass(HF_S(5));
    TELL("--- after 5 s, from elsewhere, in the dialog");
    subscribes(0, &d, "<sip:w@192.0.2.10>", "Expires: 900\n");
    TELL("--- it has had enough");
    subscribes(0, &d, "", "Expires: 0\n");
    golden("subscribe");
    assert_int_equal(hf_sip_notifier_count(rig.server[0].n), 0);
    fini();
}

static void test_pending(void **state)
{
    (void)state;
    init(1, &(struct hf_sip_watch_conf){0});
    rig.telling = true;
    rig.may = -1;
    registers(0, ANN, "r1", 1, "<sip:ann@192.0.2.1>", 3600);
    struct dialog d = ben_presence();
    subscribes(0, &d, "<sip:ben@192.0.2.9>", "");
    pass(HF_S(5));
    TELL("--- ann lets ben watch her");
    rig.may = 1;
    hf_sip_notifier_decided(rig.server[0].n, hf_slice_str(ANN), rig.now);
    settle();
    pass(HF_S(5));
    TELL("--- not so cat");
    rig.may = -1;
    struct dialog c = {
        .from = "sip:cat@example.org", .aor = ANN, .call_id = "c", .event = "presence"};
    subscribes(0, &c, "<sip:cat@192.0.2.8>", "");
    rig.may = 0;
    hf_sip_notifier_decided(rig.server[0].n, hf_slice_str(ANN), rig.now);
    pass(HF_S(5));
    TELL("--- who is known not to be let");
    struct dialog e = {
        .from = "sip:eve@example.org", .aor = ANN, .call_id = "e", .event = "presence"};
    subscribes(0, &e, "<sip:eve@192.0.2.7>", "");
    golden("pending");
    fini();
}

#define PIDF "Content-Type: application/pidf+xml\n"

static void test_publish(void **state)
{
    (void)state;
    char more[200];
    init(1, &(struct hf_sip_watch_conf){0});
    rig.telling = true;
    struct dialog d = ben_presence();
    subscribes(0, &d, "<sip:ben@192.0.2.9>", "");
    pass(HF_S(5));
    TELL("--- published");
    publishes(0, "p1", "Expires: 600\n" PIDF, DOC("<tuple id='desk'/>"));
    publishes(0, "p1", "Expires: 600\n" PIDF, DOC("<tuple id='desk'/>")); /* the same once more */
    pass(HF_S(5));
    TELL("--- refreshed, which nobody has to know");
    snprintf(more, sizeof(more), "Expires: 900\nSIP-If-Match: %s\n", rig.etag);
    publishes(0, "p2", more, "");
    pass(HF_S(5));
    TELL("--- modified");
    snprintf(more, sizeof(more), "Expires: 900\nSIP-If-Match: %s\n" PIDF, rig.etag);
    publishes(0, "p3", more, DOC("<tuple id='desk'/><note>at lunch</note>"));
    pass(HF_S(5));
    TELL("--- by another device, too");
    publishes(0, "p4", "Expires: 60\n" PIDF, DOC("<tuple id='mobile'/>"));
    pass(HF_S(5));
    TELL("--- with an entity tag of the past");
    publishes(0, "p5", more, DOC("<tuple id='desk'/>"));
    TELL("--- the mobile goes");
    snprintf(more, sizeof(more), "Expires: 0\nSIP-If-Match: %s\n", rig.etag);
    publishes(0, "p6", more, "");
    pass(HF_S(5));
    TELL("--- and nobody refreshes the other one");
    pass(HF_S(900));
    golden("publish");
    assert_int_equal(hf_sip_notifier_publications(rig.server[0].n), 0);
    assert_int_equal(hf_sip_notifier_presence_counters(rig.server[0].n)->mismatched, 1);
    fini();
}

static void test_move(void **state)
{
    (void)state;
    char more[200];
    init(2, &(struct hf_sip_watch_conf){0});
    registers(0, ANN, "r1", 1, "<sip:ann@192.0.2.1>", 3600);
    struct dialog d = ann_reg(), p = ben_presence();
    publishes(0, "p1", "Expires: 600\n" PIDF, DOC("<tuple id='desk'/>"));
    subscribes(0, &d, "<sip:w@192.0.2.9>", ROUTES "Expires: 600\n");
    subscribes(0, &p, "<sip:ben@192.0.2.9>", ROUTES "Expires: 600\n");
    pass(HF_S(5));
    rig.telling = true;
    moves(0, 1, ANN, HF_SIP_FORMER_ALIVE);
    TELL("--- the watchers come to the new home");
    struct dialog d2 = ann_reg(), p2 = ben_presence();
    d2.call_id = "reg2";
    p2.call_id = "pres2";
    subscribes(1, &d2, "<sip:w@192.0.2.9>", "");
    subscribes(1, &p2, "<sip:ben@192.0.2.9>", "");
    TELL("--- their old dialogs are nobody's");
    subscribes(0, &d, "<sip:w@192.0.2.9>", "");
    TELL("--- the publication is known there");
    snprintf(more, sizeof(more), "Expires: 900\nSIP-If-Match: %s\n", rig.etag);
    publishes(1, "p2", more, "");
    golden("move");
    assert_int_equal(hf_sip_notifier_count(rig.server[0].n), 0);
    assert_int_equal(hf_sip_notifier_publications(rig.server[0].n), 0);
    assert_int_equal(hf_sip_notifier_count(rig.server[1].n), 2);
    fini();
}

/* It comes back before its watchers have been told that it went: who comes anew sees it as it is.
 */
static void test_comes_back(void **state)
{
    (void)state;
    init(2, &(struct hf_sip_watch_conf){0});
    registers(0, ANN, "r1", 1, "<sip:ann@192.0.2.1>", 3600);
    struct dialog d = ann_reg();
    subscribes(0, &d, "<sip:w@192.0.2.9>", "");
    rig.status = 0;
    moves(0, 1, ANN, HF_SIP_FORMER_ALIVE);
    assert_non_null(strstr(rig.last, "event=\"deactivated\""));
    registers(0, ANN, "r1", 2, "<sip:ann@192.0.2.1>", 3600);
    d = ann_reg();
    d.call_id = "reg2";
    subscribes(0, &d, "<sip:w@192.0.2.9>", "");
    assert_non_null(strstr(rig.last, "event=\"registered\""));
    assert_null(strstr(rig.last, "event=\"deactivated\""));
    assert_int_equal(hf_sip_notifier_count(rig.server[0].n), 2);
    fini();
}

static void test_in_stead(void **state)
{
    (void)state;
    init(2, &(struct hf_sip_watch_conf){0});
    registers(0, ANN, "r1", 1, "<sip:ann@192.0.2.1>", 3600);
    struct dialog d = ann_reg(), p = ben_presence();
    publishes(0, "p1", "Expires: 600\n" PIDF, DOC("<tuple id='desk'/>"));
    subscribes(0, &d, "<sip:w@192.0.2.9>", ROUTES "Expires: 600\n");
    subscribes(0, &p, "<sip:ben@192.0.2.9>",
               "Record-Route: <sip:old-router.example.org>, <sip:e;lr>\n");
    registers(1, ANN, "r1", 1, "<sip:ann@192.0.2.1>", 3600); /* as it was stored */
    rig.telling = true;
    power_off(0);
    moves(0, 1, ANN, HF_SIP_FORMER_DEAD);
    golden("in-stead");
    assert_int_equal(hf_sip_notifier_counters(rig.server[1].n)->in_stead, 2);
    assert_int_equal(hf_sip_notifier_count(rig.server[1].n), 0);
    fini();
}

/* Our own former life: they go on, a block further. */
static void test_restart(void **state)
{
    (void)state;
    init(1, &(struct hf_sip_watch_conf){0});
    struct dialog d = ann_reg();
    subscribes(0, &d, "<sip:w@192.0.2.9>", ROUTES "Expires: 600\n");
    pass(HF_S(100));
    power_off(0);
    boot(0, &(struct hf_sip_watch_conf){0});
    rig.telling = true;
    registers(0, ANN, "r1", 1, "<sip:ann@192.0.2.1>", 3600);
    moves(0, 0, ANN, HF_SIP_FORMER_SELF);
    pass(HF_S(5));
    subscribes(0, &d, "<sip:w@192.0.2.9>", "Expires: 700\n");
    golden("restart");
    fini();
}

/* ---- answers ---- */

static void answered(unsigned status, const char *has)
{
    assert_int_equal(rig.last_status, status);
    assert_non_null(strstr(rig.reply, has));
}

static void test_refusals(void **state)
{
    (void)state;
    const struct {
        const char *event, *contact, *more;
        unsigned status;
        const char *has;
    } rows[] = {
        {"reg", "", "", 400, " 400 Missing Contact\r\n"},
        {"reg", "*", "", 400, " 400 Malformed Contact\r\n"},
        {"reg", "<sip:a>, <sip:b>", "", 400, " 400 Malformed Contact\r\n"},
        {"reg", "<mailto:a@b>", "", 400, " 400 Malformed Contact\r\n"},
        {"reg;id", "<sip:a>", "Expires: 1\nExpires: 2\n", 400, " 400 Header Field Repeated"},
        {"\"", "<sip:a>", "", 400, " 400 Malformed Event"},
        {"reg;id=\"a b\"", "<sip:a>", "", 400, " 400 Malformed Dialog"},
        {"reg", "<sip:a>", "Record-Route: <tel:+1>\n", 400, " 400 Malformed Record-Route"},
        {"reg", "<sip:a>", "Record-Route: <sip:e>,\n", 400, " 400 Malformed Record-Route"},
        {"dialog", "<sip:a>", "", 489, "\r\nAllow-Events: reg, presence\r\n"},
        {"presence.winfo", "<sip:a>", "", 489, "\r\nAllow-Events: reg, presence\r\n"},
        {"REG", "<sip:a>", "", 489, "\r\nAllow-Events: reg, presence\r\n"},
        {"reg", "<sip:a>", "Require: eventlist\n", 420, "\r\nUnsupported: eventlist\r\n"},
        {"reg", "<sip:a>", "Require: \"\n", 400, " 400 Malformed Require"},
        {"reg", "<sip:a>", "Accept: application/pidf+xml\n", 406, ""},
        {"presence", "<sip:a>", "Accept: text/plain, application/reginfo+xml\n", 406, ""},
        {"presence", "<sip:a>", "Accept: text/plain\nAccept: */*;q=0.1\n", 200, ""},
        {"reg", "<sip:a>", "Accept: application/*\n", 200, ""},
        {"reg", "<sip:a>", "Expires: 59\n", 423, "\r\nMin-Expires: 60\r\n"},
        {"reg", "<sip:a>", "Expires: 4294967295\n", 200, "\r\nExpires: 7200\r\n"},
        {"reg", "<sips:a>", "", 200, "\r\nExpires: 3761\r\n"},
        {"presence", "<sip:a>", "", 200, "\r\nExpires: 3600\r\n"},
    };
    init(1, &(struct hf_sip_watch_conf){.subs_max = 10});
    rig.status = 0;
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        char call_id[20];
        snprintf(call_id, sizeof(call_id), "x%zu", i);
        struct dialog d = {.from = ANN, .aor = ANN, .call_id = call_id, .event = rows[i].event};
        unsigned before = rig.n_notify;
        subscribes(0, &d, rows[i].contact, rows[i].more);
        answered(rows[i].status, rows[i].has);
        assert_int_equal(rig.n_notify - before, rows[i].status == 200);
    }
    /* lines that are folded */
    struct dialog f = {.from = ANN, .aor = ANN, .call_id = "folded", .event = "reg"};
    subscribes(0, &f, "<sip:a>", "Record-Route: <sip:e;lr>\n ;x\n ,\n <sip:f;lr>\n");
    answered(200, "");
    assert_non_null(strstr(rig.last, "\r\nRoute: <sip:e;lr> ;x, <sip:f;lr>\r\n"));
    /* none that we had made; another user's */
    struct dialog d = ann_reg();
    strcpy(d.to_tag, "unknown");
    assert_int_equal(subscribes(0, &d, "<sip:a>", ""), 481);
    d.to_tag[0] = 0;
    assert_int_equal(subscribes(0, &d, "<sip:a>", ""), 200);
    d.from = BEN;
    assert_int_equal(subscribes(0, &d, "<sip:a>", ""), 403);
    d.from = ANN;
    d.cseq = 1;
    d.event = "presence";
    assert_int_equal(subscribes(0, &d, "<sip:a>", ""), 481);
    d.event = "reg";
    d.cseq = 0;
    assert_int_equal(subscribes(0, &d, "<sip:a>", ""), 500);
    /* without Event; with a body; full */
    const char *head = "SUBSCRIBE " ANN " SIP/2.0\nVia: SIP/2.0/UDP a;branch=z9hG4bK-n\nFrom: <" ANN
                       ">;tag=x\nTo: <" ANN ">\nCall-ID: n\nCSeq: 1 SUBSCRIBE\nContact: <sip:a>\n";
    receives(0, ANN, ANN, head, "");
    answered(489, "\r\nAllow-Events: reg, presence\r\n");
    char text[1000];
    snprintf(text, sizeof(text), "%sEvent: presence\nContent-Type: text/x\n", head);
    receives(0, ANN, ANN, text, "filter");
    answered(415, "\r\nAccept: \r\n");
    strcat(text, "Content-Disposition: x;handling=optional\n");
    receives(0, ANN, "", text, "filter"); /* not authenticated: From is believed */
    answered(200, "");
    for (unsigned i = 0; i < 10; i++) {
        char call_id[20];
        snprintf(call_id, sizeof(call_id), "y%u", i);
        struct dialog y = {.from = ANN, .aor = ANN, .call_id = call_id, .event = "reg"};
        subscribes(0, &y, "<sip:a>", "");
    }
    answered(503, "\r\nRetry-After: ");
    fini();
}

static void test_publish_refusals(void **state)
{
    (void)state;
    static char large[20000];
    const struct {
        const char *more, *body;
        unsigned status;
        const char *has;
    } rows[] = {
        {"", "", 400, " 400 Missing Body\r\n"},
        {PIDF, "nothing", 400, " 400 Malformed Presence Document\r\n"},
        {"Content-Type: text/plain\n", DOC(""), 415, "\r\nAccept: application/pidf+xml\r\n"},
        {"", DOC(""), 415, "\r\nAccept: application/pidf+xml\r\n"},
        {PIDF "Content-Encoding: gzip\n", DOC(""), 415, "\r\nAccept-Encoding: identity\r\n"},
        {PIDF, large, 413, ""},
        {PIDF "Require: x\n", DOC(""), 420, "\r\nUnsupported: x\r\n"},
        {PIDF "SIP-If-Match: a b\n", DOC(""), 400, " 400 Malformed SIP-If-Match\r\n"},
        {PIDF "SIP-If-Match: a\n", DOC(""), 412, " 412 Conditional Request Failed\r\n"},
        {PIDF "Expires: 10\n", DOC(""), 423, "\r\nMin-Expires: 60\r\n"},
        {PIDF "Expires: 1\nExpires: 1\n", DOC(""), 400, ""},
        {PIDF "Expires: 100000\n", DOC(""), 200, "\r\nExpires: 3600\r\n"},
        {PIDF, DOC(""), 503, "\r\nRetry-After: "},
    };
    memset(large, 'x', sizeof(large) - 1);
    init(1, &(struct hf_sip_watch_conf){0});
    hf_sip_notifier_destroy(rig.server[0].n);
    const struct hf_sip_notifier_conf conf = {.contact = hf_slice_str("<sip:alpha>"),
                                              .publications_max = 1};
    assert_int_equal(hf_sip_notifier_create(&conf, &ops, &rig.server[0], rig.now, &rig.server[0].n),
                     0);
    for (size_t i = 0; i < HF_ARRAY_LEN(rows); i++) {
        char branch[20];
        snprintf(branch, sizeof(branch), "b%zu", i);
        publishes(0, branch, rows[i].more, rows[i].body);
        answered(rows[i].status, rows[i].has);
    }
    const char *head = "PUBLISH " ANN " SIP/2.0\nVia: SIP/2.0/UDP a;branch=z9hG4bK-n\nFrom: <" ANN
                       ">;tag=x\nTo: <" ANN ">\nCall-ID: n\nCSeq: 1 PUBLISH\n";
    char text[1000];
    receives(0, ANN, ANN, head, "");
    answered(489, "\r\nAllow-Events: presence\r\n");
    snprintf(text, sizeof(text), "%sEvent: reg\n", head);
    receives(0, ANN, ANN, text, "");
    answered(489, "\r\nAllow-Events: presence\r\n");
    snprintf(text, sizeof(text), "%sEvent: \"\n", head);
    receives(0, ANN, ANN, text, "");
    answered(400, " 400 Malformed Event");
    snprintf(text, sizeof(text), "%sEvent: presence\n", head);
    receives(0, ANN, BEN, text, "");
    answered(403, "");
    fini();
}

/* RFC 6665 4.4.3; while nothing is decided nothing is shown. */
static void test_poll(void **state)
{
    (void)state;
    init(1, &(struct hf_sip_watch_conf){0});
    registers(0, ANN, "r1", 1, "<sip:ann@192.0.2.1>", 3600);
    struct dialog d = ben_presence();
    assert_int_equal(subscribes(0, &d, "<sip:ben@192.0.2.9>", "Expires: 0\n"), 200);
    assert_non_null(strstr(rig.last, "\r\nSubscription-State: terminated;reason=timeout\r\n"));
    assert_non_null(strstr(rig.last, "<basic>open</basic>"));
    rig.may = -1;
    d = ben_presence();
    d.call_id = "pres2";
    assert_int_equal(subscribes(0, &d, "<sip:ben@192.0.2.9>", "Expires: 0\n"), 200);
    assert_non_null(strstr(rig.last, "\r\nSubscription-State: terminated;reason=timeout\r\n"));
    assert_non_null(strstr(rig.last, "\r\nContent-Length: 0\r\n"));
    assert_int_equal(rig.n_keep + rig.n_drop, 0);
    assert_int_equal(hf_sip_notifier_count(rig.server[0].n), 0);
    fini();
}

/* What comes of a NOTIFY. */
static void test_refused_notify(void **state)
{
    (void)state;
    const uint16_t statuses[] = {481, 408, 404, 600, 503, 401};
    for (size_t i = 0; i < HF_ARRAY_LEN(statuses); i++) {
        init(1, &(struct hf_sip_watch_conf){0});
        rig.status = statuses[i];
        struct dialog d = ann_reg();
        assert_int_equal(subscribes(0, &d, "<sip:w@192.0.2.9>", ""), 200);
        assert_int_equal(rig.n_keep, 1);
        assert_int_equal(rig.n_notify, 1);
        assert_int_equal(rig.n_drop, 1);
        assert_int_equal(hf_sip_notifier_count(rig.server[0].n), 0);
        assert_int_equal(subscribes(0, &d, "<sip:w@192.0.2.9>", ""), 481);
    }
    init(1, &(struct hf_sip_watch_conf){0});
    rig.status = 503;
    rig.retry_after = 20;
    struct dialog d = ann_reg();
    subscribes(0, &d, "<sip:w@192.0.2.9>", "");
    rig.status = 200;
    pass(HF_S(19));
    assert_int_equal(rig.n_notify, 1);
    pass(HF_S(1));
    assert_int_equal(rig.n_notify, 2);
    assert_int_equal(hf_sip_notifier_count(rig.server[0].n), 1);
    struct hf_sip_msg m;
    char text[1000];
    int n =
        snprintf(text, sizeof(text),
                 "SUBSCRIBE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nFrom: <sip:a>;tag=reg1w\r\n"
                 "To: <sip:b>;tag=%s\r\nCall-ID: reg1\r\nCSeq: 9 SUBSCRIBE\r\nEvent: reg\r\n\r\n",
                 d.to_tag);
    assert_int_equal(hf_sip_parse(hf_slice(text, (size_t)n), false, &m), 0);
    assert_true(hf_sip_notifier_has_dialog(rig.server[0].n, &m));
    text[strlen(text) - 5] = 'x'; /* another event's */
    m.call_id = hf_slice_str("reg2");
    assert_false(hf_sip_notifier_has_dialog(rig.server[0].n, &m));
    /* the user is no more */
    hf_sip_notifier_gone(rig.server[0].n, hf_slice_str(ANN), rig.now);
    settle();
    assert_non_null(strstr(rig.last, "terminated;reason=noresource\r\n"));
    assert_non_null(strstr(rig.last, "\r\nContent-Length: 0\r\n"));
    assert_int_equal(hf_sip_notifier_count(rig.server[0].n), 0);
    fini();
}

/* ---- many at once ---- */

enum { MANY = 10000 };
static unsigned times_told[MANY];

static void count_deactivated(unsigned server, const char *message, size_t n)
{
    (void)server, (void)n;
    const char *call_id = strstr(message, "\r\nCall-ID: m");
    if (strstr(message, "terminated;reason=deactivated\r\n") != NULL) {
        assert_non_null(call_id);
        assert_non_null(strstr(message, "event=\"deactivated\""));
        times_told[strtoul(call_id + 12, NULL, 10)]++;
    }
}

static void many_watch(void)
{
    init(2, &(struct hf_sip_watch_conf){.rate = 1000});
    memset(times_told, 0, sizeof(times_told));
    for (unsigned i = 0; i < MANY; i++) {
        char aor[64], call_id[20];
        snprintf(aor, sizeof(aor), "sip:u%u@x", i / 10);
        snprintf(call_id, sizeof(call_id), "m%u", i);
        if (i % 10 == 0) {
            registers(0, aor, "r", 1, "<sip:u@192.0.2.1>", 3600);
        }
        struct dialog d = {.from = BEN, .aor = aor, .call_id = call_id, .event = "reg"};
        assert_int_equal(subscribes(0, &d, "<sip:ben@192.0.2.9>", "Expires: 7200\n"), 200);
    }
    assert_int_equal(rig.n_notify, MANY);
    rig.n_notify = 0;
    rig.seen = count_deactivated;
}

static void many_told(void)
{
    for (unsigned s = 1; s <= 9; s++) { /* paced */
        pass(HF_S(1));
        assert_in_range(rig.n_notify, s * 1000 - 5, s * 1000 + 105);
    }
    pass(HF_S(2));
    assert_int_equal(rig.n_notify, MANY);
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(times_told[i], 1);
    }
    for (size_t i = 0; i < rig.n_rows; i++) {
        assert_false(rig.row[i].there);
    }
}

static void test_mass_move(void **state)
{
    (void)state;
    many_watch();
    for (unsigned i = 0; i < MANY / 10; i++) {
        char aor[64];
        snprintf(aor, sizeof(aor), "sip:u%u@x", i);
        hf_sip_notifier_left(rig.server[0].n, hf_slice_str(aor), rig.now);
        hf_sip_registrar_forget(rig.server[0].reg, hf_slice_str(aor));
    }
    many_told();
    assert_int_equal(hf_sip_notifier_count(rig.server[0].n), 0);
    fini();
}

static void test_mass_in_stead(void **state)
{
    (void)state;
    many_watch();
    for (unsigned i = 0; i < MANY / 10; i++) {
        char aor[64];
        snprintf(aor, sizeof(aor), "sip:u%u@x", i);
        registers(1, aor, "r", 1, "<sip:u@192.0.2.1>", 3600); /* loaded */
    }
    power_off(0);
    for (unsigned i = 0; i < MANY / 10; i++) {
        char aor[64];
        snprintf(aor, sizeof(aor), "sip:u%u@x", i);
        moves(0, 1, aor, HF_SIP_FORMER_DEAD);
    }
    many_told();
    assert_int_equal(hf_sip_notifier_counters(rig.server[1].n)->in_stead, MANY);
    fini();
}

/* ---- a random world ---- */

enum { SERVERS = 3, AORS = 5, WATCHERS = 20, CONTACTS = 4 };

struct user {
    char aor[32], etag[HF_SIP_ETAG_MAX], note[32];
    unsigned home, cseq;
    hf_time left[SERVERS]; /* when it left this one, which lived */
};

struct watcher {
    struct dialog d;
    char from[32], call_id[32];
    unsigned user, server;
    bool reg, there;        /* there: it takes itself for subscribed */
    uint32_t cseq, version; /* the last it was told */
    unsigned contacts;      /* what it knows */
    char note[32];
    hf_time wake; /* refreshes, or subscribes again */
    hf_time owed; /* since when it is to be told that its AoR has moved; 0: not */
    unsigned generation;
};

static struct {
    struct hf_prng g;
    struct user user[AORS];
    struct watcher watcher[WATCHERS];
    unsigned loss; /* of a hundred NOTIFYs */
    unsigned n_publish, n_moves, n_deaths, n_told;
} world;

static unsigned chance(unsigned n)
{
    return (unsigned)hf_prng_below(&world.g, n);
}

static void knows(struct watcher *w, const struct hf_sip_msg *m)
{
    char body[4096];
    assert_true(m->body.n > 0 && m->body.n < sizeof(body));
    memcpy(body, m->body.p, m->body.n);
    body[m->body.n] = 0;
    if (!w->reg) {
        const char *note = strstr(body, "<note>"), *basic = strstr(body, "<basic>");
        assert_true(note != NULL || basic != NULL);
        const char *text = note != NULL ? note + 6 : basic + 7;
        snprintf(w->note, sizeof(w->note), "%.*s", (int)strcspn(text, "<"), text);
        return;
    }
    uint32_t version = (uint32_t)strtoul(strstr(body, "reginfo\" version=\"") + 18, NULL, 10);
    assert_true(w->cseq == 0 || version > w->version);
    w->version = version;
    w->contacts = 0;
    for (const char *p = body; (p = strstr(p, "state=\"active\" event")) != NULL; p++) {
        w->contacts |= 1u << strtoul(strstr(p, "<uri>sip:c") + 10, NULL, 10);
    }
}

/* A NOTIFY comes to a watcher, or is lost. */
static void world_seen(unsigned server, const char *message, size_t n)
{
    struct hf_sip_msg m;
    struct hf_sip_substate st;
    (void)server;
    assert_int_equal(hf_sip_parse(hf_slice(message, n), true, &m), 0);
    assert_int_equal(hf_sip_subscription_state(&m, &st), 1);
    bool lost = chance(100) < world.loss, last = hf_slice_eq(st.state, hf_slice_str("terminated"));
    rig.status = lost ? 408 : 481;
    for (unsigned i = 0; i < WATCHERS; i++) {
        struct watcher *w = &world.watcher[i];
        if (!w->there || !hf_slice_eq(m.call_id, hf_slice_str(w->call_id))) {
            continue;
        }
        assert_true(m.cseq > w->cseq); /* also after one that was lost, and from another server */
        w->owed = 0;                   /* it was tried; the promise is not about the network */
        if (lost) {
            return;
        }
        knows(w, &m);
        w->cseq = m.cseq;
        w->there = !last;
        w->wake = last ? rig.now + HF_MS(chance(3000)) : w->wake;
        world.n_told += hf_slice_eq(st.reason, hf_slice_str("deactivated"));
        rig.status = 200;
    }
}

static void watcher_wakes(struct watcher *w)
{
    struct user *u = &world.user[w->user];
    bool anew = !w->there;
    if (anew) {
        snprintf(w->call_id, sizeof(w->call_id), "w%u-%u", (unsigned)(w - world.watcher),
                 ++w->generation);
        w->d = (struct dialog){.from = w->from,
                               .aor = u->aor,
                               .call_id = w->call_id,
                               .event = w->reg ? "reg" : "presence"};
        w->server = u->home;
        w->cseq = w->version = 0;
        w->owed = 0;
        w->there = true; /* the NOTIFY may be there before the 200 is */
    }
    w->wake = rig.now + HF_S(30 + chance(60));
    if (rig.server[w->server].n == NULL || (anew && w->server != u->home)) {
        w->there = false; /* whoever has its address now knows no such dialog */
        w->wake = rig.now + HF_S(2);
        return;
    }
    unsigned status = subscribes(w->server, &w->d, "<sip:w@192.0.2.9>", "Expires: 120\n");
    if (status != 200) {
        assert_int_equal(status, 481);
        w->there = false;
        w->wake = rig.now + HF_MS(500);
    }
}

/* Those who are to be told: they are known where the AoR was, or stored. */
static void owe(unsigned user)
{
    for (unsigned i = 0; i < WATCHERS; i++) {
        struct watcher *w = &world.watcher[i];
        bool stored = false;
        for (size_t k = 0; w->there && w->user == user && k < rig.n_rows && !stored; k++) {
            stored = rig.row[k].there && rig.row[k].what == 's' &&
                     strcmp(rig.row[k].key, w->d.to_tag) == 0;
        }
        if (stored && w->owed == 0) {
            w->owed = rig.now;
        }
    }
}

static unsigned another(unsigned than)
{
    unsigned k = chance(SERVERS);
    for (unsigned i = 0; i < SERVERS && (k == than || rig.server[k].n == NULL); i++) {
        k = (k + 1) % SERVERS;
    }
    return k != than && rig.server[k].n != NULL ? k : SERVERS;
}

static void user_moves(unsigned i, unsigned to, enum hf_sip_former former)
{
    struct user *u = &world.user[i];
    unsigned from = u->home;
    world.n_moves++;
    owe(i);
    u->home = to;
    u->left[from] = former == HF_SIP_FORMER_ALIVE ? rig.now : 0;
    moves(from, to, u->aor, former);
}

/* Power off; its AoRs, and the watchers that it had yet to tell, are the others'. */
static void server_dies(unsigned k, const struct hf_sip_watch_conf *conf)
{
    struct hf_sip_registrar *reg = rig.server[k].reg;
    if (another(k) == SERVERS) {
        return;
    }
    world.n_deaths++;
    rig.server[k].reg = NULL;
    power_off(k);
    rig.server[k].reg = reg; /* as stored (S3) */
    if (chance(3) == 0) {    /* started anew, at once */
        boot(k, conf);
        hf_sip_registrar_destroy(rig.server[k].reg);
        rig.server[k].reg = reg;
        for (unsigned i = 0; i < AORS; i++) {
            if (world.user[i].home == k) {
                moves(k, k, world.user[i].aor, HF_SIP_FORMER_SELF);
            }
        }
    }
    for (unsigned i = 0; i < AORS; i++) {
        struct user *u = &world.user[i];
        if (u->home == k && rig.server[k].n == NULL) {
            user_moves(i, another(k), HF_SIP_FORMER_DEAD);
        } else if (u->left[k] > 0) {
            moves(u->home, u->home, u->aor, HF_SIP_FORMER_DEAD);
        }
        u->left[k] = 0;
    }
}

static void user_publishes(struct user *u)
{
    char branch[32], more[200], body[200];
    snprintf(branch, sizeof(branch), "pub%u", ++world.n_publish);
    snprintf(body, sizeof(body), DOC("<note>n%u</note>"), world.n_publish);
    bool remove = u->etag[0] && chance(3) == 0;
    snprintf(more, sizeof(more), "Expires: %s\n%s%s%s%s", remove ? "0" : "3600",
             u->etag[0] ? "SIP-If-Match: " : "", u->etag, u->etag[0] ? "\n" : "",
             remove ? "" : PIDF);
    unsigned status = publishes_for(u->home, u->aor, branch, more, remove ? "" : body);
    assert_int_equal(status, 200); /* known wherever it went */
    snprintf(u->etag, sizeof(u->etag), "%s", remove ? "" : rig.etag);
    snprintf(u->note, sizeof(u->note), remove ? "" : "n%u", world.n_publish);
}

/* Until then, with all who have something to do on the way. */
static void world_pass(hf_time t)
{
    hf_time until = rig.now + t;
    for (;;) {
        hf_time d = next_deadline();
        for (unsigned i = 0; i < WATCHERS; i++) {
            d = hf_time_min(d, world.watcher[i].wake);
            hf_time owed = world.watcher[i].owed;
            assert_true(owed == 0 || !world.watcher[i].there || rig.now - owed < HF_S(60));
        }
        if (d > until) {
            break;
        }
        rig.now = d > rig.now ? d : rig.now;
        tick();
        for (unsigned i = 0; i < WATCHERS; i++) {
            if (world.watcher[i].wake <= rig.now) {
                watcher_wakes(&world.watcher[i]);
            }
        }
    }
    rig.now = until;
}

static void world_init(uint64_t seed, const struct hf_sip_watch_conf *conf)
{
    memset(&world, 0, sizeof(world));
    hf_prng_init(&world.g, seed);
    init(SERVERS, conf);
    rig.seen = world_seen;
    for (unsigned i = 0; i < AORS; i++) {
        world.user[i].home = chance(SERVERS);
        snprintf(world.user[i].aor, sizeof(world.user[i].aor), "sip:u%u@x", i);
    }
    for (unsigned i = 0; i < WATCHERS; i++) {
        struct watcher *w = &world.watcher[i];
        snprintf(w->from, sizeof(w->from), "sip:w%u@x", i);
        w->user = chance(AORS);
        w->reg = chance(2);
        w->wake = rig.now + HF_MS(chance(5000));
    }
}

static void world_event(const struct hf_sip_watch_conf *conf)
{
    unsigned i = chance(AORS), k = chance(SERVERS);
    struct user *u = &world.user[i];
    char contact[64], call_id[16];
    switch (chance(8)) {
    case 0:
        if (another(u->home) < SERVERS) {
            user_moves(i, another(u->home), HF_SIP_FORMER_ALIVE);
        }
        break;
    case 1:
        if (rig.server[k].n == NULL) {
            hf_sip_registrar_destroy(rig.server[k].reg);
            boot(k, conf);
        } else if (chance(4) == 0) {
            server_dies(k, conf);
        }
        break;
    case 2:
    case 3:
    case 4:
        user_publishes(u);
        break;
    default:
        k = chance(CONTACTS);
        snprintf(contact, sizeof(contact), "<sip:c%u@192.0.2.1>", k);
        snprintf(call_id, sizeof(call_id), "r%u", k);
        registers(u->home, u->aor, call_id, ++u->cseq, contact, chance(3) ? 7200 : 0);
        break;
    }
}

/* What each watcher must know when all is quiet. */
static void world_check(void)
{
    for (unsigned i = 0; i < WATCHERS; i++) {
        const struct watcher *w = &world.watcher[i];
        const struct user *u = &world.user[w->user];
        unsigned contacts = 0;
        const struct hf_sip_binding *b =
            hf_sip_registrar_find(rig.server[u->home].reg, hf_slice_str(u->aor));
        for (; b != NULL; b = b->next) {
            contacts |= 1u << (hf_sip_binding_uri(b).p[5] - '0');
        }
        assert_true(w->there);
        if (w->reg) {
            assert_int_equal(w->contacts, contacts);
        } else {
            assert_string_equal(w->note, u->note[0] ? u->note : contacts != 0 ? "open" : "closed");
        }
    }
}

static void test_random_world(void **state)
{
    (void)state;
    unsigned told = 0, deaths = 0, moved = 0;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        const struct hf_sip_watch_conf conf = {.rate = seed % 2 ? 2 : 1000, .expires_max_s = 120};
        world_init(seed, &conf);
        world.loss = seed % 3 ? 0 : 10;
        for (unsigned i = 0; i < 150; i++) {
            world_event(&conf);
            world_pass(HF_MS(chance(4000)));
        }
        world.loss = 0;
        world_pass(HF_S(300));
        world_check();
        for (unsigned i = 0; i < AORS; i++) { /* and no refresh is needed to know what is new */
            struct user *u = &world.user[i];
            user_publishes(u);
            registers(u->home, u->aor, "r0", ++u->cseq, "<sip:c0@192.0.2.1>", i % 2 ? 7200 : 0);
        }
        world_pass(HF_S(20));
        world_check();
        told += world.n_told;
        deaths += world.n_deaths;
        moved += world.n_moves;
    }
    print_message("# %u AoRs moved, %u servers died, %u watchers told\n", moved, deaths, told);
    assert_true(moved > 1000 && deaths > 100 && told > 1000);
    fini();
}

/* Nothing breaks where memory is out. */
static void test_no_memory(void **state)
{
    (void)state;
    for (int64_t k = 0; k < 200; k++) {
        init(1, &(struct hf_sip_watch_conf){0});
        registers(0, ANN, "r1", 1, "<sip:ann@192.0.2.1>", 3600);
        struct hf_sip_notifier *n = NULL;
        hf_mem_fail_after(k);
        int rc = hf_sip_notifier_create(
            &(struct hf_sip_notifier_conf){.contact = hf_slice_str("<sip:a>")}, &ops,
            &rig.server[0], rig.now, &n);
        if (rc == 0) {
            hf_sip_notifier_destroy(rig.server[0].n);
            rig.server[0].n = n;
            struct dialog d = ann_reg(), p = ben_presence();
            unsigned status = subscribes(0, &d, "<sip:w@192.0.2.9>", ROUTES);
            assert_true(status == 200 || status == 503);
            status = subscribes(0, &p, "<sip:w@192.0.2.9>", ROUTES);
            assert_true(status == 200 || status == 503);
            status = publishes(0, "p1", PIDF, DOC(""));
            assert_true(status == 200 || status == 503);
            hf_sip_notifier_left(n, hf_slice_str(ANN), rig.now);
            settle();
        }
        hf_mem_fail_after(-1);
        pass(HF_S(100));
        assert_int_equal(hf_sip_notifier_count(rig.server[0].n), 0);
        assert_true(rc == 0 || rc == -ENOMEM);
    }
    fini();
    hf_sip_notifier_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(test_subscribe),      HF_TEST(test_pending),          HF_TEST(test_publish),
        HF_TEST(test_move),           HF_TEST(test_in_stead),         HF_TEST(test_restart),
        HF_TEST(test_refusals),       HF_TEST(test_publish_refusals), HF_TEST(test_poll),
        HF_TEST(test_refused_notify), HF_TEST(test_mass_move),        HF_TEST(test_mass_in_stead),
        HF_TEST(test_random_world),   HF_TEST(test_no_memory),        HF_TEST(test_comes_back),
    };
    return cmocka_run_group_tests_name("sip/notifier", tests, NULL, NULL);
}
