//! Request bodies decompressed on the way in. In: a request whose `Content-Encoding` is gzip or zstd; out: the same request
//! with a plain body. How large that may become is for whoever reads it to bound. Its answer always leaves in an encoding.

use std::error::Error;
use std::io;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use super::app::App;
use super::error::Problem;
use super::kind::Kind;

/// Most bytes that are decompressed at once.
const PIECE_BYTES: usize = 64 << 10;

/// Decompresses the request's body. A body may be several compressed pieces, one after the other (RFC 1952, 2.2); what
/// stands behind them and is none breaks the body. One in another encoding stays as it is, and keeps the header: whoever
/// reads it refuses it by [`require_known`], in words that its client hears. Packed it must not be longer than it may be plain,
/// but for what frames what does not pack: pieces of nothing cost time all the same.
pub(super) async fn decompress(State(app): State<App>, mut request: Request, next: Next) -> Response {
    // An answer that was made, and stored, is not withheld for its encoding: RFC 9110 leaves the choice (12.5.3).
    if accepts_none(request.headers()) {
        request.headers_mut().remove(header::ACCEPT_ENCODING);
    }
    let Some(name) = coding(request.headers()) else { return next.run(request).await };
    let longest = longest_packed(app.limits.config.max_body_bytes);
    let (mut parts, body) = request.into_parts();
    let body = match name.as_str() {
        "gzip" | "x-gzip" => {
            let mut decoder = GzipDecoder::new(reader(body, longest));
            decoder.multiple_members(true);
            plain(decoder)
        }
        "zstd" => {
            let mut decoder = ZstdDecoder::new(reader(body, longest));
            decoder.multiple_members(true);
            plain(decoder)
        }
        _ => return next.run(Request::from_parts(parts, body)).await,
    };
    parts.headers.remove(header::CONTENT_ENCODING);
    // It counted the bytes before.
    parts.headers.remove(header::CONTENT_LENGTH);
    next.run(Request::from_parts(parts, body)).await
}

/// What a body of `plain` bytes that does not pack may take: gzip adds 5 bytes for each 64 KB, zstd less, and a frame.
fn longest_packed(plain: usize) -> usize {
    plain.saturating_add(plain / 1024 + 1024)
}

/// Refuses a body that [`decompress`] left as it was.
///
/// # Errors
/// 415.
pub(super) fn require_known(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(name) = coding(headers) else { return Ok(()) };
    let detail = format!("the content encoding {name:?} is not supported; send gzip, zstd or identity");
    Err(Problem::new(Kind::Encoding, detail))
}

/// What a body is encoded in, if that is said. The names of codings are case-insensitive (RFC 9110, 8.4.1), and several
/// lines are one list (5.3), of which empty elements count nothing (5.6.1), and `identity` no more.
fn coding(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::CONTENT_ENCODING).iter();
    let lines: Vec<_> = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    let codings = lines.iter().flat_map(|line| line.split(',')).map(|coding| coding.trim().to_ascii_lowercase());
    let codings: Vec<_> = codings.filter(|coding| !coding.is_empty() && coding != "identity").collect();
    (!codings.is_empty()).then(|| codings.join(", "))
}

/// Whether a client accepts neither a plain answer nor one in an encoding that there is.
fn accepts_none(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (mut refused, mut accepted) = (false, false);
    for coding in lists.flat_map(|list| list.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let name = name.trim().to_ascii_lowercase();
        let weight = weight.trim().to_ascii_lowercase();
        let zero = weight.strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0));
        refused |= zero && matches!(name.as_str(), "identity" | "*");
        accepted |= !zero && matches!(name.as_str(), "identity" | "*" | "gzip" | "x-gzip" | "zstd");
    }
    refused && !accepted
}

fn reader(body: Body, longest: usize) -> impl tokio::io::AsyncBufRead + Send + Unpin + 'static {
    let body = Body::new(Limited::new(body, longest));
    StreamReader::new(body.map_err(io::Error::other).into_data_stream())
}

/// Whether a body could not be read since it is longer, packed or not, than it may be.
pub(super) fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn plain(decoder: impl AsyncRead + Send + 'static) -> Body {
    Body::from_stream(ReaderStream::with_capacity(decoder, PIECE_BYTES))
}
