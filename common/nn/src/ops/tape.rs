//! A gradient tape for the operations of this module.
//!
//! candle's own `backward` adds each gradient to a tensor of zeros, and splits every addition of more than 65,536
//! elements over one pool of threads for the whole process, behind a lock: trainings side by side would queue for it.
//! The tape keeps first gradients as they are and stays on its thread.

use super::{Factors, Member, Pattern, for_float, vectorised, with_elements};
use candle_core::{CustomOp1, CustomOp2, CustomOp3, Result, Shape, Tensor, TensorId, WithDType};
use dunlin_core::Seed;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The operations of one forward pass, in order.
pub(crate) struct Tape {
    calls: Vec<Call>,
    /// The parameters that are trained, and all results that depend on one.
    wanted: HashSet<TensorId>,
    /// The parameters whose gradients may be left in factors.
    factored: HashSet<TensorId>,
}

struct Call {
    operation: Operation,
    result: Tensor,
}

enum Operation {
    One(Box<dyn CustomOp1>, Tensor),
    Two(Box<dyn CustomOp2>, [Tensor; 2]),
    Three(Box<dyn CustomOp3>, [Tensor; 3]),
    Factored(Box<dyn Factored>, [Tensor; 3]),
    Fused(Box<dyn Fused>, Vec<Tensor>),
    Reshape(Tensor),
}

/// An operation that only a tape knows: candle has no interface for so many operands, and computes it in parts.
pub(super) trait Fused {
    /// The gradient with respect to each operand, unless nobody asks for it.
    fn backward(self: Box<Self>, operands: &[Tensor], dy: &Tensor) -> Result<Vec<Option<Tensor>>>;
}

/// An operation on an operand, weights and a bias that leaves the gradient of the weights in factors.
pub(super) trait Factored {
    /// The gradients with respect to the operand, unless nobody asks for it, the weights, unless another part of the
    /// batch answers for them, and the bias.
    fn backward(
        &self,
        operands: &[Tensor; 3],
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Factors>, Option<Tensor>)>;
}

/// The gradients of a loss with respect to everything that went into it.
pub(crate) struct Gradients {
    whole: HashMap<TensorId, Tensor>,
    factors: HashMap<TensorId, Factors>,
}

impl Gradients {
    /// The gradient with respect to `tensor`, if the loss depends on it.
    pub(crate) fn take(&mut self, tensor: &Tensor) -> Option<Tensor> {
        self.whole.remove(&tensor.id())
    }

    /// The same, where it was left in factors.
    pub(crate) fn take_factors(&mut self, tensor: &Tensor) -> Option<Factors> {
        self.factors.remove(&tensor.id())
    }

    /// What has no other gradient stays as it is.
    fn add_factors<T: WithDType>(&mut self, tensor: &Tensor, factors: Factors) -> Result<()> {
        if self.whole.contains_key(&tensor.id()) || self.factors.contains_key(&tensor.id()) {
            return self.add::<T>(tensor, factors.whole()?);
        }
        self.factors.insert(tensor.id(), factors);
        Ok(())
    }

    fn add<T: WithDType>(&mut self, tensor: &Tensor, gradient: Tensor) -> Result<()> {
        if let Some(factors) = self.factors.remove(&tensor.id()) {
            self.whole.insert(tensor.id(), factors.whole()?);
        }
        let sum = match self.whole.get(&tensor.id()) {
            None => gradient,
            Some(first) => {
                let sum = with_elements::<T, _>(first, |first| {
                    with_elements::<T, _>(&gradient, |second| {
                        Ok(vectorised(
                            #[inline(always)]
                            || first.iter().zip(second).map(|(&first, &second)| first + second).collect::<Vec<T>>(),
                        ))
                    })
                })?;
                Tensor::from_vec(sum, tensor.shape(), tensor.device())?
            }
        };
        self.whole.insert(tensor.id(), sum);
        Ok(())
    }
}

