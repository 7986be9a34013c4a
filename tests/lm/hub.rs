//! Models by their names on the hub: from the cache, or from a hub on this machine's loopback. No other is ever asked.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gradus::lm::{Hub, HubError, HubId};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const SMALL: [(&str, &str); 3] =
    [("config.json", "{\"a\": 1}"), ("tokenizer.json", "{\"b\": 2}"), ("tokenizer_config.json", "{}")];

const WEIGHTS: &str = "model.safetensors";

/// What the weights are in replies that are cut off.
fn content() -> String {
    "0123456789".repeat(10)
}

/// A hub with one model, `Owner/Name`.
struct FakeHub {
    server: MockServer,
    cache: tempfile::TempDir,
}

impl FakeHub {
    /// With these files at `revision` and at its commit.
    async fn new(revision: &str, files: &[(&str, &str)]) -> Self {
        let fake = Self { server: MockServer::start().await, cache: tempfile::tempdir().unwrap() };
        for (name, content) in files {
            for revision in [revision, COMMIT] {
                fake.put(revision, name, reply(name, content)).await;
            }
        }
        fake
    }

    async fn put(&self, revision: &str, name: &str, reply: ResponseTemplate) {
        let place = format!("/Owner/Name/resolve/{revision}/{name}");
        for verb in ["HEAD", "GET"] {
            Mock::given(method(verb)).and(path(&place)).respond_with(reply.clone()).mount(&self.server).await;
        }
    }

    fn hub(&self) -> Hub {
        Hub {
            endpoint: self.server.uri(),
            cache: Some(self.cache.path().to_owned()),
            token: None,
            offline: false,
            retry_delay: Duration::ZERO,
        }
    }

    fn find(&self, name: &str) -> Result<PathBuf, HubError> {
        self.hub().find(&HubId::parse(name).unwrap())
    }

    /// The model whose weights come from elsewhere, of a hundred bytes, in these replies.
    async fn served_elsewhere(replies: Vec<String>) -> (Self, Arc<Mutex<Vec<String>>>) {
        let fake = Self::new("main", &SMALL).await;
        let (url, seen) = scripted(replies);
        fake.put(COMMIT, WEIGHTS, elsewhere(WEIGHTS, 100, &url)).await;
        (fake, seen)
    }

    /// Whether the weights that are found are all there and nothing else is.
    fn assert_found(&self) {
        let found = self.find("Owner/Name").unwrap();
        assert_eq!(std::fs::read_to_string(found.join(WEIGHTS)).unwrap(), content());
        assert!(half_files(self.cache.path()).is_empty());
    }

    fn folder(&self) -> PathBuf {
        self.cache.path().join("models--Owner--Name")
    }

    async fn requests(&self) -> usize {
        self.server.received_requests().await.unwrap().len()
    }
}

fn etag(name: &str) -> String {
    format!("tag-{name}")
}

fn reply(name: &str, content: &str) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .insert_header("x-repo-commit", COMMIT)
        .insert_header("etag", format!("\"{}\"", etag(name)))
        .set_body_string(content)
}

/// What the hub says of a large file that stands elsewhere.
fn elsewhere(name: &str, size: usize, url: &str) -> ResponseTemplate {
    ResponseTemplate::new(302)
        .insert_header("x-repo-commit", COMMIT)
        .insert_header("x-linked-etag", format!("\"{}\"", etag(name)))
        .insert_header("x-linked-size", size.to_string())
        .insert_header("location", url)
}

