/* ZeroMQ and AES-256-GCM, found in shared objects that the process has loaded. */
#ifndef MINI_TORRENT_LIBRARIES_H
#define MINI_TORRENT_LIBRARIES_H

#include "native.h"

/* As in zmq.h, which is not needed to build this: names, values and sizes are part of its ABI. */
typedef struct {
    _Alignas(void *) unsigned char private_part[64];
} zmq_msg_t;
typedef struct {
    void *socket;
    int fd;
    short events, revents;
} zmq_pollitem_t;
#define ZMQ_POLLIN 1
#define ZMQ_DONTWAIT 1
#define ZMQ_SNDMORE 2
#define ZMQ_SRCFD 2
#define ZMQ_ETERM 156384765 /* ZMQ_HAUSNUMERO + 53 */

typedef struct {
    int (*msg_init)(zmq_msg_t *);
    int (*msg_init_size)(zmq_msg_t *, size_t);
    int (*msg_init_data)(zmq_msg_t *, void *, size_t, void (*)(void *, void *), void *);
    int (*msg_close)(zmq_msg_t *);
    int (*msg_recv)(zmq_msg_t *, void *, int);
    int (*msg_send)(zmq_msg_t *, void *, int);
    int (*msg_more)(const zmq_msg_t *);
    int (*msg_get)(const zmq_msg_t *, int);
    void *(*msg_data)(zmq_msg_t *);
    size_t (*msg_size)(const zmq_msg_t *);
    int (*poll)(zmq_pollitem_t *, int, long);
    int (*error)(void);
} mt_zmq;

typedef struct {
    void *(*context_new)(void);
    void (*context_free)(void *);
    const void *(*aes_256_gcm)(void);
    int (*init)(void *, const void *, void *, const uint8_t *, const uint8_t *, int);
    int (*update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*final)(void *, uint8_t *, int *);
    int (*control)(void *, int, int, void *);
} mt_aes;

extern mt_zmq zmq;
extern mt_aes aes;

/* A cipher with a key; NULL if there is no memory. `sealing`: 1 to seal, 0 to open. */
void *cipher_new(const uint8_t *key, int sealing);
/* Begin with the nonce of message `number`, a `kind` of four bytes ("head" or "data"). */
bool cipher_begin(void *cipher, const char *kind, const uint8_t number[MT_NUMBER]);
bool cipher_authenticate(void *cipher, const uint8_t *data, size_t length);
/* `out` may be `in`. */
bool cipher_update(void *cipher, const uint8_t *in, size_t length, uint8_t *out);
bool cipher_tag(void *cipher, uint8_t tag[MT_TAG]);
bool cipher_check(void *cipher, const uint8_t tag[MT_TAG]);

/* End the process with words: the state of a thread is not what it can be. */
_Noreturn void mt_fatal(const char *words);

#endif
