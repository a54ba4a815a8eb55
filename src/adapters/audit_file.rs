//! The audit log as files: one JSON object a line in `<data_dir>/audit.log`, mode 0600, appended to and never changed.
//!
//! A file that is full becomes `audit.log.1`, the one before it `.2`, and so on; beyond `audit.files_max` the oldest goes.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::config::Audit as Config;
use crate::domain::audit::{Entry, Recorded};
use crate::domain::page::Page;
use crate::ports::StoreError;
use crate::ports::audit::{AuditLog, Durability};

/// Entries kept while they can't be written. Changes are refused meanwhile, so only those under way at the first failure come here.
const UNWRITTEN_MAX: usize = 1024;
/// A line longer than this loses its details.
const LINE_BYTES_MAX: usize = 64 * 1024;
const NAME: &str = "audit.log";

pub struct AuditFile {
    log: Arc<Mutex<Log>>,
}

struct Log {
    dir: PathBuf,
    config: Config,
    file: File,
    /// Of whole lines in `file`.
    bytes: u64,
    next_seq: u64,
    /// Lines that could not be written.
    unwritten: VecDeque<Vec<u8>>,
}

impl AuditFile {
    /// Opens the log in `dir`, or begins it.
    ///
    /// # Errors
    /// If it can't be read or written: nothing may be changed without it.
    pub fn open(dir: &Path, config: Config) -> io::Result<Self> {
        let mut file = open_file(&dir.join(NAME))?;
        let bytes = mend_end(&mut file)?;
        let next_seq = last_seq(dir, config.files_max)? + 1;
        let log = Log { dir: dir.to_owned(), config, file, bytes, next_seq, unwritten: VecDeque::new() };
        Ok(Self { log: Arc::new(Mutex::new(log)) })
    }

    /// Files are slow: `work` runs where waiting holds up nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mutex<Log>) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let log = self.log.clone();
        let done = tokio::task::spawn_blocking(move || work(&log)).await;
        let unavailable = |error: &dyn std::fmt::Display| StoreError::Unavailable(format!("the audit log: {error}"));
        done.map_err(|error| unavailable(&error))?.map_err(|error| unavailable(&error))
    }
}

#[async_trait]
impl AuditLog for AuditFile {
    async fn ready(&self) -> Result<(), StoreError> {
        let is_clear = |log: &Log| log.unwritten.is_empty() && log.bytes < log.config.file_bytes_max;
        if self.log.try_lock().is_ok_and(|log| is_clear(&log)) {
            return Ok(());
        }
        self.blocking(|log| lock(log).catch_up()).await
    }

    async fn append(&self, entry: Entry, durability: Durability) -> Result<(), StoreError> {
        self.blocking(move |log| lock(log).append(entry, durability)).await
    }

    async fn list(&self, limit: usize, cursor: Option<&str>) -> Result<Page<Recorded>, StoreError> {
        let below = match cursor {
            None => u64::MAX,
            Some(text) => text.parse().map_err(|_| StoreError::InvalidCursor)?,
        };
        self.blocking(move |log| {
            // Opened together, so that a file that moves meanwhile is read once all the same.
            let files = {
                let log = lock(log);
                files(&log.dir, log.config.files_max)?
            };
            read(files, limit, below)
        })
        .await
    }
}

fn lock(log: &Mutex<Log>) -> std::sync::MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    fn append(&mut self, entry: Entry, durability: Durability) -> io::Result<()> {
        let line = line(Recorded { seq: self.next_seq, entry })?;
        self.next_seq += 1;
        if self.unwritten.len() >= UNWRITTEN_MAX {
            return Err(io::Error::other("too many entries wait to be written"));
        }
        self.unwritten.push_back(line);
        self.catch_up()?;
        if durability == Durability::BeforeReturn && self.config.fsync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Writes what waits, in order, each line whole or not at all.
    fn catch_up(&mut self) -> io::Result<()> {
        if self.bytes >= self.config.file_bytes_max {
            self.rotate()?;
        }
        while let Some(line) = self.unwritten.front() {
            if let Err(error) = self.file.write_all(line) {
                // Half a line must not stay, or the next one would go on from it.
                let _ = self.file.set_len(self.bytes);
                return Err(error);
            }
            self.bytes += line.len() as u64;
            self.unwritten.pop_front();
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        for nth in (1..self.config.files_max.saturating_sub(1)).rev() {
            rename_if_there(&numbered(&self.dir, nth), &numbered(&self.dir, nth + 1))?;
        }
        rename_if_there(&self.dir.join(NAME), &numbered(&self.dir, 1))?;
        self.file = open_file(&self.dir.join(NAME))?;
        self.bytes = 0;
        File::open(&self.dir)?.sync_all()
    }
}

fn line(recorded: Recorded) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&recorded)?;
    if line.len() > LINE_BYTES_MAX {
        let mut short = recorded;
        short.entry.detail.clear();
        line = serde_json::to_vec(&short)?;
    }
    line.push(b'\n');
    Ok(line)
}

fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

