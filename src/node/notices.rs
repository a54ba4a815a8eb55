//! What this node's machine is told of its end: taken seriously at once.

use std::sync::Arc;
use std::time::Duration;

use crate::ports::instance::{Instance, Notice};
use crate::worker::Worker;

/// Notice comes two minutes ahead; half a minute of that is a drain.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How the reasons begin that come from the instance, which is told when the node is done.
pub(super) const INSTANCE: &str = "instance";
const RECLAIMED: &str = "instance reclaimed";
const TERMINATING: &str = "instance terminating";

/// Cordons the worker at the first doubt; returns when the node is to end.
pub(super) async fn watch(instance: Arc<dyn Instance>, worker: Option<Arc<Worker>>) -> &'static str {
    let mut cordoned = false;
    loop {
        match instance.notice().await {
            Ok(Some(Notice::Reclaimed)) => return RECLAIMED,
            Ok(Some(Notice::Terminating)) => return TERMINATING,
            Ok(Some(Notice::Rebalance)) if !cordoned => {
                tracing::warn!("this instance is likely to be taken back: no new work is taken");
                if let Some(worker) = &worker {
                    worker.cordon(true);
                }
                cordoned = true;
            }
            Ok(Some(Notice::Rebalance) | None) => {}
            Err(error) => tracing::debug!(%error, "the instance's metadata do not answer"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
