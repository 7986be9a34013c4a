//! A conversation as the policy sees it: tokens. In: tools, messages, texts of turns, tool results. Out: token ids, and what
//! of a turn's text they have written already.
//!
//! What the policy wrote is never tokenised again: the tokens that it drew are the tokens that it learns from. Questions,
//! passages and tool results are untrusted: they cannot speak the model's special tokens.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::TrainError;
use super::env::Message;
use crate::lm::chat_template::{ChatEnd, ChatMessage, ChatOptions, ChatTemplate};
use crate::lm::tokenizer::{SpecialText, Tokenizer};
use crate::lm::untrusted::Rendered;
use crate::lm::{ModelConfig, end_tokens};
use crate::trajectory::Role;

/// Stands for a turn of the policy while a template is asked what comes after one. Templates trim and search texts for
/// tags; a plain word passes through them.
const TURN: &str = "gradus-turn";
/// What opens reasoning. Templates of models that always reason write it for them.
const THINK: &str = "<think>";

/// How a model writes conversations down, and the tools that they are about.
#[derive(Debug, Clone)]
pub struct Protocol {
    tokenizer: Arc<Tokenizer>,
    template: Arc<ChatTemplate>,
    /// A JSON list in `OpenAI`'s form; none where there is no tool.
    tools: Option<String>,
    /// All that end a turn.
    ends: Vec<u32>,
    /// The one of them that the template writes.
    end: u32,
    /// What the template writes behind a question.
    asked: String,
}

/// What stands before a turn of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnStart {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// What it has of the turn's own text: `<think>` and the line's end behind it, or nothing.
    pub begun: String,
}

impl Protocol {
    /// Reads tokenizer and chat template of a directory, for conversations about `tools`: a JSON list, empty for none.
    ///
    /// # Errors
    /// What is wrong with which file; a tokenizer that has more tokens than the model; no token that ends a turn; tools
    /// that are no list.
    pub fn load(dir: &Path, config: &ModelConfig, tools: &str) -> Result<Self, TrainError> {
        let tokenizer = Tokenizer::load(dir)?;
        let template = ChatTemplate::load(dir, None)?;
        if tokenizer.vocabulary_size() > config.vocab {
            return Err(TrainError::other(format!(
                "{}: tokenizer.json has {} tokens and the model {}: they belong to different models",
                dir.display(),
                tokenizer.vocabulary_size(),
                config.vocab
            )));
        }
        let ends = end_tokens(dir, &tokenizer, &config.eos_tokens);
        let first = ends.first().copied().ok_or_else(|| {
            TrainError::other(format!("{}: no token ends a turn; set `eos_token_id` in config.json", dir.display()))
        })?;
        let (tokenizer, template) = (Arc::new(tokenizer), Arc::new(template));
        let asked = String::new();
        let mut protocol = Self { tokenizer, template, tools: listed(tools)?, ends, end: first, asked };
        let question = Message { role: Role::User, text: "?".to_owned() };
        protocol.asked = protocol.render(&[question])?.trusted_end().to_owned();
        // The files name several in no order: Llama 3's first is not the one that ends its turns.
        let written = protocol.behind_turn(&[])?.and_then(|tail| protocol.end_at_start(&tail));
        protocol.end = written.map_or(first, |(end, _)| end);
        Ok(protocol)
    }

    /// The same for conversations about other tools.
    ///
    /// # Errors
    /// When they are no JSON list.
    pub fn with_tools(&self, tools: &str) -> Result<Self, TrainError> {
        Ok(Self { tools: listed(tools)?, ..self.clone() })
    }

    /// A conversation up to where the policy begins to write.
    ///
    /// # Errors
    /// When the template refuses the messages.
    pub fn prompt(&self, messages: &[Message]) -> Result<TurnStart, TrainError> {
        let rendered = self.render(messages)?;
        Ok(TurnStart { tokens: self.tokenizer.encode_prompt(&rendered)?, begun: begun(&rendered) })
    }

