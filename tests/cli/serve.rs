//! `gradus serve`, and plain `gradus`, which serves too.

use super::*;

#[test]
fn the_first_line_is_the_address_and_the_curl_line_works() {
    let gradus = Gradus::new();
    let mut server = serve(&gradus, &["serve", "--listen", "127.0.0.1:0", "--store", "none"], &[]);
    let port: u16 = server.address().strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    assert_ne!(port, 0);
    let curl = server.line("curl ");
    assert!(curl.contains(&format!("http://{}/reward ", server.address())), "{curl}");
    let body = curl.split(" -d '").nth(1).unwrap().strip_suffix('\'').unwrap();
    let (status, answer) = server.post("/reward", body).parts();
    assert_eq!((status, &answer["rewards"]), (200, &json!([1.0])), "{answer:#}");
    assert!(server.stop().success());
}

#[test]
fn a_port_that_is_taken_is_an_error_with_a_way_out() {
    let gradus = Gradus::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = gradus.run(&["serve", "--listen", &address]).exits(1);
    assert!(ran.err.contains(&address) && ran.err.contains("--listen"), "{}", ran.err);
    assert!(!Path::new(&gradus.path("gradus.db")).exists(), "a server that never ran leaves no database");
}

#[test]
fn plain_gradus_serves_with_the_environment() {
    let gradus = Gradus::new();
    let environment = [("GRADUS_LISTEN", "127.0.0.1:0"), ("GRADUS_API_TOKEN", "s3cret")];
    let mut server = serve(&gradus, &[], &environment);
    let curl = server.line("curl ");
    assert!(curl.contains(" -H 'Authorization: Bearer TOKEN' ") && !curl.contains("s3cret"), "{curl}");
    let body = json!({"trajectories": right_and_wrong()}).to_string();
    assert_eq!(server.post("/reward", &body).status, 401);
    assert_eq!(server.post_as("other", "/reward", &body).status, 403);
    assert_eq!(server.post_as("s3cret", "/reward", &body).status, 200);
    assert!(server.stop().success());
    assert!(Path::new(&gradus.path("gradus.db")).exists(), "the default store is gradus.db where it was started");
}

#[test]
fn plain_gradus_serves_with_the_configuration_file() {
    let gradus = Gradus::new();
    let config =
        "listen = \"127.0.0.1:0\"\ninline_rubrics = false\n[store]\nurl = \"none\"\n[tokens]\napi = \"from-file\"\n";
    let config = gradus.file("gradus.toml", config);
    let server = serve(&gradus, &["--config", &config], &[]);
    let inline =
        json!({"rubric": {"name": "x", "stages": [{"kind": "f1", "weight": 1}]}, "trajectories": right_and_wrong()});
    assert_eq!(server.post("/reward", &inline).status, 401);
    let (status, problem) = server.post_as("from-file", "/reward", &inline.to_string()).parts();
    assert_eq!((status, &problem["type"]), (403, &json!("urn:gradus:problem:inline-rubric")), "{problem}");
}

#[test]
fn plain_gradus_takes_the_options_of_serve() {
    let gradus = Gradus::new();
    let config = gradus.file("gradus.toml", "default_rubric = \"binary_em\"\n");
    let options = ["--config", &config, "--listen", "127.0.0.1:0", "--store", "none"];
    let server = serve(&gradus, &options, &[]);
    let (status, answer) = server.post("/reward", &json!({"trajectories": right_and_wrong()})).parts();
    assert_eq!((status, &answer["rubric"]["name"]), (200, &json!("binary_em")), "{answer}");
    assert!(server.stop().success());
    for (arguments, says) in [
        (&["--lisen", "127.0.0.1:0"][..], "'--lisen'"),
        (&["--listen", "nowhere"], "'nowhere'"),
        (&["score", "--listen", "127.0.0.1:0"], "'--listen'"),
    ] {
        assert!(gradus.run(arguments).exits(2).err.contains(says), "{arguments:?}");
    }
}

/// An environment that cannot be understood must not be passed over: with it a token would be.
#[test]
fn plain_gradus_refuses_a_wrong_environment() {
    let gradus = Gradus::new();
    // Should it start nevertheless, then where it disturbs nobody.
    let config = gradus.file("gradus.toml", "listen = \"127.0.0.1:0\"\n[store]\nurl = \"none\"\n");
    let environment = [("GRADUS_API_TOKEN", "s3cret"), ("GRADUS_THREADS", "many")];
    match try_to_serve(&gradus, &["--config", &config], &environment) {
        Err(ended) => assert!(!ended.status.success() && ended.log.contains("many"), "{}", ended.log),
        Ok(server) => {
            let status = server.post("/reward", "{\"trajectories\": []}").status;
            panic!("it served in spite of GRADUS_THREADS=many, and answered {status} without the token");
        }
    }
}

