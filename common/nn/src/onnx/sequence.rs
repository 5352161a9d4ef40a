//! Models of sequences as ONNX: recurrent layers are operators of their own, attention is put together.

use super::{Graph, INPUT, OUTPUT, float, int, ints};
use crate::model::{ATTENTION_HEADS, Model};
use dunlin_codec::container::Tensor;
use dunlin_core::recipe::ModelKind;

impl Graph<'_> {
    /// Writes a model of sequences from its tensors in the order of the layout; false for a model that is none.
    pub(super) fn sequence(&mut self, model: &Model, tensors: &[&Tensor]) -> bool {
        // Behind the architecture's own tensors lie the steps of one that rounds its weights.
        let own = (0..tensors.len()).take_while(|&index| !model.is_step(index)).count();
        let mut net = Net { graph: self, model, tensors: tensors[..own].iter() };
        match model.kind() {
            ModelKind::CharLstm => net.recurrent(&LSTM),
            ModelKind::CharGru => net.recurrent(&GRU),
            ModelKind::Transformer => net.transformer(),
            _ => return false,
        }
        true
    }
}

/// A recurrent layer's operator.
struct Cell {
    operator: &'static str,
    /// For each gate of the operator, which of ours it is.
    gates: &'static [usize],
    /// For each of these, which of our biases is added to what comes from the inputs, and which to what comes from the
    /// state, if one is.
    biases: &'static [(usize, Option<usize>)],
}

/// The operator has i, o, f, c; ours are i, f, g, o.
const LSTM: Cell =
    Cell { operator: "LSTM", gates: &[0, 3, 1, 2], biases: &[(0, None), (3, None), (1, None), (2, None)] };

/// The operator has z, r, h; ours are r, z, n, of which the last has a bias within the reset.
const GRU: Cell = Cell { operator: "GRU", gates: &[1, 0, 2], biases: &[(1, None), (0, None), (2, Some(3))] };

/// A model on its way: the tensors that are still to be used.
struct Net<'n, 'g> {
    graph: &'n mut Graph<'g>,
    model: &'n Model,
    tensors: std::slice::Iter<'n, &'n Tensor>,
}

