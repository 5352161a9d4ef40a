//! What becomes of updates, and of what is refused.

use super::{Coordinator, Effect, Member, Offer, Phase};
use crate::store::Record;
use bytes::Bytes;
use dunlin_core::message::{Receipt, Session, UpdateHeader};
use dunlin_core::{ClientId, Reject, RoundId, Timestamp};

impl Coordinator {
    /// Decides from its header whether an update is worth receiving.
    ///
    /// # Errors
    /// The reason why not.
    pub fn announce(
        &mut self,
        now: Timestamp,
        session: &Session,
        header: &UpdateHeader,
    ) -> Result<Option<Receipt>, Reject> {
        self.authenticate(now, session)?;
        match self.judge(header) {
            Ok(Some(receipt)) => {
                self.count_reject(Reject::Duplicate, Some(&session.client));
                Ok(Some(receipt))
            }
            Ok(None) => {
                if let Phase::Training(round) = &mut self.phase {
                    round.uploading(now, &session.client);
                }
                Ok(None)
            }
            Err(reject) => Err(self.fail(now, &session.client, header.round, reject)),
        }
    }

    /// Takes an update whose frame was received whole and verified.
    ///
    /// # Errors
    /// The reason why it does not count.
    pub fn offer(
        &mut self,
        now: Timestamp,
        session: &Session,
        header: &UpdateHeader,
        frame: Bytes,
    ) -> Result<Offer, Reject> {
        if let Some(receipt) = self.announce(now, session, header)? {
            return Ok(Offer::Accepted(receipt));
        }
        let Phase::Training(round) = &mut self.phase else {
            return Err(self.refuse(Reject::Late, Some(&session.client)));
        };
        round.storing(header.clone());
        self.effects.push_back(Effect::Record(Record::UpdateAccepted { header: header.clone(), frame }));
        Ok(Offer::Store)
    }

    /// Counts an update that has become durable, and closes its round when it was the last one needed.
    ///
    /// Every offer answered with [`Offer::Store`] is followed by this call before the round can close.
    pub fn stored(&mut self, now: Timestamp, header: &UpdateHeader) -> Receipt {
        if let Some(client) = self.clients.get_mut(&header.client) {
            client.last_accepted = Some((header.round.number, header.digest));
        }
        if let Phase::Training(round) = &mut self.phase {
            round.count(&header.client);
        }
        self.close_if_complete(now);
        Receipt { round: header.round, digest: header.digest, duplicate: false }
    }

    /// Takes note of a message that was refused before it reached this value, such as a frame that does not decode.
    ///
    /// When its sender is who it says, and it was an update for the round that is open, the sender's part in that may be
    /// over.
    pub fn refused(&mut self, now: Timestamp, session: &Session, round: Option<RoundId>, reject: Reject) {
        match (self.authenticate(now, session), round) {
            (Ok(()), Some(round)) => {
                self.fail(now, &session.client, round, reject);
            }
            (Ok(()), None) => {
                self.refuse(reject, Some(&session.client));
            }
            // Already counted as what it is; a stranger cannot spend another's place.
            (Err(_stranger), _) => {}
        }
    }

    /// Takes note of a refused message that names no session, such as one from an unknown protocol version.
    pub fn refused_anonymous(&mut self, reject: Reject) {
        self.count_reject(reject, None);
    }

    fn judge(&self, header: &UpdateHeader) -> Result<Option<Receipt>, Reject> {
        let client = &self.clients[&header.client];
        let receipt = Receipt { round: header.round, digest: header.digest, duplicate: true };
        if client.last_accepted == Some((header.round.number, header.digest)) {
            return Ok(Some(receipt));
        }
        if header.round.number > self.round || header.round.term > self.term {
            return Err(Reject::FutureRound);
        }
        let round = match &self.phase {
            Phase::Finished(_) => return Err(Reject::RunFinished),
            Phase::Training(round) if round.number == header.round.number => round,
            _ => return Err(Reject::Late),
        };
        match round.members.get(&header.client) {
            None => return Err(Reject::NotInCohort),
            // Being stored: the same bytes will get their receipt when they ask again.
            Some(Member::Storing(_) | Member::Counted(_)) => return Err(Reject::Duplicate),
            Some(Member::Asked { .. } | Member::Lost | Member::Failed(_) | Member::Declined) => {}
        }
        if header.base != round.base {
            return Err(Reject::WrongBase);
        }
        if header.frame_len > self.config.max_frame_bytes || round.max_bytes > 0 && header.frame_len > round.max_bytes {
            return Err(Reject::FrameTooLarge);
        }
        if header.examples > self.config.max_examples || header.examples > client.examples {
            return Err(Reject::TooManyExamples);
        }
        Ok(None)
    }

    pub(super) fn fail(&mut self, now: Timestamp, client: &ClientId, round: RoundId, reject: Reject) -> Reject {
        if let Phase::Training(open) = &mut self.phase
            && open.number == round.number
            && ends_participation(reject)
        {
            open.fail(client, reject);
        }
        let reject = self.refuse(reject, Some(client));
        self.close_if_complete(now);
        reject
    }

    pub(super) fn refuse(&mut self, reject: Reject, client: Option<&ClientId>) -> Reject {
        self.count_reject(reject, client);
        reject
    }

    pub(super) fn count_reject(&mut self, reject: Reject, client: Option<&ClientId>) {
        // Only registered names are kept, so a stranger cannot grow the table.
        let client = client.filter(|client| self.clients.contains_key(*client)).cloned();
        *self.rejects.entry((reject, client)).or_default() += 1;
        // What comes while no round is open is told with the next one.
        let rejects = if let Phase::Training(round) = &mut self.phase { &mut round.rejects } else { &mut self.between };
        *rejects.entry(reject).or_default() += 1;
    }
}

/// Whether a client that sent something refused so is not waited for any longer in the round.
///
/// A frame cut short is not among them: a call that its client cancelled looks the same, and may be resumed.
pub(super) fn ends_participation(reject: Reject) -> bool {
    matches!(
        reject,
        Reject::WrongBase
            | Reject::FrameTooLarge
            | Reject::Corrupt
            | Reject::UnknownFormat
            | Reject::WrongShape
            | Reject::WrongCodec
            | Reject::NotANumber
            | Reject::Infinite
            | Reject::ValueTooLarge
            | Reject::NoExamples
            | Reject::TooManyExamples
    )
}
