//! `gradus score --replay`: a stored run scored again, as it was and after somebody changed the database.

use std::io::Read;

use lz4_flex::frame::FrameDecoder;

use super::*;

/// A run of two requests in a database, scored by a server that was then stopped.
fn stored_run(gradus: &Gradus) -> String {
    let url = format!("sqlite:{}", gradus.path("scores.db"));
    let server = serve(gradus, &["serve", "--listen", "127.0.0.1:0", "--store", &url], &[]);
    for case in ["hermes_group_short_verbose_wrong_stuffed", "search_r1_group_of_four"] {
        let mut request = read(&trajectory_case(case));
        request["run_id"] = json!("exp-17");
        let (status, answer) = server.post("/reward", &request.to_string()).parts();
        assert_eq!(status, 200, "{answer}");
    }
    let judged =
        json!({"run_id": "exp-17", "rubric": "binary_judge", "on_invalid": "zero", "trajectories": right_and_wrong()});
    assert_eq!(server.post("/reward", &judged.to_string()).json()["rewards"], json!([0.0, 0.0]));
    assert!(server.stop().success());
    url
}

/// Scores the run of a database again.
fn replay(gradus: &Gradus, url: &str) -> Ran {
    gradus.run(&["score", "--replay", "exp-17", "--store", url])
}

#[test]
fn a_run_scored_again_is_the_same() {
    let gradus = Gradus::new();
    let url = stored_run(&gradus);
    let ran = replay(&gradus, &url).exits(0);
    let all = "exp-17: 3 requests, 10 trajectories scored again, 0 differ, 0 requests could not be read\n";
    assert_eq!(ran.out, all);
    // With the rubrics that were stored, whatever is the default now.
    let ran = gradus.run(&["score", "--replay", "exp-17", "--store", &url, "--default-rubric", "tool_use"]).exits(0);
    assert_eq!(ran.out, all);
}

#[test]
fn an_unknown_run_is_an_error() {
    let gradus = Gradus::new();
    let url = stored_run(&gradus);
    let ran = gradus.run(&["score", "--replay", "exp-18", "--store", &url]).exits(1);
    assert!(ran.err.contains("there is no run \"exp-18\""), "{}", ran.err);
    assert!(replay(&gradus, "none").exits(1).err.contains("none"));
}

/// Opens the database as somebody with an editor would.
fn tamper(gradus: &Gradus, change: impl FnOnce(&rusqlite::Connection)) {
    let database = rusqlite::Connection::open(gradus.path("scores.db")).unwrap();
    change(&database);
    database.close().unwrap();
}

/// Rewrites the first stored response.
fn rewrite_response(database: &rusqlite::Connection, edit: impl FnOnce(String) -> String) {
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
    let gradus = Gradus::new();
    let url = stored_run(&gradus);
    tamper(&gradus, |database| {
        rewrite_response(database, |text| {
            assert!(text.contains("\"reward\":1.0,\"valid\":true"), "{text}");
            text.replacen("\"reward\":1.0,\"valid\":true", "\"reward\":0.9,\"valid\":true", 1)
        });
    });
    let ran = replay(&gradus, &url).exits(1);
    assert!(ran.out.contains("-0: /reward was 0.9, is 1.0\n"), "{}", ran.out);
    assert!(ran.out.ends_with("10 trajectories scored again, 1 differ, 0 requests could not be read\n"), "{}", ran.out);
}

/// What lists and means are made from stands apart from the answers, which would still be right.
#[test]
fn rows_that_were_changed_are_found_and_named() {
    let gradus = Gradus::new();
    stored_run(&gradus);
    let whole = "WHERE id = (SELECT min(id) FROM batches)";
    let rows =
        |json: &str| format!("UPDATE score_rows SET json = {json} WHERE batch = (SELECT min(batch) FROM score_rows)");
    // A column of the first row.
    let set = |place: u8, value: &str| (rows(&format!("json_set(json, '$[0][{place}]', {value})")), 1);
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
    ] {
        let copy = gradus.path("copy.db");
        std::fs::copy(gradus.path("scores.db"), &copy).unwrap();
        let database = rusqlite::Connection::open(&copy).unwrap();
        assert_eq!(database.execute(&change, []).unwrap(), 1, "{change}");
        database.close().unwrap();
        let ran = replay(&gradus, &format!("sqlite:{copy}")).exits(1);
        assert!(ran.out.contains(words), "{change}: {}", ran.out);
        assert!(ran.out.contains(&format!(" {differ} differ, ")), "{change}: {}", ran.out);
    }
}

