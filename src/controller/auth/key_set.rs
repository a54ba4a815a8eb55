//! The public keys that tokens are checked with, as last fetched. While their source is down, those fetched before go on counting.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use crate::ports::key_set::{KeySetError, KeySetSource};

/// Whatever tokens ask for, the source is asked no more often than this …
const ASK_EVERY: Duration = Duration::from_secs(60);
/// … unless there are no keys yet: the signer may be starting beside us.
const ASK_EVERY_WHILE_EMPTY: Duration = Duration::from_secs(5);
/// Keys of one set that are looked at.
const KEYS_MAX: usize = 128;

/// A key that checks signatures of one algorithm and no other: a token can't choose how its key is used.
pub struct VerifyingKey {
    pub id: Option<String>,
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

#[derive(Default)]
struct Asked {
    last: Option<Duration>,
    last_success: Option<Duration>,
}

pub struct KeySet {
    source: Arc<dyn KeySetSource>,
    refresh_every: Duration,
    keys: RwLock<Arc<[Arc<VerifyingKey>]>>,
    asked: Mutex<Asked>,
    /// Whoever asks the source holds it; others wait and look at what came.
    asking: tokio::sync::Mutex<()>,
}

impl KeySet {
    pub fn new(source: Arc<dyn KeySetSource>, refresh_every: Duration) -> Arc<Self> {
        let keys = RwLock::new(Arc::from(Vec::new()));
        Arc::new(Self { source, refresh_every, keys, asked: Mutex::default(), asking: tokio::sync::Mutex::default() })
    }

    /// The key for a token that says it was signed with this one. Without an id, the only key of the algorithm.
    pub async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
        now: Duration,
    ) -> Option<Arc<VerifyingKey>> {
        if let Some(key) = self.known(id, algorithm) {
            if self.is_due(now) {
                let set = self.clone();
                tokio::spawn(async move { set.ask(now).await });
            }
            return Some(key);
        }
        self.ask(now).await;
        self.known(id, algorithm)
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<VerifyingKey>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut fitting = keys.iter().filter(|key| key.algorithm == algorithm);
        match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)).cloned(),
            None => fitting.next().filter(|_| fitting.next().is_none()).cloned(),
        }
    }

    fn is_due(&self, now: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = asked.last_success.is_none_or(|at| now.saturating_sub(at) >= self.refresh_every);
        is_old && asked.last.is_none_or(|at| now.saturating_sub(at) >= ASK_EVERY)
    }

    /// Asks the source, unless it was asked just now.
    async fn ask(&self, now: Duration) {
        let _asking = self.asking.lock().await;
        let empty = self.keys.read().unwrap_or_else(PoisonError::into_inner).is_empty();
        let every = if empty { ASK_EVERY_WHILE_EMPTY } else { ASK_EVERY };
        {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.last.is_some_and(|at| now.saturating_sub(at) < every) {
                return;
            }
            asked.last = Some(now);
        }
        if let Err(error) = self.fetch(now).await {
            tracing::warn!(%error, "the key set for tokens could not be fetched; the last one goes on counting");
        }
    }

    /// Fetches the keys.
    ///
    /// # Errors
    /// If the source has none to give; what was fetched before stays.
    pub async fn fetch(&self, now: Duration) -> Result<(), KeySetError> {
        let keys = parse(&self.source.fetch().await?)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        (asked.last, asked.last_success) = (Some(now), Some(now));
        Ok(())
    }
}

#[derive(Deserialize)]
struct Set {
    /// Each by itself, so that one of a kind unknown here spoils no other.
    keys: Vec<serde_json::Value>,
}

fn parse(bytes: &[u8]) -> Result<Vec<Arc<VerifyingKey>>, KeySetError> {
    let set: Set = serde_json::from_slice(bytes)
        .map_err(|error| KeySetError(format!("the key set is not a JSON Web Key Set: {error}")))?;
    let keys: Vec<_> = set
        .keys
        .into_iter()
        .take(KEYS_MAX)
        .filter_map(|key| serde_json::from_value(key).ok())
        .filter_map(usable)
        .collect();
    if keys.is_empty() {
        return Err(KeySetError("the key set has no key for RS256 or ES256".to_owned()));
    }
    Ok(keys)
}

