//! Direct lines between servers: they break, fall silent, or are not there. Then all goes by the database, and nothing is sent
//! twice, late, or refused for it.

use std::net::SocketAddr;

use super::{DOCKS, SERVERS, Several, TIMEOUT_SECONDS, killed_in_turn, more};
use crate::{drill::until, forwarder::Forwarder, place::own_address};

/// Where each server listens for the others, at an address of its own.
const PORT: u16 = 7_400;
/// How often each line breaks and falls silent.
const ROUNDS: usize = 3;

impl Several {
    /// Puts a cable before each server, over which the others reach it.
    async fn cabled(&mut self) -> Vec<Forwarder> {
        let mut cables = Vec::new();
        for site in &mut self.sites {
            let own = SocketAddr::from((own_address(), PORT));
            let cable = Forwarder::to(own).await;
            site.settings.push(format!("servers.listen={own}"));
            site.settings.push(format!("servers.address={}", cable.address));
            cables.push(cable);
        }
        cables
    }

    /// How often servers asked each other directly and were answered, and how often they were not.
    async fn asked_directly(&self) -> (u64, u64) {
        let (mut answered, mut unheard) = (0, 0);
        for number in 0..SERVERS {
            let api = self.api(number);
            answered += api.figure("commands_accepted_directly_total").await;
            unheard += api.figure("commands_unheard_directly_total").await;
        }
        (answered, unheard)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_between_servers_break_and_fall_silent_and_nobody_is_refused_or_served_twice() {
    let mut several = Several::prepare(DOCKS).await;
    let cables = several.cabled().await;
    several.bring_all_up().await;
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let loads = several.load();
    more(&loads, None, 30).await;
    let mut beside = Vec::new();
    for round in 0..ROUNDS {
        for (number, cable) in cables.iter().enumerate() {
            let (before, _) = several.asked_directly().await;
            until("nobody asks directly", async || several.asked_directly().await.0 > before).await;
            match (number + round) % 2 {
                0 => cable.cut(),
                _ => cable.fall_silent(),
            }
            more(&loads, None, 12).await;
            // Of whoever holds which dock, each is asked for while its line may be gone.
            let asked = (number + 1) % SERVERS;
            for dock in &several.config.docks {
                let ask = several.ask_within(TIMEOUT_SECONDS, asked, &dock.sn, "debug_mode_open");
                beside.push(ask.await);
            }
            cable.mend();
        }
    }
    for one in &beside {
        assert_eq!(several.api(0).ended(&one.id).await["status"], "SUCCEEDED");
        assert_eq!(fleet.count(&one.id), 1, "once");
    }
    let (answered, unheard) = several.asked_directly().await;
    eprintln!(
        "drill: {answered} commands were asked for directly, and {unheard} were not heard of"
    );
    assert!(answered > 50 && unheard > 0, "{answered}, {unheard}");
    several.judge("lines between servers break and fall silent", fleet, loads, beside).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_direct_lines_each_of_three_servers_is_killed_in_turn() {
    let mut several = Several::prepare(DOCKS).await;
    for site in &mut several.sites {
        site.settings.push("servers.direct=false".to_owned());
    }
    several.bring_all_up().await;
    killed_in_turn(several, "three servers without direct lines killed in turn").await;
}
