//! Every example in DJI's documents of what a device sends, and of what a cloud answers.

use serde_json::{Value, json as value};
use utmos_core::{id::DeviceSn, reply::Reply, time::Timestamp};
use utmos_dji::{
    answer::{
        self, AreaFile, Binding, BindingOutcome, CloudConfig, Facts, Organization, Question,
        ResourceFile, Storage,
    },
    catalogue::{Catalogue, GatewayModel},
    topic::{DownlinkTopic, StatusRoot, UplinkTopic},
    uplink::{self, ForGateway, Uplink},
};

use crate::data::{CATALOGUE, Example, examples, json, json_of};

const AT: Timestamp = Timestamp::from_millis(1_654_070_968_655);

fn topic(channel: &str, sn: &str) -> String {
    match channel {
        "status" | "status_reply" => format!("sys/product/{sn}/{channel}"),
        "property_set_reply" => format!("thing/product/{sn}/property/set_reply"),
        "drc_up" => format!("thing/product/{sn}/drc/up"),
        other => format!("thing/product/{sn}/{other}"),
    }
}

/// Most examples leave the method out, which real devices do not; it stands in the name of the file.
fn payload(example: &Example) -> Vec<u8> {
    let mut payload = json(&example.payload_text);
    let has_method = ["events", "services_reply", "requests"].contains(&example.channel.as_str());
    if has_method && payload.get("method").is_none() {
        payload["method"] = Value::from(example.method.as_deref());
    }
    payload.to_string().into_bytes()
}

fn read(catalogue: &Catalogue, channel: &str, payload: &[u8]) -> Uplink {
    let topic = UplinkTopic::parse(&topic(channel, "SN1")).unwrap();
    let model = Some(GatewayModel::Dock);
    uplink::read(&topic, payload, &ForGateway { catalogue, model }).unwrap()
}

fn told(reply: &Reply) -> String {
    let Reply { method, verdict, code, job, .. } = reply;
    format!("{} {verdict:?} code {code:?} job {job:?}", method.as_deref().unwrap_or("-"))
}

fn summary(uplink: &Uplink) -> String {
    match uplink {
        Uplink::Reply(reply) => format!("reply {}", told(&reply.reply)),
        Uplink::PropertyReply(reply) => format!("property reply {}", told(&reply.reply)),
        Uplink::DrcAck(ack) => format!("drc ack seq {:?} {}", ack.seq, told(&ack.reply)),
        Uplink::DrcPush(push) => format!("drc push seq {:?} {:?}", push.seq, push.method),
        Uplink::Event(event) => {
            let job = event.progress.as_ref().map(|told| {
                format!(
                    " of {:?}: {:?} {:?} {:?} {:?} {:?} job {:?}",
                    told.command_methods,
                    told.state_word,
                    told.state,
                    told.percent,
                    told.step,
                    told.code,
                    told.job_ref
                )
            });
            let need = if event.need_reply { " wants an answer" } else { "" };
            format!(
                "event {}{need}{}",
                event.method.as_deref().unwrap_or("-"),
                job.unwrap_or_default()
            )
        }
        Uplink::Request(request) => format!("request {:?}", Question::of(request)),
        Uplink::Topology(topology) => {
            let subs = topology.sub_devices.as_ref().map(|subs| {
                let subs =
                    subs.iter().map(|sub| (sub.sn.as_str(), sub.model.key(), sub.index.as_deref()));
                subs.collect::<Vec<_>>()
            });
            format!("topology {:?} {subs:?}", topology.model.key())
        }
        Uplink::Osd(osd) => format!("osd mode_code {:?}", osd.mode_code),
        Uplink::State(state) => format!("state wants an answer {}", state.need_reply),
    }
}

