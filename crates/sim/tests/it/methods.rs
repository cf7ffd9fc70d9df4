//! Every method of the catalogue.

use serde_json::{Value, json};
use utmos_core::method::{Channel, CompletesBy};
use utmos_dji::catalogue::{Field, Kind, Method};
use utmos_sim::{Outcome, guide};

use crate::world::{CATALOGUE, World, model_for};

fn fits(field: &Field, value: &Value) -> bool {
    if !field.choices.is_empty() {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return field.choices.iter().any(|choice| text(&choice.value) == text(value));
    }
    match field.kind {
        Kind::String => value.is_string(),
        Kind::Integer => value.is_i64() || value.is_u64(),
        Kind::Number => value.is_number(),
        Kind::Boolean => value.is_boolean() || matches!(value.as_i64(), Some(0 | 1)),
        Kind::Object => value.is_object() && fields_fit(&field.fields, value),
        Kind::Array => {
            let item = field.items.as_deref().unwrap();
            value.as_array().is_some_and(|items| items.iter().all(|value| fits(item, value)))
        }
        Kind::Any => true,
    }
}

fn fields_fit(fields: &[Field], data: &Value) -> bool {
    fields.iter().all(|field| data.get(&field.name).is_some_and(|value| fits(field, value)))
}

#[test]
fn every_method_on_services_is_answered_in_the_shape_of_the_catalogue() {
    let mut seen = 0;
    for method in CATALOGUE.methods().filter(|method| method.channel == Channel::Services) {
        seen += 1;
        let mut world = World::of(model_for(method));
        world.prepare(method);
        let payload = guide::payload(method, &world.config, world.now().wall);
        assert!(method.check(&payload).is_ok(), "{}", method.name);
        let tid = world.must(&method.name, &payload);
        let replies: Vec<_> = world
            .sent
            .iter()
            .filter(|message| {
                message.is_on("services_reply") && message.json["tid"] == tid.as_str()
            })
            .collect();
        let [reply] = replies.as_slice() else { panic!("{} is answered once", method.name) };
        assert_eq!(reply.method(), method.name);
        assert!(fields_fit(&method.reply, &reply.json["data"]), "{} {}", method.name, reply.json);
        assert!(reply.json["bid"].as_str().unwrap().starts_with("bid-"));
        ends_as_the_catalogue_says(method, &mut world, &tid);
    }
    assert!(83 < seen, "{seen}");
}

fn ends_as_the_catalogue_says(method: &Method, world: &mut World, tid: &str) {
    match method.completes_by {
        CompletesBy::Job => {
            let outcome = world.until_end(tid);
            assert_eq!(outcome, Outcome::Succeeded, "{}", method.name);
            let events = &method.job.as_ref().unwrap().events;
            let told = events.iter().any(|event| !world.events(event).is_empty());
            assert!(told, "{} is told of", method.name);
        }
        CompletesBy::Reply | CompletesBy::ReplyOrJob => {
            assert_eq!(world.outcome(tid), Some(Outcome::Done), "{}", method.name);
        }
        CompletesBy::DrcAck | CompletesBy::NoReply => panic!("{} is not on services", method.name),
    }
}

#[test]
fn every_method_under_direct_control_is_acknowledged_or_rightly_silent() {
    let mut seen = 0;
    for method in CATALOGUE.methods().filter(|method| method.channel == Channel::DrcDown) {
        seen += 1;
        let mut world = World::of(model_for(method));
        world.prepare(method);
        let data = guide::payload(method, &world.config, world.now().wall);
        world.drc(&json!({"method": method.name, "seq": 41, "data": data}));
        world.run(500);
        let answers: Vec<_> = world
            .sent
            .iter()
            .filter(|message| message.is_on("drc/up") && message.method() == method.name)
            .collect();
        let outcome = world.outcomes.last().unwrap().1;
        if method.completes_by == CompletesBy::NoReply {
            assert!(answers.is_empty(), "{}", method.name);
            assert_eq!(outcome, Outcome::Silent);
            continue;
        }
        let [answer] = answers.as_slice() else { panic!("{} is answered once", method.name) };
        assert_eq!(outcome, Outcome::Done, "{}", method.name);
        let pointers = &method.seq.as_ref().unwrap().reply;
        let seq = pointers.iter().find_map(|pointer| answer.json.pointer(pointer));
        assert_eq!(seq, Some(&json!(41)), "{} {}", method.name, answer.json);
        assert!(answer.json.get("tid").is_none() && answer.json.get("bid").is_none());
        if method.name != "heart_beat" {
            assert_eq!(answer.data("/result"), &json!(0));
        }
    }
    assert!(10 < seen, "{seen}");
}
