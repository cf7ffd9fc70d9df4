//! `utmos tenant`: opens the store itself, so that it works whether or not the server runs.

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;
use utmos_core::{id::TenantId, ports::Tenant};
use uuid::Uuid;

use crate::{
    exit::Exit,
    opened::{self, Database},
    output,
    settings::{ConfigArgs, Purpose},
    time::now,
};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a tenant
    Create {
        /// Its name, unique
        name: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List all tenants
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// Runs it.
pub async fn run(action: Action) -> anyhow::Result<Exit> {
    let (Action::Create { config, .. } | Action::List { config, .. }) = &action;
    let store = opened::store(&config.load(Purpose::Work)?.config).await?;
    let done = match action {
        Action::Create { name, .. } => create(&*store, &name)
            .await
            .map(|tenant| output::line(format_args!("tenant {name} ({}) is made", tenant.id))),
        Action::List { json, .. } => list(&*store, json).await,
    };
    store.close().await;
    done.map(|()| Exit::Done)
}

/// Makes a tenant of a new name.
pub async fn create(store: &dyn Database, name: &str) -> anyhow::Result<Tenant> {
    const NAME_CHARS_MAX: usize = 100;
    if name.trim().is_empty()
        || name.chars().count() > NAME_CHARS_MAX
        || name.chars().any(char::is_control)
    {
        bail!("a tenant's name has 1 to {NAME_CHARS_MAX} characters, got {name:?}");
    }
    if store.tenants().await?.iter().any(|tenant| tenant.name == name) {
        bail!("there is a tenant {name:?} already; `utmos tenant list` shows it");
    }
    let tenant =
        Tenant { id: TenantId::new(Uuid::new_v4()), name: name.to_owned(), created_at: now() };
    store.put_tenant(tenant.clone()).await?;
    Ok(tenant)
}

async fn list(store: &dyn Database, as_json: bool) -> anyhow::Result<()> {
    let tenants = store.tenants().await?;
    if as_json {
        let items = tenants.iter().map(|tenant| {
            json!({"tenant_id": tenant.id, "name": tenant.name, "created_at": tenant.created_at.to_string()})
        });
        output::json(&items.collect());
        return Ok(());
    }
    let rows: Vec<_> = tenants
        .into_iter()
        .map(|tenant| [tenant.name, tenant.id.to_string(), tenant.created_at.to_string()])
        .collect();
    output::table(["NAME", "TENANT ID", "CREATED"], &rows);
    Ok(())
}
