//! Two-dimensional convolution of images whose pixels have their channels side by side.

mod dense;
mod depthwise;
mod frame;
mod grouped;
mod pointwise;
mod sparse;

use super::composed;
use super::kernel::Float;
use super::sparse::spread;
use super::{Graph, Pattern, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use dense::{DenseBackward, DenseForward};
use depthwise::{DepthwiseBackward, DepthwiseForward};
use grouped::{GroupedBackward, GroupedForward};
use pointwise::{PointwiseBackward, PointwiseForward};
use sparse::{SparseBackward, SparseForward};
use std::sync::Arc;

/// How a convolution moves over its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Rows of zeros above and below the image, and columns on its left and right.
    pub padding: [usize; 2],
    /// Rows and columns from one output pixel to the next.
    pub stride: [usize; 2],
    /// Into how many groups channels and outputs are cut, each of which sees nothing of the others; with as many as
    /// there are channels the convolution is depthwise.
    pub groups: usize,
    /// Whether max(·, 0) follows, in the same pass.
    pub relu: bool,
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self { padding: [0, 0], stride: [1, 1], groups: 1, relu: false }
    }
}

/// Cross-correlation with zero padding: x [n, h, w, c], w [o, c/groups, k, l], b \[o\] give y [n, h', w', o] with
/// h' = ⌊(h + 2·padding − k)/stride⌋ + 1.
///
/// # Errors
/// When the operands do not fit together or the kernel is larger than the padded image.
pub fn conv2d(
    graph: &mut Graph<'_>,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    config: Conv2dConfig,
) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::conv2d(x, w, b, config);
    }
    if let Some(pattern) = graph.pattern(w).filter(|_| config.stride != [1, 1]) {
        let w = spread(graph, &pattern, w)?;
        return conv2d(graph, x, &w, b, config);
    }
    let wanted = Wanted {
        input: graph.needs_gradient(x),
        weights: graph.needs_gradient(w),
        bias: b.is_some_and(|b| graph.needs_gradient(b)),
    };
    let pattern = graph.pattern(w);
    let outputs = pattern.as_ref().map_or(w.dim(0)?, |pattern| pattern.shape()[0]);
    let op = Conv2d { config, wanted, pattern };
    match b {
        Some(b) => graph.apply3(x, w, b, op),
        None => graph.apply3(x, w, &Tensor::zeros(outputs, w.dtype(), w.device())?, op),
    }
}

struct Conv2d {
    config: Conv2dConfig,
    wanted: Wanted,
    /// Where the weights stand, if they are what is left of them.
    pattern: Option<Arc<Pattern>>,
}

/// The gradients that somebody asks for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// Not that of a network's input.
    pub(super) input: bool,
    /// Not that of frozen ones.
    pub(super) weights: bool,
    /// Not that of a bias that is not there.
    pub(super) bias: bool,
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let extent = self.extent(x_layout.shape(), w_layout.shape(), b_layout.shape())?;
        for_float!(x.dtype(), T => {
            let x = elements::<T>(x, x_layout)?;
            let mut y = Vec::with_capacity(extent.batch * extent.out_len());
            let filters = (elements(w, w_layout)?, self.pattern.as_deref());
            extent.forward(filters, elements(b, b_layout)?, self.config.relu).append(x, &mut y);
            Ok((candle_core::WithDType::to_cpu_storage_owned(y), Shape::from(&extent.out_dims())))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let extent = self.extent(x.shape(), w.shape(), b.shape())?;
        for_float!(x.dtype(), T => {
            let gradients = with_elements::<T, _>(x, |x| with_elements(w, |w| with_elements(y, |y| {
                with_elements(dy, |dy| {
                    let mut pass = extent.backward((w, self.pattern.as_deref()), self.wanted);
                    pass.add(x, self.config.relu.then_some(y), dy);
                    Ok(pass.gradients())
                })
            })))?;
            let dx = gradients.x.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()?;
            let dw = gradients.w.map(|dw| Tensor::from_vec(dw, w.shape(), w.device())).transpose()?;
            let db = gradients.b.map(|db| Tensor::from_vec(db, b.shape(), b.device())).transpose()?;
            Ok((dx, dw, db))
        })
    }
}

impl Conv2d {
    fn extent(&self, x: &Shape, w: &Shape, b: &Shape) -> Result<Extent> {
        let extent = Extent::of(self.config, x, w, self.pattern.as_deref())?;
        if b.dims() != [extent.outputs] {
            candle_core::bail!("conv2d: w {w:?}, b {b:?}; want [o, c/groups, k, l], [o]");
        }
        Ok(extent)
    }
}

/// All extents of one convolution.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    outputs: usize,
    kernel: [usize; 2],
    padding: [usize; 2],
    stride: [usize; 2],
    groups: usize,
    out_height: usize,
    out_width: usize,
}

/// Pixels from which a product is efficient: as many as it walks at once in the gradient of the weights.
const PIXELS: usize = 256;

/// The gradients with respect to each operand.
pub(super) struct Gradients<T> {
    pub(super) x: Option<Vec<T>>,
    pub(super) w: Option<Vec<T>>,
    b: Option<Vec<T>>,
}

