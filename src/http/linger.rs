//! Refused clients are heard out: a client that is still sending its body when the answer comes would see a broken
//! connection instead of it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::locks;

/// How long a refused client may go on sending.
const LINGER: Duration = Duration::from_secs(5);
/// Longest silence of a refused client before it gets its answer; it may have sent nothing yet because it waits for one.
const SILENCE: Duration = Duration::from_millis(500);

/// Reads what is left of a request's body before the answer leaves, for a bounded time.
pub(super) async fn hear_out(request: Request, next: Next) -> Response {
    // A client that asks first sends nothing before it may.
    if request.body().is_end_stream() || request.headers().contains_key(header::EXPECT) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = SharedBody(Arc::new(Mutex::new(body)));
    let response = next.run(Request::from_parts(parts, Body::new(body.clone()))).await;
    // Some dialects refuse with a 200: what counts is that nobody read the body.
    if !body.is_end_stream() {
        let _ = timeout(LINGER, body.discard()).await;
    }
    response
}

/// A body that whoever reads it gives back by dropping it.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<Body>>);

impl SharedBody {
    fn with<T>(&self, work: impl FnOnce(&mut Body) -> T) -> T {
        work(&mut locks::lock(&self.0))
    }

    /// Reads on until the end, an error or a silence.
    async fn discard(mut self) {
        while let Ok(Some(Ok(_))) = timeout(SILENCE, self.frame()).await {}
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}
