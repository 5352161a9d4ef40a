//! One round: its cohort, where each member stands, and when it is over.

use super::Config;
use dunlin_core::message::UpdateHeader;
use dunlin_core::{Choice, ClientId, ModelVersion, Reject, Timestamp, Waiting};
use std::collections::BTreeMap;

/// Where a member of a cohort stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Member {
    /// Working, or on its way to.
    Asked {
        /// When it last advanced.
        advanced: Timestamp,
    },
    /// Its update is being made durable.
    Storing(UpdateHeader),
    /// Its update counts; in a federated evaluation: it has reported.
    Counted(Option<UpdateHeader>),
    /// It sent something that cannot count.
    Failed(Reject),
    /// It went silent.
    Lost,
    /// It said that it will send no update.
    Declined,
}

/// How a client says that it is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// So many steps were made so far; alive is who has made others than before.
    Steps(u64),
    /// Bytes of its update have arrived.
    Bytes,
}

/// A round under way.
pub(super) struct OpenRound {
    pub(super) number: u64,
    pub(super) base: ModelVersion,
    pub(super) opened: Timestamp,
    pub(super) deadline: Timestamp,
    pub(super) eligible: u32,
    /// Updates after which it is over.
    needed: u32,
    pub(super) members: BTreeMap<ClientId, Member>,
    pub(super) rejects: BTreeMap<Reject, u32>,
    /// Longest frame, in bytes; 0 for none.
    pub(super) max_bytes: u64,
    /// How often members will be asked from now on, this time included; none where nobody needs to know.
    pub(super) asks: BTreeMap<ClientId, u32>,
    idle_ms: u64,
    /// When members were given the round's task by this server, and what time they then took until they had an update to
    /// announce, in milliseconds.
    tasks: BTreeMap<ClientId, (Timestamp, Option<u64>)>,
    /// The steps that members were last said to have made.
    steps: BTreeMap<ClientId, u64>,
}

/// A round that has ended, with all that its summary needs.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedRound {
    /// Its number.
    pub number: u64,
    /// The version that it started from.
    pub base: ModelVersion,
    /// When it opened.
    pub opened: Timestamp,
    /// When it closed.
    pub closed: Timestamp,
    /// Whether that was because the run was stopped.
    pub cut_short: bool,
    /// What happened in it.
    pub stats: RoundStats,
}

/// The numbers of a closed round.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundStats {
    /// Clients among which the cohort was chosen.
    pub eligible: u32,
    /// Clients asked.
    pub chosen: u32,
    /// Why these.
    pub choice: Choice,
    /// Updates after which the round was over.
    pub needed: u32,
    /// Clients whose update was accepted.
    pub counted: u32,
    /// Clients that went silent, or said that they would send nothing.
    pub lost: u32,
    /// Training examples behind the accepted updates.
    pub examples: u64,
    /// Mean training loss, weighted by examples.
    pub train_loss: f64,
    /// Refusals since the round before it closed, by reason.
    pub rejects: BTreeMap<Reject, u32>,
}

impl OpenRound {
    pub(super) fn new(
        config: &Config,
        number: u64,
        base: ModelVersion,
        eligible: u32,
        members: Vec<ClientId>,
        now: Timestamp,
    ) -> Self {
        let members = members.into_iter().map(|id| (id, Member::Asked { advanced: now })).collect();
        Self {
            number,
            base,
            opened: now,
            deadline: now.after_ms(config.deadline_ms),
            eligible,
            needed: config.cohort,
            members,
            rejects: BTreeMap::new(),
            max_bytes: 0,
            asks: BTreeMap::new(),
            idle_ms: config.idle_ms,
            tasks: BTreeMap::new(),
            steps: BTreeMap::new(),
        }
    }

    /// Why its members were chosen.
    pub(super) fn choice(&self) -> Choice {
        Choice::of(self.members.len() as u32, self.eligible)
    }

    /// The member's remaining time in milliseconds, or why it has nothing to do.
    pub(super) fn assign(&mut self, now: Timestamp, client: &ClientId) -> Result<u64, Waiting> {
        let remaining = self.deadline.since(now);
        match self.members.get_mut(client) {
            None => Err(Waiting::NotChosen),
            Some(member @ (Member::Asked { .. } | Member::Lost)) => {
                *member = Member::Asked { advanced: now };
                self.tasks.entry(client.clone()).or_insert((now, None));
                Ok(remaining)
            }
            Some(Member::Storing(_) | Member::Counted(_) | Member::Failed(_) | Member::Declined) => {
                Err(Waiting::Reported)
            }
        }
    }

    pub(super) fn progress(&mut self, now: Timestamp, client: &ClientId, advance: Advance) -> Result<(), Reject> {
        match self.members.get_mut(client) {
            None => Err(Reject::NotInCohort),
            Some(member @ (Member::Asked { .. } | Member::Lost)) => {
                let has_advanced = match advance {
                    // A client that was started again counts anew, so fewer are an advance as well.
                    Advance::Steps(steps) => self.steps.insert(client.clone(), steps) != Some(steps),
                    Advance::Bytes => true,
                };
                if has_advanced {
                    *member = Member::Asked { advanced: now };
                }
                Ok(())
            }
            Some(Member::Failed(reject)) => Err(*reject),
            Some(Member::Declined) => Ok(()),
            Some(Member::Storing(_) | Member::Counted(_)) => Err(Reject::Duplicate),
        }
    }

