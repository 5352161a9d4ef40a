//! Speed of inference with small weights, and of dense layers in the engine that runs those, against dense f32 as in
//! training, on one thread: lines of model, kernels,
//! density, batch, examples per second (the median of seven passes, all variants in turn within each), the ratio to
//! dense, and the weights' bytes in memory:
//! `cargo run --release -p dunlin-nn --example small_inference [MODEL…]`
#![allow(clippy::print_stdout, reason = "a program that reports on the terminal")]

use dunlin_codec::Mask;
use dunlin_codec::container::{Tensor, Values, Width};
use dunlin_core::recipe::{ModelKind, Pattern, PruningConfig, Scope};
use dunlin_core::{Seed, TensorSpec};
use dunlin_nn::data::{Dataset, Examples};
use dunlin_nn::infer::{Calibration, Engine, Kernels, calibrate};
use dunlin_nn::model::{InputShape, Model};
use dunlin_nn::small::{Evidence, Keep, Pruning, prune, quantize};
use std::sync::Arc;
use std::time::Instant;

/// What is timed: the logits of a batch.
type Run<'a> = Box<dyn Fn(&[f32]) -> Vec<f32> + 'a>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    dunlin_nn::allocator::keep_freed_memory();
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        names = ["lenet-300-100", "2nn", "lenet-5", "mcmahan-cnn", "resnet8", "mobilenet"].map(str::to_owned).into();
    }
    println!("model kernels density batch examples_a_second ratio weight_bytes");
    for name in names {
        measure(&name)?;
    }
    Ok(())
}

fn measure(name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let kind: ModelKind = name.parse()?;
    let input = match kind {
        ModelKind::ResNet8 | ModelKind::ResNet20 | ModelKind::MobileNet | ModelKind::Vgg9 | ModelKind::Vgg11s => {
            InputShape::image(3, 32, 32, 10)
        }
        _ => InputShape::image(1, 28, 28, 10),
    };
    let mut model = Model::new(kind, &input)?;
    let params = model.init(&Seed::from_u64(1));
    model.load(&params)?;
    let specs = model.layout().tensors().iter().enumerate();
    let dense: Vec<(TensorSpec, Vec<f32>)> =
        specs.map(|(i, spec)| (spec.clone(), params[model.layout().range(i)].to_vec())).collect();
    let x: Vec<f32> = (0..32 * input.features() as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 2f32.powi(24))
        .collect();

    let engine = Engine::new(&model, &stored(&dense, None), &Calibration::new(), Kernels::Dense)?;
    let mut engines = vec![("engine 1".to_owned(), engine)];
    for density in [0.2, 0.1, 0.05, 0.02] {
        let mut pruned = dense.clone();
        prune(&mut pruned, Keep::Density(density), true);
        let engine = Engine::new(&model, &stored(&pruned, None), &Calibration::new(), Kernels::Auto)?;
        engines.push((format!("sparse {density}"), engine));
    }
    let data = Dataset::new("noise", input, x.clone(), vec![0; 32])?;
    let ranges = calibrate(&model, &stored(&dense, None), &Examples::all(Arc::new(data)))?;
    engines.push(("int8 1".into(), Engine::new(&model, &stored(&dense, Some(Width::Eight)), &ranges, Kernels::Auto)?));
    let weights: usize =
        model.layout().tensors().iter().filter(|spec| spec.shape.len() >= 2).map(TensorSpec::len).sum();
    let smaller = fewer_channels(&model, &params)?;
    let mut runs: Vec<(String, usize, Run<'_>)> =
        vec![("dense 1".into(), 4 * weights, Box::new(|x| model.logits(x).expect("rows of the model's shape")))];
    if let Some(smaller) = &smaller {
        let weights = smaller.layout().tensors().iter().filter(|spec| spec.shape.len() >= 2).map(TensorSpec::len);
        let run: Run<'_> = Box::new(|x| smaller.logits(x).expect("rows of the model's shape"));
        runs.push(("channels 0.1".into(), 4 * weights.sum::<usize>(), run));
    }
    for (name, engine) in &engines {
        runs.push((name.clone(), engine.weight_bytes(), Box::new(|x| engine.logits(x))));
    }
    for batch in [1, 32] {
        let x = &x[..batch * input.features()];
        let mut rates = vec![Vec::new(); runs.len()];
        let passes: Vec<usize> = runs.iter().map(|(_, _, run)| passes_of(run, x)).collect();
        for _ in 0..7 {
            for (((_, _, run), &passes), rates) in runs.iter().zip(&passes).zip(&mut rates) {
                let begun = Instant::now();
                for _ in 0..passes {
                    std::hint::black_box(run(x));
                }
                rates.push((passes * batch) as f64 / begun.elapsed().as_secs_f64());
            }
        }
        rates.iter_mut().for_each(|rates| rates.sort_by(f64::total_cmp));
        for ((what, bytes, _), rate) in runs.iter().zip(&rates) {
            println!("{name} {what} {batch} {:.0} {:.2} {bytes}", rate[3], rate[3] / rates[0][3]);
        }
    }
    Ok(())
}

/// The model without so many of its filters and units that a tenth of the weights is left, where it has layers that may lose some.
fn fewer_channels(model: &Model, params: &[f32]) -> Result<Option<Model>, Box<dyn std::error::Error>> {
    let config = PruningConfig {
        density: 0.1,
        pattern: Pattern::Channels,
        scope: Scope::Layer,
        steps: 1,
        ..PruningConfig::default()
    };
    let all = Mask::all(Arc::new(model.layout().segments()));
    let scores: Vec<f32> = params.iter().map(|w| w.abs()).collect();
    let evidence = Evidence { scores: &scores, gradients: &[] };
    let Some(mask) = Pruning::new(&config, model.layout()).step(1, &all, evidence) else { return Ok(None) };
    let Some(mut smaller) = model.shrunk(&mask)? else { return Ok(None) };
    let mut left = params.to_vec();
    mask.gather(&mut left);
    smaller.load(&left)?;
    Ok(Some(smaller))
}

/// Calls that take about a twentieth of a second.
fn passes_of(run: &Run<'_>, x: &[f32]) -> usize {
    run(x);
    let begun = Instant::now();
    run(x);
    ((0.05 / begun.elapsed().as_secs_f64()) as usize).clamp(1, 100_000)
}

fn stored(tensors: &[(TensorSpec, Vec<f32>)], width: Option<Width>) -> Vec<Tensor> {
    let values = |spec: &TensorSpec, values: &[f32]| match width {
        Some(width) if spec.shape.len() >= 2 => quantize(values, &spec.shape, width),
        _ => Values::F32(values.to_vec()),
    };
    let stored = |(spec, all): &(TensorSpec, Vec<f32>)| Tensor {
        name: spec.name.clone(),
        shape: spec.shape.clone(),
        values: values(spec, all),
    };
    tensors.iter().map(stored).collect()
}
