//! Artifacts that were read, on this node's disk: `<dir>/ab/cdef…`, bounded in bytes, the longest unused go first.
//!
//! A file that does not match its name is no file: it is removed and the artifact read anew. A file's time of modification says
//! when it was last used, so that a restart knows too.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::adapters::{locked, private_files};
use crate::domain::ids::Digest;
use crate::ports::clock::Clock;
use crate::ports::disk::Spare;

/// Files written at once; what comes beyond is not kept this time.
const WRITES_AT_ONCE: usize = 4;

pub(super) struct Cache {
    files: Arc<Files>,
    writes: Arc<Semaphore>,
}

struct Files {
    root: PathBuf,
    bytes_max: u64,
    clock: Arc<dyn Clock>,
    index: Mutex<Index>,
    /// Names files that are being written.
    counter: AtomicU64,
}

#[derive(Default)]
struct Index {
    files: HashMap<Digest, Kept>,
    bytes: u64,
    /// Counts uses: a clock for "longest unused".
    uses: u64,
}

struct Kept {
    bytes: u64,
    used: u64,
}

impl Cache {
    pub fn open(root: &Path, bytes_max: u64, clock: Arc<dyn Clock>) -> io::Result<Self> {
        private_files::private_dir(root)?;
        let unfinished = root.join("tmp");
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => private_files::private_dir(&unfinished)?,
        }
        let mut found = Vec::new();
        for shard in fs::read_dir(root)? {
            let shard = shard?;
            for file in fs::read_dir(shard.path())? {
                let file = file?;
                let name = format!("{}{}", shard.file_name().display(), file.file_name().display());
                let Ok(digest) = name.parse::<Digest>() else { continue };
                let metadata = file.metadata()?;
                found.push((metadata.modified()?, digest, metadata.len()));
            }
        }
        found.sort();
        let mut index = Index::default();
        for (_, digest, bytes) in found {
            index.add(digest, bytes);
        }
        let (root, index, counter) = (root.to_owned(), Mutex::new(index), AtomicU64::new(0));
        let files = Files { root, bytes_max, clock, index, counter };
        files.collect();
        Ok(Self { files: Arc::new(files), writes: Arc::new(Semaphore::new(WRITES_AT_ONCE)) })
    }

    /// The bytes, if they are here and are what their name says.
    pub async fn get(&self, digest: Digest) -> Option<Bytes> {
        if !locked(&self.files.index).touch(digest) {
            return None;
        }
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || files.read(digest)).await.ok().flatten()
    }

    /// Keeps the bytes, behind the caller.
    pub fn put(&self, digest: Digest, bytes: Bytes) {
        if bytes.len() as u64 > self.files.bytes_max {
            return;
        }
        let Ok(place) = self.writes.clone().try_acquire_owned() else { return };
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = files.write(digest, &bytes) {
                tracing::warn!(%digest, %error, "an artifact that was read can't be kept on disk");
            }
            drop(place);
        });
    }
}

#[async_trait]
impl Spare for Cache {
    fn name(&self) -> &'static str {
        "artifacts"
    }

    async fn give_back(&self, wanted: u64) -> u64 {
        let files = self.files.clone();
        let given = tokio::task::spawn_blocking(move || {
            let bytes = || locked(&files.index).bytes;
            let before = bytes();
            files.shrink(before.saturating_sub(wanted));
            before.saturating_sub(bytes())
        });
        given.await.unwrap_or_default()
    }
}

impl Index {
    fn add(&mut self, digest: Digest, bytes: u64) {
        self.uses += 1;
        let kept = Kept { bytes, used: self.uses };
        self.bytes += bytes;
        if let Some(before) = self.files.insert(digest, kept) {
            self.bytes -= before.bytes;
        }
    }

    fn touch(&mut self, digest: Digest) -> bool {
        self.uses += 1;
        let used = self.uses;
        self.files.get_mut(&digest).map(|kept| kept.used = used).is_some()
    }

    fn remove(&mut self, digest: Digest) {
        if let Some(kept) = self.files.remove(&digest) {
            self.bytes -= kept.bytes;
        }
    }
}

