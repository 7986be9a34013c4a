//! `gradus score --replay`: a stored run scored again, as it was and after somebody changed the database.

use std::io::Read;

use lz4_flex::frame::FrameDecoder;
use rusqlite::Connection;

use super::*;
use crate::common::Database;

/// A run in a database, scored by a server that was then stopped.
struct Stored {
    gradus: Gradus,
    database: Database,
}

impl Stored {
    /// Two requests that need no judge, of four trajectories each, and one that there was no judge for.
    fn new() -> Self {
        let cases = ["hermes_group_short_verbose_wrong_stuffed", "search_r1_group_of_four"];
        let [first, second] = cases.map(|case| read(&trajectory_case(case)));
        let judged = json!({"rubric": "binary_judge", "on_invalid": "zero", "trajectories": right_and_wrong()});
        Self::of([first, second, judged])
    }

    fn of(requests: impl IntoIterator<Item = Value>) -> Self {
        let database = Database::new();
        let server = database.serve(&[]);
        for mut request in requests {
            request["run_id"] = json!("exp-17");
            server.reward(&request).ok();
        }
        assert!(server.stop().success());
        Self { gradus: Gradus::new(), database }
    }

    /// Scores the run again.
    fn replay(&self) -> Ran {
        self.replay_of(&self.database.url)
    }

    fn replay_of(&self, url: &str) -> Ran {
        self.gradus.run(&["score", "--replay", "exp-17", "--store", url])
    }

    /// Changes the database as somebody with an editor would: each statement, and how many rows it must change.
    fn change(&self, statements: &[(&str, usize)]) {
        execute(&self.database.open(), statements);
    }

    /// Scores the run of a copy again that was changed.
    fn replay_changed(&self, statements: &[(&str, usize)]) -> Ran {
        let copy = self.gradus.path("copy.db");
        std::fs::copy(self.database.path(), &copy).unwrap();
        let database = Connection::open(&copy).unwrap();
        execute(&database, statements);
        database.close().unwrap();
        self.replay_of(&format!("sqlite:{copy}"))
    }
}

fn execute(database: &Connection, statements: &[(&str, usize)]) {
    for (statement, rows) in statements {
        assert_eq!(database.execute(statement, []).unwrap(), *rows, "{statement}");
    }
}

#[test]
fn a_run_scored_again_is_the_same() {
    let stored = Stored::new();
    let all = "exp-17: 3 requests, 10 trajectories scored again, 0 differ, 0 requests could not be read\n";
    assert_eq!(stored.replay().exits(0).out, all);
    // With the rubrics that were stored, whatever is the default now.
    let url = &stored.database.url;
    let ran = stored.gradus.run(&["score", "--replay", "exp-17", "--store", url, "--default-rubric", "tool_use"]);
    assert_eq!(ran.exits(0).out, all);
}

#[test]
fn an_unknown_run_is_an_error() {
    let stored = Stored::new();
    stored
        .gradus
        .run(&["score", "--replay", "exp-18", "--store", &stored.database.url])
        .exits(1)
        .err_has("there is no run \"exp-18\"");
    stored.replay_of("none").exits(1).err_has("none");
}

