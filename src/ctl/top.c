/* `holdfast top`: asks, draws, waits; what it draws is render_top.c's. */
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "ctl/commands.h"
#include "ctl/render.h"

#define DELAY_MS_DEFAULT 1000
#define ANSWER_MAX (16u << 20)
#define SCREEN_MAX (4u << 20)

/* The alternate screen without a cursor; and back. Lines are not to be wrapped by the terminal. */
#define ENTER "\033[?1049h\033[?25l\033[?7l"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

/* Ends the program unless it can be caught here: the terminal is put right before. */
static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};

struct top {
    const struct hf_cmd_opt *opt;
    int signals;      /* a descriptor */
    json_t *overview; /* owned; the last there was */
    struct hf_err lost;
    bool is_lost, end;
    int rc; /* of the last question */
};

/* What a handler needs: how the terminal was. */
static struct termios was;
static volatile sig_atomic_t entered;

/* ---- the terminal ---- */

static void leave(void)
{
    if (entered) {
        entered = 0;
        if (write(STDOUT_FILENO, LEAVE, sizeof(LEAVE) - 1) < 0) {
            /* it is gone */
        }
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &was);
    }
}

/* SA_RESETHAND: a second one, the one raised here, ends the program. */
static void on_crash(int signo)
{
    leave();
    raise(signo);
}

static int enter(void)
{
    struct termios raw;
    if (tcgetattr(STDIN_FILENO, &was)) {
        return -errno;
    }
    raw = was;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    entered = 1;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) ||
        write(STDOUT_FILENO, ENTER, sizeof(ENTER) - 1) < 0) {
        int rc = -errno;
        leave();
        return rc;
    }
    return 0;
}

static int open_terminal(void)
{
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        return hf_cmd_fail(HF_EXIT_FAILED, "this is not a terminal: use -b");
    }
    struct sigaction sa = {.sa_handler = on_crash, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};
    for (size_t i = 0; i < HF_ARRAY_LEN(crashes); i++) {
        (void)sigaction(crashes[i], &sa, NULL);
    }
    (void)atexit(leave);
    int rc = enter();
    return rc ? hf_cmd_fail(HF_EXIT_FAILED, "cannot set up the terminal: %s", hf_strerror(rc))
              : HF_EXIT_OK;
}

static size_t from_env(const char *name, size_t missing)
{
    const char *s = getenv(name);
    long v = s ? strtol(s, NULL, 10) : 0;
    return v > 0 && v <= 1000 ? (size_t)v : missing;
}

static void size_of(const struct hf_cmd_opt *opt, struct hf_top_view *view)
{
    struct winsize size = {0};
    if (!opt->batch && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col) {
        view->columns = size.ws_col;
        view->rows = size.ws_row;
    } else {
        view->columns = from_env("COLUMNS", 80);
        view->rows = opt->batch ? 0 : from_env("LINES", 24);
    }
}

/* ---- asking ---- */

static int ask_text(const struct hf_cmd_opt *opt, struct hf_buf *text, struct hf_err *err)
{
    struct hf_ask a;
    int rc = hf_ask_open(&a, opt->socket, opt->timeout_ms, err);
    if (rc) {
        return rc;
    }
    rc = hf_ask_query(&a, "overview", "", text, err);
    hf_ask_close(&a);
    if (rc && !*err->text) {
        return hf_err_set(err, rc, "%s", hf_strerror(rc));
    }
    return rc;
}

static void ask(struct top *t)
{
    struct hf_buf text;
    json_error_t bad;
    json_t *json = NULL;
    t->lost = (struct hf_err){0};
    hf_buf_init(&text, ANSWER_MAX);
    t->rc = ask_text(t->opt, &text, &t->lost);
    if (t->rc == 0) {
        json = json_loadb((const char *)text.p, text.n, 0, &bad);
        if (!json) {
            t->rc =
                hf_err_set(&t->lost, -HF_EPROTO, "holdfastd's answer is not JSON: %s", bad.text);
        }
    }
    hf_buf_fini(&text);
    t->is_lost = t->rc != 0;
    if (json) {
        json_decref(t->overview);
        t->overview = json;
    }
}

/* ---- drawing ---- */