impl Files {
    fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        let (shard, rest) = name.split_at(2);
        self.root.join(shard).join(rest)
    }

    fn read(&self, digest: Digest) -> Option<Bytes> {
        let path = self.path(digest);
        if let Ok(bytes) = fs::read(&path)
            && Sha256::digest(&bytes)[..] == digest.0
        {
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(self.clock.now().as_millis());
            let used = File::open(&path).and_then(|file| file.set_modified(now));
            if let Err(error) = used {
                tracing::debug!(%digest, %error, "the use of a kept artifact is not noted");
            }
            return Some(Bytes::from(bytes));
        }
        tracing::warn!(%digest, "a kept artifact is damaged and is read anew");
        locked(&self.index).remove(digest);
        // It may be gone already.
        let _ = fs::remove_file(&path);
        None
    }

    fn write(&self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.root.join("tmp").join(number.to_string());
        let written = self.write_by(&unfinished, digest, bytes);
        if written.is_err() {
            // Whether it is there depends on what failed.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// No flush: what a crash leaves half written does not match its name.
    fn write_by(&self, unfinished: &Path, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        File::create_new(unfinished)?.write_all(bytes)?;
        let path = self.path(digest);
        if let Some(shard) = path.parent() {
            fs::create_dir_all(shard)?;
        }
        fs::rename(unfinished, &path)?;
        locked(&self.index).add(digest, bytes.len() as u64);
        self.collect();
        Ok(())
    }

    fn collect(&self) {
        self.shrink(self.bytes_max);
    }

    /// Removes the longest unused while there is more.
    fn shrink(&self, bytes_max: u64) {
        loop {
            let gone = {
                let mut index = locked(&self.index);
                if index.bytes <= bytes_max {
                    return;
                }
                let oldest = index.files.iter().min_by_key(|(_, kept)| kept.used).map(|(digest, _)| *digest);
                let Some(oldest) = oldest else { return };
                index.remove(oldest);
                oldest
            };
            if let Err(error) = fs::remove_file(self.path(gone)) {
                tracing::warn!(digest = %gone, %error, "a kept artifact can't be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::system_clock::SystemClock;

    fn open(dir: &Path, bytes_max: u64) -> Cache {
        Cache::open(dir, bytes_max, Arc::new(SystemClock::new())).unwrap()
    }

    fn named(bytes: &'static [u8]) -> (Digest, Bytes) {
        (Digest(Sha256::digest(bytes).into()), Bytes::from_static(bytes))
    }

    fn write(cache: &Cache, bytes: &'static [u8]) -> Digest {
        let (digest, bytes) = named(bytes);
        cache.files.write(digest, &bytes).unwrap();
        digest
    }

    #[tokio::test]
    async fn the_longest_unused_go_first_and_a_restart_remembers() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 10);
        let (a, b) = (write(&cache, b"aaaa"), write(&cache, b"bbbb"));
        assert_eq!(cache.get(a).await.unwrap(), "aaaa");
        let c = write(&cache, b"cccc");
        assert!(cache.get(b).await.is_none(), "a was used since");
        assert!(cache.get(a).await.is_some() && cache.get(c).await.is_some());
        drop(cache);
        let cache = open(dir.path(), 4);
        assert!(cache.get(c).await.is_some() && cache.get(a).await.is_none());
        assert_eq!(cache.give_back(1).await, 4);
        assert!(cache.get(c).await.is_none());
    }

    #[tokio::test]
    async fn a_damaged_file_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 1 << 20);
        let digest = write(&cache, b"precious");
        fs::write(cache.files.path(digest), b"worthless").unwrap();
        assert!(cache.get(digest).await.is_none());
        assert!(!cache.files.path(digest).exists());
        assert_eq!(locked(&cache.files.index).bytes, 0);
    }

    #[tokio::test]
    async fn what_is_larger_than_all_of_it_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), 4);
        let (digest, bytes) = named(b"too large");
        cache.put(digest, bytes);
        assert!(cache.get(digest).await.is_none());
    }
}
