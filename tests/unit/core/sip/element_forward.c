/* core/sip/element: redirects, requests towards a home and along a dialog, responses on their way
 * back; the same at an edge, whose clients have connections (S4, RFC 3261 16, RFC 5626 5). */
#include <stdio.h>
#include <string.h>

#include "core/sip/mark.h"
#include "support/sip_element_rig.h"
#include "support/test.h"

#define ANN "sip:ann@example.com"

static struct rig r;
static struct hf_sip_element_conf conf;
static struct hf_sip_listen listen[4];
static char text[8192], other[8192];

static void knows(const char *home, uint64_t epoch)
{
    struct hf_sip_result res = {.kind = HF_SIP_OP_ASSERT,
                                .cookie = 1,
                                .have_row = true,
                                .row = {.aor = hf_slice_str(ANN),
                                        .home = rig_number(&r, home),
                                        .current = rig_number(&r, home),
                                        .epoch = epoch}};
    hf_sip_element_done(r.e, &res, r.now);
}

static void open_home(void)
{
    conf = rig_conf();
    rig_open(&r, &conf);
}

/* A home that redirects nobody. */
static void open_proxying(void)
{
    conf = rig_conf();
    memcpy(listen, conf.listen, 3 * sizeof(listen[0]));
    conf.listen = listen;
    for (size_t i = 0; i < 3; i++) {
        listen[i].policy = HF_SIP_POLICY_PROXY;
    }
    rig_open(&r, &conf);
}

/* An edge: 10.0.0.1 inside, 10.1.0.1 outside. */
static void open_edge(void)
{
    conf = rig_conf();
    memcpy(listen, conf.listen, 2 * sizeof(listen[0]));
    memcpy(listen + 2, conf.listen, 2 * sizeof(listen[0]));
    for (size_t i = 2; i < 4; i++) {
        listen[i].at.addr[1] = 1;
        listen[i].host = hf_slice_str("edge.example.com");
        listen[i].external = true;
    }
    conf.role = HF_SIP_ROLE_EDGE;
    conf.listen = listen;
    conf.n_listen = 4;
    conf.boot = 5;
    rig_open(&r, &conf);
    knows("beta", 3);
}

static void outside(uint8_t last, unsigned transport, uint64_t conn)
{
    rig_from(&r, last, transport, conn);
    r.from.local.addr[1] = 1;
}

/* What went out, as if the other side answered it. */
static void answer(size_t i, const char *first_line)
{
    const char *s = rig_out(&r, i);
    const char *vias = strstr(s, "\r\n") + 2;
    const char *rest = strstr(vias, "Max-Forwards:");
    char lines[4096] = "";
    for (const char *p = vias; *p && *p != '\r';) { /* Vias and what a response has besides */
        size_t n = strcspn(p, "\n") + 1;
        if (strncmp(p, "Via:", 4) == 0 || strncmp(p, "From:", 5) == 0 ||
            strncmp(p, "To:", 3) == 0 || strncmp(p, "Call-ID:", 8) == 0 ||
            strncmp(p, "CSeq:", 5) == 0) {
            strncat(lines, p, n);
        }
        p += n;
    }
    assert_non_null(rest);
    snprintf(other, sizeof(other), "%s\r\n%sContent-Length: 0\r\n\r\n", first_line, lines);
    rig_in(&r, other);
}

static void redirects(void **state)
{
    (void)state;
    open_home();
    knows("beta", 4);
    rig_request(text, sizeof(text), "INVITE", ANN, ANN, "", 1);
    rig_in(&r, text);
    assert_int_equal(rig_status(&r, 0), 302);
    assert_non_null(
        strstr(rig_out(&r, 0), "Contact: <sip:ann@10.0.0.2;hf=4.1800000000>;q=0.7\r\n"));
    assert_non_null(strstr(rig_out(&r, 0), ";q=0.3\r\n"));
    /* its ACK has done its work */
    char ack[4096];
    rig_request(ack, sizeof(ack), "ACK", ANN, ANN, "", 1);
    memcpy(strstr(ack, "z9hG4bKACK1"), "z9hG4bKINVI", 11);
    rig_in(&r, ack);
    assert_int_equal(r.n_sent, 1); /* some ACK of a dialog: to its home */
    /* by TLS to TLS */
    rig_from(&r, 1, HF_SIP_TRANSPORT_TLS, 9);
    rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN, "Contact: <sip:a@b>\r\n",
                7);
    memcpy(strstr(text, "c1@"), "c7@", 3);
    rig_in(&r, text);
    assert_non_null(
        strstr(rig_out(&r, 0), "Contact: <sip:10.0.0.2;transport=tls;hf=4.1800000000>;q=0.7\r\n"));
    assert_true(r.sent[0].to.conn == 9);
    rig_close(&r);
}

