//! Figures as rows: each the samples of both servers, the ratio between them, and the target where there is one.

use cairn_tests::server::Kind;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The samples of both servers, in the order they were taken.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Samples {
    pub(crate) theirs: Vec<f64>,
    pub(crate) ours: Vec<f64>,
}

impl Samples {
    pub(crate) fn add(&mut self, kind: Kind, figure: f64) {
        match kind {
            Kind::Redis => self.theirs.push(figure),
            Kind::Cairn => self.ours.push(figure),
        }
    }

    /// Samples of Cairn alone.
    pub(crate) fn ours(figures: impl IntoIterator<Item = f64>) -> Self {
        Self { theirs: Vec::new(), ours: figures.into_iter().collect() }
    }

    /// Median, least and greatest of ours ÷ theirs, round by round: what disturbed the machine in a round met both.
    pub(crate) fn ratio(&self) -> Option<Ratio> {
        let pairs = self.theirs.iter().zip(&self.ours).filter(|(theirs, _)| **theirs > 0.0);
        let ratios: Vec<f64> = pairs.map(|(theirs, ours)| ours / theirs).collect();
        let least = ratios.iter().copied().min_by(f64::total_cmp)?;
        let greatest = ratios.iter().copied().max_by(f64::total_cmp)?;
        Some(Ratio { median: median(&ratios), least, greatest })
    }
}

/// Ours ÷ theirs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

/// What design section 8 asks of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Target {
    /// Ours ÷ theirs is to be no more.
    RatioAtMost(f64),
    /// Ours ÷ theirs is to be no less.
    RatioAtLeast(f64),
    /// Ours is to be no more, whatever theirs is.
    AtMost(f64),
}

/// One line of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) group: String,
    pub(crate) work: String,
    pub(crate) unit: String,
    pub(crate) samples: Samples,
    /// Derived from the samples; written for whoever reads the JSON.
    pub(crate) ratio: Option<Ratio>,
    pub(crate) target: Option<Target>,
    pub(crate) note: String,
}

impl Row {
    pub(crate) fn new(group: &str, work: impl Into<String>, unit: &str, samples: Samples) -> Self {
        let ratio = samples.ratio();
        let (group, work, unit) = (group.to_owned(), work.into(), unit.to_owned());
        Self { group, work, unit, samples, ratio, target: None, note: String::new() }
    }

    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Whether the target is met; `None` without one or without figures.
    pub(crate) fn met(&self) -> Option<bool> {
        match self.target? {
            Target::RatioAtMost(most) => Some(self.ratio?.median <= most),
            Target::RatioAtLeast(least) => Some(self.ratio?.median >= least),
            Target::AtMost(most) => Some(middle(&self.samples.ours)? <= most),
        }
    }

    fn markdown(&self) -> String {
        let figure = |samples: &[f64]| middle(samples).map_or_else(|| "–".to_owned(), digits);
        let (ratio, spread) = match self.ratio {
            Some(ratio) if self.samples.ours.len().min(self.samples.theirs.len()) > 1 => {
                (digits(ratio.median), format!("{}–{}", digits(ratio.least), digits(ratio.greatest)))
            }
            Some(ratio) => (digits(ratio.median), String::new()),
            None => ("–".to_owned(), String::new()),
        };
        let target = match (self.target, self.met()) {
            (None, _) => String::new(),
            (Some(target), met) => {
                let mark = match met {
                    Some(true) => " met",
                    Some(false) => " **missed**",
                    None => "",
                };
                format!("{}{mark}", words(target, &self.unit))
            }
        };
        format!(
            "| {} | {} | {} | {} | {ratio} | {spread} | {target} | {} |",
            self.work,
            figure(&self.samples.theirs),
            figure(&self.samples.ours),
            self.unit,
            self.note
        )
    }
}

fn words(target: Target, unit: &str) -> String {
    match target {
        Target::RatioAtMost(most) => format!("≤ {} ×", digits(most)),
        Target::RatioAtLeast(least) => format!("≥ {} ×", digits(least)),
        Target::AtMost(most) => format!("≤ {} {unit}", digits(most)),
    }
}

/// A table of another shape, printed after the rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Wide {
    pub(crate) group: String,
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) lines: Vec<Vec<String>>,
}

impl Wide {
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n| {} |\n|---|", self.title, self.header.join(" | "));
        text.push_str(&"---:|".repeat(self.header.len().saturating_sub(1)));
        for line in &self.lines {
            write!(text, "\n| {} |", line.join(" | ")).expect("writing to a String does not fail");
        }
        text
    }
}

/// The rows as a table.
pub(crate) fn markdown<'r>(rows: impl Iterator<Item = &'r Row>, peer: &str) -> String {
    let mut text = format!(
        "| work | {peer} | Cairn | unit | Cairn ÷ {peer} | spread | target | |\n|---|---:|---:|---|---:|---|---|---|"
    );
    for row in rows {
        text.push('\n');
        text.push_str(&row.markdown());
    }
    text
}

pub(crate) fn median(figures: &[f64]) -> f64 {
    middle(figures).expect("at least one figure")
}

fn middle(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[sorted.len() / 2 - 1] + upper) / 2.0 })
}

/// Three digits, or all before the point.
pub(crate) fn digits(figure: f64) -> String {
    let size = figure.abs();
    if size >= 99.95 {
        format!("{figure:.0}")
    } else if size >= 9.995 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.2}")
    }
}
