//! Noise, mutilated messages and extremes: the reader gives an answer or a reason, and what is written always reads.

use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, value::RawValue};
use utmos_core::{id::GatewaySn, reply::RawJson, time::Timestamp};
use utmos_dji::{
    answer::{self, Facts, Question},
    catalogue::Catalogue,
    device_side::{self, Downlink},
    downlink::{self, Heading, SeqPlace},
    envelope::{EVIDENCE_BYTES_MAX, PAYLOAD_BYTES_MAX, evidence},
    topic::{DownlinkTopic, UplinkTopic, access},
    uplink::{self, NoMeanings, Uplink},
};

use crate::data::{CATALOGUE, examples, json_of, recordings};

const AT: Timestamp = Timestamp::from_millis(1_654_070_968_655);
const AS_DOCK: device_side::Described = device_side::Described::Dock { thing_version: "1.1.2" };

const UPLINKS: [&str; 9] = [
    "thing/product/SN1/osd",
    "thing/product/SN1/state",
    "thing/product/SN1/services_reply",
    "thing/product/SN1/events",
    "thing/product/SN1/requests",
    "thing/product/SN1/status",
    "sys/product/SN1/status",
    "thing/product/SN1/property/set_reply",
    "thing/product/SN1/drc/up",
];

fn data(uplink: &Uplink) -> &RawJson {
    match uplink {
        Uplink::Reply(reply) | Uplink::PropertyReply(reply) => &reply.reply.data,
        Uplink::DrcAck(ack) => &ack.reply.data,
        Uplink::DrcPush(push) => &push.data,
        Uplink::Event(event) => &event.data,
        Uplink::Request(request) => &request.data,
        Uplink::Topology(topology) => &topology.data,
        Uplink::Osd(osd) => &osd.data,
        Uplink::State(state) => &state.data,
    }
}

/// Reads a payload on every topic and checks what must hold of anything that reads.
fn probe(catalogue: &Catalogue, payload: &[u8]) {
    assert!(evidence(payload).len() <= 3 * EVIDENCE_BYTES_MAX + 3);
    for topic in UPLINKS {
        let topic = UplinkTopic::parse(topic).unwrap();
        let Ok(read) = uplink::read(&topic, payload, catalogue) else { continue };
        assert!(
            serde_json::from_str::<&RawValue>(data(&read)).is_ok(),
            "data is not JSON: {}",
            data(&read)
        );
        let mut answers: Vec<_> = answer::acknowledge(&read, AT).into_iter().collect();
        if let Uplink::Request(request) = &read
            && let Ok(answer) = answer::automatic(&Question::of(request), &Facts::default())
        {
            answers.push(answer::request_reply(request, &answer.data, AT));
        }
        for answer in answers {
            let payload = json_of(&answer.payload);
            assert!(payload.is_object());
            let read = device_side::read(&answer.topic, &answer.payload).unwrap();
            assert!(matches!(read, Downlink::Answer { .. }));
        }
    }
}

