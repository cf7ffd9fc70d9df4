//! Ports and open files.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use utmos_server::config::Config;

use super::finding::Finding;
use crate::open_files;

const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// Whether a port can be listened on.
pub enum Port {
    /// Nobody listens.
    Free,
    /// Somebody does.
    Taken,
    /// The system refuses, for this reason.
    Refused(String),
}

/// Tries to listen, and lets go again.
pub async fn port(address: SocketAddr) -> Port {
    match TcpListener::bind(address).await {
        Ok(_) => Port::Free,
        Err(err) if err.kind() == ErrorKind::AddrInUse => Port::Taken,
        Err(err) => Port::Refused(err.to_string()),
    }
}

/// Sends some bytes and reads the first that come back.
pub async fn ask(address: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let asking = async {
        let mut stream = TcpStream::connect(super::super::serve::reachable(address)).await.ok()?;
        stream.write_all(question).await.ok()?;
        let mut answer = vec![0; 1024];
        let count = stream.read(&mut answer).await.ok()?;
        answer.truncate(count);
        Some(answer)
    };
    tokio::time::timeout(ANSWER_WAIT, asking).await.ok().flatten()
}

/// The port of the API, and whether the data is free for a server that would listen there. `is_held`: a server has it.
pub async fn http(config: &Config, is_held: bool) -> Vec<Finding> {
    let address = config.http.listen;
    let port = port(address).await;
    let is_server = matches!(port, Port::Taken) && is_healthy(address).await;
    let mut findings = Vec::new();
    if is_held && !is_server {
        findings.push(Finding::fail(
            "data",
            format!("another server has the data in {}, and none answers at {address}", config.data_dir.display()),
            "utmos serve fails at once with this configuration: stop the other server, or choose another data_dir",
        ));
    }
    findings.push(match port {
        Port::Free => Finding::ok("http port", format!("{address} is free: the server can start")),
        Port::Refused(reason) => Finding::fail(
            "http port",
            format!("{address} cannot be listened on: {reason}"),
            "choose an address of this machine and a port this user may use (http.listen)",
        ),
        Port::Taken if is_server && is_held => {
            Finding::ok("http port", format!("the server that has this data answers at {address}"))
        }
        Port::Taken if is_server => Finding::fail(
            "http port",
            format!("a server with other data answers at {address}"),
            "stop it, or choose another port (http.listen)",
        ),
        Port::Taken => Finding::fail(
            "http port",
            format!("another program uses {address}"),
            "stop it, or choose another port (http.listen)",
        ),
    });
    if let Some(address) = config.metrics.listen {
        findings.push(metrics(address, is_server && is_held).await);
    }
    findings
}

async fn metrics(address: SocketAddr, is_running: bool) -> Finding {
    let subject = "metrics port";
    let remedy = "choose another address (metrics.listen), or leave it empty";
    match port(address).await {
        Port::Free => Finding::ok(subject, format!("{address} is free")),
        Port::Taken if is_running => Finding::ok(subject, format!("{address} is in use")),
        Port::Taken => Finding::fail(subject, format!("another program uses {address}"), remedy),
        Port::Refused(reason) => {
            Finding::fail(subject, format!("{address} cannot be listened on: {reason}"), remedy)
        }
    }
}

async fn is_healthy(address: SocketAddr) -> bool {
    let question = b"GET /healthz HTTP/1.1\r\nHost: doctor\r\nConnection: close\r\n\r\n";
    ask(address, question).await.is_some_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}

/// The number of files a process may have open (the server raises its own limit as far as it may), against the
/// connections that are allowed.
pub fn open_files(config: &Config) -> Finding {
    judge_open_files(
        getrlimit(Resource::Nofile).maximum,
        open_files::wanted(config) + open_files::OTHER_FILES,
    )
}

fn judge_open_files(allowed: Option<u64>, wanted: u64) -> Finding {
    match allowed {
        Some(allowed) if allowed < wanted => Finding::warn(
            "open files",
            format!(
                "a process may open {allowed}; http.connections_max and mqtt.embedded.clients_max allow for {wanted}, and are taken as less"
            ),
            format!("raise the hard limit (systemd: LimitNOFILE={wanted}), or lower those two"),
        ),
        Some(allowed) => Finding::ok("open files", format!("a process may open {allowed}")),
        None => Finding::ok("open files", "no limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::finding::Verdict;

    #[test]
    fn fewer_files_than_connections_are_worth_a_warning() {
        assert_eq!(judge_open_files(Some(1024), 20_000).verdict, Verdict::Warn);
        assert_eq!(judge_open_files(Some(1_048_576), 20_000).verdict, Verdict::Ok);
        assert_eq!(judge_open_files(None, 20_000).verdict, Verdict::Ok);
    }
}
