//! The structure of exported files, by decoding them. What they compute is checked by `scripts/check-onnx`.

use super::*;
use crate::data::{Dataset, Examples};
use crate::infer::tests::{model, numbers, zoo};
use crate::infer::{Range, calibrate};
use crate::model::InputShape;
use dunlin_core::recipe::{ModelConfig, ModelKind, Steps, WeightFormat};
use std::collections::BTreeSet;
use std::sync::Arc;

fn decoded(file: &[u8]) -> GraphProto {
    let model = ModelProto::decode(file).unwrap();
    assert_eq!((model.ir_version, model.opset_import[0].version), (Some(8), Some(17)));
    model.graph.unwrap()
}

fn operators(graph: &GraphProto) -> Vec<&str> {
    graph.node.iter().map(|node| node.op_type.as_deref().unwrap()).collect()
}

/// Every value is made before it is used, once, and every constant is as long as its shape says.
fn check(graph: &GraphProto) {
    let mut known: BTreeSet<&str> = graph.input.iter().map(|input| input.name.as_deref().unwrap()).collect();
    for tensor in &graph.initializer {
        let name = tensor.name.as_deref().unwrap();
        assert!(known.insert(name), "{name} is there twice");
        let width = match tensor.data_type.unwrap() {
            TensorProto::FLOAT => 4,
            TensorProto::INT64 => 8,
            _ => 1,
        };
        assert_eq!(
            tensor.raw_data.as_ref().unwrap().len() as i64,
            width * tensor.dims.iter().product::<i64>(),
            "{name}"
        );
    }
    for node in &graph.node {
        let name = node.name.as_deref().unwrap();
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            assert!(known.contains(input.as_str()), "{name} takes {input}, which is not there yet");
        }
        for output in &node.output {
            assert!(known.insert(output), "{name} makes {output} again");
        }
    }
    assert!(known.contains(graph.output[0].name.as_deref().unwrap()));
}

#[test]
fn every_model_with_a_plan_is_exported_in_both_precisions() {
    for (config, input) in zoo() {
        let (model, tensors) = model(config.clone(), &input);
        let graph = decoded(&onnx(&model, &tensors, None, &model.about()).unwrap());
        check(&graph);
        let layers = operators(&graph).iter().filter(|operator| ["Conv", "Gemm"].contains(operator)).count();
        assert!(!operators(&graph).contains(&"QuantizeLinear"), "{config:?}");

        let data = Dataset::new("test", input, numbers(1, 2 * input.features()), vec![0; 2]).unwrap();
        let ranges = calibrate(&model, &tensors, &Examples::all(Arc::new(data))).unwrap();
        assert_eq!(ranges.len(), layers, "{config:?}");
        let graph = decoded(&onnx(&model, &tensors, Some(&ranges), &model.about()).unwrap());
        check(&graph);
        let count = |wanted: &str| operators(&graph).iter().filter(|&&operator| operator == wanted).count();
        assert_eq!((count("QuantizeLinear"), count("DequantizeLinear")), (layers, 2 * layers), "{config:?}");
    }
}

#[test]
fn a_table_is_two_layers_of_the_expected_operators_and_constants() {
    let (model, tensors) = model(ModelKind::Lenet300.into(), &InputShape::table(4, 3));
    let file = onnx(&model, &tensors, None, &model.about()).unwrap();
    let graph = decoded(&file);
    assert_eq!(operators(&graph), ["Gemm", "Relu", "Gemm", "Relu", "Gemm"]);
    assert_eq!(graph.node[0].input, ["input", "fc1.weight", "fc1.bias"]);
    assert_eq!(graph.node[4].output, ["logits"]);
    assert_eq!(graph.initializer[0].dims, [300, 4]);
    assert_eq!(graph.initializer[0].raw_data.as_ref().unwrap()[..4], tensors[0].values.to_f32()[0].to_le_bytes());
    let shape = graph.input[0].r#type.clone().unwrap().tensor_type.unwrap().shape.unwrap().dim;
    assert_eq!((shape[0].dim_param.as_deref(), shape[1].dim_value), (Some("batch"), Some(4)));
    let words = ModelProto::decode(file.as_slice()).unwrap().metadata_props;
    assert!(
        words.iter().any(|word| word.key.as_deref() == Some("model") && word.value.as_deref() == Some("lenet-300-100"))
    );
}

#[test]
fn levels_of_the_file_are_exported_as_they_are() {
    let (model, mut tensors) = model(ModelKind::Softmax.into(), &InputShape::table(4, 3));
    tensors[0].values = quantize(&tensors[0].values.to_f32(), &tensors[0].shape, Width::Four);
    let ranges = Calibration::from([("fc.weight".to_owned(), Range { least: -1.0, largest: 1.0 })]);
    let graph = decoded(&onnx(&model, &tensors, Some(&ranges), &BTreeMap::new()).unwrap());
    let levels = graph.initializer.iter().find(|tensor| tensor.name.as_deref() == Some("fc.weight.levels")).unwrap();
    let Values::Integers { levels: expected, .. } = &tensors[0].values else { unreachable!() };
    assert_eq!(levels.raw_data.as_ref().unwrap(), &expected.iter().map(|&level| level as u8).collect::<Vec<_>>());
    let error = onnx(&model, &tensors, Some(&Calibration::new()), &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("the range of what \"fc.weight\" meets"), "{error}");
}

#[test]
fn models_of_sequences_are_exported_in_floats() {
    let inputs = [InputShape::text(5, 20), InputShape::tokens(4, 20, 3), InputShape::sequence(6, 7, 2)];
    for (kind, layers) in
        [(ModelKind::CharLstm, "LSTM"), (ModelKind::CharGru, "GRU"), (ModelKind::Transformer, "Softmax")]
    {
        for input in inputs {
            let (model, tensors) = model(kind.clone().into(), &input);
            let graph = decoded(&onnx(&model, &tensors, None, &BTreeMap::new()).unwrap());
            check(&graph);
            let count = |wanted: &str| operators(&graph).iter().filter(|&&operator| operator == wanted).count();
            assert_eq!((count(layers), count("Gemm")), (2, 1), "{kind}, {input:?}");
            assert_eq!(count("Gather") > 0, input.vocabulary > 0 || input.targets == 1, "{kind}, {input:?}");
            let values =
                |graph: &GraphProto| graph.initializer.iter().map(|t| t.dims.iter().product::<i64>()).sum::<i64>();
            assert!(values(&graph) >= model.layout().len() as i64, "{kind}: every parameter is there");
        }
        let (model, tensors) = model(kind.clone().into(), &inputs[0]);
        let learned = ModelConfig { weights: WeightFormat::Int8, steps: Steps::Learned, ..kind.clone().into() };
        let (with_steps, all) = crate::infer::tests::model(learned, &inputs[0]);
        assert!(all.len() > tensors.len(), "{kind}");
        let nodes = |model, tensors| decoded(&onnx(model, tensors, None, &BTreeMap::new()).unwrap()).node;
        assert_eq!(nodes(&with_steps, &all), nodes(&model, &tensors), "{kind}: steps are no layers");
        let error = onnx(&model, &tensors, Some(&Calibration::new()), &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("model.kind = {kind}: it cannot be told as a list of steps")), "{error}");
    }
}
