//! Credentials, their secrets sealed before they reach the database.

use std::{collections::BTreeSet, sync::Arc};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;
use utmos_core::{
    credential::{Credential, CredentialSecret, IpRange, Permission},
    id::{ApiId, DeviceSn, TenantId},
    ports::StoreError,
};

use super::{
    batch::Batch,
    cells::{Cells, millis},
    fault::{Fault, to_store_error},
    registry::all,
};
use crate::{
    codes::Coded,
    seal::{Sealed, Sealer},
};

/// A credential ready to be written.
pub(super) struct CredentialRow {
    credential: Credential,
    permissions: String,
    ip_allow: String,
    devices: Option<String>,
    secrets: Vec<(Sealed, Option<i64>)>,
}

impl CredentialRow {
    pub(super) fn new(mut credential: Credential, sealer: &Sealer) -> Result<Self, StoreError> {
        // The plain secrets are dropped, and wiped, here.
        let secrets = (0..)
            .zip(std::mem::take(&mut credential.secrets))
            .map(|(slot, secret)| {
                let sealed = sealer.seal(&credential.api_id, slot, &secret.secret)?;
                Ok((sealed, secret.valid_until.map(|until| until.as_millis())))
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Self {
            permissions: json(
                credential.permissions.iter().map(|permission| permission.as_str().to_owned()),
            )?,
            ip_allow: json(credential.ip_allow.iter().map(IpRange::to_string))?,
            devices: credential
                .devices
                .as_ref()
                .map(|set| json(set.iter().map(DeviceSn::to_string)))
                .transpose()?,
            secrets,
            credential,
        })
    }

    pub(super) fn write(&self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        let credential = &self.credential;
        let api_id = credential.api_id.as_str();
        batch.execute(
            "INSERT OR REPLACE INTO credentials (api_id, tenant, name, status, permissions, clock_skew_ms,
                replay_window_ms, expires_at, ip_allow, devices, complete_on, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                api_id,
                credential.tenant.uuid().as_bytes(),
                credential.name,
                credential.status.code(),
                self.permissions,
                millis(credential.allowed_clock_skew),
                millis(credential.replay_window),
                credential.expires_at.map(|at| at.as_millis()),
                self.ip_allow,
                self.devices,
                credential.complete_on.code(),
                credential.created_at.as_millis(),
            ],
        )?;
        batch.execute("DELETE FROM credential_secrets WHERE api_id = ?1", params![api_id])?;
        for (slot, (kept, valid_until)) in (0_i64..).zip(&self.secrets) {
            batch.execute(
                "INSERT INTO credential_secrets (api_id, slot, key_id, nonce, sealed, valid_until)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![api_id, slot, kept.key_id, kept.nonce, kept.sealed, valid_until],
            )?;
        }
        batch.registry_has_changed();
        Ok(())
    }
}

fn json(items: impl Iterator<Item = String>) -> Result<String, StoreError> {
    serde_json::to_string(&items.collect::<Vec<_>>())
        .map_err(|err| StoreError::Damaged(format!("a credential cannot be written: {err}")))
}

const SELECT: &str =
    "SELECT api_id, tenant, name, status, permissions, clock_skew_ms, replay_window_ms, expires_at,
    ip_allow, devices, complete_on, created_at FROM credentials";

pub(super) fn one(
    conn: &Connection,
    sealer: &Sealer,
    api_id: &ApiId,
) -> Result<Option<Credential>, StoreError> {
    let fault = |err| to_store_error(&err);
    let moment = conn.unchecked_transaction().map_err(fault)?;
    let mut select =
        moment.prepare_cached(&format!("{SELECT} WHERE api_id = ?1")).map_err(fault)?;
    let found = select
        .query_row(params![api_id.as_str()], |row| Ok(read(row)))
        .optional()
        .map_err(fault)?;
    let Some(mut credential) = found.transpose()? else { return Ok(None) };
    credential.secrets = secrets(&moment, sealer, &credential.api_id)?;
    Ok(Some(credential))
}

pub(super) fn every(conn: &Connection, sealer: &Sealer) -> Result<Vec<Credential>, StoreError> {
    let moment = conn.unchecked_transaction().map_err(|err| to_store_error(&err))?;
    let mut credentials = all(&moment, &format!("{SELECT} ORDER BY created_at, api_id"), read)?;
    for credential in &mut credentials {
        credential.secrets = secrets(&moment, sealer, &credential.api_id)?;
    }
    Ok(credentials)
}

fn read(row: &Row<'_>) -> Result<Credential, StoreError> {
    let mut cells = Cells::new(row, "credentials");
    let api_id = ApiId::new(cells.get::<String>("api_id")?);
    cells.name(&api_id);
    Ok(Credential {
        api_id,
        tenant: TenantId::new(cells.uuid("tenant")?),
        name: cells.get("name")?,
        status: cells.coded("status")?,
        permissions: list(&mut cells, "permissions", Permission::parse)?.unwrap_or_default(),
        allowed_clock_skew: cells.duration("clock_skew_ms")?,
        replay_window: cells.duration("replay_window_ms")?,
        expires_at: cells.maybe_at("expires_at")?,
        ip_allow: list(&mut cells, "ip_allow", IpRange::parse)?.unwrap_or_default(),
        devices: list::<_, BTreeSet<_>>(&mut cells, "devices", |sn| DeviceSn::parse(sn).ok())?,
        complete_on: cells.coded("complete_on")?,
        secrets: Vec::new(),
        created_at: cells.at("created_at")?,
    })
}

/// Reads a JSON array of texts.
fn list<T, C: FromIterator<T>>(
    cells: &mut Cells<'_>,
    column: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<C>, StoreError> {
    let Some(text) = cells.text(column)? else { return Ok(None) };
    let items: Vec<String> = from_json(cells, column, &text)?;
    let parsed = items.iter().map(|item| {
        parse(item).ok_or_else(|| cells.damaged(column, format!("cannot read {item:?}")))
    });
    parsed.collect::<Result<C, _>>().map(Some)
}

fn from_json<T: DeserializeOwned>(
    cells: &Cells<'_>,
    column: &str,
    text: &Arc<str>,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|err| cells.damaged(column, err))
}

fn secrets(
    conn: &Connection,
    sealer: &Sealer,
    api_id: &ApiId,
) -> Result<Vec<CredentialSecret>, StoreError> {
    let fault = |err| to_store_error(&err);
    let sql = "SELECT slot, key_id, nonce, sealed, valid_until FROM credential_secrets WHERE api_id = ?1 ORDER BY slot";
    let mut select = conn.prepare_cached(sql).map_err(fault)?;
    let mut found = select.query(params![api_id.as_str()]).map_err(fault)?;
    let mut secrets = Vec::new();
    while let Some(row) = found.next().map_err(fault)? {
        let mut cells = Cells::new(row, "credential_secrets");
        cells.name(api_id);
        let slot = cells.get("slot")?;
        let kept = Sealed {
            key_id: cells.get("key_id")?,
            nonce: cells.get("nonce")?,
            sealed: cells.get("sealed")?,
        };
        let secret = sealer.open(api_id, slot, &kept)?;
        secrets.push(CredentialSecret { secret, valid_until: cells.maybe_at("valid_until")? });
    }
    Ok(secrets)
}
