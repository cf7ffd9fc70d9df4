//! What HTTP and a signature alone cost: a server that checks one and gives the body back, on threads of its own as the platform has them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet, time::Instant};
use utmos_core::{
    credential::SigningKey,
    id::ApiId,
    signing::{SignedParts, read_headers, sign},
};
use utmos_server::clock::SystemClock;

use crate::command::{
    bench::{
        http::{Connection, Signer},
        load::{Loaded, record, times},
    },
    workers,
};

const PATH: &str = "/echo";
/// As long as a command of the load is.
const BODY: [u8; 446] = [b'-'; 446];
const KEY: &[u8] = b"a key that opens nothing";
const API_ID: &str = "bench";

/// Signed requests, each when the last was answered.
pub async fn echo(clients: usize, time: Duration) -> anyhow::Result<Loaded> {
    let server = Server::start().await?;
    let began = Instant::now();
    let mut running = JoinSet::new();
    for client in 0..clients {
        running.spawn(ask(server.address, client, began, time));
    }
    let mut all = times();
    while let Some(one) = running.join_next().await {
        all.add(&one??)?;
    }
    let took = began.elapsed();
    Ok(Loaded { done: all.len(), times: all, took, commands: Vec::new() })
}

async fn ask(
    server: SocketAddr,
    client: usize,
    began: Instant,
    time: Duration,
) -> anyhow::Result<hdrhistogram::Histogram<u64>> {
    let signer = Signer {
        api_id: ApiId::new(API_ID.to_owned()),
        key: SigningKey::new(KEY),
        clock: SystemClock::new(),
    };
    let (mut connection, mut times) = (Connection::open(server).await?, times());
    for n in 0_u64.. {
        let start = Instant::now();
        if time <= start.saturating_duration_since(began) {
            break;
        }
        let parts = SignedParts { method: "POST", path: PATH, query: None, body: &BODY };
        let answer = connection.signed(&signer, &format!("{client}-{n}"), parts).await?;
        ensure!(answer.status == 200, "the echo was answered {}", answer.status);
        record(&mut times, start.elapsed());
    }
    Ok(times)
}

/// Ends when it is dropped.
struct Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    async fn start() -> anyhow::Result<Self> {
        let runtime = workers(None).enable_all().build()?;
        let serving = runtime.spawn(async {
            let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
            let address = listener.local_addr()?;
            let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
                drop(stream.set_nodelay(true));
            });
            let key = Arc::new(SigningKey::new(KEY));
            let router = Router::new().route(PATH, post(give_back)).with_state(key);
            tokio::spawn(async move { axum::serve(listener, router).await });
            anyhow::Ok(address)
        });
        let address = serving.await.context("the echo does not start")??;
        Ok(Self { address, runtime: Some(runtime) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn give_back(
    State(key): State<Arc<SigningKey>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Bytes, StatusCode> {
    let values = |name| headers.get_all(name).iter().map(|it| it.as_bytes());
    let head = read_headers(values).map_err(|_| StatusCode::BAD_REQUEST)?;
    let parts = SignedParts { method: "POST", path: PATH, query: None, body: &body };
    let wanted = sign(&key, parts, &head.api_id, head.timestamp, &head.nonce);
    // Nothing is behind it that an attacker could want.
    if wanted != hex::encode(head.signature) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    Ok(body)
}
