//! Text to tokens and back, with special tokens read in trusted text only.
//!
//! In: a `tokenizer.json`, rendered prompts, token ids. Out: token ids, text, the tokens of labels. Inside untrusted text
//! the name of a special token is a word like any other. Knows no model and no chat template.

mod encode;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::AddedToken;

use super::untrusted::{Rendered, UntrustedError};

/// The file's name in a model directory.
const FILE: &str = "tokenizer.json";
/// Most characters of a prompt's end that a label's token is looked for behind.
const TAIL_CHARS: usize = 64;
/// Most tokens that an error lists.
const LISTED: usize = 12;

/// A tokenizer cannot be had, or cannot do what is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {message}; a model directory needs the tokenizer.json of its model", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The file is no tokenizer.
    #[error("{}: is no tokenizer: {message}; fetch the file again from the model's repository", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The tokenizer stumbled over a text.
    #[error("{}: cannot encode the text: {message}", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The tokenizer stumbled over tokens.
    #[error("{}: cannot decode the tokens: {message}", .path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A label has no token of its own.
    #[error(
        "the label {label:?} is {} tokens of {}: {}; use a shorter label such as Yes, No, A or 1, or the mode `generate`",
        .tokens.len(), .path.display(), shown(.tokens)
    )]
    LongLabel {
        /// The file.
        path: PathBuf,
        /// The label.
        label: String,
        /// Its tokens.
        tokens: Vec<String>,
    },
    /// Labels of which some have a token of their own only behind a space, and others only without one.
    #[error(
        "of the labels, {} are several tokens of {} behind a space and {} without one, and all are measured alike; use \
         labels such as Yes, No, A or 1, or the mode `generate`",
        shown(.spaced), .path.display(), shown(.bare)
    )]
    NoCommonForm {
        /// The file.
        path: PathBuf,
        /// Those that are several tokens with a space before them.
        spaced: Vec<String>,
        /// Those that are several tokens as they are.
        bare: Vec<String>,
    },
    /// Two labels begin alike.
    #[error(
        "the labels {first:?} and {second:?} are the same token {id}; use labels that differ in their first letters"
    )]
    SameToken {
        /// A label.
        first: String,
        /// Another one.
        second: String,
        /// Their token.
        id: u32,
    },
    /// The untrusted ranges do not describe the text.
    #[error(transparent)]
    Untrusted(#[from] UntrustedError),
}

/// What becomes of special tokens in decoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialText {
    /// Shown by name.
    Shown,
    /// Left out.
    Skipped,
}

/// A model's tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    added: BTreeMap<u32, AddedToken>,
    /// Added tokens that must not come out of untrusted text.
    control: BTreeSet<u32>,
    vocabulary: usize,
    /// Whether the vocabulary writes bytes as GPT-2 does.
    byte_level: bool,
}

/// What is read from the file besides the tokenizer itself.
#[derive(Deserialize)]
struct FileFields {
    model: ModelFields,
    #[serde(default)]
    decoder: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct ModelFields {
    /// Of most kinds.
    #[serde(default)]
    unk_token: Option<String>,
    /// Of `Unigram`.
    #[serde(default)]
    unk_id: Option<u32>,
}

/// The byte that GPT-2's vocabulary writes as a character: itself where it can be seen, one from 256 on where not.
fn byte_of(character: char) -> Option<u8> {
    let code = character as u32;
    let seen = |byte: u32| (33..=126).contains(&byte) || (161..=172).contains(&byte) || (174..=255).contains(&byte);
    let byte = if code < 256 {
        code
    } else {
        let place = usize::try_from(code - 256).ok()?;
        (0..256).filter(|byte| !seen(*byte)).nth(place)?
    };
    u8::try_from(byte).ok()
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or the file of that name in a directory.
    ///
    /// # Errors
    /// When there is no such file, or it is no tokenizer.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let path = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let bytes = std::fs::read(&path)
            .map_err(|error| TokenizerError::Unreadable { path: path.clone(), message: error.to_string() })?;
        Self::from_json(&path, &bytes)
    }

