//! Reading commands: one, a page of a tenant's, or those in somebody's care.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension, ToSql, params, params_from_iter};
use serde_json::json;
use utmos_core::{
    command::{Command, Spec, Status},
    id::{CommandId, DeviceSn, TenantId},
    ports::{CommandFilter, StoreError},
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    fault::to_store_error,
    rows::{self, SELECT_COMMAND},
    sorted,
};
use crate::{
    codes::{ENDED_DELIVERED, RARE_ENDS, phases_of},
    lists::{looked_at, time_of_id},
    seal::Sealer,
};

/// How far an id's time may be from the time of acceptance, for the search by time. Both are read from one clock.
const ID_TIME_SLACK_MS: i64 = 60 * 60 * 1000;

pub(super) fn one(
    conn: &Connection,
    sealer: &Sealer,
    id: CommandId,
) -> Result<Option<Command>, StoreError> {
    let sql = one_sql();
    let mut select = conn.prepare_cached(&sql).map_err(|err| to_store_error(&err))?;
    let found = select
        .query_row(params![id.uuid().as_bytes()], |row| Ok(rows::command(row, sealer)))
        .optional();
    found.map_err(|err| to_store_error(&err))?.transpose()
}

pub(super) fn one_sql() -> String {
    format!("{SELECT_COMMAND} FROM lives l JOIN commands c ON c.row = l.row WHERE l.id = ?1")
}

pub(super) fn open(
    conn: &Connection,
    sealer: &Sealer,
    after: Option<CommandId>,
    limit: usize,
) -> Result<Vec<Command>, StoreError> {
    let after = after.map_or(Vec::new(), |after| after.uuid().as_bytes().to_vec());
    many(conn, sealer, &open_sql(), params![after, rows_max(limit)])
}

/// An empty blob sorts before every id.
pub(super) fn open_sql() -> String {
    format!(
        "{SELECT_COMMAND} FROM lives l INDEXED BY lives_in_care CROSS JOIN commands c ON c.row = l.row
         WHERE l.needs_care = 1 AND l.id > ?1 ORDER BY l.id LIMIT ?2"
    )
}

pub(super) fn emergency_after(
    conn: &Connection,
    spec: &Spec,
) -> Result<Option<CommandId>, StoreError> {
    let of_gateway = first_after(conn, EMERGENCY_OF_GATEWAY, spec, spec.gateway.as_str())?;
    match (&of_gateway, &spec.aircraft) {
        (None, Some(aircraft)) => first_after(conn, EMERGENCY_OF_AIRCRAFT, spec, aircraft.as_str()),
        (Some(_), _) | (None, None) => Ok(of_gateway),
    }
}

pub(super) fn emergencies_after(
    conn: &Connection,
    specs: &[Arc<Spec>],
) -> Result<BTreeMap<CommandId, CommandId>, StoreError> {
    let mut found = BTreeMap::new();
    for spec in specs {
        if let Some(emergency) = emergency_after(conn, spec)? {
            found.insert(spec.id, emergency);
        }
    }
    Ok(found)
}

fn first_after(
    conn: &Connection,
    sql: &str,
    spec: &Spec,
    of: &str,
) -> Result<Option<CommandId>, StoreError> {
    let fault = |err| to_store_error(&err);
    let mut select = conn.prepare_cached(sql).map_err(fault)?;
    let (tenant, id) = (spec.tenant.uuid(), spec.id.uuid());
    let found = select
        .query_row(params![of, tenant.as_bytes(), id.as_bytes()], |row| row.get(0))
        .optional()
        .map_err(fault)?;
    Ok(found.map(|id| CommandId::new(Uuid::from_bytes(id))))
}