    /// What follows the token that ended a turn: the tools' results, and the opening of the next turn.
    ///
    /// # Errors
    /// When the template refuses tool results, or does not show them.
    pub fn after_turn(&self, results: &[String]) -> Result<TurnStart, TrainError> {
        let tail = self.behind_turn(results)?.ok_or_else(|| {
            TrainError::other("the chat template does not show the assistant's text as it is; it cannot be trained on")
        })?;
        // The end of the turn was drawn by the policy; templates write it again.
        let written = self.end_at_start(&tail).map_or(0, |(_, bytes)| bytes);
        let before = tail.text.get(..written).filter(|end| !end.is_empty()).unwrap_or(TURN);
        Ok(TurnStart { tokens: self.tokens_behind(before, &cut(&tail, written))?, begun: begun(&tail) })
    }

    /// Tokens of a turn that somebody else wrote, its end included: a demonstration's.
    ///
    /// # Errors
    /// When the tokenizer stumbles.
    pub fn turn(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let mut tokens = self.tokens(text)?;
        tokens.push(self.end);
        Ok(tokens)
    }

    /// Tokens of a text that the policy wrote.
    ///
    /// # Errors
    /// When the tokenizer stumbles.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        self.tokens_behind(&self.asked, &Rendered::trusted(text))
    }

    /// The tokens of a text behind another one; behind a line's end, or else by itself, where the two would join to a token.
    fn tokens_behind(&self, before: &str, text: &Rendered) -> Result<Vec<u32>, TrainError> {
        for before in [before, "\n"].into_iter().filter(|before| !before.is_empty()) {
            if let Some(own) = self.tokenizer.encode_behind(before, text)? {
                return Ok(own);
            }
        }
        Ok(self.tokenizer.encode_prompt(text)?)
    }

    /// The tokens that end a turn, at least one.
    pub fn end_tokens(&self) -> &[u32] {
        &self.ends
    }

    /// The one of them that the chat template writes behind a turn; the first where it writes none.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Whether a token ends a turn.
    pub fn ends(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The text of tokens that the policy wrote, special tokens shown.
    ///
    /// # Errors
    /// When the tokenizer stumbles.
    pub fn text(&self, tokens: &[u32]) -> Result<String, TrainError> {
        Ok(self.tokenizer.decode(tokens, SpecialText::Shown)?)
    }

    fn render(&self, messages: &[Message]) -> Result<Rendered, TrainError> {
        let untrusted = |message: &Message| {
            let ours = matches!(message.role, Role::System | Role::Assistant) || message.text.is_empty();
            if ours { Vec::new() } else { std::iter::once(0..message.text.len()).collect() }
        };
        let untrusted: Vec<Vec<Range<usize>>> = messages.iter().map(untrusted).collect();
        let shown = messages.iter().zip(&untrusted).map(|(message, untrusted)| ChatMessage {
            role: message.role.as_str(),
            text: &message.text,
            untrusted,
        });
        let shown: Vec<ChatMessage<'_>> = shown.collect();
        let options = ChatOptions { end: ChatEnd::Answer, tools: self.tools.clone(), ..ChatOptions::default() };
        Ok(self.template.render(&shown, &options)?)
    }

    /// What the template writes behind a turn and its tools' results; none where it does not show the turn.
    fn behind_turn(&self, results: &[String]) -> Result<Option<Rendered>, TrainError> {
        let message = |role: Role, text: &str| Message { role, text: text.to_owned() };
        let turn = [message(Role::User, "?"), message(Role::Assistant, TURN)];
        let results = results.iter().map(|text| message(Role::Tool, text));
        let messages: Vec<Message> = turn.into_iter().chain(results).collect();
        Ok(tail(&self.render(&messages)?, TURN))
    }

    /// The token that ends a turn and that a tail begins with, and its bytes; of several the longest.
    fn end_at_start(&self, tail: &Rendered) -> Option<(u32, usize)> {
        let named = self.ends.iter().filter_map(|end| Some((*end, self.tokenizer.id_to_token(*end)?)));
        let written = named.filter(|(_, name)| tail.text.starts_with(name.as_str()));
        written.map(|(end, name)| (end, name.len())).max_by_key(|(_, bytes)| *bytes)
    }
}

