//! The seeds in `fuzz/corpus/`, made of what the project has: recorded and documented messages, signing vectors, examples
//! of the catalogue, the documents and the default configuration. A test takes them as they are made today, and looks that
//! each lies in its folder.

mod devices;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use utmos_core::{
    command::{Life, Outcome, Phase, Spec, Status},
    evidence::{Entry, Proof},
    id::{ApiId, Bid, CommandId, DeviceSn, TenantId},
    method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
    ports::{Advance, NewCommand},
    signing::{NonceUse, VECTORS},
    time::{BootId, Deadline, Mono, Timestamp},
};
use utmos_dji::{catalogue::Catalogue, topic::SERVER_FILTERS};
use utmos_server::config::DEFAULT_FILE;
use utmos_sim::fault::{KINDS, Sort};
use utmos_trials::Plan;
use uuid::Uuid;

/// Longest message that becomes a seed. Long ones cost a fuzzer time and show it nothing new.
const MESSAGE_BYTES_MAX: usize = 1_200;
/// Seeds of trials: each is a plan.
const TRIALS: u64 = 12;

/// Seeds of one target, by the names of their files.
pub type Seeds = BTreeMap<String, Vec<u8>>;

/// The project's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folder of a target's seeds.
#[must_use]
pub fn folder(target: &str) -> PathBuf {
    root().join("fuzz/corpus").join(target)
}

/// Everything in the folder of a target's seeds, in the order of the names: those made here, and those that once failed.
///
/// # Errors
/// When the folder cannot be read.
pub fn kept(target: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let folder = folder(target);
    let entries =
        fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut paths = BTreeSet::new();
    for entry in entries {
        paths.insert(entry?.path());
    }
    paths.iter().map(|path| Ok(fs::read(path)?)).collect()
}

/// The seeds of every target.
///
/// # Errors
/// When a file they are made of is not there, or says something else than it did.
pub fn make() -> anyhow::Result<BTreeMap<&'static str, Seeds>> {
    let catalogue = Catalogue::embedded()?;
    Ok(BTreeMap::from([
        ("uplink", uplink()?),
        ("downlink", downlink(&catalogue)?),
        ("topics", topics()),
        ("signed_headers", signed_headers()?),
        ("canonical_query", canonical_query()?),
        ("command_body", command_body()?),
        ("payload", payload(&catalogue)),
        ("catalogue_override", catalogue_override()?),
        ("config", config()?),
        ("scenario", scenario()?),
        ("fault_flag", fault_flag()),
        (
            "trial_plan",
            (1..=TRIALS)
                .map(|seed| (format!("seed-{seed:02}"), Plan::of(seed).write().into()))
                .collect(),
        ),
        ("dock_logins", dock_logins()),
        ("emergency_journal", emergency_journal()?),
        ("journal_file", journal_file()?),
        ("presence_topics", named(&PRESENCE)),
        ("mqtt_packets", mqtt_packets()),
        ("mqtt_hello", mqtt_hello()),
        ("list_queries", named(&LIST_QUERIES)),
        ("sim_control", named(&SIM_CONTROL)),
        ("device_request_bodies", named(&devices::REQUEST_BODIES)),
        ("device_bodies", named(&devices::BODIES)),
        ("joining", devices::joining()?),
        ("alarms", named(&devices::ALARMS)),
        ("telemetry", devices::telemetry()?),
    ]))
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("{path} cannot be read"))
}

fn text<'a>(value: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    value[name].as_str().ok_or_else(|| anyhow!("no {name} in {value}"))
}

fn message(topic: &str, payload: &str) -> Vec<u8> {
    format!("{topic}\n{payload}").into_bytes()
}

