/* The copies of the group as the primary sees them: who is the backup, what the group is told. */
#include <stdio.h>
#include <string.h>

#include "os/ocf.h"
#include "pg/control.h"
#include "pg/service_impl.h"

#define GROW_TIME HF_S(5)
#define WATCH_TIME HF_MS(1500)

/* ---- what the group is asked and told ---- */

bool hf_pg_service_answer_asks(struct hf_pg_service *s)
{
    uint64_t id = hf_pair_lists_answer(&s->lists);
    if (id) {
        hf_pair_primary_answer(s->primary, id, true, hf_pg_service_now(s));
    }
    return id != 0;
}

/* Everything is there, or it will not be. */
void hf_pg_service_answer_grow(struct hf_pg_service *s)
{
    struct hf_pair_primary_info info;
    struct hf_pg_control *c = s->growing;
    if (!c) {
        return;
    }
    hf_pair_primary_info(s->primary, hf_pg_service_now(s), &info);
    if (hf_pair_lists_has_all(&info)) {
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
    char text[256];
    hf_pair_primary_info(s->primary, hf_pg_service_now(s), &info);
    hf_pair_lists_state(&s->lists, i, &info, text, sizeof(text));
    hf_buf_printf(out, "%s %s\n", s->lists.mirror[i].copy, text);
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
    for (size_t i = 0; s->primary && i < s->lists.n; i++) {
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

void hf_pg_service_mirror_source(struct hf_pg_service *s, struct hf_pg_control *c,
                                 const char *mirrors)
{
    bool other = hf_pair_lists_take(&s->lists, mirrors);
    while (hf_pg_service_answer_asks(s)) { /* of the backup that it was */
    }
    if (other) {
        const struct hf_pair_mirror *m;
        hf_pair_primary_backup(s->primary, hf_pair_lists_backup(&s->lists, &m),
                               hf_pg_service_now(s));
    }
    if (s->growing) {
        hf_pg_control_done(s->growing, HF_OCF_ERR_GENERIC, "another list came");
        s->growing = NULL;
    }
    if (hf_pair_lists_growing(&s->lists)) {
        s->growing = c;
        s->grow_until = hf_pg_service_now(s) + GROW_TIME;
    } else {
        hf_pg_control_done(c, HF_OCF_SUCCESS, "");
    }
    hf_pg_service_pump(s);
}

void hf_pg_service_mirror_state(struct hf_pg_service *s, struct hf_pg_control *c,
                                const struct hf_pg_control_ask *ask)
{
    const char *own = ask->resource;
    if (s->primary) {
        hf_pair_lists_note(&s->lists, ask->mirrors);
        if (s->watching) { /* asked once more */
            s->watch_until = hf_pg_service_now(s);
            hf_pg_service_answer_state(s);
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
