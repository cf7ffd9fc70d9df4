//! Requests of devices: one row each, changed by a compare-and-set on its version.
//!
//! What is to be kept is gathered, since devices ask all at once when a broker comes back. In a transaction rows are
//! written in the order of their repeat keys and tenants are counted in the order of their ids, so that servers wait for
//! each other in no circle. A request whose key another server is just keeping waits for that server's commit.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use deadpool_postgres::{Pool, Transaction};
use tokio_postgres::Row;
use utmos_core::{
    command::StatusVersion,
    device_request::{Asked, DeviceRequest, RoutingDecision, Scope, SetRule},
    id::{DeviceRequestId, DeviceSn, GatewaySn, TenantId},
    ports::{
        RequestChanged, RequestFilter, RequestKept, RequestStore, RuleSet, StoreError, TaskState,
    },
    reply::RawJson,
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    PostgresStore,
    cells::{Cells, code, millis},
    fault::Fault,
    rare::{execute, rarely, select},
    requests_rules::{self, OfTask},
    text::kept,
};
use crate::{
    reply,
    seal::{DataKey, Sealer, Slot},
    sqlite::limits::{REQUESTS_PER_TENANT_MAX, REQUESTS_TRIMMED},
};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.tenant, r.gateway, r.request_type, r.tid, r.bid, r.asked_on, r.repeat_key, r.payload,
                r.payload_is_cut, r.received_at, r.deadline_boot, r.deadline_mono, r.deadline_wall, r.reply_wait_ms,
                r.auto_after_ms, r.state, r.reply, r.sending, r.sent_at, r.version
             FROM ",
            $rest
        )
    };
}

const SELECT_ONE: &str = select!("device_requests r WHERE r.id = $1");
const SELECT_REPEATED: &str = select!("device_requests r WHERE r.repeat_key = $1");
const SELECT_IN_CARE: &str =
    select!("device_requests r WHERE r.needs_care AND r.id > $1 ORDER BY r.id LIMIT $2");
const SELECT_PAGE: &str = select!(
    "device_requests r WHERE r.tenant = $1 AND r.id < $2 AND ($3::smallint IS NULL OR r.state = $3)
        AND ($4::text IS NULL OR r.request_type = $4) ORDER BY r.id DESC LIMIT $5"
);
/// What waits is found by its index, of which there is little.
const SELECT_WAITING: &str = select!(
    "device_requests r WHERE r.needs_care AND r.tenant = $1 AND r.id < $2 AND ($3::smallint IS NULL OR r.state = $3)
        AND ($4::text IS NULL OR r.request_type = $4) ORDER BY r.id DESC LIMIT $5"
);
/// Each device has an index of its own order; the page is the newest of all of theirs together.
const SELECT_OF_DEVICES: &str = select!(
    "unnest($6::text[]) AS wanted (gateway) CROSS JOIN LATERAL (
        SELECT * FROM device_requests d WHERE d.tenant = $1 AND d.gateway = wanted.gateway AND d.id < $2
            AND ($3::smallint IS NULL OR d.state = $3) AND ($4::text IS NULL OR d.request_type = $4)
        ORDER BY d.id DESC LIMIT $5) r
     ORDER BY r.id DESC LIMIT $5"
);

const INSERT: &str = "
    INSERT INTO device_requests (id, tenant, gateway, request_type, tid, bid, asked_on, repeat_key, payload,
        payload_is_cut, received_at, deadline_boot, deadline_mono, deadline_wall, reply_wait_ms, auto_after_ms, state,
        reply, sending, sent_at, version, needs_care)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[],
        $8::uuid[], $9::bytea[], $10::boolean[], $11::bigint[], $12::uuid[], $13::bigint[], $14::bigint[],
        $15::bigint[], $16::bigint[], $17::smallint[], $18::bytea[], $19::smallint[], $20::bigint[], $21::bigint[],
        $22::boolean[])
    ON CONFLICT DO NOTHING RETURNING id";
