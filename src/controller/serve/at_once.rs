//! A future that is polled again at once where it woke itself.
//!
//! hyper hands a request's body from one half of a connection's task to the other, and the half that takes it wakes the one that gave it:
//! the task wakes itself while it runs. The runtime then puts it at the end of its queue and wakes another of its threads to look for
//! work, which is a switch between threads, and a processor, for nothing, with every call.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Then it is others' turn: also, a task that has used up its time wakes itself until it has paused.
const ROUNDS_MAX: usize = 4;

#[derive(Default)]
struct State {
    task: AtomicWaker,
    polling: AtomicBool,
    woken: AtomicBool,
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        // Whoever polls looks at `woken` after it has ceased to poll, so that one of the two sees the other.
        if !self.polling.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

pub struct AtOnce<F> {
    future: F,
    state: Arc<State>,
    waker: Waker,
}

impl<F: Future + Unpin> AtOnce<F> {
    pub fn new(future: F) -> Self {
        let state = Arc::new(State::default());
        let waker = Waker::from(state.clone());
        Self { future, state, waker }
    }

    pub fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }
}

impl<F: Future + Unpin> Future for AtOnce<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, state, waker } = &mut *self;
        state.task.register(context.waker());
        for _ in 0..ROUNDS_MAX {
            state.woken.store(false, Ordering::SeqCst);
            state.polling.store(true, Ordering::SeqCst);
            let polled = Pin::new(&mut *future).poll(&mut Context::from_waker(waker));
            state.polling.store(false, Ordering::SeqCst);
            if polled.is_ready() || !state.woken.load(Ordering::SeqCst) {
                return polled;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task;

    use super::*;

    /// Counts how often its task is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn woken(task: &Task) -> usize {
        task.0.load(Ordering::SeqCst)
    }

    #[test]
    fn what_wakes_itself_is_polled_again_without_its_task_being_woken() {
        let task = Arc::new(Task::default());
        let waker = Waker::from(task.clone());
        let mut polls = 0;
        let mut future = AtOnce::new(std::future::poll_fn(|context| {
            polls += 1;
            if polls == 3 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_ready());
        drop(future);
        assert_eq!((polls, woken(&task)), (3, 0));
    }

    #[test]
    fn what_never_stops_waking_itself_lets_others_have_a_turn() {
        let task = Arc::new(Task::default());
        let waker = Waker::from(task.clone());
        let mut future = AtOnce::new(std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(woken(&task), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_from_elsewhere_is_lost() {
        for _ in 0..2000 {
            let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
            tokio::spawn(async move {
                for n in 0..4 {
                    let _ = send.send(n);
                }
            });
            let mut seen = 0;
            AtOnce::new(std::future::poll_fn(|context| {
                while let Poll::Ready(got) = receive.poll_recv(context) {
                    match got {
                        Some(_) => seen += 1,
                        None => return Poll::Ready(()),
                    }
                }
                task::Poll::Pending
            }))
            .await;
            assert_eq!(seen, 4);
        }
    }
}