    /// A member begins to send an update that may count, whatever it sent before.
    pub(super) fn uploading(&mut self, now: Timestamp, client: &ClientId) {
        if let Some(member) = self.members.get_mut(client) {
            *member = Member::Asked { advanced: now };
        }
        if let Some((asked, took)) = self.tasks.get_mut(client) {
            // Announced again after its link broke, it had been ready for long.
            took.get_or_insert(now.since(*asked));
        }
    }

    pub(super) fn storing(&mut self, header: UpdateHeader) {
        self.members.insert(header.client.clone(), Member::Storing(header));
    }

    pub(super) fn count(&mut self, client: &ClientId) {
        if let Some(member) = self.members.get_mut(client)
            && let Member::Storing(header) = member
        {
            *member = Member::Counted(Some(header.clone()));
        }
    }

    /// Counts a member that needs no storage.
    pub(super) fn count_once(&mut self, client: &ClientId) -> Result<(), Reject> {
        match self.members.get_mut(client) {
            None => Err(Reject::NotInCohort),
            Some(Member::Counted(_)) => Err(Reject::Duplicate),
            Some(member) => {
                *member = Member::Counted(None);
                Ok(())
            }
        }
    }

    pub(super) fn restore_update(&mut self, header: UpdateHeader) {
        self.members.insert(header.client.clone(), Member::Counted(Some(header)));
    }

    pub(super) fn fail(&mut self, client: &ClientId, reject: Reject) {
        if let Some(member @ (Member::Asked { .. } | Member::Lost)) = self.members.get_mut(client) {
            *member = Member::Failed(reject);
        }
    }

    /// A member says that it will send no update.
    pub(super) fn decline(&mut self, client: &ClientId) {
        if let Some(member @ (Member::Asked { .. } | Member::Lost)) = self.members.get_mut(client) {
            *member = Member::Declined;
        }
    }

    pub(super) fn lose_idle(&mut self, now: Timestamp) {
        for member in self.members.values_mut() {
            if let Member::Asked { advanced } = member
                && now.since(*advanced) >= self.idle_ms
            {
                *member = Member::Lost;
            }
        }
    }

    /// The next time at which something happens by itself.
    pub(super) fn next_deadline(&self) -> Timestamp {
        let idle = self.members.values().filter_map(|member| match member {
            Member::Asked { advanced } => Some(advanced.after_ms(self.idle_ms)),
            _ => None,
        });
        idle.min().map_or(self.deadline, |idle| idle.min(self.deadline))
    }

    pub(super) fn tally(&self, wanted: impl Fn(&Member) -> bool) -> u32 {
        self.members.values().filter(|member| wanted(member)).count() as u32
    }

    pub(super) fn all_resolved(&self) -> bool {
        self.tally(|member| matches!(member, Member::Asked { .. } | Member::Storing(_))) == 0
    }

    /// Whether the round is over, and if so whether it may publish.
    ///
    /// Nothing is decided while an update is on its way to the disk, so that what is durable is also counted.
    pub(super) fn complete(&self, config: &Config, now: Timestamp) -> Option<bool> {
        if self.tally(|member| matches!(member, Member::Storing(_))) > 0 {
            return None;
        }
        let counted = self.tally(|member| matches!(member, Member::Counted(_)));
        let over = counted >= self.needed || self.all_resolved() || now >= self.deadline;
        over.then_some(counted >= config.quorum)
    }

    /// Bytes of the updates that count.
    pub(super) fn bytes(&self) -> u64 {
        let len = |member: &Member| match member {
            Member::Counted(Some(header)) | Member::Storing(header) => header.frame_len,
            Member::Counted(None) | Member::Asked { .. } | Member::Failed(_) | Member::Lost | Member::Declined => 0,
        };
        self.members.values().map(len).sum()
    }

    /// Median time that those whose update counts took from their task to its announcement, in milliseconds; nothing
    /// where none of them was given its task since the server started.
    pub(super) fn client_ms(&self) -> Option<u64> {
        let counts = |client: &ClientId| matches!(self.members.get(client), Some(Member::Counted(_)));
        let took = self.tasks.iter().filter_map(|(client, (_, took))| took.filter(|_| counts(client)));
        median(took)
    }

    pub(super) fn close(&self, now: Timestamp) -> ClosedRound {
        let mut stats = RoundStats {
            eligible: self.eligible,
            chosen: self.members.len() as u32,
            choice: self.choice(),
            needed: self.needed,
            counted: 0,
            lost: self.tally(|member| match member {
                Member::Lost | Member::Declined => true,
                // Before the deadline the round has what it needs, and nobody waits for the slow.
                Member::Asked { .. } => now >= self.deadline,
                _ => false,
            }),
            examples: 0,
            train_loss: 0.0,
            rejects: self.rejects.clone(),
        };
        let mut loss_sum = 0.0;
        for member in self.members.values() {
            // Only a run that is stopped closes a round while an update is on its way to the disk.
            if let Member::Counted(Some(header)) | Member::Storing(header) = member {
                stats.counted += 1;
                stats.examples += u64::from(header.examples);
                loss_sum += f64::from(header.loss) * f64::from(header.examples);
            }
        }
        stats.train_loss = loss_sum / stats.examples.max(1) as f64;
        let (number, base, opened) = (self.number, self.base, self.opened);
        ClosedRound { number, base, opened, closed: now, cut_short: false, stats }
    }
}

/// The middle one of some numbers, the larger of two.
pub(super) fn median(numbers: impl Iterator<Item = u64>) -> Option<u64> {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied()
}
