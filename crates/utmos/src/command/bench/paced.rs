//! Commands at a fixed pace, each timed from when it was meant to be sent: what holds one up shows in all behind it, as it
//! does for callers who do not wait for each other.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use super::{
    load::{self, Loaded, OneClients, Proved, Site, Told},
    moment,
    reply::Reply,
};

/// Clients that send in turn, so many at least. At 2,000 a second one that waits 64 ms for an end holds up no other command.
const SENDERS_MIN: u32 = 128;
/// So long may the end of a command that its dock has answered be waited for without holding up another.
const SLACK: Duration = Duration::from_millis(64);

/// More than these a server gives no room with the files that a process may usually open.
pub const SENDERS_MAX: u32 = 4_000;

/// How many it takes, each of which waits for the end of its command before it sends the next.
pub fn senders(reply: Reply, a_second: u32) -> u32 {
    let waiting = (reply.wait() + SLACK).as_millis() * u128::from(a_second) / 1_000;
    u32::try_from(waiting).unwrap_or(u32::MAX).max(SENDERS_MIN)
}

/// Sends so many commands a second for so long, and waits for the end of each.
pub async fn run(site: &Arc<Site>, a_second: u32, time: Duration) -> anyhow::Result<Loaded> {
    let (pace, senders) = (Duration::from_secs(1) / a_second, senders(site.reply(), a_second));
    let connections = site.connected(usize::try_from(senders)?).await?;
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (number, connection) in (0..).zip(connections) {
        let site = Arc::clone(site);
        let first = began + pace * number;
        running.spawn(async move {
            let until = began + time;
            Sender { senders, first, pace: pace * senders, until }
                .run(&site, connection, number)
                .await
        });
    }
    let mut loaded = Loaded::of(running, began).await?;
    // While only answers were waited for, nothing was to be sent.
    loaded.took = loaded.took.saturating_sub(site.reply().wait());
    Ok(loaded)
}

/// One of so many clients that send in turn.
struct Sender {
    senders: u32,
    first: Instant,
    /// From one of its commands to the next.
    pace: Duration,
    until: Instant,
}

impl Sender {
    async fn run(self, site: &Site, connection: Proved, number: u32) -> anyhow::Result<OneClients> {
        let (mut times, mut commands) = (load::times(), Vec::new());
        let mut client = site.client(connection);
        let (mut intended, mut n) = (self.first, u64::from(number));
        while intended < self.until {
            moment::reach(intended).await;
            let id = client.send_load(site.dock(n), n).await?;
            let end = Some(client.end_of(&id).await?);
            load::record(&mut times, intended.elapsed());
            commands.push(Told { id, end });
            intended += self.pace;
            // Every sender goes its own way round the docks, and each dock gets commands of both kinds.
            n += u64::from(self.senders) + 1;
        }
        Ok((times, commands))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_docks_take_more_callers() {
        let after = |millis| Reply::After(Duration::from_millis(millis));
        assert_eq!(senders(Reply::AtOnce, 500), SENDERS_MIN);
        assert_eq!(senders(Reply::AtOnce, 2_000), SENDERS_MIN);
        assert_eq!(senders(after(936), 2_000), 2_000);
        assert_eq!(senders(after(3_000), 500), 1_532);
        assert!(senders(after(3_000), 2_000) > SENDERS_MAX);
    }
}
