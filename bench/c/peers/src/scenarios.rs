//! What is done with the queues, written once for all of them; and the check before.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::measure::{Job, Taken, pin, run};
use crate::peers::FILLED;
use crate::queue::{BURST, Contender, Kind, PRODUCERS, Queue, Wait, item};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One thread: one in and one out.
    Pair,
    /// One thread: 64 in and 64 out.
    Burst,
    /// One producer and one consumer.
    OneToOne,
    /// Two threads, two queues: there and back.
    RoundTrip,
    /// Two producers and one consumer.
    TwoToOne,
    /// Two producers fill a queue, and nobody consumes.
    TwoAlone,
}

pub struct Scenario {
    pub title: String,
    pub shape: Shape,
    pub kind: Kind,
    /// Only contenders that take this many producers, or, for claims, that are made for this many.
    pub producers: usize,
    /// Bytes of a message.
    pub size: usize,
    /// Items, or bytes.
    pub capacity: usize,
    /// How many a measurement takes.
    pub items: u64,
    /// Ours with which each is compared.
    pub base: &'static str,
}

const CAPACITY: usize = 1024;
const MESSAGES: usize = 512;
pub const SIZES: [usize; 4] = [8, 64, 256, 1024];
pub const CLAIMED: [usize; 2] = [64, 1024];

/// Room for 512 messages with a word before each, as a power of two.
fn bytes_for(size: usize) -> usize {
    (MESSAGES * (size + 8)).next_power_of_two()
}

pub fn all(items: u64) -> Vec<Scenario> {
    let items = items.next_multiple_of(BURST * PRODUCERS as u64);
    let objects = |title: &str, shape, producers, capacity, items, base| Scenario {
        title: format!("objects, {title}"),
        shape,
        kind: Kind::Objects,
        producers,
        size: 0,
        capacity,
        items,
        base,
    };
    let (one, many) = ("nc_ring push_sp release", "nc_ring push_mp, pop seq_cst");
    let mut all = vec![
        objects("one thread, 1 in 1 out", Shape::Pair, 1, CAPACITY, items, one),
        objects("one thread, 64 in 64 out", Shape::Burst, 1, CAPACITY, items, one),
        objects("one producer, one consumer", Shape::OneToOne, 1, CAPACITY, items, one),
        objects("round trip by two queues", Shape::RoundTrip, 1, CAPACITY, items / 10, one),
        objects("two producers, one consumer", Shape::TwoToOne, 2, CAPACITY, 4 * items, many),
        objects("two producers, nobody consuming", Shape::TwoAlone, 2, FILLED, FILLED as u64, many),
    ];
    let bytes = |title: &str, kind, shape, producers: usize, size: usize, base| Scenario {
        title: format!("{title}, {size} bytes"),
        shape,
        kind,
        producers,
        size,
        capacity: bytes_for(size),
        items: if shape == Shape::TwoToOne { 2 * items } else { items / 2 },
        base,
    };
    let (one, many) = ("nc_log one release", "nc_log many release");
    for (title, shape, producers, base) in [
        ("bytes, one thread", Shape::Pair, 1, one),
        ("bytes, one producer, one consumer", Shape::OneToOne, 1, one),
        ("bytes, two producers, one consumer", Shape::TwoToOne, 2, many),
    ] {
        all.extend(SIZES.map(|size| bytes(title, Kind::Bytes, shape, producers, size, base)));
    }
    for (title, producers, base) in
        [("claims in one thread, one producer's kind", 1, one), ("claims in one thread, many producers' kind", 2, many)]
    {
        all.extend(CLAIMED.map(|size| bytes(title, Kind::Claims, Shape::Pair, producers, size, base)));
    }
    all
}

impl Scenario {
    pub fn takes(&self, contender: &Contender) -> bool {
        let producers = match self.kind {
            Kind::Claims => contender.producers == self.producers,
            _ => contender.producers >= self.producers,
        };
        contender.kind == self.kind && producers && (contender.open)(self.capacity, self.size).is_some()
    }

    fn open(&self, contender: &Contender) -> Box<dyn Queue> {
        (contender.open)(self.capacity, self.size).expect("takes() said so")
    }

    fn threads(&self) -> usize {
        match self.shape {
            Shape::Pair | Shape::Burst => 1,
            Shape::OneToOne | Shape::RoundTrip | Shape::TwoAlone => 2,
            Shape::TwoToOne => 3,
        }
    }

    /// Are there more threads than cores?
    pub fn crowded(&self, cores: &[usize]) -> bool {
        self.threads() > cores.len()
    }
}

