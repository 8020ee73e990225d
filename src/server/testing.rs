//! What tests of this module need again and again.

use std::sync::Arc;

use crate::config::source::{SourceFile, Span};

/// A place in a file.
pub(crate) fn span() -> Span {
    Span::whole_file(&Arc::new(SourceFile::new("test.toml", "")))
}
