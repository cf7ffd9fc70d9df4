//! What no lint can check: the arrows between crates, the length of files, the licences of what we depend on.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Longest file of ours, in lines. One subject fits.
const LINES_MAX: usize = 700;

/// Who may import whom (`ARCHITECTURE.md`, "The rooms").
const ARROWS: [(&str, &[&str]); 9] = [
    ("core", &[]),
    ("dji", &["core"]),
    ("mqtt", &[]),
    ("store", &["core"]),
    ("server", &["core", "dji", "mqtt"]),
    ("sim", &["core", "dji", "mqtt"]),
    ("utmos", &["core", "dji", "mqtt", "store", "server", "sim"]),
    ("trials", &["core", "dji", "mqtt", "store", "server"]),
    ("hostile", &["core", "dji", "mqtt", "store", "server", "sim", "trials"]),
];

/// Licences that may be linked, as SPDX names.
const LICENCES: [&str; 12] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MPL-2.0",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "CDLA-Permissive-2.0",
];

/// Crates that must not come in: C libraries with long builds, second TLS stacks.
const UNWANTED: [&str; 3] = ["openssl-sys", "aws-lc-sys", "native-tls"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace").to_owned()
}

#[test]
fn crates_import_only_what_the_architecture_allows() {
    let mut crates = BTreeSet::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        crates.insert(entry.unwrap().file_name().into_string().unwrap());
    }
    assert_eq!(crates, ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (name, allowed) in ARROWS {
        let manifest =
            fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        let ours: BTreeSet<&str> =
            dependencies.keys().filter_map(|name| name.strip_prefix("utmos-")).collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        assert!(ours.is_subset(&allowed), "{name} imports {ours:?}; allowed are {allowed:?}");
    }
}

#[test]
fn decisions_know_no_runtime() {
    for name in ["core", "dji"] {
        let manifest =
            fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        for unwanted in
            ["tokio", "rusqlite", "axum", "mqtt5-protocol", "reqwest", "rand", "getrandom"]
        {
            assert!(
                manifest["dependencies"].get(unwanted).is_none(),
                "{name} depends on {unwanted}"
            );
        }
    }
}

#[test]
fn files_have_one_subject() {
    let mut too_long = Vec::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let lines = fs::read_to_string(&path).unwrap().lines().count();
                if lines > LINES_MAX {
                    too_long.push(format!("{} ({lines})", path.display()));
                }
            }
        }
    }
    assert!(too_long.is_empty(), "longer than {LINES_MAX} lines: {too_long:#?}");
}

/// What runs in a trial takes its chances from the trial's seed alone: `select!` would throw its own, and no seed would run
/// again as it ran.
#[test]
fn nothing_that_a_seed_runs_throws_dice_of_its_own() {
    let mut unbiased = Vec::new();
    let mut selects = 0;
    let ran = ["core", "store", "server", "trials"];
    let mut folders: Vec<_> =
        ran.iter().map(|name| root().join("crates").join(name).join("src")).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for (at, _) in text.match_indices("select! {") {
                selects += 1;
                let body = text.get(at..).unwrap().split_once('{').unwrap().1;
                if !body.trim_start().starts_with("biased;") {
                    let line = text.get(..at).unwrap().lines().count();
                    unbiased.push(format!("{}:{line}", path.display()));
                }
            }
        }
    }
    assert!(selects > 40, "{selects} are found: how they are looked for is wrong");
    assert!(unbiased.is_empty(), "say `biased;` and put first what must be: {unbiased:#?}");
}

#[test]
fn everything_linked_has_a_licence_we_may_ship() {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            host,
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut refused = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_allowed(licence) || UNWANTED.contains(&name) {
            refused.insert(name.to_owned(), licence.to_owned());
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Whether an SPDX expression offers a way that is allowed. `/` is the old spelling of `OR`.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    expression.split(" OR ").any(|way| way.split(" AND ").all(|one| LICENCES.contains(&one.trim())))
}

#[test]
fn licence_expressions_are_read() {
    for good in [
        "MIT OR Apache-2.0",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(is_allowed(good), "{good}");
    }
    for bad in ["GPL-3.0", "none", "MIT AND AGPL-3.0", "EPL-2.0"] {
        assert!(!is_allowed(bad), "{bad}");
    }
}
