//! All 216 recorded messages through the reader and the answers.

use std::collections::BTreeMap;

use serde_json::{Value, json as value};
use utmos_core::{
    id::DeviceSn,
    reply::{JobState, Verdict},
    time::Timestamp,
};
use utmos_dji::{
    answer,
    catalogue::Catalogue,
    device_side::{self, Downlink},
    downlink::{self, Heading},
    topic::{DownlinkTopic, UplinkTopic},
    uplink::{self, Event, Uplink},
};

use crate::data::{CATALOGUE, Recorded, json, json_of, recordings};

const AT: Timestamp = Timestamp::from_millis(1_779_352_131_742);

fn read(catalogue: &Catalogue, message: &Recorded) -> Uplink {
    let topic = UplinkTopic::parse(&message.topic).unwrap();
    uplink::read(&topic, message.payload_text.as_bytes(), catalogue).expect(&message.payload_text)
}

fn uplinks(catalogue: &Catalogue) -> Vec<(Recorded, Uplink)> {
    let up = recordings().into_iter().filter(|message| message.direction == "up");
    up.map(|message| {
        let read = read(catalogue, &message);
        (message, read)
    })
    .collect()
}

fn events(catalogue: &Catalogue) -> Vec<Event> {
    let mut events = Vec::new();
    for (_, uplink) in uplinks(catalogue) {
        if let Uplink::Event(event) = uplink {
            events.push(event);
        }
    }
    events
}

#[test]
fn every_recorded_message_is_read_and_keeps_its_data() {
    let catalogue = &*CATALOGUE;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (message, uplink) in uplinks(catalogue) {
        let (kind, data) = match &uplink {
            Uplink::Reply(reply) => ("reply", &reply.reply.data),
            Uplink::PropertyReply(reply) => ("property reply", &reply.reply.data),
            Uplink::DrcAck(ack) => ("drc ack", &ack.reply.data),
            Uplink::DrcPush(push) => ("drc push", &push.data),
            Uplink::Event(event) => ("event", &event.data),
            Uplink::Request(request) => ("request", &request.data),
            Uplink::Topology(topology) => ("topology", &topology.data),
            Uplink::Osd(osd) => ("osd", &osd.data),
            Uplink::State(state) => ("state", &state.data),
        };
        *kinds.entry(kind).or_default() += 1;
        assert!(
            message.payload_text.contains(&**data),
            "data is not what was sent: {}",
            message.payload_text
        );
        assert_eq!(json(data), json(&message.payload_text)["data"]);
    }
    let want = [
        ("drc push", 109),
        ("event", 34),
        ("osd", 9),
        ("reply", 12),
        ("state", 27),
        ("topology", 1),
    ];
    assert_eq!(kinds, BTreeMap::from(want));
}

#[test]
fn what_asks_for_an_answer_gets_it_and_nothing_else_does() {
    let catalogue = &*CATALOGUE;
    let mut answered = 0;
    for (message, uplink) in uplinks(catalogue) {
        let payload = json(&message.payload_text);
        let asks = payload["need_reply"] == 1 || message.topic.ends_with("/status");
        let answer = answer::acknowledge(&uplink, AT);
        assert_eq!(answer.is_some(), asks, "{}", message.payload_text);
        let Some(answer) = answer else { continue };
        answered += 1;
        assert_eq!(answer.topic.to_string(), format!("{}_reply", message.topic));
        let mut want = value!({
            "tid": payload["tid"], "bid": payload["bid"], "timestamp": AT.as_millis(), "data": {"result": 0},
        });
        if !message.topic.ends_with("/state") {
            want["method"] = payload["method"].clone();
        }
        assert_eq!(json_of(&answer.payload), want);
    }
    assert_eq!(answered, 37);
}

#[test]
fn the_answers_are_the_ones_djis_own_cloud_gave() {
    let catalogue = &*CATALOGUE;
    let ours: Vec<_> = uplinks(catalogue)
        .iter()
        .filter_map(|(_, uplink)| answer::acknowledge(uplink, AT))
        .collect();
    let mut compared = 0;
    for message in recordings() {
        if message.direction == "up" || message.topic.ends_with("/services") {
            continue;
        }
        let topic = DownlinkTopic::parse(&message.topic).unwrap();
        let mut theirs = json(&message.payload_text);
        theirs["timestamp"] = Value::from(AT.as_millis());
        let same =
            ours.iter().any(|answer| answer.topic == topic && json_of(&answer.payload) == theirs);
        assert!(same, "{}", message.payload_text);
        let read = device_side::read(&topic, message.payload_text.as_bytes()).unwrap();
        assert!(matches!(read, Downlink::Answer { verdict: Verdict::Ok, .. }), "{read:?}");
        compared += 1;
    }
    assert_eq!(compared, 12);
}