impl<'n> Net<'n, '_> {
    fn next(&mut self) -> &'n Tensor {
        self.tensors.next().expect("as many tensors as the layout has")
    }

    fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        to: impl Into<String>,
        attributes: Vec<super::AttributeProto>,
    ) -> String {
        let to = to.into();
        self.graph.node(operator, inputs, to.clone(), attributes);
        to
    }

    fn reshape(&mut self, x: &str, extents: &[i64], to: impl Into<String>) -> String {
        let to = to.into();
        let shape = self.graph.shape(&to, extents);
        self.node("Reshape", &[x, &shape], to, vec![])
    }

    fn transposed(&mut self, x: &str, order: &[i64], to: impl Into<String>) -> String {
        self.node("Transpose", &[x], to, vec![ints("perm", order.to_vec())])
    }

    /// The vectors of the tokens: [batch, steps, elements].
    fn embedded(&mut self) -> String {
        let table = self.next();
        let table = self.graph.tensor(table);
        // 7 is INT64.
        let ids = self.node("Cast", &[INPUT], "ids", vec![int("to", 7)]);
        self.node("Gather", &[&table, &ids], "embedded", vec![])
    }

    /// What is measured, as [batch, steps, elements].
    fn measured(&mut self) -> String {
        let input = self.model.input();
        self.reshape(INPUT, &[-1, input.height as i64, input.width as i64], "measured")
    }

    fn has_tokens(&self) -> bool {
        self.model.input().vocabulary > 0
    }

    /// Whether each step has a label.
    fn labels_steps(&self) -> bool {
        self.model.input().targets > 1
    }

    /// A fully connected layer on [rows, elements], of which the logits come.
    fn head(&mut self, x: &str) {
        let (weight, bias) = (self.next(), self.next());
        let (weight, bias) = (self.graph.tensor(weight), self.graph.tensor(bias));
        self.node("Gemm", &[x, &weight, &bias], OUTPUT, vec![int("transB", 1)]);
    }

    fn recurrent(&mut self, cell: &Cell) {
        let x = if self.has_tokens() { self.embedded() } else { self.measured() };
        let mut x = self.transposed(&x, &[1, 0, 2], "steps");
        let mut units = 0;
        // Then come weight and bias of the head.
        while self.tensors.len() > 2 {
            let (weight, bias) = (self.next(), self.next());
            units = weight.shape[0] / cell.gates.len();
            x = self.layer(cell, &x, weight, bias, units);
        }
        let x = if self.labels_steps() {
            let x = self.transposed(&x, &[1, 0, 2], "outputs");
            self.reshape(&x, &[-1, units as i64], "rows")
        } else {
            let last = (self.model.input().height as i64 - 1).to_le_bytes().to_vec();
            let last = self.graph.bytes("last", &[], super::TensorProto::INT64, last);
            self.node("Gather", &[&x, &last], "rows", vec![int("axis", 0)])
        };
        self.head(&x);
    }

    /// A recurrent layer on [steps, batch, inputs].
    fn layer(&mut self, cell: &Cell, x: &str, weight: &Tensor, bias: &Tensor, units: usize) -> String {
        let (values, biases, name) = (weight.values.to_f32(), bias.values.to_f32(), weight.name.replace(".weight", ""));
        let (columns, gates) = (weight.shape[1], cell.gates.len());
        let inputs = columns - units;
        let rows =
            || cell.gates.iter().flat_map(|gate| values[gate * units * columns..].chunks_exact(columns).take(units));
        let of_inputs: Vec<f32> = rows().flat_map(|row| &row[..inputs]).copied().collect();
        let of_state: Vec<f32> = rows().flat_map(|row| &row[inputs..]).copied().collect();
        let part = |index: usize| biases[index * units..(index + 1) * units].to_vec();
        let from_inputs = cell.biases.iter().flat_map(|&(index, _)| part(index));
        let from_state = cell.biases.iter().flat_map(|&(_, index)| index.map_or_else(|| vec![0.0; units], part));
        let all: Vec<f32> = from_inputs.chain(from_state).collect();

        let w = self.graph.floats(&format!("{name}.W"), &[1, gates * units, inputs], &of_inputs);
        let r = self.graph.floats(&format!("{name}.R"), &[1, gates * units, units], &of_state);
        let b = self.graph.floats(&format!("{name}.B"), &[1, 2 * gates * units], &all);
        let mut attributes = vec![int("hidden_size", units as i64)];
        if cell.operator == "GRU" {
            attributes.push(int("linear_before_reset", 1));
        }
        let y = self.node(cell.operator, &[x, &w, &r, &b], format!("{name}.directions"), attributes);
        let axis = self.graph.shape(&format!("{name}.direction"), &[1]);
        self.node("Squeeze", &[&y, &axis], name, vec![])
    }

    fn transformer(&mut self) {
        let x = match self.has_tokens() {
            true => self.embedded(),
            false => {
                let x = self.measured();
                self.linear(&x)
            }
        };
        let positions = self.next();
        let (width, positions) = (positions.shape[1], self.graph.tensor(positions));
        let mut x = self.node("Add", &[&x, &positions], "placed", vec![]);
        // A block has twelve tensors; behind all are a norm and the head.
        for block in 1.. {
            if self.tensors.len() <= 4 {
                break;
            }
            let y = self.layer_norm(&x);
            let qkv = self.linear(&y);
            let y = self.attention(&qkv, width, block);
            let y = self.linear(&y);
            x = self.node("Add", &[&x, &y], format!("block{block}.attended"), vec![]);
            let y = self.layer_norm(&x);
            let y = self.linear(&y);
            let y = self.gelu(&y);
            let y = self.linear(&y);
            x = self.node("Add", &[&x, &y], format!("block{block}"), vec![]);
        }
        let x = self.layer_norm(&x);
        let x = if self.labels_steps() {
            self.reshape(&x, &[-1, width as i64], "rows")
        } else {
            self.node("ReduceMean", &[&x], "rows", vec![ints("axes", vec![1]), int("keepdims", 0)])
        };
        self.head(&x);
    }

    /// A fully connected layer on each step.
    fn linear(&mut self, x: &str) -> String {
        let (weight, bias) = (self.next(), self.next());
        let name = weight.name.replace(".weight", "");
        let [outputs, inputs] = [weight.shape[0], weight.shape[1]];
        let mut turned = vec![0.0; outputs * inputs];
        crate::ops::transpose(&weight.values.to_f32(), inputs, &mut turned, outputs);
        let weight = self.graph.floats(&weight.name, &[inputs, outputs], &turned);
        let bias = self.graph.tensor(bias);
        let product = self.node("MatMul", &[x, &weight], format!("{name}.product"), vec![]);
        self.node("Add", &[&product, &bias], name, vec![])
    }

    fn layer_norm(&mut self, x: &str) -> String {
        let (gamma, beta) = (self.next(), self.next());
        let name = gamma.name.replace(".weight", "");
        let (gamma, beta) = (self.graph.tensor(gamma), self.graph.tensor(beta));
        let attributes = vec![int("axis", -1), float("epsilon", 1e-5)];
        self.node("LayerNormalization", &[x, &gamma, &beta], format!("{name}.normed"), attributes)
    }

    /// x·Φ(x) with the error function.
    fn gelu(&mut self, x: &str) -> String {
        let [root, one, half] = [("root", 0.5f32.sqrt()), ("one", 1.0), ("half", 0.5)]
            .map(|(name, value)| self.graph.floats(&format!("{x}.{name}"), &[], &[value]));
        let scaled = self.node("Mul", &[x, &root], format!("{x}.scaled"), vec![]);
        let erf = self.node("Erf", &[&scaled], format!("{x}.erf"), vec![]);
        let sum = self.node("Add", &[&erf, &one], format!("{x}.sum"), vec![]);
        let gate = self.node("Mul", &[&sum, &half], format!("{x}.gate"), vec![]);
        self.node("Mul", &[x, &gate], format!("{x}.gelu"), vec![])
    }

    /// Attention of [batch, steps, 3·width].
    fn attention(&mut self, qkv: &str, width: usize, block: usize) -> String {
        let named = |part: &str| format!("block{block}.{part}");
        let (heads, depth) = (ATTENTION_HEADS as i64, (width / ATTENTION_HEADS) as i64);
        // Queries, keys and values come first: [3, batch, heads, steps, depth].
        let steps = self.model.input().height;
        let parts = self.reshape(qkv, &[-1, steps as i64, 3, heads, depth], named("parts"));
        let parts = self.transposed(&parts, &[2, 0, 3, 1, 4], named("heads"));
        let [q, k, v] = [("q", 0i64), ("k", 1), ("v", 2)].map(|(name, index)| {
            let index = index.to_le_bytes().to_vec();
            let index = self.graph.bytes(&named(&format!("{name}.index")), &[], super::TensorProto::INT64, index);
            self.node("Gather", &[&parts, &index], named(name), vec![int("axis", 0)])
        });
        let k = self.transposed(&k, &[0, 1, 3, 2], named("keys"));
        let scores = self.node("MatMul", &[&q, &k], named("products"), vec![]);
        let scale = self.graph.floats(&named("scale"), &[], &[1.0 / (depth as f32).sqrt()]);
        let mut scores = self.node("Mul", &[&scores, &scale], named("scores"), vec![]);
        if self.labels_steps() {
            // No step sees a later one.
            let future = |at: usize| if at % steps > at / steps { f32::NEG_INFINITY } else { 0.0 };
            let future: Vec<f32> = (0..steps * steps).map(future).collect();
            let future = self.graph.floats(&named("future"), &[steps, steps], &future);
            scores = self.node("Add", &[&scores, &future], named("past"), vec![]);
        }
        let weights = self.node("Softmax", &[&scores], named("weights"), vec![int("axis", -1)]);
        let y = self.node("MatMul", &[&weights, &v], named("means"), vec![]);
        let y = self.transposed(&y, &[0, 2, 1, 3], named("steps"));
        self.reshape(&y, &[-1, steps as i64, width as i64], named("attention"))
    }
}
