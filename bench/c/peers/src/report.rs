//! Tables, and what is aimed at.

use crate::scenarios::{CLAIMED, SIZES};

/// What a contender took in a scenario: nanoseconds an item, in each round.
pub struct Row {
    pub name: String,
    pub ours: bool,
    pub times: Vec<f64>,
}

pub struct Table {
    pub title: String,
    pub base: &'static str,
    pub rows: Vec<Row>,
    /// Contenders that are left out, and why.
    pub left_out: Vec<String>,
    /// There were more threads than cores.
    pub crowded: bool,
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// Half the distance between the quartiles.
fn spread(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let (n, last) = (values.len(), values.len() - 1);
    (values[last - n / 4] - values[n / 4]) / 2.0
}

impl Row {
    fn median(&self) -> f64 {
        median(self.times.iter().copied())
    }

    /// The median over the rounds of our time by theirs.
    fn by(&self, other: &Self) -> f64 {
        median(self.times.iter().zip(&other.times).map(|(mine, theirs)| mine / theirs))
    }
}

impl Table {
    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    fn others(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.ours)
    }

    /// The other with the least median.
    fn best_other(&self) -> Option<&Row> {
        self.others().min_by(|a, b| a.median().total_cmp(&b.median()))
    }

    /// Ours by the quickest other of each round, whichever that is.
    fn by_each_rounds_best(&self, ours: &Row) -> f64 {
        let best = |i: usize| self.others().map(|row| row.times[i]).fold(f64::INFINITY, f64::min);
        median(ours.times.iter().enumerate().map(|(i, time)| time / best(i)))
    }

    pub fn print(&self) {
        println!("\n## {}\n", self.title);
        println!("| contender | ns | ± | x |\n|---|---:|---:|---:|");
        let base = self.row(self.base);
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.ours).collect();
        let mut others: Vec<&Row> = self.others().collect();
        others.sort_by(|a, b| a.median().total_cmp(&b.median()));
        rows.append(&mut others);
        for row in rows {
            let x = base.map_or("-".to_owned(), |base| format!("{:.2}", row.by(base)));
            println!("| {} | {:.1} | {:.1} | {x} |", row.name, row.median(), spread(&row.times));
        }
        println!("\nx: beside {}.", self.base);
        if self.crowded {
            println!("More threads than cores: they yield to each other, and no measurement is thrown away.");
        }
        if let (Some(base), Some(best)) = (base, self.best_other()) {
            let each = self.by_each_rounds_best(base);
            println!("{} takes {:.2} times as long as {}, the best other,", base.name, base.by(best), best.name);
            println!("and {each:.2} times as long as the best other of each round.");
        }
        for reason in &self.left_out {
            println!("Left out: {reason}.");
        }
    }
}

/// The share of the lesser of two producers, of 1, in each round.
pub struct Share {
    pub name: String,
    pub ours: bool,
    pub shares: Vec<f64>,
}

impl Share {
    fn median(&self) -> f64 {
        median(self.shares.iter().copied())
    }
}

pub fn print_shares(title: &str, shares: &[Share]) {
    println!("\n## {title}\n");
    println!("| contender | the lesser producer's share | least |\n|---|---:|---:|");
    for share in shares {
        let least = share.shares.iter().copied().fold(1.0, f64::min);
        println!("| {} | {:.0} % | {:.0} % |", share.name, 100.0 * share.median(), 100.0 * least);
    }
}

// ---- what is aimed at -----------------------------------------------------------------------------------------------

/// Ours takes at most so many times as long as the other: the one named, or the best.
struct Target {
    title: String,
    ours: &'static str,
    other: Option<&'static str>,
    at_most: f64,
}

fn targets() -> Vec<Target> {
    let target = |title: &str, ours, other, at_most| Target { title: title.to_owned(), ours, other, at_most };
    let mut targets = vec![target("objects, round trip by two queues", "nc_ring push_sp release", None, 1.05)];
    for title in ["objects, two producers, one consumer", "objects, two producers, nobody consuming"] {
        for ours in ["nc_ring push_mp, pop release", "nc_ring push_mp, pop seq_cst"] {
            targets.push(target(title, ours, Some("nexus-queue mpsc"), 1.3));
        }
    }
    let title = "objects, one producer, one consumer";
    targets.push(target(title, "nc_ring push_sp release", None, 1.1));
    // Where objects wait without a common lock, one producer pushes as many do: see core_way() in py_core.h.
    targets.push(target(title, "nc_ring push_mp, pop seq_cst", None, 1.5));
    for size in SIZES {
        let title = format!("bytes, one producer, one consumer, {size} bytes");
        targets.push(target(&title, "nc_log one release", None, 1.1));
        targets.push(target(&title, "nc_log one seq_cst", None, 1.5));
    }
    for (size, at_most) in CLAIMED.into_iter().zip([1.0, 0.5]) {
        let one = format!("claims in one thread, one producer's kind, {size} bytes");
        let many = format!("claims in one thread, many producers' kind, {size} bytes");
        targets.push(target(&one, "nc_log one release", Some("nexus-logbuf spsc"), at_most));
        targets.push(target(&many, "nc_log many release", Some("nexus-logbuf mpsc"), at_most));
    }
    targets
}

/// Of all messages; an equal share is half.
const LEAST_SHARE: f64 = 0.25;

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

pub fn print_targets(tables: &[Table], shares: &[Share]) {
    println!("\n## Targets\n");
    println!("| | ours | other | target | found | best of each round | |\n|---|---|---|---:|---:|---:|---|");
    for target in targets() {
        let Some(table) = tables.iter().find(|table| table.title == target.title) else { continue };
        let other = target.other.map_or_else(|| table.best_other(), |name| table.row(name));
        let (Some(ours), Some(other)) = (table.row(target.ours), other) else { continue };
        let found = ours.by(other);
        let each =
            if target.other.is_none() { format!("{:.2}", table.by_each_rounds_best(ours)) } else { "-".to_owned() };
        print!("| {} | {} | {} | at most {:.2} ", table.title, ours.name, other.name, target.at_most);
        println!("| {found:.2} | {each} | {} |", verdict(found <= target.at_most));
    }
    for share in shares.iter().filter(|share| share.ours) {
        let found = share.median();
        print!("| the lesser producer's share | {} | - | at least {:.0} % ", share.name, 100.0 * LEAST_SHARE);
        println!("| {:.0} % | - | {} |", 100.0 * found, verdict(found >= LEAST_SHARE));
    }
}
