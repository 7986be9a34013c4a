//! A text that puts numbers in order: `{"order":[2,3,1]}`, each of 1 to n once.
//!
//! The text is held to a JSON schema, which cannot say "once": what would name a number again is taken out of what may come
//! next, since a model that repeats itself would never come to an order.

use serde_json::{Value, json};

use super::LmError;
use super::constrain::Constraints;
use super::generate::{Guide, Next};
use super::reason::{SchemaGuide, ids};
use super::sample::{Drawn, Mask};

/// Leads into the numbers.
const LEAD: &[u8] = b"{\"order\":[";

/// The guide of one such text.
pub struct OrderGuide {
    text: SchemaGuide,
    numbers: Vec<String>,
}

impl OrderGuide {
    /// A guide to an order of the numbers 1 to `count`.
    ///
    /// # Errors
    /// When the text cannot be held to it.
    pub fn new(constraints: &Constraints, count: usize) -> Result<Self, LmError> {
        let schema = json!({
            "type": "object",
            "properties": {"order": {
                "type": "array", "items": {"enum": (1..=count).collect::<Vec<_>>()},
                "minItems": count, "maxItems": count,
            }},
            "required": ["order"],
            "additionalProperties": false,
        });
        let numbers = (1..=count).map(|number| number.to_string()).collect();
        Ok(Self { text: SchemaGuide::new(constraints, schema)?, numbers })
    }

    /// The order, as indices from 0; `None` when the text ended before it was whole.
    pub fn indices(&self) -> Option<Vec<usize>> {
        let value: Value = serde_json::from_slice(self.text.text()).ok()?;
        let index = |value: &Value| usize::try_from(value.as_u64()?).ok()?.checked_sub(1);
        value.get("order")?.as_array()?.iter().map(index).collect()
    }

    /// Whether the text can go on with a token and name each number once.
    fn can_say(&self, token: u32) -> bool {
        let text = self.text.text_with(token);
        let Some(said) = text.strip_prefix(LEAD) else { return true };
        // What ends the text may have digits in its name.
        let said = said.iter().position(|byte| *byte == b']').and_then(|end| said.get(..=end)).unwrap_or(said);
        let mut left: Vec<&[u8]> = self.numbers.iter().map(String::as_bytes).collect();
        let mut said: Vec<&[u8]> = said.split(|byte| !byte.is_ascii_digit()).collect();
        // The last one may still grow.
        let last = said.pop().unwrap_or_default();
        for number in said.into_iter().filter(|number| !number.is_empty()) {
            match left.iter().position(|unused| *unused == number) {
                Some(place) => left.swap_remove(place),
                None => return false,
            };
        }
        last.is_empty() || left.iter().any(|unused| unused.starts_with(last))
    }
}

impl Guide for OrderGuide {
    fn allowed(&mut self) -> Result<Option<Mask>, LmError> {
        let Some(mut mask) = self.text.allowed()? else { return Ok(None) };
        let again: Vec<u32> = ids(&mask).filter(|token| !self.can_say(*token)).collect();
        for token in again {
            if let Some(word) = mask.get_mut(token as usize / 32) {
                *word &= !(1 << (token % 32));
            }
        }
        Ok(Some(mask))
    }

    fn accept(&mut self, drawn: Drawn) -> Result<Next, LmError> {
        self.text.accept(drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::tokenizer::Tokenizer;

    /// What a model says that likes nothing as much as the first of `favourites` that it may say.
    fn order(count: usize, favourites: &[&str]) -> Vec<usize> {
        let file = include_bytes!("../../tests/small_judge/tokenizer.json");
        let mut file: Value = serde_json::from_slice(file).unwrap();
        let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
        for (control, word) in ["\u{100}", "\u{101}"].iter().zip(["1,", "12"]) {
            let id = vocabulary.remove(*control).unwrap();
            vocabulary.insert(word.to_owned(), id);
        }
        let tokenizer = Tokenizer::from_json("tokenizer.json".as_ref(), file.to_string().as_bytes()).unwrap();
        let constraints = Constraints::new(&tokenizer, 288, 262).unwrap();
        let mut guide = OrderGuide::new(&constraints, count).unwrap();
        for _ in 0..16 + 4 * count {
            let mask = guide.allowed().unwrap().unwrap();
            let said = guide.text.text().to_vec();
            let may_say = |text: &&str| {
                let whole = [&said, text.as_bytes()].concat();
                ids(&mask).find(|token| guide.text.text_with(*token) == whole)
            };
            let token = favourites.iter().find_map(may_say).or_else(|| ids(&mask).next()).unwrap();
            if guide.accept(Drawn { token, logprob: 0.0 }).unwrap() == Next::Stop {
                break;
            }
        }
        guide.indices().unwrap()
    }

    #[test]
    fn what_ends_the_text_may_have_a_number_in_its_name() {
        let file = include_bytes!("../../tests/small_judge/tokenizer.json");
        let mut file: Value = serde_json::from_slice(file).unwrap();
        let added = file["added_tokens"].as_array_mut().unwrap();
        let end = added.iter_mut().find(|token| token["id"] == 262).unwrap();
        let name = end["content"].as_str().unwrap().to_owned();
        end["content"] = "<|end_1|>".into();
        if let Some(id) = file["model"]["vocab"].as_object_mut().unwrap().remove(&name) {
            file["model"]["vocab"]["<|end_1|>"] = id;
        }
        let tokenizer = Tokenizer::from_json("tokenizer.json".as_ref(), file.to_string().as_bytes()).unwrap();
        let constraints = Constraints::new(&tokenizer, 288, 262).unwrap();
        let mut guide = OrderGuide::new(&constraints, 2).unwrap();
        let ends = (0..32).any(|_| {
            let mask = guide.allowed().unwrap().unwrap();
            let token = ids(&mask).next().expect("something can always be said");
            guide.accept(Drawn { token, logprob: 0.0 }).unwrap() == Next::Stop
        });
        assert!(ends);
    }

    #[test]
    fn a_model_that_repeats_itself_comes_to_an_order() {
        for favourites in [&["1"][..], &["1,"], &["12", "2"], &["2", "1", ","], &["9", ","]] {
            for count in [2, 3, 12, 64] {
                let mut found = order(count, favourites);
                found.sort_unstable();
                assert_eq!(found, (0..count).collect::<Vec<_>>(), "{favourites:?}");
            }
        }
        assert_eq!(order(3, &["3", "2"]), [2, 1, 0], "what it likes comes first");
    }
}
