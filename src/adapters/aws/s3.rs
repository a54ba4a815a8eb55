//! Artifacts in S3, each under the SHA-256 of its bytes: `<prefix>ab/cdef…`; what was read stays on this node's disk (`cache`).
//!
//! An object is written once: whoever comes second with the same bytes finds it there and renews it. The bucket's lifecycle rule
//! collects by age, so what is still wanted is renewed: copied onto itself, once it is older than [`RENEW_AGE`]. The rule must
//! give objects at least two days more than records are kept (docs/aws.md).

mod cache;
mod keep;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, MetadataDirective};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OnceCell, Semaphore};

use crate::adapters::locked;
use crate::config;
use crate::domain::ids::Digest;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::artifacts::{ArtifactError, ArtifactStore};
use crate::ports::clock::Clock;
use crate::ports::disk::Spare;

use cache::Cache;
pub use keep::keep_referenced;

/// What is larger goes up in parts of this size: one part must fit into a request's time.
const PART_BYTES: usize = 8 << 20;
/// Parts of one artifact under way at once.
const PARTS_AT_ONCE: usize = 4;
/// Artifacts read from S3 at once: each is held in memory.
const READS_AT_ONCE: usize = 16;
/// From the first byte of an answer to its last. Of a package of 256 MiB, 4.3 MiB a second.
const BODY_MAX: Duration = Duration::from_secs(60);
/// Artifacts younger than this are not renewed: a look costs a twelfth of a copy.
pub const RENEW_AGE: Duration = Duration::from_secs(24 * 3600);
/// Less is hashed where it is; more would hold up the thread.
const HASH_HERE_MAX: usize = 256 << 10;

/// One read, for all who ask for the same bytes meanwhile.
type Read = OnceCell<Result<Bytes, ArtifactError>>;

pub struct Artifacts {
    client: Client,
    bucket: String,
    prefix: String,
    clock: Arc<dyn Clock>,
    cache: Arc<Cache>,
    /// Reads under way: whoever asks for the same waits for the first.
    reads: Mutex<HashMap<Digest, Arc<Read>>>,
    places: Semaphore,
}

impl Artifacts {
    /// `cache_dir` is this node's alone. Blocks: for the start of a process.
    pub fn open(
        sdk: &SdkConfig,
        aws: &config::Aws,
        cache_dir: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, std::io::Error> {
        let mut config = aws_sdk_s3::config::Builder::from(sdk)
            // We check our own digest; servers that only speak like S3 know no others.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if sdk.endpoint_url().is_some() {
            // Such a server has one name for all buckets.
            config = config.force_path_style(true);
        }
        Ok(Self {
            client: Client::from_conf(config.build()),
            bucket: aws.bucket.clone(),
            prefix: aws.bucket_prefix.clone(),
            cache: Arc::new(Cache::open(cache_dir, aws.cache_bytes, clock.clone())?),
            clock,
            reads: Mutex::default(),
            places: Semaphore::new(READS_AT_ONCE),
        })
    }

    /// What was read and can be read again.
    pub fn spare(&self) -> Arc<dyn Spare> {
        self.cache.clone()
    }

    fn key(&self, digest: Digest) -> String {
        let name = digest.to_string();
        let (shard, rest) = name.split_at(2);
        format!("{}{shard}/{rest}", self.prefix)
    }

    async fn put_whole(&self, key: &str, bytes: Bytes, even_if_there: bool) -> Result<Put, StoreError> {
        let mut request = self.client.put_object().bucket(&self.bucket).key(key).body(ByteStream::from(bytes));
        if !even_if_there {
            request = request.if_none_match("*");
        }
        put_result(request.send().await)
    }

