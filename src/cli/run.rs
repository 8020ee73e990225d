//! `passerelle run`.

use std::path::Path;

use super::{Exit, print_error};

pub(super) fn run(_config: &Path) -> Exit {
    print_error("passerelle: `run` is not part of this build yet\n");
    Exit::Failed
}
