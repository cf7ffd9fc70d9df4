//! What `data` says of success: `result`, `code`, a message, and how far a job has come.
//!
//! A good verdict needs a nought that nothing in the message contradicts: a wrong "done" can hurt people.

use utmos_core::reply::{JobState, Verdict};

use super::Meanings;
use crate::json::{Field, Number, Scalar, pick};

/// Longest text of a device's own that is kept as the message, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// Longest code that is not a whole number, in bytes.
const CODE_BYTES_MAX: usize = 64;

/// What `data` says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub verdict: Verdict,
    pub code: Option<String>,
    pub message: Option<String>,
    pub job: Option<JobState>,
}

/// Reads the `data` of a reply.
///
/// The code is `data.code`, else `data.result`, else `data.info.result` (some answers put everything but `tid` and
/// `method` under `info`).
pub(super) fn read(data: &str, meanings: &dyn Meanings) -> Outcome {
    let [result, code, message, msg, description, output, info] =
        pick(data, ["result", "code", "message", "msg", "description", "output", "info"]);
    let result = match result.scalar() {
        Scalar::Null => info.raw().map_or(result, |info| {
            let [inner] = pick(info, ["result"]);
            inner
        }),
        Scalar::Bool(_) | Scalar::Number(_) | Scalar::Text(_) | Scalar::Other => result,
    };
    let own_words = [message, msg, description].into_iter().find_map(words);
    let code_text = to_code(&code.scalar()).or_else(|| to_code(&result.scalar()));
    let meaning = || code_text.as_deref().and_then(|code| meaning_of(code, meanings));
    Outcome {
        verdict: verdict(result, code),
        message: own_words.or_else(meaning),
        job: output.raw().and_then(job),
        code: code_text,
    }
}

/// What the code means, as far as it is a number the catalogue knows.
pub(super) fn meaning_of(code: &str, meanings: &dyn Meanings) -> Option<String> {
    code.parse().ok().and_then(|code| meanings.meaning(code)).map(str::to_owned)
}

/// A code as text: a whole number without decoration, anything else as it was spelt.
pub(super) fn to_code(scalar: &Scalar<'_>) -> Option<String> {
    let text = match (scalar.number(), scalar) {
        (Some(number), _) => number.to_code(),
        (None, Scalar::Text(text)) => text.trim().to_owned(),
        (None, Scalar::Null | Scalar::Bool(_) | Scalar::Number(_) | Scalar::Other) => return None,
    };
    (1..=CODE_BYTES_MAX)
        .contains(&text.len())
        .then_some(text)
        .filter(|text| !text.chars().any(char::is_control))
}

pub(super) fn words(field: Field<'_>) -> Option<String> {
    let Scalar::Text(text) = field.scalar() else { return None };
    let text: String = text.trim().chars().filter(|c| *c != '\0').take(MESSAGE_CHARS_MAX).collect();
    (!text.is_empty()).then_some(text)
}

/// The verdict of one result: nought is good, any other number is bad, the rest says nothing.
pub(crate) fn verdict_of(field: Field<'_>) -> Verdict {
    match field.scalar().number().map(Number::is_zero) {
        Some(_) | None if field.contradicts_itself() => Verdict::Unreadable,
        Some(true) => Verdict::Ok,
        Some(false) => Verdict::Refused,
        None => Verdict::Unreadable,
    }
}

fn verdict(result: Field<'_>, code: Field<'_>) -> Verdict {
    let (by_result, by_code) = (verdict_of(result), verdict_of(code));
    match (result.scalar(), code.scalar()) {
        (Scalar::Null, _) => by_code,
        (_, Scalar::Null) => by_result,
        // A code in words beside a result is a message, not a second opinion.
        _ if by_code == Verdict::Unreadable && !code.contradicts_itself() => by_result,
        _ if by_result == by_code => by_result,
        _ => Verdict::Unreadable,
    }
}

/// What `output.status` says of a job, by the words DJI uses for every job.
fn job(output: &str) -> Option<JobState> {
    let [status] = pick(output, ["status"]);
    let word = status.scalar().into_text()?;
    Some(job_word(&word).unwrap_or(JobState::Open))
}

