//! The server's side: what arrives, what is settled, and what is left after a crash.

use super::{Assured, Parcel, Request, World};
use crate::ledger::{CRASH, Disk};
use dunlin::client::participant::Event;
use dunlin::core::message::{Assignment, Receipt, Session, TrainTask, UpdateHeader};
use dunlin::core::wire::{self, Held, Uploaded};
use dunlin::core::{ClientId, Layout, Recipe, Reject, RunId, Timestamp};
use dunlin::server::coordinator::{Advance, Member, Offer, PhaseName};
use dunlin::server::engine::{self, Engine, EngineError, Start};
use dunlin::server::service::Uploads;
use dunlin::server::store::StoreError;

impl World {
    /// Makes durable what was decided, and only then sends the answers; or crashes.
    pub(super) fn settle(&mut self) {
        let now = self.clock();
        let settled = match self.engine.settle(&|| now) {
            Ok(settled) => settled,
            Err(EngineError::Store(StoreError::Directory { reason, .. })) if reason == CRASH => {
                return self.restart_server();
            }
            Err(error) => panic!("the engine failed: {error}"),
        };
        for (client, receipt) in settled.receipts {
            let Some(peer) = self.peers.iter().position(|peer| peer.id == client) else { continue };
            let event = Event::Uploaded(Ok(Uploaded::Receipt(receipt)));
            let (stored, others) = std::mem::take(&mut self.storing).into_iter().partition(|&(of, _)| of == peer);
            self.storing = others;
            for (peer, call) in stored {
                self.unsettled.push(Parcel::Reply { peer, call, event: event.clone(), plan: None });
            }
        }
        self.flight.append(&mut self.unsettled);
        let version = self.engine.broadcast().version();
        let digest = self.engine.broadcast().digest();
        assert_eq!(self.ledger().versions.get(&version), Some(&digest), "{version} is handed out before it is durable");
        self.assert_nothing_shrinks();
    }

    pub(crate) fn restart_server(&mut self) {
        for parcel in std::mem::take(&mut self.unsettled) {
            if let Parcel::Reply { peer, call, .. } = parcel {
                self.peers[peer].lose(call);
            }
        }
        for (peer, call) in std::mem::take(&mut self.storing) {
            self.peers[peer].lose(call);
        }
        // The new process counts its time from zero, and knows of no upload that has not arrived whole.
        self.started = self.now;
        self.uploads = Uploads::new(self.engine.rules().max_frame_bytes());
        self.assured.clear();
        self.engine = open(&self.recipe, &self.layout, &self.disk);
        let status = self.engine.coordinator.status(Timestamp(0));
        {
            let ledger = self.ledger();
            assert_eq!(status.version, ledger.version(), "a restart goes on from the version that it had");
            // Without an open round it may open the next one at once.
            let next = ledger.round + u64::from(!ledger.is_open());
            assert!((ledger.round..=next).contains(&status.round), "a restart goes on where it was");
            if ledger.is_open() && status.phase == PhaseName::Training {
                assert_eq!(status.reported as usize, ledger.accepted_now(), "what was accepted still is");
            }
        }
        self.settle();
    }

    pub(super) fn serve(&mut self, peer: usize, call: u64, request: Request) {
        let now = self.clock();
        let coordinator = &mut self.engine.coordinator;
        let mut plan = None;
        let event = match request {
            Request::Join(join) => {
                let joined = coordinator.join(now, &join.client, join.token);
                Event::Joined(joined.map(|()| self.engine.welcome()))
            }
            Request::CheckIn(check_in) => {
                let answer = coordinator.check_in(now, &check_in);
                if let Ok(Assignment::Train(TrainTask { base, .. })) = &answer {
                    assert!(*base <= self.ledger().version(), "work starts from a durable version");
                }
                Event::Assigned(answer)
            }
            Request::Fetch(fetch) => Event::Fetched(match coordinator.authenticate(now, &fetch.session) {
                Err(reject) => Err(reject),
                Ok(()) if self.engine.broadcast().version() != fetch.wanted => Err(Reject::UnknownVersion),
                Ok(()) => {
                    plan = Some(self.engine.broadcast().catch_up(fetch.held));
                    Ok(fetch.wanted)
                }
            }),
            Request::AskOffset(session, header) => {
                let held = coordinator.announce(now, &session, &header);
                if held.is_err() {
                    self.assured.retain(|assured| assured.client != header.client);
                }
                let here = self.uploads.held(&header);
                Event::Offset(held.map(|receipt| receipt.map_or(Held::Offset(here), Held::Receipt)))
            }
            Request::Progress(session, round) => {
                match coordinator.progress(now, &session, round, Advance::Bytes) {
                    Ok(()) => {
                        self.advanced += 1;
                        self.assure(session.client, round.number);
                    }
                    Err(_) => self.unsettled.push(Parcel::Stop { peer, round }),
                }
                return;
            }
            Request::Upload(session, header, offset, rest) => match self.receive(&session, &header, offset, &rest) {
                Ok(None) => {
                    self.storing.push((peer, call));
                    return;
                }
                Ok(Some(receipt)) => Event::Uploaded(Ok(Uploaded::Receipt(receipt))),
                Err(reject) => Event::Uploaded(Err(reject)),
            },
            Request::Report(session, report) => Event::Reported(coordinator.evaluated(now, &session, &report)),
        };
        self.unsettled.push(Parcel::Reply { peer, call, event, plan });
    }

