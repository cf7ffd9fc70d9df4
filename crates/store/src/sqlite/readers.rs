//! A few connections that only read, on blocking threads, so that reading never waits for writing.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;
use tokio::sync::Semaphore;
use utmos_core::ports::StoreError;

use super::{
    condition::Condition,
    fault::{closed, to_store_error},
    limits::READERS_MAX,
    open,
};

pub(crate) struct Readers {
    path: PathBuf,
    condition: Arc<Condition>,
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf, condition: Arc<Condition>) -> Self {
        let places = Arc::new(Semaphore::new(READERS_MAX));
        Self { path, condition, idle: Arc::default(), places }
    }

    /// Runs `read` on a blocking thread. One statement sees one moment; several need a transaction to do so.
    pub(crate) async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let place = self.places.clone().acquire_owned().await.map_err(|_| closed())?;
        let (idle, path) = (self.idle.clone(), self.path.clone());
        let done = tokio::task::spawn_blocking(move || {
            let known = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let conn = match known {
                Some(conn) => conn,
                None => open::reader(&path).map_err(|err| to_store_error(&err))?,
            };
            let answer = read(&conn);
            // One that failed may be of no more use.
            if answer.is_ok() {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            }
            drop(place);
            answer
        });
        let answer = done
            .await
            .map_err(|err| StoreError::Unavailable(format!("a read was broken off: {err}")))?;
        answer.inspect_err(|error| self.condition.met(error))
    }

    /// Waits for reads under way and lets no more in.
    pub(crate) async fn close(&self) {
        let places = u32::try_from(READERS_MAX).unwrap_or(u32::MAX);
        if let Ok(all) = self.places.acquire_many(places).await {
            self.places.close();
            drop(all);
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
