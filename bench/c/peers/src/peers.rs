//! The crates' queues. Each is a few closures: open, push an item, pop an item. The loops over them are written once
//! and compiled for each.

use std::array;
use std::hint::black_box;
use std::sync::{Arc, Mutex};

use crossbeam_queue::ArrayQueue;
use nexus_logbuf::queue as logbuf;
use ringbuf::HeapRb;
use ringbuf::traits::{Consumer as _, Producer as _, Split as _};
use rtrb::RingBuffer;
use thingbuf::ThingBuf;

use crate::queue::{BURST, Contender, Kind, LARGEST, PRODUCERS, Queue, Wait, item};

// ---- the loops ------------------------------------------------------------------------------------------------------

/// The ends of a queue, to be taken by the threads that use them.
struct Ends<P, C> {
    producers: [Mutex<Option<P>>; PRODUCERS],
    consumer: Mutex<Option<C>>,
}

/// Works with an end, on this thread's stack: there a crate's own positions are not beside those of another thread.
#[inline(always)]
fn with<T, R>(place: &Mutex<Option<T>>, work: impl FnOnce(&mut T) -> R) -> R {
    let mut end = place.lock().unwrap().take().expect("an end is used by one thread at a time");
    let result = work(&mut end);
    *place.lock().unwrap() = Some(end);
    result
}

struct Peer<P, C, Push, Pop, Whole> {
    go: Ends<P, C>,
    back: Ends<P, C>,
    push: Push,
    pop: Pop,
    whole: Whole,
}

/// An end lies in memory, as one does that a function was given. Else the compiler could keep an end's positions in
/// registers from one turn of a loop to the next, which it can for a crate's, and cannot for ours.
impl<P, C, Push, Pop, Whole> Peer<P, C, Push, Pop, Whole>
where
    Push: Fn(&mut P, u64) -> bool,
    Pop: Fn(&mut C) -> Option<u64>,
{
    #[inline(always)]
    fn push(&self, tx: &mut P, item: u64) -> bool {
        (self.push)(black_box(tx), item)
    }

    #[inline(always)]
    fn pop(&self, rx: &mut C) -> Option<u64> {
        (self.pop)(black_box(rx))
    }

    /// The next item; None if it does not come.
    #[inline(always)]
    fn next(&self, rx: &mut C, wait: &Wait, spins: &mut u32) -> Option<u64> {
        loop {
            match self.pop(rx) {
                None if wait.again(spins) => {}
                found => return found,
            }
        }
    }
}

