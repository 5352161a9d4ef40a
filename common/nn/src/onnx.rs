//! Models as ONNX files, which run nearly everywhere: operator set 17, f32 or with 8-bit layers in QDQ form.
//!
//! An 8-bit layer is a float one between pairs of QuantizeLinear and DequantizeLinear: runtimes recognise the pattern and
//! use their integer kernels, and those that do not compute the same in floats. On x86 without VNNI,
//! onnxruntime's integer kernels saturate sums of two products unless `session.x64quantprecision` is 1. Group norm, which the set has not, is
//! an InstanceNormalization of the groups, a factor and a term.

mod proto;
mod sequence;

use crate::Error;
use crate::infer::Calibration;
use crate::model::{Extent, Model, Operation, Plan, Step, Value};
use crate::small::quantize;
use dunlin_codec::container::{Tensor, Values, Width};
use prost::Message;
use proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};
use std::collections::BTreeMap;

/// A model as an ONNX file: `input` is [batch, channels, height, width], or [batch, features] for models that take no
/// images, `logits` is [batch, classes], or [batch·steps, classes] where each step of a sequence has a label. With ranges of
/// their inputs by the name of the weight, convolutions and linear layers are of 8 bits, which those of sequences are not;
/// the words become the file's metadata.
///
/// # Errors
/// When the model has no plan and is none of sequences that come with this library, or a tensor or a range is missing.
pub fn onnx(
    model: &Model,
    tensors: &[Tensor],
    ranges: Option<&Calibration>,
    about: &BTreeMap<String, String>,
) -> Result<Vec<u8>, Error> {
    let mut graph = Graph { nodes: Vec::new(), initializers: Vec::new(), ranges };
    let mut by_parameter = Vec::new();
    for spec in model.layout().tensors() {
        let found = tensors.iter().find(|tensor| tensor.name == spec.name && tensor.shape == spec.shape);
        by_parameter.push(found.ok_or_else(|| {
            Error::malformed("the file", format!("it has no tensor {:?} of shape {:?}", spec.name, spec.shape))
        })?);
    }
    let mut input = Extent::Features(model.input().features());
    if ranges.is_some() || !graph.sequence(model, &by_parameter) {
        let plan = model.plan()?;
        for (index, step) in plan.steps.iter().enumerate() {
            let operands: Vec<String> = step.operands.iter().map(|&value| name_of(&plan, value)).collect();
            let parameters: Vec<&Tensor> = step.parameters.iter().map(|&parameter| by_parameter[parameter]).collect();
            let from = step.operands[0].0.checked_sub(1).map_or(plan.input, |step| plan.steps[step].extent);
            graph.step(step, from, &operands, &parameters, name_of(&plan, Value(index + 1)))?;
        }
        input = plan.input;
    }
    let input = match input {
        Extent::Image(extents) => extents.to_vec(),
        Extent::Features(len) => vec![len],
    };
    let rows = if model.input().targets > 1 { "rows" } else { BATCH };
    let graph = GraphProto {
        node: graph.nodes,
        name: Some(model.kind().to_string()),
        initializer: graph.initializers,
        input: vec![value_info(INPUT, BATCH, &input)],
        output: vec![value_info(OUTPUT, rows, &[model.input().classes])],
    };
    let words =
        about.iter().map(|(key, value)| StringStringEntryProto { key: Some(key.clone()), value: Some(value.clone()) });
    let file = ModelProto {
        ir_version: Some(8),
        producer_name: Some("dunlin".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        metadata_props: words.collect(),
    };
    Ok(file.encode_to_vec())
}

fn name_of(plan: &Plan, value: Value) -> String {
    match value {
        Value(0) => INPUT.to_owned(),
        value if value == plan.output => OUTPUT.to_owned(),
        Value(step) => format!("value{step}"),
    }
}

struct Graph<'a> {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    ranges: Option<&'a Calibration>,
}

