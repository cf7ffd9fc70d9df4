//! A database that is to be taken elsewhere: opened as every server opens it, and with nothing in it that an older version
//! wrote in another form.

use std::path::Path;

use rusqlite::{Connection, params};
use utmos_core::ports::StoreError;

use super::{
    fault::to_store_error,
    open::{self, OpenError},
    rows::{self, SELECT_COMMAND},
};
use crate::{
    life::{SealedLife, clear_code},
    seal::Sealer,
};

/// Opens a database that is there, and brings its schema up to date.
pub(crate) fn open_to_transfer(path: &Path, sealer: &Sealer) -> Result<Connection, OpenError> {
    std::fs::metadata(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    open::prepare(path, sealer)
}

/// Opens a database that is to be filled, and makes it where there is none.
pub(crate) fn open_to_fill(path: &Path, sealer: &Sealer) -> Result<Connection, OpenError> {
    open::prepare(path, sealer)
}

/// Seals the words of devices that an older version kept in clear (`migrations/sqlite/0005_sealed_texts.sql`).
pub(crate) fn seal_old_texts(conn: &Connection, sealer: &Sealer) -> Result<(), StoreError> {
    let fault = |err| to_store_error(&err);
    let sql = format!(
        "{SELECT_COMMAND} FROM commands c CROSS JOIN lives l ON l.row = c.row
         WHERE l.texts IS NULL AND (l.response_message IS NOT NULL OR l.failure_reason IS NOT NULL
             OR l.execution_state IS NOT NULL OR l.response_code GLOB '*[^0-9]*')"
    );
    let mut select = conn.prepare(&sql).map_err(fault)?;
    let mut found = select.query([]).map_err(fault)?;
    let mut old = Vec::new();
    while let Some(row) = found.next().map_err(fault)? {
        let command = rows::command(row, sealer)?;
        let sealed = SealedLife::new(&command.life, &sealer.data_key(command.spec.id))?;
        let code = clear_code(&command.life).map(str::to_owned);
        old.push((command.spec.id, sealed.texts, code));
    }
    let sql = "UPDATE lives SET texts = ?2, response_code = ?3, response_message = NULL, failure_reason = NULL,
                   execution_state = NULL, execution_step = NULL
               WHERE id = ?1";
    let mut update = conn.prepare(sql).map_err(fault)?;
    for (id, texts, code) in old {
        update.execute(params![id.uuid().as_bytes(), texts, code]).map_err(fault)?;
    }
    Ok(())
}
