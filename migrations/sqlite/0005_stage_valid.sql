-- A stage's pass rate is over the valid scores of the rubrics that have it: a run may be scored by several.

ALTER TABLE run_stages ADD COLUMN valid INTEGER NOT NULL DEFAULT 0;
UPDATE run_stages SET valid = (SELECT r.valid FROM runs r WHERE r.run_id = run_stages.run_id);

ALTER TABLE run_step_stages ADD COLUMN valid INTEGER NOT NULL DEFAULT 0;
UPDATE run_step_stages SET valid =
    (SELECT s.valid FROM run_steps s WHERE s.run_id = run_step_stages.run_id AND s.step = run_step_stages.step);
