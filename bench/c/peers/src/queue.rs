//! What all contenders have in common: how a loop waits, and the loops that are timed.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::yield_now;

/// Producers at most.
pub const PRODUCERS: usize = 2;
/// Bytes of a message, at most.
pub const LARGEST: usize = 1024;
/// Items in, then out, in one thread.
pub const BURST: u64 = 64;

/// How to wait. ours.c has the same.
#[repr(C)]
pub struct Wait {
    stop: AtomicBool,
    patience: u32,
}

impl Wait {
    /// Where threads share a core, one that cannot go on has to yield; else it only spins.
    pub fn new(crowded: bool) -> Self {
        Self { stop: AtomicBool::new(false), patience: if crowded { 32 } else { 0 } }
    }

    pub fn crowded(&self) -> bool {
        self.patience > 0
    }

    /// All loops that wait give up.
    pub fn give_up(&self) {
        self.stop.store(true, Ordering::Relaxed); // nothing else depends on it
    }

    pub fn given_up(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// After a failed attempt: true if there is to be another.
    #[inline(always)]
    pub fn again(&self, spins: &mut u32) -> bool {
        spin_loop();
        *spins = spins.wrapping_add(1);
        if *spins == self.patience {
            *spins = 0;
            yield_now();
        }
        !self.given_up()
    }
}

/// The item with that number, from 1 on, of that producer. It is never 0.
pub fn item(producer: usize, number: u64) -> u64 {
    (producer as u64) << 48 | number
}

/// A queue that is open, or rather two: the second is for the way back of a round trip.
///
/// Sums are of the items received. A loop that gave up returns something else.
pub trait Queue: Sync {
    /// One thread: n times one in and one out. Returns the sum.
    fn pair(&self, n: u64) -> u64;

    /// One thread: n items, `BURST` in and then `BURST` out. Returns the sum.
    fn burst(&self, n: u64) -> u64;

    /// Sends n items from that one on. Returns how many were sent.
    fn produce(&self, producer: usize, first: u64, n: u64, wait: &Wait) -> u64;

    /// Receives n items. Returns the sum.
    fn consume(&self, n: u64, wait: &Wait) -> u64;

    /// Receives as many items as there is room for; a message that did not arrive whole is the last. Returns how many.
    fn collect(&self, items: &mut [u64], wait: &Wait) -> usize;

    /// n times: sends an item and waits for it to come back. Returns the sum of what came back.
    fn ping(&self, n: u64, wait: &Wait) -> u64;

    /// n times: receives an item and sends it back. Returns how many.
    fn pong(&self, n: u64, wait: &Wait) -> u64;
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Objects,
    Bytes,
    Claims,
}

/// Opens a queue with that capacity, for messages of that size; `None` if the contender has none with that capacity.
pub type Open = Box<dyn Fn(usize, usize) -> Option<Box<dyn Queue>>>;

pub struct Contender {
    pub name: String,
    pub ours: bool,
    pub kind: Kind,
    /// At most.
    pub producers: usize,
    pub open: Open,
}
