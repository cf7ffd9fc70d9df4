//! Sightings of devices, changes of the registry that go on record, and binding codes.
//!
//! Orders and bindings lock the registry's generation first, as every change of the registry does: a serial number that
//! two servers want for two tenants at once goes to one of them, and nobody waits for the other in a circle. Sightings
//! come often and do without that lock; each keeps its device from being forgotten while it is written. A binding that
//! answers a request changes the request's row under that lock; nobody who holds that row asks for the lock.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use utmos_core::{
    binding::BindingCode,
    command::StatusVersion,
    device::Device,
    device_request::DeviceRequest,
    id::{BindingCodeId, DeviceSn, GatewaySn, TenantId},
    ports::{
        Bind, Bound, BoundAnswer, By, DeviceOrder, DeviceRecord, FleetStore, Ordered, Recorded,
        Sighting, StoreError,
    },
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    PostgresStore,
    cells::{Cells, code, millis},
    fault::Fault,
    rare::{execute, rarely, select},
    registry::{
        Known, insert_device, known_device, lock, note, put_device, put_topology, record,
        remove_device,
    },
    requests::{SealedRequest, change},
    text::kept,
};
use crate::sqlite::limits::BINDING_CODE_KEPT;

#[async_trait]
impl FleetStore for PostgresStore {
    async fn keep_sightings(&self, seen: Vec<Sighting>) -> Result<(), StoreError> {
        let seen = Columns::new(seen);
        rarely!(self, |tx| keep_sightings(&tx, &seen))
    }

    async fn sightings(&self) -> Result<Vec<Sighting>, StoreError> {
        let sql = "SELECT s.sn, d.tenant, s.first_seen_at, s.last_seen_at, s.firmware, s.model_key, s.online
                   FROM sightings s JOIN devices d ON d.sn = s.sn ORDER BY s.sn";
        self.read(sql, &[]).await?.iter().map(read_sighting).collect()
    }

    async fn joined(&self) -> Result<Vec<(GatewaySn, DeviceSn)>, StoreError> {
        let sql = "SELECT sn, who FROM
                       (SELECT DISTINCT sn, who FROM device_records WHERE what = ANY($1::smallint[])) records
                   ORDER BY who COLLATE \"C\", sn";
        let whats = [code(Recorded::Joined), code(Recorded::Bound)];
        let mut joined = Vec::new();
        for row in &self.read(sql, &[&whats.as_slice()]).await? {
            let mut cells = Cells::new(row, "device_records");
            let sn = cells.device("sn")?;
            joined.extend(By::joined(&cells.text("who")?, sn));
        }
        Ok(joined)
    }

    async fn order(&self, order: DeviceOrder, by: By) -> Result<Ordered, StoreError> {
        rarely!(self, |tx| carry_out(&tx, &order, &by))
    }

    async fn bind(&self, wanted: Bind) -> Result<Bound, StoreError> {
        rarely!(self, |tx| bind(&tx, &wanted))
    }

    async fn bind_answering(
        &self,
        wanted: Bind,
        seen: StatusVersion,
        request: Arc<DeviceRequest>,
    ) -> Result<BoundAnswer, StoreError> {
        let answer = SealedRequest::new(request, &self.sealer)?;
        rarely!(self, |tx| bind_answering(&tx, &wanted, seen, &answer))
    }

    async fn device_record(&self, sn: &DeviceSn) -> Result<Vec<DeviceRecord>, StoreError> {
        let sql = "SELECT what, tenant_before, tenant_after, who, at FROM device_records WHERE sn = $1 ORDER BY n DESC";
        let rows = self.read(sql, &[&sn.as_str()]).await?;
        rows.iter().map(|row| read_record(row, sn)).collect()
    }

    async fn add_binding_code(
        &self,
        code: BindingCode,
        active_max: usize,
    ) -> Result<bool, StoreError> {
        rarely!(self, |tx| add_code(&tx, &code, active_max))
    }

    async fn binding_codes(&self) -> Result<Vec<BindingCode>, StoreError> {
        let sql = "SELECT id, tenant, label, hash, uses_max, uses, created_at, created_by, expires_at, revoked_at
                   FROM binding_codes ORDER BY created_at, id";
        self.read(sql, &[]).await?.iter().map(read_code).collect()
    }

    async fn revoke_binding_code(
        &self,
        tenant: TenantId,
        id: BindingCodeId,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        rarely!(self, |tx| revoke_code(&tx, tenant, id, at))
    }
}

/// Sightings as columns, one for each device, in the order of their serial numbers: whoever writes several rows takes
/// them in one order.
struct Columns {
    sn: Vec<String>,
    tenant: Vec<Uuid>,
    first_seen_at: Vec<i64>,
    last_seen_at: Vec<i64>,
    firmware: Vec<Option<String>>,
    model_key: Vec<Option<String>>,
    online: Vec<bool>,
}

