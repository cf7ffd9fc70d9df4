//! TLS towards a broker: the settings out of their files, and what went wrong in words that name the setting.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's own lists, of which few have a remedy of their own"
)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig as TlsSettings, Error as TlsError,
    RootCertStore,
};

use super::ClientConfig;

/// TLS towards the broker. The broker's certificate is always verified.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// PEM file of the authority that signed the broker's certificate; without it, those that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// The name in the broker's certificate, where it is not the host we connect to.
    pub server_name: Option<String>,
    /// What we show of ourselves, where the broker asks for it.
    pub client_certificate: Option<ClientCertificate>,
}

/// A certificate of our own.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// PEM file with the certificate chain.
    pub cert_file: PathBuf,
    /// PEM file with the private key.
    pub key_file: PathBuf,
}

/// Speaks TLS on a fresh connection.
pub(super) async fn secure(
    config: &ClientConfig,
    tls: &ClientTls,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    let (connector, name) = connector(config, tls)?;
    connector.connect(name, tcp).await.map_err(|err| {
        let told = fault(config, &err).unwrap_or_else(|| err.to_string());
        format!("no TLS with {}:{}: {told}", config.host, config.port)
    })
}

/// Whether the settings can be used.
pub(super) fn check(config: &ClientConfig, tls: &ClientTls) -> Result<(), String> {
    connector(config, tls).map(drop)
}

fn connector(
    config: &ClientConfig,
    tls: &ClientTls,
) -> Result<(TlsConnector, ServerName<'static>), String> {
    let name = tls.server_name.as_ref().unwrap_or(&config.host);
    let server = ServerName::try_from(name.clone())
        .map_err(|_| format!("`{name}` is not a name a certificate can have"))?;
    let mut roots = RootCertStore::empty();
    if let Some(file) = &tls.ca_file {
        let none = || format!("ca_file {} holds no certificate in PEM", file.display());
        for authority in certificates(&read("ca_file", file)?).ok_or_else(none)? {
            roots.add(authority).map_err(|err| format!("ca_file is not usable: {err}"))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err("this machine trusts no authority for certificates; install them (Debian: ca-certificates), or name one with ca_file".to_owned());
        }
    }
    let settings = TlsSettings::builder().with_root_certificates(roots);
    let settings = match &tls.client_certificate {
        None => settings.with_no_client_auth(),
        Some(ClientCertificate { cert_file, key_file }) => {
            let (cert, key) = (cert_file.display(), key_file.display());
            let chain = certificates(&read("client_cert_file", cert_file)?)
                .ok_or_else(|| format!("client_cert_file {cert} holds no certificate in PEM"))?;
            let own = PrivateKeyDer::from_pem_slice(&read("client_key_file", key_file)?)
                .map_err(|_| format!("client_key_file {key} holds no private key in PEM"))?;
            settings.with_client_auth_cert(chain, own).map_err(|err| {
                format!(
                    "client_cert_file {cert} and client_key_file {key} do not belong together: {err}"
                )
            })?
        }
    };
    Ok((TlsConnector::from(Arc::new(settings)), server))
}

/// The certificates in a PEM file; `None` where there are none, or one that cannot be read.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!found.is_empty()).then_some(found)
}

fn read(key: &str, file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|err| format!("{key} {} cannot be read: {err}", file.display()))
}

/// What a certificate did not do, where that is what went wrong.
pub(super) fn fault(config: &ClientConfig, err: &io::Error) -> Option<String> {
    let tls = config.tls.as_ref()?;
    let err = err.get_ref()?.downcast_ref::<TlsError>()?;
    Some(match err {
        TlsError::InvalidCertificate(why) => of_broker(config, tls, why),
        TlsError::AlertReceived(alert) => of_ours(tls, *alert),
        other => other.to_string(),
    })
}

fn of_broker(config: &ClientConfig, tls: &ClientTls, why: &CertificateError) -> String {
    let authority = || match &tls.ca_file {
        Some(file) => format!("the authority in ca_file ({})", file.display()),
        None => "a public authority; name the one that did with ca_file".to_owned(),
    };
    let name = tls.server_name.as_ref().unwrap_or(&config.host);
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("the broker's certificate is not signed by {}", authority())
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the broker's certificate has expired; give the broker a new one, or set this machine's clock".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet; set this machine's clock, or give the broker another".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the broker's certificate is not made out to `{name}`; set host to a name that it holds")
        }
        other => format!("the broker's certificate is not good: {other}"),
    }
}

/// The broker's word on the certificate we showed, or did not show.
fn of_ours(tls: &ClientTls, alert: AlertDescription) -> String {
    let Some(own) = &tls.client_certificate else {
        return match alert {
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
                "the broker wants a client certificate; set client_cert_file and client_key_file"
                    .to_owned()
            }
            other => format!("the broker broke off TLS: {other:?}"),
        };
    };
    let shown = format!("the certificate in client_cert_file ({})", own.cert_file.display());
    match alert {
        AlertDescription::CertificateExpired => {
            format!("the broker says that {shown} has expired; put a new one there")
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::DecryptError => {
            format!(
                "the broker does not take {shown}: it is not signed by the authority that the broker knows"
            )
        }
        AlertDescription::CertificateRevoked => format!("the broker says that {shown} was revoked"),
        other => format!("the broker does not take {shown}: {other:?}"),
    }
}
