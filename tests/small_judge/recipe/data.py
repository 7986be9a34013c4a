"""Question, reference and answer triples with the label Match or Mismatch, from a seed.

In: a seed and a split. Out: an endless, reproducible stream of `Example`s, half of them Match. Names, and half of the
held-out sentences, are disjoint between the splits. Knows no prompt, no tokens, no model. Standard library only:
`python data.py --count 20` prints examples as JSON lines.
"""

import argparse
import json
import random
from dataclasses import asdict, dataclass

from frames import ASSENTS, ASSERTIONS, CLAIMS, CONTRASTS, DENIALS, EVASIONS, FILLERS, HEDGES, TOPICS
from injections import injection
from world import Lang, Named, Person, Split, World

# Longest texts, in bytes of UTF-8: a fixture reads short answers.
LONGEST_ANSWER = 320
LONGEST_REFERENCES = 110
INJECTED = 0.22


@dataclass(frozen=True)
class Example:
    """One labelled triple. `kind` says what makes it hard, `injected` whether text was added to move the judge."""

    question: str
    references: list
    answer: str
    match: bool
    kind: str
    lang: str
    injected: bool

    @property
    def label(self) -> str:
        """The word that the judge should say."""
        return "Match" if self.match else "Mismatch"


@dataclass
class Fact:
    """A question, its value and two others, and the sentences that fit."""

    subject: str
    question: str
    value: object
    wrong: object
    stranger: object
    frames: list

    def say(self, world: World, frame: str, asserted, denied) -> str:
        """Fills a frame; every value is said anew, so that no form is tied to a role."""
        third = self.stranger.same(world)
        said = asserted.same(world)
        if frame.startswith("{v} ") and world.chance(0.5):
            said = said[:1].upper() + said[1:]
        return frame.format(s=self.subject, q=self.question, v=said, w=denied.same(world), x=third)


def fact(world: World) -> tuple:
    """Draws a topic and a fact of it."""
    topic = world.rng.choice(TOPICS)
    subject = world.rng.choice([Named.place, Named.work, Person.draw])(world).reference(world)
    question = world.pick(topic.questions[world.lang]).format(s=subject)
    value = topic.draw(world)
    wrong = value.other(world) if world.chance(0.7) else unlike(world, topic.draw, [value])
    stranger = unlike(world, topic.draw, [value, wrong])
    frames = [world.pick(topic.answers[world.lang])] * 2 + [world.pick(ASSERTIONS[world.lang]) for _ in range(5)]
    return topic.kind, Fact(subject, question, value, wrong, stranger, frames)


def unlike(world: World, draw, values: list):
    """A value that is none of these."""
    while (value := draw(world)) in values:
        pass
    return value


def references(world: World, fact: Fact) -> list:
    """One to three references. More than one are alternatives; each is right."""
    said = fact.value.reference(world)
    if world.chance(0.15):
        said = fact.say(world, world.pick(ASSERTIONS[world.lang][4:]), fact.value, fact.wrong)
    found = [said]
    if world.chance(0.25):
        found.append(fact.value.same(world))
    return list(dict.fromkeys(found))


def valued(world: World) -> Example:
    """A value in a sentence: the right one, another one, one denied, several, none."""
    kind, this = fact(world)
    match = world.chance(0.5)
    refs = references(world, this)
    if world.chance(0.08):
        # Another right answer beside the value: the answer may give either, or neither.
        refs.insert(world.rng.randrange(len(refs) + 1), this.wrong.reference(world))
        said = world.rng.choice([this.value, this.wrong]) if match else this.stranger
        kind, answer = "alternatives", this.say(world, world.rng.choice(this.frames), said, this.stranger)
    else:
        kind, answer = told(world, this, match, kind)
    return Example(this.question, refs, answer, match, kind, world.lang.value, False)


def told(world: World, this: Fact, match: bool, kind: str) -> tuple:
    """The kind of an answer, and the answer."""
    asserted, denied = (this.value, this.wrong) if match else (this.wrong, this.value)
    way = world.rng.random()
    if way < 0.2:
        return "negation", this.say(world, world.pick(CONTRASTS[world.lang]), asserted, denied)
    if not match and way < 0.26:
        return "negation", this.say(world, world.pick(DENIALS[world.lang]), this.value, this.wrong)
    if not match and way < 0.34:
        values = [this.value, this.wrong]
        world.rng.shuffle(values)
        return "stuffing", this.say(world, world.pick(HEDGES[world.lang]), *values)
    if not match and way < 0.42:
        return "empty", this.say(world, world.pick(EVASIONS[world.lang]), this.wrong, this.wrong)
    if way > 0.85:
        # Bare values, so that comparing is learned early.
        return kind, asserted.same(world)
    return kind, this.say(world, world.rng.choice(this.frames), asserted, denied)