impl Tape {
    /// For the gradients with respect to these parameters.
    pub(crate) fn of<'t>(parameters: impl IntoIterator<Item = &'t Tensor>) -> Self {
        let wanted = parameters.into_iter().map(Tensor::id).collect();
        Self { calls: Vec::new(), wanted, factored: HashSet::new() }
    }

    /// The same, with gradients of parameters left in factors where that pays.
    pub(crate) fn with_factors(self) -> Self {
        Self { factored: self.wanted.clone(), ..self }
    }

    /// Whether a tensor is a parameter that is trained, or depends on one: not a network's input, nor what has been
    /// computed from it by frozen layers.
    pub(super) fn wants(&self, tensor: &Tensor) -> bool {
        self.wanted.contains(&tensor.id())
    }

    pub(super) fn apply1(&mut self, x: &Tensor, op: impl CustomOp1 + 'static) -> Result<Tensor> {
        let result = x.apply_op1_no_bwd(&op)?;
        Ok(self.record(Operation::One(Box::new(op), x.clone()), result))
    }

    pub(super) fn apply2(&mut self, x: &Tensor, y: &Tensor, op: impl CustomOp2 + 'static) -> Result<Tensor> {
        let result = x.apply_op2_no_bwd(y, &op)?;
        Ok(self.record(Operation::Two(Box::new(op), [x.clone(), y.clone()]), result))
    }

    pub(super) fn apply3(
        &mut self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        op: impl CustomOp3 + 'static,
    ) -> Result<Tensor> {
        let result = x.apply_op3_no_bwd(w, b, &op)?;
        Ok(self.record(Operation::Three(Box::new(op), [x.clone(), w.clone(), b.clone()]), result))
    }

    fn record(&mut self, operation: Operation, result: Tensor) -> Tensor {
        self.wanted.insert(result.id());
        self.calls.push(Call { operation, result: result.clone() });
        result
    }

    /// The gradients of a scalar that this tape produced.
    pub(crate) fn backward(self, loss: &Tensor) -> Result<Gradients> {
        for_float!(loss.dtype(), T => self.walk::<T>(loss))
    }

    fn walk<T: WithDType>(self, loss: &Tensor) -> Result<Gradients> {
        let whole = HashMap::from([(loss.id(), loss.ones_like()?)]);
        let mut gradients = Gradients { whole, factors: HashMap::new() };
        let Self { calls, wanted, .. } = self;
        for Call { operation, result } in calls.into_iter().rev() {
            // Taken out, so that a layer's gradient is freed as soon as it has been passed on.
            let Some(dy) = gradients.whole.remove(&result.id()) else { continue };
            let passed_on = match operation {
                Operation::One(op, x) => vec![(op.bwd(&x, &result, &dy)?, x)],
                Operation::Two(op, [x, y]) => {
                    let (dx, dy) = op.bwd(&x, &y, &result, &dy)?;
                    vec![(dx, x), (dy, y)]
                }
                Operation::Three(op, [x, w, b]) => {
                    let (dx, dw, db) = op.bwd(&x, &w, &b, &result, &dy)?;
                    vec![(dx, x), (dw, w), (db, b)]
                }
                Operation::Factored(op, operands) => {
                    let (dx, factors, db) = op.backward(&operands, &result, &dy)?;
                    let [x, w, b] = operands;
                    if let Some(factors) = factors {
                        gradients.add_factors::<T>(&w, factors)?;
                    }
                    vec![(dx, x), (db, b)]
                }
                Operation::Fused(op, operands) => op.backward(&operands, &dy)?.into_iter().zip(operands).collect(),
                Operation::Reshape(x) => vec![(Some(dy.reshape(x.shape())?), x)],
            };
            for (gradient, tensor) in passed_on {
                if let Some(gradient) = gradient.filter(|_| wanted.contains(&tensor.id())) {
                    gradients.add::<T>(&tensor, gradient)?;
                }
            }
        }
        Ok(gradients)
    }
}

/// Where operations are applied: with candle's graph behind the results, or on a tape that dunlin trains with.
///
/// A forward pass asks a graph for everything that is not plain arithmetic, and so computes the same either way.
#[derive(Default)]
pub struct Graph<'a> {
    /// Where operations are recorded; without one the results themselves know where they came from, if a variable went
    /// in, and candle's `backward` works.
    tape: Option<&'a mut Tape>,
    /// The seed of what is random in training; without one nothing is.
    noise: Option<Seed>,
    /// The thread's place among those that have the other parts of the batch.
    member: Option<&'a Member>,
    /// Random operations so far.
    draws: u64,
    /// Whether operations are put together from candle's own wherever the operands are.
    composed: bool,
    /// Of weights that are a vector of what is left of them, where those stand.
    patterns: Option<&'a HashMap<TensorId, Arc<Pattern>>>,
}

impl<'a> Graph<'a> {
    /// For evaluation, or for training with candle's own `backward`.
    #[must_use]
    pub fn candle() -> Self {
        Self::default()
    }

    /// Of candle's own operations only, as on devices that the kernels do not run on, also on the CPU.
    pub(crate) fn composed() -> Self {
        Self { composed: true, ..Self::default() }
    }

    /// Whether an operation on this operand has to be put together from candle's own.
    pub(super) fn composes(&self, x: &Tensor) -> bool {
        self.composed || !x.device().is_cpu()
    }

