//! Who may ask at all. A browser on this machine can send requests to it for any web page; these rules leave such a page
//! nothing that works.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{Method, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::problem::Problem;

/// How strict the door is.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    /// Whether other machines may come in.
    pub anywhere: bool,
}

/// Lets a request through, or says why not.
pub async fn pass(State(door): State<Door>, request: Request, next: Next) -> Response {
    match judge(door, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn judge(door: Door, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has it in the address.
    let named = named.or_else(|| request.uri().authority().map(Authority::as_str));
    let Some(host) = named.filter(|host| is_ours(host, door.anywhere)) else {
        return Err(Problem::host(named.unwrap_or_default(), door.anywhere));
    };
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
        return Err(Problem::origin(&origin, host));
    }
    let changes = ![Method::GET, Method::HEAD].contains(request.method());
    if changes {
        let given = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = given.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Problem::content_type(given));
        }
    }
    Ok(())
}

/// Whether a `Host` is one that no other site can have: a name can be made to lead to this machine, an address cannot.
fn is_ours(host: &str, anywhere: bool) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) => anywhere || address.is_loopback(),
        // A name without a dot is known on its own network only.
        Err(_) => anywhere && !name.contains('.'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_sites_are_no_hosts() {
        for (host, here, anywhere) in [
            ("127.0.0.1:9000", true, true),
            ("127.1.2.3", true, true),
            ("localhost:9000", true, true),
            ("LOCALHOST", true, true),
            ("[::1]:9000", true, true),
            ("192.168.1.7:9000", false, true),
            ("sim:9000", false, true),
            ("evil.example", false, false),
            ("localhost.evil.example:9000", false, false),
            ("127.0.0.1.evil.example", false, false),
            ("", false, false),
            ("a b", false, false),
        ] {
            assert_eq!((is_ours(host, false), is_ours(host, true)), (here, anywhere), "{host}");
        }
    }
}
