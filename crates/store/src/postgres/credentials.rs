//! Credentials, their secrets sealed before they reach the database.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use utmos_core::{
    credential::{Credential, CredentialSecret, IpRange, Permission},
    id::{ApiId, DeviceSn},
    ports::StoreError,
};

use super::{
    PostgresStore,
    cells::{Cells, code, millis},
    fault::{Fault, pool_error},
    rare::{answered, execute, select},
    registry::{lock, note},
    text::kept,
};
use crate::seal::{Sealed, Sealer};

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

    pub(super) async fn write(&self, tx: &Transaction<'_>) -> Result<(), Fault> {
        lock(tx).await?;
        let credential = &self.credential;
        let api_id = kept(credential.api_id.as_str());
        execute(
            tx,
            "INSERT INTO credentials (api_id, tenant, name, status, permissions, clock_skew_ms,
                replay_window_ms, expires_at, ip_allow, devices, complete_on, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             ON CONFLICT (api_id) DO UPDATE SET tenant = excluded.tenant, name = excluded.name,
                status = excluded.status, permissions = excluded.permissions,
                clock_skew_ms = excluded.clock_skew_ms, replay_window_ms = excluded.replay_window_ms,
                expires_at = excluded.expires_at, ip_allow = excluded.ip_allow, devices = excluded.devices,
                complete_on = excluded.complete_on, created_at = excluded.created_at",
            &[
                &api_id,
                &credential.tenant.uuid(),
                &kept(&credential.name),
                &code(credential.status),
                &self.permissions,
                &millis(credential.allowed_clock_skew),
                &millis(credential.replay_window),
                &credential.expires_at.map(|at| at.as_millis()),
                &self.ip_allow,
                &self.devices,
                &code(credential.complete_on),
                &credential.created_at.as_millis(),
            ],
        )
        .await?;
        execute(tx, "DELETE FROM credential_secrets WHERE api_id = $1", &[&api_id]).await?;
        for (slot, (sealed, valid_until)) in (0_i16..).zip(&self.secrets) {
            execute(
                tx,
                "INSERT INTO credential_secrets (api_id, slot, key_id, nonce, sealed, valid_until)
                 VALUES ($1, $2, $3, $4, $5, $6)",
                &[
                    &api_id,
                    &slot,
                    &sealed.key_id.as_slice(),
                    &sealed.nonce.as_slice(),
                    &sealed.sealed,
                    valid_until,
                ],
            )
            .await?;
        }
        note(tx, 1).await
    }
}

fn json(items: impl Iterator<Item = String>) -> Result<String, StoreError> {
    serde_json::to_string(&items.collect::<Vec<_>>())
        .map_err(|err| StoreError::Damaged(format!("a credential cannot be written: {err}")))
}

const SELECT: &str =
    "SELECT api_id, tenant, name, status, permissions, clock_skew_ms, replay_window_ms, expires_at,
    ip_allow, devices, complete_on, created_at FROM credentials";
const SELECT_SECRETS: &str =
    "SELECT api_id, slot, key_id, nonce, sealed, valid_until FROM credential_secrets";

pub(super) async fn one(
    store: &PostgresStore,
    api_id: &ApiId,
) -> Result<Option<Credential>, StoreError> {
    let api_id = kept(api_id.as_str());
    let found = some(store, "WHERE api_id = $1", Some(&api_id)).await?;
    Ok(found.into_iter().next())
}

pub(super) async fn every(store: &PostgresStore) -> Result<Vec<Credential>, StoreError> {
    some(store, "", None).await
}

/// Credentials and their secrets as they were at one moment.
async fn some(
    store: &PostgresStore,
    which: &str,
    api_id: Option<&str>,
) -> Result<Vec<Credential>, StoreError> {
    let connection = store.pool.get().await.map_err(|err| pool_error(&err))?;
    let read = answered!(connection, |client| async {
        let moment = client
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = match &api_id {
            Some(api_id) => vec![api_id],
            None => Vec::new(),
        };
        let sql = format!("{SELECT} {which} ORDER BY created_at, api_id");
        let credentials = select(&moment, &sql, &params).await?;
        let sql = format!("{SELECT_SECRETS} {which} ORDER BY api_id, slot");
        let secrets = select(&moment, &sql, &params).await?;
        moment.commit().await?;
        Ok((credentials, secrets))
    });
    let (rows, secret_rows) = read.map_err(Fault::into_error)?;
    let mut secrets: BTreeMap<ApiId, Vec<CredentialSecret>> = BTreeMap::new();
    for row in &secret_rows {
        let (api_id, secret) = secret(row, &store.sealer)?;
        secrets.entry(api_id).or_default().push(secret);
    }
    let credential = |row: &Row| {
        let mut credential = read_credential(row)?;
        credential.secrets = secrets.remove(&credential.api_id).unwrap_or_default();
        Ok(credential)
    };
    rows.iter().map(credential).collect()
}

fn read_credential(row: &Row) -> Result<Credential, StoreError> {
    let mut cells = Cells::new(row, "credentials");
    let api_id = ApiId::new(cells.text("api_id")?);
    cells.name(&api_id);
    Ok(Credential {
        api_id,
        tenant: cells.tenant("tenant")?,
        name: cells.text("name")?,
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
    let Some(text) = cells.get::<Option<&str>>(column)? else { return Ok(None) };
    let items: Vec<String> =
        serde_json::from_str(text).map_err(|err| cells.damaged(column, err))?;
    let parsed = items.iter().map(|item| {
        parse(item).ok_or_else(|| cells.damaged(column, format!("cannot read {item:?}")))
    });
    parsed.collect::<Result<C, _>>().map(Some)
}

fn secret(row: &Row, sealer: &Sealer) -> Result<(ApiId, CredentialSecret), StoreError> {
    let mut cells = Cells::new(row, "credential_secrets");
    let api_id = ApiId::new(cells.text("api_id")?);
    cells.name(&api_id);
    let slot: i16 = cells.get("slot")?;
    let kept = Sealed {
        key_id: cells.bytes("key_id")?,
        nonce: cells.bytes("nonce")?,
        sealed: cells.get("sealed")?,
    };
    let secret = sealer.open(&api_id, slot.into(), &kept)?;
    let valid_until = cells.maybe_at("valid_until")?;
    Ok((api_id, CredentialSecret { secret, valid_until }))
}
