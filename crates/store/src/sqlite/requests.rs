//! Requests of devices: one row each, changed by a compare-and-set on its version.

use std::{collections::BTreeSet, sync::Arc};

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use utmos_core::{
    command::StatusVersion,
    device_request::{Asked, DeviceRequest, Reply, RoutingDecision},
    id::{DeviceRequestId, DeviceSn, TenantId},
    ports::{RequestChanged, RequestFilter, RequestKept, StoreError},
    time::Timestamp,
};

use super::{
    batch::Batch,
    cells::{Cells, millis},
    fault::{Fault, to_store_error},
    limits::{REQUESTS_PER_TENANT_MAX, REQUESTS_TRIMMED},
    reads::{Query, before_bytes, rows_max},
};
use crate::{
    codes::Coded,
    reply,
    seal::{DataKey, Sealer, Slot},
};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.tenant, r.gateway, r.request_type, r.tid, r.bid, r.asked_on, r.repeat_key, r.payload,
                r.payload_is_cut, r.received_at, r.deadline_boot, r.deadline_mono, r.deadline_wall, r.reply_wait_ms,
                r.auto_after_ms, r.state, r.reply, r.sending, r.sent_at, r.version
             FROM device_requests r ",
            $rest
        )
    };
}

pub(super) const SELECT_REPEATED: &str =
    select!("INDEXED BY device_requests_repeated WHERE r.repeat_key = ?1");
pub(super) const SELECT_ONE: &str = select!("INDEXED BY device_requests_by_id WHERE r.id = ?1");
pub(super) const SELECT_IN_CARE: &str = select!(
    "INDEXED BY device_requests_in_care WHERE r.needs_care = 1 AND r.id > ?1 ORDER BY r.id LIMIT ?2"
);
pub(super) const HEAVIEST: &str = "
    SELECT gateway, count(*) FROM device_requests INDEXED BY device_requests_by_gateway
    WHERE tenant = ?1 GROUP BY gateway ORDER BY count(*) DESC, min(id) LIMIT 1";
pub(super) const DELETE_OF_GATEWAY: &str = "
    DELETE FROM device_requests WHERE row IN (SELECT row FROM device_requests INDEXED BY device_requests_by_gateway
        WHERE tenant = ?1 AND gateway = ?2 AND needs_care = 0 ORDER BY id LIMIT ?3)";
pub(super) const DELETE_DONE: &str = "
    DELETE FROM device_requests WHERE row IN (SELECT row FROM device_requests INDEXED BY device_requests_done
        WHERE tenant = ?1 AND needs_care = 0 ORDER BY id LIMIT ?2)";
pub(super) const DELETE_OLDEST: &str = "
    DELETE FROM device_requests WHERE row IN (SELECT row FROM device_requests INDEXED BY device_requests_by_tenant
        WHERE tenant = ?1 ORDER BY id LIMIT ?2)";
/// Whether it still has a command's claim or reply is told by the version alone.
pub(super) const UPDATE: &str = "
    UPDATE device_requests INDEXED BY device_requests_by_id
    SET state = ?3, reply = ?4, sending = ?5, sent_at = ?6, version = ?7, needs_care = ?8
    WHERE id = ?1 AND version = ?2";

const INSERT: &str = "
    INSERT INTO device_requests (id, tenant, gateway, request_type, tid, bid, asked_on, repeat_key, payload,
        payload_is_cut, received_at, deadline_boot, deadline_mono, deadline_wall, reply_wait_ms, auto_after_ms, state,
        reply, sending, sent_at, version, needs_care)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)";

/// A request whose texts are sealed, so that the writer only writes.
pub(super) struct SealedRequest {
    request: Arc<DeviceRequest>,
    payload: Vec<u8>,
    reply: Option<Vec<u8>>,
}

impl SealedRequest {
    pub(super) fn new(request: Arc<DeviceRequest>, sealer: &Sealer) -> Result<Self, StoreError> {
        let key = key_of(request.asked.id, sealer);
        let payload = key.seal(Slot::RequestPayload, &request.asked.payload)?;
        let reply = request.reply.as_ref().map(|reply| reply::seal(reply, &key)).transpose()?;
        Ok(Self { request, payload, reply })
    }

