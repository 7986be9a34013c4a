//! That every setting is heard, and what wins.

use super::*;

/// Every setting that a file and an option have, in one order.
fn said(flags: ServeFlags, file: &str) -> Vec<String> {
    let file: File = toml::from_str(file).unwrap();
    let Serve { listen, scoring, store, http } = Serve::compose(flags, &file).unwrap();
    let (limits, tokens) = (http.limits, http.tokens);
    let (filter, format) = file.log(None, None);
    let numbers = [
        u64::from(listen.port()),
        scoring.threads as u64,
        scoring.schema_cache_bytes,
        scoring.judges.cache_bytes,
        store.queue_bytes as u64,
        store.busy_timeout_ms,
        limits.max_body_bytes as u64,
        limits.max_in_flight_bytes as u64,
        limits.max_deadline_ms,
        limits.drain_ms,
    ];
    let texts = [
        format!("{:?}", scoring.rubrics),
        scoring.default_rubric,
        store.url,
        store.durability.to_string(),
        format!("{:?} {:?}", tokens.api, tokens.admin),
        format!("{filter} {format:?}"),
    ];
    let switches = [scoring.inline_rubrics, store.keep_trajectories];
    let numbers = numbers.iter().map(ToString::to_string);
    numbers.chain(texts).chain(switches.iter().map(ToString::to_string)).collect()
}

const FILE: &str = r#"
    listen = "127.0.0.1:1"
    threads = 2
    schema_cache_bytes = 3
    judge_cache_bytes = 4
    rubrics = "file"
    default_rubric = "of_file"
    inline_rubrics = false
    log = "error"
    log_format = "json"
    [store]
    url = "sqlite:file.db"
    durability = "relaxed"
    keep_trajectories = false
    queue_bytes = 5
    busy_timeout_ms = 6
    [limits]
    max_body_bytes = 7
    max_in_flight_bytes = 8
    max_deadline_ms = 9
    drain_ms = 10
    [tokens]
    api = "file"
    admin = "files"
"#;

fn flags() -> ServeFlags {
    ServeFlags {
        listen: address("127.0.0.1:11").ok(),
        scoring: ScoringFlags {
            rubrics: Some("flag".into()),
            default_rubric: Some("of_flag".to_owned()),
            threads: Some(12),
            schema_cache_bytes: Some(13),
            judge: None,
            judge_cache_bytes: Some(14),
        },
        store: StoreFlags { store: Some("sqlite:flag.db".to_owned()) },
        store_durability: Some("off".to_owned()),
        store_keep_trajectories: Some(true),
        store_queue_bytes: Some(15),
        store_busy_timeout_ms: Some(16),
        inline_rubrics: Some(true),
        max_body_bytes: Some(17),
        max_in_flight_bytes: Some(18),
        max_deadline_ms: Some(19),
        drain_ms: Some(20),
        api_token: Some("flag".to_owned()),
        admin_token: Some("flags".to_owned()),
    }
}

#[test]
fn every_key_of_the_file_is_heard_and_every_option_wins_over_it() {
    let of_file = [
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
        "10",
        "Some(\"file\")",
        "of_file",
        "sqlite:file.db",
        "relaxed",
        "Some(\"file\") Some(\"files\")",
        "error Json",
        "false",
        "false",
    ];
    assert_eq!(said(ServeFlags::default(), FILE), of_file);
    let of_flags = [
        "11",
        "12",
        "13",
        "14",
        "15",
        "16",
        "17",
        "18",
        "19",
        "20",
        "Some(\"flag\")",
        "of_flag",
        "sqlite:flag.db",
        "off",
        "Some(\"flag\") Some(\"flags\")",
        "error Json",
        "true",
        "true",
    ];
    assert_eq!(said(flags(), FILE), of_flags);
    let file: File = toml::from_str(FILE).unwrap();
    let told = file.log(Some("warn".to_owned()), Some(LogFormat::Text));
    assert_eq!(told, ("warn".to_owned(), LogFormat::Text));
}

#[test]
fn the_help_says_the_defaults_of_the_modules() {
    use clap::Args as _;
    let command = ServeFlags::augment_args(clap::Command::new("serve"));
    let Serve { listen, scoring, store, http } = Serve::compose(ServeFlags::default(), &File::default()).unwrap();
    let limits = http.limits;
    for (option, default) in [
        ("listen", listen.to_string()),
        ("default-rubric", scoring.default_rubric),
        ("schema-cache-bytes", scoring.schema_cache_bytes.to_string()),
        ("judge-cache-bytes", scoring.judges.cache_bytes.to_string()),
        ("inline-rubrics", scoring.inline_rubrics.to_string()),
        ("store", store.url),
        ("store-durability", store.durability.to_string()),
        ("store-keep-trajectories", store.keep_trajectories.to_string()),
        ("store-queue-bytes", store.queue_bytes.to_string()),
        ("store-busy-timeout-ms", store.busy_timeout_ms.to_string()),
        ("max-body-bytes", limits.max_body_bytes.to_string()),
        ("max-in-flight-bytes", limits.max_in_flight_bytes.to_string()),
        ("max-deadline-ms", limits.max_deadline_ms.to_string()),
        ("drain-ms", limits.drain_ms.to_string()),
    ] {
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(option)).unwrap();
        let help = arg.get_help().unwrap().to_string();
        assert!(help.contains(&format!("[default: {default}]")), "--{option}: {help}");
    }
    assert_eq!(judge::Config::default().cache_bytes, 64 << 20, "what a rubric asks twice is asked once");
}