/// The first recorded or documented message of each kind.
fn uplink() -> anyhow::Result<Seeds> {
    let mut seeds = Seeds::new();
    let mut put = |kind: String, topic: &str, payload: &str| {
        if payload.len() <= MESSAGE_BYTES_MAX {
            seeds.entry(kind).or_insert_with(|| message(topic, payload));
        }
    };
    for folder in ["dock-failed-task", "dock3-flight", "rc-drc", "rc-m300", "rc-m4", "rc-mavic3e"] {
        let folder = format!("crates/dji/tests/data/recordings/{folder}");
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(root().join(&folder))? {
            files.insert(entry?.file_name().to_string_lossy().into_owned());
        }
        for file in files {
            for line in read(&format!("{folder}/{file}"))?.lines() {
                let line: Value = serde_json::from_str(line)?;
                let (topic, payload) = (text(&line, "topic")?, text(&line, "payload_text")?);
                let method = serde_json::from_str::<Value>(payload).unwrap_or_default();
                let method = method["method"].as_str().unwrap_or("none").to_owned();
                let channel = topic.rsplit('/').next().unwrap_or_default();
                put(format!("{channel}-{method}"), topic, payload);
            }
        }
    }
    for line in read("crates/dji/tests/data/examples.jsonl")?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let (channel, method) =
            (text(&line, "channel")?, line["method"].as_str().unwrap_or("none"));
        let topic = match channel {
            "status" => "sys/product/SIM-DOCK-0001/status".to_owned(),
            "drc_up" => "thing/product/SIM-DOCK-0001/drc/up".to_owned(),
            "property_set_reply" => "thing/product/SIM-DOCK-0001/property/set_reply".to_owned(),
            "osd" | "state" | "events" | "requests" | "services_reply" => {
                format!("thing/product/SIM-DOCK-0001/{channel}")
            }
            _ => continue,
        };
        put(format!("{channel}-{method}"), &topic, text(&line, "payload_text")?);
    }
    Ok(seeds)
}

fn downlink(catalogue: &Catalogue) -> anyhow::Result<Seeds> {
    let mut seeds = Seeds::new();
    for method in catalogue.methods().step_by(6) {
        let end = match method.channel {
            Channel::Services => "services",
            Channel::DrcDown => "drc/down",
            Channel::PropertySet => "property/set",
        };
        let body = json!({"tid": "t-1", "bid": "b-1", "timestamp": 1_767_225_600_000_u64, "method": method.name,
            "data": method.example(), "seq": 7});
        let topic = format!("thing/product/SIM-DOCK-0001/{end}");
        seeds.insert(method.name.clone(), message(&topic, &body.to_string()));
    }
    for line in read("crates/dji/tests/data/examples.jsonl")?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let channel = text(&line, "channel")?;
        let root = if channel == "status_reply" { "sys" } else { "thing" };
        if !["events_reply", "requests_reply", "status_reply"].contains(&channel) {
            continue;
        }
        let payload = text(&line, "payload_text")?;
        let method = line["method"].as_str().unwrap_or("none");
        if payload.len() <= MESSAGE_BYTES_MAX {
            let topic = format!("{root}/product/SIM-DOCK-0001/{channel}");
            seeds.insert(format!("{channel}-{method}"), message(&topic, payload));
        }
    }
    Ok(seeds)
}

fn topics() -> Seeds {
    let of = |sn: &str, filters: &[&str]| {
        filters
            .iter()
            .map(|filter| filter.replace('+', sn))
            .collect::<Vec<_>>()
            .join("\n")
            .into_bytes()
    };
    let down = [
        "thing/product/+/services",
        "thing/product/+/drc/down",
        "thing/product/+/property/set",
        "thing/product/+/events_reply",
        "thing/product/+/requests_reply",
        "thing/product/+/state_reply",
        "sys/product/+/status_reply",
        "thing/product/+/status_reply",
    ];
    let strange = "#\n+/#\n$share/g/thing/product/DOCK-1/services\nthing/product/DOCK-1/#\nthing/product/+/osd\n\
        $SYS/broker\nthing/product//osd\nthing/product/DOCK-1/osd/\nthing/product/DOCK-1/+\nthing/product/AIR-1/+";
    Seeds::from([
        ("filters".to_owned(), SERVER_FILTERS.join("\n").into_bytes()),
        ("up".to_owned(), of("DOCK-1", &SERVER_FILTERS)),
        ("up-aircraft".to_owned(), of("AIR-1", &SERVER_FILTERS)),
        ("down".to_owned(), of("DOCK-1", &down)),
        ("down-aircraft".to_owned(), of("AIR-1", &down)),
        ("strange".to_owned(), strange.as_bytes().to_vec()),
    ])
}

