//! Where values come from, before anybody asks what they mean.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use utmos_core::nearest;

use super::{DEFAULT_FILE, problem::Problem};

/// What every variable of ours begins with.
const PREFIX: &str = "UTMOS_";

/// Variables that begin like ours and are no settings of the server.
pub const OTHER_VARIABLES: [&str; 6] = [
    "UTMOS_URL",
    "UTMOS_API_ID",
    "UTMOS_API_KEY",
    "UTMOS_CONFIG",
    "UTMOS_MASTER_KEY",
    "UTMOS_STORE_PASSWORD",
];

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The shipped default file.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// A flag, as it is called.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value as it was found.
#[derive(Debug, Clone)]
pub(super) enum Raw {
    /// From the environment or a flag, where everything is text.
    Text(String),
    /// From a file.
    Toml(toml::Value),
}

/// A value with its origin.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// Layers of values, the later ones on top.
pub struct Layers {
    /// Known keys in the order of the default file.
    pub(super) keys: Vec<String>,
    /// What is in force.
    pub(super) given: BTreeMap<String, Given>,
    pub(super) problems: Vec<Problem>,
}

impl Default for Layers {
    fn default() -> Self {
        Self::new()
    }
}

impl Layers {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        let mut layers = Self { keys: Vec::new(), given: BTreeMap::new(), problems: Vec::new() };
        match DEFAULT_FILE.parse::<toml::Table>() {
            Ok(table) => {
                for (key, value) in flatten(&table) {
                    let given = Given { raw: Raw::Toml(value), origin: Origin::Default };
                    layers.given.insert(key.clone(), given);
                    layers.keys.push(key);
                }
            }
            Err(err) => layers.refuse_file(Origin::Default, &err, DEFAULT_FILE),
        }
        // A table of `toml` is sorted by name; people know the order of the file.
        let place = |key: &String| {
            let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
            let section = DEFAULT_FILE.find(&format!("\n[{section}]\n")).unwrap_or(0);
            let name =
                DEFAULT_FILE.get(section..).and_then(|rest| rest.find(&format!("\n{name} = ")));
            (section, name)
        };
        layers.keys.sort_by_key(place);
        layers
    }

    /// Puts a configuration file on top.
    #[must_use]
    pub fn file(mut self, path: &Path, text: &str) -> Self {
        let origin = Origin::File(path.to_owned());
        match text.parse::<toml::Table>() {
            Ok(table) => {
                for (key, value) in flatten(&table) {
                    self.put(&key, Raw::Toml(value), origin.clone());
                }
            }
            Err(err) => self.refuse_file(origin, &err, text),
        }
        self
    }

    /// Puts the environment on top. Variables that do not begin with `UTMOS_` are left alone.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let names: BTreeMap<String, String> =
            self.keys.iter().map(|key| (variable(key), key.clone())).collect();
        for (name, value) in variables {
            if !name.starts_with(PREFIX) || OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            if let Some(key) = names.get(&name) {
                self.put(key, Raw::Text(value), Origin::Environment(name));
                continue;
            }
            let known = names.keys().map(String::as_str).chain(OTHER_VARIABLES);
            let problem = unknown("variable", nearest(&name, known));
            self.problems.push(Problem {
                origin: Origin::Environment(name.clone()),
                key: name,
                value: None,
                problem,
            });
        }
        self
    }

    /// Puts the value of a flag on top, such as `--data-dir` for `data_dir`.
    #[must_use]
    pub fn flag(mut self, flag: &str, key: &str, value: &str) -> Self {
        self.put(key, Raw::Text(value.to_owned()), Origin::Flag(flag.to_owned()));
        self
    }

    /// Puts assignments of the form `http.listen=…` on top.
    #[must_use]
    pub fn assignments<'a>(
        mut self,
        flag: &str,
        assignments: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        for assignment in assignments {
            match assignment.split_once('=') {
                Some((key, value)) => self = self.flag(flag, key.trim(), value),
                None => self.problems.push(Problem {
                    key: named(assignment),
                    value: None,
                    origin: Origin::Flag(flag.to_owned()),
                    problem: "must be a key and its value, such as http.listen=127.0.0.1:8080"
                        .to_owned(),
                }),
            }
        }
        self
    }

    fn put(&mut self, key: &str, raw: Raw, origin: Origin) {
        if self.keys.iter().any(|known| known == key) {
            self.given.insert(key.to_owned(), Given { raw, origin });
            return;
        }
        let section = format!("{key}.");
        let problem = match self.keys.iter().find(|known| known.starts_with(&section)) {
            Some(member) => format!("is a section; set its keys, such as {member}"),
            None => unknown("key", nearest(key, self.keys.iter().map(String::as_str))),
        };
        self.problems.push(Problem { key: named(key), value: None, origin, problem });
    }

    /// The text of a file may hold secrets, so that the message names the place and does not quote it.
    fn refuse_file(&mut self, origin: Origin, err: &toml::de::Error, text: &str) {
        let before = err.span().and_then(|span| text.get(..span.start)).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let problem = format!("is no TOML: line {line}: {}", err.message());
        self.problems.push(Problem { key: String::new(), value: None, origin, problem });
    }
}

/// A key as a problem names it. One that is empty is seen as such: no key at all stands for a whole file.
fn named(key: &str) -> String {
    if key.is_empty() { "\"\"".to_owned() } else { key.to_owned() }
}

/// The variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

fn unknown(what: &str, nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("unknown {what}; did you mean {nearest}?"),
        None => format!("unknown {what}; `utmos config default` lists those there are"),
    }
}

/// Every value with its dotted key; a section without keys stands for itself.
fn flatten(table: &toml::Table) -> Vec<(String, toml::Value)> {
    let mut flat = Vec::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) if !inner.is_empty() => {
                flat.extend(
                    flatten(inner).into_iter().map(|(key, value)| (format!("{name}.{key}"), value)),
                );
            }
            toml::Value::Table(_)
            | toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_) => flat.push((name.clone(), value.clone())),
        }
    }
    flat
}
