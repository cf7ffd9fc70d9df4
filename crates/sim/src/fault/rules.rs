//! Which fault a command meets. Every rule has its own count and its own dice at every dock, so that neither another dock
//! nor another rule changes what it does.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Fault, Meets, Rule};

/// The rules that concern one dock, in the order in which they are looked at.
#[derive(Debug)]
pub struct Rules {
    seed: u64,
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    number: u64,
    rule: Rule,
    /// How many commands had the right method so far.
    met: u64,
    dice: StdRng,
}

impl Rules {
    /// None yet.
    pub fn new(seed: u64) -> Self {
        Self { seed, watched: Vec::new() }
    }

    /// Adds one behind those that are there, or before them. Its number and the seed fix its dice.
    pub fn add(&mut self, number: u64, rule: Rule, is_first: bool) {
        let dice = self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let watched = Watched { number, rule, met: 0, dice: StdRng::seed_from_u64(dice) };
        let at = if is_first { 0 } else { self.watched.len() };
        self.watched.insert(at, watched);
    }

    pub fn remove(&mut self, number: u64) {
        self.watched.retain(|watched| watched.number != number);
    }

    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// The fault a command meets, and its rule's number. All rules count the command, also those that come too late to
    /// apply.
    pub fn meet(&mut self, method: &str) -> Option<(u64, Fault)> {
        let mut first = None;
        for watched in &mut self.watched {
            if watched.meets(method) && first.is_none() {
                first = Some((watched.number, watched.rule.fault.clone()));
            }
        }
        first
    }
}

impl Watched {
    fn meets(&mut self, method: &str) -> bool {
        let Meets { gateway: _, method: wanted, nth, probability } = &self.rule.meets;
        if wanted.as_ref().is_some_and(|wanted| !wanted.is_match(method)) {
            return false;
        }
        self.met += 1;
        // Thrown whether or not it counts, so that the n-th throw belongs to the n-th command.
        let thrown = probability.map(|share| self.dice.random_bool(share));
        nth.is_none_or(|nth| nth == self.met) && thrown.unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{FaultPlan, Glob};

    fn rule(meets: Meets, fault: Fault) -> Rule {
        Rule { meets, fault }
    }

    fn method(pattern: &str) -> Meets {
        Meets { method: Some(Glob::new(pattern)), ..Meets::default() }
    }

    fn faults(plan: &FaultPlan, seed: u64, commands: &[&str]) -> Vec<Option<Fault>> {
        let mut rules = Rules::new(seed);
        for (number, rule) in (1..).zip(&plan.rules) {
            rules.add(number, rule.clone(), false);
        }
        commands.iter().map(|method| rules.meet(method).map(|(_, fault)| fault)).collect()
    }

    fn plan(rules: impl IntoIterator<Item = Rule>) -> FaultPlan {
        FaultPlan { rules: rules.into_iter().collect(), ..FaultPlan::default() }
    }

    #[test]
    fn the_first_rule_that_meets_applies() {
        let plan = plan([
            rule(method("cover_open"), Fault::Never),
            rule(method("cover_*"), Fault::Silent),
        ]);
        assert_eq!(
            faults(&plan, 1, &["cover_open", "cover_close", "debug_mode_open"]),
            [Some(Fault::Never), Some(Fault::Silent), None]
        );
    }

    #[test]
    fn the_nth_is_counted_among_its_own_method_also_when_another_rule_applies() {
        let second = Meets { nth: Some(2), ..method("cover_open") };
        let plan = plan([
            rule(Meets { nth: Some(1), ..method("cover_open") }, Fault::Never),
            rule(second, Fault::Silent),
        ]);
        assert_eq!(
            faults(&plan, 1, &["cover_open", "cover_close", "cover_open", "cover_open"]),
            [Some(Fault::Never), None, Some(Fault::Silent), None]
        );
    }

    #[test]
    fn the_same_seed_throws_the_same_dice_and_another_does_not() {
        let half = Meets { probability: Some(0.5), ..Meets::default() };
        let first = plan([rule(half.clone(), Fault::Never)]);
        let commands = ["cover_open"; 200];
        let thrown = faults(&first, 7, &commands);
        assert_eq!(thrown, faults(&first, 7, &commands));
        assert_ne!(thrown, faults(&first, 8, &commands));
        let met = thrown.iter().flatten().count();
        assert!((60..140).contains(&met), "{met}");
        // Another rule beside it changes nothing of it.
        let beside = plan([rule(half, Fault::Never), rule(method("x"), Fault::Silent)]);
        assert_eq!(thrown, faults(&beside, 7, &commands));
    }

    #[test]
    fn what_is_added_first_goes_before_the_others_and_can_be_taken_away() {
        let mut rules = Rules::new(1);
        rules.add(1, rule(method("cover_*"), Fault::Never), false);
        rules.add(5, rule(method("*_open"), Fault::Silent), true);
        assert_eq!(rules.meet("cover_open"), Some((5, Fault::Silent)));
        assert_eq!(rules.meet("cover_close"), Some((1, Fault::Never)));
        rules.remove(5);
        assert_eq!(rules.meet("cover_open"), Some((1, Fault::Never)));
    }

    #[test]
    fn a_share_of_none_meets_nothing_and_a_share_of_all_meets_everything() {
        for (share, expected) in [(0.0, 0), (1.0, 50)] {
            let meets = Meets { probability: Some(share), ..Meets::default() };
            let thrown = faults(&plan([rule(meets, Fault::Never)]), 1, &["m"; 50]);
            assert_eq!(thrown.iter().flatten().count(), expected);
        }
    }
}
