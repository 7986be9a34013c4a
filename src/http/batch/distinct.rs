//! Which items of a request are the same trajectory, and the hash that names it for good.

use twox_hash::xxhash3_128::Hasher;

use crate::http::wire::{Item, Pointed, mix};
use crate::toolcall::reference_arguments;
use crate::trajectory::{Content, Message, Thinking, ToolFormat, Trajectory};

/// A distinct trajectory and the items that have it.
pub(super) struct Task {
    /// The first of them.
    pub(super) first: usize,
    /// The others.
    pub(super) repeats: Vec<usize>,
}

/// Equal trajectories share a task, where the group counts only those of one group; unreadable items have one each. Tasks are
/// in the order of their first items.
pub(super) fn distinct(items: &[Result<Item<'_>, Pointed>], group_counts: bool) -> Vec<Task> {
    /// Chains of different trajectories with the same policy text stay short: comparing costs their length.
    const MAX_CHAIN: usize = 8;
    let alike = |one: &Item<'_>, other: &Item<'_>| {
        one.trajectory == other.trajectory
            && one.own_tools == other.own_tools
            && (!group_counts || one.group == other.group)
    };
    let read = items.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_ref().ok()?)));
    let mut prints: Vec<_> = read.map(|(index, item)| (fingerprint(&item.trajectory), index, item)).collect();
    prints.sort_unstable_by_key(|(print, index, _)| (*print, *index));
    // The items that have the trajectory of an earlier one, with that one.
    let mut repeats: Vec<(usize, usize)> = Vec::new();
    for chain in prints.chunk_by(|one, other| one.0 == other.0).filter(|chain| chain.len() > 1) {
        let mut firsts: Vec<(usize, &Item<'_>)> = Vec::new();
        for (_, index, item) in chain {
            match firsts.iter().find(|(_, first)| alike(first, item)) {
                Some((first, _)) => repeats.push((*index, *first)),
                None if firsts.len() < MAX_CHAIN => firsts.push((*index, item)),
                None => {}
            }
        }
    }
    repeats.sort_unstable();
    let mut tasks: Vec<Task> = Vec::with_capacity(items.len() - repeats.len());
    let mut repeats = repeats.into_iter().peekable();
    for index in 0..items.len() {
        match repeats.next_if(|(repeat, _)| *repeat == index) {
            Some((_, first)) => {
                let place = tasks.binary_search_by_key(&first, |task| task.first);
                if let Some(task) = place.ok().and_then(|place| tasks.get_mut(place)) {
                    task.repeats.push(index);
                }
            }
            None => tasks.push(Task { first: index, repeats: Vec::new() }),
        }
    }
    tasks
}

/// Differs for nearly all different rollouts, at the cost of a look at the last turn's end. Whoever makes it equal for
/// others finds that they are compared, as far as a chain goes.
fn fingerprint(trajectory: &Trajectory<'_>) -> u64 {
    let mut last = "";
    let lengths = trajectory.turns().fold(trajectory.messages.len() as u64, |mixed, (_, turn)| {
        last = &turn.text;
        mix(mixed, last.len() as u64)
    });
    let end = last.as_bytes();
    let (words, rest) = end[end.len().saturating_sub(64)..].as_chunks::<8>();
    let mixed = words.iter().fold(lengths, |mixed, word| mix(mixed, u64::from_le_bytes(*word)));
    rest.iter().fold(mixed, |mixed, byte| mix(mixed, u64::from(*byte)))
}

/// Hash of what is scored: another id, group or order of fields is the same trajectory. `tools` is the hash of its tool list.
///
/// XXH3's 128 bits: it names what was scored in the store's records, and nothing is decided by it, so that nobody gains from
/// making two equal. A cryptographic hash takes a fifth of the time of scoring a short trajectory.
pub(super) fn content_hash(item: &Item<'_>, tools: u128) -> u128 {
    let trajectory = &item.trajectory;
    let mut hashing = BufferedHasher::default();
    let mut part = |kind: &str, text: &str| {
        hashing.add(kind.as_bytes());
        hashing.add(&(text.len() as u64).to_le_bytes());
        hashing.add(text.as_bytes());
    };
    for message in &trajectory.messages {
        match message {
            Message::Policy(turn) => {
                part("policy", &turn.text);
                part("reasoning", turn.reasoning.as_deref().unwrap_or_default());
                part("calls", turn.native_calls.unwrap_or_default());
                match turn.thinking {
                    Thinking::Outside => {}
                    Thinking::Begins => part("thinking", "begins"),
                    Thinking::Within => part("thinking", "within"),
                }
            }
            Message::Other { role, content: Content::Json(text) } => part(role.as_str(), text),
            Message::Other { role, content: Content::Text(text) } => part(role.as_str(), text),
        }
    }
    trajectory.references.iter().for_each(|reference| part("reference", reference));
    for call in trajectory.reference_calls.iter().flatten() {
        part("reference_call", &call.name);
        let mut arguments = serde_json::Value::Object(reference_arguments(call));
        arguments.sort_all_objects();
        part("arguments", &arguments.to_string());
    }
    part("format", trajectory.tool_format.map_or("", ToolFormat::as_str));
    part("truncated", if trajectory.truncated { "true" } else { "false" });
    if let Some(tokens) = trajectory.response_tokens {
        part("tokens", &tokens.to_string());
    }
    hashing.add(&tools.to_be_bytes());
    hashing.finish()
}

/// A hash of many parts. Short ones are gathered: hashing them one by one takes longer than copying them.
#[derive(Default)]
struct BufferedHasher {
    waiting: Vec<u8>,
    /// What came before, where that was much.
    hashed: Option<Hasher>,
}

impl BufferedHasher {
    /// Bytes that are gathered.
    const PIECE_BYTES: usize = 4 << 10;

    fn add(&mut self, bytes: &[u8]) {
        if self.waiting.len() + bytes.len() <= Self::PIECE_BYTES {
            if self.waiting.capacity() == 0 {
                self.waiting.reserve_exact(Self::PIECE_BYTES);
            }
            self.waiting.extend_from_slice(bytes);
            return;
        }
        let hasher = self.hashed.get_or_insert_with(Hasher::new);
        hasher.write(&self.waiting);
        self.waiting.clear();
        hasher.write(bytes);
    }

    fn finish(self) -> u128 {
        match self.hashed {
            None => Hasher::oneshot(&self.waiting),
            Some(mut hasher) => {
                hasher.write(&self.waiting);
                hasher.finish_128()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_does_not_change_the_hash() {
        let text: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        for sizes in [&[1, 7, 64][..], &[4 << 10, 3], &[40_000], &[4095, 1], &[100_000]] {
            let mut hashing = BufferedHasher::default();
            let mut rest = &text[..];
            for size in sizes.iter().cycle() {
                let (head, tail) = rest.split_at(rest.len().min(*size));
                hashing.add(head);
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            assert_eq!(hashing.finish(), Hasher::oneshot(&text), "{sizes:?}");
        }
    }
}
