/* nc_ticket.h: ends of channels on their way from one interpreter to another.  Touches nc_chan.h.
 *
 *             share()                     attach(): exactly one wins
 *    OPEN ----------------> ISSUED ------------------------------------> OPEN, in the interpreter that attached
 *             T1          in the table        T1
 *                              |  nobody has it any more
 *                              '---------------------------------------> LEFT
 *
 * A ticket holds a reference to its channel and one of the count of its side.  The table finds it by its token alone: a
 * token that was not issued leads nowhere.  Whoever takes a ticket out of the table owns it from then on, and makes an
 * endpoint of it, or has it leave the channel.
 *
 * The tickets are memory of whoever issues them, or takes them out.  Every function takes the table's lock, and calls
 * nothing meanwhile.
 */
#ifndef NC_TICKET_H
#define NC_TICKET_H

#include <string.h>

#include "nc_chan.h"

enum { NC_TOKEN = 16, NC_TICKET_BUCKETS = 64 };

/* Somebody who wrote copies of a ticket.  Memory of whoever writes, until it is linked; then the ticket's. */
typedef struct nc_ticket_writer {
    struct nc_ticket_writer *next;
    uint64_t home;                 /* who it is */
    uint32_t pickles;              /* copies that were written and not read yet */
} nc_ticket_writer;

typedef struct nc_ticket {
    unsigned char token[NC_TOKEN]; /* random; this paragraph is read-only once it is issued */
    nc_chan *chan;                 /* a reference, and one of chan->open[side] */
    int side;
    int kind;                      /* for whoever issued it: what kind of channel it is */
    uint32_t born;                 /* the generation of the process that issued it */

    struct nc_ticket *next;        /* in its bucket; from here on under the table's lock */
    uint32_t holders;              /* objects that stand for it, in whichever interpreter */
    nc_ticket_writer *writers;     /* each once */
} nc_ticket;

typedef struct nc_ticket_table {
    nc_lock lock;
    nc_ticket *bucket[NC_TICKET_BUCKETS];
    nc_ticket *reserved;           /* whose tokens are taken, but which lead nowhere yet */
} nc_ticket_table;

/* ---- within the lock ----------------------------------------------------------------------------------- */

/* Where the pointer to that ticket is, or would be.  The tokens are random, so any byte of them will do. */
static inline nc_ticket **nc_ticket_link(nc_ticket_table *table, const unsigned char *token)
{
    nc_ticket **link = &table->bucket[token[0] % NC_TICKET_BUCKETS];
    while (*link != NULL && memcmp((*link)->token, token, NC_TOKEN) != 0)
        link = &(*link)->next;
    return link;
}

static inline nc_ticket *nc_ticket_unlink(nc_ticket **link)
{
    nc_ticket *t = *link;
    if (t != NULL)
        *link = t->next;
    return t;
}

/* Where the pointer to a reserved ticket of that token is, or would be. */
static inline nc_ticket **nc_ticket_reserved(nc_ticket_table *table, const unsigned char *token)
{
    nc_ticket **link = &table->reserved;
    while (*link != NULL && memcmp((*link)->token, token, NC_TOKEN) != 0)
        link = &(*link)->next;
    return link;
}

/* Likewise a writer. */
static inline nc_ticket_writer **nc_ticket_writer_of(nc_ticket *t, uint64_t home)
{
    nc_ticket_writer **link = &t->writers;
    while (*link != NULL && (*link)->home != home)
        link = &(*link)->next;
    return link;
}

static inline bool nc_ticket_abandoned(const nc_ticket *t)
{
    for (const nc_ticket_writer *w = t->writers; w != NULL; w = w->next)
        if (w->pickles > 0)
            return false;
    return t->holders == 0;
}

/* ---- calls ------------------------------------------------------------------------------------------------ */

/* Take the token of a new ticket for it, which is not issued yet; false if another ticket has it. */
static inline bool nc_ticket_reserve(nc_ticket_table *table, nc_ticket *t)
{
    t->holders = 1;
    t->writers = NULL;
    nc_lock_enter(&table->lock);
    bool ours = *nc_ticket_link(table, t->token) == NULL && *nc_ticket_reserved(table, t->token) == NULL;
    if (ours) {
        t->next = table->reserved;
        table->reserved = t;
    }
    nc_lock_exit(&table->lock);
    return ours;
}

/* It is not going to be issued. */
static inline void nc_ticket_cancel(nc_ticket_table *table, nc_ticket *t)
{
    nc_lock_enter(&table->lock);
    nc_ticket_unlink(nc_ticket_reserved(table, t->token));
    nc_lock_exit(&table->lock);
}

/* Put a reserved ticket into the table.  Its end is counted in the channel already, and nobody uses it any more. */
static inline void nc_ticket_issue(nc_ticket_table *table, nc_ticket *t)
{
    nc_lock_enter(&table->lock);
    nc_ticket_unlink(nc_ticket_reserved(table, t->token));
    nc_ticket **link = &table->bucket[t->token[0] % NC_TICKET_BUCKETS];
    t->next = *link;
    *link = t;
    nc_lock_exit(&table->lock); /* T1 */
}

