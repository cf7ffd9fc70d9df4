//! The address of the database. It may hold a password, so it never shows.

use std::{fmt, path::PathBuf, time::Duration};

use tokio_postgres::config::{Config, Host, SslMode, TargetSessionAttrs};
use zeroize::Zeroizing;

use super::{
    limits::CONNECT_WAIT,
    tls::{MakeTls, TlsFault, TlsFiles},
};

/// A connection on which nothing comes is tried after this, so often and so far apart, and given up then: where all that was sent
/// is acknowledged, nothing else tells that the other side is gone.
const TRY_AFTER: Duration = Duration::from_secs(9);
const TRY_EVERY: Duration = Duration::from_secs(2);
const TRIES: u32 = 3;
/// One on which something was sent that is not acknowledged is given up after as long.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15);

/// Has PostgreSQL give up a connection as this side does. By itself it holds on to one whose other side vanished without a word
/// for two hours, and its connections are numbered.
pub(super) fn mutual() -> String {
    format!(
        "SET tcp_keepalives_idle = {}; SET tcp_keepalives_interval = {}; SET tcp_keepalives_count = {TRIES};
         SET tcp_user_timeout = {}",
        TRY_AFTER.as_secs(),
        TRY_EVERY.as_secs(),
        GIVE_UP_AFTER.as_millis(),
    )
}

/// `postgres://user:password@host:port/database?…`, read and checked.
///
/// `sslmode` is `disable`, `prefer`, `require`, `verify-ca` or `verify-full`. Wherever TLS is spoken, the server's
/// certificate and its name are checked: the last three mean the same here. Without it, `require` holds for a host of a
/// network, and `disable` for this machine and for a socket of its file system.
#[derive(Clone)]
pub struct PostgresUrl {
    config: Config,
    tls: TlsFiles,
    /// Whether the address itself says how TLS is spoken.
    names_ssl_mode: bool,
    shown: String,
}

/// Why an address cannot be used. Never repeats it.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// Another kind of address.
    #[error("the address of a database begins with postgres:// or postgresql://")]
    NotPostgres,
    /// It cannot be read.
    #[error("the address of the database cannot be read: {0}")]
    Unreadable(String),
    /// A password that is not written as it must be, in part at least.
    #[error(
        "a @ in the password, or anywhere but before the host, is written %40 (and ? is %3F, / is %2F)"
    )]
    SignsInPassword,
    /// `sslmode` is something else.
    #[error("sslmode must be disable, prefer, require, verify-ca or verify-full, got {0:?}")]
    SslMode(String),
    /// Something needed is not there.
    #[error("the address of the database names no {0}")]
    Lacks(&'static str),
    /// One of a pair.
    #[error("sslcert and sslkey are given together or not at all")]
    HalfAClient,
}

impl PostgresUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// When it is none, or lacks host, user or database.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(UrlError::NotPostgres);
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        // The library takes what stands behind the first one for a host, and that would be shown.
        if url.matches('@').count() > 1 {
            return Err(UrlError::SignsInPassword);
        }
        let (mut ssl_mode, mut ca, mut certificate, mut key) = (None, None, None, None);
        let mut rest = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "sslmode" => ssl_mode = Some(decoded(value)?),
                "sslrootcert" => ca = Some(PathBuf::from(decoded(value)?)),
                "sslcert" => certificate = Some(PathBuf::from(decoded(value)?)),
                "sslkey" => key = Some(PathBuf::from(decoded(value)?)),
                _ => rest.push(part),
            }
        }
        let plain = Zeroizing::new(match rest.is_empty() {
            true => base.to_owned(),
            false => format!("{base}?{}", rest.join("&")),
        });
        let mut config: Config =
            plain.parse().map_err(|err: tokio_postgres::Error| UrlError::Unreadable(said(&err)))?;
        if config.get_hosts().is_empty() {
            return Err(UrlError::Lacks("host"));
        }
        if config.get_user().is_none() {
            return Err(UrlError::Lacks("user"));
        }
        if config.get_dbname().is_none() {
            return Err(UrlError::Lacks("database"));
        }
        let is_near = config.get_hosts().iter().all(is_near)
            && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
        // Of several servers the one that takes writes: whatever is decided by what was read is written as well.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.ssl_mode(match ssl_mode.as_deref() {
            Some("disable") => SslMode::Disable,
            Some("prefer") => SslMode::Prefer,
            Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            Some(other) => return Err(UrlError::SslMode(other.to_owned())),
            None if is_near && ca.is_none() => SslMode::Disable,
            None => SslMode::Require,
        });
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(UrlError::HalfAClient),
        };
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WAIT);
        }
        if config.get_application_name().is_none() {
            config.application_name("utmos");
        }
        config.keepalives_idle(TRY_AFTER);
        config.keepalives_interval(TRY_EVERY);
        config.keepalives_retries(TRIES);
        config.tcp_user_timeout(GIVE_UP_AFTER);
        let shown = shown(&config);
        let names_ssl_mode = ssl_mode.is_some();
        Ok(Self { config, tls: TlsFiles { ca, client }, names_ssl_mode, shown })
    }

    /// Gives the password, where it stands in a place of its own.
    pub fn set_password(&mut self, password: &str) {
        self.config.password(password);
    }

    /// Gives the file of certificate authorities, where the address names none. TLS is spoken then, also on this machine,
    /// unless the address says otherwise.
    pub fn set_ca(&mut self, path: PathBuf) {
        self.tls.ca.get_or_insert(path);
        if !self.names_ssl_mode {
            self.config.ssl_mode(SslMode::Require);
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn tls(&self) -> Result<MakeTls, TlsFault> {
        if self.config.get_ssl_mode() == SslMode::Disable {
            MakeTls::unused()
        } else {
            MakeTls::new(&self.tls)
        }
    }
}

/// Without password and parameters.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({})", self.shown)
    }
}

