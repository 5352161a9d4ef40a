//! Parameter counts, gradients and initial values of the models.

mod composed;
mod portable;

use super::*;
use rand::RngCore;

const MNIST: InputShape = InputShape::image(1, 28, 28, 10);
const DIGITS: InputShape = InputShape::image(1, 8, 8, 10);
const CIFAR: InputShape = InputShape::image(3, 32, 32, 10);

fn trainable() -> impl Iterator<Item = ModelKind> {
    ModelKind::BUILT_IN.into_iter().filter(|kind| *kind != ModelKind::Trivial)
}

/// Two small kinds of data for an architecture: images, one of them odd and in colour, or sequences, of measurements and
/// of text with a label for each step.
fn small_inputs(kind: &ModelKind) -> [InputShape; 2] {
    match kind {
        ModelKind::Lenet5 | ModelKind::SimpleCnn => {
            [InputShape { height: 16, width: 17, ..DIGITS }, InputShape::image(2, 18, 16, 3)]
        }
        ModelKind::Vgg11s => [InputShape { height: 32, width: 33, ..DIGITS }, CIFAR],
        ModelKind::CharLstm | ModelKind::CharGru | ModelKind::Transformer => {
            [InputShape::sequence(3, 2, 3), InputShape::text(4, 5)]
        }
        ModelKind::Vgg9 => [DIGITS, InputShape::image(3, 9, 10, 4)],
        _ => [DIGITS, InputShape::image(2, 7, 6, 3)],
    }
}

