//! Whatever a command holds comes back as it was.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proptest::{collection::vec, option, prelude::*};
use serde_json::Value;
use tokio::runtime::Runtime;
use utmos_core::{
    command::{
        Command, Execution, FailureCode, Life, Outcome, Phase, Response, Spec, Status,
        StatusVersion,
    },
    evidence::{Entry, Proof},
    id::{ApiId, Bid, CommandId, TenantId},
    method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
    ports::{Accepted, Advance, Advanced, CommandStore, NewCommand},
    time::{BootId, Deadline, Mono, Timestamp},
};
use utmos_store::{PostgresStore, SqliteStore};
use uuid::Uuid;

use crate::{
    given::{gateway, id, sn},
    postgres_commands::PostgresPlace,
    sqlite::SqlitePlace,
};

static PLACE: LazyLock<(SqlitePlace, SqliteStore)> = LazyLock::new(|| {
    let place = SqlitePlace::new();
    let store = place.store();
    (place, store)
});
static NUMBER: AtomicU64 = AtomicU64::new(1);

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_millis)
}

fn deadline() -> impl Strategy<Value = Deadline> {
    (any::<[u8; 16]>(), any::<u64>(), time()).prop_map(|(boot, mono, wall)| Deadline {
        boot: BootId(boot),
        mono: Mono::from_millis(mono),
        wall,
    })
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..=i64::MAX.cast_unsigned()).prop_map(Duration::from_millis)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_]{0,12}", ".{0,20}", Just("zero \0 inside".to_owned())]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn raw() -> impl Strategy<Value = Arc<str>> {
    json().prop_map(|value| value.to_string().into())
}

fn phase() -> impl Strategy<Value = Phase> {
    let code = proptest::sample::select(FailureCode::ALL.to_vec());
    prop_oneof![
        Just(Phase::Waiting),
        Just(Phase::Sending),
        Just(Phase::Delivered),
        Just(Phase::Ended(Outcome::Delivered)),
        Just(Phase::Ended(Outcome::Succeeded)),
        Just(Phase::Ended(Outcome::Unmatched)),
        code.clone().prop_map(|code| Phase::Ended(Outcome::Failed(code))),
        code.prop_map(|code| Phase::Ended(Outcome::TimedOut(code))),
    ]
}

prop_compose! {
    fn how()(
        channel in proptest::sample::select(vec![Channel::Services, Channel::DrcDown, Channel::PropertySet]),
        completes_by in proptest::sample::select(vec![
            CompletesBy::Reply, CompletesBy::Job, CompletesBy::ReplyOrJob, CompletesBy::DrcAck, CompletesBy::NoReply,
        ]),
        risk in proptest::sample::select(vec![
            Risk::Emergency, Risk::Motion, Risk::Ground, Risk::Session, Risk::Payload, Risk::Configuration, Risk::Read,
        ]),
        if_offline in proptest::sample::select(vec![IfOffline::Wait, IfOffline::Fail]),
        complete_on in proptest::sample::select(vec![CompleteOn::Outcome, CompleteOn::Reply]),
        reply_without_status_is_final in any::<bool>(),
    ) -> (Channel, CompletesBy, Risk, IfOffline, CompleteOn, bool) {
        (channel, completes_by, risk, if_offline, complete_on, reply_without_status_is_final)
    }
}

prop_compose! {
    fn spec()(
        how in how(),
        tenant in any::<u128>(),
        texts in (text(), text(), text(), text()),
        fingerprint in any::<[u8; 32]>(),
        sns in ("[A-Za-z0-9._-]{1,64}", "[A-Za-z0-9._-]{1,64}"),
        aircraft in option::of("[A-Za-z0-9._-]{1,64}"),
        bid in any::<u128>(),
        job_ref in option::of(text()),
        times in (duration(), duration(), deadline(), time()),
        payload in raw(),
    ) -> Spec {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (channel, completes_by, risk, if_offline, complete_on, reply_without_status_is_final) = how;
        Spec {
            id: CommandId::new(id(0, number)),
            tenant: TenantId::new(Uuid::from_u128(tenant)),
            accepted_for: ApiId::new(texts.0),
            request_id: texts.1,
            idempotency_key: format!("{number}{}", texts.2),
            fingerprint,
            device: sn(&sns.0),
            gateway: gateway(&sns.1),
            aircraft: aircraft.as_deref().map(sn),
            method: texts.3,
            channel,
            completes_by,
            risk,
            // Whether it is in another one's way is not the question here.
            starts_motion: false,
            reply_without_status_is_final,
            if_offline,
            complete_on,
            bid: Bid::new(Uuid::from_u128(bid)),
            job_ref,
            timeout: times.0,
            silence_wait: times.1,
            deadline: times.2,
            accepted_at: times.3,
            payload,
        }
    }
}

