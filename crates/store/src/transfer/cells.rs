//! Cells of rows on their way from one database to the other, and the sum that tells whether all arrived.

use rusqlite::types::{Value, ValueRef};
use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::postgres::text;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Uuid,
    Big,
    Int,
    Small,
    Bool,
    Text,
    Bytes,
}

impl Kind {
    /// Its array in PostgreSQL.
    pub(super) fn array(self) -> &'static str {
        match self {
            Self::Uuid => "uuid[]",
            Self::Big => "bigint[]",
            Self::Int => "integer[]",
            Self::Small => "smallint[]",
            Self::Bool => "boolean[]",
            Self::Text => "text[]",
            Self::Bytes => "bytea[]",
        }
    }
}

/// What a row holds in one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Uuid(Uuid),
    Number(i64),
    Flag(bool),
    Text(String),
    Bytes(Vec<u8>),
}

impl Cell {
    pub(super) fn from_sqlite(value: ValueRef<'_>, kind: Kind) -> Result<Self, String> {
        let wrong = || format!("it holds {:?} where {kind:?} must be", value.data_type());
        Ok(match (value, kind) {
            (ValueRef::Null, _) => Self::Null,
            (ValueRef::Blob(bytes), Kind::Uuid) => {
                Self::Uuid(Uuid::from_slice(bytes).map_err(|_| wrong())?)
            }
            (ValueRef::Integer(number), Kind::Big) => Self::Number(number),
            (ValueRef::Integer(number), Kind::Int) if i32::try_from(number).is_ok() => {
                Self::Number(number)
            }
            (ValueRef::Integer(number), Kind::Small) if i16::try_from(number).is_ok() => {
                Self::Number(number)
            }
            (ValueRef::Integer(number @ 0..=1), Kind::Bool) => Self::Flag(number == 1),
            (ValueRef::Text(text), Kind::Text) => {
                Self::Text(std::str::from_utf8(text).map_err(|_| wrong())?.to_owned())
            }
            (ValueRef::Blob(bytes), Kind::Bytes) => Self::Bytes(bytes.to_owned()),
            _ => return Err(wrong()),
        })
    }

    pub(super) fn from_postgres(
        row: &tokio_postgres::Row,
        at: usize,
        kind: Kind,
    ) -> Result<Self, tokio_postgres::Error> {
        Ok(match kind {
            Kind::Uuid => row.try_get::<_, Option<Uuid>>(at)?.map_or(Self::Null, Self::Uuid),
            Kind::Big => row.try_get::<_, Option<i64>>(at)?.map_or(Self::Null, Self::Number),
            Kind::Int => {
                let number = row.try_get::<_, Option<i32>>(at)?;
                number.map_or(Self::Null, |number| Self::Number(number.into()))
            }
            Kind::Small => {
                let number = row.try_get::<_, Option<i16>>(at)?;
                number.map_or(Self::Null, |number| Self::Number(number.into()))
            }
            Kind::Bool => row.try_get::<_, Option<bool>>(at)?.map_or(Self::Null, Self::Flag),
            Kind::Text => {
                let kept = row.try_get::<_, Option<String>>(at)?;
                // What cannot be read differs from what was sent, which is found out.
                kept.map_or(Self::Null, |kept| Self::Text(text::read(kept).unwrap_or_default()))
            }
            Kind::Bytes => row.try_get::<_, Option<Vec<u8>>>(at)?.map_or(Self::Null, Self::Bytes),
        })
    }

    /// As SQLite takes it.
    pub(super) fn into_sqlite(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Uuid(id) => Value::Blob(id.as_bytes().to_vec()),
            Self::Number(number) => Value::Integer(number),
            Self::Flag(flag) => Value::Integer(i64::from(flag)),
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Blob(bytes),
        }
    }

    /// No two different rows of cells feed the same bytes.
    fn feed(&self, hash: &mut Sha256) {
        let mut put = |tag: u8, bytes: &[u8]| {
            hash.update([tag]);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        match self {
            Self::Null => put(0, &[]),
            Self::Uuid(id) => put(1, id.as_bytes()),
            Self::Number(number) => put(2, &number.to_be_bytes()),
            Self::Flag(flag) => put(3, &[u8::from(*flag)]),
            Self::Text(text) => put(4, text.as_bytes()),
            Self::Bytes(bytes) => put(5, bytes),
        }
    }
}

