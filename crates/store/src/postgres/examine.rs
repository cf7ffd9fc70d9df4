//! The whole database looked at by its owner: what must hold between the tables. Changes nothing.

use super::{
    PostgresConfig, PostgresStore,
    open::{Named, PostgresOpenError, connect},
};
use crate::sqlite::Examination;

/// What must hold, and how many rows break it.
const RULES: [(&str, &str); 10] = [
    (
        "commands without a state",
        "SELECT count(*) FROM commands c WHERE NOT EXISTS (SELECT FROM lives l WHERE l.id = c.id)",
    ),
    (
        "states without a command",
        "SELECT count(*) FROM lives l WHERE NOT EXISTS (SELECT FROM commands c WHERE c.id = l.id)",
    ),
    (
        "commands without their idempotency key",
        "SELECT (SELECT count(*) FROM commands)
              - (SELECT count(*) FROM idempotency i JOIN commands c ON c.id = i.command)",
    ),
    (
        "idempotency keys without their command",
        "SELECT count(*) FROM idempotency i WHERE NOT EXISTS (SELECT FROM commands c WHERE c.id = i.command)",
    ),
    (
        "commands whose timeline lacks lines",
        "SELECT count(*) FROM lives l
         LEFT JOIN (SELECT command, sum(lines) AS n FROM timeline GROUP BY command) t ON t.command = l.id
         WHERE l.entries <> coalesce(t.n, 0)",
    ),
    (
        "movements in the way of none",
        "SELECT count(*) FROM motions m
         WHERE NOT EXISTS (SELECT FROM lives l WHERE l.id = m.command AND l.holds_motion)",
    ),
    (
        "movements that do not stand in the way",
        "SELECT count(*) FROM lives l
         WHERE l.holds_motion AND NOT EXISTS (SELECT FROM motions m WHERE m.command = l.id)",
    ),
    (
        "commands that lists of rare ends miss or should not have",
        "SELECT count(*) FROM lives l JOIN commands c ON c.id = l.id
         WHERE l.rare_of IS DISTINCT FROM CASE WHEN l.phase IN (4, 6, 7, 8) THEN c.tenant END",
    ),
    (
        "commands handed to another server that are not there",
        "SELECT count(*) FROM handed h WHERE NOT EXISTS (SELECT FROM commands c WHERE c.id = h.command)",
    ),
    (
        "shards that are missing or beyond the last",
        "SELECT (SELECT count(*) FROM generate_series(0, 63) AS n LEFT JOIN shards s ON s.shard = n WHERE s.shard IS NULL)
              + (SELECT count(*) FROM shards WHERE shard NOT BETWEEN 0 AND 63)",
    ),
];

impl PostgresStore {
    /// Holds the tables against each other, as they are at one moment. Reads all of them. Servers may run meanwhile.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn examine(config: &PostgresConfig) -> Result<Examination, PostgresOpenError> {
        let tls = config.url.tls().map_err(|source| PostgresOpenError::Tls {
            database: config.url.to_string(),
            source,
        })?;
        let explain = |err: tokio_postgres::Error| Named(&config.url).explain(&err);
        let client = connect(&config.url, &tls).await.map_err(explain)?;
        client
            .batch_execute(
                "SET statement_timeout = 0; SET enable_seqscan = on; SET enable_hashjoin = on; SET enable_mergejoin = on;
                 BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            )
            .await
            .map_err(explain)?;
        let mut found = Examination::default();
        for (what, sql) in RULES {
            let row = client.query_one(sql, &[]).await.map_err(explain)?;
            match row.try_get::<_, i64>(0).map_err(explain)? {
                0 => {}
                count => found.faults.push(format!("{what}: {count}")),
            }
        }
        let sql =
            "SELECT (SELECT count(*) FROM commands), (SELECT count(*) FROM lives WHERE needs_care)";
        let row = client.query_one(sql, &[]).await.map_err(explain)?;
        found.commands = Some(row.try_get(0).map_err(explain)?);
        found.open = Some(row.try_get(1).map_err(explain)?);
        Ok(found)
    }
}
