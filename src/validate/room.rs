//! A stack that is large enough for reading and compiling whatever is within its bounds.
//!
//! Schemas nest a hundred deep and follow one another by reference while they are compiled: more than the stack of a
//! thread that does other things holds.

/// Bytes; what is not used of it takes no memory.
const STACK: usize = 64 * 1024 * 1024;

/// Runs it on a thread of its own, and waits.
///
/// # Errors
/// There is no result; why, as the end of a sentence.
pub(super) fn with_room<T: Send>(run: impl FnOnce() -> T + Send) -> Result<T, &'static str> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("compile".to_owned()).stack_size(STACK).spawn_scoped(scope, run);
        let thread = thread.map_err(|_| "there is no thread to compile it on")?;
        thread.join().map_err(|_| "it could not be read: this is a defect of the gateway")
    })
}
