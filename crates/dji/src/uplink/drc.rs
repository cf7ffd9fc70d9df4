//! `drc/up`: answers to `drc/down`, and what the device reports by itself.
//!
//! There is no `tid` and no `bid`, only `seq`, which each generation puts elsewhere. DJI, "Live flight controls" (DRC).

use utmos_core::{
    id::GatewaySn,
    reply::{Reply, Verdict},
};

use super::{DrcAck, DrcPush, Meanings, Uplink, method, outcome};
use crate::{
    envelope::{self, Envelope},
    json::{Scalar, pick},
};

/// The one answer that by its page has no result: the heartbeat comes back as it was sent.
const HEART_BEAT: &str = "heart_beat";

/// Reads a message on `drc/up`.
pub(super) fn read(
    gateway: &GatewaySn,
    envelope: &Envelope<'_>,
    meanings: &dyn Meanings,
) -> Uplink {
    let data = envelope.data_or_null();
    let method = method(envelope);
    let seq = envelope.seq.or_else(|| seq_inside(data));
    match method {
        Some(method) if is_answer(&method, data, meanings) => {
            let outcome = outcome::read(data, meanings);
            let echo = method == HEART_BEAT
                && outcome.code.is_none()
                && outcome.verdict == Verdict::Unreadable;
            let reply = Reply {
                gateway: gateway.clone(),
                verdict: if echo && has_no_result(data) { Verdict::Ok } else { outcome.verdict },
                method: Some(method),
                code: outcome.code,
                message: outcome.message,
                job: outcome.job,
                data: data.into(),
            };
            Uplink::DrcAck(DrcAck { seq, reply })
        }
        method => Uplink::DrcPush(DrcPush {
            gateway: gateway.clone(),
            method,
            seq,
            device_time: envelope.timestamp,
            data: data.into(),
        }),
    }
}

/// By the catalogue; for methods newer than it, what has a result and is not called a push.
fn is_answer(method: &str, data: &str, meanings: &dyn Meanings) -> bool {
    meanings.answers_drc(method).unwrap_or_else(|| {
        let reports =
            ["_push", "_progress", "_info", "_notify"].iter().any(|end| method.ends_with(end));
        method == HEART_BEAT || (!reports && !has_no_result(data))
    })
}

fn has_no_result(data: &str) -> bool {
    let [result, code] = pick(data, ["result", "code"]);
    result.scalar() == Scalar::Null && code.scalar() == Scalar::Null
}

/// `data.seq` (dock 1's heartbeat) or `data.output.seq` (answers to `drone_control`).
fn seq_inside(data: &str) -> Option<u64> {
    let [seq, output] = pick(data, ["seq", "output"]);
    let in_output = || {
        let [seq] = pick(output.raw()?, ["seq"]);
        envelope::seq(&seq.scalar())
    };
    envelope::seq(&seq.scalar()).or_else(in_output)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test with a wrong message should stop")]

    use super::{super::NoMeanings, *};

    fn up(text: &str) -> Uplink {
        read(&GatewaySn::parse("SN1").unwrap(), &Envelope::read(text).unwrap(), &NoMeanings)
    }

    #[test]
    fn answers_carry_their_number_wherever_it_stands() {
        for (text, seq, verdict) in [
            (
                r#"{"method":"drone_control","data":{"result":0,"output":{"seq":1}}}"#,
                Some(1),
                Verdict::Ok,
            ),
            (
                r#"{"method":"drone_control","data":{"result":514303,"output":{"seq":"2"}}}"#,
                Some(2),
                Verdict::Refused,
            ),
            (r#"{"method":"drone_emergency_stop","data":{"result":0}}"#, None, Verdict::Ok),
            (
                r#"{"method":"drone_emergency_stop","seq":9,"data":{"result":0}}"#,
                Some(9),
                Verdict::Ok,
            ),
            (
                r#"{"method":"heart_beat","data":{"seq":10,"timestamp":1670415891013}}"#,
                Some(10),
                Verdict::Ok,
            ),
            (
                r#"{"method":"heart_beat","seq":3,"data":{"timestamp":1670415891013}}"#,
                Some(3),
                Verdict::Ok,
            ),
            (r#"{"method":"heart_beat","seq":3,"data":{"result":5}}"#, Some(3), Verdict::Refused),
            (
                r#"{"method":"heart_beat","seq":3,"data":{"result":{}}}"#,
                Some(3),
                Verdict::Unreadable,
            ),
            (r#"{"method":"drc_brand_new_set","seq":-3,"data":{"result":0}}"#, None, Verdict::Ok),
        ] {
            let Uplink::DrcAck(ack) = up(text) else { panic!("no answer: {text}") };
            assert_eq!((ack.seq, ack.reply.verdict), (seq, verdict), "{text}");
        }
    }

    #[test]
    fn reports_are_not_answers() {
        for text in [
            r#"{"method":"osd_info_push","data":{"height":10}}"#,
            r#"{"method":"drc_camera_photo_info_push","seq":1,"data":{"result":0,"status":"ok"}}"#,
            r#"{"method":"drc_speaker_play_progress","data":{"result":0}}"#,
            r#"{"method":"drc_psdk_ui_resource","data":{"psdk_index":2}}"#,
            r#"{"data":{"sdr_cmd_delay":10},"timestamp":1670415891013}"#,
            r#"{"data":{"result":0}}"#,
        ] {
            assert!(matches!(up(text), Uplink::DrcPush(_)), "{text}");
        }
    }
}
