//! Ctrl-C: the first asks for an end, the second does not ask.

use super::Failure;
use dunlin::core::Exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that the first Ctrl-C sets; `said` is told to the user then. The second ends the process.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn flag(said: &'static str) -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let set = Arc::clone(&flag);
    std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        runtime.block_on(async {
            // Where there is no handler, the default action ends the process.
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            set.store(true, Ordering::Relaxed);
            super::output::note(said);
            if tokio::signal::ctrl_c().await.is_ok() {
                super::output::note("stopped: nothing of the run is kept");
                std::process::exit(Exit::Interrupted as i32);
            }
        });
    })?;
    Ok(flag)
}