    /// Recording on a tape.
    pub(crate) fn on(tape: &'a mut Tape) -> Self {
        Self { tape: Some(tape), ..Self::default() }
    }

    /// For a training step: dropout drops what this seed says.
    #[must_use]
    pub fn with_noise(self, seed: Seed) -> Self {
        Self { noise: Some(seed), ..self }
    }

    /// For a part of a batch, of which others have the rest.
    pub(crate) fn with_member(self, member: Option<&'a Member>) -> Self {
        Self { member, ..self }
    }

    /// With weights of which only some are left.
    pub(crate) fn with_patterns(self, patterns: &'a HashMap<TensorId, Arc<Pattern>>) -> Self {
        Self { patterns: Some(patterns), ..self }
    }

    /// Where the weights stand that are left, unless all are there.
    pub(super) fn pattern(&self, w: &Tensor) -> Option<Arc<Pattern>> {
        self.patterns.and_then(|patterns| patterns.get(&w.id())).cloned()
    }

    /// The thread's place among those that have the other parts of the batch, if there are any.
    pub(super) fn member(&self) -> Option<&'a Member> {
        self.member
    }

    /// The seed of the next random operation; nothing when the pass is not one of training.
    pub(super) fn draw(&mut self) -> Option<Seed> {
        let seed = self.noise.as_ref()?.derive_n("draw", self.draws);
        self.draws += 1;
        Some(seed)
    }

    pub(super) fn apply1(&mut self, x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
        match &mut self.tape {
            None => x.apply_op1(op),
            Some(tape) if !tape.wants(x) => x.apply_op1_no_bwd(&op),
            Some(tape) => tape.apply1(x, op),
        }
    }

    pub(super) fn apply2(
        &mut self,
        x: &Tensor,
        y: &Tensor,
        op: impl CustomOp2 + Send + Sync + 'static,
    ) -> Result<Tensor> {
        match &mut self.tape {
            None => x.apply_op2(y, op),
            Some(tape) if !tape.wants(x) && !tape.wants(y) => x.apply_op2_no_bwd(y, &op),
            Some(tape) => tape.apply2(x, y, op),
        }
    }

    pub(super) fn apply3(
        &mut self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        op: impl CustomOp3 + Send + Sync + 'static,
    ) -> Result<Tensor> {
        match &mut self.tape {
            None => x.apply_op3(w, b, op),
            Some(tape) if ![x, w, b].iter().any(|operand| tape.wants(operand)) => x.apply_op3_no_bwd(w, b, &op),
            Some(tape) => tape.apply3(x, w, b, op),
        }
    }

    /// Whether the gradient of these weights may be left in factors.
    pub(super) fn may_factor(&self, w: &Tensor) -> bool {
        self.tape.as_ref().is_some_and(|tape| tape.factored.contains(&w.id()))
    }

    /// Records what an operation made that leaves the gradient of its weights in factors.
    pub(super) fn record_factored(
        &mut self,
        op: impl Factored + 'static,
        operands: [Tensor; 3],
        result: Tensor,
    ) -> Tensor {
        match &mut self.tape {
            None => result,
            Some(tape) => tape.record(Operation::Factored(Box::new(op), operands), result),
        }
    }

    /// Whether somebody will ask for the gradient with respect to this tensor.
    pub(super) fn needs_gradient(&self, x: &Tensor) -> bool {
        match &self.tape {
            None => x.track_op(),
            Some(tape) => tape.wants(x),
        }
    }

    /// Whether somebody will ask for the gradient with respect to one of an operation's operands.
    pub(super) fn records(&self, operands: &[&Tensor]) -> bool {
        operands.iter().any(|operand| self.needs_gradient(operand))
    }

    /// The same elements in another shape, without a copy.
    pub(super) fn reshape(&mut self, x: &Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
        let result = x.reshape(shape.into())?;
        Ok(match &mut self.tape {
            Some(tape) if tape.wants(x) => tape.record(Operation::Reshape(x.clone()), result),
            _ => result,
        })
    }

    /// Records on the tape what an operation made of its operands.
    pub(super) fn record(&mut self, op: impl Fused + 'static, operands: Vec<Tensor>, result: Tensor) -> Tensor {
        match &mut self.tape {
            None => result,
            Some(tape) if !operands.iter().any(|operand| tape.wants(operand)) => result,
            Some(tape) => tape.record(Operation::Fused(Box::new(op), operands), result),
        }
    }

    /// Whether operations are recorded on a tape.
    pub(super) fn is_taped(&self) -> bool {
        self.tape.is_some()
    }
}
