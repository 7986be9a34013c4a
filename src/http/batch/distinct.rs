//! Which items of a request are the same trajectory, and the hash that names it for good.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::http::wire::{Item, Pointed};
use crate::trajectory::{Content, Message, ToolFormat, Trajectory};

/// A distinct trajectory and the items that have it.
pub(super) struct Task {
    pub(super) owners: Vec<usize>,
}

/// Equal trajectories share a task, where the group counts only those of one group; unreadable items have one each.
pub(super) fn distinct(items: &[Result<Item<'_>, Pointed>], group_counts: bool) -> Vec<Task> {
    /// Chains of different trajectories with the same policy text stay short: comparing costs their length.
    const MAX_CHAIN: usize = 8;
    let state = RandomState::new();
    let mut seen: HashMap<u64, Vec<usize>> = HashMap::with_capacity(items.len());
    let mut tasks: Vec<Task> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        if let Ok(item) = item {
            let chain = seen.entry(fingerprint(&item.trajectory, &state)).or_default();
            let equal = chain.iter().copied().find(|&task| {
                let first = tasks.get(task).and_then(|task: &Task| task.owners.first()).and_then(|&owner| items.get(owner));
                matches!(first, Some(Ok(other)) if other.trajectory == item.trajectory && other.own_tools == item.own_tools
                    && (!group_counts || other.group == item.group))
            });
            if let Some(task) = equal.and_then(|task| tasks.get_mut(task)) {
                task.owners.push(index);
                continue;
            }
            if chain.len() < MAX_CHAIN {
                chain.push(tasks.len());
            }
        }
        tasks.push(Task { owners: vec![index] });
    }
    tasks
}

/// Differs for nearly all different rollouts, at the cost of a look at the last turn's end.
fn fingerprint(trajectory: &Trajectory<'_>, state: &RandomState) -> u64 {
    let last = trajectory.turns().next_back().map_or("", |(_, turn)| &turn.text);
    let end = last.as_bytes();
    let lengths: Vec<usize> = trajectory.turns().map(|(_, turn)| turn.text.len()).collect();
    state.hash_one((trajectory.messages.len(), lengths, &end[end.len().saturating_sub(64)..]))
}

/// Hash of what is scored: another id, group or order of fields is the same trajectory.
pub(super) fn content_hash(item: &Item<'_>, shared_tools: blake3::Hash) -> [u8; 16] {
    let trajectory = &item.trajectory;
    let mut hasher = blake3::Hasher::new();
    let mut part = |kind: &str, text: &str| {
        hasher.update(kind.as_bytes());
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    for message in &trajectory.messages {
        match message {
            Message::Policy(turn) => {
                part("policy", &turn.text);
                part("reasoning", turn.reasoning.as_deref().unwrap_or_default());
                part("calls", turn.native_calls.unwrap_or_default());
            }
            Message::Other { role, content: Content::Json(text) } => part(role.as_str(), text),
            Message::Other { role, content: Content::Text(text) } => part(role.as_str(), text),
        }
    }
    let tools = if item.own_tools { blake3::hash(trajectory.tools.as_bytes()) } else { shared_tools };
    part("tools", &tools.to_hex());
    trajectory.references.iter().for_each(|reference| part("reference", reference));
    for call in trajectory.reference_calls.iter().flatten() {
        part("reference_call", &call.name);
        let mut arguments = call.arguments.clone();
        arguments.sort_all_objects();
        part("arguments", &arguments.to_string());
    }
    part("format", trajectory.tool_format.map_or("", ToolFormat::as_str));
    part("truncated", if trajectory.truncated { "true" } else { "false" });
    part("tokens", &trajectory.response_tokens.map_or_else(String::new, |tokens| tokens.to_string()));
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    hash
}
