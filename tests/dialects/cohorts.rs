//! Trap 16: members of a group that come in requests of their own meet, where the group counts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use crate::common::{Server, post_bytes, with};

/// Longer than any test: who waits for this long waits in vain.
const LONG: &str = "group_wait_ms=60000";

/// A sample of a group, right, wrong or broken.
fn sample(group: &str, answer: Option<&str>) -> String {
    let response = answer.map_or(json!(7), |answer| json!(format!("<answer>{answer}</answer>")));
    json!({"prompt": "q", "response": response, "label": {"references": ["Paris"], "group": group}}).to_string()
}

fn path(size: usize) -> String {
    format!("/slime?rubric=binary_em&on_invalid=mean&group_size={size}&{LONG}")
}

/// Sends all at once, each on a thread of its own.
fn at_once(server: &Server, requests: &[(String, String)]) -> Vec<Value> {
    std::thread::scope(|scope| {
        let running: Vec<_> =
            requests.iter().map(|(path, body)| scope.spawn(move || server.post(path, body).ok())).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn trap_16_sixteen_members_in_sixteen_requests_meet() {
    let server = Server::start(&[]);
    let requests: Vec<(String, String)> =
        (0..16).map(|n| (path(16), sample("g", [Some("Paris"), Some("Lyon"), Some("Nice"), None][n % 4]))).collect();
    let began = Instant::now();
    let rewards = at_once(&server, &requests);
    assert!(began.elapsed() < Duration::from_secs(20), "nobody waits for the end of the deadline");
    for (n, reward) in rewards.iter().enumerate() {
        let wanted = [json!(1.0), json!(0.0), json!(0.0), json!(1.0 / 3.0)][n % 4].clone();
        assert_eq!(*reward, wanted, "{n}");
    }
}

#[test]
fn members_meet_by_their_prompt_where_no_group_is_named() {
    let server = Server::start(&[]);
    let messages = json!([{"role": "user", "content": "Which city?"}]);
    let templated = "<|im_start|>user\nWhich city?<|im_end|>\n<|im_start|>assistant\n";
    let requests = [
        (path(2), json!({"prompt": messages, "response": "<answer>Paris</answer>", "label": "Paris"}).to_string()),
        (path(2), json!({"prompt": templated, "response": 7, "label": "Paris"}).to_string()),
    ];
    assert_eq!(at_once(&server, &requests), [json!(1.0), json!(1.0)]);
}

#[test]
fn the_size_may_stand_in_the_label_and_shards_may_bring_several_members() {
    let server = Server::start(&[]);
    let label = json!({"references": ["Paris"], "group": "g", "group_size": 3});
    let prompt = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n";
    let shard = |answers: &[&str]| {
        let query: Vec<String> = answers.iter().map(|answer| format!("{prompt}{answer}")).collect();
        json!({"query": query, "prompts": vec![prompt; answers.len()], "labels": vec![label.clone(); answers.len()]})
    };
    // The label's size wins over the query's.
    let path = format!("/get_reward?rubric=binary_em&on_invalid=mean&group_size=16&{LONG}");
    let broken = json!({"query": [7], "prompts": [prompt], "labels": [label]});
    let requests = [
        (path.clone(), shard(&["<answer>Paris</answer>", "<answer>Lyon</answer>"]).to_string()),
        (path, broken.to_string()),
    ];
    let began = Instant::now();
    let answers = at_once(&server, &requests);
    assert_eq!((&answers[0]["rewards"], &answers[1]["rewards"]), (&json!([1.0, 0.0]), &json!([0.5])));
    assert!(began.elapsed() < Duration::from_secs(20), "three rollouts are three, in however many requests");
}

/// As verl's dataset counts its prompts.
#[test]
fn a_group_may_be_a_number_and_its_name_wins_over_its_place_in_the_dataset() {
    let server = Server::start(&[]);
    let path = format!("/verl?rubric=binary_em&on_invalid=mean&{LONG}");
    for infos in [
        [json!({"index": 42}), json!({"index": 42})],
        [json!({"uid": "u", "index": 1}), json!({"uid": "u", "index": 2})],
    ] {
        let sample = |answer: Value, info: &Value| {
            json!({"solution_str": answer, "ground_truth": "Paris", "extra_info": with(info.clone(), "group_size", json!(2))}).to_string()
        };
        let requests = [
            (path.clone(), sample(json!("<answer>Paris</answer>"), &infos[0])),
            (path.clone(), sample(json!(7), &infos[1])),
        ];
        let scores: Vec<Value> = at_once(&server, &requests).iter().map(|answer| answer["score"].clone()).collect();
        assert_eq!(scores, [1.0, 1.0], "{infos:?}");
    }
}

/// A column of whole numbers of which one is missing comes as 2.0, and JSON text may hold a text.
#[test]
fn the_size_may_be_written_as_a_table_has_it() {
    let server = Server::start(&[]);
    let path = format!("/slime?rubric=binary_em&on_invalid=mean&{LONG}");
    let began = Instant::now();
    for size in ["2.0", "\"2\"", "\" 2.0\""] {
        let body = |response: &str| {
            format!(
                "{{\"response\": {response}, \"label\": {{\"answer\": \"Paris\", \"group\": \"g\", \"group_size\": {size}}}}}"
            )
        };
        let requests = [(path.clone(), body("\"<answer>Paris</answer>\"")), (path.clone(), body("7"))];
        assert_eq!(at_once(&server, &requests), [1.0, 1.0], "{size}");
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    let sample =
        json!({"solution_str": "<answer>Paris</answer>", "ground_truth": "Paris", "extra_info": {"group_size": "two"}});
    server
        .post("/verl?on_invalid=error", &sample)
        .refused(422, "give `group_size` as a whole number of 1 or more, or leave it out: it is \"two\"");
}

/// The others know how many they are, and the mean of these is its own.
#[test]
fn a_member_that_the_dialect_refuses_is_one_of_its_group() {
    let server = Server::start(&[]);
    let path = format!("/verl?rubric=binary_em&on_invalid=mean&{LONG}");
    let info = json!({"index": 3, "group_size": 3});
    let right = json!({"solution_str": "<answer>Paris</answer>", "ground_truth": "Paris", "extra_info": info});
    let began = Instant::now();
    let none = |body: Value| with(with(body, "ground_truth", json!("Paris")), "extra_info", info.clone());
    for refused in [json!({"solution_str": null}), json!({})] {
        let requests =
            [(path.clone(), json!([right, right]).to_string()), (path.clone(), json!([none(refused)]).to_string())];
        let answers = at_once(&server, &requests);
        assert_eq!((&answers[0][1]["score"], &answers[1][0]["score"]), (&json!(1.0), &json!(1.0)), "{answers:?}");
        assert_eq!(answers[1][0]["valid"], 0.0);
    }
    // Nothing says where its prompt ends.
    let path = format!("/get_reward?rubric=binary_em&on_invalid=mean&group_size=2&{LONG}");
    let body = |query: &str| json!({"query": [query], "labels": [{"references": ["Paris"], "group": "g"}]}).to_string();
    let whole = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<answer>Paris</answer>";
    let answers = at_once(&server, &[(path.clone(), body(whole)), (path, body("Paris"))]);
    assert_eq!([&answers[0]["rewards"], &answers[1]["rewards"]], [&json!([1.0]), &json!([1.0])]);
    assert!(began.elapsed() < Duration::from_secs(20), "nobody waits for it in vain");
}

#[test]
fn columns_of_trl_say_the_group_and_how_many_it_has() {
    let server = Server::start(&[]);
    let path = format!("/trl?rubric=binary_em&on_invalid=mean&{LONG}");
    for (prompts, groups) in [(["one", "two"], json!(["g"])), (["one", "one"], json!([null]))] {
        let body = |prompt: &str, completion: Value| {
            json!({"prompts": [prompt], "completions": [completion], "num_generations": 2,
                "columns": {"ground_truth": ["Paris"], "group": groups}})
            .to_string()
        };
        let requests = [
            (path.clone(), body(prompts[0], json!("<answer>Paris</answer>"))),
            (path.clone(), body(prompts[1], json!(7))),
        ];
        let rewards: Vec<Value> =
            at_once(&server, &requests).iter().map(|answer| answer["rewards"][0].clone()).collect();
        assert_eq!(rewards, [1.0, 1.0], "{groups}");
    }
}

#[test]
fn who_names_no_group_and_no_prompt_waits_for_nobody() {
    let server = Server::start(&[]);
    let began = Instant::now();
    for (response, reward) in [(json!("<answer>Paris</answer>"), 1.0), (json!(7), 0.0)] {
        let sample = json!({"response": response, "label": "Paris"}).to_string();
        assert_eq!(server.post(&path(2), &sample).ok(), reward, "{response}");
    }
    assert!(began.elapsed() < Duration::from_secs(20));
}

/// Values are passed over and not read: what is none is found when the group is put together.
#[test]
fn a_member_that_is_no_json_spoils_nobody_elses() {
    let server = Server::start(&[]);
    let broken = sample("g", None).replace(":7", ":tru");
    let requests = [(path(2), sample("g", Some("Paris"))), (path(2), broken)];
    assert_eq!(at_once(&server, &requests)[0], json!(1.0));
}

/// More are not scored at once.
#[test]
fn a_group_waits_for_no_more_than_are_scored_together() {
    let server = Server::start(&[]);
    let label = json!({"references": ["Paris"], "group": "g", "group_size": 5000});
    let body = json!({"query": vec!["q Paris"; 4096], "prompts": vec!["q"; 4096], "labels": vec![label; 4096]});
    let began = Instant::now();
    let path = format!("/get_reward?rubric=binary_em&on_invalid=mean&{LONG}");
    assert_eq!(server.post(&path, &body).ok()["rewards"].as_array().unwrap().len(), 4096);
    assert!(began.elapsed() < Duration::from_secs(40));
}

#[test]
fn a_group_whose_time_is_over_is_scored_with_those_that_came() {
    let server = Server::start(&[]);
    let path = "/slime?rubric=binary_em&on_invalid=mean&group_size=16&group_wait_ms=300";
    let requests = [(path.to_owned(), sample("g", Some("Paris"))), (path.to_owned(), sample("g", None))];
    assert_eq!(at_once(&server, &requests), [json!(1.0), json!(1.0)]);
}

#[test]
fn a_member_that_comes_too_late_is_scored_by_itself() {
    let server = Server::start(&[]);
    let path = "/slime?rubric=binary_em&on_invalid=mean&group_size=2&group_wait_ms=100";
    assert_eq!(server.post(path, &sample("g", Some("Paris"))).ok(), json!(1.0));
    // Its group has been scored: there is no mean for it.
    assert_eq!(server.post(path, &sample("g", None)).ok(), json!(0.0));
}

/// A body may take longer than its request's own deadline: the others of its group have nothing to do with that.
#[test]
fn a_member_whose_own_time_is_over_does_not_end_the_others() {
    let server = Server::start(&[]);
    let path = "/slime?rubric=binary_em&on_invalid=mean&group_size=2&group_wait_ms=1000&deadline_ms=1500";
    let late = post_bytes(path, "", sample("g", Some("Lyon")).as_bytes());
    let (start, end) = late.split_at(late.len() - 1);
    let mut slow = server.connect();
    slow.write(start);
    std::thread::sleep(Duration::from_millis(1600));
    std::thread::scope(|scope| {
        let prompt = scope.spawn(|| server.post(path, &sample("g", Some("Paris"))).ok());
        std::thread::sleep(Duration::from_millis(200));
        slow.write(end);
        slow.read().unwrap().problem(504);
        assert_eq!(prompt.join().unwrap(), json!(1.0));
    });
}

#[test]
fn a_member_that_comes_twice_without_a_key_counts_twice() {
    let server = Server::start(&[]);
    // Two rollouts of a prompt may well say the same: only a key tells a repeat from another member.
    let requests =
        [(path(3), sample("g", Some("Paris"))), (path(3), sample("g", Some("Paris"))), (path(3), sample("g", None))];
    assert_eq!(at_once(&server, &requests), [json!(1.0), json!(1.0), json!(1.0)]);
}

#[test]
fn a_group_waits_within_the_deadline_and_leaves_time_for_scoring() {
    let server = Server::start(&[]);
    let began = Instant::now();
    let path = "/slime?rubric=binary_em&on_invalid=mean&group_size=2&group_wait_ms=60000&deadline_ms=2000";
    assert_eq!(server.post(path, &sample("g", Some("Paris"))).ok(), json!(1.0));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn members_that_wait_count_as_bytes_in_flight() {
    let server = Server::start(&["--max-body-bytes", "65536", "--max-in-flight-bytes", "65536"]);
    // A request counts 16 KiB at least: four fit, and none of their groups is ever complete.
    let mut waiting: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for (n, connection) in waiting.iter_mut().enumerate() {
        connection.write(post_bytes(&path(2), "", sample(&format!("g{n}"), Some("Paris")).as_bytes()));
    }
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) >= 4.0);
    let busy = server.post(&path(2), &sample("g0", None));
    busy.problem(429);
    assert_eq!(busy.header("retry-after"), "1");
    // One hangs up: there is room for a member, which completes another one's group.
    drop(waiting.pop());
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) == 3.0);
    assert_eq!(server.post(&path(2), &sample("g0", None)).ok(), json!(1.0));
}

#[test]
fn a_client_that_went_away_frees_its_place() {
    let server = Server::start(&[]);
    let mut gone = server.connect();
    gone.write(post_bytes(&path(2), "", sample("g", Some("Lyon")).as_bytes()));
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) >= 1.0);
    drop(gone);
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) == 0.0);
    // With the wrong answer of the one that went away the mean would be 0, or 1/2.
    let requests = [(path(2), sample("g", Some("Paris"))), (path(2), sample("g", None))];
    assert_eq!(at_once(&server, &requests), [json!(1.0), json!(1.0)]);
}