#[test]
fn every_difference_of_a_trajectory_is_named() {
    let gradus = Gradus::new();
    let url = stored_run(&gradus);
    tamper(&gradus, |database| {
        let row =
            "UPDATE score_rows SET json = json_set(json, '$[0][0]', 'zz', '$[0][1]', 'elsewhere', '$[0][2]', 0.125)
            WHERE batch = (SELECT min(batch) FROM score_rows)";
        assert_eq!(database.execute(row, []).unwrap(), 1);
        let batch = "UPDATE batches SET step = 7, rubric_name = 'another' WHERE id = (SELECT min(id) FROM batches)";
        assert_eq!(database.execute(batch, []).unwrap(), 1);
    });
    let ran = replay(&gradus, &url).exits(1);
    let first = ran.out.lines().find(|line| line.contains("-0: ")).unwrap();
    for name in ["/row/trajectory_id", "/row/group", "/row/reward", "/row/step", "/batch/rubric_name"] {
        assert!(first.contains(&format!("{name} was ")), "{name}: {first}");
    }
}

/// However many differ, what is printed can be read.
#[test]
fn differences_of_many_trajectories_are_counted_and_not_all_printed() {
    let gradus = Gradus::new();
    let url = format!("sqlite:{}", gradus.path("scores.db"));
    let server = serve(&gradus, &["serve", "--listen", "127.0.0.1:0", "--store", &url], &[]);
    let [right, _] = right_and_wrong();
    let request = json!({"run_id": "exp-17", "trajectories": vec![right; 30]});
    assert_eq!(server.post("/reward", &request.to_string()).status, 200);
    assert!(server.stop().success());
    tamper(&gradus, |database| assert_eq!(database.execute("UPDATE batches SET step = 7", []).unwrap(), 1));
    let ran = replay(&gradus, &url).exits(1);
    assert!(
        ran.out.ends_with(" 30 trajectories scored again, 30 differ, 0 requests could not be read\n"),
        "{}",
        ran.out
    );
    assert_eq!(ran.out.lines().count(), 21, "{}", ran.out);
}

/// A run of which a batch is gone is not the same.
#[test]
fn batches_that_are_gone_are_missed() {
    let gradus = Gradus::new();
    let url = stored_run(&gradus);
    tamper(&gradus, |database| {
        assert_eq!(database.execute("DELETE FROM batches WHERE id = (SELECT min(id) FROM batches)", []).unwrap(), 1);
    });
    let ran = replay(&gradus, &url).exits(1);
    assert!(ran.out.contains("exp-17: 2 requests, 6 trajectories scored again, 0 differ, "), "{}", ran.out);
    assert!(
        ran.out.ends_with("exp-17: 4 trajectories more were counted when they were scored: their batches are gone\n"),
        "{}",
        ran.out
    );
}

