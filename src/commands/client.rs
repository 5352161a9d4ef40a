//! `dunlin client`.

use super::output::{self, bytes, count};
use super::{Done, Failure};
use crate::progress::spinner;
use dunlin::client::command::{self as client, ClientArgs};
use dunlin::client::driver::Told;
use dunlin::client::participant::End;
use dunlin::core::ClientId;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Builder;

/// Takes part in a run until it ends.
pub(crate) fn take_part(args: ClientArgs) -> Done {
    // One thread for the calls; training has its own.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let spinner = spinner();
    let watch = {
        let (seen, spinner) = (Arc::clone(&seen), spinner.clone());
        move |told: &Told<'_>| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.note(told);
            spinner.set_message(seen.doing());
        }
    };
    let json = args.json;
    let end = runtime.block_on(client::run(args, Box::new(watch)));
    spinner.finish_and_clear();
    let end = end.map_err(|error| Failure { exit: error.exit(), message: error.to_string() })?;
    match end {
        End::Finished(outcome) => {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let done = if json { String::new() } else { format!("; {}", seen.done()) };
            output::note(&format!("the run is over: {outcome}{done}"));
            Ok(ExitCode::SUCCESS)
        }
        End::Refused(reject) => Err(Failure::other(reject)),
    }
}

/// What the command's clients have done.
#[derive(Default)]
struct Seen {
    joined: BTreeSet<ClientId>,
    training: BTreeSet<ClientId>,
    /// The newest that one of them trained for.
    round: u64,
    accepted: u64,
    refused: u64,
    sent: u64,
}

impl Seen {
    fn note(&mut self, told: &Told<'_>) {
        match told {
            Told::Joined { client, .. } => drop(self.joined.insert(ClientId::clone(client))),
            Told::Training { client, round } => {
                self.training.insert(ClientId::clone(client));
                self.round = self.round.max(*round);
            }
            Told::Accepted { client, bytes, .. } => {
                self.training.remove(client);
                self.accepted += 1;
                self.sent += bytes;
            }
            Told::Refused { client, .. } => {
                self.training.remove(client);
                self.refused += 1;
            }
            Told::Ended { client, .. } => drop(self.training.remove(client)),
        }
    }

    /// What they are at now.
    fn doing(&self) -> String {
        let now = match (self.training.len(), self.joined.len()) {
            (_, 0) => return "joining".to_owned(),
            (0, _) => "waiting for work".to_owned(),
            (_, 1) => format!("round {}: training", self.round),
            (busy, joined) => {
                format!("round {}: {} of {} clients at work", self.round, count(busy as u64), count(joined as u64))
            }
        };
        if self.accepted + self.refused == 0 { now } else { format!("{now}  ({})", self.done()) }
    }

    /// What they have done so far.
    fn done(&self) -> String {
        let refused = if self.refused > 0 { format!(", {} refused", count(self.refused)) } else { String::new() };
        let updates = if self.accepted == 1 { "update" } else { "updates" };
        format!("{} {updates} accepted{refused}, {} sent", count(self.accepted), bytes(self.sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_do_is_told_in_a_few_words() {
        let (a, b) = (ClientId::numbered("a", 1), ClientId::numbered("b", 2));
        let joined = |client| Told::Joined {
            client,
            run: String::new(),
            examples: 3,
            width: dunlin::core::recipe::Width::WHOLE,
        };
        let mut seen = Seen::default();
        assert_eq!(seen.doing(), "joining");
        seen.note(&joined(&a));
        assert_eq!(seen.doing(), "waiting for work");
        seen.note(&Told::Training { client: &a, round: 4 });
        assert_eq!(seen.doing(), "round 4: training");
        seen.note(&Told::Accepted { client: &a, round: 4, bytes: 1500 });
        assert_eq!(seen.doing(), "waiting for work  (1 update accepted, 1.50 kB sent)");
        seen.note(&joined(&b));
        seen.note(&Told::Training { client: &b, round: 5 });
        assert_eq!(seen.doing(), "round 5: 1 of 2 clients at work  (1 update accepted, 1.50 kB sent)");
        seen.note(&Told::Refused { client: &b, round: 5, reason: "late" });
        assert_eq!(seen.done(), "1 update accepted, 1 refused, 1.50 kB sent");
    }
}
