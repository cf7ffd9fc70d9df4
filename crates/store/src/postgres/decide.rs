//! What becomes of the writes of a batch: decided one after another in memory, on what the database holds and keeps locked.
//! Pure; written afterwards, all at once.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use utmos_core::{
    command::Life,
    id::{CommandId, DeviceSn, GatewaySn, TenantId},
    method::Risk,
    ports::{Accepted, Advanced, Nonce, StoreError},
    signing::NonceUse,
};
use uuid::Uuid;

use super::{
    fault::Fault,
    fence::Fence,
    job::{Acceptance, Answer, Ask, Change},
};
use crate::{
    entry::EntryRow,
    idempotency::{Before, needs_free_way},
    life::SealedLife,
    sqlite::limits::EVIDENCE_PER_COMMAND_MAX,
};

/// What the database held when the batch had its locks.
#[derive(Default)]
pub(super) struct Facts {
    /// Nonces that were new.
    pub(super) spent: BTreeSet<Uuid>,
    /// Keys that were free and are reserved for a command now.
    pub(super) claimed: BTreeMap<Uuid, Uuid>,
    /// What stands under the other keys.
    pub(super) before: BTreeMap<Uuid, Before>,
    /// Movements of the aircraft and gateways of the batch.
    pub(super) motions: Vec<Motion>,
    /// How the commands stand that are to change.
    pub(super) standing: BTreeMap<Uuid, Standing>,
    /// What this server may send, where it is one of several.
    pub(super) fence: Option<Fence>,
}

/// A movement that stands in the way of others.
pub(super) struct Motion {
    pub(super) command: CommandId,
    pub(super) tenant: TenantId,
    pub(super) gateway: GatewaySn,
    pub(super) aircraft: Option<DeviceSn>,
    pub(super) method: String,
}

/// What decides about a change.
pub(super) struct Standing {
    pub(super) version: i64,
    pub(super) holds_motion: bool,
    pub(super) entries: i32,
    pub(super) evidence: i32,
}

/// What is to be written, by the batch's own order.
#[derive(Default)]
pub(super) struct Plan<'j> {
    pub(super) answers: Vec<Answer>,
    pub(super) accepted: Vec<Born<'j>>,
    /// Those of them that the holder of their gateway is to take in.
    pub(super) handed: Vec<&'j Acceptance>,
    /// The last change of each command that moves.
    pub(super) moved: BTreeMap<Uuid, (&'j Change, i32, i32)>,
    /// Commands of which only lines were added: how many they have then, and how many of them are evidence.
    pub(super) lengthened: BTreeMap<Uuid, (i32, i32)>,
    pub(super) lines: Vec<Line<'j>>,
    /// Keys that were reserved for nothing.
    pub(super) freed_keys: Vec<Uuid>,
    /// Keys that were reserved for another copy than the one that was accepted.
    pub(super) corrected_keys: Vec<(Uuid, Uuid)>,
    /// Commands on record that begin to stand in the way, and that end it.
    pub(super) held: BTreeSet<Uuid>,
    pub(super) released: BTreeSet<Uuid>,
    /// The latest wall time that goes on record.
    pub(super) newest: Option<i64>,
    /// What was handed to this member and is no more: it was taken in.
    pub(super) taken_in: Vec<Uuid>,
    /// Nonces that are known from now on.
    pub(super) nonces: Vec<NonceUse>,
}

/// A new command, and how its life begins.
pub(super) struct Born<'j> {
    pub(super) acceptance: &'j Acceptance,
    pub(super) life: &'j Life,
    pub(super) sealed: &'j SealedLife,
    /// Lines of its timeline, and how many of them changed no state.
    pub(super) entries: i32,
    pub(super) evidence: i32,
}

/// Lines of a timeline, with their place there.
pub(super) struct Line<'j> {
    pub(super) command: Uuid,
    pub(super) n: i32,
    pub(super) entry: Cow<'j, EntryRow>,
}

