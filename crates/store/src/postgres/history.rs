//! The history on PostgreSQL: what devices reported, for all servers that share the database. On connections of its own, so
//! that it never stands in the way of commands.
//!
//! A commit here does not wait for the disk: after a crash of PostgreSQL the last moments may be missing, and nothing else.

mod events;
mod held;
mod share;
mod spans;
mod telemetry;
mod tidy;

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use deadpool_postgres::{Object, Pool};
use tokio_postgres::Row;
use utmos_core::{
    device_event::{Alarm, DeviceEvent},
    id::{DeviceSn, TenantId},
    ports::{
        DeviceTelemetry, EventBatch, EventFilter, EventStore, SampleRange, SamplesRead, StoreError,
        TelemetryRules, TelemetryStore, Tidied,
    },
    telemetry::Latest,
    time::Timestamp,
};
use uuid::Uuid;

use self::{
    held::{EVENTS, LASTING_EVENTS},
    spans::Spans,
    telemetry::Told,
    tidy::LookedThrough,
};
use super::{
    PostgresConfig, PostgresOpenError,
    fault::{Fault, pool_error, silent},
    limits::ANSWER_WAIT,
    open::{self, Migrate},
    rare::{Params, answered, query, settle},
    url::PostgresUrl,
};
use crate::{history::telemetry::packed_rows, seal::Sealer};

/// Connections that read.
const READERS: usize = 3;
/// What commits do not wait for.
const UNSYNCED: &str = "SET synchronous_commit = off";

/// The history in PostgreSQL. Several servers write it.
pub struct PostgresHistory {
    url: PostgresUrl,
    /// One connection, so that what is written waits for nobody who reads or tidies.
    writing: Pool,
    tidying: Pool,
    reading: Pool,
    spans: Spans,
    looked_through: LookedThrough,
}

impl PostgresHistory {
    /// Connects, and brings the schema up to date where no other server has done so.
    ///
    /// # Errors
    /// When the database cannot be used; the error names it and the remedy.
    pub async fn open(config: &PostgresConfig) -> Result<Self, PostgresOpenError> {
        Self::opened(config, Migrate::Yes).await
    }

    /// Connects, and changes nothing.
    ///
    /// # Errors
    /// When the database cannot be used as it is; the error names it and the remedy.
    pub async fn open_as_it_is(config: &PostgresConfig) -> Result<Self, PostgresOpenError> {
        Self::opened(config, Migrate::No).await
    }

    async fn opened(config: &PostgresConfig, migrate: Migrate) -> Result<Self, PostgresOpenError> {
        let tls = open::tls(config)?;
        open::prepare(config, &tls, &Sealer::new(&config.master_key), migrate).await?;
        let pool_of = |connections, more| {
            open::pool(config, &tls, connections, more).map_err(|why| {
                PostgresOpenError::Unavailable { database: config.url.to_string(), why }
            })
        };
        Ok(Self {
            url: config.url.clone(),
            writing: pool_of(1, UNSYNCED)?,
            tidying: pool_of(1, UNSYNCED)?,
            reading: pool_of(READERS, "")?,
            spans: Spans::default(),
            looked_through: LookedThrough::default(),
        })
    }

    /// Gives the connections back. Later calls are refused.
    pub fn close(&self) {
        self.writing.close();
        self.tidying.close();
        self.reading.close();
    }

    /// A statement that reads, prepared once for each connection.
    async fn rows(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let client = self.reading.get().await.map_err(|err| pool_error(&err))?;
        answered!(client, |client| query(client, sql, params)).map_err(Fault::into_error)
    }

    /// A statement that reads and is asked once as it stands.
    async fn rows_once(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let client = self.reading.get().await.map_err(|err| pool_error(&err))?;
        answered!(client, |client| async { Ok(client.query(sql, params).await?) })
            .map_err(Fault::into_error)
    }

