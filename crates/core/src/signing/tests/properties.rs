//! A signature made is a signature taken, and one for anything else is not.

use proptest::{prelude::*, sample::Index};

use super::*;

#[derive(Debug, Clone, PartialEq)]
struct Request {
    method: String,
    path: String,
    query: String,
    body: Vec<u8>,
    api_id: String,
    timestamp: i64,
    nonce: String,
}

impl Request {
    fn parts(&self) -> SignedParts<'_> {
        SignedParts {
            method: &self.method,
            path: &self.path,
            query: Some(&self.query),
            body: &self.body,
        }
    }

    fn sign(&self, key: &str) -> [u8; 32] {
        let key = SigningKey::new(key.as_bytes());
        let api_id = ApiId::new(self.api_id.clone());
        let text = sign(&key, self.parts(), &api_id, self.timestamp, &self.nonce);
        <[u8; 32]>::try_from(hex::decode(text).unwrap()).unwrap()
    }

    /// Asks with a signature, at the request's own time.
    fn ask(&self, signature: [u8; 32]) -> Result<Caller, Refusal> {
        let api_id = ApiId::new(self.api_id.clone());
        let keyed = KeyedCredential::new(Credential { api_id: api_id.clone(), ..credential() });
        let (timestamp, nonce) = (self.timestamp, self.nonce.clone());
        let head = SignedHead { api_id, timestamp, nonce, signature };
        verify(Some(&keyed), &head, self.parts(), "req-1", None, seconds(timestamp))
    }
}

fn pairs() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-c%2F+é]{1,3}(=[a-c%2F+=é]{0,3})?", 0..5)
}

fn requests() -> impl Strategy<Value = Request> {
    let body = prop::collection::vec(any::<u8>(), 0..64);
    let line = ("[A-Z]{3,7}", "/[a-z0-9%/._~é-]{0,20}", pairs());
    (line, body, "[!-~]{1,40}", 0..9_999_999_999_i64, "[!-~]{1,40}").prop_map(
        |((method, path, pairs), body, api_id, timestamp, nonce)| Request {
            method,
            path,
            query: pairs.join("&"),
            body,
            api_id,
            timestamp,
            nonce,
        },
    )
}

/// Whether pairs sort alike without being alike (`a` and `a=`): these keep the order in which they were sent.
fn is_tied(query: &str) -> bool {
    query.split('&').any(|pair| query.split('&').any(|other| other == format!("{pair}=")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_signed_is_taken_whatever_the_order_of_its_query(request in requests()) {
        let signature = request.sign(KEY);
        prop_assert!(request.ask(signature).is_ok());
        let reversed = request.query.rsplit('&').collect::<Vec<_>>().join("&");
        let reordered = Request { query: reversed, ..request.clone() };
        prop_assert!(is_tied(&request.query) || reordered.ask(signature).is_ok());
    }

    #[test]
    fn any_single_change_is_refused(
        request in requests(),
        place in any::<Index>(),
        flip in 1..=255_u8,
        add in "[a-z]",
    ) {
        let signature = request.sign(KEY);
        let with = |change: &dyn Fn(&mut Request)| {
            let mut changed = request.clone();
            change(&mut changed);
            changed
        };
        let changes = [
            with(&|it| it.method.push('X')),
            with(&|it| it.path.push_str(&add)),
            with(&|it| it.path = it.path.replacen('/', "//", 1)),
            with(&|it| it.query = format!("{}&{add}={add}", it.query)),
            with(&|it| it.query.push_str(&add)),
            with(&|it| it.api_id.push_str(&add)),
            with(&|it| it.timestamp += 1),
            with(&|it| it.nonce.push_str(&add)),
            with(&|it| it.body.push(flip)),
            with(&|it| match it.body.as_mut_slice() {
                [] => it.body.push(flip),
                bytes => bytes[place.index(bytes.len())] ^= flip,
            }),
        ];
        for changed in changes {
            prop_assert!(changed.ask(signature).is_err(), "{:?} as {:?}", request, changed);
        }
        let mut wrong = signature;
        wrong[place.index(wrong.len())] ^= flip;
        prop_assert!(request.ask(wrong).is_err());
        prop_assert!(request.ask(request.sign(OLD_KEY)).is_err());
    }

    #[test]
    fn a_pair_left_out_of_the_query_is_refused(request in requests(), which in any::<Index>()) {
        prop_assume!(!request.query.is_empty());
        let mut pairs: Vec<&str> = request.query.split('&').collect();
        pairs.remove(which.index(pairs.len()));
        let changed = Request { query: pairs.join("&"), ..request.clone() };
        prop_assert!(changed.ask(request.sign(KEY)).is_err());
    }

    #[test]
    fn reading_headers_never_panics(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 0..3),
    ) {
        // No value fits all four headers.
        prop_assert!(read_headers(|_| values.iter().map(Vec::as_slice)).is_err());
    }
}
