//! Reading commands: one, some, or those in somebody's care.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio_postgres::{Row, types::ToSql};
use utmos_core::{
    command::{Command, Spec},
    evidence::Entry,
    id::CommandId,
    ports::{Accepted, NewCommand, StoreError, is_of},
    replica::{SHARDS, Shard},
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    PostgresStore,
    cells::Cells,
    rows::{self, COMMAND},
};
use crate::idempotency::{lookup_key, needs_free_way};

/// Open commands of which so much is read in one go, at most, as tells whose they are.
const OUTLINES_MAX: usize = 16_000;

pub(super) async fn one(
    store: &PostgresStore,
    id: CommandId,
) -> Result<Option<Command>, StoreError> {
    let sql = format!(
        "SELECT {COMMAND} FROM commands c JOIN lives l ON l.id = c.id WHERE c.id = $1 AND l.id = $1"
    );
    let rows = store.read(&sql, &[&id.uuid()]).await?;
    rows.first().map(|row| rows::command(row, &store.sealer)).transpose()
}

pub(super) async fn several(
    store: &PostgresStore,
    ids: Vec<CommandId>,
) -> Result<Vec<Command>, StoreError> {
    let ids: Vec<Uuid> = ids.into_iter().map(CommandId::uuid).collect();
    let sql = format!(
        "SELECT {COMMAND} FROM commands c JOIN lives l ON l.id = c.id
         WHERE c.id = ANY ($1::uuid[]) AND l.id = ANY ($1::uuid[])"
    );
    let mut found = Vec::new();
    for row in store.read(&sql, &[&ids]).await? {
        match rows::command(&row, &store.sealer) {
            Ok(command) => found.push(command),
            Err(StoreError::Damaged(_)) => {}
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
        }
    }
    Ok(found)
}

pub(super) async fn timeline(
    store: &PostgresStore,
    id: CommandId,
) -> Result<Vec<Entry>, StoreError> {
    let sql = "SELECT lines, at, status_from, status_to, proof FROM timeline WHERE command = $1 ORDER BY n";
    let rows = store.read(sql, &[&id.uuid()]).await?;
    let key = store.sealer.data_key(id);
    let mut entries = Vec::new();
    for row in &rows {
        entries.extend(rows::entries(row, id, &key)?);
    }
    Ok(entries)
}

pub(super) async fn open(
    store: &PostgresStore,
    after: Option<CommandId>,
    limit: usize,
) -> Result<Vec<Command>, StoreError> {
    let sql = format!(
        "SELECT {COMMAND} FROM lives l JOIN commands c ON c.id = l.id
         WHERE l.needs_care AND l.id > $1 ORDER BY l.id LIMIT $2"
    );
    // No command has the id of zeros.
    let after = after.map_or(Uuid::nil(), |after| after.uuid());
    commands(store, &store.read(&sql, &[&after, &rows_max(limit)]).await?)
}

/// Looks for them among all in a few columns, and reads no more than these whole: a server that takes a part over has what waits
/// for all the others to pass by.
pub(super) async fn open_of(
    store: &PostgresStore,
    shards: &BTreeSet<Shard>,
    after: Option<CommandId>,
    limit: usize,
) -> Result<Vec<Command>, StoreError> {
    if shards.len() == usize::from(SHARDS) {
        return open(store, after, limit).await;
    }
    let outlines = "
        SELECT l.id, c.gateway, c.risk FROM lives l JOIN commands c ON c.id = l.id
        WHERE l.needs_care AND l.id > $1 AND (c.risk = 1 OR $3) ORDER BY l.id LIMIT $2";
    let whole = format!(
        "SELECT {COMMAND} FROM lives l JOIN commands c ON c.id = l.id
         WHERE l.id = ANY ($1::uuid[]) AND c.id = ANY ($1::uuid[]) AND l.needs_care ORDER BY l.id"
    );
    let mut after = after.map_or(Uuid::nil(), |after| after.uuid());
    let mut at_once = limit;
    loop {
        let may_be_any = !shards.is_empty();
        let rows = store.read(outlines, &[&after, &rows_max(at_once), &may_be_any]).await?;
        let (mut wanted, mut seen) = (Vec::new(), None);
        for row in &rows {
            let mut cells = Cells::new(row, "commands");
            let id = cells.uuid("id")?;
            if is_of(shards, &cells.gateway("gateway")?, cells.coded("risk")?) {
                wanted.push(id);
            }
            seen = Some(id);
            if wanted.len() == limit {
                break;
            }
        }
        let Some(seen) = seen else { return Ok(Vec::new()) };
        // Those that have ended meanwhile are not among them.
        let found = match wanted.is_empty() {
            true => Vec::new(),
            false => commands(store, &store.read(&whole, &[&wanted]).await?)?,
        };
        if !found.is_empty() {
            return Ok(found);
        }
        after = seen;
        at_once = at_once.saturating_mul(4).min(OUTLINES_MAX.max(limit));
    }
}

/// In the order of acceptance over all servers, which no clock decides.
pub(super) async fn emergency_after(
    store: &PostgresStore,
    spec: &Spec,
) -> Result<Option<CommandId>, StoreError> {
    let of_gateway = first_after(store, "gateway", spec, spec.gateway.as_str()).await?;
    match (&of_gateway, &spec.aircraft) {
        (None, Some(aircraft)) => first_after(store, "aircraft", spec, aircraft.as_str()).await,
        (Some(_), _) | (None, None) => Ok(of_gateway),
    }
}

