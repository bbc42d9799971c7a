/* Files of a folder, worked through without a return to Python for each.

   A table has the entries of one content in the order of its stream. Each call takes a range of that
   stream file by file, and stops at the first one that needs anything but the usual: a link, another
   kind of file, an error, a file system that refuses a flag. It returns the bytes before that file,
   and Python goes on there, with its own checks and words. So this has no error of its own.

   Invariant: each file is opened from the handle of the folder above it, no link is followed, and no
   name is "..": nothing outside the folder is reached. */
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
/* O_NONBLOCK: a FIFO in the place of a file must not hold the thread. */
#define PLAIN (O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
#define SECOND_NS INT64_C(1000000000)

struct mt_folder {
    uint32_t entries;
    uint64_t reserved_from;
    char **paths, *names; /* the paths are in the memory of `names` */
    uint64_t *ends;       /* of each entry in the stream */
    int64_t *times;       /* NULL: files get none */
    mt_print *prints;     /* NULL: files are not compared */
};

/* A folder beneath the top, kept open as long as the next file is in it. */
typedef struct {
    int top, fd;
    const char *path;
    size_t length;
} place;

MT_API void mt_folder_free(mt_folder *folder) {
    free(folder->paths);
    free(folder->names);
    free(folder->ends);
    free(folder->times);
    free(folder->prints);
    free(folder);
}

static void *copy_of(const void *data, size_t entries, size_t size, bool *short_of) {
    if (data == NULL) {
        return NULL;
    }
    void *copy = calloc(entries + 1, size);
    if (copy == NULL) {
        *short_of = true;
    } else {
        memcpy(copy, data, entries * size);
    }
    return copy;
}

MT_API mt_folder *mt_folder_new(const char *names, size_t length, uint32_t entries,
                                const uint64_t *sizes, const int64_t *times,
                                const mt_print *prints, uint64_t reserved_from) {
    mt_folder *folder = calloc(1, sizeof *folder);
    if (folder == NULL) {
        return NULL;
    }
    bool short_of = false;
    folder->entries = entries;
    folder->reserved_from = reserved_from;
    folder->paths = calloc((size_t)entries + 1, sizeof *folder->paths);
    folder->names = malloc(length + 1);
    folder->ends = copy_of(sizes, entries, sizeof *sizes, &short_of);
    folder->times = copy_of(times, entries, sizeof *times, &short_of);
    folder->prints = copy_of(prints, entries, sizeof *prints, &short_of);
    if (short_of || folder->paths == NULL || folder->names == NULL || folder->ends == NULL) {
        mt_folder_free(folder);
        return NULL;
    }
    memcpy(folder->names, names, length);
    folder->names[length] = 0;
    size_t at = 0;
    for (uint32_t i = 0; i < entries; i++) {
        if (at > length || (i > 0 && __builtin_add_overflow(folder->ends[i], folder->ends[i - 1],
                                                            &folder->ends[i]))) {
            mt_folder_free(folder);
            return NULL;
        }
        folder->paths[i] = folder->names + at;
        at += strlen(folder->names + at) + 1;
    }
    if (entries > 0 && at != length + 1) { /* a name with a NUL, or names that are too many */
        mt_folder_free(folder);
        return NULL;
    }
    return folder;
}

/* -- the way to a file ------------------------------------------------------------------------ */

static bool is_name(const char *name, size_t length) {
    return length > 0 && length <= NAME_MAX && !(name[0] == '.' && length == 1) &&
           !(name[0] == '.' && name[1] == '.' && length == 2);
}

static void leave(place *at) {
    if (at->fd >= 0 && at->fd != at->top) {
        close(at->fd);
    }
    at->fd = -1;
}

static int step_into(int fd, const char *name, bool make) {
    int next = openat(fd, name, FOLDER);
    if (next < 0 && errno == ENOENT && make) {
        if (mkdirat(fd, name, 0777) == 0 || errno == EEXIST) { /* another thread was faster */
            next = openat(fd, name, FOLDER);
        }
    }
    return next;
}

/* Open the folder at the first `length` bytes of a path; false if that cannot be done. */
static bool enter(place *at, const char *path, size_t length, bool make) {
    if (at->fd >= 0 && at->length == length && memcmp(at->path, path, length) == 0) {
        return true;
    }
    leave(at);
    int fd = at->top;
    for (size_t done = 0; done < length;) {
        const char *slash = memchr(path + done, '/', length - done);
        size_t size = slash == NULL ? length - done : (size_t)(slash - path) - done;
        char name[NAME_MAX + 1];
        int next = -1;
        if (is_name(path + done, size)) {
            memcpy(name, path + done, size);
            name[size] = 0;
            next = step_into(fd, name, make);
        }
        if (fd != at->top) {
            close(fd);
        }
        if (next < 0) {
            return false;
        }
        fd = next;
        done += size + 1;
    }
    *at = (place){at->top, fd, path, length};
    return true;
}

/* The name of an entry in the folder that is entered for it; NULL if that cannot be done. */
static const char *reach(place *at, const char *path, bool make) {
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    bool empty = slash != NULL && (slash == path || slash[-1] == '/'); /* a name before it */
    bool there = !empty && is_name(name, strlen(name)) &&
                 enter(at, path, slash == NULL ? 0 : (size_t)(slash - path), make);
    return there ? name : NULL;
}

int mt_read_all(int fd, uint8_t *data, size_t length, uint64_t at) {
    while (length > 0) {
        ssize_t count = pread(fd, data, length, (off_t)at);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return count < 0 ? errno : ENODATA;
        }
        data += count;
        at += (uint64_t)count;
        length -= (size_t)count;
    }
    return 0;
}

