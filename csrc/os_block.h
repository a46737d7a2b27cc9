/* os_block.h: the memory of a lane: made, sealed, checked, mapped.  Touches nc_lane.h, os_bell.h and system calls.
 *
 *     file     | page: the block | ring: capacity bytes |
 *     mapped   | page: the block | ring: capacity bytes | the ring once more |     a record may run on past the end
 *
 * Linux: a file without a name (memfd), so it goes with its last user, and the size of /dev/shm does not matter.  Its
 * pages are taken when it is made, so a lack of memory shows then, and is no signal later.  More than the machine has
 * is refused before: Linux would try, and kill processes to get it.  It is sealed against shrinking, else whoever
 * holds it could cut it off under the other, who would die of SIGBUS.  All this is checked by the guest, who was given
 * the file by somebody it does not trust.
 *
 * Elsewhere, behind the same three calls: macOS has shm_open() with shm_unlink() at once, and no seals, so there a
 * guest has to trust the host with its life; Windows has CreateFileMapping() without a name, which cannot shrink. Where
 * a file cannot be mapped twice in a row, it has to hold a spill of `capacity` bytes behind the ring.
 */
#ifndef OS_BLOCK_H
#define OS_BLOCK_H

#include "nc_lane.h"
#include "os_bell.h"

#if OS_HAS_LANES

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* Of Linux 6.3; older ones refuse it. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum { OS_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

typedef struct os_block {
    nc_lane_block *block;
    _Atomic uint64_t *words;
    uint64_t capacity;
    uint64_t length; /* of the mapping, bytes */
} os_block;

/* Where the ring begins in the file.  Host and guest are on one machine, so they agree on it. */
static inline uint64_t os_block_page(void) { return (uint64_t)sysconf(_SC_PAGESIZE); }

/* The capacity for a wish: whole pages, a power of two, as much of it as can be mapped; or 0 if that is too much. */
static inline uint64_t os_block_round(uint64_t wish)
{
    uint64_t page = os_block_page(), capacity = nc_log_round(wish > page ? wish : page);
    return capacity <= (SIZE_MAX - page) / 4 && capacity <= INT64_MAX / 4 ? capacity : 0;
}

static inline bool os_block_map_at(char *at, uint64_t length, int protection, int fd, uint64_t offset)
{
    return mmap(at, (size_t)length, protection, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) != MAP_FAILED;
}

/* Map the file of that capacity, the records for reading alone unless `writes`.  A child of fork() does not get it. If
 * this fails, *b is empty, so nobody unmaps what another thread has mapped there since. */
static inline os_result os_block_map(os_block *b, int fd, uint64_t capacity, bool writes)
{
    uint64_t page = os_block_page(), length = page + 2 * capacity;
    int protection = writes ? PROT_READ | PROT_WRITE : PROT_READ;
    *b = (os_block){0};
    char *base = mmap(NULL, (size_t)length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return OS_SYSTEM;
    bool mapped = os_block_map_at(base, page, PROT_READ | PROT_WRITE, fd, 0) &&
                  os_block_map_at(base + page, capacity, protection, fd, page) &&
                  os_block_map_at(base + page + capacity, capacity, protection, fd, page) &&
                  madvise(base, (size_t)length, MADV_DONTFORK) == 0;
    if (mapped) {
        *b = (os_block){(nc_lane_block *)(void *)base, (_Atomic uint64_t *)(void *)(base + page), capacity, length};
        return OS_OK;
    }
    int why = errno;
    munmap(base, (size_t)length);
    errno = why;
    return OS_SYSTEM;
}

static inline void os_block_unmap(os_block *b)
{
    munmap(b->block, (size_t)b->length);
    *b = (os_block){0};
}

/* ---- whoever makes it --------------------------------------------------------------------------------- */

/* All memory that the machine has, in bytes. */
static inline uint64_t os_block_memory(void)
{
    struct sysinfo has;
    return sysinfo(&has) != 0 ? UINT64_MAX : ((uint64_t)has.totalram + has.totalswap) * has.mem_unit;
}

/* Could the machine ever have so much? */
static inline bool os_block_fits(uint64_t size) { return size <= os_block_memory(); }

/* All pages of the file, a piece at a time: a signal undoes the piece that it comes into, so all at once might never
 * get done where a timer sends signals.  0, or why not, as posix_fallocate(). */
static inline int os_block_fill(int fd, uint64_t size)
{
    const uint64_t piece = UINT64_C(1) << 20;
    int why = 0;
    for (uint64_t at = 0; at < size && why == 0; at += piece) {
        uint64_t left = size - at;
        while ((why = posix_fallocate(fd, (off_t)at, (off_t)(left < piece ? left : piece))) == EINTR)
            ;
    }
    return why;
}

/* A file of that size, with all its pages, closed on exec. */
static inline os_result os_block_file(uint64_t size, int *fd)
{
    if (!os_block_fits(size)) {
        errno = ENOMEM;
        return OS_SYSTEM;
    }
    *fd = memfd_create("nexus-lane", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (*fd < 0 && errno == EINVAL)
        *fd = memfd_create("nexus-lane", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return OS_SYSTEM;
    int why = os_block_fill(*fd, size);
    if (why == 0)
        return OS_OK;
    close(*fd);
    errno = why;
    return OS_SYSTEM;
}

/* Make a lane of `capacity`, as os_block_round() gives it, and map it.  *fd is for the other process; the mapping does
 * not need it. */
static inline os_result os_block_make(os_block *b, uint64_t capacity, bool writes, int *fd)
{
    os_result result = os_block_file(os_block_page() + capacity, fd);
    if (result != OS_OK)
        return result;
    NC_STEP("block_make: made, not mapped");
    result = os_block_map(b, *fd, capacity, writes);
    if (result == OS_OK) {
        nc_lane_init(b->block, capacity, 0);
        if (fcntl(*fd, F_ADD_SEALS, OS_SEALS) == 0)
            return OS_OK;
        result = OS_SYSTEM;
        os_block_unmap(b);
    }
    int why = errno;
    close(*fd);
    errno = why;
    return result;
}

/* ---- whoever is given it ------------------------------------------------------------------------------ */

/* What a fault of the block is called here. */
static inline os_result os_block_fault(nc_lane_fault fault)
{
    switch (fault) {
    case NC_LANE_SOUND:
        return OS_OK;
    case NC_LANE_OTHER_LAYOUT:
        return OS_WRONG_VERSION;
    case NC_LANE_OTHER_CAPACITY:
        return OS_WRONG_SIZE;
    case NC_LANE_BAD_POSITIONS:
        return OS_GARBLED;
    case NC_LANE_NO_LANE:
        break;
    }
    return OS_NO_LANE;
}

/* Map what is said to be a lane of `capacity`: sealed, as large as that, and a lane of this layout. */
static inline os_result os_block_open(os_block *b, int fd, uint64_t capacity, bool writes)
{
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & OS_SEALS) != OS_SEALS)
        return OS_NO_SEALS;
    if (capacity == 0 || capacity != os_block_round(capacity))
        return OS_WRONG_SIZE;
    if (fstat(fd, &status) != 0)
        return OS_SYSTEM;
    if ((uint64_t)status.st_size != os_block_page() + capacity)
        return OS_WRONG_SIZE;
    os_result result = os_block_map(b, fd, capacity, writes);
    if (result != OS_OK)
        return result;
    NC_STEP("block_open: mapped, not checked");
    result = os_block_fault(nc_lane_check(b->block, capacity));
    if (result != OS_OK)
        os_block_unmap(b);
    return result;
}

#endif
#endif