const COUNT: &str = "
    INSERT INTO device_request_counts AS c (tenant, n) SELECT * FROM unnest($1::uuid[], $2::bigint[])
    ON CONFLICT (tenant) DO UPDATE SET n = c.n + excluded.n RETURNING c.tenant, c.n";
const HEAVIEST: &str = "
    SELECT gateway, count(*) AS has FROM device_requests WHERE tenant = $1
    GROUP BY gateway ORDER BY count(*) DESC, min(id::text) LIMIT 1";
const DELETE_OF_GATEWAY: &str = "
    DELETE FROM device_requests WHERE id IN (
        SELECT id FROM device_requests WHERE tenant = $1 AND gateway = $2 AND NOT needs_care ORDER BY id LIMIT $3)";
const DELETE_DONE: &str = "
    DELETE FROM device_requests WHERE id IN (
        SELECT id FROM device_requests WHERE tenant = $1 AND NOT needs_care ORDER BY id LIMIT $2)";
const DELETE_OLDEST: &str = "
    DELETE FROM device_requests WHERE id IN (
        SELECT id FROM device_requests WHERE tenant = $1 ORDER BY id LIMIT $2)";
/// Whether somebody was quicker is told by the version alone.
const UPDATE: &str = "
    UPDATE device_requests
    SET state = $3, reply = $4, sending = $5, sent_at = $6, version = $7, needs_care = $8
    WHERE id = $1 AND version = $2";

const RECORD_TIME: &str = "
    INSERT INTO clocks AS c (writer, newest) VALUES ($1, $2)
    ON CONFLICT (writer) DO UPDATE SET newest = greatest(c.newest, excluded.newest)";

/// A request whose texts are sealed.
pub(super) struct SealedRequest {
    request: Arc<DeviceRequest>,
    payload: Vec<u8>,
    reply: Option<Vec<u8>>,
}

impl SealedRequest {
    pub(super) fn new(request: Arc<DeviceRequest>, sealer: &Sealer) -> Result<Self, StoreError> {
        let key = key_of(request.asked.id, sealer);
        let payload = key.seal(Slot::RequestPayload, &request.asked.payload)?;
        let reply = request.reply.as_ref().map(|it| reply::seal(it, &key)).transpose()?;
        Ok(Self { request, payload, reply })
    }
}

#[async_trait]
impl RequestStore for PostgresStore {
    async fn keep_request(&self, request: Arc<DeviceRequest>) -> Result<RequestKept, StoreError> {
        let sealed = SealedRequest::new(request, &self.sealer)?;
        let keeping =
            Keeping { pool: self.pool.clone(), sealer: self.sealer.clone(), writer: self.id };
        self.requests.submit(sealed, move |batch| keeping.keep(batch)).await
    }

    async fn change_request(
        &self,
        seen: StatusVersion,
        request: Arc<DeviceRequest>,
    ) -> Result<RequestChanged, StoreError> {
        let sealed = SealedRequest::new(request, &self.sealer)?;
        let changed: Result<u64, StoreError> = rarely!(self, |tx| change(&tx, seen, &sealed));
        Ok(if changed? == 0 { RequestChanged::Lost } else { RequestChanged::Yes })
    }

    async fn request_repeated(&self, key: [u8; 16]) -> Result<Option<DeviceRequest>, StoreError> {
        let rows = self.read(SELECT_REPEATED, &[&Uuid::from_bytes(key)]).await?;
        rows.first().map(|row| read(row, &self.sealer)).transpose()
    }

    async fn request(&self, id: DeviceRequestId) -> Result<Option<DeviceRequest>, StoreError> {
        let rows = self.read(SELECT_ONE, &[&id.uuid()]).await?;
        rows.first().map(|row| read(row, &self.sealer)).transpose()
    }

