//! What the exit code of a program says, for all of them.

use std::process::ExitCode;

/// How a command ended, as a script is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked; a run ended as its recipe asks.
    Done = 0,
    /// Anything that is not one of the others.
    Failed = 1,
    /// The command line, the recipe or the data are wrong; clap uses the same.
    Usage = 2,
    /// The run ended otherwise than its recipe asks.
    NotAsAsked = 3,
    /// It was told to stop before its run had ended: what shells give for a process that SIGINT ended.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What `--help` says of the codes where a run is conducted or followed.
pub const OF_RUN: &str = "\
Exit codes:
  0    done; of a run: it ended as its recipe asks
  1    something went wrong
  2    the command line or the recipe is wrong
  3    the run ended otherwise than its recipe asks: a required target was missed,
       it gave up, or it was stopped
  130  interrupted before the run had ended; a server goes on with it when it is
       started again";

/// The same where a client takes part: it cannot help how the run ends.
pub const OF_CLIENT: &str = "\
Exit codes:
  0    the run ended, in whatever way
  1    something went wrong
  2    the command line or the data are wrong
  130  interrupted: what shells say of a client that was told to stop";
