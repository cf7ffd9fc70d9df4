//! The file in which nonces stand until they are in the database: places of one length, used again in turn. Pure.

use std::cmp::Reverse;

use sha2::{Digest, Sha256};
use utmos_core::{signing::NonceUse, time::Timestamp};

/// Tells one ring from the next in the same file: what is left of an older one is no record of this.
pub(super) type RingId = [u8; 16];

/// Nonces in it; as many may wait for the database.
pub(super) const RECORDS: usize = 8192;

const MAGIC: [u8; 16] = *b"UTMOS nonces 1\r\n";
const HEAD_BYTES: usize = 32;
const RECORD_BYTES: usize = 32;

/// Its length.
pub(super) const BYTES: usize = HEAD_BYTES + RECORDS * RECORD_BYTES;

/// A ring without records.
pub(super) fn blank(id: &RingId) -> Vec<u8> {
    let mut bytes = [MAGIC, *id].concat();
    bytes.resize(BYTES, 0);
    bytes
}

/// Where the record of this number stands, counted from the first of all.
pub(super) fn place(number: u64) -> u64 {
    let turn = number % RECORDS as u64;
    HEAD_BYTES as u64 + turn * RECORD_BYTES as u64
}

/// How many records from this number on stand beside each other.
pub(super) fn in_a_row(number: u64) -> usize {
    let turn = number % RECORDS as u64;
    RECORDS - usize::try_from(turn).unwrap_or(0)
}

pub(super) fn record(id: &RingId, nonce: &NonceUse) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..16].copy_from_slice(&nonce.key);
    bytes[16..24].copy_from_slice(&nonce.expires_at.as_millis().to_be_bytes());
    let check = check(id, &bytes[..24]);
    bytes[24..].copy_from_slice(&check);
    bytes
}

/// Which ring it is, and its records, what expires last first: a nonce whose time was over may have been spent once more, and
/// the later record of it counts. `None` when it is none.
pub(super) fn read(bytes: &[u8]) -> Option<(RingId, Vec<NonceUse>)> {
    let (head, records) = bytes.split_at_checked(HEAD_BYTES)?;
    let (magic, id) = head.split_at(MAGIC.len());
    if magic != MAGIC {
        return None;
    }
    let id = id.try_into().ok()?;
    let found = records.chunks_exact(RECORD_BYTES).filter_map(|bytes| read_record(&id, bytes));
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|nonce| Reverse(nonce.expires_at));
    Some((id, found))
}

/// One that was written in part is none: it was not answered.
fn read_record(id: &RingId, bytes: &[u8]) -> Option<NonceUse> {
    let (said, sum) = bytes.split_at_checked(24)?;
    // Most places are empty.
    if sum == [0; 8] || sum != check(id, said) {
        return None;
    }
    let (key, expires_at) = said.split_at(16);
    let expires_at = i64::from_be_bytes(expires_at.try_into().ok()?);
    Some(NonceUse { key: key.try_into().ok()?, expires_at: Timestamp::from_millis(expires_at) })
}

fn check(id: &RingId, said: &[u8]) -> [u8; 8] {
    let sum = Sha256::new().chain_update(id).chain_update(said).finalize();
    let mut check = [0; 8];
    check.copy_from_slice(&sum[..8]);
    check
}
