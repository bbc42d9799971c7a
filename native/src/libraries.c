/* Functions of ZeroMQ and of OpenSSL's libcrypto, by name, from shared objects that are loaded.

   Why not linked: a socket of pyzmq belongs to the libzmq that pyzmq brings, and no other. */
#include "libraries.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mt_zmq zmq;
mt_aes aes;

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

static bool find_aes(void *library) {
    return find(library, "EVP_CIPHER_CTX_new", &aes.context_new) &&
           find(library, "EVP_CIPHER_CTX_free", &aes.context_free) &&
           find(library, "EVP_aes_256_gcm", &aes.aes_256_gcm) &&
           find(library, "EVP_CipherInit_ex", &aes.init) &&
           find(library, "EVP_CipherUpdate", &aes.update) &&
           find(library, "EVP_CipherFinal_ex", &aes.final) &&
           find(library, "EVP_CIPHER_CTX_ctrl", &aes.control);
}

MT_API int mt_load(const char *zmq_path, const char *crypto_path) {
    int found = 0;
    /* Kept open for good: threads may be in them at the end of the process. */
    void *library = zmq_path == NULL ? NULL : dlopen(zmq_path, RTLD_NOW | RTLD_NOLOAD);
    if (library != NULL && find_zmq(library)) {
        found |= MT_HAS_ZMQ;
    }
    library = crypto_path == NULL ? NULL : dlopen(crypto_path, RTLD_NOW | RTLD_NOLOAD);
    if (library != NULL && find_aes(library)) {
        found |= MT_HAS_AES;
    }
    return found;
}

#define GET_TAG 0x10 /* EVP_CTRL_AEAD_GET_TAG */
#define SET_TAG 0x11 /* EVP_CTRL_AEAD_SET_TAG */
#define KEEP (-1)    /* the direction that it was made for */

void *cipher_new(const uint8_t *key, int sealing) {
    void *cipher = aes.context_new();
    if (cipher != NULL && aes.init(cipher, aes.aes_256_gcm(), NULL, key, NULL, sealing) != 1) {
        aes.context_free(cipher);
        return NULL;
    }
    return cipher;
}

bool cipher_begin(void *cipher, const char *kind, const uint8_t number[MT_NUMBER]) {
    uint8_t nonce[4 + MT_NUMBER];
    memcpy(nonce, kind, 4);
    memcpy(nonce + 4, number, MT_NUMBER);
    return aes.init(cipher, NULL, NULL, NULL, nonce, KEEP) == 1;
}

bool cipher_authenticate(void *cipher, const uint8_t *data, size_t length) {
    int count = 0;
    return length == 0 || aes.update(cipher, NULL, &count, data, (int)length) == 1;
}

bool cipher_update(void *cipher, const uint8_t *in, size_t length, uint8_t *out) {
    int count = 0;
    return length == 0 ||
           (aes.update(cipher, out, &count, in, (int)length) == 1 && count == (int)length);
}

bool cipher_tag(void *cipher, uint8_t tag[MT_TAG]) {
    uint8_t rest[MT_TAG];
    int count = 0;
    return aes.final(cipher, rest, &count) == 1 &&
           aes.control(cipher, GET_TAG, MT_TAG, tag) == 1;
}

bool cipher_check(void *cipher, const uint8_t tag[MT_TAG]) {
    uint8_t rest[MT_TAG], expected[MT_TAG];
    int count = 0;
    memcpy(expected, tag, MT_TAG);
    return aes.control(cipher, SET_TAG, MT_TAG, expected) == 1 &&
           aes.final(cipher, rest, &count) == 1;
}
