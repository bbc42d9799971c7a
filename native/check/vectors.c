/* Digests of a library, for a comparison: vectors LIBRARY LENGTH… prints for each length the digest
   of that many bytes (i % 251), and that of the whole from places of 1 KiB. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef void (*digest_of)(const uint8_t *, size_t, uint64_t, uint8_t *, uint8_t *);
typedef void (*whole_of)(const uint8_t *, size_t, uint8_t *);

static void show(const uint8_t digest[32]) {
    for (int i = 0; i < 32; i++) {
        printf("%02x", digest[i]);
    }
    printf("\n");
}

int main(int count, char **words) {
    void *library = count > 1 ? dlopen(words[1], RTLD_NOW) : NULL;
    if (library == NULL) {
        fprintf(stderr, "%s\n", count > 1 ? dlerror() : "usage: vectors LIBRARY LENGTH…");
        return 1;
    }
    digest_of digest = (digest_of)dlsym(library, "mt_digest");
    whole_of whole = (whole_of)dlsym(library, "mt_whole");
    for (int at = 2; at < count; at++) {
        size_t size = strtoul(words[at], NULL, 10), pieces = (size + 1023) / 1024;
        uint8_t *data = malloc(size + 1), *places = malloc(pieces * 32 + 1), out[32];
        for (size_t i = 0; i < size; i++) {
            data[i] = (uint8_t)(i % 251);
        }
        digest(data, size, 0, out, NULL);
        show(out);
        for (size_t i = 0; i < pieces; i++) {
            size_t left = size - i * 1024;
            digest(data + i * 1024, left < 1024 ? left : 1024, i * 1024, NULL, places + i * 32);
        }
        if (pieces > 1) {
            whole(places, pieces, out);
        }
        show(out);
        free(data);
        free(places);
    }
    return 0;
}
