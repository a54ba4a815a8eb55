//! A key set behind a URL: one `GET`, https with the machine's certificates (or one more file's), http to this machine alone.
//! No redirect is followed: the URL says whom to believe.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::{key_set_url, without_brackets};
use crate::ports::key_set::{KeySetError, KeySetSource};

/// A key set of a hundred RSA keys has 50 KB.
pub const BYTES_MAX: usize = 256 * 1024;
/// A caller with a new key waits for it.
const WITHIN: Duration = Duration::from_secs(5);

pub struct KeySetWeb {
    uri: Uri,
    /// `None`: plain http, to this machine.
    tls: Option<TlsConnector>,
}

impl KeySetWeb {
    /// `ca_file`, unless empty, holds certificates to trust beside the machine's.
    ///
    /// # Errors
    /// If the URL is not one to ask, or there are no certificates to check its server with.
    pub fn new(url: &str, ca_file: &Path) -> Result<Self, KeySetError> {
        let uri = key_set_url(url).map_err(KeySetError)?;
        let tls = (uri.scheme_str() == Some("https")).then(|| connector(ca_file)).transpose()?;
        Ok(Self { uri, tls })
    }

    async fn get(&self) -> Result<Vec<u8>, String> {
        let host = self.uri.host().unwrap_or_default();
        let port = self.uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let addresses = tokio::net::lookup_host((without_brackets(host), port))
            .await
            .map_err(|error| format!("look up {host}: {error}"))?;
        // What says localhost may be resolved elsewhere: plain http goes nowhere else.
        let addresses: Vec<SocketAddr> =
            addresses.filter(|address| self.tls.is_some() || address.ip().is_loopback()).collect();
        let stream = TcpStream::connect(&*addresses).await.map_err(|error| format!("connect to {host}: {error}"))?;
        let Some(tls) = &self.tls else { return self.exchange(stream).await };
        self.exchange(encrypted(tls, host, stream).await?).await
    }

    async fn exchange(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Vec<u8>, String> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::get(path)
            .header("host", host)
            .header("accept", "application/json")
            .header("user-agent", concat!("faasd/", env!("CARGO_PKG_VERSION")))
            .header("connection", "close")
            .body(Full::default())
            .map_err(|error| error.to_string())?;
        match exchange(stream, request, BYTES_MAX).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, _) => Err(format!("the answer is {status}")),
        }
    }
}

/// TLS with the host of that name.
pub(super) async fn encrypted(
    tls: &TlsConnector,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    let name =
        ServerName::try_from(without_brackets(host).to_owned()).map_err(|error| format!("the name {host}: {error}"))?;
    tls.connect(name, stream).await.map_err(|error| format!("TLS with {host}: {error}"))
}

/// One request over a connection of its own, and its answer of up to `bytes_max`.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> Result<(StatusCode, Vec<u8>), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("speak HTTP: {error}"))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), bytes_max).collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes().to_vec()))
    };
    tokio::pin!(connection, answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The end of the connection may come with the last of the answer.
        _ = &mut connection => answer.await,
    }
}

#[async_trait]
impl KeySetSource for KeySetWeb {
    async fn fetch(&self) -> Result<Vec<u8>, KeySetError> {
        let got = tokio::time::timeout(WITHIN, self.get()).await;
        let got = got.unwrap_or_else(|_| Err(format!("no answer within {} s", WITHIN.as_secs())));
        got.map_err(|what| KeySetError(format!("get {}: {what}", self.uri)))
    }
}

pub(super) fn connector(ca_file: &Path) -> Result<TlsConnector, KeySetError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if !ca_file.as_os_str().is_empty() {
        let failed = |error: &dyn std::fmt::Display| KeySetError(format!("read {}: {error}", ca_file.display()));
        for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|error| failed(&error))? {
            roots.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
        }
    }
    if roots.is_empty() {
        return Err(KeySetError("this machine trusts no certificates: install ca-certificates".to_owned()));
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| KeySetError(format!("set TLS up: {error}")))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
