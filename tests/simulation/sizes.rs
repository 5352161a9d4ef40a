//! Clients of several sizes.

use crate::{Lines, recipe, timeless};
use dunlin::client::driver::Workplace;
use dunlin::client::trainer::{Trainer, TrainerError};
use dunlin::core::recipe::Width;
use dunlin::core::report::{ClientSummary, SizeEvaluation};
use dunlin::core::{ClientId, Layout, TensorSpec};
use dunlin::simulation::Transport;
use dunlin::{Recipe, Simulation};
use std::sync::Arc;

#[test]
fn clients_of_several_sizes_train_one_model_and_the_small_ones_pay_less() {
    let sets = ["rounds.count=30", "size=[{width=1}, {width=0.5, share=2}, {width=0.25}]"];
    let outcome = timeless(Simulation::new(recipe(&sets)).run().unwrap());
    let report = &outcome.report;
    let widths: Vec<f64> = report.sizes.iter().map(|size| size.width.share()).collect();
    assert_eq!(widths, [1.0, 0.5, 0.25]);
    // The smaller ones learn later: chance is a tenth.
    let is_learned = |(size, least): (&SizeEvaluation, f64)| size.accuracy > least;
    assert!(report.sizes.iter().zip([0.85, 0.85, 0.35]).all(is_learned), "{:?}", report.sizes);
    assert_eq!((report.sizes[0].accuracy, report.sizes[0].params), (report.accuracy, report.params));
    assert_eq!(outcome.rounds.last().unwrap().sizes, report.sizes);

    // Half of the clients have half of each layer, and a quarter a quarter.
    let of = |share: f64| outcome.clients.iter().filter(move |client| client.width.share() == share);
    assert_eq!([of(1.0).count(), of(0.5).count(), of(0.25).count()], [5, 10, 5]);
    let per_update = |share: f64, bytes: fn(&ClientSummary) -> u64| {
        let updates = of(share).map(|client| client.updates).sum::<u64>() as f64;
        of(share).map(bytes).sum::<u64>() as f64 / updates
    };
    for bytes in [|client: &ClientSummary| client.up, |client: &ClientSummary| client.down] {
        let [whole, half, quarter] = [1.0, 0.5, 0.25].map(|share| per_update(share, bytes));
        assert!(half < 0.6 * whole && quarter < 0.7 * half, "{whole} {half} {quarter}");
    }
    assert_eq!(outcome.clients.iter().map(|client| client.up).sum::<u64>(), report.bytes.up);
    assert_eq!(outcome.clients.iter().map(|client| client.down).sum::<u64>(), report.bytes.down);

    let grpc = Simulation::new(recipe(&sets)).transport(Transport::Grpc).run().unwrap();
    assert_eq!((&grpc.report.model_digest, &grpc.report.sizes), (&report.model_digest, &report.sizes));
    assert_eq!(grpc.report.bytes.up, report.bytes.up);
}

/// Clients that have less of the model than any size of the recipe.
struct Odd(Lines);

impl Workplace for Odd {
    fn model(&self) -> Result<(Layout, Vec<f32>), TrainerError> {
        self.0.model()
    }

    fn examples(&self, client: &ClientId) -> Result<u32, TrainerError> {
        self.0.examples(client)
    }

    fn width(&self, _: &ClientId) -> Width {
        Width::new(0.3).unwrap()
    }

    fn trainer(&self, client: &ClientId) -> Result<Box<dyn Trainer>, TrainerError> {
        self.0.trainer(client)
    }
}

#[test]
fn a_width_that_the_recipe_does_not_have_is_refused_before_anything_runs() {
    let layout = Layout::new(vec![TensorSpec::new("slope", [1]), TensorSpec::new("offset", [1])]).unwrap();
    let odd = Arc::new(Odd(Lines { layout, failing: None }));
    let error = Simulation::new(recipe(&[])).workplace(odd).run().unwrap_err().to_string();
    assert_eq!(error, "client client-00000 has width 0.3, which no size in the recipe has");
}

#[test]
fn a_model_without_parts_has_no_clients_of_several_sizes() {
    let recipe = Recipe { size: recipe(&["size=[{}, {width=0.5}]"]).size, ..recipe(&["model.kind=own:mine"]) };
    let layout = Layout::new(vec![TensorSpec::new("slope", [1]), TensorSpec::new("offset", [1])]).unwrap();
    let error =
        Simulation::new(recipe).workplace(Arc::new(Lines { layout, failing: None })).run().unwrap_err().to_string();
    assert!(error.starts_with("`size.width` is 0.5; it must be 1, because this model is no chain"), "{error}");
}
