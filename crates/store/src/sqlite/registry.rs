//! Tenants, devices and topology. Each change raises the generation in its own transaction; what changes nothing does not.

use rusqlite::{Connection, OptionalExtension, Row, params};
use utmos_core::{
    device::{Device, SubDevice},
    id::{DeviceSn, GatewaySn, TenantId},
    ports::{By, Recorded, StoreError, Tenant},
};

use super::{
    batch::Batch,
    cells::Cells,
    fault::{Fault, to_store_error},
    fleet,
};
use crate::{
    codes::Coded,
    topology::{subs_from_json, without},
};

pub(super) fn generation(conn: &Connection) -> Result<u64, StoreError> {
    let kept: Option<i64> = conn
        .prepare_cached("SELECT value FROM meta WHERE name = 'generation'")
        .and_then(|mut select| select.query_row([], |row| row.get(0)).optional())
        .map_err(|err| to_store_error(&err))?;
    Ok(kept.unwrap_or(0).cast_unsigned())
}

pub(super) fn put_tenant(batch: &mut Batch<'_>, tenant: &Tenant) -> Result<(), Fault> {
    let id = tenant.id.uuid();
    let holder: Option<[u8; 16]> = batch
        .statement("SELECT id FROM tenants WHERE name = ?1 AND id <> ?2")?
        .query_row(params![tenant.name, id.as_bytes()], |row| row.get(0))
        .optional()?;
    if let Some(holder) = holder {
        let holder = TenantId::new(uuid::Uuid::from_bytes(holder));
        let text =
            format!("tenant {holder} is already called {:?}; choose another name", tenant.name);
        return Err(StoreError::Unavailable(text).into());
    }
    let changed = batch.execute(
        "INSERT INTO tenants (id, name, created_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, created_at = excluded.created_at
         WHERE name <> excluded.name OR created_at <> excluded.created_at",
        params![id.as_bytes(), tenant.name, tenant.created_at.as_millis()],
    )?;
    note(batch, changed);
    Ok(())
}

pub(super) fn tenants(conn: &Connection) -> Result<Vec<Tenant>, StoreError> {
    all(conn, "SELECT id, name, created_at FROM tenants ORDER BY name", |row| {
        let mut cells = Cells::new(row, "tenants");
        let id = cells.uuid("id")?;
        cells.name(id);
        Ok(Tenant {
            id: TenantId::new(id),
            name: cells.get("name")?,
            created_at: cells.at("created_at")?,
        })
    })
}

const SELECT_DEVICE: &str = "SELECT sn, tenant, kind, model_key, label, tags, simulated, mqtt_secret_hash, created_at FROM devices";

/// A device as it is in the batch, if it is there; the inner error is a damaged row.
pub(super) fn known_device(
    batch: &mut Batch<'_>,
    sn: &DeviceSn,
) -> Result<Option<Result<Device, StoreError>>, Fault> {
    let found = batch
        .statement(format!("{SELECT_DEVICE} WHERE sn = ?1"))?
        .query_row(params![sn.as_str()], |row| Ok(read_device(row)))
        .optional()?;
    Ok(found)
}

pub(super) fn put_device(batch: &mut Batch<'_>, device: &Device) -> Result<(), Fault> {
    let known = known_device(batch, &device.sn)?;
    // A damaged row is one more reason to write it anew.
    if known.is_some_and(|known| known.is_ok_and(|known| known == *device)) {
        return Ok(());
    }
    let changed = insert_device(batch, "INSERT OR REPLACE", device)?;
    note(batch, changed);
    Ok(())
}

fn insert_device(batch: &mut Batch<'_>, insert: &str, device: &Device) -> Result<usize, Fault> {
    let sql = format!(
        "{insert} INTO devices (sn, tenant, kind, model_key, label, tags, simulated, mqtt_secret_hash, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
    );
    let tags = serde_json::to_string(&device.tags)
        .map_err(|err| StoreError::Damaged(format!("tags cannot be written: {err}")))?;
    batch.execute(
        sql,
        params![
            device.sn.as_str(),
            device.tenant.uuid().as_bytes(),
            device.kind.code(),
            device.model_key,
            device.label,
            tags,
            device.simulated,
            device.mqtt_secret_hash,
            device.created_at.as_millis(),
        ],
    )
}

