//! What a controller has to one worker: a connection or two, what it has under way there, and how far it is trusted now.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};

use crate::domain::ids::WorkerId;

use super::answer::Answer;
use super::connection::{Connection, Failed};
use super::identity::Secret;
use super::tls::FleetTls;
use super::wire;

/// Two, so that a large payload does not stand before every other call.
const LANES: usize = 2;
/// For what is asked beside calls: a worker that is well answers at once.
const ASK_FOR: Duration = Duration::from_secs(2);
/// The longest is what is to be resized: some hundred bytes for each version.
const ASKED_BYTES_MAX: usize = 256 * 1024;

/// What links have in common.
pub(super) struct Ways {
    pub secret: Secret,
    pub tls: Option<FleetTls>,
    /// Largest frame of an answer.
    pub frame_bytes_max: u64,
}

pub(super) struct Link {
    pub worker: WorkerId,
    pub address: String,
    ways: Arc<Ways>,
    lanes: [Lane; LANES],
    next: AtomicUsize,
    /// Calls of this controller there.
    calls: AtomicU32,
    /// Until then (monotonic, in milliseconds) it is asked only where nobody else is.
    aside_until: AtomicU64,
    /// The same for as long as its heartbeats fail to come.
    silent: AtomicBool,
}

#[derive(Default)]
struct Lane {
    open: Mutex<Option<Connection>>,
    /// One connects, the others wait for it.
    connecting: tokio::sync::Mutex<()>,
}

/// A call under way, counted.
pub(super) struct Under<'a>(&'a Link);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    pub fn new(worker: WorkerId, address: String, ways: Arc<Ways>) -> Self {
        Self {
            worker,
            address,
            ways,
            lanes: Default::default(),
            next: AtomicUsize::new(0),
            calls: AtomicU32::new(0),
            aside_until: AtomicU64::new(0),
            silent: AtomicBool::new(false),
        }
    }

    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    pub fn enter(&self) -> Under<'_> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Under(self)
    }

    pub fn set_aside(&self, until: Duration) {
        self.aside_until.fetch_max(until.as_millis() as u64, Ordering::Relaxed);
    }

    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    pub fn is_aside(&self, now: Duration) -> bool {
        self.silent.load(Ordering::Relaxed) || self.aside_until.load(Ordering::Relaxed) > now.as_millis() as u64
    }

    /// Sends a call or a build; the answer comes in frames.
    pub async fn send(&self, path: &'static str, body: Bytes) -> Result<Answer, Failed> {
        let connection = self.connection().await?;
        let answer = match connection.send(path, body.clone()).await {
            // It was closed in this very moment; a new one may be had.
            Err(Failed::Unsent(_)) => self.connection().await?.send(path, body).await?,
            other => other?,
        };
        Ok(Answer::new(answer.into_body(), self.ways.frame_bytes_max))
    }

    /// Asks something beside calls. What can be told in a few words comes back.
    pub async fn ask<T: for<'a> Deserialize<'a>>(
        &self,
        path: &'static str,
        head: &impl Serialize,
    ) -> Result<T, Failed> {
        let body = wire::body(head, &[]).map_err(|error| Failed::Unsent(error.to_string()))?;
        let asking = async {
            let answer = self.connection().await?.send(path, body).await?;
            let bytes = Limited::new(answer.into_body(), ASKED_BYTES_MAX).collect().await;
            let bytes = bytes.map_err(|error| Failed::Lost(error.to_string()))?.to_bytes();
            serde_json::from_slice(&bytes).map_err(|error| Failed::Refused(error.to_string()))
        };
        let late = |_| Failed::Lost(format!("no answer within {ASK_FOR:?}"));
        tokio::time::timeout(ASK_FOR, asking).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    async fn connection(&self) -> Result<Connection, Failed> {
        let lane = &self.lanes[self.next.fetch_add(1, Ordering::Relaxed) % LANES];
        if let Some(open) = lane.open() {
            return Ok(open);
        }
        let _connecting = lane.connecting.lock().await;
        if let Some(open) = lane.open() {
            return Ok(open);
        }
        let opened = Connection::open(&self.address, &self.ways.secret, self.ways.tls.as_ref()).await?;
        *lane.lock() = Some(opened.clone());
        Ok(opened)
    }
}

impl Lane {
    fn open(&self) -> Option<Connection> {
        self.lock().clone().filter(Connection::is_open)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        // Set in one step.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
