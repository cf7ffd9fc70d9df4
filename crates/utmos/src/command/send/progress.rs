//! What a command's life looks like on a screen.

use std::fmt::Write;

use serde_json::Value;

use crate::{api::client::Client, output};

/// Writes a line whenever something that people see has changed.
pub struct Progress<'a> {
    client: &'a Client,
    since: u64,
    head: String,
    last: String,
}

impl<'a> Progress<'a> {
    /// Begins at the moment of acceptance.
    pub fn new(client: &'a Client, id: &str, method: &str, device: &str) -> Self {
        let head = format!("{method} for {device}, command {id}");
        Self { client, since: client.running_millis(), head, last: String::new() }
    }

    /// The server has taken it.
    pub fn accepted(&mut self, created: &Value, is_replayed: bool) {
        let status = created["status"].as_str().unwrap_or_default();
        let again = if is_replayed { " (the same request as before)" } else { "" };
        self.write(&format!("{status:<10} {}{again}", self.head));
        status.clone_into(&mut self.last);
    }

    /// It stands like this now.
    pub fn changed(&mut self, command: &Value) {
        let shown = state(command);
        if shown != self.last {
            self.write(&shown);
            self.last = shown;
        }
    }

    fn write(&self, text: &str) {
        let millis = self.client.running_millis().saturating_sub(self.since);
        output::note(format_args!("{:>4}.{:03} s  {text}", millis / 1000, millis % 1000));
    }
}

/// Status, and how the job goes.
fn state(command: &Value) -> String {
    let mut text = command["status"].as_str().unwrap_or_default().to_owned();
    let execution = &command["execution"];
    if let Some(word) = execution["state"].as_str() {
        let _infallible =
            write!(text, "{}{word}", " ".repeat(11_usize.saturating_sub(text.len()).max(1)));
    }
    if let Some(step) = execution["step"].as_str() {
        let _infallible = write!(text, ", {step}");
    }
    if let Some(percent) = execution["percent"].as_u64() {
        let _infallible = write!(text, ", {percent} %");
    }
    text
}

/// The last word on a command.
pub fn ending(command: &Value) -> String {
    let text = |name: &str| command[name].as_str();
    let mut last = text("status").unwrap_or_default().to_owned();
    if let Some(code) = text("failure_code") {
        let _infallible = write!(last, " {code}");
    }
    if let Some(reason) = text("failure_reason") {
        let _infallible = write!(last, ": {reason}");
    }
    if let Some(code) = text("response_code") {
        let message =
            text("response_message").map(|message| format!(" {message}")).unwrap_or_default();
        let _infallible = write!(last, "\n  response  {code}{message}");
    }
    // Of a job that was reported on, the reply's output tells only how it began.
    let output =
        command["vendor_response"].get("output").filter(|_| command["execution"].is_null());
    if let Some(output) = output.filter(|output| !output.is_null()) {
        let _infallible = write!(last, "\n  output    {output}");
    }
    let _infallible = write!(last, "\n  command   {}", text("command_id").unwrap_or_default());
    last
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_shows_how_far_it_is() {
        let command = json!({
            "status": "DELIVERED",
            "execution": {"state": "in_progress", "step": "open_cover", "percent": 40},
        });
        assert_eq!(state(&command), "DELIVERED  in_progress, open_cover, 40 %");
        assert_eq!(state(&json!({"status": "ACCEPTED", "execution": null})), "ACCEPTED");
    }

    #[test]
    fn the_ending_says_why() {
        let command = json!({
            "status": "FAILED", "failure_code": "DEVICE_EXECUTION_FAILED", "failure_reason": "the device refused it",
            "response_code": "316006", "response_message": "no", "command_id": "c", "vendor_response": {"result": 316006},
        });
        assert_eq!(
            ending(&command),
            "FAILED DEVICE_EXECUTION_FAILED: the device refused it\n  response  316006 no\n  command   c"
        );
        let plain = json!({"status": "DELIVERED", "command_id": "c", "vendor_response": null});
        assert_eq!(ending(&plain), "DELIVERED\n  command   c");
    }
}