#[test]
fn only_members_with_the_same_settings_meet() {
    let server = Server::start(&[]);
    let with = |more: &str| format!("/slime?rubric=binary_em&on_invalid=mean&group_size=2&group_wait_ms=300{more}");
    let requests = [
        (with("&step=1"), sample("g", Some("Paris"))),
        (with("&step=2"), sample("g", None)),
        (with("&run_id=a"), sample("g", Some("Paris"))),
        (with(""), sample("h", Some("Paris"))),
    ];
    // The broken one is alone: it has no mean, and gets the lowest reward.
    assert_eq!(at_once(&server, &requests), [json!(1.0), json!(0.0), json!(1.0), json!(1.0)]);
}

#[test]
fn nobody_waits_where_the_group_does_not_count() {
    let server = Server::start(&[]);
    let began = Instant::now();
    let path = format!("/slime?rubric=binary_em&group_size=16&{LONG}");
    assert_eq!(server.post(&path, &sample("g", Some("Paris"))).ok(), json!(1.0));
    // Nor where its size is not known.
    let path = format!("/slime?rubric=binary_em&on_invalid=mean&{LONG}");
    assert_eq!(server.post(&path, &sample("g", Some("Paris"))).ok(), json!(1.0));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_group_that_met_is_forgotten_and_the_next_one_begins_anew() {
    let server = Server::start(&[]);
    for wanted in ["Paris", "Lyon"] {
        let requests = [(path(2), sample("g", Some(wanted))), (path(2), sample("g", None))];
        let reward = json!(f64::from(u8::from(wanted == "Paris")));
        assert_eq!(at_once(&server, &requests), [reward.clone(), reward]);
    }
}

/// It is one request, and known by the id of whoever came first.
#[test]
fn a_group_is_kept_under_the_request_of_its_first_member() {
    let server = Server::start(&["--store", "sqlite::memory:"]);
    let path = format!("{}&run_id=r", path(2));
    let mut first = server.connect();
    first.write(post_bytes(&path, "X-Request-Id: first\r\n", sample("g", Some("Paris")).as_bytes()));
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) >= 1.0);
    server.post_with(&[("X-Request-Id", "second")], &path, &sample("g", None)).ok();
    first.read().unwrap().ok();
    let rows = server.get("/runs/r/scores").ok()["items"].clone();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    let id = rows[0]["score_id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/scores/{id}")).ok()["request_id"], "first");
}

