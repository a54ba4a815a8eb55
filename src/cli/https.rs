//! The client's side of TLS: which certificates it trusts, and what it says of those it doesn't.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls_native_certs::load_native_certs;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore, version};

use super::Failure;

/// What HTTP is spoken over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Trusts the authorities of this machine, and those in `ca_file`.
///
/// # Errors
/// [`Failure::Usage`] for a file that can't be used, or where there is nobody to trust.
pub fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, Failure> {
    let mut roots = RootCertStore::empty();
    // Single ones that can't be read are no reason to trust none of the others.
    roots.add_parsable_certificates(load_native_certs().certs);
    if let Some(path) = ca_file {
        let failed = |what: String| Failure::Usage(format!("the CA file {} can't be used: {what}", path.display()));
        let found = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
        let mut count = 0;
        for certificate in found {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(failed("it holds no certificate; it must be a PEM file".to_owned()));
        }
    }
    if roots.is_empty() {
        let sentence = "this machine has no certificates of authorities: install ca-certificates, or name a file of your own with --ca-file";
        return Err(Failure::Usage(sentence.to_owned()));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| Failure::Platform(format!("TLS can't be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Shakes hands over `stream`.
///
/// # Errors
/// A sentence that says what to do.
pub async fn secure(
    connector: &TlsConnector,
    host: &str,
    stream: TcpStream,
    url: &str,
) -> Result<Box<dyn Io>, Failure> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Failure::Usage(format!("{url}: a certificate can't be for the host {host}")))?;
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(Failure::Platform(format!("{url}: {}", explain(&error)))),
    }
}

fn explain(error: &io::Error) -> String {
    let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return format!("the TLS handshake broke off ({error}): is it a daemon with a certificate?");
    };
    match cause {
        // One of the same name, with another key, shows as a bad signature.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is from an authority that is not trusted here: name the authority's certificate with --ca-file or FAASD_CA_FILE".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            format!("its certificate is for another host: use the name that it was made for ({cause})")
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired: the operator must renew it".to_owned()
        }
        Error::InvalidCertificate(_) => format!("its certificate can't be trusted ({cause})"),
        Error::InvalidMessage(_) => "it does not speak TLS: begin the URL with http://".to_owned(),
        _ => format!("the TLS handshake failed ({cause})"),
    }
}
