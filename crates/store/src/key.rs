//! The master key, under which the secrets in the database are encrypted. It lives in a file of its own.

use std::{
    fmt, fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// Bits of a file's mode that let others than its owner in.
const OTHERS: u32 = 0o077;

/// 32 bytes that never show in a log.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// Not 64 hexadecimal digits.
    #[error("a master key is 64 hexadecimal digits, got {0} characters of another kind")]
    NotHex(usize),
    /// The file holds something else.
    #[error("{} holds no master key; put the right key there, or move the file away to make a new one (credentials then have to be issued again)", .0.display())]
    DamagedFile(PathBuf),
    /// Others than its owner may read or write the file.
    #[error("the master key in {} can be reached by other users (mode {mode:03o}); run: chmod 600 {}", .path.display(), .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file cannot be read or made.
    #[error("the master key file {} cannot be read or made; check that its folder exists and belongs to this user", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The system gave no random numbers.
    #[error("the system gives no random numbers: {0}")]
    NoRandomness(String),
}

impl MasterKey {
    /// Takes a key as 64 hexadecimal digits.
    ///
    /// # Errors
    /// When it is not that.
    pub fn from_hex(text: &str) -> Result<Self, MasterKeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, bytes.as_mut_slice())
            .map_err(|_| MasterKeyError::NotHex(text.chars().count()))?;
        Ok(Self(bytes))
    }

    /// Makes a new key.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, MasterKeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice())
            .map_err(|err| MasterKeyError::NoRandomness(err.to_string()))?;
        Ok(Self(bytes))
    }

    /// Reads the key from a file, or makes both when there is no file. Two processes that start together get the same.
    ///
    /// # Errors
    /// When the file cannot be read or made, holds something else, or is open to other users.
    pub fn load_or_create(path: &Path) -> Result<Self, MasterKeyError> {
        match Self::load(path) {
            Err(MasterKeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate()?;
                match key.save_new(path) {
                    Ok(()) => Ok(key),
                    Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
                    Err(source) => Err(MasterKeyError::Io { path: path.to_owned(), source }),
                }
            }
            other => other,
        }
    }

    fn load(path: &Path) -> Result<Self, MasterKeyError> {
        let io = |source| MasterKeyError::Io { path: path.to_owned(), source };
        let text = Zeroizing::new(fs::read(path).map_err(io)?);
        let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(MasterKeyError::Exposed { path: path.to_owned(), mode });
        }
        std::str::from_utf8(&text)
            .ok()
            .and_then(|text| Self::from_hex(text.trim()).ok())
            .ok_or_else(|| MasterKeyError::DamagedFile(path.to_owned()))
    }

    /// The file appears whole or not at all, and never takes the place of another.
    fn save_new(&self, path: &Path) -> io::Result<()> {
        let mut unique = [0; 8];
        getrandom::fill(&mut unique).map_err(io::Error::other)?;
        let draft = path.with_added_extension(format!("{}.new", hex::encode(unique)));
        let text = Zeroizing::new(hex::encode(self.0.as_slice()) + "\n");
        let written =
            write_private(&draft, text.as_bytes()).and_then(|()| fs::hard_link(&draft, path));
        let removed = fs::remove_file(&draft);
        written.and(removed)?;
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()
    }

    /// A key for another use, from which this one cannot be found; the same each time.
    #[must_use]
    pub fn for_use(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(crate::seal::derive(&self.0, purpose.as_bytes()))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_key_does_not_show_and_is_64_digits() {
        let key = MasterKey::from_hex(&"ab".repeat(32)).unwrap();
        assert_eq!(format!("{key:?}"), "MasterKey(…)");
        for bad in ["", "ab", &"zz".repeat(32), &"ab".repeat(33)] {
            assert!(MasterKey::from_hex(bad).is_err(), "{bad}");
        }
        assert_ne!(MasterKey::generate().unwrap().bytes(), MasterKey::generate().unwrap().bytes());
    }

    #[test]
    fn a_key_file_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let made = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(MasterKey::load_or_create(&path).unwrap().bytes(), made.bytes());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the draft is gone");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let err = MasterKey::load_or_create(&path).unwrap_err();
        assert!(err.to_string().contains("chmod 600"), "{err}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short").unwrap();
        assert!(matches!(MasterKey::load_or_create(&path), Err(MasterKeyError::DamagedFile(_))));
        let nowhere = folder.path().join("missing/master.key");
        assert!(matches!(MasterKey::load_or_create(&nowhere), Err(MasterKeyError::Io { .. })));
    }

    #[test]
    fn processes_that_start_together_get_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || *MasterKey::load_or_create(&path).unwrap().bytes())
            })
            .collect();
        let mut keys: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        keys.dedup();
        assert_eq!(keys.len(), 1);
    }
}