fn shown(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(at, host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    });
    let hosts: Vec<String> = hosts.collect();
    let (user, name) = (config.get_user().unwrap_or(""), config.get_dbname().unwrap_or(""));
    format!("postgres://{user}@{}/{name}", hosts.join(","))
}

/// Whether what is said to it stays on this machine.
fn is_near(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(Option::unwrap_or_default);
        let mut decoded = [0];
        hex::decode_to_slice(digits, &mut decoded)
            .map_err(|_| UrlError::Unreadable("a % is not followed by two digits".to_owned()))?;
        bytes.push(decoded[0]);
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Unreadable("it is not text".to_owned()))
}

/// The cause of an error of the library, which does not show in the error itself.
fn said(err: &tokio_postgres::Error) -> String {
    std::error::Error::source(err).map_or_else(|| err.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_address_is_read_and_its_password_never_shows() {
        let url = PostgresUrl::parse(
            "postgres://me:s3cr%25t@db.example:6432/utmos?sslrootcert=%2Fca.pem",
        )
        .unwrap();
        assert_eq!(url.to_string(), "postgres://me@db.example:6432/utmos");
        assert!(!format!("{url:?}").contains("s3cr"));
        assert_eq!(url.config.get_password(), Some(b"s3cr%t".as_slice()));
        assert_eq!(url.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(url.tls.ca, Some(PathBuf::from("/ca.pem")));
    }

    #[test]
    fn tls_is_spoken_wherever_the_network_is() {
        for (url, mode) in [
            ("postgres://u@localhost/d", SslMode::Disable),
            ("postgres://u@127.0.0.1/d", SslMode::Disable),
            ("postgres://u@%2Frun%2Fpostgresql/d", SslMode::Disable),
            ("postgres://u@10.0.0.1/d", SslMode::Require),
            ("postgres://u@localhost/d?hostaddr=10.0.0.1", SslMode::Require),
            ("postgres://u@db/d?sslmode=disable", SslMode::Disable),
            ("postgres://u@db/d?sslmode=prefer", SslMode::Prefer),
            ("postgres://u@localhost/d?sslmode=verify-full", SslMode::Require),
        ] {
            assert_eq!(PostgresUrl::parse(url).unwrap().config.get_ssl_mode(), mode, "{url}");
        }
    }

    #[test]
    fn a_database_that_vanished_is_noticed_after_15_seconds() {
        let url = PostgresUrl::parse("postgres://u@db/d").unwrap();
        let config = url.config();
        assert!(config.get_keepalives());
        let probes =
            config.get_keepalives_interval().unwrap() * config.get_keepalives_retries().unwrap();
        assert_eq!(config.get_keepalives_idle() + probes, Duration::from_secs(15));
        assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(15)));
    }

    #[test]
    fn a_bad_address_is_refused_with_its_reason_and_without_its_password() {
        for (url, reason) in [
            ("mysql://u:s3cret@h/d", "begins with postgres://"),
            ("postgres://u:s3cret@h/d?sslmode=maybe", "sslmode"),
            ("postgres://u:s3cret@h:port/d", "cannot be read"),
            ("postgres://u:s3cret@h/d?nonsense=1", "nonsense"),
            ("postgres://u:s3cret@h", "no database"),
            ("postgres://h/d", "no user"),
            ("postgres:///d?user=u", "no host"),
            ("postgres://u:s3cret@h/d?sslcert=a", "together"),
            ("postgres://u:a@s3cret@h/d", "%40"),
            ("postgres://u:a@?s3cret@h/d", "%40"),
            ("postgres://u:s3cret@h/d?sslrootcert=%zz", "two digits"),
        ] {
            let err = PostgresUrl::parse(url).unwrap_err().to_string();
            assert!(err.contains(reason), "{url}: {err}");
            assert!(!err.contains("s3cret"), "{err}");
        }
    }
}