fn numbered(dir: &Path, nth: usize) -> PathBuf {
    dir.join(format!("{NAME}.{nth}"))
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A crash may have left half a line: it is ended, so that the next one stands by itself. The length.
fn mend_end(file: &mut File) -> io::Result<u64> {
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        return Ok(0);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok(bytes);
    }
    file.write_all(b"\n")?;
    Ok(bytes + 1)
}

/// The files there are, newest first.
fn files(dir: &Path, files_max: usize) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for path in std::iter::once(dir.join(NAME)).chain((1..files_max).map(|nth| numbered(dir, nth))) {
        match File::open(&path) {
            Ok(file) => files.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// The number of the newest line; 0 where there is none.
fn last_seq(dir: &Path, files_max: usize) -> io::Result<u64> {
    for file in files(dir, files_max)? {
        if let Some(last) = lines(file)?.iter().rev().find_map(|line| parse(line)) {
            return Ok(last.seq);
        }
    }
    Ok(0)
}

/// Up to `limit` entries numbered below `below`, newest first. At most one file is in memory at a time.
fn read(files: Vec<File>, limit: usize, below: u64) -> io::Result<Page<Recorded>> {
    let mut page = Page { items: Vec::new(), next_cursor: None };
    for mut file in files {
        if first_seq(&mut file)?.is_some_and(|first| first >= below) {
            continue;
        }
        for recorded in lines(file)?.iter().rev().filter_map(|line| parse(line)) {
            if recorded.seq >= below {
                continue;
            }
            if page.items.len() == limit {
                page.next_cursor = page.items.last().map(|last: &Recorded| last.seq.to_string());
                return Ok(page);
            }
            page.items.push(recorded);
        }
    }
    Ok(page)
}

fn first_seq(file: &mut File) -> io::Result<Option<u64>> {
    let mut first = Vec::new();
    BufReader::new(&mut *file).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut first)?;
    file.rewind()?;
    Ok(parse(&first).map(|recorded| recorded.seq))
}

fn lines(mut file: File) -> io::Result<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

/// `None` for what is not an entry: half a line that a crash left, or a later version's.
fn parse(line: &[u8]) -> Option<Recorded> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::{Action, Object, Outcome};
    use crate::domain::time::Timestamp;

    fn entry(name: &str) -> Entry {
        let object = Object { name: Some(name.to_owned()), ..Object::default() };
        Entry::new(Timestamp(1), Action::FunctionCreate, Outcome::Done).to(object)
    }

    fn small() -> Config {
        Config { file_bytes_max: 400, files_max: 3, ..Config::default() }
    }

    async fn write(log: &AuditFile, names: std::ops::Range<u32>) {
        for n in names {
            log.append(entry(&n.to_string()), Durability::BeforeReturn).await.unwrap();
        }
    }

    async fn names(log: &AuditFile, page: usize) -> Vec<String> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = log.list(page, cursor.as_deref()).await.unwrap();
            all.extend(page.items.into_iter().map(|recorded| recorded.entry.object_name.unwrap()));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return all;
            }
        }
    }

    #[tokio::test]
    async fn entries_are_read_newest_first_over_files_pages_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditFile::open(dir.path(), small()).unwrap();
        write(&log, 0..6).await;
        drop(log);
        let log = AuditFile::open(dir.path(), small()).unwrap();
        write(&log, 6..9).await;
        let all = names(&log, 100).await;
        assert!(all.len() >= 5 && all[0] == "8", "{all:?}");
        assert!(all.windows(2).all(|pair| pair[0].parse::<u32>() == pair[1].parse::<u32>().map(|n| n + 1)), "{all:?}");
        assert_eq!(names(&log, 2).await, all);
        assert!(matches!(log.list(1, Some("x")).await, Err(StoreError::InvalidCursor)));
    }

    #[tokio::test]
    async fn files_are_private_and_bounded_in_size_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditFile::open(dir.path(), small()).unwrap();
        write(&log, 0..50).await;
        let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap()).collect();
        files.sort_by_key(fs::DirEntry::file_name);
        assert_eq!(files.len(), 3);
        for file in files {
            let meta = file.metadata().unwrap();
            assert_eq!(meta.permissions().mode() & 0o777, 0o600);
            assert!(meta.len() < 400 + 200, "{} bytes", meta.len());
        }
    }

    #[tokio::test]
    async fn half_a_line_is_passed_over_and_what_could_not_be_written_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "{\"seq\":7,\"at\":\"2026").unwrap();
        let log = AuditFile::open(dir.path(), small()).unwrap();
        // In the way of the next rotation.
        fs::create_dir_all(numbered(dir.path(), 1).join("x")).unwrap();
        fs::create_dir_all(numbered(dir.path(), 2).join("x")).unwrap();
        let mut kept = 0;
        while log.append(entry(&kept.to_string()), Durability::Soon).await.is_ok() {
            kept += 1;
            assert!(kept < 100, "the log was never full");
        }
        assert!(log.ready().await.is_err());
        fs::remove_dir_all(numbered(dir.path(), 1)).unwrap();
        fs::remove_dir_all(numbered(dir.path(), 2)).unwrap();
        log.ready().await.unwrap();
        assert_eq!(names(&log, 100).await[0], kept.to_string());
        assert_eq!(names(&log, 100).await.len(), kept + 1);
    }
}
