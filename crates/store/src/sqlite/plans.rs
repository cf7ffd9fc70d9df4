//! Every statement that runs often finds its rows by an index, whatever the size of its table.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, sync::Arc};

use rusqlite::{Connection, StatementStatus};
use utmos_core::{
    command::Status,
    device_request::RoutingDecision,
    id::{CommandId, DeviceSn, TenantId},
    ports::{CommandFilter, RequestFilter},
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    accept, advance, batch, checkpoint::WalSize, nonces, open, reads, reads::Way, requests,
    requests_rules, sorted, timeline, unmatched,
};
use crate::{key::MasterKey, seal::Sealer};

#[test]
fn no_frequent_statement_scans_a_table_or_sorts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("utmos.db");
    let sealer = Sealer::new(&MasterKey::generate().unwrap());
    open::prepare(&path, &sealer).unwrap();
    let conn = open::writer(&path, &Arc::new(WalSize::new())).unwrap();
    let mut checked = BTreeSet::new();
    for (sql, index) in statements() {
        let plan = plan(&conn, &sql);
        // A list in a FROM is made of rows that were found by index themselves. The newest commands are few.
        let sorts = [sorted::SORT_BY_TENANT, sorted::SORT_BY_DEVICE];
        let may_sort = sql.contains(sorted::IS_NEW) || sorts.contains(&sql.as_str());
        let bad: Vec<_> = plan
            .iter()
            .filter(|step| step.starts_with("SCAN") && *step != "SCAN CONSTANT ROW")
            .filter(|step| !step.contains("INDEX lives_in_care"))
            .filter(|step| !step.contains("json_each") && !step.contains("SCAN chain"))
            .chain(
                plan.iter().filter(|step| !may_sort && step.contains("TEMP B-TREE FOR ORDER BY")),
            )
            .collect();
        assert!(bad.is_empty(), "{sql}\n{plan:#?}");
        assert!(
            plan.iter().any(|step| step.contains(index)),
            "{index} is not used by {sql}\n{plan:#?}"
        );
        assert_eq!(prepared_again(&conn, &sql), 0, "new values make SQLite prepare it anew: {sql}");
        checked.insert(sql);
    }
    assert!(checked.len() > 15);
}

/// How often a statement is prepared anew in a few runs. SQLite does so where it thinks that the values bear on the plan.
fn prepared_again(conn: &Connection, sql: &str) -> i32 {
    let moment = conn.unchecked_transaction().unwrap();
    let mut statement = moment.prepare(sql).unwrap();
    for run in 1..5 {
        for at in 1..=statement.parameter_count() {
            statement.raw_bind_parameter(at, run).unwrap();
        }
        let mut rows = statement.raw_query();
        while rows.next().unwrap().is_some() {}
    }
    statement.get_status(StatementStatus::RePrepare)
}

fn plan(conn: &Connection, sql: &str) -> Vec<String> {
    let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    for at in 1..=explain.parameter_count() {
        explain.raw_bind_parameter(at, 1).unwrap();
    }
    let mut rows = explain.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        steps.push(row.get::<_, String>(3).unwrap());
    }
    steps
}

