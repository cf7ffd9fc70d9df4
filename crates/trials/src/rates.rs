//! How soon each fault is found that is put in on purpose: by which seed first, and by how many. One that few seeds find is one that a
//! change of the generator may hide.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use clap::ValueEnum;
use utmos_dji::catalogue::Catalogue;
use utmos_trials::{
    Beside, Fault, Mutation, Plan, SqliteBeside, run, run_planted, shown_by, shows,
};

/// Something that is made wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wrong {
    Mutation(Mutation),
    Planted(Fault),
}

impl Wrong {
    /// All of them, but for those that end the program, and in a release for those that it cannot hold.
    pub(crate) fn all() -> Vec<Self> {
        let mutations = Mutation::value_variants().iter().copied();
        let mutations = mutations.filter(|mutation| !mutation.shows().is_empty());
        let planted = Fault::ALL.into_iter().filter(|_| cfg!(debug_assertions));
        mutations.map(Self::Mutation).chain(planted.map(Self::Planted)).collect()
    }

    fn name(self) -> String {
        match self {
            Self::Mutation(mutation) => {
                let value = mutation.to_possible_value();
                value.map_or_else(String::new, |value| value.get_name().to_owned())
            }
            Self::Planted(fault) => format!("planted: {}", fault.name()),
        }
    }

    /// Whether a plan shows it, by what it is to be shown by.
    fn is_found(self, plan: &Plan, catalogue: &Arc<Catalogue>) -> bool {
        match self {
            Self::Mutation(mutation) => {
                shows(mutation.shows(), &run(plan, Some(mutation), catalogue).violations)
            }
            Self::Planted(fault) => {
                // The store of the trials compares by itself.
                let is_of_sqlite = fault == Fault::VersionNotCompared;
                let beside = is_of_sqlite.then(|| SqliteBeside::new().ok()).flatten();
                let beside = beside.map(|beside| Box::new(beside) as Box<dyn Beside>);
                shows(shown_by(fault), &run_planted(plan, fault, catalogue, beside).violations)
            }
        }
    }

    /// A row of a table: what it is called, the first of these seeds that finds it, and how many of a thousand do.
    pub(crate) fn row(
        self,
        (first, seeds): (u64, u64),
        threads: usize,
        plan_of: impl Fn(u64) -> Plan + Sync,
        catalogue: &Arc<Catalogue>,
    ) -> String {
        let (next, found, hits) =
            (AtomicU64::new(first), AtomicU64::new(u64::MAX), AtomicU64::new(0));
        let last = first.saturating_add(seeds);
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= last {
                    return;
                }
                if self.is_found(&plan_of(seed), catalogue) {
                    found.fetch_min(seed, Ordering::Relaxed);
                    hits.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            (0..threads).for_each(|_| drop(scope.spawn(work)));
        });
        let found = match found.into_inner() {
            u64::MAX => "none".to_owned(),
            seed => seed.to_string(),
        };
        let thousands = hits.into_inner() * 1_000 / seeds.max(1);
        format!("| `{}` | {found} | {thousands} |", self.name())
    }
}
