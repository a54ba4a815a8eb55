//! Who gets in, and what is written down about it: `[auth]`, `[auth.jwt]` and `[audit]`.

use std::path::PathBuf;

use http::Uri;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Credentials that one address may get wrong in a minute before more unknown ones from it are answered 429; 0: no bound.
    pub failures_max: u32,
    pub jwt: Jwt,
}

impl Default for Auth {
    fn default() -> Self {
        Self { failures_max: 20, jwt: Jwt::default() }
    }
}

/// Tokens that somebody else signed. An empty text means: not set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    pub enabled: bool,
    /// For HS256: at least 32 bytes. A file is the better place.
    pub secret: String,
    pub secret_file: PathBuf,
    /// For RS256 and ES256: a JSON Web Key Set.
    pub jwks_file: PathBuf,
    pub jwks_url: String,
    /// Certificates (PEM) that the URL's server may have beside those that the machine trusts.
    pub jwks_ca_file: PathBuf,
    /// The key set is fetched again after this.
    pub jwks_refresh_s: u64,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be or contain.
    pub audience: String,
    /// By how much the clocks of signer and node may differ.
    pub clock_skew_s: u64,
    /// The claim that names the owner.
    pub owner_claim: String,
    /// Goes before that name, so that no token stands for an owner that keys have.
    pub owner_prefix: String,
    /// The claim with the scopes: a text with spaces, or a list. Empty: `scope`, else `scopes`.
    pub scope_claim: String,
    /// `theirs=ours`: scopes that have other names there. Ours always count as themselves.
    pub scope_map: Vec<String>,
    /// Scopes of a token that has no such claim.
    pub scopes_default: Vec<String>,
    /// Scopes that a token can give; with `admin` among them, the owner `admin` too.
    pub scopes_allowed: Vec<String>,
}

impl Default for Jwt {
    fn default() -> Self {
        let text = |text: &str| text.to_owned();
        Self {
            enabled: false,
            secret: String::new(),
            secret_file: PathBuf::new(),
            jwks_file: PathBuf::new(),
            jwks_url: String::new(),
            jwks_ca_file: PathBuf::new(),
            jwks_refresh_s: 600,
            issuer: String::new(),
            audience: String::new(),
            clock_skew_s: 60,
            owner_claim: text("sub"),
            owner_prefix: text("jwt:"),
            scope_claim: String::new(),
            scope_map: Vec::new(),
            scopes_default: Vec::new(),
            scopes_allowed: vec![text("deploy"), text("invoke"), text("read")],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// A file of the log that has grown to this is put aside and the next one begun.
    pub file_bytes_max: u64,
    /// Files kept, the current one among them; the oldest goes first.
    pub files_max: usize,
    /// Whether a change's line is on the disk before the change is answered; without it, it is with the kernel.
    pub fsync: bool,
    /// Refusals written in a minute; the others are counted, and the count written.
    pub refusals_max: u32,
}

impl Default for Audit {
    fn default() -> Self {
        Self { file_bytes_max: 10 << 20, files_max: 10, fsync: true, refusals_max: 60 }
    }
}

/// The URL that a key set may come from: whoever answers there decides who gets in.
///
/// # Errors
/// What it must be, as the rest of a sentence.
pub fn key_set_url(url: &str) -> Result<Uri, String> {
    let wanted = || format!("must be https://…, or http://… on this machine, not `{url}`");
    let uri: Uri = url.parse().map_err(|_| wanted())?;
    let host = uri.host().ok_or_else(wanted)?;
    if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err("must not hold a name or password".to_owned());
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_this_machine(host) => Ok(uri),
        _ => Err(wanted()),
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || without_brackets(host).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A URL's host, an IPv6 address without its brackets.
pub fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_this_machine_alone() {
        for good in ["https://a.example/keys", "http://127.0.0.1:8/k", "http://localhost/k", "http://[::1]:8/k"] {
            assert!(key_set_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://a.example/keys",
            "http://127.0.0.1.a.example/k",
            "http://localhost@a.example/k",
            "ftp://localhost/k",
            "/keys",
            "https://",
            "",
        ] {
            assert!(key_set_url(bad).is_err(), "{bad}");
        }
    }
}
