//! The built-in models: candle variables in a fixed order, and the flat vector as which they travel.

mod arch;

use crate::Error;
use crate::ops::{self, Graph};
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Tensor, Var};
use dunlin_core::recipe::ModelKind;
use dunlin_core::{Layout, Seed};

/// What a model needs to know of its data: the shape of one row and the number of labels.
///
/// A table is one channel of height 1 with its features along the width; a sequence has its steps along the height and
/// the features of a step along the width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputShape {
    /// Colour planes of an image; 1 for grey images, tables and sequences.
    pub channels: usize,
    /// Rows of an image, or steps of a sequence; 1 for tables.
    pub height: usize,
    /// Columns of an image, or features of a table or of a sequence's step.
    pub width: usize,
    /// Number of labels.
    pub classes: usize,
    /// Number of tokens when the values are tokens, whole numbers from 0 on; 0 for measurements.
    pub vocabulary: usize,
    /// Labels of a row: 1, or one for each step of a sequence.
    pub targets: usize,
}

impl InputShape {
    /// Images with one label each.
    #[must_use]
    pub const fn image(channels: usize, height: usize, width: usize, classes: usize) -> Self {
        Self { channels, height, width, classes, vocabulary: 0, targets: 1 }
    }

    /// Rows of a table with one label each.
    #[must_use]
    pub const fn table(features: usize, classes: usize) -> Self {
        Self::image(1, 1, features, classes)
    }

    /// Sequences of measurements with one label each.
    #[must_use]
    pub const fn sequence(steps: usize, features: usize, classes: usize) -> Self {
        Self::image(1, steps, features, classes)
    }

    /// Sequences of tokens with one label each.
    #[must_use]
    pub const fn tokens(steps: usize, vocabulary: usize, classes: usize) -> Self {
        Self { vocabulary, ..Self::sequence(steps, 1, classes) }
    }

    /// Sequences of tokens, each labelled with the token that follows it.
    #[must_use]
    pub const fn text(steps: usize, vocabulary: usize) -> Self {
        Self { targets: steps, ..Self::tokens(steps, vocabulary, vocabulary) }
    }

