//! Threads that work at the same time, each on a core of its own as far as there are any.

use std::mem;
use std::process::exit;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::queue::Wait;

/// A measurement that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(5);

/// The cores on which this process may run.
pub fn cores() -> Vec<usize> {
    // SAFETY: a set of no cores is all zeroes, and the call fills it.
    let set = unsafe {
        let mut set = mem::zeroed::<libc::cpu_set_t>();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        set
    };
    (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

/// Binds the calling thread to a core.
pub fn pin(core: usize) {
    // SAFETY: as above; the number is one that cores() told.
    unsafe {
        let mut set = mem::zeroed::<libc::cpu_set_t>();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// How often the calling thread was preempted. A yield to another thread counts too.
fn preemptions() -> i64 {
    // SAFETY: the call fills the structure.
    unsafe {
        let mut usage = mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_nivcsw
    }
}

/// Returns what there is to return; it does not matter of a warm-up.
type Work<'a> = Box<dyn FnOnce() -> u64 + Send + 'a>;

/// What a thread does: first to warm up, and then, when all others have done so too, what is timed.
pub struct Job<'a> {
    /// None: on any core.
    pub core: Option<usize>,
    pub warm: Work<'a>,
    pub work: Work<'a>,
}

pub struct Taken {
    /// From the first thread's begin to the last one's end.
    pub time: Duration,
    pub preempted: bool,
    /// What the jobs returned, in their order.
    pub results: Vec<u64>,
}

/// Waits until that many calls were made.
fn meet(met: &AtomicUsize, count: usize, wait: &Wait) {
    met.fetch_add(1, Ordering::AcqRel);
    let mut spins = 0;
    while met.load(Ordering::Acquire) < count && wait.again(&mut spins) {}
}

/// Runs the jobs at the same time. If they take too long they are told to give up. `meanwhile` runs in this thread.
pub fn run(jobs: Vec<Job>, wait: &Wait, meanwhile: impl FnOnce()) -> Taken {
    let (count, ready, crowded) = (jobs.len(), AtomicUsize::new(0), wait.crowded());
    let (done, finished) = mpsc::channel();
    let mut ends = thread::scope(|scope| {
        for (i, job) in jobs.into_iter().enumerate() {
            let (done, ready) = (done.clone(), &ready);
            scope.spawn(move || {
                if let Some(core) = job.core {
                    pin(core);
                }
                (job.warm)();
                meet(ready, count, wait);
                let before = preemptions();
                let begun = Instant::now();
                let result = (job.work)();
                let ended = Instant::now();
                let end = (i, begun, ended, preemptions() - before, result);
                if !crowded {
                    meet(ready, 2 * count, wait); // else the end of one would wake the main thread beside the other
                }
                done.send(end).unwrap();
            });
        }
        meanwhile();
        let mut ends = Vec::new();
        while ends.len() < count {
            match finished.recv_timeout(LIMIT) {
                Ok(end) => ends.push(end),
                Err(_) if !wait.given_up() => wait.give_up(),
                Err(_) => {
                    eprintln!("a queue does not return from a call");
                    exit(1);
                }
            }
        }
        ends
    });
    ends.sort_by_key(|end| end.0);
    let begun = ends.iter().map(|end| end.1).min().unwrap();
    let ended = ends.iter().map(|end| end.2).max().unwrap();
    Taken {
        time: ended - begun,
        preempted: ends.iter().any(|end| end.3 > 0),
        results: ends.iter().map(|end| end.4).collect(),
    }
}

/// Nanoseconds that a word takes from one core to the other and back. It tells how far apart the cores are: a virtual
/// machine's may be moved. None if there is one core only, or if a thread was preempted.
pub fn there_and_back(cores: &[usize]) -> Option<f64> {
    #[repr(align(128))]
    struct Line(AtomicU64);
    const TRIPS: u64 = 1000;
    let (go, back, wait) = (Line(AtomicU64::new(0)), Line(AtomicU64::new(0)), Wait::new(false));
    let follow = |line: &Line, until| {
        let mut spins = 0;
        while line.0.load(Ordering::Acquire) < until && wait.again(&mut spins) {}
    };
    let &[near, far, ..] = cores else { return None };
    let jobs = vec![
        Job {
            core: Some(near),
            warm: Box::new(|| 0),
            work: Box::new(|| {
                for i in 1..=TRIPS {
                    go.0.store(i, Ordering::Release);
                    follow(&back, i);
                }
                0
            }),
        },
        Job {
            core: Some(far),
            warm: Box::new(|| 0),
            work: Box::new(|| {
                for i in 1..=TRIPS {
                    follow(&go, i);
                    back.0.store(i, Ordering::Release);
                }
                0
            }),
        },
    ];
    let taken = run(jobs, &wait, || ());
    (!taken.preempted).then(|| taken.time.as_nanos() as f64 / TRIPS as f64)
}
