//! A run's results as files: the model for other programs, the report for scripts.

use crate::model::Model;
use dunlin_core::report::ClientSummary;
use dunlin_core::{Layout, Recipe, Report, RoundSummary};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// The parameters as a safetensors file: one f32 tensor for each of the layout's, under its name.
///
/// # Errors
/// When the parameters are not as many as the layout's.
pub fn safetensors(layout: &Layout, params: &[f32], about: &BTreeMap<String, String>) -> io::Result<Vec<u8>> {
    if params.len() != layout.len() {
        let message = format!("{} parameters for a layout of {}", params.len(), layout.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let bytes: Vec<u8> = params.iter().flat_map(|value| value.to_le_bytes()).collect();
    let views = layout.tensors().iter().enumerate().map(|(index, tensor)| {
        let range = layout.range(index);
        let data = &bytes[4 * range.start..4 * range.end];
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), data);
        (tensor.name.as_str(), view.expect("a layout's shapes multiply to its lengths"))
    });
    let about: HashMap<String, String> = about.clone().into_iter().collect();
    Ok(in_order(&serialize(views, Some(about)).map_err(io::Error::other)?))
}

/// A safetensors file, as the library has just made it, with the names in its header in order: metadata are in another one
/// each time, and the same model is to be the same file.
pub(crate) fn in_order(file: &[u8]) -> Vec<u8> {
    const OWN: &str = "the library has written it";
    let (len, rest) = file.split_first_chunk::<8>().expect(OWN);
    let (header, values) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let mut names: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).expect(OWN);
    if let Some(metadata) = names.get_mut("__metadata__") {
        // A tensor may have that name, and then nobody can read the file.
        let Ok(words) = serde_json::from_value::<BTreeMap<String, String>>(metadata.clone()) else {
            return file.to_vec();
        };
        *metadata = serde_json::to_value(words).expect(OWN);
    }
    let mut header = serde_json::to_vec(&names).expect(OWN);
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header, values].concat()
}

/// What a run leads to, as far as it is written for people and programs.
#[derive(Clone, Copy, Debug)]
pub struct Results<'a> {
    /// What was asked for.
    pub recipe: &'a Recipe,
    /// The end of the run.
    pub report: &'a Report,
    /// Every round.
    pub rounds: &'a [RoundSummary],
    /// What it cost each client; empty where that was not counted.
    pub clients: &'a [ClientSummary],
    /// The architecture.
    pub model: &'a Model,
    /// The final model's parameters, of what is left of it.
    pub params: &'a [f32],
    /// A model that learned from it, and its parameters.
    pub student: Option<(&'a Model, &'a [f32])>,
}

impl Results<'_> {
    /// Writes `recipe.toml`, `report.json`, `rounds.jsonl`, `clients.jsonl`, `model.safetensors` and, where there is a
    /// student, `student.safetensors` into `dir`, making it when it does not exist. The model has the weights that it is deployed with, rounded where its recipe says so, and
    /// tells its architecture, so that it can be run and exported from the file alone.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        write(&dir.join("recipe.toml"), self.recipe.to_toml().as_bytes())?;
        let mut json = serde_json::to_vec_pretty(self.report)?;
        json.push(b'\n');
        write(&dir.join("report.json"), &json)?;
        write(&dir.join("rounds.jsonl"), &lines(self.rounds)?)?;
        write(&dir.join("clients.jsonl"), &lines(self.clients)?)?;
        let deployed = self.model.deployed(self.params);
        let (model, params) =
            deployed.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        let mut about = model.about();
        about.extend([
            ("format".to_owned(), "dunlin".to_owned()),
            ("name".to_owned(), self.report.name.clone()),
            ("model_digest".to_owned(), self.report.model_digest.clone()),
        ]);
        write(&dir.join("model.safetensors"), &safetensors(model.layout(), &params, &about)?)?;
        if let Some((student, params)) = self.student {
            let mut about = student.about();
            about.insert("format".to_owned(), "dunlin".to_owned());
            write(&dir.join("student.safetensors"), &safetensors(student.layout(), params, &about)?)?;
        }
        Ok(())
    }
}

/// One JSON object a line.
fn lines(values: &[impl Serialize]) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for value in values {
        serde_json::to_writer(&mut lines, value)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Through another name, so that a reader never sees half a file.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staging = path.with_extension("new");
    std::fs::write(&staging, bytes)?;
    std::fs::rename(staging, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_core::TensorSpec;

    #[test]
    fn a_model_reads_back_by_name_and_a_wrong_length_is_refused() {
        let layout = Layout::new(vec![TensorSpec::new("w", [2, 2]), TensorSpec::new("b", [1])]).unwrap();
        let params = [1.0, 2.0, 3.0, 4.0, 5.0];
        let bytes = safetensors(&layout, &params, &BTreeMap::new()).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let w = file.tensor("w").unwrap();
        assert_eq!(w.shape(), [2, 2]);
        assert_eq!(w.data(), params[..4].iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
        assert_eq!(file.tensor("b").unwrap().data(), 5.0f32.to_le_bytes());
        assert!(safetensors(&layout, &params[1..], &BTreeMap::new()).is_err());
    }

    #[test]
    fn the_same_model_is_the_same_file() {
        let layout = Layout::new(vec![TensorSpec::new("w", [2]), TensorSpec::new("b", [1])]).unwrap();
        let about: BTreeMap<String, String> = (0..9).map(|i| (format!("word {i}"), i.to_string())).collect();
        let file = || safetensors(&layout, &[1.0, 2.0, 3.0], &about).unwrap();
        assert!((0..20).all(|_| file() == file()));
        let odd = Layout::new(vec![TensorSpec::new("__metadata__", [1])]).unwrap();
        assert!(safetensors(&odd, &[1.0], &about).is_ok(), "nobody can read it, but nothing breaks");
        let (_, read) = safetensors::SafeTensors::read_metadata(&file()).unwrap();
        assert_eq!(read.metadata().as_ref().unwrap().len(), 9);
        assert_eq!(
            safetensors::SafeTensors::deserialize(&file()).unwrap().tensor("b").unwrap().data(),
            3f32.to_le_bytes()
        );
    }
}
