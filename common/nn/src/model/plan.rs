//! What a model computes as a list of steps, for programs that do not train: exports, and inference with small weights.

use super::arch::GROUPS;
use super::{InputShape, Model};
use crate::Error;
use dunlin_core::Layout;

/// The steps from an image or a row of a table to its logits, in order.
///
/// Images are told channel after channel, as data sets and weights have them. A test holds every plan to what the
/// architecture computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The shape of the model's input: an image for convolutions, features otherwise.
    pub input: Extent,
    /// The steps.
    pub steps: Vec<Step>,
    /// The logits.
    pub output: Value,
}

/// The input, numbered 0, or the result of a step, numbered from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value(pub usize);

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub operation: Operation,
    /// To which values.
    pub operands: Vec<Value>,
    /// With which tensors of the layout, by number.
    pub parameters: Vec<usize>,
    /// The shape of the result for one example.
    pub extent: Extent,
}

/// The shape of a value for one example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Channels, rows and columns.
    Image([usize; 3]),
    /// A vector.
    Features(usize),
}

impl Extent {
    /// Number of elements.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::Image([channels, height, width]) => channels * height * width,
            Self::Features(len) => len,
        }
    }

    /// Whether there is no element.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// What a step does. The tensors that it takes have the shapes that [`crate::ops`] tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Cross-correlation, with a bias if there is a second tensor.
    Conv {
        /// Rows and columns of zeros on each side.
        padding: usize,
        /// Rows and columns from one output pixel to the next.
        stride: usize,
        /// Groups of channels that see nothing of each other.
        groups: usize,
    },
    /// `x·wᵀ + b`.
    Linear,
    /// Group normalization, then a factor and a term for each channel.
    GroupNorm {
        /// Number of groups.
        groups: usize,
    },
    /// max(x, 0).
    Relu,
    /// x·σ(x).
    Silu,
    /// σ(x).
    Sigmoid,
    /// The sum of two values.
    Add,
    /// Each channel of the first value times an element of the second.
    ScaleChannels,
    /// The largest of each 2×2 pixels; an odd row or column at the end is left out.
    MaxPool,
    /// The mean of each channel.
    GlobalAvgPool,
    /// An image as a vector.
    Flatten,
    /// Bilinear interpolation between the centres of pixels.
    Resize,
}

impl Model {
    /// The steps of the model.
    ///
    /// # Errors
    /// When the architecture has none: models of sequences, the trivial one, and those that others registered without
    /// [`super::Architecture::plan`].
    pub fn plan(&self) -> Result<Plan, Error> {
        let mut planner = Planner::new(&self.layout, &self.input);
        let output = self.architecture.plan(&self.input, &mut planner).ok_or_else(|| {
            let remedy = "it cannot be told as a list of steps, which is what is run small and has 8-bit layers; models of \
                          images and tables can";
            Error::config("model.kind", self.config.kind.to_string(), remedy)
        })?;
        Ok(Plan { input: planner.extent(Value(0)), steps: planner.steps, output })
    }
}

/// A plan under construction: tensors of the layout are used up in order, as in the forward pass.
#[derive(Debug)]
pub struct Planner {
    shapes: Vec<Vec<usize>>,
    next: usize,
    input: Extent,
    steps: Vec<Step>,
}

impl Planner {
    fn new(layout: &Layout, input: &InputShape) -> Self {
        let shapes = layout.tensors().iter().map(|tensor| tensor.shape.clone()).collect();
        Self { shapes, next: 0, input: Extent::Features(input.features()), steps: Vec::new() }
    }

    /// The input as an image; to be asked for before any step.
    pub fn image(&mut self, input: &InputShape) -> Value {
        self.input = Extent::Image([input.channels, input.height, input.width]);
        Value(0)
    }

    /// The input as a vector.
    pub fn features(&mut self) -> Value {
        Value(0)
    }

    /// The shape of a value.
    #[must_use]
    pub fn extent(&self, value: Value) -> Extent {
        value.0.checked_sub(1).map_or(self.input, |step| self.steps[step].extent)
    }

