"""Gradus from Python: rewards of agent trajectories, advantages, and prompts worth another look.

`Client` and `AsyncClient` talk to a server; `vspo` computes the same advantages without one; `adapters` has a few lines
for each of the trainers that take a Python callable.
"""

from .client import Algorithm, AsyncClient, Client, OnInvalid, Trajectory
from .errors import ClientClosed, ConnectionFailed, DeadlineExceeded, GradusError, ProblemError, UnexpectedAnswer
from .results import (
    GroupAdvantages,
    GroupSummary,
    ItemError,
    PromptValue,
    RubricReference,
    Score,
    Scores,
    Stage,
    Step,
)
from .transport import Options

__all__ = [
    "Algorithm",
    "AsyncClient",
    "Client",
    "ClientClosed",
    "ConnectionFailed",
    "DeadlineExceeded",
    "GradusError",
    "GroupAdvantages",
    "GroupSummary",
    "ItemError",
    "OnInvalid",
    "Options",
    "ProblemError",
    "PromptValue",
    "RubricReference",
    "Score",
    "Scores",
    "Stage",
    "Step",
    "Trajectory",
    "UnexpectedAnswer",
]
__version__ = "0.1.0"