/* The server's address in the domain's place: whose user it is the URI says, or the first domain.
 */
static void restored(void **state)
{
    (void)state;
    static const struct hf_slice domains[2] = {{(const uint8_t *)"first.org", 9},
                                               {(const uint8_t *)"example.com", 11}};
    conf = rig_conf();
    conf.domain = domains;
    conf.n_domains = 2;
    rig_open(&r, &conf);
    knows("beta", 4);
    rig_request(text, sizeof(text), "MESSAGE", ANN, ANN, "", 1);
    rig_in(&r, text);
    assert_non_null(strstr(rig_out(&r, 0), ";hfd=example.com>"));
    rig_request(text, sizeof(text), "MESSAGE", "sip:ann@10.0.0.1;hf=4.1800000000;hfd=example.com",
                ANN, "", 2);
    rig_in(&r, text);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_READ);
    assert_non_null(op);
    hf_assert_slice_str(op->aor, ANN);
    rig_request(text, sizeof(text), "MESSAGE", "sip:ann@10.0.0.1", ANN, "", 3);
    rig_in(&r, text);
    op = rig_asked(&r, HF_SIP_OP_READ);
    hf_assert_slice_str(op->aor, "sip:ann@first.org");
    rig_request(text, sizeof(text), "MESSAGE", "sip:ann@10.0.0.1;hfd=evil.net", ANN, "", 4);
    rig_in(&r, text);
    assert_int_equal(rig_status(&r, 0), 404);
    rig_close(&r);
}

static void proxied_and_back(void **state)
{
    (void)state;
    open_proxying();
    knows("beta", 4);
    rig_request(text, sizeof(text), "MESSAGE", ANN, ANN, "", 1);
    rig_in(&r, text);
    assert_int_equal(r.sent[0].to.peer.addr[3], 2);
    assert_non_null(strstr(rig_out(&r, 0), "Max-Forwards: 69\r\n"));
    assert_null(strstr(rig_out(&r, 0), "Record-Route"));
    static struct rig_sent first;
    first = r.sent[0];
    rig_in(&r, text); /* retransmitted: the same bytes */
    assert_string_equal(rig_out(&r, 0), first.text);
    rig_from(&r, 102, HF_SIP_TRANSPORT_UDP, 0);
    answer(0, "SIP/2.0 200 OK");
    assert_int_equal(rig_status(&r, 0), 200);
    assert_int_equal(r.sent[0].to.peer.addr[3], 1);
    assert_int_equal(r.sent[0].to.peer.port, 5060);
    assert_null(strstr(rig_out(&r, 0), "hf="));
    /* somebody else's Via in our name */
    memcpy(strstr(other, ";hf=") + 4, "0123", 4);
    rig_in(&r, other);
    assert_int_equal(r.n_sent, 0);
    /* over a connection: back by it; a REGISTER says so in its Path, as no other way leads there */
    rig_from(&r, 1, HF_SIP_TRANSPORT_TCP, 77);
    rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN, "Contact: <sip:a@b>\r\n",
                2);
    rig_in(&r, text);
    assert_non_null(strstr(rig_out(&r, 0), "\r\nPath: <sip:"));
    assert_non_null(strstr(rig_out(&r, 0), "@10.0.0.1;lr;ob>\r\n"));
    rig_from(&r, 102, HF_SIP_TRANSPORT_UDP, 0);
    answer(0, "SIP/2.0 200 OK");
    assert_true(r.sent[0].to.conn == 77);
    assert_int_equal(r.sent[0].to.transport, HF_SIP_TRANSPORT_TCP);
    /* CANCEL and ACK go where the INVITE went, by the same branch */
    rig_from(&r, 1, HF_SIP_TRANSPORT_UDP, 0);
    rig_request(text, sizeof(text), "INVITE", ANN, ANN, "", 5);
    memcpy(strstr(text, "z9hG4bKINVITE5"), "z9hG4bKthecall", 14);
    rig_in(&r, text);
    const char *branch = strstr(rig_out(&r, 0), ";branch=");
    snprintf(other, sizeof(other), "%.31s", branch);
    rig_request(text, sizeof(text), "CANCEL", ANN, ANN, "", 5);
    memcpy(strstr(text, "z9hG4bKCANCEL5"), "z9hG4bKthecall", 14);
    rig_in(&r, text);
    assert_int_equal(strncmp(rig_out(&r, 0), "CANCEL ", 7), 0);
    assert_non_null(strstr(rig_out(&r, 0), other));
    rig_close(&r);
}

