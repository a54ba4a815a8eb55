//! Tokens that somebody else signed (JWT, RFC 7519): which are believed, and for whom they stand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::config::Jwt;
use crate::domain::ids::Owner;
use crate::domain::key::Scope;
use crate::domain::principal::{Credential, Principal};
use crate::domain::time::Timestamp;
use crate::ports::key_set::{KeySetError, KeySetSource};

use super::key_set::{KeySet, VerifyingKey};
use super::{ADMIN_OWNER, hash};

/// A longer token is refused unread; providers' are below 4 KiB.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// RFC 7518 asks for as many bits as the hash has.
const SECRET_BYTES_MIN: usize = 32;
/// A secret is one line.
const SECRET_BYTES_MAX: u64 = 4096;
/// As for the owners of keys.
const OWNER_BYTES_MAX: usize = 128;

/// Why tokens can't be checked. Each is a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeysError {
    #[error("auth.jwt.secret_file: read {path}: {cause}", path = .path.display())]
    File { path: PathBuf, cause: std::io::Error },
    #[error("auth.jwt.secret_file: {path} must hold at least {SECRET_BYTES_MIN} bytes", path = .path.display())]
    Short { path: PathBuf },
}

/// A token that is believed.
pub struct Verified {
    pub principal: Principal,
    /// From then on it is not any more; tolerance for clocks is in it.
    pub until: Timestamp,
}

/// Why a token is not believed: a sentence for its bearer.
pub type Disbelief = &'static str;

const UNVERIFIED: Disbelief = "this token is not signed with a key that is trusted here";
const FOREIGN: Disbelief = "this token was not issued for this service: its issuer or audience is another";
const UNREADABLE: Disbelief = "this token is not one that can be read; get a new one";

pub struct Tokens {
    config: Jwt,
    secret: Option<Arc<VerifyingKey>>,
    key_set: Option<Arc<KeySet>>,
    scope_map: Vec<(String, Scope)>,
    scopes_default: Vec<Scope>,
    scopes_allowed: Vec<Scope>,
}

impl Tokens {
    /// `None` where tokens are not accepted. `source` is where the configured key set comes from.
    ///
    /// # Errors
    /// If the secret's file can't be used.
    pub fn new(config: &Jwt, source: Option<Arc<dyn KeySetSource>>) -> Result<Option<Self>, TokenKeysError> {
        if !config.enabled {
            return Ok(None);
        }
        let secret = match config.secret_file.as_os_str().is_empty() {
            true => Some(config.secret.clone().into_bytes()).filter(|secret| !secret.is_empty()),
            false => Some(read_secret(&config.secret_file)?),
        };
        let secret = secret.map(|secret| {
            Arc::new(VerifyingKey { id: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(&secret) })
        });
        let refresh_every = Duration::from_secs(config.jwks_refresh_s);
        let scopes = |names: &[String]| names.iter().filter_map(|name| Scope::parse(name)).collect();
        let pair = |pair: &String| {
            pair.rsplit_once('=').and_then(|(theirs, ours)| Some((theirs.to_owned(), Scope::parse(ours)?)))
        };
        Ok(Some(Self {
            secret,
            key_set: source.map(|source| KeySet::new(source, refresh_every)),
            scope_map: config.scope_map.iter().filter_map(pair).collect(),
            scopes_default: scopes(&config.scopes_default),
            scopes_allowed: scopes(&config.scopes_allowed),
            config: config.clone(),
        }))
    }

    /// Fetches the key set ahead of the first token.
    ///
    /// # Errors
    /// If there is none to be had now; it is asked for again when a token comes.
    pub async fn prepare(&self, now: Duration) -> Result<(), KeySetError> {
        match &self.key_set {
            Some(keys) => keys.fetch(now).await,
            None => Ok(()),
        }
    }

    /// Whether a bearer's text has the form of a token; keys have no dots.
    pub fn is_token(text: &[u8]) -> bool {
        text.iter().filter(|byte| **byte == b'.').count() == 2
    }

