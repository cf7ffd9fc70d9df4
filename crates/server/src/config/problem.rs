//! What is wrong with a configuration.

use std::fmt;

use super::layer::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key as it is written at its origin; empty when a file cannot be read at all.
    pub key: String,
    /// The value as it may be shown; `None` for secrets and where there is none.
    pub value: Option<String>,
    /// Where it stands.
    pub origin: Origin,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            return write!(f, "{}: {}", self.origin, self.problem);
        }
        let value = self.value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default();
        write!(f, "{}{value} ({}): {}", self.key, self.origin, self.problem)
    }
}

/// Everything that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} problem{}", if count == 1 { "" } else { "s" })?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
