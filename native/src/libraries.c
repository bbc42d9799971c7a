/* Functions of ZeroMQ and of libsodium, by name, from shared objects that are loaded.

   Why not linked: a socket of pyzmq belongs to the libzmq that pyzmq brings, and no other. */
#include "libraries.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mt_zmq zmq;
mt_aegis aegis;

MT_API int mt_abi(void) { return MT_ABI; }

_Noreturn void mt_fatal(const char *words) {
    fprintf(stderr, "mini-torrent: compiled data path: %s\n", words);
    fflush(stderr);
    abort();
}

static bool find(void *library, const char *name, void *slot) {
    void *found = dlsym(library, name);
    memcpy(slot, &found, sizeof found);
    return found != NULL;
}

static bool find_zmq(void *library) {
    return find(library, "zmq_msg_init", &zmq.msg_init) &&
           find(library, "zmq_msg_init_size", &zmq.msg_init_size) &&
           find(library, "zmq_msg_init_data", &zmq.msg_init_data) &&
           find(library, "zmq_msg_close", &zmq.msg_close) &&
           find(library, "zmq_msg_recv", &zmq.msg_recv) &&
           find(library, "zmq_msg_send", &zmq.msg_send) &&
           find(library, "zmq_msg_more", &zmq.msg_more) &&
           find(library, "zmq_msg_get", &zmq.msg_get) &&
           find(library, "zmq_msg_data", &zmq.msg_data) &&
           find(library, "zmq_msg_size", &zmq.msg_size) &&
           find(library, "zmq_poll", &zmq.poll) && find(library, "zmq_errno", &zmq.error);
}

static bool find_aegis(void *library) {
    return find(library, "sodium_init", &aegis.init) &&
           find(library, "crypto_aead_aegis128l_encrypt_detached", &aegis.seal) &&
           find(library, "crypto_aead_aegis128l_decrypt_detached", &aegis.open) &&
           aegis.init() >= 0;
}

MT_API int mt_load(const char *zmq_path, const char *sodium_path) {
    int found = 0;
    /* Kept open for good: threads may be in them at the end of the process. */
    void *library = zmq_path == NULL ? NULL : dlopen(zmq_path, RTLD_NOW | RTLD_NOLOAD);
    if (library != NULL && find_zmq(library)) {
        found |= MT_HAS_ZMQ;
    }
    library = sodium_path == NULL ? NULL : dlopen(sodium_path, RTLD_NOW | RTLD_NOLOAD);
    if (library != NULL && find_aegis(library)) {
        found |= MT_HAS_AEGIS;
    }
    return found;
}

#define NONCE 16

static void nonce_of(const char *kind, const uint8_t *number, uint8_t nonce[NONCE]) {
    memset(nonce, 0, NONCE);
    memcpy(nonce, kind, 4);
    memcpy(nonce + NONCE - MT_NUMBER, number, MT_NUMBER);
}

bool seal(const uint8_t *key, const char *kind, const uint8_t *number, const uint8_t *known,
          size_t known_length, const uint8_t *in, size_t length, uint8_t *out) {
    uint8_t nonce[NONCE];
    nonce_of(kind, number, nonce);
    return aegis.seal(out, out + length, NULL, in, length, known, known_length, NULL, nonce, key) ==
           0;
}

bool open_sealed(const uint8_t *key, const char *kind, const uint8_t *number, const uint8_t *known,
                 size_t known_length, const uint8_t *in, size_t length, uint8_t *out) {
    uint8_t nonce[NONCE];
    nonce_of(kind, number, nonce);
    return aegis.open(out, NULL, in, length, in + length, known, known_length, nonce, key) == 0;
}