    /// The way of an upload through the server: header, frame from an offset on, offer. No receipt yet means that it is
    /// being stored.
    pub(crate) fn receive(
        &mut self,
        session: &Session,
        header: &UpdateHeader,
        offset: u64,
        rest: &[u8],
    ) -> Result<Option<Receipt>, Reject> {
        let answer = self.take_in(session, header, offset, rest);
        if answer.is_err() {
            // Its part in the round may be over for what it sent, and not for its silence.
            self.assured.retain(|assured| assured.client != header.client);
        }
        answer
    }

    fn take_in(
        &mut self,
        session: &Session,
        header: &UpdateHeader,
        offset: u64,
        rest: &[u8],
    ) -> Result<Option<Receipt>, Reject> {
        let now = self.clock();
        // As it is read at the boundary: what a peer cannot say is refused there.
        let (session, header) = &wire::read_update_header(Some(wire::update_header(session, header)))?;
        if let Some(receipt) = self.engine.coordinator.announce(now, session, header)? {
            return Ok(Some(receipt));
        }
        let resumed = self.uploads.resume(header, offset);
        let mut partial = resumed.ok_or_else(|| self.refuse(session, header, Reject::WrongOffset))?;
        self.engine.count_upload(rest.len() as u64);
        partial.extend(rest);
        if (partial.len() as u64) < header.frame_len {
            self.uploads.keep(header, partial);
            return Err(self.refuse(session, header, Reject::Truncated));
        }
        let frame = partial.freeze();
        let verdict = self.engine.rules().vet(header, &frame);
        let vetted = verdict.map_err(|reject| self.refuse(session, header, reject))?;
        let offer = self.engine.offer(now, session, header, (frame, vetted))?;
        self.resumed += u64::from(offset > 0);
        match offer {
            Offer::Store => Ok(None),
            Offer::Accepted(receipt) => Ok(Some(receipt)),
        }
    }

    fn refuse(&mut self, session: &Session, header: &UpdateHeader, reject: Reject) -> Reject {
        let now = self.clock();
        self.engine.coordinator.refused(now, session, Some(header.round), reject);
        reject
    }

    /// An upload of which only a part arrives before the link breaks: the rest may follow.
    pub(super) fn receive_part(&mut self, session: &Session, header: &UpdateHeader, offset: u64, part: &[u8]) {
        let now = self.clock();
        let Ok(None) = self.engine.coordinator.announce(now, session, header) else { return };
        if let Some(mut partial) = self.uploads.resume(header, offset) {
            self.engine.count_upload(part.len() as u64);
            partial.extend(part);
            self.uploads.keep(header, partial);
        }
    }

    /// A client whose progress was taken note of is not dropped for its silence before the idle timeout, or the round's
    /// deadline.
    fn assure(&mut self, client: ClientId, round: u64) {
        let rounds = &self.recipe.rounds;
        let [idle_ms, deadline_ms] =
            [rounds.idle_timeout_s, rounds.deadline_s].map(|seconds| (seconds * 1000.0) as u64);
        let until = (self.now + idle_ms).min(self.opened.1.max(self.started) + deadline_ms);
        self.assured.retain(|assured| assured.client != client);
        self.assured.push(Assured { client, round, until });
    }

    /// Holds the server to what [`Self::assure`] says.
    pub(super) fn assert_whoever_advances_is_waited_for(&mut self) {
        let now = self.now;
        self.assured.retain(|assured| assured.until > now);
        let mut assured = std::mem::take(&mut self.assured);
        assured.retain(|assured| !self.declined.contains(&(assured.client.clone(), assured.round)));
        assured.retain(|Assured { client, round, .. }| {
            let member = self.engine.coordinator.member(client);
            assert_ne!(member, Some(&Member::Lost), "{client} was dropped in round {round}, in which it advanced");
            let summary = self.engine.summaries().iter().rev().find(|summary| summary.round == *round);
            if let Some(summary) = summary {
                let has_come = self.ledger().has_accepted(client, *round);
                let is_full = summary.clients >= summary.needed || summary.cut_short;
                assert!(has_come || is_full, "round {round} ended without {client}, which advanced");
            }
            summary.is_none()
        });
        self.assured = assured;
    }
}

pub(super) fn open(recipe: &Recipe, layout: &Layout, disk: &Disk) -> Engine {
    let start = Start {
        recipe: recipe.clone(),
        layout: layout.clone(),
        initial: vec![0.0; layout.len()],
        store: Box::new(disk.clone()),
        evaluator: None,
        distiller: None,
        simulated: true,
        anew: false,
        id: RunId([1; 8]),
        created_ms: 0,
    };
    engine::open(start, Timestamp(0)).unwrap()
}
