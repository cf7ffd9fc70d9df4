//! What simulated docks connect with, as a file says it.

use std::{collections::BTreeSet, fmt};

use serde::Deserialize;
use utmos_core::id::GatewaySn;

/// What a dock connects with.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Its serial number, which is its user name too. As read from a file, always one.
    pub sn: String,
    /// Its MQTT password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("sn", &self.sn).finish_non_exhaustive()
    }
}

/// Why a text names no docks. Never repeats a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LoginError {
    /// From 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Login {
    /// Reads lines of a serial number and a password (`#` begins a remark), or what `utmos device add --json` printed:
    /// JSON objects one after another.
    ///
    /// # Errors
    /// With the line, when one is neither, or names a dock again.
    pub fn read_all(text: &str) -> Result<Vec<Self>, LoginError> {
        if text.trim_start().starts_with('{') { objects(text) } else { lines(text) }
    }
}

fn lines(text: &str) -> Result<Vec<Login>, LoginError> {
    let mut logins = Logins::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((sn, password)) = line.split_once(char::is_whitespace) else {
            return Err(LoginError { line: number, problem: "must be: SN PASSWORD".to_owned() });
        };
        logins.add(number, sn, password.trim())?;
    }
    Ok(logins.all)
}

fn objects(text: &str) -> Result<Vec<Login>, LoginError> {
    #[derive(Deserialize)]
    struct Object {
        sn: String,
        password: String,
    }
    let mut logins = Logins::default();
    let mut objects = serde_json::Deserializer::from_str(text).into_iter::<Object>();
    loop {
        let begins = text.get(objects.byte_offset()..).unwrap_or_default().trim_start();
        let line = text[..text.len() - begins.len()].matches('\n').count() + 1;
        match objects.next() {
            None => return Ok(logins.all),
            Some(Ok(object)) => logins.add(line, &object.sn, &object.password)?,
            // What the library says may repeat the password.
            Some(Err(_)) => {
                let problem = "must be a JSON object with \"sn\" and \"password\", both texts";
                return Err(LoginError { line, problem: problem.to_owned() });
            }
        }
    }
}

#[derive(Default)]
struct Logins {
    all: Vec<Login>,
    known: BTreeSet<String>,
}

impl Logins {
    fn add(&mut self, line: usize, sn: &str, password: &str) -> Result<(), LoginError> {
        GatewaySn::parse(sn).map_err(|err| LoginError { line, problem: err.to_string() })?;
        if !self.known.insert(sn.to_owned()) {
            let problem = format!("{sn} stands there twice; each dock connects once");
            return Err(LoginError { line, problem });
        }
        self.all.push(Login { sn: sn.to_owned(), password: password.to_owned() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn logins_are_read_as_lines_and_as_what_device_add_prints() {
        let read = |text: &str| -> Vec<(String, String)> {
            let all = Login::read_all(text).unwrap();
            all.into_iter().map(|login| (login.sn, login.password)).collect()
        };
        let expected = [("A".to_owned(), "p1".to_owned()), ("B".to_owned(), "p2".to_owned())];
        assert_eq!(read("# docks\nA p1\n\n B\tp2 \n"), expected);
        let printed = "{\"sn\":\"A\",\"kind\":\"dock\",\"password\":\"p1\"}\n{\"sn\":\"B\",\"password\":\"p2\"}\n";
        assert_eq!(read(printed), expected);
        assert!(read("").is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_without_the_password() {
        for (text, expected) in [
            ("A\n", "line 1: must be: SN PASSWORD"),
            ("A p\n\nB/+ hunter2", "line 3: a serial number is 1 to"),
            ("A p\nA hunter2", "line 2: A stands there twice"),
            ("{\"sn\":\"A\"}", "line 1: must be a JSON object with"),
            (
                "{\"sn\":\"A\",\"password\":\"p\"}\n{\"sn\":{},\"password\":\"hunter2\"}",
                "line 2: must be a JSON",
            ),
            ("{\"sn\":\"hunter2\",\"password\":12345}", "line 1: must be a JSON"),
            ("{\"sn\":\"A\",\"password\":\"p\"}\n x", "line 2: must be a JSON"),
        ] {
            let told = Login::read_all(text).unwrap_err().to_string();
            assert!(told.starts_with(expected), "{text}: {told}");
            assert!(!told.contains("hunter2") && !told.contains("12345"), "{told}");
        }
    }
}
