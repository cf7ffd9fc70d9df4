//! Telemetry over time: pieces of samples, packed, one row each.

mod pack;
mod share;
pub(crate) mod tidy;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use rusqlite::{Connection, Row, Transaction, params};
use utmos_core::{
    device::DeviceKind,
    id::{DeviceSn, TenantId},
    ports::{
        DeviceTelemetry, SamplePlace, SampleRange, SamplesRead, StoreError, TelemetryRules,
        TelemetryStore, Tidied,
    },
    telemetry::{Latest, SPAN_MAX, Sample, Samples},
    time::Timestamp,
};

use self::pack::{pack, unpack};
use super::HistoryFile;
use crate::sqlite::fault::to_store_error;

/// One row of `telemetry`, ready to be written.
pub(crate) struct Piece {
    pub(crate) tenant: TenantId,
    pub(crate) device: DeviceSn,
    pub(crate) kind: DeviceKind,
    pub(crate) merged: bool,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) samples: usize,
    pub(crate) bytes: usize,
    pub(crate) body: Vec<u8>,
}

/// One row of `telemetry_latest`, ready to be written.
pub(crate) struct Newest {
    pub(crate) tenant: TenantId,
    pub(crate) device: DeviceSn,
    pub(crate) kind: DeviceKind,
    pub(crate) at: Timestamp,
    pub(crate) bytes: usize,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn kind_code(kind: DeviceKind) -> i64 {
    match kind {
        DeviceKind::Dock => 0,
        DeviceKind::RemoteController => 1,
        DeviceKind::Aircraft => 2,
    }
}

impl Piece {
    pub(crate) fn of(
        tenant: TenantId,
        device: &DeviceSn,
        kind: DeviceKind,
        merged: bool,
        samples: &Samples,
    ) -> Self {
        Self {
            tenant,
            device: device.clone(),
            kind,
            merged,
            first: samples.first(),
            last: samples.last(),
            samples: samples.count(),
            bytes: samples.bytes().len(),
            body: pack(samples.bytes()),
        }
    }

    fn insert(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = "INSERT INTO telemetry (tenant, device, kind, merged, first_ms, last_ms, samples, bytes, body)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        tx.prepare_cached(sql)?.execute(params![
            self.tenant.uuid().as_bytes(),
            self.device.as_str(),
            kind_code(self.kind),
            self.merged,
            self.first.as_millis(),
            self.last.as_millis(),
            whole(self.samples),
            whole(self.bytes),
            self.body,
        ])?;
        Ok(())
    }
}

impl Newest {
    fn of(told: &DeviceTelemetry, latest: &Latest) -> Option<Self> {
        let text = latest.to_text();
        Some(Self {
            tenant: told.tenant,
            device: told.device.clone(),
            kind: told.kind,
            at: latest.updated_at()?,
            bytes: text.len(),
            body: pack(text.as_bytes()),
        })
    }

    fn put(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = "INSERT INTO telemetry_latest (tenant, device, kind, at_ms, bytes, body)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                   ON CONFLICT (tenant, device) DO UPDATE
                   SET kind = excluded.kind, at_ms = excluded.at_ms, bytes = excluded.bytes, body = excluded.body";
        tx.prepare_cached(sql)?.execute(params![
            self.tenant.uuid().as_bytes(),
            self.device.as_str(),
            kind_code(self.kind),
            self.at.as_millis(),
            whole(self.bytes),
            self.body,
        ])?;
        Ok(())
    }
}

pub(crate) fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn millis(wait: Duration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
}

/// Packed bytes as they are read: how long they were, and what they are now.
pub(crate) struct Packed {
    pub(crate) bytes: i64,
    pub(crate) body: Vec<u8>,
}

impl Packed {
    pub(crate) fn samples(&self, first: Timestamp) -> Option<Vec<Sample>> {
        Samples::read(first, &unpack(&self.body, self.bytes)?).ok()
    }

    /// What a device told last; nothing where it is damaged.
    pub(crate) fn latest(&self, device: &DeviceSn) -> Option<Latest> {
        let text = unpack(&self.body, self.bytes).and_then(|text| String::from_utf8(text).ok());
        let latest = text.and_then(|text| Latest::parse(&text).ok());
        if latest.is_none() {
            passed_over(device, "what it told last");
        }
        latest
    }

    /// Adds those of its samples that are asked for.
    pub(crate) fn add_to(
        &self,
        read: &mut SamplesRead,
        range: &SampleRange,
        begin: SamplePlace,
        place: SamplePlace,
    ) {
        let Some(samples) = self.samples(place.first) else {
            return passed_over(&range.device, "a few seconds of it");
        };
        let skipped = if place.piece == begin.piece { begin.index } else { 0 };
        let within = samples.into_iter().enumerate().skip(skipped);
        let within = within.filter(|(_, one)| range.from <= one.at && one.at < range.to);
        read.samples.extend(within.map(|(index, sample)| (SamplePlace { index, ..place }, sample)));
    }
}

/// One row with damage must not hide all the others.
fn passed_over(device: &DeviceSn, what: &str) {
    tracing::warn!(device.sn = %device, "telemetry is damaged: {what} cannot be read and is passed over");
}

