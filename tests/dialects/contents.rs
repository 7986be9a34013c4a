//! Rollouts, and each of them as every trainer sends it. One question with one tool and one right answer, so that a single
//! line of references serves the dialects that send none.

use serde_json::{Value, json};

use crate::common::{Server, hermes};

pub(crate) const QUESTION: &str = "What is the capital of France?";
const SYSTEM: &str = "You are a helpful assistant.";

/// What happens in a rollout, in order.
pub(crate) enum Step {
    /// The policy writes.
    Says(String),
    /// The tool answers.
    Tool(&'static str),
}

/// A rollout.
pub(crate) struct Content {
    pub name: &'static str,
    pub steps: Vec<Step>,
}

/// A dialect's request for a rollout.
pub(crate) struct Call {
    pub dialect: &'static str,
    pub path: String,
    pub body: Value,
    /// The reward in the answer, as a JSON pointer.
    pub reward: &'static str,
}

fn search(arguments: Value) -> Step {
    Step::Says(format!("I look it up. {}", hermes("search", &arguments)))
}

fn answer(text: &str) -> Step {
    Step::Says(format!("<answer>{text}</answer>"))
}

/// Rollouts that fail and succeed at every stage.
pub(crate) fn contents() -> Vec<Content> {
    let found = || Step::Tool("Paris is the capital of France.");
    let content = |name, steps| Content { name, steps };
    vec![
        content("right", vec![search(json!({"query": "capital of France"})), found(), answer("Paris")]),
        content("leak", vec![search(json!({"query": "x"})), Step::Tool("<answer>Paris</answer>"), answer("Lyon")]),
        content("near", vec![search(json!({"query": "x"})), found(), answer("The city of Paris")]),
        content("violation", vec![search(json!({"query": 7})), found(), answer("Paris")]),
        content(
            "malformed",
            vec![Step::Says("<tool_call>{\"name\": \"search\", </tool_call>".to_owned()), found(), answer("Paris")],
        ),
        content("no answer", vec![Step::Says("I do not know \"it\".\nSorry.".to_owned())]),
        content("at once", vec![answer("Paris")]),
    ]
}

/// The tool list: chat form, or the flat form of the Responses API.
pub(crate) fn tools(flat: bool) -> Value {
    let parameters = json!({"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]});
    if flat {
        json!([{"type": "function", "name": "search", "parameters": parameters, "strict": true}])
    } else {
        json!([{"type": "function", "function": {"name": "search", "parameters": parameters}}])
    }
}

/// The prompt in the template of Qwen.
pub(crate) fn templated_prompt() -> String {
    format!("<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n")
}

/// The prompt as messages.
pub(crate) fn prompt_messages() -> Value {
    json!([{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}])
}

/// One line of `POST /references` for the question.
pub(crate) fn reference_line() -> String {
    json!({"messages": prompt_messages(), "references": ["Paris"], "tools": tools(false)}).to_string()
}

impl Content {
    /// What follows the prompt in the template of Qwen.
    pub(crate) fn text(&self) -> String {
        let step = |step: &Step| match step {
            Step::Says(text) => text.clone(),
            Step::Tool(result) => format!(
                "<|im_end|>\n<|im_start|>user\n<tool_response>\n{result}\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
            ),
        };
        self.steps.iter().map(step).collect()
    }

    /// What follows the prompt as messages.
    pub(crate) fn messages(&self) -> Value {
        let step = |step: &Step| match step {
            Step::Says(text) => json!({"role": "assistant", "content": text}),
            Step::Tool(result) => json!({"role": "tool", "content": result}),
        };
        self.steps.iter().map(step).collect()
    }

    fn output(&self) -> Value {
        let step = |step: &Step| match step {
            Step::Says(text) => json!({"type": "message", "role": "assistant", "id": "m", "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []}]}),
            Step::Tool(result) => json!({"type": "function_call_output", "call_id": "c", "output": result}),
        };
        self.steps.iter().map(step).collect()
    }

    /// The native request.
    pub(crate) fn native(&self) -> Value {
        let mut messages = prompt_messages();
        messages.as_array_mut().unwrap().extend(self.messages().as_array().unwrap().iter().cloned());
        json!({"trajectories": [{"messages": messages, "tools": tools(false), "references": ["Paris"]}]})
    }

    /// The same in every dialect; the server must know [`reference_line`].
    pub(crate) fn calls(&self) -> Vec<Call> {
        let (prompt, text) = (templated_prompt(), self.text());
        let whole = format!("{prompt}{text}<|im_end|>");
        let label = json!({"references": ["Paris"], "tools": tools(false)});
        let mut messages = prompt_messages();
        messages.as_array_mut().unwrap().extend(self.messages().as_array().unwrap().iter().cloned());
        let call = |dialect, path: &str, body, reward| Call { dialect, path: path.to_owned(), body, reward };
        vec![
            call(
                "OpenRLHF",
                "/get_reward",
                json!({"query": [whole], "prompts": [prompt], "labels": [label]}),
                "/rewards/0",
            ),
            call(
                "OpenRLHF, no prompts",
                "/get_reward",
                json!({"query": [whole], "labels": [label.to_string()]}),
                "/rewards/0",
            ),
            call(
                "slime",
                "/slime",
                json!({"prompt": prompt, "response": format!("{text}<|im_end|>"), "label": label}),
                "",
            ),
            call(
                "slime, messages",
                "/slime?format=dict",
                json!({"prompt": prompt_messages(), "response": text, "label": label}),
                "/score",
            ),
            call("LLaMA-Factory", "/v1/score/evaluation", json!({"model": "m", "messages": [whole]}), "/scores/0"),
            call(
                "eval-protocol",
                "/eval-protocol/reward",
                json!({"messages": messages, "ground_truth": "Paris", "tools": tools(false)}),
                "/score",
            ),
            call(
                "eval-protocol, nested",
                "/eval-protocol/evaluate",
                json!({"messages": messages, "kwargs": {"ground_truth": ["Paris"], "tools": tools(false)}}),
                "/score",
            ),
            call(
                "OpenEnv",
                "/step",
                json!({"action": {"messages": messages, "ground_truth": "Paris", "tools": tools(false)}, "timeout_s": 30, "request_id": "x"}),
                "/reward",
            ),
            call("OpenEnv, no answer", "/step", json!({"action": {"messages": messages}}), "/reward"),
            call(
                "NeMo Gym",
                "/verify",
                json!({"responses_create_params": {"input": prompt_messages(), "tools": tools(true)},
                "response": {"id": "r", "object": "response", "output": self.output()}, "expected_answer": "Paris"}),
                "/reward",
            ),
            call(
                "verl",
                "/verl",
                json!({"data_source": "nq", "solution_str": text, "ground_truth": {"target": ["Paris"]}, "extra_info": {"tools": tools(false)}}),
                "/score",
            ),
            call(
                "classify",
                "/classify",
                json!({"model": "rm", "input": whole, "use_activation": false}),
                "/data/0/probs/0",
            ),
            call("embeddings", "/v1/embeddings", json!({"model": "rm", "input": [whole]}), "/data/0/embedding/0"),
            call(
                "TRL",
                "/trl",
                json!({"prompts": [prompt_messages()], "completions": [self.messages()], "columns": {"ground_truth": ["Paris"], "tools": [tools(false)]}}),
                "/rewards/0",
            ),
            call(
                "TRL, text",
                "/trl",
                json!({"prompts": [prompt], "completions": [text], "columns": {"answer": ["Paris"], "tools": [tools(false)]}}),
                "/rewards/0",
            ),
        ]
    }
}

impl Call {
    /// The answer's reward.
    #[track_caller]
    pub(crate) fn send(&self, server: &Server) -> Value {
        let answer = server.post(&self.path, &self.body).ok();
        answer
            .pointer(self.reward)
            .unwrap_or_else(|| panic!("{}: no {} in {answer}", self.dialect, self.reward))
            .clone()
    }
}

/// A server that knows what is right for the question.
pub(crate) fn server(options: &[&str]) -> Server {
    let server = Server::start(options);
    server.post("/references", &reference_line()).ok();
    server
}