/// How many rows there are and what they hold, in whichever order they come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) rows: u64,
    parts: [u64; 4],
}

impl Sum {
    pub(super) fn add(&mut self, cells: &[Cell]) {
        let mut hash = Sha256::new();
        for cell in cells {
            cell.feed(&mut hash);
        }
        let digest = hash.finalize();
        for (part, bytes) in self.parts.iter_mut().zip(digest.chunks_exact(8)) {
            let mut number = [0; 8];
            number.copy_from_slice(bytes);
            *part = part.wrapping_add(u64::from_be_bytes(number));
        }
        self.rows += 1;
    }
}

/// One column of many rows, as PostgreSQL takes it.
pub(super) enum Column {
    Uuid(Vec<Option<Uuid>>),
    Big(Vec<Option<i64>>),
    Int(Vec<Option<i32>>),
    Small(Vec<Option<i16>>),
    Bool(Vec<Option<bool>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Column {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Uuid => Self::Uuid(Vec::new()),
            Kind::Big => Self::Big(Vec::new()),
            Kind::Int => Self::Int(Vec::new()),
            Kind::Small => Self::Small(Vec::new()),
            Kind::Bool => Self::Bool(Vec::new()),
            Kind::Text => Self::Text(Vec::new()),
            Kind::Bytes => Self::Bytes(Vec::new()),
        }
    }

    /// Adds a cell of its kind; any other counts as none.
    pub(super) fn push(&mut self, cell: Cell) {
        match self {
            Self::Uuid(column) => {
                column.push(if let Cell::Uuid(id) = cell { Some(id) } else { None })
            }
            Self::Big(column) => column.push(number(&cell)),
            Self::Int(column) => column.push(number(&cell).and_then(|it| it.try_into().ok())),
            Self::Small(column) => column.push(number(&cell).and_then(|it| it.try_into().ok())),
            Self::Bool(column) => {
                column.push(if let Cell::Flag(flag) = cell { Some(flag) } else { None })
            }
            Self::Text(column) => column.push(if let Cell::Text(said) = cell {
                Some(text::kept(&said).into_owned())
            } else {
                None
            }),
            Self::Bytes(column) => {
                column.push(if let Cell::Bytes(bytes) = cell { Some(bytes) } else { None })
            }
        }
    }

    pub(super) fn param(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Uuid(column) => column,
            Self::Big(column) => column,
            Self::Int(column) => column,
            Self::Small(column) => column,
            Self::Bool(column) => column,
            Self::Text(column) => column,
            Self::Bytes(column) => column,
        }
    }
}

fn number(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Number(number) => Some(*number),
        Cell::Null | Cell::Uuid(_) | Cell::Flag(_) | Cell::Text(_) | Cell::Bytes(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_tells_rows_apart_and_not_their_order() {
        let rows = [
            vec![Cell::Text("ab".to_owned()), Cell::Text("c".to_owned())],
            vec![Cell::Text("a".to_owned()), Cell::Text("bc".to_owned())],
            vec![Cell::Bytes(b"ab".to_vec()), Cell::Null],
            vec![Cell::Number(1), Cell::Flag(true)],
        ];
        let sum = |rows: &[Vec<Cell>]| {
            let mut sum = Sum::default();
            for row in rows {
                sum.add(row);
            }
            sum
        };
        let turned: Vec<_> = rows.iter().rev().cloned().collect();
        assert_eq!(sum(&rows), sum(&turned));
        assert_ne!(sum(&rows[..1]), sum(&rows[1..2]));
        assert_ne!(sum(&rows[..2]), sum(&[rows[0].clone(), rows[0].clone()]));
        let null = [vec![Cell::Text(String::new())], vec![Cell::Null]];
        assert_ne!(sum(&null[..1]), sum(&null[1..]));
    }
}
