//! Tenants, devices and topology. Each change raises the generation in its own transaction; what changes nothing does not.
//!
//! The generation's row is locked first: registry changes are few, and so they happen one after another, whichever server
//! makes them.

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use utmos_core::{
    device::{Device, SubDevice},
    id::{DeviceSn, GatewaySn, TenantId},
    ports::{By, Recorded, StoreError, Tenant},
};

use super::{
    PostgresStore,
    cells::{Cells, code},
    fault::Fault,
    rare::{execute, select},
    text::kept,
};
use crate::{
    sqlite::limits::RECORDS_PER_DEVICE_MAX,
    topology::{subs_from_json, subs_json, without},
};

/// Lets no other change of the registry in until this transaction ends.
pub(super) async fn lock(tx: &Transaction<'_>) -> Result<(), Fault> {
    select(tx, "SELECT n FROM generations WHERE name = 'registry' FOR UPDATE", &[]).await?;
    Ok(())
}

/// Raises the generation where something changed.
pub(super) async fn note(tx: &Transaction<'_>, changed: u64) -> Result<(), Fault> {
    if changed > 0 {
        execute(tx, "UPDATE generations SET n = n + 1 WHERE name = 'registry'", &[]).await?;
    }
    Ok(())
}

pub(super) async fn put_tenant(tx: &Transaction<'_>, tenant: &Tenant) -> Result<(), Fault> {
    lock(tx).await?;
    let (id, name) = (tenant.id.uuid(), kept(&tenant.name));
    let sql = "SELECT id FROM tenants WHERE name = $1 AND id <> $2";
    if let Some(row) = select(tx, sql, &[&name, &id]).await?.first() {
        let holder = Cells::new(row, "tenants").tenant("id")?;
        let text =
            format!("tenant {holder} is already called {:?}; choose another name", tenant.name);
        return Err(StoreError::Unavailable(text).into());
    }
    let changed = execute(
        tx,
        "INSERT INTO tenants AS t (id, name, created_at) VALUES ($1, $2, $3)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, created_at = excluded.created_at
         WHERE t.name <> excluded.name OR t.created_at <> excluded.created_at",
        &[&id, &name, &tenant.created_at.as_millis()],
    )
    .await?;
    note(tx, changed).await
}

pub(super) async fn tenants(store: &PostgresStore) -> Result<Vec<Tenant>, StoreError> {
    let rows = store.read("SELECT id, name, created_at FROM tenants ORDER BY name", &[]).await?;
    let tenant = |row: &Row| {
        let mut cells = Cells::new(row, "tenants");
        let id: TenantId = cells.tenant("id")?;
        cells.name(id);
        Ok(Tenant { id, name: cells.text("name")?, created_at: cells.at("created_at")? })
    };
    rows.iter().map(tenant).collect()
}

pub(super) const SELECT_DEVICE: &str = "SELECT sn, tenant, kind, model_key, label, tags, simulated, mqtt_secret_hash, created_at FROM devices";

/// A device as it is in the transaction, if it is there; the inner error is a damaged row.
pub(super) async fn known_device(
    tx: &Transaction<'_>,
    sn: &DeviceSn,
) -> Result<Option<Result<Device, StoreError>>, Fault> {
    let rows = select(tx, &format!("{SELECT_DEVICE} WHERE sn = $1"), &[&sn.as_str()]).await?;
    Ok(rows.first().map(read_device))
}

/// What an insertion does with a device that is there.
#[derive(Clone, Copy)]
pub(super) enum Known {
    Replace,
    Leave,
}

pub(super) async fn put_device(tx: &Transaction<'_>, device: &Device) -> Result<(), Fault> {
    lock(tx).await?;
    let known = known_device(tx, &device.sn).await?;
    // A damaged row is one more reason to write it anew.
    if known.is_some_and(|known| known.is_ok_and(|known| known == *device)) {
        return Ok(());
    }
    let changed = insert_device(tx, Known::Replace, device).await?;
    note(tx, changed).await
}

pub(super) async fn insert_device(
    tx: &Transaction<'_>,
    known: Known,
    device: &Device,
) -> Result<u64, Fault> {
    let conflict = match known {
        Known::Leave => "NOTHING",
        Known::Replace => {
            "UPDATE SET tenant = excluded.tenant, kind = excluded.kind, model_key = excluded.model_key,
                 label = excluded.label, tags = excluded.tags, simulated = excluded.simulated,
                 mqtt_secret_hash = excluded.mqtt_secret_hash, created_at = excluded.created_at"
        }
    };
    let sql = format!(
        "INSERT INTO devices (sn, tenant, kind, model_key, label, tags, simulated, mqtt_secret_hash, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (sn) DO {conflict}"
    );
    let tags = serde_json::to_string(&device.tags)
        .map_err(|err| StoreError::Damaged(format!("tags cannot be written: {err}")))?;
    execute(
        tx,
        &sql,
        &[
            &device.sn.as_str(),
            &device.tenant.uuid(),
            &code(device.kind),
            &device.model_key.as_deref().map(kept),
            &kept(&device.label),
            &kept(&tags),
            &device.simulated,
            &device.mqtt_secret_hash.as_ref().map(<[u8; 32]>::as_slice),
            &device.created_at.as_millis(),
        ],
    )
    .await
}

