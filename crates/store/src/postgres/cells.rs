//! Reads a row column by column. What cannot be read is an error that names table, row and column, never a panic.

use std::{sync::Arc, time::Duration};

use tokio_postgres::{Row, types::FromSql};
use utmos_core::{
    id::{DeviceSn, GatewaySn, TenantId},
    ports::StoreError,
    time::{BootId, Deadline, Mono, Timestamp},
};
use uuid::Uuid;

use super::text;
use crate::{
    codes::Coded,
    seal::{DataKey, Slot},
};

/// The way out of damage.
pub(super) const DAMAGED_REMEDY: &str =
    "look at it with: utmos store check; then restore the backup (docs/postgresql.md)";

pub(super) struct Cells<'r> {
    row: &'r Row,
    table: &'static str,
    at: usize,
    id: String,
}

impl<'r> Cells<'r> {
    pub(super) fn new(row: &'r Row, table: &'static str) -> Self {
        Self { row, table, at: 0, id: "?".to_owned() }
    }

    /// What stands behind so many columns.
    pub(super) fn behind(row: &'r Row, table: &'static str, columns: usize) -> Self {
        Self { at: columns, ..Self::new(row, table) }
    }

    /// Names the row in errors from here on.
    pub(super) fn name(&mut self, id: impl ToString) {
        self.id = id.to_string();
    }

    pub(super) fn damaged(&self, column: &str, why: impl std::fmt::Display) -> StoreError {
        StoreError::Damaged(format!("{} {}: {column}: {why}", self.table, self.id))
    }

    /// The next column.
    pub(super) fn get<T: FromSql<'r>>(&mut self, column: &str) -> Result<T, StoreError> {
        let at = self.at;
        self.at += 1;
        self.row.try_get(at).map_err(|err| self.damaged(column, super::fault::causes(&err)))
    }

    /// The next column, which holds several; null is none.
    pub(super) fn several<T: FromSql<'r>>(&mut self, column: &str) -> Result<Vec<T>, StoreError> {
        self.get::<Option<Vec<T>>>(column).map(Option::unwrap_or_default)
    }

    pub(super) fn uuid(&mut self, column: &str) -> Result<Uuid, StoreError> {
        self.get(column)
    }

    pub(super) fn tenant(&mut self, column: &str) -> Result<TenantId, StoreError> {
        self.get(column).map(TenantId::new)
    }

    /// A text that was escaped.
    pub(super) fn text(&mut self, column: &str) -> Result<String, StoreError> {
        self.maybe_text(column)?.ok_or_else(|| self.damaged(column, "it is empty"))
    }

    pub(super) fn maybe_text(&mut self, column: &str) -> Result<Option<String>, StoreError> {
        let kept: Option<String> = self.get(column)?;
        let read =
            |kept| text::read(kept).ok_or_else(|| self.damaged(column, "it is no escaped text"));
        kept.map(read).transpose()
    }

    /// So many bytes.
    pub(super) fn bytes<const N: usize>(&mut self, column: &str) -> Result<[u8; N], StoreError> {
        self.maybe_bytes(column)?.ok_or_else(|| self.damaged(column, "it is empty"))
    }

    pub(super) fn maybe_bytes<const N: usize>(
        &mut self,
        column: &str,
    ) -> Result<Option<[u8; N]>, StoreError> {
        let kept: Option<&[u8]> = self.get(column)?;
        let sized = |kept: &[u8]| {
            kept.try_into().map_err(|_| {
                self.damaged(column, format!("{} bytes where {N} must be", kept.len()))
            })
        };
        kept.map(sized).transpose()
    }

    /// A sealed text.
    pub(super) fn maybe_sealed(
        &mut self,
        column: &str,
        key: &DataKey,
        slot: Slot,
    ) -> Result<Option<Arc<str>>, StoreError> {
        let kept: Option<&[u8]> = self.get(column)?;
        kept.map(|kept| key.open(slot, kept).map_err(|why| self.damaged(column, why))).transpose()
    }

    pub(super) fn sealed(
        &mut self,
        column: &str,
        key: &DataKey,
        slot: Slot,
    ) -> Result<Arc<str>, StoreError> {
        let kept: &[u8] = self.get(column)?;
        key.open(slot, kept).map_err(|why| self.damaged(column, why))
    }

    pub(super) fn device(&mut self, column: &str) -> Result<DeviceSn, StoreError> {
        let text: &str = self.get(column)?;
        DeviceSn::parse(text).map_err(|err| self.damaged(column, err))
    }

    pub(super) fn maybe_device(&mut self, column: &str) -> Result<Option<DeviceSn>, StoreError> {
        let text: Option<&str> = self.get(column)?;
        text.map(|text| DeviceSn::parse(text).map_err(|err| self.damaged(column, err))).transpose()
    }

    pub(super) fn gateway(&mut self, column: &str) -> Result<GatewaySn, StoreError> {
        let text: &str = self.get(column)?;
        GatewaySn::parse(text).map_err(|err| self.damaged(column, err))
    }

    pub(super) fn coded<T: Coded>(&mut self, column: &str) -> Result<T, StoreError> {
        let code: i16 = self.get(column)?;
        T::from_code(code.into())
            .ok_or_else(|| self.damaged(column, format!("no such code: {code}")))
    }

    pub(super) fn at(&mut self, column: &str) -> Result<Timestamp, StoreError> {
        self.get(column).map(Timestamp::from_millis)
    }

    pub(super) fn maybe_at(&mut self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp::from_millis))
    }

    pub(super) fn duration(&mut self, column: &str) -> Result<Duration, StoreError> {
        self.maybe_duration(column)?.ok_or_else(|| self.damaged(column, "it is empty"))
    }

    pub(super) fn maybe_duration(&mut self, column: &str) -> Result<Option<Duration>, StoreError> {
        let millis: Option<i64> = self.get(column)?;
        let duration = |millis| {
            u64::try_from(millis)
                .map(Duration::from_millis)
                .map_err(|err| self.damaged(column, err))
        };
        millis.map(duration).transpose()
    }

    /// Three columns: boot, running time, wall time; all of them or none.
    pub(super) fn maybe_deadline(&mut self, column: &str) -> Result<Option<Deadline>, StoreError> {
        let (boot, mono, wall) = (
            self.get::<Option<Uuid>>(column)?,
            self.get::<Option<i64>>(column)?,
            self.maybe_at(column)?,
        );
        match (boot, mono, wall) {
            (Some(boot), Some(mono), Some(wall)) => Ok(Some(Deadline {
                boot: BootId(boot.into_bytes()),
                mono: Mono::from_millis(mono.cast_unsigned()),
                wall,
            })),
            (None, None, None) => Ok(None),
            _ => Err(self.damaged(column, "only a part of it is there")),
        }
    }
}

/// Milliseconds as they are kept; what is longer than they can say is kept as the longest.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A small number that stands for an enum.
pub(super) fn code(coded: impl Coded) -> i16 {
    // Every code is small; one that were not would read back as none.
    i16::try_from(coded.code()).unwrap_or(i16::MAX)
}
