//! Telemetry: written in a few statements of many rows, read a few days at a time.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Transaction;
use tokio_postgres::{Row, types::ToSql};
use utmos_core::{
    device::DeviceKind,
    id::{DeviceSn, TenantId},
    ports::{SamplePlace, SampleRange, SamplesRead, StoreError},
    telemetry::Latest,
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    PostgresHistory,
    held::{Changes, PIECE_BYTES, TELEMETRY},
    spans::{ARE_THERE, Span, Table, of_rows},
};
use crate::{
    history::telemetry::{Newest, Packed, Piece, begin_of, kind_code, whole},
    postgres::{
        fault::{Fault, to_store_error},
        rare::execute,
    },
};

/// Rows of one statement.
const ROWS_MAX: usize = 500;
/// Days that one statement reads: each locks the partitions it may have to look at.
const DAYS_AT_A_TIME: usize = 16;

pub(super) fn code_of(kind: DeviceKind) -> i16 {
    // Every code is small.
    i16::try_from(kind_code(kind)).unwrap_or(i16::MAX)
}

pub(super) fn bytes_of(body: &[u8]) -> i64 {
    whole(body.len()) + PIECE_BYTES
}

/// What is to be kept.
pub(super) struct Told {
    pieces: Vec<Piece>,
    /// One for each device: a statement cannot write a row twice.
    newest: BTreeMap<(Uuid, String), Newest>,
}

impl Told {
    pub(super) fn new(pieces: Vec<Piece>, newest: Vec<Newest>) -> Self {
        let key = |one: &Newest| (one.tenant.uuid(), one.device.to_string());
        let newest = newest.into_iter().map(|one| (key(&one), one)).collect();
        Self { pieces, newest }
    }

    pub(super) fn spans(&self) -> BTreeSet<Span> {
        self.pieces.iter().map(|piece| Table::Telemetry.at(piece.first)).collect()
    }

    pub(super) async fn write(&self, tx: &Transaction<'_>) -> Result<(), Fault> {
        self.write_newest(tx).await?;
        let mut held = Changes::default();
        insert(tx, &self.pieces, &mut held).await?;
        held.write(tx).await
    }

    /// The last word is the one that came last at whichever server. A time that lies ahead of the database's own clock is a
    /// slip of somebody's, and stands in nobody's way.
    async fn write_newest(&self, tx: &Transaction<'_>) -> Result<(), Fault> {
        let all: Vec<&Newest> = self.newest.values().collect();
        for part in all.chunks(ROWS_MAX) {
            let tenants: Vec<Uuid> = part.iter().map(|one| one.tenant.uuid()).collect();
            let devices: Vec<&str> = part.iter().map(|one| one.device.as_str()).collect();
            let kinds: Vec<i16> = part.iter().map(|one| code_of(one.kind)).collect();
            let at: Vec<i64> = part.iter().map(|one| one.at.as_millis()).collect();
            let bytes: Vec<i64> = part.iter().map(|one| whole(one.bytes)).collect();
            let bodies: Vec<&[u8]> = part.iter().map(|one| one.body.as_slice()).collect();
            let sql = "
                INSERT INTO history_latest AS l (tenant, device, kind, at_ms, bytes, body)
                SELECT * FROM unnest($1::uuid[], $2::text[], $3::smallint[], $4::bigint[], $5::bigint[], $6::bytea[])
                ON CONFLICT (tenant, device) DO UPDATE
                SET kind = excluded.kind, at_ms = excluded.at_ms, bytes = excluded.bytes, body = excluded.body
                WHERE l.at_ms <= excluded.at_ms
                   OR l.at_ms > (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 5000";
            execute(tx, sql, &[&tenants, &devices, &kinds, &at, &bytes, &bodies]).await?;
        }
        Ok(())
    }
}

/// Writes pieces, whose partitions are there, and notes what they hold.
pub(super) async fn insert(
    tx: &Transaction<'_>,
    pieces: &[Piece],
    held: &mut Changes,
) -> Result<(), Fault> {
    for part in pieces.chunks(ROWS_MAX) {
        let tenants: Vec<Uuid> = part.iter().map(|one| one.tenant.uuid()).collect();
        let devices: Vec<&str> = part.iter().map(|one| one.device.as_str()).collect();
        let kinds: Vec<i16> = part.iter().map(|one| code_of(one.kind)).collect();
        let merged: Vec<bool> = part.iter().map(|one| one.merged).collect();
        let first: Vec<i64> = part.iter().map(|one| one.first.as_millis()).collect();
        let last: Vec<i64> = part.iter().map(|one| one.last.as_millis()).collect();
        let samples: Vec<i64> = part.iter().map(|one| whole(one.samples)).collect();
        let bytes: Vec<i64> = part.iter().map(|one| whole(one.bytes)).collect();
        let bodies: Vec<&[u8]> = part.iter().map(|one| one.body.as_slice()).collect();
        let sql = "
            INSERT INTO history_telemetry (tenant, device, kind, merged, first_ms, last_ms, samples, bytes, body)
            SELECT * FROM unnest($1::uuid[], $2::text[], $3::smallint[], $4::boolean[], $5::bigint[], $6::bigint[],
                $7::bigint[], $8::bigint[], $9::bytea[])";
        let params: [&(dyn ToSql + Sync); 9] =
            [&tenants, &devices, &kinds, &merged, &first, &last, &samples, &bytes, &bodies];
        execute(tx, sql, &params).await?;
        for one in part {
            let span = Table::Telemetry.at(one.first);
            held.come(one.tenant, one.device.as_str(), TELEMETRY, span, bytes_of(&one.body));
        }
    }
    Ok(())
}

impl PostgresHistory {
    pub(super) async fn read_latest(
        &self,
        devices: &[(TenantId, DeviceSn)],
    ) -> Result<BTreeMap<DeviceSn, Latest>, StoreError> {
        let tenants: Vec<Uuid> = devices.iter().map(|(tenant, _)| tenant.uuid()).collect();
        let sns: Vec<&str> = devices.iter().map(|(_, device)| device.as_str()).collect();
        let sql = "
            SELECT u.n, l.bytes, l.body FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS u (tenant, device, n)
            JOIN history_latest l ON l.tenant = u.tenant AND l.device = u.device";
        let rows = self.rows(sql, &[&tenants, &sns]).await?;
        let mut found = BTreeMap::new();
        for row in &rows {
            let (number, packed) = read_newest(row).map_err(|err| to_store_error(&err))?;
            let number = usize::try_from(number - 1).unwrap_or(usize::MAX);
            if let Some((_, device)) = devices.get(number)
                && let Some(latest) = packed.latest(device)
            {
                found.insert(device.clone(), latest);
            }
        }
        Ok(found)
    }

