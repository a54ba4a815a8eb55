//! A vault whose keys are this node's own: AES-256-GCM, with a random nonce a seal.
//!
//! ```text
//! form (1) │ key id (8) │ nonce (12) │ ciphertext │ tag (16)          form and key id are authenticated too
//! ```
//!
//! The keys come from `secrets.key_file`, else from `secrets.key`, else from `<data_dir>/secrets.key`, which is made at the first
//! start. The last key seals, each opens: a new one is appended, what is stored is sealed again at the next start, and the old one may
//! go. A key's id is part of the digest of the key, so that a wrong key is never taken for the right one.
//!
//! Random nonces of 96 bits are good for 2^32 seals a key (NIST SP 800-38D, 8.3): a deploy each second for a century.

mod keys;

use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::config::Secrets;
use crate::ports::vault::{Vault, VaultError};

use keys::{KEY_ID_BYTES, KeyId};

pub use keys::generate;

/// Says how the rest is to be read; another algorithm would be another number.
const FORM: u8 = 1;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
/// Name of the file below the data directory that holds the node's own key.
const FILE: &str = "secrets.key";

/// Why the vault could not be opened. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("can't {step} {path}: {cause}", path = .path.display())]
    Io { step: &'static str, path: PathBuf, cause: std::io::Error },
    #[error(
        "{place} has no usable key: {what}; a key is 32 bytes as 64 hex digits, as `openssl rand -hex 32` prints them"
    )]
    Keys { place: String, what: String },
}

pub struct LocalVault {
    /// The last seals.
    keys: Vec<(KeyId, RandomizedNonceKey)>,
    /// Where they come from, for a person.
    place: String,
}

impl LocalVault {
    /// Finds the keys, or makes the first one. Blocks: for the start of a process.
    ///
    /// # Errors
    /// A key file that can't be read, or holds something else.
    pub fn open(secrets: &Secrets, data_dir: &Path) -> Result<Self, OpenError> {
        if !secrets.key_file.is_empty() {
            let path = Path::new(&secrets.key_file);
            return Self::of(&keys::read(path)?, path.display().to_string());
        }
        if !secrets.key.is_empty() {
            return Self::of(secrets.key.expose(), "secrets.key of the configuration".to_owned());
        }
        let path = data_dir.join(FILE);
        Self::of(&keys::read_or_make(&path, data_dir)?, path.display().to_string())
    }

    fn of(text: &str, place: String) -> Result<Self, OpenError> {
        let wrong = |what: String| OpenError::Keys { place: place.clone(), what };
        let mut keys = Vec::new();
        for key in keys::parse(text).map_err(wrong)? {
            let id = keys::id(&key);
            let key = RandomizedNonceKey::new(&AES_256_GCM, key.as_slice());
            keys.push((id, key.map_err(|_| wrong("the cipher refuses one".to_owned()))?));
        }
        Ok(Self { keys, place })
    }

    fn newest(&self) -> Option<&(KeyId, RandomizedNonceKey)> {
        self.keys.last()
    }
}

impl Vault for LocalVault {
    fn seal(&self, plain: &[u8], about: &[u8]) -> Result<Vec<u8>, VaultError> {
        let (id, key) = self.newest().ok_or(VaultError::NotSealed)?;
        let header = header(*id);
        let mut body = plain.to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from([header.as_slice(), about].concat()), &mut body)
            .map_err(|_| VaultError::NotSealed)?;
        Ok([header.as_slice(), nonce.as_ref(), &body].concat())
    }

    fn open(&self, sealed: &[u8], about: &[u8]) -> Result<Vec<u8>, VaultError> {
        let (header, rest) = sealed.split_at_checked(HEADER_BYTES).ok_or(VaultError::Damaged)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(VaultError::Damaged)?;
        let (form, id) = header.split_at(1);
        if form != [FORM] {
            return Err(VaultError::Damaged);
        }
        let unknown = || VaultError::UnknownKey { key: hex::encode(id), place: self.place.clone() };
        let (_, key) = self.keys.iter().find(|(known, _)| known == id).ok_or_else(unknown)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::Damaged)?;
        let mut body = Zeroizing::new(body.to_vec());
        let plain = key
            .open_in_place(nonce, Aad::from([header, about].concat()), &mut body)
            .map_err(|_| VaultError::Damaged)?;
        Ok(plain.to_vec())
    }

    fn is_current(&self, sealed: &[u8]) -> bool {
        self.newest().is_some_and(|(id, _)| sealed.starts_with(&header(*id)))
    }
}

fn header(id: KeyId) -> [u8; HEADER_BYTES] {
    let mut header = [FORM; HEADER_BYTES];
    header[1..].copy_from_slice(&id);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(keys: &[&str]) -> LocalVault {
        LocalVault::of(&keys.join("\n"), "here".to_owned()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_as_what_it_is_about_and_as_nothing_else() {
        let (old, new) = (generate().unwrap(), generate().unwrap());
        let vault = self::vault(&[&old]);
        let sealed = vault.seal(b"s3cret", b"f1").unwrap();
        assert_eq!(vault.open(&sealed, b"f1").unwrap(), b"s3cret");
        assert!(!sealed.windows(6).any(|window| window == b"s3cret"));
        assert_ne!(sealed, vault.seal(b"s3cret", b"f1").unwrap());
        assert_eq!(vault.open(&sealed, b"f2"), Err(VaultError::Damaged));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(vault.open(&changed, b"f1").is_err(), "byte {at} may be changed");
            assert!(vault.open(&sealed[..at], b"f1").is_err(), "it may be cut at {at}");
        }
        let other = self::vault(&[&new]).open(&sealed, b"f1").unwrap_err();
        assert!(matches!(&other, VaultError::UnknownKey { place, .. } if place == "here"), "{other}");
    }

    #[test]
    fn the_last_key_seals_and_each_opens() {
        let (old, new) = (generate().unwrap(), generate().unwrap());
        let sealed = vault(&[&old]).seal(b"s3cret", b"f").unwrap();
        let both = vault(&[&old, &new]);
        assert!(!both.is_current(&sealed));
        assert_eq!(both.open(&sealed, b"f").unwrap(), b"s3cret");
        let again = both.seal(b"s3cret", b"f").unwrap();
        assert!(both.is_current(&again));
        assert_eq!(vault(&[&new]).open(&again, b"f").unwrap(), b"s3cret");
    }

    #[test]
    fn the_first_start_makes_a_key_that_only_the_owner_reads_and_the_next_finds_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let sealed = LocalVault::open(&Secrets::default(), &data_dir).unwrap().seal(b"x", b"f").unwrap();
        let file = data_dir.join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = LocalVault::open(&Secrets::default(), &data_dir).unwrap();
        assert_eq!(again.open(&sealed, b"f").unwrap(), b"x");
        std::fs::remove_file(&file).unwrap();
        let lost = LocalVault::open(&Secrets::default(), &data_dir).unwrap();
        assert!(matches!(lost.open(&sealed, b"f"), Err(VaultError::UnknownKey { .. })));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for text in ["", "# nothing\n", "s3cret", &"g".repeat(64), &"ab".repeat(31)] {
            let error = LocalVault::of(text, "here".to_owned()).err().unwrap().to_string();
            assert!(error.contains("here") && error.contains("openssl rand"), "{error}");
            assert!(!error.contains("s3cret") && !error.contains("abab"), "{error}");
        }
    }
}
