//! What a fault makes of an answer.

use rand::{RngExt, rngs::StdRng};
use serde_json::{Map, Value};
use utmos_core::id::GatewaySn;
use utmos_dji::topic::UplinkTopic;
use utmos_mqtt::Qos;

use super::{AnswerField, Fault};

/// A message on its way out.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: Qos,
}

impl Letter {
    /// Its payload as JSON; docks write nothing else.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.payload).ok()
    }

    /// The same message with other content.
    pub fn saying(&self, json: &Value) -> Self {
        Self { payload: json.to_string().into_bytes(), ..self.clone() }
    }
}

/// What leaves instead of an answer: usually one message, none or two for some faults.
///
/// The faults that change when something happens and not what is said leave it as it is.
pub fn spoil(fault: &Fault, letter: Letter, dice: &mut StdRng) -> Vec<Letter> {
    let spoiled = match fault {
        Fault::Silent | Fault::Never | Fault::Disconnect { .. } => return Vec::new(),
        Fault::Duplicate => return vec![letter.clone(), letter],
        Fault::WrongTid => with(&letter, |answer| put(answer, "tid", &new_id(dice))),
        Fault::WrongBid => with(&letter, |answer| put(answer, "bid", &new_id(dice))),
        Fault::WrongMethod => with(&letter, |answer| {
            let is_that = answer.get("method").and_then(Value::as_str) == Some("cover_open");
            put(answer, "method", if is_that { "cover_close" } else { "cover_open" });
        }),
        Fault::WrongGateway { sn } => from_another(letter, sn.as_deref()),
        Fault::StringNumbers => with(&letter, |answer| answer.values_mut().for_each(as_text)),
        Fault::MissingField(field) => with(&letter, |answer| drop_field(answer, *field)),
        Fault::Truncated => {
            let half = letter.payload.len() / 2;
            let payload = letter.payload.into_iter().take(half).collect();
            Letter { payload, ..letter }
        }
        Fault::Binary => {
            let mut payload: Vec<u8> = letter.payload.iter().map(|_| dice.random()).collect();
            // No UTF-8 begins with this.
            if let Some(first) = payload.first_mut() {
                *first = 0xff;
            }
            Letter { payload, ..letter }
        }
        Fault::Huge { bytes } => {
            let empty = with(&letter, |answer| pad(answer, 0));
            let missing = bytes.saturating_sub(empty.payload.len());
            with(&letter, |answer| pad(answer, missing))
        }
        Fault::Late { .. }
        | Fault::Result { .. }
        | Fault::ProgressOutOfOrder
        | Fault::ProgressStops
        | Fault::ResendEvents
        | Fault::Early
        | Fault::LateAck { .. }
        | Fault::NoAck => letter,
    };
    vec![spoiled]
}

/// An id that nobody gave to anything.
fn new_id(dice: &mut StdRng) -> String {
    uuid::Builder::from_random_bytes(dice.random()).into_uuid().to_string()
}

fn with(letter: &Letter, change: impl FnOnce(&mut Map<String, Value>)) -> Letter {
    let Some(Value::Object(mut answer)) = letter.json() else { return letter.clone() };
    change(&mut answer);
    letter.saying(&Value::Object(answer))
}

fn put(answer: &mut Map<String, Value>, name: &str, value: &str) {
    answer.insert(name.to_owned(), Value::from(value));
}

fn pad(answer: &mut Map<String, Value>, bytes: usize) {
    let padding = Value::from("x".repeat(bytes));
    match answer.get_mut("data") {
        Some(Value::Object(data)) => data.insert("padding".to_owned(), padding),
        Some(_) | None => answer.insert("padding".to_owned(), padding),
    };
}

