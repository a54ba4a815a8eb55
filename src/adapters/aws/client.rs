//! What all clients of AWS have in common: where they find region, credentials and endpoints, one TLS stack, and how long they try.
//!
//! Region, credentials and endpoints come from where every AWS client takes them: the environment, the shared configuration files,
//! and what the instance or the container is told of itself.

use std::time::Duration;

use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_smithy_http_client::{Builder, tls};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

use crate::config;

/// Tries of one request, the first included. What still fails then fails for longer than a caller should wait.
const TRIES_MAX: u32 = 3;
/// Before the second try; doubled for the third, and drawn at random below that.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A lost SYN is sent again after one second and after three: beyond that nobody is there.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Connections kept for the next request. More than the requests that are under way at once would be of no use.
const IDLE_MAX: usize = 64;

/// Every client's settings, but for where to find region, credentials and endpoint: a test adds its own, and everybody else calls
/// `load` and leaves it to the SDK.
pub fn loader(aws: &config::Aws) -> ConfigLoader {
    // Pinned: a newer one changes time-outs and retries behind our back.
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client())
        .timeout_config(timeouts(Duration::from_millis(aws.operation_timeout_ms)))
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(TRIES_MAX)
                .with_initial_backoff(BACKOFF)
                .with_max_backoff(BACKOFF_MAX),
        )
}

/// Connections of its own for each client that is given one.
pub fn http_client() -> SharedHttpClient {
    let tls = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
    Builder::new().pool_max_idle_per_host(IDLE_MAX).tls_provider(tls).build_https()
}

pub async fn load(aws: &config::Aws) -> SdkConfig {
    loader(aws).load().await
}

/// A request that takes `whole`, tries included. One try has half of it, so that a stalled one leaves time for another.
pub fn timeouts(whole: Duration) -> TimeoutConfig {
    let attempt = whole / 2;
    TimeoutConfig::builder()
        .operation_timeout(whole)
        .operation_attempt_timeout(attempt)
        .read_timeout(attempt)
        .connect_timeout(CONNECT_MAX.min(attempt))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_try_leaves_time_for_another() {
        let timeouts = timeouts(Duration::from_secs(10));
        assert_eq!(timeouts.operation_timeout(), Some(Duration::from_secs(10)));
        assert_eq!(timeouts.operation_attempt_timeout(), Some(Duration::from_secs(5)));
        assert_eq!(timeouts.connect_timeout(), Some(CONNECT_MAX));
        assert_eq!(super::timeouts(Duration::from_millis(100)).connect_timeout(), Some(Duration::from_millis(50)));
    }
}
