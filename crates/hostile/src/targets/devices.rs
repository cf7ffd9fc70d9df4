//! What devices ask, how they join, and what callers say of both.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use serde_json::Value;
use utmos_core::{
    binding::{BindingCode, code_hash, code_of},
    credential::Secret,
    device::{AIRCRAFT_PER_GATEWAY_MAX, Device, DeviceKind, Registry, SubDevice, TopologyChange},
    device_request::{Mode, result_of},
    id::{BindingCodeId, DeviceSn, GatewaySn, TenantId},
    time::{Mono, Now, Timestamp},
};
use utmos_dji::{
    answer::{
        AUTOMATIC_TYPES, BindingOutcome, CloudConfig, Facts, Organization, Question, ResourceFile,
        Storage, TaskProgress, automatic, check_reply, compose, request_reply,
    },
    device_side::{self, Downlink},
    topic::UplinkTopic,
    uplink::{self, Request, Topology, Uplink},
};
use utmos_mqtt::Entry;
use utmos_server::{
    fleet::{CodeAsked, Newcomers},
    http::try_bodies,
    requests::ByHand,
};
use uuid::Uuid;

use super::{
    CATALOGUE,
    commands::{TENANT, admin, caller, refusal, sn},
    first_line, is_told,
};

const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// Bounds of the API.
const CODE_CHARS_MAX: usize = 64;
const MESSAGE_CHARS_MAX: usize = 1_024;
const LABEL_CHARS_MAX: usize = 128;
const TAGS_MAX: usize = 32;
const TAG_CHARS_MAX: usize = 64;

/// Reads the body of an answer by hand, or of a rule. What passes is a message that its device can read.
pub fn device_request_bodies(input: &[u8]) {
    let (first, body) = first_line(input);
    let first = String::from_utf8_lossy(first);
    let (what, request_type) = first.split_once(' ').unwrap_or((&first, "config"));
    let body = body.to_vec().into();
    if what == "rule" {
        let rule = match try_bodies::rule(request_type, &body) {
            Ok(rule) => rule,
            Err(problem) => return refusal(&problem),
        };
        let reply = rule.reply_wait.as_secs();
        assert!((1..=3_600).contains(&reply));
        match rule.mode {
            Mode::Manual => {}
            Mode::Auto => assert!(AUTOMATIC_TYPES.contains(&request_type), "{request_type}"),
            Mode::AutoAfter(after) => {
                assert!(AUTOMATIC_TYPES.contains(&request_type), "{request_type}");
                assert!((1..reply).contains(&after.as_secs()), "{after:?} of {reply}");
            }
        }
        return;
    }
    match try_bodies::reply(request_type, &body) {
        Ok(by_hand) => is_readable(request_type, &by_hand),
        Err(problem) => refusal(&problem),
    }
}

fn is_readable(request_type: &str, by_hand: &ByHand) {
    assert!((1..=CODE_CHARS_MAX).contains(&by_hand.code.chars().count()));
    let message = by_hand.message.as_ref().map_or(0, |message| message.chars().count());
    assert!(message <= MESSAGE_CHARS_MAX);
    let result = result_of(&by_hand.code);
    if let Some(payload) = &by_hand.payload {
        let payload: Value = serde_json::from_str(payload).unwrap_or_default();
        assert!(payload.is_object(), "{payload}");
        if result == 0 && AUTOMATIC_TYPES.contains(&request_type) {
            let again = check_reply(request_type, &payload);
            assert_eq!(again.as_ref(), Ok(&payload), "a second check changes nothing");
        }
    }
    let asked = serde_json::json!({"tid": "t", "bid": "b", "method": request_type, "data": {}});
    let topic = UplinkTopic::parse("thing/product/SIM-DOCK-0001/requests");
    let topic = topic.unwrap_or_else(|err| panic!("{err}"));
    let Ok(Uplink::Request(request)) =
        uplink::read(&topic, asked.to_string().as_bytes(), &*CATALOGUE)
    else {
        return;
    };
    is_an_answer(&request, &compose(request_type, result, by_hand.payload.as_deref()));
}

