//! The generated trajectories in the words of trainers. In: bodies of `POST /reward`. Out: the same trajectories as each
//! dialect sends them, and the lines of `POST /references` that those without labels need.

use anyhow::Context;
use serde_json::{Value, json};

/// The same trajectories in one dialect.
pub(crate) struct Variant {
    /// Name in the table.
    pub name: &'static str,
    /// Where they are sent.
    pub path: &'static str,
    /// The native request with the same content in the same form: messages, or a prompt and a text.
    pub form: Form,
    /// Trajectories of a body.
    pub batch: usize,
    /// The bodies.
    pub bodies: Vec<String>,
}

/// The form in which a trajectory comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A list of messages.
    Messages,
    /// A prompt, and what followed it as one text.
    Text,
}

/// A trajectory in the parts that dialects need.
struct Parts {
    prompt: Value,
    rollout: Value,
    templated_prompt: String,
    text: String,
    tools: Value,
    references: Value,
}

fn templated(messages: &[Value]) -> String {
    let turn = |message: &Value| match (message["role"].as_str(), message["content"].as_str().unwrap_or_default()) {
        (Some("tool"), text) => format!("<|im_start|>user\n<tool_response>\n{text}\n</tool_response><|im_end|>\n"),
        (role, text) => format!("<|im_start|>{}\n{text}<|im_end|>\n", role.unwrap_or("user")),
    };
    messages.iter().map(turn).collect()
}

impl Parts {
    fn of(trajectory: &Value) -> anyhow::Result<Self> {
        const OPENING: &str = "<|im_start|>assistant\n";
        let messages = trajectory["messages"].as_array().context("generated trajectories have messages")?;
        let first = messages.iter().position(|message| message["role"] == "assistant").context("and a policy")?;
        let (prompt, rollout) = messages.split_at(first);
        let text = templated(rollout);
        Ok(Self {
            templated_prompt: templated(prompt) + OPENING,
            text: text.strip_prefix(OPENING).unwrap_or(&text).to_owned(),
            prompt: prompt.into(),
            rollout: rollout.into(),
            tools: trajectory["tools"].clone(),
            references: trajectory["references"].clone(),
        })
    }

    fn whole(&self) -> String {
        format!("{}{}", self.templated_prompt, self.text)
    }

    fn label(&self) -> Value {
        json!({"references": self.references, "tools": self.tools})
    }

    /// What the policy did, in the words of the Responses API.
    fn output(&self) -> Value {
        let item = |message: &Value| match message["role"].as_str() {
            Some("tool") => json!({"type": "function_call_output", "call_id": "c", "output": message["content"]}),
            _ => {
                json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": message["content"], "annotations": []}]})
            }
        };
        self.rollout.as_array().into_iter().flatten().map(item).collect()
    }

    fn verify(&self) -> Value {
        json!({"responses_create_params": {"input": self.prompt, "tools": self.tools}, "response": {"output": self.output()}, "expected_answer": self.references})
    }

    fn native_text(&self) -> Value {
        json!({"prompt": self.templated_prompt, "response": self.text, "tools": self.tools, "references": self.references})
    }

    fn verl(&self) -> Value {
        json!({"data_source": "x", "solution_str": self.text, "ground_truth": self.references, "extra_info": {"tools": self.tools}})
    }
}

