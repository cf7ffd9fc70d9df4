//! `utmos device history`: who had a device, and who changed what.

use serde_json::json;
use utmos_core::id::{DeviceSn, TenantId};

use crate::{opened::Database, output};

/// Shows a device's record.
pub(super) async fn show(store: &dyn Database, sn: &DeviceSn, as_json: bool) -> anyhow::Result<()> {
    let tenants = store.tenants().await?;
    let name_of = |id: TenantId| {
        let tenant = tenants.iter().find(|tenant| tenant.id == id);
        tenant.map_or_else(|| id.to_string(), |tenant| tenant.name.clone())
    };
    let lines = store.device_record(sn).await?;
    if as_json {
        let items = lines.iter().map(|line| {
            json!({
                "at": line.by.at.to_string(),
                "what": line.what.as_str(),
                "from": line.from.map(name_of),
                "to": line.to.map(name_of),
                "by": line.by.who,
            })
        });
        output::json(&items.collect());
        return Ok(());
    }
    if lines.is_empty() {
        output::line(format_args!("nothing is on record of {sn}"));
        return Ok(());
    }
    let tenant = |id: Option<TenantId>| id.map(name_of).unwrap_or_default();
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            [
                line.by.at.to_string(),
                line.what.as_str().to_owned(),
                tenant(line.from),
                tenant(line.to),
                line.by.who.clone(),
            ]
        })
        .collect();
    output::table(["AT", "WHAT", "FROM", "TO", "BY"], &rows);
    Ok(())
}
