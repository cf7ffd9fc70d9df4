//! What an outside broker, or something beside it, publishes of its clients' connections: on which topics, whom it means and
//! what it says. Pure.
//!
//! It is a hint that a session began or ended. Neither makes a gateway present: that is for what is heard of it.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use utmos_core::id::GatewaySn;

/// Stands in a filter for the level that holds a client's id.
const CLIENT_ID: &str = "{client_id}";
/// Names under which a payload tells of a connection's state.
const STATE_KEYS: [&str; 4] = ["state", "status", "connected", "online"];
/// Ends of a session whose client goes on with another: what is told of that one counts.
const TAKEN_OVER: [&str; 4] = ["takenover", "takeovered", "takeover", "discarded"];
/// Longest client id that is told apart from others.
const CLIENT_ID_CHARS_MAX: usize = 128;

/// A topic filter with one level for the client's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceFilter(String);

impl PresenceFilter {
    /// Reads a filter.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let levels: Vec<&str> = text.split('/').collect();
        if levels.iter().filter(|level| **level == CLIENT_ID).count() != 1 {
            return Err(
                "must have {client_id} as one of its levels, such as $SYS/brokers/+/clients/{client_id}/connected",
            );
        }
        let is_name = |level: &&str| !level.contains(['+', '#', '{', '}', '\0']);
        if !levels.iter().all(|level| [CLIENT_ID, "+"].contains(level) || is_name(level)) {
            return Err("may have names, + and {client_id} as levels, and nothing else");
        }
        match levels.first() {
            Some(first) if ["thing", "sys"].contains(first) => {
                Err("must not lie below thing/ or sys/, where devices publish")
            }
            Some(first) if !is_name(first) || first.is_empty() || *first == "$share" => {
                Err("must begin with a name, or it would cover what devices publish")
            }
            Some(_) | None => Ok(Self(text.to_owned())),
        }
    }

    /// As it is subscribed to.
    #[must_use]
    pub fn to_filter(&self) -> String {
        self.0.replace(CLIENT_ID, "+")
    }

    /// The client's id in a topic that it covers.
    fn client_of<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let (mut levels, mut found) = (topic.split('/'), None);
        for wanted in self.0.split('/') {
            let level = levels.next()?;
            match wanted {
                CLIENT_ID => found = Some(level),
                "+" => {}
                name if name == level => {}
                _ => return None,
            }
        }
        levels.next().is_none().then_some(found)?
    }
}

/// What a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// That a client has connected.
    Connected,
    /// That a client is gone.
    Disconnected,
    /// Which of the two, in its payload.
    State,
}

/// By what the gateway is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NamedBy {
    /// By the client's id, which is its serial number.
    #[default]
    ClientId,
    /// By `username` in the payload, which is JSON.
    Username,
}

/// Where and how an outside broker tells of connections; by default nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceTopics {
    /// The topics.
    pub filters: Vec<(PresenceFilter, Tells)>,
    /// By what the gateway is known.
    pub named_by: NamedBy,
}

/// What was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Of whom: a serial number, registered or not.
    pub gateway: GatewaySn,
    /// Of which of its connections.
    pub client_id: String,
    /// When the session began, in the broker's own count; it tells sessions of one client apart.
    pub began_at: Option<i64>,
    /// What.
    pub what: Connection,
}

/// What can be told of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It began.
    Began,
    /// It ended.
    Ended,
    /// It ended, and the client goes on with another.
    TakenOver,
}

/// Why something on one of these topics tells nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclear {
    /// Its payload does not say which state.
    NoState,
    /// Its payload names no user.
    NoUser,
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoState => {
                "on mqtt.external.presence_state, and does not say online or offline (1 or 0, true or false, \
                 connected or disconnected)"
            }
            Self::NoUser => {
                "on a topic of mqtt.external.presence_*, and no JSON with a username, which \
                 mqtt.external.presence_gateway = \"username\" asks for"
            }
        })
    }
}

/// What is read of a payload that is JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    username: Option<Value>,
    connected_at: Option<Value>,
    reason: Option<Value>,
}

impl PresenceTopics {
    /// Reads what came. `None`: on no such topic, or of a client that is no gateway.
    ///
    /// # Errors
    /// When it is on such a topic and tells nothing.
    #[must_use]
    pub fn read(&self, topic: &str, payload: &[u8]) -> Option<Result<Word, Unclear>> {
        let covers = |(filter, tells): &(PresenceFilter, Tells)| {
            filter.client_of(topic).map(|client| (client, *tells))
        };
        let (client_id, tells) = self.filters.iter().find_map(covers)?;
        let told: Told = serde_json::from_slice(payload).unwrap_or_default();
        let text = |value: &Option<Value>| value.as_ref()?.as_str().map(str::to_owned);
        let name = match self.named_by {
            NamedBy::ClientId => client_id.to_owned(),
            NamedBy::Username => match text(&told.username) {
                Some(name) => name,
                None => return Some(Err(Unclear::NoUser)),
            },
        };
        let gateway = GatewaySn::parse(&name).ok()?;
        let is_there = match tells {
            Tells::Connected => true,
            Tells::Disconnected => false,
            Tells::State => match state_of(payload) {
                Some(is_there) => is_there,
                None => return Some(Err(Unclear::NoState)),
            },
        };
        let is_taken_over =
            || text(&told.reason).is_some_and(|reason| TAKEN_OVER.contains(&reason.as_str()));
        let what = match is_there {
            true => Connection::Began,
            false if is_taken_over() => Connection::TakenOver,
            false => Connection::Ended,
        };
        let client_id = client_id.chars().take(CLIENT_ID_CHARS_MAX).collect();
        let began_at = told.connected_at.as_ref().and_then(Value::as_i64);
        Some(Ok(Word { gateway, client_id, began_at, what }))
    }
}

