//! Sightings of devices, changes of the registry that go on record, and binding codes.

use rusqlite::{Connection, OptionalExtension, Row, params};
use utmos_core::{
    binding::BindingCode,
    command::StatusVersion,
    device::Device,
    id::{BindingCodeId, DeviceSn, GatewaySn, TenantId},
    ports::{
        Bind, Bound, BoundAnswer, By, DeviceOrder, DeviceRecord, Ordered, Recorded, RequestChanged,
        Sighting, StoreError,
    },
    time::Timestamp,
};

use super::{
    batch::Batch,
    cells::{Cells, millis},
    fault::{Fault, to_store_error},
    limits::{BINDING_CODE_KEPT, RECORDS_PER_DEVICE_MAX},
    registry::{all, known_device, note, put_device, put_topology, remove_device},
    requests::SealedRequest,
};
use crate::codes::Coded;

pub(super) fn keep_sightings(batch: &mut Batch<'_>, seen: &[Sighting]) -> Result<(), Fault> {
    let insert = batch.statement(
        "INSERT INTO sightings (sn, first_seen_at, last_seen_at, firmware, model_key, online)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6 FROM devices WHERE sn = ?1 AND tenant = ?7
         ON CONFLICT (sn) DO UPDATE SET
             first_seen_at = min(first_seen_at, excluded.first_seen_at), last_seen_at = excluded.last_seen_at,
             firmware = excluded.firmware, model_key = excluded.model_key, online = excluded.online
         WHERE last_seen_at <= excluded.last_seen_at OR last_seen_at > unixepoch('subsec') * 1000",
    )?;
    for one in seen {
        insert.execute(params![
            one.sn.as_str(),
            one.first_seen_at.as_millis(),
            one.last_seen_at.as_millis(),
            one.firmware,
            one.model_key,
            one.online,
            one.tenant.uuid().as_bytes(),
        ])?;
    }
    Ok(())
}

pub(super) fn sightings(conn: &Connection) -> Result<Vec<Sighting>, StoreError> {
    let sql = "SELECT sn, tenant, first_seen_at, last_seen_at, firmware, sightings.model_key AS model_key, online
               FROM sightings JOIN devices USING (sn) ORDER BY sn";
    all(conn, sql, |row| {
        let mut cells = Cells::new(row, "sightings");
        let sn = cells.device("sn")?;
        cells.name(&sn);
        Ok(Sighting {
            sn,
            tenant: TenantId::new(cells.uuid("tenant")?),
            first_seen_at: cells.at("first_seen_at")?,
            last_seen_at: cells.at("last_seen_at")?,
            firmware: cells.get("firmware")?,
            model_key: cells.get("model_key")?,
            online: cells.get("online")?,
        })
    })
}

pub(super) fn joined(conn: &Connection) -> Result<Vec<(GatewaySn, DeviceSn)>, StoreError> {
    let fault = |err| to_store_error(&err);
    let mut select = conn
        .prepare_cached(
            "SELECT DISTINCT sn, who FROM device_records WHERE what IN (?1, ?2) ORDER BY who, sn",
        )
        .map_err(fault)?;
    let mut found =
        select.query(params![Recorded::Joined.code(), Recorded::Bound.code()]).map_err(fault)?;
    let mut joined = Vec::new();
    while let Some(row) = found.next().map_err(fault)? {
        let mut cells = Cells::new(row, "device_records");
        let sn: DeviceSn = cells.device("sn")?;
        joined.extend(By::joined(&cells.get::<String>("who")?, sn));
    }
    Ok(joined)
}

/// The device, if it is this tenant's.
fn of_tenant(
    batch: &mut Batch<'_>,
    sn: &DeviceSn,
    tenant: TenantId,
) -> Result<Option<Device>, Fault> {
    let known = known_device(batch, sn)?.transpose()?;
    Ok(known.filter(|device| device.tenant == tenant))
}