fn signed_headers() -> anyhow::Result<Seeds> {
    let vectors: Value = serde_json::from_str(VECTORS)?;
    let mut seeds = Seeds::new();
    for (number, vector) in vectors["vectors"].as_array().into_iter().flatten().enumerate() {
        let mut lines = [
            text(vector, "api_id")?.to_owned(),
            vector["timestamp"].to_string(),
            text(vector, "nonce")?.to_owned(),
            text(vector, "signature")?.to_owned(),
            vector["query"].as_str().unwrap_or_default().to_owned(),
        ]
        .join("\n");
        lines.push('\n');
        lines.push_str(vector["body"].as_str().unwrap_or_default());
        seeds.insert(format!("vector-{number:02}"), lines.into_bytes());
    }
    Ok(seeds)
}

fn canonical_query() -> anyhow::Result<Seeds> {
    let vectors: Value = serde_json::from_str(VECTORS)?;
    let mut seeds = named(&LIST_QUERIES);
    for (number, vector) in vectors["vectors"].as_array().into_iter().flatten().enumerate() {
        if let Some(query) = vector["query"].as_str().filter(|query| !query.is_empty()) {
            seeds.insert(format!("vector-{number:02}"), query.into());
        }
    }
    seeds.insert("doubled".to_owned(), b"b=2&a&b=1&&a=&=x&b=1&a%3D=%26&B=".to_vec());
    Ok(seeds)
}

fn command_body() -> anyhow::Result<Seeds> {
    let payloads: Value =
        serde_json::from_str(&read("crates/dji/tests/data/public_payloads.json")?)?;
    let body = |method: &str, device: &str, payload: &Value| {
        json!({"vendor": "dji", "device_id": device, "command_type": method, "payload": payload,
            "idempotency_key": "0197c2d4-7d0e-7b1a-9c55-1f0a2b3c4d5e"})
    };
    let mut seeds = Seeds::new();
    for (method, payload) in payloads.as_object().into_iter().flatten().step_by(4) {
        seeds.insert(
            method.clone(),
            body(method, "SIM-DOCK-0001", payload).to_string().into_bytes(),
        );
    }
    let mut whole = body("fly_to_point", "SIM-M3D-0001", &payloads["fly_to_point"]);
    let more = json!({"timeout_seconds": 30, "if_offline": "fail", "complete_on": "reply", "dry_run": true});
    for (name, value) in more.as_object().into_iter().flatten() {
        whole[name] = value.clone();
    }
    seeds.insert("every-member".to_owned(), serde_json::to_vec_pretty(&whole)?);
    let foreign = body("cover_open", "SIM-DOCK-0009", &json!({})).to_string();
    seeds.insert("of-another-tenant".to_owned(), foreign.into_bytes());
    Ok(seeds)
}

fn payload(catalogue: &Catalogue) -> Seeds {
    let has_members =
        |example: &Value| example.as_object().is_some_and(|members| !members.is_empty());
    catalogue
        .methods()
        .filter(|method| has_members(method.example()))
        .map(|method| (method.name.clone(), message(&method.name, &method.example().to_string())))
        .collect()
}

fn catalogue_override() -> anyhow::Result<Seeds> {
    let whole: Value = serde_json::from_str(&read("crates/dji/data/catalogue.json")?)?;
    let mut seeds = Seeds::new();
    for name in ["cover_open", "fly_to_point", "stick_control", "live_start_push"] {
        let method = &whole["methods"][name];
        seeds.insert(
            format!("whole-{name}"),
            json!({"methods": {name: method}}).to_string().into_bytes(),
        );
    }
    for (name, changes) in [
        (
            "timeout",
            json!({"methods": {"cover_open": {"timeout_seconds": 90, "note": "slow cover"}}}),
        ),
        (
            "taken-away",
            json!({"methods": {"cover_open": {"timeout_seconds": null, "title": null}}}),
        ),
        ("code", json!({"codes": {"999001": {"meaning": "own code", "remedy": "call us"}}})),
        (
            "new",
            json!({"methods": {"release_area": {"title": "Release", "channel": "services",
            "completes_by": "reply", "risk": "configuration", "example": {"a": 1},
            "payload": [{"name": "a", "type": "integer", "min": 0, "max": 5, "required": true}]}}}),
        ),
    ] {
        seeds.insert(name.to_owned(), changes.to_string().into_bytes());
    }
    Ok(seeds)
}