impl Columns {
    fn new(seen: Vec<Sighting>) -> Self {
        let mut by_device: BTreeMap<(DeviceSn, TenantId), Sighting> = BTreeMap::new();
        for mut one in seen {
            // As if they were written one after another.
            let device = (one.sn.clone(), one.tenant);
            if let Some(before) = by_device.get(&device) {
                one.first_seen_at = one.first_seen_at.min(before.first_seen_at);
            }
            by_device.insert(device, one);
        }
        let all: Vec<Sighting> = by_device.into_values().collect();
        let text = |text: &Option<String>| text.as_deref().map(|it| kept(it).into_owned());
        Self {
            sn: all.iter().map(|one| one.sn.to_string()).collect(),
            tenant: all.iter().map(|one| one.tenant.uuid()).collect(),
            first_seen_at: all.iter().map(|one| one.first_seen_at.as_millis()).collect(),
            last_seen_at: all.iter().map(|one| one.last_seen_at.as_millis()).collect(),
            firmware: all.iter().map(|one| text(&one.firmware)).collect(),
            model_key: all.iter().map(|one| text(&one.model_key)).collect(),
            online: all.iter().map(|one| one.online).collect(),
        }
    }
}

async fn keep_sightings(tx: &Transaction<'_>, seen: &Columns) -> Result<(), Fault> {
    // Whoever moves or removes one of them waits, and then takes what is written here away.
    let sql = "SELECT d.sn FROM devices d JOIN unnest($1::text[], $2::uuid[]) AS seen (sn, tenant)
                   ON d.sn = seen.sn AND d.tenant = seen.tenant
               ORDER BY d.sn FOR SHARE OF d";
    select(tx, sql, &[&seen.sn, &seen.tenant]).await?;
    // Several servers tell of the same device. One that has heard nothing for a while knows less than what stands there,
    // unless that was written by a clock that was ahead.
    execute(
        tx,
        "INSERT INTO sightings AS s (sn, first_seen_at, last_seen_at, firmware, model_key, online)
         SELECT seen.sn, seen.first_seen_at, seen.last_seen_at, seen.firmware, seen.model_key, seen.online
         FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::boolean[])
             AS seen (sn, tenant, first_seen_at, last_seen_at, firmware, model_key, online)
         JOIN devices d ON d.sn = seen.sn AND d.tenant = seen.tenant
         ORDER BY seen.sn
         ON CONFLICT (sn) DO UPDATE SET
             first_seen_at = least(s.first_seen_at, excluded.first_seen_at), last_seen_at = excluded.last_seen_at,
             firmware = excluded.firmware, model_key = excluded.model_key, online = excluded.online
             WHERE s.last_seen_at <= excluded.last_seen_at OR s.last_seen_at > (extract(epoch FROM now()) * 1000)::bigint",
        &[
            &seen.sn,
            &seen.tenant,
            &seen.first_seen_at,
            &seen.last_seen_at,
            &seen.firmware,
            &seen.model_key,
            &seen.online,
        ],
    )
    .await?;
    Ok(())
}

fn read_sighting(row: &Row) -> Result<Sighting, StoreError> {
    let mut cells = Cells::new(row, "sightings");
    let sn = cells.device("sn")?;
    cells.name(&sn);
    Ok(Sighting {
        sn,
        tenant: cells.tenant("tenant")?,
        first_seen_at: cells.at("first_seen_at")?,
        last_seen_at: cells.at("last_seen_at")?,
        firmware: cells.maybe_text("firmware")?,
        model_key: cells.maybe_text("model_key")?,
        online: cells.get("online")?,
    })
}

/// The device, if it is this tenant's.
async fn of_tenant(
    tx: &Transaction<'_>,
    sn: &DeviceSn,
    tenant: TenantId,
) -> Result<Option<Device>, Fault> {
    let known = known_device(tx, sn).await?.transpose()?;
    Ok(known.filter(|device| device.tenant == tenant))
}