pub(super) fn order(batch: &mut Batch<'_>, order: &DeviceOrder, by: &By) -> Result<Ordered, Fault> {
    match order {
        DeviceOrder::Register(device) => match known_device(batch, &device.sn)?.transpose()? {
            Some(known) if known.tenant == device.tenant => Ok(Ordered::Known(known)),
            Some(_) => Ok(Ordered::Taken),
            None => {
                put_device(batch, device)?;
                record(batch, &device.sn, Recorded::Registered, None, Some(device.tenant), by)?;
                Ok(Ordered::Done(device.clone()))
            }
        },
        DeviceOrder::Edit { sn, tenant, edit } => {
            let Some(known) = of_tenant(batch, sn, *tenant)? else { return Ok(Ordered::Unknown) };
            let mut device = known.clone();
            if let Some(label) = &edit.label {
                device.label.clone_from(label);
            }
            if let Some(tags) = &edit.tags {
                device.tags.clone_from(tags);
            }
            if device != known {
                record(batch, sn, Recorded::Edited, Some(*tenant), Some(*tenant), by)?;
            }
            if edit.mqtt_secret_hash.is_some() {
                device.mqtt_secret_hash = edit.mqtt_secret_hash;
                record(batch, sn, Recorded::Password, Some(*tenant), Some(*tenant), by)?;
            }
            put_device(batch, &device)?;
            Ok(Ordered::Done(device))
        }
        DeviceOrder::Move { sn, from, to } => {
            let Some(known) = of_tenant(batch, sn, *from)? else { return Ok(Ordered::Unknown) };
            let device = Device { tenant: *to, ..known };
            put_device(batch, &device)?;
            // When its old tenant saw it is no business of the new one.
            batch.execute("DELETE FROM sightings WHERE sn = ?1", params![sn.as_str()])?;
            record(batch, sn, Recorded::Moved, Some(*from), Some(*to), by)?;
            Ok(Ordered::Done(device))
        }
        DeviceOrder::Remove { sn, tenant } => {
            let Some(known) = of_tenant(batch, sn, *tenant)? else { return Ok(Ordered::Unknown) };
            remove_device(batch, sn)?;
            record(batch, sn, Recorded::Removed, Some(*tenant), None, by)?;
            Ok(Ordered::Done(known))
        }
    }
}

pub(super) fn bind(batch: &mut Batch<'_>, bind: &Bind, subs: &str) -> Result<Bound, Fault> {
    let bound = foresee(batch, bind)?;
    if let Bound::Done { taken } = &bound {
        carry_out(batch, bind, subs, taken)?;
    }
    Ok(bound)
}

/// Binds and answers the request that asked for it, or writes nothing.
pub(super) fn bind_answering(
    batch: &mut Batch<'_>,
    bind: &Bind,
    subs: &str,
    seen: StatusVersion,
    answer: &SealedRequest,
) -> Result<BoundAnswer, Fault> {
    match foresee(batch, bind)? {
        Bound::Done { taken } if taken.is_empty() => {}
        otherwise @ (Bound::Done { .. } | Bound::NoCode | Bound::Taken) => {
            return Ok(BoundAnswer::Otherwise(otherwise));
        }
    }
    match answer.change(batch, seen)? {
        RequestChanged::Lost => Ok(BoundAnswer::Lost),
        RequestChanged::Yes => {
            carry_out(batch, bind, subs, &[])?;
            Ok(BoundAnswer::Done)
        }
    }
}

