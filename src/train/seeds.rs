//! Every draw of a run, as a pure function of its seed and of what it is for: a resumed run draws what it would have drawn.

/// What a draw is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The order of the tasks or of the demonstrations, by epoch.
    Order,
    /// The tokens of a rollout, by how many were drawn before it.
    Rollout,
    /// The tokens of a turn that a server writes, by turn; its seed is the rollout's.
    Turn,
    /// The order of a batch's samples, by step and epoch.
    Shuffle,
    /// Where systematic resampling starts, by step.
    Resampling,
    /// The parameters of a fresh model.
    Parameters,
}

/// A number for a place in a run.
pub(super) fn draw(seed: u64, purpose: Purpose, place: [u64; 2]) -> u64 {
    let name = match purpose {
        Purpose::Order => "order",
        Purpose::Rollout => "rollout",
        Purpose::Turn => "turn",
        Purpose::Shuffle => "shuffle",
        Purpose::Resampling => "resampling",
        Purpose::Parameters => "parameters",
    };
    let hash = blake3::hash(format!("{seed} {name} {} {}", place[0], place[1]).as_bytes());
    hash.as_bytes().iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The numbers 0 to `count` in an order that `seed` makes.
pub(super) fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    order
}
