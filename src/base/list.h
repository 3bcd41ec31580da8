/* Intrusive doubly linked list; an unlinked node points to itself. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/attr.h"

struct hf_list {
    struct hf_list *prev, *next;
};

/** Make a head, or a node that is on no list. */
static inline void hf_list_init(struct hf_list *l)
{
    l->prev = l->next = l;
}

static inline bool hf_list_empty(const struct hf_list *head)
{
    return head->next == head;
}

/** Put node (on no list) before at: before a head is the end of its list. */
static inline void hf_list_insert(struct hf_list *at, struct hf_list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

/** Take node off its list, if it is on one. */
static inline void hf_list_unlink(struct hf_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    hf_list_init(node);
}

/** Make `to` a head that has all of from's nodes, in their order; `from` is empty then. */
static inline void hf_list_take(struct hf_list *to, struct hf_list *from)
{
    hf_list_insert(from, to);
    hf_list_unlink(from);
}

/** Walk; the body may unlink or free the current node. */
#define HF_LIST_FOREACH(it, head)                                                                  \
    for (struct hf_list *it = (head)->next, *it##_next = it->next; it != (head);                   \
         it = it##_next, it##_next = it->next)
