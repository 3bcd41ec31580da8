/* application/reginfo+xml (RFC 3680 5): always the full state. */
#include "core/sip/reginfo.h"

#include <inttypes.h>
#include <stdbool.h>

#include "base/names.h"

HF_NAMES(hf_sip_reg_event_name, enum hf_sip_reg_event, HF_SIP_REG_EVENT_LIST)

static bool is_active(enum hf_sip_reg_event e)
{
    static const bool active[] = {
#define ACTIVE(id, name, active) active,
        HF_SIP_REG_EVENT_LIST(ACTIVE)
#undef ACTIVE
    };
    return (unsigned)e < HF_SIP_REG_EVENT_COUNT_ && active[e];
}

static void add_contact(struct hf_buf *b, const struct hf_sip_reg_contact *c)
{
    bool active = is_active(c->event);
    hf_buf_str(b, "    <contact id=\"");
    hf_buf_xml(b, c->id);
    hf_buf_printf(b, "\" state=\"%s\" event=\"%s\"", active ? "active" : "terminated",
                  hf_sip_reg_event_name(c->event));
    if (active) {
        hf_buf_printf(b, " expires=\"%" PRIu32 "\"", c->expires_s);
    }
    if (c->q <= 1000) {
        hf_buf_printf(b, " q=\"%u.%03u\"", c->q / 1000u, c->q % 1000u);
    }
    if (c->call_id.n > 0) {
        hf_buf_str(b, " callid=\"");
        hf_buf_xml(b, c->call_id);
        hf_buf_printf(b, "\" cseq=\"%" PRIu32 "\"", c->cseq);
    }
    hf_buf_str(b, ">\n      <uri>");
    hf_buf_xml(b, c->uri);
    hf_buf_str(b, "</uri>\n    </contact>\n");
}

void hf_sip_reginfo_write(struct hf_buf *b, uint32_t version, struct hf_slice aor,
                          const struct hf_sip_reg_contact *contact, size_t n)
{
    bool active = false;
    for (size_t i = 0; i < n; i++) {
        active |= is_active(contact[i].event);
    }
    hf_buf_printf(b,
                  "<?xml version=\"1.0\"?>\n"
                  "<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"%" PRIu32
                  "\" state=\"full\">\n"
                  "  <registration aor=\"",
                  version);
    hf_buf_xml(b, aor);
    hf_buf_str(b, "\" id=\"a\" state=\"");
    hf_buf_str(b, active ? "active" : n > 0 ? "terminated" : "init");
    hf_buf_str(b, "\">\n");
    for (size_t i = 0; i < n; i++) {
        add_contact(b, &contact[i]);
    }
    hf_buf_str(b, "  </registration>\n</reginfo>\n");
}
