//! `utmos device binding-code`: what lets a factory-new dock join a tenant. A code is shown once.

use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Subcommand;
use serde_json::json;
use utmos_core::{
    binding::{BindingCode, USES_MAX},
    id::BindingCodeId,
};
use utmos_server::{
    config::Config,
    fleet::{CODES_PER_TENANT_MAX, CodeAsked},
};
use uuid::Uuid;

use super::{COMMAND_LINE, broker_address};
use crate::{
    opened::{self, Database},
    output,
    settings::ConfigArgs,
    time::{now, parse_duration},
};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a code; it is shown once. A dock connects with its serial number and the code as its password, and joins with
    /// the same code as its binding code
    Create {
        /// Whose it is; may be left out when there is only one tenant
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        /// For people
        #[arg(long, default_value = "")]
        label: String,
        /// How many gateways may join with it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(USES_MAX)))]
        uses: u32,
        /// How long it is good, from 60s to 30d
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_good_for)]
        expires: Duration,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List codes, without the codes themselves, which are not kept
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
    /// Take a code back; docks that have joined with it stay
    Revoke {
        /// Its id, as `list` shows it
        id: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

fn parse_good_for(text: &str) -> Result<Duration, String> {
    let least = Duration::from_secs(60);
    let given = parse_duration(text)?;
    let fits = (least..=CodeAsked::GOOD_FOR_MAX).contains(&given);
    if fits { Ok(given) } else { Err("must be from 60s to 30d".to_owned()) }
}

pub(super) async fn act(
    store: &dyn Database,
    config: &Config,
    action: Action,
) -> anyhow::Result<()> {
    match action {
        Action::Create { tenant, label, uses, expires, json, .. } => {
            let tenant = opened::tenant(store, tenant.as_deref()).await?;
            let asked = CodeAsked { label, uses_max: uses, good_for: expires };
            let (code, shown) = asked.make(tenant.id, Uuid::new_v4(), COMMAND_LINE, now())?;
            if !store.add_binding_code(code.clone(), CODES_PER_TENANT_MAX).await? {
                bail!(
                    "tenant {} has {CODES_PER_TENANT_MAX} codes that are good; take some back: utmos device binding-code revoke",
                    tenant.name
                );
            }
            let (address, hint) = broker_address(config);
            let organization = match config.dji.organization_id.as_str() {
                "" => tenant.id.to_string(),
                configured => configured.to_owned(),
            };
            if json {
                output::json(&json!({
                    "id": code.id,
                    "code": shown.expose(),
                    "tenant": tenant.name,
                    "organization_id": organization,
                    "broker": address,
                    "uses_max": code.uses_max,
                    "expires_at": code.expires_at.to_string(),
                }));
                return Ok(());
            }
            output::line("Type this into the dock:");
            output::line(format_args!("  broker           {address}"));
            output::line("  username         its serial number");
            output::line(format_args!("  password         {}", shown.expose()));
            output::line(format_args!("  organisation id  {organization}"));
            output::line(format_args!("  binding code     {}", shown.expose()));
            output::line(format_args!(
                "Good until {} for {} of tenant {}. The code is not shown again.",
                code.expires_at,
                if uses == 1 { "one dock".to_owned() } else { format!("{uses} docks") },
                tenant.name
            ));
            if let Some(hint) = hint {
                output::line(hint);
            }
            Ok(())
        }
        Action::List { tenant, json, .. } => list(store, tenant.as_deref(), json).await,
        Action::Revoke { id, .. } => {
            let unknown = || {
                anyhow!("there is no binding code {id}; `utmos device binding-code list` shows all")
            };
            let known: BindingCodeId = id.parse().map_err(|_| unknown())?;
            let codes = store.binding_codes().await?;
            let code = codes.iter().find(|code| code.id == known).ok_or_else(unknown)?;
            store.revoke_binding_code(code.tenant, code.id, now()).await?;
            output::line(format_args!("binding code {id} was taken back"));
            Ok(())
        }
    }
}

async fn list(store: &dyn Database, tenant: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let only = match tenant {
        Some(name) => Some(opened::tenant(store, Some(name)).await?.id),
        None => None,
    };
    let tenants = store.tenants().await?;
    let name_of = |code: &BindingCode| {
        let tenant = tenants.iter().find(|tenant| tenant.id == code.tenant);
        tenant.map_or_else(|| code.tenant.to_string(), |tenant| tenant.name.clone())
    };
    let mut codes = store.binding_codes().await?;
    codes.retain(|code| only.is_none_or(|only| code.tenant == only));
    let at = now();
    if as_json {
        let items = codes.iter().map(|code| {
            json!({
                "id": code.id,
                "tenant": name_of(code),
                "label": code.label,
                "state": code.state(at).as_str(),
                "uses": code.uses,
                "uses_max": code.uses_max,
                "created_by": code.created_by,
                "created_at": code.created_at.to_string(),
                "expires_at": code.expires_at.to_string(),
                "revoked_at": code.revoked_at.map(|at| at.to_string()),
            })
        });
        output::json(&items.collect());
        return Ok(());
    }
    let rows: Vec<_> = codes
        .iter()
        .map(|code| {
            [
                code.id.to_string(),
                name_of(code),
                code.label.clone(),
                code.state(at).as_str().to_owned(),
                format!("{}/{}", code.uses, code.uses_max),
                code.expires_at.to_string(),
            ]
        })
        .collect();
    output::table(["ID", "TENANT", "LABEL", "STATE", "USED", "EXPIRES"], &rows);
    Ok(())
}
