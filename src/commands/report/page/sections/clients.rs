//! Clients: who was asked and who counted, what was refused, and what it cost them.

use super::smaller;
use crate::commands::output::{bytes, count, percent, seconds};
use crate::commands::report::page::Section;
use crate::commands::report::page::plot::{Axes, Colour, Series, Unit, lines, share};
use crate::commands::report::view::View;
use dunlin::RoundSummary;
use dunlin::core::report::ClientSummary;
use maud::{Markup, html};

pub(super) fn section(view: &View) -> Option<Section> {
    let series = |name, colour, value: fn(&RoundSummary) -> u32| {
        let points = view.rounds.iter().map(|round| (round.round as f64, value(round).into()));
        Series { name, colour, points: points.collect() }
    };
    let axes = Axes { x: ("round", Unit::Count), y: Unit::Count, from_zero: true };
    let mut cohort = vec![
        series("asked", Colour::Quiet, |round| round.chosen),
        series("counted", Colour::First, |round| round.clients),
        series("lost", Colour::Second, |round| round.lost),
    ];
    if view.rounds.iter().any(|round| round.rejected > 0) {
        cohort.push(series("messages refused", Colour::Third, |round| round.rejected));
    }
    let cohort = lines("clients of a round", &axes, &cohort)?;
    let body = html! {
        div.plots { (cohort) (cost(view)) }
        (refused(view))
        (classes(view))
        (by_client(view))
    };
    Some(Section { id: "clients", title: "Clients", body })
}

fn cost(view: &View) -> Markup {
    let cost = &view.cost;
    let row = |what: &str, value: f64| {
        let value = value.round() as u64;
        html! { tr { th { (what) } td { (bytes(value)) } td { (smaller(cost.dense, value)) } } }
    };
    html! {
        figure {
            figcaption { "what taking part costs, on average" }
            table {
                tbody {
                    (row("up, for an update that counted", cost.up))
                    (row("down, for each time a client was asked", cost.down))
                    tr { th { "either as f32" } td { (bytes(cost.dense)) } td {} }
                    @if let Some(simulated) = cost.round_seconds {
                        tr { th { "a round, simulated" } td { (seconds(simulated)) } td {} }
                    }
                }
            }
            p.note {
                (count(cost.updates)) " updates counted; clients were asked " (count(cost.chosen)) " times."
            }
        }
    }
}

fn refused(view: &View) -> Markup {
    let rejects = &view.report.rejects;
    let all: u32 = rejects.values().sum();
    html! {
        @if all > 0 {
            h3 { "Messages refused" }
            div.table {
                table {
                    thead { tr { th { "reason" } th { "messages" } th { "share" } } }
                    tbody {
                        @for (reason, &n) in rejects {
                            tr {
                                th { (reason.replace('_', " ")) }
                                td { (count(n.into())) }
                                td { (share(f64::from(n) / f64::from(all))) }
                            }
                        }
                    }
                }
            }
        } @else {
            p.note { "No message was refused." }
        }
    }
}

fn classes(view: &View) -> Markup {
    html! {
        @if !view.classes.is_empty() {
            h3 { "What the run cost a client, by its link" }
            div.table {
                table {
                    thead { tr { th { "class" } th { "clients" } th { "updates" } th { "up" } th { "down" } th { "busy" } } }
                    tbody {
                        @for class in &view.classes {
                            tr {
                                th { (class.class) }
                                td { (count(class.clients)) }
                                td { (format!("{:.1}", class.updates)) }
                                td { (bytes(class.up.round() as u64)) }
                                td { (bytes(class.down.round() as u64)) }
                                td { (seconds(class.busy_seconds)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn by_client(view: &View) -> Markup {
    if view.clients.is_empty() {
        return html! { p.note { "Bytes were counted for all clients together, not one by one." } };
    }
    let sent = |client: &ClientSummary| client.up + client.down;
    let mut clients: Vec<_> = view.clients.iter().collect();
    clients.sort_by_key(|client| std::cmp::Reverse(sent(client)));
    let most = clients.first().map_or(0, |client| sent(client)).max(1);
    let median = sent(clients[clients.len() / 2]);
    let least = clients.last().map_or(0, |client| sent(client));
    let (is_classed, is_timed) = (!view.classes.is_empty(), clients.iter().any(|client| client.busy_seconds > 0.0));
    let all: u64 = clients.iter().map(|client| sent(client)).sum::<u64>().max(1);
    html! {
        h3 { "By client" }
        p.note {
            "Both ways " (bytes(most)) " at most, " (bytes(median)) " in the middle, " (bytes(least)) " at least."
            @if clients.len() > MAX_CLIENTS {
                " The " (MAX_CLIENTS) " clients with most bytes, of " (count(clients.len() as u64)) ":"
            }
        }
        div.table {
            table {
                thead {
                    tr {
                        th { "client" }
                        @if is_classed { th { "link" } }
                        th { "examples" } th { "updates" } th { "up" } th { "down" }
                        @if is_timed { th { "busy, simulated" } }
                        th { "of all bytes" } th { "both ways" }
                    }
                }
                tbody {
                    @for client in clients.iter().take(MAX_CLIENTS) {
                        tr {
                            th { (client.client) }
                            @if is_classed { td { (client.class.as_deref().unwrap_or("–")) } }
                            td { (count(client.examples.into())) }
                            td { (count(client.updates)) }
                            td { (bytes(client.up)) }
                            td { (bytes(client.down)) }
                            @if is_timed { td { (seconds(client.busy_seconds)) } }
                            td { (percent(sent(client) as f64 / all as f64)) }
                            td { (share(sent(client) as f64 / most as f64)) }
                        }
                    }
                }
            }
        }
    }
}

/// Clients that have a row of their own.
const MAX_CLIENTS: usize = 20;
