//! Choosing what a restore to a point needs: a base, and the journal from it on.

use cairn_format::Lsn;
use cairn_journal::Until;
use chrono::DateTime;

use super::catalogue::{Base, Catalogue, Lineage, Range, Segment, Stretch};
use crate::{JobError, moment};

/// A point of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// All that was appended at or before this moment, in milliseconds since 1970.
    UnixMs(u64),
    /// All commits that end at or below this LSN.
    Lsn(u64),
    /// All there is.
    Latest,
}

impl Point {
    /// Reads a moment such as `2026-11-23T10:15:04.250Z`; a zone must be given.
    ///
    /// # Errors
    /// [`JobError::Usage`] with what a moment looks like.
    pub fn parse_time(text: &str) -> Result<Self, JobError> {
        let parsed = DateTime::parse_from_rfc3339(text).map_err(|error| {
            let example = "2026-11-23T10:15:04.250Z or 2026-11-23T11:15:04+01:00";
            JobError::Usage(format!(
                "--time {text:?}: {error}; give a moment with its zone, such as {example}"
            ))
        })?;
        let ms = u64::try_from(parsed.timestamp_millis());
        ms.map(Self::UnixMs).map_err(|_| JobError::Usage(format!("--time {text:?} lies before 1970")))
    }

    fn shown(self) -> String {
        match self {
            Self::UnixMs(ms) => moment::rfc3339(ms),
            Self::Lsn(lsn) => format!("LSN {lsn}"),
            Self::Latest => "the newest state".to_owned(),
        }
    }

    pub(crate) fn until(self) -> Until {
        match self {
            Self::UnixMs(ms) => Until::UnixMs(ms),
            Self::Lsn(lsn) => Until::Lsn(Lsn(lsn)),
            Self::Latest => Until::End,
        }
    }
}

/// What a restore to a point takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The history.
    pub lineage: String,
    /// The point.
    pub point: Point,
    /// What it begins with.
    pub base: Base,
    /// The journal from there on, up to the segment that holds the point; none if the base is the point.
    pub segments: Vec<Part>,
}

/// The part of a segment that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The segment.
    pub segment: Segment,
    /// The pieces to read, in order.
    pub stretches: Vec<Stretch>,
}

impl Part {
    /// Where in the segment's file it ends.
    pub fn end(&self) -> u64 {
        self.stretches.last().map_or(0, |stretch| stretch.piece.name.end)
    }

    fn whole(segment: &Segment) -> Self {
        Self { segment: segment.clone(), stretches: segment.stretches() }
    }

    /// Up to the first piece that reaches past the point.
    fn up_to(segment: &Segment, point: Point) -> Self {
        let mut part = Self::whole(segment);
        let passes =
            |stretch: &Stretch| passes(point, stretch.piece.name.unix_ms, stretch.piece.name.end_lsn);
        if let Some(last) = part.stretches.iter().position(passes) {
            part.stretches.truncate(last + 1);
        }
        part
    }
}

/// Whether a place with this moment and LSN lies past the point.
fn passes(point: Point, unix_ms: u64, lsn: u64) -> bool {
    match point {
        Point::UnixMs(ms) => unix_ms > ms,
        Point::Lsn(limit) => lsn >= limit,
        Point::Latest => false,
    }
}

impl Plan {
    /// How many objects are read.
    pub fn objects(&self) -> u64 {
        let pieces: usize = self.segments.iter().map(|part| part.stretches.len()).sum();
        (self.base.manifest.objects.iter().filter(|object| is_snapshot(object)).count() + pieces) as u64
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        let snapshot: u64 = self
            .base
            .manifest
            .objects
            .iter()
            .filter(|object| is_snapshot(object))
            .map(|object| object.bytes)
            .sum();
        snapshot + self.segments.iter().map(Part::end).sum::<u64>()
    }

    /// The LSN that the pieces reach: the point is not past it.
    pub fn reach_lsn(&self) -> u64 {
        self.segments
            .last()
            .and_then(|part| part.stretches.last())
            .map_or(self.base.lsn, |stretch| stretch.piece.name.end_lsn)
    }
}

pub(crate) fn is_snapshot(object: &crate::manifest::ObjectEntry) -> bool {
    object.kind == crate::manifest::ObjectKind::Snapshot
}

