//! Keys as text: where they lie, how they are read, and how the first one is made. Every copy is wiped when it is dropped.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aws_lc_rs::rand;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::adapters::private_files;

use super::OpenError;

const KEY_BYTES: usize = 32;
/// Enough to tell the keys of one file apart, and nothing of the key itself.
pub const KEY_ID_BYTES: usize = 8;
/// A file of keys is read whole; a larger one is something else.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// More would be kept by mistake: each is searched for at every opening.
const KEYS_MAX: usize = 64;

pub type Key = Zeroizing<[u8; KEY_BYTES]>;
pub type KeyId = [u8; KEY_ID_BYTES];

/// A new key as text.
///
/// # Errors
/// Where the machine has no randomness to give.
pub fn generate() -> Result<Zeroizing<String>, std::io::Error> {
    let mut key = Key::default();
    rand::fill(key.as_mut_slice()).map_err(|_| std::io::Error::other("no random bytes"))?;
    Ok(Zeroizing::new(hex::encode(key.as_slice())))
}

/// The keys in `text`: one a line or separated by commas, in hex, newest last; `#` begins a comment. The sentence of what is
/// wrong shows none of it.
pub fn parse(text: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split([',', ' ', '\t', '\r']).filter(|word| !word.is_empty()) {
            let mut key = Key::default();
            hex::decode_to_slice(word, key.as_mut_slice())
                .map_err(|_| format!("line {number} holds something else, of {} characters", word.len()))?;
            keys.push(key);
        }
    }
    match keys.len() {
        0 => Err("it is empty".to_owned()),
        1..=KEYS_MAX => Ok(keys),
        more => Err(format!("it has {more}, and {KEYS_MAX} are the most")),
    }
}

pub fn id(key: &Key) -> KeyId {
    let mut digest = Sha256::new();
    digest.update(b"faasd key id");
    digest.update(key.as_slice());
    let mut id = KeyId::default();
    id.copy_from_slice(&digest.finalize()[..KEY_ID_BYTES]);
    id
}

/// The file's text, with a warning where others may read it as well.
pub fn read(path: &Path) -> Result<Zeroizing<String>, OpenError> {
    let failed = |cause| OpenError::Io { step: "read the keys of", path: path.to_owned(), cause };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o7777), "others may read the key file: chmod it to 600");
    }
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// The same, of a file that is made with one new key if it is not there.
pub fn read_or_make(path: &Path, data_dir: &Path) -> Result<Zeroizing<String>, OpenError> {
    let failed = |step, cause| OpenError::Io { step, path: path.to_owned(), cause };
    match path.try_exists() {
        Ok(true) => return read(path),
        Ok(false) => {}
        Err(cause) => return Err(failed("look for", cause)),
    }
    private_files::private_dir(data_dir).map_err(|cause| failed("make the directory of", cause))?;
    let mut text = generate().map_err(|cause| failed("make a key for", cause))?;
    text.push('\n');
    if private_files::create(path, text.as_bytes()).map_err(|cause| failed("write", cause))? {
        tracing::info!(path = %path.display(), "made the key that environment values are sealed with: back it up with the data");
        return Ok(text);
    }
    read(path)
}
