//! Compares what the platform says with what really happened (LIFECYCLE.md).

use utmos_core::{
    command::{FailureCode, Spec, Status},
    evidence::{Entry, Proof},
    id::{CommandId, GatewaySn},
    method::Risk,
    signing::NonceUse,
};

use crate::{
    caller::SILENCE_WAIT,
    disk::{Record, is_one_motion},
    facts::{Claim, Facts},
    order::EMERGENCY_WAIT_MAX,
    plan::{WINDOW_MS, Weather},
    steps::is_borne_out,
    world::{State, Trouble, World, gateway, number_of},
};

/// Any command has left so many milliseconds after its acceptance, where nothing has been in trouble for as long: the
/// others before it and pauses after a failure are over by then.
const CALM_WAIT_MAX: u64 = 2_000;
/// Docks say something at a broker of others every two seconds, and count as there for six after that: by then every server
/// has heard of each that is there, in milliseconds.
const HEARD_WAIT_MAX: u64 = WINDOW_MS;
/// By then another server has what one held that is gone: three seconds of silence, up to two for what is under way when a
/// share is given back, and what the signs of life take, in milliseconds.
const TAKE_OVER_WAIT_MAX: u64 = 8_000;
/// A record of an emergency in its journal is not longer than this.
const RECORD_BYTES_MAX: usize = 6 << 10;
/// What was taken in is decided upon so soon, in milliseconds.
const HEEDED_WAIT_MAX: u64 = 50;
/// How long an emergency waits for the store.
const URGENT_STORE_WAIT: u64 = 250;

/// What was noted while the trial went on.
pub(crate) fn found_so_far(world: &World) -> Vec<String> {
    let state = world.state();
    [state.violations.clone(), state.disk.found()].concat()
}

/// Everything that must hold at the end and does not.
pub(crate) fn judge(world: &World) -> Vec<String> {
    let mut found = found_so_far(world);
    let mut state = world.state();
    let mut due = 0;
    let nothing = Facts::default();
    for (id, record) in &state.disk.records {
        let facts = state.facts.get(id).unwrap_or(&nothing);
        // Nobody can know what became of it; it was sent once all the same, and in time.
        let is_lost = state.is_lost(*id);
        let command = &record.command;
        if let (false, Err(why)) =
            (is_lost, world.has_cause(&state, &command.spec, &command.life, record.entries.iter()))
        {
            found.push(format!("{id} ({}): {why}", command.spec.method));
        }
        if let (false, Err(why)) = (is_lost, is_true(world, &state, record, facts)) {
            found.push(format!("{id} ({}): {why}", record.command.spec.method));
        }
        match was_sent_in_calm(world, &state, record, facts) {
            Ok(is_due) => due += usize::from(is_due && world.plan.broker.is_outside()),
            Err(_) if is_lost => {}
            Err(why) => found.push(format!("{id} ({}): {why}", record.command.spec.method)),
        }
    }
    // Nobody would look after them.
    let held = state.copies.iter().filter(|id| state.disk.records.contains_key(id));
    found.extend(
        held.map(|id| format!("{id} is on record beside the copy that its caller was told of")),
    );
    told_the_truth(world, &state, &mut found);
    let compared = world.in_order(&state);
    let at_once = emergencies_left_at_once(world, &state, &mut found);
    emergencies_stood_in_the_way(&state, &mut found);
    state.rare.in_order += compared;
    state.rare.at_once += at_once;
    if world.plan.servers > 1 {
        state.rare.due_of_several += due;
    } else {
        state.rare.due_outside += due;
    }
    found
}

/// Whether its last state claims no more, and no less, than what its dock did.
fn is_true(world: &World, state: &State, record: &Record, facts: &Facts) -> Result<(), String> {
    let life = &record.command.life;
    let (status, failure) = (life.status(), life.phase.failure());
    let claim = || format!("reads {status:?}/{failure:?}, and the truth is {facts:?}");
    if !life.phase.has_ended() {
        return Err(format!("never ended: {life:?}"));
    }
    is_borne_out(life, facts)?;
    said_nothing_too_soon(record, facts).map_err(|what| format!("{what}: {}", claim()))?;
    was_heeded(world, state, record, facts).map_err(|what| format!("{what} was lost: {}", claim()))
}

/// What came true in the end must have been true when it was said, or put on record in whichever way.
fn said_nothing_too_soon(record: &Record, facts: &Facts) -> Result<(), String> {
    let on_record = Claim::all_of(&record.command.life).into_iter();
    let ended = on_record
        .filter(|claim| matches!(claim, Claim::Succeeded | Claim::Failed | Claim::Unmatched));
    let ended = ended.filter_map(|claim| Some((claim, record.ended?)));
    let said = facts.claims.iter().map(|(claim, at)| (*claim, *at)).chain(ended);
    for (claim, at) in said {
        if facts.true_since(claim).is_none_or(|since| at < since) {
            return Err(format!("{claim:?} was said too soon, at {at}"));
        }
    }
    Ok(())
}