    /// Values in one row of the data: channels · height · width.
    #[must_use]
    pub const fn features(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// A model: an architecture and one set of parameters.
///
/// The parameters are candle variables in the order of [`Self::layout`], so a loss computed from [`Self::forward`]
/// can be differentiated with candle as usual.
#[derive(Debug)]
pub struct Model {
    kind: ModelKind,
    input: InputShape,
    layout: Layout,
    init: Vec<arch::Init>,
    variables: Vec<Var>,
}

impl Model {
    /// A model of this architecture for data of this shape, with all parameters zero.
    ///
    /// For [`ModelKind::Trivial`] the width is the number of parameters.
    ///
    /// # Errors
    /// When the input is too small for the architecture's pooling, has an extent of zero, or gives a model beyond
    /// [`Layout::MAX_PARAMETERS`].
    pub fn new(kind: &ModelKind, input: &InputShape) -> Result<Self, Error> {
        Self::with_dtype(kind, input, DType::F32)
    }

    /// [`Self::new`] in another float type, for gradient checks.
    pub(crate) fn with_dtype(kind: &ModelKind, input: &InputShape, dtype: DType) -> Result<Self, Error> {
        let (specs, init) = arch::tensors(kind, input)?.into_iter().unzip();
        let layout =
            Layout::new(specs).map_err(|error| Error::config("model.kind", format!("{kind:?}"), error.to_string()))?;
        let mut variables = Vec::new();
        // The trivial model stands for a large one in measurements of everything else, so it takes no memory.
        if *kind != ModelKind::Trivial {
            for tensor in layout.tensors() {
                variables.push(Var::zeros(tensor.shape.as_slice(), dtype, &Device::Cpu)?);
            }
        }
        Ok(Self { kind: kind.clone(), input: *input, layout, init, variables })
    }

    /// Names and shapes of the parameters in their order in the flat vector.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The architecture.
    #[must_use]
    pub const fn kind(&self) -> &ModelKind {
        &self.kind
    }

    /// The shape of the data that the model was built for.
    #[must_use]
    pub const fn input(&self) -> &InputShape {
        &self.input
    }

    /// Fresh parameters: U(−1/√n, 1/√n) for weights and biases with n the inputs of one unit, which is what
    /// `kaiming_uniform_(a=√5)` and torch's layers do (He et al. 2015), or the units of a recurrent layer; embeddings
    /// are uniform with the variance that torch's or GPT-2's normal ones have; norms start as the identity, the trivial
    /// model at zero.
    ///
    /// Each tensor draws from a stream named after it, so the values do not depend on the rest of the model and are
    /// the same on every platform.
    #[must_use]
    pub fn init(&self, seed: &Seed) -> Vec<f32> {
        let mut flat = Vec::with_capacity(self.layout.len());
        for (tensor, init) in self.layout.tensors().iter().zip(&self.init) {
            init.fill(&seed.derive("init").derive(&tensor.name), tensor.len(), &mut flat);
        }
        flat
    }

    /// Sets all parameters from a flat vector in the order of [`Self::layout`].
    ///
    /// # Errors
    /// When the vector has another length.
    pub fn load(&mut self, flat: &[f32]) -> Result<(), Error> {
        self.expect_len(flat)?;
        for (index, variable) in self.variables.iter().enumerate() {
            variable.inplace_op1(&Load(&flat[self.layout.range(index)]))?;
        }
        Ok(())
    }

    /// The logits of a batch: `x` is [batch, channels·height·width], the result [batch·targets, classes], where each row
    /// has as many as it has labels.
    ///
    /// # Errors
    /// When `x` has another shape, or for the trivial model, which computes nothing.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        self.record(x, Graph::candle())
    }

    /// [`Self::forward`] on a graph, such as one that records on a tape, from which the gradients of the variables can be
    /// had, or has noise.
    pub(crate) fn record(&self, x: &Tensor, graph: Graph<'_>) -> Result<Tensor, Error> {
        let parameters: Vec<Tensor> = self.variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        Ok(arch::forward(&self.kind, &self.input, graph, x, &parameters)?)
    }

    /// [`Self::forward`] with nothing behind the result, so that memory is returned as the batch moves on.
    pub(crate) fn infer(&self, x: &Tensor) -> Result<Tensor, Error> {
        let parameters: Vec<Tensor> = self.variables.iter().map(Var::as_detached_tensor).collect();
        Ok(arch::forward(&self.kind, &self.input, Graph::candle(), x, &parameters)?)
    }

    /// The parameters in order.
    pub(crate) fn variables(&self) -> &[Var] {
        &self.variables
    }

    /// Writes the parameters, in order, over `flat`.
    pub(crate) fn store(&self, flat: &mut [f32]) -> Result<(), Error> {
        self.expect_len(flat)?;
        for (index, variable) in self.variables.iter().enumerate() {
            ops::with_elements::<f32, _>(variable, |values| {
                flat[self.layout.range(index)].copy_from_slice(values);
                Ok(())
            })?;
        }
        Ok(())
    }

    pub(crate) fn expect_len(&self, flat: &[f32]) -> Result<(), Error> {
        let (expected, actual) = (self.layout.len(), flat.len());
        if expected == actual { Ok(()) } else { Err(Error::ParameterCount { expected, actual }) }
    }
}

/// Overwrites a variable's storage.
struct Load<'a>(&'a [f32]);

impl InplaceOp1 for Load<'_> {
    fn name(&self) -> &'static str {
        "load"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &candle_core::Layout) -> candle_core::Result<()> {
        match storage {
            CpuStorage::F32(values) => values.copy_from_slice(self.0),
            CpuStorage::F64(values) => {
                for (value, &new) in values.iter_mut().zip(self.0) {
                    *value = f64::from(new);
                }
            }
            _ => candle_core::bail!("load: a model is made of f32 or f64"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
