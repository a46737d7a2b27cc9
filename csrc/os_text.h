/* os_text.h: a ticket as a text, for a program that inherits its descriptors: what `for_subprocess()` writes in Python
 * (nexus_channels/_subprocess.py).  Touches os_parcel.h and system calls.
 *
 *     nxc1-NUMBERS-FD.INODE-FD.INODE       the numbers of a parcel as they lie in memory, in hexadecimal digits; then
 * its descriptors, the token first
 *
 * A descriptor is believed only if it can be inherited, and if it is the very file that the text names.
 */
#ifndef OS_TEXT_H
#define OS_TEXT_H

#include "os_parcel.h"

#if OS_HAS_LANES

/* What it says. */
typedef struct os_text {
    uint64_t numbers[OS_PARCEL_NUMBERS];
    struct os_text_named {
        int fd;
        ino_t ino;
    } token, end;
} os_text;

static inline int os_text_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The numbers, which end at a "-". */
static inline bool os_text_numbers(os_text *t, const char **at)
{
    unsigned char *to = (unsigned char *)t->numbers;
    for (size_t i = 0; i < sizeof t->numbers; i++, *at += 2) {
        int high = os_text_digit((*at)[0]), low = high >= 0 ? os_text_digit((*at)[1]) : -1;
        if (low < 0)
            return false;
        to[i] = (unsigned char)(high * 16 + low);
    }
    return *(*at)++ == '-';
}

/* A number, and that behind it; false if it is none, or too large. */
static inline bool os_text_decimal(const char **at, char end, uint64_t most, uint64_t *number)
{
    const char *begin = *at;
    for (*number = 0; **at >= '0' && **at <= '9'; ++*at) {
        uint64_t digit = (uint64_t)(**at - '0');
        if (*number > (most - digit) / 10)
            return false;
        *number = *number * 10 + digit;
    }
    return *at > begin && *(*at)++ == end;
}

/* FD.INODE */
static inline bool os_text_named_at(const char **at, char end, struct os_text_named *to)
{
    uint64_t fd, ino;
    if (!os_text_decimal(at, '.', INT32_MAX, &fd) || !os_text_decimal(at, end, UINT64_MAX, &ino))
        return false;
    *to = (struct os_text_named){.fd = (int)fd, .ino = (ino_t)ino};
    return true;
}

static inline bool os_text_parse(os_text *t, const char *text)
{
    static const char head[] = "nxc1-";
    if (strncmp(text, head, sizeof head - 1) != 0)
        return false;
    const char *at = text + sizeof head - 1;
    return os_text_numbers(t, &at) && os_text_named_at(&at, '-', &t->token) && os_text_named_at(&at, '\0', &t->end);
}

/* Was that descriptor passed to this process?  Only such a one can be inherited: whatever is opened here is closed on
 * exec, or at least does not have that inode. */
static inline bool os_text_was_passed(const struct os_text_named *named)
{
    struct stat file;
    int flags = fcntl(named->fd, F_GETFD);
    return flags >= 0 && !(flags & FD_CLOEXEC) && fstat(named->fd, &file) == 0 && file.st_ino == named->ino;
}

#endif
#endif
