/* Fetching thread: it owns the sockets of all bulk connections to sources.

   For each message: open the seal, and if its pieces were requested on that connection, digest them,
   compare, and write them to the file that was handed over. Everything else is handed on, opened.
   `lock` guards lines, channels and events; the thread holds it for no message. Only the thread
   frees a line that was started. */
#include "libraries.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HEAD_FRAMES 3 /* signature, number, head */
#define DATA_FRAMES 32
#define FRAMES (HEAD_FRAMES + DATA_FRAMES)
#define HEAD_MAX 1024
#define DATA_MAX ((size_t)4 * 1024 * 1024 + 64 * 1024)
#define IN_A_ROW 4 /* messages of one line before the next line */
#define EVENTS_MAX 4096
#define OPENED_MAX ((size_t)32 * 1024 * 1024) /* handed on and not taken yet */

struct mt_target {
    atomic_int holders;
    pthread_mutex_t lock; /* guards the next two */
    pthread_cond_t changed;
    int busy;
    bool closed;
    int fd;
    uint64_t size;
    uint32_t piece_length, pieces;
    uint8_t *digests, *places;
};

typedef struct channel {
    struct channel *next;
    uint32_t number;
    mt_target *target;
    uint8_t *expected; /* a bit for each piece */
} channel;

typedef struct line {
    struct line *next;
    uint32_t id;
    void *socket;
    uint8_t key[MT_KEY];
    bool ending, broken;
    uint64_t number; /* the least that the next message may have */
    uint8_t before[MT_NUMBER];
    size_t before_length;
    channel *channels;
} line;

struct mt_fetcher {
    pthread_t thread;
    pthread_mutex_t lock;
    line *lines;
    uint32_t next_id;
    mt_event *events;
    size_t first, count; /* of the ring */
    size_t opened_bytes;
    bool signalled, stopping, changed;
    int event_fd, wake_fd, pause_ms;
    int64_t signal_at_ms;
    atomic_llong busy_since_ms;
    uint8_t *scratch;
    zmq_msg_t frames[FRAMES];
};

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void notify(int fd) {
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

/* -- targets ---------------------------------------------------------------------------------- */

MT_API mt_target *mt_target_new(int fd, uint64_t size, uint32_t piece_length, uint32_t pieces,
                                const uint8_t *digests, uint8_t *places) {
    mt_target *target = calloc(1, sizeof *target);
    uint8_t *copy = malloc((size_t)pieces * MT_DIGEST + 1);
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (target == NULL || copy == NULL || own < 0 || piece_length == 0) {
        free(target);
        free(copy);
        if (own >= 0) {
            close(own);
        }
        return NULL;
    }
    memcpy(copy, digests, (size_t)pieces * MT_DIGEST);
    pthread_mutex_init(&target->lock, NULL);
    pthread_cond_init(&target->changed, NULL);
    target->holders = 1;
    target->fd = own;
    target->size = size;
    target->piece_length = piece_length;
    target->pieces = pieces;
    target->digests = copy;
    target->places = places;
    return target;
}

MT_API void mt_target_close(mt_target *target) {
    pthread_mutex_lock(&target->lock);
    target->closed = true;
    while (target->busy > 0) {
        pthread_cond_wait(&target->changed, &target->lock);
    }
    if (target->fd >= 0) {
        close(target->fd);
        target->fd = -1;
    }
    pthread_mutex_unlock(&target->lock);
}

static void release(mt_target *target) {
    if (atomic_fetch_sub(&target->holders, 1) == 1) {
        pthread_mutex_destroy(&target->lock);
        pthread_cond_destroy(&target->changed);
        free(target->digests);
        free(target);
    }
}

MT_API void mt_target_free(mt_target *target) {
    mt_target_close(target);
    release(target);
}

static bool enter(mt_target *target) {
    pthread_mutex_lock(&target->lock);
    bool open = !target->closed;
    target->busy += open;
    pthread_mutex_unlock(&target->lock);
    return open;
}

static void leave(mt_target *target) {
    pthread_mutex_lock(&target->lock);
    target->busy -= 1;
    pthread_cond_broadcast(&target->changed);
    pthread_mutex_unlock(&target->lock);
}

static size_t bytes_of(const mt_target *target, uint32_t piece) {
    uint64_t offset = (uint64_t)piece * target->piece_length;
    uint64_t left = target->size - offset;
    return left < target->piece_length ? (size_t)left : target->piece_length;
}

/* -- lines and channels ----------------------------------------------------------------------- */

static line *line_of(mt_fetcher *fetcher, uint32_t id) {
    line *found = fetcher->lines;
    while (found != NULL && found->id != id) {
        found = found->next;
    }
    return found;
}

static channel *channel_of(line *on, uint32_t number) {
    channel *found = on->channels;
    while (found != NULL && found->number != number) {
        found = found->next;
    }
    return found;
}

static void channel_free(channel *old) {
    release(old->target);
    free(old->expected);
    free(old);
}

static void line_free(line *old) {
    while (old->channels != NULL) {
        channel *first = old->channels;
        old->channels = first->next;
        channel_free(first);
    }
    memset(old->key, 0, sizeof old->key);
    free(old);
}

static void line_remove(mt_fetcher *fetcher, line *old) {
    for (line **at = &fetcher->lines; *at != NULL; at = &(*at)->next) {
        if (*at == old) {
            *at = old->next;
            break;
        }
    }
    line_free(old);
}

MT_API uint32_t mt_line_new(mt_fetcher *fetcher) {
    line *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) {
        return 0;
    }
    pthread_mutex_lock(&fetcher->lock);
    fresh->id = ++fetcher->next_id;
    fresh->next = fetcher->lines;
    fetcher->lines = fresh;
    uint32_t id = fresh->id;
    pthread_mutex_unlock(&fetcher->lock);
    return id;
}

