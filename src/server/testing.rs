//! What tests of this module need again and again.

use std::sync::Arc;

use crate::config::source::{SourceFile, Span};

/// A place in a file.
pub(crate) fn span() -> Span {
    Span { file: Arc::new(SourceFile { name: "test.toml".into(), text: String::new() }), start: 0, end: 0 }
}
