/* Feeds the files of the directories named to a fuzz target: its corpus as a test, without
 * libFuzzer.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* From an exact-size heap copy, so that a sanitizer sees any step beyond; and cut short. */
static void feed(const uint8_t *data, size_t n)
{
    for (size_t len = n; len != SIZE_MAX; len -= len > 64 ? len / 8 : 1) {
        uint8_t *copy = malloc(len ? len : 1);
        if (!copy) {
            abort();
        }
        for (size_t i = 0; i < len; i++) {
            copy[i] = data[i];
        }
        LLVMFuzzerTestOneInput(copy, len);
        free(copy);
    }
}

static int replay_file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return 1;
    }
    size_t n = fread(data, 1, sizeof(data), f);
    fclose(f);
    feed(data, n);
    return 0;
}

int main(int argc, char **argv)
{
    size_t n = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        if (!dir) {
            perror(argv[i]);
            return 1;
        }
        for (struct dirent *e; (e = readdir(dir));) {
            char path[4096];
            snprintf(path, sizeof(path), "%s/%s", argv[i], e->d_name);
            if (e->d_name[0] != '.') {
                n++;
                if (replay_file(path)) {
                    return 1;
                }
            }
        }
        closedir(dir);
    }
    printf("%zu inputs\n", n);
    return n ? 0 : 1;
}
