/* The copies of the group as the primary sees them: who is the backup, what the group is told. */
#include <stdio.h>
#include <string.h>

#include "os/ocf.h"
#include "pg/control.h"
#include "pg/service_impl.h"

#define GROW_TIME HF_S(5)
#define WATCH_TIME HF_MS(1500)

static bool chosen_is(const struct hf_pg_service *s, bool in_set)
{
    return s->chosen < s->n_mirrors && s->mirror[s->chosen].in_set == in_set;
}

static enum hf_pair_state state_of(const struct hf_pg_service *s,
                                   struct hf_pair_primary_info *ret_info)
{
    hf_pair_primary_info(s->primary, hf_pg_service_now(s), ret_info);
    return ret_info->state;
}

/* ---- what the group is asked and told ---- */

/* The group's answers are the lists it puts in force. */
bool hf_pg_service_answer_asks(struct hf_pg_service *s)
{
    bool answered = false;
    if (s->asked_solo && !chosen_is(s, true)) {
        uint64_t id = s->asked_solo;
        s->asked_solo = 0;
        hf_pair_primary_answer(s->primary, id, true, hf_pg_service_now(s));
        answered = true;
    }
    if (s->asked_record && chosen_is(s, true) && s->mirror[s->chosen].sync) {
        uint64_t id = s->asked_record;
        s->asked_record = 0;
        hf_pair_primary_answer(s->primary, id, true, hf_pg_service_now(s));
        answered = true;
    }
    return answered;
}

/* Everything is there, or it will not be. */
void hf_pg_service_answer_grow(struct hf_pg_service *s)
{
    struct hf_pair_primary_info info;
    if (!s->growing) {
        return;
    }
    enum hf_pair_state state = state_of(s, &info);
    struct hf_pg_control *c = s->growing;
    if (state == HF_PAIR_STATE_RECORDING || state == HF_PAIR_STATE_IN_SYNC) {
        s->growing = NULL;
        hf_pg_control_done(c, HF_OCF_SUCCESS, "");
    } else if (hf_pg_service_now(s) >= s->grow_until) {
        s->growing = NULL;
        hf_pg_control_done(c, HF_OCF_ERR_GENERIC, "the backup does not have everything yet");
    }
}

static void state_of_mirror(struct hf_pg_service *s, struct hf_buf *out, size_t i)
{
    struct hf_pair_primary_info info;
    const char *copy = s->mirror[i].copy;
    if (i != s->chosen) {
        hf_buf_printf(out, "%s suspended another host is the backup\n", copy);
        return;
    }
    switch (state_of(s, &info)) {
    case HF_PAIR_STATE_RECORDING:
    case HF_PAIR_STATE_IN_SYNC:
        hf_buf_printf(out, "%s %s\n", copy, s->mirror[i].in_set ? "in-sync" : "caught-up");
        break;
    case HF_PAIR_STATE_SYNCING:
        hf_buf_printf(
            out, "%s syncing %u\n", copy,
            info.sessions ? (unsigned)(100 * (info.sessions - info.unsent) / info.sessions) : 0);
        break;
    case HF_PAIR_STATE_CONNECTING:
    case HF_PAIR_STATE_NO_BACKUP:
    case HF_PAIR_STATE_LOST:
    case HF_PAIR_STATE_COUNT_: {
        const char *now = s->asked_solo         ? "suspended no word from it"
                          : s->mirror[i].in_set ? "in-sync"
                                                : "syncing 0";
        hf_buf_printf(out, "%s %s\n", copy, now);
        break;
    }
    }
}

static void tell_lines(struct hf_pg_control *c, struct hf_slice text)
{
    while (text.n) {
        const uint8_t *end = memchr(text.p, '\n', text.n);
        size_t n = end ? (size_t)(end - text.p) : text.n;
        hf_pg_control_line(c, "%.*s", (int)n, (const char *)text.p);
        n += end != NULL;
        text = hf_slice(text.p + n, text.n - n);
    }
}

/* The group asks, and asks again: it is answered when there is something new. */
void hf_pg_service_answer_state(struct hf_pg_service *s)
{
    struct hf_buf now;
    struct hf_pg_control *c = s->watching;
    if (!c) {
        return;
    }
    hf_buf_init(&now, 4096);
    for (size_t i = 0; s->primary && i < s->n_mirrors; i++) {
        state_of_mirror(s, &now, i);
    }
    bool same = hf_slice_eq(hf_buf_slice(&now), hf_buf_slice(&s->state_told));
    if (!same || !s->primary || hf_pg_service_now(s) >= s->watch_until) {
        s->watching = NULL;
        tell_lines(c, hf_buf_slice(&now));
        hf_pg_control_line(c, "holdfast-again");
        hf_pg_control_done(c, HF_OCF_SUCCESS, "");
        hf_buf_clear(&s->state_told);
        hf_buf_add(&s->state_told, hf_buf_slice(&now));
    }
    hf_buf_fini(&now);
}