/// One statement, however many they are. Each place is looked up by its index, as for one: a join could be planned as a
/// reading of all commands.
pub(super) async fn emergencies_after(
    store: &PostgresStore,
    specs: &[Arc<Spec>],
) -> Result<BTreeMap<CommandId, CommandId>, StoreError> {
    if specs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = "
        SELECT u.id, coalesce(
            (SELECT c.id FROM commands c WHERE c.risk = 1 AND c.gateway = u.gateway AND c.tenant = u.tenant
                AND c.seq > (SELECT seq FROM commands WHERE id = u.id) ORDER BY c.seq LIMIT 1),
            (SELECT c.id FROM commands c WHERE c.risk = 1 AND c.aircraft = u.aircraft AND c.tenant = u.tenant
                AND c.seq > (SELECT seq FROM commands WHERE id = u.id) ORDER BY c.seq LIMIT 1)) AS emergency
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) AS u (id, tenant, gateway, aircraft)";
    let ids: Vec<Uuid> = specs.iter().map(|spec| spec.id.uuid()).collect();
    let tenants: Vec<Uuid> = specs.iter().map(|spec| spec.tenant.uuid()).collect();
    let gateways: Vec<&str> = specs.iter().map(|spec| spec.gateway.as_str()).collect();
    let aircraft: Vec<Option<&str>> =
        specs.iter().map(|spec| spec.aircraft.as_ref().map(|sn| sn.as_str())).collect();
    let mut found = BTreeMap::new();
    for row in &store.read(sql, &[&ids, &tenants, &gateways, &aircraft]).await? {
        let mut cells = Cells::new(row, "commands");
        let id = CommandId::new(cells.uuid("id")?);
        if let Some(emergency) = cells.get::<Option<Uuid>>("emergency")? {
            found.insert(id, CommandId::new(emergency));
        }
    }
    Ok(found)
}

async fn first_after(
    store: &PostgresStore,
    column: &str,
    spec: &Spec,
    of: &str,
) -> Result<Option<CommandId>, StoreError> {
    let sql = format!(
        "SELECT c.id FROM commands c WHERE c.risk = 1 AND c.{column} = $1 AND c.tenant = $2
             AND c.seq > (SELECT seq FROM commands WHERE id = $3) ORDER BY c.seq LIMIT 1"
    );
    // Not bounded by the time in the id: a clock that was set back must not hide an emergency.
    let rows = store.read(&sql, &[&of, &spec.tenant.uuid(), &spec.id.uuid()]).await?;
    let read = |row: &Row| Cells::new(row, "commands").uuid("id").map(CommandId::new);
    rows.first().map(read).transpose()
}

/// What would become of a command that were accepted now.
pub(super) async fn foresee(
    store: &PostgresStore,
    new: &NewCommand,
) -> Result<Accepted, StoreError> {
    let spec = &new.spec;
    let key = Uuid::from_bytes(lookup_key(spec.tenant, &spec.idempotency_key));
    let sql = "
        SELECT i.key, i.command, c.id, c.tenant, c.idempotency_key, c.fingerprint, c.accepted_at, l.phase, l.failure
        FROM idempotency i LEFT JOIN commands c ON c.id = i.command LEFT JOIN lives l ON l.id = i.command
        WHERE i.key = $1";
    if let Some(row) = store.read(sql, &[&key]).await?.first() {
        let (key, before) = rows::before(row)?;
        let damaged = |why| StoreError::Damaged(format!("idempotency {key}: {why}"));
        return before.answer(spec).map_err(damaged);
    }
    if !needs_free_way(new) {
        return Ok(Accepted::New);
    }
    let sql = "
        SELECT command, method FROM motions WHERE tenant = $1
            AND ((gateway = $2 AND (aircraft IS NULL OR $3::text IS NULL)) OR aircraft = $3::text)
        ORDER BY command LIMIT 1";
    let aircraft = spec.aircraft.as_ref().map(|aircraft| aircraft.as_str());
    let (tenant, gateway) = (spec.tenant.uuid(), spec.gateway.as_str());
    let rows = store.read(sql, &[&tenant, &gateway, &aircraft]).await?;
    let Some(row) = rows.first() else { return Ok(Accepted::New) };
    let mut cells = Cells::new(row, "motions");
    Ok(Accepted::Busy { id: CommandId::new(cells.uuid("command")?), method: cells.text("method")? })
}

pub(super) async fn newest_record(store: &PostgresStore) -> Result<Option<Timestamp>, StoreError> {
    // A probe's row says nothing of a time.
    let sql = "SELECT max(newest) FROM clocks WHERE newest > $1";
    let rows = store.read(sql, &[&i64::MIN]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Cells::new(row, "clocks").maybe_at("newest")
}

/// Tests with their parameters.
#[derive(Default)]
pub(super) struct Query {
    pub(super) tests: String,
    pub(super) params: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Query {
    pub(super) fn and(&mut self, test: &str, value: impl ToSql + Sync + Send + 'static) {
        let param = self.param(value);
        self.tests.push_str(&format!(" AND {test}{param}"));
    }

    pub(super) fn param(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.params.push(Box::new(value));
        format!("${}", self.params.len())
    }
}

pub(super) fn commands(store: &PostgresStore, rows: &[Row]) -> Result<Vec<Command>, StoreError> {
    rows.iter().map(|row| rows::command(row, &store.sealer)).collect()
}

/// A `LIMIT` as PostgreSQL takes it.
pub(super) fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
