/* libFuzzer on what reads bytes of others: heads of messages, and pieces of any length. */
#include <stdlib.h>
#include <string.h>

#include "../src/native.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t run[3] = {0};
    if (mt_read_head(data, size, run) && (size < 11 || data[0] != 0x94)) {
        abort();
    }
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