MT_API int mt_line_start(mt_fetcher *fetcher, uint32_t id, void *socket, const uint8_t *key) {
    pthread_mutex_lock(&fetcher->lock);
    line *started = line_of(fetcher, id);
    bool possible = started != NULL && started->socket == NULL && !fetcher->stopping;
    if (possible) {
        memcpy(started->key, key, MT_KEY);
        started->socket = socket;
        fetcher->changed = true;
    }
    pthread_mutex_unlock(&fetcher->lock);
    if (!possible) {
        return EINVAL;
    }
    notify(fetcher->wake_fd);
    return 0;
}

MT_API void mt_line_end(mt_fetcher *fetcher, uint32_t id) {
    pthread_mutex_lock(&fetcher->lock);
    line *ended = line_of(fetcher, id);
    if (ended != NULL && ended->socket == NULL) {
        line_remove(fetcher, ended);
    } else if (ended != NULL) {
        ended->ending = true;
        fetcher->changed = true;
    }
    pthread_mutex_unlock(&fetcher->lock);
    notify(fetcher->wake_fd);
}

static channel *channel_new(line *on, uint32_t number, mt_target *target) {
    channel *fresh = calloc(1, sizeof *fresh);
    uint8_t *expected = calloc(1, target->pieces / 8 + 1);
    if (fresh == NULL || expected == NULL) {
        free(fresh);
        free(expected);
        return NULL;
    }
    atomic_fetch_add(&target->holders, 1);
    *fresh = (channel){on->channels, number, target, expected};
    on->channels = fresh;
    return fresh;
}

static void close_channel(line *on, uint32_t number) {
    for (channel **at = &on->channels; *at != NULL; at = &(*at)->next) {
        if ((*at)->number == number) {
            channel *old = *at;
            *at = old->next;
            channel_free(old);
            return;
        }
    }
}

