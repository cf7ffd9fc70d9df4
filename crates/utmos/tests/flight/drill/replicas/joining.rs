//! Who may be one of several servers, and who not.

use serde_json::json;
use tokio::time::Instant;
use utmos_core::{id::DeviceSn, replica::Shard};

use super::Several;
use crate::{drill::until, process::Process, truth};

impl Several {
    fn log(&self, number: usize) -> String {
        self.sites[number].process.as_ref().unwrap().log()
    }

    async fn says(&self, number: usize, what: &str) {
        until(what, async || self.log(number).contains(what)).await;
    }

    /// Waits until a server has given so many more signs of life.
    pub(super) async fn lives_on(&self, number: usize, beats: u64) {
        let run = self.sites[number].run();
        let sql = format!("SELECT beats FROM replicas WHERE name LIKE '{run}%'");
        let read = || self.database.sql(&sql).parse::<u64>().unwrap();
        let goal = read() + beats;
        until("it gives no signs of life", async || read() >= goal).await;
    }

    /// A command is carried out, whoever is asked.
    async fn works(&self, number: usize) -> String {
        let api = self.api(number);
        let sn = &self.config.docks[0].sn;
        let id = api.create(sn, "debug_mode_open", json!({}), json!({})).await.id();
        assert_eq!(api.ended(&id).await["status"], "SUCCEEDED");
        id
    }
}

/// The broker would throw out the one when the other comes, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_the_client_id_of_another_does_not_start_beside_it() {
    let mut several = Several::prepare(1).await;
    for site in &mut several.sites {
        site.settings.push("mqtt.external.client_id=copied".to_owned());
    }
    several.bring_up(0).await;
    let refused = Process::refuses(several.serve(1)).await;
    let first = several.sites[0].run();
    assert!(refused.contains(&format!("server {first}")), "{refused}");
    assert!(refused.contains("mqtt.external.client_id of its own"), "{refused}");
    several.lives_on(0, 2).await;
    // The next run of the one that has it is no other.
    several.kill(0).await;
    several.bring_up(0).await;
    several.shared_by(1).await;
    let fleet = several.fleet().await;
    several.works(0).await;
    several.stop(fleet).await;
}

/// With a broker of its own it shares nothing: what others accept would never reach its docks.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_broker_of_its_own_does_not_start_beside_others_that_live() {
    let mut several = Several::prepare(1).await;
    several.bring_up(0).await;
    let shared = several.sites[1].settings.clone();
    several.sites[1].settings.push("mqtt.mode=embedded".to_owned());
    let listen = format!("mqtt.embedded.listen={}:1883", several.sites[1].address);
    several.sites[1].settings.push(listen);
    let refused = Process::refuses(several.serve(1)).await;
    let first = several.sites[0].run();
    assert!(refused.contains(&format!("server {first}")), "{refused}");
    assert!(refused.contains("mqtt.mode = \"external\""), "{refused}");
    several.lives_on(0, 2).await;
    several.shared_by(1).await;

    // One that is dead is waited for.
    several.kill(0).await;
    several.bring_up(1).await;
    several.says(1, "waiting to see whether server").await;
    several.shared_by(1).await;
    let refused = Process::refuses(several.serve(0)).await;
    assert!(refused.contains(&format!("server {}", several.sites[1].run())), "{refused}");
    several.kill(1).await;
    several.sites[1].settings = shared;
    several.bring_up(1).await;
    several.bring_up(0).await;
    several.shared_by(2).await;
}

/// Until it hears what devices say others do its work, however long its start takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_starting_holds_nothing_and_commands_go_on() {
    let mut several = Several::prepare(6).await;
    several.bring_up(0).await;
    let fleet = several.fleet().await;
    several.works(0).await;
    // It reads this after it has joined. Others find it locked as well, and need it for no command.
    let lock = "BEGIN; LOCK TABLE sightings IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)";
    let mut locking = several.database.psql_in_the_background(lock);
    let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
        AND relation = 'sightings'::regclass";
    until("it is not locked", async || several.database.sql(locks) == "1").await;
    let starting = tokio::spawn(Process::start(several.serve(1)));
    let members = "SELECT count(*) FROM replicas";
    until("it does not join", async || several.database.sql(members) == "2").await;
    several.lives_on(0, 4).await;
    let mut held = several.shards_of(0).len();
    for dock in &several.config.docks {
        let more = json!({"timeout_seconds": 10, "if_offline": "wait"});
        let api = several.api(0);
        let id = api.create(&dock.sn, "debug_mode_open", json!({}), more).await.id();
        assert_eq!(api.ended(&id).await["status"], "SUCCEEDED");
        held = held.min(several.shards_of(0).len());
    }
    assert!(!starting.is_finished(), "it started too soon to show anything");
    assert_eq!(held, 64, "the other keeps them all");
    let unlock = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE query LIKE 'BEGIN; LOCK TABLE sightings%'";
    assert_eq!(several.database.sql(unlock), "1");
    locking.wait().unwrap();
    several.sites[1].process = Some(starting.await.unwrap());
    several.shared_by(2).await;
    fleet.shutdown().await;
}

