//! LLaMA-Factory: `POST /v1/score/evaluation`, whole texts without prompts or labels: both come from the table of
//! `POST /references`. Its client looks at no status: every answer has `scores`, those of errors too.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::fields::Parts;
use super::options::{Options, Repeatable};
use super::raw_item::RawItem;
use super::results::{Results, written};
use super::unscored::Unscored;
use super::{Dialect, Incoming, serve};
use crate::http::error::{Problem, ProblemWire};
use crate::http::wire::{OnInvalid, Pointed};

/// Texts that are to be scored.
#[allow(dead_code, reason = "exists for its schema")]
#[derive(ToSchema)]
#[schema(as = ScoreEvaluationRequest, example = json!({"model": "model",
    "messages": ["<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n<answer>Paris</answer><|im_end|>"]}))]
pub(crate) struct ScoreEvaluationRequestDoc {
    /// Echoed.
    #[schema(required = false)]
    model: Option<String>,
    /// Whole conversations with the markers of their chat template.
    messages: Vec<String>,
}

/// Scores of texts, in order.
#[derive(Serialize, ToSchema)]
#[schema(as = ScoreEvaluationResponse, example = json!({"id": "scoreeval-1", "object": "score.evaluation", "model": "model", "scores": [0.9, 0.1]}))]
pub(crate) struct ScoreEvaluationResponse<'s> {
    /// A name.
    id: &'s str,
    /// `score.evaluation`.
    object: &'s str,
    /// As sent.
    model: &'s str,
    /// The rewards.
    scores: Vec<Option<f64>>,
}

struct LlamaFactory {
    model: String,
}

impl Dialect for LlamaFactory {
    const ON_INVALID: OnInvalid = OnInvalid::Zero;
    const LIST: Option<&'static str> = Some("messages");

    fn read(body: &str) -> Result<(Self, Vec<RawItem<'_>>), Pointed> {
        let parts = Parts::read(body, 2)?;
        let body = parts.object(body)?;
        let texts = body.needed("messages")?.list("/messages")?.raws();
        let model = body.text_of("model")?.unwrap_or_default().into_owned();
        Ok((Self { model }, texts.into_iter().map(RawItem::whole).collect()))
    }

    fn write(&self, _: &str, results: &Results<'_>) -> Vec<u8> {
        let (id, object) = ("scoreeval-1", "score.evaluation");
        written(&ScoreEvaluationResponse { id, object, model: &self.model, scores: results.numbers() })
    }

    fn failed(problem: Problem, unscored: &Unscored) -> Result<Response, Problem> {
        let scores = vec![unscored.reward(); unscored.items];
        Err(problem.with("scores", serde_json::json!(scores)))
    }
}

/// Score texts as LLaMA-Factory sends them.
///
/// Right answers come from the table of `POST /references`. An error's problem document has `scores`, too: this client
/// looks at no status.
#[utoipa::path(post, path = "/v1/score/evaluation", tag = "dialects", operation_id = "llama_factory_score", params(Options, Repeatable),
    request_body(content = ScoreEvaluationRequestDoc, description = "The body of `--reward_model_type api`"),
    responses(
        (status = 200, description = "Scores in order", body = ScoreEvaluationResponse<'static>),
        (status = 422, description = "The request has the wrong shape; the document has `scores`, too", body = ProblemWire, content_type = "application/problem+json")))]
pub(crate) async fn score_evaluation(incoming: Incoming) -> Result<Response, Problem> {
    serve::<LlamaFactory>(incoming).await
}