    pub(super) fn keep(
        &self,
        batch: &mut Batch<'_>,
        sealer: &Sealer,
    ) -> Result<RequestKept, Fault> {
        let asked = &self.request.asked;
        if let Some(repeat_key) = asked.repeat_key {
            let found = batch
                .statement(SELECT_REPEATED)?
                .query_row(params![repeat_key], |row| Ok(read(row, sealer)))
                .optional()?;
            if let Some(found) = found {
                return Ok(RequestKept::Repeats(Box::new(found?)));
            }
        }
        let request = &self.request;
        let tenant = asked.tenant.uuid();
        batch.execute(
            INSERT,
            params![
                asked.id.uuid().as_bytes(),
                tenant.as_bytes(),
                asked.gateway.as_str(),
                asked.request_type,
                asked.tid,
                asked.bid,
                asked.asked_on.code(),
                asked.repeat_key,
                self.payload,
                asked.payload_is_cut,
                asked.received_at.as_millis(),
                asked.deadline.boot.0,
                asked.deadline.mono.as_millis().cast_signed(),
                asked.deadline.wall.as_millis(),
                millis(asked.reply_wait),
                asked.automatic_after.map(millis),
                request.state.code(),
                self.reply,
                request.sending.code(),
                request.sent_at.map(Timestamp::as_millis),
                request.version.0.cast_signed(),
                request.needs_care(),
            ],
        )?;
        batch.record_time(asked.received_at.as_millis());
        make_room(batch, asked.tenant)?;
        Ok(RequestKept::New)
    }

    pub(super) fn change(
        &self,
        batch: &mut Batch<'_>,
        seen: StatusVersion,
    ) -> Result<RequestChanged, Fault> {
        let request = &self.request;
        let changed = batch.execute(
            UPDATE,
            params![
                request.asked.id.uuid().as_bytes(),
                seen.0.cast_signed(),
                request.state.code(),
                self.reply,
                request.sending.code(),
                request.sent_at.map(Timestamp::as_millis),
                request.version.0.cast_signed(),
                request.needs_care(),
            ],
        )?;
        Ok(if changed == 0 { RequestChanged::Lost } else { RequestChanged::Yes })
    }
}

