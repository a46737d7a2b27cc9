/* py_block.c: the blocks of channels of bytes, all of a process in one list.
 *
 * Threads without this GIL, native ones and those of other interpreters, may be in the middle of a commit when the
 * process forks.  In the child they are not there to finish it.  So a fork takes the lock of the list, and the child
 * goes through it (nc_log_after_fork).  Channels of objects are not listed: native threads do not come there.
 */
#include "py_block.h"

#ifdef _WIN32
void block_watch(void) {} /* no fork */
void block_list(nc_chan *block) { (void)block; }
static void unlist(nc_chan *block) { (void)block; }
#else
static nc_lock lock = PTHREAD_MUTEX_INITIALIZER; /* nothing else is taken within it */
static chan_block *first;

static void hold_list(void) { nc_lock_enter(&lock); }
static void let_list_go(void) { nc_lock_exit(&lock); }

static void settle_list(void)
{
    for (chan_block *b = first; b != NULL; b = b->after)
        nc_log_after_fork(b->chan.log);
    nc_lock_exit(&lock);
}

static void watch_list(void) { pthread_atfork(hold_list, let_list_go, settle_list); }

void block_watch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_list);
}

void block_list(nc_chan *block)
{
    chan_block *b = container_of(block, chan_block, chan);
    nc_lock_enter(&lock);
    b->before = NULL;
    b->after = first;
    if (first != NULL)
        first->before = b;
    first = b;
    nc_lock_exit(&lock);
}

static void unlist(nc_chan *block)
{
    chan_block *b = container_of(block, chan_block, chan);
    nc_lock_enter(&lock);
    if (b->before != NULL)
        b->before->after = b->after;
    else
        first = b->after;
    if (b->after != NULL)
        b->after->before = b->before;
    nc_lock_exit(&lock);
}
#endif

void block_free(nc_chan *block)
{
    if (block->lanes != NULL)
        block->lanes->owner->end(block->lanes);
    else if (nc_chan_of_bytes(block))
        unlist(block);
    nc_chan_destroy(block);
    PyMem_RawFree(block->memory);
}
