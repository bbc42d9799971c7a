/* libFuzzer on what reads bytes of others: heads of messages, pieces of any length, and the names of
   the files of a folder. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../src/native.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A folder that is open and removed: names are walked, and nothing can be made in it. */
static int removed_folder(void) {
    char path[] = "/tmp/mini-torrent-fuzz-XXXXXX";
    if (mkdtemp(path) == NULL) {
        abort();
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    rmdir(path);
    return fd;
}

static void names_of_a_folder(const uint8_t *data, size_t size) {
    static int top = -1;
    uint64_t sizes[64];
    uint32_t entries = 1;
    for (size_t i = 0; i < size && entries < 64; i++) {
        entries += data[i] == 0;
    }
    uint64_t total = 0;
    for (uint32_t i = 0; i < entries; i++) {
        sizes[i] = i < size ? data[i] : 1;
        total += sizes[i];
    }
    top = top < 0 ? removed_folder() : top;
    mt_folder *folder =
        mt_folder_new((const char *)data, size, entries, sizes, NULL, NULL, UINT64_MAX);
    if (folder == NULL) {
        return; /* more names than that */
    }
    bool made = false;
    uint8_t *bytes = calloc(1, total + 1);
    mt_status *found = calloc(entries, sizeof *found);
    for (uint64_t at = 0; at <= total; at += total / 7 + 1) {
        if (mt_folder_read(folder, top, at, bytes + at, total - at) ||
            mt_folder_write(folder, top, at, bytes + at, total - at, &made) || made) {
            abort();
        }
    }
    mt_folder_look(folder, top, found);
    for (uint32_t i = 0; i < entries; i++) {
        if (found[i].mode != 0) {
            abort(); /* a name led out of the folder */
        }
    }
    free(found);
    free(bytes);
    mt_folder_free(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t run[3] = {0};
    if (mt_read_head(data, size, run) && (size < 11 || data[0] != 0x94)) {
        abort();
    }
    names_of_a_folder(data, size);
    /* The places of all pieces make the digest of the whole, whatever its length. */
    const size_t length = 16 * 1024;
    size_t pieces = (size + length - 1) / length;
    if (pieces >= 2) {
        uint8_t whole[MT_DIGEST], direct[MT_DIGEST];
        uint8_t *places = malloc(pieces * MT_DIGEST);
        for (size_t i = 0; i < pieces; i++) {
            size_t left = size - i * length;
            mt_digest(data + i * length, left < length ? left : length, i * length, NULL,
                      places + i * MT_DIGEST);
        }
        mt_whole(places, pieces, whole);
        mt_digest(data, size, 0, direct, NULL);
        free(places);
        if (memcmp(whole, direct, MT_DIGEST) != 0) {
            abort();
        }
    }
    return 0;
}
