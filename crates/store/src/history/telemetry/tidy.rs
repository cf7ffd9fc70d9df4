//! What is old goes, and what has aged becomes less: a little at a time, so that no write waits long behind it.

use std::time::Duration;

use rusqlite::{Connection, Transaction, params};
use utmos_core::{
    device::DeviceKind,
    id::{DeviceSn, TenantId},
    ports::{StoreError, TelemetryRules, Tidied},
    telemetry::{Sample, Samples, merge_by_step},
    time::Timestamp,
};

use super::{Packed, Piece, kind_code, millis, share};
use crate::{history::HistoryFile, sqlite::fault::to_store_error};

/// Rows that one step removes.
pub(crate) const REMOVED_MAX: i64 = 500;
/// Rows that one step merges: an hour of one device at the default settings.
pub(crate) const MERGED_MAX: i64 = 400;
/// Bytes of unpacked samples that one step merges: an hour of a dock takes half of it.
pub(crate) const MERGED_BYTES_MAX: i64 = 16 * 1024 * 1024;
/// Free pages that are left to be used again; more are given back to the disk.
const FREE_PAGES_KEPT: i64 = 1_024;
/// Pages that one step gives back.
const FREED_MAX: i64 = 256;
/// How long at least it is known what a device told last.
pub(crate) const LATEST_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// What is merged in one go lies within one of these, and waits until all of it has aged: else a few seconds would be merged
/// at a time, into pieces hardly smaller than they were.
pub(crate) const WINDOW: Duration = Duration::from_secs(3600);

pub(crate) const KINDS: [DeviceKind; 3] =
    [DeviceKind::Dock, DeviceKind::RemoteController, DeviceKind::Aircraft];

/// Pieces of one device that are to be merged.
pub(crate) struct Aged {
    pub(crate) tenant: TenantId,
    pub(crate) device: DeviceSn,
    pub(crate) kind: DeviceKind,
    pub(crate) ids: Vec<i64>,
    pub(crate) samples: Vec<Sample>,
}

impl Aged {
    /// The numbers of its rows, and what takes their place.
    pub(crate) async fn merged(self, step: Duration) -> Result<(Vec<i64>, Vec<Piece>), StoreError> {
        let Self { tenant, device, kind, ids, samples } = self;
        let packing = tokio::task::spawn_blocking(move || {
            let merged = Samples::pieces(merge_by_step(&samples, step));
            let piece = |samples| Piece::of(tenant, &device, kind, true, samples);
            merged.iter().map(piece).collect::<Vec<_>>()
        });
        let pieces = packing
            .await
            .map_err(|err| StoreError::Unavailable(format!("merging was broken off: {err}")))?;
        Ok((ids, pieces))
    }
}

impl HistoryFile {
    pub(super) async fn tidy(
        &self,
        rules: TelemetryRules,
        now: Timestamp,
    ) -> Result<Tidied, StoreError> {
        let of = rules.clone();
        let removed = self.write(move |tx| remove(tx, &of, now)).await?;
        let until = before(now, rules.full_rate).div_euclid(millis(WINDOW)) * millis(WINDOW);
        let aged = self.read(move |conn| aged(conn, until).map_err(|err| to_store_error(&err)));
        let merged = match aged.await? {
            None => 0,
            Some(aged) => self.merge(aged, rules.step).await?,
        };
        let freed = self.write(give_back).await?;
        let more =
            merged > 0 || i64::try_from(removed).unwrap_or(0) >= REMOVED_MAX || freed >= FREED_MAX;
        Ok(Tidied { removed, merged, more })
    }

    async fn merge(&self, aged: Aged, step: Duration) -> Result<usize, StoreError> {
        let (ids, pieces) = aged.merged(step).await?;
        let count = ids.len();
        self.write(move |tx| {
            let mut delete = tx.prepare_cached("DELETE FROM telemetry WHERE id = ?1")?;
            for id in &ids {
                delete.execute(params![id])?;
            }
            pieces.iter().try_for_each(|piece| piece.insert(tx))
        })
        .await?;
        Ok(count)
    }
}