/* ---- its lists ---- */

/* copy2=gamma@10.0.0.3=sync copy3==sync ... (agents.md) */
static size_t parse_mirrors(const char *text, struct mirror *out)
{
    size_t n = 0;
    while (*text && n < MIRRORS_MAX) {
        char word[256], mode[16];
        size_t len = strcspn(text, " ");
        struct mirror *m = &out[n];
        snprintf(word, sizeof(word), "%.*s", (int)len, text);
        text += len + strspn(text + len, " ");
        *m = (struct mirror){0};
        char *equal = strchr(word, '='), *last = strrchr(word, '=');
        if (!equal || equal == last) {
            continue;
        }
        *equal = *last = '\0';
        snprintf(mode, sizeof(mode), "%s", last + 1);
        char *at = strchr(equal + 1, '@');
        if (at) {
            *at = '\0';
            snprintf(m->address, sizeof(m->address), "%s", at + 1);
        }
        snprintf(m->copy, sizeof(m->copy), "%.*s", COPY_LEN - 1, word);
        snprintf(m->host, sizeof(m->host), "%.*s", HF_HOST_NAME_MAX, equal + 1);
        m->sync = strcmp(mode, "sync") == 0;
        m->in_set = m->sync || strcmp(mode, "grow") == 0;
        n++;
    }
    return n;
}

/* Who is in S, else who was chosen before, else the first that has a host. */
static size_t choose(const struct hf_pg_service *s)
{
    size_t best = s->n_mirrors;
    for (size_t i = s->n_mirrors; i-- > 0;) {
        const struct mirror *m = &s->mirror[i];
        bool old = strcmp(m->copy, s->chosen_copy) == 0;
        const struct mirror *b = best < s->n_mirrors ? &s->mirror[best] : NULL;
        if (!m->in_set && !*m->host) {
            continue;
        }
        if (!b || m->in_set > b->in_set ||
            (m->in_set == b->in_set && (old || strcmp(b->copy, s->chosen_copy) != 0))) {
            best = i;
        }
    }
    return best;
}

void hf_pg_service_mirror_source(struct hf_pg_service *s, struct hf_pg_control *c,
                                 const char *mirrors)
{
    s->n_mirrors = parse_mirrors(mirrors, s->mirror);
    s->chosen = choose(s);
    const char *copy = s->chosen < s->n_mirrors ? s->mirror[s->chosen].copy : "";
    (void)hf_pg_service_answer_asks(s);
    if (strcmp(copy, s->chosen_copy) != 0) {
        snprintf(s->chosen_copy, sizeof(s->chosen_copy), "%s", copy);
        hf_pair_primary_backup(s->primary, *copy ? ++s->chosen_id : 0, hf_pg_service_now(s));
    }
    bool grow = chosen_is(s, true);
    if (s->growing) {
        hf_pg_control_done(s->growing, HF_OCF_ERR_GENERIC, "another list came");
        s->growing = NULL;
    }
    if (grow && !s->mirror[s->chosen].sync) {
        s->growing = c;
        s->grow_until = hf_pg_service_now(s) + GROW_TIME;
    } else {
        hf_pg_control_done(c, HF_OCF_SUCCESS, "");
    }
    hf_pg_service_pump(s);
}

/* With the question come the lists as they are now: who was to grow is in S. */
static void note_grown(struct hf_pg_service *s, const char *mirrors)
{
    struct mirror now[MIRRORS_MAX];
    size_t n = parse_mirrors(mirrors, now);
    for (size_t i = 0; i < n; i++) {
        struct mirror *m = s->chosen < s->n_mirrors ? &s->mirror[s->chosen] : NULL;
        if (m && m->in_set && now[i].sync && strcmp(m->copy, now[i].copy) == 0) {
            m->sync = true;
        }
    }
}

void hf_pg_service_mirror_state(struct hf_pg_service *s, struct hf_pg_control *c,
                                const struct hf_pg_control_ask *ask)
{
    const char *own = ask->resource;
    if (s->primary) {
        note_grown(s, ask->mirrors);
        if (s->watching) {
            hf_pg_control_done(s->watching, HF_OCF_ERR_GENERIC, "asked once more");
        }
        s->watching = c;
        s->watch_until = hf_pg_service_now(s) + WATCH_TIME;
        hf_pg_service_pump(s);
        return;
    }
    if (s->backup) {
        struct hf_pair_backup_info info;
        hf_pair_backup_info(s->backup, &info);
        bool follows = info.complete && info.state == HF_PAIR_BACKUP_FOLLOWING;
        hf_pg_control_line(c, follows ? "%s in-sync" : "%s syncing 0", own);
    }
    hf_pg_control_done(c, HF_OCF_SUCCESS, "");
}
