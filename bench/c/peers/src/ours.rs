//! The project's own rings: the table of ours.c.

use std::ffi::{CStr, c_char, c_void};
use std::slice;

use crate::queue::{Contender, Kind, Queue, Wait, item};

type Queues = *mut c_void;

#[repr(C)]
struct Row {
    name: *const c_char,
    kind: u32,
    producers: u32,
    open: extern "C" fn(u64, u64) -> Queues,
    close: extern "C" fn(Queues),
    pair: extern "C" fn(Queues, u64) -> u64,
    burst: extern "C" fn(Queues, u64) -> u64,
    produce: extern "C" fn(Queues, u64, u64, *const Wait) -> u64,
    consume: extern "C" fn(Queues, u64, *const Wait) -> u64,
    collect: extern "C" fn(Queues, *mut u64, u64, *const Wait) -> u64,
    ping: extern "C" fn(Queues, u64, *const Wait) -> u64,
    pong: extern "C" fn(Queues, u64, *const Wait) -> u64,
}

unsafe extern "C" {
    fn ours_rows(count: *mut u64) -> *const Row;
}

struct Ours {
    row: &'static Row,
    queues: Queues,
}

// SAFETY: each side is used by as many threads as it is made for, and by one at a time else: see measure.rs.
unsafe impl Sync for Ours {}

impl Drop for Ours {
    fn drop(&mut self) {
        (self.row.close)(self.queues);
    }
}

impl Queue for Ours {
    fn pair(&self, n: u64) -> u64 {
        (self.row.pair)(self.queues, n)
    }

    fn burst(&self, n: u64) -> u64 {
        (self.row.burst)(self.queues, n)
    }

    fn produce(&self, producer: usize, first: u64, n: u64, wait: &Wait) -> u64 {
        (self.row.produce)(self.queues, item(producer, first), n, wait)
    }

    fn consume(&self, n: u64, wait: &Wait) -> u64 {
        (self.row.consume)(self.queues, n, wait)
    }

    fn collect(&self, items: &mut [u64], wait: &Wait) -> usize {
        (self.row.collect)(self.queues, items.as_mut_ptr(), items.len() as u64, wait) as usize
    }

    fn ping(&self, n: u64, wait: &Wait) -> u64 {
        (self.row.ping)(self.queues, n, wait)
    }

    fn pong(&self, n: u64, wait: &Wait) -> u64 {
        (self.row.pong)(self.queues, n, wait)
    }
}

pub fn all() -> Vec<Contender> {
    let mut count = 0;
    // SAFETY: the table of ours.c is a constant of that many rows, with names that end in a 0.
    let rows: &'static [Row] = unsafe { slice::from_raw_parts(ours_rows(&raw mut count), count as usize) };
    let contender = |row: &'static Row| Contender {
        name: unsafe { CStr::from_ptr(row.name) }.to_string_lossy().into_owned(),
        ours: true,
        kind: [Kind::Objects, Kind::Bytes, Kind::Claims][row.kind as usize],
        producers: row.producers as usize,
        open: Box::new(move |capacity, size| {
            let queues = (row.open)(capacity as u64, size as u64);
            Some(Box::new(Ours { row, queues }) as Box<dyn Queue>)
        }),
    };
    rows.iter().map(contender).collect()
}
