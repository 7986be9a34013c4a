//! Finding a marker in a text. In: bytes and a marker; out: where it stands. Markers are short, and each has a byte that
//! is rare in prose, so that looking for that byte beats preparing a searcher for every turn.

use memchr::memchr_iter;

/// The first place of a marker.
pub(super) fn find(text: &[u8], marker: &str) -> Option<usize> {
    find_iter(text, marker).next()
}

/// The places of a marker; they may overlap.
pub(super) fn find_iter<'t>(text: &'t [u8], marker: &'t str) -> impl Iterator<Item = usize> + 't {
    let marker = marker.as_bytes();
    let anchor = marker.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(0);
    let byte = marker.get(anchor).copied().unwrap_or(b'\n');
    memchr_iter(byte, text).filter_map(move |at| {
        let start = at.checked_sub(anchor)?;
        text.get(start..)?.starts_with(marker).then_some(start)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_plain_search_finds(text in "[a<>\\[:t]{0,40}", marker in "[a<>\\[:t]{1,3}") {
            prop_assert_eq!(find(text.as_bytes(), &marker), text.find(&marker));
        }
    }
}