macro_rules! emergency_after {
    ($column:literal, $index:literal) => {
        concat!(
            "SELECT c.id FROM commands c INDEXED BY ",
            $index,
            " WHERE c.risk = 1 AND c.",
            $column,
            " = ?1 AND c.tenant = ?2 AND c.row > (SELECT row FROM lives WHERE id = ?3) ORDER BY c.row LIMIT 1"
        )
    };
}
pub(super) const EMERGENCY_OF_GATEWAY: &str = emergency_after!("gateway", "commands_emergencies");
pub(super) const EMERGENCY_OF_AIRCRAFT: &str =
    emergency_after!("aircraft", "commands_emergencies_of_aircraft");

/// What leads to the commands of a page.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    /// All that are open, of all tenants.
    Open,
    /// The tenant's that came to an end few come to; its phase.
    RareEnd(i64),
    /// The newest of the page's devices, or of all ([`super::sorted`]).
    New,
    /// The device's, but for the newest.
    Device(&'a DeviceSn),
    /// The tenant's, but for the newest.
    Tenant,
}

/// A page of a tenant's commands.
pub(super) struct Page {
    pub(super) tenant: TenantId,
    pub(super) filter: CommandFilter,
    pub(super) before: Option<CommandId>,
    pub(super) limit: usize,
}

impl Page {
    pub(super) fn read(
        &self,
        conn: &Connection,
        sealer: &Sealer,
    ) -> Result<Vec<Command>, StoreError> {
        let limit = self.limit;
        // Each has an order of its own; the page is the newest of all of theirs together.
        let moment = conn.unchecked_transaction().map_err(|err| to_store_error(&err))?;
        let mut page = Vec::new();
        for way in self.ways() {
            // Once it is full, only what is newer than its last has a place in it.
            let after = page.get(limit.saturating_sub(1)).map(|last: &Command| last.spec.id);
            page.extend(many_of(&moment, sealer, &self.query(way, after, limit))?);
            page.sort_by_key(|command: &Command| std::cmp::Reverse(command.spec.id));
            page.truncate(limit);
        }
        Ok(page)
    }

