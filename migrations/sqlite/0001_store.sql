-- The store: scored requests, their scores, and what is counted along the way.
--
-- Times are Unix milliseconds. No REFERENCES: each batch is written in one transaction by one writer, and checking 64
-- parents per batch would cost more than the inserts.

-- One rubric per content hash.
CREATE TABLE rubrics (
    hash TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    json TEXT NOT NULL
) STRICT;

-- One scored request. `id` is milliseconds << 20 | counter: it sorts by time.
CREATE TABLE batches (
    id             INTEGER PRIMARY KEY,
    request_id     TEXT NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    run_id         TEXT,
    step           INTEGER,
    position       TEXT NOT NULL,
    rubric_name    TEXT NOT NULL,
    rubric_hash    TEXT NOT NULL,
    engine_version TEXT NOT NULL
) STRICT;

-- Walks a run in order and skips by step without touching the rows.
CREATE INDEX batches_by_run ON batches (run_id, id, step) WHERE run_id IS NOT NULL;

-- The bodies of a batch, packed with zstd, apart from the narrow rows. Sizes are those before packing.
CREATE TABLE bodies (
    batch          INTEGER PRIMARY KEY,
    request        BLOB,
    request_bytes  INTEGER,
    response       BLOB NOT NULL,
    response_bytes INTEGER NOT NULL
) STRICT;

-- One trajectory's score. Its result stands at [result_start, result_end) of the unpacked response.
CREATE TABLE scores (
    batch         INTEGER NOT NULL,
    "index"       INTEGER NOT NULL,
    trajectory_id TEXT,
    "group"       TEXT,
    reward        REAL,
    valid         INTEGER NOT NULL,
    stage_reached TEXT,
    failed_stage  TEXT,
    content_hash  BLOB NOT NULL,
    result_start  INTEGER NOT NULL,
    result_end    INTEGER NOT NULL,
    PRIMARY KEY (batch, "index")
) STRICT, WITHOUT ROWID;

-- The answer that a repeat of a request gets.
CREATE TABLE idempotency (
    key       TEXT NOT NULL PRIMARY KEY,
    body_hash BLOB NOT NULL,
    status    INTEGER NOT NULL,
    batch     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Counted in the transaction that writes the scores, so that listing runs costs nothing per score.
-- Sums and bounds are over the valid scores.
CREATE TABLE runs (
    run_id              TEXT NOT NULL PRIMARY KEY,
    n                   INTEGER NOT NULL,
    valid               INTEGER NOT NULL,
    reward_sum          REAL NOT NULL,
    min_reward          REAL,
    max_reward          REAL,
    first_created_at_ms INTEGER NOT NULL,
    last_created_at_ms  INTEGER NOT NULL,
    last_step           INTEGER
) STRICT, WITHOUT ROWID;

-- Lists runs, the latest first; the key never changes, so pages stay in place while runs grow.
CREATE INDEX runs_by_start ON runs (first_created_at_ms, run_id);

CREATE TABLE run_rubrics (
    run_id      TEXT NOT NULL,
    rubric_hash TEXT NOT NULL,
    PRIMARY KEY (run_id, rubric_hash)
) STRICT, WITHOUT ROWID;

-- A stage over the whole run. `place` is its place in the rubric.
CREATE TABLE run_stages (
    run_id    TEXT NOT NULL,
    stage     TEXT NOT NULL,
    place     INTEGER NOT NULL,
    reached   INTEGER NOT NULL,
    passed    INTEGER NOT NULL,
    score_sum REAL NOT NULL,
    PRIMARY KEY (run_id, stage)
) STRICT, WITHOUT ROWID;

-- The same by step of the trainer.
CREATE TABLE run_steps (
    run_id TEXT NOT NULL,
    step   INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    valid  INTEGER NOT NULL,
    PRIMARY KEY (run_id, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE run_step_stages (
    run_id    TEXT NOT NULL,
    step      INTEGER NOT NULL,
    stage     TEXT NOT NULL,
    place     INTEGER NOT NULL,
    reached   INTEGER NOT NULL,
    passed    INTEGER NOT NULL,
    score_sum REAL NOT NULL,
    PRIMARY KEY (run_id, step, stage)
) STRICT, WITHOUT ROWID;