    /// Reads a tokenizer from the content of its file; `path` is what errors name.
    ///
    /// # Errors
    /// When it is no tokenizer.
    pub fn from_json(path: &Path, json: &[u8]) -> Result<Self, TokenizerError> {
        let malformed = |message: String| TokenizerError::Malformed { path: path.to_owned(), message };
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| malformed(error.to_string()))?;
        let fields: FileFields = serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
        // Some files carry the settings of the training run: a prompt must never be cut or filled up in silence.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| malformed(error.to_string()))?;
        let added: BTreeMap<u32, AddedToken> = inner.get_added_tokens_decoder().into_iter().collect();
        let unknown = fields.model.unk_token.and_then(|token| inner.token_to_id(&token)).or(fields.model.unk_id);
        let control = added.iter().filter(|(id, token)| Some(**id) != unknown && can_control(token));
        let control = control.map(|(id, _)| *id).collect();
        let last = inner.get_vocab(true).into_values().max();
        let vocabulary = last.map_or(0, |last| last as usize + 1);
        let byte_level = fields.decoder.as_ref().is_some_and(|decoder| decoder.to_string().contains("\"ByteLevel\""));
        Ok(Self { inner, path: path.to_owned(), added, control, vocabulary, byte_level })
    }

    /// The tokens of a prompt, without any that the tokenizer would add at its ends: chat templates write those.
    ///
    /// # Errors
    /// When the untrusted ranges do not describe the text, or the tokenizer cannot encode it.
    pub fn encode_prompt(&self, prompt: &Rendered) -> Result<Vec<u32>, TokenizerError> {
        let pieces = prompt.pieces()?;
        self.encode_pieces(&prompt.text, &pieces, &prompt.untrusted)
            .map_err(|error| TokenizerError::Encode { path: self.path.clone(), message: error.to_string() })
    }

    /// The tokens of a text of ours: special tokens are read in it, none is added.
    ///
    /// # Errors
    /// When the tokenizer cannot encode it.
    pub fn encode_trusted(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_prompt(&Rendered::trusted(text))
    }

    /// The tokens that a text has behind a text of ours, none of which is given; behind a line's end where the two would join
    /// to a token, and `None` where it joins to that, too. Some tokenizers write a text's first word differently from the
    /// others.
    ///
    /// # Errors
    /// When the untrusted ranges do not describe the text, or the tokenizer cannot encode it.
    pub fn encode_behind(&self, before: &str, text: &Rendered) -> Result<Option<Vec<u32>>, TokenizerError> {
        for before in [before, "\n"] {
            let mut whole = Rendered::trusted(before);
            whole.push_pieces(&text.pieces()?);
            let (whole, before) = (self.encode_prompt(&whole)?, self.encode_trusted(before)?);
            if let Some(own) = whole.strip_prefix(before.as_slice()) {
                return Ok(Some(own.to_vec()));
            }
        }
        Ok(None)
    }

    /// The text of tokens; ids that there are not are left out.
    ///
    /// # Errors
    /// When the tokenizer cannot decode them.
    pub fn decode(&self, ids: &[u32], special: SpecialText) -> Result<String, TokenizerError> {
        self.inner
            .decode(ids, special == SpecialText::Skipped)
            .map_err(|error| TokenizerError::Decode { path: self.path.clone(), message: error.to_string() })
    }

    /// The token of this very text.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token as the vocabulary writes it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes that a token of the vocabulary stands for; none for an id that there is not.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.inner.id_to_token(id) else { return Vec::new() };
        if self.byte_level {
            return token.chars().filter_map(byte_of).collect();
        }
        if let Some(byte) = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')) {
            return u8::from_str_radix(byte, 16).map_or_else(|_| token.clone().into_bytes(), |byte| vec![byte]);
        }
        token.replace('\u{2581}', " ").into_bytes()
    }

    /// The number of ids: one more than the highest. A model's output may have more rows, never fewer.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary
    }

    /// Special and other added tokens, by id.
    pub fn added_tokens(&self) -> &BTreeMap<u32, AddedToken> {
        &self.added
    }

    /// The tokens that each label may be when it is written behind `prompt_end`, the trusted end of the prompt, in their order:
    /// the one of the form that is due first.
    ///
    /// After a word or a colon a label begins with a space, after a space, a line or a special token it does not. A model may
    /// say it in the other form all the same, so that this one's token counts as well; each form only where all labels are one
    /// token in it: of two labels, one of which is measured in fewer forms, the other always gains.
    ///
    /// # Errors
    /// When not all of them are one token in the same form, or two have the same.
    pub fn label_tokens(&self, labels: &[String], prompt_end: &str) -> Result<Vec<Vec<u32>>, TokenizerError> {
        let tail = tail(prompt_end);
        let last = self.encode_trusted(tail)?.pop();
        let open = last.is_none_or(|id| self.added.contains_key(&id)) || tail.ends_with(char::is_whitespace);
        let [due, other] = if open { ["", " "] } else { [" ", ""] };
        let [due, other] = [self.in_form(labels, due, tail)?, self.in_form(labels, other, tail)?];
        match (each_one(&due), each_one(&other)) {
            (Some(due), other) => {
                let due = distinct(labels, due)?;
                Ok(match other.filter(|other| tells_apart(&due, other)) {
                    Some(other) => due.into_iter().zip(other).map(both).collect(),
                    None => due.into_iter().map(|id| vec![id]).collect(),
                })
            }
            (None, Some(other)) => Ok(distinct(labels, other)?.into_iter().map(|id| vec![id]).collect()),
            (None, None) => Err(self.no_form(labels, [&due, &other], open)),
        }
    }

    /// The tokens of each label behind a text, with `before` in front of it; none of a blank one. One that joins to whatever it
    /// stands behind has the tokens of its whole line.
    fn in_form(&self, labels: &[String], before: &str, tail: &str) -> Result<Vec<Vec<u32>>, TokenizerError> {
        let tokens = |label: &String| {
            if label.trim().is_empty() {
                return Ok(Vec::new());
            }
            // A label is text, even when it is spelt like a special token.
            let mut text = Rendered::default();
            text.push_untrusted(&format!("{before}{label}"));
            if let Some(own) = self.encode_behind(tail, &text)? {
                return Ok(own);
            }
            let mut line = Rendered::trusted("\n");
            line.push_pieces(&text.pieces()?);
            self.encode_prompt(&line)
        };
        labels.iter().map(tokens).collect()
    }

    /// Why no form, of the one that is due and the other, will do.
    fn no_form(&self, labels: &[String], [due, other]: [&[Vec<u32>]; 2], open: bool) -> TokenizerError {
        let path = self.path.clone();
        let mut forms = labels.iter().zip(due.iter().zip(other));
        if let Some((label, (due, _))) = forms.find(|(_, (due, other))| due.len() != 1 && other.len() != 1) {
            let tokens = due.iter().filter_map(|id| self.id_to_token(*id)).collect();
            return TokenizerError::LongLabel { path, label: label.clone(), tokens };
        }
        let several = |tokens: &[Vec<u32>]| {
            let several = labels.iter().zip(tokens).filter(|(_, tokens)| tokens.len() != 1);
            several.map(|(label, _)| label.clone()).collect()
        };
        let (bare, spaced) = if open { (due, other) } else { (other, due) };
        TokenizerError::NoCommonForm { path, spaced: several(spaced), bare: several(bare) }
    }
}

