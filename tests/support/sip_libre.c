/* Our reading of SIP messages beside libre's (another parser, another author): differences are
 * printed.
 *
 * sip-libre KNOWN DIR...: every file of the directories. What differs must stand in the file KNOWN,
 * a line "FILE what" each, and nothing else may stand there. sip-libre --mutate COUNT SEED DIR...:
 * COUNT messages made of them by changes of single bytes; counts who takes which, and prints what
 * differs where both take one.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wundef"
#include <re.h>
#pragma GCC diagnostic pop

#include "base/prng.h"
#include "core/sip/message.h"

#define FILES_MAX 1024
#define OF_PL(pl_) hf_slice((pl_).p, (pl_).l)

static struct hf_sip_msg m;
static struct {
    char name[64];
    uint8_t *p;
    size_t n;
} file[FILES_MAX];
static size_t n_files;

static void die(const char *what)
{
    fprintf(stderr, "sip-libre: %s\n", what);
    exit(2);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((const char *)a, (const char *)b);
}

static void load(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d) {
        die(dir);
    }
    for (struct dirent *e; (e = readdir(d));) {
        char path[4096];
        static uint8_t data[65536];
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        FILE *f = e->d_name[0] == '.' || n_files == FILES_MAX ? NULL : fopen(path, "rb");
        if (!f) {
            continue;
        }
        size_t n = fread(data, 1, sizeof(data), f);
        fclose(f);
        snprintf(file[n_files].name, sizeof(file[n_files].name), "%.63s", e->d_name);
        file[n_files].p = malloc(n + 1);
        if (!file[n_files].p) {
            die("no memory");
        }
        memcpy(file[n_files].p, data, n);
        file[n_files++].n = n;
    }
    closedir(d);
    qsort(file, n_files, sizeof(file[0]), by_name);
}

static struct hf_slice or_empty(struct hf_slice s)
{
    return s.p ? s : hf_slice("", 0);
}

/* What both take: the first thing read differently, or NULL. */
static const char *differs(const struct sip_msg *r)
{
    if (m.request != r->req) {
        return "kind";
    }
    if (m.request &&
        (!hf_slice_eq(m.method_text, OF_PL(r->met)) || !hf_slice_eq(m.uri_text, OF_PL(r->ruri)))) {
        return "start-line";
    }
    if (!m.request && m.status != r->scode) {
        return "status";
    }
    if (m.n_vias != sip_msg_hdr_count(r, SIP_HDR_VIA)) {
        return "via-count";
    }
    if (!hf_slice_eq(or_empty(m.via.branch), or_empty(OF_PL(r->via.branch)))) {
        return "branch";
    }
    if (!hf_slice_eq(m.call_id, OF_PL(r->callid))) {
        return "call-id";
    }
    if (m.cseq != r->cseq.num) {
        return "cseq";
    }
    if (!hf_slice_eq(or_empty(hf_sip_address_tag(&m.from)), or_empty(OF_PL(r->from.tag))) ||
        !hf_slice_eq(or_empty(hf_sip_address_tag(&m.to)), or_empty(OF_PL(r->to.tag)))) {
        return "tag";
    }
    if (m.to.uri.scheme == HF_SIP_SCHEME_SIP &&
        (!hf_slice_eq(or_empty(m.to.uri.user), or_empty(OF_PL(r->to.uri.user))) ||
         !hf_slice_eq(m.to.uri.host.text, OF_PL(r->to.uri.host)) ||
         m.to.uri.host.port != r->to.uri.port)) {
        return "to";
    }
    struct hf_sip_walk w;
    struct hf_sip_address a;
    uint32_t contacts = 0;
    int rc;
    hf_sip_walk_begin(&w, &m, HF_SIP_H_CONTACT);
    while ((rc = hf_sip_walk_address(&w, &a)) == 1) {
        contacts++;
    }
    return rc == 0 && contacts != sip_msg_hdr_count(r, SIP_HDR_CONTACT) ? "contacts" : NULL;
}