/// The blocks of a document in one language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let mut parts = document.split("```");
    parts.next();
    let blocks =
        parts.step_by(2).filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    blocks.map(str::to_owned).collect()
}

fn config() -> anyhow::Result<Seeds> {
    let mut seeds = Seeds::from([
        ("default".to_owned(), DEFAULT_FILE.into()),
        (
            "external".to_owned(),
            b"data_dir = \"d\"\n[mqtt]\nmode = \"external\"\n[mqtt.external]\nhost = \"broker\"\ntls = true\nprotocol = \"3.1.1\"\n\
              [dji]\napp_key = \"k\"\n[log]\nformat = \"json\"\n"
                .to_vec(),
        ),
        (
            "assigned".to_owned(),
            b"[http]\nlisten = \"[::]:8080\"\n\n[--set]\nhttp.body_bytes_max=4096\nlog.level=debug\nmqtt.embedded.listen=0.0.0.0:1883\n"
                .to_vec(),
        ),
        ("dotted".to_owned(), b"http.listen = \"127.0.0.1:1\"\nmqtt.embedded.tls_listen = \"127.0.0.1:2\"\n".to_vec()),
    ]);
    for document in ["README.md", "docs/outside-broker.md"] {
        for (block, number) in blocks(&read(document)?, "toml").into_iter().zip(1..) {
            seeds.insert(
                format!("{}-{number}", document.replace(['/', '.'], "-")),
                block.into_bytes(),
            );
        }
    }
    Ok(seeds)
}

fn scenario() -> anyhow::Result<Seeds> {
    let mut seeds = Seeds::new();
    for (block, number) in blocks(&read("docs/simulator.md")?, "toml").into_iter().zip(1..) {
        seeds.insert(format!("simulator-md-{number}"), block.into_bytes());
    }
    for name in ["bad-day", "broken-answers", "restless-network"] {
        let example = read(&format!("examples/scenarios/{name}.toml"))?;
        seeds.insert(name.to_owned(), example.into_bytes());
    }
    let mut all = "seed = 7\n".to_owned();
    for kind in &KINDS {
        let heading = if kind.sort == Sort::Condition { "condition" } else { "fault" };
        all.push_str(&format!("\n[[{heading}]]\nkind = \"{}\"\n", kind.name));
        for (name, value) in fields(kind.required.iter().chain(kind.optional)) {
            all.push_str(&format!("{name} = {value}\n"));
        }
    }
    seeds.insert("every-kind".to_owned(), all.into_bytes());
    let strict = "speed = 2.5\n[[dock]]\nsn = \"D1\"\naircraft_sn = \"A1\"\n[[fault]]\nmethod = \"cover_*\"\n\
                  gateway = \"D1\"\nnth = 2\nprobability = 0.25\nkind = \"silent\"\n";
    seeds.insert("every-condition".to_owned(), strict.into());
    let deep = format!("seed = 1\nmodel = {}", "[".repeat(200));
    for (name, bytes) in [
        ("no-text", b"seed = 1\nmodel = \"dock\xff\"\n".as_slice()),
        ("half-a-heading", b"seed = 1\n[[fault]\nkind = \"never\"\n"),
        ("twice", b"[[dock]]\nsn = \"D1\"\n[[dock]]\nsn = \"D1-M3D\"\naircraft_sn = \"D1\"\n"),
        ("too-deep", deep.as_bytes()),
    ] {
        seeds.insert(name.to_owned(), bytes.to_vec());
    }
    Ok(seeds)
}

/// Values for fields of a fault, as TOML.
fn fields<'a>(names: impl Iterator<Item = &'a &'static str>) -> Vec<(&'static str, &'static str)> {
    let value = |name: &str| match name {
        "code" => "\"low_battery\"",
        "field" => "\"result\"",
        "sn" => "\"D2\"",
        _ => "7",
    };
    names.map(|name| (*name, value(name))).collect()
}

