//! Signs a request as API.md section 1 says.

use utmos_core::{
    credential::SigningKey,
    id::ApiId,
    signing::{HEADERS, SignedParts, sign, string_to_sign},
};

/// The string that was signed, and the headers that go with it.
pub struct SignedRequest {
    /// Eight lines.
    pub string_to_sign: String,
    /// Name and value; never the key.
    pub headers: [(&'static str, String); 4],
}

/// Signs a request.
pub fn signed_request(
    parts: SignedParts<'_>,
    api_id: &ApiId,
    key: &SigningKey,
    timestamp: i64,
    nonce: &str,
) -> SignedRequest {
    let [id, time, once, signature] = HEADERS;
    SignedRequest {
        string_to_sign: string_to_sign(parts, api_id, timestamp, nonce),
        headers: [
            (id, api_id.to_string()),
            (time, timestamp.to_string()),
            (once, nonce.to_owned()),
            (signature, sign(key, parts, api_id, timestamp, nonce)),
        ],
    }
}

/// Path and query of a URL exactly as they are written; a bare path is taken as well.
pub fn path_and_query(url: &str) -> (&str, Option<&str>) {
    let sent = match url.split_once("://") {
        // A path may have a URL in its query.
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find(['/', '?', '#']).and_then(|start| rest.get(start..)).unwrap_or("")
        }
        Some(_) | None => url,
    };
    let sent = sent.split_once('#').map_or(sent, |(before, _)| before);
    let (path, query) =
        sent.split_once('?').map_or((sent, None), |(path, query)| (path, Some(query)));
    (if path.is_empty() { "/" } else { path }, query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_stay_as_they_are_written() {
        for (url, path, query) in [
            ("http://h:1/a%2Fb/?x=1&a=%20#f", "/a%2Fb/", Some("x=1&a=%20")),
            ("https://h", "/", None),
            ("https://h?q", "/", Some("q")),
            ("/api/v1?", "/api/v1", Some("")),
            ("/api?next=http://x/y", "/api", Some("next=http://x/y")),
        ] {
            assert_eq!(path_and_query(url), (path, query), "{url}");
        }
    }
}