async fn carry_out(tx: &Transaction<'_>, order: &DeviceOrder, by: &By) -> Result<Ordered, Fault> {
    lock(tx).await?;
    match order {
        DeviceOrder::Register(device) => match known_device(tx, &device.sn).await?.transpose()? {
            Some(known) if known.tenant == device.tenant => Ok(Ordered::Known(known)),
            Some(_) => Ok(Ordered::Taken),
            None => {
                add_device(tx, device, Recorded::Registered, by).await?;
                Ok(Ordered::Done(device.clone()))
            }
        },
        DeviceOrder::Edit { sn, tenant, edit } => {
            let Some(known) = of_tenant(tx, sn, *tenant).await? else {
                return Ok(Ordered::Unknown);
            };
            let mut device = known.clone();
            if let Some(label) = &edit.label {
                device.label.clone_from(label);
            }
            if let Some(tags) = &edit.tags {
                device.tags.clone_from(tags);
            }
            let whose = Some(*tenant);
            if device != known {
                record(tx, sn, Recorded::Edited, whose, whose, by).await?;
            }
            if edit.mqtt_secret_hash.is_some() {
                device.mqtt_secret_hash = edit.mqtt_secret_hash;
                record(tx, sn, Recorded::Password, whose, whose, by).await?;
            }
            put_device(tx, &device).await?;
            Ok(Ordered::Done(device))
        }
        DeviceOrder::Move { sn, from, to } => {
            let Some(known) = of_tenant(tx, sn, *from).await? else {
                return Ok(Ordered::Unknown);
            };
            let device = Device { tenant: *to, ..known };
            put_device(tx, &device).await?;
            // When its old tenant saw it is no business of the new one.
            execute(tx, "DELETE FROM sightings WHERE sn = $1", &[&sn.as_str()]).await?;
            record(tx, sn, Recorded::Moved, Some(*from), Some(*to), by).await?;
            Ok(Ordered::Done(device))
        }
        DeviceOrder::Remove { sn, tenant } => {
            let Some(known) = of_tenant(tx, sn, *tenant).await? else {
                return Ok(Ordered::Unknown);
            };
            remove_device(tx, sn).await?;
            record(tx, sn, Recorded::Removed, Some(*tenant), None, by).await?;
            Ok(Ordered::Done(known))
        }
    }
}

/// Adds a device that is not there, and puts it on record.
async fn add_device(
    tx: &Transaction<'_>,
    device: &Device,
    how: Recorded,
    by: &By,
) -> Result<(), Fault> {
    let changed = insert_device(tx, Known::Replace, device).await?;
    note(tx, changed).await?;
    record(tx, &device.sn, how, None, Some(device.tenant), by).await
}

async fn bind(tx: &Transaction<'_>, wanted: &Bind) -> Result<Bound, Fault> {
    lock(tx).await?;
    let bound = foresee(tx, wanted).await?;
    if let Bound::Done { taken } = &bound {
        carry_out_binding(tx, wanted, taken).await?;
    }
    Ok(bound)
}

/// Binds and answers the request that asked for it, or writes nothing.
async fn bind_answering(
    tx: &Transaction<'_>,
    wanted: &Bind,
    seen: StatusVersion,
    answer: &SealedRequest,
) -> Result<BoundAnswer, Fault> {
    lock(tx).await?;
    match foresee(tx, wanted).await? {
        Bound::Done { taken } if taken.is_empty() => {}
        otherwise @ (Bound::Done { .. } | Bound::NoCode | Bound::Taken) => {
            return Ok(BoundAnswer::Otherwise(otherwise));
        }
    }
    if change(tx, seen, answer).await? == 0 {
        return Ok(BoundAnswer::Lost);
    }
    carry_out_binding(tx, wanted, &[]).await?;
    Ok(BoundAnswer::Done)
}

/// What would become of a binding now. Whoever asks holds the registry's lock.
async fn foresee(tx: &Transaction<'_>, wanted: &Bind) -> Result<Bound, Fault> {
    let tenant = wanted.gateway.tenant;
    match known_device(tx, &wanted.gateway.sn).await?.transpose()? {
        Some(known) if known.tenant != tenant => return Ok(Bound::Taken),
        Some(_) => {}
        None => {
            let Some(code) = wanted.code else { return Ok(Bound::NoCode) };
            let sql = "SELECT 1 FROM binding_codes
                       WHERE id = $1 AND tenant = $2 AND uses < uses_max AND revoked_at IS NULL AND expires_at > $3";
            let at = wanted.by.at.as_millis();
            if select(tx, sql, &[&code.uuid(), &tenant.uuid(), &at]).await?.is_empty() {
                return Ok(Bound::NoCode);
            }
        }
    }
    let mut taken = Vec::new();
    for aircraft in &wanted.aircraft {
        let known = known_device(tx, &aircraft.sn).await?.transpose()?;
        if known.is_some_and(|known| known.tenant != tenant) {
            taken.push(aircraft.sn.clone());
        }
    }
    Ok(Bound::Done { taken })
}