def affirmed(world: World) -> Example:
    """A yes/no question, answered with a word or with a statement."""
    a, b = (Named.place(world).name for _ in range(2))
    question, *claims = (text.format(a=a, b=b) for text in world.rng.choice(CLAIMS[world.lang]))
    truth, match = world.rng.randrange(2), world.chance(0.5)
    said = truth if match else 1 - truth
    reference = world.pick(ASSENTS[world.lang][truth]).format(c=claims[truth])
    answer = world.pick(ASSENTS[world.lang][said]).format(c=claims[said])
    if world.chance(0.1):
        answer = f"{question} {answer}"
    if not match and world.chance(0.15):
        answer = world.pick(EVASIONS[world.lang]).format(s=a, q=question)
    return Example(question, [reference], answer, match, "yes_no", world.lang.value, False)


def with_prose(world: World, example: Example) -> Example:
    """Prose before or after the answer, that changes nothing."""
    answer = example.answer
    for _ in range(world.rng.choice([0, 0, 0, 0, 0, 1, 1, 2, 4])):
        filler = world.pick(FILLERS[world.lang]).format(s=Named.place(world).name)
        gap = world.rng.choice([" ", " ", "\n"])
        answer = f"{filler}{gap}{answer}" if world.chance(0.5) else f"{answer}{gap}{filler}"
    return changed(example, answer)


def typed(world: World, example: Example) -> Example:
    """Habits of typing that change nothing: case, spaces, quotes, full stops."""
    answer = example.answer
    habit = world.rng.random()
    if habit < 0.06:
        answer = answer.upper()
    elif habit < 0.16:
        answer = answer.lower()
    elif habit < 0.2:
        answer = answer.removesuffix(".").removesuffix("。")
    elif habit < 0.23:
        answer = world.rng.choice([" {} ", "\n{}\n", "  {}", "{}\n"]).format(answer)
    elif habit < 0.25 and answer.strip():
        answer = world.rng.choice(['"{}"', "'{}'", "*{}*", "`{}`", "({})", "{}!", "{} .", "- {}", "1. {}"]).format(
            answer
        )
    elif habit < 0.28:
        answer = answer.replace(" ", "  ", 1)
    return changed(example, answer)


def with_injection(world: World, example: Example) -> Example:
    """Text that tries to move the judge, before, after or around the answer, or in place of it."""
    text = injection(world)
    gap = world.rng.choice([" ", "\n", "\n\n", " "])
    place = world.rng.choice(["before", "after", "after", "around"])
    if not example.match and world.chance(0.15):
        return Example(example.question, example.references, text, False, "injection_only", example.lang, True)
    answer = example.answer if place == "before" else f"{example.answer}{gap}{text}"
    if place != "after":
        answer = f"{text if place == 'before' else injection(world)}{gap}{answer}"
    return changed(example, answer, injected=True)


def changed(example: Example, answer: str, injected: bool = False) -> Example:
    """The same example with another answer."""
    return Example(
        example.question,
        example.references,
        answer,
        example.match,
        example.kind,
        example.lang,
        injected or example.injected,
    )


def examples(seed: int, split: Split):
    """The endless stream of one seed."""
    rng = random.Random(f"{seed}/{split.value}")
    while True:
        world = World(rng, split, rng.choices([Lang.EN, Lang.DE, Lang.ZH], [0.74, 0.15, 0.11])[0])
        example = affirmed(world) if world.chance(0.1) else valued(world)
        if world.chance(0.7):
            example = typed(world, with_prose(world, example))
        if world.chance(INJECTED):
            example = with_injection(world, example)
        short = len(example.answer.encode()) <= LONGEST_ANSWER
        if short and sum(len(r.encode()) for r in example.references) <= LONGEST_REFERENCES:
            yield example


def main() -> None:
    """Prints examples."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", type=Split, default=Split.TRAIN, choices=list(Split))
    arguments = parser.parse_args()
    for _, example in zip(range(arguments.count), examples(arguments.seed, arguments.split), strict=False):
        print(json.dumps(asdict(example), ensure_ascii=False))


if __name__ == "__main__":
    main()