fn fault_flag() -> Seeds {
    let mut seeds = Seeds::new();
    for kind in &KINDS {
        let mut flag = format!("kind={}", kind.name);
        for (name, value) in fields(kind.required.iter().chain(kind.optional)) {
            flag.push_str(&format!(",{name}={}", value.trim_matches('"')));
        }
        seeds.insert(kind.name.to_owned(), flag.into_bytes());
    }
    let strict = "gateway=D1, method=cover_*, nth=2, probability=0.25, kind=late, ms=4000";
    seeds.insert("every-condition".to_owned(), strict.into());
    seeds.insert("twice".to_owned(), b"kind=late,ms=4,ms=5,".to_vec());
    seeds
}

fn dock_logins() -> Seeds {
    let objects = "{\"sn\":\"SIM-DOCK-0003\",\"kind\":\"dock\",\"password\":\"p3-and-more\"}\n{\"sn\":\"D4\",\"password\":\"p\\u00e9 4\"}\n";
    Seeds::from([
        (
            "lines".to_owned(),
            b"# docks\nSIM-DOCK-0001 first-password\n\n 4TADL210010014\tsecond password \n"
                .to_vec(),
        ),
        ("objects".to_owned(), objects.into()),
    ])
}

/// An emergency that was accepted, sent and ended while the store was unwell.
fn emergency_journal() -> anyhow::Result<Seeds> {
    const START: i64 = 1_790_000_000_000;
    let at = |millis| Timestamp::from_millis(START + millis);
    let sn = DeviceSn::parse("D1")?;
    let spec = Spec {
        id: CommandId::new(Uuid::from_u128(0x01a0_c5a3_7800_7000_8000_0000_0000_0001)),
        tenant: TenantId::new(Uuid::from_u128(1)),
        accepted_for: ApiId::new("utk_1"),
        request_id: "r-1".to_owned(),
        idempotency_key: "k-1".to_owned(),
        fingerprint: [1; 32],
        device: sn.clone(),
        gateway: sn.to_gateway(),
        aircraft: Some(DeviceSn::parse("AIR-1")?),
        method: "return_home".to_owned(),
        channel: Channel::Services,
        completes_by: CompletesBy::Job,
        risk: Risk::Emergency,
        starts_motion: true,
        reply_without_status_is_final: false,
        if_offline: IfOffline::Fail,
        complete_on: CompleteOn::Outcome,
        bid: Bid::new(Uuid::from_u128(5)),
        job_ref: None,
        timeout: Duration::from_secs(30),
        silence_wait: Duration::from_secs(60),
        deadline: Deadline {
            boot: BootId([3; 16]),
            mono: Mono::from_millis(30_000),
            wall: at(30_000),
        },
        accepted_at: at(0),
        payload: "{}".into(),
    };
    let accepted = Life::accepted(&spec);
    let entry = |from, to, proof| Entry { at: at(5), from, to, proof };
    let new = NewCommand {
        entries: vec![entry(
            Status::Accepted,
            Status::Accepted,
            Proof::Accepted { api_id: "utk_1".to_owned(), request_id: "r-1".to_owned() },
        )],
        life: Arc::new(accepted.clone()),
        spec: Arc::new(spec),
    };
    let id = new.spec.id;
    let sending =
        Life { phase: Phase::Sending, version: accepted.version.next(), ..accepted.clone() };
    let ended = Life {
        phase: Phase::Ended(Outcome::Succeeded),
        version: sending.version.next(),
        completed_at: Some(at(9)),
        due: None,
        ..sending.clone()
    };
    let nonce = Some(NonceUse { key: [7; 16], expires_at: at(600_000) });
    let accept = json!({"record": "accept", "nonce": nonce, "new": new});
    let advance = |seen: &Life, life: &Life, proof| {
        let entries = Arc::new([entry(seen.status(), life.status(), proof)]);
        let life = Arc::new(life.clone());
        let advance = Advance { id, seen: seen.version, life, entries };
        json!({"record": "advance", "advance": advance})
    };
    let claimed = advance(&accepted, &sending, Proof::NotSent { reason: "a reason".to_owned() });
    let done = advance(&sending, &ended, Proof::Timer { limit: "a limit".to_owned() });
    let asked_again = json!({"record": "nonce", "nonce": nonce});
    Ok(Seeds::from([
        ("asked-again".to_owned(), format!("{accept}\n{asked_again}\n").into_bytes()),
        ("accepted".to_owned(), accept.to_string().into_bytes()),
        ("whole".to_owned(), format!("{accept}\n{claimed}\n{done}\n").into_bytes()),
        ("advanced".to_owned(), format!("{claimed}\n").into_bytes()),
        ("no-hex".to_owned(), b"zz\n0123456789abcdef\n\n01\n".to_vec()),
    ]))
}