MT_API int mt_line_expect(mt_fetcher *fetcher, uint32_t id, uint32_t number, mt_target *target,
                          const uint32_t *pieces, size_t count) {
    int error = 0;
    pthread_mutex_lock(&fetcher->lock);
    line *on = line_of(fetcher, id);
    channel *open = on == NULL ? NULL : channel_of(on, number);
    if (open != NULL && open->target != target) {
        close_channel(on, number);
        open = NULL;
    }
    if (on != NULL && open == NULL) {
        open = channel_new(on, number, target);
    }
    if (open == NULL) {
        error = on == NULL ? EINVAL : ENOMEM;
    } else {
        for (size_t i = 0; i < count; i++) {
            if (pieces[i] < target->pieces) {
                open->expected[pieces[i] / 8] |= (uint8_t)(1u << pieces[i] % 8);
            }
        }
    }
    pthread_mutex_unlock(&fetcher->lock);
    return error;
}

MT_API void mt_line_forget(mt_fetcher *fetcher, uint32_t id, uint32_t number,
                           const uint32_t *pieces, size_t count) {
    pthread_mutex_lock(&fetcher->lock);
    line *on = line_of(fetcher, id);
    channel *open = on == NULL ? NULL : channel_of(on, number);
    for (size_t i = 0; open != NULL && i < count; i++) {
        if (pieces[i] < open->target->pieces) {
            open->expected[pieces[i] / 8] &= (uint8_t)~(1u << pieces[i] % 8);
        }
    }
    pthread_mutex_unlock(&fetcher->lock);
}

MT_API void mt_line_close_channel(mt_fetcher *fetcher, uint32_t id, uint32_t number) {
    pthread_mutex_lock(&fetcher->lock);
    line *on = line_of(fetcher, id);
    if (on != NULL) {
        close_channel(on, number);
    }
    pthread_mutex_unlock(&fetcher->lock);
}

/* -- events ----------------------------------------------------------------------------------- */

static void push(mt_fetcher *fetcher, const mt_event *event) {
    pthread_mutex_lock(&fetcher->lock);
    if (fetcher->count == EVENTS_MAX) {
        mt_fatal("more events than the bound"); /* `is_full` stops the reading before */
    }
    fetcher->events[(fetcher->first + fetcher->count) % EVENTS_MAX] = *event;
    fetcher->count += 1;
    if (event->data != NULL) {
        fetcher->opened_bytes += event->size;
    }
    pthread_mutex_unlock(&fetcher->lock);
}

MT_API size_t mt_fetcher_events(mt_fetcher *fetcher, mt_event *events, size_t most) {
    pthread_mutex_lock(&fetcher->lock);
    size_t count = 0;
    while (count < most && fetcher->count > 0) {
        events[count] = fetcher->events[fetcher->first];
        if (events[count].data != NULL) {
            fetcher->opened_bytes -= events[count].size;
        }
        fetcher->first = (fetcher->first + 1) % EVENTS_MAX;
        fetcher->count -= 1;
        count += 1;
    }
    if (fetcher->count == 0) {
        fetcher->signalled = false;
    }
    pthread_mutex_unlock(&fetcher->lock);
    return count;
}

MT_API void mt_free(void *data) { free(data); }

/* Signal waiting events, unless that was done a moment ago. Returns how long to wait for messages:
   -1 without a bound. */
static long signal_events(mt_fetcher *fetcher) {
    long wait_ms = -1;
    bool due = false;
    int64_t now = now_ms();
    pthread_mutex_lock(&fetcher->lock);
    if (fetcher->count > 0 && !fetcher->signalled) {
        due = now >= fetcher->signal_at_ms;
        if (due) {
            fetcher->signalled = true;
            fetcher->signal_at_ms = now + fetcher->pause_ms;
        } else {
            wait_ms = (long)(fetcher->signal_at_ms - now);
        }
    }
    pthread_mutex_unlock(&fetcher->lock);
    if (due) {
        notify(fetcher->event_fd);
    }
    return wait_ms;
}

