#include "hostd/group_events.h"

#include <errno.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/name.h"
#include "hostd/hostd.h"
#include "hostd/timeline.h"

struct hf_group_events {
    struct hf_hostd *h;
    void (*wake)(void *arg);
    void *arg;
    bool listening;
};

static void on_changed(void *arg, const struct hf_group_info *info, const char *text)
{
    struct hf_group_events *e = arg;
    (void)info;
    (void)text; /* the timeline keeps it */
    e->wake(e->arg);
}

/* Groups are opened after the readers' port, or not at all. */
static void begin_listening(struct hf_group_events *e)
{
    if (!e->listening && e->h->groups) {
        e->listening = hf_groups_listen(e->h->groups, on_changed, e) == 0;
    }
}

static bool covers(const struct hf_group_teller *t, const char *group)
{
    char name[HF_SERVICE_NAME_MAX + 1];
    snprintf(name, sizeof(name), "/group/%s", group);
    return hf_service_under(hf_slice_str(name), hf_slice_str(t->prefix));
}

static void tell_note(const struct hf_note *n, struct hf_buf *buf)
{
    hf_buf_str(buf, "event: group-event\ndata: {\"group\":");
    hf_buf_json_str(buf, hf_slice_str(n->name));
    hf_buf_printf(buf, ",\"at\":%lld,\"epoch\":%llu,\"text\":", (long long)n->at_ms,
                  (unsigned long long)n->epoch);
    hf_buf_json_str(buf, hf_slice_str(n->text));
    hf_buf_str(buf, "}\n\n");
}

/* Tell how the i-th of the told groups is, if that is new. */
static void tell_group(struct hf_group_events *e, struct hf_group_teller *t, size_t i, bool first,
                       struct hf_buf *buf)
{
    struct hf_group_summary now;
    hf_group_summarize(e->h->groups, t->told[i].group, &now);
    if (first || !hf_group_summary_eq(&now, &t->told[i])) {
        t->told[i] = now;
        hf_buf_str(buf, "event: group\ndata: ");
        hf_group_summary_json(&now, buf);
        hf_buf_str(buf, "\n\n");
    }
}

static bool is_told(const struct hf_group_teller *t, const char *group)
{
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->told[i].group, group) == 0) {
            return true;
        }
    }
    return false;
}

/* Forget groups that have been told to be gone: others may come. */
static void forget_gone(struct hf_group_events *e, struct hf_group_teller *t)
{
    for (size_t i = t->n; i-- > 0;) {
        if (!hf_groups_find(e->h->groups, t->told[i].group)) {
            t->told[i] = t->told[--t->n];
        }
    }
}

void hf_group_events_tell(struct hf_group_events *e, struct hf_group_teller *t, struct hf_buf *buf,
                          size_t enough)
{
    if (!e->h->groups) {
        return;
    }
    begin_listening(e);
    for (const struct hf_note *n; (n = hf_timeline_note_at(e->h->timeline, &t->next)); t->next++) {
        if (buf->n > enough || buf->err) {
            return;
        }
        if (n->about == HF_ABOUT_GROUP && covers(t, n->name)) {
            tell_note(n, buf);
        }
    }
    for (size_t i = 0; i < t->n; i++) {
        tell_group(e, t, i, false, buf);
    }
    forget_gone(e, t);
    const struct hf_group_info *info;
    for (size_t i = 0; (info = hf_groups_info(e->h->groups, i)); i++) {
        if (t->n < HF_GROUPS_MAX && covers(t, info->name) && !is_told(t, info->name)) {
            snprintf(t->told[t->n].group, sizeof(t->told[t->n].group), "%s", info->name);
            tell_group(e, t, t->n++, true, buf);
        }
    }
}

void hf_group_teller_init(struct hf_group_events *e, struct hf_slice prefix,
                          struct hf_group_teller *t)
{
    begin_listening(e);
    memset(t, 0, sizeof(*t));
    snprintf(t->prefix, sizeof(t->prefix), "%.*s", HF_SLICE_FMT(prefix));
    t->next = hf_timeline_notes(e->h->timeline);
}

int hf_group_events_create(struct hf_hostd *h, void (*wake)(void *arg), void *arg,
                           struct hf_group_events **ret_events)
{
    struct hf_group_events *e = hf_alloc(sizeof(*e));
    if (!e) {
        return -ENOMEM;
    }
    e->h = h;
    e->wake = wake;
    e->arg = arg;
    *ret_events = e;
    return 0;
}

void hf_group_events_destroy(struct hf_group_events *e)
{
    if (e && e->listening && e->h->groups) {
        hf_groups_unlisten(e->h->groups, e);
    }
    hf_free(e);
}
