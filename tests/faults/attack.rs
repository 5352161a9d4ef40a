//! The hostile client: what it sends.

use crate::case::Op;
use crate::world::World;
use dunlin::codec::{Codec, Encoder, EntropyCoder, Quantizer, Segment, Segments};
use dunlin::core::message::{Receipt, Session, UpdateHeader};
use dunlin::core::{ClientId, Digest, ModelVersion, Reject, RoundId, RunId, Token};

/// One way to cheat or to break something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// None: it joins and asks for work like everybody, and may be chosen.
    CheckIn,
    NotANumber,
    Infinite,
    TooLarge,
    WrongShape,
    WrongCodec,
    WrongBase,
    TooManyExamples,
    MoreExamplesThanItHas,
    NoExamples,
    RandomBytes,
    Truncated,
    WrongDigest,
    /// Goes on with an upload that it never began.
    WrongOffset,
    FutureRound,
    PastRound,
    /// Speaks under another client's name, without its secret.
    AnotherName,
    UnknownName,
    UnknownRun,
}

impl Attack {
    pub(crate) const ALL: [Self; 19] = [
        Self::CheckIn,
        Self::NotANumber,
        Self::Infinite,
        Self::TooLarge,
        Self::WrongShape,
        Self::WrongCodec,
        Self::WrongBase,
        Self::TooManyExamples,
        Self::MoreExamplesThanItHas,
        Self::NoExamples,
        Self::RandomBytes,
        Self::Truncated,
        Self::WrongDigest,
        Self::WrongOffset,
        Self::FutureRound,
        Self::PastRound,
        Self::AnotherName,
        Self::UnknownName,
        Self::UnknownRun,
    ];
}

/// Examples that the hostile client says it has when it checks in.
pub(crate) const EXAMPLES: u32 = 5;

pub(crate) fn name() -> ClientId {
    ClientId::new("mallory").unwrap()
}

pub(crate) const TOKEN: Token = Token([66; 16]);

impl World {
    /// Carries out an attack that sends an update, and says what the server answers.
    pub(crate) fn attack(&mut self, attack: Attack) -> Result<Option<Receipt>, Reject> {
        if attack == Attack::MoreExamplesThanItHas {
            // A server that has just restarted does not know yet how many anybody has; and the first of these may crash it.
            self.play(&[Op::Attack(Attack::CheckIn), Op::Attack(Attack::CheckIn)]);
        }
        let (run, round, version) = self.place();
        let len = self.segments().len();
        let unit: Vec<f32> = (0..len).map(|i| if i + 1 == len { 1.0 } else { 0.0 }).collect();
        let (mut session, mut shape, mut quantizer) =
            (Session { run, client: name(), token: TOKEN }, self.segments().clone(), Quantizer::F32);
        let (mut update, mut examples, mut base, mut number) = (unit, EXAMPLES, version, round.number);
        match attack {
            Attack::TooLarge => update[0] = 1e6,
            Attack::WrongShape => {
                shape = Segments::new(vec![Segment { len: len + 1, row: len + 1 }]).unwrap();
                update.push(1.0);
            }
            Attack::WrongCodec => quantizer = Quantizer::F16,
            Attack::WrongBase => base = ModelVersion(version.0 + 1),
            Attack::TooManyExamples => examples = u32::MAX,
            Attack::MoreExamplesThanItHas => examples = EXAMPLES + 1,
            Attack::NoExamples => examples = 0,
            Attack::FutureRound => number += 1,
            Attack::PastRound => number = number.saturating_sub(1),
            Attack::AnotherName => session.client = ClientId::numbered("client", 0),
            Attack::UnknownName => session.client = ClientId::new("nobody").unwrap(),
            Attack::UnknownRun => session.run = RunId([9; 8]),
            _ => {}
        }
        let codec = Codec { density: 1.0, quantizer, coder: EntropyCoder::Raw };
        let mut frame = Encoder::new().encode(&codec, &shape, &update).unwrap().frame;
        match attack {
            Attack::NotANumber => put(&mut frame, f32::NAN),
            Attack::Infinite => put(&mut frame, f32::NEG_INFINITY),
            Attack::RandomBytes => frame = (0..40_u8).map(|i| i.wrapping_mul(151) ^ 0x5a).collect(),
            Attack::Truncated => cut(&mut frame),
            _ => {}
        }
        let digest = if attack == Attack::WrongDigest { Digest([1; 32]) } else { Digest::of(&frame) };
        let (client, round) = (session.client.clone(), RoundId { number, ..round });
        let frame_len = frame.len() as u64;
        let header = UpdateHeader { client, round, base, examples, loss: f32::NAN, frame_len, digest };
        let offset = if attack == Attack::WrongOffset { 3 } else { 0 };
        let answer = self.receive(&session, &header, offset, &frame[offset as usize..]);
        // Whoever knows no secret cannot speak in the name that it protects, and what is no update of its own never
        // counts; the ledger would notice.
        assert!(answer.is_err(), "{attack:?} was answered with {answer:?}");
        answer
    }
}

/// Writes a value over the first of a dense frame of f32, and a checksum that fits.
fn put(frame: &mut Vec<u8>, value: f32) {
    let at = frame.len() - 8;
    frame.truncate(at + 4);
    frame[at..].copy_from_slice(&value.to_le_bytes());
    seal(frame);
}

fn cut(frame: &mut Vec<u8>) {
    frame.truncate(frame.len() - 8);
    seal(frame);
}

fn seal(frame: &mut Vec<u8>) {
    let checksum = crc32c::crc32c(frame);
    frame.extend(checksum.to_le_bytes());
}
