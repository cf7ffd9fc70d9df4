//! How commands stand, as rows of the type `life`.

use tokio_postgres::types::Type;
use utmos_core::{command::Life, time::Timestamp};
use uuid::Uuid;

use super::records::Records;
use crate::{
    codes::phase_codes,
    life::{SealedLife, clear_code},
};

/// Adds how one stands.
pub(super) fn add(
    lives: &mut Records,
    id: Uuid,
    life: &Life,
    sealed: &SealedLife,
    entries: i32,
    evidence: i32,
) {
    // Codes are small.
    let small = |code: i64| i16::try_from(code).unwrap_or(i16::MAX);
    let (phase, failure) = phase_codes(life.phase);
    let due = life.due.as_ref();
    let at = |at: Option<Timestamp>| at.map(Timestamp::as_millis);
    let execution = life.execution.as_ref();
    lives
        .add()
        .field(&Type::UUID, &id)
        .field(&Type::INT8, &life.version.0.cast_signed())
        .field(&Type::UUID, &due.map(|due| Uuid::from_bytes(due.boot.0)))
        .field(&Type::INT8, &due.map(|due| due.mono.as_millis().cast_signed()))
        .field(&Type::INT8, &due.map(|due| due.wall.as_millis()))
        .field(&Type::INT8, &at(life.delivered_at))
        .field(&Type::INT8, &at(life.response_received_at))
        .field(&Type::INT8, &at(life.completed_at))
        .field(&Type::INT8, &life.updated_at.as_millis())
        .field(&Type::INT8, &execution.map(|it| it.updated_at.as_millis()))
        .field(&Type::INT4, &entries)
        .field(&Type::INT4, &evidence)
        .field(&Type::INT2, &small(phase))
        .field(&Type::INT2, &failure.map(small))
        .field(&Type::INT2, &execution.and_then(|it| it.percent).map(i16::from))
        .field(&Type::BOOL, &execution.map(|it| it.open))
        .field(&Type::BOOL, &life.holds_motion)
        .field(&Type::BOOL, &life.needs_care())
        .field(&Type::TEXT, &clear_code(life))
        .field(&Type::BYTEA, &sealed.response.as_deref())
        .field(&Type::BYTEA, &sealed.execution.as_deref())
        .field(&Type::BYTEA, &sealed.texts.as_deref());
}