/// A server with a rubric by which a judge puts the answers of a group in order.
fn ranking(options: &[&str]) -> Server {
    let server = Server::start(&[&["--admin-token", "secret"], options].concat());
    let rubric = "[answer]\nfrom = \"last_message\"\n\
        [[stages]]\nkind = \"answer_format\"\nweight = 1\nthreshold = 0\n\
        [[stages]]\nkind = \"judge\"\nmode = \"rank\"\nweight = 1\ncriteria = \"Better answers first.\"\n";
    server.add_rubric("ranked", rubric);
    server
}

#[test]
fn a_rubric_that_ranks_makes_members_wait_and_one_members_errors_are_its_own() {
    let server = ranking(&[]);
    // There is no judge: who asks for errors gets one, and the other one gets null.
    let path = |on_invalid: &str| format!("/slime?rubric=ranked&group_size=2&{LONG}&on_invalid={on_invalid}");
    std::thread::scope(|scope| {
        let one = scope.spawn(|| server.post(&path("error"), &sample("g", Some("Paris"))));
        let other = scope.spawn(|| server.post(&path("null"), &sample("g", Some("Lyon"))));
        one.join().unwrap().problem(503);
        assert_eq!(other.join().unwrap().ok(), Value::Null);
    });
}

/// A judge that prefers Paris to Lyon and Lyon to nothing, in whichever order they are put to it.
struct Geographer;

