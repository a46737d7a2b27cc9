/* test_ticket.c: nc_ticket.h: every order of what may be done to a ticket, against a model of it; many in one table;
 * and threads that claim, drop and read the same one, of which exactly one comes by it. */
#include <stdint.h>
#include <string.h>

#include "nc_ticket.h"

#include <pthread.h>

#include "test.h"

enum { NOW = 3, HOMES = 2 };
static const uint64_t home[HOMES] = {7, 8};

static nc_ticket_table table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void named(nc_ticket *t, uint64_t number)
{
    memset(t, 0, sizeof *t);
    memcpy(t->token + 1, &number, sizeof number); /* all in one bucket */
    t->born = NOW;
}

static bool issued(const unsigned char *token) { return nc_ticket_look(&table, token, false, NOW).issued; }

static void issue(nc_ticket *t)
{
    CHECK(nc_ticket_reserve(&table, t));
    CHECK(!issued(t->token));
    nc_ticket_issue(&table, t);
}

/* Look, then take what was seen. */
static nc_ticket *take(const unsigned char *token, uint32_t now)
{
    return nc_ticket_take(&table, token, nc_ticket_look(&table, token, false, now), now);
}

/* Memory for writers, as much as any test needs at once: a writer that was not linked is there for the next. */
static nc_ticket_writer writers[16];
static int writers_used;

static void write_copy(const nc_ticket *t, int which)
{
    nc_ticket_writer *w = &writers[writers_used];
    *w = (nc_ticket_writer){.home = home[which]};
    nc_ticket_writer *left = nc_ticket_write(&table, t->token, w);
    CHECK(left == w || left == NULL);
    writers_used += left == NULL;
}

static bool is_empty(void)
{
    if (table.reserved != NULL)
        return false;
    for (int i = 0; i < NC_TICKET_BUCKETS; i++)
        if (table.bucket[i] != NULL)
            return false;
    return true;
}

/* ---- every order ------------------------------------------------------------------------------------------ */

enum { WRITE, READ = WRITE + HOMES, SWEEP = READ + HOMES, DROP = SWEEP + HOMES, TAKE, REVOKE, STEPS, LONGEST = 6 };

typedef struct model {
    bool there;
    uint32_t holders, pickles[HOMES];
} model;

static bool gives_up(model *m)
{
    bool gone = m->there && m->holders == 0 && m->pickles[0] == 0 && m->pickles[1] == 0;
    m->there = m->there && !gone;
    return gone;
}

static bool steps_once(model *m, nc_ticket *t, int step)
{
    nc_ticket *out = NULL;
    nc_ticket_writer *unlinked = NULL;
    bool want = false;
    int which = step % HOMES;
    if (step < READ) {
        write_copy(t, which);
        m->pickles[which] += m->there;
    } else if (step < SWEEP) {
        CHECK_EQ(nc_ticket_read(&table, t->token, home[which]), m->there);
        m->holders += m->there;
        m->pickles[which] -= m->there && m->pickles[which] > 0;
    } else if (step < DROP) {
        out = nc_ticket_sweep(&table, home[which], &unlinked);
        CHECK(unlinked == NULL || (unlinked->home == home[which] && unlinked->next == NULL));
        m->pickles[which] = 0;
        want = gives_up(m);
    } else if (step == DROP && m->holders > 0) {
        out = nc_ticket_let_go(&table, t->token);
        m->holders--;
        want = gives_up(m);
    } else if (step == TAKE || step == REVOKE) {
        out = step == TAKE ? take(t->token, NOW) : nc_ticket_revoke(&table, t->token);
        want = m->there;
        m->there = false;
    }
    CHECK(out == (want ? t : NULL));
    CHECK_EQ(issued(t->token), m->there);
    return checks_failed == 0;
}

