//! `utmos catalog`: the methods, as a table or one by one.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use anyhow::anyhow;
use serde_json::{Value, json};
use utmos_dji::catalogue::{Catalogue, Field, Kind, Method};

use crate::{
    exit::Exit,
    opened, output,
    settings::{ConfigArgs, Purpose},
};

/// Heads the methods that the public platform does not document.
const OTHERS: &str = "DJI's other methods";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this method, with everything about it
    method: Option<String>,
    /// Print JSON; for one method with the JSON Schemas of payload and reply
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let catalogue = opened::catalogue(&args.config.load(Purpose::Work)?.config)?;
    match &args.method {
        Some(name) => {
            let method = catalogue.method(name).ok_or_else(|| unknown(&catalogue, name))?;
            if args.json {
                let mut shown = summary(method);
                shown["payload_schema"] = method.payload_schema();
                shown["reply_schema"] = method.reply_schema();
                shown["example"] = method.example().clone();
                output::json(&shown);
            } else {
                output::line(details(method).trim_end());
            }
        }
        None if args.json => output::json(&catalogue.methods().map(summary).collect()),
        None => list(&catalogue),
    }
    Ok(Exit::Done)
}

fn unknown(catalogue: &Catalogue, name: &str) -> anyhow::Error {
    match catalogue.nearest(name) {
        Some(nearest) => anyhow!("there is no method {name}; did you mean {nearest}?"),
        None => anyhow!("there is no method {name}; `utmos catalog` lists all"),
    }
}

fn list(catalogue: &Catalogue) {
    let mut domains: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for method in catalogue.methods() {
        // Domains in their own order, methods without one last.
        let key = (method.domain.is_none(), method.domain);
        domains.entry(key).or_default().push([
            format!("  {}", method.name),
            word(&method.risk),
            word(&method.completes_by),
            seconds(method.timeout),
            method.title.clone(),
        ]);
    }
    for ((_, domain), rows) in domains {
        let name = domain.map_or(OTHERS, |domain| domain.as_str());
        output::line(format_args!("{name} ({})", rows.len()));
        output::table(["  METHOD", "RISK", "COMPLETES BY", "TIMEOUT", "TITLE"], &rows);
        output::line("");
    }
}

fn summary(method: &Method) -> Value {
    json!({
        "method": method.name,
        "domain": method.domain.map(|domain| domain.as_str()),
        "title": method.title,
        "description": method.description,
        "channel": method.channel,
        "completes_by": method.completes_by,
        "risk_class": method.risk,
        "if_offline": method.risk.default_if_offline(),
        "timeout_seconds": method.timeout.as_secs(),
        "silence_seconds": method.job.as_ref().map(|_| method.silence.as_secs()),
        "gateways": method.gateways,
    })
}

fn details(method: &Method) -> String {
    let mut text = format!("{}: {}\n", method.name, method.title);
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            let _infallible = writeln!(text, "  {name:<14}{value}");
        }
    };
    row("about", method.description.clone().unwrap_or_default());
    row("note", method.note.clone().unwrap_or_default());
    row("domain", method.domain.map_or(OTHERS, |domain| domain.as_str()).to_owned());
    row("channel", word(&method.channel));
    row("completes by", word(&method.completes_by));
    row("risk", word(&method.risk));
    row("if offline", word(&method.risk.default_if_offline()));
    row("timeout", seconds(method.timeout));
    row("silence", method.job.as_ref().map(|_| seconds(method.silence)).unwrap_or_default());
    row("aborted by", method.abort.as_ref().map(|abort| abort.method.clone()).unwrap_or_default());
    row(
        "gateways",
        method.gateways.iter().map(|model| model.as_str()).collect::<Vec<_>>().join(", "),
    );
    row(
        "also accepts",
        method.accepts.iter().map(|alias| alias.name.as_str()).collect::<Vec<_>>().join(", "),
    );
    for (title, fields) in [("payload", &method.payload), ("reply", &method.reply)] {
        let nothing = if fields.is_empty() { " nothing" } else { "" };
        let _infallible = writeln!(text, "\n{title}:{nothing}");
        for field in fields {
            describe(&mut text, field, 1);
        }
    }
    let _infallible = write!(text, "\nutmos send DEVICE {} '{}'", method.name, method.example());
    text
}

fn describe(text: &mut String, field: &Field, depth: usize) {
    let indent = "  ".repeat(depth);
    let name = if field.name.is_empty() { "(each)" } else { &field.name };
    let kind = field.kind.as_schema().unwrap_or("any");
    let mut facts = vec![kind.to_owned()];
    facts.extend(field.required.then(|| "required".to_owned()));
    facts.extend(field.required_when.as_ref().map(|when| {
        let values: Vec<String> = when.values.iter().map(ToString::to_string).collect();
        format!("required when {} is {}", when.field, values.join(" or "))
    }));
    facts.extend(range(field));
    facts.extend(field.unit.clone());
    facts.extend(field.default.as_ref().map(|default| format!("{default} when left out")));
    facts.extend(field.deprecated.then(|| "given up by DJI".to_owned()));
    facts.extend(field.secret.map(|_| "hidden wherever it is shown".to_owned()));
    let about = field.description.as_ref().map(|about| format!("  {about}")).unwrap_or_default();
    let _infallible = writeln!(text, "{indent}{name} ({}){about}", facts.join(", "));
    for choice in &field.choices {
        let _infallible = writeln!(text, "{indent}    {} = {}", choice.value, choice.meaning);
    }
    if field.kind == Kind::Object || field.kind == Kind::Array {
        for inner in field.items.iter().map(|items| &**items).chain(&field.fields) {
            describe(text, inner, depth + 1);
        }
    }
}

fn range(field: &Field) -> Option<String> {
    let text = |number: Option<f64>| number.map(|number| number.to_string());
    let count = |number: Option<usize>| number.map(|number| number.to_string());
    let between = |least: Option<String>, most: Option<String>, of: &str| match (least, most) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{of}")),
        (Some(least), None) => Some(format!("at least {least}{of}")),
        (None, Some(most)) => Some(format!("at most {most}{of}")),
        (None, None) => None,
    };
    between(text(field.min), text(field.max), "")
        .or_else(|| between(count(field.min_items), count(field.max_items), " items"))
        .or_else(|| between(None, count(field.max_chars), " characters"))
        .or_else(|| between(None, count(field.max_bytes), " bytes"))
}

/// The word an enum has in JSON.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

fn seconds(wait: Duration) -> String {
    format!("{} s", wait.as_secs())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn every_method_has_details_that_name_all_its_fields() {
        let catalogue = Catalogue::embedded().unwrap();
        for method in catalogue.methods() {
            let text = details(method);
            for field in method.payload.iter().chain(&method.reply) {
                assert!(
                    text.contains(&format!("  {} (", field.name)),
                    "{} {}",
                    method.name,
                    field.name
                );
            }
        }
    }

    #[test]
    fn a_mistyped_method_is_answered_with_the_nearest() {
        let catalogue = Catalogue::embedded().unwrap();
        assert!(unknown(&catalogue, "cover_opn").to_string().contains("did you mean cover_open?"));
    }
}
