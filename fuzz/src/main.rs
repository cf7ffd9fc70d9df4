//! All targets of `utmos-hostile` in one program; the environment variable `TARGET` says which it is this time.
#![no_main]

use std::sync::LazyLock;

use utmos_hostile::{TARGETS, Target, target};

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("there is no target {name:?}; set TARGET to one of {}", names.join(", "));
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(init: { LazyLock::force(&CHOSEN); }, |input: &[u8]| (CHOSEN.run)(input));
