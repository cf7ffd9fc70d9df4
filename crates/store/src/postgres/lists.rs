//! A page of a tenant's commands, and how far it looks.

use tokio_postgres::types::ToSql;
use utmos_core::{
    command::{Command, Status},
    id::{CommandId, DeviceSn, TenantId},
    ports::{CommandFilter, StoreError},
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    PostgresStore,
    cells::Cells,
    reads::{Query, commands, rows_max},
    rows::COMMAND,
    text::kept,
};
use crate::{
    codes::{ENDED_DELIVERED, phases_of},
    lists::{looked_at, time_of_id},
};

/// How far ids' times may be from the times of acceptance: one clock makes both, but each server has its own.
const ID_TIME_SLACK_MS: i64 = 60 * 60 * 1000;

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
    between(&mut query, "c.id", filter, before);
    if let Some(before) = before {
        query.and("l.id < ", before.uuid());
    }
    if let Some(down_to) = filter.down_to {
        query.and("l.id >= ", down_to.uuid());
    }
    if let Some(after) = filter.accepted_after {
        query.and("c.accepted_at >= ", after.as_millis());
    }
    if let Some(before) = filter.accepted_before {
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

/// The first id that can have been made at this time.
fn id_floor(at: Timestamp, slack: i64) -> Uuid {
    let millis = at.as_millis().saturating_add(slack).clamp(0, (1 << 48) - 1);
    Uuid::from_u128(u128::from(millis.unsigned_abs()) << 80)
}

/// What leads to the commands of a page.
enum Way {
    /// All that are open, of all tenants.
    Open,
    /// The tenant's that came to an end few come to; its phase.
    RareEnd(i64),
    /// Those of these devices.
    Devices(Vec<String>),
    Tenant,
}

fn ways(filter: &CommandFilter) -> Vec<Way> {
    match (devices(filter), filter.status) {
        (_, Some(Status::Accepted)) => vec![Way::Open],
        (Some(devices), _) => vec![Way::Devices(devices)],
        (None, None | Some(Status::Succeeded)) => vec![Way::Tenant],
        (None, Some(Status::Delivered)) => vec![Way::Open, Way::RareEnd(ENDED_DELIVERED)],
        (None, Some(status @ (Status::Failed | Status::TimedOut | Status::UnmatchedResponse))) => {
            phases_of(status).iter().map(|phase| Way::RareEnd(*phase)).collect()
        }
    }
}

/// Down to where a page may look: [`crate::lists::LOOKED_AT_MAX`] commands, all ways together.
pub(super) async fn floor(
    store: &PostgresStore,
    tenant: TenantId,
    filter: &CommandFilter,
    before: Option<CommandId>,
) -> Result<Option<CommandId>, StoreError> {
    let ways = ways(filter);
    let each = looked_at(ways.len());
    let mut highest: Option<Uuid> = None;
    for way in ways {
        let is_of_all_tenants = matches!(way, Way::Open);
        let query = floor_query(way, tenant, filter, before, each);
        let params: Vec<&(dyn ToSql + Sync)> =
            query.params.iter().map(|it| &**it as &(dyn ToSql + Sync)).collect();
        let rows = store.read(&query.tests, &params).await?;
        let Some(row) = rows.first() else { continue };
        let floor = Cells::new(row, "commands").uuid("id")?;
        highest = highest.max(Some(if is_of_all_tenants { time_of_id(floor) } else { floor }));
    }
    Ok(highest.map(CommandId::new))
}

/// The last of so many that a way leads to, from its index alone.
fn floor_query(
    way: Way,
    tenant: TenantId,
    filter: &CommandFilter,
    before: Option<CommandId>,
    each: usize,
) -> Query {
    let mut query = Query::default();
    let last = |query: &mut Query, id: &str, each| {
        between(query, id, filter, before);
        let skipped = query.param(rows_max(usize::saturating_sub(each, 1)));
        query.tests.push_str(&format!(" ORDER BY {id} DESC LIMIT 1 OFFSET {skipped}"));
    };
    match way {
        Way::Open => {
            query.tests.push_str("SELECT l.id FROM lives l WHERE l.needs_care");
            last(&mut query, "l.id", each);
        }
        Way::RareEnd(phase) => {
            query.tests.push_str(&format!("SELECT l.id FROM lives l WHERE l.phase = {phase}"));
            query.and("l.rare_of = ", tenant.uuid());
            last(&mut query, "l.id", each);
        }
        Way::Tenant => {
            query.tests.push_str("SELECT c.id FROM commands c WHERE true");
            query.and("c.tenant = ", tenant.uuid());
            last(&mut query, "c.id", each);
        }
        Way::Devices(devices) => {
            let each = looked_at(devices.len());
            let devices = query.param(devices);
            query.tests.push_str(&format!(
                "SELECT f.id FROM unnest({devices}::text[]) AS d (sn) CROSS JOIN LATERAL (
                 SELECT c.id FROM commands c WHERE c.device = d.sn"
            ));
            query.and("c.tenant = ", tenant.uuid());
            last(&mut query, "c.id", each);
            query.tests.push_str(") f ORDER BY f.id DESC LIMIT 1");
        }
    }
    query
}

/// Adds between which ids a page is.
fn between(query: &mut Query, id: &str, filter: &CommandFilter, before: Option<CommandId>) {
    if let Some(before) = before {
        query.and(&format!("{id} < "), before.uuid());
    }
    if let Some(down_to) = filter.down_to {
        query.and(&format!("{id} >= "), down_to.uuid());
    }
    if let Some(after) = filter.accepted_after {
        query.and(&format!("{id} >= "), id_floor(after, -ID_TIME_SLACK_MS));
    }
    if let Some(before) = filter.accepted_before {
        query.and(&format!("{id} < "), id_floor(before, ID_TIME_SLACK_MS));
    }
}
