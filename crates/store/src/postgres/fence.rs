//! What keeps servers that share the database from sending to one gateway at once: each batch that accepts or claims
//! learns, under a lock, which shards are its server's own.
//!
//! The lock is an advisory one with a key for each member, which writes no row. A batch takes its own member's key shared,
//! first of all; whatever takes shards from a member, or makes it none, takes the key alone first. So no claim is being
//! written while a shard changes hands, and the batch after that sees that it has.
//!
//! The shards are read by a statement of their own, behind the one that locks. In READ COMMITTED a statement sees what was
//! committed when it began, not when it got its lock: in one statement, a batch that had waited for an expulsion would be
//! shown the shards it held before. Both are statements of a function (`learn_batch`) in which each sees the moment it began
//! (it is VOLATILE): the function itself must not be made one statement.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest, Sha256};
use utmos_core::{
    id::{CommandId, GatewaySn},
    method::Risk,
    ports::{Advanced, StoreError},
    replica::{ReplicaId, Shard},
};
use uuid::Uuid;

use super::cells::Cells;
use crate::codes::Coded;

/// Which member this store writes for; nobody until a server joined. Shared with the writers.
#[derive(Clone, Default)]
pub(super) struct Own(Arc<Mutex<Option<ReplicaId>>>);

impl Own {
    pub(super) fn id(&self) -> Option<ReplicaId> {
        *self.lock()
    }

    pub(super) fn become_member(&self, id: ReplicaId) {
        *self.lock() = Some(id);
    }

    fn lock(&self) -> MutexGuard<'_, Option<ReplicaId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The advisory lock of a member.
pub(super) fn key(id: Uuid) -> i64 {
    let hash = Sha256::new().chain_update(b"replica").chain_update(id.as_bytes()).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(first)
}

/// Commands that were handed to this member and that it has taken in, while `handed` may not say so yet: the note is made with
/// a batch. Shared with the writers.
#[derive(Clone, Default)]
pub(super) struct TakenIn(Arc<Mutex<BTreeSet<Uuid>>>);

impl TakenIn {
    pub(super) fn add(&self, ids: &[Uuid]) {
        self.lock().extend(ids);
    }

    /// They are noted, or are to be told of once more.
    pub(super) fn remove(&self, ids: &[Uuid]) {
        self.lock().retain(|id| !ids.contains(id));
    }

    /// Before shards are given away: whoever has them next, and be it this member, is told of all that is handed there.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    pub(super) fn all(&self) -> Vec<Uuid> {
        self.lock().iter().copied().collect()
    }

    /// Those of them that were not forgotten.
    pub(super) fn still(&self, ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
        let taken_in = self.lock();
        ids.filter(|id| taken_in.contains(id)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a member may send, as it is while its batch holds its lock.
#[derive(Default)]
pub(super) struct Fence {
    /// With whether something was handed to it there that it has not taken in.
    holds: BTreeMap<Shard, bool>,
    /// Commands on record whose sending is to begin.
    claims: BTreeMap<Uuid, Claim>,
}

/// A command on record whose sending is to begin.
struct Claim {
    shard: Shard,
    risk: Risk,
    /// An emergency of its aircraft that was accepted later; looked for with movements alone.
    emergency: Option<CommandId>,
}

impl Fence {
    /// The rest of it stands in the next columns: the commands whose sending is to begin.
    pub(super) fn read(columns: FenceColumns, cells: &mut Cells<'_>) -> Result<Self, StoreError> {
        let mut fence = Self::default();
        for number in columns.shards {
            let is_handed = columns.handed.contains(&number);
            fence.holds.insert(to_shard(number, cells)?, is_handed);
        }
        let ids: Vec<Uuid> = cells.several("claimed")?;
        let gateways: Vec<&str> = cells.several("claim_gateways")?;
        let risks: Vec<i16> = cells.several("claim_risks")?;
        let emergencies: Vec<Option<Uuid>> = cells.several("claim_emergencies")?;
        for (((id, gateway), risk), emergency) in
            ids.into_iter().zip(gateways).zip(risks).zip(emergencies)
        {
            cells.name(id);
            let gateway =
                GatewaySn::parse(gateway).map_err(|err| cells.damaged("claim_gateways", err))?;
            let risk = Risk::from_code(risk.into())
                .ok_or_else(|| cells.damaged("claim_risks", format!("no such code: {risk}")))?;
            let claim = Claim {
                shard: Shard::of(&gateway),
                risk,
                emergency: emergency.map(CommandId::new),
            };
            fence.claims.insert(id, claim);
        }
        Ok(fence)
    }

    /// Whether a new command is handed to the holder of its gateway: to another server, or to this one where others that
    /// came before it are still to be taken in, since commands of a gateway leave in the order of acceptance. Emergencies
    /// leave from here, and only another server must hear of them.
    pub(super) fn hands_on(&self, gateway: &GatewaySn, risk: Risk) -> bool {
        match self.holds.get(&Shard::of(gateway)) {
            None => true,
            Some(is_handed) => *is_handed && risk != Risk::Emergency,
        }
    }

    /// Why the sending of a command on record must not begin here.
    pub(super) fn refuses(&self, command: Uuid) -> Option<Advanced> {
        // Of one that is not there no change is stored.
        let claim = self.claims.get(&command)?;
        if claim.risk == Risk::Emergency {
            return None;
        }
        if !self.holds.contains_key(&claim.shard) {
            return Some(Advanced::Elsewhere);
        }
        claim.emergency.map(Advanced::Preempted)
    }
}

/// The shards of a member, and all where commands wait to be taken in.
pub(super) struct FenceColumns {
    pub(super) shards: Vec<i16>,
    pub(super) handed: Vec<i16>,
}

/// Reads `shard`.
pub(super) fn read_shard(cells: &mut Cells<'_>) -> Result<Shard, StoreError> {
    let number: i16 = cells.get("shard")?;
    to_shard(number, cells)
}

fn to_shard(number: i16, cells: &Cells<'_>) -> Result<Shard, StoreError> {
    let shard = u8::try_from(number).ok().and_then(Shard::from_number);
    shard.ok_or_else(|| cells.damaged("shard", format!("there is no shard {number}")))
}

/// A shard as it is kept.
pub(super) fn shard_code(shard: Shard) -> i16 {
    shard.number().into()
}