    async fn try_keep(&self, told: &Told) -> Result<(), Fault> {
        let client = self.writing.get().await?;
        answered!(client, |client| async {
            self.spans.ensure(client, &told.spans()).await?;
            let tx = client.transaction().await?;
            told.write(&tx).await?;
            Ok(tx.commit().await?)
        })
    }

    async fn try_keep_events(&self, batch: &EventBatch) -> Result<usize, Fault> {
        let client = self.writing.get().await?;
        answered!(client, |client| async {
            self.spans.ensure(client, &events::weeks_of(batch)).await?;
            let tx = client.transaction().await?;
            let new = events::write(&tx, batch).await?;
            tx.commit().await?;
            Ok(new)
        })
    }
}

impl fmt::Debug for PostgresHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresHistory").field("url", &self.url).finish_non_exhaustive()
    }
}

#[async_trait]
impl TelemetryStore for PostgresHistory {
    fn is_shared(&self) -> bool {
        true
    }

    async fn keep_telemetry(&self, told: Vec<DeviceTelemetry>) -> Result<(), StoreError> {
        let (pieces, newest) = packed_rows(told).await?;
        if pieces.is_empty() && newest.is_empty() {
            return Ok(());
        }
        let told = Told::new(pieces, newest);
        let mut tries = 0;
        loop {
            let attempt = self.try_keep(&told).await;
            if matches!(attempt, Err(Fault::Crossed(_))) {
                self.spans.forget();
            }
            if let Some(answer) = settle(attempt, &mut tries) {
                return answer;
            }
        }
    }

    async fn latest_telemetry(
        &self,
        devices: Vec<(TenantId, DeviceSn)>,
    ) -> Result<BTreeMap<DeviceSn, Latest>, StoreError> {
        self.read_latest(&devices).await
    }

    async fn samples(
        &self,
        range: SampleRange,
        pieces_max: usize,
        bytes_max: usize,
    ) -> Result<SamplesRead, StoreError> {
        self.read_samples(&range, pieces_max, bytes_max).await
    }

    async fn tidy_telemetry(
        &self,
        rules: &TelemetryRules,
        now: Timestamp,
    ) -> Result<Tidied, StoreError> {
        let mut client = self.tidying.get().await.map_err(|err| pool_error(&err))?;
        let step = tidy::step(&mut client, &self.looked_through, rules, now);
        let did = tokio::time::timeout(ANSWER_WAIT, step).await.unwrap_or_else(|_| Err(silent()));
        if did.is_err() {
            // It may hold the lock of whoever tidies.
            drop(Object::take(client));
        }
        match did {
            // Whoever wrote at the same moment went first.
            Err(Fault::Crossed(_)) => Ok(Tidied { more: true, ..Tidied::default() }),
            other => other.map_err(Fault::into_error),
        }
    }

    async fn history_bytes(&self) -> Result<u64, StoreError> {
        let rows = self.rows(share::USED, &[]).await?;
        let bytes = rows.first().and_then(|row| row.try_get::<_, i64>(0).ok());
        Ok(bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0))
    }
}

#[async_trait]
impl EventStore for PostgresHistory {
    async fn keep_events(&self, batch: EventBatch) -> Result<usize, StoreError> {
        let mut tries = 0;
        loop {
            let attempt = self.try_keep_events(&batch).await;
            if matches!(attempt, Err(Fault::Crossed(_))) {
                self.spans.forget();
            }
            if let Some(answer) = settle(attempt, &mut tries) {
                return answer;
            }
        }
    }

    async fn events_of(
        &self,
        tenant: TenantId,
        device: DeviceSn,
        filter: EventFilter,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<DeviceEvent>, StoreError> {
        self.page_of_events(tenant, &device, &filter, before, limit).await
    }

    async fn alarms(&self) -> Result<Vec<Alarm>, StoreError> {
        self.every_alarm().await
    }

    async fn forget_events(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let client = self.tidying.get().await.map_err(|err| pool_error(&err))?;
        let whats = [EVENTS, LASTING_EVENTS];
        answered!(client, |client| tidy::forget_weeks(client, before, limit, &whats))
            .map_err(Fault::into_error)
    }
}