/// A pass forward, for images that may come in portions.
pub(super) trait Forward<T> {
    /// Appends the results for some images.
    fn append(&mut self, x: &[T], y: &mut Vec<T>);
}

/// A pass back, for images that may come in portions: the gradients do not depend on how they are cut.
pub(super) trait Backward<T> {
    /// Takes some images along; `y` is given if it was rectified.
    fn add(&mut self, x: &[T], y: Option<&[T]>, dy: &[T]);

    /// The gradients of all images so far.
    fn gradients(self: Box<Self>) -> Gradients<T>;
}

impl Extent {
    pub(super) fn new(config: Conv2dConfig, x: &Shape, w: &Shape) -> Result<Self> {
        let ((batch, height, width, channels), (outputs, per_group, rows, columns)) = (x.dims4()?, w.dims4()?);
        let Conv2dConfig { padding, stride, groups, .. } = config;
        let fits = groups > 0
            && channels == per_group * groups
            && outputs % groups == 0
            && rows * columns * channels * outputs > 0
            && stride[0] * stride[1] > 0;
        let (out_height, out_width) = (
            (height + 2 * padding[0]).checked_sub(rows).filter(|_| fits).map(|rest| rest / stride[0] + 1),
            (width + 2 * padding[1]).checked_sub(columns).filter(|_| fits).map(|rest| rest / stride[1] + 1),
        );
        let (Some(out_height), Some(out_width), true) = (out_height, out_width, height * width > 0) else {
            candle_core::bail!("conv2d: x {x:?}, w {w:?}, {config:?}; want [n, h, w, c], [o, c/groups, k, l]");
        };
        let kernel = [rows, columns];
        Ok(Self { batch, channels, height, width, outputs, kernel, padding, stride, groups, out_height, out_width })
    }

    /// The same, with weights of which only some may be left.
    pub(super) fn of(config: Conv2dConfig, x: &Shape, w: &Shape, pattern: Option<&Pattern>) -> Result<Self> {
        let Some(pattern) = pattern else { return Self::new(config, x, w) };
        if w.dims() != [pattern.len()] || config.groups != 1 {
            candle_core::bail!("conv2d: w {w:?}, {config:?}; want [{}] and one group", pattern.len());
        }
        Self::new(config, x, &Shape::from(pattern.shape()))
    }

    pub(super) fn forward<'a, T: Float>(
        &self,
        (w, pattern): (&'a [T], Option<&'a Pattern>),
        b: &'a [T],
        rectify: bool,
    ) -> Box<dyn Forward<T> + 'a> {
        if let Some(pattern) = pattern {
            return Box::new(SparseForward::new(self, (w, pattern), b, rectify));
        }
        if self.is_pointwise() {
            return Box::new(PointwiseForward::new(self, w, b, rectify));
        }
        match self.groups {
            1 => Box::new(DenseForward::new(self, w, b, rectify)),
            _ if self.is_depthwise() => Box::new(DepthwiseForward::new(self, w, b, rectify)),
            _ => Box::new(GroupedForward::new(self, w, b, rectify)),
        }
    }

    pub(super) fn backward<'a, T: Float>(
        &self,
        (w, pattern): (&'a [T], Option<&'a Pattern>),
        wanted: Wanted,
    ) -> Box<dyn Backward<T> + 'a> {
        if let Some(pattern) = pattern {
            return Box::new(SparseBackward::new(self, (w, pattern), wanted));
        }
        if self.is_pointwise() {
            return Box::new(PointwiseBackward::new(self, w, wanted));
        }
        match self.groups {
            1 => Box::new(DenseBackward::new(self, w, wanted)),
            _ if self.is_depthwise() => Box::new(DepthwiseBackward::new(self, w, wanted)),
            _ => Box::new(GroupedBackward::new(self, w, wanted)),
        }
    }

    fn is_depthwise(&self) -> bool {
        self.groups == self.channels && self.groups == self.outputs
    }

    /// Elements of an input image.
    pub(super) fn in_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Elements of an output image.
    pub(super) fn out_len(&self) -> usize {
        self.out_height * self.out_width * self.outputs
    }

    /// Images that are taken together, where they are not all.
    pub(super) fn portion(&self) -> usize {
        (PIXELS / self.out_area()).max(1)
    }

    /// Pixels of an output image.
    pub(super) fn out_area(&self) -> usize {
        self.out_height * self.out_width
    }

    /// The result's shape.
    pub(super) fn out_dims(&self) -> [usize; 4] {
        [self.batch, self.out_height, self.out_width, self.outputs]
    }

    /// Whether the gradient of the input is itself a convolution of the output's gradient.
    fn is_correlation(&self) -> bool {
        self.stride == [1, 1] && self.padding[0] < self.kernel[0] && self.padding[1] < self.kernel[1]
    }

    /// The padding of that convolution.
    fn opposite_padding(&self) -> [usize; 2] {
        [self.kernel[0] - 1 - self.padding[0], self.kernel[1] - 1 - self.padding[1]]
    }

    /// Pixels of the kernel.
    fn area(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}