pub(crate) fn before(now: Timestamp, wait: Duration) -> i64 {
    now.as_millis().saturating_sub(millis(wait))
}

/// Removes what is too old, and what is too much.
fn remove(tx: &Transaction<'_>, rules: &TelemetryRules, now: Timestamp) -> rusqlite::Result<usize> {
    let mut removed = 0;
    for kind in KINDS {
        let until = before(now, rules.kept(kind));
        for merged in [false, true] {
            let sql = "DELETE FROM telemetry WHERE id IN
                       (SELECT id FROM telemetry WHERE kind = ?1 AND merged = ?2 AND last_ms < ?3 ORDER BY last_ms LIMIT ?4)";
            removed += tx.prepare_cached(sql)?.execute(params![
                kind_code(kind),
                merged,
                until,
                REMOVED_MAX
            ])?;
        }
        let sql = "DELETE FROM telemetry_latest WHERE rowid IN
                   (SELECT rowid FROM telemetry_latest WHERE kind = ?1 AND at_ms < ?2 LIMIT ?3)";
        let until = before(now, rules.kept(kind).max(LATEST_KEPT));
        removed += tx.prepare_cached(sql)?.execute(params![kind_code(kind), until, REMOVED_MAX])?;
    }
    removed += share::level(tx, rules.bytes_max, REMOVED_MAX)?;
    Ok(removed)
}

/// The oldest pieces that have aged, of one device and one hour. What cannot be read any more has no samples, and goes with
/// the others.
fn aged(conn: &Connection, until: i64) -> rusqlite::Result<Option<Aged>> {
    for kind in KINDS {
        let sql = "SELECT tenant, device, first_ms FROM telemetry
                   WHERE kind = ?1 AND merged = 0 AND last_ms < ?2 ORDER BY last_ms LIMIT 1";
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![kind_code(kind), until])?;
        let Some(row) = rows.next()? else { continue };
        let (tenant, device): ([u8; 16], String) = (row.get(0)?, row.get(1)?);
        let window = row.get::<_, i64>(2)?.div_euclid(millis(WINDOW));
        let Ok(sn) = DeviceSn::parse(&device) else { continue };
        let sql = "SELECT id, first_ms, bytes, body FROM telemetry
                   WHERE tenant = ?1 AND device = ?2 AND first_ms >= ?3 AND first_ms < ?4 AND merged = 0 AND last_ms < ?5
                   ORDER BY first_ms, id LIMIT ?6";
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![
            tenant,
            device,
            window * millis(WINDOW),
            (window + 1) * millis(WINDOW),
            until,
            MERGED_MAX
        ])?;
        let (mut ids, mut samples, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < MERGED_BYTES_MAX
            && let Some(row) = rows.next()?
        {
            let first = Timestamp::from_millis(row.get(1)?);
            let packed = Packed { bytes: row.get(2)?, body: row.get(3)? };
            bytes += packed.bytes;
            ids.push(row.get(0)?);
            samples.extend(packed.samples(first).unwrap_or_default());
        }
        let tenant = TenantId::new(uuid::Uuid::from_bytes(tenant));
        return Ok(Some(Aged { tenant, device: sn, kind, ids, samples }));
    }
    Ok(None)
}

fn number(conn: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
}

/// Bytes of the file that hold something.
pub(super) fn used_bytes(conn: &Connection) -> rusqlite::Result<u64> {
    let pages = number(conn, "page_count")? - number(conn, "freelist_count")?;
    let bytes = pages.saturating_mul(number(conn, "page_size")?);
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Gives free pages back to the disk; answers how many.
fn give_back(tx: &Transaction<'_>) -> rusqlite::Result<i64> {
    let spare = number(tx, "freelist_count")? - FREE_PAGES_KEPT;
    let wanted = spare.clamp(0, FREED_MAX);
    if wanted > 0 {
        let mut statement = tx.prepare(&format!("PRAGMA incremental_vacuum({wanted})"))?;
        let mut rows = statement.query([])?;
        // Each step frees a page.
        while rows.next()?.is_some() {}
    }
    Ok(wanted)
}