/// Older versions named trajectories by another hash.
#[test]
fn hashes_of_older_versions_are_not_compared() {
    let gradus = Gradus::new();
    let url = stored_run(&gradus);
    tamper(&gradus, |database| {
        let sql = "UPDATE score_rows SET json = (SELECT json_group_array(json_set(value, '$[6]', printf('%032d', 7)))
            FROM json_each(score_rows.json))";
        assert_eq!(database.execute(sql, []).unwrap(), 3);
        assert_eq!(database.execute("UPDATE batches SET engine_version = '0.0.9'", []).unwrap(), 3);
    });
    let ran = replay(&gradus, &url).exits(0);
    assert!(ran.out.contains(" 0 differ, "), "{}", ran.out);
    // The hash was changed within a version: together with how requests are packed.
    tamper(&gradus, |database| {
        let this = env!("CARGO_PKG_VERSION");
        database.execute("UPDATE batches SET engine_version = ?1", [this]).unwrap();
        let mut requests = database.prepare("SELECT batch, request FROM bodies").unwrap();
        let requests = requests.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        for (batch, packed) in requests.collect::<Result<Vec<(i64, Vec<u8>)>, _>>().unwrap() {
            let mut request = Vec::new();
            FrameDecoder::new(&*packed).read_to_end(&mut request).unwrap();
            let packed = zstd::bulk::compress(&request, 1).unwrap();
            let update = "UPDATE bodies SET request = ?1 WHERE batch = ?2";
            database.execute(update, rusqlite::params![packed, batch]).unwrap();
        }
    });
    let ran = replay(&gradus, &url).exits(0);
    assert!(ran.out.contains("10 trajectories scored again, 0 differ, "), "{}", ran.out);
}

#[test]
fn a_row_that_cannot_be_read_is_named_and_the_other_requests_are_scored() {
    let gradus = Gradus::new();
    let url = stored_run(&gradus);
    tamper(&gradus, |database| {
        let sql = "UPDATE score_rows SET json = json_set(json, '$[1][6]', '00')
            WHERE batch = (SELECT min(batch) FROM score_rows)";
        assert_eq!(database.execute(sql, []).unwrap(), 1);
    });
    let ran = replay(&gradus, &url).exits(1);
    assert!(
        ran.out.contains("stored row of batch ") && ran.out.contains(" 0 differ, 1 requests could not"),
        "{}",
        ran.out
    );
}

#[test]
fn every_url_that_the_server_takes_is_replayed() {
    let gradus = Gradus::new();
    let url = stored_run(&gradus).replacen("sqlite:", "sqlite://", 1);
    replay(&gradus, &url).exits(0);
    let ran = replay(&gradus, "sqlite://nowhere.db").exits(1);
    assert!(ran.err.contains("there is no database nowhere.db"), "{}", ran.err);
    assert!(!Path::new(&gradus.path("nowhere.db")).exists());
}

