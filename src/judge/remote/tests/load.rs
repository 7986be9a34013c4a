//! Limits, health and balance of endpoints under load.

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{advance, pause};

use super::*;
use crate::judge::remote::accounting::Health;
use crate::judge::remote::address::Address;
use crate::judge::remote::breaker::{Breaker, Entry, FailureDuration, Policy};
use crate::judge::remote::endpoint::Endpoint;
use crate::judge::remote::pool::Retry;
use crate::judge::remote::rate_limit::RateLimit;
use crate::judge::remote::transport::{Transport, http_client};

const POLICY: Policy = Policy { failures: 3, cool_down: Duration::from_secs(10), patience: Duration::from_secs(5) };

fn yes() -> Value {
    tokens(&[("Yes", -0.1)])
}

fn spawn(remote: &Arc<Remote>) -> JoinHandle<Result<Finding, Unavailable>> {
    let remote = Arc::clone(remote);
    tokio::spawn(async move { answer(&remote, labels()).await })
}

/// Stops the clock for good: without this it would jump ahead whenever a test waits for a socket.
async fn stop_clock() -> std::sync::mpsc::Sender<()> {
    pause();
    let (hold, held) = std::sync::mpsc::channel();
    tokio::task::spawn_blocking(move || held.recv());
    tokio::task::yield_now().await;
    hold
}

/// Lets sockets and tasks catch up.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_more_requests_at_once_than_allowed() {
    let gate = Gate::open(http("200 OK", "", &yes())).await;
    let mut config = config(&[&gate.url]);
    config.endpoints[0].max_concurrency = 2;
    let judge = Arc::new(remote(config));
    let inquiries: Vec<_> = (0..5).map(|_| spawn(&judge)).collect();
    until(|| judge.snapshot()[0].outstanding == 5 && gate.arrived() == 2).await;
    settle().await;
    assert_eq!((gate.arrived(), judge.snapshot()[0].requests), (2, 2));
    gate.release.add_permits(1);
    until(|| gate.arrived() == 3).await;
    gate.release.add_permits(4);
    for inquiry in inquiries {
        inquiry.await.expect("a task that ends").expect("a finding");
    }
    assert_eq!(judge.snapshot()[0].outstanding, 0);
}

#[tokio::test]
async fn a_dropped_inquiry_closes_its_connection_and_frees_its_permit() {
    let gate = Gate::open(http("200 OK", "", &yes())).await;
    let mut config = config(&[&gate.url]);
    config.endpoints[0].max_concurrency = 1;
    let judge = Arc::new(remote(config));
    let dropped = spawn(&judge);
    until(|| gate.arrived() == 1).await;
    let waiting = spawn(&judge);
    let dropped_waiting = spawn(&judge);
    until(|| judge.snapshot()[0].outstanding == 3).await;
    dropped_waiting.abort();
    dropped.abort();
    until(|| gate.arrived() == 2 && gate.gone.load(Ordering::SeqCst) == 1).await;
    gate.release.add_permits(1);
    waiting.await.expect("a task that ends").expect("a finding");
    let account = judge.snapshot().remove(0);
    assert_eq!((account.outstanding, account.requests, account.health), (0, 2, Health::Closed));
}

#[tokio::test]
async fn the_less_busy_endpoint_is_chosen() {
    let (slow, quick) = (Gate::open(http("200 OK", "", &yes())).await, Gate::open(http("200 OK", "", &yes())).await);
    quick.release.add_permits(10);
    let judge = Arc::new(remote(config(&[&slow.url, &quick.url])));
    let held = spawn(&judge);
    until(|| slow.arrived() == 1).await;
    for _ in 0..3 {
        answer(&judge, labels()).await.expect("a finding");
    }
    assert_eq!((slow.arrived(), quick.arrived()), (1, 3), "a hang holds nobody else");
    slow.release.add_permits(1);
    held.await.expect("a task that ends").expect("a finding");
    // Idle ones take turns: the slow one has had fewer.
    slow.release.add_permits(1);
    answer(&judge, labels()).await.expect("a finding");
    assert_eq!((slow.arrived(), quick.arrived()), (2, 3));
}

