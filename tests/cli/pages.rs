//! The README and the pages of `docs` promise; this holds them to that.

use super::*;
use gradus::stages::NoScoreCode;
use gradus::toolcall::answer::AnswerFrom;
use gradus::toolcall::{ErrorCode, Repair};
use gradus::trajectory::ToolFormat;

fn page(name: &str) -> String {
    std::fs::read_to_string(package(name)).unwrap()
}

fn readme() -> String {
    page("README.md")
}

/// The README's fenced blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    fenced(&readme(), language)
}

fn fenced(page: &str, language: &str) -> Vec<String> {
    let opener = format!("```{language}\n");
    page.split(&opener).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn it_opens_with_the_two_commands() {
    assert_eq!(blocks("console")[0], "$ cargo run --release\n$ cargo test\n");
}

#[test]
fn the_example_is_what_the_server_answers() {
    let gradus = Gradus::new();
    let server = serve(&gradus, &["serve", "--listen", "127.0.0.1:0"], &[]);
    let command = &blocks("console")[1];
    let case = command.split("-d @").nth(1).unwrap().trim();
    let (status, mut answer) = server.post("/reward", &std::fs::read_to_string(package(case)).unwrap()).parts();
    let mut promised: Value = serde_json::from_str(&blocks("json")[0]).unwrap();
    assert_eq!(status, 200);
    for response in [&mut answer, &mut promised] {
        let result = response["results"][0].as_object_mut().unwrap();
        assert!(result.remove("latency_ms").unwrap().is_f64());
        assert_eq!(result.remove("score_id").unwrap().as_str().unwrap().len(), "0123456789abcdef-0".len());
    }
    assert_eq!(answer.to_string(), promised.to_string(), "the order of the fields, too");
}

/// Each block of a command and what it prints, as far as it shows it.
#[test]
fn the_commands_print_what_it_shows() {
    let gradus = Gradus::new();
    gradus.file("capital_cities.toml", &blocks("toml")[0]);
    std::os::unix::fs::symlink(package("tests"), gradus.path("tests")).unwrap();
    let mut shown = 0;
    for block in blocks("console") {
        let (command, printed) = block.split_once('\n').unwrap();
        let Some(arguments) = command.strip_prefix("$ target/release/gradus ") else { continue };
        let printed: Vec<_> = printed.lines().take_while(|line| !line.starts_with("$ ") && *line != "..").collect();
        if arguments.contains("--replay") {
            continue;
        }
        let ran = gradus.run(&arguments.split(' ').collect::<Vec<_>>()).exits(0);
        let lines: Vec<_> = ran.out.lines().map(str::trim_end).take(printed.len()).collect();
        assert_eq!(lines, printed, "{command}");
        shown += 1;
    }
    assert_eq!(shown, 3);
}

#[test]
fn the_configuration_file_is_one() {
    let gradus = Gradus::new();
    let shown = fenced(&page("docs/configuration.md"), "toml").remove(0);
    let config = gradus.file("gradus.toml", shown.replace("127.0.0.1:8080", "127.0.0.1:0"));
    let server = serve(&gradus, &["--config", &config], &[]);
    assert_eq!(server.post_as("change-me", "/reward", "{\"trajectories\": []}").status, 200);
}

/// Read, not opened: the addresses are nobody's.
#[test]
fn its_judges_are_a_configuration() {
    let gradus = Gradus::new();
    let config = gradus.file("judges.toml", blocks("toml")[1].clone());
    gradus.run(&["--config", &config, "rubric", "list"]).exits(0);
    let wrong = gradus.file("wrong.toml", blocks("toml")[1].replace("flavor", "flavour"));
    gradus.run(&["--config", &wrong, "rubric", "list"]).exits(1);
}

/// The judged example, on the judge that ships for tests.
#[test]
fn its_judge_gives_what_it_shows() {
    let root = package("tests/small_judge");
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let (file, judge, rubric) = (path("example.jsonl"), path(""), path("rubric.toml"));
    let ran = Gradus::new().run(&["score", &file, "--judge", &judge, "--rubric", &rubric]).exits(0);
    let shown = readme().split("$ gradus score tests/small_judge/example.jsonl").nth(1).unwrap().to_owned();
    let shown: Vec<_> = shown.lines().skip(1).take_while(|line| !line.starts_with("```")).map(str::to_owned).collect();
    assert_eq!(ran.out.lines().take(shown.len()).collect::<Vec<_>>(), shown);
}

#[test]
fn the_closed_lists_are_complete() {
    let codes = ErrorCode::ALL.map(ErrorCode::as_str);
    let repairs = Repair::ALL.map(Repair::as_str);
    let no_scores = NoScoreCode::ALL.map(NoScoreCode::as_str);
    let formats = ToolFormat::ALL.map(ToolFormat::as_str);
    let answers = AnswerFrom::ALL.map(AnswerFrom::as_str);
    let lists = [
        ("errors.md", [&codes[..], &no_scores].concat()),
        ("toolcalls.md", [&repairs[..], &formats].concat()),
        ("rubrics.md", answers.to_vec()),
    ];
    for (name, list) in lists {
        let page = page(&format!("docs/{name}"));
        for code in list {
            assert!(page.contains(&format!("`{code}`")), "{code} is not in docs/{name}");
        }
    }
}

#[test]
fn every_option_is_in_its_table() {
    let gradus = Gradus::new();
    let help = gradus.run(&["serve", "--help"]).exits(0).out;
    let page = page("docs/configuration.md");
    let options = help.lines().filter_map(|line| line.trim().strip_prefix("--")).filter(|line| line.contains('<'));
    for option in options.map(|line| line.split(' ').next().unwrap()) {
        let variable = format!("GRADUS_{}", option.to_uppercase().replace('-', "_"));
        assert!(page.contains(&format!("| `--{option}` | `{variable}` |")), "--{option} has no row");
    }
}

/// Every page of a folder and those below it.
fn pages_under(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages_under(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = vec![package("README.md"), package("clients/python/README.md")];
    for folder in ["docs", "tests/cases", "clients/examples"] {
        pages_under(&package(folder), &mut pages);
    }
    let mut followed = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if target.starts_with("http") || target.contains([' ', '\n']) {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: {target}", page.display());
            if !heading.is_empty() {
                let there = std::fs::read_to_string(&file).unwrap();
                let mut headings = there.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == heading);
                assert!(found, "{}: {target}", page.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 60, "{followed}");
}
