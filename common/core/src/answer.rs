//! Every "no" and "not yet" that a peer can hear: the reply, the metric label and the test's assertion at once.

use serde::{Deserialize, Serialize};

/// Builds a `Copy` enum whose variants carry a stable number for the wire, a label for metrics and a sentence for people.
macro_rules! answers {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal, $label:literal, $text:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$variant_doc])* $variant = $number),+ }

        impl $name {
            /// Every variant, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> i32 { self as i32 }

            /// The variant of a number on the wire.
            #[must_use]
            pub fn from_number(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// The name in metrics, status and logs.
            #[must_use]
            pub const fn label(self) -> &'static str { match self { $(Self::$variant => $label),+ } }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}

answers! {
    /// Why a peer's message was refused. The peer made the mistake; the federation goes on.
    Reject {
        /// The client speaks a protocol version from before the oldest that the server knows.
        ProtocolTooOld = 1, "protocol_too_old", "the client's protocol is older than the server speaks: update the client";
        /// The client speaks a protocol version from after the newest that the server knows.
        ProtocolTooNew = 2, "protocol_too_new", "the client's protocol is newer than the server speaks: update the server or use an older client";
        /// A field is missing or outside its range.
        Malformed = 3, "malformed", "the message has a field that is missing or out of range";
        /// The server does not run that run.
        UnknownRun = 4, "unknown_run", "the server does not run this run: join again";
        /// Nobody joined under that name.
        UnknownClient = 5, "unknown_client", "no client of this name has joined: join first";
        /// The name belongs to another session.
        WrongSession = 6, "wrong_session", "this client id belongs to another session: choose another id or use its state directory";
        /// The registry is full.
        TooManyClients = 7, "too_many_clients", "limits.max_clients clients have joined already";
        /// The client was not chosen for this round.
        NotInCohort = 8, "not_in_cohort", "the client was not chosen for this round";
        /// The round is over.
        Late = 9, "late", "the round closed before the update was complete";
        /// The round has not begun.
        FutureRound = 10, "future_round", "the round has not begun";
        /// The update was trained from another model version than the round's base.
        WrongBase = 11, "wrong_base", "the update starts from another model version than the round's base";
        /// The client's update of this round was accepted before; it counts once.
        Duplicate = 12, "duplicate", "an update of this client was accepted in this round already";
        /// The frame is longer than any frame of this model can be.
        FrameTooLarge = 13, "frame_too_large", "the frame is longer than limits allow for this model";
        /// The frame ends before its content does.
        Truncated = 14, "truncated", "the frame ends before its content does";
        /// The frame is not one that a Dunlin codec wrote.
        Corrupt = 15, "corrupt", "the frame is not a valid update: checksum or structure is wrong";
        /// The frame is for a model of another size.
        WrongShape = 16, "wrong_shape", "the frame has another number of coordinates than the model";
        /// A value of the update is NaN.
        NotANumber = 17, "not_a_number", "the update contains a NaN";
        /// A value of the update is infinite.
        Infinite = 18, "infinite", "the update contains an infinite value";
        /// A value of the update is beyond the recipe's bound.
        ValueTooLarge = 19, "value_too_large", "a coordinate of the update exceeds limits.max_update_abs, or the bound of the common grid";
        /// The update stands for no example or a negative number of them.
        NoExamples = 20, "no_examples", "the update must stand for at least one example";
        /// The update stands for more examples than the recipe allows.
        TooManyExamples = 21, "too_many_examples", "the update claims more examples than limits.max_examples";
        /// The bytes received are not those that the header announced.
        WrongDigest = 22, "wrong_digest", "the bytes received differ from the digest in the header: upload again";
        /// The upload was resumed at an offset that the server does not hold.
        WrongOffset = 23, "wrong_offset", "the upload resumes at an offset that the server does not hold: ask for the offset";
        /// The run is over.
        RunFinished = 24, "run_finished", "the run is over";
        /// The version asked for does not exist (yet).
        UnknownVersion = 25, "unknown_version", "the server cannot hand out this model version";
        /// The client trained with another model or codec than the recipe says.
        WrongCodec = 26, "wrong_codec", "the frame was written by another codec than the task asked for";
        /// The client has another part of the model than any size in the recipe, or than it had before.
        WrongWidth = 27, "wrong_width", "no size in the recipe has the client's --width, or the client began with another one";
        /// The frame says that it is of a version or kind that this server does not know.
        UnknownFormat = 28, "unknown_format", "the frame is of a version or kind that the server does not know: update whichever is older";
    }
}

answers! {
    /// Why a client has nothing to do yet.
    Waiting {
        /// Too few clients have joined for a first round.
        NotEnoughClients = 1, "not_enough_clients", "waiting for more clients to join";
        /// A round is under way without this client.
        NotChosen = 2, "not_chosen", "this round runs without this client";
        /// The client's part of the round is done.
        Reported = 3, "reported", "reported; the round waits for others";
        /// The server computes and stores the next model.
        Publishing = 4, "publishing", "the server is publishing a model";
        /// The server has more work than it can queue.
        Busy = 5, "busy", "the server is busy";
    }
}

answers! {
    /// How a run ended.
    Outcome {
        /// All rounds were run.
        Completed = 1, "completed", "all rounds were run";
        /// The target accuracy was reached.
        TargetReached = 2, "target_reached", "the target accuracy was reached";
        /// Someone stopped it.
        Stopped = 3, "stopped", "stopped on request";
        /// Too many rounds in a row were abandoned, or too few clients offer anything for another one.
        GaveUp = 4, "gave_up", "too many rounds in a row missed their quorum, or too few clients have anything left to send";
    }
}

impl std::error::Error for Reject {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_labels_are_unique_and_read_back() {
        let labels: std::collections::BTreeSet<_> = Reject::ALL.iter().map(|reject| reject.label()).collect();
        assert_eq!(labels.len(), Reject::ALL.len());
        for &reject in Reject::ALL {
            assert_eq!(Reject::from_number(reject.number()), Some(reject));
        }
        assert_eq!(Reject::from_number(0), None);
    }
}