/* The value of a header line of what went out. */
static const char *value(size_t i, const char *name)
{
    static char v[1024];
    char start[64];
    snprintf(start, sizeof(start), "\r\n%s: ", name);
    const char *at = strstr(rig_out(&r, i), start);
    v[0] = 0;
    if (at) {
        at += strlen(start);
        snprintf(v, sizeof(v), "%.*s", (int)strcspn(at, "\r"), at);
    }
    return v;
}

static void edge(void **state)
{
    (void)state;
    char path[512], route[1100];
    open_edge();
    outside(1, HF_SIP_TRANSPORT_TCP, 0x100000000000042);
    rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN, "Contact: <sip:a@b>\r\n",
                1);
    rig_in(&r, text);
    snprintf(path, sizeof(path), "%s", value(0, "Path"));
    assert_non_null(strstr(path, "@10.0.0.1;lr;ob>"));
    assert_null(strstr(rig_out(&r, 0), "Record-Route"));
    /* a call comes by that Path */
    rig_from(&r, 102, HF_SIP_TRANSPORT_UDP, 0);
    snprintf(route, sizeof(route), "Route: %s\r\n", path);
    rig_request(text, sizeof(text), "INVITE", "sip:a@192.0.2.1:99", ANN, route, 2);
    rig_in(&r, text);
    assert_true(r.sent[0].to.conn == 0x100000000000042);
    assert_int_equal(r.sent[0].to.local.addr[1], 1);
    assert_string_equal(value(0, "Route"), "");
    snprintf(route, sizeof(route), "Route: %s\r\n", value(0, "Record-Route"));
    assert_non_null(strstr(route, "@edge.example.com;transport=tcp;lr>, <sip:"));
    assert_non_null(strstr(route, "@10.0.0.1;lr>"));
    outside(1, HF_SIP_TRANSPORT_TCP, 0x100000000000042);
    answer(0, "SIP/2.0 180 Ringing");
    assert_int_equal(r.sent[0].to.peer.addr[3], 2);
    assert_int_equal(r.sent[0].to.conn, 0);
    /* in the dialog, outwards: by the flow that is named */
    rig_from(&r, 102, HF_SIP_TRANSPORT_UDP, 0);
    rig_request(text, sizeof(text), "BYE", "sip:a@192.0.2.1:99", ANN, route, 3);
    char *to = strstr(text, "To: <" ANN ">");
    snprintf(other, sizeof(other), "%.*sTo: <" ANN ">;tag=t%s", (int)(to - text), text,
             to + strlen("To: <" ANN ">"));
    rig_in(&r, other);
    assert_int_equal(strncmp(rig_out(&r, 0), "BYE sip:a@192.0.2.1:99 ", 23), 0);
    assert_true(r.sent[0].to.conn == 0x100000000000042);
    assert_string_equal(value(0, "Route"), "");
    /* and inwards: from that flow, to the Request-URI */
    outside(1, HF_SIP_TRANSPORT_TCP, 0x100000000000042);
    rig_request(text, sizeof(text), "BYE", "sip:b@203.0.113.5", ANN, route, 4);
    to = strstr(text, "To: <" ANN ">");
    snprintf(other, sizeof(other), "%.*sTo: <" ANN ">;tag=t%s", (int)(to - text), text,
             to + strlen("To: <" ANN ">"));
    rig_in(&r, other);
    assert_int_equal(r.sent[0].to.peer.addr[0], 203);
    /* who is outside and has no token of ours gets nowhere */
    rig_request(text, sizeof(text), "BYE", "sip:b@203.0.113.5", ANN, "", 5);
    to = strstr(text, "To: <" ANN ">");
    snprintf(other, sizeof(other), "%.*sTo: <" ANN ">;tag=t%s", (int)(to - text), text,
             to + strlen("To: <" ANN ">"));
    rig_in(&r, other);
    assert_int_equal(rig_status(&r, 0), 403);
    rig_request(text, sizeof(text), "MESSAGE", "sip:b@203.0.113.5", ANN, "", 6);
    rig_in(&r, text);
    assert_int_equal(rig_status(&r, 0), 403);
    /* a token that is not ours, or of a former life */
    rig_request(text, sizeof(text), "MESSAGE", "sip:a@192.0.2.1:99", ANN,
                "Route: <sip:0100000102030413c400112233445566778899@10.0.0.1;lr>\r\n", 7);
    rig_in(&r, text);
    assert_int_equal(rig_status(&r, 0), 430);
    /* the connection breaks under a request */
    rig_from(&r, 102, HF_SIP_TRANSPORT_UDP, 0);
    snprintf(route, sizeof(route), "Route: %s\r\n", path);
    rig_request(text, sizeof(text), "INVITE", "sip:a@192.0.2.1:99", ANN, route, 8);
    rig_in(&r, text);
    struct hf_sip_flow broken = r.sent[0].to;
    r.n_sent = 0;
    hf_sip_element_unreachable(r.e, &broken, r.now);
    assert_int_equal(rig_status(&r, 0), 430);
    /* a client's own INVITE is recorded, too */
    outside(1, HF_SIP_TRANSPORT_TCP, 0x100000000000042);
    rig_request(text, sizeof(text), "INVITE", ANN, ANN, "", 9);
    rig_in(&r, text);
    assert_non_null(strstr(value(0, "Record-Route"), "@10.0.0.1;lr>, <sip:"));
    rig_close(&r);
}

