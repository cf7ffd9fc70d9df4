//! `utmos-hostile`: makes the seeds in `fuzz/corpus/`, or tries files on a target.

use std::{env, fs};

use anyhow::{Context, bail};
use utmos_hostile::{TARGETS, seeds, target};

const USAGE: &str = "usage: utmos-hostile seeds | utmos-hostile TARGET FILE…";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (Some(first), files) = (arguments.first(), arguments.get(1..).unwrap_or_default()) else {
        bail!(USAGE)
    };
    if first == "seeds" && files.is_empty() {
        for (target, seeds) in seeds::make()? {
            let folder = seeds::folder(target);
            fs::create_dir_all(&folder)?;
            for (name, bytes) in seeds {
                fs::write(folder.join(name), bytes)?;
            }
        }
        return Ok(());
    }
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    let Some(target) = target(first) else {
        bail!("{USAGE}\nthere is no target {first}; there are {}", names())
    };
    for file in files {
        let input = fs::read(file).with_context(|| format!("{file} cannot be read"))?;
        (target.run)(&input);
    }
    Ok(())
}
