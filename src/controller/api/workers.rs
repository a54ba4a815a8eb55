//! The fleet: who runs functions, and how they are.

use std::time::Duration;

use axum::extract::{Request, State};
use serde_json::json;

use crate::controller::auth::Caller;
use crate::controller::{Controller, body};
use crate::domain::key::Scope;
use crate::domain::limits::KIB;
use crate::domain::page::Page;
use crate::ports::executor::WorkerView;

use super::{Answer, Shared, ok};

const BODY_BYTES_MAX: u64 = 64 * KIB;

pub async fn heartbeat(State(controller): Shared, caller: Caller, request: Request) -> Answer {
    caller.require(Scope::Admin)?;
    let (parts, body) = request.into_parts();
    let within = Duration::from_millis(controller.config.http.body_timeout_ms);
    let bytes = body::read(&parts.headers, body, BODY_BYTES_MAX, within, "the heartbeat").await?;
    let mut view: WorkerView = body::object(&bytes)?;
    // By this node's clock: a worker's own may be wrong.
    view.last_seen = controller.clock.now();
    controller.fleet.hear(view, controller.clock.monotonic());
    ok(&json!({ "success": true }))
}

pub async fn list(State(controller): Shared, caller: Caller) -> Answer {
    caller.require(Scope::Read)?;
    ok(&Page { items: controller.workers(), next_cursor: None })
}

impl Controller {
    pub fn workers(&self) -> Vec<WorkerView> {
        let known = self.executor.view().into_iter().chain(self.executor.others()).collect();
        self.fleet.workers(known, self.clock.monotonic())
    }
}
