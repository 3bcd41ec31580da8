/* Assignments as CSV: one line at a time, errors with line and field. */
#include "core/sip/assign_csv.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/name.h"

static const char *const names[] = {
#define NAME(id, name) name,
    HF_SIP_CSV_FIELD_LIST(NAME)
#undef NAME
};

#define FIELD_MAX 512 /* bytes of a field, so that an error can tell what is too long */

struct text {
    size_t n;
    char s[FIELD_MAX + 1];
};

static int refuse(const struct hf_sip_csv *c, struct hf_err *err, int code, const char *field,
                  const char *what)
{
    return hf_err_set(err, code, "line %" PRIu64 "%s%s: %s", c->n_lines,
                      field != NULL ? ", field " : "", field != NULL ? field : "", what);
}

/* The next field of the line, its quotes undone (RFC 4180 2.5 to 2.7), off *line. NULL, or what is
 * wrong with it. */
static const char *next_field(struct hf_slice *line, struct text *ret, bool *ret_last)
{
    bool quoted = line->n > 0 && line->p[0] == '"';
    size_t i = quoted;
    ret->n = 0;
    for (;; i++) {
        if (i == line->n || (!quoted && line->p[i] == ',')) {
            break;
        }
        if (line->p[i] == '"') {
            if (!quoted) {
                return "a quote inside a field that does not begin with one";
            }
            if (i + 1 == line->n || line->p[i + 1] != '"') {
                quoted = false; /* its end */
                i++;
                if (i < line->n && line->p[i] != ',') {
                    return "text after the closing quote";
                }
                break;
            }
            i++;
        }
        if (line->p[i] < ' ' || line->p[i] == 0x7f) {
            return "a control character";
        }
        if (ret->n == FIELD_MAX) {
            return "too long";
        }
        ret->s[ret->n++] = (char)line->p[i];
    }
    if (quoted) {
        return "its closing quote is missing";
    }
    ret->s[ret->n] = 0;
    *ret_last = i == line->n;
    size_t used = i < line->n ? i + 1 : i;
    *line = hf_slice(line->p + used, line->n - used);
    return NULL;
}

static int read_names(struct hf_sip_csv *c, struct hf_slice line, struct hf_err *err)
{
    unsigned seen = 0;
    struct text t;
    c->n_fields = 0;
    for (bool last = false; !last;) {
        const char *wrong = next_field(&line, &t, &last);
        if (wrong != NULL) {
            return refuse(c, err, -HF_EMALF, NULL, wrong);
        }
        uint8_t f = 0;
        while (f < HF_SIP_CSV_FIELD_COUNT_ && strcmp(t.s, names[f]) != 0) {
            f++;
        }
        if (f == HF_SIP_CSV_FIELD_COUNT_) {
            return hf_err_set(err, -HF_EMALF,
                              "line %" PRIu64 ": there is no field \"%.40s\" (aor, home, current, "
                              "epoch, pinned)",
                              c->n_lines, t.s);
        }
        if (seen >> f & 1) {
            return refuse(c, err, -HF_EMALF, names[f], "named twice");
        }
        seen |= 1u << f;
        c->field[c->n_fields++] = f;
    }
    if (!(seen >> HF_SIP_CSV_AOR & 1) || !(seen >> HF_SIP_CSV_HOME & 1)) {
        return refuse(c, err, -HF_EMALF, NULL, "aor and home are needed among the names");
    }
    c->named = true;
    return 0;
}

static int read_server(const struct hf_sip_csv *c, const struct text *t, uint8_t f,
                       char ret[HF_HOST_NAME_MAX + 1], struct hf_err *err)
{
    if (!hf_host_name_ok(hf_slice(t->s, t->n))) {
        return hf_err_set(err, -HF_ENAME,
                          "line %" PRIu64 ", field %s: \"%.70s\" is not a host name", c->n_lines,
                          names[f], t->s);
    }
    memcpy(ret, t->s, t->n + 1);
    return 0;
}

