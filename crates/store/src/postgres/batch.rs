//! One transaction for many writes, in two flights: what it needs to know, with the locks for it, and what it writes, with
//! the commit. Between them `decide` decides in memory.
//!
//! Several servers write at once, in READ COMMITTED. That is enough, because each thing that may be there only once is
//! fought for by a lock before it is looked at, and each statement sees what was committed when it began:
//! - A nonce and a key are inserted where they are not there; whoever inserts the same one meanwhile is waited for. A
//!   statement that then reads what stands under a key that was not free finds it committed.
//! - Ways of movements (aircraft, gateways) have an advisory lock each; who is moving is read after they are held.
//! - A command that changes is locked, and its version compared, before it is written.
//!
//! The locks are taken in one order by every batch (its member's (`fence`), nonces, keys, ways, commands; each sorted), so
//! that two batches never wait for each other in a circle. What else is written is written under these locks.
//!
//! The commit is sent with the writes. Where the server refuses one of them, the transaction is aborted and its COMMIT rolls
//! it back: that batch may run again. Where the connection breaks, nobody knows, and it never runs again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use sha2::{Digest, Sha256};
use tokio_postgres::{Client, Error, Row, Statement, types::Type};
use utmos_core::{
    id::CommandId,
    method::Risk,
    ports::StoreError,
    replica::{ReplicaId, Shard},
};
use uuid::Uuid;

use super::{
    births,
    cells::Cells,
    decide::{Born, Facts, Motion, Plan, Standing},
    fault::Fault,
    fence::{self, Fence},
    job::{Acceptance, Ask},
    lives,
    rare::Params,
    records::Records,
    rows,
    statements::Statements,
    text::kept,
};
use crate::{codes::is_rare_end, idempotency::needs_free_way};

/// What a batch fights for, sorted.
#[derive(Default)]
pub(super) struct Wanted {
    nonces: BTreeMap<Uuid, i64>,
    keys: BTreeMap<Uuid, Uuid>,
    ways: BTreeSet<i64>,
    /// Tenant, gateway and aircraft of each movement.
    movements: Vec<(Uuid, String, Option<String>)>,
    changes: BTreeSet<Uuid>,
    /// Whose shards it is about, where this server is one of several and something is accepted or claimed.
    member: Option<Uuid>,
    /// Commands whose sending is to begin.
    claims: BTreeSet<Uuid>,
}

impl Wanted {
    /// What these need, written for this member.
    pub(super) fn of<'j>(asks: impl Iterator<Item = &'j Ask>, own: Option<ReplicaId>) -> Self {
        let mut wanted = Self::default();
        for ask in asks {
            match ask {
                Ask::Accept(acceptance) => wanted.want(acceptance),
                Ask::Advance(change) => {
                    wanted.changes.insert(change.id.uuid());
                    if own.is_some() && change.is_claim {
                        wanted.claims.insert(change.id.uuid());
                    }
                }
                Ask::Spend(nonce) => wanted.want_nonce(nonce.key, nonce.expires_at.as_millis()),
                Ask::Probe => {}
            }
        }
        let is_fenced = !wanted.keys.is_empty() || !wanted.claims.is_empty();
        wanted.member = own.map(|own| own.0).filter(|_| is_fenced);
        wanted
    }

    fn want_nonce(&mut self, key: [u8; 16], expires_at: i64) {
        self.nonces.entry(Uuid::from_bytes(key)).or_insert(expires_at);
    }

    fn want(&mut self, acceptance: &Acceptance) {
        if let Some(nonce) = &acceptance.nonce {
            self.want_nonce(nonce.key, nonce.expires_at.as_millis());
        }
        self.keys.entry(acceptance.lookup).or_insert(acceptance.id());
        if !needs_free_way(&acceptance.new) {
            return;
        }
        let spec = &acceptance.new.spec;
        let (tenant, gateway) = (spec.tenant.uuid(), spec.gateway.as_str());
        self.ways.insert(way(tenant, b"gateway", gateway));
        let aircraft = spec.aircraft.as_ref().map(|aircraft| aircraft.as_str());
        if let Some(aircraft) = aircraft {
            self.ways.insert(way(tenant, b"aircraft", aircraft));
        }
        self.movements.push((tenant, gateway.to_owned(), aircraft.map(str::to_owned)));
    }
}