/// So long it takes until others have put on record what the server of a dock could not hear, in milliseconds: until they know that
/// its last run is gone, and have given the next one a chance of its own.
const OTHERS_WAIT_MAX: u64 = 4_000;

/// What a server took in counts if that server lived to write the end, and it came in time: of a command that reads as
/// unanswered no answer, and of one whose job reads as unknown no word of its end.
fn was_heeded(
    world: &World,
    state: &State,
    record: &Record,
    facts: &Facts,
) -> Result<(), &'static str> {
    let life = &record.command.life;
    let failure = life.phase.failure().filter(|_| life.status() == Status::TimedOut);
    let is_unanswered = matches!(
        failure,
        Some(FailureCode::NoResponse | FailureCode::DispatchUncertain | FailureCode::DeviceOffline)
    );
    let is_unknown = is_unanswered || failure == Some(FailureCode::ExecutionUnconfirmed);
    let (Some(ended), Some(by)) = (record.ended, record.ended_by) else { return Ok(()) };
    // A store that is slow writes later what was decided before.
    let decided = facts.end_wanted.unwrap_or(ended).min(ended);
    // Those who heard it put it on record where whoever wrote the end was not there yet.
    let others_count = |at: u64, lives: &[u64]| {
        let lived_on = |life: &u64| state.deaths.get(life).is_none_or(|died| decided < *died);
        state.births.get(&by).is_some_and(|born| at < *born)
            && lives.iter().any(lived_on)
            && state.was_well(Trouble::Store, at, decided)
            && state.was_well(Trouble::Reads, at, decided)
            // Whoever heard it may be the one that stood still, and puts nothing on record meanwhile.
            && state.was_well(Trouble::Still, at, decided)
            && at + OTHERS_WAIT_MAX < decided
    };
    let counts = |(at, lives): &&(u64, Vec<u64>)| {
        !facts.written.is_empty()
            && (lives.contains(&by) && at + HEEDED_WAIT_MAX < decided || others_count(*at, lives))
    };
    let deadline = world.clock.elapsed_at(record.command.spec.deadline).unwrap_or(0);
    let is_in_time = |at: u64| at + HEEDED_WAIT_MAX + world.may_be_early_by() < deadline;
    let answered = facts.answered.as_ref().filter(counts).filter(|(at, _)| is_in_time(*at));
    if is_unanswered && answered.is_some() {
        return Err("its answer");
    }
    // A job that was said to run may be silent for a while, whatever its deadline.
    let may_be_silent = |at: u64| {
        answered.is_some_and(|(before, _)| {
            at + HEEDED_WAIT_MAX + world.may_be_early_by()
                < before + u64::try_from(SILENCE_WAIT.as_millis()).unwrap_or(0)
        })
    };
    let told_end = facts.told_end.as_ref().filter(counts);
    if is_unknown && told_end.is_some_and(|(at, _)| is_in_time(*at) || may_be_silent(*at)) {
        return Err("the word of its end");
    }
    Ok(())
}

/// When a command's time is over, as its caller counts: from the request that was stored.
pub(crate) fn deadline(world: &World, state: &State, spec: &Spec) -> Option<u64> {
    let (number, _) = world.wish_of(&spec.idempotency_key)?;
    let tries = state.asked.get(&number)?.tries.iter().copied();
    let known = state.known.get(&spec.id)?.asked;
    let asked = tries.filter(|at| *at <= known).max()?;
    Some(asked + u64::try_from(spec.timeout.as_millis()).unwrap_or(u64::MAX))
}

/// Whether nothing was wrong around a gateway between the two, and it was connected all the while.
fn is_calm_at(state: &State, sn: &GatewaySn, from: u64, to: u64) -> bool {
    was_steady(state, sn, from, to) && state.was_calm(from, to)
}

fn was_steady(state: &State, sn: &GatewaySn, from: u64, to: u64) -> bool {
    let dock = state.docks.iter().zip(0..).find(|(_, dock)| gateway(*dock) == *sn);
    dock.is_some_and(|(dock, _)| dock.was_steady(from, to))
}

/// Whether servers know for certain who is there once nothing has been in trouble for a while: from our own broker, or
/// because whatever devices say arrives.
fn knows_who_is_there(world: &World) -> bool {
    !world.plan.broker.is_outside() || world.plan.weather == Weather::Clear
}

/// For how long nothing must have been in trouble before a command must be sent.
fn settled_in(world: &World) -> u64 {
    match (world.plan.broker.is_outside(), world.plan.servers) {
        (false, _) => CALM_WAIT_MAX,
        (true, 0 | 1) => HEARD_WAIT_MAX,
        (true, _) => TAKE_OVER_WAIT_MAX,
    }
}

