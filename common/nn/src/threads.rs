//! The threads that one training may use.

use crate::Error;

/// A bounded number of threads, of which the one that calls is the first.
///
/// A training splits each batch among them and adds their gradients up in order, so the same number of threads gives
/// the same bits; another number sums in another order. An evaluation gives the same bits with any number.
#[derive(Debug, Default)]
pub struct Threads {
    /// All but the first; nothing when there is only that one.
    others: Option<rayon::ThreadPool>,
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
                Some(pool)
            }
        };
        Ok(Self { others })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.others.as_ref().map_or(0, rayon::ThreadPool::current_num_threads)
    }

    /// The results of `work` on each part, in their order; the last part is done by the calling thread.
    pub(crate) fn map<P: Send, R: Send>(&self, parts: Vec<P>, work: impl Fn(P) -> R + Sync) -> Vec<R> {
        let Some(others) = self.others.as_ref().filter(|_| parts.len() > 1) else {
            return parts.into_iter().map(work).collect();
        };
        let mut results: Vec<Option<R>> = parts.iter().map(|_| None).collect();
        others.in_place_scope(|scope| {
            let work = &work;
            let mut pending: Vec<_> = parts.into_iter().zip(&mut results).collect();
            let own = pending.pop();
            for (part, result) in pending {
                scope.spawn(move |_| *result = Some(work(part)));
            }
            if let Some((part, result)) = own {
                *result = Some(work(part));
            }
        });
        results.into_iter().map(|result| result.expect("a scope ends when all its parts are done")).collect()
    }
}

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
