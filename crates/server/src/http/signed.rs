//! Lets signed requests in. A handler that takes [`Signed`] has a verified caller and the raw body, and one duty left:
//! the nonce is spent before anything is answered. [`Signed::reading`] sees to it; what acts sees to it itself. The one
//! answer before that is the refusal of a caller who asks too often: its request counts as none, and the store is spared.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderName, HeaderValue, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde_json::json;
use utmos_core::{
    credential::Permission,
    ports::{Nonce, ReadNonce},
    signing::{self, Caller, Refusal, SignedParts},
    time::Timestamp,
};

use super::{
    App,
    budget::Share,
    places::Place,
    problem::{Code, Detail, Problem},
    request_id::RequestId,
};
use crate::allowances::{UsedUp, Whose};

/// The names of [`signing::HEADERS`] as they are looked up, none of which has to be made for each request.
static AS_RECEIVED: [HeaderName; 4] = [
    HeaderName::from_static("x-api-id"),
    HeaderName::from_static("x-api-timestamp"),
    HeaderName::from_static("x-api-nonce"),
    HeaderName::from_static("x-api-signature"),
];

/// One of [`signing::HEADERS`], to look it up.
fn as_received(name: &str) -> &'static HeaderName {
    let [first, ..] = &AS_RECEIVED;
    let at = signing::HEADERS.iter().position(|header| *header == name);
    at.and_then(|at| AS_RECEIVED.get(at)).unwrap_or(first)
}

/// Most of a body that is too long which is taken off the wire all the same.
const PASSED_OVER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// When to come again after there was no room for a body.
const OVERLOADED_RETRY_SECONDS: u32 = 2;

/// Who is at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// A request whose signature is right. Its nonce is not spent yet.
pub struct Signed {
    caller: Caller,
    body: Whole,
    is_json: bool,
}

/// A body that has come whole.
struct Whole {
    bytes: Bytes,
    /// Held for as long as the bytes are.
    _share: Share,
}

impl FromRequest<Arc<App>> for Signed {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let head = signing::read_headers(|name| {
            parts.headers.get_all(as_received(name)).iter().map(HeaderValue::as_bytes)
        });
        let head = head.map_err(|flaws| {
            let details = flaws
                .into_iter()
                .map(|flaw| Detail::new(format!("header:{}", flaw.header), flaw.problem))
                .collect();
            Problem {
                details,
                ..Problem::new(
                    Code::Unauthorized,
                    "the request is not signed properly; see details",
                )
            }
        })?;
        let reading = read_body(body, &parts.headers, app.body_bytes_max, app.bodies.begin());
        let body = tokio::time::timeout(app.body_read_wait, reading)
            .await
            .unwrap_or_else(|_| Err(late(app.body_read_wait)))?;
        let request_id = parts.extensions.get::<RequestId>().map_or("", |id| &id.0);
        let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
        let credential = app.directory.credential(&head.api_id);
        let signed = SignedParts {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query(),
            body: &body.bytes,
        };
        let now = app.clock.now().wall;
        let caller = signing::verify(credential.as_deref(), &head, signed, request_id, peer, now)?;
        if let Some(place) = parts.extensions.get::<Arc<Place>>() {
            place.prove(caller.tenant(), app.directory.callers());
        }
        Ok(Self { caller, body, is_json: is_json(&parts.headers) })
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::TimestampExpired { .. } => Self::new(Code::TimestampExpired, &message)
                .with(Detail::new("header:X-Api-Timestamp", message)),
            Refusal::SignatureInvalid { string_to_sign } => {
                Self::new(Code::SignatureInvalid, message).with(
                    Detail::new("header:X-Api-Signature", "is not the signature of this string")
                        .given(json!({ "string_to_sign": string_to_sign })),
                )
            }
            Refusal::NotAllowed(_) => Self::new(Code::Unauthorized, message),
        }
    }
}

impl Signed {
    /// For what only reads: the nonce is spent while `work` runs, and the answer leaves when both are done.
    pub async fn reading<T, F>(
        self,
        app: &App,
        permission: Permission,
        work: impl FnOnce(Caller) -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        self.beside(app, permission, spend_to_read, work).await
    }

    /// The same for what waits for something that is going to be stored: its nonce is stored in the same transactions, which
    /// costs less than the quick way of those that wait for nothing.
    pub async fn waiting<T, F>(
        self,
        app: &App,
        permission: Permission,
        work: impl FnOnce(Caller) -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        self.beside(app, permission, spend, work).await
    }

