//! What callgrind wrote, read: instructions and allocations, in all and of each function.

use std::collections::{BTreeMap, HashMap};

/// What a server did while it was counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Instructions, without the kernel's.
    pub instructions: u64,
    /// Times memory was asked for, by Rust and by SQLite.
    pub allocations: u64,
    /// Of each function, by its name; what was inlined into it is its own.
    pub functions: BTreeMap<String, OfFunction>,
}

/// What one function did itself, without what it called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OfFunction {
    pub instructions: u64,
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
pub fn read(text: &str) -> Option<Counts> {
    // What it calls its summary knows nothing of counting that was switched on.
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals: "))?;
    let instructions = line.split_ascii_whitespace().next()?.parse().ok()?;
    let functions = functions(text);
    // Not those that what allocates makes itself on its way.
    let allocations = functions.values().map(|function| function.allocations).sum();
    Some(Counts { instructions, allocations, functions })
}

/// What each function did, callgrind's marks of those that call themselves left out.
fn functions(text: &str) -> BTreeMap<String, OfFunction> {
    // A name stands in full where it comes first; later its number does.
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut name_of = |text| {
        let (number, name) = named(text);
        if let Some(name) = name {
            names.insert(number, name);
        }
        names.get(number).copied().unwrap_or_default()
    };
    let mut functions: BTreeMap<&str, OfFunction> = BTreeMap::new();
    let (mut own, mut called, mut is_of_call) = ("", "", false);
    for line in text.lines() {
        if let Some(function) = line.strip_prefix("fn=") {
            own = without_mark(name_of(function));
        } else if let Some(function) = line.strip_prefix("cfn=") {
            called = without_mark(name_of(function));
        } else if let Some(calls) = line.strip_prefix("calls=") {
            // The line behind it is what the call cost, and none of this function's.
            is_of_call = true;
            if allocates(called) && !allocates(own) {
                functions.entry(own).or_default().allocations += first(calls).unwrap_or(0);
            }
        } else if line.starts_with(|sign: char| sign.is_ascii_digit() || "+-*".contains(sign))
            && !std::mem::take(&mut is_of_call)
        {
            let cost = line.split_once(' ').and_then(|(_, cost)| first(cost)).unwrap_or(0);
            functions.entry(own).or_default().instructions += cost;
        }
    }
    functions.into_iter().map(|(name, function)| (name.to_owned(), function)).collect()
}

/// The number that a line begins with.
fn first(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// `(12) name` or `(12)`.
fn named(text: &str) -> (&str, Option<&str>) {
    match text.split_once(") ") {
        Some((number, name)) => (number.trim_start_matches('('), Some(name)),
        None => (text.trim_start_matches('(').trim_end_matches(')'), None),
    }
}

/// Callgrind marks what calls itself by a number behind the name.
fn without_mark(function: &str) -> &str {
    match function.rsplit_once('\'') {
        Some((name, mark)) if mark.bytes().all(|sign| sign.is_ascii_digit()) => name,
        Some(_) | None => function,
    }
}

fn allocates(function: &str) -> bool {
    ALLOCATE.contains(&function)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_found_in_what_valgrind_writes() {
        let text = "# callgrind format\nversion: 1\nevents: Ir\nsummary: 0\n\nfn=(1) main\n0 5\n\ntotals: 5678\n";
        let counts = read(text).unwrap_or_default();
        assert_eq!((counts.instructions, counts.allocations), (5678, 0));
        assert_eq!(read("events: Ir\nsummary: 0\n"), None);
    }

    #[test]
    fn allocations_and_instructions_are_counted_where_they_are_made() {
        let text = "fn=(1) work<'a>\n0 5\ncfn=(2) mi_malloc\ncalls=3 0\n0 30\ncfn=(3) mi_zalloc'2\ncalls=4 0\n0 40\n+1 6\n\n\
                    fn=(3)\n0 7\ncfn=(2)\ncalls=4 0\n0 20\n\nfn=(4) other'3\n* 8\ncfn=(2)\ncalls=10 0\n0 1\n\
                    cfn=(5) mi_free\ncalls=100 0\n0 1\nfn=(6) other\n0 1\ntotals: 9\n";
        let counts = read(text).unwrap_or_default();
        assert_eq!(counts.allocations, 17);
        let of = |instructions, allocations| Some(OfFunction { instructions, allocations });
        assert_eq!(counts.functions.get("work<'a>").copied(), of(11, 7));
        assert_eq!(counts.functions.get("mi_zalloc").copied(), of(7, 0));
        assert_eq!(counts.functions.get("other").copied(), of(9, 10));
    }
}
