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
use tokio_postgres::{Client, Error, Row, types::Type};
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
    fence::{self, Fence, FenceColumns},
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
    /// What the member has taken in, though it may not be on record yet.
    taken_in: Vec<Uuid>,
}

impl Wanted {
    /// What these need, written for this member.
    pub(super) fn of<'j>(
        asks: impl Iterator<Item = &'j Ask>,
        own: Option<ReplicaId>,
        taken_in: Vec<Uuid>,
    ) -> Self {
        let mut wanted = Self { taken_in, ..Self::default() };
        let mut is_note = false;
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
                Ask::TakenIn(_) => is_note = true,
                Ask::Probe => {}
            }
        }
        let is_fenced = is_note || !wanted.keys.is_empty() || !wanted.claims.is_empty();
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

/// Begins the transaction, takes its locks and reads what it needs: one flight, and another where a key was there already.
pub(super) async fn learn(
    client: &Client,
    statements: &Statements,
    wanted: &Wanted,
) -> Result<Facts, Fault> {
    let nonces: Vec<Uuid> = wanted.nonces.keys().copied().collect();
    let expiries: Vec<i64> = wanted.nonces.values().copied().collect();
    let keys: Vec<Uuid> = wanted.keys.keys().copied().collect();
    let commands: Vec<Uuid> = wanted.keys.values().copied().collect();
    let ways: Vec<i64> = wanted.ways.iter().copied().collect();
    let tenants: Vec<Uuid> = wanted.movements.iter().map(|it| it.0).collect();
    let gateways: Vec<&str> = wanted.movements.iter().map(|it| it.1.as_str()).collect();
    let aircraft: Vec<Option<&str>> = wanted.movements.iter().map(|it| it.2.as_deref()).collect();
    let changes: Vec<Uuid> = wanted.changes.iter().copied().collect();
    let claims: Vec<Uuid> = wanted.claims.iter().copied().collect();
    let own_key = wanted.member.map(fence::key);
    let learn_params: Params<'_> = &[
        &wanted.member,
        &own_key,
        &wanted.taken_in,
        &nonces,
        &expiries,
        &keys,
        &commands,
        &ways,
        &changes,
        &claims,
    ];
    let motion_params: Params<'_> = &[&tenants, &gateways, &aircraft];
    let read_motions = async {
        match ways.is_empty() {
            true => Ok(Vec::new()),
            // Sees what was committed when the locks were held.
            false => client.query(&statements.motions, motion_params).await,
        }
    };
    // Each is sent when it is first polled, in this order.
    let (begun, learned, motions) = tokio::join!(
        biased;
        client.batch_execute("BEGIN"),
        client.query_one(&statements.learn, learn_params),
        read_motions,
    );
    begun?;
    let learned = learned?;
    let mut facts = read_facts(&learned, wanted.member.is_some())?;
    for row in motions? {
        facts.motions.push(motion(&row)?);
    }
    let taken: Vec<Uuid> =
        keys.into_iter().filter(|key| !facts.claimed.contains_key(key)).collect();
    if !taken.is_empty() {
        for row in client.query(&statements.keys_before, &[&taken]).await? {
            let (key, before) = rows::before(&row)?;
            facts.before.insert(key, before);
        }
    }
    Ok(facts)
}

/// Reads what `learn_batch` answers: in each column what there is of it, in one order with the columns that belong to it.
fn read_facts(learned: &Row, is_fenced: bool) -> Result<Facts, StoreError> {
    let mut cells = Cells::new(learned, "learn_batch");
    let fence = FenceColumns { shards: cells.several("shards")?, handed: cells.several("handed")? };
    let mut facts = Facts::default();
    facts.spent.extend(cells.several::<Uuid>("spent")?);
    let keys = cells.several::<Uuid>("free_keys")?.into_iter();
    facts.claimed.extend(keys.zip(cells.several("free_for")?));
    let ids: Vec<Uuid> = cells.several("changed")?;
    let versions = cells.several("versions")?.into_iter();
    let holders = cells.several("motion_holders")?.into_iter();
    let entries = cells.several("entry_counts")?.into_iter();
    let evidence = cells.several("evidence_counts")?.into_iter();
    let standings = versions.zip(holders).zip(entries.zip(evidence)).map(
        |((version, holds_motion), (entries, evidence))| Standing {
            version,
            holds_motion,
            entries,
            evidence,
        },
    );
    facts.standing.extend(ids.into_iter().zip(standings));
    if is_fenced {
        facts.fence = Some(Fence::read(fence, &mut cells)?);
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
    let own = own.map(|own| own.0);
    let (mut new, mut born, mut rare) = (Records::default(), Records::default(), Vec::new());
    let (mut new_motions, mut tenants, mut gateways, mut aircraft, mut methods) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for Born { acceptance, life, sealed, entries, evidence } in &plan.accepted {
        if is_rare_end(life.phase) {
            rare.push(acceptance.id());
        }
        births::add(&mut new, acceptance, own);
        lives::add(&mut born, acceptance.id(), life, sealed, *entries, *evidence);
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
            .field(&Type::BYTEA, &line.entry.proof.as_slice())
            .field(&Type::INT2, &small(line.entry.lines.into()));
    }
    let handed: Vec<Uuid> = plan.handed.iter().map(|it| it.id()).collect();
    let specs = || plan.handed.iter().map(|it| &it.new.spec);
    let shards: Vec<i16> =
        specs().map(|spec| fence::shard_code(Shard::of(&spec.gateway))).collect();
    let urgent: Vec<bool> = specs().map(|spec| spec.risk == Risk::Emergency).collect();
    let freed = &plan.freed_keys;
    let corrected: Vec<Uuid> = plan.corrected_keys.iter().map(|it| it.0).collect();
    let corrections: Vec<Uuid> = plan.corrected_keys.iter().map(|it| it.1).collect();
    let held: Vec<Uuid> = plan.held.iter().copied().collect();
    let released: Vec<Uuid> = plan.released.iter().copied().collect();
    let params: Params<'_> = &[
        &writer,
        &plan.newest,
        &new,
        &born,
        &moved,
        &rare,
        &long,
        &entries,
        &evidence,
        &lines,
        &handed,
        &shards,
        &urgent,
        freed,
        &corrected,
        &corrections,
        &new_motions,
        &tenants,
        &gateways,
        &aircraft,
        &methods,
        &held,
        &released,
        &plan.taken_in,
        &own,
    ];
    // One that could not even be sent keeps the commit from being sent.
    let is_broken = AtomicBool::new(false);
    let (written, committed) = tokio::join!(
        biased;
        async {
            let written = client.execute(&statements.write, params).await;
            written.inspect_err(|_| is_broken.store(true, Ordering::Relaxed))
        },
        async {
            match is_broken.load(Ordering::Relaxed) {
                true => None,
                false => Some(client.batch_execute("COMMIT").await),
            }
        },
    );
    settle(written, committed)
}

/// What the answers of the server say of the transaction; no commit where none was sent.
fn settle(
    written: Result<u64, Error>,
    committed: Option<Result<(), Error>>,
) -> Result<(), Unwritten> {
    match (written, committed) {
        (Ok(_), Some(Ok(()))) => Ok(()),
        // The server lives, said no, and rolls back whatever comes behind.
        (Err(err), _) if err.as_db_error().is_some() => {
            Err(Unwritten::RolledBack(Fault::from(err)))
        }
        (Err(err), None) => Err(Unwritten::RolledBack(Fault::from(err))),
        (Err(err), Some(_)) | (Ok(_), Some(Err(err))) => Err(Unwritten::Unknown(unknown(&err))),
        (Ok(_), None) => {
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
