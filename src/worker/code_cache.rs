//! Code on this host: each package unpacked once, into a directory that sandboxes mount read-only.
//!
//! A directory appears whole (unpacked beside, then renamed) under the digest of its package, which was checked when it was read. What
//! an earlier run left is not taken over: nothing vouches for it any more, neither against a hand on the disk nor against a loss of
//! power that kept names and lost contents. Directories that no sandbox holds go when there are too many or they take too much
//! space, longest unused first.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::domain::ids::Digest;
use crate::ports::StoreError;
use crate::ports::artifacts::{ArtifactError, ArtifactStore};

/// Unpacked packages kept at once, as long as sandboxes don't hold more.
const DIRS_MAX: usize = 512;

/// What is done with packages; the runtime room knows how.
pub trait Packages: Send + Sync + 'static {
    /// Unpacks within the configured limits, and gives the bytes that it takes on disk; the error is a sentence.
    fn unpack(&self, package: &[u8], into: &Path) -> Result<u64, String>;

    /// The package with one more file.
    fn add_file(&self, package: &[u8], name: &str, contents: &[u8], executable: bool) -> Result<Bytes, String>;
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum CodeError {
    #[error("read the function's package: {0}")]
    Artifact(#[from] ArtifactError),
    #[error("unpack the function's package: {0}")]
    Unpack(String),
    #[error("keep the function's code on disk: {0}")]
    Disk(String),
}

/// A directory of code; kept as long as somebody holds it.
#[derive(Debug)]
pub(super) struct CodeDir {
    unpacked: OnceCell<Unpacked>,
    used: AtomicU64,
}

/// A package's files, and the bytes they take.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub path: PathBuf,
    bytes: u64,
}

impl CodeDir {
    fn new() -> Arc<Self> {
        Arc::new(Self { unpacked: OnceCell::new(), used: AtomicU64::new(0) })
    }

    /// Set before anybody is given the value.
    pub fn path(&self) -> PathBuf {
        self.unpacked.get().map(|unpacked| unpacked.path.clone()).unwrap_or_default()
    }
}

pub(super) struct CodeCache {
    root: PathBuf,
    scratch: PathBuf,
    artifacts: Arc<dyn ArtifactStore>,
    packages: Arc<dyn Packages>,
    bytes_max: u64,
    dirs: Mutex<HashMap<Digest, Arc<CodeDir>>>,
    /// Counts uses: a clock for "longest unused".
    uses: AtomicU64,
}

impl CodeCache {
    /// Clears away what an earlier run left.
    pub fn open(
        data_dir: &Path,
        bytes_max: u64,
        artifacts: Arc<dyn ArtifactStore>,
        packages: Arc<dyn Packages>,
    ) -> Result<Self, io::Error> {
        let (root, scratch) = (data_dir.join("code"), data_dir.join("code.tmp"));
        for left in [&root, &scratch] {
            match std::fs::remove_dir_all(left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => std::fs::create_dir_all(left)?,
            }
        }
        let (dirs, uses) = (Mutex::default(), AtomicU64::new(1));
        Ok(Self { root, scratch, artifacts, packages, bytes_max, dirs, uses })
    }

    /// The directory with this package's files. Whoever asks while it is being made waits for the one that makes it.
    pub async fn get(&self, digest: Digest) -> Result<Arc<CodeDir>, CodeError> {
        let dir = self.lock().entry(digest).or_insert_with(CodeDir::new).clone();
        dir.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let made = dir.unpacked.get_or_try_init(|| self.make(digest)).await.map(|_| ());
        if let Err(error) = made {
            let mut dirs = self.lock();
            if dirs.get(&digest).is_some_and(|kept| !kept.unpacked.initialized() && Arc::strong_count(kept) == 2) {
                dirs.remove(&digest);
            }
            return Err(error);
        }
        self.collect();
        Ok(dir)
    }