    async fn requests_of(
        &self,
        tenant: TenantId,
        filter: RequestFilter,
        before: Option<DeviceRequestId>,
        limit: usize,
    ) -> Result<Vec<DeviceRequest>, StoreError> {
        let tenant = tenant.uuid();
        let before = before.map_or(Uuid::max(), DeviceRequestId::uuid);
        let state = filter.state.map(code);
        let request_type = filter.request_type.as_deref().map(kept);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = match devices(&filter) {
            None => {
                let waits = filter.state == Some(RoutingDecision::AwaitingReply);
                let sql = if waits { SELECT_WAITING } else { SELECT_PAGE };
                self.read(sql, &[&tenant, &before, &state, &request_type, &limit]).await?
            }
            Some(devices) => {
                let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
                    [&tenant, &before, &state, &request_type, &limit, &devices];
                self.read(SELECT_OF_DEVICES, &params).await?
            }
        };
        rows.iter().map(|row| read(row, &self.sealer)).collect()
    }

    async fn requests_in_care(
        &self,
        after: Option<DeviceRequestId>,
        limit: usize,
    ) -> Result<Vec<DeviceRequest>, StoreError> {
        let after = after.map_or(Uuid::nil(), DeviceRequestId::uuid);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.read(SELECT_IN_CARE, &[&after, &limit]).await?;
        rows.iter().map(|row| read(row, &self.sealer)).collect()
    }

    async fn task_sent(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        method: &str,
        task: &str,
    ) -> Result<Option<RawJson>, StoreError> {
        let found = OfTask { tenant, gateway, method, task }.find(self).await?;
        Ok(found.map(|command| command.spec.payload.clone()))
    }

    async fn task_state(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        method: &str,
        task: &str,
    ) -> Result<Option<TaskState>, StoreError> {
        let found = OfTask { tenant, gateway, method, task }.find(self).await?;
        let execution = found.and_then(|command| command.life.execution.clone());
        Ok(execution.map(|execution| TaskState {
            status: execution.state,
            report: execution.ext,
            percent: execution.percent,
        }))
    }

    async fn rules_generation(&self) -> Result<u64, StoreError> {
        requests_rules::generation(self).await
    }

    async fn rules(&self) -> Result<Vec<SetRule>, StoreError> {
        requests_rules::every(self).await
    }

    async fn put_rule(&self, rule: SetRule) -> Result<RuleSet, StoreError> {
        rarely!(self, |tx| requests_rules::put(&tx, &rule))
    }

    async fn remove_rule(&self, scope: Scope) -> Result<bool, StoreError> {
        rarely!(self, |tx| requests_rules::remove(&tx, &scope))
    }
}

/// The devices to look for; `None` for all.
fn devices(filter: &RequestFilter) -> Option<Vec<&str>> {
    let allowed = filter.devices.as_ref();
    match &filter.device {
        Some(device) if allowed.is_none_or(|allowed| allowed.contains(device)) => {
            Some(vec![device.as_str()])
        }
        Some(_) => Some(Vec::new()),
        None => allowed.map(|allowed| allowed.iter().map(DeviceSn::as_str).collect()),
    }
}

/// What a transaction that keeps requests needs, whoever waits for it.
struct Keeping {
    pool: Pool,
    sealer: Arc<Sealer>,
    /// Whose row in `clocks` is that of the pool.
    writer: Uuid,
}

impl Keeping {
    async fn keep(self, batch: Vec<SealedRequest>) -> Result<Vec<RequestKept>, StoreError> {
        rarely!(self, |tx| keep(&tx, &self, &batch))
    }
}

