//! What each layer loses when its weights are stored in fewer bits.

use crate::commands::report::page::Section;
use crate::commands::report::page::plot::{Colour, dots};
use crate::commands::report::view::View;
use maud::html;

pub(super) fn section(view: &View) -> Option<Section> {
    let layers = view.model.layers.iter();
    let rows: Vec<_> = layers
        .filter_map(|layer| Some((layer.name.as_str(), layer.error?)))
        .map(|(name, error)| (name, vec![error.shared, error.int8, error.int4]))
        .collect();
    if rows.is_empty() {
        return None;
    }
    let series = [("32 shared values", Colour::First), ("int8", Colour::Second), ("int4", Colour::Third)];
    let body = html! {
        div.plots { (dots("error by layer", &series, &rows)) }
        p.note {
            "The root of the squared error over the squared weights, of the final model as it is. int8 and int4 have a scale for "
            "each output channel."
        }
    };
    Some(Section { id: "quantization", title: "Quantization error", body })
}