/// Whole files: as they should be, with something set aside, torn, damaged, and while they are emptied.
fn journal_file() -> anyhow::Result<Seeds> {
    let lines = emergency_journal()?;
    let of = |name: &str| lines.get(name).cloned().ok_or_else(|| anyhow!("there is no {name}"));
    let whole = of("whole")?;
    let files: [(&str, Vec<Vec<u8>>); 7] = [
        ("empty", vec![b"0\n".to_vec(), vec![0; 64]]),
        ("whole", vec![b"0\n".to_vec(), whole.clone(), vec![0; 64]]),
        ("aside", vec![b"1\n".to_vec(), whole.clone()]),
        ("twice", vec![b"3\n".to_vec(), whole.clone(), whole.clone()]),
        ("torn", vec![b"0\n".to_vec(), whole.clone(), b"00ff00".to_vec(), vec![0; 8]]),
        ("damaged", vec![b"0\n".to_vec(), of("asked-again")?, b"zz\n\x00\x01\n".to_vec()]),
        ("emptied", vec![b"0\n\xcf00ff\n".to_vec(), whole]),
    ];
    Ok(files.map(|(name, parts)| (name.to_owned(), parts.concat())).into())
}

const PRESENCE: [(&str, &str); 8] = [
    (
        "emqx-came",
        "$SYS/brokers/+/clients/{client_id}/connected\n$SYS/brokers/emqx@127.0.0.1/clients/DOCK-1/connected\n{\"username\":\"DOCK-1\",\"connected_at\":1790000000000}",
    ),
    (
        "emqx-gone",
        "$SYS/brokers/+/clients/{client_id}/disconnected\n$SYS/brokers/n/clients/c-1/disconnected\n{\"username\":\"DOCK-1\",\"reason\":\"takenover\",\"connected_at\":7}",
    ),
    ("word", "presence/{client_id}\npresence/DOCK-1\n Online"),
    ("json", "presence/{client_id}\npresence/DOCK-1\n{\"status\":\"disconnected\"}"),
    ("number", "a/{client_id}/+/b\na/DOCK-1//b\n{\"online\":1}"),
    ("unclear", "presence/{client_id}\npresence/DOCK-1\n{\"state\":[]}"),
    ("of-devices", "thing/product/{client_id}/osd\nthing/product/DOCK-1/osd\n1"),
    ("all", "+/{client_id}\nthing/DOCK-1\n0"),
];

fn mqtt_packets() -> Seeds {
    let connect_5: &[u8] =
        b"\x10\x1e\0\x04MQTT\x05\xc2\0\x3c\x08\x11\0\0\x0e\x10\x21\0\x0a\0\x01D\0\x01D\0\x01p";
    let packets: [(&str, &[u8]); 12] = [
        ("connect-3", b"\x10\x15\0\x04MQTT\x04\xc2\0\x3c\0\x01D\0\x01D\0\x03pwd"),
        ("connect-5", connect_5),
        ("connack-3", b"\x20\x02\0\0"),
        ("connack-5", b"\x20\x0b\0\0\x08\x21\0\x14\x25\0\x24\0\x28"),
        ("publish-3", b"\x32\x0a\0\x03a/b\0\x09hi!"),
        ("publish-5", b"\x32\x13\0\x03a/b\0\x09\x08\x01\x01\x02\0\0\0\x3chi!x"),
        ("puback-5", b"\x40\x04\0\x09\x10\0"),
        ("subscribe-3", b"\x82\x08\0\x01\0\x03a/#\x01"),
        ("suback-5", b"\x90\x05\0\x01\0\x01\x87"),
        ("qos-2", b"\x50\x02\0\x01\x62\x02\0\x01\x70\x02\0\x01"),
        ("ping", b"\xc0\0\xd0\0"),
        ("disconnect-5", b"\xe0\x02\x8e\0"),
    ];
    packets.iter().map(|(name, bytes)| ((*name).to_owned(), [&[3], *bytes].concat())).collect()
}

