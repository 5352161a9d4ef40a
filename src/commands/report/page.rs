//! The report as one HTML page that needs nothing but itself.

mod plot;
mod scale;
mod sections;

use super::view::View;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sections::{SECTIONS, overview};

/// A part of the page.
struct Section {
    /// What links to it.
    id: &'static str,
    title: &'static str,
    body: Markup,
}

/// The page. The browser is told to load nothing, so that what slipped in could not do harm.
pub(super) fn page(view: &View) -> String {
    let sections: Vec<Section> = SECTIONS.iter().filter_map(|section| section(view)).collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="generator" content={ "dunlin " (env!("CARGO_PKG_VERSION")) };
                title { (view.report.name) " – Dunlin" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (overview::header(view))
                    nav { @for section in &sections { a href={ "#" (section.id) } { (section.title) } } }
                    @for section in &sections {
                        section id=(section.id) {
                            h2 { (section.title) }
                            (section.body)
                        }
                    }
                    footer { "model digest " code { (view.report.model_digest) } }
                }
            }
        }
    };
    page.into_string()
}

const STYLE: &str = include_str!("page/style.css");

#[cfg(test)]
mod tests {
    use super::super::view::tests::view;
    use super::*;

    #[test]
    fn the_page_is_whole_and_refers_to_nothing_outside() {
        let page = page(&view());
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"), "{page}");
        for outside in ["http://", "https://", "src=", "url(", "@import", "<script", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        let links = page.matches("href=\"").count();
        assert_eq!(links, page.matches("href=\"#").count());
        for section in SECTIONS.iter().filter_map(|section| section(&view())) {
            assert!(page.contains(&format!("href=\"#{}\"", section.id)), "{}", section.id);
        }
    }

    #[test]
    fn names_and_reasons_are_text_and_not_markup() {
        let page = page(&view());
        assert!(page.contains("<h1>a &lt;b&gt; &amp; &quot;c&quot;</h1>"), "{page}");
        assert!(page.contains("there is &lt;none&gt;") && page.contains("w&lt;eight&gt;"), "{page}");
        assert!(!page.contains("<none>") && !page.contains("<eight>"), "{page}");
    }

    #[test]
    fn a_run_that_goes_on_says_so() {
        let page = page(&View { goes_on: true, ..view() });
        assert!(page.contains("the run has not ended") && !page.contains("all rounds were run"));
    }
}
