//! Threads that walk the same network, each with a part of a batch, and may split a layer among themselves.

use crate::threads::wait_awake;
use candle_core::{Result, Tensor};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Those who have the parts of one batch.
pub(crate) struct Team {
    /// Rows of each one's part.
    rows: Vec<usize>,
    state: Mutex<State>,
    changed: Condvar,
    /// How often all have given something: also in `state`'s lock, but to be watched without it.
    exchanges: AtomicU64,
}

#[derive(Default)]
struct State {
    given: Vec<Option<Tensor>>,
    count: usize,
    /// What was given last, by all.
    last: Arc<[Tensor]>,
    /// Whether one of them will give nothing any more.
    is_broken: bool,
}

/// One of a team. It leaves the team when this is dropped, and nobody waits for it any longer.
pub(crate) struct Seat(Member);

/// What an operation knows of the one on whose thread it runs.
#[derive(Clone)]
pub(crate) struct Member {
    team: Arc<Team>,
    number: usize,
}

impl Team {
    /// One seat for each part, of so many rows.
    pub(crate) fn seats(rows: Vec<usize>) -> Vec<Seat> {
        let state = State { given: vec![None; rows.len()], ..State::default() };
        let team = Self { rows, state: Mutex::new(state), changed: Condvar::new(), exchanges: AtomicU64::new(0) };
        let team = Arc::new(team);
        (0..team.rows.len()).map(|number| Seat(Member { team: Arc::clone(&team), number })).collect()
    }
}

impl Seat {
    pub(crate) fn member(&self) -> &Member {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let team = &*self.0.team;
        team.state.lock().unwrap_or_else(PoisonError::into_inner).is_broken = true;
        team.changed.notify_all();
    }
}

impl Member {
    /// Its place among the parts.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Rows of each part.
    pub(super) fn rows(&self) -> &[usize] {
        &self.team.rows
    }

    /// Its rows of the batch.
    pub(super) fn own_rows(&self) -> std::ops::Range<usize> {
        let first = self.rows()[..self.number].iter().sum();
        first..first + self.rows()[self.number]
    }

    /// Its share of some outputs or inputs, in whole runs of `unit` of them.
    pub(super) fn share(&self, extent: usize, unit: usize) -> std::ops::Range<usize> {
        let units = extent.div_ceil(unit);
        let bound = |number: usize| (units * number / self.rows().len() * unit).min(extent);
        bound(self.number)..bound(self.number + 1)
    }

    /// Gives `own` to all, and returns what all have given, in their order. All have to call it equally often.
    ///
    /// # Errors
    /// When one of them has failed, and will not come.
    pub(super) fn exchange(&self, own: Tensor) -> Result<Arc<[Tensor]>> {
        let team = &*self.team;
        let mut state = team.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = team.exchanges.load(Ordering::Relaxed);
        let happened = || team.exchanges.load(Ordering::Acquire) != before;
        state.given[self.number] = Some(own);
        state.count += 1;
        if state.count == state.given.len() {
            state.count = 0;
            state.last = state.given.iter_mut().filter_map(Option::take).collect();
            team.exchanges.store(before + 1, Ordering::Release);
            team.changed.notify_all();
            return Ok(Arc::clone(&state.last));
        }
        drop(state);
        // The others are at the same place of the same network: going to sleep would take longer than they do.
        wait_awake(happened);
        let mut state = team.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !happened() {
            if state.is_broken {
                candle_core::bail!("another part of the batch has failed");
            }
            state = team.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Arc::clone(&state.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::PATIENCE;
    use candle_core::Device;

    fn number(value: usize) -> Tensor {
        Tensor::new(value as u32, &Device::Cpu).unwrap()
    }

    #[test]
    fn everybody_gets_what_all_gave_in_order() {
        let seats = Team::seats(vec![3, 3, 2]);
        std::thread::scope(|scope| {
            for seat in &seats {
                scope.spawn(move || {
                    for time in 0..100 {
                        if (time + seat.member().number()) % 40 == 7 {
                            std::thread::sleep(2 * PATIENCE);
                        }
                        let all = seat.member().exchange(number(10 * time + seat.member().number())).unwrap();
                        let values: Vec<u32> = all.iter().map(|value| value.to_scalar().unwrap()).collect();
                        assert_eq!(values, [0, 1, 2].map(|number| (10 * time) as u32 + number));
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_waits_for_one_that_failed() {
        let mut seats = Team::seats(vec![1, 1, 1]);
        let failed = seats.pop();
        std::thread::scope(|scope| {
            let waiting = [0, 1].map(|number| {
                let seat = &seats[number];
                scope.spawn(move || seat.member().exchange(super::tests::number(number)))
            });
            std::thread::sleep(2 * PATIENCE);
            drop(failed);
            for waiting in waiting {
                assert!(waiting.join().unwrap().unwrap_err().to_string().contains("has failed"));
            }
        });
    }

    #[test]
    fn one_that_leaves_after_the_last_exchange_breaks_nothing() {
        for _ in 0..200 {
            let seats = Team::seats(vec![1, 1]);
            std::thread::scope(|scope| {
                for seat in seats {
                    scope.spawn(move || assert_eq!(seat.member().exchange(number(1)).unwrap().len(), 2));
                }
            });
        }
    }

    #[test]
    fn shares_are_whole_runs_and_all_of_it() {
        let seats = Team::seats(vec![4, 4, 3]);
        let shares: Vec<_> = seats.iter().map(|seat| seat.member().share(100, 32)).collect();
        assert_eq!(shares, [0..32, 32..64, 64..100]);
        let rows: Vec<_> = seats.iter().map(|seat| seat.member().own_rows()).collect();
        assert_eq!(rows, [0..4, 4..8, 8..11]);
    }
}
