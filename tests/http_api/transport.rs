//! Below the API: encodings both ways, keep-alive, chunks, and bytes that are no HTTP.

use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Answer, Server, answering, gzip, post_bytes, stable};

fn request() -> Vec<u8> {
    json!({"trajectories": [answering("Paris"), answering("Lyon"), answering("Rome")]}).to_string().into_bytes()
}

/// Whether this is gzip, and of what.
fn is_gzip_of(packed: &[u8], plain: &[u8]) -> bool {
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut unpacked).is_ok() && unpacked == plain
}

/// The answer to a body in an encoding.
fn encoded(server: &Server, encoding: &str, body: &[u8]) -> Answer {
    server.post_raw("/reward", &format!("Content-Encoding: {encoding}\r\n"), body)
}

fn results(answer: &Answer) -> Vec<Value> {
    answer.ok()["results"].as_array().unwrap().iter().map(stable).collect()
}

#[test]
fn requests_may_be_gzip_or_zstd() {
    let server = Server::start(&[]);
    let plain = results(&server.post_raw("/reward", "", &request()));
    let zstd = zstd::encode_all(&request()[..], 3).unwrap();
    for (encoding, packed) in [("gzip", gzip(&request())), ("zstd", zstd)] {
        assert_eq!(results(&encoded(&server, encoding, &packed)), plain, "{encoding}");
    }
}

/// A client that compresses piece by piece sends several members; names of codings are case-insensitive.
#[test]
fn an_encoded_body_may_come_in_several_pieces() {
    let server = Server::start(&[]);
    let plain = results(&server.post_raw("/reward", "", &request()));
    let (first, second) = (&request()[..40], &request()[40..]);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    for (encoding, packed) in [
        ("gzip", [gzip(first), gzip(second)].concat()),
        ("GZip", gzip(&request())),
        ("zstd", [zstd(first), zstd(second)].concat()),
        ("identity", request()),
    ] {
        assert_eq!(results(&encoded(&server, encoding, &packed)), plain, "{encoding}");
    }
}

/// Pieces of nothing have no length when they are decompressed, and take time all the same.
#[test]
fn a_compressed_body_counts_as_it_is_sent_too() {
    let server = Server::start(&["--max-body-bytes", "4096"]);
    // A member with one block, stored and empty.
    let nothing = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1, 0, 0, 255, 255][..], &[0; 8]].concat();
    let post = |members: usize| {
        let packed = [nothing.repeat(members), gzip(b"{\"trajectories\":[]}")].concat();
        encoded(&server, "gzip", &packed)
    };
    post(100).ok();
    post(400).refused(413, "limit of 4096 bytes");
}

/// Several lines of a header are one list.
#[test]
fn two_encodings_are_415_on_one_line_or_on_two() {
    let server = Server::start(&[]);
    let packed = zstd::encode_all(&b"{\"trajectories\":[]}"[..], 3).unwrap();
    for lines in ["zstd, zstd", "zstd\r\nContent-Encoding: zstd", "identity, br\r\nContent-Encoding: zstd"] {
        encoded(&server, lines, &packed).refused(415, ", zstd");
    }
}

#[test]
fn a_large_gzip_body_of_several_blocks_is_read() {
    let server = Server::start(&[]);
    let long = json!({"trajectories": [{"messages": [{"role": "user", "content": "x".repeat(300_000)}, {"role": "assistant", "content": "<answer>Paris</answer>"}], "references": ["Paris"]}]});
    assert_eq!(encoded(&server, "gzip", &gzip(long.to_string().as_bytes())).ok()["rewards"], json!([1.0]));
}

/// Stored blocks are longer than what they hold.
#[test]
fn an_encoded_body_may_be_longer_than_the_limit_that_it_keeps() {
    let server = Server::start(&["--max-body-bytes", "4096"]);
    let longest = format!("{:<4096}", String::from_utf8(request()).unwrap());
    let packed = gzip(longest.as_bytes());
    assert!(packed.len() > 4096);
    encoded(&server, "gzip", &packed).ok();
}

#[test]
fn an_encoded_body_that_is_broken_is_400() {
    let server = Server::start(&[]);
    let mut wrong_sum = gzip(&request());
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    let zstd = zstd::encode_all(&request()[..], 3).unwrap();
    let cut = gzip(&request()[..]);
    for (encoding, bytes) in [
        ("gzip", &request()[..]),
        ("zstd", &request()[..]),
        ("gzip", &wrong_sum[..]),
        ("gzip", &[gzip(&request()), b"more".to_vec()].concat()[..]),
        ("gzip", &[gzip(&request()), gzip(&request())].concat()[..]),
        ("gzip", &cut[..cut.len() / 2]),
        ("zstd", &zstd[..zstd.len() / 2]),
    ] {
        encoded(&server, encoding, bytes).problem(400);
    }
}

