//! Functions that asked for it are given the memory that their calls ask for, as their next version, now and then.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::domain::ids::VersionKey;

use super::Controller;
use super::api::functions::object;
use super::error::{ApiError, Code};
use super::spec::Settings;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A version is left alone for this long: each resize ends its warm sandboxes.
const AGE_MIN: Duration = Duration::from_secs(3600);

/// For ever, while the controller is there.
pub async fn resize_now_and_then(controller: Weak<Controller>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(controller) = controller.upgrade() else { return };
        controller.resize_what_asks().await;
    }
}

impl Controller {
    /// Publishes what is stable by now. A function that changed meanwhile is left alone.
    pub(super) async fn resize_what_asks(self: &Arc<Self>) {
        for (version, memory_mb) in self.executor.resizes().await {
            if self.is_draining() {
                return;
            }
            let id = version.function;
            match self.resize(version, memory_mb).await {
                Ok(true) => tracing::info!(function_id = %id, version = version.number, memory_mb, "function resized"),
                Ok(false) => {}
                Err(error) => tracing::warn!(function_id = %id, error = error.message, "function not resized"),
            }
        }
    }

    async fn resize(self: &Arc<Self>, version: VersionKey, memory_mb: u32) -> Result<bool, ApiError> {
        let registry = self.functions.registry();
        let (Some(function), Some(current)) =
            (registry.function(version.function).await?, registry.version(version).await?)
        else {
            return Ok(false);
        };
        let settled = self.now().since(current.created_at) >= AGE_MIN;
        if function.current != version.number || !current.auto_memory || !settled {
            return Ok(false);
        }
        self.audit_ready().await?;
        let settings = Settings { memory_mb: Some(memory_mb.into()), ..Settings::default() };
        let publishing = self.clone();
        self.to_the_end(async move {
            match publishing.publish_over(version, settings).await {
                Ok(resized) => publishing.audit_resize(object(&resized), memory_mb).await.map(|()| true),
                // Its owner, or another controller, was faster.
                Err(error) if error.code == Code::UpdateConflict => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }
}
