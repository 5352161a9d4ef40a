//! Which of the clients of one process compute, and which wait.

use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets so many clients compute at a time, and one more be made ready meanwhile: what it needs is in memory when another
/// is done, so no processor waits for it.
#[derive(Debug)]
pub struct Compute {
    ready: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// The right to be made ready and then to compute.
pub(super) struct Ready {
    _permit: OwnedSemaphorePermit,
    turns: Arc<Semaphore>,
}

impl Compute {
    /// For so many threads, at least one.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        Self { ready: Arc::new(Semaphore::new(threads + 1)), turns: Arc::new(Semaphore::new(threads)) }
    }

    /// Waits until little is computed before the caller.
    pub(super) async fn ready(&self) -> Ready {
        let permit = Arc::clone(&self.ready).acquire_owned().await.expect("it is never closed");
        Ready { _permit: permit, turns: Arc::clone(&self.turns) }
    }
}

impl Ready {
    /// Computes when it is the caller's turn.
    pub(super) async fn compute<T: Send + 'static>(self, task: impl FnOnce() -> T + Send + 'static) -> T {
        blocking(move || {
            let _turn = Handle::current().block_on(self.turns.acquire()).expect("it is never closed");
            task()
        })
        .await
    }
}

/// Runs what takes long beside the connections.
pub(super) async fn blocking<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(task).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test]
    async fn no_more_compute_at_a_time_than_there_are_threads_and_one_more_is_ready() {
        let compute = Arc::new(Compute::new(2));
        let (running, ready) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..20).map(|_| {
            let (compute, running, ready) = (compute.clone(), running.clone(), ready.clone());
            tokio::spawn(async move {
                let admitted = compute.ready().await;
                assert!(ready.fetch_add(1, Ordering::SeqCst) < 3);
                admitted
                    .compute(move || {
                        assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
                        std::thread::sleep(Duration::from_millis(2));
                        running.fetch_sub(1, Ordering::SeqCst);
                        ready.fetch_sub(1, Ordering::SeqCst);
                    })
                    .await;
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    }
}
