//! Answers that are compressed, a piece at a time: the thread that compresses one serves other connections in between. In: an
//! answer of any length. Out: the same bytes in pieces, with a pause after each.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};

/// Bytes that are compressed at once: some milliseconds.
const PIECE_BYTES: usize = 64 << 10;

/// Gives answers out in pieces where the client takes compressed ones.
pub(super) async fn pace(request: Request, next: Next) -> Response {
    let compressed = request.headers().contains_key(header::ACCEPT_ENCODING);
    let response = next.run(request).await;
    let long = response.body().size_hint().lower() > PIECE_BYTES as u64;
    if compressed && long { response.map(|body| Body::new(Paced::new(body))) } else { response }
}

/// A body in pieces.
struct Paced {
    body: Body,
    /// What is left of its last frame.
    rest: Bytes,
    /// Whether a piece was given and no pause made since.
    owes_pause: bool,
}

impl Paced {
    fn new(body: Body) -> Self {
        Self { body, rest: Bytes::new(), owes_pause: false }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if std::mem::take(&mut self.owes_pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return other,
            }
        }
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        self.owes_pause = true;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        // The upper bound first: it may not be below the other.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_in_pieces_is_the_answer() {
        let text: Bytes = (0..=250).cycle().take(3 * PIECE_BYTES + 7).collect();
        let mut body = Paced::new(Body::from(text.clone()));
        assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
        let (mut pieces, mut whole) = (0, Vec::new());
        while let Some(frame) = body.frame().await {
            whole.extend_from_slice(&frame.unwrap().into_data().unwrap());
            pieces += 1;
            assert_eq!(body.size_hint().exact(), Some((text.len() - whole.len()) as u64));
        }
        assert_eq!((pieces, whole == text), (4, true));
        assert!(body.is_end_stream());
    }

    /// A thread that polls it gets something else to do after each piece.
    #[tokio::test]
    async fn pieces_are_given_in_turns_with_others() {
        let mut body = Paced::new(Body::from(vec![b'x'; 4 * PIECE_BYTES]));
        let turns = std::cell::Cell::new(0);
        let others = async {
            loop {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        let read = async { while body.frame().await.is_some() {} };
        tokio::select! { biased; () = read => {}, () = others => {} }
        assert!(turns.get() >= 4, "{}", turns.get());
    }
}
