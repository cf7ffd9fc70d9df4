//! The words that stand for a choice, for the OpenAPI document: each list comes from core's own type.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;
use utmos_core::{
    binding::CodeState,
    command::Status,
    device::DeviceKind,
    device_event::EventKind,
    device_request::RoutingDecision,
    method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
};
use utmos_dji::{catalogue::Domain, hms::Level};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Type, schema::Schema},
};

use super::problem::Code;
use crate::fleet::Evidence;

macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident as $shown:literal = $words:expr;)*) => {$(
        $(#[doc = $doc])*
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let about = concat!($($doc),*).trim();
                let words: Vec<Value> = $words;
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some(about))
                    .enum_values(Some(words))
                    .build()
                    .into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($shown)
            }
        }
    )*};
}

words! {
    /// Why a request was not carried out. More may come.
    CodeWord as "ErrorCode" = Code::ALL.iter().map(|code| code.as_str().into()).collect();
    /// How a command stands: never more than was observed.
    StatusWord as "Status" = statuses();
    /// What becomes of a command while its gateway is absent.
    IfOfflineWord as "IfOffline" = in_words(&[IfOffline::Wait, IfOffline::Fail]);
    /// What `SUCCEEDED` waits for in jobs: how the job ended, or the reply that it started.
    CompleteOnWord as "CompleteOn" = in_words(&[CompleteOn::Outcome, CompleteOn::Reply]);
    /// How much harm a method can do, the most urgent first.
    RiskWord as "RiskClass" = in_words(&[
        Risk::Emergency, Risk::Motion, Risk::Ground, Risk::Session, Risk::Payload, Risk::Configuration, Risk::Read,
    ]);
    /// What kind of device event it is. More may come.
    EventKindWord as "EventType" = EventKind::ALL.iter().map(|kind| kind.as_str().into()).collect();
    /// How serious an alarm is: good to know, to be looked at, to be acted on.
    AlarmLevelWord as "AlarmLevel" =
        [Level::Notice, Level::Caution, Level::Warning].iter().map(|level| level.as_str().into()).collect();
    /// The way a command leaves for its gateway.
    ChannelWord as "Channel" = in_words(&[Channel::Services, Channel::DrcDown, Channel::PropertySet]);
    /// What ends a command.
    CompletesByWord as "CompletesBy" = in_words(&[
        CompletesBy::Reply, CompletesBy::Job, CompletesBy::ReplyOrJob, CompletesBy::DrcAck, CompletesBy::NoReply,
    ]);
    /// How a device request stands.
    RoutingDecisionWord as "RoutingDecision" =
        RoutingDecision::ALL.iter().map(|(_, word)| (*word).into()).collect();
    /// Who answered a device request.
    ReplySourceWord as "ReplySource" = vec!["auto".into(), "manual".into()];
    /// Who answers device requests.
    RuleModeWord as "RuleMode" = vec!["auto".into(), "manual".into(), "auto_after".into()];
    /// Where a rule comes from: set for the device, for all of the tenant's devices, or by nobody.
    RuleOriginWord as "RuleOrigin" = vec!["device".into(), "tenant".into(), "default".into()];
    /// What a device is.
    DeviceKindWord as "DeviceKind" = in_words(&[DeviceKind::Dock, DeviceKind::RemoteController, DeviceKind::Aircraft]);
    /// By what it is known that a device is there, or is not.
    EvidenceWord as "OnlineEvidence" = Evidence::ALL.iter().map(|one| one.as_str().into()).collect();
    /// How a binding code stands.
    CodeStateWord as "BindingCodeState" =
        [CodeState::Active, CodeState::UsedUp, CodeState::Expired, CodeState::Revoked]
            .iter().map(|one| one.as_str().into()).collect();
    /// A domain of the public platform.
    DomainWord as "Domain" = in_words(&[
        Domain::Device, Domain::Camera, Domain::Drc, Domain::Wayline, Domain::Psdk, Domain::Safety, Domain::Live,
        Domain::File, Domain::Firmware,
    ]);
}

fn in_words<T: Serialize>(all: &[T]) -> Vec<Value> {
    all.iter().map(|one| serde_json::to_value(one).unwrap_or(Value::Null)).collect()
}

fn statuses() -> Vec<Value> {
    let all = [
        Status::Accepted,
        Status::Delivered,
        Status::Succeeded,
        Status::Failed,
        Status::TimedOut,
        Status::UnmatchedResponse,
    ];
    all.iter().map(|status| status.as_str().into()).collect()
}
