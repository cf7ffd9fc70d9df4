//! `utmos device strangers`: what came of devices that are nobody's. No tenant may see it, so whoever runs the server does.

use serde_json::json;
use utmos_dji::catalogue::mask_message;

use crate::{opened::Database, output};

/// Characters of a message that a line of the table shows.
const SHOWN_MAX: usize = 80;

/// Shows the newest of them.
pub(super) async fn show(store: &dyn Database, limit: usize, as_json: bool) -> anyhow::Result<()> {
    let found = store.unmatched_of(None, None, limit).await?;
    if as_json {
        let items = found.iter().map(|one| {
            json!({
                "received_at": one.received_at.to_string(),
                "topic": one.topic,
                "tid": one.tid,
                "method": one.method,
                "reason": one.reason,
                "raw": mask_message(&one.raw),
            })
        });
        output::json(&items.collect());
        return Ok(());
    }
    if found.is_empty() {
        output::line("no message of a stranger is kept");
        return Ok(());
    }
    let rows: Vec<_> = found
        .iter()
        .map(|one| {
            let said = mask_message(&one.raw);
            let shown: String = said.chars().take(SHOWN_MAX).collect();
            let more = if shown.len() < said.len() { " …" } else { "" };
            let topic = one.topic.escape_debug().to_string();
            [
                one.received_at.to_string(),
                topic,
                one.reason.escape_debug().to_string(),
                format!("{}{more}", shown.escape_debug()),
            ]
        })
        .collect();
    output::table(["AT", "TOPIC", "REASON", "SAID"], &rows);
    Ok(())
}