    async fn make(&self, digest: Digest) -> Result<Unpacked, CodeError> {
        let package = self.artifacts.get(digest).await.inspect_err(|error| {
            if let ArtifactError::Store(StoreError::Corrupt(what)) = error {
                tracing::error!(%digest, what, "package refused: deploy the function again");
            }
        })?;
        let unpacked = self.unpack(package).await?;
        let path = self.root.join(digest.to_string());
        match std::fs::rename(&unpacked.path, &path) {
            Ok(()) => Ok(Unpacked { path, ..unpacked }),
            Err(error) => {
                remove(&unpacked.path);
                Err(CodeError::Disk(error.to_string()))
            }
        }
    }

    /// Unpacks into a new directory of its own, which is the caller's to move or remove.
    pub async fn unpack(&self, package: Bytes) -> Result<Unpacked, CodeError> {
        let packages = self.packages.clone();
        let into = self.scratch.join(self.uses.fetch_add(1, Ordering::Relaxed).to_string());
        let work = move || {
            std::fs::create_dir(&into)
                // Sandboxes read it under ids of their own, whatever the umask is.
                .and_then(|()| std::fs::set_permissions(&into, Permissions::from_mode(0o755)))
                .map_err(|error| CodeError::Disk(error.to_string()))?;
            match packages.unpack(&package, &into) {
                Ok(bytes) => Ok(Unpacked { path: into, bytes }),
                Err(sentence) => {
                    remove(&into);
                    Err(CodeError::Unpack(sentence))
                }
            }
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| CodeError::Disk(error.to_string()))?
    }

    /// Lets go of the longest unused while there are too many, or they take too much.
    fn collect(&self) {
        self.shrink(self.bytes_max);
    }

    /// Lets go of the longest unused until that is so many bytes, or none is unused. How many it was.
    pub fn give_back(&self, wanted: u64) -> u64 {
        let bytes = Self::bytes(&self.lock());
        self.shrink(bytes.saturating_sub(wanted))
    }

    fn bytes(dirs: &HashMap<Digest, Arc<CodeDir>>) -> u64 {
        dirs.values().filter_map(|dir| dir.unpacked.get()).map(|unpacked| unpacked.bytes).sum()
    }

    fn shrink(&self, bytes_max: u64) -> u64 {
        let mut dirs = self.lock();
        let before = Self::bytes(&dirs);
        let mut bytes = before;
        while dirs.len() > DIRS_MAX || bytes > bytes_max {
            let unused = dirs.iter().filter(|(_, dir)| Arc::strong_count(dir) == 1);
            let oldest = unused.min_by_key(|(_, dir)| dir.used.load(Ordering::Relaxed)).map(|(digest, _)| *digest);
            let Some(digest) = oldest else { break };
            let gone = dirs.remove(&digest);
            let Some(Unpacked { path, bytes: freed }) = gone.as_ref().and_then(|dir| dir.unpacked.get()) else {
                continue;
            };
            bytes -= freed;
            // Renamed under the lock, so that its name is free for whoever asks next.
            let away = self.scratch.join(format!("gone-{}", self.uses.fetch_add(1, Ordering::Relaxed)));
            if std::fs::rename(path, &away).is_ok() {
                tokio::task::spawn_blocking(move || remove(&away));
            }
        }
        before - bytes
    }