static void in_dialog(const char *uri, const char *more, unsigned cseq)
{
    rig_request(text, sizeof(text), "BYE", uri, ANN, more, cseq);
    char *to = strstr(text, "To: <" ANN ">");
    snprintf(other, sizeof(other), "%.*sTo: <" ANN ">;tag=t%s", (int)(to - text), text,
             to + strlen("To: <" ANN ">"));
    rig_in(&r, other);
}

static void routes(void **state)
{
    (void)state;
    open_home();
    in_dialog("sip:b@203.0.113.5", "Route: <sip:10.0.0.1;lr>, <sip:198.51.100.9;lr>\r\n", 1);
    assert_int_equal(r.sent[0].to.peer.addr[0], 198);
    assert_int_equal(strncmp(rig_out(&r, 0), "BYE sip:b@203.0.113.5 ", 22), 0);
    assert_string_equal(value(0, "Route"), "<sip:198.51.100.9;lr>");
    /* the next one is a strict router: it wants to be the Request-URI (16.6 step 6) */
    in_dialog("sip:b@203.0.113.5",
              "Route: <sip:10.0.0.1;lr>, <sip:198.51.100.9>, <sip:198.51.100.10;lr>\r\n", 2);
    assert_int_equal(strncmp(rig_out(&r, 0), "BYE sip:198.51.100.9 ", 21), 0);
    assert_string_equal(value(0, "Route"), "<sip:198.51.100.10;lr>, <sip:b@203.0.113.5>");
    /* the one before was: the last Route is the Request-URI (16.4) */
    in_dialog("sip:10.0.0.1;lr", "Route: <sip:198.51.100.9;lr>, <sip:b@203.0.113.5>\r\n", 3);
    assert_int_equal(strncmp(rig_out(&r, 0), "BYE sip:b@203.0.113.5 ", 22), 0);
    assert_string_equal(value(0, "Route"), "<sip:198.51.100.9;lr>");
    in_dialog("sip:10.0.0.1;lr", "Route: <sip:b@203.0.113.5>\r\n", 4);
    assert_int_equal(strncmp(rig_out(&r, 0), "BYE sip:b@203.0.113.5 ", 22), 0);
    assert_int_equal(r.sent[0].to.peer.addr[0], 203);
    in_dialog("sip:10.0.0.1;lr", "Route: <sip:198.51.100.9;lr>, <siz:b@203.0.113.5>\r\n", 10);
    assert_int_equal(rig_status(&r, 0), 416);
    in_dialog("sip:b@203.0.113.5", "Route: <sip:\r\n", 5);
    assert_int_equal(rig_status(&r, 0), 400);
    in_dialog("sip:b@224.0.0.1", "", 6);
    assert_int_equal(rig_status(&r, 0), 503);
    in_dialog("tel:+15551234", "", 7);
    assert_int_equal(rig_status(&r, 0), 481);
    in_dialog("sip:b@elsewhere.example", "", 8);
    assert_string_equal(r.name, "elsewhere.example");
    hf_sip_element_resolved(r.e, r.resolve, NULL, 0, r.now);
    assert_int_equal(rig_status(&r, 0), 503);
    /* a request for a dialog of a dead server's notifier, at its address (S1): its AoR's home */
    knows("beta", 4);
    in_dialog("sip:10.0.0.1;hfw=0", "", 9);
    assert_int_equal(r.sent[0].to.peer.addr[3], 2);
    assert_non_null(strstr(rig_out(&r, 0), "Holdfast-Hop: 1;"));
    rig_close(&r);
}

