//! What an outside broker tells of its clients' connections.

use utmos_core::id::GatewaySn;
use utmos_server::presence_topics::{
    Connection, NamedBy, PresenceFilter, PresenceTopics, Tells, Word,
};

use super::first_line;

/// Longest client id that may be remembered, in characters.
const CLIENT_ID_CHARS_MAX: usize = 128;

/// A filter, a topic and a payload. A filter reaches nothing that devices publish; whoever is told of has a good name.
pub fn presence_topics(input: &[u8]) {
    let (filter, rest) = first_line(input);
    let (topic, payload) = first_line(rest);
    let (filter, topic) = (String::from_utf8_lossy(filter), String::from_utf8_lossy(topic));
    let filter = match PresenceFilter::parse(&filter) {
        Ok(filter) => filter,
        Err(why) => {
            super::is_told(why);
            return;
        }
    };
    let subscribed = filter.to_filter();
    assert!(!subscribed.contains(['{', '}', '#']), "{subscribed}");
    let levels = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let is_covered = {
        let (wanted, given) = (levels(&subscribed), levels(&topic));
        let fits = |(wanted, given): (&String, &String)| wanted == "+" || wanted == given;
        wanted.len() == given.len() && wanted.iter().zip(&given).all(fits)
    };
    let is_of_devices = topic.starts_with("thing/") || topic.starts_with("sys/");
    assert!(!(is_covered && is_of_devices), "{subscribed} reaches {topic}");
    for named_by in [NamedBy::ClientId, NamedBy::Username] {
        let read = |tells| {
            let topics = PresenceTopics { filters: vec![(filter.clone(), tells)], named_by };
            topics.read(&topic, payload)
        };
        let came = read(Tells::Connected);
        let gone = read(Tells::Disconnected);
        let either = read(Tells::State);
        for told in [&came, &gone, &either] {
            assert!(told.is_none() || is_covered, "{topic} is not below {subscribed}: {told:?}");
            match told {
                Some(Ok(word)) => holds(word, &topic, named_by),
                Some(Err(unclear)) => super::is_told(&unclear.to_string()),
                None => {}
            }
        }
        // The same client, whatever is told of it, and its payload decides only where it is asked.
        let what = |told: &Option<Result<Word, _>>| Some(told.as_ref()?.as_ref().ok()?.what);
        let who = |told: &Option<Result<Word, _>>| {
            told.as_ref()?.as_ref().ok().map(|word| (word.gateway.clone(), word.began_at))
        };
        assert!(what(&came).is_none_or(|what| what == Connection::Began), "{came:?}");
        assert!(what(&gone).is_none_or(|what| what != Connection::Began), "{gone:?}");
        assert_eq!(who(&came), who(&gone));
        if either.as_ref().is_some_and(Result::is_ok) {
            let same = if what(&either) == Some(Connection::Began) { &came } else { &gone };
            assert_eq!(&either, same);
        }
    }
}

fn holds(word: &Word, topic: &str, named_by: NamedBy) {
    let name = word.gateway.as_str();
    assert_eq!(GatewaySn::parse(name).ok().as_ref(), Some(&word.gateway));
    assert!(word.client_id.chars().count() <= CLIENT_ID_CHARS_MAX);
    assert!(topic.contains(&word.client_id));
    if named_by == NamedBy::ClientId {
        assert!(topic.split('/').any(|level| level == name), "{name} is not in {topic}");
    }
}