pub(super) fn remove_device(batch: &mut Batch<'_>, sn: &DeviceSn) -> Result<bool, Fault> {
    let removed = batch.execute("DELETE FROM devices WHERE sn = ?1", params![sn.as_str()])?;
    batch.execute("DELETE FROM sightings WHERE sn = ?1", params![sn.as_str()])?;
    let mut changed = removed
        + batch.execute("DELETE FROM topologies WHERE gateway = ?1", params![sn.as_str()])?;
    let mut kept: Vec<(String, String)> = Vec::new();
    {
        // Only rows in which the serial number is written at all are read; a damaged one is nothing to lose.
        let select =
            batch.statement("SELECT gateway, subs FROM topologies WHERE instr(subs, ?1) > 0")?;
        let mut found = select.query(params![sn.as_str()])?;
        while let Some(row) = found.next()? {
            kept.push((row.get(0)?, row.get(1)?));
        }
    }
    for (gateway, text) in kept {
        let Some(text) = without(&text, sn)? else { continue };
        changed += batch.execute(
            "UPDATE topologies SET subs = ?2 WHERE gateway = ?1 AND subs <> ?2",
            params![gateway, text],
        )?;
    }
    note(batch, changed);
    Ok(removed > 0)
}

pub(super) fn devices(conn: &Connection) -> Result<Vec<Device>, StoreError> {
    all(conn, &format!("{SELECT_DEVICE} ORDER BY sn"), read_device)
}

fn read_device(row: &Row<'_>) -> Result<Device, StoreError> {
    let mut cells = Cells::new(row, "devices");
    let sn: DeviceSn = cells.device("sn")?;
    cells.name(&sn);
    Ok(Device {
        sn,
        tenant: TenantId::new(cells.uuid("tenant")?),
        kind: cells.coded("kind")?,
        model_key: cells.get("model_key")?,
        label: cells.get("label")?,
        tags: {
            let text = cells.some_text("tags")?;
            serde_json::from_str(&text).map_err(|err| cells.damaged("tags", err))?
        },
        simulated: cells.get("simulated")?,
        mqtt_secret_hash: cells.get("mqtt_secret_hash")?,
        created_at: cells.at("created_at")?,
    })
}

pub(super) fn put_topology(
    batch: &mut Batch<'_>,
    gateway: &GatewaySn,
    new: &[Device],
    subs: &str,
) -> Result<(), Fault> {
    let mut changed = 0;
    for device in new {
        let added = insert_device(batch, "INSERT OR IGNORE", device)?;
        if added > 0 {
            let by = By { who: By::gateway(gateway), at: device.created_at };
            fleet::record(batch, &device.sn, Recorded::Joined, None, Some(device.tenant), &by)?;
        }
        changed += added;
    }
    changed += batch.execute(
        "INSERT INTO topologies (gateway, subs) VALUES (?1, ?2)
         ON CONFLICT (gateway) DO UPDATE SET subs = excluded.subs WHERE subs <> excluded.subs",
        params![gateway.as_str(), subs],
    )?;
    note(batch, changed);
    Ok(())
}

pub(super) fn topologies(
    conn: &Connection,
) -> Result<Vec<(GatewaySn, Vec<SubDevice>)>, StoreError> {
    all(conn, "SELECT gateway, subs FROM topologies ORDER BY gateway", |row| {
        let mut cells = Cells::new(row, "topologies");
        let gateway = cells.gateway("gateway")?;
        cells.name(&gateway);
        let text = cells.some_text("subs")?;
        let subs = subs_from_json(&text).map_err(|why| cells.damaged("subs", why))?;
        Ok((gateway, subs))
    })
}

pub(super) fn note(batch: &mut Batch<'_>, changed: usize) {
    if changed > 0 {
        batch.registry_has_changed();
    }
}

/// Reads every row of a small table.
pub(super) fn all<T>(
    conn: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let fault = |err| to_store_error(&err);
    let mut select = conn.prepare_cached(sql).map_err(fault)?;
    let mut found = select.query([]).map_err(fault)?;
    let mut all = Vec::new();
    while let Some(row) = found.next().map_err(fault)? {
        all.push(read(row)?);
    }
    Ok(all)
}
