//! Where servers on one store tell each other how much of their callers' allowances they have given.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;

/// What a server has given of one allowance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Whose, unique over all.
    pub name: String,
    /// How long it takes to come by what was given.
    pub given: Duration,
    /// No more than so much of it is ever missing.
    pub most: Duration,
}

/// What all servers together have given. May be lost with a crash of the store: then everybody has a whole allowance once.
#[async_trait]
pub trait AllowanceStore: Send + Sync {
    /// Adds what was given to what is missing, all of it at one moment by the store's own clock. Answers, in the order
    /// of the charges, how long each allowance takes from then to be whole. The names differ from each other.
    async fn charge(&self, charges: Vec<Charge>) -> Result<Vec<Duration>, StoreError>;
}
