//! The bare queues of Rust crates beside the project's own `nc_ring.h` (objects) and `nc_log.h` (bytes).
//!
//!     ../run.sh peers [--quick] [--rounds N] [--items N] [--scenario SUBSTRING]
//!
//! A round of ours runs in C, and a round of a crate in Rust, so that no call crosses the languages for each item. The
//! ends lie in memory, ours and theirs: a crate's would else be kept in registers, which no end of a program's queue is. In
//! each round every contender of a scenario runs once, in random order, so that drift hits all alike. Threads are
//! pinned, to the first of the cores on which this process may run. A measurement in which a thread was preempted is
//! thrown away and repeated; where there are more threads than cores it cannot be.
//!
//! `ns` is the median over the rounds, `±` is half the distance between the quartiles. `x` is the median over the
//! rounds of a contender's time by that of one of ours in the same round. Each contender is checked before it is timed:
//! that all items arrive, and in order. A contender that fails is named and left out.

#[cfg(not(target_os = "linux"))]
compile_error!("threads are pinned as on Linux");

mod measure;
mod ours;
mod peers;
mod queue;
mod report;
mod scenarios;

use std::env;
use std::process::exit;
use std::time::{SystemTime, UNIX_EPOCH};

use queue::{Contender, Kind};
use report::{Row, Share, Table, median, print_shares, print_targets};
use scenarios::{Scenario, check, lesser_share, measure};

/// A measurement is repeated at most so often.
const REPEATS: u32 = 30;
const FAIRNESS: &str = "fairness: two producers and one consumer for 100 ms, messages of 64 bytes";

struct Options {
    rounds: usize,
    items: u64,
    scenario: String,
}

fn usage() -> ! {
    eprintln!("usage: peers [--quick] [--rounds N] [--items N] [--scenario SUBSTRING]");
    exit(2);
}

fn options() -> Options {
    let mut options = Options { rounds: 31, items: 50_000, scenario: String::new() };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| usage());
        match arg.as_str() {
            "--quick" => (options.rounds, options.items) = (5, 10_000),
            "--rounds" => options.rounds = value().parse().unwrap_or_else(|_| usage()),
            "--items" => options.items = value().parse().unwrap_or_else(|_| usage()),
            "--scenario" => options.scenario = value(),
            _ => usage(),
        }
    }
    if options.rounds < 1 || options.items < 1000 {
        eprintln!("peers: at least 1 round and 1000 items");
        exit(2);
    }
    options
}

/// xorshift64*: the order of the contenders is all that hangs on it.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
        Self(now | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn shuffled<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
        items
    }
}

/// What the machine did meanwhile.
#[derive(Default)]
struct Meanwhile {
    /// Measurements that were thrown away, and those that were kept though a thread was preempted in each attempt.
    thrown_away: u32,
    kept: u32,
    /// Of a word between the cores, there and back, in nanoseconds.
    trips: Vec<f64>,
}

/// Nanoseconds an item, or what is wrong.
fn undisturbed(s: &Scenario, c: &Contender, cores: &[usize], meanwhile: &mut Meanwhile) -> Result<f64, String> {
    for attempt in 0.. {
        let taken = measure(s, c, cores).map_err(|reason| format!("{} {reason} while it is timed", c.name))?;
        if taken.preempted && !s.crowded(cores) {
            if attempt < REPEATS {
                meanwhile.thrown_away += 1;
                continue;
            }
            meanwhile.kept += 1;
        }
        return Ok(taken.time.as_nanos() as f64 / s.items as f64);
    }
    unreachable!("the last attempt returns")
}

