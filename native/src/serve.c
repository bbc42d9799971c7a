/* Serving: memory in which a piece is read, sealed and sent, without a copy.

   A block is given back to a small stock when ZeroMQ has sent all its frames, on ZeroMQ's thread.
   Why a stock: fresh memory costs a page fault for each 4 KiB, as much as reading the file. */
#include "libraries.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define STOCK 16
#define STOCK_BLOCK ((size_t)2 * 1024 * 1024 + 4096) /* a run of pieces, and its tag */

struct mt_block {
    atomic_int holders; /* its owner, then one for each frame */
    size_t size;        /* without the tag */
    size_t room;
    mt_block *next;
    uint8_t data[];
};

struct mt_sealer {
    uint8_t key[MT_KEY];
    uint64_t number;
    uint8_t before[MT_NUMBER];
    size_t before_length;
};

static pthread_mutex_t stock_lock = PTHREAD_MUTEX_INITIALIZER;
static mt_block *stock;
static int in_stock;

MT_API mt_block *mt_block_new(size_t size) {
    mt_block *block = NULL;
    size_t room = size + MT_TAG;
    if (room <= STOCK_BLOCK) {
        room = room > STOCK_BLOCK / 4 ? STOCK_BLOCK : room;
        pthread_mutex_lock(&stock_lock);
        if (room == STOCK_BLOCK && stock != NULL) {
            block = stock;
            stock = block->next;
            in_stock -= 1;
        }
        pthread_mutex_unlock(&stock_lock);
    }
    if (block == NULL) {
        block = malloc(sizeof *block + room);
        if (block == NULL) {
            return NULL;
        }
        block->room = room;
    }
    block->holders = 1;
    block->size = size;
    return block;
}

MT_API uint8_t *mt_block_data(mt_block *block) { return block->data; }

MT_API void mt_block_free(mt_block *block) {
    if (atomic_fetch_sub(&block->holders, 1) != 1) {
        return;
    }
    pthread_mutex_lock(&stock_lock);
    bool keep = block->room == STOCK_BLOCK && in_stock < STOCK;
    if (keep) {
        block->next = stock;
        stock = block;
        in_stock += 1;
    }
    pthread_mutex_unlock(&stock_lock);
    if (!keep) {
        free(block);
    }
}

static void frame_sent(void *data, void *block) {
    (void)data;
    mt_block_free(block);
}

MT_API mt_sealer *mt_sealer_new(const uint8_t *key) {
    mt_sealer *sealer = calloc(1, sizeof *sealer);
    if (sealer != NULL) {
        memcpy(sealer->key, key, MT_KEY);
    }
    return sealer;
}

MT_API void mt_sealer_free(mt_sealer *sealer) {
    memset(sealer, 0, sizeof *sealer);
    free(sealer);
}

/* A signal may interrupt ZeroMQ's look at its commands, before it has taken the frame. */
static int send_msg(zmq_msg_t *frame, void *socket, int flags) {
    while (zmq.msg_send(frame, socket, flags | ZMQ_DONTWAIT) < 0) {
        int error = zmq.error();
        if (error != EINTR) {
            return error;
        }
    }
    return 0;
}

/* Send one frame, which waits for nothing: all frames follow the first, or none. */
static int send_frame(void *socket, const uint8_t *data, size_t length, int flags) {
    zmq_msg_t frame;
    if (zmq.msg_init_size(&frame, length) != 0) {
        return ENOMEM;
    }
    memcpy(zmq.msg_data(&frame), data, length);
    int error = send_msg(&frame, socket, flags);
    if (error != 0) {
        zmq.msg_close(&frame);
    }
    return error;
}

#define HEAD_MAX 1024

MT_API int mt_send(mt_sealer *sealer, void *socket, const uint8_t *routing_id, size_t id_length,
                   const uint8_t *signature, size_t signature_length, const uint8_t *head,
                   size_t head_length, mt_block *block, size_t length, size_t frame_bytes) {
    uint8_t number[MT_NUMBER], sealed_head[HEAD_MAX + MT_TAG];
    if (head_length > HEAD_MAX || length > block->size || frame_bytes == 0) {
        return EINVAL;
    }
    int error = send_frame(socket, routing_id, id_length, ZMQ_SNDMORE);
    if (error != 0) {
        return error;
    }
    for (int i = 0; i < MT_NUMBER; i++) {
        number[i] = (uint8_t)(sealer->number >> (8 * (MT_NUMBER - 1 - i)));
    }
    sealer->number += 1;
    /* The message has begun, so there is no way back: without a seal it must not be finished. */
    if (!seal(sealer->key, "data", number, NULL, 0, block->data, length, block->data) ||
        !seal(sealer->key, "head", number, sealer->before, sealer->before_length, head, head_length,
              sealed_head)) {
        mt_fatal("a piece could not be sealed");
    }
    if (send_frame(socket, signature, signature_length, ZMQ_SNDMORE) != 0 ||
        send_frame(socket, number, MT_NUMBER, ZMQ_SNDMORE) != 0 ||
        send_frame(socket, sealed_head, head_length + MT_TAG, ZMQ_SNDMORE) != 0) {
        mt_fatal("a message was refused after its first frame");
    }
    size_t total = length + MT_TAG;
    for (size_t at = 0; at < total; at += frame_bytes) {
        size_t size = total - at < frame_bytes ? total - at : frame_bytes;
        bool last = at + size == total;
        zmq_msg_t frame;
        atomic_fetch_add(&block->holders, 1);
        if (zmq.msg_init_data(&frame, block->data + at, size, frame_sent, block) != 0 ||
            send_msg(&frame, socket, last ? 0 : ZMQ_SNDMORE) != 0) {
            mt_fatal("a message was refused after its first frame");
        }
    }
    memcpy(sealer->before, number, MT_NUMBER);
    sealer->before_length = MT_NUMBER;
    return 0;
}
