//! `utmos send`: signs, sends, waits, and ends with a code that tells the outcome.
//!
//! The idempotency key is made before the first attempt, so that a request whose answer got lost can be sent again
//! without the device getting the command twice.

mod progress;

use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use reqwest::Method;
use serde_json::{Map, Value, json};
use utmos_core::{command::Status, ports::Ids};
use utmos_server::ids::SystemIds;

use self::progress::Progress;
use super::{credential::CompleteOnArg, sign::read_argument};
use crate::{
    api::{
        access::AccessArgs,
        client::{Answer, Client, NoAnswer},
    },
    exit::Exit,
    output,
    time::{now, parse_duration},
};

const COMMANDS: &str = "/api/v1/open/downlink/commands";
/// How long the server may hold an answer back while nothing changes.
const HELD_SECONDS: u64 = 30;
/// How long a server that was never reached is tried.
const REACH_WAIT: Duration = Duration::from_secs(2);
/// How long a server that was reached once is tried again, a restart included.
const LOST_WAIT: Duration = Duration::from_secs(60);
const RETRY_WAIT_MIN: Duration = Duration::from_millis(200);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest timeout the API takes.
const TIMEOUT_SECONDS_MAX: u64 = 300;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Serial number of a dock, remote controller or aircraft
    device_id: String,
    /// The method, such as cover_open; `utmos catalog` lists all
    command_type: String,
    /// The payload as JSON: text, @file, or - for standard input
    #[arg(default_value = "{}")]
    payload: String,
    /// How long the device's answer is waited for: 30, 30s, 5m [default: the method's own]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    timeout: Option<Duration>,
    /// What to do while the device is offline [default: fail for motion and emergency, else wait]
    #[arg(long, value_enum)]
    if_offline: Option<IfOfflineArg>,
    /// What SUCCEEDED waits for in jobs [default: what the credential says, usually outcome]
    #[arg(long, value_enum)]
    complete_on: Option<CompleteOnArg>,
    /// Makes a repeated request the same command [default: a new UUID of version 7]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Check everything and show what would be sent
    #[arg(long)]
    dry_run: bool,
    /// Print the command as JSON at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// What becomes of a command whose gateway is absent, as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum IfOfflineArg {
    /// It waits until its deadline
    Wait,
    /// It fails at once
    Fail,
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    let (request, client) = match (request(&args), args.access.find().and_then(Client::new)) {
        (Ok(request), Ok(client)) => (request, client),
        (Err(err), _) | (Ok(_), Err(err)) => {
            output::trouble(format_args!("error: {err:#}"));
            return Ok(Exit::Usage);
        }
    };
    let sending = Sending { client: &client, args: &args, key: &request.key };
    let accepted = match sending.post(&request.body).await {
        Ok(answer) if answer.status < 300 => answer,
        Ok(answer) => return Ok(refused(&answer)),
        Err(lost) => return Ok(sending.unreachable(&lost)),
    };
    if args.dry_run {
        output::json(&accepted.body);
        return Ok(Exit::Done);
    }
    let Some(id) = accepted.body["command_id"].as_str() else {
        bail!("the server's answer names no command: {}", accepted.body);
    };
    let mut progress = Progress::new(&client, id, &args.command_type, &args.device_id);
    progress.accepted(&accepted.body, accepted.is_replayed);
    match sending.wait(id, &mut progress).await {
        Ok(command) => Ok(ended(&command, args.json)),
        Err(Stopped::Refused(answer)) => Ok(refused(&answer)),
        Err(Stopped::NoAnswer(lost)) => Ok(sending.unreachable(&lost)),
        Err(Stopped::Interrupted) => {
            output::note(format_args!(
                "the command goes on; to see how it ends, send it again with {}",
                sending.again()
            ));
            Ok(Exit::Failure)
        }
    }
}

/// A request body and the key that makes it repeatable.
struct Request {
    body: Value,
    key: String,
}

