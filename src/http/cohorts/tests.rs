//! Members that wait, come late, leave and are scored together.

use super::*;

/// A request that arrives now.
fn coming(due: Option<Due>) -> Coming {
    Coming { arrived: Instant::now(), due, request_id: String::new(), patient: false }
}

/// Two members of a group that wait, of 3 and 5 bytes.
fn two() -> (Waiting, CohortKey, tokio::task::JoinHandle<()>) {
    let timer = tokio::spawn(std::future::pending());
    let member = |number, items: &str| {
        let joining =
            Joining { items: items.to_owned(), count: 1, size: 3, patience: Duration::ZERO, request: coming(None) };
        Member { number, joining, first: 0, answer: oneshot::channel().0 }
    };
    let key = CohortKey { envelope: "{".into(), group: "g".to_owned() };
    let members = vec![member(0, "abc"), member(1, "abcde")];
    let cohort = Cohort { number: 0, members, items: 2, timer: timer.abort_handle() };
    (Waiting { cohorts: HashMap::from([(key.clone(), cohort)]), members: 2, bytes: 8, next: 2 }, key, timer)
}

async fn ended(timer: tokio::task::JoinHandle<()>) -> bool {
    let end = tokio::time::timeout(Duration::from_secs(5), timer).await;
    end.is_ok_and(|end| end.is_err_and(|error| error.is_cancelled()))
}

#[tokio::test]
async fn who_leaves_frees_its_place_and_the_last_one_ends_the_waiting() {
    let (mut waiting, key, timer) = two();
    assert!(waiting.leave(&key, 0) && !waiting.leave(&key, 0));
    assert_eq!((waiting.members, waiting.bytes, waiting.cohorts.len()), (1, 5, 1));
    assert_eq!(waiting.cohorts.get(&key).map(|cohort| cohort.items), Some(1), "the group is waited for again");
    assert!(waiting.leave(&key, 1));
    assert_eq!((waiting.members, waiting.bytes, waiting.cohorts.len()), (0, 0, 0));
    assert!(ended(timer).await);
}

#[tokio::test]
async fn a_group_that_is_complete_frees_the_places_of_all() {
    let (mut waiting, key, timer) = two();
    assert_eq!(waiting.take_out(&key).map(|cohort| cohort.members.len()), Some(2));
    assert_eq!((waiting.members, waiting.bytes, waiting.cohorts.len()), (0, 0, 0));
    assert!(ended(timer).await);
}

fn key() -> CohortKey {
    let envelope = r#"{"rubric":"binary_em","on_invalid":"mean","trajectories":["#;
    CohortKey { envelope: envelope.into(), group: "g".to_owned() }
}

/// One of two members, who waits for the other one longer than any test.
fn joining(answer: &str) -> Joining {
    let items = format!(
        r#"{{"group":"g","messages":[{{"role":"assistant","content":"<answer>{answer}</answer>"}}],"references":["Paris"]}}"#
    );
    Joining { items, count: 1, size: 2, patience: Duration::from_mins(10), request: coming(None) }
}

fn late(answer: &str) -> Joining {
    let due = Due { at: Instant::now(), limit_ms: 1000, servers: false };
    Joining { request: coming(Some(due)), ..joining(answer) }
}

#[tokio::test]
async fn who_is_late_is_told_and_the_others_wait_on() {
    let app = App::plain(None);
    let first = app.clone();
    let first = tokio::spawn(async move { join(&first, key(), joining("Paris")).await.is_ok() });
    while app.cohorts.lock().members == 0 {
        tokio::task::yield_now().await;
    }
    let told = join(&app, key(), late("Lyon")).await.err().unwrap();
    assert_eq!(told.status(), axum::http::StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(app.cohorts.lock().members, 1);
    let share = join(&app, key(), joining("Paris")).await.ok().unwrap();
    assert_eq!(share.scored.rows.len(), 2);
    assert!(first.await.unwrap());
}

#[tokio::test]
async fn who_became_late_while_it_waited_is_told_and_the_others_are_scored() {
    let member = |joining| {
        let (answer, wait) = oneshot::channel();
        (Member { number: 0, joining, first: 0, answer }, wait)
    };
    let ((late, told), (in_time, share)) = (member(late("Lyon")), member(joining("Paris")));
    let timer = tokio::spawn(std::future::pending::<()>()).abort_handle();
    settle(App::plain(None), key(), Cohort { number: 0, members: vec![late, in_time], items: 2, timer }).await;
    let told = told.await.unwrap().err().unwrap();
    assert_eq!(told.status(), axum::http::StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(share.await.unwrap().ok().unwrap().scored.rows.len(), 1);
}

/// Its body may have begun to come before the server was told to stop.
#[tokio::test]
async fn who_comes_when_the_server_stops_waits_for_nobody() {
    let app = App::plain(None);
    app.drain();
    let share = tokio::time::timeout(Duration::from_mins(1), join(&app, key(), joining("Paris"))).await;
    assert_eq!(share.expect("it waits").ok().unwrap().scored.rows.len(), 1);
}

#[tokio::test]
async fn the_time_that_a_body_took_to_come_is_no_time_to_wait() {
    let arrived = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
    let request = Coming { arrived, ..coming(None) };
    let joining = Joining { request, patience: Duration::from_secs(100), ..joining("Paris") };
    let share = tokio::time::timeout(Duration::from_mins(1), join(&App::plain(None), key(), joining)).await;
    assert_eq!(share.expect("it waits").ok().unwrap().scored.rows.len(), 1);
}

#[test]
fn a_group_is_the_same_in_whichever_order_its_members_came() {
    let body = |answers: [&str; 2]| {
        let member =
            |answer: &str| Member { number: 0, joining: joining(answer), first: 0, answer: oneshot::channel().0 };
        together(&key(), answers.map(member).into()).1
    };
    assert_eq!(body(["Paris", "Lyon"]), body(["Lyon", "Paris"]));
}

#[test]
fn members_and_bytes_that_wait_are_bounded() {
    let waiting = |members, bytes| Waiting { members, bytes, ..Waiting::default() };
    assert!(waiting(MAX_WAITING - 1, MAX_BYTES - 10).room_for(10).is_ok());
    for (full, more) in [(waiting(MAX_WAITING, 0), 0), (waiting(0, MAX_BYTES - 10), 11)] {
        let problem = full.room_for(more).unwrap_err();
        assert_eq!(problem.status(), axum::http::StatusCode::TOO_MANY_REQUESTS);
        assert!(problem.detail().contains("group_wait_ms"), "{}", problem.detail());
    }
}

/// A request has no more than so many items, and theirs are one request.
#[tokio::test]
async fn members_that_are_too_many_together_are_scored_apart() {
    let (app, key) = (App::plain(None), key());
    let mut waiting = Waiting::default();
    let mut settled = |count| {
        let (size, patience) = (MAX_TRAJECTORIES, Duration::from_mins(5));
        let joining = Joining { items: "abc".to_owned(), count, size, patience, request: coming(None) };
        let (_, settled) = waiting.take_in(&app, &key, joining, oneshot::channel().0).unwrap();
        settled.iter().map(|cohort| cohort.items).collect::<Vec<_>>()
    };
    assert_eq!(settled(4000), Vec::<usize>::new());
    assert_eq!(settled(4000), [4000], "those that came before");
    assert_eq!(settled(96), [4096]);
    assert_eq!((settled(1), settled(4096)), (vec![], vec![1, 4096]));
    assert_eq!((waiting.members, waiting.bytes, waiting.cohorts.len()), (0, 0, 0));
}
