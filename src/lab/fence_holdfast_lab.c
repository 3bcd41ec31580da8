/* fence_holdfast_lab: the fence agent of a lab's hosts. Follows fence-agents' conventions: options
 * as name=value lines on stdin; what it does goes to the power switch (holdfast-lab-power.c). */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/holdfast-lab/power.sock"

enum { STATUS_ON = 0, DONE = 0, FAILED = 1, STATUS_OFF = 2 }; /* exit codes */

struct options {
    char action[32], plug[64], socket[108];
};

static const char metadata[] =
    "<?xml version=\"1.0\" ?>\n"
    "<resource-agent name=\"fence_holdfast_lab\" shortdesc=\"Fence agent for hosts of a lab\">\n"
    "<longdesc>Switches hosts of a holdfast-lab(8) on and off. Works inside these hosts only."
    "</longdesc>\n"
    "<vendor-url></vendor-url>\n"
    "<parameters>\n"
    "  <parameter name=\"action\" unique=\"0\" required=\"1\">\n"
    "    <getopt mixed=\"-o\" /><content type=\"string\" default=\"reboot\" />\n"
    "    <shortdesc lang=\"en\">Fencing action</shortdesc>\n"
    "  </parameter>\n"
    "  <parameter name=\"plug\" unique=\"0\" required=\"0\" obsoletes=\"port\">\n"
    "    <getopt mixed=\"-n\" /><content type=\"string\" />\n"
    "    <shortdesc lang=\"en\">Name of the host</shortdesc>\n"
    "  </parameter>\n"
    "  <parameter name=\"port\" unique=\"0\" required=\"0\" deprecated=\"1\">\n"
    "    <content type=\"string\" />\n"
    "    <shortdesc lang=\"en\">Name of the host</shortdesc>\n"
    "  </parameter>\n"
    "  <parameter name=\"socket\" unique=\"0\" required=\"0\">\n"
    "    <content type=\"string\" default=\"" DEFAULT_SOCKET "\" />\n"
    "    <shortdesc lang=\"en\">The lab's power switch</shortdesc>\n"
    "  </parameter>\n"
    "</parameters>\n"
    "<actions>\n"
    "  <action name=\"on\" automatic=\"0\" />\n"
    "  <action name=\"off\" />\n"
    "  <action name=\"reboot\" />\n"
    "  <action name=\"status\" />\n"
    "  <action name=\"monitor\" />\n"
    "  <action name=\"list\" />\n"
    "  <action name=\"metadata\" />\n"
    "  <action name=\"validate-all\" />\n"
    "</actions>\n"
    "</resource-agent>\n";

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "fence_holdfast_lab: %s: %s\n", what, why);
    return FAILED;
}

/* Options that it does not know are for other agents: ignored, as the convention is. */
static void set_option(struct options *o, const char *name, const char *value)
{
    if (!strcmp(name, "action")) {
        snprintf(o->action, sizeof(o->action), "%s", value);
    } else if (!strcmp(name, "socket")) {
        snprintf(o->socket, sizeof(o->socket), "%s", value);
    } else if (!strcmp(name, "plug") ||
               ((!strcmp(name, "port") || !strcmp(name, "nodename")) && !*o->plug)) {
        snprintf(o->plug, sizeof(o->plug), "%s", value);
    }
}

static void read_options(struct options *o)
{
    char line[512];
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\r\n")] = '\0';
        char *name = line + strspn(line, " \t");
        char *value = strchr(name, '=');
        if (*name != '#' && value) {
            *value++ = '\0';
            set_option(o, name, value);
        }
    }
}

/* Ask the switch; the whole answer. False with a message when there is none. */
static bool ask(const struct options *o, const char *verb, const char *host, char *ret, size_t size)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", o->socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)(void *)&sa, sizeof(sa)) < 0) {
        fail(o->socket, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return false;
    }
    char line[128];
    int len = snprintf(line, sizeof(line), "%s%s%s\n", verb, *host ? " " : "", host);
    size_t n = 0;
    if (send(fd, line, (size_t)len, MSG_NOSIGNAL) == len) {
        for (ssize_t got; n < size - 1 && (got = recv(fd, ret + n, size - 1 - n, 0)) > 0;) {
            n += (size_t)got;
        }
    }
    ret[n] = '\0';
    close(fd);
    if (strncmp(ret, "ok", 2) != 0) {
        ret[strcspn(ret, "\n")] = '\0';
        fail(o->plug, *ret ? ret : "no answer");
        return false;
    }
    return true;
}

static void print_list(char *text)
{
    char *save = NULL;
    strtok_r(text, "\n", &save); /* the "ok" */
    for (char *row; (row = strtok_r(NULL, "\n", &save));) {
        printf("%.*s,\n", (int)strcspn(row, " "), row);
    }
}

static int run(const struct options *o)
{
    char text[4096];
    const char *a = o->action;
    if (!strcmp(a, "metadata") || !strcmp(a, "meta-data")) {
        fputs(metadata, stdout);
        return DONE;
    }
    if (!strcmp(a, "monitor") || !strcmp(a, "list") || !strcmp(a, "validate-all")) {
        if (!ask(o, "list", "", text, sizeof(text))) {
            return FAILED;
        }
        if (*a == 'l') {
            print_list(text);
        }
        return DONE;
    }
    if (strcmp(a, "on") != 0 && strcmp(a, "off") != 0 && strcmp(a, "reboot") != 0 &&
        strcmp(a, "status") != 0) {
        return fail(a, "unknown action");
    }
    if (!*o->plug || strpbrk(o->plug, " \t")) {
        return fail(a, "which host? (plug=NAME)");
    }
    if (!ask(o, a, o->plug, text, sizeof(text))) {
        return FAILED;
    }
    if (*a == 's') {
        return !strcmp(text, "ok on\n") ? STATUS_ON : STATUS_OFF;
    }
    return DONE;
}

int main(int argc, char **argv)
{
    struct options o = {.action = "reboot", .socket = DEFAULT_SOCKET};
    int c;
    while ((c = getopt(argc, argv, "o:n:")) != -1) {
        if (c == '?') {
            fputs("usage: fence_holdfast_lab [-o ACTION] [-n HOST], or name=value lines on stdin\n",
                  stderr);
            return FAILED;
        }
        set_option(&o, c == 'o' ? "action" : "plug", optarg);
    }
    if (argc == 1) {
        read_options(&o);
    }
    return run(&o);
}
