//! What is said over the control socket: one JSON object a line, each answered by one line.
//!
//! A request names the version of these words that it speaks; without, that is the first. Commands are added as
//! variants, so an older gateway refuses what it does not know and says so.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::app::report::AppReport;

/// The only version so far.
pub const VERSION: u32 = 1;

/// One line to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default = "first_version")]
    pub version: u32,
    pub command: Command,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Load the configuration again.
    Reload,
    /// Make a release of an app: of what is in `directory`, or in the app's own. Answered by lines of progress before the
    /// last.
    Release {
        app: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        directory: Option<PathBuf>,
    },
    /// Go back to the release before; likewise.
    Rollback { app: String },
    /// Tell what apps there are and how they are.
    Apps,
}

/// One line from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Answer {
    /// This generation of the configuration is in force.
    Ok {
        generation: u64,
    },
    /// The new configuration is wrong; what served before serves on.
    Failed {
        problems: String,
    },
    /// The request was not understood or cannot be met.
    Refused {
        reason: String,
    },
    /// What is just being done; the answer is still to come.
    Progress {
        line: String,
    },
    /// It is done.
    Done {
        said: String,
    },
    /// It was not done, and everything is as before.
    Undone {
        why: String,
    },
    Apps {
        apps: Vec<AppReport>,
    },
}

fn first_version() -> u32 {
    1
}

impl Request {
    pub fn new(command: Command) -> Request {
        Request { version: VERSION, command }
    }

    /// # Errors
    /// What to answer to a line that is no request.
    pub fn parse(line: &[u8]) -> Result<Request, Answer> {
        match serde_json::from_slice::<Request>(line) {
            Ok(request) if request.version == VERSION => Ok(request),
            Ok(request) => {
                let reason = format!("this gateway speaks version {VERSION}, not {}", request.version);
                Err(Answer::Refused { reason })
            }
            Err(error) => Err(Answer::Refused { reason: format!("this is no request: {error}") }),
        }
    }
}

/// A message as its line.
pub fn line(message: &impl Serialize) -> Vec<u8> {
    // Messages are structs of strings and numbers, which always serialise.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_stable() {
        assert_eq!(Request::parse(br#"{"command":"reload"}"#), Ok(Request::new(Command::Reload)));
        assert_eq!(line(&Request::new(Command::Reload)), b"{\"version\":1,\"command\":\"reload\"}\n");
        assert_eq!(line(&Answer::Ok { generation: 3 }), b"{\"result\":\"ok\",\"generation\":3}\n");
        let failed = Answer::Failed { problems: "line\nline".to_owned() };
        assert_eq!(line(&failed), b"{\"result\":\"failed\",\"problems\":\"line\\nline\"}\n");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for wrong in [
            &br#"{"command":"explode"}"#[..],
            br#"{"version":2,"command":"reload"}"#,
            br#"{"command":"reload","force":true}"#,
            b"reload",
            b"",
            b"\xff",
        ] {
            assert!(matches!(Request::parse(wrong), Err(Answer::Refused { .. })), "{wrong:?}");
        }
    }
}
