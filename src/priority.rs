//! Threads that leave the processor to the workers: where there are as many workers as cores, what is not urgent must not
//! take a worker's turn.

use rustix::process::setpriority_process;

/// How much such a thread yields: at five, a worker that is never out of work gets three times as much of a core that both
/// want, and one that wakes up has it at once. More would make a reload under full load wait for long.
pub const NICE: i32 = 5;

/// Lowers the priority of this thread alone: on Linux each has its own.
pub fn give_way() {
    if let Err(error) = setpriority_process(None, NICE) {
        tracing::debug!(%error, "the priority of a thread could not be lowered");
    }
}
