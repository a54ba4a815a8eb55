//! How nodes prove to each other that they are of one fleet: by a secret that all know and that never travels.
//!
//! ```text
//! client ── hello: a random number ─────────────────────────► server
//!        ◄─ hello: another, and a proof over both ───────────        (it knows the secret: what follows may go to it)
//!        ── request: count, digest of the body, proof ──────►        (over method, path and both; each count once)
//! ```
//!
//! Both random numbers make the key of one connection, so that nothing recorded there is worth anything elsewhere, and no clocks need
//! agree. Who may change what is under way between two nodes can change answers: there, nodes need certificates (`fleet.ca_file`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use zeroize::Zeroize;

use crate::config;

/// Requests of one connection whose order may have changed on the way.
const WINDOW: u64 = 1024;
const SECRET_LENGTH_MIN: usize = 32;
/// A secret is a line, not a disk image.
const SECRET_FILE_BYTES_MAX: u64 = 4096;

pub type Nonce = [u8; 32];

/// Why there is no secret. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("can't read fleet.secret_file = {path}: {cause}")]
    Unreadable { path: String, cause: std::io::Error },
    #[error("the fleet's secret has {0} characters: it must have at least {SECRET_LENGTH_MIN}")]
    Short(usize),
    #[error("fleet.secret or fleet.secret_file must be set: what all nodes of the fleet know and nobody else does")]
    Missing,
}

/// What all nodes of the fleet know.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// From the configuration, or the file that it names. Blocks: for the start of a process.
    ///
    /// # Errors
    /// If there is none, or none that is worth its name.
    pub fn open(config: &config::Fleet) -> Result<Self, SecretError> {
        if config.secret_file.is_empty() {
            return match config.secret.is_empty() {
                true => Err(SecretError::Missing),
                false => Self::new(config.secret.expose()),
            };
        }
        let unreadable = |cause| SecretError::Unreadable { path: config.secret_file.clone(), cause };
        let mut text = String::new();
        let file = std::fs::File::open(&config.secret_file).map_err(unreadable)?;
        std::io::Read::read_to_string(&mut std::io::Read::take(file, SECRET_FILE_BYTES_MAX), &mut text)
            .map_err(unreadable)?;
        let secret = Self::new(text.trim());
        text.zeroize();
        secret
    }

    /// # Errors
    /// If it is short.
    pub fn new(text: &str) -> Result<Self, SecretError> {
        if text.len() < SECRET_LENGTH_MIN {
            return Err(SecretError::Short(text.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())))
    }

    /// The key of a connection whose ends said these numbers.
    pub fn session(&self, client: &Nonce, server: &Nonce) -> Session {
        let key = signed(&self.0, &[b"faasd fleet 1", client, server]);
        Session {
            key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()),
            sent: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }
}

/// # Errors
/// If the kernel has no random bits.
pub fn nonce() -> Result<Nonce, getrandom::Error> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce)?;
    Ok(nonce)
}

pub fn sha256(body: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, body).as_ref());
    out
}

fn signed(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        // Its length first: no two lists of parts are the same bytes.
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    context.sign()
}

/// One connection's key and what was sent or seen of it.
pub struct Session {
    key: hmac::Key,
    sent: AtomicU64,
    seen: Mutex<Seen>,
}

impl Session {
    /// What the server shows to have been meant.
    pub fn greeting(&self) -> String {
        hex::encode(signed(&self.key, &[b"server"]))
    }

    pub fn is_greeting(&self, text: &str) -> bool {
        is_tag(&signed(&self.key, &[b"server"]), text)
    }

    /// The proof of the next request.
    pub fn prove(&self, method: &str, path: &str, body: &[u8; 32]) -> String {
        let count = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{count}.{}", hex::encode(self.tag(count, method, path, body)))
    }

    /// Whether this proof was made for this request, and is seen for the first time.
    pub fn accepts(&self, proof: &str, method: &str, path: &str, body: &[u8; 32]) -> bool {
        let Some((count, tag)) = proof.split_once('.') else { return false };
        let Ok(count) = count.parse::<u64>() else { return false };
        // Only a proof that holds may use its count up.
        is_tag(&self.tag(count, method, path, body), tag)
            && self.seen.lock().unwrap_or_else(PoisonError::into_inner).take(count)
    }

    fn tag(&self, count: u64, method: &str, path: &str, body: &[u8; 32]) -> hmac::Tag {
        signed(&self.key, &[b"request", &count.to_le_bytes(), method.as_bytes(), path.as_bytes(), body])
    }
}

