//! A whole request: body in, answer out, as the server scores it, against the parse floor on the same bodies. In: batches
//! of 64 generated trajectories; out: time per batch, on one core (`score/1`) and on all.

use std::hint::black_box;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use gradus::http::batch::{Engine, Overrides, Stop};
use gradus::judge::Session;
use gradus::rubric::Catalog;

mod data;

use data::{Size, bodies, floor};

const BATCH: usize = 64;
const BODIES: usize = 8;
const CACHE_BYTES: u64 = 64 << 20;

// The server's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn engine() -> Engine {
    let catalog = Catalog::open(None).unwrap_or_else(|error| panic!("the shipped rubrics open: {error}"));
    Engine::new(catalog, CACHE_BYTES)
}

fn pipeline(criterion: &mut Criterion) {
    let engine = engine();
    let single = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let single = single.unwrap_or_else(|error| panic!("a thread starts: {error}"));
    for size in Size::ALL {
        let bodies = bodies(size, BATCH, BODIES);
        let score = |body: &str| {
            let scored = engine.score(black_box(body), &Overrides::default(), &Stop::default(), &Session::default());
            scored.unwrap_or_else(|error| panic!("the generated requests are well-formed: {error:?}")).body.len()
        };
        let mut group = criterion.benchmark_group(format!("pipeline/{}", size.name()));
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(BATCH as u64));
        // The next body each time: no measurement finds its own bytes still in the cache.
        group.bench_function("floor", |bencher| {
            let mut next = bodies.iter().cycle();
            bencher.iter(|| next.next().map(|body| floor::read(black_box(body.as_bytes())).is_ok()));
        });
        group.bench_function("score/1", |bencher| {
            let mut next = bodies.iter().cycle();
            bencher.iter(|| next.next().map(|body| single.install(|| score(body))));
        });
        group.bench_function("score", |bencher| {
            let mut next = bodies.iter().cycle();
            bencher.iter(|| next.next().map(|body| score(body)));
        });
        group.finish();
    }
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
