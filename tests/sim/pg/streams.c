/* pg-streams: message streams as written down in a file, again by the toy backend, or by a real
 * server. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "codec/pg_v3.h"
#include "sim/pg/backend.h"

#define ROOM (16u << 20)

/*
 * The file has blocks with an empty line between, each on a new connection. "-> " lines are sent,
 * as many as there are in a row at once; "<- " lines are what comes back. What differs between any
 * two servers (pids, transaction ids, tables' OIDs, positions) is not told.
 */
struct run {
    const char *dir; /* of a real server's socket; NULL: the toy */
    int fd;
    struct pgs_server server;
    struct pgs_backend *b;
    struct hf_buf in, told;
    size_t n_ready, ready_wanted;
};

static void die(const char *what)
{
    fprintf(stderr, "pg-streams: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* ---- what is said ---- */

/* The next word of a line; its end is cut off. */
static char *word(char **line)
{
    char *w = *line + strspn(*line, " ");
    *line = w + strcspn(w, " ");
    if (**line) {
        *(*line)++ = 0;
    }
    return strcmp(w, "-") == 0 ? w + 1 : w; /* - is an empty name */
}

static void say_bind(struct hf_buf *out, char *line)
{
    size_t mark = hf_pg_put_begin(out, 'B'), n = 0;
    char *value[16];
    hf_pg_put_cstr(out, hf_slice_str(word(&line)));
    hf_pg_put_cstr(out, hf_slice_str(word(&line)));
    while (n < 16 && *(value[n] = word(&line))) {
        n++;
    }
    hf_pg_put_u16(out, 0);
    hf_pg_put_u16(out, (uint16_t)n);
    for (size_t i = 0; i < n; i++) {
        hf_pg_put_u32(out, (uint32_t)strlen(value[i]));
        hf_buf_str(out, value[i]);
    }
    hf_pg_put_u16(out, 0);
    hf_pg_put_end(out, mark);
}

static void say_call(struct hf_buf *out, char *line)
{
    size_t mark = hf_pg_put_begin(out, 'F');
    hf_pg_put_u32(out, (uint32_t)strtoul(word(&line), NULL, 10));
    char *arg = word(&line);
    hf_pg_put_u16(out, 0);
    hf_pg_put_u16(out, *arg != 0);
    if (*arg) {
        hf_pg_put_u32(out, (uint32_t)strlen(arg));
        hf_buf_str(out, arg);
    }
    hf_pg_put_u16(out, 0);
    hf_pg_put_end(out, mark);
}

static void say(struct run *r, struct hf_buf *out, char *line)
{
    uint8_t type = (uint8_t)*word(&line);
    size_t mark;
    r->ready_wanted += type == 'Q' || type == 'S' || type == 'F';
    switch (type) {
    case 'B':
        say_bind(out, line);
        return;
    case 'F':
        say_call(out, line);
        return;
    case 'd':
        mark = hf_pg_put_begin(out, type);
        hf_buf_str(out, line);
        hf_buf_str(out, "\n");
        break;
    case 'P':
        mark = hf_pg_put_begin(out, type);
        hf_pg_put_cstr(out, hf_slice_str(word(&line)));
        hf_pg_put_cstr(out, hf_slice_str(line));
        hf_pg_put_u16(out, 0);
        break;
    case 'D':
    case 'C':
        mark = hf_pg_put_begin(out, type);
        hf_pg_put_u8(out, (uint8_t)*word(&line));
        hf_pg_put_cstr(out, hf_slice_str(word(&line)));
        break;
    case 'E':
        mark = hf_pg_put_begin(out, type);
        hf_pg_put_cstr(out, hf_slice_str(word(&line)));
        hf_pg_put_u32(out, (uint32_t)strtoul(word(&line), NULL, 10));
        break;
    default:
        mark = hf_pg_put_begin(out, type);
        if (type == 'Q' || type == 'f') {
            hf_pg_put_cstr(out, hf_slice_str(line));
        }
    }
    hf_pg_put_end(out, mark);
}

/* ---- what comes ---- */

static void told_columns(struct hf_buf *t, struct hf_slice body)
{
    struct hf_rd r;
    uint16_t n;
    if (hf_pg_columns_begin(body, &r, &n)) {
        return;
    }
    for (uint16_t i = 0; i < n; i++) {
        struct hf_pg_column c;
        if (hf_pg_column_next(&r, &c)) {
            return;
        }
        hf_buf_printf(t, " %.*s:%u:%d", HF_SLICE_FMT(c.name), c.type, (int16_t)c.size);
    }
}

static void told_row(struct hf_buf *t, struct hf_slice body)
{
    struct hf_rd r;
    struct hf_slice v;
    uint16_t n;
    if (hf_pg_values_begin(body, &r, &n)) {
        return;
    }
    for (uint16_t i = 0; i < n && hf_pg_value_next(&r, &v) == 0; i++) {
        hf_buf_printf(t, " %.*s", v.p ? (int)v.n : 4, v.p ? (const char *)v.p : "NULL");
    }
}

static void told_error(struct hf_buf *t, struct hf_slice body)
{
    for (const char *f = "VCMD"; *f; f++) {
        struct hf_slice v = hf_pg_error_field(body, (uint8_t)*f);
        if (v.p) {
            hf_buf_printf(t, "%s%.*s", *f == 'D' ? " | " : " ", HF_SLICE_FMT(v));
        }
    }
}

static void told_params(struct hf_buf *t, struct hf_slice body)
{
    struct hf_rd r;
    hf_rd_init(&r, body);
    for (uint16_t n = hf_rd_u16(&r); n > 0; n--) {
        hf_buf_printf(t, " %u", hf_rd_u32(&r));
    }
}

static void told(struct run *r, uint8_t type, struct hf_slice body)
{
    struct hf_buf *t = &r->told;
    struct hf_rd rd;
    struct hf_slice a, b;
    hf_rd_init(&rd, body);
    hf_buf_printf(t, "<- %c", type);
    switch (type) {
    case 'T':
        told_columns(t, body);
        break;
    case 'D':
        told_row(t, body);
        break;
    case 'E':
    case 'N':
        told_error(t, body);
        break;
    case 't':
        told_params(t, body);
        break;
    case 'C':
        hf_buf_printf(t, " %.*s", (int)body.n - 1, (const char *)body.p);
        break;
    case 'd':
        hf_buf_printf(t, " %.*s", (int)body.n - 1, (const char *)body.p);
        break;
    case 'Z':
        hf_buf_printf(t, " %c", body.n ? body.p[0] : '?');
        r->n_ready++;
        break;
    case 'S':
        if (hf_pg_status_read(body, &a, &b) == 0) {
            hf_buf_printf(t, " %.*s=%.*s", HF_SLICE_FMT(a), HF_SLICE_FMT(b));
        }
        break;
    case 'A':
        (void)hf_rd_u32(&rd);
        a = hf_pg_rd_cstr(&rd);
        b = hf_pg_rd_cstr(&rd);
        hf_buf_printf(t, " %.*s %.*s", HF_SLICE_FMT(a), HF_SLICE_FMT(b));
        break;
    case 'V': /* transaction ids differ */
        hf_buf_str(t, hf_rd_u32(&rd) == UINT32_MAX ? " NULL" : " a value");
        break;
    default:
        break;
    }
    hf_buf_str(t, "\n");
}

static void take(struct run *r)
{
    struct hf_pg_head h;
    while (hf_pg_head_read(hf_buf_slice(&r->in), &h) == 0 &&
           r->in.n >= HF_PG_HEAD_LEN + (size_t)h.body_len) {
        told(r, h.type, hf_slice(r->in.p + HF_PG_HEAD_LEN, h.body_len));
        hf_buf_consume(&r->in, HF_PG_HEAD_LEN + (size_t)h.body_len);
    }
}

static void receive(struct run *r)
{
    uint8_t bytes[4096];
    ssize_t n = recv(r->fd, bytes, sizeof(bytes), 0);
    if (n <= 0) {
        die("the server closed the connection");
    }
    hf_buf_add(&r->in, hf_slice(bytes, (size_t)n));
}

/* ---- connections ---- */

static void close_connection(struct run *r)
{
    if (r->dir && r->fd >= 0) {
        close(r->fd);
        r->fd = -1;
    } else if (r->b) {
        pgs_backend_kill(r->b);
        pgs_backend_free(r->b);
        r->b = NULL;
    }
}

static void connect_real(struct run *r)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", r->dir);
    r->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (r->fd < 0 || connect(r->fd, (struct sockaddr *)&a, sizeof(a))) {
        die(r->dir);
    }
    struct hf_buf out;
    hf_buf_init(&out, ROOM);
    size_t mark = hf_pg_put_begin(&out, 0);
    hf_pg_put_u32(&out, HF_PG_VERSION_3_0);
    static const char *const params[] = {"user", "toy", "database", "toy"};
    for (size_t i = 0; i < HF_ARRAY_LEN(params); i++) {
        hf_pg_put_cstr(&out, hf_slice_str(params[i]));
    }
    hf_pg_put_u8(&out, 0);
    hf_pg_put_end(&out, mark);
    if (send(r->fd, out.p, out.n, 0) != (ssize_t)out.n) {
        die("send");
    }
    hf_buf_fini(&out);
    for (r->n_ready = 0; r->n_ready == 0;) {
        receive(r);
        take(r);
    }
    hf_buf_clear(&r->told);
}

static void connect_any(struct run *r)
{
    close_connection(r);
    if (r->dir) {
        connect_real(r);
    } else {
        r->b = pgs_backend_start(&r->server, "toy");
    }
}

static void exchange(struct run *r, struct hf_buf *out)
{
    r->n_ready = 0;
    if (r->dir) {
        if (send(r->fd, out->p, out->n, 0) != (ssize_t)out->n) {
            die("send");
        }
        while (r->n_ready < r->ready_wanted) {
            receive(r);
            take(r);
        }
    } else {
        pgs_backend_input(r->b, hf_buf_slice(out));
        do {
            r->server.now += 1000;
            pgs_flush(&r->server.db, SIZE_MAX);
        } while (pgs_backend_step(r->b));
        struct hf_slice s = pgs_backend_output(r->b);
        hf_buf_add(&r->in, s);
        pgs_backend_sent(r->b, s.n);
        take(r);
    }
    r->ready_wanted = 0;
    hf_buf_clear(out);
}

/* ---- the file ---- */

static int streams(struct run *r, FILE *f, FILE *write)
{
    char line[4096];
    struct hf_buf out, want;
    int differ = 0, n = 0, at = 0;
    bool fresh = true;
    hf_buf_init(&out, ROOM);
    hf_buf_init(&want, ROOM);
    for (bool more = true; more;) {
        more = fgets(line, sizeof(line), f) != NULL;
        n++;
        bool sent = more && strncmp(line, "-> ", 3) == 0;
        bool answer = more && strncmp(line, "<- ", 3) == 0;
        if (answer && out.n) {
            exchange(r, &out);
        }
        if (!answer && (want.n || r->told.n || out.n) && (!sent || want.n)) {
            if (out.n) {
                exchange(r, &out);
            }
            if (!hf_slice_eq(hf_buf_slice(&want), hf_buf_slice(&r->told))) {
                fprintf(stderr, "before line %d, after line %d: wanted\n%.*sgot\n%.*s", n, at,
                        (int)want.n, (const char *)want.p, (int)r->told.n, (const char *)r->told.p);
                differ++;
            }
            if (write) {
                fprintf(write, "%.*s", (int)r->told.n, (const char *)r->told.p);
            }
            hf_buf_clear(&want);
            hf_buf_clear(&r->told);
        }
        if (answer) {
            hf_buf_str(&want, line);
            continue;
        }
        if (more && write) {
            fputs(line, write);
        }
        fresh = fresh || line[0] == '\n';
        if (sent) {
            if (fresh) {
                connect_any(r);
                fresh = false;
            }
            at = n;
            line[strcspn(line, "\n")] = 0;
            say(r, &out, line + 3);
        }
    }
    hf_buf_fini(&out);
    hf_buf_fini(&want);
    return differ;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"connect", required_argument, NULL, 'c'}, {"write", required_argument, NULL, 'w'}, {0}};
    struct run r = {.fd = -1};
    FILE *write = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'c') {
            r.dir = optarg;
        } else if (c == 'w' && !(write = fopen(optarg, "w"))) {
            die(optarg);
        }
    }
    FILE *f = optind + 1 == argc ? fopen(argv[optind], "r") : NULL;
    if (!f) {
        fprintf(stderr, "pg-streams [--connect SOCKET] [--write FILE] STREAMS\n");
        return 2;
    }
    hf_buf_init(&r.in, ROOM);
    hf_buf_init(&r.told, ROOM);
    pgs_server_init(&r.server, 1);
    int differ = streams(&r, f, write);
    close_connection(&r);
    pgs_server_fini(&r.server);
    hf_buf_fini(&r.in);
    hf_buf_fini(&r.told);
    fclose(f);
    if (write) {
        fclose(write);
    }
    printf("%d differ\n", differ);
    return differ != 0 && !write;
}