#[test]
fn responses_are_encoded_where_the_client_accepts_it() {
    let server = Server::start(&[]);
    // One key, so that all get the same bytes.
    let ask = |accept: &str| server.post_raw("/reward", &format!("Idempotency-Key: k\r\n{accept}"), &request());
    let plain = ask("");
    assert_eq!(plain.header("content-encoding"), "");
    assert_eq!(plain.header("content-type"), "application/json");
    let gzip = ask("Accept-Encoding: gzip\r\n");
    assert_eq!(gzip.header("content-encoding"), "gzip");
    assert!(is_gzip_of(&gzip.body, &plain.body));
    let zstd = ask("Accept-Encoding: zstd\r\n");
    assert_eq!(zstd.header("content-encoding"), "zstd");
    assert_eq!(zstd::decode_all(&zstd.body[..]).unwrap(), plain.body);
    for refused in ["br", "identity", "gzip;q=0"] {
        let answer = ask(&format!("Accept-Encoding: {refused}\r\n"));
        assert_eq!((answer.header("content-encoding"), &answer.body), ("", &plain.body), "{refused}");
    }
    assert!(gzip.header("vary").to_ascii_lowercase().contains("accept-encoding"));
}

/// A long answer is compressed a piece at a time.
#[test]
fn a_long_response_is_encoded_whole() {
    let server = Server::start(&[]);
    let words = "a word and another one, ".repeat(15_000);
    let body = json!({"x": words, "responses_create_params": {"input": "q"}, "response": {"output": []}}).to_string();
    let ask = |accept: &str| server.post_raw("/verify", accept, body.as_bytes());
    let plain = ask("");
    assert!(plain.body.len() > 300_000 && plain.header("content-length") == plain.body.len().to_string());
    assert!(is_gzip_of(&ask("Accept-Encoding: gzip\r\n").body, &plain.body));
    assert_eq!(zstd::decode_all(&ask("Accept-Encoding: zstd\r\n").body[..]).unwrap(), plain.body);
}

#[test]
fn a_problem_is_readable_whatever_the_client_accepts() {
    let server = Server::start(&[]);
    for encoding in ["gzip", "zstd", "gzip, zstd"] {
        let answer = server.post_raw("/reward", &format!("Accept-Encoding: {encoding}\r\n"), b"{");
        assert_eq!(answer.header("content-encoding"), "");
        answer.problem(400);
    }
}

#[test]
fn one_connection_carries_many_requests() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    for _ in 0..5 {
        connection.write(post_bytes("/reward", "", &request())).read().unwrap().ok();
        connection.write(post_bytes("/reward", "", b"{")).read().unwrap().problem(400);
        connection.write("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n").read().unwrap().problem(404);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    for id in ["one", "two", "three"] {
        connection.write(post_bytes("/reward", &format!("X-Request-Id: {id}\r\n"), &request()));
    }
    for id in ["one", "two", "three"] {
        assert_eq!(connection.read().unwrap().header("x-request-id"), id);
    }
}

#[test]
fn a_chunked_body_is_read() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    connection.write(
        "POST /reward HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for chunk in request().chunks(7) {
        connection.write(format!("{:x}\r\n", chunk.len())).write(chunk).write("\r\n");
    }
    assert_eq!(connection.write("0\r\n\r\n").read().unwrap().ok()["rewards"][0], 1.0);
}

#[test]
fn a_client_that_leaves_while_it_sends_its_body_is_counted_as_gone() {
    let server = Server::start(&[]);
    let packed = gzip(&request());
    for (headers, body) in [("", request()), ("Content-Encoding: gzip\r\n", packed)] {
        let bytes = post_bytes("/reward", headers, &body);
        server.connect().write(&bytes[..bytes.len() - body.len() / 2]);
    }
    let chunked = "POST /reward HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{";
    server.connect().write(chunked);
    let counted = |status| move |server: &Server| server.metric("gradus_http_requests_total", &[("status", status)]);
    server.wait_until(|server| counted("499")(server) > 2.5);
    // What came whole, or is framed wrongly, has an answer.
    let cut = gzip(&request());
    let cut = post_bytes("/reward", "Content-Encoding: gzip\r\n", &cut[..cut.len() / 2]);
    assert_eq!(server.connect().write(cut).read().unwrap().status, 400);
    let wrong = "POST /reward HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    server.connect().write(wrong);
    server.wait_until(|server| counted("400")(server) > 1.5);
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let head = format!(
        "POST /reward HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        request().len()
    );
    assert_eq!(connection.write(head).read().unwrap().status, 100);
    connection.write(request()).read().unwrap().ok();
}

