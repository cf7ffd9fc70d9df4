//! The life of one dock: its connection, what comes in by it and goes out, and what it is told from aside.

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use utmos_core::time::Mono;
use utmos_mqtt::{Acknowledgement, Client, ClientConfig, Inbound, Outlet, Publish, Sent};

use super::Shared;
use crate::{
    Asking, DockState, Output, Passed, Way, Wire,
    fault::{Connection, Deeds, Entry, FaultyDock},
};

/// Messages from the broker that wait for a dock.
const INBOUND_MAX: usize = 32;
/// Messages of a dock on their way to the broker; what comes on top is dropped.
const OUTBOUND_MAX: usize = 256;
/// Acknowledgements that are kept back; of more, the oldest are never sent.
const KEPT_BACK_MAX: usize = 1_024;
/// Longest that a line which is to be cut is waited for.
const LAST_WORD_WAIT: Duration = Duration::from_secs(1);

/// Something a running dock is told by whoever runs it.
#[derive(Debug)]
pub struct Order {
    /// What.
    pub what: What,
    /// How the dock stands after it.
    pub done: oneshot::Sender<DockState>,
}

/// What a running dock can be told.
#[derive(Debug)]
pub enum What {
    /// To add a fault or a condition with this number.
    Add(u64, Entry),
    /// To take one away.
    Remove(u64),
    /// To ask the cloud for something.
    Ask(Asking),
    /// To say how it stands, and nothing else.
    Look,
}

/// A dock's connection, and what comes in by it.
struct Line {
    client: Client,
    outlet: Arc<dyn Outlet>,
    inbound: mpsc::Receiver<Inbound>,
}

impl Line {
    fn open(config: ClientConfig) -> Self {
        let (sender, inbound) = mpsc::channel(INBOUND_MAX);
        let client = Client::start(config, sender);
        Self { outlet: client.outlet(), client, inbound }
    }

    /// What comes next; nothing ever where there is no line.
    async fn next(line: &mut Option<Self>) -> Option<Inbound> {
        match line {
            Some(line) => line.inbound.recv().await,
            None => pending().await,
        }
    }
}

/// A dock that lives: with its line, unless a fault has taken it.
struct Life {
    dock: FaultyDock,
    config: ClientConfig,
    sn: Arc<str>,
    shared: Arc<Shared>,
    line: Option<Line>,
    /// When a line that a fault cut is made anew.
    back: Option<Mono>,
    /// Acknowledgements that faults keep back, by their number. They die with the line.
    kept_back: BTreeMap<u64, Acknowledgement>,
    /// The acknowledgement of a message that costs the dock its line: it must be out before.
    last: Option<Acknowledgement>,
}

/// Lives until the fleet is stopped.
pub(super) async fn live(
    dock: FaultyDock,
    config: ClientConfig,
    sn: Arc<str>,
    shared: Arc<Shared>,
    mut orders: mpsc::Receiver<Order>,
) {
    let line = Some(Line::open(config.clone()));
    let (back, kept_back) = (None, BTreeMap::new());
    let (shared_too, last) = (Arc::clone(&shared), None);
    let mut life = Life { dock, config, sn, shared: shared_too, line, back, kept_back, last };
    let sn = Arc::clone(&life.sn);
    let mut stop = shared.stop.subscribe();
    let mut on_their_way = FuturesUnordered::new();
    let mut announced = false;
    loop {
        let wake = [life.dock.next_wake(), life.back].into_iter().flatten().min();
        let wake = wake.map(|at| shared.clock.at(at.as_millis()));
        let mut asked = None;
        let deeds = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            // Polled first, so that messages leave in the order they were made.
            Some((announces, sent)) = on_their_way.next(), if !on_their_way.is_empty() => {
                announced |= confirmed(&sn, announces, &sent, announced, &shared);
                continue;
            }
            Some(Order { what, done }) = orders.recv() => {
                asked = Some(done);
                life.obey(what)
            }
            message = Line::next(&mut life.line) => match message {
                Some(message) => life.hear(message),
                None => break,
            },
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => life.wake(),
        };
        let Deeds { outputs, met, keeps_back: _, acknowledges, connection } = deeds;
        for acknowledged in acknowledges.iter().filter(|one| one.after.is_none()) {
            life.acknowledge(acknowledged.number);
        }
        for (number, output) in outputs.into_iter().enumerate() {
            let behind: Vec<Acknowledgement> = acknowledges
                .iter()
                .filter(|acknowledged| acknowledged.after == Some(number))
                .filter_map(|acknowledged| life.kept_back.remove(&acknowledged.number))
                .collect();
            let Some((message, announces)) = take(output, &sn, &shared) else { continue };
            let Some(line) = &life.line else { continue };
            if on_their_way.len() < OUTBOUND_MAX {
                let outlet = Arc::clone(&line.outlet);
                on_their_way.push(send(outlet, message, announces, behind, &sn, &shared));
            } else {
                tracing::warn!(gateway.sn = %sn, "the broker is too slow, a message was dropped");
            }
        }
        if let Some(met) = met {
            shared.met(met);
        }
        if let Some(connection) = connection {
            if let Some(last) = life.last.take() {
                let _ = timeout(LAST_WORD_WAIT, last.write()).await;
            }
            life.change(connection);
        }
        if let Some(done) = asked {
            // Whoever asked may have gone.
            let _ = done.send(life.dock.shown(shared.clock.now()));
        }
    }
    if let Some(line) = life.line {
        line.client.shutdown().await;
    }
}