#[tokio::test]
async fn an_endpoint_that_keeps_failing_is_left_alone_and_tried_again_later() {
    let clock = stop_clock().await;
    let failing = ResponseTemplate::new(404).set_body_string("on fire");
    let server = server(vec![failing.clone(), failing.clone(), failing, ok(&yes())]).await;
    let judge = remote(Config { attempts: 1, breaker_failures: 2, ..config(&[&root(&server)]) });
    for _ in 0..2 {
        assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NotConfigured, "on fire");
    }
    assert_eq!(judge.snapshot()[0].health, Health::Open);
    let left_alone = "no endpoint is asked at present";
    assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NotConfigured, left_alone);
    assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NotConfigured, "on fire");
    assert_eq!(judge.snapshot()[0].requests, 2, "it is not asked");
    advance(Duration::from_secs(10)).await;
    assert_unavailable(answer(&judge, labels()).await, UnavailableCode::NotConfigured, "on fire");
    assert_eq!((judge.snapshot()[0].requests, judge.snapshot()[0].health), (3, Health::Open), "the probe failed");
    advance(Duration::from_secs(10)).await;
    answer(&judge, labels()).await.expect("the probe succeeds");
    assert_eq!(judge.snapshot()[0].health, Health::Closed);
    drop(clock);
}

#[tokio::test]
async fn a_burst_of_errors_costs_no_verdict() {
    let failing = ResponseTemplate::new(503);
    let server = server([vec![failing; 6], vec![ok(&yes())]].concat()).await;
    let config = Config { breaker_failures: 2, breaker_cool_down_ms: 1_600, ..config(&[&root(&server)]) };
    let judge = Arc::new(remote(config));
    let inquiries: Vec<_> = (0..8).map(|_| spawn(&judge)).collect();
    for inquiry in inquiries {
        inquiry.await.expect("a task that ends").expect("a finding");
    }
    assert_eq!((judge.snapshot()[0].requests, judge.snapshot()[0].health), (14, Health::Closed));
}

#[tokio::test]
async fn a_probe_that_hangs_keeps_nobody_from_another_endpoint() {
    let silent = Gate::open(http("503 Service Unavailable", "", &json!({}))).await;
    let failing = server(vec![ResponseTemplate::new(503), ok(&yes())]).await;
    let config = Config {
        attempts: 1,
        breaker_failures: 1,
        breaker_cool_down_ms: 1_600,
        ..config(&[&silent.url, &root(&failing)])
    };
    let judge = Arc::new(remote(config));
    silent.release.add_permits(1);
    answer(&judge, labels()).await.expect_err("one fails");
    // The other one is to be tried later.
    tokio::time::sleep(Duration::from_millis(60)).await;
    answer(&judge, labels()).await.expect_err("both fail");
    // Whoever tries the silent one waits for it; all others have the other one's word, whoever of them tries that.
    let mut inquiries: Vec<_> = (0..6).map(|_| spawn(&judge)).collect();
    until(|| inquiries.iter().filter(|inquiry| inquiry.is_finished()).count() == 5).await;
    inquiries.retain(|inquiry| !inquiry.is_finished());
    assert_eq!((inquiries.len(), silent.arrived()), (1, 2));
    inquiries.remove(0).abort();
}

#[tokio::test]
async fn an_outage_that_outlasts_the_deadline_is_not_waited_for() {
    let clock = stop_clock().await;
    let server = server(vec![ResponseTemplate::new(500)]).await;
    let judge = remote(Config { attempts: 1, breaker_failures: 1, ..config(&[&root(&server)]) });
    answer(&judge, labels()).await.expect_err("it fails");
    let soon = within(Duration::from_millis(600));
    let found = judge.answer(&inquiry(labels()), &soon).await;
    assert_unavailable(found, UnavailableCode::Timeout, "no endpoint is asked at present");
    assert_eq!(judge.snapshot()[0].requests, 1);
    drop(clock);
}

#[tokio::test]
async fn what_is_wrong_with_one_endpoint_is_asked_of_another() {
    for broken in [404, 401, 400].map(ResponseTemplate::new).into_iter().chain([raw("<html>Log in</html>")]) {
        let (broken, well) = (server(vec![broken]).await, server(vec![ok(&yes())]).await);
        let judge = remote(config(&[&root(&broken), &root(&well)]));
        for _ in 0..8 {
            answer(&judge, labels()).await.expect("the other one's answer");
        }
        let asked: Vec<u64> = judge.snapshot().iter().map(|account| account.requests).collect();
        assert_eq!(asked[1], 8);
        assert!((1..=5).contains(&asked[0]), "{asked:?}");
    }
}