fn request(args: &Args) -> anyhow::Result<Request> {
    let payload: Value = serde_json::from_slice(&read_argument(&args.payload)?)
        .context("the payload is no JSON; write it as one argument, such as '{\"action\": 1}'")?;
    let key =
        args.idempotency_key.clone().unwrap_or_else(|| SystemIds::new().ordered(now()).to_string());
    let mut body = Map::new();
    body.insert("vendor".to_owned(), "dji".into());
    body.insert("device_id".to_owned(), args.device_id.as_str().into());
    body.insert("command_type".to_owned(), args.command_type.as_str().into());
    body.insert("payload".to_owned(), payload);
    body.insert("idempotency_key".to_owned(), key.as_str().into());
    if let Some(timeout) = args.timeout {
        body.insert("timeout_seconds".to_owned(), timeout.as_secs().into());
    }
    if let Some(if_offline) = args.if_offline {
        let word = match if_offline {
            IfOfflineArg::Wait => "wait",
            IfOfflineArg::Fail => "fail",
        };
        body.insert("if_offline".to_owned(), word.into());
    }
    if let Some(complete_on) = args.complete_on {
        body.insert(
            "complete_on".to_owned(),
            json!(utmos_core::method::CompleteOn::from(complete_on)),
        );
    }
    if args.dry_run {
        body.insert("dry_run".to_owned(), true.into());
    }
    Ok(Request { body: body.into(), key })
}

/// One command on its way.
struct Sending<'a> {
    client: &'a Client,
    args: &'a Args,
    key: &'a str,
}

/// Why nobody waits any longer for a command that was accepted.
enum Stopped {
    Refused(Answer),
    NoAnswer(NoAnswer),
    Interrupted,
}

impl Sending<'_> {
    /// Sends the command until there is an answer. Safe to repeat: the key makes all attempts one command.
    async fn post(&self, body: &Value) -> Result<Answer, NoAnswer> {
        let mut tries = Tries::new(self.client, false);
        loop {
            let outcome =
                self.client.call(Method::POST, COMMANDS, Some(body), Duration::ZERO).await;
            if let Some(end) = tries.judge(outcome).await {
                return end;
            }
        }
    }

    /// Follows the command to its end.
    async fn wait(&self, id: &str, progress: &mut Progress<'_>) -> Result<Value, Stopped> {
        let mut version = 0;
        loop {
            let path = format!("{COMMANDS}/{id}?wait={HELD_SECONDS}&after_version={version}");
            let command = tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => return Err(Stopped::Interrupted),
                answer = self.get(&path) => answer.map_err(Stopped::NoAnswer)?,
            };
            if command.status >= 300 {
                return Err(Stopped::Refused(command));
            }
            let command = command.body;
            version = command["status_version"].as_u64().unwrap_or(version);
            progress.changed(&command);
            if !command["completed_at"].is_null() {
                return Ok(command);
            }
        }
    }

    async fn get(&self, path: &str) -> Result<Answer, NoAnswer> {
        let mut tries = Tries::new(self.client, true);
        loop {
            let held = Duration::from_secs(HELD_SECONDS);
            let outcome = self.client.call(Method::GET, path, None, held).await;
            if let Some(end) = tries.judge(outcome).await {
                return end;
            }
        }
    }

    fn unreachable(&self, lost: &NoAnswer) -> Exit {
        output::trouble(format_args!(
            "error: {} does not answer: {}",
            self.client.url(),
            lost.reason
        ));
        if lost.may_have_arrived {
            output::note(format_args!(
                "the command may have been accepted; to find out without sending it twice, repeat it with {}",
                self.again()
            ));
        } else {
            output::note("check that the server runs (`utmos serve`) and that --url is right");
        }
        Exit::Unreachable
    }

    /// What makes the same command line mean the same command.
    fn again(&self) -> String {
        if self.args.idempotency_key.is_some() {
            return "the same arguments".to_owned();
        }
        format!("--idempotency-key {}", self.key)
    }
}

/// Tries again while that is safe and may help.
struct Tries<'a> {
    client: &'a Client,
    since: u64,
    was_reached: bool,
    pause: Duration,
}

impl<'a> Tries<'a> {
    fn new(client: &'a Client, was_reached: bool) -> Self {
        Self { client, since: client.running_millis(), was_reached, pause: RETRY_WAIT_MIN }
    }

    /// The end, or a pause before the next attempt.
    async fn judge(
        &mut self,
        outcome: Result<Answer, NoAnswer>,
    ) -> Option<Result<Answer, NoAnswer>> {
        let mut pause = self.pause;
        let outcome = match outcome {
            Ok(answer) if answer.status == 429 || answer.status >= 500 => {
                self.was_reached = true;
                pause = answer.retry_after.unwrap_or(pause);
                Ok(answer)
            }
            Ok(answer) => return Some(Ok(answer)),
            Err(lost) => {
                self.was_reached |= lost.may_have_arrived;
                Err(NoAnswer { may_have_arrived: self.was_reached, ..lost })
            }
        };
        let limit = if self.was_reached { LOST_WAIT } else { REACH_WAIT };
        let spent = Duration::from_millis(self.client.running_millis().saturating_sub(self.since));
        if spent + pause > limit {
            return Some(outcome);
        }
        tokio::time::sleep(pause).await;
        self.pause = (self.pause * 2).min(RETRY_WAIT_MAX);
        None
    }
}