#[test]
fn every_example_of_a_device_reads_as_it_is_meant() {
    let catalogue = &*CATALOGUE;
    let mut lines = Vec::new();
    for example in examples() {
        if UplinkTopic::parse(&topic(&example.channel, "SN1")).is_ok() {
            let read = read(catalogue, &example.channel, &payload(&example));
            lines.push(format!("{}: {}", example.file.trim_end_matches(".json"), summary(&read)));
        }
    }
    assert!(lines.len() > 150, "{}", lines.len());
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn an_example_without_a_method_is_read_as_printed() {
    let catalogue = &*CATALOGUE;
    for example in examples() {
        if UplinkTopic::parse(&topic(&example.channel, "SN1")).is_ok() {
            let read = read(catalogue, &example.channel, example.payload_text.as_bytes());
            let wants =
                json(&example.payload_text)["need_reply"] == 1 && example.channel == "events";
            let answer = answer::acknowledge(&read, AT);
            assert_eq!(answer.is_some(), wants || example.channel == "status", "{}", example.file);
        }
    }
}

/// The documented answer to `method`: its `data`, and whatever else is in the message.
fn documented(channel: &str, method: &str) -> Value {
    let found = examples()
        .into_iter()
        .find(|example| example.channel == channel && example.method.as_deref() == Some(method));
    json(&found.expect(method).payload_text)
}

/// Our answer to the documented request.
fn answered(method: &str, facts: &Facts) -> (DownlinkTopic, Value) {
    let catalogue = &*CATALOGUE;
    let example = examples()
        .into_iter()
        .find(|example| example.channel == "requests" && example.method.as_deref() == Some(method));
    let read = read(catalogue, "requests", &payload(&example.unwrap()));
    let Uplink::Request(request) = read else { panic!("{read:?}") };
    let answer = answer::automatic(&Question::of(&request), facts).unwrap();
    let outgoing = answer::request_reply(&request, &answer.data, AT);
    let payload = json_of(&outgoing.payload);
    let asked = json(&payload_text(method));
    assert_eq!((&payload["tid"], &payload["bid"]), (&asked["tid"], &asked["bid"]));
    assert_eq!(
        (&payload["method"], &payload["timestamp"]),
        (&value!(method), &value!(AT.as_millis()))
    );
    (outgoing.topic, payload["data"].clone())
}

fn payload_text(method: &str) -> String {
    let example = examples()
        .into_iter()
        .find(|example| example.channel == "requests" && example.method.as_deref() == Some(method));
    example.unwrap().payload_text
}

fn sn(text: &str) -> DeviceSn {
    DeviceSn::parse(text).unwrap()
}

#[test]
fn what_a_dock_needs_to_come_up_is_answered_in_the_documented_shape() {
    let organization = Organization { id: "12345678".into(), name: "organization_name".into() };
    let url = "https://xx.oss-cn-hangzhou.aliyuncs.com/xx.kmz?Expires=xx&OSSAccessKeyId=xxx&Signature=xxx";
    let facts = Facts {
        config: Some(CloudConfig {
            ntp_server_host: "host_url".into(),
            ntp_server_port: 456,
            app_id: "123456".into(),
            app_key: "app_key".into(),
            app_license: "app_license".into(),
        }),
        organization: Some(organization.clone()),
        outcomes: [(sn("dock-sn"), BindingOutcome::AlreadyBound), (sn("drone-sn"), BindingOutcome::AlreadyBound)].into(),
        flight_areas: vec![AreaFile {
            name: "geofence_xxx.json".into(),
            url: "https://xx.oss-cn-hangzhou.aliyuncs.com/xx.json?Expires=xx&OSSAccessKeyId=xxx&Signature=xxx".into(),
            checksum: "sha256".into(),
            size: 500,
        }],
        storage: Some(Storage {
            bucket: "bucket_name".into(),
            endpoint: "https://oss-cn-hangzhou.aliyuncs.com".into(),
            provider: "ali".into(),
            region: "hz".into(),
            object_key_prefix: "b4cfaae6-bd9d-4cd0-8472-63b608c3c581".into(),
            access_key_id: "access_key_id".into(),
            access_key_secret: "access_key_secret".into(),
            security_token: "security_token".into(),
            expire_seconds: 3600,
        }),
        resource: Some(ResourceFile { url: url.into(), fingerprint: "signxxxx".into() }),
        ..Facts::default()
    };
    for method in [
        "config",
        "airport_organization_get",
        "airport_organization_bind",
        "flight_areas_get",
        "storage_config_get",
        "flighttask_resource_get",
    ] {
        let mut want = documented("requests_reply", method)["data"].clone();
        if method == "config" {
            // A number in the example, text in its table and in DJI's cloud code.
            want["app_id"] = value!("123456");
        }
        let (topic, data) = answered(method, &facts);
        assert_eq!(topic.to_string(), "thing/product/SN1/requests_reply");
        assert_eq!(data, want, "{method}");
    }
}

#[test]
fn a_binding_is_told_for_each_device_as_it_was_asked_about() {
    let organization = Organization { id: "12345678".into(), name: "12345".into() };
    let binding = Binding { organization, callsign: "Device organization callsign".into() };
    let facts = Facts { bindings: [(sn("dock-sn"), binding)].into(), ..Facts::default() };
    let (_, data) = answered("airport_bind_status", &facts);
    let mut bound =
        documented("requests_reply", "airport_bind_status")["data"]["output"]["bind_status"][0]
            .clone();
    bound["sn"] = value!("dock-sn");
    let unbound = value!({
        "sn": "drone-sn", "is_device_bind_organization": false,
        "organization_id": "", "organization_name": "", "device_callsign": "",
    });
    assert_eq!(data, value!({"result": 0, "output": {"bind_status": [unbound, bound]}}));
}

#[test]
fn every_device_to_be_bound_is_told_what_became_of_it() {
    let outcomes =
        [(sn("dock-sn"), BindingOutcome::Bound), (sn("drone-sn"), BindingOutcome::AlreadyBound)];
    let (_, data) = answered(
        "airport_organization_bind",
        &Facts { outcomes: outcomes.into(), ..Facts::default() },
    );
    let infos = value!([{"sn": "dock-sn", "err_code": 0}, {"sn": "drone-sn", "err_code": 210_231}]);
    assert_eq!(data, value!({"result": 0, "output": {"err_infos": infos}}));
}

#[test]
fn with_nothing_known_a_dock_is_told_no_rather_than_nothing() {
    let facts = Facts::default();
    for (method, want) in [
        (
            "airport_organization_get",
            value!({"result": 210_229, "output": "no organisation has this id and binding code"}),
        ),
        (
            "airport_organization_bind",
            value!({"result": 0, "output": {"err_infos": [
                {"sn": "dock-sn", "err_code": 210_229}, {"sn": "drone-sn", "err_code": 210_229},
            ]}}),
        ),
        ("flight_areas_get", value!({"result": 0, "output": {"files": []}})),
        ("storage_config_get", value!({"result": 1, "output": "no object storage is configured"})),
        (
            "flighttask_resource_get",
            value!({"result": 1, "output": "no file is known for this flight_id"}),
        ),
    ] {
        assert_eq!(answered(method, &facts).1, want, "{method}");
    }
}

#[test]
fn what_cannot_be_answered_by_itself_says_why() {
    use answer::Unanswered::{NoMethod, NotAutomatic, NotConfigured, NotKnown, Unreadable};
    let catalogue = &*CATALOGUE;
    let full = value!({"result": 0, "output": {"offline_map_enable": false, "files": []}});
    for (payload, want) in [
        (r#"{"tid":"t","method":"offline_map_get","data":null}"#, Ok(full)),
        (r#"{"tid":"t","method":"config","data":{}}"#, Err(NotConfigured)),
        (r#"{"tid":"t","method":"flighttask_progress_get","data":{}}"#, Err(Unreadable)),
        (
            r#"{"tid":"t","method":"flighttask_progress_get","data":{"target_sn":"B","flight_id":"f"}}"#,
            Err(NotKnown),
        ),
        (r#"{"tid":"t","method":"something_new"}"#, Err(NotAutomatic)),
        (r#"{"tid":"t","data":{"devices":[{"sn":"a"}]}}"#, Err(NoMethod)),
        (r#"{"tid":"t","method":"airport_bind_status","data":{"devices":[]}}"#, Err(Unreadable)),
        (r#"{"tid":"t","method":"airport_bind_status","data":{"devices":"all"}}"#, Err(Unreadable)),
        (
            r#"{"tid":"t","method":"airport_organization_bind","data":{"bind_devices":[{"sn":"a/b"}]}}"#,
            Err(Unreadable),
        ),
        (r#"{"tid":"t","method":"flighttask_resource_get","data":{}}"#, Err(Unreadable)),
    ] {
        let read = read(catalogue, "requests", payload.as_bytes());
        assert_eq!(answer::acknowledge(&read, AT), None, "{payload}");
        let Uplink::Request(request) = read else { panic!("{read:?}") };
        let answer = answer::automatic(&Question::of(&request), &Facts::default());
        assert_eq!(answer.map(|answer| json(&answer.data)), want, "{payload}");
    }
}

#[test]
fn acknowledgements_are_the_documented_ones() {
    let catalogue = &*CATALOGUE;
    for (channel, reply_channel) in [("status", "status_reply"), ("events", "events_reply")] {
        for documented in examples().iter().filter(|example| example.channel == reply_channel) {
            let method = documented.method.as_deref().unwrap();
            let asked = value!({
                "tid": "t", "bid": "b", "timestamp": 1, "need_reply": 1, "method": method, "gateway": "SN1", "data": {},
            });
            let read = read(catalogue, channel, asked.to_string().as_bytes());
            let answer = answer::acknowledge(&read, AT).unwrap();
            let mut want = json(&documented.payload_text);
            want["tid"] = value!("t");
            want["bid"] = value!("b");
            // Text on 12 of DJI's pages, a number in the recordings.
            want["timestamp"] = value!(AT.as_millis());
            want["method"] = value!(method);
            want.as_object_mut().unwrap().remove("gateway");
            assert_eq!(json_of(&answer.payload), want, "{}", documented.file);
            assert_eq!(answer.topic.to_string(), topic(reply_channel, "SN1"));
        }
    }
}

#[test]
fn a_status_is_answered_under_the_root_it_came_from() {
    let catalogue = &*CATALOGUE;
    for (root, reply) in
        [("sys", "sys/product/SN1/status_reply"), ("thing", "thing/product/SN1/status_reply")]
    {
        let topic = UplinkTopic::parse(&format!("{root}/product/SN1/status")).unwrap();
        let payload = br#"{"tid":"t","method":"update_topo","data":{"sub_devices":[]}}"#;
        let read = uplink::read(&topic, payload, catalogue).unwrap();
        assert_eq!(
            answer::acknowledge(&read, AT).map(|answer| answer.topic.to_string()),
            Some(reply.to_owned())
        );
        let Uplink::Topology(topology) = read else { panic!("{read:?}") };
        assert_eq!(topology.sub_devices.as_deref(), Some(&[][..]));
        assert_eq!(topology.root == StatusRoot::Sys, root == "sys");
    }
}

#[test]
fn a_topology_that_names_no_sub_devices_does_not_say_they_are_gone() {
    let catalogue = &*CATALOGUE;
    for (data, subs, unusable) in [
        ("null", None, 0),
        ("{}", None, 0),
        (r#"{"sub_devices":null}"#, None, 0),
        (r#"{"sub_devices":[]}"#, Some(0), 0),
        (r#"{"sub_devices":[{"sn":"A"},{"sn":"A"},{"sn":"a b"},{},7]}"#, Some(1), 4),
    ] {
        let read = read(catalogue, "status", format!(r#"{{"tid":"t","data":{data}}}"#).as_bytes());
        let Uplink::Topology(topology) = read else { panic!("{read:?}") };
        assert_eq!(
            (topology.sub_devices.map(|subs| subs.len()), topology.unusable),
            (subs, unusable),
            "{data}"
        );
    }
    let many: Vec<_> = (0..100).map(|n| value!({ "sn": format!("A{n}") })).collect();
    let payload = value!({ "data": { "sub_devices": many } }).to_string();
    let Uplink::Topology(topology) = read(catalogue, "status", payload.as_bytes()) else {
        panic!()
    };
    assert_eq!(topology.sub_devices.map(|subs| subs.len()), Some(uplink::SUB_DEVICES_MAX));
}
