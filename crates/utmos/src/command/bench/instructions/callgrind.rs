//! What callgrind wrote, read: sums of instructions and of calls.

use std::collections::HashMap;

/// What a server did while it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// Instructions, without the kernel's.
    pub instructions: u64,
    /// Times memory was asked for, by Rust and by SQLite.
    pub allocations: u64,
}

/// What allocates: of mimalloc for Rust, of the C library for SQLite.
const ALLOCATE: [&str; 11] = [
    "mi_malloc",
    "mi_malloc_aligned",
    "mi_malloc_small",
    "mi_zalloc",
    "mi_zalloc_aligned",
    "mi_zalloc_small",
    "mi_realloc",
    "mi_realloc_aligned",
    "malloc",
    "calloc",
    "realloc",
];

/// Reads a file; `None` where it has no sum.
pub fn read(text: &str) -> Option<Sums> {
    // What it calls its summary knows nothing of counting that was switched on.
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals: "))?;
    let instructions = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sums { instructions, allocations: allocations(text) })
}

/// Calls of what allocates, but for those that it makes itself on its way.
fn allocations(text: &str) -> u64 {
    // A name stands in full where it comes first; later its number does.
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut name_of = |text| {
        let (number, name) = named(text);
        if let Some(name) = name {
            names.insert(number, name);
        }
        names.get(number).copied().unwrap_or_default()
    };
    let (mut caller, mut called, mut sum) = ("", "", 0);
    for line in text.lines() {
        if let Some(function) = line.strip_prefix("fn=") {
            caller = name_of(function);
        } else if let Some(function) = line.strip_prefix("cfn=") {
            called = name_of(function);
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let count = calls.split_ascii_whitespace().next().and_then(|count| count.parse().ok());
            if allocates(called) && !allocates(caller) {
                sum += count.unwrap_or(0_u64);
            }
        }
    }
    sum
}

/// `(12) name` or `(12)`.
fn named(text: &str) -> (&str, Option<&str>) {
    match text.split_once(") ") {
        Some((number, name)) => (number.trim_start_matches('('), Some(name)),
        None => (text.trim_start_matches('(').trim_end_matches(')'), None),
    }
}

/// Callgrind marks what calls itself by a number behind the name.
fn allocates(function: &str) -> bool {
    let name = function.split('\'').next().unwrap_or(function);
    ALLOCATE.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_found_in_what_valgrind_writes() {
        let text = "# callgrind format\nversion: 1\nevents: Ir\nsummary: 0\n\nfn=(1) main\n0 5\n\ntotals: 5678\n";
        assert_eq!(read(text), Some(Sums { instructions: 5678, allocations: 0 }));
        assert_eq!(read("events: Ir\nsummary: 0\n"), None);
    }

    #[test]
    fn allocations_are_counted_where_they_are_asked_for() {
        let text = "fn=(1) work\n0 5\ncfn=(2) mi_malloc\ncalls=3 0\n0 30\ncfn=(3) mi_zalloc'2\ncalls=4 0\n0 40\n\n\
                    fn=(3)\n0 7\ncfn=(2)\ncalls=4 0\n0 20\n\nfn=(4) other\ncfn=(2)\ncalls=10 0\n0 1\n\
                    cfn=(5) mi_free\ncalls=100 0\n0 1\ntotals: 9\n";
        assert_eq!(read(text).map(|sums| sums.allocations), Some(17));
    }
}
