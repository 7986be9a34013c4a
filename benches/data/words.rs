//! Prose and tool results. In: how long; out: text with names, numbers, punctuation and a few characters beyond ASCII.

use serde_json::{Value, json};

use super::random::Random;

const COMMON: &str = "the of and to in a is for on with as by at from that it are was be this which or an river council \
    treaty bridge signal market engine protein harvest museum orbit festival archive voltage glacier merchant library \
    compiler satellite harbour province dynasty enzyme railway painter novel senate battery canyon detector climate \
    emperor quarry measured described founded reported built revised estimated located connected signed expanded \
    replaced ancient northern annual digital coastal industrial early largest primary recent formal average total major \
    minor stable rapid public private central because although while during after before between within about through \
    under over request response cache index token policy reward agent trajectory sample batch update";
const NAMES: [&str; 10] = [
    "Ada Okafor",
    "Li Wei",
    "José Álvarez",
    "Marie Curie",
    "Søren Lund",
    "Tom O'Neill",
    "김민준",
    "Zoë Fischer",
    "Amélie Dubois",
    "Noor Haddad",
];
const PLACES: [&str; 10] =
    ["Lisbon", "São Paulo", "Kyoto", "Nairobi", "Reykjavík", "Montréal", "Hanoi", "Zürich", "Cape Town", "Tromsø"];

/// A common word.
pub fn word(random: &mut Random) -> &'static str {
    thread_local!(static WORDS: Vec<&'static str> = COMMON.split_whitespace().collect());
    WORDS.with(|words| random.pick(words))
}

/// A person.
pub fn name(random: &mut Random) -> &'static str {
    random.pick(&NAMES)
}

/// A city.
pub fn place(random: &mut Random) -> &'static str {
    random.pick(&PLACES)
}

/// Sentences of `count` words in all.
pub fn prose(random: &mut Random, count: usize) -> String {
    let mut text = String::new();
    let mut left = count;
    while left > 0 {
        let here = left.min(6 + random.below(13));
        if !text.is_empty() {
            text.push(' ');
        }
        text += &sentence(random, here);
        left -= here;
    }
    text
}

/// `text` with about `share` of its words.
pub fn thinned(random: &mut Random, text: &str, share: f64) -> String {
    let kept: Vec<&str> = text.split(' ').filter(|_| random.unit() < share).collect();
    if kept.is_empty() { text.to_owned() } else { kept.join(" ") }
}

fn sentence(random: &mut Random, count: usize) -> String {
    let mut words: Vec<String> = (0..count).map(|_| word(random).to_owned()).collect();
    if count > 3 {
        let special = match random.below(5) {
            0 => name(random).to_owned(),
            1 => place(random).to_owned(),
            2 => random.below(2025).to_string(),
            3 => format!("{:.1}%", random.unit() * 99.0),
            _ => format!("${},000", 1 + random.below(900)),
        };
        words[random.below(count)] = special;
    }
    if count > 8 {
        words[2 + random.below(count - 4)] += random.pick(&[",", ",", ";", " -", " (approx.)"]);
    }
    let text = words.join(" ");
    let end = if count > 6 { random.pick(&[".", ".", ".", "?", "!"]) } else { "." };
    let mut characters = text.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().to_string() + characters.as_str() + end)
}

/// What a tool gives back, about `bytes` long: search hits, rows, a log, a source file or a page.
pub fn result(random: &mut Random, bytes: usize) -> String {
    match random.below(5) {
        0 => json!({"results": filled(bytes, random, hit)}).to_string(),
        1 => json!({"columns": ["id", "name", "city", "total", "active"], "rows": filled(bytes, random, row)})
            .to_string(),
        2 => lines(bytes, random, log_line, "\n"),
        3 => lines(bytes, random, code_line, "\n"),
        _ => lines(bytes, random, |random| prose(random, (4 + bytes / 7).min(60)), "\n\n"),
    }
}

fn hit(random: &mut Random) -> Value {
    let url = format!("https://example.org/{}/{}", word(random), random.below(1_000_000));
    json!({"title": sentence(random, 6), "url": url, "snippet": prose(random, 18), "score": random.below(10_000) as f64 / 1e4})
}

fn row(random: &mut Random) -> Value {
    let total = random.below(500_000) as f64 / 100.0;
    json!([random.below(1_000_000), name(random), place(random), total, random.below(2) == 1])
}

fn log_line(random: &mut Random) -> String {
    let level = random.pick(&["INFO", "WARN", "ERROR"]);
    let (day, minute) = (10 + random.below(18), 10 + random.below(50));
    format!("2025-03-{day}T12:{minute}:07Z {level} [{}] {}", word(random), sentence(random, 9))
}

fn code_line(random: &mut Random) -> String {
    let target = format!("{}_{}", word(random), word(random));
    format!("    {target} = {}(\"{}\", {})", word(random), word(random), random.below(99))
}

fn filled(bytes: usize, random: &mut Random, make: fn(&mut Random) -> Value) -> Vec<Value> {
    let (mut items, mut size) = (Vec::new(), 0);
    while items.is_empty() || size < bytes {
        let item = make(random);
        size += item.to_string().len();
        items.push(item);
    }
    items
}

fn lines(bytes: usize, random: &mut Random, make: impl Fn(&mut Random) -> String, between: &str) -> String {
    let mut text = make(random);
    while text.len() < bytes {
        text += between;
        text += &make(random);
    }
    text
}
