//! Rows as one parameter: an array of a composite type, written as they go over the wire.
//!
//! A statement that takes a column in each of two dozen arrays costs PostgreSQL some 100 µs before its first row, since each
//! array becomes a table of its own; one array of rows costs a few.

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

type Trouble = Box<dyn std::error::Error + Sync + Send>;

/// Rows of one type, all of them with the same fields.
#[derive(Debug, Default)]
pub(super) struct Records {
    count: usize,
    body: BytesMut,
    /// A value that cannot be written. Whoever sends the rows is told.
    trouble: Option<String>,
}

/// A row that is being written.
pub(super) struct Record<'r> {
    records: &'r mut Records,
    begin: usize,
    fields: i32,
}

impl Records {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Begins a row; it is there once its fields are.
    pub(super) fn add(&mut self) -> Record<'_> {
        self.count += 1;
        let begin = self.body.len();
        // Its length and how many fields it has, known in the end.
        self.body.put_bytes(0, 8);
        Record { records: self, begin, fields: 0 }
    }
}

impl Record<'_> {
    /// The next field, in the order of its type.
    pub(super) fn field(&mut self, of: &Type, value: &impl ToSql) -> &mut Self {
        let body = &mut self.records.body;
        self.fields += 1;
        body.put_u32(of.oid());
        let place = body.len();
        body.put_i32(-1);
        match value.to_sql(of, body) {
            Ok(IsNull::Yes) => {}
            Ok(IsNull::No) => write_length(body, place),
            Err(error) => self.records.trouble = Some(error.to_string()),
        }
        self
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let body = &mut self.records.body;
        if let Some(place) = body.get_mut(self.begin + 4..self.begin + 8) {
            place.copy_from_slice(&self.fields.to_be_bytes());
        }
        write_length(body, self.begin);
    }
}

/// Writes how much stands behind a length into its place. What is longer than that can say is longer than PostgreSQL takes.
fn write_length(body: &mut BytesMut, place: usize) {
    let length = body.len().saturating_sub(place + 4);
    let length = i32::try_from(length).unwrap_or(i32::MAX);
    if let Some(place) = body.get_mut(place..place + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

impl ToSql for Records {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Trouble> {
        if let Some(trouble) = &self.trouble {
            return Err(trouble.clone().into());
        }
        let Kind::Array(row) = of.kind() else { return Err("no array".into()) };
        let dimensions = i32::from(!self.is_empty());
        out.put_i32(dimensions);
        // None of the rows is null.
        out.put_i32(0);
        out.put_u32(row.oid());
        if dimensions > 0 {
            out.put_i32(i32::try_from(self.count)?);
            out.put_i32(1);
        }
        out.extend_from_slice(&self.body);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        matches!(of.kind(), Kind::Array(row) if matches!(row.kind(), Kind::Composite(_)))
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array_of(fields: &[Type]) -> Type {
        let field = |of: &Type| tokio_postgres::types::Field::new("f".to_owned(), of.clone());
        let fields = fields.iter().map(field).collect();
        let row = Type::new("row".to_owned(), 70_000, Kind::Composite(fields), "public".to_owned());
        Type::new("_row".to_owned(), 70_001, Kind::Array(row), "public".to_owned())
    }

    #[test]
    fn rows_are_written_as_postgresql_reads_them() {
        let of = array_of(&[Type::INT2, Type::TEXT]);
        let (mut rows, mut out) = (Records::default(), BytesMut::new());
        assert!(
            rows.is_empty() && rows.to_sql(&of, &mut out).is_ok_and(|it| matches!(it, IsNull::No))
        );
        assert_eq!(
            &out[..],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x11, 0x70],
            "no dimension, no null, the row's type"
        );
        rows.add().field(&Type::INT2, &7_i16).field(&Type::TEXT, &"ab");
        rows.add().field(&Type::INT2, &-1_i16).field(&Type::TEXT, &None::<&str>);
        out.clear();
        assert!(Records::accepts(&of) && rows.to_sql(&of, &mut out).is_ok());
        let array = [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0x11, 0x70, 0, 0, 0, 2, 0, 0, 0, 1];
        let first = [
            0, 0, 0, 24, 0, 0, 0, 2, 0, 0, 0, 21, 0, 0, 0, 2, 0, 7, 0, 0, 0, 25, 0, 0, 0, 2, b'a',
            b'b',
        ];
        let second = [
            0, 0, 0, 22, 0, 0, 0, 2, 0, 0, 0, 21, 0, 0, 0, 2, 255, 255, 0, 0, 0, 25, 255, 255, 255,
            255,
        ];
        assert_eq!(out[..20], array);
        assert_eq!(out[20..48], first);
        assert_eq!(out[48..], second);
    }

    #[test]
    fn what_is_no_array_of_rows_is_refused() {
        for of in [Type::TEXT, Type::INT8_ARRAY] {
            assert!(!Records::accepts(&of));
        }
    }
}