fn as_text(value: &mut Value) {
    match value {
        Value::Number(number) => *value = Value::String(number.to_string()),
        Value::Array(items) => items.iter_mut().for_each(as_text),
        Value::Object(fields) => fields.values_mut().for_each(as_text),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn drop_field(answer: &mut Map<String, Value>, field: AnswerField) {
    match field {
        AnswerField::Result => {
            if let Some(data) = answer.get_mut("data") {
                drop_results(data);
            }
        }
        AnswerField::Tid
        | AnswerField::Bid
        | AnswerField::Method
        | AnswerField::Data
        | AnswerField::Timestamp => {
            answer.remove(field.name());
        }
    }
}

/// The result beside `output`, and those of single properties.
fn drop_results(data: &mut Value) {
    let Value::Object(fields) = data else { return };
    let had_one = fields.remove("result").is_some();
    if !had_one {
        fields.values_mut().for_each(drop_results);
    }
}

fn from_another(letter: Letter, sn: Option<&str>) -> Letter {
    let other = |gateway: &GatewaySn| {
        let name = sn.map_or_else(|| format!("{gateway}-OTHER"), str::to_owned);
        GatewaySn::parse(&name).unwrap_or_else(|_| gateway.clone())
    };
    let topic = match UplinkTopic::parse(&letter.topic) {
        Ok(UplinkTopic::ServicesReply { gateway }) => {
            UplinkTopic::ServicesReply { gateway: other(&gateway) }.to_string()
        }
        Ok(UplinkTopic::PropertySetReply { gateway }) => {
            UplinkTopic::PropertySetReply { gateway: other(&gateway) }.to_string()
        }
        Ok(UplinkTopic::DrcUp { gateway }) => {
            UplinkTopic::DrcUp { gateway: other(&gateway) }.to_string()
        }
        // Not the topic of an answer.
        Ok(_) | Err(_) => letter.topic.clone(),
    };
    Letter { topic, ..letter }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use rand::SeedableRng;
    use serde_json::json;

    fn answer() -> Value {
        json!({
            "bid": "b", "tid": "t", "timestamp": 1_780_000_000_000_u64, "method": "cover_close",
            "data": {"result": 0, "output": {"status": "in_progress", "list": [1.5, true, null]}},
        })
    }

    fn letter(json: &Value) -> Letter {
        Letter {
            topic: "thing/product/D1/services_reply".into(),
            payload: json.to_string().into_bytes(),
            qos: Qos::AtLeastOnce,
        }
    }

    fn spoiled(fault: &Fault) -> Vec<Letter> {
        spoil(fault, letter(&answer()), &mut StdRng::seed_from_u64(1))
    }

    fn json_of(fault: &Fault) -> Value {
        let [letter] = <[Letter; 1]>::try_from(spoiled(fault)).unwrap();
        letter.json().unwrap()
    }

    /// The answer with one member set, or taken away.
    fn but(name: &str, value: Option<Value>) -> Value {
        let mut json = answer();
        match value {
            Some(value) => json[name] = value,
            None => drop(json.as_object_mut().unwrap().remove(name)),
        }
        json
    }

    #[test]
    fn a_silent_dock_says_nothing_and_a_doubled_answer_is_the_same_twice() {
        assert_eq!(spoiled(&Fault::Silent), []);
        let [one, other] = <[Letter; 2]>::try_from(spoiled(&Fault::Duplicate)).unwrap();
        assert_eq!((&one, one.json()), (&other, Some(answer())));
    }

    #[test]
    fn a_wrong_id_changes_that_id_and_nothing_else() {
        for (fault, name) in [(Fault::WrongTid, "tid"), (Fault::WrongBid, "bid")] {
            let json = json_of(&fault);
            assert_ne!(json[name], answer()[name]);
            assert!(uuid::Uuid::parse_str(json[name].as_str().unwrap()).is_ok());
            assert_eq!(json, but(name, Some(json[name].clone())));
        }
    }

    #[test]
    fn a_wrong_method_is_always_another() {
        assert_eq!(json_of(&Fault::WrongMethod), but("method", Some(json!("cover_open"))));
        let open = letter(&but("method", Some(json!("cover_open"))));
        let spoiled = spoil(&Fault::WrongMethod, open, &mut StdRng::seed_from_u64(1));
        assert_eq!(spoiled[0].json().unwrap()["method"], "cover_close");
    }

    #[test]
    fn a_wrong_gateway_is_another_topic() {
        for (sn, end, expected) in [
            (Some("D2"), "services_reply", "thing/product/D2/services_reply"),
            (None, "services_reply", "thing/product/D1-OTHER/services_reply"),
            (Some("D2"), "property/set_reply", "thing/product/D2/property/set_reply"),
        ] {
            let letter = Letter { topic: format!("thing/product/D1/{end}"), ..letter(&answer()) };
            let fault = Fault::WrongGateway { sn: sn.map(str::to_owned) };
            let spoiled = spoil(&fault, letter, &mut StdRng::seed_from_u64(1));
            assert_eq!(spoiled[0].topic, expected);
            assert_eq!(spoiled[0].json(), Some(answer()));
        }
    }

    #[test]
    fn numbers_become_texts_at_every_depth() {
        assert_eq!(
            json_of(&Fault::StringNumbers),
            json!({
                "bid": "b", "tid": "t", "timestamp": "1780000000000", "method": "cover_close",
                "data": {"result": "0", "output": {"status": "in_progress", "list": ["1.5", true, null]}},
            })
        );
    }

    #[test]
    fn a_missing_field_is_missing_and_the_others_are_there() {
        for field in AnswerField::ALL {
            let json = json_of(&Fault::MissingField(field));
            let expected = match field {
                AnswerField::Result => {
                    but("data", Some(json!({"output": answer()["data"]["output"]})))
                }
                AnswerField::Tid
                | AnswerField::Bid
                | AnswerField::Method
                | AnswerField::Data
                | AnswerField::Timestamp => but(field.name(), None),
            };
            assert_eq!(json, expected, "{field:?}");
        }
        let properties =
            json!({"tid": "t", "data": {"a": {"result": 0}, "b": {"c": {"result": 0}}}});
        let fault = Fault::MissingField(AnswerField::Result);
        let spoiled = spoil(&fault, letter(&properties), &mut StdRng::seed_from_u64(1));
        let expected = json!({"tid": "t", "data": {"a": {}, "b": {"c": {}}}});
        assert_eq!(spoiled[0].json(), Some(expected));
    }

    #[test]
    fn what_is_cut_off_or_no_text_does_not_read() {
        let whole = letter(&answer()).payload;
        let cut = &spoiled(&Fault::Truncated)[0].payload;
        assert_eq!(cut.as_slice(), &whole[..whole.len() / 2]);
        let binary = &spoiled(&Fault::Binary)[0].payload;
        assert_eq!(binary.len(), whole.len());
        assert!(std::str::from_utf8(binary).is_err());
    }

    #[test]
    fn a_huge_answer_has_its_size_to_the_byte_and_still_reads() {
        for bytes in [1024 * 1024, 1_000, 1] {
            let [letter] = <[Letter; 1]>::try_from(spoiled(&Fault::Huge { bytes })).unwrap();
            // It cannot be smaller than what it says.
            assert_eq!(letter.payload.len(), bytes.max(letter.payload.len().min(250)));
            assert_eq!(letter.json().unwrap()["data"]["result"], 0);
        }
    }
}
