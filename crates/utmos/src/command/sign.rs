//! `utmos sign`: what is signed and the headers that follow from it, for whoever builds a client. Never the key.

use std::{fs, io::Read};

use anyhow::{Context, bail};
use utmos_core::signing::SignedParts;
use uuid::Uuid;

use crate::{
    api::{
        access::CredentialArgs,
        signed::{path_and_query, signed_request},
    },
    exit::Exit,
    output,
    time::now,
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// HTTP method
    method: String,
    /// URL, or path and query, exactly as it will be sent
    url: String,
    /// Body: text, @file, or - for standard input
    #[arg(long, value_name = "BODY", allow_hyphen_values = true)]
    body: Option<String>,
    /// Unix time in seconds [default: now]
    #[arg(long)]
    timestamp: Option<i64>,
    /// Used once [default: a random one]
    #[arg(long)]
    nonce: Option<String>,
    /// Print only the headers, as `curl --header @-` reads them
    #[arg(long)]
    headers: bool,
    #[command(flatten)]
    credential: CredentialArgs,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let (api_id, key) = args.credential.find()?;
    let body = match &args.body {
        Some(body) => read_argument(body)?,
        None => Vec::new(),
    };
    let (path, query) = path_and_query(&args.url);
    if !path.starts_with('/') {
        bail!("{:?} is neither a URL nor a path that begins with /", args.url);
    }
    let timestamp = args.timestamp.unwrap_or_else(|| now().as_millis().div_euclid(1000));
    let nonce = args.nonce.clone().unwrap_or_else(|| Uuid::new_v4().simple().to_string());
    let parts = SignedParts { method: &args.method, path, query, body: &body };
    let signed = signed_request(parts, &api_id, &key.signing_key(), timestamp, &nonce);
    if !args.headers {
        output::line(signed.string_to_sign);
        output::line("");
    }
    for (name, value) in signed.headers {
        output::line(format_args!("{name}: {value}"));
    }
    Ok(Exit::Done)
}

/// An argument that may be text, `@file`, or `-` for standard input.
pub fn read_argument(argument: &str) -> anyhow::Result<Vec<u8>> {
    if argument == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("standard input cannot be read")?;
        return Ok(bytes);
    }
    match argument.strip_prefix('@') {
        Some(path) => fs::read(path).with_context(|| format!("{path} cannot be read")),
        None => Ok(argument.as_bytes().to_vec()),
    }
}