/// Binds what is nobody's yet.
async fn carry_out_binding(
    tx: &Transaction<'_>,
    wanted: &Bind,
    taken: &[DeviceSn],
) -> Result<(), Fault> {
    let (gateway, by) = (&wanted.gateway, &wanted.by);
    if known_device(tx, &gateway.sn).await?.is_none() {
        let sql = "UPDATE binding_codes SET uses = uses + 1 WHERE id = $1";
        execute(tx, sql, &[&wanted.code.map(BindingCodeId::uuid)]).await?;
        add_device(tx, gateway, Recorded::Bound, by).await?;
    }
    for aircraft in &wanted.aircraft {
        if known_device(tx, &aircraft.sn).await?.is_none() {
            add_device(tx, aircraft, Recorded::Bound, by).await?;
        }
    }
    let sql = "SELECT 1 FROM topologies WHERE gateway = $1";
    let has_topology = !select(tx, sql, &[&gateway.sn.as_str()]).await?.is_empty();
    if !has_topology && taken.is_empty() && !wanted.subs.is_empty() {
        put_topology(tx, &gateway.sn.to_gateway(), &[], &wanted.subs).await?;
    }
    Ok(())
}

fn read_record(row: &Row, sn: &DeviceSn) -> Result<DeviceRecord, StoreError> {
    let mut cells = Cells::new(row, "device_records");
    cells.name(sn);
    let tenant = |cells: &mut Cells<'_>, column| {
        Ok::<_, StoreError>(cells.get::<Option<Uuid>>(column)?.map(TenantId::new))
    };
    Ok(DeviceRecord {
        sn: sn.clone(),
        what: cells.coded("what")?,
        from: tenant(&mut cells, "tenant_before")?,
        to: tenant(&mut cells, "tenant_after")?,
        by: By { who: cells.text("who")?, at: cells.at("at")? },
    })
}

async fn add_code(
    tx: &Transaction<'_>,
    code: &BindingCode,
    active_max: usize,
) -> Result<bool, Fault> {
    lock(tx).await?;
    let (tenant, now) = (code.tenant.uuid(), code.created_at.as_millis());
    let forgotten = now.saturating_sub(millis(BINDING_CODE_KEPT));
    execute(tx, "DELETE FROM binding_codes WHERE expires_at < $1", &[&forgotten]).await?;
    let sql = "SELECT count(*) FROM binding_codes
               WHERE tenant = $1 AND revoked_at IS NULL AND uses < uses_max AND expires_at > $2";
    let rows = select(tx, sql, &[&tenant, &now]).await?;
    let active: i64 = match rows.first() {
        Some(row) => Cells::new(row, "binding_codes").get("count")?,
        None => 0,
    };
    if usize::try_from(active).unwrap_or(0) >= active_max {
        return Ok(false);
    }
    let changed = execute(
        tx,
        "INSERT INTO binding_codes (id, tenant, label, hash, uses_max, uses, created_at, created_by, expires_at, revoked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        &[
            &code.id.uuid(),
            &tenant,
            &kept(&code.label),
            &code.hash.as_slice(),
            &i64::from(code.uses_max),
            &i64::from(code.uses),
            &now,
            &kept(&code.created_by),
            &code.expires_at.as_millis(),
            &code.revoked_at.map(Timestamp::as_millis),
        ],
    )
    .await?;
    note(tx, changed).await?;
    Ok(true)
}

fn read_code(row: &Row) -> Result<BindingCode, StoreError> {
    let mut cells = Cells::new(row, "binding_codes");
    let id = cells.uuid("id")?;
    cells.name(id);
    let uses = |cells: &mut Cells<'_>, column| {
        let n: i64 = cells.get(column)?;
        u32::try_from(n).map_err(|err| cells.damaged(column, err))
    };
    Ok(BindingCode {
        id: BindingCodeId::new(id),
        tenant: cells.tenant("tenant")?,
        label: cells.text("label")?,
        hash: cells.bytes("hash")?,
        uses_max: uses(&mut cells, "uses_max")?,
        uses: uses(&mut cells, "uses")?,
        created_at: cells.at("created_at")?,
        created_by: cells.text("created_by")?,
        expires_at: cells.at("expires_at")?,
        revoked_at: cells.maybe_at("revoked_at")?,
    })
}

async fn revoke_code(
    tx: &Transaction<'_>,
    tenant: TenantId,
    id: BindingCodeId,
    at: Timestamp,
) -> Result<bool, Fault> {
    lock(tx).await?;
    let (id, tenant) = (id.uuid(), tenant.uuid());
    let sql = "UPDATE binding_codes SET revoked_at = $3 WHERE id = $1 AND tenant = $2 AND revoked_at IS NULL";
    let changed = execute(tx, sql, &[&id, &tenant, &at.as_millis()]).await?;
    note(tx, changed).await?;
    let sql = "SELECT 1 FROM binding_codes WHERE id = $1 AND tenant = $2";
    Ok(!select(tx, sql, &[&id, &tenant]).await?.is_empty())
}
