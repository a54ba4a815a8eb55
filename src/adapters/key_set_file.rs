//! A key set in a file, which its owner may replace at any time.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::ports::key_set::{KeySetError, KeySetSource};

use super::key_set_web::BYTES_MAX;

pub struct KeySetFile {
    path: PathBuf,
}

impl KeySetFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

#[async_trait]
impl KeySetSource for KeySetFile {
    async fn fetch(&self) -> Result<Vec<u8>, KeySetError> {
        use tokio::io::AsyncReadExt;
        let failed = |what: &dyn std::fmt::Display| KeySetError(format!("read {}: {what}", self.path.display()));
        let file = tokio::fs::File::open(&self.path).await.map_err(|error| failed(&error))?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await.map_err(|error| failed(&error))?;
        if bytes.len() > BYTES_MAX {
            return Err(failed(&"it is larger than 256 KiB"));
        }
        Ok(bytes)
    }
}
