/* ZeroMQ and AEGIS-128L, found in shared objects that the process has loaded. */
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
    int (*init)(void);
    int (*seal)(unsigned char *, unsigned char *, unsigned long long *, const unsigned char *,
                unsigned long long, const unsigned char *, unsigned long long,
                const unsigned char *, const unsigned char *, const unsigned char *);
    int (*open)(unsigned char *, unsigned char *, const unsigned char *, unsigned long long,
                const unsigned char *, const unsigned char *, unsigned long long,
                const unsigned char *, const unsigned char *);
} mt_aegis;

extern mt_zmq zmq;
extern mt_aegis aegis;

/* Seal `length` bytes of message `number` as a `kind` of four bytes ("head" or "data"), with `known`
   as associated data. `out` may be `in`; the tag follows the bytes there. */
bool seal(const uint8_t *key, const char *kind, const uint8_t *number, const uint8_t *known,
          size_t known_length, const uint8_t *in, size_t length, uint8_t *out);
/* Open `length` bytes, which the tag follows in `in`. `out` may be `in`, and has no tag. */
bool open_sealed(const uint8_t *key, const char *kind, const uint8_t *number, const uint8_t *known,
                 size_t known_length, const uint8_t *in, size_t length, uint8_t *out);

/* End the process with words: the state of a thread is not what it can be. */
_Noreturn void mt_fatal(const char *words);

#endif