    /// What finds all of it and reads little else.
    pub(super) fn ways(&self) -> Vec<Way<'_>> {
        let devices = self.devices();
        match (self.filter.status, devices) {
            // What is still to be sent is found among the open ones, of which there are few.
            (_, Some(devices)) if devices.is_empty() => Vec::new(),
            (Some(Status::Accepted), _) => vec![Way::Open],
            (_, Some(devices)) => {
                [Way::New].into_iter().chain(devices.into_iter().map(Way::Device)).collect()
            }
            (None | Some(Status::Succeeded), None) => vec![Way::New, Way::Tenant],
            (Some(Status::Delivered), None) => vec![Way::Open, Way::RareEnd(ENDED_DELIVERED)],
            (
                Some(status @ (Status::Failed | Status::TimedOut | Status::UnmatchedResponse)),
                None,
            ) => phases_of(status).iter().map(|phase| Way::RareEnd(*phase)).collect(),
        }
    }

    /// The devices to look for; `None` for all.
    fn devices(&self) -> Option<Vec<&DeviceSn>> {
        let allowed = self.filter.devices.as_ref();
        match &self.filter.device {
            Some(device) if allowed.is_none_or(|allowed| allowed.contains(device)) => {
                Some(vec![device])
            }
            Some(_) => Some(Vec::new()),
            None => allowed.map(|allowed: &BTreeSet<DeviceSn>| allowed.iter().collect()),
        }
    }

    /// SQLite has no statistics to choose an index by, so it is told.
    pub(super) fn query<'a>(
        &'a self,
        way: Way<'a>,
        after: Option<CommandId>,
        limit: usize,
    ) -> Query<'a> {
        let mut query = Query { sql: SELECT_COMMAND.to_owned(), params: Vec::new() };
        let tenant = || self.tenant.uuid().as_bytes().to_vec();
        let by_lives = |index| {
            format!(
                " FROM lives l INDEXED BY {index} CROSS JOIN commands c ON c.row = l.row WHERE "
            )
        };
        let by_sorted = |table| {
            format!(
                " FROM {table} s CROSS JOIN commands c ON c.row = s.row AND c.id = s.id CROSS JOIN lives l ON l.row = s.row WHERE true"
            )
        };
        let (id, device) = match way {
            Way::Open => {
                query.sql.push_str(&by_lives("lives_in_care"));
                query.sql.push_str("l.needs_care = 1");
                self.of_devices(&mut query);
                ("l.id", None)
            }
            Way::RareEnd(phase) => {
                query.sql.push_str(&by_lives("lives_rare"));
                query.sql.push_str(&format!("l.phase = {phase}"));
                query.and("l.rare_of = ", tenant());
                ("l.id", None)
            }
            Way::New => {
                query.sql.push_str(&format!(
                    " FROM commands c NOT INDEXED CROSS JOIN lives l ON l.row = c.row WHERE {}",
                    sorted::IS_NEW
                ));
                self.of_devices(&mut query);
                ("c.id", None)
            }
            Way::Device(device) => {
                query.sql.push_str(&by_sorted("commands_of_devices"));
                query.and("s.tenant = ", tenant());
                query.and("s.device = ", device.as_str());
                ("s.id", Some(device))
            }
            Way::Tenant => {
                query.sql.push_str(&by_sorted("commands_of_tenants"));
                query.and("s.tenant = ", tenant());
                ("s.id", None)
            }
        };
        query.and("c.tenant = ", tenant());
        if let Some(device) = device {
            query.and("c.device = ", device.as_str());
        }
        if let Some(after) = after {
            query.and(&format!("{id} > "), after.uuid().as_bytes().to_vec());
        }
        self.between(&mut query, id);
        if let Some(after) = self.filter.accepted_after {
            query.and("c.accepted_at >= ", after.as_millis());
        }
        if let Some(before) = self.filter.accepted_before {
            query.and("c.accepted_at < ", before.as_millis());
        }
        if let Some(status) = self.filter.status {
            // Rare ends have a way of their own.
            let is_sought = |phase: &&i64| !(matches!(way, Way::Open) && RARE_ENDS.contains(phase));
            let phases: Vec<String> =
                phases_of(status).iter().filter(is_sought).map(i64::to_string).collect();
            query.sql.push_str(&format!(" AND l.phase IN ({})", phases.join(", ")));
        }
        if let Some(method) = &self.filter.method {
            query.and("c.method = ", method.as_str());
        }
        query.sql.push_str(&format!(" ORDER BY {id} DESC LIMIT "));
        query.param(rows_max(limit));
        query
    }
}

impl Page {
    /// Down to where this page may look: [`crate::lists::LOOKED_AT_MAX`] commands of all ways together.
    pub(super) fn floor(&self, conn: &Connection) -> Result<Option<CommandId>, StoreError> {
        let fault = |err| to_store_error(&err);
        let moment = conn.unchecked_transaction().map_err(fault)?;
        let ways = self.ways();
        let each = looked_at(ways.len());
        let mut highest: Option<Uuid> = None;
        for way in ways {
            let Some(query) = self.floor_query(way, each) else { continue };
            let mut select = moment.prepare_cached(&query.sql).map_err(fault)?;
            let found: Option<[u8; 16]> = select
                .query_row(params_from_iter(&query.params), |row| row.get(0))
                .optional()
                .map_err(fault)?;
            let floor = found.map(Uuid::from_bytes);
            let floor = if matches!(way, Way::Open) { floor.map(time_of_id) } else { floor };
            highest = highest.max(floor);
        }
        Ok(highest.map(CommandId::new))
    }