enum taken { NEITHER, OURS, THEIRS, BOTH };

/* Who takes it; *ret_what: what differs. */
static enum taken compare(const uint8_t *p, size_t n, const char **ret_what)
{
    struct mbuf *mb = mbuf_alloc(n + 1);
    struct sip_msg *r = NULL;
    if (!mb || mbuf_write_mem(mb, p, n)) {
        die("no memory");
    }
    mb->pos = 0;
    bool theirs = sip_msg_decode(&r, mb) == 0;
    bool ours = hf_sip_parse(hf_slice(p, n), false, &m) == 0;
    *ret_what = NULL;
    if (ours && theirs) {
        *ret_what = differs(r);
    } else if (ours || theirs) {
        *ret_what = ours ? "only-ours" : "only-libre";
    }
    mem_deref(r);
    mem_deref(mb);
    return (enum taken)((ours ? OURS : 0) | (theirs ? THEIRS : 0));
}

static int files(const char *known_path)
{
    static char known[65536];
    FILE *f = fopen(known_path, "r");
    size_t n = f ? fread(known + 1, 1, sizeof(known) - 2, f) : 0;
    int bad = 0;
    if (!f) {
        die(known_path);
    }
    fclose(f);
    known[0] = '\n';
    known[n + 1] = 0;
    size_t lines = 0, found = 0;
    for (const char *c = known + 1; *c; c++) {
        lines += *c == '\n';
    }
    for (size_t i = 0; i < n_files; i++) {
        const char *what;
        char line[128] = "";
        compare(file[i].p, file[i].n, &what);
        snprintf(line, sizeof(line), "\n%.63s %s\n", file[i].name, what ? what : "");
        if (what && strstr(known, line)) {
            found++;
        } else if (what) {
            printf("%s %s\n", file[i].name, what);
            bad = 1;
        }
    }
    if (found != lines) {
        printf("%zu known differences, %zu found\n", lines, found);
        bad = 1;
    }
    printf("%zu messages, %zu known differences\n", n_files, found);
    return bad;
}

static void mutate(long count, uint64_t seed)
{
    static const char bytes[] = "\r\n\t \",;:<>@=?()[]%\\/.*0a\x80";
    struct hf_prng rng;
    size_t takers[4] = {0}, different = 0;
    hf_prng_init(&rng, seed);
    for (long i = 0; i < count; i++) {
        static uint8_t p[65536];
        size_t which = hf_prng_below(&rng, n_files);
        size_t n = file[which].n;
        const char *what;
        memcpy(p, file[which].p, n);
        for (uint64_t k = 1 + hf_prng_below(&rng, 3); k-- && n;) {
            p[hf_prng_below(&rng, n)] = (uint8_t)bytes[hf_prng_below(&rng, sizeof(bytes) - 1)];
        }
        enum taken t = compare(p, n, &what);
        takers[t]++;
        if (t == BOTH && what) {
            different++;
            printf("--- %s %s\n%.*s\n", file[which].name, what, (int)n, p);
        }
    }
    printf(
        "%ld messages: both take %zu, none %zu, only ours %zu, only libre %zu; read differently: "
        "%zu\n",
        count, takers[BOTH], takers[NEITHER], takers[OURS], takers[THEIRS], different);
}

int main(int argc, char **argv)
{
    int dirs = argc > 1 && strcmp(argv[1], "--mutate") == 0 ? 4 : 2;
    if (argc <= dirs) {
        die("usage: sip-libre KNOWN DIR... | sip-libre --mutate COUNT SEED DIR...");
    }
    for (int i = dirs; i < argc; i++) {
        load(argv[i]);
    }
    if (n_files == 0) {
        die("no messages");
    }
    if (dirs == 2) {
        return files(argv[1]);
    }
    mutate(atol(argv[2]), strtoull(argv[3], NULL, 0));
    return 0;
}