static void every_order_does_what_the_model_says(void)
{
    for (uint32_t length = 1, all = STEPS; length <= LONGEST; length++, all *= STEPS)
        for (uint32_t order = 0; order < all; order++) {
            nc_ticket t;
            model m = {.there = true, .holders = 1};
            CASE("order %u of %u steps", (unsigned)order, (unsigned)length);
            named(&t, 1);
            issue(&t);
            writers_used = 0;
            uint32_t rest = order;
            for (uint32_t i = 0; i < length; i++, rest /= STEPS)
                if (!steps_once(&m, &t, (int)(rest % STEPS)))
                    return;
            nc_ticket_revoke(&table, t.token);
            CHECK(is_empty());
        }
}

/* ---- the table -------------------------------------------------------------------------------------------- */

static void of_many_in_one_bucket_each_is_found_and_taken_in_any_order(void)
{
    enum { MANY = 5, ORDERS = 120 };
    for (int order = 0; order < ORDERS; order++) {
        nc_ticket t[MANY];
        int left[MANY] = {0, 1, 2, 3, 4}, rest = order;
        CASE("order %d", order);
        for (int i = 0; i < MANY; i++) {
            named(&t[i], (uint64_t)i + 1);
            issue(&t[i]);
        }
        for (int n = MANY; n > 0; rest /= n, n--) {
            int at = rest % n, one = left[at];
            CHECK(take(t[one].token, NOW) == &t[one]);
            CHECK(take(t[one].token, NOW) == NULL);
            memmove(&left[at], &left[at + 1], (size_t)(n - 1 - at) * sizeof *left);
            for (int i = 0; i < n - 1; i++)
                CHECK(issued(t[left[i]].token));
        }
        CHECK(is_empty());
    }
}

static void a_token_that_differs_in_any_bit_leads_nowhere(void)
{
    nc_ticket t;
    unsigned char token[NC_TOKEN];
    named(&t, 0x1234567890);
    issue(&t);
    for (int bit = 0; bit < 8 * NC_TOKEN; bit++) {
        memcpy(token, t.token, NC_TOKEN);
        token[bit / 8] ^= (unsigned char)(1 << bit % 8);
        CASE("bit %d", bit);
        CHECK(!issued(token));
        CHECK(take(token, NOW) == NULL);
        CHECK(nc_ticket_revoke(&table, token) == NULL);
        CHECK(nc_ticket_let_go(&table, token) == NULL);
        CHECK(!nc_ticket_read(&table, token, home[0]));
        nc_ticket_writer w = {.home = home[0]};
        CHECK(nc_ticket_write(&table, token, &w) == &w);
    }
    CASE("itself");
    CHECK(nc_ticket_let_go(&table, t.token) == &t);
    CHECK(is_empty());
}

static void a_ticket_of_another_process_is_seen_and_not_taken(void)
{
    nc_ticket t;
    named(&t, 1);
    issue(&t);
    nc_ticket_seen seen = nc_ticket_look(&table, t.token, false, NOW + 1);
    CHECK(seen.issued && !seen.ours);
    CHECK(take(t.token, NOW + 1) == NULL);
    CHECK(nc_ticket_let_go(&table, t.token) == &t);
}

static void no_two_tickets_have_one_token(void)
{
    nc_ticket first, second;
    named(&first, 1);
    named(&second, 1);
    CHECK(nc_ticket_reserve(&table, &first));
    CHECK(!nc_ticket_reserve(&table, &second)); /* of one that is about to be issued, */
    nc_ticket_issue(&table, &first);
    CHECK(!nc_ticket_reserve(&table, &second)); /* and of one that was */
    CHECK(take(first.token, NOW) == &first);
    CHECK(nc_ticket_reserve(&table, &second));
    nc_ticket_cancel(&table, &second);
    CHECK(is_empty());
    CHECK(nc_ticket_reserve(&table, &first));
    nc_ticket_cancel(&table, &first);
}