/// What would become of a binding now.
fn foresee(batch: &mut Batch<'_>, bind: &Bind) -> Result<Bound, Fault> {
    let tenant = bind.gateway.tenant;
    match known_device(batch, &bind.gateway.sn)?.transpose()? {
        Some(known) if known.tenant != tenant => return Ok(Bound::Taken),
        Some(_) => {}
        None => {
            let Some(code) = bind.code else { return Ok(Bound::NoCode) };
            let good: Option<i64> = batch
                .statement(
                    "SELECT 1 FROM binding_codes
                     WHERE id = ?1 AND tenant = ?2 AND uses < uses_max AND revoked_at IS NULL AND expires_at > ?3",
                )?
                .query_row(
                    params![
                        code.uuid().as_bytes(),
                        tenant.uuid().as_bytes(),
                        bind.by.at.as_millis()
                    ],
                    |row| row.get(0),
                )
                .optional()?;
            if good.is_none() {
                return Ok(Bound::NoCode);
            }
        }
    }
    let mut taken = Vec::new();
    for aircraft in &bind.aircraft {
        let known = known_device(batch, &aircraft.sn)?.transpose()?;
        if known.is_some_and(|known| known.tenant != tenant) {
            taken.push(aircraft.sn.clone());
        }
    }
    Ok(Bound::Done { taken })
}

/// Binds what is nobody's yet.
fn carry_out(
    batch: &mut Batch<'_>,
    bind: &Bind,
    subs: &str,
    taken: &[DeviceSn],
) -> Result<(), Fault> {
    let gateway = &bind.gateway;
    let (tenant, by) = (gateway.tenant, &bind.by);
    if known_device(batch, &gateway.sn)?.is_none() {
        let code = bind.code.map(|code| *code.uuid().as_bytes());
        let sql = "UPDATE binding_codes SET uses = uses + 1 WHERE id = ?1";
        batch.execute(sql, params![code])?;
        put_device(batch, gateway)?;
        record(batch, &gateway.sn, Recorded::Bound, None, Some(tenant), by)?;
    }
    for aircraft in &bind.aircraft {
        if known_device(batch, &aircraft.sn)?.is_none() {
            put_device(batch, aircraft)?;
            record(batch, &aircraft.sn, Recorded::Bound, None, Some(tenant), by)?;
        }
    }
    let has_topology: Option<i64> = batch
        .statement("SELECT 1 FROM topologies WHERE gateway = ?1")?
        .query_row(params![gateway.sn.as_str()], |row| row.get(0))
        .optional()?;
    if has_topology.is_none() && taken.is_empty() && !bind.subs.is_empty() {
        put_topology(batch, &gateway.sn.to_gateway(), &[], subs)?;
    }
    Ok(())
}

/// Puts a line on a device's record; of too many that pass, the oldest go.
pub(super) fn record(
    batch: &mut Batch<'_>,
    sn: &DeviceSn,
    what: Recorded,
    from: Option<TenantId>,
    to: Option<TenantId>,
    by: &By,
) -> Result<(), Fault> {
    let bytes = |tenant: Option<TenantId>| tenant.map(|tenant| *tenant.uuid().as_bytes());
    batch.execute(
        "INSERT INTO device_records (sn, at, what, tenant_before, tenant_after, who)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![sn.as_str(), by.at.as_millis(), what.code(), bytes(from), bytes(to), by.who],
    )?;
    if what.is_passing() {
        let (edited, password) = (Recorded::Edited.code(), Recorded::Password.code());
        batch.execute(
            "DELETE FROM device_records WHERE sn = ?1 AND what IN (?3, ?4) AND row <= (
                 SELECT row FROM device_records WHERE sn = ?1 AND what IN (?3, ?4)
                 ORDER BY row DESC LIMIT 1 OFFSET ?2)",
            params![sn.as_str(), RECORDS_PER_DEVICE_MAX, edited, password],
        )?;
    }
    Ok(())
}

