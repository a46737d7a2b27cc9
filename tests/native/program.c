/* program.c: a program without Python at one end of a channel between processes, for tests: its arguments are steps,
 * and each prints a line, what it was and how it went.
 *
 *     program connect:PATH[:MS] | listen:PATH:CAPACITY:MANY | sender:TEXT | receiver:TEXT   STEP...
 */
#define _GNU_SOURCE
#include "nexus_processes.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static nexus_sender *tx;
static nexus_receiver *rx;

#define MILLISECOND INT64_C(1000000)

static void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

/* What stands behind the n-th colon; "" if there are not so many. */
static const char *argument(const char *step, int n)
{
    for (; n > 0 && step != NULL; n--)
        step = (step = strchr(step, ':')) != NULL ? step + 1 : NULL;
    return step != NULL ? step : "";
}

static long number(const char *step, int n) { return atol(argument(step, n)); }

static int64_t timeout_of(const char *step, int n)
{
    const char *text = argument(step, n);
    return *text != '\0' ? atol(text) * MILLISECOND : NEXUS_FOREVER;
}

/* ---- opening ------------------------------------------------------------------------------------------------ */

static int open_one(const char *how, nexus_sender **sender, nexus_receiver **receiver)
{
    char path[4096];
    const char *from = argument(how, 1), *colon = strchr(from, ':');
    if (strncmp(how, "sender:", 7) == 0)
        return nexus_inherit_sender(from, sender);
    if (strncmp(how, "receiver:", 9) == 0)
        return nexus_inherit_receiver(from, receiver);
    snprintf(path, sizeof path, "%.*s", (int)(colon != NULL ? colon - from : (long)strlen(from)), from);
    if (strncmp(how, "connect:", 8) == 0)
        return nexus_connect(path, timeout_of(how, 2), sender);
    return nexus_listen(path, (size_t)number(how, 2), (int)number(how, 3), receiver);
}

/* An end that is open stays, if this fails. */
static void open_end(const char *how)
{
    nexus_sender *sender = NULL;
    nexus_receiver *receiver = NULL;
    errno = 0;
    int result = open_one(how, &sender, &receiver);
    say("open %d %d", result, result == NEXUS_SYSTEM ? errno : 0);
    if ((result == NEXUS_OK) != (sender != NULL || receiver != NULL))
        abort();
    tx = sender != NULL ? sender : tx;
    rx = receiver != NULL ? receiver : rx;
}

static void detach(void)
{
    nexus_detach_sender(tx);
    nexus_detach_receiver(rx);
    tx = NULL;
    rx = NULL;
}

/* ---- sending ------------------------------------------------------------------------------------------------ */

static int put_by_claim(uint64_t value, int quiet)
{
    void *place;
    int result = nexus_claim(tx, sizeof value + 8, NEXUS_FOREVER, &place);
    if (result != NEXUS_OK)
        return result;
    memcpy(place, &value, sizeof value);
    return quiet ? nexus_commit_quiet(tx, sizeof value) : nexus_commit(tx, sizeof value);
}

static int put_many(uint64_t from, uint64_t n)
{
    uint64_t values[32];
    nexus_message messages[32];
    size_t sent;
    for (uint64_t i = 0; i < n; i++) {
        values[i] = from + i;
        messages[i] = (nexus_message){&values[i], sizeof values[i]};
    }
    return nexus_send_many(tx, messages, (size_t)n, NEXUS_FOREVER, &sent);
}

/* numbers:COUNT:HOW */
static void numbers(const char *step)
{
    uint64_t count = (uint64_t)number(step, 1), i = 0;
    const char *how = argument(step, 2);
    int result = NEXUS_OK;
    while (i < count && result == NEXUS_OK) {
        if (how[0] == 'm') {
            uint64_t n = count - i < 32 ? count - i : 32;
            result = put_many(i, n);
            i += n;
            continue;
        }
        result = how[0] == 'c'   ? put_by_claim(i, 0)
                 : how[0] == 'q' ? put_by_claim(i, 1)
                                 : nexus_send(tx, &i, sizeof i, NEXUS_FOREVER);
        i += result == NEXUS_OK;
    }
    if (how[0] == 'q')
        nexus_flush(tx);
    say("numbers %" PRIu64 " %d", i, result);
}

static void fill(void)
{
    uint64_t i = 0;
    int result;
    while ((result = nexus_try_send(tx, &i, sizeof i)) == NEXUS_OK)
        i++;
    say("fill %" PRIu64 " %d", i, result);
}

/* ---- receiving ---------------------------------------------------------------------------------------------- */

/* Until the end; of each message the first 8 bytes are a number, and are expected in order. */
static void total(int by_peek)
{
    uint64_t value = 0, expected = 0, wrong = 0;
    size_t size;
    const void *data;
    char buffer[65536];
    int result;
    for (;; expected++) {
        result = by_peek ? nexus_peek(rx, &data, &size, NEXUS_FOREVER)
                         : nexus_recv(rx, buffer, sizeof buffer, &size, NEXUS_FOREVER);
        if (result != NEXUS_OK)
            break;
        memcpy(&value, by_peek ? data : buffer, size < sizeof value ? size : sizeof value);
        wrong += value != expected;
        if (by_peek)
            nexus_release(rx);
    }
    say("total %" PRIu64 " wrong %" PRIu64 " %d crashed %d", expected, wrong, result, nexus_receiver_crashed(rx));
}