fn is_an_answer(request: &Request, data: &str) {
    let sent = request_reply(request, data, NOW);
    match device_side::read(&sent.topic, &sent.payload) {
        Ok(Downlink::Answer { .. }) => {}
        other => panic!("an answer that reads as {other:?}"),
    }
}

/// Reads the body that registers a device, or that makes a binding code.
pub fn device_bodies(input: &[u8]) {
    let (what, body) = first_line(input);
    let bytes = body.to_vec().into();
    if what == b"code" {
        let limited = try_bodies::binding_code(&caller(body), &bytes);
        assert!(limited.is_err(), "a caller who may touch some devices lets any device join");
        return match try_bodies::binding_code(&admin(body), &bytes) {
            Ok(asked) => {
                assert!((1..=10_000).contains(&asked.uses_max));
                assert!(
                    (60..=CodeAsked::GOOD_FOR_MAX.as_secs()).contains(&asked.good_for.as_secs())
                );
                is_a_label(&asked.label);
            }
            Err(problem) => refusal(&problem),
        };
    }
    match try_bodies::device(&admin(body), &bytes) {
        Ok(device) => {
            is_a_label(&device.label);
            assert!(device.tags.len() <= TAGS_MAX);
            for tag in &device.tags {
                assert!((1..=TAG_CHARS_MAX).contains(&tag.chars().count()));
                assert!(!tag.chars().any(char::is_control));
            }
            let is_theirs = ["SIM-DOCK-0001", "SIM-M3D-0001"].contains(&device.sn.as_str());
            let limited = try_bodies::device(&caller(body), &bytes);
            assert_eq!(limited.is_ok(), is_theirs, "{}", device.sn);
        }
        Err(problem) => refusal(&problem),
    }
}

fn is_a_label(label: &str) {
    assert!(label.chars().count() <= LABEL_CHARS_MAX && !label.chars().any(char::is_control));
}

static GOOD: LazyLock<Secret> = LazyLock::new(|| code_of(b"a good code!!"));

fn good_code(revoked_at: Option<Timestamp>) -> BindingCode {
    BindingCode {
        id: BindingCodeId::new(Uuid::from_u128(9)),
        tenant: *TENANT,
        label: String::new(),
        hash: code_hash(GOOD.expose()).unwrap_or_else(|| panic!("a code that is none")),
        uses_max: 1,
        uses: 0,
        created_at: Timestamp::from_millis(0),
        created_by: String::new(),
        expires_at: Timestamp::from_millis(i64::MAX),
        revoked_at,
    }
}

/// Lets a newcomer in with what was typed, and reads what it asks or reports then.
pub fn joining(input: &[u8]) {
    let (typed, message) = first_line(input);
    lets_in_only_the_good_code(typed);
    let (topic, payload) = first_line(message);
    let Ok(topic) = UplinkTopic::parse(&String::from_utf8_lossy(topic)) else { return };
    match uplink::read(&topic, payload, &*CATALOGUE) {
        Ok(Uplink::Request(request)) => is_answered(&request),
        Ok(Uplink::Topology(topology)) => stands_behind(&topology),
        Ok(_) => {}
        Err(refused) => is_told(&refused.to_string()),
    }
}

fn lets_in_only_the_good_code(typed: &[u8]) {
    let good = good_code(None);
    let hash = std::str::from_utf8(typed).ok().and_then(code_hash);
    if let (Ok(text), Some(hash)) = (std::str::from_utf8(typed), hash) {
        assert_eq!(code_hash(&text.to_lowercase()), Some(hash), "however it is typed");
        assert_eq!(code_hash(&text.replace([' ', '-'], "")), Some(hash), "however it is typed");
    }
    let newcomers = Newcomers::default();
    newcomers.take_codes(vec![good.clone()]);
    let gateway = sn("NEW-DOCK").to_gateway();
    let now = Now { wall: NOW, mono: Mono::from_millis(0) };
    let entry = newcomers.admit(&gateway, typed, now);
    let is_good = hash == Some(good.hash);
    assert_eq!(entry != Entry::Refused, is_good, "let in with {typed:?}");
    assert_eq!(newcomers.of(&gateway, NOW).is_some(), is_good);
    let gone = newcomers.take_codes(vec![good_code(Some(NOW))]);
    assert_eq!(gone.len(), usize::from(is_good), "its code was taken back");
    assert!(newcomers.of(&gateway, NOW).is_none());
}

