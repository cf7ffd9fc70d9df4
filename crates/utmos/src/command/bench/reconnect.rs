//! What happens when a broker comes back: all docks connect at once, from one address, as behind one NAT.

use anyhow::Context;
use tokio::time::Instant;

use super::{
    child::{Place, Prepared},
    measure::Measure,
    report::{Report, Sample},
    telemetry::live::{CONNECTING_MAX, Live},
};
use crate::{open_files, output};

const DOCKS: u32 = 10_000;

/// Connects them one by one, ends their connections, and has all of them come again at the same moment: until the last has its
/// subscriptions back.
pub async fn measure(place: &Place, report: &mut Report) -> anyhow::Result<()> {
    open_files::raise();
    output::note(format_args!("registering {DOCKS} docks"));
    let prepared = Prepared::new(place, DOCKS).await?;
    let server = place.start().await?.server;
    let docks = || prepared.docks.iter().take(DOCKS as usize).cloned().collect();
    output::note(format_args!("connecting {DOCKS} docks"));
    let live = Live::connect(place.mqtt, docks(), CONNECTING_MAX).await?;
    live.leave().await;
    drop(live);
    let began = Instant::now();
    let live =
        Live::connect(place.mqtt, docks(), DOCKS as usize).await.context("all docks at once")?;
    report.add(Measure::Reconnect, Sample::value(began.elapsed().as_secs_f64()));
    live.leave().await;
    server.stop().await
}
