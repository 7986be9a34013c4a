//! The real binary as a server on a free port of 127.0.0.1, and two clients for it: a usual one, and one that writes
//! bytes, for what no usual client sends. The server ends with its handle; a panic in its log fails the test.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::needless_pass_by_value,
    reason = "suites use different parts; tests may panic"
)]

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Request};

/// No answer takes this long; a test that waits longer hangs.
const HANG: Duration = Duration::from_mins(2);

/// A running server.
pub(crate) struct Server {
    child: Child,
    address: String,
    agent: ureq::Agent,
    home: TempDir,
    // Kept open, so that the server never writes into a closed pipe.
    stdout: BufReader<ChildStdout>,
}

/// How a server ended before it listened.
pub(crate) struct Ended {
    pub status: ExitStatus,
    /// The first line of its output.
    pub line: String,
    pub log: String,
}

/// A response.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Server {
    /// Starts `gradus serve` with these options; it stores nothing unless they say so.
    pub(crate) fn start(options: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(options).current_dir(home.path());
        if !options.contains(&"--store") {
            command.args(["--store", "none"]);
        }
        Self::of(command, home).unwrap_or_else(|ended| {
            panic!("the first line of output must be the address, found {:?}\n{}", ended.line, ended.log)
        })
    }

    /// The server that a command starts, whose log goes to a file in `home`; or how it ended before it listened.
    pub(crate) fn of(mut command: Command, home: TempDir) -> Result<Self, Ended> {
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Some(address) = line.trim().strip_prefix("http://").map(str::to_owned) else {
            if !line.is_empty() {
                let _ = child.kill();
            }
            let status = child.wait().unwrap();
            return Err(Ended { status, line, log: std::fs::read_to_string(home.path().join("log")).unwrap() });
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(HANG))
            .max_redirects(0)
            .max_redirects_will_error(false);
        Ok(Self { child, address, agent: config.build().into(), home, stdout })
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A request; `None` is no body at all.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match body {
            Some(body) => self.agent.run(request.body(body).unwrap()),
            None => self.agent.run(request.body(()).unwrap()),
        };
        let (parts, body) = response.unwrap_or_else(|error| panic!("{method} {path}: {error}")).into_parts();
        let body = body.into_with_config().limit(u64::MAX).read_to_vec().unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// GET.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    /// POST of JSON, a value or its text.
    pub(crate) fn post(&self, path: &str, body: &(impl Display + ?Sized)) -> Answer {
        self.post_with(&[], path, body)
    }

    /// The same with more headers.
    pub(crate) fn post_with(&self, headers: &[(&str, &str)], path: &str, body: &(impl Display + ?Sized)) -> Answer {
        let headers = [&[("Content-Type", "application/json")], headers].concat();
        self.send("POST", path, &headers, Some(body.to_string().as_bytes()))
    }

    /// POST of bytes with these header lines, on a connection of its own.
    pub(crate) fn post_raw(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.connect().write(post_bytes(path, headers, body)).read().unwrap()
    }

    /// POST of JSON with a token.
    pub(crate) fn post_as(&self, token: &str, path: &str, body: &(impl Display + ?Sized)) -> Answer {
        self.post_with(&[("Authorization", &format!("Bearer {token}"))], path, body)
    }

    /// `POST /reward`.
    pub(crate) fn reward(&self, request: &Value) -> Answer {
        self.post("/reward", request)
    }

    /// PUT of a rubric's TOML, without its name, by the admin whose token is `secret`.
    pub(crate) fn add_rubric(&self, name: &str, rubric: &str) -> Value {
        let headers = [("Content-Type", "application/toml"), ("Authorization", "Bearer secret")];
        let rubric = format!("name = \"{name}\"\n{rubric}");
        self.send("PUT", &format!("/rubrics/{name}"), &headers, Some(rubric.as_bytes())).ok()
    }

    /// A connection that bytes are written to.
    pub(crate) fn connect(&self) -> Connection {
        Connection::to(&self.address).unwrap()
    }

    /// The value of a sample of `GET /metrics`; 0 where there is none yet.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.get("/metrics").text();
        let sample = |line: &&str| {
            let (found, _) = line.rsplit_once(' ').unwrap();
            let (found, found_labels) = found.split_once('{').unwrap_or((found, ""));
            found == name && labels.iter().all(|(key, value)| found_labels.contains(&format!("{key}=\"{value}\"")))
        };
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter(sample);
        samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// Asks for `path` until `wanted` holds.
    pub(crate) fn wait_until(&self, wanted: impl Fn(&Self) -> bool) {
        for _ in 0..2000 {
            if wanted(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("waited in vain; log:\n{}", self.log());
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// SIGKILL: what a crash or a power cut leaves.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the process's end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// SIGTERM, and the end.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// The next line of its output that begins so.
    pub(crate) fn line(&mut self, beginning: &str) -> String {
        let mut lines = self.stdout.by_ref().lines().map(Result::unwrap);
        lines.find(|line| line.starts_with(beginning)).unwrap_or_else(|| panic!("no line begins with {beginning:?}"))
    }

    /// What it wrote to standard error.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if !std::thread::panicking() {
            assert!(!log.contains("panicked"), "the server panicked:\n{log}");
        }
    }
}

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("bodies are UTF-8")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// A header's value; empty where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Its status and its JSON.
    pub(crate) fn parts(&self) -> (u16, Value) {
        (self.status, self.json())
    }

    /// The JSON of a 200.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The problem document of an error whose detail has these words.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, words: &str) -> Value {
        let problem = self.problem(status);
        assert!(problem["detail"].as_str().unwrap().contains(words), "{words:?} is not in {problem}");
        problem
    }

    /// The problem document of an error (RFC 9457), checked for its shape.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.header("x-content-type-options"), "nosniff", "it may quote what was sent");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for field in ["type", "title", "detail", "request_id"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {problem}");
        }
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        if let Some(pointer) = problem.get("pointer") {
            assert!(pointer.as_str().is_some_and(|text| text.starts_with('/')), "pointer in {problem}");
        }
        problem
    }
}

