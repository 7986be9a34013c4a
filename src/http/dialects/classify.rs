//! Reward-model servers as verl asks them: `POST /classify` (vLLM) and `POST /v1/embeddings` (`SGLang`). Whole templated
//! texts without labels: right answers come from the table of `POST /references`. Its client gives up on 4xx, and tries
//! 5xx again.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::docs::TextOrTextsDoc;
use super::fields::Parts;
use super::options::{Options, Repeatable};
use super::raw_item::RawItem;
use super::results::{Results, written};
use super::{Dialect, Incoming, serve};
use crate::http::error::{Problem, ProblemWire};
use crate::http::wire::{OnInvalid, Pointed};

/// Texts that are to be scored. Other fields are taken and ignored.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = RewardModelRequest, example = json!({"model": "rm", "use_activation": false,
    "input": "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n<answer>Paris</answer><|im_end|>"}))]
pub(crate) struct RewardModelRequestDoc {
    /// Echoed.
    #[schema(required = false)]
    model: Option<String>,
    /// Whole conversations with the markers of their chat template.
    input: TextOrTextsDoc,
    /// Ignored: a reward is a reward.
    #[schema(required = false)]
    use_activation: Option<bool>,
}

/// Rewards as the probabilities of a single class.
#[derive(Serialize, ToSchema)]
#[schema(as = ClassifyResponse, example = json!({"id": "classify-1", "object": "list", "created": 0, "model": "rm",
    "data": [{"index": 0, "label": "LABEL_0", "probs": [0.93], "num_classes": 1}], "usage": {"prompt_tokens": 0, "total_tokens": 0}}))]
pub(crate) struct ClassifyResponse<'s> {
    /// A name.
    id: &'s str,
    /// `list`.
    object: &'s str,
    /// 0: the answer depends on no time.
    created: u64,
    /// As sent.
    model: &'s str,
    /// One per text, in order.
    data: Vec<ClassDoc<'s>>,
    /// Zeros.
    usage: Usage,
}

/// The reward of one text.
#[derive(Serialize, ToSchema)]
#[schema(as = Class, example = json!({"index": 0, "label": "LABEL_0", "probs": [0.93], "num_classes": 1}))]
pub(crate) struct ClassDoc<'s> {
    /// Its place.
    index: usize,
    /// `LABEL_0`.
    label: &'s str,
    /// The reward.
    probs: [Option<f64>; 1],
    /// 1.
    num_classes: usize,
}

/// Rewards as embeddings of one dimension.
#[derive(Serialize, ToSchema)]
#[schema(as = EmbeddingsResponse, example = json!({"object": "list", "model": "rm", "data": [{"object": "embedding", "index": 0, "embedding": [0.93]}],
    "usage": {"prompt_tokens": 0, "total_tokens": 0}}))]
pub(crate) struct EmbeddingsResponse<'s> {
    /// `list`.
    object: &'s str,
    /// As sent.
    model: &'s str,
    /// One per text, in order.
    data: Vec<EmbeddingDoc<'s>>,
    /// Zeros.
    usage: Usage,
}

/// The reward of one text.
#[derive(Serialize, ToSchema)]
#[schema(as = RewardEmbedding, example = json!({"object": "embedding", "index": 0, "embedding": [0.93]}))]
pub(crate) struct EmbeddingDoc<'s> {
    /// `embedding`.
    object: &'s str,
    /// Its place.
    index: usize,
    /// The reward.
    embedding: [Option<f64>; 1],
}

/// Tokens that were used: none.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Usage, example = json!({"prompt_tokens": 0, "total_tokens": 0}))]
pub(crate) struct Usage {
    /// 0.
    prompt_tokens: u64,
    /// 0.
    total_tokens: u64,
}

fn read(body: &str) -> Result<(String, Vec<RawItem<'_>>), Pointed> {
    let parts = Parts::read(body, 2)?;
    let body = parts.object(body)?;
    let input = body.needed("input")?;
    let texts = if input.raw().starts_with('[') { input.raws() } else { vec![input.raw()] };
    let model = body.text_of("model")?.unwrap_or_default().into_owned();
    Ok((model, texts.into_iter().map(RawItem::whole).collect()))
}

struct Classify {
    model: String,
}

impl Dialect for Classify {
    const ON_INVALID: OnInvalid = OnInvalid::Zero;
    // verl waits for 300 s.
    const DEADLINE_MS: Option<u64> = Some(290_000);

    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed> {
        read(body).map(|(model, raw_items)| (Self { model }, raw_items))
    }

    fn write(&self, _: &str, results: &Results<'_>) -> Vec<u8> {
        let class = |(index, reward)| ClassDoc { index, label: "LABEL_0", probs: [reward], num_classes: 1 };
        written(&ClassifyResponse {
            id: "classify-1",
            object: "list",
            created: 0,
            model: &self.model,
            data: results.numbers().into_iter().enumerate().map(class).collect(),
            usage: Usage::default(),
        })
    }
}

struct Embeddings {
    model: String,
}

impl Dialect for Embeddings {
    const ON_INVALID: OnInvalid = OnInvalid::Zero;
    const DEADLINE_MS: Option<u64> = Classify::DEADLINE_MS;

    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed> {
        read(body).map(|(model, raw_items)| (Self { model }, raw_items))
    }

    fn write(&self, _: &str, results: &Results<'_>) -> Vec<u8> {
        let embedding = |(index, reward)| EmbeddingDoc { object: "embedding", index, embedding: [reward] };
        let data = results.numbers().into_iter().enumerate().map(embedding).collect();
        written(&EmbeddingsResponse { object: "list", model: &self.model, data, usage: Usage::default() })
    }
}

/// Score texts as a reward model of vLLM does.
#[utoipa::path(post, path = "/classify", tag = "dialects", operation_id = "classify", params(Options, Repeatable),
    request_body(content = RewardModelRequestDoc, description = "The body that verl sends to a reward model"),
    responses(
        (status = 200, description = "Rewards in order", body = ClassifyResponse<'static>),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn classify(incoming: Incoming) -> Result<Response, Problem> {
    serve::<Classify>(incoming).await
}

/// Score texts as a reward model of `SGLang` does.
#[utoipa::path(post, path = "/v1/embeddings", tag = "dialects", operation_id = "embeddings", params(Options, Repeatable),
    request_body(content = RewardModelRequestDoc, description = "The body that verl sends to a reward model"),
    responses(
        (status = 200, description = "Rewards in order", body = EmbeddingsResponse<'static>),
        (status = 422, description = "The request has the wrong shape", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn embeddings(incoming: Incoming) -> Result<Response, Problem> {
    serve::<Embeddings>(incoming).await
}
