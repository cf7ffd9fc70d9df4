//! New commands, as rows of the type `new_command`.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{
    cells::{code, millis},
    job::Acceptance,
    records::Records,
    text::kept,
};

/// Adds one, and which member accepted it.
pub(super) fn add(commands: &mut Records, acceptance: &Acceptance, accepted_by: Option<Uuid>) {
    let spec = &acceptance.new.spec;
    commands
        .add()
        .field(&Type::UUID, &spec.id.uuid())
        .field(&Type::UUID, &spec.tenant.uuid())
        .field(&Type::TEXT, &kept(spec.accepted_for.as_str()))
        .field(&Type::TEXT, &kept(&spec.request_id))
        .field(&Type::TEXT, &kept(&spec.idempotency_key))
        .field(&Type::BYTEA, &spec.fingerprint.as_slice())
        .field(&Type::TEXT, &spec.device.as_str())
        .field(&Type::TEXT, &spec.gateway.as_str())
        .field(&Type::TEXT, &spec.aircraft.as_ref().map(|aircraft| aircraft.as_str()))
        .field(&Type::TEXT, &kept(&spec.method))
        .field(&Type::INT2, &code(spec.channel))
        .field(&Type::INT2, &code(spec.completes_by))
        .field(&Type::INT2, &code(spec.risk))
        .field(&Type::INT2, &code(spec.if_offline))
        .field(&Type::INT2, &code(spec.complete_on))
        .field(&Type::BOOL, &spec.starts_motion)
        .field(&Type::BOOL, &spec.reply_without_status_is_final)
        .field(&Type::UUID, &spec.bid.uuid())
        .field(&Type::TEXT, &spec.job_ref.as_deref().map(kept))
        .field(&Type::INT8, &millis(spec.timeout))
        .field(&Type::INT8, &millis(spec.silence_wait))
        .field(&Type::UUID, &Uuid::from_bytes(spec.deadline.boot.0))
        .field(&Type::INT8, &spec.deadline.mono.as_millis().cast_signed())
        .field(&Type::INT8, &spec.deadline.wall.as_millis())
        .field(&Type::INT8, &spec.accepted_at.as_millis())
        .field(&Type::BYTEA, &acceptance.payload.as_slice())
        .field(&Type::UUID, &accepted_by);
}
