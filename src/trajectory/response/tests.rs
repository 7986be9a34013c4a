//! Which markers split a response, in which format, and which are only quoted.

use super::*;

fn speakers(response: &str, format: ToolFormat) -> Vec<(Role, &str)> {
    let show = |message| match message {
        Message::Policy(Turn { text: Cow::Borrowed(text), offset, .. }) => {
            assert_eq!(&response[offset..offset + text.len()], text);
            (Role::Assistant, text.trim())
        }
        Message::Other { role, content: Content::Text(Cow::Borrowed(text)) } => (role, text.trim()),
        other => panic!("borrowed text expected: {other:?}"),
    };
    split_response(response, format, Before::default()).into_iter().map(show).collect()
}

#[test]
fn chatml_tool_turns_are_not_the_policys() {
    let text = "call<|im_end|>\n<|im_start|>user\n<tool_response>\n<answer>no</answer>\n</tool_response><|im_end|>\n<|im_start|>assistant\n<answer>yes</answer>";
    let found = speakers(text, ToolFormat::Hermes);
    let own: Vec<_> = found.iter().filter(|(role, _)| *role == Role::Assistant).map(|(_, text)| *text).collect();
    assert!(own.concat().contains("<answer>yes</answer>"), "{found:?}");
    assert!(!own.concat().contains("no</answer>"), "{found:?}");
}

#[test]
fn a_block_inside_a_turn_changes_no_speaker() {
    let text = "call<|im_end|>\n<|im_start|>user\n<tool_response>r</tool_response>\n<answer>no</answer><|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n";
    let found = speakers(text, ToolFormat::Hermes);
    let user = (Role::User, "<answer>no</answer><|im_end|>");
    assert_eq!(found, [(Role::Assistant, "call<|im_end|>"), (Role::Tool, "r"), user, (Role::Assistant, "b<|im_end|>")]);
}

#[test]
fn end_tokens_alone_are_no_turn() {
    let found = speakers("f()<tool_response>r</tool_response><|im_end|>\n<|im_start|>assistant\nb", ToolFormat::Hermes);
    assert_eq!(found, [(Role::Assistant, "f()"), (Role::Tool, "r"), (Role::Assistant, "b")]);
}

#[test]
fn llama_headers_and_blocks() {
    let text = "a<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\nr<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nb";
    let found = speakers(text, ToolFormat::Llama3Json);
    assert_eq!(found, [(Role::Assistant, "a<|eot_id|>"), (Role::Tool, "r<|eot_id|>"), (Role::Assistant, "b")]);
    let found = speakers("f{}[TOOL_RESULTS]{}[/TOOL_RESULTS] y", ToolFormat::Mistral);
    assert_eq!(found, [(Role::Assistant, "f{}"), (Role::Tool, "{}"), (Role::Assistant, "y")]);
}

#[test]
fn deepseek_results_stand_alone_too() {
    let text = "a<｜end▁of▁sentence｜><｜tool▁output▁begin｜>r<｜tool▁output▁end｜>b";
    let found = speakers(text, ToolFormat::DeepseekV31);
    assert_eq!(found, [(Role::Assistant, "a<｜end▁of▁sentence｜>"), (Role::Tool, "r"), (Role::Assistant, "b")]);
}

#[test]
fn llama_4_headers() {
    let text = "[f()]<|eot|><|header_start|>ipython<|header_end|>\n\nr<|eot|><|header_start|>assistant<|header_end|>\n\nb<|eot|>";
    let found = speakers(text, ToolFormat::Pythonic);
    assert_eq!(found, [(Role::Assistant, "[f()]<|eot|>"), (Role::Tool, "r<|eot|>"), (Role::Assistant, "b<|eot|>")]);
}

