//! `GET /metrics` in Prometheus' text format. Names are a contract: `ARCHITECTURE.md` lists them.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::App;
use crate::durations::{CLASSES, Durations};

/// What of the API is timed: the server's own part, without the network and the wait for a processor before it.
#[derive(Debug, Default)]
pub struct Times {
    /// From a signature that is right to the answer with a device's latest.
    pub latest: Durations,
    /// Until the store has the nonce of a request that only reads, which its answer waits for.
    pub nonce: Durations,
}

/// Figures for a monitoring system.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    operation_id = "metrics",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"))
)]
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = std::future::ready(render(&app)).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn render(app: &App) -> String {
    let (driver, link) = (app.driver.figures(), app.link.figures());
    let (desk, telemetry) = (app.desk.figures(), app.telemetry.figures());
    let events = app.events.figures();
    let mut text = String::new();
    let (fleet, onboarding) = (app.fleet.figures(), app.onboarding.figures());
    let counters: [(&str, &str, &AtomicU64); 37] = [
        ("commands_accepted", "Commands stored", &driver.accepted),
        ("commands_published", "Messages handed to the broker", &driver.published),
        ("commands_ended", "Commands that ended", &driver.ended),
        (
            "commands_accepted_directly",
            "Commands that another server accepted, asked directly",
            &driver.accepted_directly,
        ),
        (
            "commands_unheard_directly",
            "The same of which nobody heard in time what came of them; the database was asked",
            &driver.unheard_directly,
        ),
        ("saves_overtaken", "Saves that another change overtook", &driver.overtaken),
        ("saves_failed", "Saves that the store refused", &driver.store_failures),
        ("uplink_received", "Messages of devices", &link.received),
        ("uplink_malformed", "Messages of devices that could not be read", &link.malformed),
        ("uplink_unmatched", "Replies that belong to no command", &link.unmatched),
        ("uplink_strangers", "Messages of devices nobody registered", &link.strangers),
        (
            "uplink_unclear",
            "Messages of aircraft that several gateways have, and that name none of them",
            &link.unclear,
        ),
        (
            "uplink_forged",
            "Messages that name a gateway which their device does not stand behind",
            &link.forged,
        ),
        ("devices_came", "How often a device came", &fleet.came),
        ("devices_went", "How often a device went", &fleet.went),
        (
            "devices_looked_at",
            "How often it was looked whether a device had come or gone",
            &fleet.looks,
        ),
        ("devices_bound", "Gateways that joined with a binding code", &onboarding.bound),
        ("bindings_refused", "Devices whose binding was refused", &onboarding.refused),
        ("uplink_answered", "Answers sent to devices", &link.answered),
        (
            "uplink_left_unanswered",
            "Messages not answered because too many answers to their gateway were on their way",
            &link.left_unanswered,
        ),
        (
            "uplink_unanswered",
            "Requests of devices that nothing answers by itself",
            &desk.unanswered,
        ),
        ("device_requests_received", "Requests of devices", &desk.received),
        ("device_requests_repeated", "Requests of devices that came before", &desk.repeated),
        ("device_requests_auto_replied", "Requests answered automatically", &desk.automatic),
        ("device_requests_replied", "Requests answered by hand", &desk.by_hand),
        ("device_requests_expired", "Requests nobody answered in time", &desk.expired),
        ("device_requests_unrecorded", "Requests answered without a record", &desk.unrecorded),
        ("device_requests_dropped", "Requests there was no room for", &desk.dropped),
        (
            "uplink_dropped",
            "Messages of devices dropped because their gateway said more than could be stored",
            &link.dropped,
        ),
        ("telemetry_messages", "Messages with telemetry", &telemetry.taken),
        ("telemetry_samples", "Samples written to the history", &telemetry.kept),
        (
            "telemetry_dropped",
            "Telemetry that found no room or could not be written",
            &telemetry.dropped,
        ),
        (
            "telemetry_latest_left_out",
            "Properties left out of the latest since their tenant's share of it was full",
            &telemetry.crowded_out,
        ),
        ("events_received", "Events of devices, every copy", &events.received),
        ("events_repeated", "Events of devices that told nothing new", &events.repeated),
        ("events_stored", "Events of devices that were stored", &events.stored),
        ("events_dropped", "Events of devices that could not be stored", &events.dropped),
    ];
    let store = app.store.depths();
    for (name, help, counter) in counters {
        let value = counter.load(Ordering::Relaxed);
        let _ =
            writeln!(text, "# HELP utmos_{name}_total {help}\n# TYPE utmos_{name}_total counter");
        let _ = writeln!(text, "utmos_{name}_total {value}");
    }
    let _ = writeln!(
        text,
        "# HELP utmos_store_commits_total Transactions of the database, each of them one sync of its log\n\
         # TYPE utmos_store_commits_total counter\nutmos_store_commits_total {}",
        store.commits
    );
    let limited = app.allowances.figures();
    let name = "utmos_http_rate_limited_total";
    let _ = writeln!(
        text,
        "# HELP {name} Requests refused since their credential, or its tenant, asks too often\n# TYPE {name} counter"
    );
    for (whose, counter) in [("credential", &limited.credential), ("tenant", &limited.tenant)] {
        let value = counter.load(Ordering::Relaxed);
        let _ = writeln!(text, "{name}{{whose=\"{whose}\"}} {value}");
    }
    let (requests_open, requests_recording) = app.desk.depths();
    let lanes = app.driver.depths();
    let gauges = [
        ("commands_open", "Commands that are looked after", lanes.open),
        ("commands_waiting", "Commands that wait to be sent", lanes.waiting),
        ("commands_leaving", "Claimed commands not handed to the broker yet", lanes.leaving),
        ("lanes", "Lanes of gateways that hold anything", lanes.lanes),
        ("lanes_told", "What was told of commands and is not decided yet", lanes.told),
        ("store_writes_waiting", "Writes that the store has not answered", store.writes),
        ("store_urgent_writes_waiting", "The same of emergencies", store.urgent_writes),
        ("journal_unsettled", "Emergencies in the journal, not on record yet", store.unsettled),
        ("device_requests_waiting", "Requests that wait for an answer or to leave", requests_open),
        ("device_requests_recording", "Requests whose record is being written", requests_recording),
        ("devices_online", "Devices that count as there", app.fleet.online()),
        ("uplink_waiting", "Messages of devices that wait to be taken in", app.inbound.depth()),
        ("uplink_answering", "Answers to devices on their way", app.link.answering()),
        (
            "uplink_chores",
            "What devices said and that waits for the store",
            app.link.chores_waiting(),
        ),
        ("telemetry_devices", "Devices whose telemetry is in memory", app.telemetry.devices()),
        (
            "telemetry_pending_bytes",
            "Bytes of samples that wait to be written",
            app.telemetry.pending_bytes(),
        ),
        (
            "telemetry_latest_bytes",
            "Bytes that are held of the latest of all devices",
            app.telemetry.latest_bytes(),
        ),
        (
            "history_bytes",
            "Bytes of the history that are in use",
            usize::try_from(telemetry.history_bytes.load(Ordering::Relaxed)).unwrap_or(usize::MAX),
        ),
        ("events_waiting", "Events of devices that wait for the store", app.events.waiting()),
    ];
    for (name, help, value) in gauges {
        let _ = writeln!(
            text,
            "# HELP utmos_{name} {help}\n# TYPE utmos_{name} gauge\nutmos_{name} {value}"
        );
    }
    let durations = [
        ("store_accept", "Time until the store has answered about a new command", &driver.accept),
        ("store_advance", "Time until the store has answered about a change", &driver.advance),
        ("device_request_reply", "Time from a request to its automatic answer", &desk.answer),
        (
            "store_nonce",
            "Time until the store has the nonce of a request that reads",
            &app.times.nonce,
        ),
        (
            "http_latest",
            "Time from a right signature to the answer with a latest",
            &app.times.latest,
        ),
        ("publish", "Time until the broker has given its word on a message", &driver.publish),
    ];
    for (name, help, durations) in durations {
        let name = format!("utmos_{name}_seconds");
        let (up_to, count, sum) = durations.read();
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        for ((_, end), up_to) in CLASSES.iter().zip(up_to) {
            let _ = writeln!(text, "{name}_bucket{{le=\"{end}\"}} {up_to}");
        }
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {count}");
    }
    text
}