fn statements() -> Vec<(String, &'static str)> {
    let mut all: Vec<(String, &str)> = [
        (accept::SELECT_KEY, "SEARCH idempotency USING PRIMARY KEY"),
        (accept::SELECT_BEFORE, "SEARCH l USING INTEGER PRIMARY KEY"),
        (accept::MOTION_OF_AIRCRAFT, "motions_by_aircraft"),
        (accept::MOTION_OF_GATEWAY, "motions_by_gateway"),
        (nonces::DELETE_NONCES, "nonces_by_expiry"),
        (nonces::SELECT_AFTER, "nonces USING INTEGER PRIMARY KEY"),
        (reads::EMERGENCY_OF_GATEWAY, "commands_emergencies"),
        (reads::EMERGENCY_OF_AIRCRAFT, "commands_emergencies_of_aircraft"),
        (batch::LAST_ROW, "SEARCH commands"),
        (advance::SELECT_STANDING, "sqlite_autoindex_lives_1"),
        (advance::UPDATE_LIFE, "lives USING INTEGER PRIMARY KEY"),
        (advance::UPDATE_LIFE_AND_CARE, "lives USING INTEGER PRIMARY KEY"),
        (advance::UPDATE_LIFE_TO_RARE_END, "lives USING INTEGER PRIMARY KEY"),
        (sorted::SORT_BY_TENANT, "SEARCH commands USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (sorted::SORT_BY_DEVICE, "SEARCH commands USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (sorted::COUNT_DEVICES, "SEARCH commands USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (timeline::SELECT_TIMELINE, "SEARCH t USING INTEGER PRIMARY KEY (rowid=?)"),
        (unmatched::SELECT_UNMATCHED, "unmatched_by_tenant"),
        (unmatched::DELETE_OLDEST, "unmatched_by_tenant"),
        (requests::SELECT_REPEATED, "device_requests_repeated"),
        (requests::SELECT_ONE, "device_requests_by_id"),
        (requests::SELECT_IN_CARE, "device_requests_in_care"),
        (requests::DELETE_OF_GATEWAY, "device_requests_by_gateway"),
        (requests::DELETE_DONE, "device_requests_done"),
        (requests::DELETE_OLDEST, "device_requests_by_tenant"),
        (requests::UPDATE, "device_requests_by_id"),
    ]
    .map(|(sql, index)| (sql.to_owned(), index))
    .into();
    all.push((reads::one_sql(), "sqlite_autoindex_lives_1"));
    all.push((reads::open_sql(), "lives_in_care"));
    all.push((requests_rules::of_task_sql(), "commands_by_job"));
    all.extend(request_pages());
    let device = DeviceSn::parse("D1").unwrap();
    for status in [None, Some(Status::Accepted), Some(Status::Delivered), Some(Status::Failed)] {
        for (device, before, time) in
            [(None, false, false), (None, true, true), (Some(device.clone()), false, true)]
        {
            let at = time.then(|| Timestamp::from_millis(1));
            let filter = CommandFilter {
                status,
                device,
                method: time.then(|| "m".to_owned()),
                accepted_after: at,
                accepted_before: at,
                ..CommandFilter::default()
            };
            let page = reads::Page {
                tenant: TenantId::new(Uuid::nil()),
                filter,
                before: before.then(|| CommandId::new(Uuid::nil())),
                limit: 10,
            };
            for way in page.ways() {
                let index = match way {
                    Way::Open => "lives_in_care",
                    Way::RareEnd(_) => "lives_rare (rare_of=? AND phase=?",
                    Way::Device(_) => "SEARCH s USING PRIMARY KEY (tenant=? AND device=?",
                    Way::New => "SEARCH c USING INTEGER PRIMARY KEY (rowid>?)",
                    Way::Tenant => "SEARCH s USING PRIMARY KEY (tenant=?",
                };
                if let Some(floor) = page.floor_query(way, 10) {
                    all.push((floor.sql, index));
                }
                all.push((page.query(way, None, 10).sql, index));
                let after = Some(CommandId::new(Uuid::nil()));
                all.push((page.query(way, after, 10).sql, index));
            }
        }
    }
    all
}

fn request_pages() -> Vec<(String, &'static str)> {
    let device = DeviceSn::parse("D1").unwrap();
    let mut all = Vec::new();
    for (state, device, index) in [
        (None, None, "device_requests_by_tenant"),
        (Some(RoutingDecision::Expired), None, "device_requests_by_tenant"),
        (Some(RoutingDecision::AwaitingReply), None, "device_requests_in_care"),
        (Some(RoutingDecision::AwaitingReply), Some(&device), "device_requests_by_gateway"),
        (None, Some(&device), "device_requests_by_gateway"),
    ] {
        let request_type = state.map(|_| "config".to_owned());
        let filter = RequestFilter { state, request_type, ..RequestFilter::default() };
        let tenant = TenantId::new(Uuid::nil());
        let page = requests::RequestPage { tenant, filter, before: None, limit: 10 };
        all.push((page.query(device).sql, index));
    }
    all
}