/// A server that gives these replies, one a connection, and keeps the requests.
fn scripted(replies: Vec<String>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/blob", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    std::thread::spawn(move || {
        for reply in replies {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            kept.lock().unwrap().push(String::from_utf8(request).unwrap().to_ascii_lowercase());
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    (url, seen)
}

fn whole(content: &str, length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{content}")
}

fn rest(content: &str, from: usize) -> String {
    let (last, length) = (content.len() - 1, content.len() - from);
    format!(
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{last}/{}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{}",
        content.len(),
        &content[from..]
    )
}

/// All files below a directory that are neither whole content nor links to it.
fn half_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(half_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "incomplete") {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_name_has_two_parts_and_a_path_is_none() {
    let id = HubId::parse("Qwen/Qwen2.5-7B-Instruct").unwrap();
    assert_eq!(id.to_string(), "Qwen/Qwen2.5-7B-Instruct@main");
    assert_eq!(HubId::parse("a/b@refs/pr/1").unwrap().to_string(), "a/b@refs/pr/1");
    for path in [
        "model",
        "/models/x",
        "./x/y",
        "../x",
        "a/../b",
        "a/b/c",
        "~/x",
        "a/b@",
        "a/b@../c",
        "a/b@/c",
        "a b/c",
        "a/",
        "a\\b/c",
        "a/b?x",
        "https://host/a",
    ] {
        assert_eq!(HubId::parse(path), None, "{path}");
    }
}

#[tokio::test]
async fn a_fresh_model_is_downloaded_into_the_layout_of_the_cache() {
    let files = [&SMALL[..], &[(WEIGHTS, "weights"), ("chat_template.jinja", "hello")]].concat();
    let fake = FakeHub::new("main", &files).await;
    let found = fake.find("Owner/Name").unwrap();
    assert_eq!(found, fake.folder().join("snapshots").join(COMMIT));
    for (name, content) in files {
        assert_eq!(std::fs::read_to_string(found.join(name)).unwrap(), content);
        assert_eq!(std::fs::read_link(found.join(name)).unwrap(), Path::new("../../blobs").join(etag(name)));
    }
    assert_eq!(std::fs::read_to_string(fake.folder().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(std::fs::read_dir(&found).unwrap().count(), 5, "only the files that are needed");
    assert!(half_files(fake.cache.path()).is_empty());
}

#[tokio::test]
async fn the_second_time_nobody_is_asked() {
    let fake = FakeHub::new("v1", &[&SMALL[..], &[(WEIGHTS, "weights")]].concat()).await;
    let found = fake.find("Owner/Name@v1").unwrap();
    let asked = fake.requests().await;
    assert_eq!(fake.find("Owner/Name@v1").unwrap(), found);
    assert_eq!(fake.find(&format!("Owner/Name@{COMMIT}")).unwrap(), found);
    assert_eq!(fake.requests().await, asked);
    let offline = Hub { offline: true, endpoint: "http://127.0.0.1:1".to_owned(), ..fake.hub() };
    assert_eq!(offline.find(&HubId::parse("Owner/Name@v1").unwrap()).unwrap(), found);
    let message = offline.find(&HubId::parse("Owner/Name@v2").unwrap()).unwrap_err().to_string();
    assert!(message.contains("`Owner/Name`") && message.contains("`v2`") && message.contains("OFFLINE"), "{message}");
}

#[tokio::test]
async fn what_is_missing_of_a_model_is_fetched_and_nothing_else() {
    let fake = FakeHub::new("main", &[&SMALL[..], &[(WEIGHTS, "weights")]].concat()).await;
    let found = fake.find("Owner/Name").unwrap();
    std::fs::remove_file(found.join(WEIGHTS)).unwrap();
    std::fs::remove_file(fake.folder().join("blobs").join(etag(WEIGHTS))).unwrap();
    fake.server.reset().await;
    for revision in ["main", COMMIT] {
        fake.put(revision, "config.json", reply("config.json", SMALL[0].1)).await;
        fake.put(revision, WEIGHTS, reply(WEIGHTS, "weights")).await;
    }
    fake.find("Owner/Name").unwrap();
    assert_eq!(std::fs::read_to_string(found.join(WEIGHTS)).unwrap(), "weights");
    let requests = fake.server.received_requests().await.unwrap();
    let got: Vec<&str> = requests.iter().filter(|r| r.method == "GET").map(|r| r.url.path()).collect();
    assert_eq!(got, [format!("/Owner/Name/resolve/{COMMIT}/model.safetensors")]);
}

#[tokio::test]
async fn shards_are_those_that_the_index_names() {
    let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}}"#;
    let shards = [("model.safetensors.index.json", index), ("one.safetensors", "1"), ("two.safetensors", "2")];
    let fake = FakeHub::new("main", &[&SMALL[..], &shards].concat()).await;
    let found = fake.find("Owner/Name").unwrap();
    assert_eq!(std::fs::read_to_string(found.join("two.safetensors")).unwrap(), "2");
    let asked = fake.requests().await;
    fake.find("Owner/Name").unwrap();
    assert_eq!(fake.requests().await, asked);
}

#[tokio::test]
async fn a_model_that_is_not_there_is_named_with_its_revision() {
    let fake = FakeHub::new("main", &[]).await;
    let error = fake.find("Owner/Name@v9").unwrap_err();
    assert!(matches!(error, HubError::Missing { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("`Owner/Name`") && message.contains("`v9`"), "{message}");
    // A model whose weights are of another kind.
    let fake = FakeHub::new("main", &SMALL).await;
    let message = fake.find("Owner/Name").unwrap_err().to_string();
    assert!(message.contains("`Owner/Name`") && message.contains("no file model.safetensors"), "{message}");
    let fake = FakeHub::new("main", &[]).await;
    let no_entry = ResponseTemplate::new(404).insert_header("x-error-code", "EntryNotFound");
    fake.put("main", "config.json", no_entry).await;
    assert!(fake.find("Owner/Name").unwrap_err().to_string().contains("no file config.json"));
}

#[tokio::test]
async fn a_model_that_needs_a_token_says_so_and_the_token_goes_to_the_hub_alone() {
    let fake = FakeHub::new("main", &[]).await;
    fake.put("main", "config.json", ResponseTemplate::new(401)).await;
    let message = fake.find("Owner/Name").unwrap_err().to_string();
    assert!(message.contains("`Owner/Name`") && message.contains("HF_TOKEN") && message.contains("401"), "{message}");

    let fake = FakeHub::new("main", &SMALL).await;
    let (url, seen) = scripted(vec![whole("weights", 7)]);
    fake.put(COMMIT, WEIGHTS, elsewhere(WEIGHTS, 7, &url)).await;
    let hub = Hub { token: Some("hf_secret".to_owned().into()), ..fake.hub() };
    hub.find(&HubId::parse("Owner/Name").unwrap()).unwrap();
    let requests = fake.server.received_requests().await.unwrap();
    assert!(requests.iter().all(|request| request.headers.get("authorization").unwrap() == "Bearer hf_secret"));
    assert!(!seen.lock().unwrap()[0].contains("authorization"), "{seen:?}");
    assert!(!format!("{hub:?}").contains("hf_secret"));
}

#[tokio::test]
async fn a_download_that_is_cut_off_goes_on_where_it_stopped() {
    let content = content();
    let busy = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned();
    let replies = vec![whole(&content[..40], 100), busy.clone(), busy, rest(&content, 40)];
    let (fake, seen) = FakeHub::served_elsewhere(replies).await;
    fake.assert_found();
    assert!(seen.lock().unwrap()[1..].iter().all(|request| request.contains("range: bytes=40-")), "{seen:?}");
}

#[tokio::test]
async fn a_server_that_begins_anew_is_taken_at_its_word_and_another_part_than_was_asked_for_is_not_used() {
    let content = content();
    let (cut, all) = (whole(&content[..40], 100), whole(&content, 100));
    for replies in [vec![cut.clone(), all.clone()], vec![cut, rest(&content, 30), all]] {
        FakeHub::served_elsewhere(replies).await.0.assert_found();
    }
}

#[tokio::test]
async fn a_download_that_never_ends_well_fails_by_name_and_is_gone_on_with_later() {
    let content = content();
    let broken = |from: usize, to: usize| {
        let whole = rest(&content, from);
        whole[..whole.len() - (100 - to)].to_owned()
    };
    // Forty bytes, then nothing any more.
    let replies = [vec![whole(&content[..40], 100)], vec![broken(40, 40); 3]].concat();
    let (fake, _) = FakeHub::served_elsewhere(replies).await;
    let error = fake.find("Owner/Name").unwrap_err();
    assert!(matches!(error, HubError::CutOff { got: 40, wanted: 100, .. }), "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("model.safetensors of the model `Owner/Name`") && message.contains("40 of 100"),
        "{message}"
    );
    let snapshot = fake.folder().join("snapshots").join(COMMIT);
    assert!(!snapshot.join(WEIGHTS).exists());
    assert!(!fake.folder().join("blobs").join(etag(WEIGHTS)).exists());
    assert!(!fake.folder().join("refs/main").exists());

    fake.server.reset().await;
    let (url, seen) = scripted(vec![rest(&content, 40)]);
    fake.put("main", "config.json", reply("config.json", SMALL[0].1)).await;
    fake.put(COMMIT, WEIGHTS, elsewhere(WEIGHTS, 100, &url)).await;
    fake.assert_found();
    assert!(seen.lock().unwrap()[0].contains("range: bytes=40-"), "{seen:?}");
}

#[tokio::test]
async fn more_bytes_than_there_should_be_are_no_file() {
    let fake = FakeHub::new("main", &SMALL).await;
    let (url, _) = scripted(vec![whole("0123456789", 10); 3]);
    fake.put(COMMIT, WEIGHTS, elsewhere(WEIGHTS, 5, &url)).await;
    let message = fake.find("Owner/Name").unwrap_err().to_string();
    assert!(message.contains("more bytes"), "{message}");
    assert!(!fake.folder().join("blobs").join(etag(WEIGHTS)).exists());
}

#[tokio::test]
async fn a_hub_that_stumbles_is_asked_again() {
    let fake = FakeHub::new("other", &[&SMALL[..], &[(WEIGHTS, "weights")]].concat()).await;
    let place = "/Owner/Name/resolve/main/config.json";
    let stumble = Mock::given(method("HEAD")).and(path(place)).respond_with(ResponseTemplate::new(503));
    stumble.up_to_n_times(2).mount(&fake.server).await;
    fake.put("main", "config.json", reply("config.json", SMALL[0].1)).await;
    fake.find("Owner/Name").unwrap();
    let always = FakeHub::new("main", &[]).await;
    always.put("main", "config.json", ResponseTemplate::new(500)).await;
    let message = always.find("Owner/Name").unwrap_err().to_string();
    assert!(message.contains("config.json of the model `Owner/Name`") && message.contains("500"), "{message}");
    assert_eq!(always.requests().await, 3);
}

#[tokio::test]
async fn a_hostile_hub_writes_nowhere_else() {
    let odd = |etag: &str, commit: &str| {
        let reply = ResponseTemplate::new(200).insert_header("etag", etag).insert_header("x-repo-commit", commit);
        reply.set_body_string("{}")
    };
    for (etag, commit, named) in [("\"../../../x\"", COMMIT, "ETag"), ("\"a\"", "../../x", "X-Repo-Commit")] {
        let fake = FakeHub::new("main", &[]).await;
        fake.put("main", "config.json", odd(etag, commit)).await;
        let message = fake.find("Owner/Name").unwrap_err().to_string();
        assert!(message.contains(named) && message.contains("HF_ENDPOINT"), "{message}");
        assert_eq!(std::fs::read_dir(fake.cache.path()).unwrap().count(), 0);
    }
    for name in ["../x.safetensors", "/etc/x.safetensors", "x.py"] {
        let index = format!(r#"{{"weight_map": {{"a": {name:?}}}}}"#);
        let fake = FakeHub::new("main", &[&SMALL[..], &[("model.safetensors.index.json", &index)]].concat()).await;
        let message = fake.find("Owner/Name").unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn the_variables_are_those_of_hugging_faces_own_tools() {
    let hub = |variables: &[(&str, &str)]| {
        let variables: Vec<(String, String)> = variables.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        Hub::from_variables(move |name| variables.iter().find(|(found, _)| found == name).map(|(_, v)| v.clone()))
    };
    let cache = |variables: &[(&str, &str)]| hub(variables).cache.unwrap().to_str().unwrap().to_owned();
    assert_eq!(cache(&[("HOME", "/home/me")]), "/home/me/.cache/huggingface/hub");
    assert_eq!(cache(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "/c")]), "/c/huggingface/hub");
    assert_eq!(cache(&[("HOME", "/home/me"), ("HF_HOME", "/hf")]), "/hf/hub");
    assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/models")]), "/models");
    let none = hub(&[]);
    assert_eq!((none.cache.clone(), none.endpoint.as_str(), none.offline), (None, "https://huggingface.co", false));
    assert!(matches!(none.find(&HubId::parse("a/b").unwrap()), Err(HubError::NoCache)));
    assert_eq!(hub(&[("HF_ENDPOINT", "http://mirror:8080/")]).endpoint, "http://mirror:8080");
    assert!(hub(&[("HF_HUB_OFFLINE", "1")]).offline && !hub(&[("HF_HUB_OFFLINE", "0")]).offline);
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_str().unwrap();
    assert!(hub(&[("HF_HOME", home)]).token.is_none());
    std::fs::write(dir.path().join("token"), "hf_kept\n").unwrap();
    let token = |variables: &[(&str, &str)]| {
        use secrecy::ExposeSecret;
        hub(variables).token.map(|token| token.expose_secret().to_owned())
    };
    assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("hf_kept"));
    assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "hf_set")]).as_deref(), Some("hf_set"));
}