/* It has been here, as it is: a loop. With another Request-URI it is a spiral. */
static void loops(void **state)
{
    (void)state;
    open_home();
    rig_request(text, sizeof(text), "MESSAGE", "sip:zoe@203.0.113.9", "sip:zoe@203.0.113.9", "", 1);
    rig_in(&r, text);
    assert_int_equal(r.n_sent, 1);
    snprintf(other, sizeof(other), "%s", rig_out(&r, 0));
    rig_in(&r, other);
    assert_int_equal(rig_status(&r, 0), 482);
    memcpy(strstr(other, "203.0.113.9"), "203.0.113.8", 11);
    rig_in(&r, other);
    assert_int_equal(rig_status(&r, 0), 0);
    assert_int_equal(r.n_sent, 1);
    memcpy(strstr(other, "Max-Forwards: 69"), "Max-Forwards: 00", 16);
    rig_in(&r, other);
    assert_int_equal(rig_status(&r, 0), 483);
    rig_close(&r);
}

/* What went to beta comes back from there, at hop 2, as beta would send it. */
static void back_from_beta(const char *method, const char *went)
{
    const char *via = strstr(went, "\r\n") + 2, *hop = strstr(went, "Holdfast-Hop: 1;");
    char mark[256];
    assert_non_null(hop);
    rig_mark(mark, sizeof(mark), method, 5, 2, 5, false);
    snprintf(text, sizeof(text),
             "%s " ANN " SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK%s5\r\n%s%.*s%s",
             method, method, mark, (int)(hop - via), via, strstr(hop, "\r\n") + 2);
    rig_from(&r, 102, HF_SIP_TRANSPORT_UDP, 0);
    rig_in(&r, text);
}

/* alpha sends it to beta by an old row, beta back by the new one: its mark is what it is routed by
 * now, so this is a spiral, and ends at ann (D12). */
static void two_old_tables(void **state)
{
    (void)state;
    static const char *const methods[] = {"MESSAGE", "INVITE"}; /* without state, and with it */
    for (size_t i = 0; i < 2; i++) {
        open_proxying();
        rig_request(text, sizeof(text), methods[i], ANN, ANN, "", 5);
        rig_in(&r, text);
        assert_non_null(rig_asked(&r, HF_SIP_OP_READ));
        struct rig_op read = r.op[0];
        rig_pass(&r, HF_MS(200));
        r.op[0] = read;
        r.n_ops = 1;
        rig_answer(&r, HF_SIP_OP_DONE, "beta", 4);
        assert_int_equal(r.sent[r.n_sent - 1].to.peer.addr[3], 2); /* an INVITE's 100 before it */
        snprintf(other, sizeof(other), "%s", rig_out(&r, r.n_sent - 1));
        knows("alpha", 5);
        rig_loaded(&r, NULL);
        rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN,
                    "Contact: <sip:ann@192.0.2.1:5060>\r\n", 6);
        rig_in(&r, text);
        rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
        assert_int_equal(rig_status(&r, 0), 200);
        back_from_beta(methods[i], other);
        assert_string_equal(strtok(r.sent[r.n_sent - 1].text, "\r"),
                            i ? "INVITE sip:ann@192.0.2.1:5060 SIP/2.0"
                              : "MESSAGE sip:ann@192.0.2.1:5060 SIP/2.0");
        rig_close(&r);
    }
}