static bool is_full(mt_fetcher *fetcher) {
    pthread_mutex_lock(&fetcher->lock);
    bool full = fetcher->count > EVENTS_MAX / 2 || fetcher->opened_bytes > OPENED_MAX;
    pthread_mutex_unlock(&fetcher->lock);
    return full;
}

/* -- a message -------------------------------------------------------------------------------- */

static bool read_count(const uint8_t **at, const uint8_t *end, uint32_t *value) {
    if (*at >= end) {
        return false;
    }
    uint8_t kind = *(*at)++;
    int bytes = kind == 0xcc ? 1 : kind == 0xcd ? 2 : kind == 0xce ? 4 : 0;
    if (bytes == 0) {
        *value = kind;
        return kind < 0x80;
    }
    if (end - *at < bytes) {
        return false;
    }
    *value = 0;
    for (int i = 0; i < bytes; i++) {
        *value = *value << 8 | *(*at)++;
    }
    return true;
}

/* Read ["Pieces", channel, first, count] as MessagePack. Another form is left to Python. */
static bool read_head(const uint8_t *head, size_t length, mt_event *event) {
    static const uint8_t begin[] = "\x94\xa6Pieces";
    const size_t skip = sizeof begin - 1;
    const uint8_t *at = head + skip, *end = head + length;
    return length > skip && memcmp(head, begin, skip) == 0 &&
           read_count(&at, end, &event->channel) && read_count(&at, end, &event->first) &&
           read_count(&at, end, &event->count) && at == end;
}

MT_API int mt_read_head(const uint8_t *head, size_t length, uint32_t run[3]) {
    mt_event event = {0};
    int found = read_head(head, length, &event);
    run[0] = event.channel;
    run[1] = event.first;
    run[2] = event.count;
    return found;
}

/* The target of a run of pieces that were all requested, entered; NULL if Python must judge it. */
static mt_target *target_of(mt_fetcher *fetcher, line *on, const mt_event *run) {
    mt_target *target = NULL;
    pthread_mutex_lock(&fetcher->lock);
    channel *open = on->ending ? NULL : channel_of(on, run->channel);
    if (open != NULL && run->count > 0 && run->count <= MT_RUN_MAX &&
        run->first < open->target->pieces && run->count <= open->target->pieces - run->first) {
        uint32_t last = run->first + run->count - 1;
        uint64_t expected_bytes = (uint64_t)(run->count - 1) * open->target->piece_length +
                                  bytes_of(open->target, last);
        bool all = expected_bytes == run->size;
        for (uint32_t piece = run->first; all && piece <= last; piece++) {
            all = open->expected[piece / 8] >> piece % 8 & 1;
        }
        if (all && enter(open->target)) {
            target = open->target;
            atomic_fetch_add(&target->holders, 1);
            for (uint32_t piece = run->first; piece <= last; piece++) {
                open->expected[piece / 8] &= (uint8_t)~(1u << piece % 8);
            }
        }
    }
    pthread_mutex_unlock(&fetcher->lock);
    return target;
}

