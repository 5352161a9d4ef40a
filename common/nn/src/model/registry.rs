//! Architectures of a program that uses this library, by name.

use super::Architecture;
use crate::Error;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

static REGISTRY: RwLock<BTreeMap<String, Arc<dyn Architecture>>> = RwLock::new(BTreeMap::new());

/// Makes an architecture known to recipes as `model.kind = "own:NAME"`, in this process.
///
/// Every program of a federation that computes with the model has to register it: the server, for the initial
/// parameters and its evaluation, and the clients. A later architecture of the same name takes the place of an earlier
/// one, for models that are made from then on.
///
/// ```
/// use candle_core::{Result, Tensor};
/// use dunlin_nn::model::{Architecture, Init, InputShape, Parameters, register};
/// use dunlin_nn::{Error, ops::Graph};
///
/// /// Logistic regression on the squares of the features, in plain candle.
/// struct Squares;
///
/// impl Architecture for Squares {
///     fn parameters(&self, input: &InputShape, list: &mut Parameters) -> std::result::Result<(), Error> {
///         list.add("weight", &[input.classes, input.features()], Init::Uniform { inputs: input.features() });
///         list.add("bias", &[input.classes], Init::Constant(0.0));
///         Ok(())
///     }
///
///     fn forward(&self, _: &InputShape, _: &mut Graph<'_>, x: &Tensor, parameters: &[Tensor]) -> Result<Tensor> {
///         x.sqr()?.matmul(&parameters[0].t()?)?.broadcast_add(&parameters[1])
///     }
/// }
///
/// register("squares", Squares);
/// let kind: dunlin_core::recipe::ModelKind = "own:squares".parse().unwrap();
/// let model = dunlin_nn::model::Model::new(kind, &InputShape::table(4, 3))?;
/// assert_eq!(model.layout().len(), 15);
/// # Ok::<(), Error>(())
/// ```
pub fn register(name: impl Into<String>, architecture: impl Architecture + 'static) {
    // Nothing that can panic happens under the lock.
    REGISTRY.write().unwrap_or_else(PoisonError::into_inner).insert(name.into(), Arc::new(architecture));
}

pub(super) fn find(name: &str) -> Result<Arc<dyn Architecture>, Error> {
    let registry = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    registry.get(name).cloned().ok_or_else(|| {
        let known = registry.keys().map(|name| format!("own:{name}")).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none".to_owned() } else { known };
        let remedy =
            format!("this program has registered no such model (it has {known}); call dunlin_nn::model::register");
        Error::config("model.kind", format!("{:?}", format!("own:{name}")), remedy)
    })
}