/// The advisory lock of an aircraft or a gateway.
fn way(tenant: Uuid, kind: &[u8], sn: &str) -> i64 {
    let hash = Sha256::new()
        .chain_update(tenant.as_bytes())
        .chain_update(kind)
        .chain_update(sn.as_bytes())
        .finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(first)
}

async fn query(
    client: &Client,
    statement: &Statement,
    is_needed: bool,
    params: Params<'_>,
) -> Result<Vec<Row>, Error> {
    if is_needed { client.query(statement, params).await } else { Ok(Vec::new()) }
}

/// Where statements of one flight go. One that could not even be sent keeps the commit from being sent.
struct Flight<'c> {
    client: &'c Client,
    is_broken: AtomicBool,
}

impl Flight<'_> {
    async fn execute(
        &self,
        statement: &Statement,
        is_needed: bool,
        params: Params<'_>,
    ) -> Result<u64, Error> {
        if !is_needed {
            return Ok(0);
        }
        let done = self.client.execute(statement, params).await;
        done.inspect_err(|_| self.is_broken.store(true, Ordering::Relaxed))
    }

    /// `None` when it was not sent.
    async fn commit(&self) -> Option<Result<(), Error>> {
        if self.is_broken.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.client.batch_execute("COMMIT").await)
    }
}

/// Begins the transaction, takes its locks and reads what it needs: one flight.
pub(super) async fn learn(
    client: &Client,
    statements: &Statements,
    wanted: &Wanted,
) -> Result<Facts, Fault> {
    let nonces: Vec<Uuid> = wanted.nonces.keys().copied().collect();
    let expiries: Vec<i64> = wanted.nonces.values().copied().collect();
    let keys: Vec<Uuid> = wanted.keys.keys().copied().collect();
    let claims: Vec<Uuid> = wanted.keys.values().copied().collect();
    let ways: Vec<i64> = wanted.ways.iter().copied().collect();
    let tenants: Vec<Uuid> = wanted.movements.iter().map(|it| it.0).collect();
    let gateways: Vec<&str> = wanted.movements.iter().map(|it| it.1.as_str()).collect();
    let aircraft: Vec<Option<&str>> = wanted.movements.iter().map(|it| it.2.as_deref()).collect();
    let changes: Vec<Uuid> = wanted.changes.iter().copied().collect();
    let starts: Vec<Uuid> = wanted.claims.iter().copied().collect();
    let member = wanted.member.unwrap_or_default();
    let is_fenced = wanted.member.is_some();
    let own_key = fence::key(member);
    let s = statements;
    let self_params: Params<'_> = &[&own_key];
    let member_params: Params<'_> = &[&member];
    let start_params: Params<'_> = &[&starts];
    let nonce_params: Params<'_> = &[&nonces, &expiries];
    let claim_params: Params<'_> = &[&keys, &claims];
    let key_params: Params<'_> = &[&keys];
    let way_params: Params<'_> = &[&ways];
    let motion_params: Params<'_> = &[&tenants, &gateways, &aircraft];
    let change_params: Params<'_> = &[&changes];
    // Each is sent when it is first polled, in this order.
    let (begun, guarded, shards, spent, claimed, before, locked, motions, standing, started) = tokio::join!(
        biased;
        client.batch_execute("BEGIN"),
        query(client, &s.lock_self, is_fenced, self_params),
        query(client, &s.own_shards, is_fenced, member_params),
        query(client, &s.spend_nonces, !nonces.is_empty(), nonce_params),
        query(client, &s.claim_keys, !keys.is_empty(), claim_params),
        query(client, &s.keys_before, !keys.is_empty(), key_params),
        query(client, &s.lock_ways, !ways.is_empty(), way_params),
        query(client, &s.motions, !ways.is_empty(), motion_params),
        query(client, &s.standing, !changes.is_empty(), change_params),
        query(client, &s.claims, !starts.is_empty(), start_params),
    );
    begun?;
    guarded?;
    let mut facts = Facts::default();
    let shards = shards?;
    for row in spent? {
        facts.spent.insert(row.try_get(0)?);
    }
    for row in claimed? {
        facts.claimed.insert(row.try_get(0)?, row.try_get(1)?);
    }
    for row in before? {
        let key: Uuid = row.try_get(0)?;
        if !facts.claimed.contains_key(&key) {
            let (key, before) = rows::before(&row)?;
            facts.before.insert(key, before);
        }
    }
    locked?;
    for row in motions? {
        facts.motions.push(motion(&row)?);
    }
    for row in standing? {
        let (id, standing) = read_standing(&row)?;
        facts.standing.insert(id, standing);
    }
    let started = started?;
    if is_fenced {
        facts.fence = Some(Fence::of(&shards, &started)?);
    }
    Ok(facts)
}