static void store(mt_fetcher *fetcher, mt_target *target, const uint8_t *data, mt_event *run) {
    const size_t length = target->piece_length;
    uint8_t digest[MT_DIGEST], place[MT_DIGEST];
    for (uint32_t i = 0; i < run->count; i++) {
        uint32_t piece = run->first + i;
        mt_digest(data + i * length, bytes_of(target, piece), (uint64_t)piece * length, digest,
                  target->places == NULL ? NULL : place);
        if (memcmp(digest, target->digests + (size_t)piece * MT_DIGEST, MT_DIGEST) != 0) {
            run->wrong |= (uint64_t)1 << i;
        } else if (target->places != NULL) {
            memcpy(target->places + (size_t)piece * MT_DIGEST, place, MT_DIGEST);
        }
    }
    int64_t begun = now_ms();
    atomic_store(&fetcher->busy_since_ms, begun);
    struct stat status;
    if (fstat(target->fd, &status) == 0 && (uint64_t)status.st_size < target->size) {
        run->flags |= MT_TRUNCATED;
    }
    for (uint32_t i = 0; i < run->count && run->error == 0;) {
        uint32_t begin = i;
        while (i < run->count && !(run->wrong >> i & 1)) {
            i++;
        }
        if (i > begin) {
            size_t size = (size_t)(i - begin - 1) * length + bytes_of(target, run->first + i - 1);
            run->error = mt_write_all(target->fd, data + begin * length, size,
                                   (uint64_t)(run->first + begin) * length);
        } else {
            i++;
        }
    }
    atomic_store(&fetcher->busy_since_ms, 0);
    if (now_ms() - begun > MT_SLOW_MS) {
        run->flags |= MT_SLOW;
    }
}

/* The sealed data in one piece: the memory of the only frame, or a copy of several. */
static uint8_t *joined(mt_fetcher *fetcher, zmq_msg_t *frames, int count) {
    if (count == 1) {
        return zmq.msg_data(frames); /* the memory of a message is that of its reader */
    }
    size_t done = 0;
    for (int i = 0; i < count; i++) {
        memcpy(fetcher->scratch + done, zmq.msg_data(&frames[i]), zmq.msg_size(&frames[i]));
        done += zmq.msg_size(&frames[i]);
    }
    return fetcher->scratch;
}

static uint64_t number_of(const uint8_t bytes[MT_NUMBER]) {
    uint64_t number = 0;
    for (int i = 0; i < MT_NUMBER; i++) {
        number = number << 8 | bytes[i];
    }
    return number;
}

/* Returns false if the source cannot have sent this. */
static bool open_head(line *on, zmq_msg_t *frames, uint8_t *head, size_t *length) {
    size_t sealed = zmq.msg_size(&frames[2]);
    if (zmq.msg_size(&frames[1]) != MT_NUMBER || sealed < MT_TAG || sealed > HEAD_MAX) {
        return false;
    }
    const uint8_t *number = zmq.msg_data(&frames[1]), *data = zmq.msg_data(&frames[2]);
    *length = sealed - MT_TAG;
    return number_of(number) >= on->number &&
           open_sealed(on->key, "head", number, on->before, on->before_length, data, *length, head);
}

static bool take_in(mt_fetcher *fetcher, line *on, zmq_msg_t *frames, int count, mt_event *event) {
    static const uint8_t signature[] = {'M', 'T', 1};
    uint8_t head[HEAD_MAX];
    size_t head_length = 0, total = 0;
    if (count <= HEAD_FRAMES || zmq.msg_size(&frames[0]) != sizeof signature ||
        memcmp(zmq.msg_data(&frames[0]), signature, sizeof signature) != 0) {
        return false;
    }
    for (int i = HEAD_FRAMES; i < count; i++) {
        total += zmq.msg_size(&frames[i]);
    }
    if (total < MT_TAG || total > DATA_MAX || !open_head(on, frames, head, &head_length)) {
        return false;
    }
    const uint8_t *number = zmq.msg_data(&frames[1]);
    event->size = total - MT_TAG;
    mt_target *target =
        read_head(head, head_length, event) ? target_of(fetcher, on, event) : NULL;
    uint8_t *data = joined(fetcher, frames + HEAD_FRAMES, count - HEAD_FRAMES), *out = data;
    if (target == NULL && (out = malloc(head_length + event->size + 1)) == NULL) {
        return false;
    }
    uint8_t *opened = target == NULL ? out + head_length : out;
    bool right = open_sealed(on->key, "data", number, NULL, 0, data, event->size, opened);
    if (target != NULL) {
        event->kind = MT_STORED;
        if (right) {
            store(fetcher, target, out, event);
        }
        leave(target);
        release(target);
    } else {
        memcpy(out, head, head_length);
        event->kind = MT_OPENED;
        event->count = (uint32_t)head_length;
        event->data = out;
    }
    on->number = number_of(number) + 1;
    memcpy(on->before, number, MT_NUMBER);
    on->before_length = MT_NUMBER;
    if (!right) {
        free(event->data);
        event->data = NULL;
    }
    return right;
}

