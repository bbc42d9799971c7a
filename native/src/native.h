/* Compiled data path: the entry points that Python calls through ctypes.

   Every length, offset and descriptor comes from Python. Bytes from the network are looked at only
   after their seal was opened. Return values: 0 or a positive errno, unless stated otherwise. */
#ifndef MINI_TORRENT_NATIVE_H
#define MINI_TORRENT_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Raised by each change of this file that a caller can tell: 3 has mt_folder.
   Digest: 066e787755f5faee. Of the declarations, held by tests/unit/repo/test_interface.py. */
#define MT_ABI 3
#define MT_API __attribute__((visibility("default")))
#define MT_DIGEST 32
#define MT_KEY 16 /* of AEGIS-128L */
#define MT_TAG 32
#define MT_NUMBER 8

/* -- the library ------------------------------------------------------------------------------ */

MT_API int mt_abi(void);
/* Find ZeroMQ and AEGIS in shared objects that the process has loaded. Returns what was found. */
#define MT_HAS_ZMQ 1
#define MT_HAS_AEGIS 2
MT_API int mt_load(const char *zmq_path, const char *sodium_path);

/* -- digests ---------------------------------------------------------------------------------- */

/* Digest one piece: as content of its own (`digest`), and as the part of the whole that begins at
   `offset` (`place`); either may be NULL. `offset` is a multiple of the piece length. */
MT_API void mt_digest(const uint8_t *data, size_t length, uint64_t offset, uint8_t *digest,
                      uint8_t *place);
/* The same for `length` bytes of a file from `at`; ENODATA if the file ends before. */
MT_API int mt_digest_file(int fd, uint64_t at, size_t length, uint64_t offset, uint8_t *digest,
                          uint8_t *place);
/* The digest of a whole of at least two pieces, from the places of all of them. */
MT_API void mt_whole(const uint8_t *places, size_t pieces, uint8_t *digest);

/* -- files of a folder ------------------------------------------------------------------------ */

typedef struct mt_folder mt_folder;

/* The status of a file: times in nanoseconds modulo 64 bits. */
typedef struct {
    int64_t size, mtime_ns, ctime_ns;
    uint64_t inode;
} mt_print;
typedef struct {
    mt_print print;
    uint32_t mode; /* 0 if there is nothing, or it could not be looked at */
} mt_status;

/* The entries of a content. `names`: their paths, with a NUL between two; an empty one is left to
   Python. `times`: those that files get when their ends are written; NULL for none. `prints`: what files
   are compared with before and after they are read; NULL: each must be plain, with one name.
   Files of at least `reserved_from` bytes have their full size when they are written to. Everything
   is copied. NULL if there is no memory, or if the names do not fit. */
MT_API mt_folder *mt_folder_new(const char *names, size_t length, uint32_t entries,
                                const uint64_t *sizes, const int64_t *times,
                                const mt_print *prints, uint64_t reserved_from);
MT_API void mt_folder_free(mt_folder *folder);
/* Work through a range of the stream, beneath the folder that is open as `fd`. Returns the bytes
   before the first file that is left to Python. `any_made`: whether a file or folder is new. */
MT_API size_t mt_folder_read(const mt_folder *folder, int fd, uint64_t offset, uint8_t *data,
                             size_t length);
MT_API size_t mt_folder_write(const mt_folder *folder, int fd, uint64_t offset,
                              const uint8_t *data, size_t length, bool *any_made);
/* The status of all entries. */
MT_API void mt_folder_look(const mt_folder *folder, int fd, mt_status *found);

/* Of the library alone: all of a range, or an errno; ENODATA if the file ends before. */
int mt_read_all(int fd, uint8_t *data, size_t length, uint64_t at);
int mt_write_all(int fd, const uint8_t *data, size_t length, uint64_t at);

/* -- fetching --------------------------------------------------------------------------------- */

typedef struct mt_fetcher mt_fetcher;
typedef struct mt_target mt_target;

enum { MT_STORED = 1, MT_OPENED, MT_BROKEN, MT_RELEASED };