/// The words for a job's state that mean the same in every message of DJI's; nothing for any other word.
///
/// DJI, "Remote debugging" and "Wayline management", `status`; `success` stands in the speaker's example.
#[must_use]
pub fn job_word(word: &str) -> Option<JobState> {
    Some(match word {
        "sent" | "in_progress" => JobState::Open,
        "paused" => JobState::Paused,
        "ok" | "success" => JobState::Succeeded,
        "failed" | "fail" | "canceled" | "cancelled" | "rejected" | "timeout"
        | "partially_done" => JobState::Failed,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Codes;

    impl Meanings for Codes {
        fn meaning(&self, code: i64) -> Option<&str> {
            (code == 514_100).then_some("the cover is stuck")
        }

        fn job_event(&self, _: &str) -> Option<Box<dyn super::super::JobEvent + '_>> {
            None
        }

        fn answers_drc(&self, _: &str) -> Option<bool> {
            None
        }
    }

    #[test]
    fn every_form_of_a_result_is_read_and_nothing_doubtful_is_good() {
        use Verdict::{Ok, Refused, Unreadable};
        for (data, verdict, code) in [
            (r#"{"result":0}"#, Ok, Some("0")),
            (r#"{"result":"0"}"#, Ok, Some("0")),
            (r#"{"result":0.0}"#, Ok, Some("0")),
            (r#"{"result":-0}"#, Ok, Some("0")),
            (r#"{"result":514100}"#, Refused, Some("514100")),
            (r#"{"result":"514100"}"#, Refused, Some("514100")),
            (r#"{"result":514100.0}"#, Refused, Some("514100")),
            (r#"{"result":-1}"#, Refused, Some("-1")),
            (r#"{"result":0.5}"#, Refused, Some("0.5")),
            (r#"{"result":1e-400}"#, Refused, Some("1e-400")),
            (r#"{"result":99999999999999999999}"#, Refused, Some("99999999999999999999")),
            (r#"{"result":null}"#, Unreadable, None),
            (r#"{"result":true}"#, Unreadable, None),
            (r#"{"result":false}"#, Unreadable, None),
            (r#"{"result":""}"#, Unreadable, None),
            (r#"{"result":"ok"}"#, Unreadable, Some("ok")),
            (r#"{"result":{"result":0}}"#, Unreadable, None),
            (r#"{"result":[0]}"#, Unreadable, None),
            (r#"{}"#, Unreadable, None),
            (r#"{"Result":0}"#, Unreadable, None),
            (r#"{"output":{"result":0}}"#, Unreadable, None),
            ("null", Unreadable, None),
            ("0", Unreadable, None),
            (r#""""#, Unreadable, None),
            ("[]", Unreadable, None),
            (r#"[{"result":0}]"#, Unreadable, None),
            (r#"{"result":0,"result":0}"#, Ok, Some("0")),
            (r#"{"result":1,"result":0}"#, Unreadable, Some("0")),
            (r#"{"code":0}"#, Ok, Some("0")),
            (r#"{"code":7,"result":7}"#, Refused, Some("7")),
            (r#"{"code":7,"result":null}"#, Refused, Some("7")),
            (r#"{"code":null,"result":0}"#, Ok, Some("0")),
            (r#"{"code":200,"result":0}"#, Unreadable, Some("200")),
            (r#"{"code":0,"result":9}"#, Unreadable, Some("0")),
            (r#"{"code":"SUCCESS","result":0}"#, Ok, Some("SUCCESS")),
            (r#"{"info":{"result":0}}"#, Ok, Some("0")),
            (r#"{"info":{"result":3}}"#, Refused, Some("3")),
            (r#"{"result":3,"info":{"result":0}}"#, Refused, Some("3")),
            (r#"{"files":[{"device_sn":"D","list":[]}],"result":0}"#, Ok, Some("0")),
            (
                r#"{"files":[{"device_sn":"D","result":0,"list":[]}],"result":314003}"#,
                Refused,
                Some("314003"),
            ),
            (r#"{"files":[{"device_sn":"D","result":0,"list":[]}]}"#, Unreadable, None),
        ] {
            let read = read(data, &Codes);
            assert_eq!((read.verdict, read.code.as_deref()), (verdict, code), "{data}");
        }
    }

    #[test]
    fn the_devices_words_come_before_the_codes_meaning() {
        for (data, message) in [
            (r#"{"result":514100}"#, Some("the cover is stuck")),
            (r#"{"result":514100,"message":"jammed"}"#, Some("jammed")),
            (r#"{"result":514100,"message":"","msg":"jammed"}"#, Some("jammed")),
            (r#"{"result":514100,"description":" jammed "}"#, Some("jammed")),
            (r#"{"result":514100,"message":7}"#, Some("the cover is stuck")),
            (r#"{"result":1}"#, None),
            (r#"{"result":0}"#, None),
        ] {
            assert_eq!(read(data, &Codes).message.as_deref(), message, "{data}");
        }
        let long = format!(r#"{{"message":"{}"}}"#, "é".repeat(10_000));
        assert_eq!(
            read(&long, &Codes).message.map(|text| text.chars().count()),
            Some(MESSAGE_CHARS_MAX)
        );
    }

    #[test]
    fn an_unknown_word_for_a_job_is_not_an_end() {
        for (data, job) in [
            (r#"{"result":0,"output":{"status":"sent"}}"#, Some(JobState::Open)),
            (r#"{"result":0,"output":{"status":"in_progress"}}"#, Some(JobState::Open)),
            (r#"{"result":0,"output":{"status":"paused"}}"#, Some(JobState::Paused)),
            (r#"{"result":0,"output":{"status":"ok"}}"#, Some(JobState::Succeeded)),
            (r#"{"result":0,"output":{"status":"timeout"}}"#, Some(JobState::Failed)),
            (r#"{"result":0,"output":{"status":"warming_up"}}"#, Some(JobState::Open)),
            (r#"{"result":0,"output":{"status":""}}"#, None),
            (r#"{"result":0,"output":{}}"#, None),
            (r#"{"result":0,"output":"ok"}"#, None),
            (r#"{"result":0}"#, None),
        ] {
            assert_eq!(read(data, &Codes).job, job, "{data}");
        }
    }
}
