//! What happens when a broker comes back: all docks connect at once, from one address, as behind one NAT.

use anyhow::Context;
use tokio::time::Instant;

use super::{
    child::{Place, Prepared},
    growth::{docks_max, leave_to_docks},
    measure::Measure,
    report::{Report, Sample},
    telemetry::live::{CONNECTING_MAX, Live},
};
use crate::{open_files, output};

const DOCKS: u32 = 10_000;

/// Connects them a few at a time, ends their connections, and has all of them come again at the same moment: until the last has
/// its subscriptions back.
pub async fn measure(mut place: Place, report: &mut Report) -> anyhow::Result<()> {
    let docks = docks_max(DOCKS, open_files::raise());
    leave_to_docks(&mut place, docks);
    let prepared = Prepared::new(&place, docks).await?;
    let server = place.start().await?.server;
    output::note(format_args!("connecting {docks} docks, which the files are enough for"));
    let all = || prepared.docks.iter().take(docks as usize).cloned().collect();
    let live = Live::connect(place.mqtt, all(), CONNECTING_MAX).await?;
    live.leave().await;
    drop(live);
    let began = Instant::now();
    let live =
        Live::connect(place.mqtt, all(), docks as usize).await.context("all docks at once")?;
    report.add(Measure::Reconnect, Sample::value(began.elapsed().as_secs_f64()));
    live.leave().await;
    server.stop().await
}