/// A public key for RS256 or ES256 that is there to check signatures. Secrets have no place in a published set.
fn usable(jwk: Jwk) -> Option<Arc<VerifyingKey>> {
    let (algorithm, said) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    let common = &jwk.common;
    let for_this = common.key_algorithm.as_ref().is_none_or(|named| *named == said);
    let to_sign = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let to_verify = common.key_operations.as_ref().is_none_or(|purposes| purposes.contains(&KeyOperations::Verify));
    if !(for_this && to_sign && to_verify) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Arc::new(VerifyingKey { id: jwk.common.key_id, algorithm, key }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn rsa(id: &str) -> String {
        format!(r#"{{"kty":"RSA","kid":"{id}","n":"AQAB","e":"AQAB"}}"#)
    }

    fn set(keys: &[String]) -> String {
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    #[derive(Default)]
    struct Source {
        asked: AtomicUsize,
        /// `None`: it is down.
        text: Mutex<Option<String>>,
    }

    #[async_trait]
    impl KeySetSource for Source {
        async fn fetch(&self) -> Result<Vec<u8>, KeySetError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.text.lock().unwrap().clone().map(String::into_bytes).ok_or_else(|| KeySetError("down".into()))
        }
    }

    impl Source {
        fn holding(text: Option<String>) -> Arc<Self> {
            Arc::new(Self { text: Mutex::new(text), ..Self::default() })
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn only_public_keys_for_checking_signatures_are_taken() {
        let ids = |text: &str| {
            parse(text.as_bytes()).map(|keys| keys.iter().map(|key| key.id.clone().unwrap()).collect::<Vec<_>>())
        };
        let other = |text: &str| set(&[rsa("a"), text.to_owned()]);
        for refused in [
            r#"{"kty":"oct","kid":"b","k":"c2VjcmV0"}"#,
            r#"{"kty":"RSA","kid":"b","n":"AQAB","e":"AQAB","use":"enc"}"#,
            r#"{"kty":"RSA","kid":"b","n":"AQAB","e":"AQAB","alg":"RS512"}"#,
            r#"{"kty":"RSA","kid":"b","n":"AQAB","e":"AQAB","alg":"HS256"}"#,
            r#"{"kty":"RSA","kid":"b","n":"AQAB","e":"AQAB","key_ops":["sign"]}"#,
            r#"{"kty":"EC","crv":"P-384","kid":"b","x":"AQAB","y":"AQAB"}"#,
            r#"{"kty":"of the future","kid":"b"}"#,
            "17",
        ] {
            assert_eq!(ids(&other(refused)).unwrap(), ["a"], "{refused}");
        }
        assert!(ids(&set(&[])).is_err() && ids("{}").is_err() && ids("no").is_err());
    }

    #[tokio::test]
    async fn an_unknown_id_asks_again_at_most_once_a_minute() {
        let source = Source::holding(Some(set(&[rsa("a")])));
        let keys = KeySet::new(source.clone(), s(600));
        assert!(keys.find(Some("a"), Algorithm::RS256, s(0)).await.is_some());
        for second in [1, 30, 59] {
            assert!(keys.find(Some("b"), Algorithm::RS256, s(second)).await.is_none());
        }
        assert_eq!(source.asked(), 1);
        *source.text.lock().unwrap() = Some(set(&[rsa("a"), rsa("b")]));
        assert!(keys.find(Some("b"), Algorithm::RS256, s(60)).await.is_some());
        assert_eq!(source.asked(), 2);
    }

    #[tokio::test]
    async fn the_last_keys_count_while_the_source_is_down() {
        let source = Source::holding(Some(set(&[rsa("a")])));
        let keys = KeySet::new(source.clone(), s(600));
        assert!(keys.find(Some("a"), Algorithm::RS256, s(0)).await.is_some());
        *source.text.lock().unwrap() = None;
        for second in [600, 700, 10_000] {
            assert!(keys.find(Some("a"), Algorithm::RS256, s(second)).await.is_some());
            tokio::task::yield_now().await;
        }
        assert!(source.asked() >= 2, "it was asked again");
        // And a key taken out is gone once the source answers again.
        *source.text.lock().unwrap() = Some(set(&[rsa("b")]));
        keys.fetch(s(20_000)).await.unwrap();
        assert!(keys.find(Some("a"), Algorithm::RS256, s(20_001)).await.is_none());
    }

    #[tokio::test]
    async fn without_an_id_the_only_key_of_the_algorithm_counts() {
        let source = Source::holding(Some(set(&[rsa("a")])));
        let keys = KeySet::new(source.clone(), s(600));
        assert!(keys.find(None, Algorithm::RS256, s(0)).await.is_some());
        assert!(keys.find(None, Algorithm::ES256, s(0)).await.is_none());
        assert!(keys.find(None, Algorithm::HS256, s(0)).await.is_none());
        *source.text.lock().unwrap() = Some(set(&[rsa("a"), rsa("b")]));
        keys.fetch(s(100)).await.unwrap();
        assert!(keys.find(None, Algorithm::RS256, s(100)).await.is_none());
    }
}
