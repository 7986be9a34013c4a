//! Which sequences of a batch share a prefix that is worth computing once. Pure.

/// Shortest prefix that is shared, in tokens: below it, a segment of its own costs more than it saves.
pub(super) const MIN_SHARED: usize = 16;

/// Sequences that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Indices of the sequences.
    pub(super) members: Vec<usize>,
    /// How many tokens they share; 0 for a group of one. Leaves every member at least one token of its own.
    pub(super) shared: usize,
}

/// How many tokens two sequences have in common at their start.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Groups sequences so that as many tokens as possible are computed once. Every index is in exactly one group; groups
/// stand in the order of their first members.
pub(super) fn group(sequences: &[&[u32]]) -> Vec<Group> {
    let tokens = |index: usize| sequences.get(index).copied().unwrap_or_default();
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by(|a, b| tokens(*a).cmp(tokens(*b)).then(a.cmp(b)));
    let mut groups: Vec<Group> = Vec::new();
    let mut last: &[u32] = &[];
    for index in order {
        let current = tokens(index);
        // Each keeps a token of its own, whose row gives the logits.
        let with_last = common(last, current).min(current.len().saturating_sub(1)).min(last.len().saturating_sub(1));
        last = current;
        if let Some(group) = groups.last_mut() {
            let shared = if group.members.len() == 1 { with_last } else { group.shared.min(with_last) };
            let saved = (group.members.len() - 1) * group.shared;
            if shared >= MIN_SHARED && group.members.len() * shared >= saved {
                group.members.push(index);
                group.shared = shared;
                continue;
            }
        }
        groups.push(Group { members: vec![index], shared: 0 });
    }
    for group in &mut groups {
        group.members.sort_unstable();
    }
    groups.sort_by_key(|group| group.members.first().copied());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sequence(prefix: u32, len: usize, own: &[u32]) -> Vec<u32> {
        std::iter::repeat_n(prefix, len).chain(own.iter().copied()).collect()
    }

    #[test]
    fn rollouts_of_a_prompt_share_it() {
        let all = [sequence(1, 40, &[7, 8]), sequence(2, 40, &[7]), sequence(1, 40, &[9]), sequence(2, 40, &[8])];
        let slices: Vec<&[u32]> = all.iter().map(Vec::as_slice).collect();
        let groups = group(&slices);
        assert_eq!(groups, [Group { members: vec![0, 2], shared: 40 }, Group { members: vec![1, 3], shared: 40 }]);
    }

    #[test]
    fn equal_sequences_keep_a_token_each() {
        let one = sequence(1, 40, &[]);
        assert_eq!(group(&[&one, &one]), [Group { members: vec![0, 1], shared: 39 }]);
    }

    #[test]
    fn a_long_prefix_of_many_is_not_given_up_for_one_more() {
        let mut all: Vec<Vec<u32>> =
            (0..8).map(|own| [sequence(1, 20, &[]), sequence(2, 500, &[own])].concat()).collect();
        all.push([sequence(1, 20, &[]), sequence(3, 500, &[])].concat());
        let slices: Vec<&[u32]> = all.iter().map(Vec::as_slice).collect();
        assert_eq!(group(&slices)[0], Group { members: (0..8).collect(), shared: 520 });
        assert_eq!(group(&slices).len(), 2);
    }

    proptest! {
        #[test]
        fn every_sequence_is_in_one_group_and_shares_what_is_said(
            all in prop::collection::vec(prop::collection::vec(0..2u32, 1..40), 0..30)
        ) {
            let slices: Vec<&[u32]> = all.iter().map(Vec::as_slice).collect();
            let groups = group(&slices);
            let mut seen: Vec<usize> = groups.iter().flat_map(|group| group.members.clone()).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..all.len()).collect::<Vec<_>>());
            for group in groups {
                let first = &all[group.members[0]];
                prop_assert!(group.shared == 0 || group.shared >= MIN_SHARED);
                for member in group.members {
                    prop_assert!(all[member].len() > group.shared);
                    prop_assert_eq!(&all[member][..group.shared], &first[..group.shared]);
                }
            }
        }
    }
}