    /// # Errors
    /// Why it is not believed.
    pub async fn verify(&self, token: &[u8], now: Timestamp, monotonic: Duration) -> Result<Verified, Disbelief> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(UNREADABLE);
        }
        let header = decode_header(token).map_err(|_| UNREADABLE)?;
        // What a critical extension means we would have to know; we know none.
        if header.crit.is_some() {
            return Err(UNREADABLE);
        }
        let key = self.key(header.kid.as_deref(), header.alg, monotonic).await.ok_or(UNVERIFIED)?;
        let claims = decode::<Map<String, Value>>(token, &key.key, &self.validation(key.algorithm));
        let claims = claims.map_err(|error| disbelief(&error))?.claims;
        let until = self.check_times(&claims, now)?;
        Ok(Verified { principal: self.principal(&claims)?, until })
    }

    /// The key is chosen among those that are for `algorithm` alone, so a public key never serves as a secret.
    async fn key(&self, id: Option<&str>, algorithm: Algorithm, now: Duration) -> Option<Arc<VerifyingKey>> {
        match algorithm {
            Algorithm::HS256 => self.secret.clone(),
            Algorithm::RS256 | Algorithm::ES256 => self.key_set.as_ref()?.find(id, algorithm, now).await,
            _ => None,
        }
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        // These are checked by the node's clock, below.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let mut required = Vec::new();
        if !self.config.issuer.is_empty() {
            validation.set_issuer(&[&self.config.issuer]);
            required.push("iss");
        }
        if !self.config.audience.is_empty() {
            validation.set_audience(&[&self.config.audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn check_times(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, Disbelief> {
        let (now, skew) = (now.as_millis() as f64 / 1000.0, self.config.clock_skew_s as f64);
        let expires = claims.get("exp").and_then(Value::as_f64).filter(|time| time.is_finite());
        let expires = expires.ok_or("this token lacks a time at which it expires; get one with exp")?;
        if expires + skew <= now {
            return Err("this token has expired; get a new one");
        }
        let begins = match claims.get("nbf") {
            None => f64::NEG_INFINITY,
            Some(time) => time.as_f64().ok_or(UNREADABLE)?,
        };
        if begins - skew > now {
            return Err("this token is not valid yet; check the clocks");
        }
        // Saturates: beyond any clock is for ever.
        Ok(Timestamp(((expires + skew) * 1000.0) as u64))
    }

    fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, Disbelief> {
        let named = claims.get(&self.config.owner_claim).and_then(Value::as_str).unwrap_or_default();
        let owner = format!("{}{named}", self.config.owner_prefix);
        let plain = |text: &str| text.len() <= OWNER_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        if named.is_empty() || !plain(&owner) {
            return Err("this token names no owner that can be used here: 1 to 128 visible ASCII characters");
        }
        if owner == ADMIN_OWNER && !self.scopes_allowed.contains(&Scope::Admin) {
            return Err("this token names an owner that tokens may not stand for here");
        }
        let subject = claims.get("sub").and_then(Value::as_str).filter(|subject| plain(subject)).unwrap_or(named);
        Ok(Principal {
            scopes: self.scopes(claims),
            function: None,
            credential: Credential::Token { subject: subject.into() },
            // Of the owner, however many tokens it gets itself.
            allowance: hash(format!("token of {owner}").as_bytes()),
            owner: Owner::new(&owner),
        })
    }

    /// What the claim names, as far as it is known and may be given.
    fn scopes(&self, claims: &Map<String, Value>) -> Vec<Scope> {
        let claim = match self.config.scope_claim.as_str() {
            "" => claims.get("scope").or_else(|| claims.get("scopes")),
            name => claims.get(name),
        };
        let names: Vec<&str> = match claim {
            None => return self.allowed(self.scopes_default.iter().copied()),
            Some(Value::String(names)) => names.split_ascii_whitespace().collect(),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            Some(_) => Vec::new(),
        };
        self.allowed(names.into_iter().flat_map(|name| {
            let mapped = self.scope_map.iter().filter(move |(theirs, _)| theirs == name).map(|(_, ours)| *ours);
            mapped.chain(Scope::parse(name))
        }))
    }

    fn allowed(&self, scopes: impl Iterator<Item = Scope>) -> Vec<Scope> {
        let mut allowed: Vec<Scope> = scopes.filter(|scope| self.scopes_allowed.contains(scope)).collect();
        allowed.sort_unstable();
        allowed.dedup();
        allowed
    }
}

fn disbelief(error: &jsonwebtoken::errors::Error) -> Disbelief {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => FOREIGN,
        ErrorKind::MissingRequiredClaim(_) => "this token lacks the issuer or the audience that is needed here",
        ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => UNREADABLE,
        _ => UNVERIFIED,
    }
}

/// The file without the line's end.
fn read_secret(path: &Path) -> Result<Vec<u8>, TokenKeysError> {
    use std::io::Read;
    let failed = |cause| TokenKeysError::File { path: path.to_owned(), cause };
    let mut secret = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_end(&mut secret)).map_err(failed)?;
    while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        secret.pop();
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err(TokenKeysError::Short { path: path.to_owned() });
    }
    Ok(secret)
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
