//! The same request gives the same rewards, bit for bit: alone, in any order, in any batch size, under load.

use serde_json::{Value, json};

use super::contract::score;
use crate::common::{Server, case_requests, stable, with};

/// Every trajectory of the case files with its tools, and each again with another last turn: real text of all formats.
fn trajectories() -> Vec<Value> {
    let mut all = Vec::new();
    for (name, request) in case_requests() {
        for (index, item) in request["trajectories"].as_array().unwrap().iter().enumerate() {
            let mut item = with(item.clone(), "id", json!(format!("{name}/{index}")));
            if item["tools"].is_null() {
                item["tools"] = request["tools"].clone();
            }
            all.push(item.clone());
            if let Some(messages) = item["messages"].as_array_mut() {
                messages.push(json!({"role": "assistant", "content": "<answer>The answer is forty two</answer>"}));
                all.push(item);
            }
        }
    }
    assert!(all.len() > 64, "{}", all.len());
    all
}

fn request(items: &[Value]) -> Value {
    json!({"rubric": "short_form_qa", "step": 3, "trajectories": items})
}

fn results(server: &Server, items: &[Value]) -> Vec<Value> {
    score(server, &request(items))["results"].as_array().unwrap().iter().map(stable).collect()
}

/// A permutation of 0..n that is the same on every machine (a linear congruential generator and Fisher-Yates).
fn permutation(n: usize) -> Vec<usize> {
    let mut state: u64 = 7;
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, usize::try_from(state >> 33).unwrap() % (i + 1));
    }
    order
}

#[test]
fn batches_of_1_7_and_64_give_the_same_results() {
    let server = Server::start(&[]);
    let items = trajectories();
    let whole = results(&server, &items);
    for size in [1, 7, 64] {
        let parts: Vec<Value> = items.chunks(size).flat_map(|chunk| results(&server, chunk)).collect();
        assert_eq!(parts, whole, "batches of {size}");
    }
}

#[test]
fn the_order_of_a_batch_changes_nothing() {
    let server = Server::start(&[]);
    let items = trajectories();
    let whole = results(&server, &items);
    let order = permutation(items.len());
    let shuffled: Vec<Value> = order.iter().map(|index| items[*index].clone()).collect();
    for (place, result) in results(&server, &shuffled).iter().enumerate() {
        assert_eq!(result, &whole[order[place]], "{}", items[order[place]]["id"]);
    }
}

#[test]
fn sixteen_clients_at_once_get_what_one_gets() {
    let server = Server::start(&[]);
    let items = trajectories();
    let whole = results(&server, &items);
    let (server, items, whole) = (&server, &items, &whole);
    std::thread::scope(|scope| {
        for client in 0..16_usize {
            scope.spawn(move || {
                for (number, chunk) in items.chunks(5 + client).enumerate() {
                    let from = number * (5 + client);
                    assert_eq!(results(server, chunk), whole[from..from + chunk.len()], "client {client}");
                }
            });
        }
    });
}

#[test]
fn the_number_of_workers_and_a_restart_change_nothing() {
    let items = trajectories();
    let one = results(&Server::start(&["--threads", "1"]), &items);
    let four = results(&Server::start(&["--threads", "4"]), &items);
    assert_eq!(one, four);
}

#[test]
fn equal_texts_with_other_tools_or_references_are_not_taken_for_equal() {
    let server = Server::start(&[]);
    let call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call><answer>Paris</answer>";
    let item = |tools: Value, reference: &str| json!({"messages": [{"role": "assistant", "content": call}], "tools": tools, "references": [reference]});
    let strict = json!([{"type": "function", "function": {"name": "f", "parameters": {"required": ["x"]}}}]);
    let lax = json!([{"type": "function", "function": {"name": "f"}}]);
    let items = [item(strict.clone(), "Paris"), item(lax.clone(), "Paris"), item(lax, "Lyon"), item(strict, "Lyon")];
    let together = results(&server, &items);
    for (index, one) in items.iter().enumerate() {
        assert_eq!(results(&server, std::slice::from_ref(one))[0], together[index], "{index}");
    }
    assert_ne!(together[0]["reward"], together[1]["reward"]);
    assert_ne!(together[1]["reward"], together[2]["reward"]);
}
