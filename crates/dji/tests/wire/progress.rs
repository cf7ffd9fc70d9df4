//! What events say of jobs, and what they do not.

use utmos_core::reply::{JobState, Progress, Verdict};
use utmos_dji::{
    topic::UplinkTopic,
    uplink::{self, Event, NoMeanings, Uplink},
};

use crate::data::CATALOGUE;

fn event(topic: &str, payload: &str) -> Event {
    let topic = UplinkTopic::parse(topic).unwrap();
    let read = uplink::read(&topic, payload.as_bytes(), &*CATALOGUE).expect(payload);
    let Uplink::Event(event) = read else { panic!("{read:?}") };
    event
}

fn progress(method: &str, data: &str) -> Progress {
    let payload =
        format!(r#"{{"tid":"t","bid":"b","method":"{method}","gateway":"SN1","data":{data}}}"#);
    *event("thing/product/SN1/events", &payload).progress.expect(&payload)
}

#[test]
fn a_job_ends_by_its_own_words_and_well_only_without_an_error() {
    use JobState::{Failed, Open, Paused, Succeeded};
    for (method, data, state, code) in [
        ("cover_open", r#"{"output":{"status":"ok"},"result":0}"#, Succeeded, None),
        ("cover_open", r#"{"output":{"status":"ok"},"result":"0"}"#, Succeeded, None),
        ("cover_open", r#"{"output":{"status":"ok"},"result":null}"#, Succeeded, None),
        ("cover_open", r#"{"output":{"status":"ok"}}"#, Succeeded, None),
        ("cover_open", r#"{"output":{"status":"ok"},"result":514100}"#, Failed, Some("514100")),
        ("cover_open", r#"{"output":{"status":"ok"},"result":"514100"}"#, Failed, Some("514100")),
        ("cover_open", r#"{"output":{"status":"ok"},"result":true}"#, Failed, None),
        ("cover_open", r#"{"output":{"status":"ok"},"result":514100,"result":0}"#, Failed, None),
        (
            "cover_open",
            r#"{"output":{"status":"in_progress"},"result":514100}"#,
            Open,
            Some("514100"),
        ),
        ("cover_open", r#"{"output":{"status":"paused"},"result":0}"#, Paused, None),
        ("cover_open", r#"{"output":{"status":"failed"},"result":0}"#, Failed, None),
        ("cover_open", r#"{"output":{"status":"wayline_ok"},"result":0}"#, Open, None),
        ("cover_open", r#"{"output":{"status":"OK"},"result":0}"#, Open, None),
        ("cover_open", r#"{"status":"ok","result":0}"#, Open, None),
        ("cover_open", r#"{"result":0}"#, Open, None),
        ("cover_open", "null", Open, None),
        ("cover_open", r#"[{"output":{"status":"ok"}}]"#, Open, None),
        ("fly_to_point_progress", r#"{"status":"wayline_ok","result":0}"#, Succeeded, None),
        ("fly_to_point_progress", r#"{"status":"wayline_cancel","result":0}"#, Failed, None),
        ("fly_to_point_progress", r#"{"status":"wayline_progress","result":0}"#, Open, None),
        (
            "flighttask_progress",
            r#"{"output":{"status":"partially_done"},"result":0}"#,
            Failed,
            None,
        ),
        ("flight_areas_sync_progress", r#"{"status":"synchronized"}"#, Succeeded, None),
        ("flight_areas_sync_progress", r#"{"status":"switch_fail"}"#, Failed, None),
    ] {
        let told = progress(method, data);
        assert_eq!((told.state, told.code.as_deref()), (state, code), "{method} {data}");
        assert_eq!(&*told.data, data);
    }
}

#[test]
fn step_percent_and_job_id_are_read_in_any_spelling() {
    for (raw, percent) in [
        ("0", Some(0)),
        ("45", Some(45)),
        ("\"45\"", Some(45)),
        ("45.9", Some(45)),
        ("100", Some(100)),
        ("250", Some(100)),
        ("-1", Some(0)),
        ("1e999", None),
        ("null", None),
        ("\"half\"", None),
        ("{}", None),
    ] {
        let data =
            format!(r#"{{"output":{{"status":"in_progress","progress":{{"percent":{raw}}}}}}}"#);
        assert_eq!(progress("cover_open", &data).percent, percent, "{raw}");
    }
    for (raw, step) in
        [("\"open_cover\"", Some("open_cover")), ("\"\"", None), ("null", None), ("[]", None)]
    {
        let data =
            format!(r#"{{"output":{{"status":"in_progress","progress":{{"step_key":{raw}}}}}}}"#);
        assert_eq!(progress("cover_open", &data).step.as_deref(), step, "{raw}");
    }
    for (raw, step) in
        [("5", Some("5 (")), ("\"5\"", Some("5 (")), ("9999", Some("9999")), ("{}", None)]
    {
        let data = format!(
            r#"{{"output":{{"status":"in_progress","progress":{{"current_step":{raw}}}}}}}"#
        );
        let told = progress("flighttask_progress", &data).step;
        assert_eq!(told.is_some(), step.is_some(), "{raw}: {told:?}");
        assert!(told.unwrap_or_default().starts_with(step.unwrap_or_default()), "{raw}");
    }
    for (raw, id) in
        [("\"F-1\"", Some("F-1")), ("17", Some("17")), ("\"\"", None), ("null", None), ("{}", None)]
    {
        let data = format!(r#"{{"fly_to_id":{raw},"status":"wayline_progress"}}"#);
        assert_eq!(progress("fly_to_point_progress", &data).job_ref.as_deref(), id, "{raw}");
    }
}

#[test]
fn a_code_brings_its_meaning_unless_the_device_has_words_of_its_own() {
    let told = progress("flighttask_progress", r#"{"output":{"status":"failed"},"result":314004}"#);
    assert_eq!(told.message.as_deref(), CATALOGUE.meaning(314_004));
    assert!(told.message.is_some());
    let told = progress(
        "flighttask_progress",
        r#"{"output":{"status":"failed"},"result":314004,"msg":"no"}"#,
    );
    assert_eq!(told.message.as_deref(), Some("no"));
}

#[test]
fn the_gateway_of_a_job_is_the_one_the_event_names_and_shows_as_a_claim() {
    let payload = r#"{"bid":"00000000-0000-0000-0000-000000000000","method":"cover_open","gateway":"SN2","data":{}}"#;
    let event = event("thing/product/SN1/events", payload);
    let told = event.progress.as_ref().unwrap();
    assert_eq!((told.gateway.as_str(), told.bid.as_deref()), ("SN2", None));
    let claim = Uplink::Event(event.clone());
    assert_eq!(
        claim.claimed_gateway().map(|(device, gateway)| (device.as_str(), gateway.as_str())),
        Some(("SN1", "SN2"))
    );
    let silent = self::event("thing/product/SN1/events", r#"{"method":"cover_open","data":{}}"#);
    assert_eq!(silent.progress.as_ref().map(|told| told.gateway.as_str()), Some("SN1"));
    assert_eq!(Uplink::Event(silent).claimed_gateway(), None);
}

#[test]
fn only_events_of_jobs_report_on_jobs() {
    for payload in [
        r#"{"method":"hms","data":{"output":{"status":"ok"}}}"#,
        r#"{"method":"drc_status_notify","data":{"result":514301,"drc_state":0}}"#,
        r#"{"data":{"output":{"status":"ok"},"result":0}}"#,
    ] {
        assert_eq!(event("thing/product/SN1/events", payload).progress, None, "{payload}");
    }
}

#[test]
fn the_catalogue_tells_answers_from_reports_on_drc() {
    let topic = UplinkTopic::parse("thing/product/SN1/drc/up").unwrap();
    // Without a result an answer can still be told by its name, and says nothing good.
    let payload = br#"{"method":"drone_emergency_stop","seq":4,"data":{}}"#;
    let Ok(Uplink::DrcAck(ack)) = uplink::read(&topic, payload, &*CATALOGUE) else {
        panic!("no answer")
    };
    assert_eq!((ack.seq, ack.reply.verdict), (Some(4), Verdict::Unreadable));
    assert!(matches!(uplink::read(&topic, payload, &NoMeanings), Ok(Uplink::DrcPush(_))));
    let payload = br#"{"method":"stick_control","seq":4,"data":{"result":0}}"#;
    assert!(matches!(uplink::read(&topic, payload, &*CATALOGUE), Ok(Uplink::DrcPush(_))));
}

#[test]
fn a_dialog_that_is_shown_is_no_consent_and_one_that_fails_is_the_end() {
    let job = |method: &str, status: &str| {
        let payload = format!(
            "{{\"tid\":\"t\",\"method\":\"{method}\",\"data\":{{\"result\":0,\"output\":{{\"status\":\"{status}\"}}}}}}"
        );
        let topic = UplinkTopic::parse("thing/product/RC/services_reply").unwrap();
        let read = uplink::read(&topic, payload.as_bytes(), &*CATALOGUE).unwrap();
        let Uplink::Reply(answer) = read else { panic!("{read:?}") };
        answer.reply.job
    };
    assert_eq!(job("cloud_control_auth_request", "ok"), None);
    assert_eq!(job("cloud_control_auth_request", "failed"), Some(JobState::Failed));
    assert_eq!(job("cover_open", "ok"), Some(JobState::Succeeded));
}