impl Graph<'_> {
    fn step(
        &mut self,
        step: &Step,
        from: Extent,
        operands: &[String],
        parameters: &[&Tensor],
        to: String,
    ) -> Result<(), Error> {
        let x = operands[0].as_str();
        match step.operation {
            Operation::Conv { padding, stride, groups } => {
                let inputs = self.weighted(x, parameters)?;
                let kernel: Vec<i64> = parameters[0].shape[2..].iter().map(|&extent| extent as i64).collect();
                let attributes = vec![
                    ints("kernel_shape", kernel),
                    ints("pads", vec![padding as i64; 4]),
                    ints("strides", vec![stride as i64; 2]),
                    int("group", groups as i64),
                ];
                self.node("Conv", inputs, to, attributes);
            }
            Operation::Linear => {
                let inputs = self.weighted(x, parameters)?;
                self.node("Gemm", inputs, to, vec![int("transB", 1)]);
            }
            Operation::GroupNorm { groups } => self.group_norm(step, x, parameters, groups, to),
            Operation::Relu => self.node("Relu", [x], to, vec![]),
            Operation::Sigmoid => self.node("Sigmoid", [x], to, vec![]),
            Operation::Silu => {
                let gate = format!("{to}.gate");
                self.node("Sigmoid", [x], gate.clone(), vec![]);
                self.node("Mul", [x, &gate], to, vec![]);
            }
            Operation::Add => self.node("Add", operands, to, vec![]),
            Operation::ScaleChannels => {
                let factors = format!("{to}.factors");
                let shape = self.shape(&to, &[0, -1, 1, 1]);
                self.node("Reshape", [operands[1].as_str(), &shape], factors.clone(), vec![]);
                self.node("Mul", [x, &factors], to, vec![]);
            }
            Operation::MaxPool => {
                let two = || vec![2, 2];
                self.node("MaxPool", [x], to, vec![ints("kernel_shape", two()), ints("strides", two())]);
            }
            Operation::GlobalAvgPool => {
                let means = format!("{to}.means");
                self.node("GlobalAveragePool", [x], means.clone(), vec![]);
                self.node("Flatten", [means], to, vec![int("axis", 1)]);
            }
            Operation::Flatten => self.node("Flatten", [x], to, vec![int("axis", 1)]),
            Operation::Resize => {
                let (Extent::Image([_, old_height, old_width]), Extent::Image([_, height, width])) =
                    (from, step.extent)
                else {
                    return Ok(());
                };
                let scales = [1.0, 1.0, height as f32 / old_height as f32, width as f32 / old_width as f32];
                let scales = self.floats(&format!("{to}.scales"), &[4], &scales);
                let attributes = vec![string("mode", "linear"), string("coordinate_transformation_mode", "half_pixel")];
                self.node("Resize", [x, "", &scales], to, attributes);
            }
        }
        Ok(())
    }

    /// The operands of a layer with weights: the input, the weight and the bias, the first two rounded to 8 bits if asked.
    fn weighted(&mut self, x: &str, parameters: &[&Tensor]) -> Result<Vec<String>, Error> {
        let weight = parameters[0];
        let mut inputs = match self.ranges {
            None => vec![x.to_owned(), self.tensor(weight)],
            Some(ranges) => {
                let range = ranges.get(&weight.name).copied().ok_or_else(|| {
                    Error::malformed("the file", format!("it does not tell the range of what {:?} meets", weight.name))
                })?;
                let name = &weight.name;
                let (scale, zero) = range.scale_and_zero();
                let scale = self.floats(&format!("{name}.input_scale"), &[], &[scale]);
                let zero = self.bytes(&format!("{name}.input_zero"), &[], TensorProto::INT8, vec![zero ^ 0x80]);
                let (levels, rounded) = (format!("{name}.input_levels"), format!("{name}.input"));
                self.node("QuantizeLinear", [x, &scale, &zero], levels.clone(), vec![]);
                self.node("DequantizeLinear", [&levels, &scale, &zero], rounded.clone(), vec![]);
                vec![rounded, self.levels(weight)]
            }
        };
        if let Some(bias) = parameters.get(1) {
            inputs.push(self.tensor(bias));
        }
        Ok(inputs)
    }

    /// A weight of 8 bits.
    fn levels(&mut self, weight: &Tensor) -> String {
        let name = &weight.name;
        let values = match &weight.values {
            values @ Values::Integers { .. } => values.clone(),
            values => quantize(&values.to_f32(), &weight.shape, Width::Eight),
        };
        let Values::Integers { scales, levels, .. } = values else { unreachable!("they were just made") };
        let outputs = [scales.len()];
        let levels = levels.iter().map(|level| level.to_le_bytes()[0]).collect();
        let levels = self.bytes(&format!("{name}.levels"), &weight.shape, TensorProto::INT8, levels);
        let zeros = self.bytes(&format!("{name}.zeros"), &outputs, TensorProto::INT8, vec![0; scales.len()]);
        let scales = self.floats(&format!("{name}.scales"), &outputs, &scales);
        self.node("DequantizeLinear", [&levels, &scales, &zeros], name.clone(), vec![int("axis", 0)]);
        name.clone()
    }

    fn group_norm(&mut self, step: &Step, x: &str, parameters: &[&Tensor], groups: usize, to: String) {
        let Extent::Image([channels, height, width]) = step.extent else { return };
        let [grouped, normed, image, scaled] =
            ["grouped", "normed", "image", "scaled"].map(|part| format!("{to}.{part}"));
        let into_groups = self.shape(&grouped, &[0, groups as i64, -1]);
        let back = self.shape(&image, &[0, channels as i64, height as i64, width as i64]);
        let ones = self.floats(&format!("{normed}.ones"), &[groups], &vec![1.0; groups]);
        let zeros = self.floats(&format!("{normed}.zeros"), &[groups], &vec![0.0; groups]);
        let [gamma, beta] = [0, 1].map(|i| {
            let Tensor { name, values, .. } = parameters[i];
            self.floats(name, &[channels, 1, 1], &values.to_f32())
        });
        self.node("Reshape", [x, &into_groups], grouped.clone(), vec![]);
        self.node("InstanceNormalization", [&grouped, &ones, &zeros], normed.clone(), vec![float("epsilon", 1e-5)]);
        self.node("Reshape", [&normed, &back], image.clone(), vec![]);
        self.node("Mul", [&image, &gamma], scaled.clone(), vec![]);
        self.node("Add", [&scaled, &beta], to, vec![]);
    }

    fn node<S: ToString>(
        &mut self,
        operator: &str,
        input: impl IntoIterator<Item = S>,
        output: String,
        attribute: Vec<AttributeProto>,
    ) {
        self.nodes.push(NodeProto {
            input: input.into_iter().map(|name| name.to_string()).collect(),
            name: Some(format!("{operator}:{output}")),
            output: vec![output],
            op_type: Some(operator.to_owned()),
            attribute,
        });
    }

    fn tensor(&mut self, tensor: &Tensor) -> String {
        self.floats(&tensor.name, &tensor.shape, &tensor.values.to_f32())
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(name, shape, TensorProto::FLOAT, bytes)
    }

    /// A shape as a constant: 0 leaves an extent as it is, −1 is what is left.
    fn shape(&mut self, name: &str, extents: &[i64]) -> String {
        let bytes = extents.iter().flat_map(|extent| extent.to_le_bytes()).collect();
        self.bytes(&format!("{name}.shape"), &[extents.len()], TensorProto::INT64, bytes)
    }

    fn bytes(&mut self, name: &str, shape: &[usize], data_type: i32, raw_data: Vec<u8>) -> String {
        self.initializers.push(TensorProto {
            dims: shape.iter().map(|&extent| extent as i64).collect(),
            data_type: Some(data_type),
            name: Some(name.to_owned()),
            raw_data: Some(raw_data),
        });
        name.to_owned()
    }
}

fn value_info(name: &str, first: &str, extents: &[usize]) -> ValueInfoProto {
    let batch = Dimension { dim_value: None, dim_param: Some(first.to_owned()) };
    let extents = extents.iter().map(|&extent| Dimension { dim_value: Some(extent as i64), dim_param: None });
    let shape = TensorShapeProto { dim: std::iter::once(batch).chain(extents).collect() };
    let tensor_type = TensorType { elem_type: Some(TensorProto::FLOAT), shape: Some(shape) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind), ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeProto::INT) }
}

fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    AttributeProto { ints: values, ..attribute(name, AttributeProto::INTS) }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeProto::FLOAT) }
}

fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.into()), ..attribute(name, AttributeProto::STRING) }
}

const INPUT: &str = "input";
const BATCH: &str = "batch";
const OUTPUT: &str = "logits";

#[cfg(test)]
mod tests;
