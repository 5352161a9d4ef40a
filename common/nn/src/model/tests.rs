//! Parameter counts, gradients and initial values of the models.

use super::*;
use rand::RngCore;

const MNIST: InputShape = InputShape::image(1, 28, 28, 10);
const DIGITS: InputShape = InputShape::image(1, 8, 8, 10);
const CIFAR: InputShape = InputShape::image(3, 32, 32, 10);

fn trainable() -> impl Iterator<Item = ModelKind> {
    let others = [ModelKind::Trivial, ModelKind::CharLstm, ModelKind::CharGru, ModelKind::Transformer];
    ModelKind::BUILT_IN.into_iter().filter(move |kind| !others.contains(kind))
}

/// Two small kinds of images for an architecture, one of them odd and in colour.
fn small_inputs(kind: &ModelKind) -> [InputShape; 2] {
    match kind {
        ModelKind::Lenet5 | ModelKind::SimpleCnn => {
            [InputShape { height: 16, width: 17, ..DIGITS }, InputShape::image(2, 18, 16, 3)]
        }
        ModelKind::Vgg11s => [InputShape { height: 32, width: 33, ..DIGITS }, CIFAR],
        ModelKind::Vgg9 => [DIGITS, InputShape::image(3, 9, 10, 4)],
        _ => [DIGITS, InputShape::image(2, 7, 6, 3)],
    }
}

fn count(kind: &ModelKind, input: InputShape) -> usize {
    Model::new(kind, &input).unwrap().layout().len()
}

#[test]
fn parameter_counts_are_those_of_the_papers() {
    assert_eq!(count(&ModelKind::Softmax, MNIST), 7_850);
    assert_eq!(count(&ModelKind::TwoNn, MNIST), 199_210);
    assert_eq!(count(&ModelKind::McmahanCnn, MNIST), 1_663_370);
    assert_eq!(count(&ModelKind::ResNet8, MNIST), 77_754);
    assert_eq!(count(&ModelKind::ResNet8, CIFAR), 78_042);
    assert_eq!(count(&ModelKind::ResNet20, CIFAR), 272_474);
    assert_eq!(count(&ModelKind::Lenet300, MNIST), 266_610);
    assert_eq!(count(&ModelKind::Lenet5, MNIST), 431_080);
    assert_eq!((count(&ModelKind::SimpleCnn, MNIST), count(&ModelKind::SimpleCnn, CIFAR)), (44_426, 62_006));
    assert_eq!(count(&ModelKind::Vgg9, CIFAR), 3_491_530);
    assert_eq!(count(&ModelKind::Vgg11s, CIFAR), 865_482);
    // 3·9·32 + Σ pairs (9·in + in·out) + norms 2·(32 + Σ (in + out)) + 256·10 + 10.
    let pairs = [(32, 64), (64, 128), (128, 128), (128, 256), (256, 256)];
    let pairs: usize = pairs.iter().map(|(i, o)| 9 * i + i * o + 2 * (i + o)).sum();
    assert_eq!(count(&ModelKind::MobileNet, CIFAR), 3 * 9 * 32 + 2 * 32 + pairs + 2_570);
    let scaled = |scaling| Model::new(ModelConfig { scaling, ..ModelKind::EfficientNet.into() }, &CIFAR).unwrap();
    let sizes = [-2.0, 0.0, 1.0, 2.0].map(|scaling| scaled(scaling).layout().len());
    assert_eq!(sizes, [209_626, 322_090, 571_406, 815_074]);
    let half = ModelConfig { width: 0.5, ..ModelKind::MobileNet.into() };
    let half = Model::new(half, &CIFAR).unwrap();
    assert_eq!(half.layout().tensors()[0].shape, [16, 3, 3, 3]);
    let table = InputShape::image(1, 1, 13, 2);
    assert_eq!(count(&ModelKind::Mlp, table), 13 * 32 + 32 + 32 * 16 + 16 + 16 * 8 + 8 + 8 * 2 + 2);
    assert_eq!(count(&ModelKind::Trivial, InputShape::image(1, 1, 123, 1)), 123);
}

