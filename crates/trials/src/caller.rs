//! Callers: they sign, ask, ask again with the same key when they do not know, and sometimes change their minds.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rand::RngExt;
use serde_json::json;
use utmos_core::{
    credential::{Credential, CredentialSecret, CredentialStatus, Permission, Secret},
    id::ApiId,
    idempotency::fingerprint,
    method::{CompleteOn, IfOffline},
    signing::{self, Caller, KeyedCredential, SignedHead, SignedParts},
    time::Timestamp,
};
use utmos_server::driver::{Draft, SubmitError, Submitted};

use crate::{
    journal::WRITE_WAIT_MAX,
    life::Platform,
    plan::{Copying, Kind, Same, What, Wish},
    world::{Trouble, World, aircraft, gateway, tenant},
};

/// How long a started job may be silent.
pub(crate) const SILENCE_WAIT: Duration = Duration::from_secs(5);
/// How often a caller asks again.
const TRIES_MAX: u32 = 40;
/// How long it waits in between.
const RETRY_WAIT: u64 = 250;
/// Longest that an emergency waits for its answer where its journal can be written, in milliseconds: a quarter of a second
/// for the store, and then the journal, after those who came at the same time.
const URGENT_ANSWER_WAIT_MAX: u64 = 250 + 20 * WRITE_WAIT_MAX;
const SECRET: &str = "a-secret-of-trials-only-0123456789";
const PATH: &str = "/api/v1/open/downlink/commands";

/// What became of one request.
enum Outcome {
    Told(Submitted),
    /// Nothing will come of asking again.
    Refused(SubmitError),
    /// It may or may not have been stored.
    Unknown,
}

/// The nonce of a request that was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    asked_at: u64,
    /// It had somewhere to go where it outlives the process.
    is_durable: bool,
}

/// How one of several callers asks.
#[derive(Default)]
struct Manner {
    /// Its body differs from that of others.
    is_another: bool,
    /// What it sends first; else it signs for itself.
    signed: Option<Caller>,
}

/// Lives the life of a wish.
pub(crate) async fn ask(world: Arc<World>, number: usize, wish: Wish) {
    let copying = wish.copying.unwrap_or(Copying { every: 0, same: Same::Body });
    // Signed once, where all are one request.
    let signed = (copying.same == Same::Request).then(|| sign(&world)).flatten();
    let copies: Vec<_> = (0..wish.copies)
        .map(|copy| {
            let manner = Manner {
                is_another: copying.same == Same::Key && copy % 2 == 1,
                signed: signed.clone(),
            };
            let wait = Duration::from_millis(copying.every * u64::from(copy));
            let (world, wish) = (world.clone(), wish.clone());
            tokio::spawn(async move {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                insist(world, number, wish, manner).await
            })
        })
        .collect();
    let mut first = None;
    for copy in copies {
        if let Ok(Some(submitted)) = copy.await {
            first = first.or(Some(submitted));
        }
    }
    if first.is_none() {
        return;
    }
    let later = wish.asks_later.map(|after| {
        let (world, wish) = (world.clone(), wish.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            let wish = Wish { replays_nonce: false, ..wish };
            insist(world, number, wish, Manner::default()).await
        })
    });
    change_mind(&world, &wish, first).await;
    if let Some(later) = later {
        drop(later.await);
    }
}

async fn change_mind(world: &Arc<World>, wish: &Wish, told: Option<Submitted>) {
    let (Some(submitted), Some(after)) = (told, wish.cancelled_after) else { return };
    tokio::time::sleep(Duration::from_millis(after)).await;
    let Some((platform, caller)) = standing(world) else { return };
    world.state().cancelled.insert(submitted.id);
    tokio::select! {
        biased;
        () = platform.line.died() => {}
        _done = platform.line.says(platform.driver.cancel(&caller, submitted.id)) => {}
    }
}