#[test]
fn a_refused_client_may_finish_its_body_and_go_on() {
    let server = Server::start(&["--max-body-bytes", "65536", "--api-token", "open"]);
    let refused = [
        ("POST /reward", "Authorization: Bearer open\r\nContent-Encoding: br\r\n", 400, 415),
        ("POST /reward", "Authorization: Bearer open\r\nContent-Type: text/plain\r\n", 400, 415),
        ("POST /reward", "Authorization: Bearer open\r\n", 3 << 20, 413),
        ("POST /reward", "", 400, 401),
        ("POST /nothing", "", 400, 404),
        ("POST /healthz", "", 400, 405),
    ];
    let mut connection = server.connect();
    for (target, headers, length, status) in refused {
        connection.write(format!("{target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n"));
        // The refusal is decided before the body comes.
        std::thread::sleep(Duration::from_millis(50));
        connection.write(" ".repeat(length)).read().unwrap_or_else(|| panic!("{target} {status}")).problem(status);
    }
    // slime is told of no refusal: it would try again.
    let length = 3 << 20;
    let head =
        format!("POST /slime HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer open\r\nContent-Length: {length}\r\n\r\n");
    connection.write(head);
    std::thread::sleep(Duration::from_millis(50));
    connection.write(" ".repeat(length)).read().unwrap().ok();
    connection.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").read().unwrap().ok();
}

#[test]
fn a_connection_that_breaks_off_or_speaks_no_http_hurts_nobody() {
    let server = Server::start(&[]);
    for bytes in [
        "\0\0\0\0",
        "GET\r\n\r\n",
        "\r\n\r\n\r\n",
        "POST /reward HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{",
        "POST /reward HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "GET /healthz HTTP/9.9\r\n\r\n",
        "POST /reward HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "\u{16}\u{3}\u{1}hello",
    ] {
        server.connect().write(bytes);
    }
    let endless = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    let answer = server.connect().write(endless).read();
    assert!(answer.is_none_or(|answer| answer.status == 431 || answer.status == 400));
    server.reward(&json!({"trajectories": [answering("Paris")]})).ok();
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) < 0.5);
}

/// Clients that do not read hold no more memory than the limit says.
#[test]
fn an_answer_counts_until_it_has_left() {
    let server = Server::start(&["--max-in-flight-bytes", "25165824", "--max-body-bytes", "16777216"]);
    let stages: Vec<Value> =
        (0..32).map(|n| json!({"kind": "answer_format", "name": format!("s{n}"), "weight": 0.03125})).collect();
    let rubric = json!({"name": "long", "stages": stages});
    let body = json!({"rubric": rubric, "trajectories": vec![answering("Paris"); 4_000]}).to_string();
    let mut unread = server.connect();
    unread.write(post_bytes("/reward", "", body.as_bytes()));
    let bytes = || server.metric("gradus_in_flight_bytes", &[]);
    server.wait_until(|server| {
        server.metric("gradus_requests_in_flight", &[]) == 0.0
            && server.metric("gradus_trajectories_total", &[]) == 4_000.0
    });
    let answer = bytes();
    // More than what the kernel takes for a client that does not read.
    assert!(answer > 14e6, "{answer}");
    // A body that would fit beside the request does not fit beside its answer.
    let long = json!({"trajectories": [answering(&"word ".repeat(1_700_000))]}).to_string();
    server.post("/reward", &long).problem(429);
    drop(unread);
    server.wait_until(|_| bytes() == 0.0);
    server.post("/reward", &long).ok();
}

#[test]
fn head_is_get_without_a_body() {
    let server = Server::start(&[]);
    for path in ["/healthz", "/rubrics"] {
        let answer = server.send("HEAD", path, &[], None);
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
    }
}

/// What was scored and stored is not withheld.
#[test]
fn an_answer_leaves_in_some_encoding() {
    let server = Server::start(&[]);
    let encoding = |accepted: &str| {
        let header = format!("Accept-Encoding: {accepted}\r\n");
        let answer = server.post_raw("/reward", &header, &request());
        assert_eq!(answer.status, 200, "{accepted}");
        answer.header("content-encoding").to_owned()
    };
    for (accepted, expected) in [
        ("identity;q=0", ""),
        ("*;q=0", ""),
        ("br, *;q=0.0", ""),
        ("gzip, *;q=0", "gzip"),
        ("identity;q=0, zstd;q=0.5", "zstd"),
        ("identity;q=0, *", "zstd"),
    ] {
        assert_eq!(encoding(accepted), expected, "{accepted}");
    }
}
