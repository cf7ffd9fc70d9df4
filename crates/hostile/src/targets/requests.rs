//! Requests beside those that make commands: lists of the API, and the control API of the simulator.

use std::sync::LazyLock;

use serde_json::Value;
use utmos_server::http::{
    problem::Problem,
    try_lists::{Listed, OTHERS, commands, unmatched},
};
use utmos_sim::control::trying::Trying;

use super::{first_line, is_told};

/// Longest page.
const PAGE_MAX: usize = 500;
/// Problems that one answer names at most.
const PROBLEMS_MAX: usize = 101;

/// Reads the query of a list of commands, of one of messages, and of every other endpoint that takes one.
pub fn list_queries(input: &[u8]) {
    let query = String::from_utf8_lossy(input);
    for read in [commands, unmatched] {
        match read(Some(&query)) {
            Ok(listed) => {
                assert!((1..=PAGE_MAX).contains(&listed.limit), "{listed:?}");
                assert_eq!(read(Some(&written(&listed))).as_ref().ok(), Some(&listed), "{query}");
                // A page goes on from the cursor alone.
                let next = format!("{}&limit=1", cursor(&listed));
                assert_eq!(read(Some(&next)).ok().map(|next| next.before), Some(listed.before));
            }
            Err(problem) => refusal(&problem),
        }
    }
    for (endpoint, read) in OTHERS {
        match read(Some(&query)) {
            Ok(asked) => {
                assert!(asked.limit.is_none_or(|limit| (1..=PAGE_MAX).contains(&limit)));
                assert!(asked.range.is_none_or(|(from, to)| from < to), "{endpoint}: {asked:?}");
                let parts = asked.written.iter();
                let parts = parts.map(|(name, value)| format!("{name}={}", encoded(value)));
                let written = parts.collect::<Vec<_>>().join("&");
                let again = read(Some(&written));
                assert_eq!(again.as_ref().ok(), Some(&asked), "{endpoint}: {query}");
            }
            Err(problem) => refusal(&problem),
        }
    }
}

fn cursor(listed: &Listed) -> String {
    listed.before.map(|before| format!("cursor={before}")).unwrap_or_default()
}

/// The query that says the same.
fn written(listed: &Listed) -> String {
    let filter = &listed.filter;
    let time = |name: &str, at: utmos_core::time::Timestamp| format!("{name}={at}");
    let parts = [
        Some(cursor(listed)),
        Some(format!("limit={}", listed.limit)),
        filter.device.as_ref().map(|sn| format!("device_id={sn}")),
        filter.status.map(|status| format!("status={}", status.as_str())),
        filter.method.as_ref().map(|method| format!("command_type={}", encoded(method))),
        filter.accepted_after.map(|at| time("accepted_after", at)),
        filter.accepted_before.map(|at| time("accepted_before", at)),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    parts.join("&")
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn refusal(problem: &Problem) {
    assert!(problem.code.status().is_client_error(), "{problem:?}");
    is_told(&problem.message);
    assert!((1..PROBLEMS_MAX).contains(&problem.details.len()), "{problem:?}");
    for detail in &problem.details {
        assert!(detail.field.starts_with("query:") && detail.field.len() < 4_096, "{detail:?}");
        is_told(&detail.problem);
        let given = detail.given.as_ref().map_or(0, |given| given.to_string().len());
        assert!(given < 4_096, "{given} bytes of what was given are said again");
    }
}

/// Sends a request to the control API of the simulator. It answers, in JSON, and what was added is on its list until it is
/// taken away.
pub fn sim_control(input: &[u8]) {
    static CONTROL: LazyLock<std::sync::Mutex<Trying>> = LazyLock::new(|| {
        Trying::start().unwrap_or_else(|err| panic!("the control API does not start: {err}")).into()
    });
    let (first, body) = first_line(input);
    let first = String::from_utf8_lossy(first);
    let (method, target) = first.split_once(' ').unwrap_or((&first, "/"));
    let control = CONTROL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some((status, answer)) = control.ask(method, target, body) else { return };
    assert!(
        matches!(status, 200 | 201 | 202 | 204 | 400 | 404 | 405 | 409 | 413),
        "{first} is answered {status}"
    );
    if method == "HEAD" || matches!(status, 202 | 204) {
        return assert!(answer.is_empty(), "{first}: a body that nobody expects");
    }
    let answer: Value = serde_json::from_slice(&answer)
        .unwrap_or_else(|err| panic!("{first} is answered with no JSON: {err}"));
    match status {
        201 => is_there_until_removed(&control, target, &answer),
        200 => {}
        _ => {
            let word = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
            is_told(&word("message"));
            let code = word("code");
            assert!(!code.is_empty() && code == code.to_uppercase(), "{answer}");
            for detail in answer["details"].as_array().into_iter().flatten() {
                is_told(detail["problem"].as_str().unwrap_or_default());
            }
        }
    }
}

fn is_there_until_removed(control: &Trying, target: &str, added: &Value) {
    let path = target.split('?').next().unwrap_or_default();
    let id = added["id"].as_u64().unwrap_or_else(|| panic!("{added} has no id"));
    let listed = || {
        let (_, list) = control.ask("GET", path, b"").unwrap_or_default();
        let list: Value = serde_json::from_slice(&list).unwrap_or_default();
        let entries = list.as_object().and_then(|list| list.values().next()?.as_array().cloned());
        entries.into_iter().flatten().find(|entry| entry["id"] == id)
    };
    assert!(listed().is_some(), "{added} is not on the list");
    let one = format!("{path}/{id}");
    let remove = || control.ask("DELETE", &one, b"").map(|(status, _)| status);
    assert_eq!(remove(), Some(204), "{added}");
    assert!(listed().is_none(), "{added} is still there");
    assert_eq!(remove(), Some(404), "{added}");
}