fn read_latest(
    conn: &Connection,
    tenant: TenantId,
    device: &DeviceSn,
) -> Result<Option<Latest>, StoreError> {
    let sql = "SELECT bytes, body FROM telemetry_latest WHERE tenant = ?1 AND device = ?2";
    let found = (|| {
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![tenant.uuid().as_bytes(), device.as_str()])?;
        rows.next()?.map(|row| Ok(Packed { bytes: row.get(0)?, body: row.get(1)? })).transpose()
    })()
    .map_err(|err: rusqlite::Error| to_store_error(&err))?;
    Ok(found.and_then(|packed: Packed| packed.latest(device)))
}

fn place_and_bytes(row: &Row<'_>) -> rusqlite::Result<(SamplePlace, usize)> {
    let first = Timestamp::from_millis(row.get(1)?);
    let place = SamplePlace { first, piece: row.get(0)?, index: 0 };
    // A number with damage is found when the piece is unpacked.
    Ok((place, usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0)))
}

fn packed(row: &Row<'_>) -> rusqlite::Result<Packed> {
    Ok(Packed { bytes: row.get(2)?, body: row.get(3)? })
}

/// Where reading begins.
pub(crate) fn begin_of(range: &SampleRange) -> SamplePlace {
    // A piece is no longer than this, so none that begins earlier reaches into the range.
    let earliest = range.from.as_millis().saturating_sub(millis(SPAN_MAX));
    let first = Timestamp::from_millis(earliest);
    range.begin.unwrap_or(SamplePlace { first, piece: 0, index: 0 })
}

/// Packs what is to be kept: takes most of the time, and needs no transaction.
pub(crate) async fn packed_rows(
    told: Vec<DeviceTelemetry>,
) -> Result<(Vec<Piece>, Vec<Newest>), StoreError> {
    let packed = tokio::task::spawn_blocking(move || {
        let (mut pieces, mut newest) = (Vec::new(), Vec::new());
        for one in &told {
            let DeviceTelemetry { tenant, device, kind, samples, latest } = one;
            pieces.extend(
                samples.iter().map(|piece| Piece::of(*tenant, device, *kind, false, piece)),
            );
            newest.extend(latest.as_ref().and_then(|latest| Newest::of(one, latest)));
        }
        (pieces, newest)
    });
    packed.await.map_err(|err| StoreError::Unavailable(format!("packing was broken off: {err}")))
}

fn read_samples(
    conn: &Connection,
    range: &SampleRange,
    pieces_max: usize,
    bytes_max: usize,
) -> Result<SamplesRead, StoreError> {
    let begin = begin_of(range);
    let sql = "SELECT id, first_ms, bytes, body FROM telemetry
               WHERE tenant = ?1 AND device = ?2 AND first_ms >= ?3 AND first_ms < ?4 AND last_ms >= ?5
                 AND (first_ms > ?3 OR id >= ?6)
               ORDER BY first_ms, id LIMIT ?7";
    let mut read = SamplesRead::default();
    let pieces = (|| {
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![
            range.tenant.uuid().as_bytes(),
            range.device.as_str(),
            begin.first.as_millis(),
            range.to.as_millis(),
            range.from.as_millis(),
            begin.piece,
            whole(pieces_max.saturating_add(1)),
        ])?;
        let mut pieces = Vec::new();
        while let Some(row) = rows.next()? {
            let (place, bytes) = place_and_bytes(row)?;
            let fits = read.pieces < pieces_max && bytes <= bytes_max.saturating_sub(read.bytes);
            if !fits && read.pieces > 0 {
                read.rest = Some(place);
                break;
            }
            read.pieces += 1;
            read.bytes += bytes;
            pieces.push((place, packed(row)?));
        }
        Ok(pieces)
    })()
    .map_err(|err: rusqlite::Error| to_store_error(&err))?;
    for (place, packed) in pieces {
        packed.add_to(&mut read, range, begin, place);
    }
    Ok(read)
}

#[async_trait]
impl TelemetryStore for HistoryFile {
    async fn keep_telemetry(&self, told: Vec<DeviceTelemetry>) -> Result<(), StoreError> {
        let (pieces, newest) = packed_rows(told).await?;
        if pieces.is_empty() && newest.is_empty() {
            return Ok(());
        }
        self.write(move |tx| {
            pieces.iter().try_for_each(|piece| piece.insert(tx))?;
            newest.iter().try_for_each(|newest| newest.put(tx))
        })
        .await
    }

    async fn latest_telemetry(
        &self,
        devices: Vec<(TenantId, DeviceSn)>,
    ) -> Result<BTreeMap<DeviceSn, Latest>, StoreError> {
        self.read(move |conn| {
            let mut found = BTreeMap::new();
            for (tenant, device) in devices {
                if let Some(latest) = read_latest(conn, tenant, &device)? {
                    found.insert(device, latest);
                }
            }
            Ok(found)
        })
        .await
    }

    async fn samples(
        &self,
        range: SampleRange,
        pieces_max: usize,
        bytes_max: usize,
    ) -> Result<SamplesRead, StoreError> {
        self.read(move |conn| read_samples(conn, &range, pieces_max, bytes_max)).await
    }

    async fn tidy_telemetry(
        &self,
        rules: &TelemetryRules,
        now: Timestamp,
    ) -> Result<Tidied, StoreError> {
        self.tidy(rules.clone(), now).await
    }

    async fn history_bytes(&self) -> Result<u64, StoreError> {
        self.read(|conn| tidy::used_bytes(conn).map_err(|err| to_store_error(&err))).await
    }
}