/* Receive one message, if there is one. */
static bool receive(mt_fetcher *fetcher, line *on) {
    zmq_msg_t *frames = fetcher->frames;
    int count = 0, surplus = 0;
    mt_event event = {.line = on->id, .source_fd = -1};
    for (bool more = true; more;) {
        zmq_msg_t extra, *frame = count < FRAMES ? &frames[count] : &extra;
        zmq.msg_init(frame);
        if (zmq.msg_recv(frame, on->socket, ZMQ_DONTWAIT) < 0) {
            zmq.msg_close(frame);
            break; /* only at the first frame: the others come with it */
        }
        more = zmq.msg_more(frame);
        if (frame == &extra) {
            zmq.msg_close(&extra);
            surplus += 1;
        } else {
            count += 1;
        }
    }
    if (count == 0) {
        return false;
    }
    event.source_fd = zmq.msg_get(&frames[count - 1], ZMQ_SRCFD);
    if (surplus > 0 || !take_in(fetcher, on, frames, count, &event)) {
        on->broken = true;
        event = (mt_event){.kind = MT_BROKEN, .line = on->id, .source_fd = event.source_fd};
    }
    while (count > 0) {
        zmq.msg_close(&frames[--count]);
    }
    push(fetcher, &event);
    return true;
}

/* -- the thread ------------------------------------------------------------------------------- */

/* Release lines that ended; return the items to poll, the wake-up first. */
static bool arrange(mt_fetcher *fetcher, zmq_pollitem_t **items, line ***lines, int *count) {
    int total = 1;
    pthread_mutex_lock(&fetcher->lock);
    fetcher->changed = false;
    bool stopping = fetcher->stopping;
    for (line *at = fetcher->lines, *next; at != NULL; at = next) {
        next = at->next;
        if (at->ending && at->socket != NULL && fetcher->count < EVENTS_MAX) {
            mt_event event = {.kind = MT_RELEASED, .line = at->id, .source_fd = -1};
            fetcher->events[(fetcher->first + fetcher->count++) % EVENTS_MAX] = event;
            line_remove(fetcher, at);
        } else if (at->ending && at->socket != NULL) {
            fetcher->changed = true; /* again, when there is space for the event */
        } else {
            total += 1;
        }
    }
    *items = realloc(*items, (size_t)total * sizeof **items);
    *lines = realloc(*lines, (size_t)total * sizeof **lines);
    if (*items == NULL || *lines == NULL) {
        mt_fatal("no memory for the list of sockets");
    }
    (*items)[0] = (zmq_pollitem_t){NULL, fetcher->wake_fd, ZMQ_POLLIN, 0};
    *count = 1;
    for (line *at = fetcher->lines; at != NULL; at = at->next) {
        if (at->socket != NULL && !at->broken && !at->ending) {
            (*items)[*count] = (zmq_pollitem_t){at->socket, 0, ZMQ_POLLIN, 0};
            (*lines)[*count] = at;
            *count += 1;
        }
    }
    pthread_mutex_unlock(&fetcher->lock);
    return !stopping;
}

