//! What several servers stand behind, and that what holds behind Mosquitto with MQTT 5 holds behind brokers that speak MQTT 3.1.1
//! only as well: there a command has no expiry, and behind NATS nobody confirms it.

use std::net::SocketAddr;

use utmos_core::{id::DeviceSn, replica::Shard};
use utmos_mqtt::ProtocolChoice;
use utmos_sim::FleetConfig;

use super::{
    DOCKS, FORGETS, SERVERS, Several, cut_off::silent_broker, killed_in_turn, room, until,
};
use crate::{
    mosquitto::{self, Mosquitto},
    nats::{self, Nats},
    outside::{self, Behind, with_ghost},
    place::Place,
    postgres_server::PostgresServer,
    rabbitmq::{self, RabbitMq},
};

/// More docks, so that every server has some.
const MANY: u32 = 48;

/// A broker of the drill's own.
pub(super) enum Broker {
    Mosquitto(Mosquitto, ProtocolChoice),
    RabbitMq(Box<RabbitMq>),
    Nats(Nats),
}

/// Which of them.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Mosquitto311,
    RabbitMq,
    Nats,
}

impl Broker {
    /// Starts it for these docks, as docs/outside-broker.md says, and tells a place's servers.
    async fn start(kind: Kind, place: &mut Place, config: &FleetConfig) -> Self {
        match kind {
            Kind::Mosquitto311 => {
                let broker = Mosquitto::start_with(FORGETS).await;
                mosquitto::behind(place, &broker, "3.1.1");
                Self::Mosquitto(broker, ProtocolChoice::V311)
            }
            Kind::RabbitMq => {
                let mut users = rabbitmq::users_of(config);
                users.push(rabbitmq::ghost());
                let broker = RabbitMq::start(&users).await;
                outside::behind(place, &broker, &[("username", "utmos")], "of-server");
                Self::RabbitMq(Box::new(broker))
            }
            Kind::Nats => {
                let mut users = nats::users_of(config);
                users.push(nats::ghost());
                let broker = Nats::start(&users.join("\n"), "").await;
                let more = [("username", "utmos"), ("command_qos", "0")];
                outside::behind(place, &broker, &more, "of-server");
                Self::Nats(broker)
            }
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Mosquitto(broker, _) => broker.address(),
            Self::RabbitMq(broker) => broker.address(),
            Self::Nats(broker) => broker.address(),
        }
    }

    /// What docks speak with it.
    pub(super) fn protocol(&self) -> ProtocolChoice {
        match self {
            Self::Mosquitto(_, protocol) => *protocol,
            Self::RabbitMq(_) | Self::Nats(_) => ProtocolChoice::V311,
        }
    }

    /// `kill -9`, and a new one in its place.
    pub(super) async fn die_and_come_back(&mut self) {
        match self {
            Self::Mosquitto(broker, _) => broker.die_and_come_back().await,
            Self::RabbitMq(broker) => broker.die_and_come_back().await,
            Self::Nats(broker) => broker.die_and_come_back().await,
        }
    }
}

impl Several {
    async fn behind(kind: Kind, docks: u32) -> Self {
        let room = room(docks).await;
        let (mut place, config) = Place::with_fleet(docks).await;
        with_ghost(&place).await;
        let broker = Broker::start(kind, &mut place, &config).await;
        let mut several =
            Self::prepare_on(room, place, config, broker, PostgresServer::own()).await;
        several.bring_all_up().await;
        several
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: one broker more"]
async fn behind_mosquitto_with_mqtt_3_1_1_each_of_three_servers_is_killed_in_turn() {
    let several = Several::behind(Kind::Mosquitto311, DOCKS).await;
    killed_in_turn(several, "three servers killed in turn, MQTT 3.1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_rabbitmq_each_of_three_servers_is_killed_in_turn() {
    let several = Several::behind(Kind::RabbitMq, DOCKS).await;
    killed_in_turn(several, "three servers killed in turn behind RabbitMQ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nats_each_of_three_servers_is_killed_in_turn() {
    let several = Several::behind(Kind::Nats, DOCKS).await;
    killed_in_turn(several, "three servers killed in turn behind NATS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_rabbitmq_a_server_whose_broker_falls_silent_is_replaced() {
    silent_broker(Several::behind(Kind::RabbitMq, MANY).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nats_a_server_whose_broker_falls_silent_is_replaced() {
    silent_broker(Several::behind(Kind::Nats, MANY).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_rabbitmq_what_a_dead_server_sent_to_an_absent_dock_never_arrives() {
    kept_by_nobody(Several::behind(Kind::RabbitMq, 2).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nats_what_a_dead_server_sent_to_an_absent_dock_never_arrives() {
    kept_by_nobody(Several::behind(Kind::Nats, 2).await).await;
}

/// A dock asks its broker to keep what comes while it is away. One server sends it a command and dies, another one has to tell how
/// that ended, and the dock comes back.
async fn kept_by_nobody(mut several: Several) {
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let shard = Shard::of(&DeviceSn::parse("GHOST").unwrap().to_gateway());
    let holder = (0..SERVERS).find(|number| several.shards_of(*number).contains(&shard)).unwrap();
    let (api, address) = (several.api((holder + 1) % SERVERS), several.broker.address());
    let ended = outside::nothing_comes_late(&api, address, async |id: &str| {
        until("it is not sent", async || {
            api.timeline(id).await.to_string().contains("sending_claimed")
        })
        .await;
        several.kill(holder).await;
    })
    .await;
    eprintln!(
        "drill: what a dead server sent to an absent dock ended as {}",
        ended["failure_code"]
    );
    several.bring_up(holder).await;
    several.shared_by(SERVERS).await;
    several.stop(fleet).await;
}
