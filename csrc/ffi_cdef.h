/* What nexus_channels.native declares to cffi: the functions of nexus_channels.h, documented there, and constants,
 * which stay `...`: the compiler knows them, and checks that they exist. */

#define NC_CACHE_LINE ...
#define NEXUS_FOREVER ...

typedef enum nexus_result {
    NEXUS_OK,
    NEXUS_FULL,
    NEXUS_EMPTY,
    NEXUS_TIMEOUT,
    NEXUS_DISCONNECTED,
    NEXUS_TOO_LARGE,
    NEXUS_ZERO_LENGTH,
    NEXUS_BUSY,
    NEXUS_NO_CLAIM,
    NEXUS_BAD_HANDLE,
    NEXUS_BAD_VERSION,
    NEXUS_FORKED,
    NEXUS_NO_RECEIVER,
    NEXUS_TAKEN,
    NEXUS_FOREIGN,
    NEXUS_BAD_PEER,
    NEXUS_BAD_TICKET,
    NEXUS_SYSTEM,
    ...
} nexus_result;

typedef struct nexus_sender nexus_sender;
typedef struct nexus_receiver nexus_receiver;
typedef struct nexus_message {
    const void *data;
    size_t size;
} nexus_message;

const char *nexus_strerror(int result);
int nexus_attach_sender(const void *address, nexus_sender **tx);
int nexus_attach_receiver(const void *address, nexus_receiver **rx);
void nexus_detach_sender(nexus_sender *tx);
void nexus_detach_receiver(nexus_receiver *rx);

size_t nexus_max_message_size(const nexus_sender *tx);
size_t nexus_used(const nexus_sender *tx);
int nexus_send(nexus_sender *tx, const void *data, size_t n, int64_t timeout);
int nexus_try_send(nexus_sender *tx, const void *data, size_t n);
int nexus_send_many(nexus_sender *tx, const nexus_message *messages, size_t count, int64_t timeout, size_t *sent);
int nexus_claim(nexus_sender *tx, size_t n, int64_t timeout, void **place);
int nexus_try_claim(nexus_sender *tx, size_t n, void **place);
int nexus_commit(nexus_sender *tx, size_t n);
int nexus_commit_quiet(nexus_sender *tx, size_t n);
int nexus_flush(nexus_sender *tx);
int nexus_abort(nexus_sender *tx);
int nexus_sender_is_disconnected(const nexus_sender *tx);

int nexus_peek(nexus_receiver *rx, const void **data, size_t *n, int64_t timeout);
int nexus_try_peek(nexus_receiver *rx, const void **data, size_t *n);
int nexus_release(nexus_receiver *rx);
int nexus_recv(nexus_receiver *rx, void *buffer, size_t size, size_t *n, int64_t timeout);
int nexus_try_recv(nexus_receiver *rx, void *buffer, size_t size, size_t *n);
int nexus_receiver_is_disconnected(const nexus_receiver *rx);