static void a_ticket_is_taken_for_the_one_that_was_seen_alone(void)
{
    static nc_chan channel[2];
    nc_ticket t;
    for (int i = 0; i < 2; i++)
        atomic_store_explicit(&channel[i].refs, 1, memory_order_relaxed);
    named(&t, 1);
    t.chan = &channel[0];
    issue(&t);
    nc_ticket_seen seen = nc_ticket_look(&table, t.token, true, NOW);
    CHECK(seen.chan == &channel[0]);
    CHECK_EQ(atomic_load_explicit(&channel[0].refs, memory_order_relaxed), 2);
    CHECK(nc_ticket_revoke(&table, t.token) == &t);
    t.chan = &channel[1];
    issue(&t); /* another one, by the same token */
    CHECK(nc_ticket_take(&table, t.token, seen, NOW) == NULL);
    CHECK(take(t.token, NOW) == &t);
    CHECK(is_empty());
}

static void the_end_of_a_home_gives_up_what_its_copies_alone_hold(void)
{
    enum { MANY = 6 };
    nc_ticket t[MANY], *out;
    nc_ticket_writer *unlinked = NULL;
    int found = 0;
    writers_used = 0;
    for (int i = 0; i < MANY; i++) {
        named(&t[i], (uint64_t)i + 1);
        issue(&t[i]);
        write_copy(&t[i], i % 2);
        if (i == 5)
            write_copy(&t[i], 0); /* that of home 0 can be read when home 1 has ended */
        if (i >= 2)
            CHECK(nc_ticket_let_go(&table, t[i].token) == NULL);
    }
    while ((out = nc_ticket_sweep(&table, home[1], &unlinked)) != NULL) {
        CHECK(out == &t[3]);
        found++;
    }
    CHECK_EQ(found, 1);
    found = 0;
    for (; unlinked != NULL; unlinked = unlinked->next, found++)
        CHECK_EQ(unlinked->home, home[1]);
    CHECK_EQ(found, 3);
    CHECK(nc_ticket_read(&table, t[5].token, home[0]));
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(nc_ticket_revoke(&table, t[i].token) != NULL, i != 3);
}

/* ---- threads ---------------------------------------------------------------------------------------------- */

enum { ROUNDS = 20000, RACERS = 3 };
static nc_ticket raced[ROUNDS];
static uint64_t carried[ROUNDS]; /* plain: what the end did before it was shared; whoever comes by the ticket uses it */
static _Atomic int came_by[ROUNDS];

static void *race(void *which)
{
    for (int i = 0; i < ROUNDS; i++) {
        nc_ticket *t = &raced[i], *mine;
        if (which == NULL) { /* issues it, while the others look for it */
            carried[i]++;
            nc_ticket_reserve(&table, t);
            nc_ticket_issue(&table, t);
            mine = nc_ticket_let_go(&table, t->token);
        } else {
            for (mine = NULL; mine == NULL && atomic_load_explicit(&came_by[i], memory_order_relaxed) == 0;)
                mine = take(t->token, NOW);
        }
        if (mine != NULL) {
            carried[i]++;
            atomic_fetch_add_explicit(&came_by[i], 1, memory_order_relaxed);
        }
    }
    return NULL;
}

static void of_threads_that_claim_and_drop_one_exactly_one_comes_by_it(void)
{
    pthread_t threads[RACERS];
    static int names[RACERS];
    for (int i = 0; i < ROUNDS; i++)
        named(&raced[i], (uint64_t)i + 1);
    for (int i = 0; i < RACERS; i++)
        pthread_create(&threads[i], NULL, race, i == 0 ? NULL : &names[i]);
    for (int i = 0; i < RACERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < ROUNDS; i++) {
        CASE("round %d", i);
        CHECK_EQ(came_by[i], 1);
        CHECK_EQ(carried[i], 2);
    }
    CHECK(is_empty());
}

int main(void)
{
    RUN(every_order_does_what_the_model_says);
    RUN(of_many_in_one_bucket_each_is_found_and_taken_in_any_order);
    RUN(a_token_that_differs_in_any_bit_leads_nowhere);
    RUN(a_ticket_of_another_process_is_seen_and_not_taken);
    RUN(no_two_tickets_have_one_token);
    RUN(a_ticket_is_taken_for_the_one_that_was_seen_alone);
    RUN(the_end_of_a_home_gives_up_what_its_copies_alone_hold);
    RUN(of_threads_that_claim_and_drop_one_exactly_one_comes_by_it);
    return test_report();
}