/// Counts one more, and lets the oldest go that nobody has to look after: of the gateway that has most, where it has many, else of
/// all; one that somebody has to look after only where there is no other.
fn make_room(batch: &mut Batch<'_>, tenant: TenantId) -> Result<(), Fault> {
    let tenant = *tenant.uuid().as_bytes();
    let sql = "INSERT INTO device_request_counts (tenant, n) VALUES (?1, 1)
               ON CONFLICT (tenant) DO UPDATE SET n = n + 1";
    batch.execute(sql, params![tenant])?;
    let sql = "SELECT n FROM device_request_counts WHERE tenant = ?1";
    let count: i64 = batch.statement(sql)?.query_row(params![tenant], |row| row.get(0))?;
    let too_many = count - i64::from(REQUESTS_PER_TENANT_MAX);
    if too_many <= 0 {
        return Ok(());
    }
    let (heaviest, has): (String, i64) = batch
        .statement(HEAVIEST)?
        .query_row(params![tenant], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let some = too_many - 1 + i64::from(REQUESTS_TRIMMED);
    let mut gone = 0;
    if has >= 2 * some {
        let of_it = batch.execute(DELETE_OF_GATEWAY, params![tenant, heaviest, some])?;
        gone = i64::try_from(of_it).unwrap_or(0);
    }
    // Where nobody has many more than others it is everybody's oldest.
    for (sql, most) in [(DELETE_DONE, some), (DELETE_OLDEST, too_many)] {
        if gone < too_many {
            let more = batch.execute(sql, params![tenant, most - gone])?;
            gone += i64::try_from(more).unwrap_or(0);
        }
    }
    let sql = "UPDATE device_request_counts SET n = ?2 WHERE tenant = ?1";
    batch.execute(sql, params![tenant, count - gone])?;
    Ok(())
}

pub(super) fn one(
    conn: &Connection,
    sealer: &Sealer,
    id: DeviceRequestId,
) -> Result<Option<DeviceRequest>, StoreError> {
    find(conn, sealer, SELECT_ONE, id.uuid().as_bytes())
}

pub(super) fn repeated(
    conn: &Connection,
    sealer: &Sealer,
    key: [u8; 16],
) -> Result<Option<DeviceRequest>, StoreError> {
    find(conn, sealer, SELECT_REPEATED, &key)
}

fn find(
    conn: &Connection,
    sealer: &Sealer,
    sql: &str,
    key: &[u8; 16],
) -> Result<Option<DeviceRequest>, StoreError> {
    let fault = |err| to_store_error(&err);
    let mut select = conn.prepare_cached(sql).map_err(fault)?;
    let found = select.query_row(params![key], |row| Ok(read(row, sealer))).optional();
    found.map_err(fault)?.transpose()
}

pub(super) fn in_care(
    conn: &Connection,
    sealer: &Sealer,
    after: Option<DeviceRequestId>,
    limit: usize,
) -> Result<Vec<DeviceRequest>, StoreError> {
    // An empty blob sorts before every id.
    let after = after.map_or(Vec::new(), |after| after.uuid().as_bytes().to_vec());
    many(conn, sealer, SELECT_IN_CARE, params![after, rows_max(limit)])
}

/// A page of a tenant's requests.
pub(super) struct RequestPage {
    pub(super) tenant: TenantId,
    pub(super) filter: RequestFilter,
    pub(super) before: Option<DeviceRequestId>,
    pub(super) limit: usize,
}

impl RequestPage {
    pub(super) fn read(
        &self,
        conn: &Connection,
        sealer: &Sealer,
    ) -> Result<Vec<DeviceRequest>, StoreError> {
        let Some(devices) = self.devices() else {
            let query = self.query(None);
            return many(conn, sealer, &query.sql, params_from_iter(&query.params));
        };
        // Each device has an index of its own order; the page is the newest of all of theirs together.
        let moment = conn.unchecked_transaction().map_err(|err| to_store_error(&err))?;
        let mut page = Vec::new();
        for device in devices {
            let query = self.query(Some(device));
            page.extend(many(&moment, sealer, &query.sql, params_from_iter(&query.params))?);
            page.sort_by_key(|request: &DeviceRequest| std::cmp::Reverse(request.asked.id));
            page.truncate(self.limit);
        }
        Ok(page)
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

    pub(super) fn query<'a>(&'a self, device: Option<&'a DeviceSn>) -> Query<'a> {
        let waits = self.filter.state == Some(RoutingDecision::AwaitingReply);
        // What waits is found by its index, of which there is little. SQLite has no statistics to choose an index by.
        let index = match (device, waits) {
            (Some(_), _) => "device_requests_by_gateway",
            (None, true) => "device_requests_in_care",
            (None, false) => "device_requests_by_tenant",
        };
        let mut query = Query { sql: select!("").to_owned(), params: Vec::new() };
        query.sql.push_str(&format!("INDEXED BY {index} WHERE true"));
        if waits && device.is_none() {
            query.sql.push_str(" AND r.needs_care = 1");
        }
        query.and("r.tenant = ", self.tenant.uuid().as_bytes().to_vec());
        if let Some(device) = device {
            query.and("r.gateway = ", device.as_str());
        }
        query.and("r.id < ", before_bytes(self.before.map(DeviceRequestId::uuid)));
        if let Some(state) = self.filter.state {
            query.and("r.state = ", state.code());
        }
        if let Some(request_type) = &self.filter.request_type {
            query.and("r.request_type = ", request_type.as_str());
        }
        query.sql.push_str(" ORDER BY r.id DESC LIMIT ");
        query.param(rows_max(self.limit));
        query
    }
}

fn many(
    conn: &Connection,
    sealer: &Sealer,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<DeviceRequest>, StoreError> {
    let fault = |err| to_store_error(&err);
    let mut select = conn.prepare_cached(sql).map_err(fault)?;
    let mut found = select.query(params).map_err(fault)?;
    let mut requests = Vec::new();
    while let Some(row) = found.next().map_err(fault)? {
        requests.push(read(row, sealer)?);
    }
    Ok(requests)
}

fn read(row: &Row<'_>, sealer: &Sealer) -> Result<DeviceRequest, StoreError> {
    let mut cells = Cells::new(row, "device_requests");
    let id = DeviceRequestId::new(cells.uuid("id")?);
    cells.name(id);
    let key = key_of(id, sealer);
    let tenant = TenantId::new(cells.uuid("tenant")?);
    let gateway = cells.gateway("gateway")?;
    let asked = Asked {
        id,
        tenant,
        device: gateway.to_device(),
        gateway,
        request_type: cells.get("request_type")?,
        tid: cells.get("tid")?,
        bid: cells.get("bid")?,
        asked_on: cells.coded("asked_on")?,
        repeat_key: cells.get("repeat_key")?,
        payload: cells.sealed("payload", &key, Slot::RequestPayload)?,
        payload_is_cut: cells.get("payload_is_cut")?,
        received_at: cells.at("received_at")?,
        deadline: cells
            .maybe_deadline("deadline")?
            .ok_or_else(|| cells.damaged("deadline", "there is none"))?,
        reply_wait: cells.duration("reply_wait_ms")?,
        automatic_after: cells.maybe_duration("auto_after_ms")?,
    };
    Ok(DeviceRequest {
        asked: Arc::new(asked),
        state: cells.coded("state")?,
        reply: open_reply(&mut cells, &key)?,
        sending: cells.coded("sending")?,
        sent_at: cells.maybe_at("sent_at")?,
        version: StatusVersion(cells.get::<i64>("version")?.cast_unsigned()),
    })
}

fn key_of(id: DeviceRequestId, sealer: &Sealer) -> DataKey {
    sealer.data_key_of(id.uuid().as_bytes())
}

fn open_reply(cells: &mut Cells<'_>, key: &DataKey) -> Result<Option<Reply>, StoreError> {
    let text = cells.maybe_sealed("reply", key, Slot::RequestReply)?;
    text.map(|text| reply::read(&text).map_err(|error| cells.damaged("reply", error))).transpose()
}
