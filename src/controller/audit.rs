//! What goes into the audit log. A change is written before it is answered, and none is begun while the log can't be written;
//! refusals are written too, up to so many a minute, and counted beyond.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use prometheus::{IntCounter, IntCounterVec};

use crate::config::{Config, load};
use crate::domain::audit::{Action, Entry, Object, Outcome};
use crate::ports::StoreError;
use crate::ports::audit::{AuditLog, Durability};

use super::Controller;
use super::auth::Caller;
use super::error::{ApiError, Code};

/// Refusals are counted over so long.
const WINDOW: Duration = Duration::from_secs(60);
/// Of a path that was asked for, what a line keeps.
const PATH_BYTES_MAX: usize = 256;

/// What a request changes, by method and route template; `None`: nothing of what the log is about.
pub fn action(method: &Method, route: &str) -> Option<Action> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return None;
    }
    Some(match (method.as_str(), route) {
        // Calls are in their own records, and what a worker says of itself changes nothing that is kept.
        ("POST", "/run" | "/worker/heartbeat") => return None,
        ("POST", "/functions" | "/upload") => Action::FunctionCreate,
        ("PUT" | "PATCH", "/functions/{id}") => Action::FunctionUpdate,
        ("DELETE", "/functions/{id}") => Action::FunctionDelete,
        ("POST", "/keys") => Action::KeyCreate,
        ("DELETE", "/keys/{id}") => Action::KeyRevoke,
        ("POST", "/dead-letters/{id}/replay") => Action::DeadLetterReplay,
        ("DELETE", "/invocations/{id}") => Action::InvocationCancel,
        ("POST", "/workers/{id}/cordon") => Action::WorkerCordon,
        ("POST", "/workers/{id}/uncordon") => Action::WorkerUncordon,
        ("POST", "/workers/{id}/drain") => Action::WorkerDrain,
        // A route that is added without a name here is logged all the same.
        _ => Action::Change,
    })
}

/// Left on an answer by whoever changed something: what that was.
#[derive(Clone, Debug)]
pub struct Changed {
    pub action: Action,
    pub object: Object,
}

#[derive(Default)]
struct Refusals {
    since: Duration,
    written: u32,
    /// Counted since the last line that said so.
    unsaid: u64,
}

pub struct Audit {
    log: Arc<dyn AuditLog>,
    refusals: Mutex<Refusals>,
    refusals_max: u32,
    entries: IntCounterVec,
    failures: IntCounter,
}

impl Audit {
    pub fn new(log: Arc<dyn AuditLog>, refusals_max: u32, entries: IntCounterVec, failures: IntCounter) -> Self {
        Self { log, refusals: Mutex::default(), refusals_max, entries, failures }
    }

    pub fn log(&self) -> &dyn AuditLog {
        &*self.log
    }

    async fn append(&self, entry: Entry, durability: Durability) -> Result<(), StoreError> {
        self.entries.with_label_values(&[entry.outcome.as_str()]).inc();
        self.log.append(entry, durability).await.inspect_err(|error| {
            self.failures.inc();
            tracing::error!(%error, "the audit log can't be written: changes are refused until it can");
        })
    }

    /// Makes room for one more refusal: whether it is to be written, and how many before it were not.
    fn admit(&self, now: Duration) -> (bool, u64) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unsaid = 0;
        if now.saturating_sub(refusals.since) >= WINDOW {
            unsaid = refusals.unsaid;
            *refusals = Refusals { since: now, ..Refusals::default() };
        }
        let written = refusals.written < self.refusals_max;
        if written {
            refusals.written += 1;
        } else {
            refusals.unsaid += 1;
        }
        (written, unsaid)
    }

    fn take_unsaid(&self) -> u64 {
        std::mem::take(&mut self.refusals.lock().unwrap_or_else(PoisonError::into_inner).unsaid)
    }
}

impl Controller {
    /// An entry about this request.
    pub fn entry(&self, action: Action, outcome: Outcome, request: &Request) -> Entry {
        let entry = Entry {
            address: Some(request.address.to_string()),
            request_id: Some(request.caller.request_id),
            ..Entry::new(self.now(), action, outcome)
        };
        entry.by(&request.caller.principal)
    }

    /// Runs `change`, to its end even if the client hangs up, and writes down what became of it before it is answered.
    pub async fn audited(
        self: &Arc<Self>,
        action: Action,
        request: Request,
        change: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        if let Err(error) = self.audit_ready().await {
            return error.into_response();
        }
        let controller = self.clone();
        let done = self.to_the_end(async move {
            let response = change.await;
            let entry = controller.change_entry(action, &request, &response);
            if let Some(entry) = entry {
                controller.write_change(entry).await?;
            }
            Ok(response)
        });
        done.await.unwrap_or_else(IntoResponse::into_response)
    }

    /// Asked before a change is begun.
    ///
    /// # Errors
    /// If it could not be told: then nothing is to be changed.
    pub async fn audit_ready(&self) -> Result<(), ApiError> {
        self.audit.log.ready().await.map_err(|error| {
            self.audit.failures.inc();
            tracing::error!(%error, "the audit log can't be written: a change is refused");
            let sentence = "the audit log can't be written, so nothing is changed; tell the operator";
            ApiError::new(Code::AuditUnavailable, sentence)
        })
    }