/// The tokens of labels that are one token each.
fn each_one(tokens: &[Vec<u32>]) -> Option<Vec<u32>> {
    tokens.iter().map(|own| if let [id] = own.as_slice() { Some(*id) } else { None }).collect()
}

/// The tokens of labels, no two of which are the same.
fn distinct(labels: &[String], ids: Vec<u32>) -> Result<Vec<u32>, TokenizerError> {
    let mut seen: BTreeMap<u32, &String> = BTreeMap::new();
    for (label, id) in labels.iter().zip(&ids) {
        if let Some(first) = seen.insert(*id, label) {
            return Err(TokenizerError::SameToken { first: first.clone(), second: label.clone(), id: *id });
        }
    }
    Ok(ids)
}

/// Whether the labels' tokens in their `other` form are no two labels', the ones in the form that is due included.
fn tells_apart(due: &[u32], other: &[u32]) -> bool {
    other.iter().enumerate().all(|(label, id)| {
        let is_other_labels = |ids: &[u32]| ids.iter().enumerate().any(|(place, other)| place != label && other == id);
        !is_other_labels(due) && !is_other_labels(other)
    })
}

/// A label's tokens in both forms, of which some tokenizers make one.
fn both((due, other): (u32, u32)) -> Vec<u32> {
    if due == other { vec![due] } else { vec![due, other] }
}

/// Whether a model could take an added token for a command. All of several characters may be one, special or not; runs of
/// white space and single characters, which some vocabularies list as added too, are plain text.
fn can_control(token: &AddedToken) -> bool {
    !token.content.trim().is_empty() && token.content.chars().nth(1).is_some()
}

/// The last characters of a prompt, from the start of a line where there is one: enough to see what a label stands behind.
fn tail(prompt_end: &str) -> &str {
    let start = prompt_end.char_indices().rev().nth(TAIL_CHARS - 1).map_or(0, |(byte, _)| byte);
    prompt_end.get(start..).unwrap_or_default()
}

fn shown(tokens: &[String]) -> String {
    let mut list: Vec<String> = tokens.iter().take(LISTED).map(|token| format!("{token:?}")).collect();
    if tokens.len() > LISTED {
        list.push("..".to_owned());
    }
    list.join(" ")
}
