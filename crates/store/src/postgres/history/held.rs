//! How much each device holds, so that nothing is counted by reading it. Changed with the rows themselves, in one transaction.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use utmos_core::id::TenantId;
use uuid::Uuid;

use super::spans::Span;
use crate::postgres::{fault::Fault, rare::execute};

pub(super) const TELEMETRY: i16 = 0;
pub(super) const EVENTS: i16 = 1;
pub(super) const LASTING_EVENTS: i16 = 2;

/// What a row of telemetry takes beside its body, with its indexes; and one of an event, beside what it says.
pub(super) const PIECE_BYTES: i64 = 200;
pub(super) const EVENT_BYTES: i64 = 400;

pub(super) fn of_events(is_lasting: bool) -> i16 {
    if is_lasting { LASTING_EVENTS } else { EVENTS }
}

/// Rows and bytes that came, or went. Always in the same order, so that servers wait for each other and never in a circle.
#[derive(Default)]
pub(super) struct Changes(BTreeMap<(Uuid, String, i16, i64), (i64, i64)>);

impl Changes {
    pub(super) fn come(
        &mut self,
        tenant: TenantId,
        device: &str,
        what: i16,
        span: Span,
        bytes: i64,
    ) {
        self.add(tenant.uuid(), device, what, span.number(), 1, bytes);
    }

    pub(super) fn go(&mut self, tenant: Uuid, device: &str, what: i16, span: Span, bytes: i64) {
        self.add(tenant, device, what, span.number(), -1, -bytes);
    }

    fn add(&mut self, tenant: Uuid, device: &str, what: i16, span: i64, n: i64, bytes: i64) {
        let sums = self.0.entry((tenant, device.to_owned(), what, span)).or_default();
        sums.0 += n;
        sums.1 += bytes;
    }

    pub(super) async fn write(&self, tx: &Transaction<'_>) -> Result<(), Fault> {
        if self.0.is_empty() {
            return Ok(());
        }
        let keys = || self.0.keys();
        let tenants: Vec<Uuid> = keys().map(|key| key.0).collect();
        let devices: Vec<&str> = keys().map(|key| key.1.as_str()).collect();
        let whats: Vec<i16> = keys().map(|key| key.2).collect();
        let spans: Vec<i64> = keys().map(|key| key.3).collect();
        let counts: Vec<i64> = self.0.values().map(|sums| sums.0).collect();
        let bytes: Vec<i64> = self.0.values().map(|sums| sums.1).collect();
        let sql = "
            INSERT INTO history_held AS h (tenant, device, what, span, n, bytes)
            SELECT * FROM unnest($1::uuid[], $2::text[], $3::smallint[], $4::bigint[], $5::bigint[], $6::bigint[])
            ON CONFLICT (tenant, device, what, span) DO UPDATE SET n = h.n + excluded.n, bytes = h.bytes + excluded.bytes";
        execute(tx, sql, &[&tenants, &devices, &whats, &spans, &counts, &bytes]).await?;
        if counts.iter().any(|count| *count < 0) {
            let sql = "
                DELETE FROM history_held h
                USING unnest($1::uuid[], $2::text[], $3::smallint[], $4::bigint[]) AS u (tenant, device, what, span)
                WHERE h.tenant = u.tenant AND h.device = u.device AND h.what = u.what AND h.span = u.span AND h.n <= 0";
            execute(tx, sql, &[&tenants, &devices, &whats, &spans]).await?;
        }
        Ok(())
    }
}
