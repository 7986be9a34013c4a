//! Checking arguments: finding a list of tools that was seen before, reading a new one, and validating flat and nested
//! arguments. In: the tools of the generated trajectories; out: time per list and per call.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gradus::toolcall::schema::{Check, SchemaCache};
use serde_json::{Value, json};

mod data;

use data::tools::POOL;

const CACHE_BYTES: u64 = 64 << 20;

fn list(tools: usize) -> String {
    POOL.iter().take(tools).map(|tool| tool.entry()).collect::<Value>().to_string()
}

fn lists(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schema/list");
    for tools in [2, 5, 10] {
        let text = list(tools);
        let cache = SchemaCache::new(CACHE_BYTES);
        cache.tools(&text, false);
        group.bench_function(format!("seen/{tools}"), |bencher| bencher.iter(|| cache.tools(black_box(&text), false)));
        let new = || {
            let cache = SchemaCache::new(CACHE_BYTES);
            let set = cache.tools(black_box(&text), false);
            // Compiling waits for the first use.
            set.iter().filter(|tool| tool.problem().is_some()).count()
        };
        assert_eq!(new(), 0, "every schema of the pool compiles");
        group.bench_function(format!("new/{tools}"), |bencher| bencher.iter(new));
    }
    group.finish();
}

fn validation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schema/check");
    let tools = SchemaCache::new(CACHE_BYTES).tools(&list(POOL.len()), false);
    let nested = json!({"customer_id": "C-004211",
        "items": [{"sku": "ABC-0042", "quantity": 3, "options": {"colour": "red"}}, {"sku": "ABC-1234", "quantity": 1}],
        "shipping": {"type": "delivery", "express": true,
            "address": {"street": "7 harbour street", "city": "Kyoto", "zip": "12345"}}});
    let condition = json!({"table": "orders", "set": {"by": "Li Wei"}, "where": {"and": [
        {"field": "total", "op": "gt", "value": 10},
        {"or": [{"field": "city", "op": "eq", "value": "Hanoi"}, {"field": "id", "op": "in", "value": [1, 2]}]}]}});
    let cases = [
        ("flat", "web_search", json!({"query": "river of Prague", "top_k": 5, "lang": "en"}), true),
        ("flat_wrong", "web_search", json!({"query": "ab", "top_k": 51, "language": "en"}), false),
        ("nested", "create_order", nested, true),
        ("recursive", "update_records", condition, true),
        ("nested_wrong", "create_order", json!({"customer_id": "4211", "items": [], "shipping": {"type": "x"}}), false),
    ];
    for (case, tool, arguments, valid) in cases {
        let tool = tools.get(tool).unwrap_or_else(|| panic!("{tool} is in the pool"));
        assert_eq!(tool.check(&arguments) == Check::Valid, valid, "{case}");
        group.bench_function(case, |bencher| bencher.iter(|| tool.check(black_box(&arguments))));
    }
    group.finish();
}

criterion_group!(benches, lists, validation);
criterion_main!(benches);