/// The sum of n items from the first on.
fn sum_of(producer: usize, first: u64, n: u64) -> u64 {
    let numbers = n.wrapping_mul(first).wrapping_add(n * (n - 1) / 2);
    n.wrapping_mul(item(producer, 0)).wrapping_add(numbers)
}

// ---- what is timed --------------------------------------------------------------------------------------------------

/// The cores of the producers and of the consumer. Where a core has to be shared, the consumer goes where it likes.
fn consumers_core(producers: usize, cores: &[usize]) -> Option<usize> {
    cores.get(producers).copied()
}

/// Many times round the ring: all its memory is in a cache, and each side has seen it full or empty.
fn warm_up(scenario: &Scenario) -> u64 {
    let twice_round = 2 * if scenario.kind == Kind::Objects { CAPACITY } else { MESSAGES } as u64;
    twice_round.max(scenario.items / 2).next_multiple_of(BURST)
}

/// One measurement, or what is wrong: not all items arrived.
pub fn measure(scenario: &Scenario, contender: &Contender, cores: &[usize]) -> Result<Taken, &'static str> {
    let queue = scenario.open(contender);
    let (queue, wait) = (&*queue, &Wait::new(scenario.crowded(cores)));
    let (n, warm) = (scenario.items, warm_up(scenario));
    match scenario.shape {
        Shape::Pair => alone(cores, wait, move |n| queue.pair(n), warm, n),
        Shape::Burst => alone(cores, wait, move |n| queue.burst(n), warm, n),
        Shape::OneToOne => stream(queue, wait, 1, cores, warm, n),
        Shape::TwoToOne => stream(queue, wait, PRODUCERS, cores, warm, n),
        Shape::RoundTrip => round_trips(queue, wait, cores, warm, n),
        Shape::TwoAlone => fill(queue, wait, cores, n),
    }
}

fn judged(right: bool, taken: Taken, wait: &Wait) -> Result<Taken, &'static str> {
    match right {
        true => Ok(taken),
        false if wait.given_up() => Err("takes too long"),
        false => Err("loses or repeats items"),
    }
}

fn alone(
    cores: &[usize],
    wait: &Wait,
    work: impl Fn(u64) -> u64 + Send + Copy,
    warm: u64,
    n: u64,
) -> Result<Taken, &'static str> {
    let job = Job {
        core: cores.get(1).or(cores.first()).copied(), // the first one is often busier
        warm: Box::new(move || work(warm)),
        work: Box::new(move || work(n)),
    };
    let taken = run(vec![job], wait, || ());
    judged(taken.results[0] == sum_of(0, 1, n), taken, wait)
}

fn stream(
    queue: &dyn Queue,
    wait: &Wait,
    producers: usize,
    cores: &[usize],
    warm: u64,
    n: u64,
) -> Result<Taken, &'static str> {
    let (warm_each, n_each) = (warm / producers as u64, n / producers as u64);
    let mut jobs: Vec<Job> = (0..producers)
        .map(|i| Job {
            core: cores.get(i % cores.len()).copied(),
            warm: Box::new(move || queue.produce(i, 1, warm_each, wait)),
            work: Box::new(move || queue.produce(i, 1 + warm_each, n_each, wait)),
        })
        .collect();
    jobs.push(Job {
        core: consumers_core(producers, cores),
        warm: Box::new(move || queue.consume(warm_each * producers as u64, wait)),
        work: Box::new(move || queue.consume(n_each * producers as u64, wait)),
    });
    let taken = run(jobs, wait, || ());
    let sent = (0..producers).fold(0u64, |sum, i| sum.wrapping_add(sum_of(i, 1 + warm_each, n_each)));
    judged(taken.results[producers] == sent, taken, wait)
}

fn round_trips(queue: &dyn Queue, wait: &Wait, cores: &[usize], warm: u64, n: u64) -> Result<Taken, &'static str> {
    let jobs = vec![
        Job {
            core: cores.first().copied(),
            warm: Box::new(move || queue.ping(warm, wait)),
            work: Box::new(move || queue.ping(n, wait)),
        },
        Job {
            core: cores.get(1).copied(),
            warm: Box::new(move || queue.pong(warm, wait)),
            work: Box::new(move || queue.pong(n, wait)),
        },
    ];
    let taken = run(jobs, wait, || ());
    judged(taken.results[0] == sum_of(0, 1, n), taken, wait)
}

