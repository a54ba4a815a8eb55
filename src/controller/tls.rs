//! HTTPS: the certificate and its key as they are configured, read again when their files change.
//!
//! TLS 1.2 and 1.3, HTTP/1.1 by ALPN. A certificate that has become unreadable or does not fit its key is told in the log, and the
//! one before stays in use.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, version};

use crate::config;

/// How often the files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// A chain is a handful of certificates; a bundle of all authorities is a mistake.
const CHAIN_MAX: usize = 16;

/// Why there is no HTTPS. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("can't read {key} = {path}: {cause}", path = .path.display())]
    Unreadable { key: &'static str, path: PathBuf, cause: pem::Error },
    #[error("{key} = {path} holds no {wanted}: it must be a PEM file", path = .path.display())]
    Empty { key: &'static str, path: PathBuf, wanted: &'static str },
    #[error("{path} can't be used with its key: {cause}; tls.key must be the key that the certificate was made for", path = .path.display())]
    Unusable { path: PathBuf, cause: rustls::Error },
}

/// What a file is known by: it changes with every new content, also behind a link that is pointed elsewhere.
type Stamp = Option<(SystemTime, u64, u64)>;

pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<TlsAcceptor>,
    pub handshake_timeout: Duration,
    pub handshakes_max: usize,
}

impl Tls {
    /// `None` where no certificate is configured. Blocks: for the start of a process.
    ///
    /// # Errors
    /// Files that can't be read or don't belong together.
    pub fn open(config: &config::Tls) -> Result<Option<Arc<Self>>, TlsError> {
        if config.certificate.is_empty() {
            return Ok(None);
        }
        let (certificate, key) = (PathBuf::from(&config.certificate), PathBuf::from(&config.key));
        let current = RwLock::new(read(&certificate, &key)?);
        if let Ok(meta) = key.metadata()
            && meta.permissions().mode() & 0o007 != 0
        {
            tracing::warn!(path = %key.display(), "everybody on this machine may read the certificate's key: chmod it to 600");
        }
        let handshake_timeout = Duration::from_millis(config.handshake_timeout_ms);
        let handshakes_max = config.handshakes_max;
        Ok(Some(Arc::new(Self { certificate, key, current, handshake_timeout, handshakes_max })))
    }

    /// What the next connection is met with.
    pub fn acceptor(&self) -> TlsAcceptor {
        // A whole value at each moment, whoever panicked.
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows the files for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut seen = self.stamps();
        loop {
            tokio::time::sleep(RELOAD_EVERY).await;
            let found = self.stamps();
            if found == seen {
                continue;
            }
            seen = found;
            match read(&self.certificate, &self.key) {
                Ok(acceptor) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                    tracing::info!(path = %self.certificate.display(), "took up the new certificate");
                }
                // Both files are seldom replaced at one moment: the next look may find them in order.
                Err(error) => tracing::warn!(%error, "the new certificate can't be used; the one before stays"),
            }
        }
    }

    fn stamps(&self) -> [Stamp; 2] {
        [&self.certificate, &self.key].map(|path| {
            let meta = path.metadata().ok()?;
            Some((meta.modified().ok()?, meta.ino(), meta.len()))
        })
    }
}

fn read(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let chain = read_chain(certificate)?;
    let key = match PrivateKeyDer::from_pem_file(key) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => {
            return Err(TlsError::Empty { key: "tls.key", path: key.to_owned(), wanted: "private key" });
        }
        Err(cause) => return Err(TlsError::Unreadable { key: "tls.key", path: key.to_owned(), cause }),
    };
    let unusable = |cause| TlsError::Unusable { path: certificate.to_owned(), cause };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |cause| TlsError::Unreadable { key: "tls.certificate", path: path.to_owned(), cause };
    let found = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let chain: Vec<_> = found.take(CHAIN_MAX).collect::<Result<_, _>>().map_err(unreadable)?;
    if chain.is_empty() {
        return Err(TlsError::Empty { key: "tls.certificate", path: path.to_owned(), wanted: "certificate" });
    }
    Ok(chain)
}