    async fn beside<T, F>(
        self,
        app: &App,
        permission: Permission,
        spend: impl AsyncFnOnce(&App, &Caller) -> Result<(), Problem>,
        work: impl FnOnce(Caller) -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let Self { caller, body, .. } = self;
        // The answer may be long in coming.
        drop(body);
        allow(app, &caller)?;
        let nonce = app.times.nonce.of(spend(app, &caller));
        let permitted = permit(&caller, permission);
        let answer = async {
            permitted?;
            work(caller.clone()).await
        };
        // A refused nonce ends a long wait at once; a refused anything else waits for the nonce, which is checked first.
        tokio::pin!(nonce, answer);
        let mut early = None;
        loop {
            tokio::select! {
                biased;
                spent = &mut nonce => {
                    spent?;
                    return match early { Some(answer) => answer, None => answer.await };
                }
                answered = &mut answer, if early.is_none() => early = Some(answered),
            }
        }
    }

    /// For what has no body and acts. The rest is up to the endpoint: [`spend`], then [`permit`].
    pub fn acting(self, app: &App) -> Result<Caller, Problem> {
        allow(app, &self.caller)?;
        Ok(self.caller)
    }

    /// For what must be able to go on while the nonce cannot be stored, and however often its caller asks: it counts, and is
    /// not refused. The rest is up to the endpoint: [`spend`], then [`permit`].
    pub fn into_caller(self, app: &App) -> Caller {
        app.allowances.take_anyway(&self.caller);
        self.caller
    }

    /// For endpoints that spend the nonce themselves. `check` does everything that can be refused before that; when it
    /// refuses, the nonce is spent here.
    pub async fn checking<T>(
        self,
        app: &App,
        permission: Permission,
        check: impl FnOnce(&Caller, &Bytes) -> Result<T, Problem>,
    ) -> Result<(Caller, T), Problem> {
        self.checking_but(app, permission, check, |_| false).await
    }

    /// The same, where some of what fits is an emergency: that is never refused for how often its caller asks, and counts
    /// for nothing.
    pub async fn checking_but<T>(
        self,
        app: &App,
        permission: Permission,
        check: impl FnOnce(&Caller, &Bytes) -> Result<T, Problem>,
        is_emergency: impl FnOnce(&T) -> bool,
    ) -> Result<(Caller, T), Problem> {
        let checked = permit(&self.caller, permission)
            .and_then(|()| require_json(self.is_json))
            .and_then(|()| check(&self.caller, &self.body.bytes));
        if !checked.as_ref().is_ok_and(is_emergency) {
            allow(app, &self.caller)?;
        }
        match checked {
            Ok(checked) => Ok((self.caller, checked)),
            Err(problem) => {
                spend(app, &self.caller).await?;
                Err(problem)
            }
        }
    }
}

/// Takes what the request needs of its caller's allowance. One that somebody repeats takes nothing from whoever signed it.
fn allow(app: &App, caller: &Caller) -> Result<(), Problem> {
    if app.store.knows_nonce(&caller.nonce()) {
        return Err(replayed());
    }
    app.allowances.take(caller).map_err(Problem::from)
}

impl From<UsedUp> for Problem {
    fn from(UsedUp { whose, rate, wait }: UsedUp) -> Self {
        let (whose, key) = match whose {
            Whose::Credential => ("this credential", "limits.credential_per_second"),
            Whose::Tenant => {
                ("the credentials of this tenant together", "limits.tenant_per_second")
            }
        };
        let seconds = u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1);
        let message = format!(
            "{whose} may ask {} times a second, {} times at once, and asked more often; nothing was done: send it again in {seconds} s",
            rate.per_second(),
            rate.burst()
        );
        let remedy = format!("ask less often, or have the operator of this server raise {key}");
        Self::new(Code::RateLimited, message)
            .with(Detail::new("header:X-Api-Id", remedy))
            .retry_after(seconds)
    }
}

/// Stores a caller's nonce.
pub async fn spend(app: &App, caller: &Caller) -> Result<(), Problem> {
    match app.store.spend_nonce(caller.nonce()).await {
        Ok(Nonce::Spent) => Ok(()),
        Ok(Nonce::Replayed) => Err(replayed()),
        Err(error) => Err(Problem::store(&error)),
    }
}

/// Spends the nonce of a caller who only reads.
async fn spend_to_read(app: &App, caller: &Caller) -> Result<(), Problem> {
    match app.store.spend_nonce_to_read(caller.nonce(), caller.times()).await {
        Ok(ReadNonce::Spent) => Ok(()),
        Ok(ReadNonce::Replayed) => Err(replayed()),
        Ok(ReadNonce::Unclear { up_to }) => Err(unclear(caller.times().signed_at, up_to)),
        Err(error) => Err(Problem::store(&error)),
    }
}

/// The wait is by the caller's clock, which is what it signs by, and which may differ from the server's.
fn unclear(signed_at: Timestamp, up_to: Timestamp) -> Problem {
    let after = up_to.as_millis().div_euclid(1000);
    let wait = after.saturating_add(1).saturating_sub(signed_at.as_millis().div_euclid(1000));
    let seconds = u32::try_from(wait.max(1)).unwrap_or(u32::MAX);
    let message = format!(
        "the machine went down unexpectedly, and which requests that only read and were signed around then, up to {up_to}, were answered before is not known any more; nothing was done: sign it again in {seconds} s"
    );
    Problem::new(Code::TimestampExpired, message)
        .with(Detail::new("header:X-Api-Timestamp", format!("must be greater than {after}")))
        .retry_after(seconds)
}