static const char *via_of(size_t i)
{
    return strtok(strstr(r.sent[i].text, "Via:"), "\r");
}

/* ... of the transaction that INVITE 5 began. */
static void of_the_call(const char *method)
{
    rig_request(other, sizeof(other), method, ANN, ANN, "", 5);
    char *branch = strstr(other, "z9hG4bK");
    snprintf(text, sizeof(text), "%.*sz9hG4bKINVITE5%s", (int)(branch - other), other,
             strchr(branch, ';'));
    rig_in(&r, text);
}

/* ann moves while a call rings that went to her home without state: its CANCEL, and the ACK of a
 * refusal, go where the call may be; who does not know it does nothing. */
static void moved_while_it_rings(void **state)
{
    (void)state;
    static char invite[512], via[512];
    open_proxying();
    knows("beta", 4);
    rig_request(text, sizeof(text), "INVITE", ANN, ANN, "", 5);
    rig_in(&r, text);
    assert_int_equal(r.sent[0].to.peer.addr[3], 2);
    snprintf(invite, sizeof(invite), "%s", via_of(0));
    memcpy(via, invite, sizeof(via));
    knows("gamma", 5);
    for (int i = 0; i < 2; i++) {
        of_the_call(i ? "ACK" : "CANCEL");
        assert_int_equal(r.n_sent, 2);
        assert_int_equal(r.sent[0].to.peer.addr[3], 2);
        assert_string_equal(via_of(0), invite); /* the same transaction's */
        assert_int_equal(r.sent[1].to.peer.addr[3], 3);
        assert_string_not_equal(via_of(1), invite);
    }
    knows("alpha", 6); /* once more */
    of_the_call("CANCEL");
    assert_int_equal(r.n_sent, 2);
    assert_int_equal(r.sent[0].to.peer.addr[3], 2);
    assert_string_equal(via_of(0), invite);
    assert_int_equal(r.sent[1].to.peer.addr[3], 3);
    /* beta has sent it to gamma itself: of alpha's Via this makes one of beta's */
    memcpy(strstr(invite, "10.0.0.1"), "10.0.0.2", 8);
    int n = snprintf(other, sizeof(other), "CANCEL " ANN " SIP/2.0\r\n%s\r\n", invite);
    snprintf(other + n, sizeof(other) - (size_t)n, "%s", strstr(text, "Via:"));
    rig_in(&r, other);
    assert_int_equal(rig_status(&r, 0), 481);
    rig_peer(&r, "gamma", HF_SIP_SERVER_DEAD, false);
    of_the_call("CANCEL");
    assert_int_equal(r.n_sent, 1);
    assert_string_equal(via_of(0), via);
    rig_pass(&r, HF_S(200)); /* nothing rings that long */
    of_the_call("CANCEL");
    assert_int_equal(rig_status(&r, 0), 481);
    rig_close(&r);
}

/* Who has a connection does not ask again: he hears of it when the server dies that has his
 * request. */
static void server_dies(void **state)
{
    (void)state;
    open_proxying();
    knows("beta", 4);
    for (unsigned i = 1; i < 4; i++) {
        rig_from(&r, 1, i == 3 ? HF_SIP_TRANSPORT_UDP : HF_SIP_TRANSPORT_TCP, i == 3 ? 0 : 70 + i);
        rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN,
                    "Contact: <sip:a@b>\r\n", i);
        rig_in(&r, text);
        assert_int_equal(r.sent[0].to.peer.addr[3], 2);
        rig_pass(&r, HF_S(i == 1 ? 60 : 1)); /* the first one's client has given up */
    }
    r.n_sent = 0;
    rig_peer(&r, "gamma", HF_SIP_SERVER_DEAD, false);
    assert_int_equal(r.n_sent, 0);
    rig_peer(&r, "beta", HF_SIP_SERVER_DEAD, false);
    assert_int_equal(r.n_sent, 1);
    assert_int_equal(rig_status(&r, 0), 503);
    assert_true(r.sent[0].to.conn == 72);
    assert_non_null(strstr(rig_out(&r, 0), "Retry-After: "));
    assert_non_null(strstr(rig_out(&r, 0), "CSeq: 2 REGISTER"));
    rig_close(&r);
}

/* alpha at an address that stays, called by its service address, which it may have or not; and
 * beta's (S1). */