static void *run(void *argument) {
    mt_fetcher *fetcher = argument;
    zmq_pollitem_t *items = NULL;
    line **lines = NULL;
    int count = 0;
    while (arrange(fetcher, &items, &lines, &count)) {
        /* `unusable`: a socket, or the context of all, has ended. Then a change of lines is awaited:
           to poll them again would keep the thread busy. */
        bool changed = false, broken = false, unusable = false;
        while (!changed && !broken) {
            bool full = is_full(fetcher);
            long wait_ms = signal_events(fetcher);
            int polled = full || unusable ? 1 : count;
            if (full && (wait_ms < 0 || wait_ms > 10)) {
                wait_ms = 10;
            }
            if (zmq.poll(items, polled, wait_ms) < 0) {
                unusable = unusable || zmq.error() != EINTR;
                polled = 0; /* nothing is known of the items */
            }
            if (polled > 0 && (items[0].revents & ZMQ_POLLIN)) {
                uint64_t counter;
                while (read(fetcher->wake_fd, &counter, sizeof counter) < 0 && errno == EINTR) {
                }
            }
            for (int i = 1; i < polled; i++) {
                for (int n = 0; (items[i].revents & ZMQ_POLLIN) && n < IN_A_ROW; n++) {
                    if (!receive(fetcher, lines[i]) || lines[i]->broken) {
                        break;
                    }
                    signal_events(fetcher);
                }
                broken = broken || lines[i]->broken;
            }
            pthread_mutex_lock(&fetcher->lock);
            changed = fetcher->changed || fetcher->stopping;
            pthread_mutex_unlock(&fetcher->lock);
        }
    }
    free(items);
    free(lines);
    return NULL;
}

MT_API mt_fetcher *mt_fetcher_new(int event_fd, int pause_ms) {
    mt_fetcher *fetcher = calloc(1, sizeof *fetcher);
    if (fetcher == NULL) {
        return NULL;
    }
    pthread_mutex_init(&fetcher->lock, NULL);
    fetcher->event_fd = event_fd;
    fetcher->pause_ms = pause_ms;
    fetcher->events = calloc(EVENTS_MAX, sizeof *fetcher->events);
    fetcher->scratch = malloc(DATA_MAX);
    fetcher->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    /* Signals belong to Python's main thread. Not those of a fault here: a blocked one would end the
       process without a word of faulthandler. */
    sigset_t others, before;
    sigfillset(&others);
    sigdelset(&others, SIGSEGV);
    sigdelset(&others, SIGBUS);
    sigdelset(&others, SIGILL);
    sigdelset(&others, SIGFPE);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    bool made = fetcher->events != NULL && fetcher->scratch != NULL && fetcher->wake_fd >= 0 &&
                pthread_create(&fetcher->thread, NULL, run, fetcher) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!made) {
        if (fetcher->wake_fd >= 0) {
            close(fetcher->wake_fd);
        }
        free(fetcher->scratch);
        free(fetcher->events);
        free(fetcher);
        return NULL;
    }
    return fetcher;
}

MT_API int mt_fetcher_end(mt_fetcher *fetcher, int wait_ms) {
    pthread_mutex_lock(&fetcher->lock);
    fetcher->stopping = true;
    pthread_mutex_unlock(&fetcher->lock);
    notify(fetcher->wake_fd);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec += 1;
        until.tv_nsec -= 1000000000;
    }
    if (pthread_timedjoin_np(fetcher->thread, NULL, &until) != 0) {
        return EBUSY;
    }
    while (fetcher->lines != NULL) {
        line_remove(fetcher, fetcher->lines);
    }
    while (fetcher->count > 0) {
        free(fetcher->events[fetcher->first].data);
        fetcher->first = (fetcher->first + 1) % EVENTS_MAX;
        fetcher->count -= 1;
    }
    close(fetcher->wake_fd);
    free(fetcher->scratch);
    free(fetcher->events);
    pthread_mutex_destroy(&fetcher->lock);
    free(fetcher);
    return 0;
}

MT_API int mt_fetcher_busy_ms(mt_fetcher *fetcher) {
    int64_t since = atomic_load(&fetcher->busy_since_ms);
    return since == 0 ? 0 : (int)(now_ms() - since);
}