#[tokio::test]
async fn endpoints_without_time_hide_none_that_has() {
    let busy = || server(vec![ResponseTemplate::new(429)]);
    let (one, other, well) = (busy().await, busy().await, server(vec![ok(&yes())]).await);
    let judge = remote(Config { attempts: 3, ..config(&[&root(&one), &root(&other), &root(&well)]) });
    for _ in 0..20 {
        answer(&judge, labels()).await.expect("the third one's answer");
    }
}

#[tokio::test]
async fn another_model_at_one_endpoint_is_left_for_the_first() {
    let mut other = yes();
    other["model"] = json!("judge-2");
    let (well, wrong) = (server(vec![ok(&yes())]).await, server(vec![ok(&other)]).await);
    let judge = remote(Config { breaker_failures: 2, ..config(&[&root(&well), &root(&wrong)]) });
    for _ in 0..12 {
        answer(&judge, labels()).await.expect("the first one's answer");
    }
    assert_eq!((judge.snapshot()[1].requests, judge.snapshot()[1].health), (2, Health::Open));
}

#[tokio::test]
async fn a_judge_that_gave_log_probabilities_goes_on_to() {
    let without = content("{\"verdict\":\"Yes\"}");
    let server = server(vec![ok(&yes()), ok(&without), ok(&yes())]).await;
    let judge = remote(config(&[&root(&server)]));
    answer(&judge, labels()).await.expect("the first one has them");
    let found = answer(&judge, labels()).await;
    assert_unavailable(found, UnavailableCode::NoVerdict, "no log-probabilities, as the judge's first had");
    let found = answer(&judge, labels()).await.expect("they are back");
    assert!(matches!(found.said, crate::judge::inquiry::BackendAnswer::Labels(_)), "{found:?}");
}

#[tokio::test]
async fn one_that_asks_for_time_hides_none_that_is_back_before() {
    let busy = server(vec![ResponseTemplate::new(429).insert_header("retry-after", "20")]).await;
    let back = server(vec![ResponseTemplate::new(503), ok(&yes())]).await;
    let config = Config {
        breaker_failures: 1,
        breaker_cool_down_ms: 1_600,
        ..config(&[&busy, &back].map(root).each_ref().map(String::as_str))
    };
    let start = Instant::now();
    answer(&remote(config), labels()).await.expect("the second one's answer");
    assert!(start.elapsed() < Duration::from_secs(15), "it did not wait for the first");
}

#[tokio::test]
async fn a_silent_endpoint_is_left_for_another_in_time() {
    let (silent, well) = (Gate::open(String::new()).await, Gate::open(http("200 OK", "", &yes())).await);
    well.release.add_permits(1);
    let judge = remote(Config { request_timeout_ms: Some(1000), ..config(&[&silent.url, &well.url]) });
    answer(&judge, labels()).await.expect("the other one's answer");
    assert_eq!((silent.arrived(), well.arrived()), (1, 1));
    assert_eq!(judge.snapshot()[0].failures["hang"], 1);

    let alone = remote(Config { request_timeout_ms: Some(100), attempts: 3, ..config(&[&silent.url]) });
    let found = answer(&alone, labels()).await;
    assert_unavailable(found, UnavailableCode::Timeout, "no reply in `request_timeout_ms`");
    assert_eq!(alone.snapshot()[0].requests, 3);
}