/// Decides all writes of a batch in their order. An error is one of a damaged row, and says nothing of the others.
pub(super) fn decide<'j>(
    asks: impl Iterator<Item = &'j Ask>,
    mut facts: Facts,
) -> Result<Plan<'j>, Fault> {
    let mut plan = Plan::default();
    let mut keys_used = BTreeSet::new();
    for ask in asks {
        let answer = match ask {
            Ask::Accept(acceptance) => {
                Answer::Accepted(accept(acceptance, &mut facts, &mut plan, &mut keys_used)?)
            }
            Ask::Advance(change) => Answer::Advanced(advance(change, &mut facts, &mut plan)?),
            Ask::Spend(nonce) => Answer::Nonce(spend(nonce, &mut facts, &mut plan)),
            Ask::TakenIn(_) | Ask::Probe => Answer::Written,
        };
        plan.answers.push(answer);
    }
    plan.freed_keys =
        facts.claimed.keys().filter(|key| !keys_used.contains(*key)).copied().collect();
    Ok(plan)
}

fn spend(nonce: &NonceUse, facts: &mut Facts, plan: &mut Plan<'_>) -> Nonce {
    plan.nonces.push(*nonce);
    match facts.spent.remove(&Uuid::from_bytes(nonce.key)) {
        true => Nonce::Spent,
        false => Nonce::Replayed,
    }
}

/// In this order: nonce, key, one motion at a time.
fn accept<'j>(
    acceptance: &'j Acceptance,
    facts: &mut Facts,
    plan: &mut Plan<'j>,
    keys_used: &mut BTreeSet<Uuid>,
) -> Result<Accepted, Fault> {
    if let Some(nonce) = &acceptance.nonce
        && spend(nonce, facts, plan) == Nonce::Replayed
    {
        return Ok(Accepted::NonceReplayed);
    }
    let (spec, key) = (&acceptance.new.spec, acceptance.lookup);
    if let Some(before) = facts.before.get(&key) {
        let damaged = |why| StoreError::Damaged(format!("idempotency {key}: {why}"));
        return Ok(before.answer(spec).map_err(damaged)?);
    }
    let Some(reserved_for) = facts.claimed.get(&key) else {
        // It was there a moment ago, and its command was dropped since.
        let text = "a key was forgotten while it was looked up".to_owned();
        return Err(Fault::Crossed(StoreError::Unavailable(text)));
    };
    if needs_free_way(&acceptance.new)
        && let Some(busy) = in_the_way(acceptance, &facts.motions)
    {
        return Ok(busy);
    }
    let is_handed =
        facts.fence.as_ref().is_some_and(|fence| fence.hands_on(&spec.gateway, spec.risk));
    let is_anothers_to_send = is_handed && spec.risk != Risk::Emergency;
    // For another server to send: whatever came with it beside the word of its acceptance was of a sending here.
    let (life, sealed, rows): (_, _, Vec<Cow<'_, EntryRow>>) = if is_anothers_to_send {
        let rows = acceptance.first_line()?.into_iter().map(Cow::Owned).collect();
        (&acceptance.unclaimed, &SealedLife::NOTHING, rows)
    } else {
        let rows = acceptance.entries.iter().map(Cow::Borrowed).collect();
        (&acceptance.new.life, &acceptance.life, rows)
    };
    let id = acceptance.id();
    if *reserved_for != id {
        plan.corrected_keys.push((key, id));
    }
    keys_used.insert(key);
    facts.before.insert(
        key,
        Before {
            id: spec.id,
            tenant: spec.tenant,
            key: spec.idempotency_key.clone(),
            fingerprint: spec.fingerprint,
            accepted_at: spec.accepted_at,
            phase: life.phase,
        },
    );
    if life.holds_motion {
        facts.motions.push(Motion {
            command: spec.id,
            tenant: spec.tenant,
            gateway: spec.gateway.clone(),
            aircraft: spec.aircraft.clone(),
            method: spec.method.clone(),
        });
    }
    let (mut entries, mut evidence) = (0, 0);
    for entry in rows {
        let n = entries;
        entries += entry.lines.cast_signed();
        evidence += entry.evidence.cast_signed();
        add_line(plan, Line { command: id, n, entry });
    }
    plan.accepted.push(Born { acceptance, life, sealed, entries, evidence });
    if is_handed {
        plan.handed.push(acceptance);
    }
    note_time(plan, spec.accepted_at.as_millis().max(life.updated_at.as_millis()));
    Ok(if is_anothers_to_send { Accepted::Elsewhere } else { Accepted::New })
}

