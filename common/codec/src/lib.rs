//! Sparsify, quantize and entropy-code the updates of a federation, where bytes are the budget.
//!
//! A [`Codec`] says how many coordinates of a flat parameter vector are sent (exact top-k by magnitude over all
//! tensors), how they are rounded, and how positions and values are written. An [`Encoder`] turns a vector into one
//! *frame* and leaves what the frame does not carry behind in the vector, for the next round (error feedback, Seide et
//! al. 2014; ternary top-k with one magnitude per tensor, Sattler et al. 2019). [`verify`] checks a frame from
//! elsewhere, [`decode`] adds it to any [`Sink`], and [`grid`] applies it to the broadcast model in integers, so that
//! all who apply the same frames hold the same bits.
//!
//! ```
//! use dunlin_codec::{Codec, Encoder, EntropyCoder, Limits, Quantizer, Segment, Segments, Sink, decode, verify};
//!
//! struct Sum(Vec<f32>);
//!
//! impl Sink for Sum {
//!     fn add(&mut self, index: usize, value: f32) {
//!         self.0[index] += value;
//!     }
//! }
//!
//! // One matrix of 100 × 64 and its bias.
//! let segments = Segments::new(vec![Segment { len: 6400, row: 64 }, Segment { len: 100, row: 100 }])?;
//! let update: Vec<f32> = (0..6500).map(|i| (i as f32).sin() * 0.01).collect();
//!
//! let codec = Codec { density: 0.01, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto };
//! let mut residual = update.clone();
//! let encoded = Encoder::new().encode_with_feedback(&codec, &segments, &mut residual)?;
//! assert!(encoded.stages.coded * 80 < encoded.stages.dense);
//!
//! let limits = Limits::for_segments(&segments);
//! assert_eq!(verify(&encoded.frame, &segments, &limits)?.nonzeros, encoded.nonzeros);
//! let mut sum = Sum(vec![0.0; segments.len()]);
//! decode(&encoded.frame, &segments, &limits, &mut sum)?;
//! assert!((0..6500).all(|i| residual[i] == update[i] - sum.0[i]));
//! # Ok::<(), dunlin_codec::Error>(())
//! ```
//!
//! # What is sent
//! - `density` < 1: the round(density · n) largest of all n coordinates, at least 1, never a zero, ties by the lowest
//!   index. Biases compete with matrices: a tensor of which nothing is sent costs about a bit. What rounds to zero in
//!   the quantizer stays behind and is not sent.
//! - `density` = 1: everything. Ternary frames, and pruned vectors under [`EntropyCoder::Auto`], still write positions,
//!   of all that is not zero.
//!
//! Other quantizers take the vector as a whole ([`Quantizer::is_whole`]): they rotate blocks of it, take random levels,
//! or factor matrices. Some of them draw random numbers ([`Encoder::seed`]); each says whether it is unbiased
//! ([`Quantizer::bias`]), which error feedback must not be combined with.
//!
//! # How it is written
//! Positions are written by one of four coders ([`EntropyCoder`]); [`EntropyCoder::Auto`] writes the frame with each of
//! them that could win and keeps the shortest. On independent coordinates it stays within a few bytes of the entropy
//! ([`limit`]); where tensors, rows or columns differ in density it goes below the entropy of the mean density. The
//! range coder, the models and the choices between them use integer arithmetic and correctly rounded sums, products
//! and quotients only, so the same vector gives the same frame on every machine.
//!
//! # Pruned models
//! A [`Mask`] says which coordinates of a model are left. Within it, everything above is as it was, on a shorter vector:
//! positions are coded among the coordinates that are left, so that what was pruned costs nothing. Masks themselves
//! travel as frames of positions ([`Mask::change_to`]), and a [`MaskedGrid`] is what all who apply the same frames hold.
//!
//! # The same coordinates and integers for all
//! Where updates are to be added by who does not see them, all clients of a round send the same coordinates
//! ([`Mask::random_part`], [`Mask::cyclic_part`], [`Mask::part_with`]), so that a frame has no positions, as integers of
//! one [`CommonGrid`].
//!
//! # Small models as files
//! [`container`] holds a whole model, pruned and quantized, as a file; the rest is about updates on their way.
//!
//! Nothing here panics on bytes from elsewhere, and nothing larger than the receiver's own model is allocated for them.

mod bits;
mod body;
mod budget;
mod checksum;
mod codebook;
mod codec;
mod common;
pub mod container;
mod decode;
mod encode;
mod error;
pub mod grid;
mod header;
pub mod limit;
mod mask;
mod model;
mod paired;
mod positions;
mod range;
mod scattered;
mod segment;
mod select;
mod source;
mod values;
mod vectorised;
mod whole;

pub use budget::FILL;
pub use codec::{Bias, Codec, EntropyCoder, Fit, Quantizer, Rate, StageBytes};
pub use common::CommonGrid;
pub use decode::{
    Decoder, IntegerSink, Sink, Sinks, Verified, decode, decode_integers, decode_together, is_plain_dense,
    largest_magnitude, verify,
};
pub use encode::{Encoded, Encoder};
pub use error::Error;
pub use header::{FrameHeader, FrameKind, Layout, Limits, Scheme};
pub use mask::{Mask, MaskedGrid};
pub use scattered::change_at;
pub use segment::{Segment, Segments};
pub use source::{Rest, Source};
pub use vectorised::{Vectors, vectorised, with_vectors};
