//! What was asked for.

use crate::commands::report::page::Section;
use crate::commands::report::view::View;
use maud::html;

pub(super) fn section(view: &View) -> Option<Section> {
    let recipe = view.recipe.as_ref()?;
    let body = html! {
        details {
            summary { "every key and its value" }
            pre { (recipe.to_toml()) }
        }
    };
    Some(Section { id: "recipe", title: "Recipe", body })
}