/// A replay waits for nobody and writes nothing: a backup stays as it is, and may be read-only.
#[test]
fn a_replay_only_reads() {
    let gradus = Gradus::new();
    let url = stored_run(&gradus);
    let before = std::fs::read(gradus.path("scores.db")).unwrap();
    let database = rusqlite::Connection::open(gradus.path("scores.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    replay(&gradus, &url).exits(0);
    drop(database);
    assert!(std::fs::read(gradus.path("scores.db")).unwrap() == before, "the file is as it was");
}

#[test]
fn a_database_of_an_older_version_is_upgraded_first() {
    let gradus = Gradus::new();
    let url = stored_run(&gradus);
    tamper(&gradus, |database| {
        // As the third version kept them: a row for each score.
        database
            .execute_batch(
                "CREATE TABLE old (batch, \"index\", trajectory_id, \"group\", reward, valid, stage_reached,
                     failed_stage, content_hash, result_start, result_end);
                 INSERT INTO old SELECT * FROM scores ORDER BY reward;
                 UPDATE old SET content_hash = unhex(content_hash);
                 DROP VIEW scores; DROP TABLE score_rows; ALTER TABLE old RENAME TO scores;
                 DROP TABLE prompt_references;
                 ALTER TABLE run_stages DROP COLUMN valid; ALTER TABLE run_step_stages DROP COLUMN valid;
                 PRAGMA user_version = 2",
            )
            .unwrap();
    });
    // However the server writes now.
    let config = gradus.file("gradus.toml", format!("[store]\nurl = \"{url}\"\ndurability = \"off\"\n"));
    let ran = gradus.run(&["score", "--replay", "exp-17", "--config", &config]).exits(0);
    assert!(
        ran.out.contains("3 requests, 10 trajectories scored again, 0 differ, 0 requests could not"),
        "{}",
        ran.out
    );
    let database = rusqlite::Connection::open(gradus.path("scores.db")).unwrap();
    let mean = "SELECT count(*), avg(reward) FROM scores s JOIN batches b ON b.id = s.batch WHERE run_id = 'exp-17'";
    let (n, mean): (i64, f64) = database.query_row(mean, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert!(n == 10 && mean > 0.0 && mean < 1.0, "{n} {mean}");
}

#[test]
fn a_rubric_that_was_changed_is_found() {
    let gradus = Gradus::new();
    let url = stored_run(&gradus);
    tamper(&gradus, |database| {
        let sql =
            "UPDATE rubrics SET json = replace(json, '\"weight\":0.7', '\"weight\":0.2') WHERE name = 'short_form_qa'";
        assert_eq!(database.execute(sql, []).unwrap(), 1);
    });
    let ran = replay(&gradus, &url).exits(1);
    assert!(ran.out.contains("4 differ, "), "{}", ran.out);
}

/// Nothing that was lost is passed over: a run of which a part is gone is not the same.
#[test]
fn what_was_lost_or_cannot_be_read_is_named_and_the_others_are_scored() {
    let gradus = Gradus::new();
    stored_run(&gradus);
    let of_first = "= (SELECT min(id) FROM batches)";
    let rubric = format!("hash = (SELECT rubric_hash FROM batches WHERE id {of_first})");
    for (change, words) in [
        (format!("DELETE FROM bodies WHERE batch {of_first}"), "stored body of batch "),
        (format!("UPDATE bodies SET request_bytes = NULL WHERE batch {of_first}"), "stored request of batch "),
        (format!("DELETE FROM rubrics WHERE {rubric}"), "stored rubric of batch "),
        (format!("UPDATE rubrics SET json = 'x' WHERE {rubric}"), ": its stored rubric is damaged: "),
        (format!("UPDATE rubrics SET json = '{{}}' WHERE {rubric}"), ": its stored rubric is damaged: "),
        (format!("UPDATE rubrics SET json = CAST(x'ff' AS TEXT) WHERE {rubric}"), "stored rubric of batch "),
        (format!("UPDATE batches SET judges = '[]' WHERE id {of_first}"), ": its stored judges are damaged: "),
    ] {
        let copy = gradus.path("copy.db");
        std::fs::copy(gradus.path("scores.db"), &copy).unwrap();
        let database = rusqlite::Connection::open(&copy).unwrap();
        assert_eq!(database.execute(&change, []).unwrap(), 1, "{change}");
        database.close().unwrap();
        let ran = replay(&gradus, &format!("sqlite:{copy}")).exits(1);
        assert!(ran.out.contains(words), "{change}: {}", ran.out);
        assert!(ran.out.ends_with(" 0 differ, 1 requests could not be read\n"), "{change}: {}", ran.out);
        assert!(ran.out.contains("exp-17: 2 requests, 6 trajectories"), "{change}: {}", ran.out);
    }
    tamper(&gradus, |database| assert_eq!(database.execute("DELETE FROM rubrics", []).unwrap(), 3));
    let url = format!("sqlite:{}", gradus.path("scores.db"));
    let ran = replay(&gradus, &url).exits(1);
    assert!(ran.out.ends_with("0 requests, 0 trajectories scored again, 0 differ, 3 requests could not be read\n"));
}

#[test]
fn a_request_that_was_damaged_is_named_and_the_others_are_scored() {
    let gradus = Gradus::new();
    let url = stored_run(&gradus);
    tamper(&gradus, |database| {
        let sql = "UPDATE bodies SET request = x'00' WHERE batch = (SELECT min(batch) FROM bodies)";
        assert_eq!(database.execute(sql, []).unwrap(), 1);
    });
    let ran = replay(&gradus, &url).exits(1);
    assert!(
        ran.out.ends_with("2 requests, 6 trajectories scored again, 0 differ, 1 requests could not be read\n"),
        "{}",
        ran.out
    );
}
