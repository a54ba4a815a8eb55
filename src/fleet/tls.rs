//! Certificates between nodes, in both directions: each shows its own, and believes whoever shows one of the fleet's authority.
//!
//! The authority signs nodes of this fleet and nobody else, so that a certificate of its is all that is asked for: nodes come and go
//! under addresses that no certificate could name ahead.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme, version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::Config;

/// A chain is a handful of certificates, and so are a fleet's authorities.
const CERTIFICATES_MAX: usize = 16;

/// Why nodes can't show and check certificates. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FleetTlsError {
    #[error("can't read {key} = {path}: {cause}")]
    Unreadable { key: &'static str, path: String, cause: pem::Error },
    #[error("{key} = {path} holds no certificate: it must be a PEM file")]
    Empty { key: &'static str, path: String },
    #[error("the certificates between nodes can't be used: {0}")]
    Unusable(String),
}

/// Both ends of a connection between nodes.
#[derive(Clone)]
pub struct FleetTls {
    pub acceptor: TlsAcceptor,
    pub connector: TlsConnector,
}

impl FleetTls {
    /// `None` where nodes speak plain HTTP. Blocks: for the start of a process.
    ///
    /// # Errors
    /// Files that can't be read or used.
    pub fn open(config: &Config) -> Result<Option<Self>, FleetTlsError> {
        let (fleet, tls) = (&config.fleet, &config.tls);
        if fleet.ca_file.is_empty() {
            return Ok(None);
        }
        let unusable = |error: &dyn std::fmt::Display| FleetTlsError::Unusable(error.to_string());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = [&version::TLS13];
        let mut roots = RootCertStore::empty();
        for certificate in certificates("fleet.ca_file", &fleet.ca_file)? {
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("tls.certificate", &tls.certificate)?;
        let key = || {
            PrivateKeyDer::from_pem_file(Path::new(&tls.key)).map_err(|cause| FleetTlsError::Unreadable {
                key: "tls.key",
                path: tls.key.clone(),
                cause,
            })
        };
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| unusable(&error))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key()?)
            .map_err(|error| unusable(&error))?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| unusable(&error))?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| unusable(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OfTheFleet(servers)))
            .with_client_auth_cert(chain, key()?)
            .map_err(|error| unusable(&error))?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Some(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        }))
    }
}

fn certificates(key: &'static str, path: &str) -> Result<Vec<CertificateDer<'static>>, FleetTlsError> {
    let unreadable = |cause| FleetTlsError::Unreadable { key, path: path.to_owned(), cause };
    let found = CertificateDer::pem_file_iter(Path::new(path)).map_err(unreadable)?;
    let found: Vec<_> = found.take(CERTIFICATES_MAX).collect::<Result<_, _>>().map_err(unreadable)?;
    if found.is_empty() { Err(FleetTlsError::Empty { key, path: path.to_owned() }) } else { Ok(found) }
}

/// Checks everything of a certificate but the name in it.
#[derive(Debug)]
struct OfTheFleet(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for OfTheFleet {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