impl Respond for Geographer {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let prompt = String::from_utf8_lossy(&request.body).into_owned();
        let said = ["Paris is the capital", "It is Lyon", "I do not know"].map(|said| prompt.find(said));
        // Its number is by its place; those that are there, the best first.
        let number = |place: usize| 1 + said.iter().flatten().filter(|other| **other < place).count();
        let order = json!({"order": said.iter().flatten().map(|place| number(*place)).collect::<Vec<_>>()}).to_string();
        let choice = json!({"index": 0, "message": {"role": "assistant", "content": order}, "finish_reason": "stop"});
        ResponseTemplate::new(200).set_body_json(json!({"id": "1", "object": "chat.completion", "created": 1,
            "model": "judge", "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}))
    }
}

#[test]
fn a_group_in_many_requests_is_ranked_as_in_one() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let endpoint = runtime.block_on(async {
        let endpoint = MockServer::start().await;
        Mock::given(method("POST")).respond_with(Geographer).mount(&endpoint).await;
        endpoint
    });
    let server = ranking(&["--judge", &format!("{}/v1#judge", endpoint.uri())]);
    let answers = ["It is Lyon.", "Paris is the capital.", "I do not know."];
    let body = |answer: &&str| json!({"prompt": "Which city?", "response": answer, "label": {"references": ["Paris"], "group": "g"}});
    let path = format!("/slime?rubric=ranked&group_size=3&{LONG}");
    let requests: Vec<_> = answers.iter().map(|answer| (path.clone(), body(answer).to_string())).collect();
    assert_eq!(at_once(&server, &requests), [json!(0.75), json!(1.0), json!(0.5)]);
    let item =
        |answer: &&str| json!({"prompt": "Which city?", "response": answer, "references": ["Paris"], "group": "g"});
    let items: Vec<Value> = answers.iter().map(item).collect();
    let native = server.reward(&json!({"rubric": "ranked", "trajectories": items})).ok();
    assert_eq!(native["rewards"], json!([0.75, 1.0, 0.5]));
    // The same answer is worth what it is among those of its group.
    let of = |group: &str, answer: usize| with(item(&answers[answer]), "group", json!(group));
    let two = json!([of("bad", 0), of("bad", 2), of("good", 0), of("good", 1)]);
    let native = server.reward(&json!({"rubric": "ranked", "trajectories": two})).ok();
    assert_eq!(native["rewards"], json!([1.0, 0.5, 0.5, 1.0]));
}

/// As with a plain request: nobody is there for the verdict.
#[test]
fn a_group_whose_clients_have_all_gone_asks_its_judge_no_more() {
    let endpoint = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1#judge", endpoint.local_addr().unwrap());
    let server = ranking(&["--judge", &url]);
    let path = format!("/slime?rubric=ranked&group_size=2&{LONG}");
    let mut members: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for (connection, answer) in members.iter_mut().zip(["Paris", "Lyon"]) {
        connection.write(post_bytes(&path, "", sample("g", Some(answer)).as_bytes()));
    }
    // The question has come, and is never answered: the server hangs up.
    let (mut question, _) = endpoint.accept().unwrap();
    question.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    drop(members);
    std::io::copy(&mut question, &mut std::io::sink()).unwrap();
}