/// Else every second question of callers in a hurry would be lost.
#[tokio::test]
async fn an_idle_endpoint_that_was_silent_is_asked_after_the_others() {
    let silent = Gate::open(String::new()).await;
    let well = server(vec![ok(&yes())]).await;
    let judge = remote(config(&[&silent.url, &root(&well)]));
    let soon = within(Duration::from_millis(50));
    judge.answer(&inquiry(labels()), &soon).await.expect_err("it hangs");
    for _ in 0..3 {
        answer(&judge, labels()).await.expect("the other one's answer");
    }
    assert_eq!(judge.snapshot().iter().map(|account| account.requests).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(judge.snapshot()[0].health, Health::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_caller_in_a_hurry_does_not_make_an_endpoint_ill() {
    let gate = Gate::open(String::new()).await;
    let judge = remote(Config { breaker_failures: 2, ..config(&[&gate.url]) });
    let ask_for = async |seconds| {
        let deadline = within(Duration::from_secs(seconds));
        judge.answer(&inquiry(labels()), &deadline).await.expect_err("it hangs");
        judge.snapshot()[0].health
    };
    for _ in 0..4 {
        assert_eq!(ask_for(1).await, Health::Closed);
    }
    assert_eq!(ask_for(30).await, Health::Closed);
    assert_eq!(ask_for(30).await, Health::Open, "twice silent for half a minute");
}

/// Each of its callers alone says nothing about it.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_answers_nobody_in_a_hurry_is_left_alone() {
    let gate = Gate::open(String::new()).await;
    let judge = remote(Config { breaker_failures: 2, ..config(&[&gate.url]) });
    let ask = async || {
        let soon = within(Duration::from_secs(1));
        judge.answer(&inquiry(labels()), &soon).await.expect_err("it hangs");
        let account = judge.snapshot().remove(0);
        (account.requests, account.health)
    };
    for requests in 1..=6 {
        assert_eq!(ask().await, (requests, Health::Closed));
    }
    assert_eq!(ask().await, (7, Health::Open), "silent for five seconds, and twice more");
    assert_eq!(ask().await, (8, Health::Open), "one tries it soon");
    assert_eq!(ask().await, (8, Health::Open), "and the others do not");
}

#[tokio::test(start_paused = true)]
async fn time_in_which_nobody_asks_is_no_silence() {
    let gate = Gate::open(String::new()).await;
    let judge = remote(Config { breaker_failures: 1, ..config(&[&gate.url]) });
    let ask = async || {
        let soon = within(Duration::from_secs(1));
        judge.answer(&inquiry(labels()), &soon).await.expect_err("it hangs");
        judge.snapshot()[0].health
    };
    for _ in 0..3 {
        assert_eq!(ask().await, Health::Closed);
        advance(Duration::from_hours(1)).await;
    }
    for _ in 0..4 {
        assert_eq!(ask().await, Health::Closed);
    }
    assert_eq!(ask().await, Health::Open, "silent for five seconds");
}

#[tokio::test]
async fn an_endpoint_that_is_too_slow_for_some_serves_the_others() {
    let clock = stop_clock().await;
    let gate = Gate::open(http("200 OK", "", &yes())).await;
    let judge = Arc::new(remote(Config { breaker_failures: 2, ..config(&[&gate.url]) }));
    let hurried = async |requests: usize| {
        let (asked, soon) = (judge.clone(), within(Duration::from_secs(1)));
        let hurried = tokio::spawn(async move { asked.answer(&inquiry(labels()), &soon).await });
        until(|| gate.arrived() == requests).await;
        // Timers go by whole milliseconds.
        advance(Duration::from_millis(1001)).await;
        hurried.await.expect("a task that ends").expect_err("it is too slow");
        judge.snapshot()[0].health
    };
    let patient = spawn(&judge);
    until(|| gate.arrived() == 1).await;
    for requests in 2..8 {
        assert_eq!(hurried(requests).await, Health::Closed);
    }
    assert_eq!(hurried(8).await, Health::Open);
    until(|| gate.gone.load(Ordering::SeqCst) == 7).await;
    gate.release.add_permits(1);
    patient.await.expect("a task that ends").expect("a finding");
    assert_eq!(judge.snapshot()[0].health, Health::Closed, "who answers is not silent");
    for requests in 9..15 {
        assert_eq!(hurried(requests).await, Health::Closed, "it begins anew");
    }
    drop(clock);
}

#[tokio::test]
async fn those_who_wait_for_a_failing_endpoint_go_to_another() {
    let broken = Gate::open(http("500 Internal Server Error", "", &json!({}))).await;
    let well = Gate::open(http("200 OK", "", &yes())).await;
    let mut config = Config { attempts: 2, breaker_failures: 1, ..config(&[&broken.url, &well.url]) };
    config.endpoints.iter_mut().for_each(|endpoint| endpoint.max_concurrency = 1);
    let judge = Arc::new(remote(config));
    let inquiries: Vec<_> = (0..6).map(|_| spawn(&judge)).collect();
    until(|| broken.arrived() == 1 && well.arrived() == 1 && judge.snapshot()[0].outstanding == 3).await;
    well.release.add_permits(6);
    broken.release.add_permits(1);
    for inquiry in inquiries {
        inquiry.await.expect("a task that ends").expect("a finding");
    }
    assert_eq!((broken.arrived(), well.arrived()), (1, 6));
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let clock = stop_clock().await;
    let busy = Gate::open(http("429 Too Many Requests", "retry-after: 30\r\n", &json!({}))).await;
    busy.release.add_permits(10);
    let judge = Arc::new(remote(Config { attempts: 2, ..config(&[&busy.url]) }));
    let start = Instant::now();
    let inquiry = spawn(&judge);
    while !inquiry.is_finished() {
        settle().await;
        advance(Duration::from_secs(1)).await;
    }
    assert!(start.elapsed() >= Duration::from_secs(30), "{:?}", start.elapsed());
    assert_unavailable(inquiry.await.expect("a task that ends"), UnavailableCode::Timeout, "429");
    assert_eq!((busy.arrived(), judge.snapshot()[0].retries), (2, 1));
    drop(clock);
}

#[tokio::test]
async fn the_tokens_that_a_reply_took_count_in_place_of_the_estimate() {
    let server = server(vec![ok(&yes())]).await;
    let mut config = config(&[&root(&server)]);
    config.endpoints[0].tokens_per_minute = Some(12);
    let judge = remote(config);
    answer(&judge, labels()).await.expect("three tokens by the estimate, twelve by the reply");
    let soon = within(Duration::from_secs(5));
    let found = judge.answer(&inquiry(labels()), &soon).await;
    assert_unavailable(found, UnavailableCode::Timeout, "waiting for it to take requests again");
    assert_eq!(judge.snapshot()[0].requests, 1);
}

#[tokio::test]
async fn tokens_and_their_price_are_counted() {
    let server = server(vec![ok(&yes())]).await;
    let mut config = config(&[&root(&server)]);
    config.endpoints[0].prompt_price_per_million = Some(2.0);
    config.endpoints[0].completion_price_per_million = Some(10.0);
    let judge = remote(config);
    for _ in 0..3 {
        answer(&judge, labels()).await.expect("a finding");
    }
    let account = judge.snapshot().remove(0);
    assert_eq!(
        (account.usage.prompt_tokens, account.usage.completion_tokens, account.usage.cached_tokens),
        (30, 6, 12)
    );
    assert!((account.cost - (30.0 * 2.0 + 6.0 * 10.0) / 1e6).abs() < 1e-15);
    assert_eq!((account.requests, account.failures.len(), account.url.as_str()), (3, 0, root(&server).as_str()));
}

fn endpoint(requests: Option<u32>, tokens: Option<u32>) -> Endpoint {
    let config =
        EndpointConfig { requests_per_minute: requests, tokens_per_minute: tokens, ..EndpointConfig::default() };
    let client = http_client(Duration::from_secs(1)).expect("a client");
    let address = Address::parse("http://127.0.0.1:9/v1").expect("a url");
    let transport = Transport::new(&client, &address, &String::new().into()).expect("a transport");
    Endpoint::new(&config, transport, POLICY, None, Arc::default())
}

#[tokio::test(start_paused = true)]
async fn requests_per_minute_hold() {
    let endpoint = endpoint(Some(2), None);
    let start = Instant::now();
    let deadline = Deadline::new(start + Duration::from_mins(10));
    let mut permits = Vec::new();
    for wanted in [0, 0, 30, 60] {
        permits.push(endpoint.acquire(1, &deadline).await.expect("in time").expect("well"));
        // A timer is exact to the millisecond.
        assert_eq!(start.elapsed().as_millis() / 100, wanted * 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_would_come_too_late_is_refused_at_once_and_costs_nothing() {
    let endpoint = endpoint(None, Some(600));
    let start = Instant::now();
    let soon = &Deadline::new(start + Duration::from_secs(5));
    let first = endpoint.acquire(600, soon).await.expect("in time").expect("well");
    for _ in 0..3 {
        let failure = endpoint.acquire(600, soon).await.expect_err("too late");
        assert!(failure.message.contains("tokens per minute"), "{failure}");
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(first);
    endpoint.acquire(600, soon).await.expect("what was never sent is given back").expect("well");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[test]
fn the_pace_is_corrected_by_what_was_spent() {
    let now = Instant::now();
    let mut rate_limit = RateLimit::new(None, Some(600), now);
    assert_eq!(rate_limit.take(600, now), Duration::ZERO);
    assert_eq!(rate_limit.wait(60, now), Duration::from_secs(6));
    rate_limit.correct(600, 540);
    assert_eq!(rate_limit.wait(60, now), Duration::ZERO);
    rate_limit.correct(0, 60);
    assert_eq!(rate_limit.wait(60, now), Duration::from_secs(6));
    rate_limit.correct(0, u64::MAX);
    assert_eq!(rate_limit.wait(600, now), Duration::from_mins(2), "no claim costs more than a minute");
    assert_eq!(
        RateLimit::new(None, Some(10), now).take(1_000_000, now),
        Duration::ZERO,
        "larger than the minute goes alone"
    );
}

/// Left alone from `now` on, for the first time.
fn opened(now: Instant) -> Breaker {
    let mut breaker = Breaker::Closed(POLICY.failures - 1);
    breaker.fail(Entry::Regular, FailureDuration::Brief, POLICY, now);
    breaker
}

#[test]
fn a_breaker_opens_after_failures_in_a_row() {
    let now = Instant::now();
    let mut breaker = Breaker::Closed(0);
    for _ in 0..2 {
        breaker.fail(Entry::Regular, FailureDuration::Brief, POLICY, now);
    }
    breaker.succeed(Entry::Regular);
    for _ in 0..2 {
        breaker.fail(Entry::Regular, FailureDuration::Brief, POLICY, now);
    }
    assert!(breaker.admits(now), "not in a row");
    breaker.fail(Entry::Regular, FailureDuration::Brief, POLICY, now);
    assert_eq!(breaker, opened(now));
    assert!(!breaker.admits(now + Duration::from_millis(624)));
    assert!(breaker.admits(now + Duration::from_millis(625)));
    breaker.fail(Entry::Regular, FailureDuration::Lasting, POLICY, now);
    assert_eq!(breaker, opened(now), "once open, only the probe's word counts");
}

#[test]
fn one_probe_decides() {
    let mut later = Instant::now();
    let mut breaker = opened(later);
    later += POLICY.cool_down;
    assert_eq!(breaker.enter(POLICY, later), Some(Entry::Probe));
    assert_eq!(breaker.enter(POLICY, later), None, "one at a time");
    breaker.succeed(Entry::Regular);
    assert!(matches!(breaker, Breaker::HalfOpen { .. }), "an older request's success says nothing");
    breaker.abandon(Entry::Probe, later);
    assert_eq!(breaker.enter(POLICY, later), Some(Entry::Probe), "a dropped probe lets the next one try");
    assert_eq!(breaker.enter(POLICY, later + POLICY.patience), Some(Entry::Probe), "one that is silent keeps nobody");
    breaker.fail(Entry::Probe, FailureDuration::Brief, POLICY, later);
    let pause = Duration::from_millis(1250);
    assert_eq!(breaker, Breaker::Open { until: later + pause, pause }, "twice as long");
    breaker.enter(POLICY, later + pause);
    breaker.succeed(Entry::Probe);
    assert_eq!(breaker, Breaker::Closed(0));
}

#[test]
fn an_outage_is_waited_out_while_it_is_young() {
    let mut now = Instant::now();
    let mut breaker = opened(now);
    let mut pauses = Vec::new();
    while let Some(until) = breaker.worth_waiting_for(POLICY, now) {
        pauses.push((until - now).as_millis());
        now = until;
        assert_eq!(breaker.enter(POLICY, now), Some(Entry::Probe));
        assert_eq!(breaker.worth_waiting_for(POLICY, now), Some(now), "its probe is on the way");
        breaker.fail(Entry::Probe, FailureDuration::Brief, POLICY, now);
    }
    assert_eq!(pauses, [625, 1250, 2500, 5000]);
    assert_eq!(breaker, Breaker::Open { until: now + POLICY.cool_down, pause: POLICY.cool_down });

    let mut breaker = Breaker::Closed(POLICY.failures - 1);
    breaker.fail(Entry::Regular, FailureDuration::Lasting, POLICY, now);
    assert_eq!(breaker.worth_waiting_for(POLICY, now), None, "silence and refusals last");
}

#[test]
fn pauses_double_up_to_a_bound_and_are_drawn_from_all_of_it() {
    let retry = Retry { attempts: 4, first: Duration::from_millis(250), most: Duration::from_secs(1) };
    let most: Vec<u128> = (1..=4).map(|attempt| retry.pause(attempt, 1.0).as_millis()).collect();
    assert_eq!(most, [250, 500, 1000, 1000]);
    assert_eq!(retry.pause(2, 0.5), Duration::from_millis(250));
    assert_eq!(retry.pause(3, 0.0), Duration::ZERO);
    assert_eq!(retry.pause(u32::MAX, 1.0), Duration::from_secs(1));
}
