//! What a journal is kept on: bytes in their places, which can be read back after a crash once they are synced.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// What a journal is kept on. Used by one at a time.
pub trait Medium: Send {
    /// What messages call it.
    fn path(&self) -> &Path;

    /// How many bytes the journal may fill.
    fn space(&self) -> usize;

    /// All that is on it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&mut self) -> io::Result<Vec<u8>>;

    /// Writes at a place. What is not synced may be there after a crash, or not, or in part.
    ///
    /// # Errors
    /// When it cannot be written; it may have been in part.
    fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()>;

    /// Returns when all that was written would outlive a crash.
    ///
    /// # Errors
    /// When that is not certain.
    fn sync(&mut self) -> io::Result<()>;

    /// Keeps a copy of something damaged beside it, once. Answers where.
    ///
    /// # Errors
    /// When it cannot.
    fn keep_copy(&mut self, bytes: &[u8]) -> io::Result<PathBuf>;

    /// Keeps something beside it in the place of what was set aside before, whole and on the disk when this returns; nothing
    /// takes it away.
    ///
    /// # Errors
    /// When it cannot; what was there before still is, or this.
    fn set_aside(&mut self, bytes: &[u8]) -> io::Result<()> {
        match bytes {
            [] => Ok(()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// What was set aside.
    ///
    /// # Errors
    /// When it cannot be read.
    fn aside(&mut self) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

/// A file. Locked while it is open.
pub(super) struct FileMedium {
    file: File,
    path: PathBuf,
}

/// Space that is set aside. An emergency takes about ten KiB.
const FILE_BYTES: usize = 8 << 20;

/// Whether a server has the journal at `path`. Changes nothing.
///
/// # Errors
/// When there is a file that cannot be opened.
pub(super) fn is_in_use(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(err)) => Err(err),
        },
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err),
    }
}

impl FileMedium {
    /// Opens the file, and makes it if it is not there. `None` when another process has it.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let is_ours = file.try_lock().is_ok();
        if is_ours {
            // A file that was made just now must be found after a power cut.
            sync_folder_of(path)?;
        }
        Ok(is_ours.then(|| Self { file, path: path.to_owned() }))
    }

    /// Where lies what was set aside.
    fn aside_path(&self) -> PathBuf {
        self.path.with_added_extension("aside")
    }
}

/// What was made, renamed or removed beside this file is so after a power cut.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

impl Medium for FileMedium {
    fn path(&self) -> &Path {
        &self.path
    }

    fn space(&self) -> usize {
        FILE_BYTES
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at as u64))?;
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn keep_copy(&mut self, bytes: &[u8]) -> io::Result<PathBuf> {
        let mut number = 1_u32;
        let copy = loop {
            let copy = self.path.with_added_extension(format!("damaged-{number}"));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy) {
                Ok(mut file) => {
                    let written = file.write_all(bytes).and_then(|()| file.sync_all());
                    if written.is_err() {
                        drop(fs::remove_file(&copy));
                    }
                    written?;
                    break copy;
                }
                // An earlier start copied the same already.
                Err(_) if fs::read(&copy).is_ok_and(|kept| kept == bytes) => break copy,
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(err) => return Err(err),
            }
        };
        sync_folder_of(&copy)?;
        Ok(copy)
    }

    fn set_aside(&mut self, bytes: &[u8]) -> io::Result<()> {
        let path = self.aside_path();
        if bytes.is_empty() {
            match fs::remove_file(&path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                Ok(()) | Err(_) => {}
            }
        } else {
            let draft = path.with_added_extension("new");
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
        }
        sync_folder_of(&path)
    }

    fn aside(&mut self) -> io::Result<Vec<u8>> {
        match fs::read(self.aside_path()) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        }
    }
}
