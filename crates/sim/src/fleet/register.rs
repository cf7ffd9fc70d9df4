//! Which faults and conditions a fleet is under, each with a number of its own.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::fault::{Entry, FaultPlan, Trouble};

/// Most faults and conditions that can be added to a fleet, at a time.
pub const ADDED_MAX: usize = 1_000;

/// All of them.
#[derive(Debug, Default)]
pub struct Register {
    entries: BTreeMap<u64, Registered>,
    /// The greatest number of the plan; what has a greater one was added.
    planned: u64,
    /// The greatest number given so far.
    given: u64,
}

#[derive(Debug)]
struct Registered {
    entry: Entry,
    /// When it was added, by the running clock.
    since_ms: u64,
    /// Commands that met it.
    met: u64,
}

/// Which list an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Faults of commands, and what befalls docks.
    Faults,
    /// Conditions.
    Conditions,
}

impl List {
    /// The list of an entry.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Rule(_) => Self::Faults,
            Entry::Incident(incident) => match incident.trouble {
                Trouble::Condition { .. } => Self::Conditions,
                Trouble::ReconnectStorm { .. } | Trouble::TopologyFlap { .. } => Self::Faults,
            },
        }
    }
}

impl Register {
    /// That of a plan. Its numbers are those of [`crate::fault::FaultyDock::new`].
    pub fn of(plan: &FaultPlan, now_ms: u64) -> Self {
        let mut register = Self::default();
        for entry in plan.entries() {
            register.put(entry, now_ms);
        }
        register.planned = register.given;
        register
    }

    /// Adds one, if there is room; its number.
    pub fn add(&mut self, entry: Entry, now_ms: u64) -> Option<u64> {
        self.forget_what_is_over(now_ms);
        let added = self.entries.range(self.planned + 1..).count();
        (added < ADDED_MAX).then(|| self.put(entry, now_ms))
    }

    fn put(&mut self, entry: Entry, since_ms: u64) -> u64 {
        self.given += 1;
        self.entries.insert(self.given, Registered { entry, since_ms, met: 0 });
        self.given
    }

    /// Takes one off a list; whether it was there.
    pub fn remove(&mut self, list: List, number: u64, now_ms: u64) -> bool {
        self.forget_what_is_over(now_ms);
        let is_there = self.entries.get(&number).is_some_and(|one| List::of(&one.entry) == list);
        is_there && self.entries.remove(&number).is_some()
    }

    /// Counts a command that met a fault.
    pub fn met(&mut self, number: u64) {
        if let Some(registered) = self.entries.get_mut(&number) {
            registered.met += 1;
        }
    }

    /// One of them, as a scenario says it, with its number and how it stands.
    pub fn shown(&self, number: u64, now_ms: u64) -> Option<Map<String, Value>> {
        self.entries.get(&number).map(|registered| registered.shown(number, now_ms))
    }

    /// A list in the order in which a command looks at it: the newest that were added, then those of the plan.
    pub fn list(&mut self, list: List, now_ms: u64) -> Vec<Map<String, Value>> {
        self.forget_what_is_over(now_ms);
        let added = self.entries.range(self.planned + 1..).rev();
        let all = added.chain(self.entries.range(..=self.planned));
        all.filter(|(_, one)| List::of(&one.entry) == list)
            .map(|(number, one)| one.shown(*number, now_ms))
            .collect()
    }

    fn forget_what_is_over(&mut self, now_ms: u64) {
        self.entries.retain(|_, one| one.ends_ms().is_none_or(|end| now_ms < end));
    }
}

impl Registered {
    fn begins_ms(&self) -> u64 {
        match &self.entry {
            Entry::Rule(_) => self.since_ms,
            Entry::Incident(incident) => self.since_ms.saturating_add(incident.at_ms),
        }
    }

    fn ends_ms(&self) -> Option<u64> {
        match &self.entry {
            Entry::Rule(_) => None,
            Entry::Incident(incident) => {
                Some(self.begins_ms().saturating_add(incident.lasts_ms()?))
            }
        }
    }

    fn shown(&self, number: u64, now_ms: u64) -> Map<String, Value> {
        let (fields, last) = match &self.entry {
            Entry::Rule(rule) => (rule.fields(), ("met", json!(self.met))),
            Entry::Incident(incident) => {
                (incident.fields(), ("has_begun", json!(self.begins_ms() <= now_ms)))
            }
        };
        let mut shown = Map::from_iter([("id".to_owned(), json!(number))]);
        shown.extend(fields);
        shown.insert(last.0.to_owned(), last.1);
        shown
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn plan(flags: &[&str]) -> FaultPlan {
        let mut plan = FaultPlan::default();
        plan.put_first(flags.iter().map(|flag| flag.parse().unwrap()));
        plan
    }

    fn entry(flag: &str) -> Entry {
        plan(&[flag]).entries().next().unwrap()
    }

    fn ids(list: &[Map<String, Value>]) -> Vec<u64> {
        list.iter().map(|one| one["id"].as_u64().unwrap()).collect()
    }

    #[test]
    fn the_newest_come_first_and_each_list_has_its_own() {
        let mut register =
            Register::of(&plan(&["kind=never", "kind=wind,speed=3", "kind=silent"]), 0);
        assert_eq!(register.add(entry("kind=binary"), 0), Some(4));
        assert_eq!(register.add(entry("kind=huge"), 0), Some(5));
        register.met(4);
        let faults = register.list(List::Faults, 1);
        assert_eq!(ids(&faults), [5, 4, 1, 2]);
        let expected = json!({"id": 4, "kind": "binary", "met": 1});
        assert_eq!(Value::Object(faults[1].clone()), expected);
        let conditions = register.list(List::Conditions, 1);
        let expected =
            json!({"id": 3, "kind": "wind", "at_ms": 0, "speed": 3.0, "has_begun": true});
        assert_eq!(Value::Object(conditions[0].clone()), expected);
        assert!(!register.remove(List::Faults, 3, 1));
        assert!(register.remove(List::Conditions, 3, 1));
        assert!(!register.remove(List::Conditions, 3, 1));
    }

    #[test]
    fn what_is_over_is_gone_and_leaves_room() {
        let mut register = Register::default();
        register.add(entry("kind=wind,speed=3,at_ms=100,ms=50"), 1_000).unwrap();
        let begun = |register: &mut Register, at| {
            register.list(List::Conditions, at).first().map(|one| one["has_begun"] == json!(true))
        };
        let stands = [1_000, 1_100, 1_149, 1_150].map(|at| begun(&mut register, at));
        assert_eq!(stands, [Some(false), Some(true), Some(true), None]);
        for _ in 0..ADDED_MAX {
            assert!(register.add(entry("kind=rain,ms=10"), 2_000).is_some());
        }
        assert_eq!(register.add(entry("kind=never"), 2_009), None);
        assert!(register.add(entry("kind=never"), 2_010).is_some());
    }
}
