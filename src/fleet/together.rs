//! A worker in this process and those of others, as one executor: what a node that is both runs its calls by.
//!
//! ```text
//! idle here ─► here          room here ─► here, from a new sandbox          full here, draining, or it can't run here ─► another worker
//!                                                                           nobody else ─► in the line here
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::function::{Runtime, Version};
use crate::domain::ids::{InvocationId, VersionKey, WorkerId};
use crate::domain::invocation::Invocation;
use crate::domain::outcome::Outcome;
use crate::domain::policy::advice::Advice;
use crate::ports::executor::{
    BuildError, Builder, ExecuteError, Executor, Host, Order, OrderError, Storing, WorkerState, WorkerView,
};
use crate::ports::sandbox::LogSink;

use super::sender::Fleet;

pub struct Together {
    own: Arc<dyn Host>,
    others: Arc<Fleet>,
}

impl Together {
    pub fn new(own: Arc<dyn Host>, others: Arc<Fleet>) -> Arc<Self> {
        Arc::new(Self { own, others })
    }

    fn has_room(&self) -> bool {
        self.own
            .view()
            .is_some_and(|view| view.state == WorkerState::Active && view.waiting == 0 && view.active < view.capacity)
    }
}

/// Another worker may have it.
fn may_go_on(error: &ExecuteError) -> bool {
    matches!(
        error,
        ExecuteError::NoCapacity { .. }
            | ExecuteError::TooManyCalls { .. }
            | ExecuteError::Draining
            | ExecuteError::Stale
            | ExecuteError::Unsupported(_)
    )
}

#[async_trait]
impl Executor for Together {
    async fn execute(
        &self,
        invocation: Arc<Invocation>,
        acquire_timeout: Duration,
        log: Option<Arc<dyn LogSink>>,
    ) -> Result<Outcome, ExecuteError> {
        let begun = Instant::now();
        let left = || acquire_timeout.saturating_sub(begun.elapsed());
        match self.own.execute_idle(invocation.clone(), log.clone()).await {
            Err(error) if may_go_on(&error) => {}
            ended => return ended,
        }
        let mut refused = None;
        if self.has_room() {
            match self.own.execute(invocation.clone(), left(), log.clone()).await {
                Err(error) if may_go_on(&error) => refused = Some(error),
                ended => return ended,
            }
        }
        match (self.others.execute(invocation.clone(), left(), log.clone()).await, refused) {
            // Nobody had it: what was said here is nearer to the truth.
            (Err(ExecuteError::Unreachable(_)), Some(refused)) => Err(refused),
            (Err(error), None) if may_go_on(&error) || matches!(error, ExecuteError::Unreachable(_)) => {
                self.own.execute(invocation, left(), log).await
            }
            (ended, _) => ended,
        }
    }

    fn storing(&self, id: InvocationId) -> Option<Storing> {
        self.own.storing(id).or_else(|| self.others.storing(id))
    }

    async fn follow(&self, id: InvocationId, worker: WorkerId, log: Arc<dyn LogSink>) -> bool {
        self.others.follow(id, worker, log).await
    }

    fn cancel(&self, id: InvocationId) -> bool {
        self.own.cancel(id) || self.others.cancel(id)
    }

    fn retire(&self, version: VersionKey) {
        self.own.retire(version);
        self.others.retire(version);
    }

    fn prepare(&self, version: &Version) {
        self.own.prepare(version);
        self.others.prepare(version);
    }

    fn advice(&self, version: VersionKey) -> Option<Arc<Advice>> {
        self.own.advice(version).or_else(|| self.others.advice(version))
    }

    async fn resizes(&self) -> Vec<(VersionKey, u32)> {
        let mut all = self.own.resizes().await;
        for (version, memory_mb) in self.others.resizes().await {
            match all.iter_mut().find(|(own, _)| *own == version) {
                Some((_, most)) => *most = memory_mb.max(*most),
                None => all.push((version, memory_mb)),
            }
        }
        all
    }

    fn view(&self) -> Option<WorkerView> {
        self.own.view()
    }

    fn others(&self) -> Vec<WorkerView> {
        self.others.others()
    }

    async fn order(&self, worker: WorkerId, order: Order) -> Result<(), OrderError> {
        match self.own.order(worker, order).await {
            Err(OrderError::NotFound) => self.others.order(worker, order).await,
            done => done,
        }
    }
}

#[async_trait]
impl Builder for Together {
    async fn build(&self, runtime: Runtime, package: Bytes) -> Result<Bytes, BuildError> {
        match self.own.build(runtime, package.clone()).await {
            Err(BuildError::NoCompiler(_) | BuildError::Execute(ExecuteError::Draining)) => {
                self.others.build(runtime, package).await
            }
            built => built,
        }
    }
}
