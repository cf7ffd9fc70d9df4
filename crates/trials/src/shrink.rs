//! Makes a plan that fails smaller, as long as it goes on failing.

use crate::plan::{Plan, What};

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