    pub fn packages(&self) -> &Arc<dyn Packages> {
        &self.packages
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<CodeDir>>> {
        // Every change is one step, so a panic leaves nothing half done.
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %dir.display(), "code directory not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakePackages, World};
    use super::*;
    use std::sync::atomic::AtomicUsize;

    const ROOMY: u64 = 1 << 30;

    fn cache(dir: &Path) -> (CodeCache, Arc<World>, Arc<FakePackages>) {
        let (world, packages) = (World::new(), Arc::new(FakePackages(AtomicUsize::new(0))));
        let cache = CodeCache::open(dir, ROOMY, world.clone(), packages.clone()).unwrap();
        (cache, world, packages)
    }

    fn put(world: &World, n: u16, bytes: &'static [u8]) -> Digest {
        let mut digest = Digest([7; 32]);
        digest.0[..2].copy_from_slice(&n.to_le_bytes());
        world.artifacts.lock().unwrap().insert(digest, Bytes::from_static(bytes));
        digest
    }

    #[tokio::test]
    async fn a_package_is_unpacked_once_and_anew_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, world, packages) = cache(dir.path());
        let digest = put(&world, 1, b"zip");
        let (a, b) = tokio::join!(cache.get(digest), cache.get(digest));
        assert_eq!(a.unwrap().path(), b.unwrap().path());
        assert_eq!(packages.0.load(Ordering::SeqCst), 1);
        let path = cache.get(digest).await.unwrap().path();
        std::fs::write(path.join("main.py"), b"somebody else's").unwrap();
        let (again, world, packages) = self::cache(dir.path());
        put(&world, 1, b"zip");
        let path = again.get(digest).await.unwrap().path();
        assert_eq!(std::fs::read(path.join("main.py")).unwrap(), b"zip");
        assert_eq!(packages.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn the_longest_unused_go_when_they_take_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let (world, packages) = (World::new(), Arc::new(FakePackages(AtomicUsize::new(0))));
        let cache = CodeCache::open(dir.path(), 10, world.clone(), packages).unwrap();
        let held = cache.get(put(&world, 1, b"1234")).await.unwrap();
        cache.get(put(&world, 2, b"5678")).await.unwrap();
        cache.get(put(&world, 3, b"90")).await.unwrap();
        assert_eq!(cache.lock().len(), 3, "ten bytes are not too many");
        cache.get(put(&world, 4, b"abcd")).await.unwrap();
        assert!(!cache.lock().contains_key(&put(&world, 2, b"5678")) && cache.lock().len() == 3);
        let huge = cache.get(put(&world, 5, b"larger than all there may be")).await.unwrap();
        assert!(huge.path().is_dir() && held.path().is_dir(), "what is in use stays");
        assert_eq!(cache.lock().len(), 2);
    }

    #[tokio::test]
    async fn what_a_full_disk_wants_back_is_what_was_unused_longest() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, world, _) = cache(dir.path());
        let held = cache.get(put(&world, 1, b"1234")).await.unwrap();
        for (n, bytes) in [(2, b"5678".as_slice()), (3, b"90"), (4, b"abcd")] {
            cache.get(put(&world, n, bytes)).await.unwrap();
        }
        assert_eq!(cache.give_back(5), 6, "the two that were unused longest");
        assert!(cache.lock().contains_key(&put(&world, 4, b"abcd")));
        assert_eq!(cache.give_back(1 << 30), 4, "all that is unused");
        assert!(held.path().is_dir() && cache.lock().len() == 1);
    }

    #[tokio::test]
    async fn a_bad_package_leaves_nothing_and_may_be_mended() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, world, _) = cache(dir.path());
        let digest = put(&world, 1, b"bad");
        assert!(matches!(cache.get(digest).await, Err(CodeError::Unpack(_))));
        assert_eq!(std::fs::read_dir(dir.path().join("code.tmp")).unwrap().count(), 0);
        put(&world, 1, b"zip");
        assert!(cache.get(digest).await.is_ok());
    }

    #[tokio::test]
    async fn the_longest_unused_go_and_those_in_use_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, world, _) = cache(dir.path());
        let held = cache.get(put(&world, 0, b"zip")).await.unwrap();
        for n in 1..=DIRS_MAX as u16 + 2 {
            cache.get(put(&world, n, b"zip")).await.unwrap();
        }
        assert!(cache.lock().len() <= DIRS_MAX + 1, "{}", cache.lock().len());
        assert!(held.path().is_dir());
        assert!(!cache.lock().contains_key(&put(&world, 1, b"zip")), "the first unused one is gone");
    }
}
