//! What taking over a SQLite database needs of this one: a connection that may take its time, partitions, and the marks
//! that keep servers out until everything is there.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use utmos_core::ports::StoreError;
use uuid::Uuid;

pub(crate) use super::replicas::dissolve;
use super::{
    PostgresConfig, PostgresOpenError,
    fault::{Fault, to_store_error},
    open::{self, Migrate},
    partitions::{Week, Weeks},
};
use crate::seal::Sealer;

/// Held while a database is filled. `UTMS` and a number.
pub(crate) const IMPORT_LOCK: i64 = 0x5554_4D53_0000_0003;
/// In `meta`: which SQLite database was taken over.
pub(crate) const IMPORTED: &str = "imported_from";
/// In `meta`, while that is under way: no server may open the database.
pub(crate) const IMPORTING: &str = open::IMPORTING;
/// In `meta`, once it is taken over into SQLite: no server may open it any more.
pub(crate) const EXPORTED: &str = open::EXPORTED;

/// Connects, with the schema up to date, and without bounds on how long a statement may take.
pub(crate) async fn connect(config: &PostgresConfig) -> Result<Client, PostgresOpenError> {
    let tls = open::tls(config)?;
    open::prepare(config, &tls, &Sealer::new(&config.master_key), Migrate::ForImport).await?;
    open::connect_patiently(config, &tls).await
}

/// The column by whose ids a table is partitioned.
pub(crate) fn partitioned_by(table: &str) -> Option<&'static str> {
    match table {
        "commands" | "lives" => Some("id"),
        "timeline" => Some("command"),
        _ => None,
    }
}

/// The partitions that are known to be there.
#[derive(Default)]
pub(crate) struct Partitions(Weeks);

impl Partitions {
    /// Makes the partitions in which these lie.
    pub(crate) async fn make_for(
        &mut self,
        client: &mut Client,
        ids: impl Iterator<Item = Uuid>,
    ) -> Result<(), StoreError> {
        let weeks: BTreeSet<Week> = ids.map(Week::of).collect();
        self.0.ensure(client, &weeks).await.map_err(Fault::into_error)
    }
}

/// What failed, with the remedy.
pub(crate) fn why(err: &tokio_postgres::Error) -> String {
    let (StoreError::Unavailable(why) | StoreError::Damaged(why)) = to_store_error(err);
    why
}
