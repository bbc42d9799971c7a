/* libFuzzer on the entry points: what reads bytes of others, and what cuts up those of this side.

   An input is a list of steps: requests, cancellations, messages of a source, pieces that are sent
   and come back, digests, and names of the files of a folder. ZeroMQ is a list of frames in memory of their exact size. Every seal is
   right unless the step says otherwise: a source that has the key is the worst case. */
#include "../src/fetch.c"

#include <sys/mman.h>

#define LENGTH 1024
#define PIECES 70
#define SIZE ((PIECES - 1) * LENGTH + 100)
#define FRAMES_MAX 4096

typedef struct {
    uint8_t *data;
    size_t size;
    bool more;
    void (*release)(void *, void *);
    void *hint;
} frame;

static frame queue[FRAMES_MAX]; /* to be received */
static size_t queued, received;
static uint8_t content[SIZE], digests[PIECES * MT_DIGEST], places[PIECES * MT_DIGEST];
static uint8_t requested[PIECES]; /* what a stored run may have */
static mt_fetcher fetcher;
static mt_sealer *sealer;
static line source;

#define require(right)                                                                             \
    do {                                                                                           \
        if (!(right)) {                                                                            \
            mt_fatal("not so: " #right);                                                           \
        }                                                                                          \
    } while (0)

/* -- ZeroMQ and AEGIS ------------------------------------------------------------------------- */

static frame *of(const zmq_msg_t *message) { return (frame *)(void *)message; }

static int init(zmq_msg_t *message) {
    memset(message, 0, sizeof *message);
    return 0;
}

static int init_size(zmq_msg_t *message, size_t size) {
    init(message);
    *of(message) = (frame){malloc(size), size, false, NULL, NULL};
    return 0;
}

static int init_data(zmq_msg_t *message, void *data, size_t size, void (*release_data)(void *, void *),
                     void *hint) {
    init(message);
    *of(message) = (frame){data, size, false, release_data, hint};
    return 0;
}

static int close_frame(zmq_msg_t *message) {
    frame *old = of(message);
    if (old->release != NULL) {
        old->release(old->data, old->hint);
    } else {
        free(old->data);
    }
    return init(message);
}

static int receive_frame(zmq_msg_t *message, void *socket, int flags) {
    (void)socket, (void)flags;
    if (received == queued) {
        return -1;
    }
    *of(message) = queue[received++];
    return 0;
}

static void put(const uint8_t *data, size_t size, bool more) {
    if (queued < FRAMES_MAX) {
        uint8_t *copy = malloc(size);
        if (size > 0) {
            memcpy(copy, data, size);
        }
        queue[queued++] = (frame){copy, size, more, NULL, NULL};
    }
}

static int send_one(zmq_msg_t *message, void *socket, int flags) {
    (void)socket;
    put(of(message)->data, of(message)->size, flags & ZMQ_SNDMORE);
    return close_frame(message);
}

static int more_of(const zmq_msg_t *message) { return of(message)->more; }
static int source_of(const zmq_msg_t *message, int property) {
    (void)message;
    return property;
}
static void *data_of(zmq_msg_t *message) { return of(message)->data; }
static size_t size_of(const zmq_msg_t *message) { return of(message)->size; }

static int seal_fake(unsigned char *out, unsigned char *tag, unsigned long long *tag_length,
                     const unsigned char *in, unsigned long long length,
                     const unsigned char *known, unsigned long long known_length,
                     const unsigned char *none, const unsigned char *nonce,
                     const unsigned char *key) {
    (void)tag_length, (void)known, (void)known_length, (void)none, (void)nonce, (void)key;
    memmove(out, in, length);
    memset(tag, 0, MT_TAG);
    return 0;
}

static int open_fake(unsigned char *out, unsigned char *none, const unsigned char *in,
                     unsigned long long length, const unsigned char *tag,
                     const unsigned char *known, unsigned long long known_length,
                     const unsigned char *nonce, const unsigned char *key) {
    (void)none, (void)known, (void)known_length, (void)nonce, (void)key;
    memmove(out, in, length);
    return tag[0] == 0xff && tag[MT_TAG - 1] == 0xff ? -1 : 0;
}

/* -- steps ------------------------------------------------------------------------------------ */

static const uint8_t *at, *end;

static uint8_t byte(void) { return at < end ? *at++ : 0; }

static size_t upto(size_t most) {
    size_t value = byte();
    return (value << 8 | byte()) % (most + 1);
}

static size_t put_count(uint8_t *out, uint32_t value) {
    if (value < 0x80) {
        out[0] = (uint8_t)value;
        return 1;
    }
    out[0] = 0xcd;
    out[1] = (uint8_t)(value >> 8);
    out[2] = (uint8_t)value;
    return 3;
}

static size_t put_head(uint8_t *head, uint32_t first, uint32_t count) {
    memcpy(head, "\x94\xa6Pieces", 8);
    size_t size = 8 + put_count(head + 8, byte() & 1);
    size += put_count(head + size, first);
    return size + put_count(head + size, count);
}

/* Take what came of one message. Only requested pieces may have been stored, and right ones. */
static void take(mt_target *target) {
    mt_event event;
    while (mt_fetcher_events(&fetcher, &event, 1)) {
        if (event.kind == MT_STORED) {
            require(event.count > 0 && event.count <= MT_RUN_MAX);
            for (uint32_t i = 0; i < event.count; i++) {
                uint32_t piece = event.first + i;
                uint8_t stored[LENGTH];
                require(piece < PIECES && requested[piece] && event.channel == 0);
                requested[piece] = 0;
                size_t size = bytes_of(target, piece);
                if (event.wrong >> i & 1) {
                    continue;
                }
                require(event.error == 0);
                require(pread(target->fd, stored, size, (off_t)piece * LENGTH) == (ssize_t)size);
                require(memcmp(stored, content + (size_t)piece * LENGTH, size) == 0);
            }
        } else {
            require(event.kind == MT_OPENED || event.kind == MT_BROKEN);
            mt_free(event.data);
        }
    }
}

static void receive_all(mt_target *target) {
    while (receive(&fetcher, &source)) {
        take(target);
        source.broken = false;
    }
    queued = received = 0;
}

static void hostile_message(mt_target *target) {
    uint8_t kind = byte(), head[HEAD_MAX + MT_TAG + 64] = {0}, number[MT_NUMBER] = {0};
    uint32_t first = (uint32_t)upto(PIECES), count = (uint32_t)upto(PIECES);
    size_t head_size = put_head(head, first, count);
    if (kind & 1) { /* any bytes */
        head_size = upto(HEAD_MAX + 32);
        for (size_t i = 0; i < head_size; i++) {
            head[i] = byte();
        }
    }
    size_t tag = kind & 2 ? upto(MT_TAG) : MT_TAG;
    uint64_t next = source.number + (kind & 4 ? byte() : 0) - (kind & 8 ? 1 : 0);
    for (int i = 0; i < MT_NUMBER; i++) {
        number[i] = (uint8_t)(next >> (8 * (MT_NUMBER - 1 - i)));
    }
    put((const uint8_t *)"MT\x01", kind & 16 ? byte() % 4 : 3, true);
    put(number, kind & 32 ? byte() % 9 : MT_NUMBER, true);
    put(head, head_size + tag, true);
    size_t offset = (size_t)first * LENGTH, left = offset < SIZE ? SIZE - offset : 0;
    size_t size = (size_t)count * LENGTH < left ? (size_t)count * LENGTH : left;
    size = kind & 64 ? upto(0xffff) : size;
    uint8_t *data = calloc(1, size + MT_TAG);
    memcpy(data, content + (left ? offset : 0), size < left ? size : left);
    if (kind & 128 && size + MT_TAG > 0) {
        data[upto(size + MT_TAG - 1)] ^= 1;
        if (byte() & 1) {
            memset(data + size, 0xff, MT_TAG);
        }
    }
    size_t total = size + MT_TAG, step = upto(0xffff) + 1;
    if (byte() & 1) {
        size_t cut = upto(MT_TAG + 2);
        total = cut < total ? cut : total;
    }
    for (size_t sent = 0; sent < total; sent += step) {
        size_t part = total - sent < step ? total - sent : step;
        put(data + sent, part, sent + part < total && queued < FRAMES_MAX - 1);
    }
    free(data);
    queue[queued - 1].more = false;
    receive_all(target);
}

/* A message of this side's sealer comes whole. */
static void round_trip(mt_target *target) {
    uint8_t head[HEAD_MAX + 8] = {0};
    uint32_t first = (uint32_t)upto(PIECES - 1), count = (uint32_t)upto(PIECES - 1 - first) + 1;
    size_t head_size = byte() & 1 ? upto(HEAD_MAX + 8) : put_head(head, first, count);
    size_t offset = (size_t)first * LENGTH, size = SIZE - offset, step = upto(0xffff);
    size = (size_t)count * LENGTH < size ? (size_t)count * LENGTH : size;
    mt_block *block = mt_block_new(size);
    memcpy(mt_block_data(block), content + offset, size);
    size_t length = byte() & 1 ? upto(size + 1) : size;
    int error = mt_send(sealer, NULL, (const uint8_t *)"id", 2, (const uint8_t *)"MT\x01", 3, head,
                        head_size, block, length, step);
    require((error != 0) == (head_size > HEAD_MAX || length > size || step == 0));
    mt_block_free(block);
    if (error == 0) {
        size_t total = 0;
        for (size_t i = 4; i < queued; i++) {
            total += queue[i].size;
        }
        require(queue[0].size == 2 && (queued == FRAMES_MAX || total == length + MT_TAG));
        close_frame((zmq_msg_t *)(void *)memcpy(&(zmq_msg_t){{0}}, &queue[0], sizeof(frame)));
        received = 1;
        queue[queued - 1].more = false;
        receive_all(target);
    }
}

static void digests_agree(void) {
    size_t size = upto(0xffff) * 3 + 2, piece = (size_t)LENGTH << byte() % 7;
    uint8_t *data = calloc(1, size), whole[MT_DIGEST], direct[MT_DIGEST];
    memcpy(data, content, size < SIZE ? size : SIZE);
    size_t pieces = (size + piece - 1) / piece;
    if (pieces >= 2) {
        uint8_t *nodes = malloc(pieces * MT_DIGEST);
        for (size_t i = 0; i < pieces; i++) {
            size_t left = size - i * piece;
            mt_digest(data + i * piece, left < piece ? left : piece, i * piece, NULL,
                      nodes + i * MT_DIGEST);
        }
        mt_whole(nodes, pieces, whole);
        mt_digest(data, size, 0, direct, NULL);
        require(memcmp(whole, direct, MT_DIGEST) == 0);
        free(nodes);
    }
    free(data);
}

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

static void prepare(void) {
    zmq = (mt_zmq){.msg_init = init,
                   .msg_init_size = init_size,
                   .msg_init_data = init_data,
                   .msg_close = close_frame,
                   .msg_recv = receive_frame,
                   .msg_send = send_one,
                   .msg_more = more_of,
                   .msg_get = source_of,
                   .msg_data = data_of,
                   .msg_size = size_of};
    aegis = (mt_aegis){.seal = seal_fake, .open = open_fake};
    for (size_t i = 0; i < SIZE; i++) {
        content[i] = (uint8_t)(1 + i % 251);
    }
    for (size_t i = 0; i < PIECES; i++) {
        size_t left = SIZE - i * LENGTH;
        mt_digest(content + i * LENGTH, left < LENGTH ? left : LENGTH, i * LENGTH,
                  digests + i * MT_DIGEST, NULL);
    }
    pthread_mutex_init(&fetcher.lock, NULL);
    fetcher.events = calloc(EVENTS_MAX, sizeof *fetcher.events);
    fetcher.scratch = malloc(DATA_MAX);
    fetcher.event_fd = fetcher.wake_fd = eventfd(0, EFD_NONBLOCK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("part", 0);
        prepare();
    }
    require(ftruncate(fd, 0) == 0 && ftruncate(fd, SIZE) == 0);
    at = data;
    end = data + size;
    uint32_t run[3] = {0};
    require(!mt_read_head(data, size, run) || (size >= 11 && data[0] == 0x94));
    mt_target *target = mt_target_new(fd, SIZE, LENGTH, PIECES, digests, places);
    const uint8_t key[MT_KEY] = {0};
    sealer = mt_sealer_new(key);
    source = (line){.id = 1, .socket = &source};
    fetcher.lines = &source;
    memset(requested, 0, sizeof requested);
    for (int steps = 0; at < end && steps < 200; steps++) {
        uint8_t step = byte();
        uint32_t pieces[16], count = byte() % 17, first = byte() % (PIECES + 2);
        for (uint32_t i = 0; i < count; i++) {
            pieces[i] = first + i;
        }
        switch (step % 7) {
        case 0:
            mt_line_expect(&fetcher, 1, 0, target, pieces, count);
            for (uint32_t i = 0; i < count; i++) {
                if (pieces[i] < PIECES) {
                    requested[pieces[i]] = 1;
                }
            }
            break;
        case 1:
            mt_line_forget(&fetcher, 1, 0, pieces, count);
            for (uint32_t i = 0; i < count; i++) {
                if (pieces[i] < PIECES) {
                    requested[pieces[i]] = 0;
                }
            }
            break;
        case 2:
            hostile_message(target);
            break;
        case 3:
            round_trip(target);
            break;
        case 4:
            digests_agree();
            break;
        case 5: {
            size_t length = upto(512);
            length = length < (size_t)(end - at) ? length : (size_t)(end - at);
            names_of_a_folder(at, length);
            at += length;
            break;
        }
        default:
            mt_line_close_channel(&fetcher, 1, 0);
            memset(requested, 0, sizeof requested);
        }
    }
    while (source.channels != NULL) {
        close_channel(&source, source.channels->number);
    }
    mt_sealer_free(sealer);
    mt_target_free(target);
    return 0;
}