/// A command that nothing stood in the way of, and nobody called back, was sent. Whether it was such a one.
fn was_sent_in_calm(
    world: &World,
    state: &State,
    record: &Record,
    facts: &Facts,
) -> Result<bool, String> {
    let spec = &record.command.spec;
    let is_called_back = matches!(
        record.command.life.phase.failure(),
        Some(FailureCode::Cancelled | FailureCode::PreemptedByEmergency)
    );
    let (Some(deadline), Some(ended)) = (deadline(world, state, spec), record.ended) else {
        return Ok(false);
    };
    let until = deadline.min(ended);
    // To another server it is over sooner.
    let had_time = deadline >= world.may_be_early_by() + record.accepted + CALM_WAIT_MAX;
    let by_whom = state.known.get(&spec.id).map(|known| known.server);
    let is_clock_off = by_whom.is_some_and(|server| world.is_clock_off(server));
    let is_calm = knows_who_is_there(world)
        && is_calm_at(
            state,
            &spec.gateway,
            record.accepted.saturating_sub(settled_in(world)),
            until,
        );
    let is_due = had_time && is_calm && !is_called_back && !is_clock_off;
    if facts.written.is_empty() && is_due {
        let life = &record.command.life;
        return Err(format!("was never sent, and nothing stood in its way: {:?}", life.phase));
    }
    Ok(is_due)
}

/// Whoever was told of a command finds it, and under one key only one; and the nonce that made it is on record.
fn told_the_truth(world: &World, state: &State, found: &mut Vec<String>) {
    for (number, asked) in &state.asked {
        let is_spoiled = state.is_spoiled(*number);
        let is_lost = |nonce: &NonceUse| {
            !state.spoiled_nonces.contains(&nonce.key) && !state.disk.knows(nonce)
        };
        if !is_spoiled && asked.nonces.iter().any(is_lost) {
            found.push(format!("a nonce of wish {number} is not on record"));
        }
        let mut ids: Vec<CommandId> = asked.told.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        // A key is not known while nothing of the store can be read; nor, to another server, before the store has it.
        let second = ids.iter().filter_map(|id| state.known.get(id)).map(|known| known.asked).max();
        let on_record = ids.iter().filter_map(|id| state.disk.records.get(id));
        let both_on_record = on_record.map(|record| record.accepted).min();
        let could_not_know = second.is_some_and(|asked| {
            let by = asked + URGENT_STORE_WAIT;
            let is_elsewhere = both_on_record.is_none_or(|accepted| accepted >= asked);
            !state.was_well(Trouble::Reads, asked, by) || (world.plan.servers > 1 && is_elsewhere)
        });
        let is_urgent =
            |id| state.known.get(id).is_some_and(|known| known.spec.risk == Risk::Emergency);
        let are_urgent = ids.iter().all(is_urgent);
        // Of copies that the store may have taken without saying so, one leaves by the journal; the others end unsent.
        let first = ids.iter().filter_map(|id| state.known.get(id)).map(|known| known.asked).min();
        let were_unclear = first
            .zip(second)
            .is_some_and(|(first, second)| !state.was_well(Trouble::Store, first, second));
        // What stands still has waited long enough for the store when it goes on.
        let stood_still = first.zip(second).is_some_and(|(first, second)| {
            !state.was_well(Trouble::Still, first, second + URGENT_STORE_WAIT)
        });
        let is_one_sent = ids.iter().filter(|id| state.was_written(**id)).count() <= 1;
        let is_excused =
            are_urgent && (could_not_know || stood_still || (were_unclear && is_one_sent));
        if ids.len() > 1 && !is_excused && !is_spoiled {
            found.push(format!("wish {number} became {ids:?}"));
        }
        for id in ids {
            if !is_spoiled && !state.disk.records.contains_key(&id) {
                found.push(format!("wish {number} lost the command that it was told of: {id}"));
            }
        }
    }
}

impl State {
    /// Whether a line in a journal, or a row in the store, was damaged of a command of this wish.
    pub(crate) fn is_spoiled(&self, wish: usize) -> bool {
        let is_of_it = |id: &CommandId| {
            let known = self.known.get(id);
            known.is_some_and(|known| number_of(&known.spec.idempotency_key) == Some(wish))
        };
        let mut rows = self.disk.records.iter().filter(|(_, record)| record.is_damaged);
        self.spoiled.iter().any(is_of_it) || rows.any(|(id, _)| is_of_it(id))
    }

    /// Whether every journal has room for the nonces of requests that come again.
    pub(crate) fn has_room_for_nonces(&self) -> bool {
        self.posts.iter().all(|post| post.platter.has_room_for_talk())
    }

