/* The group's lists of mirrors: the choice of the backup, answers, what is told of mirrors. */
#include "core/pair/lists.h"

#include <stdio.h>
#include <string.h>

/* copy2=gamma@10.0.0.3=sync copy3==sync ... */
static size_t parse(const char *text, struct hf_pair_mirror *out)
{
    size_t n = 0;
    while (*text && n < HF_PAIR_MIRRORS_MAX) {
        char word[256], mode[16];
        size_t len = strcspn(text, " ");
        struct hf_pair_mirror *m = &out[n];
        snprintf(word, sizeof(word), "%.*s", (int)len, text);
        text += len + strspn(text + len, " ");
        *m = (struct hf_pair_mirror){0};
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
        snprintf(m->copy, sizeof(m->copy), "%.*s", HF_PAIR_COPY_LEN - 1, word);
        snprintf(m->host, sizeof(m->host), "%.*s", HF_HOST_NAME_MAX, equal + 1);
        m->sync = strcmp(mode, "sync") == 0;
        m->in_set = m->sync || strcmp(mode, "grow") == 0;
        n++;
    }
    return n;
}

/* Who is in S, else who was chosen before, else the first that has a host. */
static size_t choose(const struct hf_pair_lists *l)
{
    size_t best = l->n;
    for (size_t i = l->n; i-- > 0;) {
        const struct hf_pair_mirror *m = &l->mirror[i];
        bool old = strcmp(m->copy, l->chosen_copy) == 0;
        const struct hf_pair_mirror *b = best < l->n ? &l->mirror[best] : NULL;
        if (!m->in_set && !*m->host) {
            continue;
        }
        if (!b || m->in_set > b->in_set ||
            (m->in_set == b->in_set && (old || strcmp(b->copy, l->chosen_copy) != 0))) {
            best = i;
        }
    }
    return best;
}

static const struct hf_pair_mirror *chosen(const struct hf_pair_lists *l)
{
    return l->chosen < l->n ? &l->mirror[l->chosen] : NULL;
}

void hf_pair_lists_reset(struct hf_pair_lists *l)
{
    *l = (struct hf_pair_lists){.chosen_id = l->chosen_id};
}

bool hf_pair_lists_take(struct hf_pair_lists *l, const char *mirrors)
{
    l->n = parse(mirrors, l->mirror);
    l->chosen = choose(l);
    const char *copy = chosen(l) ? chosen(l)->copy : "";
    if (strcmp(copy, l->chosen_copy) == 0) {
        return false;
    }
    snprintf(l->chosen_copy, sizeof(l->chosen_copy), "%s", copy);
    l->chosen_id++;
    return true;
}

void hf_pair_lists_note(struct hf_pair_lists *l, const char *mirrors)
{
    struct hf_pair_mirror now[HF_PAIR_MIRRORS_MAX];
    size_t n = parse(mirrors, now);
    for (size_t i = 0; i < n; i++) {
        struct hf_pair_mirror *m = l->chosen < l->n ? &l->mirror[l->chosen] : NULL;
        if (m && m->in_set && now[i].sync && strcmp(m->copy, now[i].copy) == 0) {
            m->sync = true;
        }
    }
}

uint32_t hf_pair_lists_backup(const struct hf_pair_lists *l,
                              const struct hf_pair_mirror **ret_mirror)
{
    *ret_mirror = chosen(l);
    return chosen(l) ? l->chosen_id : 0;
}

bool hf_pair_lists_growing(const struct hf_pair_lists *l)
{
    return chosen(l) && chosen(l)->in_set && !chosen(l)->sync;
}

void hf_pair_lists_ask(struct hf_pair_lists *l, const struct hf_pair_out *ask)
{
    if (ask->kind == HF_PAIR_OUT_ASK_SOLO) {
        l->asked_solo = ask->id;
        l->asked_record = 0;
    } else { /* only the last one counts */
        l->asked_record = ask->id;
        l->asked_solo = 0;
    }
}

uint64_t hf_pair_lists_answer(struct hf_pair_lists *l)
{
    const struct hf_pair_mirror *m = chosen(l);
    uint64_t id = 0;
    if (l->asked_solo && !(m && m->in_set)) {
        id = l->asked_solo;
        l->asked_solo = 0;
    } else if (l->asked_record && m && m->sync) {
        id = l->asked_record;
        l->asked_record = 0;
    }
    return id;
}

bool hf_pair_lists_has_all(const struct hf_pair_primary_info *info)
{
    return info->state == HF_PAIR_STATE_RECORDING || info->state == HF_PAIR_STATE_IN_SYNC;
}

void hf_pair_lists_state(const struct hf_pair_lists *l, size_t i,
                         const struct hf_pair_primary_info *info, char *buf, size_t n)
{
    if (i != l->chosen) {
        const char *backup = chosen(l) ? chosen(l)->host : "nobody";
        snprintf(buf, n,
                 "suspended %s is the backup; this one takes its place if %s leaves the group, or "
                 "its holdfast-pg stops",
                 backup, backup);
        return;
    }
    bool in_set = l->mirror[i].in_set;
    if (hf_pair_lists_has_all(info)) {
        snprintf(buf, n, "%s", in_set ? "in-sync" : "caught-up");
    } else if (l->asked_solo) {
        snprintf(buf, n, "suspended no word from it, or it has nothing");
    } else if (info->state == HF_PAIR_STATE_SYNCING) {
        size_t all = info->sessions, sent = all - info->unsent;
        snprintf(buf, n, "syncing %u", all ? (unsigned)(100 * sent / all) : 0);
    } else {
        snprintf(buf, n, "%s", in_set ? "in-sync" : "syncing 0");
    }
}

hf_time hf_pair_lease_until(const struct hf_pair_primary_info *info, hf_time lease)
{
    return info->solo || lease == 0 ? HF_NEVER : info->echoed + lease;
}