/* Each line over what was there, and nothing below the last one. */
static void as_screen(struct hf_slice lines, struct hf_buf *out)
{
    hf_buf_str(out, "\033[H");
    while (lines.n) {
        const uint8_t *end = memchr(lines.p, '\n', lines.n);
        size_t n = end ? (size_t)(end - lines.p) : lines.n;
        hf_buf_add(out, hf_slice(lines.p, n));
        lines = hf_slice(lines.p + n, lines.n - n);
        hf_buf_str(out, "\033[K");
        if (lines.n > 1) { /* the last one's would scroll */
            hf_buf_str(out, "\n");
        }
        lines = lines.n ? hf_slice(lines.p + 1, lines.n - 1) : lines;
    }
    hf_buf_str(out, "\033[J");
}

static int draw(const struct top *t)
{
    struct hf_buf lines, out;
    struct hf_top_view view = {.colour = hf_cmd_colours() && !t->opt->batch,
                               .utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0,
                               .lost = t->is_lost ? t->lost.text : NULL};
    size_of(t->opt, &view);
    hf_buf_init(&lines, SCREEN_MAX);
    hf_buf_init(&out, SCREEN_MAX);
    int rc = hf_render_top(&lines, t->overview, &view);
    if (!t->opt->batch) {
        as_screen(hf_buf_slice(&lines), &out);
    }
    int code = rc ? hf_cmd_fail(HF_EXIT_FAILED, "cannot show the answer: %s", hf_strerror(rc))
                  : hf_cmd_put(hf_buf_slice(t->opt->batch ? &lines : &out));
    hf_buf_fini(&lines);
    hf_buf_fini(&out);
    return code;
}

/* ---- waiting ---- */

static void on_signal(struct top *t)
{
    struct signalfd_siginfo info;
    if (read(t->signals, &info, sizeof(info)) != sizeof(info)) {
        return;
    }
    if (info.ssi_signo == SIGTSTP) { /* to the shell, until it continues us */
        bool screen = entered;
        leave();
        (void)raise(SIGSTOP);
        t->end = screen && enter() != 0;
    } else if (info.ssi_signo != SIGWINCH) {
        t->end = true;
    }
}

static void on_keys(struct top *t)
{
    char keys[64];
    ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));
    if (n <= 0) {
        t->end = n == 0 || errno != EINTR; /* the terminal is gone */
    }
    for (ssize_t i = 0; i < n; i++) {
        t->end = t->end || keys[i] == 'q' || keys[i] == 'Q';
    }
}

/* Until it is time, a key or a signal. */
static void wait_for(struct top *t)
{
    struct pollfd p[2] = {{.fd = t->signals, .events = POLLIN},
                          {.fd = t->opt->batch ? -1 : STDIN_FILENO, .events = POLLIN}};
    int ms = t->opt->delay_ms ? (int)t->opt->delay_ms : DELAY_MS_DEFAULT;
    if (poll(p, 2, ms) < 0 && errno != EINTR) {
        t->end = true;
    }
    if (p[0].revents) {
        on_signal(t);
    }
    if (p[1].revents) {
        on_keys(t);
    }
}

static int run(struct top *t)
{
    int code = HF_EXIT_OK;
    for (uint32_t n = 1; code == HF_EXIT_OK && !t->end; n++) {
        if (t->opt->batch && t->is_lost) {
            (void)hf_cmd_fail(0, "%s", t->lost.text);
        } else {
            code = n > 1 && t->opt->batch ? hf_cmd_put(hf_slice_str("\n")) : HF_EXIT_OK;
            code = code ? code : draw(t);
        }
        if (t->opt->rounds && n >= t->opt->rounds) {
            break;
        }
        wait_for(t);
        if (!t->end) {
            ask(t);
        }
    }
    return code ? code : t->opt->batch && t->is_lost ? (int)hf_ask_exit(t->rc) : HF_EXIT_OK;
}

int hf_cmd_top(const struct hf_cmd_opt *opt, int n, char **arg)
{
    (void)n;
    (void)arg;
    struct top t = {.opt = opt};
    (void)setlocale(LC_CTYPE, "");
    ask(&t);
    if (t.is_lost) { /* before anything is drawn over what the user sees */
        return hf_cmd_fail(hf_ask_exit(t.rc), "%s", t.lost.text);
    }
    t.signals = hf_cmd_signals(signals, HF_ARRAY_LEN(signals));
    int code = t.signals < 0 ? hf_cmd_fail(HF_EXIT_FAILED, "%s", hf_strerror(t.signals))
               : opt->batch  ? HF_EXIT_OK
                             : open_terminal();
    code = code ? code : run(&t);
    leave();
    json_decref(t.overview);
    return code;
}
