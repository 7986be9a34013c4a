//! Walking through a text from marker to marker, outside reasoning (rules T1 to T5). In: the opening markers of a
//! format; out: where they stand, in order; the reasoning itself is recorded on the way. Knows no format's syntax.

use super::find::find;
use super::scan::Scan;
use crate::trajectory::THINK_END;

/// Which tags open and close reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tags {
    /// `<think>` and `</think>`.
    Think,
    /// These and `[THINK]` and `[/THINK]` (mistral).
    ThinkAndBrackets,
}

/// Whether the walk also stops where the message starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stops {
    /// At opening markers only.
    Openers,
    /// Also at the first text after leading reasoning and blanks.
    StartAndOpeners,
}

/// A stop of the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// The message starts here, after leading reasoning and blanks.
    Start { at: usize },
    /// The opening marker of this index stands here and ends there.
    Opener { which: usize, at: usize, end: usize },
}

/// A walk over the text of a [`Scan`].
pub(super) struct Walk<const N: usize> {
    openers: [Seek; N],
    tags: TagSeek,
    at: usize,
    /// No tag was met yet, so that a closing one belongs to reasoning that the prompt's template opened (T2).
    first_tag: bool,
    /// Only blanks and reasoning were passed, and a stop at the start is wanted.
    leading: bool,
    stops: Stops,
    restarted: bool,
}

impl<const N: usize> Walk<N> {
    pub(super) fn new(openers: [&'static str; N], tags: Tags, stops: Stops) -> Self {
        Self {
            openers: openers.map(Seek::new),
            tags: TagSeek::new(tags),
            at: 0,
            first_tag: true,
            leading: stops == Stops::StartAndOpeners,
            stops,
            restarted: false,
        }
    }

    /// Goes on from `at`; never backwards.
    pub(super) fn resume(&mut self, at: usize) {
        self.at = self.at.max(at);
    }

    /// Whether all before the latest stop turned out to be reasoning (T2) since this was last asked. The attempts are
    /// forgotten already; a family that keeps state of its own drops it.
    pub(super) fn take_restart(&mut self) -> bool {
        std::mem::take(&mut self.restarted)
    }

    /// The next stop, passing and recording reasoning.
    pub(super) fn next(&mut self, scan: &mut Scan<'_, '_>) -> Option<Mark> {
        let text = scan.text;
        if std::mem::take(&mut scan.thinking) {
            self.pass(Tag { at: 0, end: 0, kind: TagKind::Opens { closer: THINK_END } }, scan);
        }
        loop {
            let tag = self.tags.next(text, self.at);
            if self.leading {
                let start = text.len() - scan.rest(self.at).trim_start().len();
                if tag.is_none_or(|tag| tag.at != start) {
                    self.leading = false;
                    if start < text.len() {
                        return Some(Mark::Start { at: start });
                    }
                }
            }
            let opener = self.next_opener(text);
            match (opener, tag) {
                (Some((which, at)), tag) if tag.is_none_or(|tag| at < tag.at) => {
                    let end = at + self.openers.get(which).map_or(0, |seek| seek.marker.len());
                    self.at = end;
                    return Some(Mark::Opener { which, at, end });
                }
                (_, Some(tag)) => self.pass(tag, scan),
                _ => return None,
            }
        }
    }

    fn next_opener(&mut self, text: &str) -> Option<(usize, usize)> {
        let from = self.at;
        let hits = self.openers.iter_mut().enumerate();
        hits.filter_map(|(which, seek)| Some((which, seek.next(text, from)?))).min_by_key(|(_, at)| *at)
    }

    /// Passes a reasoning tag and, if it opens, all up to its closer.
    fn pass(&mut self, tag: Tag, scan: &mut Scan<'_, '_>) {
        let first = std::mem::replace(&mut self.first_tag, false);
        self.at = tag.end;
        match tag.kind {
            TagKind::Closes if first => {
                scan.forget();
                scan.parsed.reasoning.push(0..tag.end);
                self.restarted = true;
                self.leading = self.stops == Stops::StartAndOpeners;
            }
            // A stray closer is content, so that the message starts with it.
            TagKind::Closes => self.leading = false,
            TagKind::Opens { closer } => {
                let found = find(scan.rest(tag.end).as_bytes(), closer);
                self.at = found.map_or(scan.text.len(), |length| tag.end + length + closer.len());
                scan.parsed.reasoning.push(tag.at..self.at);
                if found.is_none() {
                    scan.parsed.reasoning_open = Some(tag.at..self.at);
                }
            }
        }
    }
}

/// Records the reasoning of a text in which no calls are looked for.
pub(super) fn only(scan: &mut Scan<'_, '_>) {
    let mut walk = Walk::new([], Tags::Think, Stops::Openers);
    while walk.next(scan).is_some() {}
}

#[derive(Debug, Clone, Copy)]
struct Tag {
    at: usize,
    end: usize,
    kind: TagKind,
}

#[derive(Debug, Clone, Copy)]
enum TagKind {
    Opens { closer: &'static str },
    Closes,
}

/// Looks for reasoning tags: one search finds the end that opening and closing tag share.
struct TagSeek {
    angle: Seek,
    bracket: Option<Seek>,
}

impl TagSeek {
    fn new(tags: Tags) -> Self {
        let bracket = (tags == Tags::ThinkAndBrackets).then(|| Seek::new("THINK]"));
        Self { angle: Seek::new("think>"), bracket }
    }

    fn next(&mut self, text: &str, from: usize) -> Option<Tag> {
        let angle = next_tag(&mut self.angle, text, from, b'<', "</think>");
        let bracket = self.bracket.as_mut().and_then(|seek| next_tag(seek, text, from, b'[', "[/THINK]"));
        match (angle, bracket) {
            (Some(angle), Some(bracket)) => Some(if angle.at < bracket.at { angle } else { bracket }),
            (angle, bracket) => angle.or(bracket),
        }
    }
}

fn next_tag(seek: &mut Seek, text: &str, from: usize, bracket: u8, closer: &'static str) -> Option<Tag> {
    let mut searched = from;
    loop {
        let tail = seek.next(text, searched)?;
        let end = tail + seek.marker.len();
        match text.as_bytes().get(from..tail).unwrap_or_default() {
            [.., byte] if *byte == bracket => {
                return Some(Tag { at: tail - 1, end, kind: TagKind::Opens { closer } });
            }
            [.., byte, b'/'] if *byte == bracket => return Some(Tag { at: tail - 2, end, kind: TagKind::Closes }),
            _ => searched = end,
        }
    }
}

/// The next place of a marker, remembered, so that a walk searches each byte once per marker.
struct Seek {
    marker: &'static str,
    next: Next,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Unknown,
    At(usize),
    Nowhere,
}

impl Seek {
    fn new(marker: &'static str) -> Self {
        Self { marker, next: Next::Unknown }
    }

    /// The first place at or after `from`, which must not go backwards between calls.
    fn next(&mut self, text: &str, from: usize) -> Option<usize> {
        match self.next {
            Next::At(at) if at >= from => return Some(at),
            Next::Nowhere => return None,
            Next::At(_) | Next::Unknown => {}
        }
        let rest = text.as_bytes().get(from..).unwrap_or_default();
        let found = find(rest, self.marker).map(|length| from + length);
        self.next = found.map_or(Next::Nowhere, Next::At);
        found
    }
}
