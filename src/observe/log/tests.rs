//! Events through the layer into a file.

use std::os::unix::fs::PermissionsExt;

use tracing::subscriber::with_default;

use super::*;

fn settings(path: &Path, format: LogFormat) -> LogSettings {
    LogSettings {
        level: LogLevel::Info,
        format: Some(format),
        output: LogOutput::File(path.to_owned()),
        access: true,
        subject: false,
    }
}

/// What is written of the events of `events` with these settings.
fn logged(change: impl FnOnce(&mut LogSettings), events: impl FnOnce()) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut settings = settings(&path, LogFormat::Json);
    change(&mut settings);
    let live = Arc::new(Live::default());
    let sink = Sink::open(&settings.output).unwrap();
    live.set(&settings, &sink);
    let (queue, writer) = writer::start(sink, Metrics::new(1)).unwrap();
    let subscriber = tracing_subscriber::registry().with(LogLayer::new(live, queue.clone()));
    with_default(subscriber, events);
    writer.stop(&queue);
    std::fs::read_to_string(&path).unwrap()
}

#[test]
fn json_has_types() {
    let error = io::Error::other("disk \"full\"");
    let line = logged(
        |_| {},
        || tracing::warn!(count = 3_u64, below = -1_i64, ok = true, share = 0.25, %error, "something\nhappened"),
    );
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line.matches('\n').count(), 1);
    assert_eq!(value["level"], "warn");
    assert_eq!(value["target"], "passerelle::observe::log::tests");
    assert_eq!(value["message"], "something\nhappened");
    assert_eq!((&value["count"], &value["below"]), (&3.into(), &(-1).into()));
    assert_eq!((&value["ok"], &value["share"]), (&true.into(), &0.25.into()));
    assert_eq!(value["error"], "disk \"full\"");
}

#[test]
fn text_is_one_line_an_event() {
    let line = logged(
        |settings| settings.format = Some(LogFormat::Text),
        || {
            tracing::info!(
                path = "/a b",
                host = "x\" status=200\n",
                empty = "",
                id = 7_u64,
                took = 4.7e-5,
                "it\u{1b}[31m\nran"
            )
        },
    );
    let said = line.split_once(' ').unwrap().1;
    let expected = "info  passerelle::observe::log::tests: it\\u001b[31m\\nran path=\"/a b\" \
                    host=\"x\\\" status=200\\n\" empty=\"\" id=7 took=0.000047\n";
    assert_eq!(said, expected);
}

#[test]
fn levels_apply_to_us_and_libraries_are_quiet() {
    let lines = logged(
        |settings| settings.level = LogLevel::Debug,
        || {
            tracing::debug!("ours");
            tracing::trace!("too fine");
            tracing::info!(target: "h2::codec", "frame");
            tracing::warn!(target: "hyper::proto", "odd");
        },
    );
    assert!(lines.contains("ours") && lines.contains("odd"));
    assert!(!lines.contains("too fine") && !lines.contains("frame"));
}

#[test]
fn access_records_follow_their_own_key() {
    let access = || tracing::info!(target: "access", "record");
    assert!(logged(|settings| settings.level = LogLevel::Error, access).contains("record"));
    assert_eq!(logged(|settings| settings.access = false, access), "");
}

#[test]
fn a_value_may_log_while_it_is_logged() {
    struct Loud;
    impl fmt::Display for Loud {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            tracing::info!("within");
            f.write_str("loud")
        }
    }
    // The dispatcher does not hear events within events; what matters is that nothing is torn.
    let lines = logged(|_| {}, || tracing::info!(value = %Loud, "outer"));
    for line in lines.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert!(lines.contains("loud"));
}

#[test]
fn a_new_file_is_not_for_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let _ = Sink::open(&LogOutput::File(path.clone())).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
}

#[test]
fn a_missing_directory_is_named() {
    let error = Sink::open(&LogOutput::File(PathBuf::from("/nonexistent/dir/log"))).unwrap_err();
    let expected = "the log file /nonexistent/dir/log cannot be created: its directory does not exist";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_format_follows_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(&directory.path().join("log"), LogFormat::Text);
    settings.format = None;
    let mut sink = Sink::open(&settings.output).unwrap();
    let live = Live::default();
    live.set(&settings, &sink);
    assert_eq!(live.format(), LogFormat::Json);
    sink.terminal = true;
    live.set(&settings, &sink);
    assert_eq!(live.format(), LogFormat::Text);
}
