//! Arguments in, exit code out.

/// A request allocates a few dozen small pieces and one of some kilobytes for its future; this allocator hands
/// both out without a search, which glibc does not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::process::ExitCode;

fn main() -> ExitCode {
    passerelle::cli::main()
}
