//! Reads a row column by column. What cannot be read is an error that names table, row and column, never a panic.

use std::{sync::Arc, time::Duration};

use rusqlite::{Row, types::FromSql};
use utmos_core::{
    id::{DeviceSn, GatewaySn},
    ports::StoreError,
    time::{BootId, Deadline, Mono, Timestamp},
};
use uuid::Uuid;

use crate::{
    codes::Coded,
    seal::{DataKey, Slot},
};

pub(crate) struct Cells<'r> {
    row: &'r Row<'r>,
    table: &'static str,
    at: usize,
    id: String,
}

impl<'r> Cells<'r> {
    pub(crate) fn new(row: &'r Row<'r>, table: &'static str) -> Self {
        Self { row, table, at: 0, id: "?".to_owned() }
    }

    /// Names the row in errors from here on.
    pub(crate) fn name(&mut self, id: impl ToString) {
        self.id = id.to_string();
    }

    pub(crate) fn damaged(&self, column: &str, why: impl std::fmt::Display) -> StoreError {
        StoreError::Damaged(format!("{} {}: {column}: {why}", self.table, self.id))
    }

    /// The next column.
    pub(crate) fn get<T: FromSql>(&mut self, column: &str) -> Result<T, StoreError> {
        let at = self.at;
        self.at += 1;
        self.row.get(at).map_err(|err| self.damaged(column, err))
    }

    pub(crate) fn uuid(&mut self, column: &str) -> Result<Uuid, StoreError> {
        self.get(column).map(Uuid::from_bytes)
    }

    pub(crate) fn text(&mut self, column: &str) -> Result<Option<Arc<str>>, StoreError> {
        self.get(column)
    }

    pub(crate) fn some_text(&mut self, column: &str) -> Result<Arc<str>, StoreError> {
        self.get(column)
    }

    /// A sealed text.
    pub(crate) fn maybe_sealed(
        &mut self,
        column: &str,
        key: &DataKey,
        slot: Slot,
    ) -> Result<Option<Arc<str>>, StoreError> {
        let kept: Option<Vec<u8>> = self.get(column)?;
        kept.map(|kept| key.open(slot, &kept).map_err(|why| self.damaged(column, why))).transpose()
    }

    pub(crate) fn sealed(
        &mut self,
        column: &str,
        key: &DataKey,
        slot: Slot,
    ) -> Result<Arc<str>, StoreError> {
        let kept: Vec<u8> = self.get(column)?;
        key.open(slot, &kept).map_err(|why| self.damaged(column, why))
    }

    pub(crate) fn device(&mut self, column: &str) -> Result<DeviceSn, StoreError> {
        let text = self.some_text(column)?;
        DeviceSn::parse(&text).map_err(|err| self.damaged(column, err))
    }

    pub(crate) fn maybe_device(&mut self, column: &str) -> Result<Option<DeviceSn>, StoreError> {
        let text: Option<String> = self.get(column)?;
        text.map(|text| DeviceSn::parse(&text).map_err(|err| self.damaged(column, err))).transpose()
    }

    pub(crate) fn gateway(&mut self, column: &str) -> Result<GatewaySn, StoreError> {
        let text = self.some_text(column)?;
        GatewaySn::parse(&text).map_err(|err| self.damaged(column, err))
    }

    pub(crate) fn coded<T: Coded>(&mut self, column: &str) -> Result<T, StoreError> {
        let code = self.get(column)?;
        T::from_code(code).ok_or_else(|| self.damaged(column, format!("no such code: {code}")))
    }

    pub(crate) fn at(&mut self, column: &str) -> Result<Timestamp, StoreError> {
        self.get(column).map(Timestamp::from_millis)
    }

    pub(crate) fn maybe_at(&mut self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp::from_millis))
    }

    pub(crate) fn duration(&mut self, column: &str) -> Result<Duration, StoreError> {
        let millis: i64 = self.get(column)?;
        u64::try_from(millis).map(Duration::from_millis).map_err(|err| self.damaged(column, err))
    }

    pub(crate) fn maybe_duration(&mut self, column: &str) -> Result<Option<Duration>, StoreError> {
        let millis: Option<i64> = self.get(column)?;
        let duration = |millis| {
            u64::try_from(millis)
                .map(Duration::from_millis)
                .map_err(|err| self.damaged(column, err))
        };
        millis.map(duration).transpose()
    }

    /// Three columns: boot, running time, wall time; all of them or none.
    pub(crate) fn maybe_deadline(&mut self, column: &str) -> Result<Option<Deadline>, StoreError> {
        let (boot, mono, wall) =
            (self.get(column)?, self.get::<Option<i64>>(column)?, self.maybe_at(column)?);
        match (boot, mono, wall) {
            (Some(boot), Some(mono), Some(wall)) => Ok(Some(Deadline {
                boot: BootId(boot),
                mono: Mono::from_millis(mono.cast_unsigned()),
                wall,
            })),
            (None, None, None) => Ok(None),
            _ => Err(self.damaged(column, "only a part of it is there")),
        }
    }
}

/// Milliseconds as they are kept; what is longer than they can say is kept as the longest.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