/// Native bodies as single trajectories and as they are, then every dialect; and the lines of references.
pub(crate) fn variants(bodies: &[String], batch: usize) -> anyhow::Result<(Vec<Variant>, String)> {
    let read = |body: &String| -> anyhow::Result<Vec<Value>> {
        let body: Value = serde_json::from_str(body)?;
        Ok(body["trajectories"].as_array().context("a body has trajectories")?.clone())
    };
    let natives = bodies.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    let parts = |items: &Vec<Value>| items.iter().map(Parts::of).collect::<anyhow::Result<Vec<_>>>();
    let batches = natives.iter().map(parts).collect::<anyhow::Result<Vec<_>>>()?;
    let all: Vec<&Parts> = batches.iter().flatten().collect();
    let column = |batch: &[Parts], of: &dyn Fn(&Parts) -> Value| batch.iter().map(of).collect::<Value>();
    let many = |of: &dyn Fn(&[Parts]) -> Value| batches.iter().map(|batch| of(batch).to_string()).collect();
    let one = |of: &dyn Fn(&Parts) -> Value| all.iter().map(|parts| of(parts).to_string()).collect();
    let whole = |batch: &[Parts]| column(batch, &|parts| parts.whole().into());
    let prompts = |batch: &[Parts]| column(batch, &|parts| parts.templated_prompt.clone().into());
    let variant = |name, path, form, batch, bodies| Variant { name, path, form, batch, bodies };
    let single = natives.iter().flatten().map(|item| json!({"trajectories": [item]}).to_string()).collect();
    let variants = vec![
        variant("native", "/reward", Form::Messages, batch, bodies.to_vec()),
        variant(
            "native",
            "/reward",
            Form::Text,
            batch,
            many(&|batch| json!({"trajectories": column(batch, &Parts::native_text)})),
        ),
        variant(
            "OpenRLHF",
            "/get_reward",
            Form::Text,
            batch,
            many(
                &|batch| json!({"query": whole(batch), "prompts": prompts(batch), "labels": column(batch, &Parts::label)}),
            ),
        ),
        variant(
            "TRL",
            "/trl",
            Form::Messages,
            batch,
            many(&|batch| {
                let columns = json!({"ground_truth": column(batch, &|parts| parts.references.clone()), "tools": column(batch, &|parts| parts.tools.clone())});
                json!({"prompts": column(batch, &|parts| parts.prompt.clone()), "completions": column(batch, &|parts| parts.rollout.clone()), "columns": columns})
            }),
        ),
        variant("verl, a list", "/verl", Form::Text, batch, many(&|batch| column(batch, &Parts::verl))),
        variant(
            "LLaMA-Factory",
            "/v1/score/evaluation",
            Form::Text,
            batch,
            many(&|batch| json!({"model": "m", "messages": whole(batch)})),
        ),
        variant(
            "classify",
            "/classify",
            Form::Text,
            batch,
            many(&|batch| json!({"model": "m", "input": whole(batch)})),
        ),
        variant("native", "/reward", Form::Messages, 1, single),
        variant("native", "/reward", Form::Text, 1, one(&|parts| json!({"trajectories": [parts.native_text()]}))),
        variant(
            "slime",
            "/slime",
            Form::Text,
            1,
            one(&|parts| json!({"prompt": parts.templated_prompt, "response": parts.text, "label": parts.label()})),
        ),
        variant("verl", "/verl", Form::Text, 1, one(&Parts::verl)),
        variant(
            "eval-protocol",
            "/eval-protocol/reward",
            Form::Messages,
            1,
            one(&|parts| {
                let messages: Vec<&Value> =
                    [&parts.prompt, &parts.rollout].into_iter().filter_map(Value::as_array).flatten().collect();
                json!({"messages": messages, "ground_truth": parts.references, "tools": parts.tools})
            }),
        ),
        variant(
            "OpenEnv",
            "/step",
            Form::Messages,
            1,
            one(&|parts| {
                let messages: Vec<&Value> =
                    [&parts.prompt, &parts.rollout].into_iter().filter_map(Value::as_array).flatten().collect();
                json!({"action": {"messages": messages, "ground_truth": parts.references, "tools": parts.tools}})
            }),
        ),
        variant("NeMo Gym", "/verify", Form::Messages, 1, one(&Parts::verify)),
    ];
    let line = |parts: &&Parts| {
        json!({"prompt": parts.prompt, "references": parts.references, "tools": parts.tools}).to_string()
    };
    Ok((variants, all.iter().map(line).collect::<Vec<_>>().join("\n")))
}