fn table_for<'a>(scenario: &Scenario, contenders: &'a [Contender], cores: &[usize]) -> (Table, Vec<&'a Contender>) {
    let (mut rows, mut checked, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for contender in contenders.iter().filter(|contender| scenario.takes(contender)) {
        match check(scenario, contender, cores) {
            Ok(()) => {
                rows.push(Row { name: contender.name.clone(), ours: contender.ours, times: Vec::new() });
                checked.push(contender);
            }
            Err(reason) => left_out.push(format!("{} {reason}", contender.name)),
        }
    }
    let crowded = scenario.crowded(cores);
    (Table { title: scenario.title.clone(), base: scenario.base, rows, left_out, crowded }, checked)
}

fn rounds_of_all(options: &Options, contenders: &[Contender], cores: &[usize]) -> (Vec<Table>, Meanwhile) {
    let mut random = Random::new();
    let mut meanwhile = Meanwhile::default();
    let scenarios: Vec<Scenario> = scenarios::all(options.items)
        .into_iter()
        .filter(|scenario| scenario.title.contains(&options.scenario))
        .collect();
    let mut tables: Vec<_> = scenarios.iter().map(|scenario| table_for(scenario, contenders, cores)).collect();
    for round in 0..options.rounds {
        eprint!("\rround {} of {}", round + 1, options.rounds);
        meanwhile.trips.extend(measure::there_and_back(cores));
        for (scenario, (table, checked)) in scenarios.iter().zip(&mut tables) {
            // One that failed has fewer times than there were rounds, and does not take part any more.
            let well = (0..checked.len()).filter(|&i| table.rows[i].times.len() == round).collect();
            for i in random.shuffled(well) {
                match undisturbed(scenario, checked[i], cores, &mut meanwhile) {
                    Ok(time) => table.rows[i].times.push(time),
                    Err(reason) => table.left_out.push(reason),
                }
            }
        }
    }
    eprintln!();
    let mut tables: Vec<Table> = tables.into_iter().map(|(table, _)| table).collect();
    for table in &mut tables {
        table.rows.retain(|row| row.times.len() == options.rounds);
    }
    (tables, meanwhile)
}

fn shares(options: &Options, contenders: &[Contender], cores: &[usize]) -> Vec<Share> {
    let mut random = Random::new();
    let several = |c: &&Contender| c.kind != Kind::Claims && c.producers > 1 && (c.ours || c.name.contains("nexus"));
    let taking_part: Vec<&Contender> = contenders.iter().filter(several).collect();
    let mut shares: Vec<Share> = taking_part
        .iter()
        .map(|contender| Share { name: contender.name.clone(), ours: contender.ours, shares: Vec::new() })
        .collect();
    for _ in 0..options.rounds {
        for i in random.shuffled((0..taking_part.len()).collect()) {
            let capacity = if taking_part[i].kind == Kind::Objects { 1024 } else { 1 << 16 };
            shares[i].shares.push(lesser_share(taking_part[i], capacity, 64, cores));
        }
    }
    shares
}

/// The processor's name, as Linux tells it.
fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = told.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name).to_owned()
}

/// The versions of the crates, as they are locked.
fn versions() -> String {
    const PEERS: [&str; 10] = [
        "nexus-queue",
        "nexus-logbuf",
        "rtrb",
        "ringbuf",
        "heapless",
        "crossbeam-queue",
        "crossbeam-channel",
        "kanal",
        "thingbuf",
        "omango",
    ];
    let lock = include_str!("../Cargo.lock");
    let version = |name: &str| {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", rest.split('"').next()?))
    };
    PEERS.into_iter().filter_map(version).collect::<Vec<_>>().join(", ")
}

fn print_header(options: &Options, cores: &[usize], meanwhile: &Meanwhile) {
    println!("# Queues of Rust crates beside ours\n");
    println!("Machine: {}, {} cores. {}; {}.", processor(), cores.len(), env!("PEERS_CC"), env!("PEERS_RUSTC"));
    println!("Crates: {}.", versions());
    println!("Medians of {} rounds of {} items; ns an item, or a round trip.", options.rounds, options.items);
    println!("A round trip: a tenth as many; bytes: half as many; two producers: four times as many, but where nobody");
    println!("consumes {} in all.", peers::FILLED);
    println!(
        "Thrown away, as a thread was preempted: {} measurements; kept after {REPEATS} repetitions: {}.",
        meanwhile.thrown_away, meanwhile.kept
    );
    if !meanwhile.trips.is_empty() {
        let [least, most] = [f64::min, f64::max].map(|pick| meanwhile.trips.iter().copied().reduce(pick).unwrap());
        let trip = median(meanwhile.trips.iter().copied());
        println!(
            "A word takes {trip:.0} ns from one core to the other and back, {least:.0} to {most:.0} over the rounds."
        );
    }
}

fn main() {
    let options = options();
    let cores = measure::cores();
    let contenders: Vec<Contender> = ours::all().into_iter().chain(peers::all()).collect();
    let (tables, meanwhile) = rounds_of_all(&options, &contenders, &cores);
    let shares = if FAIRNESS.contains(&options.scenario) { shares(&options, &contenders, &cores) } else { Vec::new() };

    print_header(&options, &cores, &meanwhile);
    for table in &tables {
        table.print();
    }
    if !shares.is_empty() {
        print_shares(FAIRNESS, &shares);
    }
    print_targets(&tables, &shares);
}
