//! A remote controller's pilot, who lets the cloud fly and takes it back. The simulated one always agrees.

use serde_json::{Map, Value, json};
use utmos_core::method::Risk;
use utmos_dji::catalogue::Method;

use super::{
    Dock,
    commands::{Command, Verdict},
    work::{Form, Step},
};
use crate::{model::gateway::Control, refusal};

/// How long the pilot looks at the dialog, seconds.
const THINKING_SECONDS: f64 = 5.0;

impl Dock {
    /// Whether a command has to wait until the pilot has agreed. What stops an aircraft never has to.
    pub(super) fn needs_consent(&self, method: &Method) -> bool {
        let flies = method.risk == Risk::Motion || method.name == "drc_mode_enter";
        self.config.model.gateway().control == Control::Granted && flies && !self.authority
    }

    pub(super) fn consent_command(&mut self, command: &Command<'_>) -> Option<Verdict> {
        Some(match command.method {
            "cloud_control_auth_request" => {
                if command.text("/control_keys/0") != Some("flight") {
                    return Some(Verdict::Refused(refusal::BAD_PARAMETER));
                }
                let steps = [Step::last(THINKING_SECONDS, "ok", None)];
                self.start_job(command, "cloud_control_auth_notify", Form::Consent, steps);
                // Says that the dialog is shown, and no more.
                Verdict::Started(Map::from_iter([("output".to_owned(), json!({"status": "ok"}))]))
            }
            "cloud_control_release" => {
                self.authority = false;
                self.push_consent();
                Verdict::done_ok()
            }
            _ => return None,
        })
    }

    /// The pilot has agreed.
    pub(super) fn consented(&mut self) {
        self.authority = true;
        self.push_consent();
    }

    fn push_consent(&mut self) {
        let names = self.config.model.gateway().state.iter();
        let told = names.filter(|name| name.ends_with("cloud_control_auth"));
        let data: Map<String, Value> =
            told.map(|name| ((*name).to_owned(), self.gateway_value(name))).collect();
        self.state(self.sn.to_device(), &Value::Object(data));
    }
}