static void open_with_service_addresses(void)
{
    static const struct hf_slice hosts[] = {{(const uint8_t *)"10.0.0.101", 10},
                                            {(const uint8_t *)"10.0.0.101", 10},
                                            {(const uint8_t *)"10.0.0.102", 10}};
    conf = rig_conf();
    for (size_t i = 0; i < 3; i++) {
        listen[i] = conf.listen[0];
        listen[i].host = hosts[i];
        listen[i].elsewhere = i > 0;
        listen[i].at.addr[3] = (uint8_t)(i ? 100 + i : 1);
    }
    conf.listen = listen;
    conf.source_rate = 1;
    rig_open(&r, &conf);
}

#define BY_OWN "Route: <sip:10.0.0.101;lr>\r\n"
#define BY_BETAS "Route: <sip:10.0.0.102;lr>\r\n"

static void assert_sent(uint8_t from, uint8_t to_first, const char *route)
{
    assert_int_equal(r.n_sent, 1);
    assert_int_equal(r.sent[0].to.local.addr[3], from);
    assert_int_equal(r.sent[0].to.peer.addr[0], to_first);
    assert_string_equal(value(0, "Route"), route);
}

static void service_addresses(void **state)
{
    (void)state;
    uint16_t no;
    struct hf_sip_peer gamma = {.name = hf_slice_str("gamma"),
                                .host = hf_slice_str("10.0.0.103"),
                                .now = {.state = HF_SIP_SERVER_LIVE, .homes = true, .weight = 1}};
    open_with_service_addresses();
    rig_from(&r, 103, HF_SIP_TRANSPORT_UDP, 0); /* a peer, not limited */
    /* both are elsewhere: what names them goes there, from the address that stays */
    in_dialog("sip:b@203.0.113.5", BY_OWN, 1);
    assert_sent(1, 10, "<sip:10.0.0.101;lr>");
    in_dialog("sip:b@203.0.113.5", BY_BETAS, 2);
    assert_sent(1, 10, "<sip:10.0.0.102;lr>");
    hf_sip_element_here(r.e, 1, true);
    in_dialog("sip:b@203.0.113.5", BY_OWN, 3);
    assert_sent(101, 203, "");
    in_dialog("sip:b@203.0.113.5", BY_BETAS, 4);
    assert_sent(101, 10, "<sip:10.0.0.102;lr>");
    /* beta is dead: its address comes here, and the first who asks there says so */
    r.from.local.addr[3] = 102;
    in_dialog("sip:b@203.0.113.5", BY_BETAS, 5);
    assert_sent(101, 203, "");
    /* gamma sends from its service address, too: not limited there */
    gamma.at[0] = listen[0].at;
    gamma.at[0].addr[3] = 3;
    assert_int_equal(hf_sip_element_peer(r.e, &gamma, &no), 0);
    r.from.peer.addr[3] = 103;
    hf_sip_element_here(r.e, 2, false);
    hf_sip_element_here(r.e, 2, true);
    for (unsigned i = 6; i < 20; i++) {
        in_dialog("sip:b@203.0.113.5", BY_BETAS, i);
        assert_sent(101, 203, "");
    }
    assert_int_equal(hf_sip_element_counters(r.e)->limited, 0);
    /* beta's users, asked for there, are sent to their new home */
    knows("gamma", 4);
    rig_request(text, sizeof(text), "MESSAGE", ANN, ANN, "", 20);
    rig_in(&r, text);
    assert_int_equal(rig_status(&r, 0), 302);
    assert_int_equal(r.sent[0].to.local.addr[3], 102);
    assert_non_null(strstr(rig_out(&r, 0), "Contact: <sip:ann@10.0.0.103;hf=4."));
    rig_request(text, sizeof(text), "MESSAGE", "sip:ann@10.0.0.102;hf=3.1800000000", ANN, "", 21);
    rig_in(&r, text);
    hf_assert_slice_str(rig_asked(&r, HF_SIP_OP_READ)->aor, ANN);
    /* it is taken back */
    hf_sip_element_here(r.e, 2, false);
    r.from.local.addr[3] = 1;
    in_dialog("sip:b@203.0.113.5", BY_BETAS, 30);
    assert_sent(101, 10, "<sip:10.0.0.102;lr>");
    rig_close(&r);
}