/// Filled and emptied once before, so that its memory is there.
fn fill(queue: &dyn Queue, wait: &Wait, cores: &[usize], n: u64) -> Result<Taken, &'static str> {
    queue.produce(0, 1, n, wait);
    queue.consume(n, wait);
    let each = n / PRODUCERS as u64;
    let jobs = (0..PRODUCERS)
        .map(|i| Job {
            core: cores.get(i % cores.len()).copied(),
            warm: Box::new(|| 0),
            work: Box::new(move || queue.produce(i, 1, each, wait)),
        })
        .collect();
    let taken = run(jobs, wait, || ());
    let sent = (0..PRODUCERS).fold(0u64, |sum, i| sum.wrapping_add(sum_of(i, 1, each)));
    let right = taken.results.iter().all(|&n| n == each) && queue.consume(n, wait) == sent;
    judged(right, taken, wait)
}

// ---- fairness -------------------------------------------------------------------------------------------------------

/// Two producers push for 100 ms: the share of the lesser one, of 1.
///
/// Where there is no third core, the consumer changes between the producers' cores every millisecond, so that it takes
/// as much time from the one as from the other.
pub fn lesser_share(contender: &Contender, capacity: usize, size: usize, cores: &[usize]) -> f64 {
    const CHUNK: u64 = 256;
    let queue = (contender.open)(capacity, size).expect("a capacity for all");
    let (queue, wait) = (&*queue, &Wait::new(cores.len() <= PRODUCERS));
    let mut jobs: Vec<Job> = (0..PRODUCERS)
        .map(|i| Job {
            core: cores.get(i % cores.len()).copied(),
            warm: Box::new(|| 0),
            work: Box::new(move || {
                let mut sent = 0;
                while !wait.given_up() {
                    sent += queue.produce(i, 1 + sent, CHUNK, wait);
                }
                sent
            }),
        })
        .collect();
    let own = consumers_core(PRODUCERS, cores);
    let shared = cores.to_vec();
    jobs.push(Job {
        core: own,
        warm: Box::new(|| 0),
        work: Box::new(move || {
            let begun = Instant::now();
            while !wait.given_up() {
                if own.is_none() {
                    pin(shared[begun.elapsed().as_millis() as usize % shared.len()]);
                }
                queue.consume(CHUNK, wait);
            }
            0
        }),
    });
    let taken = run(jobs, wait, || {
        sleep(Duration::from_millis(100));
        wait.give_up();
    });
    let sent = &taken.results[..PRODUCERS];
    *sent.iter().min().unwrap() as f64 / sent.iter().sum::<u64>().max(1) as f64
}

// ---- the check before -----------------------------------------------------------------------------------------------

/// All items arrive, those of each producer in their order. Returns what is wrong.
pub fn check(scenario: &Scenario, contender: &Contender, cores: &[usize]) -> Result<(), String> {
    let queue = scenario.open(contender);
    let (queue, wait) = (&*queue, &Wait::new(true));
    let mut items = vec![0; 256];
    let sent = queue.produce(0, 1, items.len() as u64, wait);
    if sent != items.len() as u64 {
        return Err(format!("has room for {sent} items only"));
    }
    let got = queue.collect(&mut items, wait);
    in_order(&items[..got], 1, sent)?;

    if scenario.shape == Shape::RoundTrip {
        return Ok(round_trips(queue, wait, cores, 1000, 1000).map(drop)?);
    }
    let producers = if scenario.shape == Shape::TwoToOne || scenario.shape == Shape::TwoAlone { PRODUCERS } else { 1 };
    let each = 10_000;
    let mut items = vec![0; producers * each as usize];
    let mut got = 0;
    let mut jobs: Vec<Job> = (0..producers)
        .map(|i| Job { core: None, warm: Box::new(|| 0), work: Box::new(move || queue.produce(i, 1, each, wait)) })
        .collect();
    jobs.push(Job {
        core: None,
        warm: Box::new(|| 0),
        work: Box::new(|| {
            got = queue.collect(&mut items, wait);
            0
        }),
    });
    run(jobs, wait, || ());
    in_order(&items[..got], producers, each)
}

fn in_order(items: &[u64], producers: usize, each: u64) -> Result<(), String> {
    let mut last = vec![0; producers];
    for &received in items {
        let (producer, number) = ((received >> 48) as usize, received & 0xffff_ffff_ffff);
        match last.get_mut(producer) {
            Some(last) if number == *last + 1 => *last = number,
            _ => return Err(format!("received item {number} of producer {producer} out of order")),
        }
    }
    if items.len() as u64 != producers as u64 * each {
        return Err(format!("received {} items of {}", items.len(), producers as u64 * each));
    }
    Ok(())
}
