//! The contract on both stores, and one against the other.

use super::contract::{accepted, client, contract, joined, opened, published, run_row, summary};
use super::{MemoryStore, Record, SqliteStore, Store};
use bytes::Bytes;
use dunlin_core::{ModelVersion, Outcome};
use proptest::prelude::*;
use std::path::Path;
use tokio::runtime::Runtime;

#[test]
fn memory_keeps_the_contract() {
    contract(|packet_ring| Box::new(MemoryStore::new(packet_ring)));
}

#[test]
fn sqlite_keeps_the_contract() {
    let runtime = Runtime::new().unwrap();
    let mut dirs = Vec::new();
    contract(|packet_ring| {
        dirs.push(tempfile::tempdir().unwrap());
        Box::new(open(dirs.last().unwrap().path(), &runtime).with_packet_ring(packet_ring))
    });
}

#[test]
fn a_clone_of_the_memory_store_is_what_a_crash_leaves() {
    let mut store = MemoryStore::new(4);
    store.create(&run_row(1, 1)).unwrap();
    store.commit(&[joined("a", 1)]).unwrap();
    let mut crashed = store.clone();
    store.commit(&[joined("b", 2)]).unwrap();
    let clients: Vec<_> =
        crashed.restore(run_row(1, 1).id).unwrap().clients.into_iter().map(|row| row.client).collect();
    assert_eq!(clients, [client("a")]);
}

/// What may happen between two restores.
#[derive(Clone, Debug)]
enum Op {
    Commit(Vec<Record>),
    Reopen,
}

fn records() -> impl Strategy<Value = Record> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    let (round, size) = (1..5u64, prop_oneof![0..20usize, Just(100_000)]);
    prop_oneof![
        (1..9u32).prop_map(|term| Record::Started { term }),
        (name.clone(), any::<u8>()).prop_map(|(name, token)| joined(name, token)),
        (round.clone(), name.clone()).prop_map(|(round, name)| opened(round, round - 1, &[name, "d"])),
        (round.clone(), name, any::<u8>(), size).prop_map(|(round, name, byte, size)| accepted(
            round,
            name,
            &vec![byte; size]
        )),
        (round.clone(), 1..5u64).prop_map(|(round, version)| published(round, version)),
        round.clone().prop_map(|round| Record::Abandoned { summary: summary(round, false) }),
        round.prop_map(|round| Record::Summary(summary(round, true))),
        (0..5u64, any::<u8>()).prop_map(|(version, byte)| Record::Checkpoint {
            version: ModelVersion(version),
            state: Bytes::from(vec![byte; 70_000])
        }),
        Just(Record::Finished(Outcome::Stopped)),
    ]
}

proptest! {
    // A case in a file would hold its frames in full: name it and paste it as a contract test instead.
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_records_restore_alike_from_disk_and_from_memory(
        ops in prop::collection::vec(
            prop_oneof![4 => prop::collection::vec(records(), 1..5).prop_map(Op::Commit), 1 => Just(Op::Reopen)],
            1..20,
        ),
    ) {
        let runtime = Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let run = run_row(1, 1);
        let (mut disk, mut memory) = (open(dir.path(), &runtime).with_packet_ring(2), MemoryStore::new(2));
        disk.create(&run).unwrap();
        memory.create(&run).unwrap();
        for op in ops {
            match op {
                Op::Commit(records) => {
                    disk.commit(&records).unwrap();
                    memory.commit(&records).unwrap();
                }
                Op::Reopen => {
                    drop(disk);
                    disk = open(dir.path(), &runtime).with_packet_ring(2);
                }
            }
            prop_assert_eq!(disk.restore(run.id).unwrap(), memory.restore(run.id).unwrap());
        }
        prop_assert_eq!(disk.runs().unwrap(), memory.runs().unwrap());
    }
}

fn open(dir: &Path, runtime: &Runtime) -> SqliteStore {
    SqliteStore::open(dir, runtime.handle().clone()).unwrap()
}
