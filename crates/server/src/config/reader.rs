//! Reads the values in force into types, and collects what does not fit.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use utmos_core::credential::Secret;

use super::{
    layer::{Given, Layers, Origin, Raw},
    problem::{ConfigErrors, Problem},
};

/// A key with the value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: String,
    /// The value as it may be shown: as TOML, secrets masked.
    pub shown: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// What stands for a value that does not fit, until all problems are known and nothing is handed out.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub(super) struct Reader {
    layers: Layers,
    rows: Vec<Row>,
}

impl Reader {
    pub(super) fn new(layers: Layers) -> Self {
        Self { layers, rows: Vec::new() }
    }

    /// Every row in the order of the default file, unless something was wrong.
    pub(super) fn finish(mut self) -> Result<Vec<Row>, ConfigErrors> {
        if !self.layers.problems.is_empty() {
            return Err(ConfigErrors(self.layers.problems));
        }
        let place = |row: &Row| self.layers.keys.iter().position(|key| *key == row.key);
        self.rows.sort_by_key(place);
        Ok(self.rows)
    }

    pub(super) fn text(&mut self, key: &str) -> String {
        let text = self.plain_text(key);
        self.show(key, quoted(&text));
        text
    }

    pub(super) fn optional_text(&mut self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    /// Text that is never shown.
    pub(super) fn secret(&mut self, key: &str) -> Secret {
        let given = self.given(key);
        let text = match given.raw {
            Raw::Text(text) | Raw::Toml(toml::Value::String(text)) => text,
            Raw::Toml(_) => {
                self.push(key, None, given.origin, "must be text in quotation marks".to_owned());
                String::new()
            }
        };
        self.show(key, if text.is_empty() { quoted("") } else { "(secret)".to_owned() });
        Secret::new(text)
    }

    pub(super) fn path(&mut self, key: &str) -> PathBuf {
        let text = self.text(key);
        if text.is_empty() {
            self.refuse(key, "must be a path");
        }
        PathBuf::from(text)
    }

    pub(super) fn optional_path(&mut self, key: &str) -> Option<PathBuf> {
        self.optional_text(key).map(PathBuf::from)
    }

    /// A path, or `otherwise` when it is left empty; what is in force is shown.
    pub(super) fn path_or(&mut self, key: &str, otherwise: PathBuf) -> PathBuf {
        let path = self.optional_path(key).unwrap_or(otherwise);
        if let Some(row) = self.rows.last_mut() {
            row.shown = quoted(&path.display().to_string());
        }
        path
    }

    pub(super) fn address(&mut self, key: &str) -> SocketAddr {
        self.optional_address(key).unwrap_or_else(|| {
            self.refuse(key, "must be an address and a port, such as 127.0.0.1:8080 or [::]:8080");
            NOWHERE
        })
    }

    pub(super) fn optional_address(&mut self, key: &str) -> Option<SocketAddr> {
        let text = self.optional_text(key)?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                self.refuse(
                    key,
                    "must be an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080",
                );
                Some(NOWHERE)
            }
        }
    }

    pub(super) fn size(&mut self, key: &str, allowed: RangeInclusive<u64>) -> usize {
        usize::try_from(self.whole(key, allowed, "")).unwrap_or(usize::MAX)
    }

    pub(super) fn port(&mut self, key: &str) -> u16 {
        u16::try_from(self.whole(key, 1..=u64::from(u16::MAX), "")).unwrap_or(u16::MAX)
    }

    pub(super) fn seconds(&mut self, key: &str, allowed: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.whole(key, allowed, " of seconds"))
    }

    pub(super) fn flag(&mut self, key: &str) -> bool {
        let given = self.given(key);
        let value = match &given.raw {
            Raw::Toml(toml::Value::Boolean(value)) => Some(*value),
            Raw::Text(text) => match text.as_str() {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            },
            Raw::Toml(_) => None,
        };
        self.show(key, value.unwrap_or_default().to_string());
        value.unwrap_or_else(|| {
            self.push(key, Some(shown(&given)), given.origin, "must be true or false".to_owned());
            false
        })
    }

    /// One of some words; the first stands in for one that does not fit.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> T {
        let text = self.text(key);
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<String> = choices.iter().map(|(word, _)| quoted(word)).collect();
            self.refuse(key, &format!("must be one of {}", words.join(", ")));
        }
        found.map_or(choices[0].1, |(_, choice)| *choice)
    }

    /// Notes a problem with the value in force of `key`, once.
    pub(super) fn refuse(&mut self, key: &str, problem: &str) {
        if self.layers.problems.iter().any(|known| known.key == key) {
            return;
        }
        let given = self.given(key);
        self.push(key, Some(shown(&given)), given.origin, problem.to_owned());
    }

    fn whole(&mut self, key: &str, allowed: RangeInclusive<u64>, of: &str) -> u64 {
        let given = self.given(key);
        let number = match &given.raw {
            Raw::Toml(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            Raw::Text(text) => text.parse().ok(),
            Raw::Toml(_) => None,
        };
        let number = number.filter(|number| allowed.contains(number));
        self.show(key, number.unwrap_or_default().to_string());
        number.unwrap_or_else(|| {
            let problem =
                format!("must be a whole number{of} from {} to {}", allowed.start(), allowed.end());
            self.push(key, Some(shown(&given)), given.origin, problem);
            *allowed.start()
        })
    }

    fn plain_text(&mut self, key: &str) -> String {
        let given = self.given(key);
        match given.raw {
            Raw::Text(text) | Raw::Toml(toml::Value::String(text)) => text,
            Raw::Toml(_) => {
                let problem = "must be text in quotation marks".to_owned();
                self.push(key, Some(shown(&given)), given.origin, problem);
                String::new()
            }
        }
    }

    fn given(&mut self, key: &str) -> Given {
        if let Some(given) = self.layers.given.get(key) {
            return given.clone();
        }
        let problem = "has no default in the shipped file".to_owned();
        self.push(key, None, Origin::Default, problem);
        Given { raw: Raw::Text(String::new()), origin: Origin::Default }
    }

    fn show(&mut self, key: &str, shown: String) {
        let origin =
            self.layers.given.get(key).map_or(Origin::Default, |given| given.origin.clone());
        self.rows.push(Row { key: key.to_owned(), shown, origin });
    }

    fn push(&mut self, key: &str, value: Option<String>, origin: Origin, problem: String) {
        self.layers.problems.push(Problem { key: key.to_owned(), value, origin, problem });
    }
}

fn shown(given: &Given) -> String {
    match &given.raw {
        Raw::Text(text) => quoted(text),
        Raw::Toml(value) => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
