//! Artifacts as files, each named by the SHA-256 of its bytes: `artifacts/ab/cdef…`.
//!
//! A file is written beside the others, flushed and then renamed into its place, so that a name never stands for half of it. Its
//! time of modification says when it was last stored or touched.

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

use crate::adapters::private_files;
use crate::domain::ids::Digest;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::artifacts::{ArtifactError, ArtifactStore};
use crate::ports::clock::Clock;

use super::OpenError;
use super::errors::{io_error, stopped};
use super::locked;

/// Files written or read at once: more only fight for the disk, and each may hold its whole contents in memory.
const FILES_AT_ONCE: usize = 8;

pub(super) struct Artifacts {
    files: Arc<Files>,
    slots: Semaphore,
}

struct Files {
    root: PathBuf,
    clock: Arc<dyn Clock>,
    /// Names files that are being written.
    counter: AtomicU64,
    /// Held while a file is found there and kept, and while one is found old and removed.
    keeping: Mutex<()>,
}

impl Artifacts {
    pub fn open(root: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let private = |dir: &Path| {
            private_files::private_dir(dir).map_err(|cause| OpenError::io("prepare the directory", dir, cause))
        };
        private(root)?;
        let unfinished = root.join("tmp");
        // What a crash left half written has no name yet.
        match fs::remove_dir_all(&unfinished) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::io("clear", &unfinished, cause));
            }
            _ => private(&unfinished)?,
        }
        let files = Files { root: root.to_owned(), clock, counter: AtomicU64::new(0), keeping: Mutex::new(()) };
        Ok(Self { files: Arc::new(files), slots: Semaphore::new(FILES_AT_ONCE) })
    }

    /// Removes what was neither stored nor touched since `before` and is not referred to. Blocks.
    pub fn collect(
        &self,
        before: Timestamp,
        is_referenced: impl Fn(Digest) -> Result<bool, StoreError>,
    ) -> Result<u64, StoreError> {
        self.files.collect(before, is_referenced)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let _slot = self.slots.acquire().await.map_err(|_| stopped())?;
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || work(&files)).await.map_err(|_| stopped())
    }
}

#[async_trait]
impl ArtifactStore for Artifacts {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        self.blocking(move |files| {
            let digest = Digest(Sha256::digest(&bytes).into());
            files.put(digest, &bytes).map_err(|error| io_error("store an artifact", &error))?;
            Ok(digest)
        })
        .await?
    }

    async fn get(&self, digest: Digest) -> Result<Bytes, ArtifactError> {
        self.blocking(move |files| files.get(digest)).await?
    }

    async fn touch(&self, digest: Digest) -> Result<bool, StoreError> {
        self.blocking(move |files| files.keep(digest, None).map_err(|error| io_error("touch an artifact", &error)))
            .await?
    }
}

impl Files {
    fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        let (shard, rest) = name.split_at(2);
        self.root.join(shard).join(rest)
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.clock.now().as_millis())
    }

    /// Marks a file as in use now; `false` if there is none, or none of that size.
    fn keep(&self, digest: Digest, size: Option<u64>) -> io::Result<bool> {
        let _keeping = locked(&self.keeping);
        let file = match File::open(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        if size.is_some_and(|size| file.metadata().is_ok_and(|found| found.len() != size)) {
            return Ok(false);
        }
        file.set_modified(self.now())?;
        Ok(true)
    }

    fn put(&self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        // One that was damaged is replaced: storing the same bytes again mends it.
        if self.keep(digest, Some(bytes.len() as u64))? && self.get(digest).is_ok() {
            return Ok(());
        }
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.root.join("tmp").join(number.to_string());
        let written = self.write(&unfinished, digest, bytes);
        if written.is_err() {
            // Whether it is there to be removed depends on what failed.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn write(&self, unfinished: &Path, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create_new(unfinished)?;
        file.write_all(bytes)?;
        file.set_modified(self.now())?;
        file.sync_all()?;
        let path = self.path(digest);
        let shard = path.parent().unwrap_or(&self.root);
        match fs::create_dir(shard) {
            Ok(()) => File::open(&self.root)?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        fs::rename(unfinished, &path)?;
        File::open(shard)?.sync_all()
    }

    fn get(&self, digest: Digest) -> Result<Bytes, ArtifactError> {
        let bytes = fs::read(self.path(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ArtifactError::NotFound,
            _ => io_error("read an artifact", &error).into(),
        })?;
        if Sha256::digest(&bytes)[..] != digest.0 {
            return Err(StoreError::Corrupt(format!("artifact {digest} does not match its digest")).into());
        }
        Ok(Bytes::from(bytes))
    }

    fn collect(
        &self,
        before: Timestamp,
        is_referenced: impl Fn(Digest) -> Result<bool, StoreError>,
    ) -> Result<u64, StoreError> {
        let failed = |error: io::Error| io_error("collect artifacts", &error);
        let before = SystemTime::UNIX_EPOCH + Duration::from_millis(before.as_millis());
        let mut collected = 0;
        for shard in fs::read_dir(&self.root).map_err(failed)? {
            let shard = shard.map_err(failed)?;
            // `tmp` is not the beginning of a digest.
            for file in fs::read_dir(shard.path()).map_err(failed)? {
                let file = file.map_err(failed)?;
                let name = format!("{}{}", shard.file_name().display(), file.file_name().display());
                let Ok(digest) = name.parse() else { continue };
                if is_older(&file.path(), before).map_err(failed)? && !is_referenced(digest)? {
                    collected += u64::from(self.remove_if_older(&file.path(), before).map_err(failed)?);
                }
            }
        }
        Ok(collected)
    }

    /// Asks again, now that nobody can find it and keep it.
    fn remove_if_older(&self, path: &Path, before: SystemTime) -> io::Result<bool> {
        let _keeping = locked(&self.keeping);
        let is_older = is_older(path, before)?;
        if is_older {
            fs::remove_file(path)?;
        }
        Ok(is_older)
    }
}

fn is_older(path: &Path, before: SystemTime) -> io::Result<bool> {
    Ok(fs::metadata(path)?.modified()? < before)
}