    /// The last of so many that a way leads to, from its index alone. The newest are few, so there is none among them.
    pub(super) fn floor_query(&self, way: Way<'_>, looked_at: usize) -> Option<Query<'static>> {
        let tenant = self.tenant.uuid().as_bytes().to_vec();
        let mut query = Query { sql: String::new(), params: Vec::new() };
        let id = match way {
            Way::New => return None,
            Way::Open => {
                query.sql.push_str(
                    "SELECT l.id FROM lives l INDEXED BY lives_in_care WHERE l.needs_care = 1",
                );
                "l.id"
            }
            Way::RareEnd(phase) => {
                query.sql.push_str(&format!(
                    "SELECT l.id FROM lives l INDEXED BY lives_rare WHERE l.phase = {phase}"
                ));
                query.and("l.rare_of = ", tenant);
                "l.id"
            }
            Way::Device(device) => {
                query.sql.push_str("SELECT s.id FROM commands_of_devices s WHERE true");
                query.and("s.tenant = ", tenant);
                query.and("s.device = ", device.to_string());
                "s.id"
            }
            Way::Tenant => {
                query.sql.push_str("SELECT s.id FROM commands_of_tenants s WHERE true");
                query.and("s.tenant = ", tenant);
                "s.id"
            }
        };
        self.between(&mut query, id);
        query.sql.push_str(&format!(" ORDER BY {id} DESC LIMIT 1 OFFSET "));
        query.param(rows_max(looked_at.saturating_sub(1)));
        Some(query)
    }

    /// Adds between which ids the page is.
    fn between(&self, query: &mut Query<'_>, id: &str) {
        if let Some(before) = self.before {
            query.and(&format!("{id} < "), before.uuid().as_bytes().to_vec());
        }
        if let Some(down_to) = self.filter.down_to {
            query.and(&format!("{id} >= "), down_to.uuid().as_bytes().to_vec());
        }
        if let Some(after) = self.filter.accepted_after {
            query.and(&format!("{id} >= "), id_floor(after, -ID_TIME_SLACK_MS));
        }
        if let Some(before) = self.filter.accepted_before {
            query.and(&format!("{id} < "), id_floor(before, ID_TIME_SLACK_MS));
        }
    }

    /// Adds that the command is of one of the page's devices, where not all are meant.
    fn of_devices(&self, query: &mut Query<'_>) {
        if let Some(devices) = self.devices() {
            let names: Vec<&str> = devices.into_iter().map(DeviceSn::as_str).collect();
            query.and("c.device IN (SELECT value FROM json_each(", json!(names).to_string());
            query.sql.push_str("))");
        }
    }
}

/// The first bytes of a version 7 id of this time; no id of it or later sorts before.
fn id_floor(at: Timestamp, slack: i64) -> Vec<u8> {
    let millis = at.as_millis().saturating_add(slack).clamp(0, (1 << 48) - 1);
    millis.to_be_bytes()[2..].to_vec()
}

/// SQL with its parameters.
pub(super) struct Query<'a> {
    pub(super) sql: String,
    pub(super) params: Vec<Box<dyn ToSql + 'a>>,
}

impl<'a> Query<'a> {
    pub(super) fn and(&mut self, test: &str, value: impl ToSql + 'a) {
        self.sql.push_str(" AND ");
        self.sql.push_str(test);
        self.param(value);
    }

    pub(super) fn param(&mut self, value: impl ToSql + 'a) {
        self.params.push(Box::new(value));
        self.sql.push_str(&format!("?{}", self.params.len()));
    }
}

fn many_of(
    conn: &Connection,
    sealer: &Sealer,
    query: &Query<'_>,
) -> Result<Vec<Command>, StoreError> {
    many(conn, sealer, &query.sql, params_from_iter(&query.params))
}

fn many(
    conn: &Connection,
    sealer: &Sealer,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Command>, StoreError> {
    let fault = |err| to_store_error(&err);
    let mut select = conn.prepare_cached(sql).map_err(fault)?;
    let mut found = select.query(params).map_err(fault)?;
    let mut commands = Vec::new();
    while let Some(row) = found.next().map_err(fault)? {
        commands.push(rows::command(row, sealer)?);
    }
    Ok(commands)
}

/// A `LIMIT` as SQLite takes it.
pub(super) fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// An id as it is compared in SQL; an empty `before` means that nothing is left out.
pub(super) fn before_bytes(before: Option<Uuid>) -> Vec<u8> {
    // 17 bytes of ones sort after every id.
    before.map_or(vec![0xff; 17], |before| before.as_bytes().to_vec())
}
