/* lines.c: a program without Python that sends the lines of files to a receiver in another process, or that receives
 * lines and writes them to a file.  lines.py builds and runs it, with Python at the other end.
 *
 *     include=$(python -c 'import nexus_channels as n; print(n.get_include())')
 *     cc -std=c11 -O2 -pthread -I"$include" lines.c "$include/nexus_processes.c" -o lines
 *
 *     ./lines send SOCKET FILE...       to whoever listens at the path SOCKET, in Python or in C
 *     ./lines archive SOCKET FILE       listen there, until the sender that comes has closed or died
 */
#define _POSIX_C_SOURCE 200809L
#include "nexus_processes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Say why a call has failed; 1, for main() to return. */
static int failed(const char *what, int result)
{
    const char *why = result == NEXUS_SYSTEM ? strerror(errno) : nexus_strerror(result);
    fprintf(stderr, "lines: %s: %s\n", what, why);
    return 1;
}

/* ---- send ------------------------------------------------------------------------------------------------------- */

static int send_lines(nexus_sender *tx, const char *path, size_t *sent)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    int result = NEXUS_OK;
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return NEXUS_SYSTEM;
    while (result == NEXUS_OK && (n = getline(&line, &room, file)) > 0) {
        result = nexus_send(tx, line, (size_t)n, NEXUS_FOREVER); /* waits while the channel is full */
        *sent += result == NEXUS_OK;
    }
    free(line);
    fclose(file);
    return result;
}

static int send_files(const char *socket, char **files)
{
    nexus_sender *tx;
    size_t sent = 0;
    int result = nexus_connect(socket, INT64_C(60000000000), &tx); /* a minute: until the receiver looks */
    if (result != NEXUS_OK)
        return failed(socket, result);
    for (; *files != NULL && result == NEXUS_OK; files++)
        result = send_lines(tx, *files, &sent);
    if (result == NEXUS_DISCONNECTED && nexus_sender_crashed(tx))
        fprintf(stderr, "lines: the receiver has died\n");
    nexus_detach_sender(tx); /* the receiver gets what is left, and then the end */
    printf("sent %zu lines\n", sent);
    return result == NEXUS_OK ? 0 : failed(files[-1], result);
}

/* ---- archive ---------------------------------------------------------------------------------------------------- */

/* Until the end; each line is written from where it lies. */
static int write_lines(nexus_receiver *rx, FILE *file, size_t *received)
{
    const void *data;
    size_t n;
    int result;
    while ((result = nexus_peek(rx, &data, &n, NEXUS_FOREVER)) == NEXUS_OK) {
        if (*received == 0)
            nexus_stop_listening(rx); /* the sender is here: when it is gone, that is the end */
        *received += fwrite(data, n, 1, file);
        nexus_release(rx);
    }
    return result;
}

static int archive(const char *socket, const char *path)
{
    nexus_receiver *rx;
    size_t received = 0;
    int result = nexus_listen(socket, 1 << 16, 0, &rx);
    if (result != NEXUS_OK)
        return failed(socket, result);
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return failed(path, NEXUS_SYSTEM); /* main() returns, which closes the end */
    puts("listening");
    fflush(stdout);
    result = write_lines(rx, file, &received);
    int crashed = nexus_receiver_crashed(rx);
    nexus_detach_receiver(rx);
    if (fclose(file) != 0)
        return failed(path, NEXUS_SYSTEM);
    printf("received %zu lines%s\n", received, crashed ? "; the sender has died, so this may not be all" : "");
    return result == NEXUS_DISCONNECTED ? 0 : failed(socket, result);
}

int main(int argc, char **argv)
{
    if (argc > 3 && strcmp(argv[1], "send") == 0)
        return send_files(argv[2], argv + 3);
    if (argc == 4 && strcmp(argv[1], "archive") == 0)
        return archive(argv[2], argv[3]);
    fprintf(stderr, "usage: lines send SOCKET FILE... | lines archive SOCKET FILE\n");
    return 2;
}
