//! A future that its owner drives as long as the owner lives, and that goes on in a task of its own when the owner is dropped half-way.
//!
//! A call runs in its request's own task, without a hop to another thread, and still does not end with its client's connection.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

type Caught<T> = BoxFuture<'static, Result<T, Box<dyn Any + Send>>>;

/// Yields the future's value, or what it panicked with.
pub struct Detached<T: Send + 'static> {
    rest: Option<Caught<T>>,
}

impl<T: Send + 'static> Detached<T> {
    pub fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { rest: Some(AssertUnwindSafe(future).catch_unwind().boxed()) }
    }
}

impl<T: Send + 'static> Future for Detached<T> {
    type Output = Result<T, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(rest) = &mut self.rest else { return Poll::Pending };
        let polled = rest.as_mut().poll(context);
        if polled.is_ready() {
            self.rest = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        if let (Some(rest), Ok(runtime)) = (self.rest.take(), tokio::runtime::Handle::try_current()) {
            // Whoever started it counts it at a gate, which shutdown waits for.
            runtime.spawn(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn what_is_dropped_half_way_goes_on() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let half = Detached::new(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            tell.send(7).unwrap();
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), half).await.is_err());
        assert_eq!(told.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_value_or_a_panic_comes_back() {
        assert_eq!(Detached::new(async { 3 }).await.ok(), Some(3));
        assert!(Detached::new(async { panic!("on purpose") }).await.is_err());
    }
}
