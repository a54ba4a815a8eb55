//! Code on this host: each package unpacked once, into a directory that sandboxes mount read-only.
//!
//! A directory appears whole (unpacked beside, then renamed) under the digest of its package, so one that is there after a
//! restart is good. Those that no sandbox holds go when there are too many, longest unused first.

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
use crate::ports::artifacts::{ArtifactError, ArtifactStore};

/// Unpacked packages kept at once, as long as sandboxes don't hold more.
const DIRS_MAX: usize = 512;

/// What is done with packages; the runtime room knows how.
pub trait Packages: Send + Sync + 'static {
    /// Unpacks within the configured limits; the error is a sentence.
    fn unpack(&self, package: &[u8], into: &Path) -> Result<(), String>;

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
    path: OnceCell<PathBuf>,
    used: AtomicU64,
}

impl CodeDir {
    fn new(path: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self { path: OnceCell::new_with(path), used: AtomicU64::new(0) })
    }

    /// Set before anybody is given the value.
    pub fn path(&self) -> PathBuf {
        self.path.get().cloned().unwrap_or_default()
    }
}

pub(super) struct CodeCache {
    root: PathBuf,
    scratch: PathBuf,
    artifacts: Arc<dyn ArtifactStore>,
    packages: Arc<dyn Packages>,
    dirs: Mutex<HashMap<Digest, Arc<CodeDir>>>,
    /// Counts uses: a clock for "longest unused".
    uses: AtomicU64,
}

impl CodeCache {
    /// Takes over what an earlier run left whole and clears away what it left half done.
    pub fn open(
        data_dir: &Path,
        artifacts: Arc<dyn ArtifactStore>,
        packages: Arc<dyn Packages>,
    ) -> Result<Self, io::Error> {
        let (root, scratch) = (data_dir.join("code"), data_dir.join("code.tmp"));
        if scratch.exists() {
            std::fs::remove_dir_all(&scratch)?;
        }
        std::fs::create_dir_all(&root)?;
        std::fs::create_dir_all(&scratch)?;
        let mut dirs = HashMap::new();
        for entry in std::fs::read_dir(&root)? {
            let entry = entry?;
            if let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                dirs.insert(digest, CodeDir::new(Some(entry.path())));
            }
        }
        Ok(Self { root, scratch, artifacts, packages, dirs: Mutex::new(dirs), uses: AtomicU64::new(1) })
    }

    /// The directory with this package's files. Whoever asks while it is being made waits for the one that makes it.
    pub async fn get(&self, digest: Digest) -> Result<Arc<CodeDir>, CodeError> {
        let dir = self.lock().entry(digest).or_insert_with(|| CodeDir::new(None)).clone();
        dir.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let made = dir.path.get_or_try_init(|| self.make(digest)).await.map(|_| ());
        if let Err(error) = made {
            let mut dirs = self.lock();
            if dirs.get(&digest).is_some_and(|kept| !kept.path.initialized() && Arc::strong_count(kept) == 2) {
                dirs.remove(&digest);
            }
            return Err(error);
        }
        self.collect();
        Ok(dir)
    }

    async fn make(&self, digest: Digest) -> Result<PathBuf, CodeError> {
        let package = self.artifacts.get(digest).await?;
        let dir = self.unpack(package).await?;
        let path = self.root.join(digest.to_string());
        match std::fs::rename(&dir, &path) {
            Ok(()) => Ok(path),
            Err(error) => {
                remove(&dir);
                Err(CodeError::Disk(error.to_string()))
            }
        }
    }

    /// Unpacks into a new directory of its own, which is the caller's to move or remove.
    pub async fn unpack(&self, package: Bytes) -> Result<PathBuf, CodeError> {
        let packages = self.packages.clone();
        let into = self.scratch.join(self.uses.fetch_add(1, Ordering::Relaxed).to_string());
        let work = move || {
            std::fs::create_dir(&into)
                // Sandboxes read it under ids of their own, whatever the umask is.
                .and_then(|()| std::fs::set_permissions(&into, Permissions::from_mode(0o755)))
                .map_err(|error| CodeError::Disk(error.to_string()))?;
            match packages.unpack(&package, &into) {
                Ok(()) => Ok(into),
                Err(sentence) => {
                    remove(&into);
                    Err(CodeError::Unpack(sentence))
                }
            }
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| CodeError::Disk(error.to_string()))?
    }

    /// Lets go of the longest unused while there are too many.
    fn collect(&self) {
        let mut dirs = self.lock();
        while dirs.len() > DIRS_MAX {
            let unused = dirs.iter().filter(|(_, dir)| Arc::strong_count(dir) == 1);
            let oldest = unused.min_by_key(|(_, dir)| dir.used.load(Ordering::Relaxed)).map(|(digest, _)| *digest);
            let Some(digest) = oldest else { return };
            let Some(path) = dirs.remove(&digest).and_then(|dir| dir.path.get().cloned()) else { continue };
            // Renamed under the lock, so that its name is free for whoever asks next.
            let away = self.scratch.join(format!("gone-{}", self.uses.fetch_add(1, Ordering::Relaxed)));
            if std::fs::rename(&path, &away).is_ok() {
                tokio::task::spawn_blocking(move || remove(&away));
            }
        }
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

    fn cache(dir: &Path) -> (CodeCache, Arc<World>, Arc<FakePackages>) {
        let (world, packages) = (World::new(), Arc::new(FakePackages(AtomicUsize::new(0))));
        let cache = CodeCache::open(dir, world.clone(), packages.clone()).unwrap();
        (cache, world, packages)
    }

    fn put(world: &World, n: u16, bytes: &'static [u8]) -> Digest {
        let mut digest = Digest([7; 32]);
        digest.0[..2].copy_from_slice(&n.to_le_bytes());
        world.artifacts.lock().unwrap().insert(digest, Bytes::from_static(bytes));
        digest
    }

    #[tokio::test]
    async fn a_package_is_unpacked_once_and_found_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, world, packages) = cache(dir.path());
        let digest = put(&world, 1, b"zip");
        let (a, b) = tokio::join!(cache.get(digest), cache.get(digest));
        assert_eq!(a.unwrap().path(), b.unwrap().path());
        assert_eq!(packages.0.load(Ordering::SeqCst), 1);
        let (again, _, packages) = self::cache(dir.path());
        let path = again.get(digest).await.unwrap().path();
        assert_eq!(std::fs::read(path.join("main.py")).unwrap(), b"zip");
        assert_eq!(packages.0.load(Ordering::SeqCst), 0);
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
