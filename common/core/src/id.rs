//! Names and numbers for the things of a federation, each its own type.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of a client, unique in its federation.
///
/// 1 to 64 characters of `A–Z a–z 0–9 . _ -`, so that it can stand in a path, a metric label and a log line as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientId(std::sync::Arc<str>);

/// Why a text is not a client's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client id {0:?} must be 1 to 64 characters of A-Z a-z 0-9 . _ - and not begin with a dot")]
pub struct BadClientId(pub String);

impl ClientId {
    /// Longest name, in characters; long enough for a UUID with a prefix.
    pub const MAX_LEN: usize = 64;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// When the name is empty, too long, begins with a dot or has other characters than those allowed.
    pub fn new(name: &str) -> Result<Self, BadClientId> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let fits = !name.is_empty() && name.len() <= Self::MAX_LEN && !name.starts_with('.');
        if fits && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(BadClientId(name.chars().take(Self::MAX_LEN).collect()))
        }
    }

    /// The name that part `index` of a recipe's data set gets in a simulation and by default on separate machines.
    #[must_use]
    pub fn numbered(prefix: &str, index: u32) -> Self {
        Self::new(&format!("{prefix}-{index:05}")).expect("a checked prefix and a number make a valid name")
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ClientId {
    type Error = BadClientId;

    fn try_from(name: String) -> Result<Self, BadClientId> {
        Self::new(&name)
    }
}

impl From<ClientId> for String {
    fn from(id: ClientId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// A secret that binds a client's name to whoever used it first.
///
/// It keeps two clients from mixing up their names by mistake. It travels in the clear until links are encrypted, so it
/// is no defence against someone who reads the link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A run of a recipe on a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub [u8; 8]);

impl RunId {
    /// The run of this hexadecimal name.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        Some(Self(u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16)?.to_be_bytes()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", hex(&self.0))
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A round, and the server start that speaks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoundId {
    /// Counts server starts of the run, from 1. A round goes on through a restart, so only `number` names it; the term
    /// tells apart what was said about it before and after.
    pub term: u32,
    /// Counts the rounds of the run, from 1.
    pub number: u64,
}

impl fmt::Display for RoundId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.term)
    }
}

/// A state of the broadcast model; 0 is the seeded initial model, and each published round adds one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelVersion(pub u64);

impl ModelVersion {
    /// The version that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// A blake3 digest: of a frame, or of a broadcast model's integers in little-endian order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..6]))
    }
}

/// A point on the clock of whoever drives a pure value, in milliseconds; only differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time `ms` milliseconds later.
    #[must_use]
    pub const fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time; 0 when that lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Bytes as lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_names_are_checked() {
        assert_eq!(ClientId::new("ward-7.b_2").unwrap().as_str(), "ward-7.b_2");
        for bad in ["", "a b", "../x", ".hidden", "é", "a/b", &"x".repeat(65)] {
            assert!(ClientId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_run_id_reads_back_from_its_hex_form() {
        let run = RunId([0, 1, 2, 3, 4, 5, 6, 255]);
        assert_eq!(RunId::from_hex(&run.to_string()), Some(run));
        assert_eq!(RunId::from_hex("12"), None);
    }
}