/* What happened on a line. `size`: bytes of the data. `wrong`: a bit for each piece of the run that
   failed its digest. `error`: errno of the write. `data`: of MT_OPENED, to be freed by mt_free. */
typedef struct {
    uint32_t kind, line, channel, first, count;
    int32_t error, source_fd;
    uint32_t flags;
    uint64_t size, wrong;
    uint8_t *data;
} mt_event;

#define MT_TRUNCATED 1 /* the file was found shorter than it was made */
#define MT_SLOW 2      /* the write took more than MT_SLOW_MS */
#define MT_SLOW_MS 250
#define MT_RUN_MAX 64 /* pieces of one message that are stored here; others are handed on */

/* `event_fd` is written when events wait, at most every `pause_ms` while messages arrive. */
MT_API mt_fetcher *mt_fetcher_new(int event_fd, int pause_ms);
/* End the thread. EBUSY if it did not end within `wait_ms`: nothing is freed then. */
MT_API int mt_fetcher_end(mt_fetcher *fetcher, int wait_ms);
/* Milliseconds for which the thread has been in one write; 0 if it is in none. */
MT_API int mt_fetcher_busy_ms(mt_fetcher *fetcher);
MT_API size_t mt_fetcher_events(mt_fetcher *fetcher, mt_event *events, size_t most);
MT_API void mt_free(void *data);

/* The file of a download. `digests` is copied; `places` (32 bytes a piece) belongs to Python and
   stays until the target is closed; NULL for none. */
MT_API mt_target *mt_target_new(int fd, uint64_t size, uint32_t piece_length, uint32_t pieces,
                                const uint8_t *digests, uint8_t *places);
/* Wait for a write that is under way, and write nothing more. */
MT_API void mt_target_close(mt_target *target);
/* Close it, and free it when no channel has it. */
MT_API void mt_target_free(mt_target *target);

/* A line is one bulk connection. It takes over `socket` with mt_line_start, until MT_RELEASED. */
MT_API uint32_t mt_line_new(mt_fetcher *fetcher);
MT_API int mt_line_start(mt_fetcher *fetcher, uint32_t line, void *socket, const uint8_t *key);
MT_API void mt_line_end(mt_fetcher *fetcher, uint32_t line);
/* Pieces that were requested on a channel of a line, and are written to `target` when they come. */
MT_API int mt_line_expect(mt_fetcher *fetcher, uint32_t line, uint32_t channel, mt_target *target,
                          const uint32_t *pieces, size_t count);
MT_API void mt_line_forget(mt_fetcher *fetcher, uint32_t line, uint32_t channel,
                           const uint32_t *pieces, size_t count);
MT_API void mt_line_close_channel(mt_fetcher *fetcher, uint32_t line, uint32_t channel);

/* Read ["Pieces", channel, first, count] as MessagePack; 0 for any other form, which is left to
   Python. The thread does the same with opened heads; this is for tests. */
MT_API int mt_read_head(const uint8_t *head, size_t length, uint32_t run[3]);

/* -- serving ---------------------------------------------------------------------------------- */

typedef struct mt_block mt_block;
typedef struct mt_sealer mt_sealer;

/* Memory for a message of `size` bytes and its tag; NULL if there is none. */
MT_API mt_block *mt_block_new(size_t size);
MT_API uint8_t *mt_block_data(mt_block *block);
MT_API void mt_block_free(mt_block *block);
MT_API mt_sealer *mt_sealer_new(const uint8_t *key);
MT_API void mt_sealer_free(mt_sealer *sealer);
/* Seal `length` bytes of a block in place and send them in frames of `frame_bytes`, after the head.
   0: the bytes are sealed now, and the caller only frees the block. EAGAIN or EHOSTUNREACH: nothing
   was sealed. */
MT_API int mt_send(mt_sealer *sealer, void *socket, const uint8_t *routing_id, size_t id_length,
                   const uint8_t *signature, size_t signature_length, const uint8_t *head,
                   size_t head_length, mt_block *block, size_t length, size_t frame_bytes);

#endif