    pub(super) async fn read_samples(
        &self,
        range: &SampleRange,
        pieces_max: usize,
        bytes_max: usize,
    ) -> Result<SamplesRead, StoreError> {
        let begin = begin_of(range);
        let mut days =
            of_rows(Table::Telemetry, &self.rows(ARE_THERE, &[&Table::Telemetry.name()]).await?);
        days.retain(|day| {
            day.end() > begin.first.as_millis() && day.begin() < range.to.as_millis()
        });
        let mut read = SamplesRead::default();
        for days in days.chunks(DAYS_AT_A_TIME) {
            let (Some(first), Some(last)) = (days.first(), days.last()) else { continue };
            let (from, to) = (first.begin(), last.end());
            let from = from.max(begin.first.as_millis());
            let to = to.min(range.to.as_millis());
            // Times stand in the statement itself, so that no other partition is locked, and none is looked at.
            let sql = format!(
                "SELECT id, first_ms, bytes, CASE WHEN nth + $5 = 1 OR sum <= $6 THEN body END
                 FROM (SELECT id, first_ms, bytes, body, row_number() OVER o AS nth, (sum(bytes) OVER o)::bigint AS sum
                       FROM history_telemetry
                       WHERE tenant = $1 AND device = $2 AND first_ms >= {from} AND first_ms < {to} AND last_ms >= $3
                         AND (first_ms > {begin} OR id >= $4)
                       WINDOW o AS (ORDER BY first_ms, id) LIMIT $7) AS p
                 WHERE nth = 1 OR sum - bytes <= $6 ORDER BY nth",
                begin = begin.first.as_millis(),
            );
            let (tenant, device) = (range.tenant.uuid(), range.device.as_str());
            let left = whole(pieces_max.saturating_sub(read.pieces).saturating_add(1));
            let bytes_left = whole(bytes_max.saturating_sub(read.bytes));
            let (already, since) = (whole(read.pieces.min(1)), range.from.as_millis());
            let params: [&(dyn ToSql + Sync); 7] =
                [&tenant, &device, &since, &begin.piece, &already, &bytes_left, &left];
            let rows = self.rows_once(&sql, &params).await?;
            for row in &rows {
                let (place, bytes, body) = read_piece(row).map_err(|err| to_store_error(&err))?;
                let size = usize::try_from(bytes).unwrap_or(0);
                let fits = read.pieces < pieces_max && size <= bytes_max.saturating_sub(read.bytes);
                match body {
                    Some(body) if fits || read.pieces == 0 => {
                        read.pieces += 1;
                        read.bytes += size;
                        Packed { bytes, body }.add_to(&mut read, range, begin, place);
                    }
                    Some(_) | None => {
                        read.rest = Some(place);
                        return Ok(read);
                    }
                }
            }
        }
        Ok(read)
    }
}

fn read_newest(row: &Row) -> Result<(i64, Packed), tokio_postgres::Error> {
    Ok((row.try_get(0)?, Packed { bytes: row.try_get(1)?, body: row.try_get(2)? }))
}

type ReadPiece = (SamplePlace, i64, Option<Vec<u8>>);

fn read_piece(row: &Row) -> Result<ReadPiece, tokio_postgres::Error> {
    let first = Timestamp::from_millis(row.try_get(1)?);
    let place = SamplePlace { first, piece: row.try_get(0)?, index: 0 };
    Ok((place, row.try_get(2)?, row.try_get(3)?))
}
