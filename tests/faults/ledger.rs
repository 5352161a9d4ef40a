//! The store as a witness: it keeps what it is given, crashes on request, and holds every record against the promises.

use bytes::Bytes;
use dunlin::codec::{FrameHeader, Limits, Mask, MaskedGrid, Segment, Segments, decode, grid};
use dunlin::core::message::UpdateHeader;
use dunlin::core::{ClientId, Digest, ModelVersion, Outcome, Recipe, RoundId, RunId};
use dunlin::server::packet::Packet;
use dunlin::server::store::{MemoryStore, OpenRow, Record, ReplayRow, Restored, RunRow, Store, StoreError};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard};

/// How far a coordinate of the model moves when only its client is counted.
pub(crate) const STEP: f32 = 1.0;

/// A disk that outlives the server that writes to it.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<Contents>>);

pub(crate) struct Contents {
    store: MemoryStore,
    /// Commits until the server crashes, and whether the last of them is written.
    crash: Option<(u32, bool)>,
    pub ledger: Ledger,
}

/// All that was ever made durable, in short.
pub(crate) struct Ledger {
    recipe: Recipe,
    /// Examples of each client, by coordinate.
    examples: BTreeMap<ClientId, (usize, u32)>,
    pub term: u32,
    pub round: u64,
    open: Option<Open>,
    /// Digest of each version; the last one's integers are in `model`.
    pub versions: BTreeMap<ModelVersion, Digest>,
    model: MaskedGrid,
    /// Each update ever accepted, by client and round.
    received: BTreeMap<(ClientId, u64), Received>,
    pub accepted_total: u64,
    pub aggregated_total: u64,
    pub dropped_total: u64,
    pub published: u64,
    pub abandoned: u64,
    /// Someone stopped the run, so a round may be dropped although it has its quorum.
    pub stopped: bool,
    pub finished: Option<Outcome>,
    pub commits: u32,
    trace: DefaultHasher,
}

struct Open {
    round: u64,
    base: ModelVersion,
    members: Vec<ClientId>,
    /// The coordinates that updates are about; none where they are announced with the model, which no packet holds.
    sent: Option<Arc<Mask>>,
    accepted: BTreeMap<ClientId, UpdateHeader>,
}

struct Received {
    digest: Digest,
    aggregated: bool,
    /// What the update has at its client's coordinate; it has nothing elsewhere.
    value: f32,
}

impl Disk {
    pub(crate) fn new(packet_ring: u32, ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(Contents { store: MemoryStore::new(packet_ring), crash: None, ledger })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap()
    }

    /// Lets the server crash at a commit from now on.
    pub(crate) fn crash_after(&self, commits: u32, written: bool) {
        self.lock().crash = Some((commits, written));
    }
}

impl Store for Disk {
    fn runs(&mut self) -> Result<Vec<RunRow>, StoreError> {
        self.lock().store.runs()
    }

    fn create(&mut self, run: &RunRow) -> Result<(), StoreError> {
        self.lock().store.create(run)
    }

    fn restore(&mut self, run: RunId) -> Result<Restored, StoreError> {
        self.lock().store.restore(run)
    }

    fn commit(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let mut contents = self.lock();
        let crash = contents.crash.as_mut().and_then(|(commits, written)| match commits {
            0 => Some(*written),
            _ => {
                *commits -= 1;
                None
            }
        });
        if crash != Some(false) {
            contents.store.commit(records)?;
            contents.ledger.commits += 1;
            for record in records {
                contents.ledger.note(record);
            }
            if records.iter().any(|record| matches!(record, Record::Published { .. } | Record::Abandoned { .. })) {
                contents.assert_kept_is_bounded();
            }
        }
        if crash.is_none() {
            return Ok(());
        }
        contents.crash = None;
        Err(StoreError::Directory { place: "here".into(), reason: CRASH.into() })
    }
}