/// It cannot keep what devices told, says so, and goes in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_database_stops_in_order() {
    let mut several = Several::prepare(12).await;
    several.bring_up(0).await;
    let fleet = several.fleet().await;
    several.works(0).await;
    several.sites[0].to_database.cut();
    let began = Instant::now();
    // With exit code 0.
    let told = several.sites[0].process.take().unwrap().stop().await;
    eprintln!("drill: a server without its database stopped after {:?}", began.elapsed());
    assert!(told.contains("the history takes no telemetry at this stop"), "{told}");
    assert!(!told.contains("stopped before the database was closed"), "{told}");
    fleet.shutdown().await;
}

/// A folder that was copied with its `instance.id`: of two runs of one server the later one counts.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_under_one_instance_id_one_works_and_the_other_says_why_not() {
    let mut several = Several::prepare(1).await;
    several.bring_up(0).await;
    several.bring_up(1).await;
    let fleet = several.fleet().await;
    several.shared_by(2).await;
    let of = |number: usize| several.place.path(&several.sites[number].name).join("instance.id");
    std::fs::create_dir_all(of(2).parent().unwrap()).unwrap();
    std::fs::copy(of(0), of(2)).unwrap();
    several.bring_up(2).await;
    several.says(0, "works under the same instance.id").await;
    several.shared_by(2).await;
    assert_eq!(several.shards_of(0), []);
    // Whom one asks matters not, and it is said once.
    several.works(0).await;
    several.works(2).await;
    several.lives_on(2, 4).await;
    assert_eq!(several.shards_of(0), []);
    assert_eq!(several.log(0).matches("works under the same instance.id").count(), 1);

    several.kill(2).await;
    until("it is none of them", async || !several.shards_of(0).is_empty()).await;
    several.works(0).await;
    fleet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_handed_on_and_cannot_be_read_is_told_of_once() {
    let mut several = Several::prepare(1).await;
    several.bring_up(0).await;
    let fleet = several.fleet().await;
    let id = several.works(0).await;
    let sn = DeviceSn::parse(&several.config.docks[0].sn).unwrap();
    let shard = Shard::of(&sn.to_gateway()).number();
    several.database.sql(&format!(
        "UPDATE commands SET payload = '\\x00' WHERE id = '{id}'; INSERT INTO handed VALUES ('{id}', {shard}, false)"
    ));
    let told = "a command cannot be looked after";
    several.says(0, told).await;
    several.lives_on(0, 4).await;
    // It holds up nobody.
    several.works(0).await;
    assert_eq!(several.log(0).matches(told).count(), 1, "{}", several.log(0));
    fleet.shutdown().await;
}

/// It is put on record by a server that is one of several, which looks after it; nobody else's would it be otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_of_the_journal_is_on_record_as_that_of_the_run_that_put_it_there() {
    let mut several = Several::prepare(1).await;
    several.bring_up(0).await;
    let fleet = several.fleet().await;
    several.works(0).await;
    several.sites[0].to_database.cut();
    let sn = several.config.docks[0].sn.clone();
    let stop = several.api(0).create(&sn, "fly_to_point_stop", json!({}), json!({})).await.id();
    truth::until(&fleet, |fleet| fleet.count(&stop) == 1).await;
    several.kill(0).await;
    several.sites[0].to_database.mend();
    several.bring_up(0).await;
    let run = several.sites[0].run();
    let by = several.database.sql(&format!(
        "SELECT r.name FROM commands c LEFT JOIN replicas r ON r.id = c.accepted_by WHERE c.id = '{stop}'"
    ));
    assert!(by.starts_with(&run), "accepted by {by:?}, not by {run}");
    truth::must_be_true(&several.api(0).ended(&stop).await, &fleet);
    assert_eq!(fleet.count(&stop), 1);
    fleet.shutdown().await;
}