/// Asks until it is told.
async fn insist(
    world: Arc<World>,
    number: usize,
    wish: Wish,
    mut manner: Manner,
) -> Option<Submitted> {
    for _ in 0..TRIES_MAX {
        if let Some((platform, own)) = standing(&world) {
            let caller = match manner.signed.take() {
                Some(signed) => {
                    world.state().rare.identical += 1;
                    signed
                }
                None => own,
            };
            let asked_at = world.clock.elapsed();
            let has_room = world.state().has_room_for_nonces();
            match request(&world, &platform, &caller, number, &wish, manner.is_another).await {
                Outcome::Told(submitted) => {
                    let now = world.clock.elapsed();
                    world.trace(|| format!("wish {number} is {}", submitted.id));
                    let (spent, before) = {
                        let mut state = world.state();
                        // That of a repeated request goes into the journal, as far as that takes it.
                        let is_durable = !submitted.replayed
                            || (has_room
                                && state.has_room_for_nonces()
                                && state.was_well(Trouble::Still, asked_at, now)
                                && state.was_well(Trouble::JournalGivenUp, asked_at, now));
                        let asked = state.asked.entry(number).or_default();
                        asked.told.push((submitted.id, now));
                        asked.nonces.extend(is_durable.then(|| caller.nonce()));
                        let spent = Spent { asked_at, is_durable };
                        (spent, state.answered_nonces.insert(caller.nonce().key, spent))
                    };
                    if before.is_some_and(|before| !may_be_lost(&world, number, &caller, before)) {
                        let found = format!("a nonce of wish {number} was answered twice");
                        world.state().violate(found);
                    }
                    if wish.replays_nonce {
                        replay(&world, &platform, &caller, number, &wish, spent).await;
                    }
                    return Some(submitted);
                }
                Outcome::Refused(why) => {
                    world.trace(|| format!("wish {number} is refused: {why}"));
                    return None;
                }
                Outcome::Unknown => {}
            }
        }
        let more = world.dice(|dice| dice.random_range(0..RETRY_WAIT));
        tokio::time::sleep(Duration::from_millis(RETRY_WAIT + more)).await;
    }
    None
}

/// Somebody sends a captured request once more. Its nonce was spent, whatever has happened since.
async fn replay(
    world: &Arc<World>,
    platform: &Platform,
    caller: &Caller,
    number: usize,
    wish: &Wish,
    spent: Spent,
) {
    let pause = world.dice(|dice| dice.random_range(0..3_000));
    tokio::time::sleep(Duration::from_millis(pause)).await;
    let platform = standing(world).map_or_else(|| platform.clone(), |(platform, _)| platform);
    let other =
        Draft { idempotency_key: format!("captured-{number}"), ..draft(world, number, wish) };
    let answer = tokio::select! {
        biased;
        () = platform.line.died() => return,
        answer = platform.line.says(platform.driver.submit(caller, other, Some(caller.nonce()))) => answer,
    };
    if answer.is_ok() && !may_be_lost(world, number, caller, spent) {
        world.state().violate(format!("the nonce of wish {number} was good twice"));
    }
}

/// Whether a nonce that was spent may be good once more.
fn may_be_lost(world: &World, number: usize, caller: &Caller, spent: Spent) -> bool {
    let Spent { asked_at, is_durable } = spent;
    let now = world.clock.elapsed();
    let wish = world.plan.happenings.get(number).map(|one| &one.what);
    let is_urgent = matches!(wish, Some(What::Command(wish)) if wish.is_urgent());
    let state = world.state();
    // That of an emergency that was answered without the store is known to the process alone where its journal did not
    // take it either, and to its own server alone as long as it stands there.
    let is_in_memory = !is_durable && !state.was_well(Trouble::World, asked_at, now);
    let is_elsewhere = world.plan.servers > 1 && world.plan.every_journal;
    let is_spoiled = state.is_spoiled(number) || state.spoiled_nonces.contains(&caller.nonce().key);
    // Or did not answer a server that stood still.
    let was_unwell = !state.was_well(Trouble::Store, asked_at, now)
        || !state.was_well(Trouble::Still, asked_at, now);
    is_urgent && (is_spoiled || (was_unwell && (is_in_memory || is_elsewhere)))
}