/// Values that a data set of this shape could hold: tokens, or numbers in ±½.
fn values(input: &InputShape, rows: usize, rng: &mut impl RngCore) -> Tensor {
    let value = |_| match input.vocabulary {
        0 => f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5,
        vocabulary => f64::from(rng.next_u32() % vocabulary as u32),
    };
    let values: Vec<f64> = (0..rows * input.features()).map(value).collect();
    Tensor::from_vec(values, (rows, input.features()), &Device::Cpu).unwrap()
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
    assert_eq!(count(&ModelKind::TextbookCnn, MNIST), 320 + 54_090);
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
    // Reddi et al. 2021, table 2; with torch's layers, the second of two biases left out, as it adds nothing.
    assert_eq!(count(&ModelKind::CharLstm, InputShape::tokens(80, 90, 90)), 820_522);
    assert_eq!(count(&ModelKind::CharLstm, InputShape::text(80, 90)), 820_522);
    assert_eq!(count(&ModelKind::CharGru, InputShape::text(80, 90)), 720 + 203_776 + 394_240 + 23_130);
    let block = 2 * 256 + 128 * 384 + 384 + 128 * 128 + 128 + 2 * 128 * 512 + 512 + 128;
    let ends = 1000 * 128 + 64 * 128 + 256 + 2 * 128 + 2;
    assert_eq!(count(&ModelKind::Transformer, InputShape::tokens(64, 1000, 2)), 2 * block + ends);
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
fn every_architecture_takes_small_data() {
    for kind in trainable() {
        for input in small_inputs(&kind) {
            let mut model = Model::new(&kind, &input).unwrap();
            model.load(&model.init(&Seed::from_u64(1))).unwrap();
            let x = Tensor::ones((2, input.features()), DType::F32, &Device::Cpu).unwrap();
            assert_eq!(model.forward(&x).unwrap().dims(), [2 * input.targets, input.classes], "{kind:?}");
        }
    }
}

#[test]
fn models_of_sequences_refuse_what_is_none() {
    let text = InputShape::text(4, 5);
    for kind in [ModelKind::CharLstm, ModelKind::CharGru, ModelKind::Transformer] {
        for input in [
            InputShape::table(8, 2),
            CIFAR,
            InputShape { width: 2, ..text },
            InputShape { targets: 3, ..text },
            InputShape { targets: 0, ..text },
        ] {
            let error = Model::new(&kind, &input).unwrap_err();
            let key = if input.targets == 0 { "data.source" } else { "model.kind" };
            assert!(matches!(error, Error::Config { key: found, .. } if found == key), "{error}");
        }
    }
}

#[test]
fn a_token_beyond_the_vocabulary_is_an_error_and_no_panic() {
    let model = Model::new(&ModelKind::CharLstm, &InputShape::text(2, 5)).unwrap();
    let x = Tensor::new(&[[4f32, 5.0]], &Device::Cpu).unwrap();
    let error = model.forward(&x).unwrap_err().to_string();
    assert!(error.contains("token 5 in row 0, step 1"), "{error}");
}

#[test]
fn a_causal_transformer_does_not_look_ahead() {
    let mut model = Model::new(&ModelKind::Transformer, &InputShape::text(4, 5)).unwrap();
    model.load(&model.init(&Seed::from_u64(1))).unwrap();
    let logits = |last: f32| {
        let x = Tensor::new(&[[1f32, 2.0, 3.0, last]], &Device::Cpu).unwrap();
        model.forward(&x).unwrap().to_vec2::<f32>().unwrap()
    };
    let (first, second) = (logits(0.0), logits(4.0));
    assert!(first[..3] == second[..3] && first[3] != second[3]);
}

#[test]
fn noise_changes_a_transformer_in_training_alone_and_by_its_seed() {
    let mut model = Model::new(&ModelKind::Transformer, &InputShape::tokens(4, 5, 3)).unwrap();
    model.load(&model.init(&Seed::from_u64(1))).unwrap();
    let x = Tensor::new(&[[1f32, 2.0, 3.0, 0.0]], &Device::Cpu).unwrap();
    let loss =
        |noise: Option<u64>| model.gradients(&x, Target::Labels(&[1]), 1, noise.map(Seed::from_u64)).unwrap().loss;
    assert_eq!(loss(Some(1)), loss(Some(1)));
    assert_ne!(loss(Some(1)), loss(Some(2)));
    assert_ne!(loss(Some(1)), loss(None));
    let judged = cross_entropy(&mut Graph::candle(), &model.forward(&x).unwrap(), &[1], 1).unwrap();
    assert_eq!(scalar(&judged).unwrap(), loss(None));
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
            let x = values(&input, 3, &mut Seed::from_u64(7).rng());
            let labels: Vec<u32> = [0, 2, 1].repeat(input.targets);
            let count = labels.len();
            let gradients = model.gradients(&x, Target::Labels(&labels), count, None).unwrap();
            let loss = |model: &Model| cross_entropy(&mut Graph::candle(), &model.forward(&x).unwrap(), &labels, count);
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
    use candle_nn::rnn::{GRUConfig, LSTMConfig, RNN, gru, lstm};
    use candle_nn::{Conv2d, Conv2dConfig, Embedding, GroupNorm, Linear, Module, VarBuilder};
    use std::collections::HashMap;

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

        /// The tokens as vectors, or the measurements as they are.
        fn embedded(&mut self, input: &InputShape, x: &Tensor, width: usize) -> Result<Tensor> {
            if input.vocabulary == 0 {
                return x.reshape((x.dim(0)?, input.height, input.width));
            }
            Embedding::new(self.tensor(), width).forward(&x.to_dtype(DType::U32)?)
        }

        /// A layer of 256 recurrent units; our weights are candle's two side by side.
        fn recurrent(&mut self, x: &Tensor, is_gru: bool) -> Result<Tensor> {
            let (weight, bias, inputs) = (self.tensor(), self.tensor(), x.dim(2)?);
            let columns = |first, count| weight.narrow(1, first, count)?.contiguous();
            let zeros = Tensor::zeros(1024, DType::F64, &Device::Cpu)?;
            let (mut bias_input, mut bias_state) = (bias.clone(), zeros.clone());
            if is_gru {
                bias_input = bias.narrow(0, 0, 768)?;
                bias_state = Tensor::cat(&[zeros.narrow(0, 0, 512)?, bias.narrow(0, 768, 256)?], 0)?;
            }
            let tensors = HashMap::from([
                ("weight_ih_l0".to_owned(), columns(0, inputs)?),
                ("weight_hh_l0".to_owned(), columns(inputs, 256)?),
                ("bias_ih_l0".to_owned(), bias_input),
                ("bias_hh_l0".to_owned(), bias_state),
            ]);
            let tensors = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
            if is_gru {
                let states = gru(inputs, 256, GRUConfig::default(), tensors)?.seq(x)?;
                Tensor::stack(&states.into_iter().map(|state| state.h).collect::<Vec<_>>(), 1)
            } else {
                let states = lstm(inputs, 256, LSTMConfig::default(), tensors)?.seq(x)?;
                Tensor::stack(&states.into_iter().map(|state| state.h).collect::<Vec<_>>(), 1)
            }
        }

        /// In candle's slow form; the fast one takes no `f64`.
        fn layer_norm(&mut self, x: &Tensor) -> Result<Tensor> {
            candle_nn::ops::layer_norm_slow(x, &self.tensor(), &self.tensor(), 1e-5)
        }

        fn transformer_block(&mut self, x: &Tensor, is_causal: bool) -> Result<Tensor> {
            let (batch, steps, width) = x.dims3()?;
            let y = self.layer_norm(x)?;
            let qkv = self.linear().forward(&y)?;
            let heads = |part: usize| {
                let part = qkv.narrow(2, part * width, width)?.reshape((batch, steps, 4, width / 4))?;
                part.transpose(1, 2)?.contiguous()
            };
            let scores = (heads(0)?.matmul(&heads(1)?.t()?)? / (width as f64 / 4.0).sqrt())?;
            let future = |at: usize| if is_causal && at % steps > at / steps { f64::NEG_INFINITY } else { 0.0 };
            let mask = Tensor::from_vec((0..steps * steps).map(future).collect(), (steps, steps), &Device::Cpu)?;
            let weights = candle_nn::ops::softmax(&scores.broadcast_add(&mask)?, 3)?;
            let y = weights.matmul(&heads(2)?)?.transpose(1, 2)?.reshape((batch, steps, width))?;
            let x = (x + self.linear().forward(&y)?)?;
            let y = self.layer_norm(&x)?;
            let y = self.linear().forward(&y)?.gelu_erf()?;
            &x + self.linear().forward(&y)?
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
        let per_step = input.targets > 1;
        match kind {
            ModelKind::CharLstm | ModelKind::CharGru => {
                let is_gru = *kind == ModelKind::CharGru;
                let x = next.embedded(input, x, 8)?;
                let x = next.recurrent(&x, is_gru)?;
                let x = next.recurrent(&x, is_gru)?;
                let x = if per_step { x.flatten(0, 1)? } else { x.narrow(1, input.height - 1, 1)?.squeeze(1)? };
                next.linear().forward(&x)
            }
            ModelKind::Transformer => {
                let x = next.embedded(input, x, 128)?;
                let x = if input.vocabulary == 0 { next.linear().forward(&x)? } else { x };
                let mut x = x.broadcast_add(&next.tensor())?;
                for _ in 0..2 {
                    x = next.transformer_block(&x, per_step)?;
                }
                let x = next.layer_norm(&x)?;
                next.linear().forward(&if per_step { x.flatten(0, 1)? } else { x.mean(1)? })
            }
            ModelKind::Softmax => next.linear().forward(x),
            ModelKind::TwoNn | ModelKind::Lenet300 => next.hidden(x, 2),
            ModelKind::Mlp => next.hidden(x, 3),
            ModelKind::McmahanCnn => {
                let x = next.conv(true, 2, 1).forward(&images)?.relu()?.max_pool2d(2)?;
                let x = next.conv(true, 2, 1).forward(&x)?.relu()?.max_pool2d(2)?;
                next.hidden(&x.flatten_from(1)?, 1)
            }
            ModelKind::TextbookCnn => {
                let x = next.conv(true, 0, 1).forward(&images)?.relu()?.max_pool2d(2)?;
                next.linear().forward(&x.flatten_from(1)?)
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
                let x = values(&input, 3, &mut rng);
                let ours = model.forward(&x).unwrap();
                let theirs = logits(&kind, &input, &x, Next(model.views.iter())).unwrap();
                let most = theirs.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
                let off = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
                assert!(off <= 1e-9 * most, "{kind:?}: off by {off} of {most}");
            }
        }
    }
}

#[test]
fn gradients_left_in_factors_are_those_of_the_tensors() {
    let input = InputShape::image(28, 28, 1, 10);
    let mut model = Model::new(ModelKind::TwoNn, &input).unwrap();
    model.load(&model.init(&Seed::from_u64(3))).unwrap();
    for batch in [1, 7, 80] {
        let pixels: Vec<f32> = (0..batch * 784).map(|i| ((i * 31) % 97) as f32 / 97.0).collect();
        let x = Tensor::from_vec(pixels, (batch, 784), &Device::Cpu).unwrap();
        let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
        let whole = model.gradients(&x, Target::Labels(&labels), batch, None).unwrap();
        let stepped = model.gradients_to_step(&x, Target::Labels(&labels), batch, StepContext::default()).unwrap();
        assert!(whole.factors.is_empty());
        assert_eq!(whole.loss, stepped.loss);
        let mut in_factors = 0;
        for (index, expected) in whole.tensors.iter().enumerate() {
            let got = match (&stepped.factors[index], &stepped.tensors[index]) {
                (Some(factors), None) => factors.whole().unwrap(),
                (None, Some(tensor)) => tensor.clone(),
                other => panic!("{other:?}"),
            };
            in_factors += usize::from(stepped.factors[index].is_some());
            let bits = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(bits(&got), bits(expected.as_ref().unwrap()), "tensor {index}, {batch} rows");
        }
        // Of the first layer, whose weights are many, while rows are few.
        assert_eq!(in_factors, usize::from(batch <= 64), "{batch} rows");
    }
}