async fn keep(
    tx: &Transaction<'_>,
    Keeping { sealer, writer, .. }: &Keeping,
    batch: &[SealedRequest],
) -> Result<Vec<RequestKept>, Fault> {
    let mut new = insert(tx, batch).await?;
    let mut added: BTreeMap<Uuid, i64> = BTreeMap::new();
    let mut answers = Vec::with_capacity(batch.len());
    for sealed in batch {
        let asked = &sealed.request.asked;
        if new.remove(&asked.id.uuid()) {
            *added.entry(asked.tenant.uuid()).or_default() += 1;
            answers.push(RequestKept::New);
            continue;
        }
        answers.push(match asked.repeat_key {
            Some(key) => {
                let rows = select(tx, SELECT_REPEATED, &[&Uuid::from_bytes(key)]).await?;
                // What stood in its way went just now: there is room for it at the next try.
                let row = rows.first().ok_or_else(gone)?;
                RequestKept::Repeats(Box::new(read(row, sealer)?))
            }
            // It has its own id, from a commit whose answer was lost.
            None => RequestKept::New,
        });
    }
    if !added.is_empty() {
        make_room(tx, &added).await?;
        let times = batch.iter().map(|sealed| sealed.request.asked.received_at.as_millis());
        let newest = times.max().unwrap_or(i64::MIN);
        execute(tx, RECORD_TIME, &[writer, &newest]).await?;
    }
    Ok(answers)
}

fn gone() -> Fault {
    Fault::Crossed(StoreError::Unavailable("a device request was forgotten just now".to_owned()))
}

/// Writes those that are not there yet; answers which.
async fn insert(
    tx: &Transaction<'_>,
    batch: &[SealedRequest],
) -> Result<std::collections::BTreeSet<Uuid>, Fault> {
    let mut ordered: Vec<&SealedRequest> = batch.iter().collect();
    ordered.sort_by_key(|sealed| (sealed.request.asked.repeat_key, sealed.request.asked.id));
    macro_rules! column {
        (|$request:ident, $asked:ident| $value:expr) => {
            ordered
                .iter()
                .map(|sealed| {
                    let $request = &sealed.request;
                    let $asked = &$request.asked;
                    $value
                })
                .collect::<Vec<_>>()
        };
    }
    let text = |text: &Option<String>| text.as_deref().map(|it| kept(it).into_owned());
    let payloads: Vec<&[u8]> = ordered.iter().map(|sealed| sealed.payload.as_slice()).collect();
    let replies: Vec<Option<&[u8]>> =
        ordered.iter().map(|sealed| sealed.reply.as_deref()).collect();
    let rows = select(
        tx,
        INSERT,
        &[
            &column!(|_request, asked| asked.id.uuid()),
            &column!(|_request, asked| asked.tenant.uuid()),
            &column!(|_request, asked| asked.gateway.as_str()),
            &column!(|_request, asked| text(&asked.request_type)),
            &column!(|_request, asked| text(&asked.tid)),
            &column!(|_request, asked| text(&asked.bid)),
            &column!(|_request, asked| code(asked.asked_on)),
            &column!(|_request, asked| asked.repeat_key.map(Uuid::from_bytes)),
            &payloads,
            &column!(|_request, asked| asked.payload_is_cut),
            &column!(|_request, asked| asked.received_at.as_millis()),
            &column!(|_request, asked| Uuid::from_bytes(asked.deadline.boot.0)),
            &column!(|_request, asked| asked.deadline.mono.as_millis().cast_signed()),
            &column!(|_request, asked| asked.deadline.wall.as_millis()),
            &column!(|_request, asked| millis(asked.reply_wait)),
            &column!(|_request, asked| asked.automatic_after.map(millis)),
            &column!(|request, _asked| code(request.state)),
            &replies,
            &column!(|request, _asked| code(request.sending)),
            &column!(|request, _asked| request.sent_at.map(Timestamp::as_millis)),
            &column!(|request, _asked| request.version.0.cast_signed()),
            &column!(|request, _asked| request.needs_care()),
        ],
    )
    .await?;
    let id = |row: &Row| Ok(Cells::new(row, "device_requests").uuid("id")?);
    rows.iter().map(id).collect()
}

