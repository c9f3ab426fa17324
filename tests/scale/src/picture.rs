//! The table as a picture: one chart of bars for each figure.

use std::fmt::Write as _;

use super::measure::Row;

const WIDTH: usize = 720;
const CHART: usize = 120;

/// One figure of every row, with what it is measured against.
struct Chart {
    title: &'static str,
    goal: f64,
    values: Vec<f64>,
}

/// Bytes that came to a peer until all reached all, for each link that its end told of.
#[expect(clippy::cast_precision_loss, reason = "byte counts far below 2^52")]
fn bytes_a_link(row: &Row) -> f64 {
    row.formed as f64 / (row.peers * row.degree) as f64
}

/// Draws the rows.
pub(crate) fn draw(rows: &[Row]) -> String {
    let chart =
        |title, goal, value: fn(&Row) -> f64| Chart { title, goal, values: rows.iter().map(value).collect() };
    let charts = [
        chart("all reach all after the last start, 5 % loss, seconds (goal 10)", 10.0, |row| {
            row.converged.unwrap_or(60.0)
        }),
        chart("one change to the last peer, milliseconds (goal 300)", 300.0, |row| row.slowest * 1e3),
        chart(
            "bytes until then at each peer for each link of the mesh (goal: no more than in the smallest)",
            rows.first().map_or(0.0, bytes_a_link),
            bytes_a_link,
        ),
        chart("copies of a change at each peer (goal 2)", 2.0, |row| row.copies),
        chart("memory of a peer, MiB (goal 64)", 64.0, |row| super::mebibytes(row.memory)),
    ];
    let height = charts.len() * CHART + 20;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (index, chart) in charts.iter().enumerate() {
        bars(&mut svg, chart, rows, index * CHART + 20);
    }
    svg.push_str("</svg>\n");
    svg
}

fn bars(svg: &mut String, chart: &Chart, rows: &[Row], top: usize) {
    let most = chart.values.iter().copied().fold(chart.goal, f64::max);
    let _ = writeln!(svg, "<text x=\"10\" y=\"{top}\" font-weight=\"bold\">{}</text>", chart.title);
    for (place, (row, value)) in rows.iter().zip(&chart.values).enumerate() {
        let y = top + 10 + place * 24;
        let (width, colour) = (value / most * 400.0, if *value <= chart.goal { "#3a7" } else { "#c43" });
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\">{} peers</text><rect x=\"110\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{value:.2}</text>",
            y + 14,
            row.peers,
            width + 116.0,
            y + 14
        );
    }
    let x = 110.0 + chart.goal / most * 400.0;
    let (from, to) = (top + 6, top + 10 + rows.len() * 24);
    let _ = writeln!(svg, "<path d=\"M{x:.1} {from}V{to}\" stroke=\"#555\" stroke-dasharray=\"3\"/>");
}