pub(super) fn device_record(
    conn: &Connection,
    sn: &DeviceSn,
) -> Result<Vec<DeviceRecord>, StoreError> {
    let fault = |err| to_store_error(&err);
    let mut select = conn
        .prepare_cached(
            "SELECT what, tenant_before, tenant_after, who, at FROM device_records WHERE sn = ?1 ORDER BY row DESC",
        )
        .map_err(fault)?;
    let mut found = select.query(params![sn.as_str()]).map_err(fault)?;
    let mut lines = Vec::new();
    while let Some(row) = found.next().map_err(fault)? {
        let mut cells = Cells::new(row, "device_records");
        cells.name(sn);
        let tenant = |cells: &mut Cells<'_>, column| {
            let bytes: Option<[u8; 16]> = cells.get(column)?;
            Ok::<_, StoreError>(bytes.map(|b| TenantId::new(uuid::Uuid::from_bytes(b))))
        };
        lines.push(DeviceRecord {
            sn: sn.clone(),
            what: cells.coded("what")?,
            from: tenant(&mut cells, "tenant_before")?,
            to: tenant(&mut cells, "tenant_after")?,
            by: By { who: cells.get("who")?, at: cells.at("at")? },
        });
    }
    Ok(lines)
}

pub(super) fn add_code(
    batch: &mut Batch<'_>,
    code: &BindingCode,
    active_max: usize,
) -> Result<bool, Fault> {
    let (tenant, now) = (code.tenant.uuid(), code.created_at.as_millis());
    batch.execute(
        "DELETE FROM binding_codes WHERE expires_at < ?1",
        params![now.saturating_sub(millis(BINDING_CODE_KEPT))],
    )?;
    let active: i64 = batch
        .statement(
            "SELECT count(*) FROM binding_codes
             WHERE tenant = ?1 AND revoked_at IS NULL AND uses < uses_max AND expires_at > ?2",
        )?
        .query_row(params![tenant.as_bytes(), now], |row| row.get(0))?;
    if usize::try_from(active).unwrap_or(0) >= active_max {
        return Ok(false);
    }
    let changed = batch.execute(
        "INSERT INTO binding_codes (id, tenant, label, hash, uses_max, uses, created_at, created_by, expires_at, revoked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            code.id.uuid().as_bytes(),
            tenant.as_bytes(),
            code.label,
            code.hash,
            code.uses_max,
            code.uses,
            now,
            code.created_by,
            code.expires_at.as_millis(),
            code.revoked_at.map(Timestamp::as_millis),
        ],
    )?;
    note(batch, changed);
    Ok(true)
}

pub(super) fn codes(conn: &Connection) -> Result<Vec<BindingCode>, StoreError> {
    let sql = "SELECT id, tenant, label, hash, uses_max, uses, created_at, created_by, expires_at, revoked_at
               FROM binding_codes ORDER BY created_at, id";
    all(conn, sql, read_code)
}

fn read_code(row: &Row<'_>) -> Result<BindingCode, StoreError> {
    let mut cells = Cells::new(row, "binding_codes");
    let id = cells.uuid("id")?;
    cells.name(id);
    Ok(BindingCode {
        id: BindingCodeId::new(id),
        tenant: TenantId::new(cells.uuid("tenant")?),
        label: cells.get("label")?,
        hash: cells.get("hash")?,
        uses_max: cells.get("uses_max")?,
        uses: cells.get("uses")?,
        created_at: cells.at("created_at")?,
        created_by: cells.get("created_by")?,
        expires_at: cells.at("expires_at")?,
        revoked_at: cells.maybe_at("revoked_at")?,
    })
}

pub(super) fn revoke_code(
    batch: &mut Batch<'_>,
    tenant: TenantId,
    id: BindingCodeId,
    at: Timestamp,
) -> Result<bool, Fault> {
    let (id, tenant) = (id.uuid(), tenant.uuid());
    let changed = batch.execute(
        "UPDATE binding_codes SET revoked_at = ?3 WHERE id = ?1 AND tenant = ?2 AND revoked_at IS NULL",
        params![id.as_bytes(), tenant.as_bytes(), at.as_millis()],
    )?;
    note(batch, changed);
    let known: Option<i64> = batch
        .statement("SELECT 1 FROM binding_codes WHERE id = ?1 AND tenant = ?2")?
        .query_row(params![id.as_bytes(), tenant.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(known.is_some())
}