/// Whatever is asked is answered readably, and a good answer has the shape that DJI documents.
fn is_answered(request: &Request) {
    let question = Question::of(request);
    let Ok(answer) = automatic(&question, &facts(&question)) else { return };
    is_an_answer(request, &answer.data);
    let data: Value = serde_json::from_str(&answer.data)
        .unwrap_or_else(|err| panic!("an answer that is no JSON: {err}"));
    let method = request.method.as_deref().unwrap_or_default();
    if answer.result == 0 {
        let output = if method == "config" { &data } else { &data["output"] };
        if let Err(flaws) = check_reply(method, output) {
            panic!("{method}: {data} does not have DJI's shape: {flaws:?}");
        }
    }
}

fn facts(question: &Question) -> Facts {
    let text = || "a \"text\"\n".to_owned();
    let mut outcomes = BTreeMap::new();
    if let Question::Bind { devices } = question {
        let how = [BindingOutcome::Bound, BindingOutcome::WrongCode, BindingOutcome::AlreadyBound];
        let all = devices.iter().zip(how.into_iter().cycle());
        outcomes.extend(all.map(|(device, how)| (device.sn.clone(), how)));
    }
    Facts {
        config: Some(CloudConfig {
            ntp_server_host: text(),
            ntp_server_port: 123,
            app_id: text(),
            app_key: text(),
            app_license: text(),
        }),
        bindings: BTreeMap::new(),
        organization: Some(Organization { id: text(), name: text() }),
        outcomes,
        flight_areas: Vec::new(),
        storage: Some(Storage {
            bucket: text(),
            endpoint: text(),
            provider: "minio".to_owned(),
            region: text(),
            object_key_prefix: text(),
            access_key_id: text(),
            access_key_secret: text(),
            security_token: text(),
            expire_seconds: 3_600,
        }),
        resource: Some(ResourceFile { url: text(), fingerprint: text() }),
        progress: Some(TaskProgress {
            flight_id: text(),
            status: "in_progress".to_owned(),
            step: Some(3),
            percent: Some(50),
        }),
    }
}

/// A report gives a gateway nothing that is another's, and no more aircraft than it may bring.
fn stands_behind(topology: &Topology) {
    let mut registry = Registry::default();
    let other = TenantId::new(Uuid::from_u128(8));
    let gateway: &GatewaySn = &topology.gateway;
    for (name, kind, tenant) in [
        (sn("OTHERS-AIR"), DeviceKind::Aircraft, other),
        (sn("OWN-DOCK"), DeviceKind::Dock, *TENANT),
        (gateway.to_device(), DeviceKind::Dock, *TENANT),
    ] {
        registry.put(Device {
            sn: name,
            tenant,
            kind,
            model_key: None,
            label: String::new(),
            tags: BTreeSet::new(),
            simulated: true,
            mqtt_secret_hash: None,
            created_at: Timestamp::from_millis(0),
        });
    }
    let Some(subs) = &topology.sub_devices else { return };
    let subs: Vec<SubDevice> = subs
        .iter()
        .map(|sub| SubDevice {
            sn: sub.sn.clone(),
            model_key: sub.model.key(),
            index: sub.index.clone(),
        })
        .collect();
    let report = registry.report_topology(gateway, &subs, NOW);
    let behind: Vec<DeviceSn> =
        registry.sub_devices(gateway).iter().map(|sub| sub.sn.clone()).collect();
    assert!(behind.len() <= AIRCRAFT_PER_GATEWAY_MAX, "{behind:?}");
    assert_eq!(behind.len() + report.left_out.len(), subs.len(), "each is taken or left out");
    for sn in behind {
        let device = registry.device(&sn).unwrap_or_else(|| panic!("{sn} is nobody's"));
        assert_eq!((device.tenant, device.kind), (*TENANT, DeviceKind::Aircraft), "{sn}");
    }
    let again = registry.report_topology(gateway, &subs, NOW);
    assert_eq!(again.change, TopologyChange::Same, "a report that says nothing new");
}
