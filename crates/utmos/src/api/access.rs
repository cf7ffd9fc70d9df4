//! Which server to call, and with which credential. The API key is never an argument: arguments show in `ps`.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use utmos_core::{credential::Secret, id::ApiId};

use crate::{environment, settings::DEMO_DIR};

/// The variable that holds the API key.
pub const API_KEY: &str = "UTMOS_API_KEY";
/// The file with the demo's credential, in its data folder. A shell can source it.
pub const CREDENTIAL_FILE: &str = "credential.env";

const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// Flags of every subcommand that calls the API.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Where the server is [default: that of the credential file, else http://127.0.0.1:8080]
    #[arg(long, env = "UTMOS_URL", hide_env_values = true)]
    url: Option<String>,
    #[command(flatten)]
    credential: CredentialArgs,
}

/// Flags of every subcommand that signs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Access")]
pub struct CredentialArgs {
    /// API id of the credential; its key comes from UTMOS_API_KEY
    #[arg(long, value_name = "ID", env = "UTMOS_API_ID", hide_env_values = true)]
    api_id: Option<String>,
    /// File with UTMOS_URL=, UTMOS_API_ID= and UTMOS_API_KEY= [default: ./utmos-demo/credential.env, which the demo writes]
    #[arg(long, value_name = "FILE", visible_alias = "credential")]
    credential_file: Option<PathBuf>,
}

/// A server and a credential.
#[derive(Debug, Clone)]
pub struct Access {
    /// Scheme, host and port, perhaps a path; no slash at the end.
    pub url: String,
    /// The public half.
    pub api_id: ApiId,
    /// The secret half.
    pub key: Secret,
}

/// What a credential file holds.
#[derive(Debug, Default)]
struct Stored {
    url: Option<String>,
    api_id: Option<String>,
    key: Option<String>,
}

impl AccessArgs {
    /// Finds server and credential.
    pub fn find(&self) -> anyhow::Result<Access> {
        let stored = self.credential.stored()?;
        let url = self
            .url
            .clone()
            .or_else(|| stored.url.clone())
            .unwrap_or_else(|| URL_DEFAULT.to_owned());
        if !url.starts_with("http://") && !url.starts_with("https://") {
            bail!("the server's URL must begin with http:// or https://, got {url:?}");
        }
        let (api_id, key) = self.credential.choose(stored, environment::variable(API_KEY))?;
        Ok(Access { url: url.trim_end_matches('/').to_owned(), api_id, key })
    }
}

impl CredentialArgs {
    /// Finds the credential.
    pub fn find(&self) -> anyhow::Result<(ApiId, Secret)> {
        self.choose(self.stored()?, environment::variable(API_KEY))
    }

    fn stored(&self) -> anyhow::Result<Stored> {
        let path = match &self.credential_file {
            Some(path) => Some(path.clone()),
            None => Some(Path::new(DEMO_DIR).join(CREDENTIAL_FILE)).filter(|path| path.exists()),
        };
        path.map_or_else(|| Ok(Stored::default()), |path| Stored::read(&path))
    }

    /// A key goes with its own id only.
    fn choose(&self, stored: Stored, key: Option<String>) -> anyhow::Result<(ApiId, Secret)> {
        let (api_id, key) = match (&self.api_id, key) {
            (Some(api_id), Some(key)) => (api_id.clone(), key),
            (Some(api_id), None) if stored.api_id.as_ref() == Some(api_id) => {
                (api_id.clone(), stored.key.ok_or_else(no_key)?)
            }
            (Some(_), None) => return Err(no_key()),
            (None, Some(_)) => bail!("{API_KEY} is set and its API id is not; set UTMOS_API_ID or give --api-id"),
            (None, None) => stored.api_id.zip(stored.key).ok_or_else(|| {
                anyhow!(
                    "no credential: set UTMOS_API_ID and {API_KEY} (`utmos credential create` makes one), \
                     or run where `utmos serve --demo` runs"
                )
            })?,
        };
        Ok((ApiId::new(api_id), Secret::new(key)))
    }
}

fn no_key() -> anyhow::Error {
    anyhow!("the API key is missing: set {API_KEY}")
}

impl Stored {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("the credential file {} cannot be read", path.display()))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
        };
        Self { url: value("UTMOS_URL"), api_id: value("UTMOS_API_ID"), key: value(API_KEY) }
    }
}

impl Access {
    /// The access a credential file holds, if there is one and it is whole.
    pub fn stored(path: &Path) -> Option<Self> {
        let stored = Stored::parse(&fs::read_to_string(path).ok()?);
        Some(Self {
            url: stored.url?,
            api_id: ApiId::new(stored.api_id?),
            key: Secret::new(stored.key?),
        })
    }

    /// Writes a credential file that only its owner may read.
    pub fn store(&self, path: &Path) -> anyhow::Result<()> {
        let text = format!(
            "# A credential of this server. Keep it to yourself. A shell reads it with: . {}\n\
             UTMOS_URL={}\nUTMOS_API_ID={}\n{API_KEY}={}\n",
            path.display(),
            self.url,
            self.api_id,
            self.key.expose(),
        );
        let draft = path.with_added_extension("new");
        let write = || {
            // A draft of an earlier time could have other permissions.
            let _gone = fs::remove_file(&draft);
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, path)
        };
        write().with_context(|| format!("the credential file {} cannot be written", path.display()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn stored() -> Stored {
        Stored::parse("# c\nUTMOS_URL=http://h:1\nUTMOS_API_ID=utk_a\nUTMOS_API_KEY=ka\n")
    }

    fn chosen(
        api_id: Option<&str>,
        stored: Stored,
        key: Option<&str>,
    ) -> anyhow::Result<(String, String)> {
        let args =
            CredentialArgs { api_id: api_id.map(str::to_owned), ..CredentialArgs::default() };
        let (api_id, key) = args.choose(stored, key.map(str::to_owned))?;
        Ok((api_id.to_string(), key.expose().to_owned()))
    }

    #[test]
    fn a_key_is_only_ever_used_with_its_own_id() {
        let own = |id: &str, key: &str| (id.to_owned(), key.to_owned());
        assert_eq!(stored().url.as_deref(), Some("http://h:1"));
        assert_eq!(chosen(None, stored(), None).unwrap(), own("utk_a", "ka"));
        assert_eq!(chosen(Some("utk_a"), stored(), None).unwrap(), own("utk_a", "ka"));
        assert_eq!(chosen(Some("utk_b"), stored(), Some("kb")).unwrap(), own("utk_b", "kb"));
        assert_eq!(chosen(Some("b"), Stored::default(), Some("kb")).unwrap(), own("b", "kb"));
        assert!(chosen(Some("utk_b"), stored(), None).is_err());
        assert!(chosen(None, stored(), Some("kb")).is_err());
        assert!(chosen(None, Stored::default(), None).is_err());
    }

    #[test]
    fn a_credential_file_reads_back_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CREDENTIAL_FILE);
        let access = Access {
            url: "http://127.0.0.1:9".to_owned(),
            api_id: ApiId::new("utk_x"),
            key: Secret::new("k".to_owned()),
        };
        assert!(Access::stored(&path).is_none());
        access.store(&path).unwrap();
        access.store(&path).unwrap();
        let read = Access::stored(&path).unwrap();
        assert_eq!(
            (read.url.as_str(), read.api_id.as_str(), read.key.expose()),
            ("http://127.0.0.1:9", "utk_x", "k")
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{read:?}").contains("\"k\""));
    }
}
