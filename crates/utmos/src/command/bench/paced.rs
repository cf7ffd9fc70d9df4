//! Commands at a fixed pace, each timed from when it was meant to be sent: what holds one up shows in all behind it, as it
//! does for callers who do not wait for each other.

use std::{sync::Arc, time::Duration};

use hdrhistogram::Histogram;
use tokio::{task::JoinSet, time::Instant};

use super::{
    load::{self, Loaded, Site, Told},
    moment,
};

/// Clients that send in turn. At 2,000 a second one that waits 64 ms for an end holds up no other command.
const SENDERS: u32 = 128;

/// Sends so many commands a second for so long, and waits for the end of each.
pub async fn run(site: &Arc<Site>, a_second: u32, time: Duration) -> anyhow::Result<Loaded> {
    let pace = Duration::from_secs(1) / a_second;
    let began = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..SENDERS {
        let site = Arc::clone(site);
        let first = began + pace * number;
        running.spawn(async move {
            sender(&site, u64::from(number), first, pace * SENDERS, began + time).await
        });
    }
    Loaded::of(running, began).await
}

async fn sender(
    site: &Site,
    number: u64,
    first: Instant,
    pace: Duration,
    until: Instant,
) -> anyhow::Result<(Histogram<u64>, Vec<Told>)> {
    let (mut times, mut commands) = (load::times(), Vec::new());
    let mut client = site.connect().await?;
    let (mut intended, mut n) = (first, number);
    while intended < until {
        moment::reach(intended).await;
        let id = client.send_load(site.dock(n), n).await?;
        let end = Some(client.end_of(&id).await?);
        load::record(&mut times, intended.elapsed());
        commands.push(Told { id, end });
        intended += pace;
        // Every sender goes its own way round the docks, and each dock gets commands of both kinds.
        n += u64::from(SENDERS) + 1;
    }
    Ok((times, commands))
}