    fn step(&mut self, operation: Operation, operands: &[Value], parameters: usize, extent: Extent) -> Value {
        let parameters = self.next..self.next + parameters;
        self.next = parameters.end;
        self.steps.push(Step { operation, operands: operands.to_vec(), parameters: parameters.collect(), extent });
        Value(self.steps.len())
    }

    /// A convolution with the next tensor, and with the one after it as bias.
    pub fn conv(&mut self, x: Value, padding: usize, stride: usize, groups: usize, has_bias: bool) -> Value {
        let Extent::Image([_, height, width]) = self.extent(x) else { return x };
        let [outputs, _, rows, columns] = self.shapes[self.next][..] else { return x };
        let out = |extent: usize, kernel: usize| (extent + 2 * padding - kernel) / stride + 1;
        let extent = Extent::Image([outputs, out(height, rows), out(width, columns)]);
        self.step(Operation::Conv { padding, stride, groups }, &[x], 1 + usize::from(has_bias), extent)
    }

    /// A linear layer with the next two tensors.
    pub fn linear(&mut self, x: Value) -> Value {
        let outputs = self.shapes[self.next][0];
        self.step(Operation::Linear, &[x], 2, Extent::Features(outputs))
    }

    /// Group normalization with the next two tensors, in the groups of all architectures here.
    pub fn group_norm(&mut self, x: Value) -> Value {
        self.step(Operation::GroupNorm { groups: GROUPS }, &[x], 2, self.extent(x))
    }

    /// An operation on each element.
    pub fn elementwise(&mut self, operation: Operation, x: Value) -> Value {
        self.step(operation, &[x], 0, self.extent(x))
    }

    /// max(x, 0).
    pub fn relu(&mut self, x: Value) -> Value {
        self.elementwise(Operation::Relu, x)
    }

    /// x·σ(x).
    pub fn silu(&mut self, x: Value) -> Value {
        self.elementwise(Operation::Silu, x)
    }

    /// The sum of two values of the same shape.
    pub fn add(&mut self, x: Value, y: Value) -> Value {
        self.step(Operation::Add, &[x, y], 0, self.extent(x))
    }

    /// Each channel of `x` times an element of `factors`.
    pub fn scale_channels(&mut self, x: Value, factors: Value) -> Value {
        self.step(Operation::ScaleChannels, &[x, factors], 0, self.extent(x))
    }

    /// The largest of each 2×2 pixels.
    pub fn max_pool(&mut self, x: Value) -> Value {
        let Extent::Image([channels, height, width]) = self.extent(x) else { return x };
        self.step(Operation::MaxPool, &[x], 0, Extent::Image([channels, height / 2, width / 2]))
    }

    /// The mean of each channel, as a vector.
    pub fn global_avg_pool(&mut self, x: Value) -> Value {
        let Extent::Image([channels, ..]) = self.extent(x) else { return x };
        self.step(Operation::GlobalAvgPool, &[x], 0, Extent::Features(channels))
    }

    /// An image as a vector, channel after channel.
    pub fn flatten(&mut self, x: Value) -> Value {
        self.step(Operation::Flatten, &[x], 0, Extent::Features(self.extent(x).len()))
    }

    /// An image in another size.
    pub fn resize(&mut self, x: Value, [height, width]: [usize; 2]) -> Value {
        let Extent::Image([channels, ..]) = self.extent(x) else { return x };
        self.step(Operation::Resize, &[x], 0, Extent::Image([channels, height, width]))
    }

    /// A convolution without bias, and group norm.
    pub fn conv_norm(&mut self, x: Value, padding: usize, stride: usize) -> Value {
        let y = self.conv(x, padding, stride, 1, false);
        self.group_norm(y)
    }

    /// A convolution with a kernel for each channel, and group norm.
    pub fn depthwise_norm(&mut self, x: Value, padding: usize, stride: usize) -> Value {
        let Extent::Image([channels, ..]) = self.extent(x) else { return x };
        let y = self.conv(x, padding, stride, channels, false);
        self.group_norm(y)
    }
}
