//! Frames between the daemon and a sandbox: what one costs to make and to take apart, for a small call and for a large one.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use faasd::runtime::wire::{Invoke, Kind, ResultMeta, head};
use faasd::sandbox::frames::{Frames, Taken};

const ID: &str = "01980000-0000-7000-8000-000000000001";
const BODY_BYTES_MAX: u64 = 6 << 20;

fn result(body_bytes: usize) -> Vec<u8> {
    let meta = ResultMeta {
        id: ID.to_owned(),
        error: None,
        exit_code: None,
        handler_us: 42,
        llm_tokens: None,
        serving: false,
    };
    let mut frame = head(Kind::Result, &meta, body_bytes).expect("it fits a frame");
    frame.resize(frame.len() + body_bytes, b' ');
    frame
}

fn frames(criterion: &mut Criterion) {
    criterion.bench_function("frames/invoke encoded", |bencher| {
        let meta = Invoke { id: ID, deadline_ms: 1_760_000_000_000, model_id: None };
        bencher.iter(|| black_box(head(Kind::Invoke, black_box(&meta), 27)));
    });
    for body_bytes in [27, 1 << 10, 1 << 20] {
        let frame = result(body_bytes);
        let mut frames = Frames::default();
        criterion.bench_function(&format!("frames/result of {body_bytes} bytes taken"), |bencher| {
            bencher.iter(|| {
                let space: &mut BytesMut = frames.space();
                space.extend_from_slice(&frame);
                let Ok(Taken::Frame { meta, body }) = frames.take(Kind::Result, BODY_BYTES_MAX) else {
                    panic!("the frame is whole");
                };
                let meta: ResultMeta = serde_json::from_slice(&meta).expect("it was written here");
                black_box((meta, body));
            });
        });
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