fn motion(row: &Row) -> Result<Motion, StoreError> {
    let mut cells = Cells::new(row, "motions");
    let command = cells.uuid("command")?;
    cells.name(command);
    Ok(Motion {
        command: CommandId::new(command),
        tenant: cells.tenant("tenant")?,
        gateway: cells.gateway("gateway")?,
        aircraft: cells.maybe_device("aircraft")?,
        method: cells.text("method")?,
    })
}

fn read_standing(row: &Row) -> Result<(Uuid, Standing), StoreError> {
    let mut cells = Cells::new(row, "lives");
    let id = cells.uuid("id")?;
    cells.name(id);
    let standing = Standing {
        version: cells.get("version")?,
        holds_motion: cells.get("holds_motion")?,
        entries: cells.get("entries")?,
        evidence: cells.get("evidence")?,
    };
    Ok((id, standing))
}

/// How a commit went wrong.
pub(super) enum Unwritten {
    /// It was certainly rolled back.
    RolledBack(Fault),
    /// It may have been written.
    Unknown(StoreError),
}

/// Writes what was decided, and commits: one flight.
pub(super) async fn write(
    client: &Client,
    statements: &Statements,
    plan: &Plan<'_>,
    writer: Uuid,
    own: Option<ReplicaId>,
) -> Result<(), Unwritten> {
    let s = statements;
    let flight = Flight { client, is_broken: AtomicBool::new(false) };
    let own = own.map(|own| own.0);
    let (mut new, mut born, mut rare) = (Records::default(), Records::default(), Vec::new());
    let (mut new_motions, mut tenants, mut gateways, mut aircraft, mut methods) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for Born { acceptance, life, sealed, entries } in &plan.accepted {
        let evidence = entries.iter().filter(|entry| entry.is_evidence()).count();
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        if is_rare_end(life.phase) {
            rare.push(acceptance.id());
        }
        births::add(&mut new, acceptance, own);
        lives::add(&mut born, acceptance.id(), life, sealed, count(entries.len()), count(evidence));
        if life.holds_motion {
            let spec = &acceptance.new.spec;
            new_motions.push(acceptance.id());
            tenants.push(spec.tenant.uuid());
            gateways.push(spec.gateway.as_str());
            aircraft.push(spec.aircraft.as_ref().map(|aircraft| aircraft.as_str()));
            methods.push(kept(&spec.method));
        }
    }
    let mut moved = Records::default();
    for (id, (change, entries, evidence)) in &plan.moved {
        lives::add(&mut moved, *id, &change.life, &change.sealed, *entries, *evidence);
    }
    let long: Vec<Uuid> = plan.lengthened.keys().copied().collect();
    let entries: Vec<i32> = plan.lengthened.values().map(|it| it.0).collect();
    let evidence: Vec<i32> = plan.lengthened.values().map(|it| it.1).collect();
    let small = |code: i64| i16::try_from(code).unwrap_or(i16::MAX);
    let mut lines = Records::default();
    for line in &plan.lines {
        lines
            .add()
            .field(&Type::UUID, &line.command)
            .field(&Type::INT4, &line.n)
            .field(&Type::INT2, &small(line.entry.from))
            .field(&Type::INT2, &small(line.entry.to))
            .field(&Type::INT8, &line.entry.at)
            .field(&Type::BYTEA, &line.entry.proof.as_slice());
    }
    let handed: Vec<Uuid> = plan.handed.iter().map(|it| it.id()).collect();
    let specs = || plan.handed.iter().map(|it| &it.new.spec);
    let shards: Vec<i16> =
        specs().map(|spec| fence::shard_code(Shard::of(&spec.gateway))).collect();
    let urgent: Vec<bool> = specs().map(|spec| spec.risk == Risk::Emergency).collect();
    let handed_params: Params<'_> = &[&handed, &shards, &urgent];
    let freed = &plan.freed_keys;
    let corrected: Vec<Uuid> = plan.corrected_keys.iter().map(|it| it.0).collect();
    let corrections: Vec<Uuid> = plan.corrected_keys.iter().map(|it| it.1).collect();
    let held: Vec<Uuid> = plan.held.iter().copied().collect();
    let released: Vec<Uuid> = plan.released.iter().copied().collect();
    let newest = plan.newest.unwrap_or(i64::MIN);
    let command_params: Params<'_> = &[&new];
    let born_params: Params<'_> = &[&born];
    let moved_params: Params<'_> = &[&moved];
    let rare_params: Params<'_> = &[&rare];
    let long_params: Params<'_> = &[&long, &entries, &evidence];
    let line_params: Params<'_> = &[&lines];
    let freed_params: Params<'_> = &[freed];
    let corrected_params: Params<'_> = &[&corrected, &corrections];
    let motion_params: Params<'_> = &[&new_motions, &tenants, &gateways, &aircraft, &methods];
    let held_params: Params<'_> = &[&held];
    let released_params: Params<'_> = &[&released];
    let time_params: Params<'_> = &[&writer, &newest];
    let outcomes = tokio::join!(
        biased;
        flight.execute(&s.insert_commands, !new.is_empty(), command_params),
        flight.execute(&s.insert_lives, !born.is_empty(), born_params),
        flight.execute(&s.update_lives, !moved.is_empty(), moved_params),
        flight.execute(&s.mark_rare_ends, !rare.is_empty(), rare_params),
        flight.execute(&s.lengthen_lives, !long.is_empty(), long_params),
        flight.execute(&s.insert_lines, !lines.is_empty(), line_params),
        flight.execute(&s.insert_handed, !handed.is_empty(), handed_params),
        flight.execute(&s.free_keys, !freed.is_empty(), freed_params),
        flight.execute(&s.correct_keys, !corrected.is_empty(), corrected_params),
        flight.execute(&s.insert_motions, !new_motions.is_empty(), motion_params),
        flight.execute(&s.hold_motions, !held.is_empty(), held_params),
        flight.execute(&s.release_motions, !released.is_empty(), released_params),
        flight.execute(&s.note_time, plan.newest.is_some(), time_params),
        flight.commit(),
    );
    let (a, b, c, d, e, f, g, h, i, j, k, l, m, committed) = outcomes;
    settle([a, b, c, d, e, f, g, h, i, j, k, l, m], committed)
}

/// What the answers of the server say of the transaction.
fn settle(
    writes: [Result<u64, Error>; 13],
    committed: Option<Result<(), Error>>,
) -> Result<(), Unwritten> {
    let mut broken = None;
    for write in writes {
        match write {
            Ok(_) => {}
            // The server lives, said no, and rolls back whatever comes behind.
            Err(err) if err.as_db_error().is_some() => {
                return Err(Unwritten::RolledBack(Fault::from(err)));
            }
            Err(err) => broken = Some(err),
        }
    }
    match (broken, committed) {
        (None, Some(Ok(()))) => Ok(()),
        (Some(err), None) => Err(Unwritten::RolledBack(Fault::from(err))),
        (Some(err), Some(_)) | (None, Some(Err(err))) => Err(Unwritten::Unknown(unknown(&err))),
        (None, None) => {
            let text = "nothing was committed".to_owned();
            Err(Unwritten::RolledBack(Fault::Everyone(StoreError::Unavailable(text))))
        }
    }
}

fn unknown(err: &Error) -> StoreError {
    let (StoreError::Unavailable(text) | StoreError::Damaged(text)) =
        super::fault::to_store_error(err);
    StoreError::Unavailable(format!("{text}; it may have been written"))
}
