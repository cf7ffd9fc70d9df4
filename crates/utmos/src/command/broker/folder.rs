//! The folder that a broker reads: files are replaced whole, and keep their owner and mode.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};

use crate::opened;

/// For whom a new file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Its owner and everybody who reads.
    Shared,
    /// Its owner.
    Secret,
}

/// A folder of files.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it where it is not there.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if !path.is_dir() {
            opened::make_folder(path)?;
        }
        let path = fs::canonicalize(path)
            .with_context(|| format!("the folder {} cannot be found", path.display()))?;
        let text = path.to_str().ok_or_else(|| anyhow!("{} is not UTF-8", path.display()))?;
        if text.contains(['"', '\n', '\\']) {
            return Err(anyhow!(
                "{text:?} cannot stand in a broker's configuration; choose another folder"
            ));
        }
        Ok(Self(path))
    }

    /// Where a file of it lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What a file says, if it is there.
    pub fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// Replaces a file whole: a broker that reads it at this moment sees the old or the new one.
    pub fn write(&self, name: &str, text: &str, mode: Mode) -> anyhow::Result<()> {
        let path = self.path(name);
        let beside = self.path(&format!(".{name}.new"));
        let replace = || -> std::io::Result<()> {
            let _gone = fs::remove_file(&beside);
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(text.as_bytes())?;
            match fs::metadata(&path) {
                Ok(old) => {
                    let mine = file.metadata()?;
                    if (old.uid(), old.gid()) != (mine.uid(), mine.gid()) {
                        chown(&beside, Some(old.uid()), Some(old.gid()))?;
                    }
                    let mode_bits = old.permissions().mode() & 0o777;
                    file.set_permissions(Permissions::from_mode(mode_bits))?;
                }
                Err(_) if mode == Mode::Shared => {
                    file.set_permissions(Permissions::from_mode(0o644))?;
                }
                Err(_) => {}
            }
            file.sync_all()?;
            fs::rename(&beside, &path)
        };
        let done = replace();
        if done.is_err() {
            let _gone = fs::remove_file(&beside);
        }
        done.with_context(|| {
            format!(
                "{} cannot be written; run this as the user who owns the folder and its files",
                path.display()
            )
        })
    }

    /// Adds lines to a file that only its owner may read.
    pub fn append_secret(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        let append = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        append().with_context(|| format!("{} cannot be written", path.display()))
    }
}