#[test]
fn a_server_outlives_whoever_read_its_first_line() {
    let gradus = Gradus::new();
    let mut child = gradus.command(&["serve", "--listen", "127.0.0.1:0", "--store", "none"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::with_capacity(1, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let address = first.trim().strip_prefix("http://").unwrap();
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    connection.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_rubric_that_is_broken_leaves_no_database() {
    let gradus = Gradus::new();
    std::fs::create_dir(gradus.path("mine")).unwrap();
    gradus.file("mine/bad.toml", "name = \"bad\"\nstages = 1\n");
    gradus.run(&["serve", "--listen", "127.0.0.1:0", "--rubrics", "mine"]).exits(1);
    assert!(!Path::new(&gradus.path("gradus.db")).exists());
}

/// Starts a server with a store in a shell that runs `before` first.
fn start_after(gradus: &Gradus, before: &str) -> (std::process::Child, String) {
    let program = gradus.command(&[]).get_program().to_owned();
    let script = format!("{before} exec \"$0\" serve --listen 127.0.0.1:0 --store sqlite:{}", gradus.path("scores.db"));
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).arg(program).current_dir(gradus.path(".")).stderr(Stdio::piped());
    start(command)
}

/// Starts a server and reads its address.
fn start(mut command: std::process::Command) -> (std::process::Child, String) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::with_capacity(1, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    (child, first.trim().strip_prefix("http://").unwrap().to_owned())
}

fn send(child: &std::process::Child, signal: &str) {
    let kill = format!("kill -{signal} {}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[test]
fn a_terminal_that_is_closed_stops_the_server_in_order() {
    // As is one whose keyboard interrupts it.
    for signal in ["HUP", "INT"] {
        let gradus = Gradus::new();
        let (child, _) = start_after(&gradus, "");
        send(&child, signal);
        let ended = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success() && log.contains("stopping: "), "{signal}: {} {log}", ended.status);
        assert!(!Path::new(&gradus.path("scores.db-wal")).exists());
    }
}

#[test]
fn a_second_signal_ends_the_server_at_once_and_says_so() {
    let gradus = Gradus::new();
    let (mut child, address) = start_after(&gradus, "");
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    connection.write_all(b"POST /reward HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    // One that comes right after the first is that one once more.
    for pause_ms in [20, 2000] {
        send(&child, "TERM");
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        assert!(child.try_wait().unwrap().is_none(), "it waits for what is in flight");
    }
    send(&child, "TERM");
    let ended = child.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(143), "{log}");
    assert!(log.contains("told to stop again"), "{log}");
}

/// The status of an answer to a `POST` of this body.
fn status(address: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let request =
        format!("POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(std::time::Duration::from_mins(1))).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or("none").to_owned()
}

/// A disk that is full, and a pipe whose reader has gone.
#[test]
#[cfg(target_os = "linux")]
fn a_log_that_cannot_be_written_stops_nothing() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    for (what, log) in [("full", Stdio::from(full)), ("closed", Stdio::from(closed))] {
        let gradus = Gradus::new();
        let mut command = gradus.command(&["--log", "debug", "serve", "--listen", "127.0.0.1:0"]);
        command.stderr(log);
        let (child, address) = start(command);
        assert_eq!(status(&address, "/slime", "{\"x\":1}"), "200", "{what}: a line is logged that a sample is none");
        let body = json!({"trajectories": right_and_wrong()}).to_string();
        assert_eq!(status(&address, "/reward", &body), "200", "{what}");
        send(&child, "TERM");
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{what}: {}", ended.status);
        assert!(!Path::new(&gradus.path("gradus.db-wal")).exists(), "{what}: its store was closed in order");
    }
}

/// Every connection is an open file.
#[test]
#[cfg(target_os = "linux")]
fn as_many_files_may_be_open_as_the_system_allows() {
    let gradus = Gradus::new();
    let (child, _) = start_after(&gradus, "ulimit -S -n 128;");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    send(&child, "TERM");
    assert!(child.wait_with_output().unwrap().status.success());
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let limits: Vec<&str> = files.split_whitespace().take(2).collect();
    assert_eq!(limits[0], limits[1], "{files}");
}

/// A pipe that whoever started it never reads: it is full after some hundred lines.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (unread, log) = std::io::pipe().unwrap();
    let gradus = Gradus::new();
    let mut command = gradus.command(&["--log", "debug", "serve", "--listen", "127.0.0.1:0", "--store", "none"]);
    command.stderr(log);
    let (mut child, address) = start(command);
    // Each is told with what is wrong with it.
    for _ in 0..500 {
        assert_eq!(status(&address, "/trl", "{\"completions\":7}"), "422");
    }
    send(&child, "TERM");
    assert!(child.wait().unwrap().success());
    drop(unread);
}

#[test]
fn a_limit_on_the_size_of_files_refuses_and_does_not_kill() {
    let gradus = Gradus::new();
    // Blocks of 512 bytes (or 1024): enough for the database, and soon full.
    let (child, address) = start_after(&gradus, "ulimit -f 4000;");
    let words: Vec<_> = (0..20_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_string()).collect();
    let text = words.join(" ");
    let body = format!(
        "{{\"trajectories\":[{{\"messages\":[{{\"role\":\"assistant\",\"content\":\"{text}\"}}],\"references\":[\"x\"]}}]}}"
    );
    let mut statuses = (0..100).map(|_| status(&address, "/reward", &body));
    assert_eq!(statuses.next().unwrap(), "200");
    assert_eq!(statuses.find(|status| status != "200").as_deref(), Some("503"));
    send(&child, "TERM");
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{} {}", ended.status, String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn what_ends_the_start_stands_in_a_log_of_json() {
    let gradus = Gradus::new();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--store", "sqlite:no/such/folder.db", "--log-format", "json"];
    let ran = gradus.run(&arguments).exits(1);
    let line: Value = serde_json::from_str(ran.err.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "ERROR", "{line}");
    assert!(line["fields"]["error"].as_str().unwrap().contains("its directory does not exist"), "{line}");
}

#[test]
fn an_address_that_is_none_says_what_one_is() {
    let gradus = Gradus::new();
    for given in ["localhost:8080", "8080", ":8080"] {
        let ran = gradus.run(&["serve", "--listen", given]).exits(2);
        assert!(ran.err.contains("such as 127.0.0.1:8080") && ran.err.contains(given), "{}", ran.err);
    }
}

#[test]
fn a_misspelt_variable_is_told() {
    let gradus = Gradus::new();
    let environment = [("GRADUS_LISTN", "127.0.0.1:1"), ("GRADUS_LISTEN", "nowhere")];
    gradus.run_with(&["serve"], &[environment[1]], "").exits(2).err_has("nowhere");
    let options = ["serve", "--listen", "127.0.0.1:0", "--store", "sqlite:no/such/folder.db"];
    gradus.run_with(&options, &environment[..1], "").exits(1).err_has("GRADUS_LISTN");
    // Neither a judge's key nor what Kubernetes sets for a service of this name.
    let judge = "endpoints = [{ url = \"http://127.0.0.1:1\", api_key_env = \"GRADUS_JUDGE_KEY\" }]\nmodel = \"m\"\n";
    let config = gradus.file("gradus.toml", format!("[judges.default]\n{judge}"));
    let options = [&["--config", &config], &options[..]].concat();
    let others = [("GRADUS_JUDGE_KEY", "k"), ("GRADUS_PORT", "tcp://10.0.0.1:80"), ("GRADUS_JUDGE_KEI", "k")];
    let ran = gradus.run_with(&options, &others, "").exits(1);
    let told: Vec<&str> = ran.err.lines().filter(|line| line.contains("no option is set by this variable")).collect();
    assert!(told.len() == 1 && told[0].contains("GRADUS_JUDGE_KEI"), "{}", ran.err);
    let ran = gradus.run_with(&options, &[("GRADUS_PORT", "8080")], "").exits(1);
    assert!(ran.err.contains("GRADUS_PORT"), "an address is no port: {}", ran.err);
}

#[test]
fn what_ends_the_start_is_told_where_nothing_is_logged() {
    let gradus = Gradus::new();
    let place = ["--listen", "127.0.0.1:0", "--store", "sqlite:no/such/folder.db"];
    let arguments = [&["serve", "--log-format", "json", "--log", "off"][..], &place].concat();
    gradus.run(&arguments).exits(1).err_has("its directory does not exist");
}