/// What a payload says of a connection: a word, a digit, or JSON with one of them.
fn state_of(payload: &[u8]) -> Option<bool> {
    let bare = std::str::from_utf8(payload).ok().and_then(|text| word(text.trim()));
    bare.or_else(|| match serde_json::from_slice::<Value>(payload).ok()? {
        Value::Object(object) => STATE_KEYS.iter().find_map(|key| match object.get(*key)? {
            Value::Bool(is_there) => Some(*is_there),
            Value::Number(number) => word(&number.to_string()),
            Value::String(text) => word(text),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }),
        Value::String(text) => word(&text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    })
}

fn word(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "online" | "connected" => Some(true),
        "0" | "false" | "offline" | "disconnected" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn topics(named_by: NamedBy) -> PresenceTopics {
        let filter = |text| PresenceFilter::parse(text).unwrap();
        PresenceTopics {
            filters: vec![
                (filter("$SYS/brokers/+/clients/{client_id}/connected"), Tells::Connected),
                (filter("$SYS/brokers/+/clients/{client_id}/disconnected"), Tells::Disconnected),
                (filter("presence/{client_id}"), Tells::State),
            ],
            named_by,
        }
    }

    fn read(named_by: NamedBy, topic: &str, payload: &str) -> Option<Result<Word, Unclear>> {
        topics(named_by).read(topic, payload.as_bytes())
    }

    fn told(
        client_id: &str,
        began_at: Option<i64>,
        what: Connection,
    ) -> Option<Result<Word, Unclear>> {
        let (gateway, client_id) = (GatewaySn::parse("DOCK").unwrap(), client_id.to_owned());
        Some(Ok(Word { gateway, client_id, began_at, what }))
    }

    #[test]
    fn a_filter_is_one_level_for_the_client_and_reaches_no_topic_of_devices() {
        for good in [
            "$SYS/brokers/+/clients/{client_id}/connected",
            "presence/{client_id}",
            "a/b/{client_id}/c",
        ] {
            assert_eq!(PresenceFilter::parse(good).map(|it| it.0), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "presence",
            "presence/+",
            "a/{client_id}/{client_id}",
            "a/x{client_id}",
            "a/{client_id}/#",
            "thing/product/{client_id}/osd",
            "sys/product/{client_id}/status",
            "+/{client_id}",
            "{client_id}/a",
            "/{client_id}",
            "$share/g/{client_id}",
            "a/{clientid}",
            "a/b+/{client_id}",
        ] {
            assert!(PresenceFilter::parse(bad).is_err(), "{bad}");
        }
        let filter = PresenceFilter::parse("$SYS/brokers/+/clients/{client_id}/connected").unwrap();
        assert_eq!(filter.to_filter(), "$SYS/brokers/+/clients/+/connected");
    }

    #[test]
    fn what_emqx_tells_is_read_by_client_id_or_by_user() {
        use NamedBy::{ClientId, Username};
        let came = "$SYS/brokers/emqx@127.0.0.1/clients/DOCK/connected";
        let gone = "$SYS/brokers/emqx@127.0.0.1/clients/DOCK/disconnected";
        assert_eq!(
            read(ClientId, came, r#"{"username":"x","connected_at":7}"#),
            told("DOCK", Some(7), Connection::Began)
        );
        assert_eq!(read(ClientId, gone, ""), told("DOCK", None, Connection::Ended));
        let other = "$SYS/brokers/n/clients/c-1/disconnected";
        let ended =
            |reason| format!(r#"{{"username":"DOCK","connected_at":7,"reason":"{reason}"}}"#);
        assert_eq!(
            read(Username, other, &ended("tcp_closed")),
            told("c-1", Some(7), Connection::Ended)
        );
        for reason in TAKEN_OVER {
            assert_eq!(
                read(Username, other, &ended(reason)),
                told("c-1", Some(7), Connection::TakenOver)
            );
        }
        assert_eq!(read(Username, other, "gone"), Some(Err(Unclear::NoUser)));
        assert_eq!(read(Username, other, r#"{"username":null}"#), Some(Err(Unclear::NoUser)));
        assert_eq!(read(ClientId, "$SYS/brokers/n/clients/not a serial/connected", ""), None);
        for topic in [
            "$SYS/brokers/n/m/clients/DOCK/connected",
            "presence/DOCK/x",
            "presence",
            "thing/product/DOCK/osd",
        ] {
            assert_eq!(read(ClientId, topic, "1"), None, "{topic}");
        }
    }

    #[test]
    fn a_state_is_a_word_a_digit_or_json_with_one() {
        for (payload, expected) in [
            ("1", Some(true)),
            (" Online\n", Some(true)),
            ("false", Some(false)),
            ("\"offline\"", Some(false)),
            (r#"{"status":"connected"}"#, Some(true)),
            (r#"{"online":false}"#, Some(false)),
            (r#"{"state":0}"#, Some(false)),
            ("", None),
            ("2", None),
            ("{}", None),
            ("[1]", None),
            (r#"{"state":[1]}"#, None),
        ] {
            assert_eq!(state_of(payload.as_bytes()), expected, "{payload}");
        }
        assert_eq!(state_of(&[0xff, 0x31]), None);
        assert_eq!(read(NamedBy::ClientId, "presence/DOCK", "?"), Some(Err(Unclear::NoState)));
    }
}