#[test]
fn commands_are_written_as_recorded_and_their_replies_find_them() {
    let catalogue = &*CATALOGUE;
    let mut sent: BTreeMap<String, String> = BTreeMap::new();
    let mut replies = 0;
    for message in
        recordings().into_iter().filter(|message| message.group == "dock3-flight/services.jsonl")
    {
        if message.direction == "up" {
            let Uplink::Reply(read) = read(catalogue, &message) else {
                panic!("{}", message.payload_text)
            };
            let method = sent
                .get(read.exchange.tid.as_deref().unwrap())
                .expect("a reply to a command that was sent before");
            assert_eq!(read.reply.method.as_ref(), Some(method));
            let refused = method == "live_start_push";
            assert_eq!(read.reply.verdict, if refused { Verdict::Refused } else { Verdict::Ok });
            assert_eq!(read.reply.code.as_deref(), Some(if refused { "513003" } else { "0" }));
            assert_eq!(read.reply.message.is_some(), refused || catalogue.meaning(0).is_some());
            assert_eq!(read.reply.job, None);
            replies += 1;
            continue;
        }
        let topic = DownlinkTopic::parse(&message.topic).unwrap();
        let read = device_side::read(&topic, message.payload_text.as_bytes()).unwrap();
        let Downlink::Services { exchange, method: Some(method), data } = read else {
            panic!("{read:?}")
        };
        let at = json(&message.payload_text)["timestamp"].as_i64().unwrap();
        let (tid, bid) = (exchange.tid.unwrap(), exchange.bid.unwrap());
        let heading = Heading { tid: &tid, bid: &bid, at: Timestamp::from_millis(at) };
        let ours = downlink::services(heading, &method, &data, None);
        assert_eq!(json_of(&ours), json(&message.payload_text));
        assert!(std::str::from_utf8(&ours).unwrap().contains(&*data));
        sent.insert(tid, method);
    }
    assert_eq!((sent.len(), replies), (12, 12));
}

#[test]
fn a_flights_progress_reads_as_it_was_flown() {
    let catalogue = &*CATALOGUE;
    let progress: Vec<_> =
        events(catalogue).into_iter().filter_map(|event| event.progress).collect();
    let told: Vec<String> = progress
        .iter()
        .map(|told| {
            format!(
                "{} {} {:?} {:?} {:?} {:?} of {:?}",
                told.event_method,
                told.state_word,
                told.state,
                told.percent,
                told.step,
                told.code,
                told.job_ref
            )
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
    let ends: Vec<JobState> =
        progress.iter().map(|told| told.state).filter(|state| !state.is_open()).collect();
    assert_eq!(ends, [JobState::Succeeded, JobState::Failed, JobState::Failed, JobState::Failed]);
    assert!(progress.iter().all(|told| told.gateway.as_str().starts_with("SN_DOCK")));
}

#[test]
fn copies_of_an_event_share_their_tid_and_zeros_name_no_job() {
    let catalogue = &*CATALOGUE;
    let events = events(catalogue);
    let copies = events.iter().filter(|event| {
        event.exchange.tid.as_deref() == Some("2ae97470-76cb-45b2-a13d-70519f14c9a1")
    });
    assert_eq!(copies.filter(|event| event.need_reply && &*event.data == "[]").count(), 4);
    let of_remote: Vec<_> =
        events.iter().filter(|event| event.device.as_str() == "SN_AIR_A").collect();
    let told: Vec<_> = of_remote.iter().map(|event| event.method.as_deref()).collect();
    assert_eq!(told, [Some("status_code"), Some("hms")]);
    assert!(
        of_remote
            .iter()
            .all(|event| event.exchange.tid.is_some() && event.exchange.job().is_none())
    );
}

#[test]
fn what_comes_on_the_aircrafts_topic_names_its_gateway() {
    let catalogue = &*CATALOGUE;
    let mut claims: Vec<String> = uplinks(catalogue)
        .iter()
        .filter_map(|(_, uplink)| uplink.claimed_gateway())
        .map(|(device, gateway)| format!("{device} behind {gateway}"))
        .collect();
    claims.sort();
    claims.dedup();
    assert_eq!(
        claims,
        [
            "1681F58KDDD5H40B4XZ6 behind 4XLBK4S5526267",
            "SN_AIR_A behind SN_RC_A",
            "SN_AIR_D behind SN_RC_D",
            "SN_DRONE_FIXTURE behind SN_DOCK_FIXTURE",
        ]
    );
}

#[test]
fn a_remote_controllers_topology_is_read() {
    let catalogue = &*CATALOGUE;
    let recorded = recordings().into_iter().find(|message| message.topic.ends_with("/status"));
    let Uplink::Topology(topology) = read(catalogue, &recorded.unwrap()) else { panic!() };
    assert_eq!(topology.model.key().as_deref(), Some("2-144-0"));
    let subs = topology.sub_devices.unwrap();
    let [aircraft] = subs.as_slice() else { panic!("{subs:?}") };
    assert_eq!(
        (aircraft.sn.as_str(), aircraft.model.key().as_deref()),
        ("SN_AIR_A", Some("0-77-2"))
    );
    assert_eq!(
        (aircraft.index.as_deref(), aircraft.model.thing_version.as_deref()),
        (Some("A"), Some("1"))
    );
    assert_eq!(topology.unusable, 0);
}

#[test]
fn a_mode_is_known_only_from_messages_that_tell_it() {
    let catalogue = &*CATALOGUE;
    let mut known = Vec::new();
    for (message, uplink) in uplinks(catalogue) {
        let Uplink::Osd(osd) = uplink else { continue };
        let in_data = json(&message.payload_text)["data"]["mode_code"].as_i64();
        assert_eq!(osd.mode_code, in_data, "{}", message.payload_text);
        known.push(osd.mode_code.is_some());
    }
    assert_eq!(known.iter().filter(|known| **known).count(), 5);
    assert!(DeviceSn::parse("SN_AIR_A").is_ok());
}
