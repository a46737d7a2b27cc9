/* Compiled only, as C11 and as C++17: every function of nexus_channels.h, used as its comment says. */
#include "nexus_channels.h"
#include "nexus_channels.h" /* twice does no harm */

int sends(const void *address);
int receives(const void *address);

int sends(const void *address)
{
    nexus_sender *tx;
    nexus_message batch[2] = {{"one", 3}, {"three", 5}};
    void *place;
    size_t sent;
    int result = nexus_attach_sender(address, &tx);
    if (result != NEXUS_OK)
        return result;
    if (nexus_max_message_size(tx) < 8 || nexus_used(tx) > nexus_max_message_size(tx))
        return NEXUS_TOO_LARGE;
    result |= nexus_try_send(tx, "one", 3) | nexus_send(tx, "two", 3, NEXUS_FOREVER);
    result |= nexus_send_many(tx, batch, 2, 1000, &sent);
    if (nexus_try_claim(tx, 8, &place) == NEXUS_OK || nexus_claim(tx, 8, 1000, &place) == NEXUS_OK)
        result |= nexus_commit(tx, 8) | nexus_commit_quiet(tx, 8) | nexus_flush(tx) | nexus_abort(tx);
    result |= nexus_sender_is_disconnected(tx);
    nexus_detach_sender(tx);
    return nexus_strerror(result)[0];
}

int receives(const void *address)
{
    nexus_receiver *rx;
    const void *data;
    char buffer[8];
    size_t n;
    int result = nexus_attach_receiver(address, &rx);
    if (nexus_try_peek(rx, &data, &n) == NEXUS_OK || nexus_peek(rx, &data, &n, 1000) == NEXUS_OK)
        result |= nexus_release(rx);
    result |= nexus_try_recv(rx, buffer, sizeof buffer, &n) | nexus_recv(rx, buffer, sizeof buffer, &n, NEXUS_FOREVER);
    result |= nexus_receiver_is_disconnected(rx);
    nexus_detach_receiver(rx);
    return result;
}

#ifdef __cplusplus
static_assert(NEXUS_FULL == 1, "an enum of the C language");
#else
_Static_assert(sizeof(nexus_sender) == 24 && offsetof(nexus_end, calls_size) == 12, "what every version checks");
_Static_assert(sizeof(nexus_calls) == 14 * sizeof(void *), "functions are added at the end, with a word in CHANGELOG");
#endif