impl Catalogue {
    /// Chooses what a restore to a point takes. `lineage` narrows the choice to one history.
    ///
    /// # Errors
    /// [`JobError::NotRestorable`] with what can be restored, also where more than one history has such a point.
    pub fn plan(&self, point: Point, lineage: Option<&str>) -> Result<Plan, JobError> {
        let mut ranges = self.ranges();
        if let Some(lineage) = lineage {
            ranges.retain(|range| range.lineage == lineage);
        }
        let refused = |why: String| JobError::NotRestorable {
            asked: point.shown(),
            why,
            restorable: ranges.iter().map(shown).collect(),
        };
        let inside: Vec<&Range> = match point {
            Point::Latest => ranges.iter().max_by_key(|range| self.newest(range)).into_iter().collect(),
            Point::UnixMs(ms) => {
                let holds = |range: &&Range| (range.from_unix_ms..=range.to_unix_ms).contains(&ms);
                ranges.iter().filter(holds).collect()
            }
            Point::Lsn(lsn) => {
                ranges.iter().filter(|range| (range.from_lsn..=range.to_lsn).contains(&lsn)).collect()
            }
        };
        let range = match inside[..] {
            [] => return Err(refused("it lies outside of what the repository holds".to_owned())),
            [range] => range,
            _ => {
                let states = inside
                    .iter()
                    .map(|range| format!("LSN {} to {} of {}", range.from_lsn, range.to_lsn, range.lineage));
                let states = states.collect::<Vec<_>>().join(" and ");
                return Err(refused(format!(
                    "it is in several histories ({states}); name one with --lineage"
                )));
            }
        };
        let lineage =
            self.lineage(&range.lineage).ok_or_else(|| refused("its history is gone".to_owned()))?;
        lineage.plan(point, range).ok_or_else(|| refused("no snapshot lies before it".to_owned()))
    }

    fn newest(&self, range: &Range) -> (u64, u64) {
        let lineage = self.lineage(&range.lineage);
        (lineage.map_or(0, Lineage::newest_unix_ms), range.to_lsn)
    }
}

impl Lineage {
    fn plan(&self, point: Point, range: &Range) -> Option<Plan> {
        let runs = self.runs();
        let run = runs.iter().find(|run| {
            run.first().is_some_and(|first| first.first_lsn <= range.from_lsn)
                && run.last().is_some_and(|last| last.end_lsn() >= range.to_lsn)
        });
        let usable = |base: &&Base| {
            let before = match point {
                Point::UnixMs(ms) => base.from_unix_ms <= ms,
                Point::Lsn(lsn) => base.lsn <= lsn,
                Point::Latest => true,
            };
            before && (range.from_lsn..=range.to_lsn).contains(&base.lsn)
        };
        let base = self.bases.iter().filter(usable).max_by_key(|base| base.lsn)?.clone();
        let plan = |base, segments| Some(Plan { lineage: self.id.clone(), point, base, segments });
        let Some(run) = run else { return plan(base, Vec::new()) };
        if point == Point::Lsn(base.lsn) {
            return plan(base, Vec::new());
        }
        let first = run.iter().rposition(|segment| segment.first_lsn <= base.lsn)?;
        let passes = |segment: &Segment| {
            segment.reach().is_some_and(|reach| passes(point, reach.unix_ms, reach.end_lsn))
        };
        let from = run.get(first..)?;
        let last = from.iter().position(passes).unwrap_or(from.len() - 1);
        let mut parts: Vec<Part> = from.iter().take(last).map(Part::whole).collect();
        parts.extend(from.get(last).map(|segment| Part::up_to(segment, point)));
        plan(base, parts)
    }
}

fn shown(range: &Range) -> String {
    let Range { lineage, from_lsn, to_lsn, from, to, .. } = range;
    if range.to_unix_ms < range.from_unix_ms {
        return format!("LSN {from_lsn} to {to_lsn} of {lineage}");
    }
    format!("{from} to {to} (LSN {from_lsn} to {to_lsn}) of {lineage}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_need_a_zone() {
        let ms = |text| match Point::parse_time(text) {
            Ok(Point::UnixMs(ms)) => Some(ms),
            _ => None,
        };
        assert_eq!(ms("2026-11-23T10:15:04.250Z"), Some(1_795_428_904_250));
        assert_eq!(ms("2026-11-23T11:15:04.250+01:00"), Some(1_795_428_904_250));
        assert_eq!(ms("2026-11-23 10:15:04Z"), Some(1_795_428_904_000));
        for bad in ["2026-11-23T10:15:04", "2026-11-23", "now", "", "1960-01-01T00:00:00Z", "1795428904250"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }
}