/// The same without the length of the pieces, and what strangers say.
fn mqtt_hello() -> Seeds {
    let packets = mqtt_packets().into_iter();
    let mut seeds: Seeds =
        packets.map(|(name, bytes)| (name, bytes.into_iter().skip(1).collect())).collect();
    let strangers: [(&str, &[u8]); 5] = [
        ("http", b"GET / HTTP/1.1\r\n\r\n"),
        ("tls", b"\x16\x03\x01\x02\0\x01"),
        ("huge", b"\x10\xff\xff\xff\x7f\0\x04MQTT"),
        ("no-length", b"\x10\xff\xff\xff\xff"),
        ("one-byte", b"\x10"),
    ];
    seeds.extend(strangers.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())));
    seeds
}

fn named(seeds: &[(&str, &str)]) -> Seeds {
    seeds.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

const LIST_QUERIES: [(&str, &str); 19] = [
    ("page", "limit=100&cursor=019b6d2a-8b00-7000-8000-000000000001"),
    ("device", "device_id=SIM-DOCK-0001&status=SUCCEEDED&command_type=cover_open"),
    ("times", "accepted_after=2026-01-01T00:00:00Z&accepted_before=2026-01-02T00:00:00.5%2B08:00"),
    ("twice", "limit=5&limit=6"),
    ("unknown", "color=red&limit=0"),
    ("encoded", "command_type=%E4%BD%A0&%6cimit=1"),
    ("broken", "limit=%&cursor=%zz&&=&device_id=a/b"),
    ("far", "accepted_after=0001-01-01T00:00:00Z&accepted_before=9999-12-30T22:00:00-00:00"),
    (
        "events",
        "types=device.event,device.alarm_raised&method=fly_to_point_progress&from=2026-01-01T00:00:00Z&limit=7",
    ),
    (
        "history",
        "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&fields=battery,mode_code&step_seconds=60&cursor=1767225600000.17.3",
    ),
    ("track", "from=2026-01-01T00:00:00Z&to=2026-01-01T06:00:00Z"),
    ("track-of", "command_id=019b6d2a-8b00-7000-8000-000000000001"),
    ("alarms", "limit=500&cursor=SIM-DOCK-0001%200x16100001"),
    ("requests", "vendor=dji&device_id=SIM-DOCK-0001&request_type=config&state=AWAITING_REPLY"),
    ("vendor", "vendor=acme"),
    ("rule", "device_id=SIM-DOCK-0001"),
    ("devices", "kind=dock&online=true&label=Roof&tag=north&cursor=SIM-DOCK-0001"),
    ("piece", "cursor=-9223372036854775808.-1.18446744073709551615"),
    ("backwards", "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z&step_seconds=0&fields=,"),
];

const SIM_CONTROL: [(&str, &str); 15] = [
    ("docks", "GET /docks\n"),
    ("dock", "GET /docks/SIM-DOCK-0001\n"),
    ("commands", "GET /commands?gateway=SIM-DOCK-0001&limit=5\n"),
    ("command", "GET /commands/019b6d2a-8b00-7000-8000-000000000001\n"),
    ("faults", "GET /faults\n"),
    (
        "add-fault",
        "POST /faults\n{\"kind\": \"never\", \"method\": \"cover_open\", \"nth\": 2, \"probability\": 0.5}",
    ),
    ("add-late", "POST /faults\n{\"kind\": \"late\", \"ms\": 5000}"),
    ("add-condition", "POST /conditions\n{\"kind\": \"wind\", \"speed\": 12}"),
    ("add-twice", "POST /faults\n{\"kind\": \"late\", \"ms\": 1, \"ms\": 2}"),
    ("add-nothing", "POST /faults\n{\"kind\": null, \"nth\": [1], \"x\": {}}"),
    ("remove", "DELETE /faults/1\n"),
    ("remove-word", "DELETE /conditions/one\n"),
    ("stop", "POST /stop\n"),
    ("no-path", "GET /a/%2e%2e/b?c=%zz\n"),
    ("no-method", "PUT /faults\n{}"),
];