/// Counts what came, and lets the oldest go that nobody has to look after: of the gateway that has most, where it has many, else of
/// all; one that somebody has to look after only where there is no other.
async fn make_room(tx: &Transaction<'_>, added: &BTreeMap<Uuid, i64>) -> Result<(), Fault> {
    let tenants: Vec<Uuid> = added.keys().copied().collect();
    let numbers: Vec<i64> = added.values().copied().collect();
    for row in select(tx, COUNT, &[&tenants, &numbers]).await? {
        let mut cells = Cells::new(&row, "device_request_counts");
        let (tenant, count): (Uuid, i64) = (cells.get("tenant")?, cells.get("n")?);
        let too_many = count - i64::from(REQUESTS_PER_TENANT_MAX);
        if too_many <= 0 {
            continue;
        }
        let some = too_many - 1 + i64::from(REQUESTS_TRIMMED);
        let mut gone = 0;
        for row in select(tx, HEAVIEST, &[&tenant]).await? {
            let mut cells = Cells::new(&row, "device_requests");
            let (heaviest, has): (String, i64) = (cells.get("gateway")?, cells.get("has")?);
            if has >= 2 * some {
                let more = execute(tx, DELETE_OF_GATEWAY, &[&tenant, &heaviest, &some]).await?;
                gone += i64::try_from(more).unwrap_or(0);
            }
        }
        // Where nobody has many more than others it is everybody's oldest.
        for (sql, most) in [(DELETE_DONE, some), (DELETE_OLDEST, too_many)] {
            if gone < too_many {
                let more = execute(tx, sql, &[&tenant, &(most - gone)]).await?;
                gone += i64::try_from(more).unwrap_or(0);
            }
        }
        let sql = "UPDATE device_request_counts SET n = $2 WHERE tenant = $1";
        execute(tx, sql, &[&tenant, &(count - gone)]).await?;
    }
    Ok(())
}

/// Answers how many rows that were: none where somebody was quicker.
pub(super) async fn change(
    tx: &Transaction<'_>,
    seen: StatusVersion,
    sealed: &SealedRequest,
) -> Result<u64, Fault> {
    let request = &sealed.request;
    execute(
        tx,
        UPDATE,
        &[
            &request.asked.id.uuid(),
            &seen.0.cast_signed(),
            &code(request.state),
            &sealed.reply,
            &code(request.sending),
            &request.sent_at.map(Timestamp::as_millis),
            &request.version.0.cast_signed(),
            &request.needs_care(),
        ],
    )
    .await
}

fn read(row: &Row, sealer: &Sealer) -> Result<DeviceRequest, StoreError> {
    let mut cells = Cells::new(row, "device_requests");
    let id = DeviceRequestId::new(cells.uuid("id")?);
    cells.name(id);
    let key = key_of(id, sealer);
    let tenant = cells.tenant("tenant")?;
    let gateway = cells.gateway("gateway")?;
    let asked = Asked {
        id,
        tenant,
        device: gateway.to_device(),
        gateway,
        request_type: cells.maybe_text("request_type")?,
        tid: cells.maybe_text("tid")?,
        bid: cells.maybe_text("bid")?,
        asked_on: cells.coded("asked_on")?,
        repeat_key: cells.get::<Option<Uuid>>("repeat_key")?.map(Uuid::into_bytes),
        payload: cells.sealed("payload", &key, Slot::RequestPayload)?,
        payload_is_cut: cells.get("payload_is_cut")?,
        received_at: cells.at("received_at")?,
        deadline: cells
            .maybe_deadline("deadline")?
            .ok_or_else(|| cells.damaged("deadline", "there is none"))?,
        reply_wait: cells.duration("reply_wait_ms")?,
        automatic_after: cells.maybe_duration("auto_after_ms")?,
    };
    let state = cells.coded("state")?;
    let kept_reply = cells.maybe_sealed("reply", &key, Slot::RequestReply)?;
    let kept_reply = kept_reply
        .map(|text| reply::read(&text).map_err(|error| cells.damaged("reply", error)))
        .transpose()?;
    Ok(DeviceRequest {
        asked: Arc::new(asked),
        state,
        reply: kept_reply,
        sending: cells.coded("sending")?,
        sent_at: cells.maybe_at("sent_at")?,
        version: StatusVersion(cells.get::<i64>("version")?.cast_unsigned()),
    })
}

fn key_of(id: DeviceRequestId, sealer: &Sealer) -> DataKey {
    sealer.data_key_of(id.uuid().as_bytes())
}
