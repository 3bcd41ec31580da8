#include "lib/entry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "holdfast/holdfast.h"

static bool same(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

static void on_published(void *arg, int code, const char *text)
{
    struct hf_entry *e = arg;
    if (code < 0 && code != -ECANCELED && !e->refused) {
        e->refused = true;
        hf_log_warn("", "%s: %s is refused: %s", e->unseen, e->name, text);
    }
}

bool hf_entry_due(const struct hf_entry *e, const char *state, hf_time now)
{
    return !same(state, e->state) || now - e->told_at >= e->figures;
}

bool hf_entry_tell(struct hf_entry *e, char *state, char *value, hf_time now)
{
    if (!state || !value || (same(state, e->state) && same(value, e->told))) {
        free(state);
        free(value);
        return false;
    }
    (void)!holdfast_publish(e->h, e->name, value, 0, on_published, e); /* else with the next one */
    hf_entry_fini(e);
    e->state = state;
    e->told = value;
    e->told_at = now;
    return true;
}

void hf_entry_forget(struct hf_entry *e)
{
    free(e->state);
    e->state = NULL;
}

void hf_entry_fini(struct hf_entry *e)
{
    hf_entry_forget(e);
    free(e->told);
    e->told = NULL;
}
