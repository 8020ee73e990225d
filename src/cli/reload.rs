//! `passerelle reload`.

use std::path::Path;

use super::{Exit, print_error};

pub(super) fn reload(_config: &Path) -> Exit {
    print_error("passerelle: `reload` is not part of this build yet\n");
    Exit::Failed
}