/* What a look at the table finds. */
typedef struct nc_ticket_seen {
    bool issued; /* it is there, */
    bool ours;   /* and of this process */
    int side, kind;
    nc_chan *chan; /* of one of ours */
} nc_ticket_seen;

/* `hold`: with a reference to the channel of a ticket of ours. */
static inline nc_ticket_seen nc_ticket_look(nc_ticket_table *table, const unsigned char *token, bool hold, uint32_t now)
{
    nc_ticket_seen seen = {.issued = false};
    nc_lock_enter(&table->lock); /* T1 */
    const nc_ticket *t = *nc_ticket_link(table, token);
    if (t != NULL)
        seen = (nc_ticket_seen){.issued = true, .ours = t->born == now, .side = t->side, .kind = t->kind};
    if (seen.ours)
        seen.chan = t->chan;
    if (seen.ours && hold)
        nc_chan_ref(t->chan);
    nc_lock_exit(&table->lock);
    return seen;
}

/* Take out a ticket of this process that was seen; NULL if it is not there any more. */
static inline nc_ticket *nc_ticket_take(nc_ticket_table *table, const unsigned char *token, nc_ticket_seen seen,
                                        uint32_t now)
{
    nc_lock_enter(&table->lock); /* T1 */
    nc_ticket **link = nc_ticket_link(table, token), *t = *link;
    bool same = t != NULL && t->born == now && t->chan == seen.chan && t->side == seen.side;
    t = same ? nc_ticket_unlink(link) : NULL;
    nc_lock_exit(&table->lock);
    return t;
}

/* Take it out, whoever holds it; NULL if it is not there. */
static inline nc_ticket *nc_ticket_revoke(nc_ticket_table *table, const unsigned char *token)
{
    nc_lock_enter(&table->lock); /* T1 */
    nc_ticket *t = nc_ticket_unlink(nc_ticket_link(table, token));
    nc_lock_exit(&table->lock);
    return t;
}

/* w->home writes a copy: it holds the ticket until it is read, or `home` ends.  Returns w if it is not used, for the
 * caller to free; else NULL. */
static inline nc_ticket_writer *nc_ticket_write(nc_ticket_table *table, const unsigned char *token, nc_ticket_writer *w)
{
    nc_lock_enter(&table->lock);
    nc_ticket *t = *nc_ticket_link(table, token);
    nc_ticket_writer **link = t != NULL ? nc_ticket_writer_of(t, w->home) : NULL, *mine = link != NULL ? *link : NULL;
    if (mine != NULL)
        mine->pickles++;
    else if (link != NULL) {
        w->next = NULL;
        w->pickles = 1;
        *link = w;
        w = NULL;
    }
    nc_lock_exit(&table->lock);
    return w;
}

/* A copy was read that `home` wrote: a further object stands for the ticket.  False if there is no ticket any more. */
static inline bool nc_ticket_read(nc_ticket_table *table, const unsigned char *token, uint64_t home)
{
    nc_lock_enter(&table->lock);
    nc_ticket *t = *nc_ticket_link(table, token);
    nc_ticket_writer *w = t != NULL ? *nc_ticket_writer_of(t, home) : NULL;
    if (t != NULL)
        t->holders++;
    if (w != NULL)
        w->pickles -= w->pickles > 0; /* the same copy may be read twice */
    nc_lock_exit(&table->lock);
    return t != NULL;
}

/* An object that stood for the ticket is gone.  If nobody holds the ticket now it is taken out; else NULL. */
static inline nc_ticket *nc_ticket_let_go(nc_ticket_table *table, const unsigned char *token)
{
    nc_lock_enter(&table->lock); /* T1 */
    nc_ticket **link = nc_ticket_link(table, token), *t = NULL;
    if (*link != NULL) {
        (*link)->holders--;
        if (nc_ticket_abandoned(*link))
            t = nc_ticket_unlink(link);
    }
    nc_lock_exit(&table->lock);
    return t;
}

/* The copies that `home` wrote are void.  Takes out one ticket that nobody holds now; NULL if there is none (left).
 * What is in *writers was unlinked, for the caller to free. */
static inline nc_ticket *nc_ticket_sweep(nc_ticket_table *table, uint64_t home, nc_ticket_writer **writers)
{
    nc_ticket *found = NULL;
    nc_lock_enter(&table->lock); /* T1 */
    for (int i = 0; i < NC_TICKET_BUCKETS && found == NULL; i++)
        for (nc_ticket **link = &table->bucket[i]; *link != NULL && found == NULL;) {
            nc_ticket_writer **its = nc_ticket_writer_of(*link, home), *w = *its;
            if (w != NULL) {
                *its = w->next;
                w->next = *writers;
                *writers = w;
            }
            if (nc_ticket_abandoned(*link))
                found = nc_ticket_unlink(link);
            else
                link = &(*link)->next;
        }
    nc_lock_exit(&table->lock);
    return found;
}

#endif