#[test]
fn inputs_that_an_architecture_cannot_take_are_refused() {
    let narrow = InputShape { height: 1, width: 30, ..DIGITS };
    assert!(matches!(Model::new(&ModelKind::McmahanCnn, &narrow), Err(Error::Config { key: "model.kind", .. })));
    assert!(matches!(Model::new(&ModelKind::Lenet5, &DIGITS), Err(Error::Config { key: "model.kind", .. })));
    let nothing = InputShape { width: 0, ..DIGITS };
    assert!(matches!(Model::new(&ModelKind::Softmax, &nothing), Err(Error::Config { .. })));
    let huge = InputShape::image(1, 1, usize::MAX, 1);
    assert!(matches!(Model::new(&ModelKind::Trivial, &huge), Err(Error::Config { .. })));
}

#[test]
fn every_architecture_takes_small_odd_and_colour_images() {
    for kind in trainable() {
        for input in small_inputs(&kind) {
            let mut model = Model::new(&kind, &input).unwrap();
            model.load(&model.init(&Seed::from_u64(1))).unwrap();
            let x = Tensor::ones((2, input.features()), DType::F32, &Device::Cpu).unwrap();
            assert_eq!(model.forward(&x).unwrap().dims(), [2, input.classes], "{kind:?}");
        }
    }
}

#[test]
fn the_flat_vector_comes_back_as_it_went_in() {
    let mut model = Model::new(&ModelKind::ResNet8, &DIGITS).unwrap();
    let flat: Vec<f32> = (0..model.layout().len()).map(|i| i as f32).collect();
    model.load(&flat).unwrap();
    let mut stored = vec![0.0; flat.len()];
    let memory = stored.as_ptr();
    model.swap(&mut stored).unwrap();
    assert_eq!(stored, flat);
    model.swap(&mut stored).unwrap();
    assert_eq!((stored.as_ptr(), stored.iter().all(|&x| x == 0.0)), (memory, true), "nothing was copied");
    let error = model.load(&flat[1..]).unwrap_err();
    assert!(matches!(error, Error::ParameterCount { expected: 77_754, actual: 77_753 }));
}

#[test]
fn initial_weights_are_golden_and_within_their_bound() {
    let model = Model::new(&ModelKind::TwoNn, &DIGITS).unwrap();
    let flat = model.init(&Seed::from_u64(1));
    let first = &flat[model.layout().range(0)];
    let (low, high) = first.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
    assert!((-0.125..-0.1249).contains(&low) && (0.1249..0.125).contains(&high), "{low} {high}");
    // A change here changes every run that anybody has recorded.
    assert_eq!([flat[0], flat[1], flat[30_000]], [-0.079_765_59, 0.017_047_554, -0.021_191_917]);
    assert_ne!(flat, model.init(&Seed::from_u64(2)));
}

#[test]
fn norms_start_as_the_identity() {
    let model = Model::new(&ModelKind::ResNet8, &DIGITS).unwrap();
    let flat = model.init(&Seed::from_u64(1));
    let of = |name| {
        let index = model.layout().tensors().iter().position(|tensor| tensor.name == name).unwrap();
        &flat[model.layout().range(index)]
    };
    assert_eq!((of("norm.weight"), of("norm.bias")), ([1.0; 16].as_slice(), [0.0; 16].as_slice()));
}

/// The slope of the loss along a random direction against a central difference, in 64 bits.
#[test]
fn the_gradient_of_every_whole_model_is_right() {
    for kind in trainable() {
        for input in small_inputs(&kind) {
            let mut model = Model::with_dtype((&kind).into(), &input, DType::F64).unwrap();
            let flat = model.init(&Seed::from_u64(5));
            model.load(&flat).unwrap();
            let mut rng = Seed::from_u64(6).rng();
            let mut random = |len: usize| -> Vec<f64> {
                (0..len).map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5).collect()
            };
            let x = Tensor::from_vec(random(3 * input.features()), (3, input.features()), &Device::Cpu).unwrap();
            let labels = [0, 2, 1];
            let gradients = model.gradients(&x, &labels, 3, None).unwrap();
            let loss = |model: &Model| cross_entropy(&mut Graph::candle(), &model.forward(&x).unwrap(), &labels, 3);
            let tensors = gradients.tensors.iter().map(|tensor| tensor.as_ref().unwrap().flatten_all().unwrap());
            let taped = Tensor::cat(&tensors.collect::<Vec<_>>(), 0).unwrap();
            let candles = loss(&model).unwrap().backward().unwrap();
            let difference = (&taped - candles.get(model.variable()).unwrap()).unwrap().abs().unwrap();
            assert!(difference.max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-12, "{kind}");
            let direction = Tensor::from_vec(random(flat.len()), flat.len(), &Device::Cpu).unwrap();
            let slope = (&direction * &taped).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
            let origin = model.variable().copy().unwrap();
            // Short enough that hardly a rectifier of a million turns within it.
            let step = 1e-8;
            let at = |offset: f64| {
                model.variable().set(&(&origin + (&direction * offset).unwrap()).unwrap()).unwrap();
                loss(&model).unwrap().to_scalar::<f64>().unwrap()
            };
            let numeric = (at(step) - at(-step)) / (2.0 * step);
            assert!((numeric - slope).abs() < 1e-5 * numeric.abs().max(0.1), "{kind}: {slope}, want {numeric}");
        }
    }
}