int mt_write_all(int fd, const uint8_t *data, size_t length, uint64_t at) {
    while (length > 0) {
        ssize_t count = pwrite(fd, data, length, (off_t)at);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return count < 0 ? errno : EIO;
        }
        data += count;
        at += (uint64_t)count;
        length -= (size_t)count;
    }
    return 0;
}

/* -- one file --------------------------------------------------------------------------------- */

static int64_t in_ns(struct timespec time) { /* modulo 64 bits, as Python keeps it */
    return (int64_t)((uint64_t)time.tv_sec * (uint64_t)SECOND_NS + (uint64_t)time.tv_nsec);
}

static mt_print print_of(const struct stat *status) {
    return (mt_print){status->st_size, in_ns(status->st_mtim), in_ns(status->st_ctim),
                      status->st_ino};
}

/* Without `expected`: an only name of a plain file, as files of a part are. */
static bool is_right(int fd, const mt_print *expected) {
    struct stat status;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        return false;
    }
    mt_print found = print_of(&status);
    return expected == NULL ? status.st_nlink <= 1
                            : memcmp(&found, expected, sizeof found) == 0;
}

static bool read_file(int fd, const mt_print *expected, uint64_t at, uint8_t *data, size_t length) {
    return is_right(fd, expected) && mt_read_all(fd, data, length, at) == 0 &&
           (expected == NULL || is_right(fd, expected));
}

static int open_to_write(int folder, const char *name, uint64_t least, bool *made) {
    int fd = openat(folder, name, O_RDWR | O_CREAT | O_EXCL | PLAIN, 0666);
    *made = fd >= 0;
    struct stat status;
    /* Looked at first, because merely opening some devices has effects. */
    if (fd >= 0 || errno != EEXIST || fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(status.st_mode)) {
        return fd;
    }
    fd = openat(folder, name, O_RDWR | PLAIN);
    if (fd >= 0 && (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_nlink > 1 ||
                    (uint64_t)status.st_size < least)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void set_time(int fd, int64_t time_ns) { /* times of manifests are not below 0 */
    const struct timespec times[2] = {
        {.tv_nsec = UTIME_OMIT},
        {.tv_sec = time_ns / SECOND_NS, .tv_nsec = time_ns % SECOND_NS},
    };
    (void)futimens(fd, times); /* the check at the end sees a time that was refused */
}

/* -- a range of the stream -------------------------------------------------------------------- */

static uint32_t entry_at(const mt_folder *folder, uint64_t offset) {
    uint32_t low = 0, high = folder->entries; /* the first entry that ends behind it */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (folder->ends[middle] <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

typedef struct {
    uint32_t entry;
    uint64_t at, size; /* the place in the file, and the size of that file */
    size_t length;
} segment;

/* The segment at `offset` of at most `left` bytes; false behind the last one. */
static bool segment_at(const mt_folder *folder, uint64_t offset, size_t left, segment *found) {
    uint32_t entry = entry_at(folder, offset);
    if (entry == folder->entries || left == 0) {
        return false;
    }
    uint64_t end = folder->ends[entry], start = entry == 0 ? 0 : folder->ends[entry - 1];
    uint64_t rest = end - offset;
    *found = (segment){entry, offset - start, end - start, rest < left ? (size_t)rest : left};
    return true;
}

MT_API size_t mt_folder_read(const mt_folder *folder, int fd, uint64_t offset, uint8_t *data,
                             size_t length) {
    place at = {.top = fd, .fd = -1};
    size_t done = 0;
    for (segment one; segment_at(folder, offset + done, length - done, &one);) {
        const char *name = reach(&at, folder->paths[one.entry], false);
        int file = name == NULL ? -1 : openat(at.fd, name, O_RDONLY | PLAIN);
        if (file < 0) {
            break;
        }
        const mt_print *expected = folder->prints == NULL ? NULL : &folder->prints[one.entry];
        bool right = read_file(file, expected, one.at, data + done, one.length);
        close(file);
        if (!right) {
            break;
        }
        done += one.length;
    }
    leave(&at);
    return done;
}

MT_API size_t mt_folder_write(const mt_folder *folder, int fd, uint64_t offset,
                              const uint8_t *data, size_t length, bool *any_made) {
    place at = {.top = fd, .fd = -1};
    size_t done = 0;
    *any_made = false;
    for (segment one; segment_at(folder, offset + done, length - done, &one);) {
        const char *name = reach(&at, folder->paths[one.entry], true);
        /* A file that was made with its full size and is shorter now: Python has to know. */
        uint64_t least = one.size >= folder->reserved_from ? one.size : 0;
        bool made = false;
        int file = name == NULL ? -1 : open_to_write(at.fd, name, least, &made);
        *any_made = *any_made || made;
        if (file < 0) {
            break;
        }
        bool written = !(made && least > 0) &&
                       mt_write_all(file, data + done, one.length, one.at) == 0;
        if (written && folder->times != NULL && one.at + one.length == one.size) {
            set_time(file, folder->times[one.entry]);
        }
        close(file);
        if (!written) {
            break;
        }
        done += one.length;
    }
    leave(&at);
    return done;
}

MT_API void mt_folder_look(const mt_folder *folder, int fd, mt_status *found) {
    place at = {.top = fd, .fd = -1};
    for (uint32_t i = 0; i < folder->entries; i++) {
        struct stat status;
        const char *name = reach(&at, folder->paths[i], false);
        found[i] = (mt_status){.mode = 0};
        if (name != NULL && fstatat(at.fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
            found[i] = (mt_status){print_of(&status), status.st_mode};
        }
    }
    leave(&at);
}
