/* /v1/overview: made once for all who look on, and told when it differs. */
#include <errno.h>

#include "base/mem.h"
#include "hostd/overview.h"
#include "hostd/timeline.h"
#include "hostd/web_impl.h"

#define LOOK HF_MS(500) /* while somebody looks on: has anything changed? */
#define SOON HF_MS(100) /* between two looks, however much changes */
#define OVERVIEW_LEN_MAX (1u << 20)

struct hf_web_overview {
    struct hf_web *web;     /* borrowed */
    struct hf_timer *timer; /* owned; set while somebody looks on */
    struct hf_buf text;     /* as told last, on one line */
    uint64_t version;       /* of text; 0: there is none yet */
    hf_time made_at;
};

static void overview_tell(struct hf_web_stream *s);

/* ---- making it ---- */

/* How many look on. */
static unsigned wake_all(struct hf_web *web, bool news)
{
    unsigned n = 0;
    HF_LIST_FOREACH (node, &web->streams) {
        struct hf_web_stream *s = HF_CONTAINER_OF(node, struct hf_web_stream, node);
        n += s->tell == overview_tell;
        if (s->tell == overview_tell && news) {
            hf_web_follower_wake(s);
        }
    }
    return n;
}

/* Make it anew; true: it differs. What can't be made stays as it was. */
static bool make(struct hf_web_overview *o)
{
    struct hf_buf raw, line;
    bool differs = false;
    hf_buf_init(&raw, OVERVIEW_LEN_MAX);
    hf_buf_init(&line, OVERVIEW_LEN_MAX);
    o->made_at = hf_now();
    hf_overview_json(o->web->h, &raw);
    if (!raw.err) {
        hf_web_add_line(&line, hf_buf_slice(&raw));
        differs = !line.err && !hf_slice_eq(hf_buf_slice(&line), hf_buf_slice(&o->text));
    }
    if (raw.err || line.err) {
        hf_log_debug("http", "no overview: %s", hf_strerror(raw.err ? raw.err : line.err));
    }
    if (differs) {
        hf_buf_fini(&o->text);
        o->text = line;
        o->version++;
    } else {
        hf_buf_fini(&line);
    }
    hf_buf_fini(&raw);
    return differs;
}

static void on_timer(void *arg)
{
    struct hf_web_overview *o = arg;
    if (wake_all(o->web, false) == 0) {
        hf_buf_fini(&o->text); /* nobody looks on any more */
        return;
    }
    (void)wake_all(o->web, make(o));
    hf_timer_set(o->timer, hf_now() + LOOK);
}

void hf_web_overview_touch(struct hf_web *web)
{
    hf_timer_set(web->overview->timer, web->overview->made_at + SOON);
}

static void on_news(void *arg)
{
    struct hf_web *web = arg;
    (void)wake_all(web, true); /* of the timeline; what it is about follows */
    hf_web_overview_touch(web);
}

/* ---- telling it ---- */

static void overview_tell(struct hf_web_stream *s)
{
    const struct hf_web_overview *o = s->web->overview;
    const struct hf_timeline *t = s->web->h->timeline;
    const struct hf_note *n;
    const struct hf_sample *m;
    for (; s->buf.n < HF_WEB_PIECE_LEN && (n = hf_timeline_note_at(t, &s->note)); s->note++) {
        hf_buf_str(&s->buf, "event: note\ndata: ");
        hf_note_json(n, &s->buf);
        hf_buf_str(&s->buf, "\n\n");
    }
    for (; s->buf.n < HF_WEB_PIECE_LEN && (m = hf_timeline_sample_at(t, &s->sample)); s->sample++) {
        hf_buf_str(&s->buf, "event: sample\ndata: ");
        hf_sample_json(m, &s->buf);
        hf_buf_str(&s->buf, "\n\n");
    }
    if (s->buf.n < HF_WEB_PIECE_LEN && s->told != o->version) {
        s->told = o->version;
        hf_buf_str(&s->buf, "event: overview\ndata: ");
        hf_buf_add(&s->buf, hf_buf_slice(&o->text));
        hf_buf_str(&s->buf, "\n\n");
    }
}

void hf_web_overview_follow(struct hf_web *web, struct hf_http_req *req)
{
    struct hf_web_stream *s = hf_web_follower_create(web, req, overview_tell);
    struct hf_web_overview *o = web->overview;
    if (s) {
        (void)wake_all(web, make(o));
        hf_timer_set(o->timer, hf_now() + LOOK);
        hf_web_follower_begin(s);
    }
}

/* ---- life ---- */

int hf_web_overview_open(struct hf_web *web)
{
    struct hf_web_overview *o = hf_alloc(sizeof(*o));
    if (!o) {
        return -ENOMEM;
    }
    web->overview = o;
    o->web = web;
    hf_buf_init(&o->text, OVERVIEW_LEN_MAX);
    int rc = hf_timer_create(web->h->loop, on_timer, o, &o->timer);
    if (rc == 0) {
        hf_timeline_listen(web->h->timeline, on_news, web);
    }
    return rc;
}

void hf_web_overview_close(struct hf_web *web)
{
    struct hf_web_overview *o = web->overview;
    if (o) {
        hf_timeline_listen(web->h->timeline, NULL, NULL);
        hf_timer_destroy(o->timer);
        hf_buf_fini(&o->text);
        hf_free(o);
        web->overview = NULL;
    }
}
