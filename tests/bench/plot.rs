//! Two plots as SVG, written by hand: a plotting library would be larger than this file. Their colours are read on white and
//! on dark backgrounds alike, since a README is shown on both.

use crate::report::{Report, Series};
use crate::table::{Row, Target, digits};
use std::fmt::Write;

const WIDTH: f64 = 900.0;
const TEXT: &str = "#7a828c";
const GRID: &str = "#8a919a";
const OURS: &str = "#2f8f5b";
const THEIRS: &str = "#d1742f";
const MISSED: &str = "#c2483f";
const TARGET: &str = "#3f7fd0";

/// An SVG that grows line by line.
struct Drawing {
    text: String,
}

impl Drawing {
    fn new(height: f64, title: &str) -> Self {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\" role=\"img\">\n<title>{title}</title>\n"
        );
        let mut drawing = Self { text };
        drawing.words(16.0, 26.0, "start", 16, title);
        drawing
    }

    fn add(&mut self, element: &str) {
        self.text.push_str(element);
        self.text.push('\n');
    }

    fn words(&mut self, x: f64, y: f64, anchor: &str, size: usize, words: &str) {
        let words = words.replace('&', "&amp;").replace('<', "&lt;");
        self.add(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" fill=\"{TEXT}\">{words}</text>"
        ));
    }

    fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str, opacity: f64) {
        self.add(&format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\" opacity=\"{opacity}\"/>"
        ));
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64, opacity: f64) {
        self.add(&format!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\" opacity=\"{opacity}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    /// Words below each other, as many a line as fit.
    fn caption(&mut self, y: f64, words: &str) {
        const FIT: usize = 132;
        let mut line = String::new();
        let mut y = y;
        for word in words.split(' ') {
            if line.len() + word.len() > FIT {
                self.words(16.0, y, "start", 12, &line);
                line.clear();
                y += 16.0;
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.words(16.0, y, "start", 12, &line);
    }

    fn end(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

/// A row of the plot of ratios: what it is called, the ratio, the target as a ratio, and whether more is better.
struct Bar<'r> {
    row: &'r Row,
    ratio: f64,
    target: f64,
    more_is_better: bool,
}

fn bars(report: &Report) -> Vec<Bar<'_>> {
    let bar = |row| {
        let row: &Row = row;
        let ratio = row.ratio?.median;
        let (target, more_is_better) = match row.target? {
            Target::RatioAtMost(most) => (most, false),
            Target::RatioAtLeast(least) => (least, true),
            // An absolute target, beside what the peer takes.
            Target::AtMost(most) => (most * ratio / crate::table::median(&row.samples.ours).max(1e-9), false),
        };
        Some(Bar { row, ratio, target, more_is_better })
    };
    report.rows.iter().filter_map(bar).collect()
}

/// Bars of ours ÷ theirs, in two blocks: where less is better, and where more is.
pub(crate) fn ratios(report: &Report) -> Option<String> {
    const LEFT: f64 = 470.0;
    const ROW: f64 = 24.0;
    let bars = bars(report);
    if bars.is_empty() {
        return None;
    }
    let blocks =
        [false, true].iter().filter(|more| bars.iter().any(|bar| bar.more_is_better == **more)).count();
    let height = 120.0 + bars.len() as f64 * ROW + blocks as f64 * 44.0;
    let title = format!("Cairn ÷ {}", report.machine.peer);
    let mut drawing = Drawing::new(height, &title);
    legend(&mut drawing);
    let mut y = 78.0;
    for (more_is_better, heading) in [(false, "less is better"), (true, "more is better")] {
        let block: Vec<&Bar<'_>> = bars.iter().filter(|bar| bar.more_is_better == more_is_better).collect();
        if block.is_empty() {
            continue;
        }
        let most = block.iter().flat_map(|bar| [bar.ratio, bar.target, 1.0]).fold(1.0, f64::max).min(3.0);
        let scale = (WIDTH - LEFT - 70.0) / most;
        drawing.words(16.0, y, "start", 13, heading);
        let (top, bottom) = (y + 6.0, y + 10.0 + block.len() as f64 * ROW);
        drawing.line((LEFT, top), (LEFT, bottom), GRID, 1.0, 0.8);
        drawing.line((LEFT + scale, top), (LEFT + scale, bottom), GRID, 1.0, 0.8);
        drawing.words(LEFT + scale, bottom + 14.0, "middle", 11, "1 ×");
        for bar in block {
            y += ROW;
            draw_bar(&mut drawing, bar, (LEFT, y - 8.0), scale, most);
        }
        y += 44.0;
    }
    drawing.caption(
        y + 4.0,
        &format!("{}. Median of rounds that alternate; `make bench`.", report.machine.caption()),
    );
    Some(drawing.end())
}

fn legend(drawing: &mut Drawing) {
    drawing.bar(16.0, 40.0, 14.0, 10.0, OURS, 0.9);
    drawing.words(36.0, 50.0, "start", 12, "target met");
    drawing.bar(120.0, 40.0, 14.0, 10.0, MISSED, 0.9);
    drawing.words(140.0, 50.0, "start", 12, "not met");
    drawing.line((212.0, 38.0), (212.0, 52.0), TARGET, 3.0, 1.0);
    drawing.words(220.0, 50.0, "start", 12, "target");
    drawing.line((280.0, 45.0), (300.0, 45.0), GRID, 2.0, 1.0);
    drawing.words(306.0, 50.0, "start", 12, "least to greatest of the rounds");
}

fn draw_bar(drawing: &mut Drawing, bar: &Bar<'_>, at: (f64, f64), scale: f64, most: f64) {
    let (left, y) = at;
    let place = |ratio: f64| left + ratio.min(most) * scale;
    let colour = if bar.row.met() == Some(true) { OURS } else { MISSED };
    drawing.words(left - 10.0, y + 11.0, "end", 12, &short(&bar.row.work));
    drawing.bar(left, y, place(bar.ratio) - left, 14.0, colour, 0.9);
    if let Some(ratio) = bar.row.ratio {
        drawing.line((place(ratio.least), y + 7.0), (place(ratio.greatest), y + 7.0), GRID, 2.0, 1.0);
    }
    drawing.line((place(bar.target), y - 3.0), (place(bar.target), y + 17.0), TARGET, 3.0, 1.0);
    let right = place(bar.ratio.max(bar.target).max(bar.row.ratio.map_or(0.0, |ratio| ratio.greatest)));
    drawing.words(right + 8.0, y + 11.0, "start", 12, &digits(bar.ratio));
}

/// What is in parentheses is for the table.
fn short(work: &str) -> String {
    let text = work.split(" (").next().unwrap_or(work);
    let replaced = text
        .replace(
            "memory per key beyond key and value, mean of 0.7, 1.0 and 1.4 million keys",
            "memory per key beyond key and value",
        )
        .replace("server CPU per operation", "CPU per operation")
        .replace(", third snapshot and later", ", third snapshot")
        .replace("requests over 1 ms in 6 s, beyond those without a snapshot", "requests over 1 ms")
        .replace(" of GET and SET", "");
    replaced.trim().to_owned()
}

/// The longest request of each slice of time while a snapshot is taken, on a logarithmic scale.
pub(crate) fn latency(report: &Report) -> Option<String> {
    const HEIGHT: f64 = 450.0;
    const TOP: f64 = 90.0;
    const BOTTOM: f64 = 360.0;
    if report.series.is_empty() {
        return None;
    }
    let peer = report.peer();
    let mut drawing = Drawing::new(HEIGHT, "Longest request of each 20 ms while a snapshot is taken");
    let seconds =
        report.series.iter().map(|series| series.longest_ms.len() as f64 * series.slice).fold(0.0, f64::max);
    let (left, right) = (64.0, WIDTH - 24.0);
    let x = |second: f64| left + second.clamp(0.0, seconds) / seconds * (right - left);
    let most = report.series.iter().flat_map(|series| series.longest_ms.iter().copied()).fold(10.0, f64::max);
    let decades = most.log10().ceil() + 1.0;
    // From 0.1 ms, ten times as much at each line.
    let y = |ms: f64| BOTTOM - ((ms.max(0.1).log10() + 1.0) / decades).min(1.0) * (BOTTOM - TOP);
    axes(&mut drawing, (seconds, decades), (left, right, BOTTOM), (&x, &y));
    for (at, series) in report.series.iter().enumerate() {
        let (colour, name) = if series.ours { (OURS, "Cairn") } else { (THEIRS, peer) };
        let band = TOP - 22.0 + at as f64 * 7.0;
        drawing.bar(
            x(series.snapshot.0),
            band,
            x(series.snapshot.1) - x(series.snapshot.0),
            5.0,
            colour,
            0.9,
        );
        drawing.add(&curve(series, colour, &x, &y));
        let column = 16.0 + at as f64 * 300.0;
        drawing.line((column, 44.0), (column + 24.0, 44.0), colour, 3.0, 1.0);
        let took = digits(series.snapshot.1 - series.snapshot.0);
        drawing.words(column + 32.0, 48.0, "start", 12, &format!("{name} (its snapshot took {took} s)"));
    }
    let what = format!(
        "A steady {} requests a second, GET and SET, counted from the moment each was due; the third snapshot under it begins \
         at 0 s (bars on top: while it is taken).",
        report.series[0].rate
    );
    drawing.caption(BOTTOM + 44.0, &format!("{what} {}.", report.machine.caption()));
    Some(drawing.end())
}

/// From a figure to a place in the drawing.
type Scale<'s> = dyn Fn(f64) -> f64 + 's;

fn curve(series: &Series, colour: &str, x: &Scale<'_>, y: &Scale<'_>) -> String {
    let mut points = String::new();
    for (at, ms) in series.longest_ms.iter().enumerate() {
        let second = (at as f64 + 0.5) * series.slice;
        write!(points, "{:.1},{:.1} ", x(second), y(*ms)).expect("writing to a String does not fail");
    }
    format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" opacity=\"0.95\"/>",
        points.trim_end()
    )
}

/// Lines at each tenfold of a millisecond, and a mark at each second from the begin of the snapshot.
fn axes(drawing: &mut Drawing, most: (f64, f64), edges: (f64, f64, f64), scales: (&Scale<'_>, &Scale<'_>)) {
    let ((seconds, decades), (left, right, bottom), (x, y)) = (most, edges, scales);
    for decade in 0..=decades as i32 {
        let ms = 10_f64.powi(decade - 1);
        drawing.line((left, y(ms)), (right, y(ms)), GRID, 1.0, 0.35);
        drawing.words(left - 8.0, y(ms) + 4.0, "end", 12, &format!("{ms} ms"));
    }
    for second in 0..=seconds as i32 {
        let at = x(f64::from(second));
        drawing.line((at, bottom), (at, bottom + 5.0), GRID, 1.0, 0.8);
        drawing.words(at, bottom + 20.0, "middle", 12, &format!("{} s", second - 1));
    }
}