/// Where either of two commands does not know its aircraft, the same gateway counts as the same aircraft.
fn in_the_way(acceptance: &Acceptance, motions: &[Motion]) -> Option<Accepted> {
    let spec = &acceptance.new.spec;
    let meets = |motion: &&Motion| {
        let same_gateway = motion.gateway == spec.gateway;
        motion.tenant == spec.tenant
            && match (&spec.aircraft, &motion.aircraft) {
                (Some(ours), Some(theirs)) => ours == theirs,
                (Some(_), None) | (None, Some(_)) | (None, None) => same_gateway,
            }
    };
    let first = motions.iter().filter(meets).min_by_key(|motion| motion.command)?;
    Some(Accepted::Busy { id: first.command, method: first.method.clone() })
}

fn advance<'j>(
    change: &'j Change,
    facts: &mut Facts,
    plan: &mut Plan<'j>,
) -> Result<Advanced, StoreError> {
    let id = change.id.uuid();
    let Some(standing) = facts.standing.get_mut(&id) else { return Ok(Advanced::Lost) };
    if standing.version != change.seen {
        return Ok(Advanced::Lost);
    }
    if let Some(refused) =
        facts.fence.as_ref().filter(|_| change.is_claim).and_then(|fence| fence.refuses(id))
    {
        return Ok(refused);
    }
    let before = standing.entries;
    let more: u32 = change.entries.iter().map(|row| row.evidence).sum();
    let rows: Vec<Cow<'_, EntryRow>> =
        if more > 0 && standing.evidence.cast_unsigned() + more > EVIDENCE_PER_COMMAND_MAX {
            change.each_line()?.into_iter().map(Cow::Owned).collect()
        } else {
            change.entries.iter().map(Cow::Borrowed).collect()
        };
    for entry in rows {
        let evidence = standing.evidence.cast_unsigned() + entry.evidence;
        if entry.evidence > 0 && evidence > EVIDENCE_PER_COMMAND_MAX {
            tracing::debug!(command.id = %change.id, "the timeline is full; evidence was dropped");
            continue;
        }
        standing.evidence = evidence.cast_signed();
        let n = standing.entries;
        standing.entries += entry.lines.cast_signed();
        add_line(plan, Line { command: id, n, entry });
    }
    let version = change.life.version.0.cast_signed();
    if version == change.seen {
        if standing.entries != before {
            match plan.moved.get_mut(&id) {
                Some((_, entries, evidence)) => {
                    (*entries, *evidence) = (standing.entries, standing.evidence);
                }
                None => {
                    plan.lengthened.insert(id, (standing.entries, standing.evidence));
                }
            }
        }
        return Ok(Advanced::Yes);
    }
    standing.version = version;
    plan.lengthened.remove(&id);
    plan.moved.insert(id, (change, standing.entries, standing.evidence));
    if change.life.holds_motion && !standing.holds_motion {
        plan.released.remove(&id);
        plan.held.insert(id);
    }
    if !change.life.holds_motion && standing.holds_motion {
        plan.held.remove(&id);
        plan.released.insert(id);
        facts.motions.retain(|motion| motion.command != change.id);
    }
    standing.holds_motion = change.life.holds_motion;
    note_time(plan, change.life.updated_at.as_millis());
    Ok(Advanced::Yes)
}

fn add_line<'j>(plan: &mut Plan<'j>, line: Line<'j>) {
    note_time(plan, line.entry.latest);
    plan.lines.push(line);
}

fn note_time(plan: &mut Plan<'_>, millis: i64) {
    plan.newest = plan.newest.max(Some(millis));
}
