//! Commands: none waits for a Redis that is not there, none waits longer than the configuration says, and each failure is counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::{Client, WithOptions};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, HashesInterface, LuaInterface, PubsubInterface};
use fred::types::config::Options;
use fred::types::scripts::Script;
use fred::types::{FromValue, Key, Value};

use crate::ports::Unavailable;

use super::metrics::Metrics;

#[derive(Clone)]
pub(super) struct Commands {
    client: Arc<WithOptions<Client>>,
    metrics: Metrics,
}

/// How every command is sent: once, and not at all where there is no connection.
pub(super) fn options(timeout: Duration) -> Options {
    Options { timeout: Some(timeout), max_attempts: Some(1), fail_fast: true, ..Options::default() }
}

impl Commands {
    pub fn new(client: &Client, timeout: Duration, metrics: Metrics) -> Self {
        Self { client: Arc::new(client.with_options(&options(timeout))), metrics }
    }

    /// Runs a script, which a server that does not know it is sent first.
    pub async fn script<R: FromValue>(
        &self,
        name: &'static str,
        script: &Script,
        keys: Vec<Key>,
        arguments: Vec<Value>,
    ) -> Result<R, Unavailable> {
        let timer = self.metrics.command_seconds.start_timer();
        let mut result = self.client.evalsha(script.sha1().clone(), keys.clone(), arguments.clone()).await;
        if let (Err(error), Some(text)) = (&result, script.lua())
            && error.details().starts_with("NOSCRIPT")
        {
            result = self.client.eval(text.clone(), keys, arguments).await;
        }
        timer.observe_duration();
        self.told(name, result)
    }

    /// Sends `message` to whoever subscribes to `channel` now.
    pub async fn publish(&self, channel: &str, message: Bytes) -> Result<(), Unavailable> {
        let timer = self.metrics.command_seconds.start_timer();
        let result = self.client.publish::<i64, _, _>(channel, message).await;
        timer.observe_duration();
        self.told("publish", result).map(drop)
    }

    /// Forgets fields of a hash.
    pub async fn forget(&self, key: Key, fields: Vec<Key>) -> Result<(), Unavailable> {
        let result = self.client.hdel::<i64, _, _>(key, fields).await;
        self.told("forget", result).map(drop)
    }

    fn told<R>(&self, name: &'static str, result: Result<R, Error>) -> Result<R, Unavailable> {
        result.map_err(|error| {
            let reason = reason(&error);
            self.metrics.commands_failed.with_label_values(&[name, reason]).inc();
            tracing::debug!(command = name, %error, "a command to Redis failed");
            Unavailable(format!("Redis: {name}: {reason}"))
        })
    }
}

/// One of a few words: what Redis says may hold what it was told.
fn reason(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Timeout => "timeout",
        ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Tls | ErrorKind::Sentinel => {
            "disconnected"
        }
        ErrorKind::Auth => "refused",
        ErrorKind::Backpressure => "overloaded",
        ErrorKind::Cluster => "cluster",
        _ if error.details().starts_with("NOPERM") => "refused",
        _ if error.details().starts_with("OOM") => "full",
        _ => "error",
    }
}