impl Life {
    fn obey(&mut self, what: What) -> Deeds {
        let now = self.shared.clock.now();
        match what {
            What::Add(number, entry) => {
                self.dock.add(number, &entry, now);
                // What begins at once has begun when whoever asked is answered.
                self.dock.tick(now)
            }
            What::Remove(number) => self.dock.remove(number, now),
            What::Ask(asking) => self.dock.ask_for(&asking, now).1,
            What::Look => Deeds::default(),
        }
    }

    fn wake(&mut self) -> Deeds {
        let now = self.shared.clock.now();
        if self.back.is_some_and(|back| back <= now.mono) {
            self.back = None;
            self.line = Some(Line::open(self.config.clone()));
        }
        self.dock.tick(now)
    }

    fn hear(&mut self, message: Inbound) -> Deeds {
        self.shared.heard(&self.sn, &message);
        let now = self.shared.clock.now();
        match message {
            Inbound::Message { topic, payload, user: _, acknowledgement } => {
                let deeds = self.dock.handle(&topic, &payload, now);
                if let Some(acknowledgement) = acknowledgement {
                    if deeds.connection.is_some() {
                        self.last = Some(acknowledgement);
                    } else {
                        self.keep_back_or_send(deeds.keeps_back, acknowledgement);
                    }
                }
                deeds
            }
            Inbound::LinkUp { protocol: _ } => self.dock.connected(now),
            Inbound::LinkDown { reason } => {
                self.kept_back.clear();
                self.dock.disconnected(&reason, now)
            }
            // Only the embedded broker tells of these.
            Inbound::Joined { .. } | Inbound::Subscribed { .. } | Inbound::Left { .. } => {
                Deeds::default()
            }
        }
    }

    /// What is not kept back leaves before anything the dock says to it.
    fn keep_back_or_send(&mut self, number: Option<u64>, acknowledgement: Acknowledgement) {
        let Some(number) = number else { return acknowledgement.send() };
        self.kept_back.insert(number, acknowledgement);
        if KEPT_BACK_MAX < self.kept_back.len() {
            self.kept_back.pop_first();
        }
    }

    fn acknowledge(&mut self, number: u64) {
        if let Some(acknowledgement) = self.kept_back.remove(&number) {
            acknowledgement.send();
        }
    }

    fn change(&mut self, connection: Connection) {
        let now = self.shared.clock.now().mono.as_millis();
        match connection {
            // Dropped and not shut down: a connection that is lost says no goodbye.
            Connection::LostFor(ms) => self.lose(Some(Mono::from_millis(now + ms))),
            Connection::Lost => self.lose(None),
            Connection::Back => self.back = Some(Mono::from_millis(now)),
        }
    }

    fn lose(&mut self, back: Option<Mono>) {
        let at = self.shared.clock.now().wall;
        self.shared.show(Wire::Cut { sn: Arc::clone(&self.sn), at });
        self.line = None;
        self.kept_back.clear();
        self.back = back;
    }
}

/// Sends a message, and then the acknowledgements that wait for it.
async fn send(
    outlet: Arc<dyn Outlet>,
    message: Publish,
    announces: bool,
    behind: Vec<Acknowledgement>,
    sn: &Arc<str>,
    shared: &Shared,
) -> (bool, Sent) {
    let is_shown = shared.on_wire.is_some();
    let shown = is_shown.then(|| (message.topic.clone(), message.payload.to_vec()));
    let began_at = shared.clock.now().wall;
    let sent = outlet.publish(message).await;
    behind.iter().for_each(Acknowledgement::send);
    if let Some((topic, payload)) = shown {
        let way = Way::Up { sent: sent.clone(), settled_at: shared.clock.now().wall };
        let sn = Arc::clone(sn);
        shared.show(Wire::Passed(Passed { sn, topic, payload, at: began_at, way }));
    }
    (announces, sent)
}

/// Whether the dock is now known to be there.
fn confirmed(sn: &str, announces: bool, sent: &Sent, announced: bool, shared: &Shared) -> bool {
    match sent {
        // An MQTT 5 broker says so when nobody listens; the dock is there all the same.
        Sent::Confirmed { .. } | Sent::NoSubscriber => {
            if announces && !announced {
                shared.ready.send_modify(|count| *count += 1);
            }
            announces
        }
        Sent::Refused(reason) => {
            tracing::warn!(gateway.sn = %sn, "the broker refused a message: {reason}");
            false
        }
        Sent::Withheld | Sent::NotConnected | Sent::Unknown => false,
    }
}

/// Writes down what is to be written down; gives back what is to be sent.
fn take(output: Output, sn: &Arc<str>, shared: &Shared) -> Option<(Publish, bool)> {
    match output {
        Output::Publish { topic, payload, qos, announces } => {
            return Some((Publish::new(topic, payload).with_qos(qos), announces));
        }
        Output::Received { received, receipt, outcome } => {
            shared.ledger().received(received, receipt, outcome);
            shared.changes.send_modify(|change| *change += 1);
        }
        Output::Ended { receipt, outcome } => {
            shared.ledger().ended(sn, receipt, outcome);
            shared.changes.send_modify(|change| *change += 1);
        }
        Output::Happened(happening) => {
            if let Some(observer) = &shared.on_event {
                // Who watches too slowly misses something; the docks do not wait.
                let _ = observer.try_send(happening);
            }
        }
    }
    None
}
