//! From what a request carries to who it is from. The usual case is one look into a cache; all else is out of its way.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderMap;
use prometheus::IntCounter;
use subtle::ConstantTimeEq;

use crate::config::Config;
use crate::controller::error::{ApiError, Code};
use crate::domain::ids::KeyId;
use crate::domain::principal::Principal;
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::keys::KeyStore;

use super::addresses::Proxies;
use super::failures::Failures;
use super::tokens::{TOKEN_BYTES_MAX, Tokens, Verified};
use super::{bearer, hash};

/// A cached key is read again after this, should news of its revocation have been lost; a token is checked again, should the key
/// that signed it have been withdrawn.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// Credentials remembered; the next one empties the cache.
const CREDENTIALS_MAX: usize = 10_000;
/// A secret longer than this is not one of ours, and not worth looking up.
const SECRET_BYTES_MAX: usize = 256;
/// `lastUsedAt` of a key is at most this much behind while it is in use.
const USES_NOTED_EVERY: Duration = Duration::from_secs(60);

/// What counts where no peer is known: requests that come over no socket.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

const UNKNOWN_KEY: &str = "this API key is not known; check it, or ask an admin for one";

#[derive(Clone)]
struct Cached {
    principal: Arc<Principal>,
    /// On the monotonic clock; never beyond the credential's own end.
    until: Duration,
}

#[derive(Default)]
struct Cache {
    /// Counts revocations: what was read before one must not be remembered after it.
    generation: u64,
    by_hash: HashMap<[u8; 32], Cached>,
}

