//! A server that writes texts as vLLM does (`/v1/completions`, tokens in and tokens out; `/collective_rpc` reads the weights
//! again), with our own engine behind it: what it writes is what the model writes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use candle_core::Device;
use gradus::lm::tokenizer::{SpecialText, Tokenizer};
use gradus::lm::{Decoder, Drawn, Engine, GenerateRequest, Generator, Guide, Joined, LmError, Mask, Next, Sampling};
use serde_json::{Value, json};

/// What the server leaves out, or does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Tokens and log-probabilities, as vLLM answers.
    Whole,
    /// Texts only, as OpenAI does.
    TextOnly,
    /// It never reads the weights again.
    Stale,
}

/// A running server; it ends with the test's process.
pub(crate) struct Completions {
    /// Its address.
    pub url: String,
    /// How often it was told to read the weights.
    pub reloads: Arc<AtomicUsize>,
    /// After how many times it cannot do that any more.
    pub lost_after: Arc<AtomicUsize>,
}

struct Served {
    serving: PathBuf,
    engine: Mutex<Option<Engine>>,
    manner: Manner,
    reloads: Arc<AtomicUsize>,
    lost_after: Arc<AtomicUsize>,
}

impl Completions {
    /// Serves the model of a folder, once there is one.
    pub(crate) fn start(serving: &Path, manner: Manner) -> Self {
        let (reloads, lost_after) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
        let engine = Mutex::new(None);
        let (told, lost) = (reloads.clone(), lost_after.clone());
        let serving = serving.to_owned();
        let served = Arc::new(Served { serving, engine, manner, reloads: told, lost_after: lost });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/v1/completions", post(complete))
            .route("/collective_rpc", post(reload))
            .route("/reset_prefix_cache", post(|| async { "" }))
            .with_state(served);
        std::thread::spawn(move || runtime.block_on(async { axum::serve(listener, app).await }));
        Self { url, reloads, lost_after }
    }
}

async fn reload(State(served): State<Arc<Served>>, Json(order): Json<Value>) -> Result<Json<Value>, StatusCode> {
    assert_eq!(order["method"], "reload_weights");
    if served.reloads.fetch_add(1, Ordering::SeqCst) >= served.lost_after.load(Ordering::SeqCst) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let mut engine = served.engine.lock().unwrap();
    if engine.is_none() || served.manner != Manner::Stale {
        let decoder = Decoder::load(&served.serving, &Device::Cpu, None).unwrap();
        *engine = Some(Engine::new(decoder, 4096, 4096).unwrap());
    }
    Ok(Json(json!({"results": [null]})))
}

async fn complete(State(served): State<Arc<Served>>, Json(asked): Json<Value>) -> Json<Value> {
    assert_eq!(asked["model"], "policy");
    // Tokens are drawn from the policy, whatever its generation_config.json says.
    let drawn = ["top_p", "top_k", "min_p", "repetition_penalty"].map(|key| asked[key].as_f64().unwrap());
    assert_eq!(drawn, [1.0, -1.0, 0.0, 1.0]);
    let numbers = |key: &str| -> Vec<u32> { serde_json::from_value(asked[key].clone()).unwrap() };
    let request = GenerateRequest {
        prompt: numbers("prompt"),
        max_tokens: serde_json::from_value(asked["max_tokens"].clone()).unwrap(),
        sampling: Sampling {
            temperature: asked["temperature"].as_f64().unwrap(),
            seed: asked["seed"].as_u64().unwrap(),
        },
        guide: Box::new(Until(numbers("stop_token_ids"))),
    };
    let mut engine = served.engine.lock().unwrap();
    let engine = engine.as_mut().unwrap();
    let mut generator = Generator::default();
    assert!(matches!(generator.join(engine, request).unwrap(), Joined::As(_)), "one text always fits");
    let generated = loop {
        if let Some(generated) = generator.step(engine).unwrap().pop() {
            break generated;
        }
    };
    let tokenizer = Tokenizer::load(&served.serving).unwrap();
    // As vLLM's text: without the token that stopped it.
    let shown = &generated.tokens[..generated.tokens.len() - usize::from(generated.finished)];
    let mut choice = json!({
        "index": 0,
        "text": tokenizer.decode(shown, SpecialText::Shown).unwrap(),
        "finish_reason": if generated.finished { "stop" } else { "length" },
    });
    if served.manner != Manner::TextOnly {
        choice["token_ids"] = json!(generated.tokens);
        choice["logprobs"] = json!({"token_logprobs": generated.logprobs});
    }
    Json(json!({"object": "text_completion", "model": "policy", "choices": [choice]}))
}

/// Stops at one of some tokens.
struct Until(Vec<u32>);

impl Guide for Until {
    fn allowed(&mut self) -> Result<Option<Mask>, LmError> {
        Ok(None)
    }

    fn accept(&mut self, drawn: Drawn) -> Result<Next, LmError> {
        Ok(if self.0.contains(&drawn.token) { Next::Stop } else { Next::Draw })
    }
}