/// Tells why the server said no.
fn refused(answer: &Answer) -> Exit {
    for line in refusal(answer) {
        output::note(line);
    }
    if answer.status >= 500 { Exit::Unreachable } else { Exit::Refused }
}

fn refusal(answer: &Answer) -> Vec<String> {
    let text = |name: &str| answer.body[name].as_str().unwrap_or_default();
    let code = if text("code").is_empty() { "no known answer" } else { text("code") };
    let mut lines = vec![format!("error: {} {code}: {}", answer.status, text("message"))];
    for detail in answer.body["details"].as_array().into_iter().flatten() {
        let part = |name: &str| detail[name].as_str().unwrap_or_default();
        let problem = format!("{} {}", part("field"), part("problem"));
        // The string the server built is for a diff, not for a line.
        let given = &detail["given"];
        let given = if given.is_null() || given.is_object() {
            String::new()
        } else {
            format!(" (given: {given})")
        };
        if problem != text("message") {
            lines.push(format!("  {problem}{given}"));
        }
        if let Some(built) = detail["given"]["string_to_sign"].as_str() {
            lines.push(
                "  the server built this string; compare it with that of `utmos sign`:".to_owned(),
            );
            lines.extend(built.lines().map(|line| format!("    {line}")));
        }
    }
    if !text("request_id").is_empty() {
        lines.push(format!("  request {}", text("request_id")));
    }
    lines
}

fn ended(command: &Value, as_json: bool) -> Exit {
    if as_json {
        output::json(command);
    } else {
        output::line(progress::ending(command));
    }
    let status = command["status"].as_str().and_then(Status::parse);
    status.map_or(Exit::Failure, Exit::of)
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    if timeout.as_secs() > TIMEOUT_SECONDS_MAX {
        return Err(format!("must be at most {TIMEOUT_SECONDS_MAX} s"));
    }
    Ok(timeout)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use clap::Parser;
    use uuid::Uuid;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn body(arguments: &[&str]) -> Value {
        let line = ["send"].iter().chain(arguments);
        request(&Line::try_parse_from(line).unwrap().args).unwrap().body
    }

    #[test]
    fn the_body_holds_what_was_asked_for_and_nothing_else() {
        let plain = body(&["SN", "cover_open"]);
        assert_eq!(plain["payload"], json!({}));
        assert_eq!(plain.as_object().unwrap().len(), 5);
        let key: Uuid = plain["idempotency_key"].as_str().unwrap().parse().unwrap();
        assert_eq!(key.get_version_num(), 7);
        let full = body(&[
            "SN",
            "x",
            "{\"a\":1}",
            "--timeout",
            "2m",
            "--if-offline",
            "wait",
            "--complete-on",
            "reply",
            "--idempotency-key",
            "k",
            "--dry-run",
        ]);
        let expected = json!({
            "vendor": "dji", "device_id": "SN", "command_type": "x", "payload": {"a": 1}, "idempotency_key": "k",
            "timeout_seconds": 120, "if_offline": "wait", "complete_on": "reply", "dry_run": true,
        });
        assert_eq!(full, expected);
    }

    #[test]
    fn a_refusal_is_told_with_all_its_details_and_without_repeating_itself() {
        let answer =
            |body: Value| Answer { status: 400, body, retry_after: None, is_replayed: false };
        let one = json!({"code": "C", "message": "/a is required", "request_id": "r",
            "details": [{"field": "/a", "problem": "is required"}]});
        assert_eq!(refusal(&answer(one)), ["error: 400 C: /a is required", "  request r"]);
        let two = json!({"code": "C", "message": "2 values do not fit", "details": [
            {"field": "/a", "problem": "is required"},
            {"field": "/b", "problem": "must be 1", "given": 2},
        ]});
        assert_eq!(
            refusal(&answer(two)),
            ["error: 400 C: 2 values do not fit", "  /a is required", "  /b must be 1 (given: 2)"]
        );
        assert_eq!(refusal(&answer(Value::Null)), ["error: 400 no known answer: "]);
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        for bad in
            [&["SN"][..], &["SN", "x", "--timeout", "301"], &["SN", "x", "--if-offline", "maybe"]]
        {
            assert!(Line::try_parse_from(["send"].iter().chain(bad)).is_err(), "{bad:?}");
        }
        let line = Line::try_parse_from(["send", "SN", "x", "{broken"]).unwrap();
        assert!(request(&line.args).is_err());
    }
}
