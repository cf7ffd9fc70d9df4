//! `property/set_reply`: the same path as was set, with `{"result": …}` where the value stood.
//!
//! DJI, "Set device property": 0 ok, 1 failed, 2 timed out, anything else an error code.

use utmos_core::{
    id::GatewaySn,
    reply::{Reply, Verdict},
};

use super::{Exchange, Meanings, ReplyTo, method, outcome};
use crate::{
    envelope::Envelope,
    json::{Scalar, each_field, pick},
};

/// How deep results are looked for. DJI's properties have at most two levels.
const LEVELS_MAX: usize = 8;

/// Reads a message on `property/set_reply`.
pub(super) fn read(
    gateway: &GatewaySn,
    envelope: &Envelope<'_>,
    meanings: &dyn Meanings,
) -> ReplyTo {
    let data = envelope.data_or_null();
    let mut tally = Tally::default();
    tally.collect(data, LEVELS_MAX);
    let code = tally.refused.or(tally.good.then(|| "0".to_owned()));
    let verdict = match (&code, tally.good, tally.unreadable) {
        (Some(code), _, _) if code != "0" => Verdict::Refused,
        (_, true, false) => Verdict::Ok,
        (Some(_) | None, true | false, true | false) => Verdict::Unreadable,
    };
    let message = code.as_deref().and_then(|code| match code {
        "1" => Some("the property could not be set".to_owned()),
        "2" => Some("setting the property timed out".to_owned()),
        code => outcome::meaning_of(code, meanings),
    });
    ReplyTo {
        exchange: Exchange::of(envelope),
        device_time: envelope.timestamp,
        reply: Reply {
            gateway: gateway.clone(),
            method: method(envelope),
            verdict,
            code,
            message,
            job: None,
            data: data.into(),
        },
    }
}

#[derive(Default)]
struct Tally {
    good: bool,
    /// The first result that is not 0.
    refused: Option<String>,
    unreadable: bool,
}

impl Tally {
    fn collect(&mut self, raw: &str, levels_left: usize) {
        let [result] = pick(raw, ["result"]);
        match result.scalar() {
            Scalar::Null | Scalar::Other => self.descend(raw, levels_left),
            Scalar::Bool(_) | Scalar::Number(_) | Scalar::Text(_) => {
                match outcome::verdict_of(result) {
                    Verdict::Ok => self.good = true,
                    Verdict::Refused => {
                        let code = outcome::to_code(&result.scalar());
                        self.unreadable |= code.is_none();
                        self.refused = self.refused.take().or(code);
                    }
                    Verdict::Unreadable => self.unreadable = true,
                }
            }
        }
    }

    fn descend(&mut self, raw: &str, levels_left: usize) {
        let mut fields = Vec::new();
        let read = each_field(raw, &mut |_, value| fields.push(value.get()));
        let Some(levels_left) =
            levels_left.checked_sub(1).filter(|_| read.is_ok() && !fields.is_empty())
        else {
            self.unreadable = true;
            return;
        };
        for field in fields {
            self.collect(field, levels_left);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test with a wrong message should stop")]

    use super::{super::NoMeanings, *};

    #[test]
    fn a_property_is_set_only_if_every_result_is_nought() {
        use Verdict::{Ok, Refused, Unreadable};
        for (data, verdict, code) in [
            (r#"{"silent_mode":{"result":0}}"#, Ok, Some("0")),
            (r#"{"distance_limit_status":{"state":{"result":0}}}"#, Ok, Some("0")),
            (r#"{"distance_limit_status":{"state":{"result":"0"}}}"#, Ok, Some("0")),
            (r#"{"result":0}"#, Ok, Some("0")),
            (r#"{"a":{"result":0},"b":{"c":{"result":0}}}"#, Ok, Some("0")),
            (r#"{"a":{"result":0},"b":{"c":{"result":2}}}"#, Refused, Some("2")),
            (r#"{"a":{"result":316001},"b":{"result":2}}"#, Refused, Some("316001")),
            (r#"{"a":{"result":0},"b":{"result":null}}"#, Unreadable, Some("0")),
            (r#"{"a":{"result":0},"b":7}"#, Unreadable, Some("0")),
            (r#"{"a":{"result":1},"b":7}"#, Refused, Some("1")),
            (r#"{"a":{"result":1,"result":0}}"#, Unreadable, None),
            (r#"{"a":{"result":true}}"#, Unreadable, None),
            (r#"{"a":0}"#, Unreadable, None),
            (r#"{"a":{}}"#, Unreadable, None),
            (r#"{}"#, Unreadable, None),
            ("null", Unreadable, None),
            ("[0]", Unreadable, None),
            (
                r#"{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"result":0}}}}}}}}}}"#,
                Unreadable,
                None,
            ),
        ] {
            let text = format!(r#"{{"data":{data}}}"#);
            let read = read(
                &GatewaySn::parse("SN1").unwrap(),
                &Envelope::read(&text).unwrap(),
                &NoMeanings,
            );
            assert_eq!((read.reply.verdict, read.reply.code.as_deref()), (verdict, code), "{data}");
        }
    }
}