/// A connection that bytes are written to.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects.
    pub(crate) fn to(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(HANG))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Writes bytes. A server that refuses a request may close before all is written, so that no error is one here.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.0.get_mut().write_all(bytes.as_ref());
        self
    }

    /// Reads one response; `None` when the server closes without one.
    pub(crate) fn read(&mut self) -> Option<Answer> {
        let mut line = String::new();
        if self.0.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = HeaderMap::new();
        loop {
            line.clear();
            self.0.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        if status == 100 {
            return Some(answer);
        }
        if answer.header("transfer-encoding") == "chunked" {
            answer.body = self.chunks()?;
        } else {
            let length: usize = answer.header("content-length").parse().unwrap_or(0);
            answer.body = vec![0; length];
            self.0.read_exact(&mut answer.body).ok()?;
        }
        Some(answer)
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok()?;
            let length = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; length + 2];
            self.0.read_exact(&mut chunk).ok()?;
            if length == 0 {
                return Some(body);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }
}

/// A database file of its own for servers that keep what they score.
pub(crate) struct Database {
    directory: TempDir,
    pub url: String,
}

impl Database {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("g.db").display());
        Self { directory, url }
    }

    /// A server that keeps its scores here.
    pub(crate) fn serve(&self, options: &[&str]) -> Server {
        Server::start(&[&["--store", &self.url], options].concat())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("g.db")
    }

    /// A connection beside the servers'.
    pub(crate) fn open(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    /// One that lets nobody else write until its transaction ends.
    pub(crate) fn locked(&self) -> rusqlite::Connection {
        let other = self.open();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        other
    }
}

/// The program, knowing nothing of this process's settings.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GRADUS_")) {
        command.env_remove(name);
    }
    command
}

/// The text of a POST of JSON with these extra header lines.
pub(crate) fn post_bytes(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: gradus\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// gzip of stored blocks, which are longer than what they hold.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// A file of this package.
pub(crate) fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The request bodies of `tests/cases/trajectories`, by file name.
pub(crate) fn case_requests() -> Vec<(String, Value)> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(package("tests/cases/trajectories")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(files.len() >= 40, "{} case files", files.len());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.file_stem().unwrap().to_string_lossy().into_owned(), serde_json::from_str(&text).unwrap())
    };
    files.into_iter().map(read).collect()
}

/// A trajectory that answers the question for the capital of France without a tool.
pub(crate) fn answering(answer: &str) -> Value {
    json!({
        "messages": [
            {"role": "user", "content": "What is the capital of France?"},
            {"role": "assistant", "content": format!("<answer>{answer}</answer>")},
        ],
        "references": ["Paris"],
    })
}

/// A trajectory whose only assistant turn is this text.
pub(crate) fn saying(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": "Go."}, {"role": "assistant", "content": text}], "references": ["Paris"]})
}

/// The same with a field set.
pub(crate) fn with(mut value: Value, field: &str, to: Value) -> Value {
    value[field] = to;
    value
}

/// A call in the hermes format.
pub(crate) fn hermes(name: &str, arguments: &Value) -> String {
    format!("<tool_call>{}</tool_call>", json!({"name": name, "arguments": arguments}))
}

/// A tool with a schema.
pub(crate) fn tool(name: &str, parameters: Value) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": parameters}})
}

/// A result without what names it or depends on the machine: what must be the same whenever it is scored again.
pub(crate) fn stable(result: &Value) -> Value {
    let mut result = result.clone();
    for field in ["latency_ms", "score_id", "cache", "id", "group"] {
        result.as_object_mut().unwrap().remove(field);
    }
    for error in result["errors"].as_array_mut().unwrap() {
        // `/trajectories/3/references`: the place in the batch is no part of the score.
        let place = error["pointer"].as_str().unwrap().splitn(4, '/').nth(3).unwrap_or_default().to_owned();
        error["pointer"] = Value::String(place);
    }
    result
}
