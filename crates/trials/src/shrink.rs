//! Makes a plan that fails smaller, as long as it goes on failing.

use crate::plan::{Plan, What};

/// Makes a plan smaller that violates something, as long as what is found first is the same but for the names: a smaller
/// plan that fails in another way shows something else. `violations` runs a plan.
pub fn shrink_alike(plan: &Plan, violations: impl Fn(&Plan) -> Vec<String>) -> Plan {
    let kind = |plan: &Plan| violations(plan).first().map(|first| kind(first));
    let wanted = kind(plan);
    shrink(plan, |plan| kind(plan) == wanted)
}

/// The words of a violation that say what is violated, and not of which command nor when: up to the facts, without what has a
/// digit, and without the method.
#[must_use]
pub fn kind(violation: &str) -> String {
    let facts = violation.find(['{', '[', ',']).unwrap_or(violation.len());
    let said = violation.get(..facts).unwrap_or(violation);
    let is_name =
        |word: &&str| word.contains(|c: char| c.is_ascii_digit()) || word.starts_with('(');
    said.split_whitespace().filter(|word| !is_name(word)).collect::<Vec<_>>().join(" ")
}

/// Takes out whatever is not needed for `fails` to say yes.
pub fn shrink(plan: &Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    loop {
        let before = best.happenings.len();
        let mut size = before.div_ceil(2).max(1);
        loop {
            let mut from = 0;
            while from < best.happenings.len() {
                let mut fewer = best.clone();
                for (number, one) in fewer.happenings.iter_mut().enumerate() {
                    if (from..from + size).contains(&number) {
                        // Wishes are known by their numbers, so a gap stays where one was.
                        one.what = What::ClockJumps { by: 0 };
                    }
                }
                if fewer != best && fails(&fewer) {
                    best = fewer;
                }
                from += size;
            }
            if size == 1 {
                break;
            }
            size /= 2;
        }
        let fewer = without_gaps(&best);
        if fewer.happenings.len() < best.happenings.len() && fails(&fewer) {
            best = fewer;
        }
        if best.happenings.len() >= before {
            return best;
        }
    }
}

fn without_gaps(plan: &Plan) -> Plan {
    let mut fewer = plan.clone();
    fewer.happenings.retain(|one| one.what != What::ClockJumps { by: 0 });
    fewer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_of_a_kind_whichever_command_it_is_of() {
        let one = "0190a1b2-1111-7000-8000-000000000001 (debug_mode_open): reads Succeeded/None, and the truth is Facts { written: [5] }";
        let same = "0190a1b2-2222-7000-8000-000000000002 (cover_open): reads Succeeded/None, and the truth is Facts { written: [7] }";
        let other = "0190a1b2-2222-7000-8000-000000000002 (cover_open): sent more than once: Facts { written: [7, 8] }";
        assert_eq!(kind(one), "reads Succeeded/None");
        assert_eq!(kind(one), kind(same));
        assert_ne!(kind(one), kind(other));
        let late = "wish 3 is late: at 12, and not by 7";
        assert_eq!(kind(late), "wish is late: at");
        assert_eq!(kind("it panicked at crates/x.rs:7:9: no"), "it panicked at no");
    }

    /// With one command fewer the plan fails all the same, in another way, and is not taken.
    #[test]
    fn a_plan_is_not_made_one_that_fails_in_another_way() {
        let plan = Plan::of(1);
        let count = plan.happenings.len();
        let violations = |plan: &Plan| {
            let left = plan.happenings.iter().filter(|one| one.what != What::ClockJumps { by: 0 });
            let is_whole = left.count() >= count.min(2);
            vec![if is_whole { "7 was sent twice" } else { "8 never ended" }.to_owned()]
        };
        let small = shrink_alike(&plan, violations);
        assert_eq!(violations(&small), violations(&plan));
        assert!(small.happenings.len() <= count);
        let any = shrink(&plan, |plan| !violations(plan).is_empty());
        assert_ne!(violations(&any), violations(&plan));
    }
}