    /// Whether an emergency may be refused although the journals can be written: its row cannot be read, or others have
    /// filled a journal. What devices say in between must not.
    pub(crate) fn may_refuse(&self, wish: usize) -> bool {
        let is_full = self.posts.iter().any(|post| {
            let (used, space) = post.platter.used();
            used + RECORD_BYTES_MAX >= space / 2
        });
        is_full || self.is_spoiled(wish)
    }
}

/// An emergency waits for nothing. Answers of how many it was seen that they had to leave at once.
fn emergencies_left_at_once(world: &World, state: &State, found: &mut Vec<String>) -> usize {
    let mut at_once = 0;
    let none = Facts::default();
    for emergency in state.disk.records.values() {
        let spec = &emergency.command.spec;
        if spec.risk != Risk::Emergency || emergency.is_damaged || state.spoiled.contains(&spec.id)
        {
            continue;
        }
        // One that was told of past its deadline has nothing to do any more.
        let Some(told) = state.told_of(spec).filter(|told| world.is_in_time(state, spec, *told))
        else {
            continue;
        };
        // And one that a server died with may have left.
        let was_found = |entry: &Entry| matches!(entry.proof, Proof::FoundAfterRestart { .. });
        let may_have_left = emergency.entries.iter().any(was_found);
        let facts = state.facts.get(&spec.id).unwrap_or(&none);
        // Also where the store is unwell, whatever it does: a claim of its own waits for it, and then for the journal.
        let from =
            told.saturating_sub(if world.plan.broker.is_outside() { HEARD_WAIT_MAX } else { 100 });
        let is_unwell = !state.was_well(Trouble::Store, from, told + EMERGENCY_WAIT_MAX);
        let wait = EMERGENCY_WAIT_MAX + if is_unwell { URGENT_STORE_WAIT } else { 0 };
        let to = told + wait;
        let but: &[Trouble] = match world.has_journals() {
            true => &[Trouble::Store, Trouble::Reads],
            // It can be claimed nowhere else.
            false => &[],
        };
        let is_calm = knows_who_is_there(world)
            && was_steady(state, &spec.gateway, from, to)
            && state.was_calm_but_for(but, from, to);
        let is_late = facts.written.first().is_none_or(|at| *at > to);
        let is_cancelled = emergency.command.life.phase.failure() == Some(FailureCode::Cancelled);
        // A copy that the store took without saying so, while another of them left by the journal.
        let has_left_as_another = state.known.values().any(|known| {
            known.spec.id != spec.id
                && number_of(&known.spec.idempotency_key) == number_of(&spec.idempotency_key)
                && state.was_written(known.spec.id)
        });
        // Whoever asks again may be told of one that a restart has ended, since its dock was not there.
        let had_ended = facts.end_wanted.is_some_and(|at| at <= told);
        let is_excused = may_have_left || is_cancelled || has_left_as_another || had_ended;
        at_once += usize::from(is_calm && !is_excused);
        if is_calm && is_late && !is_excused {
            found.push(format!("emergency {} of {told} left at {:?}", spec.id, facts.written));
        }
    }
    at_once
}

/// No movement is accepted while one of an emergency is running that was told of, also where only the journal knows it. What
/// is in the journal of one server, another does not know.
fn emergencies_stood_in_the_way(state: &State, found: &mut Vec<String>) {
    for emergency in state.disk.records.values() {
        let spec = &emergency.command.spec;
        let is_it = spec.risk == Risk::Emergency
            && spec.starts_motion
            && emergency.by_journal
            && !emergency.is_damaged
            && !state.spoiled.contains(&spec.id);
        let told = state.told_of(spec);
        let (true, Some(told)) = (is_it, told) else { continue };
        let ended = state.facts.get(&spec.id).and_then(|facts| facts.end_wanted);
        let server = |id: &CommandId| state.known.get(id).map(|known| known.server);
        for motion in state.disk.records.values() {
            let other = &motion.command.spec;
            let asked = state.known.get(&other.id).map_or(0, |known| known.asked);
            let is_beside = other.risk == Risk::Motion
                && other.starts_motion
                && is_one_motion(other, spec)
                && server(&other.id) == server(&spec.id)
                && asked > told
                && motion.accepted < emergency.accepted
                && ended.is_none_or(|ended| motion.accepted < ended);
            if is_beside {
                found.push(format!("{} was accepted beside emergency {}", other.id, spec.id));
            }
        }
    }
}

/// Puts every command's timeline at the end of the trace, for whoever looks at a trial that failed.
pub(crate) fn tell_lives(world: &World) {
    let records = world.state().disk.records.clone();
    for (id, record) in records {
        world.trace(|| format!("{id} {} of {}", record.command.spec.method, record.accepted));
        for entry in record.entries {
            let (from, to) = (entry.from.as_str(), entry.to.as_str());
            world.trace(|| format!("  {} {from} {to} {:?}", entry.at, entry.proof));
        }
    }
}