prop_compose! {
    fn execution()(
        state in text(), open in any::<bool>(), step in option::of(text()), percent in option::of(any::<u8>()),
        updated_at in time(), ext in option::of(raw()),
    ) -> Execution {
        Execution { state, open, step, percent, updated_at, ext }
    }
}

prop_compose! {
    fn life()(
        phase in phase(), version in any::<u64>(), due in option::of(deadline()),
        times in (option::of(time()), option::of(time()), option::of(time()), time()),
        response in option::of((option::of(text()), option::of(text()), raw())),
        failure_reason in option::of(text()), execution in option::of(execution()),
    ) -> Life {
        Life {
            phase,
            version: StatusVersion(version),
            due,
            delivered_at: times.0,
            response_received_at: times.1,
            completed_at: times.2,
            updated_at: times.3,
            response: response.map(|(code, message, data)| Response { code, message, data }),
            failure_reason,
            execution,
            holds_motion: false,
        }
    }
}

fn proof() -> impl Strategy<Value = Proof> {
    prop_oneof![
        (text(), text()).prop_map(|(api_id, request_id)| Proof::Accepted { api_id, request_id }),
        text().prop_map(|replica| Proof::SendingClaimed { replica }),
        (text(), any::<u8>(), option::of(any::<u16>()), any::<usize>()).prop_map(
            |(topic, qos, packet_id, bytes)| Proof::BrokerConfirmed {
                topic,
                qos,
                packet_id,
                bytes
            }
        ),
        text().prop_map(|reason| Proof::NotSent { reason }),
        text().prop_map(|reason| Proof::SendUnclear { reason }),
        text().prop_map(|replica| Proof::FoundAfterRestart { replica }),
        (
            text(),
            option::of(text()),
            option::of(text()),
            json(),
            any::<(bool, bool)>(),
            option::of(text())
        )
            .prop_map(
                |(gateway, method, code, data, (late_response, duplicate), mismatch)| {
                    Proof::Reply { gateway, method, code, data, late_response, duplicate, mismatch }
                }
            ),
        (text(), text(), text(), option::of(text()), option::of(any::<u8>()), json()).prop_map(
            |(gateway, method, state, step, percent, data)| Proof::Progress {
                gateway,
                method,
                state,
                step,
                percent,
                data
            }
        ),
        text().prop_map(|limit| Proof::Timer { limit }),
        option::of(time()).prop_map(|last_heard_at| Proof::GatewayAbsent { last_heard_at }),
        (text(), text(), option::of(text())).prop_map(|(api_id, request_id, abort_command_id)| {
            Proof::Cancelled { api_id, request_id, abort_command_id }
        }),
        text().prop_map(|emergency_command_id| Proof::Preempted { emergency_command_id }),
    ]
}

prop_compose! {
    fn entry()(
        at in time(), from in proptest::sample::select(Status::ALL.to_vec()),
        to in proptest::sample::select(Status::ALL.to_vec()), proof in proof(),
    ) -> Entry {
        Entry { at, from, to, proof }
    }
}

/// PostgreSQL, with a runtime that lives as long.
static POSTGRES: LazyLock<(Runtime, PostgresStore)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store = runtime.block_on(async { PostgresPlace::new().store().await });
    (runtime, store)
});

/// A command, its life afterwards and its lines, as they are kept.
async fn check(store: &dyn CommandStore, spec: Spec, lives: (Life, Life), lines: Vec<Entry>) {
    let (first, second) = (Arc::new(lives.0), lives.1);
    let version = StatusVersion(first.version.0.wrapping_add(1));
    let second = Arc::new(Life { version, ..second });
    let spec = Arc::new(spec);
    let (with_it, later) = lines.split_at(lines.len().div_ceil(3));
    let new = NewCommand { spec: spec.clone(), life: first.clone(), entries: with_it.to_vec() };
    assert_eq!(store.accept(None, new).await.unwrap(), Accepted::New);
    let kept = store.command(spec.id).await.unwrap();
    assert_eq!(kept, Some(Command { spec: spec.clone(), life: first.clone() }));
    let seen = first.version;
    let advance = Advance { id: spec.id, seen, life: second.clone(), entries: later.into() };
    assert_eq!(store.advance(advance).await.unwrap(), Advanced::Yes);
    let kept = store.command_of(spec.tenant, spec.id).await.unwrap();
    assert_eq!(kept, Some(Command { spec: spec.clone(), life: second }));
    assert_eq!(store.timeline(spec.id).await.unwrap(), lines);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn commands_and_timelines_come_back_as_they_were(
        spec in spec(), first in life(), second in life(), lines in vec(entry(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(check(&PLACE.1, spec, (first, second), lines));
    }

    #[test]
    fn commands_and_timelines_come_back_from_postgresql_as_they_were(
        spec in spec(), first in life(), second in life(), lines in vec(entry(), 1..40),
    ) {
        let (runtime, store) = &*POSTGRES;
        runtime.block_on(check(store, spec, (first, second), lines));
    }
}