pub(super) async fn remove_device(tx: &Transaction<'_>, sn: &DeviceSn) -> Result<bool, Fault> {
    lock(tx).await?;
    let name = sn.as_str();
    let removed = execute(tx, "DELETE FROM devices WHERE sn = $1", &[&name]).await?;
    execute(tx, "DELETE FROM sightings WHERE sn = $1", &[&name]).await?;
    let mut changed =
        removed + execute(tx, "DELETE FROM topologies WHERE gateway = $1", &[&name]).await?;
    // Only rows in which the serial number is written at all are read; a damaged one is nothing to lose.
    let sql = "SELECT gateway, subs FROM topologies WHERE strpos(subs, $1) > 0";
    for row in select(tx, sql, &[&name]).await? {
        let mut cells = Cells::new(&row, "topologies");
        let gateway: String = cells.get("gateway")?;
        let Some(subs) = without(&cells.text("subs")?, sn)? else { continue };
        let sql = "UPDATE topologies SET subs = $2 WHERE gateway = $1 AND subs <> $2";
        changed += execute(tx, sql, &[&gateway, &kept(&subs)]).await?;
    }
    note(tx, changed).await?;
    Ok(removed > 0)
}

pub(super) async fn devices(store: &PostgresStore) -> Result<Vec<Device>, StoreError> {
    let rows = store.read(&format!("{SELECT_DEVICE} ORDER BY sn"), &[]).await?;
    rows.iter().map(read_device).collect()
}

pub(super) fn read_device(row: &Row) -> Result<Device, StoreError> {
    let mut cells = Cells::new(row, "devices");
    let sn: DeviceSn = cells.device("sn")?;
    cells.name(&sn);
    Ok(Device {
        sn,
        tenant: cells.tenant("tenant")?,
        kind: cells.coded("kind")?,
        model_key: cells.maybe_text("model_key")?,
        label: cells.text("label")?,
        tags: {
            let text = cells.text("tags")?;
            serde_json::from_str(&text).map_err(|err| cells.damaged("tags", err))?
        },
        simulated: cells.get("simulated")?,
        mqtt_secret_hash: cells.maybe_bytes("mqtt_secret_hash")?,
        created_at: cells.at("created_at")?,
    })
}

pub(super) async fn put_topology(
    tx: &Transaction<'_>,
    gateway: &GatewaySn,
    new: &[Device],
    subs: &[SubDevice],
) -> Result<(), Fault> {
    lock(tx).await?;
    let mut changed = 0;
    for device in new {
        let added = insert_device(tx, Known::Leave, device).await?;
        if added > 0 {
            let by = By { who: By::gateway(gateway), at: device.created_at };
            record(tx, &device.sn, Recorded::Joined, None, Some(device.tenant), &by).await?;
        }
        changed += added;
    }
    changed += execute(
        tx,
        "INSERT INTO topologies AS t (gateway, subs) VALUES ($1, $2)
         ON CONFLICT (gateway) DO UPDATE SET subs = excluded.subs WHERE t.subs <> excluded.subs",
        &[&gateway.as_str(), &kept(&subs_json(subs)?)],
    )
    .await?;
    note(tx, changed).await
}

pub(super) async fn topologies(
    store: &PostgresStore,
) -> Result<Vec<(GatewaySn, Vec<SubDevice>)>, StoreError> {
    let rows = store.read("SELECT gateway, subs FROM topologies ORDER BY gateway", &[]).await?;
    let topology = |row: &Row| {
        let mut cells = Cells::new(row, "topologies");
        let gateway = cells.gateway("gateway")?;
        cells.name(&gateway);
        let text = cells.text("subs")?;
        let subs = subs_from_json(&text).map_err(|why| cells.damaged("subs", why))?;
        Ok((gateway, subs))
    };
    rows.iter().map(topology).collect()
}

/// Adds a line to a device's record; of those that pass, the oldest go beyond their limit.
pub(super) async fn record(
    tx: &Transaction<'_>,
    sn: &DeviceSn,
    what: Recorded,
    before: Option<TenantId>,
    after: Option<TenantId>,
    by: &By,
) -> Result<(), Fault> {
    let sql = "INSERT INTO device_records (sn, at, what, tenant_before, tenant_after, who) VALUES ($1, $2, $3, $4, $5, $6)";
    let (before, after) = (before.map(|it| it.uuid()), after.map(|it| it.uuid()));
    let (at, who) = (by.at.as_millis(), kept(&by.who));
    execute(tx, sql, &[&sn.as_str(), &at, &code(what), &before, &after, &who]).await?;
    if what.is_passing() {
        let sql = "DELETE FROM device_records WHERE sn = $1 AND what = ANY($3::smallint[]) AND n <=
                       (SELECT n FROM device_records WHERE sn = $1 AND what = ANY($3::smallint[])
                        ORDER BY n DESC OFFSET $2 LIMIT 1)";
        let passing = [code(Recorded::Edited), code(Recorded::Password)];
        let most = i64::from(RECORDS_PER_DEVICE_MAX);
        execute(tx, sql, &[&sn.as_str(), &most, &passing.as_slice()]).await?;
    }
    Ok(())
}
