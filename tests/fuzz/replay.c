/*
 * Runs a fuzz target over the files of its corpus, with any compiler: what fuzzing has found once
 * stays found. Prints TAP. Arguments: files and folders.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned tests;

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    long size = -1;

    if (f && fseek(f, 0, SEEK_END) == 0)
        size = ftell(f);
    /* A block of the exact size, so that sanitizers see a read past its end. */
    if (size >= 0 && fseek(f, 0, SEEK_SET) == 0)
        data = malloc(size ? (size_t)size : 1);
    if (!data || fread(data, 1, (size_t)size, f) != (size_t)size) {
        printf("not ok %u - %s cannot be read\n", ++tests, path);
        size = -1;
    } else {
        LLVMFuzzerTestOneInput(data, (size_t)size);
        printf("ok %u - %s\n", ++tests, strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
    }
    fflush(stdout);
    free(data);
    if (f)
        fclose(f);
    return size < 0;
}

int main(int argc, char **argv)
{
    int bad = 0;

    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        struct dirent *entry;
        char path[4096];
        if (!d) {
            bad |= replay(argv[i]);
            continue;
        }
        while ((entry = readdir(d))) {
            if (entry->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            bad |= replay(path);
        }
        closedir(d);
    }
    printf("1..%u\n", tests);
    return bad || !tests;
}
