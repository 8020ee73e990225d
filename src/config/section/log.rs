//! `[log]`

use super::super::node::Node;
use super::super::reader::Table;
use super::super::settings::{LogFormat, LogLevel, LogOutput, LogSettings};
use super::super::value;
use super::super::value::choice::{self, choice};

pub(super) fn read(table: Option<Table<'_>>) -> LogSettings {
    let mut settings =
        LogSettings { level: LogLevel::Info, format: None, output: LogOutput::Stdout, access: true, subject: false };
    if let Some(table) = table {
        settings.level = table.or("level", settings.level, level);
        settings.format = table.get("format", format);
        settings.output = table.or("output", LogOutput::Stdout, output);
        settings.access = table.or("access", settings.access, Node::boolean);
        settings.subject = table.or("subject", settings.subject, Node::boolean);
        table.finish();
    }
    settings
}

fn level(node: &Node<'_>) -> Option<LogLevel> {
    let levels =
        [("error", LogLevel::Error), ("warn", LogLevel::Warn), ("info", LogLevel::Info), ("debug", LogLevel::Debug)];
    choice(node, &levels)
}

fn format(node: &Node<'_>) -> Option<LogFormat> {
    choice(node, &[("json", LogFormat::Json), ("text", LogFormat::Text)])
}

fn output(node: &Node<'_>) -> Option<LogOutput> {
    match node.text("\"stdout\", \"stderr\" or a path")?.text.as_str() {
        "stdout" => Some(LogOutput::Stdout),
        "stderr" => Some(LogOutput::Stderr),
        path => {
            choice::warn_of_slip(node, path, &["stdout", "stderr"]);
            value::path(node).map(LogOutput::File)
        }
    }
}