static void count(void)
{
    char buffer[65536];
    uint64_t n = 0;
    size_t size;
    int result;
    while ((result = nexus_recv(rx, buffer, sizeof buffer, &size, NEXUS_FOREVER)) == NEXUS_OK)
        n++;
    say("count %" PRIu64 " %d crashed %d", n, result, nexus_receiver_crashed(rx));
}

static void take(const char *step)
{
    char buffer[65536] = "";
    size_t size;
    int result = nexus_recv(rx, buffer, number(step, 2) > 0 ? (size_t)number(step, 2) : sizeof buffer, &size,
                            timeout_of(step, 1));
    say("take %d %zu%s%.*s", result, size, result == NEXUS_OK ? " " : "", result == NEXUS_OK ? (int)size : 0, buffer);
}

static void peek(const char *step)
{
    const void *data;
    size_t size;
    int result = nexus_peek(rx, &data, &size, timeout_of(step, 1));
    int again = result == NEXUS_OK ? nexus_try_peek(rx, &data, &size) : NEXUS_OK; /* it is open */
    int released = result == NEXUS_OK ? nexus_release(rx) : NEXUS_OK;
    say("peek %d %d %d %d", result, again, released, nexus_release(rx));
}

/* Wait as an event loop does, and take all that there is, until the end. */
static void poll_all(void)
{
    struct pollfd ready = {.fd = nexus_receiver_fd(rx), .events = POLLIN};
    char buffer[65536];
    size_t size;
    uint64_t n = 0, polls = 0;
    int result;
    for (;;) {
        while ((result = nexus_try_recv(rx, buffer, sizeof buffer, &size)) == NEXUS_OK)
            n++;
        if (result != NEXUS_EMPTY)
            break;
        if (nexus_watch_receiver(rx) == NEXUS_EMPTY) {
            polls++;
            poll(&ready, 1, -1);
        }
    }
    say("polled %" PRIu64 " %d slept %d", n, result, polls > 0);
}

/* The same for sending. */
static void poll_numbers(const char *step)
{
    struct pollfd ready = {.fd = nexus_sender_fd(tx), .events = POLLIN};
    uint64_t n = (uint64_t)number(step, 1), i = 0, polls = 0;
    int result = NEXUS_OK;
    while (i < n && (result == NEXUS_OK || result == NEXUS_FULL)) {
        result = nexus_try_send(tx, &i, sizeof i);
        i += result == NEXUS_OK;
        if (result == NEXUS_FULL && nexus_watch_sender(tx, sizeof i) == NEXUS_FULL) {
            polls++;
            poll(&ready, 1, -1);
        }
    }
    say("polled %" PRIu64 " %d slept %d", i, result, polls > 0);
}

/* ---- the process -------------------------------------------------------------------------------------------- */

static int descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int n = -1; /* its own */
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n - 2; /* . and .. */
}

/* What a forked child is told, and that it leaves the parent alone. */
static void fork_child(int beside)
{
    char byte = 'x';
    size_t size;
    void *place;
    pid_t child = fork();
    if (child == 0) {
        int sent =
            tx != NULL ? nexus_send(tx, &byte, 1, NEXUS_FOREVER) : nexus_recv(rx, &byte, 1, &size, NEXUS_FOREVER);
        int claimed = tx != NULL ? nexus_claim(tx, 1, NEXUS_FOREVER, &place) : nexus_release(rx);
        int fd = tx != NULL ? nexus_sender_fd(tx) : nexus_receiver_fd(rx);
        detach();
        say("child %d %d %d fds %d", sent, claimed, fd, descriptors());
        if (beside)
            _exit(0); /* what the thread had, of which there is no copy, is no leak */
        exit(0);
    }
    waitpid(child, NULL, 0);
    say("forked");
}

static _Atomic pid_t other;

static void *wait_in_thread(void *unused)
{
    char buffer[64];
    size_t size;
    atomic_store_explicit(&other, (pid_t)syscall(SYS_gettid), memory_order_release);
    int result = nexus_recv(rx, buffer, sizeof buffer, &size, NEXUS_FOREVER);
    say("thread %d", result);
    return unused;
}

/* Is the other thread asleep within the call? */
static int other_sleeps(void)
{
    char path[64], call[16] = "";
    pid_t tid = atomic_load_explicit(&other, memory_order_acquire);
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)tid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return tid != 0; /* a kernel that does not tell */
    int sleeps = fgets(call, sizeof call, file) != NULL && call[0] != 'r' && atol(call) == SYS_ppoll;
    fclose(file);
    return sleeps;
}

/* A child forked while another thread waits in a call: the thread goes on in the parent alone. */
static void fork_beside(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, wait_in_thread, NULL);
    while (!other_sleeps())
        sched_yield();
    fork_child(1);
    pthread_join(thread, NULL);
}