/// What a template has written of the turn that it opens: reasoning that it began. What a tool or a user says opens none.
fn begun(rendered: &Rendered) -> String {
    let end = rendered.trusted_end();
    let opens = end.trim_end().ends_with(THINK);
    end.rfind(THINK).filter(|_| opens).and_then(|at| end.get(at..)).unwrap_or_default().to_owned()
}

/// Tools as a template is given them: some ask whether they are there at all, so that an empty list is none.
fn listed(tools: &str) -> Result<Option<String>, TrainError> {
    let list: Vec<Value> = serde_json::from_str(tools)
        .map_err(|error| TrainError::other(format!("the tools are no JSON list in OpenAI's form: {error}")))?;
    Ok((!list.is_empty()).then(|| tools.to_owned()))
}

/// What stands behind the first `mark`: before it there is a question of ours, behind it may be tool results that say the
/// same. None where there is no mark, or where a template put what is untrusted before it.
fn tail(rendered: &Rendered, mark: &str) -> Option<Rendered> {
    let at = rendered.text.find(mark)?;
    let untrusted = rendered.untrusted.iter().any(|range| range.contains(&at));
    (!untrusted).then(|| cut(rendered, at + mark.len()))
}

/// What stands from byte `from` on.
fn cut(rendered: &Rendered, from: usize) -> Rendered {
    let text = rendered.text.get(from..).unwrap_or_default().to_owned();
    let untrusted = rendered.untrusted.iter().filter(|range| range.end > from);
    let untrusted = untrusted.map(|range| range.start.saturating_sub(from)..range.end - from).collect();
    Rendered { text, untrusted }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    /// Turns as Llama 3 writes them.
    const HEADERS: &str = "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n{{ \
                           message.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt \
                           %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}";

    /// A model whose tokens are bytes and `special`; its `generation_config.json` names `ends`.
    fn protocol(template: &str, special: &[&str], ends: &[&str]) -> Protocol {
        opened(&files(template, special, ends))
    }

    fn opened(dir: &tempfile::TempDir) -> Protocol {
        let config = json!({
            "model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1, "max_position_embeddings": 64, "vocab_size": 512,
        });
        Protocol::load(dir.path(), &ModelConfig::from_json(&config.to_string()).unwrap(), "[]").unwrap()
    }

    /// Its files.
    pub(in crate::train) fn files(template: &str, special: &[&str], ends: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let bytes: BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
        let vocabulary: serde_json::Map<_, _> = bytes.iter().map(char::to_string).zip((0..).map(Into::into)).collect();
        let id = |at: usize| bytes.len() + at;
        let added = |(at, token): (usize, &&str)| {
            json!({"id": id(at), "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        };
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "added_tokens": special.iter().enumerate().map(added).collect::<Vec<_>>(),
            "pre_tokenizer": byte_level, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "vocab": vocabulary, "merges": []},
        });
        let ends: Vec<usize> =
            ends.iter().map(|end| id(special.iter().position(|token| token == end).unwrap())).collect();
        for (name, text) in [
            ("tokenizer.json", tokenizer.to_string()),
            ("generation_config.json", json!({"eos_token_id": ends}).to_string()),
            ("chat_template.jinja", template.to_owned()),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    /// As Llama 3 Instruct: what ends a text comes first, and its template ends turns with another token.
    pub(in crate::train) fn llama() -> Protocol {
        let ends = ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"];
        protocol(HEADERS, &[&ends[..], &["<|start_header_id|>", "<|end_header_id|>"]].concat(), &ends)
    }

    /// As models that always reason: the template opens the reasoning of a turn, but not behind a tool's result.
    pub(in crate::train) fn reasoner() -> Protocol {
        let template = "{% for message in messages %}{{ message.content }}<|end|>{% endfor %}{% if messages[-1].role != \
                        'tool' %}<|assistant|><think>\n{% endif %}";
        protocol(template, &["<|end|>", "<|assistant|>", "<think>", "</think>"], &["<|end|>"])
    }

    /// As Llama 3.1: what is said stands there as JSON.
    pub(in crate::train) fn in_json() -> Protocol {
        let template = "{% for message in messages %}{% if message.role == 'tool' %}{{ message.content | tojson }}{% else \
                        %}{{ message.content }}{% endif %}<|end|>{% endfor %}";
        protocol(template, &["<|end|>"], &["<|end|>"])
    }

    fn shown(protocol: &Protocol, tokens: Result<Vec<u32>, TrainError>) -> String {
        protocol.text(&tokens.unwrap()).unwrap()
    }

    fn started(protocol: &Protocol, start: Result<TurnStart, TrainError>) -> String {
        shown(protocol, start.map(|start| start.tokens))
    }

    #[test]
    fn a_turn_ends_as_the_template_ends_it() {
        let llama = llama();
        assert_eq!(shown(&llama, llama.turn("Hi")), "Hi<|eot_id|>");
        let after =
            "<|start_header_id|>tool<|end_header_id|>\n\n42<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
        assert_eq!(started(&llama, llama.after_turn(&["42".to_owned()])), after);
        // As Qwen2.5 before it was instructed: only the end of a text is named.
        let chatml = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>\n{% endfor %}";
        let qwen = protocol(chatml, &["<|endoftext|>", "<|im_start|>", "<|im_end|>"], &["<|endoftext|>"]);
        assert_eq!(shown(&qwen, qwen.turn("Hi")), "Hi<|im_end|>");
        assert_eq!(started(&qwen, qwen.after_turn(&["42".to_owned()])), "\n<|im_start|>42<|im_end|>\n");
    }

    #[test]
    fn a_result_that_says_what_stands_for_a_turn_is_a_result() {
        let llama = llama();
        let result = format!("see {TURN} there");
        let plain = started(&llama, llama.after_turn(&["42".to_owned()]));
        assert_eq!(started(&llama, llama.after_turn(std::slice::from_ref(&result))), plain.replace("42", &result));
        // A template that puts results before the turn would make it a part of the next prompt's beginning.
        let backwards = "{% for message in messages | reverse %}{{ message.content }}\n{% endfor %}";
        let backwards = protocol(backwards, &["<|end|>"], &["<|end|>"]);
        assert!(backwards.after_turn(&[result]).is_err());
    }

    /// Shows whether it was given tools, and which.
    pub(in crate::train) fn tooled() -> Protocol {
        let template = "{% if tools is not none %}{% for tool in tools %}{{ tool.function.name }} {% endfor %}{% else \
                        %}none {% endif %}{% for message in messages %}{{ message.content }}<|end|>{% endfor %}";
        protocol(template, &["<|end|>"], &["<|end|>"])
    }

    #[test]
    fn the_template_is_given_the_tools() {
        let asked = [Message { role: Role::User, text: "Hi".to_owned() }];
        let opened = |protocol: &Protocol| started(protocol, protocol.prompt(&asked));
        let named = |name: &str| json!([{"type": "function", "function": {"name": name}}]).to_string();
        let (none, search) = (tooled(), tooled().with_tools(&named("search")).unwrap());
        assert_eq!((opened(&none), opened(&search)), ("none Hi<|end|>".to_owned(), "search Hi<|end|>".to_owned()));
        assert_eq!(opened(&search.with_tools("[]").unwrap()), "none Hi<|end|>");
        assert_eq!(started(&search, search.after_turn(&["42".to_owned()])), "42<|end|>");
        assert!(search.with_tools("{}").unwrap_err().to_string().contains("no JSON list"));
    }

    #[test]
    fn a_result_in_json_is_json() {
        let protocol = in_json();
        let result = "[1] The \"seat\"\n<|end|>";
        let after = protocol.after_turn(&[result.to_owned()]).unwrap().tokens;
        let text = protocol.text(&after).unwrap();
        assert_eq!(serde_json::from_str::<String>(text.strip_suffix("<|end|>").unwrap()).unwrap(), result);
        assert_eq!(after.iter().filter(|token| protocol.ends(**token)).count(), 1, "a result ends no turn");
    }

    #[test]
    fn a_turn_begins_with_what_the_template_wrote_of_it() {
        let asks = |text: &str| vec![Message { role: Role::User, text: text.to_owned() }];
        let begun = |start: Result<TurnStart, TrainError>| start.unwrap().begun;
        let (reasoner, llama) = (reasoner(), llama());
        assert_eq!(begun(reasoner.prompt(&asks("Hi"))), "<think>\n");
        assert_eq!(begun(reasoner.after_turn(&["42".to_owned()])), "");
        assert_eq!(begun(llama.prompt(&asks("Hi"))), "");
        // Whoever asks does not open it.
        let bare =
            protocol("{% for message in messages %}{{ message.content }}{% endfor %}", &["<|end|>"], &["<|end|>"]);
        assert_eq!(begun(bare.prompt(&asks("Is it <think>"))), "");
        assert_eq!(begun(bare.after_turn(&["<think>".to_owned()])), "");
    }

    /// BPE over words that begin with `▁`, as Llama 2 has it.
    fn with_words(dir: &tempfile::TempDir, normalizer: &Value, pre_tokenizer: &Value) -> Protocol {
        let path = dir.path().join("tokenizer.json");
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let letters = "▁\n:Hiaestorlu42".chars();
        let vocabulary = letters.map(String::from).chain(["▁Hi".to_owned(), "▁H".to_owned(), "Hi".to_owned()]);
        let vocabulary: serde_json::Map<_, _> = vocabulary.zip((0..).map(Into::into)).collect();
        file["model"]["vocab"] = vocabulary.into();
        file["model"]["merges"] = json!([["▁", "H"], ["▁H", "i"], ["H", "i"]]);
        (file["normalizer"], file["pre_tokenizer"], file["decoder"]) =
            (normalizer.clone(), pre_tokenizer.clone(), Value::Null);
        std::fs::write(&path, file.to_string()).unwrap();
        opened(dir)
    }

    #[test]
    fn a_turn_has_the_tokens_that_it_has_in_its_conversation() {
        let lines =
            "{% for message in messages %}{{ message.role }}:{{ message.content }}<|end|>\n{% endfor %}assistant:\n";
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
        let prepend = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
        for (normalizer, pre_tokenizer, behind_end) in [(Value::Null, metaspace, "\n"), (prepend, Value::Null, "▁\n")]
        {
            let dir = files(lines, &["<|end|>"], &["<|end|>"]);
            let protocol = with_words(&dir, &normalizer, &pre_tokenizer);
            let named = |tokens: Vec<u32>| -> String {
                let names: Vec<String> = tokens.iter().map(|id| protocol.tokenizer.id_to_token(*id).unwrap()).collect();
                names.join("|")
            };
            assert_eq!(named(protocol.turn("Hi Hi").unwrap()), "Hi|▁Hi|<|end|>");
            let after = named(protocol.after_turn(&["42".to_owned()]).unwrap().tokens);
            let wanted: Vec<String> = behind_end.chars().map(String::from).collect();
            assert!(after.starts_with(&format!("{}|t|o|o|l|:|4|2|<|end|>", wanted.join("|"))), "{after}");
        }
    }

    #[test]
    fn where_the_template_writes_no_end_the_first_is_taken() {
        let lines = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}";
        let plain = protocol(lines, &["<|end_of_text|>", "<|eot_id|>"], &["<|end_of_text|>", "<|eot_id|>"]);
        assert_eq!(shown(&plain, plain.turn("Hi")), "Hi<|end_of_text|>");
        assert_eq!(started(&plain, plain.after_turn(&["42".to_owned()])), "\ntool: 42\n");
    }
}
