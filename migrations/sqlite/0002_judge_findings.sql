-- What judges said, so that a restart or a replay need not ask them again, and which judges a batch was scored with.

-- One finding per question. `key` is the hash of the judge's identity and the whole prompt; `value` is the judge cache's
-- own encoding. Rows are never changed, and never deleted: each saves a pass through a model.
CREATE TABLE judge_findings (
    key           BLOB NOT NULL PRIMARY KEY,
    value         BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The identities of the judges that were asked, by their names in the rubric, as a JSON object; NULL where none was.
ALTER TABLE batches ADD COLUMN judges TEXT;
