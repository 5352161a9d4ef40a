//! The server's side: what arrives, what is settled, and what is left after a crash.

use super::{Parcel, Request, World};
use crate::ledger::{CRASH, Disk};
use bytes::Bytes;
use dunlin::client::participant::Event;
use dunlin::core::message::{Assignment, Receipt, Session, TrainTask, UpdateHeader};
use dunlin::core::wire::{self, Held, Uploaded};
use dunlin::core::{Layout, Recipe, Reject, RunId, Timestamp};
use dunlin::server::coordinator::{Offer, PhaseName};
use dunlin::server::engine::{self, Engine, EngineError, Start};
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

    pub(super) fn restart_server(&mut self) {
        for parcel in std::mem::take(&mut self.unsettled) {
            if let Parcel::Reply { peer, call, .. } = parcel {
                self.peers[peer].lose(call);
            }
        }
        for (peer, call) in std::mem::take(&mut self.storing) {
            self.peers[peer].lose(call);
        }
        // The new process counts its time from zero.
        self.started = self.now;
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
                Event::Offset(held.map(|receipt| receipt.map_or(Held::Offset(0), Held::Receipt)))
            }
            Request::Upload(session, header, frame) => match self.receive(&session, &header, frame) {
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

    /// The way of an upload through the server: header, frame, offer. No receipt yet means that it is being stored.
    pub(crate) fn receive(
        &mut self,
        session: &Session,
        header: &UpdateHeader,
        frame: Bytes,
    ) -> Result<Option<Receipt>, Reject> {
        let now = self.clock();
        // As it is read at the boundary: what a peer cannot say is refused there.
        let (session, header) = &wire::read_update_header(Some(wire::update_header(session, header)))?;
        if let Some(receipt) = self.engine.coordinator.announce(now, session, header)? {
            return Ok(Some(receipt));
        }
        self.engine.count_upload(frame.len() as u64);
        let verdict = self.engine.rules().vet(header, &frame);
        let vetted =
            verdict.inspect_err(|&reject| self.engine.coordinator.refused(now, session, Some(header.round), reject))?;
        match self.engine.offer(now, session, header, (frame, vetted))? {
            Offer::Store => Ok(None),
            Offer::Accepted(receipt) => Ok(Some(receipt)),
        }
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
