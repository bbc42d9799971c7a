/* BLAKE3 of a piece, alone and at its place in the whole, in one pass over the bytes.

   BLAKE3 is a tree over blocks of 1 KiB that are numbered from the start. A piece begins at a
   multiple of its length, a power of two, so the piece is one node of the tree of the whole. Its
   value there needs the number of its first block, so that it differs from the digest of the piece
   alone. The digest of the whole follows from the nodes of all pieces, in whatever order they came.
   The vendored file is included, because its functions for parts of the tree are its own. */
#include "native.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../blake3/blake3.c"

/* A stretch is digested twice while it is in a cache of the core. */
#define STRETCH ((size_t)64 * 1024)
/* Bytes of a file are digested while they are in that cache. */
#define READ ((size_t)256 * 1024)

static void parent_of(const uint8_t pair[64], uint8_t out[MT_DIGEST]) {
    output_t parent = parent_output(pair, IV, 0);
    output_chaining_value(&parent, out);
}

static void place_of_stretch(const uint8_t *data, size_t length, uint64_t number, uint8_t *out) {
    if (length <= BLAKE3_CHUNK_LEN) {
        blake3_chunk_state chunk;
        chunk_state_init(&chunk, IV, 0);
        chunk.chunk_counter = number;
        chunk_state_update(&chunk, data, length);
        output_t output = chunk_state_output(&chunk);
        output_chaining_value(&output, out);
        return;
    }
    uint8_t pair[64];
    compress_subtree_to_parent_node(data, length, IV, number, 0, pair);
    parent_of(pair, out);
}

/* The node of `length` bytes whose first block has that number; `alone` takes the bytes in too. */
static void place_of(const uint8_t *data, size_t length, uint64_t number, blake3_hasher *alone,
                     uint8_t *out) {
    if (length <= STRETCH) {
        if (alone != NULL) {
            blake3_hasher_update(alone, data, length);
        }
        place_of_stretch(data, length, number, out);
        return;
    }
    size_t left = left_len(length);
    uint8_t pair[64];
    place_of(data, left, number, alone, pair);
    place_of(data + left, length - left, number + left / BLAKE3_CHUNK_LEN, alone, pair + 32);
    parent_of(pair, out);
}

MT_API void mt_digest(const uint8_t *data, size_t length, uint64_t offset, uint8_t *digest,
                      uint8_t *place) {
    blake3_hasher alone;
    blake3_hasher_init(&alone);
    if (place == NULL) {
        blake3_hasher_update(&alone, data, length);
    } else {
        place_of(data, length, offset / BLAKE3_CHUNK_LEN, digest == NULL ? NULL : &alone, place);
    }
    if (digest != NULL) {
        blake3_hasher_finalize(&alone, digest, MT_DIGEST);
    }
}

static int place_of_file(int fd, uint64_t at, size_t length, uint64_t number, blake3_hasher *alone,
                         uint8_t *buffer, uint8_t *out) {
    if (length <= READ) {
        int error = mt_read_all(fd, buffer, length, at);
        if (error == 0) {
            place_of(buffer, length, number, alone, out);
        }
        return error;
    }
    size_t left = left_len(length);
    uint8_t pair[64];
    int error = place_of_file(fd, at, left, number, alone, buffer, pair);
    if (error == 0) {
        error = place_of_file(fd, at + left, length - left, number + left / BLAKE3_CHUNK_LEN, alone,
                              buffer, pair + 32);
    }
    parent_of(pair, out);
    return error;
}

MT_API int mt_digest_file(int fd, uint64_t at, size_t length, uint64_t offset, uint8_t *digest,
                          uint8_t *place) {
    /* Not on the stack: threads of Python have small ones. */
    uint8_t *buffer = malloc(length < READ ? length + 1 : READ);
    if (buffer == NULL) {
        return ENOMEM;
    }
    blake3_hasher alone;
    blake3_hasher_init(&alone);
    uint8_t node[MT_DIGEST] = {0};
    int error = place_of_file(fd, at, length, offset / BLAKE3_CHUNK_LEN, &alone, buffer, node);
    free(buffer);
    if (error == 0) {
        memcpy(place, node, MT_DIGEST);
        blake3_hasher_finalize(&alone, digest, MT_DIGEST);
    }
    return error;
}

static void node_of(const uint8_t *places, size_t pieces, uint8_t *out);

static void pair_of(const uint8_t *places, size_t pieces, uint8_t pair[64]) {
    size_t left = (size_t)1 << (63 - __builtin_clzll((unsigned long long)pieces - 1));
    node_of(places, left, pair);
    node_of(places + left * MT_DIGEST, pieces - left, pair + 32);
}

static void node_of(const uint8_t *places, size_t pieces, uint8_t *out) {
    if (pieces == 1) {
        memcpy(out, places, MT_DIGEST);
        return;
    }
    uint8_t pair[64];
    pair_of(places, pieces, pair);
    parent_of(pair, out);
}

MT_API void mt_whole(const uint8_t *places, size_t pieces, uint8_t *digest) {
    uint8_t pair[64];
    if (pieces < 2) {
        abort(); /* the whole of one piece is that piece: the caller has its digest */
    }
    pair_of(places, pieces, pair);
    output_t root = parent_output(pair, IV, 0);
    output_root_bytes(&root, 0, digest, MT_DIGEST);
}
