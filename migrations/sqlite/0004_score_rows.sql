-- The scores of a batch in one row instead of one row each: the one writer bounds what is stored on many cores, and a row
-- took it as long as a kilobyte of a body.

-- `json` has one array per trajectory, in their order: trajectory_id, group, reward, valid, stage_reached, failed_stage,
-- content_hash (32 hex digits), and where its result stands in the unpacked response, [result_start, result_end). Where
-- somebody deleted rows of a batch by hand, those after them move up.
CREATE TABLE score_rows (
    batch INTEGER PRIMARY KEY,
    json  TEXT NOT NULL
) STRICT;

INSERT INTO score_rows (batch, json)
SELECT b.id, (
    SELECT json_group_array(json_array(
        s.trajectory_id, s."group", s.reward, json(iif(s.valid, 'true', 'false')), s.stage_reached, s.failed_stage,
        lower(hex(s.content_hash)), s.result_start, s.result_end
    ) ORDER BY s."index")
    FROM scores s WHERE s.batch = b.id
)
FROM batches b ORDER BY b.id;

DROP TABLE scores;

-- The same as a table, for whoever asks in SQL (the program itself reads the rows). Needs nothing newer than SQLite 3.38.
CREATE VIEW scores AS
SELECT
    r.batch       AS batch,
    e.key         AS "index",
    e.value ->> 0 AS trajectory_id,
    e.value ->> 1 AS "group",
    e.value ->> 2 AS reward,
    e.value ->> 3 AS valid,
    e.value ->> 4 AS stage_reached,
    e.value ->> 5 AS failed_stage,
    e.value ->> 6 AS content_hash,
    e.value ->> 7 AS result_start,
    e.value ->> 8 AS result_end
FROM score_rows r, json_each(r.json) e;