impl<P, C, Push, Pop, Whole> Queue for Peer<P, C, Push, Pop, Whole>
where
    P: Send,
    C: Send,
    Push: Fn(&mut P, u64) -> bool + Sync,
    Pop: Fn(&mut C) -> Option<u64> + Sync,
    Whole: Fn(&mut C) -> bool + Sync,
{
    fn pair(&self, n: u64) -> u64 {
        with(&self.go.producers[0], |tx| {
            with(&self.go.consumer, |rx| {
                let mut sum = 0u64;
                for i in 1..=n {
                    if !self.push(tx, i) {
                        return 0;
                    }
                    sum = sum.wrapping_add(self.pop(rx).unwrap_or(0));
                }
                sum
            })
        })
    }

    fn burst(&self, n: u64) -> u64 {
        with(&self.go.producers[0], |tx| {
            with(&self.go.consumer, |rx| {
                let (mut sum, mut i) = (0u64, 1);
                while i <= n {
                    for _ in 0..BURST {
                        if !self.push(tx, i) {
                            return 0;
                        }
                        i += 1;
                    }
                    for _ in 0..BURST {
                        sum = sum.wrapping_add(self.pop(rx).unwrap_or(0));
                    }
                }
                sum
            })
        })
    }

    fn produce(&self, producer: usize, first: u64, n: u64, wait: &Wait) -> u64 {
        with(&self.go.producers[producer], |tx| {
            let (first, mut spins) = (item(producer, first), 0);
            for i in 0..n {
                while !self.push(tx, first + i) {
                    if !wait.again(&mut spins) {
                        return i;
                    }
                }
            }
            n
        })
    }

    fn consume(&self, n: u64, wait: &Wait) -> u64 {
        with(&self.go.consumer, |rx| {
            let (mut sum, mut spins) = (0u64, 0);
            for _ in 0..n {
                sum = sum.wrapping_add(match self.next(rx, wait, &mut spins) {
                    Some(item) => item,
                    None => return 0,
                });
            }
            sum
        })
    }

    fn collect(&self, items: &mut [u64], wait: &Wait) -> usize {
        with(&self.go.consumer, |rx| {
            let mut spins = 0;
            for (i, place) in items.iter_mut().enumerate() {
                *place = match self.next(rx, wait, &mut spins) {
                    Some(item) => item,
                    None => return i,
                };
                if !(self.whole)(rx) {
                    return i;
                }
            }
            items.len()
        })
    }

    fn ping(&self, n: u64, wait: &Wait) -> u64 {
        with(&self.go.producers[0], |tx| {
            with(&self.back.consumer, |rx| {
                let (mut sum, mut spins) = (0u64, 0);
                for i in 1..=n {
                    if !self.push(tx, i) {
                        return 0;
                    }
                    sum = sum.wrapping_add(match self.next(rx, wait, &mut spins) {
                        Some(item) => item,
                        None => return 0,
                    });
                }
                sum
            })
        })
    }

    fn pong(&self, n: u64, wait: &Wait) -> u64 {
        with(&self.go.consumer, |rx| {
            with(&self.back.producers[0], |tx| {
                let mut spins = 0;
                for i in 0..n {
                    let item = match self.next(rx, wait, &mut spins) {
                        Some(item) => item,
                        None => return i,
                    };
                    if !self.push(tx, item) {
                        return i;
                    }
                }
                n
            })
        })
    }
}

// ---- a contender from its closures ----------------------------------------------------------------------------------

/// `open` makes the producers, as many as there may be, and the consumer. `whole` says whether the message that was
/// popped last arrived as it was sent.
fn contender<P, C, Open, Push, Pop, Whole>(
    (name, kind): (&str, Kind),
    open: Open,
    push: Push,
    pop: Pop,
    whole: Whole,
) -> Contender
where
    P: Send + 'static,
    C: Send + 'static,
    Open: Fn(usize, usize) -> Option<(Vec<P>, C)> + 'static,
    Push: Fn(&mut P, u64) -> bool + Sync + Copy + 'static,
    Pop: Fn(&mut C) -> Option<u64> + Sync + Copy + 'static,
    Whole: Fn(&mut C) -> bool + Sync + Copy + 'static,
{
    let producers = [1024, FILLED].iter().filter_map(|&capacity| open(capacity, 8)).map(|ends| ends.0.len()).max();
    Contender {
        name: name.to_owned(),
        ours: false,
        kind,
        producers: producers.expect("there is a capacity that the queue is made for"),
        open: Box::new(move |capacity, size| {
            let ends = || {
                let (producers, consumer) = open(capacity, size)?;
                let mut producers = producers.into_iter();
                Some(Ends {
                    producers: array::from_fn(|_| Mutex::new(producers.next())),
                    consumer: Mutex::new(Some(consumer)),
                })
            };
            Some(Box::new(Peer { go: ends()?, back: ends()?, push, pop, whole }) as Box<dyn Queue>)
        }),
    }
}

/// A queue of items by value, each the size of a pointer.
fn objects<P: Send + 'static, C: Send + 'static>(
    name: &str,
    open: impl Fn(usize) -> Option<(Vec<P>, C)> + 'static,
    push: impl Fn(&mut P, u64) -> bool + Sync + Copy + 'static,
    pop: impl Fn(&mut C) -> Option<u64> + Sync + Copy + 'static,
) -> Contender {
    contender((name, Kind::Objects), move |capacity, _| open(capacity), push, pop, |_| true)
}

/// An end of a queue of bytes, and the message to send or the one received.
struct Bytes<T> {
    end: T,
    size: usize,
    message: Message,
}

#[repr(align(64))]
struct Message([u8; LARGEST]);