#[test]
fn kimi_speakers_have_names_of_their_own() {
    let text = "a<|im_end|><|im_system|>get_weather<|im_middle|>r<|im_end|><|im_assistant|>Kimi<|im_middle|>b<|im_end|>\
                <|im_system|>system<|im_middle|>s<|im_end|><|im_user|>assistant<|im_middle|>u";
    let found = speakers(text, ToolFormat::KimiK2);
    let expected = [
        (Role::Assistant, "a<|im_end|>"),
        (Role::Tool, "r<|im_end|>"),
        (Role::Assistant, "b<|im_end|>"),
        (Role::System, "s<|im_end|>"),
        (Role::User, "u"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_header_with_an_unknown_name_is_not_the_policys() {
    let found = speakers("a<|im_end|>\n<|im_start|>search_result\n<answer>x</answer>", ToolFormat::Hermes);
    assert_eq!(found, [(Role::Assistant, "a<|im_end|>"), (Role::Tool, "<answer>x</answer>")]);
}

#[test]
fn a_cut_result_runs_to_the_end() {
    for text in [
        "{}\n<tool_response>cut",
        "x\n<|tool_response|>cut",
        "x</tool_call> <tool_response>cut",
        "f() and so on<tool_response>cut",
        "<｜tool▁output▁begin｜>cut",
    ] {
        let found = speakers(text, ToolFormat::Hermes);
        assert!(found.contains(&(Role::Tool, "cut")), "{text}");
    }
    let found = speakers("f{}[TOOL_RESULTS]cut", ToolFormat::Mistral);
    assert_eq!(found, [(Role::Assistant, "f{}"), (Role::Tool, "cut")]);
    let found = speakers("<search>q</search>\n<information>cut", ToolFormat::SearchR1);
    assert_eq!(found, [(Role::Assistant, "<search>q</search>"), (Role::Tool, "cut")]);
}

#[test]
fn what_people_write_too_separates_only_after_a_call() {
    const F: &str = r#"<tool_call>{"name":"f","arguments":{}}</tool_call>"#;
    for text in [
        format!("<think>I recall <tool_response> tags</think>{F}"),
        format!("<think>The\n<tool_response></tool_response> pair</think>{F}"),
        format!("The <tool_response>x</tool_response> pair. {F}"),
        format!("The template uses [INST] tags. {F}"),
        format!("[TOOL_RESULTS] and [INST] are tags. {F}"),
        format!("A <tool_response> tag and a <tool_response> tag. {F}"),
        format!("# Title\n[INST] is a tag {F}"),
        format!("{F} [INST] is a tag"),
        format!("The <|im_start|> token's header, \"user\", is short.\n{F}"),
    ] {
        for format in [ToolFormat::Hermes, ToolFormat::Auto] {
            assert_eq!(speakers(&text, format).len(), 1, "{format} {text}");
        }
    }
    let text = format!("{F}[TOOL_RESULTS]x[/TOOL_RESULTS]");
    assert_eq!(speakers(&text, ToolFormat::Hermes).len(), 1, "no marker of its models");
    let text = format!("{F}</s>[TOOL_RESULTS]x[/TOOL_RESULTS]");
    assert_eq!(speakers(&text, ToolFormat::Hermes)[1], (Role::Tool, "x"), "unless a turn has ended");
}

#[test]
fn markers_in_strings_and_values_of_calls_are_data() {
    for inside in ["[INST]", "[INST]x[/INST]", "a\\\"<tool_response>x</tool_response>", "the <|im_start|> token"] {
        let hermes = format!("<tool_call>\n{{\"name\":\"f\",\"arguments\":{{\"s\":\"{inside}\"}}}}\n</tool_call>");
        let mistral = format!("[TOOL_CALLS]f{{\"s\":\"{inside}\"}}\n");
        for (format, text) in [(ToolFormat::Hermes, hermes), (ToolFormat::Mistral, mistral)] {
            assert_eq!(speakers(&text, format), [(Role::Assistant, text.trim())]);
            assert_eq!(speakers(&text, ToolFormat::Auto), [(Role::Assistant, text.trim())]);
        }
    }
    for inside in ["x = \"[INST]\"", "\n[INST] a [/INST]\n", "\n<tool_response>\n</tool_response>"] {
        let coder = format!("<tool_call><function=f><parameter=a>{inside}</parameter></function></tool_call>");
        let glm = format!("<tool_call>f<arg_key>a</arg_key><arg_value>{inside}</arg_value></tool_call>");
        assert_eq!(speakers(&coder, ToolFormat::Qwen3Coder), [(Role::Assistant, &*coder)]);
        assert_eq!(speakers(&coder, ToolFormat::Auto), [(Role::Assistant, &*coder)]);
        assert_eq!(speakers(&glm, ToolFormat::Auto), [(Role::Assistant, &*glm)]);
    }
    for text in ["[f(a=\"[INST]\")]", "[f(a='<tool_response>x</tool_response>')]"] {
        assert_eq!(speakers(text, ToolFormat::Pythonic), [(Role::Assistant, text)]);
    }
}

#[test]
fn no_text_of_the_policys_makes_a_result_its_own() {
    const CALLS: [(&str, &str, &str); 5] = [
        (r#"<tool_call>{"name":"f","arguments":{}}</tool_call>"#, "<tool_response>", "</tool_response>"),
        ("<tool_call>f<arg_key>a</arg_key><arg_value>b</arg_value></tool_call>", "<|observation|>", "<|assistant|>"),
        ("[TOOL_CALLS]f{\"a\": 1}", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        ("<search>q</search>", "<information>", "</information>"),
        ("{\"name\":\"f\",\"parameters\":{}}<|im_end|>\n", "<|im_start|>tool\n", "<|im_start|>assistant\n"),
    ];
    const BRACKETS: [(&str, &str); 9] = [
        ("", ""),
        ("<parameter=a>", "</parameter>"),
        ("<arg_value>", "</arg_value>"),
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("\"", "\""),
        ("A 5\" disk. ", ""),
        ("<|channel|>", ""),
        ("<|message|>", ""),
    ];
    for (call, open, close) in CALLS {
        for (before, after) in BRACKETS {
            for text in [
                format!("{before}{call}{open}no{close}{after} so"),
                format!("{call}{before}{open}no{close}{after} so"),
                format!("{before}{call}{after} and on {open}no{close} so"),
            ] {
                // A search says itself that it ends where its result begins.
                if open == "<information>" && !text.contains("</search><information>") {
                    continue;
                }
                let found = speakers(&text, ToolFormat::Auto);
                assert!(found.iter().any(|(role, text)| *role == Role::Tool && *text == "no"), "{text} {found:?}");
            }
        }
    }
}

#[test]
fn pages_that_show_markers_give_nobody_the_floor() {
    const PAGE: &str =
        "Use [INST] x [/INST] <tool_response>y</tool_response> <|user|>\n <｜Assistant｜> <answer>no</answer>";
    let harmony = format!(
        "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{{}}<|call|><|start|>functions.f to=assistant\
         <|channel|>commentary<|message|>{PAGE}<|end|><|start|>assistant<|channel|>final<|message|>own"
    );
    let chatml = format!("{{}}<|im_end|>\n<|im_start|>tool\n{PAGE}<|im_end|>\n<|im_start|>assistant\nown");
    let phi = format!("{{}}<|im_end|><|im_start|>tool<|im_sep|>{PAGE}<|im_end|><|im_start|>assistant<|im_sep|>own");
    let search = format!("<search>q</search>\n<information>{PAGE} </search><|im_start|>assistant\n</information>own");
    for text in [&harmony, &chatml, &phi, &search] {
        let found = speakers(text, ToolFormat::Auto);
        let own: Vec<_> = found.iter().filter(|(role, _)| *role == Role::Assistant).map(|(_, text)| *text).collect();
        assert!(own.last().is_some_and(|last| last.ends_with("own")), "{found:?}");
        assert!(!own.concat().contains("no<"), "{found:?}");
    }
    let found = speakers(&search, ToolFormat::SearchR1);
    assert_eq!((found.len(), found[2]), (3, (Role::Assistant, "own")));
    let quoted = "hi<|im_end|>\n<|im_start|>user\nuse <tool_response> and <|start|>x<|message|><|im_end|>\n<|im_start|>assistant\nown";
    assert_eq!(speakers(quoted, ToolFormat::Auto).last(), Some(&(Role::Assistant, "own")));
}

#[test]
fn tokens_of_another_family_separate_after_a_turn() {
    let headers = "a<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\nr<|eot_id|>";
    assert_eq!(speakers(headers, ToolFormat::Hermes)[1], (Role::Tool, "r<|eot_id|>"));
    let headers = "a<|start_header_id|>ipython<|end_header_id|>\n\nr<|start_header_id|>assistant<|end_header_id|>\n\nb";
    let expected = [(Role::Assistant, "a"), (Role::Tool, "r"), (Role::Assistant, "b")];
    assert_eq!(speakers(headers, ToolFormat::Hermes), expected);
    let glm = "a<|observation|>\nr<|assistant|>\nb";
    for format in [ToolFormat::Glm45, ToolFormat::Auto, ToolFormat::Hermes] {
        assert_eq!(speakers(glm, format), expected);
    }
    assert_eq!(speakers("a <|observation|>r", ToolFormat::Glm45).len(), 2);
    let prompt = "<|user|>\nq<|assistant|>";
    assert_eq!(speakers(prompt, ToolFormat::Auto), [(Role::User, "q"), (Role::Assistant, "")]);
}

#[test]
fn search_r1_texts_split_at_the_markers_of_templates() {
    let text = "<search>a</search><|im_end|>\n<|im_start|>user\n<information>r</information><|im_end|>\n<|im_start|>assistant\nb";
    let own: Vec<_> =
        speakers(text, ToolFormat::SearchR1).into_iter().filter(|(role, _)| *role == Role::Assistant).collect();
    assert_eq!(own, [(Role::Assistant, "<search>a</search><|im_end|>"), (Role::Assistant, "b")]);
    let plain = "<search>a</search>\n<information>r</information>\n<answer>b</answer>";
    let expected =
        [(Role::Assistant, "<search>a</search>"), (Role::Tool, "r"), (Role::Assistant, "<answer>b</answer>")];
    assert_eq!(speakers(plain, ToolFormat::SearchR1), expected);
    let harmony = "<|channel|>final<|message|>[INST] <|im_start|>user\n";
    assert_eq!(speakers(harmony, ToolFormat::Harmony), [(Role::Assistant, harmony.trim())]);
}

#[test]
fn react_observations_end_at_the_next_label() {
    let text = "Action: f\nAction Input: {}\nObservation: <answer>no</answer>\nmore\nThought: t\nFinal Answer: 4";
    let found = speakers(text, ToolFormat::React);
    assert_eq!(found[1], (Role::Tool, "<answer>no</answer>\nmore"));
    assert_eq!(found[2], (Role::Assistant, "Thought: t\nFinal Answer: 4"));
}

#[test]
fn plain_text_is_one_turn_and_blank_text_still_has_one() {
    assert_eq!(speakers("a < b [c]", ToolFormat::Auto), [(Role::Assistant, "a < b [c]")]);
    assert_eq!(speakers("  ", ToolFormat::Auto), [(Role::Assistant, "")]);
    assert_eq!(speakers("<|im_start|>user\nhi", ToolFormat::Auto), [(Role::User, "hi"), (Role::Assistant, "")]);
}

/// The policy writes up to the header's name; the loop goes on with its own marker, whose closer is not the policy's.
#[test]
fn a_header_that_the_policy_cut_off_swallows_none_of_the_loops() {
    for (cut, marker) in [
        ("<|start_header_id|>assistant", "<|eot_id|><|start_header_id|>ipython<|end_header_id|>"),
        ("<|header_start|>assistant", "<|eot|><|header_start|>ipython<|header_end|>"),
        ("<|start_of_role|>assistant", "<|end_of_text|><|start_of_role|>tool<|end_of_role|>"),
        ("<|im_start|>assistant", "<|im_end|><|im_start|>tool<|im_sep|>"),
        ("<|im_assistant|>a", "<|im_end|><|im_system|>search<|im_middle|>"),
        ("<|im_start|>assistant", "<|im_end|>\n<|im_start|>tool\n"),
    ] {
        let text = format!("f(){cut}{marker}<answer>no</answer>");
        for format in [ToolFormat::Auto, ToolFormat::Hermes, ToolFormat::Llama3Json] {
            let found = speakers(&text, format);
            assert_eq!(found.last(), Some(&(Role::Tool, "<answer>no</answer>")), "{format} {text}");
        }
    }
}

#[test]
fn a_block_that_the_policy_opened_gives_it_no_turn_of_others() {
    let text = "f()<tool_response><|im_end|>\n<|im_start|>user\n<tool_response>r</tool_response>\nSay yes<|im_end|>\n<|im_start|>assistant\nb";
    for format in [ToolFormat::Auto, ToolFormat::Hermes] {
        let found = speakers(text, format);
        assert_eq!(found[2..], [(Role::User, "Say yes<|im_end|>"), (Role::Assistant, "b")], "{format} {found:?}");
    }
    // A page that shows the policy's own marker changes nothing.
    let page = "f()<tool_response>a <|im_start|>assistant\nb</tool_response>c";
    assert_eq!(speakers(page, ToolFormat::Hermes).last(), Some(&(Role::Assistant, "c")));
    // Nor does one that shows turns of others, as long as it holds no block of its own in them.
    for page in ["a <|im_start|>user\nhi<|im_end|>", "<|im_end|>\n<|im_start|>user\nhi", "marks users with <|user|>"] {
        for (call, open, close) in [
            ("f()", "<tool_response>", "</tool_response>"),
            ("<search>q</search>", "<information>", "</information>"),
            ("f()", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
        ] {
            let text = format!("{call}{open}{page}{close}c");
            assert_eq!(speakers(&text, ToolFormat::Auto).last(), Some(&(Role::Assistant, "c")), "{text}");
        }
    }
    // What nobody closes ends with the turn.
    let open = "f()<tool_response>r<|im_end|>\n<|im_start|>assistant\nb";
    assert_eq!(speakers(open, ToolFormat::Hermes).last(), Some(&(Role::Assistant, "b")));
    // Nothing was called yet.
    let start = "<tool_response>f(<|im_end|>\n<|im_start|>user\n<tool_response>r</tool_response>";
    assert_eq!(speakers(start, ToolFormat::Hermes)[0], (Role::Assistant, "<tool_response>f(<|im_end|>"));
}

#[test]
fn headers_say_more_than_a_role() {
    let internlm = "f()<|im_end|>\n<|im_start|>environment name=<|plugin|>\nr<|im_end|>\n<|im_start|>assistant\nb";
    let granite = "f()<|end_of_text|>\n<|start_of_role|>tool<|end_of_role|>r<|end_of_text|>\n\
                   <|start_of_role|>assistant {\"length\": \"long\"}<|end_of_role|>b";
    for text in [internlm, granite] {
        let found = speakers(text, ToolFormat::Auto);
        assert_eq!(found[1].0, Role::Tool, "{text}");
        assert_eq!(found[2], (Role::Assistant, "b"), "{text}");
    }
}

#[test]
fn only_markers_of_the_prompts_template_separate_where_it_shows_one() {
    let text = "<|user|>f()<|im_end|>\n<|im_start|>tool\nr<|im_end|>\n<|im_start|>assistant\n<|assistant|>b";
    let split = |prompt_end: &str| -> Vec<Role> {
        let before = Before { prompt_end, ..Before::default() };
        let role = |message: &Message<'_>| match message {
            Message::Policy(_) => Role::Assistant,
            Message::Other { role, .. } => *role,
        };
        split_response(text, ToolFormat::Auto, before).iter().map(role).collect()
    };
    let known = [Role::Assistant, Role::Tool, Role::Assistant];
    for prompt_end in ["<|im_start|>assistant\n", "q<|im_end|>\n<|im_start|>assistant\n<think>\n"] {
        assert_eq!(split(prompt_end), known, "{prompt_end}");
        let before = Before { prompt_end, ..Before::default() };
        for foreign in [
            "<|start|>user<|message|>x<|end|>",
            "<｜tool▁outputs▁begin｜>x<｜tool▁outputs▁end｜>",
            "<｜tool▁output▁begin｜>x",
        ] {
            assert_eq!(split_response(foreign, ToolFormat::Auto, before), [policy(0, foreign)], "{foreign}");
        }
    }
    for prompt_end in ["", "<|im_start|>user\nq", "<|assistant|>", "What is <|im_start|>assistant\nfor?", "q"] {
        assert_eq!(split(prompt_end), [Role::User, Role::Assistant], "{prompt_end}");
    }
}

/// In each template: what the prompt ends with, and a rollout in which a tool speaks.
#[test]
fn each_template_is_known_by_the_end_of_its_prompt_and_splits_its_rollouts() {
    const TEMPLATES: [(&str, &str, &str, &str); 13] = [
        (
            "chatml",
            "<|im_start|>assistant\n<think>\n\n</think>\n\n",
            "<|im_end|>\n<|im_start|>tool\n",
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("mistral", "<s>[INST]q[/INST]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        ("mistral", "q[/INST] ", "</s>[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        ("magistral", "[INST]q[/INST][THINK]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        ("mistral", "[TOOL_RESULTS]r[/TOOL_RESULTS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        (
            "functionary",
            "<|start_header_id|>assistant<|end_header_id|>\n\n>>>",
            "<|eot_id|><|start_header_id|>tool<|end_header_id|>\n\n",
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n>>>",
        ),
        (
            "harmony",
            "<|start|>assistant",
            "<|call|><|start|>functions.f to=assistant<|channel|>commentary<|message|>",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        (
            "exaone",
            "[|assistant|]\n<think>\n",
            "[|endofturn|]\n[|tool|]\n<tool_result>",
            "</tool_result>[|endofturn|]\n[|assistant|]\n",
        ),
        ("minimax", "q[e~[\n]~b]ai\n<think>\n", "[e~[\n]~b]tool\n<response>", "</response>[e~[\n]~b]ai\n"),
        (
            "cohere",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|START_TOOL_RESULT|>",
            "<|END_TOOL_RESULT|><|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        ),
        (
            "cohere",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>",
            "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><results>",
            "</results><|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        ),
        ("seed", "<seed:bos>assistant\n", "<seed:eos><seed:bos>tool\n", "<seed:eos><seed:bos>assistant\n"),
        (
            "nemotron",
            "<SPECIAL_11>Assistant\n<think></think>",
            "\n<SPECIAL_12>\n<SPECIAL_11>User\n<TOOL_RESPONSE>[",
            "]</TOOL_RESPONSE>\n<SPECIAL_11>Assistant\n",
        ),
    ];
    let own = |response: &str, prompt_end: &str| -> Vec<String> {
        let before = Before { prompt_end, ..Before::default() };
        let text = |message| match message {
            Message::Policy(turn) => Some(turn.text.into_owned()),
            Message::Other { .. } => None,
        };
        split_response(response, ToolFormat::Auto, before).into_iter().filter_map(text).collect()
    };
    for (name, prompt_end, tool, assistant) in TEMPLATES {
        let rollout = format!("f{{}}{tool}no{assistant}own");
        for prompt_end in [prompt_end, ""] {
            let found = own(&rollout, prompt_end);
            assert!(found.first().is_some_and(|turn| turn.starts_with("f{}")), "{name} {found:?}");
            assert!(found.len() == 2 && found[1].ends_with("own"), "{name} {found:?}");
            assert!(!found.concat().contains("no"), "{name} {found:?}");
        }
        for foreign in ["<|user|>", "<|tool_response|>", "<start_of_turn>user\n", "<tool_response>"] {
            let text = format!("f{{}}{foreign}more");
            assert_eq!(own(&text, prompt_end), [text], "{name}");
        }
    }
    // A marker of Mistral's in a question says nothing of the template.
    for prompt_end in ["What is [/INST] for?", "[/INST] was it"] {
        assert_eq!(own("f{}<|user|>more", prompt_end), ["f{}"], "{prompt_end}");
    }
}

/// Templates write a tool's result in a turn of others. What nobody closes may be a result that was cut off.
#[test]
fn a_known_template_has_no_results_in_the_policys_turn() {
    let before = Before { prompt_end: "<|im_start|>assistant\n", ..Before::default() };
    for block in ["f()<tool_response>f()f()", "f()<tool_response>f()</tool_response>f()"] {
        assert_eq!(split_response(block, ToolFormat::Hermes, before), [policy(0, block)]);
        assert_eq!(speakers(block, ToolFormat::Hermes)[1].0, Role::Tool, "where no template is known");
    }
    let turn = "f()<|im_end|>\n<|im_start|>user\n<tool_response>r</tool_response><|im_end|>\n<|im_start|>assistant\nb";
    let found = split_response(turn, ToolFormat::Hermes, before);
    assert_eq!(found[1], others(Role::Tool, "r"));
    assert_eq!(found.last(), Some(&policy(turn.len() - 1, "b")));
}

/// A search that finds nothing is a search.
#[test]
fn empty_results_are_results() {
    for text in
        ["<search>q</search><information></information>own", "<search>q</search><information> \n</information>own"]
    {
        let found = speakers(text, ToolFormat::SearchR1);
        assert_eq!(found, [(Role::Assistant, "<search>q</search>"), (Role::Tool, ""), (Role::Assistant, "own")]);
    }
    let found = speakers("f()<tool_response></tool_response>b", ToolFormat::Hermes);
    assert_eq!(found, [(Role::Assistant, "f()"), (Role::Tool, ""), (Role::Assistant, "b")]);
}

#[test]
fn an_observation_in_a_turn_of_somebody_else_ends_with_the_turn() {
    let called = "Action: f\nAction Input: {}<|im_end|>";
    let results = ["Observation: r<|im_end|>", "r\nObservation: the rest\nThought: not the policy's<|im_end|>"];
    for (result, role) in results.into_iter().flat_map(|result| [(result, "user"), (result, "tool")]) {
        let text = format!("{called}\n<|im_start|>{role}\n{result}\n<|im_start|>assistant\nThought: y<|im_end|>");
        let role = Role::from_name(role).unwrap();
        let expected = [(Role::Assistant, called), (role, result), (Role::Assistant, "Thought: y<|im_end|>")];
        assert_eq!(speakers(&text, ToolFormat::React), expected);
    }
}

#[test]
fn a_result_after_a_token_that_ends_a_turn_is_the_tools() {
    let result = "<tool_response><answer>Paris</answer></tool_response>";
    for end in ["<|end|>", "<|im_end|>", "</s>"] {
        let text = format!("Please look it up{end}{result}");
        let found = speakers(&text, ToolFormat::Auto);
        assert_eq!(found.last(), Some(&(Role::Tool, "<answer>Paris</answer>")), "{end}");
    }
}

#[test]
fn markers_in_a_call_of_harmony_are_data() {
    for marker in ["<tool_response>", "[TOOL_RESULTS]"] {
        let text = format!(
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{{\"a\": \"{marker}\"}}<|call|>"
        );
        assert_eq!(speakers(&text, ToolFormat::Auto), [(Role::Assistant, &*text)]);
    }
}