    /// A version that the daemon published by itself, with so much memory.
    ///
    /// # Errors
    /// If the log can't be written.
    pub async fn audit_resize(&self, function: Object, memory_mb: u32) -> Result<(), ApiError> {
        let mut entry = Entry::new(self.now(), Action::FunctionUpdate, Outcome::Done).to(function);
        entry.detail.insert("autoMemoryMb".to_owned(), memory_mb.to_string());
        self.write_change(entry).await
    }

    /// The line of a change that was made; one that was not is a refusal like others.
    fn change_entry(self: &Arc<Self>, action: Action, request: &Request, response: &Response) -> Option<Entry> {
        if !response.status().is_success() {
            self.refused(action, request, response);
            return None;
        }
        Some(match response.extensions().get::<Changed>() {
            Some(changed) => self.entry(changed.action, Outcome::Done, request).to(changed.object.clone()),
            None => self.entry(action, Outcome::Done, request).to(request.object()),
        })
    }

    async fn write_change(&self, entry: Entry) -> Result<(), ApiError> {
        self.audit.append(entry, Durability::BeforeReturn).await.map_err(|_| {
            let sentence = "the change was made, but the audit log can't be written; tell the operator";
            ApiError::new(Code::AuditUnavailable, sentence)
        })
    }

    /// A request of a known caller that was refused, or failed.
    pub fn refused(self: &Arc<Self>, action: Action, request: &Request, response: &Response) {
        let outcome = if response.status() == StatusCode::FORBIDDEN { Outcome::Refused } else { Outcome::Failed };
        let mut entry = self.entry(action, outcome, request).to(request.object());
        entry.code = response.extensions().get::<ApiError>().map(|error| error.code.as_str().to_owned());
        self.write_refusal(entry);
    }

    /// A credential that was not accepted.
    pub fn unauthenticated(
        self: &Arc<Self>,
        address: IpAddr,
        request_id: crate::domain::ids::InvocationId,
        code: Code,
    ) {
        self.write_refusal(Entry {
            address: Some(address.to_string()),
            request_id: Some(request_id),
            code: Some(code.as_str().to_owned()),
            ..Entry::new(self.now(), Action::Authenticate, Outcome::Refused)
        });
    }

    fn write_refusal(self: &Arc<Self>, entry: Entry) {
        let (write, unsaid) = self.audit.admit(self.clock.monotonic());
        if !write && unsaid == 0 {
            return;
        }
        let controller = self.clone();
        // Nobody waits for it; at most `refusals_max` and one more are begun in a minute.
        tokio::spawn(async move {
            controller.write_unsaid(unsaid).await;
            if write {
                // Told in the log already.
                let _ = controller.audit.append(entry, Durability::Soon).await;
            }
        });
    }

    async fn write_unsaid(&self, unsaid: u64) {
        if unsaid > 0 {
            let entry = Entry { count: Some(unsaid), ..Entry::new(self.now(), Action::Refusals, Outcome::Refused) };
            let _ = self.audit.append(entry, Durability::Soon).await;
        }
    }

    /// What runs from now on, with what it was configured with; secrets hidden.
    ///
    /// # Errors
    /// If the log can't be written: then nothing can be changed.
    pub async fn audit_start(&self, config: &Config, made_admin_key: bool) -> Result<(), StoreError> {
        let mut entry = Entry::new(self.now(), Action::NodeStart, Outcome::Done);
        entry.detail = load::changed(config);
        entry.detail.insert("faasd".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        self.audit.append(entry, Durability::BeforeReturn).await?;
        if made_admin_key {
            let object = Object {
                name: Some("admin".to_owned()),
                owner: Some(super::auth::ADMIN_OWNER.to_owned()),
                ..Object::default()
            };
            let entry = Entry::new(self.now(), Action::KeyCreate, Outcome::Done).to(object);
            self.audit.append(entry, Durability::BeforeReturn).await?;
        }
        Ok(())
    }

    /// That the node was told to stop, and what was not written yet.
    pub async fn audit_drain(&self, signal: &str) {
        self.write_unsaid(self.audit.take_unsaid()).await;
        let mut entry = Entry::new(self.now(), Action::NodeDrain, Outcome::Done);
        entry.detail.insert("signal".to_owned(), signal.to_owned());
        let _ = self.audit.append(entry, Durability::BeforeReturn).await;
    }
}

/// What a line says of the request that it is about.
#[derive(Clone)]
pub struct Request {
    pub caller: Caller,
    pub address: IpAddr,
    /// Of the request, without its query.
    pub path: String,
}

impl Request {
    pub fn new(caller: Caller, address: IpAddr, path: &str) -> Self {
        Self { caller, address, path: path[..path.floor_char_boundary(PATH_BYTES_MAX)].to_owned() }
    }

    /// Where nothing better is known.
    fn object(&self) -> Object {
        Object { id: Some(self.path.clone()), ..Object::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_logged_and_no_look() {
        assert_eq!(action(&Method::GET, "/functions"), None);
        assert_eq!(action(&Method::HEAD, "/functions"), None);
        assert_eq!(action(&Method::POST, "/run"), None);
        assert_eq!(action(&Method::PATCH, "/functions/{id}"), Some(Action::FunctionUpdate));
        assert_eq!(action(&Method::DELETE, "/run"), Some(Action::Change));
        assert_eq!(action(&Method::POST, "/of-the-future"), Some(Action::Change));
    }
}