static void *connect_in_thread(void *path)
{
    atomic_store_explicit(&other, (pid_t)syscall(SYS_gettid), memory_order_release);
    int result = nexus_connect(path, NEXUS_FOREVER, &tx);
    say("connected %d", result);
    return NULL;
}

/* A child forked while another thread connects, and that lives on until it is killed. */
static void fork_connecting(void)
{
    static char path[] = "feed";
    pthread_t thread;
    pthread_create(&thread, NULL, connect_in_thread, path);
    while (!other_sleeps())
        sched_yield();
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    say("forked %d", (int)child);
    pthread_join(thread, NULL);
}

/* No descriptor above so many is given any more. */
static void limit(long most)
{
    struct rlimit to;
    getrlimit(RLIMIT_NOFILE, &to);
    to.rlim_cur = (rlim_t)most;
    say("limit %d", setrlimit(RLIMIT_NOFILE, &to));
}

static void read_line(void)
{
    char line[16];
    if (fgets(line, sizeof line, stdin) == NULL)
        _exit(3);
    say("read");
}

static int misuse(void)
{
    char byte = 'x';
    void *place;
    int results[8] = {nexus_commit(tx, 1),           nexus_abort(tx),
                      nexus_send(tx, &byte, 0, 0),   nexus_send(tx, &byte, nexus_max_message_size(tx) + 1, 0),
                      nexus_claim(tx, 8, 0, &place), nexus_send(tx, &byte, 1, 0),
                      nexus_commit(tx, 9),           nexus_abort(tx)};
    for (int i = 0; i < 8; i++)
        printf("%d ", results[i]);
    say("misuse %zu", nexus_max_message_size(tx));
    return 0;
}

static void step_of_sender(const char *step)
{
    char big[65536];
    void *place;
    if (strncmp(step, "send:", 5) == 0) {
        const char *text = argument(step, 1);
        size_t length = strcspn(text, ":");
        say("send %d", nexus_send(tx, text, length, timeout_of(step, 2)));
    } else if (strncmp(step, "big:", 4) == 0) {
        memset(big, 'b', sizeof big);
        say("big %d", nexus_send(tx, big, (size_t)number(step, 1), timeout_of(step, 2)));
    } else if (strncmp(step, "numbers:", 8) == 0)
        numbers(step);
    else if (strncmp(step, "poll:", 5) == 0)
        poll_numbers(step);
    else if (strcmp(step, "fill") == 0)
        fill();
    else if (strcmp(step, "claim") == 0)
        say("claim %d", nexus_claim(tx, 64, 0, &place));
    else if (strcmp(step, "misuse") == 0)
        misuse();
    else if (strcmp(step, "gone") == 0) { /* until that is told */
        char byte = 'x';
        int result;
        while ((result = nexus_send(tx, &byte, 1, NEXUS_FOREVER)) == NEXUS_OK)
            ;
        say("gone %d crashed %d disconnected %d", result, nexus_sender_crashed(tx), nexus_sender_is_disconnected(tx));
    } else
        say("unknown step %s", step);
}

static void step_of_receiver(const char *step)
{
    if (strncmp(step, "take", 4) == 0)
        take(step);
    else if (strncmp(step, "peek", 4) == 0)
        peek(step);
    else if (strcmp(step, "total") == 0)
        total(0);
    else if (strcmp(step, "total_peek") == 0)
        total(1);
    else if (strcmp(step, "count") == 0)
        count();
    else if (strcmp(step, "poll") == 0)
        poll_all();
    else if (strcmp(step, "stop") == 0)
        say("stop %d", nexus_stop_listening(rx));
    else if (strcmp(step, "disconnected") == 0)
        say("disconnected %d crashed %d", nexus_receiver_is_disconnected(rx), nexus_receiver_crashed(rx));
    else
        say("unknown step %s", step);
}

static void step_of_any(const char *step)
{
    if (strcmp(step, "read") == 0)
        read_line();
    else if (strcmp(step, "fds") == 0)
        say("fds %d", descriptors());
    else if (strcmp(step, "detach") == 0)
        detach();
    else if (strcmp(step, "fork") == 0)
        fork_child(0);
    else if (strcmp(step, "fork_beside") == 0)
        fork_beside();
    else if (strcmp(step, "fork_connecting") == 0)
        fork_connecting();
    else if (strncmp(step, "limit:", 6) == 0)
        limit(number(step, 1));
    else if (strcmp(step, "kill") == 0)
        raise(SIGKILL);
    else if (strcmp(step, "_exit") == 0)
        _exit(0);
    else if (strncmp(step, "open:", 5) == 0)
        open_end(step + 5);
    else if (tx != NULL)
        step_of_sender(step);
    else
        step_of_receiver(step);
}

int main(int argc, char **argv)
{
    open_end(argv[1]);
    for (int i = 2; i < argc; i++)
        step_of_any(argv[i]);
    return 0; /* the end is not detached: exit() closes it */
}
