//! The fleet: who runs functions, and how they are.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use http::StatusCode;
use serde_json::json;

use crate::controller::auth::Caller;
use crate::controller::error::ApiError;
use crate::controller::{Controller, body};
use crate::domain::audit::{Action, Object};
use crate::domain::ids::WorkerId;
use crate::domain::key::Scope;
use crate::domain::limits::KIB;
use crate::domain::page::Page;
use crate::ports::executor::{Order, OrderError, WorkerView};

use super::{Answer, Shared, changed, ok};

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

pub async fn cordon(state: Shared, caller: Caller, id: Path<String>) -> Answer {
    ordered(state, caller, id, Order::Cordon).await
}

pub async fn uncordon(state: Shared, caller: Caller, id: Path<String>) -> Answer {
    ordered(state, caller, id, Order::Uncordon).await
}

/// 202: it has begun; the worker ends when what runs there is over, or its drain time is.
pub async fn drain(state: Shared, caller: Caller, id: Path<String>) -> Answer {
    ordered(state, caller, id, Order::Drain).await
}

async fn ordered(State(controller): Shared, caller: Caller, Path(id): Path<String>, order: Order) -> Answer {
    caller.require(Scope::Admin)?;
    let worker: WorkerId = id.parse().map_err(|_| ApiError::from(OrderError::NotFound))?;
    controller.executor.order(worker, order).await?;
    let (action, status) = match order {
        Order::Cordon => (Action::WorkerCordon, StatusCode::OK),
        Order::Uncordon => (Action::WorkerUncordon, StatusCode::OK),
        Order::Drain => (Action::WorkerDrain, StatusCode::ACCEPTED),
    };
    let answer = super::json(status, &json!({ "success": true, "workerId": worker, "order": order }))?;
    Ok(changed(answer, action, Object { id: Some(worker.to_string()), ..Object::default() }))
}

impl Controller {
    pub fn workers(&self) -> Vec<WorkerView> {
        let known = self.executor.view().into_iter().chain(self.executor.others()).collect();
        self.fleet.workers(known, self.clock.monotonic())
    }
}
