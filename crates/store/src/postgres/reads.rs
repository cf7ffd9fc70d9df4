//! Reading commands: one, a page of a tenant's, or those in somebody's care.

use tokio_postgres::{Row, types::ToSql};
use utmos_core::{
    command::{Command, Spec, Status},
    evidence::Entry,
    id::{CommandId, DeviceSn, TenantId},
    ports::{Accepted, CommandFilter, NewCommand, StoreError},
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    PostgresStore,
    cells::Cells,
    rows::{self, COMMAND},
    text::kept,
};
use crate::{
    codes::{ENDED_DELIVERED, phases_of},
    idempotency::{lookup_key, needs_free_way},
};

/// How far ids' times may be from the times of acceptance: one clock makes both, but each server has its own.
const ID_TIME_SLACK_MS: i64 = 60 * 60 * 1000;

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

/// A page of a tenant's commands, newest first.
pub(super) async fn page(
    store: &PostgresStore,
    tenant: TenantId,
    filter: &CommandFilter,
    before: Option<CommandId>,
    limit: usize,
) -> Result<Vec<Command>, StoreError> {
    let devices = devices(filter);
    let mut query = Query::default();
    query.and("c.tenant = ", tenant.uuid());
    if let Some(before) = before {
        query.and("c.id < ", before.uuid());
        query.and("l.id < ", before.uuid());
    }
    if let Some(after) = filter.accepted_after {
        query.and("c.id >= ", id_floor(after, -ID_TIME_SLACK_MS));
        query.and("c.accepted_at >= ", after.as_millis());
    }
    if let Some(before) = filter.accepted_before {
        query.and("c.id < ", id_floor(before, ID_TIME_SLACK_MS));
        query.and("c.accepted_at < ", before.as_millis());
    }
    if let Some(status) = filter.status {
        let phases: Vec<String> = phases_of(status).iter().map(i64::to_string).collect();
        query.tests.push_str(&format!(" AND l.phase IN ({})", phases.join(", ")));
    }
    if let Some(method) = &filter.method {
        query.and("c.method = ", kept(method).into_owned());
    }
    let tests = query.tests.clone();
    let limit = query.param(rows_max(limit));
    let from = "FROM commands c JOIN lives l ON l.id = c.id WHERE true";
    let first = |more: &str, id: &str| {
        format!("SELECT {COMMAND} {from} {tests} {more} ORDER BY {id} DESC LIMIT {limit}")
    };
    // What is open is found by its index, and so is what ended as few do; of neither there is much.
    let open = " AND l.needs_care";
    let rare_end = |phase: &i64| format!(" AND l.rare_of = $1 AND l.phase = {phase}");
    let sql = match (devices, filter.status) {
        (None, None | Some(Status::Succeeded)) => first("", "c.id"),
        (None, Some(Status::Accepted)) => first(open, "c.id"),
        (None, Some(Status::Delivered)) => {
            let open = first(&format!("{open} AND l.phase <> {ENDED_DELIVERED}"), "l.id");
            let ended = first(&rare_end(&ENDED_DELIVERED), "l.id");
            format!(
                "SELECT p.* FROM (({open}) UNION ALL ({ended})) p ORDER BY p.id DESC LIMIT {limit}"
            )
        }
        (None, Some(status @ (Status::Failed | Status::TimedOut | Status::UnmatchedResponse))) => {
            let ends: String = phases_of(status).iter().map(rare_end).collect();
            first(&ends, "l.id")
        }
        // Each device has an order of its own in the index; the page is the newest of all of theirs together.
        (Some(devices), status) => {
            let devices = query.param(devices);
            let open = if status == Some(Status::Accepted) { open } else { "" };
            let of_device = first(&format!("{open} AND c.device = d.sn"), "c.id");
            format!(
                "SELECT p.* FROM unnest({devices}::text[]) AS d (sn) CROSS JOIN LATERAL ({of_device}) p
                 ORDER BY p.id DESC LIMIT {limit}"
            )
        }
    };
    let params: Vec<&(dyn ToSql + Sync)> =
        query.params.iter().map(|it| &**it as &(dyn ToSql + Sync)).collect();
    commands(store, &store.read(&sql, &params).await?)
}

/// The devices to look for; `None` for all.
fn devices(filter: &CommandFilter) -> Option<Vec<String>> {
    let allowed = filter.devices.as_ref();
    match &filter.device {
        Some(device) if allowed.is_none_or(|allowed| allowed.contains(device)) => {
            Some(vec![device.to_string()])
        }
        Some(_) => Some(Vec::new()),
        None => allowed.map(|allowed| allowed.iter().map(DeviceSn::to_string).collect()),
    }
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

/// The first id that can have been made at this time.
fn id_floor(at: Timestamp, slack: i64) -> Uuid {
    let millis = at.as_millis().saturating_add(slack).clamp(0, (1 << 48) - 1);
    Uuid::from_u128(u128::from(millis.unsigned_abs()) << 80)
}

fn commands(store: &PostgresStore, rows: &[Row]) -> Result<Vec<Command>, StoreError> {
    rows.iter().map(|row| rows::command(row, &store.sealer)).collect()
}

/// A `LIMIT` as PostgreSQL takes it.
pub(super) fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