/// A credential as the request carries it.
#[derive(Clone, Copy)]
enum Sent<'a> {
    Key(&'a [u8]),
    Token(&'a [u8]),
}

pub struct Authenticator {
    store: Arc<dyn KeyStore>,
    tokens: Option<Tokens>,
    cache: RwLock<Cache>,
    failures: Failures,
    proxies: Proxies,
    clock: Arc<dyn Clock>,
    throttled: IntCounter,
}

impl Authenticator {
    pub fn new(
        store: Arc<dyn KeyStore>,
        tokens: Option<Tokens>,
        config: &Config,
        clock: Arc<dyn Clock>,
        throttled: IntCounter,
    ) -> Self {
        Self {
            store,
            tokens,
            cache: RwLock::default(),
            failures: Failures::new(config.auth.failures_max),
            proxies: Proxies::new(&config.http.trusted_proxies),
            clock,
            throttled,
        }
    }

    pub fn store(&self) -> &dyn KeyStore {
        &*self.store
    }

    /// Where the request comes from, as far as the proxies in between are trusted.
    pub fn address(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> IpAddr {
        peer.map_or(NOWHERE, |peer| self.proxies.client(headers, peer))
    }

    /// Who the request is from.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        now: Duration,
    ) -> Result<Arc<Principal>, ApiError> {
        let sent = self
            .sent(headers)
            .ok_or_else(|| unauthorized("send an API key as `x-api-key: KEY` or `Authorization: Bearer KEY`"))?;
        let (Sent::Key(text) | Sent::Token(text)) = sent;
        // What is longer than anything that is accepted is not hashed to its end; no credential that is has such a beginning.
        let mut hash = hash(&text[..text.len().min(TOKEN_BYTES_MAX + 1)]);
        if matches!(sent, Sent::Token(_)) {
            // Apart from keys: what is good as a token is not good as a key.
            hash.iter_mut().for_each(|byte| *byte = !*byte);
        }
        if let Some(principal) = self.cached(&hash, now) {
            return Ok(principal);
        }
        // On the heap: a call that is known must not carry the room that this takes.
        Box::pin(self.look_up(sent, hash, self.address(headers, peer), now)).await
    }

    fn sent<'a>(&self, headers: &'a HeaderMap) -> Option<Sent<'a>> {
        let sent = match headers.get("x-api-key") {
            Some(value) => Sent::Key(value.as_bytes()),
            None => match bearer(headers)? {
                token if self.tokens.is_some() && Tokens::is_token(token) => Sent::Token(token),
                key => Sent::Key(key),
            },
        };
        let (Sent::Key(text) | Sent::Token(text)) = &sent;
        (!text.is_empty()).then_some(sent)
    }

    fn cached(&self, hash: &[u8; 32], now: Duration) -> Option<Arc<Principal>> {
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let cached = cache.by_hash.get(hash)?;
        (now < cached.until).then(|| cached.principal.clone())
    }

    /// A credential that is new here. Whoever got too many wrong is told to wait, but a good one passes: many may share an
    /// address, and the good ones among them did nothing.
    async fn look_up(
        &self,
        sent: Sent<'_>,
        hash: [u8; 32],
        address: IpAddr,
        now: Duration,
    ) -> Result<Arc<Principal>, ApiError> {
        let wait = self.failures.refused_for(address, now);
        if let Some(wait) = wait.filter(|_| !self.failures.may_look(now)) {
            return Err(self.throttle(wait));
        }
        let generation = self.cache.read().unwrap_or_else(PoisonError::into_inner).generation;
        let found = match sent {
            Sent::Key(secret) if secret.len() > SECRET_BYTES_MAX => Err(UNKNOWN_KEY),
            Sent::Key(_) => self.key(&hash, now).await?,
            Sent::Token(token) => self.token(token, now).await,
        };
        match found {
            Ok(cached) => {
                self.remember(hash, &cached, generation);
                Ok(cached.principal)
            }
            Err(why) => {
                self.failures.count(address, now);
                Err(wait.map_or_else(|| unauthorized(why), |wait| self.throttle(wait)))
            }
        }
    }

    async fn key(&self, hash: &[u8; 32], now: Duration) -> Result<Result<Cached, &'static str>, ApiError> {
        let today = self.clock.now();
        let found = self.store.by_secret(hash).await?;
        let valid = found.filter(|key| bool::from(key.secret_sha256.ct_eq(hash)) && !key.is_expired(today));
        let Some(key) = valid else { return Ok(Err(UNKNOWN_KEY)) };
        if key.last_used_at.is_none_or(|at| today.since(at) >= USES_NOTED_EVERY) {
            self.store.used(key.id, today);
        }
        Ok(Ok(Cached { principal: Arc::new(Principal::of_key(&key)), until: fresh_until(key.expires_at, today, now) }))
    }

    async fn token(&self, token: &[u8], now: Duration) -> Result<Cached, &'static str> {
        let today = self.clock.now();
        let Some(tokens) = &self.tokens else { return Err(UNKNOWN_KEY) };
        let Verified { principal, until } = tokens.verify(token, today, now).await?;
        Ok(Cached { principal: Arc::new(principal), until: fresh_until(Some(until), today, now) })
    }

    fn remember(&self, hash: [u8; 32], cached: &Cached, generation: u64) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.generation != generation {
            return;
        }
        if cache.by_hash.len() >= CREDENTIALS_MAX {
            cache.by_hash.clear();
        }
        cache.by_hash.insert(hash, cached.clone());
    }

    pub fn forget(&self, id: KeyId) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.generation += 1;
        cache.by_hash.retain(|_, cached| cached.principal.key_id() != Some(id));
    }

    pub fn forget_all(&self) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.generation += 1;
        cache.by_hash.clear();
    }

    fn throttle(&self, wait: Duration) -> ApiError {
        self.throttled.inc();
        ApiError::new(
            Code::TooManyFailures,
            "too many unknown keys or tokens came from this address; wait as long as Retry-After says",
        )
        .retry_after(wait)
    }
}

/// Until when, on the monotonic clock, a credential counts that ends at `end` at the latest.
fn fresh_until(end: Option<Timestamp>, today: Timestamp, now: Duration) -> Duration {
    now + end.map_or(FRESH_FOR, |end| end.since(today).min(FRESH_FOR))
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(Code::Unauthorized, message)
}
