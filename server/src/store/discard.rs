//! A store for runs that nobody resumes: it keeps nothing.

use super::{Record, Restored, RunRow, Store, StoreError};
use dunlin_core::RunId;

/// Forgets every record, so that a long simulation costs no memory for it. There is nothing to restore.
#[derive(Clone, Debug, Default)]
pub struct DiscardStore {
    current: Option<RunId>,
}

impl Store for DiscardStore {
    fn runs(&mut self) -> Result<Vec<RunRow>, StoreError> {
        Ok(Vec::new())
    }

    fn create(&mut self, run: &RunRow) -> Result<(), StoreError> {
        if self.current == Some(run.id) {
            return Err(StoreError::RunExists(run.id));
        }
        self.current = Some(run.id);
        Ok(())
    }

    fn restore(&mut self, run: RunId) -> Result<Restored, StoreError> {
        Err(StoreError::UnknownRun(run))
    }

    fn commit(&mut self, _: &[Record]) -> Result<(), StoreError> {
        self.current.map(drop).ok_or(StoreError::NoRun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_core::{Digest, Outcome};

    /// What applies of the contract: records need a run, a run is created once, and nothing comes back.
    #[test]
    fn records_need_a_run_and_are_forgotten() {
        let mut store = DiscardStore::default();
        let records = [Record::Finished(Outcome::Completed)];
        assert!(matches!(store.commit(&records), Err(StoreError::NoRun)));
        let run = RunRow {
            id: RunId([1; 8]),
            name: "a".into(),
            recipe: String::new(),
            recipe_digest: Digest([0; 32]),
            created_ms: 1,
            outcome: None,
            rounds: 0,
        };
        store.create(&run).unwrap();
        assert!(matches!(store.create(&run), Err(StoreError::RunExists(id)) if id == run.id));
        store.commit(&records).unwrap();
        assert_eq!(store.runs().unwrap(), []);
        assert!(matches!(store.restore(run.id), Err(StoreError::UnknownRun(id)) if id == run.id));
    }
}
