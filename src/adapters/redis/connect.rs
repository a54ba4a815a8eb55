//! The two connections: one for commands, one that listens. Each is tried again for ever, with growing pauses.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::ErrorKind;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::Builder;
use fred::types::RespVersion;
use fred::types::config::{
    ClusterDiscoveryPolicy, Config as ClientConfig, ReconnectPolicy, ServerConfig, TcpConfig, TlsConnector,
    UnresponsiveConfig,
};
use tokio::sync::broadcast::error::RecvError;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, RootCertStore};

use crate::config;

use super::OpenError;
use super::metrics::Metrics;

/// Pauses between tries, and what is added to each so that a fleet does not come back all at once.
const PAUSE_MS_MIN: u32 = 50;
const PAUSE_MS_MAX: u32 = 5_000;
const PAUSE_JITTER_MS: u32 = 200;
const PAUSE_BASE: u32 = 2;
/// A client that gave up for good (a password that is refused) begins again after this.
const PAUSE_REFUSED: Duration = Duration::from_secs(2);
/// A connection, with its handshake and log-in, may take as long as so many commands.
const CONNECT_TIMEOUTS: u32 = 4;
/// A connection that owes an answer for as long as so many commands is dropped: the other side is gone without a word.
const SILENT_TIMEOUTS: u32 = 4;
/// Commands under way at once; more are refused. A thousand calls wait for a few commands each.
const COMMANDS_MAX: usize = 16_384;
/// Messages that our listener may be behind by before news count as missed. The client keeps room for as many in each of nine channels.
const MESSAGES_KEPT: usize = 512;
/// The same of the connection for commands, on which there is nothing to hear but its own ups and downs.
const EVENTS_KEPT: usize = 16;

pub(super) struct Clients {
    pub commands: Client,
    pub listener: Client,
}

/// Both clients, not connected yet.
pub(super) fn clients(config: &config::Redis) -> Result<Clients, OpenError> {
    let timeout = Duration::from_millis(config.command_timeout_ms);
    let mut builder = Builder::from_config(client_config(config)?);
    let mut policy = ReconnectPolicy::new_exponential(0, PAUSE_MS_MIN, PAUSE_MS_MAX, PAUSE_BASE);
    policy.set_jitter(PAUSE_JITTER_MS);
    builder.set_policy(policy);
    builder.with_connection_config(|connection| {
        connection.connection_timeout = timeout * CONNECT_TIMEOUTS;
        connection.internal_command_timeout = timeout * CONNECT_TIMEOUTS;
        connection.max_command_attempts = 1;
        connection.max_command_buffer_len = COMMANDS_MAX;
        connection.reconnect_on_auth_error = true;
        connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
        connection.unresponsive =
            UnresponsiveConfig { max_timeout: Some(timeout * SILENT_TIMEOUTS), interval: timeout };
    });
    builder.with_performance_config(|performance| {
        performance.default_command_timeout = timeout;
        performance.broadcast_channel_capacity = EVENTS_KEPT;
    });
    let client = |builder: &Builder| builder.build().map_err(|error| OpenError::Client(error.to_string()));
    let commands = client(&builder)?;
    builder.with_performance_config(|performance| performance.broadcast_channel_capacity = MESSAGES_KEPT);
    Ok(Clients { commands, listener: client(&builder)? })
}

fn client_config(config: &config::Redis) -> Result<ClientConfig, OpenError> {
    let mut client = ClientConfig::from_url(&config.url).map_err(|error| OpenError::Url(error.details().to_owned()))?;
    // Tried again from the first connection on.
    client.fail_fast = false;
    // On one connection then: messages, and answers to PING between them.
    client.version = RespVersion::RESP3;
    if !config.username.is_empty() {
        client.username = Some(config.username.clone());
    }
    if !config.password.is_empty() {
        client.password = Some(config.password.expose().to_owned());
    }
    if let ServerConfig::Clustered { policy, .. } = &mut client.server {
        // Those that the configuration names may be the ones that are down.
        *policy = ClusterDiscoveryPolicy::UseCache;
    }
    if client.tls.is_some() {
        client.tls = Some(tls(&config.ca_file)?.into());
    }
    Ok(client)
}

/// Trusts the authorities of `ca_file`, or the machine's where there is none.
fn tls(ca_file: &str) -> Result<TlsConnector, OpenError> {
    let mut roots = RootCertStore::empty();
    if ca_file.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        let failed = |cause: String| OpenError::Certificates { path: ca_file.to_owned(), cause };
        let certificates =
            CertificateDer::pem_file_iter(Path::new(ca_file)).map_err(|error| failed(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
        }
    }
    if roots.is_empty() {
        return Err(OpenError::Tls("no certificates to trust: set redis.ca_file".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::Tls(error.to_string()))?;
    Ok(TlsConnector::from(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Keeps `client` connected for as long as this is polled.
pub(super) async fn keep_connected(client: Client, name: &'static str, metrics: Metrics) {
    let log = tell(client.clone(), name, metrics);
    let run = async {
        loop {
            // It reconnects by itself but after what it takes for a mistake of ours, which an operator may be mending.
            if let Ok(Err(error)) = Running(client.connect()).finished().await {
                tracing::debug!(connection = name, %error, "Redis refuses this node; trying again");
            }
            tokio::time::sleep(PAUSE_REFUSED).await;
        }
    };
    tokio::join!(log, run);
}

/// A connection's task, which ends with this.
struct Running(fred::types::ConnectHandle);

impl Running {
    async fn finished(&mut self) -> Result<Result<(), fred::error::Error>, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts connections, and tells the first failure of a row.
async fn tell(client: Client, name: &'static str, metrics: Metrics) {
    let (mut connects, mut errors) = (client.reconnect_rx(), client.error_rx());
    let mut is_down = false;
    let mut is_first = true;
    loop {
        tokio::select! {
            connected = connects.recv() => match connected {
                Ok(server) => {
                    if !is_first {
                        metrics.reconnects.inc();
                    }
                    (is_first, is_down) = (false, false);
                    tracing::info!(connection = name, %server, "connected to Redis");
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            failed = errors.recv() => match failed {
                Ok((error, _)) if !is_down && *error.kind() != ErrorKind::Canceled => {
                    is_down = true;
                    tracing::warn!(connection = name, %error, "no connection to Redis; trying again for ever");
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}