impl Ledger {
    pub(crate) fn new(segments: Segments, recipe: Recipe, examples: BTreeMap<ClientId, (usize, u32)>) -> Self {
        let zeros = vec![0; segments.len()];
        let model = MaskedGrid::whole(Arc::new(segments), zeros).unwrap();
        Self {
            recipe,
            examples,
            term: 0,
            round: 0,
            open: None,
            versions: BTreeMap::from([(ModelVersion(0), Digest(model.digest()))]),
            model,
            received: BTreeMap::new(),
            accepted_total: 0,
            aggregated_total: 0,
            dropped_total: 0,
            published: 0,
            abandoned: 0,
            stopped: false,
            finished: None,
            commits: 0,
            trace: DefaultHasher::new(),
        }
    }

    pub(crate) fn version(&self) -> ModelVersion {
        *self.versions.last_key_value().unwrap().0
    }

    /// Updates of the open round that are durable.
    pub(crate) fn accepted_now(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.accepted.len())
    }

    /// Whether an update was made durable, and if so, whether it was aggregated.
    pub(crate) fn fate(&self, header: &UpdateHeader) -> Option<bool> {
        let received = self.received.get(&(header.client.clone(), header.round.number))?;
        (received.digest == header.digest).then_some(received.aggregated)
    }

    /// Whether any update of a client was accepted in a round.
    pub(crate) fn has_accepted(&self, client: &ClientId, round: u64) -> bool {
        self.received.contains_key(&(client.clone(), round))
    }

    /// What an update that was made durable has at its client's coordinate.
    pub(crate) fn value(&self, header: &UpdateHeader) -> f32 {
        self.received[&(header.client.clone(), header.round.number)].value
    }

    /// Whether an update of this client may count in the open round.
    pub(crate) fn may_count(&self, client: &ClientId) -> bool {
        let may = |open: &Open| open.members.contains(client) && !open.accepted.contains_key(client);
        self.open.as_ref().is_some_and(may)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Every update that was ever accepted was either aggregated, dropped with its round, or waits for its round's end.
    pub(crate) fn assert_every_update_is_accounted_for(&self) {
        let waiting = self.accepted_now() as u64;
        assert_eq!(self.accepted_total, self.aggregated_total + self.dropped_total + waiting);
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    fn note(&mut self, record: &Record) {
        let mut told = record.clone();
        if let Record::Published { summary, .. } | Record::Abandoned { summary } | Record::Summary(summary) = &mut told
        {
            // Real time is not part of what is to be repeated.
            summary.seconds = 0.0;
        }
        format!("{told:?}").hash(&mut self.trace);
        match record {
            Record::Started { term } => {
                assert_eq!(*term, self.term + 1, "terms grow by one");
                self.term = *term;
            }
            Record::RoundOpened { round, base, members, .. } => self.opened(*round, *base, members),
            Record::UpdateAccepted { header, frame } => {
                assert_eq!(Digest::of(frame), header.digest);
                self.accepted(header, frame);
            }
            Record::Published { version, digest, packet, summary } => {
                assert_eq!(*version, self.version().next(), "versions grow by one");
                let open = self.open.take().expect("only an open round publishes");
                assert_eq!((summary.round, summary.version), (open.round, version.0));
                assert!(open.accepted.len() >= self.quorum(), "published with {} updates", open.accepted.len());
                assert_eq!(summary.clients as usize, open.accepted.len(), "all accepted updates are in the summary");
                let mut model = self.model.clone();
                for frame in Packet::parse(packet.clone()).unwrap().frames() {
                    model.apply(frame).unwrap();
                }
                // That of an announced version is also about its coordinates, and clients hold it against both.
                if !self.recipe.common.is_announced() {
                    assert_eq!(Digest(model.digest()), *digest, "the packet leads to the version");
                }
                self.assert_each_accepted_update_counts_once(&open, model.values());
                self.model = model;
                self.versions.insert(*version, *digest);
                for client in open.accepted.into_keys() {
                    self.received.get_mut(&(client, open.round)).expect("it was accepted").aggregated = true;
                }
                self.aggregated_total += u64::from(summary.clients);
                self.published += 1;
            }
            Record::Abandoned { summary } => {
                let open = self.open.take().expect("only an open round is abandoned");
                assert_eq!(summary.round, open.round);
                let has_quorum = open.accepted.len() >= self.quorum();
                assert!(!has_quorum || summary.cut_short, "a round with its quorum was abandoned");
                assert!(self.stopped || !summary.cut_short, "a round was cut short although nobody stopped the run");
                self.dropped_total += open.accepted.len() as u64;
                self.abandoned += u64::from(!summary.cut_short);
            }
            Record::Checkpoint { version, .. } => assert_eq!(*version, self.version()),
            Record::Finished(outcome) => {
                assert_eq!(self.finished, None, "a run ends once");
                assert!(self.open.is_none(), "a round is open at the end");
                self.finished = Some(*outcome);
            }
            Record::Joined { .. } | Record::Summary(_) => {}
        }
        self.assert_every_update_is_accounted_for();
    }

    fn opened(&mut self, round: u64, base: ModelVersion, members: &[ClientId]) {
        assert_eq!(self.finished, None, "no round after the end");
        assert!(self.open.is_none(), "one round at a time");
        assert_eq!(round, self.round + 1, "rounds grow by one");
        assert_eq!(base, self.version(), "a round starts from the newest durable version");
        assert!(members.is_sorted_by(|a, b| a < b), "a member is chosen once: {members:?}");
        self.round = round;
        let sent = (!self.recipe.common.is_announced()).then(|| self.recipe.sent_mask(round, &self.model));
        self.open = Some(Open { round, base, members: members.to_vec(), sent, accepted: BTreeMap::new() });
    }

    fn quorum(&self) -> usize {
        self.recipe.quorum() as usize
    }

    fn accepted(&mut self, header: &UpdateHeader, frame: &[u8]) {
        let open = self.open.as_mut().expect("updates are accepted in an open round only");
        assert_eq!(header.round.number, open.round, "an update counts in its own round");
        assert!(open.members.contains(&header.client), "only members of the cohort count: {}", header.client);
        assert_eq!(header.base, open.base, "only updates on the round's base count");
        let (coordinate, examples) = self.examples.get(&header.client).expect("the hostile client never counts");
        assert_eq!(header.examples, *examples);
        let before = open.accepted.insert(header.client.clone(), header.clone());
        assert_eq!(before, None, "an update counts at most once");
        let len = FrameHeader::parse(frame).expect("what is accepted can be read").coordinates as usize;
        let segments = Segments::new(vec![Segment { len, row: len }]).unwrap();
        let mut values = vec![0.0; len];
        decode(frame, &segments, &Limits::for_segments(&segments), &mut values).expect("what is accepted can be read");
        let value: f32 = values.iter().sum();
        let steps = (value / STEP).round();
        let is_some = steps >= 1.0 && (value - steps * STEP).abs() < TOLERANCE;
        let is_right = match &open.sent {
            Some(sent) => sent.scatter(&values)[*coordinate] == value && sent.contains(*coordinate) == is_some,
            None => true,
        };
        let others = values.iter().filter(|&&other| other != 0.0 && other != value).count();
        assert!(is_right && (is_some || value == 0.0) && others == 0, "{header:?}: {values:?}");
        let received = Received { digest: header.digest, aggregated: false, value };
        self.received.insert((header.client.clone(), open.round), received);
        self.accepted_total += 1;
    }

    /// The oracle: the mean of steps along unit vectors, weighted by examples, has eᵢ's share at i and nothing elsewhere.
    fn assert_each_accepted_update_counts_once(&self, open: &Open, model: &[i32]) {
        let weight: u32 = open.accepted.values().map(|header| header.examples).sum();
        let mut expected = vec![0.0; model.len()];
        for header in open.accepted.values() {
            let (coordinate, examples) = self.examples[&header.client];
            expected[coordinate] = self.value(header) * examples as f32 / weight as f32;
        }
        let moved = |(now, before): (&i32, &i32)| (now - before) as f32 * grid::UNIT;
        let moved: Vec<f32> = model.iter().zip(self.model.values()).map(moved).collect();
        let close = moved.iter().zip(&expected).all(|(moved, expected)| (moved - expected).abs() < TOLERANCE);
        assert!(close, "round {} moved the model by {moved:?}, its updates by {expected:?}", open.round);
    }
}

impl Contents {
    /// What is kept for a restart is bounded, whatever the clients do.
    fn assert_kept_is_bounded(&mut self) {
        let Some(run) = self.store.runs().unwrap().pop() else { return };
        let restored = self.store.restore(run.id).unwrap();
        let recipe = &self.ledger.recipe;
        let dense = 4 * self.ledger.model.mask().whole().len() as u64;
        assert_kept_is_bounded(&restored, dense, recipe.cohort_size(), recipe.limits.packet_ring);
    }
}

/// Updates that a restart adds up again are as long as a few dense models, those of the open round are one a member, and
/// beyond the packets that lead through those rounds there is only the ring.
fn assert_kept_is_bounded(restored: &Restored, dense_bytes: u64, asked: u32, packet_ring: u32) {
    let replayed = restored.replay.iter().flat_map(|row| &row.updates);
    let bytes: u64 = replayed.map(|(_, frame)| frame.len() as u64).sum();
    assert!(bytes < CHECKPOINT_MODELS * dense_bytes, "{bytes} bytes of updates are kept after their rounds");
    let open = restored.open.iter().flat_map(|open| &open.updates).count();
    assert!(open <= asked as usize, "{open} updates of a round are kept");
    let (packets, since) = (restored.packets.len(), restored.replay.len());
    assert!(packets <= packet_ring as usize + since, "{packets} packets are kept, {since} since the checkpoint");
}

#[test]
fn more_than_is_allowed_is_found() {
    let update = |len: usize| {
        let header = UpdateHeader {
            client: ClientId::numbered("client", 0),
            round: RoundId { term: 1, number: 1 },
            base: ModelVersion(0),
            examples: 1,
            loss: 0.0,
            frame_len: len as u64,
            digest: Digest([0; 32]),
        };
        (header, vec![0; len].into())
    };
    let replay = |frames: &[usize]| {
        let updates = frames.iter().map(|&len| update(len)).collect();
        vec![ReplayRow { round: 1, version: ModelVersion(1), digest: Digest([0; 32]), updates }]
    };
    let open = |updates: usize| {
        let updates = vec![update(1); updates];
        Some(OpenRow { round: 2, base: ModelVersion(1), eligible: 9, members: Vec::new(), updates })
    };
    let packets = |count: u64| (1..=count).map(|version| (ModelVersion(version), Bytes::new())).collect();
    let allowed = Restored { replay: replay(&[40, 39]), open: open(2), packets: packets(4), ..Restored::default() };
    let is_found =
        |restored: Restored| std::panic::catch_unwind(|| assert_kept_is_bounded(&restored, 10, 2, 3)).is_err();
    assert!(!is_found(allowed.clone()));
    assert!(is_found(Restored { replay: replay(&[40, 40]), ..allowed.clone() }));
    assert!(is_found(Restored { open: open(3), ..allowed.clone() }));
    assert!(is_found(Restored { packets: packets(5), ..allowed }));
}

/// Dense models whose bytes updates may have before the state is written anew: the engine's own bound.
const CHECKPOINT_MODELS: u64 = 8;

/// f32 arithmetic on coordinates below 64 errs by 2⁻¹⁸ at most; an update that counts twice moves them by far more.
pub(crate) const TOLERANCE: f32 = 1e-5;

/// What a crash looks like to the engine.
pub(crate) const CRASH: &str = "the machine lost power";