/// Rewrites the first stored response.
fn rewrite_response(database: &Connection, edit: impl FnOnce(String) -> String) {
    let first = "SELECT batch, response, response_bytes FROM bodies ORDER BY batch LIMIT 1";
    let (batch, packed, bytes): (i64, Vec<u8>, u32) =
        database.query_row(first, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let mut text = String::with_capacity(bytes as usize);
    FrameDecoder::new(&*packed).read_to_string(&mut text).unwrap();
    let edited = edit(text);
    // As older versions packed it.
    let packed = zstd::bulk::compress(edited.as_bytes(), 1).unwrap();
    let update = "UPDATE bodies SET response = ?1, response_bytes = ?2 WHERE batch = ?3";
    database.execute(update, rusqlite::params![packed, u32::try_from(edited.len()).unwrap(), batch]).unwrap();
}

#[test]
fn a_reward_that_was_changed_is_found_and_named() {
    let stored = Stored::new();
    rewrite_response(&stored.database.open(), |text| {
        assert!(text.contains("\"reward\":1.0,\"valid\":true"), "{text}");
        text.replacen("\"reward\":1.0,\"valid\":true", "\"reward\":0.9,\"valid\":true", 1)
    });
    let ran = stored.replay().exits(1);
    ran.out_has("-0: /reward was 0.9, is 1.0\n");
    assert!(ran.out.ends_with("10 trajectories scored again, 1 differ, 0 requests could not be read\n"), "{}", ran.out);
}

/// What lists and means are made from stands apart from the answers, which would still be right.
#[test]
fn rows_that_were_changed_are_found_and_named() {
    let stored = Stored::new();
    let whole = "WHERE id = (SELECT min(id) FROM batches)";
    let rows =
        |json: &str| format!("UPDATE score_rows SET json = {json} WHERE batch = (SELECT min(batch) FROM score_rows)");
    // A column of the first row.
    let set = |place: u8, value: &str| (rows(&format!("json_set(json, '$[0][{place}]', {value})")), 1);
    let weight = "UPDATE rubrics SET json = replace(json, '\"weight\":0.7', '\"weight\":0.2')
        WHERE name = 'short_form_qa'";
    for ((change, differ), words) in [
        (set(0, "NULL"), "-0: /row/trajectory_id was null, is "),
        (set(1, "'elsewhere'"), "/row/group was \"elsewhere\", is "),
        (set(2, "0.125"), "-0: /row/reward was 0.125, is 1.0"),
        (set(3, "json('false')"), "/row/valid was false, is true"),
        (set(5, "'f1'"), "/row/failed_stage was \"f1\", is null"),
        (set(6, "'000102030405060708090a0b0c0d0e0f'"), "/row/content_hash was \"000102030405060708090a"),
        (set(8, "json_extract(json, '$[0][8]') - 1"), "-0: its result does not stand at "),
        ((rows("json_remove(json, '$[0]')"), 4), "-3: one of the two has no such row"),
        ((rows("json_insert(json, '$[#]', json_extract(json, '$[0]'))"), 1), "-4: one of the two has no such result"),
        (
            (format!("UPDATE batches SET position = '{{\"step\":7,\"mastery\":{{}}}}' {whole}"), 4),
            "-3: /batch/position/step was 7, is 15",
        ),
        ((format!("UPDATE batches SET step = 7 {whole}"), 4), "/row/step was 7, is 15"),
        ((weight.to_owned(), 4), ""),
    ] {
        let ran = stored.replay_changed(&[(&change, 1)]).exits(1);
        assert!(ran.out.contains(words), "{change}: {}", ran.out);
        assert!(ran.out.contains(&format!(" {differ} differ, ")), "{change}: {}", ran.out);
    }
}

#[test]
fn every_difference_of_a_trajectory_is_named() {
    let stored = Stored::new();
    let row = "UPDATE score_rows SET json = json_set(json, '$[0][0]', 'zz', '$[0][1]', 'elsewhere', '$[0][2]', 0.125)
        WHERE batch = (SELECT min(batch) FROM score_rows)";
    let batch = "UPDATE batches SET step = 7, rubric_name = 'another' WHERE id = (SELECT min(id) FROM batches)";
    stored.change(&[(row, 1), (batch, 1)]);
    let ran = stored.replay().exits(1);
    let first = ran.out.lines().find(|line| line.contains("-0: ")).unwrap();
    for name in ["/row/trajectory_id", "/row/group", "/row/reward", "/row/step", "/batch/rubric_name"] {
        assert!(first.contains(&format!("{name} was ")), "{name}: {first}");
    }
}

/// However many differ, what is printed can be read.
#[test]
fn differences_of_many_trajectories_are_counted_and_not_all_printed() {
    let [right, _] = right_and_wrong();
    let stored = Stored::of([json!({"trajectories": vec![right; 30]})]);
    stored.change(&[("UPDATE batches SET step = 7", 1)]);
    let out = stored.replay().exits(1).out;
    assert!(out.ends_with(" 30 trajectories scored again, 30 differ, 0 requests could not be read\n"), "{out}");
    assert_eq!(out.lines().count(), 21, "{out}");
}

/// A run of which a batch is gone is not the same.
#[test]
fn batches_that_are_gone_are_missed() {
    let stored = Stored::new();
    stored.change(&[("DELETE FROM batches WHERE id = (SELECT min(id) FROM batches)", 1)]);
    let out = stored.replay().exits(1).out;
    assert!(out.contains("exp-17: 2 requests, 6 trajectories scored again, 0 differ, "), "{out}");
    let gone = "exp-17: 4 trajectories more were counted when they were scored: their batches are gone\n";
    assert!(out.ends_with(gone), "{out}");
}

/// Older versions named trajectories by another hash.
#[test]
fn hashes_of_older_versions_are_not_compared() {
    let stored = Stored::new();
    let hashes = "UPDATE score_rows SET json = (SELECT json_group_array(json_set(value, '$[6]', printf('%032d', 7)))
        FROM json_each(score_rows.json))";
    stored.change(&[(hashes, 3), ("UPDATE batches SET engine_version = '0.0.9'", 3)]);
    stored.replay().exits(0).out_has(" 0 differ, ");
    // The hash was changed within a version: together with how requests are packed.
    let database = stored.database.open();
    database.execute("UPDATE batches SET engine_version = ?1", [env!("CARGO_PKG_VERSION")]).unwrap();
    let mut requests = database.prepare("SELECT batch, request FROM bodies").unwrap();
    let requests = requests.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    for (batch, packed) in requests.collect::<Result<Vec<(i64, Vec<u8>)>, _>>().unwrap() {
        let mut request = Vec::new();
        FrameDecoder::new(&*packed).read_to_end(&mut request).unwrap();
        let packed = zstd::bulk::compress(&request, 1).unwrap();
        let update = "UPDATE bodies SET request = ?1 WHERE batch = ?2";
        database.execute(update, rusqlite::params![packed, batch]).unwrap();
    }
    stored.replay().exits(0).out_has("10 trajectories scored again, 0 differ, ");
}