/* ann has come to beta by a connection to alpha's service address, which has just moved there: what
 * alpha knows of the address may be a second old, and does not end her binding. */
static void address_has_moved(void **state)
{
    (void)state;
    struct hf_sip_keys keys;
    struct hf_sip_flow flow = {.transport = HF_SIP_TRANSPORT_TCP, .conn = 7};
    char token[HF_SIP_TOKEN_MAX], lines[512];
    open_with_service_addresses();
    rig_from(&r, 103, HF_SIP_TRANSPORT_UDP, 0);
    hf_sip_element_here(r.e, 1, true);
    knows("alpha", 2);
    rig_loaded(&r, NULL);
    assert_int_equal(hf_sip_keys_make(conf.key, &keys), 0);
    flow.peer = r.from.peer;
    size_t n = hf_sip_token_make(&keys, 99, 3, &flow, token); /* 99: another program's life */
    snprintf(lines, sizeof(lines),
             "Supported: path\r\nPath: <sip:%.*s@10.0.0.101;lr;ob>\r\n"
             "Contact: <sip:ann@192.0.2.1:5060;transport=tcp>\r\n",
             (int)n, token);
    rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN, lines, 1);
    rig_in(&r, text);
    rig_answer(&r, HF_SIP_OP_DONE, NULL, 0);
    assert_int_equal(rig_status(&r, 0), 200);

    r.gone = true;
    rig_request(text, sizeof(text), "MESSAGE", ANN, ANN, "", 2);
    rig_in(&r, text);
    assert_int_equal(r.n_ops, 0);
    assert_int_equal(r.sent[0].to.peer.addr[3], 101);
    assert_non_null(strstr(rig_out(&r, 0), "MESSAGE sip:ann@192.0.2.1:5060;transport=tcp SIP/2.0"));

    r.gone = false; /* it is here, and nobody else can have the connection */
    hf_sip_element_here(r.e, 1, true);
    rig_request(text, sizeof(text), "MESSAGE", ANN, ANN, "", 3);
    rig_in(&r, text);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_true(op && op->n_binds == 1 && op->bind[0].erase);
    assert_int_equal(rig_status(&r, 0), 480);
    rig_close(&r);
}

/* A phone's connection is at one of two service addresses that alpha has: what names it names that
 * one, as each may move on without the other. */
static void path_by_its_address(void **state)
{
    (void)state;
    open_with_service_addresses();
    rig_close(&r);
    listen[3] = listen[2];
    listen[3].transport = HF_SIP_TRANSPORT_TCP;
    listen[3].policy = HF_SIP_POLICY_PROXY;
    conf.n_listen = 4;
    rig_open(&r, &conf);
    for (size_t i = 1; i < 4; i++) {
        hf_sip_element_here(r.e, i, true);
    }
    rig_from(&r, 7, HF_SIP_TRANSPORT_TCP, 7);
    r.from.local.addr[3] = 102;
    knows("beta", 2); /* proxied: as an edge does */
    rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN,
                "Supported: path\r\nContact: <sip:ann@192.0.2.7:5060;transport=tcp>\r\n", 1);
    rig_in(&r, text);
    assert_non_null(strstr(rig_out(&r, 0), "@10.0.0.102;lr;ob>\r\n"));
    knows("alpha", 3); /* registered here: as it is stored for the next home */
    rig_loaded(&r, NULL);
    r.now += HF_S(2); /* the source's rate */
    rig_request(text, sizeof(text), "REGISTER", "sip:example.com", ANN,
                "Contact: <sip:ann@192.0.2.7:5060;transport=tcp>\r\n", 2);
    rig_in(&r, text);
    const struct hf_sip_op *op = rig_asked(&r, HF_SIP_OP_BIND);
    assert_true(op && op->n_binds == 1);
    assert_non_null(memmem(op->bind[0].b.path.p, op->bind[0].b.path.n, "@10.0.0.102;lr;hfc>", 19));
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HF_TEST(redirects),
        HF_TEST(restored),
        HF_TEST(proxied_and_back),
        HF_TEST(edge),
        HF_TEST(routes),
        HF_TEST(loops),
        HF_TEST(two_old_tables),
        HF_TEST(moved_while_it_rings),
        HF_TEST(service_addresses),
        HF_TEST(server_dies),
        HF_TEST(address_has_moved),
        HF_TEST(path_by_its_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
