//! TLS to the database, on the same library as everything else. The server's certificate is always checked, with its name.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream as Stream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

/// Whose certificates are believed, and who we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that may have signed the server's certificate (PEM); the system's own where there is none.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key (PEM), where the server wants one.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file cannot be used.
    #[error("{} cannot be used: {why}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There are no authorities at all.
    #[error("the system has no certificate authorities; name a file of them")]
    NoAuthorities,
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Refused(#[from] tokio_rustls::rustls::Error),
}

/// Makes the TLS side of connections.
#[derive(Clone)]
pub(super) struct MakeTls(Arc<ClientConfig>);

impl MakeTls {
    pub(super) fn new(files: &TlsFiles) -> Result<Self, TlsFault> {
        let mut roots = RootCertStore::empty();
        match &files.ca {
            Some(path) => {
                for authority in certificates(path)? {
                    roots.add(authority).map_err(|err| fault(path, err))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(TlsFault::NoAuthorities);
        }
        Self::with(roots, files)
    }

    /// For connections without TLS.
    pub(super) fn unused() -> Result<Self, TlsFault> {
        Self::with(RootCertStore::empty(), &TlsFiles::default())
    }

    fn with(roots: RootCertStore, files: &TlsFiles) -> Result<Self, TlsFault> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match &files.client {
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|err| fault(key, err))?;
                builder.with_client_auth_cert(chain, key)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let text = fs::read(path).map_err(|err| fault(path, err))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|err| fault(path, err))?;
    match found.is_empty() {
        true => Err(fault(path, "it holds no certificate")),
        false => Ok(found),
    }
}

fn fault(path: &Path, why: impl ToString) -> TlsFault {
    TlsFault::File { path: path.to_owned(), why: why.to_string() }
}

type Socket = tokio_postgres::Socket;

impl MakeTlsConnect<Socket> for MakeTls {
    type Stream = Tls;
    type TlsConnect = Connect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Connect> {
        // Asked for also where no TLS will be spoken, such as for a socket, which has no name.
        let name = ServerName::try_from(domain.to_owned()).ok();
        Ok(Connect { connector: TlsConnector::from(self.0.clone()), name })
    }
}

/// One handshake to come.
pub(super) struct Connect {
    connector: TlsConnector,
    /// `None` where a certificate could not bear it.
    name: Option<ServerName<'static>>,
}

impl TlsConnect<Socket> for Connect {
    type Stream = Tls;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Tls>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let unnamed = || {
                io::Error::new(io::ErrorKind::InvalidInput, "no certificate bears the host's name")
            };
            let name = self.name.ok_or_else(unnamed)?;
            self.connector.connect(name, socket).await.map(Tls)
        })
    }
}

/// An encrypted connection. Its password exchange is not bound to the channel: the certificate is checked instead.
pub(super) struct Tls(Stream<Socket>);

impl TlsStream for Tls {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