    async fn put_in_parts(&self, key: &str, bytes: &Bytes, even_if_there: bool) -> Result<Put, StoreError> {
        let begun = self.client.create_multipart_upload().bucket(&self.bucket).key(key).send().await.map_err(failed)?;
        let upload = begun.upload_id().unwrap_or_default();
        let result = self.send_parts(key, upload, bytes, even_if_there).await;
        if !matches!(result, Ok(Put::Done)) {
            let abort = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload);
            if let Err(error) = abort.send().await {
                tracing::warn!(error = %DisplayErrorContext(&error), "parts of an upload stay until the bucket's rule ends them");
            }
        }
        result
    }

    async fn send_parts(&self, key: &str, upload: &str, bytes: &Bytes, even_if_there: bool) -> Result<Put, StoreError> {
        use futures_util::{StreamExt, TryStreamExt};
        let parts = (0..bytes.len()).step_by(PART_BYTES).zip(1..).map(|(begin, number)| {
            let part = bytes.slice(begin..bytes.len().min(begin + PART_BYTES));
            let request = self.client.upload_part().bucket(&self.bucket).key(key).upload_id(upload).part_number(number);
            async move {
                let sent = request.body(ByteStream::from(part)).send().await.map_err(failed)?;
                Ok::<_, StoreError>(
                    CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag().map(str::to_owned)).build(),
                )
            }
        });
        let parts: Vec<CompletedPart> = futures_util::stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect().await?;
        let whole = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload);
        let mut request = request.multipart_upload(whole);
        if !even_if_there {
            request = request.if_none_match("*");
        }
        put_result(request.send().await)
    }

    async fn put_object(&self, key: &str, bytes: &Bytes, even_if_there: bool) -> Result<Put, StoreError> {
        if bytes.len() > PART_BYTES {
            self.put_in_parts(key, bytes, even_if_there).await
        } else {
            self.put_whole(key, bytes.clone(), even_if_there).await
        }
    }

    /// Size and age of what is there.
    async fn look(&self, key: &str) -> Result<Option<(u64, Duration)>, StoreError> {
        match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(found) => {
                let size = found.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
                let written = found.last_modified().and_then(|at| at.to_millis().ok()).unwrap_or_default();
                Ok(Some((size, self.clock.now().since(Timestamp(written.max(0) as u64)))))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Copies the object onto itself, from which its age counts anew; `false` if it went meanwhile.
    async fn renew(&self, key: &str) -> Result<bool, StoreError> {
        // Keys are hexadecimal digits below a prefix of the configuration's.
        let source = format!("{}/{key}", self.bucket);
        let request = self.client.copy_object().bucket(&self.bucket).key(key).copy_source(source);
        // S3 refuses a copy onto itself that changes nothing.
        let request = request.metadata_directive(MetadataDirective::Replace).content_type("application/octet-stream");
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// From disk, else from S3; checked either way.
    async fn read(&self, digest: Digest) -> Result<Bytes, ArtifactError> {
        if let Some(bytes) = self.cache.get(digest).await {
            return Ok(bytes);
        }
        let stopped = |_| StoreError::Unavailable("the artifact store is closing".to_owned());
        let _place = self.places.acquire().await.map_err(stopped)?;
        let key = self.key(digest);
        let answer = match self.client.get_object().bucket(&self.bucket).key(&key).send().await {
            Ok(answer) => answer,
            Err(error) if is_absent(&error) => return Err(ArtifactError::NotFound),
            Err(error) => return Err(failed(error).into()),
        };
        let body = tokio::time::timeout(BODY_MAX, answer.body.collect()).await;
        let slow =
            |_| StoreError::Unavailable(format!("S3: artifact {digest} did not come within {} s", BODY_MAX.as_secs()));
        let body =
            body.map_err(slow)?.map_err(|error| StoreError::Unavailable(format!("S3: read {digest}: {error}")))?;
        let bytes = body.into_bytes();
        if hash(bytes.clone()).await? != digest {
            return Err(StoreError::Corrupt(format!("artifact {digest} does not match its digest")).into());
        }
        self.cache.put(digest, bytes.clone());
        Ok(bytes)
    }
}

#[async_trait]
impl ArtifactStore for Artifacts {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        let digest = hash(bytes.clone()).await?;
        let key = self.key(digest);
        if let Put::Done = self.put_object(&key, &bytes, false).await? {
            return Ok(digest);
        }
        match self.look(&key).await? {
            // One that is not whole is replaced.
            Some((size, age)) if size == bytes.len() as u64 => {
                if age < RENEW_AGE || self.renew(&key).await? {
                    return Ok(digest);
                }
            }
            Some(_) | None => {}
        }
        self.put_object(&key, &bytes, true).await?;
        Ok(digest)
    }

    async fn get(&self, digest: Digest) -> Result<Bytes, ArtifactError> {
        let read = locked(&self.reads).entry(digest).or_default().clone();
        let result = read.get_or_init(|| self.read(digest)).await.clone();
        let mut reads = locked(&self.reads);
        // Whoever asks from now on finds it on disk, or asks S3 again.
        if reads.get(&digest).is_some_and(|known| Arc::ptr_eq(known, &read)) {
            reads.remove(&digest);
        }
        result
    }

    async fn touch(&self, digest: Digest) -> Result<bool, StoreError> {
        let key = self.key(digest);
        match self.look(&key).await? {
            None => Ok(false),
            Some((_, age)) if age < RENEW_AGE => Ok(true),
            Some(_) => self.renew(&key).await,
        }
    }

    fn is_far(&self) -> bool {
        true
    }
}

enum Put {
    Done,
    /// There is one by this name.
    IsThere,
}

fn put_result<T, E, R>(result: Result<T, SdkError<E, R>>) -> Result<Put, StoreError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    match result {
        Ok(_) => Ok(Put::Done),
        // The second: another wrote the same at this moment.
        Err(error) if matches!(error.code(), Some("PreconditionFailed" | "ConditionalRequestConflict")) => {
            Ok(Put::IsThere)
        }
        Err(error) => Err(failed(error)),
    }
}

fn is_absent<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    matches!(error.code(), Some("NoSuchKey" | "NotFound"))
}

fn failed<E, R>(error: SdkError<E, R>) -> StoreError
where
    E: std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    StoreError::Unavailable(format!("S3: {}", DisplayErrorContext(&error)))
}

async fn hash(bytes: Bytes) -> Result<Digest, StoreError> {
    if bytes.len() <= HASH_HERE_MAX {
        return Ok(Digest(Sha256::digest(&bytes).into()));
    }
    let hashing = tokio::task::spawn_blocking(move || Digest(Sha256::digest(&bytes).into()));
    hashing.await.map_err(|error| StoreError::Unavailable(format!("hash an artifact: {error}")))
}
