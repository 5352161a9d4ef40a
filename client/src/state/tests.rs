//! The contract of every client state, and what a directory adds to it.

use super::*;
use dunlin_codec::{Mask, MaskedGrid, Segment, Segments, StageBytes};
use dunlin_core::{ClientId, Digest, RoundId};
use half::bf16;
use std::sync::Arc;

fn update(round: u64, value: f32) -> Update {
    let frame = vec![round as u8; 10];
    let header = UpdateHeader {
        client: ClientId::new("a").unwrap(),
        round: RoundId { term: 1, number: round },
        base: ModelVersion(round - 1),
        examples: 5,
        loss: 0.5,
        frame_len: 10,
        digest: Digest::of(&frame),
    };
    // Of three parameters two are left.
    let mask = Mask::new(whole(), |index| index != 1).unwrap();
    let residual = Some(Residual { round, mask: Arc::new(mask), values: [value, -value].map(bf16::from_f32).to_vec() });
    Update { header, frame, residual, stages: StageBytes::default() }
}

fn whole() -> Arc<Segments> {
    Arc::new(Segments::new(vec![Segment { len: 3, row: 3 }]).unwrap())
}

fn residual(state: &mut dyn ClientState) -> Option<Residual> {
    state.residual(&whole()).unwrap().map(Arc::unwrap_or_clone)
}

const RUN: RunId = RunId([1; 8]);

fn contract(state: &mut dyn ClientState) {
    let token = state.token().unwrap();
    assert_eq!(state.token().unwrap(), token);
    state.bind(RUN).unwrap();
    assert_eq!((state.held(), residual(state), state.pending()), (None, None, None));
    assert!(matches!(state.commit(), Err(StateError::NothingPending)));
    assert!(matches!(state.pending_frame(), Err(StateError::NothingPending)));

    state.keep(update(1, 0.5)).unwrap();
    assert_eq!(state.pending(), Some(&update(1, 0.5).header));
    assert_eq!(state.pending_frame().unwrap(), update(1, 0.5).frame);
    assert_eq!(residual(state), None, "a pending update's residual does not count yet");
    state.commit().unwrap();
    assert_eq!((residual(state), state.pending()), (update(1, 0.5).residual, None));

    state.keep(update(2, 0.25)).unwrap();
    state.abandon().unwrap();
    assert_eq!((residual(state), state.pending()), (update(1, 0.5).residual, None));

    assert_eq!(state.spent(), 0, "nobody asked for an account");
    assert!(matches!(state.spend(), Err(StateError::NothingPending)));
    for (round, spent) in [(2, 10), (3, 20)] {
        state.keep(update(round, 0.25)).unwrap();
        state.spend().unwrap();
        state.spend().unwrap();
        assert_eq!(state.spent(), spent, "each update once");
        state.abandon().unwrap();
    }

    state.set_held(Some(ModelVersion(3))).unwrap();
    assert_eq!(state.held(), Some(ModelVersion(3)));
    state.bind(RUN).unwrap();
    assert_eq!(state.held(), Some(ModelVersion(3)), "turning to the same run forgets nothing");
    state.keep(update(3, 1.0)).unwrap();
    state.bind(RunId([2; 8])).unwrap();
    assert_eq!((state.held(), residual(state), state.pending(), state.spent()), (None, None, None, 0));
    assert_eq!(state.token().unwrap(), token, "the name's secret outlives the run");
}

#[test]
fn memory_keeps_the_contract() {
    contract(&mut MemoryState::default());
}

#[test]
fn a_directory_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract(&mut DirectoryState::open(&dir.path().join("synced")).unwrap());
    contract(&mut DirectoryState::scratch(&dir.path().join("scratch")).unwrap());
}

#[test]
fn a_directory_outlives_the_process_at_every_point_of_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let open = || DirectoryState::open(dir.path()).unwrap();
    let token = {
        let mut state = open();
        state.bind(RUN).unwrap();
        state.keep(update(1, 0.5)).unwrap();
        state.token().unwrap()
    };
    {
        let mut state = open();
        assert_eq!(state.token().unwrap(), token);
        assert_eq!(state.pending_frame().unwrap(), update(1, 0.5).frame);
    }
    // The crash came after the residual's rename and before the update was removed.
    std::fs::rename(dir.path().join("pending-residual"), dir.path().join("residual")).unwrap();
    {
        let mut state = open();
        assert!(state.pending().is_some());
        state.spend().unwrap();
    }
    {
        // And the next before it was committed: the account has it already.
        let mut state = open();
        state.spend().unwrap();
        state.commit().unwrap();
    }
    let mut state = open();
    assert_eq!(state.spent(), 10);
    assert_eq!((residual(&mut state), state.pending()), (update(1, 0.5).residual, None));
}

#[test]
fn a_directory_serves_one_process_and_a_damaged_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = DirectoryState::open(dir.path()).unwrap();
    assert!(matches!(DirectoryState::open(dir.path()), Err(StateError::InUse { .. })));
    state.keep(update(1, 0.5)).unwrap();
    drop(state);
    let path = dir.path().join("pending");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(DirectoryState::open(dir.path()), Err(StateError::Damaged { path: damaged }) if damaged == path));
}

#[test]
fn a_model_version_is_kept_while_somebody_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [None, Some(dir.path().to_path_buf())] {
        let cache = ModelCache::new(dir.clone());
        cache.bind(RUN, &whole()).unwrap();
        let model = |n: i32| match n % 2 {
            0 => MaskedGrid::whole(whole(), vec![n, n + 1, n + 2]),
            _ => MaskedGrid::new(Arc::new(Mask::new(whole(), |index| index != 1).unwrap()), vec![n, n + 1]),
        };
        let announcing = |n: i32| {
            let mut model = model(n).unwrap();
            let announced = model.mask().part(&[1]).unwrap();
            model.announce((n > 1).then(|| Arc::new(announced))).unwrap();
            model
        };
        let models: Vec<_> = (0..6).map(|n| Arc::new(announcing(n))).collect();
        let hold = |old: Option<u64>, new: usize| {
            let digest = Digest(models[new].digest());
            cache.hold(old.map(ModelVersion), ModelVersion(new as u64), digest, &models[new]).unwrap();
        };
        hold(None, 0);
        hold(None, 0);
        hold(Some(0), 1);
        hold(Some(1), 2);
        hold(Some(2), 3);
        assert_eq!(cache.get(ModelVersion(0)), Some(models[0].clone()), "a client still holds it");
        assert_eq!(cache.get(ModelVersion(1)), None, "nobody holds it");
        if dir.is_some() {
            let again = ModelCache::new(dir);
            again.bind(RUN, &whole()).unwrap();
            assert!(again.reclaim(ModelVersion(3)));
            assert_eq!(again.get(ModelVersion(3)), Some(models[3].clone()));
            assert!(!again.reclaim(ModelVersion(2)));
        }
    }
}