impl<T> Bytes<T> {
    /// All but the first word of each message is the same.
    fn sender(end: T, size: usize) -> Self {
        Self { end, size, message: Message(array::from_fn(|i| i as u8 ^ 0x5a)) }
    }

    fn receiver(end: T, size: usize) -> Self {
        Self { end, size, message: Message([0; LARGEST]) }
    }

    #[inline(always)]
    fn stamp(&mut self, item: u64) {
        self.message.0[..8].copy_from_slice(&item.to_ne_bytes());
    }

    #[inline(always)]
    fn stamped(&self) -> u64 {
        word(&self.message.0)
    }

    /// Was all of the message received? Then wipe it, for the next.
    fn whole(&mut self) -> bool {
        let rest = &mut self.message.0[8..self.size];
        let same = rest.iter().zip(8..).all(|(&byte, i)| byte == i as u8 ^ 0x5a);
        rest.fill(0);
        same
    }
}

#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes[..8].try_into().unwrap())
}

// ---- objects --------------------------------------------------------------------------------------------------------

/// The capacity of a queue that is filled while nobody consumes.
pub const FILLED: usize = 1 << 16;

/// As many handles as there are producers.
fn twice<P: Clone, C>((producer, consumer): (P, C)) -> Option<(Vec<P>, C)> {
    Some((vec![producer; PRODUCERS], consumer))
}

fn once<P, C>((producer, consumer): (P, C)) -> Option<(Vec<P>, C)> {
    Some((vec![producer], consumer))
}

/// A queue that all threads share.
fn shared<T>(queue: T) -> Option<(Vec<Arc<T>>, Arc<T>)> {
    let queue = Arc::new(queue);
    twice((Arc::clone(&queue), queue))
}

/// One for each capacity that is asked for, as it is part of the type.
fn heapless_mpmc<const N: usize>() -> Contender {
    objects(
        "heapless mpmc",
        |capacity| (capacity == N).then(heapless::mpmc::Queue::<u64, N>::default).and_then(shared),
        |queue, item| queue.enqueue(item).is_ok(),
        |queue| queue.dequeue(),
    )
}

fn of_objects() -> Vec<Contender> {
    vec![
        objects(
            "nexus-queue spsc",
            |capacity| once(nexus_queue::spsc::ring_buffer::<u64>(capacity)),
            |tx, item| tx.push(item).is_ok(),
            |rx| rx.pop(),
        ),
        objects(
            "nexus-queue mpsc",
            |capacity| twice(nexus_queue::mpsc::ring_buffer::<u64>(capacity)),
            |tx, item| tx.push(item).is_ok(),
            |rx| rx.pop(),
        ),
        objects(
            "rtrb",
            |capacity| once(RingBuffer::<u64>::new(capacity)),
            |tx, item| tx.push(item).is_ok(),
            |rx| rx.pop().ok(),
        ),
        objects(
            "ringbuf",
            |capacity| once(HeapRb::<u64>::new(capacity).split()),
            |tx, item| tx.try_push(item).is_ok(),
            |rx| rx.try_pop(),
        ),
        objects(
            "heapless spsc", // holds one item less; leaked, as its ends borrow it
            |capacity| {
                (capacity == 1024)
                    .then(|| Box::leak(Box::new(heapless::spsc::Queue::<u64, 1024>::new())).split())
                    .and_then(once)
            },
            |tx, item| tx.enqueue(item).is_ok(),
            |rx| rx.dequeue(),
        ),
        heapless_mpmc::<1024>(),
        heapless_mpmc::<FILLED>(),
        objects(
            "crossbeam-queue ArrayQueue",
            |capacity| shared(ArrayQueue::<u64>::new(capacity)),
            |queue, item| queue.push(item).is_ok(),
            |queue| queue.pop(),
        ),
        objects(
            "crossbeam-channel",
            |capacity| twice(crossbeam_channel::bounded::<u64>(capacity)),
            |tx, item| tx.try_send(item).is_ok(),
            |rx| rx.try_recv().ok(),
        ),
        objects(
            "kanal",
            |capacity| twice(kanal::bounded::<u64>(capacity)),
            |tx, item| tx.try_send(item) == Ok(true),
            |rx| rx.try_recv().ok().flatten(),
        ),
        objects(
            "thingbuf",
            |capacity| shared(ThingBuf::<u64>::new(capacity)),
            |queue, item| queue.push(item).is_ok(),
            |queue| queue.pop(),
        ),
        objects(
            "omango spsc",
            |capacity| once(omango::queue::spsc::bounded::<u64>(capacity as u32)),
            |tx, item| tx.try_send(item).is_ok(),
            |rx| rx.try_recv().ok(),
        ),
        objects(
            "omango mpmc",
            |capacity| twice(omango::queue::mpmc::bounded::<u64>(capacity as u32)),
            |tx, item| tx.try_send(item).is_ok(),
            |rx| rx.try_recv().ok(),
        ),
    ]
}

