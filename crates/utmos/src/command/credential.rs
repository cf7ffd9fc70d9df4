//! `utmos credential`: opens the store itself, so that it works whether or not the server runs. A secret is shown once.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use utmos_core::{
    credential::{
        CLOCK_SKEW_DEFAULT, Credential, CredentialSecret, CredentialStatus, IpRange, Permission,
        REPLAY_WINDOW_DEFAULT, Role, Secret,
    },
    id::{ApiId, DeviceSn},
    method::CompleteOn,
    ports::Tenant,
    time::Timestamp,
};

use crate::{
    exit::Exit,
    issue,
    opened::{self, Database},
    output,
    settings::{ConfigArgs, Purpose},
    time::{Moment, now, parse_duration},
};

/// Secrets a credential holds at most: the current one and the one it takes over from.
const SECRETS_MAX: usize = 2;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a credential; its API key is shown once
    Create {
        #[command(flatten)]
        new: NewArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List credentials, without their secrets
    List {
        /// Only of this tenant
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Give a credential a new API key; the old one works on for a while
    Rotate {
        /// Its API id
        api_id: String,
        /// How long the old key works on: 30s, 15m, 24h, 7d; 0 = not at all
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
        overlap: Duration,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Refuse a credential until it is enabled again
    Disable {
        /// Its API id
        api_id: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Let a disabled credential in again
    Enable {
        /// Its API id
        api_id: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// A credential to be made.
#[derive(Debug, Default, Args)]
pub struct NewArgs {
    /// Whose it is; may be left out when there is only one tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// For people
    #[arg(long, default_value = "")]
    name: String,
    /// A ready-made set of permissions [default: integration_operator, unless a permission is given]
    #[arg(long, value_parser = parse_role)]
    role: Option<Role>,
    /// A permission, such as open:command:create; can be repeated, and adds to the role
    #[arg(long = "permission", value_name = "PERMISSION", value_parser = parse_permission)]
    permissions: Vec<Permission>,
    /// Serial number of a device it may touch; can be repeated [default: all of the tenant]
    #[arg(long = "device", value_name = "SN", value_parser = parse_sn)]
    devices: Vec<DeviceSn>,
    /// Address or network it may be used from, such as 10.0.0.0/8; can be repeated [default: anywhere]
    #[arg(long = "ip", value_name = "ADDRESS", value_parser = parse_ip)]
    addresses: Vec<IpRange>,
    /// When it stops working: 90d, or 2027-01-31T00:00:00Z [default: never]
    #[arg(long, value_name = "WHEN", value_parser = Moment::parse)]
    expires: Option<Moment>,
    /// How far the caller's clock may be off [default: 300s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    clock_skew: Option<Duration>,
    /// How long a nonce is remembered at least [default: 300s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    replay_window: Option<Duration>,
    /// What SUCCEEDED waits for in jobs when a request does not say
    #[arg(long, value_enum, default_value_t)]
    complete_on: CompleteOnArg,
}

impl NewArgs {
    /// A credential with a name and a role, and everything else as usual.
    pub fn of(name: &str, role: Role) -> Self {
        Self { name: name.to_owned(), role: Some(role), ..Self::default() }
    }
}

/// [`CompleteOn`], as it is typed.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum CompleteOnArg {
    /// The end of the job
    #[default]
    Outcome,
    /// The device's answer that it started
    Reply,
}

impl From<CompleteOnArg> for CompleteOn {
    fn from(arg: CompleteOnArg) -> Self {
        match arg {
            CompleteOnArg::Outcome => Self::Outcome,
            CompleteOnArg::Reply => Self::Reply,
        }
    }
}

/// Runs it.
pub async fn run(action: Action) -> anyhow::Result<Exit> {
    let (Action::Create { config, .. }
    | Action::List { config, .. }
    | Action::Rotate { config, .. }
    | Action::Disable { config, .. }
    | Action::Enable { config, .. }) = &action;
    let store = opened::store(&config.load(Purpose::Work)?.config).await?;
    let done = act(&*store, action).await;
    store.close().await;
    done.map(|()| Exit::Done)
}

async fn act(store: &dyn Database, action: Action) -> anyhow::Result<()> {
    match action {
        Action::Create { new, json, .. } => {
            let tenant = opened::tenant(store, new.tenant.as_deref()).await?;
            check_devices(store, &tenant, &new.devices).await?;
            let (credential, secret) = make(&new, &tenant, now())?;
            store.put_credential(credential.clone()).await?;
            show_new(&credential, &tenant, &secret, json);
            Ok(())
        }
        Action::List { tenant, json, .. } => list(store, tenant.as_deref(), json).await,
        Action::Rotate { api_id, overlap, json, .. } => rotate(store, &api_id, overlap, json).await,
        Action::Disable { api_id, .. } => {
            set_status(store, &api_id, CredentialStatus::Disabled).await
        }
        Action::Enable { api_id, .. } => set_status(store, &api_id, CredentialStatus::Active).await,
    }
}

/// A new credential and its secret.
pub fn make(new: &NewArgs, tenant: &Tenant, at: Timestamp) -> anyhow::Result<(Credential, Secret)> {
    let mut permissions: BTreeSet<Permission> = new.permissions.iter().copied().collect();
    match new.role {
        Some(role) => permissions.extend(role.permissions()),
        None if permissions.is_empty() => {
            permissions.extend(Role::IntegrationOperator.permissions())
        }
        None => {}
    }
    let expires_at = new.expires.map(|moment| moment.from(at));
    if expires_at.is_some_and(|expires_at| expires_at <= at) {
        bail!("--expires must lie in the future");
    }
    let secret = issue::api_key()?;
    let credential = Credential {
        api_id: issue::api_id()?,
        tenant: tenant.id,
        name: new.name.clone(),
        status: CredentialStatus::Active,
        permissions,
        allowed_clock_skew: new.clock_skew.unwrap_or(CLOCK_SKEW_DEFAULT),
        replay_window: new.replay_window.unwrap_or(REPLAY_WINDOW_DEFAULT),
        expires_at,
        ip_allow: new.addresses.clone(),
        devices: Some(new.devices.iter().cloned().collect::<BTreeSet<_>>())
            .filter(|devices| !devices.is_empty()),
        complete_on: new.complete_on.into(),
        secrets: vec![CredentialSecret { secret: secret.clone(), valid_until: None }],
        created_at: at,
    };
    Ok((credential, secret))
}

/// A slip in a serial number would lock the credential out of the device it is meant for.
async fn check_devices(
    store: &dyn Database,
    tenant: &Tenant,
    wanted: &[DeviceSn],
) -> anyhow::Result<()> {
    let known = store.devices().await?;
    for sn in wanted {
        if !known.iter().any(|device| device.sn == *sn && device.tenant == tenant.id) {
            bail!(
                "tenant {} has no device {sn}; add it first with: utmos device add --sn {sn} --kind …",
                tenant.name
            );
        }
    }
    Ok(())
}

fn show_new(credential: &Credential, tenant: &Tenant, secret: &Secret, as_json: bool) {
    if as_json {
        let mut shown = to_json(credential, &tenant.name, now());
        shown["api_key"] = secret.expose().into();
        output::json(&shown);
        return;
    }
    output::line(format_args!(
        "credential for tenant {}: {}",
        tenant.name,
        permissions_in_words(credential)
    ));
    output::line(format_args!("  API id   {}", credential.api_id));
    output::line(format_args!("  API key  {}", secret.expose()));
    output::line("The key is not shown again: keep it now.");
}

async fn list(store: &dyn Database, tenant: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let tenants = store.tenants().await?;
    let only = match tenant {
        Some(name) => Some(opened::tenant(store, Some(name)).await?.id),
        None => None,
    };
    let all = store.credentials().await?;
    let name_of = |credential: &Credential| {
        let tenant = tenants.iter().find(|tenant| tenant.id == credential.tenant);
        tenant.map_or_else(|| credential.tenant.to_string(), |tenant| tenant.name.clone())
    };
    let chosen = all.iter().filter(|credential| only.is_none_or(|only| credential.tenant == only));
    let at = now();
    if as_json {
        output::json(
            &chosen.map(|credential| to_json(credential, &name_of(credential), at)).collect(),
        );
        return Ok(());
    }
    let rows: Vec<_> = chosen
        .map(|credential| {
            [
                credential.api_id.to_string(),
                name_of(credential),
                credential.name.clone(),
                status_in_words(credential, at).to_owned(),
                permissions_in_words(credential),
                credential.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string()),
                working_secrets(credential, at).to_string(),
            ]
        })
        .collect();
    output::table(["API ID", "TENANT", "NAME", "STATUS", "MAY", "EXPIRES", "KEYS"], &rows);
    Ok(())
}

async fn rotate(
    store: &dyn Database,
    api_id: &str,
    overlap: Duration,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut credential = find(store, api_id).await?;
    let at = now();
    let secret = issue::api_key()?;
    let dropped = renew(&mut credential, secret.clone(), at, overlap);
    let until = credential.secrets.get(1).and_then(|old| old.valid_until);
    store.put_credential(credential.clone()).await?;
    if as_json {
        output::json(&json!({
            "api_id": api_id,
            "api_key": secret.expose(),
            "old_key_valid_until": until.map(|until| until.to_string()),
        }));
        return Ok(());
    }
    output::line(format_args!("credential {api_id} has a new key"));
    output::line(format_args!("  API key  {}", secret.expose()));
    match until {
        Some(until) => output::line(format_args!("The old key works until {until}.")),
        None => output::line("The old key no longer works."),
    }
    if dropped {
        output::line("The key before that one, which was still running out, no longer works.");
    }
    output::line("The new key is not shown again: keep it now.");
    Ok(())
}

/// Puts a new secret first and lets the current one run out. Answers whether a third one, which still worked, is gone.
fn renew(credential: &mut Credential, secret: Secret, at: Timestamp, overlap: Duration) -> bool {
    let still_works = |old: &CredentialSecret| old.valid_until.is_none_or(|until| at < until);
    credential.secrets.retain(still_works);
    for old in &mut credential.secrets {
        let until = at.plus(overlap);
        old.valid_until = Some(old.valid_until.map_or(until, |set| set.min(until)));
    }
    credential.secrets.insert(0, CredentialSecret { secret, valid_until: None });
    let before = credential.secrets.len();
    let keep = if overlap.is_zero() { 1 } else { SECRETS_MAX };
    credential.secrets.truncate(keep);
    before > SECRETS_MAX
}

async fn set_status(
    store: &dyn Database,
    api_id: &str,
    status: CredentialStatus,
) -> anyhow::Result<()> {
    let mut credential = find(store, api_id).await?;
    if credential.status == CredentialStatus::Deleted {
        bail!("credential {api_id} is deleted, which is for good");
    }
    credential.status = status;
    store.put_credential(credential).await?;
    let word = if status == CredentialStatus::Active { "works again" } else { "is disabled" };
    output::line(format_args!("credential {api_id} {word}"));
    Ok(())
}

async fn find(store: &dyn Database, api_id: &str) -> anyhow::Result<Credential> {
    let found = store.credential(&ApiId::new(api_id)).await?;
    found.ok_or_else(|| {
        anyhow!("there is no credential {api_id}; `utmos credential list` shows all")
    })
}

fn to_json(credential: &Credential, tenant: &str, at: Timestamp) -> serde_json::Value {
    let texts = |items: Vec<String>| serde_json::Value::from(items);
    json!({
        "api_id": credential.api_id,
        "tenant": tenant,
        "tenant_id": credential.tenant,
        "name": credential.name,
        "status": status_in_words(credential, at),
        "permissions": texts(credential.permissions.iter().map(ToString::to_string).collect()),
        "devices": credential.devices.as_ref().map(|devices| texts(devices.iter().map(ToString::to_string).collect())),
        "ip_allow": texts(credential.ip_allow.iter().map(ToString::to_string).collect()),
        "expires_at": credential.expires_at.map(|at| at.to_string()),
        "allowed_clock_skew_seconds": credential.allowed_clock_skew.as_secs(),
        "replay_window_seconds": credential.replay_window.as_secs(),
        "complete_on": credential.complete_on,
        "keys": working_secrets(credential, at),
        "created_at": credential.created_at.to_string(),
    })
}

fn status_in_words(credential: &Credential, at: Timestamp) -> &'static str {
    match credential.status {
        CredentialStatus::Active
            if credential.expires_at.is_some_and(|expires_at| expires_at <= at) =>
        {
            "EXPIRED"
        }
        CredentialStatus::Active => "ACTIVE",
        CredentialStatus::Disabled => "DISABLED",
        CredentialStatus::Deleted => "DELETED",
    }
}

fn permissions_in_words(credential: &Credential) -> String {
    let role = Role::ALL.into_iter().find(|(role, _)| role.permissions() == credential.permissions);
    match role {
        Some((_, name)) => name.to_owned(),
        None => credential.permissions.iter().map(|may| may.as_str()).collect::<Vec<_>>().join(","),
    }
}

fn working_secrets(credential: &Credential, at: Timestamp) -> usize {
    credential
        .secrets
        .iter()
        .filter(|secret| secret.valid_until.is_none_or(|until| at < until))
        .count()
}

fn parse_role(text: &str) -> Result<Role, String> {
    let names = Role::ALL.map(|(_, name)| name).join(", ");
    Role::parse(text).ok_or_else(|| format!("the roles are {names}"))
}

fn parse_permission(text: &str) -> Result<Permission, String> {
    let names = || Permission::ALL.iter().map(|may| may.as_str()).collect::<Vec<_>>().join(", ");
    Permission::parse(text).ok_or_else(|| format!("the permissions are {}", names()))
}

fn parse_sn(text: &str) -> Result<DeviceSn, String> {
    DeviceSn::parse(text).map_err(|err| err.to_string())
}

fn parse_ip(text: &str) -> Result<IpRange, String> {
    IpRange::parse(text).ok_or_else(|| {
        "must be an address or a network, such as 10.0.0.0/8 or 2001:db8::1".to_owned()
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::id::TenantId;
    use uuid::Uuid;

    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn tenant() -> Tenant {
        Tenant { id: TenantId::new(Uuid::from_u128(1)), name: "t".to_owned(), created_at: AT }
    }

    fn secrets(credential: &Credential) -> Vec<(&str, Option<i64>)> {
        let secret = |held: &CredentialSecret| {
            held.valid_until.map(|until| until.since(AT).as_secs() as i64)
        };
        credential.secrets.iter().map(|held| (held.secret.expose(), secret(held))).collect()
    }

    #[test]
    fn a_credential_gets_the_usual_role_unless_told_otherwise() {
        let made = |new: NewArgs| make(&new, &tenant(), AT).unwrap().0;
        assert_eq!(permissions_in_words(&made(NewArgs::default())), "integration_operator");
        let viewer = NewArgs { role: Some(Role::Viewer), ..NewArgs::default() };
        assert_eq!(permissions_in_words(&made(viewer)), "viewer");
        let narrow = NewArgs { permissions: vec![Permission::CommandRead], ..NewArgs::default() };
        assert_eq!(permissions_in_words(&made(narrow)), "open:command:read");
        assert!(made(NewArgs::default()).devices.is_none());
        let past = NewArgs { expires: Some(Moment::At(AT)), ..NewArgs::default() };
        assert!(make(&past, &tenant(), AT).is_err());
    }

    #[test]
    fn rotation_keeps_at_most_two_keys_and_never_lengthens_one() {
        let (mut credential, _) = make(&NewArgs::default(), &tenant(), AT).unwrap();
        let secret = |text: &str| Secret::new(text.to_owned());
        credential.secrets = vec![CredentialSecret { secret: secret("a"), valid_until: None }];
        assert!(!renew(&mut credential, secret("b"), AT, HOUR));
        assert_eq!(secrets(&credential), [("b", None), ("a", Some(3600))]);
        assert!(renew(&mut credential, secret("c"), AT, HOUR * 2), "a still worked");
        assert_eq!(secrets(&credential), [("c", None), ("b", Some(7200))]);
        assert!(!renew(&mut credential, secret("d"), AT.plus(HOUR * 3), HOUR), "b had run out");
        assert_eq!(secrets(&credential), [("d", None), ("c", Some(4 * 3600))]);
        renew(&mut credential, secret("e"), AT, Duration::ZERO);
        assert_eq!(secrets(&credential), [("e", None)]);
    }
}