/// The models as a user of candle would write them: the same parameters give the same logits.
mod with_candle_nn {
    use super::*;
    use candle_core::Result;
    use candle_nn::{Conv2d, Conv2dConfig, GroupNorm, Linear, Module};

    /// The parameters of a model, in order.
    struct Next<'a>(std::slice::Iter<'a, Tensor>);

    impl Next<'_> {
        fn tensor(&mut self) -> Tensor {
            self.0.next().expect("a layer has its tensors").clone()
        }

        fn linear(&mut self) -> Linear {
            Linear::new(self.tensor(), Some(self.tensor()))
        }

        fn conv(&mut self, has_bias: bool, padding: usize, stride: usize) -> Conv2d {
            let (weight, bias) = (self.tensor(), has_bias.then(|| self.tensor()));
            Conv2d::new(weight, bias, Conv2dConfig { padding, stride, ..Conv2dConfig::default() })
        }

        fn grouped_conv(&mut self, padding: usize, stride: usize, groups: usize) -> Conv2d {
            Conv2d::new(self.tensor(), None, Conv2dConfig { padding, stride, groups, ..Conv2dConfig::default() })
        }

        /// An inverted bottleneck whose inside is `expansion` times as wide as its input.
        fn bottleneck(&mut self, x: &Tensor, expansion: usize, kernel: usize, stride: usize) -> Result<Tensor> {
            let mut y = x.clone();
            if expansion > 1 {
                y = self.conv_norm(&y, 0, 1, 1)?.silu()?;
            }
            let channels = y.dim(1)?;
            y = self.conv_norm(&y, kernel / 2, stride, channels)?.silu()?;
            let squeezed = self.linear().forward(&y.mean((2, 3))?)?.silu()?;
            let excited = candle_nn::ops::sigmoid(&self.linear().forward(&squeezed)?)?;
            y = y.broadcast_mul(&excited.unsqueeze(2)?.unsqueeze(3)?)?;
            y = self.conv_norm(&y, 0, 1, 1)?;
            if y.dims() == x.dims() { y + x } else { Ok(y) }
        }

        fn hidden(&mut self, x: &Tensor, layers: usize) -> Result<Tensor> {
            let mut x = x.clone();
            for _ in 0..layers {
                x = self.linear().forward(&x)?.relu()?;
            }
            self.linear().forward(&x)
        }

        fn conv_norm(&mut self, x: &Tensor, padding: usize, stride: usize, groups: usize) -> Result<Tensor> {
            let x = self.grouped_conv(padding, stride, groups).forward(x)?;
            let channels = x.dim(1)?;
            GroupNorm::new(self.tensor(), self.tensor(), channels, 8, 1e-5)?.forward(&x)
        }
    }

    fn logits(kind: &ModelKind, input: &InputShape, x: &Tensor, mut next: Next<'_>) -> Result<Tensor> {
        let images = x.reshape((x.dim(0)?, input.channels, input.height, input.width))?;
        match kind {
            ModelKind::Softmax => next.linear().forward(x),
            ModelKind::TwoNn | ModelKind::Lenet300 => next.hidden(x, 2),
            ModelKind::Mlp => next.hidden(x, 3),
            ModelKind::McmahanCnn => {
                let x = next.conv(true, 2, 1).forward(&images)?.relu()?.max_pool2d(2)?;
                let x = next.conv(true, 2, 1).forward(&x)?.relu()?.max_pool2d(2)?;
                next.hidden(&x.flatten_from(1)?, 1)
            }
            ModelKind::Lenet5 | ModelKind::SimpleCnn => {
                let x = next.conv(true, 0, 1).forward(&images)?.relu()?.max_pool2d(2)?;
                let x = next.conv(true, 0, 1).forward(&x)?.relu()?.max_pool2d(2)?;
                next.hidden(&x.flatten_from(1)?, if *kind == ModelKind::Lenet5 { 1 } else { 2 })
            }
            ModelKind::Vgg9 => {
                let mut x = images;
                for _ in 0..3 {
                    x = next.conv(true, 1, 1).forward(&x)?.relu()?;
                    x = next.conv(true, 1, 1).forward(&x)?.relu()?.max_pool2d(2)?;
                }
                next.hidden(&x.flatten_from(1)?, 2)
            }
            ModelKind::Vgg11s => {
                let mut x = images;
                for is_pooled in [true, true, false, true, false, true, false, true] {
                    x = next.conv(true, 1, 1).forward(&x)?.relu()?;
                    x = if is_pooled { x.max_pool2d(2)? } else { x };
                }
                next.hidden(&x.flatten_from(1)?, 2)
            }
            ModelKind::EfficientNet => {
                let mut x = next.conv_norm(&images, 1, 1, 1)?.silu()?;
                let blocks = [(1, 3, 1), (6, 3, 2), (6, 3, 1), (6, 5, 2), (6, 5, 1), (6, 3, 2), (6, 3, 1), (6, 3, 1)];
                for (expansion, kernel, stride) in blocks {
                    x = next.bottleneck(&x, expansion, kernel, stride)?;
                }
                x = next.conv_norm(&x, 0, 1, 1)?.silu()?;
                next.linear().forward(&x.mean((2, 3))?)
            }
            ModelKind::MobileNet => {
                let mut x = next.conv_norm(&images, 1, 1, 1)?.relu()?;
                for stride in [1, 2, 1, 2, 1] {
                    let channels = x.dim(1)?;
                    x = next.conv_norm(&x, 1, stride, channels)?.relu()?;
                    x = next.conv_norm(&x, 0, 1, 1)?.relu()?;
                }
                next.linear().forward(&x.mean((2, 3))?)
            }
            ModelKind::ResNet8 | ModelKind::ResNet20 => {
                let strides: &[usize] = match kind {
                    ModelKind::ResNet8 => &[1, 2, 2],
                    _ => &[1, 1, 1, 2, 1, 1, 2, 1, 1],
                };
                let mut x = next.conv_norm(&images, 1, 1, 1)?.relu()?;
                for &stride in strides {
                    let y = next.conv_norm(&x, 1, stride, 1)?.relu()?;
                    let y = next.conv_norm(&y, 1, 1, 1)?;
                    let shortcut = if stride == 2 { next.conv_norm(&x, 0, stride, 1)? } else { x };
                    x = (y + shortcut)?.relu()?;
                }
                next.linear().forward(&x.mean((2, 3))?)
            }
            _ => unreachable!("{kind} is not to be trained"),
        }
    }

    #[test]
    fn every_model_computes_what_the_layers_of_candle_nn_do() {
        for kind in trainable() {
            for input in small_inputs(&kind) {
                let mut model = Model::with_dtype((&kind).into(), &input, DType::F64).unwrap();
                let mut rng = Seed::from_u64(8).rng();
                // Also the norms' parameters, which start as an identity that would hide their order.
                let flat: Vec<f32> =
                    (0..model.layout().len()).map(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.4).collect();
                model.load(&flat).unwrap();
                let x: Vec<f64> = (0..3 * input.features()).map(|_| f64::from(rng.next_u32()) / 4e9 - 0.5).collect();
                let x = Tensor::from_vec(x, (3, input.features()), &Device::Cpu).unwrap();
                let ours = model.forward(&x).unwrap();
                let theirs = logits(&kind, &input, &x, Next(model.views.iter())).unwrap();
                let most = theirs.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
                let off = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
                assert!(off <= 1e-9 * most, "{kind:?}: off by {off} of {most}");
            }
        }
    }
}