#[test]
fn every_url_that_the_server_takes_is_replayed() {
    let stored = Stored::new();
    stored.replay_of(&stored.database.url.replacen("sqlite:", "sqlite://", 1)).exits(0);
    stored.replay_of("sqlite://nowhere.db").exits(1).err_has("there is no database nowhere.db");
    assert!(!Path::new(&stored.gradus.path("nowhere.db")).exists());
}

/// A replay waits for nobody and writes nothing: a backup stays as it is, and may be read-only.
#[test]
fn a_replay_only_reads() {
    let stored = Stored::new();
    let bytes = || std::fs::read(stored.database.path()).unwrap();
    let before = bytes();
    let other = stored.database.locked();
    stored.replay().exits(0);
    drop(other);
    assert!(bytes() == before, "the file is as it was");
}

#[test]
fn a_database_of_an_older_version_is_upgraded_first() {
    let stored = Stored::new();
    // As the third version kept them: a row for each score.
    let older = "CREATE TABLE old (batch, \"index\", trajectory_id, \"group\", reward, valid, stage_reached,
             failed_stage, content_hash, result_start, result_end);
         INSERT INTO old SELECT * FROM scores ORDER BY reward;
         UPDATE old SET content_hash = unhex(content_hash);
         DROP VIEW scores; DROP TABLE score_rows; ALTER TABLE old RENAME TO scores;
         DROP TABLE prompt_references;
         ALTER TABLE run_stages DROP COLUMN valid; ALTER TABLE run_step_stages DROP COLUMN valid;
         PRAGMA user_version = 2";
    stored.database.open().execute_batch(older).unwrap();
    // However the server writes now.
    let config = format!("[store]\nurl = \"{}\"\ndurability = \"off\"\n", stored.database.url);
    let config = stored.gradus.file("gradus.toml", config);
    let out = stored.gradus.run(&["score", "--replay", "exp-17", "--config", &config]).exits(0).out;
    assert!(out.contains("3 requests, 10 trajectories scored again, 0 differ, 0 requests could not"), "{out}");
    let mean = "SELECT count(*), avg(reward) FROM scores s JOIN batches b ON b.id = s.batch WHERE run_id = 'exp-17'";
    let (n, mean): (i64, f64) =
        stored.database.open().query_row(mean, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert!(n == 10 && mean > 0.0 && mean < 1.0, "{n} {mean}");
}

/// Nothing that was lost is passed over: a run of which a part is gone is not the same.
#[test]
fn what_was_lost_or_cannot_be_read_is_named_and_the_others_are_scored() {
    let stored = Stored::new();
    let of_first = "= (SELECT min(id) FROM batches)";
    let rubric = format!("hash = (SELECT rubric_hash FROM batches WHERE id {of_first})");
    for (change, words) in [
        (format!("DELETE FROM bodies WHERE batch {of_first}"), "stored body of batch "),
        (format!("UPDATE bodies SET request_bytes = NULL WHERE batch {of_first}"), "stored request of batch "),
        (format!("UPDATE bodies SET request = x'00' WHERE batch {of_first}"), "stored request of batch "),
        (
            format!("UPDATE score_rows SET json = json_set(json, '$[1][6]', '00') WHERE batch {of_first}"),
            "stored row of batch ",
        ),
        (format!("DELETE FROM rubrics WHERE {rubric}"), "stored rubric of batch "),
        (format!("UPDATE rubrics SET json = 'x' WHERE {rubric}"), ": its stored rubric is damaged: "),
        (format!("UPDATE rubrics SET json = '{{}}' WHERE {rubric}"), ": its stored rubric is damaged: "),
        (format!("UPDATE rubrics SET json = CAST(x'ff' AS TEXT) WHERE {rubric}"), "stored rubric of batch "),
        (format!("UPDATE batches SET judges = '[]' WHERE id {of_first}"), ": its stored judges are damaged: "),
    ] {
        let out = stored.replay_changed(&[(&change, 1)]).exits(1).out;
        assert!(out.contains(words), "{change}: {out}");
        assert!(out.ends_with(" 0 differ, 1 requests could not be read\n"), "{change}: {out}");
        assert!(out.contains("exp-17: 2 requests, 6 trajectories"), "{change}: {out}");
    }
    let out = stored.replay_changed(&[("DELETE FROM rubrics", 3)]).exits(1).out;
    assert!(out.ends_with("0 requests, 0 trajectories scored again, 0 differ, 3 requests could not be read\n"));
}
