//! What is too much is taken from whoever holds most: of the tenants, then of that one's devices, then of what that device
//! told and what happened at it. So nobody who talks much pushes out what others have.

use rusqlite::{OptionalExtension, Transaction, params};

use super::tidy::used_bytes;

/// Rows that are taken from one before it is looked again who holds most.
const TAKEN: i64 = 50;

/// The device that holds most of the tenant that holds most, and whether more of it is events. Equals by their ids, so that a
/// run replays.
const HOLDS_MOST: &str = "
    SELECT tenant, device, events > telemetry FROM held
    WHERE tenant = (SELECT tenant FROM held GROUP BY tenant ORDER BY SUM(telemetry + events) DESC, tenant LIMIT 1)
    ORDER BY telemetry + events DESC, device LIMIT 1";

/// Removes up to so many rows while more bytes are in use than may be; answers how many.
pub(super) fn level(
    tx: &Transaction<'_>,
    bytes_max: u64,
    rows_max: i64,
) -> rusqlite::Result<usize> {
    let (mut removed, mut left) = (0, rows_max);
    while left > 0 && used_bytes(tx)? > bytes_max {
        let most = tx.prepare_cached(HOLDS_MOST)?.query_row([], |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?))
        });
        let Some((tenant, device, mostly_events)) = most.optional()? else { break };
        let sql = if mostly_events {
            // What is rare and lasting goes after the rest.
            "DELETE FROM events WHERE row IN
                 (SELECT row FROM events INDEXED BY events_of_device
                  WHERE device = ?2 AND tenant = ?1 ORDER BY lasting, row LIMIT ?3)"
        } else {
            "DELETE FROM telemetry WHERE id IN
                 (SELECT id FROM telemetry WHERE tenant = ?1 AND device = ?2 ORDER BY first_ms, id LIMIT ?3)"
        };
        let taken = tx.prepare_cached(sql)?.execute(params![tenant, device, TAKEN.min(left)])?;
        if taken == 0 {
            break;
        }
        removed += taken;
        left -= i64::try_from(taken).unwrap_or(left);
    }
    Ok(removed)
}