async fn request(
    world: &Arc<World>,
    platform: &Platform,
    caller: &Caller,
    number: usize,
    wish: &Wish,
    is_another: bool,
) -> Outcome {
    world.give_way().await;
    let now = world.clock.elapsed();
    world.state().asked.entry(number).or_default().tries.push(now);
    let mut draft = draft(world, number, wish);
    if is_another {
        draft.fingerprint = fingerprint(&json!({"another": number}), &[]);
    }
    let answer = tokio::select! {
        biased;
        () = platform.line.died() => return Outcome::Unknown,
        answer = platform.line.says(platform.driver.submit(caller, draft, Some(caller.nonce()))) => answer,
    };
    let then = world.clock.elapsed();
    if wish.is_urgent()
        && world.has_journals()
        && world.state().was_well(Trouble::Journal, now, then)
        && world.state().was_well(Trouble::Still, now, then)
    {
        if let Err(why @ SubmitError::Store(cause)) = &answer
            && !world.state().may_refuse(number)
        {
            let found = format!("emergency of wish {number} was refused at {then}: {why}: {cause}");
            world.state().violate(found);
        }
        if then > now + URGENT_ANSWER_WAIT_MAX {
            let found = format!("emergency of wish {number} of {now} was answered at {then}");
            world.state().violate(found);
        }
    }
    match answer {
        Ok(submitted) => Outcome::Told(submitted),
        Err(
            SubmitError::Store(_)
            | SubmitError::Stopping
            | SubmitError::LaneFull(_)
            | SubmitError::ClockOff(_),
        ) => Outcome::Unknown,
        Err(
            why @ (SubmitError::Busy { .. }
            | SubmitError::KeyReused(_)
            | SubmitError::NonceReplayed),
        ) => Outcome::Refused(why),
    }
}

/// A server that stands, and a caller with a nonce of its own.
fn standing(world: &Arc<World>) -> Option<(Platform, Caller)> {
    let mut standing = world.standing();
    let which = match standing.len() {
        0 => return None,
        1 => 0,
        several => world.dice(|dice| dice.random_range(0..several)),
    };
    Some((standing.swap_remove(which), sign(world)?))
}

fn sign(world: &World) -> Option<Caller> {
    let api_id = ApiId::new("ak_trial");
    let credential = Credential {
        api_id: api_id.clone(),
        tenant: tenant(),
        name: "trial".to_owned(),
        status: CredentialStatus::Active,
        permissions: BTreeSet::from([Permission::CommandCreate]),
        allowed_clock_skew: Duration::from_secs(300),
        replay_window: Duration::from_secs(300),
        expires_at: None,
        ip_allow: Vec::new(),
        devices: None,
        complete_on: CompleteOn::Outcome,
        secrets: vec![CredentialSecret {
            secret: Secret::new(SECRET.to_owned()),
            valid_until: None,
        }],
        created_at: Timestamp::from_millis(0),
    };
    let now = Timestamp::from_millis(world.clock.wall());
    let nonce = world.dice(|dice| format!("{:032x}", dice.random::<u128>()));
    let parts = SignedParts { method: "POST", path: PATH, query: None, body: b"{}" };
    let timestamp = now.as_millis() / 1_000;
    let key = Secret::new(SECRET.to_owned()).signing_key();
    let text = signing::string_to_sign(parts, &api_id, timestamp, &nonce);
    let head = SignedHead { api_id, timestamp, nonce, signature: key.sign(text.as_bytes()) };
    let keyed = KeyedCredential::new(credential);
    signing::verify(Some(&keyed), &head, parts, "trial", None, now).ok()
}

fn draft(world: &World, number: usize, wish: &Wish) -> Draft {
    let name = wish.kind.method();
    let payload = match wish.kind {
        Kind::Flight => json!({
            "fly_to_id": format!("flight-{number}"), "max_speed": 5,
            "points": [{"latitude": 1.0, "longitude": 2.0, "height": 60.0}],
        }),
        Kind::Stick => {
            json!({"roll": 1_000 + number, "pitch": 1_024, "throttle": 1_024, "yaw": 1_024})
        }
        Kind::Reply | Kind::Job | Kind::Home | Kind::Stop => json!({}),
    };
    // The catalogue of the platform has every method that a wish can name.
    let Some(method) = world.catalogue.method(name) else { unreachable!("{name} is no method") };
    Draft {
        device: gateway(wish.dock).to_device(),
        gateway: gateway(wish.dock),
        aircraft: Some(aircraft(wish.aircraft)),
        method: method.name.clone(),
        channel: method.channel,
        completes_by: method.completes_by,
        risk: method.risk,
        starts_motion: method.starts_motion,
        reply_without_status_is_final: method.result_zero_without_status_is_final,
        if_offline: if wish.waits { IfOffline::Wait } else { IfOffline::Fail },
        complete_on: CompleteOn::Outcome,
        job_ref: method.job_ref(&payload),
        timeout: Duration::from_secs(u64::from(wish.timeout)),
        silence_wait: SILENCE_WAIT,
        fingerprint: fingerprint(&payload, &[]),
        payload: payload.to_string().into(),
        idempotency_key: format!("wish-{number}"),
    }
}
