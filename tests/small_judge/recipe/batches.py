"""Batches of prompts from generator processes, padded to nearly equal lengths.

In: a seed, sizes, the number of processes. Out: a queue of `Batch`es that never ends. The processes share nothing, so
the order in which batches arrive is not fixed, though the content of each process' stream is. Needs numpy.
"""

import itertools
import multiprocessing
import random
from dataclasses import dataclass

import numpy

from data import examples
from prompt import LABEL_PAIRS, PAD, TOKEN_OF, encode
from world import Split

# Prompts are made by this many, sorted by length and cut into batches.
POOL = 8192
# Lengths are rounded up to a multiple of it: fewer shapes for the device.
ROUND = 16
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Padded prompts, batch by time."""

    # [batch, time], int16.
    ids: numpy.ndarray
    # [batch], int32: the place of each prompt's last token.
    last: numpy.ndarray
    # [batch], int32: the label's token.
    label: numpy.ndarray
    # [batch, time], int16: the next token inside the answer, `IGNORED` elsewhere.
    next_of_answer: numpy.ndarray


def prompted(example, rng: random.Random) -> tuple:
    """An example's prompt with some nonce and some pair of labels, and the right label's token."""
    labels = LABEL_PAIRS[rng.random() < 0.25]
    prompt = encode(example.question, example.references, example.answer, f"{rng.getrandbits(64):016x}", labels)
    return prompt, TOKEN_OF[labels[0 if example.match else 1]]


def batch_of(prompts: list) -> Batch:
    """Pads prompts at the right."""
    longest = max(len(prompt.ids) for prompt, _ in prompts)
    shape = (len(prompts), -(-longest // ROUND) * ROUND)
    ids, following = numpy.full(shape, PAD, numpy.int16), numpy.full(shape, IGNORED, numpy.int16)
    for row, (prompt, _) in enumerate(prompts):
        ids[row, : len(prompt.ids)] = prompt.ids
        # The token before the answer foretells its first byte.
        start, end = prompt.answer_start, prompt.answer_end
        following[row, start - 1 : end - 1] = prompt.ids[start:end]
    last = numpy.array([len(prompt.ids) - 1 for prompt, _ in prompts], numpy.int32)
    return Batch(ids, last, numpy.array([label for _, label in prompts], numpy.int32), following)


def cut(prompts: list, tokens: int) -> list:
    """Batches of at most about `tokens` padded tokens, each of prompts of one length."""
    prompts, found = sorted(prompts, key=lambda pair: len(pair[0].ids)), []
    while prompts:
        # Long prompts come last, and a batch is as long as its last one.
        length = len(prompts[min(len(prompts), max(1, tokens // len(prompts[0][0].ids))) - 1][0].ids)
        count = max(1, tokens // length)
        found.append(batch_of(prompts[:count]))
        prompts = prompts[count:]
    return found


def produce(queue, seed: int, tokens: int, pool: int) -> None:
    """Fills the queue for ever."""
    rng, stream = random.Random(f"{seed}/prompts"), examples(seed, Split.TRAIN)
    while True:
        found = cut([prompted(example, rng) for example in itertools.islice(stream, pool)], tokens)
        rng.shuffle(found)
        for batch in found:
            queue.put(batch)


class Producers:
    """Generator processes and their queue."""

    def __init__(self, processes: int, seed: int, tokens: int, pool: int = POOL):
        # Forked before the device is touched: a child then needs no second import and no device of its own.
        context = multiprocessing.get_context("fork")
        self.queue = context.Queue(maxsize=64)
        self.processes = [
            context.Process(target=produce, args=(self.queue, 1000 * seed + at, tokens, pool), daemon=True)
            for at in range(processes)
        ]
        for process in self.processes:
            process.start()

    def next(self) -> Batch:
        """The next batch. Raises `queue.Empty` when none comes for a minute: the generators are dead then."""
        return self.queue.get(timeout=60)

    def stop(self) -> None:
        """Ends the processes."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()