fn is_tag(tag: &hmac::Tag, text: &str) -> bool {
    let mut sent = [0; 32];
    hex::decode_to_slice(text, &mut sent).is_ok() && subtle::ConstantTimeEq::ct_eq(tag.as_ref(), &sent[..]).into()
}

/// Which of the last counts were seen.
struct Seen {
    highest: u64,
    bits: [u64; (WINDOW / 64) as usize],
}

impl Default for Seen {
    fn default() -> Self {
        Self { highest: 0, bits: [0; (WINDOW / 64) as usize] }
    }
}

impl Seen {
    /// `false`: it was seen, or is too old to tell.
    fn take(&mut self, count: u64) -> bool {
        if count == 0 || count + WINDOW <= self.highest {
            return false;
        }
        if count > self.highest {
            // Places that come into the window were another count's before.
            for skipped in (self.highest + 1..=count).rev().take(WINDOW as usize) {
                self.clear(skipped);
            }
            self.highest = count;
        }
        let (word, bit) = place(count);
        let unseen = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        unseen
    }

    fn clear(&mut self, count: u64) {
        let (word, bit) = place(count);
        self.bits[word] &= !bit;
    }
}

fn place(count: u64) -> (usize, u64) {
    let at = count % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

/// The server's end of a connection: nobody is believed before the hello.
#[derive(Default)]
pub struct Peer(std::sync::OnceLock<Arc<Session>>);

impl Peer {
    /// `None`: it has said hello already, or there are no random bits.
    pub fn greet(&self, secret: &Secret, client: &Nonce) -> Option<(Nonce, Arc<Session>)> {
        let server = nonce().ok()?;
        let session = Arc::new(secret.session(client, &server));
        self.0.set(session.clone()).ok()?;
        Some((server, session))
    }

    pub fn session(&self) -> Option<&Arc<Session>> {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: [u8; 32] = [3; 32];

    fn ends() -> (Session, Session) {
        let secret = Secret::new(&"s".repeat(32)).unwrap();
        (secret.session(&[1; 32], &[2; 32]), secret.session(&[1; 32], &[2; 32]))
    }

    #[test]
    fn a_request_is_accepted_once_and_only_as_it_was_meant() {
        let (client, server) = ends();
        let proof = client.prove("POST", "/fleet/execute", &BODY);
        assert!(!server.accepts(&proof, "POST", "/fleet/cancel", &BODY));
        assert!(!server.accepts(&proof, "GET", "/fleet/execute", &BODY));
        assert!(!server.accepts(&proof, "POST", "/fleet/execute", &[4; 32]));
        assert!(!server.accepts(&proof.replacen('1', "2", 1), "POST", "/fleet/execute", &BODY));
        assert!(server.accepts(&proof, "POST", "/fleet/execute", &BODY));
        assert!(!server.accepts(&proof, "POST", "/fleet/execute", &BODY), "replayed");
        for junk in ["", ".", "1", "1.zz", "99999999999999999999.00"] {
            assert!(!server.accepts(junk, "POST", "/fleet/execute", &BODY), "{junk}");
        }
    }

    #[test]
    fn another_secret_or_another_connection_proves_nothing() {
        let (client, server) = ends();
        let other = Secret::new(&"t".repeat(32)).unwrap().session(&[1; 32], &[2; 32]);
        let elsewhere = Secret::new(&"s".repeat(32)).unwrap().session(&[1; 32], &[9; 32]);
        for session in [&other, &elsewhere] {
            assert!(!server.accepts(&session.prove("POST", "/", &BODY), "POST", "/", &BODY));
            assert!(!client.is_greeting(&session.greeting()));
        }
        assert!(client.is_greeting(&server.greeting()));
        assert!(Secret::new("short").is_err());
    }

    #[test]
    fn counts_may_overtake_each_other_within_the_window() {
        let mut seen = Seen::default();
        assert!(!seen.take(0));
        assert!(seen.take(5) && seen.take(3) && !seen.take(5) && !seen.take(3) && seen.take(4));
        assert!(seen.take(5 + WINDOW));
        assert!(!seen.take(5) && seen.take(6) && !seen.take(6));
        assert!(seen.take(u64::MAX / 2) && seen.take(u64::MAX / 2 - 1));
        assert!(!seen.take(7));
    }
}
