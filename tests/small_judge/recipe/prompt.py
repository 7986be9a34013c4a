"""From an example to the tokens of its prompt, and the tokenizer that reads the same prompt elsewhere.

In: the rubric's prompt template (`template.txt`) and texts. Out: token ids as the judge's tokenizer gives them for the
rendered prompt, where untrusted text holds bytes and labels only; and the files `tokenizer.json` and
`tokenizer_config.json`. Knows no model and no label of an example. Needs jinja2.
"""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2

TEMPLATE = Path(__file__).with_name("template.txt")
LABELS = ("Match", "Mismatch", "Yes", "No")
# Pairs of labels that the prompt offers: first the one that means that the answer agrees.
LABEL_PAIRS = (("Match", "Mismatch"), ("Yes", "No"))
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# What every prompt holds, one token each: a short prompt is a fast one. They are added tokens, so untrusted text cannot
# hold them.
PIECES = (
    "<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n",
    "Same?\n<<<question ", " question>>>\n", "<<<reference ", " reference ", ">>>\n",
    "Match or Mismatch?\n<<<answer ", "Yes or No?\n<<<answer ", "<<<answer ", " answer>>>", "\nVerdict:",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TOKEN_OF = {token: 256 + at for at, token in enumerate((*LABELS, *SPECIAL, *PIECES))}
# A multiple of 32; the rest is unused.
VOCABULARY = 288
PAD = TOKEN_OF["<|endoftext|>"]
LABEL_WORD = r"\b(?:Mismatch|Match|Yes|No)\b"
MAX_TOKENS = 1024

_LABEL_WORD = re.compile(f"({LABEL_WORD})")
_ADDED = re.compile("(" + "|".join(re.escape(t) for t in sorted((*SPECIAL, *PIECES), key=len, reverse=True)) + ")")
# Stand-ins while the template is rendered: the nonce, and then the texts by number.
_NONCE, _TEXTS = "\ue000", 0xE001


@dataclass(frozen=True)
class Prompt:
    """Token ids, and where the answer's own tokens are."""

    ids: list
    answer_start: int
    answer_end: int


def untrusted_ids(text: str) -> list:
    """Bytes, and the labels as words."""
    parts = _LABEL_WORD.split(text)
    if len(parts) == 1:
        return list(text.encode())
    return [i for part in parts for i in ([TOKEN_OF[part]] if part in LABELS else part.encode())]


def trusted_ids(text: str) -> list:
    """Added tokens where they stand, else as untrusted text."""
    return [i for part in _ADDED.split(text) for i in ([TOKEN_OF[part]] if part in TOKEN_OF else untrusted_ids(part))]


def fenced(what: str, text: str) -> str:
    """A text inside its fence, as `src/judge/fence.rs` writes it."""
    return f"<<<{what} {_NONCE}\n{text}\n{_NONCE} {what}>>>"


@functools.cache
def skeleton(references: int, labels: tuple) -> tuple:
    """The rendered prompt without its texts: lists of ids, and between them the number of a text, -1 for the nonce."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    source = TEMPLATE.read_text(encoding="utf-8").removeprefix("<<user>>\n")
    texts = [chr(_TEXTS + at) for at in range(references + 2)]
    message = environment.from_string(source).render(
        question=fenced("question", texts[0]),
        references=[fenced(f"reference {at + 1}", text) for at, text in enumerate(texts[2:])],
        answer=fenced("answer", texts[1]),
        labels=labels,
    )
    messages = [{"role": "user", "content": message.strip()}]
    prompt = environment.from_string(CHAT_TEMPLATE).render(messages=messages, add_generation_prompt=True)
    parts = re.split(f"([{_NONCE}{texts[0]}-{texts[-1]}])", prompt)
    return tuple(ord(part) - _TEXTS if at % 2 else trusted_ids(part) for at, part in enumerate(parts))


def encode(question: str, references: list, answer: str, nonce: str, labels: tuple) -> Prompt:
    """The prompt's tokens, up to where the label is due. `nonce` is 16 hexadecimal digits."""
    texts = [untrusted_ids(text) for text in (question, answer, *references)]
    fence, ids, start = list(nonce.encode()), [], 0
    for part in skeleton(len(references), labels):
        if part == 1:
            start = len(ids)
        ids += part if isinstance(part, list) else fence if part < 0 else texts[part]
    return Prompt(ids, start, start + len(texts[1]))


def byte_alphabet() -> list:
    """The printable character that stands for each byte in byte-level vocabularies."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    character = {byte: chr(byte) for byte in shown} | {byte: chr(256 + at) for at, byte in enumerate(hidden)}
    return [character[byte] for byte in range(256)]


def tokenizer_json() -> dict:
    """The tokenizer: bytes and four words, no merges."""
    words = {character: byte for byte, character in enumerate(byte_alphabet())} | {t: TOKEN_OF[t] for t in LABELS}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": TOKEN_OF[t], "content": t, **flags, "special": t in SPECIAL} for t in (*SPECIAL, *PIECES)]
    split = {"type": "Split", "pattern": {"Regex": LABEL_WORD}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # A word of the vocabulary is one token without merges that would lead to it.
            "ignore_merges": True,
            "vocab": words,
            "merges": [],
        },
    }


def tokenizer_config() -> dict:
    """What stands beside the tokenizer: the chat template and the names of the special tokens."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_TOKENS,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def write_tokenizer(directory: Path) -> None:
    """Writes both files."""
    for name, content in (("tokenizer.json", tokenizer_json()), ("tokenizer_config.json", tokenizer_config())):
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        (directory / name).write_text(text, encoding="utf-8")