static CORPUS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let recorded = recordings().into_iter().map(|message| message.payload_text);
    // The 109 pushes of one kind are alike.
    recorded.take(120).chain(examples().into_iter().map(|example| example.payload_text)).collect()
});

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        proptest::sample::select(vec![
            "result", "code", "output", "status", "seq", "sn", "devices", "progress", "info"
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key.clone(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(payload in vec(any::<u8>(), 0..200)) {
        probe(&CATALOGUE, &payload);
    }

    #[test]
    fn mutilated_messages_are_read_or_refused(
        which in any::<Index>(),
        cut in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 0..6),
        shorten in any::<bool>(),
    ) {
        let mut payload = which.get(&CORPUS).clone().into_bytes();
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if shorten {
            payload.truncate(cut.index(payload.len()));
        }
        probe(&CATALOGUE, &payload);
    }

    #[test]
    fn any_json_in_any_field_is_read_or_refused(
        fields in vec((
            proptest::sample::select(vec!["tid", "bid", "timestamp", "method", "gateway", "need_reply", "seq", "data"]),
            any_json(),
        ), 0..9),
    ) {
        // Written by hand, so that keys may repeat.
        let fields: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        probe(&CATALOGUE, format!("{{{}}}", fields.join(",")).as_bytes());
    }

    #[test]
    fn any_topic_is_read_or_refused(topic in ".{0,80}", tail in "[a-z/+#$_]{0,20}") {
        let own = GatewaySn::parse("SN1").unwrap();
        for topic in [topic.clone(), format!("thing/product/SN1{tail}"), format!("thing/product/SN1/{tail}"), tail] {
            let up = UplinkTopic::parse(&topic);
            if let Ok(up) = &up {
                prop_assert_eq!(up.to_string(), topic.as_str());
            }
            if let Ok(down) = DownlinkTopic::parse(&topic) {
                prop_assert_eq!(down.to_string(), topic.as_str());
                prop_assert!(up.is_err());
            }
            let below = ["thing/product/SN1/", "sys/product/SN1/"].iter().any(|own| topic.starts_with(own));
            prop_assert!(below || !access::may_publish(&own, &[], &topic));
            prop_assert!(below || !access::may_subscribe(&own, &[], &topic));
        }
    }

    #[test]
    fn a_command_leaves_as_it_was_given(
        tid in ".{0,40}", bid in ".{0,40}", method in ".{1,30}", at in any::<i64>(), data in any_json(),
    ) {
        let text = data.to_string();
        let heading = Heading { tid: &tid, bid: &bid, at: Timestamp::from_millis(at) };
        let sn = GatewaySn::parse("SN1").unwrap();
        let sent = json_of(&downlink::services(heading, &method, &text, Some(&sn)));
        let want = serde_json::json!({
            "tid": tid, "bid": bid, "timestamp": at, "gateway": "SN1", "method": method, "data": data,
        });
        prop_assert_eq!(sent, want);
        let sent = json_of(&downlink::property_set(heading, &text));
        prop_assert_eq!(sent, serde_json::json!({ "tid": tid, "bid": bid, "timestamp": at, "data": data }));
    }

    #[test]
    fn a_running_number_arrives_once(method in ".{1,30}", number in any::<u64>(), data in any_json()) {
        let text = data.to_string();
        let mut without = data.clone();
        let had_number = downlink::given_seq(&text).is_some();
        if let Some(object) = without.as_object_mut() {
            object.remove("seq");
        }
        let inside = json_of(&downlink::drc_down(&method, &text, SeqPlace::InsideData(number)));
        let mut want = if without.is_object() { without.clone() } else { serde_json::json!({}) };
        want["seq"] = Value::from(number);
        prop_assert_eq!(inside, serde_json::json!({ "method": method, "data": want }));
        let beside = json_of(&downlink::drc_down(&method, &text, SeqPlace::BesideData(number)));
        let want = if had_number { &without } else { &data };
        prop_assert_eq!(beside, serde_json::json!({ "method": method, "data": want, "seq": number }));
        let given = json_of(&downlink::drc_down(&method, &text, SeqPlace::AsGiven));
        prop_assert_eq!(given, serde_json::json!({ "method": method, "data": data }));
    }
}

#[test]
fn what_a_device_writes_the_server_reads() {
    let catalogue = &*CATALOGUE;
    let gateway = GatewaySn::parse("SN1").unwrap();
    let aircraft = utmos_core::id::DeviceSn::parse("AIR1").unwrap();
    let gone_aircraft = aircraft.clone();
    let heading = Heading { tid: "t", bid: "b", at: AT };
    let read = |topic: &str, payload: Vec<u8>| {
        uplink::read(&UplinkTopic::parse(topic).unwrap(), &payload, catalogue).unwrap()
    };
    let dock = device_side::Kind { domain: 3, device_type: 2, sub_type: 0 };
    let drone = device_side::Kind { domain: 0, device_type: 91, sub_type: 0 };
    let topology = read(
        "sys/product/SN1/status",
        device_side::update_topo(heading, AS_DOCK, dock, Some((&aircraft, drone))),
    );
    let Uplink::Topology(topology) = topology else { panic!("{topology:?}") };
    assert_eq!(topology.model.key().as_deref(), Some("3-2-0"));
    assert_eq!(
        topology.sub_devices.map(|subs| (subs.len(), subs[0].sn.clone())),
        Some((1, aircraft))
    );
    let gone =
        read("sys/product/SN1/status", device_side::update_topo(heading, AS_DOCK, dock, None));
    assert!(matches!(gone, Uplink::Topology(topology) if topology.sub_devices == Some(Vec::new())));

    let pilot = device_side::Kind { domain: 2, device_type: 144, sub_type: 0 };
    let form = device_side::Described::RemoteController { version: 1 };
    let drone = device_side::Kind { domain: 0, device_type: 77, sub_type: 0 };
    let topology = read(
        "thing/product/SN1/status",
        device_side::update_topo(heading, form, pilot, Some((&gone_aircraft, drone))),
    );
    let Uplink::Topology(topology) = topology else { panic!("{topology:?}") };
    assert_eq!(topology.model.key().as_deref(), Some("2-144-0"));
    assert_eq!(topology.model.thing_version.as_deref(), Some("1"));
    let subs = topology.sub_devices.unwrap();
    assert_eq!(subs[0].model.key().as_deref(), Some("0-77-0"));
    let alarm = read(
        "thing/product/AIR1/events",
        device_side::event_within(heading, &gateway, "hms", "{\"codes\":[]}"),
    );
    let Uplink::Event(alarm) = alarm else { panic!("{alarm:?}") };
    assert_eq!((alarm.method.as_deref(), alarm.gateway.as_ref()), (Some("hms"), Some(&gateway)));

    let payload = downlink::services(heading, "cover_open", "{}", None);
    let command =
        device_side::read(&DownlinkTopic::Services { gateway: gateway.clone() }, &payload).unwrap();
    let Downlink::Services { exchange, method: Some(method), .. } = command else {
        panic!("{command:?}")
    };
    let payload = device_side::services_reply(
        &exchange,
        &method,
        r#"{"result":0,"output":{"status":"sent"}}"#,
        AT,
    );
    let reply = read("thing/product/SN1/services_reply", payload);
    let Uplink::Reply(reply) = reply else { panic!("{reply:?}") };
    assert_eq!(
        (reply.exchange.tid.as_deref(), reply.reply.method.as_deref()),
        (Some("t"), Some("cover_open"))
    );
    assert_eq!(reply.reply.job.map(utmos_core::reply::JobState::is_open), Some(true));

    let set = device_side::read(
        &DownlinkTopic::PropertySet { gateway: gateway.clone() },
        &downlink::property_set(heading, r#"{"silent_mode":1}"#),
    );
    assert!(matches!(set, Ok(Downlink::PropertySet { .. })));
    let payload = device_side::property_set_reply(&exchange, r#"{"silent_mode":{"result":0}}"#, AT);
    assert!(matches!(
        read("thing/product/SN1/property/set_reply", payload),
        Uplink::PropertyReply(_)
    ));

    let stop = downlink::drc_down("drone_emergency_stop", "{}", SeqPlace::BesideData(7));
    let stop =
        device_side::read(&DownlinkTopic::DrcDown { gateway: gateway.clone() }, &stop).unwrap();
    assert!(matches!(stop, Downlink::Drc { seq: Some(7), .. }));
    let ack = read(
        "thing/product/SN1/drc/up",
        device_side::drc_up("drone_emergency_stop", r#"{"result":0}"#, Some(7)),
    );
    assert!(matches!(ack, Uplink::DrcAck(ack) if ack.seq == Some(7)));

    let event = device_side::event(heading, &gateway, "hms", Some(true), r#"{"list":[]}"#);
    let event = read("thing/product/SN1/events", event);
    assert!(
        matches!(&event, Uplink::Event(event) if event.need_reply && event.method.as_deref() == Some("hms"))
    );
    let request =
        read("thing/product/SN1/requests", device_side::request(heading, &gateway, "config", "{}"));
    assert!(
        matches!(request, Uplink::Request(request) if Question::of(&request) == Question::Config { simulated: false })
    );
    let osd =
        read("thing/product/AIR1/osd", device_side::osd(heading, &gateway, r#"{"mode_code":"4"}"#));
    assert!(
        matches!(&osd, Uplink::Osd(osd) if osd.mode_code == Some(4))
            && osd.claimed_gateway().is_some()
    );
    let state = read("thing/product/AIR1/state", device_side::state(heading, &gateway, true, "{}"));
    assert!(answer::acknowledge(&state, AT).is_some());
}

/// A reader whose work grows with the square of the size would not come to an end here.
#[test]
fn the_largest_and_deepest_payloads_are_settled() {
    let room = PAYLOAD_BYTES_MAX - 64;
    let filled = |open: &str, item: &str, close: &str| {
        let items = vec![item; room / (item.len() + 1)].join(",");
        format!(
            r#"{{"tid":"t","method":"fly_to_point_progress","need_reply":1,"data":{open}{items}{close}}}"#
        )
    };
    let catalogue = &*CATALOGUE;
    for payload in [
        filled("[", "0", "]"),
        filled("[", "{}", "]"),
        filled("{", r#""a":{"b":{}}"#, "}"),
        filled("{", r#""result":0"#, "}"),
        filled(r#"{"sub_devices":["#, r#"{"sn":"A"}"#, "]}"),
        filled("\"", "\\u0041", "\""),
        format!(r#"{{"data":"{}"}}"#, "x".repeat(room)),
        format!(r#"{{"data":{}1}}"#, "1".repeat(room)),
        "[".repeat(PAYLOAD_BYTES_MAX),
        "{\"a\":".repeat(PAYLOAD_BYTES_MAX / 5),
        "\"".repeat(PAYLOAD_BYTES_MAX),
    ] {
        probe(catalogue, payload.as_bytes());
    }
}

#[test]
fn what_cannot_be_read_leaves_evidence() {
    let topic = UplinkTopic::parse("thing/product/SN1/services_reply").unwrap();
    for (payload, reason) in [
        (
            &b"{\"tid\":"[..],
            "the payload is not JSON: EOF while parsing a value at line 1 column 7",
        ),
        (b"\xff\xfe", "the payload is not JSON: expected value at line 1 column 1"),
        (b"[1]", "the payload is JSON but not an object"),
        (b"", "the payload is empty"),
    ] {
        let read = uplink::read(&topic, payload, &NoMeanings);
        assert_eq!(read.map_err(|err| err.to_string()), Err(reason.to_owned()));
    }
    assert_eq!(evidence(b"{\"tid\":"), "{\"tid\":");
}
