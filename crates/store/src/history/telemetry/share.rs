//! What is too much is taken from whoever holds most: of the tenants, then of that one's devices, then of what that device
//! told and what happened at it. So nobody who talks much pushes out what others have. Everything a device has here is
//! charged to it, and may go: last of all what it told last, and its alarms.

use rusqlite::{OptionalExtension, Transaction, params};

use super::tidy::used_bytes;

/// Rows that are taken from one before it is looked again who holds most.
const TAKEN: i64 = 50;

/// The device that holds most of the tenant that holds most, and of what. Equals by their ids, so that a run replays.
const HOLDS_MOST: &str = "
    SELECT tenant, device, telemetry, events, latest FROM held
    WHERE tenant = (SELECT tenant FROM held GROUP BY tenant
                    ORDER BY SUM(telemetry + events + latest + alarms) DESC, tenant LIMIT 1)
    ORDER BY telemetry + events + latest + alarms DESC, device LIMIT 1";

/// What a device holds.
struct Most {
    tenant: [u8; 16],
    device: String,
    telemetry: i64,
    events: i64,
    latest: i64,
}

impl Most {
    /// Removes so many rows of what goes first.
    fn take_from(&self, tx: &Transaction<'_>, rows: i64) -> rusqlite::Result<usize> {
        let sql = if self.events > self.telemetry {
            // What is rare and lasting goes after the rest.
            "DELETE FROM events WHERE row IN
                 (SELECT row FROM events INDEXED BY events_of_device
                  WHERE device = ?2 AND tenant = ?1 ORDER BY lasting, row LIMIT ?3)"
        } else if self.telemetry > 0 {
            "DELETE FROM telemetry WHERE id IN
                 (SELECT id FROM telemetry WHERE tenant = ?1 AND device = ?2 ORDER BY first_ms, id LIMIT ?3)"
        } else if self.latest > 0 {
            "DELETE FROM telemetry_latest WHERE tenant = ?1 AND device = ?2 AND ?3 > 0"
        } else {
            "DELETE FROM alarms WHERE device = ?2 AND tenant = ?1 AND ?3 > 0"
        };
        tx.prepare_cached(sql)?.execute(params![self.tenant, self.device, rows])
    }
}

/// Removes up to so many rows while more bytes are in use than may be; answers how many.
pub(super) fn level(
    tx: &Transaction<'_>,
    bytes_max: u64,
    rows_max: i64,
) -> rusqlite::Result<usize> {
    let (mut removed, mut left) = (0, rows_max);
    while left > 0 && used_bytes(tx)? > bytes_max {
        let most = tx.prepare_cached(HOLDS_MOST)?.query_row([], |row| {
            let (tenant, device) = (row.get(0)?, row.get(1)?);
            let (telemetry, events, latest) = (row.get(2)?, row.get(3)?, row.get(4)?);
            Ok(Most { tenant, device, telemetry, events, latest })
        });
        let Some(most) = most.optional()? else { break };
        let taken = most.take_from(tx, TAKEN.min(left))?;
        if taken == 0 {
            break;
        }
        removed += taken;
        left -= i64::try_from(taken).unwrap_or(left);
    }
    Ok(removed)
}
