//! What was learned before a restart is known after it.

use super::*;
use crate::domain::ids::FunctionId;
use crate::domain::policy::learned::Lesson;

/// A worker that finds what the one before it left.
async fn next(before: Bench) -> Bench {
    before.worker.drain(Duration::from_secs(1)).await;
    let bench = bench_in(before.world.clone(), |_| ());
    bench.worker.recall().await;
    bench
}

#[tokio::test(start_paused = true)]
async fn advice_outlives_a_restart() {
    let mut bench = bench();
    let f = bench.function();
    for _ in 0..31 {
        bench.outcome(&f, "ok").await;
    }
    bench = next(bench).await;
    let known = bench.worker.advice(f.key()).expect("31 calls used 40 of 128 MB");
    assert_eq!((known.recommended_memory_mb, known.calls), (64, 31));
    assert_eq!(bench.outcome(&f, "ok").await.advice, Some(known), "the next call has it too");
    bench.worker.retire(f.key());
    assert_eq!(bench.worker.advice(f.key()), None);
}

#[tokio::test(start_paused = true)]
async fn what_changed_is_written_now_and_then_and_nothing_else() {
    let bench = bench();
    bench.worker.start();
    let f = bench.function();
    let written = || std::mem::take(&mut *bench.world.lessons.lock().unwrap());
    bench.outcome(&f, "ok").await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(written(), []);
    bench.outcome(&f, "ok").await;
    sleep(Duration::from_secs(301)).await;
    let versions: Vec<_> = written().iter().map(|lesson| (lesson.function, lesson.version)).collect();
    assert_eq!(versions, [(f.function_id, None), (f.function_id, Some(1))], "its pause, and its calls");
    sleep(Duration::from_secs(1200)).await;
    assert_eq!(written(), []);
    bench.worker.drain(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_unreadable_is_left_and_the_rest_is_read() {
    let mut bench = bench();
    let f = bench.function();
    for _ in 0..31 {
        bench.outcome(&f, "ok").await;
    }
    let garbage = |version| Lesson { function: FunctionId(Uuid::from_u128(99)), version, text: "{]".to_owned() };
    bench.world.lessons.lock().unwrap().extend([garbage(None), garbage(Some(1))]);
    bench = next(bench).await;
    assert!(bench.worker.advice(f.key()).is_some());
}
