//! What servers have given of their callers' allowances: one statement for all of them, by PostgreSQL's clock.
//!
//! The table is not logged, so nothing is synced. Rows are locked in the order of their names: servers wait for each other
//! and never in a circle.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use deadpool_postgres::Object;
use tokio::time::timeout;
use utmos_core::ports::{AllowanceStore, Charge, StoreError};

use super::{
    PostgresStore,
    cells::Cells,
    fault::{Fault, pool_error},
    limits::CHARGE_WAIT,
    rare::{Params, query},
};

/// `least(…, most)` of what was there: a clock that was set back must keep nobody out.
const CHARGE: &str = "
    WITH clock AS MATERIALIZED (SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint AS now)
    INSERT INTO allowances AS a (name, whole_at, most)
    SELECT c.name, clock.now + least(c.given, c.most), c.most
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS c (name, given, most), clock ORDER BY c.name
    ON CONFLICT (name) DO UPDATE SET most = EXCLUDED.most, whole_at = least(
        EXCLUDED.whole_at + greatest(a.whole_at - (SELECT now FROM clock), 0),
        (SELECT now FROM clock) + EXCLUDED.most)
    RETURNING a.name, a.whole_at - (SELECT now FROM clock)";

#[async_trait]
impl AllowanceStore for PostgresStore {
    async fn charge(&self, charges: Vec<Charge>) -> Result<Vec<Duration>, StoreError> {
        let names: Vec<&str> = charges.iter().map(|charge| charge.name.as_str()).collect();
        let given: Vec<i64> = charges.iter().map(|charge| micros(charge.given)).collect();
        let most: Vec<i64> = charges.iter().map(|charge| micros(charge.most)).collect();
        let client = self.pool.get().await.map_err(|err| pool_error(&err))?;
        let params: Params<'_> = &[&names, &given, &most];
        let rows = match timeout(CHARGE_WAIT, query(&client, CHARGE, params)).await {
            Ok(rows) => rows.map_err(Fault::into_error)?,
            Err(_) => {
                // Nobody else is to wait for what it still says.
                drop(Object::take(client));
                let text = "PostgreSQL has not answered in time".to_owned();
                return Err(StoreError::Unavailable(text));
            }
        };
        let mut missing = BTreeMap::new();
        for row in &rows {
            let mut cells = Cells::new(row, "allowances");
            let name: &str = cells.get("name")?;
            let micros: i64 = cells.get("whole_at")?;
            missing.insert(name, Duration::from_micros(u64::try_from(micros).unwrap_or(0)));
        }
        let lost = |name| StoreError::Damaged(format!("allowances: no answer for {name}"));
        names.iter().map(|name| missing.get(name).copied().ok_or_else(|| lost(name))).collect()
    }
}

fn micros(wait: Duration) -> i64 {
    i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)
}
