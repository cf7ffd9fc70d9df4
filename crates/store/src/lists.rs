//! How far one page of a list looks, in every store.

use uuid::Uuid;

/// Commands that one page looks at, whatever its filter leaves out; each is a look into two tables.
pub(crate) const LOOKED_AT_MAX: usize = 1_000;
/// Of each device at least, where a page is of many.
const LOOKED_AT_OF_EACH: usize = 64;

/// How many to look at in each of so many orders, of which the page is made.
pub(crate) fn looked_at(orders: usize) -> usize {
    (LOOKED_AT_MAX / orders.max(1)).max(LOOKED_AT_OF_EACH)
}

/// The first id of the time of a version 7 id: what is shown where the id itself may be another tenant's.
pub(crate) fn time_of_id(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128() >> 80 << 80)
}
