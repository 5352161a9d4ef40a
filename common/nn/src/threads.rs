//! The threads that one training may use.

use crate::Error;
use std::cell::OnceCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bounded number of threads, of which the one that calls is the first.
///
/// A training splits each batch among them and adds their gradients up in order, so the same number of threads gives
/// the same bits; another number sums in another order. An evaluation gives the same bits with any number.
#[derive(Debug, Default)]
pub struct Threads {
    /// All but the first; nothing when there is only that one.
    others: Option<Others>,
}

#[derive(Debug)]
struct Others {
    pool: rayon::ThreadPool,
    /// How often they were called.
    calls: Arc<AtomicUsize>,
    /// Held by the call whose parts they do: parts may wait for each other, so all of one call's have to run at once.
    turn: Mutex<()>,
}

impl Threads {
    /// The calling thread alone.
    #[must_use]
    pub const fn one() -> Self {
        Self { others: None }
    }

    /// So many threads; they sleep while nothing is asked of them.
    ///
    /// # Errors
    /// When the system refuses a thread, or `count` is 0.
    pub fn new(count: usize) -> Result<Self, Error> {
        let others = match count {
            0 => return Err(Error::config("--threads", count, "at least one thread has to do the work")),
            1 => None,
            _ => {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(count - 1)
                    .thread_name(|index| format!("training-{}", index + 1))
                    .build()
                    .map_err(|error| Error::config("--threads", count, error.to_string()))?;
                Some(Others { pool, calls: Arc::default(), turn: Mutex::default() })
            }
        };
        Ok(Self { others })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.others.as_ref().map_or(0, |others| others.pool.current_num_threads())
    }

    /// The results of `work` on each part, in their order; the last part is done by the calling thread. Calls from several
    /// threads are done one after the other.
    pub(crate) fn map<P: Send, R: Send>(&self, parts: Vec<P>, work: impl Fn(P) -> R + Sync) -> Vec<R> {
        let Some(Others { pool, calls, turn }) = self.others.as_ref().filter(|_| parts.len() > 1) else {
            return parts.into_iter().map(work).collect();
        };
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut results: Vec<Option<R>> = parts.iter().map(|_| None).collect();
        let at_work = AtomicUsize::new(parts.len() - 1);
        // Ends the waiting of the others since the call before.
        let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
        pool.in_place_scope(|scope| {
            let (work, at_work) = (&work, &at_work);
            let mut pending: Vec<_> = parts.into_iter().zip(&mut results).collect();
            let own = pending.pop();
            for (part, result) in pending {
                scope.spawn(move |_| {
                    *result = Some(work(part));
                    at_work.fetch_sub(1, Ordering::Relaxed);
                });
            }
            if let Some((part, result)) = own {
                *result = Some(work(part));
            }
            wait_awake(|| at_work.load(Ordering::Relaxed) == 0);
        });
        for _ in 0..pool.current_num_threads() {
            let calls = Arc::clone(calls);
            pool.spawn(move || wait_awake(|| calls.load(Ordering::Relaxed) != call));
        }
        results.into_iter().map(|result| result.expect("a scope ends when all its parts are done")).collect()
    }
}

/// Does some work with one thread, also where it asks rayon for more: the calling one waits for it.
///
/// # Errors
/// When the system refuses a thread.
pub(crate) fn alone<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, Error> {
    thread_local! {
        static ONE: OnceCell<rayon::ThreadPool> = const { OnceCell::new() };
    }
    ONE.with(|one| {
        if one.get().is_none() {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "model".into()).build();
            // Nobody else can have set it meanwhile.
            let _ = one.set(pool.map_err(|error| Error::config("--threads", 1, error.to_string()))?);
        }
        Ok(one.get().expect("it was set just now").install(work))
    })
}

/// Waits for something that other threads are about to do without going to sleep, out of which a thread may take longer
/// than they do; not for long, as others may have use for the processor.
pub(crate) fn wait_awake(is_done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_done() && begin.elapsed() < PATIENCE {
        std::hint::spin_loop();
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_micros(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_parts_whatever_the_number_of_threads() {
        for count in 1..=4 {
            let threads = Threads::new(count).unwrap();
            assert_eq!(threads.count(), count);
            for parts in 0..6 {
                let squares: Vec<usize> = (0..parts).map(|i| i * i).collect();
                assert_eq!(threads.map((0..parts).collect(), |i: usize| i * i), squares);
            }
        }
        assert!(matches!(Threads::new(0), Err(Error::Config { key: "--threads", .. })));
    }

    #[test]
    fn parts_that_wait_for_each_other_may_share_threads_with_those_of_another_call() {
        let (threads, at_work) = (Threads::new(3).unwrap(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let barrier = std::sync::Barrier::new(3);
                        threads.map(vec![(); 3], |()| {
                            let others = at_work.fetch_add(1, Ordering::SeqCst);
                            barrier.wait();
                            at_work.fetch_sub(1, Ordering::SeqCst);
                            assert!(others < 3, "parts of two calls at once could wait for each other for ever");
                        });
                    }
                });
            }
        });
    }

    #[test]
    fn work_is_done_by_the_caller_and_by_others() {
        let threads = Threads::new(3).unwrap();
        let here = std::thread::current().id();
        // All three wait for each other, so none can do the work of two.
        let barrier = std::sync::Barrier::new(3);
        let ids = threads.map(vec![(); 3], |()| {
            barrier.wait();
            std::thread::current().id()
        });
        assert_eq!(ids[2], here);
        assert!(ids[0] != here && ids[1] != here && ids[0] != ids[1]);
    }
}