static int read_epoch(const struct hf_sip_csv *c, const struct text *t, uint64_t *ret,
                      struct hf_err *err)
{
    int64_t v = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (t->s[i] < '0' || t->s[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, t->s[i] - '0', &v)) {
            return refuse(c, err, -HF_EVALUE, "epoch", "a number of at most 63 bits was expected");
        }
    }
    *ret = (uint64_t)v;
    return 0;
}

static int read_value(const struct hf_sip_csv *c, uint8_t f, const struct text *t,
                      struct hf_sip_csv_row *row, struct hf_err *err)
{
    switch ((enum hf_sip_csv_field)f) {
    case HF_SIP_CSV_AOR:
        if (t->n == 0 || t->n > HF_SIP_AOR_MAX) {
            return refuse(c, err, -HF_EVALUE, "aor", t->n == 0 ? "is empty" : "too long");
        }
        memcpy(row->aor, t->s, t->n + 1);
        return 0;
    case HF_SIP_CSV_HOME:
        return read_server(c, t, f, row->home, err);
    case HF_SIP_CSV_CURRENT:
        return t->n == 0 ? 0 : read_server(c, t, f, row->current, err);
    case HF_SIP_CSV_EPOCH:
        return read_epoch(c, t, &row->epoch, err);
    case HF_SIP_CSV_PINNED:
        row->pinned = strcmp(t->s, "yes") == 0;
        if (!row->pinned && t->n > 0 && strcmp(t->s, "no") != 0) {
            return refuse(c, err, -HF_EVALUE, "pinned", "yes or no was expected");
        }
        return 0;
    case HF_SIP_CSV_FIELD_COUNT_:
        break;
    }
    assert(false);
    return 0;
}

int hf_sip_csv_read(struct hf_sip_csv *c, struct hf_slice line, struct hf_sip_csv_row *ret_row,
                    struct hf_err *err)
{
    struct hf_sip_csv_row row = {.epoch = 0};
    struct text t;
    c->n_lines++;
    if (line.n > 0 && line.p[line.n - 1] == '\r') {
        line.n--;
    }
    if (line.n == 0) {
        return 0;
    }
    if (!c->named) {
        return read_names(c, line, err);
    }
    bool last = false;
    for (uint8_t i = 0; i < c->n_fields; i++) {
        if (last) {
            return refuse(c, err, -HF_EMALF, names[c->field[i]], "is missing");
        }
        const char *wrong = next_field(&line, &t, &last);
        if (wrong != NULL) {
            return refuse(c, err, -HF_EMALF, names[c->field[i]], wrong);
        }
        int r = read_value(c, c->field[i], &t, &row, err);
        if (r < 0) {
            return r;
        }
    }
    if (!last) {
        return refuse(c, err, -HF_EMALF, NULL, "more fields than the first line names");
    }
    if (row.current[0] == 0) {
        memcpy(row.current, row.home, sizeof(row.current));
    }
    *ret_row = row;
    return 1;
}

void hf_sip_csv_write_head(struct hf_buf *b)
{
    hf_buf_str(b, "aor,home,current,epoch,pinned\n");
}

static void write_text(struct hf_buf *b, const char *s)
{
    if (strpbrk(s, ",\"") == NULL) {
        hf_buf_str(b, s);
        return;
    }
    hf_buf_str(b, "\"");
    for (const char *q; (q = strchr(s, '"')) != NULL; s = q + 1) {
        hf_buf_add(b, hf_slice(s, (size_t)(q - s)));
        hf_buf_str(b, "\"\"");
    }
    hf_buf_str(b, s);
    hf_buf_str(b, "\"");
}

void hf_sip_csv_write(struct hf_buf *b, const struct hf_sip_csv_row *row)
{
    size_t before = b->n;
    write_text(b, row->aor);
    hf_buf_printf(b, ",%s,%s,%" PRIu64 ",%s\n", row->home, row->current, row->epoch,
                  row->pinned ? "yes" : "no");
    if (b->err != 0) {
        b->n = before; /* whole lines only */
    }
}