// ---- bytes, and claims ----------------------------------------------------------------------------------------------

/// Both kinds of nexus-logbuf have the same methods, but no trait.
macro_rules! logbuf_bytes {
    ($name:expr, $kind:ident, $ends:ident) => {
        contender(
            ($name, Kind::Bytes),
            |capacity, size| {
                let (producers, consumer) = $ends(logbuf::$kind::new(capacity))?;
                let producers = producers.into_iter().map(|producer| Bytes::sender(producer, size)).collect();
                Some((producers, Bytes::receiver(consumer, size)))
            },
            |tx, item| {
                tx.stamp(item);
                let Ok(mut claim) = tx.end.try_claim(tx.size) else { return false };
                claim.copy_from_slice(&tx.message.0[..tx.size]);
                claim.commit();
                true
            },
            |rx| {
                let claim = rx.end.try_claim()?;
                rx.message.0[..claim.len()].copy_from_slice(&claim);
                drop(claim);
                Some(rx.stamped())
            },
            |rx| rx.whole(),
        )
    };
}

macro_rules! logbuf_claims {
    ($name:expr, $kind:ident, $ends:ident) => {
        contender(
            ($name, Kind::Claims),
            |capacity, size| {
                let (producers, consumer) = $ends(logbuf::$kind::new(capacity))?;
                Some((producers.into_iter().map(|producer| (producer, size)).collect(), consumer))
            },
            |(tx, size), item| {
                let Ok(mut claim) = tx.try_claim(*size) else { return false };
                claim[..8].copy_from_slice(&item.to_ne_bytes());
                claim.commit();
                true
            },
            |rx| rx.try_claim().map(|claim| word(&claim)),
            |_| true,
        )
    };
}

/// A message is one chunk: its length, then its bytes.
fn rtrb_bytes() -> Contender {
    contender(
        ("rtrb, bytes after their length", Kind::Bytes),
        |capacity, size| {
            let (producer, consumer) = RingBuffer::<u8>::new(capacity);
            let mut sender = Bytes::sender((producer, [0; LARGEST + 8]), size);
            sender.end.1[..8].copy_from_slice(&size.to_ne_bytes());
            sender.end.1[8..].copy_from_slice(&sender.message.0);
            Some((vec![sender], Bytes::receiver(consumer, size)))
        },
        |tx, item| {
            let (producer, chunk) = &mut tx.end;
            chunk[8..16].copy_from_slice(&item.to_ne_bytes());
            producer.push_entire_slice(&chunk[..8 + tx.size]).is_ok()
        },
        |rx| {
            let mut length = [0; 8];
            rx.end.pop_entire_slice(&mut length).ok()?;
            let length = usize::from_ne_bytes(length);
            rx.end.pop_entire_slice(&mut rx.message.0[..length]).ok()?;
            Some(rx.stamped())
        },
        |rx| rx.whole(),
    )
}

pub fn all() -> Vec<Contender> {
    let mut all = of_objects();
    all.extend([
        logbuf_bytes!("nexus-logbuf spsc", spsc, once),
        logbuf_bytes!("nexus-logbuf mpsc", mpsc, twice),
        rtrb_bytes(),
        logbuf_claims!("nexus-logbuf spsc", spsc, once),
        logbuf_claims!("nexus-logbuf mpsc", mpsc, twice),
    ]);
    all
}