/// The refusal of a nonce.
#[must_use]
pub fn replayed() -> Problem {
    let message = "this nonce was used before with this API id; use a new one for every request";
    Problem::new(Code::NonceReplayed, message)
        .with(Detail::new("header:X-Api-Nonce", "was used before"))
}

/// Whether a caller may do something of this kind.
pub fn permit(caller: &Caller, permission: Permission) -> Result<(), Problem> {
    if caller.may(permission) {
        return Ok(());
    }
    let message = format!("this credential lacks the permission {permission}");
    Err(Problem::new(Code::PermissionDenied, &message)
        .with(Detail::new("header:X-Api-Id", format!("needs the permission {permission}"))))
}

fn require_json(is_json: bool) -> Result<(), Problem> {
    if is_json {
        return Ok(());
    }
    let message = "the body must be sent with Content-Type: application/json";
    Err(Problem::new(Code::UnsupportedMediaType, message)
        .with(Detail::new("header:Content-Type", "must be application/json")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Ok(text) = value.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    let is_type = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    is_type
        && parts.all(|part| {
            part.is_empty() || part.replace('"', "").eq_ignore_ascii_case("charset=utf-8")
        })
}

async fn read_body(
    mut body: Body,
    headers: &HeaderMap,
    bytes_max: usize,
    mut share: Share,
) -> Result<Whole, Problem> {
    let told = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let collected = match told.is_none_or(|told| told <= bytes_max as u64) {
        true => collect(&mut body, bytes_max, &mut share).await,
        false => Err(too_long(bytes_max)),
    };
    let refusal = match collected {
        Ok(bytes) => return Ok(Whole { bytes, _share: share }),
        Err(refusal) => refusal,
    };
    drop(share);
    // Closing on a peer that still sends would throw the answer away before it is read. One that asked first whether to
    // send is simply told.
    if !headers.contains_key(header::EXPECT) {
        pass_over(&mut body).await;
    }
    Err(refusal)
}

async fn collect(body: &mut Body, bytes_max: usize, share: &mut Share) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Problem::new(
                Code::InvalidRequestBody,
                "the body broke off before its end",
            ));
        };
        let Some(more) = frame.data_ref() else { continue };
        if bytes_max - bytes.len() < more.len() {
            return Err(too_long(bytes_max));
        }
        if !share.grow(more.len()) {
            let message = "too many large bodies are being read at this moment; send it again";
            return Err(
                Problem::new(Code::Overloaded, message).retry_after(OVERLOADED_RETRY_SECONDS)
            );
        }
        bytes.extend_from_slice(more);
    }
    Ok(bytes.freeze())
}

fn too_long(bytes_max: usize) -> Problem {
    Problem::new(Code::PayloadTooLarge, format!("the body is longer than {bytes_max} bytes"))
}

fn late(wait: Duration) -> Problem {
    let message = format!("the body did not arrive within {} s", wait.as_secs());
    Problem::new(Code::RequestTimeout, message)
}

/// Takes the rest of a body and keeps nothing of it.
async fn pass_over(body: &mut Body) {
    let mut passed = 0;
    while let Some(Ok(frame)) = body.frame().await
        && passed < PASSED_OVER_BYTES_MAX
    {
        passed += frame.data_ref().map_or(0, Bytes::len);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn every_signed_header_is_looked_up_by_its_own_name() {
        for name in signing::HEADERS {
            assert!(as_received(name).as_str().eq_ignore_ascii_case(name), "{name}");
        }
    }

    #[test]
    fn who_is_refused_for_a_power_cut_is_told_when_to_sign_again() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        for (signed_at, wait) in [(at(1_000), 11), (at(1_010), 1), (at(970), 41)] {
            let problem = unclear(signed_at, at(1_010));
            assert_eq!(problem.retry_after_seconds, Some(wait), "{problem:?}");
            assert!(problem.message.ends_with(&format!("sign it again in {wait} s")));
            let signed_then = signed_at.plus(Duration::from_secs(wait.into()));
            assert!(signed_then > at(1_010) && signed_then <= at(1_011));
        }
    }

    #[test]
    fn only_json_in_utf_8_is_json() {
        let check = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_TYPE, value.parse().unwrap());
            }
            is_json(&headers)
        };
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(check(&[good]), "{good}");
        }
        for bad in [
            "text/plain",
            "application/jsonp",
            "application/json; charset=latin1",
            "application/json, text/plain",
        ] {
            assert!(!check(&[bad]), "{bad}");
        }
        assert!(!check(&[]) && !check(&["application/json", "application/json"]));
    }
}
